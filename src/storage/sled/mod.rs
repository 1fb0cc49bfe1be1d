//! The sled engine: log, catalog and blocks in the trees of one sled 0.34, for one process.
//!
//! ```text
//! signals/
//!   head               identity; the newest acknowledged commit, twice         `anchor`
//!   trees.sled/        sled's own files
//!     tree log         tid -> commit record, which says the sum of the one before it
//!     tree states      tid -> whole state: the oldest kept one, and a checkpoint
//!     tree blocks      page number -> bytes
//!     tree meta        next page number, oldest commit
//!
//! commit   put bytes -> sync -> put record -> sync -> anchor, fdatasync -> Ok
//! sync     sled's flush -> fdatasync of its file
//! ```
//!
//! Sled 0.34 alone is neither durable nor does it say so when it comes back with less than it had.
//! Both are made up for here and not in sled: see `trees` and `anchor`.
//!
//! # Invariants
//!
//! 1. A commit is acknowledged after its record and all it names are durable in sled, and the
//!    anchor names it durably. Opening compares: sled may have more than the anchor says, never
//!    less.
//! 2. Page numbers never come again, so what a snapshot shows is never written over.
//! 3. The oldest commit moves on, durably in sled and in the anchor, before anything older goes.
//!
//! # Failure
//!
//! Damage is an error, at open if sled lost commits, otherwise when the value is read. After a
//! failed write, also for want of space, the handle refuses to write: sled does not go on after one
//! either.

mod anchor;
mod blocks;
mod check;
mod history;
mod pack;
mod recovery;
mod trees;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::StorageError;
use super::backend::{Directory, Files, StoreFile, process_start};
use super::cache::{CacheFile, Layout};
use super::check::Report;
use super::engine::{
    Allocation, BlobStore, CommitLock, CommitLog, Company, Engine, ExtentFile, Member, Packed,
    UnnamedFile, Usage,
};
use super::extent::{Extent, Place, Source, sums_of};
use super::local::Mode;
use super::planted::{Bug, planted};
use super::record::{Draft, DraftChange, DraftSource, Record};
use super::state::State;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, thread};
use crate::units::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PAGE_BYTES, Tid};
use anchor::{Acknowledged, Anchor, Identity};
use blocks::Blocks;
use trees::Trees;

/// A checkpoint pays when as many bytes of records follow the newest one.
const CHECKPOINT_BYTES_MIN: u64 = 1 << 20;
/// Most records kept in memory.
const RECENT_MAX: usize = 1024;
/// How often a thread that waits for a commit looks.
const NAP: Duration = Duration::from_millis(2);

/// A record's place in the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tail {
    tid: Tid,
    sum: u32,
}

/// What the process looks at, for people.
struct Look {
    opened_ns: i64,
    snapshot: Option<(Tid, i64)>,
}

/// Bytes of records since the newest checkpoint, and of that checkpoint.
#[derive(Clone, Copy)]
struct Logged {
    since_bytes: u64,
    checkpoint_bytes: u64,
}

/// An open store in one directory.
pub struct SledEngine {
    files: Files,
    root: PathBuf,
    writable: bool,
    trees: Trees,
    anchor: Anchor,
    blocks: Blocks,
    // The newest record.
    tail: Mutex<Tail>,
    // The newest records, ending with the tail.
    recent: Mutex<VecDeque<Arc<Record>>>,
    durable: AtomicU64,
    oldest: AtomicU64,
    // Held while the log is made durable.
    settling: Mutex<()>,
    logged: Mutex<Logged>,
    look: Mutex<Look>,
}

