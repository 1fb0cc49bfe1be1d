//! What shall happen next: events in, instructions out. No threads, no clock, no values.
//!
//! ```text
//! Finished, Taken, Freed, Spilled, Refused, Loaded, Returned --> Scheduler --> Run, Spill, Load
//!                                                                    '--> dropped, forgotten
//! ```
//!
//! # Admission
//!
//! The steps have an order, for which `profile` predicts the live bytes at every place. The *head*
//! is the first step that has not run. With a budget, a step begins if what it adds fits beside
//! what is alive and what running steps may still add, and:
//!
//! - it is the head, or
//! - without a place to spill to, its result leaves room for all steps before it, see [`Room`].
//!
//! So the head can always begin once nothing else runs, and no run gets stuck whose prediction
//! held. With a place to spill to, the head makes room: what is needed last leaves first. A result
//! that the disk does not take stays; then the next one is tried, and the run is stuck only when
//! nothing that it could wait for is left.
//!
//! # Invariants
//!
//! 1. A step runs once, after its inputs, and only while their results are in memory.
//! 2. A result is dropped when no step needs it and it was taken as often as it was wanted.
//! 3. `live + reserved <= budget` as long as no result is larger than was predicted.
//! 4. A result is spilled at most once: what lies on the disk already is only dropped.
//! 5. If nothing runs and nothing is awaited, there is an instruction, or the run is over or stuck.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::lists::Lists;
use super::optimize::Steps;
use super::order::profile;
use super::planted::{Bug, planted};
use super::room::Room;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A step ran; its result has so many bytes.
    Finished { step: u32, bytes: u64, spillable: bool },
    /// A step that was to run did not begin; it is to be run again.
    Returned { step: u32 },
    /// The result of a step was taken once by who wanted it.
    Taken { step: u32 },
    /// So many bytes of dropped results are free.
    Freed { bytes: u64 },
    /// The result of a step is on the disk.
    Spilled { step: u32 },
    /// The disk did not take the result of a step: it stays in memory, and is not tried again.
    Refused { step: u32 },
    /// The result of a step is in memory again.
    Loaded { step: u32 },
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Instruction {
    /// Run a step.
    Run(u32),
    /// Write the result of a step to the disk.
    Spill(u32),
    /// Read the result of a step from the disk.
    Load(u32),
}

/// A plan that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLarge {
    /// Where most is needed.
    pub(super) step: u32,
    /// Bytes that are needed there.
    pub(super) needed: u64,
}

/// How much memory there is, and whether there is a disk besides.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Limits {
    /// Bytes; without it there is no limit.
    pub(super) budget: Option<u64>,
    /// Whether results may be spilled.
    pub(super) spills: bool,
}

/// Where the result of a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Nowhere,
    Memory,
    /// In memory, and being written.
    Leaving,
    Disk,
    /// On the disk, and being read.
    Coming,
    Both,
}

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Running,
    Done,
}

/// The state of a run.
pub(super) struct Scheduler<'a> {
    steps: &'a Steps,
    order: &'a [u32],
    rank: Vec<u32>,
    // By rank, so the first dependent that is not done is the next use.
    dependents: Lists,
    stage: Vec<Stage>,
    /// Inputs that have not run.
    missing: Vec<u32>,
    /// Dependents that have not run, and times that it is still to be taken.
    uses: Vec<u32>,
    /// Ranks of steps without inputs, and how many of them were begun.
    leaves: (Vec<u32>, usize),
    ready: BinaryHeap<Reverse<u32>>,
    head: usize,
    left: usize,
    awaited: usize,
    live: u64,
    reserved: u64,
    freeing: u64,
    running: usize,
    limited: Option<Limited>,
    /// Results to drop from memory; whoever drops them says `Freed`.
    pub(super) dropped: Vec<u32>,
    /// Results to drop from the disk.
    pub(super) forgotten: Vec<u32>,
    stuck: Option<TooLarge>,
}

