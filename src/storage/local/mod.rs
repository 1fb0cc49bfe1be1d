//! The local engine: a store in one directory of a file system.
//!
//! ```text
//! open   lock -> format.json -> newest checkpoint -> replay the log after it -> head
//! write  extents: allocate, write, sync -> log: append, sync
//! ```
//!
//! # Invariants
//!
//! 1. One process writes: it holds byte 0 of `shared` exclusively. Readers share byte 1, and who
//!    packs holds byte 1 exclusively.
//! 2. `format.json` exists only in a directory where everything else exists already.
//!
//! # Failure
//!
//! See [`StorageError`]. Opening a store never changes a commit that was acknowledged.

mod check;
mod checkpoint;
mod codec;
#[cfg(feature = "fuzzing")]
pub mod door;
mod extents;
mod format;
mod frame;
mod free_space;
mod log;
mod log_header;
mod names;
mod pack;
mod recovery;
mod segment_file;

use std::sync::Arc;
use std::time::Duration;

pub use format::{FORMAT_VERSION, Format};

use super::StorageError;
use super::backend::{Access, Backend, ByteLock, Files, StoreFile};
use super::check::Report;
use super::engine::{
    Allocation, BlobStore, CommitLog, Engine, ExtentFile, Packed, UnnamedFile, Usage,
};
use super::extent::{IN_LOG, Place};
use super::planted::{Bug, planted};
use super::record::{Draft, DraftSource, Record};
use super::state::State;
use crate::sync::{Mutex, thread};
use crate::units::{BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PAGE_BYTES, Tid};
use checkpoint::Checkpoint;
use extents::Extents;
use log::Log;
use log_header::LogHeader;

/// The bytes of a store's uuid.
type StoreId = [u8; 16];

const SHARED_PATH: &str = "shared";
const DIRECTORIES: [&str; 3] = ["log", "data", "checkpoint"];
const WRITER_BYTE: u64 = 0;
const READERS_BYTE: u64 = 1;
/// How long opening for reading waits for a pack to end.
const READER_ATTEMPTS: u32 = 400;
const READER_PAUSE: Duration = Duration::from_millis(5);

/// Sizes that a store is created and opened with. They are not part of the format.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Block size, in bytes, of arrays for which nobody chooses another one; for a new store.
    pub block_bytes: u64,
    /// From this length in bytes on a log file is continued in a new one.
    pub log_roll_bytes: u64,
    /// Most pages of a data file. No extent can be longer.
    pub data_file_pages: u64,
    /// A checkpoint pays when as many bytes of log follow the newest one.
    pub checkpoint_bytes_min: u64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES_DEFAULT,
            log_roll_bytes: 64 << 20,
            data_file_pages: (64 << 30) / PAGE_BYTES,
            checkpoint_bytes_min: 1 << 20,
        }
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Reading and committing; one opener at a time.
    ReadWrite,
    /// Reading only, beside a writer and other readers; also on a read-only file system.
    ReadOnly,
}

/// An open store in one directory.
pub struct LocalEngine {
    files: Files,
    format: Format,
    options: LocalOptions,
    log: Arc<Log>,
    extents: Extents,
    // The newest checkpoint.
    checkpoint: Mutex<Option<Arc<Checkpoint>>>,
    locks: Option<Locks>,
}

/// Holds the locks of invariant 1.
///
/// They belong to the open file, which a child of fork shares, if only until it starts a program:
/// so they are given back by name when the engine goes, and by nobody but the process that took
/// them.
struct Locks {
    shared: StoreFile,
    process: u32,
}

impl Drop for Locks {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            // Giving a lock back does not fail; if it did, closing the file gives it back.
            let _ = self.shared.try_lock(WRITER_BYTE, ByteLock::None);
            let _ = self.shared.try_lock(READERS_BYTE, ByteLock::None);
        }
    }
}

