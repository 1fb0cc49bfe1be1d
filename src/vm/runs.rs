//! What lies at every page of a reservation, cut as the kernel cuts it into mappings.
//!
//! ```text
//! page   0          4            10                 16
//!        | Closed   | File a +0  | Zeros            |      4 runs are 4 kernel mappings
//!          ^ start -> kind; a run ends where the next one starts
//! ```
//!
//! The kernel joins neighbours whose file, file position and flags continue each other (facts K-02
//! to K-04). A file run is therefore described by *file position minus page*, which is equal for
//! all runs that continue each other, and neighbours of equal kind are one run.
//!
//! # Invariants
//!
//! 1. The runs cover `0..pages` without gap; the first starts at 0.
//! 2. No two neighbours are of equal kind. So the number of runs is the number of kernel mappings,
//!    or a little less: the kernel may keep neighbours apart in which pages were written before
//!    they became neighbours. The budget leaves room for that.
//!
//! # Failure
//!
//! None: this file only counts.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use crate::units::PageRange;

/// An open file, as far as the kernel joins mappings of it. Two descriptors of one file are
/// different, and so may be two files that were open under one number one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileId {
    pub(super) descriptor: RawFd,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// What lies at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing: reserved addresses.
    Closed,
    /// Memory that reads as zeros until it is written, in huge pages or not.
    Zeros { huge: bool },
    /// Pages of a file; `shift` is file page minus page, modulo 2^64. `ahead` says whether the
    /// kernel reads ahead there: neighbours that differ in it are different kernel mappings.
    File { file: FileId, shift: u64, ahead: bool },
    /// What a source says, loaded or not. Loaded chunks count by themselves.
    Lazy,
}

impl Kind {
    /// Whether the kernel reads ahead.
    pub(super) const fn is_read_ahead(self) -> bool {
        matches!(self, Self::File { ahead: true, .. })
    }
}

/// The runs of one reservation.
#[derive(Debug)]
pub(super) struct Runs {
    pages: u64,
    // Invariants 1 and 2: first page of a run -> its kind.
    starts: BTreeMap<u64, Kind>,
}

impl Runs {
    /// `pages` closed pages.
    pub(super) fn closed(pages: u64) -> Self {
        let mut runs = Self { pages: 0, starts: BTreeMap::new() };
        runs.grow(pages);
        runs
    }

    /// Adds closed pages behind the last one, up to `pages`.
    pub(super) fn grow(&mut self, pages: u64) {
        if pages > self.pages {
            let old = std::mem::replace(&mut self.pages, pages);
            self.replace(PageRange::new(old, pages), Kind::Closed);
        }
    }

    /// Number of kernel mappings; a reservation without pages still holds one.
    pub(super) fn count(&self) -> u64 {
        self.starts.len().max(1) as u64
    }

    /// The runs in `range`, cut to it, ascending.
    pub(super) fn pieces_in(&self, range: PageRange) -> Vec<(PageRange, Kind)> {
        let mut pieces = Vec::new();
        let Some(range) = range.intersection(PageRange::new(0, self.pages)) else {
            return pieces;
        };
        let mut end = range.end;
        for (&start, &kind) in self.starts.range(..range.end).rev() {
            pieces.push((PageRange::new(start.max(range.start), end), kind));
            if start <= range.start {
                break;
            }
            end = start;
        }
        pieces.reverse();
        pieces
    }

    /// Says that `kind` lies at `range` now; returns what was there, ascending.
    ///
    /// Replacing every piece of the result by itself restores the state before.
    pub(super) fn replace(&mut self, range: PageRange, kind: Kind) -> Vec<(PageRange, Kind)> {
        if range.is_empty() {
            return Vec::new();
        }
        let old = self.pieces_in(range);
        let after = if range.end < self.pages { self.kind_at(range.end) } else { None };
        let inside: Vec<u64> =
            self.starts.range(range.start..=range.end).map(|(&start, _)| start).collect();
        for start in inside {
            self.starts.remove(&start);
        }
        let before = self.starts.range(..range.start).next_back();
        if before.is_none_or(|(_, &before)| before != kind) {
            self.starts.insert(range.start, kind);
        }
        if let Some(after) = after.filter(|&after| after != kind) {
            self.starts.insert(range.end, after);
        }
        old
    }

    /// `kind` as it shall be placed at `range`: a file that continues what lies beside it is read
    /// ahead if that is, so that both are one kernel mapping; else if it `is_long`.
    pub(super) fn joining(&self, range: PageRange, kind: Kind, is_long: bool) -> Kind {
        let Kind::File { file, shift, .. } = kind else { return kind };
        let [far, near] = [true, false].map(|ahead| Kind::File { file, shift, ahead });
        let before = range.start.checked_sub(1).and_then(|page| self.kind_at(page));
        let after = self.kind_at(range.end).filter(|_| range.end < self.pages);
        let beside =
            [before, after].into_iter().flatten().find(|&kind| kind == far || kind == near);
        if is_long { far } else { beside.unwrap_or(near) }
    }

    /// What lies at `page`; `None` only while there are no pages.
    pub(super) fn kind_at(&self, page: u64) -> Option<Kind> {
        self.starts.range(..=page).next_back().map(|(_, &kind)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: u64 = 40;

    fn kind() -> impl Strategy<Value = Kind> {
        let file = |(descriptor, shift)| Kind::File {
            file: FileId { descriptor, device: 1, inode: 1 },
            shift,
            ahead: false,
        };
        prop_oneof![
            Just(Kind::Closed),
            any::<bool>().prop_map(|huge| Kind::Zeros { huge }),
            (3..5, 0u64..2).prop_map(file),
        ]
    }

    fn each_page(runs: &Runs) -> Vec<Kind> {
        let all = PageRange::new(0, runs.pages);
        let cut = runs.pieces_in(all);
        assert!(cut.windows(2).all(|w| w[0].0.end == w[1].0.start && w[0].1 != w[1].1));
        assert_eq!(cut.len(), runs.starts.len());
        cut.into_iter().flat_map(|(r, kind)| (r.start..r.end).map(move |_| kind)).collect()
    }

    proptest! {
        #[test]
        fn runs_equal_one_kind_per_page_and_replacing_can_be_taken_back(
            steps in prop::collection::vec((0..PAGES, 0u64..12, kind()), 1..30),
        ) {
            let mut runs = Runs::closed(PAGES - 8);
            runs.grow(PAGES);
            let mut model = vec![Kind::Closed; usize::try_from(PAGES).unwrap()];
            for (start, count, kind) in steps {
                let range = PageRange::new(start, (start + count).min(PAGES));
                let before = runs.starts.clone();
                let old = runs.replace(range, kind);
                for (range, kind) in old {
                    runs.replace(range, kind);
                }
                prop_assert_eq!(&runs.starts, &before);
                runs.replace(range, kind);
                for page in range.start..range.end {
                    model[usize::try_from(page).unwrap()] = kind;
                    prop_assert_eq!(runs.kind_at(page), Some(kind));
                }
                prop_assert_eq!(&each_page(&runs), &model);
            }
        }
    }

    #[test]
    fn runs_without_pages_are_one_kernel_mapping() {
        assert_eq!(Runs::closed(0).count(), 1);
        assert_eq!(Runs::closed(0).kind_at(0), None);
    }
}
