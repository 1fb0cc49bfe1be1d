//! A transaction: one snapshot, private changes, and then commit or abort.
//!
//! # Invariants
//!
//! 1. At most one handle of an array is alive in a transaction, so that its views are the only
//!    way to its memory.
//! 2. Everything that re-maps pages takes the transaction or the array's handle exclusively.
//!
//! # Failure
//!
//! A step that fails half way poisons the transaction: it can only be aborted. A process that was
//! forked off cannot commit.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Arc;

use super::append::{AppendedRows, Appends, Rows};
use super::commit::Said;
use super::error::{CommitError, TransactionError};
use super::session::{Context, HoleContent, Session};
use super::snapshot::Pin;
use super::store::Shared;
use super::working::Working;
use super::write_out;
use super::write_set::WriteSet;
use crate::storage::StorageError;
use crate::storage::catalog::{ArrayEntry, Catalog, CatalogChange};
use crate::storage::extent::{Segment, Source};
use crate::sync::{Mutex, MutexGuard};
use crate::units::{ArrayId, PAGE_BYTES, PageRange, PageSet, Tid};
use crate::vm::MapError;

/// Bytes written through memory by bulk calls before they are staged to extents: 16 MiB.
const BUFFERED_BYTES_MAX: u64 = 16 << 20;

/// The changing parts of a transaction.
pub(super) struct Inner {
    pub(super) session: Session,
    pub(super) set: WriteSet,
    pub(super) poisoned: bool,
    pub(super) appends: Appends,
    open: BTreeSet<ArrayId>,
    buffered_bytes: u64,
}

/// A snapshot of the whole store and private changes to it.
///
/// Arrays are opened from it and cannot outlive it. Dropping it aborts.
pub struct Transaction {
    pub(super) shared: Arc<Shared>,
    pub(super) pin: Pin,
    pub(super) writes: bool,
    // Another state whose extents this transaction names.
    kept: Option<Pin>,
    process: u32,
    // `None` once commit or abort took it.
    inner: Mutex<Option<Inner>>,
}

/// A point of a transaction to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint(u64);

impl Transaction {
    pub(super) fn new(shared: Arc<Shared>, pin: Pin, session: Session, writes: bool) -> Self {
        let set = WriteSet::new(pin.state().catalog.clone(), pin.state().tid);
        let (open, process) = (BTreeSet::new(), std::process::id());
        let appends = Appends::default();
        let inner = Inner { session, set, poisoned: false, appends, open, buffered_bytes: 0 };
        Self { shared, pin, writes, kept: None, process, inner: Mutex::new(Some(inner)) }
    }

    /// The commit this transaction's snapshot shows.
    #[must_use]
    pub fn base(&self) -> Tid {
        self.pin.state().tid
    }

    /// When the commit this transaction's snapshot shows was made: nanoseconds since 1970.
    #[must_use]
    pub fn base_time_ns(&self) -> i64 {
        self.pin.state().time_ns
    }

