//! Which history a database directory belongs to.
//!
//! Owns: what identifies it (RocksDB's own identity, and the marker of the restore that it comes from), the timeline that
//! goes on with it, and where a restored database left its parent. Two small files are read; everything else is decided
//! from values.
//! Refuses: to look at records. That the same database lost some is found out by comparing bytes (`fork`).

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{Position, TimelineDocument},
    ids::{ArchiveId, Nonce},
    restore_marker::{FILE_NAME, RestoreMarker, VERSION},
};

use crate::layout::{Layout, read_small};

/// What identifies a database directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// RocksDB's own identity: a restored database keeps it.
    pub db_id: String,
    /// What the restore left that it comes from, if it comes from one.
    pub marker: Option<RestoreMarker>,
}

impl Lineage {
    /// Reads it.
    pub fn read(layout: &Layout) -> Result<Self> {
        let path = layout.db.join(FILE_NAME);
        let marker = match read_small(&path)? {
            None => None,
            Some(bytes) => {
                let damaged = || Error::new(Code::MarkerDamaged, "reading").on(path.display());
                let marker: RestoreMarker = serde_json::from_slice(&bytes).map_err(|e| damaged().because(e))?;
                if marker.version > VERSION {
                    return Err(damaged().with("version", marker.version).hint("a newer pitr restored this database"));
                }
                Some(marker)
            }
        };
        Ok(Self { db_id: layout.identity()?, marker })
    }

    /// The random id of the restore.
    pub fn nonce(&self) -> Option<Nonce> {
        self.marker.as_ref().map(|marker| marker.marker)
    }

    /// The timeline that goes on with this directory: of those opened for it, the last. An earlier one was left where
    /// this database lost records.
    pub fn timeline<'a>(&self, known: &'a [TimelineDocument]) -> Option<&'a TimelineDocument> {
        let ours = |t: &&TimelineDocument| t.db_id == self.db_id && t.restore_marker == self.nonce();
        known.iter().filter(ours).max_by_key(|timeline| timeline.timeline)
    }

    /// Where a restored database left the archived history; `None` if it comes from elsewhere.
    pub fn parent(&self, archive: ArchiveId, known: &[TimelineDocument]) -> Option<Position> {
        let marker = self.marker.as_ref().filter(|marker| marker.archive == archive)?;
        known.iter().any(|t| t.timeline == marker.timeline).then(|| marker.position())
    }

    /// Why a timeline is opened for this directory, for people.
    pub fn story(&self, archive: ArchiveId) -> String {
        match &self.marker {
            None => format!("database {}", self.db_id),
            Some(marker) if marker.archive == archive => {
                format!("restored to timeline {}, boundary {}", marker.timeline, marker.boundary)
            }
            Some(marker) => format!("restored from another archive, {}", marker.archive),
        }
    }

    /// What became of `before`, for people.
    pub fn difference(&self, before: &Self) -> String {
        if self.db_id == before.db_id {
            return "the directory holds a database that was restored since, or the one before its restore".to_owned();
        }
        format!("the directory holds another database: {}, not {}", self.db_id, before.db_id)
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::{
        catalog::schema::{DOCUMENT_VERSION, Extra},
        clock::Micros,
        ids::{Boundary, Epoch, RunningHash, SequenceNumber, TimelineId},
    };

    use super::*;

    const ARCHIVE: ArchiveId = ArchiveId([1; 16]);

    fn timeline(number: u32, db_id: &str, marker: Option<u8>) -> TimelineDocument {
        TimelineDocument {
            version: DOCUMENT_VERSION,
            archive: ARCHIVE,
            timeline: TimelineId::new(number),
            parent: None,
            restore_marker: marker.map(|byte| Nonce([byte; 16])),
            db_id: db_id.to_owned(),
            detail: String::new(),
            created: Micros(0),
            epoch: Epoch::new(1),
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        }
    }

    fn restored(marker: u8, archive: ArchiveId, from: u32) -> Lineage {
        let marker = RestoreMarker {
            version: VERSION,
            marker: Nonce([marker; 16]),
            archive,
            timeline: TimelineId::new(from),
            boundary: Boundary::new(7),
            hash: RunningHash::ZERO,
            sequence: SequenceNumber::new(9),
            created: Micros(0),
        };
        Lineage { db_id: "a".to_owned(), marker: Some(marker) }
    }

    #[test]
    fn a_directory_goes_on_with_the_last_timeline_that_was_opened_for_it() {
        let known = [timeline(1, "a", None), timeline(2, "a", Some(5)), timeline(3, "a", None), timeline(4, "b", None)];
        let of = |lineage: &Lineage| lineage.timeline(&known).map(|t| t.timeline.get());
        assert_eq!(of(&Lineage { db_id: "a".to_owned(), marker: None }), Some(3));
        assert_eq!(of(&Lineage { db_id: "b".to_owned(), marker: None }), Some(4));
        assert_eq!(of(&restored(5, ARCHIVE, 1)), Some(2), "a known restore goes on where it was");
        assert_eq!(of(&restored(6, ARCHIVE, 1)), None, "an unknown one has none yet");
        assert_eq!(of(&Lineage { db_id: "c".to_owned(), marker: None }), None);
    }

    #[test]
    fn only_a_restore_from_this_archive_has_a_parent() {
        let known = [timeline(1, "a", None)];
        let parent = restored(5, ARCHIVE, 1).parent(ARCHIVE, &known).unwrap();
        assert_eq!((parent.timeline.get(), parent.boundary.get(), parent.sequence.get()), (1, 7, 9));
        assert_eq!(restored(5, ArchiveId([2; 16]), 1).parent(ARCHIVE, &known), None, "another archive's timeline 1");
        assert_eq!(restored(5, ARCHIVE, 9).parent(ARCHIVE, &known), None, "a timeline that is not there");
        assert_eq!(Lineage { db_id: "c".to_owned(), marker: None }.parent(ARCHIVE, &known), None);
    }
}
