//! One step, from the values of its inputs to its own: the only place that calls tasks.
//!
//! # Failure
//!
//! A task that fails or panics ends its step, with the task, its inputs and the cause.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::graph::{Graph, Needs, TaskId, Work};
use super::key::Key;
use super::optimize::{Optimized, Source};
use super::planted::{Bug, planted};
use super::run::{Cancel, RunError};
use super::value::Value;

/// What is needed to run any step.
pub(super) struct Runner<'a, 'env> {
    pub(super) graph: &'a Graph<'env>,
    pub(super) optimized: &'a Optimized,
    pub(super) known: &'a std::collections::HashMap<TaskId, Value>,
    pub(super) cancel: Option<&'a Cancel>,
}

/// Room for the values of one step, used again for the next.
#[derive(Default)]
pub(super) struct Scratch {
    members: Vec<Option<Value>>,
    arguments: Vec<Value>,
}

impl Runner<'_, '_> {
    /// Runs `step` with the values of its inputs.
    pub(super) fn run(
        &self,
        step: u32,
        inputs: &[Value],
        scratch: &mut Scratch,
    ) -> Result<Value, RunError> {
        let members = self.optimized.members.range(step);
        if members.len() == 1 && self.takes_inputs_as_they_are(members.start, inputs.len()) {
            return self.call(self.optimized.members.at(members.start), inputs);
        }
        scratch.members.clear();
        let mut result = None;
        for member in members.clone() {
            let is_cancelled = self.cancel.is_some_and(Cancel::is_cancelled);
            if is_cancelled && !planted(Bug::CancelIgnored) {
                return Err(RunError::Cancelled);
            }
            scratch.arguments.clear();
            for &source in self.optimized.sources(member) {
                let value = self.value_of(source, inputs, &mut scratch.members);
                scratch.arguments.extend(value);
            }
            let value = self.call(self.optimized.members.at(member), &scratch.arguments)?;
            if member + 1 == members.end {
                result = Some(value);
            } else {
                scratch.members.push(Some(value));
            }
        }
        scratch.arguments.clear();
        scratch.members.clear();
        result.ok_or_else(|| RunError::Graph { why: "a step has no tasks".to_owned() })
    }

    fn takes_inputs_as_they_are(&self, member: usize, count: usize) -> bool {
        let sources = self.optimized.sources(member);
        sources.len() == count
            && (0..).zip(sources).all(|(place, &source)| source == Source::Input(place))
    }

    fn value_of(
        &self,
        source: Source,
        inputs: &[Value],
        members: &mut [Option<Value>],
    ) -> Option<Value> {
        match source {
            Source::Literal(task) => self.literal(task),
            Source::Input(place) => inputs.get(place as usize).cloned(),
            Source::Member { place, last: true } => members.get_mut(place as usize)?.take(),
            Source::Member { place, last: false } => members.get(place as usize)?.clone(),
        }
    }

    /// Bytes that the tasks of `step` say they read from a store.
    pub(super) fn bytes_read(&self, step: u32) -> u64 {
        self.sum(step, |needs| needs.reads)
    }

    /// Bytes that the tasks of `step` say they write to a store.
    pub(super) fn bytes_written(&self, step: u32) -> u64 {
        self.sum(step, |needs| needs.writes)
    }

    fn sum(&self, step: u32, bytes: impl Fn(&Needs) -> u64) -> u64 {
        let needs = self.graph.needs();
        let tasks = self.optimized.members.of(step).iter();
        tasks.map(|&task| bytes(&needs[task as usize])).fold(0, u64::saturating_add)
    }

    /// The value of a task that is a value already.
    pub(super) fn literal(&self, task: u32) -> Option<Value> {
        match self.graph.work().get(task as usize) {
            Some(Work::Literal(value)) => Some(value.clone()),
            _ => self.known.get(&TaskId(task)).cloned(),
        }
    }

    fn call(&self, task: u32, arguments: &[Value]) -> Result<Value, RunError> {
        let result = match &self.graph.work()[task as usize] {
            Work::Literal(value) => return Ok(value.clone()),
            Work::Call(function) => catch_unwind(AssertUnwindSafe(|| function(arguments))),
        };
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let (key, inputs) = self.names(task);
                Err(RunError::Task { key, inputs, cause: error.into_cause() })
            }
            Err(panic) => {
                let (key, inputs) = self.names(task);
                Err(RunError::Panicked { key, inputs, message: message_of(&*panic) })
            }
        }
    }

    /// The key of `task` and those of its inputs.
    fn names(&self, task: u32) -> (Key, Vec<Key>) {
        let inputs = self.graph.inputs(TaskId(task)).iter();
        let keys = self.graph.keys();
        (keys[task as usize].clone(), inputs.map(|input| keys[input.index()].clone()).collect())
    }
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