impl LocalEngine {
    /// Creates an empty store, durably, in a directory that is empty or does not exist.
    ///
    /// # Errors
    ///
    /// [`StorageError::AlreadyExists`] if something is there; [`StorageError::Io`] if the
    /// directory cannot be written; [`StorageError::BlockSize`].
    pub fn create(backend: &Arc<dyn Backend>, options: &LocalOptions) -> Result<(), StorageError> {
        let block_bytes = options.block_bytes;
        if !block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            return Err(StorageError::BlockSize { bytes: block_bytes });
        }
        let files = Files::new(Arc::clone(backend), true);
        files.create_root()?;
        let names = files.list("")?;
        if !is_unfinished_creation(&files, &names)? {
            return Err(StorageError::AlreadyExists { path: files.location() });
        }
        let format = Format::new(block_bytes);
        let missing = DIRECTORIES.iter().filter(|name| !names.contains(&(**name).to_owned()));
        for directory in missing {
            files.create_dir(directory)?;
        }
        if !names.contains(&SHARED_PATH.to_owned()) {
            files.create(SHARED_PATH)?.sync()?;
        }
        let header =
            LogHeader { file: 0, chain_base: 0, base: Tid::ZERO, previous: 0, has_state: false };
        log::create_log_file(&files, &header.encode(format.uuid.as_bytes()), 0)?;
        files.sync_dir("")?;
        // Invariant 2.
        format.write(&files)
    }

    /// Opens a store and returns it with its newest state.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotAStore`], [`StorageError::Version`], [`StorageError::Locked`] if
    /// another process writes, [`StorageError::Corrupted`] if acknowledged commits are damaged.
    pub fn open(
        backend: &Arc<dyn Backend>,
        mode: Mode,
        options: &LocalOptions,
    ) -> Result<(Self, State), StorageError> {
        let files = Files::new(Arc::clone(backend), mode == Mode::ReadWrite);
        let format = Format::read(&files)?;
        let process = std::process::id();
        let locks = lock(&files)?.map(|shared| Locks { shared, process });
        let store = *format.uuid.as_bytes();
        let found = recovery::recover(&files, &store, options)?;
        let log = Arc::new(found.log);
        let used = found.head.space.clone();
        let engine = Self {
            extents: Extents::new(files.clone(), options.data_file_pages, used),
            checkpoint: Mutex::new(None),
            options: options.clone(),
            files,
            format,
            log,
            locks,
        };
        if let Some(checkpoint) = found.checkpoint {
            engine.adopt(checkpoint);
        }
        Ok((engine, found.head))
    }

    /// What `format.json` says.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    fn store(&self) -> &StoreId {
        self.format.uuid.as_bytes()
    }

    /// Makes a checkpoint the newest one.
    fn adopt(&self, checkpoint: Checkpoint) {
        self.make_up_for(&checkpoint);
        self.log.set_checkpointed(checkpoint.tail());
        *self.checkpoint.lock() = Some(Arc::new(checkpoint));
    }

    /// Says where the state comes from if the checkpoint turns out to be damaged.
    fn make_up_for(&self, checkpoint: &Checkpoint) {
        let (tid, log) = (checkpoint.tail().tid, Arc::clone(&self.log));
        checkpoint.segments().rescue_with(Box::new(move || from_log(&log, tid)));
    }

    fn require_writable(&self) -> Result<(), StorageError> {
        match () {
            () if !self.files.is_writable() => Err(StorageError::ReadOnly),
            () if self.files.latch().is_shut() => Err(StorageError::Poisoned),
            () => Ok(()),
        }
    }
}

/// The state of commit `tid` out of the log alone.
fn from_log(log: &Log, tid: Tid) -> Result<State, StorageError> {
    let chain = log.chain();
    if tid < chain.oldest {
        return Err(StorageError::Forgotten { tid, oldest: chain.oldest });
    }
    let (_, state) = recovery::beginning(log, chain)?;
    replayed(log, state, tid)
}

fn replayed(log: &Log, mut state: State, tid: Tid) -> Result<State, StorageError> {
    for record in log.records(state.tid, tid)? {
        state = state.apply(&record)?;
    }
    Ok(state)
}

/// Whether a directory holds nothing, or only what a creation left that died before its end.
fn is_unfinished_creation(files: &Files, names: &[String]) -> Result<bool, StorageError> {
    let ours = |name: &String| {
        DIRECTORIES.contains(&name.as_str())
            || name == SHARED_PATH
            || name == format::FORMAT_TEMPORARY
    };
    if !names.iter().all(ours) {
        return Ok(false);
    }
    for directory in DIRECTORIES {
        if !names.contains(&directory.to_owned()) {
            continue;
        }
        for name in files.list(directory)? {
            let path = format!("{directory}/{name}");
            // A log with a record would be a store that lost its format file.
            let is_empty_log =
                directory == "log" && files.open(&path, Access::Read)?.len()? <= PAGE_BYTES;
            if !is_empty_log {
                return Ok(false);
            }
        }
    }
    if names.contains(&"log".to_owned()) {
        files.list("log")?.iter().try_for_each(|name| files.remove(&format!("log/{name}")))?;
    }
    files.remove(format::FORMAT_TEMPORARY)?;
    Ok(true)
}

