//! What is wrong, by the operator's limits.
//!
//! Owns: when a service is not ready (its databases are not protected as they should be) and when it is not healthy (a new
//! process would do better). Pure: a [`Look`] in, reasons out.

use std::time::Duration;

use pitr_archive::{Code, code::Exit};
use serde::Serialize;

use super::{
    board::{Look, PanelLook, State, Trouble, ago},
    chores::Chore,
};
use crate::output::text;

/// A loop that has not turned for so long hangs. One that waits for its store counts as turning, for an hour.
const HANGS: Duration = Duration::from_secs(600);

/// Why something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Of which database.
    pub database: String,
    /// Into which archive.
    pub archive: String,
    /// A stable name: `state`, `store`, `lag`, `limit`, `gap`, `no-base`, `base-age`, `waiting`, `damage`, `drill`, `hangs`, `died`.
    pub reason: &'static str,
    /// In words.
    pub text: String,
}

fn reason(panel: &PanelLook, reason: &'static str, text: String) -> Reason {
    Reason { database: panel.database.clone(), archive: panel.archive.clone(), reason, text }
}

/// Why the databases are not protected as they should be; nothing if they are.
pub fn not_ready(look: &Look) -> Vec<Reason> {
    look.panels.iter().flat_map(|panel| of(panel, look)).collect()
}

fn of(panel: &PanelLook, look: &Look) -> Vec<Reason> {
    let (now, limits) = (look.now, look.limits);
    let mut reasons = Vec::new();
    let mut say = |name, text| reasons.push(reason(panel, name, text));
    match &panel.state {
        State::Running => {}
        State::Failed(trouble) => say("state", format!("it failed and is opened again soon: {}", trouble.message)),
        State::GivenUp(trouble) => say("state", format!("given up until the next start: {}", trouble.message)),
        other => say("state", other.name().to_owned()),
    }
    // What is shipped is told by the archiver itself; where reading works, the store answers something all the same.
    let away = panel.figures.as_ref().and_then(|figures| figures.status.away.as_ref());
    let away = away.map(|away| (away.since, &away.error));
    if let Some((since, error)) = away.or(panel.store.failing.as_ref().map(|f| (f.since, &f.message))) {
        let since = text::duration(ago(since, now));
        say("store", format!("the store has not taken anything for {since}: {error}"));
    }
    if panel.chores.of(Chore::Verify).trouble.as_ref().is_some_and(|(_, t)| t.code == Code::VerifyFailed) {
        say("damage", "the last scheduled verification found damage: pitr verify lists it".to_owned());
    }
    // A disk without room, or a store that is away for a moment, says nothing about the archive.
    let found = |t: &Trouble| matches!(t.code.exit(), Exit::Damage | Exit::Integrity);
    if let Some((_, trouble)) = panel.chores.of(Chore::Drill).trouble.as_ref().filter(|(_, t)| found(t)) {
        say("drill", format!("the last scheduled drill did not restore what it should: {}", trouble.message));
    }
    let Some(figures) = &panel.figures else {
        if panel.state == State::Running {
            say("state", "it has not told yet how it is doing".to_owned());
        }
        return reasons;
    };
    let lag = figures.lag(now);
    if lag > limits.max_lag {
        let (lag, limit) = (text::duration(lag), text::duration(limits.max_lag));
        say("lag", format!("the oldest write that the archive lacks is {lag} old, the limit is {limit}"));
    }
    if let Some(limit) = &figures.status.alarm {
        say("limit", format!("what is held for the archive has met a limit: {limit}"));
    }
    if let Some(waiting) = &figures.status.waiting {
        say("waiting", format!("nothing is archived at the moment: {waiting}"));
    }
    let gap = panel.overview.as_ref().is_some_and(|overview| overview.ends_in_a_gap(&panel.counts));
    if gap && panel.last_base().is_some() {
        say("gap", "what is written now cannot be restored: no base follows the last barrier yet".to_owned());
    }
    match (panel.last_base(), limits.max_base_age) {
        (None, _) => say("no-base", "there is no base yet: nothing can be restored".to_owned()),
        (Some(base), Some(limit)) if ago(base, now) > limit => {
            let (age, limit) = (text::duration(ago(base, now)), text::duration(limit));
            say("base-age", format!("the last base is {age} old, the limit is {limit}"));
        }
        _ => {}
    }
    reasons
}

/// Why a new process would do better than this one; nothing if it would not.
pub fn not_healthy(look: &Look) -> Vec<Reason> {
    let wrong = |panel: &PanelLook| match panel.state {
        State::Died => Some(reason(panel, "died", "its thread is gone".to_owned())),
        State::Running => {
            let still = ago(panel.counts.alive_at?, look.now);
            let text = || format!("its loop has not turned for {}", text::duration(still));
            (still > HANGS).then(|| reason(panel, "hangs", text()))
        }
        _ => None,
    };
    look.panels.iter().filter_map(wrong).collect()
}
