//! Blocked arrays: where their elements come from, and computing them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! use zbigarray::compute::{Blocked, RunOptions};
//! # let store = zbigarray::Store::create(dir.path().join("s"), Default::default())?;
//! # let transaction = store.begin()?;
//! # transaction.create::<f32, ndarray::Ix2>("t2m", &[8, 3])?;
//! # transaction.commit()?;
//!
//! let transaction = store.begin_read()?;
//! let t2m = transaction.open::<f32, ndarray::Ix2>("t2m")?;
//! let t2m = Blocked::stored(t2m.dynamic())?;
//! let day = t2m.slice("::4")?.mean(0)?;
//! let night = t2m.slice("2::4")?.mean(0)?;
//! let difference = day.subtract(night)?; // nothing has been read yet
//! let result = difference.compute::<f32>(&RunOptions::default())?;
//! # assert_eq!(result.shape(), [3]);
//! # Ok(()) }
//! ```

use std::borrow::Cow;
use std::slice;
use std::sync::Arc;

use ndarray::{ArrayBase, ArrayD, ArrayView, CowArray, Data as Elements, Dimension, IxDyn};

use super::block::{Block, Data, Numeric, with_elements};
use super::convert::element;
use super::graph::{Graph, TaskId};
use super::lower::Lowering;
use super::node::{Blocked, Indexed, Kind, Run};
use super::number::{Number, Scalar};
use super::recipe::Recipe;
use super::region::{Region, to_usize};
use super::run::{Report, RunOptions, run};
use super::storing::store_all;
use super::trouble::ComputeError;
use super::value::TaskError;
use crate::array::{DynArray, Index, Selection};

impl<'e> Blocked<'e> {
    /// An array of a store, as its transaction shows it. Nothing is read or copied.
    ///
    /// # Errors
    ///
    /// [`ComputeError::NotNumbers`] if its elements are none.
    pub fn stored(array: &'e DynArray<'_>) -> Result<Self, ComputeError> {
        let dtype = array.dtype();
        let Some(number) = Number::of(dtype) else {
            return Err(ComputeError::NotNumbers { dtype: dtype.clone() });
        };
        Self::of_kind(Kind::Stored(array), &array.shape(), number)
    }

    /// Elements in memory; copied only if they do not lie dense in C order.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`] if there are more than 32 axes.
    pub fn from_memory<T: Numeric, S: Elements<Elem = T>, D: Dimension>(
        array: &'e ArrayBase<S, D>,
    ) -> Result<Self, ComputeError> {
        let shape: Vec<u64> = array.shape().iter().map(|&len| len as u64).collect();
        let elements = match array.as_slice() {
            Some(elements) => Cow::Borrowed(elements),
            None => Cow::Owned(array.iter().copied().collect()),
        };
        Self::of_kind(Kind::Memory(Arc::new(T::wrap(elements))), &shape, T::NUMBER)
    }

    /// A block that is there.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`] if there are more than 32 axes.
    pub fn from_block(block: Block) -> Result<Self, ComputeError> {
        let shape: Vec<u64> = block.shape().iter().map(|&len| len as u64).collect();
        let number = block.number();
        Self::of_kind(Kind::Memory(Arc::new(block.into_data())), &shape, number)
    }

    /// An array of which each region is made by a function of its first position and its lengths.
    /// The function must return the same elements for the same positions, whatever the region.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`] if the shape is none.
    pub fn from_function<T: Numeric>(
        shape: &[u64],
        function: impl Fn(&[u64], &[u64]) -> ArrayD<T> + Send + Sync + 'e,
    ) -> Result<Self, ComputeError> {
        let make = move |region: &Region| Block::from_array(function(&region.start, &region.len));
        Self::of_kind(Kind::Function(Arc::new(make)), shape, T::NUMBER)
    }

    /// An array of `shape` of one value.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`]; [`ComputeError::OutOfBounds`] if the type cannot have the value.
    pub fn full(
        shape: &[u64],
        value: impl Into<Scalar>,
        number: Number,
    ) -> Result<Self, ComputeError> {
        let value = value.into();
        if let (Scalar::Int(value), false) = (value, value.fits(number)) {
            return Err(ComputeError::OutOfBounds { value, number });
        }
        Self::of_kind(Kind::Indexed(Arc::new(Full(element(value, number)))), shape, number)
    }

    /// An array of zeros.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`].
    pub fn zeros(shape: &[u64], number: Number) -> Result<Self, ComputeError> {
        Self::full(shape, false, number)
    }

    /// An array of ones.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`].
    pub fn ones(shape: &[u64], number: Number) -> Result<Self, ComputeError> {
        Self::full(shape, true, number)
    }

