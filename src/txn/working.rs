//! The private working copy of one array: where its pages lie in memory and what they contain.
//!
//! ```text
//! array pages    0 ............................ end       room
//! window         | mapped | not yet | mapped   |           |   one reservation
//!                  file     PROT_NONE  private copies
//! ```
//!
//! Arrays up to [`WHOLE_PAGES_MAX`] have one window that starts at page 0 and has room to grow, so
//! that all views alias each other. Larger ones get a window for each part that is looked at.
//!
//! # Invariants
//!
//! 1. A mapped page shows the content that `pages` says, or a private copy that began as it.
//! 2. Pages with private copies lie in `writable`.
//! 3. Windows do not overlap.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::TransactionError;
use super::gather::gather;
use super::loader::ArraySource;
use super::session::{Context, HoleContent};
use crate::storage::encoding::Codec;
use crate::storage::engine::ExtentFile;
use crate::storage::extent::{Segment, Source};
use crate::storage::index::PageMap;
use crate::sync::atomic::Ordering;
use crate::units::{PAGE_BYTES, PageRange, PageSet, Tid};
use crate::vm::{Access, Advice, CHUNK_PAGES, Content, Label, MapError, Mapping, PageSource, Run};

/// Arrays of up to 16 TiB are mapped as one window.
const WHOLE_PAGES_MAX: u64 = 1 << 32;
/// Up to 64 MiB mapped for writing are taken for a piece that will be filled: holes in it become
/// huge pages, which cost a tenth to fill. In more, single elements may be meant, and a huge page
/// for each of them would be memory for nothing.
const FILL_PAGES_MAX: u64 = 1 << 14;
/// Most pages gathered into one file: 1 GiB.
const GATHER_PAGES_MAX: u64 = 1 << 18;
/// Least room of a window: 4 GiB of addresses, which cost nothing.
const ROOM_PAGES_MIN: u64 = if cfg!(miri) { 64 } else { 1 << 20 };

struct Window {
    first_page: u64,
    mapping: Mapping,
    // Where lazy pages come from, once there are any.
    source: Option<Arc<ArraySource>>,
}

impl Window {
    fn pages(&self) -> PageRange {
        PageRange::at(self.first_page, self.mapping.pages())
    }

    fn relative(&self, pages: PageRange) -> PageRange {
        PageRange::new(pages.start - self.first_page, pages.end - self.first_page)
    }

    fn absolute(&self, pages: PageRange) -> PageRange {
        PageRange::new(pages.start + self.first_page, pages.end + self.first_page)
    }
}

impl Window {
    /// Says which pages of `range` are lazy although they are holes.
    fn set_lazy_holes(&self, range: PageRange, holes: &PageSet) {
        if let Some(source) = &self.source {
            source.set_lazy_holes(range, holes);
        }
    }

    /// The holes of `segments` that lie in one chunk with something stored. Where pages lie in too
    /// many pieces, each such hole would be a kernel mapping of its own.
    fn crowded_holes(&self, segments: &[Segment]) -> PageSet {
        let chunk_of = |page: u64| (page - self.first_page) / CHUNK_PAGES;
        let mut chunks = PageSet::new();
        for stored in segments.iter().filter(|segment| segment.source != Source::Hole) {
            let chunks_of = chunk_of(stored.pages.start)..chunk_of(stored.pages.end - 1) + 1;
            let first = self.first_page + chunks_of.start * CHUNK_PAGES;
            chunks.insert(PageRange::new(first, self.first_page + chunks_of.end * CHUNK_PAGES));
        }
        let holes = segments.iter().filter(|segment| segment.source == Source::Hole);
        holes.flat_map(|hole| chunks.iter_in(hole.pages).collect::<Vec<_>>()).collect()
    }
}

/// What a savepoint remembers of one array.
#[derive(Clone)]
pub(super) struct Marked {
    pages: PageMap,
    written: PageSet,
    carried: PageSet,
    end_page: u64,
}

