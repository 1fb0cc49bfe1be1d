//! Fuzzers: libFuzzer on every target of `fuzz/`, and every bit of a small store flipped.
//!
//! ```text
//! seeds (tests/hostile.rs) -> fuzz/corpus -> libFuzzer, one target after the other -> table
//! crash -> fuzz/artifacts -> copy it to fuzz/found/TARGET/NAME: then every test run replays it
//! ```
//!
//! # Invariants
//!
//! 1. The table names every target that was asked for, with what was found.
//!
//! # Failure
//!
//! 1 if an input made a target fail, or if fuzzers cannot be built.

use std::fs;
use std::process::{Command, ExitCode};

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// Bytes of the longest input; whole files of a store are among them.
const INPUT_BYTES_MAX: u32 = 300_000;
/// How long each target is fuzzed if nobody says.
const SECONDS: u64 = 60;

/// What to run.
pub(crate) struct Options {
    targets: Vec<String>,
    seconds: u64,
}

impl Options {
    /// Reads `[TARGET...] [--seconds N]`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { targets: Vec::new(), seconds: SECONDS };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--seconds" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    options.seconds = number.ok_or("--seconds needs a number")?;
                }
                word if word.starts_with('-') => return Err(format!("not understood: {word}")),
                word => options.targets.push(word.to_owned()),
            }
        }
        Ok(options)
    }
}

/// `cargo xtask fuzz`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    match options.targets.as_slice() {
        [flips] if flips == "flips" => flips_of_every_bit(workspace),
        _ => match fuzzed(workspace, options) {
            Ok(rows) => report(&rows),
            Err(why) => {
                eprintln!("xtask: {why}");
                ExitCode::FAILURE
            }
        },
    }
}

/// The short run of `cargo xtask test`: seeds, found inputs and seeded changes of them.
pub(crate) fn replay(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--package", "zbigarray", "--features", "fuzzing", "--test", "hostile"]);
    // A store is opened thousands of times: without optimisation little of that fits a minute.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2").env("CARGO_PROFILE_TEST_OPT_LEVEL", "2");
    command
}

fn flips_of_every_bit(workspace: &Workspace) -> ExitCode {
    let mut command = replay(workspace);
    command.args(["every_bit_of_every_file", "--", "--ignored", "--nocapture"]);
    steps::run_all(vec![Step::command("every bit of a small store, flipped", command)])
}

/// How a target did.
struct Row {
    target: String,
    executions: u64,
    per_second: u64,
    coverage: u64,
    crash: Option<String>,
}

fn fuzzed(workspace: &Workspace, options: &Options) -> Result<Vec<Row>, String> {
    install(workspace)?;
    let targets = targets(workspace, &options.targets)?;
    seed(workspace)?;
    // Built at once: each alone would link the same crates again.
    let mut build = cargo_fuzz(workspace, "build");
    build.args(["--sanitizer", "none"]);
    match steps::run_command(build) {
        Outcome::Passed => {}
        _ => return Err("the fuzzers were not built".to_owned()),
    }
    targets.iter().map(|target| fuzz_one(workspace, target, options.seconds)).collect()
}

/// Installs cargo-fuzz if it is missing.
fn install(workspace: &Workspace) -> Result<(), String> {
    let mut probe = workspace.cargo();
    if probe.args(["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    eprintln!("xtask: cargo-fuzz is missing; installing it");
    let mut install = workspace.cargo();
    install.args(["install", "--locked", "cargo-fuzz"]);
    match steps::run_command(install) {
        Outcome::Passed => Ok(()),
        _ => Err("cargo-fuzz cannot be installed".to_owned()),
    }
}

/// libFuzzer's instrumentation is an option of nightly compilers only.
fn cargo_fuzz(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = workspace.command("cargo");
    cargo.args(["+nightly", "fuzz", command]);
    cargo
}

/// The targets asked for, or all.
fn targets(workspace: &Workspace, wanted: &[String]) -> Result<Vec<String>, String> {
    let directory = workspace.path("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).map_err(|error| error.to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut known: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".rs").map(str::to_owned)).collect();
    known.sort();
    match wanted.iter().find(|name| !known.contains(name)) {
        Some(name) => Err(format!("no target `{name}`; there are {} and flips", known.join(", "))),
        None if wanted.is_empty() => Ok(known),
        None => Ok(wanted.to_vec()),
    }
}

/// Writes seeds and everything found so far to `fuzz/corpus`.
fn seed(workspace: &Workspace) -> Result<(), String> {
    let mut command = replay(workspace);
    command.env("ZBA_FUZZ_CORPUS", workspace.path("fuzz/corpus"));
    command.arg("every_target_begins_with_seeds_and_all_that_was_found");
    match steps::run_command(command) {
        Outcome::Passed => Ok(()),
        _ => Err("the seeds were not written".to_owned()),
    }
}

fn fuzz_one(workspace: &Workspace, target: &str, seconds: u64) -> Result<Row, String> {
    eprintln!("=== {target}, {seconds} s");
    let mut command = cargo_fuzz(workspace, "run");
    command.args(["--sanitizer", "none", target, "--"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.args(["-timeout=20", "-rss_limit_mb=2048", "-len_control=20"]);
    command.arg("-print_final_stats=1");
    let output = command.output().map_err(|error| format!("cannot start cargo fuzz: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = |start: &str| text.lines().rev().find_map(|line| line.trim().strip_prefix(start));
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let crash = (!output.status.success()).then(|| {
        let what = text.lines().find(|line| line.contains("panicked at"));
        let input = line("Test unit written to").unwrap_or("no input was written").trim();
        format!("{} {input}", what.unwrap_or("it ended by itself"))
    });
    if crash.is_some() {
        eprintln!("{text}");
    }
    Ok(Row {
        target: target.to_owned(),
        executions: number(line("stat::number_of_executed_units:")),
        per_second: number(line("stat::average_exec_per_sec:")),
        coverage: coverage(&text),
        crash,
    })
}

/// The last `cov:` that libFuzzer printed: edges of the program that were reached.
fn coverage(text: &str) -> u64 {
    let after = text.rsplit_once("cov: ").map_or("", |(_, after)| after);
    after.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn report(rows: &[Row]) -> ExitCode {
    println!("| target | executions | per second | edges | found |\n|---|--:|--:|--:|---|");
    for Row { target, executions, per_second, coverage, crash } in rows {
        let found = crash.as_deref().unwrap_or("nothing");
        println!("| {target} | {executions} | {per_second} | {coverage} | {found} |");
    }
    if rows.iter().any(|row| row.crash.is_some()) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_targets_and_seconds() {
        let options = Options::parse(&["store", "--seconds", "7", "npy"]).unwrap();
        assert_eq!((options.targets, options.seconds), (vec!["store".into(), "npy".into()], 7));
        assert!(Options::parse(&["--seconds"]).is_err() && Options::parse(&["-x"]).is_err());
    }

    #[test]
    fn coverage_is_the_last_that_was_printed() {
        assert_eq!(coverage("#1 cov: 5 ft: 9\n#2 NEW cov: 17 ft: 30\nDone"), 17);
        assert_eq!(coverage("nothing"), 0);
    }
}
