//! Moving the elements of arrays of any size through a small buffer.
//!
//! ```text
//! pieces      shape [3, 100] in C order, room for 40 elements
//!             [0:1, 0:40] [0:1, 40:80] [0:1, 80:100] [1:2, 0:40] ...     each contiguous in order
//! Linear      any bytes -> 8 MiB at multiples of 8 MiB of the array -> whole blocks to extents
//! ```
//!
//! # Invariants
//!
//! 1. Pieces cover the shape once, ascend in its order, and fit the buffer unless one element does
//!    not.

use std::ops::Range;

use zbigarray::array::{Index, Selection, shape};
use zbigarray::units::PAGE_BYTES;
use zbigarray::{DynArray, Order};

use super::error::Error;
use super::interrupt::Interrupt;
use super::progress::Progress;

/// Bytes of a buffer: a multiple of the usual block sizes, so that whole blocks are written.
pub(crate) const BUFFER_BYTES: u64 = 8 << 20;

/// Cuts a shape into pieces that are contiguous in `order` (invariant 1).
pub(crate) struct Pieces {
    // From the axis that varies slowest to the fastest.
    lengths: Vec<u64>,
    order: Order,
    // The axis that is cut, and into how many positions.
    cut: usize,
    step: u64,
    // Position on each axis up to `cut`; `None` after the last piece.
    at: Option<Vec<u64>>,
}

impl Pieces {
    /// Pieces of at most `bytes_max` bytes of an array of `shape`.
    pub(crate) fn new(shape: &[u64], itemsize: u64, order: Order, bytes_max: u64) -> Self {
        let mut lengths = shape.to_vec();
        if order == Order::F {
            lengths.reverse();
        }
        // Bytes of one position of an axis.
        let one = |axis: usize| {
            lengths[axis + 1..].iter().fold(itemsize, |bytes, &len| bytes.saturating_mul(len))
        };
        let fits = (0..lengths.len()).find(|&axis| one(axis) <= bytes_max);
        let cut = fits.unwrap_or(lengths.len().saturating_sub(1));
        let step = fits.map_or(1, |axis| (bytes_max / one(axis).max(1)).max(1));
        let axes = if lengths.is_empty() { 0 } else { cut + 1 };
        let at = (!shape.contains(&0)).then(|| vec![0; axes]);
        Self { lengths, order, cut, step, at }
    }
}

impl Iterator for Pieces {
    type Item = Vec<Index>;

    fn next(&mut self) -> Option<Vec<Index>> {
        let at = self.at.clone()?;
        let mut indices: Vec<Index> = vec![Index::ALL; self.lengths.len()];
        for (axis, &start) in at.iter().enumerate() {
            let len = if axis == self.cut { self.step } else { 1 };
            indices[axis] = Index::from(start..(start + len).min(self.lengths[axis]));
        }
        if self.order == Order::F {
            indices.reverse();
        }
        self.at = self.after(at);
        Some(indices)
    }
}

impl Pieces {
    fn after(&self, mut at: Vec<u64>) -> Option<Vec<u64>> {
        for axis in (0..at.len()).rev() {
            at[axis] += if axis == self.cut { self.step } else { 1 };
            if at[axis] < self.lengths[axis] {
                return Some(at);
            }
            at[axis] = 0;
        }
        None
    }
}

/// Reads the elements of `selection` in `order` and gives them to `take` piece by piece.
pub(crate) fn read(
    array: &DynArray<'_>,
    selection: &Selection,
    order: Order,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = Vec::new();
    for piece in Pieces::new(selection.shape(), selection.itemsize(), order, BUFFER_BYTES) {
        let part = selection.select(&piece)?;
        buffer.resize(to_len(part.nbytes()), 0);
        array.read(&part, order, &mut buffer)?;
        take(&buffer)?;
    }
    Ok(())
}

/// Writes the bytes of an array from one byte on, whole blocks at once.
pub(crate) struct Linear<'a, 't> {
    array: &'a mut DynArray<'t>,
    // Where the buffer's first byte belongs.
    at: u64,
    buffer: Vec<u8>,
}

