//! Which pages of a private mapping were written.
//!
//! Nothing is counted when a page is written: the kernel makes a private copy at the first store,
//! and afterwards its page tables tell which pages are such copies.
//!
//! ```text
//! page        0         1         2              3         4
//! state       untouched file page private copy   zeros     swapped private copy
//! written?    no        no        yes            no        yes
//! ```
//!
//! Two ways to ask give the same answer: [`PagemapScan`] returns regions and costs what the page
//! tables cost (Linux 6.7 and newer), [`PagemapRead`] reads 8 bytes for each page (any Linux).
//! [`tracker`] chooses once per process by trying.
//!
//! # Invariants
//!
//! 1. Every page written since it was placed or discarded is reported, also if the store did not
//!    change its value, came from the kernel (`read(2)`), or the page was swapped out since
//!    (facts K-23, K-24).
//! 2. A page that was only read is not reported (fact K-25). Huge anonymous pages, which a mapping
//!    has only where it expects an overwrite, count as written from their first store on.
//! 3. Results ascend, do not touch each other, and lie in the pages asked for.
//! 4. Nothing of one call is kept for the next: the pagemap is opened for each. A descriptor that
//!    a child inherits would tell about its parent.
//!
//! # Failure
//!
//! An error means that nothing is known about any page; committing without knowing would lose
//! writes, so callers must give up.

use std::sync::OnceLock;

use super::MapError;
use super::reservation::Reservation;
use super::runs::{Kind, Runs};
use super::sys::pagemap::{Entry, Pagemap, Region};
use crate::units::{PAGE_BYTES, PageRange};

/// Regions asked for in one call. The kernel hands over 512 at a time.
const REGIONS_PER_CALL: usize = 512;

/// Bytes of pagemap read in one call: the entries of 32 MiB of memory.
const READ_BYTES: usize = 64 << 10;

/// The memory whose pages are asked about, and what was placed there.
pub struct Area<'a> {
    memory: &'a Reservation,
    runs: &'a Runs,
}

impl<'a> Area<'a> {
    /// `memory`, in which `runs` were placed.
    pub(super) const fn new(memory: &'a Reservation, runs: &'a Runs) -> Self {
        Self { memory, runs }
    }

    fn address_of(&self, page: u64) -> u64 {
        self.memory.base().addr().get() as u64 + page * PAGE_BYTES
    }

    fn page_at(&self, address: u64) -> u64 {
        (address - self.address_of(0)) / PAGE_BYTES
    }

    /// The parts of `pages` where a file was placed, at once or when it was touched.
    fn files_in(&self, pages: PageRange) -> impl Iterator<Item = PageRange> {
        let pieces = self.runs.pieces_in(pages).into_iter();
        let is_file = |kind: &Kind| matches!(kind, Kind::File { .. } | Kind::Lazy);
        pieces.filter(move |(_, kind)| is_file(kind)).map(|(range, _)| range)
    }

    /// Whether zeros were placed at `page`, and it reads as zeros.
    fn is_zeros_as_placed(&self, page: u64) -> bool {
        let zeros_placed = matches!(self.runs.kind_at(page), Some(Kind::Zeros { .. }));
        zeros_placed && self.memory.bytes(PageRange::at(page, 1)).iter().all(|&byte| byte == 0)
    }
}

/// A way to find the pages that were written.
pub trait DirtyPages: Send + Sync {
    /// Returns the pages of `pages` written since they were placed, ascending and merged.
    ///
    /// Page numbers are relative to the start of `area`; `pages` must ascend and be mapped
    /// privately. Waits for no disk; the cost grows with the pages that were touched.
    ///
    /// # Errors
    ///
    /// [`MapError::System`] if the kernel does not answer.
    fn written(&self, area: &Area<'_>, pages: &[PageRange]) -> Result<Vec<PageRange>, MapError>;
}

/// The way that works on this machine, chosen at the first call.
pub fn tracker() -> &'static dyn DirtyPages {
    static SCAN_WORKS: OnceLock<bool> = OnceLock::new();
    if *SCAN_WORKS.get_or_init(PagemapScan::works) { &PagemapScan } else { &PagemapRead }
}

/// Asks with the `PAGEMAP_SCAN` call of Linux 6.7 and newer.
#[derive(Clone, Copy, Debug)]
pub struct PagemapScan;

impl PagemapScan {
    /// Whether the kernel has the call, and no sandbox forbids it.
    #[must_use]
    pub fn works() -> bool {
        Pagemap::open().and_then(|pagemap| pagemap.scan(0, 0, &mut [Region::default()])).is_ok()
    }
}

