//! Appends that meet: rows that another transaction's rows came before are moved behind them.
//!
//! ```text
//! base      | rows |                    both transactions append to this
//! they      | rows | theirs |           committed first
//! we        | rows | ours |             conflict: the same place
//! rebased   | rows | theirs | ours |    the same rows, as if they had been appended now
//! ```
//!
//! # Invariants
//!
//! 1. Rows are moved only for a transaction whose changes of the array are appends and which did
//!    not look where the array ends: not at its shape, nor at its last row or behind it. What it
//!    did would have been the same on the newer commit.
//! 2. What is moved is based on one durable state; conflicts are looked for after that one.
//!
//! # Failure
//!
//! Where rows cannot be moved the conflict stands.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::conflict::{Changes, Conflict, first_conflict, is_shape_of};
use super::error::TransactionError;
use super::session::Context;
use super::store::Shared;
use super::transaction::{Inner, write_bytes};
use super::working::Working;
use crate::storage::catalog::CatalogChange;
use crate::storage::record::Record;
use crate::storage::state::State;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::units::{ArrayId, PAGE_BYTES, PageRange, PageSet, Tid};

/// Bytes moved in one step.
const STEP_BYTES: u64 = 8 << 20;

/// Which rows of an array an append made.
///
/// Until the transaction has committed these are the rows as the transaction itself has them.
/// Others may commit rows to the same array first; what was appended then lands behind theirs, and
/// once the commit has returned `Ok` this says where. After any other end it says nothing.
///
/// A transaction that looked where the array ends is refused instead: by its handle's shape or
/// length, by a view of its last row, by indices that select something else of a longer array, or
/// by [`Transaction::catalog`](super::Transaction::catalog), which says where all arrays end.
#[derive(Clone, Debug)]
pub struct AppendedRows {
    first: Arc<AtomicU64>,
    count: u64,
}

impl AppendedRows {
    pub(super) fn new(first: u64, count: u64) -> Self {
        Self { first: Arc::new(AtomicU64::new(first)), count }
    }

    /// The rows.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let first = self.first.load(Ordering::Acquire);
        first..first + self.count
    }
}

/// Rows to be appended.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// The shape before.
    pub(crate) before: Arc<[u64]>,
    /// The axis along which it grows.
    pub(crate) axis: usize,
    /// Number of rows.
    pub(crate) count: u64,
    /// Bytes of a row.
    pub(crate) row_bytes: u64,
}

/// What a transaction appended to one array.
struct Appended {
    // The shape before the first append, in the state that the rows are based on.
    before: Arc<[u64]>,
    axis: usize,
    row_bytes: u64,
    rows: u64,
    told: Vec<AppendedRows>,
    // The state that the rows were moved to, if they were.
    rebased: Option<Arc<State>>,
}

impl Appended {
    /// The first byte behind what was there before.
    fn start(&self) -> u64 {
        self.before[self.axis] * self.row_bytes
    }
}

/// What a transaction looked at and changed of one array, besides appending.
#[derive(Default)]
struct Touched {
    // One past the last page that was read.
    read_end: u64,
    depends: bool,
}

/// The appends of one transaction.
#[derive(Default)]
pub(super) struct Appends {
    // The array that is being appended to at this moment.
    now: Option<ArrayId>,
    arrays: BTreeMap<ArrayId, Appended>,
    touched: BTreeMap<ArrayId, Touched>,
    // The program was shown where every array ends.
    saw_all_ends: bool,
}

impl Appends {
    /// What is done to the array from now on is an append.
    pub(super) fn begin(&mut self, array: ArrayId) {
        self.now = Some(array);
    }

    /// The append is over and made `rows`, or has failed.
    pub(super) fn end(&mut self, array: ArrayId, rows: Option<Rows>) -> AppendedRows {
        self.now = None;
        let Some(Rows { before, axis, count, row_bytes }) = rows else {
            self.depends(array);
            return AppendedRows::new(0, 0);
        };
        let told = AppendedRows::new(before.get(axis).copied().unwrap_or(0), count);
        if count == 0 {
            return told;
        }
        let new = Appended { before, axis, row_bytes, rows: 0, told: Vec::new(), rebased: None };
        let all = self.arrays.entry(array).or_insert(new);
        all.rows += count;
        all.told.push(told.clone());
        told
    }

