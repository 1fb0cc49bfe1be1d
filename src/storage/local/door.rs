//! A door for fuzzers: decoders that nobody outside may call, and checksums put right.
//!
//! ```text
//! any bytes -> log, record, state, catalog, checkpoint, format -> Ok or Err
//! a file, changed -> seal_log, seal_checkpoint, seal_format -> the same, with right checksums
//! ```
//!
//! Damage that a checksum finds is never decoded. What a program with a bug, or an attacker, wrote
//! *with* right checksums is; so the checksums are made right before bytes go in.
//!
//! # Invariants
//!
//! 1. Nothing here is part of the library: the module exists with the feature `fuzzing` only.
//! 2. Bytes that were sealed decode as far as the bytes themselves let them.

use std::sync::Arc;

use super::checkpoint::{self, Checkpoint};
use super::codec::{self, Decoder, Encoder, Malformed, RecordHead};
use super::frame::{HEAD_BYTES, PAYLOAD_BYTES, SECTOR_BYTES, SUMS_BYTES, Seal};
use super::log::{Log, Step};
use super::log_header::log_path;
use super::segment_file::StoredSegment;
use super::{Format, LocalOptions, format, recovery, segment_file, to_usize};
use crate::storage::StorageError;
use crate::storage::backend::simulated::Simulated;
use crate::storage::backend::{Backend, Files};
use crate::storage::extent::{IN_LOG, Place};
use crate::storage::state::State;
use crate::units::{PAGE_BYTES, PAGE_LEN, PageRange, Tid};

/// The store that sealed bytes belong to.
pub const STORE: [u8; 16] = *b"a hostile store.";

/// More segments than any file that is tried has.
const SEGMENTS_MAX: usize = 1 << 20;

fn files_with(path: &str, bytes: &[u8]) -> Result<Files, StorageError> {
    let failed = |source| StorageError::Io { action: "create", path: path.to_owned(), source };
    let disk: Arc<dyn Backend> = Arc::new(Simulated::new().map_err(failed)?);
    let files = Files::new(disk, true);
    for directory in super::DIRECTORIES {
        files.create_dir(directory)?;
    }
    files.create(path)?.write_at(&[bytes], 0)?;
    Ok(files)
}

/// The number that a log file says it has.
#[must_use]
pub fn log_number(bytes: &[u8]) -> u32 {
    number_at(bytes, 28)
}

/// Reads a log file with this content from its header to its end.
///
/// # Errors
///
/// [`StorageError`] for bytes that are no log.
pub fn log(bytes: &[u8]) -> Result<usize, StorageError> {
    let path = log_path(log_number(bytes));
    let files = files_with(&path, bytes)?;
    let (chain, _) = recovery::find_chain(&files, &STORE)?;
    let options = LocalOptions::default();
    let log = Log::new(files, STORE, options.log_roll_bytes, chain, recovery::NOWHERE);
    let (mut at, mut state) = recovery::beginning(&log, chain)?;
    let mut count = 0;
    while let Step::Record(record, after, _) = log.step(&at, chain.last, true)? {
        state = state.apply(&record)?;
        at = after;
        count += 1;
    }
    log.has_successor(at.tid, at.position.file, at.position.page)?;
    let how = recovery::How { until: Tid(u64::MAX), mend: true, tidy: true };
    recovery::recover(&files_with(&path, bytes)?, &STORE, &options, how)?;
    Ok(count)
}

/// Decodes the body of a commit record with as many inline pages, applies it, and says whether it
/// decoded.
#[must_use]
pub fn record(body: &[u8], inline_pages: u8) -> bool {
    let sums = vec![0; usize::from(inline_pages)];
    let head = RecordHead {
        tid: Tid(1),
        base: Tid(0),
        time_ns: 0,
        inline_at: Place { file: IN_LOG | 7, page: 2 },
        inline_sums: &sums,
    };
    let Ok(record) = codec::decode_record(&head, body) else { return false };
    if let Ok(state) = State::default().apply(&record) {
        encode_again(&state);
    }
    true
}

