//! A picture as Prometheus reads it.
//!
//! Owns: the metrics' names, meanings and labels. Names are stable: metrics are added, never renamed. All of them have the
//! labels `database` and `archive`, but for the few about the process. Times are seconds since 1970, durations seconds, sizes
//! bytes; what is not known is absent, not zero.
//! The text is OpenMetrics 1.0, which Prometheus reads since 2.5. Pure.

use std::{borrow::Cow, fmt, time::Duration};

use pitr_archive::{
    clock::Micros,
    measure::{BOUNDS, DurationCounts},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    board::{Look, PanelLook, State, ago},
    chores::{Chore, Outcomes},
    health,
};
use crate::output::text::name;

/// How the text is announced.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a picture.
pub fn render(look: Look) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("pitr");
    registry.register_collector(Box::new(Scrape(look)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// One scrape: the registry asks it once and is dropped.
#[derive(Debug)]
struct Scrape(Look);

type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// A value with its labels.
enum Value {
    Gauge(f64),
    Counter(u64),
    Histogram(DurationCounts),
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Gauge(v) => metric.encode_gauge(v),
            Self::Counter(v) => metric.encode_counter::<NoLabelSet, _, u64>(v, None),
            Self::Histogram(d) => {
                let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(d.buckets.iter().copied().chain([d.longer])).collect();
                metric.encode_histogram::<NoLabelSet>(d.micros as f64 / 1e6, d.count(), &buckets, None)
            }
        }
    }
}

/// One metric with all its values.
struct Family<'a> {
    name: &'static str,
    help: &'static str,
    values: Vec<(Labels<'a>, Value)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in families(&self.0) {
            let Some((_, first)) = family.values.first() else { continue };
            let kind = match first {
                Value::Gauge(_) => MetricType::Gauge,
                Value::Counter(_) => MetricType::Counter,
                Value::Histogram(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.values {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_ref())).collect();
                let labels = labels.as_slice();
                if labels.is_empty() {
                    value.encode(&mut metric)?;
                } else {
                    value.encode(&mut metric.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn seconds(d: Duration) -> Value {
    Value::Gauge(d.as_secs_f64())
}

fn time(at: Micros) -> Value {
    Value::Gauge(at.0 as f64 / 1e6)
}

fn gauge(n: u64) -> Value {
    Value::Gauge(n as f64)
}

/// For every archiver, the values that `of` tells: each with labels of its own beside the two that all have.
fn each<'a, const N: usize>(
    look: &'a Look,
    help: (&'static str, &'static str),
    of: impl Fn(&'a PanelLook) -> Vec<([(&'static str, Cow<'a, str>); N], Value)>,
) -> Family<'a> {
    let (name, help) = help;
    let mut values = Vec::new();
    for panel in &look.panels {
        for (more, value) in of(panel) {
            let mut labels: Labels<'a> =
                vec![("database", panel.database.as_str().into()), ("archive", panel.archive.as_str().into())];
            labels.extend(more);
            values.push((labels, value));
        }
    }
    Family { name, help, values }
}

/// As [`each`], for metrics with one value at most and no other labels.
fn one<'a>(
    look: &'a Look,
    name: &'static str,
    help: &'static str,
    of: impl Fn(&'a PanelLook) -> Option<Value>,
) -> Family<'a> {
    each(look, (name, help), |panel| of(panel).map(|value| ([], value)).into_iter().collect())
}

fn process(name: &'static str, help: &'static str, labels: Labels<'static>, value: Value) -> Family<'static> {
    Family { name, help, values: vec![(labels, value)] }
}

fn families(look: &Look) -> Vec<Family<'_>> {
    let ready = health::not_ready(look).is_empty();
    let version = vec![("version", Cow::Borrowed(env!("CARGO_PKG_VERSION")))];
    let mut all = vec![
        process("build", "The version of pitr; always 1", version, gauge(1)),
        process("start_time_seconds", "When the process began", Vec::new(), time(look.began)),
        process("ready", "Whether /readyz says that every database is protected", Vec::new(), gauge(ready.into())),
    ];
    all.extend(archiver(look));
    all.extend(shipping(look));
    all.extend(chores(look));
    all.extend(store(look));
    all.extend(archive(look));
    all
}

/// What an archiver is doing, and how far behind the archive is.
fn archiver(look: &Look) -> Vec<Family<'_>> {
    let now = look.now;
    vec![
        each(look, ("archiver_state", "1 for what the archiver is doing, 0 for everything else"), |p| {
            let is = |name| u64::from(name == p.state.name());
            State::NAMES.into_iter().map(|name| ([("state", name.into())], gauge(is(name)))).collect()
        }),
        one(look, "archiver_loop_age_seconds", "How long ago the archiver's loop turned last", |p| {
            p.counts.alive_at.map(|at| seconds(ago(at, now)))
        }),
        one(look, "lag_seconds", "How old the oldest byte is that the archive lacks; 0 when it lacks none", |p| {
            p.lag(now).map(seconds)
        }),
        one(look, "lag_bytes", "Bytes of the log from the oldest that the archive lacks", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.backlog_bytes))
        }),
        one(look, "lag_records", "Records that were read and that the archive lacks", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.unacknowledged_records))
        }),
        one(
            look,
            "oldest_unacknowledged_timestamp_seconds",
            "When the oldest byte was read that the archive lacks; absent when it lacks none",
            |p| p.figures.as_ref()?.status.oldest_unacknowledged.map(time),
        ),
        one(look, "caught_up_timestamp_seconds", "When the log was last read to its end", |p| {
            p.figures.as_ref()?.status.caught_up.map(time)
        }),
        one(look, "acknowledged_timestamp_seconds", "When the archive last acknowledged a segment", |p| {
            p.figures.as_ref()?.status.last_acknowledged.map(time)
        }),
        one(look, "pinned_bytes", "Bytes on disk that are held for the archive only", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.pinned_bytes))
        }),
        one(look, "free_bytes", "Free bytes of the file system that holds them", |p| {
            p.figures.as_ref().map(|f| gauge(f.free_bytes))
        }),
        one(
            look,
            "time_to_full_seconds",
            "In what time what is held meets a limit (the budget, or the floor of free space) if writing goes on as it did \
             since the oldest byte that the archive lacks; absent while the archive is not behind",
            |p| p.figures.as_ref()?.time_to_full(now).map(seconds),
        ),
        one(look, "limit_exceeded", "1 while what is held for the archive exceeds a limit, else 0", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.alarm.is_some().into()))
        }),
        one(look, "waiting", "1 while nothing can be archived (pitr status tells why), else 0", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.waiting.is_some().into()))
        }),
        one(look, "acknowledged_record", "The number of records before the end of what the archive has", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.acknowledged.boundary.get()))
        }),
        one(look, "acknowledged_sequence", "The database's latest sequence number there", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.acknowledged.sequence.get()))
        }),
        one(look, "epoch", "The archiver's claim on the archive", |p| {
            p.figures.as_ref().map(|f| gauge(f.status.epoch.get()))
        }),
    ]
}

