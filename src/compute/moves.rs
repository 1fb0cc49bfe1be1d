//! Indexing and other ways to say where elements go: nothing here computes any.
//!
//! Slices, transposes and the like of a read become another read; those of a function of elements
//! go to its operands.

use std::slice;

use super::blocked::each_block;
use super::node::{Blocked, Kind};
use super::number::{Number, Scalar};
use super::region::to_i64;
use super::trouble::ComputeError;
use super::view::Along;
use crate::array::{Index, IndexError, Indices, Order, index};

/// Most positions that an index by list may have: as much memory as lists may take.
const LIST_MAX: u64 = 1 << 27;

/// How [`Blocked::pad`] goes on at the ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// With one value.
    Constant(Scalar),
    /// With the last element.
    Edge,
    /// Mirrored at the last element, which is not repeated.
    Reflect,
    /// Mirrored behind the last element, which is repeated.
    Symmetric,
    /// From the other end again.
    Wrap,
}

impl<'e> Blocked<'e> {
    /// The elements that `indices` select, as NumPy's basic indexing has it: `"10:20, ..., -1"`.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Index`].
    pub fn slice<I: Indices + ?Sized>(&self, indices: &I) -> Result<Self, ComputeError> {
        let indices = indices.indices()?;
        let named = |index: &&Index| matches!(index, Index::At(_) | Index::Slice { .. });
        let given = indices.iter().filter(named).count();
        let ndim = self.ndim();
        let Some(missing) = ndim.checked_sub(given) else {
            return Err(IndexError::TooMany { given, ndim }.into());
        };
        if indices.iter().filter(|index| matches!(index, Index::Ellipsis)).count() > 1 {
            return Err(IndexError::TwoEllipses.into());
        }
        let (mut along, mut shape) = (Vec::new(), Vec::new());
        let all = |along: &mut Vec<Along>, shape: &mut Vec<u64>, count: usize| {
            for _ in 0..count {
                let len = self.shape()[along.len()];
                along.push(Along::same(shape.len()));
                shape.push(len);
            }
        };
        for &index in &indices {
            let axis = along.len();
            match index {
                Index::NewAxis => shape.push(1),
                Index::Ellipsis => all(&mut along, &mut shape, missing),
                _ => {
                    let (first, step, len) = self.resolve(index, axis)?;
                    match len {
                        None => along.push(Along::At(first)),
                        Some(len) => {
                            along.push(Along::Step { axis: shape.len(), start: first, step });
                            shape.push(len);
                        }
                    }
                }
            }
        }
        let rest = ndim - along.len();
        all(&mut along, &mut shape, rest);
        self.viewed(along, &shape)
    }

    /// One index of one axis: first position, step, and length unless the axis goes.
    fn resolve(&self, index: Index, axis: usize) -> Result<(u64, i64, Option<u64>), ComputeError> {
        let len = self.shape()[axis];
        let found = index::resolve(&[index], &[len], 1, Order::C).map_err(|error| match error {
            IndexError::OutOfRange { index, len, .. } => {
                IndexError::OutOfRange { index, axis, len }
            }
            IndexError::ZeroStep { .. } => IndexError::ZeroStep { axis },
            other => other,
        })?;
        let len = found.shape().first().copied();
        let step = match len {
            Some(len) if len > 1 => i64::try_from(found.strides()[0]).unwrap_or(1),
            _ => 1,
        };
        Ok((found.offset(), step, len))
    }

    /// The axis that a number names; negative ones count from the end.
    pub(crate) fn axis(&self, operation: &'static str, axis: i64) -> Result<usize, ComputeError> {
        axis_of(operation, axis, self.ndim(), self.shape())
    }

    pub(crate) fn argument(&self, operation: &'static str, why: impl Into<String>) -> ComputeError {
        ComputeError::Argument { operation, shape: self.shape().to_vec(), why: why.into() }
    }

    /// The elements at these positions of an axis; negative ones count from the end. NumPy's
    /// `take`, and an index by list along one axis.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`]; [`ComputeError::Index`] for a position that is not there.
    pub fn take(&self, positions: &[i64], axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("take", axis)?;
        let len = self.shape()[axis];
        let at = |&index: &i64| {
            let from_end = if index < 0 { to_i64(len).checked_add(index) } else { Some(index) };
            let at = from_end.and_then(|at| u64::try_from(at).ok()).filter(|&at| at < len);
            at.ok_or(IndexError::OutOfRange { index: index.into(), axis, len })
        };
        let at: Vec<u64> = positions.iter().map(at).collect::<Result<_, _>>()?;
        self.listed(axis, at)
    }

