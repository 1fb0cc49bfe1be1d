//! Comparing stored bytes with their checksums before they are used.
//!
//! ```text
//! unit of an extent   read past the mapping -> CRC-32 -> as recorded?  -> remembered
//!                                                        no            -> array, block, byte
//! ```
//!
//! What a program reads through a view comes from the kernel and is compared with nothing. Calls
//! that copy, and commits that carry pages along, compare each unit the first time this process
//! needs it; what it wrote itself it knows.
//!
//! # Invariants
//!
//! 1. A unit is remembered by its place *and* its checksum, so that other bytes that come to lie
//!    there later are compared again.

use std::collections::HashSet;

use super::error::TransactionError;
use super::transaction::Transaction;
use crate::storage::engine::{Engine, check_unit};
use crate::storage::extent::{Extent, Place, Segment, Source};
use crate::sync::Mutex;
use crate::units::{ArrayId, PAGE_BYTES, PageRange};

/// Most units remembered: 2 TiB of blocks of 2 MiB, in about 32 MiB of memory.
const UNITS_MAX: usize = 1 << 20;

/// The units that this process found as recorded, or wrote.
#[derive(Default)]
pub(super) struct CheckedUnits(Mutex<HashSet<(Place, u32)>>);

impl CheckedUnits {
    /// Remembers the unit at `place` with checksum `sum`.
    pub(super) fn remember(&self, place: Place, sum: u32) {
        let mut units = self.0.lock();
        if units.len() >= UNITS_MAX {
            units.clear();
        }
        units.insert((place, sum));
    }

    fn contains(&self, place: Place, sum: u32) -> bool {
        self.0.lock().contains(&(place, sum))
    }

    /// Compares the units that hold `segment` with their checksums, except those remembered. On
    /// failure also the first page of the array that is concerned.
    pub(super) fn check(
        &self,
        engine: &dyn Engine,
        segment: &Segment,
    ) -> Result<(), (u64, TransactionError)> {
        each_unit(segment, |page, extent, unit| {
            let (place, sum) = unit_of(extent, unit);
            if !self.contains(place, sum) {
                compare(engine, extent, unit).map_err(|error| (page, error))?;
                self.remember(place, sum);
            }
            Ok(())
        })
    }
}

/// Calls `step` with every unit of the segment's extent and the page of the array where the part
/// of it begins that `segment` shows.
fn each_unit<E>(
    segment: &Segment,
    mut step: impl FnMut(u64, &Extent, u32) -> Result<(), E>,
) -> Result<(), E> {
    let Source::Extent { extent, skip } = &segment.source else { return Ok(()) };
    let end = skip.saturating_add(u32::try_from(segment.pages.count()).unwrap_or(u32::MAX));
    for unit in extent.units_of(*skip..end) {
        let into = extent.unit(unit).start.saturating_sub(*skip);
        step(segment.pages.start + u64::from(into), extent, unit)?;
    }
    Ok(())
}

fn unit_of(extent: &Extent, unit: u32) -> (Place, u32) {
    let start = u64::from(extent.stored_unit(unit).start);
    (extent.place().after(start), extent.sums()[unit as usize])
}

fn compare(engine: &dyn Engine, extent: &Extent, unit: u32) -> Result<(), TransactionError> {
    Ok(check_unit(engine, extent, unit)?)
}

impl Transaction {
    /// Reads the stored content of `pages` again and compares it with its checksums.
    ///
    /// Private copies are not looked at. Cost O(bytes).
    ///
    /// # Errors
    ///
    /// [`TransactionError::Data`] naming the first block that is damaged or cannot be read.
    pub fn verify(&self, id: ArrayId, pages: PageRange) -> Result<(), TransactionError> {
        for segment in self.segments(id, pages)? {
            let compared = each_unit(&segment, |page, extent, unit| {
                compare(&*self.shared.engine, extent, unit).map_err(|error| (page, error))
            });
            compared.map_err(|(page, error)| self.data_error(id, page, error))?;
        }
        Ok(())
    }

    /// Compares the stored content of `pages` with its checksums, except what this process has
    /// compared or written before; the parts of `pages` that are stored.
    ///
    /// # Errors
    ///
    /// As for [`verify`](Self::verify).
    pub(crate) fn check(
        &self,
        id: ArrayId,
        pages: PageRange,
    ) -> Result<Vec<PageRange>, TransactionError> {
        self.load(id, pages)?;
        let mut stored = Vec::new();
        for segment in self.segments(id, pages)? {
            if segment.source == Source::Hole {
                continue;
            }
            if self.is_lazy(id, segment.pages)? {
                stored.push(segment.pages);
                continue;
            }
            let checked = self.shared.checked.check(&*self.shared.engine, &segment);
            checked.map_err(|(page, error)| self.data_error(id, page, error))?;
            stored.push(segment.pages);
        }
        Ok(stored)
    }

    /// `error`, with the array and the block it concerns.
    pub(crate) fn data_error(
        &self,
        id: ArrayId,
        page: u64,
        error: TransactionError,
    ) -> TransactionError {
        let catalog = self.names();
        let Some(entry) = catalog.array_by_id(id) else { return error };
        TransactionError::Data {
            array: catalog.name_of(id).unwrap_or_default().to_string(),
            block: page * PAGE_BYTES / entry.block_bytes,
            byte: page * PAGE_BYTES,
            source: Box::new(error),
        }
    }
}