/// Takes the locks of invariant 1.
fn lock(files: &Files) -> Result<Option<StoreFile>, StorageError> {
    let locked =
        |who: &str| Err(StorageError::Locked { path: files.location(), who: who.to_owned() });
    if files.is_writable() {
        let shared = match files.try_open(SHARED_PATH, Access::Write)? {
            Some(shared) => shared,
            None => files.create(SHARED_PATH)?,
        };
        return match shared.try_lock(WRITER_BYTE, ByteLock::Exclusive)? {
            true => Ok(Some(shared)),
            false => locked("another process has it open for writing"),
        };
    }
    let Some(shared) = files.try_open(SHARED_PATH, Access::Read)? else { return Ok(None) };
    for _ in 0..READER_ATTEMPTS {
        if shared.try_lock(READERS_BYTE, ByteLock::Shared)? {
            return Ok(Some(shared));
        }
        thread::sleep(READER_PAUSE);
    }
    locked("another process packs it; try again later")
}

/// Where `place` is, for people.
fn location(place: Place) -> String {
    let path = match place.in_log() {
        true => log_header::log_path(place.file & !IN_LOG),
        false => extents::data_path(place.file),
    };
    format!("{path} at byte {}", place.page.saturating_mul(PAGE_BYTES))
}

/// `n` as an index; what does not fit cannot be indexed either.
fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl BlobStore for LocalEngine {
    fn allocate(&self, wish: &Allocation) -> Result<Place, StorageError> {
        self.require_writable()?;
        self.extents.allocate(wish)
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<(), StorageError> {
        self.require_writable()?;
        self.extents.write(place, bytes)
    }

    fn free(&self, place: Place, pages: u64) {
        self.extents.free(place, pages);
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.require_writable()?;
        if planted(Bug::RecordBeforeData) { Ok(()) } else { self.extents.sync() }
    }

    fn read(&self, place: Place, offset_bytes: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        let offset = place.page.saturating_mul(PAGE_BYTES).saturating_add(offset_bytes);
        self.file_at(place)?.read_exact_at(bytes, offset)
    }

    fn describe(&self, place: Place) -> String {
        location(place)
    }

    fn file_of(&self, place: Place, pages: u64) -> Result<Option<ExtentFile>, StorageError> {
        let file = self.file_at(place)?;
        let end_bytes = place.page.saturating_add(pages).saturating_mul(PAGE_BYTES);
        let len = file.len()?;
        // Touching a mapping beyond the end of its file kills the process.
        if len < end_bytes {
            return Err(file.damaged(len, format!("the file ends before byte {end_bytes}")));
        }
        // Nor may what is mapped be given out to others: invariant 1 of docs/design.md.
        if self.files.is_writable() && !place.in_log() && !self.extents.are_taken(place, pages) {
            let at = place.page.saturating_mul(PAGE_BYTES);
            return Err(file.damaged(at, "the space in use leaves out pages that an array has"));
        }
        let offset_bytes = place.page * PAGE_BYTES;
        Ok(Some(ExtentFile { file: file.fd(), offset_bytes }))
    }

    fn unnamed(&self, pages: u64) -> Result<Box<dyn UnnamedFile>, StorageError> {
        let file = self.files.create_unnamed()?;
        file.set_len(pages.saturating_mul(PAGE_BYTES))?;
        Ok(Box::new(Unnamed(file)))
    }
}

struct Unnamed(StoreFile);

impl UnnamedFile for Unnamed {
    fn write(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.write_at(&[bytes], offset_bytes)
    }

    fn finish(self: Box<Self>) -> ExtentFile {
        ExtentFile { file: self.0.fd(), offset_bytes: 0 }
    }
}

impl LocalEngine {
    fn file_at(&self, place: Place) -> Result<StoreFile, StorageError> {
        if place.in_log() {
            self.log.file(place.file & !IN_LOG)
        } else {
            self.extents.file(place.file)
        }
    }
}

impl CommitLog for LocalEngine {
    fn append(&self, draft: &Draft<'_>) -> Result<Record, StorageError> {
        self.require_writable()?;
        let stored = draft.data.iter().filter_map(|change| match &change.source {
            DraftSource::Stored(source) => Some(source),
            DraftSource::Inline(_) => None,
        });
        self.extents.admit(stored.clone())?;
        self.log.admit(stored)?;
        let record = self.log.append(draft)?;
        if planted(Bug::RecordBeforeData) {
            self.extents.sync()?;
        }
        self.extents.commit(&record);
        Ok(record)
    }

    fn records(&self, after: Tid, until: Tid) -> Result<Vec<Arc<Record>>, StorageError> {
        self.log.records(after, until)
    }

    fn oldest(&self) -> Tid {
        self.log.chain().oldest
    }
}

impl Engine for LocalEngine {
    fn load(&self, tid: Tid) -> Result<State, StorageError> {
        let chain = self.log.chain();
        if tid < chain.oldest {
            return Err(StorageError::Forgotten { tid, oldest: chain.oldest });
        }
        let newest = self.checkpoint.lock().clone();
        if let Some(newest) = newest.filter(|checkpoint| checkpoint.tail().tid <= tid) {
            return replayed(&self.log, newest.state(), tid);
        }
        // Files are only looked at: leftovers are for recovery.
        let older = checkpoint::newest(&self.files, self.store(), chain, tid, &mut Vec::new())?;
        match older {
            Some(older) => {
                self.make_up_for(&older);
                replayed(&self.log, older.state(), tid)
            }
            None => from_log(&self.log, tid),
        }
    }

    fn wants_checkpoint(&self) -> bool {
        if self.require_writable().is_err() {
            return false;
        }
        let newest = self.checkpoint.lock().clone();
        let (len, damaged) = match newest {
            Some(newest) => (newest.len_bytes(), newest.segments().is_damaged()),
            None => (0, false),
        };
        let since = self.log.bytes_since_checkpoint();
        damaged || since > self.options.checkpoint_bytes_min.max(len / 2)
    }

    fn checkpoint(&self, state: &State) -> Result<State, StorageError> {
        self.require_writable()?;
        let tail = self.log.tail_after(state.tid)?;
        let first = self.log.chain().first;
        let written = checkpoint::write(&self.files, self.store(), state, tail, first)?;
        let based = written.state();
        self.adopt(written);
        checkpoint::prune(&self.files)?;
        Ok(based)
    }

    fn is_writable(&self) -> bool {
        self.files.is_writable()
    }

    fn is_poisoned(&self) -> bool {
        self.files.latch().is_shut()
    }

    fn pack(&self, keep: Tid, pinned: &[Arc<State>]) -> Result<Packed, StorageError> {
        pack::pack(self, keep, pinned)
    }

    fn unpin(&self, pinned: &[Arc<State>]) -> Result<(), StorageError> {
        pack::unpin(self, pinned)
    }

    fn check(
        &self,
        data: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Report, StorageError> {
        check::check(self, data, progress)
    }

    fn usage(&self) -> Result<Usage, StorageError> {
        let sum = |directory: &str, size: fn(&StoreFile) -> Result<u64, StorageError>| {
            let mut bytes = 0;
            for name in self.files.list(directory)? {
                // A file that goes away meanwhile takes no space.
                let path = format!("{directory}/{name}");
                if let Some(file) = self.files.try_open(&path, Access::Read)? {
                    bytes += size(&file)?;
                }
            }
            Ok::<_, StorageError>(bytes)
        };
        let data_bytes = sum("data", StoreFile::allocated_bytes)?;
        let (taken_pages, used_pages) = self.extents.taken_pages();
        Ok(Usage {
            data_bytes,
            data_used_bytes: used_pages.saturating_mul(PAGE_BYTES),
            data_free_bytes: data_bytes.saturating_sub(taken_pages.saturating_mul(PAGE_BYTES)),
            log_bytes: sum("log", StoreFile::len)?,
            checkpoint_bytes: sum("checkpoint", StoreFile::len)?,
        })
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
