//! Extents in data files: set aside, write, make durable, give back, read.
//!
//! ```text
//! allocate -> pending -> (write, sync) -> a record names it -> used -> pack -> limbo -> free
//!                  \_ free: the transaction aborted                     while a pin names it
//! ```
//!
//! # Invariants
//!
//! 1. Only pending pages are written. Used pages and pages in limbo are mapped by somebody.
//! 2. Every page is allocated on the disk before it is given out, so that writing it, also by a
//!    page cache later on, cannot fail for want of space.
//! 3. Pages are given out only in files that this process has locked, and only after it knows every
//!    commit made before it had the lock: what others gave out is committed by then, or nobody's.
//!    The lock stays while pages of the file are pending or in limbo.
//! 4. `sync` returns `Ok` only after every write that was finished when it was called is durable,
//!    together with the names of new files.
//!
//! # Failure
//!
//! A full disk is [`StorageError::NoSpace`] and changes nothing. A failed write or sync shuts the
//! latch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::free_space::{FreeSpace, Granted, Ranges};
use super::members::Members;
use crate::storage::StorageError;
use crate::storage::backend::{Files, Growth, StoreFile};
use crate::storage::engine::Allocation;
use crate::storage::extent::{IN_LOG, Place};
use crate::storage::planted::{Bug, planted};
use crate::storage::record::Record;
use crate::storage::{extent::Source, state::Space};
use crate::sync::{Mutex, RwLock};
use crate::units::PAGE_BYTES;

/// Data files grow in multiples of this, the size of a huge page.
const GROWTH_PAGES: u64 = 512;
/// So much is written before its write-back is begun: then the sync at the end has little to do.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// Free ranges from this length on are given back to the file system.
const PUNCH_PAGES_MIN: u64 = 16;

struct Inner {
    // Built at the first allocation: opening a store does not need it.
    free: Option<FreeSpace>,
    used: Space,
    pending: Ranges,
    limbo: Ranges,
    // Pages at the front of a file that lie ready on the disk.
    ready_pages: BTreeMap<u32, u64>,
    // Files that were found to be as long as commits say.
    whole: BTreeSet<u32>,
    // Files that are locked (invariant 3).
    mine: BTreeSet<u32>,
}

#[derive(Default)]
struct Dirty {
    files: BTreeSet<u32>,
    // Files of which the names are durable for certain. Who created another one may have died, or
    // be about to make its name durable, whenever that was.
    named: BTreeSet<u32>,
    // Bytes of a file that were written in one piece and whose write-back has not begun.
    runs: BTreeMap<u32, (u64, u64)>,
}

/// The data files of a store.
pub(super) struct Extents {
    files: Files,
    members: Arc<Members>,
    cap_pages: u64,
    // Held while files are locked, and taken before `inner`: a lock belongs to the whole process,
    // so that taking it a second time succeeds.
    locking: Mutex<()>,
    inner: Mutex<Inner>,
    dirty: Mutex<Dirty>,
    // Held during a sync: a second one waits for the first, which may be making its data durable.
    syncing: Mutex<()>,
    open: RwLock<BTreeMap<u32, StoreFile>>,
}

/// The path of data file `number`.
pub(super) fn data_path(number: u32) -> String {
    format!("data/{number:010}.dat")
}

/// The number of the data file called `name` in its directory.
pub(super) fn data_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".dat")?;
    let number: u32 = digits.parse().ok()?;
    (format!("{number:010}") == digits && number < IN_LOG).then_some(number)
}

impl Extents {
    /// The data files of a store whose head uses `used`.
    pub(super) fn new(files: Files, members: Arc<Members>, cap_pages: u64, used: Space) -> Self {
        let inner = Inner {
            free: None,
            used,
            pending: Ranges::default(),
            limbo: Ranges::default(),
            ready_pages: BTreeMap::new(),
            whole: BTreeSet::new(),
            mine: BTreeSet::new(),
        };
        Self {
            files,
            members,
            cap_pages,
            locking: Mutex::new(()),
            inner: Mutex::new(inner),
            dirty: Mutex::default(),
            syncing: Mutex::new(()),
            open: RwLock::new(BTreeMap::new()),
        }
    }

    /// Data file `number`, which exists.
    pub(super) fn file(&self, number: u32) -> Result<StoreFile, StorageError> {
        if let Some(file) = self.open.read().get(&number) {
            return Ok(file.clone());
        }
        let file = self.files.open(&data_path(number), self.files.access())?;
        Ok(self.open.write().entry(number).or_insert(file).clone())
    }

