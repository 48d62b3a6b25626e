//! Times as people type them, turned into exact ones.
//!
//! Owns: the accepted forms, and the only use of jiff in this workspace (everything else speaks chrono). Accepted:
//! - RFC 3339 with an offset: `2026-11-20T13:33:00Z`, `2026-11-20 14:33:00.25+01:00`;
//! - a local time with its zone: `2026-11-20T14:33:00[Europe/Berlin]`, `2026-11-20 14:33 Europe/Berlin`;
//! - a local time of this machine's zone: `2026-11-20 14:33`;
//! - a distance to now: `2 hours ago`, `1h 30m ago`;
//! - seconds since 1970: `@1795527180`, `@1795527180.25`.
//!
//! Refuses: local times that a clock showed twice or never (it names both candidates), dates without a time of day,
//! and everything that would have to be guessed.

use chrono::{DateTime, SecondsFormat, Utc};
use jiff::{
    Span, Timestamp,
    civil::DateTime as Civil,
    fmt::temporal::Pieces,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeTextError {
    /// None of the accepted forms.
    #[error(
        "{0:?} is not a time; examples: 2026-11-20T13:33:00Z, '2026-11-20 14:33 Europe/Berlin', '2 hours ago', @1795527180"
    )]
    Unknown(String),
    /// A date, and nothing else.
    #[error("{0:?} has no time of day")]
    NoTimeOfDay(String),
    /// The zone's name is not in this machine's time zone data.
    #[error("{0:?} is not a time zone that this machine knows")]
    UnknownZone(String),
    /// The offset given is not one that the zone given had at that time.
    #[error("the offset and the time zone in {0:?} contradict each other")]
    OffsetContradictsZone(String),
    /// The local time occurred twice, or not at all, because clocks were changed.
    #[error("local time {local} {how} in {zone}: write {first} or {second}")]
    Ambiguous {
        /// As typed.
        local: String,
        /// `occurred twice` or `was skipped`.
        how: &'static str,
        /// The time zone.
        zone: String,
        /// The earlier candidate, RFC 3339.
        first: String,
        /// The later candidate, RFC 3339.
        second: String,
    },
    /// A time that cannot be represented.
    #[error("{0:?} is out of range")]
    OutOfRange(String),
}

/// The zone in which local times without a zone of their own are read.
#[derive(Clone, Debug)]
pub struct LocalZone(TimeZone);

impl LocalZone {
    /// This machine's.
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    /// By its IANA name.
    pub fn named(name: &str) -> Result<Self, TimeTextError> {
        TimeZone::get(name).map(Self).map_err(|_| TimeTextError::UnknownZone(name.to_owned()))
    }
}

/// Reads `text`, as it would be meant at `now` by somebody in `zone`.
pub fn parse(text: &str, now: DateTime<Utc>, zone: &LocalZone) -> Result<DateTime<Utc>, TimeTextError> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        return unix(seconds).ok_or_else(|| TimeTextError::Unknown(text.to_owned()));
    }
    if let Some(span) = text.strip_suffix("ago") {
        return ago(text, span, now, zone);
    }
    absolute(text, zone)
}

fn unix(digits: &str) -> Option<DateTime<Utc>> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    DateTime::from_timestamp(whole.parse().ok()?, nanos)
}

fn ago(text: &str, span: &str, now: DateTime<Utc>, zone: &LocalZone) -> Result<DateTime<Utc>, TimeTextError> {
    let unknown = || TimeTextError::Unknown(text.to_owned());
    let span: Span = span.trim().parse().map_err(|_| unknown())?;
    if span.is_negative() {
        return Err(unknown());
    }
    // Days and months have different lengths, so they are counted on the local calendar.
    let then = to_jiff(now)
        .ok_or_else(unknown)?
        .to_zoned(zone.0.clone())
        .checked_sub(span)
        .map_err(|_| TimeTextError::OutOfRange(text.to_owned()))?;
    to_chrono(then.timestamp()).ok_or_else(|| TimeTextError::OutOfRange(text.to_owned()))
}

fn absolute(text: &str, local: &LocalZone) -> Result<DateTime<Utc>, TimeTextError> {
    let (when, trailing_zone) = split_trailing_zone(text);
    let pieces = Pieces::parse(when).map_err(|_| TimeTextError::Unknown(text.to_owned()))?;
    let Some(time) = pieces.time() else { return Err(TimeTextError::NoTimeOfDay(text.to_owned())) };
    let civil = pieces.date().to_datetime(time);
    let annotated = match (pieces.time_zone_annotation(), trailing_zone) {
        (Some(_), Some(_)) => return Err(TimeTextError::Unknown(text.to_owned())),
        (Some(annotation), None) => {
            Some(annotation.to_time_zone().map_err(|_| TimeTextError::UnknownZone(text.to_owned()))?)
        }
        (None, Some(name)) => Some(TimeZone::get(name).map_err(|_| TimeTextError::UnknownZone(name.to_owned()))?),
        (None, None) => None,
    };
    let out_of_range = || TimeTextError::OutOfRange(text.to_owned());
    if let Some(offset) = pieces.to_numeric_offset() {
        let at = offset.to_timestamp(civil).map_err(|_| out_of_range())?;
        if annotated.is_some_and(|zone| zone.to_offset(at) != offset) {
            return Err(TimeTextError::OffsetContradictsZone(text.to_owned()));
        }
        return to_chrono(at).ok_or_else(out_of_range);
    }
    in_zone(civil, annotated.unwrap_or_else(|| local.0.clone())).and_then(|at| to_chrono(at).ok_or_else(out_of_range))
}

