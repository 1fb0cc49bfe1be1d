//! Commit records and whole states as bytes.
//!
//! ```text
//! record   note | catalog changes | extents, each once | data changes
//! state    catalog | space | extents, each once | arrays with their segments
//! ```
//!
//! Numbers are little-endian; texts and lists begin with their length as `u32`.
//!
//! # Invariants
//!
//! 1. Decoding allocates in proportion to the bytes that are there, whatever they say.
//! 2. What is decoded fits itself: ranges do not wrap, segments are not longer than their extents.
//!
//! # Failure
//!
//! Bytes that mean nothing are [`Malformed`]; the caller knows where they lie.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) use super::names::{decode_catalog, encode_catalog};
use super::names::{decode_codec, decode_entry_alone, decode_shape, encode_entry, encode_shape};
use crate::storage::StorageError;
use crate::storage::catalog::{CatalogChange, Owner};
use crate::storage::extent::{EXTENT_PAGES_MAX, FILE_PAGES_MAX};
use crate::storage::extent::{Extent, Place, Segment, Source};
use crate::storage::index::PageMap;
use crate::storage::record::{DataChange, Draft, DraftSource, Record};
use crate::storage::state::{Space, State};
use crate::units::{ARRAY_PAGES_MAX, ArrayId, PAGE_BYTES, PageRange, Tid};

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Malformed(pub(super) String);

pub(super) fn malformed<T>(what: &str) -> Result<T, Malformed> {
    Err(Malformed(what.to_owned()))
}

/// Appends numbers and texts to bytes.
#[derive(Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    pub(super) fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn i64(&mut self, n: i64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// A length or a count.
    ///
    /// Panics above 2^32: names, notes and lists of one commit are bounded far below.
    pub(super) fn count(&mut self, n: usize) {
        let Ok(n) = u32::try_from(n) else { panic!("a list of {n} does not fit a commit record") };
        self.u32(n);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Takes numbers and texts off the front of bytes.
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return malformed("it ends too early");
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((taken, rest)) = self.0.split_first_chunk::<N>() else {
            return malformed("it ends too early");
        };
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    /// A count of things of at least `bytes_each` bytes, which must be there (invariant 1).
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count.saturating_mul(bytes_each) > self.0.len() {
            return malformed("a list is longer than the bytes that follow");
        }
        Ok(count)
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, Malformed> {
        self.str().map(Arc::from)
    }

    pub(super) fn str(&mut self) -> Result<&'a str, Malformed> {
        let len = self.count(1)?;
        match std::str::from_utf8(self.bytes(len)?) {
            Ok(text) => Ok(text),
            Err(_) => malformed("a text is not UTF-8"),
        }
    }

    /// Nothing is left.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { malformed("bytes are left over at its end") }
    }
}

/// A draft as bytes: what goes into the metadata of its frame, and the pages behind it.
pub(super) struct EncodedDraft<'a> {
    pub(super) body: Vec<u8>,
    pub(super) inline: Vec<&'a [u8]>,
}

const HOLE: u8 = 0;
const STORED: u8 = 1;
const INLINE: u8 = 2;

/// Encodes everything of a draft but tid, base and time, which the frame carries.
pub(super) fn encode_draft<'a>(draft: &Draft<'a>) -> EncodedDraft<'a> {
    let mut out = Encoder::default();
    let mut inline = Vec::new();
    let mut inline_pages = 0u64;
    out.text(&draft.note);
    out.count(draft.catalog.len());
    for change in &draft.catalog {
        encode_change(&mut out, change);
    }
    let stored = |source: &'_ DraftSource<'a>| match source {
        DraftSource::Stored(Source::Extent { extent, .. }) => Some(Arc::clone(extent)),
        _ => None,
    };
    let extents = ExtentTable::of(draft.data.iter().filter_map(|change| stored(&change.source)));
    extents.encode(&mut out);
    out.count(draft.data.len());
    for change in &draft.data {
        out.u64(change.array.0);
        encode_pages(&mut out, change.pages);
        out.u8(u8::from(change.carried));
        match &change.source {
            DraftSource::Stored(source) => extents.encode_source(&mut out, source),
            DraftSource::Inline(bytes) => {
                let pages = bytes.len() as u64 / PAGE_BYTES;
                assert!(
                    bytes.len() as u64 == change.pages.len_bytes(),
                    "inline bytes are exactly the pages they stand for"
                );
                out.u8(INLINE);
                out.u64(inline_pages);
                inline_pages += pages;
                inline.push(*bytes);
            }
        }
    }
    EncodedDraft { body: out.0, inline }
}

