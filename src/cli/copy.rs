//! `zba copy`: a whole store into a new one, of whatever engine, compared byte by byte.
//!
//! ```text
//! SRC                                       DST.copying                          DST
//! state of the oldest commit             -> first commit     \
//! records 6, 7 ... (with --history)      -> 2, 3 ...          > compared, closed, renamed
//! ```
//!
//! # Invariants
//!
//! 1. DST exists only when all of it was copied and compared; until then there is `DST.copying`.
//! 2. With `--history` each commit of SRC that can be read, and changed anything, is one of DST,
//!    with its note and its time. Their numbers begin anew, and tags follow them.
//!
//! # Failure
//!
//! An error or Ctrl-C removes `DST.copying`; a crash leaves it, and the next copy says so.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use zbigarray::txn::{CatalogChange, Node, Owner, Record, directory_of};
use zbigarray::units::{ArrayId, PageRange};
use zbigarray::{CreateOptions, DynArray, OpenOptions, Store, Tid, Transaction};

use super::StorePath;
use super::error::Error;
use super::interrupt::Interrupt;
use super::measure::Scratch;
use super::names::{create_like, set_attribute};
use super::output::{self, Output, plural};
use super::progress::Progress;
use super::stream::{self, Pieces, to_len};

/// Bytes that are read at once of what one commit changed.
const PIECE_BYTES: u64 = 1 << 20;

/// Copy a whole store into a new one, also of another engine
///
/// What is copied is read again from the copy and compared byte by byte, with --history in every
/// commit. Without --history the copy has one commit, the newest state, and no tags.
#[derive(Args)]
#[command(after_help = "\
The copy gets an identity of its own and its commits are numbered from 1; tags follow them.

Examples:
  zba copy signals.zba backup.zba --history
  zba copy signals.zba sled:signals.sled
  zba copy sled:signals.sled signals.zba")]
pub(crate) struct Copy {
    #[command(flatten)]
    store: StorePath,
    /// Store to make: a directory that does not exist
    #[arg(value_name = "DST")]
    to: PathBuf,
    /// Every commit that can be read, with notes, times and tags
    #[arg(long)]
    history: bool,
}

/// What a copy needs at every step.
struct Work<'a> {
    from: &'a Store,
    to: &'a Store,
    progress: Progress,
    interrupt: Interrupt,
}

impl Copy {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let directory = directory_of(&self.to);
        let aside = with_suffix(&self.to);
        let aside_directory = directory_of(&aside);
        for (path, why) in [
            (&directory, "is there already; copy to a name that is free"),
            (&aside_directory, "is left of a copy that was interrupted; remove it first"),
        ] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Error::Refused(format!("{} {why}", path.display())));
            }
        }
        let from = self.store.open_to_read()?;
        let mut scratch = Scratch::at(aside_directory.clone())?;
        let mut options = CreateOptions::default();
        options.block_bytes = from.block_bytes();
        let to = Store::create(&aside, options)?;
        let work = Work {
            from: &from,
            to: &to,
            progress: Progress::new(output, "copy", 0),
            interrupt: Interrupt::install(),
        };
        let (became, bytes) = match self.history {
            true => work.with_history()?,
            false => (BTreeMap::new(), work.newest()?),
        };
        let commits = to.head().0;
        drop(work);
        drop(to);
        compare_again(&from, &aside, &became, output)?;
        fs::rename(&aside_directory, &directory)
            .map_err(|error| Error::io("rename to", &directory, error))?;
        scratch.keep();
        sync_parent(&directory)?;
        let (source, copy) = (self.store.path().display(), self.to.display());
        let json = json!({
            "from": source.to_string(), "to": copy.to_string(), "commits": commits, "bytes": bytes,
        });
        let (commits, size) = (plural(commits, "commit"), output::size(bytes));
        output.done(&json, format!("copied {source} to {copy}: {commits}, {size}, compared"))
    }
}

/// The address with `.copying` at its end.
fn with_suffix(address: &Path) -> PathBuf {
    let mut text = address.as_os_str().to_owned();
    text.push(".copying");
    PathBuf::from(text)
}