/// What a budget needs besides.
struct Limited {
    budget: u64,
    spills: bool,
    bytes: Vec<u64>,
    place: Vec<Place>,
    spillable: Vec<bool>,
    /// Running steps that use the result, and times that it waits to be taken.
    pins: Vec<u32>,
    next_use: Vec<u32>,
    /// Ranks of next uses, latest first; what is not true any more is passed over.
    by_next_use: BinaryHeap<(u32, u32)>,
    leaving: u64,
    transfers: usize,
    room: Option<Room>,
}

impl<'a> Scheduler<'a> {
    /// Begins a run in the given order.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the plan cannot be kept within the limits.
    pub(super) fn new(
        steps: &'a Steps,
        order: &'a [u32],
        limits: Limits,
    ) -> Result<Self, TooLarge> {
        let mut rank = vec![0; steps.len()];
        let mut leaves = Vec::new();
        for (place, &step) in (0..).zip(order) {
            rank[step as usize] = place;
            if steps.inputs.of(step).is_empty() {
                leaves.push(place);
            }
        }
        let dependents = steps.inputs.inverse(steps.len(), order.iter().copied());
        let count = |lists: &Lists, step| u32::try_from(lists.of(step).len()).unwrap_or(u32::MAX);
        let limited = match limits.budget {
            Some(budget) => Some(Limited::new(steps, order, budget, limits.spills)?),
            None => None,
        };
        Ok(Self {
            stage: vec![Stage::Waiting; steps.len()],
            missing: steps.all().map(|step| count(&steps.inputs, step)).collect(),
            uses: steps
                .all()
                .map(|step| count(&dependents, step) + count(&steps.wanted, step))
                .collect(),
            steps,
            order,
            rank,
            dependents,
            leaves: (leaves, 0),
            ready: BinaryHeap::new(),
            head: 0,
            left: steps.len(),
            awaited: 0,
            live: 0,
            reserved: 0,
            freeing: 0,
            running: 0,
            limited,
            dropped: Vec::new(),
            forgotten: Vec::new(),
            stuck: None,
        })
    }

    /// Takes note of what happened.
    ///
    /// # Panics
    ///
    /// If it cannot have happened.
    pub(super) fn note(&mut self, event: Event) {
        match event {
            Event::Finished { step, bytes, spillable } => self.finished(step, bytes, spillable),
            Event::Returned { step } => {
                self.stop_running(step);
                self.stage[step as usize] = Stage::Waiting;
                self.ready.push(Reverse(self.rank[step as usize]));
                self.leave_room(step, false);
            }
            Event::Taken { step } => {
                self.awaited -= 1;
                if let Some(limited) = &mut self.limited {
                    limited.pins[step as usize] -= 1;
                }
                self.used(step);
            }
            Event::Freed { bytes } => {
                self.live -= bytes;
                if self.limited.is_some() {
                    self.freeing -= bytes;
                }
            }
            Event::Spilled { step } => self.spilled(step),
            Event::Refused { step } => self.refused(step),
            Event::Loaded { step } => self.loaded(step),
        }
    }

    /// The next thing to do, if there is one now.
    pub(super) fn next(&mut self) -> Option<Instruction> {
        let rank = self.first_ready()?;
        let step = self.order[rank as usize];
        if self.limited.is_none() {
            return Some(self.begin(step));
        }
        self.next_within_budget(step)
    }

    /// Steps that could begin if there is memory.
    pub(super) fn ready(&self) -> usize {
        self.ready.len() + self.leaves.0.len() - self.leaves.1
    }

