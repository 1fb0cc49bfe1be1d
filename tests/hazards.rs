//! What can go wrong under mapped memory: files cut or changed by somebody else, and no memory.
//!
//! ```text
//! a call of ours is on the stack     error: array, block, byte
//! the program touches a view         one sentence on stderr, then SIGBUS
//! ```
//!
//! A program of its own, because children of it end by signals, and starts itself again for them.

#![deny(unsafe_code)]
#![cfg(test)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "tests count in u64 what memory counts in usize, the same on 64-bit machines"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array1, Ix1};
use tempfile::TempDir;
use zbigarray::{
    ArrayError, CommitError, CreateOptions, OpenOptions, Store, TransactionError, ZBigArray,
};

/// Bytes of a block.
const BLOCK: u64 = 2 << 20;
/// Names the store to a child.
const STORE: &str = "ZBA_HAZARDS_STORE";

/// A store with array `a`: four blocks of bytes, 1, 2, 3 and 4.
fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[4 * BLOCK]).unwrap();
    let values = Array1::from_shape_fn(4 * BLOCK as usize, |at| 1 + (at as u64 / BLOCK) as u8);
    array.assign("...", &values).unwrap();
    drop(array);
    transaction.commit().unwrap();
    (dir, reopened(store))
}

/// The same store as another process would have it: nothing is known to be good.
fn reopened(store: Store) -> Store {
    let path = store.path().to_owned();
    drop(store);
    Store::open(path, OpenOptions::default()).unwrap()
}

fn data_file(store: &Path) -> File {
    File::options().read(true).write(true).open(store.join("data/0000000000.dat")).unwrap()
}

/// Where in the data file the blocks of `fresh` begin.
fn data_start(file: &File) -> u64 {
    let (mut at, mut page) = (0, [0u8; 4096]);
    while file.read_at(&mut page, at).unwrap() == 4096 && page != [1; 4096] {
        at += 4096;
    }
    at
}

/// The block and byte that an error names.
fn place<T: std::fmt::Debug>(result: Result<T, ArrayError>) -> (u64, u64) {
    match result.unwrap_err() {
        ArrayError::Transaction(TransactionError::Data { array, block, byte, .. }) => {
            assert_eq!(array, "a");
            (block, byte)
        }
        other => panic!("{other}"),
    }
}

fn opened(transaction: &zbigarray::Transaction) -> ZBigArray<'_, u8, Ix1> {
    transaction.open::<u8, Ix1>("a").unwrap()
}

#[test]
fn calls_on_an_array_whose_file_was_cut_under_its_view_say_where() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = opened(&transaction);
    array.read("...").unwrap();
    array.view_mut().unwrap()[3 * BLOCK as usize + 5] = 9;
    let file = data_file(&dir.path().join("s"));
    let start = data_start(&file);
    file.set_len(start + 2 * BLOCK + 4096).unwrap();
    let lost = (2, 2 * BLOCK + 4096);
    assert_eq!(place(array.read("...")), lost);
    assert_eq!(place(array.ensure("...")), lost);
    assert_eq!(place(array.dynamic().verify(&array.dynamic().select(&[]).unwrap())).0, 2);
    let last = 3 * BLOCK + 1;
    assert_eq!(place(array.read(format!("{last}:").as_str())), (3, 3 * BLOCK));
    assert_eq!(place(array.assign(format!("{last}::2").as_str(), &Array1::from_elem(1, 1))).0, 3);
    assert_eq!(array.read("4096:8192").unwrap(), Array1::from_elem(4096, 1).into_dyn());
    drop(array);
    // Not even the private copy of the page that was written is left.
    match transaction.commit().unwrap_err() {
        CommitError::NotCommitted(TransactionError::Data { array, byte, .. }) => {
            assert_eq!((array.as_str(), byte), ("a", lost.1));
        }
        other => panic!("{other}"),
    }
    let mut report = store.check(true, &mut |_, _| {}).unwrap();
    assert!(report.damage.pop().is_some());
}

#[test]
fn bytes_that_somebody_changed_or_punched_are_found_by_the_first_call_that_copies_them() {
    let (dir, store) = fresh();
    let file = data_file(&dir.path().join("s"));
    let start = data_start(&file);
    file.write_all_at(&[0; 4096], start + BLOCK + 8192).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = opened(&transaction);
    assert_eq!(place(array.read("...")), (1, BLOCK));
    assert_eq!(place(array.ensure(format!("{BLOCK}").as_str())), (1, BLOCK));
    let inside = BLOCK + 7;
    assert_eq!(place(array.set(format!("{inside}").as_str(), 1)), (1, BLOCK));
    assert_eq!(
        place(array.assign(format!("{inside}:{}", inside + 9).as_str(), &Array1::ones(9))).0,
        1
    );
    // The other blocks are as good as ever, and a whole new block is the cure.
    array.read(format!(":{BLOCK}").as_str()).unwrap();
    let cure = Array1::from_elem(BLOCK as usize, 7);
    array.assign(format!("{BLOCK}:{}", 2 * BLOCK).as_str(), &cure).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let store = reopened(store);
    let reader = store.begin_read().unwrap();
    assert_eq!(opened(&reader).read(format!("{inside}").as_str()).unwrap().sum(), 7);
}

