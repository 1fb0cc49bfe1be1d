//! The filesystem as it is read: what a path stands for, its attributes, its entries, its bytes.
//!
//! ```text
//! /head/g/a.npy  /head/g/a.json  /head/g/a.zarr/  /head/g.zarr/  /head.zarr/
//! /at/TID/...    /at/TIME -> TID    /tags/TAG -> ../at/TID    /.zba/{commits,stats,log}
//! ```
//!
//! # Invariants
//!
//! 1. What is frozen never changes, so the kernel may keep it; what is not is made invalid when a
//!    commit changes it (`follow.rs`).
//! 2. Bytes of arrays were compared with their checksums before they are given out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use zbigarray::array::Descriptor;
use zbigarray::txn::{ArrayEntry, Catalog, CatalogChange, Node as Entry, Record};
use zbigarray::units::ArrayId;
use zbigarray::{Store, Tid};

use crate::follow::removed_arrays;
use crate::layout::Layout;
use crate::messages::Messages;
use crate::names::{self, Named};
use crate::node::{Node, Nodes, Via, View};
use crate::refusal::Refusal;
use crate::snapshot::{Snapshot, Snapshots};
use crate::text::{self, Counters, LINE_BYTES};
use crate::zarr::{self, Grid};

/// How long the kernel may believe what cannot change.
const FROZEN: Duration = Duration::from_secs(3600);
/// How long it may believe what is made invalid when it changes.
const FOLLOWED: Duration = Duration::from_secs(1);

/// An entry of a directory.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) kind: FileType,
}

/// Takes the bytes of a read, wherever they lie.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&[u8]);

/// The tree over an open store.
pub(crate) struct Tree {
    pub(crate) snapshots: Snapshots,
    pub(crate) nodes: Nodes,
    pub(crate) counters: Counters,
    messages: Option<&'static Messages>,
    // The last state of arrays that are gone and that somebody may have open.
    removed: Mutex<HashMap<ArrayId, Arc<Snapshot>>>,
    is_writable: bool,
    owner: (u32, u32),
}

impl Tree {
    pub(crate) fn new(
        store: Store,
        is_writable: bool,
        owner: (u32, u32),
        messages: Option<&'static Messages>,
    ) -> Self {
        let (snapshots, nodes) = (Snapshots::new(store), Nodes::new());
        let (counters, removed) = (Counters::default(), Mutex::new(HashMap::new()));
        Self { snapshots, nodes, counters, messages, removed, is_writable, owner }
    }

    /// Keeps the last state of arrays that a commit removed, while the kernel knows their files.
    pub(crate) fn keep_removed(&self, record: &Record, before: &Arc<Snapshot>) {
        let gone = removed_arrays(record, before);
        let mut removed = self.removed.lock();
        removed.extend(gone.into_iter().map(|id| (id, Arc::clone(before))));
        removed.retain(|id, _| !self.nodes.of_array(*id).is_empty());
    }

    /// The state that shows array `id` in a view.
    pub(crate) fn snapshot_of(&self, view: View, id: ArrayId) -> Result<Arc<Snapshot>, Refusal> {
        let snapshot = self.snapshots.of(view)?;
        if view == View::Head && snapshot.catalog().array_by_id(id).is_none() {
            return self.removed.lock().get(&id).cloned().ok_or_else(|| Errno::ESTALE.into());
        }
        Ok(snapshot)
    }

    /// Whether names and content can be changed.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// The node of a number.
    pub(crate) fn node(&self, number: INodeNo) -> Result<Node, Refusal> {
        self.nodes.get(number.0).ok_or_else(|| Errno::ESTALE.into())
    }

