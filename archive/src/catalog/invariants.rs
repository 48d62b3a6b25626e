//! What must hold between the parts of an archive.
//!
//! Owns: density of ordinals, the hash chain between neighbours, manifests' predecessors, and that everything that is
//! named lies in the archive and has the hash it had when it was named. Pure: it looks at summaries. A name inside a
//! segment is compared when the segment is read (`segment::reader::SegmentReader::hashes_at`).
//! Every finding names the object that is lost or wrong. Refuses: repairing.

mod drill;

use crate::{
    catalog::{
        model::{Catalog, KeptRange, ManifestPath, Named, Timeline},
        schema::{BaseDocument, BoundaryDocument, Position, SegmentSummary},
    },
    code::Code,
    error::{Error, Result},
    ids::{Boundary, Epoch, Ordinal, Ordinals, RunningHash, TimelineId},
    object_key::ObjectKey,
    segment::entry::Event,
};

pub use drill::drill;

const DOING: &str = "checking the archive at";

/// The place between two segments.
#[derive(Clone, Copy, Debug)]
struct Edge {
    /// The segment that must follow.
    ordinal: Option<Ordinal>,
    /// Where it must begin, if that is known.
    at: Option<(Boundary, RunningHash)>,
}

impl Edge {
    fn after(summary: &SegmentSummary) -> Self {
        Self { ordinal: summary.ordinals().next(), at: Some((summary.end, summary.hash_after)) }
    }

    const fn of(range: &KeptRange<'_>) -> Self {
        Self { ordinal: Some(range.from), at: Some((range.first, range.hash_before)) }
    }

    fn start(deleted: Option<&BoundaryDocument>, parent: Option<&Position>, first: bool) -> Self {
        match (deleted, parent) {
            (Some(deleted), _) => {
                Self { ordinal: Some(deleted.ordinal), at: Some((deleted.first, deleted.hash_before)) }
            }
            (None, Some(parent)) => Self { ordinal: Some(Ordinal::new(0)), at: Some((parent.boundary, parent.hash)) },
            (None, None) => {
                Self { ordinal: Some(Ordinal::new(0)), at: first.then_some((Boundary::START, RunningHash::ZERO)) }
            }
        }
    }

    /// Whether `summary` follows; moves behind it.
    fn pass(&mut self, timeline: TimelineId, summary: &SegmentSummary) -> Result<()> {
        let expected = *self;
        *self = Self::after(summary);
        // A million follow as they should, and need no name.
        let key = || ObjectKey::segment(timeline, summary.ordinals());
        match expected.ordinal {
            Some(ordinal) if ordinal == summary.ordinal => {}
            Some(ordinal) if ordinal < summary.ordinal => {
                return Err(Error::new(Code::SegmentMissing, DOING)
                    .on(ObjectKey::segment(timeline, ordinal))
                    .with("next-found", summary.ordinal));
            }
            expected => {
                let expected = expected.map_or_else(|| "none".to_owned(), |ordinal| ordinal.to_string());
                return Err(Error::new(Code::ChainBroken, DOING)
                    .on(key())
                    .with("expected-ordinal", expected)
                    .with("found", summary.ordinal));
            }
        }
        if let Some((boundary, hash)) = expected.at
            && (boundary, hash) != (summary.first, summary.hash_before)
        {
            return Err(Error::new(Code::ChainBroken, DOING)
                .on(key())
                .with("boundary-before", boundary)
                .with("found", summary.first)
                .with("hash-before", hash)
                .with("found", summary.hash_before));
        }
        let moved = summary.end > summary.first || !summary.events.is_empty();
        if summary.end < summary.first || moved == (summary.hash_after == summary.hash_before) {
            return Err(Error::new(Code::ChainBroken, DOING)
                .on(key())
                .with("first", summary.first)
                .with("end", summary.end)
                .with("hash-before", summary.hash_before)
                .with("hash-after", summary.hash_after));
        }
        Ok(())
    }
}

/// How a segment follows what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joint {
    /// The segment before it, or the beginning of the timeline.
    Follows,
    /// What came before it was deleted in order.
    BehindDeleted,
}

/// The way through the segments of a timeline that deletion left.
struct Path<'a> {
    timeline: TimelineId,
    edge: Edge,
    /// Where the present range ends, if it does.
    until: Option<(Ordinal, Boundary, RunningHash)>,
    joint: Joint,
    rest: Vec<KeptRange<'a>>,
}

