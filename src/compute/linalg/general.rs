//! Systems of any square matrix: factored by panels of columns, with partial pivoting.
//!
//! ```text
//! W(0,0) W(0,1) W(0,2)     W(k, j): panel j after the elimination of panel k, from W(k - 1, j),
//!        W(1,1) W(1,2)     or from the matrix, and from W(k, k)
//!               W(2,2)     W(k, k): panel k factored, and in one column more which rows it swaps
//! ```
//!
//! The right-hand side takes the same steps as a panel does. What is on and above the diagonal in
//! `W(0,0)`, `W(1,1)`, ... is the triangle that is left to be solved.

use super::solving::{Triangle, solve_triangular};
use super::{bytes_of, region, with_field};
use crate::compute::block::{Block, Data};
use crate::compute::dense::{self, Field, Matrix};
use crate::compute::node::{BLOCK_BYTES, Blocked};
use crate::compute::number::Number;
use crate::compute::recipe::{Argument, Input, Recipe};
use crate::compute::region::{Region, to_usize};
use crate::compute::trouble::ComputeError;

/// Most panels: what one does to all others is a task for each of them.
const PANELS_MAX: u64 = 500;

/// How a matrix is cut.
#[derive(Clone, Copy)]
struct Cut {
    number: Number,
    side: u64,
    /// Columns of a panel; the last one may have fewer.
    width: u64,
    panels: u64,
}

impl Cut {
    fn columns(self, panel: u64) -> u64 {
        self.width.min(self.side - panel * self.width)
    }

    /// Where `W(step, panel)` lies.
    fn region(self, step: u64, panel: u64) -> Region {
        let stored = self.width + 1;
        Region { start: vec![step, 0, panel * stored], len: vec![1, self.side, stored] }
    }
}

/// The solution `x` of `a x = b`; both have the type `number`, and fit.
pub(super) fn solved<'e>(
    a: &Blocked<'e>,
    b: &Blocked<'e>,
    number: Number,
) -> Result<Blocked<'e>, ComputeError> {
    let side = a.shape()[0];
    if b.size() == 0 {
        return Blocked::zeros(b.shape(), number);
    }
    let elements: u64 = a.block_shape().iter().product();
    let width = (elements / side).max(side.div_ceil(PANELS_MAX)).clamp(1, side);
    let cut = Cut { number, side, width, panels: side.div_ceil(width) };
    let panels = eliminated(a, cut)?;
    let columns = if b.ndim() == 1 { b.reshape(&[-1, 1])? } else { b.clone() };
    let reduced = reduced(&panels, &columns, cut)?;
    let pieces = (0..cut.panels).map(|panel| {
        let first = panel * (width + 1);
        panels.slice(format!("{panel}, :, {first}:{}", first + cut.columns(panel)).as_str())
    });
    let upper = Blocked::concatenate(&pieces.collect::<Result<Vec<_>, _>>()?, 1)?;
    let x = solve_triangular(&upper, &reduced, Triangle::Upper)?;
    if b.ndim() == 1 { x.reshape(&[-1]) } else { Ok(x) }
}

/// All `W`.
fn eliminated<'e>(a: &Blocked<'e>, cut: Cut) -> Result<Blocked<'e>, ComputeError> {
    let Cut { number, side, width, panels } = cut;
    let a = a.clone();
    let shape = [panels, side, panels * (width + 1)];
    Blocked::from_tasks(&shape, number, &[1, side, width + 1], move |place| {
        let (step, panel) = (place[0], place[2]);
        let bytes = bytes_of(number, &[side, width + 1]);
        let columns = cut.columns(panel);
        let mut inputs = Vec::new();
        if panel >= step {
            inputs.push(match step.checked_sub(1) {
                None => Input::Part(a.clone(), region([0, panel * width], [side, columns])),
                Some(before) => Input::Earlier(vec![before, 0, panel]),
            });
        }
        if panel > step {
            inputs.push(Input::Earlier(vec![step, 0, step]));
        }
        let work = move |arguments: &[Argument<'_, 'e>]| {
            let after = with_field!(number, T => panel_after::<T>);
            after(arguments, cut, step, columns)
        };
        Ok(Recipe::new("eliminate", inputs, bytes, work).with_scratch(4 * bytes))
    })
}

