//! Which pages of data files are free, and which of them an extent gets. Pure.
//!
//! ```text
//! file 0  |used| free |used| free, up to the cap |
//! file 1  |used|  free |used|^ tail: from here on everything is free
//! ```
//!
//! A wish is met, in this order: where it continues what lies before it; in the smallest free
//! range that holds it, because space that was written before costs a tenth of fresh space to
//! sync; at the tail.
//!
//! # Invariants
//!
//! 1. Free ranges ascend, are disjoint, do not touch and lie below the tail.
//! 2. No page is given out twice without having been released in between.

use std::collections::{BTreeMap, BTreeSet};

use crate::storage::engine::Allocation;
use crate::storage::extent::{IN_LOG, Place};

/// Ranges of pages of files, from which can be taken.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    // Ascending, disjoint, not touching: first page -> one past the last page.
    ranges: BTreeMap<(u32, u64), u64>,
}

impl Ranges {
    /// Adds pages.
    pub(super) fn insert(&mut self, place: Place, pages: u64) {
        if pages == 0 {
            return;
        }
        let (mut start, mut end) = (place.page, place.after(pages).page);
        while let Some((&(file, from), &to)) = self.ranges.range(..=(place.file, end)).next_back() {
            if file != place.file || to < start {
                break;
            }
            start = start.min(from);
            end = end.max(to);
            self.ranges.remove(&(file, from));
        }
        self.ranges.insert((place.file, start), end);
    }

    /// Takes pages out, if they are in.
    pub(super) fn remove(&mut self, place: Place, pages: u64) {
        if pages == 0 {
            return;
        }
        let (start, end) = (place.page, place.after(pages).page);
        while let Some((&(file, from), &to)) = self.ranges.range(..(place.file, end)).next_back() {
            if file != place.file || to <= start {
                break;
            }
            self.ranges.remove(&(file, from));
            if to > end {
                self.ranges.insert((file, end), to);
            }
            if from < start {
                self.ranges.insert((file, from), start);
            }
        }
    }

    /// Whether all these pages are in.
    pub(super) fn contains(&self, place: Place, pages: u64) -> bool {
        let end = place.after(pages).page;
        self.holding(place).is_some_and(|(_, to)| end <= to)
    }

    /// How many of these pages are in.
    pub(super) fn pages_in(&self, place: Place, pages: u64) -> u64 {
        let (start, end) = (place.page, place.after(pages).page);
        let before = self.ranges.range(..(place.file, start)).next_back();
        let before = before.filter(|&(&(file, _), _)| file == place.file);
        let inside = self.ranges.range((place.file, start)..(place.file, end));
        let overlap = |(from, to): (u64, u64)| to.min(end).saturating_sub(from.max(start));
        before.into_iter().chain(inside).map(|(&(_, from), &to)| overlap((from, to))).sum()
    }

    /// The parts of these pages that are in.
    fn overlaps(&self, place: Place, pages: u64) -> Vec<(Place, u64)> {
        let (start, end) = (place.page, place.after(pages).page);
        let before = self.ranges.range(..(place.file, start)).next_back();
        let before = before.filter(|&(&(file, _), _)| file == place.file);
        let inside = self.ranges.range((place.file, start)..(place.file, end));
        let overlap = |(&(file, from), &to): (&(u32, u64), &u64)| {
            let (from, to) = (from.max(start), to.min(end));
            (from < to).then(|| (Place { file, page: from }, to - from))
        };
        before.into_iter().chain(inside).filter_map(overlap).collect()
    }

    /// The range that holds a page.
    fn holding(&self, place: Place) -> Option<(Place, u64)> {
        let (&(file, page), &end) = self.ranges.range(..=(place.file, place.page)).next_back()?;
        (file == place.file && place.page < end).then_some((Place { file, page }, end))
    }

    /// Whether any page of file `file` is in.
    pub(super) fn has_file(&self, file: u32) -> bool {
        self.ranges.range((file, 0)..=(file, u64::MAX)).next().is_some()
    }

