//! Runs against what their graphs say, and bugs that these checks must find.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::compute::planted::{Bug, plant};
use crate::compute::{
    Cancel, Graph, MappedScratch, RunError, RunOptions, Spill, TaskError, TaskId, Value, run,
};
use crate::sync::process::{AtomicUsize, Ordering};

const LEN: usize = 5000;
const BYTES: u64 = LEN as u64;

/// A number with padding, so that it has a size. What comes back is believed.
struct Padded(u64);

impl Spill for Padded {
    fn spill(&self, to: &mut dyn io::Write) -> io::Result<()> {
        to.write_all(&self.0.to_le_bytes())?;
        to.write_all(&[0; LEN - 8])
    }

    fn restore(bytes: MappedScratch) -> Result<Self, TaskError> {
        let number = bytes.first_chunk().ok_or("too short")?;
        Ok(Self(u64::from_le_bytes(*number)))
    }
}

/// What a task makes of its inputs: another order of tasks or inputs gives another number.
fn mixed(task: u64, inputs: impl Iterator<Item = u64>) -> u64 {
    inputs.fold(task + 1, |sum, input| sum.wrapping_mul(31).wrapping_add(input))
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }
}

fn options(directory: &Path, budget: u64) -> RunOptions {
    RunOptions {
        threads: 1,
        memory_bytes: Some(budget),
        spill: Some(directory.to_owned()),
        ..RunOptions::default()
    }
}

/// A graph of which some tasks are cheap or in chains, with the number of each task.
fn any_graph(seed: u64) -> (Graph<'static>, Vec<u64>) {
    let mut dice = Dice(seed);
    let mut graph = Graph::new();
    let (mut ids, mut numbers) = (Vec::<TaskId>::new(), Vec::<u64>::new());
    for task in 0..2 + dice.below(30) as u64 {
        let inputs: Vec<usize> = match (ids.len(), dice.below(3)) {
            (0, _) => Vec::new(),
            (count, 0) => vec![count - 1],
            (count, _) => (0..dice.below(4)).map(|_| dice.below(count)).collect(),
        };
        numbers.push(mixed(task, inputs.iter().map(|&at| numbers[at])));
        let from: Vec<TaskId> = inputs.iter().map(|&at| ids[at]).collect();
        let id = graph.task(("task", task), &from, BYTES, move |values| {
            let inputs: Result<Vec<u64>, _> =
                values.iter().map(|value| Ok(value.expect::<Padded>()?.0)).collect();
            let number = mixed(task, inputs.map_err(|error: TaskError| error)?.into_iter());
            Ok(Value::spillable(Padded(number), BYTES))
        });
        if dice.below(5) == 0 {
            graph.cheap(id);
        }
        ids.push(id);
    }
    (graph, numbers)
}

/// Whether every output comes once, with its number.
fn results_are_those_of_the_graph(directory: &Path, seed: u64) -> Result<(), String> {
    let (graph, numbers) = any_graph(seed);
    let mut dice = Dice(seed ^ 99);
    let mut outputs = vec![graph.id(graph.len() - 1)];
    outputs.extend((0..dice.below(4)).map(|_| graph.id(dice.below(graph.len()))));
    let mut taken = Vec::new();
    run(&graph, &outputs, &options(directory, 40 * BYTES), &mut |place, value| {
        taken.push((place, value.expect::<Padded>()?.0));
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    taken.sort_unstable();
    let wanted = outputs.iter().map(|output| numbers[output.index()]).enumerate();
    let wanted: Vec<(usize, u64)> = wanted.collect();
    (taken == wanted).then_some(()).ok_or_else(|| format!("{taken:?} instead of {wanted:?}"))
}

/// Whether nothing begins after a cancel, within a step or after it.
fn a_cancel_ends_the_run(_: &Path, seed: u64) -> Result<(), String> {
    let (cancel, late) = (Cancel::default(), AtomicUsize::new(0));
    let mut graph = Graph::new();
    let first = graph.task("first", &[], 8, |_| {
        cancel.cancel();
        Ok(Value::new((), 8))
    });
    let mut last = first;
    for number in 0..1 + seed % 3 {
        last = graph.task(("late", number), &[last], 8, |_| {
            late.fetch_add(1, Ordering::Relaxed);
            Ok(Value::new((), 8))
        });
    }
    let outputs = if seed.is_multiple_of(2) { vec![last] } else { vec![first, last] };
    let options = RunOptions { threads: 1, cancel: Some(cancel.clone()), ..RunOptions::default() };
    match run(&graph, &outputs, &options, &mut |_, _| Ok(())) {
        Err(RunError::Cancelled) if late.load(Ordering::Relaxed) == 0 => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("the run ended as if nothing had been".to_owned()),
    }
}

/// Whether nothing begins after a task that failed.
fn a_failure_ends_the_run(_: &Path, seed: u64) -> Result<(), String> {
    let (has_failed, late) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut graph = Graph::new();
    let all: Vec<TaskId> = (0..400)
        .map(|number| {
            graph.task(("task", number), &[], 8, {
                let (has_failed, late) = (&has_failed, &late);
                move |_| {
                    late.fetch_add(has_failed.load(Ordering::Relaxed), Ordering::Relaxed);
                    if number == 100 + seed % 250 {
                        has_failed.store(1, Ordering::Relaxed);
                        return Err("broken".into());
                    }
                    Ok(Value::new((), 8))
                }
            })
        })
        .collect();
    let options = RunOptions { threads: 1, ..RunOptions::default() };
    match run(&graph, &all, &options, &mut |_, _| Ok(())) {
        Err(RunError::Task { .. }) if late.load(Ordering::Relaxed) == 0 => Ok(()),
        Err(_) => Err("tasks began after one had failed".to_owned()),
        Ok(_) => Err("the failure was lost".to_owned()),
    }
}

/// Changes one byte of all that was spilled to `directory`, in every unnamed file there.
fn damage(directory: &Path, at: u64) {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if !target.starts_with(directory) || target == directory {
            continue;
        }
        let file = File::options().read(true).write(true).open(entry.path()).unwrap();
        let pages = file.metadata().unwrap().len() / 4096;
        for page in 0..pages {
            let mut byte = [0];
            file.read_exact_at(&mut byte, page * 4096 + at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], page * 4096 + at).unwrap();
        }
    }
}

