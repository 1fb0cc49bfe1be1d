//! What opening a store does: find the chain of log files that counts, replay it, cut what was
//! never acknowledged, and name what can be deleted.
//!
//! ```text
//! log files 3 4 5 6, of which 6 says chain_base = 5    3 and 4 are leftovers of a pack
//!   5: base state, records ...  6: records ... torn    replay 5 and 6, cut the torn record
//! ```
//!
//! # Invariants
//!
//! 1. A record that was acknowledged is replayed or the store does not open: damage is never
//!    taken for a torn tail. Torn means: only a record whose sectors are each as written or absent,
//!    and which no later record knows to be durable. What follows it goes with it: nobody was told
//!    that it was durable either.
//! 2. Opening for reading changes nothing.
//! 3. After opening for writing everything that was replayed is durable.
//! 4. Names are durable before anything is deleted because of them or built upon them: who gave
//!    them may have died before its sync of the directory.
//!
//! # Failure
//!
//! Damage of the log is [`StorageError::Corrupted`]. A damaged checkpoint is not used; the log
//! replaces it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::{self, Checkpoint};
use super::codec::{self, Malformed};
use super::format::FORMAT_TEMPORARY;
use super::log::{self, Chain, Log, Step, Tail, UNSETTLED_MAX};
use super::log_header::{LogHeader, log_number, log_path};
use super::{LocalOptions, StoreId};
use crate::storage::StorageError;
use crate::storage::backend::Files;
use crate::storage::planted::{Bug, planted};
use crate::storage::record::Record;
use crate::storage::state::State;
use crate::sync::thread;
use crate::units::{PAGE_BYTES, Tid};

/// How often a reader looks again at a tail that a writer may be writing just now.
const READER_ATTEMPTS: u32 = 40;
const READER_PAUSE: Duration = Duration::from_millis(5);

/// What opening found.
pub(super) struct Recovered {
    pub(super) log: Log,
    pub(super) head: State,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// Which log files count, and which are left over from a pack or an unfinished file. Pure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogListing {
    pub(super) numbers: Vec<u32>,
    pub(super) leftovers: Vec<String>,
}

impl LogListing {
    /// Sorts the names in the directory `log`. Names that are not ours are nobody's business.
    pub(super) fn of(names: &[String]) -> Self {
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| log_number(name)).collect();
        numbers.sort_unstable();
        let temporary = names.iter().filter(|name| name.starts_with(".tmp-"));
        Self { numbers, leftovers: temporary.map(|name| format!("log/{name}")).collect() }
    }

    /// The files of the chain from `first` on; the files before it are leftovers.
    ///
    /// `Err` with the number of the file that is missing.
    pub(super) fn chain(&mut self, first: u32, last: u32) -> Result<(), u32> {
        let before: Vec<u32> = self.numbers.iter().copied().filter(|&n| n < first).collect();
        self.leftovers.extend(before.into_iter().map(log_path));
        self.numbers.retain(|&number| number >= first);
        match (first..=last).zip(self.numbers.iter()).find(|(wanted, found)| wanted != *found) {
            Some((wanted, _)) => Err(wanted),
            None => Ok(()),
        }
    }
}

/// Finds the chain of log files that counts.
pub(super) fn find_chain(
    files: &Files,
    store: &StoreId,
) -> Result<(Chain, Vec<String>), StorageError> {
    let mut listing = LogListing::of(&files.list("log")?);
    let missing = |number: u32| StorageError::Corrupted {
        place: log_path(number),
        what: "the log file is missing".to_owned(),
    };
    let last = *listing.numbers.last().ok_or_else(|| missing(0))?;
    let header = |number: u32| {
        LogHeader::read(&files.open(&log_path(number), files.access())?, store, number)
    };
    let first = header(last)?.chain_base;
    listing.chain(first, last).map_err(missing)?;
    let base = header(first)?;
    if !base.has_state && (base.base != Tid::ZERO || first != 0) || base.chain_base != first {
        return Err(StorageError::Corrupted {
            place: log_path(first),
            what: "the log begins with a file that is not the beginning".to_owned(),
        });
    }
    Ok((Chain { first, last, oldest: base.base }, listing.leftovers))
}

/// How to open.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// The newest commit to look at.
    pub(super) until: Tid,
    /// Whether to cut what is torn and make durable what is there: who does holds the commit lock.
    pub(super) mend: bool,
    /// Whether to delete what is left over: no other process has the store open.
    pub(super) tidy: bool,
}

