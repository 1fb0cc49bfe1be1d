//! Facts and properties that hold across files, in one test program.

#![deny(unsafe_code)]

#[cfg(test)]
mod kernel;
