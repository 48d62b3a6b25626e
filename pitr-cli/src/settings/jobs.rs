//! What a configuration means: one archiver's settings for every archive of every database.
//!
//! Owns: what values mean together. Each archive of a database has an archiver of its own, with its own pins (links cost
//! nothing), its own place in the log and its own history: so one that does not answer delays no other, and what the server
//! deletes stays on the disk until the last one that is required has it.
//! Refuses: names that cannot be told apart, two databases that would share a directory, a state directory or an archive,
//! before anything is opened.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use pitr_archive::{
    Code, Error, Result,
    store::url::{self, Location},
};
use pitr_archiver::{
    ArchiverConfig, Standby, budget,
    engine::Flushes,
    pin::ARCHIVES,
    retention::{Policy, policy::YOUNG},
    state::StateDir,
};

use super::{
    file::{Archive, Database, Drill, File, Hooks, Retention, Schedule, Tuning, WhenFull},
    schedule::Cron,
    secret::SecretRef,
};

/// What an archive that is not required may hold back where nobody says how much.
const OPTIONAL_BUDGET: u64 = 1 << 30;

/// One archive of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The database's name in the configuration, and the archive's behind a `/`, where it has one.
    pub name: String,
    /// For its archiver.
    pub config: ArchiverConfig,
    /// Where it is archived.
    pub url: String,
    /// Where the archive's key is.
    pub key: Option<SecretRef>,
    /// What is due by the clock; pruning only with a retention.
    pub schedule: Schedule,
    /// What is kept; nothing is deleted without.
    pub retention: Option<Policy>,
    /// What scheduled drills restore, and how that is checked.
    pub drill: Drill,
    /// Who is told.
    pub hooks: Hooks,
}

/// The archives of a configuration's databases, by name.
///
/// # Errors
/// `config.contradictory`, `store.url`.
pub fn of(file: &File) -> Result<Vec<Job>> {
    if file.databases.is_empty() {
        return Err(refused("the configuration")
            .with("databases", "none")
            .hint("a database is written [databases.NAME]"));
    }
    refuse_empty_groups(file)?;
    let mut jobs = Vec::new();
    let mut taken: BTreeMap<(&str, String), String> = BTreeMap::new();
    for (name, database) in &file.databases {
        let own = of_database(name, database, file)?;
        let shared = [("db", real(&database.db))].into_iter();
        let single = own
            .iter()
            .flat_map(|job| [("state", real(&job.config.state)), ("archive.url", place_of(&job.url))].into_iter());
        for (what, value) in shared.chain(single) {
            if let Some(other) = taken.insert((what, value.clone()), name.clone()) {
                return Err(refused(&format!("databases.{name}"))
                    .with(what, value)
                    .with("is that of", format_args!("databases.{other}")));
            }
        }
        jobs.extend(own);
    }
    Ok(jobs)
}

/// A section of a group that no database is in was most likely misspelt.
fn refuse_empty_groups(file: &File) -> Result<()> {
    let is_empty = |group: &&String| file.databases.values().all(|database| database.group.as_ref() != Some(group));
    match file.groups.keys().find(is_empty) {
        Some(group) => Err(refused(&format!("groups.{group}")).with("databases with this group", "none")),
        None => Ok(()),
    }
}

fn refused(what: &str) -> Error {
    Error::new(Code::ConfigContradictory, "reading").on(what)
}

/// The directory itself, also where it is named through a link, as far as it exists.
fn real(path: &Path) -> String {
    let existing = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    let whole = existing.and_then(|(above, real)| Some(real.join(path.strip_prefix(above).ok()?)));
    // A path without its last part joined with nothing would end in a slash.
    plain(&whole.unwrap_or_else(|| path.to_owned())).display().to_string()
}

/// The place that a URL names, whatever its spelling: two archivers of one archive would end one another.
pub fn place_of(archive: &str) -> String {
    match url::parse(archive) {
        Ok(Location::Directory(path)) => format!("file:{}", real(&plain(&path))),
        Ok(cloud) => cloud.to_string(),
        Err(_) => url::redacted(archive),
    }
}

