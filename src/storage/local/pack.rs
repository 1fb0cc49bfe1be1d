//! Packing: the log begins again with the state of one commit, and what only older commits named
//! becomes free.
//!
//! ```text
//! before   log 3: | records 1..50 |   log 4: | records 51..90 |
//! pack(80) log 5: | state of 80 | records 81..90 |            then 3 and 4 are deleted
//! ```
//!
//! # Invariants
//!
//! 1. The new log file is complete and durable, with every extent it names, before it gets its
//!    name; from then on it counts and the older files do not. A crash leaves the one or the other.
//! 2. Space is given to others only after that.
//! 3. Pages that a pinned state names stay as they are: in limbo if they lie in data files, behind
//!    an open descriptor if they lie in a deleted log file.
//!
//! # Failure
//!
//! Before the new file has its name an error leaves everything as it was. After that nothing is
//! an error: what could not be deleted or checkpointed is made up for at the next opening, what
//! could not be punched by the next pack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::checkpoint;
use super::codec;
use super::frame::{FrameContent, FrameKind, NewFrame, Seal};
use super::free_space::Ranges;
use super::log::{self, Chain, Position, Tail};
use super::log_header::{LogHeader, log_number, log_path};
use super::members::Told;
use super::{LocalEngine, recovery, to_usize};
use crate::storage::StorageError;
use crate::storage::backend::StoreFile;
use crate::storage::catalog::CatalogChange;
use crate::storage::engine::{Allocation, CommitLog, Engine, Packed};
use crate::storage::extent::{EXTENT_PAGES_MAX, Extent, IN_LOG, Place, Segment, Source};
use crate::storage::index::PageMap;
use crate::storage::planted::{Bug, planted};
use crate::storage::record::{Draft, DraftChange, DraftSource, Record};
use crate::storage::state::{Space, State};
use crate::sync::atomic::Ordering;
use crate::sync::thread;
use crate::units::{PAGE_BYTES, Tid};

/// How long a pack waits for a checkpoint that another process writes.
const CHECKPOINT_ATTEMPTS: u32 = 400;
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(5);

/// See [`Engine::pack`].
pub(super) fn pack(
    engine: &LocalEngine,
    keep: Tid,
    pinned: &[Arc<State>],
    held_bytes_max: u64,
) -> Result<Packed, StorageError> {
    engine.require_writable()?;
    let (chain, head) = (engine.log.chain(), engine.log.tail().tid);
    if keep < chain.oldest {
        return Err(StorageError::Forgotten { tid: keep, oldest: chain.oldest });
    }
    if keep > head {
        return Err(StorageError::NoCommit { tid: keep, head });
    }
    engine.settle(head)?;
    let _alone = Alone::new(engine)?;
    let packed = packed(engine, keep, pinned, held_bytes_max);
    if packed.is_err() {
        // All that was there can be looked at again.
        engine.members.set_floor(engine.log.chain().oldest);
    }
    packed
}

fn packed(
    engine: &LocalEngine,
    keep: Tid,
    pinned: &[Arc<State>],
    held_bytes_max: u64,
) -> Result<Packed, StorageError> {
    let (chain, head) = (engine.log.chain(), engine.log.tail().tid);
    let state = engine.load(head)?;
    let Looked { keep, held } = look_at_others(engine, &state, keep, held_bytes_max)?;
    if keep == chain.oldest {
        return Ok(Packed { head: state, freed_pages: 0, forgotten: 0, oldest: keep });
    }
    let kept = engine.log.records(keep, head)?;
    let state = engine.load(keep)?;
    let named = named_pages(pinned)?;
    if planted(Bug::PackFreesFirst) {
        let used = named_space(&state)?;
        let mut limbo: Ranges = named.iter().filter(|(place, _)| !place.in_log()).collect();
        used.iter().for_each(|(place, pages)| limbo.remove(place, pages));
        engine.extents.repack(used, limbo);
    }
    let mut held = held;
    let theirs = engine.extents.lock_for_limbo(&named)?;
    theirs.iter().for_each(|(place, pages)| held.insert(place, pages));
    let noted = held.clone();
    let mut moves = move_out_of_log(engine, &state, &kept)?;
    let written = write_log(engine, &state, &kept, &held, &mut moves);
    let new = match written {
        Ok(new) => new,
        Err(error) => {
            moves.moved.iter().for_each(|(place, pages)| engine.extents.free(*place, *pages));
            return Err(error);
        }
    };
    let forgotten = keep.0 - chain.oldest.0;
    *engine.held.lock() = Some((new.chain.first, noted));
    Ok(switch(engine, new, &named, forgotten))
}

