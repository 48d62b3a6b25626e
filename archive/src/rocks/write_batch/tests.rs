use proptest::prelude::*;

use super::*;

/// An operation that owns its bytes, so that proptest can make and shrink it.
#[derive(Clone, Debug)]
struct OwnedOp(u8, u32, Vec<u8>, Vec<u8>, u64);

impl OwnedOp {
    fn as_op(&self) -> Op<'_> {
        let (cf, a, b) = (ColumnFamilyId::new(self.1), self.2.as_slice(), self.3.as_slice());
        match self.0 {
            0 => Op::Put { cf, key: a, value: b },
            1 => Op::Delete { cf, key: a },
            2 => Op::SingleDelete { cf, key: a },
            3 => Op::Merge { cf, key: a, operand: b },
            4 => Op::DeleteRange { cf, begin: a, end: b },
            5 => Op::PutEntity { cf, key: a, entity: b },
            6 => Op::TimedPut { cf, key: a, value: b, unix_time: self.4 },
            7 => Op::BlobIndex { cf, key: a, index: b },
            8 => Op::LogData { blob: a },
            9 => Op::Noop,
            10 => Op::Commit { xid: a },
            11 => Op::CommitWithTimestamp { xid: a, timestamp: b },
            _ => Op::Rollback { xid: a },
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<OwnedOp>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let cf = prop_oneof![Just(0u32), 1u32..5, any::<u32>()];
    prop::collection::vec(
        (0u8..13, cf, bytes(), bytes(), any::<u64>()).prop_map(|(t, c, a, b, n)| OwnedOp(t, c, a, b, n)),
        0..40,
    )
}

proptest! {
    #[test]
    fn batches_round_trip(sequence in 0u64..1 << 56, ops in ops()) {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(sequence));
        for op in &ops {
            builder.push(&op.as_op());
        }
        let bytes = builder.finish();
        let batch = WriteBatch::parse(&bytes).unwrap();
        prop_assert_eq!(batch.sequence().get(), sequence);
        let decoded: Vec<_> = batch.ops().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(decoded, ops.iter().map(OwnedOp::as_op).collect::<Vec<_>>());
        let summary = batch.scan().unwrap();
        prop_assert_eq!(summary.data_ops, u64::from(batch.count()));
        let families: BTreeSet<_> = ops.iter().filter_map(|o| o.as_op().column_family()).collect();
        prop_assert_eq!(summary.column_families, families);
    }

    #[test]
    fn a_truncated_batch_is_an_error_and_never_a_shorter_one(ops in ops(), cut in any::<prop::sample::Index>()) {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(1));
        let mut ends = vec![HEADER_SIZE];
        for op in &ops {
            builder.push(&op.as_op());
            ends.push(builder.clone().finish().len());
        }
        let bytes = builder.finish();
        let cut = cut.index(bytes.len() + 1);
        let result = WriteBatch::parse(&bytes[..cut]).and_then(|b| b.ops().collect::<Result<Vec<_>, _>>());
        prop_assert_eq!(result.is_ok(), ends.contains(&cut));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(batch) = WriteBatch::parse(&bytes) {
            let _ = batch.scan();
            prop_assert!(batch.ops().count() <= bytes.len());
        }
    }
}

