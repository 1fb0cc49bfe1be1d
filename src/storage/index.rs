//! What every page of an array contains, as an immutable value that shares structure.
//!
//! ```text
//! overlay   |        extent b |      | hole |          changes since the checkpoint
//! base      | extent a               | extent c ...|   the checkpoint, read when needed
//! lookup    | a      | b      | a    | hole | c    |
//! ```
//!
//! A [`PageMap`] is an interval map from pages to [`Source`]s. A clone costs O(1) and an insertion
//! O(log segments), so a snapshot is simply the map as it was.
//!
//! # Invariants
//!
//! 1. Segments of the overlay ascend and do not overlap.
//! 2. What neither the overlay nor the base names is a hole.
//!
//! # Failure
//!
//! Only the base is read from a disk: its errors come from a lookup and name the checkpoint.

use std::sync::Arc;

use imbl::OrdMap;

use super::StorageError;
use super::extent::{Segment, Source};
use crate::units::PageRange;

/// The segments of one array as a checkpoint holds them.
pub trait SegmentTable: Send + Sync {
    /// Appends the segments that overlap `pages`, ascending; gaps between them are holes.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the checkpoint cannot be read or is damaged.
    fn segments_in(&self, pages: PageRange, found: &mut Vec<Segment>) -> Result<(), StorageError>;
}

#[derive(Clone)]
struct Entry {
    end: u64,
    source: Source,
}

/// The content of every page of one array.
#[derive(Clone, Default)]
pub struct PageMap {
    base: Option<Arc<dyn SegmentTable>>,
    // Invariant 1: first page -> entry.
    overlay: OrdMap<u64, Entry>,
}

impl PageMap {
    /// The map of an array without any written page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The map that `base` describes.
    #[must_use]
    pub fn over(base: Arc<dyn SegmentTable>) -> Self {
        Self { base: Some(base), overlay: OrdMap::new() }
    }

    /// Number of entries that lie over the base.
    #[must_use]
    pub fn overlay_len(&self) -> usize {
        self.overlay.len()
    }

    /// Says that the pages of `segment` have its content from now on.
    pub fn insert(&mut self, segment: &Segment) {
        let pages = segment.pages;
        if pages.is_empty() {
            return;
        }
        self.cut(pages);
        if self.base.is_none() && segment.source == Source::Hole {
            return;
        }
        let (mut start, mut end, mut source) = (pages.start, pages.end, segment.source.clone());
        if let Some((&before, entry)) = self.overlay.get_prev(&start)
            && entry.end == start
            && entry.source.continues(start - before, &source)
        {
            source = entry.source.clone();
            start = before;
        }
        if let Some(entry) = self.overlay.get(&end)
            && source.continues(end - start, &entry.source)
        {
            let joined_end = entry.end;
            self.overlay.remove(&end);
            end = joined_end;
        }
        self.overlay.insert(start, Entry { end, source });
    }

    /// Takes `pages` out of the overlay, splitting entries that reach beyond.
    fn cut(&mut self, pages: PageRange) {
        while let Some((&start, entry)) = self.overlay.get_prev(&(pages.end - 1)) {
            if entry.end <= pages.start {
                break;
            }
            let entry = entry.clone();
            self.overlay.remove(&start);
            if entry.end > pages.end {
                let source = entry.source.skipping(pages.end - start);
                self.overlay.insert(pages.end, Entry { end: entry.end, source });
            }
            if start < pages.start {
                self.overlay.insert(start, Entry { end: pages.start, source: entry.source });
            }
        }
    }

    /// The content of `pages` as segments that ascend and cover it without gap.
    ///
    /// Cost O(log n + segments found).
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the checkpoint under the map cannot be read.
    pub fn lookup(&self, pages: PageRange) -> Result<Vec<Segment>, StorageError> {
        let overlay: Vec<Segment> = self.overlay_in(pages).collect();
        let base = self.base_under(pages, &overlay)?;
        let mut found = Vec::new();
        let mut at = pages.start;
        for segment in overlay {
            push_base(PageRange::new(at, segment.pages.start), &base, &mut found);
            at = segment.pages.end;
            push_joined(&mut found, segment);
        }
        push_base(PageRange::new(at, pages.end), &base, &mut found);
        Ok(found)
    }

    /// The extents of the whole array in order of its pages, holes left out.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the checkpoint under the map cannot be read.
    pub fn stored(&self) -> Result<Vec<Segment>, StorageError> {
        let mut all = self.lookup(PageRange::new(0, u64::MAX))?;
        all.retain(|segment| segment.source != Source::Hole);
        Ok(all)
    }

    fn overlay_in(&self, pages: PageRange) -> impl Iterator<Item = Segment> + '_ {
        let before = self.overlay.get_prev(&pages.start).filter(|&(&at, _)| at < pages.start);
        before.into_iter().chain(self.overlay.range(pages.start..pages.end)).filter_map(
            move |(&start, entry)| {
                let source = entry.source.clone();
                Segment { pages: PageRange::new(start, entry.end), source }.clipped(pages)
            },
        )
    }

    /// The segments of the base wherever `overlay` leaves a gap in `pages`, read by one request:
    /// a block of which many pages changed has many gaps.
    fn base_under(
        &self,
        pages: PageRange,
        overlay: &[Segment],
    ) -> Result<Vec<Segment>, StorageError> {
        let mut found = Vec::new();
        let ranges = || overlay.iter().map(|segment| segment.pages);
        let start = ranges().fold(pages.start, |at, r| if r.start <= at { r.end } else { at });
        let end = ranges().rev().fold(pages.end, |at, r| if r.end >= at { r.start } else { at });
        if let Some(base) = &self.base
            && start < end
        {
            base.segments_in(PageRange::new(start, end), &mut found)?;
        }
        Ok(found)
    }
}

