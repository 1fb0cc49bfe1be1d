//! Computing a region of an expression inside a task.
//!
//! ```text
//! block of 16 MiB  ->  tiles of about 64 KiB  ->  every step of the expression on one tile
//! ```
//!
//! What lies between two steps is a tile, which stays in the processor's caches. A read that lies
//! dense already is not even copied into one.
//!
//! # Invariants
//!
//! 1. Each element is computed from the same elements by the same steps however an array is cut,
//!    so that blocks and tiles do not change a bit of the result.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use super::block::{Block, Data, Numeric, with_elements};
use super::convert::cast;
use super::gather::{Axis, Place, Step, Walk, gather};
use super::kernels_binary::{binary, select};
use super::kernels_unary::unary;
use super::node::{Blocked, Kind, Operation, Run};
use super::region::{Region, dense_strides, to_usize};
use super::stored::{self, Mapped};
use super::trouble::ComputeError;
use super::value::Value;
use super::view::{Along, hull, walk};

/// Bytes of a tile: half of what a core's second cache has at least, with room for two operands.
const TILE_BYTES: usize = 64 << 10;

/// Positions that a hull may have for each that is wanted.
const HULL_FACTOR: usize = 4;

/// Which input of a task is which block of which expression.
pub(crate) type Slots = HashMap<(usize, u64), usize>;

/// What a region of an expression is made from.
pub(crate) struct Sources<'a, 'e> {
    slots: &'a Slots,
    values: &'a [Value],
    node: &'a Blocked<'e>,
    region: &'a Region,
    // Empty before the first look.
    mapped: OnceCell<Vec<Mapped<'e>>>,
}

impl<'a, 'e> Sources<'a, 'e> {
    /// For `region` of `node`; nothing is mapped yet.
    pub(crate) fn new(
        slots: &'a Slots,
        values: &'a [Value],
        node: &'a Blocked<'e>,
        region: &'a Region,
    ) -> Self {
        Self { slots, values, node, region, mapped: OnceCell::new() }
    }

    /// Where the stored arrays lie that the region reads, mapped and ensured at the first call.
    fn mapped(&self) -> Result<&[Mapped<'e>], ComputeError> {
        if self.mapped.get().is_none() {
            let mut mapped = Vec::new();
            stored::map(self.node, self.region, &mut mapped)?;
            let _ = self.mapped.set(mapped);
        }
        Ok(self.mapped.get().map_or(&[], Vec::as_slice))
    }

    /// Says that nothing is looked at again.
    pub(crate) fn let_go(&self) {
        self.mapped.get().into_iter().flatten().for_each(Mapped::let_go);
    }

    fn block(&self, of: &Blocked<'_>, number: u64) -> Result<&'a Block, ComputeError> {
        let slot = self.slots.get(&(of.identity(), number)).copied();
        let block = slot.and_then(|slot| self.values.get(slot)?.get::<Block>());
        block.ok_or(ComputeError::Mistake("a block that a task needs was not given to it"))
    }
}

/// The elements of `region`, dense in C order.
pub(crate) fn elements<'s>(
    node: &'s Blocked<'_>,
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    if !matches!(node.0.kind, Kind::Map { .. } | Kind::Joined { .. }) {
        return evaluate(node, region, sources);
    }
    let lens = region.lens();
    let mut result = zeros(node, region)?;
    tiles(node, region, sources, &mut |tile, data| {
        let at: Vec<usize> =
            tile.start.iter().zip(&region.start).map(|(at, start)| to_usize(at - start)).collect();
        place(data, &tile.lens(), &mut result, &Place::inside(&lens, &at))
    })?;
    Ok(result)
}

