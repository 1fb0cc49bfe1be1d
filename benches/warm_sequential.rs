//! How fast is a sequential sum of data in the page cache through a view?
//!
//! Workload: sum of 1 GiB of `f64` (quick: 256 MiB), extents in order, nothing mapped before.
//! Mapping, page faults and the sum are timed; opening the store is not. Baseline: the same sum
//! over one raw mapping of a plain file. Seed: the number of the block. Warm. Limit: memory
//! bandwidth, about 22 GiB/s. Expected: 1.0 times the speed.

mod harness;
mod machine;
mod plain;
mod stores;

use std::hint::black_box;

use harness::{Bar, Question, Ratio, compare, seconds, sized};
use ndarray::ArrayView1;
use plain::{BLOCK_BYTES, Outcome, PlainMap};

fn main() -> Outcome<()> {
    let blocks = sized(512, 128);
    let directory = machine::data_dir()?;
    let path = directory.path().join("store");
    drop(stores::filled(&path, blocks, false)?);
    let file = plain::write_file(&directory.path().join("plain"), blocks)?;
    let bytes = blocks as u64 * BLOCK_BYTES;
    let question = Question {
        name: "warm sequential sum",
        unit: "s",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(0.97),
        rounds: sized(31, 7),
    };
    let expected = ArrayView1::from(PlainMap::of(&file, bytes)?.values()).sum();
    let baseline = || {
        seconds(|| {
            let map = PlainMap::of(&file, bytes)?;
            assert_eq!(black_box(ArrayView1::from(map.values()).sum()), expected);
            Outcome::Ok(map)
        })
    };
    let subject = || {
        let store = stores::reopened(&path)?;
        seconds(|| {
            assert_eq!(black_box(stores::sum(&store)?), expected);
            Outcome::Ok(())
        })
    };
    compare(question, baseline, subject)?.print();
    Ok(())
}
