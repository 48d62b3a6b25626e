//! `pitr config`: the configuration of `pitr run --config`, before anything runs.
//!
//! Owns: what is looked at without opening an archive, and printing it without secrets.

use pitr_archive::{Result, store::url};
use schemars::schema_for;
use serde::Serialize;

use crate::{
    args::archiving::{ConfigAction, ConfigArgs, ConfigFileArgs},
    cmd::work,
    context::Context,
    output::{
        Verdict,
        table::{Align, Table},
    },
    settings::{
        file::File,
        jobs,
        sources::{self, Loaded},
    },
};

#[derive(Serialize)]
struct Checked {
    sources: Vec<String>,
    databases: Vec<CheckedDatabase>,
}

#[derive(Serialize)]
struct CheckedDatabase {
    name: String,
    db: String,
    /// The group that it is in.
    group: Option<String>,
    archive: String,
    /// Its id, not the key.
    key: Option<String>,
    state: String,
    interval_ms: u128,
}

#[derive(Serialize)]
struct Shown {
    sources: Vec<String>,
    config: File,
}

/// Does what was asked.
pub fn run(context: &Context, args: &ConfigArgs) -> Result<Verdict> {
    match &args.action {
        ConfigAction::Check(args) => check(context, args)?,
        ConfigAction::Show(args) => show(context, args)?,
        ConfigAction::Schema(_) => {
            let schema = serde_json::to_string_pretty(&schema_for!(File)).unwrap_or_default();
            context.output.line(schema)?;
        }
    }
    Ok(Verdict::Done)
}

fn check(context: &Context, args: &ConfigFileArgs) -> Result<()> {
    let Loaded { file, sources } = sources::load(&args.file, sources::environment())?;
    let mut databases = Vec::new();
    for job in jobs::of(&file)? {
        work::refuse_unfit(&job.config, &job.url)?;
        let key = job.key.map(|key| key.key(|name| std::env::var(name).ok())).transpose()?;
        let database = job.name.split('/').next().unwrap_or_default();
        let group = file.databases.get(database).and_then(|database| database.group.clone());
        databases.push(CheckedDatabase {
            name: job.name,
            group,
            db: job.config.db.display().to_string(),
            archive: url::redacted(&job.url),
            key: key.map(|key| key.id().to_owned()),
            state: job.config.state.display().to_string(),
            interval_ms: job.config.interval.as_millis(),
        });
    }
    if context.output.is_json() {
        return context.output.json(&Checked { sources, databases });
    }
    context.output.line(format!("The configuration is right: {}", sources.join(", ")))?;
    // A configuration without groups has no column for them.
    let grouped = databases.iter().any(|d| d.group.is_some());
    let columns = ["name", "database", "archive", "key"].into_iter().chain(grouped.then_some("group"));
    let mut table = Table::new(&context.output, &columns.map(|name| (name, Align::Left)).collect::<Vec<_>>());
    for d in &databases {
        let key = d.key.clone().unwrap_or_else(|| "not encrypted".to_owned());
        let group = grouped.then(|| d.group.clone().unwrap_or_default());
        table.row([d.name.clone(), d.db.clone(), d.archive.clone(), key].into_iter().chain(group));
    }
    context.output.line(table.to_string())?;
    context.output.line("pitr check --db DIR --archive URL tries a store and looks at the server's settings.")
}

fn show(context: &Context, args: &ConfigFileArgs) -> Result<()> {
    let Loaded { mut file, sources } = sources::load(&args.file, sources::environment())?;
    for database in file.databases.values_mut() {
        for archive in database.archive.iter_mut().chain(database.archives.values_mut()) {
            // One that can be read holds no secret: those are refused in it.
            if url::parse(&archive.url).is_err() {
                archive.url = url::redacted(&archive.url);
            }
        }
    }
    if context.output.is_json() {
        return context.output.json(&Shown { sources, config: file });
    }
    for source in &sources {
        context.output.line(format!("# from {source}"))?;
    }
    context.output.line(toml::to_string(&file).unwrap_or_default())
}
