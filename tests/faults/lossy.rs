//! A file system in memory that knows what is durable, and fails and runs full when told to.
//!
//! ```text
//! live     what programs see
//! durable  what a power cut leaves: bytes of synced files, names in synced directories
//! dirty    pages of a file that the next good sync makes durable; a failed sync forgets them
//! ```
//!
//! # Invariants
//!
//! 1. After a failed sync the dirty pages count as clean, as they do on Linux: programs go on
//!    seeing them, and no later sync makes them durable.
//! 2. A name is durable only after a sync of its directory, whatever was synced before.

use std::collections::{BTreeMap, BTreeSet};

/// The inode of the root.
pub(crate) const ROOT: u64 = 1;
const PAGE: usize = 4096;

/// The kinds of requests that can fail.
pub(crate) const REQUESTS: [&str; 12] = [
    "open",
    "read",
    "write",
    "fsync",
    "fsyncdir",
    "fallocate",
    "create",
    "mkdir",
    "rename",
    "unlink",
    "setattr",
    "readdir",
];

/// What a program reads past the kernel's cache, where the file system is a direct one: only such
/// a read can be short. Of a short page the cache makes a file that ends there.
pub(crate) const DIRECT_READ: &str = "direct-read";

/// How a request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// With an error number.
    Error(i32),
    /// Half of it is done and reported as done.
    Short,
    /// A sync fails, and what it should have made durable is gone for readers as well.
    Lost,
}

/// Which requests fail.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) request: String,
    /// Counted from 1 since the file system was made or reset.
    pub(crate) number: usize,
    pub(crate) how: How,
    /// Whether all later ones fail too.
    pub(crate) lasting: bool,
}

/// A file or a directory.
#[derive(Clone, Default)]
pub(crate) struct Node {
    pub(crate) is_dir: bool,
    pub(crate) live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    allocated: BTreeSet<usize>,
}

type Names = BTreeMap<(u64, String), u64>;

/// The whole file system.
#[derive(Default)]
pub(crate) struct Lossy {
    nodes: BTreeMap<u64, Node>,
    names: Names,
    durable_names: Names,
    counts: BTreeMap<String, usize>,
    fault: Option<Fault>,
    cap_pages: Option<usize>,
    // Reading and writing goes past the kernel's cache; mapped pages do not.
    is_direct: bool,
}

type Answer<T> = Result<T, i32>;

impl Lossy {
    /// An empty file system.
    pub(crate) fn new() -> Self {
        let root = Node { is_dir: true, ..Node::default() };
        Self { nodes: [(ROOT, root)].into(), ..Self::default() }
    }

    /// Cuts the power and mends what was broken.
    pub(crate) fn crash(&mut self) {
        self.names = self.durable_names.clone();
        for node in self.nodes.values_mut() {
            node.live = node.durable.clone();
            node.dirty.clear();
            node.allocated = (0..node.live.len().div_ceil(PAGE)).collect();
        }
        self.mend();
    }

    /// From now on nothing fails and there is space.
    pub(crate) fn mend(&mut self) {
        self.fault = None;
        self.cap_pages = None;
    }

