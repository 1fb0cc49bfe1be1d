//! Threads that do what the scheduler says.
//!
//! ```text
//!            +--- lock: report what is done, take what is next ---+
//! worker:    |                                                    v
//!            +--- run steps, spill, load <--- batch of instructions
//! caller:    sink(output), then the same report; with one thread it works, too
//! ```
//!
//! A worker takes as many steps at once as it did lately in [`BATCH_TIME`], so that short tasks
//! share one lock and long ones are spread. What a batch did not begin in that time goes back.
//!
//! # Invariants
//!
//! 1. Values are dropped without the lock; with a budget nobody gets their memory before.
//! 2. After the first failure no step begins, and every thread ends.
//! 3. Nobody sleeps while there is an instruction that he could follow: who takes the state from
//!    "nothing to do" to "something to do" looks himself, and wakes one more if more is left.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use super::cache::Cache;
use super::graph::TaskId;
use super::key::Key;
use super::planted::{Bug, planted};
use super::progress::Counters;
use super::run::{Cancel, Report, RunError};
use super::scheduler::{Event, Instruction, Scheduler, TooLarge};
use super::spill::{Disk, Spilled};
use super::step::{Runner, Scratch};
use super::trace::{Recorder, Span, What};
use super::value::{TaskError, Value};
use crate::sync::process::{AtomicBool, Ordering};
use crate::sync::{Changed, Instant, Mutex, MutexGuard, thread};

/// How long a batch should take.
const BATCH_TIME: Duration = Duration::from_micros(100);
/// Most steps of one batch.
const BATCH_MAX: usize = 256;
/// Steps that touch more than this are not short.
const SHORT_BYTES: u64 = 64 << 10;
/// Values that are dropped under the lock, if there is a budget, are smaller than this together.
const DROPPED_BYTES_MAX: u64 = 64 << 10;

/// Small outputs of short steps wait for each other until there are so many.
const OUTPUTS_TOGETHER: usize = 64;
/// Outputs that are larger do not wait.
const SMALL_OUTPUT_BYTES: u64 = 4 << 10;

/// What the caller takes outputs with.
pub(super) type Sink<'a> = dyn FnMut(usize, Value) -> Result<(), TaskError> + 'a;

/// What the threads share.
struct Pool<'a, 'env> {
    runner: &'a Runner<'a, 'env>,
    outputs: &'a [TaskId],
    settings: &'a Settings<'a>,
    disk: Option<Disk>,
    state: Mutex<State<'a>>,
    work: Changed,
    delivery: Changed,
    /// Whether a task failed: who looks here need not take the lock.
    has_failed: AtomicBool,
}

/// What the lock guards.
struct State<'a> {
    scheduler: Scheduler<'a>,
    values: Vec<Option<Value>>,
    /// What was spilled, by step; empty without a disk.
    spilled: Vec<Option<Spilled>>,
    spilled_bytes: u64,
    /// Outputs that nobody took yet.
    finished: VecDeque<Output>,
    failed: Option<RunError>,
    /// Why the disk did not take a result, the first one.
    refused: Option<(Key, io::Error)>,
    sleeping: usize,
    report: Report,
}

/// A result that is wanted.
struct Output {
    place: usize,
    step: u32,
    value: Value,
}

/// What one thread does next.
enum Job {
    Run { step: u32, inputs: Range<usize> },
    Spill { step: u32, value: Value },
    Load { step: u32, from: Spilled },
}

/// What came of a job.
enum Done {
    Run { step: u32, value: Value },
    Returned { step: u32 },
    Spilled { step: u32, to: Spilled },
    Refused { step: u32, cause: io::Error },
    Loaded { step: u32, value: Value },
}

/// What one thread took, and what came of it.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    inputs: Vec<Value>,
    done: Vec<Done>,
    failed: Option<RunError>,
    garbage: Vec<Value>,
    /// Steps to take next time.
    size: usize,
}

