//! What do blocked arrays cost, beside doing the same without them?
//!
//! Workloads, in this order: the product of two stored matrices of `f64`; the mean of every fourth
//! field less the mean of every fourth other of a `f32` array; the singular value decomposition of
//! a tall stored matrix; peak memory over more than 4 GiB of input each in a control group of 512
//! MiB. Baselines: the same kernel over memory on all processors; a sequential read of the bytes
//! that are needed, page cache emptied for both; one thread beside two; dask with NumPy, and over
//! zarr, by `benches/peers/peers.py`. Results are written, not committed. What does not fit 384 MiB
//! goes to the disk. Seeds: 1, 2, and the
//! number of the field. Limits: the processor; for the means the disk.

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
use harness::{Bar, Question, Ratio, compare, limit, not_run, seconds, sized};
use ndarray::{Array2, Array3, Ix2, Ix3};
use peer::{Peer, against};
use plain::{Numbers, Outcome};
use zbigarray::compute::{Blocked, RunOptions, linalg, store_all};
use zbigarray::{ArrayOptions, CreateOptions, DynArray, OpenOptions, Store};

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
    // `cargo bench --bench compute -- product` asks only that.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_asked = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let directory = machine::data_dir()?;
    if is_asked("product") {
        product(directory.path(), sized(6000, 2000))?;
    }
    if is_asked("differences") {
        differences(directory.path(), sized(480, 64))?;
    }
    if is_asked("decomposition") {
        decomposition(directory.path(), sized(30_000, 6_000), sized(1000, 200))?;
    }
    drop(directory);
    if is_asked("memory") {
        memory()?;
    }
    Ok(())
}

fn question(name: &str, bar: f64) -> Question<'_> {
    let (ratio, bar, rounds) = (Ratio::Speed, Bar::AtLeast(bar), sized(5, 3));
    Question { name, unit: "s", ratio, bar, rounds }
}

/// For speed a decomposition may have as much memory as dask takes for it.
fn options(what: &str, directory: &Path, threads: usize) -> RunOptions {
    let is_limited = what != "decomposition" || machine::child_name().is_some();
    let memory_bytes = is_limited.then_some(BUDGET_BYTES);
    let spill = Some(directory.to_path_buf());
    RunOptions { threads, memory_bytes, spill, ..RunOptions::default() }
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
    let b = matches!(what, "product" | "gram").then(|| DynArray::open(&snapshot, "b"));
    let b = b.transpose()?;
    let array = Blocked::stored(&a)?;
    let other = b.as_ref().map(Blocked::stored).transpose()?;
    let results = match (what, &other) {
        ("differences", _) => {
            vec![array.slice("::4")?.mean(0)?.subtract(&array.slice("2::4")?.mean(0)?)?]
        }
        ("decomposition", _) => {
            let (u, s, vt) = linalg::svd(&array)?;
            vec![u, s, vt]
        }
        ("gram", Some(b)) => vec![linalg::dot(&array.transposed()?, b)?.subtract(&b.mean(0)?)?],
        ("product", Some(b)) => vec![linalg::matmul(&array, b)?],
        _ => return Err(format!("nothing is called {what}").into()),
    };
    let transaction = store.begin()?;
    let plain = ArrayOptions::new();
    let targets = results.iter().enumerate().map(|(number, result)| {
        let name = format!("result{number}");
        DynArray::create(&transaction, &name, &result.number().dtype(), result.shape(), &plain)
    });
    let mut targets = targets.collect::<Result<Vec<_>, _>>()?;
    let mut pairs: Vec<(&Blocked<'_>, &mut DynArray<'_>)> =
        results.iter().zip(&mut targets).collect();
    store_all(&mut pairs, &options(what, directory, threads))?;
    Ok(())
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
    against(question(&name, 1.0), peer, 1.0, || seconds(|| computed("decomposition", directory, 0)))
}

/// Peak resident memory beyond the budget, in a group whose page cache is limited too.
fn memory() -> Outcome<()> {
    let wide = 240;
    let tall = |rows: usize| [rows / 1000 * 1000, wide];
    // 4.2 GiB and more each, if it is to be known.
    for what in ["differences", "gram", "product", "decomposition"] {
        let directory = machine::data_dir()?;
        let path = directory.path().join(what);
        match what {
            "differences" => fields(directory.path(), sized(1088, 64), None)?,
            "gram" => parts(&path, &["a", "b"], tall(sized(1_200_000, 20_000)))?,
            "product" => parts(&path, &["a", "b"], [sized(17_000, 1000); 2])?,
            _ => parts(&path, &["a"], tall(sized(2_400_000, 20_000)))?,
        }
        let name = format!("memory beyond the budget, {what} of 4 GiB");
        let place = directory.path().to_string_lossy();
        // What is read belongs to the group then, and not to who wrote it.
        let _ = machine::drop_caches();
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

/// A store with matrices that are written thousand rows at a time.
fn parts(path: &Path, names: &[&str], [rows, columns]: [usize; 2]) -> Outcome<()> {
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    for (name, seed) in names.iter().zip(1..) {
        let mut array = transaction.create::<f64, Ix2>(name, &[0, columns as u64])?;
        let part = Array2::from_shape_vec((1000, columns), numbers(seed, 1000 * columns))?;
        (0..rows / 1000).try_for_each(|_| array.append(&part).map(drop))?;
    }
    transaction.commit()?;
    Ok(())
}
