//! An open store: the engine, the newest state, and the sessions that wait for the next begin.
//!
//! # Lock order
//!
//! `commit_lock` < `head` < `idle` < locks of the engine. A transaction's own lock comes before
//! all of them.
//!
//! # Invariants
//!
//! 1. `head` is the state after a durable record: the newest that this process knows of.
//! 2. The commit lock holds the state after the last record that this process read, durable or not.
//!    Who has it and caught up knows the end of the log.
//! 3. A state is used for what comes after it only in the generation of log files it was loaded in.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::checked::CheckedUnits;
use super::error::{CommitError, TransactionError};
use super::loader::Loader;
use super::options::{HELD_BYTES_MAX, OpenOptions, memory_bytes};
use super::session::{Context, Session};
use super::snapshot::{Pin, Pins};
use super::transaction::{Inner, Transaction};
use crate::storage::StorageError;
use crate::storage::backend::Backend;
use crate::storage::catalog::{Catalog, CatalogChange, check_name};
use crate::storage::check::Report;
use crate::storage::engine::{Engine, Member, Usage};
use crate::storage::local::{LocalEngine, LocalOptions, Mode};
use crate::storage::record::Record;
use crate::storage::state::State;
#[cfg(not(any(miri, shuttle)))]
use crate::storage::words::SharedWords;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::units::Tid;
use crate::vm::VmaBudget;

/// Most sessions kept for the next begin.
const IDLE_MAX: usize = 4;
/// Packs of other processes that a begin may meet.
const PACKED_MAX: u32 = 100;
/// An idle session further behind than this is not worth keeping.
const BEHIND_MAX: u64 = 4096;

/// A state, and the generation of log files in which it was loaded.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) state: Arc<State>,
    pub(super) generation: u64,
}

/// What all transactions of an open store share.
pub(super) struct Shared {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) pins: Pins,
    pub(super) commit_lock: Mutex<Head>,
    // Which opened the store; a child of fork would write into the same files at the same places.
    process: u32,
    pub(super) path: PathBuf,
    uuid: Uuid,
    pub(super) block_bytes: u64,
    head: RwLock<Head>,
    // With whether they were mapped for writing.
    idle: Mutex<Vec<(Session, bool)>>,
    budget: Arc<VmaBudget>,
    pub(super) held_bytes_max: AtomicU64,
    #[cfg(not(miri))]
    _not_in_child: Option<crate::vm::NotInChild>,
    pub(super) checked: Arc<CheckedUnits>,
    pub(super) loader: Arc<Loader>,
    // Whether everything is loaded, and checked, when it is first touched.
    pub(super) loads_all: AtomicBool,
}

/// An open store. Cheap to clone; all clones are the same store.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use zbigarray::{Store, CreateOptions};
/// let store = Store::create(dir.path().join("s.zba"), CreateOptions::default())?;
/// let transaction = store.begin()?;
/// transaction.commit()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