/// What other processes ask for.
struct Looked {
    /// The oldest commit to keep.
    keep: Tid,
    /// Pages that stay in use although no kept commit names them.
    held: Space,
}

/// Keeps what other processes look at, up to `held_bytes_max` more than without them; if it is
/// more, their snapshots are over, and what is in use now stays until they know.
fn look_at_others(
    engine: &LocalEngine,
    head: &State,
    wanted: Tid,
    held_bytes_max: u64,
) -> Result<Looked, StorageError> {
    let (members, chain) = (&engine.members, engine.log.chain());
    // Before the places are looked at: invariant 1 of `members`.
    members.set_floor(wanted);
    let mut older = Vec::new();
    for (place, snapshot, _) in members.others_pins()? {
        match snapshot {
            _ if planted(Bug::OthersPinsIgnored) => {}
            Told::Number(tid) if tid >= wanted.0 => {}
            Told::Number(tid) => older.push((place, Tid(tid))),
            // It has not said yet what it looks at, or somebody else wrote there.
            Told::Nothing | Told::Nonsense => older.push((place, Tid::ZERO)),
        }
    }
    let mut held = Space::default();
    // What is told before a pack that then fails, or dies, is not held by it: it is still kept.
    let is_over = |place, tid| tid < chain.oldest && members.is_expired(place, tid);
    if older.iter().any(|&(place, tid)| is_over(place, tid)) {
        // They do not know it yet. What they may look at was noted when we packed last; if it was
        // not us, it is in the space that the chain began with.
        held = match &*engine.held.lock() {
            Some((first, held)) if *first == chain.first => held.clone(),
            _ => recovery::beginning(&engine.log, chain)?.1.space,
        };
        let left = older.into_iter().filter_map(|(place, tid)| match is_over(place, tid) {
            true => Some((place, members.not_expired(place).filter(|tid| *tid < wanted)?)),
            false => Some((place, tid)),
        });
        older = left.collect();
    }
    let Some(oldest) = older.iter().map(|&(_, tid)| tid.max(chain.oldest)).min() else {
        return Ok(Looked { keep: wanted, held });
    };
    let needed = space_from(engine, &engine.load(wanted)?, head.tid)?;
    let more = head.space.pages().saturating_sub(needed.pages()).saturating_mul(PAGE_BYTES);
    if more <= held_bytes_max {
        members.set_floor(oldest);
        return Ok(Looked { keep: oldest, held });
    }
    older.iter().for_each(|&(place, _)| members.expire(place, wanted));
    // With what is held for snapshots that were over before.
    head.space.iter().for_each(|(place, pages)| held.insert(place, pages));
    Ok(Looked { keep: wanted, held })
}

/// Nobody opens the store without a place and nobody writes a checkpoint while this lives.
struct Alone<'a>(&'a LocalEngine);