    /// First page and number of pages of each range, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, u64)> + '_ {
        self.ranges.iter().map(|(&(file, page), &end)| (Place { file, page }, end - page))
    }

    /// Number of pages.
    pub(super) fn pages(&self) -> u64 {
        self.iter().fold(0, |sum, (_, pages)| sum.saturating_add(pages))
    }
}

impl FromIterator<(Place, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (Place, u64)>>(all: I) -> Self {
        let mut ranges = Self::default();
        all.into_iter().for_each(|(place, pages)| ranges.insert(place, pages));
        ranges
    }
}

/// Candidates looked at among the ranges that may be too small once they are aligned.
const CANDIDATES_MAX: usize = 32;
/// Files without any used page, in a row, that are given out again. What is read from a disk may
/// say any number.
const UNUSED_FILES_MAX: usize = 1024;
/// Fresh files tried, one after the other, when all others belong to other processes.
const FRESH_FILES: usize = 2048;

/// The free pages of all data files.
pub(super) struct FreeSpace {
    cap_pages: u64,
    // Invariant 1.
    free: Ranges,
    // The same ranges by length.
    by_len: BTreeSet<(u64, u32, u64)>,
    tail: Place,
}

/// What was given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Granted {
    pub(super) place: Place,
    /// Whether it lay beyond everything that was ever used.
    pub(super) at_tail: bool,
}

impl FreeSpace {
    /// What `used` leaves free in files of `cap_pages` pages each.
    pub(super) fn around(used: &Ranges, cap_pages: u64) -> Self {
        let mut space = Self {
            cap_pages,
            free: Ranges::default(),
            by_len: BTreeSet::new(),
            tail: Place { file: 0, page: 0 },
        };
        for (place, pages) in used.iter() {
            space.advance_tail(place);
            space.tail = place.after(pages);
        }
        space
    }

    /// Everything between the tail and `to` is free and no longer tail.
    fn advance_tail(&mut self, to: Place) {
        if self.tail.file < to.file {
            self.insert_free(self.tail, self.cap_pages.saturating_sub(self.tail.page));
            for file in (self.tail.file + 1..to.file).take(UNUSED_FILES_MAX) {
                self.insert_free(Place { file, page: 0 }, self.cap_pages);
            }
            self.tail = Place { file: to.file, page: 0 };
        }
        self.insert_free(self.tail, to.page - self.tail.page);
        self.tail = to;
    }

    /// The place from which on everything is free.
    pub(super) fn tail(&self) -> Place {
        self.tail
    }

    /// The free ranges below the tail.
    pub(super) fn ranges(&self) -> &Ranges {
        &self.free
    }

    /// Gives out pages in one of the files `mine`; `None` if those have no room for as many.
    pub(super) fn allocate(&mut self, wish: &Allocation, mine: &BTreeSet<u32>) -> Option<Granted> {
        let pages = u64::from(wish.pages);
        let align = u64::from(wish.align_pages.max(1));
        let phase = u64::from(wish.phase_pages);
        let near = wish.near.filter(|near| mine.contains(&near.file));
        if let Some(granted) = near.and_then(|near| self.take_near(near, pages)) {
            return Some(granted);
        }
        if let Some(place) = self.fitting(pages, align, phase, mine) {
            self.take_free(place, pages);
            return Some(Granted { place, at_tail: false });
        }
        let place = self.at_tail(pages, align, phase).find(|place| mine.contains(&place.file))?;
        self.advance_tail(place);
        self.tail = place.after(pages);
        Some(Granted { place, at_tail: true })
    }

    /// The files in which a wish could be met, best first, whoever allocates in them now. The list
    /// ends in more fresh files than there can be processes.
    pub(super) fn files_for(&self, wish: &Allocation) -> Vec<u32> {
        let pages = u64::from(wish.pages);
        let align = u64::from(wish.align_pages.max(1));
        let sure = pages.saturating_add(align - 1);
        let mut files: Vec<u32> = wish.near.iter().map(|near| near.file).collect();
        let fitting: BTreeSet<u32> =
            self.by_len.range((sure, 0, 0)..).map(|&(_, file, _)| file).collect();
        files.extend(fitting);
        let tail = self.at_tail(pages, align, u64::from(wish.phase_pages));
        files.extend(tail.map(|place| place.file));
        files
    }

