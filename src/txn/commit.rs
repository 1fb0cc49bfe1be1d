//! The commit protocol, step by step; the steps and invariants are numbered in [`txn`](super).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::append;
use super::error::{CommitError, TransactionError};
use super::session::Context;
use super::store::{Head, Shared};
use super::transaction::{Inner, Transaction, take_over};
use super::working::Working;
use super::write_out;
use crate::storage::StorageError;
use crate::storage::extent::{Place, Source};
use crate::storage::record::{
    Draft, DraftChange, DraftSource, INLINE_PAGES_MAX, NOTE_BYTES_MAX, Record, may_be_inline,
};
use crate::storage::state::State;
use crate::sync::thread;
use crate::units::{ArrayId, PageRange, PageSet, Tid};

/// From this many pages on, 16 MiB, it pays to do something else while the disk syncs.
const MANY_PAGES: u64 = if cfg!(shuttle) { 18 } else { 1 << 12 };

/// Pages of one array that travel inside the record.
type Inline = HashMap<ArrayId, PageSet>;

/// What a commit says of itself.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) note: &'a str,
    /// When it was made; now unless somebody says otherwise.
    pub(super) time_ns: Option<i64>,
}

/// Commits `inner`, the changes of `transaction`.
pub(super) fn commit(
    transaction: &Transaction,
    mut inner: Inner,
    said: Said<'_>,
) -> Result<Tid, CommitError> {
    let cx = transaction.context();
    let (shared, generation) = (&transaction.shared, transaction.pin.generation());
    let result = if inner.poisoned {
        Err(TransactionError::Poisoned.into())
    } else if transaction.writes {
        steps(shared, &cx, &mut inner, said, generation)
    } else {
        Ok(inner.session.state.tid)
    };
    shared.end(inner, generation, &cx);
    if result.is_ok() {
        shared.checkpoint_if_due();
    }
    result
}

fn steps(
    shared: &Arc<Shared>,
    cx: &Context<'_>,
    inner: &mut Inner,
    said: Said<'_>,
    generation: u64,
) -> Result<Tid, CommitError> {
    if said.note.len() > NOTE_BYTES_MAX {
        return Err(TransactionError::NoteTooLong { bytes: said.note.len() }.into());
    }
    // An array without a name any more has no data to commit.
    inner.session.arrays.retain(|&id, _| inner.set.catalog.array_by_id(id).is_some());
    let (record, next) = loop {
        let inline = write_and_sync(cx, inner)?;
        if inline.is_empty() && inner.set.changes.is_empty() && !has_staged(inner) {
            return Ok(inner.session.state.tid);
        }
        match append_under_lock(shared, cx, inner, &inline, said) {
            // Every turn somebody else has committed, so all together come to an end.
            Err(CommitError::Conflict(conflict)) => {
                make_visible_what_was_met(shared, cx)?;
                if !append::rebase(shared, cx, inner)? {
                    return Err(CommitError::Conflict(conflict));
                }
            }
            other => break other?,
        }
    };
    // Before anything can fail: what the record names is given back no more.
    free_unnamed(cx, inner, &record);
    cx.engine.settle(record.tid).map_err(unknown_or_not)?;
    shared.publish(next);
    rename_created(inner, &record);
    if follow(shared, cx, inner, generation).is_err() {
        // The commit stands; only the mappings of this session are useless now.
        inner.session.arrays.clear();
    }
    Ok(record.tid)
}

/// Steps 3 to 5: what comes after it is written while this one is made durable.
fn append_under_lock(
    shared: &Shared,
    cx: &Context<'_>,
    inner: &mut Inner,
    inline: &Inline,
    said: Said<'_>,
) -> Result<(Arc<Record>, Head), CommitError> {
    let mut tip = shared.commit_lock.lock();
    let _lock = cx.engine.lock().map_err(TransactionError::from)?;
    shared.catch_up(&mut tip).map_err(TransactionError::from)?;
    let base = inner.session.state.tid;
    let newer = cx.engine.records(base, tip.state.tid).map_err(TransactionError::from)?;
    refuse_conflicts(inner, inline, &newer, &tip.state)?;
    let draft = draft(inner, inline, &newer, &tip.state, said)?;
    let record = append(cx, &draft)?;
    let next = tip.state.apply(&record);
    let next = next.map_err(|source| CommitError::Unknown { tid: record.tid, source })?;
    tip.state = Arc::new(next);
    Ok((Arc::new(record), tip.clone()))
}

