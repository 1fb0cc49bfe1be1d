//! Commit records and states as values of sled's trees.
//!
//! ```text
//! record   sum of the record before | base | time | what codec says of a draft
//! state    time | sum of its record | what codec says of a state
//! sum      CRC-32 over tid and all bytes of the record; of commit 0 over the store's uuid
//! ```
//!
//! # Invariants
//!
//! 1. Records have dense tids, and each says the sum of the one before it: a record that was lost
//!    or put back in another version is noticed by the next one.
//!
//! # Failure
//!
//! What does not fit is [`StorageError::Corrupted`], naming the commit.

use std::sync::Arc;

use super::trees::{Name, Trees, part_key};
use crate::storage::StorageError;
use crate::storage::codec::{self, Decoder, Encoder, Malformed, RecordHead};
use crate::storage::extent::{IN_LOG, Place};
use crate::storage::record::{Draft, Record};
use crate::storage::state::State;
use crate::units::Tid;

/// The sum before the first record.
pub(super) fn first_sum(uuid: &uuid::Uuid) -> u32 {
    crc32fast::hash(uuid.as_bytes())
}

fn sum_of(tid: Tid, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&tid.0.to_le_bytes());
    hasher.update(value);
    hasher.finalize()
}

/// Puts the record of `draft`, which has no bytes inline, after the record of sum `previous`.
/// Returns the record, its sum and its length.
pub(super) fn put_record(
    trees: &Trees,
    draft: &Draft<'_>,
    previous: u32,
) -> Result<(Record, u32, u64), StorageError> {
    let mut out = Encoder::default();
    out.u32(previous);
    out.u64(draft.base.0);
    out.i64(draft.time_ns);
    out.0.extend_from_slice(&codec::encode_draft(draft).body);
    let (record, _) = decode_record(draft.tid, &out.0)
        .map_err(|why| malformed(trees, Name::Log, draft.tid, why))?;
    trees.put_long(Name::Log, draft.tid.0, &out.0)?;
    Ok((record, sum_of(draft.tid, &out.0), out.0.len() as u64))
}

/// The record `tid`, the sum it says of the one before, and its own.
pub(super) fn get_record(trees: &Trees, tid: Tid) -> Result<(Record, u32, u32), StorageError> {
    let Some(value) = trees.get_long(Name::Log, tid.0)? else {
        let what = format!("commit record {tid} is missing");
        return Err(trees.damaged(Name::Log, &part_key(tid.0, 0), what));
    };
    let (record, previous) =
        decode_record(tid, &value).map_err(|why| malformed(trees, Name::Log, tid, why))?;
    Ok((record, previous, sum_of(tid, &value)))
}

fn decode_record(tid: Tid, value: &[u8]) -> Result<(Record, u32), Malformed> {
    let mut from = Decoder(value);
    let previous = from.u32()?;
    let (base, time_ns) = (Tid(from.u64()?), from.i64()?);
    // Nothing lies inside of records here.
    let inline_at = Place { file: IN_LOG, page: 0 };
    let head = RecordHead { tid, base, time_ns, inline_at, inline_sums: &[] };
    Ok((codec::decode_record(&head, from.0)?, previous))
}

/// The records after `after`, of sum `sum`, up to `until`, and the sum of the last one.
pub(super) fn records(
    trees: &Trees,
    after: Tid,
    sum: Option<u32>,
    until: Tid,
) -> Result<(Vec<Arc<Record>>, Option<u32>), StorageError> {
    let mut records = Vec::new();
    let mut last = sum;
    let mut tid = after;
    while tid < until {
        tid = tid.next();
        let (record, previous, sum) = get_record(trees, tid)?;
        if last.is_some_and(|last| last != previous) {
            let what = "it does not follow the commit before it";
            return Err(trees.damaged(Name::Log, &part_key(tid.0, 0), what));
        }
        records.push(Arc::new(record));
        last = Some(sum);
    }
    Ok((records, last))
}

/// A state, and the sum of the record that made it.
pub(super) struct Stored {
    pub(super) state: State,
    pub(super) sum: u32,
}

/// Puts a state.
pub(super) fn put_state(trees: &Trees, state: &State, sum: u32) -> Result<u64, StorageError> {
    let mut out = Encoder::default();
    out.i64(state.time_ns);
    out.u32(sum);
    out.0.extend_from_slice(&codec::encode_state(state)?);
    trees.put_long(Name::States, state.tid.0, &out.0)?;
    Ok(out.0.len() as u64)
}

/// The state of commit `tid` if it is stored.
pub(super) fn get_state(trees: &Trees, tid: Tid) -> Result<Option<Stored>, StorageError> {
    let Some(value) = trees.get_long(Name::States, tid.0)? else { return Ok(None) };
    let mut from = Decoder(&value);
    let mut decode = || -> Result<Stored, Malformed> {
        let (time_ns, sum) = (from.i64()?, from.u32()?);
        Ok(Stored { state: codec::decode_state(tid, time_ns, from.0)?, sum })
    };
    decode().map(Some).map_err(|why| malformed(trees, Name::States, tid, why))
}

fn malformed(trees: &Trees, name: Name, tid: Tid, why: Malformed) -> StorageError {
    trees.damaged(name, &part_key(tid.0, 0), why.0)
}
