//! Functions along an axis that are more than a state for each result: running sums, the greatest
//! few, percentiles, histograms.
//!
//! ```text
//! cumsum        block 0 -> block 1 -> block 2      each begins with the last row before it
//! topk, counts  blocks -> few for each -> merged by fours
//! percentile    axes whole in one block, each row sorted
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use num_complex::Complex;

use super::block::{Block, Data, Numeric, with_number};
use super::convert::cast;
use super::node::{BLOCK_BYTES, Blocked};
use super::number::Number;
use super::recipe::{Argument, Input, Recipe};
use super::reduce::Axes;
use super::reducers::{Total, total_of};
use super::region::{Region, block_of, position, to_i64, to_usize};
use super::run::RunOptions;
use super::trouble::ComputeError;
use crate::array::Bool;

/// Blocks merged in one task.
const MERGED_AT_ONCE: usize = 4;

/// Most counts of a histogram or of `bincount`.
const COUNTS_MAX: u64 = 1 << 27;

/// How a row goes on.
#[derive(Clone, Copy)]
enum Running {
    Sum,
    Product,
}

/// Numbers in an order in which NaN comes last.
trait Ordered: Numeric {
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($($element:ty => |$a:ident, $b:ident| $order:expr),* $(,)?) => {$(
        impl Ordered for $element {
            fn order(&self, other: &Self) -> Ordering {
                let ($a, $b) = (self, other);
                $order
            }
        }
    )*};
}
ordered! {
    i8 => |a, b| a.cmp(b), i16 => |a, b| a.cmp(b), i32 => |a, b| a.cmp(b), i64 => |a, b| a.cmp(b),
    u8 => |a, b| a.cmp(b), u16 => |a, b| a.cmp(b), u32 => |a, b| a.cmp(b), u64 => |a, b| a.cmp(b),
    Bool => |a, b| a.get().cmp(&b.get()),
    f32 => |a, b| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
    f64 => |a, b| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
    Complex<f32> => |a, b| a.re.order(&b.re).then(a.im.order(&b.im)),
    Complex<f64> => |a, b| a.re.order(&b.re).then(a.im.order(&b.im)),
}

/// Dense lengths before an axis, of it, and behind it.
fn around(lens: &[usize], axis: usize) -> (usize, usize, usize) {
    (lens[..axis].iter().product(), lens[axis], lens[axis + 1..].iter().product())
}

