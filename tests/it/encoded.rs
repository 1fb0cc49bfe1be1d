//! Arrays whose blocks are encoded, against lists of numbers and the files themselves.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ndarray::{Array1, Ix1};
use tempfile::TempDir;
use zbigarray::txn::{Segment, Source};
use zbigarray::{ArrayError, ArrayOptions, Codec, CommitError, Conflict, CreateOptions, DynArray};
use zbigarray::{OpenOptions, Store, TransactionError};

const BLOCK: u64 = 64 << 10;
/// Numbers in a block.
const IN_BLOCK: u64 = BLOCK / 8;

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    (dir, store)
}

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

/// Numbers that any codec makes shorter.
fn number(at: u64) -> u64 {
    1_000_000 + at * 3 + at % 7
}

/// An array `a` of whole blocks of such numbers.
fn created(store: &Store, codec: Codec, blocks: u64) {
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().block_bytes(BLOCK).codec(codec);
    let shape = [blocks * IN_BLOCK];
    let mut array = transaction.create_with::<u64, Ix1>("a", &shape, &options).unwrap();
    array.assign("...", &Array1::from_iter((0..blocks * IN_BLOCK).map(number))).unwrap();
    drop(array);
    transaction.commit().unwrap();
}

fn segments(store: &Store) -> Vec<Segment> {
    let reader = store.begin_read().unwrap();
    let array = DynArray::open(&reader, "a").unwrap();
    let all = array.segments().unwrap();
    all.into_iter().filter(|segment| segment.source != Source::Hole).collect()
}

fn is_encoded(segment: &Segment) -> bool {
    segment.source.extent().is_some_and(|extent| extent.is_encoded())
}

fn values(store: &Store) -> Vec<u64> {
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("a").unwrap();
    array.view().unwrap().to_vec()
}

