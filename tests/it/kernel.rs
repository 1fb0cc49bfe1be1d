//! Facts about the Linux kernel that `vm` relies on, one test each.
//!
//! The facts are numbered K-01, K-02 ...; the code cites the numbers. When one of these tests fails
//! on a new kernel, look for its number in `src/vm`: what is built on it is wrong there.
//!
//! ```text
//! test -> Memory (one mmap, unmapped at drop) -> kernel
//!            store, load, dirty, vmas, resident
//! ```
//!
//! # Invariants
//!
//! 1. The tests ask the kernel directly and not through `zbigarray`, so they are an oracle for it.
//!    K-26, which compares the two trackers, is the exception.
//! 2. What could harm the test program (no mappings left, SIGBUS) runs in a process of its own.
//!
//! # Failure
//!
//! A test that cannot run here prints `not run:` and why, and passes.

#![expect(unsafe_code, reason = "the kernel is asked directly")]

use std::ffi::c_int;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zbigarray::units::{PageRange, PageSet};
use zbigarray::vm::dirty::{PagemapRead, PagemapScan};
use zbigarray::vm::{Access, Advice, Content, Mapping, Run, VmaBudget, populate};

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
const ANONYMOUS: c_int = PRIVATE | libc::MAP_ANONYMOUS;

