//! Times reads of single elements at random places of an array of `f64`, for
//! `benches/peers/random_elements.py`.
//!
//! ```text
//! random_elements STORE NAME CHUNK_LEN AGAIN SEED
//! {"cold_us": [...], "again_us": 0.1, "sum": 1.0}
//! ```
//!
//! Cold is the first read of each chunk of `CHUNK_LEN` elements, in random order, each timed; again
//! are `AGAIN` reads after that, timed together. All go through one view, as memory.

use std::error::Error;
use std::time::Instant;

use ndarray::Ix1;
use zbigarray::{OpenOptions, Store};

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap_or(0)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, chunk_len, again, seed] = arguments.as_slice() else {
        return Err("usage: random_elements STORE NAME CHUNK_LEN AGAIN SEED".into());
    };
    let (chunk_len, again): (usize, usize) = (chunk_len.parse()?, again.parse()?);
    let mut numbers = Numbers(seed.parse()?);
    let store = Store::open(path, OpenOptions::read_only())?;
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>(name)?;
    let view = array.view()?;
    let mut chunks: Vec<usize> = (0..view.len() / chunk_len).collect();
    (1..chunks.len()).rev().for_each(|at| chunks.swap(at, numbers.below(at + 1)));
    let mut sum = 0.0;
    let mut cold = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let at = chunk * chunk_len + numbers.below(chunk_len);
        let begin = Instant::now();
        sum += std::hint::black_box(view[at]);
        cold.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    let places: Vec<usize> = (0..again).map(|_| numbers.below(view.len())).collect();
    let begin = Instant::now();
    sum += places.iter().map(|&at| view[at]).sum::<f64>();
    let again_us = begin.elapsed().as_secs_f64() * 1e6 / again.max(1) as f64;
    println!("{{\"cold_us\": {cold:?}, \"again_us\": {again_us}, \"sum\": {sum}}}");
    Ok(())
}
