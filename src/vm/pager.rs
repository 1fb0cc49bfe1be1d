//! Who answers when a missing page is touched: one reader of faults, and threads that load.
//!
//! ```text
//! program touches -> kernel -> reader -> queue -> loader: LazyPages::touched -> maps, wakes
//! ensure, read ahead ------------------> queue
//!                              stand-by: reads if the reader dies
//! ```
//!
//! The reader does nothing but read: moving memory waits until the kernel's message about it was
//! read, so who reads must never wait for who moves.
//!
//! # Invariants
//!
//! 1. Every fault that was read is answered: its chunk is shown or given up, or its thread woken
//!    to look again.
//! 2. The reader takes no lock but its turn and that of the queue.
//! 3. A child of fork has none of the threads, and the kernel would do what it asks for to its
//!    parent's memory: it asks for nothing.
//!
//! # Failure
//!
//! [`Pager::new`] fails where the system does not allow userfaultfd; callers load before they map.
//! A reader that ends in whatever way is replaced, and who sleeps is woken to touch again. A loader
//! that panics gives its chunk up, as one that cannot be loaded. A loader that something outside of
//! the program kills, and not the process with it, is not noticed: who waits for it waits for ever.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use super::MapError;
use super::lazy::{LazyPages, WeakPages};
use super::sys::mmap::Access;
use super::sys::robust::Turn;
use super::sys::uffd::{Event, Uffd};
use super::sys::{SysError, limits};
use crate::sync::{Changed, Mutex, thread};

/// Most threads that load: what many disks give is had by then.
const LOADERS_MAX: usize = 8;

/// Loads that nobody waits for and that wait themselves; more are forgotten.
const AHEAD_QUEUE_MAX: usize = 256;

/// Chunks noted as shown before those that are gone are sorted out.
const SHOWN_MIN: usize = 1024;

/// Something for a loader to do.
enum Work {
    Touched(usize),
    Load(WeakPages, u64),
    WakeAll,
}

#[derive(Default)]
struct Queue {
    // Faults first: somebody sleeps.
    touched: VecDeque<usize>,
    ahead: VecDeque<(WeakPages, u64)>,
    // Another thread reads now, and something may be lost that the one before had read.
    changed_reader: bool,
    is_over: bool,
}

/// Shared with the threads, which end when the pager is dropped.
struct Inner {
    uffd: Uffd,
    reading: Turn,
    queue: Mutex<Queue>,
    more: Changed,
    // Reservations with lazy pages, by their first address.
    known: Mutex<BTreeMap<usize, WeakPages>>,
    // What was shown, the oldest first.
    shown: Mutex<VecDeque<(WeakPages, u64, u64)>>,
    // Whose turn it is to put aside for himself.
    room: Mutex<()>,
}

/// Loads missing pages when they are touched, for any number of reservations.
pub struct Pager {
    inner: Arc<Inner>,
    process: u32,
}

impl Pager {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`MapError::System`] if the system does not allow it.
    pub fn new() -> Result<Arc<Self>, MapError> {
        let uffd = Uffd::open()?;
        let inner = Arc::new(Inner {
            uffd,
            reading: Turn::new()?,
            queue: Mutex::new(Queue::default()),
            more: Changed::default(),
            known: Mutex::new(BTreeMap::new()),
            shown: Mutex::new(VecDeque::new()),
            room: Mutex::new(()),
        });
        stand_by(&inner)?;
        for _ in 0..limits::processors().clamp(2, LOADERS_MAX) {
            let loader = Arc::clone(&inner);
            start("zba-loader", move || loader.load())?;
        }
        Ok(Arc::new(Self { inner, process: std::process::id() }))
    }

    /// Invariant 3.
    fn is_ours(&self) -> bool {
        std::process::id() == self.process
    }

    /// Whether system calls that touch missing pages wait for them; else they fail with `EFAULT`.
    #[must_use]
    pub fn serves_system_calls(&self) -> bool {
        self.inner.uffd.serves_system_calls()
    }

    /// The first word of the page at `address`, loaded if it is missing.
    #[cfg(shuttle)]
    #[must_use]
    pub fn touch(&self, address: usize) -> u64 {
        self.inner.uffd.touch(address)
    }

    pub(super) fn add(&self, base: usize, pages: WeakPages) {
        self.inner.known.lock().insert(base, pages);
    }

    pub(super) fn remove(&self, base: usize) {
        self.inner.known.lock().remove(&base);
    }

    /// Asks for `chunk` to be loaded soon.
    pub(super) fn ask(&self, pages: WeakPages, chunk: u64) {
        let mut queue = self.inner.queue.lock();
        if queue.ahead.len() < AHEAD_QUEUE_MAX {
            queue.ahead.push_back((pages, chunk));
            self.inner.more.tell();
        }
    }

    /// Notes what was shown by load `id`, so that it can be put aside.
    pub(super) fn shown(&self, pages: WeakPages, chunk: u64, id: u64) {
        let mut shown = self.inner.shown.lock();
        // What is gone is sorted out when there is twice as much as the last time: O(1) each.
        if shown.len() >= shown.capacity().max(SHOWN_MIN) {
            shown.retain(|(weak, chunk, id)| {
                weak.upgrade().is_some_and(|pages| pages.shows(*chunk, *id))
            });
            let len = shown.len();
            shown.shrink_to(len.max(SHOWN_MIN));
            shown.reserve_exact(len.max(SHOWN_MIN));
        }
        shown.push_back((pages, chunk, id));
    }

    #[cfg(test)]
    #[cfg(not(any(miri, shuttle)))]
    pub(super) fn shown_count(&self) -> usize {
        self.inner.shown.lock().len()
    }

    /// What `take` gets, after as many chunks were put aside as it needs; `None` if it gets nothing
    /// although all were that can be.
    ///
    /// One thread after the other: what one of them put aside for itself, another might take first,
    /// again and again.
    pub fn make_room<T>(&self, mut take: impl FnMut() -> Option<T>) -> Option<T> {
        let _turn = self.inner.room.lock();
        loop {
            let taken = take();
            if taken.is_some() || !self.put_one_aside() {
                return taken;
            }
        }
    }

    /// Makes a chunk missing again that was shown long ago; whether one was found.
    ///
    /// Bytes that anybody sees do not change by it.
    pub fn put_one_aside(&self) -> bool {
        let count = self.inner.shown.lock().len();
        for _ in 0..count {
            let Some((weak, chunk, id)) = self.inner.shown.lock().pop_front() else { break };
            let Some(pages) = weak.upgrade() else { continue };
            match pages.put_aside(chunk, id) {
                Aside::Done => return true,
                Aside::Gone => {}
                Aside::Kept => self.inner.shown.lock().push_back((weak, chunk, id)),
            }
        }
        false
    }

    pub(super) fn wake(&self, at: usize, len: usize) {
        if self.is_ours() {
            self.inner.uffd.wake(at, len);
        }
    }

    /// Replaces `[at, at + len)` by missing pages.
    ///
    /// # Safety
    ///
    /// As for [`Uffd::map_missing`].
    pub(super) unsafe fn map_missing(
        &self,
        at: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<(), SysError> {
        if !self.is_ours() {
            let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(SysError::Other { call: "userfaultfd in a child of fork", source });
        }
        // SAFETY: the caller keeps the contract.
        unsafe { self.inner.uffd.map_missing(at, len, access) }
    }
}

