//! Pages that are loaded when somebody first touches them.
//!
//! ```text
//! chunk   missing --touched, or asked for--> loading --> shown: a range of a file, copy-on-write
//!            ^                                  |           |
//!            '---- put aside for others --------|-----------'
//!                                               '-> lost: an error of `ensure`, SIGBUS of a touch
//! ```
//!
//! A *chunk* is 2 MiB of a reservation. What the pages of a chunk contain is known to a
//! [`PageSource`], which answers with a range of a file; that range is mapped over the missing
//! pages. From then on they are as pages of an eager mapping: clean, or dirty when written.
//!
//! # Invariants
//!
//! 1. Whoever reads a lazy page finds the bytes of its content, however often it is shown and put
//!    aside meanwhile: it goes from missing to shown and back at one stroke. References into lazy
//!    pages may therefore be alive while this happens.
//! 2. Only pages in `lazy` are touched by other threads than the owner of the mapping, and only
//!    under the lock of `state`. Who wants to place something else there takes them out first.
//! 3. Pages in `kept` may have private copies, so they are not put aside.
//! 4. A child of fork has the chunks that were shown, and no others: nobody would load them there.
//! 5. A load that was begun before its chunk was placed anew is thrown away.
//!
//! # Failure
//!
//! A chunk that cannot be loaded is an error for who asked, and is tried again when asked again.
//! If a thread sleeps on it, pages behind the end of a file are mapped there: the thread gets
//! SIGBUS and the process one sentence on stderr that says what was lost and why.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock, Weak};

use super::pager::{Aside, Pager};
use super::planted::{Bug, planted};
use super::sys::bus::{Label, Labelled};
use super::sys::madvise::{self, Advice};
use super::sys::mmap::{self, Access};
use super::sys::to_usize;
use super::{MapError, VmaBudget, memory_file};
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crate::sync::{Changed, Mutex};
use crate::units::{PAGE_BYTES, PageRange, PageSet};

/// Pages of a chunk: 2 MiB, the size of a huge page.
pub const CHUNK_PAGES: u64 = 512;

/// Kernel mappings that a shown chunk may add: its own, and the rest of one that it cuts in two.
const VMAS_PER_CHUNK: u64 = 2;

/// Most chunks loaded ahead of a reader: 16 MiB.
const AHEAD_MAX: u64 = 8;

/// Why a chunk could not be loaded.
pub type LoadError = Arc<dyn Error + Send + Sync>;

/// Where the content of lazy pages comes from.
pub trait PageSource: Send + Sync {
    /// A range of a file that holds the bytes of `pages`, which are one chunk or the last part of
    /// a reservation. Called by any thread, by several at once for different chunks.
    ///
    /// # Errors
    ///
    /// Anything; whoever wanted the pages gets it.
    fn load(&self, pages: PageRange) -> Result<Loaded, LoadError>;
}

/// What keeps a range of a file as it is.
pub type Pinned = Box<dyn Send + Sync>;

/// A range of a file that does not change as long as `pin` lives.
pub struct Loaded {
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Where in the file the chunk begins, modulo 2^64: what comes before its first lazy page need
    /// not be in the file.
    pub offset_bytes: u64,
    /// Dropped when nothing of it is mapped any more.
    pub pin: Pinned,
}

/// Pages of one chunk that show a range of a file.
struct Shown {
    id: u64,
    pages: PageSet,
    pin: Pinned,
}

#[derive(Default)]
struct State {
    // Invariant 2.
    lazy: PageSet,
    // Invariant 3.
    kept: PageSet,
    shown: HashMap<u64, Vec<Shown>>,
    // Chunks that could not be loaded and that somebody touched, with what to say of them.
    lost: HashMap<u64, Option<Labelled>>,
    // Invariant 5: the number of the load that counts.
    loading: HashMap<u64, u64>,
    label: Option<Label>,
    // One past the chunk that was touched last, and one past those that were loaded ahead.
    next_touch: Option<u64>,
    ahead_end: u64,
    ahead: u64,
}

impl State {
    /// The pages of `chunk` that nobody sees anything of yet.
    fn missing(&self, chunk: u64) -> PageSet {
        let mut missing: PageSet = self.lazy.iter_in(pages_of(chunk)).collect();
        for shown in self.shown.get(&chunk).into_iter().flatten() {
            shown.pages.iter().for_each(|range| missing.remove(range));
        }
        missing
    }

