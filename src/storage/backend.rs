//! The few file calls that the local engine makes, behind one trait, and the latch over them.
//!
//! ```text
//! log, extents, checkpoint -> Files, StoreFile (errors, latch) -> Backend -> directory | simulated
//! ```
//!
//! All paths are relative to the directory of the store and use `/`; `""` is that directory.
//!
//! # Invariants
//!
//! 1. A call that returns `Ok` has moved every byte: short transfers are continued and
//!    interrupted calls repeated by the back end.
//! 2. Once a write or a sync has failed, the latch is shut and no writing call reaches the disk
//!    any more: a second sync could return `Ok` for data that is lost. A full disk shuts nothing,
//!    unless it is a sync that finds it full.
//!
//! # Failure
//!
//! Every error names the file. A full disk or quota is [`StorageError::NoSpace`].

mod directory;
mod file_system;
#[cfg(miri)]
mod interpreted;
#[doc(hidden)]
pub mod simulated;

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use directory::Directory;
pub use file_system::FileSystem;

use super::StorageError;
use super::planted::{Bug, planted};
use super::words::SharedWords;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading only; works on a read-only file system.
    Read,
    /// Reading and writing.
    Write,
}

/// A lock on one byte of a file, owned by the open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteLock {
    /// No lock.
    None,
    /// Any number of owners at once.
    Shared,
    /// One owner and no shared one.
    Exclusive,
}

/// Whether allocating space makes the file longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// The length stays; the space lies ready behind the end.
    KeepLen,
    /// The file becomes long enough to contain the space, which reads as zeros.
    Extend,
}

/// A directory that holds a store.
pub trait Backend: Send + Sync {
    /// The name of the store for people.
    fn location(&self) -> String;

    /// On what the directory lies, or the one above it as long as it does not exist.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn file_system(&self) -> io::Result<FileSystem> {
        Ok(FileSystem::Local)
    }

    /// Creates the directory itself, durably; nothing happens if it exists.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn create_root(&self) -> io::Result<()>;

    /// Creates a directory.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Creates a file that must not exist and opens it for writing.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] and the system's other answers.
    fn create(&self, path: &str) -> io::Result<Arc<dyn BackendFile>>;

    /// Creates a file without a name, which is gone when nobody has it open or mapped any more.
    /// It is no part of the store: nothing of it survives.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn create_unnamed(&self) -> io::Result<Arc<dyn BackendFile>>;

    /// Opens a file for copies that all processes of a store use, created if it does not exist:
    /// it is no part of the store. `None` where there can be no such file.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn open_cache(&self, _path: &str) -> io::Result<Option<Arc<dyn BackendFile>>> {
        Ok(None)
    }

    /// Opens a file that exists and is a regular file, not a symbolic link.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] and the system's other answers.
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn BackendFile>>;

    /// The names in a directory, ascending.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name and replaces what has that name.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name of a file. Who has it open can go on using it.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
}

/// An open file.
pub trait BackendFile: Send + Sync {
    /// Reads until `bytes` is full or the file ends; returns the number of bytes read.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize>;

    /// Writes all of `parts`, one after the other.
    ///
    /// # Errors
    ///
    /// The system's answer; any part of the bytes may have been written.
    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()>;

    /// Sets disk space aside, so that writing there cannot fail for want of space.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] if the file system cannot; the system's other answers.
    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()>;

    /// Gives disk space back; the bytes read as zeros from then on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] if the file system cannot; the system's other answers.
    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()>;

    /// Cuts the file or extends it with zeros.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;

    /// Length of the file in bytes.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no byte.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Bytes that the file takes on the disk.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn allocated_bytes(&self) -> io::Result<u64>;

    /// Begins to write the range to the disk and does not wait. A hint.
    fn start_writeback(&self, offset_bytes: u64, len_bytes: u64);

    /// Makes content and length durable.
    ///
    /// # Errors
    ///
    /// The system's answer; what was not durable may be lost.
    fn sync_data(&self) -> io::Result<()>;

    /// Changes this open file's lock on one byte, without waiting. `false` if another one is in
    /// the way.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn try_lock(&self, byte: u64, lock: ByteLock) -> io::Result<bool>;

    /// A byte of `bytes` on which another open file has a lock.
    ///
    /// # Errors
    ///
    /// The system's answer.
    fn locked_by_others(&self, bytes: &Range<u64>) -> io::Result<Option<u64>>;

    /// The descriptor, for mapping.
    fn fd(&self) -> Arc<OwnedFd>;
}