impl<'a> Alone<'a> {
    fn new(engine: &'a LocalEngine) -> Result<Self, StorageError> {
        let locked = |who: &str| {
            Err(StorageError::Locked { path: engine.files.location(), who: who.to_owned() })
        };
        if !engine.members.try_lock_readers_out()? {
            return locked("a process that may not write reads it, so it cannot be packed");
        }
        let alone = Self(engine);
        for _ in 0..CHECKPOINT_ATTEMPTS {
            if engine.members.try_lock_checkpoint()? {
                return Ok(alone);
            }
            thread::sleep(CHECKPOINT_PAUSE);
        }
        locked("another process is writing a checkpoint; try again later")
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.members.unlock_checkpoint();
        self.0.members.unlock_readers();
    }
}

/// Where pages of the old log files lie from now on.
#[derive(Default)]
struct Moves {
    // First old place -> number of pages, first new place.
    places: BTreeMap<Place, (u64, Place)>,
    // What was set aside in data files.
    moved: Vec<(Place, u64)>,
}

impl Moves {
    /// The new place of an old one; places in data files stay.
    fn of(&self, place: Place) -> Option<Place> {
        if !place.in_log() {
            return Some(place);
        }
        let (start, &(pages, to)) = self.places.range(..=place).next_back()?;
        let ahead = place.page.checked_sub(start.page)?;
        (start.file == place.file && ahead < pages).then(|| to.after(ahead))
    }

    fn source(&self, source: &Source) -> Result<Source, StorageError> {
        let Source::Extent { extent, skip } = source else { return Ok(Source::Hole) };
        let moved = self.of(extent.place()).and_then(|place| {
            let sums = Box::from(extent.sums());
            Extent::new(place, extent.pages(), extent.units_word(), sums)
        });
        match moved {
            Some(extent) => Ok(Source::Extent { extent: Arc::new(extent), skip: *skip }),
            None => Err(StorageError::Corrupted {
                place: log_path(extent.place().file & !IN_LOG),
                what: format!("nobody knows the data at {:?}", extent.place()),
            }),
        }
    }
}

/// All pages that states name.
fn named_pages(states: &[Arc<State>]) -> Result<Ranges, StorageError> {
    let mut named = Ranges::default();
    for state in states {
        for (_, pages) in state.page_maps() {
            for segment in pages.stored()? {
                if let Some(extent) = segment.trimmed().source.extent() {
                    named.insert(extent.place(), u64::from(extent.stored_pages()));
                }
            }
        }
    }
    Ok(named)
}

/// The pages of data files that `state` names, without those that only its history names.
fn named_space(state: &State) -> Result<Space, StorageError> {
    let named = named_pages(&[Arc::new(state.clone())])?;
    let mut space = Space::default();
    let data = named.iter().filter(|(place, _)| !place.in_log());
    data.for_each(|(place, pages)| space.insert(place, pages));
    Ok(space)
}

/// The pages of data files that `state` and the commits after it, up to `head`, name.
fn space_from(engine: &LocalEngine, state: &State, head: Tid) -> Result<Space, StorageError> {
    let mut space = named_space(state)?;
    for change in engine.log.records(state.tid, head)?.iter().flat_map(|record| &record.data) {
        if let Some(extent) = change.segment.source.extent().filter(|e| !e.place().in_log()) {
            space.insert(extent.place(), u64::from(extent.stored_pages()));
        }
    }
    Ok(space)
}

/// See [`Engine::held_bytes`].
pub(super) fn held_bytes(
    engine: &LocalEngine,
    since: &State,
    head: &State,
) -> Result<u64, StorageError> {
    let (with, without) = (space_from(engine, since, head.tid)?, named_space(head)?);
    Ok(with.pages().saturating_sub(without.pages()).saturating_mul(PAGE_BYTES))
}

/// The pages of the log that the frame of a record takes.
fn own_pages(engine: &LocalEngine, record: &Record) -> Result<(Place, u64), StorageError> {
    let before = engine.log.tail_after(Tid(record.tid.0 - 1))?.position;
    let after = engine.log.tail_after(record.tid)?.position;
    // A tail moves on to the next file without a record.
    let (file, start, end) = match before.file == after.file {
        true => (before.file, before.page, after.page),
        false if after.page > 1 => (after.file, 1, after.page),
        false => (before.file, before.page, u64::MAX >> 16),
    };
    Ok((Place { file: IN_LOG | file, page: start }, end - start))
}

