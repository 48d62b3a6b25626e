//! `--to-time T`: the last boundary that was observed at or before T.
//!
//! Owns: what the archiver's looks at the readable end say about a time, and about a boundary
//! ([`certain`]). The stream orders the looks, not the clock: where a clock was set back, the last look whose time is
//! not after T counts.

use chrono::{DateTime, Utc};
use pitr_archive::{Result, clock::Micros, ids::Boundary};

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
    if observed_through(stream).is_none_or(|last| at > last) {
        return Err(after_end(stream, &target));
    }
    let Some(place) = last_look(stream, source, at).await? else {
        let e = before_start(stream, &target);
        return Err(match first_look(stream) {
            Some(first) => e.with("first observation", first),
            None => e,
        });
    };
    let certain = certain(stream, source, place.boundary).await?;
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

fn first_look(stream: &Stream) -> Option<Micros> {
    stream.pieces.iter().find_map(|p| p.summary.observed.map(|(first, _)| first.at).or(p.summary.observed_through))
}

/// The place that the last look at or before `at` showed.
async fn last_look(stream: &Stream, source: &dyn Source, at: Micros) -> Result<Option<Place>> {
    for piece in stream.pieces.iter().rev() {
        let s = &piece.summary;
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

/// When the database certainly was at `boundary`.
pub(crate) async fn certain(stream: &Stream, source: &dyn Source, boundary: Boundary) -> Result<CertainTime> {
    let mut result = CertainTime::default();
    // Looks that show a boundary lie in the segment that reaches it or in a later one: find the first of them.
    let from = stream.pieces.partition_point(|p| p.end.boundary < boundary);
    let mut quiet_since: Option<Micros> = None;
    for piece in stream.pieces.iter().skip(from) {
        let s = &piece.summary;
        let beyond = s.observed.is_some_and(|(_, last)| last.boundary > boundary);
        let crosses = s.observed.is_some_and(|(first, last)| first.boundary <= boundary && last.boundary > boundary);
        let samples = match s.observed {
            None => Vec::new(),
            Some((first, last)) if first == last => vec![first],
            Some((first, _)) if !crosses && first.boundary >= boundary && result.from.is_some() => vec![first],
            Some(_) => source.samples(piece.timeline, s).await?,
        };
        for sample in &samples {
            if sample.boundary >= boundary && result.from.is_none() {
                result.from = Some(time(sample.at));
            }
            if sample.boundary > boundary {
                result.to = Some(time(quiet_since.map_or(sample.from, |t| t.max(sample.from))));
                return Ok(result);
            }
        }
        if !beyond && piece.end.boundary == boundary {
            if let Some(through) = s.observed_through {
                quiet_since = Some(quiet_since.map_or(through, |t| t.max(through)));
                // Nothing was written while only heartbeats were shipped: the first says that much already.
                result.from.get_or_insert(time(through));
            }
            if let Some((_, last)) = s.observed.filter(|(_, last)| last.boundary == boundary) {
                quiet_since = Some(quiet_since.map_or(last.at, |t| t.max(last.at)));
            }
        }
        if piece.end.boundary > boundary && beyond {
            break;
        }
    }
    result.to = result.to.or(quiet_since.map(time));
    Ok(result)
}
