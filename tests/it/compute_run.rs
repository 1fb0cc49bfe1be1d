//! Runs of graphs against an evaluator that only follows the definition, with any number of
//! threads, any budget, and a disk.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use proptest::prelude::*;
use zbigarray::compute::{
    Cache, CacheKey, Cancel, Family, Graph, MappedScratch, Progress, Report, RunError, RunOptions,
    Spill, TaskError, TaskId, Value, run,
};

/// A number with padding, so that it has a size.
struct Block {
    number: u64,
    padding: Vec<u8>,
}

impl Block {
    fn value(number: u64, bytes: u64) -> Value {
        let padding = vec![number as u8; bytes as usize];
        Value::spillable(Self { number, padding }, bytes)
    }
}

impl Spill for Block {
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.number.to_le_bytes())?;
        to.write_all(&self.padding)
    }

    fn restore(bytes: MappedScratch) -> Result<Self, TaskError> {
        let (number, padding) = bytes.split_first_chunk::<8>().ok_or("too short")?;
        let number = u64::from_le_bytes(*number);
        if padding.iter().any(|&byte| byte != number as u8) {
            return Err("the bytes are not those that were written".into());
        }
        Ok(Self { number, padding: padding.to_vec() })
    }
}

/// One task of a plan: its inputs, the bytes of its result, and whether it is cheap.
#[derive(Clone, Debug)]
struct Planned {
    inputs: Vec<usize>,
    bytes: u64,
    cheap: bool,
    literal: bool,
    wanted: bool,
}

fn any_plan(max: usize) -> impl Strategy<Value = Vec<Planned>> {
    let inputs = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop::collection::vec((inputs, 0_u64..5000, flags), 1..max).prop_map(|list| {
        let mut plan: Vec<Planned> = Vec::new();
        for (number, (wishes, bytes, (cheap, literal, wanted))) in list.into_iter().enumerate() {
            let inputs = match number {
                0 => Vec::new(),
                _ if literal => Vec::new(),
                // Mostly near ones, so that there are chains; the same may come twice.
                _ => wishes.iter().map(|wish| number - 1 - wish.index(number.min(5))).collect(),
            };
            plan.push(Planned { inputs, bytes, cheap, literal, wanted });
        }
        plan.last_mut().unwrap().wanted = true;
        plan
    })
}

fn combine(number: usize, inputs: impl Iterator<Item = u64>) -> u64 {
    let start = number as u64 + 1;
    inputs.fold(start, |sum, input| sum.wrapping_mul(31).wrapping_add(input ^ (sum >> 7)))
}

/// What each task is, by definition.
fn evaluate(plan: &[Planned]) -> Vec<u64> {
    let mut values: Vec<u64> = Vec::new();
    for (number, task) in plan.iter().enumerate() {
        values.push(combine(number, task.inputs.iter().map(|&input| values[input])));
    }
    values
}

fn graph_of(plan: &[Planned]) -> (Graph<'static>, Vec<TaskId>) {
    let mut graph = Graph::new();
    let family = Family::new("task", &[plan.len() as u64]);
    let mut ids: Vec<TaskId> = Vec::new();
    for (number, task) in plan.iter().enumerate() {
        let (inputs, bytes) = (task.inputs.iter().map(|&input| ids[input]), task.bytes);
        let inputs: Vec<TaskId> = inputs.collect();
        let id = match task.literal {
            true => graph.literal("literal", Block::value(combine(number, [].into_iter()), bytes)),
            false => graph.task((&family, number as u64), &inputs, bytes, move |inputs| {
                let numbers: Result<Vec<u64>, TaskError> =
                    inputs.iter().map(|input| Ok(input.expect::<Block>()?.number)).collect();
                Ok(Block::value(combine(number, numbers?.into_iter()), bytes))
            }),
        };
        if task.cheap {
            graph.cheap(id);
        }
        ids.push(id);
    }
    (graph, ids)
}

fn outputs_of(plan: &[Planned]) -> Vec<usize> {
    (0..plan.len()).filter(|&number| plan[number].wanted).collect()
}

