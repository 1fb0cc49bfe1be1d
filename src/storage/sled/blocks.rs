//! Bytes of extents: which pages were given out, and where their bytes are.
//!
//! ```text
//! page numbers   0 ........ | allocated | committed | free for ever ...| next -> ...
//! tree `blocks`  first page -> bytes of up to 4 pages
//! ```
//!
//! Page numbers are not places on a disk: they count up and never come again, so bytes that a
//! snapshot shows cannot be written over.
//!
//! # Invariants
//!
//! 1. A page number is given out once. The counter is put before the first bytes of its range, and
//!    sled comes back with a beginning of what was put.
//! 2. Only pages that were allocated and are not committed are written or removed, except by a
//!    pack.
//! 3. A record may name only pages that were allocated by this process and not given back, or that
//!    a kept record names.

use std::collections::BTreeMap;

use super::trees::{Name, Trees, VALUE_BYTES_MAX, key_of, number_of};
use crate::storage::StorageError;
use crate::storage::engine::Allocation;
use crate::storage::extent::{Extent, FILE_PAGES_MAX, Place};
use crate::storage::record::Record;
use crate::storage::state::Space;
use crate::sync::Mutex;
use crate::units::PAGE_BYTES;

/// Pages of one value.
const CHUNK_PAGES: u64 = VALUE_BYTES_MAX as u64 / PAGE_BYTES;
/// Page numbers taken at a time: 4 GiB.
const RESERVED_PAGES: u64 = 1 << 20;
const NEXT_KEY: &[u8] = b"next";

struct Given {
    /// The next page number, and one past the last that was taken.
    next: u64,
    taken: u64,
    /// Allocated and not committed: first page -> pages.
    pending: BTreeMap<u64, u64>,
    /// Named by kept records.
    live: Space,
    /// Kept by the last pack only because somebody looked at them.
    limbo: Space,
}

/// The pages of one open store.
pub(super) struct Blocks(Mutex<Given>);

impl Blocks {
    /// The pages of a store in which kept records name `live`.
    pub(super) fn open(trees: &Trees, live: Space) -> Result<Self, StorageError> {
        let taken = match trees.get(Name::Meta, NEXT_KEY)? {
            None => 0,
            Some(value) => match value.bytes().try_into() {
                Ok(number) => number_of(&number),
                Err(_) => return Err(trees.damaged(Name::Meta, NEXT_KEY, "it is no number")),
            },
        };
        let next = taken.max(live.end(0));
        let (pending, limbo) = (BTreeMap::new(), Space::default());
        Ok(Self(Mutex::new(Given { next, taken: next, pending, live, limbo })))
    }

    /// See [`BlobStore::allocate`](crate::storage::engine::BlobStore::allocate).
    pub(super) fn allocate(&self, trees: &Trees, wish: &Allocation) -> Result<Place, StorageError> {
        let mut given = self.0.lock();
        let align = u64::from(wish.align_pages.max(1));
        // Numbers cost nothing, so any alignment can be had.
        let behind = (u64::from(wish.phase_pages) + align - given.next % align) % align;
        let page = given.next + behind;
        let end = page + u64::from(wish.pages);
        if end > FILE_PAGES_MAX {
            return Err(StorageError::NoSpace { path: trees.location(), bytes: 0 });
        }
        if end > given.taken {
            // Invariant 1.
            let taken = end + RESERVED_PAGES;
            trees.put(Name::Meta, NEXT_KEY, &key_of(taken))?;
            given.taken = taken;
        }
        given.next = end;
        given.pending.insert(page, u64::from(wish.pages));
        Ok(Place { file: 0, page })
    }

    /// Gives pages back that no record names.
    pub(super) fn free(&self, trees: &Trees, place: Place, pages: u64) {
        let removed = self.0.lock().pending.remove(&place.page);
        if removed == Some(pages) {
            // What stays is removed by the next pack.
            let _ = remove(trees, place.page, place.page + pages);
        }
    }

