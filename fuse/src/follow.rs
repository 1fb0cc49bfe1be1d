//! Follows the commits of all processes and makes invalid what the kernel keeps of what changed.
//!
//! ```text
//! Store::follow -> Record -> head begun anew -> ranges of files, names -> Notifier -> "done"
//! ```
//!
//! # Invariants
//!
//! 1. Readers are given the new state before anything is made invalid. Who reads the old one at
//!    that moment has the pages locked, and the kernel waits for them before it drops them; so no
//!    old page stays.
//! 2. Exactly the blocks that a commit changed are made invalid, and what a change of shape moves.
//! 3. This thread holds no lock while it talks to the kernel, which may wait for requests.

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use parking_lot::{Condvar, Mutex};
use zbigarray::array::Descriptor;
use zbigarray::txn::{ArrayEntry, CatalogChange, Owner, Record};
use zbigarray::units::ArrayId;
use zbigarray::{Store, Tid};

use crate::layout::Layout;
use crate::names;
use crate::node::{Node, View};
use crate::snapshot::Snapshot;
use crate::text::Counters;
use crate::tree::Tree;
use crate::zarr::Grid;

/// A file from its first byte to its last.
const WHOLE: Range<u64> = 0..u64::MAX;

/// How often it looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which commit has been dealt with; who made one through the mount waits for it.
pub(crate) struct Progress {
    done: Mutex<Tid>,
    changed: Condvar,
    is_over: AtomicBool,
}

impl Progress {
    pub(crate) fn new(head: Tid) -> Self {
        Self { done: Mutex::new(head), changed: Condvar::new(), is_over: AtomicBool::new(false) }
    }

    /// Waits until everybody sees commit `tid`, or `timeout` is over.
    pub(crate) fn wait_for(&self, tid: Tid, timeout: Duration) {
        let mut done = self.done.lock();
        self.changed.wait_while_for(&mut done, |done| *done < tid, timeout);
    }

    /// Ends the thread that follows.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_done(&self, tid: Tid) {
        *self.done.lock() = tid;
        self.changed.notify_all();
    }
}