    /// Notes that pages were read.
    pub(super) fn read(&mut self, array: ArrayId, pages: PageRange) {
        if self.now != Some(array) {
            let touched = self.touched.entry(array).or_default();
            touched.read_end = touched.read_end.max(pages.end);
        }
    }

    /// Notes that what is done depends on where the array ends, or is more than an append.
    pub(super) fn depends(&mut self, array: ArrayId) {
        if self.now != Some(array) {
            self.touched.entry(array).or_default().depends = true;
        }
    }

    /// Notes that the program was shown where every array ends.
    pub(super) fn saw_all_ends(&mut self) {
        self.saw_all_ends = true;
    }

    /// Notes that everything depends on everything.
    pub(super) fn all_depend(&mut self) {
        let arrays: Vec<ArrayId> = self.arrays.keys().copied().collect();
        arrays.into_iter().for_each(|array| self.depends(array));
    }

    /// The state that the rows of an array were moved to.
    pub(super) fn rebased(&self) -> impl Iterator<Item = (ArrayId, &Arc<State>)> {
        self.arrays.iter().filter_map(|(&id, all)| Some((id, all.rebased.as_ref()?)))
    }

    /// The arrays of which the rows may be moved (invariant 1).
    fn movable(&self) -> BTreeSet<ArrayId> {
        if self.saw_all_ends {
            return BTreeSet::new();
        }
        let may_move = |(id, all): &(&ArrayId, &Appended)| {
            self.touched.get(id).is_none_or(|touched| {
                let last_row = all.start().saturating_sub(all.row_bytes);
                !touched.depends && touched.read_end <= last_row / PAGE_BYTES
            })
        };
        self.arrays.iter().filter(may_move).map(|(&id, _)| id).collect()
    }
}

/// Refuses what conflicts with records that are newer than the base of what was changed.
pub(super) fn conflict_of(
    inner: &Inner,
    pages: &BTreeMap<ArrayId, PageSet>,
    catalog: &[CatalogChange],
    newer: &[Arc<Record>],
    head: &State,
) -> Option<Conflict> {
    let moved: BTreeMap<ArrayId, &Arc<State>> = inner.appends.rebased().collect();
    let is_moved = |change: &CatalogChange| moved.keys().any(|&id| is_shape_of(change, id));
    let rest = pages.iter().filter(|(id, _)| !moved.contains_key(id));
    let rest: BTreeMap<_, _> = rest.map(|(&id, pages)| (id, pages.clone())).collect();
    let (shapes, others): (Vec<_>, Vec<_>) = catalog.iter().cloned().partition(is_moved);
    let base = &inner.session.state.catalog;
    let ours = Changes { pages: &rest, catalog: &others, base };
    first_conflict(&ours, newer, &head.catalog).or_else(|| {
        moved.iter().find_map(|(id, state)| {
            let pages = pages.get(id).map(|pages| (*id, pages.clone())).into_iter().collect();
            let shape: Vec<_> =
                shapes.iter().filter(|change| is_shape_of(change, *id)).cloned().collect();
            let ours = Changes { pages: &pages, catalog: &shape, base: &state.catalog };
            let from = newer.partition_point(|record| record.tid <= state.tid);
            first_conflict(&ours, &newer[from..], &head.catalog)
        })
    })
}

