//! The wrapper around sled 0.34: what makes its trees durable, checked and harmless.
//!
//! ```text
//! value in a tree   | CRC-32 of key and value | value |
//! long value        key id, 0: count of parts, length, first part | id, 1: part | id, 2: part ...
//! sync              sled's flush -> fdatasync of its file `db`
//! ```
//!
//! # Invariants
//!
//! 1. No value leaves this file that does not match its checksum.
//! 2. What was put before [`Trees::sync`] returned `Ok` survives a power cut. Sled's own flush ends
//!    in `sync_file_range`, which neither flushes the disk's cache nor the length of the file.
//! 3. Part 0 of a long value is put last. Sled comes back with a beginning of what was put, so a
//!    long value that has its part 0 has all parts.
//! 4. Nodes of the trees stay below a quarter of a segment: larger ones would become files of their
//!    own, which sled does not sync at all.
//!
//! # Failure
//!
//! A panic of sled becomes [`StorageError::Engine`]. After a failed write, flush or sync the latch
//! is shut and nothing is written any more.

use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::sled::{Config, Db, IVec, Tree};

use crate::storage::StorageError;
use crate::storage::backend::{Access, Files, StoreFile};
use crate::storage::planted::{Bug, planted};
use crate::sync::thread;

/// Sled's directory within the store's.
pub(super) const DIRECTORY: &str = "trees.sled";
/// Most bytes of one value. A node holds up to 17, and few more while it is merged (invariant 4).
pub(super) const VALUE_BYTES_MAX: usize = 16 << 10;
/// Bytes of sled's segments: it writes values above a quarter of this to files of their own.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;
const NODE_VALUES_MAX: usize = 24;
const _: () = assert!(VALUE_BYTES_MAX * NODE_VALUES_MAX < SEGMENT_BYTES / 4);
/// Bytes of sled's cache: what it holds is in the page cache of the system too.
const CACHE_BYTES: u64 = 64 << 20;

/// How long to wait for the lock of sled's file, of which we know that no other process uses it.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The trees of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    /// Commit records by tid, as long values.
    Log,
    /// States by tid, as long values.
    States,
    /// Bytes by first page.
    Blocks,
    /// Single values.
    Meta,
}

/// All trees, for checks.
pub(super) const NAMES: [Name; 4] = [Name::Log, Name::States, Name::Blocks, Name::Meta];

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::States => "states",
            Self::Blocks => "blocks",
            Self::Meta => "meta",
        }
    }
}

/// What is done with a key and its value.
type Step<'a> = dyn FnMut(&[u8], Result<Value, StorageError>) -> Result<(), StorageError> + 'a;

/// An open sled.
pub(super) struct Trees {
    // `None` only while it is closed.
    open: Option<(Db, [Tree; 4])>,
    // Which opened it: a child of fork has its buffers and none of its threads.
    process: u32,
    files: Files,
    directory: PathBuf,
    file: StoreFile,
}

impl Trees {
    /// Opens sled in `root`, or creates it. The caller has the store's lock.
    pub(super) fn open(files: &Files, root: &Path) -> Result<Self, StorageError> {
        let directory = root.join(DIRECTORY);
        if !planted(Bug::SledLeftoversTrusted) {
            remove_unfinished(&directory)?;
        }
        let config = Config::new()
            .path(&directory)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let opened = caught(&directory, || {
            let db = open_patiently(&config)?;
            let tree = |name: Name| db.open_tree(name.text());
            let trees =
                [tree(Name::Log)?, tree(Name::States)?, tree(Name::Blocks)?, tree(Name::Meta)?];
            Ok((db, trees))
        })?;
        let file = files.open(&format!("{DIRECTORY}/db"), Access::Write)?;
        let process = std::process::id();
        Ok(Self { open: Some(opened), process, files: files.clone(), directory, file })
    }

    /// Sled's directory, for people.
    pub(super) fn location(&self) -> String {
        self.directory.display().to_string()
    }

