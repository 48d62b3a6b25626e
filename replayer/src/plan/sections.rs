//! What lost, damaged or deleted segments leave of a timeline: stretches that join, each of which can be restored by itself.
//!
//! Owns: cutting a lineage at every hole, which section a target lies in, and which bases may serve behind a hole. An
//! archive from which nothing was deleted and that is whole has one section, and none of this matters.
//!
//! Why a base behind a hole is exact. Records: it must begin behind the hole, or its run does. Column families, ingestions and dropped
//! ranges that only the lost segments noted: they were in the MANIFEST when those were written, so a base whose copy of
//! the MANIFEST reaches as far as the first segment behind the hole says it had been read has all of them. Before a
//! hole nothing changes: the archiver reads the MANIFEST after the records of every segment, so what only a later one
//! notes happened later. One thing is not so: that a write had failed, noted in a lost segment behind its record, is
//! forgotten with it; the record is then taken for what the log says it is.
//!
//! Where something shows that the end itself is lost, `latest` is refused: what is last here was not the last.

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        invariants::{Cause, Stretch, stretches},
        model::Timeline,
        schema::{BaseDocument, Position, TagDocument},
    },
    ids::{Boundary, Ordinal, TimelineId},
    object_key::ObjectKey,
    segment::entry::ManifestPoint,
};

use super::{
    facts, resolve,
    source::Source,
    stream::{Ancestor, Run, Stream},
};
use crate::target::Target;

/// Where the stream is broken: before the first segment of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole {
    timeline: TimelineId,
    /// The first segment behind it.
    behind: Ordinal,
    /// The first one that is missing, if that is what is wrong.
    missing: Option<Ordinal>,
    why: &'static str,
    cause: Cause,
}

/// A part of a lineage whose segments join.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub stream: Stream,
    /// What it begins behind.
    pub hole: Option<Hole>,
    /// The run whose beginning is lost; bases tell its number. Every timeline counts its own.
    assumed: Option<(TimelineId, u64)>,
    /// What shows that the archive went on behind it, if it is the last and its end is lost.
    lost_end: Option<String>,
}

struct Cut<'a> {
    hole: Option<Hole>,
    parts: Vec<Ancestor<'a>>,
}

/// The sections of a lineage, oldest first.
pub(crate) fn sections(
    timeline: TimelineId,
    lineage: &[(&Timeline, Option<Position>)],
    bases: &[BaseDocument],
) -> Vec<Section> {
    let mut cuts: Vec<Cut<'_>> = Vec::new();
    for (ancestor, until) in lineage {
        for stretch in stretches(ancestor) {
            let begins = stretch.segments.first().map_or(Boundary::START, |s| s.first);
            if until.is_some_and(|until| begins >= until.boundary && begins != Boundary::START) {
                continue;
            }
            let part = Ancestor { timeline: ancestor.id(), segments: stretch.segments, until: *until };
            match (cuts.last_mut(), hole(ancestor, &stretch)) {
                // A child begins where it left its parent, if the parent's segments reach that far.
                (Some(last), None) if reaches(last, begins) => last.parts.push(part),
                (None, None) => cuts.push(Cut { hole: None, parts: vec![part] }),
                (_, hole) => {
                    let hole = hole.or_else(|| {
                        // Of those before it, what this one does not need can have been deleted up to their ends.
                        let mut before =
                            lineage.iter().map(|(timeline, _)| timeline).filter(|t| t.id() < ancestor.id());
                        match before.any(|timeline| timeline.deleted().is_some()) {
                            true => left_out(ancestor, &stretch, "what came before it was deleted", Cause::Deleted),
                            false => left_out(ancestor, &stretch, "the parent's segments end before it", Cause::Lost),
                        }
                    });
                    cuts.push(Cut { hole, parts: vec![part] });
                }
            }
        }
    }
    let mut sections: Vec<_> = cuts.into_iter().map(|cut| section(timeline, &cut, bases)).collect();
    for (ancestor, _) in lineage.iter().filter(|(ancestor, _)| ancestor.deleted().is_some()) {
        for section in &mut sections {
            let runs = ancestor.unlogged().iter().map(|(run, families)| ((ancestor.id(), *run), families.clone()));
            section.stream.unlogged_deleted.extend(runs);
        }
    }
    if let (Some(last), Some((newest, _))) = (sections.last_mut(), lineage.last()) {
        last.lost_end = newest.lost_end().map(ToOwned::to_owned);
    }
    sections
}