/// One mapping; `start` is a multiple of 2 MiB unless it was mapped without [`Memory::aligned`].
struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    fn try_new(len: usize, prot: c_int, flags: c_int) -> Option<Self> {
        // SAFETY: without MAP_FIXED the kernel takes addresses that nothing uses.
        let got = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
        (got != libc::MAP_FAILED).then(|| Self { start: got.cast(), len })
    }

    fn anonymous(pages: usize) -> Self {
        Self::try_new(pages * PAGE, READ_WRITE, ANONYMOUS).unwrap()
    }

    /// Closed addresses, with one huge page at each side so that nothing joins from outside.
    fn aligned(pages: usize) -> Self {
        let len = (pages * PAGE).next_multiple_of(HUGE) + 3 * HUGE;
        let all = Self::try_new(len, libc::PROT_NONE, ANONYMOUS).unwrap();
        let start = all.start.wrapping_add(all.start.align_offset(HUGE) + HUGE);
        std::mem::forget(all);
        Self { start, len: pages * PAGE }
    }

    /// The first `pages` pages of `file`, private, at a multiple of 2 MiB.
    fn private(file: &File, pages: usize) -> Self {
        let memory = Self::aligned(pages);
        assert!(memory.map_file(0, pages, file, 0, PRIVATE));
        memory
    }

    fn address(&self, page: usize) -> *mut u8 {
        assert!(page * PAGE <= self.len);
        self.start.wrapping_add(page * PAGE)
    }

    fn map_file(&self, at: usize, pages: usize, file: &File, from: usize, flags: c_int) -> bool {
        let (flags, offset) = (flags | libc::MAP_FIXED, i64::try_from(from * PAGE).unwrap());
        let (address, len) = (self.address(at).cast(), pages * PAGE);
        assert!(at * PAGE + len <= self.len);
        // SAFETY: the addresses belong to `self`, asserted above, and no reference points there.
        let got = unsafe { libc::mmap(address, len, READ_WRITE, flags, file.as_raw_fd(), offset) };
        got != libc::MAP_FAILED
    }

    fn map_anonymous(&self, at: usize, pages: usize, prot: c_int) -> bool {
        let (address, len) = (self.address(at).cast(), pages * PAGE);
        assert!(at * PAGE + len <= self.len);
        let flags = ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the addresses belong to `self`, asserted above, and no reference points there.
        let got = unsafe { libc::mmap(address, len, prot, flags, -1, 0) };
        got != libc::MAP_FAILED
    }

    fn advise(&self, advice: c_int) -> bool {
        // SAFETY: the addresses belong to `self` and no reference points there.
        unsafe { libc::madvise(self.start.cast(), self.len, advice) == 0 }
    }

    fn store(&self, page: usize, value: u8) {
        assert!(page * PAGE < self.len);
        // SAFETY: inside of the mapping by the assertion; tests store only where they mapped.
        unsafe { self.address(page).write_volatile(value) };
    }

    fn load(&self, page: usize) -> u8 {
        assert!(page * PAGE < self.len);
        // SAFETY: inside of the mapping by the assertion; tests load only where they mapped.
        unsafe { self.address(page).read_volatile() }
    }

    /// Regions of written pages as page numbers, at most `max`, and the `walk_end` of the kernel.
    fn scan(&self, from: usize, max: usize) -> (Vec<PageRange>, usize) {
        let mut found = vec![[0_u64; 3]; max];
        let base = self.start.addr() as u64;
        let page = |address: u64| (address - base) / PAGE as u64;
        let (start, end) = (self.address(from).addr() as u64, base + self.len as u64);
        let (file_or_zero, present_or_swapped) = (0b10_0100, 0b1_1000);
        let vec = found.as_mut_ptr() as u64;
        let mut arguments = [
            96,
            0,
            start,
            end,
            0,
            vec,
            max as u64,
            0,
            file_or_zero,
            file_or_zero,
            present_or_swapped,
            0b100,
        ];
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        // SAFETY: the kernel writes at most `max` regions to `found`, and to the arguments.
        let count =
            unsafe { libc::ioctl(pagemap.as_raw_fd(), 0xC060_6610, arguments.as_mut_ptr()) };
        found.truncate(usize::try_from(count).expect("PAGEMAP_SCAN works, Linux 6.7"));
        let regions = found.iter().map(|r| PageRange::new(page(r[0]), page(r[1]))).collect();
        (regions, usize::try_from(page(arguments[4])).unwrap())
    }

    fn dirty(&self) -> Vec<u64> {
        self.scan(0, 4096).0.into_iter().flat_map(|range| range.start..range.end).collect()
    }

    /// The lines of `/proc/self/smaps` about mappings inside of this memory.
    fn smaps(&self) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut lines = Vec::new();
        for line in smaps.lines() {
            if let Some((from, to)) = line.split(' ').next().unwrap().split_once('-') {
                let address = |hex| usize::from_str_radix(hex, 16).unwrap();
                let end = self.start.addr() + self.len;
                inside = address(from) < end && self.start.addr() < address(to);
            }
            if inside {
                lines.push(line.to_owned());
            }
        }
        lines
    }

    fn vmas(&self) -> usize {
        self.smaps().iter().filter(|line| line.starts_with("VmFlags:")).count()
    }

    /// Kilobytes of `field` in `/proc/self/smaps`.
    fn smaps_kib(&self, field: &str) -> usize {
        let lines = self.smaps();
        let values = lines.iter().filter_map(|line| line.strip_prefix(field));
        values.map(|v| v.trim_end_matches("kB").trim().parse::<usize>().unwrap()).sum()
    }

    /// How many pages of the file behind this memory are in the page cache.
    fn cached(&self) -> usize {
        let mut states = vec![0_u8; self.len / PAGE];
        // SAFETY: the kernel writes one byte for each page of the mapping.
        let asked = unsafe { libc::mincore(self.start.cast(), self.len, states.as_mut_ptr()) };
        assert_eq!(asked, 0);
        states.into_iter().filter(|state| state & 1 == 1).count()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the addresses belong to `self` and nobody uses them any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// A file on disk whose page `i` starts with the byte `first + i`, in the page cache and on disk.
fn numbered_file(pages: usize, first: u8) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let mut bytes = vec![0; pages * PAGE];
    for (page, number) in bytes.chunks_mut(PAGE).zip((0..=u8::MAX).cycle()) {
        page.fill(first.wrapping_add(number));
    }
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    file
}

fn not_run(why: &str) {
    eprintln!("not run: {why}");
}

