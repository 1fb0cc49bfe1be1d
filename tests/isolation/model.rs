//! A tiny database with snapshot isolation, in one thread, into which faults can be planted.
//!
//! ```text
//! clients take turns:  begin | read or write, one at a time | commit or abort
//! versions of a key:   (1, a) (4, b) (9, c)        a snapshot at 5 sees b
//! ```
//!
//! It tells the history of what it did, so that the checker can be tried on many of them, right
//! and wrong.

use super::dice::Dice;
use super::history::{Call, History, Key, NOTHING, Op, Outcome, Transaction, Value, value_of};

/// What the database does wrong, once in a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Commits without looking whether somebody else was first.
    NoConflictCheck,
    /// Begins on a commit before the newest.
    StaleSnapshot,
    /// Shows what another transaction has written and not committed.
    DirtyRead,
    /// Publishes a commit key by key, while others begin.
    FracturedPublish,
    /// Keeps two logs, of even and odd keys, one of which a snapshot may show as of earlier.
    LongFork,
    /// Forgets to take back one write of what was aborted.
    AbortLeavesWrite,
    /// Reads the newest version instead of the snapshot's.
    ReadsNewest,
    /// Does not see its own writes.
    OwnWriteMissed,
    /// Commits a version that its writer wrote over.
    IntermediateCommitted,
}

pub(crate) const FAULTS: [Fault; 9] = [
    Fault::NoConflictCheck,
    Fault::StaleSnapshot,
    Fault::DirtyRead,
    Fault::FracturedPublish,
    Fault::LongFork,
    Fault::AbortLeavesWrite,
    Fault::ReadsNewest,
    Fault::OwnWriteMissed,
    Fault::IntermediateCommitted,
];

/// How large a run is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) transactions: usize,
    pub(crate) clients: usize,
    pub(crate) keys: u64,
    /// A fault strikes once in so many times that it can.
    pub(crate) rare: u64,
}

struct Running {
    told: Transaction,
    /// Where the snapshot of odd keys stands; that of even ones is the base.
    odd_base: u64,
    left: u64,
    written: Vec<(Key, Value)>,
    /// First versions of keys that were written twice.
    overwritten: Vec<(Key, Value)>,
}

struct Database {
    versions: Vec<Vec<(u64, Value)>>,
    tid: u64,
    time: u64,
    dice: Dice,
    fault: Option<Fault>,
    rare: u64,
    sequence: Vec<u64>,
    numbers: Vec<u64>,
    /// Keys of commits that are not published yet.
    waiting: Vec<(u64, Key, Value)>,
}

/// The history of one run.
pub(crate) fn history(seed: u64, size: Size, fault: Option<Fault>) -> History {
    let mut database = Database {
        versions: (0..size.keys).map(|_| vec![(0, NOTHING)]).collect(),
        tid: 0,
        time: 0,
        dice: Dice::new(&[seed]),
        fault,
        rare: size.rare,
        sequence: vec![0; size.clients],
        numbers: vec![0; size.clients],
        waiting: Vec::new(),
    };
    let mut running: Vec<Option<Running>> = (0..size.clients).map(|_| None).collect();
    let mut history = History::new();
    while history.len() < size.transactions {
        let client = database.dice.index(size.clients);
        match running[client].take() {
            None => running[client] = Some(database.begin(client)),
            Some(mut it) if it.left > 0 => {
                database.step(client, &mut it, &running);
                running[client] = Some(it);
            }
            Some(it) => history.push(database.end(it)),
        }
        database.publish_some();
    }
    history
}

impl Database {
    fn strikes(&mut self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.dice.once_in(self.rare)
    }