/// One array as one transaction sees it.
pub(super) struct Working {
    // The name that the array had when it was opened.
    name: Arc<str>,
    block_pages: u64,
    hole: HoleContent,
    /// Content of every page, private copies left aside.
    pub(super) pages: PageMap,
    /// Pages that may have private copies.
    pub(super) writable: PageSet,
    /// Pages with new content in `pages`: written by the program.
    pub(super) written: PageSet,
    /// Pages with new extents in `pages` and the same content: written along with neighbours.
    pub(super) carried: PageSet,
    windows: Vec<Window>,
    // Pages that show copies in an unnamed file instead of their extents.
    gathered: PageSet,
    // Pages that are loaded, and checked, when they are touched.
    lazy: PageSet,
    /// How blocks are encoded that are written from now on.
    pub(super) codec: Codec,
    /// The commit that the pages were read from, for messages.
    pub(super) tid: Tid,
    /// The generation of the state that the pages are of, if it is known.
    pub(super) generation: Option<u64>,
    end_page: u64,
}

impl Working {
    pub(super) fn new(name: Arc<str>, block_bytes: u64, hole: HoleContent, pages: PageMap) -> Self {
        Self {
            name,
            block_pages: block_bytes / PAGE_BYTES,
            hole,
            pages,
            writable: PageSet::new(),
            written: PageSet::new(),
            carried: PageSet::new(),
            windows: Vec::new(),
            gathered: PageSet::new(),
            lazy: PageSet::new(),
            codec: Codec::default(),
            tid: Tid(0),
            generation: None,
            end_page: 0,
        }
    }

    /// A working copy of the same array in another state.
    pub(super) fn on(&self, pages: PageMap) -> Self {
        let (name, hole) = (Arc::clone(&self.name), self.hole.clone());
        let (codec, tid) = (self.codec, self.tid);
        Self { codec, tid, ..Self::new(name, self.block_pages * PAGE_BYTES, hole, pages) }
    }

    pub(super) fn block_pages(&self) -> u64 {
        self.block_pages
    }

    /// The file to map for a segment, which is no hole; it is long enough.
    pub(super) fn file_of(
        &self,
        cx: &Context<'_>,
        segment: &Segment,
    ) -> Result<Option<ExtentFile>, TransactionError> {
        cx.file_of(segment).map_err(|error| {
            // The first page that is lost: halve the segment until one is left.
            let (mut whole, mut end) = (0, segment.pages.count());
            while end - whole > 1 {
                let middle = whole + (end - whole) / 2;
                let part = segment.clipped(PageRange::at(segment.pages.start, middle));
                let is_whole = part.is_some_and(|part| cx.file_of(&part).is_ok());
                if is_whole { whole = middle } else { end = middle }
            }
            self.data_error(segment.pages.start + whole, error.into())
        })
    }

    /// `error`, with the block that holds `page`.
    pub(super) fn data_error(&self, page: u64, error: TransactionError) -> TransactionError {
        TransactionError::Data {
            array: self.name.to_string(),
            block: page / self.block_pages,
            byte: page * PAGE_BYTES,
            source: Box::new(error),
        }
    }

    /// One past the last page of the array, as its handle last said.
    pub(super) fn end_page(&self) -> u64 {
        self.end_page
    }

    /// Whether holes read as zeros.
    pub(super) fn holes_are_zero(&self) -> bool {
        matches!(self.hole, HoleContent::Zero)
    }

    /// Says that the array has `pages` pages; whether the addresses for them are there or could
    /// be added in place. If not, nothing has changed.
    pub(super) fn try_reserve(&mut self, cx: &Context<'_>, pages: u64) -> Result<bool, MapError> {
        let has_room = self.try_room(cx, self.whole_blocks(PageRange::new(0, pages)).end)?;
        if has_room {
            self.end_page = pages;
        }
        Ok(has_room)
    }

