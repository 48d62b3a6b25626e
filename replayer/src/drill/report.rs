//! The report of a drill, from what it came to.
//!
//! Owns: the verdict, and which error is a failure of the drill: everything that would have kept a real restore from its end, on
//! this machine too. Pure.

use pitr_archive::{
    Error,
    catalog::schema::{
        DOCUMENT_VERSION, DrillChecks, DrillDocument, DrillEstimate, DrillFailure, DrillPlace, DrillPlan, DrillTarget,
        DrillTimes, DrillVerdict, Extra, Position,
    },
    clock::Micros,
    ids::{ArchiveId, BaseId, Nonce},
};

use crate::{
    estimate::{Size, engine_name},
    plan::RestorePlan,
};

/// What is known while a drill is under way.
#[derive(Debug)]
pub(super) struct Draft {
    pub target: DrillTarget,
    pub plan: Option<DrillPlan>,
    pub at_risk_micros: Option<u64>,
    pub estimate: Option<DrillEstimate>,
    pub took: DrillTimes,
    pub checked: DrillChecks,
}

/// What a report is apart from its findings.
#[derive(Debug)]
pub(super) struct Frame {
    pub archive: ArchiveId,
    pub id: BaseId,
    pub place: DrillPlace,
    pub created: Micros,
    pub ended: Micros,
    pub nonce: Nonce,
}

impl Draft {
    pub fn new(target: DrillTarget) -> Self {
        let (took, checked) = (DrillTimes::default(), DrillChecks::default());
        Self { target, plan: None, at_risk_micros: None, estimate: None, took, checked }
    }

    /// What is planned.
    pub fn planned(&mut self, plan: &RestorePlan) {
        let Size { engine, download_bytes, log_bytes } = plan.into();
        let p = &plan.position;
        self.plan = Some(DrillPlan {
            position: Position {
                timeline: p.timeline,
                boundary: p.boundary,
                hash: p.hash,
                wal: p.wal,
                offset: None,
                sequence: p.sequence,
            },
            base: plan.base.id.clone(),
            engine: engine_name(engine).to_owned(),
            download_bytes,
            file_bytes: plan.base.bytes,
            log_bytes,
            records: p.boundary.get().saturating_sub(plan.base.first_record.get()),
        });
    }

    /// The report.
    pub fn finish(self, frame: Frame, failure: Option<&Error>) -> DrillDocument {
        let Frame { archive, id, place, created, ended, nonce } = frame;
        let Self { target, plan, at_risk_micros, estimate, took, checked } = self;
        let failure = failure.map(|e| DrillFailure { code: e.code().name().to_owned(), text: e.to_string() });
        let verdict = match &failure {
            Some(_) => DrillVerdict::Failed,
            None if checked.unopened.is_empty() => DrillVerdict::Passed,
            None => DrillVerdict::StructureOnly,
        };
        DrillDocument {
            version: DOCUMENT_VERSION,
            archive,
            id,
            target,
            place,
            plan,
            at_risk_micros,
            estimate,
            took,
            checked,
            verdict,
            failure,
            created,
            ended,
            nonce,
            extra: Extra::new(),
        }
    }
}