    /// Whether a record may name `extent` (invariant 3).
    pub(super) fn is_known(&self, extent: &Extent) -> bool {
        let given = self.0.lock();
        let (start, pages) = (extent.place().page, u64::from(extent.stored_pages()));
        let pending = given.pending.range(..=start).next_back();
        extent.place().file == 0
            && (given.live.holds(extent)
                || pending.is_some_and(|(&from, &count)| start + pages <= from + count))
    }

    /// Notes what a record names. What was allocated beyond that is given back by its transaction.
    pub(super) fn commit(&self, record: &Record) {
        let mut given = self.0.lock();
        for extent in record.data.iter().filter_map(|change| change.segment.source.extent()) {
            let (place, pages) = (extent.place(), u64::from(extent.stored_pages()));
            given.live.insert(place, pages);
            if given.pending.get(&place.page) == Some(&pages) {
                given.pending.remove(&place.page);
            }
        }
    }

    /// Number of pages that kept records name.
    pub(super) fn live_pages(&self) -> u64 {
        self.0.lock().live.pages()
    }

    /// After a pack: kept records name `live`, and `limbo` is kept only for those who look at it.
    /// Returns all pages of which the bytes must stay, among those before the page returned.
    pub(super) fn repack(&self, live: Space, limbo: Space) -> (Space, u64) {
        let mut given = self.0.lock();
        let mut stay = live.clone();
        limbo.iter().for_each(|(place, pages)| stay.insert(place, pages));
        for (&page, &pages) in &given.pending {
            stay.insert(Place { file: 0, page }, pages);
        }
        (given.live, given.limbo) = (live, limbo);
        (stay, given.next)
    }

    /// Removes what the last pack kept for those who looked at it, except for `still`.
    pub(super) fn release(&self, trees: &Trees, still: &Space) -> Result<(), StorageError> {
        let (limbo, live) = {
            let given = self.0.lock();
            (given.limbo.clone(), given.live.clone())
        };
        let mut left = Space::default();
        for (place, pages) in limbo.iter() {
            if still.pages_in(place, pages) > 0 {
                left.insert(place, pages);
                continue;
            }
            for (from, until) in values_in(trees, place.page, place.page + pages)? {
                if live.pages_in(Place { file: 0, page: from }, until - from) == 0 {
                    trees.remove(Name::Blocks, &key_of(from))?;
                }
            }
        }
        self.0.lock().limbo = left;
        Ok(())
    }

    /// Whether the last pack kept anything for those who looked at it.
    pub(super) fn has_limbo(&self) -> bool {
        self.0.lock().limbo.pages() > 0
    }
}

/// Writes whole pages.
pub(super) fn write(trees: &Trees, place: Place, bytes: &[u8]) -> Result<(), StorageError> {
    let pages = bytes.len() as u64 / PAGE_BYTES;
    assert!(pages * PAGE_BYTES == bytes.len() as u64, "whole pages are written");
    carve(trees, place.page, place.page + pages)?;
    for (chunk, bytes) in (0..).zip(bytes.chunks(VALUE_BYTES_MAX)) {
        let page: u64 = place.page + chunk * CHUNK_PAGES;
        trees.put(Name::Blocks, &key_of(page), bytes)?;
    }
    Ok(())
}

/// Takes pages out of values that reach into `[start, end)` and beyond, so that what is written
/// there is in one value only.
fn carve(trees: &Trees, start: u64, end: u64) -> Result<(), StorageError> {
    for (from, until) in values_in(trees, start, end)? {
        let Some(value) = trees.get(Name::Blocks, &key_of(from))? else { continue };
        let bytes = value.bytes();
        trees.remove(Name::Blocks, &key_of(from))?;
        if from < start {
            let kept = &bytes[..to_len((start - from) * PAGE_BYTES).min(bytes.len())];
            trees.put(Name::Blocks, &key_of(from), kept)?;
        }
        if end < until {
            let kept = &bytes[to_len((end - from) * PAGE_BYTES).min(bytes.len())..];
            trees.put(Name::Blocks, &key_of(end), kept)?;
        }
    }
    Ok(())
}

