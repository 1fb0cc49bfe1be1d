//! One process as the disk and the shared words see it: its calls, its locks, its death.
//!
//! ```text
//! engine of process 1 -> Process 1 --\                   before and after a call that others can
//! engine of process 2 -> Process 2 ---> simulated disk   notice, somebody else may do a step
//!      words ----------> the same words
//! ```
//!
//! # Invariants
//!
//! 1. Nothing of a dead process reaches the disk or the words, and its locks are gone at once: the
//!    engine's own clean-up, which a killed process does not do, changes nothing.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use zbigarray::storage::backend::simulated::{Fault, FaultKind, Simulated};
use zbigarray::storage::backend::{Access, Backend, BackendFile, ByteLock, Growth};
use zbigarray::storage::words::{PrivateWords, SharedWords};

/// How often others may do something while half of a record is there.
const HALF_PAUSES: usize = 3;

/// What others do meanwhile.
type Meanwhile = Rc<dyn Fn()>;

thread_local! {
    static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
    // Of the process that is about to map its words.
    static MAPPING: RefCell<Option<Arc<Life>>> = const { RefCell::new(None) };
}

/// Lets `meanwhile` run in between the calls of processes of this thread, or nothing.
pub(crate) fn let_others(meanwhile: Option<Meanwhile>) {
    MEANWHILE.set(meanwhile);
}

struct Life {
    disk: Simulated,
    words: Arc<PrivateWords>,
    dead: AtomicBool,
    // A sync of it failed.
    failed: AtomicBool,
    // Failed syncs of all processes, and those that this one knows of: the kernel tells of each
    // everybody who has the file open.
    errors: Arc<AtomicU64>,
    seen: AtomicU64,
    // It dies at the call that comes after so many, or at the next one of a kind.
    doom: Mutex<Option<(usize, FaultKind)>>,
    // It dies when it has named a log file and is about to make the name durable.
    dies_naming: AtomicBool,
    has_named: AtomicBool,
    locked: Mutex<Vec<(Weak<dyn BackendFile>, u64)>>,
}

impl Life {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
        for (file, byte) in self.locked.lock().unwrap().drain(..) {
            let _ = file.upgrade().map(|file| file.try_lock(byte, ByteLock::None));
        }
    }

    /// A moment at which others may do something.
    fn pause(&self) {
        if !self.is_dead()
            && let Some(meanwhile) = MEANWHILE.with_borrow(Clone::clone)
        {
            meanwhile();
        }
    }

    /// Whether the doom comes with this call.
    fn is_due(&self, own: FaultKind) -> bool {
        let mut doom = self.doom.lock().unwrap();
        match &mut *doom {
            Some((left, _)) if *left > 0 => *left -= 1,
            Some((_, kind))
                if *kind == own || *kind == FaultKind::Killed && own != FaultKind::Eio =>
            {
                *doom = None;
                return true;
            }
            _ => {}
        }
        false
    }

    /// A changing call; `dying` is what is left of it if the process dies in it.
    fn call<T>(
        &self,
        own: FaultKind,
        call: impl FnOnce() -> io::Result<T>,
        dying: impl FnOnce(),
    ) -> io::Result<T> {
        self.pause();
        if self.is_dead() {
            return Err(death());
        }
        if self.is_due(own) {
            dying();
            self.die();
            return Err(death());
        }
        let result = call();
        self.pause();
        if self.is_dead() { Err(death()) } else { result }
    }
}

fn death() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// A process that uses the store.
#[derive(Clone)]
pub(crate) struct Process(Arc<Life>);

impl Process {
    /// A process on `disk`; all who get the same `words` and `errors` share them.
    pub(crate) fn new(
        disk: &Simulated,
        words: &Arc<PrivateWords>,
        errors: &Arc<AtomicU64>,
    ) -> Self {
        Self(Arc::new(Life {
            disk: disk.clone(),
            words: Arc::clone(words),
            dead: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            errors: Arc::clone(errors),
            seen: AtomicU64::new(errors.load(Ordering::Relaxed)),
            doom: Mutex::new(None),
            dies_naming: AtomicBool::new(false),
            has_named: AtomicBool::new(false),
            locked: Mutex::default(),
        }))
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    /// Whether a sync of it failed: then it must end.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        self.0.die();
    }

    /// It will die at the call after `calls` others, or at the first one of the kind from then on.
    pub(crate) fn doom(&self, calls: usize, kind: FaultKind) {
        *self.0.doom.lock().unwrap() = Some((calls, kind));
    }

    /// It will die between naming a log file and making the name durable.
    pub(crate) fn doom_naming(&self) {
        self.0.dies_naming.store(true, Ordering::Relaxed);
    }

    /// The words that the process with the file that was asked last shares with others.
    pub(crate) fn map_words(
        _: Arc<OwnedFd>,
        _: usize,
        _: bool,
    ) -> io::Result<Arc<dyn SharedWords>> {
        let life = MAPPING.take().ok_or_else(death)?;
        Ok(Arc::new(Words(life)))
    }

    fn opened(&self, path: &str, file: Arc<dyn BackendFile>) -> Arc<dyn BackendFile> {
        let is_log = path.starts_with("log/");
        Arc::new(ProcessFile { life: Arc::clone(&self.0), file, is_log })
    }
}

impl Backend for Process {
    fn location(&self) -> String {
        self.0.disk.location()
    }

