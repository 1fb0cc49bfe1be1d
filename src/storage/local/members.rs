//! Who has the store open, and what they tell each other: locks and words of the file `shared`.
//!
//! ```text
//! locked bytes   0 commit | 1 readers without a place | 2 log sync | 3 checkpoint
//!                1024 + i: the process at place i lives | 2^32 + n: who allocates in data file n
//! words          0 magic | 1 identity | 8 newest commit | 9 floor | 10 holder, 11 since | 12, 13
//!                64 + 8 i: the process at place i: pid, its start, oldest snapshot, chain, ...
//! ```
//!
//! Locks are the truth about who lives and who may do what: the kernel takes them from a process
//! that dies. Words only say what can be found out otherwise, or what one process asks of another;
//! each number among them carries a check, so that bytes which nobody of us wrote are seen as such.
//!
//! # Invariants
//!
//! 1. Whoever looks at a snapshot has its commit, or an older one, at its place *before* it looks
//!    at the floor; who packs raises the floor *before* it looks at the places. So one of the two
//!    sees the other.
//! 2. The word of the newest commit is written after that commit is durable, and never goes back.
//! 3. Locks are given back by the process that took them: a child of fork shares the open file. The
//!    words are mapped through another one, since a mapping keeps its file open, and so its locks.
//!
//! # Failure
//!
//! A word that nobody of us wrote counts as the worst it could say: an unknown newest commit is
//! read from the log, an unknown snapshot keeps everything.

use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::StoreId;
use crate::storage::StorageError;
use crate::storage::backend::{Access, ByteLock, Files, MapWords, StoreFile, process_start};
use crate::storage::engine::Member;
use crate::storage::words::{PrivateWords, SharedWords};
use crate::sync::thread;
use crate::units::Tid;

pub(super) const SHARED_PATH: &str = "shared";
/// Bytes of the file, all of them words.
pub(super) const SHARED_BYTES: u64 = WORDS as u64 * 8;
const WORDS: usize = 8 << 10;

const COMMIT_BYTE: u64 = 0;
const READERS_BYTE: u64 = 1;
const SYNC_BYTE: u64 = 2;
const CHECKPOINT_BYTE: u64 = 3;
const PLACE_BYTE: u64 = 1024;
const DATA_BYTE: u64 = 1 << 32;

const MAGIC: u64 = u64::from_le_bytes(*b"zba-shr\n");
const MAGIC_WORD: usize = 0;
const IDENTITY_WORD: usize = 1;
const NEWEST_WORD: usize = 8;
const FLOOR_WORD: usize = 9;
const HOLDER_WORD: usize = 10;
const SINCE_WORD: usize = 11;
const RELEASED_WORD: usize = 12;
const UNSETTLED_WORD: usize = 13;
const FIRST_PLACE_WORD: usize = 64;
const PLACE_WORDS: usize = 8;
const PLACES: usize = (WORDS - FIRST_PLACE_WORD) / PLACE_WORDS;

// Words of a place.
const PID: usize = 0;
const STARTED: usize = 1;
const SNAPSHOT: usize = 2;
const CHAIN: usize = 3;
const OPENED_NS: usize = 4;
const EXPIRED: usize = 5;
const PINNED_NS: usize = 6;
const NEWEST_SNAPSHOT: usize = 7;
/// The number of a place that looks at nothing. It has a check as all numbers have: a word that
/// somebody cleared must not pass for it.
const NO_SNAPSHOT: u64 = NUMBER_MASK - 1;

/// How long opening for reading waits for a pack to end.
const READER_ATTEMPTS: u32 = 400;
const READER_PAUSE: Duration = Duration::from_millis(5);
/// A wake-up that got lost costs no more than this.
const NAP: Duration = Duration::from_millis(1);

/// This process among those that have the store open.
pub(super) struct Members {
    path: String,
    words: Arc<dyn SharedWords>,
    // `None` where a store is read that has no such file.
    shared: Option<StoreFile>,
    place: Option<usize>,
    key: [u8; 16],
    process: u32,
    wait: Duration,
}

/// What the word of a place says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// Nothing is there.
    Nothing,
    /// A number that one of us wrote.
    Number(u64),
    /// Bytes that none of us wrote.
    Nonsense,
}

