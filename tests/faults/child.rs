//! The program in a process of its own, on a real directory.
//!
//! What it is told goes to standard output, one event a line, each with one `write` of its own:
//! whatever kills the process, the line of an event is there or not.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use zbigarray::storage::backend::{Backend, Directory};

use crate::program;
use crate::workload::{History, Workload};

/// The first word of the child's command line.
pub(crate) const WORD: &str = "program";

/// The store in `directory`.
pub(crate) fn disk(directory: &Path) -> Arc<dyn Backend> {
    Arc::new(Directory::new(directory))
}

/// A directory that goes away: in memory where there is such a place, because what is tested does
/// not depend on the disk and its syncs take long; or on the disk of the build.
pub(crate) fn scratch(in_memory: bool) -> Result<tempfile::TempDir, String> {
    let memory = Path::new("/dev/shm");
    let place = match in_memory && memory.is_dir() {
        true => memory,
        false => Path::new(env!("CARGO_TARGET_TMPDIR")),
    };
    tempfile::Builder::new()
        .prefix("zbigarray-")
        .tempdir_in(place)
        .map_err(|error| format!("no scratch directory: {error}"))
}

/// What the child is to do.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) workload: Workload,
    pub(crate) seed: u64,
    /// Commit to stop at.
    pub(crate) until: u64,
    pub(crate) directory: PathBuf,
}

/// How a child ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) printed: String,
    pub(crate) complained: String,
}

impl Task {
    fn words(&self) -> Vec<String> {
        let (name, directory) = (self.workload.name(), self.directory.display());
        [WORD, name, &self.seed.to_string(), &self.until.to_string(), &directory.to_string()]
            .map(str::to_owned)
            .into()
    }

    /// The command that does it, behind `before` (another program with its arguments, or nothing).
    pub(crate) fn command(&self, before: &[String]) -> std::io::Result<Command> {
        let own = std::env::current_exe()?.display().to_string();
        let words: Vec<String> = before.iter().cloned().chain([own]).chain(self.words()).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Does it and waits.
    pub(crate) fn run(&self, before: &[String]) -> std::io::Result<Ended> {
        let output = self.command(before)?.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, complained) = (text(&output.stdout), text(&output.stderr));
        Ok(Ended { status: output.status, printed, complained })
    }

    /// The task that such words say.
    fn parse(words: &[&str]) -> Option<Self> {
        let [name, seed, until, directory] = words else { return None };
        Some(Self {
            workload: Workload::named(name)?,
            seed: seed.parse().ok()?,
            until: until.parse().ok()?,
            directory: PathBuf::from(directory),
        })
    }
}

/// The child: does what its command line says. Returns whether it understood.
pub(crate) fn main(words: &[&str]) -> bool {
    let Some(task) = Task::parse(words) else { return false };
    #[cfg(feature = "planted-bugs")]
    plant_asked_for();
    let mut history = History::new(task.workload, task.seed);
    let mut said = std::io::stdout();
    let mut tell = |event: program::Event| {
        let line = format!("{event}\n").replace('\n', " ").trim_end().to_owned() + "\n";
        // Who hears us may be gone; the store does not care.
        let _ = said.write_all(line.as_bytes()).and_then(|()| said.flush());
    };
    program::run(&disk(&task.directory), &mut history, task.until, &mut tell);
    true
}

/// `ZBA_PLANT=NAME`: a bug of the sled engine, in the children only.
#[cfg(feature = "planted-bugs")]
fn plant_asked_for() {
    use zbigarray::storage::planted::{SLED, plant};
    if let Ok(name) = std::env::var("ZBA_PLANT") {
        plant(SLED.iter().map(|(bug, _)| *bug).find(|bug| format!("{bug:?}") == name));
    }
}
