//! One run: a random story of server, disk, archivers, network and store, and its end.
//!
//! Owns: what happens next, and what a run knows about itself: which disturbances it really had, which errors of an
//! archiver they excuse, and the story as a hash, so that a seed can be shown to repeat itself.

use std::{collections::BTreeSet, fmt, sync::Arc};

use pitr_archive::{
    Code, Error,
    clock::{Clock as _, ManualClock, Micros},
    ids::FileNumber,
    keyring::MasterKey,
    random::SeededRandom,
    rocks::file_name,
    store::{
        Put,
        faulty::{FaultyStore, Schedule},
        memory::MemoryStore,
    },
};
use pitr_archiver::{
    control::{TagRequest, Unflushed},
    engine::Flushes,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    archivers::{Host, Outcome, Place},
    coverage::Coverage,
    disk::{Disk, Done},
    judge, merging,
    network::{Arrival, Network},
    oracle::{Mark, Oracle, State},
    process,
    profile::{Encryption, Feature, Profile},
    recovery::{self, Mode},
    retention, scratch,
    server::{self, LogBuffer, Logging, Opened, Server, Write},
    stall,
};

/// Keys are few, so that they meet.
const KEYS: u32 = 8;
/// 2026-11-20.
const START: i64 = 1_795_132_800_000_000;

/// Whether a run tells what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Aloud,
    Silent,
}

/// What a run came to.
pub struct Finished {
    pub coverage: Coverage,
    /// A hash of everything that happened.
    pub story: [u8; 32],
}

/// A tag that was answered.
#[derive(Clone, Debug)]
pub struct Tagged {
    pub name: String,
    /// What the files showed when it was asked for.
    pub mark: Mark,
    /// What the server would have recovered from them.
    pub state: State,
}

/// A run.
pub struct Run<'r> {
    pub place: Place<'r>,
    pub profile: Profile,
    pub rng: StdRng,
    /// For the wall clock only: the other choices stay what they are.
    pub clock_rng: StdRng,
    /// For merging only.
    pub merge_rng: StdRng,
    pub disk: Disk,
    pub server: Server,
    pub oracle: Oracle,
    pub hosts: [Host; 2],
    pub faulty: FaultyStore,
    pub memory: MemoryStore,
    pub coverage: Coverage,
    /// What happened that can cost a target.
    pub disturbed: BTreeSet<&'static str>,
    /// Numbers may have been used that no file shows: that costs no target, but nothing tells them.
    pub hidden_numbers: bool,
    pub tags: Vec<Tagged>,
    pub root: TempDir,
    attempted_tags: Vec<String>,
    sessions: u64,
    values: u64,
    /// The server's open is still on its way to the files.
    opening: bool,
    /// An archiver has looked at the database.
    archived: bool,
    /// An archiver has seen the files that are there.
    looked: bool,
    telling: Telling,
    story: blake3::Hasher,
}

/// Runs a seed.
pub fn run(seed: u64, runtime: &Runtime, telling: Telling) -> Finished {
    let mut run = Run::new(seed, runtime, telling);
    process::die_after(None);
    for step in 0..run.profile.steps {
        run.step(step);
    }
    run.finish();
    judge::judge(&mut run);
    Finished { coverage: run.coverage, story: *run.story.finalize().as_bytes() }
}

