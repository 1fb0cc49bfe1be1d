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
    fn an_extent_ends_where_a_file_can_end_and_has_a_gibibyte_at_most() {
        let ends_at = |page: u64, pages: u32, units: u32| {
            let sums = vec![0; Extent::units_count(pages, units)].into_boxed_slice();
            Extent::new(Place { file: 0, page }, pages, units, sums).is_some()
        };
        assert!(ends_at(FILE_PAGES_MAX - 4, 4, 1) && !ends_at(FILE_PAGES_MAX - 3, 4, 1));
        assert!(ends_at(0, EXTENT_PAGES_MAX, 512) && !ends_at(0, EXTENT_PAGES_MAX + 1, 512));
        // Of an encoded one that is said of the pages that it takes.
        assert!(ends_at(FILE_PAGES_MAX - 3, 4, ENCODED | 3));
        assert!(!ends_at(FILE_PAGES_MAX - 2, 4, ENCODED | 3));
        assert_eq!(EXTENT_PAGES_MAX as usize * PAGE_LEN, 1 << 30);
        assert_eq!(ENCODED_PAGES_MAX as usize * PAGE_LEN, 2 << 20);
    }

    #[test]
    fn an_encoded_extent_is_shorter_than_its_content_and_lies_in_a_data_file() {
        let place = Place { file: 1, page: 100 };
        let made = Extent::encoded(place, 16, 5, 77).unwrap();
        assert_eq!((made.pages(), made.stored_pages(), made.unit_pages()), (16, 5, 16));
        assert_eq!((made.sums(), made.unit(0), made.stored_unit(0)), (&[77][..], 0..16, 0..5));
        assert!(made.is_encoded() && made.units_of(3..9) == (0..1));
        let again = Extent::new(place, 16, made.units_word(), Box::new([77]));
        assert_eq!(again.as_ref(), Some(&made));
        assert!(Extent::encoded(place, 16, 15, 0).is_some());
        assert!(Extent::encoded(place, ENCODED_PAGES_MAX, 1, 0).is_some());
        let refused = [(16, 16), (16, 17), (16, 0), (ENCODED_PAGES_MAX + 1, 1), (16, ENCODED + 5)];
        for (pages, stored_pages) in refused {
            assert!(Extent::encoded(place, pages, stored_pages, 0).is_none(), "{pages}");
        }
        assert!(Extent::encoded(Place { file: IN_LOG, page: 1 }, 16, 5, 0).is_none());
        assert!(Extent::new(place, 16, ENCODED | 5, Box::new([1, 2])).is_none());
    }

    #[test]
    fn an_extent_of_one_unit_says_its_own_length() {
        let short = extent(0, 10, 512);
        assert_eq!((short.unit_pages(), short.units_word()), (10, 10));
        let long = extent(0, 1000, 512);
        assert_eq!((long.unit_pages(), long.stored_pages()), (512, 1000));
        assert_eq!((long.unit(1), long.stored_unit(1)), (512..1000, 512..1000));
        assert!(!long.is_encoded());
    }

    #[test]
    fn places_go_on_in_their_file_and_say_whether_it_is_the_log() {
        let place = Place { file: 3, page: 7 };
        assert_eq!(place.after(5), Place { file: 3, page: 12 });
        assert!(!place.in_log() && Place { file: IN_LOG | 3, page: 0 }.in_log());
        assert!(!Place { file: IN_LOG - 1, page: 0 }.in_log());
        assert_eq!(format!("{place:?}"), "file 0x3 page 7");
        let beyond = std::panic::catch_unwind(|| place.after(u64::MAX));
        assert!(beyond.is_err());
    }

    #[test]
    fn only_what_reaches_behind_the_end_of_the_log_is_ahead_of_it() {
        let in_log =
            |page: u64| Extent::new(Place { file: IN_LOG, page }, 4, 1, Box::new([0; 4])).unwrap();
        let end = |file: u32, page: u64| Place { file: IN_LOG | file, page };
        assert!(!in_log(6).is_ahead(end(0, 10)) && in_log(7).is_ahead(end(0, 10)));
        assert!(!in_log(7).is_ahead(end(1, 2)), "in a file before");
        assert!(!extent(7, 4, 1).is_ahead(end(0, 10)), "in a data file");
    }

    #[test]
    fn a_source_goes_on_in_its_extent_and_knows_what_is_left_of_it() {
        let whole = Source::whole(extent(100, 10, 4));
        let later = whole.skipping(3);
        assert_eq!((whole.pages_left(), later.pages_left()), (Some(10), Some(7)));
        assert_eq!(later.place(), Some(Place { file: 1, page: 103 }));
        assert_eq!(later.skipping(2), whole.skipping(5));
        assert_eq!(later.extent().map(|extent| extent.pages()), Some(10));
        assert_eq!(whole.skipping(9).pages_left(), Some(1));
        assert!(std::panic::catch_unwind(|| whole.skipping(10)).is_err());
        assert_eq!(Source::Hole.skipping(1 << 40), Source::Hole);
        let hole = Source::Hole;
        assert_eq!((hole.place(), hole.pages_left(), hole.extent()), (None, None, None));
        let encoded = Source::whole(Extent::encoded(Place { file: 1, page: 0 }, 16, 5, 0).unwrap());
        assert_eq!((encoded.place(), encoded.pages_left()), (None, Some(16)));
    }

    #[test]
    fn what_follows_in_the_same_extent_continues() {
        let (source, same) = (Source::whole(extent(0, 10, 4)), Source::whole(extent(0, 10, 4)));
        for other in [&source, &same] {
            assert!(source.continues(4, &other.skipping(4)));
            assert!(source.skipping(2).continues(4, &other.skipping(6)));
            assert!(!source.continues(3, &other.skipping(4)));
        }
        let another = Source::whole(extent(50, 10, 4));
        assert!(!source.continues(4, &another.skipping(4)));
        assert!(Source::Hole.continues(7, &Source::Hole));
        assert!(!source.continues(10, &Source::Hole) && !Source::Hole.continues(4, &source));
    }

    #[test]
    fn a_clipped_segment_shows_what_the_whole_one_does() {
        let pages = PageRange::new(20, 28);
        let segment = Segment { pages, source: Source::whole(extent(100, 10, 4)).skipping(1) };
        let clipped = segment.clipped(PageRange::new(23, 90)).unwrap();
        assert_eq!(clipped.pages, PageRange::new(23, 28));
        assert_eq!(clipped.source.place(), Some(Place { file: 1, page: 104 }));
        assert_eq!(segment.clipped(PageRange::new(28, 90)), None);
    }

    #[test]
    fn a_trimmed_segment_keeps_the_units_it_touches_and_shows_the_same() {
        let cut = |skip: u64, count: u64| {
            let source = Source::whole(extent(100, 10, 4)).skipping(skip);
            Segment { pages: PageRange::at(50, count), source }.trimmed()
        };
        for (skip, count, place, pages, sums) in [
            (0, 10, 100, 10, &[0, 1, 2][..]),
            (4, 1, 104, 4, &[1]),
            (5, 4, 104, 6, &[1, 2]),
            (9, 1, 108, 2, &[2]),
            (3, 2, 100, 8, &[0, 1]),
        ] {
            let trimmed = cut(skip, count);
            let extent = trimmed.source.extent().unwrap();
            assert_eq!(trimmed.pages, PageRange::at(50, count));
            assert_eq!(trimmed.source.place(), Some(Place { file: 1, page: 100 + skip }));
            assert_eq!((extent.place().page, extent.pages(), extent.sums()), (place, pages, sums));
        }
        let hole = Segment { pages: PageRange::at(0, 3), source: Source::Hole };
        assert_eq!(hole.trimmed(), hole);
        let encoded = Extent::encoded(Place { file: 1, page: 8 }, 16, 5, 9).unwrap();
        let part =
            Segment { pages: PageRange::at(0, 2), source: Source::whole(encoded).skipping(11) };
        assert_eq!(part.trimmed(), part, "it is decoded as one");
    }

    #[test]
    fn each_unit_of_bytes_has_its_checksum_also_a_short_one() {
        let bytes: Vec<u8> = (0..=250u8).cycle().take(5 * PAGE_LEN).collect();
        let expected: Vec<u32> = bytes.chunks(2 * PAGE_LEN).map(crc32fast::hash).collect();
        assert_eq!((sums_of(&bytes, 2).to_vec(), expected.len()), (expected, 3));
    }

    #[test]
    fn what_is_printed_says_where_and_how_it_lies() {
        let encoded = Extent::encoded(Place { file: 1, page: 8 }, 16, 5, 9).unwrap();
        assert_eq!(format!("{encoded:?}"), "16 pages encoded in 5 at file 0x1 page 8");
        let source = Source::whole(extent(0, 10, 4)).skipping(3);
        assert_eq!(format!("{source:?}"), "10 pages at file 0x1 page 0 in units of 4 from 3");
        assert_eq!(format!("{:?}", Source::Hole), "hole");
    }

    #[test]
    fn only_raw_neighbours_of_whole_units_in_one_file_join() {
        let a = extent(0, 8, 4);
        assert!(a.joins(&extent(8, 8, 4)) && a.joins(&extent(8, 3, 3)));
        assert!(!a.joins(&extent(8, 5, 5)), "its unit is longer");
        assert!(!a.joins(&extent(8, 4, 2)), "it has two units of another length");
        assert!(!extent(0, 7, 4).joins(&extent(7, 8, 4)), "the last unit is short");
        let elsewhere = Extent::new(Place { file: 2, page: 8 }, 4, 4, Box::new([0])).unwrap();
        assert!(!a.joins(&elsewhere));
        let encoded = Extent::encoded(Place { file: 1, page: 8 }, 16, 4, 9).unwrap();
        assert!(!a.joins(&encoded) && !encoded.joins(&extent(24, 16, 16)));
        let encoded = Extent::encoded(Place { file: 1, page: 32 }, 16, 4, 9).unwrap();
        assert!(!extent(0, 32, 16).joins(&encoded));
        let most = extent(0, EXTENT_PAGES_MAX - 4, 4);
        let at_end = u64::from(EXTENT_PAGES_MAX) - 4;
        assert!(most.joins(&extent(at_end, 4, 4)));
        assert!(!most.joins(&extent(at_end, 8, 4)), "too long");
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
