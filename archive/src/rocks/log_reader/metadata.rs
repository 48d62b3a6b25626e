//! Records about the log itself: compression, timestamp sizes, predecessor.

use super::{Corruption, LogReader, Metadata, PredecessorWal, Read, WalCompression};
use crate::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::{
        coding::Decoder,
        log_format::{Header, Role, SAFE_IGNORE_MASK},
    },
};

impl LogReader {
    /// A valid record about the log itself.
    pub(super) fn metadata<'b>(&mut self, start: u64, end: u64, header: Header, payload: &[u8]) -> Read<'b> {
        let malformed = Corruption::MalformedMetadata { record_type: header.kind.to_byte(), len: header.len };
        let decoded = match header.kind.role() {
            Role::Compression => self.compression(start, payload).map_err(|e| e.unwrap_or(malformed)),
            Role::TimestampSizes => self.timestamps(payload).map_err(|e| e.unwrap_or(malformed)),
            Role::Predecessor => predecessor(payload).map(Metadata::Predecessor).ok_or(malformed),
            Role::Unknown(record_type) if record_type & SAFE_IGNORE_MASK != 0 => {
                Ok(Metadata::Ignorable { record_type, len: header.len })
            }
            Role::Unknown(record_type) => Err(Corruption::UnknownType { record_type }),
            // A zero type with a length; data roles do not come here.
            Role::Zero | Role::Full | Role::First | Role::Middle | Role::Last => {
                Err(Corruption::UnknownType { record_type: header.kind.to_byte() })
            }
        };
        match decoded {
            Ok(metadata) => {
                match &metadata {
                    Metadata::Compression(compression) => self.state.compression = *compression,
                    Metadata::TimestampSizes(sizes) => self.state.timestamp_sizes.extend_from_slice(sizes),
                    Metadata::Predecessor(_) | Metadata::Ignorable { .. } => {}
                }
                self.advance(end, header.kind);
                Read::Metadata { start, end, metadata }
            }
            Err(reason) => Read::Corrupt { at: start, reason },
        }
    }

    fn compression(&self, start: u64, payload: &[u8]) -> Result<Metadata, Option<Corruption>> {
        if start != 0 {
            return Err(Some(Corruption::CompressionNotFirst));
        }
        let mut decoder = Decoder::new(payload);
        match decoder.fixed32() {
            // RocksDB's kZSTD; nothing else is accepted in a WAL.
            Ok(7) if decoder.is_empty() => Ok(Metadata::Compression(WalCompression::Zstd)),
            Ok(_) if !decoder.is_empty() => Err(None),
            Ok(compression_type) => Err(Some(Corruption::UnsupportedCompression { compression_type })),
            Err(_) => Err(None),
        }
    }

    fn timestamps(&self, payload: &[u8]) -> Result<Metadata, Option<Corruption>> {
        if !payload.len().is_multiple_of(6) {
            return Err(None);
        }
        let mut decoder = Decoder::new(payload);
        let mut sizes: Vec<(ColumnFamilyId, u16)> = Vec::with_capacity(payload.len() / 6);
        while !decoder.is_empty() {
            let column_family = decoder.fixed32().map(ColumnFamilyId::new).map_err(|_| None)?;
            let size = decoder.fixed16().map_err(|_| None)?;
            let known = |seen: &[(ColumnFamilyId, u16)]| seen.iter().any(|(id, _)| *id == column_family);
            if size == 0 || known(&sizes) || known(&self.state.timestamp_sizes) {
                return Err(Some(Corruption::TimestampSizes { column_family }));
            }
            sizes.push((column_family, size));
        }
        Ok(Metadata::TimestampSizes(sizes))
    }
}

fn predecessor(payload: &[u8]) -> Option<PredecessorWal> {
    let mut decoder = Decoder::new(payload);
    let info = PredecessorWal {
        log_number: FileNumber::new(decoder.fixed64().ok()?),
        size_bytes: decoder.fixed64().ok()?,
        last_seqno_recorded: SequenceNumber::new(decoder.fixed64().ok()?),
    };
    decoder.is_empty().then_some(info)
}
