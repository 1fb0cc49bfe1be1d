//! Everything that can be tested, as one table.
//!
//! ```text
//! Python ready? -- yes --> ZBA_PYTHON, ZBA_SAMPLE_DATA set for the tests and the demo
//!               -- no ---> its step FAILED, and so is the oracle step; the rest still runs
//! ```
//!
//! # Invariants
//!
//! 1. A test that compares with NumPy is in a module `numpy...` of `tests/it`; it says "not run"
//!    and passes when `ZBA_PYTHON` is not set, so that plain `cargo test` works anywhere.
//! 2. The oracle step passes only if Python was ready and at least one such test ran and passed.
//!
//! # Failure
//!
//! No network where Python packages are missing: the Python and the oracle steps fail.

use std::cell::OnceCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use crate::check;
use crate::crash;
use crate::faults;
use crate::fuzz;
use crate::isolation;
use crate::kill;
use crate::packages;
use crate::python::{self, Python};
use crate::shuttle;
use crate::sled;
use crate::soak;
use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// Of the runs of each rig of faults, one in so many: a minute in all.
const FAULTS_EVERY: u32 = 16;

/// `cargo xtask test`; `quick` leaves out what takes longest.
pub(crate) fn run(workspace: &Workspace, quick: bool) -> ExitCode {
    let python = OnceCell::new();
    let mut table = check::lints(workspace);
    if !quick {
        table.push(Step::new("Python, NumPy, sample data", || prepare(workspace, &python)));
        table.push(packages::for_rigs(workspace));
    }
    table.push(Step::new("tests", || {
        steps::run_command(with_python(tests(workspace), python.get()))
    }));
    table.push(Step::command("any bytes", fuzz::replay(workspace)));
    if !quick {
        table.push(Step::command("tests, loaded and encoded", lazy_tests(workspace)));
    }
    if !quick {
        table.push(shuttle::short(workspace));
        table.extend(faults::rows(workspace, &faults::Options::sample(FAULTS_EVERY)));
        table.push(kill::row(workspace, kill::Options::default()));
        table.extend(sled::rows(workspace, &sled::Options::short()));
        table.extend(isolation::rows(workspace, &isolation::Options::short()));
        table.push(soak::row(workspace, &soak::Options::short()));
        table.push(Step::new("tests against NumPy", || oracle(workspace, python.get())));
        table.extend(check::documents(workspace));
        table.push(Step::command("demo, 64 MiB", demo(workspace)));
        table.push(Step::command("demo, weather", small_demo(workspace, "day_night")));
        table.push(Step::command("demo, matrices", small_demo(workspace, "matrices")));
        table.push(Step::command("demo, validation", small_demo(workspace, "nested_cv")));
        table.push(Step::new("real data against NumPy", || real_data(workspace, python.get())));
    }
    if !quick {
        table.push(Step::command("crashes, 20,000 images", crash::command(workspace, &[])));
        table.push(Step::command(
            "planted bugs",
            crash::command(workspace, &["--bugs", "--seed", "4", "--threads", "1"]),
        ));
    }
    steps::run_all(table)
}

/// The demo in short form.
fn demo(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command.args(["run", "--release", "--", "demo", "--size", "64MiB"]);
    command
}

/// A demo of computing on little data; it compares what it computed with the definition.
fn small_demo(workspace: &Workspace, example: &str) -> Command {
    let mut command = workspace.cargo();
    command.args(["run", "--release", "--example", example]);
    command
}

/// Real arrays through the command line and a program, compared with NumPy.
fn real_data(workspace: &Workspace, python: Option<&Python>) -> Outcome {
    let Some(python) = python else {
        return Outcome::Failed("needs Python with NumPy, which a step above did not get".into());
    };
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--bin", "zba", "--example", "relief"]);
    match steps::run_command(build) {
        Outcome::Passed => {}
        not_built => return not_built,
    }
    let out = workspace.path("target/real-data");
    if out.exists()
        && let Err(error) = fs::remove_dir_all(&out)
    {
        return Outcome::Failed(format!("cannot remove {}: {error}", out.display()));
    }
    if let Err(error) = fs::create_dir_all(&out) {
        return Outcome::Failed(format!("cannot create {}: {error}", out.display()));
    }
    let release = workspace.path("target/release");
    let mut command = workspace.command(&python.executable);
    command.arg("tests/oracle/real_data.py");
    command.arg(release.join("zba")).arg(release.join("examples/relief"));
    command.arg(&python.sample_data).arg(&out);
    steps::run_command(command)
}

/// Gets Python ready and keeps it for the steps that follow.
fn prepare(workspace: &Workspace, ready: &OnceCell<Python>) -> Outcome {
    match python::prepare(workspace) {
        Ok(python) => {
            ready.get_or_init(|| python);
            Outcome::Passed
        }
        Err(why) => Outcome::Failed(why),
    }
}

/// Unit tests, integration tests and the examples in the documentation, of every member.
fn tests(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command
}

/// What is proved of a store, with every block loaded when it is touched, and encoded.
fn lazy_tests(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--test", "it", "--features", "load-all,encode-all"]);
    command
}

/// Tells a command where Python and the sample data are.
fn with_python(mut command: Command, python: Option<&Python>) -> Command {
    if let Some(python) = python {
        command.env("ZBA_PYTHON", &python.executable);
        command.env("ZBA_SAMPLE_DATA", &python.sample_data);
    }
    command
}

/// Runs the tests of `tests/it` that compare with NumPy and counts them (invariant 2).
fn oracle(workspace: &Workspace, python: Option<&Python>) -> Outcome {
    if python.is_none() {
        return Outcome::Failed("needs Python with NumPy, which the step above did not get".into());
    }
    let mut command = with_python(workspace.cargo(), python);
    command.args(["test", "--package", "zbigarray", "--test", "it", "numpy"]);
    command.stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(format!("cannot start: {error}")),
    };
    let mut count_passed = 0;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let Ok(line) = line else { break };
        println!("{line}");
        count_passed += passed(&line);
    }
    match child.wait() {
        Err(error) => Outcome::Failed(format!("cannot wait for the tests: {error}")),
        Ok(status) if !status.success() => Outcome::Failed(status.to_string()),
        Ok(_) if count_passed == 0 => {
            Outcome::Failed("tests/it has no test in a module `numpy...`".to_owned())
        }
        Ok(_) => Outcome::Passed,
    }
}

/// Number of passed tests in a line such as `test result: ok. 3 passed; 0 failed; ...`.
fn passed(line: &str) -> u64 {
    let Some(rest) = line.strip_prefix("test result: ") else { return 0 };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let count = words.windows(2).find(|pair| pair[1] == "passed;").map(|pair| pair[0]);
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_counts_only_result_lines() {
        assert_eq!(passed("test result: ok. 3 passed; 0 failed; 0 ignored"), 3);
        assert_eq!(passed("test result: FAILED. 12 passed; 1 failed; 0 ignored"), 12);
        assert_eq!(passed("test numpy::indexing ... ok"), 0);
        assert_eq!(passed("3 passed; 0 failed"), 0);
    }
}
