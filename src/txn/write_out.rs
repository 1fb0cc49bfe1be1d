//! From private pages to extents: which pages to write, and writing them.
//!
//! ```text
//! block     |.d..|      few pages of a whole block     -> a page run
//!           |dddd|      most of what the block holds   -> the whole block
//!           |a|b|a|c|d|a|  too many pieces             -> the whole block (a fold)
//! ```
//!
//! # Invariants
//!
//! 1. Every page the program changed is in exactly one planned range.
//! 2. Planned ranges ascend, do not touch across a plan's decision, and end at the array's end.

use std::collections::{BTreeMap, BTreeSet};

use super::error::TransactionError;
use super::session::{Context, is_hole};
use super::working::Working;
use crate::storage::encoding::{Codec, encode};
use crate::storage::engine::{Allocation, Engine};
use crate::storage::extent::{ENCODED_PAGES_MAX, EXTENT_PAGES_MAX, Extent, Place, Segment, Source};
use crate::storage::index::PageMap;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread;
use crate::units::{PAGE_BYTES, PAGE_LEN, PageRange, PageSet};
use crate::vm::{MapError, populate, processors};

/// A block in more pieces than this is written whole by the next commit that touches it.
pub(super) const PIECES_MAX: usize = 32;

/// Runs of fewer pages are stored as they are.
const ENCODED_PAGES_MIN: u64 = 8;
/// Blocks that are encoded before any of them is written: 64 MiB.
const ENCODED_AT_ONCE: usize = 32;

/// An extent that was written and that no record names yet.
pub(super) type Allocated = (Place, u64);

/// The pages of `working` that the program changed, without those beyond its end and without
/// pages of a hole that were given the zeros they had.
///
/// # Errors
///
/// [`TransactionError::Data`] if a file was cut off: private copies are gone with it (fact K-46),
/// and what the program wrote would be missing without a word.
pub(super) fn changed_pages(
    cx: &Context<'_>,
    working: &Working,
) -> Result<PageSet, TransactionError> {
    require_whole_files(cx, working)?;
    let array = PageRange::new(0, working.end_page());
    let mut changed = PageSet::new();
    for range in working.dirty()? {
        let Some(range) = range.intersection(array) else { continue };
        for segment in working.pages.lookup(range)? {
            if is_hole(&segment) && working.holes_are_zero() {
                insert_nonzero(working, segment.pages, &mut changed);
            } else {
                changed.insert(segment.pages);
            }
        }
    }
    Ok(changed)
}

/// Asks for the length of each file under pages that may have been written.
fn require_whole_files(cx: &Context<'_>, working: &Working) -> Result<(), TransactionError> {
    let mut last: BTreeMap<u32, (Place, Segment)> = BTreeMap::new();
    for range in working.writable.iter() {
        for segment in working.pages.lookup(range)? {
            let Some(place) = segment.source.place() else { continue };
            let end = place.after(segment.pages.count());
            let known = last.entry(place.file).or_insert((end, segment.clone()));
            if known.0 < end {
                *known = (end, segment);
            }
        }
    }
    for (_, segment) in last.into_values() {
        working.file_of(cx, &segment)?;
    }
    Ok(())
}