impl Store {
    /// Opens a store of the local engine on any back end, with limits of the caller's choice. For
    /// rigs that test what a disk can do.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_on(
        backend: &Arc<dyn Backend>,
        mode: Mode,
        options: &LocalOptions,
    ) -> Result<Self, StorageError> {
        // Under a scheduler of threads a test says who shares words with whom.
        let map_words = if cfg!(shuttle) { options.map_words } else { map_words };
        let options = LocalOptions { map_words, ..options.clone() };
        let (engine, state) = LocalEngine::open(backend, mode, &options)?;
        let (uuid, block_bytes) = (engine.format().uuid, engine.format().block_bytes);
        let path = PathBuf::from(backend.location());
        Ok(Self::over(Arc::new(engine), state, path, (uuid, block_bytes)))
    }

    /// A store over an open engine, of which `state` is the newest.
    pub(super) fn over(
        engine: Arc<dyn Engine>,
        state: State,
        path: PathBuf,
        (uuid, block_bytes): (Uuid, u64),
    ) -> Self {
        let head = Head { state: Arc::new(state), generation: engine.generation() };
        let checked = Arc::new(CheckedUnits::default());
        let shared = Shared {
            #[cfg(not(miri))]
            _not_in_child: engine.lock_file().map(crate::vm::NotInChild::new),
            pins: Pins::new(Arc::clone(&engine)),
            commit_lock: Mutex::new(head.clone()),
            process: std::process::id(),
            path,
            uuid,
            block_bytes,
            head: RwLock::new(head),
            idle: Mutex::new(Vec::new()),
            budget: Arc::clone(VmaBudget::process()),
            held_bytes_max: AtomicU64::new(HELD_BYTES_MAX),
            loader: Loader::new(&engine, &checked, memory_bytes() / 4),
            checked,
            engine,
            loads_all: AtomicBool::new(cfg!(feature = "load-all")),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins a transaction on the newest commit.
    ///
    /// Cost O(pages that commits changed since the last transaction ended).
    ///
    /// # Errors
    ///
    /// [`StorageError::ReadOnly`] if the store was opened so, [`StorageError::Poisoned`] after a
    /// failed write, [`TransactionError::Forked`] in a child of the process that opened it.
    pub fn begin(&self) -> Result<Transaction, TransactionError> {
        self.shared.require_owner()?;
        if !self.shared.engine.is_writable() {
            return Err(StorageError::ReadOnly.into());
        }
        if self.shared.engine.is_poisoned() {
            return Err(StorageError::Poisoned.into());
        }
        self.shared.unpinned();
        self.begin_on_head(true)
    }

    /// Begins a transaction on the newest commit that only reads.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Storage`] if what other processes committed cannot be read.
    pub fn begin_read(&self) -> Result<Transaction, TransactionError> {
        self.begin_on_head(false)
    }

    fn begin_on_head(&self, writes: bool) -> Result<Transaction, TransactionError> {
        let shared = &self.shared;
        let pin = shared.pin_head(writes)?;
        let state = Arc::clone(pin.state());
        let idle = shared.take_idle(writes, state.tid);
        let session = idle.and_then(|mut session| {
            let base = session.state.tid;
            let records = match base == state.tid {
                true => Vec::new(),
                false => shared.engine.records(base, state.tid).ok()?,
            };
            let cx = shared.context(writes);
            session.generation = pin.generation();
            session.advance(&cx, Arc::clone(&state), &records).ok().map(|()| session)
        });
        let session = session.unwrap_or_else(|| Session::new(state, pin.generation()));
        Ok(Transaction::new(Arc::clone(shared), pin, session, writes))
    }

    /// Begins a transaction that only reads the store as of commit `tid`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Forgotten`] if that was packed away, [`StorageError::NoCommit`] if it has
    /// not happened yet.
    pub fn at(&self, tid: Tid) -> Result<Transaction, TransactionError> {
        let pin = self.shared.load_and_pin(tid)?;
        let session = Session::new(Arc::clone(pin.state()), pin.generation());
        Ok(Transaction::new(Arc::clone(&self.shared), pin, session, false))
    }

    /// The newest commit, of whatever process. If the log cannot be read, the newest one known.
    #[must_use]
    pub fn head(&self) -> Tid {
        let _ = self.shared.refresh();
        self.shared.head.read().state.tid
    }

    /// The oldest commit that can still be read, whichever process packed.
    #[must_use]
    pub fn oldest(&self) -> Tid {
        // What others forgot we may not have met in the log yet. What they say is not trusted
        // beyond the head.
        let head = self.head();
        self.shared.engine.oldest().max(self.shared.engine.floor().min(head))
    }

    /// Names and metadata as of the newest commit.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        let _ = self.shared.refresh();
        self.shared.head.read().state.catalog.clone()
    }

    /// The processes that have the store open, this one too: what they look at and since when.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the locks cannot be examined.
    pub fn members(&self) -> Result<Vec<Member>, StorageError> {
        self.shared.engine.members()
    }

    /// Bytes of data files that are in use only because somebody looks at the snapshot of commit
    /// `tid`: what a pack that keeps the newest commit would free without it. Cost O(index).
    ///
    /// # Errors
    ///
    /// [`StorageError::Forgotten`] if the snapshot was packed away, [`StorageError::NoCommit`] if
    /// there is no such commit yet.
    pub fn held_by(&self, tid: Tid) -> Result<u64, TransactionError> {
        let pin = self.shared.load_and_pin(tid)?;
        let head = self.shared.known_head().state;
        Ok(self.shared.engine.held_bytes(pin.state(), &head)?)
    }

    /// Waits for a commit after `after`, of whatever process, at most `timeout`, and returns the
    /// newest one: `after` or an older one if the time was over first.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if the log cannot be read.
    pub fn wait(&self, after: Tid, timeout: Duration) -> Result<Tid, StorageError> {
        let begin = Instant::now();
        loop {
            let newest = self.shared.engine.newest()?;
            let left = timeout.saturating_sub(begin.elapsed());
            if newest > after || left.is_zero() {
                return Ok(newest);
            }
            self.shared.engine.wait(newest, left.min(LOOK_AGAIN));
        }
    }

    /// The commits after `after`, of whatever process, one after the other, for ever: the iterator
    /// waits for those that have not happened yet. Which arrays changed and where says each
    /// [`Record`], by blocks [`Record::blocks`].
    ///
    /// An item is an error if the commit was packed away before it was read; the next item is then
    /// the oldest commit that is left.
    #[must_use]
    pub fn follow(&self, after: Tid) -> Follow {
        Follow { store: self.clone(), after, read: VecDeque::new() }
    }

    /// What opens this store: its directory, with the engine before it if that is not the local
    /// one.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// What tells this store from every other, also after it was moved.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.shared.uuid
    }

    /// Bytes of a block of arrays that do not choose.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.shared.block_bytes
    }

    /// The commits after `after` up to `until`, in order.
    ///
    /// # Errors
    ///
    /// [`StorageError::Forgotten`] if they were packed away.
    pub fn records(&self, after: Tid, until: Tid) -> Result<Vec<Arc<Record>>, StorageError> {
        self.shared.refresh()?;
        self.shared.engine.records(after, until)
    }

    /// The newest commit at or before a time in nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`TransactionError::NoCommitThen`] if all kept ones are later.
    pub fn newest_at(&self, time_ns: i64) -> Result<Tid, TransactionError> {
        self.shared.refresh()?;
        let _no_pack = self.shared.commit_lock.lock();
        self.shared.newest_at(time_ns)?.ok_or(TransactionError::NoCommitThen)
    }

    /// Gives commit `tid` a name, as a commit of its own.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; [`StorageError::NoCommit`] or [`StorageError::Forgotten`] within it if
    /// there is no such commit.
    pub fn tag(&self, tag: &str, tid: Tid) -> Result<Tid, CommitError> {
        let (head, oldest) = (self.head(), self.oldest());
        if tid > head {
            return Err(TransactionError::from(StorageError::NoCommit { tid, head }).into());
        }
        if tid < oldest {
            return Err(TransactionError::from(StorageError::Forgotten { tid, oldest }).into());
        }
        let transaction = self.begin()?;
        check_name(tag).map_err(TransactionError::from)?;
        transaction.change(CatalogChange::Tag { tag: Arc::from(tag), tid: Some(tid) })?;
        transaction.commit_with_note(&format!("tag {tag}"))
    }

    /// Reads and checks everything on the disk: metadata and, if `data`, all data. `progress` is
    /// told the bytes of data checked and to be checked.
    ///
    /// # Errors
    ///
    /// [`StorageError`] only if checking is impossible; damage is in the report.
    pub fn check(
        &self,
        data: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Report, StorageError> {
        let _commit_lock = self.shared.commit_lock.lock();
        let engine = &self.shared.engine;
        // Nobody appends or packs meanwhile; who may not write cannot keep others from it.
        let _lock = engine.is_writable().then(|| engine.lock()).transpose()?;
        match _lock.is_some() && !engine.is_poisoned() {
            true => engine.catch_up().map(drop)?,
            false => engine.newest().map(drop)?,
        }
        engine.check(data, progress)
    }

    /// Bytes on the disk.
    ///
    /// # Errors
    ///
    /// [`StorageError`] if files cannot be examined.
    pub fn usage(&self) -> Result<Usage, StorageError> {
        self.shared.engine.usage()
    }

    /// Writes a checkpoint, so that the next open has no log to read. Done without asking when
    /// enough was logged.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the store is as good as before.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        self.shared.require_owner().map_err(|_| StorageError::Forked)?;
        let _commit_lock = self.shared.commit_lock.lock();
        self.shared.checkpoint()
    }
}

