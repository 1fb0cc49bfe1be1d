//! `zba import`: `.npy`, `.npz` and raw bytes become arrays, in one transaction.
//!
//! ```text
//! file | member | standard input --> header --> create or grow the array --> 8 MiB at a time
//! ```
//!
//! # Invariants
//!
//! 1. Everything one command imports is one commit: after any failure the store is as it was.
//! 2. Bytes are stored as they are in the file, in its byte order and its C or Fortran order.
//! 3. Memory is two buffers of 8 MiB, however large the file is.
//!
//! # Failure
//!
//! A file that is shorter or longer than its header says is refused; where its length is known
//! beforehand, before anything is written.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use zbigarray::array::{Header, NewRows, NpyError, ShapeError, index};
use zbigarray::{ArrayError, ArrayOptions, Codec, Dtype, DynArray, Order, Transaction};

use super::error::Error;
use super::interrupt::Interrupt;
use super::npz::Npz;
use super::output::{self, Output};
use super::progress::Progress;
use super::stream::{BUFFER_BYTES, Pieces, same_in_both_orders, to_len};
use super::values::{Shape, Size};
use super::{Note, StorePath};

const STANDARD_INPUT: &str = "standard input";

const EXAMPLES: &str = "\
Examples:
  zba import signals.zba ecg ecg.npy
  zba import signals.zba run7 results.npz          all members: run7/x, run7/y, ...
  zba import signals.zba x results.npz:x           one member
  zba import signals.zba ecg today.npy --append    grows along the first axis (C order)
  zba import signals.zba ecg ecg.npy --codec zstd+shuffle
  xz -dc huge.npy.xz | zba import signals.zba huge -
  zba import signals.zba raw dump.bin --raw --dtype '>i2' --shape 4000,3000";

/// Import .npy, .npz or raw bytes as arrays, all in one commit
///
/// Bytes are kept as they are: in the file's type, byte order and C or Fortran order. Memory does
/// not bound the size. A cut file, a wrong type or a name that is taken changes nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    #[command(flatten)]
    store: StorePath,
    /// Name of the new array; of a group if FILE is an .npz without :MEMBER
    name: String,
    /// FILE.npy, FILE.npz, FILE.npz:MEMBER, or - for an .npy stream on standard input
    file: PathBuf,
    /// The file has no header, only elements: needs --dtype and --shape
    #[arg(long, requires = "dtype", requires = "shape")]
    raw: bool,
    /// Element type of raw bytes, as in NumPy: f8, '>i2', S10, 'i4, f8'
    #[arg(long, requires = "raw")]
    dtype: Option<Dtype>,
    /// Shape of raw bytes, such as 10,20
    #[arg(long, requires = "raw")]
    shape: Option<Shape>,
    /// Which axis of raw bytes varies fastest: the last (C) or the first (F) [default: C]
    #[arg(long, requires = "raw", ignore_case = true)]
    order: Option<OrderArgument>,
    /// Bytes of a block: a power of two from 64KiB to 1GiB [default: the store's]
    #[arg(long, value_name = "SIZE", conflicts_with = "append")]
    block_size: Option<Size>,
    /// How blocks are encoded: none, lz4, zstd or zstd:LEVEL, with +shuffle or +delta for numbers
    /// [default: none]
    #[arg(long, value_name = "CODEC", conflicts_with = "append")]
    codec: Option<Codec>,
    /// Append to an array that exists, along its major axis (C: the first, F: the last)
    #[arg(long)]
    append: bool,
    #[command(flatten)]
    note: Note,
}

/// C or F.
#[derive(Clone, Copy, ValueEnum)]
enum OrderArgument {
    /// The last axis varies fastest.
    #[value(name = "C")]
    C,
    /// The first axis varies fastest.
    #[value(name = "F")]
    F,
}