    pub(crate) fn set_fault(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    pub(crate) fn set_cap(&mut self, bytes: usize) {
        self.cap_pages = Some(bytes / PAGE);
    }

    /// From now on files are opened such that each transfer is a request of its own.
    pub(crate) fn set_direct(&mut self) {
        self.is_direct = true;
    }

    /// Whether a file is to be opened so. Processes share a mapping of the one called `shared`,
    /// which is possible only through the cache.
    pub(crate) fn is_direct(&self, inode: u64) -> bool {
        let is_shared =
            || self.names.iter().any(|((_, name), of)| *of == inode && name == "shared");
        self.is_direct && !is_shared()
    }

    /// How many requests of each kind there were.
    pub(crate) fn counts(&self) -> &BTreeMap<String, usize> {
        &self.counts
    }

    /// Counts a request and says how it fails, if it does.
    pub(crate) fn fate(&mut self, request: &str) -> Option<How> {
        let count = self.counts.entry(request.to_owned()).or_default();
        *count += 1;
        let fault = self.fault.as_ref().filter(|fault| fault.request == request)?;
        let hit = *count == fault.number || fault.lasting && *count > fault.number;
        hit.then_some(fault.how)
    }

    /// The same for requests that cannot be half done.
    pub(crate) fn whole(&mut self, request: &str) -> Answer<()> {
        match self.fate(request) {
            Some(How::Error(errno)) => Err(errno),
            Some(How::Lost) => Err(libc::EIO),
            Some(How::Short) | None => Ok(()),
        }
    }

    pub(crate) fn node(&self, inode: u64) -> Answer<&Node> {
        self.nodes.get(&inode).ok_or(libc::ENOENT)
    }

    /// Pages that a file takes.
    pub(crate) fn pages(&self, inode: u64) -> usize {
        self.nodes.get(&inode).map_or(0, |node| node.allocated.len())
    }

    pub(crate) fn lookup(&self, parent: u64, name: &str) -> Answer<u64> {
        self.names.get(&(parent, name.to_owned())).copied().ok_or(libc::ENOENT)
    }

    pub(crate) fn list(&self, directory: u64) -> Vec<(u64, String)> {
        let inside = self.names.iter().filter(|((parent, _), _)| *parent == directory);
        inside.map(|((_, name), inode)| (*inode, name.clone())).collect()
    }

    pub(crate) fn create(&mut self, parent: u64, name: &str, is_dir: bool) -> Answer<u64> {
        if self.lookup(parent, name).is_ok() {
            return Err(libc::EEXIST);
        }
        let inode = self.nodes.keys().last().map_or(ROOT, |last| last + 1);
        self.nodes.insert(inode, Node { is_dir, ..Node::default() });
        self.names.insert((parent, name.to_owned()), inode);
        Ok(inode)
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &str) -> Answer<()> {
        self.names.remove(&(parent, name.to_owned())).map(|_| ()).ok_or(libc::ENOENT)
    }

    pub(crate) fn rename(&mut self, from: (u64, String), to: (u64, String)) -> Answer<()> {
        let inode = self.names.remove(&from).ok_or(libc::ENOENT)?;
        self.names.insert(to, inode);
        Ok(())
    }

    /// Reads up to `len` bytes, past the cache or for it.
    pub(crate) fn read(
        &mut self,
        inode: u64,
        offset: usize,
        len: usize,
        direct: bool,
    ) -> Answer<&[u8]> {
        let fate = self.fate(if direct { DIRECT_READ } else { "read" });
        if let Some(How::Error(errno)) = fate {
            return Err(errno);
        }
        let live = &self.node(inode)?.live;
        let start = offset.min(live.len());
        let bytes = &live[start..offset.saturating_add(len).min(live.len())];
        Ok(if fate == Some(How::Short) { &bytes[..bytes.len().div_ceil(2)] } else { bytes })
    }

    /// Writes and returns how many bytes.
    pub(crate) fn write(&mut self, inode: u64, offset: usize, bytes: &[u8]) -> Answer<usize> {
        let bytes = match self.fate("write") {
            Some(How::Error(errno)) => return Err(errno),
            Some(How::Short) => &bytes[..bytes.len().div_ceil(2)],
            Some(How::Lost) | None => bytes,
        };
        let end = offset + bytes.len();
        self.take(inode, offset..end)?;
        let node = self.node_mut(inode)?;
        if node.live.len() < end {
            node.resize(end);
        }
        node.live[offset..end].copy_from_slice(bytes);
        node.dirty.extend(offset / PAGE..end.div_ceil(PAGE));
        Ok(bytes.len())
    }

    pub(crate) fn allocate(
        &mut self,
        inode: u64,
        offset: usize,
        len: usize,
        mode: i32,
    ) -> Answer<()> {
        let end = offset + len;
        let punches = mode & libc::FALLOC_FL_PUNCH_HOLE != 0;
        if punches {
            let node = self.node_mut(inode)?;
            let (start, end) = (offset.min(node.live.len()), end.min(node.live.len()));
            node.live[start..end].fill(0);
            node.dirty.extend(start / PAGE..end.div_ceil(PAGE));
            for page in offset.div_ceil(PAGE)..(offset + len) / PAGE {
                node.allocated.remove(&page);
            }
            return Ok(());
        }
        self.take(inode, offset..end)?;
        let node = self.node_mut(inode)?;
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && node.live.len() < end {
            node.resize(end);
        }
        Ok(())
    }

    pub(crate) fn set_len(&mut self, inode: u64, len: usize) -> Answer<()> {
        let node = self.node_mut(inode)?;
        node.resize(len);
        node.allocated.retain(|page| *page < len.div_ceil(PAGE));
        Ok(())
    }

    /// Invariant 1, or pages that are dropped from the cache at once, as some file systems do.
    pub(crate) fn sync(&mut self, inode: u64) -> Answer<()> {
        let fate = self.fate("fsync");
        let node = self.node_mut(inode)?;
        let dirty = std::mem::take(&mut node.dirty);
        match fate {
            Some(How::Error(errno)) => return Err(errno),
            Some(How::Lost) => {
                for page in dirty {
                    let old = node.durable.get(page * PAGE..).unwrap_or(&[]);
                    let start = (page * PAGE).min(node.live.len());
                    let end = (start + PAGE).min(node.live.len());
                    let kept = old.len().min(end - start);
                    node.live[start..start + kept].copy_from_slice(&old[..kept]);
                    node.live[start + kept..end].fill(0);
                }
                return Err(libc::EIO);
            }
            Some(How::Short) | None => {}
        }
        node.durable.resize(node.live.len(), 0);
        for page in dirty {
            let start = (page * PAGE).min(node.live.len());
            let end = (start + PAGE).min(node.live.len());
            node.durable[start..end].copy_from_slice(&node.live[start..end]);
        }
        Ok(())
    }

    /// Invariant 2.
    pub(crate) fn sync_names(&mut self, directory: u64) -> Answer<()> {
        self.whole("fsyncdir")?;
        self.durable_names.retain(|(parent, _), _| *parent != directory);
        let names = self.names.iter().filter(|((parent, _), _)| *parent == directory);
        self.durable_names.extend(names.map(|(name, inode)| (name.clone(), *inode)));
        Ok(())
    }

    fn node_mut(&mut self, inode: u64) -> Answer<&mut Node> {
        self.nodes.get_mut(&inode).ok_or(libc::ENOENT)
    }

    /// Takes space for bytes of a file.
    fn take(&mut self, inode: u64, bytes: std::ops::Range<usize>) -> Answer<()> {
        if let Some(cap) = self.cap_pages {
            let named: BTreeSet<u64> = self.names.values().copied().collect();
            let used: usize = named.iter().map(|inode| self.pages(*inode)).sum();
            let node = self.node(inode)?;
            let more = bytes.clone().step_by(PAGE).chain([bytes.end - 1]);
            let more: BTreeSet<usize> = more.map(|byte| byte / PAGE).collect();
            if used + more.difference(&node.allocated).count() > cap {
                return Err(libc::ENOSPC);
            }
        }
        let pages = bytes.start / PAGE..bytes.end.div_ceil(PAGE);
        self.node_mut(inode)?.allocated.extend(pages);
        Ok(())
    }
}

impl Node {
    fn resize(&mut self, len: usize) {
        let touched = self.live.len().min(len) / PAGE..len.div_ceil(PAGE);
        self.live.resize(len, 0);
        // Beyond the end nothing is kept, or a file that is cut and grows would show it again.
        self.durable.truncate(len);
        self.dirty.extend(touched);
    }
}
