//! What every engine provides: immutable blobs, and one totally ordered log of commits.
//!
//! ```text
//! commit:   write extents -> sync -> (commit lock) catch up, check, append -> settle
//!           BlobStore                 CommitLog
//! ```
//!
//! Layers above know only these traits; whether bytes lie in local files, in another database or
//! behind a network is the engine's business.
//!
//! # Invariants
//!
//! 1. The log is the truth. Everything else an engine keeps can be rebuilt from it.
//! 2. A record is durable when `settle` has returned `Ok` for it; before, nobody may be told of it.
//! 3. Space that a kept record, the head or a pinned state names is never given out.

use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::StorageError;
use super::cache::{CacheFile, Layout};
use super::encoding;
use super::extent::{Extent, Place};
use super::record::{Draft, Record};
use super::scratch::Scratch;
use super::state::State;
use crate::units::{PAGE_BYTES, PAGE_LEN, Tid};

/// A wish for space.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    /// Number of pages, which will lie in one piece; at most `EXTENT_PAGES_MAX`.
    pub pages: u32,
    /// The page's file offset shall be `phase_pages` modulo this (a power of two); 1 for any place.
    pub align_pages: u32,
    /// See `align_pages`.
    pub phase_pages: u32,
    /// Where the pages would continue what the array has before them: taken if it is free.
    pub near: Option<Place>,
}

/// A file that holds extents and may be mapped.
#[derive(Clone)]
pub struct ExtentFile {
    /// The open file; it stays open as long as this lives.
    pub file: Arc<OwnedFd>,
    /// Where the extent begins in it.
    pub offset_bytes: u64,
}

impl ExtentFile {
    /// The descriptor to map.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.file.as_fd()
    }
}

/// Immutable blobs: extents are written once, then named by records.
pub trait BlobStore: Send + Sync {
    /// Sets space aside for an extent that is not committed yet.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] if the disk is full; nothing has changed then.
    fn allocate(&self, wish: &Allocation) -> Result<Place, StorageError>;

    /// Writes whole pages into space that was allocated and not committed.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the content of those pages is then undefined.
    fn write(&self, place: Place, bytes: &[u8]) -> Result<(), StorageError>;

    /// Gives allocated space back that no record names.
    fn free(&self, place: Place, pages: u64);

    /// Makes everything that was written durable.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the handle refuses all further writes.
    fn sync(&self) -> Result<(), StorageError>;

    /// Reads `bytes.len()` bytes from `offset_bytes` bytes after `place`, unchecked.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if they cannot be read in full.
    fn read(&self, place: Place, offset_bytes: u64, bytes: &mut [u8]) -> Result<(), StorageError>;

    /// Where `place` is, for people: a file and a byte of it.
    fn describe(&self, place: Place) -> String;

    /// The file to map for an extent at `place`; `None` if the engine's blobs cannot be mapped.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the file is missing or too short.
    fn file_of(&self, place: Place, pages: u64) -> Result<Option<ExtentFile>, StorageError>;

    /// A new file without a name, of `pages` pages, for copies of what cannot be mapped as it is.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] or the system's error.
    fn unnamed(&self, pages: u64) -> Result<Box<dyn UnnamedFile>, StorageError>;

    /// A file for a block cache: that of all processes of the store, where there can be one, unless
    /// it shall be `apart`.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] or the system's error.
    fn cache_file(&self, layout: Layout, apart: bool) -> Result<CacheFile, StorageError>;
}

/// A file without a name that is being filled. Bytes nobody wrote are zeros.
pub trait UnnamedFile: Send + Sync {
    /// Writes whole pages.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] or the system's error.
    fn write(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// The file to map. It is gone when nobody maps it or has it open any more.
    fn file(&self) -> ExtentFile;
}

/// The commit lock, given back when dropped.
pub struct CommitLock<'a>(Option<Box<dyn FnOnce() + 'a>>);