/// Copies what `state` and the kept records need of the older log to data files.
fn move_out_of_log(
    engine: &LocalEngine,
    state: &State,
    kept: &[Arc<Record>],
) -> Result<Moves, StorageError> {
    let mut own = Ranges::default();
    for record in kept {
        let (place, pages) = own_pages(engine, record)?;
        own.insert(place, pages);
    }
    let mut needed = Ranges::default();
    let mut need = |segment: &Segment| {
        let extent = segment.source.extent().filter(|extent| extent.place().in_log());
        if let Some(extent) = extent.filter(|extent| !own.contains(extent.place(), 1)) {
            needed.insert(extent.place(), u64::from(extent.stored_pages()));
        }
    };
    for (_, pages) in state.page_maps() {
        pages.stored()?.iter().for_each(|segment| need(&segment.trimmed()));
    }
    kept.iter().flat_map(|record| &record.data).for_each(|change| need(&change.segment));
    let mut moves = Moves::default();
    for (from, pages) in needed.iter() {
        if let Err(error) = move_pages(engine, &mut moves, from, pages) {
            moves.moved.iter().for_each(|(place, pages)| engine.extents.free(*place, *pages));
            return Err(error);
        }
    }
    Ok(moves)
}

fn move_pages(
    engine: &LocalEngine,
    moves: &mut Moves,
    from: Place,
    pages: u64,
) -> Result<(), StorageError> {
    let most = u64::from(EXTENT_PAGES_MAX).min(engine.options.data_file_pages);
    let count = u32::try_from(pages.min(most)).unwrap_or(EXTENT_PAGES_MAX);
    let near = moves.moved.last().map(|(place, pages)| place.after(*pages));
    let wish = Allocation { pages: count, align_pages: 1, phase_pages: 0, near };
    let to = engine.allocated(&wish)?;
    moves.moved.push((to, u64::from(count)));
    // Not compared with checksums: damage is copied with them and stays visible.
    let mut bytes = vec![0; to_usize(u64::from(count) * PAGE_BYTES)];
    engine.log.file(from.file & !IN_LOG)?.read_exact_at(&mut bytes, from.page * PAGE_BYTES)?;
    engine.extents.write(to, &bytes)?;
    moves.places.insert(from, (u64::from(count), to));
    Ok(())
}

/// What the new log is.
struct NewLog {
    chain: Chain,
    head: State,
    // The place before each kept record, and the place after the last.
    tails: Vec<Tail>,
    records: Vec<Arc<Record>>,
}

/// Writes the new log file and gives it its name (invariant 1).
fn write_log(
    engine: &LocalEngine,
    state: &State,
    kept: &[Arc<Record>],
    held: &Space,
    moves: &mut Moves,
) -> Result<NewLog, StorageError> {
    let number = log::next_number(engine.log.tail().position.file)?;
    let mut new = based(state, held, moves)?;
    let temporary = format!("log/.tmp-{number:010}");
    let aside = engine.files.aside();
    aside.remove(&temporary)?;
    let file = aside.create(&temporary)?;
    let result = write_frames(engine, &file, number, &mut new, kept, moves);
    let synced = result.and_then(|made| {
        if !planted(Bug::PackDataNotSynced) {
            engine.extents.sync()?;
        }
        if !planted(Bug::PackNamedUnsynced) {
            file.sync()?;
        }
        if planted(Bug::PackRemovesFirst) {
            let old = engine.log.chain();
            (old.first..=old.last).try_for_each(|number| engine.files.remove(&log_path(number)))?;
        }
        engine.files.rename(&temporary, &log_path(number))?;
        Ok(made)
    });
    let (tails, records) = match synced {
        Ok(made) => made,
        Err(error) => {
            let _ = engine.files.aside().remove(&temporary);
            return Err(error);
        }
    };
    if !planted(Bug::PackNameNotSynced) {
        engine.files.sync_dir("log")?;
    }
    let chain = Chain { first: number, last: number, oldest: state.tid };
    Ok(NewLog { chain, head: new, tails, records })
}

