//! In which order steps run, so that results die young. Pure.
//!
//! # Policy
//!
//! Several orders are made, each is played through with the predicted sizes, and the one with the
//! lowest peak of memory is taken; of equal ones the first.
//!
//! 1. *Depth first*: each output is finished before the next is begun. Of the inputs of a step the
//!    one that needs most beyond what it leaves comes first (Sethi and Ullman). Best for trees.
//! 2. *Nearest first*: of the steps that already have an input, the one that lacks fewest is
//!    completed next. Best where many outputs share inputs. There are four of them: of equally near
//!    steps the one touched first or last is taken, and a step that can run runs at once, or only
//!    if memory does not grow by it.
//! 3. *As built*: the order in which the graph was made.
//!
//! The first two begin with the outputs in the order in which they were built, then in the
//! opposite one, and with those together that share the input with the most users: of
//! `A.T.dot(B) - B.mean(axis=0)` these are the columns, whose means need not be kept then. Of more
//! than [`MANY_STEPS`] steps each kind is made once only.
//!
//! The second and third are not made if all results together are small, or if the first order is
//! at the bound that no order can beat, the largest need of one step.
//!
//! # Invariants
//!
//! 1. An order holds every step once, after its inputs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::lists::Lists;
use super::optimize::Steps;

/// Results that together are smaller than this are not worth a second thought.
const SMALL_BYTES: u64 = 16 << 20;
/// So many steps are not ordered in all ways.
const MANY_STEPS: usize = 200_000;

/// The order in which one thread should run `steps`.
pub(super) fn order(steps: &Steps) -> Vec<u32> {
    let depth_first = depth_first(steps, &roots(steps));
    let total = steps.all().fold(0_u64, |sum, step| sum.saturating_add(steps.growth(step)));
    if total <= SMALL_BYTES {
        return depth_first;
    }
    best(steps, depth_first)
}

/// The best of all, of which the first is made already.
fn best(steps: &Steps, first: Vec<u32>) -> Vec<u32> {
    let bound = steps.all().map(|step| steps.need(step)).max().unwrap_or(0);
    let first_peak = peak(steps, &first);
    if first_peak <= bound {
        return first;
    }
    let mut chosen = (first_peak, first);
    let mut consider = |order: Vec<u32>| {
        let other_peak = peak(steps, &order);
        if other_peak < chosen.0 {
            chosen = (other_peak, order);
        }
    };
    let plain = roots(steps);
    consider(steps.all().collect());
    if steps.len() > MANY_STEPS {
        consider(nearest_first(steps, &plain, Manner::ALL[0]));
        return chosen.1;
    }
    let backwards: Vec<u32> = plain.iter().rev().copied().collect();
    for roots in [&plain, &together(steps, &plain), &backwards] {
        consider(depth_first(steps, roots));
        for manner in Manner::ALL {
            consider(nearest_first(steps, roots, manner));
        }
    }
    chosen.1
}

/// Bytes that are alive while each step of `order` runs: results that are needed then or later, and
/// what the step itself needs. An output that no step needs is gone once it was handed over.
pub(super) fn profile(steps: &Steps, order: &[u32]) -> Vec<u64> {
    let mut uses = vec![0_u32; steps.len()];
    for step in steps.all() {
        steps.inputs.of(step).iter().for_each(|&input| uses[input as usize] += 1);
    }
    let mut live = 0_u64;
    let mut at_step = Vec::with_capacity(order.len());
    for &step in order {
        at_step.push(live.saturating_add(steps.growth(step)));
        live = live.saturating_add(steps.bytes[step as usize]);
        let mut release = |step: u32| live = live.saturating_sub(steps.bytes[step as usize]);
        for &input in steps.inputs.of(step) {
            uses[input as usize] -= 1;
            if uses[input as usize] == 0 {
                release(input);
            }
        }
        if uses[step as usize] == 0 {
            release(step);
        }
    }
    at_step
}

fn peak(steps: &Steps, order: &[u32]) -> u64 {
    profile(steps, order).into_iter().max().unwrap_or(0)
}

/// Bytes that each step takes with all that stands below it, if nothing is shared, and for each
/// step its inputs with the most demanding first.
fn demands(steps: &Steps) -> (Vec<u64>, Lists) {
    let mut demand = vec![0_u64; steps.len()];
    let mut sorted = Lists::with_room(steps.len(), steps.inputs.items());
    let mut inputs: Vec<u32> = Vec::new();
    for step in steps.all() {
        inputs.clear();
        inputs.extend_from_slice(steps.inputs.of(step));
        let bytes = |input: u32| steps.bytes[input as usize];
        if inputs.len() > 1 {
            let beyond = |input: u32| demand[input as usize].saturating_sub(bytes(input));
            inputs.sort_by_key(|&input| (Reverse(beyond(input)), input));
        }
        let (mut kept, mut most) = (0_u64, 0_u64);
        for &input in &inputs {
            most = most.max(demand[input as usize].saturating_add(kept));
            kept = kept.saturating_add(bytes(input));
            sorted.push(input);
        }
        sorted.close();
        demand[step as usize] = most.max(kept.saturating_add(steps.growth(step)));
    }
    (demand, sorted)
}

/// The outputs, in the order in which they were built.
fn roots(steps: &Steps) -> Vec<u32> {
    steps.all().filter(|&step| !steps.wanted.of(step).is_empty()).collect()
}