/// Most commits that [`Follow`] reads at once.
const FOLLOWED_MAX: u64 = 256;
/// A wake-up that got lost, because somebody wrote nonsense where it comes from, costs no more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The commits of a store as they happen; see [`Store::follow`].
pub struct Follow {
    store: Store,
    after: Tid,
    read: VecDeque<Arc<Record>>,
}

impl Follow {
    /// The next commit if it happens within `timeout`.
    ///
    /// # Errors
    ///
    /// As the items of the iterator.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Arc<Record>>, StorageError> {
        if self.read.is_empty() {
            let newest = self.store.wait(self.after, timeout)?;
            if newest <= self.after {
                return Ok(None);
            }
            let until = newest.min(Tid(self.after.0.saturating_add(FOLLOWED_MAX)));
            match self.store.records(self.after, until) {
                Ok(records) => self.read.extend(records),
                Err(error) => {
                    self.after = self.after.max(self.store.oldest());
                    return Err(error);
                }
            }
        }
        let next = self.read.pop_front();
        self.after = next.as_ref().map_or(self.after, |record| record.tid);
        Ok(next)
    }
}

impl Iterator for Follow {
    type Item = Result<Arc<Record>, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.next_within(LOOK_AGAIN).transpose() {
                return Some(item);
            }
        }
    }
}

