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
//! the other, in sectors of 512 bytes. What that means for an image is said in
//! `simulated/crash.rs`.
//!
//! A process may also die while the machine goes on ([`FaultKind::Killed`]): then its successor
//! finds everything that was written, durable or not, and the power may fail later.
//!
//! # Invariants
//!
//! 1. A file that somebody wants to map is a real descriptor (`memfd`) from then on, and every
//!    change of it goes there too.
//! 2. What was written before a failed sync is not made durable by a later sync that succeeds.
//! 3. An image has no history: what it holds is durable.

mod content;
mod crash;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

#[cfg(not(miri))]
use nix::sys::memfd::{MFdFlags, memfd_create};

use self::content::Content;
pub use self::crash::CrashPoint;
use self::crash::Image;
#[cfg(not(miri))]
use super::directory::RealFile;
#[cfg(miri)]
use super::interpreted::{RealFile, memory_file};
use super::{Access, Backend, BackendFile, ByteLock, FileSystem, Growth};
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
        /// Whether it failed and what it should have made durable is gone.
        lost: bool,
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
    /// With `EIO`, and what a failed sync should have made durable is gone at once: reading shows
    /// what was there before.
    Lost,
    /// The process is dead. Nothing reaches the disk but half of the write it died in.
    Killed,
    /// As `Killed`, from the next sync of a file on.
    KilledAtSync,
    /// As `Killed`, from the next sync of a directory on.
    KilledAtSyncDir,
    /// As `Short`, for the next write.
    ShortWrite,
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

/// A file as the running program sees it.
#[derive(Default)]
struct Live {
    content: Content,
    // As of the last sync.
    synced: Content,
    // Invariant 1.
    memory: Option<Arc<OwnedFd>>,
}

struct World {
    // Files by identity.
    files: Vec<Live>,
    // What was durable when this world began.
    start: Image,
    names: imbl::OrdMap<Arc<str>, usize>,
    directories: imbl::OrdSet<Arc<str>>,
    history: Vec<Arc<Change>>,
    calls: usize,
    fault: Option<Fault>,
    fault_hit: bool,
    locks: Vec<(usize, u64, u64, ByteLock)>,
    owners: u64,
    kind: FileSystem,
}

/// A simulated disk with one store on it. Clones are the same disk.
#[derive(Clone)]
pub struct Simulated(Arc<Mutex<World>>);

impl Simulated {
    /// An empty disk.
    ///
    /// # Errors
    ///
    /// None so far.
    pub fn new() -> io::Result<Self> {
        Ok(Self::from_image(Image::default()))
    }

    fn from_image(start: Image) -> Self {
        let live = |content: &Content| {
            let (content, synced) = (content.clone(), content.clone());
            Live { content, synced, memory: None }
        };
        let world = World {
            files: start.content.iter().map(live).collect(),
            names: start.names.clone(),
            directories: start.directories.clone(),
            start,
            history: Vec::new(),
            calls: 0,
            fault: None,
            fault_hit: false,
            locks: Vec::new(),
            owners: 0,
            kind: FileSystem::Local,
        };
        Self(Arc::new(Mutex::new(world)))
    }

    /// Number of changes so far: the crash points are `0..=` this.
    #[must_use]
    pub fn changes_count(&self) -> usize {
        self.0.lock().history.len()
    }