    fn try_room(&mut self, cx: &Context<'_>, pages: u64) -> Result<bool, MapError> {
        if pages > WHOLE_PAGES_MAX {
            return Ok(true);
        }
        match self.windows.first_mut() {
            None => {
                let room = (pages * 4).clamp(ROOM_PAGES_MIN, WHOLE_PAGES_MAX);
                self.add_window(cx, PageRange::new(0, room))?;
                Ok(true)
            }
            Some(window) if window.first_page == 0 => {
                Ok(window.mapping.pages() >= pages || window.mapping.try_grow(pages * 2))
            }
            Some(_) => Ok(false),
        }
    }

    /// Drops all windows, so that the next use reserves new addresses. Nobody may hold a view and
    /// no private copies may be left.
    pub(super) fn unmap_all(&mut self) {
        self.windows.clear();
        self.gathered = PageSet::new();
        self.lazy = PageSet::new();
        self.writable = PageSet::new();
    }

    /// Whether it holds addresses and kernel mappings.
    pub(super) fn is_mapped(&self) -> bool {
        !self.windows.is_empty()
    }

    fn add_window(&mut self, cx: &Context<'_>, pages: PageRange) -> Result<(), MapError> {
        let access = if cx.writes { Access::CopyOnWrite } else { Access::ReadOnly };
        let budget = cx.shared.budget();
        let mut mapping = Mapping::new(pages.count(), access, Advice::Blocks, budget)?;
        mapping.set_label(Label {
            name: format!("array `{}` of {}", self.name, cx.shared.path.display()),
            first_byte: pages.start_byte(),
            block_bytes: self.block_pages * PAGE_BYTES,
            reason: None,
        });
        self.windows.push(Window { first_page: pages.start, mapping, source: None });
        Ok(())
    }

    /// Maps `pages` and returns the address of the first one.
    ///
    /// What lies there stays mapped there until a transaction boundary (invariant 5 of
    /// [`txn`](super)).
    pub(super) fn map(
        &mut self,
        cx: &Context<'_>,
        pages: PageRange,
        write: bool,
    ) -> Result<NonNull<u8>, TransactionError> {
        let at = self.window_of(cx, pages)?;
        let blocks = self.whole_blocks(pages);
        let window = &self.windows[at];
        let wanted = blocks.intersection(window.pages()).unwrap_or(pages);
        let missing = window.mapping.mapped().missing_in(window.relative(wanted));
        for range in missing {
            let range = self.windows[at].absolute(range);
            self.place_in(cx, at, range)?;
        }
        if write {
            self.writable.insert(pages);
            self.keep(pages);
            if (self.block_pages..=FILL_PAGES_MAX).contains(&pages.count()) {
                let inside = self.windows[at].relative(pages);
                self.windows[at].mapping.expect_overwrite(inside);
            }
        }
        let window = &self.windows[at];
        let offset_bytes = (pages.start - window.first_page) * PAGE_BYTES;
        let offset_bytes = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        Ok(window.mapping.base().map_addr(|base| base.saturating_add(offset_bytes)))
    }

    fn window_of(&mut self, cx: &Context<'_>, pages: PageRange) -> Result<usize, MapError> {
        let found = self.windows.iter().position(|w| w.pages().contains_range(pages));
        if let Some(at) = found {
            return Ok(at);
        }
        let blocks = self.whole_blocks(pages);
        let taken = self.windows.iter().any(|w| w.pages().intersection(blocks).is_some());
        if taken {
            return Err(MapError::AddressSpace { bytes: blocks.len_bytes() });
        }
        self.add_window(cx, blocks)?;
        Ok(self.windows.len() - 1)
    }