/// Runs the ignored test `name` of this file in a process of its own.
fn in_own_process(name: &str) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("kernel::{name}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn k01_mapping_over_memory_never_shows_a_gap_to_other_threads() {
    let (ones, twos) = (numbered_file(1, 1), numbered_file(1, 2));
    let memory = Memory::private(&ones, 1);
    let address = memory.start.expose_provenance();
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut seen = [0_u64; 256];
            while !done.load(Ordering::Relaxed) {
                let at = ptr::with_exposed_provenance::<u8>(address);
                // SAFETY: mapped until `memory` is dropped, after this thread was joined.
                seen[usize::from(unsafe { at.read_volatile() })] += 1;
            }
            seen
        }
    });
    for _ in 0..20_000 {
        assert!(memory.map_file(0, 1, &twos, 0, PRIVATE));
        assert!(memory.map_file(0, 1, &ones, 0, PRIVATE));
    }
    done.store(true, Ordering::Relaxed);
    let seen = reader.join().unwrap();
    assert_eq!(seen[1] + seen[2], seen.iter().sum::<u64>());
    drop(memory);
}

#[test]
fn k02_mappings_that_continue_each_other_become_one() {
    let file = numbered_file(64, 0);
    let memory = Memory::aligned(64);
    for page in 0..64 {
        assert!(memory.map_file(page, 1, &file, page, PRIVATE));
        memory.store(page, 1);
    }
    assert!(memory.advise(libc::MADV_RANDOM));
    assert_eq!(memory.vmas(), 1);
}

#[test]
fn k03_mapping_a_part_back_to_its_place_joins_it_again() {
    let file = numbered_file(64, 0);
    let memory = Memory::private(&file, 64);
    assert!(memory.map_file(20, 4, &file, 40, PRIVATE));
    assert_eq!(memory.vmas(), 3);
    assert!(memory.map_file(20, 4, &file, 20, PRIVATE));
    assert_eq!(memory.vmas(), 1);
}

#[test]
fn k04_closed_parts_join_the_reservation_again() {
    let file = numbered_file(64, 0);
    let memory = Memory::aligned(64);
    for page in 0..64 {
        assert!(memory.map_file(page, 1, &file, 63 - page, PRIVATE));
    }
    assert_eq!(memory.vmas(), 64);
    for page in 0..64 {
        assert!(memory.map_anonymous(page, 1, libc::PROT_NONE));
    }
    assert_eq!(memory.vmas(), 1);
}

#[test]
fn k05_file_pages_are_huge_only_where_file_offset_and_address_are_both_aligned() {
    let pages = 2 * HUGE / PAGE;
    let mut file = tempfile::tempfile().unwrap();
    for _ in 0..2 {
        file.write_all(&vec![1; HUGE]).unwrap();
    }
    let aligned = Memory::private(&file, pages);
    let shifted = Memory::aligned(pages);
    assert!(shifted.map_file(1, pages - 1, &file, 0, PRIVATE));
    for memory in [&aligned, &shifted] {
        if !memory.advise(libc::MADV_HUGEPAGE) {
            return not_run("this kernel has no huge pages (K-05)");
        }
        (1..pages).for_each(|page| assert_eq!(memory.load(page), 1));
    }
    if aligned.smaps_kib("FilePmdMapped:") == 0 {
        return not_run("the file system of the temporary files has no huge pages (K-05)");
    }
    assert_eq!(shifted.smaps_kib("FilePmdMapped:"), 0);
}

#[test]
fn k06_populating_a_writable_private_mapping_copies_every_page() {
    let file = numbered_file(64, 0);
    let memory = Memory::aligned(64);
    assert!(memory.map_file(0, 64, &file, 0, PRIVATE | libc::MAP_POPULATE));
    assert_eq!(memory.dirty().len(), 64);
}

#[test]
fn k07_populating_for_reading_dirties_nothing() {
    let file = numbered_file(64, 0);
    let memory = Memory::private(&file, 64);
    assert!(memory.advise(libc::MADV_POPULATE_READ));
    assert_eq!(memory.smaps_kib("Rss:"), 64 * 4);
    assert!(memory.dirty().is_empty());
}

