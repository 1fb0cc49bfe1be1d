//! Any damage to sled's files: the right data or an error, never fewer commits without a word.
//!
//! ```text
//! store of 40 commits -> copy -> flip, zero, scribble or cut somewhere -> open, check, compare
//! ```
//!
//! `ZBA_DAMAGES` sets the number of copies, `ZBA_SEED` the first seed. With the feature
//! `planted-bugs`, `ZBA_PLANT` names a bug of the sled engine that must be found.

use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ndarray::Ix1;
use zbigarray::{CreateOptions, Keep, OpenOptions, Store, Tid, TransactionError};

use crate::engine::address;

const COMMITS: u64 = 40;
const LEN: u64 = 40_000;
/// Nothing that is damaged may take longer to open and check.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below.max(1)
    }
}

/// What element `at` is after commit `tid`, which also says `tid` in the elements `tid * 800 ..`.
fn element(at: u64, tid: u64) -> u64 {
    let writer = at / 800;
    if writer >= 1 && writer <= tid { writer * 1000 + at % 800 } else { 7 }
}

fn commit(store: &Store, tid: u64) {
    let transaction = store.begin().unwrap();
    let mut array = match tid {
        1 => {
            let mut array = transaction.create::<u64, Ix1>("a", &[LEN]).unwrap();
            array.set("...", 7).unwrap();
            array
        }
        _ => transaction.open::<u64, Ix1>("a").unwrap(),
    };
    let mut rows = array.rows_mut(tid * 800..(tid + 1) * 800).unwrap();
    (0..800).for_each(|at| rows[at] = element(tid * 800 + at as u64, tid));
    drop(array);
    assert_eq!(transaction.commit().unwrap(), Tid(tid));
}

/// A store of so many commits, a few of them packed away.
fn built(directory: &Path) {
    let store = Store::create(address(directory), CreateOptions::default()).unwrap();
    for tid in 1..=COMMITS {
        commit(&store, tid);
        if tid == COMMITS / 4 {
            store.checkpoint().unwrap();
        }
        if tid == COMMITS / 2 {
            store.pack(Keep::From(Tid(5))).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.metadata().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// The files of a store, longest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

/// Damages one place; says where.
fn damage(directory: &Path, dice: &mut Dice) -> String {
    let all = files(directory);
    // Mostly the large file.
    let path = &all[if dice.roll(3) < 2 { 0 } else { dice.roll(all.len() as u64) as usize }];
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let bytes = fs::read(path).unwrap();
    let len = bytes.len() as u64;
    // Where something is; sled's file is mostly zeros at its end.
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(1, |at| at as u64 + 1);
    let at = dice.roll(used);
    let what = match dice.roll(6) {
        0 | 1 => {
            let byte = bytes.get(at as usize).copied().unwrap_or(0);
            let _ = file.write_all_at(&[byte ^ (1 << dice.roll(8))], at);
            "one bit flipped"
        }
        2 | 3 => {
            let size = if dice.roll(2) == 0 { 512 } else { 4096 };
            let start = at / size * size;
            file.write_all_at(&vec![0; size.min(len - start) as usize], start).unwrap();
            "a sector or page of zeros"
        }
        4 => {
            let start = at / 4096 * 4096;
            let noise: Vec<u8> = (0..4096.min(len - start)).map(|_| dice.roll(256) as u8).collect();
            file.write_all_at(&noise, start).unwrap();
            "a page of noise"
        }
        _ => {
            file.set_len(at).unwrap();
            "cut"
        }
    };
    format!("{} of {len} bytes, {what} at {at}", path.strip_prefix(directory).unwrap().display())
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// All is there.
    Whole,
    /// Somebody was told.
    Error(String),
}

/// Opens, checks and compares; an error says what is wrong.
fn judge(directory: &Path) -> Result<Outcome, String> {
    let told = |error: &dyn std::fmt::Display| Ok(Outcome::Error(error.to_string()));
    let store = match Store::open(address(directory), OpenOptions::default()) {
        Ok(store) => store,
        Err(error) => return told(&error),
    };
    if store.head() != Tid(COMMITS) {
        return Err(format!("it opens with {} commits of {COMMITS}", store.head()));
    }
    if store.oldest() != Tid(5) {
        return Err(format!("it opens with {} as the oldest commit", store.oldest()));
    }
    let mut damaged = match store.check(true, &mut |_, _| {}) {
        Ok(report) => report.damage.first().map(ToString::to_string),
        Err(error) => return told(&error),
    };
    for tid in [5, COMMITS / 2, COMMITS - 1, COMMITS] {
        let read = || -> Result<Vec<u64>, TransactionError> {
            let reader = store.at(Tid(tid))?;
            let array = reader.open::<u64, Ix1>("a").map_err(flat)?;
            Ok(array.read("...").map_err(flat)?.into_iter().collect())
        };
        match read() {
            Ok(found) => {
                let wrong = (0..LEN).find(|&at| found[at as usize] != element(at, tid));
                if let Some(at) = wrong {
                    return Err(format!("element {at} as of commit {tid} is wrong"));
                }
            }
            Err(error) => damaged = damaged.or(Some(error.to_string())),
        }
    }
    Ok(damaged.map_or(Outcome::Whole, Outcome::Error))
}

fn flat(error: zbigarray::ArrayError) -> TransactionError {
    match error {
        zbigarray::ArrayError::Transaction(error) => error,
        other => panic!("{other}"),
    }
}

/// The key of the next free page in sled's tree `meta`.
const NEXT_KEY: &[u8] = b"next";

/// Ends the test if one copy takes too long.
fn watched(case: &'static AtomicU64) {
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(PATIENCE);
            let now = case.load(Ordering::Relaxed);
            if now == last {
                eprintln!("copy {now} hangs");
                std::process::abort();
            }
            last = now;
        }
    });
}

