//! The entries of the archived stream: records of the write-ahead log and the events that replay must know.
//!
//! Owns: their meaning and their one byte encoding (`encode_into`, `decode`). The running hash is over these bytes, so
//! they are never written in another way. Layout: FORMAT.md, "Entries".

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Micros,
    ids::{Boundary, ColumnFamilyId, FileNumber, SequenceNumber},
};

/// One entry of the stream, in shipping order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A logical WAL record; it has the next record number.
    Record(Record),
    /// Something that is not a record; it lies at a boundary and has no number.
    Event(Event),
}

/// A logical WAL record: one write batch, byte for byte (after WAL decompression).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The WAL it was read from.
    pub wal: FileNumber,
    /// Offset of its first fragment's header in that WAL.
    pub start: u64,
    /// Offset of the byte after its last fragment.
    pub end: u64,
    /// The write batch.
    pub payload: Bytes,
}

/// A place in RocksDB's MANIFEST stream. Ordered: MANIFEST numbers grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ManifestPoint {
    /// The MANIFEST's number.
    pub file: FileNumber,
    /// A record's end offset in it.
    pub offset: u64,
}

/// The interval of boundaries in which a change outside the log happened: not before `lo`, not after `hi`.
///
/// `hi` is `None` while it is not known (a server with `manual_wal_flush`); an [`Event::IntervalClosed`] follows.
/// A target strictly inside cannot be restored exactly; `lo` itself is before the change and `hi` after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// The last boundary that is certainly before the change.
    pub lo: Boundary,
    /// The first boundary that is certainly after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hi: Option<Boundary>,
}

/// Why records on one side of a place cannot be replayed from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BarrierReason {
    /// Records between the last archived one and the next could not be read, or their absence could not be excluded.
    RecordsMissing,
    /// A session of the server began with sequence numbers at or below those of records before it.
    Reuse,
    /// Sequence numbers jumped forward without an explanation: writes that are not in the log (`disableWAL`).
    SequenceJump,
    /// Sequence numbers went back inside a session: the server took records back, or something is wrong.
    SequenceWentBack,
    /// Files entered or left the database without the log: ingestion, import, dropped file ranges.
    ChangeOutsideWal,
    /// A two-phase-commit record: this version archives it but does not replay it.
    TwoPhaseCommit,
    /// The archived records are not what the database holds now: it was restored, replaced, or lost acknowledged writes.
    Fork,
    /// A record is damaged, or cannot be read faithfully.
    Unreadable,
    /// MANIFEST edits were missed: their file vanished, or its successor does not begin where it ended.
    ManifestMissed,
}

/// Which plans a barrier stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// The place itself: plans that replay a record before it and one after it (first record < lo < target, as
    /// boundaries). A base whose first replayed record follows the place directly is not stopped: it was taken after
    /// whatever happened there.
    Replay,
    /// The record after the place: plans that replay it (first record <= lo < target).
    Record,
    /// Plans whose base's floor lies before the barrier and whose target lies at or after it.
    Floor,
}

impl BarrierReason {
    /// Which plans it stops.
    pub const fn blocks(self) -> Blocks {
        match self {
            Self::ChangeOutsideWal => Blocks::Floor,
            Self::TwoPhaseCommit => Blocks::Record,
            Self::RecordsMissing
            | Self::Reuse
            | Self::SequenceJump
            | Self::SequenceWentBack
            | Self::Fork
            | Self::Unreadable
            | Self::ManifestMissed => Blocks::Replay,
        }
    }

    /// Whether the stream restarts at offset 0 of the next base's first WAL: what follows is a new run.
    pub const fn ends_run(self) -> bool {
        matches!(self, Self::RecordsMissing | Self::Fork | Self::Unreadable | Self::ManifestMissed)
    }
}

/// What a column family edit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnFamilyChange {
    /// It came into being.
    Added,
    /// It was dropped.
    Dropped,
}

/// Something replay must know that is not a record. Stored as JSON; an unknown kind is an error, never skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A contiguous run of the stream begins here, at offset 0 of WAL `first_wal`.
    RunStarted {
        /// Number of the run on its timeline, from 0.
        run: u64,
        /// The first WAL of the run; every WAL from this number on follows completely.
        first_wal: FileNumber,
        /// The database's own identity.
        db_id: String,
    },
    /// A session of the server (one open of the database) begins: later records were written by it.
    SessionStarted {
        /// Counts sessions on this timeline as far as they were seen, from 0.
        session: u64,
        /// RocksDB's own name of the session, where its info log tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        db_session_id: Option<String>,
        /// Where its MANIFEST edits begin.
        manifest: ManifestPoint,
        /// `LastSequence` after the open's own edits.
        last_sequence: SequenceNumber,
    },
    /// Records of this WAL follow; the WAL before it (in number) has been read to its final end.
    WalStarted {
        /// Its number.
        wal: FileNumber,
    },
    /// This WAL's final end.
    WalEnded {
        /// Its number.
        wal: FileNumber,
        /// Offset after its last complete record.
        end: u64,
        /// Bytes after that which are no complete record and never will be.
        void_bytes: u64,
    },
    /// User-timestamp sizes that apply to the WAL's following records.
    TimestampSizes {
        /// The WAL.
        wal: FileNumber,
        /// Offset of the metadata record.
        offset: u64,
        /// Column family and timestamp size in bytes.
        sizes: Vec<(ColumnFamilyId, u16)>,
    },
    /// A column family was added or dropped.
    ColumnFamily {
        /// Which of the two.
        change: ColumnFamilyChange,
        /// Its id.
        id: ColumnFamilyId,
        /// Its name, as bytes in hexadecimal when it is not UTF-8.
        name: String,
        /// When.
        interval: Interval,
        /// The end of the MANIFEST record.
        manifest: ManifestPoint,
        /// The MANIFEST record's payload (a VersionEdit), base64.
        edit: String,
    },
    /// The end of an interval that was open has become known.
    IntervalClosed {
        /// The MANIFEST record whose interval it is.
        manifest: ManifestPoint,
        /// The first boundary that is certainly after the change.
        hi: Boundary,
    },
    /// Records that were archived and then taken back by the server; replay leaves them out.
    Withdrawn {
        /// Boundary before the first of them.
        from: Boundary,
        /// Boundary after the last of them.
        to: Boundary,
        /// Why we know, for people.
        evidence: String,
    },
    /// Replay cannot cross this place in one piece.
    Barrier {
        /// Why.
        reason: BarrierReason,
        /// Where. For reasons that block replay or a record, `lo` is the place ([`Blocks`]).
        interval: Interval,
        /// What was seen, for people: files, offsets, numbers.
        detail: String,
        /// When it was noticed.
        noticed: Micros,
    },
}
