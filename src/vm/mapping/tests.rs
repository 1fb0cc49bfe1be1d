//! What lies at the pages of a mapping, against a list of single pages.

use super::*;
use crate::vm::dirty::{PagemapRead, PagemapScan};
use crate::vm::{memory_file, populate};
use proptest::prelude::*;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

const FILE_PAGES: u64 = 64;
const PAGES: u64 = 48;

/// A file whose page `i` is full of `first + i`.
fn numbered_file(first: u8) -> OwnedFd {
    let memory = memory_file::create("numbered", FILE_PAGES * PAGE_BYTES).unwrap();
    let file = File::from(memory.try_clone().unwrap());
    for page in 0..FILE_PAGES {
        let number = first + u8::try_from(page).unwrap();
        file.write_all_at(&[number; 4096], page * PAGE_BYTES).unwrap();
    }
    memory_file::freeze(memory.as_fd()).unwrap();
    memory
}

fn file_run(at: PageRange, file: &OwnedFd, file_page: u64) -> Run<'_> {
    let offset_bytes = file_page * PAGE_BYTES;
    Run { at, content: Content::File { file: file.as_fd(), offset_bytes } }
}

fn hole(at: PageRange) -> Run<'static> {
    Run { at, content: Content::Hole }
}

fn pages(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end)
}

fn everything() -> PageSet {
    [pages(0, 1 << 20)].into_iter().collect()
}

fn writable(pages: u64) -> Mapping {
    let budget = Arc::new(VmaBudget::with_max(1000));
    Mapping::new(pages, Access::CopyOnWrite, Advice::Blocks, &budget).unwrap()
}

/// The mappings of this process that the kernel lists inside of `mapping`; a fake lists none.
fn vmas_listed(mapping: &Mapping) -> u64 {
    if cfg!(miri) {
        return mapping.vmas();
    }
    let start = mapping.base().addr().get();
    let end = start + usize::try_from(mapping.pages() * PAGE_BYTES).unwrap();
    let is_inside = |line: &&str| {
        let mut ends = line.split(['-', ' ']).map(|hex| usize::from_str_radix(hex, 16));
        ends.next().unwrap().unwrap() < end && start < ends.next().unwrap().unwrap()
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(is_inside).count() as u64
}

#[test]
fn adjacent_runs_are_one_kernel_mapping() {
    let file = numbered_file(0);
    let mut mapping = writable(PAGES);
    let runs: Vec<_> = (0..8).map(|i| file_run(PageRange::at(i, 1), &file, 5 + i)).collect();
    mapping.place(&runs).unwrap();
    mapping.place(&[hole(pages(8, 10)), hole(pages(10, 12))]).unwrap();
    mapping.place(&[file_run(pages(12, 13), &file, 17)]).unwrap();
    assert_eq!(mapping.vmas(), 4);
    assert_eq!(vmas_listed(&mapping), 4);
    assert_eq!(mapping.budget.used(), 4);
    assert_eq!(mapping.bytes(pages(7, 9))[..4096], [12; 4096]);
    mapping.place(&[file_run(pages(8, 12), &file, 13)]).unwrap();
    assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (2, 2));
}

/// Bytes of this process that are pages of files.
#[cfg(not(miri))]
fn resident_file_bytes(mapping: &Mapping) -> u64 {
    let start = mapping.base().addr().get();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
    let rss = lines.find(|line| line.starts_with("Rss:")).unwrap();
    rss.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(not(miri))]
fn pages_that_were_let_go_are_no_memory_and_show_the_same_when_they_are_used_again() {
    let file = numbered_file(0);
    let budget = Arc::new(VmaBudget::with_max(1000));
    let new = Mapping::new(PAGES, Access::ReadOnly, Advice::Blocks, &budget);
    let mut mapping = new.unwrap();
    mapping.place(&[file_run(pages(0, PAGES), &file, 3)]).unwrap();
    populate(mapping.bytes(pages(0, PAGES))).unwrap();
    assert_eq!(resident_file_bytes(&mapping), PAGES * PAGE_BYTES);
    mapping.let_go(pages(1, PAGES));
    assert_eq!(resident_file_bytes(&mapping), PAGE_BYTES);
    assert_eq!(mapping.bytes(pages(7, 8)), [10; 4096]);
    // Where there may be private copies, nothing goes.
    let mut mapping = writable(PAGES);
    mapping.place(&[file_run(pages(0, PAGES), &file, 3)]).unwrap();
    mapping.bytes_mut(pages(4, 5)).fill(200);
    mapping.let_go(pages(0, PAGES));
    assert_eq!(mapping.bytes(pages(4, 5)), [200; 4096]);
}

