//! Debian packages with programs that tests need, installed where that is possible.
//!
//! ```text
//! every program there? -- no --> apt-get there, root or sudo -n? -- yes --> update, install
//!         |                                  '-- no --> the rigs say themselves what did not run
//! ```
//!
//! # Invariants
//!
//! 1. Nothing is asked of `apt-get` where every program is there.
//!
//! # Failure
//!
//! An error names the package and what a person can do about it.

use std::path::Path;

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// What the rigs start, and the packages that have it.
const PROGRAMS: [(&str, &str); 4] = [
    ("strace", "strace"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
];
/// Where programs are, also for those whose path has no directories for the system's own.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The step that installs what the rigs start.
pub(crate) fn for_rigs(workspace: &Workspace) -> Step<'_> {
    Step::new("programs of the rigs", || prepare(workspace))
}

fn prepare(workspace: &Workspace) -> Outcome {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Outcome::Passed;
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    // No failure of the store: the rigs that miss something name it in their own rows.
    apt_install(workspace, &packages).map_or_else(Outcome::NotRun, |()| Outcome::Passed)
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path);
    directories.any(|directory| directory.join(program).is_file())
        || SYSTEM_DIRECTORIES.iter().any(|directory| Path::new(directory).join(program).is_file())
}

/// Installs Debian packages; needs root or a sudo that does not ask.
pub(crate) fn apt_install(workspace: &Workspace, packages: &[&str]) -> Result<(), String> {
    let advice = format!("install it by hand: apt-get install {}", packages.join(" "));
    let root = workspace.first_line("id", &["-u"]).as_deref() == Some("0");
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    for arguments in [&["update"][..], &install] {
        let mut command = workspace.command(if root { "apt-get" } else { "sudo" });
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(arguments);
        steps::must(command, &advice)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_path_and_where_the_system_has_its_own() {
        assert!(is_there("cargo") || is_there("sh"));
        assert!(!is_there("no program of this name"));
    }
}
