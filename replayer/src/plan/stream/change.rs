//! Changes that no record of the log tells: barriers, column families, files that entered, and on which side of one a
//! place lies. Pure.

use pitr_archive::{
    catalog::crossing::Hurdle,
    ids::{Boundary, ColumnFamilyId, FileNumber, Ordinals, SequenceNumber, TimelineId},
    segment::entry::{BarrierReason, CapturedFile, CapturedSettings, ColumnFamilyChange, Interval, ManifestPoint},
};

use super::{Place, after};
use crate::plan::edit;

/// When a change happened, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    /// Where it was noted: it lies directly after this place.
    pub noted: Place,
    /// Between which boundaries it happened.
    pub interval: Interval,
    /// The session whose MANIFEST showed it begins directly after this place: it did not happen before.
    pub session: Option<Place>,
    /// A session that begins here, behind where it was noted: whether it happened before or after that, nothing tells.
    pub doubt: Option<Place>,
}

impl When {
    /// As it was noted; nothing is known of sessions yet.
    pub(super) const fn noted(noted: Place, interval: Interval) -> Self {
        Self { noted, interval, session: None, doubt: None }
    }

    /// The last boundary that is certainly before it, its session's beginning considered.
    pub fn certain_lo(&self) -> Boundary {
        self.session.map_or(self.interval.lo, |start| start.boundary.max(self.interval.lo))
    }

    /// The place behind the record before `at`, and behind the beginning of its session where that lies there.
    pub fn after_session(&self, at: Boundary) -> Place {
        match self.session {
            Some(start) if start.boundary == at => after(start),
            _ => Place::before_events(at),
        }
    }

    /// On which side of it a target lies.
    ///
    /// Where both ends of its interval coincide, its place in the stream decides: "after record n" is before a change
    /// that was seen between this record and the next, a tag set later is after it.
    pub fn side(&self, target: Place) -> Side {
        if self.session.is_some_and(|start| target <= start) {
            return Side::Before;
        }
        let lo = self.certain_lo();
        let doubted = |hi| self.doubt.is_some_and(|start| start.boundary == hi && target <= start);
        match self.interval.hi {
            Some(hi) if hi == target.boundary && (lo < hi || self.noted < target) && doubted(hi) => Side::Inside,
            Some(hi) if hi < target.boundary || (hi == target.boundary && lo < hi) => Side::After,
            Some(hi) if hi == target.boundary && self.noted < target => Side::After,
            _ if target.boundary <= lo => Side::Before,
            _ => Side::Inside,
        }
    }
}

/// On which side of a change a target lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    Inside,
    After,
}

/// A place that replay cannot cross in one piece.
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    pub when: When,
    pub reason: BarrierReason,
    /// The MANIFEST record that showed it.
    pub manifest: Option<ManifestPoint>,
    /// For a jump: the last number that nothing explains.
    pub unexplained: Option<SequenceNumber>,
    pub detail: String,
}

impl Barrier {
    pub(super) fn hurdle(&self) -> Hurdle {
        let Self { when: When { interval, .. }, reason, manifest, unexplained, .. } = *self;
        Hurdle { reason, interval, manifest, unexplained }
    }
}

/// Files that entered without the log, in the archive.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// Where it was noted.
    pub place: Place,
    /// The segment with its event.
    pub told_in: (TimelineId, Ordinals),
    /// The MANIFEST record, as in [`Barrier`].
    pub manifest: ManifestPoint,
    pub column_family: ColumnFamilyId,
    pub edit: String,
    pub files: Vec<CapturedFile>,
    pub behind: bool,
    pub settings: Option<CapturedSettings>,
}

impl Capture {
    /// The largest number that its files were given, as far as its edit can be read.
    pub(super) fn largest_number(&self) -> Option<SequenceNumber> {
        edit::look(&self.edit, |edit| edit.new_files.iter().map(|file| file.largest_seqno).max())
    }
}

/// A flush whose files are in the archive.
#[derive(Clone, Debug)]
pub(crate) struct Flush {
    /// Where it was noted.
    pub place: Place,
    /// The segment with its event.
    pub told_in: (TimelineId, Ordinals),
    /// The MANIFEST record.
    pub manifest: ManifestPoint,
    /// The flush before it; between the two there was none.
    pub previous: ManifestPoint,
    pub column_family: ColumnFamilyId,
    pub edit: String,
    pub files: Vec<CapturedFile>,
    /// The oldest log that any column family needed behind it, where that is known.
    pub first_wal_needed: Option<FileNumber>,
}

/// A column family added or dropped.
#[derive(Clone, Debug)]
pub(crate) struct FamilyEvent {
    pub when: When,
    pub change: ColumnFamilyChange,
    pub id: ColumnFamilyId,
    pub name: String,
    pub manifest: ManifestPoint,
    pub edit: String,
}
