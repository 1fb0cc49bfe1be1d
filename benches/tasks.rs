//! What does a task cost that does nothing?
//!
//! Workload: a million tasks that return a number, with the graph built, run and dropped: all for
//! themselves; a chain, which becomes one step; a binary tree of sums. With as many threads as
//! processors. Limit: one core, which builds and orders the graph. Expected: 1 us. A tenth of the
//! tasks in quick runs. Baseline: dask's threaded scheduler, with a tenth of the tasks, by
//! `benches/peers/peers.py`.

mod harness;
mod peer;
mod plain;

use harness::{Bar, Question, Ratio, limit, seconds, sized};
use peer::{Peer, against};
use plain::Outcome;
use zbigarray::compute::{Family, Graph, RunOptions, TaskError, TaskId, Value, run};

fn main() -> Outcome<()> {
    let count = sized(1_000_000, 100_000);
    let bar = Bar::AtMost(2.0);
    for (shape, build) in [
        ("embarrassing", embarrassing as fn(&mut Graph<'_>, u64) -> Vec<TaskId>),
        ("chain", chain),
        ("tree", tree),
    ] {
        let name = format!("trivial task, {shape}");
        let once = || -> Outcome<f64> {
            let time = seconds(|| whole(count, build))?;
            Ok(time * 1e6 / count as f64)
        };
        once()?;
        let times = (0..sized(9, 3)).map(|_| once()).collect::<Outcome<Vec<f64>>>()?;
        limit(&name, "us", bar, times).print();
        // Of dask a tenth: it would take minutes.
        let few = count / 10;
        let name = format!("{name}, against dask");
        let (ratio, bar, rounds) = (Ratio::Speed, Bar::AtLeast(100.0), sized(3, 1));
        let question = Question { name: &name, unit: "us", ratio, bar, rounds };
        let peer = Peer::start("tasks", &[shape, &few.to_string()], 1)?;
        against(question, peer, 1e6 / few as f64, once)?;
    }
    Ok(())
}

/// Builds, runs and drops a graph; returns the sum of its outputs.
fn whole(count: u64, build: fn(&mut Graph<'_>, u64) -> Vec<TaskId>) -> Outcome<u64> {
    let mut graph = Graph::new();
    let outputs = build(&mut graph, count);
    let mut sum = 0_u64;
    let report = run(&graph, &outputs, &RunOptions::default(), &mut |_, value| {
        sum = sum.wrapping_add(*value.expect::<u64>()?);
        Ok(())
    })?;
    assert_eq!(report.tasks, graph.len() as u64, "every task ran");
    Ok(sum)
}

fn embarrassing(graph: &mut Graph<'_>, count: u64) -> Vec<TaskId> {
    let family = Family::new("task", &[count]);
    (0..count).map(|at| graph.task((&family, at), &[], 8, move |_| number(at))).collect()
}

fn chain(graph: &mut Graph<'_>, count: u64) -> Vec<TaskId> {
    let family = Family::new("link", &[count]);
    let mut last = graph.task((&family, 0), &[], 8, sum);
    for at in 1..count {
        last = graph.task((&family, at), &[last], 8, sum);
    }
    vec![last]
}

fn tree(graph: &mut Graph<'_>, count: u64) -> Vec<TaskId> {
    let leaves = Family::new("leaf", &[count / 2]);
    let mut level: Vec<TaskId> =
        (0..count / 2).map(|at| graph.task((&leaves, at), &[], 8, move |_| number(at))).collect();
    let sums = Family::new("sum", &[count]);
    while level.len() > 1 {
        let pairs = level.chunks(2);
        level =
            pairs.map(|pair| graph.task((&sums, pair[0].index() as u64), pair, 8, sum)).collect();
    }
    level
}

fn number(number: u64) -> Result<Value, TaskError> {
    Ok(Value::new(number, 8))
}

fn sum(inputs: &[Value]) -> Result<Value, TaskError> {
    let mut sum = 1_u64;
    for input in inputs {
        sum = sum.wrapping_add(*input.expect::<u64>()?);
    }
    number(sum)
}
