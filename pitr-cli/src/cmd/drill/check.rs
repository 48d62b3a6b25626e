//! The operator's own check of a restored database.
//!
//! Owns: what it is told, and that only exit code 0 accepts it.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use pitr_archive::{Code, Error, Result};
use pitr_replayer::drill::{Check, RestoredCopy};

use crate::{
    output::text,
    program::{Ended, Program},
};

/// A program, its arguments, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCheck {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// It is ended when it takes longer.
    pub patience: Duration,
}

impl OperatorCheck {
    /// Refuses a program that is not there, before a database is restored for it.
    ///
    /// # Errors
    /// `usage`.
    pub fn refuse_missing(&self) -> Result<()> {
        let program = Path::new(self.command.first().map(String::as_str).unwrap_or_default());
        let by_path = program.components().count() > 1;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = if by_path {
            program.is_file()
        } else {
            std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        };
        if found {
            return Ok(());
        }
        let e = Error::new(Code::Usage, "looking for the check command").on(program.display());
        Err(e.hint("--check takes a program and its arguments, without a shell"))
    }
}

#[async_trait]
impl Check for OperatorCheck {
    fn name(&self) -> String {
        let program = self.command.first().map(String::as_str).unwrap_or_default();
        let name = Path::new(program).file_name().map_or_else(|| program.into(), |name| name.to_string_lossy());
        name.into_owned()
    }

    async fn look(&self, copy: &RestoredCopy) -> Result<()> {
        let Some((path, arguments)) = self.command.split_first() else { return Ok(()) };
        let record = copy.record.map(|record| record.to_string()).unwrap_or_default();
        let program = Program {
            path,
            arguments,
            environment: vec![
                ("PITR_DRILL_DB", copy.directory.clone().into()),
                ("PITR_DRILL_RECORD", record.into()),
                ("PITR_DRILL_SEQUENCE", copy.sequence.to_string().into()),
                ("PITR_DRILL_TIME", copy.time.map(text::time).unwrap_or_default().into()),
            ],
            input: Vec::new(),
        };
        let refused = |found: String| {
            Error::new(Code::DrillRefused, "checking the restored database with").on(path).with("found", found)
        };
        match program.run(self.patience).await {
            Ok(Ended::Itself(status)) if status.success() => Ok(()),
            Ok(Ended::Itself(status)) => Err(refused(status.to_string())),
            Ok(Ended::Late) => Err(refused(format!("no end within {}: ended", text::duration(self.patience)))),
            Err(e) => Err(refused("it cannot be run".to_owned()).because(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::{RecordNumber, SequenceNumber};

    use super::*;

    fn shell(script: &str, patience: Duration) -> OperatorCheck {
        OperatorCheck { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), patience }
    }

    #[tokio::test]
    async fn it_is_told_what_was_restored_and_only_success_accepts() {
        let copy = RestoredCopy {
            directory: "/scratch/db".into(),
            record: Some(RecordNumber::new(41)),
            sequence: SequenceNumber::new(42),
            time: Some(pitr_archive::clock::Micros(0)),
        };
        let patience = Duration::from_secs(60);
        let told = "test \"$PITR_DRILL_DB $PITR_DRILL_RECORD $PITR_DRILL_SEQUENCE $PITR_DRILL_TIME\" \
                    = '/scratch/db 41 42 1970-01-01T00:00:00Z'";
        shell(told, patience).look(&copy).await.unwrap();
        assert_eq!(shell(told, patience).name(), "sh");
        let e = shell("exit 3", patience).look(&copy).await.unwrap_err();
        assert!(e.code() == Code::DrillRefused && e.to_string().contains('3'), "{e}");
        let e = shell("sleep 60 & sleep 60", Duration::from_millis(50)).look(&copy).await.unwrap_err();
        assert!(e.code() == Code::DrillRefused && e.to_string().contains("50 ms"), "{e}");
        let missing = OperatorCheck { command: vec!["/no/such/program".to_owned()], patience };
        assert_eq!(missing.look(&copy).await.unwrap_err().code(), Code::DrillRefused);
    }
}
