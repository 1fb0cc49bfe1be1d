//! Which penalty suits a ridge regression, and how well will it do? Nested cross-validation, by
//! delayed calls over a table in a store.
//!
//! ```sh
//! cargo run --release --example nested_cv            a small table
//! cargo run --release --example nested_cv -- 20000000 31
//! ```
//!
//! ```text
//! sums of a fold: X'X, X'y, y'y    each fold is read once, whatever is asked of it afterwards
//!   '-> error of a fit without two folds on one of them, for each penalty     (inner)
//!         '-> the best penalty without one fold -> its fit, tried on that fold (outer)
//! ```
//!
//! Writes a table of so many rows and columns of numbers with a target, which follows from a third
//! of the columns, and draws the graph of its tasks and what each thread did:
//! `target/nested_cv/*`.

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};
use ndarray::{Array1, Array2, ArrayView2, Ix2, s};
use zbigarray::compute::{
    Argument, Call, Delayed, Family, Graph, Picture, RunOptions, TaskError, Value, run,
};
use zbigarray::{CreateOptions, Store, ZBigArray};

const OUT: &str = "target/nested_cv";
const FOLDS: usize = 5;
const PENALTIES: [f64; 8] = [1e-3, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5];
/// Standard deviation of what the columns do not explain.
const NOISE: f64 = 2.0;
/// Rows written, or multiplied, at once.
const PART_ROWS: usize = 1 << 15;

/// All that a fit and its error need to know of some rows: sizes do not depend on their number.
#[derive(Clone)]
struct Sums {
    rows: f64,
    xx: Array2<f64>,
    xy: Array1<f64>,
    y: f64,
    yy: f64,
}

/// What came of one outer fold.
#[derive(Clone)]
struct Tried {
    penalty: f64,
    weights: Array1<f64>,
    /// Part of the variance of the target that the fit explains.
    explained: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Result<Vec<usize>, _> = env::args().skip(1).map(|word| word.parse()).collect();
    let (rows, columns) = match numbers?[..] {
        [] => (200_000, 31),
        [rows, columns] if rows >= FOLDS && columns > 0 => (rows, columns),
        _ => return Err("usage: nested_cv [ROWS COLUMNS]".into()),
    };
    let store = stored(rows, columns)?;
    let snapshot = store.begin_read()?;
    let table = snapshot.open::<f64, Ix2>("table")?;
    let view = table.view()?;

    let started = Instant::now();
    let result = delayed(&table, &view);
    let mut graph = Graph::new();
    let output = result.add_to(&mut graph)?;
    let options = RunOptions { trace: true, ..RunOptions::default() };
    let mut tried: Vec<Tried> = Vec::new();
    let report = run(&graph, &[output], &options, &mut |_, value| {
        tried = value.expect::<Vec<Tried>>()?.clone();
        Ok(())
    })?;
    let seconds = started.elapsed().as_secs_f64();

    println!("fold   penalty   variance explained");
    for (fold, tried) in tried.iter().enumerate() {
        println!("{fold:4}   {:7}   {:.4}", tried.penalty, tried.explained);
    }
    let fits = FOLDS * (FOLDS - 1) * PENALTIES.len() + FOLDS;
    let gib = (rows * (columns + 1) * 8) as f64 / f64::from(1 << 30);
    println!("{fits} fits of {gib:.2} GiB in {} tasks: {seconds:.2} s", report.tasks);
    for (fold, tried) in tried.iter().enumerate() {
        compared(&view, fold, tried)?;
    }
    let out = Path::new(OUT);
    std::fs::write(out.join("graph.svg"), Picture::of(&graph, &[output]).svg())?;
    std::fs::write(out.join("run.html"), report.page(&graph, None))?;
    println!("drew {OUT}/graph.svg and {OUT}/run.html");
    Ok(())
}

