//! A file by its descriptor, with the calls that Miri knows: the standard library's.
//!
//! # Failure
//!
//! What only Linux has is [`io::ErrorKind::Unsupported`], as on a file system that cannot do it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{BackendFile, ByteLock, Growth};
use crate::sync::atomic::Ordering;
use crate::sync::process::AtomicU64;

/// A file by its descriptor.
pub(super) struct RealFile(Arc<OwnedFd>);

impl RealFile {
    pub(super) fn new(fd: Arc<OwnedFd>) -> Self {
        Self(fd)
    }

    fn file(&self) -> io::Result<File> {
        self.0.as_fd().try_clone_to_owned().map(File::from)
    }
}

/// A file that has lost its name.
pub(super) fn memory_file() -> io::Result<Arc<OwnedFd>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("zba-disk-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(Arc::new(file.into()))
}

impl BackendFile for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let (file, mut done) = (self.file()?, 0);
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], offset_bytes + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        let (file, mut offset) = (self.file()?, offset_bytes);
        for part in parts {
            file.write_all_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn allocate(&self, _: u64, _: u64, _: Growth) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        let end = self.len()?.min(offset_bytes.saturating_add(len_bytes));
        let len = usize::try_from(end.saturating_sub(offset_bytes)).unwrap_or(0);
        self.write_at(&[&vec![0; len]], offset_bytes)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.file()?.set_len(len_bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file()?.metadata()?.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.len()
    }

    fn start_writeback(&self, _: u64, _: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn try_lock(&self, _: u64, _: ByteLock) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn locked_by_others(&self, _: &Range<u64>) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }
}