    /// Whether all has run and everything wanted was taken.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0 && self.awaited == 0
    }

    /// The step that does not fit although nothing else runs.
    pub(super) fn stuck(&self) -> Option<TooLarge> {
        self.stuck
    }

    /// Bytes that may be alive.
    pub(super) fn budget(&self) -> u64 {
        self.limited.as_ref().map_or(u64::MAX, |limited| limited.budget)
    }

    /// Bytes of results that are in memory, and those that running steps may add.
    pub(super) fn memory(&self) -> (u64, u64) {
        (self.live, self.reserved)
    }

    fn first_ready(&self) -> Option<u32> {
        let leaf = self.leaves.0.get(self.leaves.1).copied();
        let other = self.ready.peek().map(|&Reverse(rank)| rank);
        leaf.into_iter().chain(other).min()
    }

    fn next_within_budget(&mut self, step: u32) -> Option<Instruction> {
        let growth = self.steps.growth(step);
        let is_head = self.order.get(self.head) == Some(&step);
        let (mut absent, mut absent_bytes, mut coming) = (None, 0_u64, false);
        let limited = self.limited.as_mut()?;
        for &input in self.steps.inputs.of(step) {
            match limited.place[input as usize] {
                Place::Disk if !planted(Bug::NotRestored) => {
                    absent = Some(input);
                    absent_bytes += limited.bytes[input as usize];
                }
                Place::Coming => coming = true,
                _ => {}
            }
        }
        let need = growth.saturating_add(absent_bytes);
        let taken = self.live.saturating_add(self.reserved);
        let budget = limited.budget.saturating_add(u64::from(planted(Bug::BudgetByOne)));
        let missing = taken.saturating_add(need).saturating_sub(budget);
        if missing == 0 {
            if !is_head && !limited.leaves_room(self.steps, step, self.head, &self.rank) {
                return None;
            }
            if let Some(input) = absent {
                limited.place[input as usize] = Place::Coming;
                limited.transfers += 1;
                self.reserved += limited.bytes[input as usize];
                return Some(Instruction::Load(input));
            }
            return (!coming).then(|| self.begin(step));
        }
        if is_head { self.make_room(step, missing) } else { None }
    }

    /// Spills what is needed last, until `missing` bytes more are on their way out.
    fn make_room(&mut self, head: u32, missing: u64) -> Option<Instruction> {
        let limited = self.limited.as_mut()?;
        while limited.leaving + self.freeing < missing {
            let Some(victim) = limited.victim(self.steps, head, &self.dependents, &self.rank)
            else {
                break;
            };
            let at = victim as usize;
            if limited.place[at] == Place::Both && !planted(Bug::SpilledTwice) {
                limited.place[at] = Place::Disk;
                self.freeing += limited.bytes[at];
                self.dropped.push(victim);
            } else {
                limited.place[at] = Place::Leaving;
                limited.leaving += limited.bytes[at];
                limited.transfers += 1;
                return Some(Instruction::Spill(victim));
            }
        }
        let is_idle = self.running == 0 && self.awaited == 0 && self.freeing == 0;
        if is_idle && limited.transfers == 0 {
            let needed = limited.budget.saturating_add(missing);
            self.stuck = Some(TooLarge { step: head, needed });
        }
        None
    }

    fn begin(&mut self, step: u32) -> Instruction {
        let rank = self.rank[step as usize];
        if self.leaves.0.get(self.leaves.1) == Some(&rank) {
            self.leaves.1 += 1;
        } else if !planted(Bug::RunTwice) {
            self.ready.pop();
        }
        self.stage[step as usize] = Stage::Running;
        self.running += 1;
        self.reserved = self.reserved.saturating_add(self.steps.growth(step));
        self.leave_room(step, true);
        if let Some(limited) = &mut self.limited {
            let inputs = self.steps.inputs.of(step);
            inputs.iter().for_each(|&input| limited.pins[input as usize] += 1);
        }
        Instruction::Run(step)
    }

    fn stop_running(&mut self, step: u32) {
        assert_eq!(self.stage[step as usize], Stage::Running, "step {step} does not run");
        self.running -= 1;
        self.reserved = self.reserved.saturating_sub(self.steps.growth(step));
        if let Some(limited) = &mut self.limited {
            let inputs = self.steps.inputs.of(step);
            inputs.iter().for_each(|&input| limited.pins[input as usize] -= 1);
        }
    }

    /// Takes the result of `step` into account for the steps before it, or no more.
    fn leave_room(&mut self, step: u32, begins: bool) {
        // A result that only waits to be taken is gone before anybody could wait for its room.
        if self.dependents.of(step).is_empty() {
            return;
        }
        if let Some(Limited { room: Some(room), .. }) = &mut self.limited {
            let end = self.rank[step as usize] as usize;
            match begins {
                true => room.add(end, self.steps.bytes[step as usize]),
                false => room.subtract(end, self.steps.bytes[step as usize]),
            }
        }
    }

    fn finished(&mut self, step: u32, bytes: u64, spillable: bool) {
        self.stop_running(step);
        let at = step as usize;
        self.stage[at] = Stage::Done;
        self.left -= 1;
        if !planted(Bug::ResultUncounted) {
            self.live = self.live.saturating_add(bytes);
        }
        self.awaited += self.steps.wanted.of(step).len();
        while self.order.get(self.head).is_some_and(|&s| self.stage[s as usize] == Stage::Done) {
            self.head += 1;
        }
        if let Some(limited) = &mut self.limited {
            limited.bytes[at] = bytes;
            limited.place[at] = Place::Memory;
            limited.spillable[at] = spillable && limited.spills;
            limited.pins[at] += u32::try_from(self.steps.wanted.of(step).len()).unwrap_or(u32::MAX);
            limited.consider(step, &self.dependents, &self.rank);
        }
        for place in self.dependents.range(step) {
            let dependent = self.dependents.at(place) as usize;
            self.missing[dependent] -= 1;
            if self.missing[dependent] == u32::from(planted(Bug::InputMissing)) {
                self.ready.push(Reverse(self.rank[dependent]));
            }
        }
        if self.uses[at] == 0 {
            self.release(step);
        }
        for place in self.steps.inputs.range(step) {
            self.used(self.steps.inputs.at(place));
        }
    }

    /// One that needed the result of `step` needs it no more.
    fn used(&mut self, step: u32) {
        self.uses[step as usize] -= 1;
        if self.uses[step as usize] == u32::from(planted(Bug::ReleasedEarly)) {
            self.release(step);
        } else if let Some(limited) = &mut self.limited {
            limited.advance(step, &self.dependents, &self.stage);
            limited.consider(step, &self.dependents, &self.rank);
        }
    }

    /// Drops the result of `step` for ever.
    fn release(&mut self, step: u32) {
        if planted(Bug::NeverReleased) {
            return;
        }
        self.leave_room(step, false);
        let Some(limited) = &mut self.limited else { return self.dropped.push(step) };
        let place = &mut limited.place[step as usize];
        let (in_memory, on_disk) = match *place {
            // `spilled` drops it when it has been written.
            Place::Leaving => return,
            Place::Memory => (true, false),
            Place::Disk => (false, true),
            Place::Both => (true, true),
            Place::Nowhere | Place::Coming => (false, false),
        };
        *place = Place::Nowhere;
        if in_memory {
            self.freeing += limited.bytes[step as usize];
            self.dropped.push(step);
        }
        if on_disk && !planted(Bug::DiskKept) {
            self.forgotten.push(step);
        }
    }

    fn spilled(&mut self, step: u32) {
        let at = step as usize;
        let Some(limited) = &mut self.limited else { return };
        assert_eq!(limited.place[at], Place::Leaving, "step {step} was not being spilled");
        limited.transfers -= 1;
        limited.leaving -= limited.bytes[at];
        limited.place[at] = Place::Both;
        if self.uses[at] == 0 {
            self.release(step);
        } else if limited.pins[at] == 0 {
            limited.place[at] = Place::Disk;
            self.freeing += limited.bytes[at];
            self.dropped.push(step);
        } else {
            limited.consider(step, &self.dependents, &self.rank);
        }
    }

    fn refused(&mut self, step: u32) {
        let at = step as usize;
        if planted(Bug::RefusalMissed) {
            return self.spilled(step);
        }
        let Some(limited) = &mut self.limited else { return };
        assert_eq!(limited.place[at], Place::Leaving, "step {step} was not being spilled");
        limited.transfers -= 1;
        limited.leaving -= limited.bytes[at];
        limited.place[at] = Place::Memory;
        limited.spillable[at] = false;
        if self.uses[at] == 0 {
            self.release(step);
        }
    }

    fn loaded(&mut self, step: u32) {
        let at = step as usize;
        let Some(limited) = &mut self.limited else { return };
        assert_eq!(limited.place[at], Place::Coming, "step {step} was not being loaded");
        limited.transfers -= 1;
        limited.place[at] = Place::Both;
        self.reserved -= limited.bytes[at];
        self.live += limited.bytes[at];
        limited.consider(step, &self.dependents, &self.rank);
    }
}

