//! The real back end: a directory of the file system.
//!
//! Files are opened with `O_CLOEXEC` and `O_NOFOLLOW` and must be regular files. Directories get
//! mode 0777 and files 0666 less the umask, as git does it: who wants to share a store with a group
//! says so with the umask, and who wants it private keeps the directory above private.
//!
//! # Invariants
//!
//! 1. Locks belong to the open file (`F_OFD_SETLK`): the kernel drops them with the last
//!    descriptor, also when the process is killed, and another open file of this process counts
//!    as another owner.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, PosixFadviseAdvice};
use nix::sys::{stat, statfs, uio};
use nix::unistd;

use super::{Access, Backend, BackendFile, ByteLock, FileSystem, Growth};

/// A store in a directory of the file system.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The store in directory `root`, which need not exist yet.
    ///
    /// A relative path is meant from where the program stands now, not from where it goes later.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Backend for Directory {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        let found = uninterrupted(|| statfs::statfs(&self.root));
        let found = match (found, self.root.parent()) {
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                uninterrupted(|| statfs::statfs(parent))
            }
            (found, _) => found,
        }?;
        // The type has another width and sign on each processor; the number has 32 bits.
        let magic = found.filesystem_type().0 & 0xFFFF_FFFF;
        Ok(FileSystem::of_magic(u32::try_from(magic).unwrap_or(0)))
    }

    fn create_root(&self) -> io::Result<()> {
        let is_new = match fs::create_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            other => other.map(|()| true)?,
        };
        let Some(parent) = self.root.parent() else { return Ok(()) };
        match sync_directory(parent) {
            // Who may use a directory need not be able to read the one above it.
            Err(error) if !is_new && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            // Also for a directory that was there: who made it may not have made it durable.
            other => other,
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        fs::create_dir(self.at(path))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn BackendFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).custom_flags(libc::O_NOFOLLOW);
        Ok(Arc::new(RealFile::new(Arc::new(options.open(self.at(path))?.into()))))
    }

    fn create_unnamed(&self) -> io::Result<Arc<dyn BackendFile>> {
        let unnamed = |directory: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600);
            options.open(directory)
        };
        // A store on a read-only file system, or somebody else's, has no room for our copies.
        let file = unnamed(&self.root).or_else(|_| unnamed(&std::env::temp_dir()))?;
        Ok(Arc::new(RealFile::new(Arc::new(file.into()))))
    }

    fn open_cache(&self, path: &str) -> io::Result<Option<Arc<dyn BackendFile>>> {
        match self.open(path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(Some),
        }
        match self.create(path) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.open(path, Access::Write).map(Some)
            }
            other => other.map(Some),
        }
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn BackendFile>> {
        let mut options = OpenOptions::new();
        // A FIFO in the place of a file must not make us wait for its other end.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.write(access == Access::Write).open(self.at(path))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Arc::new(RealFile::new(Arc::new(file.into()))))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = loop {
            match fs::read_dir(self.at(path)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        sync_directory(&self.at(path))
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // A FIFO in the place of a directory must not make us wait for its other end.
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
    // Not `File::sync_all`, which repeats a sync that was interrupted: see `sync_data`.
    match unistd::fsync(&directory) {
        // The answer of file systems whose directories are always as durable as they get.
        Err(Errno::EINVAL) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}

/// A file by its descriptor.
pub(super) struct RealFile(Arc<OwnedFd>);

const IOV_MAX: usize = 1024;
/// Bytes that are copied at once where the system cannot read them.
const COPIED_BYTES: usize = 256 << 10;

fn signed(number: u64) -> io::Result<i64> {
    i64::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

impl BackendFile for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let offset = signed(offset_bytes.saturating_add(done as u64))?;
            match uninterrupted(|| uio::pread(&self.0, &mut bytes[done..], offset))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        let mut offset = offset_bytes;
        // Empty slices in front must go, or a write of nothing would look like a full device.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let batch = &left[..left.len().min(IOV_MAX)];
            let at = signed(offset)?;
            let written = match uninterrupted(|| uio::pwritev(&self.0, batch, at)) {
                // Memory that is loaded when it is touched: the system may not wait for that, but
                // we do.
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    let copy = left[0][..left[0].len().min(COPIED_BYTES)].to_vec();
                    uninterrupted(|| uio::pwrite(&self.0, &copy, at))?
                }
                written => written?,
            };
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()> {
        let flags = match growth {
            Growth::KeepLen => FallocateFlags::FALLOC_FL_KEEP_SIZE,
            Growth::Extend => FallocateFlags::empty(),
        };
        self.fallocate(flags, offset_bytes, len_bytes)
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.fallocate(flags, offset_bytes, len_bytes)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let len = signed(len_bytes)?;
        uninterrupted(|| unistd::ftruncate(&self.0, len))
    }

    fn len(&self) -> io::Result<u64> {
        let found = uninterrupted(|| stat::fstat(&self.0))?;
        Ok(u64::try_from(found.st_size).unwrap_or(0))
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        let found = uninterrupted(|| stat::fstat(&self.0))?;
        Ok(u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512))
    }

    fn start_writeback(&self, offset_bytes: u64, len_bytes: u64) {
        let (Ok(offset), Ok(len)) = (signed(offset_bytes), signed(len_bytes)) else { return };
        // The advice starts write-back without waiting for it. It also lets go of clean pages of
        // the range, of which there are none: they were written a moment ago.
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = nix::fcntl::posix_fadvise(&self.0, offset, len, advice);
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated after EINTR: a second sync may forget what the first one lost.
        unistd::fdatasync(&self.0).map_err(io::Error::from)
    }

    fn try_lock(&self, byte: u64, lock: ByteLock) -> io::Result<bool> {
        let kind = match lock {
            ByteLock::None => libc::F_UNLCK,
            ByteLock::Shared => libc::F_RDLCK,
            ByteLock::Exclusive => libc::F_WRLCK,
        };
        let range = libc::flock {
            l_type: i16::try_from(kind).unwrap_or(i16::MAX),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(i16::MAX),
            l_start: signed(byte)?,
            l_len: 1,
            l_pid: 0,
        };
        match uninterrupted(|| nix::fcntl::fcntl(&self.0, FcntlArg::F_OFD_SETLK(&range))) {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn locked_by_others(&self, bytes: &Range<u64>) -> io::Result<Option<u64>> {
        let mut range = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).unwrap_or(i16::MAX),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(i16::MAX),
            l_start: signed(bytes.start)?,
            l_len: signed(bytes.end.saturating_sub(bytes.start))?,
            l_pid: 0,
        };
        if range.l_len == 0 {
            return Ok(None);
        }
        uninterrupted(|| nix::fcntl::fcntl(&self.0, FcntlArg::F_OFD_GETLK(&mut range)))?;
        let is_free = i32::from(range.l_type) == libc::F_UNLCK;
        let first = u64::try_from(range.l_start).unwrap_or(0).max(bytes.start);
        Ok((!is_free).then_some(first))
    }

    fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }
}

