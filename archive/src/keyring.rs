//! Keys: the user's key file, what it wraps, and which key seals which object.
//!
//! Owns: [`MasterKey`] (from a key file), the wrapping of data keys (one per epoch) and of the hash key (one per
//! archive), and [`Keyring`], which hands out ciphers. Layout and derivations: FORMAT.md, "Keys".
//! Refuses: key files that others can read; an archive that is sealed in parts only: encrypted from its first object
//! on, or never. Secrets are wiped when dropped and print as `…`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Read as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    catalog::schema::{ArchiveDocument, Encryption, EpochDocument, WrappedKey},
    cipher::{ObjectCipher, Secret, TAG_LEN},
    code::Code,
    error::{Error, Result, io},
    ids::{ArchiveId, ContentHash, Epoch},
    layout::Family,
    object_key::ObjectKey,
    random::Random,
    segment::chain::HashKey,
};

/// The cipher that `archive.json` names.
pub const CIPHER: &str = "aes-256-gcm";
/// The one kind of recipient in this version. `x25519` and `command` are reserved.
pub const RECIPIENT: &str = "symmetric-file";

const KEY_FILE_LIMIT: u64 = 4096;
const DOING_WRAP: &str = "unwrapping a key of";

/// The key that a user holds in a file. It opens everything else.
#[derive(Clone)]
pub struct MasterKey {
    secret: Secret,
    id: String,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl MasterKey {
    /// From 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let secret = Secret::new(bytes);
        let name = secret.derive(&[], &[b"pitr key id"]);
        let id = name.expose().iter().take(8).map(|b| format!("{b:02x}")).collect();
        Self { secret, id }
    }

    /// Reads a key file: 64 hexadecimal digits, white space around them. Group and others must have no access.
    pub fn from_file(path: &Path) -> Result<Self> {
        const DOING: &str = "reading the key file";
        let mut file = fs::File::open(path).map_err(|e| io(DOING, path, e))?;
        // The mode of the open file, not of the name: nobody can exchange it in between.
        let metadata = file.metadata().map_err(|e| io(DOING, path, e))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::new(Code::KeyExposed, DOING).on(path.display()).with("mode", format!("{mode:04o}")));
        }
        let mut text = Zeroizing::new(String::with_capacity(128));
        match file.by_ref().take(KEY_FILE_LIMIT).read_to_string(&mut text) {
            Ok(_) => Self::from_text(&text, path.display()),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                Err(Error::new(Code::KeyMalformed, DOING).on(path.display()).with("found", "bytes that are no text"))
            }
            Err(e) => Err(io(DOING, path, e)),
        }
    }

    /// From 64 hexadecimal digits, white space around them; `origin` says where they were found.
    pub fn from_text(text: &str, origin: impl fmt::Display) -> Result<Self> {
        let malformed = |why: &str| Error::new(Code::KeyMalformed, "reading the key").on(&origin).with("found", why);
        let digits = text.trim();
        let mut bytes = Zeroizing::new([0u8; 32]);
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(malformed(&format!("{} characters", digits.chars().count())));
        }
        for (slot, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed("bytes that are no text"))?;
            *slot = u8::from_str_radix(pair, 16).map_err(|_| malformed("other characters"))?;
        }
        Ok(Self::new(*bytes))
    }

    /// Identifies the key without revealing it: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn wrapping(&self) -> ObjectCipher {
        ObjectCipher::new(&self.secret.derive(&[], &[b"pitr key wrapping"]))
    }

    fn wrap(&self, archive: ArchiveId, what: Wrapped, secret: &Secret, random: &dyn Random) -> Result<WrappedKey> {
        // A random nonce is safe here: this key seals one short message an epoch.
        let nonce: [u8; 12] = random.bytes()?;
        let mut body = Zeroizing::new(*secret.expose());
        let tag = self
            .wrapping()
            .seal_detached("a wrapped key", &nonce, &what.aad(archive, &self.id), body.as_mut_slice())
            .map_err(|e| Error::new(Code::Internal, "wrapping a key").because(e))?;
        let wrapped = BASE64_STANDARD.encode([nonce.as_slice(), body.as_slice(), tag.as_slice()].concat());
        Ok(WrappedKey { recipient: RECIPIENT.to_owned(), key_id: self.id.clone(), wrapped })
    }

    fn unwrap(&self, archive: ArchiveId, what: Wrapped, keys: &[WrappedKey]) -> Result<Secret> {
        let object = what.object();
        let Some(mine) = keys.iter().find(|k| k.recipient == RECIPIENT && k.key_id == self.id) else {
            let held: Vec<_> = keys.iter().map(|k| format!("{}:{}", k.recipient, k.key_id)).collect();
            return Err(Error::new(Code::KeyWrong, DOING_WRAP)
                .on(object)
                .with("key-id", &self.id)
                .with("archive-keys", held.join(",")));
        };
        let damaged = || Error::new(Code::ObjectDamaged, DOING_WRAP).on(&object).with("key-id", &self.id);
        let mut bytes = Zeroizing::new(BASE64_STANDARD.decode(&mine.wrapped).map_err(|e| damaged().because(e))?);
        let (nonce, rest) = bytes.split_at_mut_checked(12).ok_or_else(damaged)?;
        if rest.len() != 32 + TAG_LEN {
            return Err(damaged());
        }
        let nonce: [u8; 12] = (&*nonce).try_into().map_err(|_| damaged())?;
        let body = self
            .wrapping()
            .open_with("a wrapped key", &nonce, &what.aad(archive, &self.id), rest)
            .map_err(|e| damaged().because(e))?;
        let mut secret = [0; 32];
        secret.copy_from_slice(body.get(..32).ok_or_else(damaged)?);
        let out = Secret::new(secret);
        secret.zeroize();
        Ok(out)
    }
}