/// Calls `see` with each tile of `region` and its elements.
pub(crate) fn tiles(
    node: &Blocked<'_>,
    region: &Region,
    sources: &Sources<'_, '_>,
    see: &mut dyn FnMut(&Region, &Data<'_>) -> Result<(), ComputeError>,
) -> Result<(), ComputeError> {
    let tile = tile_of(node, region);
    region.tiles(&tile).try_for_each(|tile| see(&tile, &evaluate(node, &tile, sources)?))
}

fn tile_of(node: &Blocked<'_>, region: &Region) -> Vec<u64> {
    let mut room = (TILE_BYTES / node.number().itemsize().max(4)) as u64;
    let mut tile = vec![1; region.len.len()];
    // Where neighbours lie along another axis, tiles are broad in both: each cache line that is
    // read is used whole.
    if let Some(axis) = node.0.fast_axis {
        tile[axis] = region.len[axis].clamp(1, 128);
        room /= tile[axis];
    }
    for axis in (0..tile.len()).rev().filter(|axis| Some(*axis) != node.0.fast_axis) {
        tile[axis] = region.len[axis].clamp(1, room.max(1));
        room /= tile[axis];
    }
    tile
}

fn zeros(node: &Blocked<'_>, region: &Region) -> Result<Data<'static>, ComputeError> {
    let most = isize::MAX.unsigned_abs() / 16;
    if region.count() > most {
        let shape = region.len.clone();
        return Err(ComputeError::TooLarge { operation: "compute", shape });
    }
    Ok(Data::zeros(node.number(), region.count()))
}

/// Copies `data`, dense of shape `lens`, to `at` of `result`.
pub(crate) fn place(
    data: &Data<'_>,
    lens: &[usize],
    result: &mut Data<'static>,
    at: &Place,
) -> Result<(), ComputeError> {
    let shape: Vec<u64> = lens.iter().map(|&len| len as u64).collect();
    let axes = lens.iter().zip(dense_strides(&shape));
    let axes = axes.map(|(&len, stride)| Axis { len, step: Step::Stride(stride) }).collect();
    copy(data, &Walk { base: 0, axes }, result, at)
}

/// Copies what `walk` names of `data` to `at` of `result`.
fn copy(
    data: &Data<'_>,
    walk: &Walk,
    result: &mut Data<'static>,
    at: &Place,
) -> Result<(), ComputeError> {
    fn typed<T: Numeric>(
        source: &[T],
        walk: &Walk,
        result: &mut Data<'static>,
        at: &Place,
    ) -> Result<(), ComputeError> {
        let given = result.number();
        let wrong = || ComputeError::Type { given, wanted: T::NUMBER };
        let result = T::unwrap_mut(result).ok_or_else(wrong)?;
        gather(source, walk, result, at);
        Ok(())
    }
    with_elements!(data, source => typed(&source[..], walk, result, at))
}

/// The elements of `region`, dense in C order, in one step.
fn evaluate<'s>(
    node: &'s Blocked<'_>,
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    match &node.0.kind {
        Kind::View { of, along } => viewed(node, of, along, region, sources),
        Kind::Map { operation, operands } => mapped(node, *operation, operands, region, sources),
        Kind::Joined { axis, parts } => joined(node, *axis, parts, region, sources),
        Kind::Reshaped(of) => reshaped(node, of, region, sources),
        Kind::Function(function) => Ok(checked(function(region)?, node, region)?),
        _ => {
            let along: Vec<Along> = (0..node.ndim()).map(Along::same).collect();
            viewed(node, node, &along, region, sources)
        }
    }
}

fn checked(
    block: Block,
    node: &Blocked<'_>,
    region: &Region,
) -> Result<Data<'static>, ComputeError> {
    if block.number() != node.number() {
        return Err(ComputeError::Type { given: block.number(), wanted: node.number() });
    }
    if block.shape() != region.lens() {
        let given = block.data().len() as u64;
        return Err(ComputeError::Elements { shape: region.len.clone(), given });
    }
    Ok(block.into_data())
}

