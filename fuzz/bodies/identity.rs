//! `archive.json`, the keys in it, and the marker that a restore leaves.
//!
//! Asserts: the identity survives, and no change of a byte passes its checksum; a key opens what it wrapped and nothing
//! else; a marker survives.

use std::{cell::OnceCell, rc::Rc};

use pitr_archive::{
    catalog::{
        document::{archive_text, parse_archive},
        schema::{ArchiveDocument, DOCUMENT_VERSION, EpochDocument, Extra},
    },
    clock::Micros,
    code::Code,
    ids::{ArchiveId, Epoch, Nonce},
    keyring::{Keyring, MasterKey},
    random::SeededRandom,
    restore_marker::RestoreMarker,
};

use super::input::{Input, damage, refused};

/// The archive of every target.
pub const ARCHIVE: ArchiveId = ArchiveId([7; 16]);
/// The epoch whose key seals.
pub const EPOCH: Epoch = Epoch::new(1);

/// The key of the sealed archive in `testdata/archive-v1`.
pub fn master() -> MasterKey {
    MasterKey::new([0x42; 32])
}

thread_local! {
    static SEALED: OnceCell<Rc<Keyring>> = const { OnceCell::new() };
}

/// The keyring of an archive, the same in every run. Making one with a key is dear, so it is kept.
pub fn keyring(sealed: bool) -> Rc<Keyring> {
    if !sealed {
        return Rc::new(Keyring::none());
    }
    SEALED.with(|kept| Rc::clone(kept.get_or_init(|| Rc::new(sealed_keyring()))))
}

fn sealed_keyring() -> Keyring {
    let random = SeededRandom::new(1);
    let (keyring, _) = Keyring::create(Some(&master()), ARCHIVE, &random).unwrap();
    let data_key = keyring.new_data_key(EPOCH, &random).unwrap();
    keyring
        .admit(&EpochDocument {
            version: DOCUMENT_VERSION,
            archive: ARCHIVE,
            epoch: EPOCH,
            created: Micros(0),
            writer: String::new(),
            data_key,
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        })
        .unwrap();
    keyring
}

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.u8();
    let (at, xor) = (usize::from(input.u16()), input.u8());
    let bytes = input.rest();
    match which % 3 {
        0 => archive(bytes, at, xor),
        1 => marker(bytes),
        _ => epoch(bytes),
    }
}

fn archive(bytes: &[u8], at: usize, xor: u8) {
    let codes = [Code::ObjectDamaged, Code::ObjectUnsupported];
    match parse_archive(bytes) {
        Ok(document) => keys(&document),
        Err(e) => refused(&e, &codes),
    }
    let Ok(document) = serde_json::from_slice::<ArchiveDocument>(bytes) else { return };
    let (document, text) = archive_text(&document).unwrap();
    match parse_archive(text.as_bytes()) {
        Ok(read) => assert_eq!(read, document),
        Err(e) => return refused(&e, &codes),
    }
    keys(&document);
    let mut damaged = text.into_bytes();
    damage(&mut damaged, at, xor);
    refused(&parse_archive(&damaged).expect_err("damage went unseen"), &codes);
}

fn keys(document: &ArchiveDocument) {
    let codes = [Code::KeyRequired, Code::KeyWrong, Code::KeyUnexpected, Code::ObjectDamaged, Code::ObjectUnsupported];
    for key in [None, Some(master())] {
        let with_key = key.is_some();
        match Keyring::open(key, document) {
            Ok(keyring) => assert_eq!((keyring.is_encrypted(), document.encryption.is_some()), (with_key, with_key)),
            Err(e) => refused(&e, &codes),
        }
    }
}

fn marker(bytes: &[u8]) {
    let Ok(marker) = serde_json::from_slice::<RestoreMarker>(bytes) else { return };
    let json = serde_json::to_vec(&marker).unwrap();
    assert_eq!(serde_json::from_slice::<RestoreMarker>(&json).unwrap(), marker);
    assert!(!marker.created.to_string().is_empty());
}

fn epoch(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<EpochDocument>(bytes) else { return };
    match keyring(false).admit(&document) {
        Ok(()) => assert!(document.data_key.is_empty()),
        Err(e) => refused(&e, &[Code::ObjectDamaged]),
    }
    // A keyring of its own: what is admitted stays.
    if let Err(e) = sealed_keyring().admit(&document) {
        refused(&e, &[Code::KeyWrong, Code::ObjectDamaged]);
    }
}
