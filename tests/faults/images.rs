//! Small ext4, xfs and btrfs file systems that really run full below a process.
//!
//! ```text
//! image file -> mkfs -> loop mount -> ballast leaves so much room -> the program fills it
//!                                     ballast goes away           -> the same handle goes on
//! ```
//!
//! Every refusal must say that there is no space, at any size of the rest; whatever was
//! acknowledged stays readable meanwhile; and when there is space again, by deleting something else
//! or by packing, the handle that was refused goes on.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ndarray::{Array2, Ix2};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use zbigarray::txn::{CatalogChange, StorageError};
use zbigarray::{CreateOptions, Error, Keep, OpenOptions, Store};

use crate::child::{self, Task};
use crate::judge::{Told, gives_back, goes_on, judge};
use crate::program::{Class, Event, opened};
use crate::table::{Sample, Table};
use crate::workload::{History, WORKLOADS};

/// The first word of the command line of the process that fills a disk.
pub(crate) const WORD: &str = "fill";

/// File systems: name, how to make one, and the smallest size in MiB that it accepts.
const KINDS: [(&str, &[&str], u64); 3] = [
    ("ext4", &["mkfs.ext4", "-q", "-F"], 64),
    ("xfs", &["mkfs.xfs", "-q", "-f"], 300),
    ("btrfs", &["mkfs.btrfs", "-q", "-f"], 120),
];

/// What the ballast leaves, in KiB.
const ROOMS_KIB: [u64; 10] = [40, 150, 400, 900, 1500, 2300, 3000, 4500, 7000, 12000];

/// A sample is not sparser than this.
const EVERY_MAX: usize = 5;
const COMMITS: u64 = 400;
const ROWS: usize = 512;
const COLUMNS: usize = 64;
/// Arrays of 256 KiB that fill the disk, at most.
const ARRAYS: usize = 200;

/// Runs the table, or a sample of it.
pub(crate) fn run(sample: Sample, table: &mut Table) {
    // There are few, and a file system may differ from the others in any of them.
    let sample = Sample { every: sample.every.min(EVERY_MAX), ..sample };
    let mut number = 0;
    for (kind, mkfs, mib) in KINDS {
        let mounted = match Mounted::new(mkfs, mib) {
            Ok(mounted) => mounted,
            Err(why) => {
                table.not_run(&format!("images, {kind}"), why);
                continue;
            }
        };
        table.row("images", kind, "read-only", mounted.read_only());
        for room_kib in ROOMS_KIB {
            number += 1;
            if sample.has(number) {
                let result = mounted.filled(room_kib << 10);
                let result = result.map_err(|why| format!("room of {room_kib} KiB: {why}"));
                table.row("images", kind, "full, then space", result);
            }
            for (name, workload) in WORKLOADS {
                number += 1;
                if !sample.has(number) {
                    continue;
                }
                let mut history = History::new(workload, sample.seed ^ room_kib);
                let result = mounted.crowded(&mut history, room_kib << 10);
                let place = |why| format!("{name}, room of {room_kib} KiB: {why}");
                table.row("images", kind, &format!("full under {name}"), result.map_err(place));
            }
        }
    }
}

/// A file system in a file.
struct Mounted {
    mount: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = done(Command::new("umount").arg(&self.mount));
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{name} cannot be started: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{name}: {}", said.lines().next().unwrap_or("failed")))
        }
    }
}

