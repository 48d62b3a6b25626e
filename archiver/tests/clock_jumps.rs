//! The wall clock is set while an archiver runs: an hour back, a year ahead, and back again. It goes on, nothing that
//! waits waits for the clock, and the times that the archive tells are those that were shown.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use pitr_archive::{
    catalog::archive::Archive,
    clock::{Clock, ManualClock, Micros},
    random::OsRandom,
    store::memory::MemoryStore,
};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts,
    control::{self, Answer, Request, TagRequest, Unflushed},
};
use rocksdb::{DB, Options};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const YEAR: i64 = 365 * 24 * HOUR;
/// Far longer than anything here takes; a wait for the clock would be longer still.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_whose_clock_is_set_goes_on_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir.path().join("db")).unwrap();
    db.put("a", "1").unwrap();
    let clock = ManualClock::new(Micros(1_795_132_800_000_000));
    let parts = Parts { clock: Arc::new(clock.clone()), ..Parts::system() };
    let mut config = ArchiverConfig::new(dir.path().join("db"));
    config.manifest_interval = Duration::from_secs(1);
    config.heartbeat = Duration::from_secs(2);
    let state = config.state.clone();
    let archive = Archive::open_or_create(Arc::new(store.clone()), None, &clock, &OsRandom).await.unwrap();
    let archiver = Archiver::open(config, archive, parts).await.unwrap();
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    // On a thread of its own, as a server would have it.
    let runtime = tokio::runtime::Handle::current();
    let running = std::thread::spawn(move || runtime.block_on(archiver.run(async move { drop(stopping.await) })));
    // Time passes as it does, ten times as fast.
    let ticking = tokio::spawn({
        let clock = clock.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                clock.advance(50_000);
            }
        }
    });
    let mut shown = Vec::new();
    for (number, jump) in [0, -HOUR, YEAR, -YEAR, -3 * HOUR, 2 * SECOND, -2 * SECOND].into_iter().enumerate() {
        clock.jump(jump);
        db.put(format!("k{number}"), "v").unwrap();
        let written = db.latest_sequence_number();
        // By its own schedule, not because somebody asks for it.
        let reached = tokio::time::timeout(LIMIT, async {
            loop {
                match control::ask(&state, &Request::Status).await {
                    Ok(Some(Answer::Status(s))) if s.acknowledged.sequence.get() >= written => return s,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let status = reached.await.unwrap_or_else(|_| panic!("nothing is shipped after the clock was set by {jump}"));
        assert_eq!(status.barriers, 0);
        let from = clock.now();
        let tag = TagRequest {
            name: format!("t{number}"),
            note: String::new(),
            unflushed: Unflushed::Refuse,
            expires: None,
            group: None,
        };
        let tagged = tokio::time::timeout(LIMIT, control::ask(&state, &Request::Tag(tag))).await;
        let Ok(Ok(Some(Answer::Tag(tag)))) = tagged else { panic!("no tag after the clock was set by {jump}") };
        assert!(from <= tag.created && tag.created <= clock.now(), "a tag's time is what the clock showed");
        shown.push((tag.position.boundary, tag.created));
    }
    let based = tokio::time::timeout(LIMIT, control::ask(&state, &Request::Base)).await;
    assert!(matches!(based, Ok(Ok(Some(Answer::Base { .. })))), "{based:?}");
    stop.send(()).unwrap();
    let ended = tokio::task::spawn_blocking(move || running.join().unwrap());
    let ended = tokio::time::timeout(LIMIT, ended).await;
    ended.expect("the archiver ends").unwrap().unwrap_or_else(|e| panic!("{e}"));
    ticking.abort();

    // In the order of records, whatever the clock said meanwhile.
    assert!(shown.is_sorted_by_key(|(boundary, _)| *boundary));
    let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
    let catalog = archive.load_catalog().await.unwrap();
    let timeline = catalog.current_timeline().unwrap();
    assert!(timeline.barriers().is_empty());
    assert_eq!(timeline.runs().len(), 1);
    let (first, last) = (clock.now().0 - 5 * HOUR, clock.now().0 + 2 * YEAR);
    for segment in timeline.segments() {
        for look in segment.observed.into_iter().flat_map(|(first, last)| [first, last]) {
            assert!((first..last).contains(&look.at.0) || look.from.0 == 0, "a time that no clock showed: {look:?}");
        }
    }
}