impl<'a> Path<'a> {
    fn new(timeline: &'a Timeline) -> Self {
        let parent = timeline.document().parent.as_ref();
        let mut path = Self {
            timeline: timeline.id(),
            edge: Edge::start(None, parent, parent.is_none()),
            until: None,
            joint: Joint::Follows,
            rest: timeline.deleted().map(|deleted| deleted.ranges().rev().collect()).unwrap_or_default(),
        };
        path.enter();
        path
    }

    fn enter(&mut self) {
        if let Some(range) = self.rest.pop() {
            self.joint = if range.from > Ordinal::new(0) { Joint::BehindDeleted } else { Joint::Follows };
            (self.edge, self.until) = (Edge::of(&range), range.end);
        }
    }

    fn pass(&mut self, summary: &SegmentSummary) -> Result<Joint> {
        while let Some((to, end, hash)) = self.until.filter(|(to, ..)| *to <= summary.ordinal) {
            let reached = self.edge;
            self.enter();
            match reached.ordinal {
                Some(ordinal) if ordinal < to => {
                    self.edge = Edge::after(summary);
                    return Err(Error::new(Code::SegmentMissing, DOING)
                        .on(ObjectKey::segment(self.timeline, ordinal))
                        .with("next-found", summary.ordinal));
                }
                _ if reached.at != Some((end, hash)) => {
                    self.edge = Edge::after(summary);
                    return Err(Error::new(Code::ChainBroken, DOING)
                        .on(ObjectKey::segment(self.timeline, to))
                        .with("kept up to boundary", end));
                }
                _ => {}
            }
        }
        let joint = std::mem::replace(&mut self.joint, Joint::Follows);
        self.edge.pass(self.timeline, summary).map(|()| joint)
    }
}

/// Whether `segments` follow `before` (or the start of the timeline, or of what deletion left) without a gap.
pub(crate) fn joins(
    timeline: TimelineId,
    before: Option<&SegmentSummary>,
    deleted: Option<&BoundaryDocument>,
    segments: &[SegmentSummary],
) -> Result<()> {
    let mut edge = match before {
        Some(before) if deleted.is_none_or(|d| before.ordinal >= d.ordinal) => Edge::after(before),
        _ => Edge::start(deleted, None, timeline == TimelineId::FIRST),
    };
    segments.iter().try_for_each(|summary| edge.pass(timeline, summary))
}

/// Whether segments follow one another without a gap, wherever they begin.
pub(crate) fn is_unbroken(timeline: TimelineId, segments: &[SegmentSummary]) -> bool {
    let mut edge = Edge { ordinal: segments.first().map(|first| first.ordinal), at: None };
    segments.iter().all(|summary| edge.pass(timeline, summary).is_ok())
}

/// Why nothing joins a segment to what was before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something is lost or damaged there.
    Lost,
    /// It was deleted in order.
    Deleted,
}

/// Why nothing joins a segment to what was before it, and the same in words.
pub type Broken = (Cause, &'static str);

/// Segments of a timeline that follow one another without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// In order; never empty.
    pub segments: &'a [SegmentSummary],
    /// Why nothing joins the first of them to what was before it, in words too. `None` where the timeline itself begins.
    pub broken: Option<Broken>,
    /// The first segment that is missing before it, if that is what is wrong.
    pub missing: Option<Ordinal>,
}

impl Stretch<'_> {
    /// Whether nothing is missing before a base's first record that a restore from it would need: its records begin behind
    /// the first boundary here, or its run does begin here.
    pub fn serves(&self, base: &BaseDocument) -> bool {
        let Some(first) = self.segments.first() else { return false };
        let mut events =
            self.segments.iter().take_while(|s| s.first <= base.first_record).flat_map(|segment| &segment.events);
        let mut begins = || events.any(|e| matches!(e.event, Event::RunStarted { run, .. } if run == base.run));
        first.first < base.first_record || first.first == base.first_record && (self.broken.is_none() || begins())
    }
}