/// Runs a plan and compares every output.
fn check(plan: &[Planned], options: &RunOptions) -> Result<Report, RunError> {
    let expected = evaluate(plan);
    let (graph, ids) = graph_of(plan);
    let outputs = outputs_of(plan);
    let wanted: Vec<TaskId> = outputs.iter().map(|&number| ids[number]).collect();
    let mut taken = vec![0; outputs.len()];
    let report = run(&graph, &wanted, options, &mut |place, value| {
        assert_eq!(value.expect::<Block>()?.number, expected[outputs[place]]);
        taken[place] += 1;
        Ok(())
    })?;
    assert_eq!(taken, vec![1; outputs.len()], "each output was taken once");
    if let Some(budget) = options.memory_bytes {
        let peak = report.peak_with_scratch_bytes;
        assert!(peak <= budget, "{peak} bytes of {budget}");
    }
    Ok(report)
}

/// Bytes with which the plan is refused, as the refusal says it.
fn needed(plan: &[Planned], spill: Option<PathBuf>) -> u64 {
    let options = RunOptions { memory_bytes: Some(0), spill, ..RunOptions::default() };
    match check(plan, &options) {
        Ok(_) => 0,
        Err(RunError::OverBudget { needed, .. }) => needed,
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_graph_gives_what_its_definition_says_with_any_threads_budget_and_disk(
        plan in any_plan(40), threads in 1_usize..5,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let spill = Some(directory.path().to_owned());
        let free = RunOptions { threads, ..RunOptions::default() };
        let report = check(&plan, &free).unwrap();
        prop_assert_eq!(report.bytes_spilled, 0);

        let needed_in_memory = needed(&plan, None);
        prop_assert_eq!(needed_in_memory, report.predicted_peak_bytes);
        let tight = RunOptions { memory_bytes: Some(needed_in_memory), ..free.clone() };
        let report = check(&plan, &tight).unwrap();
        prop_assert_eq!(report.bytes_spilled, 0);

        let needed_with_disk = needed(&plan, spill.clone());
        prop_assert!(needed_with_disk <= needed_in_memory);
        let tighter = RunOptions { memory_bytes: Some(needed_with_disk), spill, ..free };
        check(&plan, &tighter).unwrap();
        prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

/// `count` results of 4 KiB that are all alive at once, and their sum.
fn wide(graph: &mut Graph<'_>, count: u64) -> TaskId {
    let family = Family::new("part", &[count]);
    let parts: Vec<TaskId> = (0..count)
        .map(|at| graph.task((&family, at), &[], 4096, move |_| Ok(Block::value(at, 4096))))
        .collect();
    let mut total = graph.task("first", &[], 8, |_| Ok(Block::value(0, 8)));
    // Front to back and again, so that what was spilled is read and may go once more.
    for &part in parts.iter().chain(&parts) {
        total = graph.task("total", &[total, part], 8, |inputs| {
            let sum = inputs[0].expect::<Block>()?.number + inputs[1].expect::<Block>()?.number;
            Ok(Block::value(sum, 8))
        });
    }
    total
}

fn sum_of(
    graph: &Graph<'_>,
    total: TaskId,
    options: &RunOptions,
) -> Result<(u64, Report), RunError> {
    let mut sum = 0;
    let report = run(graph, &[total], options, &mut |_, value| {
        sum = value.expect::<Block>()?.number;
        Ok(())
    })?;
    Ok((sum, report))
}

#[test]
fn what_is_spilled_is_written_once_however_often_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut graph = Graph::new();
    let total = wide(&mut graph, 100);
    for threads in [1, 2, 4] {
        let options = RunOptions {
            threads,
            memory_bytes: Some(10 * 4096),
            spill: Some(directory.path().to_owned()),
            ..RunOptions::default()
        };
        let (sum, report) = sum_of(&graph, total, &options).unwrap();
        assert_eq!(sum, 2 * 4950);
        assert!(report.bytes_spilled >= 85 * 4096, "{} bytes spilled", report.bytes_spilled);
        assert!(report.bytes_spilled <= 100 * 4096, "{} bytes spilled", report.bytes_spilled);
        assert!(report.bytes_loaded >= report.bytes_spilled);
        assert!(report.peak_with_scratch_bytes <= 10 * 4096);
    }
}

#[test]
fn a_disk_that_is_full_is_an_error_that_says_so() {
    const CHILD: &str = "ZBA_SPILL_IN_CHILD";
    if std::env::var_os(CHILD).is_none() {
        // No file of the child may be longer than 64 KiB; the signal for that is ignored.
        let name = "compute_run::a_disk_that_is_full_is_an_error_that_says_so";
        let script = "ulimit -f 64 && trap '' XFSZ && exec \"$0\" \"$1\" --exact --nocapture";
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new("bash");
        child.arg("-c").arg(script).arg(program).arg(name).env(CHILD, "1");
        let output = child.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("1 passed"), "{told}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut graph = Graph::new();
    let total = wide(&mut graph, 100);
    for threads in [1, 2, 4] {
        let options = RunOptions {
            threads,
            memory_bytes: Some(10 * 4096),
            spill: Some(directory.path().to_owned()),
            ..RunOptions::default()
        };
        match sum_of(&graph, total, &options) {
            Err(RunError::Spill { key, cause }) => {
                assert!(key.to_string().starts_with("part["), "{key}");
                assert_eq!(cause.kind(), io::ErrorKind::FileTooLarge);
            }
            other => panic!("{:?}", other.map(|(sum, _)| sum)),
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// A file system of so many bytes at `directory`, if this process may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: &Path, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_small_file_system_that_is_full_is_told_and_leaves_no_result_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path(), "128k") else {
        println!("not run: mounting a file system needs root");
        return;
    };
    let options = |threads, memory_bytes| RunOptions {
        threads,
        memory_bytes: Some(memory_bytes),
        spill: Some(disk.0.clone()),
        ..RunOptions::default()
    };
    for threads in [1, 2, 4] {
        // Of 90 results that have no room in memory 16 have one here.
        let mut graph = Graph::new();
        let total = wide(&mut graph, 100);
        match sum_of(&graph, total, &options(threads, 10 * 4096)) {
            Err(RunError::Spill { key, cause }) => {
                assert!(key.to_string().starts_with("part["), "{key}");
                assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
            }
            other => panic!("{:?}", other.map(|(sum, _)| sum)),
        }
        // Nothing of the last run is left there.
        let mut graph = Graph::new();
        let total = wide(&mut graph, 20);
        let (sum, report) = sum_of(&graph, total, &options(threads, 12 * 4096)).unwrap();
        assert_eq!((sum, report.spills_refused), (380, 0));
        assert!(report.bytes_spilled >= 6 * 4096);
    }
}

#[test]
fn what_has_no_room_on_the_disk_stays_in_memory_and_something_smaller_goes() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path(), "128k") else {
        println!("not run: mounting a file system needs root");
        return;
    };
    let mut graph = Graph::new();
    let made = |graph: &mut Graph<'_>, name: &str, number: u64, bytes: u64| {
        graph.task(name, &[], bytes, move |_| Ok(Block::value(number, bytes)))
    };
    // In the order in which they are needed last.
    let large = made(&mut graph, "large", 1, 1 << 20);
    let small = made(&mut graph, "small", 2, 40 << 10);
    let other = made(&mut graph, "other", 3, 40 << 10);
    let sum = |graph: &mut Graph<'_>, name: &str, inputs: &[TaskId]| {
        graph.task(name, inputs, 8, |inputs| {
            let sum: Result<u64, TaskError> =
                inputs.iter().map(|input| Ok(input.expect::<Block>()?.number)).sum();
            Ok(Block::value(sum?, 8))
        })
    };
    let first = sum(&mut graph, "first", &[other]);
    let second = sum(&mut graph, "second", &[first, small]);
    let third = sum(&mut graph, "third", &[second, large]);
    let all = [large, small, other, third];
    // On one thread, so that it is known what has to leave.
    let options = RunOptions {
        threads: 1,
        memory_bytes: Some((1 << 20) + (60 << 10)),
        spill: Some(disk.0.clone()),
        ..RunOptions::default()
    };
    let mut numbers = [0; 4];
    let report = run(&graph, &all, &options, &mut |place, value| {
        numbers[place] = value.expect::<Block>()?.number;
        Ok(())
    });
    let report = report.unwrap();
    assert_eq!(numbers, [1, 2, 3, 6]);
    assert_eq!((report.spills_refused, report.bytes_spilled), (1, 40 << 10));
}

