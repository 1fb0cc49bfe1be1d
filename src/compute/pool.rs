//! Threads that run tasks.
//!
//! ```text
//! caller: sink(output) <--- finished outputs <---+
//! worker 0..n: take the first ready task, run it-+--> its dependents become ready
//! ```
//!
//! # Invariants
//!
//! 1. A result is dropped as soon as no task needs it and it was handed over.
//! 2. After the first failure no task begins, and every thread ends.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::graph::{Graph, TaskId, Work};
use super::key::Key;
use super::run::{Report, RunError, RunOptions};
use super::value::{TaskError, Value};
use crate::sync::{Changed, Mutex, thread};
use crate::txn::processors;

/// What the threads share.
struct Shared<'a, 'env> {
    graph: &'a Graph<'env>,
    options: &'a RunOptions,
    state: Mutex<State>,
    changed: Changed,
}

/// Who has run, who can, and what is alive.
struct State {
    ready: BinaryHeap<Reverse<u32>>,
    waiting: Vec<u32>,
    uses: Vec<u32>,
    dependents: Vec<Vec<u32>>,
    wanted: Vec<Vec<usize>>,
    values: Vec<Option<Value>>,
    finished: Vec<(usize, Value)>,
    left: usize,
    live_bytes: u64,
    report: Report,
    failed: Option<RunError>,
}

/// See [`run`](super::run).
pub(super) fn run(
    graph: &Graph<'_>,
    outputs: &[TaskId],
    options: &RunOptions,
    sink: &mut dyn FnMut(usize, Value) -> Result<(), TaskError>,
) -> Result<Report, RunError> {
    let state = Mutex::new(State::new(graph, outputs));
    let shared = Shared { graph, options, state, changed: Changed::default() };
    let threads = match options.threads {
        0 => processors(),
        threads => threads,
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work());
        }
        shared.deliver(outputs, sink);
    });
    let mut state = shared.state.lock();
    match state.failed.take() {
        Some(error) => Err(error),
        None => Ok(std::mem::take(&mut state.report)),
    }
}

impl Shared<'_, '_> {
    /// Runs tasks until there are none.
    fn work(&self) {
        while let Some((task, inputs)) = self.next() {
            let result = self.call(task, &inputs);
            drop(inputs);
            let mut state = self.state.lock();
            match result {
                Ok(value) => state.finish(self.graph, task, value),
                Err(error) => state.fail(error),
            }
            self.changed.tell();
        }
    }

    /// Waits for a task that can run.
    fn next(&self) -> Option<(u32, Vec<Value>)> {
        let mut state = self.state.lock();
        loop {
            if self.options.cancel.as_ref().is_some_and(super::Cancel::is_cancelled) {
                state.fail(RunError::Cancelled);
                self.changed.tell();
            }
            if state.is_over() {
                return None;
            }
            if let Some(Reverse(task)) = state.ready.pop() {
                let inputs = self.graph.inputs(TaskId(task));
                let values = inputs.iter().filter_map(|input| state.values[input.index()].clone());
                return Some((task, values.collect()));
            }
            state = self.changed.wait(state);
        }
    }

    fn call(&self, task: u32, inputs: &[Value]) -> Result<Value, RunError> {
        let id = TaskId(task);
        let names = || -> (Option<&Key>, Vec<Key>) {
            let keys = self.graph.inputs(id).iter().filter_map(|&input| self.graph.key(input));
            (self.graph.key(id), keys.cloned().collect())
        };
        let result = match &self.graph.work()[id.index()] {
            Work::Literal(value) => return Ok(value.clone()),
            Work::Call(function) => catch_unwind(AssertUnwindSafe(|| function(inputs))),
        };
        let (Some(key), inputs) = names() else { return Err(RunError::Cancelled) };
        let key = key.clone();
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(RunError::Task { key, inputs, cause: error.into_cause() }),
            Err(panic) => Err(RunError::Panicked { key, inputs, message: message_of(&*panic) }),
        }
    }

    /// Hands outputs over until all are, or something failed.
    fn deliver(
        &self,
        outputs: &[TaskId],
        sink: &mut dyn FnMut(usize, Value) -> Result<(), TaskError>,
    ) {
        let mut state = self.state.lock();
        loop {
            if let Some((place, value)) = state.finished.pop() {
                drop(state);
                let taken = sink(place, value);
                state = self.state.lock();
                let key = outputs.get(place).and_then(|&output| self.graph.key(output)).cloned();
                if let (Err(error), Some(key)) = (taken, key) {
                    state.fail(RunError::Sink { key, cause: error.into_cause() });
                    self.changed.tell();
                }
            } else if state.is_over() {
                return;
            } else {
                state = self.changed.wait(state);
            }
        }
    }
}