/// Without `.`, `..` and doubled slashes.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// An archive inside the database's directory goes with it, and one in the state directory is deleted with what may be.
/// `wal_dir` is where the database has its WALs, as far as that is known.
///
/// # Errors
/// `config.contradictory`.
pub fn refuse_inside(config: &ArchiverConfig, wal_dir: Option<&Path>, archive: &str) -> Result<()> {
    let Ok(Location::Directory(path)) = url::parse(archive) else { return Ok(()) };
    let path = PathBuf::from(real(&plain(&path)));
    let own = [("the database's directory", config.db.as_path()), ("the state directory", &config.state)];
    let data = config.db_paths.iter().map(|path| ("a directory of the database", path.as_path()));
    for (what, directory) in own.into_iter().chain(data).chain(wal_dir.map(|path| ("the directory of its WALs", path)))
    {
        if path.starts_with(real(&plain(directory))) {
            return Err(Error::new(Code::ConfigContradictory, "placing the archive")
                .on(path.display())
                .with("it lies in", what)
                .with("namely", directory.display())
                .hint(
                    "an archive must outlive the database: put it on another disk, at least into another directory",
                ));
        }
    }
    Ok(())
}

fn refuse_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // Two underscores separate keys in variables of the environment.
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.contains("__") {
        return Err(refused(&format!("{what}.{name:?}"))
            .with("a name has", "1 to 64 letters, digits, - and _, never two _ behind each other"));
    }
    Ok(())
}

/// One for every archive of a database.
fn of_database(name: &str, database: &Database, file: &File) -> Result<Vec<Job>> {
    refuse_name("databases", name)?;
    if let Some(group) = &database.group {
        refuse_name(&format!("databases.{name}.group"), group)?;
    }
    let at = |what: &str| format!("databases.{name}.{what}");
    let paths = database.db_paths.iter().map(|path| ("db_paths", path));
    let paths = paths.chain([("db", &database.db)]).chain(database.state.iter().map(|path| ("state", path)));
    for (what, path) in paths.chain(database.wal_pins.iter().map(|path| ("wal_pins", path))) {
        if !path.is_absolute() {
            return Err(refused(&at(what)).with("must be absolute", path.display()));
        }
    }
    let further = database.archives.iter().map(|(archive, given)| (Some(archive.as_str()), given));
    let all: Vec<_> = database.archive.iter().map(|given| (None, given)).chain(further).collect();
    if all.is_empty() {
        return Err(refused(&at("archive")).with("archives", "none"));
    }
    all.into_iter().map(|(archive, given)| job(name, database, (archive, given), file)).collect()
}

fn job(name: &str, database: &Database, (archive, given): (Option<&str>, &Archive), file: &File) -> Result<Job> {
    let mut whole = name.to_owned();
    if let Some(archive) = archive {
        refuse_name(&format!("databases.{name}.archives"), archive)?;
        whole = format!("{name}/{archive}");
    }
    url::parse(&given.url)?;
    let path = given.url.strip_prefix("file:").unwrap_or(&given.url);
    if path.starts_with('.') || (path.len() < given.url.len() && !path.starts_with('/')) {
        return Err(refused(&format!("databases.{name}.archive.url")).with("must be absolute", path));
    }
    let mut config = ArchiverConfig::new(&database.db);
    let beside = || {
        std::fs::canonicalize(&database.db)
            .map_or_else(|_| StateDir::default_for(&database.db), |db| StateDir::default_for(&db))
    };
    config.state = database.state.clone().unwrap_or_else(beside);
    if let Some(archive) = archive {
        config.state = state_of(&config.state, archive);
        config.archive_name = Some(archive.to_owned());
    }
    config.db_paths.clone_from(&database.db_paths);
    config.wal_pins.clone_from(&database.wal_pins);
    config.include.clone_from(&database.include);
    config.unlogged_tolerate.clone_from(&database.unlogged_tolerate);
    tune(&mut config, &given.tuning.or(&database.tuning.or(&file.tuning)));
    config.merge = database.merge.or(&file.merge).policy(name)?;
    refuse_inside(&config, None, &given.url)?;
    Standby::check(&config)?;
    if config.barrier_base_spacing_max < config.barrier_base_spacing {
        let at = format!("databases.{name}.tuning");
        return Err(refused(&at).with("barrier_base_spacing_max", "is below barrier_base_spacing"));
    }
    let retention = database.retention.as_ref().or(file.retention.as_ref()).map(Retention::policy);
    if retention.is_some_and(|policy| policy.grace < YOUNG) {
        return Err(refused(&format!("databases.{name}.retention")).with("grace", "is below 10m"));
    }
    let mut schedule = database.schedule.or(&file.schedule);
    let kept_somewhere = file.databases.values().any(|database| database.retention.is_some());
    if retention.is_none() && (database.schedule.prune.is_some() || schedule.prune.is_some() && !kept_somewhere) {
        return Err(refused(&format!("databases.{name}.schedule.prune"))
            .with("[retention]", "none")
            .hint("what is kept must be said, for all databases or for this one: [retention] window = \"30d\""));
    }
    if retention.is_none() {
        schedule.prune = None;
    } else if schedule.prune.is_none() {
        schedule.prune = Cron::parse("@daily").ok();
    }
    let drill = database.drill.or(&file.drill);
    if let Some(scratch) = drill.scratch.as_ref().filter(|scratch| !scratch.is_absolute()) {
        return Err(refused(&format!("databases.{name}.drill.scratch")).with("must be absolute", scratch.display()));
    }
    if given.required == Some(false) {
        config.budget.when_full = budget::WhenFull::Barrier;
        config.budget.bytes.get_or_insert(OPTIONAL_BUDGET);
    }
    Ok(Job {
        name: whole,
        config,
        url: given.url.clone(),
        key: given.key.clone(),
        schedule,
        retention,
        drill,
        hooks: database.hooks.or(&file.hooks),
    })
}

