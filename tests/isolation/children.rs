//! Processes that work on one store until they are killed.
//!
//! ```text
//! child 0  |---- three threads ----x SIGKILL
//! child 1  |------ SIGSTOP ... SIGCONT ------x         each death starts the next child
//! child 2          |-----------------------
//! test     starts, stops, kills, packs | ends all
//! ```
//!
//! A child is this program, told by the environment to run one test only: the one that calls
//! [`be_a_child`].
//!
//! # Failure
//!
//! A child that ends by itself, or does nothing, fails the test. Whoever is left then goes, too.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbigarray::txn::{StorageError, TransactionError};
use zbigarray::{Keep, OpenOptions, Store};

use super::dice::Dice;

/// Threads of each child.
const THREADS: u32 = 3;
/// Names the directory, and says which child this is.
const DIRECTORY: &str = "ZBA_ISOLATION_DIRECTORY";
const NUMBER: &str = "ZBA_ISOLATION_CHILD";

/// The number in the environment variable `name`, or another one.
pub(crate) fn number(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |n| n.parse().expect("a number"))
}

/// The store of a directory.
pub(crate) fn store_in(directory: &Path) -> PathBuf {
    directory.join("s")
}

/// Where a child writes one byte for each transaction.
fn turns_of(directory: &Path, child: u32) -> PathBuf {
    directory.join(format!("{child}.turns"))
}

/// In a child: works on the store with several threads until it is killed. In any other process it
/// does nothing. `worker` gets the store, the directory and a number above 0 that no other thread
/// of any child has; it returns what does one transaction.
pub(crate) fn be_a_child<W: FnMut()>(worker: impl Fn(Store, &Path, u32) -> W + Sync) {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let child = number(NUMBER, 0);
    let store = Store::open(store_in(&directory), OpenOptions::default()).unwrap();
    let turns = File::options().create(true).append(true).open(turns_of(&directory, child));
    let turns = turns.unwrap();
    thread::scope(|scope| {
        for name in child * THREADS + 1..=child * THREADS + THREADS {
            let (store, directory, worker, mut turns) =
                (store.clone(), &directory, &worker, &turns);
            scope.spawn(move || {
                let _guard = EndsTheProcess;
                let mut turn = worker(store, directory, name);
                loop {
                    turn();
                    turns.write_all(b".").unwrap();
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

/// How long children live and die.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u32,
    /// Children that run at once.
    pub(crate) at_once: u32,
    /// At least so many are killed.
    pub(crate) deaths: u32,
    /// At least so many transactions are tried.
    pub(crate) transactions: u32,
}

impl Plan {
    /// This plan, unless the environment says otherwise.
    pub(crate) fn or_as_told(self) -> Self {
        Self {
            seed: number("ZBA_ISOLATION_SEED", self.seed),
            at_once: number("ZBA_ISOLATION_PROCESSES", self.at_once),
            deaths: number("ZBA_ISOLATION_DEATHS", self.deaths),
            transactions: number("ZBA_ISOLATION_TRANSACTIONS", self.transactions),
        }
    }
}

/// The children that run.
struct Children<'d> {
    directory: &'d Path,
    test: &'static str,
    running: Vec<(u32, Child)>,
    started: u32,
}

impl Children<'_> {
    fn start(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", self.test, "--nocapture", "--test-threads", "1"]);
        command.env(DIRECTORY, self.directory).env(NUMBER, self.started.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        self.is_at_work(&mut child);
        self.running.push((self.started, child));
        self.started += 1;
    }

    /// Waits until the newest child has begun to work.
    fn is_at_work(&self, process: &mut Child) {
        let (child, started) = (self.started, Instant::now());
        let turns = turns_of(self.directory, child);
        while std::fs::metadata(&turns).map_or(0, |file| file.len()) == 0 {
            assert!(process.try_wait().unwrap().is_none(), "child {child} ended");
            assert!(started.elapsed() < Duration::from_secs(60), "child {child} does nothing");
            thread::sleep(Duration::from_millis(1));
        }
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

    /// Transactions that all children tried.
    fn turns(&self) -> u64 {
        let turns = (0..self.started).map(|child| turns_of(self.directory, child));
        turns.map(|file| std::fs::metadata(file).map_or(0, |file| file.len())).sum()
    }
}

impl Drop for Children<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs children that do `test` in `directory` as planned, and packs `store` meanwhile.
pub(crate) fn live_and_die(
    directory: &Path,
    store: &Store,
    keep: Keep,
    test: &'static str,
    plan: Plan,
) {
    let mut dice = Dice::new(&[u64::from(plan.seed)]);
    let mut children = Children { directory, test, running: Vec::new(), started: 0 };
    let (mut deaths, mut shown) = (0, Instant::now());
    while deaths < plan.deaths || children.turns() < u64::from(plan.transactions) {
        while children.running.len() < plan.at_once as usize {
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
            match store.pack(keep) {
                Ok(_) | Err(TransactionError::Storage(StorageError::Locked { .. })) => {}
                Err(error) => panic!("pack: {error}"),
            }
        }
        children.kill(at);
        deaths += 1;
        if shown.elapsed() > Duration::from_secs(10) {
            println!("{deaths} killed, {} transactions", children.turns());
            shown = Instant::now();
        }
    }
    println!("{deaths} killed of {} at once, {} transactions", plan.at_once, children.turns());
    while !children.running.is_empty() {
        children.kill(0);
    }
}