impl Limited {
    fn new(steps: &Steps, order: &[u32], budget: u64, spills: bool) -> Result<Self, TooLarge> {
        let profile = profile(steps, order);
        let needs = order.iter().zip(&profile).map(|(&step, &live)| match spills {
            true => TooLarge { step, needed: steps.need(step) },
            false => TooLarge { step, needed: live },
        });
        if let Some(most) = needs.max_by_key(|place| place.needed)
            && most.needed > budget
        {
            return Err(most);
        }
        let total = steps.all().fold(0_u64, |sum, step| sum.saturating_add(steps.growth(step)));
        let room = (!spills && total > budget).then(|| Room::new(&profile));
        Ok(Self {
            budget,
            spills,
            bytes: vec![0; steps.len()],
            place: vec![Place::Nowhere; steps.len()],
            spillable: vec![false; steps.len()],
            pins: vec![0; steps.len()],
            next_use: vec![0; steps.len()],
            by_next_use: BinaryHeap::new(),
            leaving: 0,
            transfers: 0,
            room,
        })
    }

    /// Whether the result of `step` leaves room for all steps from the head on that come before it.
    fn leaves_room(&self, steps: &Steps, step: u32, head: usize, rank: &[u32]) -> bool {
        let Some(room) = self.room.as_ref().filter(|_| !planted(Bug::RoomIgnored)) else {
            return true;
        };
        let most = room.most(head..rank[step as usize] as usize);
        most.saturating_add(steps.bytes[step as usize]) <= self.budget
    }

