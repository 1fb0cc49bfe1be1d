//! How long does it take to find the pages that were written?
//!
//! Workload: 1 GiB of a file mapped copy-on-write, its blocks of 2 MiB in random order as in an
//! array whose blocks were written so, every page touched; 1,000 pages at random written, then
//! one scan over all of it. Seeds: 17 for the order, 19 for the pages. Warm. Limit: walking the
//! page tables. Expected: 1 ms. The same size in quick runs.

mod harness;
mod machine;
mod plain;
mod stores;

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsFd;

use harness::{Bar, limit, seconds, sized};
use plain::{BLOCK_BYTES, Numbers, Outcome};
use zbigarray::units::{PAGE_BYTES, PageRange, PageSet};
use zbigarray::vm::{Access, Advice, Content, Mapping, Run, VmaBudget};

const BLOCKS: usize = 512;
const BLOCK_PAGES: u64 = BLOCK_BYTES / PAGE_BYTES;
const DIRTY: usize = 1000;

fn main() -> Outcome<()> {
    let directory = machine::data_dir()?;
    let file = plain::write_file(&directory.path().join("plain"), BLOCKS)?;
    let times = (0..sized(11, 5)).map(|_| scan_ms(&file)).collect::<Outcome<Vec<f64>>>()?;
    limit("dirty scan of 1 GiB, 1,000 pages", "ms", Bar::AtMost(5.0), times).print();
    Ok(())
}

fn scan_ms(file: &File) -> Outcome<f64> {
    let all = PageRange::new(0, BLOCKS as u64 * BLOCK_PAGES);
    let (access, advice) = (Access::CopyOnWrite, Advice::Blocks);
    let mut mapping = Mapping::new(all.count(), access, advice, VmaBudget::process())?;
    let order = Numbers(17).permutation(BLOCKS);
    let runs = order.iter().enumerate().map(|(at, &block)| Run {
        at: PageRange::at(at as u64 * BLOCK_PAGES, BLOCK_PAGES),
        content: Content::File { file: file.as_fd(), offset_bytes: block as u64 * BLOCK_BYTES },
    });
    mapping.place(&runs.collect::<Vec<_>>())?;
    let bytes = mapping.bytes_mut(all);
    black_box(bytes.iter().step_by(4096).fold(0, |sum: u64, &byte| sum + u64::from(byte)));
    let pages = Numbers(19).permutation(bytes.len() / 4096);
    pages.iter().take(DIRTY).for_each(|page| bytes[page * 4096] = 1);
    let within: PageSet = [all].into_iter().collect();
    let mut found = 0;
    let time = seconds(|| {
        let dirty = mapping.dirty(&within)?;
        found = dirty.iter().map(|range| range.count()).sum();
        Outcome::Ok(dirty)
    })?;
    assert_eq!(found, DIRTY as u64, "the scan finds what was written");
    Ok(time * 1e3)
}
