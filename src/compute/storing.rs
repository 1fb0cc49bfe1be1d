//! Results into arrays of a store, block by block as they are finished.
//!
//! ```text
//! (expression, array), ...  ->  one graph, what they share once  ->  each block written, forgotten
//! ```
//!
//! # Invariants
//!
//! 1. No more of a result is in memory than the blocks that were not written yet.
//!
//! # Failure
//!
//! After an error the arrays have some of the new elements: abort the transaction, or roll back.

use super::block::Block;
use super::blocked::each_block;
use super::node::Blocked;
use super::number::Number;
use super::region::Region;
use super::run::{Report, RunOptions};
use super::trouble::ComputeError;
use crate::array::{DynArray, Index, Order};

/// Computes several expressions and writes each into its array, cast to the array's type as an
/// assignment casts.
///
/// What the expressions have in common is computed once: the factors of one
/// [`svd`](super::linalg::svd()), for example. Blocks are written as they are finished, those that
/// lie whole in their array past memory: the results may be larger than memory, and all of them are
/// committed with the transaction or nothing. After an error the arrays have some of the new
/// elements; abort then, or roll back.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # use ndarray::{Array2, Ix1, Ix2};
/// # use zbigarray::compute::{Blocked, RunOptions, linalg, store_all};
/// # let store = zbigarray::Store::create(dir.path().join("s"), Default::default())?;
/// # let transaction = store.begin()?;
/// # let ones = Array2::<f64>::eye(9);
/// # let mut tall = transaction.create::<f64, Ix2>("tall", &[9, 2])?;
/// # tall.assign("...", &ones.slice(ndarray::s![.., ..2]))?;
/// # drop(tall);
/// # transaction.commit()?;
/// let snapshot = store.begin_read()?;
/// let tall = snapshot.open::<f64, Ix2>("tall")?;
/// let (u, s, vt) = linalg::svd(&Blocked::stored(tall.dynamic())?)?;
/// let transaction = store.begin()?;
/// let mut u_array = transaction.create::<f64, Ix2>("u", &[9, 2])?;
/// let mut s_array = transaction.create::<f64, Ix1>("s", &[2])?;
/// store_all(
///     &mut [(&u, u_array.dynamic_mut()), (&s, s_array.dynamic_mut())],
///     &RunOptions::default(),
/// )?;
/// # assert_eq!(s_array.view()?.as_slice(), Some(&[1.0, 1.0][..]));
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`ComputeError::Target`] if shapes differ, [`ComputeError::NotNumbers`]; before anything runs.
/// [`ComputeError::Run`] with the task that failed and why.
pub fn store_all(
    results: &mut [(&Blocked<'_>, &mut DynArray<'_>)],
    options: &RunOptions,
) -> Result<Report, ComputeError> {
    let cast: Result<Vec<Blocked<'_>>, ComputeError> =
        results.iter().map(|(result, target)| fitting(result, target)).collect();
    let cast = cast?;
    each_block(&cast, options, |of, region, block| write(results[of].1, region, block))
}

/// `result` in the type of `target`, if it can be written there.
fn fitting<'e>(result: &Blocked<'e>, target: &DynArray<'_>) -> Result<Blocked<'e>, ComputeError> {
    let Some(number) = Number::of(target.dtype()) else {
        return Err(ComputeError::NotNumbers { dtype: target.dtype().clone() });
    };
    if target.shape()[..] != *result.shape() {
        let (given, wanted) = (result.shape().to_vec(), target.shape().to_vec());
        return Err(ComputeError::Target { given, wanted });
    }
    result.astype(number)
}

fn write(target: &mut DynArray<'_>, region: &Region, block: &Block) -> Result<(), ComputeError> {
    let axes = region.start.iter().zip(&region.len);
    let indices: Vec<Index> = axes.map(|(&start, &len)| Index::from(start..start + len)).collect();
    let selection = target.select(&indices)?;
    let is_native = target.dtype().is_native_order() || block.number() == Number::Bool;
    if is_native {
        target.write(&selection, Order::C, block.data().bytes())?;
    } else {
        let swapped = super::evaluate::swapped(block.data().borrowed());
        target.write(&selection, Order::C, swapped.bytes())?;
    }
    Ok(())
}
