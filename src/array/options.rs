//! How to create an array.

use super::shape::Order;
use crate::txn::{Codec, Method};

/// How to create an array.
#[derive(Clone, Debug)]
pub struct ArrayOptions {
    pub(super) order: Order,
    pub(super) block_bytes: Option<u64>,
    pub(super) fill: Option<Vec<u8>>,
    pub(super) codec: Codec,
}

impl ArrayOptions {
    /// C order, the store's block size, filled with zeros.
    #[must_use]
    pub fn new() -> Self {
        let method = if cfg!(feature = "encode-all") { Method::Lz4 } else { Method::None };
        let codec = Codec { method, ..Codec::default() };
        Self { order: Order::default(), block_bytes: None, fill: None, codec }
    }

    /// Which axis varies fastest.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Bytes of a block: a power of two from 64 KiB to 1 GiB.
    #[must_use]
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        self.block_bytes = Some(bytes);
        self
    }

    /// How blocks are encoded: not at all unless said otherwise, so that they can be mapped as they
    /// lie. Encoded blocks are decoded when they are first touched.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The bytes of one element, which elements have that nobody wrote.
    #[must_use]
    pub fn fill(mut self, element: &[u8]) -> Self {
        self.fill = Some(element.to_vec());
        self
    }
}

impl Default for ArrayOptions {
    fn default() -> Self {
        Self::new()
    }
}
