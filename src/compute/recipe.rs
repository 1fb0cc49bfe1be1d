//! How one block is made: from which parts of which expressions, and by which function.
//!
//! ```text
//! Recipe "sum"  <- Part of x, positions 0..8     evaluated tile by tile inside the task
//!               <- Earlier block of the same array
//!               <- Recipe "partial sum"          a task of its own
//! ```

use std::sync::Arc;

use super::block::{Block, Data};
use super::evaluate::{Sources, elements, tiles};
use super::node::Blocked;
use super::region::Region;
use super::trouble::ComputeError;
use super::value::Value;

/// The function of a task, from its inputs to its value.
pub(crate) type Work<'e> =
    dyn Fn(&[Argument<'_, 'e>]) -> Result<Value, ComputeError> + Send + Sync + 'e;

/// How one block, or something on the way to it, is made.
#[derive(Clone)]
pub(crate) struct Recipe<'e> {
    pub(crate) name: &'static str,
    pub(crate) inputs: Vec<Input<'e>>,
    /// Most bytes of the result.
    pub(crate) bytes: u64,
    /// Most bytes that `work` takes besides, inputs that it asks for as blocks included.
    pub(crate) scratch: u64,
    pub(crate) work: Arc<Work<'e>>,
}

/// What a task is given.
#[derive(Clone)]
pub(crate) enum Input<'e> {
    /// A region of an expression. What can be is computed inside the task.
    Part(Blocked<'e>, Region),
    /// The result of another task.
    Task(Box<Recipe<'e>>),
    /// A block of the array that the recipe belongs to, before it in C order.
    Earlier(Vec<u64>),
}

/// An [`Input`] as the task sees it.
pub(crate) enum Argument<'a, 'e> {
    Part(Part<'a, 'e>),
    Value(&'a Value),
}

/// A region of an expression, ready to be computed.
pub(crate) struct Part<'a, 'e> {
    pub(crate) node: &'a Blocked<'e>,
    pub(crate) region: &'a Region,
    pub(crate) sources: Sources<'a, 'e>,
}

impl<'e> Recipe<'e> {
    /// A recipe for a block.
    pub(crate) fn new(
        name: &'static str,
        inputs: Vec<Input<'e>>,
        bytes: u64,
        work: impl Fn(&[Argument<'_, 'e>]) -> Result<Block, ComputeError> + Send + Sync + 'e,
    ) -> Self {
        let work = move |arguments: &[Argument<'_, 'e>]| work(arguments).map(value_of);
        Self { name, inputs, bytes, scratch: 0, work: Arc::new(work) }
    }

    /// Steps on top of each other below it.
    pub(crate) fn steps(&self) -> u32 {
        let below = self.inputs.iter().map(|input| match input {
            Input::Part(node, _) => node.0.steps,
            Input::Task(recipe) => recipe.steps(),
            Input::Earlier(_) => 0,
        });
        below.max().unwrap_or(0)
    }

    /// The same, and it takes so many bytes while it runs.
    pub(crate) fn with_scratch(mut self, bytes: u64) -> Self {
        self.scratch = bytes;
        self
    }
}

/// A block as what a task returns.
pub(crate) fn value_of(block: Block) -> Value {
    let bytes = block.nbytes();
    Value::spillable(block, bytes)
}

impl<'a, 'e> Argument<'a, 'e> {
    /// The region's elements as a block.
    pub(crate) fn block(&self) -> Result<Block, ComputeError> {
        match self {
            Self::Part(part) => Block::new(&part.region.lens(), part.elements()?.into_owned()),
            Self::Value(value) => match value.get::<Block>() {
                Some(block) => Ok(block.clone()),
                None => Err(ComputeError::Mistake("a task returned no block")),
            },
        }
    }

    /// The elements, not copied if they lie in memory as they are.
    pub(crate) fn data(&self) -> Result<Data<'_>, ComputeError> {
        match self {
            Self::Part(part) => part.elements(),
            Self::Value(_) => Ok(self.value::<Block>()?.data().borrowed()),
        }
    }

    /// Says that the elements are not looked at again: what is mapped of them is no memory now.
    pub(crate) fn let_go(&self) {
        if let Self::Part(part) = self {
            part.sources.let_go();
        }
    }

    /// What the task before returned.
    pub(crate) fn value<T: 'static>(&self) -> Result<&'a T, ComputeError> {
        match self {
            Self::Value(value) => {
                value.get::<T>().ok_or(ComputeError::Mistake("a task returned something else"))
            }
            Self::Part(_) => Err(ComputeError::Mistake("a part is no value of a task")),
        }
    }

    /// The region, to be seen tile by tile.
    pub(crate) fn part(&self) -> Result<&Part<'a, 'e>, ComputeError> {
        match self {
            Self::Part(part) => Ok(part),
            Self::Value(_) => Err(ComputeError::Mistake("a value of a task is no part")),
        }
    }
}

impl Part<'_, '_> {
    /// All elements, dense in C order.
    pub(crate) fn elements(&self) -> Result<Data<'_>, ComputeError> {
        elements(self.node, self.region, &self.sources)
    }

    /// Calls `see` with tiles that fit the processor's caches, in C order of their positions.
    pub(crate) fn each_tile(
        &self,
        see: &mut dyn FnMut(&Region, &Data<'_>) -> Result<(), ComputeError>,
    ) -> Result<(), ComputeError> {
        self.each_tile_within(self.region, see)
    }

    /// The same with the tiles of a region within.
    pub(crate) fn each_tile_within(
        &self,
        region: &Region,
        see: &mut dyn FnMut(&Region, &Data<'_>) -> Result<(), ComputeError>,
    ) -> Result<(), ComputeError> {
        tiles(self.node, region, &self.sources, see)
    }
}
