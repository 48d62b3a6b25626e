use std::{ops::Range, sync::Arc};

use async_trait::async_trait;

use super::*;
use crate::store::{
    Listed, Upload,
    faulty::{Fault, FaultyStore, Request, Schedule},
    memory::MemoryStore,
};

/// A store that creates without looking, as some services do although they accept the condition.
#[derive(Debug)]
struct Careless(MemoryStore);

#[async_trait]
impl Store for Careless {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        // The other creators get their turn between looking and writing.
        tokio::task::yield_now().await;
        self.0.overwrite(key, body);
        Ok(Put::Created)
    }
    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        self.0.upload(key, size_hint).await
    }
    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        self.0.get(key, limit).await
    }
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.0.get_range(key, range).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        self.0.size(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        self.0.list(prefix, after).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.0.delete(key).await
    }
    fn describe(&self) -> String {
        "careless".to_owned()
    }
}

fn code_of(report: &ProbeReport, step: Step) -> Option<Code> {
    report.steps.iter().find(|s| s.step == step).unwrap().error.as_ref().map(Error::code)
}

#[tokio::test]
async fn a_good_store_passes_every_step_and_is_left_as_it_was() {
    let store = MemoryStore::new();
    let report = probe(&store).await;
    assert!(report.ok() && report.exclusive(), "{report:?}");
    assert_eq!(report.steps.len(), 8);
    assert_eq!(store.contents(), vec![]);
    assert!(report.into_result().is_ok());
}

#[tokio::test]
async fn a_store_that_lets_several_creators_win_is_caught_and_everything_else_still_reported() {
    let store = Careless(MemoryStore::new());
    let report = probe(&store).await;
    assert!(!report.ok() && !report.exclusive());
    for step in [Step::CreateTwice, Step::Race] {
        assert_eq!(code_of(&report, step), Some(Code::StoreNotExclusive), "{step:?}");
    }
    for step in [Step::Write, Step::ReadBack, Step::ReadRange, Step::List, Step::Delete, Step::DeleteMissing] {
        assert_eq!(code_of(&report, step), None, "{step:?}");
    }
    assert_eq!(store.0.contents(), vec![]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["steps"][3]["step"], "create-twice");
    assert_eq!(json["steps"][3]["error"]["code"], "store.not-exclusive");
}

#[tokio::test]
async fn a_store_that_is_away_gives_one_failed_step_and_names_what_may_be_left() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), Schedule::default());
    store.set_outage(true);
    let report = probe(&store).await;
    assert_eq!(report.steps.len(), 1);
    assert_eq!(code_of(&report, Step::Write), Some(Code::StoreUnavailable));
    assert_eq!(report.left_behind.len(), 2);
    assert_eq!(report.into_result().unwrap_err().code(), Code::StoreUnavailable);
}

#[tokio::test]
async fn a_step_that_fails_does_not_hide_the_others() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), Schedule::default());
    store.fail_next(Request::GetRange, Fault::BeforeEffect);
    let report = probe(&store).await;
    assert_eq!(code_of(&report, Step::ReadRange), Some(Code::StoreUnavailable));
    assert!(report.exclusive() && !report.ok());
}

#[test]
fn requests_follow_from_the_intervals() {
    let pace = |segment| Pace {
        segment_interval: Duration::from_millis(segment),
        heartbeat_interval: Duration::from_secs(300),
        manifest_interval: Duration::from_secs(300),
    };
    assert_eq!(requests_per_month(pace(1000)), MonthlyRequests { busy: 2_592_000 + 8640, idle: 8640 + 8640 });
    assert_eq!(requests_per_month(pace(10_000)).busy, 259_200 + 8640);
    assert!(requests_per_month(pace(0)).busy > 2_000_000_000);
}
