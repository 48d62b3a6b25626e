//! The rule, case by case; that RocksDB follows it is shown by the end-to-end programs, which compare numbers.

use super::*;
use crate::{
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::write_batch::{Op, WriteBatchBuilder},
};

fn put(key: &[u8]) -> Op<'_> {
    Op::Put { cf: ColumnFamilyId::DEFAULT, key, value: b"v" }
}

const COMMITTED: Op<'static> = Op::BeginPrepare { policy: WritePolicy::WriteCommitted };
const PREPARED: Op<'static> = Op::BeginPrepare { policy: WritePolicy::WritePrepared };
const UNPREPARED: Op<'static> = Op::BeginPrepare { policy: WritePolicy::WriteUnprepared };

fn end(xid: &[u8]) -> Op<'_> {
    Op::EndPrepare { xid }
}

fn commit(xid: &[u8]) -> Op<'_> {
    Op::Commit { xid }
}

/// What records consume, one after the other.
fn consumed(transactions: &mut Transactions, records: &[&[Op<'_>]]) -> Vec<Advance> {
    records
        .iter()
        .zip(0u64..)
        .map(|(ops, n)| {
            let mut builder = WriteBatchBuilder::new(SequenceNumber::new(1));
            for op in *ops {
                builder.push(op);
            }
            let bytes = builder.finish();
            let batch = WriteBatch::parse(&bytes).unwrap();
            let scanned = transactions.scan(&batch).unwrap();
            transactions.apply(&batch, &scanned, FileNumber::new(7), RecordNumber::new(n)).unwrap()
        })
        .collect()
}

fn exactly(counts: &[u64]) -> Vec<Advance> {
    counts.iter().copied().map(Advance::Exactly).collect()
}

fn names(transactions: &Transactions) -> Vec<String> {
    transactions.pending().map(|(xid, _)| xid.to_string()).collect()
}

#[test]
fn under_write_committed_a_commit_consumes_what_was_prepared() {
    let mut t = Transactions::default();
    let records: &[&[Op<'_>]] = &[
        &[COMMITTED, put(b"a"), put(b"a"), end(b"x")],
        &[put(b"b"), COMMITTED, put(b"c"), end(b"y"), put(b"d")],
        &[put(b"commit time"), commit(b"x")],
        &[Op::Rollback { xid: b"y" }],
        &[Op::Noop, put(b"e"), put(b"e")],
    ];
    assert_eq!(consumed(&mut t, records), exactly(&[0, 2, 3, 0, 2]));
    assert_eq!(t.policy(), Some(WritePolicy::WriteCommitted));
    assert_eq!(t.pending().len(), 0);
}

#[test]
fn under_write_prepared_sub_batches_count_and_a_repeated_key_begins_another() {
    let mut t = Transactions::default();
    let records: &[&[Op<'_>]] = &[
        &[Op::Noop, PREPARED, put(b"a"), put(b"b"), end(b"x")],
        &[PREPARED, put(b"a"), put(b"a"), put(b"a"), end(b"y")],
        &[commit(b"x")],
        &[put(b"a"), put(b"b"), Op::Noop, put(b"c"), Op::Noop],
        &[put(b"undo"), Op::Rollback { xid: b"y" }],
        // A commit whose prepare section was not seen consumes its own number all the same.
        &[commit(b"unseen")],
        &[Op::Noop],
    ];
    assert_eq!(consumed(&mut t, records), exactly(&[1, 3, 1, 2, 1, 1, 0]));
}

#[test]
fn a_put_and_a_range_deletion_that_begin_alike_are_not_the_same_key() {
    let mut t = Transactions::default();
    let range = Op::DeleteRange { cf: ColumnFamilyId::DEFAULT, begin: b"a", end: b"b" };
    let other = Op::Put { cf: ColumnFamilyId::new(3), key: b"a", value: b"" };
    let records: &[&[Op<'_>]] = &[&[PREPARED, put(b"a"), range, other, end(b"x")], &[range, range, Op::Noop]];
    assert_eq!(consumed(&mut t, records), exactly(&[1, 2]));
}

#[test]
fn recovery_counts_a_key_that_comes_a_third_time_wrongly() {
    let miscounts = |keys: &[&[u8]]| {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(1));
        builder.push(&PREPARED);
        for key in keys {
            builder.push(&put(key));
        }
        builder.push(&end(b"x"));
        let bytes = builder.finish();
        recovery_miscounts(&WriteBatch::parse(&bytes).unwrap()).unwrap()
    };
    assert!(!miscounts(&[b"a", b"b", b"c"]) && !miscounts(&[b"a", b"a", b"b"]) && !miscounts(&[b"a", b"b", b"a"]));
    assert!(miscounts(&[b"a", b"a", b"a"]) && miscounts(&[b"a", b"a", b"b", b"a"]));
}

#[test]
fn the_sections_of_an_unprepared_transaction_add_up() {
    let mut t = Transactions::default();
    let records: &[&[Op<'_>]] = &[
        &[UNPREPARED, put(b"a"), put(b"b"), end(b"x")],
        &[UNPREPARED, put(b"c"), end(b"x")],
        &[PREPARED, put(b"d"), end(b"x")],
    ];
    assert_eq!(consumed(&mut t, records), exactly(&[1, 1, 1]));
    assert_eq!(t.policy(), Some(WritePolicy::WriteUnprepared));
    let pending: Vec<_> = t.pending().map(|(_, prepared)| *prepared).collect();
    assert_eq!(pending, [Prepared { operations: 4, wal: FileNumber::new(7), record: RecordNumber::new(0) }]);
}

#[test]
fn a_commit_of_what_was_not_seen_consumes_nobody_knows_how_many() {
    let mut t = Transactions::recovering(Some(WritePolicy::WriteCommitted));
    assert_eq!(consumed(&mut t, &[&[put(b"b"), commit(b"y"), put(b"c")]]), [Advance::AtLeast(2)]);
    let mut t = Transactions::default();
    let records: &[&[Op<'_>]] = &[&[commit(b"y")], &[Op::Rollback { xid: b"z" }]];
    assert_eq!(consumed(&mut t, records), [Advance::AtLeast(0); 2], "nor is the policy known");
}

#[test]
fn without_any_tag_the_policy_shows_where_the_two_rules_differ() {
    let mut t = Transactions::default();
    assert_eq!(consumed(&mut t, &[&[put(b"a"), Op::Noop]]), exactly(&[1]));
    assert_eq!(t.policy(), None, "one operation is one batch");
    assert_eq!(consumed(&mut t, &[&[Op::Noop, put(b"a"), put(b"b")]]), exactly(&[2]));
    assert_eq!(t.policy(), None, "a Noop before the operations is a place kept for a prepare section");
    assert_eq!(consumed(&mut t, &[&[put(b"a"), put(b"b"), Op::Noop]]), exactly(&[1]));
    assert_eq!(t.policy(), Some(WritePolicy::WritePrepared));
}

#[test]
fn a_batch_without_an_end_shows_that_the_policy_is_another_one_now() {
    let mut t = Transactions::default();
    consumed(&mut t, &[&[PREPARED, put(b"a"), end(b"x")], &[commit(b"x")]]);
    assert_eq!(consumed(&mut t, &[&[put(b"a"), put(b"b")]]), exactly(&[2]));
    assert_eq!(t.policy(), None);
}

#[test]
fn what_the_server_took_back_was_never_prepared() {
    let mut t = Transactions::default();
    consumed(&mut t, &[&[COMMITTED, put(b"a"), end(b"x")], &[COMMITTED, end(b"y")]]);
    assert_eq!(names(&t), ["x", "y"]);
    // The record that shows it comes behind them and stays.
    t.withdraw(RecordNumber::new(0), RecordNumber::new(1));
    assert_eq!(names(&t), ["y"]);
}

#[test]
fn a_name_that_is_prepared_again_while_it_is_pending_is_nothing_to_replay() {
    for begin in [COMMITTED, PREPARED] {
        let mut t = Transactions::default();
        let records: &[&[Op<'_>]] = &[&[begin, put(b"a"), end(b"x")], &[begin, put(b"b"), end(b"x")]];
        assert!(matches!(consumed(&mut t, records)[..], [Advance::Exactly(_), Advance::AtLeast(_)]));
    }
}

#[test]
fn it_is_stored_with_any_name() {
    let mut t = Transactions::default();
    consumed(&mut t, &[&[COMMITTED, put(b"a"), end(b"\xff\x00x")], &[COMMITTED, end(b"")]]);
    let json = serde_json::to_string(&t).unwrap();
    assert!(json.contains("\"ff0078\""), "{json}");
    assert_eq!(serde_json::from_str::<Transactions>(&json).unwrap(), t);
    assert!(serde_json::from_str::<Transactions>(&json.replace("ff0078", "ff007")).is_err());
    assert_eq!(serde_json::to_string(&Transactions::default()).unwrap(), "{}");
}
