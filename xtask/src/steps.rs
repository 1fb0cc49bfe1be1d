//! Runs a table of steps one after the other and says at the end how each of them went.
//!
//! ```text
//! step                        seconds  result
//! formatting                      0.8  ok
//! tests                          41.2  FAILED   exit status: 101
//! licences                        0.0  not run  cargo-deny is not installed ...
//! ```
//!
//! # Invariants
//!
//! 1. A failed step does not stop the ones after it: one run shows all failures.
//! 2. Every step of the table is in the summary.
//!
//! # Failure
//!
//! The exit status is 1 if any step failed.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How one step ended.
pub(crate) enum Outcome {
    /// It did what it should.
    Passed,
    /// It did not; the text says why.
    Failed(String),
    /// It could not or should not run here; the text says why.
    NotRun(String),
}

/// One row of a table: a name and what to do.
pub(crate) struct Step<'a> {
    name: &'static str,
    action: Box<dyn FnOnce() -> Outcome + 'a>,
}

impl<'a> Step<'a> {
    /// A step that runs any code.
    pub(crate) fn new(name: &'static str, action: impl FnOnce() -> Outcome + 'a) -> Self {
        Self { name, action: Box::new(action) }
    }

    /// A step that passes when `command` ends with status 0. Its output is streamed.
    pub(crate) fn command(name: &'static str, command: Command) -> Self {
        Self::new(name, move || run_command(command))
    }
}

/// Prints a command, runs it with our terminal, and judges it by its exit status.
pub(crate) fn run_command(mut command: Command) -> Outcome {
    eprintln!("$ {}", shown(&command));
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(status.to_string()),
        Err(error) => Outcome::Failed(format!("cannot start: {error}")),
    }
}

/// Runs a command that has to succeed.
pub(crate) fn must(command: Command, advice: &str) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match run_command(command) {
        Outcome::Passed => Ok(()),
        Outcome::Failed(why) | Outcome::NotRun(why) => Err(format!("{program}: {why}; {advice}")),
    }
}

/// Runs every step, prints the summary, and returns the exit status of the whole.
pub(crate) fn run_all(steps: Vec<Step<'_>>) -> ExitCode {
    let started = Instant::now();
    let mut rows = Vec::with_capacity(steps.len());
    for step in steps {
        eprintln!("\n=== {}", step.name);
        let step_started = Instant::now();
        let outcome = (step.action)();
        if let Outcome::Failed(why) = &outcome {
            eprintln!("=== {} FAILED: {why}", step.name);
        }
        rows.push((step.name, step_started.elapsed(), outcome));
    }
    eprint!("\n{}", summary(&rows, started.elapsed()));
    let failed = rows.iter().any(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The table of the file header.
fn summary(rows: &[(&str, Duration, Outcome)], total: Duration) -> String {
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max("total".len());
    let mut text = format!("{:width$}  seconds  result\n", "step");
    let mut count_failed = 0;
    for (name, time, outcome) in rows {
        let (result, why) = match outcome {
            Outcome::Passed => ("ok", ""),
            Outcome::Failed(why) => ("FAILED ", why.as_str()),
            Outcome::NotRun(why) => ("not run", why.as_str()),
        };
        count_failed += u32::from(matches!(outcome, Outcome::Failed(_)));
        let row = format!("{name:width$}  {:7.1}  {result}  {why}", time.as_secs_f64());
        text.push_str(row.trim_end());
        text.push('\n');
    }
    let verdict = match count_failed {
        0 => "ok".to_owned(),
        count => format!("{count} FAILED"),
    };
    text.push_str(&format!("{:width$}  {:7.1}  {verdict}\n", "total", total.as_secs_f64()));
    text
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_names_every_step_and_counts_the_failures() {
        let second = Duration::from_secs(1);
        let rows = [
            ("formatting", second, Outcome::Passed),
            ("tests", second, Outcome::Failed("exit status: 101".to_owned())),
            ("licences", second, Outcome::NotRun("cargo-deny is not installed".to_owned())),
        ];
        assert_eq!(
            summary(&rows, 3 * second),
            "step        seconds  result\n\
             formatting      1.0  ok\n\
             tests           1.0  FAILED   exit status: 101\n\
             licences        1.0  not run  cargo-deny is not installed\n\
             total           3.0  1 FAILED\n"
        );
    }

    #[test]
    fn steps_after_a_failed_one_still_run_and_the_whole_fails() {
        let mut ran = false;
        let status = run_all(vec![
            Step::new("first", || Outcome::Failed("planted".to_owned())),
            Step::new("second", || {
                ran = true;
                Outcome::Passed
            }),
        ]);
        assert!(ran);
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::FAILURE));
    }
}
