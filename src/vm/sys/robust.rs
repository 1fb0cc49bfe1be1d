//! pthread_mutexattr_setrobust(3): a turn that goes to the next thread when who has it dies.

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::pin::Pin;

use super::SysError;

/// Something that one thread at a time does, until it returns, unwinds, or ends in whatever way.
pub(crate) struct Turn {
    // It must not move: the kernel knows its address.
    mutex: Pin<Box<UnsafeCell<libc::pthread_mutex_t>>>,
}

// SAFETY: a mutex of pthreads is made to be used by any thread.
unsafe impl Send for Turn {}
// SAFETY: as above; nothing but calls that lock and unlock it gets at it.
unsafe impl Sync for Turn {}

impl Turn {
    /// Nobody's turn yet.
    ///
    /// # Errors
    ///
    /// The C library's answer: no memory.
    pub(crate) fn new() -> Result<Self, SysError> {
        let mutex = Box::pin(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: there is room for it.
        answer(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        let robust = libc::PTHREAD_MUTEX_ROBUST;
        // SAFETY: it was initialised above.
        answer(unsafe { libc::pthread_mutexattr_setrobust(attributes, robust) })?;
        // SAFETY: nobody else knows the mutex yet.
        answer(unsafe { libc::pthread_mutex_init(mutex.get(), attributes) })?;
        // SAFETY: it is not used again.
        unsafe { libc::pthread_mutexattr_destroy(attributes) };
        Ok(Self { mutex })
    }

    /// Waits until it is this thread's turn.
    pub(crate) fn take(&self) -> Taken<'_> {
        // SAFETY: it was initialised by `new`, and a thread takes it once only.
        if unsafe { libc::pthread_mutex_lock(self.mutex.get()) } == libc::EOWNERDEAD {
            // SAFETY: this thread has just locked it.
            unsafe { libc::pthread_mutex_consistent(self.mutex.get()) };
        }
        Taken { turn: self, _here: PhantomData }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // SAFETY: who has it borrows this, so nobody does.
        unsafe { libc::pthread_mutex_destroy(self.mutex.get()) };
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

/// It is the turn of the thread that has this.
pub(crate) struct Taken<'a> {
    turn: &'a Turn,
    // It is dropped by the thread that took it.
    _here: PhantomData<*const ()>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread locked it, and nothing has unlocked it since.
        unsafe { libc::pthread_mutex_unlock(self.turn.mutex.get()) };
    }
}

fn answer(number: libc::c_int) -> Result<(), SysError> {
    match number {
        0 => Ok(()),
        _ => Err(SysError::new("pthread_mutex_init", io::Error::from_raw_os_error(number))),
    }
}
