//! A file that is open for writing: a transaction of its own.
//!
//! ```text
//! existing file    write, truncate, append -> the array -> commit at fsync, close
//! new file         a .npy header -> the array is created -> its elements -> commit
//! ```
//!
//! # Invariants
//!
//! 1. Nothing is committed after something failed: the failure stays until the file is closed.
//! 2. Only whole rows are committed, and a new file only with all or none of its elements.
//! 3. Memory is bounded: elements go to the library's bulk calls, which stage them on disk; only a
//!    header and the beginning of an appended row are kept here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fuser::Errno;
use parking_lot::{Mutex, MutexGuard};
use zbigarray::array::{Descriptor, Header, NpyError, npy::HEADER_BYTES_MAX, shape};
use zbigarray::txn::CatalogChange;
use zbigarray::units::ArrayId;
use zbigarray::{ArrayOptions, DynArray, Store, Tid, Transaction};

use crate::layout::{Layout, index, row_bytes};
use crate::process::{Ending, Process};
use crate::refusal::Refusal;

/// Longest row that can be appended in parts.
const ROW_BYTES_MAX: u64 = 256 << 20;

/// What the file is.
#[derive(Clone)]
pub(crate) enum Target {
    /// An array of the store, by name and identity. If this file made it, the header it was given
    /// stays what the program sees until it closes the file.
    Array { name: Arc<str>, id: ArrayId, own_header: Option<Arc<[u8]>> },
    /// A new file, or one that was emptied, of which the header is not complete yet.
    Receiving { name: Arc<str>, replaces: Option<ArrayId>, received: Vec<u8> },
    /// A new file whose array exists in the transaction.
    Created { name: Arc<str>, header: Arc<[u8]>, nbytes: u64 },
}

struct State {
    target: Target,
    transaction: Option<Transaction>,
    failed: Option<Errno>,
    is_changed: bool,
    // Where the elements end that were written, if that is not the end of a row.
    end: u64,
    // The beginning of a row that is appended.
    partial: Vec<u8>,
}

/// A file open for writing.
pub(crate) struct Writer {
    store: Store,
    state: Mutex<State>,
    is_append: bool,
    opener: u32,
    processes: Mutex<Vec<Process>>,
    // Bytes of the file as this writer sees it.
    size: AtomicU64,
    // Whether it holds what was stored through a shared mapping, which all see.
    is_mapped: AtomicBool,
}

impl Writer {
    /// Opens a file for writing; its transaction begins now.
    pub(crate) fn new(
        store: Store,
        target: Target,
        is_append: bool,
        opener: u32,
    ) -> Result<Self, Refusal> {
        let transaction = Some(store.begin()?);
        let state = State {
            target,
            transaction,
            failed: None,
            is_changed: false,
            end: 0,
            partial: Vec::new(),
        };
        Ok(Self {
            store,
            state: Mutex::new(state),
            is_append,
            opener,
            processes: Mutex::new(Vec::new()),
            size: AtomicU64::new(0),
            is_mapped: AtomicBool::new(false),
        })
    }

    /// Notes a process that opened or wrote the file.
    pub(crate) fn used_by(&self, thread: u32) {
        let mut processes = self.processes.lock();
        if processes.iter().any(|process| process.id() == thread) {
            return;
        }
        if let Some(process) = Process::of_thread(thread)
            && processes.iter().all(|known| known.id() != process.id())
        {
            processes.push(process);
        }
    }

    /// Whether that thread opened it, and nobody wrote to it since.
    pub(crate) fn is_untouched_by(&self, thread: u32) -> bool {
        self.opener == thread && !self.state.lock().is_changed
    }

    /// Whether one of the processes that used the file was killed.
    pub(crate) fn was_killed(&self) -> bool {
        self.processes.lock().iter().any(|process| process.ending() == Ending::Killed)
    }

    /// Bytes of the file for whoever asks, 0 if this writer did not change it.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether it holds what was stored through a shared mapping.
    pub(crate) fn is_mapped(&self) -> bool {
        self.is_mapped.load(Ordering::Relaxed)
    }

    /// Whether there is something to commit, or a failure to tell of.
    pub(crate) fn is_changed(&self) -> bool {
        let state = self.state.lock();
        state.is_changed || state.failed.is_some()
    }