/// A function of elements at the same positions.
fn mapped<'s>(
    node: &'s Blocked<'_>,
    operation: Operation,
    operands: &'s [Blocked<'_>],
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    let seen: Vec<Data<'s>> = operands
        .iter()
        .map(|operand| operand_of(operand, node, region, sources))
        .collect::<Result<_, _>>()?;
    Ok(match (operation, &seen[..]) {
        (Operation::Unary(operation), [a]) => unary(operation, a)?,
        (Operation::Binary(operation), [a, b]) => binary(operation, a, b)?,
        (Operation::Select, [condition, yes, no]) => select(condition, yes, no)?,
        (Operation::Cast, [_]) => {
            let operand = seen.into_iter().next();
            operand.map(|data| cast(data, node.number())).ok_or(WRONG_COUNT)?
        }
        _ => return Err(WRONG_COUNT),
    })
}

const WRONG_COUNT: ComputeError =
    ComputeError::Mistake("a function with a wrong number of operands");

/// An operand over `region` of the result: as many elements, or one.
fn operand_of<'s>(
    operand: &'s Blocked<'_>,
    node: &Blocked<'_>,
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    let part = projected(operand, node, region);
    if is_constant(operand) && region.count() > 0 {
        let one = Region { len: vec![1; part.len.len()], ..part };
        return evaluate(operand, &one, sources);
    }
    let data = evaluate(operand, &part, sources)?;
    if data.len() == region.count() || data.len() == 1 {
        return Ok(data);
    }
    // Repeated along some axes.
    let missing = region.len.len() - part.len.len();
    let strides = dense_strides(&part.len);
    let step = |axis: usize| match axis.checked_sub(missing) {
        Some(inner) if part.len[inner] == region.len[axis] => strides[inner],
        _ => 0,
    };
    let lens = region.lens();
    let axes = lens.iter().enumerate();
    let axes = axes.map(|(axis, &len)| Axis { len, step: Step::Stride(step(axis)) }).collect();
    let mut result = zeros(operand, region)?;
    copy(&data, &Walk { base: 0, axes }, &mut result, &Place::dense(&lens))?;
    Ok(result)
}

/// Whether all its elements are one number.
pub(crate) fn is_constant(node: &Blocked<'_>) -> bool {
    match &node.0.kind {
        Kind::Indexed(function) => function.is_constant(),
        Kind::View { of, .. } => is_constant(of),
        Kind::Map { operation: Operation::Cast, operands } => operands.iter().all(is_constant),
        _ => false,
    }
}

/// The positions of an operand that meet `region` of the result.
pub(crate) fn projected(operand: &Blocked<'_>, node: &Blocked<'_>, region: &Region) -> Region {
    let missing = region.len.len() - operand.ndim();
    let axes = operand.shape().iter().enumerate();
    let (start, len) = axes
        .map(|(axis, &len)| {
            let outer = axis + missing;
            match len == 1 && node.shape()[outer] != 1 {
                true => (0, region.len[outer].min(1)),
                false => (region.start[outer], region.len[outer]),
            }
        })
        .unzip();
    Region { start, len }
}

/// Parts one after another.
fn joined<'s>(
    node: &Blocked<'_>,
    axis: usize,
    parts: &'s [(u64, Blocked<'_>)],
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    let met: Vec<(usize, Region)> = parts_met(axis, parts, region).collect();
    if let [(index, part)] = &met[..] {
        return evaluate(&parts[*index].1, part, sources);
    }
    let mut result = zeros(node, region)?;
    let lens = region.lens();
    for (index, part) in met {
        let mut at = vec![0; lens.len()];
        at[axis] = to_usize(parts[index].0 + part.start[axis] - region.start[axis]);
        let data = evaluate(&parts[index].1, &part, sources)?;
        place(&data, &part.lens(), &mut result, &Place::inside(&lens, &at))?;
    }
    Ok(result)
}

