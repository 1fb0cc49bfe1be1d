//! The local engine: a store in one directory of a file system.
//!
//! ```text
//! open   lock -> format.json -> newest checkpoint -> replay the log after it -> head
//! write  extents: allocate, write, sync -> log: append, sync
//! ```
//!
//! # Invariants
//!
//! 1. Who appends to the log holds the commit lock and has read all of it.
//! 2. `format.json` exists only in a directory where everything else exists already.
//!
//! # Failure
//!
//! See [`StorageError`]. Opening a store never changes a commit that was acknowledged.

mod check;
mod checkpoint;
#[cfg(feature = "fuzzing")]
pub mod door;
mod extents;
mod format;
mod frame;
mod free_space;
mod log;
mod log_header;
mod members;
mod pack;
mod recovery;
mod segment_file;

use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use format::{FORMAT_VERSION, Format};

use super::StorageError;
use super::backend::{Access, Backend, Files, MapWords, StoreFile};
use super::cache::{CacheFile, Layout};
use super::check::Report;
use super::codec;
use super::engine::{
    Allocation, BlobStore, CommitLock, CommitLog, Company, Engine, ExtentFile, Member, Packed,
    UnnamedFile, Usage,
};
use super::extent::{IN_LOG, Place};
use super::planted::{Bug, planted};
use super::record::{Draft, DraftSource, Record};
use super::state::{Space, State};
use super::words::{PrivateWords, SharedWords};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::units::{BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PAGE_BYTES, Tid};
use checkpoint::Checkpoint;
use extents::Extents;
use log::{Log, ReadOn, UNSETTLED_MAX};
use log_header::{LogHeader, log_path};
use members::{Members, SHARED_BYTES, SHARED_PATH, Told};
use recovery::How;

/// The bytes of a store's uuid.
type StoreId = [u8; 16];

const DIRECTORIES: [&str; 3] = ["log", "data", "checkpoint"];
/// How long a commit looks on while another process makes the log durable before it does so itself.
const SYNC_PATIENCE: Duration = Duration::from_millis(2);

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
    /// How words are shared with other processes.
    pub map_words: MapWords,
    /// How long to wait for a process that commits.
    pub commit_wait: Duration,
    /// Whether a store on a network file system may be opened for reading. Then nothing is said to
    /// other processes and nothing asked of them: nobody may write meanwhile.
    pub network: bool,
}

/// Words for a process that shares with nobody.
///
/// # Errors
///
/// None.
pub fn private_words(
    _: Arc<OwnedFd>,
    count: usize,
    _: bool,
) -> std::io::Result<Arc<dyn SharedWords>> {
    Ok(Arc::new(PrivateWords::new(count)))
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES_DEFAULT,
            log_roll_bytes: 64 << 20,
            data_file_pages: (64 << 30) / PAGE_BYTES,
            checkpoint_bytes_min: 1 << 20,
            map_words: private_words,
            commit_wait: Duration::from_secs(10),
            network: false,
        }
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Reading and committing.
    ReadWrite,
    /// Reading only; also on a read-only file system.
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
    members: Arc<Members>,
    // Held while the log is read on: nobody sees records of which the extents are not noted.
    following: Mutex<()>,
    // Held while the log is made durable.
    settling: Mutex<()>,
    // Whether log files of former chains are there, which somebody may still look at.
    leftovers: AtomicBool,
    // After a pack: the number of its log file, and the space it kept for others.
    held: Mutex<Option<(u32, Space)>>,
}

