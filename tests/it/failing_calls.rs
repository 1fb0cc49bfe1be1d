//! Failing calls under a whole store: what a commit said of itself is true.
//!
//! ```text
//! commits --> Store --> simulated disk, of which one call fails
//!                         \--> a power cut, or not --> Store --> compare
//! ```
//!
//! What a power cut may leave at every change of the disk is tested in `tests/crash`.

use std::sync::Arc;

use zbigarray::storage::backend::Backend;
use zbigarray::storage::backend::simulated::{Fault, FaultKind, Simulated, Survival};
use zbigarray::storage::local::{LocalEngine, Mode};
use zbigarray::txn::StorageError;
use zbigarray::{CommitError, Store, Tid};

use crate::model::world::{limits, open};

fn backend(disk: &Simulated) -> Arc<dyn Backend> {
    Arc::new(disk.clone())
}

/// Commits until something fails: every element of array `a` is the number of the commit. Returns
/// the newest acknowledged commit and the newest that may have happened.
fn count(store: &Store, commits: u64) -> (u64, u64) {
    let mut acknowledged = 0;
    for value in 1..=commits {
        let step = || -> Result<Tid, CommitError> {
            let transaction = store.begin()?;
            let opened = transaction.open::<u64, ndarray::Ix1>("a");
            let array = opened.or_else(|_| transaction.create("a", &[10_000]));
            let written = array.and_then(|mut array| {
                array.set("...", value)?;
                if value % 3 == 0 {
                    array.assign("...", &ndarray::Array1::from_elem(10_000, value))?;
                }
                Ok(())
            });
            // Dropping the transaction aborts it.
            written.map_err(|_| CommitError::NotCommitted(StorageError::Poisoned.into()))?;
            transaction.commit()
        };
        match step() {
            Ok(tid) => {
                assert_eq!(tid, Tid(value));
                acknowledged = value;
            }
            Err(CommitError::Unknown { tid, .. }) => {
                assert_eq!(tid, Tid(value));
                return (acknowledged, value);
            }
            Err(_) => return (acknowledged, acknowledged),
        }
        if value % 5 == 0 && store.checkpoint().is_err() {
            return (acknowledged, acknowledged);
        }
        if value % 7 == 0 && store.pack(zbigarray::Keep::Head).is_err() {
            return (acknowledged, acknowledged);
        }
    }
    (acknowledged, acknowledged)
}

#[test]
fn whichever_call_fails_the_three_outcomes_of_a_commit_are_true() {
    let calls = {
        let disk = Simulated::new().unwrap();
        LocalEngine::create(&backend(&disk), &limits()).unwrap();
        let before = disk.calls_count();
        count(&open(&backend(&disk)), 15);
        disk.calls_count() - before
    };
    assert!(calls > 50, "{calls}");
    for call in 0..calls {
        for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::Short] {
            let disk = Simulated::new().unwrap();
            LocalEngine::create(&backend(&disk), &limits()).unwrap();
            disk.set_fault(Some(Fault { call, kind, lasting: false }));
            let backend = backend(&disk);
            let Ok(store) = Store::open_on(&backend, Mode::ReadWrite, &limits()) else { continue };
            let (acknowledged, issued) = count(&store, 15);
            drop(store);
            disk.set_fault(None);
            // The machine stays up, or loses everything that is not durable.
            let cut = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
            for (what, disk) in [("cut", cut), ("up", disk)] {
                let place = format!("call {call} fails with {kind:?}, power {what}");
                let store = open(&self::backend(&disk));
                let head = store.head().0;
                assert!((acknowledged..=issued).contains(&head), "{place}: commit {head}");
                let report = store.check(true, &mut |_, _| {}).unwrap();
                assert!(report.damage.is_empty(), "{place}: {:?}", report.damage);
                if head > 0 {
                    let reader = store.begin_read().unwrap();
                    let array = reader.open::<u64, ndarray::Ix1>("a").unwrap();
                    assert!(array.view().unwrap().iter().all(|&value| value == head), "{place}");
                }
            }
        }
    }
}
