//! `pitr errors`: the table of error codes.

use pitr_archive::{
    Code, Error, Result,
    code::{Retry, Severity},
};
use serde::Serialize;

use crate::{
    args::tools::ErrorsArgs,
    context::Context,
    output::{Verdict, table, text},
};

#[derive(Serialize)]
struct Listed {
    errors: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    code: Code,
    exit: u8,
    severity: Severity,
    retry: Retry,
    meaning: &'static str,
    hint: &'static str,
}

/// Lists them.
pub fn run(context: &Context, args: &ErrorsArgs) -> Result<Verdict> {
    let wanted = args.code.as_deref().unwrap_or_default();
    let errors: Vec<_> = Code::ALL
        .iter()
        .filter(|code| code.name().starts_with(wanted))
        .map(|&code| Row {
            code,
            exit: code.exit().status(),
            severity: code.severity(),
            retry: code.retry(),
            meaning: code.meaning(),
            hint: code.hint(),
        })
        .collect();
    if errors.is_empty() {
        return Err(Error::new(Code::Usage, "looking up the error code")
            .on(wanted)
            .hint("pitr errors lists all of them"));
    }
    let out = &context.output;
    if out.is_json() {
        out.json(&Listed { errors })?;
        return Ok(Verdict::Done);
    }
    for row in errors {
        out.line(out.heading(row.code.name()))?;
        let severity = text::name(row.severity);
        let facts = [
            ("  meaning", row.meaning.to_owned()),
            ("  to do", row.hint.to_owned()),
            ("  exit code", format!("{} ({severity})", row.exit)),
        ];
        out.line(table::facts(out, &facts))?;
    }
    Ok(Verdict::Done)
}
