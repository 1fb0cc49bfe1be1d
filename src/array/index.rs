//! Indexing expressions: from `10:20, ..., None, -1` to shape, strides and offset.
//!
//! NumPy's basic indexing, exactly. A [`Selection`] is what a view needs: where its first element
//! lies and how far apart its elements are, in bytes of the array.
//!
//! ```text
//! array [6, 4] of f8, C order          A[1::2, -1]
//! bytes 0   8  16  24                  offset 32 + 24, shape [3], strides [64]
//!       32  40 48  56 <- first         byte_range: the first byte of the lowest element to the
//!       ...                            last byte of the highest, whatever the sign of the step
//! ```
//!
//! # Invariants
//!
//! 1. A selection was made from a shape that [`shape::nbytes`] accepts, so all its elements lie in
//!    `[0, nbytes)` of the array, no two of them overlap, and all its sums fit `i128`.
//! 2. An axis of length 0 or 1 has a stride that nobody adds; it may be saturated.
//!
//! # Failure
//!
//! An [`IndexError`] names the axis or the text. Booleans, lists and arrays as indices have no
//! representation: [`parse`] says so instead of taking `True` for 1.

use super::shape::{self, NDIM_MAX, Order, ShapeError};
use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

/// One part of an indexing expression. The numbers are `i128` so that every index of an axis of
/// up to 2^64 - 1 elements, and every `usize`, converts without loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// One position; the axis disappears. Negative counts from the end.
    At(i128),
    /// `start:stop:step` with Python's rules: clamped to the axis, negative steps walk backwards.
    Slice {
        /// First position, or the end the step comes from.
        start: Option<i128>,
        /// One past the last position, or the end the step goes to.
        stop: Option<i128>,
        /// Distance between positions, 1 if absent; never 0.
        step: Option<i128>,
    },
    /// `...`: as many full slices as are missing.
    Ellipsis,
    /// `None`: a new axis of length 1.
    NewAxis,
}

impl Index {
    /// The slice `:`.
    pub const ALL: Self = Self::Slice { start: None, stop: None, step: None };
}

macro_rules! index_from {
    ($($int:ty),*) => {$(
        impl From<$int> for Index {
            fn from(at: $int) -> Self {
                Self::At(at as i128)
            }
        }
        impl From<Range<$int>> for Index {
            fn from(range: Range<$int>) -> Self {
                let (start, stop) = (Some(range.start as i128), Some(range.end as i128));
                Self::Slice { start, stop, step: None }
            }
        }
        impl From<RangeFrom<$int>> for Index {
            fn from(range: RangeFrom<$int>) -> Self {
                Self::Slice { start: Some(range.start as i128), stop: None, step: None }
            }
        }
        impl From<RangeTo<$int>> for Index {
            fn from(range: RangeTo<$int>) -> Self {
                Self::Slice { start: None, stop: Some(range.end as i128), step: None }
            }
        }
    )*};
}
index_from!(i32, i64, u32, u64, isize, usize);

impl From<RangeFull> for Index {
    fn from(_: RangeFull) -> Self {
        Self::ALL
    }
}

/// Why an indexing expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A position outside the axis.
    #[error("index {index} is out of range for axis {axis} of length {len}")]
    OutOfRange {
        /// The position as given.
        index: i128,
        /// The axis of the indexed array.
        axis: usize,
        /// Its length.
        len: u64,
    },
    /// More positions and slices than axes.
    #[error("{given} indices are too many for an array of {ndim} axes")]
    TooMany {
        /// Positions and slices given.
        given: usize,
        /// Axes there are.
        ndim: usize,
    },
    /// A slice of step 0.
    #[error("the slice on axis {axis} has step 0; a step must not be zero")]
    ZeroStep {
        /// The axis of the indexed array.
        axis: usize,
    },
    /// `...` twice.
    #[error("an index can hold only one ellipsis (`...`)")]
    TwoEllipses,
    /// `True` or `False`.
    #[error("the boolean index `{text}` is not supported; use a number or a slice")]
    Boolean {
        /// The part of the expression.
        text: String,
    },
    /// A list, tuple or array as index.
    #[error(
        "`{text}` is an index by list or array, which is not supported; take a view, then copy"
    )]
    Fancy {
        /// The part of the expression.
        text: String,
    },
    /// Anything else.
    #[error("`{text}` is not an index; use numbers, `start:stop:step`, `...` and `None`")]
    NotAnIndex {
        /// The part of the expression.
        text: String,
    },
    /// The array indexed, or the result, has a shape that cannot be used.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// The elements of an array that an indexing expression selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    // Invariants 1 and 2.
    shape: Vec<u64>,
    strides: Vec<i128>,
    offset: u64,
    itemsize: u64,
}