impl Members {
    /// A process that says nothing to others and asks nothing of them.
    pub(super) fn apart(files: &Files, store: &StoreId, wait: Duration) -> Self {
        Self {
            path: files.location(),
            words: Arc::new(PrivateWords::new(0)),
            shared: None,
            place: None,
            key: *store,
            process: std::process::id(),
            wait,
        }
    }

    /// Opens the file and takes a place. Who may not write to it shares the readers' byte instead.
    pub(super) fn join(
        files: &Files,
        store: &StoreId,
        map: MapWords,
        wait: Duration,
    ) -> Result<Self, StorageError> {
        let mut members = Self::apart(files, store, wait);
        let aside = files.aside();
        let shared = match aside.try_open(SHARED_PATH, Access::Write) {
            Ok(Some(shared)) => Some(shared),
            Ok(None) if files.is_writable() => Some(files.create(SHARED_PATH)?),
            Ok(None) => None,
            Err(error) if files.is_writable() => return Err(error),
            // Somebody else's store, or a file system that is read-only.
            Err(_) => return members.joined_to_read(files, map),
        };
        let Some(shared) = shared else { return Ok(members) };
        if shared.len()? < SHARED_BYTES {
            if !files.is_writable() {
                return members.joined_to_read(files, map);
            }
            shared.set_len(SHARED_BYTES)?;
        }
        let mapped = aside.open(SHARED_PATH, Access::Write)?;
        members.words = map(mapped.fd(), WORDS, true).map_err(|error| failed(&error))?;
        members.shared = Some(shared);
        members.take_place()?;
        Ok(members)
    }

    fn joined_to_read(mut self, files: &Files, map: MapWords) -> Result<Self, StorageError> {
        let Some(shared) = files.try_open(SHARED_PATH, Access::Read)? else { return Ok(self) };
        if shared.len()? >= SHARED_BYTES {
            let mapped = files.open(SHARED_PATH, Access::Read)?;
            self.words = map(mapped.fd(), WORDS, false).map_err(|error| failed(&error))?;
        }
        for _ in 0..READER_ATTEMPTS {
            if shared.try_lock(READERS_BYTE, ByteLock::Shared)? {
                self.shared = Some(shared);
                return Ok(self);
            }
            thread::sleep(READER_PAUSE);
        }
        let who = "another process packs it; try again later".to_owned();
        Err(StorageError::Locked { path: self.path.clone(), who })
    }

    fn take_place(&mut self) -> Result<(), StorageError> {
        for place in 0..PLACES {
            if self.try_lock(PLACE_BYTE + place as u64, ByteLock::Exclusive)? {
                (0..PLACE_WORDS).for_each(|word| self.words.store(word_of(place, word), 0));
                self.words.store(word_of(place, STARTED), process_start(self.process));
                self.words.store(word_of(place, OPENED_NS), now_ns());
                self.words.store(word_of(place, PID), u64::from(self.process));
                self.place = Some(place);
                return Ok(());
            }
        }
        let who = format!("{PLACES} processes have it open, which is the most it can have");
        Err(StorageError::Locked { path: self.path.clone(), who })
    }

    fn try_lock(&self, byte: u64, lock: ByteLock) -> Result<bool, StorageError> {
        match &self.shared {
            Some(shared) => shared.try_lock(byte, lock),
            None => Ok(true),
        }
    }

    fn unlock(&self, byte: u64) {
        // Giving a lock back does not fail; if it did, closing the file gives it back.
        let _ = self.try_lock(byte, ByteLock::None);
    }

    /// Prepares words that nobody of us has prepared. The caller holds the commit lock.
    pub(super) fn prepare(&self) {
        let identity = self.identity();
        if self.words.load(MAGIC_WORD) != MAGIC || self.words.load(IDENTITY_WORD) != identity {
            [NEWEST_WORD, FLOOR_WORD, RELEASED_WORD, UNSETTLED_WORD]
                .into_iter()
                .for_each(|word| self.words.store(word, 0));
            self.words.store(IDENTITY_WORD, identity);
            self.words.store(MAGIC_WORD, MAGIC);
        }
    }

    /// Forgets what the words say: no other process has the store open.
    pub(super) fn forget(&self) {
        self.words.store(MAGIC_WORD, 0);
    }

    fn identity(&self) -> u64 {
        u64::from(crc32fast::hash(&self.key)) | 1 << 32
    }