    /// Bytes of a block of arrays that do not choose.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.shared.block_bytes
    }

    /// Whether arrays can be changed.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writes
    }

    /// Names and metadata as this transaction sees them. Cost O(1).
    ///
    /// It says where arrays end: appends of this transaction are not moved behind those of others
    /// any more, but conflict with them; see [`AppendedRows`].
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        if let (true, Some(inner)) = (self.writes, &mut *self.inner.lock()) {
            inner.appends.saw_all_ends();
        }
        self.names()
    }

    /// The catalog, for callers who show no program where arrays end.
    pub(crate) fn names(&self) -> Catalog {
        match &*self.inner.lock() {
            // In a write set new arrays have provisional ids.
            Some(inner) if self.writes => inner.set.catalog.clone(),
            _ => self.pin.state().catalog.clone(),
        }
    }

    /// Makes a change of names, groups, attributes or tags, private until commit.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Catalog`] if the change does not fit, [`TransactionError::ReadOnly`].
    /// [`TransactionError::NeedsHandle`] for arrays to create and shapes, which are more than
    /// metadata: use a handle.
    pub fn change(&self, change: CatalogChange) -> Result<(), TransactionError> {
        match change {
            CatalogChange::CreateArray { .. } | CatalogChange::Shape { .. } => {
                Err(TransactionError::NeedsHandle)
            }
            change => self.change_any(change),
        }
    }

    /// The same for any change.
    pub(crate) fn change_any(&self, change: CatalogChange) -> Result<(), TransactionError> {
        self.writing(|_, inner| {
            if let CatalogChange::Codec { array, codec } = &change
                && let Some(working) = inner.session.arrays.get_mut(array)
            {
                working.codec = *codec;
            }
            Ok(inner.set.change(change)?)
        })
    }

    /// The id to create the next array with.
    ///
    /// # Errors
    ///
    /// [`TransactionError::ReadOnly`] if the transaction cannot create one.
    pub(crate) fn next_array(&self) -> Result<ArrayId, TransactionError> {
        self.writing(|_, inner| Ok(inner.set.catalog.next_array()))
    }

    /// Opens the one handle of an array (invariant 1): reserves its addresses.
    ///
    /// # Errors
    ///
    /// [`TransactionError::AlreadyOpen`] while another handle is alive.
    pub(crate) fn open_array<E: From<TransactionError>>(
        &self,
        id: ArrayId,
        pages: u64,
        hole: impl FnOnce() -> Result<HoleContent, E>,
    ) -> Result<(), E> {
        let is_mapped = self.reading(|_, inner| {
            if inner.open.contains(&id) {
                let name = inner.set.catalog.name_of(id).unwrap_or_default();
                return Err(TransactionError::AlreadyOpen { name: name.to_string() });
            }
            Ok(inner.session.arrays.contains_key(&id))
        })?;
        let hole = if is_mapped { None } else { Some(hole()?) };
        Ok(self.reading(|cx, inner| {
            let entry = entry_of(inner, id)?;
            if let Some(hole) = hole {
                let map = inner.session.state.page_map(id);
                let name = inner.set.catalog.name_of(id).unwrap_or_default();
                let new = || Working::new(name, entry.block_bytes, hole, map);
                let working = inner.session.arrays.entry(id).or_insert_with(new);
                working.tid = inner.session.state.tid;
                working.generation = Some(inner.session.generation);
                working.codec = entry.codec;
            }
            let budget = cx.shared.budget();
            if budget.used() > budget.max() / 2 {
                let_go_of_closed(cx, inner, id)?;
            }
            reserve(cx, inner, id, pages, true)?;
            inner.open.insert(id);
            Ok(())
        })?)
    }

    /// Says that the handle of an array is gone.
    pub(crate) fn close_array(&self, id: ArrayId) {
        if let Some(inner) = &mut *self.inner.lock() {
            inner.open.remove(&id);
        }
    }

    /// Makes room for an array to have `pages` pages. The caller holds its handle exclusively:
    /// where the addresses beyond are taken, the array moves if it `may_move`.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Map`] if there are no such addresses.
    pub(crate) fn reserve(
        &self,
        id: ArrayId,
        pages: u64,
        may_move: bool,
    ) -> Result<(), TransactionError> {
        self.reading(|cx, inner| reserve(cx, inner, id, pages, may_move))
    }

    /// Maps pages of an open array and returns the address of the first.
    ///
    /// The bytes there are the snapshot's and this transaction's changes; they stay valid until
    /// the array is staged, the transaction ends or rolls back. Nothing is copied; pages are read
    /// when they are touched. Cost O(runs of bytes on the disk) for pages not mapped yet.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Map`] if there are no addresses or too many mappings,
    /// [`TransactionError::ReadOnly`] if `write` and the transaction only reads.
    pub(crate) fn map(
        &self,
        id: ArrayId,
        pages: PageRange,
        write: bool,
    ) -> Result<NonNull<u8>, TransactionError> {
        let map = |cx: &Context<'_>, inner: &mut Inner| {
            match write {
                true => inner.appends.depends(id),
                false => inner.appends.read(id, pages),
            }
            working(inner, id)?.map(cx, pages, write)
        };
        if write { self.writing(map) } else { self.reading(map) }
    }

    /// Loads mapped `pages` of an open array that are loaded when they are touched.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Data`] naming the first block that is damaged or cannot be read.
    pub(crate) fn load(&self, id: ArrayId, pages: PageRange) -> Result<(), TransactionError> {
        self.reading(|_, inner| match inner.session.arrays.get(&id) {
            Some(working) => working.load(pages),
            None => Ok(()),
        })
    }

    /// Whether all of `pages` is loaded, and compared with its checksums, when it is touched.
    pub(crate) fn is_lazy(&self, id: ArrayId, pages: PageRange) -> Result<bool, TransactionError> {
        let is_lazy = |working: &Working| working.is_lazy(pages);
        self.reading(|_, inner| Ok(inner.session.arrays.get(&id).is_some_and(is_lazy)))
    }

    /// Asks the kernel to read mapped `pages` of an open array ahead.
    pub(crate) fn will_need(&self, id: ArrayId, pages: PageRange) {
        let _ = self.reading(|_, inner| {
            working(inner, id)?.will_need(pages);
            Ok(())
        });
    }

    /// Says that mapped `pages` of an open array are not needed soon.
    pub(crate) fn let_go(&self, id: ArrayId, pages: PageRange) {
        let _ = self.reading(|_, inner| {
            working(inner, id)?.let_go(pages);
            Ok(())
        });
    }

    /// Writes `bytes` into an open array from byte `at` on. The caller holds its handle
    /// exclusively.
    ///
    /// Whole blocks go straight to fresh extents, so that memory does not bound the transaction;
    /// the rest is copied into private pages.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Storage`] if the disk is full or fails.
    pub(crate) fn write(&self, id: ArrayId, at: u64, bytes: &[u8]) -> Result<(), TransactionError> {
        self.writing(|cx, inner| {
            inner.appends.depends(id);
            write_bytes(cx, inner, id, at, bytes)
        })
    }

    /// What is done to an array until [`append_ends`](Self::append_ends) is one append. The caller
    /// holds its handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::ReadOnly`].
    pub(crate) fn append_begins(&self, id: ArrayId) -> Result<(), TransactionError> {
        self.writing(|_, inner| {
            inner.appends.begin(id);
            Ok(())
        })
    }

    /// Says which rows the append made; `None` if it failed.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Poisoned`] if the transaction is over.
    pub(crate) fn append_ends(
        &self,
        id: ArrayId,
        rows: Option<Rows>,
    ) -> Result<AppendedRows, TransactionError> {
        self.reading(|_, inner| Ok(inner.appends.end(id, rows)))
    }

    /// Notes that the program knows where an array ends, so that what it does may depend on that.
    pub(crate) fn saw_end(&self, id: ArrayId) {
        if let (true, Some(inner)) = (self.writes, &mut *self.inner.lock()) {
            inner.appends.depends(id);
        }
    }

    /// Makes `pages` of an array a hole again. The caller holds its handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Map`] if mapped pages cannot be mapped anew.
    pub(crate) fn punch(&self, id: ArrayId, pages: PageRange) -> Result<(), TransactionError> {
        self.writing(|cx, inner| {
            inner.appends.depends(id);
            make_hole(cx, working(inner, id)?, pages)
        })
    }

    /// Counts those of `pages` of an array that are holes as written even if they stay holes:
    /// whoever else writes them is in conflict. The caller holds its handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::ReadOnly`], [`TransactionError::Storage`] if the index cannot be read.
    pub(crate) fn touch_holes(
        &self,
        id: ArrayId,
        pages: PageRange,
    ) -> Result<(), TransactionError> {
        self.writing(|_, inner| {
            inner.appends.depends(id);
            let working = working(inner, id)?;
            let segments = working.pages.lookup(pages)?;
            let holes = segments.into_iter().filter(|segment| segment.source == Source::Hole);
            holes.for_each(|hole| working.written.insert(hole.pages));
            Ok(())
        })
    }

    /// Drops private copies of `pages` of an array, which lay beyond its end so far. The caller
    /// holds its handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Map`] if mapped pages cannot be mapped anew.
    pub(crate) fn forget_private(
        &self,
        id: ArrayId,
        pages: PageRange,
    ) -> Result<(), TransactionError> {
        self.writing(|cx, inner| {
            inner.appends.depends(id);
            working(inner, id)?.place_again(cx, pages)
        })
    }

    /// Says that `bytes` bytes were written through memory by a bulk call, which are staged when
    /// there are many. The caller holds the handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Storage`] if the disk is full or fails.
    pub(crate) fn wrote(&self, id: ArrayId, bytes: u64) -> Result<(), TransactionError> {
        self.writing(|cx, inner| stage_if_many(cx, inner, id, bytes))
    }

    /// Gives pages of an open array content that is stored already. The caller holds its handle
    /// exclusively.
    pub(crate) fn restore(
        &self,
        id: ArrayId,
        segments: &[Segment],
    ) -> Result<(), TransactionError> {
        self.writing(|cx, inner| {
            inner.appends.depends(id);
            let working = working(inner, id)?;
            for segment in segments {
                working.pages.insert(segment);
                working.written.insert(segment.pages);
                working.carried.remove(segment.pages);
                working.place_again(cx, segment.pages)?;
            }
            Ok(())
        })
    }

    /// Keeps another state pinned until this transaction ends.
    pub(super) fn keep(&mut self, pin: Pin) {
        self.kept = Some(pin);
    }

    /// Writes the private pages of an array to extents. The caller holds its handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Storage`] if the disk is full or fails.
    pub(crate) fn stage(&self, id: ArrayId) -> Result<(), TransactionError> {
        self.writing(|cx, inner| stage(cx, inner, id))
    }

    /// Writes `pages` of an open array, which are stored, to fresh extents with the same content.
    /// The caller holds its handle exclusively.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Data`] naming the first block that is damaged; errors of the disk.
    pub(crate) fn write_again(&self, id: ArrayId, pages: &PageSet) -> Result<(), TransactionError> {
        self.writing(|cx, inner| {
            stage(cx, inner, id)?;
            let allocated = &mut inner.set.allocated;
            let Some(working) = inner.session.arrays.get_mut(&id) else { return Ok(()) };
            let nothing = PageSet::new();
            let segments = write_out::write(cx, working, &nothing, pages, allocated)?;
            take_over(cx, working, &nothing, pages, &segments)
        })
    }

    /// What `pages` of an array contain, private copies left aside.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Storage`] if the index cannot be read.
    pub fn segments(
        &self,
        id: ArrayId,
        pages: PageRange,
    ) -> Result<Vec<Segment>, TransactionError> {
        self.reading(|_, inner| {
            let map = match inner.session.arrays.get(&id) {
                Some(working) => working.pages.clone(),
                None => inner.session.state.page_map(id),
            };
            Ok(map.lookup(pages)?)
        })
    }

    /// Sets a point to go back to. Private pages are written to extents, so the cost is that of
    /// what changed since the last one.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Storage`] if the disk is full or fails.
    pub fn savepoint(&mut self) -> Result<Savepoint, TransactionError> {
        self.writing(|cx, inner| {
            let ids: Vec<ArrayId> = inner.session.arrays.keys().copied().collect();
            ids.into_iter().try_for_each(|id| stage(cx, inner, id))?;
            let arrays = &inner.session.arrays;
            let arrays = arrays.iter().map(|(&id, working)| (id, working.mark())).collect();
            Ok(Savepoint(inner.set.mark(arrays)))
        })
    }

    /// Undoes everything since `savepoint`, which can be gone back to again.
    ///
    /// # Errors
    ///
    /// [`TransactionError::NoSavepoint`] if a rollback to an earlier one undid it.
    pub fn rollback(&mut self, savepoint: Savepoint) -> Result<(), TransactionError> {
        self.writing(|cx, inner| {
            inner.appends.all_depend();
            let freed = inner.set.go_back(savepoint.0).ok_or(TransactionError::NoSavepoint)?;
            let Some(mark) = inner.set.marks.last() else {
                return Err(TransactionError::NoSavepoint);
            };
            let base = Arc::clone(&inner.session.state);
            inner.session.arrays.retain(|&id, _| inner.set.catalog.array_by_id(id).is_some());
            let gone_back =
                inner.session.arrays.iter_mut().try_for_each(|(id, working)| {
                    match mark.arrays.get(id) {
                        Some(marked) => working.go_back(cx, marked),
                        None => working.become_clean(cx, base.page_map(*id), &PageSet::new()),
                    }
                });
            if gone_back.is_err() {
                // Mapped still, so it is given back when the transaction ends.
                inner.set.allocated.extend(freed);
                return gone_back;
            }
            freed.into_iter().for_each(|(place, pages)| cx.engine.free(place, pages));
            Ok(())
        })
    }

    /// Commits: everything this transaction changed becomes durable and visible at once.
    ///
    /// Returns the new transaction id, or that of the base if nothing was changed. `Ok` means
    /// durable.
    ///
    /// # Errors
    ///
    /// [`CommitError`] tells apart: refused, did not happen, not known.
    pub fn commit(self) -> Result<Tid, CommitError> {
        self.commit_with_note("")
    }

    /// Commits with a note for the log.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn commit_with_note(self, note: &str) -> Result<Tid, CommitError> {
        self.commit_said(Said { note, time_ns: None })
    }

    /// Commits with a note, as if it were this time: nanoseconds since 1970, or that of the commit
    /// before if this is earlier. For copies of commits that were made elsewhere.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn commit_as(self, note: &str, time_ns: i64) -> Result<Tid, CommitError> {
        self.commit_said(Said { note, time_ns: Some(time_ns) })
    }

    fn commit_said(self, said: Said<'_>) -> Result<Tid, CommitError> {
        self.require_owner()?;
        self.require_kept()?;
        let Some(inner) = self.inner.lock().take() else {
            return Err(TransactionError::Poisoned.into());
        };
        super::commit::commit(&self, inner, said)
    }

    /// Drops all changes. The same as dropping the transaction.
    pub fn abort(self) {
        drop(self);
    }

    pub(super) fn context(&self) -> Context<'_> {
        self.shared.context(self.writes)
    }

    fn require_owner(&self) -> Result<(), TransactionError> {
        if std::process::id() == self.process { Ok(()) } else { Err(TransactionError::Forked) }
    }

    /// Another process may have given this snapshot up, because it kept too much. The bytes that
    /// are mapped stay what they are until the transaction ends.
    fn require_kept(&self) -> Result<(), TransactionError> {
        match self.shared.engine.expired() {
            Some(over) if self.base() < over => {
                Err(StorageError::Expired { tid: self.base() }.into())
            }
            _ => Ok(()),
        }
    }

    fn reading<T>(
        &self,
        step: impl FnOnce(&Context<'_>, &mut Inner) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        self.require_owner()?;
        self.require_kept()?;
        let mut guard: MutexGuard<'_, Option<Inner>> = self.inner.lock();
        let Some(inner) = &mut *guard else { return Err(TransactionError::Poisoned) };
        step(&self.context(), inner)
    }

    fn writing<T>(
        &self,
        step: impl FnOnce(&Context<'_>, &mut Inner) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        if !self.writes {
            return Err(TransactionError::ReadOnly);
        }
        self.reading(|cx, inner| {
            if inner.poisoned {
                return Err(TransactionError::Poisoned);
            }
            let result = step(cx, inner);
            let half_way = match &result {
                // Addresses are had before anything is done with them.
                Err(TransactionError::Map(MapError::AddressSpace { .. })) => false,
                Err(TransactionError::Map(_)) => true,
                Err(TransactionError::Storage(error)) => {
                    matches!(error, StorageError::Io { .. } | StorageError::Corrupted { .. })
                }
                _ => false,
            };
            inner.poisoned |= half_way;
            result
        })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A child of fork owns copies of the private pages and nothing on the disk.
        if self.require_owner().is_err() {
            return;
        }
        let Some(inner) = self.inner.lock().take() else { return };
        self.shared.end(inner, self.pin.generation(), &self.context());
    }
}

