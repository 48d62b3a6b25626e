//! Every object of a small archive, damaged in every way that a store or a person can damage it: each target is then
//! exact or refused, and `verify` says what is wrong.
//!
//! The one stated exception is the loss of a whole suffix, which cannot be told from its never having been written; a
//! deleted tag is an unknown one.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use harness::{
    archive_driver::local,
    program::{ArchiverStep, End, Settings, Step},
    scenario::Scenario,
};
use pitr_archive::{
    Code, Error, Result,
    catalog::archive::Archive,
    code::Exit,
    ids::{BaseId, RecordNumber},
    object_key::ObjectKey,
};
use pitr_replayer::{
    plan::{PlanOptions, RestorePlan, plan},
    progress::Silent,
    target::Target,
    verify::verify,
};

/// Not a test of its own: the process that holds the database.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

#[test]
fn a_damaged_archive_restores_exactly_or_refuses() {
    every_damage(Scenario::new(&Settings::default()));
}

#[test]
fn a_damaged_encrypted_archive_restores_exactly_or_refuses() {
    every_damage(Scenario::encrypted(&Settings::default()));
}

/// Two sessions of a server, three bases, a tag, manifests, and segments that no manifest holds.
fn tell(story: &mut Scenario) {
    let ship = |story: &mut Scenario| story.archive(ArchiverStep::Ship);
    story.archive(ArchiverStep::Poll);
    story.base();
    story.put("a", "1");
    ship(story);
    story.step(Step::Create("alpha".to_owned()));
    story.put_in("alpha", "b", "2");
    ship(story);
    story.delete("a");
    story.archive(ArchiverStep::Tag("before".to_owned()));
    story.archive(ArchiverStep::CloseManifest);
    story.put("c", "3");
    ship(story);
    story.step(Step::Flush(None));
    story.put("d", "4");
    story.base();
    story.put("e", "5");
    ship(story);
    story.archive(ArchiverStep::CloseManifest);
    story.step(Step::Reopen(End::Clean));
    story.archive(ArchiverStep::WantedBase);
    story.put("f", "6");
    ship(story);
    story.delete("c");
    ship(story);
    story.archive(ArchiverStep::Heartbeat);
    story.put("g", "7");
    ship(story);
}

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Deleted,
    Truncated(usize),
    Flipped(usize),
    /// Exchanged with the object after it of the same kind.
    Swapped,
    /// Replaced by the object before it of the same kind, as by an older version.
    Replaced,
    /// Copied to the next name of its kind.
    Duplicated,
}

impl Damage {
    const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Truncated(_) => "truncated",
            Self::Flipped(_) => "a bit flipped",
            Self::Swapped => "swapped",
            Self::Replaced => "replaced",
            Self::Duplicated => "duplicated",
        }
    }
}

/// What became of the targets.
#[derive(Default)]
struct Count {
    cases: u64,
    exact: u64,
    refused: u64,
    noticed: u64,
}

/// By kind of object and of damage.
#[derive(Default)]
struct Counts(BTreeMap<(String, &'static str), Count>);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:<14} {:>6} {:>8} {:>8} {:>8}",
            "object", "damage", "cases", "exact", "refused", "verify"
        )?;
        self.0.iter().try_for_each(|((kind, damage), c)| {
            writeln!(f, "{kind:<12} {damage:<14} {:>6} {:>8} {:>8} {:>8}", c.cases, c.exact, c.refused, c.noticed)
        })
    }
}

