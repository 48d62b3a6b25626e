//! One archiver into an archive on this machine.
//!
//! Owns: knowing so before the archive is claimed. In the archive itself two archivers meet at a segment that both want, or, where
//! one of them archives a copy, find the other's claim within some minutes, and one of them ends: that is what is relied on
//! between machines, but which of them it is, is left to chance. A command with another state directory, or with a restored
//! copy, could end a service, and the newest history would be the copy's. The kernel knows better ([`machine_lock`]).
//! Refuses: to take over. Who is told to (`--take-over`) goes without until the other one has ended.

use std::{path::Path, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::archive::Archive,
    error::io,
    ids::ArchiveId,
    machine_lock::{self, MachineLock},
};
use pitr_archiver::{Archiver, Standby, config::Rival};

/// Between two attempts of who has taken over.
const AGAIN: Duration = Duration::from_secs(2);

/// No other archiver of this machine archives into this archive as long as this lives.
#[derive(Debug)]
pub struct Alone {
    held: Held,
}

#[derive(Debug)]
enum Held {
    Now(#[allow(dead_code)] MachineLock),
    /// Once the other one has ended.
    Later(tokio::task::JoinHandle<()>),
}

impl Alone {
    /// Begins to archive, unless another process of this machine does. `standby` has locked its state directory: what that says
    /// goes before.
    ///
    /// # Errors
    /// As [`Alone::claim`], and what joining the archive meets; the database goes on being followed by what is given back.
    pub async fn join(
        standby: Standby,
        archive: Archive,
    ) -> std::result::Result<(Self, Archiver), (Box<Standby>, Error)> {
        let config = standby.config();
        match Self::claim(&config.db, archive.id(), config.rival) {
            Ok(alone) => Ok((alone, standby.join(archive).await?)),
            Err(e) => Err((Box::new(standby), e)),
        }
    }

    /// Claims the machine for an archive.
    ///
    /// # Errors
    /// `writer.fenced` with the process that has it.
    pub fn claim(db: &Path, archive: ArchiveId, rival: Rival) -> Result<Self> {
        let failed = |e| io("claiming this machine for", db, e);
        let name = name(archive).map_err(failed)?;
        if let Some(lock) = name.take().map_err(failed)? {
            return Ok(Self { held: Held::Now(lock) });
        }
        if rival == Rival::TakeOver {
            return Ok(Self { held: Held::Later(tokio::spawn(keep_asking(name))) });
        }
        let mut e = Error::new(Code::Fenced, "archiving").on(db.display());
        if let Some(process) = name.holder() {
            e = e.with("archived already by process", process);
        }
        Err(e.hint(
            "another pitr on this machine archives into this archive, and one archive has one archiver. If that is of the same \
             database, give the --state that it has, so that it is asked, or end it first (pitr run --take-over ends it); a copy \
             gets an archive of its own",
        ))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Held::Later(asking) = &self.held {
            asking.abort();
        }
    }
}

async fn keep_asking(name: machine_lock::Name) {
    loop {
        if let Ok(Some(_lock)) = name.take() {
            // Until it is told to end with its archiver.
            return std::future::pending().await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Not by the database: a copy of it is another one, and would make a timeline that everybody takes for the newest.
fn name(archive: ArchiveId) -> std::io::Result<machine_lock::Name> {
    machine_lock::Name::new(&format!("archives-into-{archive}"), Path::new(""))
}

#[cfg(test)]
mod tests {
    use pitr_archive::random::{OsRandom, Random as _};

    use super::*;

    /// Names are the machine's, and other tests may run on it.
    fn random_id() -> ArchiveId {
        let mut id = [0; 16];
        OsRandom.fill(&mut id).unwrap();
        ArchiveId(id)
    }

    #[tokio::test]
    async fn the_second_is_refused_by_name_and_one_that_takes_over_waits_for_the_first_s_end() {
        let dir = tempfile::tempdir().unwrap();
        let id = random_id();
        let first = Alone::claim(dir.path(), id, Rival::Leave).unwrap();
        let e = Alone::claim(dir.path(), id, Rival::Leave).unwrap_err();
        assert_eq!(e.code(), Code::Fenced);
        assert!(e.to_string().contains(&std::process::id().to_string()), "{e}");
        let other = tempfile::tempdir().unwrap();
        assert_eq!(Alone::claim(other.path(), id, Rival::Leave).unwrap_err().code(), Code::Fenced);
        Alone::claim(dir.path(), random_id(), Rival::Leave).unwrap();

        let second = Alone::claim(dir.path(), id, Rival::TakeOver).unwrap();
        drop(first);
        let name = name(id).unwrap();
        for _ in 0..100 {
            if name.holder().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(Alone::claim(dir.path(), id, Rival::Leave).unwrap_err().code(), Code::Fenced);
        drop(second);
        // A process that another test is just starting holds it, too, until it has become that process.
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if Alone::claim(dir.path(), id, Rival::Leave).is_ok() {
                return;
            }
        }
        panic!("nobody has it any more, and it cannot be had");
    }
}
