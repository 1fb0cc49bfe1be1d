//! The two engines side by side: `demo/engines.rs` in release mode, for docs/decisions/010.
//!
//! ```text
//! cargo xtask engines [DIRECTORY]        the directory to make stores in; here by default
//! ```

use std::process::ExitCode;

use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// `cargo xtask engines`.
pub(crate) fn run(workspace: &Workspace, words: &[&str]) -> ExitCode {
    let mut command = workspace.cargo();
    command.args(["run", "--release", "--example", "engines", "--"]).args(words);
    steps::run_all(vec![Step::command("engines side by side", command)])
}