    /// Data file `number`, created if need be.
    fn file_to_write(&self, number: u32) -> Result<StoreFile, StorageError> {
        if let Some(file) = self.open.read().get(&number) {
            return Ok(file.clone());
        }
        let mut open = self.open.write();
        let path = data_path(number);
        let file = match self.files.try_open(&path, self.files.access())? {
            Some(file) if planted(Bug::DataNameTrusted) => {
                self.dirty.lock().named.insert(number);
                file
            }
            Some(file) => file,
            None => self.files.create(&path)?,
        };
        Ok(open.entry(number).or_insert(file).clone())
    }

    /// Refuses to write to a file that lacks what commits say is there: making it longer would give
    /// them zeros for data, and hide that it was cut.
    fn require_whole(&self, inner: &mut Inner, number: u32) -> Result<(), StorageError> {
        let wanted = inner.used.end(number).saturating_mul(PAGE_BYTES);
        if wanted == 0 || inner.whole.contains(&number) {
            return Ok(());
        }
        // Not created if it is missing.
        let file = self.file(number)?;
        let len = file.len()?;
        if len < wanted {
            let what = format!("the file ends before byte {wanted}, which commits name");
            return Err(file.damaged(len, what));
        }
        inner.whole.insert(number);
        Ok(())
    }

    /// See [`BlobStore::allocate`](crate::storage::engine::BlobStore::allocate). `catch_up` notes
    /// every commit that was made so far, for invariant 3.
    pub(super) fn allocate(
        &self,
        wish: &Allocation,
        catch_up: &dyn Fn() -> Result<(), StorageError>,
    ) -> Result<Place, StorageError> {
        let pages = u64::from(wish.pages);
        assert!(pages > 0, "an extent has at least one page");
        if self.files.latch().is_shut() {
            return Err(StorageError::Poisoned);
        }
        let no_space =
            || StorageError::NoSpace { path: "data".to_owned(), bytes: pages * PAGE_BYTES };
        loop {
            let mut inner = self.inner.lock();
            inner.free(self.cap_pages);
            let Inner { free: Some(free), mine, .. } = &mut *inner else { return Err(no_space()) };
            let Some(granted) = free.allocate(wish, mine) else {
                let candidates = free.files_for(wish);
                drop(inner);
                if self.lock_one_of(&candidates, catch_up)? {
                    continue;
                }
                return Err(no_space());
            };
            if let Err(error) = self.make_ready(&mut inner, granted, pages) {
                inner.free(self.cap_pages).release(granted.place, pages);
                self.unlock_files(&mut inner);
                return Err(error);
            }
            inner.pending.insert(granted.place, pages);
            return Ok(granted.place);
        }
    }

    /// Locks the first of these files that nobody has (invariant 3). `false` if there is none.
    fn lock_one_of(
        &self,
        files: &[u32],
        catch_up: &dyn Fn() -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        let _locking = self.locking.lock();
        for &number in files {
            let is_mine = self.inner.lock().mine.contains(&number);
            if is_mine || !(self.members.try_lock_data(number)? || planted(Bug::OthersFileTaken)) {
                continue;
            }
            let caught = if planted(Bug::LockedWithoutLook) { Ok(()) } else { catch_up() };
            if let Err(error) = caught {
                self.members.unlock_data(number);
                return Err(error);
            }
            self.inner.lock().mine.insert(number);
            return Ok(true);
        }
        Ok(false)
    }

    /// Lets go of files in which nothing is pending or in limbo.
    fn unlock_files(&self, inner: &mut Inner) {
        let Inner { mine, pending, limbo, ready_pages, .. } = inner;
        mine.retain(|&number| {
            let needed = pending.has_file(number) || limbo.has_file(number);
            if !needed {
                ready_pages.remove(&number);
                self.members.unlock_data(number);
            }
            needed
        });
    }

    /// Locks the files of `places`, which will be in limbo; returns the places in files that
    /// others have.
    pub(super) fn lock_for_limbo(&self, places: &Ranges) -> Result<Ranges, StorageError> {
        let _locking = self.locking.lock();
        let mut theirs = Ranges::default();
        for (place, pages) in places.iter().filter(|(place, _)| !place.in_log()) {
            let mut inner = self.inner.lock();
            if inner.mine.contains(&place.file) || self.members.try_lock_data(place.file)? {
                inner.mine.insert(place.file);
            } else {
                theirs.insert(place, pages);
            }
        }
        Ok(theirs)
    }

