//! The checker itself: it names what is planted, and keeps silent about what is right.

use std::time::Instant;

use super::checker::{Anomaly, Kind, by_tids};
use super::graph::by_graph;
use super::history::{Call, History, Logged, Op, Outcome, Transaction, settle};
use super::model::{FAULTS, Fault, Size, history};

use Op::{Read, Write};

/// A transaction begun at the first time on `base`, whose commit was asked for at once and had
/// ended at the second.
fn ran(times: (u64, u64), base: u64, outcome: Outcome, ops: &[Op]) -> Transaction {
    let (began, ended) = (Call { from: times.0, to: times.0 }, Call { from: times.0, to: times.1 });
    Transaction { process: 1, number: times.0, base, began, ended, outcome, ops: ops.to_vec() }
}

fn did(times: (u64, u64), base: u64, tid: u64, ops: &[Op]) -> Transaction {
    ran(times, base, Outcome::Committed(Some(tid)), ops)
}

fn saw(times: (u64, u64), base: u64, ops: &[Op]) -> Transaction {
    ran(times, base, Outcome::Committed(None), ops)
}

fn kinds(found: &[Anomaly]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = found.iter().map(|anomaly| anomaly.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

const X: u64 = 10;
const Y: u64 = 11;

/// A history, and what each way must call it; an empty list: that way cannot see it, or all is
/// right.
struct Case {
    what: &'static str,
    by_tids: &'static [Kind],
    by_graph: &'static [Kind],
    history: History,
}

fn right() -> Vec<Case> {
    let case = |what, history| Case { what, by_tids: &[], by_graph: &[], history };
    vec![
        case(
            "write skew",
            vec![
                did((1, 5), 0, 1, &[Read(X, 0), Read(Y, 0), Write(X, 1)]),
                did((2, 6), 0, 2, &[Read(X, 0), Read(Y, 0), Write(Y, 2)]),
            ],
        ),
        case(
            "write skew, seen by a reader (Fekete's)",
            vec![
                did((1, 9), 0, 2, &[Read(X, 0), Read(Y, 0), Write(X, 1)]),
                did((2, 4), 0, 1, &[Read(Y, 0), Write(Y, 2)]),
                saw((5, 6), 1, &[Read(X, 0), Read(Y, 2)]),
            ],
        ),
        case(
            "a refused transaction may read what is old by now",
            vec![
                did((1, 4), 0, 1, &[Read(X, 0), Write(X, 1), Read(X, 1), Write(X, 2)]),
                ran((2, 6), 0, Outcome::Aborted, &[Read(X, 0), Write(X, 3)]),
                saw((7, 8), 1, &[Read(X, 2)]),
            ],
        ),
        case(
            "begun while a commit was under way, with it or without",
            vec![
                did((1, 9), 0, 1, &[Read(X, 0), Write(X, 1)]),
                saw((9, 10), 1, &[Read(X, 1)]),
                saw((8, 10), 0, &[Read(X, 0)]),
            ],
        ),
        case(
            "an unknown outcome that nobody saw",
            vec![
                ran((1, u64::MAX), 0, Outcome::Unknown, &[Read(X, 0), Write(X, 1)]),
                did((2, 3), 0, 1, &[Read(X, 0), Write(X, 2)]),
            ],
        ),
        case(
            "an unknown outcome that was seen",
            vec![
                ran((1, u64::MAX), 0, Outcome::Unknown, &[Read(X, 0), Write(X, 1), Write(Y, 2)]),
                saw((2, 3), 0, &[Read(X, 0), Read(Y, 0)]),
                saw((4, 5), 1, &[Read(X, 1), Read(Y, 2)]),
            ],
        ),
    ]
}

fn wrong_values() -> Vec<Case> {
    let case = |what, kind: &'static [Kind], history| Case {
        what,
        by_tids: kind,
        by_graph: kind,
        history,
    };
    vec![
        case("a value from nowhere", &[Kind::FromNowhere], vec![saw((1, 2), 0, &[Read(X, 9)])]),
        case(
            "a value of another key",
            &[Kind::FromNowhere],
            vec![did((1, 2), 0, 1, &[Read(X, 0), Write(X, 1)]), saw((3, 4), 1, &[Read(Y, 1)])],
        ),
        case(
            "an aborted write is seen",
            &[Kind::G1aAbortedRead],
            vec![
                ran((1, 3), 0, Outcome::Aborted, &[Read(X, 0), Write(X, 1)]),
                saw((4, 5), 0, &[Read(X, 1)]),
            ],
        ),
        case(
            "a write that was written over is seen",
            &[Kind::G1bIntermediateRead],
            vec![
                did((1, 3), 0, 1, &[Read(X, 0), Write(X, 1), Write(X, 2)]),
                saw((4, 5), 1, &[Read(X, 1)]),
            ],
        ),
        case(
            "its own write is not seen",
            &[Kind::Internal],
            vec![did((1, 3), 0, 1, &[Read(X, 0), Write(X, 1), Read(X, 0)])],
        ),
    ]
}

fn wrong_orders() -> Vec<Case> {
    vec![
        Case {
            what: "two write over one version",
            by_tids: &[Kind::LostUpdate],
            by_graph: &[Kind::LostUpdate],
            history: vec![
                did((1, 5), 0, 1, &[Read(X, 0), Write(X, 1)]),
                did((2, 6), 0, 2, &[Read(X, 0), Write(X, 2)]),
            ],
        },
        Case {
            what: "each sees the other's write",
            by_tids: &[Kind::FutureRead],
            by_graph: &[Kind::G1cCircularFlow],
            history: vec![
                did((1, 5), 0, 1, &[Read(Y, 2), Read(X, 0), Write(X, 1)]),
                did((2, 6), 1, 2, &[Read(X, 1), Write(Y, 2)]),
            ],
        },
        Case {
            what: "writes lie over each other in a circle",
            by_tids: &[Kind::FracturedRead, Kind::FutureRead],
            by_graph: &[Kind::G0DirtyWrite],
            history: vec![
                did((1, 5), 0, 1, &[Read(X, 0), Write(X, 1), Read(Y, 3), Write(Y, 4)]),
                did((2, 6), 1, 2, &[Read(X, 1), Write(X, 2), Read(Y, 0), Write(Y, 3)]),
            ],
        },
        Case {
            what: "half of a commit is seen",
            by_tids: &[Kind::FracturedRead],
            by_graph: &[Kind::FracturedRead],
            history: vec![
                did((1, 3), 0, 1, &[Read(X, 0), Write(X, 1), Read(Y, 0), Write(Y, 2)]),
                saw((2, 5), 1, &[Read(X, 1), Read(Y, 0)]),
            ],
        },
        Case {
            what: "a commit is seen without the one it was made upon",
            by_tids: &[Kind::StaleRead],
            by_graph: &[Kind::GSingle],
            history: vec![
                did((1, 9), 0, 1, &[Read(X, 0), Write(X, 1)]),
                did((9, 10), 1, 2, &[Read(X, 1), Write(Y, 2)]),
                saw((10, 20), 2, &[Read(Y, 2), Read(X, 0)]),
            ],
        },
        Case {
            what: "two commits are seen in two orders",
            by_tids: &[Kind::StaleRead],
            by_graph: &[Kind::LongFork],
            history: vec![
                did((1, 20), 0, 1, &[Read(X, 0), Write(X, 1)]),
                did((1, 20), 0, 2, &[Read(Y, 0), Write(Y, 2)]),
                saw((5, 21), 1, &[Read(X, 1), Read(Y, 0)]),
                saw((6, 21), 2, &[Read(X, 0), Read(Y, 2)]),
            ],
        },
    ]
}

fn wrong_times() -> Vec<Case> {
    vec![
        Case {
            what: "a snapshot leaves out what was acknowledged before",
            by_tids: &[Kind::StaleSnapshot],
            by_graph: &[Kind::StaleSnapshot],
            history: vec![
                did((1, 3), 0, 1, &[Read(X, 0), Write(X, 1)]),
                saw((4, 5), 0, &[Read(X, 0)]),
            ],
        },
        Case {
            what: "a later snapshot is older",
            by_tids: &[Kind::StaleSnapshot],
            by_graph: &[Kind::StaleSnapshot],
            history: vec![
                did((1, 20), 0, 1, &[Read(X, 0), Write(X, 1)]),
                saw((3, 4), 1, &[Read(X, 1)]),
                saw((5, 6), 0, &[Read(X, 0)]),
            ],
        },
        Case {
            what: "one tid for two commits",
            by_tids: &[Kind::WrongTid],
            by_graph: &[],
            history: vec![
                did((1, 5), 0, 1, &[Read(X, 0), Write(X, 1)]),
                did((2, 6), 0, 1, &[Read(Y, 0), Write(Y, 2)]),
            ],
        },
        Case {
            what: "tids against the order of the commits in time",
            by_tids: &[Kind::StaleSnapshot, Kind::WrongTid],
            by_graph: &[],
            history: vec![
                did((1, 2), 0, 2, &[Read(X, 0), Write(X, 1)]),
                did((3, 4), 0, 1, &[Read(Y, 0), Write(Y, 2)]),
            ],
        },
        Case {
            what: "a snapshot of what nobody had asked to commit",
            by_tids: &[Kind::WrongTid],
            by_graph: &[],
            history: vec![
                Transaction {
                    ended: Call { from: 5, to: 5 },
                    ..did((1, 5), 0, 1, &[Read(X, 0), Write(X, 1)])
                },
                saw((2, 9), 1, &[Read(X, 1)]),
            ],
        },
        Case {
            what: "an unknown outcome that one saw in part",
            by_tids: &[],
            by_graph: &[Kind::FracturedRead],
            history: vec![
                ran(
                    (1, u64::MAX),
                    0,
                    Outcome::Unknown,
                    &[Read(X, 0), Write(X, 1), Read(Y, 0), Write(Y, 2)],
                ),
                saw((2, 5), 1, &[Read(X, 1), Read(Y, 0)]),
            ],
        },
    ]
}

#[test]
fn each_anomaly_is_named_and_what_snapshot_isolation_allows_is_not() {
    let cases = [right(), wrong_values(), wrong_orders(), wrong_times()];
    for Case { what, by_tids: tids, by_graph: graph, history } in cases.into_iter().flatten() {
        let found = by_tids(&history);
        assert_eq!(kinds(&found), tids, "by tids, {what}: {found:?}");
        let found = by_graph(&history);
        assert_eq!(kinds(&found), graph, "by graph, {what}: {found:?}");
    }
}

#[test]
fn the_log_settles_what_is_unknown_and_shows_lost_and_unwanted_commits() {
    let write =
        |times, outcome| Transaction { process: 3, ..ran(times, 0, outcome, &[Write(X, 1)]) };
    let mut history = vec![
        write((1, u64::MAX), Outcome::Unknown),
        write((2, u64::MAX), Outcome::Unknown),
        write((3, 9), Outcome::Committed(Some(7))),
        write((4, 9), Outcome::Aborted),
    ];
    let logged = |tid, number| Logged { tid, process: 3, number };
    assert_eq!(settle(&mut history.clone(), &[logged(7, 3)]), Vec::<String>::new());
    let wrong = settle(&mut history, &[logged(5, 1), logged(8, 4)]);
    assert_eq!(history[0].outcome, Outcome::Committed(Some(5)));
    assert_eq!(history[1].outcome, Outcome::Aborted);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

const SMALL: Size = Size { transactions: 150, clients: 5, keys: 6, rare: 40 };

#[test]
fn histories_of_a_right_database_have_no_anomaly() {
    for seed in 0..200 {
        let told = history(seed, SMALL, None);
        let found = super::checker::check(&told);
        assert!(found.is_empty(), "seed {seed}: {}", found[0]);
    }
}

/// What a fault must be called sooner or later, by tids and by the graph.
fn names_of(fault: Fault) -> (Kind, Kind) {
    match fault {
        Fault::NoConflictCheck => (Kind::LostUpdate, Kind::LostUpdate),
        Fault::StaleSnapshot => (Kind::StaleSnapshot, Kind::StaleSnapshot),
        Fault::DirtyRead => (Kind::FutureRead, Kind::G1aAbortedRead),
        Fault::FracturedPublish => (Kind::FracturedRead, Kind::FracturedRead),
        Fault::LongFork => (Kind::StaleRead, Kind::LongFork),
        Fault::AbortLeavesWrite => (Kind::G1aAbortedRead, Kind::G1aAbortedRead),
        Fault::ReadsNewest => (Kind::FutureRead, Kind::GSingle),
        Fault::OwnWriteMissed => (Kind::Internal, Kind::Internal),
        Fault::IntermediateCommitted => (Kind::G1bIntermediateRead, Kind::G1bIntermediateRead),
    }
}

#[test]
fn each_planted_fault_is_found_both_ways_within_a_few_histories_and_named() {
    for fault in FAULTS {
        let (mut first, mut named) = ([None; 2], [None; 2]);
        let names = names_of(fault);
        for seed in 0..400 {
            let told = history(seed, SMALL, Some(fault));
            let both = [(by_tids(&told), names.0), (by_graph(&told), names.1)];
            for (way, (found, name)) in both.into_iter().enumerate() {
                if !found.is_empty() {
                    first[way].get_or_insert(seed + 1);
                }
                if kinds(&found).contains(&name) {
                    named[way].get_or_insert(seed + 1);
                }
            }
            if named.iter().all(Option::is_some) {
                break;
            }
        }
        println!("{fault:?}: found in history {first:?}, as {names:?} in {named:?}");
        assert!(first.iter().all(|at| at.is_some_and(|at| at <= 20)), "{fault:?}: {first:?}");
        assert!(named.iter().all(Option::is_some), "{fault:?}: {named:?}");
    }
}

#[test]
fn a_history_of_200000_transactions_is_checked_in_seconds() {
    let size = Size { transactions: 200_000, clients: 16, keys: 500, rare: 1_000 };
    let told = history(1, size, None);
    let operations: usize = told.iter().map(|transaction| transaction.ops.len()).sum();
    let started = Instant::now();
    let found = by_tids(&told);
    let after_tids = started.elapsed();
    assert!(found.is_empty(), "{}", found[0]);
    let found = by_graph(&told);
    assert!(found.is_empty(), "{}", found[0]);
    let by_graph = started.elapsed() - after_tids;
    println!("{operations} operations: by tids {after_tids:.1?}, by graph {by_graph:.1?}");
}

#[test]
fn a_fault_that_strikes_now_and_then_in_a_long_history_is_found() {
    let size = Size { transactions: 20_000, clients: 16, keys: 20, rare: 100 };
    for fault in [Fault::LongFork, Fault::FracturedPublish, Fault::NoConflictCheck] {
        let told = history(1, size, Some(fault));
        let (tids, graph) = (by_tids(&told).len(), by_graph(&told).len());
        println!("{fault:?}: {tids} anomalies by tids, {graph} by graph");
        assert!(tids > 0 && graph > 0, "{fault:?}: {tids}, {graph}");
    }
}
