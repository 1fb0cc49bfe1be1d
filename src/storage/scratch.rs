//! Memory for whole blocks that is used again: a fresh allocation of that size is given back to the
//! system at once, and each page of the next one costs a fault.
//!
//! # Invariants
//!
//! 1. At most `KEPT_MAX` buffers of `LEN_MAX` bytes wait to be used again.
//!
//! # Failure
//!
//! None.

use std::ops::{Deref, DerefMut};

use super::extent::ENCODED_PAGES_MAX;
use crate::sync::process;
use crate::units::PAGE_LEN;

/// Most bytes of a buffer that is kept: the content of a block that is encoded.
const LEN_MAX: usize = ENCODED_PAGES_MAX as usize * PAGE_LEN;
/// Buffers that are kept: 48 MiB.
const KEPT_MAX: usize = 24;

// Nobody waits for it: a child of fork may have it locked for ever.
static KEPT: process::Mutex<Vec<Vec<u8>>> = process::Mutex::new(Vec::new());

/// Bytes that hold anything until they are written.
pub struct Scratch {
    bytes: Vec<u8>,
    len: usize,
}

impl Scratch {
    /// `len` bytes.
    #[must_use]
    pub fn of(len: usize) -> Self {
        if len > LEN_MAX {
            return Self { bytes: vec![0; len], len };
        }
        let kept = KEPT.try_lock().and_then(|mut kept| kept.pop());
        Self { bytes: kept.unwrap_or_else(|| vec![0; LEN_MAX]), len }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.bytes.len() != LEN_MAX {
            return;
        }
        if let Some(mut kept) = KEPT.try_lock()
            && kept.len() < KEPT_MAX
        {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}
