//! Which of the changes that were not durable a crash leaves: image 0, 1, 2 ... of a crash point.
//!
//! ```text
//! image   0 none   2 all   4, 6 ... every other subset, once     while there are few changes
//!         1, 3, 5 ...                writes torn in sectors, by dice
//! ```

use zbigarray::storage::backend::simulated::{Change, CrashPoint, Simulated, Survival};

use crate::dice::Dice;

/// All subsets of at most so many changes are tried.
const ALL_SUBSETS_MAX: u32 = 12;

/// Number of images after which every subset of whole changes has been tried; `None` if there are
/// too many.
pub(crate) fn exhausted_after(point: &CrashPoint) -> Option<u64> {
    let undecided = u32::try_from(point.undecided().count()).unwrap();
    (undecided <= ALL_SUBSETS_MAX).then(|| 2 << undecided)
}

/// Whether a crash at `point` may leave different bytes, or names that were changed just now.
pub(crate) fn is_telling(point: &CrashPoint) -> bool {
    let now = point.number();
    point.undecided().any(|(number, change)| match change {
        Change::Write { .. } | Change::SetLen { .. } | Change::Punch { .. } => true,
        _ => number + 4 > now,
    })
}

/// Image number `number` of the crash at `point`, and whether a write was torn.
pub(crate) fn image(point: &CrashPoint, number: u64, dice: &mut Dice) -> (Simulated, bool) {
    let count = point.undecided().count();
    let subset = exhausted_after(point)
        .filter(|&end| number.is_multiple_of(2) && number < end)
        .map(|end| subset(number / 2, end / 2));
    if let Some(mut kept) = subset {
        let image = Simulated::after(point, |_, _| {
            let survival = if kept & 1 == 1 { Survival::Kept } else { Survival::Dropped };
            kept >>= 1;
            survival
        });
        return (image, false);
    }
    let odd_one_out = dice.index(count.max(1));
    let mode = dice.below(6);
    let (mut nth, mut is_torn) = (0, false);
    let image = Simulated::after(point, |_, change| {
        let is_odd = nth == odd_one_out;
        nth += 1;
        let survival = match mode {
            0 if is_odd => Survival::Dropped,
            1 if !is_odd => Survival::Dropped,
            0 | 1 => torn_or_kept(change, dice, is_odd),
            2 => torn_or_kept(change, dice, true),
            _ => match dice.below(4) {
                0 => Survival::Dropped,
                1 => Survival::Kept,
                _ => torn_or_kept(change, dice, true),
            },
        };
        is_torn |= matches!(survival, Survival::Torn(_));
        survival
    });
    (image, is_torn)
}

/// Number `n` of the subsets of a set with `count` subsets: none, all, then the others.
fn subset(n: u64, count: u64) -> u64 {
    let others = count - 2;
    match n {
        0 => 0,
        1 => count - 1,
        _ => {
            // A stride without a common factor visits each of them once.
            let stride = (1..).map(|n| others * 5 / 13 + n).find(|&n| gcd(n, others) == 1).unwrap();
            1 + (n - 2) * stride % others
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn torn_or_kept(change: &Change, dice: &mut Dice, torn: bool) -> Survival {
    let sectors = change.sectors();
    if !torn || sectors == 0 {
        return if torn && dice.once_in(2) { Survival::Dropped } else { Survival::Kept };
    }
    let at = dice.index(sectors);
    let kept: Vec<bool> = match dice.below(5) {
        0 => (0..sectors).map(|sector| sector < at).collect(),
        1 => (0..sectors).map(|sector| sector >= at).collect(),
        2 => (0..sectors).map(|sector| sector != at).collect(),
        // Whole pages: the page cache writes them in any order.
        3 => {
            let pages = dice.next();
            (0..sectors).map(|sector| pages >> (sector / 8 % 64) & 1 == 1).collect()
        }
        _ => (0..sectors).map(|_| dice.once_in(2)).collect(),
    };
    Survival::Torn(kept)
}

/// Whether every subset of small sets is visited once; run with the self-tests of the rig.
pub(crate) fn every_subset_is_visited_once() -> Result<(), String> {
    for bits in 1..=ALL_SUBSETS_MAX {
        let count = 1 << bits;
        let mut seen: Vec<u64> = (0..count).map(|n| subset(n, count)).collect();
        seen.sort_unstable();
        if seen != (0..count).collect::<Vec<_>>() {
            return Err(format!("subsets of {bits} changes are visited twice or not at all"));
        }
    }
    Ok(())
}