    /// The chunks to load ahead after `chunk` was touched.
    fn ahead_of(&mut self, chunk: u64) -> std::ops::Range<u64> {
        let next = self.next_touch.replace(chunk + 1);
        let in_order =
            next.is_some_and(|next| chunk == next || (next..=self.ahead_end).contains(&chunk));
        if !in_order {
            (self.ahead, self.ahead_end) = (0, 0);
            return 0..0;
        }
        self.ahead = (self.ahead * 2).clamp(2, AHEAD_MAX);
        let from = self.ahead_end.max(chunk + 1);
        self.ahead_end = from.max(chunk + 1 + self.ahead);
        from..self.ahead_end
    }
}

/// The lazy pages of one reservation.
pub(super) struct LazyPages {
    base: AtomicPtr<u8>,
    access: Access,
    source: Arc<dyn PageSource>,
    pager: Arc<Pager>,
    budget: Arc<VmaBudget>,
    process: u32,
    next_id: AtomicU64,
    state: Mutex<State>,
    changed: Changed,
}

impl LazyPages {
    /// No lazy pages yet, in a reservation at `base`.
    pub(super) fn new(
        base: NonNull<u8>,
        access: Access,
        source: Arc<dyn PageSource>,
        pager: &Arc<Pager>,
        budget: &Arc<VmaBudget>,
    ) -> Arc<Self> {
        let new = Arc::new(Self {
            base: AtomicPtr::new(base.as_ptr()),
            access,
            source,
            pager: Arc::clone(pager),
            budget: Arc::clone(budget),
            process: std::process::id(),
            next_id: AtomicU64::new(1),
            state: Mutex::new(State::default()),
            changed: Changed::default(),
        });
        pager.add(base.addr().get(), Arc::downgrade(&new));
        new
    }

    pub(super) fn set_label(&self, label: Label) {
        self.state.lock().label = Some(label);
    }

    /// Makes `pages` lazy and missing. The caller owns them exclusively, and will count them as
    /// mapped.
    pub(super) fn open(&self, pages: PageRange) -> Result<(), MapError> {
        let mut state = self.state.lock();
        // First: what is still shown after a refusal stays pinned.
        self.make_missing(pages)?;
        drop(self.take_out(&mut state, pages));
        state.lazy.insert(pages);
        Ok(())
    }

    /// Says that `pages` are no longer lazy: the caller owns them and will place something else.
    /// What they showed stays as it is until the result is dropped.
    pub(super) fn forget(&self, pages: PageRange) -> Vec<Pinned> {
        self.take_out(&mut self.state.lock(), pages)
    }

    /// Ends everything; the addresses go.
    pub(super) fn close(&self) {
        // In a child of fork another thread may have held the lock, and no thread touches pages.
        if std::process::id() != self.process {
            return;
        }
        self.pager.remove(self.address());
        let mut state = self.state.lock();
        let chunks = state.shown.values().map(Vec::len).sum::<usize>() as u64;
        self.budget.give(chunks * VMAS_PER_CHUNK);
        *state = State::default();
        self.changed.tell();
    }

    fn take_out(&self, state: &mut State, pages: PageRange) -> Vec<Pinned> {
        let mut pins = Vec::new();
        if !state.lazy.intersects(pages) {
            return pins;
        }
        state.lazy.remove(pages);
        state.kept.remove(pages);
        let is_inside = |chunk: &u64| pages_of(*chunk).intersection(pages).is_some();
        state.loading.retain(|chunk, _| !is_inside(chunk));
        state.lost.retain(|chunk, _| !is_inside(chunk));
        state.shown.retain(|chunk, parts| {
            if is_inside(chunk) {
                parts.iter_mut().for_each(|part| part.pages.remove(pages));
                let gone = parts.extract_if(.., |part| part.pages.is_empty());
                pins.extend(gone.map(|part| part.pin));
            }
            !parts.is_empty()
        });
        self.budget.give(pins.len() as u64 * VMAS_PER_CHUNK);
        self.changed.tell();
        pins
    }