    /// Moves the next use of `step` to the first dependent that has not run.
    fn advance(&mut self, step: u32, dependents: &Lists, stage: &[Stage]) {
        let next = &mut self.next_use[step as usize];
        let uses = dependents.of(step);
        while uses.get(*next as usize).is_some_and(|&user| stage[user as usize] == Stage::Done) {
            *next += 1;
        }
    }

    /// Takes the result of `step` among those that may be spilled.
    fn consider(&mut self, step: u32, dependents: &Lists, rank: &[u32]) {
        if self.spillable[step as usize]
            && let Some(next) = self.next_use_of(step, dependents, rank)
        {
            self.by_next_use.push((next, step));
        }
    }

    fn next_use_of(&self, step: u32, dependents: &Lists, rank: &[u32]) -> Option<u32> {
        let user = dependents.of(step).get(self.next_use[step as usize] as usize)?;
        Some(rank[*user as usize])
    }

    /// The result that is needed last, of those in memory that nobody uses now.
    fn victim(
        &mut self,
        steps: &Steps,
        head: u32,
        dependents: &Lists,
        rank: &[u32],
    ) -> Option<u32> {
        let mut pinned = Vec::new();
        let mut found = None;
        while let Some((next, step)) = self.by_next_use.pop() {
            let at = step as usize;
            let is_here = matches!(self.place[at], Place::Memory | Place::Both);
            let may_go = is_here && self.spillable[at];
            if !may_go || self.next_use_of(step, dependents, rank) != Some(next) {
                continue;
            }
            let is_pinned = self.pins[at] > 0 && !planted(Bug::PinnedSpilled);
            if is_pinned || steps.inputs.of(head).contains(&step) {
                pinned.push((next, step));
                continue;
            }
            found = Some(step);
            break;
        }
        self.by_next_use.extend(pinned);
        found
    }
}

#[cfg(test)]
pub(super) mod tests;