impl<'r> Run<'r> {
    fn new(seed: u64, runtime: &'r Runtime, telling: Telling) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut merge_rng = StdRng::seed_from_u64(seed ^ 0x3E16_E000);
        let merging = merge_rng.random_ratio(35, 100);
        let shipping = StdRng::seed_from_u64(seed ^ 0xF105_4000).random_ratio(60, 100);
        let profile = Profile::draw(&mut rng).with(Feature::Merging, merging).with(Feature::ShippedFlushes, shipping);
        let max_size = *[64 << 20, 20_000, 6000].choose(&mut merge_rng).expect("sizes");
        let root = scratch::directory();
        let db = root.path().join("db");
        let mut disk = Disk::new(&db);
        server::create(&db);
        let mut oracle = Oracle::new(server::empty_state());
        let (server, _) = Server::open(&mut disk, &mut oracle, profile.settings, 0);
        let memory = MemoryStore::new();
        let faulty = FaultyStore::new(Arc::new(memory.clone()), Schedule::default());
        let place = Place {
            runtime,
            db,
            network: Network::new(Arc::new(faulty.clone()), memory.clone()),
            clock: ManualClock::new(Micros(START)),
            random: Arc::new(SeededRandom::new(seed)),
            key: (profile.encryption == Encryption::On).then(|| MasterKey::new([7; 32])),
            segment_bytes: profile.segment_bytes,
            merge: merging::policy(merging, max_size),
            flushes: if shipping { Flushes::Ship } else { Flushes::Leave },
        };
        let hosts = ["first", "second"].map(|name| Host::new(root.path(), name));
        let mut run = Self {
            place,
            profile,
            rng,
            clock_rng: StdRng::seed_from_u64(seed ^ 0xC10C_C10C),
            merge_rng,
            disk,
            server,
            oracle,
            hosts,
            faulty,
            memory,
            coverage: Coverage::default(),
            disturbed: BTreeSet::new(),
            hidden_numbers: false,
            tags: Vec::new(),
            root,
            attempted_tags: Vec::new(),
            sessions: 0,
            values: 0,
            opening: true,
            archived: false,
            looked: false,
            telling,
            story: blake3::Hasher::new(),
        };
        run.say(format_args!("{:?}", run.profile.clone()));
        // A database is there before somebody archives it.
        run.drain();
        run
    }

    /// Tells something, and makes it part of the story.
    pub fn say(&mut self, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        if self.telling == Telling::Aloud {
            println!("{text}");
        }
        self.story.update(text.as_bytes());
    }

    /// Whether what the story says is shown.
    pub fn is_aloud(&self) -> bool {
        self.telling == Telling::Aloud
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn step(&mut self, step: u32) {
        let mark = self.oracle.readable();
        self.say(format_args!("{step:3} records {} readable {}.{}", self.oracle.records(), mark.moment, mark.state));
        let advance = if self.one_in(12) { 60_000_000 } else { self.rng.random_range(1..2_000_000) };
        self.place.clock.advance(advance);
        if self.clock_rng.random_ratio(1, 40) {
            self.set_clock();
        }
        if self.profile.has(Feature::Merging) && self.merge_rng.random_ratio(1, 15) {
            merging::merge(self);
        }
        match self.rng.random_range(0..100) {
            0..40 => self.server_step(),
            40..55 => self.progress_a_bit(),
            55..92 => self.archiver_step(),
            _ => self.world_step(),
        }
    }

    /// Somebody, or a time service, sets the wall clock: an hour back, a year ahead, a little of either.
    fn set_clock(&mut self) {
        const HOUR: i64 = 3_600_000_000;
        let by = match self.clock_rng.random_range(0..4) {
            0 => -HOUR,
            1 => 365 * 24 * HOUR,
            _ => self.clock_rng.random_range(-2_000_000..2_000_000),
        };
        self.coverage.note(if by < 0 { "clock: set back" } else { "clock: set ahead" });
        self.place.clock.jump(by);
        let now = self.place.clock.now();
        self.say(format_args!("    the clock is set by {by} us to {now}"));
    }

    // The server and its disk.

    /// The next effect of the server, or a piece of it.
    fn progress(&mut self, limit: usize) -> bool {
        match self.disk.step(limit) {
            Done::Nothing => return false,
            Done::Whole(Some(mark)) => self.oracle.reach(mark),
            Done::Whole(None) => {}
            Done::Part => self.coverage.note("disk: torn append seen"),
            Done::Deleted { links } => {
                // What was gone before anybody archived is no loss; else every host that may go on needs its pin.
                let several = self.profile.has(Feature::Rival) || self.profile.has(Feature::Stall);
                if self.archived && links < 1 + u64::from(several) {
                    self.disturb("server: log deleted unseen");
                }
            }
        }
        self.opening &= !self.disk.is_idle();
        true
    }

    fn disturb(&mut self, what: &'static str) {
        self.say(format_args!("    {what}"));
        self.coverage.note(what);
        self.disturbed.insert(what);
    }

    fn progress_a_bit(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            let limit = self.rng.random_range(1..200);
            self.progress(limit);
        }
    }

    /// The server finishes what it is doing.
    pub fn drain(&mut self) {
        while self.progress(usize::MAX) {}
    }

    fn server_step(&mut self) {
        if !self.profile.has(Feature::Inattentive) {
            self.poll(0);
            self.poll(1);
        }
        self.server_operation();
        // Most are done before anybody looks again.
        match self.rng.random_range(0..4) {
            0 => {}
            1 => self.progress_a_bit(),
            _ => self.drain(),
        }
    }

