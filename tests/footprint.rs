//! what a process needs of memory and descriptors.
//!
//! A program of its own, because the numbers are those of the whole process; its tests run one
//! after the other.

#![deny(unsafe_code)]
#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use ndarray::{Array1, Ix1};
use tempfile::TempDir;
use zbigarray::{ArrayOptions, CreateOptions, OpenOptions, Store};

static PROCESS: Mutex<()> = Mutex::new(());

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

///
#[test]
fn descriptors_do_not_grow_with_arrays_views_and_transactions() {
    let _alone = PROCESS.lock();
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for at in 0..500 {
        transaction.create::<u8, Ix1>(&format!("a{at}"), &[10]).unwrap().set("...", 1).unwrap();
    }
    transaction.commit().unwrap();
    let before = descriptors();
    let readers: Vec<_> = (0..20).map(|_| store.begin_read().unwrap()).collect();
    for reader in &readers {
        for at in 0..50 {
            let array = reader.open::<u8, Ix1>(&format!("a{at}")).unwrap();
            assert_eq!(array.view().unwrap()[0], 1);
        }
    }
    let count = descriptors();
    assert!(count < before + 40, "{before} descriptors, then {count}");
}

/// Peak resident memory of this process so far, and of a piece of work, as far as it is new.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() * 1024
}

/// bulk calls leave what they wrote in files and not in memory.
#[test]
fn bulk_calls_stage_what_they_write_so_that_memory_does_not_bound_a_transaction() {
    let _alone = PROCESS.lock();
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u64, Ix1>("a", &[0]).unwrap();
    let part = Array1::from_iter(0..(2u64 << 20));
    let before = resident_bytes();
    for _ in 0..24 {
        array.append(&part).unwrap();
    }
    let mut strided = transaction.create::<u8, Ix1>("b", &[128 << 20]).unwrap();
    strided.assign("::2", &Array1::from_elem(64 << 20, 3)).unwrap();
    let grown = resident_bytes().saturating_sub(before);
    // 384 MiB appended, and 128 MiB written in strides from 64 MiB of values.
    assert!(grown < 256 << 20, "{grown} bytes");
    drop(array);
    drop(strided);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert_eq!((view.len(), view[5], view[(2 << 20) + 5]), (48 << 20, 5, 5));
}

/// W-141, X-51: a commit gives the private copies back, and the next transaction sees the files.
#[test]
fn a_commit_leaves_no_private_memory_behind() {
    let _alone = PROCESS.lock();
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u8, Ix1>("a", &[256 << 20]).unwrap());
    transaction.commit().unwrap();
    let before = resident_bytes();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.view_mut().unwrap().fill(1);
    let most = resident_bytes();
    assert!(most >= before + (256 << 20) - (32 << 20), "{before} bytes, then {most}");
    drop(array);
    transaction.commit().unwrap();
    let after = resident_bytes();
    assert!(after < most - (128 << 20), "{before} bytes, then {most}, then {after}");
    let transaction = store.begin().unwrap();
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    assert!(array.view().unwrap().iter().all(|&value| value == 1));
}

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    (dir, store)
}

/// Memory that the child below may use, page cache included, and what it writes and reads.
const LIMIT_BYTES: u64 = 144 << 20;
const PARTS: u64 = 24;
const PART: u64 = 2 << 20;

/// A new control group with a limit of memory; `None`, said on the way, where there can be none.
fn group(name: &str, limit_bytes: u64) -> Option<PathBuf> {
    let limits =
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    for (root, limit) in limits {
        let group = Path::new(root).join(name);
        if std::fs::create_dir(&group).is_ok() {
            if std::fs::write(group.join(limit), limit_bytes.to_string()).is_ok() {
                return Some(group);
            }
            let _ = std::fs::remove_dir(&group);
        }
    }
    println!("not run: no control group for memory can be made");
    None
}