/// Where the archiver of one of several archives has its state, below that of the database.
pub fn state_of(state: &Path, archive: &str) -> PathBuf {
    state.join(ARCHIVES).join(archive)
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
        ship_flushes,
        pin_budget,
        when_full,
        min_free,
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
    config.flushes = match ship_flushes {
        None | Some(false) => Flushes::Leave,
        Some(true) => Flushes::Ship,
    };
    config.budget.bytes = pin_budget.map(|v| v.0);
    config.budget.when_full = match when_full {
        None | Some(WhenFull::Hold) => budget::WhenFull::Hold,
        Some(WhenFull::Barrier) => budget::WhenFull::Barrier,
    };
    config.budget.floor = min_free.map_or(budget::Floor::Usual, |v| budget::Floor::Bytes(v.0));
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
    fn what_a_retention_does_not_keep_is_deleted_once_a_day_and_nothing_without_one() {
        assert_eq!(jobs(ONE).unwrap()[0].schedule.prune, None);
        let only = format!("schedule.prune = \"@hourly\"\n{ONE}");
        assert!(jobs(&only).is_err(), "there is nothing that says what to keep");
        let other = "[databases.two]\ndb = \"/db/two\"\narchive.url = \"file:/a/two\"\nretention.window = \"9d\"\n";
        let found = jobs(&format!("{only}{other}")).unwrap();
        assert!(found[0].schedule.prune.is_none() && found[1].schedule.prune.is_some());
        let kept = format!("{ONE}retention.window = \"3d\"\n");
        let found = jobs(&kept).unwrap();
        assert_eq!(found[0].schedule.prune, Cron::parse("@daily").ok());
        assert_eq!(found[0].retention.unwrap().window.as_secs(), 3 * 86_400);
    }

    #[test]
    fn each_archive_of_a_database_has_a_place_of_its_own_and_one_that_is_not_required_gives_up_first() {
        let text = format!(
            "{ONE}tuning.interval = \"3s\"\n[databases.one.archives.far]\nurl = \"file:/a/far\"\nrequired = false\n\
             tuning.interval = \"9s\"\n"
        );
        let found = jobs(&text).unwrap();
        let shown: Vec<_> = found.iter().map(|job| (job.name.as_str(), job.config.interval.as_secs())).collect();
        assert_eq!(shown, [("one", 3), ("one/far", 9)]);
        assert_eq!(found[1].config.state, Path::new("/db/one.pitr/archives/far"));
        assert_eq!(found[0].config.budget, budget::Budget::default());
        let far = found[1].config.budget;
        assert_eq!((far.bytes, far.when_full), (Some(OPTIONAL_BUDGET), budget::WhenFull::Barrier));
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
            ("[databases.one]\ndb = \"/db/one\"".to_owned(), "none"),
            (format!("{ONE}[databases.one.archives.far]\nurl = \"file:/a/one\""), "archive.url"),
            (format!("{ONE}[databases.one.archives.\"a/b\"]\nurl = \"file:/a/two\""), "letters"),
            (format!("{ONE}group = \"a b\""), "letters"),
            (format!("{ONE}group = \"shop\"\n[groups.shops]"), "groups.shops"),
            (format!("{ONE}merge.grace = \"1m\""), "merge"),
            (format!("drill.scratch = \"tmp\"\n{ONE}"), "drill.scratch"),
            (format!("tuning.barrier_base_spacing = \"1h\"\n{ONE}"), "below"),
            (format!("tuning.interval = \"9999999d\"\n{ONE}"), "interval"),
        ] {
            let e = jobs(&text).unwrap_err();
            assert!(e.code() == Code::ConfigContradictory && e.to_string().contains(says), "{text}: {e}");
        }
        let e = jobs(&ONE.replace("file:", "ftp:")).unwrap_err();
        assert_eq!(e.code(), Code::StoreUrl);
    }
}
