//! Every file of the fuzz corpora, and every regression, through the bodies of the fuzz targets (`fuzz/bodies`).
//!
//! What a fuzzer once reached stays reached, on any machine and with any compiler.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

#[path = "../../fuzz/bodies/mod.rs"]
#[allow(clippy::pedantic, missing_docs)]
mod bodies;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a directory in order; none where it is not there.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(target: &str, files: &[PathBuf]) {
    for file in files {
        let input = fs::read(file).unwrap();
        let run = std::panic::catch_unwind(|| bodies::run(target, &input));
        assert!(run.is_ok(), "{} does not hold; the panic is above", file.display());
    }
}

#[test]
fn every_corpus_and_every_regression_holds() {
    if std::env::var_os("PITR_SEEDS").is_some() {
        for (target, name, bytes) in bodies::seeds::all(&root().join("testdata")) {
            let dir = root().join("fuzz/corpus").join(target);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("seed-{name}")), bytes).unwrap();
        }
    }
    for (target, _) in bodies::TARGETS {
        let corpus = files(&root().join("fuzz/corpus").join(target));
        assert!(!corpus.is_empty(), "the corpus of {target} is empty");
        replay(target, &corpus);
        replay(target, &files(&root().join("fuzz/regressions").join(target)));
    }
}

#[test]
fn every_directory_has_a_target_and_every_target_a_program() {
    let targets: BTreeSet<&str> = bodies::TARGETS.iter().map(|(name, _)| *name).collect();
    for kind in ["corpus", "regressions"] {
        for dir in files(&root().join("fuzz").join(kind)) {
            let name = dir.file_name().unwrap().to_str().unwrap();
            assert!(targets.contains(name), "fuzz/{kind}/{name} belongs to no target");
        }
    }
    let programs = files(&root().join("fuzz/targets"));
    let programs: BTreeSet<&str> = programs.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(programs, targets);
}
