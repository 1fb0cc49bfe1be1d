//! Forgetting history and giving its space back.
//!
//! # Invariants
//!
//! 1. What the head, a kept commit or a pinned snapshot names stays.
//! 2. A transaction that may still commit keeps the records after its base, so that conflicts are
//!    found.

use std::sync::Arc;

use super::error::TransactionError;
use super::store::Store;
use crate::storage::StorageError;
use crate::storage::engine::Packed;
use crate::sync::atomic::Ordering;
use crate::units::{PAGE_BYTES, Tid};

/// Which history to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Only the newest commit.
    Head,
    /// This commit and all later ones.
    From(Tid),
    /// The oldest tagged commit and all later ones; all of nothing tagged is only the newest.
    AllTags,
    /// What was newest at this time (nanoseconds since 1970) and all later commits.
    Since(i64),
}

/// What a pack did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// The oldest commit that can still be read.
    pub oldest: Tid,
    /// Commits that were forgotten.
    pub forgotten: u64,
    /// Bytes of data files that became free.
    pub freed_bytes: u64,
}

impl Store {
    /// Forgets the history before what `keep` names, and frees its space for new data.
    ///
    /// Tags of forgotten commits stay as names but cannot be read any more. Cost O(index). Waits
    /// for commits; transactions go on.
    ///
    /// # Errors
    ///
    /// [`StorageError::Locked`] while other processes read the store, [`StorageError::NoCommit`]
    /// if there is no such commit.
    pub fn pack(&self, keep: Keep) -> Result<PackSummary, TransactionError> {
        let shared = &self.shared;
        shared.require_owner()?;
        let mut tip = shared.commit_lock.lock();
        let _lock = shared.engine.lock()?;
        shared.catch_up(&mut tip)?;
        shared.engine.settle(tip.state.tid)?;
        // Idle sessions map extents that nothing may name any more.
        shared.drop_idle();
        let head = Arc::clone(&tip.state);
        let oldest = shared.engine.oldest();
        let wanted = match keep {
            Keep::Head => head.tid,
            Keep::From(tid) if tid > head.tid => {
                return Err(StorageError::NoCommit { tid, head: head.tid }.into());
            }
            Keep::From(tid) => tid,
            Keep::AllTags => {
                let tags = head.catalog.tags().map(|(_, tid)| tid).filter(|&tid| tid >= oldest);
                tags.min().unwrap_or(head.tid)
            }
            Keep::Since(time_ns) => shared.newest_at(time_ns)?.unwrap_or(oldest),
        };
        let writer = shared.pins.oldest_writer().unwrap_or(head.tid);
        let keep = wanted.min(writer).max(oldest);
        let held_bytes_max = shared.held_bytes_max.load(Ordering::Relaxed);
        Ok(shared.replace_head_by(&mut tip, |pinned| {
            let packed = shared.engine.pack(keep, pinned, held_bytes_max)?;
            let freed_bytes = packed.freed_pages.saturating_mul(PAGE_BYTES);
            let Packed { oldest, forgotten, head, .. } = packed;
            Ok((head, PackSummary { oldest, forgotten, freed_bytes }))
        })?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::backend::Backend;
    use crate::storage::backend::simulated::Simulated;
    use crate::storage::catalog::CatalogChange;
    use crate::storage::local::{LocalEngine, LocalOptions, Mode};

    /// A store with this many commits.
    fn store(commits: u64) -> Store {
        let (disk, options) = (Simulated::new().unwrap(), LocalOptions::default());
        let backend: Arc<dyn Backend> = Arc::new(disk);
        LocalEngine::create(&backend, &options).unwrap();
        let store = Store::open_on(&backend, Mode::ReadWrite, &options).unwrap();
        for n in 0..commits {
            let transaction = store.begin().unwrap();
            let name = Arc::from(format!("g{n}"));
            transaction.change(CatalogChange::CreateGroup { name }).unwrap();
            transaction.commit().unwrap();
        }
        store
    }

    #[test]
    fn nothing_is_packed_for_a_commit_that_has_not_happened() {
        let store = store(3);
        let refused = store.pack(Keep::From(Tid(4)));
        assert!(matches!(
            refused,
            Err(TransactionError::Storage(StorageError::NoCommit { tid: Tid(4), head: Tid(3) }))
        ));
        assert_eq!(store.oldest(), Tid(0));
        assert_eq!(store.pack(Keep::From(Tid(3))).unwrap().forgotten, 3);
    }

    #[test]
    fn of_all_tags_those_count_of_which_the_commit_can_be_read() {
        let store = store(3);
        store.tag("early", Tid(2)).unwrap();
        assert_eq!(store.pack(Keep::AllTags).unwrap().oldest, Tid(2));
        store.pack(Keep::From(Tid(3))).unwrap();
        let late = store.tag("late", Tid(4)).unwrap();
        assert_eq!((store.pack(Keep::AllTags).unwrap().oldest, store.head()), (Tid(4), late));
    }
}
