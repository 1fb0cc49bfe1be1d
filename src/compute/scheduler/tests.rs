//! The scheduler against a model: any graph, any order of events, invariants after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::compute::order::order;
use crate::compute::planted::{Bug, plant};

/// Steps with these inputs, sizes and scratch; those that nobody needs are wanted, and some others.
pub(in crate::compute) fn steps_of(
    inputs: &[Vec<u32>],
    bytes: &[u64],
    scratch: &[u64],
    wanted: &[bool],
) -> Steps {
    let mut steps = Steps::default();
    let mut is_needed = vec![false; inputs.len()];
    for inputs in inputs {
        for &input in inputs {
            steps.inputs.push(input);
            is_needed[input as usize] = true;
        }
        steps.inputs.close();
    }
    let mut places = Lists::default();
    for (step, is_needed) in (0..).zip(is_needed) {
        if !is_needed || wanted[step as usize] {
            places.push(step);
            places.close();
        }
    }
    let count = u32::try_from(places.len()).unwrap();
    steps.wanted = places.inverse(inputs.len(), 0..count);
    steps.bytes = bytes.to_vec();
    steps.scratch = scratch.to_vec();
    steps
}

/// Any steps: up to `max` of them, each with up to four inputs among the ones before it.
pub(in crate::compute) fn any_steps(max: usize) -> impl Strategy<Value = Steps> {
    let step = (prop::collection::vec(any::<prop::sample::Index>(), 0..4), 0_u64..20, 0_u64..10);
    prop::collection::vec((step, prop::bool::weighted(0.1)), 1..max).prop_map(|list| {
        let mut inputs = Vec::new();
        for (number, ((wishes, _, _), _)) in list.iter().enumerate() {
            let chosen: BTreeSet<u32> = wishes
                .iter()
                .filter(|_| number > 0)
                .map(|wish| u32::try_from(wish.index(number)).unwrap())
                .collect();
            inputs.push(chosen.into_iter().collect());
        }
        let bytes: Vec<u64> = list.iter().map(|((_, bytes, _), _)| *bytes).collect();
        let scratch: Vec<u64> = list.iter().map(|((_, _, scratch), _)| *scratch).collect();
        let wanted: Vec<bool> = list.iter().map(|(_, wanted)| *wanted).collect();
        steps_of(&inputs, &bytes, &scratch, &wanted)
    })
}

/// Where results really are, and what was said to be under way.
struct World<'a> {
    scheduler: Scheduler<'a>,
    steps: &'a Steps,
    budget: u64,
    memory: BTreeMap<u32, u64>,
    disk: BTreeSet<u32>,
    written: BTreeSet<u32>,
    jobs: Vec<Instruction>,
    to_take: Vec<u32>,
    to_free: Vec<u64>,
    done: BTreeSet<u32>,
    most_at_once: usize,
    /// Whether a step that was begun comes back now and then.
    gives_back: bool,
    /// Whether the disk refuses a result now and then.
    refuses: bool,
    is_stuck: bool,
}

