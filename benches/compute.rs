//! What do graphs of tasks and blocked arrays cost, beside doing the same without them?
//!
//! Workloads, in this order: a million tasks that do nothing, as a star, a chain and a tree; the
//! product of two stored matrices of `f64`; the mean of every fourth field less the mean of every
//! fourth other of a `f32` array; the singular value decomposition of a tall stored matrix; peak
//! memory over more than 4 GiB of input in a control group of 512 MiB. Baselines: the same kernel
//! over memory on all processors; a sequential read of the bytes that are needed, page cache
//! emptied for both; one thread beside two; dask with NumPy, and over zarr, by
//! `benches/peers/peers.py`. Seeds: 1, 2, and the number of the field. Limits: the processor; for
//! the means the disk.

mod harness;
mod machine;
mod peer;
mod plain;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use harness::{Answer, Bar, Question, Ratio, compare, limit, not_run, seconds, sized};
use ndarray::{Array2, Array3, Ix2, Ix3};
use peer::Peer;
use plain::{Numbers, Outcome};
use zbigarray::compute::{Blocked, Family, Graph, RunOptions, TaskId, Value, linalg, run};
use zbigarray::{CreateOptions, DynArray, OpenOptions, Store};

/// Memory for blocks.
const BUDGET_BYTES: u64 = 384 << 20;
/// Memory of the control group.
const GROUP_BYTES: u64 = 512 << 20;
const LATITUDES: usize = 721;
const LONGITUDES: usize = 1440;
const FIELD_BYTES: usize = LATITUDES * LONGITUDES * 4;

fn main() -> Outcome<()> {
    if let Some(child) = machine::child_name() {
        let directory = std::env::var("ZBA_BENCH_DIRECTORY")?;
        computed(&child, Path::new(&directory), 0)?;
        println!("{}", machine::peak_resident_bytes()?);
        return Ok(());
    }
    for shape in [Shape::Star, Shape::Chain, Shape::Tree] {
        trivial(shape)?;
    }
    let directory = machine::data_dir()?;
    product(directory.path(), sized(8000, 2000))?;
    differences(directory.path(), sized(480, 64))?;
    decomposition(directory.path(), sized(30_000, 6_000), sized(1000, 200))?;
    drop(directory);
    memory()
}

/// How tasks depend on each other.
#[derive(Clone, Copy)]
enum Shape {
    /// On one.
    Star,
    /// Each on the one before.
    Chain,
    /// On two, down to one.
    Tree,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Star => "star",
            Self::Chain => "chain",
            Self::Tree => "tree",
        }
    }

    fn inputs(self, number: usize, leaves: usize) -> [Option<usize>; 2] {
        match self {
            Self::Star => [None, None],
            Self::Chain => [number.checked_sub(1), None],
            Self::Tree if number < leaves => [None, None],
            Self::Tree => [Some(2 * (number - leaves)), Some(2 * (number - leaves) + 1)],
        }
    }
}

/// Microseconds for each task that does nothing, its place in the graph included.
fn trivial(shape: Shape) -> Outcome<()> {
    // Odd, so that a tree of them has one root.
    let count: usize = sized(999_999, 99_999);
    let turn = || Outcome::Ok(seconds(|| nothings(shape, count))? * 1e6 / count as f64);
    let name = format!("trivial task, {}", shape.name());
    let values: Outcome<Vec<f64>> = (0..sized(7, 3)).map(|_| turn()).collect();
    limit(&name, "us", Bar::AtMost(2.0), values?).print();
    // Of dask a tenth: it would take minutes.
    let few = count / 10 | 1;
    let name = format!("{name}, against dask");
    let question = Question {
        name: &name,
        unit: "us",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(100.0),
        rounds: sized(3, 1),
    };
    let peer = Peer::start("tasks", &[shape.name(), &few.to_string()], 1)?;
    against(question, peer, 1e6 / few as f64, turn)
}

fn nothings(shape: Shape, count: usize) -> Outcome<()> {
    let mut graph = Graph::new();
    let family = Family::new("nothing", &[count as u64]);
    let leaves = count.div_ceil(2);
    let mut tasks: Vec<TaskId> = Vec::with_capacity(count);
    for number in 0..count {
        let [one, other] = shape.inputs(number, leaves).map(|at| at.map(|at| tasks[at]));
        let key = (&family, number as u64);
        let nothing = |_: &[Value]| Ok(Value::new((), 0));
        tasks.push(match (one, other) {
            (Some(one), Some(other)) => graph.task(key, &[one, other], 0, nothing),
            (Some(one), None) => graph.task(key, &[one], 0, nothing),
            _ => graph.task(key, &[], 0, nothing),
        });
    }
    let outputs = match shape {
        Shape::Star => tasks,
        _ => tasks.last().copied().into_iter().collect(),
    };
    run(&graph, &outputs, &RunOptions::default(), &mut |_, _| Ok(()))?;
    Ok(())
}

