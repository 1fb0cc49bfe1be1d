//! What lies at which pages: file ranges and zeros placed into one reservation.
//!
//! ```text
//! place   [ at 0..4: A +0 ] [ at 4..8: A +4 ] [ at 8..10: hole ]      three runs
//!           '------- one mmap --------'         one mmap               neighbours are joined
//! result  | A +0 .. A +8 | zeros | closed ...... |                     3 kernel mappings
//! ```
//!
//! Why these kinds of [`Advice`]. The kernel reads ahead around every page that misses. That pays
//! within one file. Over blocks that lie scattered in a file it reads mostly what nobody asked for,
//! and out of core it thrashes (fact K-10). Random advice stops that, and huge-page advice makes
//! one miss fetch one aligned 2 MiB piece in one request (K-11). So [`Advice::Blocks`], which gives
//! both, is for everything that is read by the block. Single elements far apart want
//! [`Advice::Random`]: a miss costs one page (K-12); read in order, it is by far the slowest. Pages
//! that are in memory in large pieces are read equally fast with every advice. In a run of 16 MiB
//! and more `Blocks` leaves random advice away: the kernel reads two pieces at a miss and goes on
//! ahead of the reader (cold sum of 1 GiB in order against raw mmap: 0.81 before, 1.0 after).
//!
//! # Invariants
//!
//! 1. `runs` tells what lies at every page; its closed pages are those not in `mapped`.
//! 2. `taken` kernel mappings were taken from the budget and not given back. They are as many as
//!    `runs` counts, but for the moment after a failed change.
//! 3. Zeros are placed in small pages, also where the system makes huge pages by default: the
//!    first store to a huge page would make 512 pages dirty.
//!
//! # Failure
//!
//! `place` is refused as a whole before anything changes if it needs too many mappings or a file is
//! too short. If the kernel refuses in the middle, the runs before are placed, those after are not,
//! and the mapping stays usable.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use super::dirty::{self, Area, DirtyPages};
use super::lazy::{LazyPages, PageSource};
use super::pager::Pager;
use super::reservation::Reservation;
use super::runs::{FileId, Kind, Runs};
use super::sys::file::{self, FileFacts};
use super::sys::madvise;
use super::{Access, Label, MapError, VmaBudget};
use crate::units::{PAGE_BYTES, PageRange, PageSet};

/// How the pages of files in a mapping will be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// By the block, in any order: a miss reads an aligned 2 MiB piece, and more in long runs.
    Blocks,
    /// Single elements far apart: one miss reads one page.
    Random,
    /// From front to back: read far ahead.
    Sequential,
    /// The kernel's own guess.
    Normal,
}

impl Advice {
    const fn wishes(self, kind: Kind) -> &'static [madvise::Advice] {
        match self {
            Self::Blocks if kind.is_read_ahead() => &[madvise::Advice::HugePage],
            Self::Blocks => &[madvise::Advice::HugePage, madvise::Advice::Random],
            Self::Random => &[madvise::Advice::Random],
            Self::Sequential => &[madvise::Advice::Sequential],
            Self::Normal => &[],
        }
    }
}

/// What pages shall show.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Zeros that take no memory until they are written.
    Hole,
    /// The bytes of a file. They must not change, nor the file be cut off, while they are placed.
    File {
        /// The file, open for reading; it may be closed after it was placed.
        file: BorrowedFd<'a>,
        /// Where in the file, a multiple of the page size.
        offset_bytes: u64,
    },
    /// What the source of the mapping says, loaded when it is touched; see [`Mapping::set_source`].
    Lazy,
}

/// Pages of a reservation and what they shall show.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The pages, relative to the start of the reservation.
    pub at: PageRange,
    /// What they shall show.
    pub content: Content<'a>,
}

/// From 16 MiB on a run is read from front to back often enough to read ahead in it.
const LONG_PAGES: u64 = 1 << 12;

/// A run that is checked, and joined with its neighbours.
struct Placement<'a> {
    run: Run<'a>,
    kind: Kind,
}

