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
//! The message names target, seed and number of the input, and the file with its bytes. If a signal
//! ends the program, the files `last-TARGET` in the same directory say what was fed.

#![cfg(test)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use zbigarray::storage::backend::{Backend, Directory};
use zbigarray::storage::local::{Mode, door};
use zbigarray::{OpenOptions, Store};

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

/// Where it is written what is fed, so that it is known even if a signal ends the program.
fn last(target: Target) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("last-{}", target.name))
}

/// Feeds one input.
fn feed(target: Target, bytes: &[u8], what: &str, log: &File) {
    log.write_all_at(format!("{what}{:60}", "").as_bytes(), 0).unwrap();
    if std::panic::catch_unwind(|| fuzz::feed(target, bytes)).is_err() {
        let path = last(target).with_extension("bytes");
        fs::write(&path, bytes).unwrap();
        panic!("target {}, {what}: see {}", target.name, path.display());
    }
}

fn replay(target: Target) {
    let log = File::create(last(target)).unwrap();
    let seeds = (target.seeds)();
    for (at, seed) in seeds.iter().enumerate() {
        feed(target, seed, &format!("its seed {at}"), &log);
    }
    let found = found(target);
    for (name, bytes) in &found {
        feed(target, bytes, name, &log);
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
        feed(target, &bytes, &format!("seed {seed}, input {count}"), &log);
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
    log, record, state, catalog, checkpoint, format, descriptor, dtype, npy, npz, index, encoded,
    shape, attributes, store, words,
);

/// A seed that is refused at its first byte leads a fuzzer nowhere.
#[test]
fn seeds_of_files_and_records_are_taken() {
    for seed in fuzz::seeds::log() {
        let mut bytes = seed[1..].to_vec();
        let number = door::log_number(&bytes);
        door::seal_log(&mut bytes, number, true);
        // A later file of a chain is read with those before it only.
        assert!(bytes[32..36] != number.to_le_bytes() || door::log(&bytes).unwrap() > 0);
    }
    assert!(fuzz::seeds::record().iter().all(|seed| door::record(&seed[1..], seed[0])));
    assert!(fuzz::seeds::state().iter().all(|seed| door::state(seed)));
    assert!(fuzz::seeds::catalog().iter().all(|seed| door::catalog(seed)));
    for seed in fuzz::seeds::checkpoint() {
        let mut bytes = seed[1..].to_vec();
        door::seal_checkpoint(&mut bytes, &[]);
        assert!(door::checkpoint(&bytes).unwrap() > 2, "segments to change");
    }
    for seed in fuzz::seeds::format() {
        door::format(&seed[1..]).unwrap();
    }
}

/// Puts an image into a directory of the file system.
fn placed(image: &fuzz::image::Image, root: &Path) {
    for directory in ["checkpoint", "data", "log"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (path, content) in &image.files {
        fs::write(root.join(path), &content.bytes).unwrap();
        File::options().write(true).open(root.join(path)).unwrap().set_len(content.len).unwrap();
    }
}

/// What may stand where a file or directory should be.
fn replace(path: &Path, kind: &str) {
    if kind != "no permission" {
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    match kind {
        "nothing" => {}
        "a directory" => fs::create_dir(path).unwrap(),
        "a fifo" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "a socket" => drop(UnixListener::bind(path).unwrap()),
        "an endless device" => symlink("/dev/zero", path).unwrap(),
        "a link to itself" => symlink(path, path).unwrap(),
        "an empty file" => fs::write(path, "").unwrap(),
        "no permission" => fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
        _ => unreachable!("{kind}"),
    }
}

/// Opens, checks, changes, packs, all within a time that leaves no doubt.
#[test]
fn files_of_another_kind_are_errors_and_nobody_waits_for_them() {
    let kinds = [
        "nothing",
        "a directory",
        "a fifo",
        "a socket",
        "an endless device",
        "a link to itself",
        "an empty file",
        "no permission",
    ];
    let image = &fuzz::image::images()[1];
    let files = image.files.keys().map(String::as_str);
    let paths: Vec<&str> = files.chain(["log", "data", "checkpoint"]).collect();
    for (path, kind) in paths.iter().flat_map(|path| kinds.map(|kind| (*path, kind))) {
        let directory = tempfile::tempdir().unwrap();
        // Short, for the name of a socket.
        let root = directory.path().join("s");
        placed(image, &root);
        replace(&root.join(path), kind);
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let disk: std::sync::Arc<dyn Backend> = std::sync::Arc::new(Directory::new(&root));
            let opened = Store::open_on(&disk, Mode::ReadWrite, &fuzz::image::options());
            let error = opened.map(|_| ()).map_err(|error| error.to_string());
            fuzz::store::exercise(&disk, true);
            let _ = Store::open(&root, OpenOptions::read_only()).map(|_| ());
            done.send(error).unwrap();
        });
        let opened = is_done.recv_timeout(Duration::from_secs(30));
        let opened = opened.unwrap_or_else(|error| panic!("{path} is {kind}: {error}"));
        let is_metadata = path == "format.json" || path.starts_with("log");
        let may_open = !is_metadata || kind == "no permission";
        assert!(opened.is_err() || may_open, "{path} is {kind}, and the store opens");
    }
}

/// The command line on damaged stores: an exit code of ours and no panic.
#[test]
fn commands_on_damaged_stores_end_with_a_sentence() {
    let zba = env!("CARGO_BIN_EXE_zba");
    let seeds = fuzz::seeds::store();
    for (at, script) in seeds.iter().enumerate().skip(1).step_by(5) {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("s.zba");
        placed(&fuzz::store::changed(script), &store);
        for words in [
            &["check", "--data"][..],
            &["ls", "--json"],
            &["info"],
            &["log"],
            &["du"],
            &["tag", "another"],
            &["pack"],
        ] {
            let output = Command::new(zba).arg(words[0]).arg(&store).args(&words[1..]).output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let is_ours = matches!(output.status.code(), Some(0..=4));
            assert!(is_ours && !said.contains("panicked"), "script {at}, {words:?}: {said}");
        }
    }
}

/// Flips one bit of each byte of metadata that is not padding and some of the rest.
#[test]
fn every_flipped_bit_is_found_and_none_makes_wrong_bytes_pass() {
    let images = fuzz::image::images().iter().skip(1).chain([fuzz::image::everything()]);
    for (kind, image) in images.enumerate() {
        let flips = flips::sampled(image, 199, |_| true);
        let summary = flipped(&format!("image {kind}"), image, &flips);
        assert!(summary.at_open > 0 && summary.by_check > 0, "{summary:?}");
    }
}

/// All bits of all files of a store that has every structure, or of those whose path begins as
/// `ZBA_HOSTILE_FLIPS` says. `cargo xtask fuzz flips` runs it.
#[test]
#[ignore = "some minutes"]
fn every_bit_of_every_file_is_found_but_those_of_pages_that_nothing_names() {
    let image = fuzz::image::everything();
    let prefix = std::env::var("ZBA_HOSTILE_FLIPS").unwrap_or_default();
    let (mut count, mut unfound) = (0, 0);
    for path in image.files.keys().filter(|path| path.starts_with(&prefix)) {
        let summary = flipped(path, image, &flips::all(image, |other| other == path));
        count += summary.count();
        unfound += summary.unfound.values().sum::<usize>();
    }
    let files = image.files.iter().filter(|(path, _)| path.starts_with(&prefix));
    let len: u64 = files.map(|(_, content)| content.len).sum();
    assert_eq!(count as u64, 8 * len, "every bit was flipped once");
    if prefix.is_empty() {
        // Not one bit more than those of the pages that no commit names, and not one less.
        assert_eq!(unfound, flips::unnamed_pages_count(image) * 4096 * 8);
    }
}

fn flipped(what: &str, image: &fuzz::image::Image, flips: &[flips::Flip]) -> flips::Summary {
    let start = Instant::now();
    let summary = flips::run(image, flips);
    println!(
        "{what}: {} flips in {:.1?}: {} found at open, {} by check, {} in {} pages of data files \
         that nothing names",
        summary.count(),
        start.elapsed(),
        summary.at_open,
        summary.by_check,
        summary.unfound.values().sum::<usize>(),
        summary.unfound.len(),
    );
    summary
}

/// A page of which a sector has one bit set, in the last record: without it, the record looks torn.
#[test]
fn a_commit_whose_only_bit_flips_is_not_taken_for_a_torn_one() {
    let image = &fuzz::image::images()[3];
    let mut flips = flips::all(image, |path| path.starts_with("log/"));
    for flip in &mut flips {
        let at = usize::try_from(flip.at).unwrap();
        flip.bits = image.files[&flip.path].bytes[at];
    }
    flips.retain(|flip| flip.bits.is_power_of_two());
    let summary = flips::run(image, &flips);
    assert_eq!(summary.count(), flips.len());
    assert!(summary.unfound.is_empty(), "{summary:?}");
}

/// `cargo xtask fuzz` names the directory in which libFuzzer then begins.
#[test]
fn every_target_begins_with_seeds_and_all_that_was_found() {
    let temporary = tempfile::tempdir().unwrap();
    let wanted = std::env::var_os("ZBA_FUZZ_CORPUS").map(PathBuf::from);
    let corpus = wanted.unwrap_or_else(|| temporary.path().to_owned());
    for target in TARGETS {
        let directory = corpus.join(target.name);
        fs::create_dir_all(&directory).unwrap();
        let (seeds, found) = ((target.seeds)(), found(*target));
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (at, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(format!("seed-{at:03}")), seed).unwrap();
        }
        for (name, bytes) in &found {
            let name = Path::new(name).file_name().unwrap();
            fs::write(directory.join(name), bytes).unwrap();
        }
        let files = fs::read_dir(&directory).unwrap().count();
        assert!(files >= seeds.len() + found.len(), "{}: two have one name", target.name);
    }
}
