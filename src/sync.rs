//! Locks, atomics and threads: the only place from which the layers take them.
//!
//! ```text
//! storage, vm, txn --> sync --+-- parking_lot, std     every build
//!                             '-- shuttle              `--cfg shuttle`: tests/concurrency.rs
//! ```
//!
//! Under `--cfg shuttle` every lock, atomic and thread start is a point where the test's scheduler
//! chooses who goes on, so that orders which are rare on a machine are tried on purpose.
//!
//! # Invariants
//!
//! 1. Both sides have the same surface: locks without poisoning and without errors.
//! 2. What outlives a store, a `static`, comes from [`process`]: a schedule ends with its store.
//! 3. No lock of the standard library is held while one of these is taken: the scheduler does not
//!    see it, so its wait would never end.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic;
#[cfg(not(shuttle))]
pub(crate) use std::thread;
#[cfg(all(feature = "compute", not(shuttle)))]
pub(crate) use std::time::Instant;

#[cfg(all(feature = "compute", shuttle))]
pub(crate) use scheduled::Instant;
#[cfg(shuttle)]
pub(crate) use scheduled::thread;
#[cfg(shuttle)]
pub(crate) use scheduled::{Mutex, MutexGuard, RwLock};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;

/// Threads that sleep until another one says that something changed.
#[derive(Default)]
pub(crate) struct Changed(condvar::Condvar);

impl Changed {
    /// Gives `guard` up, sleeps until [`tell`](Self::tell) or without reason, and takes it again.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar::wait(&self.0, guard)
    }

    /// Wakes one who sleeps.
    #[cfg(feature = "compute")]
    pub(crate) fn tell_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who sleep.
    pub(crate) fn tell(&self) {
        self.0.notify_all();
    }
}

#[cfg(not(shuttle))]
mod condvar {
    use super::MutexGuard;

    pub(super) use parking_lot::Condvar;

    pub(super) fn wait<'a, T>(
        condvar: &Condvar,
        mut guard: MutexGuard<'a, T>,
    ) -> MutexGuard<'a, T> {
        condvar.wait(&mut guard);
        guard
    }
}

#[cfg(shuttle)]
mod condvar {
    use super::MutexGuard;

    pub(super) use shuttle::sync::Condvar;

    pub(super) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Atomics and locks for what belongs to the process (invariant 2).
pub(crate) mod process {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::*;
}

#[cfg(shuttle)]
mod scheduled {
    //! The locks of shuttle as `parking_lot` would have them, and a clock.

    #[cfg(feature = "compute")]
    use std::cell::Cell;
    #[cfg(feature = "compute")]
    use std::ops::Sub;
    #[cfg(feature = "compute")]
    use std::time::Duration;

    #[cfg(feature = "compute")]
    use shuttle::rand::{Rng, thread_rng};
    use shuttle::sync::{self, LockResult, TryLockError};

    pub(crate) use shuttle::sync::MutexGuard;

    pub(crate) mod thread {
        //! Threads of which one that sleeps lets all others go on: a scheduler that prefers it
        //! would let it wait for ever.

        pub(crate) use shuttle::thread::*;

        pub(crate) fn sleep(_: std::time::Duration) {
            yield_now();
        }
    }

    /// A clock whose time passes by dice, so that what depends on it can be run again.
    #[cfg(feature = "compute")]
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    #[cfg(feature = "compute")]
    impl Instant {
        /// Most nanoseconds between two looks at the clock.
        const STEP_MAX: u64 = 150_000;

        pub(crate) fn now() -> Self {
            thread_local! {
                static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
            }
            let passed = thread_rng().gen_range(0..Self::STEP_MAX);
            NOW.set(NOW.get() + Duration::from_nanos(passed));
            Self(NOW.get())
        }

        pub(crate) fn duration_since(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }

        pub(crate) fn elapsed(self) -> Duration {
            Self::now().duration_since(self)
        }
    }

    #[cfg(feature = "compute")]
    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, earlier: Self) -> Duration {
            self.duration_since(earlier)
        }
    }

    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            taken(self.0.lock())
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }

    #[derive(Default)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
            taken(self.0.read())
        }

        pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
            taken(self.0.write())
        }
    }

    /// A test that panics has failed; the threads that are left only unwind.
    fn taken<G>(result: LockResult<G>) -> G {
        result.unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
