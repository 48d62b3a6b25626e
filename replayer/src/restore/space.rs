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
pub(crate) struct Needs(BTreeMap<u64, (PathBuf, Need)>);

/// Of restores one after the other. What is held by an interrupted one is given back when its turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Need {
    /// When all are done.
    all: i128,
    /// At most, on the way.
    most: i128,
}

impl Need {
    fn of_one(bytes: i128) -> Self {
        Self { all: bytes, most: bytes.max(0) }
    }

    fn then(self, next: Self) -> Self {
        Self { all: self.all + next.all, most: self.most.max(self.all + next.most) }
    }
}

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
        let need = &mut self.0.entry(device).or_insert_with(|| (place.to_owned(), Need::default())).1;
        *need = Need::of_one(need.all + i128::from(bytes));
    }

    /// Without what is held on these file systems already, and is kept or removed.
    pub fn but_for(mut self, held: &[(u64, u64)]) -> Self {
        for (device, bytes) in held {
            if let Some((_, need)) = self.0.get_mut(device) {
                *need = Need::of_one(need.all - i128::from(*bytes));
            }
        }
        self
    }

    /// With what others need beside it, which are restored behind it.
    pub fn and(mut self, others: Self) -> Self {
        for (device, (place, need)) in others.0 {
            let (_, all) = self.0.entry(device).or_insert_with(|| (place, Need::default()));
            *all = all.then(need);
        }
        self
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// `restore.no-space`.
    pub fn refuse_too_large(&self) -> Result<()> {
        for (place, Need { most: needed, .. }) in self.0.values() {
            let free = staging::free_bytes(place)?;
            if *needed > i128::from(free) {
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
    fn what_an_interrupted_restore_holds_is_not_needed_again_and_is_there_for_those_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = std::fs::metadata(dir.path()).unwrap().dev();
        let one = |bytes, held: u64| {
            let mut needs = Needs::default();
            needs.add_in(dir.path(), bytes).unwrap();
            needs.add(0, Path::new("/elsewhere"), 10);
            needs.but_for(&[(here, held)])
        };
        let most = |needs: &Needs| (needs.0[&here].1.most, needs.0[&0].1.most);
        assert_eq!(most(&one(10, 7)), (3, 10));
        assert_eq!(most(&one(10, 11)), (0, 10));
        assert_eq!(most(&one(10, 100).and(one(95, 0))), (5, 20), "the first gives 90 back");
        assert_eq!(most(&one(95, 0).and(one(10, 100))), (95, 20), "too late");
        assert_eq!(most(&one(10, 100).and(one(40, 0)).and(one(60, 0))), (10, 30));
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
        assert_eq!(both.0[&here].1.most, 7);
        let mut endless = Needs::default();
        endless.add_in(dir.path(), u64::MAX).unwrap();
        assert_eq!(both.and(endless).refuse_too_large().unwrap_err().code(), Code::DestinationTooSmall);
    }
}