impl<'a, 't> Linear<'a, 't> {
    /// Writes from byte `at` of the array on.
    pub(crate) fn new(array: &'a mut DynArray<'t>, at: u64) -> Self {
        Self { array, at, buffer: Vec::new() }
    }

    /// The bytes that follow.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = to_len(BUFFER_BYTES - self.at % BUFFER_BYTES) - self.buffer.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            if now.len() == room {
                self.write_out()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Leaves the next bytes as they are.
    pub(crate) fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        self.write_out()?;
        self.at += bytes;
        Ok(())
    }

    /// Writes what is left in the buffer.
    pub(crate) fn write_out(&mut self) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.array.write_linear(self.at, &self.buffer)?;
            self.at += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Copies all elements of `from` to `to`, which has the same shape, type, order and fill value and
/// is new. What nobody wrote in `from` takes no space in `to` either.
pub(crate) fn copy(
    from: &DynArray<'_>,
    to: &mut DynArray<'_>,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let holes = holes(from)?;
    let mut linear = Linear::new(to, 0);
    let whole = from.select(&[])?;
    let order = from.order();
    for piece in Pieces::new(whole.shape(), whole.itemsize(), order, BUFFER_BYTES) {
        interrupt.check()?;
        let part = whole.select(&piece)?;
        let Some((lo, hi)) = part.byte_range() else { continue };
        let hole = holes.partition_point(|hole| hole.end < hi);
        if holes.get(hole).is_some_and(|hole| hole.start <= lo) {
            linear.skip(hi - lo)?;
        } else {
            read(from, &part, order, &mut |bytes| linear.write(bytes))?;
        }
        progress.add(hi - lo);
    }
    linear.write_out()
}

/// The bytes of an array that nobody wrote.
fn holes(array: &DynArray<'_>) -> Result<Vec<Range<u64>>, Error> {
    let mut holes: Vec<Range<u64>> = Vec::new();
    for segment in array.segments()? {
        if segment.source.extent().is_some() {
            continue;
        }
        let range = segment.pages.start_byte()..segment.pages.end * PAGE_BYTES;
        match holes.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => holes.push(range),
        }
    }
    Ok(holes)
}

/// Whether elements of `shape` lie the same in both orders.
pub(crate) fn same_in_both_orders(lengths: &[u64]) -> bool {
    lengths.iter().filter(|&&len| len != 1).count() <= 1 || shape::size(lengths) == 0
}

/// A length in memory: buffers are far below the address space.
pub(crate) fn to_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbigarray::array::index::resolve;
    use zbigarray::array::layout::is_contiguous;

    #[test]
    fn pieces_cover_every_byte_once_in_order_and_fit() {
        let shapes: [&[u64]; 8] =
            [&[], &[7], &[3, 100], &[100, 3], &[2, 3, 4, 5], &[1, 1, 9], &[5, 1, 1], &[4, 0, 2]];
        for lengths in shapes {
            for order in [Order::C, Order::F] {
                for room in [1, 8, 24, 64, 320, 1 << 20] {
                    let mut at = 0;
                    for piece in Pieces::new(lengths, 8, order, room) {
                        let part = resolve(&piece, lengths, 8, order).unwrap();
                        assert!(is_contiguous(&part, order), "{lengths:?} {order} {room}");
                        assert!(part.nbytes() <= room.max(8), "{lengths:?} {order} {room}");
                        assert_eq!(part.byte_range(), Some((at, at + part.nbytes())));
                        at += part.nbytes();
                    }
                    assert_eq!(u128::from(at), shape::size(lengths) * 8, "{lengths:?} {room}");
                }
            }
        }
    }

    #[test]
    fn pieces_are_as_large_as_fits() {
        assert_eq!(Pieces::new(&[1000], 8, Order::C, 80).count(), 100);
        assert_eq!(Pieces::new(&[10, 10, 10], 8, Order::C, 1600).count(), 5);
        assert_eq!(Pieces::new(&[10, 10], 8, Order::C, 1 << 20).count(), 1);
    }
}
