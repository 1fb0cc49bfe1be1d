//! The filesystem through the kernel: every test mounts a store of its own with the program itself.
//!
//! Where nothing can be mounted, because there is no `/dev/fuse` or it may not be opened, a test
//! says "not run" and passes.

// `cfg(test)` tells clippy that helpers of tests may unwrap, too.
#[cfg(test)]
mod names;
#[cfg(test)]
mod python;
#[cfg(test)]
mod random;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod support;
#[cfg(test)]
mod writing;
