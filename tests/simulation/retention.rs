//! Retention in the middle of everything: hours pass, and what a random policy does not keep is pruned.
//!
//! Owns: what a policy promises, found out in another way than the policy's own: from every look of every segment. What was
//! accepted as a target before and is promised is accepted afterwards; what nothing needs is gone a grace period later;
//! the archive is whole at any time, also where a prune dies between two effects.

use std::{collections::BTreeSet, time::Duration};

use pitr_archive::{
    Code,
    catalog::{
        archive::Archive,
        model::{Catalog, Timeline},
    },
    clock::{Clock, Micros},
    ids::{BaseId, Boundary, TimelineId},
    object_key::ObjectKey,
    random::Random,
    store::{Store, faulty::Schedule},
};
use pitr_archiver::{
    crash::PRUNE_POINTS,
    retention::{self, Floor, Mode, Policy, PruneReport, Request, policy},
};
use pitr_replayer::{
    plan::{PlanOptions, plan},
    progress::Silent,
    target::Target,
    verify::verify,
};
use rand::{Rng, seq::IndexedRandom};

use crate::{judge, process, run::Run};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets hours pass and prunes.
pub fn prune(run: &mut Run<'_>) {
    if judge::load(run).is_none() {
        return;
    }
    // No request is under way for hours.
    run.let_all_arrive();
    hours_pass(run);
    let request = draw(run);
    let before = Promise::find(run, &request);
    let Some(report) = perform(run, &request) else { return };
    run.coverage.note("retention: pruned");
    run.disturbed.insert("retention: pruned");
    before.check(run, &report, "right after a prune");
    let (doomed, stated) = (unneeded(run), run.place.clock.now());
    if run.rng.random_ratio(1, 2) {
        return;
    }
    let grace = i64::try_from(request.policy.grace.as_micros()).expect("hours");
    run.place.clock.advance(grace);
    let Some(report) = perform(run, &request) else { return };
    if report.deleted.total().objects > 0 {
        run.coverage.note("retention: swept");
    }
    let waits = waiting(run);
    let still: Vec<_> = unneeded(run).intersection(&doomed).filter(|key| !waits.contains(*key)).cloned().collect();
    // What was stated while the clock was ahead waits until it comes there.
    assert!(is_ahead(run, stated) || still.is_empty(), "kept longer than the grace period: {still:?}");
    before.check(run, &report, "after the grace period");
    let (archive, _) = judge::load(run).expect("an archive");
    let verified = run.place.runtime.block_on(verify(&archive, &Silent)).expect("a check");
    assert!(verified.findings.is_empty(), "after a sweep: {:#?}", verified.findings);
}

/// Whether anything was stated by a clock that showed a later time.
fn is_ahead(run: &Run<'_>, stated: Micros) -> bool {
    let (archive, catalog) = judge::load(run).expect("an archive");
    run.place.runtime.block_on(async {
        let mut times: Vec<Micros> = archive.condemned().await.expect("documents").iter().map(|d| d.created).collect();
        for timeline in catalog.timelines() {
            times.extend(timeline.manifests().iter().filter(|m| !m.merged.is_empty()).map(|m| m.created));
            times
                .extend(archive.deletion_boundaries(timeline.id()).await.expect("documents").iter().map(|d| d.created));
        }
        times.into_iter().any(|time| time > stated)
    })
}

/// What an earlier prune has promised to leave for longer than this one would.
fn waiting(run: &Run<'_>) -> BTreeSet<ObjectKey> {
    let (archive, _) = judge::load(run).expect("an archive");
    let now = run.place.clock.now();
    let condemned = run.place.runtime.block_on(archive.condemned()).expect("documents");
    let waiting = condemned.into_iter().filter(|document| document.until.is_some_and(|until| until > now));
    waiting.flat_map(|document| document.objects).map(|object| object.key).collect()
}

