//! Whether a history is one that snapshot isolation allows: pure, and in two ways.
//!
//! ```text
//! by tids    versions of a key by tid    3 .. 7 ....... 12       a read at base 9 sees that of 7
//! by graph   who saw whose versions      wr, ww, rw, real time   no cycle that needs two snapshots
//! ```
//!
//! The first believes the tids and is exact; the second, in `graph.rs`, does not look at them, so
//! it also finds what wrong tids would hide. Both allow write skew, which is what snapshot
//! isolation allows.
//!
//! # Invariants
//!
//! 1. A history that some run of a right store can tell has no anomaly.
//! 2. Time and memory grow as `n log n` of the operations.
//! 3. An outcome that is unknown counts as a commit if, and only if, somebody saw it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::history::{History, Key, NOTHING, Op, Outcome, Transaction, Value, writer_of};

/// What snapshot isolation forbids, by the names of Adya and of Bailis.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    /// A value was read that nobody wrote.
    FromNowhere,
    /// One value was written twice: the history is not one.
    WrittenTwice,
    /// A transaction read something else than it had written, or two values of one key.
    Internal,
    /// What an aborted transaction wrote was read.
    G1aAbortedRead,
    /// What its writer wrote over before it committed was read.
    G1bIntermediateRead,
    /// Transactions saw each other's writes in a circle.
    G1cCircularFlow,
    /// Writes of transactions lie over each other in a circle.
    G0DirtyWrite,
    /// Two transactions wrote over the same version.
    LostUpdate,
    /// A snapshot shows one part of a commit without another.
    FracturedRead,
    /// A snapshot shows a commit, and not what that commit was made upon (read skew).
    GSingle,
    /// Two snapshots show two commits in two orders.
    LongFork,
    /// A snapshot leaves out what was acknowledged before it was taken.
    StaleSnapshot,
    /// A read returned an older version than its snapshot's.
    StaleRead,
    /// A read returned what was committed after its snapshot.
    FutureRead,
    /// The tids contradict each other, or the order of the commits in time.
    WrongTid,
}

/// Something that may not be, and the transactions that show it (by number in the history).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Anomaly {
    pub(crate) kind: Kind,
    pub(crate) transactions: Vec<usize>,
    pub(crate) what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?}): {}", self.kind, self.transactions, self.what)
    }
}

/// All that both ways find; of each transaction at most a few.
pub(crate) fn check(history: &History) -> Vec<Anomaly> {
    let mut found = by_tids(history);
    found.extend(super::graph::by_graph(history));
    found
}

/// Where a value was written.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) by: usize,
    pub(crate) key: Key,
    pub(crate) is_last: bool,
}

/// Who wrote each value.
pub(crate) struct Writers {
    of: HashMap<Value, Written>,
    pub(crate) anomalies: Vec<Anomaly>,
}

impl Writers {
    pub(crate) fn of(history: &History) -> Self {
        let mut writers = Self { of: HashMap::new(), anomalies: Vec::new() };
        for (by, transaction) in history.iter().enumerate() {
            let last = transaction.written();
            for op in &transaction.ops {
                let Op::Write(key, value) = *op else { continue };
                let is_last = last.binary_search(&(key, value)).is_ok();
                let before = writers.of.insert(value, Written { by, key, is_last });
                if let Some(before) = before {
                    let what = format!("value {value:#x}");
                    writers.add(Kind::WrittenTwice, vec![before.by, by], what);
                } else if value == NOTHING {
                    writers.add(Kind::WrittenTwice, vec![by], "the first value".to_owned());
                }
            }
        }
        writers
    }

    pub(crate) fn get(&self, value: Value) -> Option<Written> {
        self.of.get(&value).copied()
    }

    fn add(&mut self, kind: Kind, transactions: Vec<usize>, what: String) {
        self.anomalies.push(Anomaly { kind, transactions, what });
    }
}

/// What is wrong with a read whatever the order of the commits is.
pub(crate) fn wrong_in_itself(
    history: &History,
    writers: &Writers,
    reader: usize,
    (key, value): (Key, Value),
) -> Option<Anomaly> {
    if value == NOTHING {
        return None;
    }
    let anomaly = |kind, with: Vec<usize>| {
        let what = format!("key {key} as {value:#x}, of process {}", writer_of(value));
        Some(Anomaly { kind, transactions: with, what })
    };
    let Some(written) = writers.get(value).filter(|written| written.key == key) else {
        return anomaly(Kind::FromNowhere, vec![reader]);
    };
    let pair = vec![written.by, reader];
    match () {
        () if written.by == reader => anomaly(Kind::Internal, pair),
        () if history[written.by].outcome == Outcome::Aborted => {
            anomaly(Kind::G1aAbortedRead, pair)
        }
        () if !written.is_last => anomaly(Kind::G1bIntermediateRead, pair),
        () => None,
    }
}

