//! Copies in rounds that touch few enough pages to be brought into memory at once.
//!
//! ```text
//! copies   aaaaaaaaaaaaaaaa bb  c  d  e ...
//! rounds   [aaaaaaaa][aaaaaaaa][bb c d e ...]     each: its copies, and the pages they touch
//! ```
//!
//! # Invariants
//!
//! 1. The rounds together are the copies, in their order; one that is too long is cut.
//! 2. The pages of a round are [`ROUND_BYTES`] at most, and a copy's at most.

use super::layout::{Copies, CopyRun};
use crate::units::{PAGE_BYTES, PageRange, PageSet};

/// Bytes of pages in a round: 16 MiB.
pub(super) const ROUND_BYTES: u64 = 16 << 20;

/// Most copies in a round.
const COPIES_MAX: usize = 1 << 16;

/// Some copies, and the pages of the array that they touch.
pub(super) struct Round {
    pub(super) copies: Vec<CopyRun>,
    pub(super) pages: PageSet,
    // Of pages inserted, some perhaps twice.
    touched_bytes: u64,
}

/// Iterator over rounds.
pub(super) struct Rounds {
    copies: Copies,
    // What is left of a copy that was cut.
    rest: Option<CopyRun>,
}

impl Rounds {
    pub(super) fn of(copies: Copies) -> Self {
        Self { copies, rest: None }
    }
}

impl Round {
    fn push(&mut self, copy: CopyRun, last: &mut PageRange) {
        let pages = PageRange::covering(copy.array_offset, copy.array_offset + copy.len);
        if !last.contains_range(pages) {
            self.pages.insert(pages);
            self.touched_bytes += pages.count() * PAGE_BYTES;
            *last = pages;
        }
        self.copies.push(copy);
    }

    fn is_full(&self) -> bool {
        self.touched_bytes >= ROUND_BYTES || self.copies.len() >= COPIES_MAX
    }
}

impl Iterator for Rounds {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let mut round = Round { copies: Vec::new(), pages: PageSet::new(), touched_bytes: 0 };
        let mut last = PageRange::new(0, 0);
        while !round.is_full() {
            let Some(mut copy) = self.rest.take().or_else(|| self.copies.next()) else { break };
            if copy.len > ROUND_BYTES {
                let CopyRun { array_offset, buffer_offset, len } = copy;
                copy.len = ROUND_BYTES;
                self.rest = Some(CopyRun {
                    array_offset: array_offset + ROUND_BYTES,
                    buffer_offset: buffer_offset + ROUND_BYTES,
                    len: len - ROUND_BYTES,
                });
            }
            round.push(copy, &mut last);
        }
        (!round.copies.is_empty()).then_some(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::index::{Index, resolve};
    use crate::array::layout::copies;
    use crate::array::shape::Order;

    fn rounds(shape: &[u64], step: i128) -> Vec<Round> {
        let index = Index::Slice { start: None, stop: None, step: Some(step) };
        let selection = resolve(&[index], shape, 1, Order::C).unwrap();
        Rounds::of(copies(&selection, Order::C)).collect()
    }

    #[test]
    fn a_long_copy_is_cut_and_nothing_is_left_out() {
        let rounds = rounds(&[2 * ROUND_BYTES + 5], 1);
        let ends: Vec<_> = rounds
            .iter()
            .map(|round| (round.copies[0].array_offset, round.copies[0].len))
            .collect();
        assert_eq!(ends, [(0, ROUND_BYTES), (ROUND_BYTES, ROUND_BYTES), (2 * ROUND_BYTES, 5)]);
        assert_eq!(rounds[2].copies[0].buffer_offset, 2 * ROUND_BYTES);
        assert_eq!(rounds[2].pages.count(), 1);
    }

    #[test]
    fn copies_far_apart_share_a_round_until_their_pages_are_many() {
        let rounds = rounds(&[4 * ROUND_BYTES], 2 * 4096);
        assert_eq!(rounds.iter().map(|round| round.pages.count()).collect::<Vec<_>>(), [4096; 2]);
        let all: u64 = rounds.iter().flat_map(|round| &round.copies).map(|copy| copy.len).sum();
        assert_eq!(all, 4 * ROUND_BYTES / (2 * 4096));
    }

    #[test]
    fn copies_within_one_page_touch_it_once() {
        let rounds = rounds(&[4096], 2);
        assert_eq!((rounds.len(), rounds[0].copies.len(), rounds[0].pages.count()), (1, 2048, 1));
    }
}