    /// Says that `pages` may get private copies from now on (invariant 3).
    pub(super) fn keep(&self, pages: PageRange) {
        let mut state = self.state.lock();
        let lazy: Vec<PageRange> = state.lazy.iter_in(pages).collect();
        lazy.into_iter().for_each(|range| state.kept.insert(range));
    }

    /// Says that no page has a private copy any more.
    pub(super) fn keep_none(&self) {
        self.state.lock().kept = PageSet::new();
    }

    /// Loads all lazy pages in `pages` and waits for it.
    ///
    /// # Errors
    ///
    /// [`MapError::NotLoaded`] for the first chunk that cannot be had.
    pub(super) fn ensure(self: &Arc<Self>, pages: PageRange) -> Result<(), MapError> {
        let chunks = self.chunks_in(pages);
        let mut ahead = chunks.iter().copied();
        let asked = |chunk| self.pager.ask(Arc::downgrade(self), chunk);
        ahead.by_ref().take(usize::try_from(AHEAD_MAX).unwrap_or(1)).skip(1).for_each(asked);
        for &chunk in &chunks {
            ahead.next().map(asked);
            self.show(chunk, Wish::Ensure).map_err(|error| {
                let first = pages_of(chunk).start.max(pages.start) - pages.start;
                MapError::NotLoaded { offset_bytes: first * PAGE_BYTES, source: error }
            })?;
        }
        Ok(())
    }

    /// Begins to load lazy pages in `pages`, as far as is sensible.
    pub(super) fn will_need(self: &Arc<Self>, pages: PageRange) {
        let chunks = self.chunks_in(pages);
        let some = chunks.into_iter().take(usize::try_from(AHEAD_MAX).unwrap_or(1));
        some.for_each(|chunk| self.pager.ask(Arc::downgrade(self), chunk));
    }

    fn chunks_in(&self, pages: PageRange) -> Vec<u64> {
        let state = self.state.lock();
        let mut chunks: Vec<u64> = Vec::new();
        for range in state.lazy.iter_in(pages) {
            let first = range.start / CHUNK_PAGES;
            let first = chunks.last().map_or(first, |&last| first.max(last + 1));
            chunks.extend(first..range.end.div_ceil(CHUNK_PAGES));
        }
        chunks.retain(|&chunk| !state.missing(chunk).is_empty());
        chunks
    }

    /// A thread sleeps on the missing page at `address`.
    pub(super) fn touched(self: &Arc<Self>, address: usize) {
        let chunk = self.chunk_at(address);
        let ahead = self.state.lock().ahead_of(chunk);
        ahead.for_each(|next| self.pager.ask(Arc::downgrade(self), next));
        // Who touched it is woken and told in any case.
        drop(self.show(chunk, Wish::Touch));
    }

    /// The chunk that `address`, which is inside the reservation, belongs to.
    pub(super) fn chunk_at(&self, address: usize) -> u64 {
        ((address - self.address()) as u64 / PAGE_BYTES) / CHUNK_PAGES
    }

    /// Ends the load of `chunk` whose thread panicked: who sleeps on it, or waits, is told.
    pub(super) fn give_up(&self, chunk: u64) {
        let mut state = self.state.lock();
        state.loading.remove(&chunk);
        self.lose(&mut state, chunk, &as_load_error(Panicked));
        drop(state);
        self.changed.tell();
        self.wake(chunk);
    }

    /// Has all threads that sleep on a page look again.
    pub(super) fn wake_all(&self) {
        let end = self.state.lock().lazy.iter().last().map_or(0, |range| range.end);
        if end > 0 {
            let (at, len) = self.part(PageRange::new(0, end));
            self.pager.wake(at.addr().get(), len);
        }
    }

    /// Loads `chunk` because it may be touched soon.
    pub(super) fn load_ahead(self: &Arc<Self>, chunk: u64) {
        // Who touches it finds out.
        drop(self.show(chunk, Wish::Ahead));
    }

