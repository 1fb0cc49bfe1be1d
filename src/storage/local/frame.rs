//! Frames: how records lie in a log file, sector by sector.
//!
//! ```text
//! page p                                   p + metadata pages
//! | sector: 508 bytes, CRC | sector ... | zeros | inline page | inline page |
//!   head, sums of inline pages, body
//! ```
//!
//! A disk writes a sector of 512 bytes whole or not at all. So a power cut leaves each sector as it
//! was written or as zeros, while damage leaves one that is neither: the two can be told apart.
//!
//! # Invariants
//!
//! 1. The checksum of a sector covers store, file and position, so a sector of another place or
//!    another store is not taken for one of this place.
//! 2. No sector of a frame is all zeros, because no checksum is 0.
//! 3. The head has a checksum of all that follows: sectors of two attempts to write a frame do not
//!    make one frame.
//!
//! # Failure
//!
//! [`Found`] says what is there; what it means is decided in [`super::recovery`].

use super::codec::{Decoder, Encoder, Malformed};
use super::{StoreId, to_usize};
use crate::storage::StorageError;
use crate::storage::backend::StoreFile;
use crate::storage::planted::{Bug, planted};
use crate::units::{PAGE_BYTES, PAGE_LEN, Tid};

/// Bytes that a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
pub(super) const PAYLOAD_BYTES: usize = SECTOR_BYTES - 4;
const SECTORS_PER_PAGE: usize = 8;
pub(super) const HEAD_BYTES: usize = 64;
/// Bytes of checksums for each inline page: one of the page, one of each of its sectors.
pub(super) const SUMS_BYTES: usize = 4 * (1 + SECTORS_PER_PAGE);
const MAGIC: u32 = u32::from_le_bytes(*b"ZREC");
/// Most inline pages of a frame: what a decoder believes.
const INLINE_PAGES_BELIEVED_MAX: u32 = 1 << 16;

const _: () = assert!(SECTOR_BYTES * SECTORS_PER_PAGE == PAGE_LEN);
const _: () = assert!(HEAD_BYTES <= PAYLOAD_BYTES);

/// What the checksum of a sector is bound to besides its bytes (invariant 1).
#[derive(Clone)]
pub(super) struct Seal(crc32fast::Hasher);

impl Seal {
    pub(super) fn new(store: &StoreId, file: u32) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(store);
        hasher.update(&file.to_le_bytes());
        Self(hasher)
    }

    fn sum(&self, sector: u64, payload: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&sector.to_le_bytes());
        hasher.update(payload);
        // Invariant 2.
        hasher.finalize().max(1)
    }

    /// `payload` as sectors from page `page` on, zero-padded to whole pages.
    pub(super) fn sectors(&self, page: u64, payload: &[u8]) -> Vec<u8> {
        let sectors = payload.len().div_ceil(PAYLOAD_BYTES);
        let pages = sectors.div_ceil(SECTORS_PER_PAGE);
        let mut bytes = vec![0; pages * PAGE_LEN];
        let into = bytes.chunks_exact_mut(SECTOR_BYTES);
        for (i, (part, sector)) in payload.chunks(PAYLOAD_BYTES).zip(into).enumerate() {
            sector[..part.len()].copy_from_slice(part);
            let number = page * SECTORS_PER_PAGE as u64 + i as u64;
            let sum = self.sum(number, &sector[..PAYLOAD_BYTES]);
            sector[PAYLOAD_BYTES..].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    /// What sector `number` of the file is.
    pub(super) fn examine(&self, number: u64, sector: &[u8]) -> Sector {
        if sector.len() < SECTOR_BYTES || sector.iter().all(|&byte| byte == 0) {
            return Sector::Absent;
        }
        let sum = self.sum(number, &sector[..PAYLOAD_BYTES]).to_le_bytes();
        if sum == sector[PAYLOAD_BYTES..] || planted(Bug::SealNotChecked) {
            Sector::Good
        } else {
            Sector::Damaged
        }
    }
}

/// What a sector of metadata is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sector {
    /// All zeros or beyond the end of the file: never written.
    Absent,
    /// As it was written here.
    Good,
    /// Neither.
    Damaged,
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameKind {
    /// A commit record.
    Commit,
    /// A whole state, at the beginning of a packed log.
    Base,
}

/// The first bytes of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    pub(super) tid: Tid,
    pub(super) base: Tid,
    pub(super) time_ns: i64,
    /// The newest commit that was durable when this frame was written.
    pub(super) durable: Tid,
    /// The chain value of the frame before this one.
    pub(super) previous: u32,
    pub(super) inline_pages: u32,
    body_len: u64,
    // Invariant 3: of the sums of the inline pages and the body.
    rest_sum: u32,
}

