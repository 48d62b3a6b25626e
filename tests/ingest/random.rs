//! Random programs of writes and ingestions over few keys, so that they meet.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::story::{DELETED, Story};

const FAMILIES: [&str; 2] = ["default", "alpha"];
const STEPS: usize = 28;

/// The story of a seed.
pub fn story(seed: u64) -> Story {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut story = Story::with_families(&["alpha"], |_| {});
    // Something at both ends stays: few compactions then leave nothing at all.
    for family in FAMILIES {
        story.put_in(family, "0", "stays");
        story.put_in(family, "z", "stays");
    }
    for step in 0..STEPS {
        if rng.random_bool(0.15) {
            story.quietly(|story| {
                for part in 0..3 {
                    one(story, &mut rng, &format!("{step}-{part}"));
                }
            });
            story.moment();
        } else {
            one(&mut story, &mut rng, &step.to_string());
        }
    }
    story
}

fn key(rng: &mut StdRng) -> String {
    char::from(b'a' + rng.random_range(0..10)).to_string()
}

fn one(story: &mut Story, rng: &mut StdRng, value: &str) {
    let family = *FAMILIES.choose(rng).unwrap();
    match rng.random_range(0..100) {
        0..30 => story.put_in(family, &key(rng), value),
        30..48 => story.delete_in(family, &key(rng)),
        48..55 => {
            // Never an empty range: RocksDB gives it a number when it is written, and none when it is recovered.
            let from = key(rng);
            story.delete_range(family, &from, &format!("{}~", key(rng).max(from.clone())));
        }
        55..63 => {
            story.flush_family(family);
            story.moment();
        }
        63..74 => story.compact_family(family),
        _ => {
            let files: Vec<Vec<(String, &str)>> = (0..rng.random_range(1..3)).map(|_| file(rng, value)).collect();
            let files: Vec<Vec<(&str, &str)>> =
                files.iter().map(|file| file.iter().map(|(key, value)| (key.as_str(), *value)).collect()).collect();
            let files: Vec<&[(&str, &str)]> = files.iter().map(Vec::as_slice).collect();
            story.ingest_files(family, &files);
        }
    }
}

/// Sorted keys near each other.
fn file<'v>(rng: &mut StdRng, value: &'v str) -> Vec<(String, &'v str)> {
    let first = rng.random_range(0..10u8);
    let keys = (first..10).take(rng.random_range(1..4));
    let keys: Vec<u8> = keys.collect();
    keys.into_iter()
        .map(|n| (char::from(b'a' + n).to_string(), if rng.random_bool(0.2) { DELETED } else { value }))
        .collect()
}
