//! The lazily read part of a checkpoint: sorted segments and their checksums, in pages of 64 KiB.
//!
//! ```text
//! page of segments | 48 bytes | 48 bytes | ... 1365 of them | zeros | CRC |
//! page of sums     | 4 bytes | ... 16383 of them                    | CRC |
//! ```
//!
//! # Invariants
//!
//! 1. The checksum of a page covers store, commit, kind and number of the page.
//! 2. The segments of one array ascend and do not overlap; what is read is checked for that.
//! 3. Extents lie in the space in use of their state, or in the log before its end: what is mapped
//!    is never given out or cut off. What is read is checked for that, too.
//!
//! # Failure
//!
//! A damaged page is found when it is read. Then the state is taken from elsewhere, if somebody
//! said how ([`SegmentFile::rescue_with`]), and the damage is remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use super::codec::{Decoder, Malformed};
use super::{StoreId, to_usize};
use crate::storage::StorageError;
use crate::storage::backend::StoreFile;
use crate::storage::extent::{Extent, Place, Segment, Source};
use crate::storage::index::SegmentTable;
use crate::storage::state::{Space, State};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::units::{ARRAY_PAGES_MAX, ArrayId, PageRange, Tid};

/// Bytes of a page of a table.
pub(super) const PAGE_BYTES: usize = 64 << 10;
const PAYLOAD_BYTES: usize = PAGE_BYTES - 4;
const SUMS_PER_PAGE: u64 = PAYLOAD_BYTES as u64 / 4;
/// Pages kept in memory for each checkpoint: 2 MiB.
const CACHED_PAGES: usize = 32;
/// The tables begin after the header.
const TABLES_AT: u64 = crate::units::PAGE_BYTES;

/// A segment as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StoredSegment {
    pub(super) pages: PageRange,
    pub(super) place: Place,
    pub(super) extent_pages: u32,
    /// As [`Extent::units_word`] says it.
    pub(super) units: u32,
    pub(super) skip: u32,
    /// The checksum if there is one, else the number of the first one.
    pub(super) sums: u64,
}

impl StoredSegment {
    /// Bytes of a stored segment.
    pub(super) const BYTES: usize = 48;
    /// Segments of a page.
    pub(super) const PER_PAGE: u64 = (PAYLOAD_BYTES / Self::BYTES) as u64;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pages.start.to_le_bytes());
        out.extend_from_slice(&self.pages.count().to_le_bytes());
        out.extend_from_slice(&self.place.page.to_le_bytes());
        out.extend_from_slice(&self.place.file.to_le_bytes());
        out.extend_from_slice(&self.extent_pages.to_le_bytes());
        out.extend_from_slice(&self.units.to_le_bytes());
        out.extend_from_slice(&self.skip.to_le_bytes());
        out.extend_from_slice(&self.sums.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Decoder(bytes);
        let (start, count) = (from.u64()?, from.u64()?);
        let page = from.u64()?;
        let place = Place { file: from.u32()?, page };
        let (extent_pages, units, skip) = (from.u32()?, from.u32()?, from.u32()?);
        let fits = count > 0
            && Extent::units_count(extent_pages, units) > 0
            && u64::from(skip).saturating_add(count) <= u64::from(extent_pages);
        match start.checked_add(count) {
            Some(end) if fits && end <= ARRAY_PAGES_MAX => {
                let pages = PageRange::new(start, end);
                Ok(Self { pages, place, extent_pages, units, skip, sums: from.u64()? })
            }
            _ => Err(Malformed("a segment does not fit itself".to_owned())),
        }
    }

    fn units_count(&self) -> usize {
        Extent::units_count(self.extent_pages, self.units)
    }
}