#[test]
fn k10_k11_k12_advice_decides_how_much_one_miss_reads() {
    let pages = 4 * HUGE / PAGE;
    let file = numbered_file(pages, 0);
    let cached_after = |advice: &[c_int]| {
        // SAFETY: the call takes plain numbers.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let memory = Memory::private(&file, pages);
        let before = memory.cached();
        advice.iter().for_each(|&advice| assert!(memory.advise(advice) || advice == 14));
        let _ = memory.load(HUGE / PAGE + 3);
        (before, memory.cached())
    };
    let (before, random) = cached_after(&[libc::MADV_RANDOM]);
    if before != 0 {
        return not_run("the temporary files lie in memory (K-10 to K-12)");
    }
    assert_eq!(random, 1, "K-12: one page");
    let (_, blocks) = cached_after(&[libc::MADV_HUGEPAGE, libc::MADV_RANDOM]);
    // Last, because what is still being read ahead cannot be dropped from the cache.
    let (_, normal) = cached_after(&[]);
    assert!(normal > 1, "K-10: reads around the page");
    if blocks == 1 {
        return not_run("the file system of the temporary files has no huge pages (K-11)");
    }
    assert_eq!(blocks, HUGE / PAGE, "K-11: one huge page");
}

#[test]
fn k17_k18_at_the_limit_of_mappings_nothing_works() {
    let (status, output) = in_own_process("own_process_uses_up_all_mappings");
    assert!(status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "uses up all mappings; run by k17_k18 in a process of its own"]
fn own_process_uses_up_all_mappings() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 1 << 20 {
        return not_run("vm.max_map_count is very large (K-17, K-18)");
    }
    let file = numbered_file(2, 0);
    let memory = Memory::aligned(2 * limit);
    let mut pieces = 0;
    while memory.map_file(2 * pieces, 1, &file, 0, PRIVATE) {
        pieces += 1;
    }
    // Cutting a part in two fails a little before the limit. Take the rest as well.
    let mut others = Vec::with_capacity(1000);
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    while others.len() < 1000 {
        let Some(other) = Memory::try_new(PAGE, READ_WRITE, shared) else { break };
        others.push(other);
    }
    let errno = std::io::Error::last_os_error().raw_os_error();
    let over = memory.map_file(0, 1, &file, 1, PRIVATE);
    let elsewhere = Memory::try_new(PAGE, READ_WRITE, shared);
    let thread = std::thread::Builder::new().spawn(|| ()).is_ok();
    let closed = memory.map_anonymous(0, 1, libc::PROT_NONE);
    let count = others.len();
    drop((memory, others));
    assert_eq!(errno, Some(libc::ENOMEM), "{pieces} pieces and {count} others");
    // Each piece cuts a closed part in two.
    assert!((limit - 500..=limit).contains(&(2 * pieces)), "{pieces} of {limit}");
    assert!(!over, "mapping over an existing piece");
    assert!(elsewhere.is_none(), "mapping anything elsewhere");
    assert!(!thread, "starting a thread");
    assert!(!closed, "closing a piece (K-19)");
}

#[test]
fn k20_64_tib_of_addresses_can_be_reserved() {
    assert!(Memory::try_new(64 << 40, libc::PROT_NONE, ANONYMOUS).is_some());
}

#[test]
fn k21_private_memory_beyond_ram_needs_no_reserve() {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap();
    if mode.trim() != "0" {
        return not_run("the system counts committed memory in another way (K-21)");
    }
    let counted = ANONYMOUS & !libc::MAP_NORESERVE;
    assert!(Memory::try_new(1 << 40, READ_WRITE, ANONYMOUS).is_some());
    assert!(Memory::try_new(1 << 40, READ_WRITE, counted).is_none());
}