/// Follows commits after `after` until the end.
pub(crate) fn run(
    tree: &Tree,
    store: &Store,
    notifier: &Notifier,
    after: Tid,
    progress: &Progress,
) {
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel::<Arc<str>>();
        // Apart: forgetting a name waits for requests that have its directory locked, and those
        // may wait for this thread.
        scope.spawn(move || told.iter().for_each(|name| forget_name(tree, notifier, &name)));
        let mut follow = store.follow(after);
        while !progress.is_over.load(Ordering::Relaxed) {
            match follow.next_within(LOOK_EVERY) {
                Ok(Some(record)) => {
                    apply(tree, notifier, &record);
                    Counters::add(&tree.counters.followed, 1);
                    progress.is_done(record.tid);
                    gone_names(&record).into_iter().for_each(|name| drop(tell.send(name)));
                }
                Ok(None) => {}
                Err(error) => {
                    // Commits went by unseen: nothing that is kept can be relied on.
                    log::warn!("following commits: {error}");
                    tree.snapshots.drop_head();
                    for (number, _) in tree.nodes.matching(|node| node.view() == Some(View::Head)) {
                        invalidate(tree, notifier, number, &WHOLE);
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    });
}

fn apply(tree: &Tree, notifier: &Notifier, record: &Record) {
    let before = tree.snapshots.advance(record.tid);
    if let Some(before) = &before {
        tree.keep_removed(record, before);
    }
    for change in &record.catalog {
        if let CatalogChange::Move { from, to } = change {
            tree.nodes.move_group(from, to);
        }
    }
    let head = tree.snapshots.head();
    for id in changed_arrays(record) {
        let entry = head.as_ref().ok().and_then(|head| head.catalog().array_by_id(id));
        let old = before.as_deref().and_then(|before| before.catalog().array_by_id(id));
        let change = Change::of(record, id, old, entry);
        for (number, node) in tree.nodes.of_array(id) {
            for range in change.ranges(&node) {
                invalidate(tree, notifier, number, &range);
            }
        }
    }
}

/// Makes a range of a file invalid, and what the kernel believes of its size and times.
fn invalidate(tree: &Tree, notifier: &Notifier, number: u64, range: &Range<u64>) {
    let offset = i64::try_from(range.start).unwrap_or(i64::MAX);
    // To the end if the kernel has no number for it.
    let len = i64::try_from(range.end - range.start).unwrap_or(0);
    Counters::add(&tree.counters.invalidations, 1);
    if let Err(error) = notifier.inval_inode(INodeNo(number), offset, len) {
        log::debug!("making file {number} invalid: {error}");
    }
}

/// The arrays of which a commit changed data or metadata, once each.
fn changed_arrays(record: &Record) -> Vec<ArrayId> {
    let data = record.data.iter().filter(|data| !data.carried).map(|data| data.array);
    let metadata = record.catalog.iter().filter_map(|change| match change {
        CatalogChange::Shape { array, .. } | CatalogChange::Codec { array, .. } => Some(*array),
        CatalogChange::Attribute { owner: Owner::Array(array), .. } => Some(*array),
        _ => None,
    });
    let mut arrays: Vec<ArrayId> = data.chain(metadata).collect();
    arrays.sort();
    arrays.dedup();
    arrays
}

/// What a commit did to an array.
struct Change {
    // Bytes of the array.
    bytes: Vec<Range<u64>>,
    // Everything may have changed: files are made invalid whole.
    all: bool,
    data_at: u64,
    is_reshaped: bool,
    grid: Option<Grid>,
}

impl Change {
    fn of(
        record: &Record,
        id: ArrayId,
        old: Option<&ArrayEntry>,
        new: Option<&ArrayEntry>,
    ) -> Self {
        let layout = new.and_then(|entry| Layout::of(entry).ok());
        let shape = record.catalog.iter().find_map(|change| match change {
            CatalogChange::Shape { array, layout, .. } if *array == id => Some(*layout),
            _ => None,
        });
        let Some((entry, layout)) = new.zip(layout) else {
            return Self { bytes: vec![], all: true, data_at: 0, is_reshaped: true, grid: None };
        };
        let block = entry.block_bytes;
        let blocks = record.blocks(id, block).into_iter();
        let mut bytes: Vec<Range<u64>> =
            blocks.map(|it| it.start * block..it.end * block).collect();
        let old = old.and_then(|old| Layout::of(old).ok());
        let moved = match (&old, shape) {
            (_, None) => false,
            (Some(old), Some(moved)) => moved || old.data_at() != layout.data_at(),
            (None, Some(_)) => true,
        };
        if let (Some(old), Some(_)) = (&old, shape) {
            // The rest of the last page was behind the end, or is now.
            bytes.push(old.nbytes.min(layout.nbytes)..u64::MAX);
        }
        let grid = Descriptor::from_json(&entry.descriptor).ok().map(|descriptor| {
            Grid::new(&entry.shape, descriptor.dtype.itemsize(), descriptor.order, block)
        });
        let (data_at, is_reshaped) = (layout.data_at(), shape.is_some());
        Self { bytes, all: moved, data_at, is_reshaped, grid }
    }

    /// The ranges of a file that are not what they were.
    fn ranges(&self, node: &Node) -> Vec<Range<u64>> {
        match node {
            Node::Npy(..) if self.all => vec![WHOLE],
            Node::Npy(..) => {
                let header = self.is_reshaped.then_some(0..self.data_at);
                let to = |at: u64| at.saturating_add(self.data_at);
                let data = self.bytes.iter().map(|range| to(range.start)..to(range.end));
                header.into_iter().chain(data).collect()
            }
            Node::ZarrChunk(_, _, index) => {
                let chunk = self.grid.as_ref().and_then(|grid| grid.chunk(index));
                let touches = |bytes: &Range<u64>| {
                    let meets = |it: &Range<u64>| it.start < bytes.end && bytes.start < it.end;
                    self.bytes.iter().any(meets)
                };
                let same = chunk.is_some_and(|chunk| !touches(&chunk.bytes));
                if same && !self.all && !self.is_reshaped { vec![] } else { vec![WHOLE] }
            }
            _ => vec![WHOLE],
        }
    }
}

/// Names that a commit took away.
fn gone_names(record: &Record) -> Vec<Arc<str>> {
    let gone = record.catalog.iter().filter_map(|change| match change {
        CatalogChange::Remove { name } => Some(Arc::clone(name)),
        CatalogChange::Move { from, .. } => Some(Arc::clone(from)),
        _ => None,
    });
    gone.collect()
}

fn forget_name(tree: &Tree, notifier: &Notifier, name: &str) {
    let (group, part) = names::split(name);
    let forget = |directory: Node, part: &str| {
        let Some(number) = tree.nodes.number(&directory) else { return };
        if let Err(error) = notifier.inval_entry(INodeNo(number), OsStr::new(part)) {
            log::debug!("making name {part} invalid: {error}");
        }
    };
    for ending in ["", ".npy", ".json", ".zarr"] {
        forget(Node::Group(View::Head, Arc::from(group)), &format!("{part}{ending}"));
    }
    forget(Node::ZarrGroup(View::Head, Arc::from(group)), part);
}

/// What a commit removed and somebody may still have open.
pub(crate) fn removed_arrays(record: &Record, before: &Snapshot) -> Vec<ArrayId> {
    let names = record.catalog.iter().filter_map(|change| match change {
        CatalogChange::Remove { name } => Some(name),
        _ => None,
    });
    names.filter_map(|name| before.catalog().array(name).map(|entry| entry.id)).collect()
}