impl Mounted {
    fn new(mkfs: &[&str], mib: u64) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let scratch = child::scratch(true)?;
        let (image, mount) = (scratch.path().join("image"), scratch.path().join("mount"));
        File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(failed)?;
        fs::create_dir(&mount).map_err(failed)?;
        done(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image))?;
        done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
        Ok(Self { mount, _scratch: scratch })
    }

    /// A store is written, the file system becomes read-only, and the store is read; who wants to
    /// write is refused.
    fn read_only(&self) -> Result<(), String> {
        let directory = self.leave(64 << 20)?;
        let store = Store::create(&directory, CreateOptions::default()).map_err(text)?;
        for number in 0..2 {
            add(&store, number).map_err(text)?;
        }
        drop(store);
        let remount = |how| done(Command::new("mount").args(["-o", how]).arg(&self.mount));
        remount("remount,ro")?;
        let result = read_but_not_written(&directory);
        remount("remount,rw")?;
        result
    }

    /// Frees what was deleted, which some file systems do later.
    fn settle(&self) {
        let _ = done(Command::new("sync").arg("-f").arg(&self.mount));
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Empties the file system and leaves room for so many bytes, about.
    fn leave(&self, room: u64) -> Result<PathBuf, String> {
        let store = self.mount.join("store");
        for path in [&store, &self.ballast()] {
            let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
        }
        self.settle();
        let error = |error: nix::Error| error.to_string();
        let found = statvfs(&self.mount).map_err(error)?;
        let mut size = (found.blocks_available() * found.fragment_size()).saturating_sub(room);
        let file = File::create(self.ballast()).map_err(|error| error.to_string())?;
        // File systems promise a little more than they have.
        while size > 0 {
            let len = i64::try_from(size).unwrap_or(i64::MAX);
            match fallocate(&file, FallocateFlags::empty(), 0, len) {
                Ok(()) => break,
                Err(_) => size = size.saturating_sub(1 << 20),
            }
        }
        Ok(store)
    }

    /// A program runs into the end of the space; then there is space and the store is judged.
    fn crowded(&self, history: &mut History, room: u64) -> Result<(), String> {
        let directory = self.leave(room)?;
        let (workload, seed) = (history.workload, history.seed);
        let task = Task { workload, seed, until: COMMITS, directory };
        let ended = task.run(&[]).map_err(|error| error.to_string())?;
        if !ended.status.success() {
            return Err(format!("{}: {}", ended.status, ended.complained));
        }
        let mut told = Told::default();
        told.hear_all(&ended.printed);
        only_full(&ended.printed)?;
        fs::remove_file(self.ballast()).map_err(|error| error.to_string())?;
        self.settle();
        let disk = child::disk(&task.directory);
        judge(&disk, history, &told)?;
        goes_on(&disk, history)?;
        gives_back(&disk)
    }

    /// A process fills the space, and goes on with the same handle when there is space again.
    fn filled(&self, room: u64) -> Result<(), String> {
        let directory = self.leave(room)?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.arg(WORD).arg(&directory).arg(self.ballast()).stdin(Stdio::null());
        let output = command.output().map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {printed} {said}", output.status));
        }
        let disk = child::disk(&directory);
        let store = opened(&disk).map_err(|error| error.to_string())?;
        let report = store.check(true, &mut |_, _| {}).map_err(|error| error.to_string())?;
        match report.damage.first() {
            Some(damage) => Err(format!("check: {damage}")),
            None if report.held_bytes > 0 => Err(format!("{} bytes held", report.held_bytes)),
            None => gives_back({
                drop(store);
                &disk
            }),
        }
    }
}