pub(super) fn page_sum(store: &StoreId, tid: Tid, kind: u8, number: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(store);
    hasher.update(&tid.0.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// `bytes`, which are records of `record_bytes` each, as pages with checksums.
pub(super) fn sealed_pages(
    store: &StoreId,
    tid: Tid,
    kind: u8,
    bytes: &[u8],
    record_bytes: usize,
) -> Vec<u8> {
    let per_page = PAYLOAD_BYTES / record_bytes * record_bytes;
    let pages = bytes.len().div_ceil(per_page);
    let mut sealed = vec![0; pages * PAGE_BYTES];
    let into = sealed.chunks_exact_mut(PAGE_BYTES);
    for (number, (part, page)) in bytes.chunks(per_page).zip(into).enumerate() {
        page[..part.len()].copy_from_slice(part);
        let sum = page_sum(store, tid, kind, number as u64, &page[..PAYLOAD_BYTES]);
        page[PAYLOAD_BYTES..].copy_from_slice(&sum.to_le_bytes());
    }
    sealed
}

const SEGMENTS: u8 = 0;
const SUMS: u8 = 1;

/// Kind, number and bytes of a page.
type CachedPage = (u8, u64, Arc<Vec<u8>>);
/// How to build the state once more.
type Rescue = Box<dyn Fn() -> Result<State, StorageError> + Send + Sync>;

/// The tables of one checkpoint.
pub(super) struct SegmentFile {
    file: StoreFile,
    store: StoreId,
    tid: Tid,
    segment_pages: u64,
    sum_pages: u64,
    // Invariant 3.
    space: Space,
    log_end: Place,
    fences: Vec<(ArrayId, u64)>,
    cache: Mutex<VecDeque<CachedPage>>,
    rescue: OnceLock<Rescue>,
    rescued: OnceLock<State>,
    damaged: AtomicBool,
}

impl SegmentFile {
    /// The tables, with so many pages of segments and of sums, of a state that uses `space` and
    /// stands at `log_end`.
    pub(super) fn new(
        file: StoreFile,
        (store, tid): (StoreId, Tid),
        (segment_pages, sum_pages): (u64, u64),
        (space, log_end): (Space, Place),
    ) -> Self {
        Self {
            file,
            store,
            tid,
            segment_pages,
            sum_pages,
            space,
            log_end,
            fences: Vec::new(),
            cache: Mutex::new(VecDeque::new()),
            rescue: OnceLock::new(),
            rescued: OnceLock::new(),
            damaged: AtomicBool::new(false),
        }
    }

    /// The tables with the first key of each page of segments.
    pub(super) fn with_fences(mut self, fences: Vec<(ArrayId, u64)>) -> Result<Self, Malformed> {
        if fences.len() as u64 != self.segment_pages || !fences.is_sorted() {
            return Err(Malformed("the fences do not fit the segments".to_owned()));
        }
        self.fences = fences;
        Ok(self)
    }

    /// Says how to build the state once more if this file turns out to be damaged.
    pub(super) fn rescue_with(&self, rescue: Rescue) {
        let _ = self.rescue.set(rescue);
    }

    /// Whether damage was found.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Fails unless `count` segments from number `first` on can be there.
    pub(super) fn require(&self, first: u64, count: u64) -> Result<(), Malformed> {
        let pages = first.checked_add(count).map(|end| end.div_ceil(StoredSegment::PER_PAGE));
        match pages.is_some_and(|pages| pages <= self.segment_pages) {
            true => Ok(()),
            false => Err(Malformed("an array names segments that are not".to_owned())),
        }
    }

    /// Reads every page and compares it with its checksum.
    pub(super) fn verify(&self) -> Result<(), StorageError> {
        (0..self.segment_pages).try_for_each(|n| self.read_page(SEGMENTS, n).map(|_| ()))?;
        (0..self.sum_pages).try_for_each(|n| self.read_page(SUMS, n).map(|_| ()))
    }

    fn read_page(&self, kind: u8, number: u64) -> Result<Arc<Vec<u8>>, StorageError> {
        let (before, count) = match kind {
            SEGMENTS => (0, self.segment_pages),
            _ => (self.segment_pages, self.sum_pages),
        };
        let page_bytes = PAGE_BYTES as u64;
        let offset = before
            .checked_add(number)
            .and_then(|page| page.checked_mul(page_bytes)?.checked_add(TABLES_AT));
        let Some(offset) = offset.filter(|_| number < count) else {
            return Err(self.file.damaged(TABLES_AT, "a segment names a page that is not"));
        };
        let mut page = vec![0; PAGE_BYTES];
        self.file.read_exact_at(&mut page, offset)?;
        let sum = page_sum(&self.store, self.tid, kind, number, &page[..PAYLOAD_BYTES]);
        if sum.to_le_bytes() != page[PAYLOAD_BYTES..] {
            return Err(self.file.damaged(offset, "the checksum of a page of segments is wrong"));
        }
        Ok(Arc::new(page))
    }

    fn page(&self, kind: u8, number: u64) -> Result<Arc<Vec<u8>>, StorageError> {
        let cached = |cache: &VecDeque<CachedPage>| {
            let found = cache.iter().find(|(k, n, _)| (*k, *n) == (kind, number));
            found.map(|(_, _, page)| Arc::clone(page))
        };
        if let Some(page) = cached(&self.cache.lock()) {
            return Ok(page);
        }
        let page = self.read_page(kind, number)?;
        let mut cache = self.cache.lock();
        if cached(&cache).is_none() {
            cache.push_front((kind, number, Arc::clone(&page)));
            cache.truncate(CACHED_PAGES);
        }
        Ok(page)
    }

    fn segment(&self, page: &[u8], index: u64) -> Result<StoredSegment, StorageError> {
        let at = to_usize(index % StoredSegment::PER_PAGE) * StoredSegment::BYTES;
        let bytes = page.get(at..at + StoredSegment::BYTES).unwrap_or_default();
        StoredSegment::decode(bytes).map_err(|Malformed(what)| self.file.damaged(TABLES_AT, what))
    }

    fn extent(&self, stored: &StoredSegment) -> Result<Extent, StorageError> {
        let sums = match stored.units_count() {
            1 => Box::from([u32::try_from(stored.sums & 0xFFFF_FFFF).unwrap_or(0)]),
            count => self.sums(stored.sums, count as u64)?,
        };
        let extent = Extent::new(stored.place, stored.extent_pages, stored.units, sums);
        // Invariant 3.
        let extent = extent.filter(|extent| match extent.place().in_log() {
            true => !extent.is_ahead(self.log_end),
            false => self.space.holds(extent),
        });
        extent.ok_or_else(|| self.file.damaged(TABLES_AT, "a segment names an impossible extent"))
    }

    fn sums(&self, first: u64, count: u64) -> Result<Box<[u32]>, StorageError> {
        let end =
            first.checked_add(count).filter(|end| end.div_ceil(SUMS_PER_PAGE) <= self.sum_pages);
        let Some(end) = end else {
            return Err(self.file.damaged(TABLES_AT, "a segment names checksums that are not"));
        };
        let mut sums = Vec::new();
        let mut at = first;
        while at < end {
            let number = at / SUMS_PER_PAGE;
            let page = self.page(SUMS, number)?;
            let until = end.min((number + 1) * SUMS_PER_PAGE);
            let bytes = to_usize(at - number * SUMS_PER_PAGE) * 4
                ..to_usize(until - number * SUMS_PER_PAGE) * 4;
            let numbers = page[bytes].as_chunks::<4>().0;
            sums.extend(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)));
            at = until;
        }
        Ok(sums.into_boxed_slice())
    }
}