    /// `number` with its check: never 0, and hardly ever what somebody else wrote there.
    fn stamp(&self, number: u64) -> u64 {
        let number = number.saturating_add(1) & NUMBER_MASK;
        number | self.check_of(number) << NUMBER_BITS
    }

    fn check_of(&self, number: u64) -> u64 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.key);
        hasher.update(&number.to_le_bytes());
        u64::from(hasher.finalize()) & (u64::MAX >> NUMBER_BITS)
    }

    fn told(&self, word: usize) -> Told {
        match self.words.load(word) {
            0 => Told::Nothing,
            value if self.check_of(value & NUMBER_MASK) == value >> NUMBER_BITS => {
                Told::Number((value & NUMBER_MASK).saturating_sub(1))
            }
            _ => Told::Nonsense,
        }
    }

    /// Raises the number in `word` to `number`, unless it is there already.
    fn raise(&self, word: usize, number: u64) -> bool {
        loop {
            let seen = self.words.load(word);
            if matches!(self.told(word), Told::Number(there) if there >= number) {
                return false;
            }
            if self.words.exchange(word, seen, self.stamp(number)) {
                return true;
            }
            if self.words.load(word) == seen {
                // It cannot be written.
                return false;
            }
        }
    }

    /// The newest commit that is durable, as its committer said; `None` if that is not known.
    pub(super) fn newest(&self) -> Option<Tid> {
        match self.told(NEWEST_WORD) {
            Told::Number(tid) => Some(Tid(tid)),
            Told::Nothing | Told::Nonsense => None,
        }
    }

    /// Says that commit `tid` is durable (invariant 2) and wakes who waits for it.
    pub(super) fn publish(&self, tid: Tid) {
        if self.raise(NEWEST_WORD, tid.0) {
            self.words.wake(NEWEST_WORD);
        }
    }

    /// Says that commit `tid` is the newest one there is. The caller holds the commit lock, and all
    /// of the log is durable: a newer one is what was there before the store was restored.
    pub(super) fn correct(&self, tid: Tid) {
        if self.newest() != Some(tid) {
            self.words.store(NEWEST_WORD, self.stamp(tid.0));
            self.words.wake(NEWEST_WORD);
        }
    }

    /// Waits until the newest commit may be another than `seen`, at most `timeout`.
    pub(super) fn wait(&self, seen: Tid, timeout: Duration) {
        let word = self.words.load(NEWEST_WORD);
        if self.newest().is_none_or(|newest| newest <= seen) {
            self.words.wait(NEWEST_WORD, word, timeout);
        }
    }

    /// The oldest commit whose snapshot may still be taken.
    pub(super) fn floor(&self) -> Tid {
        match self.told(FLOOR_WORD) {
            Told::Number(tid) => Tid(tid),
            Told::Nothing | Told::Nonsense => Tid::ZERO,
        }
    }

    /// Sets the floor (invariant 1). The caller holds the commit lock.
    pub(super) fn set_floor(&self, tid: Tid) {
        self.words.store(FLOOR_WORD, self.stamp(tid.0));
    }

    /// Says which snapshots this process looks at, from the oldest to the newest, and the oldest
    /// chain of log files that it may still open (invariant 1).
    pub(super) fn pin(&self, looked_at: Option<RangeInclusive<Tid>>, chain: u32) {
        let Some(place) = self.place else { return };
        if std::process::id() != self.process {
            return;
        }
        let (oldest, newest) = match looked_at {
            Some(tids) => (tids.start().0, tids.end().0),
            None => (NO_SNAPSHOT, 0),
        };
        // First: the newest is asked for where the oldest is over.
        let word = self.stamp(newest);
        if self.words.load(word_of(place, NEWEST_SNAPSHOT)) != word {
            self.words.store(word_of(place, NEWEST_SNAPSHOT), word);
        }
        let word = self.stamp(oldest);
        if self.words.load(word_of(place, SNAPSHOT)) != word {
            self.words.store(word_of(place, SNAPSHOT), word);
            self.words.store(word_of(place, PINNED_NS), now_ns());
        }
        let chain = self.stamp(u64::from(chain));
        if self.words.load(word_of(place, CHAIN)) != chain {
            self.words.store(word_of(place, CHAIN), chain);
        }
    }

    /// The oldest chain of log files that this process said it may still open.
    pub(super) fn own_chain(&self) -> Told {
        self.place.map_or(Told::Nothing, |place| self.told(word_of(place, CHAIN)))
    }

    /// The commit before which this process may look at snapshots no more.
    pub(super) fn expired(&self) -> Option<Tid> {
        let word = word_of(self.place?, EXPIRED);
        match self.told(word) {
            Told::Number(tid) => Some(Tid(tid)),
            Told::Nothing | Told::Nonsense => None,
        }
    }

    /// Tells the process at `place` that its snapshots older than `tid` are over.
    pub(super) fn expire(&self, place: usize, tid: Tid) {
        self.raise(word_of(place, EXPIRED), tid.0);
    }

    /// The places of other living processes, ascending.
    fn others(&self) -> Result<Vec<usize>, StorageError> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let all = PLACE_BYTE..PLACE_BYTE + PLACES as u64;
        let mut ranges = Vec::from([all]);
        while let Some(range) = ranges.pop() {
            if let Some(byte) = shared.locked_by_others(&range)? {
                found.push(usize::try_from(byte - PLACE_BYTE).unwrap_or(usize::MAX));
                ranges.extend([range.start..byte, byte + 1..range.end]);
                ranges.retain(|range| !range.is_empty());
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether no other process has a place.
    pub(super) fn is_alone(&self) -> Result<bool, StorageError> {
        Ok(self.others()?.is_empty())
    }

    /// What the places of other living processes say of their oldest snapshot and of their chain.
    pub(super) fn others_pins(&self) -> Result<Vec<(usize, Told, Told)>, StorageError> {
        let told = |place: usize| {
            (place, self.told(word_of(place, SNAPSHOT)), self.told(word_of(place, CHAIN)))
        };
        Ok(self.others()?.into_iter().map(told).collect())
    }

    /// Whether the process at `place` was told that the snapshot of commit `tid` is over.
    pub(super) fn is_expired(&self, place: usize, tid: Tid) -> bool {
        matches!(self.told(word_of(place, EXPIRED)), Told::Number(over) if over > tid.0)
    }

    /// The oldest commit of which the process at `place`, whose oldest snapshot is over, may have a
    /// snapshot that is not; `None` if all of its snapshots are over.
    pub(super) fn not_expired(&self, place: usize) -> Option<Tid> {
        let Told::Number(over) = self.told(word_of(place, EXPIRED)) else {
            return Some(Tid::ZERO);
        };
        match self.told(word_of(place, NEWEST_SNAPSHOT)) {
            Told::Number(newest) if newest < over => None,
            _ => Some(Tid(over)),
        }
    }

    /// Everybody who has a place, ourselves too.
    pub(super) fn members(&self) -> Result<Vec<Member>, StorageError> {
        let mut places = self.others()?;
        places.extend(self.place);
        places.sort_unstable();
        let member = |place: usize| {
            let snapshot = match self.told(word_of(place, SNAPSHOT)) {
                Told::Number(tid) if tid != NO_SNAPSHOT => Some(Tid(tid)),
                Told::Number(_) | Told::Nothing | Told::Nonsense => None,
            };
            let pid = u32::try_from(self.words.load(word_of(place, PID))).unwrap_or(0);
            let time =
                |word: usize| i64::try_from(self.words.load(word_of(place, word))).unwrap_or(0);
            Member {
                pid,
                is_same_process: process_start(pid) == self.words.load(word_of(place, STARTED)),
                opened_ns: time(OPENED_NS),
                snapshot,
                snapshot_since_ns: snapshot.map(|_| time(PINNED_NS)),
                is_expired: snapshot.is_some_and(|tid| self.is_expired(place, tid)),
                is_self: Some(place) == self.place,
            }
        };
        Ok(places.into_iter().map(member).collect())
    }

    /// Takes the commit lock; nobody else commits or packs until it is given back.
    ///
    /// # Errors
    ///
    /// [`StorageError::Busy`] after a while, with who has it.
    pub(super) fn lock_commits(&self) -> Result<(), StorageError> {
        let begin = Instant::now();
        loop {
            let released = self.words.load(RELEASED_WORD);
            if self.try_lock(COMMIT_BYTE, ByteLock::Exclusive)? {
                self.words.store(SINCE_WORD, now_ns());
                self.words.store(HOLDER_WORD, u64::from(self.process));
                return Ok(());
            }
            if begin.elapsed() > self.wait {
                return Err(self.busy());
            }
            self.words.wait(RELEASED_WORD, released, NAP);
        }
    }

    fn busy(&self) -> StorageError {
        let pid = u32::try_from(self.words.load(HOLDER_WORD)).unwrap_or(0);
        let since = self.words.load(SINCE_WORD);
        let seconds = now_ns().saturating_sub(since) / 1_000_000_000;
        StorageError::Busy { path: self.path.clone(), pid, seconds }
    }

    /// Gives the commit lock back.
    pub(super) fn unlock_commits(&self) {
        if std::process::id() != self.process {
            return;
        }
        self.words.store(HOLDER_WORD, 0);
        self.unlock(COMMIT_BYTE);
        let released = self.words.load(RELEASED_WORD);
        self.words.store(RELEASED_WORD, released.wrapping_add(1));
        self.words.wake(RELEASED_WORD);
    }

    /// Takes the lock for making the log durable, if nobody has it.
    pub(super) fn try_lock_sync(&self) -> Result<bool, StorageError> {
        self.try_lock(SYNC_BYTE, ByteLock::Exclusive)
    }

    pub(super) fn unlock_sync(&self) {
        self.unlock(SYNC_BYTE);
    }

    /// Takes the lock for writing a checkpoint, if nobody has it.
    pub(super) fn try_lock_checkpoint(&self) -> Result<bool, StorageError> {
        self.try_lock(CHECKPOINT_BYTE, ByteLock::Exclusive)
    }

    pub(super) fn unlock_checkpoint(&self) {
        self.unlock(CHECKPOINT_BYTE);
    }

    /// Keeps readers without a place out, if there are none.
    pub(super) fn try_lock_readers_out(&self) -> Result<bool, StorageError> {
        self.try_lock(READERS_BYTE, ByteLock::Exclusive)
    }

    pub(super) fn unlock_readers(&self) {
        self.unlock(READERS_BYTE);
    }

    /// Takes the right to allocate in data file `number`, if nobody has it.
    pub(super) fn try_lock_data(&self, number: u32) -> Result<bool, StorageError> {
        self.try_lock(DATA_BYTE + u64::from(number), ByteLock::Exclusive)
    }

    pub(super) fn unlock_data(&self, number: u32) {
        self.unlock(DATA_BYTE + u64::from(number));
    }

    /// Says that records from `tid` on may not be on the disk although their sync is over: it
    /// failed.
    pub(super) fn set_unsettled(&self) {
        self.words.store(UNSETTLED_WORD, 1);
    }

    /// Takes that back: somebody wrote them again.
    pub(super) fn set_settled(&self) {
        if self.words.load(UNSETTLED_WORD) != 0 {
            self.words.store(UNSETTLED_WORD, 0);
        }
    }

    /// Takes away, by `cut`, what a dead process left at the end of the log. If this process dies
    /// before that is durable, or fails, the next one that commits finds the word and sees to it.
    pub(super) fn unsettled_while(
        &self,
        cut: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let was_unsettled = self.is_unsettled();
        self.set_unsettled();
        cut()?;
        if !was_unsettled {
            self.set_settled();
        }
        Ok(())
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.words.load(UNSETTLED_WORD) != 0
    }

    /// The open file that the locks belong to.
    pub(super) fn file(&self) -> Option<Arc<OwnedFd>> {
        self.shared.as_ref().map(StoreFile::fd)
    }

    /// The words, for tests that write nonsense.
    #[cfg(test)]
    pub(super) fn words(&self) -> &Arc<dyn SharedWords> {
        &self.words
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // Invariant 3.
        if std::process::id() != self.process {
            return;
        }
        if let Some(place) = self.place {
            (0..PLACE_WORDS).for_each(|word| self.words.store(word_of(place, word), 0));
            self.unlock(PLACE_BYTE + place as u64);
        } else {
            self.unlock(READERS_BYTE);
        }
    }
}

const NUMBER_BITS: u32 = 44;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

const fn word_of(place: usize, word: usize) -> usize {
    FIRST_PLACE_WORD + place * PLACE_WORDS + word
}

fn failed(error: &std::io::Error) -> StorageError {
    let source = std::io::Error::new(error.kind(), error.to_string());
    StorageError::Io { action: "map", path: SHARED_PATH.to_owned(), source }
}

/// Nanoseconds since 1970, for people.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