#[test]
fn k23_every_way_of_writing_makes_a_page_dirty() {
    let mut file = numbered_file(16, 0);
    let memory = Memory::private(&file, 16);
    memory.store(0, 255);
    memory.store(1, 1); // the value it has
    let into = |page: usize| {
        // SAFETY: the page is mapped, and nothing else refers to it.
        unsafe { std::slice::from_raw_parts_mut(memory.address(page), PAGE) }
    };
    file.rewind().unwrap();
    file.read_exact(into(2)).unwrap();
    let own = File::options().write(true).open("/proc/self/mem").unwrap();
    own.write_all_at(&[3], memory.address(3).addr() as u64).unwrap();
    let from = libc::iovec { iov_base: into(0).as_mut_ptr().cast(), iov_len: 8 };
    let to = libc::iovec { iov_base: memory.address(4).cast(), iov_len: 8 };
    let own_id = libc::pid_t::try_from(std::process::id()).unwrap();
    // SAFETY: both lie in mapped pages.
    let written =
        unsafe { libc::process_vm_writev(own_id, &raw const from, 1, &raw const to, 1, 0) };
    assert_eq!(written, 8);
    assert!(memory.map_anonymous(5, 2, READ_WRITE));
    memory.store(5, 0);
    assert_eq!(memory.dirty(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn k23_direct_reads_and_writes_to_file_holes_make_pages_dirty() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8 * PAGE as u64).unwrap();
    let memory = Memory::private(file.as_file(), 8);
    memory.store(1, 1);
    assert_eq!(memory.dirty(), [1]);
    let mut options = File::options();
    let Ok(direct) = options.read(true).custom_flags(libc::O_DIRECT).open(file.path()) else {
        return not_run("the file system of the temporary files has no direct reads (K-23)");
    };
    // SAFETY: the page is mapped, and nothing else refers to it.
    let page = unsafe { std::slice::from_raw_parts_mut(memory.address(3), PAGE) };
    direct.read_exact_at(page, 0).unwrap();
    assert_eq!(memory.dirty(), [1, 3]);
}

#[test]
fn k24_written_pages_stay_dirty_when_they_are_swapped_out() {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        return not_run("there is no swap space (K-24)");
    }
    let file = numbered_file(64, 0);
    let memory = Memory::private(&file, 64);
    (0..64).for_each(|page| memory.store(page, 200));
    assert!(memory.advise(libc::MADV_PAGEOUT));
    if memory.smaps_kib("Swap:") == 0 {
        return not_run("the kernel swapped nothing out (K-24)");
    }
    assert_eq!(memory.dirty().len(), 64);
}

#[test]
fn k25_pages_that_were_only_read_are_not_dirty() {
    let file = numbered_file(8, 0);
    file.set_len(16 * PAGE as u64).unwrap();
    let memory = Memory::private(&file, 16);
    let alias = Memory::aligned(16);
    assert!(alias.map_file(0, 16, &file, 0, libc::MAP_SHARED));
    let numbers: Vec<u8> = (0..16).map(|page| memory.load(page)).collect();
    assert_eq!(numbers[6..10], [6, 7, 0, 0]);
    alias.store(2, 222);
    assert_eq!(memory.load(2), 222);
    assert!(memory.dirty().is_empty(), "file pages, file holes, writes through an alias");
    let zeros = Memory::anonymous(16);
    (0..16).for_each(|page| assert_eq!(zeros.load(page), 0));
    assert!(zeros.dirty().is_empty(), "pages of zeros");
    assert!(memory.advise(libc::MADV_PAGEOUT));
    assert!(memory.dirty().is_empty(), "pages paged out");
}

#[test]
fn k25_huge_pages_of_zeros_are_not_dirty() {
    let memory = Memory::aligned(2 * HUGE / PAGE);
    assert!(memory.map_anonymous(0, 2 * HUGE / PAGE, READ_WRITE));
    if !memory.advise(libc::MADV_HUGEPAGE) {
        return not_run("this kernel has no huge pages (K-25)");
    }
    assert_eq!(memory.load(0) + memory.load(512), 0);
    assert!(memory.dirty().is_empty());
}

