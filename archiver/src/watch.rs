//! File events: the hint that lets us pin a file the moment it appears.
//!
//! Owns: an inotify descriptor and the thread that reads it. Only creations and renames are asked for, so a busy
//! server's writes cause no events. Every event is acted on here, on this thread, because a WAL can live for less than
//! a poll interval.
//! Refuses: to be trusted. Events can be lost (queue overflow, network file systems); the registry is told when they
//! are, and the directory scan finds what is there.

use std::{
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use pitr_archive::{Result, error};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::sync::Notify;

use crate::registry::{Directory, Registry};

/// A running watch; dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    queue: Arc<OwnedFd>,
    db: i32,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching the registry's directories and scans them once. `changed` is notified after each batch of events.
    pub fn start(registry: Arc<Registry>, changed: Arc<Notify>) -> Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC)
            .map(Arc::new)
            .map_err(|e| error::io("watching", registry.db(), e.into()))?;
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let db = inotify::add_watch(&*queue, registry.db(), flags)
            .map_err(|e| error::io("watching", registry.db(), e.into()))?;
        let wal = inotify::add_watch(&*queue, registry.wal_dir(), flags)
            .map_err(|e| error::io("watching", registry.wal_dir(), e.into()))?;
        registry.scan()?;
        registry.watch_began();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("pitr-watch".to_owned())
            .spawn({
                let (stop, queue) = (stop.clone(), queue.clone());
                move || run(&queue, db, wal, &registry, &changed, &stop)
            })
            .map_err(|e| error::io("starting a thread for", "the watch", e))?;
        Ok(Self { stop, queue, db, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Removing a watch is itself an event: it wakes the thread. Where the database's directory is gone, so is its
        // watch, and one that is certainly there takes its place.
        let woken = inotify::remove_watch(&*self.queue, self.db).or_else(|e| {
            tracing::debug!(error = %e, "the watch had ended by itself");
            let root = inotify::add_watch(&*self.queue, "/", WatchFlags::DELETE_SELF)?;
            inotify::remove_watch(&*self.queue, root)
        });
        if let Err(e) = woken {
            tracing::warn!(error = %e, "the thread that watches the database cannot be woken; it ends with the process");
            return;
        }
        if let Some(thread) = self.thread.take() {
            // A panic there has already been reported by the panic hook; the scan goes on without events.
            drop(thread.join());
        }
    }
}

fn run(queue: &OwnedFd, db: i32, wal: i32, registry: &Registry, changed: &Notify, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut events = inotify::Reader::new(queue, &mut buffer);
    loop {
        match events.next() {
            Ok(_) if stop.load(Ordering::Relaxed) => return,
            Ok(event) => {
                if event.events().intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED) {
                    registry.watch_lapsed();
                } else if let Some(name) = event.file_name().and_then(|n| n.to_str().ok()) {
                    appeared(registry, event.wd(), [(db, Directory::Db), (wal, Directory::Wal)], name);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                tracing::warn!(error = %e, "file events are no longer available; scanning instead");
                registry.watch_lapsed();
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