fn reaches(cut: &Cut<'_>, boundary: Boundary) -> bool {
    cut.parts.last().and_then(|part| part.segments.last()).is_some_and(|last| last.end >= boundary)
}

fn hole(timeline: &Timeline, stretch: &Stretch<'_>) -> Option<Hole> {
    stretch.broken.and_then(|(cause, why)| left_out(timeline, stretch, why, cause))
}

fn left_out(timeline: &Timeline, stretch: &Stretch<'_>, why: &'static str, cause: Cause) -> Option<Hole> {
    let behind = stretch.segments.first()?.ordinal;
    Some(Hole { timeline: timeline.id(), behind, missing: stretch.missing, why, cause })
}

fn section(timeline: TimelineId, cut: &Cut<'_>, bases: &[BaseDocument]) -> Section {
    let mut stream = Stream::new(timeline, &cut.parts);
    let mut assumed = None;
    // Nothing lies before boundary 0, so no run can be taken to have begun there.
    if cut.hole.is_some() && stream.start() > Boundary::START {
        // The event that began the run can be lost; bases name their run.
        let until = stream.runs.first().map(|run| run.start.boundary);
        let here = bases.iter().filter(|base| {
            stream.holds(base.floor.timeline, base.floor.boundary) && base.first_record > stream.start()
        });
        let first =
            here.filter(|base| until.is_none_or(|until| base.floor.boundary <= until)).min_by_key(|b| run_of(b));
        let noted = stream.runs.first().map(|run| (run.timeline, run.number));
        if let Some(base) = first.filter(|base| noted.is_none_or(|noted| run_of(base) < noted)) {
            assumed = Some(run_of(base));
            stream.assume_run(base.floor.timeline, base.run);
        }
    }
    Section { stream, hole: cut.hole, assumed, lost_end: None }
}

/// A base's run, in the order of a lineage: a child's timeline has a higher number than its parent's.
fn run_of(base: &BaseDocument) -> (TimelineId, u64) {
    (base.floor.timeline, base.run)
}

impl Section {
    fn starts(&self) -> Boundary {
        self.stream.start()
    }

    fn ends(&self) -> Boundary {
        self.stream.head().boundary
    }

    /// The bases that may serve here.
    pub async fn bases(&self, bases: Vec<BaseDocument>, source: &dyn Source) -> Result<Vec<BaseDocument>> {
        let mut here = Vec::new();
        for base in bases.into_iter().filter(|base| self.stream.holds(base.floor.timeline, base.floor.boundary)) {
            if self.is_of_this_life(&base, source).await {
                here.push(base);
            }
        }
        let (Some(hole), Some(piece)) = (&self.hole, self.stream.pieces.first()) else { return Ok(here) };
        let read: Option<ManifestPoint> = source.manifest(hole.timeline, &piece.summary).await?;
        here.retain(|base| {
            // A run that begins behind the hole has lost nothing, also where it begins right there.
            let later_run = self.assumed.is_none_or(|run| run_of(base) > run);
            let of_base = |run: &&Run| (run.timeline, run.number) == run_of(base);
            let begins_here = |run: &Run| (self.starts()..=base.first_record).contains(&run.start.boundary);
            let behind =
                base.first_record > self.starts() || self.stream.runs.iter().find(of_base).is_some_and(begins_here);
            behind && (later_run || read.is_some_and(|read| base.manifest >= read))
        });
        Ok(here)
    }

    /// Where a child left its parent, the parent's own life can go on with events at the same boundary: a base that was taken
    /// behind them is of that life. What cannot be read is not held against a base: where it is chosen, it is compared again.
    async fn is_of_this_life(&self, base: &BaseDocument, source: &dyn Source) -> bool {
        let floor = base.floor;
        if self.stream.leaves(floor.timeline) != Some(floor.boundary) {
            return true;
        }
        for (boundary, hash) in [(floor.boundary, floor.hash), (base.first_record, base.first_hash)] {
            if matches!(facts::passes(&self.stream, source, boundary, hash).await, Ok(false)) {
                return false;
            }
        }
        true
    }