    /// The changes so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.0.lock().history.iter().map(|change| (**change).clone()).collect()
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
        world.fault_hit = false;
        world.fault = fault.map(|fault| Fault { call: now + fault.call, ..fault });
    }

    /// Makes the disk say that it is of this kind.
    pub fn set_file_system(&self, kind: FileSystem) {
        self.0.lock().kind = kind;
    }

    /// Whether a call has failed since [`set_fault`](Self::set_fault).
    #[must_use]
    pub fn fault_hit(&self) -> bool {
        self.0.lock().fault_hit
    }

    /// The numbers of the changes that a crash before change `at` may or may not leave.
    #[must_use]
    pub fn undecided(&self, at: usize) -> Vec<usize> {
        self.crash_point(at).undecided().map(|(number, _)| number).collect()
    }

    /// The crash before change number `at`.
    #[must_use]
    pub fn crash_point(&self, at: usize) -> CrashPoint {
        let world = self.0.lock();
        let mut point = CrashPoint::beginning(world.start.clone());
        world.history[..at].iter().for_each(|change| point.advance(change));
        point
    }

    /// The crash before each change, and after the last.
    #[must_use]
    pub fn crash_points(&self) -> Vec<CrashPoint> {
        let world = self.0.lock();
        let mut points = vec![CrashPoint::beginning(world.start.clone())];
        let mut point = points[0].clone();
        for change in &world.history {
            point.advance(change);
            points.push(point.clone());
        }
        points
    }

    /// A disk as a crash before change number `at` may leave it.
    ///
    /// `choose` decides for each change that was not durable, in order, with its number.
    ///
    /// # Errors
    ///
    /// None so far.
    pub fn crash_image(
        &self,
        at: usize,
        choose: impl FnMut(usize, &Change) -> Survival,
    ) -> io::Result<Self> {
        Ok(Self::after(&self.crash_point(at), choose))
    }

    /// A disk as a crash may leave it; see [`crash_image`](Self::crash_image).
    pub fn after(point: &CrashPoint, choose: impl FnMut(usize, &Change) -> Survival) -> Self {
        Self::from_image(point.image(choose))
    }

    fn call<T>(&self, call: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        self.call_of(FaultKind::Eio, call)
    }

    /// A call of the kind that `own` waits for.
    fn call_of<T>(
        &self,
        own: FaultKind,
        call: impl FnOnce(&mut World) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut world = self.0.lock();
        match world.next_fault(own) {
            Some(kind) => Err(kind.error()),
            None => call(&mut world),
        }
    }

    fn opened(&self, world: &mut World, file: usize) -> Arc<dyn BackendFile> {
        world.owners += 1;
        Arc::new(SimulatedFile { disk: self.clone(), file, owner: world.owners })
    }
}

impl FaultKind {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Enospc => libc::ENOSPC,
            _ => libc::EIO,
        })
    }
}

impl World {
    /// Counts a changing call and says how it fails, if it does. Some faults wait for calls of
    /// their `own` kind.
    fn next_fault(&mut self, own: FaultKind) -> Option<FaultKind> {
        use FaultKind::{Killed, KilledAtSync, KilledAtSyncDir, Short, ShortWrite};
        let call = self.calls;
        self.calls += 1;
        let fault = self.fault.as_mut()?;
        if matches!(fault.kind, KilledAtSync | KilledAtSyncDir | ShortWrite) && call >= fault.call {
            if fault.kind != own {
                return None;
            }
            let (kind, lasting) = match own {
                ShortWrite => (Short, fault.lasting),
                _ => (Killed, true),
            };
            *fault = Fault { call, kind, lasting };
        }
        let hit = if fault.lasting { call >= fault.call } else { call == fault.call };
        self.fault_hit |= hit;
        hit.then_some(fault.kind)
    }

    fn note(&mut self, change: Change) {
        self.history.push(Arc::new(change));
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let live = &mut self.files[file];
        live.content.write(offset, bytes);
        if let Some(memory) = &live.memory {
            RealFile::new(Arc::clone(memory)).write_at(&[bytes], offset)?;
        }
        self.note(Change::Write { file, offset, bytes: Arc::from(bytes) });
        Ok(())
    }

    fn set_len(&mut self, file: usize, len: u64) -> io::Result<()> {
        let live = &mut self.files[file];
        live.content.set_len(len);
        if let Some(memory) = &live.memory {
            RealFile::new(Arc::clone(memory)).set_len(len)?;
        }
        self.note(Change::SetLen { file, len });
        Ok(())
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        let fault = self.next_fault(FaultKind::KilledAtSync);
        let live = &mut self.files[file];
        let (failed, lost) = (fault.is_some(), fault == Some(FaultKind::Lost));
        match fault {
            None => live.synced = live.content.clone(),
            Some(FaultKind::Lost) => live.content.revert(&live.synced),
            Some(FaultKind::Killed) => return Err(FaultKind::Killed.error()),
            Some(_) => {}
        }
        self.note(Change::Sync { file, failed, lost });
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }
}

