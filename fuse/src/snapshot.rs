//! States of the store that are being looked at, shared by all who read.
//!
//! ```text
//! View::Head  -> the newest commit, begun anew after each commit
//! View::At(t) -> that commit, the last few kept open
//! Snapshot = transaction + the one handle of each array in it, lent to many threads
//! ```
//!
//! # Invariants
//!
//! 1. After [`Snapshots::advance`] nobody is given a head that is older than that commit.
//! 2. A snapshot lives as long as somebody holds it, whatever is committed meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use self_cell::self_cell;
use zbigarray::txn::{Catalog, StorageError, TransactionError};
use zbigarray::units::ArrayId;
use zbigarray::{ArrayError, DynArray, Store, Tid, Transaction};

use crate::layout::Layout;
use crate::node::View;

/// Frozen states kept open while nobody uses them.
const KEPT_MAX: usize = 8;
/// Handles of arrays kept open in one state while nobody uses them.
const HANDLES_MAX: usize = 64;
/// Layouts of arrays kept in one state, each with a header of a page or more.
const LAYOUTS_MAX: usize = 256;

type Handles<'t> = Mutex<HashMap<ArrayId, Arc<DynArray<'t>>>>;

struct Open<'t>(Handles<'t>);

self_cell!(
    struct Held {
        owner: Transaction,
        #[not_covariant]
        dependent: Open,
    }
);

/// One state of the store.
pub(crate) struct Snapshot {
    held: Held,
    catalog: Catalog,
    // Every read asks where its bytes lie; the answer follows from the catalog.
    layouts: Mutex<HashMap<ArrayId, Arc<Layout>>>,
    tid: Tid,
    time_ns: i64,
}

impl Snapshot {
    fn new(transaction: Transaction) -> Self {
        let (catalog, tid) = (transaction.catalog(), transaction.base());
        let time_ns = transaction.base_time_ns();
        let held = Held::new(transaction, |_| Open(Mutex::new(HashMap::new())));
        Self { held, catalog, layouts: Mutex::new(HashMap::new()), tid, time_ns }
    }

    /// Names and metadata.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// When that was made: nanoseconds since 1970.
    pub(crate) fn time_ns(&self) -> i64 {
        self.time_ns
    }

    /// How an array is laid out as a file.
    pub(crate) fn layout(&self, id: ArrayId) -> Result<Arc<Layout>, ArrayError> {
        if let Some(layout) = self.layouts.lock().get(&id) {
            return Ok(Arc::clone(layout));
        }
        let entry = self.catalog.array_by_id(id);
        let entry = entry.ok_or_else(|| ArrayError::NotFound { name: id.to_string() })?;
        let layout = Arc::new(Layout::of(entry)?);
        let mut layouts = self.layouts.lock();
        if layouts.len() >= LAYOUTS_MAX {
            layouts.clear();
        }
        layouts.insert(id, Arc::clone(&layout));
        Ok(layout)
    }

    /// Lends the handle of an array.
    pub(crate) fn with_array<T>(
        &self,
        id: ArrayId,
        step: impl FnOnce(&DynArray<'_>) -> T,
    ) -> Result<T, ArrayError> {
        self.held.with_dependent(|transaction, open| {
            let array = handle(transaction, &open.0, &self.catalog, id)?;
            Ok(step(&array))
        })
    }
}

fn handle<'t>(
    transaction: &'t Transaction,
    handles: &Handles<'t>,
    catalog: &Catalog,
    id: ArrayId,
) -> Result<Arc<DynArray<'t>>, ArrayError> {
    let mut handles = handles.lock();
    if let Some(array) = handles.get(&id) {
        return Ok(Arc::clone(array));
    }
    if handles.len() >= HANDLES_MAX {
        // A closed array can give its mappings back to the process.
        handles.retain(|_, array| Arc::strong_count(array) > 1);
    }
    let name = catalog.name_of(id).ok_or_else(|| ArrayError::NotFound { name: id.to_string() })?;
    let array = Arc::new(DynArray::open(transaction, &name)?);
    handles.insert(id, Arc::clone(&array));
    Ok(array)
}

/// The states that are being looked at.
pub(crate) struct Snapshots {
    store: Store,
    head: Mutex<Option<Arc<Snapshot>>>,
    frozen: Mutex<VecDeque<Arc<Snapshot>>>,
    times: Mutex<HashMap<Tid, i64>>,
}

impl Snapshots {
    pub(crate) fn new(store: Store) -> Self {
        let frozen = Mutex::new(VecDeque::new());
        Self { store, head: Mutex::new(None), frozen, times: Mutex::new(HashMap::new()) }
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The state that a view shows now.
    pub(crate) fn of(&self, view: View) -> Result<Arc<Snapshot>, TransactionError> {
        match view {
            View::Head => self.head(),
            View::At(tid) => self.at(tid),
        }
    }

    /// The newest state.
    pub(crate) fn head(&self) -> Result<Arc<Snapshot>, TransactionError> {
        let mut head = self.head.lock();
        if let Some(snapshot) = &*head {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(Snapshot::new(self.store.begin_read()?));
        *head = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Commit `tid` happened: the head is begun anew when it is needed. Returns the one before.
    pub(crate) fn advance(&self, tid: Tid) -> Option<Arc<Snapshot>> {
        let mut head = self.head.lock();
        let is_older = head.as_ref().is_some_and(|snapshot| snapshot.tid < tid);
        if is_older { head.take() } else { None }
    }

    /// Gives up the head, which another process says is over.
    pub(crate) fn drop_head(&self) {
        self.head.lock().take();
    }

    /// The state of commit `tid`.
    pub(crate) fn at(&self, tid: Tid) -> Result<Arc<Snapshot>, TransactionError> {
        let mut frozen = self.frozen.lock();
        if let Some(at) = frozen.iter().position(|snapshot| snapshot.tid == tid)
            && let Some(found) = frozen.remove(at)
        {
            frozen.push_back(Arc::clone(&found));
            return Ok(found);
        }
        drop(frozen);
        let snapshot = Arc::new(Snapshot::new(self.store.at(tid)?));
        let mut frozen = self.frozen.lock();
        if frozen.len() >= KEPT_MAX {
            frozen.pop_front();
        }
        frozen.push_back(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// When commit `tid` was made: nanoseconds since 1970. Of commits that were packed away only
    /// that of the oldest kept one is known.
    pub(crate) fn time_of(&self, tid: Tid) -> i64 {
        if let Some(&time) = self.times.lock().get(&tid) {
            return time;
        }
        let time = self.read_time(tid).unwrap_or(0);
        let mut times = self.times.lock();
        if times.len() >= 1 << 16 {
            times.clear();
        }
        times.insert(tid, time);
        time
    }

    fn read_time(&self, tid: Tid) -> Option<i64> {
        let before = Tid(tid.0.checked_sub(1)?);
        match self.store.records(before, tid) {
            Ok(records) => records.last().map(|record| record.time_ns),
            Err(StorageError::Forgotten { .. }) => {
                self.at(self.store.oldest()).ok().map(|snapshot| snapshot.time_ns)
            }
            Err(_) => None,
        }
    }
}