impl FrameHead {
    fn encode(&self, out: &mut Encoder) {
        out.u32(MAGIC);
        out.u32(match self.kind {
            FrameKind::Commit => 0,
            FrameKind::Base => 1,
        });
        out.u64(self.body_len);
        out.u32(self.inline_pages);
        out.u32(self.previous);
        out.u32(self.rest_sum);
        out.u32(0);
        out.u64(self.tid.0);
        out.u64(self.base.0);
        out.i64(self.time_ns);
        out.u64(self.durable.0);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let malformed = |what: &str| Err(Malformed(what.to_owned()));
        if from.u32()? != MAGIC {
            return malformed("no record begins here");
        }
        let kind = match from.u32()? {
            0 => FrameKind::Commit,
            1 => FrameKind::Base,
            _ => return malformed("it is of an unknown kind"),
        };
        let (body_len, inline_pages) = (from.u64()?, from.u32()?);
        if body_len > 1 << 40 || inline_pages > INLINE_PAGES_BELIEVED_MAX {
            return malformed("it says an impossible length");
        }
        let (previous, rest_sum, _zero) = (from.u32()?, from.u32()?, from.u32()?);
        let (tid, base) = (Tid(from.u64()?), Tid(from.u64()?));
        let (time_ns, durable) = (from.i64()?, Tid(from.u64()?));
        let head =
            Self { kind, tid, base, time_ns, durable, previous, inline_pages, body_len, rest_sum };
        Ok(head)
    }

    fn rest_len(&self) -> u64 {
        u64::from(self.inline_pages) * SUMS_BYTES as u64 + self.body_len
    }

    fn metadata_sectors(&self) -> u64 {
        (HEAD_BYTES as u64 + self.rest_len()).div_ceil(PAYLOAD_BYTES as u64)
    }

    /// Pages of metadata, after which the inline pages follow.
    pub(super) fn metadata_pages(&self) -> u64 {
        self.metadata_sectors().div_ceil(SECTORS_PER_PAGE as u64)
    }

    /// Pages of the whole frame.
    pub(super) fn pages(&self) -> u64 {
        self.metadata_pages() + u64::from(self.inline_pages)
    }
}

/// What a new frame says.
pub(super) struct FrameContent<'a> {
    pub(super) kind: FrameKind,
    pub(super) tid: Tid,
    pub(super) base: Tid,
    pub(super) time_ns: i64,
    pub(super) durable: Tid,
    pub(super) previous: u32,
    pub(super) body: &'a [u8],
    /// Whole pages.
    pub(super) inline: &'a [&'a [u8]],
}

/// A frame ready to be written.
pub(super) struct NewFrame {
    pub(super) metadata: Vec<u8>,
    /// The value that the next frame names as `previous`.
    pub(super) chain: u32,
    pub(super) inline_pages: u64,
    /// The CRC-32 of each inline page.
    pub(super) inline_sums: Vec<u32>,
}

