//! The first page of a log file: whose it is, which file of its chain, and what it follows.
//!
//! ```text
//! log/0000000007.log   | header | base state?| record | record | ...
//!                        chain_base 5: the chain is files 5, 6, 7; file 5 begins with the base
//! ```
//!
//! # Invariants
//!
//! 1. A log file gets its name after its header is durable: a file without one is damaged.
//! 2. The files of a chain are numbered without gap from `chain_base` on, and the newest file
//!    says which chain counts: packing begins a new one.

use super::StoreId;
use super::codec::{Decoder, Encoder, Malformed};
use super::frame::{SECTOR_BYTES, Seal, Sector};
use crate::storage::StorageError;
use crate::storage::backend::StoreFile;
use crate::units::{PAGE_LEN, Tid};

const MAGIC: u64 = u64::from_le_bytes(*b"zba-log\n");
const VERSION: u32 = 1;

/// What the header of a log file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogHeader {
    /// Number of the file.
    pub(super) file: u32,
    /// Number of the first file of its chain.
    pub(super) chain_base: u32,
    /// The newest commit before this file.
    pub(super) base: Tid,
    /// Chain value of the frame before this file; 0 in the first file of a chain.
    pub(super) previous: u32,
    /// Whether a whole state follows.
    pub(super) has_state: bool,
}

impl LogHeader {
    /// The header as the page to write.
    pub(super) fn encode(&self, store: &StoreId) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(MAGIC);
        out.u32(VERSION);
        out.0.extend_from_slice(store);
        out.u32(self.file);
        out.u32(self.chain_base);
        out.u64(self.base.0);
        out.u32(self.previous);
        out.u8(u8::from(self.has_state));
        Seal::new(store, self.file).sectors(0, &out.0)
    }

    /// Reads the header of log file `number`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupted`] if it is not one of this store and this file (invariant 1).
    pub(super) fn read(
        file: &StoreFile,
        store: &StoreId,
        number: u32,
    ) -> Result<Self, StorageError> {
        let mut page = [0; PAGE_LEN];
        file.read_exact_at(&mut page, 0)?;
        let sector = Seal::new(store, number).examine(0, &page[..SECTOR_BYTES]);
        if sector != Sector::Good {
            return Err(
                file.damaged(0, "the header of the log file is damaged or of another store")
            );
        }
        if page[SECTOR_BYTES..].iter().any(|&byte| byte != 0) {
            return Err(file.damaged(512, "the rest of the header's page is not zero"));
        }
        let header = Self::decode(&page);
        let header = header.map_err(|Malformed(what)| file.damaged(0, what))?;
        if header.file != number || header.chain_base > number {
            return Err(file.damaged(0, "the header is that of another log file"));
        }
        Ok(header)
    }

    fn decode(page: &[u8]) -> Result<Self, Malformed> {
        let mut from = Decoder(page);
        if from.u64()? != MAGIC || from.u32()? != VERSION {
            return Err(Malformed("the log file is of another version".to_owned()));
        }
        from.bytes(size_of::<StoreId>())?;
        let header = Self {
            file: from.u32()?,
            chain_base: from.u32()?,
            base: Tid(from.u64()?),
            previous: from.u32()?,
            has_state: from.u8()? == 1,
        };
        if header.base > Tid::BELIEVED_MAX {
            return Err(Malformed("it begins after an impossible commit".to_owned()));
        }
        Ok(header)
    }
}

/// The path of log file `number`.
pub(super) fn log_path(number: u32) -> String {
    format!("log/{number:010}.log")
}

/// The number of the log file called `name` in its directory.
pub(super) fn log_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    let number: u32 = digits.parse().ok()?;
    (format!("{number:010}") == digits && number < LOG_FILE).then_some(number)
}

/// The bit of [`Place::file`](crate::storage::extent::Place) that says: a log file.
pub(super) const LOG_FILE: u32 = crate::storage::extent::IN_LOG;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_of_a_log_file_is_one() {
        assert_eq!(log_number("0000000012.log"), Some(12));
        for name in ["12.log", "+000000012.log", "0000000012.log.bak", "4294967295.log", ".tmp-1"] {
            assert_eq!(log_number(name), None, "{name}");
        }
    }
}
