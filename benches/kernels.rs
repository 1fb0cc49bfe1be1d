//! Which library multiplies and factors one block in memory fastest?
//!
//! Workload: square products of `f64` and `f32` in row-major order, and QR and the thin singular
//! value decomposition of a tall block of `f64`. Subject: faer, one thread for each panel of rows
//! of the result, each a kernel of its own, because a kernel in a task has one thread. Baselines:
//! `matrixmultiply` as `ndarray` calls it, split in the same way, and NumPy over OpenBLAS, with as
//! many threads of its own. All warm. Limit: the processor. Seeds: 1 and 2. Decision 012 is what
//! came of it.

mod harness;
mod peer;
mod plain;

use std::hint::black_box;
use std::thread;

use faer::linalg::matmul::matmul;
use faer::traits::ComplexField;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use harness::{Bar, Question, Ratio, compare, not_run, seconds, sized};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar};
use peer::Peer;
use plain::{Numbers, Outcome};

#[allow(clippy::cast_possible_truncation, reason = "random numbers may be rounded")]
fn main() -> Outcome<()> {
    for threads in [1, 2] {
        for n in [1000, sized(4000, 2000)] {
            gemm(["f64", "float64"], |unit| unit, n, threads)?;
            gemm(["f32", "float32"], |unit| unit as f32, n, threads)?;
        }
    }
    factors(sized(4000, 1000), sized(500, 250))
}

/// The products of one size, against both baselines.
fn gemm<T: LinalgScalar + ComplexField + Send + Sync>(
    [short, dtype]: [&str; 2],
    element: fn(f64) -> T,
    n: usize,
    threads: usize,
) -> Outcome<()> {
    let numbers = |seed| -> Vec<T> {
        let mut numbers = Numbers(seed);
        (0..n * n).map(|_| element(unit(&mut numbers))).collect()
    };
    let (a, b) = (numbers(1), numbers(2));
    let mut out = vec![element(0.0); n * n];
    let mut other = out.clone();
    let plural = if threads == 1 { "" } else { "s" };
    let rounds = if n > 2000 { sized(5, 3) } else { sized(11, 5) };
    let question = |name, bar| Question {
        name,
        unit: "s",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(bar),
        rounds,
    };
    let mut subject = || {
        seconds(|| {
            by_panels(threads, n, &a, &b, &mut out, with_faer::<T>);
            Outcome::Ok(())
        })
    };
    let name = format!("gemm {short} {n}, {threads} thread{plural}, against matrixmultiply");
    let baseline = || {
        seconds(|| {
            by_panels(threads, n, &a, &b, &mut other, with_ndarray::<T>);
            Outcome::Ok(())
        })
    };
    compare(question(&name, 1.0), baseline, &mut subject)?.print();
    let name = format!("gemm {short} {n}, {threads} thread{plural}, against OpenBLAS");
    match Peer::start("gemm", &[dtype, &n.to_string()], threads)? {
        None => not_run(&name, peer::HOW_TO).print(),
        Some(mut peer) => compare(question(&name, 0.6), || peer.turn(), subject)?.print(),
    }
    Ok(())
}

/// The product by panels of rows, one for each thread.
fn by_panels<T: Send + Sync>(
    threads: usize,
    n: usize,
    a: &[T],
    b: &[T],
    out: &mut [T],
    kernel: fn(usize, &[T], &[T], &mut [T]),
) {
    let panel = n.div_ceil(threads) * n;
    thread::scope(|scope| {
        for (rows, out) in a.chunks(panel).zip(out.chunks_mut(panel)) {
            scope.spawn(move || kernel(n, rows, b, out));
        }
    });
    black_box(out);
}

fn with_faer<T: ComplexField>(n: usize, a: &[T], b: &[T], out: &mut [T]) {
    let rows = a.len() / n;
    let a = MatRef::from_row_major_slice(a, rows, n);
    let b = MatRef::from_row_major_slice(b, n, n);
    let out = MatMut::from_row_major_slice_mut(out, rows, n);
    matmul(out, Accum::Replace, a, b, T::one_impl(), Par::Seq);
}

fn with_ndarray<T: LinalgScalar>(n: usize, a: &[T], b: &[T], out: &mut [T]) {
    let rows = a.len() / n;
    let a = ArrayView2::from_shape((rows, n), a);
    let b = ArrayView2::from_shape((n, n), b);
    let out = ArrayViewMut2::from_shape((rows, n), out);
    if let (Ok(a), Ok(b), Ok(mut out)) = (a, b, out) {
        general_mat_mul(T::one(), &a, &b, T::zero(), &mut out);
    }
}

/// A number of `0.0..1.0`.
fn unit(numbers: &mut Numbers) -> f64 {
    (numbers.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// QR and singular values of a tall block.
fn factors(rows: usize, columns: usize) -> Outcome<()> {
    let mut numbers = Numbers(1);
    let block = Mat::from_fn(rows, columns, |_, _| unit(&mut numbers));
    let thin_qr = || {
        let qr = block.qr();
        black_box((qr.compute_thin_Q(), qr.thin_R().to_owned()));
    };
    let thin_svd = || {
        black_box(block.thin_svd().is_ok());
    };
    let cases: [(&str, &dyn Fn()); 2] = [("qr", &thin_qr), ("svd", &thin_svd)];
    for (case, work) in cases {
        let name = format!("{case} {rows}x{columns}, 1 thread, against OpenBLAS");
        let question = Question {
            name: &name,
            unit: "s",
            ratio: Ratio::Speed,
            bar: Bar::AtLeast(0.8),
            rounds: sized(7, 3),
        };
        match Peer::start(case, &[&rows.to_string(), &columns.to_string()], 1)? {
            None => not_run(&name, peer::HOW_TO).print(),
            Some(mut peer) => {
                let subject = || {
                    seconds(|| {
                        work();
                        Outcome::Ok(())
                    })
                };
                compare(question, || peer.turn(), subject)?.print();
            }
        }
    }
    Ok(())
}
