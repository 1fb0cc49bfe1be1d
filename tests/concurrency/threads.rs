//! What the threads do, and what must hold at once; what must hold in the end is the oracle's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ndarray::Ix1;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use zbigarray::array::UndoError;
use zbigarray::storage::backend::Backend;
use zbigarray::storage::backend::simulated::{Simulated, Survival};
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::storage::words::{PrivateWords, SharedWords};
use zbigarray::txn::StorageError;
use zbigarray::{CommitError, Keep, Store, Tid, Transaction, TransactionError};

use crate::oracle::{Content, Effect, History, PAGES};

/// Elements of a page.
const PER_PAGE: u64 = 512;
/// What each thread does before it ends.
const STEPS: usize = 3;

/// Limits so small that logs roll and checkpoints are due within one schedule.
fn limits() -> LocalOptions {
    LocalOptions {
        block_bytes: 64 << 10,
        log_roll_bytes: 64 << 10,
        data_file_pages: 1 << 10,
        checkpoint_bytes_min: 24 << 10,
        ..LocalOptions::default()
    }
}

thread_local! {
    /// The words of the schedule that runs: shuttle runs all of its threads in one.
    static WORDS: RefCell<Option<Arc<PrivateWords>>> = const { RefCell::new(None) };
}

/// Words that all stores on the disk of this schedule share, as processes do.
fn shared_words(_: Arc<OwnedFd>, count: usize, _: bool) -> io::Result<Arc<dyn SharedWords>> {
    WORDS.with_borrow_mut(|words| {
        Ok(Arc::clone(words.get_or_insert_with(|| Arc::new(PrivateWords::new(count)))) as _)
    })
}

/// Limits of a store that several processes have open.
fn shared_limits() -> LocalOptions {
    // A schedule may let a thread wait for all others.
    LocalOptions { map_words: shared_words, commit_wait: Duration::from_hours(1), ..limits() }
}

