//! Running a graph: what can be chosen, what comes of it, how it fails.
//!
//! # Failure
//!
//! The first task that fails or panics stops the run: no task begins after it, those that run are
//! waited for, and [`RunError::Task`] says which it was.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::cache::Cache;
use super::graph::{Graph, TaskId};
use super::key::Key;
use super::optimize::{Optimized, optimize};
use super::order::{order, profile};
use super::pool::{self, Settings};
use super::progress::Progress;
use super::scheduler::{Limits, Scheduler, TooLarge};
use super::spill::Disk;
use super::step::Runner;
use super::trace::{Recorder, Trace};
use super::value::{TaskError, Value};
use crate::sync::process::{AtomicBool, Ordering};
use crate::txn::processors;

/// How to run a graph.
#[derive(Clone, Default, Debug)]
pub struct RunOptions {
    /// Threads that run tasks; 0 means one for each processor.
    pub threads: usize,
    /// Bytes that results of tasks and what tasks take while they run may have at any moment;
    /// without it there is no limit.
    pub memory_bytes: Option<u64>,
    /// A directory for results that do not fit the budget. They lie in a file without a name, so
    /// nothing is left there.
    pub spill: Option<PathBuf>,
    /// Results of earlier runs, for tasks that have a key there.
    pub cache: Option<Arc<Cache>>,
    /// Counts along.
    pub progress: Option<Progress>,
    /// Ends the run from outside.
    pub cancel: Option<Cancel>,
    /// Whether the report has a trace of what happened when.
    pub trace: bool,
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
    /// Tasks that ran; those that are cheap as often as they ran.
    pub tasks: u64,
    /// Steps that were made of them.
    pub steps: u64,
    /// Results that came from the cache.
    pub cache_hits: u64,
    /// Most bytes that results would have at one moment on one thread, and with them what tasks
    /// take while they run.
    pub predicted_peak_bytes: u64,
    /// Most bytes of results that were in memory at one moment.
    pub peak_bytes: u64,
    /// The same with what running tasks were allowed to add.
    pub peak_with_scratch_bytes: u64,
    /// Bytes that tasks said they read.
    pub bytes_read: u64,
    /// Bytes that tasks said they write.
    pub bytes_written: u64,
    /// Bytes of results that were written to the disk because memory was short.
    pub bytes_spilled: u64,
    /// Bytes of results that were read from there.
    pub bytes_loaded: u64,
    /// Results that the disk did not take, and that stayed in memory.
    pub spills_refused: u64,
    /// What happened when, if it was asked for.
    pub trace: Option<Trace>,
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
    /// A result could not be written to the disk and there is no memory to go on without that, or
    /// there is no place for results.
    #[error("result {key} could not be spilled: {cause}")]
    Spill {
        /// Of the result.
        key: Key,
        /// What the system said.
        cause: io::Error,
    },
    /// A result did not come back from the disk as it was written.
    #[error("result {key} did not come back from the disk as it was spilled: {cause}")]
    Restore {
        /// Of the result.
        key: Key,
        /// What was met.
        cause: Box<dyn Error + Send + Sync>,
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
    let plan = Plan::new(graph, outputs, options)?;
    plan.run(options, sink)
}

/// All that is decided before the first task runs.
pub(super) struct Plan<'a, 'env> {
    pub(super) graph: &'a Graph<'env>,
    pub(super) outputs: &'a [TaskId],
    pub(super) known: HashMap<TaskId, Value>,
    pub(super) optimized: Optimized,
    pub(super) order: Vec<u32>,
}

impl<'a, 'env> Plan<'a, 'env> {
    pub(super) fn new(
        graph: &'a Graph<'env>,
        outputs: &'a [TaskId],
        options: &RunOptions,
    ) -> Result<Self, RunError> {
        if let Some(why) = graph.defect() {
            return Err(RunError::Graph { why: why.to_owned() });
        }
        if outputs.iter().any(|output| output.index() >= graph.len()) {
            return Err(RunError::Graph { why: "an output is no task of it".to_owned() });
        }
        if u32::try_from(outputs.len()).is_err() {
            return Err(RunError::Graph {
                why: "there are more than 4294967295 outputs".to_owned(),
            });
        }
        let known = match &options.cache {
            Some(cache) => {
                let keys = graph.cache_keys().iter();
                keys.filter_map(|(&task, &key)| Some((task, cache.get(key)?))).collect()
            }
            None => HashMap::new(),
        };
        let optimized = optimize(graph, outputs, &known);
        let order = order(&optimized.steps);
        Ok(Self { graph, outputs, known, optimized, order })
    }

