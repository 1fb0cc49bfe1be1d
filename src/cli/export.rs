//! `zba export`: an array, or a part of it, becomes an `.npy` file or a stream.
//!
//! ```text
//! checked bytes -> FILE's directory/.FILE.xxxx.part -- sync, rename --> FILE
//!               -> standard output, a pipe or a device
//! ```
//!
//! # Invariants
//!
//! 1. A file of the wanted name is what it was before or the whole export, never a part of it.
//! 2. Bytes are compared with their checksums before they leave, see [`stream::read`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use zbigarray::array::{Header, index, npy};
use zbigarray::{DynArray, Order};

use super::error::Error;
use super::interrupt::Interrupt;
use super::output::{self, Output};
use super::progress::Progress;
use super::stream::{self, same_in_both_orders};
use super::{At, StorePath};

const EXAMPLES: &str = "\
Examples:
  zba export signals.zba ecg ecg.npy
  zba export signals.zba ecg part.npy --slice '10:20, ..., ::2'
  zba export signals.zba ecg old.npy --at v1.0         as tagged; also 17, 2026-01-31, 7d
  zba export signals.zba ecg - --raw | sha256sum       the elements without a header";

/// Export an array, or a part of it, as .npy
///
/// The file appears whole or not at all. Fortran order stays Fortran order. Data is compared with
/// its checksums on the way; damage ends the export with exit code 4.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    #[command(flatten)]
    store: StorePath,
    /// Array
    name: String,
    /// FILE.npy, or - for standard output
    file: PathBuf,
    #[command(flatten)]
    at: At,
    /// Only these elements, as NumPy indexes: '10:20, :, ::2', '...', '-1'
    #[arg(long, value_name = "INDEX", allow_hyphen_values = true)]
    slice: Option<String>,
    /// Only the elements, without a header
    #[arg(long)]
    raw: bool,
}

impl Export {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let transaction = self.at.begin(&store)?;
        let array = DynArray::open(&transaction, &self.name)?;
        let indices = self.slice.as_deref().map_or(Ok(Vec::new()), index::parse)?;
        let selection = array.select(&indices)?;
        let is_same = same_in_both_orders(selection.shape());
        let order = if is_same { Order::C } else { array.order() };
        let header = Header::new(array.dtype(), order, selection.shape());
        let header = header.and_then(|header| match self.raw {
            true => Ok(Vec::new()),
            false => header.encode(npy::ALIGNMENT),
        });
        let header = header.map_err(|why| {
            Error::Refused(format!("array `{}` cannot be exported: {why}", self.name))
        })?;
        let interrupt = Interrupt::install();
        let mut sink = Sink::create(&self.file, output)?;
        let progress = Progress::new(output, &self.name, selection.nbytes());
        sink.write(&header)?;
        stream::read(&array, &selection, order, &mut |bytes| {
            interrupt.check()?;
            sink.write(bytes)?;
            progress.add(bytes.len() as u64);
            Ok(())
        })?;
        let is_stream = sink.finish()?;
        let (bytes, seconds) = (selection.nbytes(), progress.seconds());
        drop(progress);
        let message = format!(
            "exported `{}` {} {} as of commit {} to {}: {} in {} ({})",
            output::printable(&self.name),
            array.dtype(),
            output::shape(selection.shape()),
            transaction.base(),
            if is_stream { "standard output".into() } else { self.file.to_string_lossy() },
            output::size(bytes),
            output::time(seconds),
            output::rate(bytes, seconds),
        );
        if is_stream {
            // Standard output holds the elements.
            output.say(message);
            return Ok(());
        }
        let json = json!({
            "name": self.name, "file": self.file.to_string_lossy(),
            "dtype": array.dtype(), "shape": selection.shape(),
            "order": output::order_text(order), "commit": transaction.base().0,
            "bytes": bytes, "seconds": seconds,
        });
        output.done(&json, message)
    }
}

/// Where an export goes.
enum Sink {
    Stream(File),
    // A pipe or a device that has a name.
    Special(PathBuf, File),
    Aside(Aside),
}

impl Sink {
    fn create(path: &Path, output: Output) -> Result<Self, Error> {
        if path.as_os_str() == "-" {
            return Self::standard_output(output);
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let path = path.display();
                Err(Error::Refused(format!("{path} is a directory; name a file in it")))
            }
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(path);
                let file = file.map_err(|error| Error::io("open", path, error))?;
                Ok(Self::Special(path.to_owned(), file))
            }
            _ => Ok(Self::Aside(Aside::create(path)?)),
        }
    }

    fn standard_output(output: Output) -> Result<Self, Error> {
        if output.json {
            let why = "--json and the exported array cannot share standard output; name a file";
            return Err(Error::Usage(why.to_owned()));
        }
        let stdout = io::stdout();
        if stdout.is_terminal() {
            let why = "standard output is a terminal; send it to a file or a program";
            return Err(Error::Usage(why.to_owned()));
        }
        // Not through `Stdout`, which looks for line ends in everything.
        let file = stdout.as_fd().try_clone_to_owned().map_err(Error::output)?;
        Ok(Self::Stream(file.into()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stream(file) => file.write_all(bytes).map_err(Error::output),
            Self::Special(path, file) => {
                file.write_all(bytes).map_err(|error| Error::io("write to", path, error))
            }
            Self::Aside(aside) => {
                let written = aside.file.write_all(bytes);
                written.map_err(|error| Error::io("write", &aside.wanted, error))
            }
        }
    }

    /// Everything was written. Returns whether it went to standard output.
    fn finish(self) -> Result<bool, Error> {
        match self {
            Self::Stream(_) => Ok(true),
            Self::Special(..) => Ok(false),
            Self::Aside(aside) => aside.keep().map(|()| false),
        }
    }
}

/// A file that gets its name when it is complete (invariant 1), and goes away before.
struct Aside {
    file: File,
    path: PathBuf,
    wanted: PathBuf,
}

impl Aside {
    fn create(wanted: &Path) -> Result<Self, Error> {
        let Some(name) = wanted.file_name() else {
            return Err(Error::Refused(format!("{} is no name of a file", wanted.display())));
        };
        let process = std::process::id();
        let path = wanted.with_file_name(format!(".{}.{process}.part", name.to_string_lossy()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Error::io("create", wanted, error))?;
        Ok(Self { file, path, wanted: wanted.to_owned() })
    }

    fn keep(self) -> Result<(), Error> {
        let failed = |error| Error::io("write", &self.wanted, error);
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, &self.wanted).map_err(failed)?;
        let directory = self.wanted.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new(".")));
        directory.and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}
