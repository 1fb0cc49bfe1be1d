//! Damages one place of a whole store and sees whether opening or checking notices.
//!
//! What a disk may do besides failing: bits change, and sectors that were durable are zeros. In
//! the last record, and in those that waited for one sync with it, zeros cannot be told from a
//! write that was torn.

use zbigarray::storage::backend::simulated::{Simulated, Survival};
use zbigarray::storage::backend::{Access, Backend};
use zbigarray::storage::engine::Engine;
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::storage::state::State;
use zbigarray::units::PAGE_BYTES;

use crate::dice::Dice;
use crate::program::backend;
use crate::story::Phase;
use crate::version::compare;

const SECTOR_BYTES: u64 = 512;

/// Damages a copy of `disk`, on which `opened` is open.
pub(crate) fn is_noticed(
    disk: &Simulated,
    (engine, head): (&LocalEngine, &State),
    phase: &Phase,
    options: &LocalOptions,
    dice: &mut Dice,
) -> Result<(), String> {
    let copy = disk.crash_image(disk.changes_count(), |_, _| Survival::Kept).unwrap();
    let Some((path, at)) = place(&copy, head, dice) else { return Ok(()) };
    let file = copy.open(&path, Access::Write).unwrap();
    let sector = at - at % SECTOR_BYTES;
    let mut bytes = vec![0; SECTOR_BYTES as usize];
    let len = file.read_at(&mut bytes, sector).unwrap();
    bytes.truncate(len);
    let zeros = dice.once_in(2);
    let before = bytes.clone();
    if zeros {
        bytes.fill(0);
    } else {
        bytes[(at - sector) as usize] ^= 1 << dice.below(8);
    }
    let is_blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if bytes == before || (!zeros && is_blank(&bytes)) {
        return Ok(());
    }
    file.write_at(&[&bytes], sector).unwrap();
    let Ok((again, found)) = LocalEngine::open(&backend(&copy), Mode::ReadWrite, options) else {
        return Ok(());
    };
    let report = again.check(true, &mut |_, _| {}).map_err(|error| format!("check: {error}"))?;
    if !report.damage.is_empty() {
        return Ok(());
    }
    let was = usize::try_from(head.tid.0).unwrap();
    if zeros && path.starts_with("log/") && found.tid.0.saturating_add(phase.group) >= head.tid.0 {
        return compare(&again, &found, &phase.versions[usize::try_from(found.tid.0).unwrap()]);
    }
    let what = if zeros { "zeros in the sector of" } else { "a flipped bit in" };
    let of = engine.format().uuid;
    Err(format!("{what} byte {at} of {path} went unnoticed, commit {} of {was} ({of})", found.tid))
}

/// A byte that means something.
fn place(disk: &Simulated, head: &State, dice: &mut Dice) -> Option<(String, u64)> {
    let inside = |path: String, dice: &mut Dice| {
        let len = disk.open(&path, Access::Read).unwrap().len().unwrap();
        (len > 0).then(|| (path, dice.below(len)))
    };
    let any = |directory: &str, dice: &mut Dice| {
        let names = disk.list(directory).unwrap();
        let name = names.get(dice.index(names.len().max(1)))?;
        inside(format!("{directory}/{name}"), dice)
    };
    match dice.below(8) {
        0 => inside("format.json".to_owned(), dice),
        1 => any("checkpoint", dice),
        2 | 3 => {
            let ranges: Vec<_> = head.space.iter().collect();
            let (place, pages) = *ranges.get(dice.index(ranges.len().max(1)))?;
            let at = place.page * PAGE_BYTES + dice.below(pages * PAGE_BYTES);
            Some((format!("data/{:010}.dat", place.file), at))
        }
        // The first bytes of a page are the head of a record more often than others.
        4 | 5 => any("log", dice).map(|(path, at)| (path, at - at % PAGE_BYTES + dice.below(64))),
        _ => any("log", dice),
    }
}