fn entry_of(inner: &Inner, id: ArrayId) -> Result<ArrayEntry, TransactionError> {
    let entry = inner.set.catalog.array_by_id(id).cloned();
    Ok(entry.ok_or(crate::storage::catalog::CatalogError::NoArray { array: id })?)
}

fn working(inner: &mut Inner, id: ArrayId) -> Result<&mut Working, TransactionError> {
    let working = inner.session.arrays.get_mut(&id);
    Ok(working.ok_or(crate::storage::catalog::CatalogError::NoArray { array: id })?)
}

fn reserve(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
    pages: u64,
    may_move: bool,
) -> Result<(), TransactionError> {
    if working(inner, id)?.try_reserve(cx, pages)? {
        return Ok(());
    }
    if !may_move {
        return Err(MapError::AddressSpace { bytes: pages.saturating_mul(PAGE_BYTES) }.into());
    }
    stage(cx, inner, id)?;
    let working = working(inner, id)?;
    working.unmap_all();
    working.try_reserve(cx, pages)?;
    Ok(())
}

/// Gives back the kernel mappings of arrays without a handle, other than `id`: a transaction may
/// touch more arrays than a process can map at once. Their private pages are staged.
fn let_go_of_closed(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
) -> Result<(), TransactionError> {
    cx.shared.drop_idle();
    let mapped = inner.session.arrays.iter().filter(|(_, working)| working.is_mapped());
    let mapped = mapped.map(|(&other, _)| other);
    let closed = mapped.filter(|other| *other != id && !inner.open.contains(other));
    for closed in closed.collect::<Vec<ArrayId>>() {
        stage(cx, inner, closed)?;
        working(inner, closed)?.unmap_all();
    }
    Ok(())
}

