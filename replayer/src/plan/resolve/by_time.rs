//! `--to-time T`: the last boundary that was observed at or before T.
//!
//! Owns: what the archiver's looks at the readable end say about a time, and about a place
//! ([`certain`]). The stream orders the looks, not the clock: where a clock was set back, the last look whose time is
//! not after T counts.

use chrono::{DateTime, Utc};
use pitr_archive::{Result, clock::Micros};

use super::{Distance, Resolved, after_end, before_start, observed_through, time};
use crate::{
    plan::{
        CertainTime,
        source::Source,
        stream::{Place, Stream},
    },
    target::Target,
};

pub(super) async fn resolve(stream: &Stream, source: &dyn Source, wanted: DateTime<Utc>) -> Result<Resolved> {
    let target = Target::Time(wanted);
    // Times are kept in microseconds; the fraction of one that was asked for cannot hide a look.
    let at = Micros::from(wanted);
    if observed_through(stream, source)?.is_none_or(|last| at > last) {
        return Err(after_end(stream, source, &target)?);
    }
    let Some(place) = last_look(stream, source, at).await? else {
        let e = before_start(stream, source, &target)?;
        return Err(match first_look(stream, source)? {
            Some(first) => e.with("first observation", first),
            None => e,
        });
    };
    let certain = certain(stream, source, place).await?;
    let mut resolved = Resolved::exactly(place);
    let in_certain = certain.to.is_some_and(|to| wanted <= to);
    let since = certain.from.map_or(0, |from| (wanted - from).num_microseconds().unwrap_or(i64::MAX));
    let since = u64::try_from(since).unwrap_or(0);
    resolved.distance =
        Distance { exact: in_certain, micros: Some(if in_certain { 0 } else { since }), ..Distance::default() };
    if !in_certain {
        resolved.distance.text = format!(
            "the last observation at or before the time is {}; what was written between it and the next one is not included",
            certain.from.map_or_else(|| "unknown".to_owned(), |t| Micros::from(t).to_string()),
        );
    }
    Ok(resolved)
}

fn first_look(stream: &Stream, source: &dyn Source) -> Result<Option<Micros>> {
    let Some(piece) = stream.pieces.iter().find(|piece| piece.tells_a_time()) else { return Ok(None) };
    source.exact(piece.timeline, &piece.summary)?;
    Ok(piece.summary.observed.map(|(first, _)| first.at).or(piece.summary.observed_through))
}

/// The place that the last look at or before `at` showed.
async fn last_look(stream: &Stream, source: &dyn Source, at: Micros) -> Result<Option<Place>> {
    for piece in stream.pieces.iter().rev() {
        let s = &piece.summary;
        if let Some(inside) = &s.rolled_up {
            if inside.earliest.is_none_or(|earliest| at < earliest) {
                continue;
            }
            source.exact(piece.timeline, s)?;
        }
        if s.observed_through.is_some_and(|t| t <= at) {
            return Ok(Some(piece.end));
        }
        let Some((first, last)) = s.observed else { continue };
        if last.at <= at {
            return Ok(Some(stream.shown(piece, last)));
        }
        if first.at <= at {
            let samples = source.samples(piece.timeline, s).await?;
            if let Some(sample) = samples.iter().rev().find(|sample| sample.at <= at) {
                return Ok(Some(stream.shown(piece, *sample)));
            }
        }
    }
    Ok(None)
}

/// When the database certainly was at `place`.
pub(crate) async fn certain(stream: &Stream, source: &dyn Source, place: Place) -> Result<CertainTime> {
    let mut result = CertainTime::default();
    // Behind this the stream tells of something else, or of a time in which nobody knows what was written.
    let end = stream.unchanged_until(place);
    // Looks that show the place lie in the segment that reaches it or in a later one: find the first of them.
    let from = stream.pieces.partition_point(|p| p.end < place);
    let mut quiet_since: Option<Micros> = None;
    for piece in stream.pieces.iter().skip(from) {
        let s = &piece.summary;
        if let Some(inside) = s.rolled_up.as_ref().filter(|_| piece.tells_a_time()) {
            if result.from.is_none() || piece.end > end {
                source.exact(piece.timeline, s)?;
            }
            // Nothing happened in it: it only says until when.
            quiet_since = quiet_since.max(inside.latest);
            continue;
        }
        let observed = s.observed.map(|(first, last)| (stream.shown(piece, first), stream.shown(piece, last)));
        let crosses = observed.is_some_and(|(first, last)| first <= end && last > end);
        let samples = match s.observed.zip(observed) {
            None => Vec::new(),
            Some(((first, last), _)) if first == last => vec![first],
            Some(((first, _), (shown, _))) if !crosses && shown >= place && result.from.is_some() => vec![first],
            Some(_) => source.samples(piece.timeline, s).await?,
        };
        for sample in &samples {
            let shown = stream.shown(piece, *sample);
            if shown >= place && result.from.is_none() {
                result.from = Some(time(sample.at));
            }
            if shown > end {
                result.to = Some(time(quiet_since.map_or(sample.from, |t| t.max(sample.from))));
                return Ok(result);
            }
        }
        // A piece without a look that reaches further tells nothing: the next look says since when.
        if piece.end >= place && piece.end <= end {
            if let Some(through) = s.observed_through {
                quiet_since = Some(quiet_since.map_or(through, |t| t.max(through)));
                // Nothing was written while only heartbeats were shipped: the first says that much already.
                result.from.get_or_insert(time(through));
            }
            if let Some((_, last)) = s.observed.filter(|(_, last)| stream.shown(piece, *last) >= place) {
                quiet_since = Some(quiet_since.map_or(last.at, |t| t.max(last.at)));
            }
        }
    }
    result.to = result.to.or(quiet_since.map(time));
    Ok(result)
}
