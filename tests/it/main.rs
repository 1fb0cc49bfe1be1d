//! Integration tests, one binary.

mod numpy_pure;