/// Archivers look at the database now and then.
fn hours_pass(run: &mut Run<'_>) {
    for _ in 0..run.rng.random_range(0..4) {
        let minutes = run.rng.random_range(1..90);
        run.place.clock.advance(minutes * 60_000_000);
        for which in 0..2 {
            run.poll(which);
            run.work(which, "archiver: ship", async |a| a.ship().await);
            run.work(which, "archiver: heartbeat", async |a| a.heartbeat().await);
        }
        if run.rng.random_ratio(1, 2) {
            run.write_something();
        }
        if run.rng.random_ratio(1, 3) {
            run.work(0, "archiver: take base", async |a| a.take_base().await);
        }
        if run.rng.random_ratio(1, 3) {
            run.work(0, "archiver: close manifest", async |a| a.close_manifest().await);
        }
    }
    run.let_all_arrive();
}

fn draw(run: &mut Run<'_>) -> Request {
    let mut few = |most: u32| run.rng.random_range(0..=most);
    let policy = Policy {
        window: MINUTE * [0, 15, 60, 200][few(3) as usize],
        last: few(2),
        hourly: few(2),
        daily: few(1),
        weekly: 0,
        monthly: 0,
        yearly: few(1),
        keep_at_least: MINUTE * [0, 30][few(1) as usize],
        grace: MINUTE * [10, 60][few(1) as usize],
    };
    let floor = if few(1) == 0 { Floor::Respected } else { Floor::Ignored };
    Request { policy, floor, mode: Mode::Act }
}

/// Prunes through the network that fails, in a process that may die; then, if it has not come to its end, once more with
/// neither.
fn perform(run: &mut Run<'_>, request: &Request) -> Option<PruneReport> {
    if run.rng.random_ratio(1, 2) {
        let effects = run.rng.random_range(1..20);
        if run.profile.has(crate::profile::Feature::Deaths) && run.rng.random_ratio(1, 2) {
            if run.rng.random_ratio(1, 3) {
                process::die_after(Some(effects));
            } else {
                process::die_at(PRUNE_POINTS.choose(&mut run.rng).expect("names"));
            }
        }
        match attempt(run, request) {
            Ok(Ok(report)) => {
                process::die_after(None);
                return Some(report);
            }
            Ok(Err(e)) => {
                run.say(format_args!("    prune: {}", e.code()));
                assert_eq!(e.code(), Code::StoreUnavailable, "prune: {e}");
            }
            Err(death) => {
                run.say(format_args!("    prune dies at {}", death.0));
                run.coverage.note(death.0);
            }
        }
        process::die_after(None);
        // A prune that died had its turn.
        run.place.clock.advance(i64::try_from(policy::YOUNG.as_micros()).expect("minutes"));
        judge::load(run);
    }
    process::die_after(None);
    run.faulty.set_outage(false);
    run.faulty.set_schedule(Schedule::default());
    run.let_all_arrive();
    match attempt(run, request) {
        Ok(Ok(report)) => Some(report),
        Ok(Err(e)) => panic!("prune: {e}"),
        Err(death) => panic!("nobody dies here: {death:?}"),
    }
}

fn attempt(run: &Run<'_>, request: &Request) -> Result<pitr_archive::Result<PruneReport>, process::Death> {
    let state = run.root.path().join("pruner");
    std::fs::create_dir_all(&state).expect("a directory");
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(run.place.network.clone());
    let random: &dyn Random = &*run.place.random;
    let clock: &dyn Clock = &run.place.clock;
    let done = process::run(&state, || {
        run.place.runtime.block_on(async {
            let archive = Archive::open(store, run.place.key.clone()).await?;
            retention::prune(&archive, request, clock, random).await
        })
    });
    if done.is_err() {
        process::bury(&state);
    }
    done
}

