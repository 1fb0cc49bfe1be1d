//! What does a commit of 1 GiB of new data cost, in time and in memory?
//!
//! Workload: a new array of 1 GiB of `f64` (quick: 256 MiB), filled through views of 64 MiB, then
//! committed; only the commit is timed. And the same bytes given to `append` in pieces of 64 MiB
//! and committed; both are timed. Baseline: `pwrite` of the same bytes in pieces of 2 MiB to a new
//! file, then `fdatasync`; for the views from memory that was filled just before, as the view's
//! was. Before each timed part free memory is made warm. Seed: the number of the block. Files that
//! a turn made are deleted before the next. Limit: the disk, and 12 GiB/s of checksum. Expected:
//! 1.1 times the time. Memory: the peak resident size of a process that fills and commits, above
//! what it was before, less the bytes it made dirty; at most 64 MiB.

mod harness;
mod machine;
mod plain;
mod stores;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use harness::{Bar, Question, Ratio, compare, limit, seconds, sized};
use ndarray::{Array1, ArrayView1, Ix1};
use plain::{BLOCK_BYTES, BLOCK_LEN, Outcome};
use zbigarray::array::cast::as_bytes;
use zbigarray::{CreateOptions, Store, Transaction};

/// Blocks of a piece that is filled or appended.
const PIECE_BLOCKS: usize = 32;
const CHILD: &str = "ZBA_BENCH_PEAK";

fn main() -> Outcome<()> {
    let blocks = sized(512, 128);
    let directory = machine::data_dir()?;
    if std::env::var_os(CHILD).is_some() {
        println!("{}", peak_above_dirty(&directory.path().join("store"), blocks)?);
        return Ok(());
    }
    let mut values = vec![0.0; blocks * BLOCK_LEN];
    let all = values.chunks_mut(BLOCK_LEN).enumerate();
    all.for_each(|(block, values)| plain::fill_block(block, values));
    let question = |name| Question {
        name,
        unit: "s",
        ratio: Ratio::Cost,
        bar: Bar::AtMost(1.2),
        rounds: sized(9, 3),
    };
    let baseline = || write_and_sync(&directory.path().join("plain"), &values);
    let path = directory.path().join("store");
    let subject = || fresh(&path, |store| committed(store, &values));
    let filled = || write_and_sync(&directory.path().join("plain"), &values.clone());
    compare(question("bulk commit, through views"), filled, subject)?.print();
    let subject = || fresh(&path, |store| appended(store, &values));
    compare(question("bulk commit, by append"), baseline, subject)?.print();
    let peak = || -> Outcome<f64> {
        let output = Command::new(std::env::current_exe()?).env(CHILD, "1").output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    let peaks = (0..3).map(|_| peak()).collect::<Outcome<Vec<f64>>>()?;
    limit("bulk commit, memory above the dirty bytes", "MiB", Bar::AtMost(64.0), peaks).print();
    Ok(())
}

fn write_and_sync(path: &Path, values: &[f64]) -> Outcome<f64> {
    let file = File::options().write(true).create_new(true).open(path)?;
    machine::warm_memory()?;
    let time = seconds(|| {
        for (block, values) in values.chunks(BLOCK_LEN).enumerate() {
            file.write_all_at(as_bytes(values), block as u64 * BLOCK_BYTES)?;
        }
        file.sync_data()
    })?;
    std::fs::remove_file(path)?;
    nix::unistd::sync();
    Ok(time)
}

/// Runs `turn` on a new store, which is deleted afterwards.
fn fresh(path: &Path, turn: impl FnOnce(&Store) -> Outcome<f64>) -> Outcome<f64> {
    let store = Store::create(path, CreateOptions::default())?;
    let time = turn(&store)?;
    drop(store);
    std::fs::remove_dir_all(path)?;
    nix::unistd::sync();
    Ok(time)
}

fn committed(store: &Store, values: &[f64]) -> Outcome<f64> {
    let transaction = store.begin()?;
    fill(&transaction, values.len(), |start, rows| {
        rows.copy_from_slice(&values[start..start + rows.len()]);
    })?;
    machine::warm_memory()?;
    seconds(|| Ok(transaction.commit()?))
}

/// Creates the array and lets `content` fill it piece by piece through views.
fn fill(transaction: &Transaction, len: usize, content: impl Fn(usize, &mut [f64])) -> Outcome<()> {
    let mut array = transaction.create::<f64, Ix1>(stores::NAME, &[len as u64])?;
    for start in (0..len).step_by(PIECE_BLOCKS * BLOCK_LEN) {
        let end = len.min(start + PIECE_BLOCKS * BLOCK_LEN);
        let mut rows = array.rows_mut(start as u64..end as u64)?;
        content(start, rows.as_slice_mut().ok_or("the rows lie in one piece")?);
    }
    Ok(())
}

fn appended(store: &Store, values: &[f64]) -> Outcome<f64> {
    machine::warm_memory()?;
    seconds(|| {
        let transaction = store.begin()?;
        let mut array = transaction.create::<f64, Ix1>(stores::NAME, &[0])?;
        for piece in values.chunks(PIECE_BLOCKS * BLOCK_LEN) {
            array.append(&ArrayView1::from(piece))?;
        }
        drop(array);
        Ok(transaction.commit()?)
    })
}

/// MiB that a process which fills and commits needs at its peak, besides the bytes it made dirty.
fn peak_above_dirty(path: &Path, blocks: usize) -> Outcome<f64> {
    let store = Store::create(path, CreateOptions::default())?;
    drop(Array1::<f64>::zeros(BLOCK_LEN));
    let before = machine::peak_resident_bytes()?;
    let transaction = store.begin()?;
    fill(&transaction, blocks * BLOCK_LEN, |start, rows| {
        let rows = rows.chunks_mut(BLOCK_LEN).enumerate();
        rows.for_each(|(block, rows)| plain::fill_block(start / BLOCK_LEN + block, rows));
    })?;
    transaction.commit()?;
    let dirty = blocks as u64 * BLOCK_BYTES;
    let peak = machine::peak_resident_bytes()?.saturating_sub(before);
    Ok(peak.saturating_sub(dirty) as f64 / f64::from(1 << 20))
}
