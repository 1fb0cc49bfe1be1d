//! Processes that are killed while they commit: `tests/kill`.
//!
//! ```text
//! cargo xtask kill [--runs N] [--seed S]      500 children and seed 1 by default
//! ```

use std::process::ExitCode;

use crate::faults::run_rig;
use crate::numbers;
use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// How many children, and which chance.
pub(crate) struct Options {
    runs: u32,
    seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { runs: 500, seed: 1 }
    }
}

impl Options {
    /// Reads the words after `kill`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let Self { mut runs, mut seed } = Self::default();
        numbers::read(words, &mut [("--runs", &mut runs), ("--seed", &mut seed)])?;
        Ok(Self { runs, seed })
    }
}

/// `cargo xtask kill`.
pub(crate) fn run(workspace: &Workspace, options: Options) -> ExitCode {
    steps::run_all(vec![row(workspace, options)])
}

/// The step of the table of all tests.
pub(crate) fn row(workspace: &Workspace, options: Options) -> Step<'_> {
    Step::new("killed processes", move || {
        let mut command = workspace.cargo();
        command.args(["test", "--package", "zbigarray", "--test", "kill", "--", "run"]);
        command.args(["--runs", &options.runs.to_string()]);
        command.args(["--seed", &options.seed.to_string()]);
        run_rig(command)
    })
}
