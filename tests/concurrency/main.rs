//! Threads of one process on one store, in orders that a scheduler chooses and can repeat.
//!
//! ```text
//! shuttle: who goes on at each lock, atomic and disk call?   random, or PCT (few switches)
//!   writers, readers, housekeeping --> Store --> simulated disk
//!        '--> history: who saw and committed what --> oracle.rs: is there one order for it all?
//! ```
//!
//! Runs only under `--cfg shuttle`: `cargo xtask shuttle`. A failing schedule is named by a seed or
//! a file, and runs again with `SHUTTLE_RANDOM_SEED` or `ZBA_SHUTTLE_SCHEDULE`.
//!
//! # Invariants
//!
//! 1. All random choices come from shuttle, so a schedule with its data can be run again.
//! 2. Nothing of one schedule is left for the next: each has its own disk and store.

#![cfg(shuttle)]
#![deny(unsafe_code)]

mod every_switch;
mod lazy_pages;
mod oracle;
mod pool;
mod threads;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use zbigarray::Tid;
use zbigarray::compute::planted::{Bug, plant};
use zbigarray::vm;

use every_switch::EverySwitch;
use threads::{
    World, a_snapshot_against_a_pack, beginner, housekeeping, large_writer, packer, reader, writer,
};

/// Most changes of the running thread that PCT makes besides those the locks force.
const PCT_DEPTH: usize = 4;

fn iterations() -> usize {
    let wanted = std::env::var("ZBA_SHUTTLE_ITERATIONS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(200)
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    let failures = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&failures).unwrap();
    config.failure_persistence = FailurePersistence::File(Some(failures));
    config
}

/// Says which schedule failed.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("schedule {} failed", self.0.load(Ordering::Relaxed));
        }
    }
}

fn run(scheduler: impl Scheduler + 'static, test: fn()) {
    let counted = Counted(Arc::default());
    let count = Arc::clone(&counted.0);
    Runner::new(scheduler, config()).run(move || {
        count.fetch_add(1, Ordering::Relaxed);
        test();
    });
    eprintln!("{} schedules", counted.0.load(Ordering::Relaxed));
}

/// Whether one of a hundred schedules fails, of which nothing is kept.
fn fails(test: fn()) -> bool {
    let mut config = config();
    config.failure_persistence = FailurePersistence::None;
    let run = || Runner::new(RandomScheduler::new(100), config).run(test);
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

/// Half of the schedules by dice, half by PCT; or one that failed before.
fn explore(test: fn()) {
    if let Ok(file) = std::env::var("ZBA_SHUTTLE_SCHEDULE") {
        return run(ReplayScheduler::new_from_file(file).unwrap(), test);
    }
    let half = iterations().div_ceil(2);
    run(RandomScheduler::new(half), test);
    run(PctScheduler::new(PCT_DEPTH, half), test);
}

#[test]
fn snapshots_are_commits_and_the_first_committer_wins() {
    explore(|| World::new().run(&[writer, writer, writer, reader]));
}

#[test]
fn pack_and_checkpoints_take_nothing_that_is_looked_at() {
    explore(|| World::new().run(&[writer, reader, reader, housekeeping]));
}

#[test]
fn a_pack_between_any_two_steps_of_a_begin_takes_nothing_away() {
    explore(|| World::new().run(&[beginner, reader, packer]));
}

#[test]
fn commits_that_write_with_several_threads_are_whole() {
    explore(|| World::new().run(&[large_writer, large_writer, reader, housekeeping]));
}

#[test]
fn processes_see_snapshots_while_others_commit_and_pack() {
    explore(|| World::shared().run_apart(&[writer, reader, packer]));
}

#[test]
fn a_pack_of_another_process_between_any_two_steps_of_a_begin_takes_nothing_away() {
    explore(|| World::shared().run_apart(&[beginner, packer]));
}

#[test]
fn a_snapshot_that_a_process_was_given_is_kept_by_the_pack_of_another() {
    for last_begins in [false, true] {
        run(EverySwitch::new(last_begins), || a_snapshot_against_a_pack(Some(Tid(2)), false));
        run(EverySwitch::new(last_begins), || a_snapshot_against_a_pack(None, true));
    }
}

#[test]
fn runs_of_tasks_hand_every_output_over_once_and_end() {
    explore(pool::outputs_within_a_budget);
    explore(pool::outputs_that_wait_to_be_taken);
    explore(pool::outputs_of_short_tasks);
}

#[test]
fn runs_that_spill_give_the_same_and_end() {
    explore(pool::results_on_the_disk);
}

#[test]
fn a_task_that_fails_or_panics_ends_the_run_and_is_named() {
    explore(pool::a_failure);
    explore(pool::a_panic);
    explore(pool::a_sink_that_fails);
}

#[test]
fn a_cancel_at_any_moment_ends_the_run_or_comes_too_late() {
    explore(pool::a_cancel);
}

#[test]
fn threads_that_are_not_woken_are_found() {
    for bug in [Bug::WakeMissed, Bug::DeliveryMissed] {
        plant(Some(bug));
        let found = fails(pool::outputs_that_wait_to_be_taken);
        plant(None);
        assert!(found, "{bug:?} is not found");
    }
    assert!(!fails(pool::outputs_that_wait_to_be_taken));
}

#[test]
fn pages_show_their_content_while_they_are_put_aside_placed_anew_and_closed() {
    explore(lazy_pages::touched_and_put_aside);
    explore(lazy_pages::touched_where_one_has_room);
    explore(lazy_pages::touched_while_placed_anew);
    explore(lazy_pages::waited_for_and_failing);
}

#[test]
fn planted_bugs_of_pages_that_are_loaded_are_found() {
    let tests = [
        lazy_pages::touched_and_put_aside,
        lazy_pages::touched_while_placed_anew,
        lazy_pages::waited_for_and_failing,
    ];
    for bug in vm::planted::Bug::ALL {
        vm::planted::plant(Some(bug));
        let found = tests.into_iter().any(fails);
        vm::planted::plant(None);
        assert!(found, "{bug:?} is not found");
    }
}