/// What a wrapped key is for; bound into its seal.
#[derive(Clone, Copy)]
enum Wrapped {
    HashKey,
    DataKey(Epoch),
}

impl Wrapped {
    fn aad(self, archive: ArchiveId, key_id: &str) -> Vec<u8> {
        let mut aad = archive.0.to_vec();
        match self {
            Self::HashKey => aad.extend_from_slice(b"hash-key"),
            Self::DataKey(epoch) => {
                aad.extend_from_slice(b"data-key");
                aad.extend_from_slice(&epoch.get().to_le_bytes());
            }
        }
        aad.extend_from_slice(RECIPIENT.as_bytes());
        aad.push(b':');
        aad.extend_from_slice(key_id.as_bytes());
        aad
    }

    fn object(self) -> ObjectKey {
        match self {
            Self::HashKey => ObjectKey::archive(),
            Self::DataKey(epoch) => ObjectKey::epoch(epoch),
        }
    }
}

/// The keys of one archive. In a clear archive there are none, and nothing is sealed.
#[derive(Debug)]
pub struct Keyring {
    hash_key: HashKey,
    sealed: Option<Sealed>,
}

#[derive(Debug)]
struct Sealed {
    master: MasterKey,
    archive: ArchiveId,
    data_keys: Mutex<BTreeMap<Epoch, Secret>>,
}