#[test]
fn dropped_mapping_gives_its_budget_back() {
    let file = numbered_file(0);
    let budget = Arc::new(VmaBudget::with_max(10));
    let mut mapping = Mapping::new(PAGES, Access::ReadOnly, Advice::Random, &budget).unwrap();
    mapping.place(&[file_run(pages(3, 4), &file, 0)]).unwrap();
    assert_eq!(budget.used(), 3);
    drop(mapping);
    assert_eq!(budget.used(), 0);
}

#[test]
fn place_over_budget_changes_nothing_and_says_what_to_do() {
    let file = numbered_file(0);
    let budget = Arc::new(VmaBudget::with_max(4));
    let mut mapping = Mapping::new(PAGES, Access::CopyOnWrite, Advice::Normal, &budget).unwrap();
    mapping.place(&[file_run(pages(0, 4), &file, 0)]).unwrap();
    mapping.bytes_mut(pages(1, 2)).fill(99);
    let runs: Vec<_> = (0..4).map(|i| file_run(PageRange::at(i, 1), &file, 9 - i)).collect();
    let refused = mapping.place(&runs).unwrap_err();
    assert!(matches!(refused, MapError::TooManyMappings { needed: 5, budget: 4 }));
    assert!(refused.to_string().contains("view a smaller part"), "{refused}");
    assert_eq!((mapping.vmas(), budget.used()), (2, 2));
    assert_eq!(mapping.bytes(pages(1, 2)), [99; 4096]);
    assert_eq!(mapping.dirty(&everything()).unwrap(), [pages(1, 2)]);
}

#[test]
fn run_that_the_file_does_not_hold_is_refused() {
    let file = numbered_file(0);
    let mut mapping = writable(PAGES);
    let beyond = mapping.place(&[file_run(pages(0, 2), &file, FILE_PAGES - 1)]);
    assert!(matches!(beyond, Err(MapError::FileTooShort { len_bytes: 0x40000, .. })));
    let content = Content::File { file: file.as_fd(), offset_bytes: 512 };
    let between = mapping.place(&[Run { at: pages(0, 1), content }]);
    assert!(matches!(between, Err(MapError::Misaligned { offset_bytes: 512 })));
    assert!(mapping.mapped().is_empty());
}

#[test]
fn refused_run_leaves_the_runs_before_it_placed_and_the_rest_as_it_was() {
    let file = numbered_file(0);
    let write_only = tempfile::NamedTempFile::new().unwrap();
    write_only.as_file().set_len(4096).unwrap();
    let unreadable = File::options().write(true).open(write_only.path()).unwrap().into();
    let mut mapping = writable(PAGES);
    mapping.place(&[file_run(pages(10, 14), &file, 10)]).unwrap();
    mapping.bytes_mut(pages(12, 13)).fill(77);
    let refused = mapping.place(&[
        hole(pages(0, 1)),
        file_run(pages(12, 13), &unreadable, 0),
        hole(pages(13, 14)),
    ]);
    assert!(matches!(refused, Err(MapError::System { call: "mmap", .. })));
    assert_eq!(mapping.bytes(pages(0, 1)), [0; 4096]);
    assert_eq!(mapping.bytes(pages(12, 13)), [77; 4096]);
    assert_eq!(mapping.bytes(pages(13, 14)), [13; 4096]);
    assert_eq!((mapping.vmas(), mapping.budget.used()), (4, 4));
    assert_eq!(vmas_listed(&mapping), 4);
}

