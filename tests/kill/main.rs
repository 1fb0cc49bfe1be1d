//! Processes that are killed while they commit, again and again on the same store.
//!
//! ```text
//! child: issued 7 | acknowledged 7 | issued 8 |   <- SIGKILL, at a random time or a system call
//! then:  the store is at 7 or 8, byte for byte; nothing is left behind; the next child goes on
//! ```
//!
//! A killed process loses nothing that it passed to the kernel, so this says nothing of missing
//! syncs. It shows what power cuts in a simulation cannot: real files, locks and processes, and
//! damage that adds up over many deaths.
//!
//! `cargo xtask kill --runs N --seed S`; under `cargo test` a short sample runs. With
//! `ZBA_ENGINE=sled` the stores are of the sled engine.
//!
//! # Failure
//!
//! Status 1 if a promise was broken. The store stays where it is, and the line says how to get
//! there again.

#[path = "../faults/child.rs"]
mod child;
#[path = "../faults/judge.rs"]
mod judge;
#[path = "../faults/program.rs"]
mod program;
#[path = "../faults/workload.rs"]
mod workload;

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use child::Task;
use judge::{Told, gives_back, goes_on, judge};
use workload::{Dice, History, WORKLOADS};

/// Runs under `cargo test`.
const SAMPLE: u64 = 12;
/// Children that die on one store before the next store begins.
const DEATHS: u64 = 24;
/// Commits that a child may make.
const COMMITS: u64 = 30;

/// System calls at whose n-th occurrence a child is killed, and the largest n.
const CALLS: [(&str, usize); 10] = [
    ("pwritev", 60),
    ("fdatasync", 60),
    ("openat", 30),
    ("fallocate", 10),
    ("rename", 6),
    ("fsync", 12),
    ("unlink", 10),
    ("ftruncate", 4),
    ("mmap", 60),
    ("pread64", 20),
];

/// How a child dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// So long after it was started.
    After(Duration),
    /// On entering the n-th system call of a name, or never.
    At(&'static str, usize),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [child::WORD, rest @ ..] if child::main(rest) => ExitCode::SUCCESS,
        ["run", rest @ ..] => match options(rest) {
            Some((runs, seed)) => many(runs, seed),
            None => {
                eprintln!("run [--runs N] [--seed S]");
                ExitCode::from(2)
            }
        },
        // What a test harness is asked for when somebody lists tests.
        words if words.contains(&"--list") => ExitCode::SUCCESS,
        _ => {
            let local = many(SAMPLE, 1);
            if local == ExitCode::SUCCESS { over_sled(SAMPLE / 2) } else { local }
        }
    }
}

