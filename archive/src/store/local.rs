//! A directory as a store: durable and exclusive.
//!
//! Owns: how an object comes to be on a local (or mounted) file system, in this order and for these reasons:
//! 1. the bytes go to a new file in `.pitr-unfinished/`, so that no reader sees half of them;
//! 2. that file is fsynced, so that the name never stands for bytes that a power loss takes back. What a large one
//!    does meanwhile to make that fsync short, [`crate::page_cache`] says;
//! 3. `link(2)` gives it the object's name. A link is made by one creator only (`EEXIST` for the others), which
//!    rename cannot promise;
//! 4. the temporary name goes, and the object's directory is fsynced, so that the name lasts. Directories made on the
//!    way are fsynced in their parents *before* anything is put into them.
//!
//! After a crash between the steps a temporary file is left; it is never listed, and removed when it is a day old.
//! All file I/O runs on the runtime's blocking threads. Refuses: overwriting, and following an archive directory that
//! disappears while we use it (an unmounted disk must not look like an empty archive).

use std::{
    fs::{self, File},
    io::Read as _,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Put, Store, Upload, answer};
use crate::{
    clock::Clock,
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
    page_cache::After,
};

mod listing;
mod temporary;
mod tree;
mod upload;

use temporary::Temporary;
use tree::Tree;

/// A range that is not read for what follows it.
const SMALL: u64 = 64 << 10;

/// Objects as files below a directory, which is created by the first write.
#[derive(Clone, Debug)]
pub struct LocalStore(Arc<Tree>);

impl LocalStore {
    /// The store in `directory` (absolute). Removes what writers that crashed more than a day before `clock`'s time
    /// left behind. Reads and removes a few names synchronously.
    pub fn open(directory: impl Into<PathBuf>, clock: &dyn Clock) -> Result<Self> {
        let tree = Tree::open(directory.into())?;
        temporary::remove_leftovers(&tree, clock.now())?;
        Ok(Self(Arc::new(tree)))
    }

    async fn run<T: Send + 'static>(&self, deed: impl FnOnce(&Tree) -> Result<T> + Send + 'static) -> Result<T> {
        let tree = Arc::clone(&self.0);
        blocking(move || deed(&tree)).await
    }
}

/// Runs `deed` where it may wait for a disk.
pub(super) async fn blocking<T: Send + 'static>(deed: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(deed).await {
        Ok(result) => result,
        Err(stopped) => Err(Error::new(Code::Internal, "waiting for a disk operation").because(stopped)),
    }
}

/// An I/O error below the archive's directory: always "could not", never "is not there".
fn failed(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let code = match source.kind() {
        ErrorKind::PermissionDenied => Code::StoreDenied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::StoreUnavailable,
    };
    let error = Error::new(code, doing).on(path.display());
    let error = match code {
        // Kernels turn disks read-only, and people turn them back: that passes, and is waited for.
        _ if source.kind() == ErrorKind::ReadOnlyFilesystem => error.hint("make the archive's disk writable again"),
        Code::StoreDenied => error.hint("check who owns the archive's directory"),
        Code::DiskFull => error.hint("make room on the archive's disk"),
        _ => error,
    };
    error.because(source)
}

/// Gives the finished file the object's name, exclusively and durably.
fn publish(tree: &Tree, key: &ObjectKey, temporary: Temporary) -> Result<Put> {
    let (path, directory) = tree.locate(key);
    let put = match fs::hard_link(temporary.path(), &path) {
        Ok(()) => Put::Created,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Put::Exists,
        Err(e) => return Err(link_failed(&path, e)),
    };
    temporary.remove()?;
    // Also when it was there already: its creator may have died before this step, and our caller is going to rely on
    // it.
    tree::sync_directory(&directory)?;
    Ok(put)
}

fn link_failed(path: &Path, e: std::io::Error) -> Error {
    use rustix::io::Errno;
    let hint = match Errno::from_io_error(&e) {
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
            "this file system has no hard links, without which no object can be created exclusively: use another one"
        }
        Some(Errno::XDEV) => "the archive's directory must lie on one file system, without mounts or links inside it",
        _ => return failed("naming the new object", path, e),
    };
    Error::new(Code::StoreNotExclusive, "naming the new object").on(path.display()).because(e).hint(hint)
}