/// The segments of one array.
pub(super) struct ArrayTable {
    file: Arc<SegmentFile>,
    array: ArrayId,
    first: u64,
    end: u64,
}

impl ArrayTable {
    /// The `count` segments from number `first` on, which are there ([`SegmentFile::require`]).
    pub(super) fn new(file: Arc<SegmentFile>, array: ArrayId, first: u64, count: u64) -> Self {
        Self { file, array, first, end: first + count }
    }

    /// The number of the last segment that begins at `page` or before, or of the first one.
    fn search(&self, page: u64) -> Result<u64, StorageError> {
        let first_page = self.first / StoredSegment::PER_PAGE;
        let last_page = (self.end - 1) / StoredSegment::PER_PAGE;
        // The fence of the first page may belong to another array: that page is always possible.
        let fences = &self.file.fences[to_usize(first_page + 1)..=to_usize(last_page)];
        let before = fences.partition_point(|fence| *fence <= (self.array, page)) as u64;
        let number = first_page + before;
        let table_page = self.file.page(SEGMENTS, number)?;
        let mut low = self.first.max(number * StoredSegment::PER_PAGE);
        let mut high = self.end.min((number + 1) * StoredSegment::PER_PAGE);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.file.segment(&table_page, middle)?.pages.start <= page {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn read(&self, pages: PageRange, found: &mut Vec<Segment>) -> Result<(), StorageError> {
        if self.first == self.end || pages.is_empty() {
            return Ok(());
        }
        let mut index = self.search(pages.start)?;
        let mut previous_end = 0;
        let mut known = Known::default();
        while index < self.end {
            let number = index / StoredSegment::PER_PAGE;
            let table_page = self.file.page(SEGMENTS, number)?;
            let until = self.end.min((number + 1) * StoredSegment::PER_PAGE);
            for index in index..until {
                let stored = self.file.segment(&table_page, index)?;
                if stored.pages.start >= pages.end {
                    return Ok(());
                }
                if stored.pages.start < previous_end {
                    return Err(self.file.file.damaged(TABLES_AT, "segments overlap"));
                }
                previous_end = stored.pages.end;
                if stored.pages.end <= pages.start {
                    continue;
                }
                let extent = self.shared_extent(&stored, &mut known)?;
                let source = Source::Extent { extent, skip: stored.skip };
                found.push(Segment { pages: stored.pages, source });
            }
            index = until;
        }
        Ok(())
    }

    /// The extent of a segment, the same value as for others of this read that name the same one.
    fn shared_extent(
        &self,
        stored: &StoredSegment,
        known: &mut Known,
    ) -> Result<Arc<Extent>, StorageError> {
        let key = (stored.place, stored.extent_pages, stored.units, stored.sums);
        if let Some(extent) = known.extents.get(&key) {
            return Ok(Arc::clone(extent));
        }
        // Each extent has checksums of its own: else few bytes could ask for any amount of memory.
        known.sums_count += stored.units_count() as u64;
        let sums_max = self.file.sum_pages.saturating_mul(SUMS_PER_PAGE);
        if stored.units_count() > 1
            && known.sums_count > sums_max.saturating_add(known.single_count)
        {
            return Err(self.file.file.damaged(TABLES_AT, "extents share checksums"));
        }
        known.single_count += u64::from(stored.units_count() == 1);
        let extent = Arc::new(self.file.extent(stored)?);
        known.extents.insert(key, Arc::clone(&extent));
        Ok(extent)
    }
}

/// The extents that one read came across.
#[derive(Default)]
struct Known {
    extents: HashMap<(Place, u32, u32, u64), Arc<Extent>>,
    sums_count: u64,
    // Of them, those that stand in the segment itself.
    single_count: u64,
}

impl SegmentTable for ArrayTable {
    fn segments_in(&self, pages: PageRange, found: &mut Vec<Segment>) -> Result<(), StorageError> {
        let from = found.len();
        let damage = match self.read(pages, found) {
            Err(damage @ StorageError::Corrupted { .. }) => damage,
            other => return other,
        };
        self.file.damaged.store(true, Ordering::Release);
        found.truncate(from);
        let state = match self.file.rescued.get() {
            Some(state) => state,
            None => {
                let built = self.file.rescue.get().map(|rescue| rescue());
                let Some(Ok(state)) = built else { return Err(damage) };
                self.file.rescued.get_or_init(|| state)
            }
        };
        found.extend(state.page_map(self.array).lookup(pages)?);
        Ok(())
    }
}
