//! Unsafe code under Miri: the tests that need no kernel beyond what Miri and a fake of it have.
//!
//! `src/vm/sys/fake` stands for the calls that map memory: a reservation is heap memory, placing a
//! file copies its bytes, and a page is dirty if it differs from what was placed.
//!
//! # Failure
//!
//! Undefined behaviour, or a test that fails. Without nightly and Miri the step is not run.

use std::process::ExitCode;

use crate::sanitize::nightly_with;
use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// `cargo xtask miri`.
pub(crate) fn run(workspace: &Workspace) -> ExitCode {
    let step = Step::new("Miri", || interpreted(workspace));
    steps::run_all(vec![step])
}

fn interpreted(workspace: &Workspace) -> Outcome {
    if let Err(why) = nightly_with(workspace, "miri") {
        return Outcome::NotRun(why);
    }
    let mut command = workspace.command("cargo");
    command.args(["+nightly", "miri", "test", "--package", "zbigarray", "--no-default-features"]);
    command.args(["--lib", "--test", "miri"]);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command.env("CARGO_TARGET_DIR", workspace.path("target/miri"));
    // The files of a store are real ones, below the directory for temporary files.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-tree-borrows");
    command.env("PROPTEST_CASES", "4");
    steps::run_command(command)
}