impl<'e> Blocked<'e> {
    /// The sum of all elements up to here along an axis, added one after another as NumPy adds
    /// them; integers in 64 bits.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn cumsum(&self, axis: i64) -> Result<Self, ComputeError> {
        self.running("cumsum", axis, Running::Sum)
    }

    /// The product of all elements up to here along an axis.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn cumprod(&self, axis: i64) -> Result<Self, ComputeError> {
        self.running("cumprod", axis, Running::Product)
    }

    fn running(&self, name: &'static str, axis: i64, kind: Running) -> Result<Self, ComputeError> {
        let axis = self.axis(name, axis)?;
        let number = total_of(self.number());
        let input = self.astype(number)?;
        let (shape, block) = (input.shape().to_vec(), input.block_shape().to_vec());
        let recipe = move |place: &[u64]| {
            let region = input.region_of(place);
            let bytes = (region.count() * number.itemsize()) as u64;
            let mut inputs = vec![Input::Part(input.clone(), region)];
            if place[axis] > 0 {
                let mut before = place.to_vec();
                before[axis] -= 1;
                inputs.push(Input::Earlier(before));
            }
            Ok(Recipe::new(name, inputs, bytes, move |arguments| {
                let [input, before @ ..] = arguments else { return Err(NO_INPUT) };
                let block = input.block()?;
                let lens = block.shape().to_vec();
                let before = before.first().map(Argument::value::<Block>).transpose()?;
                let (data, around) = (block.into_data(), around(&lens, axis));
                let before = before.map(|before| (before, before.shape()[axis]));
                let data = match number {
                    Number::I64 => run_block::<i64>(data, around, before, kind),
                    Number::U64 => run_block::<u64>(data, around, before, kind),
                    Number::F32 => run_block::<f32>(data, around, before, kind),
                    Number::F64 => run_block::<f64>(data, around, before, kind),
                    Number::C64 => run_block::<Complex<f32>>(data, around, before, kind),
                    _ => run_block::<Complex<f64>>(data, around, before, kind),
                };
                Block::new(&lens, data?)
            }))
        };
        Self::from_tasks(&shape, number, &block, recipe)
    }

    /// The difference to the next element along an axis, `times` times over.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`]; [`ComputeError::Argument`] for more than 100 times.
    pub fn diff(&self, times: u64, axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("diff", axis)?;
        if times > 100 {
            return Err(self.argument("diff", format!("{times} times is too often")));
        }
        let mut result = self.clone();
        for _ in 0..times {
            let len = result.shape()[axis];
            let next = result.between(axis, len.min(1), len)?;
            let this = result.between(axis, 0, len.saturating_sub(1))?;
            result = match result.number().is_bool() {
                true => next.not_equal(this)?,
                false => next.subtract(this)?,
            };
        }
        Ok(result)
    }

    /// The `k` greatest along an axis, the greatest first; for negative `k` the least, the least
    /// first. All of them, ordered, if there are fewer. NaN counts as greatest.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`].
    pub fn topk(&self, k: i64, axis: i64) -> Result<Self, ComputeError> {
        let axis = self.axis("topk", axis)?;
        let (mut shape, mut block) = (self.shape().to_vec(), self.block_shape().to_vec());
        let kept = k.unsigned_abs().min(shape[axis]);
        (shape[axis], block[axis]) = (kept, kept.max(1));
        let (input, number) = (self.clone(), self.number());
        let recipe = move |place: &[u64]| {
            let mut bytes = kept * number.itemsize() as u64;
            let leaves = (0..input.blocks()[axis]).map(|at| {
                let mut place = place.to_vec();
                place[axis] = at;
                let region = input.region_of(&place);
                let taken = (region.count() * number.itemsize()) as u64;
                bytes = bytes.max(taken);
                let inputs = vec![Input::Part(input.clone(), region)];
                Recipe::new("topk", inputs, taken, move |arguments| match arguments {
                    [argument] => greatest(vec![argument.block()?], k, axis),
                    _ => Err(NO_INPUT),
                })
            });
            let leaves = leaves.collect();
            tree("topk", leaves, bytes, Arc::new(move |blocks| greatest(blocks, k, axis)))
        };
        Self::from_tasks(&shape, number, &block, recipe)
    }

    /// The value below which `q` percent of the elements lie, interpolated linearly; NaN if one is.
    ///
    /// Blocks hold the axes whole: along all axes of an array, that is all of it in memory.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Axis`], [`ComputeError::NoElements`], [`ComputeError::Unsupported`] for
    /// truth values and complex numbers, [`ComputeError::Argument`] if `q` is not from 0 to 100.
    pub fn percentile(&self, q: f64, axes: impl Into<Axes>) -> Result<Self, ComputeError> {
        let (operation, axes) = ("percentile", axes.into());
        if self.number().is_bool() || self.number().is_complex() {
            return Err(ComputeError::Unsupported { operation, number: self.number() });
        }
        if !(0.0..=100.0).contains(&q) {
            return Err(self.argument(operation, format!("{q} is not from 0 to 100")));
        }
        let reduced = self.reduced_axes(operation, &axes)?;
        let number = if self.number() == Number::F32 { Number::F32 } else { Number::F64 };
        // The axes that go come last, as one row for each result.
        let places = 0..self.ndim();
        let (gone, kept): (Vec<usize>, Vec<usize>) = places.partition(|&axis| reduced[axis]);
        let order: Vec<i64> = kept.iter().chain(&gone).map(|&axis| to_i64(axis as u64)).collect();
        let rows = self.transpose(&order)?;
        let (shape, row) = rows.shape().split_at(kept.len());
        let (shape, row) = (shape.to_vec(), row.to_vec());
        let row_len: u64 = row.iter().product();
        if row_len == 0 {
            let shape = self.shape().to_vec();
            return Err(ComputeError::NoElements { operation, shape });
        }
        let elements = BLOCK_BYTES / (row_len.saturating_mul(8)).max(1);
        let block = block_of(&shape, (0..shape.len()).rev(), elements);
        let grid = super::region::Grid::new(&shape, &block);
        let recipe = move |place: &[u64]| {
            let mut region = grid.region(place);
            let lens = region.lens();
            let count = region.count();
            region.start.extend(row.iter().map(|_| 0));
            region.len.extend_from_slice(&row);
            let scratch = (region.count() as u64).saturating_mul(16);
            let inputs = vec![Input::Part(rows.clone(), region)];
            let work = move |arguments: &[Argument<'_, 'e>]| {
                let [argument] = arguments else { return Err(NO_INPUT) };
                let elements = cast(argument.data()?, Number::F64).into_elements::<f64>()?;
                let mut rows = elements.into_owned();
                let found = rows.chunks_exact_mut(to_usize(row_len)).map(|row| rank(row, q));
                Block::new(&lens, cast(Data::owned(found.collect::<Vec<_>>()), number))
            };
            let bytes = (count * number.itemsize()) as u64;
            Ok(Recipe::new("percentile", inputs, bytes, work).with_scratch(scratch))
        };
        let result = Self::from_tasks(&shape, number, &block, recipe)?;
        if !axes.keeps() {
            return Ok(result);
        }
        gone.iter().try_fold(result, |result, &axis| result.expand_dims(to_i64(axis as u64)))
    }

    /// How many elements are in each of `bins` bins of equal width over `range`, or from the least
    /// to the greatest element. Those outside and NaN are not counted; the last bin has both ends.
    /// The edges are `linspace(low, high, bins + 1)`.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] for no bins, more than 2^27, or a range that is none;
    /// [`ComputeError::Unsupported`] for complex numbers. Without a range, elements that are not
    /// finite fail when it is computed.
    pub fn histogram(&self, bins: u64, range: Option<(f64, f64)>) -> Result<Self, ComputeError> {
        let operation = "histogram";
        if self.number().is_complex() {
            return Err(ComputeError::Unsupported { operation, number: self.number() });
        }
        if bins == 0 || bins > COUNTS_MAX {
            return Err(self.argument(operation, format!("{bins} bins")));
        }
        if let Some((low, high)) = range
            && !(low <= high && low.is_finite() && high.is_finite())
        {
            return Err(self.argument(operation, format!("{low} to {high} is no range")));
        }
        let input = self.astype(Number::F64)?;
        let ends = match range {
            Some(_) => Vec::new(),
            None if self.size() == 0 => Vec::new(),
            None => vec![input.min(Axes::all())?, input.max(Axes::all())?],
        };
        let range = range.unwrap_or((0.0, 1.0));
        let whole = Region { start: Vec::new(), len: Vec::new() };
        let ends: Vec<Input<'e>> =
            ends.into_iter().map(|end| Input::Part(end, whole.clone())).collect();
        input.counted(operation, bins, ends, move |arguments, counts| {
            let [argument, ends @ ..] = arguments else { return Err(NO_INPUT) };
            let range = match ends {
                [low, high] => {
                    (low.data()?.elements::<f64>()?[0], high.data()?.elements::<f64>()?[0])
                }
                _ => range,
            };
            let bins = Bins::new(range, counts.len())?;
            argument.part()?.each_tile(&mut |_, data| {
                let at = data.elements::<f64>()?.iter().filter_map(|&value| bins.of(value));
                at.for_each(|at| counts[at] += 1);
                Ok(())
            })
        })
    }

    /// How often each number from 0 to the greatest occurs, at least `minlength` of them. How many
    /// there are has to be known, so this looks for the greatest: it runs tasks before it returns.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Argument`] if there is not one axis or a number is negative or above 2^27;
    /// [`ComputeError::Unsupported`] for others than integers; [`ComputeError::Run`].
    pub fn bincount(&self, minlength: u64, options: &RunOptions) -> Result<Self, ComputeError> {
        let operation = "bincount";
        if !(self.number().is_integer() || self.number().is_bool()) {
            return Err(ComputeError::Unsupported { operation, number: self.number() });
        }
        if self.ndim() != 1 {
            return Err(self.argument(operation, "it takes one axis"));
        }
        let input = self.astype(Number::I64)?;
        let mut len = minlength;
        if self.size() > 0 {
            let least = input.min(Axes::all())?.compute::<i64>(options)?;
            let most = input.max(Axes::all())?.compute::<i64>(options)?;
            let ends = (least.first().copied(), most.first().copied());
            let (Some(0..), Some(most)) = ends else {
                return Err(self.argument(operation, "it has negative elements"));
            };
            len = len.max(most.unsigned_abs() + 1);
        }
        if len > COUNTS_MAX {
            return Err(self.argument(operation, format!("it would have {len} counts")));
        }
        if len == 0 {
            return Self::zeros(&[0], Number::I64);
        }
        input.counted(operation, len, Vec::new(), |arguments, counts| {
            let [argument] = arguments else { return Err(NO_INPUT) };
            argument.part()?.each_tile(&mut |_, data| {
                for &value in data.elements::<i64>()? {
                    let count = usize::try_from(value).ok().and_then(|at| counts.get_mut(at));
                    *count.ok_or(ComputeError::Mistake("a number above the greatest"))? += 1;
                }
                Ok(())
            })
        })
    }

    /// Counts of which each block of this adds some.
    fn counted<A>(
        &self,
        name: &'static str,
        len: u64,
        more: Vec<Input<'e>>,
        add: A,
    ) -> Result<Self, ComputeError>
    where
        A: Fn(&[Argument<'_, 'e>], &mut [i64]) -> Result<(), ComputeError> + Send + Sync + 'e,
    {
        let (input, add) = (self.clone(), Arc::new(add));
        let bytes = len.saturating_mul(8);
        let recipe = move |_: &[u64]| {
            let grid = &input.0.grid;
            let leaves = (0..grid.total()).map(|number| {
                let region = grid.region(&position(number, &grid.counts()));
                let mut inputs = vec![Input::Part(input.clone(), region)];
                inputs.extend(more.iter().cloned());
                let add = Arc::clone(&add);
                Recipe::new(name, inputs, bytes, move |arguments| {
                    let mut counts = vec![0_i64; to_usize(len)];
                    add(arguments, &mut counts)?;
                    Block::new(&[to_usize(len)], Data::owned(counts))
                })
            });
            tree(name, leaves.collect(), bytes, Arc::new(move |blocks| sum(blocks, len)))
        };
        Self::from_tasks(&[len], Number::I64, &[len], recipe)
    }
}

