//! Slices, transposes, repetitions: other positions of the same elements.
//!
//! ```text
//! y = x[10:20:2, 3].T, seen by the axes of x:   Step { axis 0, start 10, step 2 },  At(3)
//! ```
//!
//! A view of a view is a view of what lies below; a view of a function of elements is the function
//! of views, so that slices end up at the reads and nothing is computed that nobody asked for.
//!
//! # Invariants
//!
//! 1. Each axis of the result belongs to at most one axis of what is viewed; one that belongs to
//!    none repeats its elements.
//! 2. All positions lie in what is viewed.

use std::sync::Arc;

use super::gather::{Axis, Step, Walk};
use super::node::{Blocked, Kind};
use super::region::{Region, to_i64, to_usize};
use super::trouble::ComputeError;

/// Where the positions of one axis of what is viewed come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Along {
    /// One position.
    At(u64),
    /// Evenly apart, along an axis of the result.
    Step { axis: usize, start: u64, step: i64 },
    /// These positions, along an axis of the result.
    List { axis: usize, at: Arc<[u64]> },
}

impl Along {
    /// All positions of axis `axis` of both.
    pub(crate) fn same(axis: usize) -> Self {
        Self::Step { axis, start: 0, step: 1 }
    }

    /// The axis of the result.
    pub(crate) fn axis(&self) -> Option<usize> {
        match self {
            Self::At(_) => None,
            Self::Step { axis, .. } | Self::List { axis, .. } => Some(*axis),
        }
    }

    /// The position that position `at` of the result's axis stands for.
    pub(crate) fn position(&self, at: u64) -> u64 {
        match self {
            Self::At(position) => *position,
            Self::Step { start, step, .. } => {
                start.wrapping_add_signed(step.wrapping_mul(to_i64(at)))
            }
            Self::List { at: positions, .. } => positions[to_usize(at)],
        }
    }

    /// The same, seen through `outer`, which says where positions of the result's axis come from.
    fn through(&self, outer: &Self) -> Self {
        match outer {
            Self::At(at) => Self::At(self.position(*at)),
            Self::Step { axis, start: first, step: outer_step } => match self {
                Self::Step { step, .. } => {
                    let start = self.position(*first);
                    Self::Step { axis: *axis, start, step: step.saturating_mul(*outer_step) }
                }
                // Lists through a step need its length: see `composed`.
                _ => outer.clone(),
            },
            Self::List { axis, at } => {
                let at = at.iter().map(|&at| self.position(at)).collect();
                Self::List { axis: *axis, at }
            }
        }
    }

    /// Lowest and one past the highest position of the result's positions `start .. start + len`,
    /// of which there are some.
    pub(crate) fn hull(&self, region: &Region) -> (u64, u64) {
        let Some(axis) = self.axis() else {
            let at = self.position(0);
            return (at, at + 1);
        };
        let (start, len) = (region.start[axis], region.len[axis]);
        match self {
            Self::List { at, .. } => {
                let part = &at[to_usize(start)..to_usize(start + len)];
                let (low, high) = (part.iter().min(), part.iter().max());
                (low.copied().unwrap_or(0), high.map_or(0, |high| high + 1))
            }
            _ => {
                let (one, other) = (self.position(start), self.position(start + len - 1));
                (one.min(other), one.max(other) + 1)
            }
        }
    }

    /// The walk along this axis of what is viewed over `len` positions from `start` on; positions
    /// are counted from `origin` and `stride` elements apart. The base, and the step.
    fn walk(&self, (start, len): (u64, u64), origin: u64, stride: i64) -> (i64, Step) {
        let offset = |at: u64| (to_i64(at) - to_i64(origin)) * stride;
        match self {
            Self::At(at) => (offset(*at), Step::Stride(0)),
            Self::Step { step, .. } if len > 0 => {
                (offset(self.position(start)), Step::Stride(step.saturating_mul(stride)))
            }
            Self::Step { .. } => (0, Step::Stride(0)),
            // One position is none of a list for whoever asks whether elements lie dense.
            Self::List { at, .. } if len == 1 => (offset(at[to_usize(start)]), Step::Stride(0)),
            Self::List { at, .. } => {
                let part = &at[to_usize(start)..to_usize(start + len)];
                (0, Step::Offsets(part.iter().map(|&at| offset(at)).collect()))
            }
        }
    }
}

