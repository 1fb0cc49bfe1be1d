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
use crate::storage::record::{DataChange, Record};
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
    let removed = removed(ours);
    newer
        .iter()
        .find_map(|record| with_record(ours, &removed, record))
        .or_else(|| newer.last().and_then(|last| with_head(ours, head, last.tid)))
}

fn name_of(ours: &Changes<'_>, array: ArrayId) -> String {
    ours.base.name_of(array).map_or_else(|| array.to_string(), |name| name.to_string())
}

/// The arrays of the base that we removed, under whatever name they had by then.
fn removed(ours: &Changes<'_>) -> Vec<ArrayId> {
    let mut removed = Vec::new();
    let mut catalog = ours.base.clone();
    for change in ours.catalog {
        if let CatalogChange::Remove { name } = change {
            let array = catalog.array(name).map(|entry| entry.id);
            removed.extend(array.filter(|&array| ours.base.array_by_id(array).is_some()));
        }
        if catalog.apply(change, Tid::ZERO).is_err() {
            break;
        }
    }
    removed
}

fn with_record(ours: &Changes<'_>, removed: &[ArrayId], theirs: &Record) -> Option<Conflict> {
    let removed = removed.iter().find(|&&array| touches(theirs, array));
    data_with_data(ours, theirs)
        .or_else(|| {
            let array = name_of(ours, *removed?);
            Some(Conflict::Removed { array, by: theirs.tid })
        })
        .or_else(|| ours.catalog.iter().find_map(|change| catalog_with(ours, change, theirs)))
        .or_else(|| theirs.catalog.iter().find_map(|change| data_with(ours, change, theirs.tid)))
}

fn data_with_data(ours: &Changes<'_>, theirs: &Record) -> Option<Conflict> {
    changed(theirs).find_map(|change| {
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
            let same = |theirs: &CatalogChange| is_shape_of(theirs, *array);
            let moved = *layout && changed(theirs).any(|change| change.array == *array);
            (moved || theirs.catalog.iter().any(same))
                .then(|| Conflict::Shape { array: name_of(ours, *array), by })
        }
        CatalogChange::Codec { array, .. } => {
            let same = |theirs: &CatalogChange| match theirs {
                CatalogChange::Codec { array: other, .. } => other == array,
                _ => false,
            };
            let key = || format!("codec of `{}`", name_of(ours, *array));
            theirs.catalog.iter().any(same).then(|| Conflict::Key { key: key(), by })
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
            let same = |theirs: &CatalogChange| is_tag(theirs, tag);
            let conflict = || Conflict::Key { key: format!("tag `{tag}`"), by };
            theirs.catalog.iter().any(same).then(conflict)
        }
        CatalogChange::Remove { .. }
        | CatalogChange::Move { .. }
        | CatalogChange::CreateArray { .. }
        | CatalogChange::CreateGroup { .. } => None,
    }
}

/// The pages of a record that have other content than before.
fn changed(record: &Record) -> impl Iterator<Item = &DataChange> {
    record.data.iter().filter(|change| !change.carried)
}

/// Whether the change gives array `of` another shape.
pub(super) fn is_shape_of(change: &CatalogChange, of: ArrayId) -> bool {
    matches!(change, CatalogChange::Shape { array, .. } if *array == of)
}

fn is_tag(change: &CatalogChange, name: &str) -> bool {
    matches!(change, CatalogChange::Tag { tag, .. } if **tag == *name)
}