/// Makes the name of a directory durable.
fn sync_parent(directory: &Path) -> Result<(), Error> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|file| file.sync_all());
    synced.map_err(|error| Error::io("sync", parent, error))
}

impl Work<'_> {
    /// Copies the newest state.
    fn newest(&self) -> Result<u64, Error> {
        let old = self.from.begin_read()?;
        let new = self.to.begin()?;
        let bytes = self.whole(&old, &new)?;
        new.commit_with_note(&format!("copy of commit {}", old.base()))?;
        Ok(bytes)
    }

    /// Copies every commit that can be read, and returns which one of the copy each became.
    fn with_history(&self) -> Result<(BTreeMap<Tid, Tid>, u64), Error> {
        let (oldest, head) = (self.from.oldest(), self.from.head());
        // Which commit of the copy each commit became.
        let mut became = BTreeMap::from([(oldest, Tid::ZERO)]);
        let mut bytes = 0;
        let old = self.from.at(oldest)?;
        if oldest > Tid::ZERO {
            let new = self.to.begin()?;
            bytes += self.whole(&old, &new)?;
            let note = format!("all commits up to {oldest}, which were forgotten");
            became.insert(oldest, new.commit_as(&note, old.base_time_ns())?);
        }
        let mut before = old;
        for tid in (oldest.0 + 1..=head.0).map(Tid) {
            self.interrupt.check()?;
            let records = self.from.records(before.base(), tid)?;
            let after = self.from.at(tid)?;
            for record in records {
                let new = self.to.begin()?;
                self.names(&record, &before, &new, &became)?;
                bytes += self.changed(&record, &after, &new)?;
                let made = new.commit_as(&record.note, record.time_ns)?;
                became.insert(record.tid, made);
                self.progress.message(format!("commit {tid} of {head}"));
                same_names(&after, &self.to.at(made)?)?;
            }
            before = after;
        }
        Ok((became, bytes))
    }

    /// Copies everything that `old` shows.
    fn whole(&self, old: &Transaction, new: &Transaction) -> Result<u64, Error> {
        let catalog = old.catalog();
        let mut bytes = 0;
        for (key, value) in catalog.root() {
            set_attribute(new, &Owner::Group(Arc::from("")), key, Some(value))?;
        }
        for (name, node) in catalog.names() {
            self.interrupt.check()?;
            match node {
                Node::Group(attributes) => {
                    new.change(CatalogChange::CreateGroup { name: Arc::clone(name) })?;
                    for (key, value) in attributes {
                        set_attribute(new, &Owner::Group(Arc::clone(name)), key, Some(value))?;
                    }
                }
                Node::Array(_) => {
                    let from = DynArray::open(old, name)?;
                    let mut to = create_like(new, &from, name)?;
                    self.progress.message(name.to_string());
                    stream::copy(&from, &mut to, &self.progress, &self.interrupt)?;
                    bytes += from.nbytes();
                }
            }
        }
        Ok(bytes)
    }

    /// Does what a record did to names, shapes, attributes and tags.
    fn names(
        &self,
        record: &Record,
        before: &Transaction,
        new: &Transaction,
        became: &BTreeMap<Tid, Tid>,
    ) -> Result<(), Error> {
        // The names of arrays as they are between the changes.
        let mut catalog = before.catalog();
        for change in &record.catalog {
            let name_of = |id: &ArrayId| catalog.name_of(*id).unwrap_or_default();
            match change {
                CatalogChange::CreateArray { name, entry } => {
                    super::names::create_as(new, name, entry)?;
                }
                CatalogChange::Shape { array, shape, .. } => {
                    DynArray::open(new, &name_of(array))?.resize(shape)?;
                }
                CatalogChange::Codec { array, codec } => {
                    let array = DynArray::open(new, &name_of(array))?.id();
                    new.change(CatalogChange::Codec { array, codec: *codec })?;
                }
                CatalogChange::Attribute { owner: Owner::Array(id), key, value } => {
                    let id = DynArray::open(new, &name_of(id))?.id();
                    set_attribute(new, &Owner::Array(id), key, value.as_ref())?;
                }
                CatalogChange::Tag { tag, tid } => {
                    let tid = tid.map(|tid| became.get(&tid).copied());
                    // A tag of a commit that was forgotten has nothing to name.
                    if tid != Some(None) {
                        let (tag, tid) = (Arc::clone(tag), tid.flatten());
                        new.change(CatalogChange::Tag { tag, tid })?;
                    }
                }
                other => new.change(other.clone())?,
            }
            catalog.apply(change, record.tid).map_err(zbigarray::TransactionError::from)?;
        }
        Ok(())
    }

    /// Writes the bytes that a record changed.
    fn changed(
        &self,
        record: &Record,
        after: &Transaction,
        new: &Transaction,
    ) -> Result<u64, Error> {
        let mut bytes = 0;
        for (id, pages) in changed_pages(record) {
            let Some(name) = after.catalog().name_of(id) else { continue };
            let from = DynArray::open(after, &name)?;
            let mut to = DynArray::open(new, &name)?;
            each_piece(&from, &pages, &self.interrupt, &mut |at, part| {
                bytes += part.len() as u64;
                self.progress.add(part.len() as u64);
                Ok(to.write_linear(at, part)?)
            })?;
        }
        Ok(bytes)
    }
}

