//! Sealing with AES-256-GCM.
//!
//! Owns: the one use of the cipher, secrets that wipe themselves, and the rule that no nonce repeats: an
//! [`ObjectCipher`]'s key belongs to one object body (random salt), and its nonce is a purpose and a counter.
//! The cipher is AWS-LC's, which TLS brings along: 10 GB/s on a core where the `aes-gcm` crate made 1.7, and every byte of a
//! base and of a restore passes here. The tests compare the two.
//! Refuses: choosing keys (`keyring`) and keeping plain copies.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{layout::Fault, object_key::ObjectKey};

/// Bytes that a seal adds.
pub const TAG_LEN: usize = 16;

/// A secret of 32 bytes; wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes over the bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// HKDF-SHA256 with `salt`; `info` is the concatenation of the parts, each after its length (u16, little-endian).
    #[expect(clippy::expect_used, reason = "32 bytes are one block of SHA-256: HKDF cannot refuse that length")]
    pub fn derive(&self, salt: &[u8], info: &[&[u8]]) -> Self {
        let mut text = Vec::new();
        for part in info {
            text.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
            text.extend_from_slice(part);
        }
        let mut out = Self([0; 32]);
        Hkdf::<Sha256>::new(Some(salt), &self.0).expand(&text, &mut out.0).expect("one block");
        out
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a seal is for: the first half of its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// A segment's frame.
    Frame = 1,
    /// A segment's footer.
    Footer = 2,
    /// A document.
    Document = 3,
    /// A chunk of a base's file.
    Chunk = 4,
}

impl Purpose {
    /// Bytes 0..4 of the nonce.
    const fn number(self) -> u32 {
        match self {
            Self::Frame => 1,
            Self::Footer => 2,
            Self::Document => 3,
            Self::Chunk => 4,
        }
    }
}

/// Seals the parts of one object's body.
pub struct ObjectCipher(LessSafeKey);

impl fmt::Debug for ObjectCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectCipher(…)")
    }
}

impl ObjectCipher {
    /// The cipher of the object `key` whose header holds `salt`, under an epoch's data key.
    pub fn for_object(data_key: &Secret, key: &ObjectKey, salt: &[u8; 32]) -> Self {
        Self::new(&data_key.derive(salt, &[b"pitr object", key.as_str().as_bytes()]))
    }

    /// A cipher with the key itself.
    #[expect(clippy::expect_used, reason = "it refuses only keys that have not 32 bytes")]
    pub fn new(key: &Secret) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("a key of 32 bytes")))
    }

    /// Encrypts `buffer[from..]` in place and appends the tag.
    pub fn seal(
        &self,
        what: &'static str,
        purpose: Purpose,
        counter: u64,
        aad: &[u8],
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), Fault> {
        let body = buffer.get_mut(from..).ok_or(Fault::Seal { what })?;
        let tag = self.seal_detached(what, &counted(purpose, counter), aad, body)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Encrypts `body` in place and returns the tag.
    pub fn seal_detached(
        &self,
        what: &'static str,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Fault> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), body).map_err(|_| Fault::Seal { what })?;
        tag.as_ref().try_into().map_err(|_| Fault::Seal { what })
    }

    /// Decrypts what [`ObjectCipher::seal`] made, in place, and cuts off the tag.
    pub fn open(
        &self,
        what: &'static str,
        purpose: Purpose,
        counter: u64,
        aad: &[u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let plain = self.open_in_place(what, purpose, counter, aad, sealed)?.len();
        sealed.truncate(plain);
        Ok(())
    }

    /// Decrypts what [`ObjectCipher::seal`] made, in place: the bytes before the tag.
    pub fn open_in_place<'b>(
        &self,
        what: &'static str,
        purpose: Purpose,
        counter: u64,
        aad: &[u8],
        sealed: &'b mut [u8],
    ) -> Result<&'b [u8], Fault> {
        let have = sealed.len() as u64;
        if sealed.len() < TAG_LEN {
            return Err(Fault::Short { what, offset: 0, needed: TAG_LEN as u64, have });
        }
        self.open_with(what, &counted(purpose, counter), aad, sealed)
    }

    /// Decrypts `sealed`, which ends with the tag, in place: the bytes before the tag.
    pub fn open_with<'b>(
        &self,
        what: &'static str,
        nonce: &[u8; 12],
        aad: &[u8],
        sealed: &'b mut [u8],
    ) -> Result<&'b [u8], Fault> {
        let opened = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), sealed);
        opened.map(|plain| &*plain).map_err(|_| Fault::Seal { what })
    }
}