#[test]
fn grown_mapping_counts_its_closed_end() {
    let file = numbered_file(0);
    let mut mapping = writable(512);
    mapping.place(&[file_run(pages(500, 512), &file, 0)]).unwrap();
    assert_eq!(mapping.vmas(), 2);
    if mapping.try_grow(513) {
        assert_eq!((mapping.vmas(), mapping.budget.used()), (3, 3));
        mapping.place(&[file_run(pages(512, 513), &file, 12)]).unwrap();
        assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (2, 2));
        assert_eq!(mapping.bytes(pages(511, 513))[4096..], [12; 4096]);
    }
    assert!(!mapping.try_grow(u64::MAX) && mapping.budget.used() == mapping.vmas());
}

#[test]
fn read_only_mapping_has_no_dirty_pages() {
    let file = numbered_file(0);
    let (budget, access) = (Arc::new(VmaBudget::with_max(10)), Access::ReadOnly);
    let mut mapping = Mapping::new(PAGES, access, Advice::Sequential, &budget).unwrap();
    mapping.place(&[file_run(pages(0, 4), &file, 0), hole(pages(4, 8))]).unwrap();
    populate(mapping.bytes(pages(0, 8))).unwrap();
    assert_eq!(mapping.bytes(pages(3, 5))[4095..4097], [3, 0]);
    assert!(mapping.dirty(&everything()).unwrap().is_empty());
}

#[test]
fn reading_ahead_dirties_nothing() {
    let file = numbered_file(0);
    let mut mapping = writable(PAGES);
    mapping.place(&[file_run(pages(0, 32), &file, 0), hole(pages(40, 44))]).unwrap();
    populate(mapping.bytes(pages(0, 32))).unwrap();
    populate(mapping.bytes(pages(40, 44))).unwrap();
    mapping.will_need(pages(0, PAGES));
    let dirty = |tracker| mapping.dirty_by(tracker, &everything()).unwrap();
    assert_eq!((dirty(&PagemapRead), dirty(dirty::tracker())), (vec![], vec![]));
}

#[test]
fn hole_is_dirty_by_the_page_unless_an_overwrite_is_expected() {
    let mut mapping = writable(1024);
    mapping.place(&[hole(pages(0, 1024))]).unwrap();
    mapping.expect_overwrite(pages(512, 4096));
    assert_eq!((mapping.vmas(), mapping.budget.used()), (2, 2));
    for page in [3, 700] {
        mapping.bytes_mut(PageRange::at(page, 1))[0] = 1;
    }
    let found = mapping.dirty(&everything()).unwrap();
    assert_eq!(found[0], pages(3, 4));
    assert!(found[1] == pages(512, 1024) || found[1] == pages(700, 701), "{found:?}");
    assert_eq!(mapping.dirty_by(&PagemapRead, &everything()).unwrap(), found);
}

#[test]
fn overwrite_expected_without_budget_changes_nothing() {
    let budget = Arc::new(VmaBudget::with_max(1));
    let mut mapping = Mapping::new(1024, Access::CopyOnWrite, Advice::Blocks, &budget).unwrap();
    mapping.place(&[hole(pages(0, 1024))]).unwrap();
    mapping.expect_overwrite(pages(0, 512));
    assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (1, 1));
    mapping.unmap(pages(5, 6)).unwrap_err();
    assert_eq!((mapping.vmas(), vmas_listed(&mapping)), (1, 1));
    assert!(mapping.mapped().contains_range(pages(0, 1024)));
}

#[test]
fn mapping_may_be_used_by_several_threads() {
    const fn shared<T: Send + Sync>() {}
    shared::<Mapping>();
}

#[derive(Clone, Debug)]
enum Step {
    Place { start: u64, parts: Vec<(u64, Option<(bool, u64)>)> },
    Write { page: u64, offset: usize, value: u8 },
    Read { page: u64 },
    Discard { range: PageRange },
    Unmap { range: PageRange },
}

fn range() -> impl Strategy<Value = PageRange> {
    (0..PAGES, 1u64..16).prop_map(|(start, count)| pages(start, (start + count).min(PAGES)))
}

