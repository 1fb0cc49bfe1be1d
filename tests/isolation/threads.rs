//! Threads of one process on a real store, while it is packed and checkpointed: what they told is
//! a history of snapshot isolation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use zbigarray::{CreateOptions, Keep, Store};

use super::checker::check;
use super::history::settle;
use super::recorder;
use super::worker::{Worker, create, logged};

const THREADS: u32 = 4;
const CELLS: u64 = 12;
/// Transactions of each thread, unless `ZBA_ISOLATION` says another number.
const TURNS: u64 = 400;

#[test]
fn threads_on_one_store_see_snapshots_and_lose_nothing() {
    let turns = std::env::var("ZBA_ISOLATION").map_or(TURNS, |n| n.parse().expect("a number"));
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path().join("s"), CreateOptions::default()).unwrap();
    let created = create(&store, CELLS);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (1..=THREADS)
            .map(|process| {
                let (store, directory) = (store.clone(), directory.path());
                let mut worker = Worker::new(store, directory, process, 1, CELLS);
                scope.spawn(move || (0..turns).filter(|_| worker.turn()).count())
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // All history is kept: the log is compared at the end.
                store.pack(Keep::From(created)).unwrap();
                store.checkpoint().unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let commits: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        done.store(true, Ordering::Relaxed);
        println!("{commits} commits of {} transactions", u64::from(THREADS) * turns);
        assert!(commits > 0);
    });
    let mut history = recorder::load(directory.path()).unwrap();
    assert_eq!(history.len() as u64, u64::from(THREADS) * turns);
    let wrong = settle(&mut history, &logged(&store, created));
    assert!(wrong.is_empty(), "{wrong:?}");
    let found = check(&history);
    assert!(found.is_empty(), "{} anomalies, first {}", found.len(), found[0]);
}
