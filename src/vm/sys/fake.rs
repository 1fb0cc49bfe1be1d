//! The kernel as far as Miri needs one: the same functions over memory of the allocator.
//!
//! ```text
//! reserve      one allocation, not initialised: reading a closed page is an error Miri reports
//! map_file     the bytes of the file are copied there and kept aside
//! pagemap      a page is written if it differs from what was kept aside
//! drop_copies  what was kept aside is copied back
//! ```
//!
//! What Miri checks with it: that no reference into a reservation is used after what lies there
//! was changed, that views are made of initialised memory inside one reservation, and that what is
//! borrowed twice is borrowed as the language allows.
//!
//! # Invariants
//!
//! 1. An allocation is given back when all of it was released, and not before.
//! 2. Other than the kernel, the fake does not see a store that did not change a value.
//!
//! # Failure
//!
//! Protection is not modelled: a write to read-only pages goes unnoticed here.

use std::alloc::{Layout, alloc, dealloc};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard};

use super::SysError;

const PAGE: usize = 4096;
/// Reservations begin at a multiple of it, so nothing is cut off in front.
const ALIGN: usize = 2 << 20;

#[derive(Clone, PartialEq, Eq)]
enum Page {
    Released,
    Closed,
    Placed(Vec<u8>),
}

struct Area {
    base: *mut u8,
    layout: Layout,
    pages: Vec<Page>,
}

// SAFETY: the pointer is used only by who owns the addresses, as with the kernel.
unsafe impl Send for Area {}

static AREAS: Mutex<Vec<Area>> = Mutex::new(Vec::new());

fn areas() -> MutexGuard<'static, Vec<Area>> {
    AREAS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Gives every page of `[at, at + len)` to `each`, with where it lies.
fn for_pages(at: usize, len: usize, mut each: impl FnMut(usize, &mut Page, *mut u8)) -> bool {
    let mut areas = areas();
    let inside = |area: &&mut Area| {
        area.base.addr() <= at && at + len <= area.base.addr() + area.layout.size()
    };
    let Some(area) = areas.iter_mut().find(inside) else { return false };
    let first = (at - area.base.addr()) / PAGE;
    for number in first..first + len.div_ceil(PAGE) {
        let address = area.base.wrapping_add(number * PAGE);
        each(address.addr(), &mut area.pages[number], address);
    }
    true
}

/// Changes `[at, at + len)` to hold `content`, page by page.
///
/// # Safety
///
/// The caller owns the addresses and no reference into them is alive.
unsafe fn place(at: NonNull<u8>, len: usize, content: &[u8]) {
    let known = for_pages(at.addr().get(), len, |address, page, _| {
        let from = address - at.addr().get();
        // SAFETY: inside `[at, at + len)`, which the caller owns.
        let to = unsafe { at.as_ptr().add(from) };
        // SAFETY: `to` begins a page that the caller owns; `content` has `len` bytes.
        unsafe { ptr::copy_nonoverlapping(content[from..].as_ptr(), to, PAGE) };
        *page = Page::Placed(content[from..from + PAGE].to_vec());
    });
    assert!(known, "only reserved addresses are mapped");
}

pub(crate) mod mmap {
    //! See the real file of that name.

    use std::fs::File;
    use std::mem::ManuallyDrop;
    use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
    use std::os::unix::fs::FileExt;

    use super::*;

