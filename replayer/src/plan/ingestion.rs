//! Crossing an ingestion: bringing captured files in at exactly the place at which the source did.
//!
//! Owns: the conditions under which that gives the source's content, and the place. They are:
//! - every column family has a comparator and a merge operator that this library has: it opens the copy;
//! - the server is no two-phase-commit one, whose logs must outlive the open;
//! - of column families that are younger than the base, the settings are known where they matter: a captured file's event
//!   has them;
//! - every file was made to be ingested, and all its keys have the one number that RocksDB gave it;
//! - a number above 0 is the one due at that place: everything before has smaller ones, everything after larger ones, so
//!   the order of versions of a key is the source's;
//! - a file at number 0 overlapped nothing in the source. The restore itself checks that it overlaps nothing in the copy:
//!   a tombstone that the source's compactions had dropped, and the copy still has, would come *after* the ingested key in
//!   the order of numbers; a delete that follows would take a number away from it, and the key come back.
//!
//! The place: by numbers where there are any. At number 0 it is any place in the interval, when no record in the interval
//! touches the files' keys; behind the records whose numbers the MANIFEST had reached, so that what stands before the
//! ingestion there is before it in the copy, too.

use std::collections::BTreeSet;

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::BaseDocument,
    ids::{Boundary, ColumnFamilyId, Ordinals, SequenceNumber, TimelineId},
    rocks::{
        transactions::Transactions,
        version_edit::VersionEdit,
        write_batch::{BatchError, Op, WriteBatch},
    },
    segment::entry::{CapturedFile, CapturedSettings, ColumnFamilyChange, Entry, ManifestPoint, Record},
};
use serde::Serialize;

use super::{
    ColumnFamilyEdit, edit, facts, sequence,
    source::Source,
    stream::{Barrier, Capture, Place, Run, Stream},
};
use crate::{
    finish::{self, FamilySpec},
    target::Target,
};

/// An ingestion that the restore performs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedIngestion {
    /// The source's MANIFEST record.
    pub manifest: ManifestPoint,
    /// The records before this boundary are replayed before it, the others after it.
    pub at: Boundary,
    /// The latest sequence number before it.
    pub sequence: SequenceNumber,
    /// The latest sequence number after it.
    pub sequence_after: SequenceNumber,
    /// What each column family got.
    pub parts: Vec<IngestedPart>,
}

/// What one column family got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IngestedPart {
    /// The column family.
    pub column_family: ColumnFamilyId,
    /// The VersionEdit as archived, base64.
    pub edit: String,
    /// The files, in the edit's order.
    pub files: Vec<CapturedFile>,
    /// The segment that names them.
    #[serde(skip)]
    pub told_in: (TimelineId, Ordinals),
}

impl PlannedIngestion {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().flat_map(|part| &part.files).map(|file| file.size).sum()
    }
}

impl IngestedPart {
    /// The edit's bytes.
    pub fn payload(&self) -> Option<Vec<u8>> {
        edit::payload(&self.edit)
    }
}

/// What crossing is judged by.
pub(crate) struct Judge<'a> {
    pub stream: &'a Stream,
    pub source: &'a dyn Source,
    pub target: &'a Target,
    pub run: Run,
    pub base: &'a BaseDocument,
    /// Column family edits between the base and the target.
    pub families: &'a [ColumnFamilyEdit],
    /// Whether logs of two-phase commit are in play.
    pub two_phase: bool,
}

