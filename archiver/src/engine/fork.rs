//! Noticing that the files no longer are what is archived: the history forked.
//!
//! Owns: the evidence, and standing still: from the moment a fork is noticed nothing more is read into this timeline, and
//! what is known of a session that has begun is kept, so that a process that comes after a crash notices the same.
//! Refuses: to say where the fork lies ([`crate::fork`]) and to open a timeline ([`crate::archiver`]).

use pitr_archive::{
    Error, Result,
    ids::{FileNumber, SequenceNumber},
    rocks::log_reader::Finality,
    segment::entry::BarrierReason,
};

use super::{Engine, Place};
use crate::{
    lineage::Lineage,
    wal_tail::{Step, WalTail},
};

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
    ///
    /// What of the old one was not read by then is given up: its MANIFEST can no longer be followed. A barrier says so.
    pub(crate) fn directory_replaced(&mut self) -> Result<()> {
        if self.forked.is_some() {
            return Ok(());
        }
        if let Some(unread) = self.unread()? {
            let detail = format!("{unread} of the directory that was replaced had not been read");
            self.barrier(BarrierReason::RecordsMissing, self.stream.boundary(), detail)?;
        }
        self.fork(Evidence::Lineage, "another directory is in the database's place".to_owned());
        Ok(())
    }

    /// What of the WALs that are known is not in the stream yet, for people.
    fn unread(&mut self) -> Result<Option<String>> {
        let present = self.present_wal();
        let has_more = |tail: &mut WalTail| Ok::<_, Error>(matches!(tail.next(Finality::Growing)?, Step::Record(_)));
        let mut unread = Vec::new();
        if let Place::In(tail) = &mut self.place {
            tail.look_again();
            if has_more(tail)? {
                unread.push(present);
            }
        }
        for (wal, _) in self.registry.wals_from(present).into_iter().filter(|(wal, _)| *wal > present) {
            if let Some(mut tail) = WalTail::open(&self.registry, wal)?
                && has_more(&mut tail)?
            {
                unread.push(wal);
            }
        }
        let names: Vec<_> = unread.iter().map(|wal| format!("WAL {wal}")).collect();
        Ok((!names.is_empty()).then(|| names.join(", ")))
    }

    /// The directory's files were put back to an earlier state, or another database's were put there.
    pub(super) fn put_back(&mut self, detail: String) -> Result<()> {
        if self.lineage_holds()? {
            self.fork_at_put_back(detail)?;
        }
        Ok(())
    }

    /// The directory's files were put back to an earlier state. Whether more was written before that than had been read,
    /// nobody can know any more: a barrier says so where this timeline ends.
    pub(super) fn fork_at_put_back(&mut self, detail: String) -> Result<()> {
        if self.forked.is_none() {
            let lost = format!("{detail}: what was written behind this record before that, if anything was, is lost");
            self.barrier(BarrierReason::RecordsMissing, self.stream.boundary(), lost)?;
        }
        self.fork(Evidence::PutBack, detail);
        Ok(())
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
