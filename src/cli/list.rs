//! Looking without changing: `ls`, `info`, `du`.
//!
//! ```text
//! array bytes   | block 0 | block 1 | block 2 | block 3 |
//! on the disk     piece 1 ...........  (hole)    piece 2       2 pieces, 3 of 4 blocks stored
//! ```
//! A *piece* is a run of bytes that is contiguous in the array and on the disk. An array written
//! in order is one piece; each piece more costs a seek and a kernel mapping.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde_json::{Map, Value, json};
use zbigarray::array::{Descriptor, shape};
use zbigarray::txn::{ArrayEntry, Attributes, Catalog, Node};
use zbigarray::units::{ArrayId, PAGE_BYTES, PageRange};
use zbigarray::{Codec, Store, Transaction};

use super::error::Error;
use super::history::History;
use super::output::{self, Facts, Output, Side, Table, plural, size};
use super::{At, StorePath};

/// List arrays and groups
#[derive(Args)]
#[command(after_help = "\
Examples:
  zba ls signals.zba
  zba ls signals.zba climate/ --at 7d      as a week ago")]
pub(crate) struct Ls {
    #[command(flatten)]
    store: StorePath,
    /// Only names that begin so
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    at: At,
}

impl Ls {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let transaction = self.at.begin(&store)?;
        let catalog = transaction.catalog();
        let mut table = Table::new(&[
            ("NAME", Side::Left),
            ("TYPE", Side::Left),
            ("SHAPE", Side::Left),
            ("ORDER", Side::Left),
            ("SIZE", Side::Right),
            ("CHANGED", Side::Right),
        ]);
        let (mut arrays, mut groups) = (Vec::new(), Vec::new());
        for (name, node) in catalog.names().filter(|(name, _)| name.starts_with(&*self.prefix)) {
            match node {
                Node::Group(attributes) => {
                    table.row([format!("{name}/"), "group".to_owned()]);
                    groups.push(json!({"name": name, "attributes": attributes_json(attributes)}));
                }
                Node::Array(id) => {
                    let Some(entry) = catalog.array_by_id(*id) else { continue };
                    let facts = Elements::of(entry)?;
                    table.row(facts.row(name, entry));
                    arrays.push(facts.json(name, entry));
                }
            }
        }
        if arrays.is_empty() && groups.is_empty() && !self.prefix.is_empty() {
            return Err(Error::Refused(format!("no name begins with `{}`", self.prefix)));
        }
        let commit = transaction.base().0;
        if arrays.is_empty() && groups.is_empty() {
            output.say(format!("the store is empty as of commit {commit}"));
        }
        let json = json!({"commit": commit, "arrays": arrays, "groups": groups});
        let text = if arrays.len() + groups.len() > 0 { table.to_string() } else { String::new() };
        output.show(&json, text)
    }
}

/// What a catalog entry says of an array's elements.
struct Elements {
    descriptor: Descriptor,
    nbytes: u64,
}

impl Elements {
    fn of(entry: &ArrayEntry) -> Result<Self, Error> {
        let descriptor = Descriptor::from_json(&entry.descriptor)?;
        let nbytes = shape::nbytes(&entry.shape, descriptor.dtype.itemsize())?;
        Ok(Self { descriptor, nbytes })
    }

    fn row(&self, name: &str, entry: &ArrayEntry) -> [String; 6] {
        [
            name.to_owned(),
            self.descriptor.dtype.to_string(),
            output::shape(&entry.shape),
            self.descriptor.order.to_string(),
            size(self.nbytes),
            entry.changed.to_string(),
        ]
    }

    fn json(&self, name: &str, entry: &ArrayEntry) -> Value {
        json!({
            "name": name, "id": entry.id.0, "dtype": self.descriptor.dtype,
            "shape": &*entry.shape, "order": output::order_text(self.descriptor.order),
            "bytes": self.nbytes, "block_bytes": entry.block_bytes,
            "codec": entry.codec.to_string(),
            "created": entry.created.0, "changed": entry.changed.0,
            "attributes": attributes_json(&entry.attributes),
        })
    }
}

/// Attributes as an object.
pub(crate) fn attributes_json(attributes: &Attributes) -> Value {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    let object: Map<String, Value> =
        attributes.iter().map(|(key, text)| (key.to_string(), value(text))).collect();
    object.into()
}

