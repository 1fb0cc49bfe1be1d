//! A store against a plain list of versions: any sequence of steps gives the same arrays.
//!
//! ```text
//! steps --> World { store, two open transactions, one old reader }
//!             \--> Plain at every tid, Plain of each transaction
//! after each step, what was touched is compared; after each commit, everything
//! ```
//!
//! Two transactions are open at once. Whether the second may commit is decided from two sets of
//! pages: those whose bytes differ (sharing one is a conflict) and those that were touched (sharing
//! none is no conflict). Between the two the store may choose.
//!
//! `ZBA_CASES` sets the number of cases.

mod effects;
pub(crate) mod plain;
pub(crate) mod steps;
#[allow(dead_code, reason = "each of the two programs uses the part it needs")]
pub(crate) mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::steps::{Step, steps};
use self::world::World;

/// Most steps of one case.
const STEPS: usize = 60;

fn cases() -> u32 {
    std::env::var("ZBA_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(crate::engine::CASES)
}

/// Runs `steps` on a store of its own and compares it with the model.
fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::of(crate::engine::maker(&dir.path().join("s")));
    for (name, kind) in [(0, 0), (1, 3)] {
        world.step(&Step::Create { who: false, name, kind, shape: vec![150, 5] });
    }
    world.step(&Step::Commit { who: false });
    for step in steps {
        world.step(step);
    }
    world.finish();
}

#[test]
fn a_store_is_a_list_of_versions_of_arrays_of_bytes() {
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(steps(), STEPS / 2..=STEPS), |steps| {
        run(&steps);
        Ok(())
    });
    result.unwrap();
}

/// Found by the model: a commit that wrote a block whole was taken to have changed all of it.
#[test]
fn pages_written_along_with_their_block_refuse_nobody() {
    let (who, name) = (false, 0);
    run(&[
        Step::Append { who, name, rows: 1, seed: 1 },
        Step::Commit { who },
        Step::Append { who, name, rows: 1, seed: 0 },
        Step::Store { who: true, name, region: [10503, 0, 0], seed: 1 },
        Step::Commit { who: true },
        Step::Commit { who },
    ]);
}

/// Found by the model: what was removed was looked up by the name it had at the base.
#[test]
fn removing_an_array_that_was_renamed_first_conflicts_with_writes_to_it() {
    run(&[
        Step::Remove { who: true, name: 0 },
        Step::Rename { who: true, name: 0, to: 0 },
        Step::Store { who: false, name: 1, region: [0, 0, 0], seed: 1 },
        Step::Commit { who: false },
        Step::Remove { who: true, name: 0 },
        Step::Commit { who: true },
    ]);
}