/// Reads of what the transaction itself had written, and reads of one key that differ.
pub(crate) fn internal(reader: usize, transaction: &Transaction) -> Option<Anomaly> {
    let mut known: Vec<(Key, Value)> = Vec::new();
    for op in &transaction.ops {
        let (Op::Read(key, value) | Op::Write(key, value)) = *op;
        match known.iter_mut().find(|(of, _)| *of == key) {
            Some((_, wanted)) if matches!(op, Op::Read(..)) && *wanted != value => {
                let what = format!("key {key} as {value:#x}, and {wanted:#x} before");
                return Some(Anomaly { kind: Kind::Internal, transactions: vec![reader], what });
            }
            Some((_, wanted)) => *wanted = value,
            None => known.push((key, value)),
        }
    }
    None
}

/// The committed versions of a key: tid, and number of the transaction, ascending.
type Versions = HashMap<Key, Vec<(u64, usize)>>;

/// Checks that the tids and the bases explain what was seen.
pub(crate) fn by_tids(history: &History) -> Vec<Anomaly> {
    let mut writers = Writers::of(history);
    let mut found = std::mem::take(&mut writers.anomalies);
    let versions = versions_of(history, &mut found);
    for (reader, transaction) in history.iter().enumerate() {
        found.extend(internal(reader, transaction));
        lost_updates(history, &versions, reader, &mut found);
    }
    reads_of_snapshots(history, &writers, &versions, &mut found);
    in_real_time(history, &mut found);
    found
}

fn versions_of(history: &History, found: &mut Vec<Anomaly>) -> Versions {
    let mut versions = Versions::new();
    let mut tids = BTreeMap::new();
    for (number, transaction) in history.iter().enumerate() {
        let Some(tid) = transaction.tid() else { continue };
        let mut wrong = |with: Vec<usize>, what: String| {
            found.push(Anomaly { kind: Kind::WrongTid, transactions: with, what });
        };
        if let Some(other) = tids.insert(tid, number) {
            wrong(vec![other, number], format!("both are commit {tid}"));
        }
        if transaction.base >= tid {
            let base = transaction.base;
            wrong(vec![number], format!("commit {tid} was made on {base}"));
        }
        for (key, _) in transaction.written() {
            versions.entry(key).or_default().push((tid, number));
        }
    }
    versions.values_mut().for_each(|list| list.sort_unstable());
    versions
}

/// The newest of `versions` at or below `base`.
fn newest_at(versions: Option<&Vec<(u64, usize)>>, base: u64) -> Option<(u64, usize)> {
    let versions = versions?;
    let after = versions.partition_point(|&(tid, _)| tid <= base);
    after.checked_sub(1).map(|at| versions[at])
}

fn lost_updates(history: &History, versions: &Versions, by: usize, found: &mut Vec<Anomaly>) {
    let transaction = &history[by];
    let Some(tid) = transaction.tid() else { return };
    for (key, _) in transaction.written() {
        let before = newest_at(versions.get(&key), tid.saturating_sub(1));
        if let Some((other, number)) = before.filter(|&(other, _)| other > transaction.base) {
            let base = transaction.base;
            let what = format!("key {key} by commits {other} and {tid}, the latter made on {base}");
            let transactions = vec![number, by];
            found.push(Anomaly { kind: Kind::LostUpdate, transactions, what });
        }
    }
}

fn reads_of_snapshots(
    history: &History,
    writers: &Writers,
    versions: &Versions,
    found: &mut Vec<Anomaly>,
) {
    // Of an unknown outcome that was seen: its tid is above the first and not above the second.
    let mut between: HashMap<usize, (u64, u64)> = HashMap::new();
    for (reader, transaction) in history.iter().enumerate() {
        for (key, value) in transaction.seen() {
            if let Some(anomaly) = wrong_in_itself(history, writers, reader, (key, value)) {
                found.push(anomaly);
                continue;
            }
            let wanted = newest_at(versions.get(&key), transaction.base);
            let writer = writers.get(value).map(|written| written.by);
            if let Some(unknown) = writer.filter(|&by| history[by].outcome == Outcome::Unknown) {
                let after = wanted.map_or(0, |(tid, _)| tid).max(history[unknown].base);
                let range = between.entry(unknown).or_insert((0, u64::MAX));
                *range = (range.0.max(after), range.1.min(transaction.base));
                continue;
            }
            if writer != wanted.map(|(_, number)| number) {
                found.push(not_the_snapshot(history, (reader, key), writer, wanted));
            }
        }
    }
    for (unknown, (after, until)) in between {
        if after >= until {
            let what = format!("seen as if between commit {after} and commit {until}");
            let transactions = vec![unknown];
            found.push(Anomaly { kind: Kind::FracturedRead, transactions, what });
        }
    }
}

