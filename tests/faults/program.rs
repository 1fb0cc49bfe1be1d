//! The program under test: it opens a store, makes commits, and says what it was told.
//!
//! ```text
//! opened 4 | issued 5, acknowledged 5 | issued 6, refused 6 (disk full), issued 6 ...
//!          | issued 7, unknown 7, opened 6 or 7 ...
//! ```
//!
//! It behaves as the documentation tells a user to: after a refusal it tries again, and when the
//! handle refuses to write it opens the store again. What a handle does after a failure is checked
//! here; what the disk holds afterwards is judged by who runs the program.

use std::fmt;
use std::sync::Arc;

use zbigarray::storage::backend::Backend;
use zbigarray::storage::local::{LocalEngine, Mode};
use zbigarray::txn::StorageError;
use zbigarray::{
    ArrayError, CommitError, CreateOptions, Error, OpenOptions, Store, TransactionError,
};

use crate::workload::{History, limits};

/// How often a commit is tried again, and the store opened again, before the program gives up.
const ATTEMPTS: u32 = 3;

/// What an error is to the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// There is no space.
    Full,
    /// The handle refuses to write.
    Poisoned,
    /// Nobody knows whether the commit happened.
    Unknown,
    /// The system refused a call.
    Io,
    /// Bytes are not what was written.
    Corrupted,
    /// There is no store there.
    NotAStore,
    /// Everything else.
    Other,
}

/// What the program was told, or what it found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The store is open at this commit.
    Opened(u64),
    /// A commit is about to be made.
    Issued(u64),
    /// It was made.
    Acknowledged(u64),
    /// It was not made.
    Refused(u64, Class, String),
    /// It was made or not.
    Unknown(u64, String),
    /// Something else failed.
    Failed(Class, String),
    /// A promise is broken.
    Bad(String),
    /// The program gives up, because the same thing fails again and again.
    GaveUp,
    /// All commits were made.
    Done,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(n) => write!(f, "opened {n}"),
            Self::Issued(n) => write!(f, "issued {n}"),
            Self::Acknowledged(n) => write!(f, "acknowledged {n}"),
            Self::Refused(n, class, why) => write!(f, "refused {n} {class:?} {why}"),
            Self::Unknown(n, why) => write!(f, "unknown {n} {why}"),
            Self::Failed(class, why) => write!(f, "failed {class:?} {why}"),
            Self::Bad(what) => write!(f, "bad {what}"),
            Self::GaveUp => write!(f, "gave-up"),
            Self::Done => write!(f, "done"),
        }
    }
}

impl Event {
    /// The event that a line says; `None` for a line that was cut short.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = || first.parse().ok();
        Some(match word {
            "opened" => Self::Opened(number()?),
            "issued" => Self::Issued(number()?),
            "acknowledged" => Self::Acknowledged(number()?),
            "refused" => {
                let (class, why) = text.split_once(' ').unwrap_or((text, ""));
                Self::Refused(number()?, Class::parse(class), why.to_owned())
            }
            "unknown" => Self::Unknown(number()?, text.to_owned()),
            "failed" => Self::Failed(Class::parse(first), text.to_owned()),
            "bad" => Self::Bad(rest.to_owned()),
            "gave-up" => Self::GaveUp,
            "done" => Self::Done,
            _ => return None,
        })
    }
}

impl Class {
    fn parse(word: &str) -> Self {
        let all =
            [Self::Full, Self::Poisoned, Self::Unknown, Self::Io, Self::Corrupted, Self::NotAStore];
        all.into_iter().find(|class| format!("{class:?}") == word).unwrap_or(Self::Other)
    }

    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Storage(error) => Self::of_storage(error),
            Error::Transaction(error) => Self::of_transaction(error),
            Error::Commit(CommitError::Unknown { .. }) => Self::Unknown,
            Error::Commit(CommitError::NotCommitted(error)) => Self::of_transaction(error),
            Error::Array(ArrayError::Transaction(error)) => Self::of_transaction(error),
            _ => Self::Other,
        }
    }

    fn of_transaction(error: &TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => Self::of_storage(error),
            TransactionError::Poisoned => Self::Io,
            _ => Self::Other,
        }
    }

    fn of_storage(error: &StorageError) -> Self {
        match error {
            StorageError::NoSpace { .. } => Self::Full,
            StorageError::Poisoned => Self::Poisoned,
            StorageError::Unknown { .. } => Self::Unknown,
            StorageError::Io { .. } => Self::Io,
            StorageError::Corrupted { .. } | StorageError::Checksum { .. } => Self::Corrupted,
            StorageError::NotAStore { .. } => Self::NotAStore,
            _ => Self::Other,
        }
    }
}

/// Whether the stores are of the sled engine, in real directories: `ZBA_ENGINE=sled`.
pub(crate) fn is_sled() -> bool {
    std::env::var_os("ZBA_ENGINE").is_some_and(|engine| engine == "sled")
}

