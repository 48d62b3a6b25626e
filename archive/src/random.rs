//! Randomness as a parameter.
//!
//! Owns: the only call of the system's random source in this crate. Keys, salts and nonces come through [`Random`], so
//! that tests can repeat a run byte for byte. Refuses: a default; whoever needs randomness is given it.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    code::Code,
    error::{Error, Result},
    ids::Nonce,
};

/// Where random bytes come from.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]) -> Result<()>;
}

impl dyn Random + '_ {
    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// A writer's nonce.
    pub fn nonce(&self) -> Result<Nonce> {
        self.bytes().map(Nonce)
    }
}

/// The operating system's source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) -> Result<()> {
        getrandom::fill(out).map_err(|e| Error::new(Code::FileIo, "reading the system's random source").because(e))
    }
}

/// The same bytes for the same seed: for tests only, never for keys that protect something.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    calls: AtomicU64,
}

impl SeededRandom {
    /// A source that begins anew for `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed, calls: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&call.to_le_bytes());
        hasher.finalize_xof().fill(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_calls_differ() {
        let draw = |seed| {
            let source = SeededRandom::new(seed);
            let source: &dyn Random = &source;
            (source.bytes::<16>().unwrap(), source.bytes::<16>().unwrap())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1).0, draw(1).1);
    }

    #[test]
    fn the_system_source_answers() {
        let source: &dyn Random = &OsRandom;
        assert_ne!(source.bytes::<32>().unwrap(), source.bytes::<32>().unwrap());
    }
}
