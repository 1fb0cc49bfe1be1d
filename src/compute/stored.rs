//! Reading arrays of a store: mapped where they lie, checked before a task looks at them.
//!
//! ```text
//! region of a view  ->  bytes it needs  ->  asked for ahead, compared with their checksums
//!                                       ->  a slice of mapped memory, from which tiles are read
//! ```
//!
//! # Invariants
//!
//! 1. A task touches only bytes that were ensured: damage is an error that names array, block and
//!    byte, and never a signal.
//! 2. What a task of a snapshot has looked at is let go piece by piece, and all of it when the task
//!    ends, so that what was read does not add up: the budget is about memory.
//! 3. Rows that a slice along the slowest axis leaves out are neither read nor checked, apart from
//!    what shares a block with others.

use std::cell::RefCell;

use super::block::Data;
use super::evaluate::{boxes, each_run, parts_met, projected};
use super::gather::Walk;
use super::node::{Blocked, Kind};
use super::number::Number;
use super::region::{Region, to_i64};
use super::trouble::ComputeError;
use super::view::{Along, hull, walk};
use crate::array::{DynArray, Index, Order, Selection};

/// Bytes that a task has looked at before they are let go.
const LET_GO_BYTES: u64 = 4 << 20;

/// Rows of at least this many bytes are ensured one by one where a slice leaves others out.
const ROW_BYTES_MIN: u64 = 64 << 10;

/// Memory in which a region of a view of a stored array lies. Who drops it has done with the
/// region: it does not count as memory of the process any longer.
pub(crate) struct Mapped<'e> {
    array: &'e DynArray<'e>,
    pieces: Vec<Selection>,
    // What was looked at since something was let go, and its bytes.
    seen: RefCell<(Vec<Selection>, u64)>,
    node: usize,
    region: Region,
    pub(crate) data: Data<'e>,
    pub(crate) is_native: bool,
    /// Elements from the array's first to the slice's first.
    first: i64,
    strides: Vec<i64>,
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Mapped<'_> {
    /// Says that the region is not looked at again.
    pub(crate) fn let_go(&self) {
        self.pieces.iter().for_each(|piece| self.array.let_go(piece));
    }

    /// Whether it holds `region` of the node `node`.
    pub(crate) fn covers(&self, node: usize, region: &Region) -> bool {
        let mine = self.region.start.iter().zip(&self.region.len);
        let theirs = region.start.iter().zip(&region.len);
        self.node == node
            && mine
                .zip(theirs)
                .all(|((start, len), (from, count))| start <= from && from + count <= start + len)
    }

    /// How to look at `region`, which is wanted now; what was wanted before may be let go.
    pub(crate) fn walk(&self, along: &[Along], region: &Region) -> Walk {
        let (seen, bytes) = &mut *self.seen.borrow_mut();
        if *bytes >= LET_GO_BYTES {
            seen.drain(..).for_each(|piece| self.array.let_go(&piece));
            *bytes = 0;
        }
        if let Ok(piece) = self.array.select(&slices(&hull(along, region), None)) {
            *bytes += (region.count() as u64).saturating_mul(self.array.itemsize());
            seen.push(piece);
        }
        let mut walk = walk(along, region, &vec![0; along.len()], &self.strides);
        walk.base -= self.first;
        walk
    }
}

/// Maps and ensures what `region` of `node` reads from stored arrays.
pub(crate) fn map<'e>(
    node: &Blocked<'e>,
    region: &Region,
    mapped: &mut Vec<Mapped<'e>>,
) -> Result<(), ComputeError> {
    if region.count() == 0 {
        return Ok(());
    }
    match &node.0.kind {
        Kind::Stored(array) => {
            let along: Vec<Along> = (0..node.ndim()).map(Along::same).collect();
            map_view(node, array, &along, region, mapped)
        }
        Kind::View { of, along } => match &of.0.kind {
            Kind::Stored(array) => map_view(node, array, along, region, mapped),
            _ => map(of, &hull(along, region), mapped),
        },
        Kind::Map { operands, .. } => operands
            .iter()
            .try_for_each(|operand| map(operand, &projected(operand, node, region), mapped)),
        Kind::Joined { axis, parts } => parts_met(*axis, parts, region)
            .try_for_each(|(index, part)| map(&parts[index].1, &part, mapped)),
        Kind::Reshaped(of) => each_run(node.shape(), region, |first, count| {
            boxes(of.shape(), first, count).iter().try_for_each(|part| map(of, part, mapped))
        }),
        Kind::Memory(_) | Kind::Indexed(_) | Kind::Function(_) | Kind::Tasks(_) => Ok(()),
    }
}