impl World<'_> {
    /// Follows instructions and lets `dice` choose what happens next, until nothing is left.
    fn play(&mut self, threads: usize, dice: &mut impl FnMut(usize) -> usize) {
        while !self.scheduler.is_over() {
            while self.jobs.len() < threads {
                let Some(job) = self.scheduler.next() else { break };
                self.accept(job);
                self.check();
            }
            self.collect();
            self.most_at_once = self.most_at_once.max(self.jobs.len());
            let choices = self.jobs.len() + self.to_take.len() + self.to_free.len();
            if choices == 0 && self.refuses && self.scheduler.stuck().is_some() {
                self.is_stuck = true;
                return;
            }
            assert!(choices > 0, "nothing happens: {:?}", self.scheduler.stuck());
            self.happen(dice(choices), dice);
            self.collect();
            self.check();
        }
        // What was being written when the last result was taken is written to its end.
        while !self.jobs.is_empty() {
            self.happen(0, dice);
            self.check();
        }
        assert_eq!(self.done.len(), self.steps.len(), "every step ran");
        self.to_free.drain(..).for_each(|bytes| self.scheduler.note(Event::Freed { bytes }));
        assert_eq!(self.scheduler.memory(), (0, 0), "nothing is left in memory");
        assert_eq!((self.memory.len(), self.disk.len()), (0, 0));
    }

    fn accept(&mut self, job: Instruction) {
        match job {
            Instruction::Run(step) => {
                assert!(!self.done.contains(&step));
                for input in self.steps.inputs.of(step) {
                    assert!(self.memory.contains_key(input), "{step} runs without {input}");
                }
            }
            Instruction::Spill(step) => {
                assert!(self.memory.contains_key(&step));
                assert!(self.written.insert(step), "{step} is written twice");
            }
            Instruction::Load(step) => {
                assert!(self.disk.contains(&step) && !self.memory.contains_key(&step));
            }
        }
        self.jobs.push(job);
    }

    fn happen(&mut self, choice: usize, dice: &mut impl FnMut(usize) -> usize) {
        if choice < self.jobs.len() {
            match self.jobs.swap_remove(choice) {
                Instruction::Run(step) if self.gives_back && dice(4) == 0 => {
                    self.scheduler.note(Event::Returned { step });
                }
                Instruction::Run(step) => {
                    // Predictions are upper bounds.
                    let predicted = self.steps.bytes[step as usize];
                    let bytes = predicted - predicted.min(dice(3) as u64);
                    self.memory.insert(step, bytes);
                    self.done.insert(step);
                    self.to_take.extend(self.steps.wanted.of(step).iter().map(|_| step));
                    self.scheduler.note(Event::Finished { step, bytes, spillable: true });
                }
                Instruction::Spill(step) if self.refuses && dice(4) == 0 => {
                    self.scheduler.note(Event::Refused { step });
                }
                Instruction::Spill(step) => {
                    self.disk.insert(step);
                    self.scheduler.note(Event::Spilled { step });
                }
                Instruction::Load(step) => {
                    self.memory.insert(
                        step,
                        self.scheduler.limited.as_ref().unwrap().bytes[step as usize],
                    );
                    self.scheduler.note(Event::Loaded { step });
                }
            }
        } else if choice - self.jobs.len() < self.to_take.len() {
            let step = self.to_take.swap_remove(choice - self.jobs.len());
            self.scheduler.note(Event::Taken { step });
        } else {
            let bytes = self.to_free.pop().unwrap();
            self.scheduler.note(Event::Freed { bytes });
        }
    }

    fn collect(&mut self) {
        for step in std::mem::take(&mut self.scheduler.dropped) {
            let bytes = self.memory.remove(&step);
            self.to_free.push(bytes.unwrap_or_else(|| panic!("{step} is dropped twice")));
        }
        for step in std::mem::take(&mut self.scheduler.forgotten) {
            assert!(self.disk.remove(&step), "{step} was not on the disk");
        }
    }

    /// What must hold after every event and every instruction.
    fn check(&mut self) {
        self.collect();
        let scheduler = &self.scheduler;
        let freeing: u64 = self.to_free.iter().sum();
        let in_memory: u64 = self.memory.values().sum();
        let (live, reserved) = scheduler.memory();
        assert_eq!(live, in_memory + freeing, "live bytes are those in memory");
        let expected: u64 = self.jobs.iter().map(|&job| self.reservation(job)).sum();
        assert_eq!(reserved, expected, "reserved bytes are those of running steps");
        assert!(live + reserved <= self.budget, "{live} + {reserved} over {}", self.budget);
        for job in &self.jobs {
            if let Instruction::Run(step) = job {
                let inputs = self.steps.inputs.of(*step);
                let is_there = inputs.iter().all(|input| self.memory.contains_key(input));
                assert!(is_there, "an input of {step} leaves while it runs");
            }
        }
        let head = scheduler.order.iter().position(|step| !self.done.contains(step));
        assert_eq!(scheduler.head, head.unwrap_or(scheduler.order.len()));
        for step in self.steps.all() {
            let at = step as usize;
            let is_done = self.done.contains(&step);
            let waits = self.steps.inputs.of(step).iter().filter(|i| !self.done.contains(i));
            assert_eq!(scheduler.missing[at] as usize, waits.count());
            let users = scheduler.dependents.of(step).iter().filter(|&d| !self.done.contains(d));
            let takers = match is_done {
                true => self.to_take.iter().filter(|&&taken| taken == step).count(),
                false => self.steps.wanted.of(step).len(),
            };
            let uses = users.count() + takers;
            assert_eq!(scheduler.uses[at] as usize, uses, "uses of {step}");
            let is_kept = self.memory.contains_key(&step) || self.disk.contains(&step);
            let is_moving = self.jobs.contains(&Instruction::Spill(step));
            assert_eq!(is_kept, is_done && (uses > 0 || is_moving), "{step} is kept while needed");
        }
    }

    fn reservation(&self, job: Instruction) -> u64 {
        match job {
            Instruction::Run(step) => self.steps.growth(step),
            Instruction::Spill(_) => 0,
            Instruction::Load(step) => {
                self.scheduler.limited.as_ref().map_or(0, |limited| limited.bytes[step as usize])
            }
        }
    }
}

