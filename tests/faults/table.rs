//! The table of what failed how, how often, and how the store took it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::workload::Dice;

/// Failures that are printed in full.
const SHOWN: usize = 12;

/// Which of all runs are made.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// One in so many.
    pub(crate) every: usize,
    /// What the programs do: another number, other commits.
    pub(crate) seed: u64,
}

impl Sample {
    /// Whether run `number` belongs to the sample.
    ///
    /// Not each `every`-th: runs come in groups, and a multiple of a group's size would miss kinds.
    pub(crate) fn has(self, number: usize) -> bool {
        Dice::new(self.every as u64, number as u64).below(self.every) == 0
    }
}

#[derive(Default)]
struct Row {
    runs: usize,
    failed: usize,
}

/// Rows by rig, site and kind of fault.
pub(crate) struct Table {
    rows: BTreeMap<(String, String, String), Row>,
    failures: Vec<String>,
    not_run: Vec<(String, String)>,
    started: Instant,
    times: Vec<(String, usize, Duration)>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            failures: Vec::new(),
            not_run: Vec::new(),
            started: Instant::now(),
            times: Vec::new(),
        }
    }

    /// Counts one run. A failure is printed at once.
    pub(crate) fn row(&mut self, rig: &str, site: &str, how: &str, result: Result<(), String>) {
        let key = (rig.to_owned(), site.to_owned(), how.to_owned());
        let row = self.rows.entry(key).or_default();
        row.runs += 1;
        if let Err(why) = result {
            row.failed += 1;
            let line = format!("{rig}: {site}: {how}: {why}");
            if self.failures.len() < SHOWN {
                eprintln!("FAILED {line}");
            }
            self.failures.push(line);
        }
    }

    /// Notes that a rig cannot run here.
    pub(crate) fn not_run(&mut self, rig: &str, why: impl Into<String>) {
        self.not_run.push((rig.to_owned(), why.into()));
    }

    /// Notes the end of a rig.
    pub(crate) fn finished(&mut self, rig: &str) {
        let before: Duration = self.times.iter().map(|(_, _, time)| *time).sum();
        let runs = self.rows.iter().filter(|((of, ..), _)| of == rig).map(|(_, row)| row.runs);
        let runs = runs.sum();
        if runs == 0 && self.not_run.is_empty() {
            self.not_run(rig, "no run of it is in so small a sample");
        }
        self.times.push((rig.to_owned(), runs, self.started.elapsed() - before));
    }

    /// Prints the table and says whether everything held.
    pub(crate) fn print(&self) -> bool {
        println!("{:10} {:28} {:22} {:>6}  result", "rig", "site", "fault", "runs");
        for ((rig, site, how), row) in &self.rows {
            let result = match row.failed {
                0 => "ok".to_owned(),
                failed => format!("{failed} FAILED"),
            };
            println!("{rig:10} {site:28} {how:22} {:6}  {result}", row.runs);
        }
        for (rig, runs, time) in &self.times {
            println!("{rig}: {runs} runs in {:.1} s", time.as_secs_f64());
        }
        for (rig, why) in &self.not_run {
            println!("{rig}: not run: {why}");
        }
        println!("{} failures", self.failures.len());
        self.failures.is_empty()
    }
}
