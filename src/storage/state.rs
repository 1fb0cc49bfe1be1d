//! The store as of one commit: catalog, content of every array, and space in use, as one value.
//!
//! A state follows from the state before it and one record, and from nothing else: the log is the
//! truth. A clone costs O(1), so a snapshot is a state.
//!
//! # Failure
//!
//! A record that does not fit its state is damage, reported as [`StorageError::Corrupted`]; a
//! state is never half changed.

use std::sync::Arc;

use imbl::OrdMap;

use super::StorageError;
use super::catalog::{Catalog, CatalogChange};
use super::extent::{Extent, Place, Source};
use super::index::PageMap;
use super::record::Record;
use crate::units::{ArrayId, Tid};

/// Ranges of pages of files, as a persistent set.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Space {
    // Ascending, disjoint and not touching: (file, first page) -> one past the last page.
    ranges: OrdMap<(u32, u64), u64>,
}

impl Space {
    /// Adds `pages` pages from `place` on.
    pub fn insert(&mut self, place: Place, pages: u64) {
        if pages == 0 {
            return;
        }
        let file = place.file;
        let (mut start, mut end) = (place.page, place.after(pages).page);
        while let Some((&(at_file, from), &to)) = self.ranges.get_prev(&(file, end)) {
            if at_file != file || to < start {
                break;
            }
            start = start.min(from);
            end = end.max(to);
            self.ranges.remove(&(file, from));
        }
        self.ranges.insert((file, start), end);
    }

    /// The ranges as first page and number of pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Place, u64)> + '_ {
        self.ranges.iter().map(|(&(file, page), &end)| (Place { file, page }, end - page))
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.iter().fold(0, |sum, (_, pages)| sum.saturating_add(pages))
    }

    /// One past the last page of file `file`; 0 if there is none.
    #[must_use]
    pub fn end(&self, file: u32) -> u64 {
        let last = self.ranges.get_prev(&(file, u64::MAX));
        last.filter(|&(&(of, _), _)| of == file).map_or(0, |(_, &end)| end)
    }

    /// Whether all pages of an extent are in the set. What is not can be given out and written.
    #[must_use]
    pub fn holds(&self, extent: &Extent) -> bool {
        let pages = u64::from(extent.stored_pages());
        self.pages_in(extent.place(), pages) == pages
    }

    /// Number of pages of `pages` pages from `place` on that are in the set.
    #[must_use]
    pub fn pages_in(&self, place: Place, pages: u64) -> u64 {
        let (start, end) = (place.page, place.after(pages).page);
        let before = self.ranges.get_prev(&(place.file, start));
        let before = before.filter(|&(&(file, from), _)| file == place.file && from < start);
        let inside = self.ranges.range((place.file, start)..(place.file, end));
        let overlap = |(from, to): (u64, u64)| to.min(end).saturating_sub(from.max(start));
        before.into_iter().chain(inside).map(|(&(_, from), &to)| overlap((from, to))).sum()
    }
}

/// The content of arrays as a checkpoint holds it.
pub trait StoredMaps: Send + Sync {
    /// The content of an array; nothing if the checkpoint holds none.
    fn page_map(&self, array: ArrayId) -> Option<PageMap>;
}

/// The store as of one commit.
#[derive(Clone, Default)]
pub struct State {
    /// The commit.
    pub tid: Tid,
    /// When it was made: nanoseconds since 1970.
    pub time_ns: i64,
    /// Names, metadata, tags.
    pub catalog: Catalog,
    /// Data files' pages named by any kept record: what must not be given out.
    pub space: Space,
    // What `arrays` does not hold. It may know arrays that are gone; their ids never come again.
    base: Option<Arc<dyn StoredMaps>>,
    arrays: OrdMap<ArrayId, PageMap>,
}

impl State {
    /// A state in which no array has content yet. For decoders of a whole state.
    #[must_use]
    pub fn new(tid: Tid, time_ns: i64, catalog: Catalog, space: Space) -> Self {
        Self { tid, time_ns, catalog, space, base: None, arrays: OrdMap::new() }
    }

    /// This state with the content that `base` holds.
    #[must_use]
    pub fn over(self, base: Arc<dyn StoredMaps>) -> Self {
        Self { base: Some(base), ..self }
    }