/// Settings of a run that are not the scheduler's.
#[derive(Default)]
pub(super) struct Settings<'a> {
    pub(super) threads: usize,
    pub(super) is_limited: bool,
    pub(super) cancel: Option<&'a Cancel>,
    pub(super) cache: Option<&'a Cache>,
    pub(super) progress: Option<&'a Counters>,
    pub(super) recorder: Option<&'a Recorder>,
}

/// Runs all steps of `scheduler`; what it spills goes to `disk`.
pub(super) fn run<'a>(
    runner: &'a Runner<'a, '_>,
    outputs: &'a [TaskId],
    scheduler: Scheduler<'a>,
    disk: Option<Disk>,
    settings: &'a Settings<'a>,
    sink: &mut Sink<'_>,
) -> Result<Report, RunError> {
    let steps = runner.optimized.steps.len();
    let state = State {
        scheduler,
        values: vec![None; steps],
        spilled: vec![None; if disk.is_some() { steps } else { 0 }],
        spilled_bytes: 0,
        finished: VecDeque::new(),
        failed: None,
        refused: None,
        sleeping: 0,
        report: Report::default(),
    };
    let pool = Pool {
        runner,
        outputs,
        settings,
        disk,
        state: Mutex::new(state),
        work: Changed::default(),
        delivery: Changed::default(),
        has_failed: AtomicBool::new(false),
    };
    pool.run(sink)
}

