//! What can go wrong with bytes on disk.

use std::io;

use thiserror::Error;

use super::catalog::CatalogError;
use super::extent::Place;
use crate::units::Tid;

/// Why storage could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file, relative to the store.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk or the quota is full. Nothing was changed; the store stays usable.
    #[error("no space left for {path}: free {bytes} bytes, or pack the store, and try again")]
    NoSpace {
        /// The file that should have grown.
        path: String,
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// A record may or may not have become durable. The handle refuses all further writes.
    #[error(
        "writing commit {tid} failed half way ({source}); whether it is durable is known \
         only after the store has been reopened"
    )]
    Unknown {
        /// The commit.
        tid: Tid,
        /// What failed.
        source: Box<StorageError>,
    },
    /// An earlier write or sync failed, so this handle does not write any more.
    #[error("an earlier write failed, so this handle only reads; reopen the store to go on")]
    Poisoned,
    /// The process forked since the store was opened; only the parent may write.
    #[error("this store was opened by the parent process; open it again after fork")]
    Forked,
    /// The store was opened for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// Bytes on disk are not what was written there.
    #[error("{place} is damaged: {what}")]
    Corrupted {
        /// File and byte.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The database below an engine failed in a way of its own.
    #[error("{engine} failed on {path}: {what}")]
    Engine {
        /// Which database.
        engine: &'static str,
        /// Its directory.
        path: String,
        /// What it said.
        what: String,
    },
    /// Data does not match its checksum.
    #[error(
        "{pages} pages from {place} on do not match their checksum: {sum:08x}, not {expected:08x}"
    )]
    Checksum {
        /// File and byte.
        place: String,
        /// How many pages the checksum covers.
        pages: u64,
        /// As recorded.
        expected: u32,
        /// As found.
        sum: u32,
    },
    /// A commit names data that a pack gave up after its transaction had begun.
    #[error("the data at {place:?} was packed away meanwhile; begin the transaction again")]
    Packed {
        /// Where it lay.
        place: Place,
    },
    /// The state was packed away.
    #[error("commit {tid} was packed away; the oldest kept one is {oldest}")]
    Forgotten {
        /// Asked for.
        tid: Tid,
        /// Oldest kept.
        oldest: Tid,
    },
    /// There is no such commit yet.
    #[error("there is no commit {tid}; the newest is {head}")]
    NoCommit {
        /// Asked for.
        tid: Tid,
        /// Newest.
        head: Tid,
    },
    /// There is no store.
    #[error("{path} is not a zbigarray store: {why}")]
    NotAStore {
        /// Directory.
        path: String,
        /// What is missing.
        why: String,
    },
    /// There is something already.
    #[error("{path} exists already and is not an empty directory")]
    AlreadyExists {
        /// Directory.
        path: String,
    },
    /// The block size of a new store is impossible.
    #[error("{bytes} bytes is no block size: take a power of two from 64 KiB to 1 GiB")]
    BlockSize {
        /// As given.
        bytes: u64,
    },
    /// Written by a newer version.
    #[error("{path} has format version {found}; this program reads version {supported}")]
    Version {
        /// Store.
        path: String,
        /// Its version.
        found: u64,
        /// Ours.
        supported: u64,
    },
    /// Another process has the store open in a way that excludes this.
    #[error("{path} is in use: {who}")]
    Locked {
        /// Store.
        path: String,
        /// What the other one does.
        who: String,
    },
    /// Another process has the commit lock and does not give it back: it is stopped, or very slow.
    /// As soon as it goes on or ends, so do the others.
    #[error(
        "process {pid} has been committing to {path} for {seconds} s and does not end; if it is \
         stopped, continue or end it, and try again"
    )]
    Busy {
        /// Store.
        path: String,
        /// Who has the lock; 0 if it did not say.
        pid: u32,
        /// For how long.
        seconds: u64,
    },
    /// The snapshot was given up because it held more space than was allowed.
    #[error(
        "the snapshot of commit {tid} has expired: it kept more space than packing allows; begin \
         again"
    )]
    Expired {
        /// The commit.
        tid: Tid,
    },
    /// A file system on which processes cannot share a store safely.
    #[error(
        "{path} lies on {kind}, a network file system: locks and shared memory of several machines \
         are not dependable there, and a commit could be lost or torn; copy the store to a local \
         disk, or open it for reading and say that it may lie there"
    )]
    NetworkFileSystem {
        /// Store.
        path: String,
        /// Which one.
        kind: &'static str,
    },
    /// A change of names or metadata is impossible.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}
