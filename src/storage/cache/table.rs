//! What the front of a cache file says of its slots.
//!
//! ```text
//! page 0   header: magic, store, slots, bytes of a slot, check
//! then     hints: buckets of 8 words, found by the name; a word is 32 bits of name, slot + 1
//! then     entries, 64 bytes for each slot: name, number of the fill, sum of the content, check
//! then     slots, each at a multiple of 2 MiB; behind the last one a page that nobody writes
//! ```
//!
//! # Invariants
//!
//! 1. Nothing of a file is believed: a header or an entry that is not as somebody of this store
//!    wrote it counts as none, and a hint is only a place to look at.
//! 2. The length of a file that was cut is never again what it was: nobody writes its last page.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::units::PAGE_BYTES;

const MAGIC: [u8; 8] = *b"zba-cch\x01";
pub(super) const HEADER_LEN: usize = 48;
pub(super) const ENTRY_LEN: usize = 64;
/// Bytes of an entry that are written together.
pub(super) const FILLED_LEN: usize = 32;
/// Where in an entry the time is that it was last used at.
const USED_AT: u64 = 32;
const BUCKET_WORDS: usize = 8;
pub(super) const BUCKET_LEN: usize = BUCKET_WORDS * 8;
/// Slots for each bucket: half of the words are in use when all slots are.
const SLOTS_PER_BUCKET: u64 = 4;
const SLOTS_ALIGN: u64 = 2 << 20;
/// Most slots of one file: 8 TiB in slots of 2 MiB.
const COUNT_MAX: u64 = 1 << 22;

/// What the content of a slot was made of, in few bytes: equal for equal content, and as good as
/// never for other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Name([u8; 16]);

impl Name {
    /// The name for `words`, which differ for different content.
    #[must_use]
    pub fn of(words: &[u64]) -> Self {
        let half = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, words).hash(&mut hasher);
            hasher.finish().to_le_bytes()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half(0));
        bytes[8..].copy_from_slice(&half(1));
        Self(bytes)
    }

    fn bucket(self, layout: &Layout) -> u64 {
        long(&self.0, 0) % layout.buckets()
    }

    fn tag(self) -> u64 {
        long(&self.0, 8) & 0xffff_ffff
    }
}

/// Where in a file what lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    count: u64,
    slot_bytes: u64,
}

impl Layout {
    /// Slots of `slot_pages` pages, at most `bytes_max` bytes of them, but at least two.
    pub(super) fn new(bytes_max: u64, slot_pages: u64) -> Self {
        let slot_bytes = slot_pages * PAGE_BYTES;
        Self { count: (bytes_max / slot_bytes).clamp(2, COUNT_MAX), slot_bytes }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    fn buckets(&self) -> u64 {
        self.count.div_ceil(SLOTS_PER_BUCKET)
    }

    fn entries_at(&self) -> u64 {
        PAGE_BYTES + (self.buckets() * BUCKET_LEN as u64).next_multiple_of(PAGE_BYTES)
    }

    pub(super) fn entry_at(&self, slot: u64) -> u64 {
        self.entries_at() + slot * ENTRY_LEN as u64
    }

    pub(super) fn used_at(&self, slot: u64) -> u64 {
        self.entry_at(slot) + USED_AT
    }

    pub(super) fn bucket_at(&self, name: Name) -> u64 {
        PAGE_BYTES + name.bucket(self) * BUCKET_LEN as u64
    }

    pub(super) fn slot_at(&self, slot: u64) -> u64 {
        self.entry_at(self.count).next_multiple_of(SLOTS_ALIGN) + slot * self.slot_bytes
    }

    /// Length of the file (invariant 2).
    pub(super) fn len_bytes(&self) -> u64 {
        self.slot_at(self.count) + PAGE_BYTES
    }

    /// The header of a file of store `store`.
    pub(super) fn header(&self, store: &[u8; 16]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(store);
        bytes[24..32].copy_from_slice(&self.count.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.slot_bytes.to_le_bytes());
        let check = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&check.to_le_bytes());
        bytes
    }
}

/// What `bytes` say for processes of store `store` that have slots of `slot_bytes` bytes; `None` if
/// they are no header, or another store's.
pub(super) fn read_header(
    bytes: &[u8; HEADER_LEN],
    store: &[u8; 16],
    slot_bytes: u64,
) -> Option<Layout> {
    let layout = Layout { count: long(bytes, 24), slot_bytes: long(bytes, 32) };
    let is_sane = (2..=COUNT_MAX).contains(&layout.count) && layout.slot_bytes == slot_bytes;
    (is_sane && *bytes == layout.header(store)).then_some(layout)
}

/// A slot that was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Filled {
    pub(super) name: Name,
    /// Tells this fill from every other.
    pub(super) number: u64,
    /// The CRC-32 of what was written, in the order in which it was.
    pub(super) sum: u32,
}

impl Filled {
    pub(super) fn encode(&self, slot: u64) -> [u8; FILLED_LEN] {
        let mut bytes = [0; FILLED_LEN];
        bytes[..16].copy_from_slice(&self.name.0);
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.sum.to_le_bytes());
        let check = check(&bytes[..28], slot);
        bytes[28..].copy_from_slice(&check.to_le_bytes());
        bytes
    }
}

/// What the table says of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// `None` if it was never filled, or is being filled, or nobody wrote that.
    pub(super) filled: Option<Filled>,
    /// When it was last used, as far as somebody said.
    pub(super) used: u64,
}

