//! Facts and properties that hold across files, in one test program.

#![deny(unsafe_code)]

mod kernel;
mod numpy_pure;
