//! A file system of ours fails, loses what was not synced, and runs full, below a real process.
//!
//! ```text
//! this process: the table ---- lines ----> the server: lossy.rs behind FUSE, mounted
//!        \--> the program, a process of its own, with its store on the mount
//! ```
//!
//! After each run either the power is cut, or the machine stays up, the store is opened and goes
//! on, and then the power is cut: what was acknowledged must be there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::child::{self, Task};
use crate::judge::{Told, goes_on, judge};
use crate::lossy::{DIRECT_READ, REQUESTS};
use crate::program::is_sled;
use crate::served;
use crate::table::{Sample, Table};
use crate::workload::{History, WORKLOADS, Workload};

/// Commits of each workload.
const COMMITS: u64 = 10;
/// Space of the file system, in steps of so many bytes.
const CAP_STEP_BYTES: usize = 60_000;
const CAPS: usize = 60;

/// How requests fail: the word for the server, and the one for people.
const WAYS: [(&str, &str); 5] = [
    ("5", "EIO"),
    ("28", "ENOSPC"),
    ("4", "EINTR"),
    ("short", "short"),
    ("lost", "EIO, data gone"),
];

/// Runs the table, or a sample of it.
pub(crate) fn run(sample: Sample, table: &mut Table) {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(why) => return table.not_run("fuse", why),
    };
    if is_sled() {
        return power_cuts(&mut server, sample, table);
    }
    let mut number = 0;
    for (name, workload) in WORKLOADS {
        let counts = match server.profile(workload, sample.seed, Mode::Cached) {
            Ok(counts) => counts,
            Err(why) => {
                table.row("fuse", &format!("{name} without faults"), "-", Err(why));
                continue;
            }
        };
        let mut history = History::new(workload, sample.seed);
        for request in REQUESTS {
            let count = counts.get(request).copied().unwrap_or(0);
            let all = (1..=count).flat_map(|n| WAYS.iter().map(move |way| (n, way)));
            for (n, (word, way)) in all.filter(|(_, (word, _))| suits(request, word)) {
                for lasting in ["once", "lasting"] {
                    number += 1;
                    if lasting == "lasting" && matches!(*word, "4" | "short" | "lost")
                        || !sample.has(number)
                    {
                        continue;
                    }
                    let line = format!("fail {request} {n} {word} {lasting}");
                    let up = (number / sample.every).is_multiple_of(2);
                    let cached = Mode::Cached;
                    let result = server.one(&mut history, &line, lasting == "once", up, cached);
                    let place = |why| format!("{name}, {line}: {why}");
                    let way = match (&result, lasting) {
                        (Ok(Seen::Signal), _) => "EIO, as SIGBUS",
                        (_, "once") => *way,
                        _ => "from then on",
                    };
                    table.row("fuse", request, way, result.map(|_| ()).map_err(place));
                }
            }
        }
        for step in 1..CAPS {
            number += 1;
            if sample.has(number) {
                let line = format!("cap {}", step * CAP_STEP_BYTES);
                let result = server.one(
                    &mut history,
                    &line,
                    false,
                    (number / sample.every).is_multiple_of(2),
                    Mode::Cached,
                );
                let result = result.map_err(|why| format!("{name}, {line}: {why}"));
                table.row("fuse", "space", "ENOSPC at a size", result.map(|_| ()));
            }
        }
        short_transfers(&mut server, &mut history, name, sample, table);
    }
}

