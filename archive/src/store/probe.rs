//! Does this store keep what an archive relies on?
//!
//! Owns: the probe, which tries every operation with objects of its own and races the exclusive creation against
//! itself, because what a service says it supports and what it does are two things; and the estimate of requests.
//! It answers with values: a step that fails is part of the report, and the others are still tried. What it created
//! it deletes; what it could not delete is named.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use tokio::time::Instant;

use super::{Put, Store};
use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// How many creators race for one name.
const CREATORS: usize = 8;
/// An object larger than what the probe writes is not the probe's.
const LIMIT: u64 = 1 << 20;

/// What the probe does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Create an object.
    Write,
    /// Read it back whole and compare.
    ReadBack,
    /// Read a part of it and compare.
    ReadRange,
    /// Create it again, which must be refused and change nothing.
    CreateTwice,
    /// Eight creators of one name at the same time, of whom one may win.
    Race,
    /// Find both in a listing.
    List,
    /// Delete one; it must be gone.
    Delete,
    /// Delete what is not there, which must succeed.
    DeleteMissing,
}

impl Step {
    /// What it does, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Write => "write an object",
            Self::ReadBack => "read it back",
            Self::ReadRange => "read a part of it",
            Self::CreateTwice => "create it again (must be refused)",
            Self::Race => "eight writers at once (one must win)",
            Self::List => "list",
            Self::Delete => "delete",
            Self::DeleteMissing => "delete what is not there",
        }
    }
}

/// How one step went.
#[derive(Debug, Serialize)]
pub struct StepReport {
    /// Which one.
    pub step: Step,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Why it failed, if it did.
    #[serde(serialize_with = "error_as_map", skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// What the probe found.
#[derive(Debug, Serialize)]
pub struct ProbeReport {
    /// The store, as it describes itself.
    pub store: String,
    /// Every step that was tried.
    pub steps: Vec<StepReport>,
    /// Objects of the probe that could not be deleted.
    pub left_behind: Vec<String>,
}

impl ProbeReport {
    /// Whether everything that an archive relies on works.
    pub fn ok(&self) -> bool {
        self.steps.iter().all(|s| s.error.is_none()) && self.left_behind.is_empty()
    }

    /// Whether the store was seen to let one creator win: only then does it keep two archivers apart.
    pub fn exclusive(&self) -> bool {
        [Step::CreateTwice, Step::Race]
            .iter()
            .all(|wanted| self.steps.iter().any(|s| s.step == *wanted && s.error.is_none()))
    }

    /// The first failure, as the error that a command ends with.
    pub fn into_result(self) -> Result<()> {
        self.steps.into_iter().find_map(|s| s.error).map_or(Ok(()), Err)
    }
}

fn error_as_map<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(error) = error else { return serializer.serialize_none() };
    let mut map = serializer.serialize_map(Some(3))?;
    map.serialize_entry("code", &error.code())?;
    map.serialize_entry("message", &error.to_string())?;
    map.serialize_entry("hint", error.hint_text())?;
    map.end()
}

/// One line: `s3://bucket/prefix: 8 of 8 steps succeeded`.
impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good = self.steps.iter().filter(|s| s.error.is_none()).count();
        write!(f, "{}: {good} of {} steps succeeded", self.store, self.steps.len())
    }
}

/// Tries everything. When the first object cannot be written, nothing else is tried: there is nothing to read.
pub async fn probe(store: &dyn Store) -> ProbeReport {
    let mut report = ProbeReport { store: store.describe(), steps: Vec::new(), left_behind: Vec::new() };
    let objects = match Objects::named() {
        Ok(objects) => objects,
        Err(error) => {
            report.steps.push(StepReport { step: Step::Write, micros: 0, error: Some(error) });
            return report;
        }
    };
    if timed(&mut report, Step::Write, write(store, &objects)).await {
        timed(&mut report, Step::ReadBack, read_back(store, &objects)).await;
        timed(&mut report, Step::ReadRange, read_range(store, &objects)).await;
        timed(&mut report, Step::CreateTwice, create_twice(store, &objects)).await;
        timed(&mut report, Step::Race, race(store, &objects)).await;
        timed(&mut report, Step::List, list(store, &objects)).await;
        timed(&mut report, Step::Delete, delete(store, &objects)).await;
        timed(&mut report, Step::DeleteMissing, store.delete(&objects.single)).await;
    }
    // Also after a failed write: its reply may have been lost.
    for key in [&objects.single, &objects.raced] {
        if store.delete(key).await.is_err() {
            report.left_behind.push(key.to_string());
        }
    }
    report
}

async fn timed(report: &mut ProbeReport, step: Step, deed: impl Future<Output = Result<()>>) -> bool {
    let start = Instant::now();
    let error = deed.await.err();
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let ok = error.is_none();
    report.steps.push(StepReport { step, micros, error });
    ok
}

/// The probe's objects: names that no other probe uses, and bytes that nobody else writes.
struct Objects {
    single: ObjectKey,
    raced: ObjectKey,
    body: Bytes,
}

impl Objects {
    fn named() -> Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|e| Error::new(Code::Internal, "naming the probe's objects").because(e))?;
        let name: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let body = format!("pitr tests this store with {name}; this object can be deleted").into();
        Ok(Self { single: ObjectKey::probe(&format!("{name}-a")), raced: ObjectKey::probe(&format!("{name}-b")), body })
    }
}

