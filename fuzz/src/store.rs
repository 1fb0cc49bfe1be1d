//! Whole stores: files of a small store are changed, sealed again, and the store is used.
//!
//! ```text
//! byte 0    which image, what is sealed, what is done
//! then 8 bytes for each change:   file | kind | where, 3 bytes | what, 3 bytes
//! ```
//!
//! # Invariants
//!
//! 1. A store in which nothing is damaged has no damage after a commit or a pack either.

use std::sync::Arc;

use ndarray::IxDyn;
use zbigarray::storage::backend::Backend;
use zbigarray::storage::local::Mode;
use zbigarray::{DynArray, Index, Keep, Order, Store, Tid, Transaction};

use super::image::{self, Content, Image};
use super::mutate::EXTREMES;

/// Elements are read as far as they have no more bytes than this.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Arrays looked at.
const ARRAYS_MAX: usize = 8;

/// Changes a store as `script` says, and uses it.
pub(crate) fn run(script: &[u8]) {
    let packs = script.first().is_some_and(|flags| flags & 16 != 0);
    let disk: Arc<dyn Backend> = Arc::new(changed(script).disk());
    exercise(&disk, packs);
}

/// The store that a script makes.
pub(crate) fn changed(script: &[u8]) -> Image {
    let Some((&flags, changes)) = script.split_first() else { return image::images()[0].clone() };
    let images = image::images();
    let mut image = images[usize::from(flags & 3)].clone();
    for change in changes.chunks_exact(8).take(16) {
        apply(&mut image, change);
    }
    if flags & 4 == 0 {
        image.seal(flags & 8 == 0);
    }
    image
}

/// Makes one change of a file.
fn apply(image: &mut Image, change: &[u8]) {
    let [file, kind, where_0, where_1, where_2, what_0, what_1, what_2] = change else { return };
    let paths: Vec<String> = image.files.keys().cloned().collect();
    let Some(path) = paths.get(usize::from(*file) % paths.len().max(1)) else { return };
    let place = usize::from(*where_0) | usize::from(*where_1) << 8 | usize::from(*where_2) << 16;
    let what = u64::from(*what_0) | u64::from(*what_1) << 8 | u64::from(*what_2) << 16;
    let Some(content) = image.files.get_mut(path) else { return };
    let at = place_in(content, place);
    match kind % 12 {
        width @ 0..=3 => write(content, at, &extreme(what).to_le_bytes()[..1 << width]),
        width @ 4..=7 => write(content, at, &what.to_le_bytes()[..1 << (width - 4)]),
        8 => write(content, at, &[content.bytes.get(at).map_or(0, |b| b ^ (1 << (what % 8)))]),
        9 => {
            let from = place_in(content, usize::try_from(what).unwrap_or(0));
            let piece: Vec<u8> = content.bytes.iter().copied().skip(from).take(48).collect();
            write(content, at, &piece);
        }
        10 => {
            content.len = extreme(what).min(content.len * 2);
            content.bytes.truncate(usize::try_from(content.len).unwrap_or(usize::MAX));
            if !path.starts_with("data/") {
                content.bytes.resize(usize::try_from(content.len).unwrap_or(0), 0);
            }
        }
        _ => rename(image, path, what),
    }
}

fn extreme(what: u64) -> u64 {
    EXTREMES[usize::try_from(what).unwrap_or(0) % EXTREMES.len()]
}

/// A byte of the file: any, or for large numbers one of those that are not zero.
fn place_in(content: &Content, place: usize) -> usize {
    let len = content.bytes.len().max(1);
    if place < 1 << 18 {
        return place % len;
    }
    let full: Vec<usize> = (0..content.bytes.len()).filter(|&at| content.bytes[at] != 0).collect();
    full.get(place % full.len().max(1)).copied().unwrap_or(0)
}

fn write(content: &mut Content, at: usize, bytes: &[u8]) {
    let end = content.bytes.len().min(at + bytes.len());
    let at = at.min(end);
    content.bytes[at..end].copy_from_slice(&bytes[..end - at]);
}

/// Removes a file, or puts another one under its name.
fn rename(image: &mut Image, path: &str, what: u64) {
    let directory = path.split_once('/').map_or("", |(directory, _)| directory);
    let to = match (directory, what % 4) {
        (_, 0) => {
            image.files.remove(path);
            return;
        }
        ("log", n) => format!("log/{n:010}.log"),
        ("data", n) => format!("data/{n:010}.dat"),
        ("checkpoint", n) => format!("checkpoint/{:020}", n + 3),
        _ => return,
    };
    if let Some(content) = image.files.get(path).cloned() {
        image.files.insert(to, content);
    }
}

/// Opens the store and does with it what programs do.
pub(crate) fn exercise(disk: &Arc<dyn Backend>, packs: bool) {
    let Ok(store) = opened(disk, Mode::ReadWrite) else { return };
    look(&store);
    let is_whole = checked(&store);
    let changed = change(&store);
    let still_whole = checked(&store);
    assert!(!is_whole || still_whole, "a commit damaged the store: {changed:?}");
    if packs {
        let packed = store.pack(Keep::Head).map(|_| ()).map_err(|error| error.to_string());
        assert!(!is_whole || checked(&store), "a pack damaged the store: {packed:?}");
        look(&store);
    }
    let head = store.head();
    drop(store);
    // A reader looks again and again at a damaged log, which a writer may be writing.
    let again = opened(disk, if is_whole { Mode::ReadOnly } else { Mode::ReadWrite });
    match again {
        Ok(store) => {
            assert!(!is_whole || store.head() == head, "reopening lost commits");
            look(&store);
            assert!(!is_whole || checked(&store), "reopening found damage");
        }
        Err(error) => assert!(!is_whole, "a whole store does not open again: {error}"),
    }
}

