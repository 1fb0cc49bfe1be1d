//! The linear bytes of an array, lent as they lie in memory: how streams of elements go out.
//!
//! ```text
//! shape, order  ->  bytes 0..nbytes, major axis slowest  ->  a slice of the mapping, checked
//! ```

use std::ops::Range;

use super::dynamic::DynArray;
use super::error::ArrayError;
use super::index::{Index, Selection};
use super::shape::{self, Order};
use super::view;
use crate::units::PageRange;

impl DynArray<'_> {
    /// Returns bytes `range` of the array as they lie one after the other, in the array's order.
    ///
    /// Nothing is copied. The blocks touched were compared with their checksums, once in this
    /// process, and were in memory a moment ago; see [`ensure`](Self::ensure).
    ///
    /// # Errors
    ///
    /// [`ArrayError::BeyondEnd`] if the array has not those bytes, and the errors of
    /// [`ensure`](Self::ensure).
    pub fn linear_bytes(&self, range: Range<u64>) -> Result<&[u8], ArrayError> {
        let nbytes = self.end_byte();
        if range.start > range.end || range.end > nbytes {
            let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            return Err(ArrayError::BeyondEnd { at: range.start, len, nbytes });
        }
        let slice = Index::Slice { start: Some(i128::from(range.start)), stop: None, step: None };
        let bytes = Selection::whole(&[range.end], 1, Order::C)?.select(&[slice])?;
        self.ensure(&bytes)?;
        view::bytes(self, &bytes)
    }

    /// The shape of one row: lengths of all axes but the major one, which is 1 here.
    ///
    /// Unlike [`shape`](Self::shape) it does not tell where the array ends, so rows that are
    /// appended can still be moved behind those of others. Empty for an array without axes.
    #[must_use]
    pub fn row_shape(&self) -> Vec<u64> {
        let mut row = self.dims().to_vec();
        if let Some(axis) = shape::major_axis(row.len(), self.order()) {
            row[axis] = 1;
        }
        row
    }

    /// Whether some of bytes `range`, which [`linear_bytes`](Self::linear_bytes) lent, are loaded
    /// when they are touched, instead of being mapped as they lie on the disk. The kernel cannot
    /// always touch such memory for a program: copy it first.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Transaction`] if the index cannot be read.
    pub fn is_linear_loaded(&self, range: Range<u64>) -> Result<bool, ArrayError> {
        let pages = PageRange::covering(range.start, range.end.max(range.start));
        for segment in self.transaction.segments(self.id, pages)? {
            if self.transaction.is_lazy(self.id, segment.pages)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{ArrayOptions, Dtype};
    use crate::txn::{CreateOptions, Store};

    #[test]
    fn linear_bytes_are_those_written_in_the_order_of_the_array() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        let dtype = Dtype::parse("u1").unwrap();
        let options = ArrayOptions::new().order(Order::F);
        let mut array = DynArray::create(&transaction, "a", &dtype, &[100, 90], &options).unwrap();
        let wanted: Vec<u8> = (0..9000_u32).map(|at| at.to_le_bytes()[0] ^ 3).collect();
        array.write_linear(0, &wanted).unwrap();
        drop(array);
        let tid = transaction.commit().unwrap();
        let then = store.at(tid).unwrap();
        let array = DynArray::open(&then, "a").unwrap();
        for (from, to) in [(0, 9000), (0, 1), (4095, 4097), (8999, 9000), (77, 77), (9000, 9000)] {
            let found = array.linear_bytes(from as u64..to as u64).unwrap();
            assert!(found == &wanted[from..to], "{from}..{to}");
        }
        for (from, to) in [(0, 9001), (9001, 9001), (5, 4)] {
            let refused = array.linear_bytes(from..to);
            assert!(matches!(refused, Err(ArrayError::BeyondEnd { .. })), "{from}..{to}");
        }
    }
}
