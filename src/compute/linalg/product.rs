//! Products: `tensordot`, `matmul`, `dot`, `outer`.
//!
//! ```text
//!            k            n                  one task: a block of the result, to which the
//!        +---+---+     +-----+     +-----+   products of the tiles along k are added in order
//!      m | 1 | 2 |  k  |  1  | = m | 1+2 |
//!        +---+---+     |  2  |     +-----+
//! ```
//!
//! Tiles are read inside the task, one pair at a time. Where the result has few blocks, the tiles
//! along `k` are shared out among several tasks and their results added in the order of a tree.

use super::{bytes_of, ordered, refused, whole};
use crate::array::Bool;
use crate::compute::block::{Block, Data, Numeric, with_number};
use crate::compute::dense::{Matrix, multiply_add};
use crate::compute::node::{Blocked, Kind};
use crate::compute::number::Number;
use crate::compute::recipe::{Argument, Input, Recipe};
use crate::compute::region::{Grid, Region, block_of, to_usize};
use crate::compute::trouble::ComputeError;
use crate::compute::view::Along;
use num_complex::Complex;

/// Bytes of a block of a product, and of the tiles it is made of: a kernel does thousands of
/// operations for each element it is given, and gathering a tile costs some percent of that.
const PRODUCT_BYTES: u64 = 32 << 20;

/// Tasks that a product has at least, if there is work for so many.
const TASKS_WANTED: u64 = 16;

/// A longer side is halved where there would be too few tasks. With less than half of this a kernel
/// would have too little to do for what it reads.
const SIDE_LONG: u64 = 512;

/// Bytes that all shares of one block of the result may have together.
const SHARES_BYTES: u64 = 64 << 20;

/// Sums of products over pairs of axes, as NumPy's `tensordot` with two lists of axes.
///
/// The result has the other axes of `a`, then the other axes of `b`. Negative axes count from the
/// end.
///
/// # Errors
///
/// Axes that are not there, that are named twice, or whose lengths differ.
pub fn tensordot<'e>(
    a: &Blocked<'e>,
    b: &Blocked<'e>,
    axes: (&[i64], &[i64]),
) -> Result<Blocked<'e>, ComputeError> {
    let operation = "tensordot";
    let (left, right) = (axes_of(operation, a, axes.0)?, axes_of(operation, b, axes.1)?);
    let lengths = |of: &Blocked<'_>, axes: &[usize]| -> Vec<u64> {
        axes.iter().map(|&axis| of.shape()[axis]).collect()
    };
    if lengths(a, &left) != lengths(b, &right) {
        let why = format!(
            "axes {:?} do not have the lengths of axes {:?} of an array of shape {:?}",
            axes.0,
            axes.1,
            b.shape()
        );
        return Err(refused(operation, a, why));
    }
    let free = |of: &Blocked<'_>, bound: &[usize]| -> Vec<usize> {
        (0..of.ndim()).filter(|axis| !bound.contains(axis)).collect()
    };
    let (m, n) = (free(a, &left), free(b, &right));
    let a = ordered(a, &[&m[..], &left].concat())?;
    let b = ordered(b, &[&right[..], &n].concat())?;
    contracted(operation, &a, &b, Axes { batch: 0, k: left.len() })
}

/// The matrix product, as NumPy's `matmul` and `@`.
///
/// Axes before the last two are batches, which are broadcast; an operand with one axis is a row on
/// the left and a column on the right, and that axis is left out of the result.
///
/// # Errors
///
/// Operands without axes, or of shapes that do not fit.
pub fn matmul<'e>(a: &Blocked<'e>, b: &Blocked<'e>) -> Result<Blocked<'e>, ComputeError> {
    let operation = "matmul";
    let mismatch = || ComputeError::Broadcast {
        operation,
        left: a.shape().to_vec(),
        right: b.shape().to_vec(),
    };
    let (Some(&k), false) = (a.shape().last(), b.ndim() == 0) else {
        let why = "matmul needs axes; multiply does the elements one by one";
        return Err(refused(operation, if a.ndim() == 0 { a } else { b }, why));
    };
    let k_axis = b.ndim().saturating_sub(2);
    if b.shape()[k_axis] != k {
        return Err(mismatch());
    }
    let batch = |of: &Blocked<'_>| of.shape()[..of.ndim().saturating_sub(2)].to_vec();
    let batches = broadcast(&batch(a), &batch(b)).ok_or_else(mismatch)?;
    let matrix = |of: &Blocked<'_>| of.shape()[of.ndim().saturating_sub(2)..].to_vec();
    let a = a.broadcast_to(&[&batches[..], &matrix(a)].concat())?;
    let b = b.broadcast_to(&[&batches[..], &matrix(b)].concat())?;
    contracted(operation, &a, &b, Axes { batch: batches.len(), k: 1 })
}