    fn opened(&self) -> Result<&(Db, [Tree; 4]), StorageError> {
        match &self.open {
            _ if std::process::id() != self.process => Err(StorageError::Forked),
            Some(open) => Ok(open),
            None => Err(StorageError::Poisoned),
        }
    }

    fn tree(&self, name: Name) -> Result<&Tree, StorageError> {
        Ok(&self.opened()?.1[name as usize])
    }

    fn reading<T>(
        &self,
        name: Name,
        call: impl FnOnce(&Tree) -> ::sled::Result<T>,
    ) -> Result<T, StorageError> {
        let tree = self.tree(name)?;
        caught(&self.directory, || call(tree))
    }

    fn writing<T>(&self, call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StorageError> {
        if self.files.latch().is_shut() {
            return Err(StorageError::Poisoned);
        }
        caught(&self.directory, call).inspect_err(|_| self.files.latch().shut())
    }

    /// The value of `key`.
    pub(super) fn get(&self, name: Name, key: &[u8]) -> Result<Option<Value>, StorageError> {
        let found = self.reading(name, |tree| tree.get(key))?;
        found.map(|stored| self.checked(name, key, stored)).transpose()
    }

    /// The last key at or before `key`, with its value.
    pub(super) fn at_or_before(
        &self,
        name: Name,
        key: &[u8],
    ) -> Result<Option<(IVec, Value)>, StorageError> {
        let found = self.reading(name, |tree| match tree.get(key)? {
            Some(value) => Ok(Some((IVec::from(key), value))),
            None => tree.get_lt(key),
        })?;
        let checked = found.map(|(key, stored)| {
            let value = self.checked(name, &key, stored)?;
            Ok((key, value))
        });
        checked.transpose()
    }

    /// The keys in a range, ascending.
    pub(super) fn keys(
        &self,
        name: Name,
        from: &[u8],
        until: &[u8],
    ) -> Result<Vec<IVec>, StorageError> {
        self.reading(name, |tree| tree.range(from..until).keys().collect())
    }

    /// Calls `step` with each key and value of a tree, in order; a value that does not match its
    /// checksum is an error.
    pub(super) fn each(&self, name: Name, step: &mut Step<'_>) -> Result<(), StorageError> {
        let mut entries = self.reading(name, |tree| Ok(tree.iter()))?;
        loop {
            let next = caught(&self.directory, || entries.next().transpose())?;
            let Some((key, stored)) = next else { return Ok(()) };
            step(&key, self.checked(name, &key, stored))?;
        }
    }

    fn checked(&self, name: Name, key: &[u8], stored: IVec) -> Result<Value, StorageError> {
        match stored.split_first_chunk::<4>() {
            Some((sum, value))
                if u32::from_le_bytes(*sum) == sum_of(key, value)
                    || planted(Bug::SledValueUnchecked) =>
            {
                Ok(Value(stored))
            }
            _ => Err(self.damaged(name, key, "the value does not match its checksum")),
        }
    }

    /// The error that says what is wrong with a value.
    pub(super) fn damaged(&self, name: Name, key: &[u8], what: impl Into<String>) -> StorageError {
        let number = key.first_chunk().map_or(0, number_of);
        let place = format!("{} tree {} at {number}", self.location(), name.text());
        StorageError::Corrupted { place, what: what.into() }
    }

    /// Puts a value of at most [`VALUE_BYTES_MAX`] bytes.
    pub(super) fn put(&self, name: Name, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        assert!(value.len() <= VALUE_BYTES_MAX, "invariant 4: larger values are put in parts");
        let mut stored = Vec::with_capacity(4 + value.len());
        stored.extend_from_slice(&sum_of(key, value).to_le_bytes());
        stored.extend_from_slice(value);
        let tree = self.tree(name)?;
        self.writing(|| tree.insert(key, stored).map(drop))
    }

    /// Removes a value.
    pub(super) fn remove(&self, name: Name, key: &[u8]) -> Result<(), StorageError> {
        let tree = self.tree(name)?;
        self.writing(|| tree.remove(key).map(drop))
    }

    /// Makes everything that was put durable (invariant 2).
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let (db, _) = self.opened()?;
        self.writing(|| db.flush().map(drop))?;
        if planted(Bug::SledFileNotSynced) {
            return Ok(());
        }
        self.file.sync()
    }

