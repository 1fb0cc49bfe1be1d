//! Opening: the newest state out of sled's trees, and whether all is there that was acknowledged.
//!
//! ```text
//! anchor          ... tid 41 acknowledged
//! sled's log      ... 40 | 41 | 42        good: the power went between sled and the anchor
//!                 ... 40                  commit 41 is missing: an error
//! ```
//!
//! # Invariants
//!
//! 1. A stored state is a copy: where it is damaged an older one and the records after it serve.
//!    Only that of the oldest kept commit is the truth, since its records are gone.

use super::anchor::{Acknowledged, Anchor};
use super::history::{self, Stored};
use super::trees::{Name, Trees, key_of, number_of, part_key};
use crate::storage::StorageError;
use crate::storage::planted::{Bug, planted};
use crate::storage::state::State;
use crate::units::Tid;

const OLDEST_KEY: &[u8] = b"oldest";

/// What was found.
pub(super) struct Recovered {
    pub(super) head: State,
    /// The sum of the head's record.
    pub(super) sum: u32,
    pub(super) oldest: Tid,
    /// Bytes of records that had to be read.
    pub(super) replayed_bytes: u64,
}

/// Reads the newest state, compares with the anchor, and makes durable what is newer.
pub(super) fn recover(trees: &Trees, anchor: &Anchor) -> Result<Recovered, StorageError> {
    let acknowledged = anchor.acknowledged();
    let first = history::first_sum(&anchor.identity().uuid);
    let oldest = oldest(trees)?;
    let head = newest_record(trees)?.max(oldest);
    if !planted(Bug::SledAnchorNotCompared) {
        require_all(trees, acknowledged, oldest, head)?;
    }
    let found = load(trees, oldest, first, head)?;
    if acknowledged.tid >= oldest && !planted(Bug::SledAnchorNotCompared) {
        let sum = match acknowledged.tid {
            tid if tid == found.state.tid => found.sum,
            tid if tid == oldest => load(trees, oldest, first, oldest)?.sum,
            tid => history::get_record(trees, tid)?.2,
        };
        if sum != acknowledged.sum {
            let what = "it is not the record that was acknowledged";
            return Err(trees.damaged(Name::Log, &part_key(acknowledged.tid.0, 0), what));
        }
    }
    remove_states(trees, |tid| tid < oldest)?;
    for key in trees.keys(Name::Log, &[], &part_key(oldest.0, u32::MAX))? {
        trees.remove(Name::Log, &key)?;
    }
    trees.sync()?;
    trees.sync_names()?;
    anchor.acknowledge(Acknowledged { tid: head, sum: found.sum, oldest })?;
    let Loaded { state, sum, replayed_bytes } = found;
    Ok(Recovered { head: state, sum, oldest, replayed_bytes })
}

/// Sled has everything that was acknowledged.
fn require_all(
    trees: &Trees,
    acknowledged: Acknowledged,
    oldest: Tid,
    head: Tid,
) -> Result<(), StorageError> {
    let lost = |what: String| Err(StorageError::Corrupted { place: trees.location(), what });
    if head < acknowledged.tid {
        let (from, to) = (head.next(), acknowledged.tid);
        return lost(format!(
            "commits {from} to {to} were acknowledged and are missing: sled came back with less \
             than it had"
        ));
    }
    if oldest < acknowledged.oldest {
        let since = acknowledged.oldest;
        return lost(format!(
            "history before commit {since} was packed away and is back: sled came back with less \
             than it had"
        ));
    }
    match trees.ids(Name::States)?.last() {
        Some((newest, true)) if *newest > head.0 => {
            lost(format!("there is a state of commit {newest} and none of the records up to it"))
        }
        _ => Ok(()),
    }
}

/// The oldest commit that can be read.
pub(super) fn oldest(trees: &Trees) -> Result<Tid, StorageError> {
    let Some(value) = trees.get(Name::Meta, OLDEST_KEY)? else { return Ok(Tid::ZERO) };
    match value.bytes().try_into() {
        Ok(number) => Ok(Tid(number_of(&number))),
        Err(_) => Err(trees.damaged(Name::Meta, OLDEST_KEY, "it is no number")),
    }
}

/// Says that nothing older than commit `tid` can be read.
pub(super) fn set_oldest(trees: &Trees, tid: Tid) -> Result<(), StorageError> {
    trees.put(Name::Meta, OLDEST_KEY, &key_of(tid.0))
}

/// The newest record; one of which the process died before its last part was put is removed.
fn newest_record(trees: &Trees) -> Result<Tid, StorageError> {
    loop {
        let last = trees.at_or_before(Name::Log, &part_key(u64::MAX, u32::MAX))?;
        let Some((key, _)) = last else { return Ok(Tid::ZERO) };
        let Some(id) = key.first_chunk().map(number_of) else {
            return Err(trees.damaged(Name::Log, &key, "a key is too short"));
        };
        if trees.get(Name::Log, &part_key(id, 0))?.is_some() {
            return Ok(Tid(id));
        }
        trees.remove_long(Name::Log, id)?;
    }
}

/// A state made from a stored one and the records after it.
pub(super) struct Loaded {
    pub(super) state: State,
    /// The sum of its record.
    pub(super) sum: u32,
    /// Bytes of records that were read, roughly.
    pub(super) replayed_bytes: u64,
}

/// The state of commit `tid`, which is there.
pub(super) fn load(
    trees: &Trees,
    oldest: Tid,
    first_sum: u32,
    tid: Tid,
) -> Result<Loaded, StorageError> {
    let Stored { mut state, sum } = newest_state(trees, oldest, first_sum, tid)?;
    let (records, sum) = history::records(trees, state.tid, Some(sum), tid)?;
    let mut replayed_bytes = 0;
    for record in &records {
        state = state.apply(record)?;
        replayed_bytes += 128 * (1 + record.data.len() + record.catalog.len()) as u64;
    }
    Ok(Loaded { state, sum: sum.unwrap_or_default(), replayed_bytes })
}

/// The newest stored state up to commit `tid` that is whole (invariant 1).
fn newest_state(
    trees: &Trees,
    oldest: Tid,
    first_sum: u32,
    tid: Tid,
) -> Result<Stored, StorageError> {
    let ids = trees.ids(Name::States)?;
    let usable = |&&(id, whole): &&(u64, bool)| whole && id >= oldest.0 && id <= tid.0;
    for &(id, _) in ids.iter().rev().filter(usable) {
        match history::get_state(trees, Tid(id)) {
            Ok(Some(stored)) => return Ok(stored),
            Ok(None) => {}
            Err(error) if id == oldest.0 => return Err(error),
            Err(_) => {}
        }
    }
    match oldest {
        Tid::ZERO => Ok(Stored { state: State::default(), sum: first_sum }),
        oldest => {
            let what = "the state that the history begins with is missing";
            Err(trees.damaged(Name::States, &part_key(oldest.0, 0), what))
        }
    }
}

/// Removes the stored states that `is_old`.
pub(super) fn remove_states(
    trees: &Trees,
    is_old: impl Fn(Tid) -> bool,
) -> Result<(), StorageError> {
    let ids = trees.ids(Name::States)?;
    let mut old = ids.iter().filter(|(id, _)| is_old(Tid(*id)));
    old.try_for_each(|&(id, _)| trees.remove_long(Name::States, id))
}
