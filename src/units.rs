//! Numbers with a meaning: pages, page ranges, sets of pages, transaction and array ids.
//!
//! ```text
//! array bytes   0        4096      8192                     the linear bytes of one array
//!               | page 0 | page 1  | page 2 ...             PageRange { start: 1, end: 3 }
//! ```
//!
//! # Invariants
//!
//! 1. A [`PageRange`] never ends before it starts.
//! 2. The ranges of a [`PageSet`] ascend, are not empty, and neither overlap nor touch.

use std::collections::BTreeMap;
use std::fmt;

/// Size of a page in bytes: the unit of change, of conflict and of mapping.
pub const PAGE_BYTES: u64 = 4096;
/// The same for lengths of slices.
pub const PAGE_LEN: usize = 4096;

/// Most pages of an array, whose bytes are counted in 64 bits.
pub const ARRAY_PAGES_MAX: u64 = 1 << 52;

/// Smallest block size in bytes.
pub const BLOCK_BYTES_MIN: u64 = 64 << 10;
/// Largest block size in bytes.
pub const BLOCK_BYTES_MAX: u64 = 1 << 30;
/// Block size in bytes where nobody chose another one.
pub const BLOCK_BYTES_DEFAULT: u64 = 2 << 20;

/// Position in the commit log: 0 is the empty store, commits are 1, 2, 3 without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tid(pub u64);

impl Tid {
    /// The store before its first commit.
    pub const ZERO: Self = Self(0);
    /// More commits than any store has. What is read from a disk may say any number, and there
    /// must always be a next one.
    pub const BELIEVED_MAX: Self = Self(1 << 62);

    /// The transaction id after this one.
    ///
    /// # Panics
    ///
    /// If 2^64 commits were made.
    #[must_use]
    pub fn next(self) -> Self {
        assert!(self.0 < u64::MAX, "transaction ids are exhausted");
        Self(self.0 + 1)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tid {}", self.0)
    }
}

/// Identity of an array for the life of its store; never used again after the array was removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArrayId(pub u64);

impl ArrayId {
    /// More arrays than any store has had. What is read from a disk may say any number.
    pub const BELIEVED_MAX: Self = Self(1 << 62);
}

impl fmt::Display for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "array #{}", self.0)
    }
}

/// A half-open range of pages of one array or of one reservation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    /// First page.
    pub start: u64,
    /// One past the last page.
    pub end: u64,
}

impl PageRange {
    /// The pages `start..end`.
    ///
    /// # Panics
    ///
    /// If `end < start` (invariant 1).
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        assert!(start <= end, "a page range ends before it starts");
        Self { start, end }
    }

    /// `count` pages from `start`.
    ///
    /// # Panics
    ///
    /// If the end is above 2^64.
    #[must_use]
    pub const fn at(start: u64, count: u64) -> Self {
        match start.checked_add(count) {
            Some(end) => Self { start, end },
            None => panic!("a page range ends above 2^64"),
        }
    }

    /// The pages that hold any of the bytes `start_byte..end_byte`; none if that range is empty.
    #[must_use]
    pub const fn covering(start_byte: u64, end_byte: u64) -> Self {
        if start_byte >= end_byte {
            let page = start_byte / PAGE_BYTES;
            return Self { start: page, end: page };
        }
        Self { start: start_byte / PAGE_BYTES, end: end_byte.div_ceil(PAGE_BYTES) }
    }

    /// Number of pages.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.end - self.start
    }

    /// Size in bytes.
    #[must_use]
    pub const fn len_bytes(self) -> u64 {
        self.count() * PAGE_BYTES
    }

    /// Offset of the first byte.
    #[must_use]
    pub const fn start_byte(self) -> u64 {
        self.start * PAGE_BYTES
    }

    /// Whether there is no page in the range.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The pages in both ranges, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }

    /// Whether every page of `other` is in this range.
    #[must_use]
    pub const fn contains_range(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages {}..{}", self.start, self.end)
    }
}

/// A set of pages as disjoint ranges. Operations cost O(log ranges + ranges touched).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PageSet {
    // Invariant 2: start -> end, ascending, disjoint, not touching, not empty.
    ranges: BTreeMap<u64, u64>,
}

