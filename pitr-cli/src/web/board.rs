//! The archivers of a service, as they are seen.
//!
//! Owns: one panel for every archiver, with what it is told by the archiver itself ([`Metrics`]), by its store ([`Meter`]) and
//! by whoever keeps it running ([`State`]); and the [`Look`], a copy of all that at one moment.
//! Refuses: I/O and judgement.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, schema::DrillDocument},
    clock::{Clock, Micros},
    store::{
        measured::{Meter, MeterRead},
        url,
    },
};
use pitr_archiver::{
    Metrics,
    metrics::{Counts, Figures},
};

use super::{
    chores::{Chore, Chores, Measured},
    lags::{Lags, Sample},
    overview::Overview,
};
use crate::settings::jobs::Job;

/// What the operator still calls ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The oldest byte that an archive lacks may be this old.
    pub max_lag: Duration,
    /// The last base may be this old.
    pub max_base_age: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_lag: Duration::from_secs(60), max_base_age: None }
    }
}

/// What an archiver is doing, as whoever keeps it running knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its archive is being opened.
    Opening,
    /// It runs.
    Running,
    /// It ended with an error that can pass, and is opened again soon.
    Failed(Trouble),
    /// It ended with an error that does not pass by itself: nothing of this database is archived until the next start.
    GivenUp(Trouble),
    /// Its thread is gone without a word.
    Died,
    /// It ended as it was told to.
    Ended,
}

/// An error in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its code.
    pub code: Code,
    /// In one line.
    pub message: String,
    /// What a person can do.
    pub hint: String,
}

impl From<&Error> for Trouble {
    fn from(e: &Error) -> Self {
        Self { code: e.code(), message: e.to_string(), hint: e.hint_text().to_owned() }
    }
}

impl State {
    /// All names, in the order in which metrics have them.
    pub const NAMES: [&'static str; 6] = ["opening", "running", "failed", "given-up", "died", "ended"];

    /// Its stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Failed(_) => "failed",
            Self::GivenUp(_) => "given-up",
            Self::Died => "died",
            Self::Ended => "ended",
        }
    }

    /// Why it does not run, where that is an error.
    pub const fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Failed(trouble) | Self::GivenUp(trouble) => Some(trouble),
            _ => None,
        }
    }
}

/// One archiver.
#[derive(Debug)]
pub struct Panel {
    database: String,
    archive: String,
    /// What the archiver tells.
    pub metrics: Arc<Metrics>,
    /// What its store is asked.
    pub meter: Arc<Meter>,
    changing: Mutex<Changing>,
}

#[derive(Debug)]
struct Changing {
    state: State,
    opened: Option<Arc<Archive>>,
    overview: Option<Arc<Overview>>,
    lags: Lags,
    chores: Chores,
    drilled: Option<Measured>,
}

impl Panel {
    /// Of an archiver that is not opened yet.
    pub fn new(job: &Job, clock: Arc<dyn Clock>) -> Self {
        let changing = Changing {
            state: State::Opening,
            opened: None,
            overview: None,
            lags: Lags::default(),
            chores: Chores::default(),
            drilled: None,
        };
        // Where a database has several archives, metrics are summed up by its name.
        let named = job.config.archive_name.as_ref().and_then(|archive| job.name.strip_suffix(&format!("/{archive}")));
        Self {
            database: named.unwrap_or(&job.name).to_owned(),
            archive: url::redacted(&job.url),
            metrics: Arc::default(),
            meter: Arc::new(Meter::new(clock)),
            changing: Mutex::new(changing),
        }
    }

    // A panic while the lock is held leaves plain values that are still true.
    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is doing from now on.
    pub fn set(&self, state: State) {
        self.changing().state = state;
    }

    /// Its archive has been opened and it begins to run.
    pub fn opened(&self, archive: Arc<Archive>) {
        let mut changing = self.changing();
        changing.state = State::Running;
        changing.opened = Some(archive);
    }

    /// How something that was due by the clock went.
    pub fn done(&self, chore: Chore, now: Micros, result: Result<(), &Error>) {
        self.changing().chores.note(chore, now, result);
    }

    /// What a drill reports. What one measured that failed says nothing.
    pub fn drilled(&self, report: &DrillDocument) {
        if let Some(measured) = Measured::of(report) {
            self.changing().drilled = Some(measured);
        }
    }

    /// Says so where a thread ends without having said how.
    pub fn guard(self: &Arc<Self>) -> Guard {
        Guard(Arc::clone(self))
    }

