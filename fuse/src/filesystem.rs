//! The kernel's requests, answered: one function for each, thin.
//!
//! ```text
//! request -> Tree (what is read) | Writers (what is written) -> reply; a refusal is logged
//! ```
//!
//! # Invariants
//!
//! 1. No lock is held while a reply is sent, and no reply waits for another program.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use crate::attributes;
use crate::names;
use crate::node::{Node, View};
use crate::process::{Ending, Process};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;
use crate::text::Counters;
use crate::tree::{Listed, Tree};
use crate::writer::Writer;
use crate::writing::Writing;

/// The number of a directory entry that the kernel does not need.
const UNKNOWN: INodeNo = INodeNo(0xFFFF_FFFF);
/// Requests that the kernel has going at a time, ahead of readers.
const BACKGROUND_MAX: u16 = 64;
/// Largest read-ahead asked for.
const READAHEAD_BYTES: u32 = 16 << 20;

/// Attributes, and how long the kernel may believe them.
type Told = (FileAttr, Duration);

/// Something open.
#[derive(Clone)]
enum Open {
    /// A file that is read from the newest state.
    Head,
    /// A file of a frozen state, which it keeps.
    Frozen(Arc<Snapshot>),
    /// A text as it was when it was opened.
    Text(Arc<Vec<u8>>),
    /// The entries of a directory as they were then.
    Directory(Arc<Vec<Listed>>),
    /// A file that is written.
    Writer(Arc<Writer>),
}

/// The filesystem of a store.
pub(crate) struct Served {
    tree: Arc<Tree>,
    writing: Arc<Writing>,
    open: Mutex<HashMap<u64, Open>>,
    next_handle: AtomicU64,
}

impl Served {
    pub(crate) fn new(tree: Arc<Tree>, writing: Arc<Writing>) -> Self {
        Self { tree, writing, open: Mutex::new(HashMap::new()), next_handle: AtomicU64::new(1) }
    }

    fn insert(&self, open: Open) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(handle, open);
        FileHandle(handle)
    }

    fn opened(&self, handle: FileHandle) -> Option<Open> {
        self.open.lock().get(&handle.0).cloned()
    }

    /// Looks a name up; what the kernel is told of it.
    fn found(&self, parent: INodeNo, name: &OsStr) -> Result<Told, Refusal> {
        if name.len() > names::NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let parent = self.tree.node(parent)?;
        let node = self.tree.find(&parent, name);
        let node = node.or_else(|refusal| self.writing.find_new(&parent, name).ok_or(refusal))?;
        self.look_up(&node)
    }

    fn look_up(&self, node: &Node) -> Result<Told, Refusal> {
        let number = self.tree.nodes.look_up(node);
        let told = self.told(number, node);
        if told.is_err() {
            self.tree.nodes.forget(number, 1);
        }
        told
    }

    /// The attributes of a node, and how long they may be believed.
    fn told(&self, number: u64, node: &Node) -> Result<Told, Refusal> {
        let mut found = self.tree.attributes(number, node)?;
        if !self.writing.is_written(number) {
            return Ok((found, Tree::believed(node)));
        }
        // The longest that anybody sees: the kernel has one size for all, and cuts its pages there.
        found.size = found.size.max(self.writing.size(number));
        Ok((found, Duration::ZERO))
    }

    fn open_to_write(&self, number: INodeNo, flags: i32, thread: u32) -> Result<Open, Refusal> {
        let node = self.tree.node(number)?;
        let is_append = flags & libc::O_APPEND != 0;
        Ok(Open::Writer(self.writing.open(number.0, &node, is_append, thread)?))
    }

    fn writer(&self, handle: FileHandle) -> Result<Arc<Writer>, Refusal> {
        match self.opened(handle) {
            Some(Open::Writer(writer)) => Ok(writer),
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// Commits if the file is open for writing.
    fn commit(&self, number: INodeNo, handle: FileHandle) -> Result<(), Refusal> {
        match self.opened(handle) {
            Some(Open::Writer(writer)) => self.writing.commit(number.0, &writer),
            _ => Ok(()),
        }
    }

    fn change_attributes(
        &self,
        number: INodeNo,
        size: Option<u64>,
        handle: Option<FileHandle>,
        thread: u32,
    ) -> Result<Told, Refusal> {
        let node = self.tree.node(number)?;
        if let Some(size) = size {
            match handle.map(|handle| self.writer(handle)) {
                Some(writer) => writer?.truncate(size)?,
                None => self.writing.truncate(number.0, &node, size, thread)?,
            }
        }
        self.told(number.0, &self.tree.node(number)?)
    }

    fn open_node(&self, node: &Node) -> Result<(Open, FopenFlags), Refusal> {
        let cached = FopenFlags::FOPEN_KEEP_CACHE;
        let direct = FopenFlags::FOPEN_DIRECT_IO;
        Ok(match node {
            Node::Npy(View::At(tid), _) | Node::ZarrChunk(View::At(tid), ..) => {
                (Open::Frozen(self.tree.snapshots.at(*tid)?), cached)
            }
            Node::Npy(View::Head, _) | Node::ZarrChunk(View::Head, ..) => (Open::Head, cached),
            Node::CommitLog => (Open::Head, direct),
            node => (Open::Text(Arc::new(self.tree.text(node)?)), direct),
        })
    }

    fn read_into(
        &self,
        node: &Node,
        open: Option<&Open>,
        (offset, size): (u64, u32),
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        match (node, open) {
            (_, Some(Open::Writer(writer))) => writer.read(offset, size, take),
            (_, Some(Open::Text(text))) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let to = from.saturating_add(size as usize).min(text.len());
                take(&text[from..to]);
                Ok(())
            }
            (Node::Npy(_, id), Some(Open::Frozen(snapshot))) => {
                self.tree.read_npy(snapshot, *id, offset, size, take)
            }
            (Node::Npy(view, id), _) => {
                let snapshot = self.tree.snapshot_of(*view, *id)?;
                self.tree.read_npy(&snapshot, *id, offset, size, take)
            }
            (Node::ZarrChunk(view, id, index), _) => {
                self.tree.read_chunk((*view, *id, index), offset, size, take)
            }
            (Node::CommitLog, _) => {
                take(&self.tree.read_commits(offset, size)?);
                Ok(())
            }
            _ => Err(Errno::EISDIR.into()),
        }
    }
}

