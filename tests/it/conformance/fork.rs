//! W-213: what a child process of fork can do to its parent, which is nothing.

#![expect(unsafe_code, reason = "fork and leaving a child at once have no safe form")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::Ix1;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use zbigarray::{CommitError, TransactionError};

use super::{BLOCK, fresh, reopened};

/// Whether `work`, done in a forked child, says so.
fn in_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `work`, which takes no lock that another thread of this test program
    // could hold at this moment (the C library's allocator is made usable by fork itself), and
    // leaves by `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let fine = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
            // SAFETY: `_exit` runs nothing of this process; the parent owns what lies on the disk.
            unsafe { libc::_exit(i32::from(!fine)) }
        }
        ForkResult::Parent { child } => {
            matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0))
        }
    }
}

/// X-05, W-213.
#[test]
fn a_child_has_its_own_copy_of_uncommitted_data_and_reads_the_rest() {
    if crate::engine::lacks("pages that a child could load") {
        return;
    }
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[4 * BLOCK]).unwrap();
    array.set("...", 1).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    let mut view = array.view_mut().unwrap();
    view[0] = 55;
    let last = view.len() - 1;
    // What is loaded when it is touched, a child has as far as it was touched.
    let is_lazy = cfg!(any(feature = "load-all", feature = "encode-all"));
    assert!(!is_lazy || view[last] == 1);
    assert!(in_child(|| {
        let seen = (view[0], view[1], view[last]);
        view[0] = 66;
        view[last] = 77;
        seen == (55, 1, 1) && (view[0], view[last]) == (66, 77)
    }));
    assert_eq!((view[0], view[last]), (55, 1));
    drop(array);
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert_eq!((view[0], view[1], view[last]), (55, 1, 1));
}

///
#[test]
fn a_child_cannot_end_the_transaction_of_its_parent() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[BLOCK]).unwrap().set("...", 55).unwrap();
    let mut transaction = Some(transaction);
    assert!(in_child(|| {
        let refused = transaction.take().map(zbigarray::Transaction::commit);
        matches!(refused, Some(Err(CommitError::NotCommitted(TransactionError::Forked))))
    }));
    assert!(in_child(|| {
        transaction.take().into_iter().for_each(zbigarray::Transaction::abort);
        true
    }));
    let transaction = transaction.unwrap();
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    assert!(array.view().unwrap().iter().all(|&value| value == 55));
    drop(array);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    assert_eq!(reader.open::<u8, Ix1>("a").unwrap().view().unwrap()[9], 55);
}

/// two processes that write through one open store would overwrite each other's records.
#[test]
fn a_child_cannot_write_through_the_store_of_its_parent() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[BLOCK]).unwrap().set("...", 1).unwrap();
    let tid = transaction.commit().unwrap();
    assert!(in_child(|| {
        let begun = matches!(store.begin().map(drop), Err(TransactionError::Forked));
        let tagged = store.tag("child", tid).is_err();
        let packed = store.pack(zbigarray::Keep::Head).is_err();
        begun && tagged && packed && store.checkpoint().is_err()
    }));
    let alone = crate::engine::lacks("second process");
    assert!(in_child(|| {
        // Nobody would know of a snapshot that it took through the store of its parent.
        if !matches!(store.begin_read(), Err(TransactionError::Forked)) {
            return false;
        }
        if alone {
            return true;
        }
        let options = zbigarray::OpenOptions::read_only();
        let store = zbigarray::Store::open(store.path(), options).unwrap();
        let reader = store.begin_read().unwrap();
        let array = reader.open::<u8, Ix1>("a").unwrap();
        array.view().unwrap().iter().all(|&value| value == 1)
    }));
    let transaction = store.begin().unwrap();
    transaction.open::<u8, Ix1>("a").unwrap().set("0", 2).unwrap();
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
    assert_eq!(store.head(), zbigarray::Tid(2));
}