#[test]
fn k26_reading_the_pagemap_finds_the_same_pages_as_the_scan() {
    let file = numbered_file(64, 0);
    let budget = Arc::new(VmaBudget::with_max(100));
    let mut mapping = Mapping::new(96, Access::CopyOnWrite, Advice::Blocks, &budget).unwrap();
    let content = Content::File { file: file.as_fd(), offset_bytes: 0 };
    let holes = Run { at: PageRange::new(64, 96), content: Content::Hole };
    mapping.place(&[Run { at: PageRange::new(0, 64), content }, holes]).unwrap();
    populate(mapping.bytes(PageRange::new(0, 96))).unwrap();
    let written = [PageRange::new(5, 6), PageRange::new(30, 40), PageRange::new(63, 66)];
    for range in written {
        mapping.bytes_mut(range).fill(0);
    }
    let all: PageSet = [PageRange::new(0, 96)].into_iter().collect();
    assert_eq!(mapping.dirty_by(&PagemapRead, &all).unwrap(), written);
    assert_eq!(mapping.dirty_by(&PagemapScan, &all).unwrap(), written);
}

#[test]
fn k28_fewer_regions_than_asked_for_means_all_and_walk_end_may_be_stale() {
    let pages = 4000;
    let memory = Memory::anonymous(pages);
    (0..pages).step_by(2).for_each(|page| memory.store(page, 1));
    let (all, walk_end) = memory.scan(0, 4096);
    let starts: Vec<u64> = all.iter().map(|range| range.start).collect();
    assert_eq!(starts, (0..pages as u64).step_by(2).collect::<Vec<_>>());
    eprintln!("walk_end is page {walk_end} of {pages} after a complete walk");
    let (first, _) = memory.scan(0, 700);
    assert_eq!(first, all[..700]);
    let (rest, _) = memory.scan(usize::try_from(first[699].end).unwrap(), 4096);
    assert_eq!(rest, all[700..], "going on behind the last region");
}

#[test]
fn k32_one_store_makes_a_huge_anonymous_page_dirty_as_a_whole() {
    let file = numbered_file(2 * HUGE / PAGE, 0);
    let memory = Memory::private(&file, 2 * HUGE / PAGE);
    assert!(memory.map_anonymous(0, HUGE / PAGE, READ_WRITE));
    assert!(memory.map_anonymous(512, HUGE / PAGE, READ_WRITE));
    let huge = memory.advise(libc::MADV_HUGEPAGE);
    memory.store(3, 1);
    if !huge || memory.smaps_kib("AnonHugePages:") == 0 {
        return not_run("there are no huge pages now (K-32)");
    }
    assert_eq!(memory.dirty(), (0..512).collect::<Vec<_>>());
    assert!(memory.map_anonymous(512, HUGE / PAGE, READ_WRITE));
    memory.store(515, 1);
    let small: Vec<u64> = memory.dirty().into_iter().filter(|&page| page >= 512).collect();
    assert!(small == [515] || small.len() == 512, "without advice as the system is set up");
}

#[test]
fn k37_dropping_copies_shows_the_file_again() {
    let file = numbered_file(8, 0);
    let memory = Memory::private(&file, 8);
    (0..8).for_each(|page| memory.store(page, 99));
    assert!(memory.advise(libc::MADV_DONTNEED));
    assert!(memory.dirty().is_empty());
    (0..8).for_each(|page| assert_eq!(usize::from(memory.load(page)), page));
}

#[test]
fn k40_a_forked_child_has_its_own_written_pages_and_those_it_inherited() {
    let file = numbered_file(8, 0);
    let memory = Memory::private(&file, 8);
    memory.store(1, 1);
    // SAFETY: the child asks for its written pages and leaves; the C library makes its memory
    // usable in the child.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        memory.store(5, 5);
        let right = memory.dirty() == [1, 5];
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(c_int::from(!right)) };
    }
    let mut status = -1;
    // SAFETY: the child was made above; the kernel writes the status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(ExitStatus::from_raw(status).code(), Some(0), "pages of the child");
    assert_eq!(memory.dirty(), [1]);
    assert_eq!(memory.load(5), 5);
    memory.store(1, 2);
    assert_eq!(memory.dirty(), [1]);
}