const NO_INPUT: ComputeError =
    ComputeError::Mistake("a task with other inputs than it was made for");

/// What several blocks make together.
type Merge = dyn Fn(Vec<Block>) -> Result<Block, ComputeError> + Send + Sync;

/// One block of many, merged by fours in the order in which they are.
fn tree<'e>(
    name: &'static str,
    mut recipes: Vec<Recipe<'e>>,
    bytes: u64,
    merge: Arc<Merge>,
) -> Result<Recipe<'e>, ComputeError> {
    loop {
        let mut left = recipes.into_iter().peekable();
        let mut merged = Vec::new();
        // Also of none there is a result.
        while left.peek().is_some() || merged.is_empty() {
            let group = left.by_ref().take(MERGED_AT_ONCE);
            let inputs = group.map(|recipe| Input::Task(Box::new(recipe))).collect();
            let merge = Arc::clone(&merge);
            merged.push(Recipe::new(name, inputs, bytes, move |arguments| {
                merge(arguments.iter().map(Argument::block).collect::<Result<_, _>>()?)
            }));
        }
        recipes = merged;
        if let [_] = &recipes[..] {
            return recipes.pop().ok_or(NO_INPUT);
        }
    }
}

fn sum(blocks: Vec<Block>, len: u64) -> Result<Block, ComputeError> {
    let mut counts = vec![0_i64; to_usize(len)];
    for block in blocks {
        counts.iter_mut().zip(block.elements::<i64>()?).for_each(|(count, more)| *count += more);
    }
    Block::new(&[to_usize(len)], Data::owned(counts))
}