/// Names a read of another version than the snapshot's.
fn not_the_snapshot(
    history: &History,
    (reader, key): (usize, Key),
    writer: Option<usize>,
    wanted: Option<(u64, usize)>,
) -> Anomaly {
    let transaction = &history[reader];
    let tid = writer.and_then(|writer| history[writer].tid()).unwrap_or(0);
    let base = transaction.base;
    if tid > base {
        let what = format!("key {key} as of commit {tid} at {base}");
        let transactions = writer.into_iter().chain([reader]).collect();
        return Anomaly { kind: Kind::FutureRead, transactions, what };
    }
    let (wanted_tid, wanted_by) = wanted.unwrap_or((0, reader));
    // The commit that is missing here shows elsewhere in the same snapshot.
    let part = &history[wanted_by];
    let shows = |(key, value)| part.ops.contains(&Op::Write(key, value));
    let kind = if transaction.seen().any(shows) { Kind::FracturedRead } else { Kind::StaleRead };
    let what = format!("key {key} as of commit {tid} at {base}, not of {wanted_tid}");
    Anomaly { kind, transactions: vec![wanted_by, reader], what }
}

/// Checks that tids and bases follow the order in which calls were made and returned.
fn in_real_time(history: &History, found: &mut Vec<Anomaly>) {
    // When each commit was acknowledged or shown, and the greatest tid that was by then.
    let mut acknowledged = Vec::with_capacity(2 * history.len());
    for (number, transaction) in history.iter().enumerate() {
        acknowledged.push((transaction.began.to, transaction.base, number));
        acknowledged.extend(transaction.tid().map(|tid| (transaction.ended.to, tid, number)));
    }
    acknowledged.sort_unstable();
    for at in 1..acknowledged.len() {
        if acknowledged[at - 1].1 > acknowledged[at].1 {
            acknowledged[at].1 = acknowledged[at - 1].1;
            acknowledged[at].2 = acknowledged[at - 1].2;
        }
    }
    let newest_before = |time: u64| {
        let end = acknowledged.partition_point(|&(to, ..)| to < time);
        end.checked_sub(1).map(|at| (acknowledged[at].1, acknowledged[at].2))
    };
    for (number, transaction) in history.iter().enumerate() {
        let mut wrong = |kind, other, what| {
            found.push(Anomaly { kind, transactions: vec![other, number], what });
        };
        let base = transaction.base;
        if let Some((tid, other)) = newest_before(transaction.began.from).filter(|p| p.0 > base) {
            let what = format!("begun on {base} after commit {tid} was acknowledged or shown");
            wrong(Kind::StaleSnapshot, other, what);
        }
        let Some(own) = transaction.tid() else { continue };
        if let Some((tid, other)) = newest_before(transaction.ended.from).filter(|p| p.0 > own) {
            let what = format!("commit {own} was asked for after {tid} was there");
            wrong(Kind::WrongTid, other, what);
        }
    }
    from_the_future(history, found);
}

/// Finds snapshots that hold a commit which was asked for only after they were taken.
fn from_the_future(history: &History, found: &mut Vec<Anomaly>) {
    let mut asked: Vec<(u64, u64, usize)> = history
        .iter()
        .enumerate()
        .filter_map(|(number, transaction)| {
            Some((transaction.ended.from, transaction.tid()?, number))
        })
        .collect();
    asked.sort_unstable();
    // From behind: the least tid that was asked for at this time or later.
    for at in (1..asked.len()).rev() {
        if asked[at].1 < asked[at - 1].1 {
            asked[at - 1].1 = asked[at].1;
            asked[at - 1].2 = asked[at].2;
        }
    }
    for (number, transaction) in history.iter().enumerate() {
        let at = asked.partition_point(|&(from, ..)| from <= transaction.began.to);
        if let Some(&(_, tid, other)) =
            asked.get(at).filter(|&&(_, tid, _)| tid <= transaction.base)
        {
            let base = transaction.base;
            let what = format!("begun on {base} before commit {tid} was asked for");
            found.push(Anomaly { kind: Kind::WrongTid, transactions: vec![other, number], what });
        }
    }
}