/// Makes the commits that this one met durable and visible: who wrote them may be dead, and whoever
/// begins again must see them, or would meet them for ever.
fn make_visible_what_was_met(shared: &Shared, cx: &Context<'_>) -> Result<(), TransactionError> {
    let tip = shared.commit_lock.lock().state.tid;
    cx.engine.settle(tip)?;
    Ok(shared.refresh()?)
}

/// Moves the session on to the head.
fn follow(
    shared: &Shared,
    cx: &Context<'_>,
    inner: &mut Inner,
    generation: u64,
) -> Result<(), TransactionError> {
    let head = shared.known_head();
    if head.generation != generation {
        return Err(TransactionError::Poisoned);
    }
    let newer = cx.engine.records(inner.session.state.tid, head.state.tid)?;
    inner.session.advance(cx, head.state, &newer)
}

/// Steps 1 and 2: writes changed pages to extents and makes them durable, or returns them if they
/// fit into the record.
fn write_and_sync(cx: &Context<'_>, inner: &mut Inner) -> Result<Inline, TransactionError> {
    let mut plans = Vec::new();
    let (mut pages_count, mut to_encode) = (0, false);
    for (&id, working) in &inner.session.arrays {
        if working.writable.is_empty() {
            continue;
        }
        let changed = write_out::changed_pages(cx, working)?;
        let (block_pages, encodes) = (working.block_pages(), !working.codec.is_none());
        let planned = write_out::plan(&changed, &working.pages, block_pages, encodes)?;
        pages_count += planned.count();
        to_encode |= encodes && write_out::has_to_encode(&planned);
        if !planned.is_empty() {
            plans.push((id, changed, planned));
        }
    }
    // A record carries pages as they are.
    let fits = !to_encode && pages_count <= INLINE_PAGES_MAX && inner.set.allocated.is_empty();
    let fits = fits && all_may_be_inline(cx, inner, &plans)?;
    let mut inline = Inline::new();
    let mut written = Vec::new();
    for (id, changed, planned) in plans {
        let Some(working) = inner.session.arrays.get_mut(&id) else { continue };
        if !fits {
            let allocated = &mut inner.set.allocated;
            let segments = write_out::write(cx, working, &changed, &planned, allocated)?;
            written.push((id, changed, planned, segments));
            continue;
        }
        write_out::check_carried(cx, working, &changed, &planned)?;
        changed.iter().for_each(|range| working.written.insert(range));
        for range in planned.iter() {
            working.map(cx, range, false)?;
        }
        let mut carried = planned.clone();
        working.written.iter().for_each(|range| carried.remove(range));
        carried.iter().for_each(|range| working.carried.insert(range));
        inline.insert(id, planned);
    }
    let arrays = &mut inner.session.arrays;
    let mut take_over = || {
        written.iter().try_for_each(|(id, changed, planned, segments)| match arrays.get_mut(id) {
            Some(working) => take_over(cx, working, changed, planned, segments),
            None => Ok(()),
        })
    };
    let engine = cx.engine;
    if pages_count >= MANY_PAGES {
        // The memory of the private pages is given back while the disk works.
        return thread::scope(|scope| {
            let sync = scope.spawn(|| engine.sync());
            let taken = take_over();
            sync.join().unwrap_or(Err(StorageError::Poisoned))?;
            taken.map(|()| inline)
        });
    }
    take_over()?;
    if !inner.set.allocated.is_empty() {
        engine.sync()?;
    }
    Ok(inline)
}

