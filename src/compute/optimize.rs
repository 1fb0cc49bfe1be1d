//! From tasks to steps: what is not needed goes, chains become one, cheap tasks run where they are
//! needed. Pure.
//!
//! ```text
//! read(cheap) --> square --> sum --\                  step 0: read, square, sum
//!            \                      total --> diff    step 1: total
//!             '--------------------------/            step 2: read, diff
//! ```
//!
//! A *step* is what one thread runs in one go: its members in order, of which the last one's result
//! is kept. Three rules make steps of tasks:
//!
//! - *cull*: a task that no output needs is in no step;
//! - *inline*: a task that was said to be cheap is a member of every step that needs it, unless it
//!   is smaller than what it is made of (then keeping it is what saves memory), or it stands for
//!   more than [`INLINE_MAX`] others;
//! - *fuse*: a task with one dependent, which has no other input that must be waited for, is a
//!   member of that dependent's step.
//!
//! # Invariants
//!
//! 1. The inputs of a step have smaller numbers than the step.
//! 2. An output is the last member of one step, and never only a member.
//! 3. A value made and used within a step is dropped after its last use there.

use std::collections::HashMap;

use super::graph::{Graph, Needs, TaskId, Work};
use super::lists::Lists;
use super::planted::{Bug, planted};
use super::value::Value;

/// Most tasks that one cheap task may bring into a step.
const INLINE_MAX: u32 = 64;

/// No task, and no step.
const NONE: u32 = u32::MAX;
/// More than one dependent.
const MANY: u32 = u32::MAX - 1;

/// Sizes of steps and who needs whom: all that order and scheduler know.
#[derive(Default, Debug)]
pub(super) struct Steps {
    /// Steps whose results each step needs, each once.
    pub(super) inputs: Lists,
    /// Predicted bytes of the result.
    pub(super) bytes: Vec<u64>,
    /// Bytes while the step runs, besides inputs and result.
    pub(super) scratch: Vec<u64>,
    /// Places among the outputs where the result is wanted.
    pub(super) wanted: Lists,
}

impl Steps {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All of them, as numbers.
    pub(super) fn all(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.len()).unwrap_or(NONE)
    }

    /// Bytes without which `step` cannot run: inputs, result, scratch.
    pub(super) fn need(&self, step: u32) -> u64 {
        let inputs = self.inputs.of(step).iter().map(|&input| self.bytes[input as usize]);
        inputs.fold(self.growth(step), u64::saturating_add)
    }

    /// Bytes that `step` adds to its inputs while it runs.
    pub(super) fn growth(&self, step: u32) -> u64 {
        self.bytes[step as usize].saturating_add(self.scratch[step as usize])
    }
}

/// Where a member of a step has an input from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A task that is a value already.
    Literal(u32),
    /// One of the inputs of the step, by its place.
    Input(u32),
    /// An earlier member of the step, by its place.
    Member {
        /// Place.
        place: u32,
        /// Whether nobody uses it after this (invariant 3).
        last: bool,
    },
}

/// The steps of a graph, and the tasks in them.
#[derive(Default, Debug)]
pub(super) struct Optimized {
    pub(super) steps: Steps,
    /// Tasks of each step.
    pub(super) members: Lists,
    /// Sources of each member, counted over all steps.
    pub(super) sources: Vec<Source>,
    source_ends: Vec<u32>,
    /// Places among the outputs of tasks that are values already, with the task.
    pub(super) given: Vec<(usize, u32)>,
}

impl Optimized {
    /// The task whose result is that of `step`.
    pub(super) fn last(&self, step: u32) -> u32 {
        self.members.of(step).last().copied().unwrap_or(NONE)
    }

    /// The sources of a member, counted over all steps.
    pub(super) fn sources(&self, member: usize) -> &[Source] {
        let start = if member == 0 { 0 } else { self.source_ends[member - 1] as usize };
        &self.sources[start..self.source_ends[member] as usize]
    }
}

/// What becomes of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Nobody needs it.
    Idle,
    /// It is a value.
    Literal,
    /// Member of every step that needs it.
    Inline,
    /// Member of the step of its only dependent.
    Fused,
    /// The last member of a step.
    Last,
}