/// What became of a chunk that was to be put aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aside {
    /// It is missing now.
    Done,
    /// It was not shown any more.
    Gone,
    /// It may have private copies, or the kernel refused.
    Kept,
}

impl Inner {
    /// Waits until nobody reads faults, and reads them until the pager is dropped.
    fn attend(self: &Arc<Self>) {
        let _turn = self.reading.take();
        {
            let mut queue = self.queue.lock();
            if queue.is_over {
                return;
            }
            queue.changed_reader = true;
            self.more.tell();
        }
        // Without one more thread this reader is not replaced.
        drop(stand_by(self));
        self.read();
    }

    fn read(&self) {
        while self.uffd.wait() {
            while let Ok(Some(event)) = self.uffd.read() {
                if let Event::Fault { address } = event {
                    self.queue.lock().touched.push_back(address);
                    self.more.tell();
                }
            }
        }
        self.queue.lock().is_over = true;
        self.more.tell();
    }

    /// Loads until the pager is dropped.
    fn load(&self) {
        while let Some(work) = self.next() {
            match work {
                Work::WakeAll => {
                    let known: Vec<_> = self.known.lock().values().cloned().collect();
                    known.iter().filter_map(Weak::upgrade).for_each(|pages| pages.wake_all());
                }
                Work::Touched(address) => match self.pages_at(address) {
                    Some(pages) => {
                        let touched = || pages.touched(address);
                        if catch_unwind(AssertUnwindSafe(touched)).is_err() {
                            pages.give_up(pages.chunk_at(address));
                        }
                    }
                    // Gone: the thread finds out by itself.
                    None => self.uffd.wake(address & !0xfff, 0x1000),
                },
                Work::Load(pages, chunk) => {
                    let Some(pages) = pages.upgrade() else { continue };
                    let load = || pages.load_ahead(chunk);
                    if catch_unwind(AssertUnwindSafe(load)).is_err() {
                        pages.give_up(chunk);
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock();
        loop {
            if std::mem::take(&mut queue.changed_reader) {
                return Some(Work::WakeAll);
            }
            if let Some(address) = queue.touched.pop_front() {
                return Some(Work::Touched(address));
            }
            if let Some((pages, chunk)) = queue.ahead.pop_front() {
                return Some(Work::Load(pages, chunk));
            }
            if queue.is_over {
                return None;
            }
            queue = self.more.wait(queue);
        }
    }

    fn pages_at(&self, address: usize) -> Option<Arc<LazyPages>> {
        let known = self.known.lock();
        known.range(..=address).next_back().and_then(|(_, pages)| Weak::upgrade(pages))
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // Invariant 3: who waits for it is the parent's.
        if !self.is_ours() {
            return;
        }
        // The threads end by themselves: one of them may be the one that drops this.
        self.inner.uffd.end();
    }
}

/// Starts a thread that reads faults as soon as no other does.
fn stand_by(inner: &Arc<Inner>) -> Result<(), MapError> {
    let reader = Arc::clone(inner);
    start("zba-faults", move || reader.attend())
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), MapError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|source| MapError::System { call: "start of a thread", source })
}
