//! Loading the content of arrays chunk by chunk, where it is not mapped at once.
//!
//! ```text
//! chunk of an array   | extent a ......... | page run b | a ... |     as the page map says
//! lies as it is       one run of a file that can be mapped: checked, then that file itself
//! else                checked, decoded, put together in a slot of the block cache
//! ```
//!
//! # Invariants
//!
//! 1. What is answered was compared with its checksums.
//! 2. The page map of a source says what the lazy pages of its window contain, at any time: whoever
//!    changes the one places the other anew.
//! 3. Holes are lazy only if the source says so; what a slot holds in place of others is never
//!    seen.
//!
//! # Failure
//!
//! [`Lost`] says why and of which commit; who asked knows array, block and byte.

use std::sync::{Arc, OnceLock};

use super::checked::CheckedUnits;
use super::error::TransactionError;
use super::session::HoleContent;
use crate::storage::StorageError;
use crate::storage::cache::{BlockCache, Description, SlotInUse};
use crate::storage::engine::{Engine, ExtentFile, UnnamedFile, read_checked};
use crate::storage::extent::{Segment, Source};
use crate::storage::index::PageMap;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::units::{PAGE_BYTES, PAGE_LEN, PageRange, PageSet, Tid};
use crate::vm::{self, CHUNK_PAGES, LoadError, Loaded, PageSource, Pager};

/// Writes whole pages at a byte of a chunk.
type WritePages<'a> = dyn FnMut(u64, &[u8]) -> Result<(), StorageError> + 'a;

/// What loads for all transactions of a store.
pub(super) struct Loader {
    engine: Arc<dyn Engine>,
    checked: Arc<CheckedUnits>,
    pub(super) cache_bytes_max: AtomicU64,
    // Empty where the system has no such thing.
    pager: OnceLock<Option<Arc<Pager>>>,
    // With the number of forks before it. A child keeps the slots it had mapped, and nobody knows
    // for how long: after a fork no slot of the same file is filled again.
    cache: Mutex<Option<(Arc<BlockCache>, u64)>>,
}

/// A slot of its own, for when all of the cache is in use.
struct OwnFile {
    _file: Box<dyn UnnamedFile>,
}

/// Why a chunk could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{source} (as of commit {tid})")]
struct Lost {
    tid: Tid,
    source: TransactionError,
}

impl Loader {
    pub(super) fn new(
        engine: &Arc<dyn Engine>,
        checked: &Arc<CheckedUnits>,
        cache_bytes_max: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine: Arc::clone(engine),
            checked: Arc::clone(checked),
            cache_bytes_max: AtomicU64::new(cache_bytes_max),
            pager: OnceLock::new(),
            cache: Mutex::new(None),
        })
    }

    /// The threads that load, started at the first call; `None` if the system does not allow
    /// pages that are loaded when they are touched.
    pub(super) fn pager(&self) -> Option<&Arc<Pager>> {
        self.pager.get_or_init(|| Pager::new().ok()).as_ref()
    }

    fn cache(&self) -> Result<Arc<BlockCache>, StorageError> {
        let mut cache = self.cache.lock();
        let forks = vm::forks();
        if let Some((cache, before)) = &*cache
            && *before == forks
        {
            return Ok(Arc::clone(cache));
        }
        let bytes_max = self.cache_bytes_max.load(Ordering::Relaxed);
        let new = BlockCache::new(&*self.engine, bytes_max, CHUNK_PAGES)?;
        *cache = Some((Arc::clone(&new), forks));
        Ok(new)
    }

    /// A slot to fill; `None` if all are in use and none of them can be put aside.
    fn take_slot(&self) -> Result<Option<SlotInUse>, StorageError> {
        loop {
            let forks = vm::forks();
            let slot = self.cache()?.take();
            if vm::forks() != forks {
                continue;
            }
            if slot.is_some() || !self.pager().is_some_and(|pager| pager.put_one_aside()) {
                return Ok(slot);
            }
        }
    }

    /// A range of a file with what `segments` say of `chunk`.
    fn load(&self, wanted: &Wanted<'_>) -> Result<Loaded, TransactionError> {
        let Wanted { chunk, stored, .. } = wanted;
        if wanted.holes.is_empty()
            && let Some(file) = self.as_it_lies(*chunk, stored)?
        {
            let (file, offset_bytes) = (file.file, file.offset_bytes);
            return Ok(Loaded { file, offset_bytes, pin: Box::new(()) });
        }
        // A pattern has no name under which it could be found again.
        let is_named = wanted.holes.is_empty() || matches!(wanted.hole, HoleContent::Zero);
        let description = is_named.then(|| wanted.describe());
        if let Some(description) = &description
            && let Some(slot) = self.cache()?.get(description)
        {
            return Ok(loaded(slot));
        }
        let Some(slot) = self.take_slot()? else { return self.load_apart(wanted) };
        self.put_together(wanted, &mut |at, bytes| slot.write(at, bytes))?;
        if let Some(description) = description {
            slot.filled(description);
        }
        Ok(loaded(slot))
    }

    /// The file itself, if `segments` lie there as the chunk shows them.
    fn as_it_lies(
        &self,
        chunk: PageRange,
        segments: &[&Segment],
    ) -> Result<Option<ExtentFile>, TransactionError> {
        let Some(first) = segments.first() else { return Ok(None) };
        let Some(start) = first.source.place() else { return Ok(None) };
        let mut found = None;
        for segment in segments {
            let into = segment.pages.start - first.pages.start;
            if segment.source.place() != Some(start.after(into)) {
                return Ok(None);
            }
            let file = self.engine.file_of(start.after(into), segment.pages.count())?;
            let Some(file) = file else { return Ok(None) };
            found.get_or_insert(file);
        }
        for segment in segments {
            self.checked.check(&*self.engine, segment).map_err(|(_, error)| error)?;
        }
        let before = (first.pages.start - chunk.start) * PAGE_BYTES;
        Ok(found.map(|file| ExtentFile {
            offset_bytes: file.offset_bytes.wrapping_sub(before),
            ..file
        }))
    }

    fn load_apart(&self, wanted: &Wanted<'_>) -> Result<Loaded, TransactionError> {
        let file = self.engine.unnamed(wanted.chunk.count())?;
        self.put_together(wanted, &mut |at, bytes| file.write(at, bytes))?;
        let lies = file.file();
        let pin = Box::new(OwnFile { _file: file });
        Ok(Loaded { file: lies.file, offset_bytes: lies.offset_bytes, pin })
    }

    fn put_together(
        &self,
        wanted: &Wanted<'_>,
        write: &mut WritePages<'_>,
    ) -> Result<(), TransactionError> {
        let mut bytes = Vec::new();
        let chunk = wanted.chunk;
        for segment in &wanted.stored {
            let Source::Extent { extent, skip } = &segment.source else { continue };
            let count = u32::try_from(segment.pages.count()).unwrap_or(u32::MAX);
            bytes.resize(count as usize * PAGE_LEN, 0);
            read_checked(&*self.engine, extent, *skip..skip.saturating_add(count), &mut bytes)?;
            write((segment.pages.start - chunk.start) * PAGE_BYTES, &bytes)?;
        }
        for &hole in &wanted.holes {
            bytes.clear();
            bytes.resize(PAGE_LEN * usize::try_from(hole.count()).unwrap_or(0), 0);
            wanted.hole.fill(hole, &mut bytes)?;
            write((hole.start - chunk.start) * PAGE_BYTES, &bytes)?;
        }
        Ok(())
    }
}