    /// An array of which each block is made by one task. `recipe` is given the block's place in
    /// the grid; the block must have the shape that is left for it there.
    pub(crate) fn from_tasks(
        shape: &[u64],
        number: Number,
        block: &[u64],
        recipe: impl Fn(&[u64]) -> Result<Recipe<'e>, ComputeError> + Send + Sync + 'e,
    ) -> Result<Self, ComputeError> {
        Self::in_blocks(Kind::Tasks(Arc::new(recipe)), shape, number, block)
    }

    /// The same elements, computed in blocks of another shape.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if `block` has not a length for each axis.
    pub fn rechunk(&self, block: &[u64]) -> Result<Self, ComputeError> {
        if block.len() != self.ndim() {
            let why = format!("blocks of shape {block:?} have another number of axes");
            let shape = self.shape().to_vec();
            return Err(ComputeError::Argument { operation: "rechunk", shape, why });
        }
        let kind = match &self.0.kind {
            Kind::Tasks(_) => {
                let along = (0..self.ndim()).map(super::view::Along::same).collect();
                Kind::View { of: self.clone(), along }
            }
            other => other.clone(),
        };
        Self::in_blocks(kind, self.shape(), self.number(), block)
    }

    /// What a block covers.
    pub(crate) fn region_of(&self, position: &[u64]) -> Region {
        self.0.grid.region(position)
    }

    /// Computes all elements.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Type`] if the elements are no `T`; [`ComputeError::Run`] with the task that
    /// failed and why.
    pub fn compute<T: Numeric>(&self, options: &RunOptions) -> Result<ArrayD<T>, ComputeError> {
        if self.number() != T::NUMBER {
            return Err(ComputeError::Type { given: self.number(), wanted: T::NUMBER });
        }
        self.compute_block(options)?.into_array()
    }

    /// Computes all elements, of whichever type.
    ///
    /// # Errors
    ///
    /// [`ComputeError::TooLarge`] if memory cannot have them; [`ComputeError::Run`].
    pub fn compute_block(&self, options: &RunOptions) -> Result<Block, ComputeError> {
        Ok(self.compute_reported(options)?.0)
    }

    /// The same with what the run did, its trace included if that was asked for.
    ///
    /// # Errors
    ///
    /// Those of [`compute_block`](Self::compute_block).
    pub fn compute_reported(&self, options: &RunOptions) -> Result<(Block, Report), ComputeError> {
        let too_large =
            || ComputeError::TooLarge { operation: "compute", shape: self.shape().to_vec() };
        let lens = self.shape().iter().map(|&len| usize::try_from(len).ok());
        let lens: Vec<usize> = lens.collect::<Option<_>>().ok_or_else(too_large)?;
        let mut result = super::block::try_zeros(self.number(), &lens).ok_or_else(too_large)?;
        let report = each_block(slice::from_ref(self), options, |_, region, block| {
            let at: Vec<usize> = region.start.iter().map(|&at| to_usize(at)).collect();
            super::evaluate::place(
                block.data(),
                block.shape(),
                &mut result,
                &super::gather::Place::inside(&lens, &at),
            )
        })?;
        Ok((Block::new(&lens, result)?, report))
    }

    /// The tasks that compute it, and those of them that give its blocks, in row-major order: for
    /// [`explain`](super::explain()), for a picture, or to read the trace of a run. The same
    /// expression has the same tasks each time.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if there are more blocks than a graph can have tasks.
    pub fn graph(&self) -> Result<(Graph<'e>, Vec<TaskId>), ComputeError> {
        graph_of(slice::from_ref(self))
    }

    /// Computes all elements and writes them into `target`, cast to its type as an assignment
    /// casts them.
    ///
    /// Blocks are written as they are finished, those that lie whole in the array past memory: the
    /// result may be larger than memory, and all of it is committed with the transaction or
    /// nothing. After an error the array has some of the new elements; abort then, or roll back.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Target`] if the shapes differ, [`ComputeError::NotNumbers`],
    /// [`ComputeError::Run`] with the task that failed and why.
    pub fn store_into(
        &self,
        target: &mut DynArray<'_>,
        options: &RunOptions,
    ) -> Result<Report, ComputeError> {
        store_all(&mut [(self, target)], options)
    }

