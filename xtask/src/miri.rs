//! Unsafe code under Miri: the tests that need no kernel beyond what Miri and a fake of it have.
//!
//! `src/vm/sys/fake` stands for the calls that map memory: a reservation is heap memory, placing a
//! file copies its bytes, and a page is dirty if it differs from what was placed.
//!
//! # Failure
//!
//! Undefined behaviour, or a test that fails. Without nightly and Miri the step is not run.

use std::process::{Command, ExitCode};

use crate::sanitize::nightly_with;
use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// What of the unit tests is interpreted: the modules with unsafe code and what stands on them.
const UNIT_TESTS: &[&str] = &["array::cast", "array::view", "vm::"];

/// What else: the storage as far as it takes no more than some minutes. Nothing else keeps the rest
/// from running: a checksum of a page is thousands of interpreted steps.
const STORAGE_TESTS: &[&str] = &[
    "storage::catalog",
    "storage::extent",
    "storage::index",
    "storage::record",
    "storage::state",
    "local::log_header::tests::only",
    "local::members::tests::each",
    "local::members::tests::the_",
    "local::recovery::tests::a_gap",
    "local::recovery::tests::a_log_begins",
    "local::recovery::tests::files_before",
];

/// What of them is not, with the reason.
const LEFT_OUT: &[(&str, &str)] = &[
    ("budget_of_the_process", "the fake has no limit of mappings to take a quarter of"),
    ("page_of_zeros_where", "the fake tells no page of zeros from a clean one"),
    ("memory_file", "the fake has no seals"),
    ("refused_run", "Miri ends at a read of a file that cannot be read"),
    ("vm::sys", "calls the kernel itself"),
    ("populate::", "the fake loses no page"),
    ("64_tib", "reserves more than the allocator has"),
    ("address_space", "as above"),
    ("leaves_room", "as above"),
];

/// What is left out besides unless all is asked for.
const LONG: &[(&str, &str)] = &[
    ("both_ways_find_more", "thousands of pages: minutes for a loop over the kernel's answer"),
    ("both_ways_read", "as above"),
];

/// The test of a store that is always interpreted; the others take hours.
const STORE_TEST: &str = "what_was_committed_is_read";

/// `cargo xtask miri [--all]`.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<ExitCode, String> {
    let all = match arguments {
        [] => false,
        ["--all"] => true,
        _ => return Err(format!("not understood: {}", arguments.join(" "))),
    };
    let store = move |command: &mut Command| {
        command.args(["--test", "miri"]);
        if !all {
            command.args(["--", STORE_TEST]);
        }
    };
    let step = Step::new("Miri: a store", move || interpreted(workspace, store));
    Ok(steps::run_all(vec![Step::new("Miri: units", move || units(workspace, all)), step]))
}

fn units(workspace: &Workspace, all: bool) -> Outcome {
    interpreted(workspace, |command| {
        command.args(["--lib", "--"]).args(UNIT_TESTS).args(STORAGE_TESTS);
        let long = if all { &[] } else { LONG };
        for (test, why) in LEFT_OUT.iter().chain(long) {
            eprintln!("left out: {test}: {why}");
            command.args(["--skip", test]);
        }
    })
}

fn interpreted(workspace: &Workspace, tests: impl FnOnce(&mut Command)) -> Outcome {
    if let Err(why) = nightly_with(workspace, "miri") {
        return Outcome::NotRun(why);
    }
    let mut command = workspace.command("cargo");
    command.args(["+nightly", "miri", "test", "--package", "zbigarray", "--no-default-features"]);
    tests(&mut command);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command.env("CARGO_TARGET_DIR", workspace.path("target/miri"));
    // The files of a store are real ones, below the directory for temporary files.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-tree-borrows");
    command.env("PROPTEST_CASES", "4");
    steps::run_command(command)
}
