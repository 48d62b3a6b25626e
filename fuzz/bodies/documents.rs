//! The archive's JSON documents in their envelopes, clear and sealed.
//!
//! Asserts: a document survives its own JSON, what this version does not know included; it is read under its own name
//! and under no other; no change of a stored byte passes; what is only claimed about lengths costs nothing.

use bytes::Bytes;
use pitr_archive::{
    catalog::{
        document::{self, Document},
        envelope::{self, DocumentHeader, HEADER_LEN, Kind, Sealing},
        schema::{BoundaryDocument, DOCUMENT_VERSION, EpochDocument, TimelineDocument},
    },
    code::Code,
    ids::ArchiveId,
    layout::{Family, Fault},
    object_key::ObjectKey,
    random::{Random, SeededRandom},
};

use super::{
    identity::{EPOCH, keyring},
    input::{Input, damage, refused},
};

/// The document is sealed.
pub const SEALED: u8 = 1;
/// The input is a stored object, whose checksums are mended.
pub const STORED: u8 = 2;

const CODES: &[Code] = &[Code::ObjectDamaged, Code::ObjectUnsupported, Code::WrongArchive];

/// Timelines, epochs and deletion boundaries.
pub fn any(data: &[u8]) {
    match data.split_first() {
        Some((which, data)) if which % 3 == 0 => body::<TimelineDocument>(data),
        Some((which, data)) if which % 3 == 1 => body::<EpochDocument>(data),
        Some((_, data)) => body::<BoundaryDocument>(data),
        None => {}
    }
}

pub fn body<D: Document + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let (at, xor) = (usize::from(input.u16()), input.u8());
    let bytes = input.rest();
    let sealed = flags & SEALED != 0 && D::KIND != Kind::Epoch;
    if flags & STORED != 0 {
        return stored::<D>(bytes.to_vec(), sealed);
    }
    let keyring = keyring(sealed);
    let Ok(document) = serde_json::from_slice::<D>(bytes) else { return };
    let json = serde_json::to_vec(&document).unwrap();
    assert_eq!(serde_json::from_slice::<D>(&json).unwrap(), document, "read, written and read again");

    let key = document.key(&keyring);
    match document::parse::<D>(&keyring, document.archive(), &key, bytes) {
        Ok(parsed) => assert_eq!(parsed, document),
        Err(e) => {
            assert!(document.version() > DOCUMENT_VERSION, "{e}");
            refused(&e, &[Code::ObjectUnsupported]);
            return;
        }
    }
    let elsewhere = ObjectKey::parse("tags/elsewhere.doc").unwrap();
    let mut other = document.archive();
    other.0[0] ^= 1;
    refused(&document::parse::<D>(&keyring, document.archive(), &elsewhere, &json).unwrap_err(), CODES);
    refused(&document::parse::<D>(&keyring, other, &key, &json).unwrap_err(), &[Code::WrongArchive]);

    let object = put::<D>(&key, &json, sealed);
    assert_eq!(get::<D>(&key, &object, sealed).unwrap(), json);
    refuse(get::<D>(&elsewhere, &object, sealed));
    let other = if D::KIND == Kind::Tag { Kind::Base } else { Kind::Tag };
    assert!(DocumentHeader::decode(other, &key, &object).is_err());
    let mut damaged = object.to_vec();
    damage(&mut damaged, at, xor);
    refuse(get::<D>(&key, &damaged.clone().into(), sealed));
    // With the header's checksum mended, only what is reserved may change.
    if mend_header(&mut damaged)
        && let Ok(read) = get::<D>(&key, &damaged.into(), sealed)
    {
        assert_eq!(read, json, "damage at {at} went unseen");
    }
}

fn put<D: Document>(key: &ObjectKey, json: &[u8], sealed: bool) -> Bytes {
    let keyring = keyring(sealed);
    let random: &dyn Random = &SeededRandom::new(3);
    let salt = random.bytes().unwrap();
    let cipher = keyring.cipher(EPOCH, key, &salt).unwrap();
    let sealing = cipher.as_ref().map(|cipher| Sealing { epoch: EPOCH, salt, cipher });
    envelope::encode(D::KIND, key, json, sealing.as_ref()).unwrap()
}

fn get<D: Document>(key: &ObjectKey, object: &Bytes, sealed: bool) -> Result<Bytes, pitr_archive::Error> {
    let fault = |e: Fault| e.on(Family::Object, D::DOING, key);
    let header = DocumentHeader::decode(D::KIND, key, object).map_err(fault)?;
    let keyring = keyring(sealed);
    let cipher = keyring.cipher_to_read(Family::Object, header.sealed, header.epoch, key, &header.salt)?;
    header.open(key, object, cipher.as_ref()).map_err(fault)
}

fn refuse(answer: Result<Bytes, pitr_archive::Error>) {
    // A changed header can claim to be sealed, or sealed in another epoch.
    let keys = [CODES, &[Code::KeyRequired, Code::ObjectMissing]].concat();
    refused(&answer.expect_err("damage went unseen"), &keys);
}

fn mend_header(object: &mut [u8]) -> bool {
    let Some(header) = object.get_mut(..HEADER_LEN) else { return false };
    let crc = crc32c::crc32c(&header[..HEADER_LEN - 4]);
    header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    true
}

/// Reads `object` after its hash and checksum were made right.
fn stored<D: Document + PartialEq + std::fmt::Debug>(mut object: Vec<u8>, sealed: bool) {
    let key = ObjectKey::parse("bases/20261120T133313Z-1f2e3d4c.doc").unwrap();
    if object.len() >= HEADER_LEN {
        object[..8].copy_from_slice(&envelope::MAGIC);
        let body_len = (object.len() - HEADER_LEN) as u64;
        object[64..72].copy_from_slice(&body_len.to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&pitr_archive::cipher::associated(&key, &[&object[..80]])).update(&object[HEADER_LEN..]);
        let hash = *hasher.finalize().as_bytes();
        object[80..112].copy_from_slice(&hash);
        mend_header(&mut object);
    }
    let object = Bytes::from(object);
    match get::<D>(&key, &object, sealed) {
        Ok(json) => match document::parse::<D>(&keyring(sealed), ArchiveId([1; 16]), &key, &json) {
            Ok(document) => assert_eq!(document.key(&keyring(sealed)), key),
            Err(e) => refused(&e, CODES),
        },
        Err(e) => refused(&e, &[CODES, &[Code::KeyRequired, Code::ObjectMissing]].concat()),
    }
}
