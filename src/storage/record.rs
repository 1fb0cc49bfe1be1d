//! The commit record: what one commit changed.
//!
//! A transaction hands a [`Draft`] to the commit log; what the log made durable is a [`Record`].
//!
//! # Invariants
//!
//! 1. The record with tid `n` follows the record with tid `n - 1` (no gaps).
//! 2. Every extent a record names was durable before the record, or lies inside it.

use std::ops::Range;
use std::sync::Arc;

use super::catalog::CatalogChange;
use super::extent::{Segment, Source};
use crate::units::{ArrayId, PAGE_BYTES, PageRange, Tid};

/// Most pages a record carries itself: 64 KiB.
pub const INLINE_PAGES_MAX: u64 = 16;
/// Whether a record may carry these pages itself.
///
/// Not if a sector of them has exactly one bit set. If that bit flips, the sector looks as if it
/// had never been written and the record as torn: an acknowledged commit would be cut off. Sectors
/// with no bit set cannot look torn, and those with more take more than one flip.
#[must_use]
pub fn may_be_inline(bytes: &[u8]) -> bool {
    let bits = |sector: &[u8]| sector.iter().map(|byte| byte.count_ones()).sum::<u32>();
    bytes.chunks(SECTOR_BYTES).all(|sector| bits(sector) != 1)
}

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Most bytes of a commit's note.
pub const NOTE_BYTES_MAX: usize = 64 << 10;

/// Pages of an array that a commit gave another place and mostly other content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataChange {
    /// The array.
    pub array: ArrayId,
    /// The pages and where they lie now.
    pub segment: Segment,
    /// Whether the pages were only written along with changed ones and have the content they had:
    /// such pages never conflict.
    pub carried: bool,
}

/// One commit, durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Position in the log.
    pub tid: Tid,
    /// The snapshot the transaction had read.
    pub base: Tid,
    /// When it was committed: nanoseconds since 1970, by the committer's clock.
    pub time_ns: i64,
    /// The committer's note.
    pub note: Arc<str>,
    /// Changes of the catalog, in order.
    pub catalog: Vec<CatalogChange>,
    /// Changes of data, ascending by array and page.
    pub data: Vec<DataChange>,
}

impl Record {
    /// The blocks of `block_bytes` bytes each in which data of `array` changed: ranges, ascending
    /// and apart. Pages that were only written along do not count. Cost O(changes).
    ///
    /// What the blocks of an array measure says its catalog entry.
    ///
    /// # Panics
    ///
    /// If `block_bytes` is less than a page.
    #[must_use]
    pub fn blocks(&self, array: ArrayId, block_bytes: u64) -> Vec<Range<u64>> {
        let block_pages = block_bytes / PAGE_BYTES;
        let mut blocks: Vec<Range<u64>> = Vec::new();
        for change in self.data.iter().filter(|it| it.array == array && !it.carried) {
            let pages = change.segment.pages;
            let (first, end) = (pages.start / block_pages, pages.end.div_ceil(block_pages));
            match blocks.last_mut() {
                Some(last) if first <= last.end => last.end = last.end.max(end),
                _ => blocks.push(first..end),
            }
        }
        blocks
    }
}

/// New content of pages, in a commit that is being made.
#[derive(Clone, Debug)]
pub enum DraftSource<'a> {
    /// A hole, or an extent that was written and synced before.
    Stored(Source),
    /// These bytes, to be carried by the record itself; whole pages.
    Inline(&'a [u8]),
}

/// New content of pages of one array, in a commit that is being made.
#[derive(Clone, Debug)]
pub struct DraftChange<'a> {
    /// The array.
    pub array: ArrayId,
    /// Its pages.
    pub pages: PageRange,
    /// Their content.
    pub source: DraftSource<'a>,
    /// See [`DataChange::carried`].
    pub carried: bool,
}

/// A commit that is being made.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// The tid it shall have: one above the head of the log.
    pub tid: Tid,
    /// The snapshot the transaction had read.
    pub base: Tid,
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// The committer's note.
    pub note: Arc<str>,
    /// Changes of the catalog, in order.
    pub catalog: Vec<CatalogChange>,
    /// Changes of data, ascending by array and page; at most [`INLINE_PAGES_MAX`] pages inline.
    pub data: Vec<DraftChange<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_record_are_those_with_changed_pages() {
        let change = |array: u64, start, end, carried| DataChange {
            array: ArrayId(array),
            segment: Segment { pages: PageRange::new(start, end), source: Source::Hole },
            carried,
        };
        let data = vec![
            change(1, 0, 2, false),
            change(1, 7, 8, false),
            change(1, 8, 9, false),
            change(1, 20, 24, true),
            change(1, 30, 45, false),
            change(2, 3, 4, false),
            change(2, 5, 6, false),
        ];
        let record = Record {
            tid: Tid(2),
            base: Tid(1),
            time_ns: 0,
            note: Arc::from(""),
            catalog: Vec::new(),
            data,
        };
        assert_eq!(record.blocks(ArrayId(1), 8 * PAGE_BYTES), [0..2, 3..6]);
        assert_eq!(record.blocks(ArrayId(2), PAGE_BYTES), [3..4, 5..6]);
        assert_eq!(record.blocks(ArrayId(3), PAGE_BYTES), []);
    }
}
