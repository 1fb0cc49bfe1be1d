//! Checkpoints: the state as of one commit in a file, read lazily.
//!
//! ```text
//! checkpoint/<tid>
//! | header | segments: pages of 64 KiB, fixed-size records | sums: pages of 64 KiB |
//! | catalog | space | directory: array -> its segments; first key of each segment page |
//! ```
//!
//! Opening reads header, catalog, space and directory; the segments, which may be many, are found
//! by binary search and read page by page when somebody looks.
//!
//! # Invariants
//!
//! 1. A checkpoint has its name only when it is whole and durable.
//! 2. It says what the log says: deleting it loses nothing.
//! 3. Segments are joined only where both cover their extents entirely; other extents keep place,
//!    length and all checksums.
//!
//! # Failure
//!
//! A checkpoint that is damaged is passed over at open. Where damage shows later, the state is
//! built once more from the log ([`SegmentFile::rescue_with`]).

use std::collections::HashMap;
use std::sync::Arc;

use super::codec::{self, Decoder, Encoder, Malformed};
use super::frame::{SECTOR_BYTES, Seal, Sector};
use super::log::{Chain, Position, Tail};
use super::log_header::log_path;
use super::segment_file::{
    ArrayTable, PAGE_BYTES as TABLE_PAGE_BYTES, SegmentFile, StoredSegment, sealed_pages,
};
use super::{StoreId, to_usize};
use crate::storage::StorageError;
use crate::storage::backend::{Access, Files, Growth, StoreFile};
use crate::storage::catalog::Catalog;
use crate::storage::extent::{Extent, IN_LOG, Place, Segment, Source};
use crate::storage::index::PageMap;
use crate::storage::planted::{Bug, planted};
use crate::storage::state::{State, StoredMaps};
use crate::units::{ArrayId, PAGE_BYTES, PAGE_LEN, Tid};

const MAGIC: u64 = u64::from_le_bytes(*b"zba-chk\n");
const VERSION: u32 = 1;
/// Joined extents have at most as many units, so that looking one page up reads few checksums.
const UNITS_MAX: usize = 1 << 14;
/// Checkpoints kept: the newest, and one to fall back to.
const KEPT: usize = 2;

/// The path of the checkpoint of commit `tid`.
pub(super) fn checkpoint_path(tid: Tid) -> String {
    format!("checkpoint/{:020}", tid.0)
}

/// The commit of the checkpoint called `name` in its directory.
pub(super) fn checkpoint_tid(name: &str) -> Option<Tid> {
    let tid: u64 = name.parse().ok()?;
    (format!("{tid:020}") == name).then_some(Tid(tid))
}

/// An open checkpoint.
pub(super) struct Checkpoint {
    header: Header,
    state: State,
    segments: Arc<SegmentFile>,
    len_bytes: u64,
}

/// A run of bytes of the file with its CRC-32.
#[derive(Clone, Copy, Default)]
struct Section {
    offset: u64,
    len: u64,
    sum: u32,
}

#[derive(Clone)]
struct Header {
    tail: Tail,
    time_ns: i64,
    chain_first: u32,
    segment_pages: u64,
    sum_pages: u64,
    catalog: Section,
    space: Section,
    directory: Section,
}

impl Header {
    fn encode(&self, store: &StoreId) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(MAGIC);
        out.u32(VERSION);
        out.0.extend_from_slice(store);
        out.u64(self.tail.tid.0);
        out.u32(self.tail.position.file);
        out.u64(self.tail.position.page);
        out.u32(self.tail.chain);
        out.i64(self.time_ns);
        out.u32(self.chain_first);
        out.u64(self.segment_pages);
        out.u64(self.sum_pages);
        for section in [self.catalog, self.space, self.directory] {
            out.u64(section.offset);
            out.u64(section.len);
            out.u32(section.sum);
        }
        Seal::new(store, u32::MAX).sectors(0, &out.0)
    }

    fn decode(page: &[u8]) -> Result<Self, Malformed> {
        let mut from = Decoder(page);
        if from.u64()? != MAGIC || from.u32()? != VERSION {
            return Err(Malformed("it is no checkpoint of this version".to_owned()));
        }
        from.bytes(size_of::<StoreId>())?;
        let tid = Tid(from.u64()?);
        if tid > Tid::BELIEVED_MAX {
            return Err(Malformed("it is that of an impossible commit".to_owned()));
        }
        let position = Position { file: from.u32()?, page: from.u64()? };
        let tail = Tail { tid, position, chain: from.u32()? };
        let time_ns = from.i64()?;
        let chain_first = from.u32()?;
        let (segment_pages, sum_pages) = (from.u64()?, from.u64()?);
        let mut section =
            || Ok(Section { offset: from.u64()?, len: from.u64()?, sum: from.u32()? });
        let (catalog, space, directory) = (section()?, section()?, section()?);
        Ok(Self { tail, time_ns, chain_first, segment_pages, sum_pages, catalog, space, directory })
    }
}

