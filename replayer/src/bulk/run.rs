//! Sorted operations on disk, where they are too many for memory.
//!
//! Owns: the form of the file, which nobody but the restore that wrote it reads, and an index of every so many bytes, in
//! memory. Each block has a checksum: what is read back wrong must not become a database.
//! Refuses: to read a block that is not as it was written.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io};

use super::{
    chunk::{Kind, Sorted, Version},
    order::KeyOrder,
};

/// A block is at least so large; one value may be larger.
const BLOCK: usize = 64 << 10;

/// Before each operation: family, kind, the lengths of key and value, age.
const HEAD: usize = 2 + 1 + 4 + 4 + 8;

/// Where a block lies and begins.
#[derive(Clone, Debug)]
struct Block {
    family: u16,
    key: Vec<u8>,
    offset: u64,
    length: usize,
    checksum: u64,
}

/// A file of sorted operations.
#[derive(Debug)]
pub(crate) struct RunFile {
    path: PathBuf,
    file: File,
    blocks: Vec<Block>,
    orders: Vec<KeyOrder>,
}

fn checksum(block: &[u8]) -> u64 {
    let hash = blake3::hash(block);
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

impl RunFile {
    /// Writes a sorted chunk to a new file.
    pub fn write(path: &Path, sorted: &Sorted, orders: &[KeyOrder]) -> Result<Self> {
        let fault = |e| io("writing sorted operations to", path, e);
        let file = File::options().read(true).write(true).create_new(true).open(path).map_err(fault)?;
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        let (mut blocks, mut block, mut offset) = (Vec::new(), Vec::with_capacity(BLOCK * 2), 0);
        let mut first: Option<(u16, Vec<u8>)> = None;
        for index in 0..sorted.len() {
            let Some(version) = sorted.get(index) else { break };
            first.get_or_insert_with(|| (version.family, version.key.to_vec()));
            put(&mut block, &version);
            if block.len() >= BLOCK || index + 1 == sorted.len() {
                let (family, key) = first.take().unwrap_or_default();
                out.write_all(&block).map_err(fault)?;
                blocks.push(Block { family, key, offset, length: block.len(), checksum: checksum(&block) });
                offset += block.len() as u64;
                block.clear();
            }
        }
        out.flush().map_err(fault)?;
        drop(out);
        Ok(Self { path: path.to_owned(), file, blocks, orders: orders.to_vec() })
    }

    /// The block in which the first operation of this column family lies whose key is not before `key`.
    pub fn seek(&self, family: u16, key: Option<&[u8]>) -> usize {
        let order = self.orders.get(usize::from(family)).copied().unwrap_or(KeyOrder::Bytewise);
        let before = self.blocks.partition_point(|block| match block.family.cmp(&family) {
            std::cmp::Ordering::Equal => key.is_some_and(|key| order.compare(&block.key, key).is_le()),
            other => other.is_lt(),
        });
        // It can begin in the midst of the block before.
        before.saturating_sub(1)
    }

    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Where a block begins.
    pub fn key(&self, block: usize) -> Option<(u16, &[u8])> {
        self.blocks.get(block).map(|block| (block.family, block.key.as_slice()))
    }

    /// Reads a block into `into`.
    pub fn read(&self, block: usize, into: &mut Vec<u8>) -> Result<()> {
        let doing = "reading sorted operations from";
        let Some(block) = self.blocks.get(block) else {
            into.clear();
            return Ok(());
        };
        into.resize(block.length, 0);
        self.file.read_exact_at(into, block.offset).map_err(|e| io(doing, &self.path, e))?;
        if checksum(into) != block.checksum {
            return Err(Error::new(Code::FileIo, doing)
                .on(self.path.display())
                .with("offset", block.offset)
                .with("it is", "not what was written")
                .hint("the disk or the memory of this machine is faulty; restore on another one"));
        }
        Ok(())
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        // The staging directory goes as a whole, too.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn put(block: &mut Vec<u8>, version: &Version<'_>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    block.extend_from_slice(&version.family.to_le_bytes());
    block.push(u8::from(version.kind == Kind::Put));
    block.extend_from_slice(&length(version.key));
    block.extend_from_slice(&length(version.value));
    block.extend_from_slice(&version.age.to_le_bytes());
    block.extend_from_slice(version.key);
    block.extend_from_slice(version.value);
}

/// The operation at `at` of a block, and where the next one begins.
pub(crate) fn get(block: &[u8], at: usize) -> Option<(Version<'_>, usize)> {
    let (head, rest) = block.get(at..)?.split_first_chunk::<HEAD>()?;
    let [f0, f1, kind, k0, k1, k2, k3, v0, v1, v2, v3, age @ ..] = *head;
    let key = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
    let value = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
    let version = Version {
        family: u16::from_le_bytes([f0, f1]),
        key: rest.get(..key)?,
        age: u64::from_le_bytes(age),
        kind: if kind == 1 { Kind::Put } else { Kind::Delete },
        value: rest.get(key..)?.get(..value)?,
    };
    Some((version, at + HEAD + key + value))
}
