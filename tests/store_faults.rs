//! A real object store behind a network that fails: 503, resets, cut and lost replies, requests that are not answered in
//! time, one after the other and mixed, while `pitr run` archives a database under load. And a store that lies.
//!
//! The promise: the archiver goes on, nothing is in the archive twice, nothing is missing, and every target is exact.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use harness::{
    command::{self, pitr, text},
    load::Load,
    lossy_proxy::{Fault, LossyProxy},
    program::Settings,
    scratch,
    services::{self, ObjectStore},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// A database under load and a store behind a proxy.
struct Scene {
    root: tempfile::TempDir,
    load: Load,
    store: ObjectStore,
    proxy: LossyProxy,
}

impl Scene {
    fn new() -> Option<Self> {
        let store = services::s3()?;
        store.create("bucket1");
        let proxy = LossyProxy::start(store.address());
        let root = scratch::directory();
        let settings = Settings { write_buffer: 1 << 20, manifest_bytes: 8 << 10, ..Settings::default() };
        let load = Load::start(&root.path().join("db"), settings, 5, Duration::from_millis(2));
        Some(Self { root, load, store, proxy })
    }

    /// `pitr ARGS` with the store's variables, through the proxy or past it.
    fn pitr<'a>(&self, args: impl IntoIterator<Item = &'a str>, endpoint: &str) -> Command {
        let mut command = pitr(args);
        command.args(["--archive", &format!("s3://bucket1/archive?endpoint={endpoint}&region=us-east-1")]);
        command.envs(self.store.variables());
        command
    }

    /// An archiver that has its first base.
    fn begin(&self) -> Child {
        let db = self.load.dir.clone();
        let mut archiver = self.run();
        self.flushed(&mut archiver);
        command::succeed(&mut pitr(["base", "--db", text(&db)]));
        archiver
    }

    fn run(&self) -> Child {
        let db = self.load.dir.clone();
        let log = std::fs::File::create(self.root.path().join("log")).unwrap();
        let args = ["run", "--db", text(&db), "--interval", "100ms", "--manifest-interval", "1s"];
        self.pitr(args, &self.proxy.endpoint()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }

    /// Waits until everything that is written now is acknowledged.
    fn flushed(&self, archiver: &mut Child) {
        let db = self.load.dir.clone();
        let start = Instant::now();
        while !command::finish(&mut pitr(["tag", "create", &format!("at-{}", self.load.batches()), "--db", text(&db)]))
            .status
            .success()
        {
            assert!(archiver.try_wait().unwrap().is_none(), "the archiver ended:\n{}", self.log());
            assert!(start.elapsed() < command::LIMIT, "the archiver is not reached:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends in order; then everything is there once, and exact.
    fn end(mut self, mut archiver: Child) {
        self.proxy.choose(|_| None);
        self.load.stop();
        command::terminate(&archiver);
        let status = command::wait(&mut archiver).expect("the archiver ends");
        assert!(status.success(), "{status}\n{}", self.log());
        let endpoint = self.store.endpoint();
        command::succeed(&mut self.pitr(["verify"], &endpoint));
        let batches = self.load.batches();
        // One batch is one record: with one of them twice, or missing, the last would have another number.
        for target in [batches - batches / 4, batches - 1, batches] {
            let into = self.root.path().join(format!("restored-{target}"));
            let record = (target - 1).to_string();
            command::succeed(&mut self.pitr(["restore", "--to-record", &record, "--into", text(&into)], &endpoint));
            self.load.check_copy(&into, target);
        }
        let into = self.root.path().join("restored-latest");
        command::succeed(&mut self.pitr(["restore", "--to-latest", "--into", text(&into)], &endpoint));
        self.load.check_copy(&into, batches);
        let listed = command::succeed(&mut self.pitr(["list", "barriers", "--json"], &endpoint));
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        println!("{batches} batches; {} faults; barriers {listed}", self.proxy.lost());
    }
}

#[test]
fn an_archiver_goes_on_through_refusals_resets_and_lost_replies_and_stores_everything_once() {
    let Some(scene) = Scene::new() else { return };
    let mut archiver = scene.begin();
    // Each of them alone, for a few requests in a row, on what writes and on what reads back.
    for fault in [Fault::Refuse, Fault::Reset, Fault::LoseReply, Fault::CutReply, Fault::Stall(Duration::from_secs(2))]
    {
        let before = scene.proxy.lost();
        scene.proxy.fail("/archive/", 3, fault);
        scene.flushed(&mut archiver);
        assert!(scene.proxy.lost() > before, "{fault:?} was not met");
    }
    // All of them, at one request in five, from a seed.
    let seed = std::env::var("PITR_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("PITR_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let met: Arc<Mutex<BTreeMap<Fault, u32>>> = Arc::default();
    let noted = met.clone();
    scene.proxy.choose(move |_| {
        if !rng.random_bool(0.2) {
            return None;
        }
        let fault = match rng.random_range(0..4) {
            0 => Fault::Refuse,
            1 => Fault::Reset,
            2 => Fault::LoseReply,
            _ => Fault::CutReply,
        };
        *noted.lock().unwrap().entry(fault).or_default() += 1;
        Some(fault)
    });
    // Which request meets which follows from the seed; how many there are, from the machine.
    let start = std::time::Instant::now();
    let all_met = || met.lock().unwrap().len() == 4;
    let mut rounds = 0;
    while rounds < 6 || (!all_met() && start.elapsed() < command::LIMIT) {
        scene.flushed(&mut archiver);
        std::thread::sleep(Duration::from_millis(500));
        rounds += 1;
    }
    assert!(archiver.try_wait().unwrap().is_none(), "the archiver ended:\n{}", scene.log());
    println!("{:?}", met.lock().unwrap());
    assert!(met.lock().unwrap().len() == 4, "every fault was met");
    scene.end(archiver);
}

#[test]
fn a_request_that_is_never_answered_is_given_up_in_time_and_made_again() {
    let Some(scene) = Scene::new() else { return };
    let mut archiver = scene.begin();
    // Longer than a request may take. Segments go on to be cut meanwhile, and wait.
    let longest = Duration::from_secs(300);
    let before = scene.proxy.lost();
    scene.proxy.fail("PUT /bucket1/archive/segments/", 1, Fault::Stall(longest));
    let start = Instant::now();
    scene.flushed(&mut archiver);
    assert!(start.elapsed() < longest, "the archiver waited for an answer that never came");
    assert_eq!(scene.proxy.lost(), before + 1);
    scene.end(archiver);
}

#[test]
fn a_store_that_lies_about_exclusive_creation_is_found_before_anything_is_written() {
    let Some(scene) = Scene::new() else { return };
    scene.proxy.choose(|line| line.starts_with("PUT ").then_some(Fault::Overwrite));
    let db = scene.load.dir.clone();
    let refused = command::finish(&mut scene.pitr(["run", "--once", "--db", text(&db)], &scene.proxy.endpoint()));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("store.not-exclusive"), "{said}");
    let checked = command::finish(&mut scene.pitr(["check", "--db", text(&db)], &scene.proxy.endpoint()));
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(!checked.status.success() && said.contains("store.create-twice"), "{said}");
    // The same store without the liar is fine, and empty.
    scene.proxy.choose(|_| None);
    let status = command::finish(&mut scene.pitr(["status"], &scene.proxy.endpoint()));
    assert!(String::from_utf8_lossy(&status.stderr).contains("archive.not-found"), "something was written");
}
