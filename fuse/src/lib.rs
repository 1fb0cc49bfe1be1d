//! The store as a filesystem: every program that can read a file can read an array.
//!
//! This crate is empty until the filesystem is built; it holds the place in the workspace.
