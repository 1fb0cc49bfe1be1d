//! Forgetting history: the oldest commit moves on, and what only older ones named goes.
//!
//! ```text
//! before     | state of 10 | records 11 ... 90
//! pack(80)   | state of 10 | records 11 ... 90 | state of 80     durable
//!            oldest = 80, in sled and in the anchor              durable: the switch
//!            records 11 ... 80, state of 10, bytes nobody names  removed when there is time
//! ```
//!
//! # Invariants
//!
//! 1. The state that history begins with is durable before the oldest commit moves on, and
//!    everything older goes after that (invariant 3 of the engine).
//! 2. Bytes that a kept record, the state of the oldest commit or a pinned state names stay, and
//!    those of transactions that have not committed yet.
//!
//! # Failure
//!
//! An error before the switch leaves all as it was; after it the next pack removes what is left.

use std::sync::Arc;

use super::SledEngine;
use super::anchor::Acknowledged;
use super::trees::{Name, part_key};
use super::{blocks, history, recovery};
use crate::storage::StorageError;
use crate::storage::engine::{CommitLog, Packed};
use crate::storage::index::PageMap;
use crate::storage::planted::{Bug, planted};
use crate::storage::state::{Space, State};
use crate::sync::atomic::Ordering;
use crate::units::{PAGE_BYTES, Tid};

/// See [`Engine::pack`](crate::storage::engine::Engine::pack).
pub(super) fn pack(
    engine: &SledEngine,
    keep: Tid,
    pinned: &[Arc<State>],
) -> Result<Packed, StorageError> {
    engine.require_writable()?;
    let (oldest, head) = (engine.oldest(), engine.tail.lock().tid);
    if keep < oldest {
        return Err(StorageError::Forgotten { tid: keep, oldest });
    }
    if keep > head {
        return Err(StorageError::NoCommit { tid: keep, head });
    }
    engine.settle(head)?;
    let trees = &engine.trees;
    let first = history::first_sum(&engine.uuid());
    let base = recovery::load(trees, oldest, first, keep)?;
    let (mut state, space) = trimmed(&base.state)?;
    state.space = space;
    if keep > oldest {
        switch(engine, &state, base.sum)?;
    }
    for record in engine.records(keep, head)? {
        state = state.apply(&record)?;
    }
    let live = state.space.clone();
    let (stay, end) = engine.blocks.repack(live.clone(), limbo(pinned, &live)?);
    let freed_pages = remove_old(engine, keep, &stay, end)?;
    Ok(Packed { head: state, freed_pages, forgotten: keep.0 - oldest.0, oldest: keep })
}

/// Makes `state` what history begins with (invariant 1).
fn switch(engine: &SledEngine, state: &State, sum: u32) -> Result<(), StorageError> {
    let trees = &engine.trees;
    // A checkpoint of the same commit names whole extents, of which parts may go.
    trees.remove_long(Name::States, state.tid.0)?;
    history::put_state(trees, state, sum)?;
    if !planted(Bug::SledPackUnsynced) {
        trees.sync()?;
    }
    recovery::set_oldest(trees, state.tid)?;
    trees.sync()?;
    let tail = *engine.tail.lock();
    let oldest = state.tid;
    engine.anchor.acknowledge(Acknowledged { tid: tail.tid, sum: tail.sum, oldest })?;
    engine.oldest.store(oldest.0, Ordering::Release);
    Ok(())
}

/// Removes what is older than `keep`, and all bytes before page `end` but those that `stay`.
fn remove_old(engine: &SledEngine, keep: Tid, stay: &Space, end: u64) -> Result<u64, StorageError> {
    let trees = &engine.trees;
    for key in trees.keys(Name::Log, &[], &part_key(keep.0, u32::MAX))? {
        trees.remove(Name::Log, &key)?;
    }
    recovery::remove_states(trees, |tid| tid < keep)?;
    let freed = blocks::sweep(trees, stay, end)?;
    trees.sync()?;
    Ok(freed)
}

/// A state whose extents are cut to the units that it shows, and the pages that it names.
fn trimmed(state: &State) -> Result<(State, Space), StorageError> {
    let (mut cut, mut space) = (state.clone(), Space::default());
    for (array, pages) in state.page_maps() {
        let mut map = PageMap::new();
        for segment in pages.stored()? {
            let segment = segment.trimmed();
            if let Some(extent) = segment.source.extent() {
                space.insert(extent.place(), u64::from(extent.stored_pages()));
            }
            map.insert(&segment);
        }
        cut.set_page_map(array, map);
    }
    Ok((cut, space))
}

/// What `pinned` states name beyond `live`.
fn limbo(pinned: &[Arc<State>], live: &Space) -> Result<Space, StorageError> {
    let mut limbo = Space::default();
    for state in pinned {
        for (place, pages) in trimmed(state)?.1.iter() {
            if live.pages_in(place, pages) < pages {
                limbo.insert(place, pages);
            }
        }
    }
    Ok(limbo)
}

/// See [`Engine::unpin`](crate::storage::engine::Engine::unpin).
pub(super) fn unpin(engine: &SledEngine, pinned: &[Arc<State>]) -> Result<(), StorageError> {
    if !engine.blocks.has_limbo() || engine.require_writable().is_err() {
        return Ok(());
    }
    let still = limbo(pinned, &Space::default())?;
    engine.blocks.release(&engine.trees, &still)
}

/// See [`Engine::held_bytes`](crate::storage::engine::Engine::held_bytes).
pub(super) fn held_bytes(
    engine: &SledEngine,
    since: &State,
    head: &State,
) -> Result<u64, StorageError> {
    let mut with = trimmed(since)?.1;
    for change in engine.records(since.tid, head.tid)?.iter().flat_map(|record| &record.data) {
        if let Some(extent) = change.segment.source.extent() {
            with.insert(extent.place(), u64::from(extent.stored_pages()));
        }
    }
    let without = trimmed(head)?.1;
    Ok(with.pages().saturating_sub(without.pages()).saturating_mul(PAGE_BYTES))
}
