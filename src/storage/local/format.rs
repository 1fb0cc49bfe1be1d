//! `format.json`: what makes a directory a store. Written once, last of all, and never changed.
//!
//! ```text
//! {
//!   "magic": "zbigarray",
//!   "format_version": 1,
//!   "uuid": "...",
//!   "block_bytes": 2097152,
//!   "created_unix_seconds": 1700000000,
//!   "checksum": "crc32:1f2e3d4c"
//! }
//! ```
//!
//! # Invariants
//!
//! 1. There is one text for one content, so any changed byte is noticed.
//!
//! # Failure
//!
//! No file: [`StorageError::NotAStore`]. A newer version: [`StorageError::Version`]. Anything
//! else: [`StorageError::Corrupted`].

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use uuid::Uuid;

use crate::storage::StorageError;
use crate::storage::backend::{Access, Files};
use crate::units::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};

/// The format version that this program writes and reads.
pub const FORMAT_VERSION: u64 = 1;
const MAGIC: &str = "zbigarray";
pub(super) const FORMAT_PATH: &str = "format.json";
pub(super) const FORMAT_TEMPORARY: &str = ".tmp-format.json";
/// More than any format file has.
const FORMAT_BYTES_MAX: usize = 64 << 10;

/// What `format.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Identity of the store.
    pub uuid: Uuid,
    /// Block size, in bytes, of arrays for which nobody chooses another one.
    pub block_bytes: u64,
    /// When the store was created: seconds since 1970.
    pub created_unix_seconds: u64,
}

#[derive(Deserialize)]
struct Text {
    uuid: String,
    block_bytes: u64,
    created_unix_seconds: u64,
}

impl Format {
    /// A new store's format, with an identity of its own.
    pub(super) fn new(block_bytes: u64) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { uuid: Uuid::new_v4(), block_bytes, created_unix_seconds: since_1970.as_secs() }
    }

    /// The one text that says this (invariant 1).
    pub(super) fn encode(&self) -> String {
        let Self { uuid, block_bytes, created_unix_seconds } = self;
        let said = format!(
            "{{\n  \"magic\": \"{MAGIC}\",\n  \"format_version\": {FORMAT_VERSION},\n  \
             \"uuid\": \"{uuid}\",\n  \"block_bytes\": {block_bytes},\n  \
             \"created_unix_seconds\": {created_unix_seconds},\n"
        );
        let sum = crc32fast::hash(said.as_bytes());
        format!("{said}  \"checksum\": \"crc32:{sum:08x}\"\n}}\n")
    }

    /// Writes the file aside and gives it its name when it is durable.
    pub(super) fn write(&self, files: &Files) -> Result<(), StorageError> {
        let file = files.create(FORMAT_TEMPORARY)?;
        file.write_at(&[self.encode().as_bytes()], 0)?;
        file.sync()?;
        files.rename(FORMAT_TEMPORARY, FORMAT_PATH)?;
        files.sync_dir("")
    }

    /// Reads the format of the store.
    pub(super) fn read(files: &Files) -> Result<Self, StorageError> {
        let path = files.location();
        let Some(file) = files.try_open(FORMAT_PATH, Access::Read)? else {
            let why = match files.try_open("head", Access::Read)? {
                Some(_) => "it is one of the sled engine: write `sled:` before its path",
                None => "it has no format.json",
            };
            let why = why.to_owned();
            return Err(StorageError::NotAStore { path, why });
        };
        let mut bytes = vec![0; FORMAT_BYTES_MAX];
        let len = file.read_at(&mut bytes, 0)?;
        Self::decode(&bytes[..len], &path)
    }

    fn decode(bytes: &[u8], path: &str) -> Result<Self, StorageError> {
        let corrupted = |what: &str| StorageError::Corrupted {
            place: format!("{path}/{FORMAT_PATH}"),
            what: what.to_owned(),
        };
        let value: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|error| corrupted(&format!("it is not JSON ({error})")))?;
        if value.get("magic").and_then(serde_json::Value::as_str) != Some(MAGIC) {
            return Err(corrupted("it does not say that this is a zbigarray store"));
        }
        match value.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(found) if found > FORMAT_VERSION => {
                let (path, supported) = (path.to_owned(), FORMAT_VERSION);
                return Err(StorageError::Version { path, found, supported });
            }
            _ => return Err(corrupted("it has no format version")),
        }
        let text: Text = serde_json::from_value(value)
            .map_err(|error| corrupted(&format!("a field is wrong ({error})")))?;
        let Text { uuid, block_bytes, created_unix_seconds } = text;
        let uuid = Uuid::parse_str(&uuid).map_err(|error| corrupted(&error.to_string()))?;
        let format = Self { uuid, block_bytes, created_unix_seconds };
        if format.encode().as_bytes() != bytes {
            return Err(corrupted("its content was changed, or its checksum"));
        }
        if !block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            return Err(corrupted("its block size is impossible"));
        }
        Ok(format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> Format {
        Format { uuid: Uuid::from_u128(7), block_bytes: 2 << 20, created_unix_seconds: 1_700 }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Format::decode(format().encode().as_bytes(), "s").unwrap(), format());
    }

    #[test]
    fn every_flipped_bit_of_the_format_is_noticed() {
        let good = format().encode().into_bytes();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Format::decode(&bytes, "s").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_store_of_a_newer_version_says_so_whatever_else_it_says() {
        let newer = br#"{"magic": "zbigarray", "format_version": 9, "new": {}}"#;
        let error = Format::decode(newer, "s").unwrap_err();
        assert!(matches!(error, StorageError::Version { found: 9, supported: 1, .. }));
    }
}