fn loaded(slot: SlotInUse) -> Loaded {
    let file = slot.file();
    Loaded { file: file.file, offset_bytes: file.offset_bytes, pin: Box::new(slot) }
}

/// What a chunk shall show.
struct Wanted<'a> {
    chunk: PageRange,
    stored: Vec<&'a Segment>,
    // Holes to be shown, and what they contain.
    holes: Vec<PageRange>,
    hole: &'a HoleContent,
}

impl Wanted<'_> {
    /// Equal for chunks of equal content: extents never change, and one that comes to lie where
    /// another was has another checksum.
    fn describe(&self) -> Description {
        let mut words = Vec::with_capacity(self.stored.len() * 6);
        let start = self.chunk.start;
        for segment in &self.stored {
            let Source::Extent { extent, skip } = &segment.source else { continue };
            let place = extent.place();
            words.extend([segment.pages.start - start, segment.pages.count()]);
            words.extend([u64::from(place.file), place.page]);
            words.extend([u64::from(*skip), u64::from(extent.units_word())]);
            let count = u32::try_from(segment.pages.count()).unwrap_or(u32::MAX);
            let units = extent.units_of(*skip..skip.saturating_add(count));
            let sums = &extent.sums()[units.start as usize..units.end as usize];
            words.extend(sums.iter().map(|&sum| u64::from(sum)));
        }
        words.push(u64::MAX);
        words.extend(self.holes.iter().flat_map(|hole| [hole.start - start, hole.end - start]));
        words
    }
}

/// What the pages of a window contain.
#[derive(Default)]
struct Shown {
    pages: PageMap,
    // Pages that are lazy although they are holes.
    lazy_holes: PageSet,
    // For people.
    tid: Tid,
}

/// The content of one window of an array.
pub(super) struct ArraySource {
    loader: Arc<Loader>,
    first_page: u64,
    hole: HoleContent,
    // Invariant 2.
    shown: RwLock<Shown>,
}

impl ArraySource {
    /// A source for the window that begins at page `first_page`, with nothing to show yet.
    pub(super) fn new(loader: &Arc<Loader>, first_page: u64, hole: HoleContent) -> Arc<Self> {
        let shown = RwLock::new(Shown::default());
        Arc::new(Self { loader: Arc::clone(loader), first_page, hole, shown })
    }

    /// Says what the pages contain from now on, as of commit `tid`. Cost O(1).
    pub(super) fn show(&self, pages: &PageMap, tid: Tid) {
        let mut shown = self.shown.write();
        (shown.pages, shown.tid) = (pages.clone(), tid);
    }

    /// Says that of the holes in `range` those in `holes` are lazy, and no others.
    pub(super) fn set_lazy_holes(&self, range: PageRange, holes: &PageSet) {
        let mut shown = self.shown.write();
        shown.lazy_holes.remove(range);
        holes.iter_in(range).for_each(|hole| shown.lazy_holes.insert(hole));
    }
}

impl PageSource for ArraySource {
    fn load(&self, pages: PageRange) -> Result<Loaded, LoadError> {
        let chunk = PageRange::at(pages.start + self.first_page, pages.count());
        let (map, holes, tid) = {
            let shown = self.shown.read();
            let holes: Vec<PageRange> = shown.lazy_holes.iter_in(chunk).collect();
            (shown.pages.clone(), holes, shown.tid)
        };
        let load = |segments: Vec<Segment>| {
            let stored = segments.iter().filter(|segment| segment.source != Source::Hole);
            let stored = stored.collect();
            self.loader.load(&Wanted { chunk, stored, holes, hole: &self.hole })
        };
        let loaded = map.lookup(chunk).map_err(TransactionError::from).and_then(load);
        loaded.map_err(|source| Arc::new(Lost { tid, source }) as LoadError)
    }
}
