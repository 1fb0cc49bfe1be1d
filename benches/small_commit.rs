//! What does it cost to change one element and commit?
//!
//! Workload: in an array of 64 MiB of `f64` (quick: the same), begin, open, set one element at a
//! random place, commit; 200 commits for one turn, whose median counts. Baseline: `pwrite` of
//! 4 KiB to the end of a plain file, then `fdatasync`; 200 times, median. A second question takes
//! a random page of that file, which was written before, instead of its end: what a program pays
//! that keeps no history, since a file that does not grow has no metadata to sync. Seed: 13. Warm.
//! Limit: the disk's sync. Expected: 1.5 times the time of growing a file and twice that of
//! overwriting it; 8 KiB passed to the kernel and as much growth of all files for each commit.

mod harness;
mod machine;
mod plain;
mod stores;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use harness::{Bar, Question, Ratio, Summary, compare, limit, sized};
use ndarray::Ix1;
use plain::{BLOCK_LEN, Numbers, Outcome};
use zbigarray::Store;

const BLOCKS: usize = 32;
const COMMITS: usize = 200;

fn main() -> Outcome<()> {
    let directory = machine::data_dir()?;
    let store = stores::filled(&directory.path().join("store"), BLOCKS, false)?;
    let file = plain::write_file(&directory.path().join("plain"), BLOCKS)?;
    let mut numbers = Numbers(13);
    let mut places = || (0..COMMITS).map(|_| numbers.below(BLOCKS * BLOCK_LEN)).collect();
    let places: [Vec<usize>; 2] = [places(), places()];
    let question = |name, bar| Question {
        name,
        unit: "us",
        ratio: Ratio::Cost,
        bar: Bar::AtMost(bar),
        rounds: sized(21, 7),
    };
    let mut charges = Vec::new();
    let subject = || {
        let before = (machine::written()?.passed_bytes, files_bytes(&store)?);
        let time = median_us(&places[1], |at| one_element(&store, at))?;
        let after = (machine::written()?.passed_bytes, files_bytes(&store)?);
        charges.push((after.0 - before.0, after.1.saturating_sub(before.1)));
        Outcome::Ok(time)
    };
    let grow = || median_us(&places[0], |at| grow(&file, at));
    compare(question("one-element commit", 2.0), grow, subject)?.print();
    let subject = || median_us(&places[1], |at| one_element(&store, at));
    let overwrite = || median_us(&places[0], |at| overwrite(&file, at));
    compare(question("one-element commit, no history", 2.5), overwrite, subject)?.print();
    let kib = |bytes: u64| bytes as f64 / 1024.0 / COMMITS as f64;
    let written = charges.iter().map(|&(bytes, _)| kib(bytes)).collect();
    limit("one-element commit, written", "KiB", Bar::AtMost(12.0), written).print();
    // Checkpoints come and go, so the growth counts that stays on average.
    let grown = charges.iter().map(|&(_, bytes)| kib(bytes)).collect();
    limit("one-element commit, growth", "KiB", Bar::AtMost(12.0), grown).print();
    Ok(())
}

fn median_us(places: &[usize], mut step: impl FnMut(usize) -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::with_capacity(places.len());
    for &at in places {
        let started = Instant::now();
        step(at)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Summary::of(times).median)
}

fn grow(file: &File, at: usize) -> Outcome<()> {
    let page = [at.to_le_bytes()[0]; 4096];
    file.write_all_at(&page, file.metadata()?.len())?;
    Ok(file.sync_data()?)
}

fn overwrite(file: &File, at: usize) -> Outcome<()> {
    let page = [at.to_le_bytes()[0]; 4096];
    file.write_all_at(&page, at as u64 / 512 * 4096)?;
    Ok(file.sync_data()?)
}

fn one_element(store: &Store, at: usize) -> Outcome<()> {
    let transaction = store.begin()?;
    let mut array = transaction.open::<f64, Ix1>(stores::NAME)?;
    let at_u64 = at as u64;
    array.rows_mut(at_u64..at_u64 + 1)?[0] += 1.0;
    drop(array);
    transaction.commit()?;
    Ok(())
}

fn files_bytes(store: &Store) -> Outcome<u64> {
    let usage = store.usage()?;
    Ok(usage.data_bytes + usage.log_bytes + usage.checkpoint_bytes)
}