/// What was read and shipped.
fn shipping(look: &Look) -> Vec<Family<'_>> {
    let count = |name, help, of: fn(&PanelLook) -> u64| one(look, name, help, move |p| Some(Value::Counter(of(p))));
    vec![
        count("read_records", "Records read", |p| p.counts.records_read),
        count("read_bytes", "Their bytes", |p| p.counts.bytes_read),
        count("archived_records", "Records that the archive has acknowledged", |p| p.counts.records),
        count("archived_bytes", "Their bytes, before compression", |p| p.counts.plain_bytes),
        count("archived_object_bytes", "Bytes of the segments that hold them", |p| p.counts.object_bytes),
        count("archived_segments", "Segments with records or events that the archive has acknowledged", |p| {
            p.counts.segments
        }),
        count("heartbeats", "Segments without any, which say that nothing was written", |p| p.counts.heartbeats),
        one(
            look,
            "delivery_duration_seconds",
            "From reading a segment's oldest record to its being durable in the archive",
            |p| Some(Value::Histogram(p.counts.delivery.clone())),
        ),
        count("bases_published", "Bases that this process has published", |p| p.counts.bases),
        each(look, ("base_failures", "Bases that came to nothing and are tried again, by error code"), |p| {
            let value = |(code, n): (&pitr_archive::Code, &u64)| ([("code", code.name().into())], Value::Counter(*n));
            p.counts.base_failures.iter().map(value).collect()
        }),
        count("tags_created", "Tags that this process has created", |p| p.counts.tags),
        count("merged_segments", "Merged segments that manifests of this process name", |p| p.counts.merged),
        count("merged_object_bytes", "Their bytes", |p| p.counts.merged_bytes),
        count("superseded_segments_deleted", "Segments deleted whose entries are in merged ones", |p| {
            p.counts.superseded_deleted
        }),
        each(look, ("barriers_noted", "Barriers that this process has recorded, by reason"), |p| {
            let noted = p.counts.barriers.iter();
            noted.map(|(reason, n)| ([("reason", name(reason).into())], Value::Counter(*n))).collect()
        }),
    ]
}