/// A new store with a table: columns, and the target as the last.
fn stored(rows: usize, columns: usize) -> Result<Store, Box<dyn Error>> {
    let out = Path::new(OUT);
    std::fs::create_dir_all(out)?;
    let path = out.join("table.zba");
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    let mut table = transaction.create::<f64, Ix2>("table", &[0, columns as u64 + 1])?;
    let mut random = Random(7);
    for first in (0..rows).step_by(PART_ROWS) {
        let mut part = Array2::zeros((PART_ROWS.min(rows - first), columns + 1));
        for mut row in part.rows_mut() {
            // Neighbours have something in common, which makes a penalty useful.
            let mut last = 0.0;
            let mut target = NOISE * random.normal();
            for column in 0..columns {
                last = 0.6 * last + 0.8 * random.normal();
                row[column] = last;
                target += if column % 3 == 0 { last / (1 + column) as f64 } else { 0.0 };
            }
            row[columns] = target;
        }
        table.append(&part)?;
    }
    drop(table);
    transaction.commit_with_note("a table")?;
    Ok(store)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Nearly: a sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Rows of a fold.
fn rows_of(fold: usize, rows: usize) -> std::ops::Range<usize> {
    fold * rows / FOLDS..(fold + 1) * rows / FOLDS
}

/// All of it, written down.
fn delayed<'e>(table: &'e ZBigArray<'_, f64, Ix2>, view: &'e ArrayView2<'e, f64>) -> Delayed<'e> {
    let columns = view.ncols() - 1;
    let sums_bytes = (8 * (columns * (columns + 1) + 3)) as u64;
    let fold_sums = Family::new("sums of fold", &[FOLDS as u64]);
    let sums: Vec<Delayed<'e>> = (0..FOLDS)
        .map(|fold| {
            let rows = rows_of(fold, view.nrows());
            let call = Call::new([], sums_bytes, move |_| {
                table.ensure(format!("{}:{}", rows.start, rows.end).as_str())?;
                Ok(Value::new(sums_of(&view.slice(s![rows.clone(), ..])), sums_bytes))
            });
            Delayed::new((&fold_sums, fold as u64), call)
        })
        .collect();
    let without = |left_out: &[usize]| -> Vec<Argument<'e>> {
        let kept = (0..FOLDS).filter(|fold| !left_out.contains(fold));
        kept.map(|fold| sums[fold].clone().into()).collect()
    };
    let tries = [FOLDS as u64, PENALTIES.len() as u64, FOLDS as u64];
    let inner_error = Family::new("error", &tries);
    let best = Family::new("best penalty", &[FOLDS as u64]);
    let outer = Family::new("tried", &[FOLDS as u64]);
    let tried = (0..FOLDS).map(|fold| {
        let errors = PENALTIES.iter().enumerate().map(|(number, &penalty)| {
            let others = (0..FOLDS).filter(|&other| other != fold);
            let of_others = others.map(|other| {
                let arguments = [without(&[fold, other]).into(), sums[other].clone().into()];
                let call = Call::new(arguments, 8, move |values| error_of(values, penalty));
                let place = (fold * PENALTIES.len() + number) * FOLDS + other;
                Delayed::new((&inner_error, place as u64), call).into()
            });
            Argument::List(of_others.collect())
        });
        let chosen = Call::new(errors, 8, best_of);
        let chosen = Delayed::new((&best, fold as u64), chosen);
        let arguments = [chosen.into(), without(&[fold]).into(), sums[fold].clone().into()];
        let bytes = 8 * columns as u64;
        let call = Call::new(arguments, bytes, move |values| try_on(values, bytes));
        Delayed::new((&outer, fold as u64), call).into()
    });
    let bytes = (8 * columns * FOLDS) as u64;
    let all = Call::new(tried, bytes, move |values| {
        let tried: Result<Vec<Tried>, TaskError> =
            values.iter().map(|value| Ok(value.expect::<Tried>()?.clone())).collect();
        Ok(Value::new(tried?, bytes))
    });
    Delayed::new("all folds", all)
}

/// Sums over rows, part by part.
fn sums_of(rows: &ArrayView2<'_, f64>) -> Sums {
    let columns = rows.ncols() - 1;
    let mut sums = Sums {
        rows: rows.nrows() as f64,
        xx: Array2::zeros((columns, columns)),
        xy: Array1::zeros(columns),
        y: 0.0,
        yy: 0.0,
    };
    for first in (0..rows.nrows()).step_by(PART_ROWS) {
        let part = rows.slice(s![first..rows.nrows().min(first + PART_ROWS), ..]);
        let (x, y) = (part.slice(s![.., ..columns]), part.column(columns));
        sums.xx += &x.t().dot(&x);
        sums.xy += &x.t().dot(&y);
        sums.y += y.sum();
        sums.yy += y.dot(&y);
    }
    sums
}