impl SledEngine {
    /// Creates an empty store, durably, in a directory that is empty or does not exist.
    ///
    /// # Errors
    ///
    /// [`StorageError::AlreadyExists`] if something is there; [`StorageError::Io`] if the
    /// directory cannot be written; [`StorageError::BlockSize`];
    /// [`StorageError::NetworkFileSystem`].
    pub fn create(root: &Path, block_bytes: u64) -> Result<(), StorageError> {
        if !block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            return Err(StorageError::BlockSize { bytes: block_bytes });
        }
        let (files, root) = files_in(root);
        files.require_local()?;
        files.create_root()?;
        let unfinished = [trees::DIRECTORY, anchor::TEMPORARY];
        if !files.list("")?.iter().all(|name| unfinished.contains(&name.as_str())) {
            return Err(StorageError::AlreadyExists { path: files.location() });
        }
        files.remove(anchor::TEMPORARY)?;
        trees::remove_all(&root)?;
        let trees = Trees::open(&files, &root)?;
        trees.sync()?;
        trees.sync_names()?;
        drop(trees);
        files.sync_dir("")?;
        let identity = Identity::new(block_bytes);
        let sum = history::first_sum(&identity.uuid);
        Anchor::create(&files, &identity, Acknowledged { tid: Tid::ZERO, sum, oldest: Tid::ZERO })
    }

    /// Opens a store and returns it with its newest state.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotAStore`], [`StorageError::Version`], [`StorageError::Locked`] if any
    /// process, this one too, has it open, [`StorageError::Corrupted`] if acknowledged commits are
    /// missing or damaged, [`StorageError::Engine`], [`StorageError::NetworkFileSystem`].
    pub fn open(root: &Path, mode: Mode) -> Result<(Self, State), StorageError> {
        // Sled writes when it is opened, whatever for.
        let (files, root) = files_in(root);
        let anchor = Anchor::open(&files)?;
        files.require_local()?;
        let trees = Trees::open(&files, &root)?;
        let found = recovery::recover(&trees, &anchor)?;
        let engine = Self {
            blocks: Blocks::open(&trees, found.head.space.clone())?,
            writable: mode == Mode::ReadWrite,
            tail: Mutex::new(Tail { tid: found.head.tid, sum: found.sum }),
            recent: Mutex::new(VecDeque::new()),
            durable: AtomicU64::new(found.head.tid.0),
            oldest: AtomicU64::new(found.oldest.0),
            settling: Mutex::new(()),
            logged: Mutex::new(Logged { since_bytes: found.replayed_bytes, checkpoint_bytes: 0 }),
            look: Mutex::new(Look { opened_ns: now_ns(), snapshot: None }),
            files,
            root,
            trees,
            anchor,
        };
        Ok((engine, found.head))
    }

    /// What tells this store from every other.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.anchor.identity().uuid
    }

    /// Block size of arrays for which nobody chooses another one.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.anchor.identity().block_bytes
    }

    fn require_writable(&self) -> Result<(), StorageError> {
        match () {
            () if !self.writable => Err(StorageError::ReadOnly),
            () if self.files.latch().is_shut() => Err(StorageError::Poisoned),
            () => Ok(()),
        }
    }

    /// Puts bytes that the record would carry like all others, and names them.
    fn placed<'a>(&self, draft: &Draft<'a>) -> Result<Draft<'a>, StorageError> {
        let mut data = Vec::with_capacity(draft.data.len());
        for change in &draft.data {
            let source = match &change.source {
                DraftSource::Stored(source) => source.clone(),
                DraftSource::Inline(bytes) => self.put_inline(bytes)?,
            };
            data.push(DraftChange { source: DraftSource::Stored(source), ..change.clone() });
        }
        Ok(Draft { data, ..draft.clone() })
    }

    fn put_inline(&self, bytes: &[u8]) -> Result<Source, StorageError> {
        let pages = u32::try_from(bytes.len() as u64 / PAGE_BYTES).unwrap_or(u32::MAX);
        let wish = Allocation { pages, align_pages: 1, phase_pages: 0, near: None };
        let place = self.blocks.allocate(&self.trees, &wish)?;
        blocks::write(&self.trees, place, bytes)?;
        let extent = Extent::new(place, pages, 1, sums_of(bytes, 1));
        extent.map(Source::whole).ok_or(StorageError::Poisoned)
    }

    /// Makes all records durable and says so.
    fn settle_all(&self) -> Result<(), StorageError> {
        let tail = *self.tail.lock();
        let oldest = Tid(self.oldest.load(Ordering::Acquire));
        let now = Acknowledged { tid: tail.tid, sum: tail.sum, oldest };
        if planted(Bug::SledAnchorFirst) {
            self.anchor.acknowledge(now)?;
        }
        self.trees.sync()?;
        // Invariant 1.
        self.anchor.acknowledge(now)?;
        self.durable.store(tail.tid.0, Ordering::Release);
        Ok(())
    }
}

