//! What bytes from anywhere may do to the library: give a result or an error, soon, and no more.
//!
//! ```text
//! seeds.rs -> mutate.rs or libFuzzer -> TARGETS: one per decoder, whole stores, shared words
//!                                       meter.rs: memory and time within bounds
//! ```
//!
//! This crate is built by cargo-fuzz; `tests/hostile.rs` takes the same files in as a module and
//! runs every target over the seeds and seeded changes of them, so that no fuzzer is needed to
//! notice what one found.
//!
//! # Invariants
//!
//! 1. A target panics only if the library did, or if a bound or a property did not hold.
//! 2. A target does the same for the same bytes, but for times and random ids of new stores.
//!
//! # Failure
//!
//! A panic, an abort or a signal: the input is what is wrong, or the library.

#![allow(dead_code, unreachable_pub, reason = "the fuzzers use a part, the tests another one")]

mod cli;
pub(crate) mod flips;
pub(crate) mod image;
pub(crate) mod meter;
pub(crate) mod mutate;
pub(crate) mod seeds;
pub(crate) mod store;
pub(crate) mod targets;
pub(crate) mod words;

/// A decoder, or a whole store, that takes any bytes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// Bytes that it takes without an error.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Feeds it.
    pub(crate) run: fn(&[u8]),
}

/// Every target. The fuzzers in `fuzz_targets/` have the same names.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "log", seeds: seeds::log, run: targets::log },
    Target { name: "record", seeds: seeds::record, run: targets::record },
    Target { name: "state", seeds: seeds::state, run: targets::state },
    Target { name: "catalog", seeds: seeds::catalog, run: targets::catalog },
    Target { name: "checkpoint", seeds: seeds::checkpoint, run: targets::checkpoint },
    Target { name: "format", seeds: seeds::format, run: targets::format },
    Target { name: "descriptor", seeds: seeds::descriptor, run: targets::descriptor },
    Target { name: "dtype", seeds: seeds::dtype, run: targets::dtype },
    Target { name: "npy", seeds: seeds::npy, run: targets::npy },
    Target { name: "npz", seeds: seeds::npz, run: targets::npz },
    Target { name: "index", seeds: seeds::index, run: targets::index },
    Target { name: "encoded", seeds: seeds::encoded, run: targets::encoded },
    Target { name: "shape", seeds: seeds::shape, run: targets::shape },
    Target { name: "attributes", seeds: seeds::attributes, run: targets::attributes },
    Target { name: "store", seeds: seeds::store, run: store::run },
    Target { name: "words", seeds: words::seeds, run: words::run },
];

/// The target of this name.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub(crate) fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    *found.unwrap_or_else(|| panic!("there is no target `{name}`"))
}

/// Feeds a target and holds it to its bounds.
///
/// # Panics
///
/// If the library panics, or takes more memory or time than the bytes are worth.
pub(crate) fn feed(target: Target, bytes: &[u8]) {
    let ((), used) = meter::measured(|| (target.run)(bytes));
    let len = bytes.len() as u64;
    let memory_max = (256 << 20) + 4 * len;
    assert!(
        used.peak_bytes <= memory_max,
        "{}: {} bytes of memory for {len} bytes",
        target.name,
        used.peak_bytes
    );
    let seconds_max = 1.0 + len as f64 / f64::from(1 << 20);
    assert!(
        used.cpu_seconds <= seconds_max,
        "{}: {} seconds for {len} bytes",
        target.name,
        used.cpu_seconds
    );
}

/// Feeds the target of this name. For the fuzzers.
///
/// # Panics
///
/// As [`feed`] does.
pub fn fuzz(name: &str, bytes: &[u8]) {
    feed(target(name), bytes);
}
