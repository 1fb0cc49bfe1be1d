//! Graphs from calls that are written down instead of made, and graphs that are built by name.
//!
//! ```text
//! let load = delayed("load", [], ...)      KeyedTasks: "total" = call(add, [key "a", [1, "b"]])
//! let all = delayed("all", [list of loads])            '--> names become tasks; cycles are refused
//! ```
//!
//! # Invariants
//!
//! 1. A call inside an argument is a part of its task: its result is not kept.
//! 2. The same delayed call becomes one task, however often it is used.
//!
//! # Failure
//!
//! A name that stands for nothing or for two things, and names that need each other in a circle,
//! are refused before anything runs, with the names.

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::graph::{Graph, TaskId};
use super::key::Key;
use super::run::{Report, RunError, RunOptions, run};
use super::value::{TaskError, Value};

/// What a task calls: from the values of its arguments to its own.
type Function<'env> = Arc<dyn Fn(&[Value]) -> Result<Value, TaskError> + Send + Sync + 'env>;

/// An argument of a task.
#[derive(Clone)]
pub enum Argument<'env> {
    /// A value as it is.
    Literal(Value),
    /// The result of a delayed call.
    Delayed(Delayed<'env>),
    /// The result of the task of that name, where tasks have names.
    Key(Key),
    /// Several, which the function gets as one [`Value`] that holds a `Vec<Value>`.
    List(Vec<Argument<'env>>),
    /// A call that is a part of the task.
    Call(Call<'env>),
}

/// A function and its arguments.
#[derive(Clone)]
pub struct Call<'env> {
    function: Function<'env>,
    arguments: Vec<Argument<'env>>,
    bytes: u64,
}

/// A call that will be made when its result is needed. Cheap to clone.
#[derive(Clone)]
pub struct Delayed<'env>(Arc<Named<'env>>);

struct Named<'env> {
    key: Key,
    call: Call<'env>,
}

/// Why a graph cannot be built.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing has that name.
    #[error("{needed_by} needs {key}, and nothing has that name")]
    Missing {
        /// The name.
        key: Key,
        /// Who asks for it.
        needed_by: String,
    },
    /// Two things have that name.
    #[error("two tasks are named {key}")]
    Twice {
        /// The name.
        key: Key,
    },
    /// Tasks that need each other.
    #[error("tasks need each other in a circle: {}", circle(.keys))]
    Cycle {
        /// Each needs the next; the last is the first.
        keys: Vec<Key>,
    },
}

/// Each name needs the next.
fn circle(keys: &[Key]) -> String {
    keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" needs ")
}

impl<'env> Call<'env> {
    /// A call of `function`, whose result has at most `bytes` bytes.
    pub fn new(
        arguments: impl IntoIterator<Item = Argument<'env>>,
        bytes: u64,
        function: impl Fn(&[Value]) -> Result<Value, TaskError> + Send + Sync + 'env,
    ) -> Self {
        let arguments = arguments.into_iter().collect();
        Self { function: Arc::new(function), arguments, bytes }
    }
}

impl<'env> Delayed<'env> {
    /// A call under a name, which need not be unique: it is for people.
    pub fn new(key: impl Into<Key>, call: Call<'env>) -> Self {
        Self(Arc::new(Named { key: key.into(), call }))
    }

    /// Makes the calls that this needs, as many at once as there are threads, and then its own.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn compute(&self, options: &RunOptions) -> Result<(Value, Report), RunError> {
        let mut graph = Graph::new();
        let task = add_delayed(&mut graph, self);
        let task = task.map_err(|error| RunError::Graph { why: error.to_string() })?;
        let mut result = None;
        let report = run(&graph, &[task], options, &mut |_, value| {
            result = Some(value);
            Ok(())
        })?;
        match result {
            Some(value) => Ok((value, report)),
            None => Err(RunError::Graph { why: "there was no result".to_owned() }),
        }
    }

    /// Adds what this needs to `graph`; returns its task.
    ///
    /// # Errors
    ///
    /// [`KeyError::Missing`] if an argument asks for a name: there are none here.
    pub fn add_to(&self, graph: &mut Graph<'env>) -> Result<TaskId, KeyError> {
        add_delayed(graph, self)
    }
}

impl<'env> From<Delayed<'env>> for Argument<'env> {
    fn from(delayed: Delayed<'env>) -> Self {
        Self::Delayed(delayed)
    }
}

impl<'env> From<Value> for Argument<'env> {
    fn from(value: Value) -> Self {
        Self::Literal(value)
    }
}

impl<'env> From<Vec<Argument<'env>>> for Argument<'env> {
    fn from(list: Vec<Argument<'env>>) -> Self {
        Self::List(list)
    }
}

