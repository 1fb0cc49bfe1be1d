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
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use crate::check;
use crate::python::{self, Python};
use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// `cargo xtask test`; `quick` leaves out what takes longest.
pub(crate) fn run(workspace: &Workspace, quick: bool) -> ExitCode {
    let python = OnceCell::new();
    let mut table = check::lints(workspace);
    if !quick {
        table.push(Step::new("Python, NumPy, sample data", || prepare(workspace, &python)));
    }
    table.push(Step::new("tests", || {
        steps::run_command(with_python(tests(workspace), python.get()))
    }));
    if !quick {
        table.push(Step::new("tests against NumPy", || oracle(workspace, python.get())));
        table.extend(check::documents(workspace));
        table.extend(DEMOS.iter().map(|demo| {
            let python = &python;
            Step::new(demo.name, move || run_demo(workspace, python.get(), demo))
        }));
    }
    steps::run_all(table)
}

/// A demo in short form.
struct Demo {
    name: &'static str,
    cargo_arguments: &'static [&'static str],
    /// Whether the program exists; one that does not is shown as not run.
    built: bool,
}

const DEMOS: &[Demo] = &[Demo {
    name: "demo, 64 MiB",
    cargo_arguments: &["run", "--release", "--", "demo", "--size", "64MiB"],
    built: false,
}];

/// Runs a demo that exists.
fn run_demo(workspace: &Workspace, python: Option<&Python>, demo: &Demo) -> Outcome {
    if !demo.built {
        return Outcome::NotRun("not built yet".to_owned());
    }
    let mut command = workspace.cargo();
    command.args(demo.cargo_arguments);
    steps::run_command(with_python(command, python))
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
