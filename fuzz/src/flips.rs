//! Every single bit of a small store, flipped: found, or not reachable.
//!
//! ```text
//! flip -> open fails                                        found at open
//!      -> check with data names damage                      found by check
//!      -> neither: in a page of a data file that nothing names, where nothing is to be found,
//!                  or in the words that processes share, which nobody believes
//! ```
//!
//! # Invariants
//!
//! 1. Whatever was flipped, no commit is missing, and what `verify` accepts is what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use zbigarray::storage::backend::simulated::{CrashPoint, Simulated, Survival};
use zbigarray::storage::backend::{Access, Backend};
use zbigarray::storage::local::Mode;
use zbigarray::units::PAGE_BYTES;
use zbigarray::{DynArray, Order, Store, Tid, Transaction};

use super::image::{self, Image};

/// One byte and which of its bits are flipped, one at a time.
#[derive(Clone, Debug)]
pub(crate) struct Flip {
    /// The file.
    pub(crate) path: String,
    /// The byte.
    pub(crate) at: u64,
    /// The bits.
    pub(crate) bits: u8,
}

/// What became of the flips.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The store did not open.
    pub(crate) at_open: usize,
    /// `check` named damage.
    pub(crate) by_check: usize,
    /// Nobody found it: path and page.
    pub(crate) unfound: BTreeMap<(String, u64), usize>,
}

impl Summary {
    /// Number of flips.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.at_open + self.by_check + self.unfound.values().sum::<usize>()
    }

    fn add(&mut self, other: Self) {
        self.at_open += other.at_open;
        self.by_check += other.by_check;
        for (place, count) in other.unfound {
            *self.unfound.entry(place).or_default() += count;
        }
    }
}

/// Of a long run it is told how far it is, every so many bytes.
const TOLD_EVERY: usize = 20_000;

/// What a store says of one commit: catalog as text, and the bytes of each array.
type Contents = BTreeMap<u64, (String, BTreeMap<String, Vec<u8>>)>;

/// Flips bits of `image`, each by itself.
///
/// # Panics
///
/// If invariant 1 does not hold, or if a bit that something names is not found.
#[must_use]
pub(crate) fn run(image: &Image, flips: &[Flip]) -> Summary {
    let store = opened(&image.disk()).expect("the image is whole");
    let (expected, named) = (contents(&store), named_pages(&store));
    drop(store);
    // All of it is durable, so what a crash leaves is a copy that shares its pages.
    let disk = image.disk();
    let whole = disk.crash_point(disk.changes_count());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut summary = Summary::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(flip) = flips.get(number) else { break };
            if number > 0 && number.is_multiple_of(TOLD_EVERY) {
                eprintln!("{number} of {} bytes", flips.len());
            }
            for bit in (0..8).filter(|bit| flip.bits & (1 << bit) != 0) {
                summary.add(tried(&whole, flip, bit, &expected));
            }
        }
        summary
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut summary = Summary::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            summary.add(worker.join().expect("the message is above"));
        }
    });
    let reachable: Vec<_> = summary.unfound.keys().filter(|place| named.contains(place)).collect();
    assert!(reachable.is_empty(), "flips that nobody found: {reachable:?}");
    // Nobody believes the words that processes share: they are made anew from the log.
    let may_be = |path: &str| path.starts_with("data/") || path == "shared";
    let elsewhere: Vec<_> = summary.unfound.keys().filter(|(path, _)| !may_be(path)).collect();
    assert!(elsewhere.is_empty(), "flips that nobody found: {elsewhere:?}");
    summary
}

/// Flips one bit and looks.
fn tried(whole: &CrashPoint, flip: &Flip, bit: u32, expected: &Contents) -> Summary {
    let mut summary = Summary::default();
    let disk = Simulated::after(whole, |_, _| Survival::Kept);
    let file = disk.open(&flip.path, Access::Write).expect("the image has the file");
    let mut byte = [0];
    file.read_at(&mut byte, flip.at).expect("the byte is there");
    file.write_at(&[&[byte[0] ^ (1 << bit)]], flip.at).expect("there is memory");
    let what = format!("{} byte {} bit {bit}", flip.path, flip.at);
    let Ok(store) = opened(&disk) else {
        summary.at_open = 1;
        return summary;
    };
    let newest = expected.keys().next_back().copied().unwrap_or(0);
    assert_eq!(store.head(), Tid(newest), "{what}: commits are missing");
    let report = store.check(true, &mut |_, _| {}).expect("a store that opens can be checked");
    for (&tid, (catalog, arrays)) in expected {
        let Ok(transaction) = store.at(Tid(tid)) else { continue };
        assert_eq!(&catalog_of(&transaction), catalog, "{what}: names of commit {tid}");
        for (name, bytes) in arrays {
            if let Some(found) = verified(&transaction, name) {
                assert!(found == *bytes, "{what}: `{name}` of commit {tid} is wrong and passed");
            }
        }
    }
    match report.damage.is_empty() {
        false => summary.by_check = 1,
        true => drop(summary.unfound.insert((flip.path.clone(), flip.at / PAGE_BYTES), 1)),
    }
    summary
}