/// Purpose (u32) and counter (u64), little-endian.
fn counted(purpose: Purpose, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (head, tail) = nonce.split_at_mut(4);
    head.copy_from_slice(&purpose.number().to_le_bytes());
    tail.copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Associated data: the object's name with its length (u16), then the parts as they are.
pub fn associated(key: &ObjectKey, parts: &[&[u8]]) -> Vec<u8> {
    let name = key.as_str().as_bytes();
    let mut out = Vec::with_capacity(2 + name.len() + parts.iter().map(|p| p.len()).sum::<usize>());
    out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(name);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> ObjectCipher {
        ObjectCipher::for_object(&Secret::new([7; 32]), &ObjectKey::archive(), &[1; 32])
    }

    #[test]
    fn a_seal_opens_only_with_its_purpose_counter_and_associated_data() {
        let mut sealed = b"..secret".to_vec();
        cipher().seal("test", Purpose::Frame, 5, b"aad", &mut sealed, 2).unwrap();
        assert_eq!(sealed.len(), 8 + TAG_LEN);
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        let sealed = sealed[2..].to_vec();
        let open = |purpose, counter, aad: &[u8]| {
            let mut copy = sealed.clone();
            cipher().open("test", purpose, counter, aad, &mut copy).map(|()| copy)
        };
        assert_eq!(open(Purpose::Frame, 5, b"aad").unwrap(), b"secret");
        assert!(open(Purpose::Footer, 5, b"aad").is_err());
        assert!(open(Purpose::Frame, 6, b"aad").is_err());
        assert!(open(Purpose::Frame, 5, b"aae").is_err());
    }

    /// An implementation that shares nothing with the one in use.
    #[test]
    fn what_is_sealed_is_aes_256_gcm_as_another_library_makes_it() {
        use aes_gcm::{AeadInOut as _, Aes256Gcm, KeyInit as _, aead::inout::InOutBuf};
        let key = [9; 32];
        let (ours, theirs) = (ObjectCipher::new(&Secret::new(key)), Aes256Gcm::new(&key.into()));
        for (counter, length) in [0, 1, 15, 16, 17, 255, 4096, 70_001, (1 << 20) - 1].into_iter().enumerate() {
            let plain: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (aad, counter) = (vec![3; length % 37], counter as u64);
            let nonce = counted(Purpose::Chunk, counter);
            let mut expected = plain.clone();
            let tag =
                theirs.encrypt_inout_detached(&nonce.into(), &aad, InOutBuf::from(expected.as_mut_slice())).unwrap();
            expected.extend_from_slice(&tag);
            let mut sealed = plain.clone();
            ours.seal("test", Purpose::Chunk, counter, &aad, &mut sealed, 0).unwrap();
            assert!(sealed == expected, "{length}");
            assert!(ours.open_in_place("test", Purpose::Chunk, counter, &aad, &mut expected).unwrap() == plain);
            for at in [0, sealed.len() / 2, sealed.len() - 1] {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1;
                assert!(ours.open_in_place("test", Purpose::Chunk, counter, &aad, &mut flipped).is_err());
            }
        }
        let mut short = [0; TAG_LEN - 1];
        let opened = ours.open_in_place("test", Purpose::Chunk, 0, b"", &mut short);
        assert!(matches!(opened, Err(Fault::Short { .. })));
    }

    #[test]
    fn every_object_and_salt_has_its_own_key() {
        let data = Secret::new([7; 32]);
        let derive = |salt: u8, name: &str| *data.derive(&[salt; 32], &[b"pitr object", name.as_bytes()]).expose();
        assert_ne!(derive(1, "a"), derive(2, "a"));
        assert_ne!(derive(1, "a"), derive(1, "b"));
        assert_eq!(format!("{data:?}"), "Secret(…)");
    }
}
