//! Targets of two archives of one database, drawn at random from what was seen while they were written.
//!
//! Owns: what is known of each moment (batches written, records that each archive had), the tags that were answered, and what
//! a copy of a target drawn from them must hold: not less than what was certain, not more than was written.

use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use pitr_archive::clock::{Clock as _, SystemClock};
use rand::{Rng, rngs::StdRng};

/// So much younger than the end of its window a target is that retention must keep.
const MARGIN: Duration = Duration::from_secs(60);
/// So long a tag must still live that is asked for.
const LIVES_ON: Duration = Duration::from_secs(30);
/// How far behind the window targets are drawn now and then.
const BEHIND: Duration = Duration::from_secs(600);
/// Between two moments that are noted.
const SPACING: Duration = Duration::from_secs(1);

/// What was known at a moment.
struct Moment {
    at: DateTime<Utc>,
    seen: Instant,
    /// Batches that were written for certain.
    written: u64,
    /// Records that each archive had for certain.
    acknowledged: [u64; 2],
}

/// A tag that was answered.
struct Tag {
    name: String,
    archive: usize,
    least: u64,
    /// Known a moment later.
    most: Option<u64>,
    expires: Option<Instant>,
}

/// What a copy must hold.
pub struct Expected {
    pub least: u64,
    /// `None`: what is written when it is there.
    pub most: Option<u64>,
    /// Nothing promises it any more, or did yet: it may be refused.
    pub refusable: bool,
}

/// A target as `pitr restore` takes it, and what it must come to.
pub struct Drawn {
    pub target: Vec<String>,
    pub expected: Expected,
}

/// What was seen until now.
pub struct Sample {
    /// Every position of this time stays restorable.
    window: Duration,
    /// When each archive had its first base.
    first_base: [Option<Instant>; 2],
    moments: Vec<Moment>,
    tags: Vec<Tag>,
}

impl Sample {
    /// Nothing, of archives with this window.
    pub fn new(window: Duration) -> Self {
        Self { window, first_base: [None; 2], moments: Vec::new(), tags: Vec::new() }
    }

    /// Whether the archive has had a base.
    pub fn has_base(&self, archive: usize) -> bool {
        self.first_base[archive].is_some()
    }

    /// It has one now.
    pub fn base(&mut self, archive: usize) {
        self.first_base[archive].get_or_insert_with(Instant::now);
    }

    /// What is known now, unless that was noted a moment ago.
    pub fn look(&mut self, written: u64, acknowledged: [u64; 2]) {
        if self.moments.last().is_some_and(|last| last.seen.elapsed() < SPACING) {
            return;
        }
        // What was answered before is older than what is written now.
        self.tags.iter_mut().filter(|tag| tag.most.is_none()).for_each(|tag| tag.most = Some(written + 1));
        self.moments.push(Moment { at: SystemClock.now().to_datetime(), seen: Instant::now(), written, acknowledged });
    }

    /// A tag was answered, for which `least` batches were written when it was asked for.
    pub fn tag(&mut self, name: String, archive: usize, least: u64, expires: Option<Instant>) {
        self.tags.push(Tag { name, archive, least, most: None, expires });
    }

    /// A target of the archive, which has `acknowledged` records by now; `None` before there is any. A batch is a record,
    /// and each of the database's `lives` can have begun with an empty one.
    pub fn draw(&self, archive: usize, acknowledged: u64, lives: u64, rng: &mut StdRng) -> Option<Drawn> {
        let (first_base, now) = (self.first_base[archive]?, Instant::now());
        let reach = self.window + if rng.random_bool(0.1) { BEHIND } else { Duration::ZERO };
        let recent = self.moments.partition_point(|m| now.duration_since(m.seen) > reach);
        let last = self.moments.len().checked_sub(1).filter(|last| *last > recent)?;
        let chosen = rng.random_range(recent..last);
        let (moment, later) = (&self.moments[chosen], &self.moments[chosen + 1]);
        let margin = MARGIN.min(self.window / 4);
        let refusable = now.duration_since(moment.seen) + margin > self.window || moment.seen < first_base;
        let certain = |records: u64, most| Expected { least: records.saturating_sub(lives), most, refusable };
        let (had, next) = (moment.acknowledged[archive], later.acknowledged[archive]);
        let (option, value, expected) = match rng.random_range(0..4) {
            0 => {
                let of = |tag: &&Tag| tag.archive == archive && tag.most.is_some();
                let tags: Vec<_> = self.tags.iter().filter(of).collect();
                let tag = tags.get(rng.random_range(0..tags.len().max(1)))?;
                let refusable = tag.expires.is_some_and(|at| at < now + LIVES_ON);
                ("--to-tag", tag.name.clone(), Expected { least: tag.least, most: tag.most, refusable })
            }
            1 if next > had => {
                let record = rng.random_range(had..next);
                ("--to-record", record.to_string(), certain(record + 1, Some(record + 1)))
            }
            2 => {
                let time = moment.at.to_rfc3339_opts(SecondsFormat::Micros, true);
                // A time that the archive has not come to yet is refused.
                let behind = acknowledged <= moment.written + lives;
                let expected = certain(had, Some(later.written + 1));
                ("--to-time", time, Expected { refusable: refusable || behind, ..expected })
            }
            _ => {
                let expected = Expected { least: acknowledged.saturating_sub(lives), most: None, refusable: false };
                return Some(Drawn { target: vec!["--to-latest".to_owned()], expected });
            }
        };
        Some(Drawn { target: vec![option.to_owned(), value], expected })
    }
}
