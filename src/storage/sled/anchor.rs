//! The file `head`: what makes a directory a store of this engine, and which commit it acknowledged
//! last, kept outside of sled, which may come back with fewer commits and not say so.
//!
//! ```text
//! sector   0                          1                      2
//!          | magic, version, uuid,    | slot: sequence, tid, | slot
//!          | block bytes, created     | sum, oldest          |
//! ```
//!
//! Each commit writes the slot that is *not* the newest, after sled's file is durable and before
//! the commit is acknowledged.
//!
//! # Invariants
//!
//! 1. Everything a slot names was durable in sled before the slot was written.
//! 2. A commit is acknowledged only after a slot that names it, or a later one, is durable.
//! 3. The file has its name only when the rest of the store is there and durable.
//!
//! # Failure
//!
//! A slot with a wrong checksum was being written when the power went: the other one counts. Two
//! such slots, or a first sector that does not match its checksum, are [`StorageError::Corrupted`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::storage::StorageError;
use crate::storage::backend::{Access, ByteLock, Files, StoreFile};
use crate::storage::codec::{Decoder, Encoder, Malformed};
use crate::sync::Mutex;
use crate::units::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Tid};

/// The file.
pub(super) const PATH: &str = "head";
/// The file while a store is being created.
pub(super) const TEMPORARY: &str = ".tmp-head";
/// The format version that this program writes and reads.
const VERSION: u64 = 1;
const MAGIC: [u8; 16] = *b"zbigarray-sled\r\n";
const SECTOR_BYTES: usize = 512;
const FILE_BYTES: usize = 3 * SECTOR_BYTES;
/// Encoded bytes of the first sector and of a slot, each followed by its CRC-32.
const IDENTITY_BYTES: usize = 16 + 8 + 16 + 8 + 8;
const SLOT_BYTES: usize = 8 + 8 + 4 + 8;
const _: () = assert!(IDENTITY_BYTES + 4 <= SECTOR_BYTES && SLOT_BYTES + 4 <= SECTOR_BYTES);

/// What the first sector says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) uuid: Uuid,
    /// Block size of arrays for which nobody chooses another one.
    pub(super) block_bytes: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
}

/// What was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Acknowledged {
    /// The newest commit.
    pub(super) tid: Tid,
    /// The sum of its record.
    pub(super) sum: u32,
    /// The oldest commit that can be read.
    pub(super) oldest: Tid,
}

/// The open file, locked.
pub(super) struct Anchor {
    file: StoreFile,
    identity: Identity,
    // The sequence number of the newest slot, and what it says.
    newest: Mutex<(u64, Acknowledged)>,
}

impl Identity {
    pub(super) fn new(block_bytes: u64) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { uuid: Uuid::new_v4(), block_bytes, created: since_1970.as_secs() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(MAGIC.to_vec());
        out.u64(VERSION);
        out.0.extend_from_slice(self.uuid.as_bytes());
        out.u64(self.block_bytes);
        out.u64(self.created);
        sealed(out)
    }

    /// What a first sector says, and its version.
    fn decode(sector: &[u8]) -> Option<(Self, u64)> {
        let mut from = Decoder(unsealed(sector, IDENTITY_BYTES)?);
        let mut all = || -> Result<Option<(Self, u64)>, Malformed> {
            let magic = from.bytes(MAGIC.len())?;
            let version = from.u64()?;
            let uuid = Uuid::from_slice(from.bytes(16)?).unwrap_or_default();
            let identity = Self { uuid, block_bytes: from.u64()?, created: from.u64()? };
            Ok((magic == MAGIC).then_some((identity, version)))
        };
        all().ok().flatten()
    }
}

