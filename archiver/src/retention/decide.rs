//! From a catalog, a policy and a time to what is kept, with the reasons.
//!
//! Owns: the meaning of the guaranteed window, of tags and of kept bases, as places of the stream. Pure and near-linear.
//!
//! **The window.** Time is the archive's own: what looks at the log noted. The window ends with the newest look, or now if
//! that is earlier: neither a dead archiver nor a clock that is ahead takes anything away. On every branch that was alive
//! in it, it begins with the last position that was certainly there before it. Of every run in it, the bases are kept
//! from which its positions are reached: the newest one before its beginning, and behind that every one that reaches
//! what the kept one before it does not.
//! **A tag** keeps a base that reaches it, and the records up to it. **A kept base** keeps the records up to its floor.
//! Whatever the policy says, the newest position that can be restored stays restorable.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use pitr_archive::{
    catalog::{
        model::{Catalog, Timeline},
        schema::BaseDocument,
    },
    clock::Micros,
    ids::{BaseId, Boundary, TimelineId},
    segment::entry::ManifestPoint,
};
use serde::Serialize;

use super::{
    calendar,
    policy::{Floor, Policy},
    spans::{Span, spans},
};

/// Why something is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Keep {
    /// Positions of the guaranteed window are restored from it.
    Window,
    /// The newest position that can be restored is restored from it.
    Newest,
    /// It is among the newest bases.
    Last,
    /// The newest of an hour.
    Hourly,
    /// The newest of a day.
    Daily,
    /// The newest of a week.
    Weekly,
    /// The newest of a month.
    Monthly,
    /// The newest of a year.
    Yearly,
    /// A tag is restored from it.
    Tag {
        /// The first of them by name.
        name: String,
        /// How many.
        tags: usize,
    },
    /// A restore that is under way reads it.
    Hold,
    /// The archiver's own state is in the newest segments.
    Head,
}

/// Why something is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drop {
    /// No rule keeps it.
    NoRule,
    /// Nothing can be restored from it.
    ServesNothing,
    /// It lies on a branch of the history that was left before the window began.
    LeftBranch,
}

/// A base and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BaseDecision {
    /// Its name.
    pub id: BaseId,
    /// Its timeline.
    pub timeline: TimelineId,
    /// When it was taken.
    pub created: DateTime<Utc>,
    /// The earliest position that is restored from it.
    pub floor: Boundary,
    /// Bytes of its files, shared ones too.
    pub bytes: u64,
    /// Why it is kept; empty when it is not.
    pub keep: Vec<Keep>,
    /// Why it is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
}

/// A tag and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagDecision {
    /// Its name.
    pub name: String,
    /// What it names.
    pub timeline: TimelineId,
    /// What it names.
    pub boundary: Boundary,
    /// When it ends to protect its position; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// Whether it has.
    pub expired: bool,
    /// The base that its position is restored from; absent where none reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseId>,
}

/// Records that must stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The boundary before the first of them.
    pub first: Boundary,
    /// Up to where.
    pub until: Until,
    /// Whose run, where a base needs them; and how far its copy of RocksDB's MANIFEST reaches.
    pub base: Option<(u64, ManifestPoint)>,
    /// Why.
    pub why: Keep,
}

/// Where a need ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// At this boundary, with what was noted there.
    At(Boundary),
    /// Nowhere: what comes is needed too.
    End,
}

/// What is kept and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The end of the window; absent where nothing was ever observed, and everything is kept.
    pub reference: Option<Micros>,
    /// Its beginning.
    pub from: Micros,
    /// Every base, in order of their names.
    pub bases: Vec<BaseDecision>,
    /// Every tag, in order of their names.
    pub tags: Vec<TagDecision>,
    /// The records that must stay, of every timeline.
    pub needs: BTreeMap<TimelineId, Vec<Need>>,
}

impl Decided {
    /// The bases that are not kept.
    pub fn dropped(&self) -> BTreeSet<&BaseId> {
        self.bases.iter().filter(|base| base.drop.is_some()).map(|base| &base.id).collect()
    }
}

/// Bases that something else than the policy keeps.
pub type Held = BTreeSet<BaseId>;

