//! Matrices larger than the memory they may use: a product, a product less a mean, an SVD.
//!
//! ```sh
//! cargo run --release --example matrices                               small ones, in seconds
//! cargo run --release --example matrices -- matmul 24000 --memory 384
//! cargo run --release --example matrices -- gram 2000000 300 --memory 384
//! cargo run --release --example matrices -- svd 30000 1000 --memory 1024
//! ```
//!
//! `matmul` is `A @ B` of N x N, `gram` is `A.T.dot(B) - B.mean(axis=0)` of N x M, `svd` all
//! singular values and vectors of N x M. The matrices are written into a store first, with seeded
//! numbers, and results are committed; each is compared with its definition at some places.

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ndarray::{Array1, Array2, Ix1, Ix2, s};
use zbigarray::compute::{Blocked, RunOptions, linalg, store_all};
use zbigarray::{ArrayOptions, CreateOptions, DynArray, Store};

const OUT: &str = "target/matrices";
/// Bytes written at once.
const PART_BYTES: usize = 32 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut words, mut memory) = (Vec::new(), 256);
    let mut given = env::args().skip(1);
    while let Some(word) = given.next() {
        match word.as_str() {
            "--memory" => memory = given.next().ok_or("--memory needs a number of MiB")?.parse()?,
            _ => words.push(word),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let memory: u64 = memory << 20;
    match words[..] {
        [] => {
            matmul(700, memory)?;
            gram(20_000, 40, memory)?;
            svd(4_000, 60, memory)?;
        }
        ["matmul", n] => matmul(n.parse()?, memory)?,
        ["gram", n, m] => gram(n.parse()?, m.parse()?, memory)?,
        ["svd", n, m] => svd(n.parse()?, m.parse()?, memory)?,
        _ => return Err("usage: matrices [matmul N | gram N M | svd N M] [--memory MIB]".into()),
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("peak resident memory {}", peak.trim());
    Ok(())
}

/// A new store with these matrices of seeded numbers.
fn store_with(matrices: &[(&str, u64, [usize; 2])]) -> Result<Store, Box<dyn Error>> {
    let path = Path::new(OUT);
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    for &(name, seed, [rows, columns]) in matrices {
        let mut array = transaction.create::<f64, Ix2>(name, &[0, columns as u64])?;
        let step = (PART_BYTES / 8 / columns).max(1);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let part = Array2::from_shape_fn((count, columns), |(row, column)| {
                element(seed, first + row, column)
            });
            array.append(&part)?;
        }
    }
    transaction.commit()?;
    Ok(store)
}

/// A number between -1 and 1.
fn element(seed: u64, row: usize, column: usize) -> f64 {
    let mut z =
        seed.wrapping_add(((row as u64) << 32 | column as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// Computes `results` into new arrays, what they have in common once, and commits them; returns
/// how long computing took.
fn committed(
    store: &Store,
    results: &[(&str, &Blocked<'_>)],
    memory: u64,
) -> Result<f64, Box<dyn Error>> {
    let transaction = store.begin()?;
    let started = Instant::now();
    let plain = ArrayOptions::new();
    let targets = results.iter().map(|(name, result)| {
        DynArray::create(&transaction, name, &result.number().dtype(), result.shape(), &plain)
    });
    let mut targets = targets.collect::<Result<Vec<_>, _>>()?;
    let mut pairs: Vec<(&Blocked<'_>, &mut DynArray<'_>)> =
        results.iter().map(|(_, result)| *result).zip(&mut targets).collect();
    let (memory_bytes, spill) = (Some(memory), Some(Path::new(OUT).to_path_buf()));
    let options = RunOptions { memory_bytes, spill, ..RunOptions::default() };
    let report = store_all(&mut pairs, &options)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(targets);
    transaction.commit()?;
    let names: Vec<&str> = results.iter().map(|(name, _)| *name).collect();
    println!(
        "{}: {seconds:.2} s, {} tasks, results of at most {} MiB, {} MiB on the disk for a while, \
         committed after {:.2} s",
        names.join(", "),
        report.tasks,
        report.peak_bytes >> 20,
        report.bytes_spilled >> 20,
        started.elapsed().as_secs_f64(),
    );
    Ok(seconds)
}

fn matmul(n: usize, memory: u64) -> Result<(), Box<dyn Error>> {
    let store = store_with(&[("a", 1, [n, n]), ("b", 2, [n, n])])?;
    let snapshot = store.begin_read()?;
    let (a, b) = (DynArray::open(&snapshot, "a")?, DynArray::open(&snapshot, "b")?);
    let product = linalg::matmul(&Blocked::stored(&a)?, &Blocked::stored(&b)?)?;
    let seconds = committed(&store, &[("product", &product)], memory)?;
    println!("{:.1} GFLOP/s", 2.0 * (n as f64).powi(3) / seconds / 1e9);
    let snapshot = store.begin_read()?;
    let product = snapshot.open::<f64, Ix2>("product")?;
    let product = product.view()?;
    for (row, column) in [(0, 0), (n / 2, n / 3), (n - 1, n - 1)] {
        let wanted = (0..n).map(|k| element(1, row, k) * element(2, k, column)).sum();
        near(product[[row, column]], wanted, n)?;
    }
    Ok(())
}

fn gram(n: usize, m: usize, memory: u64) -> Result<(), Box<dyn Error>> {
    let store = store_with(&[("a", 1, [n, m]), ("b", 2, [n, m])])?;
    let snapshot = store.begin_read()?;
    let (a, b) = (DynArray::open(&snapshot, "a")?, DynArray::open(&snapshot, "b")?);
    let (a, b) = (Blocked::stored(&a)?, Blocked::stored(&b)?);
    let result = linalg::dot(&a.transposed()?, &b)?.subtract(&b.mean(0)?)?;
    committed(&store, &[("gram", &result)], memory)?;
    let snapshot = store.begin_read()?;
    let result = snapshot.open::<f64, Ix2>("gram")?;
    let found = result.view()?[[m / 2, m / 3]];
    let sum: f64 = (0..n).map(|k| element(1, k, m / 2) * element(2, k, m / 3)).sum();
    let mean: f64 = (0..n).map(|k| element(2, k, m / 3)).sum::<f64>() / n as f64;
    near(found, sum - mean, n)
}

fn svd(n: usize, m: usize, memory: u64) -> Result<(), Box<dyn Error>> {
    let store = store_with(&[("a", 1, [n, m])])?;
    let snapshot = store.begin_read()?;
    let array = DynArray::open(&snapshot, "a")?;
    let (u, values, vt) = linalg::svd(&Blocked::stored(&array)?)?;
    committed(&store, &[("u", &u), ("s", &values), ("vt", &vt)], memory)?;
    let snapshot = store.begin_read()?;
    let (u, values, vt) = (
        snapshot.open::<f64, Ix2>("u")?,
        snapshot.open::<f64, Ix1>("s")?,
        snapshot.open::<f64, Ix2>("vt")?,
    );
    let (u, values, vt) = (u.view()?, values.view()?, vt.view()?);
    let row: Array1<f64> = &u.slice(s![n / 2, ..]) * &values;
    let found = row.dot(&vt);
    for column in [0, m / 2, m - 1] {
        near(found[column], element(1, n / 2, column), n)?;
    }
    println!("singular values {:.4} ... {:.4}", values[0], values[values.len() - 1]);
    Ok(())
}

fn near(found: f64, wanted: f64, terms: usize) -> Result<(), Box<dyn Error>> {
    if (found - wanted).abs() > 1e-12 * terms as f64 {
        return Err(format!("{found} instead of {wanted}").into());
    }
    Ok(())
}