/// What a frame says about the record in it.
pub(super) struct RecordHead<'a> {
    pub(super) tid: Tid,
    pub(super) base: Tid,
    pub(super) time_ns: i64,
    /// Where the inline pages lie.
    pub(super) inline_at: Place,
    /// The CRC-32 of each inline page.
    pub(super) inline_sums: &'a [u32],
}

/// Decodes what [`encode_draft`] encoded.
pub(super) fn decode_record(head: &RecordHead<'_>, body: &[u8]) -> Result<Record, Malformed> {
    let mut from = Decoder(body);
    let note = from.text()?;
    let catalog_count = from.count(1)?;
    let catalog = (0..catalog_count).map(|_| decode_change(&mut from)).collect::<Result<_, _>>()?;
    let extents = decode_extents(&mut from)?;
    let data_count = from.count(26)?;
    let mut data = Vec::with_capacity(data_count);
    for _ in 0..data_count {
        let array = ArrayId(from.u64()?);
        let pages = decode_pages(&mut from)?;
        let carried = decode_flag(&mut from)?;
        let source = match from.u8()? {
            INLINE => inline_source(head, from.u64()?, pages.count())?,
            kind => match decode_source(&mut from, kind, &extents, pages)? {
                Source::Extent { extent, .. } if extent.is_ahead(head.inline_at) => {
                    return malformed("it names data of the log that were not there yet");
                }
                source => source,
            },
        };
        data.push(DataChange { array, segment: Segment { pages, source }, carried });
    }
    from.finish()?;
    let (tid, base, time_ns) = (head.tid, head.base, head.time_ns);
    Ok(Record { tid, base, time_ns, note, catalog, data })
}

fn inline_source(head: &RecordHead<'_>, first: u64, pages: u64) -> Result<Source, Malformed> {
    let wanted = || {
        let start = usize::try_from(first).ok()?;
        let end = start.checked_add(usize::try_from(pages).ok()?)?;
        let sums = head.inline_sums.get(start..end)?;
        let place = Place { page: head.inline_at.page.checked_add(first)?, ..head.inline_at };
        Extent::new(place, u32::try_from(pages).ok()?, 1, Box::from(sums))
    };
    wanted().map(Source::whole).ok_or_else(|| Malformed("inline pages are missing".to_owned()))
}

fn encode_pages(out: &mut Encoder, pages: PageRange) {
    out.u64(pages.start);
    out.u64(pages.count());
}

fn decode_pages(from: &mut Decoder<'_>) -> Result<PageRange, Malformed> {
    let (start, count) = (from.u64()?, from.u64()?);
    match start.checked_add(count) {
        Some(end) if count > 0 && end <= ARRAY_PAGES_MAX => Ok(PageRange::new(start, end)),
        _ => malformed("a range of pages is empty or longer than any array"),
    }
}

/// The extents that sources name, each once.
struct ExtentTable {
    extents: Vec<Arc<Extent>>,
    numbers: HashMap<(Place, u32, u32), usize>,
}

impl ExtentTable {
    fn of(all: impl Iterator<Item = Arc<Extent>>) -> Self {
        let mut table = Self { extents: Vec::new(), numbers: HashMap::new() };
        for extent in all {
            let number = table.extents.len();
            if *table.numbers.entry(identity(&extent)).or_insert(number) == number {
                table.extents.push(extent);
            }
        }
        table
    }

    fn encode(&self, out: &mut Encoder) {
        out.count(self.extents.len());
        for extent in &self.extents {
            out.u32(extent.place().file);
            out.u64(extent.place().page);
            out.u32(extent.pages());
            out.u32(extent.units_word());
            extent.sums().iter().for_each(|&sum| out.u32(sum));
        }
    }