fn opened(disk: &Simulated) -> Result<Store, String> {
    let disk: Arc<dyn Backend> = Arc::new(disk.clone());
    Store::open_on(&disk, Mode::ReadWrite, &image::options()).map_err(|error| error.to_string())
}

fn catalog_of(transaction: &Transaction) -> String {
    format!("{:?} {}", transaction.catalog(), transaction.base_time_ns())
}

/// The elements of an array, if they pass their checksums.
fn verified(transaction: &Transaction, name: &str) -> Option<Vec<u8>> {
    let array = DynArray::open(transaction, name).ok()?;
    let all = array.select(&[]).ok()?;
    array.verify(&all).ok()?;
    let mut bytes = vec![0; usize::try_from(all.nbytes()).ok()?];
    array.read(&all, Order::C, &mut bytes).ok()?;
    Some(bytes)
}

fn contents(store: &Store) -> Contents {
    let mut contents = Contents::new();
    for tid in store.oldest().0..=store.head().0 {
        let transaction = store.at(Tid(tid)).expect("the commit is kept");
        let catalog = transaction.catalog();
        let names = catalog.names().filter(|(name, _)| catalog.array(name).is_some());
        let arrays = names.map(|(name, _)| {
            let bytes = verified(&transaction, name).expect("the image is whole");
            (name.to_string(), bytes)
        });
        contents.insert(tid, (catalog_of(&transaction), arrays.collect()));
    }
    contents
}

/// Number of pages of data files that no kept commit names.
///
/// # Panics
///
/// If the image is not whole.
#[must_use]
pub(crate) fn unnamed_pages_count(image: &Image) -> usize {
    let named = named_pages(&opened(&image.disk()).expect("the image is whole"));
    let data = image.files.iter().filter(|(path, _)| path.starts_with("data/"));
    let pages = data.flat_map(|(path, content)| {
        (0..content.len.div_ceil(PAGE_BYTES)).map(|page| (path.clone(), page))
    });
    pages.filter(|place| !named.contains(place)).count()
}

/// The pages of data files that any kept commit names.
fn named_pages(store: &Store) -> BTreeSet<(String, u64)> {
    let mut named = BTreeSet::new();
    for tid in store.oldest().0..=store.head().0 {
        let transaction = store.at(Tid(tid)).expect("the commit is kept");
        let catalog = transaction.catalog();
        for (name, _) in catalog.names().filter(|(name, _)| catalog.array(name).is_some()) {
            let array = DynArray::open(&transaction, name).expect("the image is whole");
            for segment in array.segments().expect("the image is whole") {
                let Some(extent) = segment.source.extent() else { continue };
                let (place, pages) = (extent.place(), u64::from(extent.pages()));
                let path = format!("data/{:010}.dat", place.file);
                named.extend((place.page..place.page + pages).map(|page| (path.clone(), page)));
            }
        }
    }
    named
}

/// All bits of all bytes of the files whose path `wanted` accepts.
#[must_use]
pub(crate) fn all(image: &Image, wanted: impl Fn(&str) -> bool) -> Vec<Flip> {
    let files = image.files.iter().filter(|(path, _)| wanted(path));
    let flips = files.flat_map(|(path, content)| {
        (0..content.len).map(|at| Flip { path: path.clone(), at, bits: 0xFF })
    });
    flips.collect()
}

/// One bit of every byte of metadata that is not zero or lies beside such a byte, and of one in
/// `step` others.
#[must_use]
pub(crate) fn sampled(image: &Image, step: usize, wanted: impl Fn(&str) -> bool) -> Vec<Flip> {
    let mut flips = all(image, wanted);
    flips.retain(|flip| {
        let at = usize::try_from(flip.at).unwrap_or(usize::MAX);
        let bytes = &image.files[&flip.path].bytes;
        let is_metadata = !flip.path.starts_with("data/");
        let around = bytes.get(at.saturating_sub(1)..bytes.len().min(at + 2));
        let says = around.is_some_and(|around| around.iter().any(|&byte| byte != 0));
        (says && is_metadata) || at.is_multiple_of(step)
    });
    for flip in &mut flips {
        let at = usize::try_from(flip.at).unwrap_or(usize::MAX);
        let byte = image.files[&flip.path].bytes.get(at).copied().unwrap_or(0);
        // What looks as if it had never been written, when its only bit is gone.
        if byte.is_power_of_two() {
            flip.bits = byte;
            continue;
        }
        flip.bits = 1 << (flip.at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61);
    }
    flips
}