    /// Makes the names of sled's files durable.
    pub(super) fn sync_names(&self) -> Result<(), StorageError> {
        self.files.sync_dir(&format!("{DIRECTORY}/blobs"))?;
        self.files.sync_dir(DIRECTORY)
    }
}

/// Long values.
impl Trees {
    /// Puts a value of any length under `id`, where nothing is yet.
    pub(super) fn put_long(&self, name: Name, id: u64, value: &[u8]) -> Result<(), StorageError> {
        // Part 0 begins with the number of parts and the length.
        let first = value.len().min(VALUE_BYTES_MAX - 12);
        let (first, rest) = value.split_at(first);
        let mut count = 1_u32;
        for (part, bytes) in (1..).zip(rest.chunks(VALUE_BYTES_MAX)) {
            self.put(name, &part_key(id, part), bytes)?;
            count = part + 1;
        }
        let mut head = Vec::with_capacity(12 + first.len());
        head.extend_from_slice(&count.to_le_bytes());
        head.extend_from_slice(&(value.len() as u64).to_le_bytes());
        head.extend_from_slice(first);
        // Invariant 3.
        self.put(name, &part_key(id, 0), &head)
    }

    /// The value under `id`.
    pub(super) fn get_long(&self, name: Name, id: u64) -> Result<Option<Vec<u8>>, StorageError> {
        let key = part_key(id, 0);
        let Some(head) = self.get(name, &key)? else { return Ok(None) };
        let incomplete = || self.damaged(name, &key, "a part of the value is missing");
        let Some((count, rest)) = head.bytes().split_first_chunk::<4>() else {
            return Err(incomplete());
        };
        let Some((len, first)) = rest.split_first_chunk::<8>() else { return Err(incomplete()) };
        let mut value = first.to_vec();
        for part in 1..u32::from_le_bytes(*count) {
            let Some(bytes) = self.get(name, &part_key(id, part))? else {
                return Err(incomplete());
            };
            value.extend_from_slice(bytes.bytes());
        }
        if value.len() as u64 != u64::from_le_bytes(*len) {
            return Err(incomplete());
        }
        Ok(Some(value))
    }

    /// Removes the value under `id`, its part 0 first.
    pub(super) fn remove_long(&self, name: Name, id: u64) -> Result<(), StorageError> {
        let keys = self.keys(name, &part_key(id, 0), &part_key(id, u32::MAX))?;
        keys.iter().try_for_each(|key| self.remove(name, key))
    }

    /// The ids of a tree of long values, ascending; those without part 0 too.
    pub(super) fn ids(&self, name: Name) -> Result<Vec<(u64, bool)>, StorageError> {
        let mut ids: Vec<(u64, bool)> = Vec::new();
        for key in self.keys(name, &[], &[u8::MAX; 13])? {
            let (Some(id), Some(part)) = (key.first_chunk(), key.last_chunk()) else {
                return Err(self.damaged(name, &key, "a key is too short"));
            };
            let (id, part) = (number_of(id), *part == [0; 4]);
            match ids.last_mut() {
                Some((last, _)) if *last == id => {}
                _ => ids.push((id, part)),
            }
        }
        Ok(ids)
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        let open = self.open.take();
        if std::process::id() != self.process {
            // What is in its buffers is the parent's to write.
            std::mem::forget(open);
            return;
        }
        // Sled writes once more when it is closed, and may panic over it.
        let _ = caught(&self.directory, || {
            drop(open);
            Ok(())
        });
    }
}

