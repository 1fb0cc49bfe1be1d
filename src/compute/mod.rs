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
mod convert;
mod dense;
mod evaluate;
mod gather;
mod graph;
mod kernels_binary;
mod kernels_unary;
mod key;
pub mod linalg;
mod lower;
mod make;
mod math;
mod moves;
mod node;
mod number;
mod pool;
mod recipe;
mod reduce;
mod reducers;
mod region;
mod run;
mod scans;
mod stored;
mod trouble;
mod ufunc;
mod value;
mod view;

pub use block::{Block, Numeric};
pub use graph::{Graph, TaskId};
pub use key::{Family, Key};
pub use math::Operand;
pub use moves::PadMode;
pub use node::Blocked;
pub use number::{Number, Scalar};
pub use reduce::Axes;
pub use run::{Cancel, Report, RunError, RunOptions, run};
pub use trouble::ComputeError;
pub use value::{TaskError, Value};
