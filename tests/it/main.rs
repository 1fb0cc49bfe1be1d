//! Facts and properties that hold across files, in one test program.

#![deny(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "tests count in u64 what memory counts in usize, which is the same on 64-bit machines"
)]

// `cfg(test)` tells clippy that helpers of tests may unwrap, too.
#[cfg(test)]
mod appends;
#[cfg(test)]
#[cfg(feature = "compute")]
mod blocked;
#[cfg(test)]
#[cfg(feature = "compute")]
mod compute_run;
#[cfg(test)]
mod concurrent;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod encoded;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod failing_calls;
#[cfg(test)]
mod fault_threads;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod model;
#[cfg(test)]
mod numpy_casting;
#[cfg(test)]
#[cfg(feature = "compute")]
mod numpy_compute;
#[cfg(test)]
#[cfg(feature = "compute")]
mod numpy_linalg;
#[cfg(test)]
mod numpy_pure;