/// A number as a key: sled orders keys by their bytes.
#[expect(clippy::big_endian_bytes, reason = "the order of the bytes is the order of the numbers")]
pub(super) fn key_of(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The number that a key means.
#[expect(clippy::big_endian_bytes, reason = "the inverse of `key_of`")]
pub(super) fn number_of(key: &[u8; 8]) -> u64 {
    u64::from_be_bytes(*key)
}

/// The key of a part of a long value.
pub(super) fn part_key(id: u64, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&key_of(id));
    key[8..].copy_from_slice(&key_of(u64::from(part))[4..]);
    key
}

/// A value as it lies in a tree, with its checksum.
pub(super) struct Value(IVec);

impl Value {
    /// The bytes that were put.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.get(4..).unwrap_or_default()
    }
}

fn sum_of(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// Opens sled. A child that was forked while it was open has its lock too, mostly not for long.
fn open_patiently(config: &Config) -> ::sled::Result<Db> {
    let mut attempts = 0;
    loop {
        match config.open() {
            Err(::sled::Error::Io(error))
                if attempts < LOCK_ATTEMPTS && error.to_string().contains("acquire lock") =>
            {
                attempts += 1;
                thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

/// Removes all of sled's files, those of a store that was never finished. Directories stay.
pub(super) fn remove_all(root: &Path) -> Result<(), StorageError> {
    fn remove(directory: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { remove(&path)? } else { std::fs::remove_file(path)? }
        }
        Ok(())
    }
    let directory = root.join(DIRECTORY);
    match remove(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| {
            let path = directory.display().to_string();
            StorageError::Io { action: "remove", path, source }
        }),
    }
}

/// Bytes that sled's files take on the disk.
pub(super) fn size_on_disk(root: &Path) -> Result<u64, StorageError> {
    fn sum(directory: &Path) -> std::io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += match metadata.is_dir() {
                true => sum(&entry.path())?,
                false => metadata.blocks() * 512,
            };
        }
        Ok(bytes)
    }
    let directory = root.join(DIRECTORY);
    sum(&directory).map_err(|source| {
        let path = directory.display().to_string();
        StorageError::Io { action: "examine", path, source }
    })
}

/// Removes snapshots that sled was writing when it was killed: it would take them for whole.
fn remove_unfinished(directory: &Path) -> Result<(), StorageError> {
    let failed = |action: &'static str, source| {
        let path = directory.display().to_string();
        StorageError::Io { action, path, source }
    };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| failed("list", error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed("list", error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path()).map_err(|error| failed("clean", error))?;
        }
    }
    Ok(())
}

/// Runs a call of sled; its errors and panics become ours.
fn caught<T>(
    directory: &Path,
    call: impl FnOnce() -> ::sled::Result<T>,
) -> Result<T, StorageError> {
    let path = || directory.display().to_string();
    let engine = |what: String| StorageError::Engine { engine: "sled", path: path(), what };
    // What a panic leaves behind in sled is not used for writing any more, and every value that is
    // read is checked.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::sled::Error::Io(source))) if source.to_string().contains("acquire lock") => {
            let who = "a child that was forked while it was open still has it".to_owned();
            Err(StorageError::Locked { path: path(), who })
        }
        Ok(Err(::sled::Error::Io(source))) => {
            use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
            match source.kind() {
                StorageFull | QuotaExceeded | FileTooLarge => {
                    Err(StorageError::NoSpace { path: path(), bytes: SEGMENT_BYTES as u64 })
                }
                _ => Err(StorageError::Io { action: "use", path: path(), source }),
            }
        }
        Ok(Err(::sled::Error::Corruption { .. })) => Err(StorageError::Corrupted {
            place: path(),
            what: "sled finds it corrupt and says no more".to_owned(),
        }),
        Ok(Err(other)) => Err(engine(other.to_string())),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(engine(format!("it panicked: {}", said.unwrap_or("without a word"))))
        }
    }
}
