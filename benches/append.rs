//! Does an append cost the same however large the array is?
//!
//! Workload: append 1 MiB of `f64` and commit, to an array that begins empty and to one that is
//! 64 GiB long before, all of it a hole; 16 appends for one turn, whose median counts. Baseline:
//! the empty one. Seed: 1. Warm. Limit: the disk. Expected: 1.0 times the time.

mod harness;
mod machine;
mod plain;
mod stores;

use std::time::Instant;

use harness::{Bar, Question, Ratio, Summary, compare, sized};
use ndarray::{Array1, Ix1};
use plain::Outcome;
use zbigarray::{CreateOptions, Store};

const APPENDS: usize = 16;

fn main() -> Outcome<()> {
    let directory = machine::data_dir()?;
    let store = Store::create(directory.path().join("store"), CreateOptions::default())?;
    let transaction = store.begin()?;
    drop(transaction.create::<f64, Ix1>("short", &[0])?);
    drop(transaction.create::<f64, Ix1>("long", &[(64 << 30) / 8])?);
    transaction.commit()?;
    let mut rows = vec![0.0; (1 << 20) / 8];
    plain::fill_block(0, &mut rows);
    let rows = Array1::from(rows);
    let question = Question {
        name: "append 1 MiB at 64 GiB",
        unit: "us",
        ratio: Ratio::Cost,
        bar: Bar::AtMost(1.1),
        rounds: sized(41, 9),
    };
    let turn = |name: &str| {
        let mut times = Vec::with_capacity(APPENDS);
        for _ in 0..APPENDS {
            let started = Instant::now();
            let transaction = store.begin()?;
            transaction.open::<f64, Ix1>(name)?.append(&rows)?;
            transaction.commit()?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Outcome::Ok(Summary::of(times).median)
    };
    compare(question, || turn("short"), || turn("long"))?.print();
    Ok(())
}