/// Moves the rows that are in the way of nothing but other rows behind those, as the head has them;
/// `false` if that does not resolve the conflict.
pub(super) fn rebase(
    shared: &Shared,
    cx: &Context<'_>,
    inner: &mut Inner,
) -> Result<bool, TransactionError> {
    let movable = inner.appends.movable();
    if movable.is_empty() {
        return Ok(false);
    }
    // It may be of a later generation than the snapshot, if somebody packed: the arrays that rows
    // are moved in are read from it alone, and its files stay, being newer than the snapshot's.
    let head = shared.known_head();
    let newer = cx.engine.records(inner.session.state.tid, head.state.tid)?;
    let mut moved = false;
    for id in movable {
        let from = inner.appends.arrays[&id].rebased.as_ref().map_or(Tid::ZERO, |state| state.tid);
        let after = newer.partition_point(|record| record.tid <= from);
        match met(inner, id, &newer[after..], &head.state) {
            Met::Nothing => {}
            Met::Rows(shape) => {
                move_rows(cx, inner, id, &shape, &head.state)?;
                moved = true;
            }
            Met::More => return Ok(false),
        }
    }
    Ok(moved)
}

/// What newer records did to an array that we append to.
enum Met {
    Nothing,
    /// It has this shape now, and what there was lies where it lay.
    Rows(Arc<[u64]>),
    More,
}

fn met(inner: &Inner, id: ArrayId, newer: &[Arc<Record>], head: &State) -> Met {
    let shapes =
        newer.iter().flat_map(|record| &record.catalog).filter_map(|change| match change {
            CatalogChange::Shape { array, layout, .. } if *array == id => Some(*layout),
            _ => None,
        });
    let shapes: Vec<bool> = shapes.collect();
    let touches = newer.iter().flat_map(|record| &record.data).any(|change| change.array == id);
    if shapes.is_empty() && !touches {
        return Met::Nothing;
    }
    let Some(entry) = head.catalog.array_by_id(id) else { return Met::More };
    let all = &inner.appends.arrays[&id];
    let same = |axis: usize| axis == all.axis || entry.shape[axis] == all.before[axis];
    let alike = entry.shape.len() == all.before.len()
        && (0..entry.shape.len()).all(same)
        && entry.shape[all.axis] >= all.before[all.axis];
    match alike && !shapes.contains(&true) {
        true => Met::Rows(Arc::clone(&entry.shape)),
        false => Met::More,
    }
}

/// Gives the array a working copy of `head` and appends the rows to it, which are read from the
/// working copy that it had.
fn move_rows(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
    shape: &Arc<[u64]>,
    head: &Arc<State>,
) -> Result<(), TransactionError> {
    let all = &inner.appends.arrays[&id];
    let (from, len) = (all.start(), all.rows * all.row_bytes);
    let to = shape[all.axis] * all.row_bytes;
    let mut after: Vec<u64> = shape.to_vec();
    after[all.axis] += all.rows;
    let end = after[all.axis] * all.row_bytes;
    let Some(mut old) = inner.session.arrays.remove(&id) else {
        return Err(TransactionError::Poisoned);
    };
    let mut new = old.on(head.page_map(id));
    // It has no addresses yet that could be too few.
    new.try_reserve(cx, end.div_ceil(PAGE_BYTES))?;
    inner.session.arrays.insert(id, new);
    let mut at = 0;
    while at < len {
        let end = len.min(at + STEP_BYTES);
        let bytes = read(cx, &mut old, from + at..from + end)?;
        write_bytes(cx, inner, id, to + at, bytes)?;
        at = end;
    }
    // Its extents are named by nobody now; the commit gives them back.
    old.discard()?;
    inner.set.set_shape(id, Arc::from(after))?;
    let Some(all) = inner.appends.arrays.get_mut(&id) else { return Ok(()) };
    let further = shape[all.axis] - all.before[all.axis];
    all.told.iter().for_each(|rows| {
        rows.first.fetch_add(further, Ordering::AcqRel);
    });
    all.before = Arc::clone(shape);
    all.rebased = Some(Arc::clone(head));
    Ok(())
}

fn read<'w>(
    cx: &Context<'_>,
    old: &'w mut Working,
    bytes: Range<u64>,
) -> Result<&'w [u8], TransactionError> {
    let pages = PageRange::covering(bytes.start, bytes.end);
    old.map(cx, pages, false)?;
    let skip = usize::try_from(bytes.start - pages.start_byte()).unwrap_or(usize::MAX);
    let len = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX);
    let all = super::write_out::readable(old, pages)?;
    Ok(&all[skip..skip + len])
}