/// Elements that are about to be read.
struct Elements<'r> {
    reader: &'r mut dyn Read,
    header: Header,
    // Bytes of the header in the file.
    header_bytes: u64,
    // For messages: `a.npy` or `standard input`.
    file: &'r str,
}

/// What a transaction imports into.
struct Target<'t> {
    transaction: &'t Transaction,
    options: &'t Import,
    output: Output,
    interrupt: Interrupt,
    imported: Vec<Value>,
    bytes: u64,
}

impl Import {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let mut target = Target {
            transaction: &transaction,
            options: &self,
            output,
            interrupt: Interrupt::install(),
            imported: Vec::new(),
            bytes: 0,
        };
        let start = Instant::now();
        self.read_all(&mut target)?;
        let Target { mut imported, bytes, .. } = target;
        let file = match self.file.to_string_lossy() {
            name if name == "-" => STANDARD_INPUT.into(),
            name => name,
        };
        let note = self.note.or(|| match self.append {
            true => format!("append {file} to {}", self.name),
            false => format!("import {file} as {}", self.name),
        });
        let tid = transaction.commit_with_note(&note)?;
        let seconds = start.elapsed().as_secs_f64();
        // Only now is it known behind which rows the new ones lie.
        if let Ok(committed) = store.at(tid) {
            let catalog = committed.catalog();
            for array in &mut imported {
                let entry = array["name"].as_str().and_then(|name| catalog.array(name));
                array["shape"] = json!(entry.map(|entry| &*entry.shape));
            }
        }
        let message = format!(
            "{} {} from {file}: {} in {} ({}), commit {tid}",
            if self.append { "appended to" } else { "imported" },
            names(&imported),
            output::size(bytes),
            output::time(seconds),
            output::rate(bytes, seconds),
        );
        let json = json!({
            "commit": tid.0, "arrays": imported, "bytes": bytes, "seconds": seconds,
        });
        output.done(&json, message)
    }

    fn read_all(&self, target: &mut Target<'_>) -> Result<(), Error> {
        if self.file.as_os_str() == "-" {
            return self.read_stream(target, &mut io::stdin().lock(), STANDARD_INPUT, None);
        }
        let (path, member) = split_member(&self.file);
        let mut file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let metadata = file.metadata().map_err(|error| Error::io("examine", &path, error))?;
        let len = metadata.is_file().then_some(metadata.len());
        if len.is_some() && !self.raw {
            let mut start = Vec::new();
            let read = (&mut file).take(4).read_to_end(&mut start).and_then(|_| file.rewind());
            read.map_err(|error| Error::io("read", &path, error))?;
            if Npz::is_one(&start) {
                return self.read_npz(target, Npz::open(&path, file)?, &path, member.as_deref());
            }
        }
        if let Some(member) = member {
            let path = path.display();
            return Err(Error::Refused(format!("{path} is no .npz file and has no `{member}`")));
        }
        self.read_stream(target, &mut BufReader::new(file), &path.display().to_string(), len)
    }

    fn read_npz(
        &self,
        target: &mut Target<'_>,
        mut npz: Npz,
        path: &Path,
        member: Option<&str>,
    ) -> Result<(), Error> {
        let (members, is_all) = match member {
            Some(member) => (vec![member.to_owned()], false),
            None => (npz.members(), true),
        };
        if members.is_empty() {
            return Err(Error::Refused(format!("{} holds no arrays", path.display())));
        }
        for member in members {
            let name = if is_all { format!("{}/{member}", self.name) } else { self.name.clone() };
            let file = format!("{}:{member}", path.display());
            let (mut reader, len) = npz.member(&member)?;
            let (header, header_bytes) = self.header(&mut reader, &file)?;
            let elements = Elements { reader: &mut reader, header, header_bytes, file: &file };
            target.import(&name, elements, Some(len))?;
        }
        Ok(())
    }

    fn read_stream(
        &self,
        target: &mut Target<'_>,
        reader: &mut dyn Read,
        file: &str,
        len: Option<u64>,
    ) -> Result<(), Error> {
        let mut reader = reader;
        let (header, header_bytes) = self.header(&mut reader, file)?;
        target.import(&self.name, Elements { reader, header, header_bytes, file }, len)
    }

    /// What the elements are, from the arguments or from the file; with the header's length.
    fn header(&self, reader: &mut impl Read, file: &str) -> Result<(Header, u64), Error> {
        let explain = |why: NpyError| match why {
            NpyError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Refused(format!("{file} is cut: it ends inside its .npy header"))
            }
            NpyError::Io(source) => Error::Io { action: "read", file: file.to_owned(), source },
            NpyError::Magic => Error::Refused(format!(
                "{file} is no .npy file; for bytes without header give --raw, --dtype and --shape"
            )),
            why => Error::Refused(format!("{file} cannot be imported: {why}")),
        };
        let (Some(dtype), Some(Shape(shape))) = (&self.dtype, &self.shape) else {
            return Header::read(reader).map_err(explain);
        };
        let order = match self.order {
            Some(OrderArgument::F) => Order::F,
            Some(OrderArgument::C) | None => Order::C,
        };
        Ok((Header::new(dtype, order, shape).map_err(explain)?, 0))
    }
}