fn files_in(root: &Path) -> (Files, PathBuf) {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    (Files::new(Arc::new(Directory::new(&root)), true), root)
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl BlobStore for SledEngine {
    fn allocate(&self, wish: &Allocation) -> Result<Place, StorageError> {
        self.require_writable()?;
        self.blocks.allocate(&self.trees, wish)
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<(), StorageError> {
        self.require_writable()?;
        blocks::write(&self.trees, place, bytes)
    }

    fn free(&self, place: Place, pages: u64) {
        // After a failure nobody knows whether a record names it.
        if self.require_writable().is_ok() {
            self.blocks.free(&self.trees, place, pages);
        }
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.require_writable()?;
        self.trees.sync()
    }

    fn read(&self, place: Place, offset_bytes: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        blocks::read(&self.trees, place, offset_bytes, bytes)
    }

    fn describe(&self, place: Place) -> String {
        format!("{} page {}", self.trees.location(), place.page)
    }

    /// `None`: the bytes lie scattered in sled's file.
    fn file_of(&self, _: Place, _: u64) -> Result<Option<ExtentFile>, StorageError> {
        Ok(None)
    }

    fn unnamed(&self, pages: u64) -> Result<Box<dyn UnnamedFile>, StorageError> {
        let file = self.files.create_unnamed()?;
        file.set_len(pages.saturating_mul(PAGE_BYTES))?;
        Ok(Box::new(Unnamed(file)))
    }

    fn cache_file(&self, layout: Layout, _apart: bool) -> Result<CacheFile, StorageError> {
        // One process at a time: nobody is there to share with.
        CacheFile::unnamed(&self.files, layout)
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

impl CommitLog for SledEngine {
    /// There is no other process, and the threads of this one exclude each other.
    fn lock(&self) -> Result<CommitLock<'_>, StorageError> {
        Ok(CommitLock::new(|| ()))
    }

    fn catch_up(&self) -> Result<Tid, StorageError> {
        self.require_writable()?;
        Ok(self.tail.lock().tid)
    }

    fn append(&self, draft: &Draft<'_>) -> Result<Record, StorageError> {
        self.require_writable()?;
        let mut tail = self.tail.lock();
        assert_eq!(draft.tid, tail.tid.next(), "records have dense tids");
        for change in &draft.data {
            if let DraftSource::Stored(Source::Extent { extent, .. }) = &change.source
                && !self.blocks.is_known(extent)
            {
                return Err(StorageError::Packed { place: extent.place() });
            }
        }
        let placed = self.placed(draft)?;
        let put = history::put_record(&self.trees, &placed, tail.sum);
        let (record, sum, bytes) = put.map_err(|error| unknown(draft.tid, error))?;
        self.blocks.commit(&record);
        *tail = Tail { tid: record.tid, sum };
        let mut logged = self.logged.lock();
        logged.since_bytes = logged.since_bytes.saturating_add(bytes);
        drop(logged);
        let mut recent = self.recent.lock();
        recent.push_back(Arc::new(record.clone()));
        if recent.len() > RECENT_MAX {
            recent.pop_front();
        }
        Ok(record)
    }

    fn settle(&self, tid: Tid) -> Result<(), StorageError> {
        let _settling = self.settling.lock();
        if self.durable.load(Ordering::Acquire) >= tid.0 {
            return Ok(());
        }
        if self.files.latch().is_shut() {
            return Err(unknown(tid, StorageError::Poisoned));
        }
        self.settle_all().map_err(|error| unknown(tid, error))
    }

    fn newest(&self) -> Result<Tid, StorageError> {
        Ok(Tid(self.durable.load(Ordering::Acquire)))
    }

    fn wait(&self, seen: Tid, timeout: Duration) {
        let begin = Instant::now();
        while self.durable.load(Ordering::Acquire) == seen.0 && begin.elapsed() < timeout {
            thread::sleep(NAP.min(timeout));
        }
    }

    fn records(&self, after: Tid, until: Tid) -> Result<Vec<Arc<Record>>, StorageError> {
        if after >= until {
            return Ok(Vec::new());
        }
        let (oldest, head) = (self.oldest(), self.tail.lock().tid);
        if after < oldest {
            return Err(StorageError::Forgotten { tid: after, oldest });
        }
        if until > head {
            return Err(StorageError::NoCommit { tid: until, head });
        }
        let recent = self.recent.lock();
        if recent.front().is_some_and(|first| first.tid <= after.next()) {
            let wanted = |record: &&Arc<Record>| record.tid > after && record.tid <= until;
            return Ok(recent.iter().filter(wanted).map(Arc::clone).collect());
        }
        drop(recent);
        Ok(history::records(&self.trees, after, None, until)?.0)
    }

    fn oldest(&self) -> Tid {
        Tid(self.oldest.load(Ordering::Acquire))
    }
}

fn unknown(tid: Tid, source: StorageError) -> StorageError {
    StorageError::Unknown { tid, source: Box::new(source) }
}

impl Company for SledEngine {
    fn pin(&self, looked_at: Option<RangeInclusive<Tid>>, _: u64) {
        let mut look = self.look.lock();
        let oldest = looked_at.map(|range| *range.start());
        if look.snapshot.map(|(tid, _)| tid) != oldest {
            look.snapshot = oldest.map(|tid| (tid, now_ns()));
        }
    }

    fn floor(&self) -> Tid {
        self.oldest()
    }

    fn expired(&self) -> Option<Tid> {
        None
    }

    /// Places never come again, so that a state is good for as long as it is pinned.
    fn generation(&self) -> u64 {
        0
    }

    fn lock_file(&self) -> Option<Arc<OwnedFd>> {
        Some(self.anchor.fd())
    }

    fn members(&self) -> Result<Vec<Member>, StorageError> {
        let pid = std::process::id();
        let look = self.look.lock();
        Ok(vec![Member {
            pid,
            is_same_process: process_start(pid) != 0,
            opened_ns: look.opened_ns,
            snapshot: look.snapshot.map(|(tid, _)| tid),
            snapshot_since_ns: look.snapshot.map(|(_, since)| since),
            is_expired: false,
            is_self: true,
        }])
    }
}

impl Engine for SledEngine {
    fn load(&self, tid: Tid) -> Result<State, StorageError> {
        let (oldest, head) = (self.oldest(), self.tail.lock().tid);
        if tid < oldest {
            return Err(StorageError::Forgotten { tid, oldest });
        }
        if tid > head {
            return Err(StorageError::NoCommit { tid, head });
        }
        let first = history::first_sum(&self.uuid());
        Ok(recovery::load(&self.trees, oldest, first, tid)?.state)
    }

    fn wants_checkpoint(&self) -> bool {
        let logged = *self.logged.lock();
        self.require_writable().is_ok()
            && logged.since_bytes > CHECKPOINT_BYTES_MIN.max(logged.checkpoint_bytes / 2)
    }

    fn checkpoint(&self, state: &State) -> Result<State, StorageError> {
        self.require_writable()?;
        if self.trees.get(trees::Name::States, &trees::part_key(state.tid.0, 0))?.is_none() {
            let sum = match state.tid == self.oldest() {
                // The beginning needs no copy.
                true => return Ok(state.clone()),
                false => history::get_record(&self.trees, state.tid)?.2,
            };
            let bytes = history::put_state(&self.trees, state, sum)?;
            self.trees.sync()?;
            *self.logged.lock() = Logged { since_bytes: 0, checkpoint_bytes: bytes };
        }
        recovery::remove_states(&self.trees, |tid| tid != self.oldest() && tid < state.tid)?;
        Ok(state.clone())
    }

    fn pack(&self, keep: Tid, pinned: &[Arc<State>], _: u64) -> Result<Packed, StorageError> {
        pack::pack(self, keep, pinned)
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

    /// Sled tells nobody what of its file is in use: what is not data of commits counts as free.
    fn usage(&self) -> Result<Usage, StorageError> {
        let data_bytes = trees::size_on_disk(&self.root)?;
        let data_used_bytes = self.blocks.live_pages().saturating_mul(PAGE_BYTES);
        let data_free_bytes = data_bytes.saturating_sub(data_used_bytes);
        Ok(Usage { data_bytes, data_used_bytes, data_free_bytes, ..Usage::default() })
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_poisoned(&self) -> bool {
        self.files.latch().is_shut()
    }
}

#[cfg(test)]
mod tests;
