//! Putting a store under a directory and taking it away.
//!
//! ```text
//! heal a dead mount -> open the store -> mount -> serve, follow -> signal or umount -> end
//! ```
//!
//! # Failure
//!
//! Everything that can be wrong is said before the mount is told to be ready.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use zbigarray::txn::{StorageError, directory_of};
use zbigarray::{OpenOptions, Store};

use crate::filesystem::Served;
use crate::follow::{self, Progress};
use crate::messages::Messages;
use crate::tree::Tree;
use crate::writing::Writing;

/// How long files that are still open get after a signal.
const GRACE: Duration = Duration::from_secs(2);
/// What the kernel reads ahead of a reader: a request at its largest, so that readers in order wait
/// seldom and those of single pages get no more than that.
const READAHEAD_KIB: u32 = 1024;

/// Why a store cannot be mounted or unmounted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StorageError),
    /// The directory to mount at.
    #[error("{path}: {why}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused to mount.
    #[error("cannot mount at {path}: {source}")]
    Mount {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else that is needed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// How a store is mounted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files can be written.
    pub writable: bool,
    /// Other users may come in.
    pub allow_other: bool,
    /// The store may lie on a network file system.
    pub network: bool,
    /// Threads that serve requests.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (2 * processors).clamp(4, 32);
        Self { writable: false, allow_other: false, network: false, threads }
    }
}

/// Mounts a store and serves it until it is unmounted or a signal says so.
///
/// `ready` is called as soon as the files can be used.
///
/// # Errors
///
/// [`MountError`] if the store cannot be opened or the directory not be mounted at, and what
/// `ready` returns.
pub fn serve(
    store: &Path,
    directory: &Path,
    options: &Options,
    messages: Option<&'static Messages>,
    ready: impl FnOnce() -> Result<(), MountError>,
) -> Result<(), MountError> {
    let directory = mount_point(directory)?;
    let opening = if options.writable { OpenOptions::default() } else { OpenOptions::read_only() };
    let opening = if options.network { opening.on_network() } else { opening };
    let store = Store::open(store, opening)?;
    require_apart(&directory_of(store.path()), &directory)?;
    let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let head = store.head();
    let tree = Arc::new(Tree::new(store.clone(), options.writable, owner, messages));
    let progress = Arc::new(Progress::new(head));
    let writing = Arc::new(Writing::new(Arc::clone(&tree), Arc::clone(&progress)));
    let served = Served::new(Arc::clone(&tree), Arc::clone(&writing));
    let mounting = |source| MountError::Mount { path: directory.clone(), source };
    let mut session =
        Session::new(served, &directory, &config(options, &store)).map_err(mounting)?;
    if let Err(error) = widen_readahead(&directory) {
        log::info!("the kernel reads ahead as little as for any filesystem: {error}");
    }
    let notifier = session.notifier();
    writing.set_notifier(notifier.clone());
    let mut unmounter = session.unmount_callable();
    let following = {
        let (tree, store, progress) = (Arc::clone(&tree), store.clone(), Arc::clone(&progress));
        let run = move || follow::run(&tree, &store, &notifier, head, &progress);
        spawn("follow", run)?
    };
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|source| MountError::Io { action: "listen for signals".into(), source })?;
    let handle = signals.handle();
    let waiting = {
        let directory = directory.clone();
        spawn("signals", move || {
            let Some(signal) = signals.forever().next() else { return };
            log::info!("signal {signal}: unmounting {}", directory.display());
            if unmounter.unmount().is_err() {
                let _ = detach(&directory);
            }
            std::thread::sleep(GRACE);
            // Who still has files open would keep us for ever.
            log::warn!("{}: files were still open", directory.display());
            std::process::exit(0);
        })?
    };
    log::info!("{} is mounted at {}", store.path().display(), directory.display());
    let result = ready().and_then(|()| session.run().map_err(mounting));
    progress.end();
    let _ = following.join();
    handle.close();
    drop(waiting);
    log::info!("{} is unmounted", directory.display());
    result
}

fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, MountError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(|source| MountError::Io { action: "start a thread".into(), source })
}

fn config(options: &Options, store: &Store) -> Config {
    let name = store.path().display().to_string().replace([',', '\\', '\n'], "_");
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("zba:{name}")),
        MountOption::Subtype("zba".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        if options.writable { MountOption::RW } else { MountOption::RO },
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    config
}

