//! A restore for no other reason than to see that it works, and how long it takes.
//!
//! Owns: the order. A position is chosen and planned (`target`), restored into a directory of its own (`scratch`) by the
//! code that every restore uses, held as every restore holds it; its files are compared with its MANIFEST, it is opened and read
//! (`checks`), compared with what an earlier drill found there (`compare`), given to the operator's own check, and removed.
//! What came of it is reported into the archive (`report`), also where it failed.
//! Refuses: a target that somebody named and that cannot be reached: that is an answer, and no failed drill. To claim more
//! than was looked at.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, PutDocument},
        schema::{DrillDocument, DrillPlace},
    },
    clock::{Clock, Micros, Steady},
    code::{Exit, Retry},
    ids::{BaseId, RecordNumber, SequenceNumber},
    object_key::ObjectKey,
    random::Random,
};

use crate::{
    estimate::estimate,
    hold::holding,
    plan::{PlanOptions, RestorePlan},
    progress::Progress,
    restore::{
        files::blocking,
        throwaway::{Throwaway, lay_down},
    },
    target::Target,
};

mod checks;
mod choose;
mod compare;
mod report;
mod scratch;
mod target;

use checks::{Contents, Opened};
use report::{Draft, Frame};
use scratch::Scratch;
use target::Planned;

/// So many earlier reports are read, to compare with.
const EARLIER: usize = 200;

/// What to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Any position that can be restored.
    Random,
    /// This one.
    Given(Target),
}

/// What becomes of the restored database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is removed.
    Remove,
    /// It stays, for somebody who looks into it.
    Keep,
}

/// How to drill.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// What to restore.
    pub wanted: Wanted,
    /// How to plan.
    pub planning: PlanOptions,
    /// Where the directory for it is made.
    pub scratch: PathBuf,
    /// What becomes of it.
    pub after: After,
    /// Where it is done.
    pub place: DrillPlace,
    /// Who drills, for people.
    pub holder: String,
}

/// What a drill works with.
#[derive(Clone)]
pub struct Tools {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
    /// The operator's own check.
    pub check: Option<Arc<dyn Check>>,
}

/// Something that looks at a restored database.
#[async_trait]
pub trait Check: Send + Sync {
    /// What it is, for the report.
    fn name(&self) -> String;

    /// Looks at it; nothing else has it open.
    ///
    /// # Errors
    /// `drill.check-failed` where it is not as it should be.
    async fn look(&self, copy: &RestoredCopy) -> Result<()>;
}

/// A restored database, as a check is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredCopy {
    /// Its directory.
    pub directory: PathBuf,
    /// The last record in it.
    pub record: Option<RecordNumber>,
    /// Its latest sequence number.
    pub sequence: SequenceNumber,
    /// When the database was in this state, as far as anybody watched.
    pub time: Option<Micros>,
}

/// What came of a drill.
#[derive(Debug)]
pub struct Drilled {
    /// The report.
    pub report: DrillDocument,
    /// Why it failed.
    pub failure: Option<Error>,
    /// Why the report is not in the archive.
    pub unwritten: Option<Error>,
    /// Where the restored database is, where it was to be kept.
    pub kept: Option<PathBuf>,
}

/// Drills.
///
/// # Errors
/// What keeps it from beginning: the store, the key, the scratch directory; a target that somebody named and that cannot be
/// reached. Everything behind that is told by the report.
pub async fn drill(archive: &Archive, options: &DrillOptions, tools: &Tools) -> Result<Drilled> {
    let earlier = earlier(archive).await?;
    let created = tools.clock.now();
    let id = BaseId::new(created.to_datetime(), u32::from_le_bytes(tools.random.bytes()?));
    let scratch = Scratch::create(&options.scratch, &id)?;
    let mut draft = Draft::new(target::asked(&options.wanted));
    let work = Work { archive, options, tools, earlier: &earlier, scratch: &scratch, began: tools.clock.steady() };
    let failure = match work.perform(&mut draft).await {
        Ok(()) => None,
        Err(e) if is_answer(&e, &options.wanted, &draft) => return Err(e),
        Err(e) => Some(e),
    };
    let kept = match options.after {
        // What came to no database is not worth looking into.
        After::Keep if scratch.database().exists() => Some(scratch.keep()?),
        After::Keep | After::Remove => {
            blocking(move || scratch.remove()).await.unwrap_or_else(|e| tracing::warn!("{e}"));
            None
        }
    };
    let frame = Frame {
        archive: archive.id(),
        id,
        place: options.place.clone(),
        created,
        ended: tools.clock.now(),
        nonce: tools.random.nonce()?,
    };
    let report = draft.finish(frame, failure.as_ref());
    let unwritten = write(archive, &report, &*tools.random).await.err();
    Ok(Drilled { report, failure, unwritten, kept })
}

/// Whether nothing was drilled: an interrupt, a mistake of whoever asked, or the answer that a position which somebody named
/// cannot be reached. That nothing at all can be restored is a failed drill.
fn is_answer(e: &Error, wanted: &Wanted, draft: &Draft) -> bool {
    let named = matches!(wanted, Wanted::Given(target) if *target != Target::Latest);
    let refused = match e.code().exit() {
        Exit::Usage => true,
        Exit::Target => named,
        _ => false,
    };
    e.code() == Code::Interrupted || draft.plan.is_none() && refused
}