/// Decodes the body of a whole state; says whether it decoded.
///
/// # Panics
///
/// If what was decoded is encoded as something else.
#[must_use]
pub fn state(body: &[u8]) -> bool {
    match codec::decode_state(Tid(3), 0, body) {
        Ok(state) => {
            encode_again(&state);
            true
        }
        Err(Malformed(_)) => false,
    }
}

fn encode_again(state: &State) {
    let stored = state.page_maps().flat_map(|(_, pages)| pages.stored().unwrap_or_default());
    let mut extents = stored.filter_map(|segment| segment.source.extent().cloned());
    if extents.any(|extent| extent.place().in_log()) {
        // Who writes a whole state moves these to data files first.
        return;
    }
    let Ok(body) = codec::encode_state(state) else { panic!("a state in memory is encoded") };
    let Ok(again) = codec::decode_state(state.tid, state.time_ns, &body) else {
        panic!("what was encoded is decoded")
    };
    assert!(again.catalog == state.catalog, "the catalog survives");
    assert!(again.space == state.space, "the space survives");
    for (array, pages) in state.page_maps() {
        let (Ok(before), Ok(after)) = (pages.stored(), again.page_map(array).stored()) else {
            panic!("a map in memory is read")
        };
        assert!(before == after, "the segments of {array} survive");
    }
}

/// Decodes a catalog; says whether it decoded.
///
/// # Panics
///
/// If what was decoded is encoded as something else.
#[must_use]
pub fn catalog(bytes: &[u8]) -> bool {
    let mut from = Decoder(bytes);
    let Ok(catalog) = codec::decode_catalog(&mut from) else { return false };
    let mut out = Encoder::default();
    codec::encode_catalog(&mut out, &catalog);
    let again = codec::decode_catalog(&mut Decoder(&out.0));
    assert!(again.is_ok_and(|again| again == catalog), "the catalog survives");
    true
}

/// Opens a file as the checkpoint of the commit that it says and looks at everything in it.
///
/// # Errors
///
/// [`StorageError`] for bytes that are no checkpoint.
///
/// # Panics
///
/// If a lookup finds segments that do not follow each other.
pub fn checkpoint(bytes: &[u8]) -> Result<usize, StorageError> {
    let tid = Tid(long_at(bytes, 28));
    let files = files_with(&checkpoint::checkpoint_path(tid), bytes)?;
    let checkpoint = Checkpoint::open(&files, &STORE, tid)?;
    let state = checkpoint.state();
    let mut found = 0;
    for (_, pages) in state.page_maps() {
        for start in [0, 1, 1 << 20, u64::MAX >> 13] {
            pages.lookup(PageRange::new(start, start + 1))?;
        }
        // Who maps what was found relies on this: one page has one content.
        let stored = pages.stored()?;
        let follow = stored.windows(2).all(|pair| pair[0].pages.end <= pair[1].pages.start);
        assert!(follow, "segments overlap: {stored:?}");
        found += stored.len();
        assert!(found <= SEGMENTS_MAX, "more segments than there are bytes");
    }
    checkpoint.segments().verify()?;
    Ok(found)
}

/// Reads `format.json`; says whether it is one.
///
/// # Errors
///
/// [`StorageError`] for bytes that are none.
pub fn format(bytes: &[u8]) -> Result<Format, StorageError> {
    Format::read(&files_with(format::FORMAT_PATH, bytes)?)
}

/// Puts the checksum of a `format.json` right and makes it that of [`STORE`].
pub fn seal_format(bytes: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let id = uuid::Uuid::from_bytes(STORE).to_string();
    let text = match text.split_once("\"uuid\": \"") {
        Some((before, after)) if after.is_char_boundary(36) && after.len() >= 36 => {
            format!("{before}\"uuid\": \"{id}{}", &after[36..])
        }
        _ => text,
    };
    let Some((said, _)) = text.split_once("  \"checksum\"") else { return };
    let sum = crc32fast::hash(said.as_bytes());
    *bytes = format!("{said}  \"checksum\": \"crc32:{sum:08x}\"\n}}\n").into_bytes();
}

/// A place in the log and the chain value there.
#[derive(Clone, Copy, Debug)]
pub struct ChainAt {
    /// Number of the log file.
    pub file: u32,
    /// Page.
    pub page: u64,
    /// Chain value.
    pub value: u32,
}

