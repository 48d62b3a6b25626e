//! Values as they are written: times, sizes and numbers, each read as on the command line and refused beyond its limits.

use std::{net::SocketAddr, num::NonZeroU64, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer, de};

use crate::args::values;

/// A value that is written as text, as on the command line.
macro_rules! written {
    ($(#[$doc:meta])* $name:ident($inner:ty), $parse:path, $print:expr, $pattern:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&$print(self.0))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

written!(
    /// A time above zero.
    Period(Duration), values::positive_duration, written_duration, "^[0-9]+ *(ms|s|m|min|h|d)$", "5s"
);
written!(
    /// A time, also none.
    Pause(Duration), values::duration, written_duration, "^[0-9]+ *(ms|s|m|min|h|d)$", "1m"
);
written!(
    /// So many bytes.
    Size(u64), values::size, written_size, "^[0-9.]+ *([kKMGT]i?)?B?$", "1GiB"
);
written!(
    /// So many bytes of a segment.
    SegmentSize(u64), values::segment_size, written_size, "^[0-9.]+ *([kKMGT]i?)?B?$", "8MiB"
);

written!(
    /// Where to listen.
    Listen(SocketAddr), values::listen, |address: SocketAddr| address.to_string(), "^(([^:]*|\\[.*\\]):)?[0-9]+$", "9598"
);

written!(
    /// So many bytes a second.
    Speed(NonZeroU64), values::speed, written_speed, "^[0-9.]+ *([kKMGT]i?)?B?$", "10MiB"
);

/// As [`values::speed`] reads it.
fn written_speed(bytes: NonZeroU64) -> String {
    written_size(bytes.get())
}

/// As [`values::duration`] reads it.
fn written_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    format!("{millis}ms")
}

/// As [`values::size`] reads it.
fn written_size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A zstd level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Level(pub i32);

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i32::deserialize(deserializer)? {
            level @ 1..=19 => Ok(Self(level)),
            _ => Err(de::Error::custom("from 1 to 19")),
        }
    }
}

impl JsonSchema for Level {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Level".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 19 })
    }
}

/// A whole number within limits.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($inner:ty), $low:literal, $high:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match <$inner>::deserialize(deserializer)? {
                    value @ $low..=$high => Ok(Self(value)),
                    _ => Err(de::Error::custom(concat!("from ", $low, " to ", $high))),
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": $low, "maximum": $high })
            }
        }
    };
}

bounded!(
    /// Added to the nice value.
    Nice(i32), 0, 19
);
bounded!(
    /// So many threads.
    Threads(usize), 1, 64
);