/// Which parts `region` meets, and where.
pub(crate) fn parts_met<'s>(
    axis: usize,
    parts: &'s [(u64, Blocked<'_>)],
    region: &'s Region,
) -> impl Iterator<Item = (usize, Region)> + use<'s> {
    let (low, high) = (region.start[axis], region.start[axis] + region.len[axis]);
    let spans: Vec<(u64, u64)> =
        parts.iter().map(|(start, part)| (*start, start + part.shape()[axis])).collect();
    spans.into_iter().enumerate().filter_map(move |(index, (start, end))| {
        let (from, to) = (low.max(start), high.min(end));
        let mut part = region.clone();
        part.start[axis] = from.checked_sub(start)?;
        part.len[axis] = to.checked_sub(from).filter(|&len| len > 0)?;
        Some((index, part))
    })
}

/// Other positions of what lies somewhere or is made somehow.
fn viewed<'s>(
    node: &Blocked<'_>,
    of: &'s Blocked<'_>,
    along: &[Along],
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    if region.count() == 0 {
        return zeros(node, region);
    }
    let shape = of.shape();
    match &of.0.kind {
        Kind::Stored(_) => {
            let covers = |mapped: &&Mapped<'_>| mapped.covers(node.identity(), region);
            let Some(mapped) = sources.mapped()?.iter().find(covers) else {
                return Err(ComputeError::Mistake("an array was not mapped for a task"));
            };
            let walk = mapped.walk(along, region);
            let data = from_memory(mapped.data.borrowed(), &walk, region)?;
            Ok(if mapped.is_native { data } else { swapped(data) })
        }
        Kind::Memory(data) => {
            let walk = walk(along, region, &vec![0; shape.len()], &dense_strides(shape));
            from_memory(data.borrowed(), &walk, region)
        }
        Kind::Indexed(function) => {
            let walk = walk(along, region, &vec![0; shape.len()], &dense_strides(shape));
            let mut result = zeros(of, region)?;
            let mut filled = Ok(());
            walk.rows(&Place::dense(&region.lens()), &mut |at, stride, first, step, count| {
                if filled.is_ok() {
                    filled = function.fill(&mut result, Run { at, stride, first, step, count });
                }
            });
            filled.map(|()| result)
        }
        Kind::Tasks(_) => from_blocks(of, along, region, sources),
        _ => from_hull(of, along, region, sources),
    }
}

/// What `walk` names of `data`; not copied if it lies dense.
fn from_memory<'s>(data: Data<'s>, walk: &Walk, region: &Region) -> Result<Data<'s>, ComputeError> {
    if let Some(run) = walk.as_run() {
        return Ok(with_elements!(data, elements => Numeric::wrap(match elements {
            Cow::Borrowed(elements) => Cow::Borrowed(&elements[run]),
            Cow::Owned(elements) => Cow::Owned(elements[run].to_vec()),
        })));
    }
    let mut result = Data::zeros(data.number(), region.count());
    copy(&data, walk, &mut result, &Place::dense(&region.lens()))?;
    Ok(result)
}