/// Makes steps. `known` are tasks whose values are there already.
pub(super) fn optimize(
    graph: &Graph<'_>,
    outputs: &[TaskId],
    known: &HashMap<TaskId, Value>,
) -> Optimized {
    let mut wanted = vec![false; graph.len()];
    outputs.iter().for_each(|output| wanted[output.index()] = true);
    let is_literal = |task: u32| {
        matches!(graph.work()[task as usize], Work::Literal(_)) || known.contains_key(&TaskId(task))
    };
    let inline = inlined(graph, &wanted, &is_literal);
    let roles = roles(graph, &wanted, &inline, &is_literal);
    let mut building = Building::new(graph, &roles);
    for (task, _) in (0..).zip(&roles).filter(|(_, role)| **role == Role::Last) {
        building.add(task);
    }
    let step_of = building.step_of;
    let mut made = building.made;
    let step = |output: &TaskId| step_of[output.index()];
    let mut by_output = Lists::with_room(outputs.len(), outputs.len());
    for (place, output) in outputs.iter().enumerate() {
        match step(output) {
            NONE => made.given.push((place, output.0)),
            step => by_output.push(step),
        }
        by_output.close();
    }
    let places = 0..u32::try_from(outputs.len()).unwrap_or(NONE);
    made.steps.wanted = by_output.inverse(made.steps.len(), places);
    made
}

/// Which tasks are worth running again for each that needs them.
fn inlined(graph: &Graph<'_>, wanted: &[bool], is_literal: &impl Fn(u32) -> bool) -> Vec<bool> {
    let mut inline = vec![false; graph.len()];
    let mut cheap: Vec<TaskId> = graph.cheap_tasks().to_vec();
    cheap.sort_unstable();
    let mut weights: HashMap<u32, u32> = HashMap::new();
    for task in cheap {
        let (mut weight, mut kept_bytes) = (1_u32, 0_u64);
        for input in graph.inputs(task) {
            if let Some(inner) = weights.get(&input.0) {
                weight = weight.saturating_add(*inner);
            } else if !is_literal(input.0) {
                kept_bytes = kept_bytes.saturating_add(graph.needs()[input.index()].bytes);
            }
        }
        let small = graph.needs()[task.index()].bytes < kept_bytes;
        if !wanted[task.index()] && !small && weight <= INLINE_MAX {
            inline[task.index()] = true;
            weights.insert(task.0, weight);
        }
    }
    inline
}

fn roles(
    graph: &Graph<'_>,
    wanted: &[bool],
    inline: &[bool],
    is_literal: &impl Fn(u32) -> bool,
) -> Vec<Role> {
    let mut roles = vec![Role::Idle; graph.len()];
    let mut only_dependent = vec![NONE; graph.len()];
    for task in (0..u32::try_from(graph.len()).unwrap_or(NONE)).rev() {
        let at = task as usize;
        let dependent = only_dependent[at];
        if dependent == NONE && !wanted[at] {
            continue;
        }
        roles[at] = if is_literal(task) {
            Role::Literal
        } else if inline[at] {
            Role::Inline
        } else if !wanted[at]
            && dependent != MANY
            && roles[dependent as usize] != Role::Inline
            && is_chain(graph, task, dependent, inline, is_literal)
        {
            Role::Fused
        } else {
            Role::Last
        };
        if roles[at] != Role::Literal {
            for input in graph.inputs(TaskId(task)) {
                let only = &mut only_dependent[input.index()];
                *only = if *only == NONE || *only == task { task } else { MANY };
            }
        }
    }
    roles
}

/// Whether `dependent` waits for nothing but `task`.
fn is_chain(
    graph: &Graph<'_>,
    task: u32,
    dependent: u32,
    inline: &[bool],
    is_literal: &impl Fn(u32) -> bool,
) -> bool {
    let waits_for_nothing = |input: &TaskId| {
        let leaf = || graph.inputs(*input).iter().all(|inner| is_literal(inner.0));
        is_literal(input.0) || (inline[input.index()] && leaf())
    };
    graph.inputs(TaskId(dependent)).iter().all(|input| input.0 == task || waits_for_nothing(input))
}

/// Steps while they are made.
struct Building<'a, 'env> {
    graph: &'a Graph<'env>,
    roles: &'a [Role],
    made: Optimized,
    step_of: Vec<u32>,
    // Scratch: the place of a task, and of a step among the inputs, if it was met for this step.
    place: Vec<u32>,
    met: Vec<u32>,
    met_step: Vec<u32>,
    place_step: Vec<u32>,
    members: Vec<u32>,
    stack: Vec<(u32, bool)>,
}

