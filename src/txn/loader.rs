//! Loading the content of arrays chunk by chunk, where it is not mapped at once.
//!
//! ```text
//! chunk of an array   | extent a ......... | page run b | a ... |     as the page map says
//! lies as it is       one run of a file that can be mapped: checked, then that file itself
//! else                checked, decoded, put together in a slot of the block cache
//! the disk is full    the same in memory, a few at a time
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

use std::any::Any;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use super::checked::CheckedUnits;
use super::error::TransactionError;
use super::session::HoleContent;
use crate::storage::StorageError;
use crate::storage::cache::{BlockCache, Filling, Name, Process, SlotInUse};
use crate::storage::engine::{Engine, ExtentFile, UnnamedFile, read_checked};
use crate::storage::extent::{Segment, Source};
use crate::storage::index::PageMap;
use crate::storage::scratch::Scratch;
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
    // A child keeps the slots it had mapped, and nobody knows for how long: after a fork there is
    // another one, through another open file.
    cache: Mutex<Option<Arc<BlockCache>>>,
    in_memory: Arc<AtomicU64>,
}

/// A slot of its own, for when all of the cache is in use.
struct OwnFile {
    _file: Box<dyn UnnamedFile>,
}

/// Chunks that are in memory because the disk is full: 16 MiB.
const IN_MEMORY_MAX: u64 = 8;

/// One of the chunks that are in memory.
struct InMemory(Arc<AtomicU64>);

impl InMemory {
    /// `None` if there are as many as may be.
    fn new(count: &Arc<AtomicU64>) -> Option<Self> {
        let one_more = |count| (count < IN_MEMORY_MAX).then_some(count + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
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
            in_memory: Arc::default(),
        })
    }

    /// The threads that load, started at the first call; `None` if the system does not allow
    /// pages that are loaded when they are touched.
    pub(super) fn pager(&self) -> Option<&Arc<Pager>> {
        self.pager.get_or_init(|| Pager::new().ok()).as_ref()
    }

    fn cache(&self) -> Result<Arc<BlockCache>, StorageError> {
        let mut cache = self.cache.lock();
        let is_broken = cache.as_ref().is_some_and(|cache| cache.is_broken());
        if let Some(cache) = &*cache
            && !is_broken
            && !cache.is_forked()
        {
            return Ok(Arc::clone(cache));
        }
        let bytes_max = self.cache_bytes_max.load(Ordering::Relaxed);
        let process = Process { forks: vm::forks, keep_from_children };
        let new = BlockCache::new(&*self.engine, bytes_max, CHUNK_PAGES, is_broken, process)?;
        *cache = Some(Arc::clone(&new));
        Ok(new)
    }

    /// A slot to fill; `None` if all are in use and none of them can be put aside.
    fn take_slot(&self, cache: &Arc<BlockCache>, written: bool) -> Option<Filling> {
        let Some(pager) = self.pager() else { return cache.take(written) };
        let taken = pager.make_room(|| {
            let slot = cache.take(written);
            (slot.is_some() || cache.is_broken()).then_some(slot)
        });
        taken.flatten()
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
        match self.load_in_file(wanted) {
            Err(full) if is_full(&full) => self.load_in_memory(wanted, full),
            other => other,
        }
    }

    fn load_in_file(&self, wanted: &Wanted<'_>) -> Result<Loaded, TransactionError> {
        let (cache, name) = (self.cache()?, wanted.name());
        if let Some(name) = name
            && let Some(slot) = cache.get(name, &wanted.parts())
        {
            return Ok(loaded(slot));
        }
        let filled = match self.fill(&cache, wanted, name, false) {
            // Slots that were written before have their room on the disk.
            Err(full) if is_full(&full) => {
                Some(self.fill(&cache, wanted, name, true)?.ok_or(full)?)
            }
            Err(_) | Ok(None) if cache.is_broken() => {
                self.fill(&self.cache()?, wanted, name, false)?
            }
            other => other?,
        };
        filled.map_or_else(|| self.load_apart(wanted), |slot| Ok(loaded(slot)))
    }

    /// A slot with what is wanted; `None` if there is none to fill.
    fn fill(
        &self,
        cache: &Arc<BlockCache>,
        wanted: &Wanted<'_>,
        name: Option<Name>,
        written: bool,
    ) -> Result<Option<SlotInUse>, TransactionError> {
        let Some(mut slot) = self.take_slot(cache, written) else { return Ok(None) };
        self.put_together(wanted, &mut |at, bytes| slot.write(at, bytes))?;
        Ok(Some(slot.filled(name)?))
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

    /// Where the disk has no room, which is what `full` says.
    fn load_in_memory(
        &self,
        wanted: &Wanted<'_>,
        full: TransactionError,
    ) -> Result<Loaded, TransactionError> {
        let one = || InMemory::new(&self.in_memory);
        let Some(one) = self.pager().map_or_else(one, |pager| pager.make_room(one)) else {
            return Err(full);
        };
        let memory = vm::memory_file::create("block", wanted.chunk.count() * PAGE_BYTES)?;
        let file = File::from(memory);
        self.put_together(wanted, &mut |at, bytes| {
            let written = file.write_all_at(bytes, at);
            let io = |source| StorageError::Io { action: "write", path: "memory".into(), source };
            written.map_err(io)
        })?;
        let file = Arc::new(OwnedFd::from(file));
        vm::memory_file::freeze(file.as_fd())?;
        Ok(Loaded { file, offset_bytes: 0, pin: Box::new(one) })
    }

    fn put_together(
        &self,
        wanted: &Wanted<'_>,
        write: &mut WritePages<'_>,
    ) -> Result<(), TransactionError> {
        let chunk = wanted.chunk;
        for segment in &wanted.stored {
            let Source::Extent { extent, skip } = &segment.source else { continue };
            let count = u32::try_from(segment.pages.count()).unwrap_or(u32::MAX);
            let mut bytes = Scratch::of(count as usize * PAGE_LEN);
            read_checked(&*self.engine, extent, *skip..skip.saturating_add(count), &mut bytes)?;
            write((segment.pages.start - chunk.start) * PAGE_BYTES, &bytes)?;
        }
        for &hole in &wanted.holes {
            let mut bytes = vec![0; PAGE_LEN * usize::try_from(hole.count()).unwrap_or(0)];
            wanted.hole.fill(hole, &mut bytes)?;
            write((hole.start - chunk.start) * PAGE_BYTES, &bytes)?;
        }
        Ok(())
    }
}

