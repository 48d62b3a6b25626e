//! What people ask of the log, on archives of a real database.

use std::sync::Arc;

use futures::TryStreamExt;
use pitr_archive::{
    Code, Result,
    ids::{RecordNumber, SequenceNumber},
    store::memory::MemoryStore,
};

use super::{LogEntry, LogFilter, Operation, Raw, scan};
use crate::{
    restore::tests::lab::{Lab, Write},
    target::Target,
};

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.put("apple", "1");
    lab.create_family("x");
    lab.write(&Write::Put("x", "apple".to_owned(), "in x".to_owned()));
    lab.write(&Write::Batch(vec![("apricot".to_owned(), "2".to_owned()), ("b\x00\\".to_owned(), "é".to_owned())]));
    lab.write(&Write::Delete("default", "apple".to_owned()));
    lab.write(&Write::DeleteRange("default", "a".to_owned(), "az".to_owned()));
    lab.put("last", "3");
    lab
}

async fn shown(filter: LogFilter) -> Vec<LogEntry> {
    asked(filter).await.unwrap()
}

async fn asked(filter: LogFilter) -> Result<Vec<LogEntry>> {
    let archive = lab().archive(Arc::new(MemoryStore::new()), None, 2).await;
    let catalog = archive.load_catalog().await?;
    scan(&archive, &catalog, filter).await?.try_collect().await
}

fn brief(entries: &[LogEntry]) -> Vec<(u64, Operation, String)> {
    let key = |e: &LogEntry| e.key.as_ref().map_or_else(String::new, ToString::to_string);
    entries.iter().map(|e| (e.record.get(), e.operation, key(e))).collect()
}

#[tokio::test]
async fn every_operation_is_shown_in_order_with_its_sequence_number_and_family() {
    use Operation::{Delete, DeleteRange, Put};
    let entries = shown(LogFilter::default()).await;
    let expected = [
        (0, Put, "apple"),
        (1, Put, "apple"),
        (2, Put, "apricot"),
        (2, Put, "b\\x00\\\\"),
        (3, Delete, "apple"),
        (4, DeleteRange, "a"),
        (5, Put, "last"),
    ];
    assert_eq!(brief(&entries), expected.map(|(r, o, k)| (r, o, k.to_owned())));
    let sequences: Vec<_> = entries.iter().map(|e| e.sequence.map(SequenceNumber::get)).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7].map(Some));
    let family = entries[1].column_family.as_ref().unwrap();
    assert_eq!((family.id.get(), family.name.as_deref()), (1, Some("x")));
    assert_eq!(entries[3].value.as_ref().unwrap().to_string(), "\\xc3\\xa9");
    assert_eq!(entries[5].value, Some(Raw("az".into())), "a range shows its end");
}

#[tokio::test]
async fn filters_narrow_by_place_family_key_prefix_and_number() {
    let record = |n| Some(Target::Record(RecordNumber::new(n)));
    let records = |entries: Vec<LogEntry>| entries.iter().map(|e| e.record.get()).collect::<Vec<_>>();
    let all = LogFilter::default;
    assert_eq!(records(shown(LogFilter { from: record(2), to: record(3), ..all() }).await), [2, 2, 3]);
    assert_eq!(records(shown(LogFilter { column_family: Some("x".to_owned()), ..all() }).await), [1]);
    assert_eq!(records(shown(LogFilter { column_family: Some("1".to_owned()), ..all() }).await), [1], "by id");
    for unanswerable in [
        LogFilter { column_family: Some("no".to_owned()), ..all() },
        LogFilter { from: record(4), to: record(2), ..all() },
    ] {
        assert_eq!(asked(unanswerable).await.unwrap_err().code(), Code::Usage);
    }
    // A range that holds the key is part of the key's history.
    assert_eq!(records(shown(LogFilter { key: Some(b"apple".to_vec()), ..all() }).await), [0, 1, 3, 4]);
    assert_eq!(records(shown(LogFilter { prefix: Some(b"apr".to_vec()), ..all() }).await), [2, 4]);
    assert_eq!(records(shown(LogFilter { limit: Some(3), ..all() }).await), [0, 1, 2]);
    assert!(shown(LogFilter { limit: Some(0), ..all() }).await.is_empty());
    let sequence = Some(Target::Sequence(SequenceNumber::new(4)));
    assert_eq!(
        records(shown(LogFilter { from: sequence.clone(), ..all() }).await),
        [3, 4, 5],
        "what follows the place"
    );
    assert_eq!(records(shown(LogFilter { to: sequence, ..all() }).await), [0, 1, 2, 2]);
    assert_eq!(records(shown(LogFilter { to: Some(Target::Latest), from: record(5), ..all() }).await), [5]);
}

#[tokio::test]
async fn a_damaged_segment_is_an_error_and_not_an_end() {
    let store = MemoryStore::new();
    let archive = lab().archive(Arc::new(store.clone()), None, 2).await;
    let catalog = archive.load_catalog().await.unwrap();
    let (key, body) = store.contents().into_iter().filter(|(k, _)| k.segment_ordinal().is_some()).nth(1).unwrap();
    let mut damaged = body.to_vec();
    let place = damaged.len() / 2;
    damaged[place] ^= 1;
    store.overwrite(&key, damaged.into());
    let outcome: Result<Vec<LogEntry>, _> =
        scan(&archive, &catalog, LogFilter::default()).await.unwrap().try_collect().await;
    assert_eq!(outcome.unwrap_err().code(), Code::SegmentDamaged);
}
