//! What transactions did, as those who ran them tell it.
//!
//! ```text
//!  began.from   began.to                        ended.from          ended.to      one real time,
//!  |-- begin() --|  read, write, read, ...      |---- commit() ------|            all processes
//!                base                                     tid
//! ```
//!
//! # Invariants
//!
//! 1. A value is written once in a history, so who read it says whose it was; [`NOTHING`] is what a
//!    key holds before anybody wrote it.
//! 2. Operations stand in the order in which their transaction made them.

/// One place that holds a value: an element of an array, far from every other.
pub(crate) type Key = u64;
/// What a key holds.
pub(crate) type Value = u64;

/// What a key holds before anybody wrote it.
pub(crate) const NOTHING: Value = 0;

/// Bits of a value that count the writes of a process; the others say which process it was.
const SEQUENCE_BITS: u32 = 40;

/// The value of write number `sequence` of process `process`, which is not 0.
pub(crate) fn value_of(process: u32, sequence: u64) -> Value {
    assert!(process > 0 && sequence >> SEQUENCE_BITS == 0, "a value says who wrote it");
    u64::from(process) << SEQUENCE_BITS | sequence
}

/// The process that wrote a value; 0 for [`NOTHING`].
pub(crate) fn writer_of(value: Value) -> u64 {
    value >> SEQUENCE_BITS
}

/// A call, in nanoseconds: it was made at `from` and had returned at `to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What a transaction did to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// Saw this value.
    Read(Key, Value),
    /// Gave it this value.
    Write(Key, Value),
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The commit was acknowledged with this tid; without one if nothing was written.
    Committed(Option<u64>),
    /// It was given up, or the commit was refused: nobody may ever see it.
    Aborted,
    /// Its process died, or was told so: it may have happened, wholly, or not at all.
    Unknown,
}

/// One transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transaction {
    /// Who ran it.
    pub(crate) process: u32,
    /// Its number among those of its process.
    pub(crate) number: u64,
    /// The commit that its snapshot shows.
    pub(crate) base: u64,
    /// The call of `begin`.
    pub(crate) began: Call,
    /// The call of `commit`, or of whatever ended it. `to` is `u64::MAX` if it never returned.
    pub(crate) ended: Call,
    pub(crate) outcome: Outcome,
    pub(crate) ops: Vec<Op>,
}

impl Transaction {
    /// The keys it wrote, each once with its last value, ascending.
    pub(crate) fn written(&self) -> Vec<(Key, Value)> {
        let mut last: Vec<(Key, Value)> = Vec::new();
        for op in &self.ops {
            if let Op::Write(key, value) = *op {
                match last.iter_mut().find(|(of, _)| *of == key) {
                    Some(found) => found.1 = value,
                    None => last.push((key, value)),
                }
            }
        }
        last.sort_unstable();
        last
    }

    /// What it saw of others: keys that it had not written before, in order.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (Key, Value)> + '_ {
        self.ops.iter().enumerate().filter_map(|(at, op)| match *op {
            Op::Read(key, value) => {
                let own = |op: &Op| matches!(*op, Op::Write(of, _) if of == key);
                (!self.ops[..at].iter().any(own)).then_some((key, value))
            }
            Op::Write(..) => None,
        })
    }

    /// The tid, if it is known to have committed with one.
    pub(crate) fn tid(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Committed(tid) => tid,
            _ => None,
        }
    }
}

/// All transactions, in any order.
pub(crate) type History = Vec<Transaction>;

/// A commit that the log holds, and which transaction its note names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    pub(crate) tid: u64,
    pub(crate) process: u32,
    pub(crate) number: u64,
}

/// Decides the unknown outcomes by what the log holds at the end, and says where the log and an
/// outcome that is known disagree: a commit that was lost, or one that was refused and is there.
pub(crate) fn settle(history: &mut History, log: &[Logged]) -> Vec<String> {
    let logged: std::collections::HashMap<(u32, u64), u64> =
        log.iter().map(|commit| ((commit.process, commit.number), commit.tid)).collect();
    let mut wrong = Vec::new();
    for transaction in history {
        let (process, number) = (transaction.process, transaction.number);
        let found = logged.get(&(process, number)).copied();
        match (transaction.outcome, found) {
            (Outcome::Unknown, Some(tid)) => transaction.outcome = Outcome::Committed(Some(tid)),
            (Outcome::Unknown, None) => transaction.outcome = Outcome::Aborted,
            (Outcome::Committed(tid), found) if tid != found => {
                wrong.push(format!("{process}/{number}: told {tid:?}, logged {found:?}"));
            }
            (Outcome::Aborted, Some(tid)) => {
                wrong.push(format!("{process}/{number}: not committed, logged as {tid}"));
            }
            _ => {}
        }
    }
    wrong
}
