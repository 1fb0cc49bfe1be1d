//! Functions of the caller's own over blocks, with or without the elements around them.
//!
//! ```text
//! map_overlap, depth 2     | . . x x x x . . |      the function sees the dots, too;
//!                              [ x x x x ]          what it makes of them is cut off
//! ```

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, IxDyn, Slice};

use super::block::{Block, Numeric};
use super::moves::PadMode;
use super::node::Blocked;
use super::recipe::{Argument, Input, Recipe};
use super::region::{Region, to_usize};
use super::trouble::ComputeError;

impl<'e> Blocked<'e> {
    /// What `function` makes of each block. It is given the block's elements and returns as many,
    /// in the same shape; which blocks there are, [`rechunk`](Self::rechunk) says.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Type`] if the elements are no `T`. A result of another shape fails when it
    /// is computed.
    pub fn map_blocks<T: Numeric, U: Numeric>(
        &self,
        function: impl Fn(ArrayViewD<'_, T>) -> ArrayD<U> + Send + Sync + 'e,
    ) -> Result<Self, ComputeError> {
        self.require_type::<T>()?;
        self.applied("map_blocks", self.clone(), vec![0; self.ndim()], function)
    }

    /// What `function` makes of each block and `depth` elements around it along each axis; behind
    /// the ends the array goes on as `mode` says. The function returns as many elements as it is
    /// given; those around the block are cut off.
    ///
    /// # Errors
    ///
    /// Those of [`map_blocks`](Self::map_blocks) and [`pad`](Self::pad).
    pub fn map_overlap<T: Numeric, U: Numeric>(
        &self,
        depth: &[u64],
        mode: PadMode,
        function: impl Fn(ArrayViewD<'_, T>) -> ArrayD<U> + Send + Sync + 'e,
    ) -> Result<Self, ComputeError> {
        self.require_type::<T>()?;
        let widths: Vec<(u64, u64)> = depth.iter().map(|&depth| (depth, depth)).collect();
        let padded = self.pad(&widths, mode)?;
        self.applied("map_overlap", padded, depth.to_vec(), function)
    }

    fn require_type<T: Numeric>(&self) -> Result<(), ComputeError> {
        match self.number() == T::NUMBER {
            true => Ok(()),
            false => Err(ComputeError::Type { given: self.number(), wanted: T::NUMBER }),
        }
    }

    /// `function` of each block of this with `depth` elements of `input` around it.
    fn applied<T: Numeric, U: Numeric>(
        &self,
        name: &'static str,
        input: Self,
        depth: Vec<u64>,
        function: impl Fn(ArrayViewD<'_, T>) -> ArrayD<U> + Send + Sync + 'e,
    ) -> Result<Self, ComputeError> {
        let grid = self.0.grid.clone();
        let function = Arc::new(function);
        let recipe = move |place: &[u64]| {
            let inner = grid.region(place);
            let len = inner.len.iter().zip(&depth).map(|(&len, &depth)| len + 2 * depth).collect();
            let outer = Region { start: inner.start.clone(), len };
            let bytes = (inner.count() * U::NUMBER.itemsize()) as u64;
            let scratch = (outer.count() * (T::NUMBER.itemsize() + U::NUMBER.itemsize())) as u64;
            let (function, depth) = (Arc::clone(&function), depth.clone());
            let inputs = vec![Input::Part(input.clone(), outer)];
            let work = move |arguments: &[Argument<'_, 'e>]| {
                let [argument] = arguments else {
                    return Err(ComputeError::Mistake("a function of more than one block"));
                };
                let data = argument.data()?;
                let lens = argument.part()?.region.lens();
                let view = ArrayViewD::from_shape(IxDyn(&lens), data.elements::<T>()?)
                    .map_err(|_| ComputeError::Mistake("a block of another size"))?;
                let made = function(view);
                if made.shape() != lens {
                    let shape = lens.iter().map(|&len| len as u64).collect();
                    let why = format!("the function returned shape {:?}", made.shape());
                    return Err(ComputeError::Argument { operation: name, shape, why });
                }
                Block::from_array(cut(made, &depth))
            };
            Ok(Recipe::new(name, inputs, bytes, work).with_scratch(scratch))
        };
        Self::from_tasks(self.shape(), U::NUMBER, self.block_shape(), recipe)
    }
}

/// Without `depth` elements at each end.
fn cut<U: Numeric>(made: ArrayD<U>, depth: &[u64]) -> ArrayD<U> {
    if depth.iter().all(|&depth| depth == 0) {
        return made;
    }
    let inner = made.slice_each_axis(|axis| {
        let depth = to_usize(depth[axis.axis.index()]).cast_signed();
        Slice::new(depth, Some(axis.len.cast_signed() - depth), 1)
    });
    inner.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Number, RunOptions, Scalar};

    #[test]
    fn a_function_of_neighbours_does_not_see_how_the_array_is_cut() {
        let array = Blocked::random(&[9, 13], 7, Number::F64).unwrap();
        let options = RunOptions::default();
        let around = |view: ArrayViewD<'_, f64>| {
            let mut sums = ArrayD::zeros(view.raw_dim());
            let (rows, columns) = (view.shape()[0], view.shape()[1]);
            for row in 1..rows - 1 {
                for column in 2..columns - 2 {
                    sums[[row, column]] = view[[row - 1, column]] + view[[row + 1, column - 2]]
                        - view[[row, column + 2]];
                }
            }
            sums
        };
        for mode in [PadMode::Constant(Scalar::Int(3)), PadMode::Reflect, PadMode::Wrap] {
            let computed = |block: [u64; 2]| {
                let cut = array.rechunk(&block).unwrap();
                cut.map_overlap(&[1, 2], mode, around).unwrap().compute::<f64>(&options).unwrap()
            };
            let whole = computed([9, 13]);
            assert_eq!(whole.shape(), [9, 13]);
            assert_eq!(computed([2, 5]), whole);
            assert_eq!(computed([1, 1]), whole);
        }
    }

    #[test]
    fn a_function_that_returns_another_shape_is_refused() {
        let array = Blocked::arange(0, 9, 1).unwrap();
        let wrong = array.map_blocks(|_: ArrayViewD<'_, i64>| ArrayD::<i64>::zeros(IxDyn(&[2])));
        let why = wrong.unwrap().compute::<i64>(&RunOptions::default()).unwrap_err().to_string();
        assert!(why.contains("map_blocks") && why.contains("[2]"), "{why}");
        assert!(array.map_blocks(|view: ArrayViewD<'_, f64>| view.to_owned()).is_err());
    }
}