fn step() -> impl Strategy<Value = Step> {
    let part = (1u64..6, prop::option::weighted(0.7, (any::<bool>(), 0u64..40)));
    let parts = prop::collection::vec(part, 1..5);
    let write = (0..PAGES, 0usize..4096, any::<u8>());
    prop_oneof![
        2 => (0..PAGES, parts).prop_map(|(start, parts)| Step::Place { start, parts }),
        4 => write.prop_map(|(page, offset, value)| Step::Write { page, offset, value }),
        1 => (0..PAGES).prop_map(|page| Step::Read { page }),
        1 => range().prop_map(|range| Step::Discard { range }),
        1 => range().prop_map(|range| Step::Unmap { range }),
    ]
}

/// A page as plain memory: what was placed, and the private copy if it was written.
#[derive(Clone, Debug)]
struct Page {
    placed: u8,
    copy: Option<Vec<u8>>,
}

struct World {
    files: [OwnedFd; 2],
    mapping: Mapping,
    model: Vec<Option<Page>>,
}

impl World {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Place { start, parts } => self.place(*start, parts),
            Step::Write { page, offset, value } => {
                if let Some(known) = &mut self.model[usize::try_from(*page).unwrap()] {
                    let placed = known.placed;
                    known.copy.get_or_insert_with(|| vec![placed; 4096])[*offset] = *value;
                    self.mapping.bytes_mut(PageRange::at(*page, 1))[*offset] = *value;
                }
            }
            Step::Read { page } => {
                let parts = self.mapping.mapped().iter_in(PageRange::at(*page, 1));
                parts.for_each(|page| populate(self.mapping.bytes(page)).unwrap());
            }
            Step::Discard { range } => {
                self.mapping.discard(*range).unwrap();
                self.known(*range).iter_mut().flatten().for_each(|page| page.copy = None);
            }
            Step::Unmap { range } => {
                self.mapping.unmap(*range).unwrap();
                self.known(*range).fill(None);
            }
        }
    }

    fn place(&mut self, mut at: u64, parts: &[(u64, Option<(bool, u64)>)]) {
        let mut runs = Vec::new();
        for &(count, content) in parts {
            let range = pages(at.min(PAGES), (at + count).min(PAGES));
            at = range.end;
            for page in range.start..range.end {
                let placed = match content {
                    None => 0,
                    Some((second, first)) => {
                        100 * u8::from(second) + u8::try_from(first + page - range.start).unwrap()
                    }
                };
                let page = usize::try_from(page).unwrap();
                self.model[page] = Some(Page { placed, copy: None });
            }
            runs.push(match content {
                None => hole(range),
                Some((second, first)) => file_run(range, &self.files[usize::from(second)], first),
            });
        }
        self.mapping.place(&runs).unwrap();
    }

    fn known(&mut self, range: PageRange) -> &mut [Option<Page>] {
        let start = usize::try_from(range.start).unwrap();
        &mut self.model[start..usize::try_from(range.end).unwrap()]
    }

    fn check(&self) {
        let all = everything();
        let mut dirty = PageSet::new();
        for (page, known) in (0..).zip(&self.model) {
            let at = PageRange::at(page, 1);
            assert_eq!(self.mapping.mapped().contains_range(at), known.is_some());
            let Some(known) = known else { continue };
            if known.copy.is_some() {
                dirty.insert(at);
            }
            let want = known.copy.clone().unwrap_or_else(|| vec![known.placed; 4096]);
            assert!(self.mapping.bytes(at) == want, "page {page}");
        }
        let want: Vec<PageRange> = dirty.iter().collect();
        assert_eq!(self.mapping.dirty_by(&PagemapRead, &all).unwrap(), want);
        if PagemapScan::works() {
            assert_eq!(self.mapping.dirty_by(&PagemapScan, &all).unwrap(), want);
        }
        assert_eq!(self.mapping.budget.used(), self.mapping.vmas());
        let listed = vmas_listed(&self.mapping);
        assert!(self.mapping.vmas() <= listed, "{:?}", self.mapping);
        if dirty.is_empty() {
            assert!(listed <= self.mapping.vmas() + 2, "{listed} {:?}", self.mapping);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    #[test]
    fn mapping_equals_plain_memory_and_both_ways_find_the_same_written_pages(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let files = [numbered_file(0), numbered_file(100)];
        let model = vec![None; usize::try_from(PAGES).unwrap()];
        let mut world = World { files, mapping: writable(PAGES), model };
        for step in &steps {
            world.apply(step);
            world.check();
        }
    }
}
