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

mod graph;
mod key;
mod pool;
mod run;
mod value;

pub use graph::{Graph, TaskId};
pub use key::{Family, Key};
pub use run::{Cancel, Report, RunError, RunOptions, run};
pub use value::{TaskError, Value};
