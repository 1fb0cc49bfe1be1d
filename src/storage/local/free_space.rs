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

    /// The range that holds a page.
    fn holding(&self, place: Place) -> Option<(Place, u64)> {
        let (&(file, page), &end) = self.ranges.range(..=(place.file, place.page)).next_back()?;
        (file == place.file && place.page < end).then_some((Place { file, page }, end))
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

    /// Gives out pages; `None` if no file can hold as many or all files are full.
    pub(super) fn allocate(&mut self, wish: &Allocation) -> Option<Granted> {
        let pages = u64::from(wish.pages);
        let align = u64::from(wish.align_pages.max(1));
        let phase = u64::from(wish.phase_pages) % align;
        if let Some(granted) = wish.near.and_then(|near| self.take_near(near, pages)) {
            return Some(granted);
        }
        if let Some(place) = self.fitting(pages, align, phase) {
            self.take_free(place, pages);
            return Some(Granted { place, at_tail: false });
        }
        let mut place = Place { page: aligned(self.tail.page, align, phase)?, ..self.tail };
        if place.page.checked_add(pages)? > self.cap_pages {
            place = Place { file: place.file + 1, page: phase };
        }
        if phase + pages > self.cap_pages || place.file >= IN_LOG {
            return None;
        }
        self.advance_tail(place);
        self.tail = place.after(pages);
        Some(Granted { place, at_tail: true })
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
    fn fitting(&self, pages: u64, align: u64, phase: u64) -> Option<Place> {
        let fits = |&(len, file, page): &(u64, u32, u64)| {
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
        let first = space.allocate(&wish(8, 1, 0)).unwrap();
        let second = space.allocate(&wish(8, 1, 0)).unwrap();
        assert!(first.at_tail && second.at_tail);
        space.release(first.place, 8);
        let again = space.allocate(&wish(4, 1, 0)).unwrap();
        assert_eq!((again.place, again.at_tail), (first.place, false));
    }

    #[test]
    fn a_wish_that_continues_its_array_is_met_where_it_continues() {
        let mut space = FreeSpace::around(&Ranges::default(), 1 << 20);
        let first = space.allocate(&wish(512, 512, 0)).unwrap();
        let near = Some(first.place.after(512));
        let next = space.allocate(&Allocation { near, ..wish(512, 512, 0) }).unwrap();
        assert_eq!(next.place, first.place.after(512));
    }

    #[test]
    fn no_file_grows_above_its_cap() {
        let mut space = FreeSpace::around(&Ranges::default(), 10);
        assert_eq!(space.allocate(&wish(6, 1, 0)).unwrap().place, Place { file: 0, page: 0 });
        assert_eq!(space.allocate(&wish(6, 1, 0)).unwrap().place, Place { file: 1, page: 0 });
        assert_eq!(space.allocate(&wish(4, 1, 0)).unwrap().place, Place { file: 0, page: 6 });
        assert_eq!(space.allocate(&wish(11, 1, 0)), None);
    }

    proptest! {
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
                let place = space.allocate(&wish).unwrap().place;
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
        }
    }
}
