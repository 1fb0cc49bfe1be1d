//! Which extents a commit writes, how, and where.

use std::sync::Arc;

use super::*;
use crate::storage::backend::simulated::Simulated;
use crate::storage::backend::{Access, Backend};
use crate::storage::catalog::{ArrayEntry, Attributes, CatalogChange};
use crate::storage::encoding::{Method, decode};
use crate::txn::commit::tests::{committed, create_named, new_store, open, opened};
use crate::txn::{Store, Transaction};
use crate::units::{ArrayId, Tid};

/// Pages of a block.
const BLOCK: u64 = 16;
const BLOCK_LEN: usize = 16 * PAGE_LEN;
const LZ4: &str = "lz4";

/// Creates array `a` in blocks of 16 pages.
fn create(transaction: &Transaction, pages: u64, codec: &str) -> ArrayId {
    let id = transaction.next_array().unwrap();
    let entry = ArrayEntry {
        id,
        shape: Arc::from([pages * PAGE_BYTES]),
        block_bytes: BLOCK * PAGE_BYTES,
        codec: codec.parse().unwrap(),
        descriptor: Arc::from("{}"),
        attributes: Attributes::new(),
        created: Tid::ZERO,
        changed: Tid::ZERO,
    };
    let name = Arc::from("a");
    transaction.change_any(CatalogChange::CreateArray { name, entry }).unwrap();
    open(transaction, id, pages);
    id
}

/// Bytes that no codec makes shorter.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[5]
    };
    (0..len).map(|_| next()).collect()
}

/// Commits `content` as an array and returns what its record names.
fn segments_of(store: &Store, content: &[u8], codec: &str) -> Vec<Segment> {
    let transaction = store.begin().unwrap();
    let id = create(&transaction, content.len() as u64 / PAGE_BYTES, codec);
    transaction.write(id, 0, content).unwrap();
    named_by(store, transaction.commit().unwrap())
}

fn named_by(store: &Store, tid: Tid) -> Vec<Segment> {
    let record = store.records(Tid(tid.0 - 1), tid).unwrap().remove(0);
    record.data.iter().map(|change| change.segment.clone()).collect()
}

/// First page and number of pages of each, and whether it is encoded.
fn shapes(segments: &[Segment]) -> Vec<(u64, u64, bool)> {
    let shape = |segment: &Segment| {
        let is_encoded = segment.source.extent().unwrap().is_encoded();
        (segment.pages.start, segment.pages.count(), is_encoded)
    };
    segments.iter().map(shape).collect()
}

/// The content as it lies in the first data file.
fn lying(disk: &Simulated, segments: &[Segment]) -> Vec<u8> {
    let file = disk.open("data/0000000000.dat", Access::Read).unwrap();
    let content = |segment: &Segment| {
        let extent = segment.source.extent().unwrap();
        let mut stored = vec![0; extent.stored_pages() as usize * PAGE_LEN];
        file.read_at(&mut stored, extent.place().page * PAGE_BYTES).unwrap();
        if !extent.is_encoded() {
            return stored;
        }
        let mut content = vec![0; extent.pages() as usize * PAGE_LEN];
        decode(&stored, &mut content).unwrap();
        content
    };
    segments.iter().flat_map(content).collect()
}