#[cfg(feature = "planted-bugs")]
fn plant_asked_for() {
    use zbigarray::storage::planted::{SLED, plant};
    if let Ok(name) = std::env::var("ZBA_PLANT") {
        let bug = SLED.iter().find(|(bug, _)| format!("{bug:?}") == name);
        plant(Some(bug.expect("a bug of the sled engine").0));
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn plant_asked_for() {}

#[test]
fn damage_is_an_error_or_harmless_and_no_commit_is_missing_without_a_word() {
    static CASE: AtomicU64 = AtomicU64::new(0);
    let scratch = tempfile::tempdir().unwrap();
    let original = scratch.path().join("original");
    built(&original);
    // The original is never opened again: sled would sum up its log, and find less by itself.
    let untouched = scratch.path().join("untouched");
    copy(&original, &untouched);
    assert_eq!(judge(&untouched), Ok(Outcome::Whole));
    plant_asked_for();
    watched(&CASE);
    let (first, count) = (number("ZBA_SEED", 1), number("ZBA_DAMAGES", 60));
    let (mut wholes, mut errors, mut wrong) = (0, 0, Vec::new());
    for seed in first..first + count {
        CASE.store(seed, Ordering::Relaxed);
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let directory = scratch.path().join(format!("copy-{seed}"));
        copy(&original, &directory);
        let what = damage(&directory, &mut dice);
        match catch_unwind(AssertUnwindSafe(|| judge(&directory))) {
            Ok(Ok(Outcome::Whole)) => wholes += 1,
            Ok(Ok(Outcome::Error(error))) => {
                if std::env::var_os("ZBA_TELL").is_some() {
                    println!("seed {seed}: {what}: {error}");
                }
                errors += 1;
            }
            Ok(Err(bad)) => wrong.push(format!("seed {seed}: {what}: {bad}")),
            Err(_) => wrong.push(format!("seed {seed}: {what}: a panic")),
        }
        fs::remove_dir_all(&directory).unwrap();
    }
    println!("{count} copies: {wholes} whole, {errors} errors, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(errors > 0 && wholes > 0, "both outcomes are met");
}

/// What other damage does not show: see `SledLeftoversTrusted` and `SledValueUnchecked`.
#[test]
fn a_snapshot_that_sled_left_half_written_is_harmless_and_a_number_changed_beneath_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let original = scratch.path().join("original");
    built(&original);
    plant_asked_for();
    let with_leftovers = scratch.path().join("leftovers");
    copy(&original, &with_leftovers);
    fs::write(with_leftovers.join("trees.sled/snap.0FFFFFFF.generating"), b"").unwrap();
    assert_eq!(judge(&with_leftovers), Ok(Outcome::Whole));
    let changed = scratch.path().join("changed");
    copy(&original, &changed);
    // The number of the next free page, with the checksum of the one before: nothing else tells
    // that pages in use would be given out again.
    let config = ::sled::Config::new().path(changed.join("trees.sled")).segment_size(2 << 20);
    let db = config.flush_every_ms(None).open().unwrap();
    let meta = db.open_tree("meta").unwrap();
    let mut value = meta.get(NEXT_KEY).unwrap().unwrap().to_vec();
    value[4..].fill(0);
    meta.insert(NEXT_KEY, value).unwrap();
    drop((meta, db));
    let found = judge(&changed);
    assert!(matches!(&found, Ok(Outcome::Error(why)) if why.contains("checksum")), "{found:?}");
}
