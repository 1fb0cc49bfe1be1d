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
        let mut mapping = Self { reservation, advice, runs, budget: Arc::clone(budget), taken: 0 };
        mapping.settle()?;
        Ok(mapping)
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
        self.reservation.close(pages).inspect_err(|_| {
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
        self.reservation.bytes_mut(pages)
    }

    /// What to say on stderr if a page here cannot be read and the process ends by SIGBUS.
    pub fn set_label(&mut self, label: Label) {
        self.reservation.set_label(label);
    }

    /// Starts reading `pages` in the background. Best effort.
    pub fn will_need(&self, pages: PageRange) {
        self.advise_mapped(pages, madvise::Advice::WillNeed);
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
                self.reservation.place_zeros(run.at)?;
                [madvise::Advice::NoHugePage].as_slice()
            }
            Content::File { file, offset_bytes } => {
                self.reservation.place_file(run.at, file, offset_bytes)?;
                self.advice.wishes(kind)
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

    fn advise_mapped(&self, pages: PageRange, wish: madvise::Advice) {
        for part in self.mapped().iter_in(pages) {
            self.reservation.advise(part, wish);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.budget.give(self.taken);
    }
}

const fn last_page(pages: u64) -> PageRange {
    PageRange::new(pages - 1, pages)
}

/// What `run` puts at its pages. `known` holds the file looked at last, which is mostly the next
/// one too.
fn kind_of(run: Run<'_>, known: &mut Option<(i32, FileFacts)>) -> Result<Kind, MapError> {
    let Content::File { file, offset_bytes } = run.content else {
        return Ok(Kind::Zeros { huge: false });
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
mod tests {
    use super::*;
    use crate::vm::dirty::{PagemapRead, PagemapScan};
    use crate::vm::{memory_file, populate};
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::FileExt;

    const FILE_PAGES: u64 = 64;
    const PAGES: u64 = 48;

    /// A file whose page `i` is full of `first + i`.
    fn numbered_file(first: u8) -> OwnedFd {
        let memory = memory_file::create("numbered", FILE_PAGES * PAGE_BYTES).unwrap();
        let file = File::from(memory.try_clone().unwrap());
        for page in 0..FILE_PAGES {
            let number = first + u8::try_from(page).unwrap();
            file.write_all_at(&[number; 4096], page * PAGE_BYTES).unwrap();
        }
        memory_file::freeze(memory.as_fd()).unwrap();
        memory
    }

    fn file_run(at: PageRange, file: &OwnedFd, file_page: u64) -> Run<'_> {
        let offset_bytes = file_page * PAGE_BYTES;
        Run { at, content: Content::File { file: file.as_fd(), offset_bytes } }
    }

    fn hole(at: PageRange) -> Run<'static> {
        Run { at, content: Content::Hole }
    }

    fn pages(start: u64, end: u64) -> PageRange {
        PageRange::new(start, end)
    }

    fn everything() -> PageSet {
        [pages(0, 1 << 20)].into_iter().collect()
    }

    fn writable(pages: u64) -> Mapping {
        let budget = Arc::new(VmaBudget::with_max(1000));
        Mapping::new(pages, Access::CopyOnWrite, Advice::Blocks, &budget).unwrap()
    }

    /// The mappings of this process that the kernel lists inside of `mapping`; a fake lists none.
    fn vmas_listed(mapping: &Mapping) -> u64 {
        if cfg!(miri) {
            return mapping.vmas();
        }
        let start = mapping.base().addr().get();
        let end = start + usize::try_from(mapping.pages() * PAGE_BYTES).unwrap();
        let is_inside = |line: &&str| {
            let mut ends = line.split(['-', ' ']).map(|hex| usize::from_str_radix(hex, 16));
            ends.next().unwrap().unwrap() < end && start < ends.next().unwrap().unwrap()
        };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(is_inside).count() as u64
    }

    #[test]
    fn adjacent_runs_are_one_kernel_mapping() {
        let file = numbered_file(0);
        let mut mapping = writable(PAGES);
        let runs: Vec<_> = (0..8).map(|i| file_run(PageRange::at(i, 1), &file, 5 + i)).collect();
        mapping.place(&runs).unwrap();
        mapping.place(&[hole(pages(8, 10)), hole(pages(10, 12))]).unwrap();
        mapping.place(&[file_run(pages(12, 13), &file, 17)]).unwrap();
        assert_eq!(mapping.vmas(), 4);
        assert_eq!(vmas_listed(&mapping), 4);
        assert_eq!(mapping.budget.used(), 4);
        assert_eq!(mapping.bytes(pages(7, 9))[..4096], [12; 4096]);
        mapping.place(&[file_run(pages(8, 12), &file, 13)]).unwrap();
        assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (2, 2));
    }

    #[test]
    fn dropped_mapping_gives_its_budget_back() {
        let file = numbered_file(0);
        let budget = Arc::new(VmaBudget::with_max(10));
        let mut mapping = Mapping::new(PAGES, Access::ReadOnly, Advice::Random, &budget).unwrap();
        mapping.place(&[file_run(pages(3, 4), &file, 0)]).unwrap();
        assert_eq!(budget.used(), 3);
        drop(mapping);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn place_over_budget_changes_nothing_and_says_what_to_do() {
        let file = numbered_file(0);
        let budget = Arc::new(VmaBudget::with_max(4));
        let mut mapping =
            Mapping::new(PAGES, Access::CopyOnWrite, Advice::Normal, &budget).unwrap();
        mapping.place(&[file_run(pages(0, 4), &file, 0)]).unwrap();
        mapping.bytes_mut(pages(1, 2)).fill(99);
        let runs: Vec<_> = (0..4).map(|i| file_run(PageRange::at(i, 1), &file, 9 - i)).collect();
        let refused = mapping.place(&runs).unwrap_err();
        assert!(matches!(refused, MapError::TooManyMappings { needed: 5, budget: 4 }));
        assert!(refused.to_string().contains("view a smaller part"), "{refused}");
        assert_eq!((mapping.vmas(), budget.used()), (2, 2));
        assert_eq!(mapping.bytes(pages(1, 2)), [99; 4096]);
        assert_eq!(mapping.dirty(&everything()).unwrap(), [pages(1, 2)]);
    }

    #[test]
    fn run_that_the_file_does_not_hold_is_refused() {
        let file = numbered_file(0);
        let mut mapping = writable(PAGES);
        let beyond = mapping.place(&[file_run(pages(0, 2), &file, FILE_PAGES - 1)]);
        assert!(matches!(beyond, Err(MapError::FileTooShort { len_bytes: 0x40000, .. })));
        let content = Content::File { file: file.as_fd(), offset_bytes: 512 };
        let between = mapping.place(&[Run { at: pages(0, 1), content }]);
        assert!(matches!(between, Err(MapError::Misaligned { offset_bytes: 512 })));
        assert!(mapping.mapped().is_empty());
    }

    #[test]
    fn refused_run_leaves_the_runs_before_it_placed_and_the_rest_as_it_was() {
        let file = numbered_file(0);
        let write_only = tempfile::NamedTempFile::new().unwrap();
        write_only.as_file().set_len(4096).unwrap();
        let unreadable = File::options().write(true).open(write_only.path()).unwrap().into();
        let mut mapping = writable(PAGES);
        mapping.place(&[file_run(pages(10, 14), &file, 10)]).unwrap();
        mapping.bytes_mut(pages(12, 13)).fill(77);
        let refused = mapping.place(&[
            hole(pages(0, 1)),
            file_run(pages(12, 13), &unreadable, 0),
            hole(pages(13, 14)),
        ]);
        assert!(matches!(refused, Err(MapError::System { call: "mmap", .. })));
        assert_eq!(mapping.bytes(pages(0, 1)), [0; 4096]);
        assert_eq!(mapping.bytes(pages(12, 13)), [77; 4096]);
        assert_eq!(mapping.bytes(pages(13, 14)), [13; 4096]);
        assert_eq!((mapping.vmas(), mapping.budget.used()), (4, 4));
        assert_eq!(vmas_listed(&mapping), 4);
    }

    #[test]
    fn grown_mapping_counts_its_closed_end() {
        let file = numbered_file(0);
        let mut mapping = writable(512);
        mapping.place(&[file_run(pages(500, 512), &file, 0)]).unwrap();
        assert_eq!(mapping.vmas(), 2);
        if mapping.try_grow(513) {
            assert_eq!((mapping.vmas(), mapping.budget.used()), (3, 3));
            mapping.place(&[file_run(pages(512, 513), &file, 12)]).unwrap();
            assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (2, 2));
            assert_eq!(mapping.bytes(pages(511, 513))[4096..], [12; 4096]);
        }
        assert!(!mapping.try_grow(u64::MAX) && mapping.budget.used() == mapping.vmas());
    }

    #[test]
    fn read_only_mapping_has_no_dirty_pages() {
        let file = numbered_file(0);
        let (budget, access) = (Arc::new(VmaBudget::with_max(10)), Access::ReadOnly);
        let mut mapping = Mapping::new(PAGES, access, Advice::Sequential, &budget).unwrap();
        mapping.place(&[file_run(pages(0, 4), &file, 0), hole(pages(4, 8))]).unwrap();
        populate(mapping.bytes(pages(0, 8))).unwrap();
        assert_eq!(mapping.bytes(pages(3, 5))[4095..4097], [3, 0]);
        assert!(mapping.dirty(&everything()).unwrap().is_empty());
    }

    #[test]
    fn reading_ahead_dirties_nothing() {
        let file = numbered_file(0);
        let mut mapping = writable(PAGES);
        mapping.place(&[file_run(pages(0, 32), &file, 0), hole(pages(40, 44))]).unwrap();
        populate(mapping.bytes(pages(0, 32))).unwrap();
        populate(mapping.bytes(pages(40, 44))).unwrap();
        mapping.will_need(pages(0, PAGES));
        let dirty = |tracker| mapping.dirty_by(tracker, &everything()).unwrap();
        assert_eq!((dirty(&PagemapRead), dirty(dirty::tracker())), (vec![], vec![]));
    }

    #[test]
    fn hole_is_dirty_by_the_page_unless_an_overwrite_is_expected() {
        let mut mapping = writable(1024);
        mapping.place(&[hole(pages(0, 1024))]).unwrap();
        mapping.expect_overwrite(pages(512, 4096));
        assert_eq!((mapping.vmas(), mapping.budget.used()), (2, 2));
        for page in [3, 700] {
            mapping.bytes_mut(PageRange::at(page, 1))[0] = 1;
        }
        let found = mapping.dirty(&everything()).unwrap();
        assert_eq!(found[0], pages(3, 4));
        assert!(found[1] == pages(512, 1024) || found[1] == pages(700, 701), "{found:?}");
        assert_eq!(mapping.dirty_by(&PagemapRead, &everything()).unwrap(), found);
    }

    #[test]
    fn overwrite_expected_without_budget_changes_nothing() {
        let budget = Arc::new(VmaBudget::with_max(1));
        let mut mapping = Mapping::new(1024, Access::CopyOnWrite, Advice::Blocks, &budget).unwrap();
        mapping.place(&[hole(pages(0, 1024))]).unwrap();
        mapping.expect_overwrite(pages(0, 512));
        assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (1, 1));
        mapping.unmap(pages(5, 6)).unwrap_err();
        assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (1, 1));
        assert!(mapping.mapped().contains_range(pages(0, 1024)));
    }

    #[test]
    fn mapping_may_be_used_by_several_threads() {
        const fn shared<T: Send + Sync>() {}
        shared::<Mapping>();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Place { start: u64, parts: Vec<(u64, Option<(bool, u64)>)> },
        Write { page: u64, offset: usize, value: u8 },
        Read { page: u64 },
        Discard { range: PageRange },
        Unmap { range: PageRange },
    }

    fn range() -> impl Strategy<Value = PageRange> {
        (0..PAGES, 1u64..16).prop_map(|(start, count)| pages(start, (start + count).min(PAGES)))
    }

    fn step() -> impl Strategy<Value = Step> {
        let part = (1u64..6, prop::option::weighted(0.7, (any::<bool>(), 0u64..40)));
        let parts = prop::collection::vec(part, 1..5);
        let write = (0..PAGES, 0usize..4096, any::<u8>());
        prop_oneof![
            2 => (0..PAGES, parts).prop_map(|(start, parts)| Step::Place { start, parts }),
            4 => write.prop_map(|(page, offset, value)| Step::Write { page, offset, value }),
            1 => (0..PAGES).prop_map(|page| Step::Read { page }),
            1 => range().prop_map(|range| Step::Discard { range }),
            1 => range().prop_map(|range| Step::Unmap { range }),
        ]
    }

    /// A page as plain memory: what was placed, and the private copy if it was written.
    #[derive(Clone, Debug)]
    struct Page {
        placed: u8,
        copy: Option<Vec<u8>>,
    }

    struct World {
        files: [OwnedFd; 2],
        mapping: Mapping,
        model: Vec<Option<Page>>,
    }

    impl World {
        fn apply(&mut self, step: &Step) {
            match step {
                Step::Place { start, parts } => self.place(*start, parts),
                Step::Write { page, offset, value } => {
                    if let Some(known) = &mut self.model[usize::try_from(*page).unwrap()] {
                        let placed = known.placed;
                        known.copy.get_or_insert_with(|| vec![placed; 4096])[*offset] = *value;
                        self.mapping.bytes_mut(PageRange::at(*page, 1))[*offset] = *value;
                    }
                }
                Step::Read { page } => {
                    let parts = self.mapping.mapped().iter_in(PageRange::at(*page, 1));
                    parts.for_each(|page| populate(self.mapping.bytes(page)).unwrap());
                }
                Step::Discard { range } => {
                    self.mapping.discard(*range).unwrap();
                    self.known(*range).iter_mut().flatten().for_each(|page| page.copy = None);
                }
                Step::Unmap { range } => {
                    self.mapping.unmap(*range).unwrap();
                    self.known(*range).fill(None);
                }
            }
        }

        fn place(&mut self, mut at: u64, parts: &[(u64, Option<(bool, u64)>)]) {
            let mut runs = Vec::new();
            for &(count, content) in parts {
                let range = pages(at.min(PAGES), (at + count).min(PAGES));
                at = range.end;
                for page in range.start..range.end {
                    let placed = match content {
                        None => 0,
                        Some((second, first)) => {
                            100 * u8::from(second)
                                + u8::try_from(first + page - range.start).unwrap()
                        }
                    };
                    let page = usize::try_from(page).unwrap();
                    self.model[page] = Some(Page { placed, copy: None });
                }
                runs.push(match content {
                    None => hole(range),
                    Some((second, first)) => {
                        file_run(range, &self.files[usize::from(second)], first)
                    }
                });
            }
            self.mapping.place(&runs).unwrap();
        }

        fn known(&mut self, range: PageRange) -> &mut [Option<Page>] {
            let start = usize::try_from(range.start).unwrap();
            &mut self.model[start..usize::try_from(range.end).unwrap()]
        }

        fn check(&self) {
            let all = everything();
            let mut dirty = PageSet::new();
            for (page, known) in (0..).zip(&self.model) {
                let at = PageRange::at(page, 1);
                assert_eq!(self.mapping.mapped().contains_range(at), known.is_some());
                let Some(known) = known else { continue };
                if known.copy.is_some() {
                    dirty.insert(at);
                }
                let want = known.copy.clone().unwrap_or_else(|| vec![known.placed; 4096]);
                assert!(self.mapping.bytes(at) == want, "page {page}");
            }
            let want: Vec<PageRange> = dirty.iter().collect();
            assert_eq!(self.mapping.dirty_by(&PagemapRead, &all).unwrap(), want);
            if PagemapScan::works() {
                assert_eq!(self.mapping.dirty_by(&PagemapScan, &all).unwrap(), want);
            }
            assert_eq!(self.mapping.budget.used(), self.mapping.vmas());
            let listed = vmas_listed(&self.mapping);
            assert!(self.mapping.vmas() <= listed, "{:?}", self.mapping);
            if dirty.is_empty() {
                assert!(listed <= self.mapping.vmas() + 2, "{listed} {:?}", self.mapping);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn mapping_equals_plain_memory_and_both_ways_find_the_same_written_pages(
            steps in prop::collection::vec(step(), 1..40),
        ) {
            let files = [numbered_file(0), numbered_file(100)];
            let model = vec![None; usize::try_from(PAGES).unwrap()];
            let mut world = World { files, mapping: writable(PAGES), model };
            for step in &steps {
                world.apply(step);
                world.check();
            }
        }
    }
}