/// NumPy's `dot`: of two vectors their inner product, of others the sum over the last axis of `a`
/// and the last but one of `b`; of an array without axes and another the product of elements.
///
/// # Errors
///
/// Shapes that do not fit.
pub fn dot<'e>(a: &Blocked<'e>, b: &Blocked<'e>) -> Result<Blocked<'e>, ComputeError> {
    if a.ndim() == 0 || b.ndim() == 0 {
        return a.multiply(b);
    }
    tensordot(a, b, (&[-1], &[if b.ndim() == 1 { 0 } else { -2 }]))
}

/// The product of each element of `a` with each of `b`, both in C order.
///
/// # Errors
///
/// A result that is larger than an array can be.
pub fn outer<'e>(a: &Blocked<'e>, b: &Blocked<'e>) -> Result<Blocked<'e>, ComputeError> {
    let column = a.reshape(&[-1, 1])?;
    let row = b.reshape(&[1, -1])?;
    column.multiply(&row)
}

fn axes_of(
    operation: &'static str,
    of: &Blocked<'_>,
    axes: &[i64],
) -> Result<Vec<usize>, ComputeError> {
    let mut found = Vec::new();
    for &axis in axes {
        let ndim = i64::try_from(of.ndim()).unwrap_or(i64::MAX);
        let from_start = if axis < 0 { axis + ndim } else { axis };
        let at = usize::try_from(from_start).ok().filter(|&at| at < of.ndim());
        let shape = || of.shape().to_vec();
        let at = at.ok_or_else(|| ComputeError::Axis { operation, axis, shape: shape() })?;
        if found.contains(&at) {
            return Err(ComputeError::AxisTwice { operation, axis });
        }
        found.push(at);
    }
    Ok(found)
}

/// The shape that both can be stretched to.
fn broadcast(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let ndim = a.len().max(b.len());
    let length =
        |of: &[u64], axis: usize| (axis + of.len()).checked_sub(ndim).map_or(1, |axis| of[axis]);
    (0..ndim)
        .map(|axis| match (length(a, axis), length(b, axis)) {
            (one, other) if one == other => Some(one),
            (1, other) => Some(other),
            (one, 1) => Some(one),
            _ => None,
        })
        .collect()
}

/// How many axes of the operands are batches, and over how many is summed.
#[derive(Clone, Copy)]
struct Axes {
    batch: usize,
    k: usize,
}

/// An operand, and whether it lies the other way round: then axes 0 and 1 are exchanged.
struct Operand<'e> {
    of: Blocked<'e>,
    is_transposed: bool,
}

impl<'e> Operand<'e> {
    fn new(of: &Blocked<'e>, axes: Axes, number: Number) -> Result<Self, ComputeError> {
        let other_way = [
            Along::Step { axis: 1, start: 0, step: 1 },
            Along::Step { axis: 0, start: 0, step: 1 },
        ];
        let inner = match &of.0.kind {
            // Kernels take a transposed matrix as it lies; to gather it would cost more.
            Kind::View { of, along } if axes.batch == 0 && axes.k == 1 && **along == other_way => {
                Some(of)
            }
            _ => None,
        };
        let is_transposed = inner.is_some();
        Ok(Self { of: inner.unwrap_or(of).astype(number)?, is_transposed })
    }

    fn input(&self, mut region: Region) -> Input<'e> {
        if self.is_transposed {
            region.start.swap(0, 1);
            region.len.swap(0, 1);
        }
        Input::Part(self.of.clone(), region)
    }
}

/// The sum of products over the last `k` axes of `a` and those `k` axes of `b` that follow its
/// batches.
fn contracted<'e>(
    operation: &'static str,
    a: &Blocked<'e>,
    b: &Blocked<'e>,
    axes: Axes,
) -> Result<Blocked<'e>, ComputeError> {
    let number = a.number().with(b.number());
    let (batch, rest) = a.shape().split_at(axes.batch);
    let (m, k) = rest.split_at(rest.len() - axes.k);
    let n = &b.shape()[axes.batch + axes.k..];
    let cut = Cut::new(batch, m, k, n, number);
    let (a, b) = (Operand::new(a, axes, number)?, Operand::new(b, axes, number)?);
    let shape = [batch, m, n].concat();
    let block = [&cut.batch[..], &cut.m, &cut.n].concat();
    let k = k.to_vec();
    let m_axes = m.len();
    let grid = Grid::new(&shape, &block);
    Blocked::from_tasks(&shape, number, &block, {
        move |position| {
            let region = grid.region(position);
            let tiles: Vec<Region> = whole(&k).tiles(&cut.k).collect();
            let pairs = tiles.iter().flat_map(|tile| {
                let of_a = joined(&[&parts(&region, 0, axes.batch + m_axes), tile]);
                let batch = parts(&region, 0, axes.batch);
                let columns = parts(&region, axes.batch + m_axes, region.len.len());
                [a.input(of_a), b.input(joined(&[&batch, tile, &columns]))]
            });
            let pairs: Vec<Input<'e>> = pairs.collect();
            let sizes = Sizes::of(&region, axes.batch, m_axes, number);
            let flags = [a.is_transposed, b.is_transposed];
            Ok(shared_out(operation, pairs, &cut, &sizes, flags))
        }
    })
}