    /// Maps `range` of window `at` according to `pages`; private copies there are dropped.
    fn place_in(
        &mut self,
        cx: &Context<'_>,
        at: usize,
        range: PageRange,
    ) -> Result<(), TransactionError> {
        let segments = self.pages.lookup(range)?;
        let mut files = Vec::with_capacity(segments.len());
        let mut loads = cx.shared.loads_all.load(Ordering::Relaxed);
        for segment in &segments {
            files.push(match &segment.source {
                Source::Hole => None,
                Source::Extent { .. } => {
                    let file = self.file_of(cx, segment)?;
                    loads |= file.is_none();
                    file
                }
            });
        }
        if loads {
            return match cx.shared.loader.pager() {
                Some(_) => self.place_lazily(cx, at, range, &segments, &PageSet::new()),
                None => self
                    .place_gathered(cx, at, range)
                    .map_err(|error| self.located(cx, range, error)),
            };
        }
        let placed = self.place_runs(cx, at, &segments, &files);
        if !matches!(placed, Err(MapError::TooManyMappings { .. })) {
            return Ok(placed?);
        }
        // Sessions that wait for the next transaction can do without their mappings.
        cx.shared.drop_idle();
        let placed = self.place_runs(cx, at, &segments, &files);
        if !matches!(placed, Err(MapError::TooManyMappings { .. })) {
            return Ok(placed?);
        }
        if cx.shared.loader.pager().is_some() {
            return match self.place_crowded(cx, at, range) {
                Err(TransactionError::Map(MapError::TooManyMappings { .. })) => {
                    let clean = self.clean_mapped(at)?;
                    clean.iter().try_for_each(|range| self.place_crowded(cx, at, range))?;
                    self.place_crowded(cx, at, range)
                }
                other => other,
            };
        }
        // Copies of the pattern would fill the disk with what nobody wrote.
        let filled = segments.iter().filter(|segment| segment.source == Source::Hole);
        let filled = filled.map(|segment| segment.pages.count()).fold(0, u64::saturating_add);
        if !self.holes_are_zero() && filled > GATHER_PAGES_MAX {
            return Ok(placed?);
        }
        match self.place_gathered(cx, at, range) {
            Err(TransactionError::Map(MapError::TooManyMappings { .. })) => {
                self.gather_mapped(cx, at)?;
                self.place_gathered(cx, at, range)
            }
            other => other,
        }
    }

    /// `error`, which came up when `range` was read, with the first block that is damaged.
    fn located(
        &self,
        cx: &Context<'_>,
        range: PageRange,
        error: TransactionError,
    ) -> TransactionError {
        let Ok(segments) = self.pages.lookup(range) else { return error };
        let mut checked = segments.iter().map(|it| cx.shared.checked.check(cx.engine, it));
        match checked.find_map(Result::err) {
            Some((page, found)) => self.data_error(page, found),
            None => error,
        }
    }

    /// Gathers what is mapped in window `at`, except blocks with private copies.
    ///
    /// The bytes at every address stay what they are, so this may happen under a view.
    fn gather_mapped(&mut self, cx: &Context<'_>, at: usize) -> Result<(), TransactionError> {
        let clean = self.clean_mapped(at)?;
        clean.iter().try_for_each(|range| self.place_gathered(cx, at, range))
    }

    /// The mapped pages of window `at` that lie as they are, except blocks with private copies.
    fn clean_mapped(&self, at: usize) -> Result<PageSet, MapError> {
        let dirty = self.dirty()?;
        let window = &self.windows[at];
        let mut clean: PageSet =
            window.mapping.mapped().iter().map(|range| window.absolute(range)).collect();
        dirty.into_iter().for_each(|range| clean.remove(self.whole_blocks(range)));
        self.gathered.iter().chain(self.lazy.iter()).for_each(|range| clean.remove(range));
        Ok(clean)
    }

    /// Makes `range` lazy, with the holes that would be kernel mappings of their own. The bytes at
    /// every address stay what they are, so this may happen under a view.
    fn place_crowded(
        &mut self,
        cx: &Context<'_>,
        at: usize,
        range: PageRange,
    ) -> Result<(), TransactionError> {
        let segments = self.pages.lookup(range)?;
        let holes = match self.hole {
            HoleContent::Zero => self.windows[at].crowded_holes(&segments),
            // Each repetition of the pattern is one.
            HoleContent::Pattern { .. } => {
                let holes = segments.iter().filter(|segment| segment.source == Source::Hole);
                holes.map(|hole| hole.pages).collect()
            }
        };
        self.place_lazily(cx, at, range, &segments, &holes)
    }

