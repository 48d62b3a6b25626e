//! `pitr inspect`: one file, decoded.
//!
//! Owns: reading the file piece by piece and printing what the archive crate's describers say of it, as text that people
//! who know `ldb` can read, or as one JSON object per line. A damaged file is printed as far as it can be read; the last
//! line says where and why it ends, and the exit code is 1.

mod manifest;
mod options;
mod segment;
mod wal;
mod window;

use std::path::Path;

use pitr_archive::{
    Result,
    ids::FileNumber,
    rocks::{
        describe::{Ending, Shown},
        file_name::{self, FileKind},
    },
};

use crate::{
    args::tools::{InspectArgs, InspectKind},
    context::Context,
    output::{Lines, Output, Verdict, text},
};

/// How much of a value is shown unless all of it is asked for.
const VALUE_WIDTH: usize = 60;

/// Prints the file.
pub async fn run(context: &Context, args: &InspectArgs) -> Result<Verdict> {
    match args.kind {
        InspectKind::Wal => wal::run(context, args),
        InspectKind::Manifest => manifest::run(context, args),
        InspectKind::Options => options::run(context, args),
        InspectKind::Segment => segment::run(context, args).await,
    }
}

/// What the name of a file says it is.
fn kind_of(path: &Path) -> Option<FileKind> {
    path.file_name().and_then(|name| name.to_str()).and_then(file_name::parse)
}

/// Where lines go: text or JSON, through one buffer, up to a limit.
struct Sheet<'a> {
    out: &'a Output,
    lines: Lines,
    left: u64,
    full: bool,
}

impl<'a> Sheet<'a> {
    fn new(context: &'a Context, args: &InspectArgs) -> Self {
        let left = args.limit.unwrap_or(u64::MAX);
        Self { out: &context.output, lines: Lines::new(), left, full: args.full }
    }

    /// Takes one record from the limit; `false` when it is used up.
    fn admit(&mut self) -> bool {
        let open = self.left > 0;
        self.left = self.left.saturating_sub(1);
        open
    }

    fn value(&self, shown: &Shown) -> String {
        let whole = shown.to_string();
        if self.full { whole } else { text::shortened(&whole, VALUE_WIDTH) }
    }

    /// The line that says how a log ends.
    fn ending(&mut self, ending: &Ending) -> Result<Verdict> {
        let line = match ending {
            Ending::End { offset, void_bytes: 0, why } => format!("{offset:>10}  end: {why}"),
            Ending::End { offset, void_bytes, why } => {
                format!("{offset:>10}  end: {why}; {} behind it are no record", text::count(*void_bytes, "byte"))
            }
            Ending::Incomplete { offset, why } => format!("{offset:>10}  incomplete: {why}"),
            Ending::Corrupt { offset, reason } => self.out.bad(&format!("{offset:>10}  DAMAGED: {reason}")),
        };
        self.lines.text(&line)?;
        Ok(verdict(ending))
    }
}

fn verdict(ending: &Ending) -> Verdict {
    if ending.is_damage() { Verdict::Damage } else { Verdict::Done }
}

/// The number in the file's name, or 0 where the name is none of RocksDB's.
fn number_of(path: &Path) -> FileNumber {
    match kind_of(path) {
        Some(FileKind::Wal(number) | FileKind::Manifest(number) | FileKind::Options(number)) => number,
        _ => FileNumber::default(),
    }
}
