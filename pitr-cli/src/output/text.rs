//! Numbers, sizes, durations and times as people read them.
//!
//! Owns: one form for each. Times are RFC 3339 in UTC, so that they can be given back to `--to-time`.

use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, SecondsFormat, Utc};
use pitr_archive::clock::Micros;

/// `1.4 GiB`.
pub fn bytes(n: u64) -> String {
    ByteSize::b(n).display().iec().to_string()
}

/// `850 ms`, `12 s`, `4 min 10 s`, `3 h 2 min`, `2 d 4 h`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 if d.is_zero() => "0 s".to_owned(),
        0 if d.as_millis() == 0 => "under 1 ms".to_owned(),
        0 => format!("{} ms", d.as_millis()),
        1..=9 if d.subsec_millis() >= 50 => format!("{:.1} s", d.as_secs_f64()),
        1..=59 => format!("{seconds} s"),
        60..=3_599 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// How long before `now` something was; `just now` for what clocks show as the future.
pub fn ago(then: Micros, now: Micros) -> String {
    match u64::try_from(now.0.saturating_sub(then.0)) {
        Ok(micros) if micros > 0 => format!("{} ago", duration(Duration::from_micros(micros))),
        _ => "just now".to_owned(),
    }
}

/// `2026-11-20T13:33:00.123456Z`, with as many digits as are needed.
pub fn time(at: impl Into<Exact>) -> String {
    at.into().0.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// `2026-11-20T13:33:00Z`: to the second, where a table has to be scanned.
pub fn short_time(at: impl Into<Exact>) -> String {
    at.into().0.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A time of either of our types.
pub struct Exact(DateTime<Utc>);

impl From<Micros> for Exact {
    fn from(at: Micros) -> Self {
        Self(at.to_datetime())
    }
}

impl From<DateTime<Utc>> for Exact {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at)
    }
}

/// The beginning of a long text, with its whole length.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let head: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{head}…")
}

/// `1 record`, `2 records`, `3 directories`.
pub fn count(n: impl TryInto<u64>, noun: &str) -> String {
    // Key, keys; directory, directories.
    let stem = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match (n.try_into().unwrap_or(u64::MAX), stem) {
        (1, _) => format!("1 {noun}"),
        (n, Some(stem)) => format!("{n} {stem}ies"),
        (n, None) => format!("{n} {noun}s"),
    }
}

/// A position as people say it: `record 99 (timeline 1)`, or `start of timeline 1` before the first record.
pub fn boundary(timeline: pitr_archive::ids::TimelineId, boundary: pitr_archive::ids::Boundary) -> String {
    match boundary.last_record() {
        Some(record) => format!("record {record} (timeline {timeline})"),
        None => format!("the start of timeline {timeline}"),
    }
}

/// The record before a boundary, or `start`.
pub fn record(boundary: pitr_archive::ids::Boundary) -> String {
    boundary.last_record().map_or_else(|| "start".to_owned(), |record| record.to_string())
}

/// The stable name of a value whose JSON form is a name: `records-missing`.
pub fn name(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(e) => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_parts_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (1, "1 s"),
            (12, "12 s"),
            (60, "1 min"),
            (250, "4 min 10 s"),
            (10_920, "3 h 2 min"),
            (187_200, "2 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(duration(Duration::from_micros(3)), "under 1 ms");
    }
}
