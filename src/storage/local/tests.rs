//! The engine as a whole: what is committed is there after reopening, whatever happened between.

use super::*;
use crate::storage::backend::Directory;
use crate::storage::catalog::{ArrayEntry, Attributes, CatalogChange};
use crate::storage::encoding::Codec;
use crate::storage::engine::read_checked;
use crate::storage::extent::{Extent, Segment, Source, sums_of};
use crate::storage::record::DraftChange;
use crate::units::{ArrayId, PAGE_LEN, PageRange};

/// Limits so small that few commits reach every edge.
pub(super) fn small() -> LocalOptions {
    LocalOptions {
        log_roll_bytes: 48 << 10,
        data_file_pages: 64,
        checkpoint_bytes_min: 24 << 10,
        ..LocalOptions::default()
    }
}

/// `pages` pages that say which commit and page they are of.
pub(super) fn content(tid: u64, first: u64, pages: u64) -> Vec<u8> {
    let page = |page: u64| {
        let mut bytes = vec![0; PAGE_LEN];
        bytes[..8].copy_from_slice(&tid.to_le_bytes());
        bytes[4088..].copy_from_slice(&page.to_le_bytes());
        bytes
    };
    (first..first + pages).flat_map(page).collect()
}

pub(super) const ARRAY: ArrayId = ArrayId(1);

fn draft<'a>(head: &State, data: Vec<DraftChange<'a>>) -> Draft<'a> {
    let mut catalog = Vec::new();
    if head.catalog.array_by_id(ARRAY).is_none() {
        let entry = ArrayEntry {
            id: ARRAY,
            shape: Arc::from([1 << 20]),
            block_bytes: 64 << 10,
            codec: Codec::default(),
            descriptor: Arc::from("{}"),
            attributes: Attributes::new(),
            created: Tid::ZERO,
            changed: Tid::ZERO,
        };
        catalog.push(CatalogChange::CreateArray { name: Arc::from("a"), entry });
    }
    let tid = head.tid.next();
    let note = Arc::from(format!("commit {tid}"));
    Draft { tid, base: head.tid, time_ns: 1, note, catalog, data }
}

/// A commit of one page, which lies inside the record.
pub(super) fn draft_of_page<'a>(head: &State, bytes: &'a [u8]) -> Draft<'a> {
    let source = DraftSource::Inline(bytes);
    draft(
        head,
        vec![DraftChange { array: ARRAY, pages: PageRange::at(0, 1), source, carried: false }],
    )
}

/// Commits `pages` pages from `first` on, which say the tid, and returns the new head.
pub(super) fn commit(
    engine: &LocalEngine,
    head: &State,
    first: u64,
    pages: u64,
    inline: bool,
) -> Result<State, StorageError> {
    let bytes = content(head.tid.next().0, first, pages);
    let range = PageRange::at(first, pages);
    let source = match inline {
        true => DraftSource::Inline(&bytes),
        false => {
            let count = u32::try_from(pages).unwrap();
            let wish = Allocation { pages: count, align_pages: 1, phase_pages: 0, near: None };
            let place = engine.allocate(&wish)?;
            engine.write(place, &bytes)?;
            engine.sync()?;
            let extent = Extent::new(place, count, 4, sums_of(&bytes, 4)).unwrap();
            DraftSource::Stored(Source::whole(extent))
        }
    };
    let change = DraftChange { array: ARRAY, pages: range, source, carried: false };
    let record = engine.append(&draft(head, vec![change]))?;
    engine.settle(record.tid)?;
    head.apply(&record)
}

/// The commit that each page of `pages` was written by, as its bytes say; 0 for holes.
pub(super) fn writers(engine: &LocalEngine, state: &State, pages: u64) -> Vec<u64> {
    let segments = state.page_map(ARRAY).lookup(PageRange::at(0, pages)).unwrap();
    segments.iter().flat_map(|segment| segment_writers(engine, segment)).collect()
}

