//! What a store must be after a program worked on it, whatever failed or killed it.
//!
//! ```text
//! events of the program -> acknowledged 17, issued 18
//! the store, opened     -> commit 17 or 18, byte for byte; check finds nothing; no space is lost
//! ```

use std::sync::Arc;

use zbigarray::storage::backend::Backend;
use zbigarray::txn::StorageError;
use zbigarray::units::PAGE_BYTES;
use zbigarray::{Keep, Store, Tid};

use crate::program::{Event, is_sled, opened};
use crate::workload::History;

/// Free runs of fewer pages than this are not given back to the file system.
const KEPT_PAGES: u64 = 15;
/// What a file system may take for itself, in bytes per data file.
const METADATA_BYTES: u64 = 16 << 10;

/// What a program said, in short.
#[derive(Clone, Default, Debug)]
pub(crate) struct Told {
    pub(crate) acknowledged: u64,
    pub(crate) issued: u64,
    /// Whether a store was ever open.
    pub(crate) existed: bool,
    pub(crate) done: bool,
    pub(crate) gave_up: bool,
    /// How many calls of the library returned an error.
    pub(crate) errors: usize,
    /// Broken promises.
    pub(crate) bad: Vec<String>,
}

impl Told {
    pub(crate) fn hear(&mut self, event: &Event) {
        match event {
            Event::Opened(n) => {
                if !(self.acknowledged..=self.issued).contains(n) {
                    let (from, to) = (self.acknowledged, self.issued);
                    self.bad.push(format!("opened at commit {n}, not {from} to {to}"));
                }
                (self.acknowledged, self.issued) = (*n, *n);
                self.existed = true;
            }
            Event::Issued(n) => self.issued = *n,
            Event::Acknowledged(n) => self.acknowledged = *n,
            Event::Refused(..) => {
                self.issued = self.acknowledged;
                self.errors += 1;
            }
            Event::Unknown(..) | Event::Failed(..) => self.errors += 1,
            Event::Bad(what) => self.bad.push(what.clone()),
            Event::GaveUp => self.gave_up = true,
            Event::Done => self.done = true,
        }
    }

    /// Everything that a program printed.
    pub(crate) fn hear_all(&mut self, printed: &str) {
        for line in printed.lines() {
            match Event::parse(line) {
                Some(event) => self.hear(&event),
                None => self.bad.push(format!("the program said: {line}")),
            }
        }
    }

    /// The broken promises so far.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        if self.bad.is_empty() { Ok(()) } else { Err(self.bad.join("; ")) }
    }
}

/// Opens the store and compares it with what the program was told. Returns the newest commit, and
/// `None` if there is no store and need not be one.
pub(crate) fn judge(
    disk: &Arc<dyn Backend>,
    history: &mut History,
    told: &Told,
) -> Result<Option<u64>, String> {
    told.verdict()?;
    if !told.existed {
        let store = opened(disk).map_err(|error| format!("cannot be created: {error}"))?;
        healthy(&store)?;
        return Ok(None);
    }
    let store = match opened(disk) {
        Ok(store) => store,
        Err(error @ StorageError::NotAStore { .. }) => return Err(format!("lost: {error}")),
        Err(error) => return Err(format!("cannot be opened: {error}")),
    };
    let head = store.head().0;
    if !(told.acknowledged..=told.issued).contains(&head) {
        return Err(format!("commit {head}, not {} to {}", told.acknowledged, told.issued));
    }
    healthy(&store)?;
    for n in [head, store.oldest().0, (head + store.oldest().0) / 2] {
        let transaction = store.at(Tid(n)).map_err(|error| format!("commit {n}: {error}"))?;
        match history.state(n).difference(&transaction) {
            Ok(None) => {}
            Ok(Some(what)) => return Err(format!("unlike commit {n}: {what}")),
            Err(error) => return Err(format!("commit {n}: {error}")),
        }
    }
    Ok(Some(head))
}

/// The check of the store finds nothing, and after opening nobody holds space.
fn healthy(store: &Store) -> Result<(), String> {
    let report = store.check(true, &mut |_, _| {}).map_err(|error| format!("check: {error}"))?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("check: {damage}"));
    }
    if report.held_bytes > 0 {
        return Err(format!("{} bytes are held for nobody", report.held_bytes));
    }
    let usage = store.usage().map_err(|error| format!("usage: {error}"))?;
    let free = usage.data_bytes.saturating_sub(usage.data_used_bytes);
    if usage.data_free_bytes != free {
        let held = free - usage.data_free_bytes;
        return Err(format!("{held} bytes are held by nobody after opening"));
    }
    Ok(())
}

/// The store goes on: one more commit, and it is there when the store is opened again.
pub(crate) fn goes_on(disk: &Arc<dyn Backend>, history: &mut History) -> Result<u64, String> {
    let store = opened(disk).map_err(|error| format!("cannot be opened again: {error}"))?;
    let n = store.head().0 + 1;
    let made = history.commit(&store, n).map_err(|error| format!("commit {n}: {error}"))?;
    if made.0 != n {
        return Err(format!("commit {n} became {made}"));
    }
    drop(store);
    let mut told = Told::default();
    [Event::Opened(0), Event::Issued(n), Event::Acknowledged(n)].iter().for_each(|e| told.hear(e));
    judge(disk, history, &told).map_err(|what| format!("after one more commit: {what}"))?;
    Ok(n)
}

/// After a pack the data files take what the newest commit names, and little more.
pub(crate) fn gives_back(disk: &Arc<dyn Backend>) -> Result<(), String> {
    let store = opened(disk).map_err(|error| format!("cannot be opened to pack: {error}"))?;
    let packed = store.pack(Keep::Head);
    packed.map_err(|error| format!("cannot be packed: {error}"))?;
    if is_sled() {
        // Sled promises nothing of how long its file is.
        return healthy(&store);
    }
    let usage = store.usage().map_err(|error| format!("usage: {error}"))?;
    let files = disk.list("data").map_err(|error| format!("list: {error}"))?.len() as u64;
    let report = store.check(false, &mut |_, _| {}).map_err(|error| format!("check: {error}"))?;
    let gaps = report.extents + files;
    let most = usage.data_used_bytes + gaps * KEPT_PAGES * PAGE_BYTES + files * METADATA_BYTES;
    if usage.data_bytes > most {
        let (bytes, used) = (usage.data_bytes, usage.data_used_bytes);
        return Err(format!("data files take {bytes} bytes, of which {used} are used"));
    }
    Ok(())
}