fn parts(region: &Region, from: usize, to: usize) -> Region {
    Region { start: region.start[from..to].to_vec(), len: region.len[from..to].to_vec() }
}

fn joined(parts: &[&Region]) -> Region {
    Region {
        start: parts.iter().flat_map(|part| part.start.clone()).collect(),
        len: parts.iter().flat_map(|part| part.len.clone()).collect(),
    }
}

/// Lengths of the blocks along each kind of axis.
struct Cut {
    batch: Vec<u64>,
    m: Vec<u64>,
    k: Vec<u64>,
    n: Vec<u64>,
    /// Tasks for each block of the result.
    shares: usize,
    scratch: u64,
}

impl Cut {
    fn new(batch: &[u64], m: &[u64], k: &[u64], n: &[u64], number: Number) -> Self {
        let area = PRODUCT_BYTES / number.itemsize() as u64;
        let side = Self::side(m, k, n, area);
        let last_first =
            |shape: &[u64], elements| block_of(shape, (0..shape.len()).rev(), elements);
        let count = |block: &[u64]| block.iter().product::<u64>().max(1);
        let (m_block, n_block) = (last_first(m, side), last_first(n, side));
        let longest = count(&m_block).max(count(&n_block));
        let k_block = last_first(k, area / longest);
        let tile = count(&k_block) * longest;
        let is_whole = m_block == m && n_block == n && k_block == k;
        let room = if is_whole { (area / tile.max(1)).max(1) } else { 1 };
        let batch_block = last_first(batch, room);
        let result = count(&batch_block) * count(&m_block) * count(&n_block);
        let blocks = |shape: &[u64], block: &[u64]| {
            let each = shape.iter().zip(block).map(|(&len, &block)| len.div_ceil(block));
            each.fold(1_u64, u64::saturating_mul)
        };
        let total = blocks(batch, &batch_block)
            .saturating_mul(blocks(m, &m_block))
            .saturating_mul(blocks(n, &n_block));
        let room = (SHARES_BYTES / bytes_of(number, &[result])).max(1);
        let wanted = TASKS_WANTED.div_ceil(total.max(1)).min(room).min(blocks(k, &k_block).max(1));
        let both = count(&batch_block) * count(&k_block) * (count(&m_block) + count(&n_block));
        Self {
            batch: batch_block,
            m: m_block,
            k: k_block,
            n: n_block,
            shares: to_usize(wanted),
            scratch: bytes_of(number, &[both]),
        }
    }

    /// The longest side of a block of the result: shorter where there would be too few tasks, but
    /// every element of an operand is read once for each block beside it.
    fn side(m: &[u64], k: &[u64], n: &[u64], area: u64) -> u64 {
        let count =
            |shape: &[u64]| shape.iter().fold(1_u64, |count, &len| count.saturating_mul(len));
        let (m, k, n) = (count(m), count(k), count(n));
        let tasks = |side: u64| {
            let longest = side.min(m.max(n)).max(1);
            let along_k = k.div_ceil((area / longest).max(1));
            m.div_ceil(side).saturating_mul(n.div_ceil(side)).saturating_mul(along_k)
        };
        let mut side = area.isqrt().min(m.max(n)).max(1);
        while side > SIDE_LONG && tasks(side) < TASKS_WANTED {
            side = side.div_ceil(2);
        }
        side
    }
}

/// What a block of the result is made of.
#[derive(Clone)]
struct Sizes {
    shape: Vec<usize>,
    batch: usize,
    m: usize,
    n: usize,
    number: Number,
}

impl Sizes {
    fn of(region: &Region, batch: usize, m: usize, number: Number) -> Self {
        let shape = region.lens();
        let count = |lens: &[usize]| lens.iter().product();
        Self {
            batch: count(&shape[..batch]),
            m: count(&shape[batch..batch + m]),
            n: count(&shape[batch + m..]),
            shape,
            number,
        }
    }

    fn bytes(&self) -> u64 {
        bytes_of(self.number, &[(self.batch * self.m * self.n) as u64])
    }
}