impl LocalEngine {
    /// Creates an empty store, durably, in a directory that is empty or does not exist.
    ///
    /// # Errors
    ///
    /// [`StorageError::AlreadyExists`] if something is there; [`StorageError::Io`] if the
    /// directory cannot be written; [`StorageError::BlockSize`];
    /// [`StorageError::NetworkFileSystem`].
    pub fn create(backend: &Arc<dyn Backend>, options: &LocalOptions) -> Result<(), StorageError> {
        let block_bytes = options.block_bytes;
        if !block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            return Err(StorageError::BlockSize { bytes: block_bytes });
        }
        let files = Files::new(Arc::clone(backend), true);
        files.require_local()?;
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
            let shared = files.create(SHARED_PATH)?;
            shared.set_len(SHARED_BYTES)?;
            shared.sync()?;
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
    /// [`StorageError::NotAStore`], [`StorageError::Version`], [`StorageError::Busy`] if another
    /// process does not end its commit, [`StorageError::Locked`] if a reader without permission to
    /// write has to wait for a pack too long, [`StorageError::Corrupted`] if acknowledged commits
    /// are damaged, [`StorageError::NetworkFileSystem`].
    pub fn open(
        backend: &Arc<dyn Backend>,
        mode: Mode,
        options: &LocalOptions,
    ) -> Result<(Self, State), StorageError> {
        let files = Files::new(Arc::clone(backend), mode == Mode::ReadWrite);
        let format = Format::read(&files)?;
        let store = *format.uuid.as_bytes();
        let members = match files.require_local() {
            Ok(()) => Members::join(&files, &store, options.map_words, options.commit_wait)?,
            Err(StorageError::NetworkFileSystem { .. })
                if options.network && mode == Mode::ReadOnly =>
            {
                Members::apart(&files, &store, options.commit_wait)
            }
            Err(error) => return Err(error),
        };
        let members = Arc::new(members);
        let found = match mode {
            Mode::ReadWrite => opened_to_write(&files, &store, options, &members)?,
            Mode::ReadOnly => {
                // What no process says to be durable need not be, while one is there to say so.
                let until = match members.is_alone()? {
                    true => Tid(u64::MAX),
                    false => members.newest().unwrap_or(Tid(u64::MAX)),
                };
                recovery::recover(&files, &store, options, How::to_read(until))?
            }
        };
        found.log.set_durable(found.head.tid);
        let log = Arc::new(found.log);
        let used = found.head.space.clone();
        let shared = Arc::clone(&members);
        let engine = Self {
            extents: Extents::new(files.clone(), shared, options.data_file_pages, used),
            checkpoint: Mutex::new(None),
            options: options.clone(),
            files,
            format,
            log,
            members,
            following: Mutex::new(()),
            settling: Mutex::new(()),
            leftovers: AtomicBool::new(false),
            held: Mutex::new(None),
        };
        if let Some(checkpoint) = found.checkpoint {
            engine.adopt(checkpoint);
        }
        engine.members.pin(None, engine.log.chain().first);
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

    fn write_checkpoint(&self, state: &State) -> Result<State, StorageError> {
        let tail = self.log.tail_after(state.tid)?;
        let first = self.log.chain().first;
        let written = checkpoint::write(&self.files, self.store(), state, tail, first)?;
        let based = written.state();
        self.adopt(written);
        checkpoint::prune(&self.files)?;
        Ok(based)
    }

    fn require_writable(&self) -> Result<(), StorageError> {
        match () {
            () if !self.files.is_writable() => Err(StorageError::ReadOnly),
            () if self.files.latch().is_shut() => Err(StorageError::Poisoned),
            () => Ok(()),
        }
    }
}

/// Opens the log for writing, alone or beside others, and tells them what is durable.
fn opened_to_write(
    files: &Files,
    store: &StoreId,
    options: &LocalOptions,
    members: &Members,
) -> Result<recovery::Recovered, StorageError> {
    members.lock_commits()?;
    let _lock = CommitLock::new(|| members.unlock_commits());
    let alone = members.is_alone()? && members.try_lock_readers_out()?;
    if alone {
        // What the words say may come from before a power cut.
        members.forget();
    }
    members.prepare();
    // If we die before what opening mends is durable, who commits next sees to it.
    members.set_unsettled();
    let how =
        How { until: Tid(u64::MAX), mend: true, tidy: alone || planted(Bug::LeftoversOfLiving) };
    let found = recovery::recover(files, store, options, how);
    if alone {
        members.unlock_readers();
    }
    let found = found?;
    members.set_settled();
    members.correct(found.head.tid);
    Ok(found)
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

/// Where `place` is, for people.
fn location(place: Place) -> String {
    let path = match place.in_log() {
        true => log_path(place.file & !IN_LOG),
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
        self.allocated(wish)
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
        if self.files.is_writable() && !place.in_log() && !self.is_taken(place, pages) {
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

    fn cache_file(&self, layout: Layout, apart: bool) -> Result<CacheFile, StorageError> {
        match apart {
            true => CacheFile::unnamed(&self.files, layout),
            false => CacheFile::shared(&self.files, self.store(), layout),
        }
    }
}

struct Unnamed(StoreFile);

impl UnnamedFile for Unnamed {
    fn write(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.write_at(&[bytes], offset_bytes)
    }

    fn file(&self) -> ExtentFile {
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

impl LocalEngine {
    fn is_taken(&self, place: Place, pages: u64) -> bool {
        self.extents.are_taken(place, pages) || {
            // Another thread may be noting just now what it read of another process's commit.
            let _following = self.following.lock();
            self.extents.are_taken(place, pages)
        }
    }

    fn allocated(&self, wish: &Allocation) -> Result<Place, StorageError> {
        self.extents.allocate(wish, &|| self.read_on(Tid(u64::MAX), false))
    }

    /// Takes in what other processes appended, up to commit `until`.
    fn read_on(&self, until: Tid, cut: bool) -> Result<(), StorageError> {
        let _following = self.following.lock();
        loop {
            match self.log.read_on(until, cut.then_some(&*self.members))? {
                ReadOn::Here(records) => {
                    if !planted(Bug::OthersSpaceForgotten) {
                        records.iter().for_each(|record| self.extents.commit(record));
                    }
                    return Ok(());
                }
                ReadOn::NewChain if planted(Bug::NewChainMissed) => return Ok(()),
                ReadOn::NewChain => self.open_again(until)?,
            }
        }
    }

    /// Goes over to the chain of log files that another process began with a pack.
    fn open_again(&self, until: Tid) -> Result<(), StorageError> {
        let how = How::to_read(until);
        let found = recovery::recover(&self.files, self.store(), &self.options, how)?;
        self.extents.go_over(found.head.space);
        self.log.become_other(&found.log);
        // Those of the former chain may have been left for us.
        self.leftovers.store(true, Ordering::Release);
        *self.checkpoint.lock() = None;
        if let Some(checkpoint) = found.checkpoint {
            self.adopt(checkpoint);
        }
        Ok(())
    }

    /// Makes all of the log durable when nobody knows what is, and says so.
    fn find_newest(&self) -> Result<Tid, StorageError> {
        if !self.files.is_writable() {
            self.read_on(Tid(u64::MAX), false)?;
            self.log.set_durable(self.log.tail().tid);
            return Ok(self.log.durable());
        }
        self.require_writable()?;
        let tid = {
            let _lock = self.lock()?;
            self.members.prepare();
            self.catch_up()?
        };
        self.settle(tid)?;
        Ok(self.log.durable())
    }

    /// Whether log files of former chains are left that we need not open any more.
    fn may_remove_leftovers(&self) -> bool {
        let chain = u64::from(self.log.chain().first);
        self.leftovers.load(Ordering::Acquire)
            && self.files.is_writable()
            && matches!(self.members.own_chain(), Told::Number(own) if own >= chain)
    }

    fn unknown(&self, tid: Tid, source: StorageError) -> StorageError {
        self.members.set_unsettled();
        StorageError::Unknown { tid, source: Box::new(source) }
    }
}

impl CommitLog for LocalEngine {
    fn lock(&self) -> Result<CommitLock<'_>, StorageError> {
        self.members.lock_commits()?;
        Ok(CommitLock::new(|| self.members.unlock_commits()))
    }

    fn catch_up(&self) -> Result<Tid, StorageError> {
        self.require_writable()?;
        self.read_on(Tid(u64::MAX), true)?;
        if let Some(newest) = self.members.newest() {
            self.log.set_durable(newest.min(self.log.tail().tid));
        }
        // Who packs holds the lock that we have: a floor above the oldest commit is a dead one's.
        let oldest = self.log.chain().oldest;
        if self.members.floor() != oldest {
            self.members.set_floor(oldest);
        }
        if self.members.is_unsettled() {
            self.log.write_again()?;
            self.log.sync()?;
            self.members.set_settled();
        }
        Ok(self.log.tail().tid)
    }

    fn append(&self, draft: &Draft<'_>) -> Result<Record, StorageError> {
        self.require_writable()?;
        let stored = draft.data.iter().filter_map(|change| match &change.source {
            DraftSource::Stored(source) => Some(source),
            DraftSource::Inline(_) => None,
        });
        self.extents.admit(stored.clone())?;
        self.log.admit(stored)?;
        if self.log.tail().tid.0.saturating_sub(self.log.durable().0) >= UNSETTLED_MAX {
            self.log.sync()?;
        }
        let record = self.log.append(draft)?;
        if planted(Bug::RecordBeforeData) {
            self.extents.sync()?;
        }
        self.extents.commit(&record);
        Ok(record)
    }

    fn settle(&self, tid: Tid) -> Result<(), StorageError> {
        let _settling = self.settling.lock();
        let begin = Instant::now();
        loop {
            if let Some(newest) = self.members.newest() {
                self.log.set_durable(newest.min(self.log.tail().tid));
            }
            if self.log.durable() >= tid {
                break;
            }
            if self.files.latch().is_shut() {
                return Err(self.unknown(tid, StorageError::Poisoned));
            }
            // Whoever is at it may have begun before our record was there, or be stopped.
            // Without an answer we sync beside them: the record is there, so nothing may fail now.
            let locked = self.members.try_lock_sync();
            if planted(Bug::OthersSyncTrusted) && matches!(locked, Ok(false)) {
                self.log.set_durable(tid);
                break;
            }
            if planted(Bug::ToldBeforeSync) {
                self.members.publish(tid);
            }
            if !matches!(locked, Ok(false)) || begin.elapsed() > SYNC_PATIENCE {
                let synced = self.log.sync();
                if matches!(locked, Ok(true)) {
                    self.members.unlock_sync();
                }
                synced.map_err(|error| self.unknown(tid, error))?;
                break;
            }
            self.members.wait(Tid(tid.0 - 1), SYNC_PATIENCE);
        }
        self.members.publish(self.log.durable());
        Ok(())
    }

    fn newest(&self) -> Result<Tid, StorageError> {
        let known = self.log.durable();
        match self.members.newest() {
            _ if planted(Bug::NewestUnsettled) => {
                self.read_on(Tid(u64::MAX), false)?;
                Ok(self.log.tail().tid)
            }
            Some(newest) if newest <= known => {
                if newest < known && self.files.is_writable() {
                    // A thread of ours is about to say so, or was killed: what is shown here must
                    // not be unknown elsewhere. What a reader found may not be durable.
                    self.members.publish(known);
                }
                Ok(known)
            }
            Some(newest) => {
                self.read_on(newest, false)?;
                self.log.set_durable(newest.min(self.log.tail().tid));
                Ok(self.log.durable())
            }
            None => self.find_newest(),
        }
    }

    fn wait(&self, seen: Tid, timeout: Duration) {
        self.members.wait(seen, timeout);
    }

    fn records(&self, after: Tid, until: Tid) -> Result<Vec<Arc<Record>>, StorageError> {
        self.log.records(after, until)
    }

    fn oldest(&self) -> Tid {
        self.log.chain().oldest
    }
}

impl Company for LocalEngine {
    fn pin(&self, looked_at: Option<RangeInclusive<Tid>>, generation: u64) {
        let chain = u32::try_from(generation).unwrap_or(0);
        self.members.pin(looked_at, chain);
    }

    fn floor(&self) -> Tid {
        self.members.floor()
    }

    fn expired(&self) -> Option<Tid> {
        self.members.expired()
    }

    fn generation(&self) -> u64 {
        self.log.generation()
    }

    fn lock_file(&self) -> Option<Arc<OwnedFd>> {
        self.members.file()
    }

    fn members(&self) -> Result<Vec<Member>, StorageError> {
        self.members.members()
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
        if !self.members.try_lock_checkpoint()? {
            // Another process is writing one.
            return Ok(state.clone());
        }
        let _lock = CommitLock::new(|| self.members.unlock_checkpoint());
        // A pack, which waits from now on, may have come before.
        let generation = self.log.generation();
        self.read_on(Tid(u64::MAX), false)?;
        match generation == self.log.generation() || planted(Bug::PackBeforeCheckpointMissed) {
            true => self.write_checkpoint(state),
            false => Ok(state.clone()),
        }
    }

    fn is_writable(&self) -> bool {
        self.files.is_writable()
    }

    fn is_poisoned(&self) -> bool {
        self.files.latch().is_shut()
    }

    fn pack(
        &self,
        keep: Tid,
        pinned: &[Arc<State>],
        held_bytes_max: u64,
    ) -> Result<Packed, StorageError> {
        pack::pack(self, keep, pinned, held_bytes_max)
    }

    fn unpin(&self, pinned: &[Arc<State>]) -> Result<(), StorageError> {
        pack::unpin(self, pinned)
    }

    fn held_bytes(&self, since: &State, head: &State) -> Result<u64, StorageError> {
        pack::held_bytes(self, since, head)
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
mod company_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
