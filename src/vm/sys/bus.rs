//! SIGBUS: saying what could not be read before the process ends.
//!
//! ```text
//! load or store -> the kernel cannot bring the page -> SIGBUS -> handler -> list of labels
//!                                                         found: one sentence on stderr
//!                                                         then what would have happened anyway
//! ```
//!
//! The kernel sends SIGBUS to a thread that touches a page behind the end of its file, one that
//! the disk does not give, or one whose memory is broken. Where data should be nobody can make that
//! access succeed: the handler says which array it was and passes the signal on to whoever handled
//! it before. Memory that is only a hint is replaced by zeros instead, and the access goes on.
//!
//! # Invariants
//!
//! 1. The handler calls nothing but `write`, `mmap`, `sigaction` and the handler before it, takes
//!    no lock and allocates nothing (signal-safety(7)).
//! 2. Entries are never freed, only used again, so the handler can walk the list at any moment.
//! 3. An entry with a length has a label, or is to be replaced, and that stays as long as the
//!    length. Whoever faults inside of a range uses memory of its owner, who is alive, so the label
//!    does not go meanwhile.
//!
//! # Failure
//!
//! Where the handler cannot be installed there is no sentence, and nothing else is different.

use std::ffi::{c_int, c_void};
use std::fmt::{self, Write};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::units::PAGE_LEN;

/// What to say about memory that cannot be read.
#[derive(Clone, Default, Debug)]
pub struct Label {
    /// What lies there: a whole that has bytes and blocks.
    pub name: String,
    /// Which byte of it lies at the start of the memory.
    pub first_byte: u64,
    /// Bytes of its blocks.
    pub block_bytes: u64,
    /// Why it cannot be read, if that is known beforehand.
    pub reason: Option<String>,
}

/// A handler with SA_SIGINFO.
type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// One range of addresses in the list.
struct Entry {
    taken: AtomicBool,
    base: AtomicUsize,
    len: AtomicUsize,
    // Invariant 3. Null if the memory is to be replaced.
    label: AtomicPtr<Label>,
    next: OnceLock<Box<Entry>>,
}

static FIRST: Entry = Entry::new();

/// What handled SIGBUS before; empty until the handler is installed.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Entry {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            base: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            label: AtomicPtr::new(ptr::null_mut()),
            next: OnceLock::new(),
        }
    }

    /// A free entry, which the caller has from now on.
    fn take() -> &'static Self {
        let mut entry = &FIRST;
        while entry.taken.swap(true, Ordering::Acquire) {
            entry = entry.next.get_or_init(|| Box::new(Self::new()));
        }
        entry
    }

    /// The entry with the smallest range that holds `address`.
    fn find(address: usize) -> Option<&'static Self> {
        let (mut next, mut found) = (Some(&FIRST), None);
        let mut smallest = usize::MAX;
        while let Some(entry) = next {
            let base = entry.base.load(Ordering::Acquire);
            let len = entry.len.load(Ordering::Acquire);
            if address.wrapping_sub(base) < len && len < smallest {
                (found, smallest) = (Some(entry), len);
            }
            next = entry.next.get().map(Box::as_ref);
        }
        found
    }
}

/// A range of addresses that has a label until this is dropped.
pub(crate) struct Labelled(&'static Entry);

impl Labelled {
    /// Gives `[base, base + len)`, which the caller owns, a label.
    pub(crate) fn new(base: NonNull<u8>, len: usize, label: Label) -> Self {
        install();
        let entry = Entry::take();
        entry.label.store(Box::into_raw(Box::new(label)), Ordering::Release);
        entry.base.store(base.as_ptr().addr(), Ordering::Release);
        entry.len.store(len, Ordering::Release);
        Self(entry)
    }

    /// The label.
    pub(crate) fn label(&self) -> Label {
        let label = self.0.label.load(Ordering::Acquire);
        // SAFETY: set in `new` and there until the drop, unless the memory is to be replaced.
        let label = unsafe { label.as_ref() };
        label.cloned().unwrap_or_default()
    }

    /// The range became `len` bytes long.
    pub(crate) fn set_len(&self, len: usize) {
        self.0.len.store(len, Ordering::Release);
    }
}

impl Drop for Labelled {
    fn drop(&mut self) {
        self.0.len.store(0, Ordering::Release);
        let label = self.0.label.swap(ptr::null_mut(), Ordering::AcqRel);
        if !label.is_null() {
            // SAFETY: made by `Box::into_raw` in `new`, taken out once, and used by no handler any
            // more, because its memory is no longer used (invariant 3).
            drop(unsafe { Box::from_raw(label) });
        }
        self.0.taken.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Labelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Labelled")
    }
}

/// A range of addresses whose pages are replaced by zeros if they cannot be had, until this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Replaced {
    _entry: Labelled,
}

