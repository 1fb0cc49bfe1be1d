//! Tasks and what they need of each other.
//!
//! ```text
//! task       0     1     2     3
//! inputs     |     |     0 1   2 0        flat: one list for all, and where each task's part ends
//! ```
//!
//! # Invariants
//!
//! 1. The inputs of a task stand before it, so there is no cycle, and the order of tasks is one in
//!    which they can run.
//! 2. A task costs at most one allocation, that of its function.
//!
//! # Failure
//!
//! What cannot be built (more tasks than ids, an input that does not exist) is remembered, and
//! `run` refuses the graph.

use super::key::Key;
use super::value::{TaskError, Value};

/// The function of a task: from the values of its inputs to its own.
pub(super) type Function<'env> =
    Box<dyn Fn(&[Value]) -> Result<Value, TaskError> + Send + Sync + 'env>;

/// A task of one graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId(pub(super) u32);

impl TaskId {
    /// Its number: tasks are counted as they are added.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What stands for a task.
pub(super) enum Work<'env> {
    /// A value that is there from the beginning.
    Literal(Value),
    /// A function to call.
    Call(Function<'env>),
}

/// What a task may say of itself besides its inputs.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Needs {
    /// Bytes of the result.
    pub(super) bytes: u64,
    /// Bytes while it runs, besides inputs and result.
    pub(super) scratch: u64,
}

/// Tasks with their functions, inputs and predicted sizes.
///
/// Functions may borrow what lives as long as `'env`, such as snapshots.
#[derive(Default)]
pub struct Graph<'env> {
    keys: Vec<Key>,
    work: Vec<Work<'env>>,
    // Ascending; as long as `work`. Task i has the inputs `ends[i - 1]..ends[i]`.
    ends: Vec<u32>,
    inputs: Vec<TaskId>,
    needs: Vec<Needs>,
    cheap: Vec<TaskId>,
    defect: Option<String>,
}

impl<'env> Graph<'env> {
    /// A graph without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that is there already. Its bytes are the owner's: no budget counts them.
    pub fn literal(&mut self, key: impl Into<Key>, value: Value) -> TaskId {
        self.add(key.into(), &[], 0, Work::Literal(value))
    }

    /// Adds a task that calls `run` with the values of `inputs`, in their order.
    ///
    /// `bytes` is what its result will keep of memory at most. `run` must return the same for the
    /// same inputs: it may be called more than once, and by any thread.
    pub fn task(
        &mut self,
        key: impl Into<Key>,
        inputs: &[TaskId],
        bytes: u64,
        run: impl Fn(&[Value]) -> Result<Value, TaskError> + Send + Sync + 'env,
    ) -> TaskId {
        self.add(key.into(), inputs, bytes, Work::Call(Box::new(run)))
    }

    /// Says that `task` takes `bytes` of memory while it runs, besides its inputs and its result.
    pub fn scratch(&mut self, task: TaskId, bytes: u64) {
        if let Some(needs) = self.needs.get_mut(task.index()) {
            needs.scratch = bytes;
        }
    }

    /// Says that to run `task` again costs less than to keep its result: reads of mapped memory,
    /// slices, conversions. It then runs once for each task that needs it, as a part of that task.
    pub fn cheap(&mut self, task: TaskId) {
        self.cheap.push(task);
    }

    /// Tasks, literals included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.work.len()
    }

    /// Whether there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// The name of `task`.
    #[must_use]
    pub fn key(&self, task: TaskId) -> Option<&Key> {
        self.keys.get(task.index())
    }

    /// The inputs of `task`, in the order in which its function gets their values.
    #[must_use]
    pub fn inputs(&self, task: TaskId) -> &[TaskId] {
        let start = match task.index() {
            0 => 0,
            at => self.ends.get(at - 1).map_or(0, |&end| end as usize),
        };
        let end = self.ends.get(task.index()).map_or(start, |&end| end as usize);
        &self.inputs[start..end]
    }

    pub(super) fn work(&self) -> &[Work<'env>] {
        &self.work
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(super) fn needs(&self) -> &[Needs] {
        &self.needs
    }

    pub(super) fn defect(&self) -> Option<&str> {
        self.defect.as_deref()
    }

    fn add(&mut self, key: Key, inputs: &[TaskId], bytes: u64, work: Work<'env>) -> TaskId {
        let id = u32::try_from(self.work.len());
        let end = u32::try_from(self.inputs.len() + inputs.len());
        let (Ok(id), Ok(end)) = (id, end) else {
            self.defect = Some("there are more than 4294967295 tasks or inputs".to_owned());
            return TaskId(0);
        };
        if let Some(missing) = inputs.iter().find(|input| input.0 >= id) {
            let number = missing.0;
            self.defect = Some(format!("task {key} needs task number {number}, which is none"));
        }
        self.keys.push(key);
        self.work.push(work);
        self.inputs.extend_from_slice(inputs);
        self.ends.push(end);
        self.needs.push(Needs { bytes, scratch: 0 });
        TaskId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_those_that_were_given() {
        let mut graph = Graph::new();
        let a = graph.literal("a", Value::new(1_u8, 1));
        let b = graph.task("b", &[a, a], 8, |inputs| Ok(inputs[0].clone()));
        let c = graph.task("c", &[b, a], 8, |inputs| Ok(inputs[0].clone()));
        assert_eq!(graph.inputs(a), []);
        assert_eq!(graph.inputs(b), [a, a]);
        assert_eq!(graph.inputs(c), [b, a]);
        assert_eq!(graph.inputs(TaskId(9)), []);
        assert_eq!(graph.key(c).unwrap().to_string(), "c");
        assert_eq!((graph.len(), graph.defect()), (3, None));
    }

    #[test]
    fn an_input_of_another_graph_is_a_defect() {
        let mut graph = Graph::new();
        graph.task("x", &[TaskId(4)], 0, |_| Ok(Value::new((), 0)));
        assert_eq!(graph.defect(), Some("task x needs task number 4, which is none"));
    }
}
