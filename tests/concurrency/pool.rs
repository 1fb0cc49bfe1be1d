//! Runs of graphs of tasks on several threads: each output once and with its value, and an end.
//!
//! A run that hangs is a deadlock, which the scheduler of threads reports.

use std::io;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use zbigarray::compute::{
    Cancel, Graph, MappedScratch, Report, RunError, RunOptions, Spill, TaskError, TaskId, Value,
    run,
};

/// Bytes that each result says it has.
const BYTES: u64 = 10_000;

struct Number(u64);

impl Spill for Number {
    fn spill(&self, to: &mut dyn io::Write) -> io::Result<()> {
        to.write_all(&self.0.to_le_bytes())
    }

    fn restore(bytes: MappedScratch) -> Result<Self, TaskError> {
        Ok(Self(u64::from_le_bytes(*bytes.first_chunk().ok_or("too short")?)))
    }
}

fn value(number: u64) -> Value {
    Value::spillable(Number(number), BYTES)
}

fn sum(inputs: &[Value]) -> Result<u64, TaskError> {
    inputs.iter().map(|input| Ok(input.expect::<Number>()?.0)).sum()
}

/// Two leaves, a sum of both, and what is made of that and of each leaf; the sum and the last
/// three are wanted: 3, 5, 6, 11.
fn diamonds<'env>(
    graph: &mut Graph<'env>,
    meanwhile: impl Fn() + Copy + Send + Sync + 'env,
) -> Vec<TaskId> {
    let mut add = |name: &str, inputs: &[TaskId], own: u64| {
        graph.task(name, inputs, BYTES, move |inputs| {
            meanwhile();
            Ok(value(sum(inputs)? + own))
        })
    };
    let (left, right) = (add("left", &[], 1), add("right", &[], 2));
    let both = add("both", &[left, right], 0);
    let with_left = add("with left", &[both, left], 1);
    let with_right = add("with right", &[both, right], 1);
    let all = add("all", &[with_left, with_right], 0);
    vec![both, with_left, with_right, all]
}

const WANTED: [u64; 4] = [3, 5, 6, 11];

/// Runs, and notes what is handed over.
fn taken(
    graph: &Graph<'_>,
    outputs: &[TaskId],
    options: &RunOptions,
) -> (Result<Report, RunError>, Vec<(usize, u64)>) {
    let mut taken = Vec::new();
    let result = run(graph, outputs, options, &mut |place, value| {
        thread::yield_now();
        taken.push((place, value.expect::<Number>()?.0));
        Ok(())
    });
    taken.sort_unstable();
    (result, taken)
}

fn wanted() -> Vec<(usize, u64)> {
    WANTED.into_iter().enumerate().collect()
}

fn threads() -> usize {
    thread_rng().gen_range(2..4)
}

/// With so little memory that what is handed over must be gone before all can go on.
pub(crate) fn outputs_within_a_budget() {
    let mut graph = Graph::new();
    let outputs = diamonds(&mut graph, thread::yield_now);
    let memory_bytes = Some(BYTES * thread_rng().gen_range(5..7));
    let options = RunOptions { threads: threads(), memory_bytes, ..RunOptions::default() };
    let (result, taken) = taken(&graph, &outputs, &options);
    let report = result.unwrap();
    assert_eq!(taken, wanted());
    assert_eq!(report.tasks, 6);
    assert!(report.peak_bytes <= options.memory_bytes.unwrap());
}

/// With room for two outputs only: who makes the next ones sleeps until these are taken.
pub(crate) fn outputs_that_wait_to_be_taken() {
    let mut graph = Graph::new();
    let outputs: Vec<TaskId> =
        (0..6).map(|at| graph.task(("row", at), &[], BYTES, move |_| Ok(value(at)))).collect();
    let memory_bytes = Some(2 * BYTES);
    let options = RunOptions { threads: threads(), memory_bytes, ..RunOptions::default() };
    let (result, taken) = taken(&graph, &outputs, &options);
    assert!(result.unwrap().peak_bytes <= 2 * BYTES);
    assert_eq!(taken, (0..6).map(|at| (at as usize, at)).collect::<Vec<_>>());
}

/// Batches, of which parts go back when time has passed.
pub(crate) fn outputs_of_short_tasks() {
    let mut graph = Graph::new();
    let outputs: Vec<TaskId> =
        (0..30).map(|at| graph.task(("short", at), &[], 8, move |_| Ok(value(at)))).collect();
    let options = RunOptions { threads: threads(), ..RunOptions::default() };
    let (result, taken) = taken(&graph, &outputs, &options);
    assert_eq!(result.unwrap().tasks, 30);
    assert_eq!(taken, (0..30).map(|at| (at as usize, at)).collect::<Vec<_>>());
}

