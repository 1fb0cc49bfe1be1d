//! `zba log` and `zba watch`: what each commit changed, under the names of its time.
//!
//! ```text
//! catalog as of the oldest kept commit + changes of each record -> names as of each commit
//! ```
//!
//! # Invariants
//!
//! 1. A commit of another process is shown as soon as it is known: nothing waits in a buffer.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use zbigarray::txn::{Catalog, CatalogChange, Node, Owner, Record, StorageError, TransactionError};
use zbigarray::units::{ArrayId, PAGE_BYTES};
use zbigarray::{Store, Tid};

use super::error::Error;
use super::interrupt::Interrupt;
use super::output::{self, Output, Side, Table};
use super::{StorePath, values};

/// Most names of a commit that the table shows.
const NAMES_SHOWN: usize = 3;
/// Most ranges of blocks of an array that the table shows.
const RANGES_SHOWN: usize = 3;
/// Columns of a table of commits.
const COLUMNS: [(&str, Side); 5] = [
    ("TID", Side::Right),
    ("TIME", Side::Left),
    ("BYTES", Side::Right),
    ("CHANGED", Side::Left),
    ("NOTE", Side::Left),
];
/// How wide they are where the rows to come are not known.
const WIDTHS: [usize; 4] = [6, 19, 10, 24];
/// How often a command that waits looks whether somebody wants it to end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Show the kept commits, newest first, and what each changed
#[derive(Args)]
#[command(after_help = "\
BYTES is the size of the pages that got new content; CHANGED says which blocks of each array.

Examples:
  zba log signals.zba
  zba log signals.zba ecg -n 10          the last ten commits that changed ecg
  zba log signals.zba --json | jq '.commits[0]'")]
pub(crate) struct Log {
    #[command(flatten)]
    store: StorePath,
    /// Only commits that changed this array, group or tag
    name: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl Log {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let history = History::read(&store)?;
        let name = self.name.as_deref();
        let id = name.and_then(|name| store.catalog().array(name).map(|entry| entry.id));
        let concerns = |commit: &&Commit| match name {
            None => true,
            Some(name) => {
                commit.names().any(|changed| changed == name)
                    || id.is_some_and(|id| commit.bytes.contains_key(&id))
            }
        };
        let limit = self.limit.unwrap_or(usize::MAX);
        let shown: Vec<&Commit> =
            history.commits.iter().rev().filter(concerns).take(limit).collect();
        if let (Some(name), true) = (name, shown.is_empty() && id.is_none()) {
            return Err(zbigarray::txn::CatalogError::NotFound { name: name.to_owned() }.into());
        }
        let commits: Vec<Value> = shown.iter().map(|commit| commit.json()).collect();
        let json = json!({
            "head": store.head().0, "oldest": history.oldest.0, "commits": commits,
        });
        let mut table = Table::new(&COLUMNS);
        shown.iter().for_each(|commit| table.row(commit.row()));
        if history.oldest > Tid::ZERO {
            output.say(format!("commits before {} were packed away", history.oldest));
        }
        let text = if shown.is_empty() { String::new() } else { table.to_string() };
        output.show(&json, text)
    }
}

/// Show commits as they happen, whichever process makes them, until Ctrl-C
#[derive(Args)]
#[command(after_help = "\
One line for each commit, written at once; with --json one document for each.

Examples:
  zba watch signals.zba
  zba watch signals.zba --after 0        from the first commit on, then those to come
  zba watch signals.zba -n 1 --json | jq .commit")]
pub(crate) struct Watch {
    #[command(flatten)]
    store: StorePath,
    /// Begin after this commit: its number, a tag, a time, or how long ago [default: the newest]
    #[arg(long, value_name = "COMMIT")]
    after: Option<String>,
    /// End after so many commits
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
}

