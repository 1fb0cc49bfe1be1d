//! Power cuts and failing calls under a whole store: arrays are those of a commit, byte for byte.
//!
//! ```text
//! steps of the model --> Store --> simulated disk, which remembers every change
//!                                    \--> a crash at each sync, and between --> Store --> compare
//! ```
//!
//! What the engine below does at every single change is tested beside it; here the workloads go
//! through transactions and arrays, and the bytes of every kept commit are compared.

use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use zbigarray::storage::backend::Backend;
use zbigarray::storage::backend::simulated::{Change, Fault, FaultKind, Simulated, Survival};
use zbigarray::storage::local::{LocalEngine, Mode};
use zbigarray::txn::StorageError;
use zbigarray::{CommitError, Store, Tid};

use crate::model::steps::{Step, steps};
use crate::model::world::{World, compare, limits, open};

/// Workloads, steps of each, and images made at each crash point.
const WORKLOADS: u8 = 6;
const STEPS: usize = 50;
const IMAGES: usize = 4;

fn backend(disk: &Simulated) -> Arc<dyn Backend> {
    Arc::new(disk.clone())
}

/// Always the same steps for the same `seed`.
fn workload(seed: u8) -> Vec<Step> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut all: Vec<Step> = [(0, 0), (1, 3)]
        .map(|(name, kind)| Step::Create { who: false, name, kind, shape: vec![150, 5] })
        .into();
    all.push(Step::Commit { who: false });
    let random = proptest::collection::vec(steps(), STEPS);
    all.extend(random.new_tree(&mut runner).unwrap().current());
    all
}

/// A cheap sequence of numbers without pattern.
fn scrambled(n: usize) -> usize {
    let n = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((n ^ (n >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33) as usize
}

/// Image 0 keeps everything, image 1 nothing, the others what dice say.
fn survival(image: usize, number: usize, change: &Change) -> Survival {
    let dice = scrambled(image * 100_003 + number);
    match (image, dice % 4) {
        (0, _) | (2.., 0) => Survival::Kept,
        (1, _) | (2.., 1) => Survival::Dropped,
        _ => {
            let sector = |at| scrambled(dice + at).is_multiple_of(2);
            Survival::Torn((0..change.sectors()).map(sector).collect())
        }
    }
}

#[test]
fn a_power_cut_at_any_sync_leaves_a_commit_that_was_made() {
    for seed in 0..WORKLOADS {
        let disk = Simulated::new().unwrap();
        let mut world = World::new(backend(&disk));
        // Changes of the disk and the newest commit after each step.
        let mut told = vec![(disk.changes_count(), 0)];
        for step in workload(seed) {
            world.step(&step);
            told.push((disk.changes_count(), world.head()));
        }
        let syncs = disk.changes().into_iter().enumerate();
        let syncs = syncs.filter(|(_, change)| {
            matches!(change, Change::Sync { .. } | Change::SyncDir { .. } | Change::Rename { .. })
        });
        let mut points: Vec<usize> = syncs.flat_map(|(number, _)| [number, number + 1]).collect();
        points.extend((told[0].0..disk.changes_count()).step_by(7));
        points.sort_unstable();
        points.dedup();
        for at in points.into_iter().filter(|&at| at >= told[0].0) {
            let acknowledged = told.iter().rev().find(|(when, _)| *when <= at).unwrap().1;
            let issued = told.iter().find(|(when, _)| *when >= at).unwrap().1;
            for image in 0..IMAGES {
                let choose = |number, change: &Change| survival(image, number + at, change);
                let image = disk.crash_image(at, choose).unwrap();
                let head = verify(&image, &world);
                let place = format!("workload {seed}, crash before change {at}");
                assert!((acknowledged..=issued).contains(&head), "{place}: commit {head}");
            }
        }
    }
}

/// Compares every kept commit of what a crash left; returns the newest.
fn verify(disk: &Simulated, world: &World) -> usize {
    let store = open(&backend(disk));
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let head = usize::try_from(store.head().0).unwrap();
    let oldest = usize::try_from(store.oldest().0).unwrap();
    for at in oldest..=head {
        compare(&store.at(Tid(at as u64)).unwrap(), &world.versions()[at]);
    }
    let transaction = store.begin().unwrap();
    transaction.create::<u8, ndarray::Ix1>("new", &[100_000]).unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    head
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
                    let reader = store.begin_read();
                    let array = reader.open::<u64, ndarray::Ix1>("a").unwrap();
                    assert!(array.view().unwrap().iter().all(|&value| value == head), "{place}");
                }
            }
        }
    }
}