/// A sample over the sled engine, in a process of its own.
fn over_sled(runs: u64) -> ExitCode {
    let status = std::env::current_exe().and_then(|own| {
        let mut command = Command::new(own);
        command.args(["run", "--runs", &runs.to_string()]).env("ZBA_ENGINE", "sled").status()
    });
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn options(mut words: &[&str]) -> Option<(u64, u64)> {
    let (mut runs, mut seed) = (500, 1);
    while let [name, value, rest @ ..] = words {
        match *name {
            "--runs" => runs = value.parse().ok()?,
            "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
        words = rest;
    }
    words.is_empty().then_some((runs, seed))
}

/// What the runs came to.
#[derive(Default)]
struct Sums {
    runs: u64,
    stores: u64,
    commits: u64,
    /// Children killed while a commit was issued and not acknowledged.
    in_commit: u64,
    /// Of these commits, those that are there.
    made: u64,
    /// Children that ended before they were killed.
    survivors: u64,
    died_at: std::collections::BTreeMap<&'static str, u64>,
    by_time: Duration,
    by_call: Duration,
}

fn many(runs: u64, seed: u64) -> ExitCode {
    let by_call = Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !by_call {
        println!("not run: kills at the n-th system call: strace cannot be started");
    }
    let started = Instant::now();
    let mut sums = Sums::default();
    while sums.runs < runs {
        let number = sums.stores;
        let most = DEATHS.min(runs - sums.runs);
        if let Err(why) = one_store(seed, number, most, by_call, &mut sums) {
            println!("FAILED: {why}");
            return ExitCode::FAILURE;
        }
        sums.stores += 1;
    }
    sums.print(started.elapsed());
    ExitCode::SUCCESS
}

impl Sums {
    fn print(&self, elapsed: Duration) {
        let Self { runs, stores, commits, in_commit, made, survivors, .. } = self;
        println!(
            "{runs} children on {stores} stores in {:.1} s: {commits} commits kept; \
             {in_commit} died in a commit, {made} of these commits are there; {survivors} ended",
            elapsed.as_secs_f64(),
        );
        for (name, count) in &self.died_at {
            println!("  killed at {name:10} {count:5}");
        }
        let (by_time, by_call) = (self.by_time.as_secs_f64(), self.by_call.as_secs_f64());
        println!("  children killed by time took {by_time:.1} s, by system call {by_call:.1} s");
    }
}

/// `deaths` children, one after the other, on a store of their own.
fn one_store(
    seed: u64,
    number: u64,
    deaths: u64,
    by_call: bool,
    sums: &mut Sums,
) -> Result<(), String> {
    let mut dice = Dice::new(seed, number);
    // Upkeep does everything, so it comes more often.
    let workload = WORKLOADS[dice.below(5).min(2)].1;
    // On a real disk a child dies more often while it waits; in memory, between calls.
    let scratch = child::scratch(dice.below(2) == 0)?;
    let directory = scratch.path().join("store");
    let mut history = History::new(workload, seed.wrapping_mul(1_000_003) + number);
    let mut told = Told::default();
    let mut patience = Duration::from_millis(40);
    for turn in 0..deaths {
        let until = told.acknowledged + COMMITS;
        let (seed_of_store, directory) = (history.seed, directory.clone());
        let task = Task { workload, seed: seed_of_store, until, directory };
        let death = match by_call && dice.below(2) == 0 {
            true => {
                let (name, most) = CALLS[dice.below(CALLS.len())];
                Death::At(name, 1 + dice.below(most))
            }
            false => {
                let micros = dice.below(usize::try_from(patience.as_micros()).unwrap_or(40_000));
                Death::After(Duration::from_micros(micros as u64))
            }
        };
        let result = one(&task, death, &mut history, &mut told, sums, &mut patience);
        let result = result.and_then(|()| match (turn % 8, turn + 1 == deaths) {
            (_, true) => gives_back(&child::disk(&task.directory)),
            (7, _) => {
                let n = goes_on(&child::disk(&task.directory), &mut history)?;
                (told.acknowledged, told.issued, told.existed) = (n, n, true);
                Ok(())
            }
            _ => Ok(()),
        });
        if let Err(why) = result {
            let kept = scratch.keep();
            return Err(format!(
                "{why}\n  seed {seed}, store {number} ({}), child {turn}, {death:?}, kept in {}",
                workload.name(),
                kept.display()
            ));
        }
    }
    sums.commits += told.acknowledged;
    Ok(())
}

/// One child: starts, dies, is judged.
fn one(
    task: &Task,
    death: Death,
    history: &mut History,
    told: &mut Told,
    sums: &mut Sums,
    patience: &mut Duration,
) -> Result<(), String> {
    let started = Instant::now();
    let (printed, killed) = match death {
        Death::After(time) => killed_after(task, time)?,
        Death::At(call, n) => killed_at(task, call, n)?,
    };
    let elapsed = started.elapsed();
    match death {
        Death::After(_) => sums.by_time += elapsed,
        Death::At(..) => sums.by_call += elapsed,
    }
    // What a whole life takes, so that deaths fall all over it.
    if let (false, Death::After(_)) = (killed, death) {
        *patience = elapsed;
    }
    told.done = false;
    told.hear_all(&printed);
    if told.errors > 0 {
        return Err(format!("the library returned an error: {printed}"));
    }
    sums.runs += 1;
    match (killed, death) {
        (false, _) if !told.done => return Err(format!("it gave up: {printed}")),
        (false, _) => sums.survivors += 1,
        (true, Death::At(call, _)) => *sums.died_at.entry(call).or_default() += 1,
        (true, Death::After(_)) => *sums.died_at.entry("a time").or_default() += 1,
    }
    let open = told.issued > told.acknowledged;
    let head = judge(&child::disk(&task.directory), history, told)?;
    if let Some(head) = head {
        sums.in_commit += u64::from(open);
        sums.made += u64::from(open && head == told.issued);
        (told.acknowledged, told.issued) = (head, head);
    }
    Ok(())
}

/// Kills the child some time after its start. Returns what it printed and whether it was killed.
fn killed_after(task: &Task, time: Duration) -> Result<(String, bool), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut child = task.command(&[]).and_then(|mut command| command.spawn()).map_err(failed)?;
    let started = Instant::now();
    let out = child.stdout.take();
    let errors = child.stderr.take();
    let reader = thread::spawn(move || read_all(out));
    let complaints = thread::spawn(move || read_all(errors));
    // Sleeping is precise enough: where the child is by then is chance anyway.
    thread::sleep(time.saturating_sub(started.elapsed()));
    child.kill().map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    let printed = reader.join().unwrap_or_default();
    let complained = complaints.join().unwrap_or_default();
    judged(status, printed, &complained)
}

/// Kills the child when it enters its n-th call of a system call.
fn killed_at(task: &Task, call: &str, n: usize) -> Result<(String, bool), String> {
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e"];
    let mut before: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    before.push(format!("trace={call}"));
    before.push("-e".to_owned());
    before.push(format!("inject={call}:signal=SIGKILL:when={n}"));
    let ended = task.run(&before).map_err(|error| error.to_string())?;
    judged(ended.status, ended.printed, &ended.complained)
}

fn judged(
    status: std::process::ExitStatus,
    printed: String,
    complained: &str,
) -> Result<(String, bool), String> {
    use std::os::unix::process::ExitStatusExt;
    match (status.success(), status.signal()) {
        (true, _) => Ok((printed, false)),
        (_, Some(libc::SIGKILL)) => Ok((printed, true)),
        _ => Err(format!("it ended with {status}: {complained}")),
    }
}

fn read_all(from: Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        let _ = from.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
