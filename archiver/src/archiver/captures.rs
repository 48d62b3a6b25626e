//! Files that entered without the log, and those of flushes, on their way into the archive.
//!
//! Owns: the order. The files are pinned since the MANIFEST named them; they are uploaded, then the stream says that they
//! are there, then the segment that says it is acknowledged, then the pins go. One-shot commands do it in one go, the
//! daemon beside the log: records never wait for a large file.

use pitr_archive::{
    Code, Error, Result, catalog::schema::BaseFile, code::Retry, ids::ColumnFamilyId, segment::entry::ManifestPoint,
};

use super::Archiver;
use crate::{
    base::{collect::CollectedFile, upload},
    engine::capture::{Kind, NextCapture},
};

/// What people are told of an upload that did not succeed yet.
pub(crate) const AGAIN: &str =
    "table files (of flushes, or that entered without the log) could not be uploaded; it is tried again";

/// An upload that has not begun: apart from the archiver, so that a task can perform it.
pub(crate) struct Capture {
    archive: std::sync::Arc<pitr_archive::catalog::archive::Archive>,
    claim: pitr_archive::catalog::archive::EpochClaim,
    random: std::sync::Arc<dyn pitr_archive::random::Random>,
    known: upload::KnownFiles,
    run: upload::RunName,
    reading: upload::Reading,
    /// [`Archiver::branches`] then: what a MANIFEST of another history named is not this one's.
    branches: u64,
    manifest: ManifestPoint,
    column_family: ColumnFamilyId,
    kind: Kind,
    files: Vec<CollectedFile>,
}

/// What became of it.
pub(crate) struct Captured {
    branches: u64,
    manifest: ManifestPoint,
    column_family: ColumnFamilyId,
    kind: Kind,
    files: Result<Vec<BaseFile>>,
}

impl Capture {
    /// Performs it.
    pub(crate) async fn upload(self) -> Captured {
        let Self { archive, claim, random, known, run, reading, branches, manifest, column_family, kind, files } = self;
        let files = upload::upload(&archive, &claim, &*random, &files, &known, run, &reading).await;
        Captured { branches, manifest, column_family, kind, files }
    }
}

impl Archiver {
    /// The next upload, if files wait for one.
    pub(crate) fn next_capture(&self) -> Option<Capture> {
        let NextCapture { manifest, column_family, kind, files } = self.engine.next_capture()?;
        Some(Capture {
            archive: self.archive.clone(),
            claim: self.claim.clone(),
            random: self.parts.random.clone(),
            known: self.known_files.clone(),
            run: (self.timeline, self.engine.run()),
            // They are new: hardly one of them was ever sent before.
            reading: upload::Reading { lookup: upload::Lookup::Each, ..self.reading() },
            branches: self.branches,
            manifest,
            column_family,
            kind,
            files,
        })
    }

    /// Notes what became of an upload.
    ///
    /// # Errors
    /// What passes by itself, to be tried again. What does not leaves the barrier as it is: archiving goes on.
    pub(crate) fn captured(&mut self, captured: Captured) -> Result<()> {
        let Captured { branches, manifest, column_family, kind, files } = captured;
        if branches != self.branches {
            return Ok(());
        }
        match files {
            Ok(files) => self.engine.captured(manifest, column_family, files),
            Err(e) if e.code().retry() == Retry::Later => Err(e),
            Err(e) => {
                given_up(kind, &e);
                self.engine.not_captured(manifest, column_family);
                Ok(())
            }
        }
    }

    /// Uploads everything that waits, as far as the store lets it now: records are not held up by it.
    pub(super) async fn capture(&mut self) -> Result<()> {
        while let Some(next) = self.next_capture() {
            let captured = next.upload().await;
            if let Err(e) = self.captured(captured) {
                if e.code() == Code::Fenced {
                    return Err(e);
                }
                tracing::warn!(error = %e, "{AGAIN}");
                return Ok(());
            }
        }
        Ok(())
    }
}

fn given_up(kind: Kind, e: &Error) {
    match kind {
        Kind::Ingested => {
            tracing::warn!(error = %e, "files that entered without the log could not be captured: replay will not cross them");
        }
        Kind::Flushed => {
            tracing::warn!(error = %e, "the files of a flush could not be shipped: a restore replays the log instead");
        }
    }
}