impl NewFrame {
    /// The frame for `content`, to be written at page `page` of the file of `seal`.
    pub(super) fn new(seal: &Seal, page: u64, content: &FrameContent<'_>) -> Self {
        let pages = content.inline.iter().flat_map(|bytes| bytes.chunks(PAGE_LEN));
        let mut rest = Encoder::default();
        let mut inline_sums = Vec::new();
        for page in pages {
            let sum = crc32fast::hash(page);
            inline_sums.push(sum);
            rest.u32(sum);
            page.chunks(SECTOR_BYTES).for_each(|sector| rest.u32(crc32fast::hash(sector)));
        }
        rest.0.extend_from_slice(content.body);
        let Ok(inline_pages) = u32::try_from(inline_sums.len()) else {
            panic!("a frame carries at most {INLINE_PAGES_BELIEVED_MAX} pages")
        };
        assert!(inline_pages <= INLINE_PAGES_BELIEVED_MAX, "a frame carries few pages");
        let head = FrameHead {
            kind: content.kind,
            tid: content.tid,
            base: content.base,
            time_ns: content.time_ns,
            durable: content.durable,
            previous: content.previous,
            inline_pages,
            body_len: content.body.len() as u64,
            rest_sum: crc32fast::hash(&rest.0),
        };
        let mut payload = Encoder::default();
        head.encode(&mut payload);
        payload.0.append(&mut rest.0);
        let metadata = seal.sectors(page, &payload.0);
        let chain = crc32fast::hash(&metadata);
        Self { metadata, chain, inline_pages: u64::from(inline_pages), inline_sums }
    }

    /// Pages of the whole frame.
    pub(super) fn pages(&self) -> u64 {
        self.metadata.len() as u64 / PAGE_BYTES + self.inline_pages
    }
}

/// A frame whose metadata is whole.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) head: FrameHead,
    pub(super) body: Vec<u8>,
    pub(super) chain: u32,
    pub(super) inline_sums: Vec<u32>,
}

/// What lies at a page of a log file.
#[derive(Debug)]
pub(super) enum Found {
    /// The end of the file.
    End,
    /// A frame. Its inline pages are whole too, if that was asked.
    Whole(Frame),
    /// A frame of which some sectors were never written, with its head if that was.
    Torn(Option<FrameHead>),
    /// Bytes that are neither what was written nor nothing.
    Damaged {
        /// Where.
        offset_bytes: u64,
        /// What is wrong.
        what: String,
    },
}

/// Reads what lies at page `page` of a log file that is `len_bytes` long.
///
/// With `check_inline` the inline pages are read and compared with their checksums as well.
///
/// # Errors
///
/// [`StorageError`] if the file cannot be read; what it says is in [`Found`].
pub(super) fn read_frame(
    file: &StoreFile,
    seal: &Seal,
    page: u64,
    len_bytes: u64,
    check_inline: bool,
) -> Result<Found, StorageError> {
    let start = page.saturating_mul(PAGE_BYTES);
    if start >= len_bytes {
        return Ok(Found::End);
    }
    let mut bytes = read_up_to(file, start, len_bytes, PAGE_BYTES)?;
    let head = match frame_head(seal, page, &bytes) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(Found::Torn(None)),
        Err(Malformed(what)) => return Ok(Found::Damaged { offset_bytes: start, what }),
    };
    let metadata_len = head.metadata_pages().saturating_mul(PAGE_BYTES);
    if metadata_len > PAGE_BYTES {
        bytes = read_up_to(file, start, len_bytes, metadata_len)?;
    }
    let frame = match frame_of(seal, page, head, &bytes) {
        Ok(frame) => frame,
        Err(found) => return Ok(found),
    };
    let inline_len = u64::from(frame.head.inline_pages) * PAGE_BYTES;
    if check_inline && inline_len > 0 {
        let from = start + metadata_len;
        let inline = read_up_to(file, from, len_bytes, inline_len)?;
        let sums = &frame.sector_sums(&bytes);
        if let Some(found) = inline_fault(sums, &inline, from, &frame.head) {
            return Ok(found);
        }
    }
    Ok(Found::Whole(frame))
}

