//! Arrays larger than RAM, in memory, committed atomically.

#![deny(unsafe_code)]

pub mod array;
pub mod units;
