//! What the sled engine does when sled, or somebody, did not do what it should.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::anchor::Anchor;
use super::trees::{Name, Trees, VALUE_BYTES_MAX, key_of, part_key};
use super::*;
use crate::storage::catalog::CatalogChange;

const BLOCK: u64 = 1 << 16;

fn created() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    SledEngine::create(directory.path(), BLOCK).unwrap();
    directory
}

fn open(directory: &TempDir) -> Result<(SledEngine, State), StorageError> {
    SledEngine::open(directory.path(), Mode::ReadWrite)
}

fn draft(tid: u64) -> Draft<'static> {
    let name = Arc::from(format!("g{tid}"));
    Draft {
        tid: Tid(tid),
        base: Tid(tid - 1),
        time_ns: i64::try_from(tid).unwrap(),
        note: Arc::from("n".repeat(usize::try_from(tid).unwrap() * 20_000)),
        catalog: vec![CatalogChange::CreateGroup { name }],
        data: Vec::new(),
    }
}

/// A store of so many commits, of which later ones take several values.
fn with_commits(count: u64) -> TempDir {
    let directory = created();
    let (engine, _) = open(&directory).unwrap();
    for tid in 1..=count {
        engine.append(&draft(tid)).unwrap();
        engine.settle(Tid(tid)).unwrap();
    }
    directory
}

/// Works on the trees of a store that nobody has open, past the engine.
fn beneath(directory: &TempDir, work: impl FnOnce(&Trees)) {
    let (files, root) = files_in(directory.path());
    let trees = Trees::open(&files, &root).unwrap();
    work(&trees);
    trees.sync().unwrap();
}

/// The same on sled itself.
fn raw(directory: &TempDir, tree: &str, work: impl FnOnce(&::sled::Tree)) {
    let config = ::sled::Config::new().path(directory.path().join(trees::DIRECTORY));
    let db = config.segment_size(trees::SEGMENT_BYTES).flush_every_ms(None).open().unwrap();
    work(&db.open_tree(tree).unwrap());
    db.flush().unwrap();
}

fn refusal(directory: &TempDir) -> String {
    open(directory).map(drop).unwrap_err().to_string()
}

#[test]
fn what_was_committed_is_there_and_more_goes_on_after_it() {
    let directory = with_commits(8);
    let (engine, state) = open(&directory).unwrap();
    assert_eq!((state.tid, state.catalog.names().count()), (Tid(8), 8));
    let records = engine.records(Tid(0), Tid(8)).unwrap();
    assert_eq!(records[7].note.len(), 160_000);
    engine.append(&draft(9)).unwrap();
    engine.settle(Tid(9)).unwrap();
    let report = engine.check(true, &mut |_, _| {}).unwrap();
    assert_eq!((report.records, report.damage), (9, Vec::new()));
}

#[test]
fn a_record_that_sled_forgot_is_missed() {
    let directory = with_commits(4);
    beneath(&directory, |trees| trees.remove_long(Name::Log, 4).unwrap());
    assert!(refusal(&directory).contains("commits 4 to 4 were acknowledged and are missing"));
}

#[test]
fn an_empty_sled_in_the_place_of_a_full_one_is_noticed() {
    let directory = with_commits(2);
    std::fs::remove_dir_all(directory.path().join(trees::DIRECTORY)).unwrap();
    assert!(refusal(&directory).contains("commits 1 to 2"));
}

#[test]
fn another_record_with_a_right_checksum_is_not_taken_for_the_acknowledged_one() {
    let (directory, other) = (with_commits(3), with_commits(3));
    let mut foreign = Vec::new();
    beneath(&other, |trees| foreign = trees.get_long(Name::Log, 3).unwrap().unwrap());
    beneath(&directory, |trees| {
        trees.remove_long(Name::Log, 3).unwrap();
        trees.put_long(Name::Log, 3, &foreign).unwrap();
    });
    // It follows another store's record, with another beginning of the chain.
    assert!(refusal(&directory).contains("does not follow"));
}

#[test]
fn a_value_that_was_changed_in_sled_is_an_error() {
    let directory = with_commits(3);
    raw(&directory, "log", |tree| {
        let key = part_key(2, 0);
        let mut value = tree.get(key).unwrap().unwrap().to_vec();
        let last = value.len() - 1;
        value[last] ^= 1;
        tree.insert(key, value).unwrap();
    });
    assert!(refusal(&directory).contains("does not match its checksum"));
}

