//! Reductions in stages: a state for each block, states merged by fours, and a result at last.
//!
//! ```text
//! blocks    0   1   2   3   4   5   6   7   8
//! states    s   s   s   s   s   s   s   s   s      each over its block, tile by tile
//! merged    '---'---'---'   '---'---'---'   s
//!                 '---------------'---------'      merged, finished
//! ```
//!
//! Where states are nearly as large as a block, and blocks are read and not made, a task sees
//! several blocks one after another: making and merging states would cost more than seeing them.
//!
//! # Invariants
//!
//! 1. Which states are merged, and in which order, follows from the blocks only, so the result is
//!    the same for any number of threads.

use std::marker::PhantomData;
use std::sync::Arc;

use super::block::{Block, Data, Numeric};
use super::node::Blocked;
use super::number::Number;
use super::recipe::{Argument, Input, Part, Recipe, value_of};
use super::region::{Region, dense_strides, to_usize};
use super::trouble::ComputeError;
use super::value::Value;

/// States merged in one task.
const MERGED_AT_ONCE: usize = 4;

/// Bytes of states that stay in a processor's cache.
const STRIPE_BYTES: u64 = 256 << 10;

/// Blocks seen by one task at most.
const SEEN_AT_ONCE: usize = 4;

/// Tasks that are left, at least, where a task sees several blocks.
const TASKS_LEFT: usize = 16;

/// The axes over which something is reduced, and whether they stay with length 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axes {
    axes: Option<Vec<i64>>,
    keep: bool,
}

impl Axes {
    /// All axes.
    #[must_use]
    pub fn all() -> Self {
        Self { axes: None, keep: false }
    }

    /// The axes stay, with length 1: NumPy's `keepdims=True`.
    #[must_use]
    pub fn keep_dims(self) -> Self {
        Self { keep: true, ..self }
    }

    pub(crate) fn keeps(&self) -> bool {
        self.keep
    }

    /// The axes of an array; `None` for all.
    pub(crate) fn list(&self) -> Option<&[i64]> {
        self.axes.as_deref()
    }
}

impl From<i64> for Axes {
    fn from(axis: i64) -> Self {
        Self { axes: Some(vec![axis]), keep: false }
    }
}

impl From<&[i64]> for Axes {
    fn from(axes: &[i64]) -> Self {
        Self { axes: Some(axes.to_vec()), keep: false }
    }
}

impl<const N: usize> From<[i64; N]> for Axes {
    fn from(axes: [i64; N]) -> Self {
        Self::from(&axes[..])
    }
}

/// How elements become one.
pub(crate) trait Reducer: Send + Sync + 'static {
    /// What is reduced.
    type Element: Numeric;
    /// What is known of the elements seen so far.
    type State: Copy + Send + Sync + 'static;

    /// Of no elements.
    fn start(&self) -> Self::State;

    /// Sees one more element; `at` is its position along the reduced axes, in C order.
    fn step(&self, state: &mut Self::State, element: Self::Element, at: u64);

    /// Sees elements at positions that follow each other.
    fn run(&self, state: &mut Self::State, elements: &[Self::Element], at: u64) {
        (at..).zip(elements).for_each(|(at, &element)| self.step(state, element, at));
    }

    /// Adds what another state has seen, which comes behind.
    fn merge(&self, state: &mut Self::State, other: &Self::State);

    /// The results.
    fn finish(&self, states: Vec<Self::State>) -> Result<Data<'static>, ComputeError>;
}

/// States of the elements that stay, dense in C order.
struct States<S>(Vec<S>);

/// What is reduced, and which axes.
struct Plan<'e> {
    input: Blocked<'e>,
    reduced: Vec<bool>,
}

impl<'e> Blocked<'e> {
    /// Which axes are named, and the shapes of the result: without them, and with length 1.
    pub(crate) fn reduced_axes(
        &self,
        operation: &'static str,
        axes: &Axes,
    ) -> Result<Vec<bool>, ComputeError> {
        let mut reduced = vec![axes.list().is_none(); self.ndim()];
        for axis in self.distinct(operation, axes.list().unwrap_or(&[]))? {
            reduced[axis] = true;
        }
        Ok(reduced)
    }