/// The directory to mount at; a dead mount there is taken away first.
fn mount_point(directory: &Path) -> Result<PathBuf, MountError> {
    let bad = |why: String| MountError::Directory { path: directory.to_path_buf(), why };
    match fs::metadata(directory) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            detach(directory).map_err(|error| {
                bad(format!("the mount there is dead and cannot be taken away: {error}"))
            })?;
        }
        Err(error) => return Err(bad(plain(&error))),
        Ok(found) if !found.is_dir() => return Err(bad("is not a directory".into())),
        Ok(_) => {}
    }
    let found = directory.canonicalize().map_err(|error| bad(plain(&error)))?;
    if is_mounted(&found) {
        return Err(bad("something is mounted there already; `zba umount` takes it away".into()));
    }
    Ok(found)
}

/// A store that is hidden by its own files could not be read any more.
fn require_apart(store: &Path, directory: &Path) -> Result<(), MountError> {
    let store = store.canonicalize().unwrap_or_else(|_| store.to_path_buf());
    if store.starts_with(directory) || directory.starts_with(&store) {
        let why = format!("the store {} and the directory lie in each other", store.display());
        return Err(MountError::Directory { path: directory.to_path_buf(), why });
    }
    Ok(())
}

/// Whether a store is mounted exactly at a directory, dead or alive.
fn is_mounted(directory: &Path) -> bool {
    device_of(directory).is_some()
}

/// The device number, as `0:57`, of what a filesystem of a program mounted exactly at a directory.
fn device_of(directory: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = directory.display().to_string();
    let line = mounts.lines().rev().find(|line| {
        let at = line.split(' ').nth(4).map(unescaped);
        let kind = line.split(" - ").nth(1).unwrap_or_default();
        at.as_deref() == Some(wanted.as_str()) && kind.starts_with("fuse")
    });
    line?.split(' ').nth(2).map(str::to_owned)
}

/// Has the kernel read further ahead than the 128 KiB that it lets a program ask for. Only root
/// may.
fn widen_readahead(directory: &Path) -> io::Result<()> {
    let device = device_of(directory).ok_or(io::ErrorKind::NotFound)?;
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    let mut file = fs::File::options().write(true).open(path)?;
    file.write_all(READAHEAD_KIB.to_string().as_bytes())
}

/// A path of `/proc/self/mountinfo`, which writes blanks as `\040`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                path.push(char::from(code));
                path.push_str(&part[3..]);
            }
            None => path.push_str(part),
        }
    }
    path
}

/// Takes a mount away, also while files are open.
fn detach(directory: &Path) -> io::Result<()> {
    unmount_with(directory, MntFlags::MNT_DETACH, "-uz")
}

fn unmount_with(directory: &Path, flags: MntFlags, words: &str) -> io::Result<()> {
    match umount2(directory, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => {
            let output = Command::new("fusermount3").args([words, "--"]).arg(directory).output()?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            let busy = said.contains("busy").then(|| io::Error::from(Errno::EBUSY));
            Err(busy.unwrap_or_else(|| io::Error::other(said.trim().to_owned())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Unmounts, and waits until the program that served has ended.
///
/// # Errors
///
/// [`MountError::Directory`] if nothing is mounted there, or if it is in use and not `lazy`.
pub fn unmount(directory: &Path, lazy: bool) -> Result<(), MountError> {
    let bad = |why: String| MountError::Directory { path: directory.to_path_buf(), why };
    // A dead mount cannot even be examined, but its parent can.
    let found = match directory.canonicalize() {
        Ok(found) => found,
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            return detach(directory).map_err(|error| bad(plain(&error)));
        }
        Err(error) => return Err(bad(plain(&error))),
    };
    if !is_mounted(&found) {
        return Err(bad("no store is mounted there".into()));
    }
    let server = server_of(&found);
    let done = match lazy {
        true => detach(&found),
        false => unmount_with(&found, MntFlags::empty(), "-u"),
    };
    done.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => bad("is in use: close what is open there, or use --lazy".into()),
        _ => bad(plain(&error)),
    })?;
    if let (Some(process), false) = (server, lazy) {
        for _ in 0..1000 {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// The process that serves a mount, if it says so soon.
fn server_of(directory: &Path) -> Option<u64> {
    let (tell, told) = std::sync::mpsc::channel();
    let path = directory.join(".zba/stats");
    std::thread::spawn(move || {
        let _ = tell.send(fs::read(path));
    });
    let text = told.recv_timeout(GRACE).ok()?.ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?["pid"].as_u64()
}

/// The system's message without the number behind it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped("/a/b"), "/a/b");
        assert_eq!(unescaped(r"/a\040b\134c"), r"/a b\c");
    }

    #[test]
    fn a_store_and_its_mount_may_not_lie_in_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, beside) = (dir.path().join("a/b"), dir.path().join("c"));
        fs::create_dir_all(&inside).unwrap();
        fs::create_dir_all(&beside).unwrap();
        assert!(require_apart(&inside, dir.path()).is_err());
        assert!(require_apart(dir.path(), &inside).is_err());
        assert!(require_apart(&beside, &inside).is_ok());
    }
}