/// Tasks that know each other by name, in any order.
#[derive(Default)]
pub struct KeyedTasks<'env> {
    tasks: Vec<(Key, Argument<'env>)>,
    places: HashMap<Key, usize>,
}

impl<'env> KeyedTasks<'env> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what `key` stands for: a call, a value, a list, or another name.
    ///
    /// # Errors
    ///
    /// [`KeyError::Twice`].
    pub fn insert(&mut self, key: impl Into<Key>, content: Argument<'env>) -> Result<(), KeyError> {
        let key = key.into();
        if self.places.insert(key.clone(), self.tasks.len()).is_some() {
            return Err(KeyError::Twice { key });
        }
        self.tasks.push((key, content));
        Ok(())
    }

    /// The graph of all tasks, and the tasks of `outputs`.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn graph(&self, outputs: &[Key]) -> Result<(Graph<'env>, Vec<TaskId>), KeyError> {
        let mut building = Building { graph: Graph::new(), keyed: self, ids: HashMap::new() };
        let mut made = vec![None; self.tasks.len()];
        for place in self.sorted()? {
            let (key, content) = &self.tasks[place];
            let id = building.add(key, content, &made)?;
            made[place] = Some(id);
        }
        let output = |key: &Key| {
            let place = self.places.get(key);
            place.and_then(|&place| made[place]).ok_or_else(|| KeyError::Missing {
                key: key.clone(),
                needed_by: "the caller".to_owned(),
            })
        };
        let outputs: Result<Vec<TaskId>, KeyError> = outputs.iter().map(output).collect();
        Ok((building.graph, outputs?))
    }

    /// Places in an order in which everyone stands after those it needs.
    fn sorted(&self) -> Result<Vec<usize>, KeyError> {
        let mut order = Vec::with_capacity(self.tasks.len());
        let mut stage = vec![Stage::New; self.tasks.len()];
        for root in 0..self.tasks.len() {
            let mut path = vec![(root, self.needs(root)?, 0)];
            while let Some((place, needs, next)) = path.last_mut() {
                let place = *place;
                stage[place] = match stage[place] {
                    Stage::Done => Stage::Done,
                    _ => Stage::Open,
                };
                let need = needs.get(*next).copied();
                *next += 1;
                match need {
                    _ if stage[place] == Stage::Done => {
                        path.pop();
                    }
                    None => {
                        stage[place] = Stage::Done;
                        order.push(place);
                        path.pop();
                    }
                    Some(need) if stage[need] == Stage::Open => {
                        let places = path.iter().map(|(place, _, _)| *place);
                        return Err(self.cycle(places.skip_while(|&p| p != need), need));
                    }
                    Some(need) if stage[need] == Stage::New => {
                        path.push((need, self.needs(need)?, 0));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(order)
    }

    fn cycle(&self, places: impl Iterator<Item = usize>, first: usize) -> KeyError {
        let key = |place: usize| self.tasks[place].0.clone();
        KeyError::Cycle { keys: places.chain([first]).map(key).collect() }
    }

    /// The places that `place` needs.
    fn needs(&self, place: usize) -> Result<Vec<usize>, KeyError> {
        let (key, content) = &self.tasks[place];
        let mut needs = Vec::new();
        let mut open = vec![content];
        while let Some(argument) = open.pop() {
            match argument {
                Argument::Key(need) => match self.places.get(need) {
                    Some(&place) => needs.push(place),
                    None => {
                        let needed_by = key.to_string();
                        return Err(KeyError::Missing { key: need.clone(), needed_by });
                    }
                },
                Argument::List(list) => open.extend(list.iter().rev()),
                Argument::Call(call) => open.extend(call.arguments.iter().rev()),
                Argument::Literal(_) | Argument::Delayed(_) => {}
            }
        }
        Ok(needs)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Open,
    Done,
}

/// A graph while it is built.
struct Building<'a, 'env> {
    graph: Graph<'env>,
    keyed: &'a KeyedTasks<'env>,
    /// Tasks of delayed calls, by their address.
    ids: HashMap<usize, TaskId>,
}

/// How a task makes an argument from the values of its inputs.
enum Shape<'env> {
    Input(usize),
    Literal(Value),
    List(Vec<Shape<'env>>),
    Call(Function<'env>, Vec<Shape<'env>>),
}

impl Shape<'_> {
    fn value(&self, inputs: &[Value]) -> Result<Value, TaskError> {
        match self {
            Self::Input(place) => inputs.get(*place).cloned().ok_or_else(|| "no such input".into()),
            Self::Literal(value) => Ok(value.clone()),
            Self::List(list) => {
                let values = list.iter().map(|shape| shape.value(inputs));
                let values = values.collect::<Result<Vec<Value>, TaskError>>()?;
                let bytes = values.iter().map(Value::bytes).sum();
                Ok(Value::new(values, bytes))
            }
            Self::Call(function, arguments) => {
                let values = arguments.iter().map(|shape| shape.value(inputs));
                function(&values.collect::<Result<Vec<Value>, TaskError>>()?)
            }
        }
    }
}

fn add_delayed<'env>(graph: &mut Graph<'env>, delayed: &Delayed<'env>) -> Result<TaskId, KeyError> {
    let keyed = KeyedTasks::new();
    let taken = std::mem::take(graph);
    let mut building = Building { graph: taken, keyed: &keyed, ids: HashMap::new() };
    let id = building.delayed(delayed);
    *graph = building.graph;
    id
}

impl<'env> Building<'_, 'env> {
    /// Adds the task of a delayed call, after those it needs. Not recursive: chains are long.
    fn delayed(&mut self, root: &Delayed<'env>) -> Result<TaskId, KeyError> {
        let address = |delayed: &Delayed<'env>| Arc::as_ptr(&delayed.0).addr();
        let mut open = vec![root.clone()];
        while let Some(delayed) = open.last().cloned() {
            if self.ids.contains_key(&address(&delayed)) {
                open.pop();
                continue;
            }
            let mut needs = Vec::new();
            delayed_in(&delayed.0.call.arguments, &mut needs);
            needs.retain(|need| !self.ids.contains_key(&address(need)));
            if needs.is_empty() {
                let Named { key, call } = &*delayed.0;
                let id = self.add(key, &Argument::Call(call.clone()), &[])?;
                self.ids.insert(address(&delayed), id);
                open.pop();
            } else {
                open.extend(needs);
            }
        }
        Ok(self.ids[&address(root)])
    }

    /// Adds a task, or finds the one that a name stands for.
    fn add(
        &mut self,
        key: &Key,
        content: &Argument<'env>,
        made: &[Option<TaskId>],
    ) -> Result<TaskId, KeyError> {
        let mut inputs = Vec::new();
        let shape = self.shape(key, content, made, &mut inputs)?;
        let bytes = match content {
            Argument::Call(call) => call.bytes,
            _ => 0,
        };
        Ok(match shape {
            Shape::Literal(value) => self.graph.literal(key.clone(), value),
            Shape::Call(function, arguments) if arguments.iter().all(is_plain) => {
                // The usual case needs no list of values besides the one it is given.
                if is_in_order(&arguments) {
                    self.graph.task(key.clone(), &inputs, bytes, move |values| function(values))
                } else {
                    let shape = Shape::Call(function, arguments);
                    self.graph.task(key.clone(), &inputs, bytes, move |values| shape.value(values))
                }
            }
            shape => {
                self.graph.task(key.clone(), &inputs, bytes, move |values| shape.value(values))
            }
        })
    }

    fn shape(
        &mut self,
        key: &Key,
        argument: &Argument<'env>,
        made: &[Option<TaskId>],
        inputs: &mut Vec<TaskId>,
    ) -> Result<Shape<'env>, KeyError> {
        let mut input = |id: TaskId| {
            inputs.push(id);
            Ok(Shape::Input(inputs.len() - 1))
        };
        match argument {
            Argument::Literal(value) => Ok(Shape::Literal(value.clone())),
            Argument::Delayed(delayed) => input(self.delayed(delayed)?),
            Argument::Key(needed) => {
                let place = self.keyed.places.get(needed);
                let id = place.and_then(|&place| made.get(place).copied().flatten());
                match id {
                    Some(id) => input(id),
                    None => {
                        Err(KeyError::Missing { key: needed.clone(), needed_by: key.to_string() })
                    }
                }
            }
            Argument::List(list) => Ok(Shape::List(self.shapes(key, list, made, inputs)?)),
            Argument::Call(call) => {
                let arguments = self.shapes(key, &call.arguments, made, inputs)?;
                Ok(Shape::Call(Arc::clone(&call.function), arguments))
            }
        }
    }

    fn shapes(
        &mut self,
        key: &Key,
        arguments: &[Argument<'env>],
        made: &[Option<TaskId>],
        inputs: &mut Vec<TaskId>,
    ) -> Result<Vec<Shape<'env>>, KeyError> {
        arguments.iter().map(|argument| self.shape(key, argument, made, inputs)).collect()
    }
}

