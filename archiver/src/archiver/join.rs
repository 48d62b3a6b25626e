//! The end of the archive, as the state from which an engine goes on.

use std::sync::Arc;

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim},
        schema::{Position, TimelineDocument},
    },
    ids::{Boundary, Ordinal, RunningHash, SequenceNumber},
    segment::{envelope::Level, writer::SegmentStart},
};

use crate::{
    config::{ArchiverConfig, Parts},
    engine::{Engine, EngineState, resume},
    roll_up::RollUp,
    source::Source,
    stream::{Stream, boot_id},
};

/// An engine at the archive's end.
pub(super) struct Joined {
    pub engine: Engine,
    pub roll_up: RollUp,
    pub position: Position,
}

/// Reads the end of a timeline, or begins it.
pub(super) async fn join(
    archive: &Arc<Archive>,
    claim: &EpochClaim,
    document: &TimelineDocument,
    config: &ArchiverConfig,
    parts: &Parts,
    source: &Source,
) -> Result<Joined> {
    let timeline = document.timeline;
    let tail = archive.tail(timeline).await?;
    let roll_up = RollUp::new(tail.next_manifest, tail.previous_manifest, tail.segments);
    let level = Level::new(config.compression_level);
    let (start, head, last_record) = match tail.head {
        None => {
            let start = SegmentStart {
                archive: archive.id(),
                timeline,
                ordinal: Ordinal::new(0),
                epoch: claim.epoch(),
                first: document.parent.map_or(Boundary::START, |parent| parent.boundary),
                hash_before: document.parent.map_or(RunningHash::ZERO, |parent| parent.hash),
                last_sequence: document.parent.map_or(SequenceNumber::default(), |parent| parent.sequence),
                wal: None,
            };
            (start, None, None)
        }
        Some(footer) => {
            let mut state: EngineState = serde_json::from_value(footer.sequence_model.clone()).map_err(|e| {
                Error::new(Code::ObjectUnsupported, "reading the archiver's state in the last segment").because(e)
            })?;
            state.transactions = footer.summary.transactions.clone();
            let manifest = footer.manifest.clone().ok_or_else(|| {
                Error::new(Code::SegmentDamaged, "reading the archiver's state in the last segment")
                    .on(footer.summary.ordinal)
            })?;
            let start = SegmentStart {
                archive: archive.id(),
                timeline,
                ordinal: footer
                    .summary
                    .ordinal
                    .next()
                    .ok_or_else(|| Error::new(Code::Internal, "numbering the next segment"))?,
                epoch: claim.epoch(),
                first: footer.summary.end,
                hash_before: footer.summary.hash_after,
                last_sequence: footer.summary.last_sequence,
                wal: None,
            };
            let same_boot = footer.boot_id.is_some() && footer.boot_id == boot_id();
            let last_record = state.last_record;
            (start, Some(resume::Head { state, manifest, same_boot }), last_record)
        }
    };
    // Barriers that joining finds are read, not acknowledged: the acknowledged end is the last segment's.
    let (wal, offset) = last_record.unzip();
    let position = Position {
        timeline,
        boundary: start.first,
        hash: start.hash_before,
        wal,
        offset,
        sequence: start.last_sequence,
    };
    let stream =
        Stream::new(start, last_record, archive.keyring().clone(), parts.random.clone(), parts.clock.clone(), level);
    let mut engine = Engine::open(resume::Opening {
        layout: source.layout.clone(),
        lineage: source.lineage.clone(),
        registry: source.registry.clone(),
        clock: parts.clock.clone(),
        owner: parts.owner.clone(),
        timeline,
        stream,
        head,
    })?;
    engine.set_policy(config.policy());
    Ok(Joined { engine, roll_up, position })
}