#[test]
fn damage_is_not_carried_along_into_a_fresh_checksum() {
    let (dir, store) = fresh();
    let file = data_file(&dir.path().join("s"));
    let start = data_start(&file);
    file.write_all_at(&[0xEE], start + BLOCK + BLOCK - 1).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = opened(&transaction);
    // More than half of the block: the commit writes the whole block.
    let (from, to) = (BLOCK as usize, BLOCK as usize + BLOCK as usize * 3 / 4);
    array.rows_mut(from as u64..to as u64).unwrap().fill(5);
    drop(array);
    let error = transaction.commit().unwrap_err();
    assert!(error.to_string().contains("array `a` is damaged in block 1"), "{error}");
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
}

/// Runs one of the tests below that do nothing but in a child.
fn child(name: &str, store: &Path, group: Option<&Path>) -> Output {
    let join = match group {
        Some(group) => format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.display()),
        None => "exec \"$@\"".to_owned(),
    };
    Command::new("sh")
        .args(["-c", &join, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(STORE, store)
        .output()
        .unwrap()
}

/// The store of this child.
fn store_of_child() -> Store {
    Store::open(std::env::var_os(STORE).unwrap(), OpenOptions::default()).unwrap()
}

#[test]
fn a_program_that_touches_a_lost_page_is_told_which_before_it_ends() {
    let (dir, store) = fresh();
    drop(store);
    let path = dir.path().join("s");
    let output = child("own_process_sums_a_view_whose_file_was_cut", &path, None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(7), "{said}");
    let byte = 2 * BLOCK + 4096;
    let wanted = format!("array `a` of {}, block 2, byte {byte}:", path.display());
    assert!(said.contains(&wanted), "{said}");
}

#[test]
#[ignore = "ends by SIGBUS; run in a process of its own by the test above"]
fn own_process_sums_a_view_whose_file_was_cut() {
    let store = store_of_child();
    let transaction = store.begin_read().unwrap();
    let array = opened(&transaction);
    let view = array.view().unwrap();
    let file = data_file(store.path());
    file.set_len(data_start(&file) + 2 * BLOCK + 4096).unwrap();
    println!("{}", view.iter().map(|&value| u64::from(value)).sum::<u64>());
}

/// A file system on a disk that can be taken away: a file behind a loop device.
struct Disk {
    // Unmounted before it goes.
    root: TempDir,
}

impl Disk {
    /// `None`, said on the way, where this process may not mount one.
    fn new() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let (image, files) = (root.path().join("image"), root.path().join("files"));
        File::create(&image).unwrap().set_len(96 << 20).unwrap();
        std::fs::create_dir(&files).unwrap();
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success())
        };
        let (image, files) = (image.as_os_str(), files.as_os_str());
        // Without a journal: it would stop the whole file system at the first error.
        let made = run("mkfs.ext4", &["-qb4096".as_ref(), "-O^has_journal".as_ref(), image])
            && run("mount", &["-o".as_ref(), "loop".as_ref(), image, files]);
        if !made {
            println!("not run: no loop device can be mounted");
            return None;
        }
        Some(Self { root })
    }

    fn store(&self) -> PathBuf {
        self.root.path().join("files/s")
    }

    /// The end of the disk, where the last blocks of data lie, cannot be read from now on.
    fn fail(&self) {
        nix::unistd::sync();
        File::options()
            .write(true)
            .open(self.root.path().join("image"))
            .unwrap()
            .set_len(48 << 20)
            .unwrap();
        std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.root.path().join("files")).output();
    }
}

/// A store of 64 MiB on a disk of which the last part fails.
fn on_failing_disk(disk: &Disk) -> Store {
    let store = Store::create(disk.store(), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[0]).unwrap();
    for _ in 0..32 {
        array.append(&Array1::from_elem(BLOCK as usize, 3)).unwrap();
    }
    drop(array);
    transaction.commit().unwrap();
    store
}