impl<'a> Pool<'a, '_> {
    fn run(self, sink: &mut Sink<'_>) -> Result<Report, RunError> {
        if self.settings.threads <= 1 {
            self.work(0, Some(sink));
        } else {
            thread::scope(|scope| {
                for worker in 1..=self.settings.threads {
                    let pool = &self;
                    scope.spawn(move || pool.work(worker, None));
                }
                self.deliver(sink);
            });
        }
        let mut state = self.state.lock();
        self.show(&state);
        match state.failed.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.report)),
        }
    }

    /// Works until the run is over. With a sink it hands outputs over, too.
    fn work(&self, worker: usize, mut sink: Option<&mut Sink<'_>>) {
        let mut batch = Batch { size: 1, ..Batch::default() };
        let mut local = Local { worker, scratch: Scratch::default(), spans: Vec::new() };
        loop {
            let mut state = self.report(&mut batch);
            while batch.jobs.is_empty() {
                if let Some(sink) = &mut sink {
                    state = self.hand_over(state, *sink);
                }
                self.take(&mut state, &mut batch);
                if self.is_over(&mut state) {
                    drop(state);
                    self.work.tell();
                    self.delivery.tell();
                    return self.keep(local);
                }
                let has_output = sink.is_some() && !state.finished.is_empty();
                if batch.jobs.is_empty() && !has_output {
                    if !state.finished.is_empty() && !planted(Bug::DeliveryMissed) {
                        self.delivery.tell_one();
                    }
                    state.sleeping += 1;
                    state = self.work.wait(state);
                    state.sleeping -= 1;
                }
            }
            // Without this a chain of short steps wakes the caller for each of its outputs.
            let is_small = |output: &Output| output.value.bytes() <= SMALL_OUTPUT_BYTES;
            let may_wait = batch.size > 1
                && !self.settings.is_limited
                && state.finished.len() < OUTPUTS_TOGETHER
                && state.finished.back().is_some_and(is_small);
            self.wake(&state, !may_wait);
            drop(state);
            batch.garbage.clear();
            self.do_jobs(&mut batch, &mut local);
        }
    }

    /// Hands outputs over until the run is over.
    fn deliver(&self, sink: &mut Sink<'_>) {
        let mut state = self.state.lock();
        loop {
            state = self.hand_over(state, sink);
            if self.is_over(&mut state) {
                drop(state);
                return self.work.tell();
            }
            if state.finished.is_empty() {
                state = self.delivery.wait(state);
            }
        }
    }

    /// Hands over what is finished, without the lock, and takes the lock again.
    fn hand_over<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<'a>>,
        sink: &mut Sink<'_>,
    ) -> MutexGuard<'s, State<'a>> {
        while state.failed.is_none() && !state.finished.is_empty() {
            let at_once = if self.settings.is_limited { 1 } else { state.finished.len() };
            let outputs: Vec<Output> = state.finished.drain(..at_once).collect();
            drop(state);
            let mut taken = Vec::with_capacity(outputs.len());
            let mut failed = None;
            for Output { place, step, value } in outputs {
                let again = planted(Bug::OutputTwice).then(|| sink(place, value.clone()));
                let is_lost = planted(Bug::OutputLost) && place == 0;
                let sent = if is_lost { Ok(()) } else { sink(place, value) };
                if let Err(error) = again.unwrap_or(Ok(())).and(sent) {
                    let key = self.runner.graph.keys()[self.outputs[place].index()].clone();
                    failed = Some(RunError::Sink { key, cause: error.into_cause() });
                    break;
                }
                taken.push(step);
            }
            state = self.state.lock();
            taken.iter().for_each(|&step| state.scheduler.note(Event::Taken { step }));
            if let Some(error) = failed {
                state.failed.get_or_insert(error);
            }
            let garbage = state.collect();
            state = self.free(state, garbage);
            self.wake(&state, false);
        }
        state
    }

    /// Whether nothing is left to do, because all is done or something failed.
    fn is_over(&self, state: &mut State<'a>) -> bool {
        let is_cancelled = self.settings.cancel.is_some_and(Cancel::is_cancelled);
        if is_cancelled && !state.scheduler.is_over() && !planted(Bug::CancelIgnored) {
            state.failed.get_or_insert(RunError::Cancelled);
        }
        if let Some(TooLarge { step, needed }) = state.scheduler.stuck() {
            let (key, budget) = (self.key(step), state.scheduler.budget());
            let error = match state.refused.take() {
                Some((key, cause)) => RunError::Spill { key, cause },
                None => RunError::OverBudget { key, needed, budget },
            };
            state.failed.get_or_insert(error);
        }
        state.failed.is_some() || state.scheduler.is_over()
    }

    /// Wakes whoever could go on besides the one who holds the lock (invariant 3).
    fn wake(&self, state: &State<'a>, for_outputs: bool) {
        if for_outputs && !state.finished.is_empty() && !planted(Bug::DeliveryMissed) {
            self.delivery.tell_one();
        }
        if state.sleeping > 0 && state.scheduler.ready() > 0 && !planted(Bug::WakeMissed) {
            self.work.tell_one();
        }
    }

    /// Takes jobs, as many as will be done in a short time.
    fn take(&self, state: &mut State<'a>, batch: &mut Batch) {
        // Who failed may not have said why yet, and wakes all when he has.
        if state.failed.is_some() || self.shall_end() {
            return;
        }
        let share = state.scheduler.ready() / self.settings.threads.max(1);
        let wanted = batch.size.min(share.max(1));
        let steps = &self.runner.optimized.steps;
        while batch.jobs.len() < wanted {
            let instruction = state.scheduler.next();
            let freed = state.collect();
            state.freed(&freed);
            match instruction {
                // Results that lie on the disk already made room at once: ask again.
                None if !freed.is_empty() => {}
                None => break,
                Some(Instruction::Run(step)) => {
                    let start = batch.inputs.len();
                    let inputs = steps.inputs.of(step).iter();
                    batch.inputs.extend(inputs.filter_map(|&i| state.values[i as usize].clone()));
                    batch.jobs.push(Job::Run { step, inputs: start..batch.inputs.len() });
                    if steps.need(step) > SHORT_BYTES {
                        break;
                    }
                }
                Some(Instruction::Spill(step)) => {
                    let value = state.values[step as usize].clone();
                    batch.jobs.extend(value.map(|value| Job::Spill { step, value }));
                    break;
                }
                Some(Instruction::Load(step)) => {
                    let from = state.spilled[step as usize].clone();
                    batch.jobs.extend(from.map(|from| Job::Load { step, from }));
                    break;
                }
            }
        }
    }

    /// Does what was taken.
    fn do_jobs(&self, batch: &mut Batch, local: &mut Local) {
        let begin = Instant::now();
        let count = batch.jobs.len();
        let mut before = begin;
        for job in batch.jobs.drain(..) {
            let is_late = before - begin > 2 * BATCH_TIME;
            match job {
                Job::Run { step, .. } if is_late || self.shall_end() => {
                    batch.done.push(Done::Returned { step });
                    continue;
                }
                job => match self.do_job(job, &batch.inputs, &mut local.scratch) {
                    Ok(done) => batch.done.push(done),
                    Err(error) => {
                        self.has_failed.store(true, Ordering::Relaxed);
                        batch.failed = Some(error);
                    }
                },
            }
            if count > 1 || self.settings.recorder.is_some() || self.settings.cache.is_some() {
                let now = Instant::now();
                if let Some(done) = batch.done.last() {
                    self.remember(done, before, now, local);
                }
                before = now;
            }
        }
        batch.inputs.clear();
        let took = begin.elapsed();
        if took < BATCH_TIME / 2 && count == batch.size {
            batch.size = (2 * batch.size).min(BATCH_MAX);
        } else if took > BATCH_TIME {
            batch.size = (batch.size / 2).max(1);
        }
    }

    /// Whether no task may begin any more.
    fn shall_end(&self) -> bool {
        let is_cancelled = self.settings.cancel.is_some_and(Cancel::is_cancelled);
        is_cancelled && !planted(Bug::CancelIgnored)
            || self.has_failed.load(Ordering::Relaxed) && !planted(Bug::FailureIgnored)
    }

    fn do_job(&self, job: Job, inputs: &[Value], scratch: &mut Scratch) -> Result<Done, RunError> {
        match job {
            Job::Run { step, inputs: range } => {
                let value = self.runner.run(step, &inputs[range], scratch)?;
                Ok(Done::Run { step, value })
            }
            Job::Spill { step, value } => {
                let written = self.disk.as_ref().map(|disk| disk.write(&value));
                match written {
                    Some(Ok(to)) => Ok(Done::Spilled { step, to }),
                    Some(Err(cause)) => Ok(Done::Refused { step, cause }),
                    None => Err(RunError::Graph { why: "there is no disk".to_owned() }),
                }
            }
            Job::Load { step, from } => match from.read() {
                Ok(value) => Ok(Done::Loaded { step, value }),
                Err(error) => {
                    let cause = error.into_cause();
                    Err(RunError::Restore { key: self.key(step), cause })
                }
            },
        }
    }

    /// Notes times for the trace, and puts the result into the cache.
    fn remember(&self, done: &Done, begin: Instant, end: Instant, local: &mut Local) {
        let (step, what, bytes) = match done {
            Done::Run { step, value } => (*step, What::Run, value.bytes()),
            Done::Spilled { step, to } => (*step, What::Spill, to.bytes()),
            Done::Loaded { step, value } => (*step, What::Load, value.bytes()),
            Done::Returned { .. } | Done::Refused { .. } => return,
        };
        let task = self.runner.optimized.last(step);
        if let Some(recorder) = self.settings.recorder {
            recorder.note(&mut local.spans, Span::new(task, local.worker, what, bytes), begin, end);
        }
        if let (Some(cache), Done::Run { value, .. }) = (self.settings.cache, done)
            && let Some(key) = self.runner.graph.cache_key(TaskId(task))
        {
            cache.put(key, value.clone(), end - begin);
        }
    }

    /// Takes the lock and tells the scheduler what a batch did.
    fn report(&self, batch: &mut Batch) -> MutexGuard<'_, State<'a>> {
        let mut state = self.state.lock();
        for done in batch.done.drain(..) {
            self.note(&mut state, done);
        }
        if let Some(error) = batch.failed.take() {
            state.failed.get_or_insert(error);
        }
        let (live, reserved) = state.scheduler.memory();
        state.report.peak_bytes = state.report.peak_bytes.max(live);
        state.report.peak_with_scratch_bytes =
            state.report.peak_with_scratch_bytes.max(live.saturating_add(reserved));
        let garbage = state.collect();
        if self.settings.is_limited {
            state = self.free(state, garbage);
        } else {
            state.freed(&garbage);
            batch.garbage = garbage;
        }
        self.show(&state);
        state
    }

    fn note(&self, state: &mut State<'a>, done: Done) {
        match done {
            Done::Run { step, value } => {
                let bytes = value.bytes();
                let spillable = value.is_spillable();
                for &place in self.runner.optimized.steps.wanted.of(step) {
                    let place = place as usize;
                    state.finished.push_back(Output { place, step, value: value.clone() });
                }
                state.values[step as usize] = Some(value);
                state.scheduler.note(Event::Finished { step, bytes, spillable });
                state.report.steps += 1;
                state.report.tasks += self.runner.optimized.members.range(step).len() as u64;
                state.report.bytes_read += self.runner.bytes_read(step);
                state.report.bytes_written += self.runner.bytes_written(step);
            }
            Done::Returned { step } => state.scheduler.note(Event::Returned { step }),
            Done::Spilled { step, to } => {
                state.report.bytes_spilled += to.bytes();
                state.spilled_bytes += to.bytes();
                state.spilled[step as usize] = Some(to);
                state.scheduler.note(Event::Spilled { step });
            }
            Done::Refused { step, cause } => {
                state.report.spills_refused += 1;
                state.refused.get_or_insert_with(|| (self.key(step), cause));
                state.scheduler.note(Event::Refused { step });
            }
            Done::Loaded { step, value } => {
                state.report.bytes_loaded += value.bytes();
                state.values[step as usize] = Some(value);
                state.scheduler.note(Event::Loaded { step });
            }
        }
    }

    /// Drops results; large ones without the lock, so that others go on meanwhile.
    fn free<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<'a>>,
        garbage: Vec<Value>,
    ) -> MutexGuard<'s, State<'a>> {
        let bytes: u64 = garbage.iter().map(Value::bytes).sum();
        if bytes >= DROPPED_BYTES_MAX {
            drop(state);
            drop(garbage);
            state = self.state.lock();
        }
        state.scheduler.note(Event::Freed { bytes });
        state
    }

    /// Tells whoever looks on.
    fn show(&self, state: &State<'a>) {
        let (live, _) = state.scheduler.memory();
        if let Some(recorder) = self.settings.recorder {
            recorder.note_memory(live, state.spilled_bytes);
        }
        if let Some(counters) = self.settings.progress {
            counters.tasks_done.store(state.report.tasks, Ordering::Relaxed);
            counters.bytes_read.store(state.report.bytes_read, Ordering::Relaxed);
            counters.live_bytes.store(live, Ordering::Relaxed);
            counters.spilled_bytes.store(state.spilled_bytes, Ordering::Relaxed);
        }
    }

    fn key(&self, step: u32) -> Key {
        self.runner.graph.keys()[self.runner.optimized.last(step) as usize].clone()
    }

    /// Gives what a thread noted to the trace.
    fn keep(&self, local: Local) {
        if let Some(recorder) = self.settings.recorder {
            recorder.keep(local.spans);
        }
    }
}

impl State<'_> {
    /// Takes what nobody needs out of memory, and off the disk.
    fn collect(&mut self) -> Vec<Value> {
        while let Some(step) = self.scheduler.forgotten.pop() {
            if let Some(spilled) = self.spilled[step as usize].take() {
                self.spilled_bytes -= spilled.bytes();
            }
        }
        let mut garbage = Vec::with_capacity(self.scheduler.dropped.len());
        while let Some(step) = self.scheduler.dropped.pop() {
            garbage.extend(self.values[step as usize].take());
        }
        garbage
    }

    /// Says that the memory of these is free, which it will be before anybody could notice.
    fn freed(&mut self, garbage: &[Value]) {
        let bytes = garbage.iter().map(Value::bytes).sum();
        self.scheduler.note(Event::Freed { bytes });
    }
}

/// What a thread has for itself.
struct Local {
    worker: usize,
    scratch: Scratch,
    spans: Vec<Span>,
}

#[cfg(test)]
mod tests;
