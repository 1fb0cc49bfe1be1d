//! `zba who` and `zba watch` beside processes that have the same store open.
//!
//! The test itself is one of the processes; the others are the real program.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "helpers fail as their test does")]

use std::io::{BufRead, BufReader, Lines, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ndarray::{Array1, Ix1};
use serde_json::Value;
use tempfile::TempDir;
use zbigarray::{CreateOptions, Keep, Store, Tid};

/// After so long the program is taken to hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than a pipe takes.
const ELEMENTS: u64 = 1 << 18;

/// A directory with a store in it that this process has open.
struct Company {
    dir: TempDir,
    store: Store,
}

impl Company {
    /// With an array `ecg`, which is commit 1.
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        let mut ecg = transaction.create::<f64, Ix1>("ecg", &[0]).unwrap();
        ecg.append(&Array1::from_elem(1 << 18, 1.0)).unwrap();
        drop(ecg);
        transaction.commit_with_note("the first").unwrap();
        Self { dir, store }
    }

    /// Stores `value` into elements of `ecg`, so many from the first on.
    fn fill(&self, count: usize, value: f64) -> Tid {
        let transaction = self.store.begin().unwrap();
        let mut ecg = transaction.open::<f64, Ix1>("ecg").unwrap();
        ecg.set(format!(":{count}").as_str(), value).unwrap();
        drop(ecg);
        transaction.commit_with_note(&format!("fill {value}")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zba"));
        command.args(arguments).current_dir(self.dir.path()).env("TZ", "UTC");
        let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(streams.spawn().unwrap())
    }

    fn who(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_zba"))
            .args(["who", "s", "--json"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `who` says of process `pid` as soon as `is_so` is true of it.
    #[track_caller]
    fn who_is(&self, pid: u32, is_so: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let told = self.who();
            let of_pid = |one: &&Value| one["pid"] == pid && is_so(one);
            if let Some(one) = told["processes"].as_array().unwrap().iter().find(of_pid) {
                return one.clone();
            }
            assert!(begin.elapsed() < PATIENCE, "{pid}: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A run of the program, which ends with the test.
struct Running(Child);

impl Running {
    fn lines(&mut self) -> Lines<BufReader<ChildStdout>> {
        BufReader::new(self.0.stdout.take().unwrap()).lines()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// The code it ended with by itself, and what it said.
    #[track_caller]
    fn ended(mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut errors = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (status.code(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
}

#[test]
fn watch_shows_commits_of_other_processes_as_they_happen() {
    let company = Company::new();
    let mut watch = company.start(&["watch", "s", "--after", "0", "-n", "4", "--json"]);
    let mut lines = watch.lines();
    let first = next(&mut lines);
    assert_eq!((&first["commit"], &first["note"]), (&1.into(), &"the first".into()));
    assert_eq!(first["changed"][0]["name"], "ecg");
    company.fill(1000, 2.0);
    let second = next(&mut lines);
    assert_eq!((&second["commit"], &second["note"]), (&2.into(), &"fill 2".into()));
    assert_eq!((&second["changed"][0]["name"], &second["bytes"]), (&"ecg".into(), &8192.into()));
    assert_eq!(second["changed"][0]["pages"], 2);
    assert_eq!(second["changed"][0]["blocks"], serde_json::json!([[0, 1]]));
    let mv = company.start(&["mv", "s", "ecg", "moved", "-q"]);
    assert_eq!(mv.ended(), (Some(0), String::new()));
    assert_eq!(next(&mut lines)["changed"][0]["name"], "moved");
    let attrs = company.start(&["attrs", "s", "moved", "gain=2", "-q"]);
    assert_eq!(attrs.ended(), (Some(0), String::new()));
    assert_eq!(next(&mut lines)["commit"], 4);
    assert!(lines.next().is_none(), "four were asked for");
    assert_eq!(watch.ended(), (Some(0), String::new()));
}

#[test]
fn files_that_processes_append_at_once_are_all_there() {
    let company = Company::new();
    let bytes =
        |n: u64| [n as f64; 1000].iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<_>>();
    for n in 0..8 {
        std::fs::write(company.path(&n.to_string()), bytes(n)).unwrap();
    }
    let raw = ["--raw", "--dtype", "f8", "--shape", "1000", "--append", "-q"];
    let start = |n: u64| {
        let n = n.to_string();
        company.start(&[&["import", "s", "ecg", n.as_str()][..], &raw].concat())
    };
    let all: Vec<_> = (0..8).map(start).collect();
    all.into_iter().for_each(|one| assert_eq!(one.ended(), (Some(0), String::new())));
    let reader = company.store.begin_read().unwrap();
    let ecg = reader.open::<f64, Ix1>("ecg").unwrap();
    let rows = ecg.rows(1 << 18..(1 << 18) + 8000).unwrap();
    let mut found: Vec<f64> = rows.exact_chunks(1000).into_iter().map(|part| part[0]).collect();
    assert!(rows.exact_chunks(1000).into_iter().all(|part| part.iter().all(|it| it == &part[0])));
    found.sort_by(f64::total_cmp);
    assert_eq!(found, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn what_was_renamed_has_its_new_name_from_then_on() {
    let company = Company::new();
    assert_eq!(company.start(&["mv", "s", "ecg", "moved", "-q"]).ended().0, Some(0));
    let transaction = company.store.begin().unwrap();
    transaction.open::<f64, Ix1>("moved").unwrap().set("0", 3.0).unwrap();
    transaction.commit().unwrap();
    let mut log = company.start(&["log", "s", "--json"]);
    let told = next(&mut log.lines());
    let names = told["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|commit| commit["changed"][0]["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["moved", "moved", "ecg"]);
}

#[test]
fn watch_ends_at_ctrl_c_and_when_nobody_reads_it() {
    let company = Company::new();
    for end in ["-INT", "closed"] {
        let mut watch = company.start(&["watch", "s", "--after", "0", "-q"]);
        let mut lines = watch.lines();
        let heading = lines.next().unwrap().unwrap();
        assert!(heading.trim_start().starts_with("TID  TIME"), "{heading}");
        let line = lines.next().unwrap().unwrap();
        assert!(line.trim_start().starts_with("1  ") && line.contains("ecg (block 0)"), "{line}");
        assert!(line.ends_with("  the first"), "{line}");
        match end {
            "closed" => drop(lines),
            signal => watch.signal(signal),
        }
        assert_eq!(watch.ended(), (Some(0), String::new()), "{end}");
    }
}

#[test]
fn watch_begins_at_a_commit_that_is_there_and_says_what_was_packed_away() {
    let company = Company::new();
    let (code, errors) = company.start(&["watch", "s", "--after", "7"]).ended();
    assert_eq!((code, errors.contains("no commit 7")), (Some(1), true), "{errors}");
    company.fill(1000, 2.0);
    company.store.pack(Keep::Head).unwrap();
    let (code, errors) = company.start(&["watch", "s", "--after", "1"]).ended();
    assert_eq!((code, errors.contains("packed away")), (Some(1), true), "{errors}");
}

#[test]
fn who_shows_a_process_that_holds_a_snapshot_and_what_it_holds() {
    let company = Company::new();
    let own = company.who_is(std::process::id(), |_| true);
    assert_eq!((&own["state"], &own["snapshot"]), (&"alive".into(), &Value::Null), "{own}");
    // It cannot end before somebody reads what it writes.
    let export = company.start(&["export", "s", "ecg", "-"]);
    let pid = export.0.id();
    let one = company.who_is(pid, |one| one["snapshot"] == 1);
    assert_eq!((&one["command"], &one["behind"]), (&"zba".into(), &0.into()), "{one}");
    assert_eq!((&one["held_bytes"], &one["expired"]), (&0.into(), &false.into()), "{one}");
    let all = usize::try_from(ELEMENTS).unwrap();
    company.fill(all, 3.0);
    let one = company.who_is(pid, |one| one["behind"] == 1);
    assert_eq!(one["held_bytes"], ELEMENTS * 8, "{one}");
    assert!(one["snapshot_age_seconds"].as_f64().unwrap() > 0.0, "{one}");
    export.signal("-STOP");
    company.who_is(pid, |one| one["state"] == "stopped");
    let mut who = company.start(&["who", "s"]);
    let text: Vec<String> = who.lines().map(Result::unwrap).collect();
    assert!(text[0].contains("PID  COMMAND") && text[0].ends_with("HOLDS  STATE"), "{text:?}");
    let line = text.iter().find(|line| line.trim_start().starts_with(&pid.to_string())).unwrap();
    assert!(line.contains("2.0 MiB") && line.ends_with("stopped"), "{line}");
    assert_eq!(text.len(), 3, "heading, this process, the other one: {text:?}");
    export.signal("-CONT");
    drop(export);
    let left = company.who();
    assert_eq!(left["processes"].as_array().unwrap().len(), 1, "{left}");
    assert!(company.path("s/shared").exists());
}