/// Selects from an array of `shape`, `itemsize` and `order` what `indices` say.
///
/// Missing trailing indices are full slices; an empty slice of indices selects everything. The
/// result's shape, strides and offset are NumPy's. Cost O(axes).
///
/// # Errors
///
/// Those of [`Selection::whole`] and [`Selection::select`].
///
/// # Panics
///
/// If `itemsize` is 0.
pub fn resolve(
    indices: &[Index],
    shape: &[u64],
    itemsize: u64,
    order: Order,
) -> Result<Selection, IndexError> {
    Selection::whole(shape, itemsize, order)?.select(indices)
}

/// So many rows more that `indices` cannot but select something else, if the end matters to them.
pub(super) fn reach(indices: &[Index]) -> u64 {
    let size = |number: Option<i128>| {
        number.map_or(0, |n| u64::try_from(n.unsigned_abs()).unwrap_or(u64::MAX))
    };
    let of = |index: &Index| match *index {
        Index::At(at) => size(Some(at)),
        Index::Slice { start, stop, step } => {
            size(start).max(size(stop)).saturating_add(size(step))
        }
        Index::Ellipsis | Index::NewAxis => 0,
    };
    indices.iter().map(of).max().unwrap_or(0).saturating_add(1)
}

impl Selection {
    /// All elements of an array.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if [`shape::nbytes`] refuses the shape.
    ///
    /// # Panics
    ///
    /// If `itemsize` is 0, which no data type has: elements would overlap (invariant 1).
    pub fn whole(shape: &[u64], itemsize: u64, order: Order) -> Result<Self, ShapeError> {
        assert!(itemsize > 0, "an element has at least one byte");
        shape::nbytes(shape, itemsize)?;
        let strides = shape::strides(shape, itemsize, order).into_iter().map(i128::from).collect();
        Ok(Self { shape: shape.to_vec(), strides, offset: 0, itemsize })
    }

    /// Selects from this selection, as NumPy indexes a view of a view.
    ///
    /// # Errors
    ///
    /// [`IndexError::OutOfRange`], [`IndexError::TooMany`], [`IndexError::ZeroStep`],
    /// [`IndexError::TwoEllipses`], and [`ShapeError::TooManyAxes`] if new axes make too many.
    pub fn select(&self, indices: &[Index]) -> Result<Self, IndexError> {
        let missing = self.axes_missing(indices)?;
        let mut result =
            Self { shape: Vec::new(), strides: Vec::new(), offset: 0, itemsize: self.itemsize };
        let mut offset = i128::from(self.offset);
        let mut axis = 0;
        for index in indices {
            match *index {
                Index::At(at) => {
                    offset += self.position(at, axis)? * self.strides[axis];
                    axis += 1;
                }
                Index::Slice { start, stop, step } => {
                    let (first, step, len) = slice(start, stop, step, self.shape[axis])
                        .ok_or(IndexError::ZeroStep { axis })?;
                    offset += first * self.strides[axis];
                    result.push(len, self.strides[axis].saturating_mul(step));
                    axis += 1;
                }
                Index::Ellipsis => {
                    self.copy_axes(axis..axis + missing, &mut result);
                    axis += missing;
                }
                Index::NewAxis => result.push(1, 0),
            }
        }
        self.copy_axes(axis..self.shape.len(), &mut result);
        if result.shape.len() > NDIM_MAX {
            return Err(ShapeError::TooManyAxes { ndim: result.shape.len() }.into());
        }
        // Invariant 1: `first` is a position of the axis or 0, so the sum stays in the array.
        result.offset = u64::try_from(offset).unwrap_or(0);
        Ok(result)
    }