fn is_full(error: &TransactionError) -> bool {
    matches!(error, TransactionError::Storage(StorageError::NoSpace { .. }))
}

/// The locks of a cache belong to the open file that its slots are mapped through: a child has them
/// by what it shows, and must not have them by a number besides.
fn keep_from_children(file: Arc<OwnedFd>) -> Box<dyn Any + Send + Sync> {
    #[cfg(not(miri))]
    let file = vm::NotInChild::new(file);
    Box::new(file)
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
    // In which all of it is committed.
    generation: Option<u64>,
}

impl Wanted<'_> {
    /// Equal for chunks of equal content. A place may be given out again, and then something else
    /// with the same checksum may come to lie there; but of what is committed that happens only
    /// when a new generation has begun, and a generation never comes again. What is not committed
    /// has no name, and patterns have none under which they could be found again.
    fn name(&self) -> Option<Name> {
        let generation = self.generation?;
        if !self.holes.is_empty() && !matches!(self.hole, HoleContent::Zero) {
            return None;
        }
        let mut words = Vec::with_capacity(1 + self.stored.len() * 7 + self.holes.len() * 2);
        words.push(generation);
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
        Some(Name::of(&words))
    }

    /// The bytes of the chunk that are written, in that order.
    fn parts(&self) -> Vec<Range<u64>> {
        let stored = self.stored.iter().map(|segment| segment.pages);
        let start = self.chunk.start_byte();
        let bytes_of =
            |pages: PageRange| pages.start_byte() - start..pages.end * PAGE_BYTES - start;
        stored.chain(self.holes.iter().copied()).map(bytes_of).collect()
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
    // The generation in which all that `pages` names is committed, if there is one.
    committed_in: Option<u64>,
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

    /// Says what the pages contain from now on, as of commit `tid`, and in which generation all of
    /// that is committed, if it is. Cost O(1).
    pub(super) fn show(&self, pages: &PageMap, tid: Tid, committed_in: Option<u64>) {
        let mut shown = self.shown.write();
        (shown.pages, shown.tid) = (pages.clone(), tid);
        shown.committed_in = committed_in;
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
        let (map, holes, tid, generation) = {
            let shown = self.shown.read();
            let holes: Vec<PageRange> = shown.lazy_holes.iter_in(chunk).collect();
            (shown.pages.clone(), holes, shown.tid, shown.committed_in)
        };
        let load = |segments: Vec<Segment>| {
            let stored = segments.iter().filter(|segment| segment.source != Source::Hole);
            let stored = stored.collect();
            let hole = &self.hole;
            self.loader.load(&Wanted { chunk, stored, holes, hole, generation })
        };
        let loaded = map.lookup(chunk).map_err(TransactionError::from).and_then(load);
        loaded.map_err(|source| Arc::new(Lost { tid, source }) as LoadError)
    }
}
