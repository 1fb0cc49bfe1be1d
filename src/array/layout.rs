//! From a selection to runs of bytes: what to copy from where to where.
//!
//! ```text
//! A[0:2, 1:3] of a [3, 4] array of u8     bytes of the array   0 [1 2] 3 4 [5 6] 7 8 9 10 11
//!                                         runs                 (1, 2) (5, 2)
//! A[0:2, :]                               one run              (0, 8)
//! dense buffer, C order                   copies               array 1 -> buffer 0, 2 bytes
//!                                                              array 5 -> buffer 2, 2 bytes
//! ```
//!
//! The axes are taken in the order of the buffer, so buffer offsets ascend without gaps. Axes of
//! length 1 are dropped, the longest contiguous tail becomes one run, and neighbouring outer axes
//! that continue each other are merged; what is left is counted like an odometer.
//!
//! # Invariants
//!
//! 1. The runs cover each element of the selection exactly once, and nothing else.
//! 2. Memory is O(axes) whatever the selection; each step is O(1) amortised.

use super::index::Selection;
use super::shape::Order;

/// Contiguous bytes of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRun {
    /// First byte, from the start of the array.
    pub offset: u64,
    /// Number of bytes, never 0.
    pub len: u64,
}

/// One copy between an array and a dense buffer that holds a selection of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyRun {
    /// First byte in the array.
    pub array_offset: u64,
    /// First byte in the buffer.
    pub buffer_offset: u64,
    /// Number of bytes, never 0.
    pub len: u64,
}

/// The contiguous runs of `selection` in its C order. A selection that is contiguous in C order
/// is one run; an empty one has none.
pub fn runs(selection: &Selection) -> impl Iterator<Item = ByteRun> + use<> {
    copies(selection, Order::C).map(|copy| ByteRun { offset: copy.array_offset, len: copy.len })
}

/// What to copy between the array and a dense buffer of the selection's shape in `order`, in
/// ascending order of the buffer. Works in both directions; at worst one item per element.
#[must_use]
pub fn copies(selection: &Selection, order: Order) -> Copies {
    let (axes, run_len) = merged(selection, order);
    Copies {
        counters: vec![0; axes.len()],
        axes,
        run_len,
        array_offset: i128::from(selection.offset()),
        buffer_offset: 0,
        done: selection.is_empty(),
    }
}

/// Whether the selection is one run that a dense array of its shape in `order` would be; empty
/// selections and those of one element are contiguous in both orders, as in NumPy.
#[must_use]
pub fn is_contiguous(selection: &Selection, order: Order) -> bool {
    selection.is_empty() || merged(selection, order).0.is_empty()
}

/// An axis that must be walked: its length (2 or more) and its stride in bytes.
type Axis = (u64, i128);

/// The axes that remain around the longest contiguous run, outermost first, and that run's bytes.
fn merged(selection: &Selection, order: Order) -> (Vec<Axis>, u64) {
    let lens = selection.shape().iter().copied();
    let mut axes: Vec<Axis> =
        lens.zip(selection.strides().iter().copied()).filter(|&(len, _)| len != 1).collect();
    if order == Order::F {
        axes.reverse();
    }
    let mut run_len = selection.itemsize();
    while let Some(&(len, stride)) = axes.last() {
        if selection.is_empty() || stride != i128::from(run_len) {
            break;
        }
        run_len *= len;
        axes.pop();
    }
    let mut outer: Vec<Axis> = Vec::with_capacity(axes.len());
    for (len, stride) in axes {
        match outer.last_mut() {
            Some((before, step)) if Some(*step) == stride.checked_mul(i128::from(len)) => {
                (*before, *step) = (before.saturating_mul(len), stride);
            }
            _ => outer.push((len, stride)),
        }
    }
    (outer, run_len)
}

/// Iterator of [`copies`].
#[derive(Clone, Debug)]
pub struct Copies {
    axes: Vec<Axis>,
    // Position on each of `axes`; as long as `axes`, each below the length of its axis.
    counters: Vec<u64>,
    run_len: u64,
    array_offset: i128,
    buffer_offset: u64,
    done: bool,
}

impl Copies {
    /// Number of bytes of every item.
    #[must_use]
    pub fn run_len(&self) -> u64 {
        self.run_len
    }

    /// Moves to the next run; ends after the last.
    fn advance(&mut self) {
        self.buffer_offset = self.buffer_offset.saturating_add(self.run_len);
        for (counter, &(len, stride)) in self.counters.iter_mut().zip(&self.axes).rev() {
            *counter += 1;
            if *counter < len {
                self.array_offset += stride;
                return;
            }
            self.array_offset -= stride * i128::from(len - 1);
            *counter = 0;
        }
        self.done = true;
    }
}

impl Iterator for Copies {
    type Item = CopyRun;

