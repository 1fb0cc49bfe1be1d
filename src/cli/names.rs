//! Changing names and metadata: `create`, `rm`, `mv`, `cp`, `attrs`, `resize`, `tag`,
//! `undo`.
//!
//! # Invariants
//!
//! 1. Each command is one commit: it does all it was asked, or nothing.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use zbigarray::array::Descriptor;
use zbigarray::txn::{ArrayEntry, CatalogChange, CatalogError, Node, Owner};
use zbigarray::{ArrayOptions, CreateOptions, DynArray, Store, Transaction};

use super::error::Error;
use super::history::History;
use super::interrupt::Interrupt;
use super::list::attributes_json;
use super::output::{self, Output, Side, Table};
use super::progress::Progress;
use super::values::{self, Shape, Size};
use super::{Note, StorePath, stream};

/// Create an empty store
#[derive(Args)]
#[command(after_help = "\
A block is the unit in which data is stored and read. Small blocks suit small scattered changes,
large ones long sequential reads. Each array may choose its own.

Example:
  zba create signals.zba --block-size 1MiB")]
pub(crate) struct Create {
    #[command(flatten)]
    store: StorePath,
    /// Bytes of a block of arrays that do not choose: a power of two from 64KiB to 1GiB
    #[arg(long, value_name = "SIZE", default_value = "2MiB")]
    block_size: Size,
}

impl Create {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let Size(block_bytes) = self.block_size;
        let mut options = CreateOptions::default();
        options.block_bytes = block_bytes;
        let path = self.store.path();
        self.store.require_no_file()?;
        Store::create(path, options)?;
        let json = json!({"store": path.to_string_lossy(), "block_bytes": block_bytes});
        let size = output::size(block_bytes);
        output.done(&json, format!("created {} with blocks of {size}", path.display()))
    }
}

/// Remove arrays and groups
#[derive(Args)]
#[command(after_help = "\
Older commits keep what was removed until `zba pack` forgets them.

Examples:
  zba rm signals.zba ecg eeg
  zba rm signals.zba climate -r")]
pub(crate) struct Rm {
    #[command(flatten)]
    store: StorePath,
    /// Arrays and groups
    #[arg(required = true)]
    names: Vec<String>,
    /// Groups with all that is in them
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    note: Note,
}

impl Rm {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let mut removed = Vec::new();
        for name in &self.names {
            let name = group_name(name);
            let catalog = transaction.catalog();
            let mut all: Vec<Arc<str>> = Vec::new();
            if self.recursive && matches!(catalog.node(name), Some(Node::Group(_))) {
                all.extend(catalog.below(name).map(|(name, _)| Arc::clone(name)));
            }
            all.insert(0, Arc::from(name));
            // What is inside goes before what it is in.
            for name in all.into_iter().rev() {
                removed.push(name.to_string());
                transaction.change(CatalogChange::Remove { name })?;
            }
        }
        let note = self.note.or(|| format!("remove {}", self.names.join(", ")));
        let tid = transaction.commit_with_note(&note)?;
        let what = if removed.len() == 1 {
            format!("`{}`", output::printable(&removed[0]))
        } else {
            format!("{} names", removed.len())
        };
        let json = json!({"commit": tid.0, "removed": removed});
        output.done(&json, format!("removed {what}, commit {tid}"))
    }
}

/// Rename an array, or a group with all that is in it
#[derive(Args)]
#[command(after_help = "\
Example:
  zba mv signals.zba ecg patients/17/ecg")]
pub(crate) struct Mv {
    #[command(flatten)]
    store: StorePath,
    /// Name now
    from: String,
    /// Name then, which is free; groups above it are made
    to: String,
    #[command(flatten)]
    note: Note,
}

impl Mv {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let (from, to) = (group_name(&self.from), group_name(&self.to));
        transaction.change(CatalogChange::Move { from: Arc::from(from), to: Arc::from(to) })?;
        let note = self.note.or(|| format!("rename {from} to {to}"));
        let tid = transaction.commit_with_note(&note)?;
        let json = json!({"commit": tid.0, "from": from, "to": to});
        output.done(&json, format!("renamed `{from}` to `{to}`, commit {tid}"))
    }
}

/// Copy an array, or a group with all that is in it
#[derive(Args)]
#[command(after_help = "\
Type, shape, order, block size, fill value and attributes are copied too. What nobody wrote takes
no space in the copy either.

Examples:
  zba cp signals.zba ecg ecg.backup
  zba cp signals.zba climate climate.2025 -r")]