/// Decides.
pub fn decide(catalog: &Catalog, policy: &Policy, floor: Floor, held: &Held, now: Micros) -> Decided {
    let observed = catalog.timelines().filter_map(Timeline::observed_through).max();
    let reference = observed.map(|observed| observed.min(now));
    let window = i64::try_from(policy.effective_window(floor).as_micros()).unwrap_or(i64::MAX);
    let from = Micros(reference.map_or(i64::MIN, |reference| reference.0.saturating_sub(window)));
    let mut deciding = Deciding {
        spans: catalog.timelines().map(|t| (t.id(), spans(t, catalog.bases()))).collect(),
        keep: BTreeMap::new(),
        needs: BTreeMap::new(),
    };
    deciding.windows(catalog, from);
    deciding.newest(catalog);
    let branches = lineage(catalog, catalog.current_timeline());
    deciding.calendar(catalog, policy, &branches);
    // A clock that is ahead ends no tag early.
    let tags = deciding.tags(catalog, reference);
    for base in catalog.bases().iter().filter(|base| held.contains(&base.id)) {
        let timeline = base.floor.timeline;
        let until = deciding.spans.get(&timeline).into_iter().flatten().find(|s| s.has(base)).map(|s| s.end);
        deciding.keep_base(base, Keep::Hold, Until::At(until.unwrap_or(base.floor.boundary)));
    }
    let on_branch = |base: &BaseDocument| branches.iter().any(|(t, until)| base.is_on(t.id(), *until));
    let bases = catalog
        .bases()
        .iter()
        .map(|base| {
            let keep = deciding.keep.get(&base.id).cloned().unwrap_or_default();
            let drop = match () {
                () if !keep.is_empty() => None,
                () if !deciding.serves(base) => Some(Drop::ServesNothing),
                () if !on_branch(base) => Some(Drop::LeftBranch),
                () => Some(Drop::NoRule),
            };
            BaseDecision {
                id: base.id.clone(),
                timeline: base.floor.timeline,
                created: base.created.to_datetime(),
                floor: base.floor.boundary,
                bytes: base.files.iter().map(|file| file.size).sum(),
                keep,
                drop,
            }
        })
        .collect();
    Decided { reference, from, bases, tags, needs: deciding.needs }
}

/// Whether a base lies on a timeline below where it was left.
trait OnTimeline {
    fn is_on(&self, timeline: TimelineId, until: Option<Boundary>) -> bool;
}

impl OnTimeline for BaseDocument {
    fn is_on(&self, timeline: TimelineId, until: Option<Boundary>) -> bool {
        self.floor.timeline == timeline && until.is_none_or(|until| self.floor.boundary <= until)
    }
}

/// A timeline and its ancestors, newest first, each with the boundary at which the next left it.
fn lineage<'a>(catalog: &'a Catalog, timeline: Option<&'a Timeline>) -> Vec<(&'a Timeline, Option<Boundary>)> {
    let mut lineage: Vec<(&Timeline, Option<Boundary>)> =
        timeline.map(|timeline| (timeline, None)).into_iter().collect();
    while let Some(parent) = lineage.last().and_then(|(child, _)| {
        let left = child.document().parent?;
        Some((catalog.timeline(left.timeline).filter(|parent| parent.id() < child.id())?, Some(left.boundary)))
    }) {
        lineage.push(parent);
    }
    lineage
}

/// A boundary at or before every position that a time from `at` on means; `None` where nothing was seen by then.
fn position_at(timeline: &Timeline, at: Micros, until: Option<Boundary>) -> Option<Boundary> {
    let seen = timeline.segments().iter().rev().filter(|s| until.is_none_or(|until| s.first < until)).find_map(|s| {
        let through = s.observed_through.filter(|through| *through <= at).map(|_| s.end);
        through.or_else(|| {
            let (first, last) = s.observed?;
            let last = (last.at <= at).then_some(last.boundary);
            last.or_else(|| (first.at <= at).then_some(first.boundary))
        })
    });
    seen.map(|seen| until.map_or(seen, |until| seen.min(until)))
}

impl Span<'_> {
    fn has(&self, base: &BaseDocument) -> bool {
        let (at, id) = (base.floor.boundary, &base.id);
        let from = self.bases.partition_point(|own| own.floor.boundary < at);
        self.bases.iter().skip(from).take_while(|own| own.floor.boundary == at).any(|own| own.id == *id)
    }
}

struct Deciding<'a> {
    spans: BTreeMap<TimelineId, Vec<Span<'a>>>,
    keep: BTreeMap<BaseId, Vec<Keep>>,
    needs: BTreeMap<TimelineId, Vec<Need>>,
}

impl<'a> Deciding<'a> {
    fn note(&mut self, base: &BaseDocument, why: Keep) {
        let reasons = self.keep.entry(base.id.clone()).or_default();
        if let Keep::Tag { .. } = why
            && let Some(Keep::Tag { tags, .. }) = reasons.iter_mut().find(|reason| matches!(reason, Keep::Tag { .. }))
        {
            *tags += 1;
        } else if !reasons.contains(&why) {
            reasons.push(why);
        }
    }

    fn need(&mut self, timeline: TimelineId, need: Need) {
        self.needs.entry(timeline).or_default().push(need);
    }

    fn keep_base(&mut self, base: &BaseDocument, why: Keep, until: Until) {
        self.note(base, why.clone());
        let need = Need { first: base.first_record, until, base: Some((base.run, base.manifest)), why };
        self.need(base.floor.timeline, need);
    }

