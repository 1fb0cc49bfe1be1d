//! What is done to files and names: who has which file open for writing, and changes of names.
//!
//! ```text
//! open, create -> Writer, by file          write, truncate -> its transaction
//! fsync, close -> commit                   the last close of a killed program -> abort
//! mkdir, rm, mv, setfattr                  a transaction each, committed at once
//! ```
//!
//! # Invariants
//!
//! 1. What is stored through a shared mapping is in one transaction for each file: that of the only
//!    program that writes it, or one of its own if several do.
//! 2. Who made a commit is answered only after everybody sees it, or after a time limit.
//! 3. Names that end like files of arrays are not given to groups.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use fuser::{Errno, INodeNo, Notifier, RenameFlags};
use parking_lot::Mutex;
use zbigarray::Tid;
use zbigarray::txn::{Catalog, CatalogChange, Node as Entry};

use crate::attributes;
use crate::follow::Progress;
use crate::names::{self, Named};
use crate::node::{Node, View};
use crate::refusal::Refusal;
use crate::text::Counters;
use crate::tree::Tree;
use crate::writer::{Target, Writer};

/// How long a program that committed waits until everybody sees it.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Everything that is open for writing.
pub(crate) struct Writing {
    tree: Arc<Tree>,
    progress: Arc<Progress>,
    notifier: OnceLock<Notifier>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    // By number of the file.
    writers: HashMap<u64, Vec<Arc<Writer>>>,
    // What is stored through shared mappings of a file that several programs write.
    mapped: HashMap<u64, Arc<Writer>>,
    // New files by name, with their numbers once they are opened.
    new: HashMap<Arc<str>, (Node, Option<u64>)>,
    attempts: u64,
}

impl Writing {
    pub(crate) fn new(tree: Arc<Tree>, progress: Arc<Progress>) -> Self {
        let files = Mutex::new(Files::default());
        Self { tree, progress, notifier: OnceLock::new(), files }
    }