fn opened(disk: &Arc<dyn Backend>, mode: Mode) -> Result<Store, String> {
    Store::open_on(disk, mode, &image::options()).map_err(|error| error.to_string())
}

/// Whether a check of everything finds no damage.
fn checked(store: &Store) -> bool {
    let _ = store.check(false, &mut |_, _| {});
    match store.check(true, &mut |_, _| {}) {
        Ok(report) => {
            let lines: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
            lines.iter().all(|line| line.is_empty()) && report.damage.is_empty()
        }
        Err(error) => error.to_string().is_empty(),
    }
}

/// Reads history, names and elements.
fn look(store: &Store) {
    let (oldest, head) = (store.oldest(), store.head());
    let _ = store.usage();
    let _ = store.records(oldest, head);
    let _ = store.newest_at(1 << 60);
    let _ = store.begin_undo(head, |_| 0).map(|_| ());
    elements(&store.begin_read().unwrap());
    for tid in [oldest, Tid(head.0.saturating_sub(1)), Tid(head.0 / 2), Tid(u64::MAX)] {
        if let Ok(transaction) = store.at(tid) {
            elements(&transaction);
        }
    }
}

fn names(transaction: &Transaction) -> Vec<String> {
    let catalog = transaction.catalog();
    let arrays = catalog.names().filter(|(name, _)| catalog.array(name).is_some());
    arrays.map(|(name, _)| name.to_string()).take(ARRAYS_MAX).collect()
}

fn elements(transaction: &Transaction) {
    for name in names(transaction) {
        let Ok(array) = DynArray::open(transaction, &name) else { continue };
        let _ = (array.attributes(), array.strides(), array.size(), array.len());
        let _ = array.segments();
        for corner in [Index::At(0), Index::At(-1)] {
            let corner = vec![corner; array.ndim()];
            let Ok(selection) = array.select(&corner) else { continue };
            let _ = array.verify(&selection);
            read(&array, &selection);
        }
        if array.nbytes() <= READ_BYTES_MAX
            && let Ok(selection) = array.select(&[])
        {
            let _ = array.verify(&selection);
            array.will_need(&selection);
            read(&array, &selection);
        }
        drop(array);
        if let Ok(array) = transaction.open::<u8, IxDyn>(&name)
            && let Ok(view) = array.view()
        {
            let _ = (view.first(), view.last());
        }
        if let Ok(array) = transaction.open::<f64, IxDyn>(&name)
            && let Ok(view) = array.view()
        {
            let _ = (view.first(), view.last());
        }
    }
}

fn read(array: &DynArray<'_>, selection: &zbigarray::array::Selection) {
    if selection.nbytes() <= READ_BYTES_MAX {
        let len = usize::try_from(selection.nbytes()).unwrap_or(0);
        let _ = array.read(selection, Order::C, &mut vec![0; len]);
    }
}

/// One commit that changes elements, lengths, attributes and names.
fn change(store: &Store) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let mut transaction = store.begin().map_err(|error| said(&error))?;
    for name in names(&transaction) {
        let Ok(mut array) = DynArray::open(&transaction, &name) else { continue };
        let len = usize::try_from(array.itemsize().min(READ_BYTES_MAX)).unwrap_or(0);
        for corner in [Index::At(0), Index::At(-1)] {
            let corner = vec![corner; array.ndim()];
            if let Ok(selection) = array.select(&corner) {
                let _ = array.write(&selection, Order::C, &vec![1; len]);
            }
        }
        let _ = array.set_attribute("seen", &serde_json::json!(true));
        grow(&mut array);
    }
    let savepoint = transaction.savepoint();
    let _ = transaction.create::<u8, IxDyn>("new/array", &[5000]).map(|mut array| {
        let _ = array.set("17", 1);
        let _ = array.dynamic_mut().stage();
    });
    if let Ok(savepoint) = savepoint
        && store.head().0.is_multiple_of(2)
    {
        let _ = transaction.rollback(savepoint);
    }
    transaction.commit_with_note("changed").map(|_| ()).map_err(|error| said(&error))
}

/// Gives an array a row more, and takes one away again.
fn grow(array: &mut DynArray<'_>) {
    let before = array.shape().to_vec();
    let Some(axis) = zbigarray::array::shape::major_axis(before.len(), array.order()) else {
        return;
    };
    let mut rows = before.clone();
    rows[axis] = 1;
    let bytes = zbigarray::array::shape::nbytes(&rows, array.itemsize()).unwrap_or(u64::MAX);
    if bytes <= READ_BYTES_MAX {
        let row = vec![3; usize::try_from(bytes).unwrap_or(0)];
        let _ = array.append(&rows, Order::C, &row);
    }
    let mut shorter = before.clone();
    shorter[axis] = shorter[axis].saturating_sub(1);
    let _ = array.resize(&shorter);
    let mut longer = before;
    longer[axis] = longer[axis].saturating_add(1 << 20);
    let _ = array.resize(&longer);
}