pub(crate) struct Cp {
    #[command(flatten)]
    store: StorePath,
    /// Array to copy; with -r a group
    from: String,
    /// Name of the copy, which is free
    to: String,
    /// A group with all that is in it
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    note: Note,
}

impl Cp {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let (from, to) = (group_name(&self.from), group_name(&self.to));
        let catalog = transaction.catalog();
        let bytes = match catalog.node(from) {
            Some(Node::Array(_)) => copy_array(&transaction, from, to, output)?,
            Some(Node::Group(_)) if self.recursive => {
                self.copy_group(&transaction, from, to, output)?
            }
            Some(Node::Group(_)) => {
                let what = format!("`{from}` is a group; give -r to copy all that is in it");
                return Err(Error::Refused(what));
            }
            None => return Err(CatalogError::NotFound { name: from.to_owned() }.into()),
        };
        let note = self.note.or(|| format!("copy {from} to {to}"));
        let tid = transaction.commit_with_note(&note)?;
        let json = json!({"commit": tid.0, "from": from, "to": to, "bytes": bytes});
        let size = output::size(bytes);
        output.done(&json, format!("copied `{from}` to `{to}`: {size}, commit {tid}"))
    }

    fn copy_group(
        &self,
        transaction: &Transaction,
        from: &str,
        to: &str,
        output: Output,
    ) -> Result<u64, Error> {
        if to == from || to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
            let (from, to) = (from.to_owned(), to.to_owned());
            return Err(CatalogError::IntoItself { from, to }.into());
        }
        let catalog = transaction.catalog();
        let mut bytes = 0;
        let own = catalog.node(from).map(|node| (Arc::from(from), node));
        let below = catalog.below(from).map(|(name, node)| (Arc::clone(name), node.clone()));
        let all: Vec<(Arc<str>, Node)> = own.into_iter().chain(below).collect();
        for (name, node) in all {
            let copy: Arc<str> = Arc::from(format!("{to}{}", &name[from.len()..]));
            match node {
                Node::Array(_) => bytes += copy_array(transaction, &name, &copy, output)?,
                Node::Group(attributes) => {
                    transaction.change(CatalogChange::CreateGroup { name: Arc::clone(&copy) })?;
                    for (key, value) in &attributes {
                        let owner = Owner::Group(Arc::clone(&copy));
                        set_attribute(transaction, &owner, key, Some(value))?;
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// Returns the bytes of the elements.
fn copy_array(
    transaction: &Transaction,
    from: &str,
    to: &str,
    output: Output,
) -> Result<u64, Error> {
    let interrupt = Interrupt::install();
    let old = DynArray::open(transaction, from)?;
    let mut new = create_like(transaction, &old, to)?;
    let progress = Progress::new(output, from, old.nbytes());
    stream::copy(&old, &mut new, &progress, &interrupt)?;
    Ok(old.nbytes())
}

/// Creates an array like `old`, without its elements; `old` may be of another store.
pub(crate) fn create_like<'t>(
    transaction: &'t Transaction,
    old: &DynArray<'_>,
    to: &str,
) -> Result<DynArray<'t>, Error> {
    let catalog = old.transaction().catalog();
    match catalog.array_by_id(old.id()) {
        Some(entry) => create_as(transaction, to, entry),
        None => Err(CatalogError::NotFound { name: old.name().to_owned() }.into()),
    }
}

/// Creates an array as `entry` says.
pub(crate) fn create_as<'t>(
    transaction: &'t Transaction,
    to: &str,
    entry: &ArrayEntry,
) -> Result<DynArray<'t>, Error> {
    let Descriptor { dtype, order, fill, .. } = Descriptor::from_json(&entry.descriptor)?;
    let mut options =
        ArrayOptions::new().order(order).block_bytes(entry.block_bytes).codec(entry.codec);
    if let Some(fill) = &fill {
        options = options.fill(fill);
    }
    let new = DynArray::create(transaction, to, &dtype, &entry.shape, &options)?;
    for (key, value) in &entry.attributes {
        set_attribute(transaction, &Owner::Array(new.id()), key, Some(value))?;
    }
    Ok(new)
}

/// Sets or removes an attribute.
pub(crate) fn set_attribute(
    transaction: &Transaction,
    owner: &Owner,
    key: &str,
    value: Option<&Arc<str>>,
) -> Result<(), Error> {
    let (owner, key, value) = (owner.clone(), Arc::from(key), value.cloned());
    Ok(transaction.change(CatalogChange::Attribute { owner, key, value })?)
}