/// The same, with those together that share the input with the most users.
fn together(steps: &Steps, roots: &[u32]) -> Vec<u32> {
    let mut users = vec![0_u32; steps.len()];
    for step in steps.all() {
        steps.inputs.of(step).iter().for_each(|&input| users[input as usize] += 1);
    }
    let shared = |root: u32| {
        let inputs = steps.inputs.of(root).iter().copied();
        inputs.max_by_key(|&input| users[input as usize]).unwrap_or(root)
    };
    let mut sorted = roots.to_vec();
    sorted.sort_by_key(|&root| (shared(root), root));
    sorted
}

fn depth_first(steps: &Steps, roots: &[u32]) -> Vec<u32> {
    let (_, sorted) = demands(steps);
    let mut order = Vec::with_capacity(steps.len());
    let mut placed = vec![false; steps.len()];
    let mut stack = Vec::new();
    for &root in roots {
        descend(&sorted, root, &mut placed, &mut stack, &mut order);
    }
    order
}

/// Appends `root` and what stands below it, inputs first.
fn descend(
    sorted: &Lists,
    root: u32,
    placed: &mut [bool],
    stack: &mut Vec<(u32, u32)>,
    order: &mut Vec<u32>,
) {
    if placed[root as usize] {
        return;
    }
    stack.push((root, 0));
    while let Some((step, next)) = stack.last_mut() {
        if let Some(&input) = sorted.of(*step).get(*next as usize) {
            *next += 1;
            if !placed[input as usize] {
                stack.push((input, 0));
            }
        } else {
            placed[*step as usize] = true;
            order.push(*step);
            stack.pop();
        }
    }
}

/// How to choose among equals in the second order.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Whether what can run runs at once, even if memory grows by it.
    is_eager: bool,
    /// Whether of equally near steps the one touched last is completed, instead of first.
    prefers_latest: bool,
}

impl Manner {
    const ALL: [Self; 4] = [
        Self { is_eager: true, prefers_latest: false },
        Self { is_eager: true, prefers_latest: true },
        Self { is_eager: false, prefers_latest: false },
        Self { is_eager: false, prefers_latest: true },
    ];
}

fn nearest_first(steps: &Steps, roots: &[u32], manner: Manner) -> Vec<u32> {
    let (_, sorted) = demands(steps);
    let mut walk = Walk {
        steps,
        manner,
        dependents: steps.inputs.inverse(steps.len(), steps.all()),
        sorted: &sorted,
        missing: steps.all().map(|step| steps.inputs.of(step).len()).collect(),
        uses: vec![0; steps.len()],
        placed: vec![false; steps.len()],
        ready: Vec::new(),
        begun: BinaryHeap::new(),
        clock: 0,
        order: Vec::with_capacity(steps.len()),
    };
    for step in steps.all() {
        walk.uses[step as usize] = walk.dependents.of(step).len();
    }
    for &root in roots {
        while !walk.placed[root as usize] {
            walk.advance(root);
        }
    }
    walk.order
}

/// The second order while it is made.
struct Walk<'a> {
    steps: &'a Steps,
    manner: Manner,
    dependents: Lists,
    sorted: &'a Lists,
    missing: Vec<usize>,
    uses: Vec<usize>,
    placed: Vec<bool>,
    ready: Vec<u32>,
    /// Steps with some of their inputs: what they lack, at least 1, when they were touched, number.
    begun: BinaryHeap<Reverse<(usize, u32, u32)>>,
    clock: u32,
    order: Vec<u32>,
}

impl Walk<'_> {
    /// Places one step: one that is ready, else a leaf below the nearest begun one, else a leaf
    /// below `root`.
    fn advance(&mut self, root: u32) {
        while let Some(step) = self.ready.pop() {
            if !self.placed[step as usize] {
                return self.place(step);
            }
        }
        let mut target = root;
        while let Some(Reverse((missing, _, step))) = self.begun.peek().copied() {
            if !self.placed[step as usize] && self.missing[step as usize].max(1) == missing {
                target = step;
                break;
            }
            self.begun.pop();
        }
        while let Some(&input) =
            self.sorted.of(target).iter().find(|&&input| !self.placed[input as usize])
        {
            target = input;
        }
        self.place(target);
    }

    fn place(&mut self, step: u32) {
        self.placed[step as usize] = true;
        self.order.push(step);
        self.clock += 1;
        for &input in self.steps.inputs.of(step) {
            self.uses[input as usize] -= 1;
        }
        let touched = if self.manner.prefers_latest { u32::MAX - self.clock } else { self.clock };
        let first = self.ready.len();
        for at in self.dependents.range(step) {
            let dependent = self.dependents.at(at);
            self.missing[dependent as usize] -= 1;
            let missing = self.missing[dependent as usize];
            if missing == 0 && (self.manner.is_eager || self.gain(dependent) >= 0) {
                self.ready.push(dependent);
            } else {
                self.begun.push(Reverse((missing.max(1), touched, dependent)));
            }
        }
        // The one that frees most runs first, so it lies on top.
        let mut ready = self.ready.split_off(first);
        ready.sort_by_key(|&step| (self.gain(step), Reverse(step)));
        self.ready.append(&mut ready);
    }

    /// Bytes by which memory shrinks when `step` has run.
    fn gain(&self, step: u32) -> i128 {
        let freed = self.steps.inputs.of(step).iter().filter(|&&i| self.uses[i as usize] == 1);
        let freed: i128 = freed.map(|&input| i128::from(self.steps.bytes[input as usize])).sum();
        freed - i128::from(self.steps.bytes[step as usize])
    }
}

#[cfg(test)]
mod tests;