/// The pages of each array that a record gave new content.
fn changed_pages(record: &Record) -> BTreeMap<ArrayId, Vec<PageRange>> {
    let mut pages: BTreeMap<ArrayId, Vec<PageRange>> = BTreeMap::new();
    for change in record.data.iter().filter(|change| !change.carried) {
        pages.entry(change.array).or_default().push(change.segment.pages);
    }
    pages
}

/// What is done with bytes from a byte of an array on.
type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Error> + 'a;

/// Gives `take` the bytes of an array that lie in `pages`, which ascend.
fn each_piece(
    array: &DynArray<'_>,
    pages: &[PageRange],
    interrupt: &Interrupt,
    take: &mut Take<'_>,
) -> Result<(), Error> {
    let whole = array.select(&[])?;
    let mut buffer = Vec::new();
    for piece in Pieces::new(whole.shape(), whole.itemsize(), array.order(), PIECE_BYTES) {
        let part = whole.select(&piece)?;
        let Some((lo, hi)) = part.byte_range() else { continue };
        let inside = |range: &PageRange| -> Option<Range<u64>> {
            let (start, end) = (range.start_byte(), range.start_byte() + range.len_bytes());
            (start < hi && end > lo).then(|| start.max(lo)..end.min(hi))
        };
        let mut wanted = pages.iter().filter_map(inside).peekable();
        if wanted.peek().is_none() {
            continue;
        }
        interrupt.check()?;
        buffer.resize(to_len(part.nbytes()), 0);
        array.read(&part, array.order(), &mut buffer)?;
        for range in wanted {
            let within = to_len(range.start - lo)..to_len(range.end - lo);
            take(range.start, &buffer[within])?;
        }
    }
    Ok(())
}

/// Both have the same names, shapes, types and attributes.
fn same_names(old: &Transaction, new: &Transaction) -> Result<(), Error> {
    let facts = |transaction: &Transaction| -> Vec<String> {
        let catalog = transaction.catalog();
        let entry = |node: &Node| match node {
            Node::Group(attributes) => format!("{attributes:?}"),
            Node::Array(id) => catalog.array_by_id(*id).map_or_else(String::new, |entry| {
                let (shape, block_bytes) = (&entry.shape, entry.block_bytes);
                let (descriptor, attributes) = (&entry.descriptor, &entry.attributes);
                format!("{shape:?} {block_bytes} {:?} {descriptor} {attributes:?}", entry.codec)
            }),
        };
        let root = std::iter::once(format!("{:?}", catalog.root()));
        root.chain(catalog.names().map(|(name, node)| format!("{name} {}", entry(node)))).collect()
    };
    let (expected, found) = (facts(old), facts(new));
    match expected == found {
        true => Ok(()),
        false => {
            let unlike = expected.iter().zip(&found).find(|(a, b)| a != b);
            let what = unlike.map_or_else(|| "their number".to_owned(), |(a, _)| a.clone());
            Err(Error::Damage(format!("names of commit {} differ: {what}", old.base())))
        }
    }
}

