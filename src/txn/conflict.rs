//! Whether a transaction may commit: its write set against every record since its base.
//!
//! A pure decision. The first committer wins, page by page for data and key by key for metadata:
//!
//! ```text
//! we changed                conflicts with a newer record that changed
//! pages of an array         any of the same pages, or the array's layout, or that removed it
//! the shape                 the shape; if elements moved, also any page
//! an attribute, a tag       the same attribute, the same tag
//! a name                    the same name, or that made the change impossible
//! ```
//!
//! # Invariants
//!
//! 1. Two transactions that share no page and no key never conflict.
//! 2. What a record at or before the base says is never looked at: the snapshot contains it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::storage::catalog::{Catalog, CatalogChange, Node, Owner};
use crate::storage::record::Record;
use crate::units::{ArrayId, PageRange, PageSet, Tid};

/// What a transaction changed, as far as conflicts are concerned.
pub(super) struct Changes<'a> {
    /// Pages the program wrote, by array that existed at the base.
    pub(super) pages: &'a BTreeMap<ArrayId, PageSet>,
    /// Changes of the catalog.
    pub(super) catalog: &'a [CatalogChange],
    /// The catalog at the base.
    pub(super) base: &'a Catalog,
}

/// What another transaction had committed first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// Pages of an array.
    Pages {
        /// Name of the array at the base.
        array: String,
        /// The first pages both changed.
        pages: PageRange,
        /// The other commit.
        by: Tid,
    },
    /// The shape of an array, or pages while elements changed their places.
    Shape {
        /// Name of the array at the base.
        array: String,
        /// The other commit.
        by: Tid,
    },
    /// The array was removed, or changed while this transaction removed it.
    Removed {
        /// Name of the array at the base.
        array: String,
        /// The other commit.
        by: Tid,
    },
    /// An attribute, a tag or a name.
    Key {
        /// What kind of key and which.
        key: String,
        /// The other commit.
        by: Tid,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages { array, pages, by } => write!(
                f,
                "commit {by} changed pages {}..{} of array `{array}`, which this transaction \
                 changed too",
                pages.start, pages.end
            ),
            Self::Shape { array, by } => {
                write!(f, "commit {by} changed the shape of array `{array}`, or data under it")
            }
            Self::Removed { array, by } => write!(
                f,
                "array `{array}` was removed in one of this transaction and commit {by}, and \
                 changed in the other"
            ),
            Self::Key { key, by } => write!(f, "commit {by} changed {key}"),
        }
    }
}

/// The first conflict of `ours` with `newer`, the records since the base in order; `head` is the
/// catalog after them.
pub(super) fn first_conflict(
    ours: &Changes<'_>,
    newer: &[Arc<Record>],
    head: &Catalog,
) -> Option<Conflict> {
    newer
        .iter()
        .find_map(|record| with_record(ours, record))
        .or_else(|| newer.last().and_then(|last| with_head(ours, head, last.tid)))
}

fn name_of(ours: &Changes<'_>, array: ArrayId) -> String {
    ours.base.name_of(array).map_or_else(|| array.to_string(), |name| name.to_string())
}

fn with_record(ours: &Changes<'_>, theirs: &Record) -> Option<Conflict> {
    data_with_data(ours, theirs)
        .or_else(|| ours.catalog.iter().find_map(|change| catalog_with(ours, change, theirs)))
        .or_else(|| theirs.catalog.iter().find_map(|change| data_with(ours, change, theirs.tid)))
}

fn data_with_data(ours: &Changes<'_>, theirs: &Record) -> Option<Conflict> {
    theirs.data.iter().find_map(|change| {
        let pages = ours.pages.get(&change.array)?.iter_in(change.segment.pages).next()?;
        Some(Conflict::Pages { array: name_of(ours, change.array), pages, by: theirs.tid })
    })
}

