//! How fast is a sequential sum of data that lies on the disk only?
//!
//! Workload: sum of 1 GiB of `f64` (quick: 256 MiB) through one view; extents in the order of the
//! array, and in random order. Page cache emptied before each turn. Baseline: the same sum over
//! one raw mapping of a plain file. Seeds: the number of the block; 7 for the order. Cold. Limit:
//! the disk. Expected: 1.0 times the speed in order, 0.9 in random order.

mod harness;
mod machine;
mod plain;
mod stores;

use std::hint::black_box;

use harness::{Bar, Question, Ratio, compare, not_run, seconds, sized};
use ndarray::ArrayView1;
use plain::{BLOCK_BYTES, Outcome, PlainMap};

const CASES: [(&str, bool, f64); 2] =
    [("cold sequential, in order", false, 0.95), ("cold sequential, random order", true, 0.80)];

fn main() -> Outcome<()> {
    if let Err(why) = machine::drop_caches() {
        CASES.iter().for_each(|(name, ..)| not_run(name, &why.to_string()).print());
        return Ok(());
    }
    let blocks = sized(512, 128);
    let directory = machine::data_dir()?;
    let file = plain::write_file(&directory.path().join("plain"), blocks)?;
    for (name, scattered, least) in CASES {
        let path = directory.path().join(if scattered { "scattered" } else { "ordered" });
        drop(stores::filled(&path, blocks, scattered)?);
        let (ratio, bar, rounds) = (Ratio::Speed, Bar::AtLeast(least), sized(11, 5));
        let question = Question { name, unit: "s", ratio, bar, rounds };
        let baseline = || {
            machine::drop_caches()?;
            seconds(|| {
                let map = PlainMap::of(&file, blocks as u64 * BLOCK_BYTES)?;
                black_box(ArrayView1::from(map.values()).sum());
                Outcome::Ok(map)
            })
        };
        let subject = || {
            let store = stores::reopened(&path)?;
            machine::drop_caches()?;
            seconds(|| stores::sum(&store))
        };
        compare(question, baseline, subject)?.print();
    }
    Ok(())
}
