//! What a check of a store found.

use std::fmt;

/// One damaged thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File and byte, or array and pages.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What was examined and what was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Commit records read.
    pub records: u64,
    /// Arrays of the head.
    pub arrays: u64,
    /// Extents named by any kept commit.
    pub extents: u64,
    /// Bytes of data compared with their checksums.
    pub data_bytes: u64,
    /// Bytes of data files that no kept commit names and that are kept all the same: a process
    /// looked at them when history was packed. The next pack that finds nobody gives them back.
    pub held_bytes: u64,
    /// Everything found wrong, in order of discovery.
    pub damage: Vec<Damage>,
}
