//! WAL decompression: one zstd frame for each logical record, with a limit on what comes out.

use std::fmt;

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Why a record could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Not exactly one complete frame, or its checksum is wrong.
    Damaged,
    /// More than the limit.
    TooLarge,
}

/// A decompression context, kept from record to record because making one is dear.
#[derive(Default)]
pub(super) struct Decompressor(Option<Decoder<'static>>);

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

/// Output grows by this much at a time: a lying frame costs no more than it really decompresses to.
const STEP: usize = 64 * 1024;

impl Decompressor {
    /// Decompresses exactly one frame. An empty record is an empty payload without a frame.
    pub(super) fn decompress(&mut self, frame: &[u8], limit: u64) -> Result<Vec<u8>, Failure> {
        if frame.is_empty() {
            return Ok(Vec::new());
        }
        let decoder = match &mut self.0 {
            Some(decoder) => decoder,
            slot => slot.insert(Decoder::new().map_err(|_| Failure::Damaged)?),
        };
        decoder.reinit().map_err(|_| Failure::Damaged)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut out = Vec::with_capacity(frame.len().saturating_mul(4).min(STEP));
        let mut input = InBuffer::around(frame);
        loop {
            if out.len() == out.capacity() {
                out.reserve(out.len().max(STEP));
            }
            let (read_before, written_before) = (input.pos(), out.len());
            let hint = {
                let mut output = OutBuffer::around_pos(&mut out, written_before);
                decoder.run(&mut input, &mut output).map_err(|_| Failure::Damaged)?
            };
            let (consumed, written) = (input.pos(), out.len());
            if written > limit {
                return Err(Failure::TooLarge);
            }
            if hint == 0 {
                // The frame is complete; anything behind it is not RocksDB's.
                return if consumed == frame.len() { Ok(out) } else { Err(Failure::Damaged) };
            }
            if consumed == read_before && written == written_before && out.len() < out.capacity() {
                // Neither input nor output moved although there was room: the frame is cut off.
                return Err(Failure::Damaged);
            }
        }
    }
}