impl How {
    /// To look, and to change nothing.
    pub(super) fn to_read(until: Tid) -> Self {
        Self { until, mend: false, tidy: false }
    }
}

/// Opens the log and finds the head.
pub(super) fn recover(
    files: &Files,
    store: &StoreId,
    options: &LocalOptions,
    how: How,
) -> Result<Recovered, StorageError> {
    let mut attempts = if how.mend { 1 } else { READER_ATTEMPTS };
    loop {
        attempts -= 1;
        match try_recover(files, store, options, how) {
            // A writer may be in the middle of a record; what stays damaged is damaged.
            Err(StorageError::Corrupted { .. }) if attempts > 0 => {
                thread::sleep(READER_PAUSE);
            }
            other => return other,
        }
    }
}

fn try_recover(
    files: &Files,
    store: &StoreId,
    options: &LocalOptions,
    how: How,
) -> Result<Recovered, StorageError> {
    let (chain, mut leftovers) = find_chain(files, store)?;
    let found = checkpoint::newest(files, store, chain, how.until, &mut leftovers)?;
    let new_log = |at: Tail| Log::new(files.clone(), *store, options.log_roll_bytes, chain, at);
    let from_beginning = |durable: Tid| {
        let (start, state) = beginning(&new_log(NOWHERE), chain)?;
        let log = new_log(start);
        let head = replay(&log, chain, start, state, (durable, how))?;
        Ok::<_, StorageError>(Recovered { log, head, checkpoint: None })
    };
    let recovered = match found {
        None => from_beginning(Tid::ZERO)?,
        Some(checkpoint) => {
            let (start, log) = (checkpoint.tail(), new_log(checkpoint.tail()));
            match replay(&log, chain, start, checkpoint.state(), (start.tid, how)) {
                Ok(head) => Recovered { log, head, checkpoint: Some(checkpoint) },
                // The log wins, unless it lacks what the checkpoint proves to have been there.
                Err(error @ StorageError::Corrupted { .. }) => match from_beginning(start.tid) {
                    Ok(recovered) if recovered.head.tid >= start.tid => recovered,
                    Ok(_) | Err(_) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    };
    // Invariant 4.
    if how.mend && !planted(Bug::NamesTrusted) {
        files.sync_dir("")?;
        recovered.log.sync_names()?;
    }
    if how.tidy {
        let aside = files.aside();
        leftovers.push(FORMAT_TEMPORARY.to_owned());
        leftovers.iter().try_for_each(|path| aside.remove(path))?;
    }
    Ok(recovered)
}

/// No place in any log.
pub(super) const NOWHERE: Tail =
    Tail { tid: Tid::ZERO, position: log::Position { file: 0, page: 0 }, chain: 0 };

/// The oldest state of a chain and where its first record is.
pub(super) fn beginning(log: &Log, chain: Chain) -> Result<(Tail, State), StorageError> {
    let (start, frame) = log.beginning(chain.first, chain.oldest)?;
    let Some(frame) = frame else { return Ok((start, State::default())) };
    let corrupted = |what: String| StorageError::Corrupted { place: log_path(chain.first), what };
    if frame.head.tid != chain.oldest {
        return Err(corrupted(format!("its state is that of commit {}", frame.head.tid)));
    }
    let state = codec::decode_state(frame.head.tid, frame.head.time_ns, &frame.body);
    Ok((start, state.map_err(|Malformed(what)| corrupted(what))?))
}

/// A record that nothing later knows to be durable: its inline pages may be torn.
struct Held {
    before: Tail,
    // The state before it.
    state: State,
    record: Arc<Record>,
    after: Tail,
}

/// Replays the log from `start` to its end and leaves `log` knowing all of it. Commit `durable` is
/// known to have been there.
fn replay(
    log: &Log,
    chain: Chain,
    start: Tail,
    state: State,
    (durable, how): (Tid, How),
) -> Result<State, StorageError> {
    let file = log.file(start.position.file)?;
    if start.position.page.saturating_mul(PAGE_BYTES) > file.len()? {
        let what = format!("the file ends before commit {}, which was durable", start.tid);
        return Err(file.damaged(file.len()?, what));
    }
    let (mut at, mut state) = (start, state);
    let mut held: VecDeque<Held> = VecDeque::new();
    let end = loop {
        if at.tid >= how.until {
            break Ok(at);
        }
        match log.step(&at, chain.last, false)? {
            Step::Record(record, after, durable) => {
                let next = state.apply(&record)?;
                let is_whole = |held: &Held, waiting: usize| {
                    held.after.tid <= durable || waiting as u64 > UNSETTLED_MAX
                };
                while held.front().is_some_and(|first| is_whole(first, held.len())) {
                    if let Some(first) = held.pop_front() {
                        log.take_in(&first.record, first.after);
                    }
                }
                held.push_back(Held { before: at, state, record, after });
                (at, state) = (after, next);
            }
            Step::End(end) => break Ok(end),
            Step::Broken { damage: Some(damage), .. } => return Err(damage),
            Step::Broken { at: position, damage: None, pages } => break Err((position, pages)),
        }
    };
    let first = held.front().map(|held| held.before);
    if let (Err(_), Some(last), true) = (&end, held.back(), planted(Bug::CutTooMuch)) {
        let (tail, state) = (last.before, last.state.clone());
        cut(log, &tail, how)?;
        log.take_in_end(tail);
        return Ok(state);
    }
    if let Some((tail, state)) = take_in_held(log, chain, held, (durable, how))? {
        // Those before the torn one stay, and nobody may have made them durable.
        if let Some(first) = first.filter(|first| first.tid < tail.tid) {
            settle(log, &first, &tail, how)?;
        }
        return Ok(state_at(log, tail, state));
    }
    match end {
        Ok(end) => {
            log.take_in_end(end);
            if let Some(first) = first {
                settle(log, &first, &at, how)?;
            }
            if first.is_none() || end.position.file != at.position.file {
                settle_end(log, &end, how)?;
            }
        }
        Err((position, pages)) => {
            // It may be the first of its file, which `at` does not name yet.
            let tail = Tail { position, ..at };
            require_not_durable(log, &tail, durable)?;
            require_torn(log, &tail, pages)?;
            cut(log, &tail, how)?;
            log.take_in_end(tail);
            if let Some(first) = first {
                settle(log, &first, &at, how)?;
            }
        }
    }
    Ok(state)
}

fn state_at(log: &Log, tail: Tail, state: State) -> State {
    log.take_in_end(tail);
    state
}

/// Takes in the records whose inline pages may be torn, as far as they are whole. If one is torn,
/// returns the place and the state before it; it is cut off.
fn take_in_held(
    log: &Log,
    chain: Chain,
    held: VecDeque<Held>,
    (durable, how): (Tid, How),
) -> Result<Option<(Tail, State)>, StorageError> {
    for Held { before, state, record, after } in held {
        match log.step(&before, chain.last, !planted(Bug::TornInlineAccepted))? {
            Step::Record(..) => log.take_in(&record, after),
            Step::Broken { damage: Some(damage), .. } => return Err(damage),
            Step::Broken { at: position, damage: None, .. } => {
                // It may be the first of its file, which `before` does not name yet.
                let tail = Tail { position, ..before };
                require_not_durable(log, &tail, durable)?;
                cut(log, &tail, how)?;
                return Ok(Some((tail, state)));
            }
            // Its writer took it back: the disk was full.
            Step::End(_) => return Ok(Some((before, state))),
        }
    }
    Ok(None)
}

/// Keeps invariant 1: what is torn after `tail` is damaged if commit `durable` lay there.
fn require_not_durable(log: &Log, tail: &Tail, durable: Tid) -> Result<(), StorageError> {
    if tail.tid >= durable {
        return Ok(());
    }
    let what = format!("commit record {} is damaged; a checkpoint has it", tail.tid.next());
    let at = tail.position.page.saturating_mul(PAGE_BYTES);
    Err(log.file(tail.position.file)?.damaged(at, what))
}

/// Keeps invariant 1: a torn record that a later one knows to be durable is damaged.
fn require_torn(log: &Log, tail: &Tail, pages: Option<u64>) -> Result<(), StorageError> {
    let position = tail.position;
    let after = position.page.saturating_add(pages.unwrap_or(1).max(1));
    if planted(Bug::HoleTakenForTorn)
        || !log.has_successor(tail.tid.next(), position.file, after)?
    {
        return Ok(());
    }
    let what = format!("commit record {} is damaged; later ones are there", tail.tid.next());
    Err(log.file(position.file)?.damaged(position.page.saturating_mul(PAGE_BYTES), what))
}

/// Takes away what follows the last whole record.
fn cut(log: &Log, tail: &Tail, how: How) -> Result<(), StorageError> {
    if !how.mend || planted(Bug::TailNotCut) {
        return Ok(());
    }
    log.cut(tail.position)
}

/// Makes the last records durable (invariant 3).
///
/// Their writer may have died before the sync, or been told that the sync failed: then the kernel
/// holds its pages as clean although they are not on the disk, and only writing them again, the
/// same bytes, makes a sync carry them there.
fn settle(log: &Log, before: &Tail, after: &Tail, how: How) -> Result<(), StorageError> {
    if !how.mend || planted(Bug::LastRecordNotSettled) {
        return Ok(());
    }
    let file = log.file(after.position.file)?;
    let start = if before.position.file == after.position.file { before.position.page } else { 1 };
    log::write_again(&file, start, after.position.page)?;
    file.sync()
}

/// Makes the end of the log durable: whoever cut it there may have died before its sync, and new
/// sectors must not meet old ones.
fn settle_end(log: &Log, end: &Tail, how: How) -> Result<(), StorageError> {
    if !how.mend || planted(Bug::EndTrusted) {
        return Ok(());
    }
    log.file(end.position.file)?.sync()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::backend::Backend;
    use crate::storage::backend::simulated::{Change, Simulated, Survival};
    use crate::storage::catalog::Catalog;
    use crate::storage::engine::{CommitLog, Engine};
    use crate::storage::local::log::Position;
    use crate::storage::local::tests::{commit, small, writers};
    use crate::storage::local::{Access, LocalEngine, Mode, log};
    use crate::storage::state::Space;

    fn listing(names: &[&str]) -> LogListing {
        LogListing::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn files_before_the_chain_and_unfinished_files_are_leftovers() {
        let names = ["0000000003.log", "0000000004.log", ".tmp-0000000005", "notes.txt"];
        let mut found = listing(&names);
        found.chain(4, 4).unwrap();
        assert_eq!(found.numbers, [4]);
        assert_eq!(found.leftovers, ["log/.tmp-0000000005", "log/0000000003.log"]);
    }

    #[test]
    fn a_gap_in_the_chain_is_found() {
        let mut found = listing(&["0000000001.log", "0000000003.log"]);
        assert_eq!(found.chain(1, 3), Err(2));
        assert_eq!(listing(&["0000000003.log"]).chain(2, 3), Err(2));
    }

    /// The chain of log files with these headers: number, number of the first of its chain, newest
    /// commit before, whether it begins with a state.
    fn chain_of(headers: &[(u32, u32, u64, bool)]) -> Result<Chain, StorageError> {
        let disk: Arc<dyn Backend> = Arc::new(Simulated::new().unwrap());
        let (files, store) = (Files::new(disk, true), [7; 16]);
        files.create_dir("log").unwrap();
        for &(file, chain_base, base, has_state) in headers {
            let base = Tid(base);
            let header = LogHeader { file, chain_base, base, previous: 0, has_state };
            log::create_log_file(&files, &header.encode(&store), file).unwrap();
        }
        find_chain(&files, &store).map(|(chain, _)| chain)
    }

    #[test]
    fn a_log_begins_with_a_state_or_with_commit_0_of_file_0() {
        chain_of(&[(0, 0, 0, false)]).unwrap();
        assert!(chain_of(&[(0, 0, 3, false)]).is_err(), "commits 1 to 3 are missing");
        assert!(chain_of(&[(2, 2, 0, false)]).is_err(), "files 0 and 1 are missing");
        let chain = chain_of(&[(1, 0, 2, false), (2, 2, 5, true), (3, 2, 9, false)]).unwrap();
        assert_eq!((chain.first, chain.last, chain.oldest), (2, 3, Tid(5)));
        assert!(chain_of(&[(2, 1, 5, true), (3, 2, 9, false)]).is_err(), "2 is not the first");
    }

    fn open(disk: &Simulated, mode: Mode) -> Result<(LocalEngine, State), StorageError> {
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::open(&backend, mode, &small())
    }

    /// A store with one array and `commits` commits.
    fn store(commits: u64) -> (Simulated, LocalEngine, State) {
        let disk = Simulated::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::create(&backend, &small()).unwrap();
        let (engine, mut head) = open(&disk, Mode::ReadWrite).unwrap();
        for _ in 0..commits {
            head = commit(&engine, &head, 0, 1, true).unwrap();
        }
        (disk, engine, head)
    }

    #[test]
    fn the_log_wins_over_a_checkpoint_that_contradicts_it() {
        let (disk, engine, head) = store(2);
        let wrong = State::new(head.tid, head.time_ns, Catalog::default(), Space::default());
        engine.checkpoint(&wrong).unwrap();
        let head = commit(&engine, &head, 1, 1, true).unwrap();
        let expected = writers(&engine, &head, 4);
        drop(engine);
        let (engine, found) = open(&disk, Mode::ReadWrite).unwrap();
        assert_eq!((found.tid, writers(&engine, &found, 4)), (Tid(3), expected));
    }

    #[test]
    fn a_log_that_ends_before_its_checkpoint_is_damaged_and_stays_as_it_is() {
        for more in [0, 100, PAGE_BYTES + 100] {
            let (disk, engine, head) = store(4);
            engine.checkpoint(&head).unwrap();
            let end = engine.log.tail_after(Tid(1)).unwrap().position.page * PAGE_BYTES + more;
            drop(engine);
            let log = disk.open(&log_path(0), Access::Write).unwrap();
            log.set_len(end).unwrap();
            let error = open(&disk, Mode::ReadWrite).err().unwrap();
            assert!(error.to_string().contains("the file ends before commit 4"), "{error}");
            assert_eq!(log.len().unwrap(), end);
        }
    }

    #[test]
    fn a_reader_waits_for_what_a_writer_is_writing() {
        let (disk, engine, _) = store(1);
        drop(engine);
        let log = disk.open(&log_path(0), Access::Write).unwrap();
        let mut header = [0; 512];
        log.read_at(&mut header, 0).unwrap();
        let read = || {
            log.write_at(&[&[7; 512]], 0).unwrap();
            thread::scope(|scope| {
                let reader = scope.spawn(|| open(&disk, Mode::ReadOnly).map(|(_, head)| head.tid));
                thread::sleep(8 * READER_PAUSE);
                log.write_at(&[&header], 0).unwrap();
                reader.join().unwrap()
            })
        };
        // A machine with much else to do may be too slow once.
        assert!((0..5).any(|_| matches!(read(), Ok(Tid(1)))));
        log.write_at(&[&[7; 512]], 0).unwrap();
        assert!(open(&disk, Mode::ReadOnly).is_err(), "what stays damaged is damaged");
    }

    #[test]
    fn a_torn_record_that_is_the_first_of_its_file_is_cut_there() {
        let (disk, engine, mut head) = store(0);
        while engine.log.tail().position.file == 0 {
            head = commit(&engine, &head, 0, 1, true).unwrap();
        }
        drop(engine);
        let changes = disk.changes();
        let write = changes.iter().rposition(|change| matches!(change, Change::Write { .. }));
        // Of its metadata and its page only the one is there, or only the other.
        for (metadata, page) in [(true, false), (false, true)] {
            let torn = Survival::Torn([[metadata; 8], [page; 8]].concat());
            let torn = disk.crash_image(write.unwrap() + 1, |_, _| torn.clone()).unwrap();
            let (engine, found) = open(&torn, Mode::ReadWrite).unwrap();
            assert_eq!(found.tid.next(), head.tid);
            // This one is so short that it would still fit into the file before.
            let head = commit(&engine, &found, 0, 4, false).unwrap();
            assert_eq!(engine.log.tail().position, Position { file: 1, page: 2 });
            drop(engine);
            let (engine, found) = open(&torn, Mode::ReadWrite).unwrap();
            assert_eq!((found.tid, writers(&engine, &found, 4)), (head.tid, vec![head.tid.0; 4]));
        }
    }

    #[test]
    fn a_lost_page_of_a_durable_record_loses_no_commit() {
        let (disk, engine, head) = store(4);
        let record = engine.records(Tid(1), Tid(2)).unwrap().remove(0);
        let place = record.data[0].segment.source.place().unwrap();
        drop(engine);
        let log = disk.open(&log_path(0), Access::Write).unwrap();
        log.write_at(&[&[0; 4096]], place.page * PAGE_BYTES).unwrap();
        let (engine, found) = open(&disk, Mode::ReadWrite).unwrap();
        assert_eq!(found.tid, head.tid);
        let report = engine.check(true, &mut |_, _| {}).unwrap();
        assert!(!report.damage.is_empty());
    }

    #[test]
    fn a_lost_record_before_others_is_damage_and_nothing_is_cut() {
        let (disk, engine, _) = store(4);
        let page = engine.log.tail_after(Tid(1)).unwrap().position.page;
        drop(engine);
        let log = disk.open(&log_path(0), Access::Write).unwrap();
        let len = log.len().unwrap();
        log.write_at(&[&[0; 512]], page * PAGE_BYTES).unwrap();
        let error = open(&disk, Mode::ReadWrite).err().unwrap();
        assert!(error.to_string().contains("commit record 2 is damaged"), "{error}");
        assert_eq!(log.len().unwrap(), len);
    }
}