#[test]
fn a_store_can_be_opened_again_while_a_child_still_has_its_files() {
    if crate::engine::lacks("way to take its lock from a child") {
        return;
    }
    let (dir, store) = fresh();
    let (mut waiting, parent_is_done) = std::io::pipe().unwrap();
    // SAFETY: the child waits for the pipe to be closed and leaves by `_exit`.
    let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
        drop(parent_is_done);
        let closed = std::io::Read::read(&mut waiting, &mut [0]).is_ok();
        // SAFETY: as in `in_child`.
        unsafe { libc::_exit(i32::from(!closed)) }
    };
    let store = reopened(&dir, store);
    assert!(in_child(|| {
        // Neither does a child take the place of its parent away.
        let path = store.path().to_owned();
        drop(store);
        let store = zbigarray::Store::open(path, zbigarray::OpenOptions::default()).unwrap();
        store.members().unwrap().len() == 2
    }));
    drop(parent_is_done);
    assert!(matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0)));
}

#[test]
fn a_child_that_outlives_its_parent_keeps_no_lock_of_it() {
    if crate::engine::lacks("way to take its lock from a child") {
        return;
    }
    let (_dir, store) = fresh();
    let (mut waiting, test_is_done) = std::io::pipe().unwrap();
    let path = store.path().to_owned();
    // SAFETY: the child leaves by `_exit`, as its own child does, which waits for the pipe to be
    // closed.
    let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
        drop(test_is_done);
        let other = zbigarray::Store::open(&path, zbigarray::OpenOptions::default()).unwrap();
        let places = other.members().unwrap().len();
        let (mut is_there, there) = std::io::pipe().unwrap();
        // SAFETY: as above.
        if let ForkResult::Child = unsafe { fork() }.unwrap() {
            drop((is_there, there));
            let closed = std::io::Read::read(&mut waiting, &mut [0]).is_ok();
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(!closed)) }
        }
        drop(there);
        // A process has the locks of its parent until it runs: then it lets go of them first.
        let none = std::io::Read::read(&mut is_there, &mut [0]).is_ok_and(|count| count == 0);
        // Left without a drop, as a killed process leaves.
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(!none || places != 2)) }
    };
    assert!(matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0)));
    assert_eq!(store.members().unwrap().len(), 1);
    drop(test_is_done);
}

/// A child has nobody who would load pages. It must not take zeros for them.
#[test]
fn a_child_that_touches_what_was_not_loaded_ends_and_what_was_loaded_stays() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[4 * BLOCK]).unwrap();
    array.set("...", 1).unwrap();
    drop(array);
    transaction.commit().unwrap();
    drop(store);
    let mut options = zbigarray::OpenOptions::read_only();
    options.checked = true;
    let store =
        zbigarray::Store::open(crate::engine::address(&dir.path().join("s")), options).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert_eq!(view[0], 1);
    assert!(in_child(|| view[0] == 1 && view[view.len() / 8] == 1));
    // SAFETY: as in `in_child`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let seen = i32::from(view[view.len() - 1]);
            // SAFETY: as in `in_child`.
            unsafe { libc::_exit(seen) }
        }
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None).unwrap();
            assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGSEGV, _)), "{ended:?}");
        }
    }
    assert_eq!(view[view.len() - 1], 1);
}

/// What a child gives up is its own copy: the parent's pages are loaded as before.
#[test]
fn a_child_that_drops_the_store_leaves_its_parent_the_threads_that_load() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[4 * BLOCK]).unwrap();
    array.set("...", 1).unwrap();
    drop(array);
    transaction.commit().unwrap();
    drop(store);
    let mut options = zbigarray::OpenOptions::read_only();
    options.checked = true;
    let address = crate::engine::address(&dir.path().join("s"));
    let mut store = Some(zbigarray::Store::open(address, options).unwrap());
    let mut reader = store.as_ref().map(|store| store.begin_read().unwrap());
    let ended = {
        let array = reader.as_ref().unwrap().open::<u8, Ix1>("a").unwrap();
        assert_eq!(array.view().unwrap()[0], 1);
        drop(array);
        // SAFETY: as in `in_child`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                drop((reader.take(), store.take()));
                // SAFETY: as in `in_child`.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        }
    };
    assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    let (tell, told) = std::sync::mpsc::channel();
    let reader = reader.unwrap();
    std::thread::spawn(move || {
        let array = reader.open::<u8, Ix1>("a").unwrap();
        let view = array.view().unwrap();
        tell.send(view[view.len() - 1]).unwrap();
    });
    assert_eq!(told.recv_timeout(std::time::Duration::from_secs(60)), Ok(1));
}