impl RealFile {
    pub(super) fn new(fd: Arc<OwnedFd>) -> Self {
        Self(fd)
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (offset, len) = (signed(offset)?, signed(len)?);
        uninterrupted(|| nix::fcntl::fallocate(self.0.as_fd(), flags, offset, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::new(&temporary.path().join("store"));
        directory.create_root().unwrap();
        (temporary, directory)
    }

    #[test]
    fn a_file_reads_back_what_many_slices_wrote_and_short_reads_say_so() {
        let (_temporary, directory) = directory();
        let file = directory.create("f").unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_le_bytes().to_vec()).collect();
        let mut slices: Vec<&[u8]> = vec![b""];
        slices.extend(parts.iter().map(Vec::as_slice));
        file.write_at(&slices, 5).unwrap();
        let mut bytes = vec![0; 20_000];
        assert_eq!(file.read_at(&mut bytes, 5).unwrap(), 12_000);
        assert_eq!(bytes[..12_000], parts.concat());
        assert!(directory.create("f").is_err(), "created only once");
    }

    #[test]
    fn locks_of_two_open_files_exclude_each_other_byte_by_byte() {
        let (_temporary, directory) = directory();
        directory.create("shared").unwrap();
        let open = || directory.open("shared", Access::Write).unwrap();
        let (a, b) = (open(), open());
        assert!(a.try_lock(0, ByteLock::Exclusive).unwrap());
        assert!(!b.try_lock(0, ByteLock::Exclusive).unwrap());
        assert!(b.try_lock(1, ByteLock::Shared).unwrap());
        assert!(a.try_lock(1, ByteLock::Shared).unwrap());
        assert!(!a.try_lock(1, ByteLock::Exclusive).unwrap());
        drop(b);
        assert!(a.try_lock(1, ByteLock::Exclusive).unwrap());
        let reader = directory.open("shared", Access::Read).unwrap();
        assert!(!reader.try_lock(1, ByteLock::Shared).unwrap());
    }

    #[test]
    fn a_directory_lies_where_the_one_above_it_does_until_it_exists() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |path: &str| Directory::new(&temporary.path().join(path)).file_system();
        assert_eq!(at("new").unwrap(), at("").unwrap());
        assert_eq!(at("no/new").unwrap_err().kind(), io::ErrorKind::NotFound);
        let proc = Directory::new(Path::new("/proc"));
        assert_eq!(proc.file_system().unwrap(), FileSystem::Local);
    }

    #[test]
    fn links_and_directories_are_not_opened_as_files() {
        let (_temporary, directory) = directory();
        std::os::unix::fs::symlink("/etc/hostname", directory.at("link")).unwrap();
        directory.create_dir("dir").unwrap();
        assert!(directory.open("link", Access::Read).is_err());
        assert!(directory.open("dir", Access::Read).is_err());
    }
}