pub(crate) fn results_on_the_disk() {
    let mut graph = Graph::new();
    let leaves: Vec<TaskId> =
        (0..5).map(|at| graph.task(("leaf", at), &[], BYTES, move |_| Ok(value(at)))).collect();
    let mut total = leaves[0];
    for &leaf in leaves[1..].iter().chain(&leaves) {
        total = graph.task("total", &[total, leaf], BYTES, |inputs| Ok(value(sum(inputs)?)));
    }
    let options = RunOptions {
        threads: threads(),
        memory_bytes: Some(4 * BYTES),
        spill: Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))),
        ..RunOptions::default()
    };
    let (result, taken) = taken(&graph, &[total], &options);
    let report = result.unwrap();
    assert_eq!(taken, [(0, 20)]);
    assert!(report.bytes_spilled > 0 && report.peak_bytes <= 4 * BYTES);
}

/// Runs tasks of which one ends by `fail`; nothing after it runs.
fn failing(fail: impl Fn() -> Result<Value, TaskError> + Send + Sync) -> RunError {
    let late = AtomicUsize::new(0);
    let mut graph = Graph::new();
    let mut outputs = diamonds(&mut graph, thread::yield_now);
    let bad = graph.task("bad", &[outputs[0]], BYTES, |_| {
        thread::yield_now();
        fail()
    });
    outputs.push(graph.task("late", &[bad, outputs[3]], BYTES, |_| {
        late.fetch_add(1, Ordering::Relaxed);
        Ok(value(0))
    }));
    let memory_bytes = thread_rng().gen_bool(0.5).then_some(6 * BYTES);
    let options = RunOptions { threads: threads(), memory_bytes, ..RunOptions::default() };
    let (result, taken) = taken(&graph, &outputs, &options);
    assert_eq!(late.load(Ordering::Relaxed), 0);
    assert!(taken.iter().all(|output| wanted().contains(output)), "{taken:?}");
    result.unwrap_err()
}

pub(crate) fn a_failure() {
    assert_eq!(failing(|| Err("broken".into())).to_string(), "task bad of (both) failed: broken");
}

pub(crate) fn a_panic() {
    // As a panic does, but without the hook, for which every panic is a schedule that failed.
    let error = failing(|| resume_unwind(Box::new("at the disco")));
    assert_eq!(error.to_string(), "task bad of (both) panicked: at the disco");
}

pub(crate) fn a_sink_that_fails() {
    let mut graph = Graph::new();
    let outputs = diamonds(&mut graph, thread::yield_now);
    let options = RunOptions { threads: threads(), ..RunOptions::default() };
    let mut taken = 0;
    let result = run(&graph, &outputs, &options, &mut |_, _| {
        taken += 1;
        if taken == 2 { Err("full".into()) } else { Ok(()) }
    });
    assert_eq!(taken, 2);
    assert!(matches!(result, Err(RunError::Sink { .. })));
}

pub(crate) fn a_cancel() {
    let cancel = Cancel::default();
    let (cancelled, late) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let mut graph = Graph::new();
    // A task that began before may end after it, but none may begin.
    let (before, after) = (&cancelled, &late);
    let outputs = diamonds(&mut graph, || {
        after.fetch_add(before.load(Ordering::Relaxed), Ordering::Relaxed);
        thread::yield_now();
    });
    let threads = threads();
    let memory_bytes = thread_rng().gen_bool(0.5).then_some(6 * BYTES);
    let options =
        RunOptions { threads, memory_bytes, cancel: Some(cancel.clone()), ..RunOptions::default() };
    let canceller = thread::spawn({
        let cancelled = Arc::clone(&cancelled);
        move || {
            thread::yield_now();
            cancel.cancel();
            cancelled.store(1, Ordering::Relaxed);
        }
    });
    let result = taken(&graph, &outputs, &options);
    canceller.join().unwrap();
    assert_eq!(late.load(Ordering::Relaxed), 0);
    match result {
        (Ok(_), taken) => assert_eq!(taken, wanted()),
        (Err(RunError::Cancelled), taken) => {
            assert!(taken.iter().all(|output| wanted().contains(output)), "{taken:?}");
        }
        (Err(error), _) => panic!("{error}"),
    }
}