    /// The array of which every element is what `reducer` makes of the elements along `axes`.
    pub(crate) fn reduce_by<R: Reducer>(
        &self,
        name: &'static str,
        axes: &Axes,
        reducer: R,
        result: Number,
    ) -> Result<Self, ComputeError> {
        let input = self.astype(R::Element::NUMBER)?;
        let reduced = self.reduced_axes(name, axes)?;
        let keep = |lens: &[u64]| -> Vec<u64> {
            let kept = lens.iter().zip(&reduced);
            kept.map(|(&len, &is_reduced)| if is_reduced { 1 } else { len }).collect()
        };
        let (shape, block) = (keep(input.shape()), keep(input.block_shape()));
        let plan = Arc::new(Plan { input, reduced: reduced.clone() });
        let reducer = Arc::new(reducer);
        let recipe = move |position: &[u64]| Ok(recipe(name, &plan, &reducer, position, result));
        let whole = Self::from_tasks(&shape, result, &block, recipe)?;
        if axes.keeps() {
            return Ok(whole);
        }
        whole.without(&reduced)
    }

    /// Without axes of length 1.
    pub(crate) fn without(&self, axes: &[bool]) -> Result<Self, ComputeError> {
        use super::view::Along;
        let (mut along, mut shape) = (Vec::new(), Vec::new());
        for (&len, &is_gone) in self.shape().iter().zip(axes) {
            if is_gone {
                along.push(Along::At(0));
            } else {
                along.push(Along::same(shape.len()));
                shape.push(len);
            }
        }
        self.viewed(along, &shape)
    }
}

/// How the block of results at `position` is made.
fn recipe<'e, R: Reducer>(
    name: &'static str,
    plan: &Arc<Plan<'e>>,
    reducer: &Arc<R>,
    position: &[u64],
    result: Number,
) -> Recipe<'e> {
    let grid = &plan.input.0.grid;
    // The block's own lengths, with reduced axes of length 1.
    let shape: Vec<u64> = (0..position.len())
        .map(|axis| match plan.reduced[axis] {
            true => 1,
            false => {
                let start = position[axis] * grid.block[axis];
                (grid.shape[axis] - start).min(grid.block[axis])
            }
        })
        .collect();
    let lens: Vec<usize> = shape.iter().map(|&len| to_usize(len)).collect();
    let count: usize = lens.iter().product();
    let counts: Vec<u64> = grid
        .counts()
        .iter()
        .zip(&plan.reduced)
        .map(|(&count, &is_reduced)| if is_reduced { count } else { 1 })
        .collect();
    let regions: Vec<Region> = (0..counts.iter().product())
        .map(|number| {
            let along = super::region::position(number, &counts);
            let at = along.iter().zip(position).zip(&plan.reduced);
            let at = at.map(|((&along, &own), &is_reduced)| if is_reduced { along } else { own });
            plan.input.region_of(&at.collect::<Vec<_>>())
        })
        .collect();
    let at_once = seen_at_once::<R>(plan, &regions, count);
    let mut states: Vec<Recipe<'e>> =
        regions.chunks(at_once).map(|seen| state(name, plan, reducer, seen, count)).collect();
    while states.len() > MERGED_AT_ONCE {
        let mut left = states.into_iter().peekable();
        let mut merged = Vec::new();
        while left.peek().is_some() {
            let group: Vec<_> = left.by_ref().take(MERGED_AT_ONCE).collect();
            merged.push(merge_recipe(name, reducer, group, count));
        }
        states = merged;
    }
    let inputs = states.into_iter().map(|state| Input::Task(Box::new(state))).collect();
    let reducer = Arc::clone(reducer);
    let work = move |arguments: &[Argument<'_, 'e>]| {
        let states = merged(&*reducer, arguments, count)?;
        Ok(value_of(Block::new(&lens, reducer.finish(states)?)?))
    };
    let bytes = (count * result.itemsize()) as u64;
    let scratch = states_bytes::<R>(count).saturating_mul(2);
    Recipe { name, inputs, bytes, scratch, work: Arc::new(work) }
}