/// Reads the store at `directory` on a read-only file system, and tries to write.
fn read_but_not_written(directory: &Path) -> Result<(), String> {
    let store = Store::open(directory, OpenOptions::read_only()).map_err(text)?;
    compare(&store, 0..2)?;
    let report = store.check(true, &mut |_, _| {}).map_err(text)?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("check: {damage}"));
    }
    match Store::open(directory, OpenOptions::default()) {
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::ReadOnlyFilesystem => {
            Ok(())
        }
        Err(other) => Err(format!("who wants to write is told: {other}")),
        Ok(_) => Err("it opens for writing".into()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Every error was that there is no space, or followed from the handle refusing to write.
fn only_full(printed: &str) -> Result<(), String> {
    let events = printed.lines().filter_map(Event::parse);
    for event in events {
        match event {
            Event::Refused(_, Class::Full, _) | Event::Failed(Class::Full, _) => {}
            Event::Refused(..) | Event::Failed(..) | Event::Unknown(..) => {
                return Err(format!("not told that the disk is full: {event}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The process that fills a disk. Returns whether everything was as promised.
pub(crate) fn main(words: &[&str]) -> bool {
    let [directory, ballast] = words else { return false };
    match fill(Path::new(directory), Path::new(ballast)) {
        Ok(()) => true,
        Err(why) => {
            println!("{why}");
            false
        }
    }
}

fn fill(directory: &Path, ballast: &Path) -> Result<(), String> {
    let disk = child::disk(directory);
    let store = match opened(&disk) {
        Ok(store) => store,
        Err(error) => {
            full(&error.into(), "opening")?;
            return opened(&{
                make_room(ballast)?;
                disk
            })
            .map(|_| ())
            .map_err(|error| format!("with space again: {error}"));
        }
    };
    let mut filled = 0;
    while filled < ARRAYS {
        match add(&store, filled) {
            Ok(()) => filled += 1,
            Err(error) => {
                full(&error, "a large commit")?;
                break;
            }
        }
    }
    // Small ones still fit for a while; then the log is full as well.
    let mut small = 0;
    while small < 600 {
        match touch(&store, small) {
            Ok(()) => small += 1,
            Err(error) => {
                full(&error, "a small commit")?;
                break;
            }
        }
    }
    compare(&store, 0..filled)?;
    // Packing frees what history held; it needs a little space itself.
    let mut roomy = false;
    let half = filled / 2;
    for step in
        [&|| remove(&store, 0..half), &|| pack(&store)] as [&dyn Fn() -> Result<(), Error>; 2]
    {
        if let Err(error) = step() {
            full(&error, "making room")?;
            if !roomy {
                make_room(ballast)?;
                roomy = true;
            }
            step().map_err(|error| format!("with space again: {error}"))?;
        }
    }
    compare(&store, half..filled)?;
    if half == 0 && !roomy {
        make_room(ballast)?;
    }
    for number in 0..half.max(1) {
        // As much as was packed away must fit again, but for what the pack itself needed.
        match add(&store, 1000 + number) {
            Ok(()) => {}
            Err(error) if number * 2 >= half && half > 0 => full(&error, "filling again")?,
            Err(error) => return Err(format!("array {number} of {half} after packing: {error}")),
        }
    }
    compare(&store, half..filled)
}

fn make_room(ballast: &Path) -> Result<(), String> {
    fs::remove_file(ballast).map_err(|error| error.to_string())?;
    let _ = done(Command::new("sync").arg("-f").arg(ballast.parent().unwrap_or(ballast)));
    Ok(())
}

fn full(error: &Error, what: &str) -> Result<(), String> {
    match Class::of(error) {
        Class::Full => Ok(()),
        class => Err(format!("{what} on a full disk: {class:?}: {error}")),
    }
}

fn value(number: usize) -> u64 {
    1 + number as u64
}

fn add(store: &Store, number: usize) -> Result<(), Error> {
    let transaction = store.begin()?;
    let shape = [ROWS as u64, COLUMNS as u64];
    let mut array = transaction.create::<u64, Ix2>(&format!("a{number}"), &shape)?;
    let values = Array2::from_elem((ROWS, COLUMNS), value(number));
    match number % 2 {
        0 => array.assign("...", &values)?,
        _ => array.view_mut()?.assign(&values),
    }
    drop(array);
    transaction.commit()?;
    Ok(())
}

fn touch(store: &Store, number: usize) -> Result<(), Error> {
    let transaction = store.begin()?;
    if transaction.open::<u64, Ix2>("small").is_err() {
        transaction.create::<u64, Ix2>("small", &[ROWS as u64, COLUMNS as u64])?;
    }
    let mut array = transaction.open::<u64, Ix2>("small")?;
    array.view_mut()?[[number % ROWS, 0]] = number as u64;
    drop(array);
    transaction.commit()?;
    Ok(())
}

fn remove(store: &Store, numbers: std::ops::Range<usize>) -> Result<(), Error> {
    let transaction = store.begin()?;
    for number in numbers {
        let name = format!("a{number}").into();
        transaction.change(CatalogChange::Remove { name })?;
    }
    transaction.commit()?;
    Ok(())
}

fn pack(store: &Store) -> Result<(), Error> {
    store.pack(Keep::Head)?;
    Ok(())
}

fn compare(store: &Store, numbers: std::ops::Range<usize>) -> Result<(), String> {
    let transaction = store.begin_read().map_err(|error| error.to_string())?;
    for number in numbers {
        let array = transaction.open::<u64, Ix2>(&format!("a{number}"));
        let array = array.map_err(|error| format!("a{number}: {error}"))?;
        let view = array.view().map_err(|error| format!("a{number}: {error}"))?;
        if view.iter().any(|found| *found != value(number)) {
            return Err(format!("a{number} has other bytes"));
        }
    }
    Ok(())
}