    fn server_operation(&mut self) {
        let has = |feature| self.profile.has(feature);
        let weights = [
            (40, "server: write"),
            (if has(Feature::SingleDeletes) { 8 } else { 0 }, "server: single delete"),
            (10, "server: flush"),
            (5, "server: compaction"),
            (3, "server: MANIFEST rollover"),
            (if self.profile.settings.log_buffer == LogBuffer::Held { 15 } else { 0 }, "server: flush WAL"),
            (if has(Feature::Unlogged) { 8 } else { 0 }, "server: disableWAL"),
            (if has(Feature::Ingestion) { 6 } else { 0 }, "server: ingestion"),
            (if has(Feature::Families) { 6 } else { 0 }, "server: create column family"),
            (if has(Feature::Families) { 3 } else { 0 }, "server: drop column family"),
            (if has(Feature::Reopens) { 8 } else { 0 }, "server: reopen"),
            (if has(Feature::Kills) { 8 } else { 0 }, "server: killed"),
            (if has(Feature::PowerLoss) { 5 } else { 0 }, "server: power loss"),
        ];
        let (_, what) = *weights.choose_weighted(&mut self.rng, |(weight, _)| *weight).expect("weights");
        self.say(format_args!("    {what}"));
        if self.operate(what) {
            self.coverage.note(what);
        }
        if self.disturbed.contains("server: unlogged") {
            self.oracle.change(self.server.durable_state());
        }
        // Everything but a write makes and deletes files.
        self.looked &= matches!(what, "server: write" | "server: disableWAL" | "server: flush WAL");
    }

    fn operate(&mut self, what: &str) -> bool {
        let families = self.server.families();
        let (family, _) = families.choose(&mut self.rng).cloned().expect("the default family");
        match what {
            "server: write" | "server: disableWAL" => {
                let writes: Vec<Write> = (0..self.rng.random_range(1..4)).map(|_| self.any_write()).collect();
                let logging = if what == "server: write" { Logging::Logged } else { Logging::Unlogged };
                if logging == Logging::Unlogged {
                    self.disturb("server: unlogged");
                }
                self.server.write(&writes, logging, &mut self.disk, &mut self.oracle);
            }
            "server: single delete" => {
                let key = self.any_key();
                if !self.server.put_once_in_memory(family, &key) {
                    let put = Write::Put { family, key: key.clone(), value: b"once".to_vec() };
                    if !self.server.is_fresh(family, &key) {
                        return false;
                    }
                    self.server.write(&[put], Logging::Logged, &mut self.disk, &mut self.oracle);
                }
                self.disturbed.insert("server: numbers that no file shows");
                self.hidden_numbers = true;
                let delete = Write::SingleDelete { family, key };
                self.server.write(&[delete], Logging::Logged, &mut self.disk, &mut self.oracle);
            }
            "server: flush" => {
                let all: Vec<u32> = families.iter().map(|(id, _)| *id).collect();
                let some = if self.one_in(2) { all } else { vec![family] };
                self.server.flush(&some, &mut self.disk);
            }
            "server: compaction" => {
                let files = self.server.files(family);
                if files.is_empty() {
                    return false;
                }
                let inputs: Vec<u64> = files.iter().map(|(number, _)| *number).collect();
                self.server.compact(family, &inputs, &mut self.disk);
            }
            "server: MANIFEST rollover" => self.server.roll_manifest(&mut self.disk),
            "server: flush WAL" => self.server.flush_log(&mut self.disk),
            "server: ingestion" => {
                self.disturb("server: ingested");
                self.values += 1;
                let key = if self.one_in(2) { self.any_key() } else { format!("i{}", self.values).into_bytes() };
                let value = format!("ingested {}", self.values).into_bytes();
                self.server.ingest(family, &key, &value, &mut self.disk, &mut self.oracle);
            }
            "server: create column family" => {
                let names = ["a", "b", "c"];
                let free = names.into_iter().find(|name| families.iter().all(|(_, taken)| taken != name));
                let Some(name) = free else { return false };
                self.server.create_family(name, &mut self.disk, &mut self.oracle);
            }
            "server: drop column family" => {
                if family == 0 {
                    return false;
                }
                // What it had not flushed, a recovery counts and writes nowhere.
                self.hidden_numbers |= self.server.has_unflushed(family);
                self.server.drop_family(family, &mut self.disk, &mut self.oracle);
            }
            "server: reopen" => self.reopen(),
            "server: killed" => self.kill(),
            "server: power loss" => self.lose_power(),
            other => panic!("no operation {other}"),
        }
        true
    }