/// Objects that nothing needs.
fn unneeded(run: &Run<'_>) -> BTreeSet<ObjectKey> {
    let (archive, catalog) = judge::load(run).expect("an archive");
    let mut needed: BTreeSet<ObjectKey> = BTreeSet::new();
    for timeline in catalog.timelines() {
        needed.extend(timeline.segments().iter().map(|s| ObjectKey::segment(timeline.id(), s.ordinals())));
        needed.extend(timeline.manifests().iter().map(|m| ObjectKey::manifest(timeline.id(), m.number)));
        needed.extend(timeline.captured().iter().map(|file| ObjectKey::file(&file.object)));
    }
    for base in catalog.bases() {
        needed.insert(ObjectKey::base(&base.id));
        needed.extend(base.files.iter().map(|file| ObjectKey::file(&file.object)));
    }
    for tag in catalog.tags() {
        let name = pitr_archive::tag::Name::parse(&tag.name).expect("a name");
        needed.insert(ObjectKey::tag(archive.tag_hash(&name)));
    }
    let pruned = |key: &ObjectKey| {
        ["segments/", "manifests/", "bases/", "files/", "tags/"].iter().any(|kind| key.as_str().starts_with(kind))
    };
    let all = run.memory.contents().into_iter().map(|(key, _)| key);
    all.filter(|key| pruned(key) && !needed.contains(key) && !may_be_named(run, &archive, &catalog, key)).collect()
}

/// Whether a merged segment is so young that an archiver may be about to name it, or was made by a clock that was ahead.
fn may_be_named(run: &Run<'_>, archive: &Archive, catalog: &Catalog, key: &ObjectKey) -> bool {
    let Some(ordinals) = key.segment_ordinals().filter(|ordinals| ordinals.is_merged()) else { return false };
    let of = |timeline: &&Timeline| ObjectKey::segment(timeline.id(), ordinals) == *key;
    let Some(timeline) = catalog.timelines().find(of) else { return false };
    // In a larger one by now.
    if timeline.segment(ordinals.first()).is_some_and(|entry| entry.ordinals().contains(ordinals.last())) {
        return false;
    }
    let header = run.place.runtime.block_on(archive.read_header(timeline.id(), ordinals)).expect("a header");
    let age = run.place.clock.now().0 - header.created.0;
    age <= 3_600_000_000
}

/// Targets that must stay.
struct Promise {
    positions: Vec<(TimelineId, Boundary)>,
    tags: Vec<String>,
    times: Vec<(TimelineId, Micros, Boundary)>,
    /// Bases whose floors can be reached.
    floors: Vec<(TimelineId, BaseId, Boundary)>,
}

impl Promise {
    fn find(run: &mut Run<'_>, request: &Request) -> Self {
        let (archive, catalog) = judge::load(run).expect("an archive");
        let mut found = Self { positions: Vec::new(), tags: Vec::new(), times: Vec::new(), floors: Vec::new() };
        let looks: Vec<(TimelineId, Vec<(Micros, Boundary)>)> =
            catalog.timelines().map(|timeline| (timeline.id(), looks(run, &archive, timeline))).collect();
        let of =
            |id: TimelineId| looks.iter().find(|(timeline, _)| *timeline == id).map_or(&[][..], |(_, looks)| looks);
        let now = run.place.clock.now();
        let newest = looks.iter().filter_map(|(_, looks)| looks.last()).map(|(at, _)| *at).max();
        let window = i64::try_from(request.policy.effective_window(request.floor).as_micros()).expect("hours");
        let reference = newest.map_or(now, |newest| newest.min(now));
        let from = Micros(reference.0 - window);
        let current = catalog.current_timeline().map(Timeline::id);
        let mut promised: BTreeSet<(TimelineId, Boundary)> = BTreeSet::new();
        for timeline in catalog.timelines() {
            let alive = Some(timeline.id()) == current || of(timeline.id()).last().is_none_or(|(at, _)| *at >= from);
            let mut at = alive.then_some((timeline, None));
            while let Some((here, until)) = at {
                let until = until.unwrap_or(here.end());
                let seen = of(here.id()).iter().rev().find(|(at, _)| *at <= from).map(|(_, boundary)| *boundary);
                let first = seen.unwrap_or(here.start()).min(until);
                promised.extend((first.get().max(1)..=until.get()).map(|b| (here.id(), Boundary::new(b))));
                let parent = here.document().parent.filter(|_| seen.is_none());
                at = parent.and_then(|p| Some((catalog.timeline(p.timeline)?, Some(p.boundary))));
            }
        }
        for (timeline, boundary) in promised {
            let record = boundary.last_record().expect("not the start");
            if planned(run, &archive, &catalog, timeline, &Target::Record(record), None).is_some() {
                found.positions.push((timeline, boundary));
            }
        }
        for tag in catalog.tags() {
            if planned(run, &archive, &catalog, tag.position.timeline, &Target::tag(&tag.name), None).is_some() {
                found.tags.push(tag.name.clone());
            }
        }
        if let Some(current) = current {
            for _ in 0..3 {
                let at = Micros(run.rng.random_range(from.0..=reference.0));
                let target = Target::Time(at.to_datetime());
                found.times.extend(
                    planned(run, &archive, &catalog, current, &target, None).map(|boundary| (current, at, boundary)),
                );
            }
        }
        for base in catalog.bases() {
            let (timeline, floor) = (base.floor.timeline, base.floor.boundary);
            let Some(record) = floor.last_record() else { continue };
            if planned(run, &archive, &catalog, timeline, &Target::Record(record), Some(&base.id)).is_some() {
                found.floors.push((timeline, base.id.clone(), floor));
            }
        }
        found
    }

