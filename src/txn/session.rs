//! A session: the arrays of one state, mapped. Kept between transactions, so that beginning again
//! costs only what changed meanwhile.
//!
//! # Invariants
//!
//! 1. All working copies show one state, the session's, and the private changes upon it.
//! 2. An idle session has no private changes (invariant 4 of [`txn`](super)).

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::uio::pread;

use super::error::TransactionError;
use super::store::Shared;
use super::working::Working;
use crate::storage::StorageError;
use crate::storage::engine::{Engine, ExtentFile};
use crate::storage::extent::{Segment, Source};
use crate::storage::record::Record;
use crate::storage::state::State;
use crate::units::{ArrayId, PAGE_BYTES, PAGE_LEN, PageRange, PageSet};
use crate::vm::MapError;

/// What pages that nobody wrote contain.
#[derive(Clone)]
pub enum HoleContent {
    /// Zeros.
    Zero,
    /// The pages of a file, over and over: page `n` of the array is page `n % pages` of the file.
    Pattern {
        /// The file, in memory.
        file: Arc<OwnedFd>,
        /// Its length in pages.
        pages: u64,
    },
}

impl HoleContent {
    /// Fills `bytes`, which are zeros, with what `pages` of a hole contain.
    pub(super) fn fill(&self, pages: PageRange, bytes: &mut [u8]) -> Result<(), TransactionError> {
        let Self::Pattern { file, pages: period } = self else { return Ok(()) };
        for (page, bytes) in (pages.start..).zip(bytes.chunks_mut(PAGE_LEN)) {
            let offset = i64::try_from(page % period * PAGE_BYTES).unwrap_or(i64::MAX);
            pread(file, bytes, offset).map_err(|errno| MapError::System {
                call: "read of the fill pattern",
                source: errno.into(),
            })?;
        }
        Ok(())
    }
}

/// What working copies need from around them.
pub(super) struct Context<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) shared: &'a Shared,
    pub(super) writes: bool,
}

impl Context<'_> {
    /// The file to map for a segment, which is no hole.
    pub(super) fn file_of(&self, segment: &Segment) -> Result<Option<ExtentFile>, StorageError> {
        match segment.source.place() {
            Some(place) => self.engine.file_of(place, segment.pages.count()),
            None => Ok(None),
        }
    }
}

/// Mapped arrays of one state.
pub(super) struct Session {
    pub(super) state: Arc<State>,
    /// In which `state` was loaded, or a later one in which it is the same.
    pub(super) generation: u64,
    pub(super) arrays: HashMap<ArrayId, Working>,
}

impl Session {
    pub(super) fn new(state: Arc<State>, generation: u64) -> Self {
        Self { state, generation, arrays: HashMap::new() }
    }

    /// Moves on to `state`, which follows from this session's state by `records`.
    ///
    /// Private changes are dropped: what `records` says has taken their place. Cost O(changes).
    pub(super) fn advance(
        &mut self,
        cx: &Context<'_>,
        state: Arc<State>,
        records: &[Arc<Record>],
    ) -> Result<(), TransactionError> {
        let mut changed: HashMap<ArrayId, PageSet> = HashMap::new();
        for change in records.iter().flat_map(|record| &record.data) {
            if self.arrays.contains_key(&change.array) {
                changed.entry(change.array).or_default().insert(change.segment.pages);
            }
        }
        self.arrays.retain(|&id, _| state.catalog.array_by_id(id).is_some());
        for (&id, working) in &mut self.arrays {
            let nothing = PageSet::new();
            let changed = changed.get(&id).unwrap_or(&nothing);
            (working.tid, working.generation) = (state.tid, Some(self.generation));
            working.codec =
                state.catalog.array_by_id(id).map_or(working.codec, |entry| entry.codec);
            working.become_clean(cx, state.page_map(id), changed)?;
        }
        self.state = state;
        Ok(())
    }

    /// Drops all private changes. Arrays that the state does not know are forgotten.
    pub(super) fn discard(&mut self, cx: &Context<'_>) -> Result<(), TransactionError> {
        let state = Arc::clone(&self.state);
        self.advance(cx, state, &[])
    }
}

/// Whether every page of `segment` is a hole.
pub(super) fn is_hole(segment: &Segment) -> bool {
    segment.source == Source::Hole
}
