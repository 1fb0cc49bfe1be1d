//! Running a graph: what can be chosen, what comes of it, how it fails.
//!
//! # Failure
//!
//! The first task that fails or panics stops the run: no task begins after it, those that run are
//! waited for, and [`RunError::Task`] says which it was.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::graph::{Graph, TaskId};
use super::key::Key;
use super::pool;
use super::value::{TaskError, Value};
use crate::sync::process::{AtomicBool, Ordering};

/// How to run a graph.
#[derive(Clone, Default, Debug)]
pub struct RunOptions {
    /// Threads that run tasks; 0 means one for each processor.
    pub threads: usize,
    /// Bytes that results of tasks and what tasks take while they run may have at any moment;
    /// without it there is no limit.
    pub memory_bytes: Option<u64>,
    /// A directory for results that do not fit the budget.
    pub spill: Option<PathBuf>,
    /// Ends the run from outside.
    pub cancel: Option<Cancel>,
}

/// Ends runs from another thread. Clones are one and the same.
#[derive(Clone, Default, Debug)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends all runs that were given this: tasks that run are waited for, no other begins.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a run did.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Tasks that ran.
    pub tasks: u64,
    /// Most bytes of results that were alive at one moment.
    pub peak_bytes: u64,
}

/// Why a run failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The graph cannot be run.
    #[error("the graph cannot be run: {why}")]
    Graph {
        /// Reason.
        why: String,
    },
    /// The budget cannot be kept. Nothing has run.
    #[error("task {key} needs {needed} bytes at once, which is more than the budget of {budget}")]
    OverBudget {
        /// Where it is exceeded.
        key: Key,
        /// Bytes with which the run would begin.
        needed: u64,
        /// Bytes as given.
        budget: u64,
    },
    /// A task failed.
    #[error("task {key} of ({}) failed: {cause}", shown(.inputs))]
    Task {
        /// Which.
        key: Key,
        /// Its inputs.
        inputs: Vec<Key>,
        /// What it met.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// A task panicked.
    #[error("task {key} of ({}) panicked: {message}", shown(.inputs))]
    Panicked {
        /// Which.
        key: Key,
        /// Its inputs.
        inputs: Vec<Key>,
        /// What the panic said.
        message: String,
    },
    /// Who takes the results failed.
    #[error("result {key} could not be taken: {cause}")]
    Sink {
        /// Of the result.
        key: Key,
        /// What was met.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Somebody called [`Cancel::cancel`].
    #[error("the run was cancelled")]
    Cancelled,
}

/// The keys with commas between them, the middle of a long list left out.
fn shown(keys: &[Key]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut names: Vec<String> = keys.iter().take(SHOWN_MAX).map(Key::to_string).collect();
    if keys.len() > SHOWN_MAX {
        names.push(format!("and {} more", keys.len() - SHOWN_MAX));
    }
    names.join(", ")
}

/// Runs what `outputs` need, and hands each output to `sink`.
///
/// `sink` is called on the calling thread with the place in `outputs` and the value, as soon as it
/// exists and in no promised order, so that a result larger than memory can be written piece by
/// piece. A task named twice in `outputs` is handed over twice.
///
/// # Errors
///
/// [`RunError`]; the first that was met.
pub fn run<'env>(
    graph: &Graph<'env>,
    outputs: &[TaskId],
    options: &RunOptions,
    sink: &mut dyn FnMut(usize, Value) -> Result<(), TaskError>,
) -> Result<Report, RunError> {
    if let Some(why) = graph.defect() {
        return Err(RunError::Graph { why: why.to_owned() });
    }
    if outputs.iter().any(|output| output.index() >= graph.len()) {
        return Err(RunError::Graph { why: "an output is no task of it".to_owned() });
    }
    let budget = options.memory_bytes.unwrap_or(u64::MAX);
    for (key, needs) in graph.keys().iter().zip(graph.needs()) {
        let needed = needs.bytes.saturating_add(needs.scratch);
        if needed > budget {
            return Err(RunError::OverBudget { key: key.clone(), needed, budget });
        }
    }
    pool::run(graph, outputs, options, sink)
}
