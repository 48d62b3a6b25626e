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
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
};
use tokio::sync::Notify;

use crate::registry::{Directory, Registry};

/// A running watch; dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching the registry's directories and scans them once. `changed` is notified after each batch of events.
    pub fn start(registry: Arc<Registry>, changed: Arc<Notify>) -> Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| error::io("watching", registry.db(), e.into()))?;
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let db = inotify::add_watch(&queue, registry.db(), flags)
            .map_err(|e| error::io("watching", registry.db(), e.into()))?;
        let wal = inotify::add_watch(&queue, registry.wal_dir(), flags)
            .map_err(|e| error::io("watching", registry.wal_dir(), e.into()))?;
        registry.scan()?;
        registry.watch_began();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("pitr-watch".to_owned())
            .spawn({
                let stop = stop.clone();
                move || run(&queue, db, wal, &registry, &changed, &stop)
            })
            .map_err(|e| error::io("starting a thread for", "the watch", e))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has already been reported by the panic hook; the scan goes on without events.
            drop(thread.join());
        }
    }
}

fn run(queue: &OwnedFd, db: i32, wal: i32, registry: &Registry, changed: &Notify, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        match poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(error = %e, "file events are no longer available; scanning instead");
                registry.watch_lapsed();
                return;
            }
        }
        let mut events = inotify::Reader::new(queue, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    if event.events().intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED) {
                        registry.watch_lapsed();
                        continue;
                    }
                    let Some(name) = event.file_name().and_then(|n| n.to_str().ok()) else { continue };
                    // With one directory for both, inotify gives one descriptor: tell both.
                    for (descriptor, directory) in [(db, Directory::Db), (wal, Directory::Wal)] {
                        if event.wd() == descriptor
                            && let Err(e) = registry.appeared(directory, name)
                        {
                            // The engine's scan meets the same error and stops on it; here it only costs the hint.
                            tracing::debug!(error = %e, name, "could not pin on an event");
                            registry.watch_lapsed();
                        }
                    }
                }
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "file events are no longer available; scanning instead");
                    registry.watch_lapsed();
                    return;
                }
            }
        }
        changed.notify_one();
    }
}