/// The walk over memory that holds what is viewed from `origin` on, with `strides`.
pub(crate) fn walk(along: &[Along], region: &Region, origin: &[u64], strides: &[i64]) -> Walk {
    let repeated = |&len: &u64| Axis { len: to_usize(len), step: Step::Stride(0) };
    let mut axes: Vec<Axis> = region.len.iter().map(repeated).collect();
    let mut base = 0;
    for (inner, along) in along.iter().enumerate() {
        let part = along.axis().map_or((0, 1), |axis| (region.start[axis], region.len[axis]));
        let (offset, step) = along.walk(part, origin[inner], strides[inner]);
        base += offset;
        if let Some(axis) = along.axis() {
            axes[axis].step = step;
        }
    }
    Walk { base, axes }
}

/// The smallest region of what is viewed that holds all that `region` of the view shows.
pub(crate) fn hull(along: &[Along], region: &Region) -> Region {
    let ends = along.iter().map(|along| along.hull(region));
    let (start, len) = ends.map(|(low, high)| (low, high - low)).unzip();
    Region { start, len }
}

/// `outer` seen through `inner`: a view of a view. `shape` is the result's.
fn composed(inner: &[Along], outer: &[Along], shape: &[u64]) -> Vec<Along> {
    let seen = |inner: &Along| {
        let Some(axis) = inner.axis() else { return inner.clone() };
        match (inner, &outer[axis]) {
            (Along::List { .. }, Along::Step { axis: result, .. }) => {
                let positions =
                    (0..shape[*result]).map(|at| inner.position(outer[axis].position(at)));
                Along::List { axis: *result, at: positions.collect() }
            }
            (_, outer) => inner.through(outer),
        }
    };
    inner.iter().map(seen).collect()
}

impl<'e> Blocked<'e> {
    /// The elements that `along` says, one entry for each axis of `self`, as an array of `shape`.
    pub(crate) fn viewed(&self, along: Vec<Along>, shape: &[u64]) -> Result<Self, ComputeError> {
        let is_same = |(axis, along): (usize, &Along)| *along == Along::same(axis);
        if self.shape() == shape && along.iter().enumerate().all(is_same) {
            return Ok(self.clone());
        }
        let is_repeated =
            |axis: usize| shape[axis] != 1 && !along.iter().any(|along| along.axis() == Some(axis));
        let repeats = (0..shape.len()).any(is_repeated);
        match &self.0.kind {
            Kind::View { of, along: inner } => {
                let along = composed(inner, &along, shape);
                Self::of_kind(Kind::View { of: of.clone(), along }, shape, self.number())
            }
            // Repeated before it is computed, it would be computed again and again.
            Kind::Map { operation, operands } if !repeats => {
                let operands =
                    operands.iter().map(|operand| self.viewed_operand(operand, &along, shape));
                let operands = operands.collect::<Result<_, _>>()?;
                let kind = Kind::Map { operation: *operation, operands };
                Self::of_kind(kind, shape, self.number())
            }
            Kind::Joined { axis, parts } if !repeats => {
                match self.viewed_parts(*axis, parts, &along, shape)? {
                    Some(view) => Ok(view),
                    None => {
                        Self::of_kind(Kind::View { of: self.clone(), along }, shape, self.number())
                    }
                }
            }
            _ => Self::of_kind(Kind::View { of: self.clone(), along }, shape, self.number()),
        }
    }