    /// The target lies in the hole before this section.
    fn lost(&self, target: &Target) -> Error {
        if self.hole.is_some_and(|hole| hole.cause == Cause::Deleted) {
            return Error::new(Code::TargetBeforeStart, "finding").on(target).with("records from", self.starts());
        }
        let e = Error::new(Code::SegmentMissing, "finding").on(target).with("records from", self.starts());
        match &self.hole {
            None => e,
            Some(hole) => e
                .with("object", ObjectKey::segment(hole.timeline, hole.missing.unwrap_or(hole.behind)))
                .with("why", hole.why)
                .hint("what the target needs is lost; positions before it, and behind it from the next base on, can still be restored"),
        }
    }
}

/// The section that a target lies in.
///
/// # Errors
/// `segment.missing` where it lies in a hole, and those of resolving it.
pub(crate) async fn holding<'a>(
    sections: &'a [Section],
    source: &dyn Source,
    target: &Target,
    tag: Option<&TagDocument>,
) -> Result<&'a Section> {
    let [first, rest @ ..] = sections else {
        return Err(Error::new(Code::TargetBeforeStart, "finding").on(target).with("archived", "nothing yet"));
    };
    let last = rest.last().unwrap_or(first);
    if let (Target::Latest, Some(object)) = (target, &last.lost_end) {
        let e = Error::new(Code::SegmentMissing, "finding").on(target).with("shown by", object);
        let e = e.with("the last record that can be read", last.ends().last_record().map_or(0, |r| r.get()));
        return Err(
            e.hint("the end of the archive is lost or damaged: name the position to go to (--to-record, --to-time)")
        );
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let at = match target {
        Target::Latest => return Ok(last),
        Target::Record(record) => record.after().unwrap_or(last.ends()),
        Target::Tag(_) => match tag.map(|tag| tag.position) {
            None => Boundary::START,
            Some(tagged) => match with_hash(sections, source, &tagged).await? {
                Some(section) => return Ok(section),
                None => tagged.boundary,
            },
        },
        Target::Time(_) | Target::Sequence(_) => return by_search(sections, source, target).await,
    };
    for section in sections {
        // At the very boundary of a hole lies the end of what is before it.
        if at <= section.ends() && (at > section.starts() || section.hole.is_none()) {
            return Ok(section);
        }
        if at <= section.ends() {
            return Err(section.lost(target));
        }
    }
    Ok(last)
}

/// Where a hole lies at a boundary, what is before it and what is behind it both have that boundary; the hash tells.
async fn with_hash<'a>(sections: &'a [Section], source: &dyn Source, tagged: &Position) -> Result<Option<&'a Section>> {
    let here = |section: &&Section| section.stream.holds(tagged.timeline, tagged.boundary);
    for section in sections.iter().filter(here) {
        let hashes = facts::hashes_at(&section.stream, source, tagged.boundary).await?;
        if hashes.iter().any(|(_, hash)| *hash == tagged.hash) {
            return Ok(Some(section));
        }
    }
    Ok(None)
}

/// A time or a sequence number: each section is asked.
async fn by_search<'a>(sections: &'a [Section], source: &dyn Source, target: &Target) -> Result<&'a Section> {
    let mut found: Option<&Section> = None;
    for section in sections {
        match resolve::resolve(&section.stream, source, target, None).await {
            Ok(_) => {
                if found.replace(section).is_some() && matches!(target, Target::Sequence(_)) {
                    return Err(Error::new(Code::TargetAmbiguous, "finding").on(target).hint(
                        "the number was used on both sides of lost segments: choose a place with --to-record or --to-time",
                    ));
                }
            }
            Err(e) if matches!(e.code(), Code::TargetAfterEnd | Code::TargetBeforeStart) => {
                let behind = e.code() == Code::TargetBeforeStart;
                if behind && section.hole.is_some() && found.is_none() {
                    return Err(section.lost(target));
                }
            }
            Err(e) => return Err(e),
        }
    }
    match (found, sections) {
        (Some(section), _) => Ok(section),
        // Beyond the end, or (a number) in a hole: the newest section's own words.
        (None, [.., last]) => resolve::resolve(&last.stream, source, target, None).await.map(|_| last),
        (None, []) => Err(Error::new(Code::TargetBeforeStart, "finding").on(target)),
    }
}