/// Show, set and remove attributes of an array or a group
#[derive(Args)]
#[command(after_help = "\
Examples:
  zba attrs signals.zba ecg                                  show them
  zba attrs signals.zba ecg unit='\"mV\"' rate=500 gain='[1, 2]'
  zba attrs signals.zba ecg --unset gain
  zba attrs signals.zba /  title='\"Ward 7\"'                  of the store itself")]
pub(crate) struct Attrs {
    #[command(flatten)]
    store: StorePath,
    /// Array or group; / is the store itself
    name: String,
    /// What to set: the value is JSON, so text needs its quotes
    #[arg(value_name = "KEY=JSON", value_parser = key_and_json)]
    set: Vec<(String, Value)>,
    /// What to remove
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    #[command(flatten)]
    note: Note,
}

fn key_and_json(text: &str) -> Result<(String, Value), String> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err("write KEY=JSON, such as rate=500".to_owned());
    };
    let json = serde_json::from_str(value).map_err(|_| {
        let quoted = json!(value);
        format!("`{value}` is not JSON; if it is meant as text write {key}='{quoted}'")
    })?;
    Ok((key.to_owned(), json))
}

impl Attrs {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        if self.set.is_empty() && self.unset.is_empty() {
            let store = self.store.open_to_read()?;
            return self.show(&store.begin_read()?, output);
        }
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let name = group_name(&self.name);
        let owner = match transaction.catalog().node(name) {
            Some(Node::Array(id)) => Owner::Array(id),
            Some(Node::Group(_)) => Owner::Group(Arc::from(name)),
            None => return Err(CatalogError::NotFound { name: name.to_owned() }.into()),
        };
        let present = self.attributes(&transaction)?;
        for key in &self.unset {
            if present.get(key).is_none() {
                let name = &self.name;
                return Err(Error::Refused(format!("`{name}` has no attribute `{key}`")));
            }
            set_attribute(&transaction, &owner, key, None)?;
        }
        for (key, value) in &self.set {
            set_attribute(&transaction, &owner, key, Some(&Arc::from(value.to_string())))?;
        }
        let attributes = self.attributes(&transaction)?;
        let keys = self.set.iter().map(|(key, _)| key).chain(&self.unset);
        let keys = keys.map(|key| output::printable(key)).collect::<Vec<_>>().join(", ");
        let note = self.note.or(|| format!("attributes of {}: {keys}", self.name));
        let tid = transaction.commit_with_note(&note)?;
        let json = json!({"name": self.name, "commit": tid.0, "attributes": attributes});
        output.done(&json, format!("changed {keys} of `{}`, commit {tid}", self.name))
    }

    fn attributes(&self, transaction: &Transaction) -> Result<Value, Error> {
        let (catalog, name) = (transaction.catalog(), group_name(&self.name));
        match catalog.node(name) {
            Some(Node::Group(attributes)) => Ok(attributes_json(&attributes)),
            Some(Node::Array(id)) => {
                let entry = catalog.array_by_id(id).ok_or(CatalogError::NoArray { array: id })?;
                Ok(attributes_json(&entry.attributes))
            }
            None => Err(CatalogError::NotFound { name: name.to_owned() }.into()),
        }
    }

    fn show(&self, transaction: &Transaction, output: Output) -> Result<(), Error> {
        let attributes = self.attributes(transaction)?;
        let mut table = Table::new(&[("", Side::Left), ("", Side::Left)]);
        for (key, value) in attributes.as_object().into_iter().flatten() {
            table.row([key.clone(), value.to_string()]);
        }
        if attributes.as_object().is_some_and(serde_json::Map::is_empty) {
            output.say(format!("`{}` has no attributes", self.name));
        }
        let commit = transaction.base().0;
        let json = json!({"name": self.name, "commit": commit, "attributes": attributes});
        output.show(&json, table)
    }
}

/// Give an array another shape, at no cost
#[derive(Args)]
#[command(after_help = "\
The linear elements stay where they are and are read anew: growing along the major axis (C order:
the first, F order: the last) adds elements of the fill value, shrinking there drops some. Any other
change gives elements new positions.

Examples:
  zba resize signals.zba ecg 2000,12
  zba resize signals.zba ecg 24000         also another number of axes")]
pub(crate) struct Resize {
    #[command(flatten)]
    store: StorePath,
    /// Array
    name: String,
    /// New length of each axis, such as 10,20
    shape: Shape,
    #[command(flatten)]
    note: Note,
}

