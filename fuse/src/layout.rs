//! An array as a `.npy` file: a header of whole pages, then the bytes as they lie.
//!
//! ```text
//! file   0 ............ data_at ........................ len
//!        header, padded | linear bytes of the array        data_at is a multiple of 4096
//! ```

use std::ops::Range;

use zbigarray::array::{Descriptor, Header, shape};
use zbigarray::txn::ArrayEntry;
use zbigarray::units::PAGE_BYTES;
use zbigarray::{ArrayError, Order};

/// What a file's size and header follow from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// The header.
    pub(crate) header: Vec<u8>,
    /// Bytes of the elements.
    pub(crate) nbytes: u64,
}

impl Layout {
    /// Of an array as the catalog has it.
    pub(crate) fn of(entry: &ArrayEntry) -> Result<Self, ArrayError> {
        Self::new(&Descriptor::from_json(&entry.descriptor)?, &entry.shape)
    }

    /// Of an array of that type and shape.
    pub(crate) fn new(descriptor: &Descriptor, shape: &[u64]) -> Result<Self, ArrayError> {
        let nbytes = shape::nbytes(shape, descriptor.dtype.itemsize())?;
        let damaged = |why: String| ArrayError::Descriptor { why };
        let header = Header::new(&descriptor.dtype, descriptor.order, shape)
            .and_then(|header| header.encode(PAGE_BYTES))
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Self { header, nbytes })
    }

    /// Where the elements begin.
    pub(crate) fn data_at(&self) -> u64 {
        self.header.len() as u64
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.data_at().saturating_add(self.nbytes)
    }

    /// What a read of `size` bytes at `offset` finds: bytes of the header, and of the array.
    pub(crate) fn read(&self, offset: u64, size: u32) -> (&[u8], Range<u64>) {
        let end = offset.saturating_add(u64::from(size)).min(self.len());
        let offset = offset.min(end);
        let data_at = self.data_at();
        let header = &self.header[index(offset.min(data_at))..index(end.min(data_at))];
        (header, offset.saturating_sub(data_at)..end.saturating_sub(data_at))
    }
}

/// Bytes of a row: what the array gets longer by. 0 if it cannot.
pub(crate) fn row_bytes(shape: &[u64], itemsize: u64, order: Order) -> u64 {
    let Some(major) = shape::major_axis(shape.len(), order) else { return 0 };
    let others = shape.iter().enumerate().filter(|(axis, _)| *axis != major);
    others.fold(itemsize, |bytes, (_, &len)| bytes.saturating_mul(len))
}

/// A byte offset within memory.
pub(crate) fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbigarray::array::Dtype;

    fn layout(shape: &[u64]) -> Layout {
        let descriptor = Descriptor::new(Dtype::parse("<f4").unwrap(), Order::C, None).unwrap();
        Layout::new(&descriptor, shape).unwrap()
    }

    #[test]
    fn data_begin_at_a_page_and_end_with_the_file() {
        for shape in [&[][..], &[0], &[7], &[1000, 1000], &[3, 0, 5]] {
            let layout = layout(shape);
            assert_eq!(layout.data_at() % 4096, 0);
            let (read, data_at) = Header::read(&mut &layout.header[..]).unwrap();
            assert_eq!((read.shape(), data_at), (shape, layout.data_at()));
            assert_eq!(layout.len(), layout.data_at() + 4 * shape.iter().product::<u64>());
        }
    }

    #[test]
    fn a_read_is_cut_at_the_header_and_at_the_end() {
        let layout = layout(&[10]);
        assert_eq!(layout.read(0, 10), (&layout.header[..10], 0..0));
        assert_eq!(layout.read(4090, 100), (&layout.header[4090..], 0..40));
        assert_eq!(layout.read(4100, 8), (&[][..], 4..12));
        assert_eq!(layout.read(4130, 100), (&[][..], 34..40));
        assert_eq!(layout.read(9999, 100).1.count(), 0);
        assert_eq!(layout.read(u64::MAX, u32::MAX).1.count(), 0);
    }

    #[test]
    fn a_row_is_what_the_array_gets_longer_by() {
        assert_eq!(row_bytes(&[5, 7], 4, Order::C), 28);
        assert_eq!(row_bytes(&[5, 7], 4, Order::F), 20);
        assert_eq!(row_bytes(&[0], 8, Order::C), 8);
        assert_eq!(row_bytes(&[], 8, Order::C), 0);
    }
}