impl Watch {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let interrupt = Interrupt::install();
        let store = self.store.open_to_read()?;
        let after = match &self.after {
            Some(text) => values::commit(&store, text)?,
            None => store.head(),
        };
        let mut names = Names::new(store.at(after)?.catalog());
        let mut follow = store.follow(after);
        let mut left = self.count.unwrap_or(u64::MAX);
        output.say(format!("commits after {after} follow; Ctrl-C ends this"));
        if !output.json {
            output.show(&Value::Null, Table::new(&COLUMNS).at_least(&WIDTHS))?;
        }
        while left > 0 && !interrupt.is_asked() {
            match follow.next_within(LOOK_AGAIN) {
                Ok(Some(record)) => {
                    let commit = names.commit(&record)?;
                    let mut line = Table::new(&COLUMNS.map(|(_, side)| ("", side)));
                    line.row(commit.row());
                    output.show(&commit.json(), line.at_least(&WIDTHS))?;
                    left -= 1;
                }
                Ok(None) => output::require_reader()?,
                Err(StorageError::Forgotten { .. }) => {
                    let first = store.at(store.oldest())?;
                    names = Names::new(first.catalog());
                    let missed = format!("commits up to {} were packed away", first.base());
                    output.show(&json!({"packed_away": first.base().0}), missed + "\n")?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// All kept commits after the oldest, in order.
pub(crate) struct History {
    /// The oldest commit that can be read.
    oldest: Tid,
    oldest_time_ns: i64,
    commits: Vec<Commit>,
}

/// What one commit did.
pub(crate) struct Commit {
    /// Its transaction id.
    pub(crate) tid: Tid,
    time_ns: i64,
    note: Arc<str>,
    /// Arrays of which data or metadata changed, and the bytes of new content of each.
    bytes: BTreeMap<ArrayId, u64>,
    /// The same arrays' names, and what else was done, such as `tag v1`.
    changed: Vec<Changed>,
}

/// Something a commit changed.
struct Changed {
    name: String,
    // `created`, `data` ...; without order and repetition.
    what: &'static str,
    bytes: u64,
    blocks: Vec<Range<u64>>,
}

impl History {
    /// Reads the log. Cost O(kept commits).
    pub(crate) fn read(store: &Store) -> Result<Self, Error> {
        let (oldest, head) = (store.oldest(), store.head());
        let first = store.at(oldest)?;
        let mut names = Names::new(first.catalog());
        let records = store.records(oldest, head)?;
        let commits: Result<_, Error> = records.iter().map(|record| names.commit(record)).collect();
        Ok(Self { oldest, oldest_time_ns: first.base_time_ns(), commits: commits? })
    }

    /// The commits that changed an array.
    pub(crate) fn commits_of(&self, id: ArrayId) -> impl Iterator<Item = &Commit> {
        self.commits.iter().filter(move |commit| commit.bytes.contains_key(&id))
    }

    /// When a commit was made, if that is still known.
    pub(crate) fn time_ns(&self, tid: Tid) -> Option<i64> {
        if tid == self.oldest {
            return Some(self.oldest_time_ns);
        }
        let at = self.commits.binary_search_by_key(&tid, |commit| commit.tid).ok()?;
        Some(self.commits[at].time_ns)
    }

    /// `commit 17, 2026-01-31 12:00:00`.
    pub(crate) fn moment_of(&self, tid: Tid) -> String {
        match self.time_ns(tid) {
            Some(time_ns) => format!("commit {tid}, {}", output::moment(time_ns)),
            None => format!("commit {tid}, packed away"),
        }
    }
}

impl Commit {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.changed.iter().map(|changed| changed.name.as_str())
    }

    fn bytes_total(&self) -> u64 {
        self.bytes.values().sum()
    }

    fn row(&self) -> [String; 5] {
        let mut blocks: BTreeMap<&str, &[Range<u64>]> = BTreeMap::new();
        for changed in &self.changed {
            let blocks = blocks.entry(changed.name.as_str()).or_default();
            if !changed.blocks.is_empty() {
                *blocks = &changed.blocks;
            }
        }
        let mut names: Vec<String> = blocks.into_iter().map(name_and_blocks).collect();
        let more = names.len().saturating_sub(NAMES_SHOWN);
        names.truncate(NAMES_SHOWN);
        let mut changed = names.join(", ");
        if more > 0 {
            changed = format!("{changed} and {more} more");
        }
        [
            self.tid.to_string(),
            output::moment(self.time_ns),
            output::size(self.bytes_total()),
            changed,
            self.note.to_string(),
        ]
    }

    fn json(&self) -> Value {
        let one = |changed: &Changed| {
            let Changed { name, what, bytes, blocks } = changed;
            let blocks: Vec<[u64; 2]> = blocks.iter().map(|it| [it.start, it.end]).collect();
            json!({
                "name": name, "what": what, "bytes": bytes, "pages": bytes / PAGE_BYTES,
                "blocks": blocks,
            })
        };
        json!({
            "commit": self.tid.0, "time": output::moment_json(self.time_ns), "note": &*self.note,
            "bytes": self.bytes_total(),
            "changed": self.changed.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

/// `ecg (blocks 3, 7-9)`.
fn name_and_blocks((name, blocks): (&str, &[Range<u64>])) -> String {
    let range = |blocks: &Range<u64>| match blocks.end - blocks.start {
        1 => blocks.start.to_string(),
        _ => format!("{}-{}", blocks.start, blocks.end - 1),
    };
    let word = match blocks {
        [] => return name.to_owned(),
        [one] if one.end - one.start == 1 => "block",
        _ => "blocks",
    };
    let shown: Vec<String> = blocks.iter().take(RANGES_SHOWN).map(range).collect();
    let more = if blocks.len() > RANGES_SHOWN { " ..." } else { "" };
    format!("{name} ({word} {}{more})", shown.join(", "))
}

/// The catalog as of one commit after the other.
struct Names {
    catalog: Catalog,
    by_id: HashMap<ArrayId, Arc<str>>,
}

impl Names {
    fn new(catalog: Catalog) -> Self {
        let mut names = Self { catalog, by_id: HashMap::new() };
        names.index();
        names
    }

    fn index(&mut self) {
        let arrays = self.catalog.names().filter_map(|(name, node)| match node {
            Node::Array(id) => Some((*id, Arc::clone(name))),
            Node::Group(_) => None,
        });
        self.by_id = arrays.collect();
    }

    fn commit(&mut self, record: &Record) -> Result<Commit, Error> {
        let mut bytes: BTreeMap<ArrayId, u64> = BTreeMap::new();
        let mut changed = Vec::new();
        for change in &record.catalog {
            let array = match change {
                CatalogChange::Shape { array, .. } => Some(*array),
                CatalogChange::Attribute { owner: Owner::Array(array), .. } => Some(*array),
                CatalogChange::CreateArray { entry, .. } => Some(entry.id),
                CatalogChange::Remove { name } | CatalogChange::Move { from: name, .. } => {
                    self.catalog.array(name).map(|entry| entry.id)
                }
                _ => None,
            };
            bytes.extend(array.map(|array| (array, 0)));
            let (name, what) = self.describe(change);
            changed.push(Changed { name, what, bytes: 0, blocks: Vec::new() });
            self.catalog.apply(change, record.tid).map_err(TransactionError::from)?;
            match change {
                CatalogChange::CreateArray { name, entry } => {
                    self.by_id.insert(entry.id, Arc::clone(name));
                }
                // A group moves with all that is in it. What was removed keeps its last name.
                CatalogChange::Move { .. } => self.index(),
                _ => {}
            }
        }
        for change in &record.data {
            *bytes.entry(change.array).or_default() += change.segment.pages.len_bytes();
        }
        let data = bytes.iter().filter(|(_, bytes)| **bytes > 0);
        changed.extend(data.map(|(id, bytes)| Changed {
            name: self.name(*id),
            what: "data",
            bytes: *bytes,
            blocks: self.blocks(record, *id),
        }));
        changed.sort_by(|a, b| a.name.cmp(&b.name));
        changed.dedup_by(|a, b| a.name == b.name && a.what == b.what);
        let note = Arc::clone(&record.note);
        Ok(Commit { tid: record.tid, time_ns: record.time_ns, note, bytes, changed })
    }

    fn blocks(&self, record: &Record, id: ArrayId) -> Vec<Range<u64>> {
        let entry = self.catalog.array_by_id(id);
        entry.map(|entry| record.blocks(id, entry.block_bytes)).unwrap_or_default()
    }

    fn name(&self, id: ArrayId) -> String {
        self.by_id.get(&id).map_or_else(|| id.to_string(), ToString::to_string)
    }

    fn describe(&self, change: &CatalogChange) -> (String, &'static str) {
        match change {
            CatalogChange::CreateArray { name, .. } => (name.to_string(), "created"),
            CatalogChange::CreateGroup { name } => (name.to_string(), "group created"),
            CatalogChange::Remove { name } => (name.to_string(), "removed"),
            CatalogChange::Move { to, .. } => (to.to_string(), "moved"),
            CatalogChange::Shape { array, .. } => (self.name(*array), "resized"),
            CatalogChange::Codec { array, .. } => (self.name(*array), "codec"),
            CatalogChange::Attribute { owner: Owner::Array(array), .. } => {
                (self.name(*array), "attributes")
            }
            CatalogChange::Attribute { owner: Owner::Group(name), .. } => {
                (if name.is_empty() { "/".to_owned() } else { name.to_string() }, "attributes")
            }
            CatalogChange::Tag { tag, tid: Some(_) } => (tag.to_string(), "tagged"),
            CatalogChange::Tag { tag, tid: None } => (tag.to_string(), "tag deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_shown_as_ranges_and_not_all_of_many() {
        let shown = |blocks: &[Range<u64>]| name_and_blocks(("ecg", blocks));
        assert_eq!(shown(&[]), "ecg");
        assert_eq!(shown(std::slice::from_ref(&(3..4))), "ecg (block 3)");
        assert_eq!(shown(std::slice::from_ref(&(3..5))), "ecg (blocks 3-4)");
        assert_eq!(shown(&[3..4, 7..10]), "ecg (blocks 3, 7-9)");
        assert_eq!(shown(&[1..2, 3..4, 5..6, 7..8]), "ecg (blocks 1, 3, 5 ...)");
    }
}