#[test]
fn blocks_of_every_codec_lie_in_one_array_and_read_as_written() {
    let (dir, store) = fresh();
    let codecs = ["none", "lz4", "zstd:1", "zstd:9+shuffle", "lz4+delta", "none", "zstd+delta"];
    created(&store, codec("lz4+shuffle"), 2);
    let mut expected: Vec<u64> = (0..2 * IN_BLOCK).map(number).collect();
    for (step, text) in (1u64..).zip(codecs) {
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u64, Ix1>("a").unwrap();
        array.dynamic_mut().set_codec(codec(text)).unwrap();
        let more: Vec<u64> = (0..2 * IN_BLOCK + 100).map(|at| number(at * step)).collect();
        array.append(&Array1::from_vec(more.clone())).unwrap();
        expected.extend(more);
        let at = expected.len() / 3;
        array.view_mut().unwrap()[at] = step;
        expected[at] = step;
        drop(array);
        transaction.commit().unwrap();
        assert!(values(&store) == expected, "after {text}");
    }
    let kinds: Vec<bool> = segments(&store).iter().map(is_encoded).collect();
    assert!(kinds.contains(&true) && kinds.contains(&false));
    drop(store);
    let store = Store::open(dir.path().join("s"), OpenOptions::default()).unwrap();
    assert!(values(&store) == expected);
    store.checkpoint().unwrap();
    store.pack(zbigarray::Keep::Head).unwrap();
    drop(store);
    let store = Store::open(dir.path().join("s"), OpenOptions::read_only()).unwrap();
    assert!(values(&store) == expected);
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn growth_by_little_is_encoded_once_there_is_a_whole_block() {
    let (_dir, store) = fresh();
    created(&store, codec("lz4+shuffle"), 0);
    let mut written = 0;
    while written < 3 * IN_BLOCK {
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u64, Ix1>("a").unwrap();
        let more = Array1::from_iter((written..written + 500).map(number));
        array.append(&more).unwrap();
        drop(array);
        transaction.commit().unwrap();
        written += 500;
    }
    assert!(values(&store) == (0..written).map(number).collect::<Vec<_>>());
    let pages = BLOCK / 4096;
    let encoded: Vec<(u64, u64)> = segments(&store)
        .iter()
        .filter(|segment| is_encoded(segment))
        .map(|segment| (segment.pages.start, segment.pages.count()))
        .collect();
    assert_eq!(encoded, [(0, pages), (pages, pages), (2 * pages, pages)]);
}

#[test]
fn a_small_change_of_an_encoded_block_writes_its_page_and_many_encode_it_anew() {
    let (_dir, store) = fresh();
    created(&store, codec("zstd+shuffle"), 4);
    let mut expected: Vec<u64> = (0..4 * IN_BLOCK).map(number).collect();
    let set = |at: u64, value: u64| {
        let transaction = store.begin().unwrap();
        transaction.open::<u64, Ix1>("a").unwrap().view_mut().unwrap()[at as usize] = value;
        transaction.commit().unwrap()
    };
    let tid = set(IN_BLOCK + 5, 7);
    expected[(IN_BLOCK + 5) as usize] = 7;
    let record = store.records(zbigarray::Tid(tid.0 - 1), tid).unwrap().remove(0);
    assert_eq!(record.data.iter().map(|change| change.segment.pages.count()).sum::<u64>(), 1);
    assert!(values(&store) == expected);
    for page in 0..9 {
        let at = IN_BLOCK + page * 512;
        set(at, page);
        expected[at as usize] = page;
        assert!(values(&store) == expected);
    }
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u64, Ix1>("a").unwrap();
    let mut view = array.view_mut().unwrap();
    for at in (IN_BLOCK..2 * IN_BLOCK).step_by(512) {
        view[at as usize] = at;
        expected[at as usize] = at;
    }
    drop(array);
    transaction.commit().unwrap();
    assert!(segments(&store).iter().all(is_encoded), "the block was folded and encoded");
    assert!(values(&store) == expected);
}

#[test]
fn what_does_not_become_shorter_is_stored_as_it_is() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().block_bytes(BLOCK).codec(codec("zstd:3"));
    let mut array = transaction.create_with::<u64, Ix1>("a", &[IN_BLOCK * 2], &options).unwrap();
    let mut state = 1u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 33)
    };
    let random = Array1::from_iter((0..IN_BLOCK * 2).map(|_| random()));
    array.assign("...", &random).unwrap();
    drop(array);
    transaction.commit().unwrap();
    assert!(segments(&store).iter().all(|segment| !is_encoded(segment)));
    assert!(values(&store) == random.to_vec());
}

#[test]
fn encoding_what_is_stored_changes_no_number_and_conflicts_with_nobody() {
    let (_dir, store) = fresh();
    created(&store, Codec::default(), 5);
    let encode = |text: &str| {
        let transaction = store.begin().unwrap();
        let mut array = DynArray::open(&transaction, "a").unwrap();
        array.set_codec(codec(text)).unwrap();
        array.encode_stored(&mut |_, _| true).unwrap();
        drop(array);
        transaction
    };
    let other = store.begin().unwrap();
    let encoding = encode("zstd:5+delta");
    other.open::<u64, Ix1>("a").unwrap().view_mut().unwrap()[9] = 1;
    other.commit().unwrap();
    encoding.commit().unwrap();
    let mut expected: Vec<u64> = (0..5 * IN_BLOCK).map(number).collect();
    expected[9] = 1;
    assert!(values(&store) == expected);
    assert!(segments(&store).iter().filter(|segment| is_encoded(segment)).count() >= 4);
    encode("none").commit().unwrap();
    assert!(segments(&store).iter().all(|segment| !is_encoded(segment)));
    assert!(values(&store) == expected);
}