/// in a child that the kernel would kill.
#[test]
fn a_transaction_larger_than_memory_is_committed_and_read_again() {
    let _alone = PROCESS.lock();
    if let Some(path) = std::env::var_os("ZBA_FOOTPRINT_STORE") {
        return larger_than_memory(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_transaction_larger_than_memory_is_committed_and_read_again";
    run_limited(test, LIMIT_BYTES, &dir.path().join("s"));
}

/// Runs a test of this program in a child that may use so much memory, page cache included.
fn run_limited(test: &str, limit_bytes: u64, store: &Path) {
    let name = format!("zbigarray-test-{}", std::process::id());
    let Some(group) = group(&name, limit_bytes) else { return };
    let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.display());
    let output = Command::new("sh")
        .args(["-c", &join, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("ZBA_FOOTPRINT_STORE", store)
        .output()
        .unwrap();
    let _ = std::fs::remove_dir(&group);
    let errors = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?} {errors}", output.status);
}

/// Bytes of the block cache of the child below; it may use 64 MiB more, and reads 8 times as many.
const CACHE_BYTES: u64 = 16 << 20;

/// In a child that the kernel would kill.
#[test]
fn eight_times_the_block_cache_is_read_in_64_mib_beside_it() {
    let _alone = PROCESS.lock();
    let test = "eight_times_the_block_cache_is_read_in_64_mib_beside_it";
    let number = |at: u64| 5_000_000 + at * 3 + at % 13;
    let len = 8 * CACHE_BYTES / 8;
    if let Some(path) = std::env::var_os("ZBA_FOOTPRINT_STORE") {
        let mut options = OpenOptions::read_only();
        options.cache_bytes_max = CACHE_BYTES;
        let store = Store::open(path, options).unwrap();
        let reader = store.begin_read().unwrap();
        let array = reader.open::<u64, Ix1>("e").unwrap();
        let view = array.view().unwrap();
        for _ in 0..2 {
            assert!(view.iter().zip(0..).all(|(&it, at)| it == number(at)));
        }
        return;
    }
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().codec("lz4+shuffle".parse().unwrap());
    let mut array = transaction.create_with::<u64, Ix1>("e", &[len], &options).unwrap();
    array.assign("...", &Array1::from_iter((0..len).map(number))).unwrap();
    drop(array);
    transaction.commit().unwrap();
    drop(store);
    run_limited(test, CACHE_BYTES + (64 << 20), &dir.path().join("s"));
}

/// In one transaction 384 MiB by appends, as many strided, and 300 MiB in small arrays; then read
/// through views of the whole.
fn larger_than_memory(path: &Path) {
    let store = Store::create(path, CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u64, Ix1>("a", &[0]).unwrap();
    for part in 0..PARTS {
        array.append(&Array1::from_iter(part * PART..(part + 1) * PART)).unwrap();
    }
    drop(array);
    let mut strided = transaction.create::<u64, Ix1>("b", &[PARTS * PART]).unwrap();
    for part in 0..PARTS {
        let index = format!("{}:{}:3", part * PART, (part + 1) * PART);
        strided.assign(&index[..], &ndarray::arr0(part)).unwrap();
    }
    drop(strided);
    for small in 0..300 {
        let mut array = transaction.create::<u64, Ix1>(&format!("c{small}"), &[PART / 16]).unwrap();
        array.set("::2", small).unwrap();
    }
    transaction.commit().unwrap();
    drop(store);
    let store = Store::open(path, OpenOptions::default()).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert!(view.iter().enumerate().all(|(at, &value)| value == at as u64));
    let strided = reader.open::<u64, Ix1>("b").unwrap();
    let view = strided.view().unwrap();
    for part in 0..PARTS {
        let from = usize::try_from(part * PART).unwrap();
        assert_eq!([view[from], view[from + 3], view[from + 1]], [part, part, 0]);
    }
    for small in 0..300 {
        let array = reader.open::<u64, Ix1>(&format!("c{small}")).unwrap();
        assert_eq!(array.rows(0..4).unwrap().to_vec(), [small, 0, small, 0]);
    }
}