/// `state` with its data where it lies from now on, and exactly the space that takes, besides what
/// is held.
fn based(state: &State, held: &Space, moves: &Moves) -> Result<State, StorageError> {
    let mut catalog = state.catalog.clone();
    if let Some((tag, _)) = state.catalog.tags().next().filter(|_| planted(Bug::PackForgetsTag)) {
        let gone = CatalogChange::Tag { tag: Arc::clone(tag), tid: None };
        catalog.apply(&gone, state.tid)?;
    }
    let (tid, time_ns) = (state.tid, state.time_ns);
    let mut space = held.clone();
    let mut maps = Vec::new();
    for (array, pages) in state.page_maps() {
        let mut moved = PageMap::new();
        for segment in pages.stored()? {
            let segment = segment.trimmed();
            let source = moves.source(&segment.source)?;
            if let Some(extent) = source.extent() {
                space.insert(extent.place(), u64::from(extent.stored_pages()));
            }
            moved.insert(&Segment { pages: segment.pages, source });
        }
        maps.push((array, moved));
    }
    let mut based = State::new(tid, time_ns, catalog, space);
    maps.into_iter().for_each(|(array, pages)| based.set_page_map(array, pages));
    Ok(based)
}

/// Writes header, state and records; `state` becomes the head.
fn write_frames(
    engine: &LocalEngine,
    file: &StoreFile,
    number: u32,
    state: &mut State,
    kept: &[Arc<Record>],
    moves: &mut Moves,
) -> Result<(Vec<Tail>, Vec<Arc<Record>>), StorageError> {
    let (store, seal) = (engine.store(), Seal::new(engine.store(), number));
    let (chain_base, base) = (number, state.tid);
    let header = LogHeader { file: number, chain_base, base, previous: 0, has_state: true };
    file.write_at(&[&header.encode(store)], 0)?;
    let content = FrameContent {
        kind: FrameKind::Base,
        tid: state.tid,
        base: state.tid,
        time_ns: state.time_ns,
        durable: state.tid,
        previous: 0,
        body: &codec::encode_state(state)?,
        inline: &[],
    };
    let frame = NewFrame::new(&seal, 1, &content);
    file.write_at(&[&frame.metadata], PAGE_BYTES)?;
    let position = Position { file: number, page: 1 + frame.pages() };
    let mut tail = Tail { tid: state.tid, position, chain: frame.chain };
    let (mut tails, mut records) = (vec![tail], Vec::new());
    for old in kept {
        let (own, own_pages) = own_pages(engine, old)?;
        let own: Ranges = [(own, own_pages)].into_iter().collect();
        let inline = inline_bytes(engine, old, &own)?;
        let draft = draft_of(old, &inline, moves)?;
        let encoded = codec::encode_draft(&draft);
        // All of the new file is durable before it has its name.
        let frame = log::framed(&seal, &tail, tail.tid, &draft, &encoded);
        let mut parts = vec![frame.metadata.as_slice()];
        parts.extend_from_slice(&encoded.inline);
        file.write_at(&parts, tail.position.page * PAGE_BYTES)?;
        let record = log::recorded(&draft, &frame, tail.position);
        for (before, after) in old.data.iter().zip(&record.data) {
            let (before, after) = (&before.segment.source, &after.segment.source);
            if let (Some(from), Some(to)) = (before.extent(), after.extent())
                && own.contains(from.place(), 1)
            {
                moves.places.insert(from.place(), (u64::from(from.pages()), to.place()));
            }
        }
        let position = Position { page: tail.position.page + frame.pages(), ..tail.position };
        tail = Tail { tid: record.tid, position, chain: frame.chain };
        *state = state.apply(&record)?;
        tails.push(tail);
        records.push(Arc::new(record));
    }
    Ok((tails, records))
}

