//! What must hold for the text of the project, whatever it does when it runs.
//!
//! # Failure
//!
//! Everything here fails on the first finding. Licences are checked only where `cargo-deny` is
//! installed; the summary says so where it is not.

use std::process::{Command, ExitCode};

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// `cargo xtask check`.
pub(crate) fn run(workspace: &Workspace) -> ExitCode {
    let mut tidy = workspace.cargo();
    tidy.args(["test", "--quiet", "--package", "zbigarray", "--test", "tidy"]);
    let mut table = lints(workspace);
    table.push(Step::command("house rules", tidy));
    table.extend(documents(workspace));
    steps::run_all(table)
}

/// Formatting and lints.
pub(crate) fn lints(workspace: &Workspace) -> Vec<Step<'_>> {
    let mut format = workspace.cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features"]);
    clippy.args(["--", "-D", "warnings"]);
    vec![Step::command("formatting", format), Step::command("lints", clippy)]
}

/// Documentation and licences.
pub(crate) fn documents(workspace: &Workspace) -> Vec<Step<'_>> {
    let mut doc = workspace.cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    vec![
        Step::command("documentation", doc),
        Step::new("licences and sources", || licences(workspace)),
    ]
}

/// `cargo deny`, if this machine has it.
fn licences(workspace: &Workspace) -> Outcome {
    let mut probe: Command = workspace.cargo();
    let installed = probe.args(["deny", "--version"]).output().is_ok_and(|o| o.status.success());
    if !installed {
        return Outcome::NotRun(
            "cargo-deny is not installed: cargo install --locked cargo-deny".to_owned(),
        );
    }
    let mut deny = workspace.cargo();
    deny.args(["deny", "check", "bans", "licenses", "sources"]);
    steps::run_command(deny)
}