/// How an array lies on the disk.
#[derive(Default)]
struct Disk {
    blocks: u64,
    blocks_stored: u64,
    extents: u64,
    pieces: u64,
    // What it takes, what that holds, and how much of the latter is encoded.
    bytes: u64,
    content_bytes: u64,
    encoded_bytes: u64,
}

impl Disk {
    fn of(transaction: &Transaction, entry: &ArrayEntry, nbytes: u64) -> Result<Self, Error> {
        let mut disk = Self { blocks: nbytes.div_ceil(entry.block_bytes), ..Self::default() };
        let block_pages = entry.block_bytes / PAGE_BYTES;
        // The place that would continue the last piece, and the first block not counted yet.
        let (mut next_place, mut next_block) = (None, 0);
        let mut last_extent = None;
        for segment in transaction.segments(entry.id, PageRange::covering(0, nbytes))? {
            let Some(extent) = segment.source.extent() else {
                next_place = None;
                continue;
            };
            let is_new = last_extent != Some(extent.place());
            last_extent = Some(extent.place());
            disk.extents += u64::from(is_new);
            if extent.is_encoded() {
                disk.pieces += u64::from(is_new && next_place != Some(extent.place()));
                next_place = Some(extent.place().after(u64::from(extent.stored_pages())));
                disk.encoded_bytes += segment.pages.len_bytes();
                let stored_bytes = u64::from(extent.stored_pages()) * PAGE_BYTES;
                disk.bytes += if is_new { stored_bytes } else { 0 };
            } else {
                let place = segment.source.place();
                disk.pieces += u64::from(next_place != place);
                next_place = place.map(|place| place.after(segment.pages.count()));
                disk.bytes += segment.pages.len_bytes();
            }
            disk.content_bytes += segment.pages.len_bytes();
            let first = (segment.pages.start / block_pages).max(next_block);
            next_block = segment.pages.end.div_ceil(block_pages);
            disk.blocks_stored += next_block.saturating_sub(first);
        }
        Ok(disk)
    }

    /// Bytes of content for each byte on the disk.
    fn ratio(&self) -> f64 {
        output::as_f64(self.content_bytes) / output::as_f64(self.bytes.max(1))
    }

    /// Pieces beyond the first per stored block: 0 if all lies in one run, 1 if no two blocks do.
    fn fragmentation(&self) -> f64 {
        output::as_f64(self.pieces.saturating_sub(1)) / output::as_f64(self.blocks_stored.max(1))
    }

    fn json(&self) -> Value {
        json!({
            "blocks": self.blocks, "blocks_stored": self.blocks_stored, "extents": self.extents,
            "pieces": self.pieces, "fragmentation": self.fragmentation(), "disk_bytes": self.bytes,
            "encoded_bytes": self.encoded_bytes, "ratio": self.ratio(),
        })
    }
}

/// Show what is known of the store, or of one array or group
#[derive(Args)]
#[command(after_help = "\
Examples:
  zba info signals.zba
  zba info signals.zba ecg
  zba info signals.zba ecg --json | jq .fragmentation")]
pub(crate) struct Info {
    #[command(flatten)]
    store: StorePath,
    /// Array or group; without it, the store
    name: Option<String>,
    #[command(flatten)]
    at: At,
}

impl Info {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let transaction = self.at.begin(&store)?;
        let catalog = transaction.catalog();
        let Some(name) = self.name else {
            return store_info(&store, &transaction, self.store.path(), output);
        };
        match catalog.node(super::names::group_name(&name)) {
            Some(Node::Group(attributes)) => group_info(&catalog, &name, &attributes, output),
            Some(Node::Array(id)) => array_info(&store, &transaction, &name, id, output),
            None => Err(zbigarray::txn::CatalogError::NotFound { name }.into()),
        }
    }
}

