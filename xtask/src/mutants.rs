//! Changes of the code that no test notices: cargo-mutants over commit, conflict, recovery and
//! reclaim.
//!
//! ```text
//! file -> every small change of it -> the tests that should notice -> "missed" is a failure
//! ```
//!
//! # Failure
//!
//! A change that no test noticed. Without cargo-mutants the step is not run.

use std::process::{Command, ExitCode};

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// The files that decide what is durable, visible and free, and the tests asked about each.
const FILES: &[(&str, &[&str])] = &[
    ("src/txn/conflict.rs", &["--lib"]),
    ("src/storage/local/free_space.rs", &["--lib"]),
    ("src/storage/local/recovery.rs", &["--lib", "--test", "it"]),
    ("src/storage/local/extents.rs", &["--lib", "--test", "it"]),
    ("src/storage/local/pack.rs", &["--lib", "--test", "it"]),
    ("src/txn/pack.rs", &["--lib", "--test", "it"]),
    ("src/txn/commit.rs", &["--lib", "--test", "it"]),
    ("src/txn/write_out.rs", &["--lib", "--test", "it"]),
];

/// `cargo xtask mutants [FILE...]`; without a file all of the table, for hours.
pub(crate) fn run(workspace: &Workspace, wanted: &[&str]) -> Result<ExitCode, String> {
    if let Some(unknown) = wanted.iter().find(|file| !FILES.iter().any(|(f, _)| f == *file)) {
        return Err(format!("{unknown} is not in the table of xtask/src/mutants.rs"));
    }
    let chosen = FILES.iter().filter(|(file, _)| wanted.is_empty() || wanted.contains(file));
    let step = |&(file, tests): &(&'static str, &'static [&'static str])| {
        Step::new(file, move || mutated(workspace, file, tests))
    };
    Ok(steps::run_all(chosen.map(step).collect()))
}

fn mutated(workspace: &Workspace, file: &str, tests: &[&str]) -> Outcome {
    let mut probe: Command = workspace.cargo();
    let installed = probe.args(["mutants", "--version"]).output().is_ok_and(|o| o.status.success());
    if !installed {
        let how = "cargo-mutants is not installed: cargo install --locked cargo-mutants";
        return Outcome::NotRun(how.to_owned());
    }
    let mut command = workspace.cargo();
    command.args(["mutants", "--file", file, "--test-tool", "cargo", "--no-times"]);
    command.args(["--output", "target", "--timeout", "240", "--cargo-arg=--no-default-features"]);
    command.arg("--").args(tests);
    // Few random cases: what a test proves by luck it does not prove.
    command.env("PROPTEST_CASES", "32");
    steps::run_command(command)
}