    fn now(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    fn begin(&mut self, client: usize) -> Running {
        let from = self.now();
        let mut base = self.tid;
        if self.strikes(Fault::StaleSnapshot) {
            base = base.saturating_sub(1 + self.dice.below(4));
        }
        let mut odd_base = base;
        if self.strikes(Fault::LongFork) {
            odd_base = base.saturating_sub(1 + self.dice.below(4));
        }
        self.numbers[client] += 1;
        let to = self.now();
        let told = Transaction {
            process: u32::try_from(client).unwrap() + 1,
            number: self.numbers[client],
            base,
            began: Call { from, to },
            ended: Call { from: to, to },
            outcome: Outcome::Aborted,
            ops: Vec::new(),
        };
        let left = 1 + self.dice.below(5);
        Running { told, odd_base, left, written: Vec::new(), overwritten: Vec::new() }
    }

    fn step(&mut self, client: usize, it: &mut Running, others: &[Option<Running>]) {
        it.left -= 1;
        let key = self.dice.below(self.versions.len() as u64);
        let value = self.seen(key, it, others);
        it.told.ops.push(Op::Read(key, value));
        if self.dice.once_in(2) {
            self.sequence[client] += 1;
            let value = value_of(it.told.process, self.sequence[client]);
            it.told.ops.push(Op::Write(key, value));
            match it.written.iter_mut().find(|(of, _)| *of == key) {
                Some(found) => {
                    it.overwritten.push(*found);
                    found.1 = value;
                }
                None => it.written.push((key, value)),
            }
        }
    }

    fn seen(&mut self, key: Key, it: &Running, others: &[Option<Running>]) -> Value {
        let own = it.written.iter().find(|(of, _)| *of == key);
        if let Some(&(_, value)) = own
            && !self.strikes(Fault::OwnWriteMissed)
        {
            return value;
        }
        if self.strikes(Fault::DirtyRead) {
            let written = others.iter().flatten().flat_map(|other| &other.written);
            if let Some(&(_, value)) = written.into_iter().find(|(of, _)| *of == key) {
                return value;
            }
        }
        let base = if key % 2 == 1 { it.odd_base } else { it.told.base };
        let base = if self.strikes(Fault::ReadsNewest) { u64::MAX } else { base };
        let versions = &self.versions[usize::try_from(key).unwrap()];
        versions[versions.partition_point(|&(tid, _)| tid <= base) - 1].1
    }

    fn end(&mut self, mut it: Running) -> Transaction {
        it.told.ended.from = self.now();
        let newest = |key: &Key| self.versions[usize::try_from(*key).unwrap()].last().unwrap().0;
        let conflict = it.written.iter().any(|(key, _)| {
            newest(key) > it.told.base || self.waiting.iter().any(|(_, of, _)| of == key)
        });
        let conflict = conflict && !self.strikes(Fault::NoConflictCheck);
        if it.written.is_empty() {
            it.told.outcome = Outcome::Committed(None);
        } else if conflict || self.dice.once_in(8) {
            if self.strikes(Fault::AbortLeavesWrite) {
                let (key, value) = it.written[0];
                self.put(self.tid, key, value);
            }
        } else {
            self.commit(&mut it);
        }
        it.told.ended.to = self.now();
        it.told
    }

    fn commit(&mut self, it: &mut Running) {
        self.tid += 1;
        it.told.outcome = Outcome::Committed(Some(self.tid));
        let fractured = self.strikes(Fault::FracturedPublish);
        for (at, &(key, value)) in it.written.iter().enumerate() {
            let first = it.overwritten.iter().find(|(of, _)| *of == key).copied();
            let value = match first {
                Some((_, first)) if self.strikes(Fault::IntermediateCommitted) => first,
                _ => value,
            };
            match fractured && at > 0 {
                true => self.waiting.push((self.tid, key, value)),
                false => self.put(self.tid, key, value),
            }
        }
        // A process may die and leave it open whether the commit was made.
        if self.dice.once_in(50) {
            it.told.outcome = Outcome::Unknown;
        }
    }

    fn put(&mut self, tid: u64, key: Key, value: Value) {
        self.versions[usize::try_from(key).unwrap()].push((tid, value));
    }

    fn publish_some(&mut self) {
        if !self.waiting.is_empty() && self.dice.once_in(6) {
            let (tid, key, value) = self.waiting.remove(0);
            self.put(tid, key, value);
        }
    }
}