/// Writes the private pages of an array to extents that are not committed.
pub(super) fn stage(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
) -> Result<(), TransactionError> {
    let allocated = &mut inner.set.allocated;
    let Some(working) = inner.session.arrays.get_mut(&id) else { return Ok(()) };
    let changed = write_out::changed_pages(cx, working)?;
    let block_pages = working.block_pages();
    let encodes = !working.codec.is_none();
    let planned = write_out::plan(&changed, &working.pages, block_pages, encodes)?;
    let segments = write_out::write(cx, working, &changed, &planned, allocated)?;
    take_over(cx, working, &changed, &planned, &segments)
}

/// Makes `segments`, just written, the content of the array in this transaction.
pub(super) fn take_over(
    cx: &Context<'_>,
    working: &mut Working,
    changed: &PageSet,
    planned: &PageSet,
    segments: &[Segment],
) -> Result<(), TransactionError> {
    planned.iter().for_each(|range| working.carried.insert(range));
    for range in changed.iter() {
        working.written.insert(range);
    }
    let written: Vec<PageRange> = working.written.iter().collect();
    written.into_iter().for_each(|range| working.carried.remove(range));
    segments.iter().for_each(|segment| working.pages.insert(segment));
    for range in planned.iter() {
        working.place_again(cx, range)?;
    }
    Ok(())
}

