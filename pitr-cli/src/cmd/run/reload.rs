//! A configuration that is read again while the service runs.
//!
//! Owns: which archiver takes over what at once, and saying what needs a restart of the service. Nothing is applied unless
//! all of it can be read.
//! Refuses: to end or to begin an archiver: between the end of one and the beginning of the next nobody watches the
//! database's directory, and servers before RocksDB 7.5 can delete a log unseen in that moment.

use std::collections::BTreeMap;

use pitr_archiver::{
    ArchiverConfig,
    control::{Change, Effect, Reloaded},
};

use super::{clockwork::Due, service::Live};
use crate::settings::{
    file::{File, Http, Limits, Log},
    jobs::Job,
};

/// What becomes of each archive.
#[derive(Debug)]
pub struct Changes {
    /// What takes effect, by the name of the job.
    pub apply: Vec<(String, Live)>,
    /// What is told.
    pub told: Reloaded,
}

/// What belongs to the process, not to one of its archivers: all of it needs a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfProcess {
    /// Where it is seen.
    pub http: Http,
    /// Its log.
    pub log: Log,
    /// What it may use.
    pub limits: Limits,
}

impl OfProcess {
    /// As a file says it.
    pub fn of(file: &File) -> Self {
        Self { http: file.http.clone(), log: file.log.clone(), limits: file.limits.clone() }
    }
}

/// Compares what runs with what is written now.
pub fn compare(process: (&OfProcess, &OfProcess), running: &[Job], written: &[Job]) -> Changes {
    let by_name: BTreeMap<_, _> = written.iter().map(|job| (job.name.as_str(), job)).collect();
    let (mut apply, mut changes) = (Vec::new(), Vec::new());
    let mut told = |name: &str, what: &str, effect: Effect| {
        changes.push(Change { database: name.to_owned(), what: what.to_owned(), effect });
    };
    let (was, is) = process;
    let whole = [("http", was.http != is.http), ("log", was.log != is.log), ("limits", was.limits != is.limits)];
    for (what, _) in whole.into_iter().filter(|(_, differs)| *differs) {
        told("", what, Effect::NeedsRestart);
    }
    for old in running {
        let Some(new) = by_name.get(old.name.as_str()) else {
            told(&old.name, "is no longer named: it is archived until the restart", Effect::NeedsRestart);
            continue;
        };
        let mut config = old.config.clone();
        let adopted = config.adopt(&new.config);
        let identity = ArchiverConfig { writer: config.writer.clone(), ..new.config.clone() } != config;
        if identity || old.url != new.url || old.key != new.key {
            told(&old.name, "db, state, places, archive, key or poll", Effect::NeedsRestart);
        }
        for what in adopted {
            told(&old.name, what, Effect::Applied);
        }
        if old.schedule != new.schedule {
            told(&old.name, "schedule", Effect::Applied);
        }
        if old.retention != new.retention {
            told(&old.name, "retention", Effect::Applied);
        }
        if old.drill != new.drill {
            told(&old.name, "drill", Effect::Applied);
        }
        if old.hooks != new.hooks {
            told(&old.name, "hooks", Effect::Applied);
        }
        let due = Due { schedule: new.schedule.clone(), retention: new.retention, drill: new.drill.clone() };
        let live = Live { config, due, hooks: new.hooks.clone() };
        apply.push((old.name.clone(), live));
    }
    for new in written.iter().filter(|new| running.iter().all(|old| old.name != new.name)) {
        told(&new.name, "is new: it is not archived until the restart", Effect::NeedsRestart);
    }
    Changes { apply, told: Reloaded { changes } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::jobs;

    fn jobs(text: &str) -> Vec<Job> {
        jobs::of(&toml::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn what_can_be_applied_is_and_the_rest_is_said_to_need_a_restart() {
        let one = "[databases.one]\ndb = \"/db/one\"\narchive.url = \"file:/a/one\"\n";
        let two = "[databases.two]\ndb = \"/db/two\"\narchive.url = \"file:/a/two\"\n";
        let before = jobs(&format!("{one}{two}"));
        let after = jobs(
            "tuning.interval = \"9s\"\nschedule.base = \"@daily\"\n[databases.one]\ndb = \"/db/one\"\n\
             archive.url = \"file:/a/elsewhere\"\n[databases.three]\ndb = \"/db/three\"\narchive.url = \"file:/a/three\"\n",
        );
        let same = OfProcess::default();
        let changes = compare((&same, &same), &before, &after);
        let shown: Vec<_> = changes.told.changes.iter().map(|c| (c.database.as_str(), c.effect)).collect();
        assert_eq!(
            shown,
            [
                ("one", Effect::NeedsRestart),
                ("one", Effect::Applied),
                ("one", Effect::Applied),
                ("two", Effect::NeedsRestart),
                ("three", Effect::NeedsRestart),
            ]
        );
        let (name, live) = &changes.apply[0];
        assert_eq!((name.as_str(), live.config.interval.as_secs()), ("one", 9));
        assert!(compare((&same, &same), &before, &before).told.changes.is_empty());
        let seen = OfProcess { limits: toml::from_str("nice = 3").unwrap(), ..OfProcess::default() };
        let told = compare((&same, &seen), &before, &before).told.changes;
        assert_eq!((told.len(), told[0].what.as_str(), told[0].effect), (1, "limits", Effect::NeedsRestart));
    }
}
