//! Computing over arrays that are larger than memory.
//!
//! ```text
//! Graph: tasks with keys, inputs, predicted bytes
//!   '--> run --> threads --> each output to the caller's sink, as soon as it exists
//! ```
//!
//! # Invariants
//!
//! 1. What a run returns depends on the graph only, not on the number of threads or their luck.
//! 2. A result lives no longer than somebody needs it.
//! 3. A failure of a task ends the run; it is reported with the task, its inputs and the cause.
//!
//! # Failure
//!
//! [`RunError`].

mod apply;
mod block;
mod blocked;
mod cache;
mod convert;
mod delayed;
mod dense;
mod evaluate;
mod explain;
mod gather;
mod graph;
mod kernels_binary;
mod kernels_unary;
mod key;
pub mod linalg;
mod lists;
mod lower;
mod make;
mod math;
mod moves;
mod node;
mod number;
mod optimize;
mod order;
mod picture;
pub mod planted;
mod pool;
mod progress;
mod recipe;
mod reduce;
mod reducers;
mod region;
mod room;
mod run;
mod scans;
mod scheduler;
mod spill;
mod step;
mod stored;
mod storing;
mod trace;
mod trace_page;
mod trouble;
mod ufunc;
mod value;
mod view;

pub use crate::txn::MappedScratch;
pub use block::{Block, Numeric};
pub use cache::{Cache, CacheKey};
pub use delayed::{Argument, Call, Delayed, KeyError, KeyedTasks};
pub use explain::{Explanation, explain};
pub use graph::{Graph, TaskId};
pub use key::{Family, Key};
pub use math::Operand;
pub use moves::PadMode;
pub use node::Blocked;
pub use number::{Number, Scalar};
pub use picture::Picture;
pub use progress::{Moment, Progress};
pub use reduce::Axes;
pub use run::{Cancel, Report, RunError, RunOptions, run};
pub use storing::store_all;
pub use trace::{MemoryMoment, Span, Trace, What};
pub use trouble::ComputeError;
pub use value::{Spill, TaskError, Value};
