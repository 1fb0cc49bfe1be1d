//! Measures a subject against its baseline, turn by turn, and prints one result line per question.
//!
//! ```text
//! warm-up   B S | B S | B S | B S ...          B = baseline, S = subject, one number each
//!  dropped        \ratio/\ratio/\ratio/         median of the ratios, distance of their quartiles
//! ```
//!
//! Turns are interleaved because the machine drifts: a disk that is slower for a minute is slower
//! for both, and the ratio inside a pair does not see it. A bench target is `fn main` that calls
//! [`compare`] or [`limit`] and prints the [`Answer`]; `cargo xtask bench` reads those lines. It
//! is declared in `Cargo.toml` with `harness = false`.
//!
//! # Invariants
//!
//! 1. Baseline and subject of a pair are measured directly one after the other.
//! 2. A result line is one JSON object on one line of stdout; everything else goes to stderr.
//! 3. A question that was not asked has no verdict: its line says why instead.
//!
//! # Failure
//!
//! The first error of a turn ends the question and comes back to the caller; no turn is retried.

#![allow(dead_code, reason = "each bench target uses the part it needs")]

use std::time::Instant;

use serde_json::{Value, json};

/// Which way the ratio of a pair is formed, so that bars read as people say them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ratio {
    /// Baseline divided by subject: 0.97 means 0.97 times the speed of the baseline.
    Speed,
    /// Subject divided by baseline: 1.1 means 1.1 times the time, or the bytes, of the baseline.
    Cost,
}

/// What must hold of the ratio, or of the value where there is no baseline.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Bar {
    /// Not below.
    AtLeast(f64),
    /// Not above.
    AtMost(f64),
}

impl Bar {
    /// Whether `value` reaches the bar. A value that is no number does not.
    #[must_use]
    pub(crate) fn is_reached_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    /// The bar as text, such as ">= 0.97".
    #[must_use]
    pub(crate) fn shown(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {least}"),
            Self::AtMost(most) => format!("<= {most}"),
        }
    }
}

/// A question with a baseline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Unique over all bench targets.
    pub(crate) name: &'a str,
    /// What one turn measures: "s", "ms", "us", "bytes".
    pub(crate) unit: &'a str,
    /// How the bar is meant.
    pub(crate) ratio: Ratio,
    /// What must be reached.
    pub(crate) bar: Bar,
    /// Pairs to measure, besides one for warming up; at least 1.
    pub(crate) rounds: usize,
}

/// What was found out, as one result line.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    line: Value,
}

impl Answer {
    /// Prints the result line to stdout.
    pub(crate) fn print(&self) {
        println!("{}", self.line);
    }

    /// The result line as JSON.
    ///
    /// Keys: `name`, `ratio` (null without a baseline), `spread`, `bar`, `ok`, `subject` and
    /// `baseline` (medians in `unit`), `unit`, `rounds`; or `name` and `not_run`.
    #[must_use]
    pub(crate) fn line(&self) -> &Value {
        &self.line
    }
}

/// Asks `question`: measures baseline and subject in turns, each returning one number in its unit.
///
/// What a turn prepares (a fresh file, a cold cache) stays outside the number it returns; see
/// [`seconds`]. The first pair is dropped.
///
/// # Errors
///
/// The first error of a turn.
///
/// # Panics
///
/// If the question has no rounds.
pub(crate) fn compare<E>(
    question: Question<'_>,
    mut baseline: impl FnMut() -> Result<f64, E>,
    mut subject: impl FnMut() -> Result<f64, E>,
) -> Result<Answer, E> {
    assert!(question.rounds > 0, "a question needs a round");
    let mut pairs = Vec::with_capacity(question.rounds);
    for round in 0..=question.rounds {
        let pair = (baseline()?, subject()?);
        if round > 0 {
            pairs.push(pair);
        }
    }
    Ok(answer(question, &pairs))
}

