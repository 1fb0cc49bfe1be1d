//! The same question without looking at tids: the graph of who depends on whom.
//!
//! ```text
//! T -wr-> U   U saw a version of T                    commit(T) before start(U)
//! T -ww-> U   U wrote over a version of T             commit(T) before start(U)
//! T -time-> U T had ended when U began                commit(T) before start(U)
//! T -rw-> U   T saw a version that U wrote over       start(T) before commit(U)
//! ```
//!
//! A circle in which no two `rw` follow each other puts a start before itself: that, and nothing
//! else, is what snapshot isolation forbids. Two `rw` in a row are write skew, which it allows.
//! The graph is searched doubled: who came by `rw` stands on the upper floor, from which no `rw`
//! leads on.
//!
//! ```text
//! upper   T'   U'      rw leads from lower T to upper U'
//! lower   T    U       the others lead from both floors of T to lower U
//! ```
//!
//! # Invariants
//!
//! 1. The order of the versions of a key follows from what each writer saw before it wrote. Writes
//!    over something that was not looked at have no place in it and give no edge.
//!
//! Source: A. Adya, "Weak Consistency", 1999; A. Cerone, A. Gotsman, "Analysing Snapshot
//! Isolation", 2016.

use std::collections::{HashMap, HashSet};

use super::checker::{Anomaly, Kind, Writers, internal, wrong_in_itself};
use super::circles::{Circle, Graph};
use super::history::{History, Key, NOTHING, Outcome, Value};

/// Why one transaction comes before another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    Ww,
    Wr,
    Rw,
    Time,
}

/// Checks that the history is one of snapshots, whatever its tids say.
pub(crate) fn by_graph(history: &History) -> Vec<Anomaly> {
    let mut writers = Writers::of(history);
    let mut found = std::mem::take(&mut writers.anomalies);
    found.extend(history.iter().enumerate().filter_map(|(at, it)| internal(at, it)));
    let edges = edges_of(history, &writers, &mut found);
    // From the narrowest to the widest: a circle gets the strongest name that fits.
    let mut named: HashSet<usize> = HashSet::new();
    let levels: [&[Edge]; 4] = [
        &[Edge::Ww],
        &[Edge::Ww, Edge::Wr],
        &[Edge::Ww, Edge::Wr, Edge::Rw],
        &[Edge::Ww, Edge::Wr, Edge::Rw, Edge::Time],
    ];
    for kinds in levels {
        let some = edges.list.iter().filter(|(_, _, kind)| kinds.contains(kind)).copied();
        for circle in Graph::new(edges.nodes, some).circles() {
            let transactions: Vec<usize> =
                circle.nodes.iter().copied().filter(|&node| node < history.len()).collect();
            if transactions.iter().all(|number| !named.contains(number)) {
                named.extend(&transactions);
                let (kind, what) = (name(&circle), format!("a circle of {:?}", circle.edges));
                found.push(Anomaly { kind, transactions, what });
            }
        }
    }
    found
}

fn name(circle: &Circle) -> Kind {
    let count = |edge| circle.edges.iter().filter(|of| **of == edge).count();
    match (count(Edge::Rw), count(Edge::Wr)) {
        _ if count(Edge::Time) > 0 => Kind::StaleSnapshot,
        (0, 0) => Kind::G0DirtyWrite,
        (0, _) => Kind::G1cCircularFlow,
        (1, 0) => Kind::LostUpdate,
        (1, 1) if circle.edges.len() == 2 => Kind::FracturedRead,
        (1, _) => Kind::GSingle,
        _ => Kind::LongFork,
    }
}

struct Edges {
    /// Transactions, then moments.
    nodes: usize,
    list: Vec<(usize, usize, Edge)>,
}

fn edges_of(history: &History, writers: &Writers, found: &mut Vec<Anomaly>) -> Edges {
    let mut list = Vec::new();
    let next = next_versions(history, writers, &mut list, found);
    for (reader, transaction) in history.iter().enumerate() {
        for (key, value) in transaction.seen() {
            if let Some(anomaly) = wrong_in_itself(history, writers, reader, (key, value)) {
                found.push(anomaly);
                continue;
            }
            let writer = writers.get(value).map(|written| written.by);
            list.extend(writer.map(|writer| (writer, reader, Edge::Wr)));
            let after = next.get(&(key, value)).filter(|&&after| after != reader);
            list.extend(after.map(|&after| (reader, after, Edge::Rw)));
        }
    }
    let nodes = moments(history, &mut list);
    Edges { nodes, list }
}

/// Who wrote over each version; tells of versions that two wrote over.
fn next_versions(
    history: &History,
    writers: &Writers,
    list: &mut Vec<(usize, usize, Edge)>,
    found: &mut Vec<Anomaly>,
) -> HashMap<(Key, Value), usize> {
    let mut next = HashMap::new();
    let seen = unknown_that_were_seen(history, writers);
    for (by, transaction) in history.iter().enumerate() {
        let happened = match transaction.outcome {
            Outcome::Committed(_) => true,
            Outcome::Aborted => false,
            Outcome::Unknown => seen.contains(&by),
        };
        if !happened {
            continue;
        }
        let written = transaction.written();
        for (key, before) in transaction.seen() {
            if written.binary_search_by_key(&key, |(of, _)| *of).is_err() {
                continue;
            }
            match next.insert((key, before), by) {
                Some(other) if other != by => {
                    let what = format!("key {key}: both wrote over {before:#x}");
                    let transactions = vec![other, by];
                    found.push(Anomaly { kind: Kind::LostUpdate, transactions, what });
                }
                _ => {}
            }
            let writer = writers.get(before).filter(|_| before != NOTHING);
            list.extend(writer.map(|of| (of.by, by, Edge::Ww)).filter(|(of, ..)| *of != by));
        }
    }
    next
}

fn unknown_that_were_seen(history: &History, writers: &Writers) -> HashSet<usize> {
    let mut seen = HashSet::new();
    for (reader, transaction) in history.iter().enumerate() {
        let whose = transaction.seen().filter_map(|(_, value)| writers.get(value));
        let whose = whose.map(|written| written.by).filter(|&by| by != reader);
        seen.extend(whose.filter(|&by| history[by].outcome == Outcome::Unknown));
    }
    seen
}

/// Adds moments as nodes, in their order: who ended leads to its moment, and the last moment
/// before a beginning leads to who began. So all pairs in time cost no more than one edge each.
fn moments(history: &History, list: &mut Vec<(usize, usize, Edge)>) -> usize {
    // What is unknown may still happen after its process is gone.
    let known = history.iter().filter(|transaction| transaction.outcome != Outcome::Unknown);
    let mut ends: Vec<u64> = known.map(|transaction| transaction.ended.to).collect();
    ends.sort_unstable();
    ends.dedup();
    let first = history.len();
    for at in 1..ends.len() {
        list.push((first + at - 1, first + at, Edge::Time));
    }
    for (number, transaction) in history.iter().enumerate() {
        if transaction.outcome != Outcome::Unknown
            && let Ok(at) = ends.binary_search(&transaction.ended.to)
        {
            list.push((number, first + at, Edge::Time));
        }
        let before = ends.partition_point(|&end| end < transaction.began.from);
        if let Some(at) = before.checked_sub(1) {
            list.push((first + at, number, Edge::Time));
        }
    }
    first + ends.len()
}