impl Checkpoint {
    /// Where in the log it stands.
    pub(super) fn tail(&self) -> Tail {
        self.header.tail
    }

    /// The state it holds, whose segments are read when somebody looks.
    pub(super) fn state(&self) -> State {
        self.state.clone()
    }

    /// Length of the file.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The part that is read lazily.
    pub(super) fn segments(&self) -> &Arc<SegmentFile> {
        &self.segments
    }

    /// Opens the checkpoint of commit `tid`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupted`] if what opening reads is damaged.
    pub(super) fn open(files: &Files, store: &StoreId, tid: Tid) -> Result<Self, StorageError> {
        let (file, header) = open_header(files, store, tid)?;
        Self::behind(store, file, header)
    }

    /// The checkpoint in `file`, of which the header was read.
    fn behind(store: &StoreId, file: StoreFile, header: Header) -> Result<Self, StorageError> {
        let (tid, len_bytes) = (header.tail.tid, file.len()?);
        let read = |section: Section| read_section(&file, section, len_bytes);
        let (catalog, space) = (read(header.catalog)?, read(header.space)?);
        let directory = read(header.directory)?;
        let at = |section: Section| {
            let file = file.clone();
            move |Malformed(what): Malformed| file.damaged(section.offset, what)
        };
        let (arrays, fences) = decode_directory(&directory).map_err(at(header.directory))?;
        let mut from = Decoder(&catalog);
        let catalog = codec::decode_catalog(&mut from).map_err(at(header.catalog))?;
        from.finish().map_err(at(header.catalog))?;
        let mut from = Decoder(&space);
        let space = codec::decode_space(&mut from).map_err(at(header.space))?;
        from.finish().map_err(at(header.space))?;
        let Position { file: number, page } = header.tail.position;
        let log_end = Place { file: IN_LOG | number, page };
        let pages = (header.segment_pages, header.sum_pages);
        let segments =
            SegmentFile::new(file.clone(), (*store, tid), pages, (space.clone(), log_end));
        let segments = segments.with_fences(fences).map_err(at(header.directory))?;
        let segments = Arc::new(segments);
        let arrays = Stored::new(Arc::clone(&segments), arrays, &catalog);
        let arrays = Arc::new(arrays.map_err(at(header.directory))?);
        let state = State::new(tid, header.time_ns, catalog, space).over(arrays);
        Ok(Self { header, state, segments, len_bytes })
    }
}

/// Opens the checkpoint of commit `tid` as far as its header.
fn open_header(
    files: &Files,
    store: &StoreId,
    tid: Tid,
) -> Result<(StoreFile, Header), StorageError> {
    let file = files.open(&checkpoint_path(tid), Access::Read)?;
    let mut page = [0; PAGE_LEN];
    file.read_exact_at(&mut page, 0)?;
    let sector = Seal::new(store, u32::MAX).examine(0, &page[..SECTOR_BYTES]);
    if sector != Sector::Good || page[SECTOR_BYTES..].iter().any(|&byte| byte != 0) {
        return Err(file.damaged(0, "the header of the checkpoint is damaged"));
    }
    let header = Header::decode(&page).map_err(|Malformed(what)| file.damaged(0, what))?;
    if header.tail.tid != tid {
        return Err(file.damaged(0, "it is the checkpoint of another commit"));
    }
    Ok((file, header))
}