fn every_damage(mut story: Scenario) {
    tell(&mut story);
    let archive = story.root.path().join("archive");
    let targets: Vec<Target> = (0..story.driver.model.records.len() as u64)
        .map(|n| Target::Record(RecordNumber::new(n)))
        .chain([Target::tag("before"), Target::Latest])
        .collect();
    let whole = Judge::whole(&mut story, targets);
    let objects = files(&archive);
    let mut counts = Counts::default();
    for (index, path) in objects.iter().enumerate() {
        let kind = kind(&archive, path);
        let bytes = fs::read(path).unwrap();
        let same_kind = |other: Option<&PathBuf>| other.filter(|o| o.parent() == path.parent()).cloned();
        let next = same_kind(objects.get(index + 1));
        let previous = same_kind(index.checked_sub(1).and_then(|i| objects.get(i)));
        let mut damages = vec![Damage::Deleted];
        damages.extend((0..bytes.len()).step_by(64).map(Damage::Truncated));
        damages.extend((0..bytes.len()).step_by(61).map(Damage::Flipped));
        damages.extend(next.as_ref().map(|_| Damage::Swapped));
        damages.extend(previous.as_ref().map(|_| Damage::Replaced));
        damages.extend(after(path).map(|_| Damage::Duplicated));
        for damage in damages {
            let mut touched = vec![(path.clone(), Some(bytes.clone()))];
            match damage {
                Damage::Deleted => fs::remove_file(path).unwrap(),
                Damage::Truncated(length) => fs::write(path, &bytes[..length]).unwrap(),
                Damage::Flipped(at) => {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << (at % 8);
                    fs::write(path, flipped).unwrap();
                }
                Damage::Swapped => {
                    let next = next.clone().unwrap();
                    let other = fs::read(&next).unwrap();
                    fs::write(path, &other).unwrap();
                    fs::write(&next, &bytes).unwrap();
                    touched.push((next, Some(other)));
                }
                Damage::Replaced => fs::write(path, fs::read(previous.as_ref().unwrap()).unwrap()).unwrap(),
                Damage::Duplicated => {
                    let copy = after(path).unwrap();
                    let there = fs::read(&copy).ok();
                    if there.is_none() {
                        fs::write(&copy, &bytes).unwrap();
                        touched.push((copy, None));
                    }
                }
            }
            let what = format!("{} {damage:?}", path.strip_prefix(&archive).unwrap().display());
            let count = counts.0.entry((kind.clone(), damage.name())).or_default();
            count.cases += 1;
            let noticed = whole.judge(&mut story, &touched, &what, count);
            count.noticed += u64::from(noticed);
            for (path, before) in touched {
                match before {
                    Some(bytes) => fs::write(path, bytes).unwrap(),
                    None => fs::remove_file(path).unwrap(),
                }
            }
        }
    }
    println!("{counts}");
    // Changed bytes never pass. What is lost passes only at the end of things, and a copy under a name of its own may.
    for ((kind, damage), count) in &counts.0 {
        let missed = count.cases - count.noticed;
        let allowed = match *damage {
            "deleted" => 1,
            "duplicated" => count.cases,
            _ => 0,
        };
        assert!(missed <= allowed, "verify does not notice {missed} of {} {kind} {damage}", count.cases);
    }
    // What is not on the way is not in the way.
    let of = |kind: &str, damage: &'static str| &counts.0[&(kind.to_owned(), damage)];
    for kind in ["bases", "tags", "manifests", "segments"] {
        assert!(of(kind, "deleted").exact > 0, "one lost object of {kind} makes everything unreachable");
    }
    assert!(of("segments", "deleted").refused > 0, "else this test proves nothing");
}

/// What the archive gives while it is whole.
struct Judge {
    targets: Vec<Target>,
    plans: Vec<RestorePlan>,
}

impl Judge {
    fn whole(story: &mut Scenario, targets: Vec<Target>) -> Self {
        let archive = story.archiver.archive();
        let catalog = story.archiver.wait(archive.load_catalog()).unwrap();
        let plans: Vec<_> = targets
            .iter()
            .map(|t| story.archiver.wait(plan(&archive, &catalog, t, &PlanOptions::default())).unwrap())
            .collect();
        for plan in &plans {
            compare(story, plan, "the whole archive").unwrap();
        }
        Self { targets, plans }
    }

