//! Processes that write one store at once and are killed and stopped: `tests/isolation`.
//!
//! ```text
//! cargo xtask isolation [--deaths N] [--processes N] [--seed S]     400, 8 and 1 by default
//! ```

use std::process::ExitCode;

use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// How many children are killed, how many run at once, and which chance.
pub(crate) struct Options {
    deaths: u32,
    processes: u32,
    seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { deaths: 400, processes: 8, seed: 1 }
    }
}

impl Options {
    /// What fits a minute.
    pub(crate) fn short() -> Self {
        Self { deaths: 80, ..Self::default() }
    }

    /// Reads the words after `isolation`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        while let [name, value, rest @ ..] = words {
            let number = value.parse().map_err(|_| format!("{value} is no number"))?;
            match *name {
                "--deaths" => options.deaths = number,
                "--processes" if number > 0 => options.processes = number,
                "--seed" => options.seed = number,
                _ => return Err(format!("not understood: {name} {value}")),
            }
            words = rest;
        }
        if words.is_empty() { Ok(options) } else { Err(format!("not understood: {}", words[0])) }
    }
}

/// `cargo xtask isolation`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    steps::run_all(vec![row(workspace, options)])
}

/// The step of the table of all tests.
pub(crate) fn row<'w>(workspace: &'w Workspace, options: &Options) -> Step<'w> {
    let mut command = workspace.cargo();
    command.args(["test", "--package", "zbigarray", "--test", "isolation", "--"]);
    command.args(["--nocapture", "processes::processes_that_write_at_once"]);
    command.env("ZBA_ISOLATION_DEATHS", options.deaths.to_string());
    command.env("ZBA_ISOLATION_PROCESSES", options.processes.to_string());
    command.env("ZBA_ISOLATION_SEED", options.seed.to_string());
    Step::command("histories of killed processes", command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_three_numbers() {
        let options = Options::parse(&["--seed", "9", "--processes", "2"]).unwrap_or_default();
        assert_eq!((options.deaths, options.processes, options.seed), (400, 2, 9));
        for wrong in [&["--deaths", "many"][..], &["--seed"], &["--processes", "0"], &["x"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
