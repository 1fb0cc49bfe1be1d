//! Undoing a commit as one call.

use thiserror::Error;

use super::descriptor::Descriptor;
use super::dynamic::DynArray;
use super::error::ArrayError;
use super::shape;
use crate::txn::{ArrayEntry, CommitError, Store, TransactionError};
use crate::units::Tid;

/// Why a commit was not undone.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UndoError {
    /// Beginning or committing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// An array.
    #[error(transparent)]
    Array(#[from] ArrayError),
}

impl Store {
    /// Undoes commit `tid` by a new commit: pages, shapes, names, attributes and tags it changed
    /// are as they were before it. Returns the new commit.
    ///
    /// No data is copied. Cost O(changes of that commit).
    ///
    /// # Errors
    ///
    /// [`CommitError::Conflict`] if a later commit changed the same pages or keys: undo that one
    /// first. So it is if a later commit wrote to rows that came with that commit.
    /// [`TransactionError::CannotUndo`] if the commit removed an array.
    pub fn undo(&self, tid: Tid) -> Result<Tid, UndoError> {
        let (transaction, undo) = self.begin_undo(tid, nbytes)?;
        for (array, shape) in undo.shapes {
            let Some(name) = transaction.names().name_of(array) else { continue };
            DynArray::open(&transaction, &name)?.resize(&shape)?;
        }
        for (array, segments) in undo.data {
            let Some(name) = transaction.names().name_of(array) else { continue };
            // The handle tells the transaction what holes of the array contain.
            let handle = DynArray::open(&transaction, &name)?;
            transaction.restore(array, &segments).map_err(ArrayError::from)?;
            drop(handle);
        }
        for change in undo.changes {
            transaction.change_any(change).map_err(ArrayError::from)?;
        }
        Ok(transaction.commit_with_note(&format!("undo commit {tid}"))?)
    }
}

/// Bytes of all elements of an array; none if what describes it cannot be read, which opening it
/// reports.
fn nbytes(entry: &ArrayEntry) -> u64 {
    let descriptor = Descriptor::from_json(&entry.descriptor);
    let itemsize = descriptor.map_or(0, |descriptor| descriptor.dtype.itemsize());
    shape::nbytes(&entry.shape, itemsize).unwrap_or(0)
}

impl From<TransactionError> for UndoError {
    fn from(error: TransactionError) -> Self {
        Self::Commit(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::{CatalogChange, CreateOptions, Keep, OpenOptions, Transaction};
    use ndarray::{Ix1, array};
    use std::sync::Arc;

    fn values(transaction: &Transaction) -> Vec<i32> {
        transaction.open::<i32, Ix1>("g/a").unwrap().view().unwrap().to_vec()
    }

    #[test]
    fn undoing_a_commit_gives_data_shape_attributes_and_names_their_state_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        let mut a = transaction.create::<i32, Ix1>("g/a", &[0]).unwrap();
        a.append(&array![1, 2, 3]).unwrap();
        a.dynamic_mut().set_attribute("unit", &"m".into()).unwrap();
        drop(a);
        let first = transaction.commit().unwrap();

        let transaction = store.begin().unwrap();
        let mut a = transaction.open::<i32, Ix1>("g/a").unwrap();
        a.append(&array![4]).unwrap();
        a.set("0", 9).unwrap();
        a.dynamic_mut().set_attribute("unit", &"km".into()).unwrap();
        drop(a);
        drop(transaction.create::<u8, Ix1>("h/i/b", &[3]).unwrap());
        transaction.change(CatalogChange::Tag { tag: Arc::from("v"), tid: Some(first) }).unwrap();
        let second = transaction.commit().unwrap();
        assert_eq!(values(&store.begin_read().unwrap()), [9, 2, 3, 4]);

        let undone = store.undo(second).unwrap();
        let now = store.begin_read().unwrap();
        assert_eq!(values(&now), [1, 2, 3]);
        let unit = Arc::clone(&now.catalog().array("g/a").unwrap().attributes["unit"]);
        assert_eq!(&*unit, "\"m\"");
        assert_eq!(now.catalog().node("h"), None);
        assert_eq!(store.catalog().tag("v"), None);

        let again = store.undo(undone).unwrap_err();
        assert!(again.to_string().contains("removed an array"), "{again}");
        assert_eq!(values(&store.at(second).unwrap()), [9, 2, 3, 4]);
        let report = store.check(true, &mut |_, _| {}).unwrap();
        assert_eq!(report.damage, []);
    }

    #[test]
    fn groups_that_came_with_a_name_go_with_it_but_for_those_that_others_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        drop(transaction.create::<u8, Ix1>("a", &[3]).unwrap());
        transaction.commit().unwrap();
        // `g` comes with `g/c`, `g/h` with the new name of `a`.
        let renamed = |store: &Store| {
            let transaction = store.begin().unwrap();
            drop(transaction.create::<u8, Ix1>("g/c", &[3]).unwrap());
            let (from, to) = (Arc::from("a"), Arc::from("g/h/d"));
            transaction.change(CatalogChange::Move { from, to }).unwrap();
            transaction.commit().unwrap()
        };
        let undone = renamed(&store);
        store.undo(undone).unwrap();
        let names = |store: &Store| -> Vec<String> {
            store.catalog().names().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names(&store), ["a"]);
        let undone = renamed(&store);
        let transaction = store.begin().unwrap();
        drop(transaction.create::<u8, Ix1>("g/h/other", &[3]).unwrap());
        transaction.commit().unwrap();
        store.undo(undone).unwrap();
        assert_eq!(names(&store), ["a", "g", "g/h", "g/h/other"]);
    }

