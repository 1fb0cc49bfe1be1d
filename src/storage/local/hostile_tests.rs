//! Bytes with right checksums that no program of ours writes, and files that were cut or removed.

use super::codec::{self, RecordHead};
use super::extents::data_path;
use super::segment_file::{ArrayTable, SegmentFile, StoredSegment, sealed_pages};
use super::tests::{ARRAY, commit, healthy, small};
use super::*;
use crate::storage::backend::simulated::Simulated;
use crate::storage::extent::{Extent, Segment, Source};
use crate::storage::index::SegmentTable;
use crate::storage::record::DraftChange;
use crate::storage::state::Space;
use crate::units::{ArrayId, PAGE_LEN, PageRange};

fn new_store() -> (Simulated, Arc<dyn Backend>) {
    let disk = Simulated::new().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    LocalEngine::create(&backend, &small()).unwrap();
    (disk, backend)
}

fn open(backend: &Arc<dyn Backend>) -> (LocalEngine, State) {
    LocalEngine::open(backend, Mode::ReadWrite, &small()).unwrap()
}

fn page_extent(file: u32, page: u64) -> Extent {
    Extent::new(Place { file, page }, 1, 1, Box::from([7])).unwrap()
}

#[test]
fn a_data_file_that_was_cut_or_removed_is_named_and_not_made_anew() {
    let (disk, backend) = new_store();
    let (engine, head) = open(&backend);
    let head = commit(&engine, &head, 0, 8, false).unwrap();
    drop(engine);
    let path = data_path(0);
    disk.open(&path, Access::Write).unwrap().set_len(3 * PAGE_BYTES + 17).unwrap();
    let (engine, _) = open(&backend);
    let error = commit(&engine, &head, 0, 8, false).err().unwrap().to_string();
    assert!(error.contains(&path) && error.contains("the file ends before byte 32768"), "{error}");
    assert_eq!(disk.open(&path, Access::Read).unwrap().len().unwrap(), 3 * PAGE_BYTES + 17);
    let report = engine.check(false, &mut |_, _| {}).unwrap();
    assert!(report.damage[0].what.contains("the file ends before byte"), "{:?}", report.damage);
    drop(engine);
    disk.remove(&path).unwrap();
    let (engine, _) = open(&backend);
    let error = commit(&engine, &head, 0, 8, false).err().unwrap().to_string();
    assert!(error.contains(&path), "{error}");
    assert!(disk.open(&path, Access::Read).is_err(), "it was not created");
    let head = commit(&engine, &head, 0, 1, true).unwrap();
    assert_eq!(head.tid, Tid(2), "what lies inside a record needs no data file");
}

#[test]
fn a_newest_log_file_that_was_removed_is_missed_by_the_checkpoint_that_stands_in_it() {
    let (disk, backend) = new_store();
    let (engine, mut head) = open(&backend);
    while engine.log.tail().position.file == 0 {
        head = commit(&engine, &head, 0, 3, true).unwrap();
    }
    engine.checkpoint(&head).unwrap();
    drop(engine);
    disk.remove(&log_path(1)).unwrap();
    let error = LocalEngine::open(&backend, Mode::ReadWrite, &small()).err().unwrap().to_string();
    assert!(error.contains("log/0000000001.log") && error.contains("missing"), "{error}");
}

#[test]
fn a_whole_state_whose_space_leaves_out_an_extent_is_refused() {
    let (_disk, backend) = new_store();
    let (engine, head) = open(&backend);
    let mut state = commit(&engine, &head, 0, 8, false).unwrap();
    let body = codec::encode_state(&state).unwrap();
    codec::decode_state(state.tid, 0, &body).unwrap();
    state.space = Space::default();
    let body = codec::encode_state(&state).unwrap();
    let refused = codec::decode_state(state.tid, 0, &body).err().unwrap();
    assert!(refused.0.contains("outside of the space in use"), "{}", refused.0);
}

