//! How a database is archived.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Level, Pause, Period, SegmentSize, Size};

/// What is done when pins hold more than their budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Keep everything and give an alarm, as long as min_free is free
    Hold,
    /// Give up what only pins hold: a barrier, and a new base afterwards
    Barrier,
}

/// How to archive. What is not named has the default that `pitr run --help` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Ship a segment when its oldest record is this old: what a power cut of this machine can cost at most
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Period>,
    /// Ship a segment earlier when it holds this many bytes: 4KiB to 256MiB
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<SegmentSize>,
    /// How often to look at the end of the log
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Period>,
    /// While nothing is written, say so in the archive this often
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Period>,
    /// Write a manifest (index and proof of the segments) this often
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_interval: Option<Period>,
    /// zstd level of segments, 1 (fast) to 19 (small)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<Level>,
    /// The least time between two bases that follow barriers; the first comes at once, and while they keep coming it doubles
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier_base_spacing: Option<Pause>,
    /// How far that time grows
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier_base_spacing_max: Option<Pause>,
    /// Files that enter the database without the log are kept in the archive up to this many bytes for one ingestion, and
    /// four times as many that wait for their upload
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_limit: Option<Size>,
    /// Ship the files that flushes write, too: a restore lays them down and replays only the log behind the last one;
    /// default: false
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ship_flushes: Option<bool>,
    /// What the server has deleted and the archive does not have yet may take so much of the disk; default: as much as min_free
    /// allows
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_budget: Option<Size>,
    /// What follows beyond pin_budget: hold (default) or barrier
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
    /// So much of the server's file system stays free: before it is filled, what only pins hold is given up whatever when_full
    /// says; default: 1GiB, or a twentieth of a small one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<Size>,
}

impl Tuning {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            interval: self.interval.or(other.interval),
            segment_size: self.segment_size.or(other.segment_size),
            poll: self.poll.or(other.poll),
            heartbeat: self.heartbeat.or(other.heartbeat),
            manifest_interval: self.manifest_interval.or(other.manifest_interval),
            compression_level: self.compression_level.or(other.compression_level),
            barrier_base_spacing: self.barrier_base_spacing.or(other.barrier_base_spacing),
            barrier_base_spacing_max: self.barrier_base_spacing_max.or(other.barrier_base_spacing_max),
            capture_limit: self.capture_limit.or(other.capture_limit),
            ship_flushes: self.ship_flushes.or(other.ship_flushes),
            pin_budget: self.pin_budget.or(other.pin_budget),
            when_full: self.when_full.or(other.when_full),
            min_free: self.min_free.or(other.min_free),
        }
    }
}