    /// Every target on the damaged archive. Answers whether `verify` noticed the damage.
    fn judge(
        &self,
        story: &mut Scenario,
        touched: &[(PathBuf, Option<Vec<u8>>)],
        what: &str,
        count: &mut Count,
    ) -> bool {
        let archive = match opened(story) {
            Ok(archive) => archive,
            Err(e) => {
                legitimate(&e, what);
                count.refused += self.targets.len() as u64;
                return true;
            }
        };
        let survey = story.archiver.wait(archive.load_what_is_sound());
        let catalog = match survey {
            Ok(survey) => survey.catalog,
            Err(e) => {
                legitimate(&e, what);
                count.refused += self.targets.len() as u64;
                return true;
            }
        };
        for (target, whole) in self.targets.iter().zip(&self.plans) {
            match story.archiver.wait(plan(&archive, &catalog, target, &PlanOptions::default())) {
                Err(e) => {
                    legitimate(&e, what);
                    count.refused += 1;
                }
                // Less than the whole is the latest only where nothing tells that there was more.
                Ok(plan) if *target == Target::Latest && plan.position.boundary < whole.position.boundary => {
                    assert!(what.ends_with("Deleted"), "{what}: the latest position is not the latest");
                    compare(story, &plan, what).unwrap();
                    count.exact += 1;
                }
                // What does not touch a damaged object is what it was.
                Ok(plan) if plan == *whole && !reads(&archive, story, &plan, touched) => count.exact += 1,
                Ok(plan) => match compare(story, &plan, what) {
                    Ok(()) => count.exact += 1,
                    Err(e) => {
                        legitimate(&e, what);
                        count.refused += 1;
                    }
                },
            }
        }
        match story.archiver.wait(verify(&archive, &Silent)) {
            Ok(report) => !report.findings.is_empty(),
            Err(e) => {
                legitimate(&e, what);
                true
            }
        }
    }
}

fn opened(story: &Scenario) -> Result<Archive> {
    let store = local(&story.root.path().join("archive"));
    story.archiver.wait(Archive::open(store, story.archiver.key()))
}

/// A refusal that damage excuses: it names the damage, or what is missing because of it.
fn legitimate(e: &Error, what: &str) {
    let excused = matches!(e.code().exit(), Exit::Integrity)
        || matches!(
            e.code(),
            Code::TargetAfterEnd
                | Code::TargetBeforeStart
                | Code::TargetBehindBarrier
                | Code::TagUnknown
                | Code::NotAnArchive
        )
        || matches!(e.code(), Code::ObjectUnsupported | Code::SegmentUnsupported | Code::TargetMalformed);
    assert!(excused, "{what}: {e}");
}

/// Whether a plan reads one of these objects.
fn reads(archive: &Archive, story: &Scenario, plan: &RestorePlan, touched: &[(PathBuf, Option<Vec<u8>>)]) -> bool {
    let root = story.root.path().join("archive");
    let base: &BaseId = &plan.base.id;
    let Ok(Some(document)) = story.archiver.wait(archive.get_base(base)) else { return true };
    let mut keys = vec![ObjectKey::base(base).as_str().to_owned()];
    keys.extend(plan.segments.iter().map(|s| ObjectKey::segment(s.timeline, s.ordinal).as_str().to_owned()));
    keys.extend(document.files.iter().map(|f| ObjectKey::file(&f.object).as_str().to_owned()));
    touched.iter().any(|(path, _)| keys.iter().any(|key| root.join(key) == *path))
}

/// Restores, opens, and compares with the model.
fn compare(story: &mut Scenario, plan: &RestorePlan, what: &str) -> Result<()> {
    let (dir, places) = story.lay_down(plan)?;
    let copy = story.open(&dir, &places);
    let states = &story.driver.model.states[plan.position.boundary.get() as usize];
    let fits = states.iter().any(|state| state.content == copy.content && state.sequence == copy.sequence);
    assert!(fits, "{what}: {} restores to something else", plan.target);
    fs::remove_dir_all(dir).unwrap();
    Ok(())
}

/// The name after this one where names are numbers.
fn after(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let number = stem.parse::<u64>().ok()?;
    let next = format!("{:0width$}", number + 1, width = stem.len());
    Some(path.with_file_name(if extension.is_empty() { next } else { format!("{next}.{extension}") }))
}

fn kind(archive: &Path, path: &Path) -> String {
    let inner = path.strip_prefix(archive).unwrap();
    let folders: Vec<_> = inner.parent().unwrap().iter().filter_map(|part| part.to_str()).collect();
    let words = folders.iter().rev().find(|part| !part.chars().all(|c| c.is_ascii_hexdigit()));
    words.map_or_else(|| inner.display().to_string(), |word| (*word).to_owned())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