    /// The content of an array; an array nobody wrote to is one hole.
    #[must_use]
    pub fn page_map(&self, array: ArrayId) -> PageMap {
        let is_there = self.catalog.array_by_id(array).is_some();
        self.map_of(array).filter(|_| is_there).unwrap_or_default()
    }

    fn map_of(&self, array: ArrayId) -> Option<PageMap> {
        let changed = self.arrays.get(&array).cloned();
        changed.or_else(|| self.base.as_ref()?.page_map(array))
    }

    /// Puts the content of an array back. For decoders of a whole state.
    pub fn set_page_map(&mut self, array: ArrayId, pages: PageMap) {
        self.arrays.insert(array, pages);
    }

    /// The arrays that have content, ascending.
    pub fn page_maps(&self) -> impl Iterator<Item = (ArrayId, PageMap)> + '_ {
        self.catalog.arrays().filter_map(|entry| Some((entry.id, self.map_of(entry.id)?)))
    }

    /// The state after `record`. Cost O(changes), not O(state).
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupted`] if the record does not follow this state or changes what is
    /// not there.
    pub fn apply(&self, record: &Record) -> Result<Self, StorageError> {
        let corrupted = |what: String| StorageError::Corrupted {
            place: format!("commit record {}", record.tid),
            what,
        };
        if record.tid != self.tid.next() {
            return Err(corrupted(format!("it follows commit {}", self.tid)));
        }
        let mut next = self.clone();
        next.tid = record.tid;
        next.time_ns = record.time_ns;
        for change in &record.catalog {
            next.apply_catalog(change, record.tid).map_err(|why| corrupted(why.to_string()))?;
        }
        for change in &record.data {
            if next.catalog.array_by_id(change.array).is_none() {
                return Err(corrupted(format!(
                    "it changes data of {}, which is not",
                    change.array
                )));
            }
            if change.segment.source.pages_left().is_some_and(|n| n < change.segment.pages.count())
            {
                return Err(corrupted("a segment is longer than its extent".to_owned()));
            }
            next.catalog.touch(change.array, record.tid);
            next.occupy(&change.segment.source);
            let stored = || next.base.as_ref()?.page_map(change.array);
            let map =
                next.arrays.entry(change.array).or_insert_with(|| stored().unwrap_or_default());
            map.insert(&change.segment);
        }
        Ok(next)
    }

    fn apply_catalog(&mut self, change: &CatalogChange, tid: Tid) -> Result<(), impl ToString> {
        let gone = match change {
            CatalogChange::Remove { name } => self.catalog.array(name).map(|entry| entry.id),
            _ => None,
        };
        let result = self.catalog.apply(change, tid);
        if let (Ok(()), Some(array)) = (&result, gone) {
            self.arrays.remove(&array);
        }
        result
    }

    fn occupy(&mut self, source: &Source) {
        if let Source::Extent { extent, .. } = source
            && !extent.place().in_log()
        {
            self.space.insert(extent.place(), u64::from(extent.stored_pages()));
        }
    }

    /// Every extent that the arrays of this state name, each once.
    ///
    /// Cost O(index): reads the whole checkpoint.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the checkpoint cannot be read.
    pub fn extents(&self) -> Result<Vec<Arc<Extent>>, StorageError> {
        let mut found = std::collections::BTreeMap::new();
        for (_, pages) in self.page_maps() {
            for segment in pages.stored()? {
                if let Source::Extent { extent, .. } = segment.source {
                    found.entry(extent.place()).or_insert(extent);
                }
            }
        }
        Ok(found.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn space_equals_a_set_of_pages(
            added in prop::collection::vec((0u32..3, 0u64..60, 0u64..12), 0..30),
            probe in (0u32..3, 0u64..60, 0u64..20),
        ) {
            let mut space = Space::default();
            let mut model = BTreeSet::new();
            for (file, page, pages) in added {
                space.insert(Place { file, page }, pages);
                model.extend((page..page + pages).map(|page| (file, page)));
            }
            let flat: BTreeSet<(u32, u64)> = space
                .iter()
                .flat_map(|(p, n)| (p.page..p.page + n).map(move |page| (p.file, page)))
                .collect();
            let (file, page, pages) = probe;
            let inside = (page..page + pages).filter(|&p| model.contains(&(file, p))).count();
            prop_assert_eq!(space.pages_in(Place { file, page }, pages), inside as u64);
            prop_assert_eq!(&flat, &model);
            prop_assert_eq!(space.pages(), model.len() as u64);
        }
    }
}