/// A block of running sums or products; those before end with the last row of `before`.
fn run_block<T: Total>(
    data: Data<'static>,
    around: (usize, usize, usize),
    before: Option<(&Block, usize)>,
    kind: Running,
) -> Result<Data<'static>, ComputeError> {
    let mut elements = data.into_elements::<T>()?.into_owned();
    let before = match before {
        Some((block, rows)) => Some((block.elements::<T>()?, rows)),
        None => None,
    };
    match kind {
        Running::Sum => run_on(&mut elements, around, before, T::plus),
        Running::Product => run_on(&mut elements, around, before, T::times),
    }
    Ok(Data::owned(elements))
}

/// Adds, or multiplies, each row to the one behind it.
fn run_on<T: Numeric>(
    elements: &mut [T],
    (outer, len, inner): (usize, usize, usize),
    before: Option<(&[T], usize)>,
    join: impl Fn(T, T) -> T,
) {
    for outside in 0..outer {
        if let Some((before, rows)) = before {
            let last = &before[((outside + 1) * rows - 1) * inner..][..inner];
            let first = &mut elements[outside * len * inner..][..inner];
            first.iter_mut().zip(last).for_each(|(element, &last)| *element = join(last, *element));
        }
        for row in 1..len {
            let (done, rest) = elements.split_at_mut((outside * len + row) * inner);
            let last = &done[done.len() - inner..];
            let row = &mut rest[..inner];
            row.iter_mut().zip(last).for_each(|(element, &last)| *element = join(last, *element));
        }
    }
}

