//! Threads on one store in orders that a scheduler chooses: `tests/concurrency`.
//!
//! The whole program is built with `--cfg shuttle`, into a directory of its own.
//!
//! # Failure
//!
//! A test that fails names the schedule; running it again needs the same build and nothing else.

use std::process::{Command, ExitCode};

use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// Schedules of each test in continuous integration.
const ITERATIONS_SHORT: u32 = 300;
/// Schedules of each test for who asks for no number: about ten minutes.
const ITERATIONS: u32 = 10_000;

/// `cargo xtask shuttle [--iterations N]`.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<ExitCode, String> {
    let iterations = match arguments {
        [] => ITERATIONS,
        ["--iterations", count] => {
            count.parse().map_err(|_| format!("`{count}` is no number of schedules"))?
        }
        _ => return Err(format!("not understood: {}", arguments.join(" "))),
    };
    let step = Step::command("orders of threads", command(workspace, iterations));
    Ok(steps::run_all(vec![step]))
}

/// The short run.
pub(crate) fn short(workspace: &Workspace) -> Step<'static> {
    Step::command("orders of threads", command(workspace, ITERATIONS_SHORT))
}

fn command(workspace: &Workspace, iterations: u32) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--package", "zbigarray", "--no-default-features"]);
    command.args(["--features", "compute,planted-bugs", "--test", "concurrency"]);
    command.env("RUSTFLAGS", "--cfg shuttle");
    command.env("CARGO_TARGET_DIR", workspace.path("target/shuttle"));
    command.env("ZBA_SHUTTLE_ITERATIONS", iterations.to_string());
    command
}
