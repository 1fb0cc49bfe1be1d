//! The block cache: content that cannot be mapped as it lies, in slots of one file that can be.
//!
//! ```text
//! file    | table | slot 0 | slot 1 | slot 2 | ...   a slot is one chunk of an array: 2 MiB
//! state             shown    idle     free           idle: filled, and nobody shows it
//! ```
//!
//! A slot has the name of what its content was made of, which never changes. So the same content
//! is found again by other transactions, after other commits, and, where the file is shared, by
//! other processes. What is written in the file is never believed: an entry of the table counts if
//! its check is right, and a slot that another process filled is compared with its checksum before
//! it is shown.
//!
//! # Invariants
//!
//! 1. A slot that anybody shows, in whatever process, is not written: it is locked as long, and
//!    who fills it has it alone.
//! 2. The table says nothing of a slot while it is filled: whoever dies at that leaves a slot that
//!    nobody finds.
//! 3. The file is disposable: nothing in it is needed to read the store.
//! 4. A slot that a child of fork may show is never given back: its lock goes with the mappings.
//!
//! # Failure
//!
//! [`StorageError::NoSpace`] where the disk has no room for a slot. A cache all of whose slots are
//! in use is not an error: the caller puts something aside, or goes without. A file that was cut,
//! or that cannot be written, [is broken](BlockCache::is_broken): the caller makes another cache.

mod file;
mod table;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(in crate::storage) use file::CACHE_PATH;
pub use file::CacheFile;
pub use table::{Layout, Name};

use super::StorageError;
use super::backend::ByteLock;
use super::engine::{BlobStore, ExtentFile};
use super::scratch::Scratch;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use table::{BUCKET_LEN, ENTRY_LEN, Entry, FILLED_LEN, Filled};

/// Entries that are looked at together for one that may be filled.
const BATCH: u64 = 64;
/// Bytes of a slot that are read and compared at once.
const STEP_BYTES: u64 = 256 << 10;

/// What a cache needs to know of its process.
pub struct Process {
    /// How often it was forked.
    pub forks: fn() -> u64,
    /// Keeps an open file from children of fork as long as the result lives.
    pub keep_from_children: fn(Arc<OwnedFd>) -> Box<dyn Any + Send + Sync>,
}

/// What this process knows of a slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    users: u64,
    is_being_filled: bool,
    // The number of the fill that this process made or compared with its checksum; 0 for none.
    known: u64,
    // When it became idle here; the key in `idle`.
    since: u64,
}

/// The slots that this process has used.
#[derive(Default)]
struct Slots {
    slots: HashMap<u64, Slot>,
    idle: BTreeMap<u64, u64>,
    used_count: u64,
    now: u64,
    // Where to look for one to fill.
    hand: u64,
}

impl Slots {
    fn begin_use(&mut self, at: u64) {
        let slot = self.slots.entry(at).or_default();
        if slot.users == 0 {
            self.idle.remove(&slot.since);
            self.used_count += 1;
        }
        slot.users += 1;
    }

    fn is_used(&self, at: u64) -> bool {
        self.slots.get(&at).is_some_and(|slot| slot.users > 0)
    }

    fn known(&self, at: u64) -> u64 {
        self.slots.get(&at).map_or(0, |slot| slot.known)
    }
}

/// Slots of one file.
pub struct BlockCache {
    file: CacheFile,
    layout: Layout,
    slots: Mutex<Slots>,
    broken: AtomicBool,
    next_number: AtomicU64,
    process: Process,
    forks: u64,
    _not_in_child: Box<dyn Any + Send + Sync>,
}

impl BlockCache {
    /// A cache of at most `bytes_max` in slots of `slot_pages` pages, at least two of them, in a
    /// file of `blobs`; one that others use already has as many as they said. Costs nothing before
    /// slots are filled. If `apart`, nobody else uses it.
    ///
    /// # Errors
    ///
    /// As [`BlobStore::cache_file`].
    pub fn new(
        blobs: &dyn BlobStore,
        bytes_max: u64,
        slot_pages: u64,
        apart: bool,
        process: Process,
    ) -> Result<Arc<Self>, StorageError> {
        // Before there is a file that a child could get.
        let forks = (process.forks)();
        let file = blobs.cache_file(Layout::new(bytes_max, slot_pages), apart)?;
        Ok(Self::over(file, process, forks))
    }

