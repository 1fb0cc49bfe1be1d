//! The options of `zba mount` and `zba umount`, for `zba` and for the program that serves.
//!
//! This file is a part of both: `zba` has the help, the man page and the completions from it, and
//! `zba-mount` reads its own command line with it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Show a store as files: every program that reads files reads arrays
///
/// Below DIR lie the newest state of the store, every kept commit and every tag, each array as a
/// `.npy` file whose data can be mapped, as a description in JSON, and as a Zarr array.
#[derive(Args, Clone)]
#[command(after_help = "\
What lies below DIR:
  head/GROUP/ARRAY.npy    the newest commit; an open mapping follows commits
  head/GROUP/ARRAY.json   shape, dtype, order, attributes, commit
  head/GROUP/ARRAY.zarr/  the same array for zarr-python, dask, tensorstore
  head/GROUP.zarr/        the group as a Zarr group, for xarray; head.zarr/ is the whole store
  at/17/...               commit 17, for ever; at/2026-01-31T12:00:00Z leads to the one of then
  tags/v1/...             the commit that a tag names
  .zba/                   commits (tail -f it), stats, log

With --rw a file of head/ that is opened for writing is a transaction: closing it or fsync commits,
a program that is killed leaves nothing. `cp` makes arrays, `rm` removes, `mv` renames, `mkdir`
makes groups. docs/filesystem.md has the rules.

Examples:
  zba mount signals.zba mnt
  python3 -c \"import numpy; print(numpy.load('mnt/head/ecg.npy', mmap_mode='r').shape)\"
  zba mount signals.zba mnt --rw && cp new.npy mnt/head/new.npy
  tail -f mnt/.zba/commits
  zba umount mnt

As a service: `zba mount STORE DIR --foreground` with Type=notify; SIGTERM unmounts.")]
pub(crate) struct MountOptions {
    /// Directory of the store
    pub(crate) store: PathBuf,
    /// Where to show it: an existing directory
    pub(crate) dir: PathBuf,
    /// Files can be written, names changed
    #[arg(long)]
    pub(crate) rw: bool,
    /// Serve until unmounted, instead of in the background
    #[arg(short, long)]
    pub(crate) foreground: bool,
    /// Let other users in as well, as file permissions allow
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Lines to log; the newest are in DIR/.zba/log
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: LogLevel,
    /// Append the log to this file [default: standard error in the foreground]
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Threads that serve requests [default: 2 for each processor, at least 4]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    pub(crate) threads: Option<usize>,
    /// Write a line to this file descriptor as soon as the files can be used
    #[arg(long, value_name = "FD", hide_short_help = true)]
    pub(crate) ready_fd: Option<u32>,
    /// Read the store also on a network file system, where nothing keeps others from changing it
    #[arg(long, hide_short_help = true)]
    pub(crate) network: bool,
}

/// Take a mounted store away again
///
/// Waits until the program that served it has closed the store.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  zba umount mnt
  zba umount mnt --lazy     # also while files below it are open")]
pub(crate) struct UmountOptions {
    /// Where it is mounted
    pub(crate) dir: PathBuf,
    /// Take it away also while it is in use: who has files open keeps them
    #[arg(long)]
    pub(crate) lazy: bool,
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing.
    Off,
    /// What makes the files useless.
    Error,
    /// Why requests failed.
    Warn,
    /// Commits, mounts.
    Info,
    /// Every request.
    Debug,
}

impl MountOptions {
    /// The command line that says the same.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let level = self.log.to_possible_value();
        let level = level.map_or_else(|| "warn".to_owned(), |value| value.get_name().to_owned());
        words.extend(["--log".into(), level.into()]);
        let switches = [
            (self.rw, "--rw"),
            (self.foreground, "--foreground"),
            (self.allow_other, "--allow-other"),
            (self.network, "--network"),
        ];
        words.extend(switches.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).into()));
        if let Some(file) = &self.log_file {
            words.extend(["--log-file".into(), file.into()]);
        }
        if let Some(threads) = self.threads {
            words.extend(["--threads".into(), threads.to_string().into()]);
        }
        if let Some(fd) = self.ready_fd {
            words.extend(["--ready-fd".into(), fd.to_string().into()]);
        }
        words.extend(["--".into(), (&self.store).into(), (&self.dir).into()]);
        words
    }
}
