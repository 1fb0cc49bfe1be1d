//! Undoing one commit: a new transaction that gives everything it changed the state before it.
//!
//! Nothing is copied: the pages get their old extents again, which are there as long as the history
//! is.
//!
//! # Failure
//!
//! What a later commit changed too cannot be undone alone: that is a conflict, as if the undo had
//! been begun before that commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::conflict::{Changes, first_conflict};
use super::error::{CommitError, TransactionError};
use super::store::Store;
use super::transaction::Transaction;
use crate::storage::StorageError;
use crate::storage::catalog::{ArrayEntry, Catalog, CatalogChange, Node, Owner};
use crate::storage::extent::Segment;
use crate::storage::state::State;
use crate::units::{ArrayId, PageRange, PageSet, Tid};

/// What has to be done to undo a commit.
pub struct Undo {
    /// The shapes that arrays had before, where the commit changed them. A resize gives them,
    /// before anything else, so that rows that go leave no bytes behind.
    pub shapes: Vec<(ArrayId, Arc<[u64]>)>,
    /// Changes of names and metadata, in order, those of shapes too.
    pub changes: Vec<CatalogChange>,
    /// What pages contained before, by array.
    pub data: Vec<(ArrayId, Vec<Segment>)>,
}

impl Store {
    /// Begins a transaction in which commit `tid` shall be undone, and says how. `nbytes` says how
    /// many bytes the elements of an array have.
    ///
    /// # Errors
    ///
    /// [`CommitError::Conflict`] if a later commit changed the same,
    /// [`StorageError::Forgotten`] if the state before was packed away,
    /// [`TransactionError::CannotUndo`] if the commit removed an array.
    pub fn begin_undo(
        &self,
        tid: Tid,
        nbytes: impl Fn(&ArrayEntry) -> u64,
    ) -> Result<(Transaction, Undo), CommitError> {
        let before = self.pin_before(tid)?;
        let mut transaction = self.begin()?;
        let head = transaction.base();
        let records = self.records(Tid(tid.0 - 1), head).map_err(TransactionError::from)?;
        let Some((undone, later)) = records.split_first() else {
            return Err(TransactionError::from(StorageError::NoCommit { tid, head }).into());
        };
        let old = before.state();
        let mut pages: BTreeMap<ArrayId, PageSet> = BTreeMap::new();
        for change in undone.data.iter().filter(|change| !change.carried) {
            if old.catalog.array_by_id(change.array).is_some() {
                pages.entry(change.array).or_default().insert(change.segment.pages);
            }
        }
        let mut changes = inverse(&undone.catalog, old, tid)?;
        leave_groups_in_use(&mut changes, transaction.names(), tid);
        let after = old.apply(undone).map_err(TransactionError::from)?;
        let shapes = shapes_before(&changes, &old.catalog);
        let mut met = pages.clone();
        for (array, _) in &shapes {
            if let Some(rows) = cut(*array, &after.catalog, &old.catalog, &nbytes) {
                met.entry(*array).or_default().insert(rows);
            }
        }
        let ours = Changes { pages: &met, catalog: &changes, base: &after.catalog };
        if let Some(conflict) = first_conflict(&ours, later, &transaction.names()) {
            return Err(CommitError::Conflict(conflict));
        }
        let mut data = Vec::new();
        for (array, pages) in pages {
            let map = old.page_map(array);
            let mut segments = Vec::new();
            for range in pages.iter() {
                // Only that much of an extent is kept for the pinned state: another process that
                // packs before this is committed gives the rest of it to others.
                let there = map.lookup(range).map_err(TransactionError::from)?;
                segments.extend(there.iter().map(Segment::trimmed));
            }
            data.push((array, segments));
        }
        transaction.keep(before);
        Ok((transaction, Undo { shapes, changes, data }))
    }

    fn pin_before(&self, tid: Tid) -> Result<super::snapshot::Pin, TransactionError> {
        let head = self.head();
        if tid == Tid::ZERO || tid > head {
            return Err(StorageError::NoCommit { tid, head }.into());
        }
        self.shared.load_and_pin(Tid(tid.0 - 1))
    }
}

/// The shapes that arrays had before, of those whose shape `changes` touches.
fn shapes_before(changes: &[CatalogChange], before: &Catalog) -> Vec<(ArrayId, Arc<[u64]>)> {
    let of = |change: &CatalogChange| match change {
        CatalogChange::Shape { array, .. } => Some(*array),
        _ => None,
    };
    let arrays: BTreeSet<ArrayId> = changes.iter().filter_map(of).collect();
    let shape = |array| Some((array, Arc::clone(&before.array_by_id(array)?.shape)));
    arrays.into_iter().filter_map(shape).collect()
}

