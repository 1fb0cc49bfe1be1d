//! fork(2): files that a child must not keep open.
//!
//! A lock of an open file (`F_OFD_SETLK`) lasts until the last descriptor of it is closed, so a
//! child that was forked off would keep the locks of its parent, also when the parent was killed.
//! In the child each such descriptor becomes one of `/dev/null`: its number stays in use, so that
//! whoever closes it later closes nothing of somebody else.
//!
//! What a child has mapped stays there as long as it lives: who uses files again that it may have
//! mapped looks at [`count`].
//!
//! # Invariants
//!
//! 1. What runs in the child calls nothing but `open`, `dup3` and `close` and takes no lock
//!    (signal-safety(7)): another thread may have held any.
//!
//! # Failure
//!
//! More files than places are left as they are. A child that was made without the C library's
//! `fork`, by `clone` or `vfork`, keeps everything until it starts a program.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

const NONE: i32 = -1;
const PLACES: usize = 256;

static FORKS: AtomicU64 = AtomicU64::new(0);
static FILES: [AtomicI32; PLACES] = [const { AtomicI32::new(NONE) }; PLACES];

/// An open file that children of this process do not get, until this is dropped.
#[derive(Debug)]
pub struct NotInChild {
    place: Option<usize>,
    // Open as long as its number is in the list.
    _file: Arc<OwnedFd>,
}

impl NotInChild {
    /// Keeps `file` from children that are forked off from now on.
    #[must_use]
    pub fn new(file: Arc<OwnedFd>) -> Self {
        install();
        let number = file.as_raw_fd();
        let free = |place: &AtomicI32| {
            place.compare_exchange(NONE, number, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        Self { place: FILES.iter().position(free), _file: file }
    }
}

/// Has both handlers called from now on.
fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // SAFETY: the handlers keep invariant 1. If there is no memory for them, children keep
        // the files, as the header says of other cases.
        unsafe { libc::pthread_atfork(Some(before), None, Some(in_child)) };
    });
}

/// How often this process was about to be forked since the first call.
#[must_use]
pub fn count() -> u64 {
    install();
    FORKS.load(Ordering::Acquire)
}

extern "C" fn before() {
    FORKS.fetch_add(1, Ordering::AcqRel);
}

impl Drop for NotInChild {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            FILES[place].store(NONE, Ordering::Release);
        }
    }
}

extern "C" fn in_child() {
    let files = FILES.iter().map(|place| place.swap(NONE, Ordering::AcqRel));
    for number in files.filter(|&number| number != NONE) {
        // SAFETY: the path is a string with an end.
        let nothing = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        if nothing < 0 {
            // Closed is better than kept: reads and locks through it fail.
            // SAFETY: the number is that of a file which only the parent uses.
            unsafe { libc::close(number) };
            continue;
        }
        // SAFETY: both are open files of this process, and only the parent uses the second.
        unsafe { libc::dup3(nothing, number, libc::O_CLOEXEC) };
        // SAFETY: nobody else knows it.
        unsafe { libc::close(nothing) };
    }
}