#[test]
fn k40_mapping_and_its_forked_copy_know_their_written_pages_while_they_share_them() {
    let file = numbered_file(8, 1);
    let budget = Arc::new(VmaBudget::with_max(100));
    let mut mapping = Mapping::new(16, Access::CopyOnWrite, Advice::Blocks, &budget).unwrap();
    let content = Content::File { file: file.as_fd(), offset_bytes: 0 };
    let holes = Run { at: PageRange::new(8, 16), content: Content::Hole };
    mapping.place(&[Run { at: PageRange::new(0, 8), content }, holes]).unwrap();
    populate(mapping.bytes(PageRange::new(0, 16))).unwrap();
    mapping.bytes_mut(PageRange::at(2, 1)).fill(0);
    mapping.bytes_mut(PageRange::at(9, 1)).fill(7);
    let all: PageSet = [PageRange::new(0, 16)].into_iter().collect();
    let want = [PageRange::at(2, 1), PageRange::at(9, 1)];
    let is_right = |mapping: &Mapping| {
        mapping.dirty_by(&PagemapRead, &all).unwrap() == want
            && mapping.dirty(&all).unwrap() == want
    };
    assert!(is_right(&mapping), "before the fork");
    let (mut waiting, parent_is_done) = std::io::pipe().unwrap();
    // SAFETY: the child asks for its written pages and leaves; the C library makes its memory
    // usable in the child.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        drop(parent_is_done);
        let right = is_right(&mapping);
        let parent_went_on = waiting.read(&mut [0]).is_ok();
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(c_int::from(!(right && parent_went_on))) };
    }
    let right = is_right(&mapping);
    drop(parent_is_done);
    let mut status = -1;
    // SAFETY: the child was made above; the kernel writes the status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(ExitStatus::from_raw(status).code(), Some(0), "pages of the child");
    assert!(right, "pages of the parent while the child shares them");
}

#[test]
fn k45_system_calls_read_and_write_pages_that_nobody_touched() {
    let (file, mut other) = (numbered_file(8, 0), numbered_file(8, 100));
    let memory = Memory::private(&file, 8);
    // SAFETY: the page is mapped, and nothing else refers to it.
    let third = unsafe { std::slice::from_raw_parts(memory.address(3), PAGE) };
    // SAFETY: as above, another page.
    let fourth = unsafe { std::slice::from_raw_parts_mut(memory.address(4), PAGE) };
    other.write_all_at(third, 0).unwrap();
    other.rewind().unwrap();
    other.read_exact(fourth).unwrap();
    assert_eq!(memory.load(4), 3);
    assert_eq!(memory.dirty(), [4]);
}

#[test]
fn k46_cutting_a_file_off_loses_even_private_copies() {
    let (status, output) = in_own_process("own_process_reads_a_copy_behind_the_end_of_its_file");
    assert!(output.contains("before the cut: 99"), "{output}");
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{output}");
}

#[test]
#[ignore = "ends with SIGBUS; run by k46 in a process of its own"]
fn own_process_reads_a_copy_behind_the_end_of_its_file() {
    let file = numbered_file(8, 0);
    let memory = Memory::private(&file, 8);
    memory.store(5, 99);
    println!("before the cut: {}", memory.load(5));
    file.set_len(PAGE as u64).unwrap();
    println!("after the cut: {}", memory.load(5));
}

#[test]
fn k47_a_punched_hole_shows_through_clean_pages_as_zeros() {
    let file = numbered_file(8, 1);
    let memory = Memory::private(&file, 8);
    memory.store(2, 99);
    assert_eq!(memory.load(3), 4);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let len = i64::try_from(8 * PAGE).unwrap();
    // SAFETY: the call takes plain numbers.
    if unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, len) } != 0 {
        return not_run("the file system of the temporary files cannot punch holes (K-47)");
    }
    assert_eq!((memory.load(2), memory.load(3)), (99, 0));
}

#[test]
fn k48_overwriting_a_file_shows_through_clean_pages_at_once() {
    let file = numbered_file(8, 0);
    let memory = Memory::private(&file, 8);
    memory.store(1, 99);
    assert_eq!(memory.load(2), 2);
    for page in 1..4 {
        file.write_all_at(&[77; PAGE], page * PAGE as u64).unwrap();
    }
    let seen: Vec<u8> = (0..4).map(|page| memory.load(page)).collect();
    assert_eq!(seen, [0, 99, 77, 77], "untouched, copied, read before, not read before");
}