    fn encode_source(&self, out: &mut Encoder, source: &Source) {
        match source {
            Source::Hole => out.u8(HOLE),
            Source::Extent { extent, skip } => {
                out.u8(STORED);
                out.count(self.numbers[&identity(extent)]);
                out.u32(*skip);
            }
        }
    }
}

fn identity(extent: &Extent) -> (Place, u32, u32) {
    (extent.place(), extent.pages(), extent.units_word())
}

fn decode_extents(from: &mut Decoder<'_>) -> Result<Vec<Arc<Extent>>, Malformed> {
    let count = from.count(24)?;
    let mut extents = Vec::with_capacity(count);
    let mut known = HashSet::new();
    for _ in 0..count {
        let place = Place { file: from.u32()?, page: from.u64()? };
        let (pages, units) = (from.u32()?, from.u32()?);
        if units == 0 || pages > EXTENT_PAGES_MAX {
            return malformed("an extent has an impossible length");
        }
        let sums = from.bytes(Extent::units_count(pages, units) * 4)?;
        let sums = sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let Some(extent) = Extent::new(place, pages, units, sums) else {
            return malformed("an extent does not fit itself");
        };
        if !known.insert(identity(&extent)) {
            return malformed("an extent is listed twice");
        }
        extents.push(Arc::new(extent));
    }
    Ok(extents)
}

fn decode_source(
    from: &mut Decoder<'_>,
    kind: u8,
    extents: &[Arc<Extent>],
    pages: PageRange,
) -> Result<Source, Malformed> {
    match kind {
        HOLE => Ok(Source::Hole),
        STORED => {
            let (number, skip) = (from.u32()? as usize, from.u32()?);
            match extents.get(number) {
                Some(extent) if u64::from(skip) + pages.count() <= u64::from(extent.pages()) => {
                    Ok(Source::Extent { extent: Arc::clone(extent), skip })
                }
                _ => malformed("a segment is longer than its extent"),
            }
        }
        _ => malformed("unknown kind of data change"),
    }
}

fn encode_change(out: &mut Encoder, change: &CatalogChange) {
    match change {
        CatalogChange::CreateArray { name, entry } => {
            out.u8(0);
            out.text(name);
            encode_entry(out, entry);
        }
        CatalogChange::CreateGroup { name } => {
            out.u8(1);
            out.text(name);
        }
        CatalogChange::Remove { name } => {
            out.u8(2);
            out.text(name);
        }
        CatalogChange::Move { from, to } => {
            out.u8(3);
            out.text(from);
            out.text(to);
        }
        CatalogChange::Shape { array, shape, layout } => {
            out.u8(4);
            out.u64(array.0);
            encode_shape(out, shape);
            out.u8(u8::from(*layout));
        }
        CatalogChange::Codec { array, codec } => {
            out.u8(7);
            out.u64(array.0);
            out.u32(codec.word());
        }
        CatalogChange::Attribute { owner, key, value } => {
            out.u8(5);
            match owner {
                Owner::Array(array) => {
                    out.u8(0);
                    out.u64(array.0);
                }
                Owner::Group(name) => {
                    out.u8(1);
                    out.text(name);
                }
            }
            out.text(key);
            out.u8(u8::from(value.is_some()));
            value.iter().for_each(|value| out.text(value));
        }
        CatalogChange::Tag { tag, tid } => {
            out.u8(6);
            out.text(tag);
            out.u8(u8::from(tid.is_some()));
            tid.iter().for_each(|tid| out.u64(tid.0));
        }
    }
}

