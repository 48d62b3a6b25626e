//! The files of a base: sealed chunks and plain objects.
//!
//! Asserts: what was uploaded is what is downloaded, once and again; a changed, cut or longer object is refused; whatever
//! is accepted has the bytes that the base's document promises.

use std::{io::Cursor, sync::Arc};

use bytes::Bytes;
use futures::executor::block_on;
use pitr_archive::{
    Error,
    base::{CHUNK, FileIdentity, HEADER_LEN, Sent, Source},
    catalog::{
        archive::{Archive, EpochClaim},
        schema::BaseFile,
    },
    cipher::{Purpose, associated},
    clock::{ManualClock, Micros},
    code::Code,
    ids::{ColumnFamilyId, ContentHash, FileNumber},
    object_key::ObjectKey,
    random::SeededRandom,
    store::memory::MemoryStore,
};

use super::{
    identity::master,
    input::{Input, damage, refused},
};

/// Files are sealed.
pub const SEALED: u8 = 1;
/// The file is a little longer than a chunk, whatever the input's length. Two bits, because it is slow.
pub const LONG: u8 = 2 | 16;
/// The object is not the file's but the input, its header's checksum mended.
pub const STORED: u8 = 4;
/// The object is cut, and not changed.
pub const CUT: u8 = 8;

const CODES: &[Code] =
    &[Code::ObjectDamaged, Code::ObjectUnsupported, Code::WrongArchive, Code::ObjectMissing, Code::KeyRequired];

struct Place {
    store: MemoryStore,
    archive: Archive,
    claim: EpochClaim,
    random: SeededRandom,
}

impl Place {
    fn new(sealed: bool) -> Self {
        let (store, random) = (MemoryStore::new(), SeededRandom::new(5));
        let clock = ManualClock::new(Micros(0));
        let archive =
            block_on(Archive::open_or_create(Arc::new(store.clone()), sealed.then(master), &clock, &random)).unwrap();
        let claim = block_on(archive.claim_epoch("fuzz", &clock, &random)).unwrap();
        Self { store, archive, claim, random }
    }

    fn download(&self, file: &BaseFile) -> Result<Vec<u8>, Error> {
        block_on(async {
            let mut out = Vec::new();
            let mut download = self.archive.download_file(file).await?;
            while let Some(piece) = download.next().await? {
                out.extend_from_slice(&piece);
            }
            Ok(out)
        })
    }
}

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let (at, xor) = (input.u32() as usize, input.u8());
    let bytes = input.rest();
    let place = Place::new(flags & SEALED != 0);
    let mut content = bytes.to_vec();
    let long = flags & LONG == LONG && !content.is_empty();
    if long {
        content = content.repeat(CHUNK / content.len() + 1);
    }
    let size = content.len() as u64;
    let identity = FileIdentity::unique(place.archive.keyring(), [1, 2], size, FileNumber::new(9));
    let upload = || {
        let source = Source::new(Cursor::new(content.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(place.archive.upload_file(&identity, size, source, &place.claim, &place.random))
    };
    let stored = upload().unwrap();
    assert_eq!((stored.sent, stored.size, stored.hash), (Sent::Uploaded, size, hash(&content)));
    let file = BaseFile {
        name: "000009.sst".to_owned(),
        column_family: ColumnFamilyId::DEFAULT,
        path_id: 0,
        size,
        hash: stored.hash,
        object: stored.object.clone(),
        epoch: stored.epoch,
    };
    assert!(place.download(&file).unwrap() == content);
    if !long {
        assert_eq!(upload().unwrap().sent, Sent::WasThere);
    }

    let key = identity.key();
    let object = object(&place, &key);
    if flags & STORED != 0 {
        let mut body = bytes.to_vec();
        mend(&mut body);
        let plain = body.len().saturating_sub(HEADER_LEN + 16) as u64;
        place.store.overwrite(&key, body.into());
        for size in [size, plain] {
            accepted(&place, &BaseFile { size, ..file.clone() }, None);
        }
        return;
    }
    if flags & SEALED != 0 && content.len() <= CHUNK {
        later_version(&place, &file, &key, &object, &content, xor);
    }
    let mut body = object.to_vec();
    if flags & CUT != 0 {
        body.truncate(at % (body.len() + 1));
    } else if !body.is_empty() {
        damage(&mut body, at, xor);
    }
    for mended in [false, true] {
        if mended {
            mend(&mut body);
        }
        place.store.overwrite(&key, body.clone().into());
        let read = accepted(&place, &file, Some(&content));
        assert!(mended || !read || body == object, "damage went unseen");
        if long {
            return;
        }
    }
}

/// The same file from a writer that sets flags which readers may ignore, and uses what is reserved.
fn later_version(place: &Place, file: &BaseFile, key: &ObjectKey, object: &[u8], content: &[u8], xor: u8) {
    let mut body = object[..HEADER_LEN].to_vec();
    for at in [16, 90] {
        body[at] ^= xor;
    }
    mend(&mut body);
    let salt = body[48..80].try_into().unwrap();
    let cipher = place.archive.keyring().cipher(file.epoch, key, &salt).unwrap().unwrap();
    let aad = associated(key, &[&body, &[1]]);
    let mut chunk = content.to_vec();
    cipher.seal("a chunk", Purpose::Chunk, 0, &aad, &mut chunk, 0).unwrap();
    body.extend(chunk);
    place.store.overwrite(key, body.into());
    assert!(place.download(file).expect("it may be ignored") == content);
}

/// Whether the file can be read; what is read must be the file.
fn accepted(place: &Place, file: &BaseFile, content: Option<&[u8]>) -> bool {
    match place.download(file) {
        Ok(read) => {
            assert_eq!(hash(&read), file.hash);
            assert!(content.is_none_or(|content| read == content));
            true
        }
        Err(e) => {
            refused(&e, CODES);
            false
        }
    }
}

fn object(place: &Place, key: &ObjectKey) -> Bytes {
    let found = place.store.contents().into_iter().find(|(name, _)| name == key);
    found.expect("it was uploaded").1
}

fn mend(object: &mut [u8]) {
    let Some(header) = object.get_mut(..HEADER_LEN) else { return };
    let crc = crc32c::crc32c(&header[..HEADER_LEN - 4]);
    header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
}

fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(bytes).as_bytes())
}