/// The entry of `slot`, of which `bytes` are there.
pub(super) fn read_entry(bytes: &[u8; ENTRY_LEN], slot: u64) -> Entry {
    let mut name = [0; 16];
    name.copy_from_slice(&bytes[..16]);
    let filled = Filled { name: Name(name), number: long(bytes, 16), sum: word(bytes, 24) };
    let is_ours = filled.number != 0 && filled.encode(slot) == bytes[..FILLED_LEN];
    Entry { filled: is_ours.then_some(filled), used: long(bytes, 32) }
}

fn check(bytes: &[u8], slot: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Where something called `name` may be, as `bucket` says.
pub(super) fn hinted(bucket: &[u8; BUCKET_LEN], name: Name, layout: &Layout) -> Vec<u64> {
    let words = (0..BUCKET_WORDS).map(|at| long(bucket, at * 8));
    let slots = words.filter(|word| word >> 32 == name.tag()).map(|word| word & 0xffff_ffff);
    slots.filter(|slot| (1..=layout.count).contains(slot)).map(|slot| slot - 1).collect()
}

/// The word of `bucket` that shall say that `slot` holds something called `name`, and where it is:
/// one of that slot, an empty one, or any, chosen by `number`.
pub(super) fn hint(
    bucket: &[u8; BUCKET_LEN],
    name: Name,
    slot: u64,
    number: u64,
) -> (Range<usize>, [u8; 8]) {
    let is_of = |at: &usize, slot: u64| long(bucket, at * 8) & 0xffff_ffff == slot;
    let all = || 0..BUCKET_WORDS;
    let at = all().find(|at| is_of(at, slot + 1)).or_else(|| all().find(|at| is_of(at, 0)));
    let any = usize::try_from(number % BUCKET_WORDS as u64).unwrap_or(0);
    let at = at.unwrap_or(any) * 8;
    (at..at + 8, (name.tag() << 32 | (slot + 1)).to_le_bytes())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: [u8; 16] = [7; 16];

    #[test]
    fn parts_of_a_file_follow_each_other_and_slots_are_aligned() {
        for (bytes_max, slot_pages) in [(0, 1), (4 << 20, 512), (3 << 30, 512), (u64::MAX, 512)] {
            let layout = Layout::new(bytes_max, slot_pages);
            let last = Name([0xff; 16]);
            assert!(layout.count() >= 2);
            assert!(layout.bucket_at(last) + BUCKET_LEN as u64 <= layout.entry_at(0));
            assert!(layout.entry_at(layout.count()) <= layout.slot_at(0));
            assert_eq!(layout.slot_at(0) % SLOTS_ALIGN, 0);
            assert_eq!(layout.slot_at(1) - layout.slot_at(0), slot_pages * PAGE_BYTES);
            assert!(layout.len_bytes() > layout.slot_at(layout.count()));
        }
    }

    #[test]
    fn a_header_with_any_other_byte_is_none() {
        let layout = Layout::new(64 << 20, 512);
        let header = layout.header(&STORE);
        assert_eq!(read_header(&header, &STORE, 2 << 20), Some(layout));
        assert_eq!(read_header(&header, &[8; 16], 2 << 20), None);
        assert_eq!(read_header(&header, &STORE, 1 << 20), None);
        for at in 0..HEADER_LEN {
            let mut other = header;
            other[at] ^= 1;
            assert_eq!(read_header(&other, &STORE, 2 << 20), None, "byte {at}");
        }
        assert_eq!(read_header(&[0; HEADER_LEN], &STORE, 2 << 20), None);
    }

    #[test]
    fn an_entry_with_any_other_byte_or_at_another_slot_is_none() {
        let filled = Filled { name: Name::of(&[1, 2]), number: 77, sum: 5 };
        let mut bytes = [0; ENTRY_LEN];
        bytes[..FILLED_LEN].copy_from_slice(&filled.encode(3));
        assert_eq!(read_entry(&bytes, 3), Entry { filled: Some(filled), used: 0 });
        assert_eq!(read_entry(&bytes, 4).filled, None);
        for at in 0..FILLED_LEN {
            let mut other = bytes;
            other[at] ^= 0x80;
            assert_eq!(read_entry(&other, 3).filled, None, "byte {at}");
        }
        assert_eq!(read_entry(&[0; ENTRY_LEN], 3).filled, None);
    }

    #[test]
    fn a_hint_is_found_by_its_name_and_never_leads_out_of_the_table() {
        let layout = Layout::new(20 << 20, 512);
        let mut bucket = [0; BUCKET_LEN];
        let names: Vec<Name> = (0..20).map(|n| Name::of(&[n])).collect();
        for (slot, &name) in names.iter().take(8).enumerate() {
            let (at, word) = hint(&bucket, name, slot as u64, 0);
            bucket[at].copy_from_slice(&word);
        }
        for (slot, &name) in names.iter().take(8).enumerate() {
            assert_eq!(hinted(&bucket, name, &layout), [slot as u64]);
        }
        // The slot was filled with something else; then there is no room for one more.
        let (at, word) = hint(&bucket, names[9], 2, 0);
        assert_eq!(at, 16..24);
        bucket[at].copy_from_slice(&word);
        assert_eq!(hinted(&bucket, names[2], &layout), [0; 0]);
        assert_eq!(hint(&bucket, names[10], 9, 13).0, 40..48);
        let full = [0xff; BUCKET_LEN];
        assert!(names.iter().all(|&name| hinted(&full, name, &layout).is_empty()));
    }
}