fn decode_change(from: &mut Decoder<'_>) -> Result<CatalogChange, Malformed> {
    Ok(match from.u8()? {
        0 => CatalogChange::CreateArray { name: from.text()?, entry: decode_entry_alone(from)? },
        1 => CatalogChange::CreateGroup { name: from.text()? },
        2 => CatalogChange::Remove { name: from.text()? },
        3 => CatalogChange::Move { from: from.text()?, to: from.text()? },
        4 => CatalogChange::Shape {
            array: ArrayId(from.u64()?),
            shape: decode_shape(from)?,
            layout: decode_flag(from)?,
        },
        5 => {
            let owner = match decode_flag(from)? {
                false => Owner::Array(ArrayId(from.u64()?)),
                true => Owner::Group(from.text()?),
            };
            let key = from.text()?;
            let value = if decode_flag(from)? { Some(from.text()?) } else { None };
            CatalogChange::Attribute { owner, key, value }
        }
        6 => {
            let tag = from.text()?;
            let tid = if decode_flag(from)? { Some(Tid(from.u64()?)) } else { None };
            CatalogChange::Tag { tag, tid }
        }
        7 => {
            CatalogChange::Codec { array: ArrayId(from.u64()?), codec: decode_codec(from.u32()?)? }
        }
        _ => return malformed("unknown kind of catalog change"),
    })
}

pub(super) fn decode_flag(from: &mut Decoder<'_>) -> Result<bool, Malformed> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => malformed("a flag is neither 0 nor 1"),
    }
}

/// Encodes the ranges of a space.
pub(super) fn encode_space(out: &mut Encoder, space: &Space) {
    out.count(space.iter().count());
    for (place, pages) in space.iter() {
        out.u32(place.file);
        out.u64(place.page);
        out.u64(pages);
    }
}

/// Decodes what [`encode_space`] encoded.
pub(super) fn decode_space(from: &mut Decoder<'_>) -> Result<Space, Malformed> {
    let mut space = Space::default();
    for _ in 0..from.count(20)? {
        let place = Place { file: from.u32()?, page: from.u64()? };
        let pages = from.u64()?;
        if place.in_log() || place.page.saturating_add(pages) > FILE_PAGES_MAX {
            return malformed("a range of space is in no data file");
        }
        space.insert(place, pages);
    }
    Ok(space)
}

/// Encodes a whole state but its tid and time, which the frame carries.
///
/// # Errors
///
/// [`StorageError`] if the checkpoint under the state cannot be read.
pub(super) fn encode_state(state: &State) -> Result<Vec<u8>, StorageError> {
    let mut arrays = Vec::new();
    for (array, pages) in state.page_maps() {
        arrays.push((array, pages.stored()?));
    }
    let mut out = Encoder::default();
    encode_catalog(&mut out, &state.catalog);
    encode_space(&mut out, &state.space);
    let segments = arrays.iter().flat_map(|(_, segments)| segments);
    let extents = ExtentTable::of(segments.filter_map(|segment| match &segment.source {
        Source::Extent { extent, .. } => Some(Arc::clone(extent)),
        Source::Hole => None,
    }));
    extents.encode(&mut out);
    out.count(arrays.len());
    for (array, segments) in &arrays {
        out.u64(array.0);
        out.count(segments.len());
        for segment in segments {
            encode_pages(&mut out, segment.pages);
            extents.encode_source(&mut out, &segment.source);
        }
    }
    Ok(out.0)
}

