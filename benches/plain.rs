//! The limits to compare with: a plain file, mapped in one piece or written and synced.
//!
//! A [`PlainMap`] is one kernel mapping (`MAP_PRIVATE | MAP_NORESERVE`) of one file without any
//! advice: what a program gets that calls `mmap` itself.
//!
//! # Failure
//!
//! The system's error, boxed.

#![allow(dead_code, reason = "each bench target uses the part it needs")]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::{MmapMut, MmapOptions};
use zbigarray::array::cast::{as_bytes, from_bytes, from_bytes_mut};

/// Result of a bench target.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bytes of a block, and of one write.
pub(crate) const BLOCK_BYTES: u64 = 2 << 20;
/// Elements of a block of `f64`.
pub(crate) const BLOCK_LEN: usize = (BLOCK_BYTES / 8) as usize;

/// Numbers that look random and are the same in every run (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_u64() % end as u64).unwrap_or(0)
    }

    /// `0..count` in random order.
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        (1..count).rev().for_each(|i| all.swap(i, self.below(i + 1)));
        all
    }
}

/// The content of block `block` of every data set: integers, so that sums do not depend on order.
pub(crate) fn fill_block(block: usize, values: &mut [f64]) {
    let mut numbers = Numbers(block as u64 + 1);
    values.iter_mut().for_each(|value| *value = (numbers.next_u64() % 1024) as f64);
}

/// Writes `blocks` blocks to a new file, syncs it and returns it.
pub(crate) fn write_file(path: &Path, blocks: usize) -> Outcome<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let mut values = vec![0.0; BLOCK_LEN];
    for block in 0..blocks {
        fill_block(block, &mut values);
        file.write_all_at(as_bytes(&values), block as u64 * BLOCK_BYTES)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// A file mapped in one piece, copy-on-write, by code that is not ours.
pub(crate) struct PlainMap(MmapMut);

impl PlainMap {
    /// Maps the first `bytes` bytes of `file`.
    pub(crate) fn of(file: &File, bytes: u64) -> Outcome<Self> {
        let mut options = MmapOptions::new();
        options.len(usize::try_from(bytes)?).no_reserve_swap();
        // SAFETY: the file lies in a directory of this program's own and is written no more.
        Ok(Self(unsafe { options.map_copy(file) }?))
    }

    /// The numbers in it.
    pub(crate) fn values(&self) -> &[f64] {
        from_bytes(&self.0).unwrap_or_default()
    }

    /// The numbers in it, to be changed.
    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        from_bytes_mut(&mut self.0).unwrap_or_default()
    }
}
