//! Extents: runs of bytes that were written once, and the checksums that prove them.
//!
//! ```text
//! as it lies   ... | unit 0            | unit 1            | unit 2    | ...
//!                  ^ place             sums[1]                         ^ place + pages
//! encoded      ... | one unit | ...      fewer pages than the content has: must be decoded
//!                  ^ place    ^ place + stored pages
//! ```
//!
//! # Invariants
//!
//! 1. A committed extent never changes: nobody overwrites, truncates or punches it while any
//!    snapshot names it. Views borrow its bytes as `&[T]`, so this is a rule of memory safety.
//! 2. There is exactly one checksum for each unit, and every unit but the last is whole.
//! 3. An encoded extent has one unit, is shorter than its content and does not lie in the log.
//! 4. Checksums and headers lie elsewhere, so that extents keep the alignment of huge pages.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::units::{PAGE_LEN, PageRange};

/// Most pages of one extent: 1 GiB.
pub const EXTENT_PAGES_MAX: u32 = 1 << 18;

/// Most pages of content of an encoded extent: 2 MiB, which are decoded at once.
pub const ENCODED_PAGES_MAX: u32 = 1 << 9;

/// Most pages of a file, whose bytes the system counts in 63 bits.
pub const FILE_PAGES_MAX: u64 = 1 << 51;

/// The bit of [`Place::file`] that says: inside the commit log, as the data of a small commit.
pub const IN_LOG: u32 = 1 << 31;

/// Where an extent begins. Only the engine that gave it out knows what it means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// File, tree or other container of the engine.
    pub file: u32,
    /// Page within it.
    pub page: u64,
}

impl Place {
    /// Whether it lies inside the commit log, whose space nobody gives out.
    #[must_use]
    pub fn in_log(self) -> bool {
        self.file & IN_LOG != 0
    }

    /// The place `pages` further on in the same file.
    ///
    /// # Panics
    ///
    /// If that is above 2^64.
    #[must_use]
    pub fn after(self, pages: u64) -> Self {
        let Some(page) = self.page.checked_add(pages) else {
            panic!("a place lies above 2^64 pages")
        };
        Self { file: self.file, page }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {:#x} page {}", self.file, self.page)
    }
}

/// In the number that says the units of an extent: it is encoded, in as many pages as the rest
/// says.
const ENCODED: u32 = 1 << 31;

/// A run of pages written once, with one CRC-32 for each unit.
#[derive(Clone, PartialEq, Eq)]
pub struct Extent {
    place: Place,
    pages: u32,
    // Pages of a unit, or `ENCODED` and the pages it takes. Invariants 2 and 3.
    units: u32,
    sums: Box<[u32]>,
}

impl Extent {
    /// An extent of `pages` pages at `place` with one checksum for each `units` pages, or, if
    /// `units` says so, an encoded one; see [`units_word`](Self::units_word).
    ///
    /// `None` if the numbers do not fit each other (invariant 2), or the extent is empty, longer
    /// than [`EXTENT_PAGES_MAX`] or in no file there can be: what a disk says may be anything.
    #[must_use]
    pub fn new(place: Place, pages: u32, units: u32, sums: Box<[u32]>) -> Option<Self> {
        let stored_pages = if units & ENCODED == 0 { pages } else { units & !ENCODED };
        let fits = (1..=EXTENT_PAGES_MAX).contains(&pages)
            && units & !ENCODED > 0
            && (units & ENCODED == 0 || (stored_pages < pages && pages <= ENCODED_PAGES_MAX))
            && (units & ENCODED == 0 || !place.in_log())
            && sums.len() == Self::units_count(pages, units)
            && place.page.saturating_add(u64::from(stored_pages)) <= FILE_PAGES_MAX;
        // An extent of one unit says its own length, so that equal neighbours can be joined.
        let units = if units & ENCODED == 0 { units.min(pages) } else { units };
        fits.then_some(Self { place, pages, units, sums })
    }

    /// An extent whose `pages` pages of content are encoded in `stored_pages` at `place`.
    ///
    /// `None` as for [`new`](Self::new), and if it is not shorter than its content.
    #[must_use]
    pub fn encoded(place: Place, pages: u32, stored_pages: u32, sum: u32) -> Option<Self> {
        let units = (stored_pages < ENCODED).then_some(stored_pages | ENCODED)?;
        Self::new(place, pages, units, Box::from([sum]))
    }

    /// How many checksums an extent of `pages` pages has whose units are `units`; 0 if there is no
    /// such extent.
    #[must_use]
    pub fn units_count(pages: u32, units: u32) -> usize {
        match units {
            0 => 0,
            _ if units & ENCODED != 0 => 1,
            unit_pages => pages.div_ceil(unit_pages) as usize,
        }
    }

