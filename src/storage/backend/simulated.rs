//! A simulated disk: files in memory, a history of every change, crashes and failing calls at will.
//!
//! ```text
//! history   create a | write a | sync a | rename a b | write b | sync dir | write b
//!                                                              ^ crash here
//! image     a synced write is there; the others, and names, each as somebody chooses
//! ```
//!
//! It is the back end of the rigs that test what a power cut or a failing disk may leave. It
//! promises no more than POSIX does: content and length are durable after a sync of the file, a
//! name after a sync of its directory, and what is not durable survives or not, one independent of
//! the other, in sectors of 512 bytes.
//!
//! # Invariants
//!
//! 1. Files are real descriptors (`memfd`), so they can be mapped.
//! 2. What was written before a failed sync is not made durable by a later sync that succeeds.
//! 3. An image has no history: what it holds is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::directory::RealFile;
use super::{Access, Backend, BackendFile, ByteLock, Growth};
use crate::sync::Mutex;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// One change of the simulated disk.
#[derive(Clone, Debug)]
pub enum Change {
    /// A directory was created.
    CreateDir {
        /// Its path.
        path: String,
    },
    /// A file was created.
    Create {
        /// Its path.
        path: String,
        /// Its identity.
        file: usize,
    },
    /// A file got another name.
    Rename {
        /// Old path.
        from: String,
        /// New path.
        to: String,
        /// Its identity.
        file: usize,
    },
    /// A name was removed.
    Remove {
        /// The path.
        path: String,
    },
    /// Bytes were written.
    Write {
        /// Of which file.
        file: usize,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file was cut or extended.
    SetLen {
        /// Which file.
        file: usize,
        /// Its new length in bytes.
        len: u64,
    },
    /// Space was given back.
    Punch {
        /// Of which file.
        file: usize,
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A file was synced, or the attempt failed.
    Sync {
        /// Which file.
        file: usize,
        /// Whether the attempt failed.
        failed: bool,
    },
    /// The names in a directory were synced.
    SyncDir {
        /// Its path.
        path: String,
    },
}

impl Change {
    /// The file whose content or length this changes.
    fn content_of(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::SetLen { file, .. } | Self::Punch { file, .. } => {
                Some(*file)
            }
            _ => None,
        }
    }

    /// The directory whose names this changes.
    fn names_of(&self) -> Option<&str> {
        match self {
            Self::CreateDir { path }
            | Self::Create { path, .. }
            | Self::Rename { to: path, .. }
            | Self::Remove { path } => Some(parent(path)),
            _ => None,
        }
    }

    /// Number of sectors a write touches; 0 for other changes.
    #[must_use]
    pub fn sectors(&self) -> usize {
        match self {
            Self::Write { offset, bytes, .. } => {
                let into = usize::try_from(offset % SECTOR_BYTES as u64).unwrap_or(0);
                (into + bytes.len()).div_ceil(SECTOR_BYTES)
            }
            _ => 0,
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What a crash leaves of a change that was not durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Survival {
    /// All of it.
    Kept,
    /// Nothing.
    Dropped,
    /// Of a write these sectors, and the length; of other changes all.
    Torn(Vec<bool>),
}

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// With `EIO`, without effect. What a failed sync should have made durable may be lost.
    Eio,
    /// With `ENOSPC`, without effect.
    Enospc,
    /// A write stops half way and then fails with `ENOSPC`; other calls fail with `EIO`.
    Short,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The first failing call, counted from 0 among the changing calls after now.
    pub call: usize,
    /// How.
    pub kind: FaultKind,
    /// Whether all later calls fail too.
    pub lasting: bool,
}

struct World {
    // Files by identity.
    files: Vec<Arc<OwnedFd>>,
    // What was durable when this world began.
    start: Image,
    names: BTreeMap<String, usize>,
    directories: BTreeSet<String>,
    history: Vec<Change>,
    calls: usize,
    fault: Option<Fault>,
    locks: Vec<(usize, u64, u64, ByteLock)>,
    owners: u64,
}

#[derive(Clone, Default)]
struct Image {
    names: BTreeMap<String, usize>,
    directories: BTreeSet<String>,
    content: Vec<Vec<u8>>,
}

/// A simulated disk with one store on it. Clones are the same disk.
#[derive(Clone)]
pub struct Simulated(Arc<Mutex<World>>);

impl Simulated {
    /// An empty disk.
    ///
    /// # Errors
    ///
    /// If the system gives no memory file.
    pub fn new() -> io::Result<Self> {
        Self::from_image(Image::default())
    }

    fn from_image(start: Image) -> io::Result<Self> {
        let mut files = Vec::new();
        for content in &start.content {
            let fd = memory_file()?;
            RealFile::new(Arc::clone(&fd)).write_at(&[content], 0)?;
            files.push(fd);
        }
        let (names, directories) = (start.names.clone(), start.directories.clone());
        let world = World {
            files,
            start,
            names,
            directories,
            history: Vec::new(),
            calls: 0,
            fault: None,
            locks: Vec::new(),
            owners: 0,
        };
        Ok(Self(Arc::new(Mutex::new(world))))
    }

    /// Number of changes so far: the crash points are `0..=` this.
    #[must_use]
    pub fn changes_count(&self) -> usize {
        self.0.lock().history.len()
    }

    /// The changes so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.0.lock().history.clone()
    }

    /// Number of changing calls so far, failed ones included.
    #[must_use]
    pub fn calls_count(&self) -> usize {
        self.0.lock().calls
    }

    /// Makes calls fail from now on, or none.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut world = self.0.lock();
        let now = world.calls;
        world.fault = fault.map(|fault| Fault { call: now + fault.call, ..fault });
    }

    /// The numbers of the changes that a crash before change `at` may or may not leave.
    #[must_use]
    pub fn undecided(&self, at: usize) -> Vec<usize> {
        undecided(&self.0.lock().history[..at])
    }

    /// A disk as a crash before change number `at` may leave it.
    ///
    /// `choose` decides for each change that was not durable, in order, with its number.
    ///
    /// # Errors
    ///
    /// If the system gives no memory file.
    pub fn crash_image(
        &self,
        at: usize,
        mut choose: impl FnMut(usize, &Change) -> Survival,
    ) -> io::Result<Self> {
        let world = self.0.lock();
        let history = &world.history[..at];
        let undecided: BTreeSet<usize> = undecided(history).into_iter().collect();
        let mut image = world.start.clone();
        image.content.resize(world.files.len(), Vec::new());
        for (number, change) in history.iter().enumerate() {
            let survival = match undecided.contains(&number) {
                true => choose(number, change),
                false => Survival::Kept,
            };
            if survival != Survival::Dropped {
                image.apply(change, &survival);
            }
        }
        let Image { names, directories, .. } = &mut image;
        names.retain(|path, _| parent(path).is_empty() || directories.contains(parent(path)));
        drop(world);
        Self::from_image(image)
    }

    fn call<T>(&self, call: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.0.lock();
        match world.next_fault() {
            Some(FaultKind::Enospc) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Some(FaultKind::Eio | FaultKind::Short) => Err(io::Error::from_raw_os_error(libc::EIO)),
            None => call(&mut world),
        }
    }

    fn opened(&self, world: &mut World, file: usize) -> Arc<dyn BackendFile> {
        world.owners += 1;
        let real = RealFile::new(Arc::clone(&world.files[file]));
        Arc::new(SimulatedFile { disk: self.clone(), real, file, owner: world.owners })
    }
}

/// Keeps invariant 2.
fn undecided(history: &[Change]) -> Vec<usize> {
    // From the end: which files and directories a later sync covers.
    let (mut synced, mut synced_dirs) = (BTreeSet::new(), BTreeSet::new());
    let mut undecided = Vec::new();
    for (number, change) in history.iter().enumerate().rev() {
        match change {
            Change::Sync { file, failed: false } => {
                synced.insert(*file);
            }
            Change::Sync { file, failed: true } => {
                synced.remove(file);
            }
            Change::SyncDir { path } => {
                synced_dirs.insert(path.as_str());
            }
            _ => {
                let content = change.content_of().is_some_and(|file| !synced.contains(&file));
                let names = change.names_of().is_some_and(|dir| !synced_dirs.contains(dir));
                if content || names {
                    undecided.push(number);
                }
            }
        }
    }
    undecided.reverse();
    undecided
}

impl Image {
    fn apply(&mut self, change: &Change, survival: &Survival) {
        match change {
            Change::CreateDir { path } => {
                self.directories.insert(path.clone());
            }
            Change::Create { path, file } => {
                self.names.insert(path.clone(), *file);
            }
            Change::Rename { from, to, file } => {
                if self.names.get(from) == Some(file) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *file);
            }
            Change::Remove { path } => {
                self.names.remove(path);
            }
            Change::Write { file, offset, bytes } => {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                self.write(*file, start, bytes, survival);
            }
            Change::SetLen { file, len } => {
                self.content[*file].resize(usize::try_from(*len).unwrap_or(usize::MAX), 0);
            }
            Change::Punch { file, offset, len } => {
                let content = &mut self.content[*file];
                let clip = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(content.len());
                let (start, end) = (clip(*offset), clip(offset.saturating_add(*len)));
                content[start..end].fill(0);
            }
            Change::Sync { .. } | Change::SyncDir { .. } => {}
        }
    }