    /// Whom to tell that pages are not valid any more.
    pub(crate) fn set_notifier(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    fn require_writable(&self) -> Result<(), Refusal> {
        if self.tree.is_writable() { Ok(()) } else { Err(Errno::EROFS.into()) }
    }

    /// Opens an existing file for writing.
    pub(crate) fn open(
        &self,
        number: u64,
        node: &Node,
        is_append: bool,
        thread: u32,
    ) -> Result<Arc<Writer>, Refusal> {
        self.require_writable()?;
        let Node::Npy(View::Head, id) = node else {
            let is_new = matches!(node, Node::New(..));
            return Err(if is_new { Errno::EBUSY.into() } else { for_reading(node) });
        };
        let head = self.tree.snapshots.head()?;
        let name = head.catalog().name_of(*id).ok_or(Errno::ESTALE)?;
        let target = Target::Array { name, id: *id, own_header: None };
        self.begin(number, target, is_append, thread)
    }

    /// Opens a new file: its node, to be looked up, and then [`begin`](Self::begin).
    pub(crate) fn create(&self, parent: &Node, name: &OsStr) -> Result<(Node, Target), Refusal> {
        self.require_writable()?;
        let Node::Group(View::Head, group) = parent else { return Err(for_reading(parent)) };
        let Some(full) = names::array_of(group, name) else {
            let shown = name.to_string_lossy();
            return Err(Refusal::new(
                Errno::EINVAL,
                format!("{shown}: new files are arrays, *.npy"),
            ));
        };
        zbigarray::txn::check_name(&full)?;
        let name: Arc<str> = Arc::from(full);
        if self.tree.snapshots.head()?.catalog().node(&name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        let mut files = self.files.lock();
        if files.new.contains_key(&name) {
            return Err(Errno::EBUSY.into());
        }
        files.attempts += 1;
        let node = Node::New(Arc::clone(&name), files.attempts);
        files.new.insert(Arc::clone(&name), (node.clone(), None));
        Ok((node, Target::Receiving { name, replaces: None, received: Vec::new() }))
    }

    /// Begins to write a file.
    pub(crate) fn begin(
        &self,
        number: u64,
        target: Target,
        is_append: bool,
        thread: u32,
    ) -> Result<Arc<Writer>, Refusal> {
        let store = self.tree.snapshots.store().clone();
        let new = match &target {
            Target::Receiving { name, .. } => Some(Arc::clone(name)),
            _ => None,
        };
        let writer = Writer::new(store, target, is_append, thread);
        let mut files = self.files.lock();
        if let Some(name) = new {
            match (&writer, files.new.get_mut(&name)) {
                (Ok(_), Some((_, known))) => *known = Some(number),
                _ => drop(files.new.remove(&name)),
            }
        }
        let writer = Arc::new(writer?);
        writer.used_by(thread);
        files.writers.entry(number).or_default().push(Arc::clone(&writer));
        Ok(writer)
    }

    /// The node of a file that is being created.
    pub(crate) fn find_new(&self, parent: &Node, name: &OsStr) -> Option<Node> {
        let Node::Group(View::Head, group) = parent else { return None };
        let full = names::array_of(group, name)?;
        self.files.lock().new.get(full.as_str()).map(|(node, _)| node.clone())
    }

    /// Bytes of a file as its writers have it, 0 if none changed it.
    pub(crate) fn size(&self, number: u64) -> u64 {
        let files = self.files.lock();
        let writers = files.writers.get(&number).into_iter().flatten();
        writers.chain(files.mapped.get(&number)).map(|writer| writer.size()).max().unwrap_or(0)
    }

    /// Whether somebody writes a file.
    pub(crate) fn is_written(&self, number: u64) -> bool {
        self.files.lock().writers.contains_key(&number)
    }

    /// The writer with what was stored through shared mappings of a file.
    pub(crate) fn mapped(&self, number: u64) -> Option<Arc<Writer>> {
        let files = self.files.lock();
        if let Some(mapped) = files.mapped.get(&number) {
            return Some(Arc::clone(mapped));
        }
        files.writers.get(&number)?.iter().find(|writer| writer.is_mapped()).cloned()
    }

    /// Takes bytes of a file, from a program or from the kernel's cache.
    pub(crate) fn write(
        &self,
        number: u64,
        writer: &Arc<Writer>,
        (offset, bytes): (u64, &[u8]),
        from_cache: bool,
        thread: u32,
    ) -> Result<(), Refusal> {
        let counters = &self.tree.counters;
        Counters::add(&counters.writes, 1);
        Counters::add(&counters.written_bytes, bytes.len() as u64);
        if !from_cache {
            writer.used_by(thread);
            return writer.write(offset, bytes, false);
        }
        self.for_mapping(number, writer)?.write(offset, bytes, true)
    }

    /// Invariant 1.
    fn for_mapping(&self, number: u64, writer: &Arc<Writer>) -> Result<Arc<Writer>, Refusal> {
        let several = {
            let files = self.files.lock();
            if let Some(mapped) = files.mapped.get(&number) {
                return Ok(Arc::clone(mapped));
            }
            files.writers.get(&number).is_some_and(|writers| writers.len() > 1)
        };
        if !several || writer.is_mapped() {
            return Ok(Arc::clone(writer));
        }
        let node = self.tree.node(INodeNo(number))?;
        let id = node.array().ok_or(Errno::EIO)?;
        let name = self.tree.snapshots.head()?.catalog().name_of(id).ok_or(Errno::ESTALE)?;
        let target = Target::Array { name, id, own_header: None };
        let store = self.tree.snapshots.store().clone();
        let mapped = Arc::new(Writer::new(store, target, false, 0)?);
        Ok(Arc::clone(self.files.lock().mapped.entry(number).or_insert(mapped)))
    }

    /// Commits what a writer has, and what was stored through shared mappings of its file.
    pub(crate) fn commit(&self, number: u64, writer: &Arc<Writer>) -> Result<(), Refusal> {
        let mapped = self.files.lock().mapped.remove(&number);
        let mut newest = None;
        for writer in [Some(writer), mapped.as_ref()].into_iter().flatten() {
            match self.commit_one(number, writer) {
                Ok(tid) => newest = newest.max(tid),
                Err(refusal) => {
                    self.drop_pages(number);
                    return Err(refusal);
                }
            }
        }
        if let Some(tid) = newest {
            self.everybody_sees(tid);
        }
        Ok(())
    }

    fn commit_one(&self, number: u64, writer: &Arc<Writer>) -> Result<Option<Tid>, Refusal> {
        let counters = &self.tree.counters;
        let committed = writer.commit();
        match &committed {
            Ok(Some(_)) => Counters::add(&counters.commits, 1),
            Ok(None) => {}
            Err(refusal) if refusal.errno == Errno::ESTALE => Counters::add(&counters.conflicts, 1),
            Err(_) => Counters::add(&counters.aborts, 1),
        }
        // A new file became an array, or one that was written anew another array.
        if let (Ok(Some(_)), Some(id)) = (&committed, writer.array())
            && let Some(node) = self.tree.nodes.get(number)
            && node.array() != Some(id)
        {
            self.tree.nodes.become_node(number, Node::Npy(View::Head, id));
            self.files.lock().new.retain(|_, (_, known)| *known != Some(number));
            self.drop_pages(number);
        }
        committed
    }

    /// Invariant 2.
    fn everybody_sees(&self, tid: Tid) {
        log::info!("commit {tid} was made through the mount");
        self.progress.wait_for(tid, SEEN_WITHIN);
    }

    /// The last descriptor and mapping of a file is gone. What is not committed by now was stored
    /// through a mapping after the file was closed, or the program ended without closing it.
    pub(crate) fn release(&self, number: u64, writer: &Arc<Writer>) {
        if writer.is_changed() {
            if writer.was_killed() {
                if writer.abort() {
                    Counters::add(&self.tree.counters.aborts, 1);
                    log::warn!("a program was killed while it wrote: nothing of it is kept");
                    self.drop_pages(number);
                }
            } else if let Err(refusal) = self.commit(number, writer)
                && refusal.why.is_some()
            {
                refusal.logged("closing a file");
            }
        }
        let mut files = self.files.lock();
        let is_last = match files.writers.get_mut(&number) {
            Some(writers) => {
                writers.retain(|other| !Arc::ptr_eq(other, writer));
                writers.is_empty()
            }
            None => true,
        };
        if !is_last {
            return;
        }
        files.writers.remove(&number);
        let mapped = files.mapped.remove(&number);
        // By number: the kernel may have forgotten the file before this request came to us.
        files.new.retain(|_, (_, known)| *known != Some(number));
        drop(files);
        if let Some(mapped) = mapped
            && let Err(refusal) = mapped.commit()
        {
            refusal.logged("closing a file");
            self.drop_pages(number);
        }
    }

    /// The kernel keeps pages that were not committed and never will be.
    fn drop_pages(&self, number: u64) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(number), 0, 0)
        {
            log::debug!("making file {number} invalid: {error}");
        }
    }

