//! A part of a database: exactly that part, with what can hold it fetched and nothing else.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use harness::{
    command::{finish, pitr, succeed, text, url},
    scratch,
};
use pitr_archive::{
    catalog::archive::Archive,
    clock::{Micros, SystemClock},
    ids::Nonce,
    keyring::MasterKey,
    store::{
        Put, Store,
        measured::{MeasuredStore, Meter},
        memory::MemoryStore,
        url::{OpenOptions, open},
    },
};
use pitr_replayer::{
    part::{KeyRange, Part},
    plan::{PlanOptions, RestorePlan, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use rocksdb::{BottommostLevelCompaction, CompactOptions, DB, IteratorMode, Options, WriteBatch};

const FAMILIES: [&str; 3] = ["default", "ledger", "small"];
const TENANTS: usize = 8;
/// Keys of a tenant in the large column family.
const KEYS: usize = 700;
const VALUE: usize = 1_000;

type Family = BTreeMap<Vec<u8>, Vec<u8>>;
type Content = BTreeMap<String, Family>;

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_target_file_size_base(1 << 20);
    options
}

fn opened(dir: &Path) -> DB {
    DB::open_cf_with_opts(&options(), dir, FAMILIES.map(|name| (name, options()))).unwrap()
}

/// Tenant after tenant, so that files and frames are of few of them; values that no compression makes smaller.
fn write(db: &DB, content: &mut Content, turn: usize) {
    let mut random = StdRng::seed_from_u64(turn as u64);
    let ledger = db.cf_handle("ledger").unwrap();
    let mut apply = |family: &str, change: &dyn Fn(&mut Family)| {
        change(content.get_mut(family).unwrap());
    };
    for tenant in 0..TENANTS {
        for n in 0..KEYS {
            let key = format!("tenant-{tenant}:{n:05}").into_bytes();
            let mut value = vec![0; VALUE];
            random.fill_bytes(&mut value);
            let mut batch = WriteBatch::default();
            batch.put_cf(&ledger, &key, &value);
            apply("ledger", &|family| drop(family.insert(key.clone(), value.clone())));
            // Now and then both, in one record; and some go again.
            if n % 100 == turn {
                batch.put(&key, b"also");
                apply("default", &|family| drop(family.insert(key.clone(), b"also".to_vec())));
            }
            if turn > 0 && n % 50 == 7 {
                let gone = format!("tenant-{tenant}:{:05}", n - 1).into_bytes();
                batch.delete_cf(&ledger, &gone);
                apply("ledger", &|family| drop(family.remove(&gone)));
            }
            db.write(batch).unwrap();
        }
    }
    if turn > 0 {
        let (from, to) = (b"tenant-2:00690".to_vec(), b"tenant-3:00010".to_vec());
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(&ledger, &from, &to);
        db.write(batch).unwrap();
        apply("ledger", &|family| family.retain(|key, _| !(from <= *key && *key < to)));
    }
    for n in 0..200 {
        let key = format!("small-{turn}-{n}").into_bytes();
        db.put_cf(&db.cf_handle("small").unwrap(), &key, b"value").unwrap();
        apply("small", &|family| drop(family.insert(key.clone(), b"value".to_vec())));
    }
}

/// A database with a base of several files for the large column family and a log behind it, archived and encrypted.
struct Site {
    root: tempfile::TempDir,
    content: Content,
}

impl Site {
    fn new() -> Self {
        let root = scratch::directory();
        let content = FAMILIES.iter().map(|name| ((*name).to_owned(), BTreeMap::new())).collect();
        let mut site = Self { root, content };
        let key = site.path("key");
        std::fs::write(&key, "5a".repeat(32)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let db = opened(&site.path("db"));
        write(&db, &mut site.content, 0);
        for family in FAMILIES {
            let family = db.cf_handle(family).unwrap();
            db.flush_cf(&family).unwrap();
            let mut compaction = CompactOptions::default();
            compaction.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            db.compact_range_cf_opt(&family, None::<&[u8]>, None::<&[u8]>, &compaction);
        }
        site.catch_up();
        write(&db, &mut site.content, 1);
        site.catch_up();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn catch_up(&self) {
        let (db, state, key) = (self.path("db"), self.path("state"), self.path("key"));
        let archive = url(&self.path("archive"));
        let args = ["run", "--once", "--db", text(&db), "--state", text(&state), "--archive", &archive];
        succeed(pitr(args).args(["--key-file", text(&key), "--segment-size", "8MiB", "--interval", "10s"]));
    }

    /// The archive as it is now, where all that is read of it is counted: files in a directory are read past the store.
    async fn in_memory(&self) -> MemoryStore {
        let store = open(&url(&self.path("archive")), &OpenOptions::of_process()).await.unwrap();
        let memory = MemoryStore::new();
        for listed in store.list("", None).await.unwrap() {
            let body = store.get(&listed.key, u64::MAX).await.unwrap().unwrap();
            assert_eq!(memory.put(&listed.key, body).await.unwrap(), Put::Created);
        }
        memory
    }

    /// Restores to the end; answers what was fetched, as far as it was for that.
    fn restore(&self, into: &Path, part: Option<Part>) -> (RestorePlan, u64) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let meter = Arc::new(Meter::new(Arc::new(SystemClock)));
            let store = Arc::new(MeasuredStore::new(Arc::new(self.in_memory().await), meter.clone()));
            let key = MasterKey::from_file(&self.path("key")).unwrap();
            let archive = Archive::open(store, Some(key)).await.unwrap();
            let catalog = archive.load_catalog().await.unwrap();
            let planning = PlanOptions { part, ..PlanOptions::default() };
            let planned = plan(&archive, &catalog, &Target::Latest, &planning).await.unwrap();
            let before = meter.read().received;
            let options = RestoreOptions::new(into, Nonce([3; 16]), Micros(0));
            restore(&archive, &planned, &options, Arc::new(Silent)).await.unwrap();
            (planned, meter.read().received - before)
        })
    }
}

