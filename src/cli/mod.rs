//! The `zba` command: what people and scripts do with a store.
//!
//! ```text
//! arguments -> Command -> its file -> public API of the library -> Output or Error -> exit code
//! ```
//!
//! One file for each group of commands; each command is a struct that clap fills and `run` obeys,
//! so that help, man pages and completions come from the same text.
//!
//! # Invariants
//!
//! 1. Data goes to standard output, messages to standard error.
//! 2. A command changes a store by one commit, or not at all.
//! 3. Only the library's public API is used.
//!
//! # Failure
//!
//! One sentence on standard error and an exit code, see [`error`].

mod bench;
mod check;
mod codec;
mod compute;
mod copy;
mod demo;
mod error;
mod evaluate;
mod export;
mod formula;
mod functions;
mod history;
mod import;
mod interrupt;
mod list;
mod measure;
mod mount;
mod mount_options;
mod names;
mod npz;
mod output;
mod progress;
mod shell;
mod stream;
mod values;
mod who;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use zbigarray::txn::{StorageError, directory_of};
use zbigarray::{OpenOptions, Store, Transaction};

use error::Error;
use output::Output;

/// Arrays larger than memory, committed atomically
///
/// A store is a directory that holds many n-dimensional arrays and their history. Every command
/// that changes it is one commit, whole or not at all.
#[derive(Parser)]
#[command(name = "zba", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  zba create signals.zba
  zba import signals.zba ecg ecg.npy
  zba info signals.zba ecg
  zba export signals.zba ecg first.npy --slice ':1000'
  zba demo

Commits are named by number, tag, time or age: 17, v1.0, 2026-01-31T12:00, 7d.
Exit codes: 0 done, 1 error, 2 wrong usage, 3 conflict with another commit, 4 damage found.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON document on standard output, and no messages
    #[arg(long, global = true, display_order = 100)]
    json: bool,
    /// No progress and no messages but errors
    #[arg(short, long, global = true, display_order = 101)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Create(names::Create),
    Import(import::Import),
    Export(export::Export),
    Ls(list::Ls),
    Info(list::Info),
    Log(history::Log),
    Watch(history::Watch),
    Who(who::Who),
    Du(list::Du),
    Rm(names::Rm),
    Mv(names::Mv),
    Cp(names::Cp),
    Copy(copy::Copy),
    Attrs(names::Attrs),
    Codec(codec::Codec),
    Compute(compute::Compute),
    Resize(names::Resize),
    Tag(names::Tag),
    Undo(names::Undo),
    Mount(mount_options::MountOptions),
    Umount(mount_options::UmountOptions),
    Check(check::Check),
    Pack(check::Pack),
    Bench(bench::Bench),
    Demo(demo::Demo),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// Which store.
#[derive(Args, Clone)]
struct StorePath {
    /// Directory of the store; `sled:DIRECTORY` for one of the sled engine
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Read it also on a network file system, where nothing keeps others from changing it
    #[arg(long, hide_short_help = true)]
    network: bool,
}

impl StorePath {
    fn path(&self) -> &Path {
        &self.store
    }

    fn open_to_read(&self) -> Result<Store, Error> {
        self.open(OpenOptions::read_only())
    }

    fn open_to_write(&self) -> Result<Store, Error> {
        self.open(OpenOptions::default())
    }

    fn open(&self, options: OpenOptions) -> Result<Store, Error> {
        self.require_no_file()?;
        let options = if self.network { options.on_network() } else { options };
        Store::open(&self.store, options).map_err(|error| match error {
            error @ StorageError::NotAStore { .. } => Error::NoStore(error, self.store.clone()),
            error @ StorageError::Io { .. } => {
                Error::Refused(format!("{} cannot be opened: {error}", self.store.display()))
            }
            error => error.into(),
        })
    }

    /// A store is a directory; the library would say only that something in it cannot be opened.
    fn require_no_file(&self) -> Result<(), Error> {
        let directory = directory_of(&self.store);
        if directory.metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            let path = self.store.display();
            return Err(Error::Refused(format!("{path} is a file; a store is a directory")));
        }
        Ok(())
    }
}

/// Which commit to look at.
#[derive(Args)]
struct At {
    /// As of this commit: its number, a tag, a time, or how long ago [default: the newest]
    #[arg(long, value_name = "COMMIT")]
    at: Option<String>,
}

impl At {
    fn begin(&self, store: &Store) -> Result<Transaction, Error> {
        match &self.at {
            Some(text) => Ok(store.at(values::commit(store, text)?)?),
            None => Ok(store.begin_read()?),
        }
    }
}

/// What the log will say.
#[derive(Args)]
struct Note {
    /// Note for the log [default: what was done]
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Note {
    fn or(&self, default: impl FnOnce() -> String) -> String {
        self.note.clone().unwrap_or_else(default)
    }
}

/// Obeys the command line.
pub(crate) fn run() -> ExitCode {
    interrupt::file_size_limit_is_an_error();
    let cli = Cli::parse();
    let output = Output { json: cli.json, quiet: cli.quiet };
    match cli.command.run(output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::OutputClosed) {
                report(&error);
            }
            error.exit_code()
        }
    }
}

fn report(error: &Error) {
    let mut stderr = io::stderr().lock();
    let (red, plain) = if stderr.is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let message = output::printable(&error.to_string());
    // Nobody is told if even this fails.
    let _ = writeln!(stderr, "{red}error:{plain} {message}");
}

impl Command {
    fn run(self, output: Output) -> Result<(), Error> {
        match self {
            Self::Create(command) => command.run(output),
            Self::Import(command) => command.run(output),
            Self::Export(command) => command.run(output),
            Self::Ls(command) => command.run(output),
            Self::Info(command) => command.run(output),
            Self::Log(command) => command.run(output),
            Self::Watch(command) => command.run(output),
            Self::Who(command) => command.run(output),
            Self::Du(command) => command.run(output),
            Self::Rm(command) => command.run(output),
            Self::Mv(command) => command.run(output),
            Self::Cp(command) => command.run(output),
            Self::Copy(command) => command.run(output),
            Self::Attrs(command) => command.run(output),
            Self::Codec(command) => command.run(output),
            Self::Compute(command) => command.run(output),
            Self::Resize(command) => command.run(output),
            Self::Tag(command) => command.run(output),
            Self::Undo(command) => command.run(output),
            Self::Mount(options) => mount::mount(&options),
            Self::Umount(options) => mount::unmount(&options),
            Self::Check(command) => command.run(output),
            Self::Pack(command) => command.run(output),
            Self::Bench(command) => command.run(output),
            Self::Demo(command) => command.run(output),
            Self::Completions(command) => command.run(&mut Cli::command(), output),
            Self::Man(command) => command.run(Cli::command(), output),
        }
    }
}
