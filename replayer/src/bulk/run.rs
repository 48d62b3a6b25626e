//! Sorted operations on disk, where they are too many for memory.
//!
//! Owns: the form of the file, which nobody but the restore that wrote it reads, and an index of every so many bytes, in
//! memory, and at the file's end ([`index`]) for a restore that goes on behind an interruption. Each block has a checksum: what
//! is read back wrong must not become a database.
//! Not durable: whoever goes on reads all of it again, and what a power loss took is found out so.
//! Refuses: to read a block that is not as it was written.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io};

use serde::{Deserialize, Serialize};

use super::{
    chunk::{Kind, Sorted, Version},
    order::KeyOrder,
    tombstones::FamilyTombstone,
};

mod index;
use index::Block;

/// A block is at least so large; one value may be larger.
const BLOCK: usize = 128 << 10;

const READING: &str = "reading sorted operations from";

/// Before each operation: family, kind, the lengths of key and value, age.
const HEAD: usize = 2 + 1 + 4 + 4 + 8;

/// How a file was written: enough to tell whether another one is it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Of its blocks, in bytes.
    blocks: u64,
    /// Of the index behind them.
    index: u64,
    /// Of the index, which has those of the blocks.
    checksum: u64,
}

/// A file of sorted operations.
#[derive(Debug)]
pub(crate) struct RunFile {
    path: PathBuf,
    file: File,
    blocks: Vec<Block>,
    orders: Vec<KeyOrder>,
    written: Written,
}

fn fault(path: &Path, e: std::io::Error) -> Error {
    io("writing sorted operations to", path, e)
}

fn checksum(block: &[u8]) -> u64 {
    let hash = blake3::hash(block);
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

/// A run that is being written.
pub(crate) struct RunWriter {
    path: PathBuf,
    out: BufWriter<File>,
    blocks: Vec<Block>,
    block: Vec<u8>,
    /// Where the present block begins.
    first: Option<(u16, Vec<u8>)>,
    offset: u64,
}

impl RunWriter {
    /// A new file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let out = BufWriter::with_capacity(1 << 20, file.map_err(|e| fault(path, e))?);
        let block = Vec::with_capacity(2 * BLOCK);
        Ok(Self { path: path.to_owned(), out, blocks: Vec::new(), block, first: None, offset: 0 })
    }

    /// The next operation in order.
    pub fn push(&mut self, version: &Version<'_>) -> Result<()> {
        self.first.get_or_insert_with(|| (version.family, version.key.to_vec()));
        put(&mut self.block, version);
        if self.block.len() >= BLOCK { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<()> {
        let Some((family, key)) = self.first.take() else { return Ok(()) };
        self.out.write_all(&self.block).map_err(|e| fault(&self.path, e))?;
        let (length, checksum) = (self.block.len(), checksum(&self.block));
        self.blocks.push(Block { family, key, offset: self.offset, length, checksum });
        self.offset += length as u64;
        self.block.clear();
        Ok(())
    }

    /// All of it can be read. `tombstones` are the ranges that were deleted between its operations.
    pub fn finish(mut self, tombstones: &[FamilyTombstone], orders: &[KeyOrder]) -> Result<RunFile> {
        self.end_block()?;
        let Self { path, mut out, blocks, offset, .. } = self;
        let index = index::encode(&blocks, tombstones);
        out.write_all(&index).map_err(|e| fault(&path, e))?;
        let file = out.into_inner().map_err(|e| fault(&path, e.into_error()))?;
        let written = Written { blocks: offset, index: index.len() as u64, checksum: checksum(&index) };
        Ok(RunFile { path, file, blocks, orders: orders.to_vec(), written })
    }
}

impl RunFile {
    /// Writes a sorted chunk to a new file, with the ranges that were deleted meanwhile.
    pub fn write(path: &Path, sorted: &Sorted, tombstones: &[FamilyTombstone], orders: &[KeyOrder]) -> Result<Self> {
        let mut writer = RunWriter::create(path)?;
        for version in (0..sorted.len()).map_while(|index| sorted.get(index)) {
            writer.push(&version)?;
        }
        writer.finish(tombstones, orders)
    }

    /// One that was written before, with its deleted ranges; every byte is read. `None` where it is not as it was written.
    pub fn open(path: &Path, written: Written, orders: &[KeyOrder]) -> Result<Option<(Self, Vec<FamilyTombstone>)>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(READING, path, e)),
        };
        let size = file.metadata().map_err(|e| io(READING, path, e))?.len();
        // What the note says allocates no more than the file is.
        if written.blocks.checked_add(written.index) != Some(size) {
            return Ok(None);
        }
        let mut index = vec![0; usize::try_from(written.index).unwrap_or_default()];
        file.read_exact_at(&mut index, written.blocks).map_err(|e| io(READING, path, e))?;
        if checksum(&index) != written.checksum {
            return Ok(None);
        }
        let Some((blocks, tombstones)) = index::decode(&index, written.blocks) else { return Ok(None) };
        let mut block = Vec::new();
        for at in &blocks {
            block.resize(at.length, 0);
            file.read_exact_at(&mut block, at.offset).map_err(|e| io(READING, path, e))?;
            if checksum(&block) != at.checksum {
                return Ok(None);
            }
        }
        Ok(Some((Self { path: path.to_owned(), file, blocks, orders: orders.to_vec(), written }, tombstones)))
    }

    pub fn written(&self) -> Written {
        self.written
    }

    /// Nobody needs it any more.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| io("removing", &self.path, e))
    }

    /// Bytes of its largest block: what a reader holds in memory.
    pub fn largest_block(&self) -> usize {
        self.blocks.iter().map(|block| block.length).max().unwrap_or_default()
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
        let Some(block) = self.blocks.get(block) else {
            into.clear();
            return Ok(());
        };
        into.resize(block.length, 0);
        self.file.read_exact_at(into, block.offset).map_err(|e| io(READING, &self.path, e))?;
        if checksum(into) != block.checksum {
            return Err(Error::new(Code::FileIo, READING)
                .on(self.path.display())
                .with("offset", block.offset)
                .with("it is", "not what was written")
                .hint("the disk or the memory of this machine is faulty; restore on another one"));
        }
        Ok(())
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