/// Up to `wanted` bytes from `start` on; never more than the file has.
fn read_up_to(
    file: &StoreFile,
    start: u64,
    len_bytes: u64,
    wanted: u64,
) -> Result<Vec<u8>, StorageError> {
    let mut bytes = vec![0; to_usize(wanted.min(len_bytes.saturating_sub(start)))];
    let read = file.read_at(&mut bytes, start)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The head in the first sector of a page; `None` if that sector was never written.
pub(super) fn frame_head(
    seal: &Seal,
    page: u64,
    bytes: &[u8],
) -> Result<Option<FrameHead>, Malformed> {
    let first = &bytes[..bytes.len().min(SECTOR_BYTES)];
    match seal.examine(page.saturating_mul(SECTORS_PER_PAGE as u64), first) {
        Sector::Absent => Ok(None),
        Sector::Damaged => Err(Malformed("the checksum of a sector is wrong".to_owned())),
        Sector::Good => FrameHead::decode(&mut Decoder(first)).map(Some),
    }
}

/// The frame in `bytes`, its metadata as far as the file has it.
fn frame_of(seal: &Seal, page: u64, head: FrameHead, bytes: &[u8]) -> Result<Frame, Found> {
    let sectors = head.metadata_sectors();
    let metadata_len = head.metadata_pages() * PAGE_BYTES;
    let start = page * PAGE_BYTES;
    let mut torn = (bytes.len() as u64) < metadata_len;
    let mut payload = Vec::with_capacity(bytes.len());
    for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        let number = page * SECTORS_PER_PAGE as u64 + i as u64;
        let expected = if (i as u64) < sectors { Sector::Good } else { Sector::Absent };
        match seal.examine(number, sector) {
            found if found == expected => {}
            Sector::Absent => torn = true,
            Sector::Good | Sector::Damaged => {
                let what = "the checksum of a sector is wrong".to_owned();
                let offset_bytes = start + (i * SECTOR_BYTES) as u64;
                return Err(Found::Damaged { offset_bytes, what });
            }
        }
        payload.extend_from_slice(&sector[..sector.len().min(PAYLOAD_BYTES)]);
    }
    if planted(Bug::TornTailAccepted) {
        payload.resize(to_usize(sectors) * PAYLOAD_BYTES, 0);
    } else if torn {
        return Err(Found::Torn(Some(head)));
    }
    let rest_end = HEAD_BYTES + to_usize(head.rest_len());
    let rest = &payload[HEAD_BYTES..rest_end];
    if crc32fast::hash(rest) != head.rest_sum && !planted(Bug::TornTailAccepted) {
        return Err(Found::Torn(Some(head)));
    }
    let (sums, body) = rest.split_at(head.inline_pages as usize * SUMS_BYTES);
    let body = body.to_vec();
    let inline_sums = sums.chunks_exact(SUMS_BYTES).map(|sums| number_at(sums, 0)).collect();
    Ok(Frame { body, chain: crc32fast::hash(bytes), inline_sums, head })
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().copied().map_or(0, u32::from_le_bytes)
}

impl Frame {
    /// The CRC-32 of each sector of the inline pages, out of the metadata `bytes`.
    fn sector_sums(&self, bytes: &[u8]) -> Vec<u32> {
        let payload: Vec<u8> = bytes
            .chunks(SECTOR_BYTES)
            .flat_map(|sector| &sector[..PAYLOAD_BYTES])
            .copied()
            .collect();
        let pages = payload[HEAD_BYTES..].chunks_exact(SUMS_BYTES);
        let pages = pages.take(self.head.inline_pages as usize);
        pages.flat_map(|sums| (1..=SECTORS_PER_PAGE).map(|i| number_at(sums, 4 * i))).collect()
    }
}

