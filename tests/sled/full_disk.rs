//! A disk without room under a store of sled: a refusal that says so; nothing acknowledged is lost.
//!
//! ```text
//! tmpfs of so many MiB -> commits until one is refused -> the same handle reads
//!                      -> opened again, still full     -> with room again: goes on
//! ```

use std::path::Path;
use std::process::Command;

use ndarray::{Array1, Ix1};
use tempfile::TempDir;
use zbigarray::{CreateOptions, Error, OpenOptions, Store, Tid};

use crate::engine::address;

const LEN: usize = 30_000;
const ROOM_MIB: u64 = 64;

/// A file system in memory, whose size can be changed; gone with this.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = mount(dir.path(), &format!("size={mib}m"));
        if !mounted {
            println!("not run: no file system can be mounted");
        }
        mounted.then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "none"]).arg(at);
    command.status().is_ok_and(|status| status.success())
}

fn name(number: u64) -> String {
    format!("a{number}")
}

/// Numbers that do not become fewer by compression.
fn values(number: u64) -> Array1<u64> {
    let mixed = |at: usize| (at as u64 + number * 77).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Array1::from_shape_fn(LEN, mixed)
}

fn commit(store: &Store, number: u64) -> Result<Tid, Error> {
    let transaction = store.begin()?;
    let mut array = transaction.create::<u64, Ix1>(&name(number), &[LEN as u64])?;
    array.assign("...", &values(number))?;
    drop(array);
    Ok(transaction.commit()?)
}

fn compare(store: &Store, count: u64) {
    let reader = store.begin_read().unwrap();
    for number in 1..=count {
        let array = reader.open::<u64, Ix1>(&name(number)).unwrap();
        assert_eq!(array.read("...").unwrap(), values(number).into_dyn(), "array {number}");
    }
}

fn is_full(error: &impl std::fmt::Display) -> bool {
    error.to_string().contains("no space left")
}

#[test]
fn a_full_disk_is_named_and_what_was_acknowledged_is_there_when_there_is_room_again() {
    for mib in [9, 12, 17, 21, 26] {
        let Some(disk) = SmallDisk::new(mib) else { return };
        let directory = disk.0.path().join("s");
        let store = Store::create(address(&directory), CreateOptions::default()).unwrap();
        let mut count = 0;
        let refused = loop {
            match commit(&store, count + 1) {
                Ok(tid) => {
                    count += 1;
                    assert_eq!(tid, Tid(count));
                }
                Err(error) => break error,
            }
        };
        assert!(count > 0 && is_full(&refused), "{mib} MiB, commit {count}: {refused}");
        compare(&store, count);
        // What sled has in memory is not what lies on the disk any more.
        assert!(commit(&store, count + 1).is_err());
        drop(store);
        match Store::open(address(&directory), OpenOptions::default()) {
            Ok(store) => compare(&store, count),
            Err(error) => assert!(is_full(&error), "{mib} MiB: {error}"),
        }
        assert!(mount(disk.0.path(), &format!("remount,size={ROOM_MIB}m")));
        let store = Store::open(address(&directory), OpenOptions::default()).unwrap();
        assert_eq!(store.head(), Tid(count), "{mib} MiB");
        compare(&store, count);
        assert_eq!(commit(&store, count + 1).unwrap(), Tid(count + 1));
        compare(&store, count + 1);
        assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
    }
}
