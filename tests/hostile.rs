//! Any bytes give a result or an error, soon: the fuzz targets without a fuzzer.
//!
//! ```text
//! seeds, inputs that once broke something (fuzz/found), seeded changes of both -> every target
//! ```
//!
//! A program of its own, because it counts what its allocator is asked for. `ZBA_HOSTILE_SECONDS`
//! says how long each target is fed, `ZBA_HOSTILE_SEED` with which changes.
//!
//! # Failure
//!
//! The message names target, seed and number of the input. If a signal ends the program, the file
//! `last-TARGET` in the directory for temporary files of tests is the input.

#![cfg(test)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz::mutate::{Dice, mutate};
use fuzz::{TARGETS, Target, flips};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Inputs that once made a target fail, by name.
fn found(target: Target) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found").join(target.name);
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

/// Feeds one input; what it was is known even if a signal ends the program.
fn feed(target: Target, bytes: &[u8], what: &str) {
    let last = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("last-{}", target.name));
    fs::write(&last, bytes).unwrap();
    let fed = std::panic::catch_unwind(|| fuzz::feed(target, bytes));
    assert!(fed.is_ok(), "target {}, {what}: see {}", target.name, last.display());
}

fn replay(target: Target) {
    let seeds = (target.seeds)();
    for (at, seed) in seeds.iter().enumerate() {
        feed(target, seed, &format!("seed {at}"));
    }
    let found = found(target);
    for (name, bytes) in &found {
        feed(target, bytes, name);
    }
    let corpus: Vec<&Vec<u8>> = seeds.iter().chain(found.iter().map(|(_, bytes)| bytes)).collect();
    let (start, seed) = (Instant::now(), number("ZBA_HOSTILE_SEED", 1));
    let time = Duration::from_secs(number("ZBA_HOSTILE_SECONDS", 3));
    let mut count = 0;
    while start.elapsed() < time {
        let mut dice = Dice::new(seed << 32 | count);
        let mut bytes = corpus[dice.below(corpus.len())].clone();
        let other = corpus[dice.below(corpus.len())];
        mutate(&mut dice, &mut bytes, other);
        feed(target, &bytes, &format!("seed {seed}, input {count}"));
        count += 1;
    }
    println!("{}: {count} changed inputs in {:.1?}", target.name, start.elapsed());
}

macro_rules! replayed {
    ($($target:ident),* $(,)?) => {
        mod any_bytes_of {
            $(
                #[test]
                fn $target() {
                    super::replay(super::fuzz::target(stringify!($target)));
                }
            )*
        }

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

replayed!(
    log, record, state, catalog, checkpoint, format, descriptor, dtype, npy, npz, index, shape,
    attributes, store,
);

/// Flips bits of each image; `ZBA_HOSTILE_FLIPS=all` flips every one, else some of each byte that
/// says something.
#[test]
fn every_flipped_bit_is_found_and_none_makes_wrong_bytes_pass() {
    let is_all = std::env::var_os("ZBA_HOSTILE_FLIPS").is_some_and(|value| value == "all");
    for (kind, image) in fuzz::image::images().iter().enumerate().skip(1) {
        let start = Instant::now();
        let flips = match is_all {
            true => flips::all(image, |_| true),
            false => flips::sampled(image, 997, |_| true),
        };
        let summary = flips::run(image, &flips);
        let (count, unfound) = (summary.count(), summary.unfound.values().sum::<usize>());
        println!(
            "image {kind}: {count} flips in {:.1?}: {} found at open, {} by check, {unfound} in \
             {} pages of data files that nothing names",
            start.elapsed(),
            summary.at_open,
            summary.by_check,
            summary.unfound.len(),
        );
        assert!(summary.at_open > 0 && summary.by_check > 0, "{summary:?}");
    }
}

/// Writes the seeds for the fuzzers: `cargo xtask fuzz` does this.
#[test]
#[ignore = "writes files"]
fn seeds_become_a_corpus() {
    let Some(directory) = std::env::var_os("ZBA_FUZZ_CORPUS") else { return };
    for target in TARGETS {
        let directory = Path::new(&directory).join(target.name);
        fs::create_dir_all(&directory).unwrap();
        for (at, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{at:03}")), seed).unwrap();
        }
        for (name, bytes) in found(*target) {
            let name = Path::new(&name).file_name().unwrap().to_owned();
            fs::write(directory.join(name), bytes).unwrap();
        }
    }
}