/// Decodes what [`encode_state`] encoded.
pub(super) fn decode_state(tid: Tid, time_ns: i64, body: &[u8]) -> Result<State, Malformed> {
    let mut from = Decoder(body);
    let catalog = decode_catalog(&mut from)?;
    let space = decode_space(&mut from)?;
    let mut state = State::new(tid, time_ns, catalog, space);
    let extents = decode_extents(&mut from)?;
    for _ in 0..from.count(12)? {
        let array = ArrayId(from.u64()?);
        let mut pages = PageMap::new();
        for _ in 0..from.count(17)? {
            let range = decode_pages(&mut from)?;
            let kind = from.u8()?;
            let source = decode_source(&mut from, kind, &extents, range)?;
            if source.extent().is_some_and(|extent| !state.space.holds(extent)) {
                return malformed("an extent lies outside of the space in use");
            }
            pages.insert(&Segment { pages: range, source });
        }
        if state.catalog.array_by_id(array).is_none() {
            return malformed("it has data of an array that is not");
        }
        state.set_page_map(array, pages);
    }
    from.finish()?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::catalog::{ArrayEntry, Catalog};
    use crate::storage::encoding::Codec;
    use crate::storage::extent::IN_LOG;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Arc<str>> {
        "[a-z]{1,6}(/[a-z]{1,3})?".prop_map(Arc::from)
    }

    fn entry() -> impl Strategy<Value = ArrayEntry> {
        let attributes = prop::collection::vec((text(), text()), 0..3);
        let shape = prop::collection::vec(any::<u64>(), 0..4);
        (0..ArrayId::BELIEVED_MAX.0, shape, text(), attributes).prop_map(
            |(id, shape, descriptor, attributes)| ArrayEntry {
                id: ArrayId(id),
                shape: Arc::from(shape),
                block_bytes: 1 << 20,
                codec: Codec::default(),
                descriptor,
                attributes: attributes.into_iter().collect(),
                created: Tid(id / 2),
                changed: Tid(id / 3),
            },
        )
    }

    fn change() -> impl Strategy<Value = CatalogChange> {
        let owner = prop_oneof![
            any::<u64>().prop_map(|n| Owner::Array(ArrayId(n))),
            text().prop_map(Owner::Group)
        ];
        let shape = prop::collection::vec(any::<u64>(), 0..4).prop_map(Arc::from);
        prop_oneof![
            (text(), entry()).prop_map(|(name, entry)| CatalogChange::CreateArray { name, entry }),
            text().prop_map(|name| CatalogChange::CreateGroup { name }),
            text().prop_map(|name| CatalogChange::Remove { name }),
            (text(), text()).prop_map(|(from, to)| CatalogChange::Move { from, to }),
            (any::<u64>(), shape, any::<bool>()).prop_map(|(array, shape, layout)| {
                CatalogChange::Shape { array: ArrayId(array), shape, layout }
            }),
            (owner, text(), prop::option::of(text()))
                .prop_map(|(owner, key, value)| CatalogChange::Attribute { owner, key, value }),
            (text(), prop::option::of(any::<u64>()))
                .prop_map(|(tag, tid)| CatalogChange::Tag { tag, tid: tid.map(Tid) }),
        ]
    }

    fn source() -> impl Strategy<Value = (Source, u64)> {
        let extent = (0u32..9, 0u64..1 << 40, 1u32..40, 1u32..9, 0u32..40, 1u32..40);
        let stored = extent.prop_map(|(file, page, pages, unit, skip, count)| {
            let skip = skip % pages;
            let count = u64::from(1 + (count - 1) % (pages - skip));
            let sums = (0..pages.div_ceil(unit)).map(|n| n ^ pages).collect();
            let extent = Extent::new(Place { file, page }, pages, unit, sums).unwrap();
            (Source::Extent { extent: Arc::new(extent), skip }, count)
        });
        prop_oneof![4 => stored, 1 => (1u64..99).prop_map(|count| (Source::Hole, count))]
    }

    fn decoded(record: &Record, inline_sums: &[u32], body: &[u8]) -> Result<Record, Malformed> {
        let head = RecordHead {
            tid: record.tid,
            base: record.base,
            time_ns: record.time_ns,
            inline_at: Place { file: IN_LOG, page: 7 },
            inline_sums,
        };
        decode_record(&head, body)
    }

    proptest! {
        #[test]
        fn a_record_decodes_to_what_was_encoded_and_damage_to_an_error_or_another_record(
            note in text(),
            catalog in prop::collection::vec(change(), 0..5),
            stored in prop::collection::vec((any::<u64>(), 0u64..1 << 50, source()), 0..6),
            inline in 0usize..4,
            cut in any::<prop::sample::Index>(),
            flipped in any::<prop::sample::Index>(),
        ) {
            let bytes = vec![7; 2 * crate::units::PAGE_LEN];
            let sums = vec![crc32fast::hash(&bytes[..crate::units::PAGE_LEN]); 2 * inline];
            let stored_changes = stored.iter().map(|(array, start, (source, count))| {
                let pages = PageRange::at(*start, *count);
                let source = source.clone();
                let segment = Segment { pages, source };
                DataChange { array: ArrayId(*array), segment, carried: array % 2 == 0 }
            });
            let inline_changes = (0..inline as u64).map(|n| {
                let place = Place { file: IN_LOG, page: 7 + 2 * n };
                let extent = Extent::new(place, 2, 1, Box::from(&sums[..2])).unwrap();
                let segment = Segment { pages: PageRange::at(n, 2), source: Source::whole(extent) };
                DataChange { array: ArrayId(n), segment, carried: n % 2 == 0 }
            });
            let data: Vec<DataChange> = stored_changes.chain(inline_changes).collect();
            let (tid, base, time_ns) = (Tid(5), Tid(3), -9);
            let record = Record { tid, base, time_ns, note, catalog, data };
            let changes = record.data.iter().map(|change| {
                let is_inline = change.segment.source.place().is_some_and(Place::in_log);
                let source = match is_inline {
                    true => DraftSource::Inline(&bytes),
                    false => DraftSource::Stored(change.segment.source.clone()),
                };
                let (array, pages, carried) = (change.array, change.segment.pages, change.carried);
                crate::storage::record::DraftChange { array, pages, source, carried }
            });
            let (note, catalog) = (Arc::clone(&record.note), record.catalog.clone());
            let draft = Draft { tid, base, time_ns, note, catalog, data: changes.collect() };
            let encoded = encode_draft(&draft);
            prop_assert_eq!(encoded.inline.len(), inline);
            prop_assert_eq!(&decoded(&record, &sums, &encoded.body).unwrap(), &record);
            let mut body = encoded.body;
            let flipped = flipped.index(body.len() * 8);
            body[flipped / 8] ^= 1 << (flipped % 8);
            let _ = decoded(&record, &sums, &body);
            body.truncate(cut.index(body.len()));
            let _ = decoded(&record, &sums, &body);
        }

        #[test]
        fn a_state_decodes_to_what_was_encoded(
            names in prop::collection::btree_set(text(), 0..6),
            attributes in prop::collection::vec((text(), text()), 0..3),
            segments in prop::collection::vec((0u64..1000, source()), 0..12),
            flipped in any::<prop::sample::Index>(),
        ) {
            let mut state = State::new(Tid(8), 77, Catalog::default(), Space::default());
            for name in names {
                let id = state.catalog.next_array();
                let shape = Arc::from([4]);
                let entry = ArrayEntry {
                    id,
                    shape,
                    block_bytes: 1 << 16,
                    codec: Codec::default(),
                    descriptor: Arc::from("{}"),
                    attributes: attributes.iter().cloned().collect(),
                    created: Tid(1),
                    changed: Tid(2),
                };
                let _ = state.catalog.apply(&CatalogChange::CreateArray { name, entry }, Tid(4));
            }
            for (key, value) in attributes {
                let owner = Owner::Group(Arc::from(""));
                let value = Some(value);
                let change = CatalogChange::Attribute { owner, key, value };
                state.catalog.apply(&change, Tid(4)).unwrap();
            }
            let arrays: Vec<ArrayId> = state.catalog.arrays().map(|entry| entry.id).collect();
            for (i, (start, (source, count))) in segments.into_iter().enumerate() {
                let Some(&array) = arrays.get(i % arrays.len().max(1)) else { break };
                let mut pages = state.page_map(array);
                let range = PageRange::at(start, count);
                if let Some(extent) = source.extent() {
                    state.space.insert(extent.place(), u64::from(extent.stored_pages()));
                }
                pages.insert(&Segment { pages: range, source });
                state.set_page_map(array, pages);
            }
            let mut body = encode_state(&state).unwrap();
            let decoded = decode_state(Tid(8), 77, &body).unwrap();
            prop_assert_eq!(&decoded.catalog, &state.catalog);
            prop_assert_eq!(&decoded.space, &state.space);
            for array in arrays {
                let stored = |state: &State| state.page_map(array).stored().unwrap();
                prop_assert_eq!(stored(&decoded), stored(&state));
            }
            let flipped = flipped.index(body.len() * 8);
            body[flipped / 8] ^= 1 << (flipped % 8);
            let _ = decode_state(Tid(8), 77, &body);
        }
    }
}
