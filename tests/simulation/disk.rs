//! The effects of a simulated server on its directory, one after the other.
//!
//! Owns: the queue between what the server has decided and what its files show. An append reaches the file in pieces of
//! any length, so whoever reads meanwhile sees a torn tail; a killed server loses what is still queued.
//! Refuses: to reorder. What RocksDB does in an order (a flushed file before the edit that names it, that edit before the
//! log is deleted) is queued in that order.

use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::oracle::Mark;

/// One effect.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Bytes at the end of a file; without any, the file is created. The mark is reached with the last byte.
    Append { file: String, bytes: Vec<u8>, mark: Option<Mark> },
    /// A whole file, by renaming a temporary one.
    Place { file: String, bytes: Vec<u8> },
    /// A file is gone.
    Delete { file: String },
}

/// What an effect did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing was queued.
    Nothing,
    /// All of it.
    Whole(Option<Mark>),
    /// The beginning of an append.
    Part,
    /// A log or MANIFEST was deleted; so many links to it were left elsewhere.
    Deleted { links: u64 },
}

/// The server's directory.
#[derive(Debug)]
pub struct Disk {
    pub root: PathBuf,
    queue: VecDeque<Effect>,
}

impl Disk {
    pub fn new(root: &Path) -> Self {
        fs::create_dir_all(root).expect("the database directory");
        Self { root: root.to_owned(), queue: VecDeque::new() }
    }

    /// Queues an effect.
    pub fn push(&mut self, effect: Effect) {
        self.queue.push_back(effect);
    }

    /// Whether the files show all that the server did.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets what has not been done.
    pub fn kill(&mut self) {
        self.queue.clear();
    }

    /// Performs the next effect; of an append at most `limit` bytes.
    pub fn step(&mut self, limit: usize) -> Done {
        let Some(effect) = self.queue.pop_front() else { return Done::Nothing };
        match effect {
            Effect::Append { file, bytes, mark } => {
                let (now, later) = bytes.split_at(limit.min(bytes.len()));
                let path = self.root.join(&file);
                let mut open = OpenOptions::new().create(true).append(true).open(path).expect("the server's file");
                open.write_all(now).expect("appending");
                if later.is_empty() {
                    return Done::Whole(mark);
                }
                self.queue.push_front(Effect::Append { file, bytes: later.to_vec(), mark });
                Done::Part
            }
            Effect::Place { file, bytes } => {
                let temporary = self.root.join("temporary.dbtmp");
                fs::write(&temporary, bytes).expect("writing");
                fs::rename(&temporary, self.root.join(file)).expect("renaming");
                Done::Whole(None)
            }
            Effect::Delete { file } => {
                let path = self.root.join(&file);
                let links = fs::metadata(&path).expect("a file to delete").nlink();
                fs::remove_file(path).expect("deleting");
                let log = file.ends_with(".log") || file.starts_with("MANIFEST");
                if log { Done::Deleted { links: links - 1 } } else { Done::Whole(None) }
            }
        }
    }
}
