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
//! 3. Holes are no lazy pages, so what a slot holds in their place is never seen.
//!
//! # Failure
//!
//! [`Lost`] says why and of which commit; who asked knows array, block and byte.

use std::sync::{Arc, OnceLock};

use super::checked::CheckedUnits;
use super::error::TransactionError;
use crate::storage::StorageError;
use crate::storage::cache::{BlockCache, Description, SlotInUse};
use crate::storage::engine::{Engine, ExtentFile, UnnamedFile, read_checked};
use crate::storage::extent::{Segment, Source};
use crate::storage::index::PageMap;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::units::{PAGE_BYTES, PAGE_LEN, PageRange, Tid};
use crate::vm::{self, CHUNK_PAGES, LoadError, Loaded, PageSource, Pager};

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
    fn load(&self, chunk: PageRange, segments: &[Segment]) -> Result<Loaded, TransactionError> {
        let stored: Vec<&Segment> =
            segments.iter().filter(|segment| segment.source != Source::Hole).collect();
        if let Some(file) = self.as_it_lies(chunk, &stored)? {
            let (file, offset_bytes) = (file.file, file.offset_bytes);
            return Ok(Loaded { file, offset_bytes, pin: Box::new(()) });
        }
        let description = describe(chunk, &stored);
        if let Some(slot) = self.cache()?.get(&description) {
            return Ok(loaded(slot));
        }
        let Some(slot) = self.take_slot()? else { return self.load_apart(chunk, &stored) };
        self.put_together(chunk, &stored, &mut |at, bytes| slot.write(at, bytes))?;
        slot.filled(description);
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

    fn load_apart(
        &self,
        chunk: PageRange,
        segments: &[&Segment],
    ) -> Result<Loaded, TransactionError> {
        let file = self.engine.unnamed(chunk.count())?;
        self.put_together(chunk, segments, &mut |at, bytes| file.write(at, bytes))?;
        let lies = file.file();
        let pin = Box::new(OwnFile { _file: file });
        Ok(Loaded { file: lies.file, offset_bytes: lies.offset_bytes, pin })
    }

    fn put_together(
        &self,
        chunk: PageRange,
        segments: &[&Segment],
        write: &mut dyn FnMut(u64, &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), TransactionError> {
        let mut bytes = Vec::new();
        for segment in segments {
            let Source::Extent { extent, skip } = &segment.source else { continue };
            let count = u32::try_from(segment.pages.count()).unwrap_or(u32::MAX);
            bytes.resize(count as usize * PAGE_LEN, 0);
            read_checked(&*self.engine, extent, *skip..skip.saturating_add(count), &mut bytes)?;
            write((segment.pages.start - chunk.start) * PAGE_BYTES, &bytes)?;
        }
        Ok(())
    }
}

fn loaded(slot: SlotInUse) -> Loaded {
    let file = slot.file();
    Loaded { file: file.file, offset_bytes: file.offset_bytes, pin: Box::new(slot) }
}

/// Equal for chunks of equal content: extents never change, and one that comes to lie where
/// another was has another checksum.
fn describe(chunk: PageRange, segments: &[&Segment]) -> Description {
    let mut words = Vec::with_capacity(segments.len() * 6);
    for segment in segments {
        let Source::Extent { extent, skip } = &segment.source else { continue };
        let place = extent.place();
        words.extend([segment.pages.start - chunk.start, segment.pages.count()]);
        words.extend([u64::from(place.file), place.page, u64::from(*skip)]);
        let count = u32::try_from(segment.pages.count()).unwrap_or(u32::MAX);
        let units = extent.units_of(*skip..skip.saturating_add(count));
        let sums = &extent.sums()[units.start as usize..units.end as usize];
        words.extend(sums.iter().map(|&sum| u64::from(sum)));
    }
    words
}

/// The content of one window of an array.
pub(super) struct ArraySource {
    loader: Arc<Loader>,
    first_page: u64,
    // Invariant 2.
    content: RwLock<(PageMap, Tid)>,
}

impl ArraySource {
    /// The content `pages`, as of commit `tid`, of the window that begins at page `first_page`.
    pub(super) fn new(
        loader: &Arc<Loader>,
        first_page: u64,
        pages: PageMap,
        tid: Tid,
    ) -> Arc<Self> {
        let content = RwLock::new((pages, tid));
        Arc::new(Self { loader: Arc::clone(loader), first_page, content })
    }

    /// Says what the pages contain from now on.
    pub(super) fn show(&self, pages: &PageMap, tid: Tid) {
        *self.content.write() = (pages.clone(), tid);
    }
}

impl PageSource for ArraySource {
    fn load(&self, pages: PageRange) -> Result<Loaded, LoadError> {
        let (map, tid) = self.content.read().clone();
        let chunk = PageRange::at(pages.start + self.first_page, pages.count());
        let segments = map.lookup(chunk).map_err(TransactionError::from);
        let loaded = segments.and_then(|segments| self.loader.load(chunk, &segments));
        loaded.map_err(|source| Arc::new(Lost { tid, source }) as LoadError)
    }
}
