//! What benchmarks ask of the machine: a directory on a disk, cold caches, a memory limit, counts.
//!
//! ```text
//! bench target --- child(name, limit) ---> control group with a memory limit
//!      ^                                        |  the same program, ZBA_BENCH_CHILD=name
//!      '------------- its stdout ---------------'
//! ```
//!
//! # Invariants
//!
//! 1. Data lies under `target/bench-data`, on the file system of the repository, and goes away with
//!    its [`tempfile::TempDir`].
//! 2. A control group that was made is removed again, also when its child fails.
//!
//! # Failure
//!
//! What needs root says so in its error; a bench target then prints `harness::not_run` with it.

#![allow(dead_code, reason = "each bench target uses the part it needs")]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

const CHILD: &str = "ZBA_BENCH_CHILD";

/// A fresh directory for the data of one question, removed when dropped.
///
/// # Errors
///
/// If it cannot be made, or if it would lie in memory (tmpfs): no benchmark of a disk runs there.
pub(crate) fn data_dir() -> io::Result<TempDir> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-data");
    fs::create_dir_all(&parent)?;
    if statfs(&parent)?.filesystem_type() == TMPFS_MAGIC {
        return Err(io::Error::other("target/bench-data is on tmpfs: benchmarks need a disk"));
    }
    tempfile::Builder::new().prefix("run-").tempdir_in(parent)
}

/// Writes back everything and empties the page cache of the whole machine.
///
/// # Errors
///
/// If we are not root.
pub(crate) fn drop_caches() -> io::Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
        .map_err(|error| because("dropping the page cache needs root", error))
}

/// Most memory that [`warm_memory`] uses, in bytes.
const WARM_BYTES_MAX: u64 = 2 << 30;

/// Makes free memory the memory of this machine: fills a file, never synced, and deletes it.
///
/// A virtual machine reports memory that nobody uses to its host, which takes it away; whoever is
/// next to get such a page waits for the host. What a turn measures would depend on which of the
/// two sides came to the pages of the other: a commit of 1 GiB took 1.7 s instead of 0.5 s. It is
/// a file that is written in pieces of 2 MiB, as the turns write theirs, because the kernel keeps
/// free memory by the size of its pieces; and not more than is needed, because what lies idle is
/// reported again at once.
///
/// # Errors
///
/// If the kernel does not say how much memory is left, or the file cannot be written.
pub(crate) fn warm_memory() -> io::Result<()> {
    let available = field(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:")? << 10;
    let bytes = WARM_BYTES_MAX.min(available / 4);
    let directory = data_dir()?;
    let mut file = fs::File::create(directory.path().join("warm"))?;
    let piece = vec![1_u8; 2 << 20];
    (0..bytes >> 21).try_for_each(|_| file.write_all(&piece))
}

/// Bytes that this process wrote so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    /// Handed to `write` and its relatives. Exact, but blind to stores through shared mappings.
    pub(crate) passed_bytes: u64,
    /// Charged for going to a disk: whole folios, so it may be far above what was changed.
    pub(crate) charged_bytes: u64,
}

/// Reads the counters of `/proc/self/io`; the difference of two calls is what happened between.
///
/// # Errors
///
/// If the kernel keeps no such counters.
pub(crate) fn written() -> io::Result<Written> {
    let text = fs::read_to_string("/proc/self/io")?;
    Ok(Written {
        passed_bytes: field(&text, "wchar:")?,
        charged_bytes: field(&text, "write_bytes:")?,
    })
}

/// The largest resident size this process ever had, in bytes.
///
/// # Errors
///
/// If `/proc/self/status` does not say.
pub(crate) fn peak_resident_bytes() -> io::Result<u64> {
    Ok(field(&fs::read_to_string("/proc/self/status")?, "VmHWM:")? << 10)
}

/// The number after `name` in the text of a file of `/proc`.
pub(crate) fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("the kernel does not report {name}")))
}

/// The name given to [`child`], if this process is one: `main` then does that work and ends.
#[must_use]
pub(crate) fn child_name() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Runs this program again as the child `name` in a control group with `limit_bytes` of memory.
///
/// The limit counts the page cache too, so it makes a small machine out of a large one. The child
/// finds its name with [`child_name`] and `extra` in its environment; its stdout comes back, its
/// stderr is ours. A child that was killed for memory has a status with signal 9.
///
/// # Errors
///
/// If no memory control group can be made, which needs root, or the child cannot be started.
pub(crate) fn child(name: &str, limit_bytes: u64, extra: &[(&str, &str)]) -> io::Result<Output> {
    let group = Group::create(limit_bytes)
        .map_err(|error| because("a memory control group needs root", error))?;
    // The shell joins the group before it becomes the child, so every page is charged there.
    let join = "echo $$ > \"$0\" && exec \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", join]).arg(group.directory.join("cgroup.procs"));
    command.arg(std::env::current_exe()?);
    command.env(CHILD, name).envs(extra.iter().copied()).stderr(Stdio::inherit());
    command.output()
}

/// A memory control group of our own, version 1 or 2.
struct Group {
    directory: PathBuf,
}

impl Group {
    fn create(limit_bytes: u64) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let hierarchy = memory_hierarchy(&mounts, |root| {
            let controllers = fs::read_to_string(root.join("cgroup.controllers"));
            controllers.is_ok_and(|list| list.split_whitespace().any(|one| one == "memory"))
        });
        let (root, limit_file) = match hierarchy {
            Some(Hierarchy::V1(root)) => (root, "memory.limit_in_bytes"),
            Some(Hierarchy::V2(root)) => {
                fs::write(root.join("cgroup.subtree_control"), "+memory")?;
                (root, "memory.max")
            }
            None => return Err(io::Error::other("no memory controller is mounted")),
        };
        let directory = root.join(format!("zba-bench-{}", std::process::id()));
        fs::create_dir(&directory)?;
        let group = Self { directory };
        fs::write(group.directory.join(limit_file), limit_bytes.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{}: {error}: remove it by hand", self.directory.display());
        }
    }
}

/// Where the memory controller is.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Hierarchy {
    /// A hierarchy of its own.
    V1(PathBuf),
    /// The unified hierarchy.
    V2(PathBuf),
}

/// Finds the memory controller in the text of `/proc/self/mounts`.
///
/// `has_memory` tells whether a unified hierarchy offers the controller: where both versions are
/// mounted only one of them has it.
pub(crate) fn memory_hierarchy(
    mounts: &str,
    has_memory: impl Fn(&Path) -> bool,
) -> Option<Hierarchy> {
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (root, kind, options) = (PathBuf::from(words.next()?), words.next()?, words.next()?);
        match kind {
            "cgroup" if options.split(',').any(|one| one == "memory") => Some(Hierarchy::V1(root)),
            "cgroup2" if has_memory(&root) => Some(Hierarchy::V2(root)),
            _ => None,
        }
    })
}

/// `error` with what it means in front.
fn because(meaning: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{meaning}: {error}"))
}