/// `2026-11-20 14:33 Europe/Berlin` is easier to type than brackets; the time itself never contains a letter but `T`
/// and `Z` before its zone.
fn split_trailing_zone(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(' ') {
        Some((when, zone)) if zone.starts_with(|c: char| c.is_ascii_alphabetic()) => (when.trim_end(), Some(zone)),
        _ => (text, None),
    }
}

fn in_zone(civil: Civil, zone: TimeZone) -> Result<Timestamp, TimeTextError> {
    let out_of_range = || TimeTextError::OutOfRange(civil.to_string());
    let at = |offset: Offset| offset.to_timestamp(civil).map_err(|_| out_of_range());
    let (before, after, how) = match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => return at(offset),
        AmbiguousOffset::Fold { before, after } => (before, after, "occurred twice"),
        AmbiguousOffset::Gap { before, after } => (before, after, "was skipped"),
    };
    let shown = |offset: Offset| -> Result<(Timestamp, String), TimeTextError> {
        let at = at(offset)?;
        let text = to_chrono(at).ok_or_else(out_of_range)?.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        Ok((at, text))
    };
    let mut candidates = [shown(before)?, shown(after)?];
    candidates.sort();
    let [(_, first), (_, second)] = candidates;
    let name = zone.iana_name().map_or_else(|| "this machine's time zone".to_owned(), ToOwned::to_owned);
    Err(TimeTextError::Ambiguous { local: civil.to_string(), how, zone: name, first, second })
}

fn to_jiff(time: DateTime<Utc>) -> Option<Timestamp> {
    Timestamp::new(time.timestamp(), i32::try_from(time.timestamp_subsec_nanos()).ok()?).ok()
}

fn to_chrono(time: Timestamp) -> Option<DateTime<Utc>> {
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    DateTime::from_timestamp(seconds, u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-20T13:33:00Z".parse().unwrap()
    }

    fn read(text: &str) -> Result<String, TimeTextError> {
        let zone = LocalZone::named("Europe/Berlin")?;
        parse(text, now(), &zone).map(|t| t.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }

    #[test]
    fn every_documented_form_is_read_exactly() {
        for (text, expected) in [
            ("2026-11-20T13:33:00Z", "2026-11-20T13:33:00Z"),
            ("2026-11-20 14:33:00.25+01:00", "2026-11-20T13:33:00.250Z"),
            ("2026-11-20T14:33:00[Europe/Berlin]", "2026-11-20T13:33:00Z"),
            ("2026-07-01T14:33:00+02:00[Europe/Berlin]", "2026-07-01T12:33:00Z"),
            ("2026-11-20 14:33 America/New_York", "2026-11-20T19:33:00Z"),
            ("2026-11-20 14:33", "2026-11-20T13:33:00Z"),
            (" 2 hours ago ", "2026-11-20T11:33:00Z"),
            ("1h 30m ago", "2026-11-20T12:03:00Z"),
            ("@0", "1970-01-01T00:00:00Z"),
            ("@1795527180.000001", "2026-11-24T13:33:00.000001Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn days_are_counted_on_the_local_calendar() {
        // Clocks in Berlin went back on 25 October 2026: the same time of day then was an hour further away.
        assert_eq!(read("30 days ago").as_deref(), Ok("2026-10-21T12:33:00Z"));
        assert_eq!(read("720 hours ago").as_deref(), Ok("2026-10-21T13:33:00Z"));
    }

    #[test]
    fn a_local_time_that_occurred_twice_is_refused_with_both_candidates() {
        let Err(TimeTextError::Ambiguous { how, first, second, .. }) = read("2026-10-25 02:30") else {
            panic!("accepted");
        };
        assert_eq!(
            (how, first.as_str(), second.as_str()),
            ("occurred twice", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z")
        );
    }

    #[test]
    fn a_local_time_that_never_was_is_refused_with_both_readings() {
        let Err(TimeTextError::Ambiguous { how, first, second, .. }) = read("2026-03-29T02:30[Europe/Berlin]") else {
            panic!("accepted");
        };
        assert_eq!(
            (how, first.as_str(), second.as_str()),
            ("was skipped", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z")
        );
    }

    #[test]
    fn an_offset_decides_a_time_that_occurred_twice() {
        assert_eq!(read("2026-10-25T02:30:00+01:00[Europe/Berlin]").as_deref(), Ok("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn what_would_have_to_be_guessed_is_refused() {
        for text in
            ["", "yesterday", "03/04/2026", "14:33", "@", "@1.", "@-5", "@1e9", "-2h ago", "ago", "2 hours", "x ago"]
        {
            assert!(matches!(read(text), Err(TimeTextError::Unknown(_))), "{text:?}: {:?}", read(text));
        }
        assert!(matches!(read("2026-11-20"), Err(TimeTextError::NoTimeOfDay(_))));
        assert!(matches!(read("2026-11-20 14:33 Nowhere/Land"), Err(TimeTextError::UnknownZone(_))));
        assert!(matches!(
            read("2026-11-20T14:33:00+05:00[Europe/Berlin]"),
            Err(TimeTextError::OffsetContradictsZone(_))
        ));
    }
}
