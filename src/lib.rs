//! Arrays larger than RAM, in memory, committed atomically.

#![deny(unsafe_code)]

pub mod storage;
pub mod txn;
pub mod units;
pub mod vm;
