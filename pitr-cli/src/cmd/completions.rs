//! `pitr completions SHELL`: a completion script on standard output.

use clap::CommandFactory;
use clap_complete::{Shell as Target, generate};
use pitr_archive::Result;

use crate::{
    args::{
        Cli,
        tools::{CompletionsArgs, Shell},
    },
    context::Context,
    output::Verdict,
};

/// Prints it.
pub fn run(context: &Context, args: &CompletionsArgs) -> Result<Verdict> {
    let shell = match args.shell {
        Shell::Bash => Target::Bash,
        Shell::Elvish => Target::Elvish,
        Shell::Fish => Target::Fish,
        Shell::Powershell => Target::PowerShell,
        Shell::Zsh => Target::Zsh,
    };
    // Into a buffer first: the generator panics when it cannot write, for example into a closed pipe.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "pitr", &mut script);
    context.output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Verdict::Done)
}