/// Plays one run; returns how many jobs there were at once.
fn play(steps: &Steps, limits: Limits, threads: usize, seed: u64) -> Result<usize, TooLarge> {
    let world = played(steps, limits, threads, seed, false)?;
    Ok(world.most_at_once)
}

/// Plays one run, on a disk that refuses results or on one that takes all of them.
fn played(
    steps: &Steps,
    limits: Limits,
    threads: usize,
    seed: u64,
    refuses: bool,
) -> Result<Played, TooLarge> {
    let order = order(steps);
    let mut world = World {
        scheduler: Scheduler::new(steps, &order, limits)?,
        steps,
        budget: limits.budget.unwrap_or(u64::MAX),
        memory: BTreeMap::new(),
        disk: BTreeSet::new(),
        written: BTreeSet::new(),
        jobs: Vec::new(),
        to_take: Vec::new(),
        to_free: Vec::new(),
        done: BTreeSet::new(),
        most_at_once: 0,
        gives_back: seed % 2 == 1,
        refuses,
        is_stuck: false,
    };
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    world.play(threads, &mut |choices| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % choices as u64).unwrap()
    });
    Ok(Played { most_at_once: world.most_at_once, is_stuck: world.is_stuck })
}

/// What came of a run.
struct Played {
    most_at_once: usize,
    is_stuck: bool,
}

fn peak(steps: &Steps) -> u64 {
    profile(steps, &order(steps)).into_iter().max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn every_step_runs_once_with_its_inputs_in_memory(
        steps in any_steps(40), threads in 1_usize..5, seed in 1_u64..,
    ) {
        prop_assert!(play(&steps, Limits::default(), threads, seed).is_ok());
    }

    #[test]
    fn a_budget_of_the_predicted_peak_is_kept_and_never_gets_stuck(
        steps in any_steps(40), threads in 1_usize..5, seed in 1_u64.., more in 0_u64..30,
    ) {
        let budget = Some(peak(&steps) + more);
        let limits = Limits { budget, spills: false };
        prop_assert!(play(&steps, limits, threads, seed).is_ok());
    }

    #[test]
    fn a_budget_below_the_predicted_peak_is_refused_with_the_number_it_needs(
        steps in any_steps(40), less in 1_u64..30,
    ) {
        let peak = peak(&steps);
        if let Some(budget) = peak.checked_sub(less) {
            let limits = Limits { budget: Some(budget), spills: false };
            let refused = Scheduler::new(&steps, &order(&steps), limits).err().unwrap();
            prop_assert_eq!(refused.needed, peak);
            let limits = Limits { budget: Some(refused.needed), spills: false };
            prop_assert!(play(&steps, limits, 2, less).is_ok());
        }
    }

    #[test]
    fn with_a_disk_the_largest_need_of_one_step_is_enough(
        steps in any_steps(40), threads in 1_usize..5, seed in 1_u64.., more in 0_u64..30,
    ) {
        let need = steps.all().map(|step| steps.need(step)).max().unwrap_or(0);
        let limits = |budget| Limits { budget: Some(budget), spills: true };
        prop_assert!(play(&steps, limits(need + more), threads, seed).is_ok());
        if need > 0 {
            let refused = Scheduler::new(&steps, &order(&steps), limits(need - 1)).err().unwrap();
            prop_assert_eq!(refused.needed, need);
        }
    }
}