/// The names of a node for the log.
fn named(tree: &Tree, node: &Node) -> String {
    let name = node.array().and_then(|id| {
        let snapshot = tree.snapshot_of(node.view()?, id).ok()?;
        snapshot.catalog().name_of(id)
    });
    name.map_or_else(|| format!("{node:?}"), |name| name.to_string())
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Data are made invalid by us only, block by block, not by a new size or time.
        let wanted = InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        for flag in wanted.iter() {
            if let Err(missing) = config.add_capabilities(flag) {
                log::info!("the kernel has no {missing:?}");
            }
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        if let Err(largest) = config.set_max_readahead(READAHEAD_BYTES) {
            let _ = config.set_max_readahead(largest);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.found(parent, name) {
            Ok((found, believed)) => reply.entry(&believed, &found, Generation(0)),
            Err(refusal) => reply.error(refusal.errno),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.tree.nodes.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.node(number).and_then(|node| self.told(number.0, &node)) {
            Ok((found, believed)) => reply.attr(&believed, &found),
            Err(refusal) => reply.error(refusal.errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.tree.node(number).and_then(|node| self.tree.target(&node)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(refusal) => reply.error(refusal.errno),
        }
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return match self.open_to_write(number, flags.0, request.pid()) {
                Ok(open) => reply.opened(self.insert(open), FopenFlags::FOPEN_DIRECT_IO),
                Err(refusal) => reply.error(refusal.logged("opening a file to write")),
            };
        }
        match self.tree.node(number).and_then(|node| self.open_node(&node)) {
            Ok((open, flags)) => reply.opened(self.insert(open), flags),
            Err(refusal) => reply.error(refusal.logged("opening a file")),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = match self.tree.node(number) {
            Ok(node) => node,
            Err(refusal) => return reply.error(refusal.errno),
        };
        // The kernel names an owner for a transfer to a program's memory, and none for its cache,
        // which is the same for all: only what was stored through shared mappings is in it.
        let open = match owner {
            Some(_) => self.opened(handle),
            None => match self.writing.mapped(number.0) {
                Some(writer) => Some(Open::Writer(writer)),
                None => self.opened(handle).filter(|open| !matches!(open, Open::Writer(_))),
            },
        };
        let mut reply = Some(reply);
        let counters = &self.tree.counters;
        let mut take = |bytes: &[u8]| {
            Counters::add(&counters.reads, 1);
            Counters::add(&counters.read_bytes, bytes.len() as u64);
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        };
        let read = self.read_into(&node, open.as_ref(), (offset, size), &mut take);
        if let (Err(refusal), Some(reply)) = (read, reply) {
            Counters::add(&counters.errors, 1);
            reply.error(refusal.logged(&format!("reading {}", named(&self.tree, &node))));
        }
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let from_cache = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let written = self.writer(handle).and_then(|writer| {
            let (place, thread) = ((offset, data), request.pid());
            self.writing.write(number.0, &writer, place, from_cache, thread)
        });
        match written {
            // The kernel asks for no more than fits this number.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(refusal) => reply.error(refusal.logged("writing a file")),
        }
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let open = self.open.lock().remove(&handle.0);
        if let Some(Open::Writer(writer)) = open {
            self.writing.release(number.0, &writer);
        }
        reply.ok();
    }

    fn flush(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Only a program that lives closes a file itself. What is left to do when it ends is done
        // when the file is released.
        let alive = Process::of_thread(request.pid());
        if alive.is_none_or(|process| process.ending() != Ending::Running) {
            return reply.ok();
        }
        answer(self.commit(number, handle), "closing a file", reply);
    }

    fn fsync(&self, _: &Request, number: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.commit(number, handle), "fsync of a file", reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A change of names was durable when it was answered.
        reply.ok();
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Times are those of commits: what is set is not kept. Modes and owners are not kept
        // either, and a program that sets them has to know.
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        match self.change_attributes(number, size, handle, request.pid()) {
            Ok((found, believed)) => reply.attr(&believed, &found),
            Err(refusal) => reply.error(refusal.logged("changing a file")),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.tree.node(parent).and_then(|parent| {
            let (node, target) = self.writing.create(&parent, name)?;
            let (found, believed) = self.look_up(&node)?;
            let is_append = flags & libc::O_APPEND != 0;
            let writer = self.writing.begin(found.ino.0, target, is_append, request.pid())?;
            Ok((found, believed, self.insert(Open::Writer(writer))))
        });
        match created {
            Ok((found, believed, handle)) => {
                let direct = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&believed, &found, Generation(0), handle, direct);
            }
            Err(refusal) => reply.error(refusal.logged("creating a file")),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.tree.node(parent).and_then(|parent| {
            let node = self.writing.make_group(&parent, name)?;
            self.look_up(&node)
        });
        match made {
            Ok((found, believed)) => reply.entry(&believed, &found, Generation(0)),
            Err(refusal) => reply.error(refusal.logged("making a directory")),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done =
            self.tree.node(parent).and_then(|parent| self.writing.remove_file(&parent, name));
        answer(done, "removing a file", reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done =
            self.tree.node(parent).and_then(|parent| self.writing.remove_group(&parent, name));
        answer(done, "removing a directory", reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.tree.node(parent).and_then(|parent| {
            let new_parent = self.tree.node(newparent)?;
            self.writing.rename((&parent, name), (&new_parent, newname), flags)
        });
        answer(done, "renaming", reply);
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let done = self.tree.node(number).and_then(|node| {
            let there = attributes::get(&self.tree, &node, name).is_ok();
            match flags {
                libc::XATTR_CREATE if there => return Err(Errno::EEXIST.into()),
                libc::XATTR_REPLACE if !there => return Err(Errno::ENODATA.into()),
                _ => {}
            }
            self.writing.set_attribute(&node, name, Some(value))
        });
        answer(done, "setting an attribute", reply);
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.tree.node(number).and_then(|node| {
            attributes::get(&self.tree, &node, name)?;
            self.writing.set_attribute(&node, name, None)
        });
        answer(done, "removing an attribute", reply);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.tree.node(number).and_then(|node| self.tree.list(&node)) {
            Ok(listed) => {
                let handle = self.insert(Open::Directory(Arc::new(listed)));
                reply.opened(handle, FopenFlags::empty());
            }
            Err(refusal) => reply.error(refusal.logged("listing a directory")),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(Open::Directory(listed)) = self.opened(handle) else {
            return reply.error(Errno::EBADF);
        };
        let dots = [(1, "."), (2, "..")].into_iter().filter(|(at, _)| *at > offset);
        for (at, name) in dots {
            if reply.add(UNKNOWN, at, FileType::Directory, name) {
                return reply.ok();
            }
        }
        if self.tree.nodes.get(number.0) == Some(Node::Commits) {
            // Listed as it is read: a store may have millions of commits.
            let store = self.tree.snapshots.store();
            let (oldest, head) = (store.oldest().0, store.head().0);
            let mut tid =
                oldest.max(offset.saturating_sub(2).saturating_add(u64::from(offset > 2)));
            while tid <= head {
                if reply.add(UNKNOWN, tid + 2, FileType::Directory, tid.to_string()) {
                    break;
                }
                tid += 1;
            }
            return reply.ok();
        }
        let skip = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        for (at, entry) in listed.iter().enumerate().skip(skip) {
            if reply.add(UNKNOWN, at as u64 + 3, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.open.lock().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let directory = zbigarray::txn::directory_of(self.tree.snapshots.store().path());
        match nix::sys::statvfs::statvfs(&directory) {
            Ok(found) => reply.statfs(
                found.blocks(),
                found.blocks_free(),
                found.blocks_available(),
                self.tree.nodes.count() as u64,
                0,
                u32::try_from(found.block_size()).unwrap_or(4096),
                255,
                u32::try_from(found.fragment_size()).unwrap_or(4096),
            ),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let found =
            self.tree.node(number).and_then(|node| attributes::get(&self.tree, &node, name));
        answer_sized(found, size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let found = self.tree.node(number).and_then(|node| attributes::list(&self.tree, &node));
        answer_sized(found, size, reply);
    }
}

/// Sends a reply that has nothing to say but that it worked.
fn answer(done: Result<(), Refusal>, what: &str, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(refusal.logged(what)),
    }
}

/// As extended attributes are asked for: their size first, then their bytes.
fn answer_sized(found: Result<Vec<u8>, Refusal>, size: u32, reply: ReplyXattr) {
    match found {
        Err(refusal) => reply.error(refusal.errno),
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
    }
}
