//! What `tests/it` proves of a store, over the sled engine: the same files, another engine.

#![deny(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "tests count in u64 what memory counts in usize, which is the same on 64-bit machines"
)]

// `cfg(test)` tells clippy that helpers of tests may unwrap, too.
#[cfg(test)]
#[path = "../it/appends.rs"]
mod appends;
#[cfg(test)]
#[path = "../it/concurrent.rs"]
mod concurrent;
#[cfg(test)]
#[path = "../it/conformance/mod.rs"]
mod conformance;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
#[path = "../it/model/mod.rs"]
mod model;