fn segment_writers(engine: &LocalEngine, segment: &Segment) -> Vec<u64> {
    let count = usize::try_from(segment.pages.count()).unwrap();
    let Source::Extent { extent, skip } = &segment.source else { return vec![0; count] };
    let mut bytes = vec![0; count * PAGE_LEN];
    let wanted = *skip..*skip + u32::try_from(count).unwrap();
    read_checked(engine, extent, wanted, &mut bytes).unwrap();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    for (page, bytes) in (segment.pages.start..segment.pages.end).zip(bytes.chunks(PAGE_LEN)) {
        assert_eq!(number(&bytes[4088..]), page, "bytes of another page");
    }
    bytes.chunks(PAGE_LEN).map(|bytes| number(&bytes[..8])).collect()
}

fn new_store() -> (tempfile::TempDir, Arc<dyn Backend>) {
    let temporary = tempfile::tempdir().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(Directory::new(&temporary.path().join("s.zba")));
    LocalEngine::create(&backend, &small()).unwrap();
    (temporary, backend)
}

fn open(backend: &Arc<dyn Backend>) -> (LocalEngine, State) {
    LocalEngine::open(backend, Mode::ReadWrite, &small()).unwrap()
}

pub(super) fn healthy(engine: &LocalEngine) {
    let report = engine.check(true, &mut |_, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(report.held_bytes, 0);
}

#[test]
fn commits_are_there_after_reopening_inline_and_in_extents() {
    let (_temporary, backend) = new_store();
    let (engine, mut head) = open(&backend);
    for tid in 1..=40u64 {
        head = commit(&engine, &head, tid % 7 * 3, 1 + tid % 5, tid % 3 != 0).unwrap();
    }
    let expected = writers(&engine, &head, 40);
    healthy(&engine);
    drop(engine);
    let (engine, reopened) = open(&backend);
    assert_eq!(reopened.tid, Tid(40));
    assert_eq!(writers(&engine, &reopened, 40), expected);
    assert_eq!(reopened.space, head.space);
    let records = engine.records(Tid(0), Tid(40)).unwrap();
    assert!(records.iter().zip(1..).all(|(record, tid)| record.tid == Tid(tid)));
    assert!(backend.list("log").unwrap().len() > 1, "the log was rolled");
    healthy(&engine);
}

#[test]
fn a_checkpoint_says_what_the_log_says_and_makes_opening_short() {
    let (_temporary, backend) = new_store();
    let (engine, mut head) = open(&backend);
    for tid in 1..=60u64 {
        head = commit(&engine, &head, tid * 5 % 90, 1 + tid % 6, tid % 2 == 0).unwrap();
        if engine.wants_checkpoint() {
            head = engine.checkpoint(&head).unwrap();
        }
    }
    assert_eq!(backend.list("checkpoint").unwrap().len(), 2, "two are kept");
    let expected = writers(&engine, &head, 100);
    healthy(&engine);
    let states: Vec<_> = [10, 30, 59].map(|tid| engine.load(Tid(tid)).unwrap()).into();
    let old: Vec<_> = states.iter().map(|state| writers(&engine, state, 100)).collect();
    drop(engine);
    let (engine, reopened) = open(&backend);
    assert_eq!(writers(&engine, &reopened, 100), expected);
    for (state, old) in states.iter().zip(&old) {
        let state = engine.load(state.tid).unwrap();
        assert_eq!(&writers(&engine, &state, 100), old);
    }
    for name in backend.list("checkpoint").unwrap() {
        backend.remove(&format!("checkpoint/{name}")).unwrap();
    }
    drop(engine);
    let (engine, without) = open(&backend);
    assert_eq!(writers(&engine, &without, 100), expected);
    assert_eq!(without.catalog, reopened.catalog);
}

#[test]
fn pack_forgets_history_frees_its_space_and_keeps_what_is_pinned() {
    let (_temporary, backend) = new_store();
    let (engine, mut head) = open(&backend);
    let mut states = vec![Arc::new(head.clone())];
    for tid in 1..=30u64 {
        head = commit(&engine, &head, tid % 4 * 8, 8, tid % 3 == 0).unwrap();
        states.push(Arc::new(head.clone()));
    }
    let expected: Vec<_> = states.iter().map(|state| writers(&engine, state, 40)).collect();
    let pinned = vec![Arc::clone(&states[6]), Arc::clone(&states[30])];
    let packed = engine.pack(Tid(25), &pinned, u64::MAX).unwrap();
    assert_eq!((packed.forgotten, engine.oldest()), (25, Tid(25)));
    assert!(packed.freed_pages > 0);
    healthy(&engine);
    let mut now = packed.head;
    for _ in 0..20 {
        now = commit(&engine, &now, 40, 6, false).unwrap();
    }
    assert_eq!(writers(&engine, &states[6], 40), expected[6], "pinned in limbo");
    assert_eq!(writers(&engine, &states[30], 40), expected[30], "pinned in deleted log files");
    engine.unpin(&[]).unwrap();
    assert!(matches!(engine.load(Tid(24)), Err(StorageError::Forgotten { .. })));
    for (tid, expected) in (0..).zip(&expected).skip(25).take(6) {
        let state = engine.load(Tid(tid)).unwrap();
        assert_eq!(writers(&engine, &state, 40), *expected);
    }
    healthy(&engine);
    drop(engine);
    let (engine, reopened) = open(&backend);
    assert_eq!(reopened.space, now.space);
    let state = engine.load(Tid(27)).unwrap();
    assert_eq!(writers(&engine, &state, 40), expected[27]);
    healthy(&engine);
}

#[test]
fn a_record_that_names_data_of_another_record_keeps_it_through_a_pack() {
    let (_temporary, backend) = new_store();
    let (engine, head) = open(&backend);
    let first = commit(&engine, &head, 0, 4, true).unwrap();
    let named = first.page_map(ARRAY).lookup(PageRange::at(1, 2)).unwrap();
    let middle = commit(&engine, &first, 0, 4, true).unwrap();
    let copy = |head: &State, start: u64| {
        let source = DraftSource::Stored(named[0].source.clone());
        let change =
            DraftChange { array: ARRAY, pages: PageRange::at(start, 2), source, carried: false };
        engine.append(&draft(head, vec![change]))
    };
    let last = middle.apply(&copy(&middle, 10).unwrap()).unwrap();
    assert_eq!(pages_of(&engine, &last, 10, 2), content(1, 1, 2));
    let pinned = vec![Arc::new(last)];
    let packed = engine.pack(Tid(2), &pinned, u64::MAX).unwrap();
    assert_eq!(pages_of(&engine, &packed.head, 10, 2), content(1, 1, 2));
    assert_eq!(pages_of(&engine, &pinned[0], 10, 2), content(1, 1, 2));
    healthy(&engine);
    // The old place is in a deleted file: nobody may be sent there.
    let error = copy(&packed.head, 20).unwrap_err();
    assert!(matches!(error, StorageError::Packed { .. }), "{error}");
    assert!(!engine.is_poisoned());
    let packed = engine.pack(Tid(3), &[], u64::MAX).unwrap();
    assert_eq!(pages_of(&engine, &packed.head, 10, 2), content(1, 1, 2));
    healthy(&engine);
}

fn pages_of(engine: &LocalEngine, state: &State, start: u64, pages: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in state.page_map(ARRAY).lookup(PageRange::at(start, pages)).unwrap() {
        let Source::Extent { extent, skip } = &segment.source else { panic!("a hole") };
        let count = u32::try_from(segment.pages.count()).unwrap();
        let from = bytes.len();
        bytes.resize(from + count as usize * PAGE_LEN, 0);
        read_checked(engine, extent, *skip..*skip + count, &mut bytes[from..]).unwrap();
    }
    bytes
}

#[test]
fn data_in_limbo_can_be_named_again_and_what_was_given_to_others_cannot() {
    let (_temporary, backend) = new_store();
    let (engine, head) = open(&backend);
    let first = Arc::new(commit(&engine, &head, 0, 4, false).unwrap());
    let named = first.page_map(ARRAY).lookup(PageRange::at(0, 4)).unwrap();
    let mut head = commit(&engine, &first, 0, 4, false).unwrap();
    head = engine.pack(head.tid, &[Arc::clone(&first)], u64::MAX).unwrap().head;
    let copy = |head: &State| {
        let source = DraftSource::Stored(named[0].source.clone());
        let change =
            DraftChange { array: ARRAY, pages: PageRange::at(30, 4), source, carried: false };
        engine.append(&draft(head, vec![change]))
    };
    head = head.apply(&copy(&head).unwrap()).unwrap();
    engine.unpin(&[]).unwrap();
    for _ in 0..4 {
        head = commit(&engine, &head, 0, 4, false).unwrap();
    }
    assert_eq!(pages_of(&engine, &head, 30, 4), content(1, 0, 4), "no longer in limbo but in use");
    healthy(&engine);
    // Forgotten with its commit, and free.
    head = commit(&engine, &head, 30, 4, false).unwrap();
    head = engine.pack(head.tid, &[], u64::MAX).unwrap().head;
    assert!(matches!(copy(&head), Err(StorageError::Packed { .. })));
}

#[test]
fn space_of_an_aborted_transaction_is_used_again_and_packing_gives_space_back() {
    let (_temporary, backend) = new_store();
    let (engine, mut head) = open(&backend);
    let wish = Allocation { pages: 16, align_pages: 1, phase_pages: 0, near: None };
    let place = engine.allocate(&wish).unwrap();
    engine.write(place, &content(9, 0, 16)).unwrap();
    engine.free(place, 16);
    assert_eq!(engine.allocate(&wish).unwrap(), place);
    engine.free(place, 16);
    for _ in 0..10 {
        head = commit(&engine, &head, 0, 32, false).unwrap();
    }
    let before = engine.usage().unwrap();
    assert_eq!(before.data_used_bytes, 320 * PAGE_BYTES);
    let packed = engine.pack(head.tid, &[], u64::MAX).unwrap();
    assert_eq!((packed.freed_pages, packed.forgotten), (288, 10));
    let after = engine.usage().unwrap();
    assert_eq!(after.data_used_bytes, 32 * PAGE_BYTES);
    assert!(
        after.data_bytes < before.data_bytes / 2,
        "{} of {}",
        after.data_bytes,
        before.data_bytes
    );
}

#[test]
#[should_panic(expected = "committed")]
fn committed_pages_cannot_be_written() {
    let (_temporary, backend) = new_store();
    let (engine, head) = open(&backend);
    let head = commit(&engine, &head, 0, 1, false).unwrap();
    let (place, _) = head.space.iter().next().unwrap();
    let _ = engine.write(place, &content(9, 0, 1));
}

#[test]
fn a_store_is_created_only_where_nothing_is_and_over_an_unfinished_creation() {
    let (temporary, backend) = new_store();
    let create = || LocalEngine::create(&backend, &small());
    assert!(matches!(create(), Err(StorageError::AlreadyExists { .. })));
    let root = temporary.path().join("s.zba");
    std::fs::remove_file(root.join("format.json")).unwrap();
    create().unwrap();
    let (engine, head) = open(&backend);
    commit(&engine, &head, 0, 1, true).unwrap();
    drop(engine);
    std::fs::remove_file(root.join("format.json")).unwrap();
    assert!(matches!(create(), Err(StorageError::AlreadyExists { .. })), "it has a commit");
    let opened = LocalEngine::open(&backend, Mode::ReadOnly, &small());
    assert!(matches!(opened, Err(StorageError::NotAStore { .. })));
    let odd = LocalOptions { block_bytes: 100_000, ..small() };
    assert!(matches!(LocalEngine::create(&backend, &odd), Err(StorageError::BlockSize { .. })));
}
