//! An expression: what a blocked array is made of.
//!
//! ```text
//!          Map add                      elementwise: fused, computed tile by tile
//!         /       \
//!     View[::4]   Map exp
//!        |           \
//!     Stored        Tasks (a sum)       computed once, block by block
//! ```
//!
//! # Invariants
//!
//! 1. Nodes never change, and a node's parts were there before it: expressions have no cycles.
//! 2. A shape has at most 32 axes and its bytes fit `u64`, as for arrays of the store.
//! 3. At most [`DEPTH_MAX`] nodes lie on top of each other without tasks between them, and
//!    [`STEPS_MAX`] with them, so that evaluating and dropping an expression needs little stack.

use std::collections::HashSet;
use std::sync::Arc;

use super::block::{Block, Data};
use super::number::Number;
use super::recipe::Recipe;
use super::region::{Grid, Region, block_of};
use super::trouble::ComputeError;
use super::ufunc::{Binary, Unary};
use super::view::Along;
use crate::array::{DynArray, Order, ShapeError, shape};

/// Most steps on top of each other that are evaluated inside one task.
pub(crate) const DEPTH_MAX: u32 = 100;

/// Most steps on top of each other, those made by tasks included.
pub(crate) const STEPS_MAX: u32 = 2_000;

/// Bytes of a block, unless somebody chooses: enough that a task is dear compared with its start,
/// and little enough that some for each thread fit a small budget.
pub(crate) const BLOCK_BYTES: u64 = 16 << 20;

/// An expression over arrays; see the methods. Cloning is cheap: nodes are shared.
#[derive(Clone)]
pub struct Blocked<'e>(pub(crate) Arc<Node<'e>>);

/// One step of an expression.
pub(crate) struct Node<'e> {
    pub(crate) grid: Grid,
    pub(crate) number: Number,
    pub(crate) kind: Kind<'e>,
    /// The axis along which neighbours lie nearest, if it is not the last.
    pub(crate) fast_axis: Option<usize>,
    /// Nodes on top of each other down to tasks, and down to the last.
    pub(crate) depth: u32,
    pub(crate) steps: u32,
}