impl Shared {
    pub(super) fn adopt(&self, options: &OpenOptions) {
        self.held_bytes_max.store(options.held_bytes_max, Ordering::Relaxed);
        self.loads_all.fetch_or(options.checked, Ordering::Relaxed);
        self.loader.cache_bytes_max.store(options.cache_bytes_max, Ordering::Relaxed);
    }

    /// Refuses what only the process that opened the store may do.
    pub(super) fn require_owner(&self) -> Result<(), TransactionError> {
        if std::process::id() == self.process { Ok(()) } else { Err(TransactionError::Forked) }
    }

    pub(super) fn context(&self, writes: bool) -> Context<'_> {
        Context { engine: &*self.engine, shared: self, writes }
    }

    /// Brings the head up to the newest durable commit, of whatever process. Costs a few loads if
    /// it is there already.
    pub(super) fn refresh(&self) -> Result<(), StorageError> {
        let newest = self.engine.newest()?;
        if self.head.read().is_at(newest, &*self.engine) {
            return Ok(());
        }
        let mut head = self.head.write();
        let generation = head.generation;
        head.move_on(newest, &*self.engine)?;
        if head.generation != generation {
            // They map files that go.
            self.idle.lock().clear();
        }
        Ok(())
    }

    /// Pins the newest durable commit.
    fn pin_head(&self, writes: bool) -> Result<Pin, TransactionError> {
        // What a child of fork pins nobody would see.
        self.require_owner()?;
        let mut packed = 0;
        loop {
            self.refresh()?;
            let head = self.head.read();
            let pin = self.pins.pin(Arc::clone(&head.state), head.generation, writes);
            // Another process may have packed it away before it saw the pin. Nobody packs the
            // newest commit away again and again: then it is nonsense that somebody wrote.
            if self.engine.floor() <= pin.state().tid || packed == PACKED_MAX {
                return Ok(pin);
            }
            packed += 1;
        }
    }

    /// Pins the state as of commit `tid`.
    pub(super) fn load_and_pin(&self, tid: Tid) -> Result<Pin, TransactionError> {
        self.require_owner()?;
        self.refresh()?;
        let _no_pack = self.commit_lock.lock();
        let head = self.head.read().clone();
        if tid > head.state.tid {
            return Err(StorageError::NoCommit { tid, head: head.state.tid }.into());
        }
        let hold = self.pins.hold(tid, head.generation);
        if hold.tid() < self.engine.floor() {
            return Err(StorageError::Forgotten { tid, oldest: self.engine.floor() }.into());
        }
        let state = match tid == head.state.tid {
            true => head.state,
            false => Arc::new(self.engine.load(tid)?),
        };
        Ok(self.pins.pin(state, head.generation, false))
    }

    /// The kernel mappings this process may have.
    pub(super) fn budget(&self) -> &Arc<VmaBudget> {
        &self.budget
    }

    /// The newest commit that this process knows of.
    pub(super) fn known_head(&self) -> Head {
        self.head.read().clone()
    }

    /// Brings `tip`, what the commit lock holds, up to the end of the log. The caller holds the
    /// locks of this process and of all processes.
    pub(super) fn catch_up(&self, tip: &mut Head) -> Result<(), StorageError> {
        let newest = self.engine.catch_up()?;
        let head = self.known_head();
        if head.generation == self.engine.generation() && head.state.tid > tip.state.tid {
            *tip = head;
        }
        tip.move_on(newest, &*self.engine)
    }

    /// Makes `next`, which is durable, the head, unless a newer one is.
    pub(super) fn publish(&self, next: Head) {
        let mut head = self.head.write();
        if head.generation == next.generation && head.state.tid < next.state.tid {
            *head = next;
            let newest = head.state.tid;
            let far =
                |session: &Session| newest.0.saturating_sub(session.state.tid.0) >= BEHIND_MAX;
            self.idle.lock().retain(|(session, _)| !far(session));
        }
    }

    pub(super) fn drop_idle(&self) {
        self.idle.lock().clear();
    }

    /// A session that can be brought to commit `tid`: one that shows a later commit, which another
    /// thread made meanwhile, cannot be brought back.
    fn take_idle(&self, writes: bool, tid: Tid) -> Option<Session> {
        let mut idle = self.idle.lock();
        let at = idle.iter().rposition(|(session, for_writing)| {
            *for_writing == writes && session.state.tid <= tid
        })?;
        Some(idle.swap_remove(at).0)
    }

    /// Ends a transaction: its private changes are gone, its session waits for the next one.
    pub(super) fn end(&self, inner: Inner, generation: u64, cx: &Context<'_>) {
        let Inner { mut session, set, .. } = inner;
        let clean = session.discard(cx).is_ok();
        set.allocated.into_iter().for_each(|(place, pages)| self.engine.free(place, pages));
        let head = self.head.read();
        let (at, newest) = (session.state.tid, head.state.tid);
        let current = generation == head.generation && at <= newest && newest.0 - at.0 < BEHIND_MAX;
        let mut idle = self.idle.lock();
        if clean && current && idle.len() < IDLE_MAX && !session.arrays.is_empty() {
            idle.push((session, cx.writes));
        }
    }

    /// The caller holds the commit lock of this process.
    pub(super) fn checkpoint(&self) -> Result<(), StorageError> {
        self.refresh()?;
        let before = self.known_head();
        let state = self.engine.checkpoint(&before.state)?;
        let mut head = self.head.write();
        if head.generation == before.generation
            && head.generation == self.engine.generation()
            && head.state.tid == state.tid
        {
            head.state = Arc::new(state);
        }
        Ok(())
    }

    /// Writes a checkpoint if enough was logged since the last one.
    pub(super) fn checkpoint_if_due(&self) {
        if self.engine.wants_checkpoint()
            && let Some(_commit_lock) = self.commit_lock.try_lock()
        {
            // A checkpoint is a copy: the commit that came before it stands whatever happens, and
            // a failed write has poisoned the engine, so the next call reports it.
            let _ = self.checkpoint();
        }
    }

    /// The caller holds the commit lock: a pack would forget the oldest commit while it is read.
    pub(super) fn newest_at(&self, time_ns: i64) -> Result<Option<Tid>, StorageError> {
        let oldest = self.engine.oldest();
        let head = Arc::clone(&self.head.read().state);
        let first = self.engine.load(oldest)?;
        let records = self.engine.records(oldest, head.tid)?;
        let times = records.iter().map(|record| (record.time_ns, record.tid));
        let all = std::iter::once((first.time_ns, first.tid)).chain(times);
        Ok(all.take_while(|&(time, _)| time <= time_ns).last().map(|(_, tid)| tid))
    }

    /// Runs `step` while nobody can begin; it gets the pinned states and returns the new head. The
    /// caller holds the commit lock, caught up, and the head is at the end of the log.
    pub(super) fn replace_head_by<T>(
        &self,
        tip: &mut Head,
        step: impl FnOnce(&[Arc<State>]) -> Result<(State, T), StorageError>,
    ) -> Result<T, StorageError> {
        let mut head = self.head.write();
        let (state, result) = step(&self.pins.states())?;
        assert_eq!(tip.state.tid, state.tid, "the end of the log did not move meanwhile");
        *head = Head { state: Arc::new(state), generation: self.engine.generation() };
        *tip = head.clone();
        Ok(result)
    }

    /// Space that was kept for snapshots which are gone becomes free.
    pub(super) fn unpinned(&self) {
        // No pack may come in between: a snapshot that it keeps space for would not be in the list.
        let _no_pack = self.head.read();
        // An error leaves the space taken until the next pack or open.
        let _ = self.engine.unpin(&self.pins.states());
    }
}