/// The elements in the other byte order.
pub(crate) fn swapped(data: Data<'_>) -> Data<'static> {
    fn each<T: Numeric>(elements: Cow<'_, [T]>) -> Data<'static> {
        Data::owned(elements.iter().map(|element| element.swapped()).collect())
    }
    with_elements!(data, elements => each(elements))
}

/// A part of one axis that lies in one block: where it begins in the result, how long it is there,
/// and the block's place along the axis.
type Segment = (u64, u64, u64);

/// The parts of `region` along each axis of `of` that lie in one block each.
pub(crate) fn segments(of: &Blocked<'_>, along: &[Along], region: &Region) -> Vec<Vec<Segment>> {
    let of_axis = |(axis, along): (usize, &Along)| {
        let block_len = of.block_shape()[axis];
        let Some(result) = along.axis() else {
            return vec![(0, 1, along.position(0) / block_len)];
        };
        let mut found: Vec<Segment> = Vec::new();
        let mut at = 0;
        while at < region.len[result] {
            let position = along.position(region.start[result] + at);
            let (block, left) = (position / block_len, region.len[result] - at);
            let len = match along {
                Along::Step { step, .. } if *step > 0 => {
                    (block_len - position % block_len).div_ceil(step.unsigned_abs())
                }
                Along::Step { step, .. } => position % block_len / step.unsigned_abs().max(1) + 1,
                _ => 1,
            };
            let len = len.min(left);
            match found.last_mut() {
                Some((_, before, last)) if *last == block => *before += len,
                _ => found.push((at, len, block)),
            }
            at += len;
        }
        found
    };
    along.iter().enumerate().map(of_axis).collect()
}

/// Calls `see` with each way to take one segment of every axis.
pub(crate) fn each_combination<E>(
    segments: &[Vec<Segment>],
    mut see: impl FnMut(&[Segment]) -> Result<(), E>,
) -> Result<(), E> {
    let counts: Vec<u64> = segments.iter().map(|of_axis| of_axis.len() as u64).collect();
    (0..counts.iter().product()).try_for_each(|number| {
        let at = super::region::position(number, &counts);
        let taken = segments.iter().zip(at).map(|(of_axis, at)| of_axis[to_usize(at)]);
        see(&taken.collect::<Vec<_>>())
    })
}

/// From blocks that tasks returned.
fn from_blocks<'s>(
    of: &Blocked<'_>,
    along: &[Along],
    region: &Region,
    sources: &'s Sources<'_, '_>,
) -> Result<Data<'s>, ComputeError> {
    let grid = &of.0.grid;
    let found = segments(of, along, region);
    let is_single = found.iter().all(|of_axis| of_axis.len() == 1);
    let lens = region.lens();
    let mut result = if is_single { None } else { Some(zeros(of, region)?) };
    let mut whole = None;
    each_combination(&found, |taken| {
        let position: Vec<u64> = taken.iter().map(|&(_, _, block)| block).collect();
        let block = sources.block(of, grid.number(&position))?;
        let origin = grid.region(&position);
        let (mut part, mut at) = (region.clone(), vec![0; lens.len()]);
        for (along, &(first, len, _)) in along.iter().zip(taken) {
            if let Some(axis) = along.axis() {
                part.start[axis] += first;
                part.len[axis] = len;
                at[axis] = to_usize(first);
            }
        }
        let walk = walk(along, &part, &origin.start, &dense_strides(&origin.len));
        match &mut result {
            Some(result) => copy(block.data(), &walk, result, &Place::inside(&lens, &at)),
            None => {
                whole = Some(from_memory(block.data().borrowed(), &walk, region)?);
                Ok(())
            }
        }
    })?;
    whole.or(result).ok_or(ComputeError::Mistake("an array without blocks was read"))
}

/// From the smallest region that holds all; cut in halves while that is much too large.
fn from_hull(
    of: &Blocked<'_>,
    along: &[Along],
    region: &Region,
    sources: &Sources<'_, '_>,
) -> Result<Data<'static>, ComputeError> {
    let mut result = zeros(of, region)?;
    let lens = region.lens();
    let mut left = vec![region.clone()];
    while let Some(part) = left.pop() {
        let hull = hull(along, &part);
        let widest = (0..part.len.len()).max_by_key(|&axis| part.len[axis]);
        if let Some(axis) = widest
            && part.len[axis] > 1
            && hull.count() / HULL_FACTOR > part.count()
        {
            let (mut first, mut second) = (part.clone(), part);
            first.len[axis] /= 2;
            second.start[axis] += first.len[axis];
            second.len[axis] -= first.len[axis];
            left.extend([second, first]);
            continue;
        }
        let data = elements(of, &hull, sources)?;
        let walk = walk(along, &part, &hull.start, &dense_strides(&hull.len));
        let at: Vec<usize> =
            part.start.iter().zip(&region.start).map(|(at, start)| to_usize(at - start)).collect();
        copy(&data, &walk, &mut result, &Place::inside(&lens, &at))?;
    }
    Ok(result)
}

