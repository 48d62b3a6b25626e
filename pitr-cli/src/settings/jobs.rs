//! What a configuration means: one archiver's settings for every database, and where it archives.
//!
//! Owns: what values mean together. Refuses: names that cannot be told apart, two databases that would share a directory, a
//! state directory or an archive, before anything is opened.

use std::{collections::BTreeMap, path::Path};

use pitr_archive::{Code, Error, Result, store::url};
use pitr_archiver::{ArchiverConfig, state::StateDir};

use super::{
    file::{Database, File, Tuning},
    secret::SecretRef,
};

/// A database to archive.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name in the configuration.
    pub name: String,
    /// For its archiver.
    pub config: ArchiverConfig,
    /// Where it is archived.
    pub url: String,
    /// Where the archive's key is.
    pub key: Option<SecretRef>,
}

/// The databases of a configuration, by name.
///
/// # Errors
/// `config.contradictory`, `store.url`.
pub fn of(file: &File) -> Result<Vec<Job>> {
    if file.databases.is_empty() {
        return Err(refused("the configuration")
            .with("databases", "none")
            .hint("a database is written [databases.NAME]"));
    }
    let jobs: Vec<_> =
        file.databases.iter().map(|(name, database)| job(name, database, &file.tuning)).collect::<Result<_>>()?;
    let mut taken: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for job in &jobs {
        let own = [
            ("db", real(&job.config.db)),
            ("state", real(&job.config.state)),
            ("archive.url", url::redacted(&job.url)),
        ];
        for (what, value) in own {
            if let Some(other) = taken.insert((what, value.clone()), &job.name) {
                return Err(refused(&format!("databases.{}", job.name))
                    .with(what, value)
                    .with("is that of", format_args!("databases.{other}")));
            }
        }
    }
    Ok(jobs)
}

fn refused(what: &str) -> Error {
    Error::new(Code::ConfigContradictory, "reading").on(what)
}

/// The directory itself, also where it is named through a link, as far as it exists.
fn real(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn job(name: &str, database: &Database, tuning: &Tuning) -> Result<Job> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // Two underscores separate keys in variables of the environment.
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.contains("__") {
        return Err(refused(&format!("databases.{name:?}"))
            .with("a name has", "1 to 64 letters, digits, - and _, never two _ behind each other"));
    }
    let at = |what: &str| format!("databases.{name}.{what}");
    let paths = database.db_paths.iter().map(|path| ("db_paths", path));
    let paths = paths.chain([("db", &database.db)]).chain(database.state.iter().map(|path| ("state", path)));
    for (what, path) in paths.chain(database.wal_pins.iter().map(|path| ("wal_pins", path))) {
        if !path.is_absolute() {
            return Err(refused(&at(what)).with("must be absolute", path.display()));
        }
    }
    url::parse(&database.archive.url)?;
    let mut config = ArchiverConfig::new(&database.db);
    let beside = || {
        std::fs::canonicalize(&database.db)
            .map_or_else(|_| StateDir::default_for(&database.db), |db| StateDir::default_for(&db))
    };
    config.state = database.state.clone().unwrap_or_else(beside);
    config.db_paths.clone_from(&database.db_paths);
    config.wal_pins.clone_from(&database.wal_pins);
    config.include.clone_from(&database.include);
    config.unlogged_tolerate.clone_from(&database.unlogged_tolerate);
    tune(&mut config, &database.tuning.or(tuning));
    if config.barrier_base_spacing_max < config.barrier_base_spacing {
        return Err(refused(&at("tuning")).with("barrier_base_spacing_max", "is below barrier_base_spacing"));
    }
    Ok(Job { name: name.to_owned(), config, url: database.archive.url.clone(), key: database.archive.key.clone() })
}

fn tune(config: &mut ArchiverConfig, tuning: &Tuning) {
    let Tuning {
        interval,
        segment_size,
        poll,
        heartbeat,
        manifest_interval,
        compression_level,
        barrier_base_spacing,
        barrier_base_spacing_max,
        capture_limit,
    } = *tuning;
    config.interval = interval.map_or(config.interval, |v| v.0);
    config.segment_bytes = segment_size.map_or(config.segment_bytes, |v| v.0);
    config.poll = poll.map_or(config.poll, |v| v.0);
    config.heartbeat = heartbeat.map_or(config.heartbeat, |v| v.0);
    config.manifest_interval = manifest_interval.map_or(config.manifest_interval, |v| v.0);
    config.compression_level = compression_level.map_or(config.compression_level, |v| v.0);
    config.barrier_base_spacing = barrier_base_spacing.map_or(config.barrier_base_spacing, |v| v.0);
    config.barrier_base_spacing_max = barrier_base_spacing_max.map_or(config.barrier_base_spacing_max, |v| v.0);
    config.capture_bytes = capture_limit.map_or(config.capture_bytes, |v| v.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(text: &str) -> Result<Vec<Job>> {
        of(&toml::from_str(text).unwrap())
    }

    const ONE: &str = "[databases.one]\ndb = \"/db/one\"\narchive.url = \"file:/a/one\"\n";

    #[test]
    fn a_database_has_the_file_s_tuning_its_own_before_it_and_the_defaults_behind_it() {
        let text = format!("tuning = {{ interval = \"7s\", poll = \"1s\" }}\n{ONE}tuning.interval = \"3s\"\n");
        let found = jobs(&text).unwrap();
        let config = &found[0].config;
        assert_eq!((config.interval.as_secs(), config.poll.as_secs(), config.heartbeat.as_secs()), (3, 1, 300));
        assert_eq!(config.state, Path::new("/db/one.pitr"));
    }

    #[test]
    fn what_cannot_be_kept_apart_is_refused() {
        let two = |rest: &str| format!("{ONE}[databases.two]\n{rest}\n");
        for (text, says) in [
            (String::new(), "none"),
            (two("db = \"/db/one\"\narchive.url = \"file:/a/two\""), "databases.one"),
            (two("db = \"/db/two\"\narchive.url = \"file:/a/one\""), "archive.url"),
            (two("db = \"/db/two\"\nstate = \"/db/one.pitr\"\narchive.url = \"file:/a/two\""), "state"),
            (two("db = \"db/two\"\narchive.url = \"file:/a/two\""), "must be absolute"),
            (ONE.replace("one]", "\"a b\"]"), "letters"),
            (ONE.replace("one]", "a__b]"), "letters"),
            (format!("tuning.barrier_base_spacing = \"1h\"\n{ONE}"), "below"),
        ] {
            let e = jobs(&text).unwrap_err();
            assert!(e.code() == Code::ConfigContradictory && e.to_string().contains(says), "{text}: {e}");
        }
        let e = jobs(&ONE.replace("file:", "ftp:")).unwrap_err();
        assert_eq!(e.code(), Code::StoreUrl);
    }
}