    fn any_key(&mut self) -> Vec<u8> {
        format!("k{}", self.rng.random_range(0..KEYS)).into_bytes()
    }

    fn any_write(&mut self) -> Write {
        let (family, _) = self.server.families().choose(&mut self.rng).cloned().expect("the default family");
        let key = self.any_key();
        if self.one_in(4) {
            return Write::Delete { family, key };
        }
        self.values += 1;
        let mut value = format!("v{}", self.values).into_bytes();
        if self.one_in(80) {
            // Longer than a block of the log.
            value.resize(self.rng.random_range(30_000..70_000), b'x');
        }
        Write::Put { family, key, value }
    }

    /// A write that everybody sees.
    pub fn write_something(&mut self) {
        let write = self.any_write();
        self.server.write(&[write], Logging::Logged, &mut self.disk, &mut self.oracle);
        self.server.flush_log(&mut self.disk);
        self.drain();
    }

    /// The server ends in order and is started again.
    fn reopen(&mut self) {
        if self.server.has_unlogged() {
            let all: Vec<u32> = self.server.families().iter().map(|(id, _)| *id).collect();
            self.server.flush(&all, &mut self.disk);
        }
        self.server.flush_log(&mut self.disk);
        while !self.disk.is_idle() {
            let limit = self.rng.random_range(1..300);
            self.progress(limit);
            if self.one_in(4) {
                self.poll(0);
            }
        }
        self.open_server();
    }

    /// The server's process ends between two effects, or inside one.
    fn kill(&mut self) {
        self.progress_a_bit();
        if self.opening {
            self.coverage.note("server: killed while it opens");
        }
        self.disk.kill();
        self.open_server();
    }

    /// The machine stops: what was not synced is gone, and so is every archiver on it.
    fn lose_power(&mut self) {
        self.progress_a_bit();
        self.disk.kill();
        for host in &mut self.hosts {
            host.kill();
        }
        let mut logs: Vec<FileNumber> = std::fs::read_dir(&self.disk.root)
            .expect("the database")
            .filter_map(|entry| match file_name::parse(entry.expect("an entry").file_name().to_str()?) {
                Some(file_name::FileKind::Wal(number)) => Some(number),
                _ => None,
            })
            .collect();
        logs.sort();
        // Closed logs were synced; of the present one, the beginning is left.
        if let Some(log) = logs.last() {
            let file = std::fs::OpenOptions::new().write(true).open(self.disk.root.join(file_name::wal(*log)));
            let file = file.expect("the log");
            let length = file.metadata().expect("the log").len();
            let left = self.rng.random_range(0..=length);
            file.set_len(left).expect("cutting the log");
            let before = self.oracle.readable().moment;
            self.oracle.lose(log.get(), left);
            if self.oracle.readable().moment != before {
                self.coverage.note("server: power loss takes records back");
            }
            self.say(format_args!("    log {log} keeps {left} of {length} bytes"));
        }
        self.disturb("server: power lost");
        self.open_server();
    }

    fn open_server(&mut self) {
        self.sessions += 1;
        if self.archived && !self.looked {
            // Without file events nobody can exclude that other sessions came between.
            self.disturbed.insert("server: opened while nobody looked");
        }
        let expected = self.oracle.state(self.oracle.readable()).families.clone();
        let (server, opened) = Server::open(&mut self.disk, &mut self.oracle, self.profile.settings, self.sessions);
        self.server = server;
        let comparable = !["server: power lost", "server: unlogged"].iter().any(|what| self.disturbed.contains(what))
            && self.profile.settings.log_buffer == LogBuffer::WrittenAtOnce;
        assert!(
            !comparable || self.server.state().families == expected,
            "the server recovered something else than the oracle has"
        );
        self.opening = true;
        if opened == Opened::Lower {
            self.disturb("server: reopen lowers the sequence");
        }
    }

    // The archivers.