    /// Gives a file another size that is named by its path.
    ///
    /// The kernel empties a file that is opened with `O_TRUNC` in the same way, right after it was
    /// opened, so that is done to what `thread` opened and did not change yet.
    pub(crate) fn truncate(
        &self,
        number: u64,
        node: &Node,
        size: u64,
        thread: u32,
    ) -> Result<(), Refusal> {
        if size == 0 {
            let files = self.files.lock();
            let writers = files.writers.get(&number).into_iter().flatten();
            let opened = writers.rev().find(|writer| writer.is_untouched_by(thread)).cloned();
            drop(files);
            if let Some(writer) = opened {
                return writer.truncate(0);
            }
        }
        let writer = self.open(number, node, false, 0)?;
        let done = match size {
            0 => Err(Refusal::new(Errno::EINVAL, "a .npy file begins with its header")),
            _ => writer.truncate(size).and_then(|()| self.commit(number, &writer)),
        };
        writer.abort();
        self.release(number, &writer);
        done
    }

    /// One change of names or attributes, committed at once.
    fn change(&self, note: &str, changes: Vec<CatalogChange>) -> Result<(), Refusal> {
        self.require_writable()?;
        let transaction = self.tree.snapshots.store().begin()?;
        changes.into_iter().try_for_each(|change| transaction.change(change))?;
        let tid = transaction.commit_with_note(note)?;
        Counters::add(&self.tree.counters.commits, 1);
        self.everybody_sees(tid);
        Ok(())
    }

    /// Makes a group; its node.
    pub(crate) fn make_group(&self, parent: &Node, name: &OsStr) -> Result<Node, Refusal> {
        let full = self.group_name(parent, name)?;
        let change = CatalogChange::CreateGroup { name: Arc::clone(&full) };
        self.change(&format!("mkdir {full}"), vec![change])?;
        Ok(Node::Group(View::Head, full))
    }

    /// The full name of a group to be.
    fn group_name(&self, parent: &Node, name: &OsStr) -> Result<Arc<str>, Refusal> {
        self.require_writable()?;
        let Node::Group(View::Head, group) = parent else { return Err(for_reading(parent)) };
        let part = name.to_str().ok_or(Errno::EINVAL)?;
        if [".npy", ".json", ".zarr"].iter().any(|ending| part.ends_with(ending)) {
            let why = format!("{part}: groups are not named like files of arrays");
            return Err(Refusal::new(Errno::EINVAL, why));
        }
        Ok(Arc::from(names::join(group, part)))
    }

    /// Removes the file of an array.
    pub(crate) fn remove_file(&self, parent: &Node, name: &OsStr) -> Result<(), Refusal> {
        self.require_writable()?;
        let Node::Group(View::Head, group) = parent else { return Err(for_reading(parent)) };
        let head = self.tree.snapshots.head()?;
        match names::find(head.catalog(), group, name) {
            Some(Named::Npy(_)) => {
                let full = names::array_of(group, name).ok_or(Errno::ENOENT)?;
                let change = CatalogChange::Remove { name: Arc::from(full.as_str()) };
                self.change(&format!("rm {full}.npy"), vec![change])
            }
            Some(Named::Group(_) | Named::Zarr(_) | Named::ZarrGroup(_)) => {
                Err(Errno::EISDIR.into())
            }
            Some(Named::Json(_)) => Err(Errno::EACCES.into()),
            None => Err(Errno::ENOENT.into()),
        }
    }