/// Maps all planned pages and says whether the record may carry them.
fn all_may_be_inline(
    cx: &Context<'_>,
    inner: &mut Inner,
    plans: &[(ArrayId, PageSet, PageSet)],
) -> Result<bool, TransactionError> {
    for (id, _, planned) in plans {
        let Some(working) = inner.session.arrays.get_mut(id) else { continue };
        for range in planned.iter() {
            working.map(cx, range, false)?;
            working.load(range)?;
            if !working.bytes(range).is_some_and(may_be_inline) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn has_staged(inner: &Inner) -> bool {
    inner.session.arrays.values().any(|working| !working.written.is_empty())
}

/// Step 4.
fn refuse_conflicts(
    inner: &Inner,
    inline: &Inline,
    newer: &[Arc<Record>],
    head: &State,
) -> Result<(), CommitError> {
    if newer.is_empty() {
        return Ok(());
    }
    let written = |(&id, working): (&ArrayId, &Working)| {
        (!working.written.is_empty() || inline.contains_key(&id))
            .then(|| (id, working.written.clone()))
    };
    let pages: BTreeMap<ArrayId, PageSet> =
        inner.session.arrays.iter().filter_map(written).collect();
    let base = &inner.session.state.catalog;
    // Arrays created here are nobody else's: they cannot conflict and are not in the base.
    let pages = pages.into_iter().filter(|(id, _)| base.array_by_id(*id).is_some()).collect();
    let (catalog, _) = inner.set.for_record(head.catalog.next_array());
    match append::conflict_of(inner, &pages, &catalog, newer, head) {
        Some(conflict) => Err(CommitError::Conflict(conflict)),
        None => Ok(()),
    }
}

fn draft<'a>(
    inner: &'a Inner,
    inline: &Inline,
    newer: &[Arc<Record>],
    head: &State,
    said: Said<'_>,
) -> Result<Draft<'a>, TransactionError> {
    let (catalog, real) = inner.set.for_record(head.catalog.next_array());
    let mut ids: Vec<ArrayId> = inner.session.arrays.keys().copied().collect();
    ids.sort_by_key(|id| real.get(id).copied().unwrap_or(*id));
    let mut data = Vec::new();
    for id in ids {
        let working = &inner.session.arrays[&id];
        let array = real.get(&id).copied().unwrap_or(id);
        let inline = inline.get(&id);
        for (range, carried) in named_pages(id, working, newer) {
            push_changes(&mut data, (array, carried), working, range, inline)?;
        }
    }
    Ok(Draft {
        tid: head.tid.next(),
        base: inner.session.state.tid,
        time_ns: said.time_ns.unwrap_or_else(now_ns).max(head.time_ns),
        note: Arc::from(said.note),
        catalog,
        data,
    })
}

/// The pages the record shall name, ascending, and whether they are carried along: those written,
/// and those carried except where a newer commit changed them, since what was carried is older.
fn named_pages(id: ArrayId, working: &Working, newer: &[Arc<Record>]) -> Vec<(PageRange, bool)> {
    let mut carried = working.carried.clone();
    for change in newer.iter().flat_map(|record| &record.data) {
        if change.array == id && !change.carried {
            carried.remove(change.segment.pages);
        }
    }
    working.written.iter().for_each(|range| carried.remove(range));
    let mut named: Vec<_> = working.written.iter().map(|range| (range, false)).collect();
    named.extend(carried.iter().map(|range| (range, true)));
    named.sort_unstable_by_key(|(range, _)| range.start);
    named
}

fn push_changes<'a>(
    data: &mut Vec<DraftChange<'a>>,
    (array, carried): (ArrayId, bool),
    working: &'a Working,
    range: PageRange,
    inline: Option<&PageSet>,
) -> Result<(), TransactionError> {
    let nothing = PageSet::new();
    let inline = inline.unwrap_or(&nothing);
    let mut parts: Vec<(PageRange, bool)> =
        inline.iter_in(range).map(|part| (part, true)).collect();
    parts.extend(inline.missing_in(range).into_iter().map(|part| (part, false)));
    parts.sort_unstable_by_key(|(part, _)| part.start);
    for (part, is_inline) in parts {
        if is_inline {
            let source = DraftSource::Inline(write_out::readable(working, part)?);
            data.push(DraftChange { array, pages: part, source, carried });
            continue;
        }
        for segment in working.pages.lookup(part)? {
            let source = DraftSource::Stored(segment.source);
            data.push(DraftChange { array, pages: segment.pages, source, carried });
        }
    }
    Ok(())
}

