//! Bytes on disk: extents, the commit log, checkpoints. Knows nothing of memory maps or shapes.
//!
//! ```text
//! signals.zba/
//!   format.json        magic, format version, store uuid, defaults; written once, never changed
//!   log/<n>.log        commit records; append-only; a torn tail is cut at open
//!   data/<n>.dat       extents; allocated before they are written; never truncated
//!   checkpoint/<tid>   the state as of tid; written aside, synced, renamed; can be deleted
//!   shared             lock byte ranges and words: who is there, the newest commit
//! ```
//!
//! # Invariants
//!
//! 1. Committed bytes never change ([`extent`]).
//! 2. The log is the truth; a checkpoint is a copy of what it says ([`engine`]).
//! 3. Everything a record names is durable before the record is written ([`record`]).
//!
//! # Failure
//!
//! Every error names file and byte. After a failed write or sync of the log, or a failed sync of
//! data, the handle is poisoned: it refuses to write, and nothing is retried.

pub mod backend;
pub mod cache;
pub mod catalog;
pub mod check;
mod codec;
pub mod encoding;
pub mod engine;
mod error;
pub mod extent;
mod filters;
pub mod index;
mod layered;
pub mod local;
mod names;
pub mod planted;
pub mod record;
pub mod scratch;
pub mod sled;
pub mod state;
pub mod words;

pub use error::StorageError;