/// A store on a simulated disk and what its threads tell.
#[derive(Clone)]
pub(crate) struct World {
    disk: Simulated,
    store: Store,
    created: Tid,
    // Of the standard library: telling is no step of the schedule, and is done with nothing else
    // on the same line that could be one.
    history: Arc<Mutex<History>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&limits())
    }

    /// A store that several processes can open.
    pub(crate) fn shared() -> Self {
        Self::with(&shared_limits())
    }

    fn with(limits: &LocalOptions) -> Self {
        WORDS.set(None);
        let disk = Simulated::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::create(&backend, limits).unwrap();
        let store = Store::open_on(&backend, Mode::ReadWrite, limits).unwrap();
        let transaction = store.begin().unwrap();
        drop(transaction.create::<i64, Ix1>("a", &[PAGES as u64 * PER_PAGE]).unwrap());
        let created = transaction.commit().unwrap();
        Self { disk, store, created, history: Arc::default() }
    }

    fn is_shared(&self) -> bool {
        WORDS.with_borrow(Option::is_some)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    /// Lets one thread do each of `parts`, and then looks at what is left.
    pub(crate) fn run(self, parts: &[fn(&World)]) {
        let start = |&part: &fn(&World)| {
            let world = self.clone();
            thread::spawn(move || part(&world))
        };
        let threads: Vec<_> = parts.iter().map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.look_at_the_end();
    }

    /// The same with a store of its own for each thread, as a process has one.
    pub(crate) fn run_apart(self, parts: &[fn(&World)]) {
        let start = |&part: &fn(&World)| {
            let world = self.clone();
            thread::spawn(move || {
                let store = open_with(&world.disk, Mode::ReadWrite, &shared_limits());
                part(&World { store, ..world });
            })
        };
        let threads: Vec<_> = parts.iter().map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.look_at_the_end();
    }

    fn look_at_the_end(self) {
        let states = self.history().explain(self.created);
        let head = self.store.head();
        assert_eq!(states.keys().next_back(), Some(&head), "the head is the last commit");
        for tid in self.store.oldest().0.max(self.created.0)..=head.0 {
            match self.store.at(Tid(tid)) {
                Ok(then) => assert_eq!(content(&then), states[&Tid(tid)]),
                // Another process packed, and nobody committed since.
                Err(TransactionError::Storage(StorageError::Forgotten { oldest, .. }))
                    if self.is_shared() && tid < oldest.0 => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(content(&self.store.begin().unwrap()), states[&head]);
        assert_eq!(self.store.check(true, &mut |_, _| {}).unwrap().damage, []);
        let usage = self.store.usage().unwrap();
        let free = usage.data_bytes - usage.data_used_bytes;
        assert_eq!(usage.data_free_bytes, free, "what nobody commits or looks at is free");
        let Self { disk, store, .. } = self;
        drop(store);
        let reopened = open(&disk, Mode::ReadWrite);
        assert_eq!(content(&reopened.begin_read().unwrap()), states[&head]);
    }

    /// A snapshot is not older than what somebody had acknowledged before.
    fn begin<T>(&self, begin: impl FnOnce(&Store) -> T, base: impl FnOnce(&T) -> Tid) -> T {
        let acknowledged = self.history().acknowledged();
        let transaction = begin(&self.store);
        assert!(base(&transaction) >= acknowledged, "a snapshot older than {acknowledged}");
        transaction
    }

    fn begin_writing(&self) -> Transaction {
        self.begin(|store| store.begin().unwrap(), Transaction::base)
    }

    fn looks_at(&self, transaction: &Transaction) {
        let content = content(transaction);
        self.history().saw(transaction.base(), content);
    }

    /// What a power cut now would leave if it took whatever it may.
    fn survives(&self, tid: Tid) {
        let left = self.disk.crash_image(self.disk.changes_count(), |_, _| Survival::Dropped);
        let left = open(&left.unwrap(), Mode::ReadWrite);
        let head = left.head();
        assert!(head >= tid, "{tid} was given out, and {head} is durable");
        let damage = left.check(true, &mut |_, _| {}).unwrap().damage;
        assert_eq!(damage, [], "{tid} was given out, and its data are not durable");
    }
}

fn open(disk: &Simulated, mode: Mode) -> Store {
    open_with(disk, mode, &limits())
}

fn open_with(disk: &Simulated, mode: Mode, limits: &LocalOptions) -> Store {
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    Store::open_on(&backend, mode, limits).unwrap()
}

fn one_in(n: u32) -> bool {
    thread_rng().gen_range(0..n) == 0
}

/// What every page holds; a page is of one writer.
fn content(transaction: &Transaction) -> Content {
    let array = transaction.open::<i64, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    let mut content = [0; PAGES];
    for (page, value) in content.iter_mut().enumerate() {
        let elements = view.as_slice().unwrap().chunks(512).nth(page).unwrap();
        *value = elements[0];
        let torn = elements.iter().find(|&element| element != value);
        assert_eq!(torn, None, "page {page} of commit {} is torn", transaction.base());
    }
    content
}

/// Writes fresh values over whole pages.
fn write(world: &World, transaction: &Transaction, pages: &[usize]) -> BTreeMap<usize, i64> {
    let mut array = transaction.open::<i64, Ix1>("a").unwrap();
    let mut values = BTreeMap::new();
    for &page in pages {
        let value = world.history().fresh();
        let rows = page as u64 * PER_PAGE..(page as u64 + 1) * PER_PAGE;
        array.rows_mut(rows).unwrap().fill(value);
        values.insert(page, value);
    }
    values
}

fn some_pages() -> Vec<usize> {
    // Few of the pages, so that threads meet.
    (0..thread_rng().gen_range(1..4)).map(|_| thread_rng().gen_range(0..6)).collect()
}

/// Commits what gives pages `values`, and tells.
fn commit(world: &World, transaction: Transaction, values: BTreeMap<usize, i64>) {
    let base = transaction.base();
    match transaction.commit() {
        Ok(tid) => {
            world.history().committed(tid, base, Effect::Pages(values));
            if one_in(4) {
                world.survives(tid);
            }
        }
        Err(CommitError::Conflict(_)) => {
            let pages: BTreeSet<usize> = values.keys().copied().collect();
            world.history().refused(base, pages);
        }
        Err(error) => panic!("{error}"),
    }
}

/// Small transactions: inside the record, or with a savepoint in data files.
pub(crate) fn writer(world: &World) {
    for _ in 0..STEPS {
        let mut transaction = world.begin_writing();
        world.looks_at(&transaction);
        let mut values = write(world, &transaction, &some_pages());
        if one_in(2) {
            let savepoint = transaction.savepoint().unwrap();
            let later = write(world, &transaction, &some_pages());
            if one_in(2) {
                transaction.rollback(savepoint).unwrap();
            } else {
                values.extend(later);
            }
        }
        let now = content(&transaction);
        assert!(values.iter().all(|(&page, &value)| now[page] == value), "it sees what it wrote");
        match one_in(4) {
            true => transaction.abort(),
            false => commit(world, transaction, values),
        }
    }
}

/// Transactions whose data do not travel in the record.
pub(crate) fn large_writer(world: &World) {
    for _ in 0..2 {
        let transaction = world.begin_writing();
        world.looks_at(&transaction);
        let first = usize::from(one_in(2));
        let values = write(world, &transaction, &(first..PAGES).collect::<Vec<_>>());
        match one_in(5) {
            true => transaction.abort(),
            false => commit(world, transaction, values),
        }
    }
}

/// Commits and then forgets everything before.
pub(crate) fn packer(world: &World) {
    for _ in 0..STEPS {
        let mut transaction = world.begin_writing();
        let values = write(world, &transaction, &some_pages());
        if one_in(2) {
            transaction.savepoint().unwrap();
        }
        commit(world, transaction, values);
        world.store.pack(Keep::Head).unwrap();
    }
}

/// Begins and ends, now and then after writing to data files.
pub(crate) fn beginner(world: &World) {
    for _ in 0..STEPS {
        let mut transaction = world.begin_writing();
        if one_in(2) {
            write(world, &transaction, &some_pages());
            transaction.savepoint().unwrap();
        }
        transaction.abort();
    }
}

/// Looks at the head and at old commits, twice each.
pub(crate) fn reader(world: &World) {
    for _ in 0..STEPS {
        let transaction = match one_in(2) {
            true => world.begin(|store| store.begin_read().unwrap(), Transaction::base),
            false => {
                let oldest = world.store.oldest().max(world.created);
                let tid = Tid(thread_rng().gen_range(oldest.0..=world.store.head().0));
                match world.store.at(tid) {
                    Ok(transaction) => transaction,
                    Err(TransactionError::Storage(StorageError::Forgotten { .. })) => {
                        let forgotten = tid < world.store.oldest();
                        // Another process may have said that it packs, and not yet done it.
                        assert!(forgotten || world.is_shared(), "{tid} was not forgotten");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        if one_in(8) {
            world.survives(transaction.base());
        }
        world.looks_at(&transaction);
        thread::yield_now();
        world.looks_at(&transaction);
    }
}

/// Pack, checkpoint, tag, undo, check, and questions about the history.
pub(crate) fn housekeeping(world: &World) {
    let store = &world.store;
    for _ in 0..2 * STEPS {
        let oldest = store.oldest();
        let then = Tid(thread_rng().gen_range(oldest.0..=store.head().0));
        match thread_rng().gen_range(0..8) {
            0 | 1 => {
                let summary = store.pack(Keep::Head).unwrap();
                assert!(summary.oldest >= oldest);
            }
            2 => drop(store.pack(Keep::From(then)).unwrap()),
            3 => store.checkpoint().unwrap(),
            4 => tag(world, then),
            5 => undo(world, then),
            6 => assert_eq!(store.check(true, &mut |_, _| {}).unwrap().damage, []),
            _ => questions(store),
        }
    }
}

fn tag(world: &World, then: Tid) {
    // Only this thread makes and tags, so its own commits are the only ones between.
    let base = Tid(0);
    match world.store.tag("t", then) {
        Ok(tid) => world.history().committed(tid, base, Effect::Names),
        Err(CommitError::NotCommitted(TransactionError::Storage(error))) => {
            assert!(matches!(error, StorageError::Forgotten { .. }), "{error}");
        }
        Err(error) => panic!("{error}"),
    }
}

fn undo(world: &World, then: Tid) {
    if then <= world.created {
        return;
    }
    match world.store.undo(then) {
        // Whoever changed the same since the undone commit was in its way, too.
        Ok(tid) => world.history().committed(tid, then, Effect::Undo(then)),
        Err(UndoError::Commit(CommitError::Conflict(_))) => {}
        Err(UndoError::Commit(CommitError::NotCommitted(TransactionError::Storage(
            StorageError::Forgotten { .. } | StorageError::Packed { .. },
        )))) => {}
        Err(error) => panic!("{error}"),
    }
}

fn questions(store: &Store) {
    store.usage().unwrap();
    let (oldest, head) = (store.oldest(), store.head());
    match store.records(oldest, head) {
        Ok(records) => assert_eq!(records.len() as u64, head.0 - oldest.0),
        Err(StorageError::Forgotten { .. }) => assert!(oldest < store.oldest()),
        Err(error) => panic!("{error}"),
    }
    assert!(store.newest_at(i64::MAX).unwrap() >= head);
}

/// One process takes a snapshot, of commit `old` or of the newest, while another packs, perhaps
/// after a commit: either is told of the other, so that what is looked at is kept.
pub(crate) fn a_snapshot_against_a_pack(old: Option<Tid>, commits: bool) {
    let world = World::shared();
    let overwrite = |world: &World| {
        let transaction = world.begin_writing();
        let values = write(world, &transaction, &(0..PAGES).collect::<Vec<_>>());
        let base = transaction.base();
        world.history().committed(transaction.commit().unwrap(), base, Effect::Pages(values));
    };
    overwrite(&world);
    overwrite(&world);
    let other = open_with(&world.disk, Mode::ReadWrite, &shared_limits());
    let looks = thread::spawn(move || {
        let snapshot = match old {
            Some(tid) => other.at(tid),
            None => other.begin_read(),
        };
        snapshot.map(|snapshot| (snapshot, other))
    });
    let of_packer = world.clone();
    let packs = thread::spawn(move || {
        if commits {
            overwrite(&of_packer);
        }
        of_packer.store.pack(Keep::Head).unwrap().oldest
    });
    let (oldest, looked) = (packs.join().unwrap(), looks.join().unwrap());
    match looked {
        Ok((snapshot, _other)) => {
            assert!(oldest <= snapshot.base(), "{} was given, {oldest} kept", snapshot.base());
            overwrite(&world);
            world.looks_at(&snapshot);
        }
        Err(TransactionError::Storage(StorageError::Forgotten { .. })) => {}
        Err(error) => panic!("{error}"),
    }
    world.history().explain(world.created);
}