/// Step 5.
fn append(cx: &Context<'_>, draft: &Draft<'_>) -> Result<Record, CommitError> {
    cx.engine.append(draft).map_err(unknown_or_not)
}

fn unknown_or_not(error: StorageError) -> CommitError {
    match error {
        StorageError::Unknown { tid, source } => CommitError::Unknown { tid, source: *source },
        other => CommitError::NotCommitted(other.into()),
    }
}

/// Gives back what was staged and then overtaken by later changes of the same transaction.
fn free_unnamed(cx: &Context<'_>, inner: &mut Inner, record: &Record) {
    let named: BTreeSet<Place> = record
        .data
        .iter()
        .filter_map(|change| match &change.segment.source {
            Source::Extent { extent, .. } => Some(extent.place()),
            Source::Hole => None,
        })
        .collect();
    for (place, pages) in inner.set.allocated.drain(..) {
        if !named.contains(&place) {
            cx.engine.free(place, pages);
        }
    }
}

/// Gives the working copies of arrays created here their real ids.
fn rename_created(inner: &mut Inner, record: &Record) {
    use crate::storage::catalog::CatalogChange;
    let real = record.catalog.iter().filter_map(|change| match change {
        CatalogChange::CreateArray { entry, .. } => Some(entry.id),
        _ => None,
    });
    let provisional: Vec<ArrayId> = inner
        .set
        .changes
        .iter()
        .filter_map(|change| match change {
            CatalogChange::CreateArray { entry, .. } => Some(entry.id),
            _ => None,
        })
        .collect();
    for (from, to) in provisional.into_iter().zip(real) {
        if let Some(working) = inner.session.arrays.remove(&from) {
            inner.session.arrays.insert(to, working);
        }
    }
}

