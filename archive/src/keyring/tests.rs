use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::{
    catalog::schema::{ARCHIVE_FORMAT, DOCUMENT_VERSION, Extra},
    clock::Micros,
    ids::Nonce,
    random::SeededRandom,
};

const ARCHIVE: ArchiveId = ArchiveId([1; 16]);

fn document(encryption: Option<Encryption>) -> ArchiveDocument {
    ArchiveDocument {
        format: ARCHIVE_FORMAT.to_owned(),
        version: DOCUMENT_VERSION,
        id: ARCHIVE,
        created: Micros(0),
        encryption,
        nonce: Nonce([0; 16]),
        check: ContentHash([0; 32]),
        extra: Extra::new(),
    }
}

fn epoch(number: u64, data_key: Vec<WrappedKey>) -> EpochDocument {
    EpochDocument {
        version: DOCUMENT_VERSION,
        archive: ARCHIVE,
        epoch: Epoch::new(number),
        created: Micros(0),
        writer: String::new(),
        data_key,
        nonce: Nonce([0; 16]),
        extra: Extra::new(),
    }
}

/// Seals a word and opens it with another ring.
fn passes(from: &Keyring, to: &Keyring, number: u64) -> bool {
    let (key, salt) = (ObjectKey::archive(), [5; 32]);
    let cipher = |ring: &Keyring| ring.cipher(Epoch::new(number), &key, &salt).unwrap().unwrap();
    let mut word = b"word".to_vec();
    let purpose = crate::cipher::Purpose::Document;
    cipher(from).seal("test", purpose, 0, b"", &mut word, 0).unwrap();
    cipher(to).open("test", purpose, 0, b"", &mut word).is_ok() && word == b"word"
}

#[test]
fn a_ring_that_was_created_opens_again_with_the_same_keys() {
    let random = SeededRandom::new(1);
    let master = MasterKey::new([7; 32]);
    let (created, encryption) = Keyring::create(Some(&master), ARCHIVE, &random).unwrap();
    let opened = Keyring::open(Some(master), &document(encryption)).unwrap();
    assert_eq!(created.hash_key().secret().unwrap().expose(), opened.hash_key().secret().unwrap().expose());
    for number in [1, 2] {
        let claim = epoch(number, created.new_data_key(Epoch::new(number), &random).unwrap());
        assert!(!opened.knows(Epoch::new(number)));
        created.admit(&claim).unwrap();
        opened.admit(&claim).unwrap();
        assert!(passes(&created, &opened, number));
    }
    let unknown = opened.cipher(Epoch::new(3), &ObjectKey::archive(), &[0; 32]).unwrap_err();
    assert_eq!(unknown.code(), Code::ObjectMissing);
}

#[test]
fn a_wrapped_key_opens_only_for_its_archive_epoch_and_recipient() {
    let random = SeededRandom::new(2);
    let master = MasterKey::new([7; 32]);
    let (ring, encryption) = Keyring::create(Some(&master), ARCHIVE, &random).unwrap();
    let wrapped = ring.new_data_key(Epoch::new(1), &random).unwrap();
    assert_eq!(ring.admit(&epoch(2, wrapped.clone())).unwrap_err().code(), Code::ObjectDamaged);
    // The hash key where a data key belongs, and a key of another archive.
    let encryption = encryption.unwrap();
    assert_eq!(ring.admit(&epoch(1, encryption.hash_key.clone())).unwrap_err().code(), Code::ObjectDamaged);
    let other = ArchiveDocument { id: ArchiveId([2; 16]), ..document(Some(encryption)) };
    assert_eq!(Keyring::open(Some(master), &other).unwrap_err().code(), Code::ObjectDamaged);
    assert_eq!(ring.admit(&epoch(1, Vec::new())).unwrap_err().code(), Code::KeyWrong);
    for (position, _) in wrapped[0].wrapped.bytes().enumerate() {
        let mut damaged = wrapped.clone();
        let mut text = damaged[0].wrapped.clone().into_bytes();
        text[position] = if text[position] == b'A' { b'B' } else { b'A' };
        damaged[0].wrapped = String::from_utf8(text).unwrap();
        assert_eq!(ring.admit(&epoch(1, damaged)).unwrap_err().code(), Code::ObjectDamaged, "character {position}");
    }
}

