//! Cron expressions.
//!
//! Owns: their form (five fields, six with seconds first, nicknames) and that times are UTC: local times that a zone's
//! summer time skips or repeats would make a schedule skip or repeat itself.
//! Refuses: to wait for them.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer, de};

/// A schedule.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl Cron {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nickname = croner::Cron::from_str(text).ok().filter(|_| text.trim_start().starts_with('@'));
        let parsed = match nickname {
            Some(parsed) => parsed,
            None => CronParser::builder().seconds(Seconds::Optional).build().parse(text).map_err(|e| e.to_string())?,
        };
        let cron = Self { text: text.to_owned(), parsed };
        match cron.after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err("there is no such time".to_owned()),
        }
    }

    /// The next time behind `now`; `None` if there is none any more.
    pub fn after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.parsed.find_next_occurrence(&now, false).ok()
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|e| de::Error::custom(format_args!("{text:?} is no cron expression: {e}")))
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for Cron {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cron".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["30 3 * * *", "@weekly"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_times_in_utc_and_what_never_comes_is_refused() {
        let now = DateTime::parse_from_rfc3339("2026-11-20T22:15:30Z").unwrap().to_utc();
        for (text, next) in [
            ("30 3 * * *", "2026-11-21T03:30:00Z"),
            ("*/15 * * * *", "2026-11-20T22:30:00Z"),
            ("*/20 * * * * *", "2026-11-20T22:15:40Z"),
            ("0 4 * * SUN", "2026-11-22T04:00:00Z"),
            ("@daily", "2026-11-21T00:00:00Z"),
        ] {
            let found = Cron::parse(text).unwrap().after(now).unwrap();
            assert_eq!(found.to_rfc3339_opts(chrono::SecondsFormat::Secs, true), next, "{text}");
        }
        for text in ["", "daily", "61 * * * *", "0 0 30 2 *", "* * * *", "* * * * * * * *"] {
            assert!(Cron::parse(text).is_err(), "{text}");
        }
    }
}
