//! What happened when, and how much memory was alive: noted while a run goes on.
//!
//! # Invariants
//!
//! 1. A trace holds at most [`SPANS_MAX`] spans of each thread and as many moments of memory; it
//!    says how many it left out.

use crate::sync::{Instant, Mutex};

/// Most spans that one thread keeps, and most moments of memory.
const SPANS_MAX: usize = 1 << 18;

/// What a thread did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Ran tasks.
    Run,
    /// Wrote a result to the disk.
    Spill,
    /// Read a result from the disk.
    Load,
}

/// One thing that a thread did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The number of the task, the last one of a step.
    pub task: u32,
    /// The number of the thread.
    pub thread: usize,
    /// What it did.
    pub what: What,
    /// Bytes of the result.
    pub bytes: u64,
    /// Nanoseconds from the beginning of the run.
    pub begin_ns: u64,
    /// Nanoseconds from the beginning of the run.
    pub end_ns: u64,
}

impl Span {
    pub(super) fn new(task: u32, thread: usize, what: What, bytes: u64) -> Self {
        Self { task, thread, what, bytes, begin_ns: 0, end_ns: 0 }
    }
}

/// Memory at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryMoment {
    /// Nanoseconds from the beginning of the run.
    pub at_ns: u64,
    /// Bytes of results in memory.
    pub live_bytes: u64,
    /// Bytes of results on the disk.
    pub spilled_bytes: u64,
}

/// All that was noted of a run.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Trace {
    /// By begin.
    pub spans: Vec<Span>,
    /// By time.
    pub memory: Vec<MemoryMoment>,
    /// Spans and moments that were too many to keep.
    pub left_out: u64,
    /// Nanoseconds from beginning to end.
    pub end_ns: u64,
}

/// Gathers what threads note.
pub(super) struct Recorder {
    begin: Instant,
    trace: Mutex<Trace>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), trace: Mutex::new(Trace::default()) }
    }

    /// Adds a span to what a thread noted for itself.
    pub(super) fn note(&self, spans: &mut Vec<Span>, span: Span, begin: Instant, end: Instant) {
        if spans.len() < SPANS_MAX {
            let since = |moment: Instant| nanoseconds(moment.duration_since(self.begin));
            spans.push(Span { begin_ns: since(begin), end_ns: since(end), ..span });
        } else {
            self.trace.lock().left_out += 1;
        }
    }

    pub(super) fn note_memory(&self, live_bytes: u64, spilled_bytes: u64) {
        let at_ns = nanoseconds(self.begin.elapsed());
        let mut trace = self.trace.lock();
        if trace.memory.len() < SPANS_MAX {
            trace.memory.push(MemoryMoment { at_ns, live_bytes, spilled_bytes });
        } else {
            trace.left_out += 1;
        }
    }

    /// Takes what a thread noted.
    pub(super) fn keep(&self, spans: Vec<Span>) {
        self.trace.lock().spans.extend(spans);
    }

    pub(super) fn finish(&self) -> Trace {
        let mut trace = std::mem::take(&mut *self.trace.lock());
        trace.end_ns = nanoseconds(self.begin.elapsed());
        trace.spans.sort_by_key(|span| (span.begin_ns, span.thread));
        trace.memory.sort_by_key(|moment| moment.at_ns);
        trace
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
