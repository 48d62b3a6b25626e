//! Noticing that the files no longer are what is archived: the history forked.
//!
//! Owns: the evidence, and standing still: from the moment a fork is noticed nothing more is read into this timeline, and
//! what is known of a session that has begun is kept, so that a process that comes after a crash notices the same.
//! Refuses: to say where the fork lies ([`crate::fork`]) and to open a timeline ([`crate::archiver`]).

use pitr_archive::{
    Result,
    ids::{FileNumber, SequenceNumber},
};

use super::Engine;
use crate::lineage::Lineage;

/// What shows that the history forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The directory holds another database, or one that was restored since.
    Lineage,
    /// The directory was put back to an earlier state: what our pins hold is not the server's.
    PutBack,
    /// Archived records of the WAL `from`, or of one behind it, are not what the files hold.
    Bytes {
        /// The first WAL in doubt.
        from: FileNumber,
        /// What is known of the records before it.
        before: Before,
    },
    /// A session of the server began by taking back every record from this number on; WALs from `from` on are in doubt.
    TakenBack {
        /// The first number that is given out again.
        sequence: SequenceNumber,
        /// RocksDB's first WAL needed before that session.
        from: FileNumber,
    },
    /// Recovery stopped in this WAL, which is torn or damaged: what is archived of later ones was left out.
    StoppedIn(FileNumber),
}

/// Whether the server's history is the archived one up to the first WAL in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Its MANIFEST goes on from what is archived of it: what was flushed is the same.
    Shared,
    /// Nothing shows that.
    Unknown,
}

/// A fork that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// What shows it.
    pub evidence: Evidence,
    /// The same for people.
    pub detail: String,
}

impl Engine {
    /// The archived history ends here: the server's went another way.
    pub(super) fn fork(&mut self, evidence: Evidence, detail: String) {
        if self.forked.is_none() {
            tracing::warn!(at = %self.stream.boundary(), detail, "the files are not what is archived");
            self.forked = Some(Fork { evidence, detail });
        }
    }

    /// The fork that was noticed: nothing more is read into this timeline.
    pub fn forked(&self) -> Option<&Fork> {
        self.forked.as_ref()
    }

    /// Another directory is in the place of the one that was followed.
    pub(crate) fn directory_replaced(&mut self) {
        self.fork(Evidence::Lineage, "another directory is in the database's place".to_owned());
    }

    /// Whether the directory still holds the database that the timeline was opened for; notes the fork if not.
    pub(super) fn lineage_holds(&mut self) -> Result<bool> {
        let now = Lineage::read(&self.layout)?;
        if now == self.lineage {
            return Ok(true);
        }
        let detail = now.difference(&self.lineage);
        self.fork(Evidence::Lineage, detail);
        Ok(false)
    }
}
