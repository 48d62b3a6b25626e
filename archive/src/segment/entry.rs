//! The entries of the archived stream: records of the write-ahead log and the events that replay must know.
//!
//! Owns: their meaning and their one byte encoding (`encode_into`, `decode`). The running hash is over these bytes, so
//! they are never written in another way. Layout: FORMAT.md, "Entries".

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Micros,
    ids::{Boundary, ColumnFamilyId, ContentHash, Epoch, FileNumber, SequenceNumber},
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
    /// A record of two-phase commit that is archived but not replayed: what it commits was prepared before the first
    /// record, it prepares what is pending already, or the server's settings make RocksDB lose what is prepared.
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
    /// As `Replay`; and a base whose first replayed record follows the place directly is stopped, too, unless its files
    /// reach the last number that is not explained. Where the event itself lies before the target, it stops targets at
    /// `lo`, too: they have writes that no record shows.
    Jump,
    /// The record after the place: plans that replay it (first record <= lo < target).
    Record,
    /// Plans whose base's floor lies before the barrier and whose target lies at or after it.
    Floor,
}

impl BarrierReason {
    /// Which plans it stops.
    pub const fn blocks(self) -> Blocks {
        match self {
            // Whatever the MANIFEST said in the interval is unknown: column families, files that entered without the log.
            Self::ChangeOutsideWal | Self::ManifestMissed => Blocks::Floor,
            Self::TwoPhaseCommit => Blocks::Record,
            Self::SequenceJump => Blocks::Jump,
            Self::RecordsMissing | Self::Reuse | Self::SequenceWentBack | Self::Fork | Self::Unreadable => {
                Blocks::Replay
            }
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

/// What repeating an ingestion needs to know of a column family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedSettings {
    /// Its merge operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_operator: Option<String>,
    /// Its compaction filter, or the factory that makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compaction_filter: Option<String>,
    /// The number of its levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<u64>,
}

/// A file that entered without the log, or that a flush made, and is in the archive, as files of bases are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedFile {
    /// Its number in the source.
    pub number: FileNumber,
    /// Its size in bytes.
    pub size: u64,
    /// blake3 of its bytes.
    pub hash: ContentHash,
    /// Name of the object below `files/` (`base::FileIdentity`).
    pub object: String,
    /// The epoch whose key seals the object.
    pub epoch: Epoch,
    /// Whether its own properties say that it was made outside of a database, to be ingested; one that was exported
    /// from another database says nothing of the kind.
    pub external: bool,
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
        /// What the MANIFEST says behind this place happened in the session. Where it is not certain with which edit the
        /// session began, this is the last one that had been read when the stream reached it.
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
    /// The files that one column family got without the log are in the archive: with them, replay can cross the barriers
    /// of this MANIFEST record, once every column family that it concerns has this event.
    Captured {
        /// The MANIFEST record, as the barrier names it.
        manifest: ManifestPoint,
        /// The column family.
        column_family: ColumnFamilyId,
        /// The VersionEdit that named them, base64.
        edit: String,
        /// They, in the edit's order.
        files: Vec<CapturedFile>,
        /// The server may have put them below what was there (`allow_ingest_behind`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        behind: bool,
        /// The column family's settings at the time, where they were certain: a base that is older than the column family
        /// does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settings: Option<CapturedSettings>,
    },
    /// The files of a flush are in the archive: laid down with their edit, they spare replay what they hold.
    Flushed {
        /// The MANIFEST record.
        manifest: ManifestPoint,
        /// The MANIFEST record of the flush before it, of whatever column family, that the archiver saw; where it saw none,
        /// from where on it saw every one. Between the two there was no other.
        previous: ManifestPoint,
        /// The column family.
        column_family: ColumnFamilyId,
        /// The VersionEdit, base64.
        edit: String,
        /// Its files, in the edit's order.
        files: Vec<CapturedFile>,
        /// The oldest log that any column family needed behind it, where the MANIFEST said so with it: one that is idle
        /// names an old log in edits of its own for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_wal_needed: Option<FileNumber>,
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
    /// Numbers were used by writes that are not in the log, in column families of which the operator tolerates it. No
    /// barrier: what a restore gives of these column families is what a crash would have kept, and of the others all.
    UnloggedTolerated {
        /// The last number that nothing explains.
        unexplained: SequenceNumber,
        /// The column families that may have them.
        column_families: Vec<String>,
        /// What was seen, for people.
        detail: String,
        /// When it was noticed.
        noticed: Micros,
    },
    /// Replay cannot cross this place in one piece.
    Barrier {
        /// Why.
        reason: BarrierReason,
        /// Where. For reasons that block replay or a record, `lo` is the place ([`Blocks`]).
        interval: Interval,
        /// The MANIFEST record that showed it, if one did: an [`Event::IntervalClosed`] names the barrier by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<ManifestPoint>,
        /// For a jump: the last number that neither a record nor an ingested file explains.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unexplained: Option<SequenceNumber>,
        /// What was seen, for people: files, offsets, numbers.
        detail: String,
        /// When it was noticed.
        noticed: Micros,
    },
}

/// Bytes of a record's encoding before its payload.
pub const RECORD_HEAD: usize = 29;

/// Bytes of an event's encoding before its JSON.
pub const EVENT_HEAD: usize = 5;

/// The longest payload of a record that is archived: 1 GiB. A longer one is a barrier.
pub const MAX_PAYLOAD: u64 = 1 << 30;

/// The longest JSON of an event.
pub const MAX_EVENT: u64 = 1 << 26;

/// First byte of an encoded entry.
mod kind {
    pub(super) const RECORD: u8 = 1;
    pub(super) const EVENT: u8 = 2;
}

/// Why an entry cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The bytes end inside the entry.
    #[error("the entry needs {needed} bytes and {have} are there")]
    Short {
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// Neither a record nor an event.
    #[error("unknown kind of entry {0}")]
    UnknownKind(u8),
    /// Too long.
    #[error("{len} bytes, the limit is {limit}")]
    TooLong {
        /// Its length.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// Its offsets are impossible.
    #[error("a record from offset {start} to {end}")]
    Offsets {
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// The event is unknown or malformed.
    #[error("the event is not one that this version knows")]
    Event(#[source] serde_json::Error),
    /// The event's JSON is not the one form in which this event is written.
    #[error("the event is not in the form in which it is written")]
    NotCanonical,
}

impl Record {
    /// The encoding up to the payload: kind, payload length (u32), WAL, start, span (`end - start`), u64 each.
    pub fn head(&self) -> Result<[u8; RECORD_HEAD], EntryError> {
        let len = self.payload.len() as u64;
        let len = match u32::try_from(len) {
            Ok(short) if len <= MAX_PAYLOAD => short,
            _ => return Err(EntryError::TooLong { len, limit: MAX_PAYLOAD }),
        };
        let span = self
            .end
            .checked_sub(self.start)
            .filter(|span| *span > 0)
            .ok_or(EntryError::Offsets { start: self.start, end: self.end })?;
        let mut head = [0; RECORD_HEAD];
        let fields: [&[u8]; 5] = [
            &[kind::RECORD],
            &len.to_le_bytes(),
            &self.wal.get().to_le_bytes(),
            &self.start.to_le_bytes(),
            &span.to_le_bytes(),
        ];
        let mut rest = head.as_mut_slice();
        for field in fields {
            let (here, after) = rest.split_at_mut(field.len());
            here.copy_from_slice(field);
            rest = after;
        }
        Ok(head)
    }
}

impl Event {
    /// The encoding: kind, JSON length (u32), JSON without spaces, fields in the order of their declaration.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let json = serde_json::to_vec(self).map_err(EntryError::Event)?;
        let len = json.len() as u64;
        let len = match u32::try_from(len) {
            Ok(short) if len <= MAX_EVENT => short,
            _ => return Err(EntryError::TooLong { len, limit: MAX_EVENT }),
        };
        let mut out = Vec::with_capacity(EVENT_HEAD + json.len());
        out.push(kind::EVENT);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&json);
        Ok(out)
    }
}

impl Entry {
    /// Appends the encoding.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        match self {
            Self::Record(record) => {
                out.extend_from_slice(&record.head()?);
                out.extend_from_slice(&record.payload);
            }
            Self::Event(event) => out.extend_from_slice(&event.encode()?),
        }
        Ok(())
    }

    /// The length of the encoded entry at the start of `bytes`, all of which are there.
    pub fn encoded_len(bytes: &[u8]) -> Result<usize, EntryError> {
        let short = |needed: u64| EntryError::Short { needed, have: bytes.len() as u64 };
        let mut head = bytes;
        let kind = head.try_get_u8().map_err(|_| short(1))?;
        let (fixed, limit) = match kind {
            kind::RECORD => (RECORD_HEAD, MAX_PAYLOAD),
            kind::EVENT => (EVENT_HEAD, MAX_EVENT),
            other => return Err(EntryError::UnknownKind(other)),
        };
        let variable = u64::from(head.try_get_u32_le().map_err(|_| short(fixed as u64))?);
        if variable > limit {
            return Err(EntryError::TooLong { len: variable, limit });
        }
        let whole = fixed as u64 + variable;
        match usize::try_from(whole) {
            Ok(whole) if whole <= bytes.len() => Ok(whole),
            _ => Err(short(whole)),
        }
    }

    /// Takes the entry at the start of `bytes`; payloads share their memory.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, EntryError> {
        let mut entry = bytes.split_to(Self::encoded_len(bytes)?);
        let short = |_| EntryError::Short { needed: RECORD_HEAD as u64, have: 0 };
        let kind = entry.try_get_u8().map_err(short)?;
        entry.try_get_u32_le().map_err(short)?;
        if kind == kind::EVENT {
            let event: Event = serde_json::from_slice(&entry).map_err(EntryError::Event)?;
            // One event, one encoding: the running hash is over the bytes.
            if serde_json::to_vec(&event).map_err(EntryError::Event)? != entry {
                return Err(EntryError::NotCanonical);
            }
            return Ok(Self::Event(event));
        }
        let wal = FileNumber::new(entry.try_get_u64_le().map_err(short)?);
        let start = entry.try_get_u64_le().map_err(short)?;
        let span = entry.try_get_u64_le().map_err(short)?;
        let end = start
            .checked_add(span)
            .filter(|_| span > 0)
            .ok_or(EntryError::Offsets { start, end: start.wrapping_add(span) })?;
        Ok(Self::Record(Record { wal, start, end, payload: entry }))
    }
}

#[cfg(test)]
mod tests;