/// Whether the object's name is taken, and then durably.
fn taken(tree: &Tree, key: &ObjectKey) -> Result<bool> {
    let (path, directory) = tree.locate(key);
    let found = path.try_exists().map_err(|e| failed("looking for the object", &path, e))?;
    if found {
        tree::sync_directory(&directory)?;
    }
    Ok(found)
}

fn put(tree: &Tree, key: &ObjectKey, body: &[u8]) -> Result<Put> {
    tree.prepare(key)?;
    // Spares the writing where the name is known to be taken; the link decides.
    if taken(tree, key)? {
        return Ok(Put::Exists);
    }
    let mut temporary = Temporary::create(tree, body.len() as u64, After::Kept)?;
    temporary.write(body)?;
    temporary.sync()?;
    publish(tree, key, temporary)
}

/// Opens an object; `None` when there is no such file and the archive's directory is still the one we know.
fn open(tree: &Tree, key: &ObjectKey) -> Result<Option<(File, u64)>> {
    let (path, directory) = tree.locate(key);
    tree.settle_for_reading(&directory)?;
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return tree.absent(),
        Err(e) => return Err(failed("opening the object", &path, e)),
    };
    let meta = file.metadata().map_err(|e| failed("opening the object", &path, e))?;
    if !meta.is_file() {
        return Err(Error::new(Code::ObjectDamaged, "opening the object")
            .on(path.display())
            .hint("something that is not a file has the object's name"));
    }
    Ok(Some((file, meta.len())))
}

fn get(tree: &Tree, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
    let Some((file, size)) = open(tree, key)? else { return Ok(None) };
    answer::check_limit(key, size, limit)?;
    let mut body = Vec::with_capacity(answer::in_memory(key, size)?);
    // Objects never grow; one more byte than expected would show that somebody else writes here.
    let read = file.take(size.saturating_add(1)).read_to_end(&mut body);
    read.map_err(|e| failed("reading the object", &tree.locate(key).0, e))?;
    if body.len() as u64 != size {
        return Err(Error::new(Code::StoreInconsistent, "reading the object")
            .on(key)
            .with("size", size)
            .with("read", body.len())
            .hint("the object changed while it was read: nothing but pitr may write into the archive"));
    }
    Ok(Some(body.into()))
}

fn get_range(tree: &Tree, key: &ObjectKey, range: &Range<u64>) -> Result<Option<Bytes>> {
    let length = answer::range_length(key, range)?;
    let Some((file, size)) = open(tree, key)? else { return Ok(None) };
    answer::check_end(key, size, range)?;
    let mut piece = vec![0; answer::in_memory(key, length)?];
    if length < SMALL {
        // A hint: who asks for a header wants nothing behind it.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
    }
    file.read_exact_at(&mut piece, range.start).map_err(|e| failed("reading the object", &tree.locate(key).0, e))?;
    Ok(Some(piece.into()))
}

fn delete(tree: &Tree, key: &ObjectKey) -> Result<()> {
    let (path, directory) = tree.locate(key);
    match fs::remove_file(&path) {
        // Durable before we say so: what is deleted next may be what this object is needed for.
        Ok(()) => tree::sync_directory(&directory),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => tree.absent::<()>().map(drop),
        Err(e) => Err(failed("deleting the object", &path, e)),
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        let key = key.clone();
        self.run(move |tree| put(tree, &key, &body)).await
    }

    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        let key = key.clone();
        let tree = Arc::clone(&self.0);
        let temporary = self
            .run({
                let key = key.clone();
                move |tree| {
                    tree.prepare(&key)?;
                    Temporary::create(tree, size_hint, After::GivenBack)
                }
            })
            .await?;
        Ok(Box::new(upload::LocalUpload::new(tree, key, temporary)))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        let key = key.clone();
        self.run(move |tree| get(tree, &key, limit)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let key = key.clone();
        self.run(move |tree| get_range(tree, &key, &range)).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        let key = key.clone();
        self.run(move |tree| Ok(open(tree, &key)?.map(|(_, size)| size))).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        answer::check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.run(move |tree| tree.list(&prefix, after.as_ref())).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let key = key.clone();
        self.run(move |tree| delete(tree, &key)).await
    }

    fn describe(&self) -> String {
        format!("file:{}", self.0.root().display())
    }

    fn local_path(&self) -> Option<&Path> {
        Some(self.0.root())
    }
}

#[cfg(test)]
mod tests;