    pub(super) fn archive_if_opened(&self) -> Option<Arc<Archive>> {
        self.changing().opened.clone()
    }

    pub(super) fn overview(&self) -> Option<Arc<Overview>> {
        self.changing().overview.clone()
    }

    pub(super) fn show(&self, overview: Overview) {
        self.changing().overview = Some(Arc::new(overview));
    }

    pub(super) fn note_lag(&self, now: Micros) {
        if let Some(figures) = self.metrics.figures() {
            self.changing().lags.note(now, figures.lag(now));
        }
    }

    fn look(&self, now: Micros) -> PanelLook {
        let (figures, counts, store) = (self.metrics.figures(), self.metrics.counts(), self.meter.read());
        let changing = self.changing();
        PanelLook {
            database: self.database.clone(),
            archive: self.archive.clone(),
            state: changing.state.clone(),
            figures,
            counts,
            store,
            overview: changing.overview.clone(),
            lags: changing.lags.since_a_day(now),
            chores: changing.chores.clone(),
            drilled: changing.drilled,
        }
    }
}

/// See [`Panel::guard`].
#[derive(Debug)]
pub struct Guard(Arc<Panel>);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut changing = self.0.changing();
        if matches!(changing.state, State::Opening | State::Running | State::Failed(_)) {
            changing.state = State::Died;
        }
    }
}

/// All archivers of a service.
#[derive(Debug)]
pub struct Board {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// When the service began.
    pub began: Micros,
    /// What is still called ready.
    pub limits: Limits,
    /// One for every job, in their order.
    pub panels: Vec<Arc<Panel>>,
}

impl Board {
    /// For these jobs.
    pub fn new(clock: Arc<dyn Clock>, jobs: &[Job], limits: Limits) -> Self {
        let panels = jobs.iter().map(|job| Arc::new(Panel::new(job, Arc::clone(&clock)))).collect();
        Self { began: clock.now(), clock, limits, panels }
    }

    /// How all of them are doing now.
    pub fn look(&self) -> Look {
        let now = self.clock.now();
        let panels = self.panels.iter().map(|panel| panel.look(now)).collect();
        Look { now, began: self.began, limits: self.limits, panels }
    }
}

/// How a service was doing at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    pub now: Micros,
    /// When the service began.
    pub began: Micros,
    /// What is still called ready.
    pub limits: Limits,
    /// Its archivers.
    pub panels: Vec<PanelLook>,
}

/// How one archiver was doing.
#[derive(Clone, Debug)]
pub struct PanelLook {
    /// The database's name in the configuration, or its directory.
    pub database: String,
    /// Where it archives, without what may be secret.
    pub archive: String,
    /// What it was doing.
    pub state: State,
    /// What it told last.
    pub figures: Option<Arc<Figures>>,
    /// What it counted.
    pub counts: Counts,
    /// What its store was asked.
    pub store: MeterRead,
    /// What can be restored.
    pub overview: Option<Arc<Overview>>,
    /// The lag of the last day, a sample for every minute in which it was known, in order.
    pub lags: Vec<Sample>,
    /// How what was due by the clock went.
    pub chores: Chores,
    /// What the last drill measured that went well.
    pub drilled: Option<Measured>,
}

impl PanelLook {
    /// The age of the oldest byte that the archive lacks; `None` before the archiver has told anything.
    pub fn lag(&self, now: Micros) -> Option<Duration> {
        self.figures.as_ref().map(|figures| figures.lag(now))
    }

    /// When the last base was begun.
    pub fn last_base(&self) -> Option<Micros> {
        self.figures.as_ref()?.status.last_base.as_ref()?.time().map(Into::into)
    }

    /// From when to when positions without a gap can be restored now: what follows the last gap.
    pub fn restorable(&self, now: Micros) -> Option<(Micros, Micros)> {
        let window = self.overview.as_ref()?.open_window()?;
        let lag = i64::try_from(self.lag(now)?.as_micros()).unwrap_or(i64::MAX);
        // What came after a barrier that the overview does not know yet is not claimed.
        let known = self.overview.as_ref().filter(|o| o.knows_all_barriers(&self.counts)).map(|_| now);
        let to = known.unwrap_or(window.to?).0.saturating_sub(lag);
        Some((window.from, Micros(to.max(window.from.0))))
    }
}

/// How long ago; nothing where the clock went back.
pub fn ago(then: Micros, now: Micros) -> Duration {
    u64::try_from(now.0.saturating_sub(then.0)).map_or(Duration::ZERO, Duration::from_micros)
}