    /// Where the tail of each file from the last one on would hold the pages.
    fn at_tail(&self, pages: u64, align: u64, phase: u64) -> impl Iterator<Item = Place> + use<> {
        let (tail, cap) = (self.tail, self.cap_pages);
        let first = aligned(tail.page, align, phase).map(|page| Place { page, ..tail });
        let fresh = (1..).map_while(move |n| {
            let file = tail.file.checked_add(n).filter(|&file| file < IN_LOG)?;
            Some(Place { file, page: phase })
        });
        let fits = move |place: &Place| place.page.checked_add(pages).is_some_and(|end| end <= cap);
        let possible = phase.checked_add(pages).is_some_and(|end| end <= cap);
        let fresh = fresh.take(FRESH_FILES).take_while(move |_| possible);
        first.into_iter().filter(fits).chain(fresh)
    }

    /// Takes pages out that somebody else gave out, as far as they are in.
    pub(super) fn take(&mut self, place: Place, pages: u64) {
        let end = place.after(pages);
        let below = match (place.file, place.page) >= (self.tail.file, self.tail.page) {
            true => 0,
            false if place.file == self.tail.file => pages.min(self.tail.page - place.page),
            false => pages,
        };
        for (place, pages) in self.free.overlaps(place, below) {
            self.take_free(place, pages);
        }
        if (end.file, end.page) > (self.tail.file, self.tail.page) {
            self.advance_tail(place.after(below));
            self.tail = end;
        }
    }

    fn take_near(&mut self, near: Place, pages: u64) -> Option<Granted> {
        if self.free.contains(near, pages) {
            self.take_free(near, pages);
            return Some(Granted { place: near, at_tail: false });
        }
        let end = near.page.checked_add(pages)?;
        if near != self.tail || end > self.cap_pages {
            return None;
        }
        self.tail = near.after(pages);
        Some(Granted { place: near, at_tail: true })
    }

    /// A place for `pages` pages in the free ranges.
    fn fitting(&self, pages: u64, align: u64, phase: u64, mine: &BTreeSet<u32>) -> Option<Place> {
        let fits = |&(len, file, page): &(u64, u32, u64)| {
            if !mine.contains(&file) {
                return None;
            }
            let at = aligned(page, align, phase)?;
            (at + pages <= page + len).then_some(Place { file, page: at })
        };
        let smallest = self.by_len.range((pages, 0, 0)..).take(CANDIDATES_MAX).find_map(fits);
        // A range of this length holds the pages wherever it begins.
        let sure = pages.saturating_add(align - 1);
        smallest.or_else(|| self.by_len.range((sure, 0, 0)..).find_map(fits))
    }

    fn take_free(&mut self, place: Place, pages: u64) {
        let Some((start, end)) = self.free.holding(place) else {
            panic!("pages that are taken were free")
        };
        self.by_len.remove(&(end - start.page, start.file, start.page));
        self.free.remove(start, end - start.page);
        self.insert_free(start, place.page - start.page);
        let after = place.after(pages);
        self.insert_free(after, end - after.page);
    }

    /// Takes pages back that were given out.
    pub(super) fn release(&mut self, place: Place, pages: u64) {
        // A tail that is released entirely goes back, so that an aborted append costs nothing.
        if place.after(pages) == self.tail {
            self.tail = place;
            return;
        }
        self.insert_free(place, pages);
    }

    fn insert_free(&mut self, place: Place, pages: u64) {
        if pages == 0 {
            return;
        }
        for neighbour in [place.page.checked_sub(1), Some(place.after(pages).page)] {
            let Some(page) = neighbour else { continue };
            if let Some((start, end)) = self.free.holding(Place { page, ..place }) {
                self.by_len.remove(&(end - start.page, start.file, start.page));
            }
        }
        self.free.insert(place, pages);
        if let Some((start, end)) = self.free.holding(place) {
            self.by_len.insert((end - start.page, start.file, start.page));
        }
    }
}

