//! A client that writes without pause, and counts what it asked for and what the server confirmed.
//!
//! Owns: the bounds within which a killed server's contents must lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use super::pitr::until;

/// It ends with the server, or when it is dropped.
pub struct CountedWriter {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    issued: AtomicU64,
    acknowledged: AtomicU64,
    over: AtomicBool,
}

impl CountedWriter {
    /// Writes 0, 1, 2 and so on, until one is not confirmed (`None`).
    pub fn start(mut write: impl FnMut(u64) -> Option<()> + Send + 'static) -> Self {
        let counts = Arc::new(Counts::default());
        let thread = {
            let counts = counts.clone();
            std::thread::spawn(move || {
                for n in 0.. {
                    counts.issued.store(n + 1, Ordering::SeqCst);
                    if counts.over.load(Ordering::SeqCst) || write(n).is_none() {
                        return;
                    }
                    counts.acknowledged.store(n + 1, Ordering::SeqCst);
                }
            })
        };
        Self { counts, thread: Some(thread) }
    }

    /// At most so many can have happened.
    pub fn issued(&self) -> u64 {
        self.counts.issued.load(Ordering::SeqCst)
    }

    /// At least so many have happened.
    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::SeqCst)
    }

    pub fn wait_for_more(&self, writes: u64) {
        let goal = self.acknowledged() + writes;
        until("more writes", || (self.acknowledged() >= goal).then_some(()));
    }

    /// After the server is gone.
    pub fn join(&mut self) {
        self.thread.take().expect("joined once").join().expect("the client");
    }
}

impl Drop for CountedWriter {
    fn drop(&mut self) {
        self.counts.over.store(true, Ordering::SeqCst);
    }
}
