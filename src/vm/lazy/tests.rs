//! Lazy pages against the file that their source answers with.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::thread;
use crate::vm::{Advice, Content, Mapping, Run};

const CHUNKS: u64 = 6;

/// Answers with a file whose chunk `i` is full of `i + 1`, and counts; chunks in `bad` fail.
struct Numbered {
    file: Arc<OwnedFd>,
    loads: AtomicUsize,
    pins: Arc<AtomicUsize>,
    bad: Mutex<Vec<u64>>,
    delay: Duration,
    // Loads do not end while it is true.
    held: AtomicBool,
}

struct Pin(Arc<AtomicUsize>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("chunk {0} is bad")]
struct Bad(u64);

impl PageSource for Numbered {
    fn load(&self, pages: PageRange) -> Result<Loaded, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        thread::sleep(self.delay);
        while self.held.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        let chunk = pages.start / CHUNK_PAGES;
        if self.bad.lock().contains(&chunk) {
            return Err(Arc::new(Bad(chunk)));
        }
        self.pins.fetch_add(1, Ordering::SeqCst);
        let pin = Box::new(Pin(Arc::clone(&self.pins)));
        Ok(Loaded { file: Arc::clone(&self.file), offset_bytes: pages.start_byte(), pin })
    }
}

fn numbered(first: u8) -> Arc<Numbered> {
    let len = CHUNKS * CHUNK_PAGES * PAGE_BYTES;
    let memory = memory_file::create("numbered", len).unwrap();
    let file = File::from(memory.try_clone().unwrap());
    for chunk in 0..CHUNKS {
        let bytes = vec![first + u8::try_from(chunk).unwrap(); 2 << 20];
        file.write_all_at(&bytes, chunk * (2 << 20)).unwrap();
    }
    Arc::new(Numbered {
        file: Arc::new(memory),
        loads: AtomicUsize::new(0),
        pins: Arc::default(),
        bad: Mutex::new(Vec::new()),
        delay: Duration::ZERO,
        held: AtomicBool::new(false),
    })
}

fn all() -> PageRange {
    PageRange::new(0, CHUNKS * CHUNK_PAGES)
}

fn lazy(source: &Arc<Numbered>, budget: u64) -> (Mapping, Arc<Pager>, Arc<VmaBudget>) {
    let pager = Pager::new().unwrap();
    let budget = Arc::new(VmaBudget::with_max(budget));
    let new = Mapping::new(all().end, Access::CopyOnWrite, Advice::Blocks, &budget);
    let mut mapping = new.unwrap();
    mapping.set_source(Arc::clone(source) as Arc<dyn PageSource>, &pager);
    mapping.place(&[Run { at: all(), content: Content::Lazy }]).unwrap();
    (mapping, pager, budget)
}

fn byte(mapping: &Mapping, chunk: u64, offset: usize) -> u8 {
    mapping.bytes(PageRange::at(chunk * CHUNK_PAGES, CHUNK_PAGES))[offset]
}