    /// See the real one.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Access {
        /// Reading.
        ReadOnly,
        /// Reading and writing a copy.
        CopyOnWrite,
    }

    pub(crate) fn reserve(len: usize) -> Result<NonNull<u8>, SysError> {
        let refused = || SysError::OutOfMemory { call: "mmap" };
        if len > 1 << 30 {
            return Err(refused());
        }
        let layout = Layout::from_size_align(len, ALIGN).map_err(|_| refused())?;
        // SAFETY: a reservation is never empty.
        let base = unsafe { alloc(layout) };
        let pages = vec![Page::Closed; len / PAGE];
        areas().push(Area { base, layout, pages });
        NonNull::new(base).ok_or_else(refused)
    }

    pub(crate) fn reserve_at(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
        let mut free = true;
        let known = for_pages(at.addr().get(), len, |_, page, _| free &= *page == Page::Released);
        if !known || !free {
            return Err(SysError::AddressTaken);
        }
        for_pages(at.addr().get(), len, |_, page, _| *page = Page::Closed);
        Ok(())
    }

    /// # Safety
    ///
    /// As the real one.
    pub(crate) unsafe fn release(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
        for_pages(at.addr().get(), len, |_, page, _| *page = Page::Released);
        let is_gone = |area: &mut Area| area.pages.iter().all(|page| *page == Page::Released);
        let gone: Vec<Area> = areas().extract_if(.., is_gone).collect();
        for area in gone {
            // SAFETY: made by `alloc` with this layout; its owner released all of it.
            unsafe { dealloc(area.base, area.layout) };
        }
        Ok(())
    }

    /// # Safety
    ///
    /// As the real one.
    pub(crate) unsafe fn close(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
        let nothing = [MaybeUninit::<u8>::uninit(); PAGE];
        for_pages(at.addr().get(), len, |address, page, _| {
            // SAFETY: inside of what the caller owns.
            let to = unsafe { at.as_ptr().add(address - at.addr().get()) };
            // SAFETY: a page that the caller owns; afterwards it is not initialised.
            unsafe { ptr::copy_nonoverlapping(nothing.as_ptr(), to.cast(), PAGE) };
            *page = Page::Closed;
        });
        Ok(())
    }

    /// # Safety
    ///
    /// As the real one.
    pub(crate) unsafe fn map_zeros(
        at: NonNull<u8>,
        len: usize,
        _access: Access,
    ) -> Result<(), SysError> {
        // SAFETY: as the caller promises.
        unsafe { place(at, len, &vec![0; len]) };
        Ok(())
    }

    /// # Safety
    ///
    /// As the real one.
    pub(crate) unsafe fn map_file(
        at: NonNull<u8>,
        len: usize,
        _access: Access,
        file: BorrowedFd<'_>,
        offset_bytes: u64,
    ) -> Result<(), SysError> {
        // SAFETY: the descriptor is open while it is borrowed, and is not closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file.as_raw_fd()) });
        let mut content = vec![0; len];
        let mut done = 0;
        while done < len {
            let read = file.read_at(&mut content[done..], offset_bytes + done as u64);
            match read.map_err(|source| SysError::new("mmap", source))? {
                0 => break,
                count => done += count,
            }
        }
        // SAFETY: as the caller promises.
        unsafe { place(at, len, &content) };
        Ok(())
    }
}

pub(crate) mod madvise {
    //! See the real file of that name.

    use super::*;

    /// See the real one.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Advice {
        HugePage,
        NoHugePage,
        Random,
        Sequential,
        WillNeed,
    }

    pub(crate) fn advise(_: NonNull<u8>, _: usize, _: Advice) -> Result<(), SysError> {
        Ok(())
    }

    pub(crate) fn is_unreadable(_: NonNull<u8>, _: usize) -> bool {
        false
    }

    /// # Safety
    ///
    /// As the real one.
    pub(crate) unsafe fn drop_copies(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
        for_pages(at.addr().get(), len, |address, page, _| {
            let Page::Placed(original) = page else { return };
            // SAFETY: inside of what the caller owns.
            let to = unsafe { at.as_ptr().add(address - at.addr().get()) };
            // SAFETY: a page that the caller owns.
            unsafe { ptr::copy_nonoverlapping(original.as_ptr(), to, PAGE) };
        });
        Ok(())
    }
}

pub(crate) mod pagemap {
    //! See the real file of that name.

    use super::*;

    #[derive(Clone, Copy, Default)]
    pub(crate) struct Region {
        pub(crate) start: u64,
        pub(crate) end: u64,
    }

    impl Region {
        pub(crate) const fn is_zeros(&self) -> bool {
            false
        }
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Entry {
        Clean,
        Written,
        ZerosOrWritten,
    }

    pub(crate) struct Pagemap;

    impl Pagemap {
        pub(crate) fn open() -> Result<Self, SysError> {
            Ok(Self)
        }

        pub(crate) fn scan(
            &self,
            start: u64,
            end: u64,
            found: &mut [Region],
        ) -> Result<usize, SysError> {
            let mut count = 0;
            let mut add = |page: u64| {
                if count < found.len() {
                    found[count] = Region { start: page, end: page + PAGE as u64 };
                    count += 1;
                }
            };
            let (start, len) =
                (crate::vm::sys::to_usize(start), crate::vm::sys::to_usize(end - start));
            for_pages(start, len, |address, page, at| {
                if is_written(page, at) {
                    add(address as u64);
                }
            });
            Ok(count)
        }

