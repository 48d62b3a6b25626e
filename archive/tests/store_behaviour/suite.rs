//! The promises, one function each. Every function uses keys of its own below `segments/` or `files/`.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use pitr_archive::{
    code::Code,
    error::Result,
    object_key::ObjectKey,
    store::{Put, Store, probe::probe},
};

const MIB: usize = 1 << 20;

/// Everything, on an empty store.
pub async fn all(store: Arc<dyn Store>) {
    an_empty_store_has_nothing(&*store).await;
    what_is_created_is_read_back_and_never_overwritten(&*store).await;
    ranges_are_exact(&*store).await;
    an_object_above_the_limit_is_refused(&*store).await;
    listings_are_sorted_complete_and_cut(&*store).await;
    deleting_is_idempotent_and_frees_the_name(&*store).await;
    uploads_are_exclusive_and_whole(&*store).await;
    an_upload_that_is_given_up_leaves_nothing(&*store).await;
    one_creator_wins(&store).await;
    let report = probe(&*store).await;
    assert!(report.ok() && report.exclusive(), "{report:?}");
    assert!(store.list("probe/", None).await.unwrap().is_empty(), "the probe cleans up");
}

pub fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code()
}

/// Bytes in which no piece equals another.
pub fn pattern(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn an_empty_store_has_nothing(store: &dyn Store) {
    let absent = key("segments/0/absent.seg");
    assert_eq!(store.get(&absent, 10).await.unwrap(), None);
    assert_eq!(store.get_range(&absent, 0..1).await.unwrap(), None);
    assert_eq!(store.get_range(&absent, 0..0).await.unwrap(), None);
    assert_eq!(store.size(&absent).await.unwrap(), None);
    assert_eq!(store.list("", None).await.unwrap(), vec![]);
    assert_eq!(store.list("segments/0/", None).await.unwrap(), vec![]);
    store.delete(&absent).await.unwrap();
}

async fn what_is_created_is_read_back_and_never_overwritten(store: &dyn Store) {
    let k = key("segments/1/a.seg");
    let body = pattern(100_000);
    assert_eq!(store.put(&k, body.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.put(&k, Bytes::from_static(b"other")).await.unwrap(), Put::Exists);
    assert_eq!(store.get(&k, 100_000).await.unwrap(), Some(body));
    assert_eq!(store.size(&k).await.unwrap(), Some(100_000));
}

async fn ranges_are_exact(store: &dyn Store) {
    let k = key("segments/2/a.seg");
    let body = pattern(10_000);
    assert_eq!(store.put(&k, body.clone()).await.unwrap(), Put::Created);
    for range in [0..1, 0..10_000, 9_999..10_000, 17..4711, 5..5, 10_000..10_000] {
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert_eq!(store.get_range(&k, range).await.unwrap(), Some(body.slice(start..end)));
    }
    for range in [0..10_001, 9_999..10_001, 10_000..10_001, 20_000..20_010, 20_000..20_000] {
        assert_eq!(code(store.get_range(&k, range.clone()).await), Code::ObjectDamaged, "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "the caller's mistake that is tested")]
    let backwards = 5..4;
    assert_eq!(code(store.get_range(&k, backwards).await), Code::Internal);
}

async fn an_object_above_the_limit_is_refused(store: &dyn Store) {
    let k = key("segments/3/a.seg");
    assert_eq!(store.put(&k, pattern(1000)).await.unwrap(), Put::Created);
    assert_eq!(code(store.get(&k, 999).await), Code::ObjectTooLarge);
    assert_eq!(store.get(&k, 1000).await.unwrap().map(|b| b.len()), Some(1000));
}

async fn listings_are_sorted_complete_and_cut(store: &dyn Store) {
    let names: Vec<_> = (0..25_u32).map(|i| key(&format!("segments/0000000004/{:020}.seg", i * 7919 % 25))).collect();
    for (i, name) in names.iter().enumerate() {
        assert_eq!(store.put(name, pattern(i + 1)).await.unwrap(), Put::Created);
    }
    // Neighbours that only begin alike, and one deeper.
    for other in ["segments/00000000041/x.seg", "segments/0000000004.doc", "segments/0000000004/sub/x.seg"] {
        assert_eq!(store.put(&key(other), pattern(3)).await.unwrap(), Put::Created);
    }
    let mut expected: Vec<_> = names.iter().enumerate().map(|(i, n)| (n.clone(), i as u64 + 1)).collect();
    expected.push((key("segments/0000000004/sub/x.seg"), 3));
    expected.sort();
    let below = "segments/0000000004/";
    let pairs = |l: Vec<pitr_archive::store::Listed>| l.into_iter().map(|l| (l.key, l.size)).collect::<Vec<_>>();
    assert_eq!(pairs(store.list(below, None).await.unwrap()), expected);
    for cut in [0, 12, 24, 25] {
        let after = &expected[cut].0;
        assert_eq!(pairs(store.list(below, Some(after)).await.unwrap()), expected[cut + 1..], "after {after}");
    }
    // `after` need not exist, nor lie below the prefix.
    let between = key("segments/0000000004/00000000000000000003.sef");
    assert_eq!(pairs(store.list(below, Some(&between)).await.unwrap()), expected[3..]);
    assert_eq!(pairs(store.list(below, Some(&key("bases/x.doc"))).await.unwrap()), expected);
    assert_eq!(pairs(store.list(below, Some(&key("tags/x.doc"))).await.unwrap()), vec![]);
    let everything = store.list("", None).await.unwrap();
    assert!(everything.is_sorted() && everything.len() > expected.len(), "{everything:?}");
    assert_eq!(code(store.list("segments", None).await), Code::Internal, "a prefix ends with '/'");
}

async fn deleting_is_idempotent_and_frees_the_name(store: &dyn Store) {
    let k = key("segments/5/a.seg");
    assert_eq!(store.put(&k, pattern(10)).await.unwrap(), Put::Created);
    store.delete(&k).await.unwrap();
    assert_eq!(store.get(&k, 10).await.unwrap(), None);
    store.delete(&k).await.unwrap();
    assert_eq!(store.put(&k, pattern(11)).await.unwrap(), Put::Created);
    assert_eq!(store.size(&k).await.unwrap(), Some(11));
}

async fn upload(store: &dyn Store, k: &ObjectKey, body: &Bytes, piece: usize) -> Put {
    let mut upload = store.upload(k, body.len() as u64).await.unwrap();
    for start in (0..body.len()).step_by(piece) {
        upload.write(body.slice(start..body.len().min(start + piece))).await.unwrap();
    }
    upload.finish().await.unwrap()
}

async fn uploads_are_exclusive_and_whole(store: &dyn Store) {
    // Smaller than a part, exactly parts, and with a rest; in pieces that divide nothing.
    for (i, (length, piece)) in
        [(1, 1), (300_000, 7_777), (8 * MIB, 1 << 20), (16 * MIB, 5 * MIB), (20 * MIB + 3, 3 * MIB + 1)]
            .into_iter()
            .enumerate()
    {
        let k = key(&format!("files/upload-{i}.dat"));
        let body = pattern(length);
        assert_eq!(upload(store, &k, &body, piece).await, Put::Created, "{length}");
        assert_eq!(store.size(&k).await.unwrap(), Some(length as u64));
        assert_eq!(upload(store, &k, &pattern(length.max(2) / 2), piece).await, Put::Exists, "{length}");
        assert!(store.get(&k, length as u64).await.unwrap().unwrap() == body, "{length} bytes come back as they were");
        assert_eq!(store.put(&k, pattern(1)).await.unwrap(), Put::Exists);
    }
}

async fn an_upload_that_is_given_up_leaves_nothing(store: &dyn Store) {
    let k = key("files/given-up.dat");
    for length in [10, 9 * MIB] {
        let mut given_up = store.upload(&k, 0).await.unwrap();
        given_up.write(pattern(length)).await.unwrap();
        assert_eq!(store.get(&k, 1 << 30).await.unwrap(), None, "invisible while it is written");
        given_up.abort().await.unwrap();
        let mut dropped = store.upload(&k, 0).await.unwrap();
        dropped.write(pattern(length)).await.unwrap();
        drop(dropped);
        assert_eq!(store.size(&k).await.unwrap(), None);
    }
    assert_eq!(store.put(&k, pattern(1)).await.unwrap(), Put::Created);
}

async fn one_creator_wins(store: &Arc<dyn Store>) {
    for race in 0..10 {
        let k = key(&format!("segments/6/{race}.seg"));
        let creators = (0..6_u8).map(|i| {
            let (store, k) = (Arc::clone(store), k.clone());
            tokio::spawn(async move {
                let body = Bytes::from(vec![i; 1000]);
                if i % 2 == 0 { store.put(&k, body).await.unwrap() } else { upload(&*store, &k, &body, 300).await }
            })
        });
        let answers: Vec<_> = join_all(creators).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = (0..6_u8).zip(&answers).filter(|(_, a)| **a == Put::Created).map(|(i, _)| i).collect();
        assert_eq!(winners.len(), 1, "race {race}: {answers:?}");
        assert_eq!(store.get(&k, 1000).await.unwrap(), Some(Bytes::from(vec![winners[0]; 1000])));
    }
}