/// Whether bytes that changed on the disk are an error that names the result.
fn damage_on_the_disk_is_noticed(directory: &Path, seed: u64) -> Result<(), String> {
    let mut graph = Graph::new();
    let parts: Vec<TaskId> = (0..10)
        .map(|number| {
            graph.task(("part", number), &[], BYTES, move |_| {
                Ok(Value::spillable(Padded(number), BYTES))
            })
        })
        .collect();
    let mut total = graph.task("total", &[], 8, |_| {
        damage(directory, seed % 800);
        Ok(Value::new(0_u64, 8))
    });
    for &part in &parts {
        total = graph.task("total", &[total, part], 8, |inputs| {
            Ok(Value::new(inputs[0].expect::<u64>()? + inputs[1].expect::<Padded>()?.0, 8))
        });
    }
    // The total comes last, when all parts were made and most of them lie on the disk.
    let outputs: Vec<TaskId> = parts.into_iter().chain([total]).collect();
    let mut options = options(directory, 6 * BYTES);
    options.threads = 1;
    match run(&graph, &outputs, &options, &mut |_, _| Ok(())) {
        Err(RunError::Restore { key, cause }) => {
            let told = cause.to_string();
            let is_named = key.to_string().starts_with("part[");
            let has_sums = told.starts_with("5000 bytes that were written have the checksum ");
            (is_named && has_sums).then_some(()).ok_or(told)
        }
        Err(error) => Err(error.to_string()),
        Ok(report) if report.bytes_loaded == 0 => Err("nothing came from the disk".to_owned()),
        Ok(_) => Err("damaged bytes were believed".to_owned()),
    }
}

type Check = fn(&Path, u64) -> Result<(), String>;

const CHECKS: [Check; 4] = [
    results_are_those_of_the_graph,
    a_cancel_ends_the_run,
    a_failure_ends_the_run,
    damage_on_the_disk_is_noticed,
];

/// The first thing that is wrong with many runs while `bug` is planted.
fn fault(bug: Option<Bug>, checks: &[Check]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    (1..60).find_map(|seed| {
        plant(bug);
        let run = || checks.iter().try_for_each(|check| check(&path, seed));
        let result = catch_unwind(AssertUnwindSafe(run));
        plant(None);
        result.unwrap_or_else(|_| Err("the scheduler stopped the run".to_owned())).err()
    })
}

#[test]
fn runs_are_what_their_graphs_say_and_damage_is_never_believed() {
    for check in CHECKS {
        assert_eq!(fault(None, &[check]), None);
    }
}

#[test]
fn every_bug_that_is_planted_in_a_run_is_found() {
    for bug in Bug::OF_RUN {
        assert!(fault(Some(bug), &CHECKS).is_some(), "{bug:?} is not found");
    }
}