#[test]
fn a_disk_that_refuses_results_leaves_them_in_memory_and_takes_no_other_step_with_it() {
    let mut runner = TestRunner::deterministic();
    let (mut ended, mut stuck) = (0, 0);
    for seed in 1_usize..200 {
        let steps = any_steps(40).new_tree(&mut runner).unwrap().current();
        let need = steps.all().map(|step| steps.need(step)).max().unwrap_or(0);
        let limits = Limits { budget: Some(need + seed as u64 % 30), spills: true };
        let played = played(&steps, limits, 1 + seed % 4, seed as u64, true).unwrap();
        *(if played.is_stuck { &mut stuck } else { &mut ended }) += 1;
    }
    assert!(ended > 20 && stuck > 20, "{ended} ended, {stuck} got stuck");
}

/// Plays runs of all sorts; whether the model found something wrong in one of them.
fn finds_fault(bug: Option<Bug>) -> bool {
    let mut runner = TestRunner::deterministic();
    (1_usize..300).any(|seed| {
        let steps = any_steps(30).new_tree(&mut runner).unwrap().current();
        let need = steps.all().map(|step| steps.need(step)).max().unwrap_or(0);
        let spills = seed.is_multiple_of(2);
        let budget = if spills { need } else { peak(&steps) };
        let limits = Limits { budget: Some(budget + seed as u64 % 3), spills };
        plant(bug);
        let refuses = seed.is_multiple_of(4);
        let run = || played(&steps, limits, 1 + seed % 4, seed as u64, refuses);
        let result = catch_unwind(AssertUnwindSafe(run));
        plant(None);
        result.is_err()
    })
}

#[test]
fn the_model_finds_every_bug_that_is_planted_and_none_without() {
    assert!(!finds_fault(None));
    for bug in Bug::OF_SCHEDULER {
        assert!(finds_fault(Some(bug)), "{bug:?} is not found");
    }
}

#[test]
fn threads_work_at_once_when_there_is_memory_for_it() {
    let inputs: Vec<Vec<u32>> = (0..20).map(|_| Vec::new()).collect();
    let steps = steps_of(&inputs, &[10; 20], &[0; 20], &[false; 20]);
    let at_once = |budget| play(&steps, Limits { budget, spills: false }, 4, 2).unwrap();
    assert_eq!([None, Some(40), Some(10)].map(at_once), [4, 4, 1]);
}

#[test]
fn a_result_larger_than_predicted_ends_the_run_instead_of_the_budget() {
    let steps = steps_of(&[vec![], vec![0], vec![1]], &[10; 3], &[0; 3], &[false; 3]);
    let order = order(&steps);
    let limits = Limits { budget: Some(20), spills: false };
    let mut scheduler = Scheduler::new(&steps, &order, limits).unwrap();
    assert_eq!(scheduler.next(), Some(Instruction::Run(0)));
    scheduler.note(Event::Finished { step: 0, bytes: 15, spillable: true });
    assert_eq!(scheduler.next(), None);
    assert_eq!(scheduler.stuck(), Some(TooLarge { step: 1, needed: 25 }));
}

#[test]
fn what_is_needed_last_is_spilled_first() {
    // Three results of 10, then users of the first, the second and the third.
    let inputs = [vec![], vec![], vec![], vec![0, 1, 2], vec![3, 0], vec![4, 1], vec![5, 2]];
    let steps = steps_of(&inputs, &[10; 7], &[0, 0, 0, 0, 20, 0, 0], &[false; 7]);
    let order: Vec<u32> = (0..7).collect();
    let limits = Limits { budget: Some(50), spills: true };
    let mut scheduler = Scheduler::new(&steps, &order, limits).unwrap();
    for step in 0..4 {
        assert_eq!(scheduler.next(), Some(Instruction::Run(step)));
        scheduler.note(Event::Finished { step, bytes: 10, spillable: true });
    }
    // Step 4 needs 30 more beside 40.
    assert_eq!(scheduler.next(), Some(Instruction::Spill(2)));
    scheduler.note(Event::Spilled { step: 2 });
    assert_eq!(scheduler.next(), Some(Instruction::Spill(1)));
}