/// The unbroken stretches of a timeline, in order: one, unless something was deleted or is lost.
pub fn stretches(timeline: &Timeline) -> Vec<Stretch<'_>> {
    let mut path = Path::new(timeline);
    let segments = timeline.segments();
    let mut begins: Vec<(usize, Option<Broken>, Option<Ordinal>)> = Vec::new();
    for (index, summary) in segments.iter().enumerate() {
        let expected = path.edge.ordinal;
        match path.pass(summary) {
            Err(e) if e.code() == Code::SegmentMissing => {
                begins.push((index, Some((Cause::Lost, "segments are missing")), expected));
            }
            Err(_) => begins.push((index, Some((Cause::Lost, "the segments do not join")), None)),
            Ok(Joint::BehindDeleted) => {
                begins.push((index, Some((Cause::Deleted, "what came before it was deleted")), None));
            }
            Ok(Joint::Follows) if index == 0 => begins.push((0, None, None)),
            Ok(Joint::Follows) => {}
        }
    }
    let ends = begins.iter().skip(1).map(|(index, ..)| *index).chain([segments.len()]);
    begins
        .iter()
        .zip(ends)
        .filter_map(|((from, broken, missing), to)| {
            Some(Stretch { segments: segments.get(*from..to)?, broken: *broken, missing: *missing })
        })
        .collect()
}

/// Whether a manifest and a footer speak of the same segment.
pub(crate) fn same_segment(timeline: TimelineId, named: &SegmentSummary, found: &SegmentSummary) -> Result<()> {
    if named.agrees_with(found) {
        return Ok(());
    }
    Err(Error::new(Code::ChainBroken, DOING)
        .on(ObjectKey::segment(timeline, named.ordinals()))
        .with("hash-after-in-manifest", named.hash_after)
        .with("found", found.hash_after)
        .with("bytes-in-manifest", named.object_bytes)
        .with("found", found.object_bytes))
}

/// Everything that does not hold, in the order of the timelines.
pub fn check(catalog: &Catalog) -> Vec<Error> {
    check_with(catalog, |epoch| catalog.epoch(epoch).is_some())
}

/// The same, where the catalog does not have the claims' documents; `claimed` says which there are.
pub(crate) fn check_with(catalog: &Catalog, claimed: impl Fn(Epoch) -> bool) -> Vec<Error> {
    let mut findings = Vec::new();
    for timeline in catalog.timelines() {
        manifests(timeline, &mut findings);
        segments(timeline, &claimed, &mut findings);
    }
    names(catalog, &mut findings);
    findings
}

fn manifests(timeline: &Timeline, findings: &mut Vec<Error>) {
    let id = timeline.id();
    let mut path = ManifestPath::new(timeline.deleted());
    for manifest in timeline.manifests() {
        let (expected, previous) = path.expected();
        let number = manifest.number.get();
        let key = ObjectKey::manifest(id, manifest.number);
        for lost in expected.get()..number.min(expected.get().saturating_add(100)) {
            let lost = ObjectKey::manifest(id, crate::ids::ManifestNumber::new(lost));
            findings.push(Error::new(Code::ObjectMissing, DOING).on(lost).with("next-found", number));
        }
        if number == expected.get() && manifest.previous != previous {
            let show =
                |hash: Option<crate::ids::ContentHash>| hash.map_or_else(|| "none".to_owned(), |h| h.to_string());
            findings.push(
                Error::new(Code::ChainBroken, DOING)
                    .on(&key)
                    .with("names-predecessor", show(manifest.previous))
                    .with("predecessor", show(previous)),
            );
        }
        path.pass(manifest.number, manifest.hash);
    }
}

fn segments(timeline: &Timeline, claimed: &impl Fn(Epoch) -> bool, findings: &mut Vec<Error>) {
    let id = timeline.id();
    let mut path = Path::new(timeline);
    for summary in timeline.segments() {
        findings.extend(path.pass(summary).err());
        if !claimed(summary.epoch) {
            findings.push(
                Error::new(Code::ObjectMissing, DOING)
                    .on(ObjectKey::epoch(summary.epoch))
                    .with("named-by", ObjectKey::segment(id, summary.ordinals())),
            );
        }
    }
}

