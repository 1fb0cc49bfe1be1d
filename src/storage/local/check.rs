//! Checking a store: every file is read, compared with its checksums and with the log.
//!
//! ```text
//! format.json -> log files -> records, one by one, each applied to the state before it
//!                               |-> at the tid of a checkpoint: the same state?
//!                               '-> extents: inside their files, no two over each other, readable
//! ```
//!
//! # Failure
//!
//! Damage goes into the report and the check goes on where that makes sense: after a damaged
//! record nothing more is known of the log, but the extents named before it are still read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint};
use super::extents::data_number;
use super::format::Format;
use super::log::{Log, Step, Tail};
use super::log_header::{LogHeader, log_number, log_path};
use super::{DIRECTORIES, LocalEngine, SHARED_PATH, format, location, recovery};
use crate::storage::StorageError;
use crate::storage::cache::CACHE_PATH;
use crate::storage::check::{Damage, Report};
use crate::storage::engine::{check_content, unit_sum};
use crate::storage::extent::{Extent, Place, Segment, Source};
use crate::storage::planted::{Bug, planted};
use crate::storage::state::{Space, State};
use crate::sync::atomic::Ordering;
use crate::units::{PAGE_BYTES, PageRange, Tid};

/// See [`Engine::check`](crate::storage::engine::Engine::check).
pub(super) fn check(
    engine: &LocalEngine,
    data: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, StorageError> {
    let mut check = Check { engine, report: Report::default(), extents: BTreeMap::new() };
    let format = Format::read(&engine.files);
    check.note(format.map(|_| ()))?;
    check.names()?;
    let walked = check.log();
    check.note(walked)?;
    check.extents(data, progress)?;
    Ok(check.report)
}

struct Check<'a> {
    engine: &'a LocalEngine,
    report: Report,
    // Every extent of kept history, by first page, length and length of a unit.
    extents: BTreeMap<(Place, u32, u32), Arc<Extent>>,
}