/// What is wrong with inline pages, if anything.
fn inline_fault(sums: &[u32], inline: &[u8], from: u64, head: &FrameHead) -> Option<Found> {
    let mut torn = false;
    for (i, &sum) in sums.iter().enumerate() {
        let at = i * SECTOR_BYTES;
        let sector = inline.get(at..at + SECTOR_BYTES).unwrap_or_default();
        if sector.len() == SECTOR_BYTES && crc32fast::hash(sector) == sum {
            continue;
        }
        if sector.iter().any(|&byte| byte != 0) {
            let what = "the checksum of inline data is wrong".to_owned();
            return Some(Found::Damaged { offset_bytes: from + at as u64, what });
        }
        torn = true;
    }
    torn.then(|| Found::Torn(Some(head.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::Files;
    use crate::storage::backend::simulated::Simulated;
    use proptest::prelude::*;
    use std::sync::Arc;

    const STORE: StoreId = *b"a store's uuid..";

    fn seal() -> Seal {
        Seal::new(&STORE, 3)
    }

    fn frame(page: u64, body: &[u8], inline: &[&[u8]]) -> Vec<u8> {
        let content = FrameContent {
            kind: FrameKind::Commit,
            tid: Tid(7),
            base: Tid(5),
            time_ns: -1,
            durable: Tid(6),
            previous: 99,
            body,
            inline,
        };
        let frame = NewFrame::new(&seal(), page, &content);
        [frame.metadata.as_slice(), &inline.concat()].concat()
    }

    fn file(bytes: &[u8]) -> StoreFile {
        let files = Files::new(Arc::new(Simulated::new().unwrap()), true);
        let file = files.create("f").unwrap();
        file.write_at(&[bytes], 0).unwrap();
        file
    }

    fn found(bytes: &[u8], page: u64) -> Found {
        let file = file(bytes);
        read_frame(&file, &seal(), page, file.len().unwrap(), true).unwrap()
    }

    #[test]
    fn a_frame_reads_back_at_its_place_and_only_there() {
        let (body, inline) = (vec![5; 5000], vec![9; PAGE_LEN]);
        let bytes = frame(1, &body, &[&inline, &inline]);
        let at_one = [vec![0; PAGE_LEN], bytes.clone()].concat();
        let Found::Whole(read) = found(&at_one, 1) else { panic!("it is whole") };
        assert_eq!((read.head.tid, read.head.previous, read.body), (Tid(7), 99, body));
        assert_eq!(read.inline_sums, [crc32fast::hash(&inline); 2]);
        assert_eq!(read.head.pages() * PAGE_BYTES, bytes.len() as u64);
        assert!(matches!(found(&bytes, 0), Found::Damaged { .. }), "bytes of another place");
        assert!(matches!(found(&at_one, 5), Found::End));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_damage() {
        // A sector of which one bit is set would look like one that was never written.
        let page = vec![0x0F; PAGE_LEN];
        let good = frame(0, &[3; 600], &[&page]);
        let (file, len) = (file(&good), good.len() as u64);
        for bit in (0..len * 8).filter(|bit| bit / 8 < PAGE_BYTES || bit % 61 == 0) {
            let byte = good[to_usize(bit / 8)];
            file.write_at(&[&[byte ^ (1 << (bit % 8))]], bit / 8).unwrap();
            let found = read_frame(&file, &seal(), 0, len, true).unwrap();
            assert!(matches!(found, Found::Damaged { .. }), "bit {bit}: {found:?}");
            file.write_at(&[&[byte]], bit / 8).unwrap();
        }
    }

    #[test]
    fn sectors_of_two_attempts_do_not_make_one_frame() {
        let (first, second) = (frame(0, &[1; 2000], &[]), frame(0, &[2; 2000], &[]));
        for subset in 1..15 {
            let mut mixed = first.clone();
            for sector in (0..4).filter(|sector| subset & (1 << sector) != 0) {
                let bytes = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                mixed[bytes.clone()].copy_from_slice(&second[bytes]);
            }
            let found = found(&mixed, 0);
            assert!(matches!(found, Found::Torn(Some(_))), "{subset:b}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic_or_take_much_memory(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            len in any::<u64>(),
            inline in any::<u32>(),
        ) {
            found(&bytes, 0);
            // A head with a right checksum may still say anything.
            let mut payload = bytes;
            payload.resize(SECTOR_BYTES - 4, 0);
            payload[..4].copy_from_slice(&MAGIC.to_le_bytes());
            payload[4..8].fill(0);
            payload[8..16].copy_from_slice(&len.to_le_bytes());
            payload[16..20].copy_from_slice(&inline.to_le_bytes());
            found(&seal().sectors(0, &payload), 0);
        }
    }
}
