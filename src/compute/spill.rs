//! Results that wait on the disk.
//!
//! Each run has one unnamed file, so nothing is left of it however the process ends. A result is
//! written once; what is read again is mapped memory of that file.
//!
//! # Invariants
//!
//! 1. Bytes from the disk are compared with the checksum of those that were written before anything
//!    is made of them.
//!
//! # Failure
//!
//! What the disk refuses, such as a full one, is the error of the system: the result is still in
//! memory. What it gives back changed, or not at all, is an error, and never a result.

use std::io::{self, Write};
use std::path::Path;

use super::planted::{Bug, planted};
use super::value::{Restorer, TaskError, Value};
use crate::txn::{ScratchFile, ScratchPlace};

/// Where one run spills to.
pub(super) struct Disk(ScratchFile);

/// A result on the disk. The last clone frees its place.
#[derive(Clone)]
pub(super) struct Spilled {
    place: ScratchPlace,
    sum: u32,
    restorer: Restorer,
}

impl Disk {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self(ScratchFile::new(directory)?))
    }

    /// Writes `value`.
    pub(super) fn write(&self, value: &Value) -> io::Result<Spilled> {
        let restorer = value.restorer();
        let restorer = restorer.ok_or_else(|| io::Error::other("the value cannot be spilled"))?;
        let mut counted = Counted(0);
        value.spill(&mut counted)?;
        let mut hasher = crc32fast::Hasher::new();
        let place = self.0.write(counted.0, |to| value.spill(&mut Summed(to, &mut hasher)))?;
        Ok(Spilled { place, sum: hasher.finalize(), restorer })
    }
}

impl Spilled {
    /// Makes the value again.
    pub(super) fn read(&self) -> Result<Value, TaskError> {
        let mapped = self.place.map()?;
        let sum = crc32fast::hash(&mapped);
        if sum != self.sum && !planted(Bug::SpilledUnchecked) {
            let (len, wanted) = (mapped.len(), self.sum);
            return Err(TaskError::from(format!(
                "{len} bytes that were written have the checksum {wanted:08x}, \
                 those that came back {sum:08x}"
            )));
        }
        self.restorer.restore(mapped)
    }

    /// Bytes of memory that the value had.
    pub(super) fn bytes(&self) -> u64 {
        self.restorer.bytes()
    }
}

/// Counts what is written.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the checksum of what is written.
struct Summed<'a>(&'a mut dyn Write, &'a mut crc32fast::Hasher);

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