impl<'t> Target<'t> {
    /// Imports one array; `len` is the file's length with its header, where it is known.
    fn import(&mut self, name: &str, from: Elements<'_>, len: Option<u64>) -> Result<(), Error> {
        let bytes = from.header.data_bytes();
        if let Some(len) = len {
            from.require_bytes(len.saturating_sub(from.header_bytes))?;
        }
        let progress = Progress::new(self.output, name, bytes);
        let mut array = match self.options.append {
            true => DynArray::open(self.transaction, name)?,
            false => self.create(name, &from.header)?,
        };
        let file = from.file;
        match self.options.append {
            true => self.append(&mut array, from, &progress)?,
            false => {
                let write = |at: u64, part: &[u8]| array.write_linear(at, part);
                self.fill(0, write, from, &progress)?;
            }
        }
        self.bytes += bytes;
        self.imported.push(json!({
            "name": name, "file": file, "dtype": array.dtype(),
            "order": output::order_text(array.order()), "bytes": bytes, "shape": null,
        }));
        Ok(())
    }

    fn create(&self, name: &str, header: &Header) -> Result<DynArray<'t>, Error> {
        let mut options = ArrayOptions::new().order(header.order());
        if let Some(Size(bytes)) = self.options.block_size {
            options = options.block_bytes(bytes);
        }
        if let Some(codec) = self.options.codec {
            options = options.codec(codec);
        }
        let (dtype, shape) = (header.dtype(), header.shape());
        Ok(DynArray::create(self.transaction, name, dtype, shape, &options)?)
    }

    fn append(
        &self,
        array: &mut DynArray<'_>,
        from: Elements<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let (name, file) = (array.name().to_owned(), from.file);
        if array.dtype() != from.header.dtype() {
            let (ours, theirs) = (array.dtype(), from.header.dtype());
            let what = format!("array `{name}` holds {ours}, {file} holds {theirs}");
            return Err(Error::Refused(format!("{what}; only the same type can be appended")));
        }
        let rows = from.header.shape().to_vec();
        // Nothing here may look where the array ends, or rows that others append at the same time
        // would be in the way.
        let why = |why: ShapeError| format!("cannot append {file} to `{name}`: {why}");
        let (order, itemsize) = (array.order(), array.itemsize());
        let appended = array.append_with(&rows, |new| {
            match from.header.order() == order || same_in_both_orders(&rows) {
                true => {
                    let offset = new.offset();
                    let write = |at: u64, part: &[u8]| new.write_linear(at - offset, part);
                    self.fill(offset, write, from, progress)
                }
                false => self.scatter(new, itemsize, from, progress),
            }
        });
        match appended {
            Err(Error::Array(ArrayError::Shape(error))) => Err(Error::Refused(why(error))),
            other => other.map(drop),
        }
    }

    /// Writes the elements as they come, from byte `at` of the array on.
    fn fill(
        &self,
        mut at: u64,
        mut write: impl FnMut(u64, &[u8]) -> Result<(), ArrayError>,
        mut from: Elements<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut left = from.header.data_bytes();
        let mut buffer = vec![0; to_len(left.min(BUFFER_BYTES))];
        while left > 0 {
            self.interrupt.check()?;
            // Up to a multiple of the buffer's size, so that whole blocks are written at once.
            let len = (BUFFER_BYTES - at % BUFFER_BYTES).min(left);
            let part = &mut buffer[..to_len(len)];
            from.read(part, left)?;
            write(at, part)?;
            progress.add(len);
            at += len;
            left -= len;
        }
        from.require_end()
    }

    /// Writes elements that come in the other order than the array's.
    fn scatter(
        &self,
        to: &mut NewRows<'_, '_>,
        itemsize: u64,
        mut from: Elements<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let (order, rows) = (from.header.order(), from.header.shape().to_vec());
        let mut left = from.header.data_bytes();
        let mut buffer = Vec::new();
        for piece in Pieces::new(&rows, itemsize, order, BUFFER_BYTES) {
            self.interrupt.check()?;
            let bytes =
                index::resolve(&piece, &rows, itemsize, order).map_err(ArrayError::from)?.nbytes();
            buffer.resize(to_len(bytes), 0);
            from.read(&mut buffer, left)?;
            to.write(&piece, order, &buffer)?;
            progress.add(bytes);
            left -= bytes;
        }
        from.require_end()
    }
}