/// The answer that pairs of (baseline, subject) give. Pure.
///
/// # Panics
///
/// If there is no pair.
#[must_use]
pub(crate) fn answer(question: Question<'_>, pairs: &[(f64, f64)]) -> Answer {
    let ratio_of = |&(baseline, subject): &(f64, f64)| match question.ratio {
        Ratio::Speed => baseline / subject,
        Ratio::Cost => subject / baseline,
    };
    let ratios = Summary::of(pairs.iter().map(ratio_of).collect());
    let baseline = Summary::of(pairs.iter().map(|pair| pair.0).collect());
    let subject = Summary::of(pairs.iter().map(|pair| pair.1).collect());
    let line = json!({
        "name": question.name,
        "ratio": ratios.median,
        "spread": ratios.spread(),
        "bar": question.bar.shown(),
        "ok": question.bar.is_reached_by(ratios.median),
        "subject": subject.median,
        "baseline": baseline.median,
        "unit": question.unit,
        "rounds": pairs.len(),
    });
    Answer { line }
}

/// The answer to a question without a baseline: `bar` is on the median of `values` themselves.
///
/// The spread is the distance of the quartiles divided by the median, so that it compares with the
/// spread of a ratio.
///
/// # Panics
///
/// If there is no value.
#[must_use]
pub(crate) fn limit(name: &str, unit: &str, bar: Bar, values: Vec<f64>) -> Answer {
    let rounds = values.len();
    let summary = Summary::of(values);
    let relative = if summary.median == 0.0 { 0.0 } else { summary.spread() / summary.median };
    let line = json!({
        "name": name,
        "ratio": null,
        "spread": relative,
        "bar": format!("{} {unit}", bar.shown()),
        "ok": bar.is_reached_by(summary.median),
        "subject": summary.median,
        "baseline": null,
        "unit": unit,
        "rounds": rounds,
    });
    Answer { line }
}

/// The line of a question that cannot be asked on this machine.
#[must_use]
pub(crate) fn not_run(name: &str, why: &str) -> Answer {
    Answer { line: json!({ "name": name, "not_run": why }) }
}

/// Runs `work` and returns how many seconds it took.
///
/// # Errors
///
/// The error of `work`.
pub(crate) fn seconds<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<f64, E> {
    let started = Instant::now();
    let result = work();
    let time = started.elapsed();
    // The result is kept alive and looked at: the optimizer may not drop what made it.
    std::hint::black_box(result?);
    Ok(time.as_secs_f64())
}

/// Whether only a look is wanted: smaller sizes and fewer rounds (`cargo xtask bench --quick`).
#[must_use]
pub(crate) fn quick() -> bool {
    std::env::var_os("ZBA_BENCH_QUICK").is_some_and(|value| value == "1")
}

/// `full`, or `quick` if only a look is wanted.
#[must_use]
pub(crate) fn sized<T>(full: T, quick_one: T) -> T {
    if quick() { quick_one } else { full }
}

/// Middle and quartiles of some numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Summary {
    /// A quarter of the numbers is not above it.
    pub(crate) lower_quartile: f64,
    /// Half of the numbers is not above it.
    pub(crate) median: f64,
    /// Three quarters of the numbers are not above it.
    pub(crate) upper_quartile: f64,
}

impl Summary {
    /// Sorts the numbers; between two of them it interpolates linearly, as NumPy does.
    ///
    /// # Panics
    ///
    /// If there are no numbers.
    #[must_use]
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        assert!(!numbers.is_empty(), "nothing was measured");
        numbers.sort_by(f64::total_cmp);
        Self {
            lower_quartile: quantile(&numbers, 1, 4),
            median: quantile(&numbers, 1, 2),
            upper_quartile: quantile(&numbers, 3, 4),
        }
    }

    /// Distance of the quartiles.
    #[must_use]
    pub(crate) fn spread(self) -> f64 {
        self.upper_quartile - self.lower_quartile
    }
}

/// The number `part / parts` of the way through ascending numbers.
fn quantile(ascending: &[f64], part: usize, parts: usize) -> f64 {
    let position = (ascending.len() - 1) * part;
    let (index, rest) = (position / parts, position % parts);
    let next = ascending[(index + 1).min(ascending.len() - 1)];
    ascending[index] + (next - ascending[index]) * (rest as f64 / parts as f64)
}