fn is_plain(shape: &Shape<'_>) -> bool {
    matches!(shape, Shape::Input(_) | Shape::Literal(_))
}

fn is_in_order(shapes: &[Shape<'_>]) -> bool {
    shapes
        .iter()
        .enumerate()
        .all(|(place, shape)| matches!(shape, Shape::Input(at) if *at == place))
}

/// The delayed calls among arguments, in lists and inner calls too.
fn delayed_in<'env>(arguments: &[Argument<'env>], found: &mut Vec<Delayed<'env>>) {
    for argument in arguments {
        match argument {
            Argument::Delayed(delayed) => found.push(delayed.clone()),
            Argument::List(list) => delayed_in(list, found),
            Argument::Call(call) => delayed_in(&call.arguments, found),
            Argument::Literal(_) | Argument::Key(_) => {}
        }
    }
}

impl Drop for Named<'_> {
    /// Takes long chains apart without recursion.
    fn drop(&mut self) {
        let mut open = std::mem::take(&mut self.call.arguments);
        while let Some(argument) = open.pop() {
            match argument {
                Argument::Delayed(Delayed(named)) => {
                    if let Some(mut named) = Arc::into_inner(named) {
                        open.append(&mut named.call.arguments);
                    }
                }
                Argument::List(list) => open.extend(list),
                Argument::Call(call) => open.extend(call.arguments),
                Argument::Literal(_) | Argument::Key(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: i64) -> Argument<'static> {
        Value::new(value, 8).into()
    }

    fn sum_of(value: &Value) -> i64 {
        match value.get::<Vec<Value>>() {
            Some(list) => list.iter().map(sum_of).sum(),
            None => *value.get::<i64>().unwrap(),
        }
    }

    fn sum<'env>(arguments: impl IntoIterator<Item = Argument<'env>>) -> Call<'env> {
        Call::new(arguments, 8, |values| Ok(Value::new(values.iter().map(sum_of).sum::<i64>(), 8)))
    }

    fn key(name: &str) -> Argument<'static> {
        Argument::Key(name.into())
    }

    fn computed(delayed: &Delayed<'_>) -> (i64, u64) {
        let (value, report) = delayed.compute(&RunOptions::default()).unwrap();
        (*value.get::<i64>().unwrap(), report.tasks)
    }

    #[test]
    fn calls_take_values_lists_of_lists_and_inner_calls() {
        let one = Delayed::new("one", sum([number(1)]));
        let list: Argument<'_> =
            vec![number(10), vec![one.clone().into(), number(100)].into()].into();
        let inner = Argument::Call(sum([one.clone().into(), number(1000)]));
        let all = Delayed::new("all", sum([list, one.into(), inner]));
        assert_eq!(computed(&all), (1113, 2), "the inner call is no task, and one runs once");
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_calls_is_no_recursion() {
        let mut last = Delayed::new("first", sum([number(0)]));
        for _ in 0..100_000 {
            last = Delayed::new("next", sum([last.into(), number(1)]));
        }
        assert_eq!(computed(&last).0, 100_000);
    }

    #[test]
    fn tasks_are_known_by_name_in_any_order() {
        let mut tasks = KeyedTasks::new();
        let list = Argument::List(vec![key("a"), number(5)]);
        tasks.insert("c", Argument::Call(sum([key("b"), list]))).unwrap();
        tasks.insert("alias", key("c")).unwrap();
        tasks.insert("b", Argument::Call(sum([key("a"), key("a")]))).unwrap();
        tasks.insert("a", number(7)).unwrap();
        let (graph, outputs) = tasks.graph(&["alias".into(), "a".into()]).unwrap();
        let mut taken = [0; 2];
        run(&graph, &outputs, &RunOptions::default(), &mut |place, value| {
            taken[place] = sum_of(&value);
            Ok(())
        })
        .unwrap();
        assert_eq!(taken, [26, 7]);
    }

    #[test]
    fn cycles_missing_names_and_names_of_two_are_refused() {
        let mut tasks = KeyedTasks::new();
        tasks.insert("a", Argument::Call(sum([key("b")]))).unwrap();
        tasks.insert("b", Argument::List(vec![number(1), key("c")])).unwrap();
        tasks.insert("c", Argument::Call(sum([Argument::Call(sum([key("b")]))]))).unwrap();
        let refused = tasks.graph(&[]).err().unwrap();
        assert_eq!(refused.to_string(), "tasks need each other in a circle: b needs c needs b");
        let twice = tasks.insert("a", number(1)).unwrap_err();
        assert_eq!(twice.to_string(), "two tasks are named a");
        let mut tasks = KeyedTasks::new();
        tasks.insert("a", Argument::Call(sum([key("x")]))).unwrap();
        let missing = tasks.graph(&[]).err().unwrap();
        assert_eq!(missing.to_string(), "a needs x, and nothing has that name");
        let nobody = KeyedTasks::new().graph(&["y".into()]).err().unwrap();
        assert_eq!(nobody.to_string(), "the caller needs y, and nothing has that name");
        let mut own = KeyedTasks::new();
        own.insert("self", key("self")).unwrap();
        assert!(matches!(own.graph(&[]), Err(KeyError::Cycle { keys }) if keys.len() == 2));
    }
}