/// Puts the checksums of log file `number` right and makes it one of [`STORE`].
///
/// With `chain`, what every frame says of the one before it is put right as well. Gives the chain
/// value after each frame.
pub fn seal_log(bytes: &mut [u8], number: u32, chain: bool) -> Vec<ChainAt> {
    let seal = Seal::new(&STORE, number);
    if let Some(header) = bytes.get_mut(..PAGE_LEN) {
        header[12..28].copy_from_slice(&STORE);
        let sealed = seal.sectors(0, &header[..PAYLOAD_BYTES]);
        header[..SECTOR_BYTES].copy_from_slice(&sealed[..SECTOR_BYTES]);
    }
    let before = number_at(bytes, 44);
    let mut tails = vec![ChainAt { file: number, page: 1, value: before }];
    let (mut page, mut previous) = (1, chain.then_some(before));
    while let Some(frame) = bytes.get_mut(to_usize(page * PAGE_BYTES)..)
        && frame.len() >= SECTOR_BYTES
    {
        let (value, pages) = seal_frame(&seal, page, frame, previous);
        previous = chain.then_some(value);
        page += pages;
        tails.push(ChainAt { file: number, page, value });
    }
    tails
}

/// Seals the frame at the front of `bytes`; gives its chain value and its length in pages.
fn seal_frame(seal: &Seal, page: u64, bytes: &mut [u8], previous: Option<u32>) -> (u32, u64) {
    let (body_len, inline) = (long_at(bytes, 8), u64::from(number_at(bytes, 16)));
    let pages_left = bytes.len() as u64 / PAGE_BYTES;
    let rest_len = (inline * SUMS_BYTES as u64).saturating_add(body_len);
    let payload_len = rest_len.saturating_add(HEAD_BYTES as u64);
    let metadata =
        payload_len.div_ceil(PAYLOAD_BYTES as u64).div_ceil(8).clamp(1, pages_left.max(1));
    let metadata_len = to_usize(metadata * PAGE_BYTES).min(bytes.len());
    let sectors = bytes[..metadata_len].chunks(SECTOR_BYTES);
    let mut payload: Vec<u8> =
        sectors.flat_map(|sector| &sector[..sector.len().min(PAYLOAD_BYTES)]).copied().collect();
    payload.truncate(to_usize(payload_len.max(HEAD_BYTES as u64)));
    let inline_bytes = &bytes[metadata_len..];
    for (page, sums) in inline_bytes
        .chunks_exact(PAGE_LEN)
        .zip(payload[HEAD_BYTES..].chunks_exact_mut(SUMS_BYTES))
        .take(to_usize(inline))
    {
        let parts = std::iter::once(page).chain(page.chunks(SECTOR_BYTES));
        for (part, sum) in parts.zip(sums.chunks_exact_mut(4)) {
            sum.copy_from_slice(&crc32fast::hash(part).to_le_bytes());
        }
    }
    if let Some(previous) = previous {
        payload[20..24].copy_from_slice(&previous.to_le_bytes());
    }
    let rest_sum = crc32fast::hash(&payload[HEAD_BYTES..]);
    payload[24..28].copy_from_slice(&rest_sum.to_le_bytes());
    let sealed = seal.sectors(page, &payload);
    let len = sealed.len().min(bytes.len());
    bytes[..len].copy_from_slice(&sealed[..len]);
    (
        crc32fast::hash(&bytes[..metadata_len]),
        metadata.saturating_add(inline).min(pages_left.max(1)),
    )
}

