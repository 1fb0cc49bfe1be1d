//! Processes at work for a long time: `tests/isolation/soak.rs`, in release mode.
//!
//! ```text
//! cargo xtask soak [--minutes N] [--processes N] [--seed S]      60, 4 and 1 by default
//! ```

use std::process::ExitCode;

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
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        while let [name, value, rest @ ..] = words {
            let number: u32 = value.parse().map_err(|_| format!("{value} is no number"))?;
            match *name {
                "--minutes" => options.seconds = number.saturating_mul(60),
                "--processes" if number > 0 => options.processes = number,
                "--seed" => options.seed = number,
                _ => return Err(format!("not understood: {name} {value}")),
            }
            words = rest;
        }
        if words.is_empty() { Ok(options) } else { Err(format!("not understood: {}", words[0])) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_three_numbers() {
        let options = Options::parse(&["--seed", "9", "--minutes", "2"]).unwrap_or_default();
        assert_eq!((options.seconds, options.processes, options.seed), (120, 4, 9));
        for wrong in [&["--minutes", "many"][..], &["--seed"], &["--processes", "0"], &["x"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
