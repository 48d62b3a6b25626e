//! A small file that says what of other files is to be believed.
//!
//! Owns: its form: a checksum in the first line, and JSON behind it.
//! Refuses: to be believed where anything of it is not as it was written. Whoever wrote nothing begins anew, which is always right.

use std::{fs, io::ErrorKind, path::Path};

use pitr_archive::{Code, Error, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::small_files::replace;

/// Makes it durable, in place of the one before.
pub(crate) fn put(path: &Path, content: &impl Serialize) -> Result<()> {
    let json =
        serde_json::to_vec(content).map_err(|e| Error::new(Code::Internal, "writing").on(path.display()).because(e))?;
    let mut bytes = blake3::hash(&json).to_hex().as_bytes().to_vec();
    bytes.push(b'\n');
    bytes.extend(json);
    replace(path, &bytes)
}

/// What was put, if it is there as it was.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) => {
            if e.kind() != ErrorKind::NotFound {
                tracing::warn!(file = %path.display(), "it cannot be read, and what it tells of is made anew: {e}");
            }
            return None;
        }
    };
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let parts = end.and_then(|end| Some((bytes.get(..end)?, bytes.get(end + 1..)?)));
    let whole = parts.filter(|(checksum, json)| blake3::hash(json).to_hex().as_bytes() == *checksum);
    let content = whole.and_then(|(_, json)| serde_json::from_slice(json).ok());
    if content.is_none() {
        tracing::warn!(file = %path.display(), "it is not as it was written, and what it tells of is made anew");
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_it_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        assert_eq!(read::<u64>(&path), None);
        put(&path, &900_000_u64).unwrap();
        assert_eq!(read::<u64>(&path), Some(900_000));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            // A digit for a digit: still JSON.
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert_eq!(read::<u64>(&path), None, "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read::<u64>(&path), None, "cut at {at}");
        }
    }
}