impl<'a> CommitLock<'a> {
    /// A lock that `release` gives back.
    pub fn new(release: impl FnOnce() + 'a) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl Drop for CommitLock<'_> {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

/// Total order, over all processes.
pub trait CommitLog: Send + Sync {
    /// Takes the commit lock: until it is dropped no other process commits or packs. Threads of
    /// this process exclude each other by themselves.
    ///
    /// # Errors
    ///
    /// [`StorageError::Busy`] if another process does not give it back for a long time.
    fn lock(&self) -> Result<CommitLock<'_>, StorageError>;

    /// Reads what other processes appended and returns the newest commit, which may not be durable
    /// yet. The caller holds the commit lock.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the log is damaged or cannot be read.
    fn catch_up(&self) -> Result<Tid, StorageError>;

    /// Appends one record. The caller holds the commit lock and has caught up.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] if nothing was written. [`StorageError::Unknown`] if the record
    /// may or may not be durable: reopening tells.
    fn append(&self, draft: &Draft<'_>) -> Result<Record, StorageError>;

    /// Makes commit `tid`, which was appended, durable, and tells the other processes. Commits that
    /// wait at the same time share one sync.
    ///
    /// # Errors
    ///
    /// [`StorageError::Unknown`] if the record may or may not be durable: reopening tells.
    fn settle(&self, tid: Tid) -> Result<(), StorageError>;

    /// The newest durable commit, of whatever process; the log is read up to it. Costs a few loads
    /// if there is none that is not known yet.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the log is damaged or cannot be read.
    fn newest(&self) -> Result<Tid, StorageError>;

    /// Waits until the newest durable commit may be another than `seen`, at most `timeout`.
    fn wait(&self, seen: Tid, timeout: Duration);

    /// The records after commit `after` up to `until`, in order, without gaps.
    ///
    /// # Errors
    ///
    /// [`StorageError::Forgotten`] if they were packed away; other errors if they cannot be read.
    fn records(&self, after: Tid, until: Tid) -> Result<Vec<Arc<Record>>, StorageError>;

    /// The oldest commit whose state can still be loaded.
    fn oldest(&self) -> Tid;
}

/// A process that has the store open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its number.
    pub pid: u32,
    /// Whether the process that has this number now is the one that opened the store.
    pub is_same_process: bool,
    /// When it opened the store: nanoseconds since 1970.
    pub opened_ns: i64,
    /// The oldest snapshot it looks at.
    pub snapshot: Option<Tid>,
    /// Since when: nanoseconds since 1970.
    pub snapshot_since_ns: Option<i64>,
    /// Whether it was told that this snapshot is over.
    pub is_expired: bool,
    /// Whether it is the caller itself.
    pub is_self: bool,
}

/// Other processes that have the same store open.
pub trait Company {
    /// Says which snapshots this process looks at, from the oldest to the newest, and the oldest
    /// generation of them. Space that they name is kept from then on, unless it was given up
    /// before: whoever pins compares with [`floor`](Self::floor) afterwards.
    fn pin(&self, looked_at: Option<RangeInclusive<Tid>>, generation: u64);

    /// The oldest commit that may be pinned.
    fn floor(&self) -> Tid;

    /// The commit before which the snapshots of this process are over: they kept too much.
    fn expired(&self) -> Option<Tid>;

    /// Changes when history was packed away: then states that were loaded before are about files
    /// that go when nobody has them pinned.
    fn generation(&self) -> u64;

    /// The open file that the locks of this process belong to. A child of fork must not keep it:
    /// the locks would outlive the process that took them.
    fn lock_file(&self) -> Option<Arc<OwnedFd>>;

    /// The processes that have the store open.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the locks cannot be examined.
    fn members(&self) -> Result<Vec<Member>, StorageError>;
}

/// What `pack` did.
#[derive(Clone)]
pub struct Packed {
    /// The head as it is now.
    pub head: State,
    /// Pages of data files that became free.
    pub freed_pages: u64,
    /// Commits that were forgotten.
    pub forgotten: u64,
    /// The oldest commit that was kept.
    pub oldest: Tid,
}

/// What lies on the disk, in bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Data files, as allocated on the disk.
    pub data_bytes: u64,
    /// Of them, named by kept records.
    pub data_used_bytes: u64,
    /// Of them, free to be used again.
    pub data_free_bytes: u64,
    /// The commit log.
    pub log_bytes: u64,
    /// Checkpoints.
    pub checkpoint_bytes: u64,
}

/// A complete engine.
pub trait Engine: BlobStore + CommitLog + Company {
    /// The state as of commit `tid`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Forgotten`] if it is older than the kept history, [`StorageError::NoCommit`]
    /// if it is newer than the head.
    fn load(&self, tid: Tid) -> Result<State, StorageError>;

    /// Whether so much was logged since the last checkpoint that a new one pays.
    fn wants_checkpoint(&self) -> bool;

    /// Writes a checkpoint of `state` and returns the same state based on it.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the store is as good as before, since a checkpoint is a mere copy.
    fn checkpoint(&self, state: &State) -> Result<State, StorageError>;

    /// Forgets the history before commit `keep`; space that neither it, later commits nor the
    /// states in `pinned` name becomes free. The caller holds the commit lock and has caught up.
    ///
    /// History that other processes look at is kept too, unless it holds more bytes than
    /// `held_bytes_max`: then they are told that it is over, and no more of it is kept than there
    /// is now.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the store is then as it was before, or as it is after.
    fn pack(
        &self,
        keep: Tid,
        pinned: &[Arc<State>],
        held_bytes_max: u64,
    ) -> Result<Packed, StorageError>;

    /// Space held back for states that were pinned during `pack` and of which now only those in
    /// `pinned` are left becomes free.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the index of a pinned state cannot be read.
    fn unpin(&self, pinned: &[Arc<State>]) -> Result<(), StorageError>;

    /// Bytes of data files that are in use only because the history from `since` on is kept: what a
    /// pack that keeps no commit before `head` would free. Cost O(index).
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the index or the records between the two cannot be read.
    fn held_bytes(&self, since: &State, head: &State) -> Result<u64, StorageError>;

    /// Reads and checks every file: all metadata and, if `data`, every byte of every extent.
    /// `progress` is told the bytes checked so far and in all.
    ///
    /// # Errors
    ///
    /// [`StorageError`] only if checking itself is impossible; damage is in the report.
    fn check(
        &self,
        data: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<super::check::Report, StorageError>;

    /// Bytes on the disk.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if files cannot be examined.
    fn usage(&self) -> Result<Usage, StorageError>;

    /// Whether this handle may write.
    fn is_writable(&self) -> bool;

    /// Whether an earlier write or sync failed, so that this handle refuses to write.
    fn is_poisoned(&self) -> bool;
}

/// Bytes read in one step where a whole unit is not wanted: a unit may have 1 GiB.
const STEP_BYTES: usize = 1 << 20;

/// The CRC-32 of unit `unit` as it lies on the disk, read in small steps; each step goes to `seen`
/// with its first byte within the extent.
///
/// # Errors
///
/// The read's own error.
pub fn unit_sum(
    blobs: &dyn BlobStore,
    extent: &Extent,
    unit: u32,
    seen: &mut dyn FnMut(u64, &[u8]),
) -> Result<u32, StorageError> {
    let pages = extent.stored_unit(unit);
    let (mut at, end) = (u64::from(pages.start) * PAGE_BYTES, u64::from(pages.end) * PAGE_BYTES);
    let mut hasher = crc32fast::Hasher::new();
    let step = usize::try_from(end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
    let mut bytes = vec![0; step];
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(step).min(step);
        let part = &mut bytes[..part];
        blobs.read(extent.place(), at, part)?;
        hasher.update(part);
        seen(at, part);
        at += part.len() as u64;
    }
    Ok(hasher.finalize())
}

/// Compares unit `unit` with its checksum.
///
/// # Errors
///
/// [`StorageError::Checksum`] naming the place, or the read's own error.
pub fn check_unit(blobs: &dyn BlobStore, extent: &Extent, unit: u32) -> Result<(), StorageError> {
    require_sum(blobs, extent, unit, unit_sum(blobs, extent, unit, &mut |_, _| {})?)
}

fn require_sum(
    blobs: &dyn BlobStore,
    extent: &Extent,
    unit: u32,
    sum: u32,
) -> Result<(), StorageError> {
    let (whole, expected) = (extent.stored_unit(unit), extent.sums()[unit as usize]);
    if sum == expected {
        return Ok(());
    }
    let place = blobs.describe(extent.place().after(u64::from(whole.start)));
    Err(StorageError::Checksum { place, pages: whole.len() as u64, expected, sum })
}

/// Reads pages of the content of an extent and compares every unit touched with its checksum.
///
/// Units that are only partly wanted are read whole; what is encoded is decoded.
///
/// # Panics
///
/// If `bytes` has not the size of `pages`.
///
/// # Errors
///
/// [`StorageError::Checksum`] naming the place, or the read's own error.
pub fn read_checked(
    blobs: &dyn BlobStore,
    extent: &Extent,
    pages: std::ops::Range<u32>,
    bytes: &mut [u8],
) -> Result<(), StorageError> {
    assert_eq!(bytes.len(), pages.len() * PAGE_LEN, "the buffer has the size of the pages");
    if extent.is_encoded() {
        return read_decoded(blobs, extent, pages, bytes);
    }
    for unit in extent.units_of(pages.clone()) {
        let whole = extent.unit(unit);
        let wanted = whole.start.max(pages.start)..whole.end.min(pages.end);
        let into = (wanted.start - pages.start) as usize * PAGE_LEN;
        let into = &mut bytes[into..into + wanted.len() * PAGE_LEN];
        let sum = if wanted == whole {
            blobs.read(extent.place(), u64::from(whole.start) * PAGE_BYTES, into)?;
            crc32fast::hash(into)
        } else {
            let first = u64::from(wanted.start) * PAGE_BYTES;
            unit_sum(blobs, extent, unit, &mut |at, part| {
                let end = first + into.len() as u64;
                let (from, to) = (at.max(first), (at + part.len() as u64).min(end));
                if from < to {
                    let index = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
                    into[index(from - first)..index(to - first)]
                        .copy_from_slice(&part[index(from - at)..index(to - at)]);
                }
            })?
        };
        require_sum(blobs, extent, unit, sum)?;
    }
    Ok(())
}

/// The same for an encoded extent, which is decoded whole.
fn read_decoded(
    blobs: &dyn BlobStore,
    extent: &Extent,
    pages: std::ops::Range<u32>,
    bytes: &mut [u8],
) -> Result<(), StorageError> {
    let mut stored = Scratch::of(extent.stored_pages() as usize * PAGE_LEN);
    blobs.read(extent.place(), 0, &mut stored)?;
    require_sum(blobs, extent, 0, crc32fast::hash(&stored))?;
    let damaged = |why: encoding::NotDecoded| StorageError::Corrupted {
        place: blobs.describe(extent.place()),
        what: why.to_string(),
    };
    if pages == (0..extent.pages()) {
        return encoding::decode(&stored, bytes).map_err(damaged);
    }
    let mut content = Scratch::of(extent.pages() as usize * PAGE_LEN);
    encoding::decode(&stored, &mut content).map_err(damaged)?;
    bytes.copy_from_slice(&content[pages.start as usize * PAGE_LEN..pages.end as usize * PAGE_LEN]);
    Ok(())
}

/// Decodes an extent that is encoded, and throws the content away.
///
/// # Errors
///
/// As [`read_checked`].
pub fn check_content(blobs: &dyn BlobStore, extent: &Extent) -> Result<(), StorageError> {
    if !extent.is_encoded() {
        return Ok(());
    }
    let mut content = Scratch::of(extent.pages() as usize * PAGE_LEN);
    read_decoded(blobs, extent, 0..extent.pages(), &mut content)
}