fn read_section(file: &StoreFile, section: Section, len: u64) -> Result<Vec<u8>, StorageError> {
    let Section { offset, len: section_len, sum } = section;
    if offset.checked_add(section_len).is_none_or(|end| end > len) {
        return Err(file.damaged(offset, "a section lies beyond the end of the file"));
    }
    let mut bytes = vec![0; to_usize(section_len)];
    file.read_exact_at(&mut bytes, offset)?;
    if crc32fast::hash(&bytes) != sum {
        return Err(file.damaged(offset, "the checksum of a section is wrong"));
    }
    Ok(bytes)
}

/// The segments of all arrays.
struct Stored {
    segments: Arc<SegmentFile>,
    // Ascending by id; each names segments that are there.
    arrays: Vec<ArrayEntry>,
}

impl Stored {
    fn new(
        segments: Arc<SegmentFile>,
        arrays: Vec<ArrayEntry>,
        catalog: &Catalog,
    ) -> Result<Self, Malformed> {
        let mut ids = catalog.arrays().map(|entry| entry.id);
        for array in &arrays {
            // Both ascend, so this looks at each id once.
            if !ids.any(|id| id == array.id) {
                let what = format!("it has data of {}, which is not, or is twice", array.id);
                return Err(Malformed(what));
            }
            segments.require(array.first, array.count)?;
        }
        drop(ids);
        Ok(Self { segments, arrays })
    }
}

impl StoredMaps for Stored {
    fn page_map(&self, array: ArrayId) -> Option<PageMap> {
        let at = self.arrays.binary_search_by_key(&array, |entry| entry.id).ok()?;
        let ArrayEntry { id, first, count } = self.arrays[at];
        let table = ArrayTable::new(Arc::clone(&self.segments), id, first, count);
        Some(PageMap::over(Arc::new(table)))
    }
}

/// Which segments belong to an array.
#[derive(Clone, Copy)]
struct ArrayEntry {
    id: ArrayId,
    first: u64,
    count: u64,
}

/// The arrays, and the first key of every page of segments.
type Directory = (Vec<ArrayEntry>, Vec<(ArrayId, u64)>);

fn decode_directory(bytes: &[u8]) -> Result<Directory, Malformed> {
    let mut from = Decoder(bytes);
    let (arrays_count, fences_count) = (from.u64()?, from.u64()?);
    let wanted = arrays_count.saturating_mul(24).saturating_add(fences_count.saturating_mul(16));
    if wanted != from.0.len() as u64 {
        return Err(Malformed("the directory has another length than it says".to_owned()));
    }
    let arrays = (0..arrays_count).map(|_| {
        Ok(ArrayEntry { id: ArrayId(from.u64()?), first: from.u64()?, count: from.u64()? })
    });
    let arrays = arrays.collect::<Result<Vec<_>, Malformed>>()?;
    let fences = (0..fences_count).map(|_| Ok((ArrayId(from.u64()?), from.u64()?)));
    let fences = fences.collect::<Result<Vec<_>, Malformed>>()?;
    Ok((arrays, fences))
}

/// The newest checkpoint that can be used with this chain of log files and is not of a later
/// commit than `until`. What belongs to another chain or was not finished goes to `leftovers`.
pub(super) fn newest(
    files: &Files,
    store: &StoreId,
    chain: Chain,
    until: Tid,
    leftovers: &mut Vec<String>,
) -> Result<Option<Checkpoint>, StorageError> {
    let names = files.list("checkpoint")?;
    let temporary = names.iter().filter(|name| name.starts_with(".tmp-"));
    leftovers.extend(temporary.map(|name| format!("checkpoint/{name}")));
    let tids = names.iter().filter_map(|name| checkpoint_tid(name)).filter(|tid| *tid <= until);
    // Later on a writer may be ahead of what a reader knows.
    let is_opening = until == Tid(u64::MAX) && !planted(Bug::StaleCheckpointUsed);
    let mut usable = None;
    for tid in tids.rev() {
        let Ok((file, header)) = open_header(files, store, tid) else { continue };
        let needed = header.tail.position.file;
        if header.chain_first != chain.first && !planted(Bug::StaleCheckpointUsed) {
            leftovers.push(checkpoint_path(tid));
        } else if is_opening && needed > chain.last {
            // The file was durable before the checkpoint was written: commits are missing.
            let what = format!("the log file is missing; the checkpoint of commit {tid} needs it");
            return Err(StorageError::Corrupted { place: log_path(needed), what });
        } else if usable.is_none()
            && (planted(Bug::StaleCheckpointUsed) || (chain.first..=chain.last).contains(&needed))
        {
            // One that is damaged behind its header is passed over, too.
            usable = Checkpoint::behind(store, file, header).ok();
        }
    }
    Ok(usable)
}