fn states_bytes<R: Reducer>(count: usize) -> u64 {
    (count as u64).saturating_mul(size_of::<R::State>() as u64)
}

/// How many of the blocks a task sees one after another.
fn seen_at_once<R: Reducer>(plan: &Plan<'_>, regions: &[Region], count: usize) -> usize {
    let Some(first) = regions.first() else { return 1 };
    let block_bytes = (first.count() * R::Element::NUMBER.itemsize()) as u64;
    let are_large = states_bytes::<R>(count) >= block_bytes / 8;
    if are_large && !plan.input.needs_tasks() {
        (regions.len() / TASKS_LEFT).clamp(1, SEEN_AT_ONCE)
    } else {
        1
    }
}

/// The states of blocks of the input that follow each other.
fn state<'e, R: Reducer>(
    name: &'static str,
    plan: &Arc<Plan<'e>>,
    reducer: &Arc<R>,
    regions: &[Region],
    count: usize,
) -> Recipe<'e> {
    let part = |region: &Region| Input::Part(plan.input.clone(), region.clone());
    let inputs = regions.iter().map(part).collect();
    let (plan, reducer) = (Arc::clone(plan), Arc::clone(reducer));
    let work = move |arguments: &[Argument<'_, 'e>]| {
        // Written, not asked for as zeros, which would fault twice: when read and when written.
        let mut states = Vec::with_capacity(count);
        states.resize(count, reducer.start());
        let parts = arguments.iter().map(Argument::part).collect::<Result<Vec<_>, _>>()?;
        let stripes: Vec<Vec<Region>> =
            parts.iter().map(|part| stripes::<R>(&plan, part.region, count)).collect();
        for at in 0..stripes.first().map_or(0, Vec::len) {
            for (part, stripes) in parts.iter().zip(&stripes) {
                see(&plan, &*reducer, part, &stripes[at], &mut states)?;
            }
        }
        let bytes = states_bytes::<R>(count);
        Ok(Value::new(States(states), bytes))
    };
    let bytes = states_bytes::<R>(count);
    Recipe { name, inputs, bytes, scratch: 1 << 20, work: Arc::new(work) }
}

fn merge_recipe<'e, R: Reducer>(
    name: &'static str,
    reducer: &Arc<R>,
    states: Vec<Recipe<'e>>,
    count: usize,
) -> Recipe<'e> {
    let inputs = states.into_iter().map(|state| Input::Task(Box::new(state))).collect();
    let reducer = Arc::clone(reducer);
    let work = move |arguments: &[Argument<'_, 'e>]| {
        let bytes = states_bytes::<R>(count);
        Ok(Value::new(States(merged(&*reducer, arguments, count)?), bytes))
    };
    Recipe { name, inputs, bytes: states_bytes::<R>(count), scratch: 0, work: Arc::new(work) }
}

fn merged<R: Reducer>(
    reducer: &R,
    arguments: &[Argument<'_, '_>],
    count: usize,
) -> Result<Vec<R::State>, ComputeError> {
    let mut all = arguments.iter().map(|argument| argument.value::<States<R::State>>());
    let mut states = match all.next() {
        Some(first) => first?.0.clone(),
        None => vec![reducer.start(); count],
    };
    for other in all {
        states.iter_mut().zip(&other?.0).for_each(|(state, other)| reducer.merge(state, other));
    }
    Ok(states)
}

/// Cut along the axes that stay, so that the states of a stripe are in the cache while all of its
/// elements are seen. Blocks that differ along reduced axes only are cut alike.
fn stripes<R: Reducer>(plan: &Plan<'_>, region: &Region, count: usize) -> Vec<Region> {
    if plan.input.0.fast_axis.is_some() || states_bytes::<R>(count) <= STRIPE_BYTES {
        return vec![region.clone()];
    }
    let mut room = STRIPE_BYTES / size_of::<R::State>() as u64;
    let mut stripe: Vec<u64> = region.len.iter().map(|&len| len.max(1)).collect();
    for (axis, len) in stripe.iter_mut().enumerate().rev() {
        if !plan.reduced[axis] {
            *len = (*len).min(room.max(1));
            room /= *len;
        }
    }
    region.tiles(&stripe).collect()
}

