//! A part of a database equals that part of the model.

use std::{collections::BTreeMap, sync::Arc};

use pitr_archive::{Code, ids::RecordNumber};
use pitr_replayer::{
    part::{KeyRange, Part},
    plan::{PlanOptions, RestorePlan, engine::EngineChoice, plan},
    progress::Silent,
    restore::{Finish, restore},
    target::Target,
};
use rocksdb::{BottommostLevelCompaction, CompactOptions, DBRecoveryMode};

use super::{Comparison, Expected, remove};
use crate::harness::{
    model::{Content, Family, State},
    server,
};

impl Comparison<'_> {
    /// Restores some column families, or some keys of them, to the record, and compares.
    pub(super) fn check_part(&mut self, record: RecordNumber) {
        let turn = record.get();
        let Some(part) = self.some_part(turn) else { return };
        let engine = if turn.is_multiple_of(3) { EngineChoice::Bulk } else { EngineChoice::Auto };
        let options = PlanOptions { part: Some(part.clone()), engine, ..PlanOptions::default() };
        let target = Target::Record(record);
        let whole = self.archiver.wait(plan(&self.archive, &self.catalog, &target, &PlanOptions::default()));
        let planned = match self.archiver.wait(plan(&self.archive, &self.catalog, &target, &options)) {
            Ok(planned) => planned,
            // A part is refused where the whole is, or for a reason of its own.
            Err(e) => {
                let own = matches!(e.code(), Code::PartUnusable | Code::EngineUnusable);
                assert!(whole.is_err() || own, "{part:?} of record {record}: {e}");
                let Ok(whole) = whole else { return };
                let may_lack = self
                    .accepted(&whole, Expected::First)
                    .into_iter()
                    .any(|state| part.families.iter().any(|name| !state.content.contains_key(name)));
                // Without an OPTIONS file nothing tells whether tables can hold what hides the rest.
                let base = self.catalog.base(&whole.base.id).expect("the plan's base");
                let tells = base.inline.iter().any(|file| file.name.starts_with("OPTIONS-"));
                let untold = !tells && !part.keys.is_all();
                assert!(may_lack || untold || !self.is_plain() || engine == EngineChoice::Bulk, "{part:?}: {e}");
                return;
            }
        };
        assert_eq!(planned.position, whole.expect("a part of what can be restored").position);
        self.restore_part(&planned, &part, turn);
    }

    /// Whether nothing in the program's settings stands against a part.
    fn is_plain(&self) -> bool {
        self.driver.settings.transactions.is_none() && !self.driver.settings.allow_2pc
    }

    /// One that is there at some moment, chosen by `turn`.
    fn some_part(&self, turn: u64) -> Option<Part> {
        let states = &self.driver.model.states;
        let place = self.places.get(usize::try_from(turn).ok()? + 1)?;
        let content = &states.get(place.records)?.first()?.content;
        let names: Vec<&String> = content.keys().collect();
        let chosen: Vec<String> =
            (0..).zip(&names).filter(|(n, _)| turn >> n & 1 == 1).map(|(_, n)| (*n).clone()).collect();
        let keys: Vec<&Vec<u8>> = content.values().flat_map(|family| family.keys()).collect();
        let at = |share: u64| keys.get(usize::try_from(turn * share).ok()? % keys.len().max(1)).copied();
        let range = match turn % 4 {
            0 | 1 => KeyRange::default(),
            2 => at(7).map(|key| KeyRange::prefix(&key[..key.len().min(3)])).unwrap_or_default(),
            _ => at(5).zip(at(11)).and_then(|(a, b)| KeyRange::between(a.min(b), a.max(b))).unwrap_or_default(),
        };
        // One that was created since the record is none of it.
        let part = Part { families: chosen, keys: range };
        (part != Part::default()).then_some(part)
    }

    fn restore_part(&mut self, plan: &RestorePlan, part: &Part, turn: u64) {
        self.restored += 1;
        let into = self.scratch.join(format!("part-{}", self.restored));
        let (mut options, places) = self.driver.restore_to(&into);
        let known = self.driver.settings.without_merge_operator;
        options.finish = if known && turn.is_multiple_of(5) { Finish::Recover } else { Finish::Leave };
        match self.archiver.wait(restore(&self.archive, plan, &options, Arc::new(Silent))) {
            Ok(_) => {}
            // What operations there are is seen when they are read.
            Err(e) if e.code() == Code::EngineUnusable => return,
            Err(e) => panic!("restoring {part:?} of {:?} as planned: {e}\n{plan:#?}", plan.target),
        }
        self.noted.insert("restored a part");
        let accepted = self.accepted(plan, Expected::First);
        let wanted: Vec<Content> = accepted.iter().map(|state| content_of(state, part)).collect();
        let settings = &self.driver.settings;
        let mut options = server::database_options(&places, settings);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        let opened = server::open_with(&into, &options, settings)
            .unwrap_or_else(|e| panic!("the part does not open: {e}\n{plan:#?}"));
        let look = |when: &str| {
            let dump = server::dump(&opened.db, &opened.names)
                .unwrap_or_else(|e| panic!("reading the part {when}: {e}\n{plan:#?}"));
            let content = server::content(dump);
            if !wanted.contains(&content) {
                let state =
                    |content: &Content| State { content: content.clone(), sequence: 0, pending: BTreeMap::new() };
                let differences: Vec<_> = wanted.iter().map(|w| state(w).differences(&state(&content))).collect();
                panic!("{when}, {part:?} is not what it must be: {differences:#?}\n{plan:#?}");
            }
        };
        look("after opening");
        let mut compaction = CompactOptions::default();
        compaction.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for name in &opened.names {
            let family = opened.db.cf_handle(name).expect("a column family");
            opened.db.compact_range_cf_opt(&family, None::<&[u8]>, None::<&[u8]>, &compaction);
        }
        look("after a compaction");
        drop(opened);
        remove(into, places);
    }
}

/// The part of a state. The default column family is always there.
fn content_of(state: &State, part: &Part) -> Content {
    let cut = |family: &Family| -> Family {
        let held = family.iter().filter(|(key, _)| part.keys.holds(key));
        held.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let wanted = |name: &String| part.families.is_empty() || part.families.contains(name);
    let mut content: Content =
        state.content.iter().filter(|(n, _)| wanted(n)).map(|(n, f)| (n.clone(), Arc::new(cut(f)))).collect();
    content.entry("default".to_owned()).or_default();
    content
}