    /// How many axes `indices` leave to an ellipsis.
    fn axes_missing(&self, indices: &[Index]) -> Result<usize, IndexError> {
        let named = |index: &&Index| matches!(index, Index::At(_) | Index::Slice { .. });
        let given = indices.iter().filter(named).count();
        let ndim = self.shape.len();
        if indices.iter().filter(|index| matches!(index, Index::Ellipsis)).count() > 1 {
            return Err(IndexError::TwoEllipses);
        }
        ndim.checked_sub(given).ok_or(IndexError::TooMany { given, ndim })
    }

    /// `at` counted from the start of `axis`.
    fn position(&self, at: i128, axis: usize) -> Result<i128, IndexError> {
        let len = i128::from(self.shape[axis]);
        let from_start = if at < 0 { at.saturating_add(len) } else { at };
        if (0..len).contains(&from_start) {
            return Ok(from_start);
        }
        Err(IndexError::OutOfRange { index: at, axis, len: self.shape[axis] })
    }

    fn copy_axes(&self, axes: Range<usize>, to: &mut Self) {
        axes.for_each(|axis| to.push(self.shape[axis], self.strides[axis]));
    }

    fn push(&mut self, len: u64, stride: i128) {
        self.shape.push(len);
        self.strides.push(stride);
    }

    /// The axes in reverse, as NumPy's `.T`.
    #[must_use]
    pub fn transposed(mut self) -> Self {
        self.shape.reverse();
        self.strides.reverse();
        self
    }

    /// The same elements with offsets counted from `start_byte` of the array instead of its first
    /// byte, for memory that holds only a part of the array; `None` if a lower byte is selected.
    #[must_use]
    pub fn counted_from(&self, start_byte: u64) -> Option<Self> {
        let lo = self.byte_range().map_or(start_byte, |(lo, _)| lo);
        let offset = self.offset.saturating_sub(start_byte);
        (lo >= start_byte).then(|| Self { offset, ..self.clone() })
    }

    /// Length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Distance in bytes between neighbours on each axis; negative for negative steps. That of an
    /// axis of length 0 or 1 has no meaning.
    #[must_use]
    pub fn strides(&self) -> &[i128] {
        &self.strides
    }

    /// Where the first element (all positions 0) starts, in bytes of the array.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes per element.
    #[must_use]
    pub fn itemsize(&self) -> u64 {
        self.itemsize
    }

    /// The same elements, their offsets counted from byte `start` of the array on.
    ///
    /// # Panics
    ///
    /// If an element lies before `start`.
    #[must_use]
    pub fn seen_from(&self, start: u64) -> Self {
        let Some((lo, _)) = self.byte_range() else { return Self { offset: 0, ..self.clone() } };
        assert!(start <= lo, "a selection is seen from behind its first byte");
        Self { offset: self.offset - start, ..self.clone() }
    }

    /// Number of axes.
    #[must_use]
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements; invariant 1 makes it fit.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(shape::size(&self.shape)).unwrap_or(u64::MAX)
    }

    /// Number of bytes the elements have together.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.size().saturating_mul(self.itemsize)
    }

    /// Whether no element is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The bytes `lo..hi` of the array from the first byte of its lowest selected element to the
    /// last byte of its highest; `None` if the selection is empty. Cost O(axes).
    #[must_use]
    pub fn byte_range(&self) -> Option<(u64, u64)> {
        if self.is_empty() {
            return None;
        }
        let (mut lo, mut hi) = (i128::from(self.offset), i128::from(self.offset));
        for (&len, &stride) in self.shape.iter().zip(&self.strides) {
            if len > 1 {
                let span = i128::from(len - 1) * stride;
                lo += span.min(0);
                hi += span.max(0);
            }
        }
        // Invariant 1: both ends lie in the array.
        Some((u64::try_from(lo).ok()?, u64::try_from(hi + i128::from(self.itemsize)).ok()?))
    }
}