    /// Every position from the window's beginning on, of every branch that was alive in it.
    fn windows(&mut self, catalog: &Catalog, from: Micros) {
        let current = catalog.current_timeline().map(Timeline::id);
        let alive = |t: &&Timeline| Some(t.id()) == current || t.observed_through().is_none_or(|last| last >= from);
        for timeline in catalog.timelines().filter(alive) {
            for (ancestor, until) in lineage(catalog, Some(timeline)) {
                let begins = position_at(ancestor, from, until);
                self.window(ancestor, begins.unwrap_or(ancestor.start()), until);
                if begins.is_some() {
                    break;
                }
            }
        }
    }

    fn window(&mut self, timeline: &Timeline, begins: Boundary, until: Option<Boundary>) {
        let spans = self.spans.get(&timeline.id()).cloned().unwrap_or_default();
        let ends = until.unwrap_or(timeline.end());
        for span in spans.iter().filter(|span| begins <= span.end && span.start <= ends) {
            let place = begins.max(span.start);
            let to = if span.last && until.is_none() { Until::End } else { Until::At(span.end.min(ends)) };
            let mut kept = span.reaching(place);
            let behind = span.bases.partition_point(|base| base.floor.boundary <= place);
            let mut before = kept.first().copied();
            for base in span.bases.iter().skip(behind).take_while(|base| base.floor.boundary <= ends) {
                if before.is_none_or(|before| !span.covers(before, base)) {
                    kept.push(base);
                    before = Some(base);
                }
            }
            if kept.is_empty() && to == Until::End {
                // Its first base is still to come, and will begin with the run.
                self.need(timeline.id(), Need { first: span.start, until: to, base: None, why: Keep::Window });
            }
            for base in kept {
                self.keep_base(base, Keep::Window, to);
            }
        }
    }

    /// The newest position that can be restored.
    fn newest(&mut self, catalog: &Catalog) {
        let mut timelines: Vec<&Timeline> =
            lineage(catalog, catalog.current_timeline()).into_iter().map(|(timeline, _)| timeline).collect();
        timelines.extend(catalog.timelines().rev());
        for timeline in timelines {
            let spans = self.spans.get(&timeline.id()).cloned().unwrap_or_default();
            let newest = |span: &Span<'a>| span.bases.iter().rev().copied().find(|base| span.serves(base));
            let newest = spans.iter().rev().find_map(|span| Some((span, newest(span)?)));
            if let Some((span, base)) = newest {
                let until = if span.last { Until::End } else { Until::At(span.end) };
                self.keep_base(base, Keep::Newest, until);
                return;
            }
        }
    }

    fn calendar(&mut self, catalog: &'a Catalog, policy: &Policy, branches: &[(&Timeline, Option<Boundary>)]) {
        let on = |base: &&BaseDocument| branches.iter().any(|(t, until)| base.is_on(t.id(), *until));
        let mut bases: Vec<&BaseDocument> =
            catalog.bases().iter().filter(on).filter(|base| self.serves(base)).collect();
        bases.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        let taken: Vec<_> = bases.iter().map(|base| base.created.to_datetime()).collect();
        for (index, reasons) in calendar::kept(policy, &taken) {
            let Some(base) = bases.get(index) else { continue };
            for why in reasons {
                self.keep_base(base, why, Until::At(base.floor.boundary));
            }
        }
    }

    /// Whether anything can be restored from a base.
    fn serves(&self, base: &BaseDocument) -> bool {
        let spans = self.spans.get(&base.floor.timeline).map(Vec::as_slice).unwrap_or_default();
        spans.iter().any(|span| span.has(base) && span.serves(base))
    }

    fn tags(&mut self, catalog: &Catalog, now: Option<Micros>) -> Vec<TagDecision> {
        let mut decisions = Vec::with_capacity(catalog.tags().len());
        for tag in catalog.tags() {
            let place = tag.position;
            let expired = tag.expires.zip(now).is_some_and(|(expires, now)| expires <= now);
            let mut base = None;
            if !expired {
                let spans = self.spans.get(&place.timeline).map(Vec::as_slice).unwrap_or_default();
                // Where one run ends and the next begins, the tag's hash tells which is meant, and only a plan reads that far.
                let holds = |span: &&Span<'_>| span.start <= place.boundary && place.boundary <= span.end;
                let found: Vec<_> = spans.iter().filter(holds).flat_map(|span| span.reaching(place.boundary)).collect();
                base = found.first().map(|base| base.id.clone());
                for base in found {
                    self.keep_base(base, Keep::Tag { name: tag.name.clone(), tags: 1 }, Until::At(place.boundary));
                }
            }
            decisions.push(TagDecision {
                name: tag.name.clone(),
                timeline: place.timeline,
                boundary: place.boundary,
                expires: tag.expires.map(Micros::to_datetime),
                expired,
                base,
            });
        }
        decisions
    }
}