#[test]
fn pages_that_the_space_of_a_checkpoint_leaves_out_are_not_mapped() {
    let (_disk, backend) = new_store();
    let (engine, head) = open(&backend);
    let mut state = commit(&engine, &head, 0, 8, false).unwrap();
    state.space = Space::default();
    engine.checkpoint(&state).unwrap();
    drop(engine);
    let (engine, head) = open(&backend);
    // The log says where the pages lie, but they could be given out and written under a view.
    let segments = head.page_map(ARRAY).stored().unwrap();
    let error = engine.file_of(segments[0].source.place().unwrap(), 8).err().unwrap().to_string();
    assert!(error.contains("the space in use leaves out"), "{error}");
    assert!(!engine.check(false, &mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn a_record_names_only_data_of_the_log_that_were_there_before_it() {
    let decoded = |page: u64| {
        let source = Source::whole(page_extent(IN_LOG | 2, page));
        let pages = PageRange::at(0, 1);
        let source = DraftSource::Stored(source);
        let change = DraftChange { array: ArrayId(1), pages, source, carried: false };
        let draft = Draft {
            tid: Tid(5),
            base: Tid(4),
            time_ns: 0,
            note: Arc::from(""),
            catalog: Vec::new(),
            data: vec![change],
        };
        let inline_at = Place { file: IN_LOG | 2, page: 9 };
        let (tid, base, time_ns) = (draft.tid, draft.base, draft.time_ns);
        let head = RecordHead { tid, base, time_ns, inline_at, inline_sums: &[] };
        codec::decode_record(&head, &codec::encode_draft(&draft).body)
    };
    decoded(8).unwrap();
    assert!(decoded(9).unwrap_err().0.contains("not there yet"));
}

#[test]
fn numbers_that_no_store_reaches_are_refused_before_anybody_adds_to_them() {
    let (_disk, backend) = new_store();
    let (engine, head) = open(&backend);
    let mut state = commit(&engine, &head, 0, 1, true).unwrap();
    state.catalog.raise_next_array(ArrayId(u64::MAX));
    let body = codec::encode_state(&state).unwrap();
    assert!(codec::decode_state(Tid(1), 0, &body).is_err(), "an id has one after it");
    let header =
        LogHeader { file: 0, chain_base: 0, base: Tid(u64::MAX), previous: 0, has_state: true };
    let file = engine.files.create("log/0000000009.log").unwrap();
    file.write_at(&[&header.encode(engine.store())], 0).unwrap();
    assert!(LogHeader::read(&file, engine.store(), 0).is_err(), "a commit has one after it");
    let mut space = Space::default();
    for file in 0..9000 {
        space.insert(Place { file, page: 0 }, 1 << 51);
    }
    assert_eq!(space.pages(), u64::MAX, "it saturates");
}

#[test]
fn an_extent_that_is_listed_twice_is_refused_and_two_commits_that_disagree_are_damage() {
    let (_disk, backend) = new_store();
    let (engine, head) = open(&backend);
    let state = commit(&engine, &head, 0, 4, false).unwrap();
    let stored = state.page_map(ARRAY).stored().unwrap();
    let extent = stored[0].source.extent().unwrap();
    let other = Extent::new(extent.place(), 4, extent.unit_pages(), Box::from([9])).unwrap();
    let pages = PageRange::at(10, 4);
    let source = DraftSource::Stored(Source::whole(other));
    let change = DraftChange { array: ARRAY, pages, source, carried: false };
    let draft = Draft {
        tid: state.tid.next(),
        base: state.tid,
        time_ns: 1,
        note: Arc::from(""),
        catalog: Vec::new(),
        data: vec![change],
    };
    let record = engine.append(&draft).unwrap();
    engine.settle(record.tid).unwrap();
    let report = engine.check(true, &mut |_, _| {}).unwrap();
    assert!(
        report.damage.iter().any(|damage| damage.what.contains("different checksums")),
        "{:?}",
        report.damage
    );
}

#[test]
fn extents_that_share_checksums_in_a_checkpoint_do_not_multiply_them() {
    let (_disk, backend) = new_store();
    let (engine, _) = open(&backend);
    let (store, tid) = (*engine.store(), Tid(3));
    let mut segments = Vec::new();
    let mut space = Space::default();
    for number in 0..1000 {
        let place = Place { file: 0, page: number * 10_000 };
        space.insert(place, 10_000);
        let pages = PageRange::at(number, 1);
        let (extent_pages, units, skip, sums) = (10_000, 1, 0, 0);
        let stored = StoredSegment { pages, place, extent_pages, units, skip, sums };
        stored.encode(&mut segments);
    }
    let segments = sealed_pages(&store, tid, 0, &segments, StoredSegment::BYTES);
    let sums = sealed_pages(&store, tid, 1, &[7; 40_000], 4);
    let file = engine.files.create("tables").unwrap();
    file.write_at(&[&segments, &sums], PAGE_BYTES).unwrap();
    let end = (space, Place { file: IN_LOG, page: 1 });
    let tables = SegmentFile::new(file, (store, tid), (1, 1), end);
    let tables = Arc::new(tables.with_fences(vec![(ARRAY, 0)]).unwrap());
    let table = ArrayTable::new(tables, ARRAY, 0, 1000);
    let mut found: Vec<Segment> = Vec::new();
    table.segments_in(PageRange::at(0, 1), &mut found).unwrap();
    let error = table.segments_in(PageRange::at(0, 1000), &mut found).unwrap_err().to_string();
    assert!(error.contains("extents share checksums"), "{error}");
}

#[test]
fn segments_of_a_checkpoint_that_overlap_or_go_back_are_damage() {
    let (_disk, backend) = new_store();
    let (engine, _) = open(&backend);
    let (store, tid) = (*engine.store(), Tid(3));
    let read = |starts: [u64; 3]| {
        let (mut segments, mut space) = (Vec::new(), Space::default());
        for (number, start) in (0..).zip(starts) {
            let place = Place { file: 0, page: number * 10 };
            space.insert(place, 4);
            let (pages, sums) = (PageRange::at(start, 4), 7);
            let (extent_pages, units, skip) = (4, 4, 0);
            let stored = StoredSegment { pages, place, extent_pages, units, skip, sums };
            stored.encode(&mut segments);
        }
        let path = format!("tables-{}-{}", starts[1], starts[2]);
        let file = engine.files.create(&path).unwrap();
        let segments = sealed_pages(&store, tid, 0, &segments, StoredSegment::BYTES);
        file.write_at(&[&segments], PAGE_BYTES).unwrap();
        let end = (space, Place { file: IN_LOG, page: 1 });
        let tables = SegmentFile::new(file, (store, tid), (1, 0), end);
        let tables = Arc::new(tables.with_fences(vec![(ARRAY, 0)]).unwrap());
        let table = ArrayTable::new(tables, ARRAY, 0, 3);
        let mut found: Vec<Segment> = Vec::new();
        table.segments_in(PageRange::new(0, 100), &mut found).map(|()| found.len())
    };
    assert_eq!(read([0, 4, 8]).unwrap(), 3);
    for wrong in [[0, 3, 8], [0, 4, 7], [0, 4, 4], [4, 8, 0]] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains("segments overlap"), "{wrong:?}: {error}");
    }
}

#[test]
fn a_file_is_not_given_out_for_mapping_beyond_its_end() {
    let (disk, backend) = new_store();
    let (engine, head) = open(&backend);
    let head = commit(&engine, &head, 0, 8, false).unwrap();
    let place = head.page_map(ARRAY).stored().unwrap()[0].source.place().unwrap();
    engine.file_of(place, 8).unwrap();
    let end = (place.page + 8) * PAGE_BYTES;
    disk.open(&data_path(place.file), Access::Write).unwrap().set_len(end - 1).unwrap();
    let error = engine.file_of(place, 8).err().unwrap().to_string();
    assert!(error.contains(&format!("the file ends before byte {end}")), "{error}");
    engine.file_of(place, 7).unwrap();
}

#[test]
fn a_unit_of_a_gigabyte_in_a_short_file_takes_no_gigabyte_of_memory() {
    let (_disk, backend) = new_store();
    let (engine, head) = open(&backend);
    commit(&engine, &head, 0, 1, false).unwrap();
    let huge = Extent::new(Place { file: 0, page: 0 }, 1 << 18, 1 << 18, Box::from([7])).unwrap();
    let error = crate::storage::engine::check_unit(&engine, &huge, 0).unwrap_err().to_string();
    assert!(error.contains("the file ends before byte"), "{error}");
    let mut page = vec![0; PAGE_LEN];
    let read = crate::storage::engine::read_checked(&engine, &huge, 3..4, &mut page);
    assert!(read.is_err());
    healthy(&engine);
}