    fn next(&mut self) -> Option<CopyRun> {
        if self.done {
            return None;
        }
        // A selection lies in its array, so every offset on the way fits.
        let array_offset = u64::try_from(self.array_offset).ok()?;
        let copy = CopyRun { array_offset, buffer_offset: self.buffer_offset, len: self.run_len };
        self.advance();
        Some(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::index::{Index, parse, resolve};
    use ndarray::{ArrayD, IxDyn, ShapeBuilder};
    use proptest::prelude::*;

    fn select(text: &str, shape: &[u64], itemsize: u64, order: Order) -> Selection {
        resolve(&parse(text).unwrap(), shape, itemsize, order).unwrap()
    }

    fn run_list(selection: &Selection) -> Vec<(u64, u64)> {
        runs(selection).map(|run| (run.offset, run.len)).collect()
    }

    #[test]
    fn a_contiguous_selection_is_one_run() {
        for (text, at) in
            [("...", (0, 96)), ("1:", (32, 64)), ("1", (32, 32)), ("2, 1:3", (72, 16))]
        {
            let selection = select(text, &[3, 4], 8, Order::C);
            assert_eq!(run_list(&selection), [at], "{text}");
            assert!(is_contiguous(&selection, Order::C), "{text}");
        }
    }

    #[test]
    fn a_block_of_rows_is_one_run_per_row() {
        let selection = select("0:2, 1:3", &[3, 4], 1, Order::C);
        assert_eq!(run_list(&selection), [(1, 2), (5, 2)]);
        assert!(!is_contiguous(&selection, Order::C));
    }

    #[test]
    fn a_fortran_array_is_one_copy_into_a_fortran_buffer() {
        let selection = select("...", &[3, 4, 5], 8, Order::F);
        assert_eq!(copies(&selection, Order::F).count(), 1);
        assert_eq!(copies(&selection, Order::C).count(), 60);
        assert!(is_contiguous(&selection, Order::F));
    }

    #[test]
    fn an_empty_selection_has_no_runs_and_is_contiguous() {
        let selection = select("1:1", &[3, 4], 8, Order::C);
        assert!(run_list(&selection).is_empty());
        assert!(is_contiguous(&selection, Order::C) && is_contiguous(&selection, Order::F));
    }

    #[test]
    fn an_array_without_axes_is_one_run() {
        assert_eq!(run_list(&select("()", &[], 8, Order::C)), [(0, 8)]);
    }

    #[test]
    fn a_reversed_axis_is_walked_from_its_high_end() {
        assert_eq!(run_list(&select("::-1", &[3], 2, Order::C)), [(4, 2), (2, 2), (0, 2)]);
    }

    #[test]
    fn the_runs_of_the_largest_array_start_at_once() {
        let selection = select("::2", &[u64::MAX], 1, Order::C);
        let last = select("-1", &[u64::MAX], 1, Order::C);
        assert_eq!(runs(&selection).nth(2), Some(ByteRun { offset: 4, len: 1 }));
        assert_eq!(run_list(&last), [(u64::MAX - 1, 1)]);
    }

    fn part() -> impl Strategy<Value = Index> {
        let end = || prop::option::of(-7i128..7);
        prop_oneof![
            4 => (end(), end(), prop::option::of(prop_oneof![-3i128..0, 1i128..4]))
                .prop_map(|(start, stop, step)| Index::Slice { start, stop, step }),
            1 => Just(Index::At(0)),
            1 => Just(Index::NewAxis),
        ]
    }

    proptest! {
        #[test]
        fn copying_by_plan_equals_ndarray_in_every_order(
            shape in prop::collection::vec(1u64..6, 3),
            parts in prop::collection::vec(part(), 0..4),
            fortran in any::<bool>(), into_fortran in any::<bool>(),
        ) {
            let order = if fortran { Order::F } else { Order::C };
            let selection = match resolve(&parts, &shape, 2, order) {
                Ok(selection) => selection,
                Err(_) => return Ok(()),
            };
            // The value of each u16 is its own position in the linear bytes.
            let elements: u64 = shape.iter().product();
            let memory: Vec<u16> = (0..u16::try_from(elements).unwrap()).collect();
            let dims: Vec<usize> = shape.iter().map(|&len| usize::try_from(len).unwrap()).collect();
            let array = ArrayD::from_shape_vec(IxDyn(&dims).set_f(fortran), memory).unwrap();
            let mut current = array;
            let mut axis = 0;
            for part in parts {
                match part {
                    Index::At(at) => {
                        let at = usize::try_from(at).unwrap();
                        current = current.index_axis_move(ndarray::Axis(axis), at);
                    }
                    Index::Slice { start, stop, step } => {
                        let picked = picked(start, stop, step, current.shape()[axis]);
                        current = current.select(ndarray::Axis(axis), &picked);
                        axis += 1;
                    }
                    _ => {
                        current = current.insert_axis(ndarray::Axis(axis));
                        axis += 1;
                    }
                }
            }
            prop_assert_eq!(selection.size(), current.len() as u64);
            let into = if into_fortran { Order::F } else { Order::C };
            let dense = if into_fortran { current.t() } else { current.view() };
            let want: Vec<u64> = dense.iter().map(|&at| u64::from(at) * 2).collect();
            let mut got = Vec::new();
            let mut buffer_offset = 0;
            for copy in copies(&selection, into) {
                prop_assert_eq!(copy.buffer_offset, buffer_offset);
                buffer_offset += copy.len;
                got.extend((copy.array_offset..copy.array_offset + copy.len).step_by(2));
            }
            prop_assert_eq!(got, want);
            let one_run_at_most = copies(&selection, into).count() <= 1;
            prop_assert_eq!(is_contiguous(&selection, into), one_run_at_most);
        }
    }

    /// The positions a Python slice picks, found by trying each one.
    fn picked(
        start: Option<i128>,
        stop: Option<i128>,
        step: Option<i128>,
        len: usize,
    ) -> Vec<usize> {
        let (len, step) = (len as i128, step.unwrap_or(1));
        let end = |at: i128| if at < 0 { at + len } else { at };
        let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let start = start.map_or(if step > 0 { 0 } else { len - 1 }, |at| end(at).clamp(low, high));
        let stop = stop.map_or(if step > 0 { len } else { -1 }, |at| end(at).clamp(low, high));
        let mut at = start;
        let mut picked = Vec::new();
        while (step > 0 && at < stop) || (step < 0 && at > stop) {
            picked.push(usize::try_from(at).unwrap());
            at += step;
        }
        picked
    }
}