    /// What `name` in directory `parent` stands for.
    pub(crate) fn find(&self, parent: &Node, name: &OsStr) -> Result<Node, Refusal> {
        let text = name.to_str().ok_or(Errno::ENOENT)?;
        match parent {
            Node::Root => match text {
                "head" => Ok(Node::Group(View::Head, Arc::from(""))),
                "head.zarr" => Ok(Node::ZarrGroup(View::Head, Arc::from(""))),
                "at" => Ok(Node::Commits),
                "tags" => Ok(Node::Tags(Arc::from(""))),
                ".zba" => Ok(Node::About),
                _ => Err(Errno::ENOENT.into()),
            },
            Node::About => match text {
                "commits" => Ok(Node::CommitLog),
                "stats" => Ok(Node::Stats),
                "log" => Ok(Node::Messages),
                _ => Err(Errno::ENOENT.into()),
            },
            Node::Commits => self.find_commit(text),
            Node::Tags(above) => self.find_tag(&names::join(above, text)),
            Node::Group(view, group) => {
                let snapshot = self.snapshots.of(*view)?;
                let found = names::find(snapshot.catalog(), group, name).ok_or(Errno::ENOENT)?;
                let node = match found {
                    Named::Group(name) => Node::Group(*view, name),
                    Named::ZarrGroup(name) => Node::ZarrGroup(*view, name),
                    Named::Npy(id) => Node::Npy(*view, id),
                    Named::Json(id) => Node::Json(*view, id),
                    Named::Zarr(id) => zarr_array(&snapshot, *view, id, Via::Array)?,
                };
                Ok(node)
            }
            Node::ZarrGroup(view, group) => {
                if text == "zarr.json" {
                    return Ok(Node::ZarrGroupJson(*view, Arc::clone(group)));
                }
                let snapshot = self.snapshots.of(*view)?;
                let full = names::join(group, text);
                match snapshot.catalog().node(&full) {
                    Some(Entry::Group(_)) => Ok(Node::ZarrGroup(*view, Arc::from(full))),
                    Some(Entry::Array(id)) => zarr_array(&snapshot, *view, id, Via::Group),
                    None => Err(Errno::ENOENT.into()),
                }
            }
            Node::ZarrArray(view, id, via) => {
                let (_, grid) = self.grid(*view, *id)?;
                match (text, grid.ndim()) {
                    ("zarr.json", _) => Ok(Node::ZarrArrayJson(*view, *id)),
                    ("c", 0) => Ok(Node::ZarrChunk(*view, *id, Arc::from([]))),
                    ("c", _) => Ok(Node::ZarrChunks(*view, *id, *via, Arc::from([]))),
                    _ => Err(Errno::ENOENT.into()),
                }
            }
            Node::ZarrChunks(view, id, via, above) => {
                let (_, grid) = self.grid(*view, *id)?;
                let at = number(text).ok_or(Errno::ENOENT)?;
                let axis = above.len();
                if axis >= grid.ndim() || at >= grid.count(axis) {
                    return Err(Errno::ENOENT.into());
                }
                let index: Arc<[u64]> = above.iter().copied().chain([at]).collect();
                if index.len() < grid.ndim() {
                    return Ok(Node::ZarrChunks(*view, *id, *via, index));
                }
                grid.chunk(&index).ok_or(Errno::ENOENT)?;
                Ok(Node::ZarrChunk(*view, *id, index))
            }
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    fn find_commit(&self, text: &str) -> Result<Node, Refusal> {
        let (plain, is_zarr) = match text.strip_suffix(".zarr") {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        let Some(tid) = number(plain).map(Tid) else {
            let known = text::parse_time(text).is_some();
            return if known { Ok(Node::Time(Arc::from(text))) } else { Err(Errno::ENOENT.into()) };
        };
        let store = self.snapshots.store();
        if tid < store.oldest() || tid > store.head() {
            return Err(Errno::ENOENT.into());
        }
        let root = Arc::from("");
        Ok(match is_zarr {
            true => Node::ZarrGroup(View::At(tid), root),
            false => Node::Group(View::At(tid), root),
        })
    }

    fn find_tag(&self, tag: &str) -> Result<Node, Refusal> {
        let head = self.snapshots.head()?;
        if head.catalog().tag(tag).is_some() {
            return Ok(Node::Tag(Arc::from(tag)));
        }
        let below = format!("{tag}/");
        match head.catalog().tags().any(|(other, _)| other.starts_with(&below)) {
            true => Ok(Node::Tags(Arc::from(tag))),
            false => Err(Errno::ENOENT.into()),
        }
    }

    /// Where a link leads.
    pub(crate) fn target(&self, node: &Node) -> Result<String, Refusal> {
        match node {
            Node::Time(text) => {
                let time_ns = text::parse_time(text).ok_or(Errno::ENOENT)?;
                let tid = self.snapshots.store().newest_at(time_ns).map_err(|_| Errno::ENOENT)?;
                Ok(tid.to_string())
            }
            Node::Tag(tag) => {
                let tid = self.snapshots.head()?.catalog().tag(tag).ok_or(Errno::ENOENT)?;
                let up = "../".repeat(tag.matches('/').count());
                Ok(format!("../{up}at/{tid}"))
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// How long the kernel may believe what it is told of a node.
    pub(crate) fn believed(node: &Node) -> Duration {
        match node {
            Node::Root | Node::Commits | Node::About => FROZEN,
            Node::CommitLog | Node::Stats | Node::Messages | Node::Time(_) | Node::New(..) => {
                Duration::ZERO
            }
            node => match node.view() {
                Some(View::At(_)) => FROZEN,
                _ => FOLLOWED,
            },
        }
    }

    /// The attributes of a node.
    pub(crate) fn attributes(&self, number: u64, node: &Node) -> Result<FileAttr, Refusal> {
        let mut found = self.attributes_of(number, FileType::Directory, 0);
        match node {
            Node::Root | Node::About | Node::Commits => {}
            Node::Tags(_) => found.mtime = self.time_of_view(View::Head)?,
            Node::Tag(_) | Node::Time(_) => {
                let len = self.target(node)?.len() as u64;
                found = self.attributes_of(number, FileType::Symlink, len);
            }
            Node::Group(view, name) | Node::ZarrGroup(view, name) => {
                let snapshot = self.snapshots.of(*view)?;
                if !matches!(snapshot.catalog().node(name), Some(Entry::Group(_))) {
                    return Err(Errno::ENOENT.into());
                }
                found.mtime = self.time_of_view(*view)?;
                if *view == View::Head && self.is_writable && matches!(node, Node::Group(..)) {
                    found.perm = 0o755;
                }
            }
            Node::ZarrArray(view, id, _) | Node::ZarrChunks(view, id, ..) => {
                found.mtime = self.time_of_array(*view, *id)?;
            }
            Node::New(..) => found = self.attributes_of(number, FileType::RegularFile, 0),
            Node::CommitLog => {
                let len = self.snapshots.store().head().0 * LINE_BYTES;
                found = self.attributes_of(number, FileType::RegularFile, len);
                found.mtime = self.time_of_view(View::Head)?;
            }
            Node::Stats | Node::Messages => {
                let len = self.text(node)?.len() as u64;
                found = self.attributes_of(number, FileType::RegularFile, len);
                found.mtime = SystemTime::now();
            }
            Node::Npy(view, id) => {
                let len = self.layout(*view, *id)?.len();
                found = self.attributes_of(number, FileType::RegularFile, len);
                found.mtime = self.time_of_array(*view, *id)?;
                if *view == View::Head && self.is_writable {
                    found.perm = 0o644;
                }
            }
            Node::ZarrChunk(view, id, _) => {
                let (_, grid) = self.grid(*view, *id)?;
                found = self.attributes_of(number, FileType::RegularFile, grid.chunk_bytes());
                found.mtime = self.time_of_array(*view, *id)?;
            }
            Node::Json(view, _) | Node::ZarrArrayJson(view, _) | Node::ZarrGroupJson(view, _) => {
                let len = self.text(node)?.len() as u64;
                found = self.attributes_of(number, FileType::RegularFile, len);
                found.mtime = self.time_of_view(*view)?;
            }
        }
        found.ctime = found.mtime;
        Ok(found)
    }

    fn attributes_of(&self, number: u64, kind: FileType, size: u64) -> FileAttr {
        let perm = match kind {
            FileType::Directory => 0o555,
            FileType::Symlink => 0o777,
            _ => 0o444,
        };
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: 1 << 20,
            flags: 0,
        }
    }

    fn time_of_view(&self, view: View) -> Result<SystemTime, Refusal> {
        Ok(system_time(self.snapshots.of(view)?.time_ns()))
    }

    fn time_of_array(&self, view: View, id: ArrayId) -> Result<SystemTime, Refusal> {
        let (_, entry) = self.entry(view, id)?;
        Ok(system_time(self.snapshots.time_of(entry.changed)))
    }

    fn entry(&self, view: View, id: ArrayId) -> Result<(Arc<Snapshot>, ArrayEntry), Refusal> {
        let snapshot = self.snapshot_of(view, id)?;
        let entry = snapshot.catalog().array_by_id(id).cloned().ok_or(Errno::ESTALE)?;
        Ok((snapshot, entry))
    }

    /// How an array is laid out as a file.
    fn layout(&self, view: View, id: ArrayId) -> Result<Arc<Layout>, Refusal> {
        Ok(self.snapshot_of(view, id)?.layout(id)?)
    }

    fn grid(&self, view: View, id: ArrayId) -> Result<(Descriptor, Grid), Refusal> {
        Ok(grid_of(&self.entry(view, id)?.1)?)
    }

    /// The entries of a directory, apart from `/at`, which is listed as it is read.
    pub(crate) fn list(&self, node: &Node) -> Result<Vec<Listed>, Refusal> {
        let dir = |name: &str| Listed { name: name.to_owned(), kind: FileType::Directory };
        let file = |name: &str| Listed { name: name.to_owned(), kind: FileType::RegularFile };
        Ok(match node {
            Node::Root => ["head", "head.zarr", "at", "tags", ".zba"].map(dir).into(),
            Node::About => ["commits", "stats", "log"].map(file).into(),
            Node::Commits => Vec::new(),
            Node::Tags(above) => list_tags(self.snapshots.head()?.catalog(), above),
            Node::Group(view, group) => {
                let listed = names::list(self.snapshots.of(*view)?.catalog(), group);
                let entry =
                    |(name, is_dir): (String, bool)| if is_dir { dir(&name) } else { file(&name) };
                listed.into_iter().map(entry).collect()
            }
            Node::ZarrGroup(view, group) => {
                let snapshot = self.snapshots.of(*view)?;
                let members = names::members(snapshot.catalog(), group);
                let members = members.into_iter().map(|(part, _)| dir(part));
                [file("zarr.json")].into_iter().chain(members).collect()
            }
            Node::ZarrArray(view, id, _) => {
                let is_scalar = self.grid(*view, *id)?.1.ndim() == 0;
                vec![file("zarr.json"), if is_scalar { file("c") } else { dir("c") }]
            }
            Node::ZarrChunks(view, id, _, above) => {
                let (_, grid) = self.grid(*view, *id)?;
                let axis = above.len();
                let is_last = axis + 1 == grid.ndim();
                let name =
                    |at: u64| if is_last { file(&at.to_string()) } else { dir(&at.to_string()) };
                (0..grid.count(axis)).map(name).collect()
            }
            _ => return Err(Errno::ENOTDIR.into()),
        })
    }

    /// The whole of a file that is text.
    pub(crate) fn text(&self, node: &Node) -> Result<Vec<u8>, Refusal> {
        Ok(match node {
            Node::Json(view, id) => {
                let (snapshot, entry) = self.entry(*view, *id)?;
                text::array_json(&snapshot, &entry)?
            }
            Node::ZarrArrayJson(view, id) => {
                let (snapshot, entry) = self.entry(*view, *id)?;
                let name = snapshot.catalog().name_of(*id).unwrap_or_default();
                let metadata = zarr_metadata(&entry, names::split(&name).1)?;
                text::pretty(&metadata.ok_or(Errno::ENOENT)?)
            }
            Node::ZarrGroupJson(view, group) => {
                text::pretty(&zarr_group(self.snapshots.of(*view)?.catalog(), group)?)
            }
            Node::Stats => text::pretty(&self.stats()),
            Node::Messages => self.messages.map(Messages::text).unwrap_or_default(),
            _ => return Err(Errno::EISDIR.into()),
        })
    }

    fn stats(&self) -> Value {
        let store = self.snapshots.store();
        let mut stats = json!({
            "store": store.path().display().to_string(),
            "head": store.head().0,
            "oldest": store.oldest().0,
            "writable": self.is_writable,
            "pid": std::process::id(),
            "known_files": self.nodes.count(),
        });
        if let (Some(stats), Value::Object(counters)) =
            (stats.as_object_mut(), self.counters.json())
        {
            stats.extend(counters);
        }
        stats
    }

    /// The bytes of an array's file as of `snapshot`.
    pub(crate) fn read_npy(
        &self,
        snapshot: &Snapshot,
        id: ArrayId,
        offset: u64,
        size: u32,
        take: Take<'_>,
    ) -> Result<(), Refusal> {
        let layout = snapshot.layout(id)?;
        let (header, bytes) = layout.read(offset, size);
        lend(snapshot, id, header, bytes, &[], take)
    }

    /// The bytes of a chunk.
    pub(crate) fn read_chunk(
        &self,
        (view, id, index): (View, ArrayId, &[u64]),
        offset: u64,
        size: u32,
        take: Take<'_>,
    ) -> Result<(), Refusal> {
        let (snapshot, entry) = self.entry(view, id)?;
        let (descriptor, grid) = grid_of(&entry)?;
        let chunk = grid.chunk(index).ok_or(Errno::ENOENT)?;
        let have = chunk.bytes.end - chunk.bytes.start;
        let end = offset.saturating_add(u64::from(size)).min(have + chunk.fill);
        let offset = offset.min(end);
        let bytes = chunk.bytes.start + offset.min(have)..chunk.bytes.start + end.min(have);
        let zero = [0];
        let element = descriptor.fill.as_deref().unwrap_or(&zero);
        let (skip, count) = (offset.saturating_sub(have), end.saturating_sub(have.max(offset)));
        let phase = usize::try_from(skip % element.len() as u64).unwrap_or(0);
        let count = usize::try_from(count).unwrap_or(0);
        let fill: Vec<u8> = element.iter().copied().cycle().skip(phase).take(count).collect();
        lend(&snapshot, id, &[], bytes, &fill, take)
    }

    /// Lines of the log of commits.
    pub(crate) fn read_commits(&self, offset: u64, size: u32) -> Result<Vec<u8>, Refusal> {
        let store = self.snapshots.store();
        let (head, oldest) = (store.head(), store.oldest());
        let end = offset.saturating_add(u64::from(size)).min(head.0 * LINE_BYTES);
        if offset >= end {
            return Ok(Vec::new());
        }
        let (first, last) = (offset / LINE_BYTES + 1, end.div_ceil(LINE_BYTES));
        let mut text = Vec::new();
        let from = Tid(first.max(oldest.0 + 1) - 1).min(Tid(last));
        let records = store.records(from, Tid(last)).unwrap_or_default();
        let mut records = records.iter().peekable();
        let catalog = self.snapshots.head()?;
        for tid in (first..=last).map(Tid) {
            let record = records.next_if(|record| record.tid == tid);
            let arrays = record.map(|record| changed_names(record, catalog.catalog()));
            let line = record.zip(arrays.as_deref()).map(|(record, names)| (&**record, names));
            text.extend(text::commit_line(tid, line));
        }
        let skip = usize::try_from(offset % LINE_BYTES).unwrap_or(0);
        let len = usize::try_from(end - offset).unwrap_or(0);
        Ok(text.get(skip..skip + len).unwrap_or_default().to_vec())
    }
}

/// Gives `take` the header, bytes of the array and fill, as one slice.
fn lend(
    snapshot: &Snapshot,
    id: ArrayId,
    header: &[u8],
    bytes: std::ops::Range<u64>,
    fill: &[u8],
    take: Take<'_>,
) -> Result<(), Refusal> {
    if bytes.is_empty() {
        take(&[header, fill].concat());
        return Ok(());
    }
    let lent = snapshot.with_array(id, |array| {
        let found = array.linear_bytes(bytes.clone())?;
        // The kernel takes bytes of a mapping from where they lie. If they cannot be read any more
        // by then it says so, and the reader gets an error.
        let is_plain = header.is_empty() && fill.is_empty();
        if is_plain && !array.is_linear_loaded(bytes)? {
            take(found);
        } else {
            take(&[header, found, fill].concat());
        }
        Ok(())
    });
    lent?
}

fn grid_of(entry: &ArrayEntry) -> Result<(Descriptor, Grid), zbigarray::ArrayError> {
    let descriptor = Descriptor::from_json(&entry.descriptor)?;
    let itemsize = descriptor.dtype.itemsize();
    let grid = Grid::new(&entry.shape, itemsize, descriptor.order, entry.block_bytes);
    Ok((descriptor, grid))
}

fn zarr_metadata(entry: &ArrayEntry, name: &str) -> Result<Option<Value>, Refusal> {
    let (descriptor, grid) = grid_of(entry)?;
    Ok(zarr::array_metadata(&descriptor, &grid, name, &entry.attributes))
}

/// The directory of an array's Zarr view, if Zarr has a name for its elements.
fn zarr_array(snapshot: &Snapshot, view: View, id: ArrayId, via: Via) -> Result<Node, Refusal> {
    let entry = snapshot.catalog().array_by_id(id).ok_or(Errno::ENOENT)?;
    zarr_metadata(entry, "")?.ok_or(Errno::ENOENT)?;
    Ok(Node::ZarrArray(view, id, via))
}

/// `zarr.json` of a group, with the metadata of all arrays and groups below it.
fn zarr_group(catalog: &Catalog, group: &str) -> Result<Value, Refusal> {
    let Some(Entry::Group(attributes)) = catalog.node(group) else {
        return Err(Errno::ENOENT.into());
    };
    let skip = if group.is_empty() { 0 } else { group.len() + 1 };
    let mut below = Map::new();
    for (name, entry) in catalog.below(group) {
        let metadata = match entry {
            Entry::Group(attributes) => Some(zarr::group_metadata(attributes, Map::new())),
            Entry::Array(id) => match catalog.array_by_id(*id) {
                Some(entry) => zarr_metadata(entry, names::split(name).1)?,
                None => None,
            },
        };
        if let Some(metadata) = metadata {
            below.insert(name[skip..].to_owned(), metadata);
        }
    }
    Ok(zarr::group_metadata(&attributes, below))
}

fn list_tags(catalog: &Catalog, above: &str) -> Vec<Listed> {
    let prefix = if above.is_empty() { String::new() } else { format!("{above}/") };
    let mut listed: Vec<Listed> = Vec::new();
    for (tag, _) in catalog.tags() {
        let Some(rest) = tag.strip_prefix(prefix.as_str()) else { continue };
        let (part, kind) = match rest.split_once('/') {
            Some((part, _)) => (part, FileType::Directory),
            None => (rest, FileType::Symlink),
        };
        // A tag hides a directory of the same name.
        if listed.iter().all(|other| other.name != part) {
            listed.push(Listed { name: part.to_owned(), kind });
        }
    }
    listed
}

/// The names that a commit was about.
fn changed_names(record: &Record, catalog: &Catalog) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !found.iter().any(|other| other == name) {
            found.push(name.to_owned());
        }
    };
    for change in &record.catalog {
        match change {
            CatalogChange::CreateArray { name, .. }
            | CatalogChange::CreateGroup { name }
            | CatalogChange::Remove { name } => add(name),
            CatalogChange::Move { to, .. } => add(to),
            CatalogChange::Shape { array, .. } | CatalogChange::Codec { array, .. } => {
                add(&catalog.name_of(*array).unwrap_or_default());
            }
            _ => {}
        }
    }
    let mut last = None;
    for data in record.data.iter().filter(|data| !data.carried) {
        if last.replace(data.array) != Some(data.array) {
            add(&catalog.name_of(data.array).unwrap_or_default());
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// A number as it is written in names: no sign, no zeros before it.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_plain = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && digits).then(|| text.parse().ok()).flatten()
}

fn system_time(time_ns: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0))
}