fn inconsistent(doing: &'static str, key: &ObjectKey, found: impl fmt::Display) -> Error {
    Error::new(Code::StoreInconsistent, doing).on(key).with("found", found)
}

async fn write(store: &dyn Store, objects: &Objects) -> Result<()> {
    match store.put(&objects.single, objects.body.clone()).await? {
        Put::Created => Ok(()),
        // A lost reply: then it is our own, which reading back shows.
        Put::Exists => read_back(store, objects).await,
    }
}

async fn read_back(store: &dyn Store, objects: &Objects) -> Result<()> {
    const DOING: &str = "reading back what was written";
    match store.get(&objects.single, LIMIT).await? {
        Some(body) if body == objects.body => Ok(()),
        Some(_) => Err(inconsistent(DOING, &objects.single, "other bytes")),
        None => Err(inconsistent(DOING, &objects.single, "nothing")),
    }
}

async fn read_range(store: &dyn Store, objects: &Objects) -> Result<()> {
    const DOING: &str = "reading a part of what was written";
    match store.get_range(&objects.single, 5..21).await? {
        Some(part) if Some(part.as_ref()) == objects.body.get(5..21) => Ok(()),
        Some(_) => Err(inconsistent(DOING, &objects.single, "other bytes")),
        None => Err(inconsistent(DOING, &objects.single, "nothing")),
    }
}

async fn create_twice(store: &dyn Store, objects: &Objects) -> Result<()> {
    // Of the same length: what a careless store does here must not show as a fault of its listing too.
    let other = Bytes::from(vec![b'x'; objects.body.len()]);
    match store.put(&objects.single, other).await? {
        Put::Exists => read_back(store, objects).await,
        Put::Created => Err(Error::new(Code::StoreNotExclusive, "creating an object again").on(&objects.single)),
    }
}

async fn race(store: &dyn Store, objects: &Objects) -> Result<()> {
    const DOING: &str = "letting eight writers create one object";
    let key = &objects.raced;
    let bodies: Vec<_> = (0..CREATORS).map(|i| Bytes::from(format!("writer {i} of the race"))).collect();
    let answers = join_all(bodies.iter().map(|body| store.put(key, body.clone()))).await;
    let winners: Vec<_> =
        bodies.iter().zip(&answers).filter(|(_, a)| matches!(a, Ok(Put::Created))).map(|(b, _)| b).collect();
    let not_exclusive = |found: &str| Err(Error::new(Code::StoreNotExclusive, DOING).on(key).with("found", found));
    if winners.len() > 1 {
        return not_exclusive("several winners");
    }
    let stored = store.get(key, LIMIT).await?;
    match (winners.first(), stored) {
        (_, None) => return Err(inconsistent(DOING, key, "nothing")),
        (Some(winner), Some(stored)) if stored != **winner => {
            return not_exclusive("a loser's bytes in the winner's place");
        }
        // Nobody heard of winning: the winner's reply was lost, and asking again met its own object.
        (None, Some(stored)) if !bodies.contains(&stored) => return Err(inconsistent(DOING, key, "other bytes")),
        _ => {}
    }
    answers.into_iter().find_map(Result::err).map_or(Ok(()), Err)
}

async fn list(store: &dyn Store, objects: &Objects) -> Result<()> {
    const DOING: &str = "listing what was written";
    let listed = store.list("probe/", None).await?;
    for (key, size) in [(&objects.single, Some(objects.body.len() as u64)), (&objects.raced, None)] {
        match listed.iter().find(|l| l.key == *key) {
            Some(found) if size.is_none_or(|size| size == found.size) => {}
            Some(found) => return Err(inconsistent(DOING, key, format_args!("size {}", found.size))),
            None => return Err(inconsistent(DOING, key, "nothing")),
        }
    }
    let after = store.list("probe/", Some(&objects.single)).await?;
    match after.iter().any(|l| l.key <= objects.single) {
        true => Err(inconsistent(DOING, &objects.single, "itself after itself")),
        false => Ok(()),
    }
}

async fn delete(store: &dyn Store, objects: &Objects) -> Result<()> {
    store.delete(&objects.single).await?;
    match store.get(&objects.single, LIMIT).await? {
        None => Ok(()),
        Some(_) => Err(inconsistent("deleting an object", &objects.single, "it is still there")),
    }
}

/// How often an archiver writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// While the database is written to: one segment in each of these.
    pub segment_interval: Duration,
    /// While it is not: one heartbeat in each of these.
    pub heartbeat_interval: Duration,
    /// One manifest in each of these, always.
    pub manifest_interval: Duration,
}

/// Requests in a month of 30 days that create an object, without bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MonthlyRequests {
    /// When the database is written to all the time: the most that it can be, segments cut by size aside.
    pub busy: u64,
    /// When it is never written to.
    pub idle: u64,
}

/// The requests that an archiver of this pace makes; an interval of zero counts as one millisecond.
pub fn requests_per_month(pace: Pace) -> MonthlyRequests {
    const MONTH_MILLIS: u128 = 30 * 24 * 3600 * 1000;
    let per_month =
        |interval: Duration| u64::try_from(MONTH_MILLIS.div_ceil(interval.as_millis().max(1))).unwrap_or(u64::MAX);
    let manifests = per_month(pace.manifest_interval);
    MonthlyRequests {
        busy: per_month(pace.segment_interval).saturating_add(manifests),
        idle: per_month(pace.heartbeat_interval).saturating_add(manifests),
    }
}

#[cfg(test)]
mod tests;
