//! The document that makes collected and uploaded files a base.
//!
//! Owns: what a base says about itself. Pure: everything is given.

use base64::Engine as _;
use pitr_archive::{
    catalog::schema::{BaseColumnFamily, BaseDocument, BaseFile, Extra, InlineFile, Position},
    clock::Micros,
    ids::{ArchiveId, BaseId, Epoch, FileNumber, Nonce},
    rocks::manifest::TwoPhase,
};

use super::collect::Collected;
use crate::{
    engine::{BaseStart, max_file_sequence},
    layout::Layout,
};

/// Version of the document.
const VERSION: u32 = 1;

/// Who writes the document, and what only they know.
#[derive(Clone, Debug)]
pub struct Author {
    /// The archive.
    pub archive: ArchiveId,
    /// The base's name.
    pub id: BaseId,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// When the MANIFEST prefix was read.
    pub created: Micros,
}

/// RocksDB's first WAL needed by a set of files.
pub fn first_wal(collected: &Collected, layout: &Layout) -> FileNumber {
    let mode = if layout.allow_2pc() { TwoPhase::On } else { TwoPhase::Off };
    collected.model.first_wal_needed(mode)
}

/// Describes a base.
pub fn describe(
    author: Author,
    layout: &Layout,
    collected: &Collected,
    files: Vec<BaseFile>,
    start: BaseStart,
    floor: Position,
) -> BaseDocument {
    let model = &collected.model;
    let column_families = model
        .column_families()
        .iter()
        .map(|(id, family)| {
            let name = family.name.to_string();
            let settings = layout.family(&name);
            let comparator = family.comparator.as_ref().map(ToString::to_string);
            BaseColumnFamily {
                id: *id,
                // The default family of a database that has never flushed has no comparator in the MANIFEST yet.
                comparator: comparator.or_else(|| settings?.comparator.clone()).unwrap_or_default(),
                merge_operator: settings.and_then(|s| s.merge_operator.clone()),
                compaction_filter: settings
                    .and_then(|s| s.compaction_filter.clone().or_else(|| s.compaction_filter_factory.clone())),
                log_number: family.log_number,
                name,
            }
        })
        .collect();
    let encoder = base64::engine::general_purpose::STANDARD;
    let manifest_name = pitr_archive::rocks::file_name::manifest(collected.point.file);
    let inline = std::iter::once((manifest_name.as_str(), &collected.manifest))
        .chain(collected.small.iter().map(|(name, bytes)| (name.as_str(), bytes)))
        .map(|(name, bytes)| InlineFile { name: name.to_owned(), content: encoder.encode(bytes) })
        .collect();
    BaseDocument {
        version: VERSION,
        archive: author.archive,
        id: author.id,
        run: start.run,
        floor,
        first_wal: first_wal(collected, layout),
        first_record: start.first_record,
        first_hash: start.first_hash,
        last_sequence: model.last_sequence(),
        max_file_sequence: max_file_sequence(model),
        manifest: collected.point,
        db_id: model.db_id().map(ToOwned::to_owned).unwrap_or_default(),
        rocksdb_version: layout.settings().map(|s| s.rocksdb_version.to_string()).unwrap_or_default(),
        column_families,
        allow_2pc: layout.allow_2pc(),
        paths: layout.paths(),
        inline,
        files,
        created: author.created,
        epoch: author.epoch,
        nonce: author.nonce,
        extra: Extra::new(),
    }
}