/// The first page from `page` on that is `phase` modulo `align`.
fn aligned(page: u64, align: u64, phase: u64) -> Option<u64> {
    let ahead = (phase + align - page % align) % align;
    page.checked_add(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index as Pick;

    fn wish(pages: u32, align_pages: u32, phase_pages: u32) -> Allocation {
        Allocation { pages, align_pages, phase_pages, near: None }
    }

    #[test]
    fn space_that_was_released_is_given_out_before_fresh_space() {
        let mut space = FreeSpace::around(&Ranges::default(), 1 << 20);
        let first = space.allocate_alone(&wish(8, 1, 0)).unwrap();
        let second = space.allocate_alone(&wish(8, 1, 0)).unwrap();
        assert!(first.at_tail && second.at_tail);
        space.release(first.place, 8);
        let again = space.allocate_alone(&wish(4, 1, 0)).unwrap();
        assert_eq!((again.place, again.at_tail), (first.place, false));
    }

    #[test]
    fn a_wish_that_continues_its_array_is_met_where_it_continues() {
        let mut space = FreeSpace::around(&Ranges::default(), 1 << 20);
        let first = space.allocate_alone(&wish(512, 512, 0)).unwrap();
        let near = Some(first.place.after(512));
        let next = space.allocate_alone(&Allocation { near, ..wish(512, 512, 0) }).unwrap();
        assert_eq!(next.place, first.place.after(512));
    }

    #[test]
    fn no_file_grows_above_its_cap() {
        let mut space = FreeSpace::around(&Ranges::default(), 10);
        assert_eq!(space.allocate_alone(&wish(6, 1, 0)).unwrap().place, Place { file: 0, page: 0 });
        assert_eq!(space.allocate_alone(&wish(6, 1, 0)).unwrap().place, Place { file: 1, page: 0 });
        assert_eq!(space.allocate_alone(&wish(4, 1, 0)).unwrap().place, Place { file: 0, page: 6 });
        assert_eq!(space.allocate_alone(&wish(11, 1, 0)), None);
    }

    #[test]
    fn a_file_is_filled_to_its_last_page() {
        let mut space = FreeSpace::around(&Ranges::default(), 10);
        let place = |file, page| Some(Place { file, page });
        let allocated =
            |space: &mut FreeSpace, wish| space.allocate_alone(&wish).map(|got| got.place);
        assert_eq!(allocated(&mut space, wish(6, 1, 0)), place(0, 0));
        assert_eq!(allocated(&mut space, wish(4, 1, 0)), place(0, 6));
        assert_eq!(allocated(&mut space, wish(10, 1, 0)), place(1, 0));
        assert_eq!(allocated(&mut space, wish(3, 1, 0)), place(2, 0));
        let near = |page| Allocation { near: place(2, page), ..wish(7, 1, 0) };
        assert_eq!(allocated(&mut space, near(3)), place(2, 3), "it continues up to the end");
        assert_eq!(space.tail(), Place { file: 2, page: 10 });
    }

    /// Free: four pages in front, then sixteen up to the tail.
    fn with_a_smaller_range_in_front() -> FreeSpace {
        let used = [(4, 1), (21, 1)].map(|(page, pages)| (Place { file: 0, page }, pages));
        FreeSpace::around(&used.into_iter().collect(), 24)
    }

    #[test]
    fn what_continues_an_array_does_so_although_a_smaller_range_would_hold_it() {
        let mut space = with_a_smaller_range_in_front();
        let near = Some(Place { file: 0, page: 5 });
        let got = space.allocate_alone(&Allocation { near, ..wish(2, 1, 0) }).unwrap();
        assert_eq!((Some(got.place), got.at_tail), (near, false));
    }

    #[test]
    fn what_continues_an_array_at_the_tail_does_so_up_to_the_end_of_the_file() {
        let mut space = with_a_smaller_range_in_front();
        let near = Some(Place { file: 0, page: 22 });
        assert_eq!(near, Some(space.tail()));
        let got = space.allocate_alone(&Allocation { near, ..wish(2, 1, 0) }).unwrap();
        assert_eq!((Some(got.place), got.at_tail), (near, true));
        assert_eq!(space.tail(), Place { file: 0, page: 24 });
    }

    #[test]
    fn a_file_is_asked_for_if_a_range_of_it_holds_the_pages_wherever_it_begins() {
        let used = [(0, 7), (0, 8), (0, 9), (1, 0)].map(|(file, page)| (Place { file, page }, 1));
        let space = FreeSpace::around(&used.into_iter().collect(), 10);
        assert_eq!(space.files_for(&wish(4, 4, 0))[..2], [0, 1], "seven pages hold them");
        assert_eq!(space.files_for(&wish(5, 4, 0))[..2], [1, 2], "seven pages may not");
    }

    #[test]
    fn no_data_file_has_a_number_that_says_that_it_is_the_log() {
        let last = Place { file: IN_LOG - 1, page: 9 };
        let space = FreeSpace::around(&[(last, 1)].into_iter().collect(), 10);
        let files = space.files_for(&wish(11, 1, 0));
        assert!(files.iter().all(|&file| file < IN_LOG), "{files:?}");
        let files = space.files_for(&wish(10, 1, 0));
        assert!(files.iter().all(|&file| file < IN_LOG), "{files:?}");
    }

    #[test]
    fn what_would_continue_beyond_the_end_of_a_file_begins_the_next() {
        let mut space = FreeSpace::around(&Ranges::default(), 10);
        let first = space.allocate_alone(&wish(6, 1, 0)).unwrap();
        let near = Some(first.place.after(6));
        let next = space.allocate_alone(&Allocation { near, ..wish(5, 1, 0) }).unwrap();
        assert_eq!(next.place, Place { file: 1, page: 0 });
    }

    #[test]
    fn a_range_long_enough_wherever_it_begins_is_found_behind_many_that_are_not() {
        let mut used = Ranges::default();
        // Free: three pages none of which is a multiple of 4, again and again; then four pages.
        let short = 4 * CANDIDATES_MAX as u64 + 8;
        (0..=short / 4).for_each(|n| used.insert(Place { file: 0, page: 4 * n }, 1));
        let long = Place { file: 0, page: short + 1 };
        used.insert(long.after(4), 1);
        let mut space = FreeSpace::around(&used, 1 << 20);
        let got = space.allocate_alone(&wish(1, 4, 0)).unwrap();
        assert_eq!((got.place, got.at_tail), (Place { page: short + 4, ..long }, false));
    }

    impl FreeSpace {
        /// Gives out pages when no other process has a file.
        fn allocate_alone(&mut self, wish: &Allocation) -> Option<Granted> {
            let all = self.files_for(wish).into_iter().chain(0..4).collect();
            self.allocate(wish, &all)
        }

        /// Number of pages below the tail.
        fn below_tail(&self) -> u64 {
            u64::from(self.tail.file) * self.cap_pages + self.tail.page
        }
    }

    #[test]
    fn what_others_have_is_left_to_them() {
        let mut space = FreeSpace::around(&Ranges::default(), 10);
        let mine = BTreeSet::from([1]);
        let got = |space: &mut FreeSpace| space.allocate(&wish(4, 1, 0), &mine).map(|g| g.place);
        assert_eq!(got(&mut space), Some(Place { file: 1, page: 0 }));
        assert_eq!(got(&mut space), Some(Place { file: 1, page: 4 }));
        assert_eq!(got(&mut space), None, "file 1 is full, and file 0 is not ours");
        assert_eq!(space.files_for(&wish(4, 1, 0))[..3], [0, 2, 3]);
    }

    proptest! {
        #[test]
        fn what_others_gave_out_is_not_given_out_again(
            taken in prop::collection::vec((0u32..3, 0u64..90, 1u64..10), 1..12),
            wishes in prop::collection::vec(1u32..20, 1..12),
        ) {
            let mut space = FreeSpace::around(&Ranges::default(), 100);
            let mut model = Ranges::default();
            let taken = taken.into_iter().map(|(file, page, n)| (Place { file, page }, n));
            let wishes = wishes.into_iter().map(Some).chain(std::iter::repeat(None));
            for ((place, pages), pages_wanted) in taken.zip(wishes) {
                space.take(place, pages);
                model.insert(place, pages);
                if let Some(wanted) = pages_wanted {
                    let got = space.allocate_alone(&wish(wanted, 1, 0)).unwrap().place;
                    prop_assert_eq!(model.pages_in(got, u64::from(wanted)), 0);
                    model.insert(got, u64::from(wanted));
                }
                for (place, pages) in space.ranges().iter() {
                    prop_assert_eq!(model.pages_in(place, pages), 0, "free and taken");
                }
                let known = model.pages() + space.ranges().pages();
                prop_assert_eq!(known, space.below_tail(), "nothing is lost");
                for (place, pages) in model.iter() {
                    let (end, tail) = (place.after(pages), space.tail());
                    prop_assert!((end.file, end.page) <= (tail.file, tail.page));
                }
            }
        }

        #[test]
        fn ranges_equal_a_set_of_pages(
            steps in prop::collection::vec((any::<bool>(), 0u32..2, 0u64..20, 0u64..8), 0..24),
            probe in (0u32..2, 0u64..20, 0u64..8),
        ) {
            let pages = |file: u32, page, n| (page..page + n).map(move |page| (file, page));
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (insert, file, page, n) in steps {
                let place = Place { file, page };
                if insert {
                    ranges.insert(place, n);
                    model.extend(pages(file, page, n));
                } else {
                    ranges.remove(place, n);
                    model.retain(|page| !pages(file, place.page, n).any(|gone| gone == *page));
                }
            }
            let all: Vec<(u32, u64)> =
                ranges.iter().flat_map(|(at, n)| pages(at.file, at.page, n)).collect();
            prop_assert_eq!(&all, &model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.pages(), model.len() as u64);
            let (file, page, n) = probe;
            let inside = pages(file, page, n).filter(|page| model.contains(page)).count() as u64;
            prop_assert_eq!(ranges.pages_in(Place { file, page }, n), inside);
            prop_assert_eq!(ranges.contains(Place { file, page }, n.max(1)), {
                pages(file, page, n.max(1)).all(|page| model.contains(&page))
            });
            let gaps = ranges.iter().zip(ranges.iter().skip(1));
            for ((at, n), (next, _)) in gaps {
                prop_assert!(n > 0 && (at.file < next.file || at.page + n < next.page));
            }
        }

        #[test]
        fn pages_given_out_are_aligned_inside_their_file_and_given_out_once(
            used in prop::collection::vec((0u32..2, 0u64..90, 1u64..10), 0..6),
            steps in prop::collection::vec(
                (any::<bool>(), 1u32..20, 0u32..4, 0u32..8, any::<bool>(), any::<Pick>()),
                1..60,
            ),
        ) {
            const CAP: u64 = 100;
            let used: Ranges =
                used.into_iter().map(|(file, page, n)| (Place { file, page }, n)).collect();
            let mut taken = used.clone();
            let mut space = FreeSpace::around(&used, CAP);
            let mut given: Vec<(Place, u64)> = Vec::new();
            for (free, pages, align, phase, near, pick) in steps {
                if free && !given.is_empty() {
                    let (place, pages) = given.swap_remove(pick.index(given.len()));
                    space.release(place, pages);
                    taken.remove(place, pages);
                    continue;
                }
                let (align, phase) = (1 << align, phase % (1 << align));
                let last = given.last().filter(|_| near).map(|(place, n)| place.after(*n));
                let wish = Allocation { near: last, ..wish(pages, align, phase) };
                let place = space.allocate_alone(&wish).unwrap().place;
                let pages = u64::from(pages);
                prop_assert!(place.page + pages <= CAP);
                prop_assert!(
                    Some(place) == last || place.page % u64::from(align) == u64::from(phase)
                );
                for page in place.page..place.page + pages {
                    prop_assert!(!taken.contains(Place { page, ..place }, 1), "given out twice");
                }
                taken.insert(place, pages);
                given.push((place, pages));
            }
            for (place, pages) in space.ranges().iter() {
                for page in place.page..place.page + pages {
                    prop_assert!(!taken.contains(Place { page, ..place }, 1), "free and taken");
                }
                let lens = space.by_len.contains(&(pages, place.file, place.page));
                prop_assert!(lens, "the two sides agree");
            }
            prop_assert_eq!(space.by_len.len(), space.ranges().iter().count());
            let known = taken.pages() + space.ranges().pages();
            prop_assert_eq!(known, space.below_tail(), "nothing is lost");
        }
    }
}