impl Check<'_> {
    fn damage(&mut self, place: String, what: impl Into<String>) {
        self.report.damage.push(Damage { place, what: what.into() });
    }

    /// Turns damage into an entry of the report; other errors end the check.
    fn note(&mut self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        match result {
            Err(StorageError::Corrupted { place, what }) => {
                self.damage(place, what);
                Ok(())
            }
            Err(StorageError::Io { path, source, .. }) => {
                self.damage(path, format!("it cannot be read ({source})"));
                Ok(())
            }
            other => other,
        }
    }

    /// Looks for files that should not be there.
    fn names(&mut self) -> Result<(), StorageError> {
        let files = &self.engine.files;
        let known = |name: &str| {
            [SHARED_PATH, CACHE_PATH, format::FORMAT_PATH].contains(&name)
                || DIRECTORIES.contains(&name)
        };
        let mut strange: Vec<String> =
            files.list("")?.into_iter().filter(|name| !known(name)).collect();
        let first = self.engine.log.chain().first;
        let kept =
            !self.engine.members.is_alone()? || self.engine.leftovers.load(Ordering::Acquire);
        for directory in DIRECTORIES {
            for name in files.list(directory)? {
                let ours = match directory {
                    // Somebody may look at files of former chains.
                    "log" => log_number(&name).is_some_and(|number| number >= first || kept),
                    "data" => data_number(&name).is_some(),
                    _ => checkpoint::checkpoint_tid(&name).is_some(),
                };
                if !ours {
                    strange.push(format!("{directory}/{name}"));
                }
            }
        }
        for path in strange {
            self.damage(path, "it does not belong to the store, or is left over from a crash");
        }
        Ok(())
    }

    /// Walks over all records, without help of checkpoints, and compares those with what it finds.
    fn log(&mut self) -> Result<(), StorageError> {
        let engine = self.engine;
        let (store, end) = (engine.store(), engine.log.tail());
        let files = engine.files.aside();
        let (chain, _) = recovery::find_chain(&files, store)?;
        for number in chain.first..=chain.last {
            let header = files
                .open(&log_path(number), files.access())
                .and_then(|file| LogHeader::read(&file, store, number));
            self.note(header.map(|_| ()))?;
        }
        let names = files.list("checkpoint")?;
        let checkpoints: BTreeSet<Tid> =
            names.iter().filter_map(|name| checkpoint::checkpoint_tid(name)).collect();
        let nowhere = recovery::NOWHERE;
        let log = Log::new(files, *store, engine.options.log_roll_bytes, chain, nowhere);
        let (mut at, mut state) = recovery::beginning(&log, chain)?;
        self.collect_state(&state)?;
        self.compare(&checkpoints, &state)?;
        while at.tid < end.tid {
            let (record, after) = match log.step(&at, chain.last, true)? {
                Step::Record(record, after, _) => (record, after),
                Step::Broken { damage: Some(damage), .. } => return Err(damage),
                Step::End(_) | Step::Broken { damage: None, .. } => {
                    return Err(missing(&log, &at));
                }
            };
            state = state.apply(&record)?;
            self.report.records += 1;
            record.data.iter().for_each(|change| self.collect(&change.segment));
            self.compare(&checkpoints, &state)?;
            at = after;
        }
        self.report.arrays = state.catalog.arrays_count() as u64;
        self.space(&state);
        for tid in checkpoints.into_iter().filter(|tid| *tid < chain.oldest) {
            self.damage(checkpoint::checkpoint_path(tid), "it is older than the log");
        }
        Ok(())
    }

    fn collect_state(&mut self, state: &State) -> Result<(), StorageError> {
        for (_, pages) in state.page_maps() {
            pages.stored()?.iter().for_each(|segment| self.collect(segment));
        }
        Ok(())
    }

    fn collect(&mut self, segment: &Segment) {
        if let Some(extent) = segment.source.extent() {
            let key = (extent.place(), extent.pages(), extent.units_word());
            let known = self.extents.entry(key).or_insert_with(|| Arc::clone(extent));
            if known.sums() != extent.sums() {
                let what = "two commits say different checksums of it";
                self.damage(location(extent.place()), what);
            }
        }
    }

    /// The space in use is what the extents take, and what is held.
    fn space(&mut self, head: &State) {
        let mut space = Space::default();
        for extent in self.extents.values().filter(|extent| !extent.place().in_log()) {
            space.insert(extent.place(), u64::from(extent.stored_pages()));
        }
        let missing = space.iter().find(|&(at, pages)| head.space.pages_in(at, pages) < pages);
        if let Some((place, _)) = missing {
            let what = "pages here are in use, and the newest commit does not say so".to_owned();
            self.damage(location(place), what);
        }
        let held = head.space.pages().saturating_sub(space.pages());
        self.report.held_bytes = held.saturating_mul(PAGE_BYTES);
    }

    /// A checkpoint of this commit says the same as the log.
    fn compare(&mut self, checkpoints: &BTreeSet<Tid>, state: &State) -> Result<(), StorageError> {
        if !checkpoints.contains(&state.tid) {
            return Ok(());
        }
        let path = checkpoint::checkpoint_path(state.tid);
        let opened = Checkpoint::open(&self.engine.files, self.engine.store(), state.tid);
        let compared = opened.and_then(|checkpoint| {
            checkpoint.segments().verify()?;
            difference(&checkpoint.state(), state)
        });
        match compared {
            Ok(Some(what)) => self.damage(path, format!("it differs from the log: {what}")),
            other => self.note(other.map(|_| ()))?,
        }
        Ok(())
    }

    /// Checks where extents lie and, if `data`, what is there.
    fn extents(
        &mut self,
        data: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), StorageError> {
        let extents: Vec<Arc<Extent>> = self.extents.values().cloned().collect();
        self.report.extents = extents.len() as u64;
        let mut reach: Option<Arc<Extent>> = None;
        let mut contradicting = BTreeSet::new();
        for extent in &extents {
            if let Some(before) = &reach
                && disagree(before, extent)
            {
                let (a, b) = (location(before.place()), location(extent.place()));
                self.damage(b, format!("an extent lies over another one at {a}"));
                contradicting.insert(extent.place());
            }
            let end = |extent: &Extent| extent.place().after(u64::from(extent.stored_pages()));
            if reach.as_ref().is_none_or(|before| end(extent) > end(before)) {
                reach = Some(Arc::clone(extent));
            }
        }
        let bytes = |extent: &Extent| u64::from(extent.stored_pages()) * PAGE_BYTES;
        let all_bytes = extents.iter().map(|extent| bytes(extent)).sum();
        let mut done = 0;
        for extent in &extents {
            // What contradicts another extent is damaged whatever it holds. Reading it all the same
            // would let few bytes of a hostile log ask for any amount of work.
            let data = data && !contradicting.contains(&extent.place());
            let result = self.extent(extent, data, &mut |bytes| progress(done + bytes, all_bytes));
            self.note(result)?;
            done += bytes(extent);
        }
        Ok(())
    }

    fn extent(
        &mut self,
        extent: &Extent,
        data: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        let place = extent.place();
        let file = self.engine.file_at(place)?;
        let end =
            place.page.saturating_add(u64::from(extent.stored_pages())).saturating_mul(PAGE_BYTES);
        if file.len()? < end {
            let what = format!("the file ends before byte {end}");
            return Err(file.damaged(file.len()?, what));
        }
        if !data {
            return Ok(());
        }
        for (unit, &expected) in (0u32..).zip(extent.sums()) {
            let pages = extent.stored_unit(unit);
            let at = place.after(u64::from(pages.start));
            let sum = unit_sum(self.engine, extent, unit, &mut |_, _| {})?;
            if sum != expected && !planted(Bug::DataSumNotChecked) {
                let what =
                    format!("{} pages have checksum {sum:08x}, not {expected:08x}", pages.len());
                self.damage(location(at), what);
            }
            self.report.data_bytes += pages.len() as u64 * PAGE_BYTES;
            if sum == expected
                && let Err(error) = check_content(self.engine, extent)
            {
                self.damage(location(at), error.to_string());
            }
            progress(u64::from(pages.end) * PAGE_BYTES);
        }
        Ok(())
    }
}