impl<'a, 'env> Building<'a, 'env> {
    fn new(graph: &'a Graph<'env>, roles: &'a [Role]) -> Self {
        let none = || vec![NONE; graph.len()];
        Self {
            graph,
            roles,
            made: Optimized::default(),
            step_of: none(),
            place: none(),
            met: none(),
            met_step: none(),
            place_step: none(),
            members: Vec::new(),
            stack: Vec::new(),
        }
    }

    /// Makes the step that ends with `last`.
    fn add(&mut self, last: u32) {
        let step = u32::try_from(self.made.steps.len()).unwrap_or(NONE);
        self.collect(step, last);
        let first_source = self.made.sources.len();
        for at in 0..self.members.len() {
            let task = self.members[at];
            self.made.members.push(task);
            for &TaskId(input) in self.graph.inputs(TaskId(task)) {
                let source = self.source(step, input);
                self.made.sources.push(source);
            }
            self.made.source_ends.push(u32::try_from(self.made.sources.len()).unwrap_or(NONE));
        }
        self.made.members.close();
        self.made.steps.inputs.close();
        self.step_of[last as usize] = step;
        let needs = self.graph.needs()[last as usize];
        let scratch = match self.members.len() {
            1 => needs.scratch,
            _ => self.mark_last_uses(step, first_source),
        };
        self.made.steps.bytes.push(needs.bytes);
        self.made.steps.scratch.push(scratch);
    }

    /// The members of the step that ends with `last`, in an order in which they can run and few of
    /// their values are alive at once: the chain that a member goes on with comes before the cheap
    /// tasks that it needs besides.
    fn collect(&mut self, step: u32, last: u32) {
        self.members.clear();
        self.stack.push((last, false));
        while let Some((task, inputs_are_placed)) = self.stack.pop() {
            if inputs_are_placed {
                self.place[task as usize] = u32::try_from(self.members.len()).unwrap_or(NONE);
                self.members.push(task);
                continue;
            }
            if self.met[task as usize] == step {
                continue;
            }
            self.met[task as usize] = step;
            self.stack.push((task, true));
            // What is pushed last is placed first.
            for role in [Role::Inline, Role::Fused] {
                for &TaskId(input) in self.graph.inputs(TaskId(task)).iter().rev() {
                    if self.roles[input as usize] == role {
                        self.stack.push((input, false));
                    }
                }
            }
        }
        if planted(Bug::ChainReordered) && self.members.len() > 1 {
            self.members.swap(0, 1);
        }
    }

    fn source(&mut self, step: u32, input: u32) -> Source {
        match self.roles[input as usize] {
            Role::Literal | Role::Idle => Source::Literal(input),
            Role::Inline | Role::Fused => {
                Source::Member { place: self.place[input as usize], last: false }
            }
            Role::Last => {
                let from = self.step_of[input as usize];
                if self.met_step[from as usize] != step {
                    self.met_step[from as usize] = step;
                    let inputs = &mut self.made.steps.inputs;
                    let before = inputs.range(step).len();
                    self.place_step[from as usize] = u32::try_from(before).unwrap_or(NONE);
                    inputs.push(from);
                }
                Source::Input(self.place_step[from as usize])
            }
        }
    }

    /// Marks the last use of each member's value, and returns the most bytes that the step has at
    /// one moment besides its inputs and its result.
    fn mark_last_uses(&mut self, step: u32, first_source: usize) -> u64 {
        let mut used = vec![false; self.members.len()];
        for source in self.made.sources[first_source..].iter_mut().rev() {
            if let Source::Member { place, last } = source {
                *last = !std::mem::replace(&mut used[*place as usize], true);
            }
        }
        let needs = |place: usize| -> Needs { self.graph.needs()[self.members[place] as usize] };
        let (mut live, mut most) = (0_u64, 0_u64);
        let first_member = self.made.members.range(step).start;
        for place in 0..self.members.len() {
            let Needs { bytes, scratch, .. } = needs(place);
            let is_last = place + 1 == self.members.len();
            let kept = if is_last { 0 } else { bytes };
            most = most.max(live.saturating_add(kept).saturating_add(scratch));
            live = live.saturating_add(kept);
            for source in self.made.sources(first_member + place) {
                if let Source::Member { place, last: true } = source {
                    live -= needs(*place as usize).bytes;
                }
            }
        }
        most
    }
}
