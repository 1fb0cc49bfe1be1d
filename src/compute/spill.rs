//! Results that wait on the disk.
//!
//! Each run has one unnamed file, so nothing is left of it however the process ends. A result is
//! written once; what is read again is mapped memory of that file.
//!
//! # Failure
//!
//! What the disk refuses, such as a full one, is the error of the system and ends the run.

use std::io::{self, Write};
use std::path::Path;

use super::value::{Restorer, TaskError, Value};
use crate::txn::{ScratchFile, ScratchPlace};

/// Where one run spills to.
pub(super) struct Disk(ScratchFile);

/// A result on the disk. The last clone frees its place.
#[derive(Clone)]
pub(super) struct Spilled {
    place: ScratchPlace,
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
        let place = self.0.write(counted.0, |to| value.spill(to))?;
        Ok(Spilled { place, restorer })
    }
}

impl Spilled {
    /// Makes the value again.
    pub(super) fn read(&self) -> Result<Value, TaskError> {
        self.restorer.restore(self.place.map()?)
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