/// Writes `bytes` from byte `at` of an array on: whole blocks to extents, the rest through memory.
pub(super) fn write_bytes(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
    at: u64,
    bytes: &[u8],
) -> Result<(), TransactionError> {
    let end = at + bytes.len() as u64;
    let block_bytes = working(inner, id)?.block_pages() * PAGE_BYTES;
    let (from, to) = (at.next_multiple_of(PAGE_BYTES), end - end % PAGE_BYTES);
    if to <= from || to - from < block_bytes {
        return write_through_memory(cx, inner, id, at, bytes);
    }
    let (head, rest) = bytes.split_at(small(from - at));
    let (body, tail) = rest.split_at(small(to - from));
    write_through_memory(cx, inner, id, at, head)?;
    write_to_extents(cx, inner, id, from, body)?;
    write_through_memory(cx, inner, id, to, tail)
}

fn make_hole(
    cx: &Context<'_>,
    working: &mut Working,
    pages: PageRange,
) -> Result<(), TransactionError> {
    working.pages.insert(&Segment { pages, source: Source::Hole });
    working.written.insert(pages);
    working.carried.remove(pages);
    working.place_again(cx, pages)
}

fn write_through_memory(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
    at: u64,
    bytes: &[u8],
) -> Result<(), TransactionError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let pages = PageRange::covering(at, at + bytes.len() as u64);
    let working = working(inner, id)?;
    working.map(cx, pages, true)?;
    // What is overwritten whole need not be loaded, and may even be damaged.
    let end = at + bytes.len() as u64;
    let (from, to) = (at.div_ceil(PAGE_BYTES), end / PAGE_BYTES);
    if from < to && working.is_lazy(PageRange::new(from, to)) {
        make_hole(cx, working, PageRange::new(from, to))?;
    }
    working.load(pages)?;
    let skip = small(at - pages.start_byte());
    let Some(memory) = working.bytes_mut(pages) else { return Err(TransactionError::Poisoned) };
    memory[skip..skip + bytes.len()].copy_from_slice(bytes);
    stage_if_many(cx, inner, id, bytes.len() as u64)
}