/// Python's `slice(start, stop, step).indices(len)` as (first, step, count); an empty result is
/// (0, 1, 0) as in NumPy. `None` for step 0.
fn slice(
    start: Option<i128>,
    stop: Option<i128>,
    step: Option<i128>,
    len: u64,
) -> Option<(i128, i128, u64)> {
    const STEP_MAX: i128 = 1 << 64;
    let step = step.unwrap_or(1).clamp(-STEP_MAX, STEP_MAX);
    if step == 0 {
        return None;
    }
    let len = i128::from(len);
    let (lower, upper) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamped = |at: i128| {
        let from_start = if at < 0 { at.saturating_add(len) } else { at };
        from_start.clamp(lower, upper)
    };
    let (from, to) = if step > 0 { (lower, upper) } else { (upper, lower) };
    let (start, stop) = (start.map_or(from, clamped), stop.map_or(to, clamped));
    let distance = if step > 0 { stop - start } else { start - stop };
    if distance <= 0 {
        return Some((0, 1, 0));
    }
    let count = u64::try_from((distance - 1) / step.abs() + 1).ok()?;
    Some((start, step, count))
}

/// Reads an indexing expression as it stands between the brackets: `10:20, :, ::2, ..., None, -1`.
///
/// Numbers are decimal; those beyond `i128` are clamped, as slices do anyway. The empty text and
/// `()` are the index without parts. `newaxis` and `np.newaxis` mean `None`.
///
/// # Errors
///
/// [`IndexError::Boolean`], [`IndexError::Fancy`] or [`IndexError::NotAnIndex`] with the part that
/// is to blame.
pub fn parse(text: &str) -> Result<Vec<Index>, IndexError> {
    let text = text.trim();
    if text.is_empty() || text == "()" {
        return Ok(Vec::new());
    }
    if text.contains(['[', '(', '{']) {
        return Err(IndexError::Fancy { text: text.to_owned() });
    }
    let parts = text.strip_suffix(',').unwrap_or(text);
    parts.split(',').map(|part| parse_part(part.trim())).collect()
}

fn parse_part(part: &str) -> Result<Index, IndexError> {
    let refused = || IndexError::NotAnIndex { text: part.to_owned() };
    match part {
        "..." | "Ellipsis" => return Ok(Index::Ellipsis),
        "None" | "newaxis" | "np.newaxis" => return Ok(Index::NewAxis),
        "True" | "False" => return Err(IndexError::Boolean { text: part.to_owned() }),
        _ => {}
    }
    let mut ends = part.split(':').map(str::trim);
    let (start, stop, step) = (ends.next().unwrap_or(""), ends.next(), ends.next());
    if ends.next().is_some() {
        return Err(refused());
    }
    let Some(stop) = stop else {
        return integer(start).map(Index::At).ok_or_else(refused);
    };
    let end = |text: &str| match text {
        "" | "None" => Ok(None),
        _ => integer(text).map(Some).ok_or_else(refused),
    };
    Ok(Index::Slice { start: end(start)?, stop: end(stop)?, step: end(step.unwrap_or(""))? })
}