    fn create_root(&self) -> io::Result<()> {
        self.0.disk.create_root()
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.call(FaultKind::Killed, || self.0.disk.create_dir(path), || {})
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn BackendFile>> {
        let file = self.0.call(FaultKind::Killed, || self.0.disk.create(path), || {})?;
        Ok(self.opened(path, file))
    }

    fn create_unnamed(&self) -> io::Result<Arc<dyn BackendFile>> {
        self.0.disk.create_unnamed()
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn BackendFile>> {
        self.0.pause();
        if self.is_dead() {
            return Err(death());
        }
        Ok(self.opened(path, self.0.disk.open(path, access)?))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.0.pause();
        if self.is_dead() { Err(death()) } else { self.0.disk.list(path) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if to.starts_with("log/") {
            self.0.has_named.store(true, Ordering::Relaxed);
        }
        self.0.call(FaultKind::Killed, || self.0.disk.rename(from, to), || {})
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.call(FaultKind::Killed, || self.0.disk.remove(path), || {})
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let names = path == "log" && self.0.has_named.swap(false, Ordering::Relaxed);
        if names && self.0.dies_naming.load(Ordering::Relaxed) && !self.is_dead() {
            self.kill();
            return Err(death());
        }
        self.0.call(FaultKind::KilledAtSyncDir, || self.0.disk.sync_dir(path), || {})
    }
}

struct ProcessFile {
    life: Arc<Life>,
    file: Arc<dyn BackendFile>,
    is_log: bool,
}

impl BackendFile for ProcessFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        if self.life.is_dead() { Err(death()) } else { self.file.read_at(bytes, offset_bytes) }
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        let bytes = parts.concat();
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let half = || {
            let killed = Fault { call: 0, kind: FaultKind::Killed, lasting: false };
            self.life.disk.set_fault(Some(killed));
            let _ = self.file.write_at(parts, offset_bytes);
            self.life.disk.set_fault(None);
        };
        let whole = || {
            if !self.is_log || bytes.len() < 1024 {
                return self.file.write_at(&[&bytes], offset_bytes);
            }
            // Others see half of a record.
            self.file.write_at(&[first], offset_bytes)?;
            (0..HALF_PAUSES).for_each(|_| self.life.pause());
            if self.life.is_dead() {
                return Err(death());
            }
            self.file.write_at(&[rest], offset_bytes + first.len() as u64)
        };
        self.life.call(FaultKind::ShortWrite, whole, half)
    }

    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()> {
        let call = || self.file.allocate(offset_bytes, len_bytes, growth);
        self.life.call(FaultKind::Killed, call, || {})
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        self.life.call(FaultKind::Killed, || self.file.punch(offset_bytes, len_bytes), || {})
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.life.call(FaultKind::Killed, || self.file.set_len(len_bytes), || {})
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }

    fn start_writeback(&self, _offset_bytes: u64, _len_bytes: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        let fails = self.is_log && self.life.is_due(FaultKind::Eio);
        let call = || {
            let errors = self.life.errors.load(Ordering::Relaxed);
            if self.is_log && self.life.seen.swap(errors, Ordering::Relaxed) < errors {
                self.life.failed.store(true, Ordering::Relaxed);
                return Err(death());
            }
            if fails {
                self.life.errors.fetch_add(1, Ordering::Relaxed);
                self.life.failed.store(true, Ordering::Relaxed);
                let failing = Fault { call: 0, kind: FaultKind::Eio, lasting: false };
                self.life.disk.set_fault(Some(failing));
            }
            let result = self.file.sync_data();
            self.life.disk.set_fault(None);
            result
        };
        self.life.call(FaultKind::KilledAtSync, call, || {})
    }

    fn try_lock(&self, byte: u64, lock: ByteLock) -> io::Result<bool> {
        if self.life.is_dead() {
            // Invariant 1.
            return Err(death());
        }
        let done = self.file.try_lock(byte, lock)?;
        if done {
            let mut locked = self.life.locked.lock().unwrap();
            locked
                .retain(|(file, held)| *held != byte || !file.ptr_eq(&Arc::downgrade(&self.file)));
            if lock != ByteLock::None {
                locked.push((Arc::downgrade(&self.file), byte));
            }
        }
        Ok(done)
    }

    fn locked_by_others(&self, bytes: &Range<u64>) -> io::Result<Option<u64>> {
        self.file.locked_by_others(bytes)
    }

    fn fd(&self) -> Arc<OwnedFd> {
        MAPPING.set(Some(Arc::clone(&self.life)));
        self.file.fd()
    }
}

/// The words as one process sees them.
struct Words(Arc<Life>);

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words")
    }
}

impl SharedWords for Words {
    fn count(&self) -> usize {
        self.0.words.count()
    }

    fn load(&self, index: usize) -> u64 {
        self.0.words.load(index)
    }

    fn store(&self, index: usize, value: u64) {
        self.0.pause();
        if !self.0.is_dead() {
            self.0.words.store(index, value);
            self.0.pause();
        }
    }

    fn exchange(&self, index: usize, current: u64, new: u64) -> bool {
        !self.0.is_dead() && self.0.words.exchange(index, current, new)
    }

    fn wait(&self, _: usize, _: u64, timeout: Duration) {
        // All others wait for this thread, so nobody will wake it.
        std::thread::sleep(timeout);
    }

    fn wake(&self, _: usize) {}
}