#[test]
fn a_place_to_spill_to_that_is_none_is_an_error() {
    let mut graph = Graph::new();
    let total = wide(&mut graph, 10);
    let options = RunOptions {
        memory_bytes: Some(5 * 4096),
        spill: Some("no such directory".into()),
        ..RunOptions::default()
    };
    let error = sum_of(&graph, total, &options).unwrap_err();
    assert!(
        matches!(error, RunError::Spill { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    );
}

#[test]
fn what_cannot_be_spilled_stays_and_the_run_is_refused_when_nothing_else_can_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut graph = Graph::new();
    let a = graph.task("a", &[], 100, |_| Ok(Value::new(1_u64, 100)));
    let b = graph.task("b", &[], 100, |_| Ok(Value::new(2_u64, 100)));
    let c = graph.task("c", &[b], 100, |inputs| Ok(inputs[0].clone()));
    let both = graph.task("both", &[a, b, c], 8, |_| Ok(Value::new((), 8)));
    let spill = Some(directory.path().to_owned());
    let options = |bytes| RunOptions {
        memory_bytes: Some(bytes),
        spill: spill.clone(),
        ..RunOptions::default()
    };
    assert!(run(&graph, &[both], &options(308), &mut |_, _| Ok(())).is_ok());
    let refused = run(&graph, &[both], &options(307), &mut |_, _| Ok(())).unwrap_err();
    let told = "task both needs 308 bytes at once, which is more than the budget of 307";
    assert_eq!(refused.to_string(), told);
    // Each step fits, but not with what it cannot get rid of.
    let last = graph.task("last", &[c], 8, |_| Ok(Value::new((), 8)));
    let after = graph.task("after", &[last, a], 8, |_| Ok(Value::new((), 8)));
    let ends = run(&graph, &[c, after], &options(150), &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(ends, RunError::OverBudget { .. }), "{ends}");
}

#[test]
fn outputs_that_are_taken_slowly_hold_the_run_up_and_not_the_budget() {
    let mut graph = Graph::new();
    let family = Family::new("row", &[200]);
    let rows: Vec<TaskId> = (0..200)
        .map(|at| graph.task((&family, at), &[], 1000, move |_| Ok(Block::value(at, 1000))))
        .collect();
    for threads in [1, 3] {
        let options = RunOptions { threads, memory_bytes: Some(5000), ..RunOptions::default() };
        let mut taken = 0;
        let report = run(&graph, &rows, &options, &mut |_, _| {
            taken += 1;
            std::thread::yield_now();
            Ok(())
        });
        assert_eq!(taken, 200);
        assert!(report.unwrap().peak_bytes <= 5000);
    }
}

#[test]
fn outputs_come_on_the_calling_thread_each_as_often_as_it_was_named() {
    for threads in [0, 1, 2, 7] {
        let mut graph = Graph::new();
        let one = graph.literal("one", Block::value(1, 8));
        let two = graph.task("two", &[one, one], 8, |inputs| Ok(inputs[1].clone()));
        let options = RunOptions { threads, ..RunOptions::default() };
        let caller = std::thread::current().id();
        let mut places = Vec::new();
        let report = run(&graph, &[two, one, two], &options, &mut |place, _| {
            assert_eq!(std::thread::current().id(), caller);
            places.push(place);
            Ok(())
        });
        places.sort_unstable();
        assert_eq!((places, report.unwrap().tasks), (vec![0, 1, 2], 1));
    }
}

#[test]
fn a_task_that_fails_or_panics_is_named_with_its_inputs_and_cause_from_within_a_step_too() {
    for threads in [1, 4] {
        let mut graph = Graph::new();
        let a = graph.task(("a", 3), &[], 8, |_| Ok(Block::value(1, 8)));
        let bad = graph.task("bad", &[a], 8, |_| Err("no such number")?);
        let worse = graph.task("worse", &[a, a], 8, |_| panic!("at the {}", "disco"));
        let ends = [bad, worse].map(|end| graph.task("end", &[end], 8, |i| Ok(i[0].clone())));
        let options = RunOptions { threads, ..RunOptions::default() };
        let told = ends
            .map(|end| run(&graph, &[end], &options, &mut |_, _| Ok(())).unwrap_err().to_string());
        assert_eq!(told[0], "task bad of (a[3]) failed: no such number");
        assert_eq!(told[1], "task worse of (a[3], a[3]) panicked: at the disco");
    }
}

#[test]
fn nothing_begins_after_a_failure_and_the_graph_can_be_run_again() {
    let begun = AtomicUsize::new(0);
    let fails = AtomicUsize::new(1);
    let mut graph = Graph::new();
    let mut before = graph.task("start", &[], 8, |_| Ok(Block::value(0, 8)));
    let mut all = vec![before];
    for number in 0..100 {
        let (begun, fails) = (&begun, &fails);
        before = graph.task(("link", number), &[before], 8, move |inputs| {
            begun.fetch_add(1, Ordering::Relaxed);
            if number == 10 && fails.load(Ordering::Relaxed) == 1 {
                return Err("broken".into());
            }
            Ok(inputs[0].clone())
        });
        all.push(before);
    }
    let options = RunOptions { threads: 3, ..RunOptions::default() };
    let failed = run(&graph, &all, &options, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(failed.to_string(), "task link[10] of (link[9]) failed: broken");
    assert_eq!(begun.load(Ordering::Relaxed), 11);
    fails.store(0, Ordering::Relaxed);
    let mut taken = 0;
    let again = run(&graph, &all, &options, &mut |_, _| {
        taken += 1;
        Ok(())
    });
    assert!(again.is_ok());
    assert_eq!(taken, 101);
}

#[test]
fn a_sink_that_fails_and_a_cancel_end_the_run() {
    for threads in [1, 3] {
        let cancel = Cancel::default();
        let options = RunOptions { threads, cancel: Some(cancel.clone()), ..RunOptions::default() };
        let mut graph = Graph::new();
        let a = graph.task("a", &[], 8, |_| Ok(Block::value(1, 8)));
        let refused = run(&graph, &[a], &options, &mut |_, _| Err("full")?).unwrap_err();
        assert_eq!(refused.to_string(), "result a could not be taken: full");
        let b = graph.task("b", &[a], 8, |inputs| {
            cancel.cancel();
            Ok(inputs[0].clone())
        });
        let c = graph.task("c", &[b], 8, |_| panic!("it ran although the run was cancelled"));
        let d = graph.task("d", &[b], 8, |_| panic!("it ran although the run was cancelled"));
        let cancelled = run(&graph, &[c, d], &options, &mut |_, _| Ok(()));
        assert!(matches!(cancelled, Err(RunError::Cancelled)));
    }
}

#[test]
fn tasks_that_can_run_at_once_do() {
    let both_are_here = Barrier::new(2);
    let mut graph = Graph::new();
    let halves = ["left", "right"].map(|name| {
        graph.task(name, &[], 8, |_| {
            both_are_here.wait();
            Ok(Block::value(1, 8))
        })
    });
    let options = RunOptions { threads: 2, memory_bytes: Some(1000), ..RunOptions::default() };
    run(&graph, &halves, &options, &mut |_, _| Ok(())).unwrap();
}

#[test]
fn what_stands_behind_a_long_task_in_its_batch_is_given_to_other_threads() {
    // Short tasks make large batches. The long one waits for what was made of later short ones,
    // which would never come if its batch kept them.
    let long_began = AtomicUsize::new(0);
    let mut graph = Graph::new();
    let family = Family::new("short", &[5000]);
    let all: Vec<TaskId> = (0..5000)
        .map(|at| {
            let long_began = &long_began;
            graph.task((&family, at), &[], 8, move |_| {
                if at == 4000 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    long_began.store(1, Ordering::Release);
                }
                Ok(Block::value(long_began.load(Ordering::Acquire) as u64, 8))
            })
        })
        .collect();
    for threads in [1, 2] {
        let options = RunOptions { threads, ..RunOptions::default() };
        let mut taken = 0;
        run(&graph, &all, &options, &mut |_, _| {
            taken += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(taken, 5000, "what was given back ran, and ran once");
    }
}

#[test]
fn cheap_tasks_run_where_they_are_needed_and_take_no_memory_between() {
    let reads = AtomicU64::new(0);
    let mut graph = Graph::new();
    let family = Family::new("read", &[50]);
    let blocks: Vec<TaskId> = (0..50)
        .map(|at| {
            let reads = &reads;
            let read = graph.task((&family, at), &[], 1000, move |_| {
                reads.fetch_add(1, Ordering::Relaxed);
                Ok(Block::value(at, 1000))
            });
            graph.cheap(read);
            graph.reads(read, 1000);
            read
        })
        .collect();
    let mut total = graph.literal("zero", Block::value(0, 8));
    for &block in &blocks {
        total = graph.task("total", &[total, block], 8, |inputs| {
            let sum = inputs[0].expect::<Block>()?.number + inputs[1].expect::<Block>()?.number;
            Ok(Block::value(sum, 8))
        });
    }
    let differences: Vec<TaskId> = blocks
        .iter()
        .map(|&block| graph.task("difference", &[block, total], 1000, |i| Ok(i[0].clone())))
        .collect();
    // x - x.mean() in the memory of a few blocks: x is read twice instead of kept.
    let options = RunOptions { threads: 2, memory_bytes: Some(4100), ..RunOptions::default() };
    let report = run(&graph, &differences, &options, &mut |_, _| Ok(())).unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 100);
    assert_eq!(report.bytes_read, 100_000);
}

#[test]
fn a_cache_saves_the_work_of_an_earlier_run_and_of_all_below_it() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let cache = Arc::new(Cache::new(1000));
    let build = |number: u64| {
        let mut graph = Graph::new();
        let noted = Arc::clone(&calls);
        let base = graph.task("base", &[], 8, move |_| {
            noted.lock().unwrap().push("base");
            Ok(Block::value(number, 8))
        });
        let noted = Arc::clone(&calls);
        let kept = graph.task("kept", &[base, base], 8, move |inputs| {
            noted.lock().unwrap().push("kept");
            Ok(inputs[0].clone())
        });
        graph.cached(kept, CacheKey([number as u8; 16]));
        let end = graph.task("end", &[kept], 8, |inputs| Ok(inputs[0].clone()));
        (graph, [end, kept])
    };
    let options = RunOptions { cache: Some(Arc::clone(&cache)), ..RunOptions::default() };
    for (number, expected_calls, hits) in [(1, 2, 0), (1, 2, 1), (2, 4, 0), (1, 4, 1), (2, 4, 1)] {
        let (graph, outputs) = build(number);
        let report = run(&graph, &outputs, &options, &mut |_, value| {
            assert_eq!(value.expect::<Block>()?.number, number);
            Ok(())
        });
        assert_eq!(calls.lock().unwrap().len(), expected_calls);
        assert_eq!(report.unwrap().cache_hits, hits);
    }
    assert_eq!(cache.bytes(), 16);
}

#[test]
fn progress_ends_where_the_report_does() {
    let mut graph = Graph::new();
    let total = wide(&mut graph, 20);
    let progress = Progress::default();
    assert_eq!(progress.now().tasks, 0);
    let options = RunOptions {
        progress: Some(progress.clone()),
        memory_bytes: Some(1 << 20),
        trace: true,
        ..RunOptions::default()
    };
    let (_, report) = sum_of(&graph, total, &options).unwrap();
    let now = progress.now();
    assert_eq!((now.tasks, now.tasks_done), (report.tasks, report.tasks));
    assert_eq!((now.live_bytes, now.budget_bytes), (0, 1 << 20));
    let trace = report.trace.unwrap();
    assert_eq!(trace.spans.len() as u64, report.steps);
    assert!(trace.spans.iter().all(|span| span.begin_ns <= span.end_ns));
    assert_eq!(trace.memory.last().unwrap().live_bytes, 0);
    assert!(trace.memory.iter().all(|moment| moment.live_bytes <= report.peak_bytes));
}