/// The right-hand side after all steps.
fn reduced<'e>(
    panels: &Blocked<'e>,
    b: &Blocked<'e>,
    cut: Cut,
) -> Result<Blocked<'e>, ComputeError> {
    let Cut { number, side, .. } = cut;
    let all = b.shape()[1];
    let wide = (BLOCK_BYTES / bytes_of(number, &[side])).min(all).max(1);
    let (panels, b) = (panels.clone(), b.clone());
    let steps = Blocked::from_tasks(&[cut.panels, side, all], number, &[1, side, wide], {
        move |place| {
            let (step, first) = (place[0], place[2] * wide);
            let columns = wide.min(all - first);
            let state = match step.checked_sub(1) {
                None => Input::Part(b.clone(), region([0, first], [side, columns])),
                Some(before) => Input::Earlier(vec![before, 0, place[2]]),
            };
            let inputs = vec![state, Input::Part(panels.clone(), cut.region(step, step))];
            let bytes = bytes_of(number, &[side, columns]);
            let work = move |arguments: &[Argument<'_, 'e>]| {
                let after = with_field!(number, T => right_side_after::<T>);
                after(arguments, cut, step, columns)
            };
            let scratch = 2 * bytes + 2 * bytes_of(number, &[side, cut.width + 1]);
            Ok(Recipe::new("eliminate", inputs, bytes, work).with_scratch(scratch))
        }
    })?;
    steps.slice((cut.panels - 1).to_string().as_str())
}

/// One block `W(step, panel)`: nothing below the diagonal, the factored panel on it, a panel after
/// the step above it.
fn panel_after<T: Field>(
    arguments: &[Argument<'_, '_>],
    cut: Cut,
    step: u64,
    columns: u64,
) -> Result<Block, ComputeError> {
    let (side, stored) = (to_usize(cut.side), to_usize(cut.width + 1));
    let (columns, first) = (to_usize(columns), to_usize(step * cut.width));
    let mut packed = vec![T::default(); side * stored];
    if let Some(state) = arguments.first() {
        let mut left = first_columns::<T>(state, side, columns)?;
        match arguments.get(1) {
            None => {
                let matrix = Matrix::new(&left[first * columns..], side - first, columns);
                let (factors, from) = dense::lu(matrix);
                if (0..columns).any(|at| factors[at * columns + at] == T::default()) {
                    let why = "the matrix is singular";
                    return Err(ComputeError::Value { operation: "solve", why });
                }
                left.truncate(first * columns);
                left.extend(factors);
                for (row, from) in (first..).zip(from) {
                    packed[row * stored + stored - 1] = T::of_index(from);
                }
            }
            Some(panel) => take_step(panel.data()?.elements::<T>()?, cut, first, &mut left)?,
        }
        for (to, from) in packed.chunks_mut(stored).zip(left.chunks(columns)) {
            to[..columns].copy_from_slice(from);
        }
    }
    Block::new(&[1, side, stored], Data::owned(packed))
}

fn right_side_after<T: Field>(
    arguments: &[Argument<'_, '_>],
    cut: Cut,
    step: u64,
    columns: u64,
) -> Result<Block, ComputeError> {
    let (side, columns) = (to_usize(cut.side), to_usize(columns));
    let mut left = first_columns::<T>(&arguments[0], side, columns)?;
    let panel = arguments[1].data()?;
    take_step(panel.elements::<T>()?, cut, to_usize(step * cut.width), &mut left)?;
    Block::new(&[1, side, columns], Data::owned(left))
}

/// The first columns of a state, dense.
fn first_columns<T: Field>(
    state: &Argument<'_, '_>,
    side: usize,
    columns: usize,
) -> Result<Vec<T>, ComputeError> {
    let data = state.data()?;
    let elements = data.elements::<T>()?;
    let stored = elements.len() / side;
    Ok(elements.chunks(stored).flat_map(|row| &row[..columns]).copied().collect())
}

/// Eliminates with the factored `panel`, whose first row is `first`: swaps rows, solves those of
/// the panel, and takes their products from the rows below.
fn take_step<T: Field>(
    panel: &[T],
    cut: Cut,
    first: usize,
    left: &mut [T],
) -> Result<(), ComputeError> {
    let (side, stored) = (to_usize(cut.side), to_usize(cut.width + 1));
    let (columns, height) = (left.len() / side, (stored - 1).min(side - first));
    let rows: Vec<&[T]> = panel.chunks(stored).skip(first).collect();
    let given = left[first * columns..].to_vec();
    for (row, to) in rows.iter().zip(left[first * columns..].chunks_mut(columns)) {
        let from = row[stored - 1].index();
        let from = given.get(from * columns..(from + 1) * columns);
        to.copy_from_slice(from.ok_or(ComputeError::Mistake("a row that is not there"))?);
    }
    let unit_lower: Vec<T> = (0..height * height)
        .map(|at| match (at / height).cmp(&(at % height)) {
            std::cmp::Ordering::Greater => rows[at / height][at % height],
            std::cmp::Ordering::Equal => T::one_impl(),
            std::cmp::Ordering::Less => T::default(),
        })
        .collect();
    let (own, below) = left[first * columns..].split_at_mut(height * columns);
    let unit_lower = Matrix::new(&unit_lower, height, height);
    dense::solve_triangle(Triangle::Lower, unit_lower, own, columns);
    let beside: Vec<T> = rows[height..].iter().flat_map(|row| &row[..height]).copied().collect();
    let beside = Matrix::new(&beside, side - first - height, height);
    if !below.is_empty() {
        dense::multiply_subtract(beside, Matrix::new(own, height, columns), below);
    }
    Ok(())
}