/// Earlier reports, the newest first. One that cannot be read is said: it tells nothing.
async fn earlier(archive: &Archive) -> Result<Vec<DrillDocument>> {
    let mut sound = Vec::new();
    for read in archive.newest_drills(EARLIER).await? {
        match read {
            Ok(report) => sound.push(report),
            Err(e) if e.code().retry() == Retry::Later => return Err(e),
            Err(e) => tracing::warn!(code = e.code().name(), "an earlier report is not compared with: {e}"),
        }
    }
    Ok(sound)
}

async fn write(archive: &Archive, report: &DrillDocument, random: &dyn Random) -> Result<()> {
    const DOING: &str = "writing the report of the drill";
    let claim = archive.newest_claim().await?;
    let claim = claim.ok_or_else(|| Error::new(Code::ObjectMissing, DOING).on("epochs"))?;
    match archive.put_drill(report, &claim, random).await? {
        PutDocument::Created { .. } => Ok(()),
        PutDocument::Conflict(other) => Err(Error::new(Code::Internal, DOING).on(ObjectKey::drill(&other.id))),
    }
}

struct Work<'a> {
    archive: &'a Archive,
    options: &'a DrillOptions,
    tools: &'a Tools,
    earlier: &'a [DrillDocument],
    scratch: &'a Scratch,
    began: Steady,
}

impl Work<'_> {
    async fn perform(&self, draft: &mut Draft) -> Result<()> {
        let Self { archive, options, tools, earlier, began, .. } = *self;
        let by = (&*tools.clock, &*tools.random);
        let Planned { plan, target, at_risk_micros, base } =
            target::planned(archive, &options.wanted, &options.planning, by).await?;
        draft.took.planning = Some(micros(tools.clock.steady().since(began)));
        draft.estimate = Some(estimate(&(&plan).into(), &options.place, earlier).stored());
        (draft.target, draft.at_risk_micros) = (target, at_risk_micros);
        draft.planned(&plan);

        let laid = async {
            let began = tools.clock.steady();
            let given = (tools.random.nonce()?, tools.clock.now());
            let into = self.scratch.database();
            let copy = lay_down(archive, &plan, &into, given, Arc::clone(&tools.progress)).await;
            let copy = copy.map_err(|e| match e.code().retry() {
                Retry::Later => e.with("drill", "its scratch directory is removed"),
                Retry::Never => e,
            })?;
            draft.took.laying_down = Some(micros(tools.clock.steady().since(began)));
            Ok::<_, Error>(copy)
        };
        let copy = holding(archive, &plan, by, &options.holder, laid).await?;
        if let Some(planned) = &mut draft.plan {
            planned.file_bytes = copy.report.file_bytes;
        }
        self.look(&plan, copy, base.as_ref().map(|base| checks::varying(base, &plan)).unwrap_or_default(), draft)
            .await?;
        self.ask_operator(&plan, draft).await
    }

    /// This program's own checks.
    async fn look(
        &self,
        plan: &RestorePlan,
        copy: Throwaway,
        mut varying: BTreeSet<String>,
        draft: &mut Draft,
    ) -> Result<()> {
        let Throwaway { spec, layout, .. } = copy;
        let (structure, fifo) = blocking(move || Ok((checks::structure(&layout)?, checks::fifo(&layout)?))).await?;
        draft.checked.structure = Some(structure);
        varying.extend(fifo);
        draft.checked.unopened = checks::obstacles(&spec, plan);
        if !draft.checked.unopened.is_empty() {
            return Ok(());
        }
        let (clock, progress) = (Arc::clone(&self.tools.clock), Arc::clone(&self.tools.progress));
        let expected = plan.position.sequence;
        match blocking(move || checks::read(&spec, expected, &*clock, &progress)).await? {
            Opened::NotHere(why) => draft.checked.unopened.push(why),
            Opened::Read(Contents { digest, opening, checking }) => {
                (draft.took.opening, draft.took.checking) = (Some(micros(opening)), Some(micros(checking)));
                if let Some(structure) = &mut draft.checked.structure {
                    structure.checksums = true;
                }
                draft.checked.sequence = Some(digest.sequence);
                draft.checked.column_families = checks::families(&digest, &varying);
                let position = draft.plan.as_ref().map(|plan| plan.position);
                let same = position.and_then(|position| compare::same_position(self.earlier, &position));
                let compared = same.map(|same| compare::compare(same, &draft.checked.column_families));
                draft.checked.same_as = compared.transpose()?.flatten();
            }
        }
        Ok(())
    }

    /// The operator's check. Nothing of ours has the copy open any more.
    async fn ask_operator(&self, plan: &RestorePlan, draft: &mut Draft) -> Result<()> {
        let Some(check) = &self.tools.check else { return Ok(()) };
        let began = self.tools.clock.steady();
        let copy = RestoredCopy {
            directory: self.scratch.database(),
            record: plan.position.record,
            sequence: plan.position.sequence,
            time: plan.time.from.map(Into::into),
        };
        let answer = check.look(&copy).await;
        draft.took.command = Some(micros(self.tools.clock.steady().since(began)));
        answer?;
        draft.checked.command = Some(check.name());
        Ok(())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
