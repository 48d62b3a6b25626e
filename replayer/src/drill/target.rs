//! Which position a drill restores, and its plan.
//!
//! Owns: that a position which was drawn and is refused by a plan is replaced by one near it, and that this is said. A person's
//! target is never replaced.

use pitr_archive::{
    Error, Result,
    catalog::{
        archive::Archive,
        model::Timeline,
        outline::Outline,
        schema::{BaseDocument, DrillChoice, DrillTarget},
        windows::{Window, windows},
    },
    clock::{Clock, Micros},
    code::Exit,
    ids::TimelineId,
    random::Random,
};

use super::{Wanted, choose};
use crate::{
    plan::{InsideEvent, PlanOptions, RestorePlan, outlined},
    target::Target,
};

/// What a drill restores.
pub(super) struct Planned {
    pub plan: RestorePlan,
    pub target: DrillTarget,
    /// How old the newest position is that can be restored; `None` where that is not known.
    pub at_risk_micros: Option<u64>,
    /// The base of the plan, as the catalog knows it.
    pub base: Option<BaseDocument>,
}

/// How a target is reported before there is a plan for it.
pub(super) fn asked(wanted: &Wanted) -> DrillTarget {
    let (chosen, asked) = match wanted {
        Wanted::Random => (DrillChoice::Random, "random".to_owned()),
        Wanted::Given(Target::Latest) => (DrillChoice::Latest, Target::Latest.to_string()),
        Wanted::Given(target) => (DrillChoice::Given, target.to_string()),
    };
    DrillTarget { chosen, asked, instead: None }
}

/// Chooses and plans.
pub(super) async fn planned(
    archive: &Archive,
    wanted: &Wanted,
    planning: &PlanOptions,
    (clock, random): (&dyn Clock, &dyn Random),
) -> Result<Planned> {
    let mut outline = archive.load_outline().await?;
    outline.learn_ends(archive).await?;
    for finding in outline.take_findings() {
        tracing::warn!(code = finding.code().name(), "damaged: {finding}");
    }
    let windows = restorable(&outline, planning.timeline);
    let at_risk_micros = newest(&outline, planning.timeline, &windows)
        .map(|newest| u64::try_from(clock.now().0.saturating_sub(newest.0)).unwrap_or(0));
    let mut target = asked(wanted);
    let plan = match wanted {
        Wanted::Given(wanted) => outlined::plan(archive, &mut outline, wanted, planning).await?,
        Wanted::Random => {
            let options = drawn_options(planning);
            let drawn = choose::draw(&windows, random)?;
            target.asked = drawn.to_string();
            match outlined::plan(archive, &mut outline, &drawn, &options).await {
                Err(e) if e.code().exit() == Exit::Target => {
                    let (instead, plan) = near(archive, &mut outline, &drawn, (&windows, &options), e).await?;
                    target.instead = Some(format!("{drawn} cannot be restored"));
                    target.asked = instead.to_string();
                    plan
                }
                planned => planned?,
            }
        }
    };
    if matches!(wanted, Wanted::Random) && !plan.distance.exact {
        target.instead.get_or_insert_with(|| plan.distance.text.clone());
    }
    let base = outline.catalog().base(&plan.base.id).cloned();
    Ok(Planned { plan, target, at_risk_micros, base })
}

/// What nobody asked for may lie a little before where it was drawn.
fn drawn_options(planning: &PlanOptions) -> PlanOptions {
    PlanOptions { inside_event: InsideEvent::Before, ..planning.clone() }
}

/// The nearest position to one that was drawn for which there is a plan; `refused` where there is none.
async fn near(
    archive: &Archive,
    outline: &mut Outline,
    drawn: &Target,
    (windows, options): (&[Window], &PlanOptions),
    refused: Error,
) -> Result<(Target, RestorePlan)> {
    let near = match drawn {
        Target::Record(record) => choose::near(*record, windows),
        _ => Vec::new(),
    };
    for target in near.into_iter().map(Target::Record).chain([Target::Latest]) {
        match outlined::plan(archive, outline, &target, options).await {
            Ok(plan) => return Ok((target, plan)),
            Err(e) if e.code().exit() == Exit::Target => {}
            Err(e) => return Err(e),
        }
    }
    Err(refused)
}

fn timeline(outline: &Outline, wanted: Option<TimelineId>) -> Option<&Timeline> {
    match wanted {
        Some(id) => outline.catalog().timeline(id),
        None => outline.catalog().current_timeline(),
    }
}

/// The stretches of a timeline that can be restored.
fn restorable(outline: &Outline, wanted: Option<TimelineId>) -> Vec<Window> {
    let Some(timeline) = timeline(outline, wanted) else { return Vec::new() };
    let bases = outline.catalog().bases().iter().filter(|base| base.floor.timeline == timeline.id());
    windows(timeline, &bases.collect::<Vec<_>>())
}

/// When the newest position that can be restored was last seen to be the newest.
fn newest(outline: &Outline, wanted: Option<TimelineId>, windows: &[Window]) -> Option<Micros> {
    let timeline = timeline(outline, wanted)?;
    let to = windows.last()?.to;
    if to == timeline.end() {
        return timeline.observed_through();
    }
    timeline.segments_touching(to, to).iter().find_map(|segment| segment.observed).map(|(_, last)| last.at)
}