    /// The array it writes, once there is one.
    pub(crate) fn array(&self) -> Option<ArrayId> {
        match &self.state.lock().target {
            Target::Array { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// Takes bytes at `offset`, or at the end of a file that is open for appending.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8], mapped: bool) -> Result<(), Refusal> {
        self.step(|state| {
            state.is_changed = true;
            if mapped {
                self.is_mapped.store(true, Ordering::Relaxed);
            }
            match &state.target {
                Target::Receiving { .. } => state.receive(&self.store, offset, bytes),
                _ if self.is_append && !mapped => state.append(&self.store, bytes),
                _ => state.write(&self.store, offset, bytes),
            }
        })
    }

    /// Gives the file another size: whole rows, or nothing, which empties it.
    pub(crate) fn truncate(&self, size: u64) -> Result<(), Refusal> {
        self.step(|state| state.truncate(&self.store, size))
    }

    /// Reads as this transaction sees it.
    pub(crate) fn read(
        &self,
        offset: u64,
        size: u32,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        state.read(&self.store, offset, size, take)
    }

    /// Commits what was written. `None` if there was nothing.
    pub(crate) fn commit(&self) -> Result<Option<Tid>, Refusal> {
        let mut state = self.state.lock();
        if let Some(errno) = state.failed {
            return Err(errno.into());
        }
        if !state.is_changed {
            return Ok(None);
        }
        let done = state.commit(&self.store);
        if let Err(refusal) = &done {
            state.fail(refusal.errno);
        }
        self.settled(&state);
        done.map(Some)
    }

    /// Gives up what was written; whether that was anything.
    pub(crate) fn abort(&self) -> bool {
        let mut state = self.state.lock();
        let was_changed = state.is_changed;
        state.transaction = None;
        state.is_changed = false;
        self.settled(&state);
        was_changed
    }

    fn settled(&self, state: &MutexGuard<'_, State>) {
        self.is_mapped.store(false, Ordering::Relaxed);
        if matches!(state.target, Target::Array { .. }) {
            self.size.store(0, Ordering::Relaxed);
        }
    }

    /// One change; if it fails all is given up (invariant 1).
    fn step(&self, change: impl FnOnce(&mut State) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if let Some(errno) = state.failed {
            return Err(errno.into());
        }
        let done = change(&mut state);
        match &done {
            Ok(()) => self.size.store(state.size(), Ordering::Relaxed),
            Err(refusal) => state.fail(refusal.errno),
        }
        done
    }
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(Errno::EINVAL, why)
}

impl State {
    fn fail(&mut self, errno: Errno) {
        self.failed = Some(errno);
        self.transaction = None;
        self.is_changed = false;
    }

    /// The transaction, begun anew after a commit.
    fn begun<'a>(
        transaction: &'a mut Option<Transaction>,
        store: &Store,
    ) -> Result<&'a Transaction, Refusal> {
        if transaction.is_none() {
            *transaction = Some(store.begin()?);
        }
        transaction.as_ref().ok_or_else(|| Errno::EIO.into())
    }

    /// The name of the array in the transaction, if there is one.
    fn array_name(&self) -> Result<Arc<str>, Refusal> {
        match &self.target {
            Target::Array { name, .. } | Target::Created { name, .. } => Ok(Arc::clone(name)),
            Target::Receiving { .. } => Err(invalid("a .npy file begins with its header")),
        }
    }

