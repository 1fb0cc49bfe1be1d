//! Does beginning a transaction cost what changed, and not what the arrays hold?
//!
//! Workload: a reader has all of an array of 1 GiB of `f64` mapped (quick: 256 MiB) and ends;
//! another transaction changes one page in each of 32 blocks and commits; then the reader begins
//! again, opens the array and takes the whole view: that is timed. Baseline: the same with an array
//! of 64 MiB. And again with the large array: 4 blocks against 64. Seed: 29. Warm. Limit: about
//! 10 us of kernel calls for each changed block. Expected: 1.0 times the time for the size; less
//! than 16 times for 16 times the blocks.

mod harness;
mod machine;
mod plain;
mod stores;

use std::hint::black_box;

use harness::{Bar, Question, Ratio, compare, seconds, sized};
use ndarray::Ix1;
use plain::{BLOCK_LEN, Numbers, Outcome};
use zbigarray::Store;

fn main() -> Outcome<()> {
    let (small, large) = (32, sized(512, 128));
    let directory = machine::data_dir()?;
    let build = |name: &str, blocks| stores::filled(&directory.path().join(name), blocks, false);
    let small_store = build("small", small)?;
    let large_store = build("large", large)?;
    let question = |name, most, rounds| Question {
        name,
        unit: "us",
        ratio: Ratio::Cost,
        bar: Bar::AtMost(most),
        rounds,
    };
    let by_size = question("begin, 16 times the array", 1.5, sized(25, 9));
    let mut numbers = [Numbers(29), Numbers(29), Numbers(31), Numbers(31)];
    let [one, other, few, many] = &mut numbers;
    let baseline = || begin_us(&small_store, small, 32, one);
    let subject = || begin_us(&large_store, large, 32, other);
    compare(by_size, baseline, subject)?.print();
    // Fresh stores: pieces that pages were cut into count as size, not as change.
    let few_store = build("few", large)?;
    let many_store = build("many", large)?;
    let by_change = question("begin, 16 times the changed blocks", 16.0, sized(25, 9));
    let baseline = || begin_us(&few_store, large, 4, few);
    let subject = || begin_us(&many_store, large, 64, many);
    compare(by_change, baseline, subject)?.print();
    Ok(())
}

/// The time to begin again after a commit that changed `changed` of `blocks` blocks.
fn begin_us(store: &Store, blocks: usize, changed: usize, numbers: &mut Numbers) -> Outcome<f64> {
    read_one(store)?;
    let transaction = store.begin()?;
    let mut array = transaction.open::<f64, Ix1>(stores::NAME)?;
    for block in numbers.permutation(blocks).into_iter().take(changed) {
        let at = (block * BLOCK_LEN + numbers.below(BLOCK_LEN)) as u64;
        array.rows_mut(at..at + 1)?[0] += 1.0;
    }
    drop(array);
    transaction.commit()?;
    Ok(seconds(|| read_one(store))? * 1e6)
}

fn read_one(store: &Store) -> Outcome<()> {
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>(stores::NAME)?;
    black_box(array.view()?[0]);
    Ok(())
}