/// Removes the bytes of the pages in `[start, end)`.
pub(super) fn remove(trees: &Trees, start: u64, end: u64) -> Result<(), StorageError> {
    carve(trees, start, end)
}

/// The values that hold any of the pages `[start, end)`: first page, and one past the last.
fn values_in(trees: &Trees, start: u64, end: u64) -> Result<Vec<(u64, u64)>, StorageError> {
    let first = start.saturating_sub(CHUNK_PAGES - 1);
    let keys = trees.keys(Name::Blocks, &key_of(first), &key_of(end))?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let from = page_of(trees, &key)?;
        let Some(value) = trees.get(Name::Blocks, &key)? else { continue };
        let until = from + value.bytes().len() as u64 / PAGE_BYTES;
        if until > start {
            found.push((from, until));
        }
    }
    Ok(found)
}

/// The first page of `[start, end)` of which there are no bytes.
pub(super) fn first_missing(
    trees: &Trees,
    start: u64,
    end: u64,
) -> Result<Option<u64>, StorageError> {
    let mut at = start;
    for (from, until) in values_in(trees, start, end)? {
        if from > at {
            break;
        }
        at = at.max(until);
    }
    Ok((at < end).then_some(at))
}

/// The page that a key means.
pub(super) fn page_of(trees: &Trees, key: &[u8]) -> Result<u64, StorageError> {
    match key.try_into() {
        Ok(page) => Ok(number_of(&page)),
        Err(_) => Err(trees.damaged(Name::Blocks, key, "a key is no page number")),
    }
}

/// Fills `bytes` from `offset_bytes` bytes after `place`.
pub(super) fn read(
    trees: &Trees,
    place: Place,
    offset_bytes: u64,
    bytes: &mut [u8],
) -> Result<(), StorageError> {
    let mut at = place.page.saturating_mul(PAGE_BYTES).saturating_add(offset_bytes);
    let mut left = bytes;
    while !left.is_empty() {
        let page = at / PAGE_BYTES;
        let key = key_of(page);
        let missing = || trees.damaged(Name::Blocks, &key, "the bytes of this page are missing");
        let Some((from, value)) = trees.at_or_before(Name::Blocks, &key)? else {
            return Err(missing());
        };
        let skip = to_len(at - page_of(trees, &from)? * PAGE_BYTES);
        let Some(found) = value.bytes().get(skip..).filter(|found| !found.is_empty()) else {
            return Err(missing());
        };
        let count = found.len().min(left.len());
        let (into, rest) = left.split_at_mut(count);
        into.copy_from_slice(&found[..count]);
        left = rest;
        at += count as u64;
    }
    Ok(())
}

/// Removes the bytes of all pages before `end` that are not in `stay`, and returns how many there
/// were. Values that hold some of both stay whole.
pub(super) fn sweep(trees: &Trees, stay: &Space, end: u64) -> Result<u64, StorageError> {
    let keys = trees.keys(Name::Blocks, &[], &key_of(end))?;
    let mut removed = 0;
    for (at, key) in keys.iter().enumerate() {
        let page = page_of(trees, key)?;
        let next = keys.get(at + 1).map_or(Ok(u64::MAX), |next| page_of(trees, next))?;
        if stay.pages_in(Place { file: 0, page }, CHUNK_PAGES.min(next - page)) > 0 {
            continue;
        }
        // What is damaged and not needed may go.
        if let Ok(Some(value)) = trees.get(Name::Blocks, key) {
            removed += value.bytes().len() as u64 / PAGE_BYTES;
        }
        trees.remove(Name::Blocks, key)?;
    }
    Ok(removed)
}

/// A length in memory; what does not fit is in no value either.
fn to_len(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