        pub(crate) fn entries(
            &self,
            first: u64,
            count: u64,
            _buffer: &mut [u8],
            mut visit: impl FnMut(u64, Entry),
        ) -> Result<(), SysError> {
            let start = crate::vm::sys::to_usize(first) * PAGE;
            for_pages(start, crate::vm::sys::to_usize(count) * PAGE, |address, page, at| {
                let entry = if is_written(page, at) { Entry::Written } else { Entry::Clean };
                visit((address / PAGE) as u64, entry);
            });
            Ok(())
        }
    }

    fn is_written(page: &Page, at: *mut u8) -> bool {
        let Page::Placed(original) = page else { return false };
        let mut now = vec![0; PAGE];
        // SAFETY: a placed page is initialised, and whoever may write it has lent it for this call.
        unsafe { ptr::copy_nonoverlapping(at, now.as_mut_ptr(), PAGE) };
        now != *original
    }
}

pub(crate) mod uffd {
    //! See the real file of that name: Miri has none, so everything is loaded before it is mapped.

    use std::io;
    use std::ptr::NonNull;

    use super::SysError;
    use super::mmap::Access;

    /// See the real one.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Event {
        Fault { address: usize },
    }

    /// See the real one.
    #[derive(Debug)]
    pub(crate) struct Uffd;

    impl Uffd {
        pub(crate) fn open() -> Result<Self, SysError> {
            let source = io::ErrorKind::Unsupported.into();
            Err(SysError::Other { call: "userfaultfd", source })
        }

        pub(crate) fn serves_system_calls(&self) -> bool {
            false
        }

        pub(crate) unsafe fn map_missing(
            &self,
            _: NonNull<u8>,
            _: usize,
            _: Access,
        ) -> Result<(), SysError> {
            Ok(())
        }

        pub(crate) fn wake(&self, _: usize, _: usize) {}

        pub(crate) fn wait(&self) -> bool {
            false
        }

        pub(crate) fn end(&self) {}

        pub(crate) fn read(&self) -> Result<Option<Event>, SysError> {
            Ok(None)
        }
    }
}

pub(crate) mod robust {
    //! See the real file of that name: where there are no faults, nobody reads them.

    use super::SysError;

    pub(crate) struct Turn;

    pub(crate) struct Taken;

    impl Turn {
        pub(crate) fn new() -> Result<Self, SysError> {
            Ok(Self)
        }

        pub(crate) fn take(&self) -> Taken {
            Taken
        }
    }
}

pub(crate) mod fork {
    //! See the real file of that name: Miri does not fork.

    pub(crate) fn count() -> u64 {
        0
    }
}

pub(crate) mod limits {
    //! See the real file of that name.

    pub(crate) fn processors() -> usize {
        2
    }

    pub(crate) fn memory_bytes() -> Option<u64> {
        None
    }

    pub(crate) fn page_bytes() -> Option<u64> {
        Some(super::PAGE as u64)
    }

    pub(crate) fn mappings_max() -> Option<u64> {
        None
    }
}

pub(crate) mod file {
    //! See the real file of that name.

    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::SysError;

    /// See the real one.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct FileFacts {
        pub(crate) device: u64,
        pub(crate) inode: u64,
        pub(crate) len_bytes: u64,
    }

    fn opened(file: BorrowedFd<'_>) -> Result<File, SysError> {
        file.try_clone_to_owned().map(File::from).map_err(|source| SysError::new("dup", source))
    }

    pub(crate) fn facts(file: BorrowedFd<'_>) -> Result<FileFacts, SysError> {
        let facts = opened(file)?.metadata().map_err(|source| SysError::new("fstat", source))?;
        Ok(FileFacts { device: 0, inode: 0, len_bytes: facts.len() })
    }

    /// A file that has lost its name.
    pub(crate) fn create_in_memory(name: &str) -> Result<OwnedFd, SysError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let refused = |source: io::Error| SysError::new("memfd_create", source);
        if name.contains('\0') || name.len() > 249 {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zba-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path).map_err(refused)?;
        std::fs::remove_file(&path).map_err(refused)?;
        Ok(file.into())
    }

    pub(crate) fn set_len(file: BorrowedFd<'_>, len_bytes: u64) -> Result<(), SysError> {
        let refused = |source| SysError::new("ftruncate", source);
        if i64::try_from(len_bytes).is_err() {
            return Err(refused(io::ErrorKind::FileTooLarge.into()));
        }
        opened(file)?.set_len(len_bytes).map_err(refused)
    }

    pub(crate) fn seal_len(_: BorrowedFd<'_>) -> Result<(), SysError> {
        Ok(())
    }

    pub(crate) fn seal_bytes(_: BorrowedFd<'_>) -> Result<(), SysError> {
        Ok(())
    }
}