    /// Keeps invariant 2.
    fn make_ready(
        &self,
        inner: &mut Inner,
        granted: Granted,
        pages: u64,
    ) -> Result<(), StorageError> {
        let Granted { place, at_tail } = granted;
        self.require_whole(inner, place.file)?;
        let file = self.file_to_write(place.file)?;
        let end = place.page + pages;
        let ready = inner.ready_pages.get(&place.file).copied().unwrap_or(0);
        if at_tail && end <= ready {
            return Ok(());
        }
        let offset = place.page * PAGE_BYTES;
        let more = end.next_multiple_of(GROWTH_PAGES).min(self.cap_pages);
        if at_tail && more > end {
            match file.allocate(offset, (more - place.page) * PAGE_BYTES, Growth::Extend) {
                Err(StorageError::NoSpace { .. }) => {}
                other => {
                    other?;
                    inner.ready_pages.insert(place.file, more);
                    return Ok(());
                }
            }
        }
        file.allocate(offset, pages * PAGE_BYTES, Growth::Extend)
    }

    /// See [`BlobStore::write`](crate::storage::engine::BlobStore::write).
    pub(super) fn write(&self, place: Place, bytes: &[u8]) -> Result<(), StorageError> {
        let len = bytes.len() as u64;
        assert!(len.is_multiple_of(PAGE_BYTES), "whole pages are written");
        if len == 0 {
            return Ok(());
        }
        // Invariant 1 keeps views sound, so it is checked and not only stated.
        let pending = self.inner.lock().pending.contains(place, len / PAGE_BYTES);
        assert!(pending, "pages are written that were not allocated or are committed");
        let offset = place.page * PAGE_BYTES;
        let file = self.file(place.file)?;
        file.write_at(&[bytes], offset)?;
        // After the write: a sync that comes in between must not take the mark away.
        if let Some((start, len)) = self.dirty.lock().note(place.file, offset, len) {
            file.start_writeback(start, len);
        }
        Ok(())
    }

    /// See [`BlobStore::free`](crate::storage::engine::BlobStore::free).
    pub(super) fn free(&self, place: Place, pages: u64) {
        let mut inner = self.inner.lock();
        assert!(inner.pending.contains(place, pages), "only uncommitted pages are given back");
        inner.pending.remove(place, pages);
        inner.release(place, pages);
        self.unlock_files(&mut inner);
    }

