//! What does it cost to touch pages of a view, the first time and later?
//!
//! Workload: 1 GiB of `f64` in the page cache (quick: 256 MiB), extents in order, mapped for
//! writing and nothing touched: the first read of a page in each block in random order; the first
//! write of 4,096 pages in random order; and with every page touched before, 2,000,000 reads of
//! 8 bytes at random places. Baseline: the same on one raw private mapping of a plain file.
//! Seeds: the number of the block; 11 for the places. Warm. Limits: the kernel's fault handler
//! (0.5 to 3 us each) and memory latency. Expected: 1.0 times each.

mod harness;
mod machine;
mod plain;
mod stores;

use std::hint::black_box;
use std::time::Instant;

use harness::{Bar, Question, Ratio, compare, sized};
use ndarray::{ArrayViewMut1, Ix1};
use plain::{BLOCK_BYTES, BLOCK_LEN, Numbers, Outcome, PlainMap};

/// What is done with the mapped numbers; its seconds come back.
type Work = fn(&mut ArrayViewMut1<'_, f64>, &[usize]) -> f64;

struct Case {
    question: Question<'static>,
    places: Vec<usize>,
    work: Work,
}

fn main() -> Outcome<()> {
    let blocks: usize = sized(512, 128);
    let directory = machine::data_dir()?;
    let path = directory.path().join("store");
    drop(stores::filled(&path, blocks, false)?);
    let file = plain::write_file(&directory.path().join("plain"), blocks)?;
    for case in cases(blocks) {
        let baseline = || {
            let mut map = PlainMap::of(&file, blocks as u64 * BLOCK_BYTES)?;
            let values = &mut ArrayViewMut1::from(map.values_mut());
            Outcome::Ok((case.work)(values, &case.places))
        };
        let subject = || {
            let store = stores::reopened(&path)?;
            let transaction = store.begin()?;
            let mut array = transaction.open::<f64, Ix1>(stores::NAME)?;
            Outcome::Ok((case.work)(&mut array.view_mut()?, &case.places))
        };
        compare(case.question, baseline, subject)?.print();
    }
    Ok(())
}

fn cases(blocks: usize) -> [Case; 3] {
    let mut numbers = Numbers(11);
    let len = blocks * BLOCK_LEN;
    let blocks_once = numbers.permutation(blocks);
    let first_reads = blocks_once.iter().map(|b| b * BLOCK_LEN + numbers.below(BLOCK_LEN));
    let first_reads = first_reads.collect();
    let pages = numbers.permutation(len / 512);
    let first_writes = pages.iter().take(4096).map(|page| page * 512).collect();
    let random_reads = (0..sized(2_000_000, 500_000)).map(|_| numbers.below(len)).collect();
    let question = |name, ratio, bar, rounds| Question { name, unit: "s", ratio, bar, rounds };
    let (most, least) = (Bar::AtMost(1.1), Bar::AtLeast(0.97));
    let (many, few) = (sized(41, 11), sized(21, 7));
    [
        Case {
            question: question("first read of a page", Ratio::Cost, most, many),
            places: first_reads,
            work: read,
        },
        Case {
            question: question("first write of a page", Ratio::Cost, most, many),
            places: first_writes,
            work: write,
        },
        Case {
            question: question("warm random 8-byte reads", Ratio::Speed, least, few),
            places: random_reads,
            work: read_touched,
        },
    ]
}

fn read(values: &mut ArrayViewMut1<'_, f64>, places: &[usize]) -> f64 {
    let started = Instant::now();
    black_box(places.iter().map(|&at| values[at]).sum::<f64>());
    started.elapsed().as_secs_f64()
}

fn write(values: &mut ArrayViewMut1<'_, f64>, places: &[usize]) -> f64 {
    let started = Instant::now();
    places.iter().for_each(|&at| values[at] = 1.0);
    started.elapsed().as_secs_f64()
}

fn read_touched(values: &mut ArrayViewMut1<'_, f64>, places: &[usize]) -> f64 {
    black_box(values.iter().step_by(512).sum::<f64>());
    read(values, places)
}
