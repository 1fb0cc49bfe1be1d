//! What a transaction changed so far: metadata in order, extents it wrote, savepoints.
//!
//! # Invariants
//!
//! 1. `catalog` is the base catalog after `changes`.
//! 2. Arrays created here have provisional ids, at and above [`PROVISIONAL`]; a commit gives them
//!    their real ones under the commit lock, so two transactions never choose the same.

use std::collections::HashMap;
use std::sync::Arc;

use super::conflict::is_shape_of;
use super::working::Marked;
use super::write_out::Allocated;
use crate::storage::catalog::{Catalog, CatalogChange, CatalogError, Owner};
use crate::sync::atomic::Ordering;
use crate::sync::process::AtomicU64;
use crate::units::{ArrayId, Tid};

/// First id of arrays that are not committed yet.
pub(super) const PROVISIONAL: u64 = 1 << 63;

/// Identities of marks, so that no transaction takes another one's for its own.
static NEXT_MARK: AtomicU64 = AtomicU64::new(0);

/// What a savepoint goes back to.
pub(super) struct Mark {
    pub(super) id: u64,
    pub(super) arrays: HashMap<ArrayId, Marked>,
    catalog: Catalog,
    changes_len: usize,
    allocated_len: usize,
}

/// The changes of one transaction.
pub(super) struct WriteSet {
    pub(super) catalog: Catalog,
    pub(super) changes: Vec<CatalogChange>,
    /// Extents written and not committed.
    pub(super) allocated: Vec<Allocated>,
    pub(super) marks: Vec<Mark>,
    base: Tid,
}

impl WriteSet {
    pub(super) fn new(catalog: Catalog, base: Tid) -> Self {
        let mut catalog = catalog;
        catalog.raise_next_array(ArrayId(PROVISIONAL));
        let (changes, allocated) = (Vec::new(), Vec::new());
        Self { catalog, changes, allocated, marks: Vec::new(), base }
    }

    /// Makes one change of the catalog.
    pub(super) fn change(&mut self, change: CatalogChange) -> Result<(), CatalogError> {
        self.catalog.apply(&change, self.base.next())?;
        self.changes.push(change);
        Ok(())
    }

    /// Gives an array another shape than all changes so far did; no element moves.
    pub(super) fn set_shape(
        &mut self,
        array: ArrayId,
        shape: Arc<[u64]>,
    ) -> Result<(), CatalogError> {
        self.changes.retain(|change| !is_shape_of(change, array));
        self.change(CatalogChange::Shape { array, shape, layout: false })
    }

    /// Sets a mark; `arrays` is what the working copies remember.
    pub(super) fn mark(&mut self, arrays: HashMap<ArrayId, Marked>) -> u64 {
        let id = NEXT_MARK.fetch_add(1, Ordering::Relaxed);
        self.marks.push(Mark {
            id,
            arrays,
            catalog: self.catalog.clone(),
            changes_len: self.changes.len(),
            allocated_len: self.allocated.len(),
        });
        id
    }

    /// Goes back to mark `id`, which stays; returns what was allocated since.
    pub(super) fn go_back(&mut self, id: u64) -> Option<Vec<Allocated>> {
        let at = self.marks.iter().position(|mark| mark.id == id)?;
        self.marks.truncate(at + 1);
        let mark = &self.marks[at];
        self.catalog = mark.catalog.clone();
        self.changes.truncate(mark.changes_len);
        Some(self.allocated.split_off(mark.allocated_len))
    }

    /// The changes as a record shall have them: only the last shape of each array, and arrays
    /// created here under the ids that follow `next`. Also returns the provisional ids with the
    /// real ones.
    pub(super) fn for_record(
        &self,
        next: ArrayId,
    ) -> (Vec<CatalogChange>, HashMap<ArrayId, ArrayId>) {
        let mut real = HashMap::new();
        let mut next = next.0;
        for change in &self.changes {
            if let CatalogChange::CreateArray { entry, .. } = change {
                real.insert(entry.id, ArrayId(next));
                next += 1;
            }
        }
        let mut kept: Vec<CatalogChange> = Vec::with_capacity(self.changes.len());
        let mut last_shape: HashMap<ArrayId, usize> = HashMap::new();
        for change in &self.changes {
            let change = with_real_ids(change, &real);
            if let CatalogChange::Shape { array, shape, layout } = &change
                && let Some(&at) = last_shape.get(array)
                && let CatalogChange::Shape { shape: last, layout: moved, .. } = &mut kept[at]
            {
                *last = Arc::clone(shape);
                *moved |= layout;
                continue;
            }
            if let CatalogChange::Shape { array, .. } = &change {
                last_shape.insert(*array, kept.len());
            }
            kept.push(change);
        }
        (kept, real)
    }
}

fn with_real_ids(change: &CatalogChange, real: &HashMap<ArrayId, ArrayId>) -> CatalogChange {
    let mut change = change.clone();
    let id = match &mut change {
        CatalogChange::CreateArray { entry, .. } => &mut entry.id,
        CatalogChange::Shape { array, .. } | CatalogChange::Codec { array, .. } => array,
        CatalogChange::Attribute { owner: Owner::Array(array), .. } => array,
        _ => return change,
    };
    *id = real.get(id).copied().unwrap_or(*id);
    change
}