    /// See [`BlobStore::sync`](crate::storage::engine::BlobStore::sync).
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let _syncing = self.syncing.lock();
        if self.files.latch().is_shut() {
            return Err(StorageError::Poisoned);
        }
        let (files, are_named) = self.dirty.lock().take();
        for &number in files.iter().filter(|_| !planted(Bug::DataNotSynced)) {
            self.file(number)?.sync()?;
        }
        if !are_named && !planted(Bug::DataNameNotSynced) {
            self.files.sync_dir("data")?;
            self.dirty.lock().named.extend(files);
        }
        Ok(())
    }

    /// Says that a record names extents from now on. Who names extents of an old commit keeps a
    /// snapshot of it until then; of those who do not, this notices only who was too late for
    /// space that nobody has taken since.
    ///
    /// # Errors
    ///
    /// [`StorageError::Packed`] if it names space that is free.
    pub(super) fn admit<'a>(
        &self,
        sources: impl Iterator<Item = &'a Source>,
    ) -> Result<(), StorageError> {
        let inner = self.inner.lock();
        for extent in sources.filter_map(Source::extent) {
            let (place, pages) = (extent.place(), u64::from(extent.stored_pages()));
            let known = inner.used.pages_in(place, pages)
                + inner.pending.pages_in(place, pages)
                + inner.limbo.pages_in(place, pages);
            if known < pages && !place.in_log() {
                return Err(StorageError::Packed { place });
            }
        }
        Ok(())
    }

    /// Whether none of these pages can be given out.
    pub(super) fn are_taken(&self, place: Place, pages: u64) -> bool {
        let inner = self.inner.lock();
        let taken = inner.used.pages_in(place, pages)
            + inner.pending.pages_in(place, pages)
            + inner.limbo.pages_in(place, pages);
        taken >= pages
    }

    /// Notes that the extents of a record, ours or another process's, are committed.
    pub(super) fn commit(&self, record: &Record) {
        let mut inner = self.inner.lock();
        for extent in record.data.iter().filter_map(|change| change.segment.source.extent()) {
            let (place, pages) = (extent.place(), u64::from(extent.stored_pages()));
            if !place.in_log() {
                inner.used.insert(place, pages);
                inner.pending.remove(place, pages);
                inner.limbo.remove(place, pages);
                if let Some(free) = &mut inner.free {
                    free.take(place, pages);
                }
                if planted(Bug::ReusedAtCommit) {
                    inner.free(self.cap_pages).release(place, pages);
                }
            }
        }
        self.unlock_files(&mut inner);
    }

    /// After a pack: `used` is what kept records name, `limbo` what only pinned states name.
    /// Returns the number of pages that nobody names any more and that were named before.
    pub(super) fn repack(&self, used: Space, limbo: Ranges) -> u64 {
        let mut inner = self.inner.lock();
        let before = inner.used.pages().saturating_add(inner.limbo.pages());
        let after = used.pages().saturating_add(limbo.pages());
        used.iter().for_each(|(place, pages)| inner.pending.remove(place, pages));
        inner.used = used;
        inner.limbo = limbo;
        inner.free = None;
        self.unlock_files(&mut inner);
        before.saturating_sub(after)
    }

    /// After a pack of another process, which left out what this one has in limbo.
    pub(super) fn go_over(&self, used: Space) {
        let limbo = self.inner.lock().limbo.clone();
        self.repack(used, limbo);
    }

    /// After pins were taken back: of the limbo only what is in `named` stays.
    pub(super) fn unpin(&self, named: &Ranges) {
        let mut inner = self.inner.lock();
        let mut gone = inner.limbo.clone();
        named.iter().for_each(|(place, pages)| gone.remove(place, pages));
        for (place, pages) in gone.iter() {
            inner.limbo.remove(place, pages);
            inner.release(place, pages);
        }
        self.unlock_files(&mut inner);
    }

    /// Whether there are pages that only states name which were pinned during `pack`.
    pub(super) fn has_limbo(&self) -> bool {
        self.inner.lock().limbo.pages() > 0
    }

    /// Number of pages that nobody may be given: in use, not committed yet, or in limbo; and how
    /// many of them kept records name.
    pub(super) fn taken_pages(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        let used = inner.used.pages();
        let rest = inner.pending.pages().saturating_add(inner.limbo.pages());
        (used.saturating_add(rest), used)
    }

    /// Gives free space back to the file system, where it can take it. The caller holds the commit
    /// lock and knows every commit. Files in which other processes allocate now are left alone.
    ///
    /// The lock is held: what is punched must not be given out at the same time.
    pub(super) fn punch(&self) -> Result<(), StorageError> {
        let _locking = self.locking.lock();
        let mut inner = self.inner.lock();
        let free = inner.free(self.cap_pages);
        let tail = free.tail();
        let ranges: Vec<_> = free.ranges().iter().filter(|(_, n)| *n >= PUNCH_PAGES_MIN).collect();
        inner.ready_pages.clear();
        for name in self.files.list("data")? {
            let Some(number) = data_number(&name) else { continue };
            if !inner.mine.contains(&number) {
                if !self.members.try_lock_data(number)? {
                    continue;
                }
                inner.mine.insert(number);
            }
            let file = self.file(number)?;
            let len = file.len()?;
            for (place, pages) in ranges.iter().filter(|(place, _)| place.file == number) {
                let offset = place.page * PAGE_BYTES;
                let bytes = (pages * PAGE_BYTES).min(len.saturating_sub(offset));
                file.punch(offset, bytes)?;
            }
            let unused = match number.cmp(&tail.file) {
                std::cmp::Ordering::Less => len,
                std::cmp::Ordering::Equal => tail.page * PAGE_BYTES,
                std::cmp::Ordering::Greater => 0,
            };
            file.punch(unused, len.saturating_sub(unused))?;
        }
        self.unlock_files(&mut inner);
        Ok(())
    }
}

impl Inner {
    fn free(&mut self, cap_pages: u64) -> &mut FreeSpace {
        let Self { free, used, pending, limbo, .. } = self;
        free.get_or_insert_with(|| {
            let taken = used.iter().chain(pending.iter()).chain(limbo.iter());
            FreeSpace::around(&taken.collect(), cap_pages)
        })
    }

    /// Makes pages free that are taken no longer. Where `free` is still to be built it will find
    /// them free: releasing them then would be the second time, and they would be given out twice.
    fn release(&mut self, place: Place, pages: u64) {
        if let Some(free) = &mut self.free {
            free.release(place, pages);
        }
    }
}

impl Dirty {
    /// The files that were written, which are taken out, and whether all their names are durable.
    fn take(&mut self) -> (BTreeSet<u32>, bool) {
        self.runs.clear();
        let files = std::mem::take(&mut self.files);
        let are_named = files.is_subset(&self.named);
        (files, are_named)
    }

    /// Notes a write. Returns the range whose write-back shall begin, if one is long enough.
    fn note(&mut self, file: u32, offset: u64, len: u64) -> Option<(u64, u64)> {
        self.files.insert(file);
        let run = self.runs.entry(file).or_insert((offset, 0));
        if run.0 + run.1 == offset {
            run.1 += len;
        } else {
            *run = (offset, len);
        }
        let (start, len) = *run;
        if len < WRITEBACK_BYTES {
            return None;
        }
        self.runs.remove(&file);
        Some((start, len))
    }
}

#[cfg(test)]
mod tests;