/// Nanoseconds since 1970, by this machine's clock.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::storage::backend::Backend;
    use crate::storage::backend::simulated::{Simulated, Survival};
    use crate::storage::catalog::{ArrayEntry, Attributes, CatalogChange};
    use crate::storage::encoding::Codec;
    use crate::storage::engine::CommitLog;
    use crate::storage::extent::Segment;
    use crate::storage::index::PageMap;
    use crate::storage::local::{LocalEngine, LocalOptions, Mode};
    use crate::storage::record::DataChange;
    use crate::txn::{HoleContent, Store};
    use crate::units::{BLOCK_BYTES_DEFAULT, PAGE_BYTES, PAGE_LEN};

    pub(in crate::txn) fn opened(disk: &Simulated) -> Store {
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        Store::open_on(&backend, Mode::ReadWrite, &LocalOptions::default()).unwrap()
    }

    pub(in crate::txn) fn new_store() -> (Simulated, Store) {
        let disk = Simulated::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::create(&backend, &LocalOptions::default()).unwrap();
        let store = opened(&disk);
        (disk, store)
    }

    /// Creates array `a` of `pages` pages and opens it.
    fn create(transaction: &Transaction, pages: u64) -> ArrayId {
        create_named(transaction, "a", pages)
    }

    pub(in crate::txn) fn create_named(
        transaction: &Transaction,
        name: &str,
        pages: u64,
    ) -> ArrayId {
        let id = transaction.next_array().unwrap();
        let entry = ArrayEntry {
            id,
            shape: Arc::from([pages * PAGE_BYTES]),
            block_bytes: BLOCK_BYTES_DEFAULT,
            codec: Codec::default(),
            descriptor: Arc::from("{}"),
            attributes: Attributes::new(),
            created: Tid::ZERO,
            changed: Tid::ZERO,
        };
        let name = Arc::from(name);
        transaction.change_any(CatalogChange::CreateArray { name, entry }).unwrap();
        open(transaction, id, pages);
        id
    }

    pub(in crate::txn) fn open(transaction: &Transaction, id: ArrayId, pages: u64) {
        let zeros = || Ok::<_, TransactionError>(HoleContent::Zero);
        transaction.open_array(id, pages, zeros).unwrap();
    }

    /// Commits an array with this content.
    pub(in crate::txn) fn committed(store: &Store, content: &[u8]) -> Arc<Record> {
        let transaction = store.begin().unwrap();
        let id = create(&transaction, content.len() as u64 / PAGE_BYTES);
        transaction.write(id, 0, content).unwrap();
        let tid = transaction.commit().unwrap();
        store.records(Tid(tid.0 - 1), tid).unwrap().remove(0)
    }

    fn lies_in_its_record(record: &Record) -> bool {
        record.data[0].segment.source.place().unwrap().in_log()
    }

    /// A transaction that created group `name`.
    fn with_group(store: &Store, name: &str) -> Transaction {
        let transaction = store.begin().unwrap();
        transaction.change(CatalogChange::CreateGroup { name: Arc::from(name) }).unwrap();
        transaction
    }

    #[test]
    fn a_note_has_at_most_65536_bytes() {
        let ((_, store), longest) = (new_store(), "n".repeat(65536));
        let tid = with_group(&store, "g").commit_with_note(&longest).unwrap();
        assert_eq!(*store.records(Tid::ZERO, tid).unwrap()[0].note, *longest);
        let refused = with_group(&store, "h").commit_with_note(&(longest + "n"));
        let said = "nothing was committed: the note has 65537 bytes; a commit takes 65536";
        assert_eq!(refused.unwrap_err().to_string(), said);
        assert_eq!(store.head(), tid);
    }

    #[test]
    fn data_outside_of_its_record_is_durable_before_the_record() {
        let (disk, store) = new_store();
        let record = committed(&store, &[7; 40 * PAGE_LEN]);
        assert!(!lies_in_its_record(&record));
        let after = |_, _: &_| Survival::Dropped;
        let image = disk.crash_image(disk.changes_count(), after).unwrap();
        let store = opened(&image);
        assert_eq!(store.head(), record.tid);
        assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
    }

    #[test]
    fn a_page_with_a_sector_of_one_bit_does_not_travel_in_its_record() {
        let mut content = [7; 2 * PAGE_LEN];
        assert!(lies_in_its_record(&committed(&new_store().1, &content)));
        content[PAGE_LEN..PAGE_LEN + 512].fill(0);
        content[PAGE_LEN + 100] = 1 << 3;
        assert!(!lies_in_its_record(&committed(&new_store().1, &content)));
    }

    #[test]
    fn a_commit_says_when_it_was_made() {
        let (_disk, store) = new_store();
        let before = now_ns();
        assert!(before > 1_700_000_000_000_000_000, "it is not 2023 any more");
        let record = committed(&store, &[7; PAGE_LEN]);
        assert!((before..=now_ns()).contains(&record.time_ns));
    }

    #[test]
    fn an_array_that_was_created_stays_mapped_for_the_next_transaction() {
        let (_disk, store) = new_store();
        let id = committed(&store, &[7; PAGE_LEN]).data[0].array;
        let next = store.begin().unwrap();
        let mapped_anew = || -> Result<HoleContent, TransactionError> { panic!("mapped anew") };
        next.open_array(id, 1, mapped_anew).unwrap();
    }

    #[test]
    fn pages_are_carried_unless_a_newer_commit_changed_them() {
        let (id, pages) = (ArrayId(1), PageMap::new());
        let mut working =
            Working::new(Arc::from("a"), BLOCK_BYTES_DEFAULT, HoleContent::Zero, pages);
        working.written.insert(PageRange::new(3, 4));
        working.carried.insert(PageRange::new(0, 8));
        let newer = |array, pages, carried| {
            let segment = Segment { pages, source: Source::Hole };
            let data = vec![DataChange { array, segment, carried }];
            let (note, catalog) = (Arc::from(""), Vec::new());
            Arc::new(Record { tid: Tid(2), base: Tid(1), time_ns: 0, note, catalog, data })
        };
        let named = named_pages(
            id,
            &working,
            &[
                newer(id, PageRange::new(5, 6), false),
                newer(id, PageRange::new(0, 2), true),
                newer(ArrayId(2), PageRange::new(6, 8), false),
            ],
        );
        let expected = [(0, 3, true), (3, 4, false), (4, 5, true), (6, 8, true)];
        let expected = expected.map(|(start, end, carried)| (PageRange::new(start, end), carried));
        assert_eq!(named, expected);
    }

    #[test]
    fn a_transaction_that_only_looked_commits_nothing() {
        let (_disk, store) = new_store();
        let record = committed(&store, &[7; 2 * PAGE_LEN]);
        let transaction = store.begin().unwrap();
        open(&transaction, record.data[0].array, 2);
        assert_eq!(transaction.commit().unwrap(), record.tid);
        assert_eq!(store.head(), record.tid);
    }

    #[test]
    fn there_is_no_commit_to_undo_before_the_first_one_and_behind_the_newest() {
        let (_disk, store) = new_store();
        let head = committed(&store, &[7; PAGE_LEN]).tid;
        for tid in [Tid::ZERO, head.next(), head.next().next()] {
            let refused = store.begin_undo(tid, |_| 0).err().unwrap().to_string();
            assert!(refused.contains(&format!("no commit {tid}")), "{refused}");
        }
    }

    #[test]
    fn what_a_savepoint_wrote_is_committed() {
        let (_disk, store) = new_store();
        let record = committed(&store, &[7; 2 * PAGE_LEN]);
        let mut transaction = store.begin().unwrap();
        open(&transaction, record.data[0].array, 2);
        transaction.write(record.data[0].array, 0, &[8]).unwrap();
        transaction.savepoint().unwrap();
        let tid = transaction.commit().unwrap();
        assert_eq!(tid, record.tid.next());
        assert!(!store.records(record.tid, tid).unwrap()[0].data.is_empty());
    }

    #[test]
    fn of_two_that_changed_a_page_the_first_commits_inside_and_outside_of_records() {
        for pages in [1, 40] {
            let (_disk, store) = new_store();
            let content = vec![7; 40 * PAGE_LEN];
            let id = committed(&store, &content).data[0].array;
            let begun = [8, 9].map(|byte| {
                let transaction = store.begin().unwrap();
                open(&transaction, id, 40);
                transaction.write(id, 0, &vec![byte; pages * PAGE_LEN]).unwrap();
                transaction
            });
            let [first, second] = begun.map(Transaction::commit);
            assert_eq!(first.unwrap(), Tid(2));
            assert!(matches!(second, Err(CommitError::Conflict(_))), "{pages} pages: {second:?}");
        }
    }

    #[test]
    fn who_meets_a_record_that_nobody_made_durable_begins_after_it() {
        let (disk, store) = new_store();
        let transaction = with_group(&store, "g");
        let backend: Arc<dyn Backend> = Arc::new(disk);
        let options = LocalOptions { map_words: crate::txn::map_words, ..LocalOptions::default() };
        let (dies, _) = LocalEngine::open(&backend, Mode::ReadWrite, &options).unwrap();
        let catalog = vec![CatalogChange::CreateGroup { name: Arc::from("g") }];
        let (note, base) = (Arc::from(""), Tid::ZERO);
        let draft = Draft { tid: Tid(1), base, time_ns: 0, note, catalog, data: Vec::new() };
        let lock = dies.lock().unwrap();
        dies.append(&draft).unwrap();
        drop(lock);
        drop(dies);
        assert_eq!(store.head(), Tid::ZERO, "nobody said that it is durable");
        assert!(matches!(transaction.commit(), Err(CommitError::Conflict(_))));
        assert_eq!(store.begin().unwrap().base(), Tid(1));
    }
}