impl Judge<'_> {
    /// The ingestions between the base and `place`, in order.
    ///
    /// # Errors
    /// `target.behind-barrier`, with the reason, where one of them cannot be repeated exactly.
    pub async fn crossed(&self, place: Place) -> Result<Vec<PlannedIngestion>> {
        let mut crossed: Vec<PlannedIngestion> = Vec::new();
        let mut barriers = self.stream.crossed(self.run, self.base, place);
        barriers.sort_by_key(|barrier| barrier.manifest);
        let mut last = None;
        for barrier in barriers {
            let before = crossed.last();
            if before.is_some_and(|before| Some(before.manifest) == barrier.manifest) {
                continue;
            }
            let planned = self.one(barrier, before).await?.map_err(|why| self.refused(place, barrier, &why))?;
            crossed.push(planned);
            last = Some(barrier);
        }
        if let Some(barrier) = last {
            self.merges_are_known(place).await?.map_err(|why| self.refused(place, barrier, &why))?;
        }
        Ok(crossed)
    }

    fn refused(&self, place: Place, barrier: &Barrier, why: &str) -> Error {
        Error::new(Code::TargetBehindBarrier, "planning a restore to")
            .on(self.target)
            .with("boundary", place.boundary)
            .with("barrier", "change-outside-wal")
            .with("at", barrier.when.interval.lo)
            .with("detail", &barrier.detail)
            .with("it cannot be crossed", why)
    }

    /// `Err` inside is the reason why not.
    async fn one(
        &self,
        barrier: &Barrier,
        before: Option<&PlannedIngestion>,
    ) -> Result<std::result::Result<PlannedIngestion, String>> {
        let captures = self.stream.captures_of(self.run, barrier);
        let Some(manifest) = barrier.manifest else { return Ok(Err("no MANIFEST record shows it".to_owned())) };
        let Admitted { numbers, zeros, reached } = match self.admitted(&captures) {
            Ok(admitted) => admitted,
            Err(why) => return Ok(Err(why)),
        };
        let lo = barrier.when.certain_lo();
        let hi = barrier.when.interval.hi.unwrap_or(lo).max(lo);
        let at = match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) => self.by_numbers(lo, hi, *first, *last).await?,
            _ if lo == hi => Ok(lo),
            _ => self.untouched(lo, hi, &zeros, reached).await?,
        };
        let at = match at {
            Ok(at) => at,
            Err(why) => return Ok(Err(why)),
        };
        let there = self.sequence_at(at, barrier, before).await?;
        let sequence_after = numbers.last().copied().unwrap_or(there).max(there);
        if let Some(first) = numbers.first()
            && there.checked_add(1) != Some(*first)
        {
            return Ok(Err(format!(
                "its files begin with sequence number {first}, and {there} is the last one before"
            )));
        }
        let parts = captures
            .into_iter()
            .map(|capture| IngestedPart {
                column_family: capture.column_family,
                edit: capture.edit.clone(),
                files: capture.files.clone(),
                told_in: capture.told_in,
            })
            .collect();
        Ok(Ok(PlannedIngestion { manifest, at, sequence: there, sequence_after, parts }))
    }

    /// Whether the files are of a kind that can be brought in, and what of them tells the place.
    fn admitted(&self, captures: &[&Capture]) -> std::result::Result<Admitted, String> {
        let Admitted { mut numbers, mut zeros, mut reached } = Admitted::default();
        if self.two_phase {
            return Err(
                "the database's log can hold prepared transactions, which an open in between would touch".into()
            );
        }
        if let Some(lacking) = finish::unknown(&self.specs()).first() {
            return Err(format!(
                "column family {:?} has the {} {}, which is not built in",
                lacking.family, lacking.what, lacking.name
            ));
        }
        for capture in captures {
            let malformed = || "its MANIFEST record cannot be read".to_owned();
            let payload = edit::payload(&capture.edit).ok_or_else(malformed)?;
            let edit = VersionEdit::decode(&payload).map_err(|_| malformed())?;
            if edit.column_family != capture.column_family || edit.new_files.len() != capture.files.len() {
                return Err(malformed());
            }
            reached = reached.max(edit.last_sequence.unwrap_or_default());
            for (new, file) in edit.new_files.iter().zip(&capture.files) {
                if new.number != file.number || new.file_size != file.size {
                    return Err(malformed());
                }
                if !file.external || new.smallest_seqno != new.largest_seqno {
                    return Err(format!(
                        "file {} was not made to be ingested: an import, or a file of another database",
                        file.number
                    ));
                }
                if new.largest_seqno.get() > 0 {
                    numbers.insert(new.largest_seqno);
                    continue;
                }
                if capture.behind {
                    return Err(format!(
                        "file {} has no number of its own, and the server may have put it below what was there",
                        file.number
                    ));
                }
                if let Some(filter) = self.filter(capture.column_family) {
                    return Err(format!(
                        "file {} has no number of its own, and {filter} may have removed what it would overlap",
                        file.number
                    ));
                }
                if self.is_younger(capture.column_family) && self.settings_of(capture.column_family).is_none() {
                    return Err(format!(
                        "file {} has no number of its own, and its column family is younger than the base: whether a compaction filter may have removed what it would overlap is not known",
                        file.number
                    ));
                }
                let (first, last) = (new.smallest.user_key(), new.largest.user_key());
                zeros.push(Touched {
                    family: capture.column_family,
                    low: first.min(last).to_vec(),
                    high: first.max(last).to_vec(),
                });
            }
        }
        match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) if last.get() - first.get() + 1 != numbers.len() as u64 => {
                Err(format!("its files have sequence numbers from {first} to {last} with a gap"))
            }
            _ => Ok(Admitted { numbers, zeros, reached }),
        }
    }

    /// What opening the copy needs to know of its column families.
    fn specs(&self) -> Vec<FamilySpec> {
        let spec = |id, name: &str, comparator: &str, merge_operator: Option<String>| FamilySpec {
            id,
            name: name.to_owned(),
            // The default column family of a database that has never flushed.
            comparator: if comparator.is_empty() { "leveldb.BytewiseComparator".into() } else { comparator.to_owned() },
            merge_operator,
            format_version: None,
            levels: None,
            paths: Vec::new(),
        };
        let of_base = self
            .base
            .column_families
            .iter()
            .map(|family| spec(family.id, &family.name, &family.comparator, family.merge_operator.clone()));
        let added = self.families.iter().filter_map(|family| {
            let comparator = |edit: &VersionEdit<'_>| Some(String::from_utf8_lossy(edit.comparator?).into_owned());
            let merge_operator = family.settings.as_ref().and_then(|settings| settings.merge_operator.clone());
            Some(spec(family.id, &family.name, &edit::look(&family.edit, comparator)?, merge_operator))
        });
        of_base.chain(added).collect()
    }

    fn filter(&self, id: ColumnFamilyId) -> Option<&str> {
        match self.base.column_families.iter().find(|family| family.id == id) {
            Some(family) => family.compaction_filter.as_deref(),
            None => self.settings_of(id)?.compaction_filter.as_deref(),
        }
    }

    fn is_younger(&self, id: ColumnFamilyId) -> bool {
        self.base.column_families.iter().all(|family| family.id != id)
    }

    /// The settings of a column family that is younger than the base, as far as they are known.
    fn settings_of(&self, id: ColumnFamilyId) -> Option<&CapturedSettings> {
        self.families.iter().find(|family| family.id == id)?.settings.as_ref()
    }

    /// Everything up to the place is recovered here, for which a merge in a column family needs to know its operator.
    async fn merges_are_known(&self, place: Place) -> Result<std::result::Result<(), String>> {
        let added = self.families.iter().filter(|family| family.change == ColumnFamilyChange::Added);
        let unknown = |id: &ColumnFamilyId| self.is_younger(*id) && self.settings_of(*id).is_none();
        let families: BTreeSet<_> = added.map(|family| family.id).filter(unknown).collect();
        if families.is_empty() {
            return Ok(Ok(()));
        }
        for (boundary, record) in self.records(self.base.first_record, place.boundary).await? {
            for op in WriteBatch::parse(&record.payload).map_err(|e| malformed(boundary, e))?.ops() {
                if let Op::Merge { cf, .. } = op.map_err(|e| malformed(boundary, e))?
                    && families.contains(&cf)
                {
                    return Ok(Err(format!(
                        "record {} is a merge in column family {cf}, which is younger than the base: its operator is not known",
                        boundary.next_record()
                    )));
                }
            }
        }
        Ok(Ok(()))
    }

    /// The latest sequence number at the place, with what earlier ingestions and the base took.
    async fn sequence_at(
        &self,
        at: Boundary,
        barrier: &Barrier,
        before: Option<&PlannedIngestion>,
    ) -> Result<SequenceNumber> {
        let place = barrier.when.after_session(at);
        let facts = facts::at(self.stream, self.source, place).await?;
        let session = self.stream.session_at(place);
        let mut there = facts.sequence.unwrap_or(self.base.last_sequence);
        if self.base.floor.boundary == at {
            there = there.max(self.base.floor.sequence);
        }
        if let Some(before) =
            before.filter(|b| self.stream.session_at(Place::before_events(b.at)) == session || b.at == at)
        {
            there = there.max(before.sequence_after);
        }
        Ok(there)
    }

    /// The boundary between the records with smaller numbers and those with larger ones.
    async fn by_numbers(
        &self,
        lo: Boundary,
        hi: Boundary,
        first: SequenceNumber,
        last: SequenceNumber,
    ) -> Result<std::result::Result<Boundary, String>> {
        let mut at = lo;
        let mut beyond = false;
        for (boundary, record) in self.records(lo, hi).await? {
            let step = sequence::step(&mut Transactions::default(), boundary.next_record(), &record)?;
            if !step.consumed {
                continue;
            }
            if step.end < first && !beyond {
                at = boundary.next().unwrap_or(hi);
            } else if step.first > last {
                beyond = true;
            } else {
                return Ok(Err(format!(
                    "record {} has sequence numbers {} to {}, where the files have {first} to {last}",
                    boundary.next_record(),
                    step.first,
                    step.end
                )));
            }
        }
        Ok(Ok(at))
    }

    /// Any place in the interval will do when no record in it touches the files' keys; `reached` was given out before.
    async fn untouched(
        &self,
        lo: Boundary,
        hi: Boundary,
        zeros: &[Touched],
        reached: SequenceNumber,
    ) -> Result<std::result::Result<Boundary, String>> {
        let mut at = lo;
        for (boundary, record) in self.records(lo, hi).await? {
            for op in WriteBatch::parse(&record.payload).map_err(|e| malformed(boundary, e))?.ops() {
                let op = op.map_err(|e| malformed(boundary, e))?;
                if zeros.iter().any(|zero| zero.is_touched_by(&op)) {
                    return Ok(Err(format!(
                        "record {} writes to keys of its files, and whether before or after them is not known",
                        boundary.next_record()
                    )));
                }
            }
            let step = sequence::step(&mut Transactions::default(), boundary.next_record(), &record)?;
            if step.consumed && step.end <= reached {
                at = boundary.next().unwrap_or(hi);
            }
        }
        Ok(Ok(at))
    }

    /// The records of `first .. end`.
    async fn records(&self, first: Boundary, end: Boundary) -> Result<Vec<(Boundary, Record)>> {
        let mut records = Vec::new();
        for piece in self.stream.covering(first, end) {
            for read in self.source.entries(piece.timeline, &piece.summary).await? {
                if let Entry::Record(record) = read.entry
                    && first <= read.at
                    && read.at < end
                {
                    records.push((read.at, record));
                }
            }
        }
        Ok(records)
    }
}

fn malformed(boundary: Boundary, e: BatchError) -> Error {
    Error::new(Code::BatchMalformed, "decoding record").on(boundary.next_record()).because(e)
}

/// What ingested files tell of their place.
#[derive(Default)]
struct Admitted {
    /// The numbers that they were given.
    numbers: BTreeSet<SequenceNumber>,
    /// The keys of those without one.
    zeros: Vec<Touched>,
    /// The latest sequence number in their MANIFEST records, which is at most the database's at the time.
    reached: SequenceNumber,
}

/// The keys of a file at number 0, in the order of bytes: both comparators that are built in keep ranges of it.
struct Touched {
    family: ColumnFamilyId,
    low: Vec<u8>,
    high: Vec<u8>,
}

impl Touched {
    fn is_touched_by(&self, op: &Op<'_>) -> bool {
        if op.column_family() != Some(self.family) {
            return false;
        }
        let (low, high) = match op {
            Op::DeleteRange { begin, end, .. } => (*begin.min(end), *begin.max(end)),
            _ => op.key().map_or((&[][..], &[][..]), |key| (key, key)),
        };
        low <= self.high.as_slice() && self.low.as_slice() <= high
    }
}
