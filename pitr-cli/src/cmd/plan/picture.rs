//! The picture of a plan: its timeline with the base, the log that is replayed, and the target.
//!
//! Owns: which part of the history is drawn. It shows what planning has read anyway, and so no tags.

use pitr_archive::{
    catalog::model::{Catalog, Timeline},
    clock::Micros,
};
use pitr_replayer::plan::RestorePlan;

use crate::{
    chronicle::reached,
    output::picture::{Picture, Row, Span, gather},
};

/// On each side of what is replayed at least so much is drawn, where there is so much.
const MARGIN: u64 = 30_000_000;

/// Of a plan that was made on this catalog. Base and target are on one timeline: no log is replayed across a fork.
pub(super) fn picture(plan: &RestorePlan, catalog: &Catalog) -> Picture {
    let timeline = plan.position.timeline;
    let mut rows = gather::rows(catalog, |id| id == timeline);
    let (Some(row), Some(timeline)) = (rows.first_mut(), catalog.timeline(timeline)) else {
        return Picture::default();
    };
    let target = target(plan, timeline);
    row.tags.clear();
    row.target = target;
    row.replayed = target.and_then(|target| replayed(plan, timeline, target));
    for base in &mut row.bases {
        base.chosen = base.id == plan.base.id;
    }
    Picture { span: around(row), rows }
}

/// When the log had reached where the plan arrives.
fn target(plan: &RestorePlan, timeline: &Timeline) -> Option<Micros> {
    let certain = plan.time.from.or(plan.time.to).map(Micros::from);
    certain.or_else(|| reached(timeline, plan.position.boundary))
}

/// From the base on, or from behind the flushes that are laid down on it.
fn replayed(plan: &RestorePlan, timeline: &Timeline, target: Micros) -> Option<Span> {
    let base = Micros::from(plan.base.created);
    let first = reached(timeline, plan.base.first_record).map_or(base, |first| first.max(base));
    let some = plan.base.first_record < plan.position.boundary && first <= target;
    some.then_some(Span { from: first, to: target })
}

/// The way from the base to the target with as much before it and behind it, so that it can be seen in a long history.
fn around(row: &Row) -> Span {
    let all = row.span();
    let chosen = row.bases.iter().filter(|base| base.chosen).map(|base| base.at);
    let Some(way) = chosen.chain(row.target).map(Span::from).reduce(Span::with) else { return all };
    let margin = way.length().max(MARGIN);
    Span {
        from: Micros(way.from.0.saturating_sub_unsigned(margin)).max(all.from),
        to: Micros(way.to.0.saturating_add_unsigned(margin)).min(all.to),
    }
}
