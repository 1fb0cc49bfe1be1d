//! Processes that write one store at once and are killed and stopped meanwhile: what they told and
//! what the log holds is one history of snapshot isolation.
//!
//! ```text
//! child 0  |---- three threads ----x SIGKILL
//! child 1  |------ SIGSTOP ... SIGCONT ------x         each death starts the next child
//! child 2          |-----------------------
//! test     starts, stops, kills, packs | ends all | load, settle, check
//! ```
//!
//! A child is this program, told by the environment to run only `a_worker_process`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbigarray::txn::{StorageError, TransactionError};
use zbigarray::{CreateOptions, Keep, OpenOptions, Store, Tid};

use super::checker::check;
use super::dice::Dice;
use super::history::{Outcome, settle};
use super::recorder;
use super::worker::{Worker, create, logged};

/// Threads of each child.
const THREADS: u32 = 3;
const CELLS: u64 = 12;
/// Children that are killed in a test, unless `ZBA_ISOLATION_DEATHS` says another number.
const DEATHS: u32 = 8;
/// Children that run at once, unless `ZBA_ISOLATION_PROCESSES` says another number.
const AT_ONCE: u32 = 3;
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
                let _guard = EndsTheProcess;
                loop {
                    worker.turn();
                }
            });
        }
    });
}

/// One thread that fails must not hide behind others that go on.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        std::process::abort();
    }
}

fn start(directory: &Path, child: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::a_worker_process", "--nocapture", "--test-threads", "1"]);
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

/// The children that run.
struct Children<'d> {
    directory: &'d Path,
    running: Vec<(u32, Child)>,
    started: u32,
}

impl Children<'_> {
    fn start(&mut self) {
        let (number, mut child) = (self.started, start(self.directory, self.started));
        self.started += 1;
        is_at_work(self.directory, number, &mut child);
        self.running.push((number, child));
    }

    fn kill(&mut self, at: usize) {
        let (number, mut child) = self.running.swap_remove(at);
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "child {number} ended by itself: {ended:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, at: usize, signal: Signal) {
        let id = i32::try_from(self.running[at].1.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }
}

/// Whoever is left when a test fails goes, too.
impl Drop for Children<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs children, `at_once` at a time, until `deaths` of them were killed.
fn run(directory: &Path, seed: u64, at_once: u32, deaths: u32) {
    let path = store_in(directory);
    let store = Store::create(&path, CreateOptions::default()).unwrap();
    let created = create(&store, CELLS);
    let mut dice = Dice::new(&[seed]);
    let mut children = Children { directory, running: Vec::new(), started: 0 };
    for _ in 0..deaths {
        while children.running.len() < at_once as usize {
            children.start();
        }
        thread::sleep(Duration::from_micros(dice.below(200_000)));
        let at = dice.index(children.running.len());
        if dice.once_in(3) {
            children.signal(at, Signal::SIGSTOP);
            thread::sleep(Duration::from_micros(dice.below(50_000)));
            children.signal(at, Signal::SIGCONT);
        }
        if dice.once_in(4) {
            // All history is kept: the log is compared at the end.
            match store.pack(Keep::From(created)) {
                Ok(_) | Err(TransactionError::Storage(StorageError::Locked { .. })) => {}
                Err(error) => panic!("pack: {error}"),
            }
        }
        children.kill(at);
    }
    while !children.running.is_empty() {
        children.kill(0);
    }
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

fn number(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |n| n.parse().expect("a number"))
}

#[test]
fn processes_that_are_killed_one_after_the_other_leave_a_history_of_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), 7, 1, number("ZBA_ISOLATION_DEATHS", DEATHS));
}

#[test]
fn processes_that_write_at_once_and_are_killed_leave_a_history_of_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let at_once = number("ZBA_ISOLATION_PROCESSES", AT_ONCE);
    let (seed, deaths) = (number("ZBA_ISOLATION_SEED", 8), number("ZBA_ISOLATION_DEATHS", DEATHS));
    run(directory.path(), u64::from(seed), at_once, deaths);
}
