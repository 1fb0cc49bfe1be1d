//! Processes that are killed while they commit: `tests/kill`.
//!
//! ```text
//! cargo xtask kill [--runs N] [--seed S]      500 children and seed 1 by default
//! ```

use std::process::ExitCode;

use crate::faults::run_rig;
use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// How many children, and which chance.
pub(crate) struct Options {
    runs: u64,
    seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { runs: 500, seed: 1 }
    }
}

impl Options {
    /// Reads the words after `kill`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        while let [name, value, rest @ ..] = words {
            let number = value.parse().map_err(|_| format!("{value} is no number"))?;
            match *name {
                "--runs" => options.runs = number,
                "--seed" => options.seed = number,
                _ => return Err(format!("not understood: {name}")),
            }
            words = rest;
        }
        if words.is_empty() { Ok(options) } else { Err(format!("not understood: {}", words[0])) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_two_numbers() {
        let options = Options::parse(&["--seed", "9"]).unwrap_or_default();
        assert_eq!((options.runs, options.seed), (500, 9));
        for wrong in [&["--runs", "many"][..], &["--seed"], &["--runs", "1", "x"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