/// The same elements in another shape: runs of them, each some boxes of the other shape.
fn reshaped(
    node: &Blocked<'_>,
    of: &Blocked<'_>,
    region: &Region,
    sources: &Sources<'_, '_>,
) -> Result<Data<'static>, ComputeError> {
    let mut result = zeros(node, region)?;
    let mut at = 0;
    each_run(node.shape(), region, |first, count| {
        for part in boxes(of.shape(), first, count) {
            let data = elements(of, &part, sources)?;
            place(&data, &[data.len()], &mut result, &Place { start: at, strides: vec![1] })?;
            at += data.len();
        }
        Ok(())
    })?;
    Ok(result)
}

/// Calls `see` with each run of positions of `region` that follow each other in C order: the first
/// and how many.
pub(crate) fn each_run(
    shape: &[u64],
    region: &Region,
    mut see: impl FnMut(u64, u64) -> Result<(), ComputeError>,
) -> Result<(), ComputeError> {
    if region.count() == 0 {
        return Ok(());
    }
    // Axes behind `split` are whole.
    let whole = (0..shape.len()).rev().take_while(|&axis| region.len[axis] == shape[axis]).count();
    let split = shape.len().saturating_sub(whole + 1);
    let run: u64 = region.len.get(split..).map_or(1, |lens| lens.iter().product());
    let strides = dense_strides(shape);
    let outer = region.len[..split.min(region.len.len())].to_vec();
    (0..outer.iter().product()).try_for_each(|number| {
        let mut at = super::region::position(number, &outer);
        at.resize(shape.len(), 0);
        let positions = at.iter().zip(&region.start).zip(&strides);
        let first =
            positions.map(|((at, start), stride)| (at + start) * stride.unsigned_abs()).sum();
        see(first, run)
    })
}

/// The `count` positions from `first` on in C order as boxes of `shape`, in their order.
pub(crate) fn boxes(shape: &[u64], first: u64, count: u64) -> Vec<Region> {
    let mut found = Vec::new();
    add_boxes(shape, &mut Vec::new(), first, count, &mut found);
    found
}

fn add_boxes(shape: &[u64], outer: &mut Vec<u64>, first: u64, count: u64, found: &mut Vec<Region>) {
    if count == 0 {
        return;
    }
    let Some((_, inner)) = shape.get(outer.len()..).and_then(<[u64]>::split_first) else {
        return found.push(Region { start: outer.clone(), len: vec![1; outer.len()] });
    };
    let row: u64 = inner.iter().product();
    let (mut first, mut count) = (first, count);
    let mut within = |at: u64, first: u64, count: u64, found: &mut Vec<Region>| {
        outer.push(at);
        add_boxes(shape, outer, first, count, found);
        outer.pop();
    };
    if first % row != 0 {
        let head = count.min(row - first % row);
        within(first / row, first % row, head, found);
        first += head;
        count -= head;
    }
    let rows = count / row;
    if rows > 0 {
        let mut start = outer.clone();
        start.push(first / row);
        start.resize(shape.len(), 0);
        let mut len = vec![1; outer.len()];
        len.push(rows);
        len.extend_from_slice(inner);
        found.push(Region { start, len });
    }
    if count % row > 0 {
        outer.push(first / row + rows);
        add_boxes(shape, outer, 0, count % row, found);
        outer.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_positions_is_some_boxes_in_the_same_order() {
        let shape = [3, 4, 5];
        let strides = dense_strides(&shape);
        for first in 0..60 {
            for count in 0..=60 - first {
                let mut seen = Vec::new();
                for part in boxes(&shape, first, count) {
                    each_run(&shape, &part, |first, count| {
                        seen.extend(first..first + count);
                        Ok(())
                    })
                    .unwrap();
                }
                assert_eq!(seen, (first..first + count).collect::<Vec<_>>(), "{strides:?}");
            }
        }
        assert_eq!(boxes(&[], 0, 1), [Region { start: vec![], len: vec![] }]);
    }
}
