//! From a target to places in the stream.
//!
//! Owns: what each kind of target means, and the distance between asked and reached. A boundary at which something
//! happened has several places: a record or a sequence number means the one directly after its record, a time the one
//! that the last look showed, a tag its own, and the latest is the end. Whether a place can be *restored* is decided by
//! `choose`.

use chrono::{DateTime, Utc};
use pitr_archive::{
    Code, Error, Result,
    catalog::schema::TagDocument,
    clock::Micros,
    ids::{RecordNumber, RunningHash, SequenceNumber},
};

use super::{
    Distance, Note, NoteKind,
    source::Source,
    stream::{Place, Stream},
};
use crate::target::Target;

mod by_sequence;
pub(crate) mod by_time;

/// What a target means.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The place; for a tag, its boundary until the running hash tells the place.
    pub place: Place,
    pub distance: Distance,
    pub notes: Vec<Note>,
    /// The running hash that a tag says is there.
    pub hash: Option<RunningHash>,
}

impl Resolved {
    fn exactly(place: Place) -> Self {
        let distance = Distance { exact: true, ..Distance::default() };
        Self { place, distance, notes: Vec::new(), hash: None }
    }

    /// Says that the target moved to an earlier record, and why.
    pub(crate) fn moved(&mut self, records: u64, why: String) {
        self.distance.exact = false;
        self.distance.records += records;
        if self.distance.text.is_empty() {
            self.distance.text.clone_from(&why);
        } else {
            self.distance.text = format!("{}; {why}", self.distance.text);
        }
        self.notes.push(Note { kind: NoteKind::Moved, text: why });
    }
}

/// Resolves a target; `tag` is its document when it is a tag.
pub(crate) async fn resolve(
    stream: &Stream,
    source: &dyn Source,
    target: &Target,
    tag: Option<&TagDocument>,
) -> Result<Resolved> {
    match target {
        Target::Latest => Ok(Resolved::exactly(stream.head())),
        Target::Record(record) => by_record(stream, source, *record),
        Target::Sequence(sequence) => by_sequence::resolve(stream, source, *sequence).await,
        Target::Time(time) => by_time::resolve(stream, source, *time).await,
        Target::Tag(name) => by_tag(stream, name, tag),
    }
}

fn by_record(stream: &Stream, source: &dyn Source, record: RecordNumber) -> Result<Resolved> {
    let head = stream.head().boundary;
    match record.after() {
        Some(boundary) if boundary <= head => {
            if boundary <= stream.start() {
                return Err(before_start(stream, source, &Target::Record(record))?);
            }
            Ok(Resolved::exactly(Place::before_events(boundary)))
        }
        _ => Err(after_end(stream, source, &Target::Record(record))?),
    }
}

fn by_tag(stream: &Stream, name: &str, tag: Option<&TagDocument>) -> Result<Resolved> {
    let tag = tag.ok_or_else(|| Error::new(Code::TagUnknown, "finding the tag").on(name))?;
    let boundary = tag.position.boundary;
    if boundary > stream.head().boundary {
        return Err(Error::new(Code::SegmentMissing, "finding the tag")
            .on(name)
            .with("position", boundary)
            .with("end of the archive", stream.head().boundary));
    }
    let mut resolved = Resolved::exactly(Place::before_events(boundary));
    resolved.hash = Some(tag.position.hash);
    if tag.observed_only {
        resolved.notes.push(Note {
            kind: NoteKind::ObservedOnly,
            text: "the tag holds what was in the server's files; committed writes that were still in its memory are not included".to_owned(),
        });
    }
    Ok(resolved)
}

/// A target behind a record that the server took back goes to the last record before it, and says so.
pub(crate) fn leave_withdrawn(stream: &Stream, resolved: &mut Resolved) {
    let kept = stream.before_withdrawn(resolved.place);
    if kept == resolved.place {
        return;
    }
    let count = resolved.place.boundary.get() - kept.boundary.get();
    resolved.place = kept;
    resolved
        .moved(count, format!("the server took back the last {count} record(s) before the target; they are left out"));
}

/// The target lies after everything that is archived.
pub(super) fn after_end(stream: &Stream, source: &dyn Source, target: &Target) -> Result<Error> {
    let head = stream.head();
    let mut e = Error::new(Code::TargetAfterEnd, "finding").on(target);
    if let Some(record) = head.boundary.last_record() {
        e = e.with("last record", record);
    }
    if let Some(last) = stream.pieces.last() {
        e = e.with("last sequence", last.summary.last_sequence);
    }
    if let Some(time) = observed_through(stream, source)? {
        e = e.with("observed through", time);
    }
    Ok(e)
}

/// The target lies before everything that is archived.
pub(super) fn before_start(stream: &Stream, source: &dyn Source, target: &Target) -> Result<Error> {
    let mut e = Error::new(Code::TargetBeforeStart, "finding").on(target).with("first record", stream.start());
    for piece in stream.pieces.iter().filter(|piece| piece.tells_a_time()) {
        source.exact(piece.timeline, &piece.summary)?;
        if let Some((first, _)) = piece.summary.observed {
            e = e.with("first seen", first.at);
            break;
        }
    }
    Ok(e.hint("nothing that old is archived: the first record and its time are shown above; pitr status shows what can be restored"))
}

/// The last time of which the archive knows something.
pub(crate) fn observed_through(stream: &Stream, source: &dyn Source) -> Result<Option<Micros>> {
    let Some(piece) = stream.pieces.iter().rev().find(|piece| piece.tells_a_time()) else { return Ok(None) };
    source.exact(piece.timeline, &piece.summary)?;
    let s = &piece.summary;
    Ok(s.observed_through.max(s.observed.map(|(_, last)| last.at)))
}

/// Shows a place to people who must choose, and what names it. No record number does where a run or session begins.
pub(super) fn candidate(stream: &Stream, place: Place, sequence: SequenceNumber) -> String {
    let Some(record) = place.boundary.last_record() else { return "the start of the archive".to_owned() };
    if place.events == 0 {
        return format!("--to-record {record} (sequence {sequence})");
    }
    let run = stream.runs.iter().rev().find(|run| run.start < place);
    let begins = match run {
        Some(run) if run.start.boundary == place.boundary => format!("the start of run {}", run.number),
        _ => "a later session of the server".to_owned(),
    };
    let by = match place == stream.head() {
        true => "--to-latest",
        false => "a time or a tag names it",
    };
    format!("{begins}, behind record {record} (sequence {sequence}): {by}")
}

/// Microseconds as chrono's time.
pub(super) fn time(micros: Micros) -> DateTime<Utc> {
    micros.to_datetime()
}
