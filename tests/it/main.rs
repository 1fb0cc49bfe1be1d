//! Facts and properties that hold across files, in one test program.

#![deny(unsafe_code)]

// `cfg(test)` tells clippy that helpers of tests may unwrap, too.
#[cfg(test)]
mod concurrent;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash_smoke;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod model;
#[cfg(test)]
mod numpy_pure;