fn missing(log: &Log, at: &Tail) -> StorageError {
    let what = format!("commit record {} is missing", at.tid.next());
    StorageError::Corrupted { place: log_path(log.chain().last), what }
}

/// Whether two extents share pages and do not mean the same by them.
///
/// Joined and cut extents share units with the extents they came from.
fn disagree(a: &Extent, b: &Extent) -> bool {
    let shared_end = a.place().page + u64::from(a.stored_pages());
    if a.place().file != b.place().file || b.place().page >= shared_end {
        return false;
    }
    let shared = PageRange::new(
        b.place().page,
        shared_end.min(b.place().page + u64::from(b.stored_pages())),
    );
    let units = |extent: &Extent| -> Vec<(u64, u64, u32)> {
        let first = extent.place().page;
        let within = |page: u64| u32::try_from(page - first).unwrap_or(u32::MAX);
        // Not all units: many short extents may lie over one with many units.
        let units = extent.units_of(within(shared.start)..within(shared.end));
        let unit = |unit: u32| {
            let pages = extent.stored_unit(unit);
            let sum = extent.sums()[unit as usize];
            (first + u64::from(pages.start), first + u64::from(pages.end), sum)
        };
        units.map(unit).collect()
    };
    units(a) != units(b)
}

/// The first thing in which two states differ, if any. Extents may be joined differently.
fn difference(a: &State, b: &State) -> Result<Option<String>, StorageError> {
    if a.tid != b.tid || a.time_ns != b.time_ns {
        return Ok(Some("the commit".to_owned()));
    }
    if a.catalog != b.catalog {
        return Ok(Some("the catalog".to_owned()));
    }
    if a.space != b.space {
        return Ok(Some("the space in use".to_owned()));
    }
    let arrays: BTreeSet<_> = a.page_maps().chain(b.page_maps()).map(|(array, _)| array).collect();
    for array in arrays {
        let (a, b) = (a.page_map(array).stored()?, b.page_map(array).stored()?);
        if let Some(page) = first_difference(&a, &b) {
            return Ok(Some(format!("page {page} of array {array}")));
        }
    }
    Ok(None)
}

/// The first page whose content two lists of segments say differently.
fn first_difference(a: &[Segment], b: &[Segment]) -> Option<u64> {
    let (mut a, mut b) = (a.iter(), b.iter());
    let (mut left, mut right) = (a.next().cloned(), b.next().cloned());
    loop {
        let (Some(x), Some(y)) = (&left, &right) else {
            return left.or(right).map(|segment| segment.pages.start);
        };
        let start = x.pages.start;
        if start != y.pages.start || lies(x) != lies(y) {
            return Some(start.min(y.pages.start));
        }
        let common = PageRange::new(start, x.pages.end.min(y.pages.end));
        let (unit_x, unit_y) = (units_of(x, common), units_of(y, common));
        if unit_x != unit_y {
            return Some(start);
        }
        let rest = |segment: &Segment| segment.clipped(PageRange::new(common.end, u64::MAX));
        let (rest_x, rest_y) = (rest(x), rest(y));
        left = rest_x.or_else(|| a.next().cloned());
        right = rest_y.or_else(|| b.next().cloned());
    }
}

/// Where the content of the first page is found: of which extent, if it must be decoded.
fn lies(segment: &Segment) -> Option<(Place, Option<(u32, u32)>)> {
    let Source::Extent { extent, skip } = &segment.source else { return None };
    let place = segment.source.place().unwrap_or(extent.place());
    Some((place, extent.is_encoded().then_some((extent.units_word(), *skip))))
}

/// First page in the file, and checksum, of the units that `pages` of a segment touch.
fn units_of(segment: &Segment, pages: PageRange) -> Vec<(u64, u32)> {
    let Some((extent, clipped)) = segment.source.extent().zip(segment.clipped(pages)) else {
        return Vec::new();
    };
    let Source::Extent { skip, .. } = clipped.source else { return Vec::new() };
    let count = u32::try_from(pages.count()).unwrap_or(u32::MAX);
    let units = extent.units_of(skip..skip.saturating_add(count));
    let unit = |unit: u32| {
        let at = extent.place().page + u64::from(extent.stored_unit(unit).start);
        (at, extent.sums()[unit as usize])
    };
    units.map(unit).collect()
}