#[test]
fn a_key_must_be_given_exactly_when_the_archive_is_encrypted() {
    let random = SeededRandom::new(3);
    let (_, encryption) = Keyring::create(Some(&MasterKey::new([7; 32])), ARCHIVE, &random).unwrap();
    let sealed = document(encryption);
    let code = |key, document: &ArchiveDocument| Keyring::open(key, document).map(|_| ()).unwrap_err().code();
    assert_eq!(code(None, &sealed), Code::KeyRequired);
    assert_eq!(code(Some(MasterKey::new([8; 32])), &sealed), Code::KeyWrong);
    assert_eq!(code(Some(MasterKey::new([7; 32])), &document(None)), Code::KeyUnexpected);
    let mut newer = sealed.clone();
    newer.encryption.as_mut().unwrap().cipher = "rot13".to_owned();
    assert_eq!(code(Some(MasterKey::new([7; 32])), &newer), Code::ObjectUnsupported);
    assert!(!Keyring::open(None, &document(None)).unwrap().is_encrypted());
}

#[test]
fn key_files_are_read_and_those_that_others_can_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let read = |content: &[u8], mode| {
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        MasterKey::from_file(&path)
    };
    let digits = "0123456789abcdef".repeat(4);
    for mode in [0o600, 0o400] {
        let key = read(format!("{digits}\n").as_bytes(), mode).unwrap();
        assert_eq!(key.id(), read(digits.to_uppercase().as_bytes(), mode).unwrap().id());
        assert_eq!(key.id().len(), 16);
        assert!(!format!("{key:?}").contains("0123456789abcdef"));
    }
    for mode in [0o640, 0o604, 0o666, 0o610] {
        assert_eq!(read(digits.as_bytes(), mode).unwrap_err().code(), Code::KeyExposed, "{mode:o}");
    }
    for bad in ["", "abc", &digits[1..], &format!("{digits}0"), &digits.replace('0', "g"), &"é".repeat(32)] {
        let e = read(bad.as_bytes(), 0o600).unwrap_err();
        assert_eq!(e.code(), Code::KeyMalformed, "{bad:?}");
        assert!(bad.len() < 3 || !e.to_string().contains(bad), "the content of a key file is never shown: {e}");
    }
    assert_eq!(read(&[0xFF; 64], 0o600).unwrap_err().code(), Code::KeyMalformed);
    assert_eq!(read(&vec![b'a'; 100_000], 0o600).unwrap_err().code(), Code::KeyMalformed);
    assert_eq!(MasterKey::from_file(&dir.path().join("absent")).unwrap_err().code(), Code::FileNotFound);
}

#[test]
fn golden_key_id_and_derivations() {
    // Whoever writes another reader of the format compares here: FORMAT.md, "Keys".
    let master = MasterKey::new([7; 32]);
    let info = [11u16.to_le_bytes().as_slice(), b"pitr key id"].concat();
    let mut expected = [0; 32];
    hkdf::Hkdf::<sha2::Sha256>::new(None, &[7; 32]).expand(&info, &mut expected).unwrap();
    let expected: String = expected[..8].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(master.id(), expected);
    let clear = Keyring::none();
    let mut text = Vec::new();
    text.extend(3u64.to_le_bytes());
    text.extend(b"tag");
    text.extend(1u64.to_le_bytes());
    text.extend(b"x");
    assert_eq!(clear.name_hash("tag", &[b"x"]).0, *blake3::hash(&text).as_bytes());
}