/// Our data against a change of their catalog.
fn data_with(ours: &Changes<'_>, theirs: &CatalogChange, by: Tid) -> Option<Conflict> {
    match theirs {
        CatalogChange::Shape { array, layout: true, .. }
            if ours.pages.get(array).is_some_and(|pages| !pages.is_empty()) =>
        {
            Some(Conflict::Shape { array: name_of(ours, *array), by })
        }
        _ => None,
    }
}

/// One change of our catalog against their record.
fn catalog_with(ours: &Changes<'_>, change: &CatalogChange, theirs: &Record) -> Option<Conflict> {
    let by = theirs.tid;
    match change {
        CatalogChange::Shape { array, layout, .. } => {
            let same = |theirs: &CatalogChange| matches!(theirs, CatalogChange::Shape { array: other, .. } if other == array);
            let moved = *layout && theirs.data.iter().any(|change| change.array == *array);
            (moved || theirs.catalog.iter().any(same))
                .then(|| Conflict::Shape { array: name_of(ours, *array), by })
        }
        CatalogChange::Attribute { owner, key, .. } => {
            let same = |theirs: &CatalogChange| {
                matches!(theirs, CatalogChange::Attribute { owner: o, key: k, .. }
                    if o == owner && k == key)
            };
            theirs.catalog.iter().any(same).then(|| {
                let of = match owner {
                    Owner::Array(array) => name_of(ours, *array),
                    Owner::Group(name) => name.to_string(),
                };
                Conflict::Key { key: format!("attribute `{key}` of `{of}`"), by }
            })
        }
        CatalogChange::Tag { tag, .. } => {
            let same = |theirs: &CatalogChange| matches!(theirs, CatalogChange::Tag { tag: other, .. } if other == tag);
            let conflict = || Conflict::Key { key: format!("tag `{tag}`"), by };
            theirs.catalog.iter().any(same).then(conflict)
        }
        CatalogChange::Remove { name } => {
            let array = ours.base.array(name)?.id;
            touches(theirs, array).then(|| Conflict::Removed { array: name.to_string(), by })
        }
        CatalogChange::Move { .. }
        | CatalogChange::CreateArray { .. }
        | CatalogChange::CreateGroup { .. } => None,
    }
}

fn touches(record: &Record, array: ArrayId) -> bool {
    record.data.iter().any(|change| change.array == array)
        || record.catalog.iter().any(|change| match change {
            CatalogChange::Shape { array: other, .. }
            | CatalogChange::Attribute { owner: Owner::Array(other), .. } => *other == array,
            _ => false,
        })
}

/// Our changes against the catalog that all newer records led to.
fn with_head(ours: &Changes<'_>, head: &Catalog, by: Tid) -> Option<Conflict> {
    let removed = |array: ArrayId| {
        let gone = ours.base.array_by_id(array).is_some() && head.array_by_id(array).is_none();
        gone.then(|| Conflict::Removed { array: name_of(ours, array), by })
    };
    if let Some(conflict) = ours.pages.keys().find_map(|&array| removed(array)) {
        return Some(conflict);
    }
    let mut after = head.clone();
    for change in ours.catalog {
        let conflict = match change {
            CatalogChange::Shape { array, .. }
            | CatalogChange::Attribute { owner: Owner::Array(array), .. } => removed(*array),
            CatalogChange::Remove { name } | CatalogChange::Move { from: name, .. } => {
                renamed(ours.base, head, name)
                    .then(|| Conflict::Key { key: format!("what `{name}` names"), by })
            }
            _ => None,
        };
        if conflict.is_some() {
            return conflict;
        }
        if let Err(why) = after.apply(change, by.next()) {
            return Some(Conflict::Key { key: format!("names so that now {why}"), by });
        }
    }
    None
}

/// Whether `name` stood for an array at the base and stands for something else now.
fn renamed(base: &Catalog, head: &Catalog, name: &str) -> bool {
    let identity = |catalog: &Catalog| match catalog.node(name) {
        Some(Node::Array(id)) => Some(Some(id)),
        Some(Node::Group(_)) => Some(None),
        None => None,
    };
    identity(base).is_some_and(|was| identity(head) != Some(was))
}