/// Writes the checkpoint of `state`, which stands at `tail` of the log chain that begins with
/// file `chain_first`, and opens it.
///
/// # Errors
///
/// [`StorageError`]; then nothing has changed but a file that the next opening deletes.
pub(super) fn write(
    files: &Files,
    store: &StoreId,
    state: &State,
    tail: Tail,
    chain_first: u32,
) -> Result<Checkpoint, StorageError> {
    let files = files.aside();
    let temporary = format!("checkpoint/.tmp-{:020}", tail.tid.0);
    let written = write_aside(&files, store, state, tail, chain_first, &temporary)
        .and_then(|()| files.rename(&temporary, &checkpoint_path(tail.tid)));
    if let Err(error) = written {
        // The disk may be full: what is left of the attempt must not fill it.
        let _ = files.aside().remove(&temporary);
        return Err(error);
    }
    files.sync_dir("checkpoint")?;
    Checkpoint::open(&files, store, tail.tid)
}

fn write_aside(
    files: &Files,
    store: &StoreId,
    state: &State,
    tail: Tail,
    chain_first: u32,
    path: &str,
) -> Result<(), StorageError> {
    let mut tables = Tables::default();
    for (array, pages) in state.page_maps() {
        tables.add(array, &pages.stored()?);
    }
    let segments = sealed_pages(store, tail.tid, 0, &tables.segments, StoredSegment::BYTES);
    let sums = sealed_pages(store, tail.tid, 1, &tables.sums, 4);
    let mut catalog = Encoder::default();
    codec::encode_catalog(&mut catalog, &state.catalog);
    let mut space = Encoder::default();
    codec::encode_space(&mut space, &state.space);
    let directory = tables.directory();
    let mut offset = PAGE_BYTES + (segments.len() + sums.len()) as u64;
    let mut section = |bytes: &[u8]| {
        let len = bytes.len() as u64;
        let section = Section { offset, len, sum: crc32fast::hash(bytes) };
        offset += len;
        section
    };
    let header = Header {
        tail,
        time_ns: state.time_ns,
        chain_first,
        segment_pages: (segments.len() / TABLE_PAGE_BYTES) as u64,
        sum_pages: (sums.len() / TABLE_PAGE_BYTES) as u64,
        catalog: section(&catalog.0),
        space: section(&space.0),
        directory: section(&directory),
    };
    let header = header.encode(store);
    files.remove(path)?;
    let file = files.create(path)?;
    file.allocate(0, offset, Growth::KeepLen)?;
    file.write_at(&[&header, &segments, &sums, &catalog.0, &space.0, &directory], 0)?;
    if planted(Bug::CheckpointNamedUnsynced) { Ok(()) } else { file.sync() }
}

/// Deletes all checkpoints but the newest two.
pub(super) fn prune(files: &Files) -> Result<(), StorageError> {
    let files = files.aside();
    let names = files.list("checkpoint")?;
    let tids: Vec<Tid> = names.iter().filter_map(|name| checkpoint_tid(name)).collect();
    let old = tids.len().saturating_sub(KEPT);
    tids[..old].iter().try_for_each(|tid| files.remove(&checkpoint_path(*tid)))
}

/// Deletes all checkpoints.
pub(super) fn remove_all(files: &Files) -> Result<(), StorageError> {
    for name in files.list("checkpoint")? {
        files.remove(&format!("checkpoint/{name}"))?;
    }
    Ok(())
}