/// What was due by the clock.
fn chores(look: &Look) -> Vec<Family<'_>> {
    let label = |chore: Chore| ("chore", Cow::from(chore.name()));
    vec![
        each(look, ("scheduled", "What was done by the clock, and how it went"), |p| {
            let both = |(it, o): (Chore, &Outcomes)| {
                [("succeeded", o.succeeded), ("failed", o.failed)]
                    .map(|(outcome, n)| ([label(it), ("outcome", outcome.into())], Value::Counter(n)))
            };
            p.chores.known().flat_map(both).collect()
        }),
        each(look, ("scheduled_success_timestamp_seconds", "When that last went well"), |p| {
            p.chores.known().filter_map(|(it, o)| Some(([label(it)], time(o.success?)))).collect()
        }),
        one(look, "drill_timestamp_seconds", "When the last drill began that went well", |p| {
            p.drilled.map(|drilled| time(drilled.at))
        }),
        one(look, "drill_restore_seconds", "How long it took until the restored database could be read", |p| {
            p.drilled.map(|drilled| seconds(drilled.restore))
        }),
        one(look, "drill_estimated_seconds", "How long that was estimated to take", |p| {
            p.drilled?.estimated.map(seconds)
        }),
        one(look, "drill_data_at_risk_seconds", "How old then was what could be restored last", |p| {
            p.drilled?.at_risk.map(seconds)
        }),
    ]
}

/// What the store was asked.
fn store(look: &Look) -> Vec<Family<'_>> {
    vec![
        each(look, ("store_requests", "Requests to the store, by kind"), |p| {
            let value = |(request, d): &(pitr_archive::store::measured::Request, DurationCounts)| {
                ([("request", request.name().into())], Value::Counter(d.count()))
            };
            p.store.requests.iter().map(value).collect()
        }),
        each(look, ("store_errors", "Requests that failed, by kind and error code"), |p| {
            let labels = |request: &'static str, code: &'static str| {
                [("request", Cow::from(request)), ("code", Cow::from(code))]
            };
            let errors = p.store.errors.iter();
            errors.map(|(request, code, n)| (labels(request.name(), code.name()), Value::Counter(*n))).collect()
        }),
        one(look, "store_retries", "Requests that were made again before they were answered or failed", |p| {
            Some(Value::Counter(p.store.repeated))
        }),
        each(look, ("store_request_duration_seconds", "How long requests to the store took, by kind"), |p| {
            let requests = p.store.requests.iter();
            requests.map(|(r, d)| ([("request", r.name().into())], Value::Histogram(d.clone()))).collect()
        }),
        one(look, "store_sent_bytes", "Bytes of objects that were sent", |p| Some(Value::Counter(p.store.sent))),
        one(look, "store_received_bytes", "Bytes of objects that were received", |p| {
            Some(Value::Counter(p.store.received))
        }),
        one(
            look,
            "store_failing_seconds",
            "How long the store has answered nothing but errors; 0 when it answers",
            |p| Some(seconds(p.store.failing.as_ref().map_or(Duration::ZERO, |f| ago(f.since, look.now)))),
        ),
    ]
}

/// What can be restored.
fn archive(look: &Look) -> Vec<Family<'_>> {
    let now = look.now;
    let known = |name, help, of: fn(&super::overview::Overview) -> usize| {
        one(look, name, help, move |p| p.overview.as_ref().map(|o| gauge(of(o) as u64)))
    };
    vec![
        one(look, "base_timestamp_seconds", "When the last base was begun", |p| p.last_base().map(time)),
        one(look, "base_age_seconds", "How old the last base is", |p| p.last_base().map(|at| seconds(ago(at, now)))),
        one(
            look,
            "restorable_from_timestamp_seconds",
            "From when on every position without a gap can be restored",
            |p| p.restorable(now).map(|(from, _)| time(from)),
        ),
        one(look, "restorable_to_timestamp_seconds", "Up to when", |p| p.restorable(now).map(|(_, to)| time(to))),
        one(look, "restorable_window_seconds", "How long that is", |p| {
            p.restorable(now).map(|(from, to)| seconds(ago(from, to)))
        }),
        known("archive_bases", "Bases in the archive", |o| o.chronicle.bases.len()),
        known("archive_tags", "Tags in the archive", |o| o.chronicle.tags.len()),
        known("archive_timelines", "Timelines in the archive", |o| o.chronicle.timelines.len()),
        known("archive_segments", "Segments in the archive", |o| o.segments),
        one(look, "archive_segment_bytes", "Their bytes", |p| p.overview.as_ref().map(|o| gauge(o.bytes))),
        each(look, ("archive_barriers", "Barriers in the archive, by reason"), |p| {
            let mut by_reason = std::collections::BTreeMap::<_, u64>::new();
            for barrier in p.overview.iter().flat_map(|o| &o.chronicle.barriers) {
                *by_reason.entry(barrier.reason).or_default() += 1;
            }
            by_reason.into_iter().map(|(reason, n)| ([("reason", name(reason).into())], gauge(n))).collect()
        }),
        known("catalog_findings", "What is wrong with the archive's catalog (pitr verify tells)", |o| o.findings),
        one(
            look,
            "catalog_age_seconds",
            "How long ago the catalog was read from which the archive_* metrics are",
            |p| p.overview.as_ref().map(|o| seconds(ago(o.at, now))),
        ),
    ]
}