/// How elements come to be.
#[derive(Clone)]
pub(crate) enum Kind<'e> {
    /// An array of a store, mapped.
    Stored(&'e DynArray<'e>),
    /// Memory, dense in C order.
    Memory(Arc<Data<'e>>),
    /// A function of the position in C order.
    Indexed(Arc<dyn Indexed + 'e>),
    /// A function of a region.
    Function(Arc<RegionFunction<'e>>),
    /// Tasks, one for each block.
    Tasks(Arc<TaskFunction<'e>>),
    /// Other positions of the same elements.
    View { of: Blocked<'e>, along: Vec<Along> },
    /// A function of elements at the same positions.
    Map { operation: Operation, operands: Vec<Blocked<'e>> },
    /// One after another along an axis; each with its first position.
    Joined { axis: usize, parts: Vec<(u64, Blocked<'e>)> },
    /// The same elements in C order, in another shape.
    Reshaped(Blocked<'e>),
}

pub(crate) type RegionFunction<'e> =
    dyn Fn(&Region) -> Result<Block, ComputeError> + Send + Sync + 'e;
pub(crate) type TaskFunction<'e> =
    dyn Fn(&[u64]) -> Result<Recipe<'e>, ComputeError> + Send + Sync + 'e;

/// Elements that follow from their position in C order.
pub(crate) trait Indexed: Send + Sync {
    /// Sets `count` elements of `data` from `at` on, `stride` apart, to those at the positions
    /// `first`, `first + step`, ...
    fn fill(&self, data: &mut Data<'static>, run: Run) -> Result<(), ComputeError>;

    /// Whether all elements are the same.
    fn is_constant(&self) -> bool {
        false
    }
}

/// Elements that follow each other in a result and in their source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) at: usize,
    pub(crate) stride: usize,
    pub(crate) first: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
}

/// What a `Map` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A function of one operand.
    Unary(Unary),
    /// A function of two.
    Binary(Binary),
    /// Another type.
    Cast,
    /// `where`: the second operand where the first is true, else the third.
    Select,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary(operation) => operation.name(),
            Self::Binary(operation) => operation.name(),
            Self::Cast => "astype",
            Self::Select => "where",
        }
    }
}

impl<'e> Blocked<'e> {
    /// Whether some of its elements are made by tasks.
    pub(crate) fn needs_tasks(&self) -> bool {
        let (mut left, mut seen) = (vec![self], HashSet::new());
        while let Some(node) = left.pop() {
            if !seen.insert(node.identity()) {
                continue;
            }
            match &node.0.kind {
                Kind::Tasks(_) => return true,
                Kind::View { of, .. } | Kind::Reshaped(of) => left.push(of),
                Kind::Map { operands, .. } => left.extend(operands),
                Kind::Joined { parts, .. } => left.extend(parts.iter().map(|(_, part)| part)),
                Kind::Stored(_) | Kind::Memory(_) | Kind::Indexed(_) | Kind::Function(_) => {}
            }
        }
        false
    }

    /// A node of this kind, with blocks of about [`BLOCK_BYTES`] that follow what lies nearest.
    pub(crate) fn of_kind(
        kind: Kind<'e>,
        shape: &[u64],
        number: Number,
    ) -> Result<Self, ComputeError> {
        let axes = fast_axes(&kind, shape.len());
        let elements = BLOCK_BYTES / number.itemsize() as u64;
        let block = match &kind {
            Kind::View { of, along } => of.block_of_view(along, shape, &axes, elements),
            Kind::Map { operands, .. } => block_of_operands(operands, shape, &axes, elements),
            Kind::Joined { parts, .. } => block_of_operands(
                &parts.iter().map(|(_, part)| part.clone()).collect::<Vec<_>>(),
                shape,
                &axes,
                elements,
            ),
            _ => block_of(shape, axes.iter().copied(), elements),
        };
        Self::in_blocks(kind, shape, number, &block)
    }

    /// A node of this kind, with these blocks.
    pub(crate) fn in_blocks(
        kind: Kind<'e>,
        shape: &[u64],
        number: Number,
        block: &[u64],
    ) -> Result<Self, ComputeError> {
        shape::nbytes(shape, number.itemsize() as u64)?;
        if shape.iter().any(|&len| i64::try_from(len).is_err()) {
            let (shape, itemsize) = (shape.to_vec(), number.itemsize() as u64);
            return Err(ShapeError::TooLarge { shape, itemsize }.into());
        }
        let depth = 1 + children(&kind).map(|child| child.0.depth).max().unwrap_or(0);
        let mut steps = 1 + children(&kind).map(|child| child.0.steps).max().unwrap_or(0);
        if let (Kind::Tasks(tasks), false) = (&kind, shape.contains(&0)) {
            // All blocks are made alike.
            steps = steps.max(1 + tasks(&vec![0; shape.len()])?.steps());
        }
        if depth > DEPTH_MAX || steps > STEPS_MAX {
            return Err(ComputeError::TooDeep);
        }
        let axes = fast_axes(&kind, shape.len());
        let fast_axis = axes.first().copied().filter(|&axis| axis + 1 != shape.len());
        let grid = Grid::new(shape, block);
        Ok(Self(Arc::new(Node { grid, number, kind, fast_axis, depth, steps })))
    }

    /// Length along each axis.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.0.grid.shape
    }

    /// Type of the elements.
    #[must_use]
    pub fn number(&self) -> Number {
        self.0.number
    }

    /// Number of axes.
    #[must_use]
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// Number of elements.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(shape::size(self.shape())).unwrap_or(u64::MAX)
    }

    /// Number of bytes of all elements, were they in memory.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.size().saturating_mul(self.0.number.itemsize() as u64)
    }

    /// Length of a block along each axis; those at the end may be shorter.
    #[must_use]
    pub fn block_shape(&self) -> &[u64] {
        &self.0.grid.block
    }

    /// Number of blocks along each axis.
    #[must_use]
    pub fn blocks(&self) -> Vec<u64> {
        self.0.grid.counts()
    }

    /// Who it is, as long as it lives.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }

    /// The block shape of a view of this.
    fn block_of_view(
        &self,
        along: &[Along],
        shape: &[u64],
        axes: &[usize],
        elements: u64,
    ) -> Vec<u64> {
        if !matches!(self.0.kind, Kind::Tasks(_)) {
            return block_of(shape, axes.iter().copied(), elements);
        }
        // Blocks that are there already are used one at a time.
        let mut block = vec![1; shape.len()];
        for (along, &len) in along.iter().zip(&self.0.grid.block) {
            match along {
                Along::At(_) => {}
                Along::Step { axis, step, .. } => block[*axis] = len.div_ceil(step.unsigned_abs()),
                Along::List { axis, .. } => block[*axis] = len,
            }
        }
        bounded(block, shape, elements)
    }
}

/// `block` within `shape`, made smaller where it has more than four times `elements`, from the
/// slowest axis on.
pub(crate) fn bounded(mut block: Vec<u64>, shape: &[u64], elements: u64) -> Vec<u64> {
    for (block, &len) in block.iter_mut().zip(shape) {
        *block = (*block).clamp(1, len.max(1));
    }
    let size = |block: &[u64]| block.iter().fold(1_u64, |size, &len| size.saturating_mul(len));
    for axis in 0..block.len() {
        while block[axis] > 1 && size(&block) > elements.saturating_mul(4) {
            block[axis] = block[axis].div_ceil(2);
        }
    }
    block
}

/// The blocks of a function of these: those of the largest operand that has chosen its own.
fn block_of_operands(
    operands: &[Blocked<'_>],
    shape: &[u64],
    axes: &[usize],
    elements: u64,
) -> Vec<u64> {
    let same = operands.iter().filter(|operand| operand.shape() == shape);
    let fixed = same.filter(|operand| operand.0.kind.has_blocks());
    match fixed.max_by_key(|operand| operand.0.number.itemsize()) {
        Some(operand) => bounded(operand.0.grid.block.clone(), shape, elements),
        None => block_of(shape, axes.iter().copied(), elements),
    }
}

impl Kind<'_> {
    /// Whether its blocks are those of tasks or of a store, and not just any.
    fn has_blocks(&self) -> bool {
        match self {
            Self::Stored(_) | Self::Memory(_) | Self::Tasks(_) | Self::Function(_) => true,
            Self::Indexed(_) | Self::Reshaped(_) => false,
            Self::View { of, .. } => of.0.kind.has_blocks(),
            Self::Map { operands, .. } => operands.iter().any(|one| one.0.kind.has_blocks()),
            Self::Joined { parts, .. } => parts.iter().any(|(_, part)| part.0.kind.has_blocks()),
        }
    }
}

/// The expressions that this one is made of directly.
pub(crate) fn children<'k, 'e>(
    kind: &'k Kind<'e>,
) -> Box<dyn Iterator<Item = &'k Blocked<'e>> + 'k> {
    match kind {
        Kind::View { of, .. } | Kind::Reshaped(of) => Box::new(std::iter::once(of)),
        Kind::Map { operands, .. } => Box::new(operands.iter()),
        Kind::Joined { parts, .. } => Box::new(parts.iter().map(|(_, part)| part)),
        _ => Box::new(std::iter::empty()),
    }
}

/// The axes, that along which neighbours lie nearest first.
fn fast_axes(kind: &Kind<'_>, ndim: usize) -> Vec<usize> {
    let last_first = || (0..ndim).rev().collect();
    match kind {
        Kind::Stored(array) if array.order() == Order::F => (0..ndim).collect(),
        Kind::View { of, along } => {
            let inner = fast_axes(&of.0.kind, of.ndim());
            let mut axes: Vec<usize> =
                inner.iter().filter_map(|&axis| along.get(axis)?.axis()).collect();
            // Repeated along: nothing is nearer than the same.
            let repeated = (0..ndim).rev().filter(|axis| !axes.contains(axis));
            let repeated: Vec<usize> = repeated.collect();
            axes.extend(repeated);
            axes
        }
        Kind::Map { operands, .. } => {
            let whole = operands.iter().filter(|operand| operand.ndim() == ndim);
            let largest = whole.max_by_key(|operand| operand.size());
            largest.map_or_else(last_first, |operand| fast_axes(&operand.0.kind, ndim))
        }
        Kind::Joined { parts, .. } => match parts.first() {
            Some((_, part)) => fast_axes(&part.0.kind, ndim),
            None => last_first(),
        },
        _ => last_first(),
    }
}