#[test]
fn blocks_that_become_shorter_are_encoded_and_what_lies_between_them_is_one_extent() {
    let (disk, store) = new_store();
    let blocks = [1u8, 1, 0, 1, 0, 0, 1];
    let mut content: Vec<u8> = (0u64..)
        .zip(blocks)
        .flat_map(|(seed, is_noise)| match is_noise {
            1 => noise(BLOCK_LEN, seed + 1),
            _ => vec![u8::try_from(seed).unwrap(); BLOCK_LEN],
        })
        .collect();
    content.extend_from_slice(&[9; 3 * PAGE_LEN]);
    let segments = segments_of(&store, &content, LZ4);
    let expected = [
        (0, 32, false),
        (32, 16, true),
        (48, 16, false),
        (64, 16, true),
        (80, 16, true),
        (96, 19, false),
    ];
    assert_eq!(shapes(&segments), expected);
    assert!(lying(&disk, &segments) == content);
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn an_encoded_block_takes_one_extent_of_its_length_behind_the_one_before() {
    let (disk, store) = new_store();
    let segments = segments_of(&store, &vec![7; 5 * BLOCK_LEN], LZ4);
    let extents: Vec<_> =
        segments.iter().map(|segment| segment.source.extent().unwrap().clone()).collect();
    assert_eq!(extents.len(), 5);
    for extent in &extents {
        assert_eq!((extent.pages(), extent.stored_pages()), (16, 1));
    }
    let places: Vec<_> = extents.iter().map(|extent| extent.place()).collect();
    let expected: Vec<_> = (0..5).map(|number| places[0].after(number)).collect();
    assert_eq!(places, expected);
    let mut mixed = vec![7; 3 * BLOCK_LEN];
    mixed[BLOCK_LEN..2 * BLOCK_LEN].copy_from_slice(&noise(BLOCK_LEN, 5));
    let transaction = store.begin().unwrap();
    open(&transaction, ArrayId(1), 80);
    transaction.write(ArrayId(1), BLOCK * PAGE_BYTES, &mixed).unwrap();
    let segments = named_by(&store, transaction.commit().unwrap());
    assert_eq!(shapes(&segments), [(16, 16, true), (32, 16, false), (48, 16, true)]);
    assert!(lying(&disk, &segments) == mixed);
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn pieces_to_encode_lie_in_one_block_each_and_have_eight_pages_at_least() {
    let pieces = |start, end, block| -> Vec<(u64, u64)> {
        let pieces = pieces_to_encode(PageRange::new(start, end), block);
        pieces.iter().map(|piece| (piece.start, piece.end)).collect()
    };
    assert_eq!(pieces(5, 40, 16), [(5, 16), (16, 32), (32, 40)]);
    assert_eq!(pieces(9, 39, 16), [(16, 32)]);
    assert_eq!(pieces(8, 24, 16), [(8, 16), (16, 24)]);
    assert_eq!(pieces(500, 1100, 2048), [(500, 512), (512, 1024), (1024, 1100)]);
    assert_eq!(pieces(0, 7, 16), []);
    let has = |counts: &[(u64, u64)]| {
        has_to_encode(&counts.iter().map(|&(from, to)| PageRange::new(from, to)).collect())
    };
    assert!(!has(&[]) && !has(&[(0, 7), (8, 15)]));
    assert!(has(&[(0, 1), (8, 16)]));
}

#[test]
fn all_processors_encode_what_one_would_and_in_its_order() {
    let codec: Codec = LZ4.parse().unwrap();
    let contents: Vec<Vec<u8>> = (0..37u8)
        .map(|seed| match seed % 3 {
            0 => noise(2 * PAGE_LEN, u64::from(seed)),
            _ => vec![seed; 2 * PAGE_LEN + PAGE_LEN * usize::from(seed % 5)],
        })
        .collect();
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let expected: Vec<_> = contents.iter().map(|content| encode(codec, content)).collect();
    assert!(expected.iter().any(Option::is_none) && expected.iter().any(Option::is_some));
    assert!(encode_all(codec, &contents) == expected);
    assert!(encode_all(codec, &contents[1..2]) == expected[1..2]);
    assert!(encode_all(Codec { method: Method::None, ..codec }, &contents)[1].is_none());
}

#[test]
fn what_this_process_wrote_it_does_not_read_again_to_compare_it() {
    let (disk, store) = new_store();
    let record = committed(&store, &vec![7; 1300 * PAGE_LEN]);
    let (id, place) = (record.data[0].array, record.data[0].segment.source.place().unwrap());
    let file = disk.open("data/0000000000.dat", Access::Write).unwrap();
    // One page of each block.
    for page in [3, 600, 1299] {
        file.write_at(&[&[8]], (place.page + page) * PAGE_BYTES).unwrap();
    }
    let is_good = |store: &Store, block: u64| {
        let transaction = store.begin_read().unwrap();
        open(&transaction, id, 1300);
        transaction.check(id, PageRange::new(512 * block, 1300.min(512 * (block + 1)))).is_ok()
    };
    assert_eq!([0, 1, 2].map(|block| is_good(&store, block)), [true; 3]);
    let other = opened(&disk);
    assert_eq!([0, 1, 2].map(|block| is_good(&other, block)), [false; 3]);
}

/// A store with `free` pages at the front of its file that nobody has any more, and an array of
/// `pages` pages behind them.
fn behind_free_space(free: u64, pages: u64) -> (Store, ArrayId, Place) {
    let (_disk, store) = new_store();
    let aborted = store.begin().unwrap();
    let id = create_named(&aborted, "aborted", free);
    aborted.write(id, 0, &vec![6; usize::try_from(free).unwrap() * PAGE_LEN]).unwrap();
    aborted.stage(id).unwrap();
    let record = committed(&store, &vec![7; usize::try_from(pages).unwrap() * PAGE_LEN]);
    aborted.abort();
    let place = record.data[0].segment.source.place().unwrap();
    assert!(place.page >= free);
    (store, record.data[0].array, place)
}

/// Where `more` pages lie that are written behind the first `pages` of an array.
fn continued(store: &Store, id: ArrayId, pages: u64, more: u64) -> Place {
    let transaction = store.begin().unwrap();
    open(&transaction, id, pages + more);
    let bytes = vec![8; usize::try_from(more).unwrap() * PAGE_LEN];
    transaction.write(id, pages * PAGE_BYTES, &bytes).unwrap();
    let segments = named_by(store, transaction.commit().unwrap());
    assert_eq!(segments[0].pages, PageRange::at(pages, more));
    segments[0].source.place().unwrap()
}

#[test]
fn little_that_continues_an_array_lies_behind_it_although_there_is_room_before() {
    let (store, id, place) = behind_free_space(30, 60);
    assert_eq!(continued(&store, id, 60, 20), place.after(60));
}

#[test]
fn blocks_continue_an_array_where_that_lies_as_huge_pages_want_it() {
    let (store, id, place) = behind_free_space(2000, 300);
    assert_eq!(place.page % 512, 0);
    assert_eq!(continued(&store, id, 300, 1024), place.after(300));
    // A small array lies anywhere, and blocks do not follow it there.
    let (store, id, place) = behind_free_space(30, 100);
    assert_ne!(place.page % 512, 0);
    assert_eq!(continued(&store, id, 100, 1024).page % 512, 100);
}