impl DirtyPages for PagemapScan {
    fn written(&self, area: &Area<'_>, pages: &[PageRange]) -> Result<Vec<PageRange>, MapError> {
        let pagemap = Pagemap::open()?;
        let mut regions = [Region::default(); REGIONS_PER_CALL];
        let mut found = Vec::new();
        for range in pages {
            let (mut at, end) = (area.address_of(range.start), area.address_of(range.end));
            while at < end {
                let count = pagemap.scan(at, end, &mut regions)?;
                for region in &regions[..count] {
                    let (start, end) = (area.page_at(region.start), area.page_at(region.end));
                    let region_pages = PageRange::new(start, end);
                    if region.is_zeros() {
                        // Where a file was placed, the kernel freed a written copy of zeros.
                        area.files_in(region_pages).for_each(|part| push(&mut found, part));
                    } else {
                        push(&mut found, region_pages);
                    }
                }
                // Where to go on is read from the last region and not from the kernel's
                // `walk_end`, which may lie before regions that were returned (fact K-28).
                at = if count < regions.len() { end } else { regions[count - 1].end };
            }
        }
        Ok(found)
    }
}

/// Asks by reading `/proc/self/pagemap`, page by page.
#[derive(Clone, Copy, Debug)]
pub struct PagemapRead;

impl DirtyPages for PagemapRead {
    fn written(&self, area: &Area<'_>, pages: &[PageRange]) -> Result<Vec<PageRange>, MapError> {
        let pagemap = Pagemap::open()?;
        let mut buffer = vec![0; READ_BYTES];
        let mut found = Vec::new();
        let first = area.address_of(0) / PAGE_BYTES;
        for range in pages {
            pagemap.entries(first + range.start, range.count(), &mut buffer, |number, entry| {
                let page = number - first;
                let written = match entry {
                    Entry::Clean => false,
                    Entry::Written => true,
                    // A written copy of zeros where zeros were placed, shared with a forked child,
                    // looks like zeros that were only read. It needs no commit.
                    Entry::ZerosOrWritten => !area.is_zeros_as_placed(page),
                };
                if written {
                    push(&mut found, PageRange::at(page, 1));
                }
            })?;
        }
        Ok(found)
    }
}

/// Adds `range`, which starts at or behind the end of the last one (invariant 3).
fn push(found: &mut Vec<PageRange>, range: PageRange) {
    match found.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => found.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::runs::FileId;
    use crate::vm::{Access, memory_file};
    use std::os::fd::AsFd;

    const FILE: Kind =
        Kind::File { file: FileId { descriptor: 3, device: 1, inode: 1 }, shift: 0, ahead: false };

    fn private_file(pages: u64) -> (Reservation, Runs) {
        let all = PageRange::new(0, pages);
        let mut memory = Reservation::new(pages, Access::CopyOnWrite).unwrap();
        let file = memory_file::create("dirty-test", pages * PAGE_BYTES).unwrap();
        memory.place_file(all, file.as_fd(), 0).unwrap();
        let mut runs = Runs::closed(pages);
        runs.replace(all, FILE);
        (memory, runs)
    }

    fn assert_written(area: &Area<'_>, within: &[PageRange], want: &[PageRange]) {
        assert_eq!(PagemapRead.written(area, within).unwrap(), want);
        if PagemapScan::works() {
            assert_eq!(PagemapScan.written(area, within).unwrap(), want);
        }
    }

    #[test]
    fn both_ways_find_more_regions_than_one_call_returns() {
        let pages = 4 * REGIONS_PER_CALL as u64 + 6;
        let (mut memory, runs) = private_file(pages);
        let want: Vec<PageRange> = (0..pages / 2).map(|i| PageRange::at(2 * i, 1)).collect();
        for &range in &want {
            memory.bytes_mut(range)[7] = 1;
        }
        assert_written(&Area::new(&memory, &runs), &[PageRange::new(0, pages)], &want);
    }

    #[test]
    fn both_ways_read_across_the_end_of_a_buffer() {
        let pages = 3 * READ_BYTES as u64 / 8 + 5;
        let (mut memory, runs) = private_file(pages);
        let want = [PageRange::new(8190, 8194), PageRange::new(pages - 1, pages)];
        for range in want {
            memory.bytes_mut(range).fill(1);
        }
        let within = [PageRange::new(0, 8192), PageRange::new(8192, pages)];
        assert_written(&Area::new(&memory, &runs), &within, &want);
    }

    /// Stands for the kernel freeing a written page of zeros: the page of zeros lies where `runs`
    /// say that a file was placed.
    #[test]
    fn page_of_zeros_where_a_file_was_placed_counts_as_written() {
        let all = PageRange::new(0, 8);
        let mut memory = Reservation::new(8, Access::CopyOnWrite).unwrap();
        memory.place_zeros(all).unwrap();
        let mut runs = Runs::closed(8);
        runs.replace(all, Kind::Zeros { huge: false });
        runs.replace(PageRange::new(2, 4), FILE);
        assert!(memory.bytes(all).iter().all(|&byte| byte == 0));
        memory.bytes_mut(PageRange::at(6, 1))[0] = 1;
        let want = [PageRange::new(2, 4), PageRange::at(6, 1)];
        assert_written(&Area::new(&memory, &runs), &[all], &want);
    }
}
