//! How long a restore takes, as `plan` and `restore` say it.
//!
//! Owns: where this is done, as reports of drills name it, and how few of them are read: a listing and a handful of objects.
//! Refuses: to stand in anybody's way: reports that cannot be read make it a guess.

use std::time::Duration;

use pitr_archive::catalog::{archive::Archive, schema::DrillPlace};
use pitr_replayer::{
    estimate::{Basis, DRILLS, Estimate, estimate},
    plan::RestorePlan,
};

use super::drill::shown::id_time;
use crate::output::text;

/// Some of the newest may have failed, or be of another engine or machine.
const READ: usize = 2 * DRILLS;

/// Where this process restores to and from.
pub fn place(archive: &Archive) -> DrillPlace {
    let store = archive.store().describe();
    let kind = store.split_once(':').map_or(store.as_str(), |(kind, _)| kind);
    let uname = rustix::system::uname();
    DrillPlace {
        store: kind.to_owned(),
        machine: archive.keyring().name_hash("drill-machine", &[uname.nodename().to_bytes()]),
    }
}

/// How long a restore by this plan takes, until the database can be read.
pub async fn takes(archive: &Archive, plan: &RestorePlan) -> Estimate {
    let read = archive.newest_drills(READ).await.unwrap_or_else(|e| vec![Err(e)]);
    let mut drills = Vec::with_capacity(read.len());
    for drill in read {
        match drill {
            Ok(drill) => drills.push(drill),
            Err(e) => tracing::debug!("the report of a drill is passed over: {e}"),
        }
    }
    estimate(&plan.into(), &place(archive), &drills)
}

/// `about 4 min (measured by the drill of 2026-11-20T03:00:00Z)`.
pub fn shown(estimate: &Estimate) -> String {
    let by = match &estimate.basis {
        Basis::Measured { drill, elsewhere, .. } => {
            let other = if *elsewhere { ", on another machine" } else { "" };
            format!("measured by the drill of {}{other}", id_time(drill))
        }
        Basis::Guess { reason } => format!("a guess: {reason}"),
    };
    format!("about {} ({by})", text::duration(Duration::from_secs_f64(estimate.seconds.clamp(0.0, 1e9))))
}
