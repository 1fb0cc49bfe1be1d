//! `cargo xtask crash`: the crash enumerator of `tests/crash`, in release mode.
//!
//! ```text
//! cargo xtask crash --images 1000000 --seed 7     all workloads of a seed
//! cargo xtask crash --seed 7 --workload 3 ...     one image again, as a failure prints it
//! cargo xtask crash --bugs                        every planted bug must be found
//! ```
//!
//! # Failure
//!
//! The first image that holds no commit that was made, or a planted bug that was not found.

use std::process::{Command, ExitCode};

use crate::steps::{self, Outcome};
use crate::workspace::Workspace;

/// Images of a run that does not say how many.
const IMAGES: &str = "20000";

/// `cargo xtask crash ARGUMENTS`.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> ExitCode {
    match steps::run_command(command(workspace, arguments)) {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed(_) | Outcome::NotRun(_) => ExitCode::FAILURE,
    }
}

/// The enumerator with these arguments.
pub(crate) fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--release", "--package", "zbigarray", "--test", "crash"]);
    if arguments.iter().any(|word| word.starts_with("--bug")) {
        command.args(["--no-default-features", "--features", "planted-bugs"]);
    }
    command.args(["--", "enumerate"]);
    if !arguments.contains(&"--images") {
        command.args(["--images", IMAGES]);
    }
    command.args(arguments);
    command
}
