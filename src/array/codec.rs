//! How the blocks of an array are encoded, and encoding those anew that are there.
//!
//! ```text
//! set_codec   holds for blocks that are written from now on
//! encode      writes blocks again that are stored already, some at a time
//! ```
//!
//! Blocks of any codecs, and of none, lie in one array: each says itself how it is encoded.

use super::dynamic::DynArray;
use super::error::ArrayError;
use crate::txn::{CatalogChange, Codec, Source};
use crate::units::{PAGE_BYTES, PageRange};

impl DynArray<'_> {
    /// How blocks are encoded that are written from now on.
    #[must_use]
    pub fn codec(&self) -> Codec {
        let catalog = self.transaction.names();
        catalog.array_by_id(self.id).map(|entry| entry.codec).unwrap_or_default()
    }

    /// Blocks are encoded by `codec` from now on, with the width of this array's elements for the
    /// filter. What is stored stays as it is; see [`encode_stored`](Self::encode_stored).
    ///
    /// # Errors
    ///
    /// [`TransactionError::ReadOnly`](crate::txn::TransactionError::ReadOnly).
    pub fn set_codec(&mut self, codec: Codec) -> Result<(), ArrayError> {
        let codec = codec.for_elements_of(self.dtype().itemsize());
        Ok(self.transaction.change(CatalogChange::Codec { array: self.id, codec })?)
    }

    /// Writes the blocks that are stored again, each as the codec says; what no transaction wrote
    /// stays a hole. Content does not change, so nobody who changes it meanwhile is in conflict.
    ///
    /// `progress` is told the bytes done and those to do. Cost O(bytes stored).
    ///
    /// # Errors
    ///
    /// [`TransactionError::Data`](crate::txn::TransactionError::Data) naming the first block that
    /// is damaged; errors of the disk.
    pub fn encode_stored(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), ArrayError> {
        let block_pages = self.block_bytes() / PAGE_BYTES;
        let pages_at_once = block_pages.max(AT_ONCE_PAGES);
        let end = self.segments()?.last().map_or(0, |segment| segment.pages.end);
        let mut start = 0;
        while start < end {
            progress(start * PAGE_BYTES, end * PAGE_BYTES);
            let part = PageRange::new(start, end.min(start + pages_at_once));
            let segments = self.transaction.segments(self.id, part)?;
            let stored = segments.iter().filter(|segment| segment.source != Source::Hole);
            let stored = stored.map(|segment| segment.pages).collect();
            self.transaction.write_again(self.id, &stored)?;
            start = part.end;
        }
        progress(end * PAGE_BYTES, end * PAGE_BYTES);
        Ok(())
    }
}

/// Written again in one step: 64 MiB.
const AT_ONCE_PAGES: u64 = 1 << 14;
