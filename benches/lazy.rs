//! What do blocks cost that are loaded when they are touched?
//!
//! Workload: `f64` in blocks of 2 MiB, 1 GiB (quick: 256 MiB). A store opened with `checked`, data
//! in the page cache: the first read of each block in random order, read, compared with its
//! checksum and mapped. Encoded arrays, nothing in the page cache: the sum of all of it through one
//! view, against the slower of a cold sum over a raw mapping and decoding all blocks from memory
//! on all processors. And once more over the same view, against a second sum over a raw mapping.
//! Seeds: the number of the block; 11 for the places. Limits: disk, decoders, memory.

mod harness;
mod machine;
mod plain;
mod stores;

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use harness::{Bar, Question, Ratio, compare, limit, not_run, seconds, sized};
use ndarray::{ArrayView1, Ix1};
use plain::{BLOCK_BYTES, BLOCK_LEN, Numbers, Outcome, PlainMap, fill_block};
use zbigarray::array::cast::as_bytes;
use zbigarray::storage::encoding::{decode, encode};
use zbigarray::{Codec, OpenOptions, Store};

fn main() -> Outcome<()> {
    let blocks: usize = sized(512, 128);
    let directory = machine::data_dir()?;
    let path = directory.path().join("plain-blocks");
    drop(stores::filled(&path, blocks, false)?);
    let turns: Outcome<Vec<f64>> = (0..sized(11, 5)).map(|_| first_touch(&path, blocks)).collect();
    limit("first touch of a lazy block", "ms", Bar::AtMost(0.6), turns?).print();
    let file = plain::write_file(&directory.path().join("plain"), blocks)?;
    let can_be_cold = machine::drop_caches().is_ok();
    for text in ["lz4+shuffle", "zstd:3+shuffle"] {
        let codec = text.parse::<Codec>()?.for_elements_of(8);
        let path = directory.path().join(text);
        drop(stores::filled_as(&path, blocks, false, codec)?);
        let name = format!("cold sequential, {text}");
        if !can_be_cold {
            not_run(&name, "the page cache cannot be emptied").print();
            continue;
        }
        let encoded: Vec<Vec<u8>> = (0..blocks).map(|block| encoded_block(codec, block)).collect();
        let question = Question {
            name: &name,
            unit: "s",
            ratio: Ratio::Speed,
            bar: Bar::AtLeast(0.8),
            rounds: sized(7, 3),
        };
        let baseline = || {
            machine::drop_caches()?;
            let disk = seconds(|| {
                let map = PlainMap::of(&file, blocks as u64 * BLOCK_BYTES)?;
                black_box(ArrayView1::from(map.values()).sum());
                Outcome::Ok(map)
            })?;
            Outcome::Ok(disk.max(decode_all(&encoded)))
        };
        let subject = || {
            let store = stores::reopened(&path)?;
            machine::drop_caches()?;
            seconds(|| stores::sum(&store))
        };
        compare(question, baseline, subject)?.print();
    }
    second_pass(&directory.path().join("lz4+shuffle"), &file, blocks)
}

/// Milliseconds for each block.
fn first_touch(path: &std::path::Path, blocks: usize) -> Outcome<f64> {
    let mut options = OpenOptions::read_only();
    options.checked = true;
    let store = Store::open(path, options)?;
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>(stores::NAME)?;
    let view = array.view()?;
    let mut numbers = Numbers(11);
    let places = numbers.permutation(blocks);
    let started = Instant::now();
    black_box(places.iter().map(|&block| view[block * BLOCK_LEN + 77]).sum::<f64>());
    Ok(started.elapsed().as_secs_f64() * 1e3 / blocks as f64)
}

fn encoded_block(codec: Codec, block: usize) -> Vec<u8> {
    let mut values = vec![0.0; BLOCK_LEN];
    fill_block(block, &mut values);
    encode(codec, as_bytes(&values)).unwrap_or_default()
}

/// Seconds to decode all of it, on all processors.
fn decode_all(encoded: &[Vec<u8>]) -> f64 {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut content = vec![0; BLOCK_LEN * 8];
        while let Some(stored) = encoded.get(next.fetch_add(1, Ordering::Relaxed)) {
            black_box(decode(stored, &mut content).is_ok());
        }
    };
    let started = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    started.elapsed().as_secs_f64()
}

fn second_pass(path: &std::path::Path, file: &std::fs::File, blocks: usize) -> Outcome<()> {
    let store = stores::reopened(path)?;
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>(stores::NAME)?;
    let view = array.view()?;
    let map = PlainMap::of(file, blocks as u64 * BLOCK_BYTES)?;
    let raw = ArrayView1::from(map.values());
    let question = Question {
        name: "second pass over an encoded array",
        unit: "s",
        ratio: Ratio::Speed,
        bar: Bar::AtLeast(0.97),
        rounds: sized(21, 7),
    };
    let baseline = || seconds(|| Outcome::Ok(black_box(raw.sum())));
    let subject = || seconds(|| Outcome::Ok(black_box(view.sum())));
    compare(question, baseline, subject)?.print();
    Ok(())
}
