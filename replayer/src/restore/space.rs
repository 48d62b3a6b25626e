//! Whether there is room.
//!
//! Owns: what a restore takes of each file system, alone or with others, and comparing it with what is free.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, catalog::schema::BaseDocument, error::io};

use super::{paths::Layout, staging};
use crate::plan::{RestorePlan, engine::Engine};

/// Bytes, by file system, each with a directory that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs(BTreeMap<u64, (PathBuf, u64)>);

impl Needs {
    /// Of one restore.
    pub fn of(base: &BaseDocument, plan: &RestorePlan, layout: &Layout) -> Result<Self> {
        let mut needs = Self::default();
        let mut files = 0;
        for file in &base.files {
            needs.add_in(layout.directory_of(file)?, file.size)?;
            files += file.size;
        }
        // How much of the log a part needs, only its frames tell.
        if plan.part.is_some() {
            return Ok(needs);
        }
        // Tables are made, and what is sorted for them waits, where the data is.
        let replayed = if plan.engine.name == Engine::Bulk { &layout.db } else { &layout.wal };
        needs.add_in(replayed, plan.disk_bytes.saturating_sub(files))?;
        Ok(needs)
    }

    fn add_in(&mut self, directory: &Path, bytes: u64) -> Result<()> {
        let mut existing = directory;
        while !existing.exists() {
            existing = staging::parent(existing)?;
        }
        let device = std::fs::metadata(existing).map_err(|e| io("looking at", existing, e))?.dev();
        self.add(device, existing, bytes);
        Ok(())
    }

    fn add(&mut self, device: u64, place: &Path, bytes: u64) {
        let need = &mut self.0.entry(device).or_insert_with(|| (place.to_owned(), 0)).1;
        *need = need.saturating_add(bytes);
    }

    /// Without what is held there already, and is kept or removed.
    pub fn but_for(mut self, held: &[(PathBuf, u64)]) -> Result<Self> {
        for (directory, bytes) in held {
            let device = std::fs::metadata(directory).map_err(|e| io("looking at", directory, e))?.dev();
            if let Some((_, need)) = self.0.get_mut(&device) {
                *need = need.saturating_sub(*bytes);
            }
        }
        Ok(self)
    }

    /// With what others need beside it.
    pub fn and(mut self, others: Self) -> Self {
        for (device, (place, bytes)) in others.0 {
            self.add(device, &place, bytes);
        }
        self
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// `restore.no-space`.
    pub fn refuse_too_large(&self) -> Result<()> {
        for (place, needed) in self.0.values() {
            let free = staging::free_bytes(place)?;
            if *needed > free {
                return Err(Error::new(Code::DestinationTooSmall, "checking the free space of")
                    .on(place.display())
                    .with("needed bytes", needed)
                    .with("free bytes", free));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_restore_holds_is_not_needed_again() {
        let dir = tempfile::tempdir().unwrap();
        let here = std::fs::metadata(dir.path()).unwrap().dev();
        let mut needs = Needs::default();
        needs.add_in(dir.path(), 10).unwrap();
        needs.add(0, Path::new("/elsewhere"), 10);
        let held = |bytes| [(dir.path().to_owned(), bytes)];
        let left = needs.but_for(&held(7)).unwrap();
        assert_eq!((left.0[&here].1, left.0[&0].1), (3, 10));
        assert_eq!(left.but_for(&held(4)).unwrap().0[&here].1, 0);
    }

    #[test]
    fn what_several_need_of_one_file_system_is_taken_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Needs::default();
        one.add_in(&dir.path().join("a/b"), 3).unwrap();
        let mut other = Needs::default();
        other.add_in(dir.path(), 4).unwrap();
        other.add(0, Path::new("/elsewhere"), u64::MAX);
        let both = one.and(other);
        let here = std::fs::metadata(dir.path()).unwrap().dev();
        assert_eq!(both.0[&here].1, 7);
        assert_eq!(both.clone().and(both.clone()).0[&0].1, u64::MAX);
        let e = Needs(BTreeMap::from([(here, (dir.path().to_owned(), u64::MAX))])).refuse_too_large().unwrap_err();
        assert_eq!(e.code(), Code::DestinationTooSmall);
    }
}
