//! Every system call that a process makes on the files of its store fails, one by one.
//!
//! ```text
//! strace -f -y -o log program     which calls of which kind touch the store: the n-th of each
//! strace -e inject=...:when=n     that one fails, the program goes on
//! ```
//!
//! What fails here is the real back end with its real loops: an interrupted call must be repeated
//! where that is right, and a failed one must be reported where it is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::child::{self, Task};
use crate::judge::{Told, goes_on, judge};
use crate::table::{Sample, Table};
use crate::workload::{History, WORKLOADS, Workload};

/// Commits of each workload.
const COMMITS: u64 = 10;

/// System calls that touch files, and the errors they get.
const CALLS: [(&str, &[&str]); 15] = [
    ("openat", &["EIO", "ENOSPC", "EINTR", "EMFILE"]),
    ("pread64", &["EIO", "EINTR"]),
    ("pwritev", &["EIO", "ENOSPC", "EINTR", "EDQUOT"]),
    ("fdatasync", &["EIO", "ENOSPC", "EINTR"]),
    ("fsync", &["EIO", "ENOSPC", "EINTR"]),
    ("fallocate", &["EIO", "ENOSPC", "EINTR", "EOPNOTSUPP"]),
    ("ftruncate", &["EIO", "ENOSPC", "EINTR"]),
    ("rename", &["EIO", "ENOSPC", "EINTR"]),
    ("unlink", &["EIO", "EINTR"]),
    ("mkdir", &["EIO", "ENOSPC"]),
    ("getdents64", &["EIO"]),
    ("newfstatat", &["EIO"]),
    ("statx", &["EIO"]),
    ("fcntl", &["EIO", "EINTR"]),
    ("mmap", &["ENOMEM", "EIO"]),
];

/// Calls that are simply made again when a signal interrupts them; a sync never is.
const REPEATED: [&str; 6] = ["openat", "pread64", "pwritev", "fallocate", "ftruncate", "fcntl"];

/// Runs the table, or a sample of it.
pub(crate) fn run(sample: Sample, table: &mut Table) {
    if let Err(why) = Command::new("strace").arg("--version").output() {
        return table.not_run("strace", format!("strace cannot be started: {why}"));
    }
    let mut number = 0;
    for (name, workload) in WORKLOADS {
        let calls = match profile(workload, sample.seed) {
            Ok(calls) => calls,
            Err(why) => {
                table.row("strace", &format!("{name} without faults"), "-", Err(why));
                continue;
            }
        };
        let mut history = History::new(workload, sample.seed);
        for (call, numbers) in calls {
            let errors = CALLS.iter().find(|(known, _)| *known == call).map_or(&[][..], |it| it.1);
            for (n, error) in numbers.iter().flat_map(|n| errors.iter().map(move |e| (n, e))) {
                for (lasts, plus) in [("", ""), (" from then on", "+")] {
                    number += 1;
                    // What must go on for ever is not an interruption.
                    let can_last = plus.is_empty() || matches!(*error, "EIO" | "ENOSPC");
                    if !can_last || !sample.has(number) {
                        continue;
                    }
                    let inject = format!("inject={call}:error={error}:when={n}{plus}");
                    let result = one(&mut history, &inject, plus.is_empty());
                    if result == Ok(Reached::No) {
                        table.row("strace", &call, "not reached", Ok(()));
                        continue;
                    }
                    let result = result.map(|_| ());
                    let place = |why| format!("{name}, {inject}: {why}");
                    let error = format!("{error}{lasts}");
                    table.row("strace", &call, &error, result.map_err(place));
                }
            }
        }
    }
}

fn task(workload: Workload, seed: u64, directory: &Path) -> Task {
    Task { workload, seed, until: COMMITS, directory: directory.join("store") }
}

fn strace(log: &Path, expressions: &[&str]) -> Vec<String> {
    let mut words = vec!["strace", "-f", "-y", "-qq", "-o"];
    let log = log.display().to_string();
    words.push(&log);
    expressions.iter().for_each(|expression| words.extend(["-e", expression]));
    words.into_iter().map(str::to_owned).collect()
}

/// For each system call the numbers, counted from 1, of those by the main thread on the store.
fn profile(workload: Workload, seed: u64) -> Result<BTreeMap<String, Vec<usize>>, String> {
    let scratch = child::scratch(true)?;
    let (log, task) = (scratch.path().join("log"), task(workload, seed, scratch.path()));
    let names: Vec<&str> = CALLS.iter().map(|(name, _)| *name).collect();
    let traced = format!("trace={}", names.join(","));
    let ended = task.run(&strace(&log, &[&traced])).map_err(|error| error.to_string())?;
    if !ended.status.success() {
        return Err(format!("{}: {}", ended.status, ended.complained));
    }
    let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    let main = text.split_whitespace().next().unwrap_or_default().to_owned();
    let store = task.directory.display().to_string();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, arguments)) = line.strip_prefix(&main).and_then(|l| l.split_once('('))
        else {
            continue;
        };
        let name = name.trim().to_owned();
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        if arguments.contains(&store) {
            found.entry(name).or_default().push(*count);
        }
    }
    if found.is_empty() { Err("strace saw no call".to_owned()) } else { Ok(found) }
}

/// Whether a program made the call that was to fail: how it uses memory differs a little from run
/// to run.
#[derive(PartialEq, Eq)]
enum Reached {
    Yes,
    No,
}

/// One program, one injection.
fn one(history: &mut History, inject: &str, once: bool) -> Result<Reached, String> {
    let scratch = child::scratch(true)?;
    let (log, task) =
        (scratch.path().join("log"), task(history.workload, history.seed, scratch.path()));
    let call = inject.trim_start_matches("inject=").split(':').next().unwrap_or_default();
    let traced = format!("trace={call}");
    let ended = task.run(&strace(&log, &[&traced, inject])).map_err(|error| error.to_string())?;
    if !ended.status.success() {
        return Err(format!("{}: {}", ended.status, ended.complained));
    }
    let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    if !text.contains("(INJECTED)") {
        return Ok(Reached::No);
    }
    let mut told = Told::default();
    told.hear_all(&ended.printed);
    if once && !told.done {
        told.bad.push("one failing call stopped the program for good".to_owned());
    }
    if inject.contains("EINTR") && REPEATED.contains(&call) && told.errors > 0 {
        told.bad.push("an interrupted call was not repeated".to_owned());
    }
    let disk = child::disk(&task.directory);
    judge(&disk, history, &told)?;
    goes_on(&disk, history).map(|_| Reached::Yes)
}
