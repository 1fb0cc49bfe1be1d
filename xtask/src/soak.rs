//! Processes at work for a long time: `tests/isolation/soak.rs`, in release mode.
//!
//! ```text
//! cargo xtask soak [--minutes N] [--processes N] [--seed S]      60, 4 and 1 by default
//! ```

use std::process::ExitCode;

use crate::numbers;
use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// How long, how many children at once, and which chance.
pub(crate) struct Options {
    seconds: u32,
    processes: u32,
    seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 60 * 60, processes: 4, seed: 1 }
    }
}

impl Options {
    /// What fits a minute.
    pub(crate) fn short() -> Self {
        Self { seconds: 30, ..Self::default() }
    }

    /// Reads the words after `soak`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let Self { seconds, mut processes, mut seed } = Self::default();
        let mut minutes = seconds / 60;
        let options = &mut [
            ("--minutes", &mut minutes),
            ("--processes", &mut processes),
            ("--seed", &mut seed),
        ];
        numbers::read(words, options)?;
        Ok(Self { seconds: minutes.saturating_mul(60), processes: processes.max(1), seed })
    }
}

/// `cargo xtask soak`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    steps::run_all(vec![row(workspace, options)])
}

/// The step of the table of all tests.
pub(crate) fn row<'w>(workspace: &'w Workspace, options: &Options) -> Step<'w> {
    let mut command = workspace.cargo();
    command.args(["test", "--release", "--package", "zbigarray", "--test", "isolation", "--"]);
    command.args(["--nocapture", "soak::processes_at_work_for_long"]);
    command.env("ZBA_ISOLATION_SECONDS", options.seconds.to_string());
    command.env("ZBA_ISOLATION_PROCESSES", options.processes.to_string());
    command.env("ZBA_ISOLATION_SEED", options.seed.to_string());
    Step::command("soak", command)
}