/// Opens the store, or creates it if there is none.
pub(crate) fn opened(disk: &Arc<dyn Backend>) -> Result<Store, StorageError> {
    if is_sled() {
        let address = format!("sled:{}", disk.location());
        let mut options = CreateOptions::default();
        options.block_bytes = limits().block_bytes;
        return match Store::open(&address, OpenOptions::default()) {
            Err(StorageError::NotAStore { .. }) => Store::create(&address, options),
            other => other,
        };
    }
    match Store::open_on(disk, Mode::ReadWrite, &limits()) {
        Err(StorageError::NotAStore { .. }) => {
            LocalEngine::create(disk, &limits())?;
            Store::open_on(disk, Mode::ReadWrite, &limits())
        }
        other => other,
    }
}

/// Brings the store to commit `until`, whatever it takes.
///
/// Half way the store is closed and opened again: reading it has to stand failing calls as well.
pub(crate) fn run(
    disk: &Arc<dyn Backend>,
    history: &mut History,
    until: u64,
    tell: &mut dyn FnMut(Event),
) {
    let both = [until - until / 2, until];
    match both.iter().all(|until| reach(disk, history, *until, tell)) {
        true => tell(Event::Done),
        false => tell(Event::GaveUp),
    }
}

/// Opens the store until it is at commit `until`. Returns whether it came there.
fn reach(
    disk: &Arc<dyn Backend>,
    history: &mut History,
    until: u64,
    tell: &mut dyn FnMut(Event),
) -> bool {
    for _ in 0..ATTEMPTS {
        match opened(disk) {
            Err(error) => {
                let error = Error::from(error);
                let class = Class::of(&error);
                tell(Event::Failed(class, error.to_string()));
                if class == Class::Corrupted {
                    return bad(tell, "a failing call was taken for damage".to_owned());
                }
            }
            Ok(store) => {
                tell(Event::Opened(store.head().0));
                if went_on(&store, history, until, tell) {
                    return true;
                }
            }
        }
    }
    false
}

/// Commits until the end, or until the store has to be opened again.
fn went_on(store: &Store, history: &mut History, until: u64, tell: &mut dyn FnMut(Event)) -> bool {
    let mut attempts = 0;
    while store.head().0 < until {
        let n = store.head().0 + 1;
        tell(Event::Issued(n));
        match history.commit(store, n) {
            Ok(tid) if tid.0 == n && store.head() == tid => tell(Event::Acknowledged(n)),
            Ok(tid) => return bad(tell, format!("commit {n} became {tid}")),
            Err(error) => {
                let class = Class::of(&error);
                match class {
                    Class::Unknown => tell(Event::Unknown(n, error.to_string())),
                    _ => tell(Event::Refused(n, class, error.to_string())),
                }
                attempts += 1;
                if !survived(store, history, class, tell) || attempts == ATTEMPTS {
                    return false;
                }
                continue;
            }
        }
        attempts = 0;
        match history.upkeep(n).perform(store, history) {
            Ok(None) => {}
            Ok(Some(what)) => return bad(tell, format!("a snapshot held during a pack: {what}")),
            Err(error) => {
                let class = Class::of(&error);
                tell(Event::Failed(class, error.to_string()));
                if !survived(store, history, class, tell) {
                    return false;
                }
            }
        }
    }
    true
}

fn bad(tell: &mut dyn FnMut(Event), what: String) -> bool {
    tell(Event::Bad(what));
    false
}

/// Checks what a failure left of the handle, and says whether it still writes.
fn survived(
    store: &Store,
    history: &mut History,
    class: Class,
    tell: &mut dyn FnMut(Event),
) -> bool {
    let n = store.head().0;
    let reading = store.begin_read().map_err(Error::from);
    match reading.and_then(|reading| history.state(n).difference(&reading)) {
        Ok(None) => {}
        Ok(Some(what)) => return bad(tell, format!("unlike commit {n} after a failure: {what}")),
        // A disk that goes on failing may fail reading as well.
        Err(error) => tell(Event::Failed(Class::of(&error), format!("reading: {error}"))),
    }
    let poisoned = match store.begin() {
        Ok(_) => false,
        Err(TransactionError::Storage(StorageError::Poisoned)) => true,
        Err(error) => return bad(tell, format!("begin after a failure: {error}")),
    };
    // A disk that goes on failing cannot be asked, and a handle that refuses to write needs no
    // space. What only snapshots held that are gone is free since the `begin` above.
    if let (false, Ok(usage)) = (poisoned, store.usage())
        && usage.data_free_bytes != usage.data_bytes.saturating_sub(usage.data_used_bytes)
    {
        return bad(tell, "a failed commit keeps its space".to_owned());
    }
    match class {
        Class::Full if poisoned => bad(tell, "a full disk stopped the handle".to_owned()),
        Class::Unknown | Class::Poisoned if !poisoned => {
            bad(tell, format!("the handle goes on after {class:?}"))
        }
        Class::Corrupted => bad(tell, "a failing call was taken for damage".to_owned()),
        _ => !poisoned,
    }
}