/// Bytes of elements of stored arrays that `region` of `node` is made of. What is in `known`, by
/// node and region, is not counted again.
pub(crate) fn read_bytes(
    node: &Blocked<'_>,
    region: &Region,
    known: &mut Vec<(usize, Region)>,
) -> Result<u64, ComputeError> {
    if region.count() == 0 {
        return Ok(0);
    }
    match &node.0.kind {
        Kind::Stored(_) => Ok(own_bytes(node, region, region.count(), known)),
        Kind::View { of, along } => {
            let hull = hull(along, region);
            match &of.0.kind {
                // Steps leave elements out, and what is broadcast is read once.
                Kind::Stored(_) => {
                    Ok(own_bytes(node, region, hull.count().min(region.count()), known))
                }
                _ => read_bytes(of, &hull, known),
            }
        }
        Kind::Map { operands, .. } => operands.iter().try_fold(0_u64, |sum, operand| {
            Ok(sum.saturating_add(read_bytes(operand, &projected(operand, node, region), known)?))
        }),
        Kind::Joined { axis, parts } => parts_met(*axis, parts, region)
            .try_fold(0_u64, |sum, (index, part)| {
                Ok(sum.saturating_add(read_bytes(&parts[index].1, &part, known)?))
            }),
        Kind::Reshaped(of) => {
            let mut sum = 0_u64;
            each_run(node.shape(), region, |first, count| {
                boxes(of.shape(), first, count).iter().try_for_each(|part| {
                    sum = sum.saturating_add(read_bytes(of, part, &mut Vec::new())?);
                    Ok(())
                })
            })?;
            Ok(sum)
        }
        Kind::Memory(_) | Kind::Indexed(_) | Kind::Function(_) | Kind::Tasks(_) => Ok(0),
    }
}

fn own_bytes(
    node: &Blocked<'_>,
    region: &Region,
    count: usize,
    known: &mut Vec<(usize, Region)>,
) -> u64 {
    let is_known = known.iter().any(|(of, its)| *of == node.identity() && its == region);
    if is_known {
        return 0;
    }
    known.push((node.identity(), region.clone()));
    (count as u64).saturating_mul(node.number().itemsize() as u64)
}

fn map_view<'e>(
    node: &Blocked<'e>,
    array: &'e DynArray<'e>,
    along: &[Along],
    region: &Region,
    mapped: &mut Vec<Mapped<'e>>,
) -> Result<(), ComputeError> {
    if mapped.iter().any(|known| known.covers(node.identity(), region)) {
        return Ok(());
    }
    let whole = array.select(&slices(&hull(along, region), None))?;
    let bytes = array.mapped(&whole)?;
    let pieces = pieces(array, along, region)?;
    pieces.iter().for_each(|piece| array.will_need(piece));
    // The neighbour in the direction in which the array lies is what comes next.
    if let Some(next) = next(node, along, array.order(), region) {
        let ahead = array.select(&slices(&hull(along, &next), None))?;
        array.mapped(&ahead)?;
        self::pieces(array, along, &next)?.iter().for_each(|piece| array.will_need(piece));
    }
    pieces.iter().try_for_each(|piece| array.ensure(piece))?;
    let itemsize = array.itemsize();
    let first = whole.byte_range().map_or(0, |(low, _)| to_i64(low / itemsize));
    let number = node.number();
    let data = Data::of_bytes(number, bytes)
        .ok_or(ComputeError::Mistake("elements of an array are not aligned"))?;
    let strides = array.strides().into_iter().map(|stride| to_i64(stride / itemsize)).collect();
    let (node, region) = (node.identity(), region.clone());
    let is_native = array.dtype().is_native_order() || number == Number::Bool;
    let seen = RefCell::default();
    mapped.push(Mapped { array, pieces, seen, node, region, data, is_native, first, strides });
    Ok(())
}

/// The region of a view that lies behind `region` in the array.
fn next(node: &Blocked<'_>, along: &[Along], order: Order, region: &Region) -> Option<Region> {
    let slow = match order {
        Order::C => along.iter().find_map(Along::axis)?,
        Order::F => along.iter().rev().find_map(Along::axis)?,
    };
    let mut next = region.clone();
    next.start[slow] = region.start[slow] + region.len[slow];
    next.len[slow] = node.shape()[slow].checked_sub(next.start[slow])?.min(region.len[slow]);
    (next.count() > 0).then_some(next)
}

/// What is to be ensured: the hull, or its rows along the slowest axis where others lie between.
fn pieces(
    array: &DynArray<'_>,
    along: &[Along],
    region: &Region,
) -> Result<Vec<Selection>, ComputeError> {
    let hull = hull(along, region);
    let slow = match array.order() {
        Order::C => 0,
        Order::F => along.len().saturating_sub(1),
    };
    let strides = array.strides();
    let apart = match along.get(slow) {
        Some(Along::Step { step, .. }) => step.unsigned_abs() > 1,
        Some(Along::List { .. }) => true,
        _ => false,
    };
    let is_long = strides.get(slow).is_some_and(|&row| row >= ROW_BYTES_MIN);
    if !(apart && is_long) {
        return Ok(vec![array.select(&slices(&hull, None))?]);
    }
    let along = &along[slow];
    let (start, len) = along.axis().map_or((0, 1), |axis| (region.start[axis], region.len[axis]));
    let row = |at: u64| array.select(&slices(&hull, Some((slow, along.position(at)))));
    (start..start + len).map(|at| Ok(row(at)?)).collect()
}

/// A region as indices, one of its axes perhaps at one position.
fn slices(region: &Region, fixed: Option<(usize, u64)>) -> Vec<Index> {
    let axes = region.start.iter().zip(&region.len).enumerate();
    axes.map(|(axis, (&start, &len))| match fixed {
        Some((slow, at)) if slow == axis => Index::from(at..at + 1),
        _ => Index::from(start..start + len),
    })
    .collect()
}