/// Appends what `base` says about `pages`, which the overlay does not name.
fn push_base(pages: PageRange, base: &[Segment], found: &mut Vec<Segment>) {
    if pages.is_empty() {
        return;
    }
    let first = base.partition_point(|segment| segment.pages.end <= pages.start);
    let mut at = pages.start;
    for segment in base[first..].iter().map_while(|segment| segment.clipped(pages)) {
        push_hole(found, PageRange::new(at, segment.pages.start));
        at = segment.pages.end;
        push_joined(found, segment);
    }
    push_hole(found, PageRange::new(at, pages.end));
}

fn push_hole(found: &mut Vec<Segment>, pages: PageRange) {
    if !pages.is_empty() {
        push_joined(found, Segment { pages, source: Source::Hole });
    }
}

fn push_joined(found: &mut Vec<Segment>, segment: Segment) {
    if let Some(last) = found.last_mut()
        && last.pages.end == segment.pages.start
        && last.source.continues(last.pages.count(), &segment.source)
    {
        last.pages.end = segment.pages.end;
    } else {
        found.push(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::extent::{Extent, Place};
    use proptest::prelude::*;

    const PAGES: u64 = 64;

    struct Table(Vec<Segment>);

    impl SegmentTable for Table {
        fn segments_in(
            &self,
            range: PageRange,
            out: &mut Vec<Segment>,
        ) -> Result<(), StorageError> {
            out.extend(self.0.iter().filter(|s| s.pages.intersection(range).is_some()).cloned());
            Ok(())
        }
    }

    fn source(page: u64, pages: u64) -> Source {
        let pages = u32::try_from(pages).unwrap();
        let sums = vec![0; pages as usize].into_boxed_slice();
        Source::whole(Extent::new(Place { file: 0, page }, pages, 1, sums).unwrap())
    }

    fn slot(page: u64) -> usize {
        usize::try_from(page).unwrap()
    }

    fn flat(segments: &[Segment]) -> Vec<Option<u64>> {
        let mut pages = Vec::new();
        for segment in segments {
            for page in 0..segment.pages.count() {
                pages.push(segment.source.place().map(|place| place.page + page));
            }
        }
        pages
    }

    proptest! {
        #[test]
        fn page_map_equals_a_vector_of_pages(
            with_base in any::<bool>(),
            writes in prop::collection::vec((0..PAGES, 1u64..16, any::<bool>()), 0..30),
            probe in (0..PAGES, 0u64..32),
        ) {
            let mut model = vec![None; 200];
            let mut map = PageMap::new();
            if with_base {
                let segment = Segment { pages: PageRange::at(5, 20), source: source(9000, 20) };
                for page in 0..20 {
                    model[slot(5 + page)] = Some(9000 + page);
                }
                map = PageMap::over(Arc::new(Table(vec![segment])));
            }
            for (i, &(start, count, hole)) in writes.iter().enumerate() {
                let first = 100 * (i as u64 + 1);
                let source = if hole { Source::Hole } else { source(first, count) };
                map.insert(&Segment { pages: PageRange::at(start, count), source });
                for page in 0..count {
                    model[slot(start + page)] = (!hole).then_some(first + page);
                }
            }
            let range = PageRange::at(probe.0, probe.1);
            let found = map.lookup(range).unwrap();
            prop_assert!(found.windows(2).all(|w| w[0].pages.end == w[1].pages.start));
            prop_assert_eq!(flat(&found), &model[slot(range.start)..slot(range.end)]);
            let stored: u64 = map.stored().unwrap().iter().map(|s| s.pages.count()).sum();
            prop_assert_eq!(slot(stored), model.iter().flatten().count());
        }
    }

    #[test]
    fn a_clone_keeps_what_it_was_when_the_original_changes() {
        let mut map = PageMap::new();
        map.insert(&Segment { pages: PageRange::at(0, 4), source: source(10, 4) });
        let snapshot = map.clone();
        map.insert(&Segment { pages: PageRange::at(1, 1), source: source(50, 1) });
        let pages = PageRange::at(0, 4);
        assert_eq!(flat(&snapshot.lookup(pages).unwrap()), [10, 11, 12, 13].map(Some));
        assert_eq!(flat(&map.lookup(pages).unwrap()), [10, 50, 12, 13].map(Some));
    }

    #[test]
    fn pieces_of_one_extent_that_meet_again_become_one_entry() {
        let mut map = PageMap::new();
        let whole = source(10, 8);
        for page in [2, 0, 3, 1] {
            let source = whole.skipping(page);
            map.insert(&Segment { pages: PageRange::at(page, 1), source });
        }
        assert_eq!(map.overlay_len(), 1);
    }
}
