//! The lossy file system behind FUSE, in a process of its own, told by lines on standard input.
//!
//! ```text
//! reset | crash | mend | direct | cap BYTES | counts
//! fail REQUEST N ERRNO|short|lost once|lasting                      -> ok, and counts of requests
//! ```
//!
//! `crash` and `reset` unmount and mount again, so that nothing stays in the kernel's caches.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

use crate::lossy::{Fault, How, Lossy};

/// The first word of the server's command line.
pub(crate) const WORD: &str = "serve";

const TTL: Duration = Duration::from_secs(60);

/// The server: serves a mount point until its input ends. Returns whether that worked.
pub(crate) fn main(words: &[&str]) -> bool {
    let [mount_point] = words else { return false };
    match serve(Path::new(mount_point)) {
        Ok(()) => true,
        Err(error) => {
            println!("error {error}");
            false
        }
    }
}

fn serve(mount_point: &Path) -> io::Result<()> {
    let lossy = Arc::new(Mutex::new(Lossy::new()));
    let mut session = mounted(&lossy, mount_point)?;
    println!("ok");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["crash"] | ["reset"] => {
                let_go(mount_point)?;
                session.umount_and_join()?;
                match words[0] {
                    "crash" => lock(&lossy).crash(),
                    _ => *lock(&lossy) = Lossy::new(),
                }
                session = mounted(&lossy, mount_point)?;
            }
            ["mend"] => lock(&lossy).mend(),
            ["direct"] => lock(&lossy).set_direct(),
            ["cap", bytes] => lock(&lossy).set_cap(bytes.parse().unwrap_or(usize::MAX)),
            ["fail", request, number, how, lasting] => lock(&lossy).set_fault(Fault {
                request: (*request).to_owned(),
                number: number.parse().unwrap_or(1),
                how: match *how {
                    "short" => How::Short,
                    "lost" => How::Lost,
                    errno => How::Error(errno.parse().unwrap_or(libc::EIO)),
                },
                lasting: *lasting == "lasting",
            }),
            _ => {}
        }
        let counts = lock(&lossy).counts().clone();
        let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name}={n}")).collect();
        println!("ok {}", counts.join(" "));
        io::stdout().flush()?;
    }
    session.umount_and_join()
}

/// Waits until no process has a file open: a store that was closed may still be loading ahead.
fn let_go(mount_point: &Path) -> io::Result<()> {
    let open = || -> io::Result<bool> {
        for process in std::fs::read_dir("/proc")? {
            let process = process?.path();
            let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
            if maps.contains(&*mount_point.to_string_lossy()) {
                return Ok(true);
            }
            let Ok(files) = std::fs::read_dir(process.join("fd")) else { continue };
            let mut targets =
                files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
            if targets.any(|target| target.starts_with(mount_point)) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    for _ in 0..100 {
        if !open()? {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn mounted(lossy: &Arc<Mutex<Lossy>>, mount_point: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("lossy".to_owned())];
    fuser::spawn_mount(Served(Arc::clone(lossy)), mount_point, &config)
}

fn lock(lossy: &Arc<Mutex<Lossy>>) -> MutexGuard<'_, Lossy> {
    lossy.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Served(Arc<Mutex<Lossy>>);

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn name_of(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn attributes(lossy: &Lossy, inode: u64) -> Result<FileAttr, i32> {
    let node = lossy.node(inode)?;
    let (kind, perm) = match node.is_dir {
        true => (FileType::Directory, 0o755),
        false => (FileType::RegularFile, 0o644),
    };
    Ok(FileAttr {
        ino: INodeNo(inode),
        size: node.live.len() as u64,
        blocks: 8 * lossy.pages(inode) as u64,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Served {
    fn lossy(&self) -> MutexGuard<'_, Lossy> {
        lock(&self.0)
    }

    fn made(&self, request: &str, parent: INodeNo, name: &OsStr) -> Result<FileAttr, i32> {
        let mut lossy = self.lossy();
        lossy.whole(request)?;
        let inode = lossy.create(parent.0, &name_of(name), request == "mkdir")?;
        attributes(&lossy, inode)
    }
}

fn flags_of(lossy: &Lossy, inode: INodeNo) -> FopenFlags {
    match lossy.is_direct(inode.0) {
        true => FopenFlags::FOPEN_DIRECT_IO,
        false => FopenFlags::empty(),
    }
}

/// Sends a reply that has nothing to say but that it worked.
fn answer(result: Result<(), i32>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(Errno::from_i32(errno)),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let lossy = self.lossy();
        let found = lossy.lookup(parent.0, &name_of(name));
        match found.and_then(|inode| attributes(&lossy, inode)) {
            Ok(found) => reply.entry(&TTL, &found, Generation(0)),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.lossy(), inode.0) {
            // Others than the kernel change the number of blocks, so it must ask.
            Ok(found) => reply.attr(&Duration::ZERO, &found),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut lossy = self.lossy();
        let done = match size {
            Some(size) => {
                let fate = lossy.whole("setattr");
                fate.and_then(|()| lossy.set_len(inode.0, index(size)))
            }
            None => Ok(()),
        };
        match done.and_then(|()| attributes(&lossy, inode.0)) {
            Ok(found) => reply.attr(&Duration::ZERO, &found),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        match self.made("mkdir", parent, name) {
            Ok(made) => reply.entry(&TTL, &made, Generation(0)),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.made("create", parent, name) {
            Ok(made) => {
                let flags = flags_of(&self.lossy(), made.ino);
                reply.created(&TTL, &made, Generation(0), FileHandle(0), flags);
            }
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut lossy = self.lossy();
        let fate = lossy.whole("unlink");
        answer(fate.and_then(|()| lossy.unlink(parent.0, &name_of(name))), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut lossy = self.lossy();
        let fate = lossy.whole("rename");
        let (from, to) = ((parent.0, name_of(name)), (newparent.0, name_of(newname)));
        answer(fate.and_then(|()| lossy.rename(from, to)), reply);
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut lossy = self.lossy();
        match lossy.whole("open") {
            Ok(()) => reply.opened(FileHandle(0), flags_of(&lossy, inode)),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        // The kernel names one for a transfer to a program's memory, and none for its cache.
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.lossy().read(inode.0, index(offset), size as usize, owner.is_some()) {
            Ok(bytes) => reply.data(bytes),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.lossy().write(inode.0, index(offset), data) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(0)),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.lossy().sync(inode.0), reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.lossy().sync_names(inode.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut lossy = self.lossy();
        let fate = lossy.whole("fallocate");
        let (offset, length) = (index(offset), index(length));
        answer(fate.and_then(|()| lossy.allocate(inode.0, offset, length, mode)), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut lossy = self.lossy();
        if let Err(errno) = lossy.whole("readdir") {
            return reply.error(Errno::from_i32(errno));
        }
        let entries = lossy.list(inode.0);
        for (number, (inode, name)) in entries.iter().enumerate().skip(index(offset)) {
            let is_dir = lossy.node(*inode).is_ok_and(|node| node.is_dir);
            let kind = if is_dir { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*inode), number as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