impl Elements<'_> {
    /// Reads the next elements, of which `left` bytes are still to come.
    fn read(&mut self, into: &mut [u8], left: u64) -> Result<(), Error> {
        let mut read = 0;
        while read < into.len() {
            match self.reader.read(&mut into[read..]) {
                Ok(0) => {
                    let before = self.header.data_bytes() - left;
                    return self.require_bytes(before + read as u64);
                }
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.unreadable(source)),
            }
        }
        Ok(())
    }

    /// Nothing may follow the elements. Reading on also makes a zip archive check its checksum.
    fn require_end(self) -> Result<(), Error> {
        let mut one = [0];
        match self.reader.read(&mut one) {
            Ok(0) => Ok(()),
            Ok(_) => self.require_bytes(u64::MAX),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    /// An error unless the file has `found` bytes of data; `u64::MAX` for more than there may be.
    fn require_bytes(&self, found: u64) -> Result<(), Error> {
        let (file, wanted) = (self.file, self.header.data_bytes());
        let shape = output::shape(self.header.shape());
        let wants = format!("{} {} elements take {wanted} bytes", shape, self.header.dtype());
        match found {
            found if found < wanted => {
                Err(Error::Refused(format!("{file} is cut: its {wants}, it has {found}")))
            }
            found if found > wanted => {
                Err(Error::Refused(format!("{file} is too long: its {wants}, but there are more")))
            }
            _ => Ok(()),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Io { action: "read", file: self.file.to_owned(), source }
    }
}

/// The path and the member that `FILE.npz:MEMBER` names, unless there is a file of that name.
fn split_member(file: &Path) -> (PathBuf, Option<String>) {
    let text = file.to_str().unwrap_or_default();
    match text.rsplit_once(':') {
        Some((path, member)) if !member.is_empty() && !file.exists() => {
            (PathBuf::from(path), Some(member.to_owned()))
        }
        _ => (file.to_owned(), None),
    }
}

fn names(imported: &[Value]) -> String {
    let one = |array: &Value| array["name"].as_str().map(output::printable).unwrap_or_default();
    match imported {
        [array] => format!("`{}`", one(array)),
        arrays => format!("{} arrays", arrays.len()),
    }
}