    fn show(self: &Arc<Self>, chunk: u64, wish: Wish) -> Result<(), LoadError> {
        loop {
            let Some(id) = self.begin(chunk, wish)? else { return Ok(()) };
            let loaded = self.load(chunk);
            let mut state = self.state.lock();
            let is_overtaken = state.loading.get(&chunk) != Some(&id);
            if is_overtaken && !planted(Bug::OvertakenShown) {
                // Placed anew meanwhile (invariant 5).
                self.budget.give(VMAS_PER_CHUNK);
                continue;
            }
            state.loading.remove(&chunk);
            let shown = loaded.and_then(|loaded| self.map(&mut state, chunk, id, loaded));
            if let (Err(error), Wish::Touch) = (&shown, wish) {
                self.lose(&mut state, chunk, error);
            }
            drop(state);
            match &shown {
                Ok(()) => self.pager.shown(Arc::downgrade(self), chunk, id),
                Err(_) => self.budget.give(VMAS_PER_CHUNK),
            }
            if !planted(Bug::EndUntold) {
                self.changed.tell();
            }
            self.wake(chunk);
            return shown;
        }
    }

    /// The number of a load that begins now; `None` if there is nothing to load, or others do.
    fn begin(&self, chunk: u64, wish: Wish) -> Result<Option<u64>, LoadError> {
        let mut state = self.state.lock();
        while state.loading.contains_key(&chunk) {
            if wish != Wish::Ensure {
                // Who loads it wakes whoever sleeps.
                return Ok(None);
            }
            state = self.changed.wait(state);
        }
        let is_lost = state.lost.contains_key(&chunk);
        if state.missing(chunk).is_empty() || (is_lost && wish != Wish::Ensure) {
            if !planted(Bug::WakeForgotten) {
                self.wake(chunk);
            }
            return Ok(None);
        }
        if is_lost {
            for range in state.missing(chunk).iter() {
                self.make_missing(range).map_err(as_load_error)?;
            }
            state.lost.remove(&chunk);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        state.loading.insert(chunk, id);
        Ok(Some(id))
    }

    /// Loads a chunk and takes its mappings from the budget.
    fn load(&self, chunk: u64) -> Result<Loaded, LoadError> {
        let take = || self.budget.try_take(VMAS_PER_CHUNK).then_some(());
        if self.pager.make_room(take).is_none() {
            // The program's own part of what the kernel allows; it refuses if that is gone.
            self.budget.take_beyond(VMAS_PER_CHUNK);
        }
        let load = || self.source.load(pages_of(chunk));
        let caught = catch_unwind(AssertUnwindSafe(load));
        caught.unwrap_or_else(|_| Err(as_load_error(Panicked)))
    }

    /// Maps what was loaded over the missing pages of `chunk`.
    fn map(&self, state: &mut State, chunk: u64, id: u64, loaded: Loaded) -> Result<(), LoadError> {
        let missing = state.missing(chunk);
        let mapped = missing.iter().try_for_each(|range| {
            let into = range.start_byte() - pages_of(chunk).start_byte();
            self.map_file(range, loaded.file.as_fd(), loaded.offset_bytes.wrapping_add(into))
        });
        if let Err(error) = mapped {
            // What was mapped already shows a range that nobody pins.
            for range in missing.iter() {
                self.make_missing(range).map_err(as_load_error)?;
            }
            return Err(as_load_error(error));
        }
        let pin = if planted(Bug::UnpinnedEarly) { Box::new(()) } else { loaded.pin };
        let shown = Shown { id, pages: missing, pin };
        state.shown.entry(chunk).or_default().push(shown);
        Ok(())
    }

    /// Lets who touches `chunk` know that it cannot be had.
    fn lose(&self, state: &mut State, chunk: u64, error: &LoadError) {
        let nothing = nothing();
        let missing = state.missing(chunk);
        for range in missing.iter() {
            let mapped = nothing.as_ref().map(|file| self.map_file(range, file.as_fd(), 0));
            if !matches!(mapped, Some(Ok(()))) {
                // Who sleeps there would sleep for ever.
                eprintln!("zbigarray: a page cannot be loaded, and cannot be given up: {error}");
                std::process::abort();
            }
        }
        let first = missing.iter().next().map_or(0, |range| range.start);
        let end = missing.iter().last().map_or(0, |range| range.end);
        let label = state.label.clone().map(|mut label| {
            label.first_byte += first * PAGE_BYTES;
            label.reason = Some(error.to_string());
            let (at, len) = self.part(PageRange::new(first, end));
            Labelled::new(at, len, label)
        });
        state.lost.insert(chunk, label);
    }

    /// Makes what load `id` shows of `chunk` missing again, if nothing of it is kept; whether it
    /// did.
    pub(super) fn put_aside(&self, chunk: u64, id: u64) -> Aside {
        let mut state = self.state.lock();
        let Some(parts) = state.shown.get(&chunk) else { return Aside::Gone };
        let Some(at) = parts.iter().position(|part| part.id == id) else { return Aside::Gone };
        let pages = parts[at].pages.clone();
        let is_kept = pages.iter().any(|range| state.kept.intersects(range));
        if is_kept || pages.iter().try_for_each(|range| self.make_missing(range)).is_err() {
            return Aside::Kept;
        }
        if let Some(parts) = state.shown.get_mut(&chunk) {
            let pin = parts.swap_remove(at).pin;
            if planted(Bug::NeverUnpinned) {
                std::mem::forget(pin);
            }
            if parts.is_empty() {
                state.shown.remove(&chunk);
            }
        }
        self.budget.give(VMAS_PER_CHUNK);
        Aside::Done
    }

    /// Whether load `id` shows anything of `chunk`.
    pub(super) fn shows(&self, chunk: u64, id: u64) -> bool {
        let state = self.state.lock();
        state.shown.get(&chunk).is_some_and(|parts| parts.iter().any(|part| part.id == id))
    }

    fn wake(&self, chunk: u64) {
        let (at, len) = self.part(pages_of(chunk));
        self.pager.wake(at.addr().get(), len);
    }

    fn make_missing(&self, pages: PageRange) -> Result<(), MapError> {
        let (at, len) = self.part(pages);
        // SAFETY: lazy pages are ours to change under the lock of `state`, which every caller has
        // (invariant 2), or are about to become lazy and belong to the caller. Readers wait until
        // they are shown again (invariant 1).
        Ok(unsafe { self.pager.map_missing(at, len, self.access) }?)
    }

    fn map_file(
        &self,
        pages: PageRange,
        file: BorrowedFd<'_>,
        offset_bytes: u64,
    ) -> Result<(), MapError> {
        let (at, len) = self.part(pages);
        // SAFETY: lazy pages are ours to change under the lock of `state`, which every caller has
        // (invariant 2). They were missing, so nobody has seen anything there.
        unsafe { mmap::map_file(at, len, self.access, file, offset_bytes) }?;
        for wish in [Advice::HugePage, Advice::Random] {
            // A wish: without it everything is slower and as right.
            drop(madvise::advise(at, len, wish));
        }
        Ok(())
    }

    /// Address and length in bytes of `pages`.
    fn part(&self, pages: PageRange) -> (NonNull<u8>, usize) {
        let base = self.base.load(Ordering::Relaxed);
        let at = base.map_addr(|base| base + to_usize(pages.start_byte()));
        (NonNull::new(at).unwrap_or(NonNull::dangling()), to_usize(pages.len_bytes()))
    }

    fn address(&self) -> usize {
        self.base.load(Ordering::Relaxed).addr()
    }
}

impl fmt::Debug for LazyPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LazyPages at {:#x}", self.address())
    }
}

/// Why a chunk is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// A thread sleeps on it.
    Touch,
    /// A call waits for it and takes an error.
    Ensure,
    /// Nobody waits.
    Ahead,
}

/// A source panicked.
#[derive(Debug, thiserror::Error)]
#[error("a panic while the block was loaded")]
struct Panicked;

fn as_load_error(error: impl Error + Send + Sync + 'static) -> LoadError {
    Arc::new(error)
}

const fn pages_of(chunk: u64) -> PageRange {
    PageRange::new(chunk * CHUNK_PAGES, (chunk + 1) * CHUNK_PAGES)
}

/// A file of no bytes: touching a mapping of it is SIGBUS.
fn nothing() -> Option<&'static OwnedFd> {
    static NOTHING: OnceLock<Option<OwnedFd>> = OnceLock::new();
    NOTHING.get_or_init(|| memory_file::create("nothing", 0).ok()).as_ref()
}

/// A reservation's lazy pages, as far as they still are.
pub(super) type WeakPages = Weak<LazyPages>;

#[cfg(test)]
#[cfg(not(any(miri, shuttle)))]
mod tests;