impl PageSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// Whether no page is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds the pages of `range`.
    pub fn insert(&mut self, range: PageRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&from, &to)) = self.ranges.range(..=end).next_back() {
            if to < start {
                break;
            }
            start = start.min(from);
            end = end.max(to);
            self.ranges.remove(&from);
        }
        self.ranges.insert(start, end);
    }

    /// Takes the pages of `range` out.
    pub fn remove(&mut self, range: PageRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&from, &to)) = self.ranges.range(..range.end).next_back() {
            if to <= range.start {
                break;
            }
            self.ranges.remove(&from);
            if to > range.end {
                self.ranges.insert(range.end, to);
            }
            if from < range.start {
                self.ranges.insert(from, range.start);
            }
        }
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PageRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| PageRange { start, end })
    }

    /// The parts of the set that lie in `range`, ascending.
    pub fn iter_in(&self, range: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        let before = self.ranges.range(..range.start).next_back();
        before
            .into_iter()
            .chain(self.ranges.range(range.start..range.end))
            .filter_map(move |(&start, &end)| PageRange { start, end }.intersection(range))
    }

    /// The parts of `range` that are not in the set, ascending.
    #[must_use]
    pub fn missing_in(&self, range: PageRange) -> Vec<PageRange> {
        let mut missing = Vec::new();
        let mut at = range.start;
        for present in self.iter_in(range) {
            if at < present.start {
                missing.push(PageRange { start: at, end: present.start });
            }
            at = present.end;
        }
        if at < range.end {
            missing.push(PageRange { start: at, end: range.end });
        }
        missing
    }

    /// Whether any page of `range` is in the set.
    #[must_use]
    pub fn intersects(&self, range: PageRange) -> bool {
        self.iter_in(range).next().is_some()
    }

    /// Whether every page of `range` is in the set.
    #[must_use]
    pub fn contains_range(&self, range: PageRange) -> bool {
        range.is_empty() || self.iter_in(range).next() == Some(range)
    }

    /// Number of pages in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// Number of separate ranges.
    #[must_use]
    pub fn ranges_count(&self) -> usize {
        self.ranges.len()
    }
}

impl fmt::Debug for PageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<PageRange> for PageSet {
    fn from_iter<I: IntoIterator<Item = PageRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn covering_takes_every_page_that_holds_a_byte_of_the_range() {
        assert_eq!(PageRange::covering(0, 1), PageRange::new(0, 1));
        assert_eq!(PageRange::covering(4095, 4097), PageRange::new(0, 2));
        assert_eq!(PageRange::covering(4096, 8192), PageRange::new(1, 2));
        assert!(PageRange::covering(5000, 5000).is_empty());
    }

    proptest! {
        #[test]
        fn page_set_equals_a_set_of_single_pages(
            steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 1..40),
            probe in (0u64..60, 0u64..20),
        ) {
            let mut set = PageSet::new();
            let mut model = BTreeSet::new();
            for (add, start, count) in steps {
                let range = PageRange::at(start, count);
                if add {
                    set.insert(range);
                    model.extend(range.start..range.end);
                } else {
                    set.remove(range);
                    model.retain(|page| !(range.start..range.end).contains(page));
                }
                let pages: BTreeSet<u64> = set.iter().flat_map(|r| r.start..r.end).collect();
                prop_assert_eq!(&pages, &model);
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            }
            let probe = PageRange::at(probe.0, probe.1);
            let inside: Vec<u64> = set.iter_in(probe).flat_map(|r| r.start..r.end).collect();
            let outside: Vec<u64> =
                set.missing_in(probe).iter().flat_map(|r| r.start..r.end).collect();
            let (want_in, want_out): (Vec<u64>, Vec<u64>) =
                (probe.start..probe.end).partition(|page| model.contains(page));
            prop_assert_eq!(set.intersects(probe), !want_in.is_empty());
            prop_assert_eq!(set.contains_range(probe), want_out.is_empty());
            prop_assert_eq!(inside, want_in);
            prop_assert_eq!(outside, want_out);
            prop_assert_eq!(set.count(), model.len() as u64);
        }
    }
}
