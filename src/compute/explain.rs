//! What a run would do, without doing it.

use std::fmt;

use super::graph::{Graph, TaskId};
use super::run::{Plan, RunError, RunOptions};

/// What a run would do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Tasks of the graph.
    pub tasks_in_graph: u64,
    /// Tasks that would run; those that are cheap as often as they would run.
    pub tasks: u64,
    /// Steps that would be made of them.
    pub steps: u64,
    /// Results that the cache has.
    pub cached: u64,
    /// Outputs.
    pub outputs: u64,
    /// Bytes of all outputs.
    pub output_bytes: u64,
    /// Bytes that tasks say they read.
    pub bytes_to_read: u64,
    /// Bytes that tasks say they write.
    pub bytes_to_write: u64,
    /// Most bytes at one moment on one thread.
    pub peak_bytes: u64,
    /// Bytes without which no step could run.
    pub least_bytes: u64,
    /// The name of the task where the peak is.
    pub peak_at: String,
    /// Bytes that may be used.
    pub budget_bytes: Option<u64>,
    /// Whether results may be spilled.
    pub spills: bool,
}

/// Says what [`run`](super::run) would do with the same arguments.
///
/// # Errors
///
/// [`RunError::Graph`]; that a plan does not fit the budget is no error here.
pub fn explain(
    graph: &Graph<'_>,
    outputs: &[TaskId],
    options: &RunOptions,
) -> Result<Explanation, RunError> {
    let plan = Plan::new(graph, outputs, options)?;
    let steps = &plan.optimized.steps;
    let runner = plan.runner(options);
    let total = |bytes: &dyn Fn(u32) -> u64| {
        steps.all().fold(0_u64, |sum, step| sum.saturating_add(bytes(step)))
    };
    let profile = plan.profile();
    let peak = profile.iter().zip(&plan.order).max_by_key(|(bytes, _)| **bytes);
    let (peak_bytes, peak_at) =
        peak.map_or((0, String::new()), |(&bytes, &step)| (bytes, plan.key(step).to_string()));
    let output_bytes = outputs.iter().map(|output| graph.needs()[output.index()].bytes);
    Ok(Explanation {
        tasks_in_graph: graph.len() as u64,
        tasks: plan.optimized.members.items() as u64,
        steps: steps.len() as u64,
        cached: plan.known.len() as u64,
        outputs: outputs.len() as u64,
        output_bytes: output_bytes.fold(0, u64::saturating_add),
        bytes_to_read: total(&|step| runner.bytes_read(step)),
        bytes_to_write: total(&|step| runner.bytes_written(step)),
        peak_bytes,
        least_bytes: steps.all().map(|step| steps.need(step)).max().unwrap_or(0),
        peak_at,
        budget_bytes: options.memory_bytes,
        spills: options.spill.is_some(),
    })
}

impl Explanation {
    /// Whether a run would begin, instead of being refused.
    #[must_use]
    pub fn fits(&self) -> bool {
        let needed = if self.spills { self.least_bytes } else { self.peak_bytes };
        self.budget_bytes.is_none_or(|budget| needed <= budget)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tasks, steps, tasks_in_graph, .. } = self;
        writeln!(
            formatter,
            "tasks      {tasks} in {steps} steps, of {tasks_in_graph} in the graph"
        )?;
        if self.cached > 0 {
            writeln!(formatter, "cached     {} results", self.cached)?;
        }
        writeln!(formatter, "outputs    {}, {}", self.outputs, Bytes(self.output_bytes))?;
        writeln!(formatter, "to read    {}", Bytes(self.bytes_to_read))?;
        writeln!(formatter, "to write   {}", Bytes(self.bytes_to_write))?;
        writeln!(formatter, "peak       {} at {}", Bytes(self.peak_bytes), self.peak_at)?;
        let Some(budget) = self.budget_bytes else {
            return write!(formatter, "budget     none");
        };
        write!(formatter, "budget     {}: ", Bytes(budget))?;
        match (self.fits(), self.peak_bytes <= budget) {
            (true, true) => write!(formatter, "fits"),
            (true, false) => write!(formatter, "fits with results on the disk"),
            (false, _) if self.spills => {
                write!(formatter, "refused, one step needs {}", Bytes(self.least_bytes))
            }
            (false, _) => write!(
                formatter,
                "refused; with a directory to spill to {} would do",
                Bytes(self.least_bytes)
            ),
        }
    }
}

/// Bytes as people read them.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(formatter, "{} B", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        while value >= 1024.0 {
            value /= 1024.0;
            unit += 1;
        }
        write!(formatter, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Value;

    fn told(memory_bytes: Option<u64>, spill: Option<&str>) -> String {
        let mut graph = Graph::new();
        let value = |_: &[Value]| Ok(Value::new((), 0));
        let read = graph.task("read", &[], 4096, value);
        graph.reads(read, 1 << 20);
        graph.task("unused", &[], 4096, value);
        let other = graph.task("other", &[], 8192, value);
        let third = graph.task("third", &[other], 4096, value);
        let both = graph.task("both", &[read, third, other], 100, value);
        graph.writes(both, 100);
        let spill = spill.map(Into::into);
        let options = RunOptions { memory_bytes, spill, ..RunOptions::default() };
        explain(&graph, &[both], &options).unwrap().to_string()
    }

    #[test]
    fn the_text_says_what_would_run_and_what_it_takes() {
        let common = "tasks      4 in 4 steps, of 5 in the graph\noutputs    1, 100 B\n\
            to read    1.0 MiB\nto write   100 B\npeak       16.1 KiB at both\n";
        assert_eq!(told(None, None), format!("{common}budget     none"));
        assert_eq!(told(Some(20 << 10), None), format!("{common}budget     20.0 KiB: fits"));
        let refused = "refused; with a directory to spill to 16.1 KiB would do";
        assert_eq!(told(Some(1000), None), format!("{common}budget     1000 B: {refused}"));
        let refused = "refused, one step needs 16.1 KiB";
        assert_eq!(told(Some(1000), Some("d")), format!("{common}budget     1000 B: {refused}"));
    }
}