fn touches(record: &Record, array: ArrayId) -> bool {
    changed(record).any(|change| change.array == array)
        || record.catalog.iter().any(|change| match change {
            CatalogChange::Shape { array: other, .. }
            | CatalogChange::Codec { array: other, .. }
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
            | CatalogChange::Codec { array, .. }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::catalog::{ArrayEntry, Attributes};
    use crate::storage::encoding::Codec;
    use crate::storage::extent::{Segment, Source};
    use crate::units::BLOCK_BYTES_DEFAULT;

    const A: ArrayId = ArrayId(1);

    fn base() -> Catalog {
        let mut catalog = Catalog::default();
        for name in ["a", "b"] {
            let entry = ArrayEntry {
                id: catalog.next_array(),
                shape: Arc::from([10]),
                block_bytes: BLOCK_BYTES_DEFAULT,
                codec: Codec::default(),
                descriptor: Arc::from("{}"),
                attributes: Attributes::new(),
                created: Tid::ZERO,
                changed: Tid::ZERO,
            };
            let name = Arc::from(name);
            catalog.apply(&CatalogChange::CreateArray { name, entry }, Tid(1)).unwrap();
        }
        catalog
    }

    fn record(data: &[PageRange], catalog: Vec<CatalogChange>) -> Arc<Record> {
        let segment = |&pages| Segment { pages, source: Source::Hole };
        let data = data.iter().map(|pages| DataChange {
            array: A,
            segment: segment(pages),
            carried: false,
        });
        let (tid, base) = (Tid(2), Tid(1));
        let (note, data) = (Arc::from(""), data.collect());
        Arc::new(Record { tid, base, time_ns: 0, note, catalog, data })
    }

    /// What becomes of a transaction with these changes after one newer record.
    fn decide(
        pages: &[PageRange],
        catalog: &[CatalogChange],
        newer: &Arc<Record>,
    ) -> Option<Conflict> {
        let base = base();
        let mut head = base.clone();
        newer.catalog.iter().for_each(|change| head.apply(change, Tid(2)).unwrap());
        let pages: PageSet = pages.iter().copied().collect();
        let pages = if pages.is_empty() { BTreeMap::new() } else { [(A, pages)].into() };
        let ours = Changes { pages: &pages, catalog, base: &base };
        first_conflict(&ours, std::slice::from_ref(newer), &head)
    }

    fn shape(array: ArrayId, layout: bool) -> CatalogChange {
        CatalogChange::Shape { array, shape: Arc::from([20]), layout }
    }

    fn attribute(key: &str) -> CatalogChange {
        let (owner, value) = (Owner::Array(A), Some(Arc::from("1")));
        CatalogChange::Attribute { owner, key: Arc::from(key), value }
    }

    fn remove(name: &str) -> CatalogChange {
        CatalogChange::Remove { name: Arc::from(name) }
    }

    #[test]
    fn transactions_that_share_no_page_never_conflict() {
        let newer = record(&[PageRange::new(0, 4), PageRange::new(6, 9)], vec![]);
        assert_eq!(decide(&[PageRange::new(4, 6)], &[], &newer), None);
        let conflict = decide(&[PageRange::new(3, 7)], &[], &newer).unwrap();
        let (array, pages) = ("a".to_owned(), PageRange::new(3, 4));
        assert_eq!(conflict, Conflict::Pages { array, pages, by: Tid(2) });
    }

    #[test]
    fn pages_that_were_only_carried_along_never_conflict() {
        let mut newer = Record::clone(&record(&[PageRange::new(0, 4)], vec![]));
        newer.data[0].carried = true;
        let newer = Arc::new(newer);
        assert_eq!(decide(&[PageRange::new(2, 3)], &[shape(A, true)], &newer), None);
    }

    #[test]
    fn a_transaction_without_newer_records_never_conflicts() {
        let (base, pages) = (base(), [(A, [PageRange::new(0, 9)].into_iter().collect())].into());
        let changes = [remove("a"), shape(ArrayId(2), true)];
        let ours = Changes { pages: &pages, catalog: &changes, base: &base };
        assert_eq!(first_conflict(&ours, &[], &base), None);
    }

    #[test]
    fn two_shapes_of_one_array_conflict_and_of_two_arrays_do_not() {
        let newer = record(&[], vec![shape(A, false)]);
        assert!(matches!(
            decide(&[], &[shape(A, false)], &newer),
            Some(Conflict::Shape { array, by: Tid(2) }) if array == "a"
        ));
        assert_eq!(decide(&[], &[shape(ArrayId(2), false)], &newer), None);
    }

    #[test]
    fn data_conflicts_with_a_change_of_layout_and_not_with_growth() {
        let page = [PageRange::new(0, 1)];
        let far = [PageRange::new(5, 6)];
        assert_eq!(decide(&page, &[], &record(&[], vec![shape(A, false)])), None);
        assert!(decide(&page, &[], &record(&[], vec![shape(A, true)])).is_some());
        assert!(decide(&[], &[shape(A, true)], &record(&far, vec![])).is_some());
        assert_eq!(decide(&[], &[shape(A, false)], &record(&far, vec![])), None);
    }

    #[test]
    fn removing_an_array_conflicts_with_any_change_of_it_in_either_order() {
        let page = [PageRange::new(0, 1)];
        let removed = record(&[], vec![remove("a")]);
        assert!(matches!(decide(&page, &[], &removed), Some(Conflict::Removed { .. })));
        assert!(decide(&[], &[shape(A, false)], &removed).is_some());
        assert!(decide(&[], &[attribute("k")], &removed).is_some());
        assert!(decide(&[], &[remove("a")], &removed).is_some());
        assert!(decide(&[], &[remove("a")], &record(&page, vec![])).is_some());
        assert!(decide(&[], &[remove("a")], &record(&[], vec![attribute("k")])).is_some());
        assert_eq!(decide(&[], &[remove("b")], &record(&page, vec![])), None);
    }

    #[test]
    fn removing_an_array_under_a_new_name_conflicts_with_changes_of_it() {
        let page = [PageRange::new(0, 1)];
        let (from, to) = (Arc::from("a"), Arc::from("c"));
        let renamed = [CatalogChange::Move { from, to }, remove("c")];
        assert!(decide(&[], &renamed, &record(&page, vec![])).is_some());
        let (from, to) = (Arc::from("b"), Arc::from("a"));
        let other = [
            CatalogChange::Move { from: Arc::from("a"), to: Arc::from("c") },
            CatalogChange::Move { from, to },
            remove("a"),
        ];
        assert_eq!(decide(&[], &other, &record(&page, vec![])), None, "`b` was removed");
    }

    #[test]
    fn attributes_and_tags_conflict_by_key() {
        let newer = record(&[], vec![attribute("k")]);
        assert!(decide(&[], &[attribute("k")], &newer).is_some());
        assert_eq!(decide(&[], &[attribute("l")], &newer), None);
        assert_eq!(decide(&[PageRange::new(0, 1)], &[], &newer), None);
        let tag = |tag: &str| CatalogChange::Tag { tag: Arc::from(tag), tid: Some(Tid(1)) };
        let newer = record(&[], vec![tag("v")]);
        assert!(decide(&[], &[tag("v")], &newer).is_some());
        assert_eq!(decide(&[], &[tag("w")], &newer), None);
    }

    #[test]
    fn metadata_does_not_conflict_with_a_change_of_layout() {
        let newer = record(&[], vec![shape(A, true)]);
        assert_eq!(decide(&[], &[attribute("k")], &newer), None);
    }

    #[test]
    fn changes_of_an_array_that_is_gone_say_that_it_was_removed() {
        let gone = || Some(Conflict::Removed { array: "a".to_owned(), by: Tid(2) });
        let removed = record(&[], vec![remove("a")]);
        assert_eq!(decide(&[PageRange::new(0, 1)], &[], &removed), gone());
        assert_eq!(decide(&[], &[shape(A, false)], &removed), gone());
        assert_eq!(decide(&[], &[attribute("k")], &removed), gone());
    }

    #[test]
    fn a_conflict_says_what_was_changed_and_by_whom() {
        let page = [PageRange::new(0, 1)];
        let said = |conflict: Option<Conflict>| conflict.unwrap().to_string();
        let pages = said(decide(&page, &[], &record(&page, vec![])));
        assert!(pages.starts_with("commit 2 changed pages 0..1 of array `a`"), "{pages}");
        let layout = said(decide(&page, &[], &record(&[], vec![shape(A, true)])));
        assert!(layout.contains("shape of array `a`"), "{layout}");
        let removed = said(decide(&page, &[], &record(&[], vec![remove("a")])));
        assert!(removed.starts_with("array `a` was removed"), "{removed}");
        let key = said(decide(&[], &[attribute("k")], &record(&[], vec![attribute("k")])));
        assert_eq!(key, "commit 2 changed attribute `k` of `a`");
    }

    #[test]
    fn two_that_create_one_name_conflict() {
        let group = CatalogChange::CreateGroup { name: Arc::from("g") };
        let newer = record(&[], vec![group.clone()]);
        assert!(matches!(decide(&[], &[group], &newer), Some(Conflict::Key { .. })));
        let other = CatalogChange::CreateGroup { name: Arc::from("h") };
        assert_eq!(decide(&[], &[other], &newer), None);
    }

    #[test]
    fn removing_a_name_that_now_stands_for_another_array_conflicts() {
        let to =
            |from: &str, to: &str| CatalogChange::Move { from: Arc::from(from), to: Arc::from(to) };
        let swapped = record(&[], vec![to("a", "c"), to("b", "a"), to("c", "b")]);
        assert!(decide(&[], &[remove("a")], &swapped).is_some());
        let moved = record(&[], vec![to("a", "c")]);
        assert_eq!(decide(&[PageRange::new(0, 1)], &[], &moved), None, "the id is what counts");
    }
}
