//! What the sequence model costs, against reading the same log without it. Run by `make bench`.
//!
//! Reading means what an archiver does with a log in any case: framing, checksums, a copy of each record, one pass over
//! its operations that proves them decodable, the hash over the log's records so far, and the running hash. The model is
//! what comes on top: how many sequence numbers each record consumes. The same is told without the two hashes, too, against
//! the bare decoder. Both sides alternate over the same bytes in memory; medians of seven rounds.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use pitr_archive::{
    ids::{ColumnFamilyId, FileNumber, RecordNumber, RunningHash, SequenceNumber},
    rocks::{
        log_reader::{Finality, LogKind, LogReader, Read},
        log_writer::LogWriter,
        transactions::{Advance, Scanned, Transactions},
        write_batch::{Op, Summary, WriteBatch, WriteBatchBuilder, WritePolicy},
    },
    segment::{
        chain::{Chain, HashKey, Leaf, WalPrefix},
        entry::Record,
    },
};

const RECORDS: u64 = 300_000;
const ROUNDS: usize = 7;

/// A log of batches with one to sixteen puts; with `policy`, every second one is a prepared transaction.
fn log(policy: Option<WritePolicy>) -> Vec<u8> {
    let (mut bytes, mut writer) = (Vec::new(), LogWriter::new(0));
    let mut sequence = 1;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for n in 0..RECORDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ops = (random >> 60) + 1;
        let (xid, prepared) = (n.to_le_bytes(), policy.filter(|_| n % 2 == 0));
        let mut batch = WriteBatchBuilder::new(SequenceNumber::new(sequence));
        if let Some(policy) = prepared {
            batch.push(&Op::BeginPrepare { policy });
        }
        for op in 0..ops {
            let key = (random ^ op.wrapping_mul(0x1234_5678_9ABC_DEF1)).to_be_bytes();
            batch.push(&Op::Put { cf: ColumnFamilyId::DEFAULT, key: &key, value: &[b'v'; 100] });
        }
        match (policy, prepared) {
            (_, Some(_)) => drop(batch.push(&Op::EndPrepare { xid: &xid })),
            (Some(WritePolicy::WriteCommitted) | None, _) => {}
            (Some(_), None) => drop(batch.push(&Op::Noop)),
        }
        writer.append(&batch.finish(), &mut bytes);
        if prepared.is_some() {
            let mut batch = WriteBatchBuilder::new(SequenceNumber::new(sequence));
            batch.push(&Op::Commit { xid: &xid });
            writer.append(&batch.finish(), &mut bytes);
        }
        sequence += ops;
    }
    bytes
}

/// What a pass does beside decoding.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Work {
    hashes: bool,
    model: bool,
}

/// Time for one pass, and what it found, so that nothing of it can be left out.
fn pass(bytes: &[u8], Work { hashes, model }: Work) -> (Duration, u64) {
    let started = Instant::now();
    let (mut prefix, mut chain) = (WalPrefix::new(&HashKey::CLEAR), Chain::at(RunningHash::ZERO));
    let mut transactions = Transactions::default();
    let (mut summary, mut scanned) = (Summary::default(), Scanned::default());
    let (mut numbers, mut record) = (0, 0);
    for answer in LogReader::new(LogKind::Wal(FileNumber::new(4))).read_all(bytes, Finality::Final) {
        let Read::Record { start, end, payload, .. } = answer else { continue };
        let payload = std::hint::black_box(payload.into_owned());
        let batch = WriteBatch::parse(&payload).unwrap();
        if model {
            transactions.scan_into(&batch, &mut scanned).unwrap();
            numbers += scanned.summary.data_ops;
            let applied = transactions.apply(&batch, &scanned, FileNumber::new(4), RecordNumber::new(record));
            let Advance::Exactly(advance) = applied.unwrap() else { panic!("every section is there") };
            numbers += advance;
        } else {
            batch.scan_into(&mut summary).unwrap();
            numbers += summary.data_ops;
        }
        record += 1;
        if hashes {
            let read = Record { wal: FileNumber::new(4), start, end, payload: payload.into() };
            prefix.push(&read);
            let head = read.head().unwrap();
            std::hint::black_box(chain.push(Leaf::of(&HashKey::CLEAR, &[&head, &read.payload])));
        }
    }
    std::hint::black_box(prefix.value());
    (started.elapsed(), std::hint::black_box(numbers))
}

fn main() {
    let cases = [
        ("without transactions", None),
        ("half of it prepared, WriteCommitted", Some(WritePolicy::WriteCommitted)),
        ("half of it prepared, WritePrepared", Some(WritePolicy::WritePrepared)),
    ];
    for (name, policy) in cases {
        let bytes = log(policy);
        for (what, hashes) in [("reading", true), ("decoding only", false)] {
            let (mut plain, mut with) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                plain.push(pass(&bytes, Work { hashes, model: false }).0);
                with.push(pass(&bytes, Work { hashes, model: true }).0);
            }
            plain.sort();
            with.sort();
            let (plain, with) = (plain[ROUNDS / 2].as_secs_f64(), with[ROUNDS / 2].as_secs_f64());
            let rate = bytes.len() as f64 / plain / 1e6;
            println!(
                "sequence model, {name}: {what} {rate:.0} MB/s, {:+.1} % with the model",
                (with / plain - 1.0) * 100.0
            );
        }
    }
}