#[test]
fn of_two_that_change_the_codec_the_first_commits_and_it_can_be_undone() {
    let (_dir, store) = fresh();
    created(&store, Codec::default(), 1);
    let change = |text: &str| {
        let transaction = store.begin().unwrap();
        DynArray::open(&transaction, "a").unwrap().set_codec(codec(text)).unwrap();
        transaction
    };
    let codec_now = || {
        let reader = store.begin_read().unwrap();
        DynArray::open(&reader, "a").unwrap().codec().to_string()
    };
    let (first, second) = (change("lz4"), change("zstd"));
    let tid = first.commit().unwrap();
    let refused = second.commit().unwrap_err();
    let CommitError::Conflict(Conflict::Key { key, by }) = refused else { panic!("{refused:?}") };
    assert_eq!((key.as_str(), by), ("codec of `a`", tid));
    assert_eq!(codec_now(), "lz4");
    store.undo(tid).unwrap();
    assert_eq!(codec_now(), "none");
}

/// Flips a byte of the stored form of block 1 of `a`.
fn damage_block_1(dir: &TempDir, store: &Store) {
    let extent = segments(store)[1].source.extent().cloned().unwrap();
    assert!(extent.is_encoded());
    let path = dir.path().join(format!("s/data/{:010}.dat", extent.place().file));
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = extent.place().page * 4096 + 100;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_damaged_encoded_block_is_an_error_that_names_it_and_others_are_read() {
    let (dir, store) = fresh();
    created(&store, codec("zstd+shuffle"), 40);
    damage_block_1(&dir, &store);
    drop(store);
    let store = Store::open(dir.path().join("s"), OpenOptions::read_only()).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("a").unwrap();
    let is_named = |refused: ArrayError| {
        let ArrayError::Transaction(TransactionError::Data { array, block, source, .. }) = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(array, "a");
        assert!(source.to_string().contains("as of commit") || block == 1, "{source}");
    };
    let whole = array.dynamic().select(&[]).unwrap();
    is_named(array.dynamic().ensure(&whole).unwrap_err());
    is_named(array.dynamic().verify(&whole).unwrap_err());
    // Behind the first 2 MiB, which are loaded as one.
    assert_eq!(array.view().unwrap()[270_000], number(270_000));
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
}

#[test]
fn a_commit_does_not_carry_damage_of_an_encoded_block_along() {
    let (dir, store) = fresh();
    created(&store, codec("lz4+shuffle"), 40);
    damage_block_1(&dir, &store);
    drop(store);
    let store = Store::open(dir.path().join("s"), OpenOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = DynArray::open(&transaction, "a").unwrap();
    let refused = array.encode_stored(&mut |_, _| true).unwrap_err();
    assert!(refused.to_string().contains("array `a` is damaged"), "{refused}");
    drop(array);
    drop(transaction);
    // Who overwrites the block need not read it.
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u64, Ix1>("a").unwrap();
    let block = format!("{IN_BLOCK}:{}", 2 * IN_BLOCK);
    array.assign(block.as_str(), &Array1::from_iter((IN_BLOCK..2 * IN_BLOCK).map(number))).unwrap();
    drop(array);
    transaction.commit().unwrap();
    assert!(values(&store) == (0..40 * IN_BLOCK).map(number).collect::<Vec<_>>());
}

#[test]
fn an_array_of_many_times_the_cache_is_read_whole_and_at_random() {
    let (dir, store) = fresh();
    created(&store, codec("lz4+shuffle"), 400);
    drop(store);
    let mut options = OpenOptions::read_only();
    options.cache_bytes_max = 4 << 20;
    let store = Store::open(dir.path().join("s"), options).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    for _ in 0..2 {
        assert!(view.iter().zip(0u64..).all(|(&seen, at)| seen == number(at)));
    }
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let view = &view;
            scope.spawn(move || {
                let mut at = seed;
                for _ in 0..60 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let index = (at >> 20) % (400 * IN_BLOCK);
                    assert_eq!(view[index as usize], number(index));
                }
            });
        }
    });
}
