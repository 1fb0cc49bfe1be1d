//! The store as a filesystem: every program that can read a file can read an array.
//!
//! ```text
//! kernel <-> filesystem -> tree (what is read) -> snapshot -> the store's mappings
//!               \-> writing -> writer: a transaction for each file    names, layout, zarr: pure
//!            mounting -> follow: commits make invalid what the kernel keeps
//! ```
//!
//! What each path is, and what can be relied on, is in `docs/filesystem.md`.

#![deny(unsafe_code)]

mod attributes;
mod filesystem;
mod follow;
mod layout;
pub mod messages;
pub mod mounting;
mod names;
mod node;
#[expect(unsafe_code, reason = "how another process ended only a call of the kernel tells")]
mod process;
mod refusal;
mod snapshot;
mod text;
mod tree;
mod writer;
mod writing;
mod zarr;