/// The recipe of one block: all pairs in one task, or several tasks and the sums of what they give.
fn shared_out<'e>(
    operation: &'static str,
    pairs: Vec<Input<'e>>,
    cut: &Cut,
    sizes: &Sizes,
    flags: [bool; 2],
) -> Recipe<'e> {
    let of_pairs = |pairs: &[Input<'e>]| {
        let own = sizes.clone();
        let work = move |arguments: &[Argument<'_, 'e>]| sum_of_products(arguments, &own, flags);
        Recipe::new(operation, pairs.to_vec(), sizes.bytes(), work).with_scratch(cut.scratch)
    };
    let share = 2 * (pairs.len() / 2).div_ceil(cut.shares).max(1);
    let mut row: Vec<Recipe<'e>> = pairs.chunks(share).map(of_pairs).collect();
    while row.len() > 1 {
        let sum_of = |pair: &[Recipe<'e>]| match pair {
            [one, other] => {
                let inputs = [one, other].map(|recipe| Input::Task(Box::new(recipe.clone())));
                Recipe::new("sum of products", inputs.to_vec(), sizes.bytes(), sum)
            }
            _ => pair[0].clone(),
        };
        row = row.chunks(2).map(sum_of).collect();
    }
    row.pop().unwrap_or_else(|| of_pairs(&[]))
}

fn sum(arguments: &[Argument<'_, '_>]) -> Result<Block, ComputeError> {
    let [one, other] = [arguments[0].value::<Block>()?, arguments[1].value::<Block>()?];
    with_number!(one.number(), T => {
        let (left, right) = (one.elements::<T>()?, other.elements::<T>()?);
        let both = left.iter().zip(right).map(|(&left, &right)| left.plus(right)).collect();
        Block::new(one.shape(), Data::owned::<T>(both))
    })
}

fn sum_of_products(
    arguments: &[Argument<'_, '_>],
    sizes: &Sizes,
    flags: [bool; 2],
) -> Result<Block, ComputeError> {
    with_number!(sizes.number, T => {
        let (m, n) = (sizes.m, sizes.n);
        let mut out = vec![T::default(); sizes.batch * m * n];
        for pair in arguments.chunks(2) {
            let (a, b) = (pair[0].data()?, pair[1].data()?);
            let (a, b) = (a.elements::<T>()?, b.elements::<T>()?);
            let k = a.len() / (sizes.batch * m).max(1);
            for batch in 0..sizes.batch {
                let a = &a[batch * m * k..(batch + 1) * m * k];
                let b = &b[batch * k * n..(batch + 1) * k * n];
                let out = &mut out[batch * m * n..(batch + 1) * m * n];
                T::add_product(matrix(a, m, k, flags[0]), matrix(b, k, n, flags[1]), out, n);
            }
            pair.iter().for_each(Argument::let_go);
        }
        Block::new(&sizes.shape, Data::owned(out))
    })
}

/// `rows` times `columns` elements, which may lie the other way round.
fn matrix<T>(elements: &[T], rows: usize, columns: usize, is_transposed: bool) -> Matrix<'_, T> {
    match is_transposed {
        true => Matrix::new(elements, columns, rows).transposed(),
        false => Matrix::new(elements, rows, columns),
    }
}

/// What products are made of: integers wrap, truth values are "and" and "or", as in NumPy.
trait Factor: Numeric {
    fn plus(self, other: Self) -> Self;

    /// Adds `a` times `b` to `out`, which has `columns` columns.
    fn add_product(a: Matrix<'_, Self>, b: Matrix<'_, Self>, out: &mut [Self], columns: usize);
}

macro_rules! fields {
    ($($field:ty),*) => {$(
        impl Factor for $field {
            fn plus(self, other: Self) -> Self {
                self + other
            }

            fn add_product(
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                out: &mut [Self],
                _columns: usize,
            ) {
                multiply_add(a, b, out);
            }
        }
    )*};
}
fields!(f32, f64, Complex<f32>, Complex<f64>);

macro_rules! rings {
    ($($ring:ty: |$sum:ident, $a:ident, $b:ident| $next:expr, $plus:expr;)*) => {$(
        impl Factor for $ring {
            fn plus(self, other: Self) -> Self {
                ($plus)(self, other)
            }

            fn add_product(
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                out: &mut [Self],
                columns: usize,
            ) {
                for (row, out) in out.chunks_mut(columns.max(1)).enumerate() {
                    for at in 0..a.columns() {
                        let $a = a.at(row, at);
                        for (column, sum) in out.iter_mut().enumerate() {
                            let ($sum, $b) = (*sum, b.at(at, column));
                            *sum = $next;
                        }
                    }
                }
            }
        }
    )*};
}
rings! {
    i8: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    i16: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    i32: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    i64: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    u8: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    u16: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    u32: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    u64: |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), Self::wrapping_add;
    Bool: |sum, a, b| either(sum, Bool::from(a.get() && b.get())), either;
}

fn either(one: Bool, other: Bool) -> Bool {
    Bool::from(one.get() || other.get())
}
