//! How long until the first element of a store that was closed?
//!
//! Workloads: an empty store (opened, a transaction begun, the catalog looked at); one of 10,000
//! arrays, each with an element, made by one commit; one array of 1 TiB in blocks of 2 MiB that
//! were written in random order, so that its index has 524,288 entries that cannot be joined
//! (quick: 64 GiB). The data files of the last are sparse: they have their length and no content,
//! because the index is what counts. Opened for writing. Seed: 23. Warm. Limit: reading and
//! checking metadata. Expected: 1 ms, 5 ms, 20 ms.

mod harness;
mod machine;
mod plain;
mod sparse;
mod stores;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use harness::{Bar, limit, seconds, sized};
use ndarray::Ix1;
use plain::{BLOCK_BYTES, BLOCK_LEN, Numbers, Outcome};
use sparse::Sparse;
use zbigarray::storage::backend::Backend;
use zbigarray::storage::engine::{Allocation, BlobStore, CommitLog, Engine};
use zbigarray::storage::extent::{Extent, Source};
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::storage::record::{Draft, DraftChange, DraftSource};
use zbigarray::units::{ArrayId, PAGE_BYTES, PageRange};
use zbigarray::{CreateOptions, Store};

const BLOCK_PAGES: u64 = BLOCK_BYTES / PAGE_BYTES;
/// Blocks named by one record while the large array is built.
const RECORD_BLOCKS: usize = 1 << 15;

fn main() -> Outcome<()> {
    let directory = machine::data_dir()?;
    let path = |name: &str| directory.path().join(name);
    let print = |name: &str, most: f64, times| {
        limit(name, "ms", Bar::AtMost(most), times).print();
    };
    drop(Store::create(path("empty"), CreateOptions::default())?);
    print("open an empty store", 2.0, repeated(|| open_empty(&path("empty")))?);
    build_many(&path("many"), 10_000)?;
    let name = name_of(7_777);
    print("open 10,000 arrays", 10.0, repeated(|| open_element(&path("many"), &name, 0))?);
    let blocks = sized(1 << 19, 1 << 15);
    build_scattered(&path("scattered"), blocks)?;
    let mut numbers = Numbers(23);
    let first = || {
        let element = numbers.below(blocks) * BLOCK_LEN;
        open_element(&path("scattered"), stores::NAME, element as u64)
    };
    print("open 1 TiB in random order", 50.0, repeated(first)?);
    Ok(())
}

fn repeated(mut turn: impl FnMut() -> Outcome<f64>) -> Outcome<Vec<f64>> {
    turn()?;
    (0..sized(21, 7)).map(|_| turn()).collect()
}

fn open_empty(path: &Path) -> Outcome<f64> {
    let opened = || {
        let store = stores::reopened(path)?;
        let transaction = store.begin_read()?;
        assert!(transaction.catalog().array("nothing").is_none());
        drop(transaction);
        Outcome::Ok(store)
    };
    Ok(seconds(opened)? * 1e3)
}

fn open_element(path: &Path, name: &str, element: u64) -> Outcome<f64> {
    let opened = || {
        let store = stores::reopened(path)?;
        let transaction = store.begin_read()?;
        let array = transaction.open::<f64, Ix1>(name)?;
        black_box(array.rows(element..element + 1)?[0]);
        drop(array);
        drop(transaction);
        Outcome::Ok(store)
    };
    Ok(seconds(opened)? * 1e3)
}

fn name_of(number: usize) -> String {
    format!("group{}/array{}", number / 100, number % 100)
}

fn build_many(path: &Path, count: usize) -> Outcome<()> {
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    for number in 0..count {
        let mut array = transaction.create::<f64, Ix1>(&name_of(number), &[100])?;
        array.view_mut()?[0] = number as f64 + 1.0;
    }
    transaction.commit()?;
    Ok(())
}

/// Builds the array of `blocks` blocks through the storage layer: no data is written.
fn build_scattered(path: &Path, blocks: usize) -> Outcome<()> {
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    let array = transaction.create::<f64, Ix1>(stores::NAME, &[(blocks * BLOCK_LEN) as u64])?;
    drop(array);
    transaction.commit()?;
    let entry = store.catalog().array(stores::NAME).cloned().ok_or("the array was created")?;
    drop(store);
    let backend: Arc<dyn Backend> = Arc::new(Sparse::new(path));
    let options = LocalOptions::default();
    let (engine, mut state) = LocalEngine::open(&backend, Mode::ReadWrite, &options)?;
    for some in Numbers(23).permutation(blocks).chunks(RECORD_BLOCKS) {
        let data = some.iter().map(|&block| fresh_block(&engine, entry.id, block as u64));
        let mut data = data.collect::<Outcome<Vec<_>>>()?;
        data.sort_by_key(|change| change.pages.start);
        let (tid, base) = (state.tid.next(), state.tid);
        let (time_ns, note, catalog) = (state.time_ns, Arc::from(""), Vec::new());
        let record = engine.append(&Draft { tid, base, time_ns, note, catalog, data })?;
        engine.settle(record.tid)?;
        state = state.apply(&record)?;
    }
    engine.checkpoint(&state)?;
    Ok(())
}

fn fresh_block(engine: &LocalEngine, array: ArrayId, block: u64) -> Outcome<DraftChange<'static>> {
    let pages = u32::try_from(BLOCK_PAGES)?;
    let wish = Allocation { pages, align_pages: pages, phase_pages: 0, near: None };
    let place = engine.allocate(&wish)?;
    let extent = Extent::new(place, pages, pages, Box::new([0])).ok_or("the extent is whole")?;
    let pages = PageRange::at(block * BLOCK_PAGES, BLOCK_PAGES);
    let source = DraftSource::Stored(Source::whole(extent));
    Ok(DraftChange { array, pages, source, carried: false })
}