impl State {
    fn new(graph: &Graph<'_>, outputs: &[TaskId]) -> Self {
        let count = graph.len();
        let mut state = Self {
            ready: BinaryHeap::new(),
            waiting: vec![0; count],
            uses: vec![0; count],
            dependents: vec![Vec::new(); count],
            wanted: vec![Vec::new(); count],
            values: vec![None; count],
            finished: Vec::new(),
            left: 0,
            live_bytes: 0,
            report: Report::default(),
            failed: None,
        };
        for (place, output) in outputs.iter().enumerate() {
            state.wanted[output.index()].push(place);
        }
        for (at, task) in (0..u32::try_from(count).unwrap_or(u32::MAX)).enumerate().rev() {
            if state.wanted[at].is_empty() && state.uses[at] == 0 {
                continue;
            }
            let inputs = graph.inputs(TaskId(task));
            state.left += 1;
            state.waiting[at] = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
            for input in inputs {
                state.uses[input.index()] += 1;
                state.dependents[input.index()].push(task);
            }
            if inputs.is_empty() {
                state.ready.push(Reverse(task));
            }
        }
        state
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.left == 0
    }

    fn fail(&mut self, error: RunError) {
        self.finished.clear();
        self.failed.get_or_insert(error);
    }

    fn finish(&mut self, graph: &Graph<'_>, task: u32, value: Value) {
        let at = task as usize;
        self.left -= 1;
        self.report.tasks += 1;
        self.live_bytes += value.bytes();
        self.report.peak_bytes = self.report.peak_bytes.max(self.live_bytes);
        let places = std::mem::take(&mut self.wanted[at]);
        self.finished.extend(places.into_iter().map(|place| (place, value.clone())));
        if self.uses[at] > 0 {
            self.values[at] = Some(value);
        } else {
            self.live_bytes -= value.bytes();
        }
        for dependent in std::mem::take(&mut self.dependents[at]) {
            self.waiting[dependent as usize] -= 1;
            if self.waiting[dependent as usize] == 0 {
                self.ready.push(Reverse(dependent));
            }
        }
        for input in graph.inputs(TaskId(task)) {
            self.uses[input.index()] -= 1;
            if self.uses[input.index()] == 0
                && let Some(value) = self.values[input.index()].take()
            {
                self.live_bytes -= value.bytes();
            }
        }
    }
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::{Graph, RunError, RunOptions, Value, thread};
    use crate::compute::{Cancel, run};

    fn sum(inputs: &[Value]) -> Result<Value, super::TaskError> {
        let total: u64 = inputs.iter().filter_map(|input| input.get::<u64>()).sum();
        Ok(Value::new(total, 8))
    }

    #[test]
    fn outputs_are_handed_over_on_the_calling_thread_each_as_often_as_it_was_named() {
        for threads in [0, 1, 2, 7] {
            let mut graph = Graph::new();
            let one = graph.literal("one", Value::new(1_u64, 8));
            let two = graph.task("two", &[one, one], 8, sum);
            let five = graph.task("five", &[two, one, two], 8, sum);
            let options = RunOptions { threads, ..RunOptions::default() };
            let mut taken = Vec::new();
            let caller = thread::current().id();
            let report = run(&graph, &[five, two, five], &options, &mut |place, value| {
                assert_eq!(thread::current().id(), caller);
                taken.push((place, *value.get::<u64>().unwrap()));
                Ok(())
            });
            taken.sort_unstable();
            assert_eq!(taken, [(0, 5), (1, 2), (2, 5)]);
            assert_eq!(report.unwrap().tasks, 3);
        }
    }

    #[test]
    fn a_task_that_fails_or_panics_is_named_with_its_inputs_and_cause() {
        let mut graph = Graph::new();
        let a = graph.literal(("a", 3), Value::new(1_u64, 8));
        let bad = graph.task("bad", &[a], 8, |_| Err("no such number")?);
        let worse = graph.task("worse", &[a, a], 8, |_| panic!("at the {}", "disco"));
        let told = |task| {
            let result = run(&graph, &[task], &RunOptions::default(), &mut |_, _| Ok(()));
            result.unwrap_err().to_string()
        };
        assert_eq!(told(bad), "task bad of (a[3]) failed: no such number");
        assert_eq!(told(worse), "task worse of (a[3], a[3]) panicked: at the disco");
    }

    #[test]
    fn a_sink_that_fails_and_a_cancel_end_the_run() {
        let mut graph = Graph::new();
        let a = graph.literal("a", Value::new(1_u64, 8));
        let refused = run(&graph, &[a], &RunOptions::default(), &mut |_, _| Err("full")?);
        assert_eq!(refused.unwrap_err().to_string(), "result a could not be taken: full");
        let cancel = Cancel::default();
        let options = RunOptions { cancel: Some(cancel.clone()), ..RunOptions::default() };
        cancel.cancel();
        let cancelled = run(&graph, &[a], &options, &mut |_, _| Ok(()));
        assert!(matches!(cancelled, Err(RunError::Cancelled)));
    }
}
