//! userfaultfd(2): memory whose missing pages are somebody's task.
//!
//! ```text
//! map_missing   fresh memory elsewhere -> registered -> moved over the pages, at one stroke
//! touch         the thread sleeps; a fault is read -> something is mapped there -> wake
//! ```
//!
//! # Invariants
//!
//! 1. There is no moment at which pages that become missing read as zeros: they are registered
//!    before they are moved to where somebody may look (decision 011).
//! 2. A child of fork has no such pages: touching one ends it, where the kernel by itself would
//!    show it zeros.
//!
//! # Failure
//!
//! The kernel, a container or a policy may forbid the call: then nothing here can be had, and
//! callers load everything before they map it.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_PAGEFAULT, UFFD_FEATURE_EVENT_REMAP, UFFD_USER_MODE_ONLY,
    UFFDIO_REGISTER_MODE_MISSING, uffdio_api, uffdio_range, uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER, UFFDIO_WAKE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::SysError;
use super::{
    madvise,
    mmap::{self, Access},
};

/// Bytes of one message.
const MESSAGE_WORDS: usize = 4;

/// What the kernel told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A thread touched a missing page and sleeps.
    Fault {
        /// The address it touched.
        address: usize,
    },
    /// Something that needs no answer but to be read.
    Told,
}

/// The source of missing pages.
#[derive(Debug)]
pub(crate) struct Uffd {
    file: OwnedFd,
    system_calls: bool,
    // What is written at one end wakes who waits at the other.
    told: PipeReader,
    over: PipeWriter,
}

impl Uffd {
    /// Opens one.
    ///
    /// Where privilege allows, system calls that touch missing pages wait as threads do; else they
    /// fail with `EFAULT`.
    ///
    /// # Errors
    ///
    /// The kernel's answer if it gives none at all.
    pub(crate) fn open() -> Result<Self, SysError> {
        let (told, over) = io::pipe().map_err(|source| SysError::new("pipe", source))?;
        let (file, system_calls) = match Self::create(0) {
            Ok(file) => (file, true),
            Err(_) => (Self::create(UFFD_USER_MODE_ONLY)?, false),
        };
        let mut api = uffdio_api {
            api: u64::from(UFFD_API),
            features: u64::from(UFFD_FEATURE_EVENT_REMAP),
            ioctls: 0,
        };
        // SAFETY: the call reads and writes one `uffdio_api`.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), UFFDIO_API.into(), &raw mut api) };
        if answer != 0 {
            return Err(SysError::last("ioctl(UFFDIO_API)"));
        }
        Ok(Self { file, system_calls, told, over })
    }

    fn create(flags: u32) -> Result<OwnedFd, SysError> {
        let flags = libc::c_long::from(flags) | libc::c_long::from(libc::O_CLOEXEC);
        let flags = flags | libc::c_long::from(libc::O_NONBLOCK);
        // SAFETY: the call takes flags only.
        let number = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let number = i32::try_from(number).unwrap_or(-1);
        if number < 0 {
            return Err(SysError::last("userfaultfd"));
        }
        // SAFETY: the kernel has just opened it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Whether system calls that touch missing pages wait too.
    pub(crate) fn serves_system_calls(&self) -> bool {
        self.system_calls
    }

    /// Replaces `[at, at + len)` by missing pages.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, and whoever has a reference into them finds what he knows
    /// once the pages are mapped again.
    pub(crate) unsafe fn map_missing(
        &self,
        at: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<(), SysError> {
        let fresh = mmap::fresh(len, access)?;
        let moved = self.register(fresh, len).and_then(|()| {
            madvise::not_in_child(fresh, len)?;
            // SAFETY: the caller owns `at`, and nobody knows `fresh` yet.
            unsafe { mmap::move_over(fresh, len, at) }
        });
        if moved.is_err() {
            // What stays mapped is a leak of addresses, and no harm.
            // SAFETY: nobody knows these addresses.
            drop(unsafe { mmap::release(fresh, len) });
        }
        moved
    }

    fn register(&self, at: NonNull<u8>, len: usize) -> Result<(), SysError> {
        let range = range(at.addr().get(), len);
        let mode = u64::from(UFFDIO_REGISTER_MODE_MISSING);
        let mut wish = uffdio_register { range, mode, ioctls: 0 };
        let number = self.file.as_raw_fd();
        // SAFETY: the call reads and writes one `uffdio_register`; missing pages change nothing
        // for who has pages there.
        match unsafe { libc::ioctl(number, UFFDIO_REGISTER.into(), &raw mut wish) } {
            0 => Ok(()),
            _ => Err(SysError::last("ioctl(UFFDIO_REGISTER)")),
        }
    }

    /// Wakes the threads that sleep because of a page in `[at, at + len)`; they look again.
    pub(crate) fn wake(&self, at: usize, len: usize) {
        let mut range = range(at, len);
        // SAFETY: the call reads one `uffdio_range`. It can only fail for ranges that are none.
        unsafe { libc::ioctl(self.file.as_raw_fd(), UFFDIO_WAKE.into(), &raw mut range) };
    }

    /// Waits until there may be an event; `false` after [`end`](Self::end).
    pub(crate) fn wait(&self) -> bool {
        let files = [self.file.as_fd(), self.told.as_fd()];
        let mut files = files.map(|file| PollFd::new(file, PollFlags::POLLIN));
        // An interrupted wait is begun again by who asks.
        let ready = poll(&mut files, PollTimeout::NONE);
        !(matches!(ready, Ok(1..)) && files[1].any() == Some(true))
    }

    /// Ends all waiting.
    pub(crate) fn end(&self) {
        // There is room in the pipe.
        drop((&self.over).write(&[1]));
    }

    /// The next event; `None` if there is none now.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub(crate) fn read(&self) -> Result<Option<Event>, SysError> {
        let mut message = [0_u64; MESSAGE_WORDS];
        let len = size_of_val(&message);
        // SAFETY: `message` can be written for its length.
        let got = unsafe { libc::read(self.file.as_raw_fd(), message.as_mut_ptr().cast(), len) };
        if usize::try_from(got).is_ok_and(|got| got == len) {
            let is_fault = message[0] & 0xff == u64::from(UFFD_EVENT_PAGEFAULT);
            let address = super::to_usize(message[2]);
            return Ok(Some(if is_fault { Event::Fault { address } } else { Event::Told }));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(SysError::new("read of userfaultfd", error)),
        }
    }
}

fn range(at: usize, len: usize) -> uffdio_range {
    uffdio_range { start: at as u64, len: len as u64 }
}
