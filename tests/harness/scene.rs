//! A database under load with an archiver beside it, in whatever place a test gives them.
//!
//! Owns: that the database is not harmed, and what must be true in the end. The test that uses it holds the process of the
//! database, a test of this name: [`PROCESS`].

use std::{path::Path, time::Duration};

use rand::{SeedableRng, rngs::StdRng};

use super::{
    command,
    history::{Histories, Writer},
    program::Settings,
    scratch,
    site::{Running, Site},
};

/// Not a test of its own: the process that has the database.
pub const PROCESS: &str = "database_process";

/// A database under load with an archiver beside it.
pub struct Scene {
    // Ends before the directories go.
    pub archiver: Running,
    pub writer: Writer,
    pub histories: Histories,
    pub site: Site,
    pub _root: tempfile::TempDir,
}

impl Scene {
    pub fn begin(db: Option<&Path>, archive: Option<&Path>, settings: Settings) -> Self {
        Self::with_options(db, archive, settings, &[])
    }

    /// As [`Scene::begin`], with further options of `pitr run`.
    pub fn with_options(db: Option<&Path>, archive: Option<&Path>, settings: Settings, options: &[&str]) -> Self {
        let root = scratch::directory();
        let db = db.unwrap_or(root.path()).join("db");
        let archive = archive.unwrap_or(root.path()).join("archive");
        let mut histories = Histories::new(&db, settings, Duration::from_micros(400));
        let mut site = Site::new(root.path(), &db, &archive);
        site.options.extend(options.iter().map(|option| (*option).to_owned()));
        let (mut writer, _) = histories.open(PROCESS);
        let mut archiver = site.start();
        writer.go();
        site.progress(&mut archiver);
        Self { archiver, writer, histories, site, _root: root }
    }

    /// The database goes on as if nothing had happened.
    pub fn database_is_well(&mut self) {
        assert!(self.writer.is_running() && !self.writer.failed(), "the database is harmed");
        let before = self.writer.written();
        wait("the database goes on", || self.writer.written() > before);
    }

    /// The database's process is killed and comes back.
    pub fn database_starts_again(&mut self) {
        self.writer.kill();
        let (mut writer, _) = self.histories.open(PROCESS);
        writer.go();
        self.writer = writer;
    }

    /// The archiver goes on by itself, ends in order, and the archive is what was promised.
    pub fn end(mut self, barriers: Barriers) {
        self.site.progress(&mut self.archiver);
        self.writer.kill();
        let status = self.archiver.stop();
        assert!(status.success(), "{status}\n{}", self.site.log());
        let (mut writer, found) = self.histories.open(PROCESS);
        self.site.catch_up();
        self.site.check(&self.histories, found, 4, &mut StdRng::seed_from_u64(7));
        writer.kill();
        if barriers == Barriers::None {
            let extents = self.site.extents();
            assert!(extents.iter().all(|(.., whole)| *whole), "nothing was lost, and there is a barrier");
            assert_eq!(extents.len(), 1, "nothing forked");
        }
        assert!(!self.site.log().contains("panicked"), "{}", self.site.log());
        println!("{found} batches; {:?}", self.site.counts);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Barriers {
    None,
    Allowed,
}

/// Logs and MANIFESTs that come and go.
pub fn settings() -> Settings {
    Settings { write_buffer: 192 << 10, manifest_bytes: 8 << 10, ..Settings::default() }
}

/// Waits until it is so.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < command::LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