    /// All elements as an array: mapped memory where they lie in a store or in memory already,
    /// computed otherwise.
    ///
    /// What is mapped is not compared with its checksums: see
    /// [`ZBigArray::ensure`](crate::ZBigArray::ensure).
    ///
    /// # Errors
    ///
    /// Those of [`compute`](Self::compute).
    pub fn to_view<T: Numeric>(
        &self,
        options: &RunOptions,
    ) -> Result<CowArray<'_, T, IxDyn>, ComputeError> {
        if let Some((array, selection)) = self.as_selection()?
            && T::matches(array.dtype())
        {
            return Ok(CowArray::from(array.elements::<T>(&selection)?));
        }
        if let Kind::Memory(data) = &self.0.kind {
            let lens: Vec<usize> = self.shape().iter().map(|&len| to_usize(len)).collect();
            let elements = data.elements::<T>()?;
            let given = elements.len() as u64;
            let shape = self.shape().to_vec();
            return ArrayView::from_shape(IxDyn(&lens), elements)
                .map(CowArray::from)
                .map_err(|_| ComputeError::Elements { shape, given });
        }
        Ok(CowArray::from(self.compute::<T>(options)?))
    }

    /// The stored array and the selection of it that this is, if it is one in the same order of
    /// axes.
    fn as_selection(&self) -> Result<Option<(&'e DynArray<'e>, Selection)>, ComputeError> {
        use super::view::Along;
        match &self.0.kind {
            Kind::Stored(array) => Ok(Some((array, array.select(&[])?))),
            Kind::View { of, along } => {
                let Kind::Stored(array) = &of.0.kind else { return Ok(None) };
                let mut indices = Vec::new();
                let mut expected = 0;
                for along in along {
                    match along {
                        Along::At(at) => indices.push(Index::At(i128::from(*at))),
                        Along::Step { axis, start, step } if *axis == expected => {
                            expected += 1;
                            indices.push(stepped(*start, *step, self.shape()[*axis]));
                        }
                        _ => return Ok(None),
                    }
                }
                if expected != self.ndim() {
                    return Ok(None);
                }
                Ok(Some((array, array.select(&indices)?)))
            }
            _ => Ok(None),
        }
    }
}

/// The tasks that compute all of `results`, and those that give their blocks: of each in row-major
/// order, one result after another.
pub(super) fn graph_of<'e>(
    results: &[Blocked<'e>],
) -> Result<(Graph<'e>, Vec<TaskId>), ComputeError> {
    let mut graph = Graph::new();
    let total = results.iter().fold(0_u64, |sum, result| sum.saturating_add(result.0.grid.total()));
    if let (Err(_), Some(result)) = (u32::try_from(total), results.first()) {
        let (operation, shape) = ("compute", result.shape().to_vec());
        let why = format!("{total} blocks are more than a graph can have; take larger ones");
        return Err(ComputeError::Argument { operation, shape, why });
    }
    let mut lowering = Lowering::new(&mut graph);
    let mut outputs = Vec::new();
    for result in results {
        for number in 0..result.0.grid.total() {
            outputs.push(lowering.block(result, number)?);
        }
    }
    drop(lowering);
    Ok((graph, outputs))
}

/// Runs the tasks of `results` and calls `take` with every block and the place of its result in
/// `results`, in no particular order, on this thread.
pub(super) fn each_block(
    results: &[Blocked<'_>],
    options: &RunOptions,
    mut take: impl FnMut(usize, &Region, &Block) -> Result<(), ComputeError>,
) -> Result<Report, ComputeError> {
    let (graph, outputs) = graph_of(results)?;
    let ends: Vec<u64> = results
        .iter()
        .scan(0, |end, result| {
            *end += result.0.grid.total();
            Some(*end)
        })
        .collect();
    let report = run(&graph, &outputs, options, &mut |output, value| {
        let output = output as u64;
        let of = ends.partition_point(|&end| end <= output);
        let result = &results[of];
        let number = output + result.0.grid.total() - ends[of];
        let region = result.0.grid.region(&result.0.grid.position(number));
        let block = value.expect::<Block>()?;
        if block.shape() != region.lens() || block.number() != result.number() {
            return Err(TaskError::from("a block has another shape or type than it should"));
        }
        Ok(take(of, &region, block)?)
    })?;
    Ok(report)
}

/// The slice of `len` positions from `start` on.
fn stepped(start: u64, step: i64, len: u64) -> Index {
    let (start, step) = (i128::from(start), i128::from(step));
    let stop = start + step * i128::from(len);
    // Python's slices cannot say "down to the first" with a number.
    let stop = if stop < 0 { None } else { Some(stop) };
    Index::Slice { start: Some(start), stop, step: Some(step) }
}

/// One value everywhere.
struct Full(Data<'static>);

impl Indexed for Full {
    fn fill(&self, data: &mut Data<'static>, run: Run) -> Result<(), ComputeError> {
        fn typed<T: Numeric>(
            value: &[T],
            data: &mut Data<'static>,
            run: Run,
        ) -> Result<(), ComputeError> {
            let (given, wanted) = (data.number(), T::NUMBER);
            let elements = T::unwrap_mut(data).ok_or(ComputeError::Type { given, wanted })?;
            let targets = elements[run.at..].iter_mut().step_by(run.stride.max(1));
            targets.take(run.count).for_each(|target| *target = value[0]);
            Ok(())
        }
        with_elements!(&self.0, value => typed(value, data, run))
    }

    fn is_constant(&self) -> bool {
        true
    }
}