fn content_of(dir: &Path) -> Content {
    let families = DB::list_cf(&Options::default(), dir).unwrap();
    let db = DB::open_cf_for_read_only(&Options::default(), dir, &families, false).unwrap();
    let pairs = |name: &str| {
        let family = db.cf_handle(name).unwrap();
        db.iterator_cf(&family, IteratorMode::Start)
            .map(|pair| pair.map(|(k, v)| (k.into_vec(), v.into_vec())).unwrap())
    };
    families.iter().map(|name| (name.clone(), pairs(name).collect())).collect()
}

fn part_of(content: &Content, families: &[&str], keys: &KeyRange) -> Content {
    let cut = |name: &str| content[name].iter().filter(|(key, _)| keys.holds(key)).map(|(k, v)| (k.clone(), v.clone()));
    let mut part: Content = families.iter().map(|name| ((*name).to_owned(), cut(name).collect())).collect();
    part.entry("default".to_owned()).or_default();
    part
}

#[test]
fn a_part_is_exactly_that_and_costs_little_more_than_it_holds() {
    let site = Site::new();
    let whole = site.path("whole");
    let (planned, all) = site.restore(&whole, None);
    assert_eq!(content_of(&whole), site.content);
    assert!(planned.base.files >= 5 && all > 8_000_000, "{} files, {all} bytes", planned.base.files);
    let identity = |dir: &Path| std::fs::read_to_string(dir.join("IDENTITY")).unwrap();

    let every = |families: &[&str]| families.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (n, (families, keys, share)) in [
        (&["small"][..], KeyRange::default(), 0.12),
        (&["default"][..], KeyRange::default(), 1.0),
        (&["small", "default"][..], KeyRange::default(), 1.0),
        (&["ledger"][..], KeyRange::prefix(b"tenant-5:"), 0.45),
        (&["ledger"][..], KeyRange::between(b"tenant-2:00600", b"tenant-3:00100").unwrap(), 0.6),
        (&FAMILIES[..], KeyRange::prefix(b"tenant-0:0000"), 0.45),
        (&["ledger", "small"][..], KeyRange::prefix(b"nobody"), 0.12),
    ]
    .into_iter()
    .enumerate()
    {
        let into = site.path(&format!("part-{n}"));
        let part = Part { families: every(families), keys: keys.clone() };
        let (planned, fetched) = site.restore(&into, Some(part));
        let got = fetched as f64 / all as f64;
        println!("{families:?} {keys:?}: {fetched} of {all} bytes ({got:.2}), {:?}", planned.part);
        assert_eq!(content_of(&into), part_of(&site.content, families, &keys), "{families:?} {keys:?}");
        assert!(got < share, "{families:?} {keys:?}: {fetched} of {all} bytes");
        assert_ne!(identity(&into), identity(&whole));
        assert!(!into.join("pitr-restored.json").exists(), "no archiver takes it for the whole");
        // It goes on as a database of its own.
        let db = DB::open_cf(&Options::default(), &into, DB::list_cf(&Options::default(), &into).unwrap()).unwrap();
        db.put(b"written after", b"1").unwrap();
        db.compact_range(None::<&[u8]>, None::<&[u8]>);
        drop(db);
        let later = content_of(&into);
        assert_eq!(later["default"].len(), part_of(&site.content, families, &keys)["default"].len() + 1);
    }
}

#[test]
fn the_command_restores_a_part_and_refuses_what_is_none() {
    let site = Site::new();
    let (archive, key) = (url(&site.path("archive")), site.path("key"));
    let run = |args: &[&str]| {
        let mut command = pitr(args.iter().copied());
        command.args(["--archive", &archive, "--key-file", text(&key)]);
        command
    };
    let into = site.path("part");
    let into = text(&into);
    let shown = succeed(&mut run(&["plan", "--to-latest", "--cf", "ledger", "--prefix", "tenant-1:"]));
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("keys from tenant-1:, below tenant-1;") && shown.contains("a database of its own"),
        "{shown}"
    );
    succeed(&mut run(&[
        "restore",
        "--to-latest",
        "--cf",
        "ledger",
        "--prefix",
        "tenant-1:",
        "--into",
        into,
        "--finish",
    ]));
    let keys = KeyRange::prefix(b"tenant-1:");
    assert_eq!(content_of(Path::new(into)), part_of(&site.content, &["ledger"], &keys));
    for (args, says) in [
        (&["plan", "--to-latest", "--cf", "ledgers"][..], "there is ledger"),
        (&["plan", "--to-latest", "--range", "b", "a"][..], "where it begins"),
        (&["restore", "--to-latest", "--cf", "ledger", "--in-place", into][..], "cannot be used with"),
        (&["plan", "--to-latest", "--cf", "ledger", "--engine", "flush"][..], "a part is wanted"),
    ] {
        let refused = finish(&mut run(args));
        let said = String::from_utf8_lossy(&refused.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(refused.status.code() == Some(2) && said.contains(says), "{args:?}: {}\n{said}", refused.status);
    }
}