    fn check(&self, run: &Run<'_>, report: &PruneReport, when: &str) {
        let (archive, catalog) = judge::load(run).expect("an archive");
        for (timeline, boundary) in &self.positions {
            let record = boundary.last_record().expect("not the start");
            let found = planned(run, &archive, &catalog, *timeline, &Target::Record(record), None);
            assert_eq!(found, Some(*boundary), "{when}, of timeline {timeline}: {report:#?}");
        }
        for name in &self.tags {
            let timeline = catalog.tag(name).expect("a tag").position.timeline;
            let found = planned(run, &archive, &catalog, timeline, &Target::tag(name), None);
            assert!(found.is_some(), "{when}, tag {name}: {report:#?}");
        }
        for (timeline, at, boundary) in &self.times {
            let found = planned(run, &archive, &catalog, *timeline, &Target::Time(at.to_datetime()), None);
            assert_eq!(found, Some(*boundary), "{when}, at {at}: {report:#?}");
        }
        for (timeline, id, floor) in &self.floors {
            let kept = report.bases.iter().any(|base| base.id == *id && base.drop.is_none());
            let record = floor.last_record().expect("not the start");
            let found = kept.then(|| planned(run, &archive, &catalog, *timeline, &Target::Record(record), Some(id)));
            assert!(found.is_none_or(|found| found.is_some()), "{when}, base {id} at its floor: {report:#?}");
        }
    }
}

/// Where a plan arrives, if there is one.
fn planned(
    run: &Run<'_>,
    archive: &Archive,
    catalog: &Catalog,
    timeline: TimelineId,
    target: &Target,
    base: Option<&BaseId>,
) -> Option<Boundary> {
    let options = PlanOptions { timeline: Some(timeline), base: base.cloned(), ..PlanOptions::default() };
    let planned = run.place.runtime.block_on(plan(archive, catalog, target, &options));
    planned.ok().map(|plan| plan.position.boundary)
}

/// Every look at the readable end, in stream order.
fn looks(run: &Run<'_>, archive: &Archive, timeline: &Timeline) -> Vec<(Micros, Boundary)> {
    let mut looks = Vec::new();
    for segment in timeline.segments() {
        let footer = run.place.runtime.block_on(archive.read_footer(timeline.id(), segment.ordinals()));
        let footer = footer.unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
        looks.extend(footer.samples.iter().map(|sample| (sample.at, sample.boundary)));
        looks.extend(footer.summary.observed_through.map(|at| (at, footer.summary.end)));
    }
    looks
}
