//! How to create and to open a store.

use crate::units::BLOCK_BYTES_DEFAULT;
use crate::vm;

/// Bytes that a pack keeps for the snapshots of other processes before it tells them that they are
/// over.
pub(super) const HELD_BYTES_MAX: u64 = 8 << 30;

/// Memory of the machine, where it does not tell: what small ones have.
const MEMORY_BYTES_DEFAULT: u64 = 4 << 30;

/// Memory of the machine.
pub(super) fn memory_bytes() -> u64 {
    vm::memory_bytes().unwrap_or(MEMORY_BYTES_DEFAULT)
}

/// How to create a store.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Bytes of a block of arrays that do not choose: a power of two from 64 KiB to 1 GiB.
    pub block_bytes: u64,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { block_bytes: BLOCK_BYTES_DEFAULT }
    }
}

/// How to open a store.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Whether nothing shall be written. Works on read-only file systems and beside a writer.
    pub read_only: bool,
    /// Whether a store that is opened for reading may lie on a network file system. There nothing
    /// keeps others from changing it: who says so sees to it that nobody does meanwhile.
    pub network: bool,
    /// Bytes that a pack keeps for the snapshots of other processes. If it would be more, those
    /// snapshots are over: their transactions get
    /// [`StorageError::Expired`](crate::txn::StorageError::Expired). 8 GiB unless said otherwise.
    pub held_bytes_max: u64,
    /// Whether every block is compared with its checksum before the program sees it: blocks are
    /// then loaded when they are first touched, instead of being mapped as they lie. What that
    /// costs is a row of the bench `lazy`.
    pub checked: bool,
    /// Bytes of disk and memory for blocks that cannot be mapped as they lie: those that are in use
    /// or were lately. A quarter of the machine's memory unless said otherwise, at least 4 MiB.
    pub cache_bytes_max: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            network: false,
            held_bytes_max: HELD_BYTES_MAX,
            checked: false,
            cache_bytes_max: memory_bytes() / 4,
        }
    }
}

impl OpenOptions {
    /// To read only.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::default() }
    }

    /// The same, also on a network file system; see [`network`](Self::network).
    #[must_use]
    pub fn on_network(self) -> Self {
        Self { network: true, ..self }
    }
}