/// The bytes that RocksDB writes, tag by tag.
#[test]
fn every_tag_is_decoded() {
    let cf = ColumnFamilyId::new(300);
    let default = ColumnFamilyId::DEFAULT;
    let time = 9u64.to_le_bytes();
    let timed: Vec<u8> = [&[9, b'v'][..], &time[..]].concat();
    let cases: Vec<(Vec<u8>, Op<'_>)> = vec![
        (vec![0x00, 1, b'k'], Op::Delete { cf: default, key: b"k" }),
        (vec![0x01, 1, b'k', 1, b'v'], Op::Put { cf: default, key: b"k", value: b"v" }),
        (vec![0x02, 1, b'k', 1, b'v'], Op::Merge { cf: default, key: b"k", operand: b"v" }),
        (vec![0x03, 1, b'l'], Op::LogData { blob: b"l" }),
        (vec![0x04, 0xac, 2, 1, b'k'], Op::Delete { cf, key: b"k" }),
        (vec![0x05, 0xac, 2, 1, b'k', 1, b'v'], Op::Put { cf, key: b"k", value: b"v" }),
        (vec![0x06, 0xac, 2, 1, b'k', 1, b'v'], Op::Merge { cf, key: b"k", operand: b"v" }),
        (vec![0x07, 1, b'k'], Op::SingleDelete { cf: default, key: b"k" }),
        (vec![0x08, 0xac, 2, 1, b'k'], Op::SingleDelete { cf, key: b"k" }),
        (vec![0x09], Op::BeginPrepare { policy: WritePolicy::WriteCommitted }),
        (vec![0x0a, 1, b'x'], Op::EndPrepare { xid: b"x" }),
        (vec![0x0b, 1, b'x'], Op::Commit { xid: b"x" }),
        (vec![0x0c, 1, b'x'], Op::Rollback { xid: b"x" }),
        (vec![0x0d], Op::Noop),
        (vec![0x0e, 0xac, 2, 1, b'a', 1, b'b'], Op::DeleteRange { cf, begin: b"a", end: b"b" }),
        (vec![0x0f, 1, b'a', 1, b'b'], Op::DeleteRange { cf: default, begin: b"a", end: b"b" }),
        (vec![0x10, 0xac, 2, 1, b'k', 1, b'i'], Op::BlobIndex { cf, key: b"k", index: b"i" }),
        (vec![0x11, 1, b'k', 1, b'i'], Op::BlobIndex { cf: default, key: b"k", index: b"i" }),
        (vec![0x12], Op::BeginPrepare { policy: WritePolicy::WritePrepared }),
        (vec![0x13], Op::BeginPrepare { policy: WritePolicy::WriteUnprepared }),
        (vec![0x15, 1, b't', 1, b'x'], Op::CommitWithTimestamp { timestamp: b"t", xid: b"x" }),
        (vec![0x16, 1, b'k', 1, b'e'], Op::PutEntity { cf: default, key: b"k", entity: b"e" }),
        (vec![0x17, 0xac, 2, 1, b'k', 1, b'e'], Op::PutEntity { cf, key: b"k", entity: b"e" }),
        ([&[0x18, 1, b'k'][..], &timed].concat(), Op::TimedPut { cf: default, key: b"k", value: b"v", unix_time: 9 }),
        ([&[0x19, 0xac, 2, 1, b'k'][..], &timed].concat(), Op::TimedPut { cf, key: b"k", value: b"v", unix_time: 9 }),
    ];
    for (bytes, op) in cases {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(5));
        builder.push(&op);
        let built = builder.finish();
        assert_eq!(&built[HEADER_SIZE..], &bytes[..], "{op:?}");
        let batch = WriteBatch::parse(&built).unwrap();
        assert_eq!(batch.ops().collect::<Vec<_>>(), [Ok(op)]);
        assert_eq!(batch.count(), u32::from(op.is_data()));
    }
    for tag in [0x14, 0x1a, 0x7f, 0xff] {
        let bytes = [&[0; HEADER_SIZE][..], &[tag, 0, 0]].concat();
        let batch = WriteBatch::parse(&bytes).unwrap();
        assert_eq!(batch.scan(), Err(BatchError::UnknownTag { offset: HEADER_SIZE, tag }));
    }
}

#[test]
fn prepared_operations_are_counted_but_consume_nothing_by_themselves() {
    let put = Op::Put { cf: ColumnFamilyId::DEFAULT, key: b"k", value: b"v" };
    let mut builder = WriteBatchBuilder::new(SequenceNumber::new(7));
    builder.push(&put);
    builder.push(&Op::BeginPrepare { policy: WritePolicy::WriteCommitted });
    builder.push(&put).push(&put);
    builder.push(&Op::EndPrepare { xid: b"x" });
    let bytes = builder.finish();
    let summary = WriteBatch::parse(&bytes).unwrap().scan().unwrap();
    assert_eq!((summary.data_ops, summary.prepared_ops, summary.unprepared_ops()), (3, 2, 1));
    assert_eq!(summary.sequence_advance(), None);
    assert_eq!(summary.two_phase.unwrap().policy, Some(WritePolicy::WriteCommitted));
}

#[test]
fn a_wrong_count_and_unbalanced_sections_are_errors() {
    let mut builder = WriteBatchBuilder::new(SequenceNumber::new(7));
    builder.push(&Op::Delete { cf: ColumnFamilyId::DEFAULT, key: b"k" });
    let mut bytes = builder.finish();
    bytes[8] = 2;
    assert_eq!(WriteBatch::parse(&bytes).unwrap().scan(), Err(BatchError::WrongCount { header: 2, found: 1 }));

    let begin = Op::BeginPrepare { policy: WritePolicy::WriteCommitted };
    for ops in [&[begin][..], &[Op::EndPrepare { xid: b"x" }], &[begin, begin]] {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(7));
        for op in ops {
            builder.push(op);
        }
        let bytes = builder.finish();
        let error = WriteBatch::parse(&bytes).unwrap().scan().unwrap_err();
        assert!(matches!(error, BatchError::UnbalancedPrepare { .. }), "{error}");
    }
    assert_eq!(WriteBatch::parse(&[0; 11]).unwrap_err(), BatchError::TooSmall { len: 11 });
}