fn names(catalog: &Catalog, findings: &mut Vec<Error>) {
    for timeline in catalog.timelines() {
        let by = ObjectKey::timeline(timeline.id());
        if let Some(parent) = &timeline.document().parent {
            findings.extend(position(catalog, &by, "parent", parent).err());
        }
        for manifest in timeline.manifests() {
            let by = ObjectKey::manifest(timeline.id(), manifest.number);
            for id in &manifest.bases {
                let key = ObjectKey::base(id);
                if catalog.base(id).is_none() && !catalog.condemned().contains_key(&key) {
                    findings.push(Error::new(Code::ObjectMissing, DOING).on(key).with("named-by", &by));
                }
            }
            // A tag may have been deleted since; that its position is still there does not depend on it.
            for (_, tagged) in &manifest.tags {
                findings.extend(position(catalog, &by, "tag", tagged).err());
            }
        }
    }
    for base in catalog.bases() {
        let by = ObjectKey::base(&base.id);
        findings.extend(position(catalog, &by, "floor", &base.floor).err());
        let first = Position { boundary: base.first_record, hash: base.first_hash, ..base.floor };
        findings.extend(position(catalog, &by, "first-record", &first).err());
        if base.first_record > base.floor.boundary {
            findings.push(
                Error::new(Code::ObjectDamaged, DOING)
                    .on(&by)
                    .with("first-record", base.first_record)
                    .with("floor", base.floor.boundary),
            );
        }
    }
    for tag in catalog.tags() {
        let by = format!("tag {}", tag.name);
        findings.extend(position(catalog, &by, "position", &tag.position).err());
    }
}

/// Leaves out bases whose positions are not the archive's: something that they need is lost. What is named behind the end
/// of a timeline shows that its end is lost.
pub fn leave_out_unsound(catalog: &mut Catalog) {
    let manifest_tags = catalog.timelines().flat_map(|timeline| {
        let by = move |number| ObjectKey::manifest(timeline.id(), number).to_string();
        timeline.manifests().iter().flat_map(move |m| m.tags.iter().map(move |(_, tagged)| (by(m.number), *tagged)))
    });
    let floors = catalog.bases().iter().map(|base| (ObjectKey::base(&base.id).to_string(), base.floor));
    let tags = catalog.tags().iter().map(|tag| (format!("tag {}", tag.name), tag.position));
    let beyond: Vec<_> = manifest_tags
        .chain(floors)
        .chain(tags)
        .filter(|(_, at)| catalog.timeline(at.timeline).is_some_and(|timeline| at.boundary > timeline.end()))
        .collect();
    let sound: Vec<_> = catalog
        .bases()
        .iter()
        .filter(|base| {
            let first = Position { boundary: base.first_record, hash: base.first_hash, ..base.floor };
            let floor = position(catalog, &"", "", &base.floor);
            floor.is_ok() && position(catalog, &"", "", &first).is_ok() && base.first_record <= base.floor.boundary
        })
        .map(|base| base.id.clone())
        .collect();
    catalog.retain_bases(|base| sound.contains(&base.id));
    for (object, at) in beyond {
        if let Some(timeline) = catalog.timeline_mut(at.timeline) {
            timeline.note_lost_end(object);
        }
    }
}

/// Whether a named position lies in the archive, with its hash where that can be told from the summaries.
fn position(catalog: &Catalog, by: &dyn std::fmt::Display, role: &'static str, named: &Position) -> Result<()> {
    let Some(timeline) = catalog.timeline(named.timeline) else {
        return Err(Error::new(Code::ObjectMissing, DOING)
            .on(ObjectKey::timeline(named.timeline))
            .with("named-by", by)
            .with("role", role));
    };
    match timeline.compare(named.boundary, named.hash) {
        Named::Same | Named::InsideSegment | Named::Deleted => Ok(()),
        Named::BeyondHead => Err(Error::new(Code::SegmentMissing, DOING)
            .on(ObjectKey::segment(named.timeline, timeline.next_ordinal()))
            .with("named-by", by)
            .with("role", role)
            .with("boundary", named.boundary)
            .with("archive-ends-at", timeline.end())),
        Named::Different => Err(Error::new(Code::ChainBroken, DOING)
            .on(by)
            .with("role", role)
            .with("boundary", named.boundary)
            .with("hash", named.hash)),
    }
}

/// Segments that the catalog names and a listing of all keys does not have.
pub fn absent_segments(timeline: &Timeline, listed: &[(Ordinals, u64)]) -> Vec<Error> {
    let sizes: std::collections::BTreeMap<_, _> = listed.iter().copied().collect();
    let mut findings = Vec::new();
    for summary in timeline.segments() {
        let key = || ObjectKey::segment(timeline.id(), summary.ordinals());
        match sizes.get(&summary.ordinals()) {
            None => findings.push(Error::new(Code::SegmentMissing, DOING).on(key())),
            Some(size) if *size != summary.object_bytes => findings.push(
                Error::new(Code::SegmentDamaged, DOING)
                    .on(key())
                    .with("bytes", size)
                    .with("bytes-in-catalog", summary.object_bytes),
            ),
            Some(_) => {}
        }
    }
    findings
}
