//! Processes that are killed while their threads commit, one after the other on one store: what
//! they told and what the log holds is one history of snapshot isolation.
//!
//! ```text
//! test:    start child 0 | let it run | SIGKILL | start child 1 | ... | load, settle, check
//! child:   this program, told by the environment to run only `a_worker_process`
//! ```
//!
//! The store lets one process write at a time; children that run at once need no more than to be
//! started before others are killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use zbigarray::{CreateOptions, OpenOptions, Store};

use super::checker::check;
use super::dice::Dice;
use super::history::{Outcome, settle};
use super::recorder;
use super::worker::{Worker, create, logged};

/// Threads of each child.
const THREADS: u32 = 3;
const CELLS: u64 = 12;
/// Children, unless `ZBA_ISOLATION_DEATHS` says another number.
const CHILDREN: u32 = 8;
/// Names the directory, and says which child this is.
const DIRECTORY: &str = "ZBA_ISOLATION_DIRECTORY";
const NUMBER: &str = "ZBA_ISOLATION_CHILD";

fn store_in(directory: &Path) -> PathBuf {
    directory.join("s")
}

/// The child: does nothing unless the environment says so. Runs until it is killed.
#[test]
fn a_worker_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let child: u32 = std::env::var(NUMBER).unwrap().parse().unwrap();
    let store = Store::open(store_in(&directory), OpenOptions::default()).unwrap();
    thread::scope(|scope| {
        for process in child * THREADS + 1..=child * THREADS + THREADS {
            let (store, directory) = (store.clone(), &directory);
            let mut worker = Worker::new(store, directory, process, 1, CELLS);
            scope.spawn(move || {
                loop {
                    worker.turn();
                }
            });
        }
    });
}

fn start(directory: &Path, child: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::a_worker_process", "--test-threads", "1"]);
    command.env(DIRECTORY, directory).env(NUMBER, child.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until the child has begun to work.
fn is_at_work(directory: &Path, child: u32, process: &mut Child) {
    let started = Instant::now();
    let file = directory.join(format!("{}.history", child * THREADS + THREADS));
    while std::fs::metadata(&file).map_or(0, |file| file.len()) == 0 {
        assert!(process.try_wait().unwrap().is_none(), "child {child} ended");
        assert!(started.elapsed() < Duration::from_secs(60), "child {child} does nothing");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_processes_leave_a_history_of_snapshots() {
    let number = std::env::var("ZBA_ISOLATION_DEATHS");
    let children = number.map_or(CHILDREN, |n| n.parse().expect("a number"));
    let directory = tempfile::tempdir().unwrap();
    let path = store_in(directory.path());
    let store = Store::create(&path, CreateOptions::default()).unwrap();
    let created = create(&store, CELLS);
    drop(store);
    let mut dice = Dice::new(&[7]);
    for child in 0..children {
        let mut process = start(directory.path(), child);
        is_at_work(directory.path(), child, &mut process);
        thread::sleep(Duration::from_micros(dice.below(150_000)));
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let store = Store::open(&path, OpenOptions::default()).unwrap();
    let mut history = recorder::load(directory.path()).unwrap();
    let open: Vec<usize> =
        (0..history.len()).filter(|&at| history[at].outcome == Outcome::Unknown).collect();
    // Without the log, too: then what is unknown may have happened or not.
    let found = check(&history);
    assert!(found.is_empty(), "{} anomalies, first {}", found.len(), found[0]);
    let wrong = settle(&mut history, &logged(&store, created));
    assert!(wrong.is_empty(), "{wrong:?}");
    let found = check(&history);
    assert!(found.is_empty(), "{} anomalies, first {}", found.len(), found[0]);
    let made = open.iter().filter(|&&at| history[at].tid().is_some()).count();
    println!(
        "{children} killed: {} transactions, {} commits, {} unknown of which {made} are there",
        history.len(),
        history.iter().filter(|it| it.tid().is_some()).count(),
        open.len(),
    );
}
