//! `pitr inspect options`.

use pitr_archive::{
    Code, Error, Result, error,
    rocks::options_file::{ColumnFamilySettings, DbSettings, OptionsFile, Section},
};
use serde::Serialize;

use crate::{
    args::tools::InspectArgs,
    context::Context,
    output::{Verdict, table},
};

#[derive(Serialize)]
struct Inspected {
    /// Everything that the file says.
    sections: Vec<Said>,
    /// What matters for archiving, typed.
    db: DbSettings,
    column_families: Vec<ColumnFamilySettings>,
}

#[derive(Serialize)]
struct Said {
    section: Section,
    settings: serde_json::Map<String, serde_json::Value>,
}

pub fn run(context: &Context, args: &InspectArgs) -> Result<Verdict> {
    let path = &args.file;
    let bytes = std::fs::read(path).map_err(|e| error::io("reading", path, e))?;
    let malformed = |e: pitr_archive::rocks::options_file::OptionsError| {
        Error::new(Code::OptionsMalformed, "reading").on(path.display()).because(e)
    };
    let options = OptionsFile::parse(&String::from_utf8_lossy(&bytes)).map_err(malformed)?;
    let out = &context.output;
    let sections: Vec<Said> = options
        .sections()
        .iter()
        .map(|section| Said {
            section: section.clone(),
            settings: options
                .settings()
                .filter(|(of, _, _)| *of == section)
                .map(|(_, name, value)| (name.to_owned(), value.into()))
                .collect(),
        })
        .collect();
    if out.is_json() {
        let families = options.column_families().map(|name| options.column_family(name).map_err(malformed));
        let families: Result<Vec<_>> = families.collect();
        let column_families = families?.into_iter().flatten().collect();
        out.json(&Inspected { sections, db: options.db().map_err(malformed)?, column_families })?;
        return Ok(Verdict::Done);
    }
    for (index, said) in sections.iter().enumerate() {
        let title = match &said.section {
            Section::Version => "Version".to_owned(),
            Section::Db => "Database".to_owned(),
            Section::ColumnFamily(name) => format!("Column family {name}"),
            Section::Table { factory, column_family } => format!("Table of column family {column_family}: {factory}"),
        };
        let gap = if index > 0 { "\n" } else { "" };
        out.line(format!("{gap}{}", out.heading(&title)))?;
        let pairs: Vec<(&str, String)> = said
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        out.line(table::facts(out, &pairs))?;
    }
    Ok(Verdict::Done)
}
