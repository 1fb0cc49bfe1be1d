//! Missing pages whose faults a scheduler can order: what `uffd` and `robust` are under
//! `--cfg shuttle`.
//!
//! ```text
//! map_missing   pages whose first word says MISSING are moved there, at one stroke; who does it
//!               sleeps until the message about it was read
//! touch         reads a word; MISSING: a fault is queued and the thread sleeps until woken
//! ```
//!
//! # Invariants
//!
//! 1. As with the kernel a thread sleeps until its own page is woken: a wake that is forgotten is a
//!    deadlock, and the scheduler reports it.

pub(crate) mod uffd {
    //! See the real file of that name.

    use std::collections::{BTreeMap, VecDeque};
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use std::ptr::NonNull;
    use std::sync::OnceLock;

    use crate::sync::{Changed, Mutex};
    use crate::vm::sys::madvise;
    use crate::vm::sys::mmap::{self, Access};
    use crate::vm::sys::{SysError, file};

    /// No content begins with it.
    const MISSING: u64 = u64::MAX - 77;
    /// Most bytes that are made missing at once.
    const LEN_MAX: usize = 16 << 20;
    const PAGE: usize = 4096;

    /// See the real one.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Event {
        Fault { address: usize },
        Told,
    }

    #[derive(Default)]
    struct State {
        events: VecDeque<Event>,
        // Moves so far, and those of which the message was read.
        moved: u64,
        told: u64,
        // Who sleeps where, and whether he was woken.
        asleep: BTreeMap<u64, (usize, bool)>,
        next: u64,
        is_over: bool,
    }

    /// See the real one.
    #[derive(Default)]
    pub(crate) struct Uffd {
        state: Mutex<State>,
        changed: Changed,
    }

    impl Uffd {
        #[expect(clippy::unnecessary_wraps, reason = "the surface of the real one")]
        pub(crate) fn open() -> Result<Self, SysError> {
            Ok(Self::default())
        }

        pub(crate) fn serves_system_calls(&self) -> bool {
            false
        }

        /// # Safety
        ///
        /// As the real one.
        pub(crate) unsafe fn map_missing(
            &self,
            at: NonNull<u8>,
            len: usize,
            access: Access,
        ) -> Result<(), SysError> {
            let fresh = mmap::fresh(len, access)?;
            madvise::not_in_child(fresh, len)?;
            // SAFETY: nobody knows `fresh` yet.
            unsafe { mmap::map_file(fresh, len, access, missing(len).as_fd(), 0) }?;
            // SAFETY: the caller owns `at`, and who looks there looks by `touch`.
            unsafe { mmap::move_over(fresh, len, at) }?;
            let mut state = self.state.lock();
            state.moved += 1;
            let own = state.moved;
            state.events.push_back(Event::Told);
            self.changed.tell();
            while state.told < own && !state.is_over {
                state = self.changed.wait(state);
            }
            Ok(())
        }

        pub(crate) fn wake(&self, at: usize, len: usize) {
            let mut state = self.state.lock();
            for (address, woken) in state.asleep.values_mut() {
                *woken |= (at..at + len).contains(address);
            }
            self.changed.tell();
        }

        pub(crate) fn wait(&self) -> bool {
            let mut state = self.state.lock();
            while state.events.is_empty() && !state.is_over {
                state = self.changed.wait(state);
            }
            !state.is_over
        }

        pub(crate) fn end(&self) {
            self.state.lock().is_over = true;
            self.changed.tell();
        }

        #[expect(clippy::unnecessary_wraps, reason = "the surface of the real one")]
        pub(crate) fn read(&self) -> Result<Option<Event>, SysError> {
            let mut state = self.state.lock();
            let event = state.events.pop_front();
            if matches!(event, Some(Event::Told)) {
                state.told += 1;
                self.changed.tell();
            }
            Ok(event)
        }

        /// The word at `address`, which begins a page of a reservation of this process; sleeps as
        /// long as it is missing.
        pub(crate) fn touch(&self, address: usize) -> u64 {
            let mut state = self.state.lock();
            loop {
                // SAFETY: something is mapped there, as the caller says; no thread changes it now,
                // since none runs before this one comes to a lock.
                let seen = unsafe { std::ptr::read_volatile(address as *const u64) };
                if seen != MISSING {
                    return seen;
                }
                let own = state.next;
                state.next += 1;
                state.events.push_back(Event::Fault { address });
                state.asleep.insert(own, (address, false));
                self.changed.tell();
                while !state.asleep[&own].1 {
                    state = self.changed.wait(state);
                }
                state.asleep.remove(&own);
            }
        }
    }

    /// A file of which each page says that it is missing.
    fn missing(len: usize) -> &'static File {
        static FILE: OnceLock<File> = OnceLock::new();
        assert!(len <= LEN_MAX, "{len} bytes");
        FILE.get_or_init(|| {
            let made = file::create_in_memory("missing").map(File::from);
            let made = made.unwrap_or_else(|error| panic!("{error:?}"));
            for page in 0..LEN_MAX / PAGE {
                let written = made.write_all_at(&MISSING.to_le_bytes(), (page * PAGE) as u64);
                written.unwrap_or_else(|error| panic!("{error}"));
            }
            made
        })
    }
}

pub(crate) mod robust {
    //! See the real file of that name.

    use crate::sync::{Changed, Mutex};
    use crate::vm::sys::SysError;

    /// See the real one.
    #[derive(Default)]
    pub(crate) struct Turn {
        is_taken: Mutex<bool>,
        changed: Changed,
    }

    /// See the real one.
    pub(crate) struct Taken<'a>(&'a Turn);

    impl Turn {
        #[expect(clippy::unnecessary_wraps, reason = "the surface of the real one")]
        pub(crate) fn new() -> Result<Self, SysError> {
            Ok(Self::default())
        }

        pub(crate) fn take(&self) -> Taken<'_> {
            let mut is_taken = self.is_taken.lock();
            while *is_taken {
                is_taken = self.changed.wait(is_taken);
            }
            *is_taken = true;
            Taken(self)
        }
    }

    impl Drop for Taken<'_> {
        fn drop(&mut self) {
            *self.0.is_taken.lock() = false;
            self.0.changed.tell();
        }
    }
}