/// A row against a peer, whose seconds become the row's unit by `factor`.
fn against(
    question: Question<'_>,
    peer: Option<Peer>,
    factor: f64,
    subject: impl FnMut() -> Outcome<f64>,
) -> Outcome<()> {
    let answer: Answer = match peer {
        None => not_run(question.name, peer::HOW_TO),
        Some(mut peer) => compare(question, || Ok(peer.turn()? * factor), subject)?,
    };
    answer.print();
    Ok(())
}

/// The factors of a decomposition are larger than the budget of the others.
fn options(what: &str, threads: usize) -> RunOptions {
    let bytes = if what == "decomposition" { 4 * BUDGET_BYTES } else { BUDGET_BYTES };
    RunOptions { threads, memory_bytes: Some(bytes), ..RunOptions::default() }
}

fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut numbers = Numbers(seed);
    (0..count).map(|_| (numbers.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 - 0.5).collect()
}

/// The product of stored matrices into the store.
fn product(directory: &Path, n: usize) -> Outcome<()> {
    let path = directory.join("product");
    let (a, b) = (numbers(1, n * n), numbers(2, n * n));
    stored(&path, &[("a", &a, [n, n]), ("b", &b, [n, n])])?;
    let mut out = vec![0.0; n * n];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let kernel = || {
        seconds(|| {
            let panel = n.div_ceil(threads) * n;
            thread::scope(|scope| {
                for (rows, out) in a.chunks(panel).zip(out.chunks_mut(panel)) {
                    scope.spawn(|| panel_product(n, rows, &b, out));
                }
            });
            Outcome::Ok(black_box(out[0]))
        })
    };
    let name = format!("matmul of stored {n}x{n}");
    let question = |name, bar| Question {
        name,
        unit: "s",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(bar),
        rounds: sized(5, 3),
    };
    let timed = |threads| move || seconds(|| computed("product", directory, threads));
    let long = format!("{name}, against the kernel in memory");
    compare(question(&long, 0.9), kernel, timed(0))?.print();
    let long = format!("{name}, two threads against one");
    if threads >= 2 {
        compare(question(&long, 1.7), timed(1), timed(2))?.print();
    } else {
        not_run(&long, "there is one processor").print();
    }
    let place = directory.to_string_lossy();
    let peer = Peer::start("dask_matmul", &[&place, &n.to_string()], 1)?;
    let long = format!("{name}, against dask with NumPy");
    against(question(&long, 1.0), peer, 1.0, timed(0))
}

fn panel_product(n: usize, a: &[f64], b: &[f64], out: &mut [f64]) {
    let rows = a.len() / n;
    let a = MatRef::from_row_major_slice(a, rows, n);
    let b = MatRef::from_row_major_slice(b, n, n);
    let out = MatMut::from_row_major_slice_mut(out, rows, n);
    matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
}

