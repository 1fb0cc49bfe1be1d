//! How fast is a sum of data four times as large as memory?
//!
//! Workload: sum of 2 GiB of `f64` through one view, twice in a row, in a control group with a
//! memory limit of 512 MiB (quick: 512 MiB of data, limit 128 MiB). Baseline: the same over one
//! raw mapping of a plain file in a group of the same size. Seed: the number of the block. Page
//! cache emptied before each turn, so that each page is charged to the group, and free memory made
//! warm. Limit: the disk.
//! Expected: 1.0 times the speed, and no turn killed for memory.

mod harness;
mod machine;
mod plain;
mod stores;

use std::hint::black_box;
use std::path::Path;

use harness::{Bar, Question, Ratio, compare, not_run, seconds, sized};
use ndarray::ArrayView1;
use plain::{BLOCK_BYTES, Outcome, PlainMap};

const NAME: &str = "sum of 4x the memory";
const PASSES: usize = 2;

fn main() -> Outcome<()> {
    let blocks = sized(1024, 256);
    let limit_bytes = blocks as u64 * BLOCK_BYTES / 4;
    if let Some(child) = machine::child_name() {
        let directory = std::env::var("ZBA_BENCH_DIRECTORY")?;
        println!("{}", work(&child, Path::new(&directory), blocks)?);
        return Ok(());
    }
    let nowhere = [("ZBA_BENCH_DIRECTORY", "")];
    let tried = machine::drop_caches();
    let tried = tried.and_then(|()| machine::child("nothing", limit_bytes, &nowhere));
    if let Err(why) = tried {
        not_run(NAME, &why.to_string()).print();
        return Ok(());
    }
    let directory = machine::data_dir()?;
    drop(stores::filled(&directory.path().join("store"), blocks, false)?);
    drop(plain::write_file(&directory.path().join("plain"), blocks)?);
    let turn = |child: &str| {
        machine::drop_caches()?;
        machine::warm_memory()?;
        let place = directory.path().to_string_lossy();
        let output = machine::child(child, limit_bytes, &[("ZBA_BENCH_DIRECTORY", &place)])?;
        if !output.status.success() {
            return Err(format!("{child} ended with {}", output.status).into());
        }
        Outcome::Ok(String::from_utf8(output.stdout)?.trim().parse::<f64>()?)
    };
    let (ratio, bar) = (Ratio::Speed, Bar::AtLeast(0.95));
    let question = Question { name: NAME, unit: "s", ratio, bar, rounds: sized(7, 3) };
    compare(question, || turn("plain"), || turn("store"))?.print();
    Ok(())
}

/// What a child does: the seconds of its sums.
fn work(child: &str, directory: &Path, blocks: usize) -> Outcome<f64> {
    match child {
        "plain" => {
            let file = std::fs::File::open(directory.join("plain"))?;
            let map = PlainMap::of(&file, blocks as u64 * BLOCK_BYTES)?;
            seconds(|| {
                (0..PASSES).for_each(|_| {
                    black_box(ArrayView1::from(black_box(map.values())).sum());
                });
                Ok(())
            })
        }
        "store" => {
            let store = stores::reopened(&directory.join("store"))?;
            seconds(|| (0..PASSES).try_for_each(|_| stores::sum(&store).map(drop)))
        }
        _ => Ok(0.0),
    }
}
