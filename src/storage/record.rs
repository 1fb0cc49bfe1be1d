//! The commit record: what one commit changed.
//!
//! A transaction hands a [`Draft`] to the commit log; what the log made durable is a [`Record`].
//!
//! # Invariants
//!
//! 1. The record with tid `n` follows the record with tid `n - 1` (no gaps).
//! 2. Every extent a record names was durable before the record, or lies inside it.

use std::sync::Arc;

use super::catalog::CatalogChange;
use super::extent::{Segment, Source};
use crate::units::{ArrayId, PageRange, Tid};

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