/// The sums over several folds.
fn total(folds: &Value) -> Result<Sums, TaskError> {
    let mut folds = folds.expect::<Vec<Value>>()?.iter();
    let first = folds.next().ok_or("there is no fold to fit on")?;
    let mut total = first.expect::<Sums>()?.clone();
    for fold in folds {
        let fold = fold.expect::<Sums>()?;
        total.rows += fold.rows;
        total.xx += &fold.xx;
        total.xy += &fold.xy;
        total.y += fold.y;
        total.yy += fold.yy;
    }
    Ok(total)
}

/// Weights with the least squared error and penalty.
fn fitted(sums: &Sums, penalty: f64) -> Result<Array1<f64>, TaskError> {
    let columns = sums.xy.len();
    let on_diagonal = |row, column| if row == column { penalty } else { 0.0 };
    let left = Mat::from_fn(columns, columns, |row, column| {
        sums.xx[[row, column]] + on_diagonal(row, column)
    });
    let right = Mat::from_fn(columns, 1, |row, _| sums.xy[row]);
    let factored = Llt::new(left.as_ref(), Side::Lower)
        .map_err(|error| format!("columns depend on each other: {error:?}"))?;
    let weights = factored.solve(&right);
    Ok((0..columns).map(|row| weights[(row, 0)]).collect())
}

/// The squared error of a fit over rows of which these are the sums.
fn squared_error(weights: &Array1<f64>, sums: &Sums) -> f64 {
    sums.yy - 2.0 * weights.dot(&sums.xy) + weights.dot(&sums.xx.dot(weights))
}

/// From folds to fit on and a fold to try: the error.
fn error_of(values: &[Value], penalty: f64) -> Result<Value, TaskError> {
    let [fit, tried] = values else { return Err("an error needs two arguments".into()) };
    let weights = fitted(&total(fit)?, penalty)?;
    Ok(Value::new(squared_error(&weights, tried.expect()?), 8))
}

/// From lists of errors, one for each penalty: the penalty with the least.
fn best_of(values: &[Value]) -> Result<Value, TaskError> {
    let mut best = (f64::INFINITY, f64::NAN);
    for (errors, &penalty) in values.iter().zip(&PENALTIES) {
        let mut sum = 0.0;
        for error in errors.expect::<Vec<Value>>()? {
            sum += error.expect::<f64>()?;
        }
        if sum < best.0 {
            best = (sum, penalty);
        }
    }
    Ok(Value::new(best.1, 8))
}

/// From a penalty, folds to fit on and a fold to try: what came of it.
fn try_on(values: &[Value], bytes: u64) -> Result<Value, TaskError> {
    let [penalty, fit, tried] = values else { return Err("a try needs three arguments".into()) };
    let (penalty, sums) = (*penalty.expect::<f64>()?, tried.expect::<Sums>()?);
    let weights = fitted(&total(fit)?, penalty)?;
    let variance = sums.yy - sums.y * sums.y / sums.rows;
    let explained = 1.0 - squared_error(&weights, sums) / variance;
    Ok(Value::new(Tried { penalty, weights, explained }, bytes))
}

/// Compares what a fold said of itself with its rows, one by one.
fn compared(table: &ArrayView2<'_, f64>, fold: usize, tried: &Tried) -> Result<(), Box<dyn Error>> {
    let rows = table.slice(s![rows_of(fold, table.nrows()), ..]);
    let columns = table.ncols() - 1;
    let mean = rows.column(columns).mean().unwrap_or(0.0);
    let (mut error, mut variance) = (0.0, 0.0);
    for row in rows.rows() {
        let (x, y) = (row.slice(s![..columns]), row[columns]);
        error += (y - x.dot(&tried.weights)).powi(2);
        variance += (y - mean).powi(2);
    }
    let explained = 1.0 - error / variance;
    if (explained - tried.explained).abs() > 1e-9 {
        return Err(format!("fold {fold}: {} instead of {explained}", tried.explained).into());
    }
    Ok(())
}