/// What is being loaded at this moment is let go when that ends.
fn assert_all_let_go(source: &Numbered) {
    within_a_minute(|| source.pins.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_page_is_loaded_when_it_is_touched_and_its_chunk_once() {
    let source = numbered(1);
    let (mapping, _pager, _) = lazy(&source, 100);
    assert_eq!(source.loads.load(Ordering::SeqCst), 0);
    assert_eq!(byte(&mapping, 3, 5000), 4);
    assert_eq!(byte(&mapping, 3, 0), 4);
    assert_eq!(byte(&mapping, 3, (2 << 20) - 1), 4);
    assert_eq!(source.loads.load(Ordering::SeqCst), 1);
    assert_eq!(byte(&mapping, 1, 77), 2);
    assert_eq!(source.loads.load(Ordering::SeqCst), 2);
}

#[test]
fn written_pages_of_lazy_chunks_are_dirty_and_read_ones_are_not() {
    let source = numbered(1);
    let (mut mapping, _pager, _) = lazy(&source, 100);
    assert_eq!(byte(&mapping, 0, 0), 1);
    let page = PageRange::at(2 * CHUNK_PAGES + 9, 1);
    mapping.bytes_mut(page)[7] = 99;
    let within = [all()].into_iter().collect();
    assert_eq!(mapping.dirty(&within).unwrap(), [page]);
    assert_eq!(mapping.bytes(page)[6..8], [3, 99]);
    mapping.discard(all()).unwrap();
    assert_eq!(mapping.bytes(page)[6..8], [3, 3]);
    assert!(mapping.dirty(&within).unwrap().is_empty());
}

#[test]
fn many_threads_that_touch_one_chunk_cause_one_load() {
    let mut source = numbered(1);
    Arc::get_mut(&mut source).unwrap().delay = Duration::from_millis(50);
    let (mapping, _pager, _) = lazy(&source, 100);
    thread::scope(|scope| {
        for number in 0..8 {
            let mapping = &mapping;
            scope.spawn(move || assert_eq!(byte(mapping, 4, number * 4096), 5));
        }
    });
    assert_eq!(source.loads.load(Ordering::SeqCst), 1);
}

#[test]
fn chunks_are_put_aside_under_who_reads_them_and_he_sees_no_other_byte() {
    let source = numbered(1);
    let (mapping, pager, _) = lazy(&source, 100);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3u64)
            .map(|seed| {
                let (mapping, over) = (&mapping, &over);
                scope.spawn(move || {
                    let mut at = seed;
                    while !over.load(Ordering::Relaxed) {
                        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let offset = usize::try_from(at >> 20).unwrap() % (12 << 20);
                        let seen = mapping.bytes(all())[offset];
                        assert_eq!(usize::from(seen), (offset >> 21) + 1);
                    }
                })
            })
            .collect();
        let mut aside = 0;
        while aside < 3000 {
            aside += u32::from(pager.put_one_aside());
        }
        over.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    drop(mapping);
    assert_all_let_go(&source);
}

#[test]
fn more_chunks_than_mappings_are_shown_one_after_the_other() {
    let source = numbered(1);
    let (mapping, _pager, budget) = lazy(&source, 5);
    for round in 0..3 {
        for chunk in 0..CHUNKS {
            assert_eq!(u64::from(byte(&mapping, chunk, round)), chunk + 1);
            assert!(budget.used() <= 5, "{budget:?}");
        }
    }
    assert!(source.pins.load(Ordering::SeqCst) <= 2);
    drop(mapping);
    assert_all_let_go(&source);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_chunk_with_private_copies_is_not_put_aside() {
    let source = numbered(1);
    let (mut mapping, pager, _) = lazy(&source, 100);
    mapping.bytes_mut(PageRange::at(3, 1))[0] = 99;
    assert_eq!(byte(&mapping, 4, 0), 5);
    assert!(pager.put_one_aside());
    assert!(!pager.put_one_aside());
    assert_eq!((byte(&mapping, 0, 3 * 4096), byte(&mapping, 4, 0)), (99, 5));
    mapping.discard(all()).unwrap();
    mapping.keep_none();
    assert!(pager.put_one_aside() && pager.put_one_aside() && !pager.put_one_aside());
    assert_eq!(byte(&mapping, 0, 3 * 4096), 1);
}

#[test]
fn a_chunk_that_cannot_be_loaded_is_an_error_that_goes_when_its_cause_goes() {
    let source = numbered(1);
    let (mapping, _pager, budget) = lazy(&source, 100);
    let used = budget.used();
    source.bad.lock().push(2);
    let pages = PageRange::new(CHUNK_PAGES + 5, 4 * CHUNK_PAGES);
    let refused = mapping.ensure(pages).unwrap_err();
    assert_eq!(refused.to_string(), "chunk 2 is bad");
    let into = (CHUNK_PAGES - 5) * PAGE_BYTES;
    assert!(matches!(refused, MapError::NotLoaded { offset_bytes, .. } if offset_bytes == into));
    source.bad.lock().clear();
    mapping.ensure(pages).unwrap();
    let loads = source.loads.load(Ordering::SeqCst);
    assert_eq!((byte(&mapping, 1, 0), byte(&mapping, 2, 0), byte(&mapping, 3, 0)), (2, 3, 4));
    assert_eq!(source.loads.load(Ordering::SeqCst), loads);
    assert!(budget.used() >= used + 3 * VMAS_PER_CHUNK);
}

#[test]
fn a_lost_chunk_is_unreadable_until_it_is_asked_for_again() {
    let source = numbered(1);
    let (mapping, _pager, _) = lazy(&source, 100);
    source.bad.lock().push(2);
    // As a thread that sleeps there would make it, without ending the process.
    mapping.lazy_pages().unwrap().touched(mapping.base().addr().get() + (5 << 20));
    let lost = PageRange::at(2 * CHUNK_PAGES, CHUNK_PAGES);
    let unreadable = crate::vm::populate(mapping.bytes(lost)).unwrap_err();
    assert!(matches!(unreadable, MapError::Unreadable { offset_bytes: 0 }));
    assert_eq!(byte(&mapping, 1, 0), 2);
    source.bad.lock().clear();
    mapping.ensure(lost).unwrap();
    assert_eq!(byte(&mapping, 2, 0), 3);
}

#[test]
fn a_source_that_panics_is_an_error_and_the_next_load_works() {
    struct Panics(Arc<Numbered>, AtomicBool);
    impl PageSource for Panics {
        fn load(&self, pages: PageRange) -> Result<Loaded, LoadError> {
            assert!(self.1.swap(true, Ordering::SeqCst), "planted");
            self.0.load(pages)
        }
    }
    let source = Arc::new(Panics(numbered(1), AtomicBool::new(false)));
    let pager = Pager::new().unwrap();
    let budget = Arc::new(VmaBudget::with_max(100));
    let new = Mapping::new(all().end, Access::ReadOnly, Advice::Blocks, &budget);
    let mut mapping = new.unwrap();
    mapping.set_source(source, &pager);
    mapping.place(&[Run { at: all(), content: Content::Lazy }]).unwrap();
    let refused = mapping.ensure(PageRange::at(0, 1)).unwrap_err();
    assert!(refused.to_string().contains("panic"), "{refused}");
    mapping.ensure(PageRange::at(0, 1)).unwrap();
    assert_eq!(byte(&mapping, 0, 0), 1);
}

/// What panics here is the end of what was shown before, outside of the source.
#[test]
fn a_thread_that_panics_while_it_loads_leaves_an_error_and_nobody_who_waits() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            assert!(thread::panicking(), "planted");
        }
    }
    struct Pinned(Arc<Numbered>);
    impl PageSource for Pinned {
        fn load(&self, pages: PageRange) -> Result<Loaded, LoadError> {
            let loaded = self.0.load(pages)?;
            Ok(Loaded {
                pin: if pages.start == 0 { Box::new(Panics) } else { loaded.pin },
                ..loaded
            })
        }
    }
    let pager = Pager::new().unwrap();
    let budget = Arc::new(VmaBudget::with_max(4));
    let new = Mapping::new(all().end, Access::ReadOnly, Advice::Blocks, &budget);
    let mut mapping = new.unwrap();
    mapping.set_source(Arc::new(Pinned(numbered(1))), &pager);
    mapping.place(&[Run { at: all(), content: Content::Lazy }]).unwrap();
    mapping.ensure(PageRange::at(0, 1)).unwrap();
    // The budget is used up, so chunk 0 is put aside.
    mapping.will_need(PageRange::at(CHUNK_PAGES, 1));
    let lost = PageRange::at(CHUNK_PAGES, CHUNK_PAGES);
    within_a_minute(|| crate::vm::populate(mapping.bytes(lost)).is_err());
    mapping.ensure(lost).unwrap();
    assert_eq!(byte(&mapping, 1, 0), 2);
}

