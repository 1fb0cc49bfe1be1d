//! The file of a block cache: one that all processes of a store have open, or one of its own.
//!
//! ```text
//! locked bytes   2^40 gate: who opens, begins anew or empties the file
//!                2^40 + 1 shared by every process that uses it
//!                2^41 + n slot n: shared by who shows it, exclusive while it is filled
//! ```
//!
//! Locks belong to the open file through which slots are mapped, and a mapping keeps its file open:
//! so a slot stays locked as long as anybody shows it, a child of fork too, and the kernel gives it
//! back when the last of them is gone, at whatever instruction.
//!
//! # Invariants
//!
//! 1. What is in a file that nobody uses is forgotten by the next who does: it may come from before
//!    a power cut, or from another life of the store.
//! 2. The file keeps its name. The last who uses it cuts it to nothing, and nobody else ever cuts
//!    it or makes it longer.
//!
//! # Failure
//!
//! Where there is no such file to be had, also because somebody stopped holds the gate or wrote
//! nonsense, the process uses an unnamed one alone. That costs decoding twice and nothing else.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::table::{self, HEADER_LEN, Layout};
use crate::storage::StorageError;
use crate::storage::backend::{ByteLock, Files, StoreFile};
use crate::sync::thread;

/// The name of the file in the directory of a store.
pub(in crate::storage) const CACHE_PATH: &str = "cache";

const GATE_BYTE: u64 = 1 << 40;
const USERS: Range<u64> = GATE_BYTE + 1..GATE_BYTE + 2;
const SLOT_BYTE: u64 = 1 << 41;

/// How long to wait for who has the gate: opening takes less than a millisecond.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// An open file for a block cache. It is no part of the store.
pub struct CacheFile {
    file: StoreFile,
    layout: Layout,
    // Whether it has a name that others find it by.
    is_shared: bool,
    process: u32,
}

impl CacheFile {
    /// The file of store `store` in `files`, which others may use too, or else an unnamed one.
    pub(in crate::storage) fn shared(
        files: &Files,
        store: &[u8; 16],
        layout: Layout,
    ) -> Result<Self, StorageError> {
        for _ in 0..ATTEMPTS {
            match Self::try_join(&files.aside(), store, layout) {
                Ok(Joined::Here(file)) => return Ok(file),
                Ok(Joined::Again) => thread::sleep(PAUSE),
                // Whatever it is that keeps us from sharing.
                Ok(Joined::Not) | Err(_) => break,
            }
        }
        Self::unnamed(files, layout)
    }

    /// A file that nobody else finds.
    pub(in crate::storage) fn unnamed(files: &Files, layout: Layout) -> Result<Self, StorageError> {
        let file = files.create_unnamed()?;
        file.set_len(layout.len_bytes())?;
        Ok(Self { file, layout, is_shared: false, process: std::process::id() })
    }

    fn try_join(files: &Files, store: &[u8; 16], layout: Layout) -> Result<Joined, StorageError> {
        let Some(file) = files.open_cache(CACHE_PATH)? else { return Ok(Joined::Not) };
        if !file.try_lock(GATE_BYTE, ByteLock::Exclusive)? {
            return Ok(Joined::Again);
        }
        let found = behind_the_gate(&file, store, layout);
        // Not by closing it: a child that is forked off just now would keep the gate.
        file.try_lock(GATE_BYTE, ByteLock::None)?;
        Ok(found?.map_or(Joined::Not, |layout| {
            let process = std::process::id();
            Joined::Here(Self { file, layout, is_shared: true, process })
        }))
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether its length is what it was made with: else somebody cut it.
    pub(super) fn is_whole(&self) -> bool {
        self.file.len().is_ok_and(|len| len == self.layout.len_bytes())
    }

    /// Fills `bytes`; what is behind the end of the file is zeros.
    pub(super) fn read(&self, bytes: &mut [u8], offset_bytes: u64) -> Result<(), StorageError> {
        let got = self.file.read_at(bytes, offset_bytes)?;
        bytes[got..].fill(0);
        Ok(())
    }

    pub(super) fn write(&self, bytes: &[u8], offset_bytes: u64) -> Result<(), StorageError> {
        self.file.write_at(&[bytes], offset_bytes)
    }

    /// Changes the lock of slot `slot`; whether nobody was in the way.
    pub(super) fn try_lock(&self, slot: u64, lock: ByteLock) -> bool {
        // A lock that cannot be asked for is not had.
        !self.is_shared || matches!(self.file.try_lock(SLOT_BYTE + slot, lock), Ok(true))
    }

    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        self.file.fd()
    }

    /// Whether this is the process that opened it, and not a child, whose locks are its parent's.
    pub(super) fn is_ours(&self) -> bool {
        std::process::id() == self.process
    }

    /// Gives the disk back what the file takes, if nobody else uses it. The caller shows nothing of
    /// it any more, and no child of it does.
    pub(super) fn empty_if_unused(&self) -> Result<(), StorageError> {
        if !self.is_shared || !self.file.try_lock(GATE_BYTE, ByteLock::Exclusive)? {
            return Ok(());
        }
        let emptied = match self.file.locked_by_others(&USERS) {
            Ok(None) => self.file.set_len(0),
            other => other.map(drop),
        };
        self.file.try_lock(GATE_BYTE, ByteLock::None)?;
        emptied
    }
}

/// Where things are in a file of which the caller has the gate, and of which it is a user
/// afterwards; `None` if it cannot be one.
fn behind_the_gate(
    file: &StoreFile,
    store: &[u8; 16],
    layout: Layout,
) -> Result<Option<Layout>, StorageError> {
    if file.locked_by_others(&USERS)?.is_some() {
        let mut bytes = [0; HEADER_LEN];
        file.read_at(&mut bytes, 0)?;
        let found = table::read_header(&bytes, store, layout.slot_bytes());
        let len = file.len()?;
        let found = found.filter(|found| found.len_bytes() == len);
        return match file.try_lock(USERS.start, ByteLock::Shared)? {
            true => Ok(found),
            false => Ok(None),
        };
    }
    // Invariant 1.
    file.set_len(0)?;
    file.set_len(layout.len_bytes())?;
    file.write_at(&[&layout.header(store)], 0)?;
    Ok(file.try_lock(USERS.start, ByteLock::Shared)?.then_some(layout))
}

/// What came of an attempt to use a file with others.
enum Joined {
    Here(CacheFile),
    // Somebody is at it.
    Again,
    Not,
}