    fn archiver_step(&mut self) {
        let which = usize::from(self.profile.has(Feature::Rival) && self.one_in(2));
        if !self.hosts[which].is_open() {
            // Not at once, so that the server goes on alone for a while.
            if !self.one_in(4) {
                if !self.archived {
                    self.doom();
                }
                self.open(which);
            }
            return;
        }
        self.doom();
        match self.rng.random_range(0..100) {
            0..24 => self.poll(which),
            24..52 => drop(self.work(which, "archiver: ship", async |a| a.ship().await)),
            52..60 => self.tag(which),
            60..66 => drop(self.work(which, "archiver: take base", async |a| a.take_base().await)),
            66..80 => drop(self.work(which, "archiver: take wanted base", async |a| a.take_wanted_base().await)),
            80..86 => drop(self.work(which, "archiver: close manifest", async |a| {
                a.close_manifest().await?;
                a.write_indexes().await;
                Ok(())
            })),
            86..90 => drop(self.work(which, "archiver: heartbeat", async |a| a.heartbeat().await)),
            90..95 => drop(self.work(which, "archiver: catch up", async |a| a.catch_up().await)),
            95..97 => {
                let closed = self.hosts[which].close(&self.place);
                self.judge_outcome(which, "archiver: close", closed);
            }
            97..99 => {
                self.hosts[which].kill();
                self.coverage.note("archiver: killed");
            }
            _ if self.profile.has(Feature::Stall) => stall::stall(self),
            _ => {}
        }
    }

    /// Now and then: an archiver dies soon.
    fn doom(&mut self) {
        if self.profile.has(Feature::Deaths) && !process::is_doomed() && self.one_in(6) {
            let effects = self.rng.random_range(1..14);
            self.say(format_args!("    death after {effects} effects"));
            process::die_after(Some(effects));
        }
    }

    /// Starts an archiver.
    pub fn open(&mut self, which: usize) {
        let opened = self.hosts[which].open(&self.place);
        self.archived = true;
        if let Outcome::Died(_) = opened {
            self.hosts[which].bury();
            // What it pinned and saw is not what the next one knows.
            self.disturb("archiver: dies while it opens");
        }
        self.judge_outcome(which, "archiver: open", opened);
        if self.hosts.iter().all(Host::is_open) {
            self.coverage.note("archiver: two at once");
        }
    }

    /// Looks at the files.
    pub fn poll(&mut self, which: usize) {
        if self.hosts[which].is_open() {
            let polled = self.work(which, "archiver: poll", async |a| a.poll());
            self.looked |=
                self.disk.is_idle() && polled.is_some_and(|polled| polled.is_ok_and(|polled| polled.caught_up));
        }
    }

    /// Does something with an archiver; answers what came of it, if something did.
    pub fn work<T>(
        &mut self,
        which: usize,
        what: &'static str,
        deed: impl AsyncFnOnce(&mut pitr_archiver::Archiver) -> pitr_archive::Result<T>,
    ) -> Option<Result<T, Code>> {
        let outcome = self.hosts[which].work(&self.place, deed);
        self.judge_outcome(which, what, outcome)
    }

    fn judge_outcome<T>(&mut self, which: usize, what: &'static str, outcome: Outcome<T>) -> Option<Result<T, Code>> {
        let positions = self.hosts[which].archiver().map(|a| (a.position().boundary, a.acknowledged().boundary));
        match outcome {
            Outcome::Absent => None,
            Outcome::Done(done) => {
                self.coverage.note(what);
                self.say(format_args!("    {what} ({which}): {positions:?}"));
                Some(Ok(done))
            }
            Outcome::Died(at) => {
                self.coverage.note(at);
                self.say(format_args!("    {what} ({which}): dies at {at}"));
                None
            }
            Outcome::Failed(e) => {
                self.say(format_args!("    {what} ({which}): {}", e.code()));
                assert!(self.excuses(&e), "{what} ({which}): {e}");
                if e.code() == Code::Fenced {
                    self.coverage.note("archiver: writer.fenced");
                }
                Some(Err(e.code()))
            }
        }
    }

    /// Whether what the run had explains an archiver's error.
    fn excuses(&self, e: &Error) -> bool {
        let held = self.profile.settings.log_buffer == LogBuffer::Held;
        match e.code() {
            Code::StoreUnavailable => self.profile.has(Feature::StoreFaults) || self.profile.has(Feature::Stall),
            Code::Fenced => self.profile.has(Feature::Rival) || self.profile.has(Feature::Stall),
            Code::BaseNotPublishable => held || !self.disturbed.is_empty(),
            Code::UnflushedWal => held,
            // An earlier attempt whose reply was lost, or that died.
            Code::TagExists => true,
            _ => false,
        }
    }