#[test]
fn pages_placed_anew_show_the_new_content_and_their_neighbours_the_old() {
    let (source, other) = (numbered(1), numbered(101));
    let (mut mapping, _pager, _) = lazy(&source, 100);
    assert_eq!(byte(&mapping, 1, 0), 2);
    let at = PageRange::at(CHUNK_PAGES + 8, 2);
    let content = Content::File { file: other.file.as_fd(), offset_bytes: 0 };
    mapping.place(&[Run { at, content }]).unwrap();
    let seen = [0, 8, 9, 10].map(|page| byte(&mapping, 1, page * 4096));
    assert_eq!(seen, [2, 101, 101, 2]);
    mapping.place(&[Run { at, content: Content::Lazy }]).unwrap();
    let seen = [0, 8, 9, 10].map(|page| byte(&mapping, 1, page * 4096));
    assert_eq!(seen, [2, 2, 2, 2]);
    mapping.unmap(PageRange::at(0, 2 * CHUNK_PAGES)).unwrap();
    assert_all_let_go(&source);
}

#[test]
fn a_load_that_was_overtaken_by_a_new_content_is_not_shown() {
    let source = numbered(1);
    source.held.store(true, Ordering::SeqCst);
    let (mut mapping, _pager, _) = lazy(&source, 100);
    mapping.will_need(PageRange::at(0, CHUNK_PAGES));
    while source.loads.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    mapping.place(&[Run { at: PageRange::at(0, 4), content: Content::Hole }]).unwrap();
    source.held.store(false, Ordering::SeqCst);
    assert_eq!((byte(&mapping, 0, 0), byte(&mapping, 0, 4 * 4096)), (0, 1));
    assert!(source.loads.load(Ordering::SeqCst) >= 2);
    thread::sleep(Duration::from_millis(250));
    within_a_minute(|| source.pins.load(Ordering::SeqCst) == 1);
    assert_eq!(byte(&mapping, 0, 0), 0);
}