/// The inline data of each change of a record; `None` where it has none.
fn inline_bytes(
    engine: &LocalEngine,
    record: &Record,
    own: &Ranges,
) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
    let read = |source: &Source| {
        let Some(extent) = source.extent().filter(|extent| own.contains(extent.place(), 1)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; to_usize(u64::from(extent.stored_pages()) * PAGE_BYTES)];
        let file = engine.log.file(extent.place().file & !IN_LOG)?;
        file.read_exact_at(&mut bytes, extent.place().page * PAGE_BYTES)?;
        Ok(Some(bytes))
    };
    record.data.iter().map(|change| read(&change.segment.source)).collect()
}

/// A record as the draft it came from.
fn draft_of<'a>(
    record: &Record,
    inline: &'a [Option<Vec<u8>>],
    moves: &Moves,
) -> Result<Draft<'a>, StorageError> {
    let changes = record.data.iter().zip(inline).map(|(change, inline)| {
        let source = match inline {
            Some(bytes) => DraftSource::Inline(bytes),
            None => DraftSource::Stored(moves.source(&change.segment.source)?),
        };
        let (array, pages, carried) = (change.array, change.segment.pages, change.carried);
        Ok(DraftChange { array, pages, source, carried })
    });
    Ok(Draft {
        tid: record.tid,
        base: record.base,
        time_ns: record.time_ns,
        note: Arc::clone(&record.note),
        catalog: record.catalog.clone(),
        data: changes.collect::<Result<_, StorageError>>()?,
    })
}

/// Goes over to the new log. Nothing can fail any more.
fn switch(engine: &LocalEngine, new: NewLog, named: &Ranges, forgotten: u64) -> Packed {
    let NewLog { chain, head, tails, records } = new;
    let used: Ranges = head.space.iter().collect();
    let mut limbo: Ranges = named.iter().filter(|(place, _)| !place.in_log()).collect();
    used.iter().for_each(|(place, pages)| limbo.remove(place, pages));
    if planted(Bug::PackFreesPinned) {
        limbo = Ranges::default();
    }
    let only_head = planted(Bug::PackFreesKept).then(|| named_space(&head).ok()).flatten();
    let space = only_head.unwrap_or_else(|| head.space.clone());
    let freed_pages = engine.extents.repack(space, limbo);
    engine.log.switch(chain, &tails, &records, &log_files(named));
    *engine.checkpoint.lock() = None;
    let _ = engine.remove_leftovers();
    let _ = checkpoint::remove_all(&engine.files.aside());
    let _ = engine.extents.punch();
    let head = engine.write_checkpoint(&head).unwrap_or(head);
    Packed { head, freed_pages, forgotten, oldest: chain.oldest }
}

impl LocalEngine {
    /// Deletes log files of former chains, unless somebody may still open them.
    pub(super) fn remove_leftovers(&self) -> Result<(), StorageError> {
        let first = self.log.chain().first;
        let others = self.members.others_pins()?;
        let may_look = |chain: Told| !matches!(chain, Told::Number(n) if n >= u64::from(first));
        let is_seen = !planted(Bug::FormerLogRemoved);
        if is_seen && others.iter().any(|&(_, _, chain)| may_look(chain)) {
            self.leftovers.store(true, Ordering::Release);
            return Ok(());
        }
        let aside = self.files.aside();
        for number in self.files.list("log")?.iter().filter_map(|name| log_number(name)) {
            if number < first {
                aside.remove(&log_path(number))?;
            }
        }
        self.leftovers.store(false, Ordering::Release);
        Ok(())
    }
}