impl Head {
    fn is_at(&self, tid: Tid, engine: &dyn Engine) -> bool {
        self.state.tid >= tid && self.generation == engine.generation()
    }

    /// Moves on to commit `tid`, which the engine knows. Cost O(changes), unless history was packed
    /// away: then the state is loaded.
    fn move_on(&mut self, tid: Tid, engine: &dyn Engine) -> Result<(), StorageError> {
        while !self.is_at(tid, engine) {
            let generation = engine.generation();
            let tid = tid.max(self.state.tid);
            let state = match generation == self.generation {
                true => engine.records(self.state.tid, tid).and_then(|records| {
                    let next = |state: State, record: &Arc<Record>| state.apply(record);
                    records.iter().try_fold(State::clone(&self.state), next)
                }),
                false => engine.load(tid),
            };
            // What was read while another process packed may be of both generations, or be gone.
            if generation == engine.generation() {
                *self = Self { state: Arc::new(state?), generation };
            }
        }
        Ok(())
    }
}

/// Maps words of a file for the engine. For rigs that open an engine without a store.
///
/// # Errors
///
/// The system's answer.
#[cfg(not(any(miri, shuttle)))]
pub fn map_words(
    file: Arc<std::os::fd::OwnedFd>,
    count: usize,
    writable: bool,
) -> std::io::Result<Arc<dyn SharedWords>> {
    use std::os::fd::AsFd;
    let memory = crate::vm::SharedMemory::map(file.as_fd(), count, writable);
    Ok(Arc::new(memory.map_err(std::io::Error::other)?))
}

