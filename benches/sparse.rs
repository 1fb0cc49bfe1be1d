//! A directory whose data files get their length and no disk space, so that the index of a store
//! far larger than the disk can be built. Only for stores whose content nobody reads.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use zbigarray::storage::backend::{Access, Backend, BackendFile, ByteLock, Directory, Growth};

/// See the file header.
pub(crate) struct Sparse(Directory);

impl Sparse {
    /// The store in directory `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self(Directory::new(root))
    }
}

fn sparse(file: io::Result<Arc<dyn BackendFile>>) -> io::Result<Arc<dyn BackendFile>> {
    file.map(|file| Arc::new(SparseFile(file)) as Arc<dyn BackendFile>)
}

impl Backend for Sparse {
    fn location(&self) -> String {
        self.0.location()
    }

    fn create_root(&self) -> io::Result<()> {
        self.0.create_root()
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn BackendFile>> {
        sparse(self.0.create(path))
    }

    fn create_unnamed(&self) -> io::Result<Arc<dyn BackendFile>> {
        self.0.create_unnamed()
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn BackendFile>> {
        sparse(self.0.open(path, access))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.0.sync_dir(path)
    }
}

struct SparseFile(Arc<dyn BackendFile>);

impl BackendFile for SparseFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset_bytes)
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        self.0.write_at(parts, offset_bytes)
    }

    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()> {
        let end = offset_bytes + len_bytes;
        if growth == Growth::Extend && self.0.len()? < end {
            return self.0.set_len(end);
        }
        Ok(())
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        self.0.punch(offset_bytes, len_bytes)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len(len_bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.0.allocated_bytes()
    }

    fn start_writeback(&self, offset_bytes: u64, len_bytes: u64) {
        self.0.start_writeback(offset_bytes, len_bytes);
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn try_lock(&self, byte: u64, lock: ByteLock) -> io::Result<bool> {
        self.0.try_lock(byte, lock)
    }

    fn locked_by_others(&self, bytes: &std::ops::Range<u64>) -> io::Result<Option<u64>> {
        self.0.locked_by_others(bytes)
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.0.fd()
    }
}