/// A decimal number with an optional sign, clamped to `i128`.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let clamped = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    Some(text.parse().unwrap_or(clamped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2 MiB, the unit of the conformance list.
    const PS: u64 = 2 << 20;

    fn select(text: &str, shape: &[u64], itemsize: u64, order: Order) -> Selection {
        resolve(&parse(text).unwrap(), shape, itemsize, order).unwrap()
    }

    fn refused(text: &str, shape: &[u64]) -> IndexError {
        parse(text).and_then(|indices| resolve(&indices, shape, 1, Order::C)).unwrap_err()
    }

    /// The byte offset of every element, by trying every position; the model of this file.
    fn offsets(selection: &Selection) -> Vec<u64> {
        let mut offsets = vec![i128::from(selection.offset())];
        for (&len, &stride) in selection.shape().iter().zip(selection.strides()) {
            let steps: Vec<i128> = (0..len).map(|k| i128::from(k) * stride).collect();
            offsets = offsets.iter().flat_map(|at| steps.iter().map(move |d| at + d)).collect();
        }
        offsets.into_iter().map(|at| u64::try_from(at).unwrap()).collect()
    }

    #[test]
    fn w012_and_x25_lists_arrays_and_booleans_are_refused_by_name() {
        assert!(matches!(refused("[1, 2]", &[9]), IndexError::Fancy { .. }));
        assert!(matches!(refused("(1, 2)", &[9]), IndexError::Fancy { .. }));
        assert!(matches!(refused("True", &[9]), IndexError::Boolean { .. }));
        assert!(matches!(refused(":, False", &[9, 9]), IndexError::Boolean { .. }));
    }

    #[test]
    fn w013_the_last_position_works_and_the_next_is_out_of_range() {
        assert_eq!(
            select(&format!("{}", 10 * PS - 1), &[10 * PS], 1, Order::C).offset(),
            10 * PS - 1
        );
        let index = i128::from(10 * PS);
        let want = IndexError::OutOfRange { index, axis: 0, len: 10 * PS };
        assert_eq!(refused(&index.to_string(), &[10 * PS]), want);
    }

    #[test]
    fn w014_w015_slices_outside_the_axis_are_empty() {
        let far = format!("{}:{}", 100 * PS, 200 * PS);
        let end = format!("{}:{}", 10 * PS, 10 * PS + 1);
        for text in ["10:5:1", "5:10:-1", "5:5", &far, &end] {
            let selection = select(text, &[10 * PS], 1, Order::C);
            assert_eq!((selection.shape(), selection.byte_range()), (&[0][..], None), "{text}");
        }
    }

    #[test]
    fn w012_a_reversed_slice_covers_whole_elements() {
        let selection = select("3:0:-1", &[9], 5, Order::C);
        assert_eq!(selection.byte_range(), Some((5, 20)));
        assert_eq!(selection.offset(), 15);
    }

    #[test]
    fn w025_step_zero_is_refused() {
        assert_eq!(refused("::0", &[9]), IndexError::ZeroStep { axis: 0 });
        assert_eq!(refused("1, 5:5:0", &[9, 0]), IndexError::ZeroStep { axis: 1 });
    }

    #[test]
    fn w027_w028_rows_that_straddle_pages_give_whole_rows() {
        for row in [PS - 1, PS + 1] {
            let range = |text| select(text, &[4, row], 1, Order::C).byte_range();
            assert_eq!(range("0"), Some((0, row)));
            assert_eq!(range("1"), Some((row, 2 * row)));
            assert_eq!(range("1:2"), Some((row, 2 * row)));
            assert_eq!(range("1:0:-1"), Some((row, 2 * row)));
            assert_eq!(range("0:1"), Some((0, row)));
            for empty in ["1:2:-1", "1:0", "0:1:-1"] {
                assert_eq!(range(empty), None, "{empty}");
            }
        }
    }

    #[test]
    fn w030_w031_every_combination_over_four_axes_selects_what_trying_finds() {
        let shape = [7u64, 6, 5, 4];
        let parts = |n: i128| {
            let slice = |a, b, s| Index::Slice { start: Some(a), stop: Some(b), step: Some(s) };
            let part = |at, n: i128| Index::At(if at < 0 { at } else { n / 2 });
            [
                (Index::ALL, (0..n).collect::<Vec<_>>()),
                (Index::At(0), vec![0]),
                (Index::At(-1), vec![n - 1]),
                (part(0, n), vec![n / 2]),
                (slice(1, -1, 1), (1..n - 1).collect()),
                (
                    slice(n / 4 + 1, n * 3 / 4 - 1, 2),
                    (n / 4 + 1..n * 3 / 4 - 1).step_by(2).collect(),
                ),
                (
                    slice(n / 5 + 1, n * 4 / 5 - 1, 3),
                    (n / 5 + 1..n * 4 / 5 - 1).step_by(3).collect(),
                ),
            ]
        };
        for order in [Order::C, Order::F] {
            let strides = shape::strides(&shape, 4, order);
            let per_axis: Vec<_> = shape.iter().map(|&len| parts(i128::from(len))).collect();
            for choice in 0..7usize.pow(4) {
                let mut rest = choice;
                let (mut indices, mut want) = (Vec::new(), vec![0]);
                for (parts, &stride) in per_axis.iter().zip(&strides) {
                    let (index, positions) = &parts[rest % 7];
                    rest /= 7;
                    indices.push(*index);
                    let step = |at: &i128| u64::try_from(*at).unwrap() * stride;
                    let steps: Vec<u64> = positions.iter().map(step).collect();
                    want = want.iter().flat_map(|at| steps.iter().map(move |d| at + d)).collect();
                }
                let got = resolve(&indices, &shape, 4, order).unwrap();
                assert_eq!(offsets(&got), want, "{indices:?}");
            }
        }
    }

    #[test]
    fn w032_w033_each_axis_ends_where_its_length_says() {
        let shape = [103u64, 101, 23, 17];
        for order in [Order::C, Order::F] {
            for (axis, &len) in shape.iter().enumerate() {
                let mut indices = vec![Index::ALL; 4];
                indices[axis] = Index::from(len - 1);
                assert_eq!(resolve(&indices, &shape, 4, order).unwrap().ndim(), 3);
                indices[axis] = Index::from(len);
                let refused = resolve(&indices, &shape, 4, order).unwrap_err();
                let want = IndexError::OutOfRange { index: i128::from(len), axis, len };
                assert_eq!(refused, want);
                indices[axis] = Index::from(len..len + 1);
                assert_eq!(resolve(&indices, &shape, 4, order).unwrap().shape()[axis], 0);
            }
        }
    }

    #[test]
    fn w034_more_indices_than_axes_are_refused() {
        assert_eq!(refused("1, 2", &[9]), IndexError::TooMany { given: 2, ndim: 1 });
        assert_eq!(refused("1, ..., 2", &[9]), IndexError::TooMany { given: 2, ndim: 1 });
        assert_eq!(refused("0", &[]), IndexError::TooMany { given: 1, ndim: 0 });
        assert_eq!(refused("..., ...", &[9]), IndexError::TwoEllipses);
    }

    #[test]
    fn w035_x08_x09_ellipsis_and_new_axes_equal_numpy() {
        let shape_of = |text| select(text, &[3, 4], 8, Order::C).shape().to_vec();
        assert_eq!(shape_of(":, None"), [3, 1, 4]);
        assert_eq!(shape_of("None"), [1, 3, 4]);
        assert_eq!(shape_of("..."), [3, 4]);
        assert_eq!(shape_of("..., 1"), [3]);
        assert_eq!(shape_of("1, ..., None"), [4, 1]);
        let too_many = vec![Index::NewAxis; 31];
        let refused = resolve(&too_many, &[3, 4], 8, Order::C).unwrap_err();
        assert_eq!(refused, ShapeError::TooManyAxes { ndim: 33 }.into());
    }

    #[test]
    fn x11_positions_below_minus_n_are_out_of_range() {
        for text in ["-11", "-15", "-1000000000000000000000000000000000000000000000"] {
            assert!(matches!(refused(text, &[10]), IndexError::OutOfRange { .. }), "{text}");
        }
        assert_eq!(select("-10", &[10], 1, Order::C).offset(), 0);
    }

    #[test]
    fn x24_an_array_without_axes_can_be_indexed_by_nothing() {
        for text in ["()", "", "..."] {
            let selection = select(text, &[], 8, Order::C);
            assert_eq!((selection.ndim(), selection.byte_range()), (0, Some((0, 8))), "{text}");
        }
    }

    #[test]
    fn huge_slices_clamp_and_the_largest_axis_is_exact() {
        let text = "99999999999999999999999999999999999999999999:-99999999999999999999:-1";
        let selection = select(text, &[u64::MAX], 1, Order::C);
        assert_eq!(selection.shape(), [u64::MAX]);
        assert_eq!(selection.byte_range(), Some((0, u64::MAX)));
        assert_eq!(select("-1", &[u64::MAX], 1, Order::C).offset(), u64::MAX - 1);
        let huge_step = select(&format!("::{}", i128::MAX), &[9], 8, Order::C);
        assert_eq!((huge_step.shape(), huge_step.byte_range()), (&[1][..], Some((0, 8))));
        let least = select(&format!("::{}", i128::MIN), &[9], 8, Order::C);
        assert_eq!((least.shape(), least.byte_range()), (&[1][..], Some((64, 72))));
    }

    #[test]
    fn a_selection_of_a_selection_equals_indexing_twice() {
        let rows = select("::2", &[9, 4], 8, Order::C);
        let again = rows.select(&parse("::-1, 1").unwrap()).unwrap();
        assert_eq!(again, select("::-2, 1", &[9, 4], 8, Order::C));
    }

    #[test]
    fn w054_a_part_of_the_largest_array_can_be_counted_from_its_own_start() {
        let end = select("-1:-9:-1", &[u64::MAX], 1, Order::C);
        let start = u64::MAX - 10;
        let part = end.counted_from(start).unwrap();
        assert_eq!((part.offset(), part.byte_range()), (9, Some((2, 10))));
        assert_eq!(end.counted_from(u64::MAX - 7), None);
        assert!(select("5:5", &[9], 1, Order::C).counted_from(8).unwrap().is_empty());
    }

    #[test]
    fn parse_reads_what_python_writes() {
        let slice = |start, stop, step| Index::Slice { start, stop, step };
        let want = [
            slice(Some(10), Some(20), None),
            Index::ALL,
            slice(None, None, Some(2)),
            Index::Ellipsis,
            Index::NewAxis,
            Index::At(-1),
        ];
        assert_eq!(parse("10:20, :, ::2, ..., None, -1").unwrap(), want);
        assert_eq!(parse(" 5 , ").unwrap(), [Index::At(5)]);
        assert_eq!(parse("None:3:").unwrap(), [slice(None, Some(3), None)]);
        for wrong in ["1.0", "a", "1:2:3:4", ",", "1,,2", "--1", "1 2", "0x1", "'1'"] {
            assert!(matches!(parse(wrong), Err(IndexError::NotAnIndex { .. })), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn parse_of_index_like_text_never_panics(text in "[-0-9:., NoneTrue\\[]{0,40}") {
            let _ = parse(&text).map(|indices| resolve(&indices, &[3, 1 << 40, 5], 8, Order::F));
        }

        #[test]
        fn hostile_numbers_never_panic_and_stay_in_the_array(
            numbers in prop::array::uniform4(prop::option::of(any::<i128>())),
            shape in prop::collection::vec(any::<u64>(), 0..3), itemsize in 1u64..100,
        ) {
            let [start, stop, step, at] = numbers;
            let indices = [Index::Slice { start, stop, step }, Index::At(at.unwrap_or(0))];
            for indices in [&indices[..1], &indices[1..], &indices] {
                let Ok(nbytes) = shape::nbytes(&shape, itemsize) else { return Ok(()) };
                let selection = resolve(indices, &shape, itemsize, Order::C);
                if let Some((lo, hi)) = selection.ok().and_then(|chosen| chosen.byte_range()) {
                    prop_assert!(lo < hi && hi <= nbytes);
                }
            }
        }

        #[test]
        fn byte_range_is_the_hull_of_the_elements(
            numbers in prop::array::uniform3(prop::option::of(-8i128..8)),
            others in prop::array::uniform3(prop::option::of(-8i128..8)),
        ) {
            let part = |[start, stop, step]: [_; 3]| Index::Slice { start, stop, step };
            let indices = [part(numbers), part(others)];
            let Ok(selection) = resolve(&indices, &[5, 6], 3, Order::F) else { return Ok(()) };
            let all = offsets(&selection);
            let hull = all.iter().min().zip(all.iter().max()).map(|(lo, hi)| (*lo, hi + 3));
            prop_assert_eq!(selection.byte_range(), hull);
        }
    }
}
