//! Processes that write one store at once and are killed and stopped: `tests/isolation`, in release
//! mode.
//!
//! ```text
//! cargo xtask isolation [--deaths N] [--transactions N] [--processes N] [--seed S]
//!                       10000, 0, 8 and 1 by default; goes on until both N are reached
//! ```

use std::process::ExitCode;

use crate::numbers;
use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// How many children are killed, how many transactions they try, how many run at once, and which
/// chance.
pub(crate) struct Options {
    deaths: u32,
    transactions: u32,
    processes: u32,
    seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { deaths: 10_000, transactions: 0, processes: 8, seed: 1 }
    }
}

impl Options {
    /// What fits two minutes.
    pub(crate) fn short() -> Self {
        Self { deaths: 500, transactions: 200_000, ..Self::default() }
    }

    /// Reads the words after `isolation`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let Self { mut deaths, mut transactions, mut processes, mut seed } = Self::default();
        let options = &mut [
            ("--deaths", &mut deaths),
            ("--transactions", &mut transactions),
            ("--processes", &mut processes),
            ("--seed", &mut seed),
        ];
        numbers::read(words, options)?;
        Ok(Self { deaths, transactions, processes: processes.max(1), seed })
    }
}

/// `cargo xtask isolation`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    steps::run_all(rows(workspace, options))
}

/// The steps of the table of all tests.
pub(crate) fn rows<'w>(workspace: &'w Workspace, options: &Options) -> Vec<Step<'w>> {
    let command = |test: &str, deaths: u32, transactions: u32| {
        let mut command = workspace.cargo();
        command.args(["test", "--release", "--package", "zbigarray", "--test", "isolation", "--"]);
        command.args(["--nocapture", test]);
        command.env("ZBA_ISOLATION_DEATHS", deaths.to_string());
        command.env("ZBA_ISOLATION_TRANSACTIONS", transactions.to_string());
        command.env("ZBA_ISOLATION_PROCESSES", options.processes.to_string());
        command.env("ZBA_ISOLATION_SEED", options.seed.to_string());
        command
    };
    let Options { deaths, transactions, .. } = *options;
    vec![
        Step::command(
            "histories of killed processes",
            command("processes::processes_that_write_at_once", deaths, transactions),
        ),
        // All of them wait for one place: a tenth of the others' number takes as long.
        Step::command(
            "rows of killed processes",
            command("rows::rows_that_processes_append", deaths / 10, transactions / 100),
        ),
    ]
}