/// The tables of a checkpoint while it is being made.
#[derive(Default)]
struct Tables {
    segments: Vec<u8>,
    sums: Vec<u8>,
    arrays: Vec<ArrayEntry>,
    fences: Vec<(ArrayId, u64)>,
    // Extents that segments cover in part are often named by several of them.
    shared: HashMap<(Place, u32, u32), u64>,
}

impl Tables {
    fn count(&self) -> u64 {
        (self.segments.len() / StoredSegment::BYTES) as u64
    }

    /// Adds the segments of an array, joined where invariant 3 lets them.
    fn add(&mut self, array: ArrayId, segments: &[Segment]) {
        let first = self.count();
        let mut rest = segments;
        while let Some((segment, after)) = rest.split_first() {
            rest = after;
            let Some(extent) = segment.source.extent() else { continue };
            if !covers_its_extent(segment) {
                self.push(array, segment, extent);
                continue;
            }
            let (run, after) = joinable(segment, rest);
            rest = after;
            if run.is_empty() {
                self.push(array, segment, extent);
                continue;
            }
            let joined = joined(extent, run);
            let pages = segment.pages.start..run[run.len() - 1].pages.end;
            let pages = crate::units::PageRange::new(pages.start, pages.end);
            let source = Source::whole(joined.clone());
            self.push(array, &Segment { pages, source }, &joined);
        }
        let count = self.count() - first;
        self.arrays.push(ArrayEntry { id: array, first, count });
    }

    fn push(&mut self, array: ArrayId, segment: &Segment, extent: &Extent) {
        if self.count().is_multiple_of(StoredSegment::PER_PAGE) {
            self.fences.push((array, segment.pages.start));
        }
        let Source::Extent { skip, .. } = segment.source else { return };
        let sums = match extent.sums() {
            [sum] => u64::from(*sum),
            sums if covers_its_extent(segment) => self.push_sums(sums),
            sums => {
                let key = (extent.place(), extent.pages(), extent.units_word());
                match self.shared.get(&key) {
                    Some(&at) => at,
                    None => {
                        let at = self.push_sums(sums);
                        self.shared.insert(key, at);
                        at
                    }
                }
            }
        };
        let stored = StoredSegment {
            pages: segment.pages,
            place: extent.place(),
            extent_pages: extent.pages(),
            units: extent.units_word(),
            skip,
            sums,
        };
        stored.encode(&mut self.segments);
    }

    /// Appends checksums; returns the number of the first.
    fn push_sums(&mut self, sums: &[u32]) -> u64 {
        let first = (self.sums.len() / 4) as u64;
        sums.iter().for_each(|sum| self.sums.extend_from_slice(&sum.to_le_bytes()));
        first
    }

    fn directory(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(self.arrays.len() as u64);
        out.u64(self.fences.len() as u64);
        for array in &self.arrays {
            out.u64(array.id.0);
            out.u64(array.first);
            out.u64(array.count);
        }
        for (array, start) in &self.fences {
            out.u64(array.0);
            out.u64(*start);
        }
        out.0
    }
}

fn covers_its_extent(segment: &Segment) -> bool {
    match &segment.source {
        Source::Hole => false,
        Source::Extent { extent, skip } => {
            *skip == 0 && segment.pages.count() == u64::from(extent.pages())
        }
    }
}

/// Splits off the segments that can be joined to `first`.
fn joinable<'a>(first: &Segment, rest: &'a [Segment]) -> (&'a [Segment], &'a [Segment]) {
    let Some(mut last) = first.source.extent() else { return (&[], rest) };
    let unit_pages = last.unit_pages();
    let (mut pages, mut units) = (last.pages(), last.sums().len());
    let mut end = first.pages.end;
    let mut count = 0;
    for segment in rest {
        let Some(next) = segment.source.extent() else { break };
        units += next.sums().len();
        // A shorter unit ends an extent: nothing can follow it.
        let same_units = next.unit_pages() == unit_pages || next.pages() < unit_pages;
        let whole = last.pages().is_multiple_of(unit_pages);
        let follows = last.place().after(u64::from(last.pages())) == next.place();
        let fits = pages.saturating_add(next.pages()) <= crate::storage::extent::EXTENT_PAGES_MAX;
        if segment.pages.start != end
            || last.is_encoded()
            || next.is_encoded()
            || !covers_its_extent(segment)
            || units > UNITS_MAX
            || !(same_units && whole && follows && fits)
            || (next.unit_pages() != unit_pages && next.sums().len() != 1)
        {
            break;
        }
        pages += next.pages();
        end = segment.pages.end;
        last = next;
        count += 1;
    }
    rest.split_at(count)
}