    fn place_runs(
        &mut self,
        cx: &Context<'_>,
        at: usize,
        segments: &[Segment],
        files: &[Option<ExtentFile>],
    ) -> Result<(), MapError> {
        // One array may take half of the mappings of the process, so that others find some too.
        let share = cx.shared.budget().max() / 2;
        let window = &self.windows[at];
        let needed = window.mapping.vmas() + segments.len() as u64;
        if segments.len() > 1 && needed > share {
            return Err(MapError::TooManyMappings { needed, budget: share });
        }
        let contents = files.iter().map(|file| {
            file.as_ref()
                .map(|file| Content::File { file: file.fd(), offset_bytes: file.offset_bytes })
        });
        self.place_contents(at, segments, contents)?;
        segments.iter().for_each(|segment| self.gathered.remove(segment.pages));
        for segment in segments {
            self.lazy.remove(segment.pages);
            self.windows[at].set_lazy_holes(segment.pages, &PageSet::new());
        }
        Ok(())
    }

    /// Places `contents` at `segments`; holes where there is none.
    fn place_contents<'a>(
        &mut self,
        at: usize,
        segments: &[Segment],
        contents: impl Iterator<Item = Option<Content<'a>>>,
    ) -> Result<(), MapError> {
        let hole = self.hole.clone();
        let window = &mut self.windows[at];
        let mut runs = Vec::with_capacity(segments.len());
        for (segment, content) in segments.iter().zip(contents) {
            let relative = window.relative(segment.pages);
            match (content, &hole) {
                (Some(content), _) => runs.push(Run { at: relative, content }),
                (None, HoleContent::Zero) => {
                    runs.push(Run { at: relative, content: Content::Hole });
                }
                (None, HoleContent::Pattern { file, pages }) => {
                    push_pattern(&mut runs, file, *pages, segment, window.first_page);
                }
            }
        }
        window.mapping.place(&runs)
    }

    /// Makes the pages of `segments` lazy, as far as they are no holes or lie in `lazy_holes`.
    fn place_lazily(
        &mut self,
        cx: &Context<'_>,
        at: usize,
        range: PageRange,
        segments: &[Segment],
        lazy_holes: &PageSet,
    ) -> Result<(), TransactionError> {
        self.tell_source(cx, at);
        self.windows[at].set_lazy_holes(range, lazy_holes);
        let mut parts: Vec<Segment> = Vec::with_capacity(segments.len());
        for segment in segments {
            let Source::Hole = segment.source else {
                parts.push(segment.clone());
                continue;
            };
            let mut cuts: Vec<PageRange> = lazy_holes.iter_in(segment.pages).collect();
            cuts.extend(lazy_holes.missing_in(segment.pages));
            cuts.sort_unstable_by_key(|cut| cut.start);
            parts.extend(cuts.into_iter().filter_map(|cut| segment.clipped(cut)));
        }
        let is_lazy =
            |part: &Segment| part.source != Source::Hole || lazy_holes.contains_range(part.pages);
        let contents = parts.iter().map(|part| is_lazy(part).then_some(Content::Lazy));
        self.place_contents(at, &parts, contents)?;
        self.gathered.remove(range);
        self.lazy.remove(range);
        let lazy = parts.iter().filter(|part| is_lazy(part));
        lazy.for_each(|part| self.lazy.insert(part.pages));
        Ok(())
    }

    /// Tells the source of window `at` what the pages contain now.
    fn tell_source(&mut self, cx: &Context<'_>, at: usize) {
        let committed = self.committed_in();
        let window = &mut self.windows[at];
        if let Some(source) = &window.source {
            return source.show(&self.pages, self.tid, committed);
        }
        let Some(pager) = cx.shared.loader.pager() else { return };
        let loader = &cx.shared.loader;
        let new = ArraySource::new(loader, window.first_page, self.hole.clone());
        new.show(&self.pages, self.tid, committed);
        window.mapping.set_source(Arc::clone(&new) as Arc<dyn PageSource>, pager);
        window.source = Some(new);
    }

    /// The same for all windows that have one, after `pages` became another state's.
    fn tell_sources(&self) {
        for source in self.windows.iter().filter_map(|window| window.source.as_ref()) {
            source.show(&self.pages, self.tid, self.committed_in());
        }
    }

    /// The generation in which all that `pages` names is committed; `None` if something is not, or
    /// that is not known.
    fn committed_in(&self) -> Option<u64> {
        let is_committed = self.written.is_empty() && self.carried.is_empty();
        self.generation.filter(|_| is_committed)
    }

    /// Says that `pages`, once loaded, stay until private copies are dropped.
    pub(super) fn keep(&self, pages: PageRange) {
        for window in &self.windows {
            if let Some(inside) = pages.intersection(window.pages()) {
                window.mapping.keep(window.relative(inside));
            }
        }
    }

    /// Loads those of `pages` that are lazy and mapped.
    pub(super) fn load(&self, pages: PageRange) -> Result<(), TransactionError> {
        if !self.lazy.intersects(pages) {
            return Ok(());
        }
        for window in &self.windows {
            let Some(inside) = pages.intersection(window.pages()) else { continue };
            window.mapping.ensure(window.relative(inside)).map_err(|error| match error {
                MapError::NotLoaded { offset_bytes, .. } => {
                    self.data_error(inside.start + offset_bytes / PAGE_BYTES, error.into())
                }
                other => other.into(),
            })?;
        }
        Ok(())
    }

    /// Whether all of `pages` is loaded, and so checked, when it is touched.
    pub(super) fn is_lazy(&self, pages: PageRange) -> bool {
        self.lazy.contains_range(pages)
    }

    /// Maps copies of the pages of `range`, which lie in too many pieces to be mapped themselves.
    fn place_gathered(
        &mut self,
        cx: &Context<'_>,
        at: usize,
        range: PageRange,
    ) -> Result<(), TransactionError> {
        let mut start = range.start;
        while start < range.end {
            let part = PageRange::new(start, range.end.min(start + GATHER_PAGES_MAX));
            let segments = self.pages.lookup(part)?;
            let file = gather(cx, &self.hole, &segments)?;
            let window = &mut self.windows[at];
            let content = Content::File { file: file.fd(), offset_bytes: file.offset_bytes };
            window.mapping.place(&[Run { at: window.relative(part), content }])?;
            self.gathered.insert(part);
            self.lazy.remove(part);
            self.windows[at].set_lazy_holes(part, &PageSet::new());
            start = part.end;
        }
        Ok(())
    }

    /// Maps the mapped parts of `range` again, according to `pages` as it is now.
    pub(super) fn place_again(
        &mut self,
        cx: &Context<'_>,
        range: PageRange,
    ) -> Result<(), TransactionError> {
        for at in 0..self.windows.len() {
            let window = &self.windows[at];
            let Some(inside) = range.intersection(window.pages()) else { continue };
            let inside = window.relative(inside);
            let mapped: Vec<_> = window.mapping.mapped().iter_in(inside).collect();
            for part in mapped {
                let part = self.windows[at].absolute(part);
                self.place_in(cx, at, part)?;
            }
        }
        Ok(())
    }

    /// The pages that have private copies, ascending.
    pub(super) fn dirty(&self) -> Result<Vec<PageRange>, MapError> {
        let mut dirty = Vec::new();
        for window in &self.windows {
            let mut within = PageSet::new();
            for range in self.writable.iter_in(window.pages()) {
                for mapped in window.mapping.mapped().iter_in(window.relative(range)) {
                    within.insert(mapped);
                }
            }
            if !within.is_empty() {
                let found = window.mapping.dirty(&within)?;
                dirty.extend(found.into_iter().map(|range| window.absolute(range)));
            }
        }
        dirty.sort_by_key(|range| range.start);
        Ok(dirty)
    }

    /// Drops all private copies; nobody may hold a view.
    pub(super) fn discard(&mut self) -> Result<(), MapError> {
        for window in &mut self.windows {
            for range in self.writable.iter_in(window.pages()) {
                let range = window.relative(range);
                window.mapping.discard(range)?;
            }
            window.mapping.keep_none();
        }
        self.writable = PageSet::new();
        Ok(())
    }

    /// The bytes of mapped pages as the transaction sees them; `None` if not all are mapped.
    pub(super) fn bytes(&self, pages: PageRange) -> Option<&[u8]> {
        let window = self.windows.iter().find(|w| w.pages().contains_range(pages))?;
        let relative = window.relative(pages);
        window.mapping.mapped().contains_range(relative).then(|| window.mapping.bytes(relative))
    }

    /// The same for writing. The pages count as writable from now on.
    pub(super) fn bytes_mut(&mut self, pages: PageRange) -> Option<&mut [u8]> {
        self.writable.insert(pages);
        let window = self.windows.iter_mut().find(|w| w.pages().contains_range(pages))?;
        let relative = window.relative(pages);
        if !window.mapping.mapped().contains_range(relative) {
            return None;
        }
        Some(window.mapping.bytes_mut(relative))
    }

    /// Asks the kernel to read `pages` ahead.
    pub(super) fn will_need(&self, pages: PageRange) {
        for window in &self.windows {
            if let Some(inside) = pages.intersection(window.pages()) {
                window.mapping.will_need(window.relative(inside));
            }
        }
    }

    /// Says that `pages` are not needed soon.
    pub(super) fn let_go(&self, pages: PageRange) {
        for window in &self.windows {
            if let Some(inside) = pages.intersection(window.pages()) {
                window.mapping.let_go(window.relative(inside));
            }
        }
    }

    /// What a savepoint has to remember. There must be no private copies.
    pub(super) fn mark(&self) -> Marked {
        let (pages, written) = (self.pages.clone(), self.written.clone());
        Marked { pages, written, carried: self.carried.clone(), end_page: self.end_page }
    }

    /// Goes back to `marked`: private copies and later changes are gone.
    pub(super) fn go_back(
        &mut self,
        cx: &Context<'_>,
        marked: &Marked,
    ) -> Result<(), TransactionError> {
        self.discard()?;
        let mut changed = self.written.clone();
        self.carried.iter().for_each(|range| changed.insert(range));
        self.pages = marked.pages.clone();
        self.written = marked.written.clone();
        self.carried = marked.carried.clone();
        self.end_page = marked.end_page;
        self.tell_sources();
        for range in changed.iter() {
            self.place_again(cx, range)?;
        }
        Ok(())
    }

    /// Shows `pages` as the content from now on, of which `changed` differs from what is mapped.
    pub(super) fn become_clean(
        &mut self,
        cx: &Context<'_>,
        pages: PageMap,
        changed: &PageSet,
    ) -> Result<(), TransactionError> {
        let mut again = changed.clone();
        self.written.iter().chain(self.carried.iter()).for_each(|range| again.insert(range));
        // Placing pages again drops their private copies by itself.
        again.iter().for_each(|range| self.writable.remove(range));
        self.discard()?;
        self.pages = pages;
        self.written = PageSet::new();
        self.carried = PageSet::new();
        self.tell_sources();
        for range in again.iter() {
            self.place_again(cx, range)?;
        }
        Ok(())
    }

    fn whole_blocks(&self, pages: PageRange) -> PageRange {
        let start = pages.start - pages.start % self.block_pages;
        let end = pages.end.checked_next_multiple_of(self.block_pages).unwrap_or(pages.end);
        PageRange::new(start, end)
    }
}

/// Covers a hole with the pattern file: page `n` of the array shows page `n % pages` of the file.
fn push_pattern<'a>(
    runs: &mut Vec<Run<'a>>,
    file: &'a Arc<OwnedFd>,
    pages: u64,
    hole: &Segment,
    first_page: u64,
) {
    let mut at = hole.pages.start;
    while at < hole.pages.end {
        let phase = at % pages;
        let end = hole.pages.end.min(at + pages - phase);
        let content = Content::File { file: file.as_fd(), offset_bytes: phase * PAGE_BYTES };
        runs.push(Run { at: PageRange::new(at - first_page, end - first_page), content });
        at = end;
    }
}