/// The pages whose bytes go when an array is as short again as it was `before`.
fn cut(
    array: ArrayId,
    after: &Catalog,
    before: &Catalog,
    nbytes: impl Fn(&ArrayEntry) -> u64,
) -> Option<PageRange> {
    let from = nbytes(before.array_by_id(array)?);
    let to = nbytes(after.array_by_id(array)?);
    (from < to).then(|| PageRange::covering(from, to))
}

/// Leaves those groups alone in which later commits put something else, and those that they made
/// again.
fn leave_groups_in_use(changes: &mut Vec<CatalogChange>, mut catalog: Catalog, tid: Tid) {
    changes.retain(|change| {
        let is_in_use = match change {
            CatalogChange::Remove { name } => {
                let is_group = matches!(catalog.node(name), Some(Node::Group(_)));
                is_group && catalog.below(name).next().is_some()
            }
            CatalogChange::CreateGroup { name } => {
                matches!(catalog.node(name), Some(Node::Group(_)))
            }
            _ => false,
        };
        // What does not fit is a conflict, which is found out in the next step.
        drop(catalog.apply(change, tid));
        !is_in_use
    });
}

/// The changes that undo `changes`, which were made on `old`.
fn inverse(
    changes: &[CatalogChange],
    old: &State,
    tid: Tid,
) -> Result<Vec<CatalogChange>, TransactionError> {
    let mut undone = Vec::with_capacity(changes.len());
    let mut catalog = old.catalog.clone();
    for change in changes {
        let inverse = inverse_of(change, &catalog);
        undone.push(inverse.ok_or(TransactionError::CannotUndo { tid })?);
        catalog.apply(change, tid)?;
    }
    undone.reverse();
    Ok(undone.into_iter().flatten().collect())
}

/// The groups above `name` that came into being with it and go with it, innermost first.
fn groups_created(name: &str, old: &Catalog) -> Vec<Arc<str>> {
    let above = name.rmatch_indices('/').map(|(at, _)| &name[..at]);
    above.filter(|group| old.node(group).is_none()).map(Arc::from).collect()
}

/// `None` if the change cannot be undone.
fn inverse_of(change: &CatalogChange, old: &Catalog) -> Option<Vec<CatalogChange>> {
    let remove = |name: &Arc<str>| CatalogChange::Remove { name: Arc::clone(name) };
    Some(match change {
        CatalogChange::CreateArray { name, .. } | CatalogChange::CreateGroup { name } => {
            let created = groups_created(name, old);
            std::iter::once(name).chain(&created).map(remove).collect()
        }
        CatalogChange::Remove { name } => match old.node(name)? {
            Node::Array(_) => return None,
            Node::Group(attributes) => {
                let owner = Owner::Group(Arc::clone(name));
                let attribute = |(key, value): (&Arc<str>, &Arc<str>)| CatalogChange::Attribute {
                    owner: owner.clone(),
                    key: Arc::clone(key),
                    value: Some(Arc::clone(value)),
                };
                let again = CatalogChange::CreateGroup { name: Arc::clone(name) };
                std::iter::once(again).chain(attributes.iter().map(attribute)).collect()
            }
        },
        CatalogChange::Move { from, to } => {
            let back = CatalogChange::Move { from: Arc::clone(to), to: Arc::clone(from) };
            std::iter::once(back).chain(groups_created(to, old).iter().map(remove)).collect()
        }
        CatalogChange::Shape { array, layout, .. } => {
            // An array created by the same commit goes altogether.
            let Some(entry) = old.array_by_id(*array) else { return Some(Vec::new()) };
            let (shape, layout) = (Arc::clone(&entry.shape), *layout);
            vec![CatalogChange::Shape { array: *array, shape, layout }]
        }
        CatalogChange::Codec { array, .. } => {
            let Some(entry) = old.array_by_id(*array) else { return Some(Vec::new()) };
            vec![CatalogChange::Codec { array: *array, codec: entry.codec }]
        }
        CatalogChange::Attribute { owner, key, .. } => {
            let attributes = match owner {
                Owner::Array(id) => old.array_by_id(*id).map(|entry| entry.attributes.clone()),
                Owner::Group(name) => match old.node(name) {
                    Some(Node::Group(attributes)) => Some(attributes),
                    _ => None,
                },
            };
            let value = attributes.and_then(|attributes| attributes.get(key).cloned());
            vec![CatalogChange::Attribute { owner: owner.clone(), key: Arc::clone(key), value }]
        }
        CatalogChange::Tag { tag, .. } => {
            vec![CatalogChange::Tag { tag: Arc::clone(tag), tid: old.tag(tag) }]
        }
    })
}
