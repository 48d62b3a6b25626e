//! One number that stands for all of a log.
//!
//! Owns: the checksum over the headers of a log's fragments. Each header has the checksum of what it holds, so that no byte
//! needs to be summed up twice: a writer adds its headers as it makes them ([`super::log_writer::LogWriter::sum`]), and
//! whoever reads the log again compares every fragment with its header on the way.
//! Refuses: recyclable headers; a restore writes none.

use serde::{Deserialize, Serialize};

use super::log_format::{BLOCK_SIZE, HEADER_SIZE, valid_record};

#[allow(clippy::cast_possible_truncation)] // 32 KiB
const BLOCK: usize = BLOCK_SIZE as usize;
#[allow(clippy::cast_possible_truncation)] // 7
const HEADER: usize = HEADER_SIZE as usize;

/// The sum of some headers, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogSum(pub(super) u32);

impl LogSum {
    /// The next header.
    pub(super) fn add(&mut self, header: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, header);
    }

    /// Adds the headers of the log's next bytes, which begin a block; only the last of a log may end within one. Answers
    /// whether all fragments are as their headers say, and nothing lies between them.
    #[must_use]
    pub fn add_blocks(&mut self, bytes: &[u8]) -> bool {
        bytes.chunks(BLOCK).all(|block| self.add_block(block).is_some())
    }

    fn add_block(&mut self, mut rest: &[u8]) -> Option<()> {
        while rest.iter().any(|byte| *byte != 0) {
            let size = valid_record(rest, 0)?;
            self.add(rest.get(..HEADER)?);
            rest = rest.get(usize::try_from(size).ok()?..)?;
        }
        // The end of a block stays empty where no header has room, or what may not be cut.
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::log_writer::LogWriter, *};
    use crate::ids::ColumnFamilyId;

    /// A log with records of these lengths, and its sum.
    fn written(lengths: &[usize]) -> (Vec<u8>, LogSum) {
        let (mut writer, mut log) = (LogWriter::new(0), Vec::new());
        for (n, length) in lengths.iter().enumerate() {
            writer.append_timestamp_sizes(&[(ColumnFamilyId::new(n as u32), 8)], &mut log);
            writer.append(&vec![n as u8; *length], &mut log);
        }
        (log, writer.sum())
    }

    fn found(log: &[u8]) -> Option<LogSum> {
        let mut sum = LogSum::default();
        sum.add_blocks(log).then_some(sum)
    }

    #[test]
    fn a_log_has_the_sum_that_its_writer_had_and_changed_anywhere_another_or_none() {
        for lengths in [&[][..], &[0], &[1, 2, 3], &[32_761, 5], &[32_748, 5], &[32_735, 7, 100_000, 65_000, 0]] {
            let (log, sum) = written(lengths);
            assert_eq!(found(&log), Some(sum), "{lengths:?}");
            let places = (0..log.len()).step_by(1 + log.len() / 400).chain(log.len().saturating_sub(1)..log.len());
            for at in places.chain((1..=log.len() / 32_768).flat_map(|block| block * 32_768 - 8..block * 32_768 + 8)) {
                let Some(byte) = log.get(at).copied() else { continue };
                let mut changed = log.clone();
                changed[at] = byte ^ 0x10;
                assert_ne!(found(&changed), Some(sum), "{lengths:?} at {at}");
            }
        }
    }

    #[test]
    fn the_order_of_blocks_counts() {
        let (log, sum) = written(&[32_761, 32_761, 32_761]);
        let (first, second) = (log[..32_768].to_vec(), log[32_768..65_536].to_vec());
        let exchanged = [second, first, log[65_536..].to_vec()].concat();
        assert_ne!(found(&exchanged), Some(sum));
    }
}