    /// A store whose second commit gives array `a` of 10 elements 3,000.
    fn grown(dir: &std::path::Path) -> (Store, Tid) {
        let store = Store::create(dir.join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        drop(transaction.create::<i32, Ix1>("g/a", &[10]).unwrap());
        transaction.commit().unwrap();
        let transaction = store.begin().unwrap();
        transaction.open::<i32, Ix1>("g/a").unwrap().resize(&[3000]).unwrap();
        let grown = transaction.commit().unwrap();
        (store, grown)
    }

    /// Found by the model: the rows were out of sight but there, and came with the next growth.
    #[test]
    fn who_writes_to_rows_that_an_undoing_takes_away_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (store, grown) = grown(dir.path());
        let writer = store.begin().unwrap();
        writer.open::<i32, Ix1>("g/a").unwrap().set("2999", 7).unwrap();
        let undone = store.undo(grown).unwrap();
        assert!(matches!(writer.commit(), Err(CommitError::Conflict(_))));
        store.undo(undone).unwrap();
        assert_eq!(values(&store.begin_read().unwrap()), [0; 3000]);
    }

    #[test]
    fn rows_to_which_a_later_commit_wrote_are_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (store, grown) = grown(dir.path());
        let writer = store.begin().unwrap();
        writer.open::<i32, Ix1>("g/a").unwrap().set("2999", 7).unwrap();
        writer.commit().unwrap();
        let refused = store.undo(grown);
        assert!(matches!(refused, Err(UndoError::Commit(CommitError::Conflict(_)))));
        assert_eq!(values(&store.begin_read().unwrap())[2999], 7);
    }

    #[test]
    fn groups_that_an_undoing_removed_come_back_by_undoing_that() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        drop(transaction.create::<u8, Ix1>("a", &[3]).unwrap());
        transaction.commit().unwrap();
        let transaction = store.begin().unwrap();
        let (from, to) = (Arc::from("a"), Arc::from("g/h/d"));
        transaction.change(CatalogChange::Move { from, to }).unwrap();
        let owner = crate::txn::Owner::Group(Arc::from("g/h"));
        let (key, value) = (Arc::from("unit"), Some(Arc::from("\"m\"")));
        transaction.change(CatalogChange::Attribute { owner, key, value }).unwrap();
        let renamed = transaction.commit().unwrap();
        let with_names = store.catalog();
        let undone = store.undo(renamed).unwrap();
        assert_eq!(store.catalog().names().count(), 1);
        store.undo(undone).unwrap();
        let again = store.catalog();
        assert_eq!(again.names().collect::<Vec<_>>(), with_names.names().collect::<Vec<_>>());
    }

    #[test]
    fn what_a_later_commit_changed_too_is_not_undone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        drop(transaction.create::<i32, Ix1>("g/a", &[2000]).unwrap());
        transaction.commit().unwrap();
        let set = |index: &str, value| {
            let transaction = store.begin().unwrap();
            transaction.open::<i32, Ix1>("g/a").unwrap().set(index, value).unwrap();
            transaction.commit().unwrap()
        };
        let (first, other_page) = (set("0", 1), set("1999", 2));
        set("1", 3);
        assert!(matches!(store.undo(first), Err(UndoError::Commit(CommitError::Conflict(_)))));
        store.undo(other_page).unwrap();
        assert_eq!(values(&store.begin_read().unwrap())[1999], 0);
        let none = store.undo(Tid(99));
        assert!(matches!(none, Err(UndoError::Commit(CommitError::NotCommitted(_)))));
    }

    /// Another process packs before the undoing is committed, and gives a part of an extent that
    /// nobody needs to others; of the same extent another part comes back.
    #[test]
    fn undoing_names_only_what_is_left_of_an_extent() {
        const BLOCK: usize = 2 << 20;
        for is_taken in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let one = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
            let other = Store::open(dir.path().join("s"), OpenOptions::default()).unwrap();
            let write = |name: &str, from: usize, values: &[u8]| {
                let transaction = other.begin().unwrap();
                let mut array = match transaction.open::<u8, Ix1>(name) {
                    Ok(array) => array,
                    Err(_) => transaction.create(name, &[values.len() as u64]).unwrap(),
                };
                let rows = format!("{from}:{}", from + values.len());
                array.assign(rows.as_str(), &ndarray::arr1(values)).unwrap();
                drop(array);
                transaction.commit().unwrap()
            };
            write("a", 0, &vec![1; 3 * BLOCK]);
            write("a", BLOCK, &vec![2; BLOCK]);
            let changed = write("a", 5, &[3]);
            let (transaction, undo) = one.begin_undo(changed, nbytes).unwrap();
            let handle = DynArray::open(&transaction, "a").unwrap();
            transaction.restore(undo.data[0].0, &undo.data[0].1).unwrap();
            drop(handle);
            other.pack(Keep::Head).unwrap();
            if is_taken {
                write("b", 0, &vec![4; BLOCK]);
            }
            transaction.commit().unwrap();
            let report = one.check(true, &mut |_, _| {}).unwrap();
            assert!(report.damage.is_empty(), "{:?}", report.damage);
            for store in [one, other] {
                let reader = store.begin_read().unwrap();
                let array = reader.open::<u8, Ix1>("a").unwrap();
                let view = array.view().unwrap();
                assert_eq!([view[5], view[BLOCK], view[2 * BLOCK]], [1, 2, 1]);
            }
        }
    }
}