    /// Removes a group that is empty.
    pub(crate) fn remove_group(&self, parent: &Node, name: &OsStr) -> Result<(), Refusal> {
        self.require_writable()?;
        let Node::Group(View::Head, group) = parent else { return Err(for_reading(parent)) };
        let head = self.tree.snapshots.head()?;
        match names::find(head.catalog(), group, name) {
            Some(Named::Group(full)) => {
                let change = CatalogChange::Remove { name: Arc::clone(&full) };
                self.change(&format!("rmdir {full}"), vec![change])
            }
            Some(Named::Npy(_) | Named::Json(_)) => Err(Errno::ENOTDIR.into()),
            Some(_) => Err(Errno::EACCES.into()),
            None => Err(Errno::ENOENT.into()),
        }
    }

    /// Renames an array or a group; what had the new name is replaced as rename(2) has it.
    pub(crate) fn rename(
        &self,
        (parent, name): (&Node, &OsStr),
        (new_parent, new_name): (&Node, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Refusal> {
        self.require_writable()?;
        let (Node::Group(View::Head, group), Node::Group(View::Head, new_group)) =
            (parent, new_parent)
        else {
            let is_fixed = !matches!(parent, Node::Group(View::Head, _));
            return Err(for_reading(if is_fixed { parent } else { new_parent }));
        };
        if !(flags & !RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(Errno::EINVAL.into());
        }
        let head = self.tree.snapshots.head()?;
        let (from, to) = match names::find(head.catalog(), group, name).ok_or(Errno::ENOENT)? {
            Named::Npy(_) => {
                let to = names::array_of(new_group, new_name).ok_or_else(|| {
                    Refusal::new(Errno::EINVAL, "the file of an array keeps its ending .npy")
                })?;
                (Arc::from(names::array_of(group, name).ok_or(Errno::ENOENT)?), Arc::from(to))
            }
            Named::Group(from) => (from, self.group_name(new_parent, new_name)?),
            _ => return Err(Errno::EACCES.into()),
        };
        if from == to {
            return Ok(());
        }
        let keeps = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let mut changes = replaced(head.catalog(), &from, &to, keeps)?;
        let note = format!("mv {from} {to}");
        changes.push(CatalogChange::Move { from, to });
        self.change(&note, changes)
    }

    /// Sets an attribute, or without value removes it.
    pub(crate) fn set_attribute(
        &self,
        node: &Node,
        name: &OsStr,
        value: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        if node.view() != Some(View::Head) {
            return Err(Errno::EACCES.into());
        }
        let owner = attributes::owner(node).ok_or(Errno::EOPNOTSUPP)?;
        let key = attributes::key(name)?;
        let value = value.map(attributes::value).transpose()?;
        let note = format!("attribute {key}");
        self.change(&note, vec![CatalogChange::Attribute { owner, key, value }])
    }
}

/// What is never written is refused, with the way that there is.
fn for_reading(node: &Node) -> Refusal {
    let why = match node {
        Node::ZarrGroup(View::Head, _)
        | Node::ZarrGroupJson(View::Head, _)
        | Node::ZarrArray(View::Head, ..)
        | Node::ZarrArrayJson(View::Head, _)
        | Node::ZarrChunks(View::Head, ..)
        | Node::ZarrChunk(View::Head, ..) => {
            "the Zarr view is for reading: write the .npy file of the array"
        }
        Node::Json(View::Head, _) => "this is computed: write the .npy file or its attributes",
        _ => "only what is below head/ can be written",
    };
    Refusal::new(Errno::EACCES, why)
}

/// What has to go so that `from` can be called `to`.
fn replaced(
    catalog: &Catalog,
    from: &str,
    to: &str,
    keeps: bool,
) -> Result<Vec<CatalogChange>, Refusal> {
    let Some(there) = catalog.node(to) else { return Ok(Vec::new()) };
    if keeps {
        return Err(Errno::EEXIST.into());
    }
    match (catalog.node(from), there) {
        (Some(Entry::Array(_)), Entry::Group(_)) => Err(Errno::EISDIR.into()),
        (Some(Entry::Group(_)), Entry::Array(_)) => Err(Errno::ENOTDIR.into()),
        _ => Ok(vec![CatalogChange::Remove { name: Arc::from(to) }]),
    }
}
