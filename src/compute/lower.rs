//! From expressions to a graph of tasks.
//!
//! ```text
//! block of an expression  ->  one task: the expression over the block's region
//!                         ->  tasks before it: the blocks of sums and the like that it reads
//! ```
//!
//! Only what an output needs becomes a task. What is elementwise does not: it is computed inside
//! the task that needs it.
//!
//! # Invariants
//!
//! 1. Each block that tasks make becomes one task of a graph, however many need it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::evaluate::{
    Slots, Sources, boxes, each_combination, each_run, parts_met, projected, segments,
};
use super::graph::{Graph, TaskId};
use super::key::Family;
use super::node::{Blocked, Kind};
use super::recipe::{Argument, Input, Part, Recipe};
use super::region::Region;
use super::stored;
use super::trouble::ComputeError;
use super::value::{TaskError, Value};
use super::view::{Along, hull};

/// Makes tasks of expressions, each block once.
pub(crate) struct Lowering<'g, 'e> {
    graph: &'g mut Graph<'e>,
    done: HashMap<(usize, u64), TaskId>,
    families: HashMap<(usize, &'static str), (Arc<Family>, u64)>,
    // Keeps the expressions alive by whose addresses `done` knows them.
    known: Vec<Blocked<'e>>,
}

/// Blocks of expressions made by tasks: whose, and which.
type Needed<'e> = Vec<(Blocked<'e>, u64)>;

impl<'g, 'e> Lowering<'g, 'e> {
    pub(crate) fn new(graph: &'g mut Graph<'e>) -> Self {
        let (done, families, known) = (HashMap::new(), HashMap::new(), Vec::new());
        Self { graph, done, families, known }
    }

    /// The task that makes block `number` of `node`: its value is a [`Block`].
    pub(crate) fn block(
        &mut self,
        node: &Blocked<'e>,
        number: u64,
    ) -> Result<TaskId, ComputeError> {
        if matches!(node.0.kind, Kind::Tasks(_)) {
            return self.made(node, number);
        }
        let key = (node.identity(), number);
        if let Some(&task) = self.done.get(&key) {
            return Ok(task);
        }
        let grid = &node.0.grid;
        let region = grid.region(&grid.position(number));
        let bytes = (region.count() as u64).saturating_mul(node.number().itemsize() as u64);
        let name = name_of(node);
        let inputs = vec![Input::Part(node.clone(), region)];
        let recipe = Recipe::new(name, inputs, bytes, |arguments| match arguments {
            [argument] => argument.block(),
            _ => Err(ComputeError::Mistake("a block of more than one part")),
        });
        let mut missing = Vec::new();
        self.missing(node, number, &recipe, &mut missing)?;
        for (of, block) in missing {
            self.made(&of, block)?;
        }
        let task = self.recipe(node, recipe)?;
        self.done.insert(key, task);
        self.known.push(node.clone());
        Ok(task)
    }

    /// The task of a block of an expression that is made by tasks.
    fn made(&mut self, node: &Blocked<'e>, number: u64) -> Result<TaskId, ComputeError> {
        // What it needs comes first, without recursion: chains of blocks and of sums are long.
        let mut left = vec![(node.clone(), number)];
        while let Some((node, number)) = left.last().cloned() {
            let key = (node.identity(), number);
            if self.done.contains_key(&key) {
                left.pop();
                continue;
            }
            let Kind::Tasks(tasks) = &node.0.kind else {
                return Err(ComputeError::Mistake("an expression without tasks"));
            };
            let recipe = tasks(&node.0.grid.position(number))?;
            let before = left.len();
            self.missing(&node, number, &recipe, &mut left)?;
            if left.len() > before {
                continue;
            }
            let task = self.recipe(&node, recipe)?;
            self.done.insert(key, task);
            self.known.push(node);
            left.pop();
        }
        let made = self.done.get(&(node.identity(), number)).copied();
        made.ok_or(ComputeError::Mistake("a block without a task"))
    }

    /// Adds the blocks made by tasks that a recipe needs and that have none yet.
    fn missing(
        &self,
        node: &Blocked<'e>,
        number: u64,
        recipe: &Recipe<'e>,
        missing: &mut Needed<'e>,
    ) -> Result<(), ComputeError> {
        for input in &recipe.inputs {
            match input {
                Input::Part(part, region) => {
                    let mut needed = Vec::new();
                    needs(part, region, &mut needed)?;
                    let is_new = |(of, at): &(Blocked<'e>, u64)| {
                        !self.done.contains_key(&(of.identity(), *at))
                    };
                    missing.extend(needed.into_iter().filter(is_new));
                }
                Input::Task(before) => self.missing(node, number, before, missing)?,
                Input::Earlier(position) => {
                    let earlier = node.0.grid.number(position);
                    if earlier >= number {
                        return Err(ComputeError::Mistake("a block that needs a later one"));
                    }
                    if !self.done.contains_key(&(node.identity(), earlier)) {
                        missing.push((node.clone(), earlier));
                    }
                }
            }
        }
        Ok(())
    }

