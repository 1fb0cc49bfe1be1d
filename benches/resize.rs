//! Does a resize cost the same however large the array is?
//!
//! Workload: make an array of `f64` one element longer and commit, at 1 MiB (all written) and at
//! 16 TiB (all a hole); 100 times for one turn, whose median counts. Baseline: change one element
//! of the small array and commit. Seed: 13. Warm. Limit: the disk's sync. Expected: 0.9 times the
//! time, because no page is written.

mod harness;
mod machine;
mod plain;
mod stores;

use std::time::Instant;

use harness::{Bar, Question, Ratio, Summary, compare, sized};
use ndarray::{Array1, Ix1};
use plain::{Numbers, Outcome};
use zbigarray::{CreateOptions, Store, Transaction};

const TIMES: usize = 100;
const SMALL_LEN: u64 = (1 << 20) / 8;

fn main() -> Outcome<()> {
    let directory = machine::data_dir()?;
    let store = Store::create(directory.path().join("store"), CreateOptions::default())?;
    let transaction = store.begin()?;
    for (name, len) in [("small", 0), ("element", 0), ("large", (16 << 40) / 8)] {
        let mut array = transaction.create::<f64, Ix1>(name, &[len])?;
        if len == 0 {
            array.append(&Array1::ones(1 << 17))?;
        }
    }
    transaction.commit()?;
    let mut numbers = Numbers(13);
    for (name, array) in [("resize at 1 MiB", "small"), ("resize at 16 TiB", "large")] {
        let (ratio, bar) = (Ratio::Cost, Bar::AtMost(1.1));
        let question = Question { name, unit: "us", ratio, bar, rounds: sized(41, 9) };
        let one_element = || {
            median_us(&store, |transaction| {
                let at = numbers.next_u64() % SMALL_LEN;
                let mut array = transaction.open::<f64, Ix1>("element")?;
                array.rows_mut(at..at + 1)?[0] += 1.0;
                Ok(())
            })
        };
        let resize = || {
            median_us(&store, |transaction| {
                let mut array = transaction.open::<f64, Ix1>(array)?;
                let len = array.len()?;
                Ok(array.resize(&[len + 1])?)
            })
        };
        compare(question, one_element, resize)?.print();
    }
    Ok(())
}

/// The median time of a transaction that does `step`.
fn median_us(store: &Store, mut step: impl FnMut(&Transaction) -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let started = Instant::now();
        let transaction = store.begin()?;
        step(&transaction)?;
        transaction.commit()?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Summary::of(times).median)
}