/// The numbers of the log files among these places.
fn log_files(named: &Ranges) -> BTreeSet<u32> {
    let in_log = named.iter().filter(|(place, _)| place.in_log());
    in_log.map(|(place, _)| place.file & !IN_LOG).collect()
}

/// See [`Engine::unpin`].
pub(super) fn unpin(engine: &LocalEngine, pinned: &[Arc<State>]) -> Result<(), StorageError> {
    if engine.may_remove_leftovers() {
        engine.remove_leftovers()?;
    }
    if !engine.extents.has_limbo() && !engine.log.has_former_files() {
        return Ok(());
    }
    let named = named_pages(pinned)?;
    engine.extents.unpin(&named);
    engine.log.keep_open(&log_files(&named));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::Backend;
    use crate::storage::backend::simulated::{Fault, FaultKind, Simulated};
    use crate::storage::local::Mode;
    use crate::storage::local::tests::{commit, small};
    use crate::units::PageRange;

    /// A store with `commits` commits of one page, each of which lies in its record.
    fn store(commits: u64) -> (Simulated, LocalEngine, State) {
        let disk = Simulated::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::create(&backend, &small()).unwrap();
        let (engine, mut head) = LocalEngine::open(&backend, Mode::ReadWrite, &small()).unwrap();
        for _ in 0..commits {
            head = commit(&engine, &head, 0, 1, true).unwrap();
        }
        (disk, engine, head)
    }

    #[test]
    fn packing_keeps_from_a_commit_that_is_there() {
        let (disk, engine, _) = store(4);
        pack(&engine, Tid(2), &[], 0).unwrap();
        let files = disk.list("log").unwrap();
        let again = pack(&engine, Tid(2), &[], 0).unwrap();
        assert_eq!((again.forgotten, again.freed_pages, again.head.tid), (0, 0, Tid(4)));
        assert!(matches!(
            pack(&engine, Tid(1), &[], 0),
            Err(StorageError::Forgotten { tid: Tid(1), oldest: Tid(2) })
        ));
        assert!(matches!(
            pack(&engine, Tid(5), &[], 0),
            Err(StorageError::NoCommit { tid: Tid(5), head: Tid(4) })
        ));
        assert_eq!(disk.list("log").unwrap(), files, "nothing was to do");
        assert_eq!(pack(&engine, Tid(3), &[], 0).unwrap().forgotten, 1);
    }

    #[test]
    fn a_page_of_the_old_log_lies_where_its_run_was_moved_or_nowhere() {
        let old = |file, page| Place { file: IN_LOG | file, page };
        let new = |page| Place { file: 0, page };
        let mut moves = Moves::default();
        moves.places.insert(old(1, 10), (4, new(100)));
        moves.places.insert(old(1, 20), (2, new(200)));
        assert_eq!(moves.of(old(1, 10)), Some(new(100)));
        assert_eq!(moves.of(old(1, 13)), Some(new(103)));
        assert_eq!(moves.of(old(1, 21)), Some(new(201)));
        for nowhere in [old(1, 9), old(1, 14), old(1, 22), old(2, 20), old(0, 10)] {
            assert_eq!(moves.of(nowhere), None, "{nowhere:?}");
        }
        assert_eq!(moves.of(new(7)), Some(new(7)), "data files stay");
        let of = |place| {
            let extent = Arc::new(Extent::new(place, 2, 1, Box::from([5, 6])).unwrap());
            moves.source(&Source::Extent { extent, skip: 1 })
        };
        let Ok(Source::Extent { extent, skip: 1 }) = of(old(1, 11)) else { panic!("it was moved") };
        assert_eq!((extent.place(), extent.sums()), (new(101), &[5, 6][..]));
        let error = of(old(1, 9)).unwrap_err().to_string();
        assert!(error.starts_with("log/0000000001.log is damaged"), "{error}");
    }

    #[test]
    fn of_an_extent_the_units_that_a_segment_touches_are_kept() {
        let place = Place { file: 3, page: 50 };
        let extent = Arc::new(Extent::new(place, 10, 4, Box::from([70, 71, 72])).unwrap());
        let cut = |skip: u32, pages: u64| {
            let source = Source::Extent { extent: Arc::clone(&extent), skip };
            let pages = PageRange::at(1000, pages);
            let trimmed = Segment { pages, source }.trimmed();
            assert_eq!(trimmed.pages, pages);
            let Source::Extent { extent, skip } = trimmed.source else { panic!("a hole") };
            (extent.place().page, extent.pages(), skip, extent.sums().to_vec())
        };
        assert_eq!(cut(5, 2), (54, 4, 1, vec![71]));
        assert_eq!(cut(3, 2), (50, 8, 3, vec![70, 71]));
        assert_eq!(cut(7, 3), (54, 6, 3, vec![71, 72]));
        assert_eq!(cut(8, 2), (58, 2, 0, vec![72]));
        assert_eq!(cut(0, 10), (50, 10, 0, vec![70, 71, 72]));
    }

    fn opened(disk: &Simulated) -> LocalEngine {
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::open(&backend, Mode::ReadWrite, &small()).unwrap().0
    }

    #[test]
    fn limbo_ends_with_its_pins_also_without_old_log_files() {
        let (_disk, engine, mut head) = store(0);
        let states: Vec<_> = (0..4)
            .map(|_| {
                head = commit(&engine, &head, 0, 4, false).unwrap();
                Arc::new(head.clone())
            })
            .collect();
        pack(&engine, Tid(4), &states[1..2], 0).unwrap();
        assert!(engine.extents.has_limbo() && !engine.log.has_former_files());
        unpin(&engine, &[]).unwrap();
        assert!(!engine.extents.has_limbo());
    }

    #[test]
    fn old_log_files_are_closed_with_their_pins_also_without_limbo() {
        let (_disk, engine, head) = store(4);
        pack(&engine, Tid(4), &[Arc::new(head)], 0).unwrap();
        assert!(engine.log.has_former_files() && !engine.extents.has_limbo());
        unpin(&engine, &[]).unwrap();
        assert!(!engine.log.has_former_files());
    }

    /// Number of pages in data files after a pack that keeps from `keep` on.
    fn moved_by_pack(engine: &LocalEngine, keep: u64) -> u64 {
        let head = pack(engine, Tid(keep), &[], 0).unwrap().head;
        let kept = engine.log.records(Tid(keep), head.tid).unwrap();
        assert!(kept.iter().all(|record| record.data[0].segment.source.place().unwrap().in_log()));
        head.space.pages()
    }

    #[test]
    fn what_lies_in_a_kept_record_stays_in_it() {
        // Five records fit into a file: the sixth is the first of its file.
        for (commits, keep) in [(4, 2), (5, 4), (6, 4), (7, 5), (7, 6)] {
            let (disk, engine, _) = store(commits);
            drop(engine);
            let reopened = opened(&disk);
            for engine in [store(commits).1, reopened] {
                let moved = moved_by_pack(&engine, keep);
                assert_eq!(moved, 1, "only the page of the state: {keep} of {commits}");
            }
        }
    }

    #[test]
    fn what_lies_in_the_last_record_stays_in_it_when_the_next_file_has_begun() {
        let begun = Position { file: 1, page: 1 };
        let mut found = 0;
        for call in 0..12 {
            let (disk, engine, head) = store(5);
            disk.set_fault(Some(Fault { call, kind: FaultKind::Enospc, lasting: false }));
            let refused = commit(&engine, &head, 0, 1, true).is_err();
            disk.set_fault(None);
            if refused && engine.log.tail().position == begun && !engine.is_poisoned() {
                assert_eq!(moved_by_pack(&engine, 4), 1);
                found += 1;
            }
        }
        assert!(found > 0);
    }
}