    /// An operand of this function, seen as the function's result is seen.
    fn viewed_operand(
        &self,
        operand: &Self,
        along: &[Along],
        shape: &[u64],
    ) -> Result<Self, ComputeError> {
        let missing = self.ndim() - operand.ndim();
        let mut seen = vec![1; shape.len()];
        let mut inner = Vec::with_capacity(operand.ndim());
        for (axis, &len) in operand.shape().iter().enumerate() {
            let along = &along[axis + missing];
            if len == 1 && self.shape()[axis + missing] != 1 {
                inner.push(Along::At(0));
                continue;
            }
            if let Some(result) = along.axis() {
                seen[result] = shape[result];
            }
            inner.push(along.clone());
        }
        operand.viewed(inner, &seen)
    }

    /// The view of parts that follow each other along `axis`, if it takes them in order.
    fn viewed_parts(
        &self,
        axis: usize,
        parts: &[(u64, Self)],
        along: &[Along],
        shape: &[u64],
    ) -> Result<Option<Self>, ComputeError> {
        match along[axis] {
            Along::At(at) => {
                let Some((start, part)) = parts.iter().rev().find(|(start, _)| *start <= at) else {
                    return Err(ComputeError::Mistake("a position before the first part"));
                };
                let mut along = along.to_vec();
                along[axis] = Along::At(at - start);
                part.viewed(along, shape).map(Some)
            }
            Along::Step { axis: result, start: first, step } if shape[result] > 0 => {
                let mut found = Vec::new();
                for (start, part) in parts {
                    let end = start + part.shape()[axis];
                    let at = |index: u64| along[axis].position(index);
                    let inside = |index: u64| (*start..end).contains(&at(index));
                    let Some((from, to)) = inside_of(first, step, shape[result], *start, end)
                    else {
                        continue;
                    };
                    debug_assert!(inside(from) && inside(to - 1), "clipped to the part");
                    let mut part_shape = shape.to_vec();
                    part_shape[result] = to - from;
                    let mut part_along = along.to_vec();
                    part_along[axis] = Along::Step { axis: result, start: at(from) - start, step };
                    found.push((from, part.viewed(part_along, &part_shape)?));
                }
                found.sort_by_key(|(from, _)| *from);
                if let [(_, only)] = &found[..] {
                    return Ok(Some(only.clone()));
                }
                let kind = Kind::Joined { axis: result, parts: found };
                Self::of_kind(kind, shape, self.number()).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// The indices `from..to` of the `count` positions `first + index * step` that are in
/// `start..end`.
fn inside_of(first: u64, step: i64, count: u64, start: u64, end: u64) -> Option<(u64, u64)> {
    let first = i128::from(first);
    let (low, high) = match step {
        // Seen backwards, positions ascend.
        step if step < 0 => (-i128::from(end) + 1 + first, -i128::from(start) + 1 + first),
        _ => (i128::from(start) - first, i128::from(end) - first),
    };
    let step = i128::from(step.unsigned_abs());
    let ceil = |at: i128| (at + step - 1).div_euclid(step).clamp(0, i128::from(count));
    let (from, to) = (ceil(low), ceil(high));
    let index = |at: i128| u64::try_from(at).ok();
    if from < to { Some((index(from)?, index(to)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_progression_in_a_range_is_that_of_trying_all() {
        for first in 0..9_u64 {
            for step in [-3_i64, -2, -1, 1, 2, 5] {
                let all: Vec<i64> =
                    (0..6).map(|at| first as i64 + at * step).take_while(|at| *at >= 0).collect();
                for start in 0..12_u64 {
                    for end in start..14 {
                        let inside = |at: &i64| (start as i64..end as i64).contains(at);
                        let from = all.iter().position(inside);
                        let count = all.iter().filter(|at| inside(at)).count() as u64;
                        let wanted = from.map(|from| (from as u64, from as u64 + count));
                        let found = inside_of(first, step, all.len() as u64, start, end);
                        assert_eq!(found, wanted, "{first} {step} {start} {end}");
                    }
                }
            }
        }
    }
}