    fn listed(&self, axis: usize, at: Vec<u64>) -> Result<Self, ComputeError> {
        let mut shape = self.shape().to_vec();
        shape[axis] = at.len() as u64;
        let mut along: Vec<Along> = (0..self.ndim()).map(Along::same).collect();
        along[axis] = Along::List { axis, at: at.into() };
        self.viewed(along, &shape)
    }

    /// The elements along an axis where `mask` is true. NumPy's `compress`, and an index by truth
    /// values along one axis.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`]; [`ComputeError::Argument`] if the mask has not the axis' length.
    pub fn compress(&self, mask: &[bool], axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("compress", axis)?;
        if mask.len() as u64 != self.shape()[axis] {
            let why = format!("the mask has {} elements for axis {axis}", mask.len());
            return Err(self.argument("compress", why));
        }
        let at = (0..).zip(mask).filter(|(_, is_taken)| **is_taken).map(|(at, _)| at);
        self.listed(axis, at.collect())
    }

    /// The axes in this order.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`], [`ComputeError::AxisTwice`]; [`ComputeError::Argument`] if not all
    /// are named.
    pub fn transpose(&self, axes: &[i64]) -> Result<Self, ComputeError> {
        if axes.len() != self.ndim() {
            return Err(self.argument("transpose", format!("{axes:?} does not name every axis")));
        }
        let axes = self.distinct("transpose", axes)?;
        let shape: Vec<u64> = axes.iter().map(|&axis| self.shape()[axis]).collect();
        let mut along = vec![Along::At(0); self.ndim()];
        for (result, &axis) in axes.iter().enumerate() {
            along[axis] = Along::same(result);
        }
        self.viewed(along, &shape)
    }

    /// The axes in reverse, NumPy's `.T`.
    ///
    /// # Errors
    ///
    /// None but [`ComputeError::TooDeep`].
    pub fn transposed(&self) -> Result<Self, ComputeError> {
        let axes: Vec<i64> = (0..self.ndim() as u64).rev().map(to_i64).collect();
        self.transpose(&axes)
    }