#[test]
fn a_value_under_another_key_is_an_error() {
    let directory = with_commits(3);
    raw(&directory, "log", |tree| {
        let value = tree.get(part_key(1, 0)).unwrap().unwrap();
        tree.insert(part_key(2, 0), value).unwrap();
    });
    assert!(refusal(&directory).contains("does not match its checksum"));
}

#[test]
fn a_record_without_its_last_part_was_never_acknowledged_and_goes() {
    let directory = with_commits(2);
    beneath(&directory, |trees| {
        trees.put(Name::Log, &part_key(3, 1), b"of a process that died").unwrap();
        trees.put(Name::Log, &part_key(3, 2), b"before it put part 0").unwrap();
    });
    let (engine, state) = open(&directory).unwrap();
    assert_eq!(state.tid, Tid(2));
    engine.append(&draft(3)).unwrap();
    engine.settle(Tid(3)).unwrap();
    drop(engine);
    assert_eq!(open(&directory).unwrap().1.tid, Tid(3));
}

#[test]
fn a_commit_that_the_anchor_does_not_name_yet_counts_and_is_named() {
    let directory = with_commits(2);
    let (engine, _) = open(&directory).unwrap();
    engine.append(&draft(3)).unwrap();
    engine.trees.sync().unwrap();
    drop(engine);
    let (engine, state) = open(&directory).unwrap();
    assert_eq!((state.tid, engine.anchor.acknowledged().tid), (Tid(3), Tid(3)));
}

#[test]
fn a_torn_slot_of_the_anchor_leaves_the_one_before() {
    let directory = with_commits(5);
    for slot in [512, 1024] {
        let path = directory.path().join(anchor::PATH);
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn[slot..slot + 20].fill(0xAA);
        std::fs::write(&path, torn).unwrap();
        assert_eq!(open(&directory).unwrap().1.tid, Tid(5), "slot at {slot}");
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_the_anchor_is_noticed_or_leaves_the_other_slot() {
    let directory = with_commits(1);
    let path = directory.path().join(anchor::PATH);
    let whole = std::fs::read(&path).unwrap();
    let (files, _) = files_in(directory.path());
    for bit in (0..whole.len() * 8).step_by(3) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes).unwrap();
        match Anchor::open(&files) {
            Ok(anchor) => {
                assert!(bit / 8 >= 512, "bit {bit} of the identity");
                assert!(anchor.acknowledged().tid <= Tid(1));
            }
            Err(error) => assert!(error.to_string().contains("does not match"), "{error}"),
        }
    }
}

#[test]
fn history_that_comes_back_after_a_pack_is_noticed() {
    let directory = with_commits(4);
    let before = tempfile::tempdir().unwrap();
    copy(directory.path(), before.path());
    let (engine, _) = open(&directory).unwrap();
    assert_eq!(engine.pack(Tid(3), &[], 0).unwrap().forgotten, 3);
    drop(engine);
    assert_eq!(open(&directory).unwrap().0.oldest(), Tid(3));
    let anchor = std::fs::read(directory.path().join(anchor::PATH)).unwrap();
    std::fs::write(before.path().join(anchor::PATH), anchor).unwrap();
    assert!(refusal(&before).contains("was packed away and is back"));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.metadata().unwrap().is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            }
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let directory = with_commits(4);
    let (engine, state) = open(&directory).unwrap();
    engine.checkpoint(&state).unwrap();
    drop(engine);
    raw(&directory, "states", |tree| {
        assert!(tree.insert(part_key(4, 0), b"nonsense").unwrap().is_some());
    });
    let (engine, state) = open(&directory).unwrap();
    assert_eq!((state.tid, state.catalog.names().count()), (Tid(4), 4));
    assert_eq!(engine.check(false, &mut |_, _| {}).unwrap().damage.len(), 1);
}

#[test]
fn a_snapshot_that_sled_was_writing_when_it_died_is_not_read() {
    let directory = with_commits(3);
    let unfinished = directory.path().join(trees::DIRECTORY).join("snap.0FFFFFFF.generating");
    std::fs::write(&unfinished, b"").unwrap();
    assert_eq!(open(&directory).unwrap().1.tid, Tid(3));
    assert!(!unfinished.exists());
}

