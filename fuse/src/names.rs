//! Which names in a directory stand for what: pure text.
//!
//! ```text
//! group  g        g/      g.zarr/
//! array  a        a.npy   a.json   a.zarr/
//! ```
//!
//! # Invariants
//!
//! 1. What is listed can be looked up under that name, and is what was listed.
//! 2. A group hides an array's file of the same name: it was there under its own name.

use std::ffi::OsStr;
use std::sync::Arc;

use zbigarray::txn::{Catalog, Node as Entry};
use zbigarray::units::ArrayId;

/// Longest name of a file.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// What a name in a group's directory stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The group of this full name.
    Group(Arc<str>),
    /// The Zarr view of the group of this full name.
    ZarrGroup(Arc<str>),
    /// The array as a `.npy` file.
    Npy(ArrayId),
    /// Its description.
    Json(ArrayId),
    /// Its Zarr view.
    Zarr(ArrayId),
}

/// The full name of `part` in `group`.
pub(crate) fn join(group: &str, part: &str) -> String {
    if group.is_empty() { part.to_owned() } else { format!("{group}/{part}") }
}

/// The group that a name lies in, and its last part.
pub(crate) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// The full name of the array that a file `part` in `group` would be, if it may be one.
pub(crate) fn array_of(group: &str, part: &OsStr) -> Option<String> {
    let name = part.to_str()?.strip_suffix(".npy")?;
    (!name.is_empty()).then(|| join(group, name))
}

/// What `part` in `group` stands for.
pub(crate) fn find(catalog: &Catalog, group: &str, part: &OsStr) -> Option<Named> {
    let part = part.to_str()?;
    let full = join(group, part);
    if let Some(Entry::Group(_)) = catalog.node(&full) {
        return Some(Named::Group(Arc::from(full)));
    }
    let (stem, ending) = full.rsplit_once('.')?;
    if stem.is_empty() || stem.ends_with('/') {
        return None;
    }
    match (catalog.node(stem)?, ending) {
        (Entry::Array(id), "npy") => Some(Named::Npy(id)),
        (Entry::Array(id), "json") => Some(Named::Json(id)),
        (Entry::Array(id), "zarr") => Some(Named::Zarr(id)),
        (Entry::Group(_), "zarr") => Some(Named::ZarrGroup(Arc::from(stem))),
        _ => None,
    }
}

/// The members of `group` itself: last part of the name, and what it is.
pub(crate) fn members<'a>(catalog: &'a Catalog, group: &'a str) -> Vec<(&'a str, Entry)> {
    let skip = if group.is_empty() { 0 } else { group.len() + 1 };
    let below = catalog.below(group).map(move |(name, entry)| (&name[skip..], entry));
    let own = below.filter(|(part, _)| !part.contains('/'));
    own.map(|(part, entry)| (part, entry.clone())).collect()
}

/// The names in the directory of `group`, with whether each is a directory.
pub(crate) fn list(catalog: &Catalog, group: &str) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    for (part, entry) in members(catalog, group) {
        match entry {
            Entry::Group(_) => {
                names.push((part.to_owned(), true));
                names.push((format!("{part}.zarr"), true));
            }
            Entry::Array(_) => {
                names.push((format!("{part}.npy"), false));
                names.push((format!("{part}.json"), false));
                names.push((format!("{part}.zarr"), true));
            }
        }
    }
    names.retain(|(name, _)| name.len() <= NAME_BYTES_MAX);
    // Invariant 2: of two with the same name the directory comes first.
    names.sort_by(|a, b| (&a.0, !a.1).cmp(&(&b.0, !b.1)));
    names.dedup_by(|a, b| a.0 == b.0);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbigarray::array::Dtype;
    use zbigarray::txn::CatalogChange;
    use zbigarray::{ArrayOptions, CreateOptions, DynArray, Store};

    fn catalog(arrays: &[&str], groups: &[&str]) -> Catalog {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        let dtype = Dtype::parse("u1").unwrap();
        for name in arrays {
            DynArray::create(&transaction, name, &dtype, &[1], &ArrayOptions::new()).unwrap();
        }
        for name in groups {
            transaction.change(CatalogChange::CreateGroup { name: Arc::from(*name) }).unwrap();
        }
        transaction.commit().unwrap();
        store.catalog()
    }

    #[test]
    fn what_is_listed_can_be_looked_up() {
        let long = "n".repeat(252);
        let catalog = catalog(&["a", "g/b", "g/b.npy", "a.zarr", &long], &["a.npy", "g/h", "e"]);
        for group in ["", "g", "g/h", "e"] {
            for (name, is_dir) in list(&catalog, group) {
                let found = find(&catalog, group, OsStr::new(&name)).unwrap();
                let dir = !matches!(found, Named::Npy(_) | Named::Json(_));
                assert_eq!(dir, is_dir, "{group} {name}");
            }
        }
        assert!(list(&catalog, "").iter().all(|(name, _)| name.len() <= 255));
    }

    #[test]
    fn names_that_stand_for_nothing_are_not_found() {
        let catalog = catalog(&["a", "g/b"], &[]);
        for (group, part) in [
            ("", "a"),
            ("", ".npy"),
            ("", "g.npy"),
            ("g", ".zarr"),
            ("", "a.npy.npy"),
            ("", "b.npy"),
        ] {
            assert_eq!(find(&catalog, group, OsStr::new(part)), None, "{group} {part}");
        }
        assert_eq!(array_of("g", OsStr::new("x.npy")).as_deref(), Some("g/x"));
        assert_eq!(array_of("g", OsStr::new(".npy")), None);
        assert_eq!(array_of("g", OsStr::new("x.txt")), None);
    }
}