/// Each transfer past the cache is short once; and all of them are, which every run does, because
/// that meets each place that reads or writes.
fn short_transfers(
    server: &mut Server,
    history: &mut History,
    name: &str,
    sample: Sample,
    table: &mut Table,
) {
    let counts = match server.profile(history.workload, history.seed, Mode::Direct) {
        Ok(counts) => counts,
        Err(why) => {
            return table.row("fuse", &format!("{name} past the cache"), "-", Err(why));
        }
    };
    let mut number = 0;
    for request in [DIRECT_READ, "write"] {
        let count = counts.get(request).copied().unwrap_or(0);
        if count == 0 {
            let why = format!("{name}: there was none");
            table.row("fuse", request, "short", Err(why));
        }
        let once = (1..=count).map(|n| (n, "once"));
        for (n, lasting) in once.chain([(1, "lasting")]) {
            number += 1;
            if lasting == "once" && !sample.has(number) {
                continue;
            }
            let line = format!("fail {request} {n} short {lasting}");
            // Nothing is mended for the judge, who reads and commits: short is not broken.
            let up = lasting == "lasting" || number.is_multiple_of(2);
            let result = server.one(history, &line, true, up, Mode::Direct);
            let result = result.map(|_| ()).map_err(|why| format!("{name}, {line}: {why}"));
            let way = if lasting == "once" { "short" } else { "short, all of them" };
            table.row("fuse", &format!("{request}, no cache"), way, result);
        }
    }
}

/// System calls at which a program over the sled engine is killed, and the largest number.
const KILLED_AT: [(&str, usize); 3] = [("pwrite64", 160), ("pwritev", 16), ("fdatasync", 40)];

/// The sled engine: every write, sync and change of names is the last one before the power goes.
fn power_cuts(server: &mut Server, sample: Sample, table: &mut Table) {
    let mut number = 0;
    for (name, workload) in WORKLOADS {
        let counts = match server.profile(workload, sample.seed, Mode::Cached) {
            Ok(counts) => counts,
            Err(why) => {
                table.row("fuse", &format!("{name} without faults"), "-", Err(why));
                continue;
            }
        };
        let mut history = History::new(workload, sample.seed);
        let result = server.one(&mut history, "mend", false, false, Mode::Cached);
        table.row("fuse", "the end", "power cut", result.map(|_| ()));
        // Who is killed cannot sync once more when it closes its store, as sled does.
        for (call, most) in KILLED_AT {
            for n in 1..=most {
                number += 1;
                if sample.has(number) {
                    let result = server.killed(&mut history, call, n);
                    let result = result.map_err(|why| format!("{name}, {call} {n}: {why}"));
                    table.row("fuse", call, "killed, power cut", result);
                }
            }
        }
        for request in ["write", "fsync", "fsyncdir", "create", "rename", "setattr", "unlink"] {
            for n in 1..=counts.get(request).copied().unwrap_or(0) {
                number += 1;
                if sample.has(number) {
                    let line = format!("fail {request} {n} 5 lasting");
                    let result = server.one(&mut history, &line, false, false, Mode::Cached);
                    let result = result.map_err(|why| format!("{name}, {line}: {why}"));
                    table.row("fuse", request, "power cut", result.map(|_| ()));
                }
            }
        }
    }
}

fn suits(request: &str, way: &str) -> bool {
    match way {
        "28" => !matches!(request, "open" | "read" | "readdir" | "unlink"),
        // Reading is interrupted by signals only, which kill.
        "4" => matches!(request, "fsync" | "fsyncdir" | "fallocate" | "rename"),
        "short" => request == "write",
        "lost" => request == "fsync",
        _ => true,
    }
}

/// How the kernel moves bytes of files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Through its cache: a short write is one for the program as well, a short read is not.
    Cached,
    /// Straight from and to the memory of the program, which sees what was short.
    Direct,
}