    /// Pages of a unit in one number, or that the extent is encoded and in how many pages: what
    /// [`new`](Self::new) takes.
    #[must_use]
    pub fn units_word(&self) -> u32 {
        self.units
    }

    /// Whether the content must be decoded.
    #[must_use]
    pub fn is_encoded(&self) -> bool {
        self.units & ENCODED != 0
    }

    /// Pages that it takes where it lies.
    #[must_use]
    pub fn stored_pages(&self) -> u32 {
        if self.is_encoded() { self.units & !ENCODED } else { self.pages }
    }

    /// The pages of unit `unit` where it lies, from [`place`](Self::place) on.
    #[must_use]
    pub fn stored_unit(&self, unit: u32) -> Range<u32> {
        if self.is_encoded() { 0..self.stored_pages() } else { self.unit(unit) }
    }

    /// Where the extent begins.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Length of its content in pages.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Length of a unit in pages; the last unit may be shorter.
    #[must_use]
    pub fn unit_pages(&self) -> u32 {
        if self.is_encoded() { self.pages } else { self.units }
    }

    /// The CRC-32 of each unit.
    #[must_use]
    pub fn sums(&self) -> &[u32] {
        &self.sums
    }

    /// The pages of the content that unit `unit` holds.
    #[must_use]
    pub fn unit(&self, unit: u32) -> Range<u32> {
        let start = unit * self.unit_pages();
        start..(start + self.unit_pages()).min(self.pages)
    }

    /// The units that hold any of the pages `pages` of the extent.
    #[must_use]
    pub fn units_of(&self, pages: Range<u32>) -> Range<u32> {
        pages.start / self.unit_pages()..pages.end.div_ceil(self.unit_pages())
    }

    /// Whether the extent lies in the log and reaches behind `end`: nobody knows yet what will lie
    /// there, and a torn tail is cut off under who maps it.
    #[must_use]
    pub fn is_ahead(&self, end: Place) -> bool {
        let last = self.place.after(u64::from(self.stored_pages()));
        last.in_log() && (last.file, last.page) > (end.file, end.page)
    }

    /// Whether `next` continues this extent in the same file, so that both can be written as one.
    #[must_use]
    pub fn joins(&self, next: &Self) -> bool {
        !self.is_encoded()
            && !next.is_encoded()
            && self.pages.is_multiple_of(self.units)
            && (self.units == next.units || (next.sums.len() == 1 && next.pages <= self.units))
            && self.place.after(u64::from(self.pages)) == next.place
            && self.pages.checked_add(next.pages).is_some_and(|sum| sum <= EXTENT_PAGES_MAX)
    }

    /// This extent and `next` as one.
    ///
    /// # Panics
    ///
    /// If they do not [join](Self::joins).
    #[must_use]
    pub fn joined(&self, next: &Self) -> Self {
        assert!(self.joins(next), "these extents do not continue each other");
        let sums = self.sums.iter().chain(&next.sums).copied().collect();
        let (place, units) = (self.place, self.units);
        Self { place, pages: self.pages + next.pages, units, sums }
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pages, place) = (self.pages, self.place);
        match self.is_encoded() {
            true => write!(f, "{pages} pages encoded in {} at {place:?}", self.stored_pages()),
            false => write!(f, "{pages} pages at {place:?} in units of {}", self.units),
        }
    }
}

/// What pages of an array contain.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Never written, or given up: zeros or the array's fill value.
    Hole,
    /// The pages of `extent` from `skip` on.
    Extent {
        /// The extent.
        extent: Arc<Extent>,
        /// Pages of the extent before the first one meant.
        skip: u32,
    },
}

impl Source {
    /// The whole of `extent`.
    #[must_use]
    pub fn whole(extent: Extent) -> Self {
        Self::Extent { extent: Arc::new(extent), skip: 0 }
    }

    /// The extent; `None` for a hole.
    #[must_use]
    pub fn extent(&self) -> Option<&Arc<Extent>> {
        match self {
            Self::Hole => None,
            Self::Extent { extent, .. } => Some(extent),
        }
    }

    /// The same source `pages` further on.
    ///
    /// # Panics
    ///
    /// If the extent has not that many pages.
    #[must_use]
    pub fn skipping(&self, pages: u64) -> Self {
        match self {
            Self::Hole => Self::Hole,
            Self::Extent { extent, skip } => {
                let skip = u32::try_from(u64::from(*skip) + pages).ok();
                let Some(skip) = skip.filter(|&skip| skip < extent.pages) else {
                    panic!("a segment is longer than its extent")
                };
                Self::Extent { extent: Arc::clone(extent), skip }
            }
        }
    }