    fn run(&self, options: &RunOptions, sink: &mut pool::Sink<'_>) -> Result<Report, RunError> {
        let runner = self.runner(options);
        let budget = options.memory_bytes;
        let spills = options.spill.is_some() && budget.is_some();
        let limits = Limits { budget, spills };
        let scheduler = Scheduler::new(&self.optimized.steps, &self.order, limits);
        let scheduler = scheduler.map_err(|TooLarge { step, needed }| RunError::OverBudget {
            key: self.key(step),
            needed,
            budget: budget.unwrap_or(u64::MAX),
        })?;
        let recorder = options.trace.then(Recorder::new);
        self.announce(&runner, options);
        for &(place, task) in &self.optimized.given {
            let Some(value) = runner.literal(task) else { continue };
            sink(place, value).map_err(|error| RunError::Sink {
                key: self.graph.keys()[task as usize].clone(),
                cause: error.into_cause(),
            })?;
        }
        let settings = Settings {
            threads: match options.threads {
                0 => processors(),
                threads => threads,
            },
            is_limited: budget.is_some(),
            cancel: options.cancel.as_ref(),
            cache: options.cache.as_deref(),
            progress: options.progress.as_ref().map(Progress::counters),
            recorder: recorder.as_ref(),
        };
        let disk = self.disk(options, spills)?;
        let mut report = pool::run(&runner, self.outputs, scheduler, disk, &settings, sink)?;
        report.cache_hits = self.known.len() as u64;
        report.predicted_peak_bytes = self.profile().into_iter().max().unwrap_or(0);
        report.trace = recorder.map(|recorder| recorder.finish());
        Ok(report)
    }

    pub(super) fn runner<'p>(&'p self, options: &'p RunOptions) -> Runner<'p, 'env> {
        Runner {
            graph: self.graph,
            optimized: &self.optimized,
            known: &self.known,
            cancel: options.cancel.as_ref(),
        }
    }

    /// Bytes that are alive while each step runs, if one thread runs everything in order.
    pub(super) fn profile(&self) -> Vec<u64> {
        profile(&self.optimized.steps, &self.order)
    }

    fn disk(&self, options: &RunOptions, spills: bool) -> Result<Option<Disk>, RunError> {
        match (&options.spill, self.order.first()) {
            (Some(directory), Some(&step)) if spills => Disk::new(directory)
                .map(Some)
                .map_err(|cause| RunError::Spill { key: self.key(step), cause }),
            _ => Ok(None),
        }
    }

    fn announce(&self, runner: &Runner<'_, '_>, options: &RunOptions) {
        let Some(progress) = &options.progress else { return };
        let counters = progress.counters();
        let steps = self.optimized.steps.all();
        let reads = steps.fold(0_u64, |sum, step| sum.saturating_add(runner.bytes_read(step)));
        counters.tasks.store(self.optimized.members.items() as u64, Ordering::Relaxed);
        counters.bytes_to_read.store(reads, Ordering::Relaxed);
        counters.budget_bytes.store(options.memory_bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn key(&self, step: u32) -> Key {
        self.graph.keys()[self.optimized.last(step) as usize].clone()
    }
}