/// The `k` greatest of blocks that lie behind each other along an axis.
fn greatest(blocks: Vec<Block>, k: i64, axis: usize) -> Result<Block, ComputeError> {
    let Some(first) = blocks.first() else { return Err(NO_INPUT) };
    let number = first.number();
    let mut lens = first.shape().to_vec();
    let (outer, _, inner) = around(&lens, axis);
    let total: usize = blocks.iter().map(|block| block.shape()[axis]).sum();
    let kept = total.min(to_usize(k.unsigned_abs()));
    lens[axis] = kept;
    let data = with_number!(number, T => {
        let parts = blocks.iter().map(Block::elements::<T>).collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<usize> = blocks.iter().map(|block| block.shape()[axis]).collect();
        let mut result = vec![T::default(); outer * kept * inner];
        let mut column = Vec::with_capacity(total);
        for outside in 0..outer {
            for inside in 0..inner {
                column.clear();
                for (part, &rows) in parts.iter().zip(&rows) {
                    let start = outside * rows * inner + inside;
                    column.extend(part[start..].iter().step_by(inner).take(rows));
                }
                column.sort_unstable_by(Ordered::order);
                if k > 0 {
                    column.reverse();
                }
                for (at, &element) in column.iter().take(kept).enumerate() {
                    result[(outside * kept + at) * inner + inside] = element;
                }
            }
        }
        Data::owned(result)
    });
    Block::new(&lens, data)
}

/// The value of rank `q` percent of a row, which is put into some order.
fn rank(row: &mut [f64], q: f64) -> f64 {
    if row.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    #[expect(clippy::cast_precision_loss, reason = "rows are in memory")]
    let at = q / 100.0 * (row.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the whole part of a position in the row"
    )]
    let low = (at.floor() as usize).min(row.len() - 1);
    let part = at - at.floor();
    let (_, &mut below, above) = row.select_nth_unstable_by(low, f64::total_cmp);
    let above = above.iter().copied().min_by(f64::total_cmp).unwrap_or(below);
    if part == 0.0 {
        return below;
    }
    match part < 0.5 {
        true => below + (above - below) * part,
        false => above - (above - below) * (1.0 - part),
    }
}

/// Bins of equal width.
struct Bins {
    low: f64,
    high: f64,
    count: usize,
    scale: f64,
    width: f64,
}

impl Bins {
    #[expect(clippy::cast_precision_loss, reason = "there are at most 2^27 bins")]
    fn new((low, high): (f64, f64), count: usize) -> Result<Self, ComputeError> {
        if !(low.is_finite() && high.is_finite()) {
            let why = "the elements are not all finite; give a range";
            return Err(ComputeError::Value { operation: "histogram", why });
        }
        let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
        let (scale, width) = (count as f64 / (high - low), (high - low) / count as f64);
        Ok(Self { low, high, count, scale, width })
    }

    /// The left edge of a bin, as `linspace` has it.
    #[expect(clippy::cast_precision_loss, reason = "there are at most 2^27 bins")]
    fn edge(&self, bin: usize) -> f64 {
        if bin == self.count { self.high } else { bin as f64 * self.width + self.low }
    }

    /// The bin of a value, if it is in one; rounding is made good as NumPy does.
    fn of(&self, value: f64) -> Option<usize> {
        if !(self.low <= value && value <= self.high) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to the number of bins"
        )]
        let bin = (((value - self.low) * self.scale) as usize).min(self.count - 1);
        if value < self.edge(bin) {
            return Some(bin - 1);
        }
        let is_next = bin + 1 < self.count && value >= self.edge(bin + 1);
        Some(if is_next { bin + 1 } else { bin })
    }
}