    /// Where the first page lies; `None` for a hole, and where the content does not lie as it is.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Extent { extent, skip } if !extent.is_encoded() => {
                Some(extent.place.after(u64::from(*skip)))
            }
            _ => None,
        }
    }

    /// Pages from here to the end of the extent; `None` for a hole, which never ends.
    #[must_use]
    pub fn pages_left(&self) -> Option<u64> {
        match self {
            Self::Hole => None,
            Self::Extent { extent, skip } => Some(u64::from(extent.pages.saturating_sub(*skip))),
        }
    }

    /// Whether `next`, after `pages` pages of this source, continues it in the same extent.
    #[must_use]
    pub fn continues(&self, pages: u64, next: &Self) -> bool {
        match (self, next) {
            (Self::Hole, Self::Hole) => true,
            (Self::Extent { extent: a, skip: i }, Self::Extent { extent: b, skip: j }) => {
                (Arc::ptr_eq(a, b) || a == b) && u64::from(*i) + pages == u64::from(*j)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole => write!(f, "hole"),
            Self::Extent { extent, skip } => write!(f, "{extent:?} from {skip}"),
        }
    }
}

/// Pages of one array and what they contain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The pages of the array.
    pub pages: PageRange,
    /// Their content; an extent has at least as many pages from its `skip` on.
    pub source: Source,
}

impl Segment {
    /// The part of the segment that lies in `range`, if any.
    #[must_use]
    pub fn clipped(&self, range: PageRange) -> Option<Self> {
        let pages = self.pages.intersection(range)?;
        let source = self.source.skipping(pages.start - self.pages.start);
        Some(Self { pages, source })
    }
}

impl Segment {
    /// This segment with its extent cut to the units that the segment touches: what lies in the
    /// others need not be kept for it.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        let Source::Extent { extent, skip } = &self.source else { return self.clone() };
        let count = u32::try_from(self.pages.count()).unwrap_or(u32::MAX);
        let units = extent.units_of(*skip..skip.saturating_add(count).min(extent.pages()));
        let (start, end) = (extent.unit(units.start).start, extent.unit(units.end - 1).end);
        let sums = Box::from(&extent.sums()[units.start as usize..units.end as usize]);
        let place = extent.place().after(u64::from(start));
        let Some(cut) = Extent::new(place, end - start, extent.units_word(), sums) else {
            return self.clone();
        };
        let source = Source::Extent { extent: Arc::new(cut), skip: skip - start };
        Self { pages: self.pages, source }
    }
}

/// The CRC-32 of each `unit_pages` pages of `bytes`.
#[must_use]
pub fn sums_of(bytes: &[u8], unit_pages: u32) -> Box<[u32]> {
    let unit_len_bytes = unit_pages as usize * PAGE_LEN;
    bytes.chunks(unit_len_bytes).map(crc32fast::hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(page: u64, pages: u32, unit_pages: u32) -> Extent {
        let units = pages.div_ceil(unit_pages);
        let sums = (0..units).collect();
        Extent::new(Place { file: 1, page }, pages, unit_pages, sums).unwrap()
    }

    #[test]
    fn an_extent_whose_numbers_do_not_fit_is_refused() {
        let place = Place { file: 0, page: 0 };
        assert!(Extent::new(place, 0, 1, Box::new([])).is_none());
        assert!(Extent::new(place, 4, 0, Box::new([1])).is_none());
        assert!(Extent::new(place, 4, 2, Box::new([1])).is_none());
        assert!(Extent::new(place, EXTENT_PAGES_MAX + 1, u32::MAX, Box::new([1])).is_none());
        for page in [FILE_PAGES_MAX, u64::MAX] {
            assert!(Extent::new(Place { file: 0, page }, 1, 1, Box::new([1])).is_none());
        }
    }

    #[test]
    fn neighbours_of_equal_units_join_and_keep_every_checksum() {
        let (a, b) = (extent(0, 256, 512), extent(256, 256, 512));
        assert!(a.joins(&b));
        let both = a.joined(&b);
        assert_eq!((both.pages(), both.unit_pages(), both.sums().len()), (512, 256, 2));
        assert!(both.joins(&extent(512, 100, 512)), "a short last unit may follow");
        assert!(!both.joined(&extent(512, 100, 512)).joins(&extent(612, 256, 256)));
        assert!(!a.joins(&extent(300, 256, 512)), "not adjacent");
    }

    #[test]
    fn units_of_covers_partial_units() {
        let e = extent(0, 10, 4);
        assert_eq!(e.units_of(3..5), 0..2);
        assert_eq!(e.unit(2), 8..10);
    }
}