impl Replaced {
    /// Says so of `[base, base + len)`, which the caller owns and maps whole pages of.
    pub(crate) fn new(base: NonNull<u8>, len: usize) -> Self {
        install();
        let entry = Entry::take();
        entry.base.store(base.as_ptr().addr(), Ordering::Release);
        entry.len.store(len, Ordering::Release);
        Self { _entry: Labelled(entry) }
    }
}

/// Installs the handler, once.
fn install() {
    // Miri has no signals.
    if cfg!(miri) {
        return;
    }
    BEFORE.get_or_init(|| {
        // SAFETY: all bytes zero are a valid `sigaction`: the default one.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        let mut ours = before;
        ours.sa_sigaction = on_bus as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both point to a `sigaction`; `on_bus` has the signature SA_SIGINFO asks for. A
        // refusal leaves the default in `before`, which is then never used.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut before) };
        before
    });
}

extern "C" fn on_bus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`.
    let info_ref = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { info_ref.si_addr() }.addr();
    if let Some(entry) = Entry::find(address) {
        if entry.label.load(Ordering::Acquire).is_null() && replace(address) {
            return;
        }
        say(entry, address);
    }
    pass_on(signal, info, context);
}

/// Puts a page of zeros, private to this process, where `address` is.
fn replace(address: usize) -> bool {
    let page = address & !(PAGE_LEN - 1);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page belongs to a `Replaced`, which uses it by atomic accesses only: to them it
    // is a store of zeros by somebody else.
    let got = unsafe {
        libc::mmap(ptr::without_provenance_mut(page), PAGE_LEN, protection, flags, -1, 0)
    };
    got != libc::MAP_FAILED
}

/// One sentence about `address`, which lies in the range of `entry`.
fn say(entry: &Entry, address: usize) {
    let label = entry.label.load(Ordering::Acquire);
    // SAFETY: null, or alive as long as the memory around `address` is in use (invariant 3).
    let Some(label) = (unsafe { label.as_ref() }) else { return };
    let byte = label.first_byte + (address - entry.base.load(Ordering::Acquire)) as u64;
    let block = byte / label.block_bytes.max(1);
    let mut line = Line { bytes: [0; 1024], len: 0 };
    let _ = write!(line, "zbigarray: {}, block {block}, byte {byte}: ", label.name);
    let _ = match &label.reason {
        Some(reason) => write!(line, "this page could not be loaded: {reason}"),
        None => line.write_str(
            "the kernel could not read this page (SIGBUS). The file behind it was cut off, or the \
             disk failed",
        ),
    };
    let end = "; nothing was committed by this. `zba check --data` tells what is damaged.\n";
    let _ = line.write_str(end);
    let text = &line.bytes[..line.len];
    // SAFETY: `text` is readable for its length.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Does what would have been done without our handler.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        // The access is made again when we return, and ends the process.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: `before` came from the kernel.
            unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO the kernel would call it so.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO the kernel would call it so.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Text without allocation; what does not fit is left out.
struct Line {
    bytes: [u8; 1024],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str) -> Label {
        Label { name: name.to_owned(), first_byte: 0, block_bytes: 1, reason: None }
    }

    fn found(address: usize) -> Option<String> {
        let label = Entry::find(address)?.label.load(Ordering::Acquire);
        // SAFETY: the tests below keep what they look for.
        unsafe { label.as_ref() }.map(|label| label.name.clone())
    }

    #[test]
    fn an_address_is_found_in_its_range_while_it_has_a_label() {
        let memory = [0u8; 100];
        let base = NonNull::from(&memory).cast::<u8>();
        let at = base.as_ptr().addr();
        let first = Labelled::new(base, 50, label("first"));
        let far = base.map_addr(|at| at.saturating_add(60));
        let second = Labelled::new(far, 10, label("second"));
        assert_eq!(found(at), Some("first".to_owned()));
        assert_eq!((found(at + 49), found(at + 50)), (Some("first".to_owned()), None));
        assert_eq!(found(at + 69), Some("second".to_owned()));
        first.set_len(55);
        assert_eq!(found(at + 54), Some("first".to_owned()));
        drop(first);
        assert_eq!((found(at), found(at + 60)), (None, Some("second".to_owned())));
        drop(second);
    }
}