/// A reservation with file ranges and zeros placed in it.
///
/// Dropping it unmaps everything and gives its share of the budget back.
#[derive(Debug)]
pub struct Mapping {
    reservation: Reservation,
    lazy: Option<Arc<LazyPages>>,
    advice: Advice,
    // Invariant 1.
    runs: Runs,
    budget: Arc<VmaBudget>,
    // Invariant 2.
    taken: u64,
}

impl Mapping {
    /// Reserves addresses for `pages` pages, all closed.
    ///
    /// # Errors
    ///
    /// [`MapError::AddressSpace`] if there are not so many addresses,
    /// [`MapError::TooManyMappings`] if the budget is used up.
    pub fn new(
        pages: u64,
        access: Access,
        advice: Advice,
        budget: &Arc<VmaBudget>,
    ) -> Result<Self, MapError> {
        let reservation = Reservation::new(pages, access)?;
        let runs = Runs::closed(pages);
        let budget = Arc::clone(budget);
        let mut mapping = Self { reservation, lazy: None, advice, runs, budget, taken: 0 };
        mapping.settle()?;
        Ok(mapping)
    }

    /// Says where the content of lazy pages comes from. Once for each mapping, before the first of
    /// them is placed.
    pub fn set_source(&mut self, source: Arc<dyn PageSource>, pager: &Arc<Pager>) {
        let (base, access) = (self.reservation.base(), self.reservation.access());
        let lazy = LazyPages::new(base, access, source, pager, &self.budget);
        if let Some(label) = self.reservation.label() {
            lazy.set_label(label);
        }
        self.lazy = Some(lazy);
    }

    /// Whether it has a source.
    #[must_use]
    pub const fn has_source(&self) -> bool {
        self.lazy.is_some()
    }

    #[cfg(test)]
    #[cfg(not(any(miri, shuttle)))]
    pub(super) fn lazy_pages(&self) -> Option<&Arc<LazyPages>> {
        self.lazy.as_ref()
    }

    /// Loads the lazy pages in `pages` that nobody has touched yet, several at a time, and waits
    /// for it. Where there are more than fit, the first of them may be put aside again.
    ///
    /// # Errors
    ///
    /// [`MapError::NotLoaded`] for the first that cannot be had.
    pub fn ensure(&self, pages: PageRange) -> Result<(), MapError> {
        self.lazy.as_ref().map_or(Ok(()), |lazy| lazy.ensure(pages))
    }

    /// Says that `pages` will be written: once loaded, they stay.
    pub fn keep(&self, pages: PageRange) {
        if let Some(lazy) = &self.lazy {
            lazy.keep(pages);
        }
    }

    /// Says that no page has a private copy any more, so that lazy ones may be put aside.
    pub fn keep_none(&self) {
        if let Some(lazy) = &self.lazy {
            lazy.keep_none();
        }
    }