/// Waits until `is_so`.
fn within_a_minute(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn reading_in_order_loads_ahead() {
    let source = numbered(1);
    let (mapping, _pager, _) = lazy(&source, 100);
    assert_eq!((byte(&mapping, 0, 0), byte(&mapping, 1, 0)), (1, 2));
    within_a_minute(|| source.loads.load(Ordering::SeqCst) >= 4);
}

#[test]
fn system_calls_on_missing_pages_wait_or_fail_as_said() {
    let source = numbered(1);
    let (mapping, pager, _) = lazy(&source, 100);
    let into = tempfile::tempfile().unwrap();
    let written = into.write_all_at(mapping.bytes(PageRange::at(CHUNK_PAGES, 2)), 0);
    assert_eq!(written.is_ok(), pager.serves_system_calls());
    mapping.ensure(PageRange::at(CHUNK_PAGES, 2)).unwrap();
    into.write_all_at(mapping.bytes(PageRange::at(CHUNK_PAGES, 2)), 0).unwrap();
    let mut back = vec![0; 8192];
    into.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, vec![2; 8192]);
}

#[test]
fn what_a_refused_change_leaves_in_its_place_stays_pinned() {
    let source = numbered(1);
    let (mut mapping, _pager, _) = lazy(&source, 100);
    assert_eq!(byte(&mapping, 3, 0), 4);
    let write_only = tempfile::NamedTempFile::new().unwrap();
    write_only.as_file().set_len(4096).unwrap();
    let unreadable = File::options().write(true).open(write_only.path()).unwrap();
    let at = PageRange::at(3 * CHUNK_PAGES, 1);
    // All that is shown of the chunk shall go.
    mapping
        .place(&[Run { at: PageRange::at(at.start + 1, CHUNK_PAGES - 1), content: Content::Hole }])
        .unwrap();
    let content = Content::File { file: unreadable.as_fd(), offset_bytes: 0 };
    mapping.place(&[Run { at, content }]).unwrap_err();
    assert_eq!((byte(&mapping, 3, 0), source.pins.load(Ordering::SeqCst)), (4, 1));
}

#[test]
fn what_was_shown_and_is_gone_is_not_remembered_for_ever() {
    let source = numbered(1);
    let (mut mapping, pager, _) = lazy(&source, 100);
    let page = PageRange::at(0, 1);
    for _ in 0..3000 {
        mapping.ensure(page).unwrap();
        mapping
            .place(&[Run { at: PageRange::at(0, CHUNK_PAGES), content: Content::Lazy }])
            .unwrap();
    }
    assert!(pager.shown_count() <= 1024, "{}", pager.shown_count());
}
