//! What a process may use of its machine.
//!
//! Owns: the limits of `[limits]` and of options together (options go first), and lowering the priority of this process
//! before it starts threads, which inherit it. Refuses: raising it, which needs rights that an archiver should not have.

use std::{num::NonZeroU64, sync::Arc};

use pitr_archive::{Code, Error, Result, rate::Rate};

use super::file::Limits;

/// The server goes first where both want the same core: a writer that leaves none free is slowed down by a tenth less, and
/// the archiver catches up as soon as one is.
const NICE: i32 = 10;

/// Limits, each shared by all databases of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Bytes a second that are sent to all stores together.
    pub upload_rate: Option<NonZeroU64>,
    /// Bytes a second that are read for bases, and from logs while behind.
    pub read_rate: Option<NonZeroU64>,
    /// Added to the nice value, 0 to 19.
    pub nice: Option<i32>,
    /// Threads that send and read.
    pub threads: Option<usize>,
}

impl ResourceLimits {
    /// These, and where they say nothing, those of a file.
    pub fn or(self, file: &Limits) -> Self {
        Self {
            upload_rate: self.upload_rate.or(file.upload_rate.map(|v| v.0)),
            read_rate: self.read_rate.or(file.read_rate.map(|v| v.0)),
            nice: self.nice.or(file.nice.map(|v| v.0)),
            threads: self.threads.or(file.threads.map(|v| v.0)),
        }
    }

    /// Lowers the priority of this thread and of those that it starts from now on. The disk's priority follows the nice
    /// value by itself.
    ///
    /// # Errors
    /// `internal` when the system refuses.
    pub fn be_nice(self) -> Result<()> {
        let nice = self.nice.unwrap_or(NICE);
        if nice <= 0 {
            return Ok(());
        }
        match rustix::process::nice(nice) {
            Ok(_) => Ok(()),
            Err(e) if self.nice.is_some() => {
                Err(Error::new(Code::Internal, "lowering the priority of this process").because(e))
            }
            // Nobody asked for it, and a sandbox may not allow it.
            Err(error) => {
                tracing::warn!(%error, "the priority of this process stays as it is");
                Ok(())
            }
        }
    }
}

/// The limits of a running process.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// What is sent.
    pub upload: Option<Arc<Rate>>,
    /// What is read.
    pub read: Option<Arc<Rate>>,
}

impl Rates {
    /// Buckets for these limits.
    pub fn new(limits: ResourceLimits) -> Self {
        let rate = |bytes: Option<NonZeroU64>| bytes.map(|bytes| Arc::new(Rate::new(bytes)));
        Self { upload: rate(limits.upload_rate), read: rate(limits.read_rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_goes_before_the_file() {
        let file: Limits = toml::from_str("upload_rate = \"1MiB\"\nnice = 10\nthreads = 4").unwrap();
        let typed = ResourceLimits { nice: Some(5), ..ResourceLimits::default() };
        let both = typed.or(&file);
        let expected = (NonZeroU64::new(1 << 20), None, Some(5), Some(4));
        assert_eq!((both.upload_rate, both.read_rate, both.nice, both.threads), expected);
    }
}