impl Acknowledged {
    fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(sequence);
        out.u64(self.tid.0);
        out.u32(self.sum);
        out.u64(self.oldest.0);
        sealed(out)
    }

    fn decode(sector: &[u8]) -> Option<(u64, Self)> {
        let mut from = Decoder(unsealed(sector, SLOT_BYTES)?);
        let mut all = || -> Result<(u64, Self), Malformed> {
            let sequence = from.u64()?;
            let (tid, sum, oldest) = (Tid(from.u64()?), from.u32()?, Tid(from.u64()?));
            Ok((sequence, Self { tid, sum, oldest }))
        };
        all().ok()
    }
}

/// A whole sector: `out`, its checksum, zeros.
fn sealed(out: Encoder) -> Vec<u8> {
    let mut sector = out.0;
    let sum = crc32fast::hash(&sector);
    sector.extend_from_slice(&sum.to_le_bytes());
    sector.resize(SECTOR_BYTES, 0);
    sector
}

/// The first `len` bytes of a sector if it is whole.
fn unsealed(sector: &[u8], len: usize) -> Option<&[u8]> {
    let (content, rest) = sector.split_at_checked(len)?;
    let (sum, zeros) = rest.split_first_chunk::<4>()?;
    let is_whole =
        crc32fast::hash(content) == u32::from_le_bytes(*sum) && zeros.iter().all(|&byte| byte == 0);
    is_whole.then_some(content)
}

impl Anchor {
    /// Writes the file of a new store, which is a store from then on (invariant 3).
    pub(super) fn create(
        files: &Files,
        identity: &Identity,
        begins: Acknowledged,
    ) -> Result<(), StorageError> {
        let file = files.create(TEMPORARY)?;
        file.write_at(&[&identity.encode(), &begins.encode(1), &begins.encode(2)], 0)?;
        file.sync()?;
        files.rename(TEMPORARY, PATH)?;
        files.sync_dir("")
    }

    /// Locks and reads the file.
    pub(super) fn open(files: &Files) -> Result<Self, StorageError> {
        let path = files.location();
        let Some(file) = files.try_open(PATH, Access::Write)? else {
            let why = match files.try_open("format.json", Access::Read)? {
                Some(_) => "it is one of the local engine: leave out `sled:`",
                None => "it has no file `head`",
            };
            return Err(StorageError::NotAStore { path, why: why.to_owned() });
        };
        if !file.try_lock(0, ByteLock::Exclusive)? {
            let who = "stores of the sled engine are for one process at a time, and it is open";
            return Err(StorageError::Locked { path, who: who.to_owned() });
        }
        let mut bytes = [0; FILE_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let (first, slots) = bytes.split_at(SECTOR_BYTES);
        let Some((identity, version)) = Identity::decode(first) else {
            return Err(file.damaged(0, "it does not match its checksum"));
        };
        if version != VERSION {
            return Err(StorageError::Version { path, found: version, supported: VERSION });
        }
        if !identity.block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&identity.block_bytes)
        {
            return Err(file.damaged(0, "its block size is impossible"));
        }
        let slots = slots.chunks(SECTOR_BYTES).filter_map(Acknowledged::decode);
        let Some(newest) = slots.max_by_key(|(sequence, _)| *sequence) else {
            let what = "neither slot matches its checksum";
            return Err(file.damaged(SECTOR_BYTES as u64, what));
        };
        Ok(Self { file, identity, newest: Mutex::new(newest) })
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was acknowledged last.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        self.newest.lock().1
    }

    /// Says durably that `now` is acknowledged. It is durable in sled (invariant 1).
    pub(super) fn acknowledge(&self, now: Acknowledged) -> Result<(), StorageError> {
        let mut newest = self.newest.lock();
        if newest.1 == now {
            return Ok(());
        }
        let sequence = newest.0 + 1;
        let sector = 2 - sequence % 2;
        self.file.write_at(&[&now.encode(sequence)], sector * SECTOR_BYTES as u64)?;
        self.file.sync()?;
        *newest = (sequence, now);
        Ok(())
    }

    /// The open file that has the lock.
    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        self.file.fd()
    }
}