fn insert_nonzero(working: &Working, pages: PageRange, changed: &mut PageSet) {
    let Some(bytes) = working.bytes(pages) else { return };
    for (page, bytes) in (pages.start..).zip(bytes.chunks(PAGE_LEN)) {
        if !is_zero(bytes) {
            changed.insert(PageRange::at(page, 1));
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// The pages to write for `changed`: page runs, or whole blocks where that is better.
pub(super) fn plan(
    changed: &PageSet,
    pages: &PageMap,
    block_pages: u64,
    encodes: bool,
) -> Result<PageSet, TransactionError> {
    let mut planned = PageSet::new();
    let mut partial = BTreeSet::new();
    for range in changed.iter() {
        let first_whole = range.start.next_multiple_of(block_pages);
        let end_whole = range.end - range.end % block_pages;
        if first_whole < end_whole {
            planned.insert(PageRange::new(first_whole, end_whole));
        }
        if range.start < first_whole {
            partial.insert(range.start / block_pages);
        }
        if end_whole < range.end {
            partial.insert(range.end / block_pages);
        }
    }
    for block in partial {
        let start = block * block_pages;
        let block = PageRange::at(start, block_pages);
        plan_block(changed, &pages.lookup(block)?, block, &mut planned);
    }
    if encodes {
        for block in changed.iter().filter_map(|range| before_growth(range, block_pages)) {
            if is_in_pieces(changed, pages, block)? {
                planned.insert(block);
            }
        }
    }
    Ok(planned)
}

/// The block behind which `range`, if it grows the array, begins another one.
fn before_growth(range: PageRange, block_pages: u64) -> Option<PageRange> {
    let number = match range.start % block_pages {
        0 => (range.start / block_pages).checked_sub(1)?,
        _ => range.start / block_pages,
    };
    let block = PageRange::at(number * block_pages, block_pages);
    (range.end > block.end).then_some(block)
}

/// Whether `block` lies in pieces, all of it, and nothing behind it was stored so far: growth by
/// little is stored as it comes, and encoded once there is a whole block of it.
fn is_in_pieces(
    changed: &PageSet,
    pages: &PageMap,
    block: PageRange,
) -> Result<bool, TransactionError> {
    let next = pages.lookup(PageRange::at(block.end, 1))?;
    let segments = pages.lookup(block)?;
    let mut used: PageSet = changed.iter_in(block).collect();
    segments.iter().filter(|s| !is_hole(s)).for_each(|s| used.insert(s.pages));
    let is_one = segments.len() == 1
        && segments[0].source.extent().is_some_and(|extent| extent.is_encoded());
    Ok(next.iter().all(is_hole) && used.contains_range(block) && !is_one)
}

/// One block of which only some pages changed; `segments` is what it contains.
fn plan_block(changed: &PageSet, segments: &[Segment], block: PageRange, planned: &mut PageSet) {
    let mut used: PageSet = changed.iter_in(block).collect();
    let changed_count = used.count();
    let pieces = used.ranges_count() + pieces(segments);
    segments.iter().filter(|s| !is_hole(s)).for_each(|s| used.insert(s.pages));
    let first = used.iter().next().map_or(block.start, |range| range.start);
    let end = used.iter().last().map_or(block.end, |range| range.end);
    // Holes between the pages would be written too: a few pages far apart stay what they are.
    let is_dense = used.count() * 2 >= end - first;
    if (changed_count * 2 >= used.count() && is_dense) || pieces > PIECES_MAX {
        planned.insert(PageRange::new(first, end));
    } else {
        changed.iter_in(block).for_each(|range| planned.insert(range));
    }
}

/// How many separate runs of bytes on the disk `segments` are.
pub(super) fn pieces(segments: &[Segment]) -> usize {
    let mut count = 0;
    let mut end_of_last = None;
    for segment in segments.iter().filter(|segment| !is_hole(segment)) {
        let place = segment.source.place();
        if place.is_none() || place != end_of_last {
            count += 1;
        }
        end_of_last = place.map(|place| place.after(segment.pages.count()));
    }
    count
}

/// Writes `planned` pages of `working` to fresh extents, which are not durable yet.
///
/// What is not `changed` is carried along. What was allocated is added to `allocated` at once, so
/// that it is given back after an error.
pub(super) fn write(
    cx: &Context<'_>,
    working: &mut Working,
    changed: &PageSet,
    planned: &PageSet,
    allocated: &mut Vec<Allocated>,
) -> Result<Vec<Segment>, TransactionError> {
    let mut segments = Vec::new();
    check_carried(cx, working, changed, planned)?;
    for range in planned.iter() {
        let mut start = range.start;
        while start < range.end {
            let count = (range.end - start).min(u64::from(EXTENT_PAGES_MAX));
            let part = PageRange::at(start, count);
            working.map(cx, part, false)?;
            let near = end_of_previous(&working.pages, &segments, start)?;
            let layout = Layout { block_pages: working.block_pages(), codec: working.codec };
            let bytes = readable(working, part)?;
            segments.extend(write_extents(cx, part, layout, near, bytes, allocated)?);
            start = part.end;
        }
    }
    Ok(segments)
}

/// Compares what is `planned` but not `changed` with its checksums: damage that is carried along
/// must not get a new checksum.
pub(super) fn check_carried(
    cx: &Context<'_>,
    working: &Working,
    changed: &PageSet,
    planned: &PageSet,
) -> Result<(), TransactionError> {
    for carried in planned.iter().flat_map(|range| changed.missing_in(range)) {
        for segment in working.pages.lookup(carried)? {
            let checked = cx.shared.checked.check(cx.engine, &segment);
            checked.map_err(|(page, error)| working.data_error(page, error))?;
        }
    }
    Ok(())
}

/// The bytes of mapped `pages`, all of which can be read: cutting a data file takes even private
/// copies away (fact K-46).
pub(super) fn readable(working: &Working, pages: PageRange) -> Result<&[u8], TransactionError> {
    // What is loaded now must be there when the kernel reads it.
    working.keep(pages);
    working.load(pages)?;
    let Some(bytes) = working.bytes(pages) else { return Err(TransactionError::Poisoned) };
    populate(bytes).map_err(|error| match error {
        MapError::Unreadable { offset_bytes } => {
            working.data_error(pages.start + offset_bytes / PAGE_BYTES, error.into())
        }
        other => other.into(),
    })?;
    Ok(bytes)
}

/// Writes `bytes`, the whole new content of `pages`, to fresh extents, which are not durable yet.
pub(super) fn write_bytes(
    cx: &Context<'_>,
    working: &Working,
    pages: PageRange,
    bytes: &[u8],
    allocated: &mut Vec<Allocated>,
) -> Result<Vec<Segment>, TransactionError> {
    let mut segments = Vec::new();
    let mut start = pages.start;
    for bytes in bytes.chunks(EXTENT_PAGES_MAX as usize * PAGE_LEN) {
        let part = PageRange::at(start, bytes.len() as u64 / PAGE_BYTES);
        let near = end_of_previous(&working.pages, &segments, start)?;
        let layout = Layout { block_pages: working.block_pages(), codec: working.codec };
        segments.extend(write_extents(cx, part, layout, near, bytes, allocated)?);
        start = part.end;
    }
    Ok(segments)
}

/// Where the page before `page` ends on the disk, if it ends an extent there.
pub(super) fn end_of_previous(
    pages: &PageMap,
    fresh: &[Segment],
    page: u64,
) -> Result<Option<Place>, TransactionError> {
    let Some(before) = page.checked_sub(1) else { return Ok(None) };
    let last = fresh.last().filter(|segment| segment.pages.end == page).cloned();
    let segment = match last {
        Some(segment) => segment.clipped(PageRange::at(before, 1)),
        None => pages.lookup(PageRange::at(before, 1))?.pop(),
    };
    let ends = segment.filter(|segment| segment.source.pages_left() == Some(1));
    Ok(ends.and_then(|segment| segment.source.place()).map(|place| place.after(1)))
}

/// How an array lies on the disk.
#[derive(Clone, Copy)]
struct Layout {
    block_pages: u64,
    codec: Codec,
}

/// Writes `bytes`, the content of `pages`, to fresh extents: one as it is, or one for each block
/// that becomes shorter by its codec.
fn write_extents(
    cx: &Context<'_>,
    pages: PageRange,
    layout: Layout,
    near: Option<Place>,
    bytes: &[u8],
    allocated: &mut Vec<Allocated>,
) -> Result<Vec<Segment>, TransactionError> {
    let Layout { block_pages, codec } = layout;
    if codec.is_none() {
        return Ok(vec![write_extent(cx, pages, block_pages, near, bytes, allocated)?]);
    }
    let mut segments = Vec::new();
    let mut near = near;
    // Where what is not encoded begins: neighbours are written as one extent.
    let mut raw = pages.start;
    let at = |page: u64| small(page - pages.start) as usize * PAGE_LEN;
    let pieces = pieces_to_encode(pages, block_pages);
    for batch in pieces.chunks(ENCODED_AT_ONCE) {
        let contents: Vec<&[u8]> =
            batch.iter().map(|it| &bytes[at(it.start)..at(it.end)]).collect();
        for (&piece, encoded) in batch.iter().zip(encode_all(codec, &contents)) {
            let Some(encoded) = encoded else { continue };
            if raw < piece.start {
                let rest = PageRange::new(raw, piece.start);
                let bytes = &bytes[at(rest.start)..at(rest.end)];
                segments.push(write_extent(cx, rest, block_pages, near, bytes, allocated)?);
            }
            let segment = write_encoded(cx, piece, near, &encoded, allocated)?;
            near = segment
                .source
                .extent()
                .map(|extent| extent.place().after(u64::from(extent.stored_pages())));
            segments.push(segment);
            raw = piece.end;
        }
    }
    if raw < pages.end {
        let rest = PageRange::new(raw, pages.end);
        let bytes = &bytes[at(raw)..];
        segments.push(write_extent(cx, rest, block_pages, near, bytes, allocated)?);
    }
    Ok(segments)
}

/// Whether any of `planned` is worth trying to encode.
pub(super) fn has_to_encode(planned: &PageSet) -> bool {
    planned.iter().any(|range| range.count() >= ENCODED_PAGES_MIN)
}

/// The parts of `pages` that are worth trying to encode, each in one block.
fn pieces_to_encode(pages: PageRange, block_pages: u64) -> Vec<PageRange> {
    let unit = block_pages.min(u64::from(ENCODED_PAGES_MAX));
    let mut pieces = Vec::new();
    let mut start = pages.start;
    while start < pages.end {
        let end = pages.end.min((start / unit + 1) * unit);
        pieces.push(PageRange::new(start, end));
        start = end;
    }
    pieces.retain(|piece| piece.count() >= ENCODED_PAGES_MIN);
    pieces
}

/// Encodes each of `contents` that becomes shorter, on all processors.
fn encode_all(codec: Codec, contents: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let threads = processors().min(contents.len());
    if threads < 2 {
        return contents.iter().map(|content| encode(codec, content)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(content) = contents.get(index) else { return done };
            done.push((index, encode(codec, content)));
        }
    };
    // What a thread lost is stored as it is.
    let mut all: Vec<Option<Vec<u8>>> = contents.iter().map(|_| None).collect();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for (index, encoded) in workers.into_iter().filter_map(|it| it.join().ok()).flatten() {
            all[index] = encoded;
        }
    });
    all
}

fn write_encoded(
    cx: &Context<'_>,
    pages: PageRange,
    near: Option<Place>,
    stored: &[u8],
    allocated: &mut Vec<Allocated>,
) -> Result<Segment, TransactionError> {
    let stored_pages = small(stored.len() as u64 / PAGE_BYTES);
    let wish = Allocation { pages: stored_pages, align_pages: 1, phase_pages: 0, near };
    let place = cx.engine.allocate(&wish)?;
    allocated.push((place, u64::from(stored_pages)));
    cx.engine.write(place, stored)?;
    let sum = crc32fast::hash(stored);
    cx.shared.checked.remember(place, sum);
    let extent = Extent::encoded(place, small(pages.count()), stored_pages, sum);
    let Some(extent) = extent else { return Err(TransactionError::Poisoned) };
    Ok(Segment { pages, source: Source::whole(extent) })
}

/// Writes `bytes`, the content of `pages`, to a fresh extent.
pub(super) fn write_extent(
    cx: &Context<'_>,
    pages: PageRange,
    block_pages: u64,
    near: Option<Place>,
    bytes: &[u8],
    allocated: &mut Vec<Allocated>,
) -> Result<Segment, TransactionError> {
    let block = small(block_pages);
    let phase = small(pages.start % block_pages);
    let count = small(pages.count());
    // Whole blocks, and blocks of which a good part begins, lie as huge pages want them: K-05. A
    // small array must not take a whole block on the disk.
    let aligned = pages.count() >= block_pages || (phase == 0 && pages.count() * 4 >= block_pages);
    let near = near.filter(|place| !aligned || place.page % block_pages == u64::from(phase));
    let (align_pages, phase_pages) = if aligned { (block, phase) } else { (1, 0) };
    let wish = Allocation { pages: count, align_pages, phase_pages, near };
    let place = cx.engine.allocate(&wish)?;
    allocated.push((place, pages.count()));
    let sums = write_units(cx.engine, place, block_pages, bytes)?;
    for (unit, &sum) in (0..).zip(&*sums) {
        cx.shared.checked.remember(place.after(unit * block_pages), sum);
    }
    let extent = Extent::new(place, count, block, sums);
    let Some(extent) = extent else { return Err(TransactionError::Poisoned) };
    Ok(Segment { pages, source: Source::whole(extent) })
}

/// Writes `bytes` from `place` on and returns the checksum of each unit of `unit_pages` pages.
///
/// The checksum pulls a unit into the cache, from where the write copies it. A unit is written at
/// once: the page cache keeps it in one piece then, and views are read by huge pages (writes of
/// 256 KiB cost them a third of their speed). Several threads would gain nothing, because a file
/// system lets one at a time write into a file.
fn write_units(
    engine: &dyn Engine,
    place: Place,
    unit_pages: u64,
    bytes: &[u8],
) -> Result<Box<[u32]>, TransactionError> {
    let unit_bytes = PAGE_LEN * usize::try_from(unit_pages).unwrap_or(usize::MAX / PAGE_LEN);
    let mut sums = Vec::with_capacity(bytes.len().div_ceil(unit_bytes));
    for (unit, bytes) in (0..).zip(bytes.chunks(unit_bytes)) {
        sums.push(crc32fast::hash(bytes));
        engine.write(place.after(unit * unit_pages), bytes)?;
    }
    Ok(sums.into_boxed_slice())
}

/// Page counts within a block or an extent, which are far below 2^32.
fn small(pages: u64) -> u32 {
    u32::try_from(pages).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod extent_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::{Access, Backend};
    use crate::txn::commit::tests::{committed, create_named, new_store, open, opened};
    use crate::txn::{CommitError, Store};
    use crate::units::{ArrayId, Tid};

    const BLOCK: u64 = 16;

    fn stored(map: &mut PageMap, start: u64, pages: u32, at: u64) {
        let sums = vec![0; pages as usize].into_boxed_slice();
        let extent = Extent::new(Place { file: 0, page: at }, pages, 1, sums).unwrap();
        let pages = PageRange::at(start, u64::from(pages));
        map.insert(&Segment { pages, source: Source::whole(extent) });
    }

    fn planned(changed: &[(u64, u64)], map: &PageMap) -> Vec<(u64, u64)> {
        let changed = changed.iter().map(|&(from, to)| PageRange::new(from, to)).collect();
        let planned = plan(&changed, map, BLOCK, false).unwrap();
        planned.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn few_pages_of_a_full_block_are_written_as_runs() {
        let mut map = PageMap::new();
        stored(&mut map, 0, 48, 0);
        assert_eq!(planned(&[(3, 4), (9, 11), (40, 41)], &map), [(3, 4), (9, 11), (40, 41)]);
    }

    #[test]
    fn a_block_of_which_half_changed_is_written_whole() {
        let mut map = PageMap::new();
        stored(&mut map, 0, 48, 0);
        assert_eq!(planned(&[(16, 24)], &map), [(16, 32)]);
        assert_eq!(planned(&[(4, 40)], &map), [(0, 48)]);
    }

    #[test]
    fn only_what_a_block_holds_counts_and_nothing_beyond_it_is_written() {
        let mut map = PageMap::new();
        stored(&mut map, 16, 3, 0);
        assert_eq!(planned(&[(19, 22)], &map), [(16, 22)]);
        assert_eq!(planned(&[(2, 3)], &map), [(2, 3)]);
    }

    #[test]
    fn a_few_pages_far_apart_are_written_without_the_hole_between_them() {
        assert_eq!(planned(&[(0, 1), (14, 16)], &PageMap::new()), [(0, 1), (14, 16)]);
        assert_eq!(planned(&[(0, 1), (2, 4), (5, 6)], &PageMap::new()), [(0, 6)]);
        assert_eq!(planned(&[(0, 4), (8, 12)], &PageMap::new()), [(0, 12)]);
    }

    #[test]
    fn a_block_in_too_many_pieces_is_folded_by_the_commit_that_touches_it() {
        let mut map = PageMap::new();
        stored(&mut map, 0, 1024, 0);
        let block = 1024;
        for piece in 0..PIECES_MAX as u64 {
            stored(&mut map, 2 + 4 * piece, 1, 5000 + 7 * piece);
        }
        let changed = [PageRange::at(1000, 1)].into_iter().collect();
        let planned = plan(&changed, &map, block, false).unwrap();
        assert_eq!(planned.iter().collect::<Vec<_>>(), [PageRange::new(0, 1024)]);
    }

    /// What is planned for pages `changed` of two blocks of 1024 pages, one after the other on the
    /// disk but for single pages, which make `pieces` pieces of the first or of the second.
    fn planned_in_pieces(changed: PageRange, block: u64, pieces: u64) -> Vec<PageRange> {
        let mut map = PageMap::new();
        stored(&mut map, 0, 2048, 0);
        // The first page makes two pieces of one, each other one two more.
        let interior = (pieces - 1) / 2;
        let edge = (pieces - 1) % 2;
        let pages = (1..=interior).map(|number| 4 * number).chain((0..edge).map(|_| 0));
        pages.for_each(|page| stored(&mut map, 1024 * block + page, 1, 5000 + 7 * page));
        let of_block = map.lookup(PageRange::at(1024 * block, 1024)).unwrap();
        assert_eq!(self::pieces(&of_block) as u64, pieces);
        let changed = [changed].into_iter().collect();
        plan(&changed, &map, 1024, false).unwrap().iter().collect()
    }

    #[test]
    fn what_was_written_counts_among_the_pieces_and_only_too_many_are_folded() {
        let (page, max) = (PageRange::at(1000, 1), PIECES_MAX as u64);
        assert_eq!(planned_in_pieces(page, 0, max - 1), [page]);
        assert_eq!(planned_in_pieces(page, 0, max), [PageRange::new(0, 1024)]);
    }

    #[test]
    fn a_block_behind_what_was_written_is_not_folded() {
        let changed = PageRange::new(0, 1024);
        assert_eq!(planned_in_pieces(changed, 1, PIECES_MAX as u64 + 7), [changed]);
    }

    #[test]
    fn a_block_of_an_encoded_array_is_written_whole_by_who_begins_the_next() {
        let before = |start: u64, end: u64| {
            let block = before_growth(PageRange::new(start, end), BLOCK);
            block.map(|block| (block.start, block.end))
        };
        assert_eq!([before(0, 40), before(10, 16), before(33, 40)], [None; 3]);
        assert_eq!([before(10, 20), before(16, 20)], [Some((0, 16)); 2]);
        assert_eq!([before(40, 50), before(32, 33)], [Some((32, 48)), Some((16, 32))]);
        let encoded = |map: &PageMap| {
            let changed = [PageRange::new(32, 34)].into_iter().collect();
            let planned = plan(&changed, map, BLOCK, true).unwrap();
            planned.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>()
        };
        let mut map = PageMap::new();
        stored(&mut map, 16, 12, 0);
        assert_eq!(encoded(&map), [(32, 34)], "not all of it is there");
        stored(&mut map, 28, 4, 100);
        assert_eq!(encoded(&map), [(16, 34)]);
        assert_eq!(planned(&[(32, 34)], &map), [(32, 34)], "not encoded");
        stored(&mut map, 32, 1, 200);
        assert_eq!(encoded(&map), [(32, 34)], "the next was begun before");
        let mut map = PageMap::new();
        stored(&mut map, 16, 16, 0);
        assert_eq!(encoded(&map), [(16, 34)], "one piece, as it is");
        let one = Extent::encoded(Place { file: 0, page: 0 }, 16, 5, 0).unwrap();
        map.insert(&Segment { pages: PageRange::at(16, 16), source: Source::whole(one) });
        assert_eq!(encoded(&map), [(32, 34)], "encoded already");
    }

    #[test]
    fn growth_that_continues_on_the_disk_stays_one_piece() {
        let mut map = PageMap::new();
        stored(&mut map, 0, 4, 100);
        stored(&mut map, 4, 4, 104);
        stored(&mut map, 8, 2, 300);
        assert_eq!(pieces(&map.lookup(PageRange::new(0, 16)).unwrap()), 2);
        let end = end_of_previous(&map, &[], 8).unwrap();
        assert_eq!(end, Some(Place { file: 0, page: 108 }));
        let mut fresh = PageMap::new();
        stored(&mut fresh, 8, 2, 500);
        let fresh = fresh.lookup(PageRange::at(8, 2)).unwrap();
        assert_eq!(end_of_previous(&map, &fresh, 10).unwrap(), Some(Place { file: 0, page: 502 }));
        assert_eq!(end_of_previous(&map, &fresh, 8).unwrap(), end, "not behind what is fresh");
        assert_eq!(end_of_previous(&map, &[], 7).unwrap(), None, "inside an extent");
        assert_eq!(end_of_previous(&map, &[], 11).unwrap(), None, "after a hole");
    }

    /// First page, number of pages and place of what the newest commit named.
    fn newest(store: &Store) -> Vec<(u64, u64, Option<Place>)> {
        let head = store.head();
        let record = store.records(Tid(head.0 - 1), head).unwrap().remove(0);
        let named = |segment: &Segment| {
            (segment.pages.start, segment.pages.count(), segment.source.place())
        };
        record.data.iter().map(|change| named(&change.segment)).collect()
    }

    fn runs(store: &Store) -> Vec<(u64, u64)> {
        newest(store).into_iter().map(|(start, count, _)| (start, count)).collect()
    }

    /// Commits `bytes` from page `page` on of an array of `pages` pages.
    fn overwritten(
        store: &Store,
        (id, pages): (ArrayId, u64),
        page: u64,
        bytes: &[u8],
    ) -> Result<Tid, CommitError> {
        let transaction = store.begin().unwrap();
        open(&transaction, id, pages);
        transaction.write(id, page * PAGE_BYTES, bytes)?;
        transaction.commit()
    }

    fn is_healthy(store: &Store) -> bool {
        store.check(true, &mut |_, _| {}).unwrap().damage.is_empty()
    }

    #[test]
    fn zeros_in_a_hole_are_not_written() {
        let (_disk, store) = new_store();
        let mut content = [0; 12 * PAGE_LEN];
        content[PAGE_LEN] = 1;
        content[11 * PAGE_LEN - 1] = 1;
        content[5 * PAGE_LEN..5 * PAGE_LEN + 2].fill(1);
        committed(&store, &content);
        assert_eq!(runs(&store), [(1, 1), (5, 1), (10, 1)]);
    }

    #[test]
    fn zeros_that_replace_something_are_written() {
        let (_disk, store) = new_store();
        let id = committed(&store, &[7; 3 * PAGE_LEN]).data[0].array;
        overwritten(&store, (id, 3), 1, &[0; PAGE_LEN]).unwrap();
        assert_eq!(runs(&store), [(1, 1)]);
        assert!(is_healthy(&store));
    }

    #[test]
    fn every_unit_has_its_checksum() {
        let (_disk, store) = new_store();
        let pages = (1..=250u8).cycle().take(1300);
        let content: Vec<u8> = pages.flat_map(|byte| [byte; PAGE_LEN]).collect();
        let record = committed(&store, &content);
        let sums = record.data.iter().filter_map(|change| change.segment.source.extent());
        let sums: Vec<u32> = sums.flat_map(|extent| extent.sums().to_vec()).collect();
        let expected: Vec<u32> = content.chunks(512 * PAGE_LEN).map(crc32fast::hash).collect();
        assert_eq!(sums, expected);
        assert_eq!(
            record.data.iter().map(|change| change.segment.pages.count()).sum::<u64>(),
            1300
        );
        assert!(is_healthy(&store));
    }

    #[test]
    fn blocks_lie_as_huge_pages_want_them_and_small_arrays_close_together() {
        let (_disk, store) = new_store();
        let place = |pages: usize| {
            let transaction = store.begin().unwrap();
            let name = format!("n{pages}");
            let id = create_named(&transaction, &name, pages as u64);
            transaction.write(id, 0, &vec![7; pages * PAGE_LEN]).unwrap();
            transaction.commit().unwrap();
            newest(&store)[0].2.unwrap().page
        };
        assert_eq!(place(20), 0);
        assert_eq!(place(127), 20, "not a quarter of a block");
        assert_eq!(place(128), 512, "a quarter of a block");
        assert_eq!(place(512), 1024);
        assert_eq!(place(30), 147);
    }

    #[test]
    fn what_continues_an_array_continues_it_on_the_disk() {
        let (_disk, store) = new_store();
        let first = store.begin().unwrap();
        let small = create_named(&first, "small", 20);
        first.write(small, 0, &[8; 20 * PAGE_LEN]).unwrap();
        first.commit().unwrap();
        let id = committed(&store, &vec![7; 300 * PAGE_LEN]).data[0].array;
        assert_eq!(newest(&store)[0].2, Some(Place { file: 0, page: 512 }));
        overwritten(&store, (id, 340), 300, &[9; 40 * PAGE_LEN]).unwrap();
        assert_eq!(newest(&store), [(300, 40, Some(Place { file: 0, page: 812 }))]);
    }

    #[test]
    fn pages_written_one_by_one_are_written_out_where_they_are() {
        let (_disk, store) = new_store();
        let id = committed(&store, &[7; 100 * PAGE_LEN]).data[0].array;
        let transaction = store.begin().unwrap();
        open(&transaction, id, 100);
        let pages = (30..50).chain(70..72);
        pages.for_each(|page| transaction.write(id, page * PAGE_BYTES, &[9; 20]).unwrap());
        transaction.commit().unwrap();
        assert_eq!(runs(&store), [(30, 20), (70, 2)]);
        let record = store.records(Tid(1), Tid(2)).unwrap().remove(0);
        let extents = record.data.iter().map(|change| change.segment.source.extent().unwrap());
        assert_eq!(extents.map(|extent| extent.pages()).collect::<Vec<_>>(), [20, 2]);
        assert!(is_healthy(&store));
    }

    #[test]
    fn damage_is_not_carried_along_under_a_new_checksum() {
        let (disk, store) = new_store();
        let id = committed(&store, &[7; 40 * PAGE_LEN]).data[0].array;
        let place = newest(&store)[0].2.unwrap();
        drop(store);
        let file = disk.open("data/0000000000.dat", Access::Write).unwrap();
        file.write_at(&[&[8]], (place.page + 35) * PAGE_BYTES).unwrap();
        let store = opened(&disk);
        let refused = overwritten(&store, (id, 40), 0, &[9; 30 * PAGE_LEN]).unwrap_err();
        assert!(refused.to_string().contains("array `a` is damaged"), "{refused}");
        let store = opened(&disk);
        overwritten(&store, (id, 40), 0, &[9; 40 * PAGE_LEN]).unwrap();
    }

    #[test]
    fn a_data_file_that_was_cut_refuses_the_commit() {
        let (disk, store) = new_store();
        let id = committed(&store, &[7; 40 * PAGE_LEN]).data[0].array;
        let transaction = store.begin().unwrap();
        open(&transaction, id, 40);
        transaction.write(id, 0, &[9; 20]).unwrap();
        let place = newest(&store)[0].2.unwrap();
        let file = disk.open("data/0000000000.dat", Access::Write).unwrap();
        file.set_len((place.page + 1) * PAGE_BYTES - 1).unwrap();
        let refused = transaction.commit().unwrap_err();
        assert!(refused.to_string().contains("array `a` is damaged"), "{refused}");
    }

    /// What this process wrote it does not compare when it carries it along, and it finds out only
    /// when it reads it that it is gone.
    #[test]
    fn a_carried_page_that_was_cut_off_refuses_the_commit_and_is_named() {
        let (disk, store) = new_store();
        let id = committed(&store, &[7; 40 * PAGE_LEN]).data[0].array;
        let place = newest(&store)[0].2.unwrap();
        let transaction = store.begin().unwrap();
        open(&transaction, id, 40);
        (0..30).for_each(|page| transaction.write(id, page * PAGE_BYTES, &[9; 20]).unwrap());
        let file = disk.open("data/0000000000.dat", Access::Write).unwrap();
        file.set_len((place.page + 35) * PAGE_BYTES).unwrap();
        match transaction.commit().unwrap_err() {
            CommitError::NotCommitted(TransactionError::Data { block, byte, .. }) => {
                assert_eq!((block, byte), (0, 35 * PAGE_BYTES));
            }
            other => panic!("{other}"),
        }
    }

    /// Of two extents of one file, whichever comes first in the array, the one behind the other in
    /// the file is cut, and takes what was written there with it.
    #[test]
    fn a_data_file_that_was_cut_behind_other_pages_refuses_the_commit() {
        for moved in [0, 380] {
            let (disk, store) = new_store();
            let id = committed(&store, &vec![7; 400 * PAGE_LEN]).data[0].array;
            let first = newest(&store)[0].2.unwrap();
            overwritten(&store, (id, 400), moved, &[8; 20 * PAGE_LEN]).unwrap();
            let pages = disk.open("data/0000000000.dat", Access::Write).unwrap();
            let transaction = store.begin().unwrap();
            open(&transaction, id, 400);
            for page in [200, moved + 19] {
                transaction.write(id, page * PAGE_BYTES, &[9; 20]).unwrap();
            }
            let last = newest(&store)[0].2.unwrap();
            assert!(last.page >= first.page + 400, "{first:?} {last:?}");
            pages.set_len((last.page + 19) * PAGE_BYTES).unwrap();
            let refused = transaction.commit().unwrap_err();
            assert!(refused.to_string().contains("array `a` is damaged"), "{refused}");
        }
    }
}