/// Maps so many words of a file, to be written or not. The layer above knows how.
pub type MapWords = fn(Arc<OwnedFd>, usize, bool) -> io::Result<Arc<dyn SharedWords>>;

/// When process `pid` was started, in ticks of the kernel: with the pid it names one process for
/// all times. 0 if there is none.
pub(super) fn process_start(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the last parenthesis may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Remembers that a write failed (invariant 2).
#[derive(Clone, Default, Debug)]
pub struct Latch(Arc<AtomicBool>);

impl Latch {
    /// Whether a write has failed.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Notes that a write has failed.
    pub fn shut(&self) {
        if planted(Bug::PoisonIgnored) {
            return;
        }
        self.0.store(true, Ordering::Release);
    }

    fn writing<T>(
        &self,
        path: &str,
        action: &'static str,
        bytes: u64,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StorageError> {
        if self.is_shut() {
            return Err(StorageError::Poisoned);
        }
        call().map_err(|error| {
            let error = translated(path, action, bytes, error);
            if !matches!(error, StorageError::NoSpace { .. }) {
                self.shut();
            }
            error
        })
    }

    /// A sync. Its failure is never a mere lack of space, whatever the system says: what was to be
    /// durable is not, and a second sync would not say so.
    fn syncing(
        &self,
        path: &str,
        action: &'static str,
        call: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StorageError> {
        if self.is_shut() {
            return Err(StorageError::Poisoned);
        }
        call().map_err(|source| {
            self.shut();
            StorageError::Io { action, path: path.to_owned(), source }
        })
    }
}

fn translated(path: &str, action: &'static str, bytes: u64, source: io::Error) -> StorageError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let path = path.to_owned();
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => StorageError::NoSpace { path, bytes },
        _ => StorageError::Io { action, path, source },
    }
}

/// The files of one store, with one latch over all of them.
#[derive(Clone)]
pub(super) struct Files {
    backend: Arc<dyn Backend>,
    latch: Latch,
    writable: bool,
}

impl Files {
    pub(super) fn new(backend: Arc<dyn Backend>, writable: bool) -> Self {
        Self { backend, latch: Latch::default(), writable }
    }

    /// Whether the store was opened for writing.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// How to open files that the store writes to.
    pub(super) fn access(&self) -> Access {
        if self.writable { Access::Write } else { Access::Read }
    }

    /// The same files for work that may fail without harm: its failures shut another latch.
    pub(super) fn aside(&self) -> Self {
        Self { latch: Latch::default(), ..self.clone() }
    }

    pub(super) fn latch(&self) -> &Latch {
        &self.latch
    }

    pub(super) fn location(&self) -> String {
        self.backend.location()
    }

    /// Refuses a place that several machines may write to at once.
    pub(super) fn require_local(&self) -> Result<(), StorageError> {
        let path = self.location();
        match self.backend.file_system() {
            Ok(FileSystem::Local) => Ok(()),
            Ok(FileSystem::Network(kind)) => Err(StorageError::NetworkFileSystem { path, kind }),
            Err(error) => Err(translated(&path, "examine", 0, error)),
        }
    }

    pub(super) fn create_root(&self) -> Result<(), StorageError> {
        let path = self.location();
        self.latch.writing(&path, "create", 0, || self.backend.create_root())
    }

    pub(super) fn create_dir(&self, path: &str) -> Result<(), StorageError> {
        self.latch.writing(path, "create", 0, || self.backend.create_dir(path))
    }

    pub(super) fn create(&self, path: &str) -> Result<StoreFile, StorageError> {
        self.latch
            .writing(path, "create", 0, || self.backend.create(path))
            .map(|file| self.wrapped(file, path))
    }

    /// A file without a name; its failures shut no latch of the store.
    pub(super) fn create_unnamed(&self) -> Result<StoreFile, StorageError> {
        let path = "an unnamed file";
        let file = self.backend.create_unnamed();
        let file = file.map_err(|error| translated(path, "create", 0, error))?;
        Ok(self.aside().wrapped(file, path))
    }

    /// The file for copies that all processes of the store use; its failures shut no latch of the
    /// store.
    pub(super) fn open_cache(&self, path: &str) -> Result<Option<StoreFile>, StorageError> {
        let file = self.backend.open_cache(path);
        let file = file.map_err(|error| translated(path, "open", 0, error))?;
        Ok(file.map(|file| self.aside().wrapped(file, path)))
    }

    pub(super) fn open(&self, path: &str, access: Access) -> Result<StoreFile, StorageError> {
        let opened = self.backend.open(path, access);
        let file = opened.map_err(|error| translated(path, "open", 0, error))?;
        Ok(self.wrapped(file, path))
    }

    /// The file, or `None` if it does not exist.
    pub(super) fn try_open(
        &self,
        path: &str,
        access: Access,
    ) -> Result<Option<StoreFile>, StorageError> {
        match self.open(path, access) {
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, StorageError> {
        self.backend.list(path).map_err(|error| translated(path, "list", 0, error))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.latch.writing(to, "rename a file to", 0, || self.backend.rename(from, to))
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), StorageError> {
        self.latch.writing(path, "remove", 0, || match self.backend.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
    }

    /// Makes names durable. Any failure shuts the latch.
    pub(super) fn sync_dir(&self, path: &str) -> Result<(), StorageError> {
        self.latch.syncing(path, "sync directory", || self.backend.sync_dir(path))
    }

    fn wrapped(&self, file: Arc<dyn BackendFile>, path: &str) -> StoreFile {
        StoreFile { file, path: Arc::from(path), latch: self.latch.clone() }
    }
}

/// An open file of a store. A clone is the same open file.
#[derive(Clone)]
pub(super) struct StoreFile {
    file: Arc<dyn BackendFile>,
    path: Arc<str>,
    latch: Latch,
}

impl StoreFile {
    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        self.file.fd()
    }

    /// Reads until `bytes` is full or the file ends.
    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.file.read_at(bytes, offset).map_err(|error| self.failed("read", 0, error))
    }

    /// Fills `bytes`, or says that the file is too short.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), StorageError> {
        if self.read_at(bytes, offset)? == bytes.len() {
            return Ok(());
        }
        let end = offset.saturating_add(bytes.len() as u64);
        Err(self.damaged(offset, format!("the file ends before byte {end}")))
    }

    pub(super) fn write_at(&self, parts: &[&[u8]], offset: u64) -> Result<(), StorageError> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.latch.writing(&self.path, "write", bytes, || self.file.write_at(parts, offset))
    }

    /// Sets space aside; where the file system cannot, writing finds out.
    pub(super) fn allocate(
        &self,
        offset: u64,
        len: u64,
        growth: Growth,
    ) -> Result<(), StorageError> {
        self.latch.writing(&self.path, "allocate space in", len, || {
            match self.file.allocate(offset, len, growth) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => match growth {
                    Growth::KeepLen => Ok(()),
                    Growth::Extend if self.file.len()? >= offset.saturating_add(len) => Ok(()),
                    Growth::Extend => self.file.set_len(offset.saturating_add(len)),
                },
                other => other,
            }
        })
    }

    /// Gives space back where the file system can. What is punched is nobody's, so a failure loses
    /// nothing and shuts nothing.
    pub(super) fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        if self.latch.is_shut() {
            return Err(StorageError::Poisoned);
        }
        match self.file.punch(offset, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other.map_err(|error| self.failed("punch", 0, error)),
        }
    }

    pub(super) fn set_len(&self, len: u64) -> Result<(), StorageError> {
        self.latch.writing(&self.path, "cut", 0, || self.file.set_len(len))
    }

    pub(super) fn len(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(|error| self.failed("examine", 0, error))
    }

    pub(super) fn allocated_bytes(&self) -> Result<u64, StorageError> {
        self.file.allocated_bytes().map_err(|error| self.failed("examine", 0, error))
    }

    pub(super) fn start_writeback(&self, offset: u64, len: u64) {
        self.file.start_writeback(offset, len);
    }

    /// Makes the file durable. Any failure shuts the latch.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.latch.syncing(&self.path, "sync", || self.file.sync_data())
    }

    pub(super) fn try_lock(&self, byte: u64, lock: ByteLock) -> Result<bool, StorageError> {
        self.file.try_lock(byte, lock).map_err(|error| self.failed("lock", 0, error))
    }

    pub(super) fn locked_by_others(&self, bytes: &Range<u64>) -> Result<Option<u64>, StorageError> {
        self.file.locked_by_others(bytes).map_err(|error| self.failed("lock", 0, error))
    }

    /// The error that says what is wrong at a byte of this file.
    pub(super) fn damaged(&self, offset: u64, what: impl Into<String>) -> StorageError {
        let place = format!("{} at byte {offset}", self.path);
        StorageError::Corrupted { place, what: what.into() }
    }

    fn failed(&self, action: &'static str, bytes: u64, error: io::Error) -> StorageError {
        translated(&self.path, action, bytes, error)
    }
}