impl Live {
    /// Keeps invariant 1.
    fn memory(&mut self) -> io::Result<Arc<OwnedFd>> {
        if let Some(memory) = &self.memory {
            return Ok(Arc::clone(memory));
        }
        let memory = memory_file()?;
        let file = RealFile::new(Arc::clone(&memory));
        file.set_len(self.content.len())?;
        self.content.pages().try_for_each(|(offset, bytes)| {
            let left = usize::try_from(self.content.len() - offset).unwrap_or(usize::MAX);
            file.write_at(&[&bytes[..left.min(bytes.len())]], offset)
        })?;
        self.memory = Some(Arc::clone(&memory));
        Ok(memory)
    }
}

#[cfg(not(miri))]
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

    fn file_system(&self) -> io::Result<FileSystem> {
        Ok(self.0.lock().kind)
    }

    fn create_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.call(|world| {
            if world.directories.insert(Arc::from(path)).is_some() {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            world.note(Change::CreateDir { path: path.to_owned() });
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
            world.files.push(Live::default());
            world.names.insert(Arc::from(path), file);
            world.note(Change::Create { path: path.to_owned(), file });
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
        let all = world.names.keys().chain(world.directories.iter());
        let inside = all.filter(|name| parent(name) == path);
        let last = |name: &Arc<str>| name.rsplit('/').next().unwrap_or(name).to_owned();
        let names: BTreeSet<String> = inside.map(last).collect();
        Ok(names.into_iter().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|world| {
            let file = world.names.remove(from).ok_or_else(not_found)?;
            world.names.insert(Arc::from(to), file);
            let (from, to) = (from.to_owned(), to.to_owned());
            world.note(Change::Rename { from, to, file });
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call(|world| {
            world.names.remove(path).ok_or_else(not_found)?;
            world.note(Change::Remove { path: path.to_owned() });
            Ok(())
        })
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.call_of(FaultKind::KilledAtSyncDir, |world| {
            world.note(Change::SyncDir { path: path.to_owned() });
            Ok(())
        })
    }
}

struct SimulatedFile {
    disk: Simulated,
    file: usize,
    owner: u64,
}

impl SimulatedFile {
    fn live<T>(&self, look: impl FnOnce(&mut Live) -> T) -> T {
        look(&mut self.disk.0.lock().files[self.file])
    }
}

impl BackendFile for SimulatedFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        Ok(self.live(|live| live.content.read(bytes, offset_bytes)))
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        let bytes = parts.concat();
        let half = &bytes[..bytes.len() / 2];
        match world.next_fault(FaultKind::ShortWrite) {
            Some(FaultKind::Short) => {
                world.write(self.file, offset_bytes, half)?;
                Err(FaultKind::Enospc.error())
            }
            Some(FaultKind::Killed) if world.fault.is_some_and(|f| f.call + 1 == world.calls) => {
                world.write(self.file, offset_bytes, half)?;
                Err(FaultKind::Killed.error())
            }
            Some(kind) => Err(kind.error()),
            None => world.write(self.file, offset_bytes, &bytes),
        }
    }

    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()> {
        self.disk.call(|world| {
            let end = offset_bytes + len_bytes;
            if growth == Growth::Extend && world.files[self.file].content.len() < end {
                world.set_len(self.file, end)?;
            }
            Ok(())
        })
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        self.disk.call(|world| {
            let live = &mut world.files[self.file];
            live.content.punch(offset_bytes, len_bytes);
            if let Some(memory) = &live.memory {
                RealFile::new(Arc::clone(memory)).punch(offset_bytes, len_bytes)?;
            }
            let (offset, len) = (offset_bytes, len_bytes);
            world.note(Change::Punch { file: self.file, offset, len });
            Ok(())
        })
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.call(|world| world.set_len(self.file, len_bytes))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.live(|live| live.content.len()))
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.live(|live| live.content.allocated_bytes()))
    }

    fn start_writeback(&self, _offset_bytes: u64, _len_bytes: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        self.disk.0.lock().sync(self.file)
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

    fn locked_by_others(&self, bytes: &Range<u64>) -> io::Result<Option<u64>> {
        let world = self.disk.0.lock();
        let held = world.locks.iter().find(|&&(file, byte, owner, _)| {
            file == self.file && owner != self.owner && bytes.contains(&byte)
        });
        Ok(held.map(|&(_, byte, ..)| byte))
    }

    fn fd(&self) -> Arc<OwnedFd> {
        match self.live(Live::memory) {
            Ok(memory) => memory,
            Err(error) => panic!("the system gives no memory file: {error}"),
        }
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
