//! Compares a restored database, key by key, with what the writer noted.
//!
//! Owns: the comparison. The restored copy is opened with RocksDB here, because it is the demo's own and thrown away.

use std::path::Path;

use pitr_archive::{Code, Error, Result};
use rocksdb::{DB, IteratorMode, Options};
use serde::Serialize;

use super::journal::{Contents, Journal, Noted};

/// What was shown for one restored copy.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The target as typed.
    pub target: String,
    /// The restored database's latest sequence number.
    pub sequence: u64,
    /// The writer's write that is the last one in it.
    pub write: u64,
    /// Writes that the writer made in all.
    pub writes: u64,
    /// Keys compared, in all column families.
    pub keys: u64,
    /// Keys by column family.
    pub families: Vec<(String, u64)>,
}

/// Opens the copy in `dir` and compares all of it with the notes at the same sequence number.
pub fn prove<'j>(target: &str, dir: &Path, journal: &'j Journal) -> Result<(Proof, &'j Noted)> {
    let differs = |what: &str| {
        Error::new(Code::VerifyFailed, "comparing the restored copy").on(dir.display()).with("differs", what)
    };
    let (sequence, contents) = read(dir)?;
    let write = journal
        .at_sequence(sequence)
        .ok_or_else(|| differs("its sequence number is not the end of any write").with("sequence", sequence))?;
    let expected = journal.contents_after(write.number);
    if let Some(difference) = first_difference(&expected, &contents) {
        return Err(differs(&difference).with("write", write.number));
    }
    let families: Vec<_> = contents.iter().map(|(name, keys)| (name.clone(), keys.len() as u64)).collect();
    let proof = Proof {
        target: target.to_owned(),
        sequence,
        write: write.number,
        writes: journal.writes().len() as u64,
        keys: families.iter().map(|(_, n)| n).sum(),
        families,
    };
    Ok((proof, write))
}

fn read(dir: &Path) -> Result<(u64, Contents)> {
    let failed =
        |e: rocksdb::Error| Error::new(Code::DatabaseOpen, "opening the restored copy").on(dir.display()).because(e);
    let mut options = Options::default();
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::AbsoluteConsistency);
    let families = DB::list_cf(&options, dir).map_err(failed)?;
    let db = DB::open_cf(&options, dir, &families).map_err(failed)?;
    let mut contents = Contents::new();
    for name in &families {
        let family =
            db.cf_handle(name).ok_or_else(|| Error::new(Code::Internal, "finding a column family").on(name))?;
        for pair in db.iterator_cf(&family, IteratorMode::Start) {
            let (key, value) = pair.map_err(failed)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            contents.entry(name.clone()).or_default().insert(text(&key), text(&value));
        }
    }
    Ok((db.latest_sequence_number(), contents))
}

fn first_difference(expected: &Contents, found: &Contents) -> Option<String> {
    let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
    let empty = Default::default();
    for name in names {
        let (e, f) = (expected.get(name).unwrap_or(&empty), found.get(name).unwrap_or(&empty));
        let keys = e.keys().chain(f.keys().filter(|key| !e.contains_key(*key)));
        for key in keys {
            match (e.get(key), f.get(key)) {
                (Some(a), Some(b)) if a == b => {}
                (a, b) => return Some(format!("{name}/{key}: expected {a:?}, found {b:?}")),
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(pairs: &[(&str, &str, &str)]) -> Contents {
        let mut out = Contents::new();
        for (family, key, value) in pairs {
            out.entry((*family).to_owned()).or_default().insert((*key).to_owned(), (*value).to_owned());
        }
        out
    }

    #[test]
    fn a_missing_key_an_extra_key_and_another_value_are_all_seen() {
        let expected = contents(&[("a", "k", "1"), ("a", "l", "2")]);
        assert_eq!(first_difference(&expected, &expected), None);
        assert!(first_difference(&expected, &contents(&[("a", "k", "1")])).is_some());
        assert!(first_difference(&contents(&[("a", "k", "1")]), &expected).is_some());
        assert!(first_difference(&expected, &contents(&[("a", "k", "1"), ("a", "l", "3")])).is_some());
        assert!(first_difference(&contents(&[]), &contents(&[("b", "k", "1")])).is_some());
    }
}
