//! The tests under ThreadSanitizer or AddressSanitizer, with an instrumented standard library.
//!
//! ```text
//! nightly + rust-src -> build everything with -Zsanitizer -> run the tests of the store
//! ```
//!
//! # Failure
//!
//! Any report of a sanitizer is a failure. Without nightly or its `rust-src` the step is not run,
//! and says what to install.

use std::process::{Command, ExitCode};

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tests that cannot mean anything under the sanitizer, with the reason.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("thread", "conformance::fork", "the sanitizer does not follow a child of many threads"),
    ("address", "conformance::fork", "a child would report leaks of what its parent owns"),
    ("thread", "crash", "one thread on thousands of disks: an hour for what has no threads"),
    ("thread", "faults", "as the crashes"),
    ("thread", "failing_calls", "as the crashes"),
    ("thread", "model", "as the crashes"),
    ("thread", "flipped_bit", "as the crashes"),
    ("thread", "kernel::", "facts about the kernel, not about us; some exhaust addresses"),
    ("address", "kernel::", "facts about the kernel, not about us; some exhaust addresses"),
    ("address", "failing_calls", "minutes for what the crash tests of the library do, too"),
    ("thread", "64_tib", "the sanitizer has taken most addresses for itself"),
    ("thread", "appending_costs_what", "as above: it maps terabytes"),
    ("thread", "resizing_touches_no_data", "as above"),
    ("thread", "rows_that_straddle", "minutes for one thread that looks at single bytes"),
    ("thread", "every_combination_of_indices", "as above"),
    ("thread", "views_of_any_step", "as above"),
    ("address", "rows_that_straddle", "as above; the other indices are looked at"),
];

/// `cargo xtask sanitize [thread|address]`; without an argument both.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<ExitCode, String> {
    let wanted = match arguments {
        [] => vec!["thread", "address"],
        [one @ ("thread" | "address")] => vec![*one],
        _ => return Err(format!("not understood: {}", arguments.join(" "))),
    };
    let step = |&which: &&'static str| {
        let name = if which == "thread" { "ThreadSanitizer" } else { "AddressSanitizer" };
        Step::new(name, move || sanitized(workspace, which))
    };
    let wanted: Vec<&'static str> =
        ["thread", "address"].into_iter().filter(|which| wanted.contains(which)).collect();
    Ok(steps::run_all(wanted.iter().map(step).collect()))
}

fn sanitized(workspace: &Workspace, which: &str) -> Outcome {
    if let Err(why) = nightly_with(workspace, "rust-src") {
        return Outcome::NotRun(why);
    }
    let mut command = workspace.command("cargo");
    command.args(["+nightly", "test", "--no-fail-fast", "-Zbuild-std", "--target", TARGET]);
    command.args(["--package", "zbigarray", "--no-default-features", "--lib", "--test", "it"]);
    command.arg("--");
    for (_, test, why) in LEFT_OUT.iter().filter(|(sanitizer, ..)| *sanitizer == which) {
        eprintln!("left out: {test}: {why}");
        command.args(["--skip", test]);
    }
    // A debug build of everything, so that no access is optimised away; RUSTUP_TOOLCHAIN of the
    // cargo that runs us would take the place of nightly.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command.env("RUSTFLAGS", format!("-Zsanitizer={which}"));
    command.env("CARGO_TARGET_DIR", workspace.path("target/sanitize").join(which));
    command.env("TSAN_OPTIONS", "halt_on_error=1");
    command.env("PROPTEST_CASES", "16");
    steps::run_command(command)
}

/// Whether nightly is installed with `component`; `Err` says what is missing.
pub(crate) fn nightly_with(workspace: &Workspace, component: &str) -> Result<(), String> {
    let mut rustup: Command = workspace.command("rustup");
    let listed = rustup.args(["component", "list", "--toolchain", "nightly", "--installed"]);
    let missing = || {
        format!(
            "needs nightly with {component}: rustup toolchain install nightly --component \
             {component}"
        )
    };
    let output = listed.output().map_err(|_| missing())?;
    let installed = String::from_utf8_lossy(&output.stdout);
    let found = output.status.success() && installed.lines().any(|l| l.starts_with(component));
    if found { Ok(()) } else { Err(missing()) }
}