/// Sees all elements of a stripe of a block, tile by tile.
fn see<R: Reducer>(
    plan: &Plan<'_>,
    reducer: &R,
    part: &Part<'_, '_>,
    stripe: &Region,
    states: &mut [R::State],
) -> Result<(), ComputeError> {
    let kept = |lens: &[u64]| -> Vec<u64> {
        let lens = lens.iter().zip(&plan.reduced);
        lens.map(|(&len, &is_reduced)| if is_reduced { 1 } else { len }).collect()
    };
    let gone = |lens: &[u64]| -> Vec<u64> {
        let lens = lens.iter().zip(&plan.reduced);
        lens.map(|(&len, &is_reduced)| if is_reduced { len } else { 1 }).collect()
    };
    let rows = Rows {
        reduced: &plan.reduced,
        states: dense_strides(&kept(&part.region.len)),
        positions: dense_strides(&gone(plan.input.shape())),
        shape: plan.input.shape(),
        block: part.region,
        reducer: PhantomData::<R>,
    };
    part.each_tile_within(stripe, &mut |tile, data| {
        rows.see(tile, data.elements::<R::Element>()?, reducer, states);
        Ok(())
    })
}

/// How rows of a tile meet states.
struct Rows<'a, R> {
    reduced: &'a [bool],
    /// Strides of the states; those of reduced axes have no meaning.
    states: Vec<i64>,
    /// Strides of positions along the reduced axes.
    positions: Vec<i64>,
    shape: &'a [u64],
    block: &'a Region,
    reducer: PhantomData<R>,
}

impl<R: Reducer> Rows<'_, R> {
    fn see(&self, tile: &Region, elements: &[R::Element], reducer: &R, states: &mut [R::State]) {
        let ndim = tile.len.len();
        if elements.is_empty() {
            return;
        }
        let Some(last) = ndim.checked_sub(1) else {
            return reducer.step(&mut states[0], elements[0], 0);
        };
        // Inner axes of one kind are one row, if they are whole.
        let mut first = last;
        while first > 0
            && self.reduced[first - 1] == self.reduced[last]
            && tile.len[first] == self.shape[first]
            && tile.len[first] == self.block.len[first]
        {
            first -= 1;
        }
        let row: usize = tile.len[first..].iter().map(|&len| to_usize(len)).product();
        // How far each outer axis moves the state, and the position along the reduced axes.
        let moves: Vec<(u64, u64)> = (0..ndim)
            .map(|axis| match self.reduced[axis] {
                true => (0, self.positions[axis].unsigned_abs()),
                false => (self.states[axis].unsigned_abs(), 0),
            })
            .collect();
        let (mut place, mut position) = (0, 0);
        for (axis, (to_state, to_position)) in moves.iter().enumerate() {
            place += (tile.start[axis] - self.block.start[axis]) * to_state;
            position += tile.start[axis] * to_position;
        }
        let mut at = vec![0; first];
        for elements in elements.chunks_exact(row) {
            let from = (to_usize(place), position);
            self.see_row(self.reduced[last], elements, from, reducer, states);
            for axis in (0..first).rev() {
                let (to_state, to_position) = moves[axis];
                at[axis] += 1;
                place += to_state;
                position += to_position;
                if at[axis] < tile.len[axis] {
                    break;
                }
                place -= at[axis] * to_state;
                position -= at[axis] * to_position;
                at[axis] = 0;
            }
        }
    }

    /// One row: all of it for one state, or each element for its own.
    #[inline]
    fn see_row(
        &self,
        is_reduced: bool,
        elements: &[R::Element],
        (state, position): (usize, u64),
        reducer: &R,
        states: &mut [R::State],
    ) {
        if is_reduced {
            return reducer.run(&mut states[state], elements, position);
        }
        let states = &mut states[state..state + elements.len()];
        states.iter_mut().zip(elements).for_each(|(state, &element)| {
            reducer.step(state, element, position);
        });
    }
}