    fn tag(&mut self, which: usize) {
        let again = self.attempted_tags.last().cloned().filter(|_| self.one_in(5));
        let name = again.unwrap_or_else(|| format!("tag-{}", self.attempted_tags.len()));
        let unflushed = if self.one_in(2) { Unflushed::Observed } else { Unflushed::Refuse };
        let request = TagRequest { name: name.clone(), note: String::new(), unflushed, expires: None, group: None };
        let mark = self.oracle.readable();
        match self.work(which, "archiver: tag", async |a| a.tag(&request).await) {
            Some(Ok(_)) => {
                let state = self.recoverable();
                self.tags.push(Tagged { name: name.clone(), mark, state });
            }
            Some(Err(Code::TagExists)) => {
                assert!(self.attempted_tags.contains(&name), "tag {name} was never asked for before");
            }
            _ => {}
        }
        self.attempted_tags.push(name);
    }

    /// What the server would recover if it were killed now. Only what was written without the log or is still held in its
    /// memory can be missing.
    pub fn recoverable(&self) -> State {
        let found = recovery::recover(&self.disk.root, Mode::PointInTime).expect("what a server left can be opened");
        found.state()
    }

    // The rest of the world.

    fn world_step(&mut self) {
        let under_way = self.place.network.under_way();
        if under_way > 0 && self.one_in(2) {
            let which = self.rng.random_range(0..under_way);
            self.arrive(which);
            return;
        }
        if self.one_in(3) {
            self.check_catalog();
            return;
        }
        if self.profile.has(Feature::Retention) && self.one_in(2) {
            retention::prune(self);
            return;
        }
        if !self.profile.has(Feature::StoreFaults) {
            return;
        }
        if self.one_in(4) {
            self.faulty.set_outage(true);
            self.say(format_args!("    store: outage"));
            self.coverage.note("store: outage");
            return;
        }
        self.faulty.set_outage(false);
        let mut chance = || self.rng.random_range(0..250);
        let (before_effect_per_mille, lost_reply_per_mille) = (chance(), chance());
        let seed = self.rng.random();
        self.faulty.set_schedule(Schedule { seed, before_effect_per_mille, lost_reply_per_mille });
        self.say(format_args!("    store: faults"));
        self.coverage.note("store: faults");
    }

    /// Nothing is under way any more.
    pub fn let_all_arrive(&mut self) {
        while self.place.network.under_way() > 0 {
            self.arrive(0);
        }
    }

    fn arrive(&mut self, which: usize) {
        let fate = if self.one_in(3) { Arrival::Lost } else { Arrival::AtLast };
        let kind = match self.place.runtime.block_on(self.place.network.arrive(which, fate)) {
            None => "network: late creation is lost",
            Some(Put::Created) => "network: late creation arrives",
            Some(Put::Exists) => "network: late creation finds another",
        };
        self.say(format_args!("    {kind}"));
        self.coverage.note(kind);
    }

    /// Whoever reads the archive now finds it in order.
    fn check_catalog(&mut self) {
        if judge::load(self).is_some() {
            self.coverage.note("check: catalog on the way");
        }
    }

    fn finish(&mut self) {
        self.say(format_args!("the end"));
        process::die_after(None);
        self.faulty.set_outage(false);
        self.faulty.set_schedule(Schedule::default());
        self.let_all_arrive();
        self.server.flush_log(&mut self.disk);
        self.drain();
        if self.hosts.iter().all(Host::is_open) {
            self.duel();
        }
        // Whoever is fenced or gone is replaced.
        for _ in 0..8 {
            let running = self.hosts.iter().position(Host::is_open);
            let which = running.unwrap_or(0);
            self.open(which);
            if let Some(Ok(position)) = self.work(which, "archiver: catch up", async |a| a.catch_up().await) {
                assert_eq!(self.hosts[which].archiver().map(|a| a.position().boundary), Some(position.boundary));
                let closed = self.hosts[which].close(&self.place);
                let closed = self.judge_outcome(which, "archiver: close", closed);
                assert!(matches!(closed, Some(Ok(()))), "an archiver that caught up cannot be closed");
                return;
            }
        }
        panic!("no archiver can finish");
    }

    /// Two archivers are alive: only one goes on.
    fn duel(&mut self) {
        for _ in 0..8 {
            self.write_something();
            let first = usize::from(self.one_in(2));
            for which in [first, 1 - first] {
                self.poll(which);
                self.work(which, "archiver: ship", async |a| a.ship().await);
            }
            if !self.hosts.iter().all(Host::is_open) {
                return;
            }
        }
        panic!("two archivers go on and on");
    }
}
