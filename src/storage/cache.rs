//! The block cache: content that cannot be mapped as it lies, in slots of one file that can be.
//!
//! ```text
//! file    | slot 0 | slot 1 | slot 2 | ...        a slot is one chunk of an array: 2 MiB
//! state     in use   idle     free                idle: filled, and nobody maps it
//! ```
//!
//! A slot is known by what its content was made of: places and checksums of extents, which never
//! change. So the same content is found again by other transactions and after other commits.
//!
//! # Invariants
//!
//! 1. A slot that is in use is not written.
//! 2. A slot is found only under the description that it was filled for, once it is filled.
//! 3. The file is disposable: nothing in it is needed to read the store.
//!
//! # Failure
//!
//! [`StorageError::NoSpace`] where the disk has no room for a slot. A cache all of whose slots are
//! in use is not an error: the caller puts something aside, or goes without.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::StorageError;
use super::engine::{BlobStore, ExtentFile, UnnamedFile};
use crate::sync::Mutex;
use crate::units::PAGE_BYTES;

/// What the content of a slot was made of, in any form that is equal only for equal content.
pub type Description = Vec<u64>;

#[derive(Default)]
struct Slot {
    description: Option<Arc<Description>>,
    users: u64,
    // When it became idle; the key in `idle`.
    since: u64,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    count_max: usize,
    known: HashMap<Arc<Description>, usize>,
    idle: BTreeMap<u64, usize>,
    free: Vec<usize>,
    now: u64,
}

impl Slots {
    fn use_known(&mut self, description: &Description) -> Option<usize> {
        let at = *self.known.get(description)?;
        if self.slots[at].users == 0 {
            self.idle.remove(&self.slots[at].since);
        }
        self.slots[at].users += 1;
        Some(at)
    }

    /// A slot that nobody knows or uses: a free one, a new one, or the one idle for longest.
    fn take(&mut self) -> Option<usize> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.slots.len() < self.count_max => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
            None => self.idle.pop_first()?.1,
        };
        if let Some(description) = self.slots[at].description.take() {
            self.known.remove(&description);
        }
        self.slots[at].users = 1;
        Some(at)
    }

    fn give_back(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        slot.users -= 1;
        if slot.users > 0 {
            return;
        }
        if slot.description.is_some() {
            self.now += 1;
            slot.since = self.now;
            self.idle.insert(self.now, at);
        } else {
            self.free.push(at);
        }
    }
}

/// Slots of one file.
pub struct BlockCache {
    file: Box<dyn UnnamedFile>,
    slot_bytes: u64,
    slots: Mutex<Slots>,
}

impl BlockCache {
    /// A cache of at most `bytes_max` in slots of `slot_pages` pages, at least two of them, in a
    /// file of `blobs`. Costs nothing before slots are filled.
    ///
    /// # Errors
    ///
    /// As [`BlobStore::unnamed`].
    pub fn new(
        blobs: &dyn BlobStore,
        bytes_max: u64,
        slot_pages: u64,
    ) -> Result<Arc<Self>, StorageError> {
        let slot_bytes = slot_pages * PAGE_BYTES;
        let count = (bytes_max / slot_bytes).max(2);
        let file = blobs.unnamed(count.saturating_mul(slot_pages))?;
        let count_max = usize::try_from(count).unwrap_or(usize::MAX);
        let slots = Mutex::new(Slots { count_max, ..Slots::default() });
        Ok(Arc::new(Self { file, slot_bytes, slots }))
    }

    /// The slot that was filled for `description`.
    #[must_use]
    pub fn get(self: &Arc<Self>, description: &Description) -> Option<SlotInUse> {
        let at = self.slots.lock().use_known(description)?;
        Some(SlotInUse { cache: Arc::clone(self), at })
    }

    /// A slot to be filled; `None` if all are in use.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<SlotInUse> {
        let at = self.slots.lock().take()?;
        Some(SlotInUse { cache: Arc::clone(self), at })
    }
}

/// A slot that stays what it is until this is dropped.
pub struct SlotInUse {
    cache: Arc<BlockCache>,
    at: usize,
}

impl SlotInUse {
    /// Writes whole pages into a slot that was taken.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] or the system's error.
    pub fn write(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.cache.file.write(self.offset_bytes() + offset_bytes, bytes)
    }

    /// Says that the slot has been filled for `description` and can be found by others.
    pub fn filled(&self, description: Description) {
        let mut slots = self.cache.slots.lock();
        let description = Arc::new(description);
        // Another thread may have filled one for the same meanwhile.
        if !slots.known.contains_key(&description) {
            slots.slots[self.at].description = Some(Arc::clone(&description));
            slots.known.insert(description, self.at);
        }
    }

    /// Where to map it from.
    #[must_use]
    pub fn file(&self) -> ExtentFile {
        ExtentFile { offset_bytes: self.offset_bytes(), ..self.cache.file.file() }
    }

    fn offset_bytes(&self) -> u64 {
        self.at as u64 * self.cache.slot_bytes
    }
}

impl Drop for SlotInUse {
    fn drop(&mut self) {
        self.cache.slots.lock().give_back(self.at);
    }
}