fn joined(first: &Extent, run: &[Segment]) -> Extent {
    let extents = || run.iter().filter_map(|segment| segment.source.extent());
    let pages = extents().map(|extent| extent.pages()).sum::<u32>() + first.pages();
    let sums = first.sums().iter().chain(extents().flat_map(|extent| extent.sums())).copied();
    match Extent::new(first.place(), pages, first.unit_pages(), sums.collect()) {
        Some(extent) => extent,
        None => panic!("extents that join make an extent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::simulated::Simulated;
    use crate::storage::catalog::{ArrayEntry as CatalogEntry, Attributes, Catalog, CatalogChange};
    use crate::storage::encoding::Codec;
    use crate::storage::extent::Place;
    use crate::storage::state::Space;
    use crate::units::PageRange;
    use proptest::prelude::*;

    const STORE: StoreId = *b"a store's uuid..";

    fn written(state: &State) -> Checkpoint {
        let files = Files::new(Arc::new(Simulated::new().unwrap()), true);
        files.create_dir("checkpoint").unwrap();
        let position = Position { file: 0, page: 1 };
        let tail = Tail { tid: state.tid, position, chain: 5 };
        write(&files, &STORE, state, tail, 0).unwrap()
    }

    fn state(arrays: Vec<PageMap>) -> State {
        let mut state = State::new(Tid(9), 3, Catalog::default(), Space::default());
        for pages in arrays {
            let id = state.catalog.next_array();
            let entry = CatalogEntry {
                id,
                shape: Arc::from([1]),
                block_bytes: 1 << 20,
                codec: Codec::default(),
                descriptor: Arc::from("{}"),
                attributes: Attributes::new(),
                created: Tid(1),
                changed: Tid(1),
            };
            let name = Arc::from(format!("a{}", id.0));
            state.catalog.apply(&CatalogChange::CreateArray { name, entry }, Tid(1)).unwrap();
            for extent in pages.stored().unwrap().iter().filter_map(|s| s.source.extent()) {
                state.space.insert(extent.place(), u64::from(extent.stored_pages()));
            }
            state.set_page_map(id, pages);
        }
        state
    }

    fn extent(page: u64, pages: u32, unit_pages: u32) -> Source {
        let units = pages.div_ceil(unit_pages);
        let sums = (0..units).map(|unit| scrambled(page + u64::from(unit * unit_pages))).collect();
        Source::whole(Extent::new(Place { file: 2, page }, pages, unit_pages, sums).unwrap())
    }

    fn scrambled(n: u64) -> u32 {
        u32::try_from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).unwrap()
    }

    /// What each page is: its place, and first page, number of pages and checksum of its unit.
    fn flat(segments: &[Segment]) -> Vec<Option<(Place, u64, usize, u32)>> {
        let mut pages = Vec::new();
        for segment in segments {
            let Source::Extent { extent, skip } = &segment.source else {
                pages.extend((0..segment.pages.count()).map(|_| None));
                continue;
            };
            for page in *skip..*skip + u32::try_from(segment.pages.count()).unwrap() {
                let unit = page / extent.unit_pages();
                let range = extent.unit(unit);
                let first = extent.place().page + u64::from(range.start);
                let place = extent.place().after(u64::from(page));
                pages.push(Some((place, first, range.len(), extent.sums()[unit as usize])));
            }
        }
        pages
    }

    proptest! {
        #[test]
        fn a_checkpoint_answers_every_lookup_as_its_state_does(
            writes in prop::collection::vec(
                (0usize..3, 0u64..200, 1u32..30, 1u32..6, any::<bool>()),
                0..60,
            ),
            probes in prop::collection::vec((0usize..3, 0u64..220, 1u64..60), 20),
        ) {
            let mut arrays = vec![PageMap::new(); 3];
            let mut fresh = 1000;
            for (array, start, pages, unit_pages, hole) in writes {
                let source = match hole {
                    true => Source::Hole,
                    false => extent(fresh, pages, unit_pages),
                };
                // Neighbours in the file, of which some continue each other in the array too.
                fresh += u64::from(pages);
                let pages = PageRange::at(start, u64::from(pages));
                arrays[array].insert(&Segment { pages, source });
            }
            let state = state(arrays);
            let checkpoint = written(&state);
            let read = checkpoint.state();
            prop_assert_eq!(&read.catalog, &state.catalog);
            for (array, start, count) in probes {
                let (id, pages) = (ArrayId(array as u64 + 1), PageRange::at(start, count));
                let lookup = |state: &State| flat(&state.page_map(id).lookup(pages).unwrap());
                prop_assert_eq!(lookup(&read), lookup(&state));
            }
        }
    }

    #[test]
    fn segments_in_any_order_are_found_over_many_pages_of_the_table() {
        let mut arrays = vec![PageMap::new(); 2];
        for n in 0..3000u64 {
            // Block 7 n + 1 of the file for block n: nothing can be joined.
            let pages = PageRange::at(n * 4, 3);
            let map = &mut arrays[usize::from(n >= 1000)];
            map.insert(&Segment { pages, source: extent(n * 7 % 3001 * 16, 3, 2) });
        }
        let state = state(arrays);
        let checkpoint = written(&state);
        assert_eq!(checkpoint.header.segment_pages, 3);
        let read = checkpoint.state();
        for page in (0..12_010).step_by(7) {
            for id in [ArrayId(1), ArrayId(2)] {
                let lookup = |state: &State| {
                    flat(&state.page_map(id).lookup(PageRange::at(page, 9)).unwrap())
                };
                assert_eq!(lookup(&read), lookup(&state), "page {page} of array {id}");
            }
        }
    }

    #[test]
    fn what_was_appended_in_order_costs_little_more_than_its_checksums() {
        let blocks = 8192u64;
        let mut pages = PageMap::new();
        for block in 0..blocks {
            let source = extent(block * 512, 512, 512);
            pages.insert(&Segment { pages: PageRange::at(block * 512, 512), source });
        }
        let checkpoint = written(&state(vec![pages]));
        assert_eq!(checkpoint.header.segment_pages, 1);
        let sums_bytes = blocks * 4;
        assert!(checkpoint.len_bytes() < sums_bytes + (192 << 10), "{}", checkpoint.len_bytes());
        let read = checkpoint.state().page_map(ArrayId(1));
        let last = read.lookup(PageRange::at(blocks * 512 - 1, 1)).unwrap();
        assert_eq!(flat(&last)[0].map(|page| page.0.page), Some(blocks * 512 - 1));
    }

    #[test]
    fn a_checkpoint_that_was_damaged_after_opening_is_made_up_for_by_the_rescue() {
        let mut pages = PageMap::new();
        pages.insert(&Segment { pages: PageRange::at(3, 8), source: extent(50, 8, 2) });
        let state = state(vec![pages]);
        let disk = Simulated::new().unwrap();
        let files = Files::new(Arc::new(disk.clone()), true);
        files.create_dir("checkpoint").unwrap();
        let tail = Tail { tid: Tid(9), position: Position { file: 0, page: 1 }, chain: 5 };
        let checkpoint = write(&files, &STORE, &state, tail, 0).unwrap();
        let file = files.open(&checkpoint_path(Tid(9)), Access::Write).unwrap();
        file.write_at(&[&[1]], PAGE_BYTES + 20).unwrap();
        let lookup = |state: &State| state.page_map(ArrayId(1)).lookup(PageRange::at(0, 20));
        assert!(matches!(lookup(&checkpoint.state()), Err(StorageError::Corrupted { .. })));
        assert!(checkpoint.segments().is_damaged());
        let again = state.clone();
        checkpoint.segments().rescue_with(Box::new(move || Ok(again.clone())));
        assert_eq!(lookup(&checkpoint.state()).unwrap(), lookup(&state).unwrap());
    }
}
