//! What kind of run a seed is.
//!
//! Owns: the choice which disturbances a run has at all. Most runs have few, so that the consequences of one are not
//! hidden behind those of another, and some have none: those are refused nothing.

use rand::{Rng, rngs::StdRng};

use crate::server::{FlushEdits, LogBuffer, Settings, TableIds};

/// Something that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Archivers die at effects.
    Deaths,
    /// Requests fail, their replies are lost, the store is away.
    StoreFaults,
    /// A second archiver comes.
    Rival,
    /// An archiver stalls while another one prunes.
    Stall,
    /// The server is closed and opened again.
    Reopens,
    /// The server is killed.
    Kills,
    /// The machine loses power.
    PowerLoss,
    /// Writes with `disableWAL`.
    Unlogged,
    /// Single deletions: a flush can leave nothing of a record, and then no file shows its number.
    SingleDeletes,
    /// Files are ingested.
    Ingestion,
    /// Column families come and go.
    Families,
    /// The archiver looks too rarely to see every log.
    Inattentive,
    /// What a policy does not keep is pruned.
    Retention,
    /// Segments are merged.
    Merging,
    /// Files of flushes are shipped.
    ShippedFlushes,
}

impl Feature {
    /// Each with how many runs in a hundred have it.
    const ALL: &[(Self, u32)] = &[
        (Self::Deaths, 45),
        (Self::StoreFaults, 40),
        (Self::Rival, 25),
        (Self::Stall, 12),
        (Self::Reopens, 30),
        (Self::Kills, 30),
        (Self::PowerLoss, 15),
        (Self::Unlogged, 15),
        (Self::SingleDeletes, 25),
        (Self::Ingestion, 12),
        (Self::Families, 35),
        (Self::Inattentive, 25),
        (Self::Retention, 25),
    ];
}

/// Whether the archive is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    On,
    Off,
}

/// A run's kind.
#[derive(Clone, Debug)]
pub struct Profile {
    pub features: Vec<Feature>,
    pub settings: Settings,
    pub encryption: Encryption,
    pub segment_bytes: u64,
    pub steps: u32,
}

impl Profile {
    pub fn draw(rng: &mut StdRng) -> Self {
        let quiet = rng.random_ratio(1, 4);
        let drawn =
            Feature::ALL.iter().filter(|(_, chance)| rng.random_ratio(if quiet { chance / 6 } else { *chance }, 100));
        let features = drawn.map(|(feature, _)| *feature).collect();
        let mut choose = |one_in: u32| rng.random_ratio(1, one_in);
        let settings = Settings {
            log_buffer: if choose(6) { LogBuffer::Held } else { LogBuffer::WrittenAtOnce },
            table_ids: if choose(3) { TableIds::Absent } else { TableIds::InManifest },
            flush_edits: if choose(4) { FlushEdits::Atomic } else { FlushEdits::Separate },
        };
        let encryption = if choose(5) { Encryption::On } else { Encryption::Off };
        let segment_bytes = if choose(4) { rng.random_range(1..600) } else { 8 << 20 };
        Self { features, settings, encryption, segment_bytes, steps: rng.random_range(20..90) }
    }

    /// Adds what was drawn elsewhere.
    pub fn with(mut self, feature: Feature, drawn: bool) -> Self {
        self.features.extend(drawn.then_some(feature));
        self
    }

    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}