impl Resize {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let mut array = DynArray::open(&transaction, &self.name)?;
        let (before, Shape(after)) = (array.shape(), &self.shape);
        array.resize(after)?;
        drop(array);
        let (old, new) = (output::shape(&before), output::shape(after));
        let note = self.note.or(|| format!("resize {} from {old} to {new}", self.name));
        let tid = transaction.commit_with_note(&note)?;
        let json = json!({
            "name": self.name, "commit": tid.0, "shape": after, "shape_before": &*before,
        });
        output.done(&json, format!("resized `{}` from {old} to {new}, commit {tid}", self.name))
    }
}

/// Name a commit, or list the named ones
#[derive(Args)]
#[command(after_help = "\
A tag stands wherever a commit can be named: --at v1.0, pack --keep v1.0.

Examples:
  zba tag signals.zba                 list
  zba tag signals.zba v1.0            the newest commit
  zba tag signals.zba broken 17
  zba tag signals.zba broken --delete")]
pub(crate) struct Tag {
    #[command(flatten)]
    store: StorePath,
    /// Tag; without it, all are listed
    name: Option<String>,
    /// Commit: its number, another tag, a time, or how long ago [default: the newest]
    #[arg(value_name = "TID", conflicts_with = "delete")]
    commit: Option<String>,
    /// Delete the tag, not the commit
    #[arg(short, long, requires = "name")]
    delete: bool,
}

impl Tag {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let Some(name) = self.name else {
            return list_tags(&self.store.open_to_read()?, output);
        };
        let store = self.store.open_to_write()?;
        if self.delete {
            let transaction = store.begin()?;
            let tag = Arc::from(name.as_str());
            transaction.change(CatalogChange::Tag { tag, tid: None })?;
            let tid = transaction.commit_with_note(&format!("delete tag {name}"))?;
            let json = json!({"tag": name, "deleted": true, "commit": tid.0});
            return output.done(&json, format!("deleted tag `{name}`, commit {tid}"));
        }
        values::require_tag(&name)?;
        let tagged = match &self.commit {
            Some(text) => values::commit(&store, text)?,
            None => store.head(),
        };
        let tid = store.tag(&name, tagged)?;
        let json = json!({"tag": name, "tid": tagged.0, "commit": tid.0});
        output.done(&json, format!("tagged commit {tagged} as `{name}`, commit {tid}"))
    }
}

fn list_tags(store: &Store, output: Output) -> Result<(), Error> {
    let (catalog, history) = (store.catalog(), History::read(store)?);
    let columns = [("TAG", Side::Left), ("TID", Side::Right), ("TIME", Side::Left)];
    let mut table = Table::new(&columns);
    let mut tags = Vec::new();
    for (tag, tid) in catalog.tags() {
        let time_ns = history.time_ns(tid);
        let moment = time_ns.map_or_else(|| "packed away".to_owned(), output::moment);
        table.row([tag.to_string(), tid.to_string(), moment]);
        let time = time_ns.map_or(Value::Null, output::moment_json);
        tags.push(json!({"tag": &**tag, "tid": tid.0, "time": time}));
    }
    if tags.is_empty() {
        output.say("no commit is tagged");
    }
    let text = if tags.is_empty() { String::new() } else { table.to_string() };
    output.show(&json!({"tags": tags}), text)
}

/// Undo one commit by a new one
#[derive(Args)]
#[command(after_help = "\
What the commit changed becomes what it was before; later commits that changed other things stand.
If one changed the same things, that is a conflict (exit code 3): undo that one first. No data is
copied. Undoing an undo does it again.

Examples:
  zba undo signals.zba           the newest commit
  zba undo signals.zba 17")]
pub(crate) struct Undo {
    #[command(flatten)]
    store: StorePath,
    /// Commit: its number, a tag, a time, or how long ago [default: the newest]
    #[arg(value_name = "TID")]
    commit: Option<String>,
}

impl Undo {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let undone = match &self.commit {
            Some(text) => values::commit(&store, text)?,
            None => store.head(),
        };
        let tid = store.undo(undone)?;
        let json = json!({"undone": undone.0, "commit": tid.0});
        output.done(&json, format!("undid commit {undone}, commit {tid}"))
    }
}

/// A name as the catalog has it: `/` is the root group, and `climate/` means `climate`.
pub(crate) fn group_name(name: &str) -> &str {
    name.strip_suffix('/').unwrap_or(name)
}
