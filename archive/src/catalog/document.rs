//! Which document lies under which name, and what every document must say about itself.
//!
//! Owns: the trait [`Document`], `archive.json`'s text form, and the checks that join a document's content to its name.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    catalog::{
        envelope::Kind,
        schema::{
            ARCHIVE_FORMAT, ArchiveDocument, BaseDocument, BoundaryDocument, CondemnedDocument, DOCUMENT_VERSION,
            DrillDocument, EpochDocument, HoldDocument, IndexDocument, ManifestDocument, TagDocument, TimelineDocument,
        },
    },
    code::Code,
    error::{Error, Result},
    ids::{ArchiveId, ContentHash, Nonce},
    keyring::Keyring,
    layout::{Family, Fault},
    object_key::ObjectKey,
};

/// A stored document.
pub trait Document: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;
    /// What reading one is called in errors.
    const DOING: &'static str;
    /// The name under which it must lie.
    fn key(&self, keyring: &Keyring) -> ObjectKey;
    /// The version in it.
    fn version(&self) -> u32;
    /// The archive in it.
    fn archive(&self) -> ArchiveId;
    /// The writer's nonce in it.
    fn nonce(&self) -> Nonce;
}

macro_rules! document {
    ($type:ty, $kind:ident, $doing:literal, |$doc:ident, $keyring:ident| $key:expr) => {
        impl Document for $type {
            const KIND: Kind = Kind::$kind;
            const DOING: &'static str = $doing;
            fn key(&self, keyring: &Keyring) -> ObjectKey {
                let ($doc, $keyring) = (self, keyring);
                $key
            }
            fn version(&self) -> u32 {
                self.version
            }
            fn archive(&self) -> ArchiveId {
                self.archive
            }
            fn nonce(&self) -> Nonce {
                self.nonce
            }
        }
    };
}

document!(TimelineDocument, Timeline, "reading the timeline", |doc, _keyring| ObjectKey::timeline(doc.timeline));
document!(EpochDocument, Epoch, "reading the epoch", |doc, _keyring| ObjectKey::epoch(doc.epoch));
document!(ManifestDocument, Manifest, "reading the manifest", |doc, _keyring| {
    ObjectKey::manifest(doc.timeline, doc.number)
});
document!(BoundaryDocument, Boundary, "reading the deletion boundary", |doc, _keyring| {
    ObjectKey::boundary_revision(doc.timeline, doc.ordinal, doc.revision)
});
document!(BaseDocument, Base, "reading the base", |doc, _keyring| ObjectKey::base(&doc.id));
document!(TagDocument, Tag, "reading the tag", |doc, keyring| {
    ObjectKey::tag(crate::tag::name_hash(keyring, &doc.name))
});

document!(CondemnedDocument, Condemned, "reading what is condemned", |doc, _keyring| ObjectKey::condemned(&doc.id));
document!(HoldDocument, Hold, "reading the hold", |doc, _keyring| ObjectKey::hold(&doc.id));
document!(DrillDocument, Drill, "reading the report of a drill", |doc, _keyring| ObjectKey::drill(&doc.id));
document!(IndexDocument, Index, "reading the index", |doc, _keyring| match doc.numbers() {
    Some(numbers) => ObjectKey::index(doc.timeline, numbers),
    // Not the name of any index.
    None => ObjectKey::timeline(doc.timeline),
});

/// Parses a document's JSON and checks that it is the one that `key` demands in `archive`.
pub fn parse<D: Document>(keyring: &Keyring, archive: ArchiveId, key: &ObjectKey, json: &[u8]) -> Result<D> {
    let fault = |e: Fault| e.on(Family::Object, D::DOING, key);
    let document: D =
        serde_json::from_slice(json).map_err(|source| fault(Fault::Json { what: "the document", source }))?;
    if document.version() > DOCUMENT_VERSION {
        return Err(Error::new(Code::ObjectUnsupported, D::DOING)
            .on(key)
            .with("version", document.version())
            .with("known", DOCUMENT_VERSION));
    }
    if document.archive() != archive {
        let (expected, found) = (archive.to_string(), document.archive().to_string());
        return Err(fault(Fault::Foreign { expected, found }));
    }
    Fault::unless_equal("name of the document", key, &document.key(keyring)).map_err(fault)?;
    Ok(document)
}

const DOING: &str = "reading the archive's identity";

/// The text of `archive.json`, with the right checksum whatever `document.check` holds.
pub fn archive_text(document: &ArchiveDocument) -> Result<(ArchiveDocument, String)> {
    let mut document = document.clone();
    document.check = ContentHash([0; 32]);
    let internal = |e: serde_json::Error| Error::new(Code::Internal, "writing the archive's identity").because(e);
    let blank = serde_json::to_string_pretty(&document).map_err(internal)? + "\n";
    document.check = ContentHash(*blake3::hash(blank.as_bytes()).as_bytes());
    let text = serde_json::to_string_pretty(&document).map_err(internal)? + "\n";
    Ok((document, text))
}

/// Reads `archive.json`. It is readable by people and programs that have no key, and checked all the same.
pub fn parse_archive(bytes: &[u8]) -> Result<ArchiveDocument> {
    let fault = |e: Fault| e.on(Family::Object, DOING, &ObjectKey::archive());
    let what = "archive.json";
    let document: ArchiveDocument =
        serde_json::from_slice(bytes).map_err(|source| fault(Fault::Json { what, source }))?;
    Fault::unless_equal("format", &ARCHIVE_FORMAT.to_owned(), &document.format).map_err(fault)?;
    if document.version > DOCUMENT_VERSION {
        return Err(Error::new(Code::ObjectUnsupported, DOING)
            .on(ObjectKey::archive())
            .with("version", document.version)
            .with("known", DOCUMENT_VERSION));
    }
    let stored = document.check.to_string();
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let computed = blake3::hash(text.replace(&stored, &"0".repeat(stored.len())).as_bytes()).to_string();
    if text.matches(&stored).count() != 1 || computed != stored {
        return Err(fault(Fault::Checksum { what, stored, computed }));
    }
    Ok(document)
}