/// Puts the checksums of a checkpoint right and makes it one of [`STORE`], with the chain value
/// that `tails` has for its place in the log.
pub fn seal_checkpoint(bytes: &mut [u8], tails: &[ChainAt]) {
    if bytes.len() < PAGE_LEN {
        return;
    }
    bytes[12..28].copy_from_slice(&STORE);
    let (file, page) = (number_at(bytes, 36), long_at(bytes, 40));
    if let Some(tail) = tails.iter().find(|tail| (tail.file, tail.page) == (file, page)) {
        bytes[48..52].copy_from_slice(&tail.value.to_le_bytes());
    }
    let (tid, segments, sums) = (Tid(long_at(bytes, 28)), long_at(bytes, 64), long_at(bytes, 72));
    let tables = bytes[PAGE_LEN..].chunks_exact_mut(segment_file::PAGE_BYTES);
    let numbers = (0..segments).map(|n| (0, n)).chain((0..sums).map(|n| (1, n)));
    for (page, (kind, number)) in tables.zip(numbers) {
        let (payload, sum) = page.split_at_mut(segment_file::PAGE_BYTES - 4);
        let right = segment_file::page_sum(&STORE, tid, kind, number, payload);
        sum.copy_from_slice(&right.to_le_bytes());
    }
    for at in [80, 100, 120] {
        let (start, len) = (to_usize(long_at(bytes, at)), to_usize(long_at(bytes, at + 8)));
        let section = bytes.get(start..).and_then(|rest| rest.get(..len));
        let sum = crc32fast::hash(section.unwrap_or_default());
        bytes[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
    }
    let sealed = Seal::new(&STORE, u32::MAX).sectors(0, &bytes[..PAYLOAD_BYTES]);
    bytes[..SECTOR_BYTES].copy_from_slice(&sealed[..SECTOR_BYTES]);
}

/// What is done to stored segments before a checkpoint is sealed.
#[derive(Clone, Copy, Debug)]
pub enum SegmentChange {
    /// The segment is put in place of the one after it.
    Doubled,
    /// It begins a page earlier in the array.
    Earlier,
    /// It begins a page later in the array.
    Later,
    /// It has a page more, and so has its extent.
    Longer,
    /// It changes places with the one after it.
    Swapped,
}

/// Changes segment `number` of a checkpoint; nothing happens if it has not so many.
pub fn change_segment(bytes: &mut [u8], number: usize, change: SegmentChange) {
    let len = StoredSegment::BYTES;
    let Some(both) = bytes.get_mut(PAGE_LEN + number * len..PAGE_LEN + (number + 2) * len) else {
        return;
    };
    let (this, next) = both.split_at_mut(len);
    let add = |field: &mut [u8], more: u64| {
        let sum = long_at(field, 0).wrapping_add(more).to_le_bytes();
        field.copy_from_slice(&sum[..field.len()]);
    };
    match change {
        SegmentChange::Doubled => next.copy_from_slice(this),
        SegmentChange::Earlier => add(&mut this[..8], u64::MAX),
        SegmentChange::Later => add(&mut this[..8], 1),
        SegmentChange::Longer => {
            add(&mut this[8..16], 1);
            // Together with the length of a unit, which stands behind that of the extent.
            add(&mut this[28..36], 1 | 1 << 32);
        }
        SegmentChange::Swapped => this.swap_with_slice(next),
    }
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().map_or(0, u32::from_le_bytes)
}

fn long_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().map_or(0, u64::from_le_bytes)
}

/// The bodies of the whole frames of kind `kind` in a sealed log, each with its number of inline
/// pages.
#[must_use]
pub fn bodies(log: &[u8], kind: u32) -> Vec<(u8, Vec<u8>)> {
    let mut bodies = Vec::new();
    let mut page = 1;
    while let Some(frame) = log.get(to_usize(page * PAGE_BYTES)..).filter(|rest| !rest.is_empty()) {
        let inline = u64::from(number_at(frame, 16));
        let len = HEAD_BYTES as u64 + inline * SUMS_BYTES as u64 + long_at(frame, 8);
        let sectors = frame.chunks(SECTOR_BYTES).flat_map(|sector| &sector[..PAYLOAD_BYTES]);
        let payload: Vec<u8> = sectors.take(to_usize(len)).copied().collect();
        let start = HEAD_BYTES + to_usize(inline) * SUMS_BYTES;
        if number_at(frame, 4) == kind {
            let inline = u8::try_from(inline).unwrap_or(u8::MAX);
            bodies.push((inline, payload.get(start..).unwrap_or_default().to_vec()));
        }
        page += len.div_ceil(PAYLOAD_BYTES as u64).div_ceil(8) + inline;
    }
    bodies
}
