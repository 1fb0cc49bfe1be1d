//! Processes that write cells of one store at once and are killed and stopped meanwhile: what they
//! told and what the log holds is one history of snapshot isolation.

use std::path::Path;

use zbigarray::{CreateOptions, Keep, OpenOptions, Store, Tid};

use super::checker::check;
use super::children::{Plan, be_a_child, live_and_die, store_in};
use super::history::{Outcome, settle};
use super::recorder;
use super::worker::{Worker, create, logged};

const CELLS: u64 = 12;
/// Most children that are killed, and most transactions, before it is judged what they did.
const DEATHS_MAX: u32 = 500;
const TRANSACTIONS_MAX: u32 = 200_000;

/// The child: does nothing unless the environment says so.
#[test]
fn a_worker_process() {
    be_a_child(|store, directory, process| {
        let mut worker = Worker::new(store, directory, process, 1, CELLS);
        move || {
            worker.turn();
        }
    });
}

/// Runs the plan in rounds, each on a store of its own: all history is kept until it is judged.
fn run(plan: Plan) {
    let rounds = plan.deaths.div_ceil(DEATHS_MAX);
    let rounds = rounds.max(plan.transactions.div_ceil(TRANSACTIONS_MAX)).max(1);
    for round in 0..rounds {
        let (deaths, transactions) =
            (plan.deaths.div_ceil(rounds), plan.transactions.div_ceil(rounds));
        one_round(Plan { seed: plan.seed + round, deaths, transactions, ..plan });
    }
}

fn one_round(plan: Plan) {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = Store::create(store_in(directory), CreateOptions::default()).unwrap();
    let created = create(&store, CELLS);
    // All history is kept: the log is compared at the end.
    let keep = Keep::From(created);
    live_and_die(directory, &store, keep, "processes::a_worker_process", plan);
    drop(store);
    judge(directory, created);
}

fn judge(directory: &Path, created: Tid) {
    let store = Store::open(store_in(directory), OpenOptions::default()).unwrap();
    let mut history = recorder::load(directory).unwrap();
    let open: Vec<usize> =
        (0..history.len()).filter(|&at| history[at].outcome == Outcome::Unknown).collect();
    // Without the log first: then what is unknown may have happened or not.
    let without_log = check(&history);
    let wrong = settle(&mut history, &logged(&store, created));
    let found = check(&history);
    let commits = history.iter().filter(|it| it.tid().is_some()).count();
    let made = open.iter().filter(|&&at| history[at].tid().is_some()).count();
    println!(
        "{} transactions, {commits} commits, {} unknown of which {made} are there",
        history.len(),
        open.len(),
    );
    let found = without_log.iter().chain(&found);
    let all: Vec<String> = wrong.into_iter().chain(found.map(ToString::to_string)).collect();
    assert!(all.is_empty(), "{} wrong, as {:#?}", all.len(), &all[..all.len().min(5)]);
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
}

#[test]
fn processes_that_are_killed_one_after_the_other_leave_a_history_of_snapshots() {
    run(Plan { seed: 7, at_once: 1, deaths: 8, ..Plan::default() });
}

#[test]
fn processes_that_write_at_once_and_are_killed_leave_a_history_of_snapshots() {
    run(Plan { seed: 8, at_once: 3, deaths: 8, ..Plan::default() }.or_as_told());
}
