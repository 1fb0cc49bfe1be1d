//! Failing calls, full disks and lying file systems: `tests/faults`, one step a rig.
//!
//! ```text
//! cargo xtask faults [--every K] [--seed S] [--only simulated|strace|fuse|images]
//!                     one run in K, all of them by default; other commits by another seed
//! ```
//!
//! # Failure
//!
//! A rig that needs what this machine has not (root, FUSE, loop devices, strace) says so, and its
//! step did not run.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// The rigs, and the names of their steps in the table of all tests.
const RIGS: [(&str, &str); 4] = [
    ("simulated", "faults of the back end"),
    ("strace", "faults of system calls"),
    ("fuse", "faults of a file system"),
    ("images", "full file systems"),
];

/// What is to run.
pub(crate) struct Options {
    every: u32,
    seed: u64,
    only: Option<&'static str>,
}

impl Options {
    /// All rigs, one run in `every`.
    pub(crate) fn sample(every: u32) -> Self {
        Self { every, seed: 7, only: None }
    }

    /// Reads the words after `faults`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut options = Self::sample(1);
        while let [name, value, rest @ ..] = words {
            match *name {
                "--every" => {
                    let every = value.parse().ok().filter(|every| *every > 0);
                    options.every = every.ok_or(format!("{value} is no number of runs"))?;
                }
                "--seed" => {
                    options.seed = value.parse().map_err(|_| format!("{value} is no number"))?;
                }
                "--only" => {
                    let rig = RIGS.iter().find(|(rig, _)| rig == value);
                    options.only = Some(rig.ok_or(format!("there is no rig {value}"))?.0);
                }
                _ => return Err(format!("not understood: {name}")),
            }
            words = rest;
        }
        if words.is_empty() { Ok(options) } else { Err(format!("not understood: {}", words[0])) }
    }
}

/// `cargo xtask faults`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    steps::run_all(rows(workspace, options))
}

/// A step for each rig that was asked for.
pub(crate) fn rows<'a>(workspace: &'a Workspace, options: &Options) -> Vec<Step<'a>> {
    let Options { every, seed, only } = *options;
    let step = |(rig, name): (&'static str, &'static str)| {
        Step::new(name, move || {
            let mut command = workspace.cargo();
            command.args(["test", "--package", "zbigarray", "--test", "faults", "--", "run"]);
            command.args(["--only", rig, "--every", &every.to_string()]);
            command.args(["--seed", &seed.to_string()]);
            run_rig(command)
        })
    };
    RIGS.into_iter().filter(|(rig, _)| only.is_none_or(|only| only == *rig)).map(step).collect()
}

/// Runs a rig that prints a line with "not run: why" where it could not run, or not all of it.
pub(crate) fn run_rig(mut command: Command) -> Outcome {
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(format!("cannot start: {error}")),
    };
    let mut not_run = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let Ok(line) = line else { break };
        println!("{line}");
        not_run.extend(reason(&line).map(str::to_owned));
    }
    match child.wait() {
        Err(error) => Outcome::Failed(format!("cannot wait for it: {error}")),
        Ok(status) if !status.success() => Outcome::Failed(status.to_string()),
        Ok(_) if !not_run.is_empty() => Outcome::NotRun(not_run.join("; ")),
        Ok(_) => Outcome::Passed,
    }
}

/// What a line says did not run, and why.
fn reason(line: &str) -> Option<&str> {
    line.contains("not run: ").then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_a_sample_and_a_rig() {
        let options = Options::parse(&["--only", "fuse", "--every", "7", "--seed", "3"])
            .unwrap_or_else(|why| {
                panic!("{why}");
            });
        assert_eq!((options.every, options.seed, options.only), (7, 3, Some("fuse")));
        for wrong in [&["--every", "0"][..], &["--only", "disk"], &["--every"], &["fuse"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_rig_that_could_not_run_is_no_passed_one() {
        assert_eq!(reason("fuse: not run: no FUSE"), Some("fuse: not run: no FUSE"));
        assert_eq!(reason("fuse: 60 runs in 5.5 s"), None);
    }
}