    /// Shows `runs` at their pages, in place of what was there; private copies there are dropped.
    ///
    /// Runs are placed in the given order; neighbours that continue each other are placed by one
    /// kernel call, so give them ascending. Costs about three kernel calls per placed piece, and
    /// reads nothing.
    ///
    /// Where a hole is placed over pages whose committed content is not zeros, the caller must
    /// treat all of them as written: pages that read as zeros may not be reported dirty.
    ///
    /// # Errors
    ///
    /// [`MapError::Misaligned`], [`MapError::FileTooShort`] and [`MapError::TooManyMappings`]
    /// before anything has changed; [`MapError::OutOfMemory`] or [`MapError::System`] if the kernel
    /// refuses, after the runs before the refused one were placed.
    ///
    /// # Panics
    ///
    /// If a run is outside of the reservation.
    pub fn place(&mut self, runs: &[Run<'_>]) -> Result<(), MapError> {
        let mut placements = self.check_and_join(runs)?;
        let replaced: Vec<_> = placements
            .iter_mut()
            .map(|placement| {
                let at = placement.run.at;
                let is_long = self.advice == Advice::Blocks && at.count() >= LONG_PAGES;
                placement.kind = self.runs.joining(at, placement.kind, is_long);
                self.runs.replace(at, placement.kind)
            })
            .collect();
        if let Err(error) = self.settle() {
            self.take_back(&replaced);
            return Err(error);
        }
        for (index, placement) in placements.iter().enumerate() {
            if let Err(error) = self.map(placement) {
                self.take_back(&replaced[index..]);
                self.settle_after_failure(placement.run.at);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The pages that show something.
    #[must_use]
    pub const fn mapped(&self) -> &PageSet {
        self.reservation.mapped()
    }

    /// Drops the private copies in `pages`: they show what was placed again.
    ///
    /// # Errors
    ///
    /// [`MapError::System`] if the kernel refuses, for example on locked memory; some pages may
    /// have been dropped.
    pub fn discard(&mut self, pages: PageRange) -> Result<(), MapError> {
        let parts: Vec<PageRange> = self.mapped().iter_in(pages).collect();
        parts.into_iter().try_for_each(|part| self.reservation.drop_copies(part))
    }

    /// Closes `pages`: they show nothing, and hold no memory and no kernel mapping of their own.
    ///
    /// # Errors
    ///
    /// [`MapError::TooManyMappings`] if a run must be cut in two and the budget is used up;
    /// [`MapError::OutOfMemory`] if the kernel refuses. Nothing has changed then.
    ///
    /// # Panics
    ///
    /// If `pages` is outside of the reservation.
    pub fn unmap(&mut self, pages: PageRange) -> Result<(), MapError> {
        if pages.is_empty() {
            return Ok(());
        }
        assert!(pages.end <= self.pages(), "{pages:?} are outside of {} pages", self.pages());
        let replaced = [self.runs.replace(pages, Kind::Closed)];
        if let Err(error) = self.settle() {
            self.take_back(&replaced);
            return Err(error);
        }
        let closed = self.instead_of_lazy(pages, |this| this.reservation.close(pages));
        closed.inspect_err(|_| {
            self.take_back(&replaced);
            self.settle_after_failure(pages);
        })
    }

    /// Makes the mapping `pages` pages long in place; new pages are closed.
    ///
    /// Returns whether it has at least that many pages now. It does not if the addresses behind it
    /// are taken or the budget is used up; nothing has changed then.
    #[must_use]
    pub fn try_grow(&mut self, pages: u64) -> bool {
        let old = self.pages();
        // Closed pages behind mapped ones are one mapping more.
        let more = u64::from(pages > old && old > 0 && self.mapped().intersects(last_page(old)));
        if !self.budget.try_take(more) {
            return false;
        }
        self.taken += more;
        let grown = self.reservation.try_grow(pages);
        if grown {
            self.runs.grow(pages);
        } else {
            self.budget.give(more);
            self.taken -= more;
        }
        grown
    }

    /// Number of pages of the reservation.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.reservation.pages()
    }

    /// Address of page 0.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.reservation.base()
    }

    /// The pages of `within` that were written since they were placed, ascending and merged.
    ///
    /// Pages that are not mapped, or of a read-only mapping, are not written. One kernel call per
    /// mapped range of `within`; the cost grows with the pages that were touched there, so in huge
    /// views name the blocks that may be dirty.
    ///
    /// # Errors
    ///
    /// [`MapError::System`] if the kernel does not answer.
    pub fn dirty(&self, within: &PageSet) -> Result<Vec<PageRange>, MapError> {
        self.dirty_by(dirty::tracker(), within)
    }

    /// As [`Mapping::dirty`], found by `tracker`.
    ///
    /// # Errors
    ///
    /// As for [`Mapping::dirty`].
    pub fn dirty_by(
        &self,
        tracker: &dyn DirtyPages,
        within: &PageSet,
    ) -> Result<Vec<PageRange>, MapError> {
        if self.reservation.access() == Access::ReadOnly {
            return Ok(Vec::new());
        }
        let pages: Vec<PageRange> =
            within.iter().flat_map(|range| self.mapped().iter_in(range)).collect();
        tracker.written(&Area::new(&self.reservation, &self.runs), &pages)
    }

    /// The bytes of `pages`; the first use of a page may wait for the disk.
    ///
    /// # Panics
    ///
    /// If not all of `pages` is mapped.
    #[must_use]
    pub fn bytes(&self, pages: PageRange) -> &[u8] {
        self.reservation.bytes(pages)
    }

    /// The bytes of `pages`, to be written: the first store to a page makes it dirty.
    ///
    /// # Panics
    ///
    /// If not all of `pages` is mapped, or the mapping is read-only.
    #[must_use]
    pub fn bytes_mut(&mut self, pages: PageRange) -> &mut [u8] {
        self.keep(pages);
        self.reservation.bytes_mut(pages)
    }

    /// What to say on stderr if a page here cannot be read and the process ends by SIGBUS.
    pub fn set_label(&mut self, label: Label) {
        self.reservation.set_label(label);
    }

    /// Starts reading `pages` in the background. Best effort.
    pub fn will_need(&self, pages: PageRange) {
        if let Some(lazy) = &self.lazy {
            lazy.will_need(pages);
        }
        self.advise_mapped(pages, madvise::Advice::WillNeed);
    }

    /// Says that `pages` are not needed soon: of a read-only mapping they do not count as memory of
    /// this process until they are used again. Cost: as much as their first use has cost. Best
    /// effort.
    pub fn let_go(&self, pages: PageRange) {
        self.mapped().iter_in(pages).for_each(|part| self.reservation.let_go(part));
    }

    /// Asks for huge pages where `pages` are holes, because all of them will be overwritten.
    ///
    /// Filling a huge page costs a fraction of filling its 512 small ones (fact K-32), but its
    /// first store makes all 512 dirty. Best effort: without huge pages, or over budget, nothing
    /// changes.
    pub fn expect_overwrite(&mut self, pages: PageRange) {
        let small = Kind::Zeros { huge: false };
        for (range, kind) in self.runs.pieces_in(pages) {
            if kind != small {
                continue;
            }
            let replaced = [self.runs.replace(range, Kind::Zeros { huge: true })];
            let afford = self.settle().is_ok();
            if !afford || !self.reservation.advise(range, madvise::Advice::HugePage) {
                self.take_back(&replaced);
                self.settle_after_failure(range);
            }
        }
    }

    /// Kernel mappings that this mapping uses of its budget.
    #[must_use]
    pub fn vmas(&self) -> u64 {
        self.runs.count()
    }

    /// Checks `runs` against the reservation and their files, and joins neighbours.
    fn check_and_join<'a>(&self, runs: &[Run<'a>]) -> Result<Vec<Placement<'a>>, MapError> {
        let mut placements: Vec<Placement<'a>> = Vec::with_capacity(runs.len());
        let mut known = None;
        for &run in runs.iter().filter(|run| !run.at.is_empty()) {
            let pages = self.pages();
            assert!(run.at.end <= pages, "{:?} are outside of {pages} pages", run.at);
            let kind = kind_of(run, &mut known)?;
            match placements.last_mut() {
                Some(last) if last.run.at.end == run.at.start && last.kind == kind => {
                    last.run.at.end = run.at.end;
                }
                _ => placements.push(Placement { run, kind }),
            }
        }
        Ok(placements)
    }

    /// Places one run, with advice.
    fn map(&mut self, placement: &Placement<'_>) -> Result<(), MapError> {
        let Placement { run, kind } = *placement;
        let wishes = match run.content {
            Content::Hole => {
                self.instead_of_lazy(run.at, |this| this.reservation.place_zeros(run.at))?;
                [madvise::Advice::NoHugePage].as_slice()
            }
            Content::File { file, offset_bytes } => {
                let place =
                    |this: &mut Self| this.reservation.place_file(run.at, file, offset_bytes);
                self.instead_of_lazy(run.at, place)?;
                self.advice.wishes(kind)
            }
            Content::Lazy => {
                let Some(lazy) = &self.lazy else { return Err(MapError::NoSource) };
                lazy.open(run.at)?;
                self.reservation.placed(run.at);
                &[]
            }
        };
        for &wish in wishes {
            self.reservation.advise(run.at, wish);
        }
        Ok(())
    }

    /// Takes from the budget, or gives back, so that invariant 2 holds.
    fn settle(&mut self) -> Result<(), MapError> {
        let now = self.runs.count();
        let more = now.saturating_sub(self.taken);
        if !self.budget.try_take(more) {
            let needed = self.budget.used().saturating_add(more);
            return Err(MapError::TooManyMappings { needed, budget: self.budget.max() });
        }
        self.budget.give(self.taken.saturating_sub(now));
        self.taken = now;
        Ok(())
    }

    /// Restores invariants 1 and 2 after the kernel refused to change `pages`.
    fn settle_after_failure(&mut self, pages: PageRange) {
        for lost in self.mapped().missing_in(pages) {
            self.runs.replace(lost, Kind::Closed);
        }
        // What was placed half may need more than the budget has: then the next change settles.
        drop(self.settle());
    }

    /// Undoes replacements of `runs`, the last one first.
    fn take_back(&mut self, replaced: &[Vec<(PageRange, Kind)>]) {
        for &(range, kind) in replaced.iter().rev().flatten() {
            self.runs.replace(range, kind);
        }
    }

    /// Takes `pages` from what is lazy, does `change`, which places something else there, and
    /// only then lets go of what they showed: after a refusal it may still be there.
    fn instead_of_lazy(
        &mut self,
        pages: PageRange,
        change: impl FnOnce(&mut Self) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let pins = self.lazy.as_ref().map(|lazy| lazy.forget(pages));
        let changed = change(self);
        if changed.is_err() {
            // A leak, and no harm.
            std::mem::forget(pins);
        }
        changed
    }

    fn advise_mapped(&self, pages: PageRange, wish: madvise::Advice) {
        for part in self.mapped().iter_in(pages) {
            self.reservation.advise(part, wish);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the addresses go.
        if let Some(lazy) = &self.lazy {
            lazy.close();
        }
        self.budget.give(self.taken);
    }
}

