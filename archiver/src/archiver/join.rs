//! The end of the archive, as the state from which an engine goes on.

use std::sync::Arc;

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim},
        schema::Position,
    },
    ids::TimelineId,
    segment::{envelope::Level, writer::SegmentStart},
};

use crate::{
    config::{ArchiverConfig, Parts},
    engine::{Engine, EngineState, resume},
    layout::Layout,
    registry::Registry,
    roll_up::RollUp,
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
    timeline: TimelineId,
    config: &ArchiverConfig,
    parts: &Parts,
    layout: Layout,
    registry: Arc<Registry>,
) -> Result<Joined> {
    let tail = archive.tail(timeline).await?;
    let roll_up = RollUp::new(tail.next_manifest, tail.previous_manifest, tail.segments);
    let level = Level::new(config.compression_level);
    let (start, head, last_record) = match tail.head {
        None => {
            let start = SegmentStart {
                archive: archive.id(),
                timeline,
                ordinal: pitr_archive::ids::Ordinal::new(0),
                epoch: claim.epoch(),
                first: pitr_archive::ids::Boundary::START,
                hash_before: pitr_archive::ids::RunningHash::ZERO,
                last_sequence: pitr_archive::ids::SequenceNumber::new(0),
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
        layout,
        registry,
        clock: parts.clock.clone(),
        owner: parts.owner.clone(),
        timeline,
        stream,
        head,
    })?;
    engine.set_policy(config.policy());
    Ok(Joined { engine, roll_up, position })
}
