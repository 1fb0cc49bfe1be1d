//! Checking a whole store: every value, the chain of records, and that all bytes that are named are
//! there.
//!
//! ```text
//! every value of every tree  ->  the records from the oldest commit on  ->  every extent they name
//! ```
//!
//! # Failure
//!
//! Damage goes into the report, and the check goes on where it can.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SledEngine;
use super::trees::{NAMES, Name, key_of};
use super::{blocks, history, recovery};
use crate::storage::StorageError;
use crate::storage::check::{Damage, Report};
use crate::storage::codec;
use crate::storage::engine::{BlobStore, CommitLog, check_content, unit_sum};
use crate::storage::extent::{Extent, Place};
use crate::storage::state::State;
use crate::units::{PAGE_BYTES, Tid};

struct Check<'a> {
    engine: &'a SledEngine,
    report: Report,
    // By place, pages and pages of a unit.
    extents: BTreeMap<(Place, u32, u32), Arc<Extent>>,
}

/// See [`Engine::check`](crate::storage::engine::Engine::check).
pub(super) fn check(
    engine: &SledEngine,
    data: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, StorageError> {
    let mut check = Check { engine, report: Report::default(), extents: BTreeMap::new() };
    for name in NAMES.into_iter().filter(|name| data || *name != Name::Blocks) {
        let values = engine.trees.each(name, &mut |_, value| check.note(value.map(drop)));
        check.note(values)?;
    }
    let history = check.history();
    check.note(history)?;
    check.all_extents(data, progress)?;
    Ok(check.report)
}

impl Check<'_> {
    /// Takes damage into the report; other errors end the check.
    fn note(&mut self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        let damage = match result {
            Ok(()) => return Ok(()),
            Err(StorageError::Corrupted { place, what }) => Damage { place, what },
            Err(StorageError::Engine { engine, path, what }) => {
                Damage { place: path, what: format!("{engine} failed: {what}") }
            }
            Err(StorageError::Checksum { place, pages, expected, sum }) => {
                let what = format!("{pages} pages have checksum {sum:08x}, not {expected:08x}");
                Damage { place, what }
            }
            Err(other) => return Err(other),
        };
        // A value that several walks meet is damaged once.
        if !self.report.damage.contains(&damage) {
            self.report.damage.push(damage);
        }
        Ok(())
    }

    /// Goes through all kept commits, and compares the stored states with them.
    fn history(&mut self) -> Result<(), StorageError> {
        let trees = &self.engine.trees;
        let (oldest, head) = (self.engine.oldest(), self.engine.tail.lock().tid);
        let first = history::first_sum(&self.engine.uuid());
        let base = recovery::load(trees, oldest, first, oldest)?;
        let (mut state, mut last) = (base.state, base.sum);
        self.collect(&state)?;
        let stored: Vec<u64> = trees.ids(Name::States)?.into_iter().map(|(id, _)| id).collect();
        while state.tid < head {
            let tid = state.tid.next();
            let (records, sum) = history::records(trees, state.tid, Some(last), tid)?;
            last = sum.unwrap_or_default();
            for record in records {
                state = state.apply(&record)?;
                let sources = record.data.iter().map(|change| &change.segment.source);
                let extents: Vec<_> = sources.filter_map(|it| it.extent().cloned()).collect();
                extents.into_iter().for_each(|extent| self.add(extent));
                self.report.records += 1;
            }
            if stored.contains(&tid.0) {
                let compared = self.compare(&state);
                self.note(compared)?;
            }
        }
        self.report.arrays = state.catalog.arrays().count() as u64;
        Ok(())
    }

    fn compare(&self, state: &State) -> Result<(), StorageError> {
        let Some(stored) = history::get_state(&self.engine.trees, state.tid)? else {
            return Ok(());
        };
        let same = stored.state.time_ns == state.time_ns
            && codec::encode_state(&stored.state)? == codec::encode_state(state)?;
        let Tid(tid) = state.tid;
        match same {
            true => Ok(()),
            false => Err(StorageError::Corrupted {
                place: format!("{} tree states at {tid}", self.engine.trees.location()),
                what: "the checkpoint differs from the records".to_owned(),
            }),
        }
    }

    fn collect(&mut self, state: &State) -> Result<(), StorageError> {
        for (_, pages) in state.page_maps() {
            for segment in pages.stored()? {
                segment.source.extent().cloned().into_iter().for_each(|extent| self.add(extent));
            }
        }
        Ok(())
    }

    fn add(&mut self, extent: Arc<Extent>) {
        let key = (extent.place(), extent.pages(), extent.units_word());
        self.extents.entry(key).or_insert(extent);
    }

    fn all_extents(
        &mut self,
        data: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), StorageError> {
        let extents: Vec<Arc<Extent>> = self.extents.values().cloned().collect();
        self.report.extents = extents.len() as u64;
        let bytes = |extent: &Extent| u64::from(extent.stored_pages()) * PAGE_BYTES;
        let all_bytes = extents.iter().map(|extent| bytes(extent)).sum();
        let mut done = 0;
        for extent in &extents {
            match data {
                true => self.sums(extent, &mut |part| progress(done + part, all_bytes))?,
                false => {
                    let covered = self.covered(extent);
                    self.note(covered)?;
                }
            }
            done += bytes(extent);
        }
        Ok(())
    }

    fn covered(&self, extent: &Extent) -> Result<(), StorageError> {
        let start = extent.place().page;
        let end = start + u64::from(extent.stored_pages());
        match blocks::first_missing(&self.engine.trees, start, end)? {
            None => Ok(()),
            Some(page) => {
                let what = "the bytes of this page are missing";
                Err(self.engine.trees.damaged(Name::Blocks, &key_of(page), what))
            }
        }
    }

    fn sums(&mut self, extent: &Extent, progress: &mut dyn FnMut(u64)) -> Result<(), StorageError> {
        for (unit, &expected) in (0u32..).zip(extent.sums()) {
            let pages = extent.stored_unit(unit);
            let found = unit_sum(self.engine, extent, unit, &mut |_, _| {});
            let compared = found.and_then(|sum| match sum == expected {
                true => check_content(self.engine, extent),
                false => {
                    let place = extent.place().after(u64::from(pages.start));
                    let (place, pages) = (self.engine.describe(place), pages.len() as u64);
                    Err(StorageError::Checksum { place, pages, expected, sum })
                }
            });
            self.note(compared)?;
            self.report.data_bytes += pages.len() as u64 * PAGE_BYTES;
            progress(u64::from(pages.end) * PAGE_BYTES);
        }
        Ok(())
    }
}
