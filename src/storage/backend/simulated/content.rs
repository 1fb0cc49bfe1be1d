//! What a simulated file holds: a length and the pages that are not zero, shared until written.
//!
//! ```text
//! content A  len 20480 | page 0 -> p | page 3 -> q |      clone: O(1), the pages are shared
//! content B  len 20480 | page 0 -> p | page 3 -> r |      after a write to page 3 of the clone
//! ```
//!
//! # Invariants
//!
//! 1. Bytes beyond `len` are zeros, so a file that is cut and extended again reads as zeros there.

use std::sync::Arc;

use imbl::OrdMap;

use crate::units::{PAGE_BYTES, PAGE_LEN};

type Page = [u8; PAGE_LEN];

/// The bytes of one file.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: OrdMap<u64, Arc<Page>>,
}

/// The parts of `len` bytes from `offset` on, page by page: page, first byte in it, and where in
/// the whole that is.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let inside = usize::try_from(at % PAGE_BYTES).unwrap_or(0);
        let count = (PAGE_LEN - inside).min(len - done);
        let part = (at / PAGE_BYTES, inside, done..done + count);
        done += count;
        Some(part)
    })
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// The pages that are not zero, with their offset in bytes.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(&page, bytes)| (page * PAGE_BYTES, &bytes[..]))
    }

    /// Reads until `bytes` is full or the file ends.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(bytes.len());
        for (page, inside, part) in parts(offset, len) {
            let into = &mut bytes[part];
            match self.pages.get(&page) {
                Some(page) => into.copy_from_slice(&page[inside..inside + into.len()]),
                None => into.fill(0),
            }
        }
        len
    }

    /// Writes `bytes` and lengthens the file if need be.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.extend(offset + bytes.len() as u64);
        for (page, inside, part) in parts(offset, bytes.len()) {
            self.write_part(page, inside, &bytes[part]);
        }
    }

    fn write_part(&mut self, page: u64, inside: usize, bytes: &[u8]) {
        if let Ok(whole) = <&Page>::try_from(bytes) {
            self.pages.insert(page, Arc::new(*whole));
            return;
        }
        let zeros = || Arc::new([0; PAGE_LEN]);
        let old = Arc::make_mut(self.pages.entry(page).or_insert_with(zeros));
        old[inside..inside + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the file at least `len` bytes long.
    pub(super) fn extend(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Keeps invariant 1.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, self.len - len);
        }
        self.len = len;
    }

    /// Makes bytes zero; the length stays.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let touched: Vec<u64> = self
            .pages
            .range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
            .map(|(p, _)| *p)
            .collect();
        for page in touched {
            let start = page * PAGE_BYTES;
            let inside = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(0);
            let (from, to) = (inside(offset), inside(end.min(start + PAGE_BYTES)));
            if (from, to) == (0, PAGE_LEN) {
                self.pages.remove(&page);
            } else {
                self.write_part(page, from, &vec![0; to - from]);
            }
        }
    }

    /// Goes back to the bytes of `old`; the length stays.
    pub(super) fn revert(&mut self, old: &Self) {
        let len = self.len;
        self.pages = old.pages.clone();
        self.len = old.len;
        if len < old.len {
            self.set_len(len);
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_content_reads_as_a_vector_of_bytes_does(
            steps in prop::collection::vec((0u8..4, 0usize..20_000, 0usize..9_000), 1..20),
        ) {
            let (mut content, mut plain) = (Content::default(), Vec::<u8>::new());
            for (n, (kind, at, len)) in (1u8..).zip(steps) {
                match kind {
                    0 | 1 => {
                        content.write(at as u64, &vec![n; len]);
                        plain.resize(plain.len().max(at + len), 0);
                        plain[at..at + len].fill(n);
                    }
                    2 => {
                        content.set_len(at as u64);
                        plain.resize(at, 0);
                    }
                    _ => {
                        content.punch(at as u64, len as u64);
                        let clip = |n: usize| n.min(plain.len());
                        let (from, to) = (clip(at), clip(at + len));
                        plain[from..to].fill(0);
                    }
                }
                let mut bytes = vec![0xCC; 40_000];
                let read = content.read(&mut bytes, 3);
                prop_assert_eq!(&bytes[..read], plain.get(3..).unwrap_or_default());
            }
        }
    }
}