/// A scheduler of threads and an interpreter see one process.
#[cfg(any(miri, shuttle))]
pub use crate::storage::local::private_words as map_words;

#[cfg(not(any(miri, shuttle)))]
impl SharedWords for crate::vm::SharedMemory {
    fn count(&self) -> usize {
        self.count()
    }

    fn load(&self, index: usize) -> u64 {
        if index < self.count() { self.load(index) } else { 0 }
    }

    fn store(&self, index: usize, value: u64) {
        if index < self.count() {
            self.store(index, value);
        }
    }

    fn exchange(&self, index: usize, current: u64, new: u64) -> bool {
        index < self.count() && self.exchange(index, current, new)
    }

    fn wait(&self, index: usize, seen: u64, timeout: Duration) {
        if index < self.count() {
            self.wait(index, seen, timeout);
        }
    }

    fn wake(&self, index: usize) {
        if index < self.count() {
            self.wake(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::simulated::Simulated;
    use crate::storage::state::Space;

    #[test]
    fn a_session_of_a_later_commit_is_not_taken_for_an_earlier_snapshot() {
        let disk: Arc<dyn Backend> = Arc::new(Simulated::new().unwrap());
        LocalEngine::create(&disk, &LocalOptions::default()).unwrap();
        let store = Store::open_on(&disk, Mode::ReadWrite, &LocalOptions::default()).unwrap();
        // Left by a thread that committed 5 after another one had pinned 4 and before it goes on.
        let later = State::new(Tid(5), 0, Catalog::default(), Space::default());
        store.shared.idle.lock().push((Session::new(Arc::new(later), 0), true));
        assert!(store.shared.take_idle(true, Tid(4)).is_none(), "it shows what 5 wrote");
        assert!(store.shared.take_idle(false, Tid(5)).is_none());
        assert!(store.shared.take_idle(true, Tid(5)).is_some());
    }
}