/// A store with these matrices.
fn stored(path: &Path, matrices: &[(&str, &[f64], [usize; 2])]) -> Outcome<()> {
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    for &(name, elements, shape) in matrices {
        let lens = shape.map(|len| len as u64);
        let view = ndarray::ArrayView2::from_shape(shape, elements)?;
        transaction.create::<f64, Ix2>(name, &lens)?.assign("...", &view)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Computes one of the results from what was stored for it; it is written, not committed.
fn computed(what: &str, directory: &Path, threads: usize) -> Outcome<()> {
    let store = Store::open(directory.join(what), OpenOptions::default())?;
    let snapshot = store.begin_read()?;
    let a = DynArray::open(&snapshot, "a")?;
    let b = if matches!(what, "product" | "gram") { Some("b") } else { None };
    let b = b.map(|name| DynArray::open(&snapshot, name)).transpose()?;
    let array = Blocked::stored(&a)?;
    let transaction = store.begin()?;
    let into = |name: &str, result: &Blocked<'_>| -> Outcome<()> {
        let dtype = result.number().dtype();
        let plain = zbigarray::ArrayOptions::new();
        let mut target = DynArray::create(&transaction, name, &dtype, result.shape(), &plain)?;
        result.store_into(&mut target, &options(what, threads))?;
        Ok(())
    };
    match what {
        "differences" => {
            let (one, other) = (array.slice("::4")?.mean(0)?, array.slice("2::4")?.mean(0)?);
            into("result", &one.subtract(&other)?)
        }
        "decomposition" => {
            let (u, s, vt) = linalg::svd(&array)?;
            into("u", &u)?;
            into("s", &s)?;
            into("vt", &vt)
        }
        _ => {
            let other = Blocked::stored(b.as_ref().ok_or("there is no b")?)?;
            match what {
                "gram" => {
                    let product = linalg::dot(&array.transposed()?, &other)?;
                    into("result", &product.subtract(&other.mean(0)?)?)
                }
                _ => into("result", &linalg::matmul(&array, &other)?),
            }
        }
    }
}

/// Fields, one after another, in a store; and in a plain file, if there is to be one.
fn fields(directory: &Path, steps: usize, plain: Option<&File>) -> Outcome<()> {
    let store = Store::create(directory.join("differences"), CreateOptions::default())?;
    let transaction = store.begin()?;
    let shape = [0, LATITUDES as u64, LONGITUDES as u64];
    let mut array = transaction.create::<f32, Ix3>("a", &shape)?;
    let mut field = Array3::<f32>::zeros((1, LATITUDES, LONGITUDES));
    for step in 0..steps {
        let mut numbers = Numbers(step as u64);
        field.iter_mut().for_each(|value| *value = (numbers.next_u64() >> 40) as f32);
        array.append(&field)?;
        if let (Some(file), Some(elements)) = (plain, field.as_slice()) {
            let bytes = zbigarray::array::cast::as_bytes(elements);
            file.write_all_at(bytes, (step * FIELD_BYTES) as u64)?;
        }
    }
    drop(array);
    transaction.commit()?;
    Ok(())
}

/// The mean of every fourth field less that of every fourth other.
fn differences(directory: &Path, steps: usize) -> Outcome<()> {
    let path = directory.join("plain-fields");
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    fields(directory, steps, Some(&file))?;
    file.sync_all()?;
    let name = format!("day-night difference of {steps} fields");
    let question = |name, bar| Question {
        name,
        unit: "s",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(bar),
        rounds: sized(5, 3),
    };
    let long = format!("{name}, against reading what it needs");
    if let Err(why) = machine::drop_caches() {
        not_run(&long, &why.to_string()).print();
    } else {
        let mut field = vec![0_u8; FIELD_BYTES];
        let baseline = || {
            machine::drop_caches()?;
            seconds(|| {
                for step in (0..steps).step_by(2) {
                    file.read_exact_at(&mut field, (step * FIELD_BYTES) as u64)?;
                }
                Outcome::Ok(black_box(field[0]))
            })
        };
        let subject = || {
            machine::drop_caches()?;
            seconds(|| computed("differences", directory, 0))
        };
        compare(question(&long, 0.8), baseline, subject)?.print();
    }
    let place = directory.to_string_lossy();
    let peer = Peer::start("dask_differences", &[&place, &steps.to_string()], 1)?;
    let long = format!("{name}, against dask over zarr");
    let subject = || seconds(|| computed("differences", directory, 0));
    against(question(&long, 3.0), peer, 1.0, subject)
}

/// All singular values and vectors of a tall matrix.
fn decomposition(directory: &Path, rows: usize, columns: usize) -> Outcome<()> {
    let a = numbers(1, rows * columns);
    stored(&directory.join("decomposition"), &[("a", &a, [rows, columns])])?;
    drop(a);
    let name = format!("svd of stored {rows}x{columns}, against dask");
    let place = directory.to_string_lossy();
    let shape = [rows.to_string(), columns.to_string()];
    let peer = Peer::start("dask_svd", &[&place, &shape[0], &shape[1]], 1)?;
    let question = Question {
        name: &name,
        unit: "s",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(1.0),
        rounds: sized(3, 1),
    };
    against(question, peer, 1.0, || seconds(|| computed("decomposition", directory, 0)))
}

/// Peak resident memory beyond the budget, in a group whose page cache is limited too.
fn memory() -> Outcome<()> {
    let directory = machine::data_dir()?;
    // 4.2 GiB each, if it is to be known.
    fields(directory.path(), sized(1088, 64), None)?;
    let (rows, columns) = (sized(1_200_000, 20_000), 240);
    let store = Store::create(directory.path().join("gram"), CreateOptions::default())?;
    let transaction = store.begin()?;
    for (name, seed) in [("a", 1), ("b", 2)] {
        let mut array = transaction.create::<f64, Ix2>(name, &[0, columns as u64])?;
        let part = Array2::from_shape_vec((1000, columns), numbers(seed, 1000 * columns))?;
        (0..rows / 1000).try_for_each(|_| array.append(&part).map(drop))?;
    }
    transaction.commit()?;
    drop(store);
    for what in ["differences", "gram"] {
        let name = format!("memory beyond the budget, {what} of 4 GiB");
        let place = directory.path().to_string_lossy();
        let child = machine::child(what, GROUP_BYTES, &[("ZBA_BENCH_DIRECTORY", &place)]);
        match child {
            Err(why) => not_run(&name, &why.to_string()).print(),
            Ok(output) if !output.status.success() => {
                return Err(format!("{what} ended with {}", output.status).into());
            }
            Ok(output) => {
                let peak: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
                let beyond = (peak - BUDGET_BYTES as f64).max(0.0) / f64::from(1 << 20);
                limit(&name, "MiB", Bar::AtMost(64.0), vec![beyond]).print();
            }
        }
    }
    Ok(())
}
