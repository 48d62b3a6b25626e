//! What a person or program asks to restore to.
//!
//! Owns: the five kinds of target and their text forms. What a target *means* in a given archive is `plan`'s.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use pitr_archive::{
    Code, Error, Result,
    ids::{RecordNumber, SequenceNumber},
    time_text::{self, LocalZone},
};
use serde::Serialize;

/// A target, not yet resolved. In JSON: `{"kind":"sequence","value":4711}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
pub enum Target {
    /// After exactly this record.
    Record(RecordNumber),
    /// The last record whose end sequence is at most this.
    Sequence(SequenceNumber),
    /// The last record observed at or before this time.
    Time(DateTime<Utc>),
    /// The position that a tag names, on the tag's own timeline.
    Tag(String),
    /// The end of the archive.
    Latest,
}

impl Target {
    /// `--to-record`: a record number, decimal.
    pub fn record(text: &str) -> Result<Self> {
        number(text, "record number").map(|n| Self::Record(RecordNumber::new(n)))
    }

    /// `--to-seq`: a sequence number of RocksDB, decimal, at most 2^56 - 1.
    pub fn sequence(text: &str) -> Result<Self> {
        let sequence = SequenceNumber::new(number(text, "sequence number")?);
        if sequence > SequenceNumber::MAX {
            return Err(malformed(text, "sequence number").with("largest", SequenceNumber::MAX));
        }
        Ok(Self::Sequence(sequence))
    }

    /// `--to-time`: any form of [`time_text`], as meant at `now` by somebody in `zone`.
    pub fn time(text: &str, now: DateTime<Utc>, zone: &LocalZone) -> Result<Self> {
        time_text::parse(text, now, zone).map(Self::Time).map_err(|e| malformed(text, "time").because(e))
    }

    /// `--to-tag`: a tag's name. That the tag exists is found out by the plan.
    pub fn tag(name: &str) -> Self {
        Self::Tag(name.to_owned())
    }
}

fn number(text: &str, kind: &'static str) -> Result<u64> {
    // Only digits: `u64::from_str` would take a plus sign, which no number of ours is ever printed with.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed(text, kind));
    }
    text.parse().map_err(|e: std::num::ParseIntError| malformed(text, kind).because(e))
}

fn malformed(text: &str, kind: &'static str) -> Error {
    Error::new(Code::TargetMalformed, "reading the target").on(format_args!("{text:?}")).with("expected", kind)
}

/// As it is typed: `record 99`, `sequence 4711`, `time 2026-11-20T13:33:00Z`, `tag before-migration`, `latest`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(record) => write!(f, "record {record}"),
            Self::Sequence(sequence) => write!(f, "sequence {sequence}"),
            Self::Time(time) => write!(f, "time {}", time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_digits_within_their_range() {
        assert_eq!(Target::record("99").unwrap(), Target::Record(RecordNumber::new(99)));
        assert_eq!(
            Target::sequence("72057594037927935").unwrap(),
            Target::Sequence(SequenceNumber::MAX),
            "2^56 - 1 is RocksDB's largest"
        );
        for bad in ["", "+1", "-1", "1.5", "0x10", "1 ", "18446744073709551616"] {
            assert_eq!(Target::record(bad).unwrap_err().code(), Code::TargetMalformed, "{bad:?}");
        }
        assert_eq!(Target::sequence("72057594037927936").unwrap_err().code(), Code::TargetMalformed);
    }

    #[test]
    fn an_ambiguous_local_time_is_refused_with_both_candidates_in_the_message() {
        let zone = LocalZone::named("Europe/Berlin").unwrap();
        let e = Target::time("2026-10-25 02:30", DateTime::UNIX_EPOCH, &zone).unwrap_err();
        assert_eq!(e.code(), Code::TargetMalformed);
        let text = e.to_string();
        assert!(text.contains("2026-10-25T00:30:00Z") && text.contains("2026-10-25T01:30:00Z"), "{text}");
    }

    #[test]
    fn the_json_form_is_stable() {
        let json = |t: Target| serde_json::to_string(&t).unwrap();
        assert_eq!(json(Target::Sequence(SequenceNumber::new(4711))), r#"{"kind":"sequence","value":4711}"#);
        assert_eq!(json(Target::Latest), r#"{"kind":"latest"}"#);
        assert_eq!(
            json(Target::Time("2026-11-20T13:33:00Z".parse().unwrap())),
            r#"{"kind":"time","value":"2026-11-20T13:33:00Z"}"#
        );
    }
}