fn stage_if_many(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
    bytes: u64,
) -> Result<(), TransactionError> {
    inner.buffered_bytes += bytes;
    if inner.buffered_bytes > BUFFERED_BYTES_MAX {
        inner.buffered_bytes = 0;
        stage(cx, inner, id)?;
        // What other arrays have in memory counts too. Those with a handle may be written to at
        // this moment, through a view in another thread.
        let others: Vec<ArrayId> = inner.session.arrays.keys().copied().collect();
        let idle = others.into_iter().filter(|other| !inner.open.contains(other));
        idle.collect::<Vec<_>>().into_iter().try_for_each(|other| stage(cx, inner, other))?;
    }
    Ok(())
}

/// `at` and the length of `bytes` are whole pages.
fn write_to_extents(
    cx: &Context<'_>,
    inner: &mut Inner,
    id: ArrayId,
    at: u64,
    bytes: &[u8],
) -> Result<(), TransactionError> {
    let allocated = &mut inner.set.allocated;
    let working = inner.session.arrays.get_mut(&id);
    let Some(working) = working else { return Err(TransactionError::Poisoned) };
    let pages = PageRange::covering(at, at + bytes.len() as u64);
    let segments = write_out::write_bytes(cx, working, pages, bytes, allocated)?;
    let written: PageSet = [pages].into_iter().collect();
    take_over(cx, working, &written, &written, &segments)
}

fn small(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