    /// A task of this recipe, of the array `owner`.
    fn recipe(&mut self, owner: &Blocked<'e>, recipe: Recipe<'e>) -> Result<TaskId, ComputeError> {
        let (mut ids, mut slots, mut places) = (Vec::new(), Slots::new(), Vec::new());
        let (mut parts, mut reads, mut known) = (Vec::new(), 0_u64, Vec::new());
        for input in recipe.inputs {
            match input {
                Input::Part(node, region) => {
                    let mut needed = Vec::new();
                    needs(&node, &region, &mut needed)?;
                    for (of, block) in needed {
                        let key = (of.identity(), block);
                        if let Entry::Vacant(slot) = slots.entry(key) {
                            slot.insert(ids.len());
                            ids.push(self.made(&of, block)?);
                        }
                    }
                    let own = stored::read_bytes(&node, &region, &mut known)?;
                    reads = reads.saturating_add(own);
                    places.push(Err(parts.len()));
                    parts.push((node, region));
                }
                Input::Task(before) => {
                    let task = self.recipe(owner, *before)?;
                    places.push(Ok(ids.len()));
                    ids.push(task);
                }
                Input::Earlier(position) => {
                    places.push(Ok(ids.len()));
                    ids.push(self.made(owner, owner.0.grid.number(&position))?);
                }
            }
        }
        let work = recipe.work;
        let key = self.key(owner, recipe.name);
        let run = move |values: &[Value]| -> Result<Value, TaskError> {
            let mut arguments = Vec::with_capacity(places.len());
            for place in &places {
                arguments.push(match *place {
                    Ok(at) => Argument::Value(&values[at]),
                    Err(at) => {
                        let (node, region) = &parts[at];
                        let sources = Sources::new(&slots, values, node, region);
                        Argument::Part(Part { node, region, sources })
                    }
                });
            }
            Ok(work(&arguments)?)
        };
        let task = self.graph.task(key, &ids, recipe.bytes, run);
        self.graph.scratch(task, recipe.scratch);
        self.graph.reads(task, reads);
        Ok(task)
    }

    /// The next name of a task of this kind: counted, so that no two are the same.
    fn key(&mut self, owner: &Blocked<'e>, name: &'static str) -> super::key::Key {
        let count = self.families.len();
        let new = || (Family::new(format!("{name} {count}"), &[0]), 0);
        let (family, used) = self.families.entry((owner.identity(), name)).or_insert_with(new);
        *used += 1;
        family.key(*used - 1)
    }
}

fn name_of(node: &Blocked<'_>) -> &'static str {
    match &node.0.kind {
        Kind::Map { operation, .. } => operation.name(),
        Kind::Stored(_) | Kind::Memory(_) => "read",
        Kind::View { .. } => "slice",
        Kind::Joined { .. } => "concatenate",
        Kind::Reshaped(_) => "reshape",
        Kind::Indexed(_) | Kind::Function(_) => "make",
        Kind::Tasks(_) => "block",
    }
}

/// The blocks that are made by tasks and read for `region` of `node`.
fn needs<'e>(
    node: &Blocked<'e>,
    region: &Region,
    needed: &mut Needed<'e>,
) -> Result<(), ComputeError> {
    if region.count() == 0 {
        return Ok(());
    }
    let mut blocks = |of: &Blocked<'e>, along: &[Along], region: &Region| {
        each_combination(&segments(of, along, region), |taken| {
            let position: Vec<u64> = taken.iter().map(|&(_, _, block)| block).collect();
            needed.push((of.clone(), of.0.grid.number(&position)));
            Ok(())
        })
    };
    match &node.0.kind {
        Kind::Tasks(_) => {
            let along: Vec<Along> = (0..node.ndim()).map(Along::same).collect();
            blocks(node, &along, region)
        }
        Kind::View { of, along } => match &of.0.kind {
            Kind::Tasks(_) => blocks(of, along, region),
            _ => needs(of, &hull(along, region), needed),
        },
        Kind::Map { operands, .. } => operands
            .iter()
            .try_for_each(|operand| needs(operand, &projected(operand, node, region), needed)),
        Kind::Joined { axis, parts } => parts_met(*axis, parts, region)
            .try_for_each(|(index, part)| needs(&parts[index].1, &part, needed)),
        Kind::Reshaped(of) => each_run(node.shape(), region, |first, count| {
            boxes(of.shape(), first, count).iter().try_for_each(|part| needs(of, part, needed))
        }),
        Kind::Stored(_) | Kind::Memory(_) | Kind::Indexed(_) | Kind::Function(_) => Ok(()),
    }
}