fn store_info(
    store: &Store,
    transaction: &Transaction,
    path: &Path,
    output: Output,
) -> Result<(), Error> {
    let (catalog, usage) = (transaction.catalog(), store.usage()?);
    let (mut logical, mut stored) = (0_u64, 0_u64);
    for entry in catalog.arrays() {
        let nbytes = Elements::of(entry)?.nbytes;
        logical = logical.saturating_add(nbytes);
        stored += Disk::of(transaction, entry, nbytes)?.bytes;
    }
    let groups = catalog.names().filter(|(_, node)| matches!(node, Node::Group(_))).count();
    let (base, oldest) = (transaction.base(), store.oldest());
    let tags: BTreeMap<&str, u64> = catalog.tags().map(|(tag, tid)| (&**tag, tid.0)).collect();
    let json = json!({
        "store": path.to_string_lossy(), "uuid": store.uuid().to_string(), "commit": base.0,
        "oldest": oldest.0, "time": output::moment_json(transaction.base_time_ns()),
        "block_bytes": store.block_bytes(), "arrays": catalog.arrays_count(), "groups": groups,
        "bytes": logical, "disk_bytes": stored, "tags": tags,
        "attributes": attributes_json(catalog.root()), "usage": usage_json(&usage),
    });
    let mut facts = Facts::new();
    facts.add("store", path.display());
    facts.add("uuid", store.uuid());
    let when = output::moment(transaction.base_time_ns());
    facts
        .add("commit", if base.0 == 0 { "0, empty".to_owned() } else { format!("{base}, {when}") });
    let kept = format!("commits {oldest} to {} can be read", store.head());
    facts.add("history", kept);
    if !tags.is_empty() {
        let tags: Vec<String> = tags.iter().map(|(tag, tid)| format!("{tag} ({tid})")).collect();
        facts.add("tags", tags.join(", "));
    }
    let arrays = u64::try_from(catalog.arrays_count()).unwrap_or(u64::MAX);
    facts.add("arrays", format!("{}, {} of elements", output::grouped(arrays), size(logical)));
    facts.add("on disk", format!("{} now shown by arrays", size(stored)));
    facts.add("data files", data_files(&usage));
    facts.add("log", size(usage.log_bytes));
    facts.add("checkpoints", size(usage.checkpoint_bytes));
    facts.add("block size", size(store.block_bytes()));
    add_attributes(&mut facts, catalog.root());
    output.show(&json, facts)
}

fn data_files(usage: &zbigarray::txn::Usage) -> String {
    let (used, free) = (size(usage.data_used_bytes), size(usage.data_free_bytes));
    format!("{}: {used} used with history, {free} free", size(usage.data_bytes))
}

fn usage_json(usage: &zbigarray::txn::Usage) -> Value {
    json!({
        "data_bytes": usage.data_bytes, "data_used_bytes": usage.data_used_bytes,
        "data_free_bytes": usage.data_free_bytes, "log_bytes": usage.log_bytes,
        "checkpoint_bytes": usage.checkpoint_bytes,
        "total_bytes": usage.data_bytes + usage.log_bytes + usage.checkpoint_bytes,
    })
}

fn group_info(
    catalog: &Catalog,
    name: &str,
    attributes: &Attributes,
    output: Output,
) -> Result<(), Error> {
    let members: Vec<&str> =
        catalog.below(super::names::group_name(name)).map(|(name, _)| &**name).collect();
    let json = json!({"name": name, "members": members, "attributes": attributes_json(attributes)});
    let mut facts = Facts::new();
    facts.add("group", name);
    facts.add("members", if members.is_empty() { "none".to_owned() } else { members.join(", ") });
    add_attributes(&mut facts, attributes);
    output.show(&json, facts)
}

fn codec_text(codec: Codec, disk: &Disk) -> String {
    if disk.encoded_bytes == 0 {
        let is_idle = !codec.is_none() && disk.content_bytes > 0;
        return format!("{codec}{}", if is_idle { ", nothing became shorter by it" } else { "" });
    }
    let (encoded, all) = (size(disk.encoded_bytes), size(disk.content_bytes));
    format!("{codec}, {encoded} of {all} encoded, ratio {:.2}", disk.ratio())
}

