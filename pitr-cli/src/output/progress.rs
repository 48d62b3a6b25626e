//! Progress bars on standard error: rate and time left for whatever takes more than a second.
//!
//! Owns: when they are drawn (on a terminal, without `--json`, after the first second). The work tells its progress to
//! [`Bars`] through the replayer's trait and knows nothing of terminals.

use std::{
    collections::HashMap,
    io::IsTerminal,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pitr_replayer::progress::{Phase, Progress, Unit};

/// Short work needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether bars can be drawn at all.
pub fn drawable(json: bool) -> bool {
    !json && std::io::stderr().is_terminal()
}

/// The bars of one command.
#[derive(Debug)]
pub struct Bars {
    multi: MultiProgress,
    drawable: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    shown: bool,
    bars: HashMap<Phase, ProgressBar>,
}

impl Bars {
    /// On `multi`, which logging shares.
    pub fn new(multi: MultiProgress, drawable: bool) -> Self {
        multi.set_draw_target(ProgressDrawTarget::hidden());
        let state = State { began: Instant::now(), shown: false, bars: HashMap::new() };
        Self { multi, drawable, state: Mutex::new(state) }
    }

    /// Work without numbers: a spinner with the time that has passed. Dropping it takes it away.
    pub fn spinner(&self, text: &'static str) -> Spinner {
        if !self.drawable {
            return Spinner(ProgressBar::hidden());
        }
        self.multi.set_draw_target(ProgressDrawTarget::stderr());
        let bar = self
            .multi
            .add(ProgressBar::new_spinner().with_message(text).with_style(style("{spinner} {msg} {elapsed}")));
        bar.enable_steady_tick(Duration::from_millis(200));
        Spinner(bar)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Bars are decoration: a thread that died while it held them leaves nothing inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_when_due(&self, state: &mut State) {
        if self.drawable && !state.shown && state.began.elapsed() >= PATIENCE {
            state.shown = true;
            self.multi.set_draw_target(ProgressDrawTarget::stderr());
            for bar in state.bars.values() {
                bar.enable_steady_tick(Duration::from_millis(250));
            }
        }
    }
}

/// A spinner that vanishes with its value.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bars {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        if !self.drawable {
            return;
        }
        let mut state = self.state();
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        bar.set_style(style(template(phase.unit(), total.is_some())));
        bar.set_message(name(phase));
        let bar = self.multi.add(bar);
        if state.shown {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        state.bars.insert(phase, bar);
        self.show_when_due(&mut state);
    }

    fn advance(&self, phase: Phase, done: u64) {
        if !self.drawable {
            return;
        }
        let mut state = self.state();
        self.show_when_due(&mut state);
        if let Some(bar) = state.bars.get(&phase) {
            bar.inc(done);
        }
    }

    fn end(&self, phase: Phase) {
        if let Some(bar) = self.state().bars.remove(&phase) {
            bar.finish_and_clear();
        }
    }
}

const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Base => "base",
        Phase::Records => "records",
        Phase::Sync => "making durable",
        Phase::Recovery => "RocksDB recovers",
        Phase::Objects => "objects",
        Phase::Digest => "comparing",
    }
}

const fn template(unit: Unit, sized: bool) -> &'static str {
    match (unit, sized) {
        (Unit::Bytes, true) => "{msg:16} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
        (Unit::Bytes, false) => "{msg:16} {spinner} {bytes} {bytes_per_sec} {elapsed}",
        (Unit::Nothing, _) => "{msg:16} {spinner} {elapsed}",
        (_, true) => "{msg:16} {wide_bar} {human_pos}/{human_len} {per_sec} ETA {eta}",
        (_, false) => "{msg:16} {spinner} {human_pos} {per_sec} {elapsed}",
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_understood() {
        for unit in [Unit::Bytes, Unit::Records, Unit::Files, Unit::Objects, Unit::Pairs, Unit::Nothing] {
            for sized in [true, false] {
                assert!(ProgressStyle::with_template(template(unit, sized)).is_ok(), "{unit:?} {sized}");
            }
        }
    }
}
