//! File events: the hint that lets us pin a file the moment it appears.
//!
//! Owns: an inotify descriptor and the thread that reads it. Only creations and renames are asked for, so a busy
//! server's writes cause no events. Every event is acted on here, on this thread, because a WAL can live for less than
//! a poll interval.
//! Refuses: to be trusted. Events can be lost (queue overflow, network file systems); the registry is told when they
//! are, and the directory scan finds what is there. Events are also late: whoever concludes something from what was *not*
//! seen asks [`Events::settle`] first.

use std::{
    collections::BTreeSet,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use pitr_archive::{Result, error};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::sync::Notify;

use crate::registry::{Directory, Registry};

/// A running watch; dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    events: Arc<Events>,
    thread: Option<JoinHandle<()>>,
}

/// The queue of file events, and which markers have come out of it.
#[derive(Debug)]
pub struct Events {
    queue: OwnedFd,
    markers: Mutex<BTreeSet<i32>>,
    came: Condvar,
}

/// A thread that is this far behind counts as one that missed something.
const PATIENCE: Duration = Duration::from_secs(5);

impl Events {
    /// Puts an event of its own into the queue: the end of a watch on a directory that is certainly there.
    fn mark(&self) -> rustix::io::Result<i32> {
        let marker = inotify::add_watch(&self.queue, "/", WatchFlags::DELETE_SELF)?;
        inotify::remove_watch(&self.queue, marker)?;
        Ok(marker)
    }

    /// Waits until every event that was there at the call has been acted on. `false` if that is not known to be so.
    pub fn settle(&self) -> bool {
        let Ok(marker) = self.mark() else { return false };
        // A panic elsewhere leaves a plain set that is still true.
        let markers = self.markers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waited = self.came.wait_timeout_while(markers, PATIENCE, |markers| !markers.remove(&marker));
        !waited.unwrap_or_else(std::sync::PoisonError::into_inner).1.timed_out()
    }

    fn passed(&self, marker: i32) {
        self.markers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(marker);
        self.came.notify_all();
    }
}

impl Watch {
    /// Starts watching the registry's directories and scans them once. `changed` is notified after each batch of events.
    pub fn start(registry: Arc<Registry>, changed: Arc<Notify>) -> Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC).map_err(|e| error::io("watching", registry.db(), e.into()))?;
        let events = Arc::new(Events { queue, markers: Mutex::default(), came: Condvar::new() });
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let db = inotify::add_watch(&events.queue, registry.db(), flags)
            .map_err(|e| error::io("watching", registry.db(), e.into()))?;
        let wal = inotify::add_watch(&events.queue, registry.wal_dir(), flags)
            .map_err(|e| error::io("watching", registry.wal_dir(), e.into()))?;
        registry.scan()?;
        registry.watch_began(events.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("pitr-watch".to_owned())
            .spawn({
                let (stop, events) = (stop.clone(), events.clone());
                move || run(&events, db, wal, &registry, &changed, &stop)
            })
            .map_err(|e| error::io("starting a thread for", "the watch", e))?;
        Ok(Self { stop, events, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(e) = self.events.mark() {
            tracing::warn!(error = %e, "the thread that watches the database cannot be woken; it ends with the process");
            return;
        }
        if let Some(thread) = self.thread.take() {
            // A panic there has already been reported by the panic hook; the scan goes on without events.
            drop(thread.join());
        }
    }
}

fn run(all: &Events, db: i32, wal: i32, registry: &Registry, changed: &Notify, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut events = inotify::Reader::new(&all.queue, &mut buffer);
    loop {
        match events.next() {
            Ok(_) if stop.load(Ordering::Relaxed) => return,
            Ok(event) => {
                let ours = event.wd() == db || event.wd() == wal;
                if event.events().contains(ReadFlags::IGNORED) && !ours {
                    all.passed(event.wd());
                } else if event.events().contains(ReadFlags::IGNORED) {
                    registry.watch_ended();
                } else if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    registry.watch_lapsed();
                } else if let Some(name) = event.file_name().and_then(|n| n.to_str().ok()) {
                    appeared(registry, event.wd(), [(db, Directory::Db), (wal, Directory::Wal)], name);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                tracing::warn!(error = %e, "file events are no longer available; scanning instead");
                registry.watch_ended();
                return;
            }
        }
        if events.is_buffer_empty() {
            changed.notify_one();
        }
    }
}

/// With one directory for both, inotify gives one descriptor: both are told.
fn appeared(registry: &Registry, descriptor: i32, directories: [(i32, Directory); 2], name: &str) {
    for (_, directory) in directories.into_iter().filter(|(watched, _)| *watched == descriptor) {
        if let Err(e) = registry.appeared(directory, name) {
            // The engine's scan meets the same error and stops on it; here it only costs the hint.
            tracing::debug!(error = %e, name, "could not pin on an event");
            registry.watch_lapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::FileNumber;

    use super::*;
    use crate::pin::{Pins, Places};

    #[test]
    fn after_a_lapse_a_listing_with_every_event_acted_on_is_a_new_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        std::fs::create_dir(&db).unwrap();
        std::fs::write(db.join("000007.log"), b"").unwrap();
        let pins = Pins::open(Places {
            root: &dir.path().join("pins"),
            db: &db,
            wal_dir: &db,
            wal_pins: None,
            archive_name: None,
        })
        .unwrap();
        let registry = Arc::new(Registry::new(pins, db.clone(), db.clone()).unwrap());
        let _watch = Watch::start(registry.clone(), Arc::new(Notify::new())).unwrap();
        let (seven, nine) = (FileNumber::new(7), FileNumber::new(9));
        assert!(registry.missed_none_after(seven));
        registry.watch_lapsed();
        std::fs::write(db.join("000009.log"), b"").unwrap();
        assert!(!registry.missed_none_after(seven));
        registry.scan_settled().unwrap();
        assert!(registry.missed_none_after(nine), "from the newest that is known");
        assert!(!registry.missed_none_after(seven), "what came and went during the lapse is unknown");
        registry.watch_ended();
        registry.scan_settled().unwrap();
        assert!(!registry.missed_none_after(nine), "without events there is no proof");
    }
}