const fn last_page(pages: u64) -> PageRange {
    PageRange::new(pages - 1, pages)
}

/// What `run` puts at its pages. `known` holds the file looked at last, which is mostly the next
/// one too.
fn kind_of(run: Run<'_>, known: &mut Option<(i32, FileFacts)>) -> Result<Kind, MapError> {
    let (file, offset_bytes) = match run.content {
        Content::Hole => return Ok(Kind::Zeros { huge: false }),
        Content::Lazy => return Ok(Kind::Lazy),
        Content::File { file, offset_bytes } => (file, offset_bytes),
    };
    let descriptor = file.as_raw_fd();
    let facts = match *known {
        Some((last, facts)) if last == descriptor => facts,
        _ => file::facts(file)?,
    };
    *known = Some((descriptor, facts));
    if !offset_bytes.is_multiple_of(PAGE_BYTES) {
        return Err(MapError::Misaligned { offset_bytes });
    }
    let end_bytes = offset_bytes.saturating_add(run.at.len_bytes());
    let FileFacts { device, inode, len_bytes } = facts;
    if end_bytes > len_bytes.next_multiple_of(PAGE_BYTES) {
        return Err(MapError::FileTooShort { offset_bytes, end_bytes, len_bytes });
    }
    let shift = (offset_bytes / PAGE_BYTES).wrapping_sub(run.at.start);
    Ok(Kind::File { file: FileId { descriptor, device, inode }, shift, ahead: false })
}

#[cfg(test)]
mod tests;
