//! Where the workspace is and on which machine, as facts for the other commands.
//!
//! # Failure
//!
//! A fact that cannot be found out is "unknown": it only labels results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the root package.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace this command was built in.
    pub(crate) fn here() -> Self {
        let member = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: member.parent().unwrap_or(member).to_path_buf() }
    }

    /// A path inside the workspace.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A command that will run in the root of the workspace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs us, in the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// The short commit id, with "+ changes" if tracked files differ from it.
    pub(crate) fn commit(&self) -> String {
        let Some(id) = self.first_line("git", &["rev-parse", "--short=12", "HEAD"]) else {
            return "unknown".to_owned();
        };
        match self.first_line("git", &["status", "--porcelain", "--untracked-files=no"]) {
            Some(_) => format!("{id} + changes"),
            None => id,
        }
    }

    /// Processor, memory, kernel and compiler as `(fact, value)`.
    pub(crate) fn machine(&self) -> Vec<(&'static str, String)> {
        let model = proc_field("/proc/cpuinfo", "model name");
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_kib = proc_field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
        let memory = memory_kib.map(|kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)));
        let of = |fact: Option<String>| fact.unwrap_or_else(|| "unknown".to_owned());
        let target = self.path("target").display().to_string();
        vec![
            ("processor", format!("{}, {count} available", of(model))),
            ("memory", of(memory)),
            ("kernel", of(self.first_line("uname", &["-sr"]))),
            ("file system", of(self.first_line("stat", &["-f", "-c", "%T", &target]))),
            ("compiler", of(self.first_line("rustc", &["--version"]))),
        ]
    }

    /// The first line a program prints; `None` if it fails or prints nothing.
    pub(crate) fn first_line(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = self.command(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next()?.trim();
        (output.status.success() && !line.is_empty()).then(|| line.to_owned())
    }
}

/// The value of `name: value` in a file of `/proc`.
fn proc_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