    /// The cache in `file`, opened after the process was forked `forks` times.
    fn over(file: CacheFile, process: Process, forks: u64) -> Arc<Self> {
        Arc::new(Self {
            layout: file.layout(),
            slots: Mutex::new(Slots::default()),
            broken: AtomicBool::new(false),
            next_number: AtomicU64::new(first_number()),
            _not_in_child: (process.keep_from_children)(file.fd()),
            file,
            process,
            forks,
        })
    }

    /// Whether it can be used no more; what is shown of it stays.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Whether the process was forked since: a child may show what is shown now.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        (self.process.forks)() != self.forks
    }

    /// Whether other processes use it too, or may.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.file.is_shared()
    }

    /// The slot that was filled with what is called `name`, which was written in `parts`.
    #[must_use]
    pub fn get(self: &Arc<Self>, name: Name, parts: &[Range<u64>]) -> Option<SlotInUse> {
        let mut bucket = [0; BUCKET_LEN];
        self.file.read(&mut bucket, self.layout.bucket_at(name)).ok()?;
        table::hinted(&bucket, name, &self.layout).into_iter().find_map(|at| {
            let is_it = |filled: &Filled| filled.name == name;
            self.entry(at)?.filled.filter(is_it)?;
            let slot = self.use_filled(at)?;
            // Nobody writes it from here on.
            let filled = self.entry(at)?.filled.filter(is_it)?;
            let is_known = self.slots.lock().known(at) == filled.number;
            if self.file.is_whole() && (is_known || self.is_as_summed(at, &filled, parts)) {
                self.know(at, filled.number);
                return Some(slot);
            }
            drop(slot);
            self.forget(at, filled);
            None
        })
    }

    /// A slot to be filled; `None` if all are in use. If `written`, one that was filled before by
    /// this process, so that the disk has room for it.
    #[must_use]
    pub fn take(self: &Arc<Self>, written: bool) -> Option<Filling> {
        let at = {
            let mut slots = self.slots.lock();
            let at = if written { self.free_known(&slots) } else { self.free_slot(&mut slots) }?;
            slots.begin_use(at);
            let slot = slots.slots.entry(at).or_default();
            (slot.is_being_filled, slot.known) = (true, 0);
            at
        };
        let slot = SlotInUse { cache: Arc::clone(self), at };
        // Invariant 2.
        self.clear(at).ok()?;
        Some(Filling { slot, sum: crc32fast::Hasher::new() })
    }

    /// One that this process filled, locked alone.
    fn free_known(&self, slots: &Slots) -> Option<u64> {
        let mut idle = slots.idle.values().copied().filter(|&at| slots.known(at) != 0);
        idle.find(|&at| self.file.try_lock(at, ByteLock::Exclusive))
    }

    /// One that nobody uses, locked alone: one that was never filled, or the one of some that was
    /// not used for longest.
    fn free_slot(&self, slots: &mut Slots) -> Option<u64> {
        let count = self.layout.count();
        if slots.used_count >= count {
            return None;
        }
        let oldest = slots.idle.first_key_value().map(|(_, &at)| at);
        for _ in 0..count.div_ceil(BATCH) {
            let batch = slots.hand..(slots.hand + BATCH).min(count);
            let mut found = self.ages(batch.clone());
            if let Some(at) = oldest.filter(|at| !batch.contains(at)) {
                found.extend(self.ages(at..at + 1));
            }
            found.retain(|&(_, at)| !slots.is_used(at));
            found.sort_unstable();
            let mut free = found.into_iter();
            let free = free.find(|&(_, at)| self.file.try_lock(at, ByteLock::Exclusive));
            // There may be more in a batch that had one which was never filled.
            if free.is_none_or(|(age, _)| age > 0) {
                slots.hand = if batch.end == count { 0 } else { batch.end };
            }
            if let Some((_, at)) = free {
                return Some(at);
            }
        }
        None
    }

    /// When some slots were last used, 0 for what was never filled, and which they are.
    fn ages(&self, slots: Range<u64>) -> Vec<(u64, u64)> {
        let len = usize::try_from(slots.end - slots.start).unwrap_or(0) * ENTRY_LEN;
        let mut bytes = vec![0; len];
        if self.file.read(&mut bytes, self.layout.entry_at(slots.start)).is_err() {
            return Vec::new();
        }
        let age_of = |entry: Entry| entry.filled.map_or(0, |_| entry.used.max(1));
        let entries = bytes.as_chunks::<ENTRY_LEN>().0.iter().zip(slots);
        entries.map(|(bytes, at)| (age_of(table::read_entry(bytes, at)), at)).collect()
    }

    /// Uses a slot as it is; `None` if somebody fills it.
    fn use_filled(self: &Arc<Self>, at: u64) -> Option<SlotInUse> {
        let mut slots = self.slots.lock();
        let slot = slots.slots.get(&at).copied().unwrap_or_default();
        if slot.is_being_filled {
            return None;
        }
        if slot.users == 0 && !self.file.try_lock(at, ByteLock::Shared) {
            return None;
        }
        slots.begin_use(at);
        Some(SlotInUse { cache: Arc::clone(self), at })
    }

    fn know(&self, at: u64, number: u64) {
        self.slots.lock().slots.entry(at).or_default().known = number;
    }

    /// Says of a slot whose bytes are not what its entry says that nothing is there.
    fn forget(&self, at: u64, seen: Filled) {
        if !self.file.is_whole() {
            self.broken.store(true, Ordering::Release);
            return;
        }
        let mut slots = self.slots.lock();
        if slots.is_used(at) || !self.file.try_lock(at, ByteLock::Exclusive) {
            return;
        }
        if self.entry(at).and_then(|entry| entry.filled) == Some(seen) {
            // Whatever fails here leaves it to the next who looks.
            let _ = self.clear(at);
        }
        self.file.try_lock(at, ByteLock::None);
        if let Some(slot) = slots.slots.remove(&at) {
            slots.idle.remove(&slot.since);
        }
    }

    fn is_as_summed(&self, at: u64, filled: &Filled, parts: &[Range<u64>]) -> bool {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = Scratch::of(usize::try_from(STEP_BYTES).unwrap_or(0));
        for part in parts {
            let mut from = part.start;
            while from < part.end {
                let len = (part.end - from).min(STEP_BYTES);
                let step = &mut bytes[..usize::try_from(len).unwrap_or(0)];
                if self.file.read(step, self.layout.slot_at(at) + from).is_err() {
                    return false;
                }
                hasher.update(step);
                from += len;
            }
        }
        hasher.finalize() == filled.sum
    }

    fn entry(&self, at: u64) -> Option<Entry> {
        let mut bytes = [0; ENTRY_LEN];
        self.file.read(&mut bytes, self.layout.entry_at(at)).ok()?;
        Some(table::read_entry(&bytes, at))
    }

    fn clear(&self, at: u64) -> Result<(), StorageError> {
        // A full disk may have no room for what was never written.
        if self.entry(at).is_some_and(|entry| entry.filled.is_none()) {
            return Ok(());
        }
        self.write(&[0; FILLED_LEN], self.layout.entry_at(at))
    }

    /// Writes within the file and finds out if somebody cut it: a write would make it longer again,
    /// and what others show of it would be zeros.
    fn write(&self, bytes: &[u8], offset_bytes: u64) -> Result<(), StorageError> {
        let written = match self.file.is_whole() {
            true => self.file.write(bytes, offset_bytes),
            false => Err(self.cut()),
        };
        match written {
            Err(StorageError::NoSpace { .. }) => written,
            Ok(()) if self.file.is_whole() => Ok(()),
            Ok(()) => Err(self.cut()),
            Err(error) => {
                self.broken.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    fn cut(&self) -> StorageError {
        self.broken.store(true, Ordering::Release);
        let place = "the block cache".to_owned();
        StorageError::Corrupted { place, what: "somebody cut its file".to_owned() }
    }

    fn note(&self, at: u64, filled: &Filled) -> Result<(), StorageError> {
        let mut bucket = [0; BUCKET_LEN];
        let bucket_at = self.layout.bucket_at(filled.name);
        self.file.read(&mut bucket, bucket_at)?;
        let (bytes, word) = table::hint(&bucket, filled.name, at, filled.number);
        self.write(&filled.encode(at), self.layout.entry_at(at))?;
        self.write(&now_ms().to_le_bytes(), self.layout.used_at(at))?;
        self.write(&word, bucket_at + bytes.start as u64)
    }

    fn give_back(&self, at: u64) {
        let mut slots = self.slots.lock();
        let Slots { slots: known, idle, used_count, now, .. } = &mut *slots;
        let Some(slot) = known.get_mut(&at) else { return };
        if slot.users > 1 {
            slot.users -= 1;
            return;
        }
        // Invariant 4: it stays as it is, in use.
        if !self.file.is_ours() || self.is_forked() {
            return;
        }
        (slot.users, slot.is_being_filled) = (0, false);
        *used_count -= 1;
        *now += 1;
        slot.since = *now;
        idle.insert(*now, at);
        if slot.known != 0 && !self.is_broken() {
            // A hint.
            let _ = self.write(&now_ms().to_le_bytes(), self.layout.used_at(at));
        }
        self.file.try_lock(at, ByteLock::None);
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        if self.file.is_ours() && !self.is_forked() {
            // Whatever fails leaves a file that the next who uses it begins anew.
            let _ = self.file.empty_if_unused();
        }
    }
}

/// A slot that stays what it is until this is dropped.
pub struct SlotInUse {
    cache: Arc<BlockCache>,
    at: u64,
}

impl SlotInUse {
    /// Where to map it from.
    #[must_use]
    pub fn file(&self) -> ExtentFile {
        let offset_bytes = self.cache.layout.slot_at(self.at);
        ExtentFile { file: self.cache.file.fd(), offset_bytes }
    }
}

impl Drop for SlotInUse {
    fn drop(&mut self) {
        self.cache.give_back(self.at);
    }
}

/// A slot that is being filled.
pub struct Filling {
    slot: SlotInUse,
    sum: crc32fast::Hasher,
}

impl Filling {
    /// Writes whole pages.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] or the system's error.
    pub fn write(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let cache = &self.slot.cache;
        if cache.is_shared() {
            self.sum.update(bytes);
        }
        cache.write(bytes, cache.layout.slot_at(self.slot.at) + offset_bytes)
    }

    /// The slot, filled. If it has a name, others find it by that from now on.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if it turns out that what was written is not there.
    pub fn filled(self, name: Option<Name>) -> Result<SlotInUse, StorageError> {
        let Self { slot, sum } = self;
        let cache = Arc::clone(&slot.cache);
        let number = cache.next_number.fetch_add(1, Ordering::Relaxed);
        if let Some(name) = name {
            match cache.note(slot.at, &Filled { name, number, sum: sum.finalize() }) {
                // Then nobody finds it.
                Ok(()) | Err(StorageError::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut slots = cache.slots.lock();
        let filled = slots.slots.entry(slot.at).or_default();
        (filled.is_being_filled, filled.known) = (false, number);
        // From alone to shared: nobody can be in the way.
        cache.file.try_lock(slot.at, ByteLock::Shared);
        drop(slots);
        Ok(slot)
    }
}

/// Numbers of fills begin somewhere else in each process, and never at 0.
fn first_number() -> u64 {
    let (number, _) = uuid::Uuid::new_v4().as_u64_pair();
    number | 1 << 63
}

/// Milliseconds since 1970, to compare with.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(not(any(miri, shuttle)))]
mod tests;