/// The process that serves the file system.
struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    mount: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input makes it unmount and end.
        self.input = None;
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Result<Self, String> {
        if !Path::new("/dev/fuse").exists() {
            return Err("there is no /dev/fuse".to_owned());
        }
        let failed = |error: std::io::Error| error.to_string();
        let scratch = child::scratch(false)?;
        let mount = scratch.path().join("mount");
        std::fs::create_dir(&mount).map_err(failed)?;
        let own = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(own);
        command.arg(served::WORD).arg(&mount).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the server has no output")?;
        let output = BufReader::new(output);
        let mut server = Self { child, input, output, mount, _scratch: scratch };
        server.answer().map_err(|why| format!("cannot mount: {why}"))?;
        Ok(server)
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        match line.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => Err(format!("the server said: {}", line.trim())),
        }
    }

    fn tell(&mut self, line: &str) -> Result<String, String> {
        let input = self.input.as_mut().ok_or("the server has no input")?;
        writeln!(input, "{line}").map_err(|error| error.to_string())?;
        self.answer()
    }

    fn reset(&mut self, mode: Mode) -> Result<(), String> {
        self.tell("reset")?;
        if mode == Mode::Direct {
            self.tell("direct")?;
        }
        Ok(())
    }

    fn task(&self, workload: Workload, seed: u64) -> Task {
        let directory = self.mount.join("store");
        Task { workload, seed, until: COMMITS, directory }
    }

    /// How many requests of each kind a program makes that nothing disturbs.
    fn profile(
        &mut self,
        workload: Workload,
        seed: u64,
        mode: Mode,
    ) -> Result<BTreeMap<String, usize>, String> {
        self.reset(mode)?;
        let ended = self.task(workload, seed).run(&[]).map_err(|error| error.to_string())?;
        let mut told = Told::default();
        told.hear_all(&ended.printed);
        if !ended.status.success() || !told.done {
            return Err(format!("{}: {} {}", ended.status, ended.printed, ended.complained));
        }
        let counts = self.tell("counts")?;
        let counts = counts.split_whitespace().filter_map(|word| word.split_once('='));
        Ok(counts.filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?))).collect())
    }

    /// One program that is killed when it enters its n-th call, just before the power goes.
    fn killed(&mut self, history: &mut History, call: &str, n: usize) -> Result<(), String> {
        self.tell("reset")?;
        let task = self.task(history.workload, history.seed);
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:signal=SIGKILL:when={n}");
        let before = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        let ended = task.run(&before).map_err(|error| error.to_string())?;
        let mut told = Told::default();
        told.hear_all(&ended.printed);
        if !ended.status.success() && ended.status.signal() != Some(libc::SIGKILL) {
            return Err(format!("{}: {}", ended.status, ended.complained));
        }
        self.tell("crash")?;
        let disk = child::disk(&task.directory);
        judge(&disk, history, &told).map_err(|why| format!("after a power cut: {why}"))?;
        goes_on(&disk, history).map(drop)
    }

    /// One program with one fault.
    fn one(
        &mut self,
        history: &mut History,
        line: &str,
        once: bool,
        up: bool,
        mode: Mode,
    ) -> Result<Seen, String> {
        self.reset(mode)?;
        self.tell(line)?;
        let task = self.task(history.workload, history.seed);
        let ended = task.run(&[]).map_err(|error| error.to_string())?;
        let mut told = Told::default();
        told.hear_all(&ended.printed);
        // Reading through a view cannot return an error: the kernel sends a signal.
        let by_view = ended.status.signal() == Some(libc::SIGBUS) && line.starts_with("fail read");
        if !ended.status.success() && !by_view {
            return Err(format!("{}: {}", ended.status, ended.complained));
        }
        if once && !told.done && !by_view {
            told.bad.push("one failing call stopped the program for good".to_owned());
        }
        if line.contains("short") && told.errors > 0 {
            told.bad.push("a short transfer was not continued".to_owned());
        }
        let disk = child::disk(&task.directory);
        let before_cut = |why| format!("while the machine is up: {why}");
        if up {
            if mode == Mode::Cached {
                self.tell("mend")?;
            }
            judge(&disk, history, &told).map_err(before_cut)?;
            let n = goes_on(&disk, history).map_err(before_cut)?;
            told = Told { acknowledged: n, issued: n, existed: true, ..Told::default() };
        }
        self.tell("crash")?;
        judge(&disk, history, &told).map_err(|why| format!("after a power cut: {why}"))?;
        goes_on(&disk, history)?;
        Ok(if by_view { Seen::Signal } else { Seen::Error })
    }
}

/// What the program saw of a fault.
#[derive(PartialEq, Eq)]
enum Seen {
    /// An error, or nothing where it could be made up for.
    Error,
    /// A signal, because it was looking at mapped memory.
    Signal,
}