    /// Lends the array in the transaction.
    fn with_array<T>(
        &mut self,
        store: &Store,
        step: impl FnOnce(&mut DynArray<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let name = self.array_name()?;
        let transaction = Self::begun(&mut self.transaction, store)?;
        let mut array = DynArray::open(transaction, &name)?;
        if let Target::Array { id, .. } = &self.target
            && array.id() != *id
        {
            return Err(Refusal::new(Errno::ESTALE, format!("`{name}` is another array by now")));
        }
        step(&mut array)
    }

    /// Bytes of the file as the program sees it.
    fn size(&self) -> u64 {
        match &self.target {
            Target::Receiving { received, .. } => received.len() as u64,
            Target::Created { header, .. } => header.len() as u64 + self.end,
            Target::Array { own_header: Some(header), .. } => header.len() as u64 + self.end,
            // The header of an array's file has whole pages, and nearly always one.
            Target::Array { .. } if self.end > 0 => zbigarray::units::PAGE_BYTES + self.end,
            Target::Array { .. } => 0,
        }
    }

    /// Takes the header of a new file, then creates the array.
    fn receive(&mut self, store: &Store, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let Target::Receiving { name, replaces, received } = &mut self.target else {
            return Err(Errno::EIO.into());
        };
        if offset != received.len() as u64 {
            let why = format!("byte {offset} was written before the .npy header was complete");
            return Err(invalid(why));
        }
        if received.len() > HEADER_BYTES_MAX as usize {
            return Err(invalid("the .npy header does not end"));
        }
        received.extend_from_slice(bytes);
        let (header, data_at) = match Header::read(&mut &received[..]) {
            Ok(read) => read,
            Err(NpyError::Io(_)) => return Ok(()),
            Err(error) => return Err(invalid(error.to_string())),
        };
        let (name, replaces) = (Arc::clone(name), *replaces);
        let rest = received.split_off(index(data_at));
        let own: Arc<[u8]> = Arc::from(&received[..]);
        create(Self::begun(&mut self.transaction, store)?, &name, replaces, &header)?;
        let nbytes = header.data_bytes();
        self.target = Target::Created { name, header: own, nbytes };
        self.end = 0;
        if rest.is_empty() { Ok(()) } else { self.write(store, data_at, &rest) }
    }

    /// Takes bytes of the file anywhere.
    fn write(&mut self, store: &Store, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let header = self.header(store)?;
        let data_at = header.len() as u64;
        if offset < data_at {
            let from = index(offset);
            let len = bytes.len().min(header.len() - from);
            let (head, rest) = bytes.split_at(len);
            if header[from..from + len] != *head {
                return Err(invalid(
                    "the header of an array's file follows from the array: resize with truncate, \
                     or empty the file and write it anew",
                ));
            }
            return if rest.is_empty() { Ok(()) } else { self.write(store, data_at, rest) };
        }
        let (at, len) = (offset - data_at, bytes.len() as u64);
        let end = at.checked_add(len).ok_or(Errno::EFBIG)?;
        if let Target::Created { nbytes, .. } = self.target
            && end > nbytes
        {
            let why = format!("the header says {nbytes} bytes of elements, and byte {end} came");
            return Err(invalid(why));
        }
        let grows = self.with_array(store, |array| {
            let nbytes = array.nbytes();
            if end > nbytes {
                let row = row_of(array)?;
                resize_rows(array, end.div_ceil(row))?;
            }
            array.write_linear(at, bytes)?;
            Ok(end > nbytes)
        })?;
        if grows || matches!(self.target, Target::Created { .. }) || self.end > 0 {
            self.end = self.end.max(end);
        }
        Ok(())
    }

    /// Takes bytes of rows that come after the last.
    fn append(&mut self, store: &Store, bytes: &[u8]) -> Result<(), Refusal> {
        self.partial.extend_from_slice(bytes);
        let mut partial = std::mem::take(&mut self.partial);
        let rows = self.with_array(store, |array| {
            // The other axes: asking for the whole shape would say where the array ends, and then
            // the rows could not be moved behind those that others append meanwhile.
            let (row, mut rows, axis) = row_shape(array)?;
            if row > ROW_BYTES_MAX {
                return Err(Refusal::new(Errno::EFBIG, "rows of this size cannot be appended"));
            }
            let count = partial.len() as u64 / row;
            rows[axis] = count;
            if count > 0 {
                array.append(&rows, array.order(), &partial[..index(count * row)])?;
            }
            Ok(count * row)
        })?;
        partial.drain(..index(rows));
        self.partial = partial;
        Ok(())
    }

    fn truncate(&mut self, store: &Store, size: u64) -> Result<(), Refusal> {
        match &mut self.target {
            Target::Array { name, id, .. } if size == 0 => {
                let (name, replaces) = (Arc::clone(name), Some(*id));
                self.target = Target::Receiving { name, replaces, received: Vec::new() };
                self.end = 0;
                self.is_changed = true;
                Ok(())
            }
            Target::Receiving { received, .. } if size == received.len() as u64 => Ok(()),
            Target::Receiving { .. } => Err(invalid("a .npy file begins with its header")),
            Target::Created { name, .. } if size == 0 => {
                let name = Arc::clone(name);
                self.transaction = None;
                self.target = Target::Receiving { name, replaces: None, received: Vec::new() };
                self.end = 0;
                Ok(())
            }
            Target::Created { header, nbytes, .. } => {
                let end = size.checked_sub(header.len() as u64).filter(|end| end <= nbytes);
                self.end = end.ok_or_else(|| invalid("not a size that the header allows"))?;
                Ok(())
            }
            Target::Array { .. } => {
                let data_at = self.header(store)?.len() as u64;
                self.is_changed = true;
                self.end = 0;
                self.with_array(store, |array| resize_to(array, size, data_at))
            }
        }
    }

    /// The header that the program sees.
    fn header(&mut self, store: &Store) -> Result<Arc<[u8]>, Refusal> {
        match &self.target {
            Target::Created { header, .. } => Ok(Arc::clone(header)),
            Target::Array { own_header: Some(header), .. } => Ok(Arc::clone(header)),
            Target::Receiving { received, .. } => Ok(Arc::from(&received[..])),
            Target::Array { .. } => {
                self.with_array(store, |array| Ok(Arc::from(layout_of(array)?.header)))
            }
        }
    }

    fn read(
        &mut self,
        store: &Store,
        offset: u64,
        size: u32,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        let header = self.header(store)?.to_vec();
        if matches!(self.target, Target::Receiving { .. }) {
            let from = index(offset).min(header.len());
            take(&header[from..from.saturating_add(size as usize).min(header.len())]);
            return Ok(());
        }
        self.with_array(store, |array| {
            let layout = Layout { header, nbytes: array.nbytes() };
            let (header, bytes): (&[u8], Range<u64>) = layout.read(offset, size);
            // Copied: the memory is private to the transaction and may change behind the reply.
            let found = array.linear_bytes(bytes)?;
            take(&[header, found].concat());
            Ok(())
        })
    }

    /// Checks invariant 2 and commits.
    fn commit(&mut self, store: &Store) -> Result<Tid, Refusal> {
        let name = match &self.target {
            Target::Receiving { received, .. } => {
                let why = format!("the file ended after {} bytes of its header", received.len());
                return Err(invalid(why));
            }
            Target::Created { nbytes, .. } if self.end != 0 && self.end != *nbytes => {
                let why =
                    format!("the file ended after {} of {nbytes} bytes of elements", self.end);
                return Err(invalid(why));
            }
            Target::Created { name, .. } | Target::Array { name, .. } => Arc::clone(name),
        };
        let (partial, end) = (self.partial.len(), self.end);
        if matches!(self.target, Target::Array { .. }) && (partial > 0 || end > 0) {
            self.with_array(store, |array| {
                let (row, ..) = row_shape(array)?;
                match (partial as u64 + end).checked_rem(row) {
                    Some(0) | None => Ok(()),
                    Some(rest) => Err(invalid(format!(
                        "{rest} bytes are left over: rows of `{}` have {row} bytes, and only whole \
                         rows can be committed",
                        array.name()
                    ))),
                }
            })?;
        }
        let transaction = self.transaction.take().ok_or(Errno::EIO)?;
        let tid = transaction.commit_with_note(&format!("write {name}.npy"))?;
        (self.is_changed, self.end) = (false, 0);
        if let Target::Created { header, .. } = &self.target {
            let own_header = Some(Arc::clone(header));
            let then = store.begin_read()?;
            let id = then.catalog().array(&name).map(|entry| entry.id).ok_or(Errno::ESTALE)?;
            self.target = Target::Array { name, id, own_header };
        }
        Ok(tid)
    }
}

/// Creates the array of a new file, or makes the one it replaces as if it were new.
fn create(
    transaction: &Transaction,
    name: &Arc<str>,
    replaces: Option<ArrayId>,
    header: &Header,
) -> Result<(), Refusal> {
    if replaces.is_some() {
        let mut array = DynArray::open(transaction, name)?;
        if array.dtype() == header.dtype() && array.order() == header.order() {
            // Empty first, so that nothing of what was there is seen again.
            array.resize(&[0])?;
            array.resize(header.shape())?;
            return Ok(());
        }
        drop(array);
        transaction.change(CatalogChange::Remove { name: Arc::clone(name) })?;
    }
    let options = ArrayOptions::new().order(header.order());
    DynArray::create(transaction, name, header.dtype(), header.shape(), &options)?;
    Ok(())
}

fn layout_of(array: &DynArray<'_>) -> Result<Layout, Refusal> {
    let descriptor = Descriptor::new(array.dtype().clone(), array.order(), array.fill())?;
    Ok(Layout::new(&descriptor, &array.shape())?)
}

/// Bytes of a row, the shape of rows, and the axis that counts them.
fn row_shape(array: &DynArray<'_>) -> Result<(u64, Vec<u64>, usize), Refusal> {
    let shape = array.row_shape();
    let axis = shape::major_axis(shape.len(), array.order());
    let axis = axis.ok_or_else(|| invalid("an array without axes has no rows"))?;
    let row = row_bytes(&shape, array.itemsize(), array.order());
    if row == 0 {
        return Err(invalid("rows without elements cannot be written"));
    }
    Ok((row, shape, axis))
}

fn row_of(array: &DynArray<'_>) -> Result<u64, Refusal> {
    Ok(row_shape(array)?.0)
}

fn resize_rows(array: &mut DynArray<'_>, count: u64) -> Result<(), Refusal> {
    let (_, _, axis) = row_shape(array)?;
    let mut shape = array.shape().to_vec();
    shape[axis] = count;
    Ok(array.resize(&shape)?)
}

fn resize_to(array: &mut DynArray<'_>, size: u64, data_at: u64) -> Result<(), Refusal> {
    let Some(bytes) = size.checked_sub(data_at) else {
        return Err(invalid(format!("the header alone has {data_at} bytes")));
    };
    if bytes == array.nbytes() {
        return Ok(());
    }
    let row = row_of(array)?;
    if bytes % row != 0 {
        return Err(invalid(format!(
            "{size} bytes are a header of {data_at} and {} rows of {row} bytes and a part of one",
            bytes / row
        )));
    }
    resize_rows(array, bytes / row)
}
