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
//! Only one whose writes were made to fail may give up, by [`give_up`].

use std::fs::{File, Metadata};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Status of a child that gave up.
const GAVE_UP: i32 = 42;

/// Ends a child whose writes were made to fail.
pub(crate) fn give_up() -> ! {
    std::process::exit(GAVE_UP);
}

/// One thread that fails must not hide behind others that go on.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// How long children live and die.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u32,
    /// Children that run at once.
    pub(crate) at_once: u32,
    /// At least so many are killed.
    pub(crate) deaths: u32,
    /// At least so many transactions are tried.
    pub(crate) transactions: u32,
    /// It takes at least so long.
    pub(crate) seconds: u32,
    /// Whether the writes of some children fail when a file would become too long.
    pub(crate) failing_writes: bool,
}

impl Plan {
    /// This plan, unless the environment says otherwise.
    pub(crate) fn or_as_told(self) -> Self {
        Self {
            seed: number("ZBA_ISOLATION_SEED", self.seed),
            at_once: number("ZBA_ISOLATION_PROCESSES", self.at_once),
            deaths: number("ZBA_ISOLATION_DEATHS", self.deaths),
            transactions: number("ZBA_ISOLATION_TRANSACTIONS", self.transactions),
            seconds: number("ZBA_ISOLATION_SECONDS", self.seconds),
            ..self
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
    /// Starts a child; no file that it writes may become longer than `file_max`.
    fn start(&mut self, file_max: Option<u64>) {
        let program = std::env::current_exe().unwrap();
        let mut command = match file_max {
            None => Command::new(program),
            Some(bytes) => {
                let mut shell = Command::new("sh");
                // Without the signal the call fails instead.
                let limited = "trap '' XFSZ; ulimit -f $0; exec \"$@\"";
                shell.args(["-c", limited, &(bytes / 512).to_string()]).arg(program);
                shell
            }
        };
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
            let ended = process.try_wait().unwrap();
            if ended.is_some_and(|status| status.code() == Some(GAVE_UP)) {
                return;
            }
            assert!(ended.is_none(), "child {child} ended: {ended:?}");
            assert!(started.elapsed() < Duration::from_secs(60), "child {child} does nothing");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill(&mut self, at: usize) {
        let (number, mut child) = self.running.swap_remove(at);
        let ended = child.try_wait().unwrap();
        let gave_up = ended.is_some_and(|status| status.code() == Some(GAVE_UP));
        assert!(ended.is_none() || gave_up, "child {number} ended by itself: {ended:?}");
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
    let (mut deaths, begun, mut shown) = (0, Instant::now(), Instant::now());
    let longest = |files: &[Metadata]| files.iter().map(Metadata::len).max().unwrap_or(0);
    let whole = Duration::from_secs(plan.seconds.into());
    while deaths < plan.deaths
        || begun.elapsed() < whole
        || children.turns() < u64::from(plan.transactions)
    {
        while children.running.len() < plan.at_once as usize {
            let fails = plan.failing_writes && dice.once_in(6);
            children.start(fails.then(|| longest(&files(store.path())) + dice.below(4 << 20)));
        }
        thread::sleep(Duration::from_micros(dice.below(100_000)));
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

/// The files of a store, and what is known of each.
pub(crate) fn files(store: &Path) -> Vec<Metadata> {
    let inside = |directory: PathBuf| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let all = inside(store.to_owned()).flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => inside(entry.path()).collect(),
        _ => vec![entry],
    });
    // One may be gone by now.
    all.filter_map(|entry| entry.metadata().ok()).collect()
}

/// Sets its flag when it goes, also by a panic: other threads of a test end then.
pub(crate) struct Ends<'f>(pub(crate) &'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