/// Opens the copy and compares it with its original, byte by byte: the newest state, and each
/// commit that `became` one of the copy, in the pages that either of them changed.
fn compare_again(
    from: &Store,
    to: &Path,
    became: &BTreeMap<Tid, Tid>,
    output: Output,
) -> Result<(), Error> {
    let to = Store::open(to, OpenOptions::read_only())?;
    let (progress, interrupt) = (Progress::new(output, "compare", 0), Interrupt::install());
    let comparing = Comparing { progress, interrupt };
    comparing.states(&from.begin_read()?, &to.begin_read()?, None)?;
    for (at, (&tid, &made)) in became.iter().enumerate() {
        let (old, new) = (from.at(tid)?, to.at(made)?);
        if at == 0 {
            // All that the commits after it build on.
            comparing.states(&old, &new, None)?;
            continue;
        }
        let records = from.records(Tid(tid.0 - 1), tid)?;
        let made = to.records(Tid(made.0 - 1), made)?;
        comparing.states(
            &old,
            &new,
            Some([named_pages(&old, &records), named_pages(&new, &made)]),
        )?;
    }
    Ok(())
}

/// The pages that records give an extent or take one from, by the names of their arrays.
fn named_pages(state: &Transaction, records: &[Arc<Record>]) -> BTreeMap<Arc<str>, Vec<PageRange>> {
    let mut pages: BTreeMap<Arc<str>, Vec<PageRange>> = BTreeMap::new();
    for change in records.iter().flat_map(|record| &record.data) {
        if let Some(name) = state.catalog().name_of(change.array) {
            pages.entry(name).or_default().push(change.segment.pages);
        }
    }
    pages
}

/// A copy that is being compared.
struct Comparing {
    progress: Progress,
    interrupt: Interrupt,
}

impl Comparing {
    /// Compares names and all bytes, or those of some pages only.
    fn states(
        &self,
        old: &Transaction,
        new: &Transaction,
        within: Option<[BTreeMap<Arc<str>, Vec<PageRange>>; 2]>,
    ) -> Result<(), Error> {
        same_names(old, new)?;
        for entry in old.catalog().arrays() {
            let Some(name) = old.catalog().name_of(entry.id) else { continue };
            let is_wanted = |bytes: &Range<u64>| {
                within.as_ref().is_none_or(|within| {
                    let pages = within.iter().filter_map(|pages| pages.get(&name)).flatten();
                    let is_inside = |pages: &PageRange| {
                        let start = pages.start_byte();
                        start < bytes.end && bytes.start < start + pages.len_bytes()
                    };
                    pages.into_iter().any(is_inside)
                })
            };
            let (a, b) = (DynArray::open(old, &name)?, DynArray::open(new, &name)?);
            self.arrays(&a, &b, &is_wanted).map_err(|error| match error {
                Error::Damage(what) => {
                    Error::Damage(format!("the copy of `{name}` in commit {}: {what}", old.base()))
                }
                other => other,
            })?;
        }
        Ok(())
    }

    fn arrays(
        &self,
        a: &DynArray<'_>,
        b: &DynArray<'_>,
        is_wanted: &dyn Fn(&Range<u64>) -> bool,
    ) -> Result<(), Error> {
        let (left, right) = (a.select(&[])?, b.select(&[])?);
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for piece in Pieces::new(left.shape(), left.itemsize(), a.order(), PIECE_BYTES) {
            let (left, right) = (left.select(&piece)?, right.select(&piece)?);
            let bytes = left.byte_range().map(|(lo, hi)| lo..hi);
            if !bytes.is_some_and(|bytes| is_wanted(&bytes)) {
                continue;
            }
            self.interrupt.check()?;
            x.resize(to_len(left.nbytes()), 0);
            y.resize(to_len(right.nbytes()), 1);
            a.read(&left, a.order(), &mut x)?;
            b.read(&right, b.order(), &mut y)?;
            if x != y {
                return Err(Error::Damage("it has other bytes".to_owned()));
            }
            self.progress.add(left.nbytes());
        }
        Ok(())
    }
}