impl Sealed {
    fn keys(&self) -> std::sync::MutexGuard<'_, BTreeMap<Epoch, Secret>> {
        // A map of whole secrets is never half-changed.
        self.data_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keyring {
    /// Of a clear archive.
    pub const fn none() -> Self {
        Self { hash_key: HashKey::CLEAR, sealed: None }
    }

    /// The keyring of a new archive, and what `archive.json` must say about it.
    pub fn create(
        master: Option<&MasterKey>,
        archive: ArchiveId,
        random: &dyn Random,
    ) -> Result<(Self, Option<Encryption>)> {
        let Some(master) = master else { return Ok((Self::none(), None)) };
        let secret = Secret::new(random.bytes()?);
        let wrapped = master.wrap(archive, Wrapped::HashKey, &secret, random)?;
        let encryption = Encryption { cipher: CIPHER.to_owned(), hash_key: vec![wrapped] };
        Ok((Self::sealed(master.clone(), archive, secret), Some(encryption)))
    }

    /// The keyring of an existing archive. A key must be given exactly when the archive is encrypted.
    pub fn open(master: Option<MasterKey>, document: &ArchiveDocument) -> Result<Self> {
        const DOING: &str = "opening the archive";
        match (master, &document.encryption) {
            (None, None) => Ok(Self::none()),
            (Some(_), None) => Err(Error::new(Code::KeyUnexpected, DOING).on(document.id)),
            (None, Some(encryption)) => {
                let ids: Vec<_> = encryption.hash_key.iter().map(|k| k.key_id.as_str()).collect();
                Err(Error::new(Code::KeyRequired, DOING).on(document.id).with("archive-keys", ids.join(",")))
            }
            (Some(master), Some(encryption)) => {
                if encryption.cipher != CIPHER {
                    return Err(Error::new(Code::ObjectUnsupported, DOING)
                        .on(ObjectKey::archive())
                        .with("cipher", &encryption.cipher)
                        .with("known", CIPHER));
                }
                let secret = master.unwrap(document.id, Wrapped::HashKey, &encryption.hash_key)?;
                Ok(Self::sealed(master, document.id, secret))
            }
        }
    }

    fn sealed(master: MasterKey, archive: ArchiveId, hash_key: Secret) -> Self {
        let sealed = Sealed { master, archive, data_keys: Mutex::default() };
        Self { hash_key: HashKey::keyed(hash_key), sealed: Some(sealed) }
    }

    /// Whether objects are sealed.
    pub const fn is_encrypted(&self) -> bool {
        self.sealed.is_some()
    }

    /// The key of leaves, WAL prefixes and names.
    pub const fn hash_key(&self) -> &HashKey {
        &self.hash_key
    }

    /// A new random data key for `epoch`, wrapped for the epoch's document; empty in a clear archive. The key is not
    /// in the ring until [`Keyring::admit`] is given the document that won.
    pub fn new_data_key(&self, epoch: Epoch, random: &dyn Random) -> Result<Vec<WrappedKey>> {
        let Some(sealed) = &self.sealed else { return Ok(Vec::new()) };
        let secret = Secret::new(random.bytes()?);
        Ok(vec![sealed.master.wrap(sealed.archive, Wrapped::DataKey(epoch), &secret, random)?])
    }

    /// Unwraps the data key of an epoch.
    pub fn admit(&self, document: &EpochDocument) -> Result<()> {
        match (&self.sealed, document.data_key.as_slice()) {
            (None, []) => Ok(()),
            (None, _) => Err(Error::new(Code::ObjectDamaged, DOING_WRAP)
                .on(ObjectKey::epoch(document.epoch))
                .with("found", "a data key in an archive that is not encrypted")),
            (Some(sealed), keys) => {
                let secret = sealed.master.unwrap(sealed.archive, Wrapped::DataKey(document.epoch), keys)?;
                sealed.keys().insert(document.epoch, secret);
                Ok(())
            }
        }
    }

    /// Whether objects of this epoch can be opened without [`Keyring::admit`].
    pub fn knows(&self, epoch: Epoch) -> bool {
        self.sealed.as_ref().is_none_or(|sealed| sealed.keys().contains_key(&epoch))
    }

    /// The cipher of an object's body; `None` in a clear archive.
    ///
    /// An epoch whose document was not admitted is an error: the caller loads it first.
    pub fn cipher(&self, epoch: Epoch, key: &ObjectKey, salt: &[u8; 32]) -> Result<Option<ObjectCipher>> {
        let Some(sealed) = &self.sealed else { return Ok(None) };
        match sealed.keys().get(&epoch) {
            Some(data_key) => Ok(Some(ObjectCipher::for_object(data_key, key, salt))),
            None => Err(Error::new(Code::ObjectMissing, "looking for the data key of")
                .on(key)
                .with("epoch", epoch)
                .with("needed", ObjectKey::epoch(epoch))),
        }
    }

    /// The same for reading an object whose header says whether it is `sealed`.
    pub fn cipher_to_read(
        &self,
        family: Family,
        sealed: bool,
        epoch: Epoch,
        key: &ObjectKey,
        salt: &[u8; 32],
    ) -> Result<Option<ObjectCipher>> {
        if sealed == self.is_encrypted() {
            return self.cipher(epoch, key, salt);
        }
        if sealed {
            return Err(Error::new(Code::KeyRequired, "opening").on(key));
        }
        // Somebody put a clear object into an encrypted archive: nothing vouches for it.
        let damaged = match family {
            Family::Segment => Code::SegmentDamaged,
            Family::Object => Code::ObjectDamaged,
        };
        Err(Error::new(damaged, "opening").on(key).with("found", "a clear object in an encrypted archive"))
    }

    /// A hash that names something without revealing it in an encrypted archive; `kind` keeps names apart.
    pub fn name_hash(&self, kind: &str, parts: &[&[u8]]) -> ContentHash {
        let mut hasher = self.hash_key.hasher();
        for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        ContentHash(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests;