#[test]
fn calls_on_an_array_on_a_failing_disk_say_where() {
    let Some(disk) = Disk::new() else { return };
    // What this process wrote itself is known to be good: it asks the kernel only.
    let store = on_failing_disk(&disk);
    let reader = store.begin_read().unwrap();
    let array = opened(&reader);
    disk.fail();
    let written_here = place(array.ensure("..."));
    assert!(written_here.0 > 0, "the first block is where the disk still works");
    // Another process compares as well, and reads past the mapping.
    drop(array);
    drop(reader);
    let store = reopened(store);
    let reader = store.begin_read().unwrap();
    let array = opened(&reader);
    assert_eq!(place(array.ensure("...")).0, written_here.0);
    assert_eq!(array.read(":4096").unwrap().len(), 4096);
}

#[test]
fn a_program_that_touches_a_page_the_disk_does_not_give_is_told_which_before_it_ends() {
    let Some(disk) = Disk::new() else { return };
    drop(on_failing_disk(&disk));
    disk.fail();
    let output = child("own_process_sums_a_view", &disk.store(), None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(7), "{said}");
    let wanted = format!("array `a` of {}, block ", disk.store().display());
    assert!(said.contains(&wanted), "{said}");
}

#[test]
#[ignore = "ends by SIGBUS; run in a process of its own by the test above"]
fn own_process_sums_a_view() {
    let store = Store::open(std::env::var_os(STORE).unwrap(), OpenOptions::read_only()).unwrap();
    let transaction = store.begin_read().unwrap();
    let array = opened(&transaction);
    let view = array.view().unwrap();
    println!("{}", view.iter().map(|&value| u64::from(value)).sum::<u64>());
}

/// A new control group with so much memory; `None`, said on the way, where there can be none.
fn group(name: &str, limit_bytes: u64) -> Option<PathBuf> {
    let limits =
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    for (root, limit) in limits {
        let group = Path::new(root).join(format!("zbigarray-{name}-{}", std::process::id()));
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

const SMALL_MEMORY: u64 = 64 << 20;
const MANY: u64 = 96 << 20;

#[test]
fn a_program_that_stores_more_than_memory_through_a_view_is_killed_and_the_store_is_whole() {
    let Some(group) = group("stores", SMALL_MEMORY) else { return };
    let (dir, store) = fresh();
    drop(store);
    let path = dir.path().join("s");
    let output = child("own_process_stores_more_than_memory", &path, Some(&group));
    let _ = std::fs::remove_dir(&group);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(9), "{said}");
    assert!(said.contains("about to store"), "{said}");
    let store = Store::open(&path, OpenOptions::default()).unwrap();
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
    let reader = store.begin_read().unwrap();
    assert_eq!(
        opened(&reader).read("::2097152").unwrap().into_raw_vec_and_offset().0,
        [1, 2, 3, 4]
    );
}

#[test]
#[ignore = "ends by SIGKILL; run in a process of its own by the test above"]
fn own_process_stores_more_than_memory() {
    let store = store_of_child();
    let transaction = store.begin().unwrap();
    let mut array = opened(&transaction);
    array.resize(&[MANY]).unwrap();
    println!("about to store");
    array.view_mut().unwrap().fill(9);
    drop(array);
    transaction.commit().unwrap();
}

#[test]
fn bulk_calls_of_more_than_memory_finish() {
    let Some(group) = group("bulk", SMALL_MEMORY) else { return };
    let (dir, store) = fresh();
    drop(store);
    let path = dir.path().join("s");
    let output = child("own_process_makes_bulk_calls_of_more_than_memory", &path, Some(&group));
    let _ = std::fs::remove_dir(&group);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?} {said}", output.status);
    let store = Store::open(&path, OpenOptions::default()).unwrap();
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("b").unwrap();
    let wrong = array.view().unwrap().iter().enumerate().find_map(|(at, &value)| {
        let want = if at % 2 == 0 { 5 } else { 8 };
        (value != want).then_some((at, value))
    });
    assert_eq!((array.shape(), wrong), (vec![2 * MANY / 8], None));
}

#[test]
#[ignore = "needs a control group of its own; run by the test above"]
fn own_process_makes_bulk_calls_of_more_than_memory() {
    let store = store_of_child();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u64, Ix1>("b", &[MANY / 8]).unwrap();
    array.set("...", 8).unwrap();
    let rows = Array1::from_elem(1 << 17, 8);
    for _ in 0..MANY >> 20 {
        array.append(&rows).unwrap();
    }
    array.set("::2", 5).unwrap();
    let mut sum = 0;
    for at in 0..2 * (MANY >> 20) {
        let part = array.read(format!("{}:{}", at << 17, (at + 1) << 17).as_str()).unwrap();
        sum += part.sum();
    }
    assert_eq!(sum, 13 * MANY / 8);
    drop(array);
    transaction.commit().unwrap();
}
