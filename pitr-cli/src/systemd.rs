//! What systemd is told of a service of `Type=notify`.
//!
//! Owns: READY once every archiver has been opened, or could not be at its first attempt; STOPPING; one line of STATUS; and the
//! watchdog, which is fed only while the loop of every archiver that runs turns. A timer that feeds it whatever happens would
//! hide exactly what it is there for.
//! Where no service manager listens, nothing is told. Refuses: to end anything.

use std::{sync::Arc, time::Duration};

use pitr_archive::{Code, Error, Result};
use sd_notify::NotifyState;
use tokio::time::Instant;

use crate::{
    output::text,
    web::board::{Board, Look, State},
};

/// Between two looks while nobody asks for a watchdog.
const EVERY: Duration = Duration::from_secs(1);

/// Tells until the process ends.
///
/// What cannot be told is logged once, and ends nothing.
pub async fn tell(board: Arc<Board>) {
    let watchdog = sd_notify::watchdog_enabled();
    // Half of the limit is what systemd asks for; twice as often costs nothing and rides out a late turn.
    let every = watchdog.map_or(EVERY, |limit| (limit / 4).clamp(Duration::from_millis(10), EVERY));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut ready, mut said, mut lost) = (false, String::new(), false);
    let mut turns = Turns::new(board.panels.len(), Instant::now());
    loop {
        ticks.tick().await;
        let look = board.look();
        let mut news = Vec::new();
        if !ready && look.panels.iter().all(|panel| panel.state != State::Opening) {
            ready = true;
            news.push(NotifyState::Ready);
        }
        let line = line(&look);
        if line != said {
            news.push(NotifyState::Status(&line));
        }
        if let Some(limit) = watchdog
            && turns.go_on(&look, Instant::now(), limit / 2)
        {
            news.push(NotifyState::Watchdog);
        }
        if news.is_empty() {
            continue;
        }
        match sd_notify::notify(&news) {
            Ok(()) => lost = false,
            Err(e) if !lost => {
                tracing::warn!(error = %e, "the service manager cannot be told");
                lost = true;
            }
            Err(_) => {}
        }
        said = line;
    }
}

/// Tells that the service ends.
pub fn stopping() {
    if let Err(e) = sd_notify::notify(&[NotifyState::Stopping]) {
        tracing::warn!(error = %e, "the service manager cannot be told");
    }
}

/// Refuses what could only end badly.
///
/// # Errors
/// `usage` where the watchdog's limit is shorter than what a quiet loop rests.
pub fn check() -> Result<()> {
    match sd_notify::watchdog_enabled() {
        Some(limit) if limit < Duration::from_secs(2) => Err(Error::new(Code::Usage, "reading WATCHDOG_USEC")
            .with("limit", text::duration(limit))
            .hint("set WatchdogSec= to 2s or more: a quiet archiver rests for half a second; packaging/pitr.service has 5min")),
        _ => Ok(()),
    }
}

/// When each loop was seen to have turned.
struct Turns(Vec<(u64, Instant)>);

impl Turns {
    fn new(panels: usize, now: Instant) -> Self {
        Self(vec![(0, now); panels])
    }

    /// Whether every loop that should turn has turned within `limit`.
    fn go_on(&mut self, look: &Look, now: Instant, limit: Duration) -> bool {
        let mut all = true;
        for ((turns, at), panel) in self.0.iter_mut().zip(&look.panels) {
            let runs = panel.state == State::Running;
            if panel.counts.alive != *turns || !runs {
                (*turns, *at) = (panel.counts.alive, now);
            }
            all &= panel.state != State::Died && (!runs || now.duration_since(*at) <= limit);
        }
        all
    }
}

/// One line for `systemctl status`.
fn line(look: &Look) -> String {
    let running = look.panels.iter().filter(|panel| panel.state == State::Running).count();
    let lag = look.panels.iter().filter_map(|panel| panel.lag(look.now)).max().unwrap_or_default();
    // To the second: every change is sent.
    let lag = match lag.as_secs() {
        0 => "up to date".to_owned(),
        seconds => format!("at most {} behind", text::duration(Duration::from_secs(seconds))),
    };
    let trouble = look.panels.iter().find_map(|panel| {
        let away = panel.store.failing.as_ref().map(|_| "its store does not answer".to_owned());
        let why = panel.state.trouble().map(|trouble| trouble.message.clone()).or(away)?;
        Some(format!("; {}: {why}", panel.database))
    });
    let line = format!("archiving {running} of {}, {lag}{}", look.panels.len(), trouble.unwrap_or_default());
    // One line, whatever an error holds.
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pitr_archive::clock::{Clock, ManualClock, Micros};
    use pitr_archiver::ArchiverConfig;

    use super::*;
    use crate::{
        settings::{
            file::{Drill, Hooks, Schedule},
            jobs::Job,
        },
        web::board::Limits,
    };

    fn board() -> Board {
        let job = |name: &str| Job {
            name: name.to_owned(),
            config: ArchiverConfig::new(PathBuf::from("/db").join(name)),
            url: format!("file:/a/{name}"),
            key: None,
            schedule: Schedule::default(),
            drill: Drill::default(),
            hooks: Hooks::default(),
            retention: None,
        };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Micros(0)));
        Board::new(clock, &[job("one"), job("two")], Limits::default())
    }

    #[test]
    fn the_watchdog_is_fed_while_every_loop_that_runs_turns_whatever_the_others_do() {
        let (board, start, limit) = (board(), Instant::now(), Duration::from_secs(10));
        let mut turns = Turns::new(2, start);
        let mut at = |turned: u64, state: State, seconds| {
            board.panels[0].set(state);
            let mut look = board.look();
            look.panels[0].counts.alive = turned;
            turns.go_on(&look, start + Duration::from_secs(seconds), limit)
        };
        assert!(at(0, State::Opening, 100), "what does not run yet need not turn");
        assert!(at(1, State::Running, 105) && at(1, State::Running, 115), "within its limit");
        assert!(!at(1, State::Running, 116), "it hangs");
        assert!(at(2, State::Running, 117), "it turns again");
        let failed = State::Failed((&Error::new(Code::StoreUnavailable, "opening")).into());
        assert!(at(2, failed, 1_000), "a pause before the next attempt is no hang");
        assert!(!at(2, State::Died, 1_001));
    }

    #[test]
    fn the_status_is_one_line_and_names_what_is_wrong() {
        let board = board();
        board.panels[0].set(State::Running);
        assert_eq!(line(&board.look()), "archiving 1 of 2, up to date");
        let e = Error::new(Code::KeyRequired, "opening\nthe archive");
        board.panels[1].set(State::GivenUp((&e).into()));
        let line = line(&board.look());
        assert!(line.starts_with("archiving 1 of 2, up to date; two: opening the archive: "), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}