    /// Two axes for each other.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn swapaxes(&self, one: i64, other: i64) -> Result<Self, ComputeError> {
        let (one, other) = (self.axis("swapaxes", one)?, self.axis("swapaxes", other)?);
        let mut axes: Vec<i64> = (0..self.ndim() as u64).map(to_i64).collect();
        axes.swap(one, other);
        self.transpose(&axes)
    }

    /// Axes by number, each once.
    pub(crate) fn distinct(
        &self,
        operation: &'static str,
        axes: &[i64],
    ) -> Result<Vec<usize>, ComputeError> {
        let mut found = Vec::with_capacity(axes.len());
        for &axis in axes {
            let at = self.axis(operation, axis)?;
            if found.contains(&at) {
                return Err(ComputeError::AxisTwice { operation, axis });
            }
            found.push(at);
        }
        Ok(found)
    }

    /// The elements of the axis backwards.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn flip(&self, axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("flip", axis)?;
        let mut along: Vec<Along> = (0..self.ndim()).map(Along::same).collect();
        along[axis] = Along::Step { axis, start: self.shape()[axis].saturating_sub(1), step: -1 };
        self.viewed(along, self.shape())
    }

    /// A new axis of length 1 at this place of the result.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn expand_dims(&self, axis: i64) -> Result<Self, ComputeError> {
        let at = axis_of("expand_dims", axis, self.ndim() + 1, self.shape())?;
        let mut shape = self.shape().to_vec();
        shape.insert(at, 1);
        let place = |axis: usize| Along::same(if axis < at { axis } else { axis + 1 });
        self.viewed((0..self.ndim()).map(place).collect(), &shape)
    }

    /// Without this axis, which has length 1.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`]; [`ComputeError::Argument`] if it is longer.
    pub fn squeeze(&self, axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("squeeze", axis)?;
        if self.shape()[axis] != 1 {
            return Err(self.argument("squeeze", format!("axis {axis} has not length 1")));
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        let place = |at: usize| match at.cmp(&axis) {
            std::cmp::Ordering::Less => Along::same(at),
            std::cmp::Ordering::Equal => Along::At(0),
            std::cmp::Ordering::Greater => Along::same(at - 1),
        };
        self.viewed((0..self.ndim()).map(place).collect(), &shape)
    }

    /// Repeated along axes of length 1, and along new ones in front.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Broadcast`] if that does not give `shape`.
    pub fn broadcast_to(&self, shape: &[u64]) -> Result<Self, ComputeError> {
        let operation = "broadcast_to";
        if super::math::broadcast(operation, self.shape(), shape)? != shape {
            let (left, right) = (self.shape().to_vec(), shape.to_vec());
            return Err(ComputeError::Broadcast { operation, left, right });
        }
        let missing = shape.len() - self.ndim();
        let place = |axis: usize| match self.shape()[axis] == shape[axis + missing] {
            true => Along::same(axis + missing),
            false => Along::At(0),
        };
        self.viewed((0..self.ndim()).map(place).collect(), shape)
    }

    /// The same elements in C order in another shape; one length may be -1: what is left.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if the number of elements differs.
    pub fn reshape(&self, shape: &[i64]) -> Result<Self, ComputeError> {
        let refused = || self.argument("reshape", format!("it cannot become {shape:?}"));
        let (mut known, mut open) = (1_u64, None);
        for (axis, &len) in shape.iter().enumerate() {
            match len {
                -1 if open.is_none() => open = Some(axis),
                len => {
                    let len = u64::try_from(len).map_err(|_| refused())?;
                    known = known.checked_mul(len).ok_or_else(refused)?;
                }
            }
        }
        let mut lens: Vec<u64> = shape.iter().map(|&len| len.unsigned_abs()).collect();
        if let Some(axis) = open {
            if known == 0 || !self.size().is_multiple_of(known) {
                return Err(refused());
            }
            lens[axis] = self.size() / known;
        } else if known != self.size() {
            return Err(refused());
        }
        if lens == self.shape() {
            return Ok(self.clone());
        }
        let of = match &self.0.kind {
            Kind::Reshaped(of) => of.clone(),
            _ => self.clone(),
        };
        Self::of_kind(Kind::Reshaped(of), &lens, self.number())
    }

    /// All elements in C order along one axis.
    ///
    /// # Errors
    ///
    /// None but [`ComputeError::TooDeep`].
    pub fn ravel(&self) -> Result<Self, ComputeError> {
        self.reshape(&[to_i64(self.size())])
    }

    /// Arrays one after another along an axis, in the type in which they meet.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if there are none or their other axes differ,
    /// [`ComputeError::Axis`].
    pub fn concatenate(parts: &[Self], axis: i64) -> Result<Self, ComputeError> {
        let operation = "concatenate";
        let Some(first) = parts.first() else {
            let (shape, why) = (Vec::new(), "there are no arrays".to_owned());
            return Err(ComputeError::Argument { operation, shape, why });
        };
        let axis = first.axis(operation, axis)?;
        let number = parts.iter().fold(first.number(), |number, part| number.with(part.number()));
        let (mut found, mut at) = (Vec::new(), 0_u64);
        for part in parts {
            let mut like = part.shape().to_vec();
            if let Some(len) = like.get_mut(axis) {
                *len = first.shape()[axis];
            }
            if like != first.shape() {
                let why = format!("one of shape {:?} does not fit along axis {axis}", part.shape());
                return Err(first.argument(operation, why));
            }
            if part.shape()[axis] > 0 {
                found.push((at, part.astype(number)?));
            }
            at = at.saturating_add(part.shape()[axis]);
        }
        let mut shape = first.shape().to_vec();
        shape[axis] = at;
        if found.is_empty() {
            return first.astype(number);
        }
        Self::of_kind(Kind::Joined { axis, parts: found }, &shape, number)
    }

    /// Arrays of one shape along a new axis.
    ///
    /// # Errors
    ///
    /// Those of [`concatenate`](Self::concatenate).
    pub fn stack(parts: &[Self], axis: i64) -> Result<Self, ComputeError> {
        let parts =
            parts.iter().map(|part| part.expand_dims(axis)).collect::<Result<Vec<_>, _>>()?;
        Self::concatenate(&parts, axis)
    }

    /// Each element so many times along an axis.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`]; [`ComputeError::Argument`] above 2^27 positions.
    pub fn repeat(&self, times: u64, axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("repeat", axis)?;
        let len = self.shape()[axis].checked_mul(times).filter(|&len| len <= LIST_MAX);
        let Some(len) = len else {
            return Err(self.argument("repeat", format!("{times} times is too often")));
        };
        self.listed(axis, (0..len).map(|at| at / times).collect())
    }

    /// The elements moved along an axis; those that leave at one end come in at the other.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn roll(&self, shift: i64, axis: i64) -> Result<Self, ComputeError> {
        let at = self.axis("roll", axis)?;
        let len = self.shape()[at];
        if len == 0 {
            return Ok(self.clone());
        }
        let shift = u64::try_from(i128::from(shift).rem_euclid(i128::from(len))).unwrap_or(0);
        let parts = [self.between(at, len - shift, len)?, self.between(at, 0, len - shift)?];
        Self::concatenate(&parts, to_i64(at as u64))
    }

    /// The positions `from..to` of an axis.
    pub(crate) fn between(&self, axis: usize, from: u64, to: u64) -> Result<Self, ComputeError> {
        let mut shape = self.shape().to_vec();
        shape[axis] = to - from;
        let mut along: Vec<Along> = (0..self.ndim()).map(Along::same).collect();
        along[axis] = Along::Step { axis, start: from, step: 1 };
        self.viewed(along, &shape)
    }

    /// Longer at both ends of each axis, by these counts.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if there is not a pair for each axis, or an axis is too short to
    /// be mirrored or repeated.
    pub fn pad(&self, widths: &[(u64, u64)], mode: PadMode) -> Result<Self, ComputeError> {
        if widths.len() != self.ndim() {
            return Err(self.argument("pad", format!("{widths:?} is not a pair for each axis")));
        }
        let mut padded = self.clone();
        for (axis, &(before, behind)) in widths.iter().enumerate() {
            if before == 0 && behind == 0 {
                continue;
            }
            padded = match mode {
                PadMode::Constant(value) => padded.pad_with(axis, before, behind, value)?,
                _ => padded.pad_from_itself(axis, before, behind, mode)?,
            };
        }
        Ok(padded)
    }

    fn pad_with(
        &self,
        axis: usize,
        before: u64,
        behind: u64,
        value: Scalar,
    ) -> Result<Self, ComputeError> {
        let part = |len: u64| {
            let mut shape = self.shape().to_vec();
            shape[axis] = len;
            Self::full(&shape, value, self.number())
        };
        Self::concatenate(&[part(before)?, self.clone(), part(behind)?], to_i64(axis as u64))
    }

    fn pad_from_itself(
        &self,
        axis: usize,
        before: u64,
        behind: u64,
        mode: PadMode,
    ) -> Result<Self, ComputeError> {
        let len = i128::from(self.shape()[axis]);
        if len == 0 {
            return Err(self.argument("pad", format!("axis {axis} has nothing to repeat")));
        }
        if before.saturating_add(behind) > LIST_MAX {
            return Err(self.argument("pad", "so many positions are too many".to_owned()));
        }
        // Position of the array at a position that may be outside.
        let inside = |at: i128| match mode {
            PadMode::Reflect if len == 1 => 0,
            PadMode::Reflect => {
                let at = at.rem_euclid(2 * len - 2);
                at.min(2 * len - 2 - at)
            }
            PadMode::Symmetric => {
                let at = at.rem_euclid(2 * len);
                at.min(2 * len - 1 - at)
            }
            PadMode::Wrap => at.rem_euclid(len),
            _ => at.clamp(0, len - 1),
        };
        let list = |from: i128, to: i128| {
            let at = (from..to).map(|at| u64::try_from(inside(at)).unwrap_or(0)).collect();
            self.listed(axis, at)
        };
        let parts =
            [list(-i128::from(before), 0)?, self.clone(), list(len, len + i128::from(behind))?];
        Self::concatenate(&parts, to_i64(axis as u64))
    }

    /// The elements where `mask` is true, in C order along one axis. Their number has to be known,
    /// so this reads the mask: it runs tasks before it returns. NumPy's `x[mask]`.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if the shapes differ or there are more than 2^27;
    /// [`ComputeError::Run`].
    pub fn extract(
        &self,
        mask: &Self,
        options: &super::run::RunOptions,
    ) -> Result<Self, ComputeError> {
        if mask.shape() != self.shape() {
            let why = format!("the mask has shape {:?}", mask.shape());
            return Err(self.argument("extract", why));
        }
        let flat = mask.astype(Number::Bool)?.ravel()?;
        let (mut at, mut too_many) = (Vec::new(), false);
        each_block(slice::from_ref(&flat), options, |_, region, block| {
            let truths = (region.start[0]..).zip(block.elements::<crate::array::Bool>()?);
            at.extend(truths.filter(|(_, truth)| truth.get()).map(|(at, _)| at));
            too_many |= at.len() as u64 > LIST_MAX;
            match too_many {
                true => Err(self.argument("extract", "the mask is true too often")),
                false => Ok(()),
            }
        })?;
        // Blocks come in no particular order.
        at.sort_unstable();
        self.ravel()?.listed(0, at)
    }
}

fn axis_of(
    operation: &'static str,
    axis: i64,
    ndim: usize,
    shape: &[u64],
) -> Result<usize, ComputeError> {
    let from_start = if axis < 0 { axis.checked_add(to_i64(ndim as u64)) } else { Some(axis) };
    let found = from_start.and_then(|axis| usize::try_from(axis).ok()).filter(|&at| at < ndim);
    found.ok_or_else(|| ComputeError::Axis { operation, axis, shape: shape.to_vec() })
}