    fn write(&mut self, file: usize, start: usize, bytes: &[u8], survival: &Survival) {
        let content = &mut self.content[file];
        let end = start + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        let first = start / SECTOR_BYTES;
        for sector in first..end.div_ceil(SECTOR_BYTES) {
            let kept = match survival {
                Survival::Torn(sectors) => sectors.get(sector - first).copied().unwrap_or(false),
                Survival::Kept => true,
                Survival::Dropped => false,
            };
            let from = (sector * SECTOR_BYTES).max(start);
            let to = ((sector + 1) * SECTOR_BYTES).min(end);
            if kept {
                content[from..to].copy_from_slice(&bytes[from - start..to - start]);
            }
        }
    }
}

impl World {
    /// Counts a changing call and says how it fails, if it does.
    fn next_fault(&mut self) -> Option<FaultKind> {
        let call = self.calls;
        self.calls += 1;
        let fault = self.fault?;
        let hit = if fault.lasting { call >= fault.call } else { call == fault.call };
        hit.then_some(fault.kind)
    }
}

fn memory_file() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(memfd_create("zbigarray-simulated", MFdFlags::MFD_CLOEXEC)?))
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Backend for Simulated {
    fn location(&self) -> String {
        "simulated store".to_owned()
    }

    fn create_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.call(|world| {
            if !world.directories.insert(path.to_owned()) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            world.history.push(Change::CreateDir { path: path.to_owned() });
            Ok(())
        })
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn BackendFile>> {
        self.call(|world| {
            if world.names.contains_key(path) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            if !parent(path).is_empty() && !world.directories.contains(parent(path)) {
                return Err(not_found());
            }
            let file = world.files.len();
            world.files.push(memory_file()?);
            world.names.insert(path.to_owned(), file);
            world.history.push(Change::Create { path: path.to_owned(), file });
            Ok(self.opened(world, file))
        })
    }

    fn create_unnamed(&self) -> io::Result<Arc<dyn BackendFile>> {
        Ok(Arc::new(RealFile::new(memory_file()?)))
    }

    fn open(&self, path: &str, _access: Access) -> io::Result<Arc<dyn BackendFile>> {
        let mut world = self.0.lock();
        let file = *world.names.get(path).ok_or_else(not_found)?;
        Ok(self.opened(&mut world, file))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let world = self.0.lock();
        if !path.is_empty() && !world.directories.contains(path) {
            return Err(not_found());
        }
        let all = world.names.keys().chain(&world.directories);
        let inside = all.filter(|name| parent(name) == path);
        let last = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
        let names: BTreeSet<String> = inside.map(last).collect();
        Ok(names.into_iter().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|world| {
            let file = world.names.remove(from).ok_or_else(not_found)?;
            world.names.insert(to.to_owned(), file);
            let (from, to) = (from.to_owned(), to.to_owned());
            world.history.push(Change::Rename { from, to, file });
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call(|world| {
            world.names.remove(path).ok_or_else(not_found)?;
            world.history.push(Change::Remove { path: path.to_owned() });
            Ok(())
        })
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.call(|world| {
            world.history.push(Change::SyncDir { path: path.to_owned() });
            Ok(())
        })
    }
}

struct SimulatedFile {
    disk: Simulated,
    real: RealFile,
    file: usize,
    owner: u64,
}

impl SimulatedFile {
    fn written(&self, world: &mut World, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.real.write_at(&[bytes], offset)?;
        world.history.push(Change::Write { file: self.file, offset, bytes: Arc::from(bytes) });
        Ok(())
    }
}

impl BackendFile for SimulatedFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.real.read_at(bytes, offset_bytes)
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        let bytes = parts.concat();
        match world.next_fault() {
            Some(FaultKind::Eio) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(FaultKind::Enospc) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Some(FaultKind::Short) => {
                self.written(&mut world, &bytes[..bytes.len() / 2], offset_bytes)?;
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            None => self.written(&mut world, &bytes, offset_bytes),
        }
    }

    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()> {
        self.disk.call(|world| {
            let end = offset_bytes + len_bytes;
            if growth == Growth::Extend && self.real.len()? < end {
                self.real.set_len(end)?;
                world.history.push(Change::SetLen { file: self.file, len: end });
            }
            Ok(())
        })
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        self.disk.call(|world| {
            self.real.punch(offset_bytes, len_bytes)?;
            let (offset, len) = (offset_bytes, len_bytes);
            world.history.push(Change::Punch { file: self.file, offset, len });
            Ok(())
        })
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.call(|world| {
            self.real.set_len(len_bytes)?;
            world.history.push(Change::SetLen { file: self.file, len: len_bytes });
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.real.allocated_bytes()
    }

    fn start_writeback(&self, _offset_bytes: u64, _len_bytes: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.disk.call(|world| {
            world.history.push(Change::Sync { file: self.file, failed: false });
            Ok(())
        });
        if synced.is_err() {
            let failed = Change::Sync { file: self.file, failed: true };
            self.disk.0.lock().history.push(failed);
        }
        synced
    }

    fn try_lock(&self, byte: u64, lock: ByteLock) -> io::Result<bool> {
        let mut world = self.disk.0.lock();
        let (file, owner) = (self.file, self.owner);
        let in_the_way = |&(f, b, o, held): &(usize, u64, u64, ByteLock)| {
            (f, b) == (file, byte)
                && o != owner
                && lock != ByteLock::None
                && (lock == ByteLock::Exclusive || held == ByteLock::Exclusive)
        };
        if world.locks.iter().any(in_the_way) {
            return Ok(false);
        }
        world.locks.retain(|&(f, b, o, _)| (f, b, o) != (file, byte, owner));
        if lock != ByteLock::None {
            world.locks.push((file, byte, owner, lock));
        }
        Ok(true)
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.real.fd()
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.0.lock().locks.retain(|&(_, _, owner, _)| owner != self.owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &Simulated, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path, Access::Read).ok()?;
        let mut bytes = vec![0; 4096];
        let len = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(len);
        Some(bytes)
    }

    #[test]
    fn only_what_was_synced_survives_for_certain() {
        let disk = Simulated::new().unwrap();
        let file = disk.create("f").unwrap();
        file.write_at(&[b"one"], 0).unwrap();
        file.sync_data().unwrap();
        file.write_at(&[b"two"], 0).unwrap();
        let end = disk.changes_count();
        assert_eq!(disk.undecided(end), [0, 3]);
        let image = |name: &Survival, write: &Survival| {
            disk.crash_image(end, |number, _| if number == 0 { name } else { write }.clone())
        };
        let lost = image(&Survival::Dropped, &Survival::Kept).unwrap();
        assert_eq!(read(&lost, "f"), None, "its name was never synced");
        let old = image(&Survival::Kept, &Survival::Dropped).unwrap();
        assert_eq!(read(&old, "f").unwrap(), b"one");
        disk.sync_dir("").unwrap();
        assert_eq!(disk.undecided(end + 1), [3]);
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_sync_brings_back() {
        let disk = Simulated::new().unwrap();
        let file = disk.create("f").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(&[b"lost"], 0).unwrap();
        disk.set_fault(Some(Fault { call: 0, kind: FaultKind::Eio, lasting: false }));
        assert!(file.sync_data().is_err());
        file.write_at(&[b"kept"], 512).unwrap();
        file.sync_data().unwrap();
        let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
        let bytes = read(&image, "f").unwrap();
        assert_eq!((&bytes[..4], &bytes[512..]), (&[0; 4][..], &b"kept"[..]));
    }

    #[test]
    fn a_torn_write_leaves_the_chosen_sectors() {
        let disk = Simulated::new().unwrap();
        let file = disk.create("f").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(&[&[1; 700], &[1; 700]], 0).unwrap();
        let torn = Survival::Torn(vec![false, true, false]);
        let image = disk.crash_image(disk.changes_count(), |_, _| torn.clone()).unwrap();
        let bytes = read(&image, "f").unwrap();
        assert_eq!(bytes.len(), 1400);
        let kept: Vec<usize> = (0..1400).filter(|&at| bytes[at] == 1).collect();
        assert_eq!(kept, (512..1024).collect::<Vec<_>>());
    }
}
