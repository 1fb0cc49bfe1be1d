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

mod cache;
mod graph;
mod key;
mod lists;
mod optimize;
mod order;
mod pool;
mod progress;
mod room;
mod run;
mod scheduler;
mod spill;
mod step;
mod trace;
mod value;

pub use crate::txn::MappedScratch;
pub use cache::{Cache, CacheKey};
pub use graph::{Graph, TaskId};
pub use key::{Family, Key};
pub use progress::{Moment, Progress};
pub use run::{Cancel, Report, RunError, RunOptions, run};
pub use trace::{MemoryMoment, Span, Trace, What};
pub use value::{Spill, TaskError, Value};