fn array_info(
    store: &Store,
    transaction: &Transaction,
    name: &str,
    id: ArrayId,
    output: Output,
) -> Result<(), Error> {
    let catalog = transaction.catalog();
    let Some(entry) = catalog.array_by_id(id) else {
        return Err(zbigarray::txn::CatalogError::NoArray { array: id }.into());
    };
    let elements = Elements::of(entry)?;
    let disk = Disk::of(transaction, entry, elements.nbytes)?;
    let history = History::read(store)?;
    let commits = history.commits_of(id).filter(|commit| commit.tid <= transaction.base()).count();
    let commits = u64::try_from(commits).unwrap_or(u64::MAX);
    let mut json = elements.json(name, entry);
    if let (Value::Object(all), Value::Object(more)) = (&mut json, disk.json()) {
        all.extend(more);
        all.insert("commits".to_owned(), json!(commits));
        let strides = shape::strides(
            &entry.shape,
            elements.descriptor.dtype.itemsize(),
            elements.descriptor.order,
        );
        all.insert("strides".to_owned(), json!(strides));
    }
    let mut facts = Facts::new();
    facts.add("array", name);
    facts.add("type", &elements.descriptor.dtype);
    facts.add("shape", output::shape(&entry.shape));
    facts.add("order", elements.descriptor.order);
    facts.add("size", format!("{}, {} on disk", size(elements.nbytes), size(disk.bytes)));
    let blocks = format!("{} of {}", plural(disk.blocks, "block"), size(entry.block_bytes));
    facts.add("blocks", format!("{blocks}, {} stored", output::grouped(disk.blocks_stored)));
    let (extents, pieces) = (plural(disk.extents, "extent"), plural(disk.pieces, "piece"));
    let percent = disk.fragmentation() * 100.0;
    facts.add("layout", format!("{extents} in {pieces}, fragmentation {percent:.1}%"));
    facts.add("codec", codec_text(entry.codec, &disk));
    if let Some(fill) = &elements.descriptor.fill {
        let hex: String = fill.iter().map(|byte| format!("{byte:02x}")).collect();
        facts.add("fill", format!("0x{hex}"));
    }
    facts.add("created", history.moment_of(entry.created));
    facts.add("changed", history.moment_of(entry.changed));
    facts.add("history", format!("{} of the kept history", plural(commits, "commit")));
    add_attributes(&mut facts, &entry.attributes);
    output.show(&json, facts)
}

fn add_attributes(facts: &mut Facts, attributes: &Attributes) {
    for (at, (key, value)) in attributes.iter().enumerate() {
        facts.add(if at == 0 { "attributes" } else { "" }, format!("{key} = {value}"));
    }
}

/// Show what takes how much space
#[derive(Args)]
#[command(after_help = "\
SIZE is that of all elements, DISK what the array's newest content takes; what nobody wrote takes
nothing. Older content of arrays counts as history, which `zba pack` gives back.

Examples:
  zba du signals.zba
  zba du signals.zba climate/ --json")]
pub(crate) struct Du {
    #[command(flatten)]
    store: StorePath,
    /// Only arrays whose names begin so
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
}

impl Du {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let (transaction, usage) = (store.begin_read()?, store.usage()?);
        let catalog = transaction.catalog();
        let mut arrays = Vec::new();
        for (name, node) in catalog.names().filter(|(name, _)| name.starts_with(&*self.prefix)) {
            let Node::Array(id) = node else { continue };
            let Some(entry) = catalog.array_by_id(*id) else { continue };
            let nbytes = Elements::of(entry)?.nbytes;
            arrays.push((name, nbytes, Disk::of(&transaction, entry, nbytes)?.bytes));
        }
        arrays.sort_by_key(|(_, _, disk)| std::cmp::Reverse(*disk));
        let elements = arrays.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        let disk: u64 = arrays.iter().map(|(_, _, disk)| disk).sum();
        let json = json!({
            "arrays": arrays.iter().map(|(name, bytes, disk)| json!({
                "name": name, "bytes": bytes, "disk_bytes": disk,
            })).collect::<Vec<_>>(),
            "bytes": elements, "disk_bytes": disk, "usage": usage_json(&usage),
        });
        let columns = [("SIZE", Side::Right), ("DISK", Side::Right), ("NAME", Side::Left)];
        let mut table = Table::new(&columns);
        for (name, bytes, disk) in &arrays {
            table.row([size(*bytes), size(*disk), name.to_string()]);
        }
        table.row([size(elements), size(disk), format!("total of {}", plural_of(arrays.len()))]);
        if self.prefix.is_empty() {
            let history = usage.data_used_bytes.saturating_sub(disk);
            let log = usage.log_bytes + usage.checkpoint_bytes;
            let total = usage.data_bytes + log;
            table.row([String::new(), size(history), "older content, kept as history".into()]);
            table.row([String::new(), size(usage.data_free_bytes), "free for new data".into()]);
            table.row([String::new(), size(log), "commit log and checkpoints".into()]);
            table.row([String::new(), size(total), "the store".into()]);
        }
        output.show(&json, table)
    }
}

fn plural_of(count: usize) -> String {
    plural(u64::try_from(count).unwrap_or(u64::MAX), "array")
}