#[test]
fn who_opens_a_store_that_is_open_is_told_that_there_can_be_one() {
    let directory = with_commits(1);
    let open_already = open(&directory).unwrap();
    let refused = refusal(&directory);
    assert!(refused.contains("one process at a time"), "{refused}");
    drop(open_already);
    open(&directory).unwrap();
}

#[test]
fn an_unfinished_creation_is_begun_again_and_other_directories_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    SledEngine::create(directory.path(), BLOCK).unwrap();
    std::fs::remove_file(directory.path().join(anchor::PATH)).unwrap();
    assert!(refusal(&directory).contains("is not a zbigarray store"));
    SledEngine::create(directory.path(), BLOCK).unwrap();
    assert_eq!(open(&directory).unwrap().1.tid, Tid::ZERO);
    let again = SledEngine::create(directory.path(), BLOCK);
    assert!(matches!(again, Err(StorageError::AlreadyExists { .. })));
    assert!(matches!(
        SledEngine::create(directory.path(), 1000),
        Err(StorageError::BlockSize { bytes: 1000 })
    ));
}

#[test]
fn bytes_are_read_as_they_were_written_wherever_values_begin() {
    let directory = created();
    let (engine, _) = open(&directory).unwrap();
    let wish = Allocation { pages: 64, align_pages: 32, phase_pages: 5, near: None };
    let place = engine.allocate(&wish).unwrap();
    assert_eq!(place.page % 32, 5);
    let mut model = vec![0_u8; 64 << 12];
    // Over each other, across values, and back.
    for (round, (at, pages)) in [(0, 64), (10, 20), (3, 9), (15, 2), (31, 33)].iter().enumerate() {
        let bytes = vec![u8::try_from(round).unwrap() + 1; pages << 12];
        engine.write(place.after(*at as u64), &bytes).unwrap();
        model[at << 12..(at + pages) << 12].copy_from_slice(&bytes);
    }
    for (at, len) in [(0, 64 << 12), (4095, 2), (VALUE_BYTES_MAX - 1, 3 * VALUE_BYTES_MAX)] {
        let mut found = vec![0; len];
        engine.read(place, at as u64, &mut found).unwrap();
        assert!(found == model[at..at + len], "{len} bytes at {at}");
    }
    engine.free(place, 64);
    let missing = engine.read(place, 0, &mut [0]).unwrap_err().to_string();
    assert!(missing.contains("missing"), "{missing}");
    let next = engine.allocate(&wish).unwrap();
    assert!(next.page >= place.page + 64, "page numbers never come again");
    drop(engine);
    let (engine, _) = open(&directory).unwrap();
    assert!(engine.allocate(&wish).unwrap().page > next.page);
}

#[test]
fn a_record_may_name_only_what_is_there() {
    let directory = created();
    let (engine, _) = open(&directory).unwrap();
    let place = Place { file: 0, page: 77 };
    let extent = Extent::new(place, 1, 1, Box::new([0])).unwrap();
    let change = DraftChange {
        array: crate::units::ArrayId(1),
        pages: crate::units::PageRange::new(0, 1),
        source: DraftSource::Stored(Source::whole(extent)),
        carried: false,
    };
    let refused = engine.append(&Draft { data: vec![change], ..draft(1) });
    assert!(matches!(refused, Err(StorageError::Packed { .. })));
    engine.append(&draft(1)).unwrap();
}

#[test]
fn a_failed_sync_leaves_a_handle_that_only_reads() {
    let directory = with_commits(1);
    let (engine, _) = open(&directory).unwrap();
    engine.append(&draft(2)).unwrap();
    engine.files.latch().shut();
    let unknown = engine.settle(Tid(2));
    assert!(matches!(unknown, Err(StorageError::Unknown { tid: Tid(2), .. })));
    assert!(engine.is_poisoned());
    assert!(matches!(engine.append(&draft(3)), Err(StorageError::Poisoned)));
    assert_eq!(engine.records(Tid(0), Tid(1)).unwrap().len(), 1);
}

#[test]
fn keys_of_numbers_lie_in_the_order_of_the_numbers() {
    let numbers = [0, 1, 255, 256, 1 << 32, u64::MAX];
    assert!(numbers.windows(2).all(|pair| key_of(pair[0]) < key_of(pair[1])));
    assert!(part_key(1, u32::MAX) < part_key(2, 0));
}
