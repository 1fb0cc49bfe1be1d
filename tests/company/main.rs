//! Several processes on one store, as real processes.

#![deny(unsafe_code)]

// `cfg(test)` tells clippy that helpers of tests may unwrap, too.
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod slots;
