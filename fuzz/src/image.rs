//! A small store as bytes: made once, copied, changed, sealed again and put on a simulated disk.
//!
//! ```text
//! plain         names, attributes, inline pages, extents, a fill value, a tag
//! checkpointed  the same, a checkpoint in the middle of its log
//! packed        a log that begins with a whole state
//! rolled        a log of several files
//! everything    all of this in one, for trying every bit
//! ```
//!
//! # Invariants
//!
//! 1. All images belong to the store [`door::STORE`], so that only times differ from run to run.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ndarray::{Array2, Ix1, Ix2};
use zbigarray::storage::backend::simulated::Simulated;
use zbigarray::storage::backend::{Access, Backend};
use zbigarray::storage::local::door::{self, ChainAt};
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::txn::CatalogChange;
use zbigarray::{ArrayOptions, Keep, Order, Store, Tid};

/// Sizes so small that few commits reach every kind of file.
#[must_use]
pub(crate) fn options() -> LocalOptions {
    LocalOptions {
        block_bytes: 64 << 10,
        log_roll_bytes: 40 << 10,
        data_file_pages: 64,
        checkpoint_bytes_min: 1 << 30,
        ..LocalOptions::default()
    }
}

/// A file: its bytes without the zeros at its end, and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// The length, of which what lies beyond the bytes is a hole.
    pub(crate) len: u64,
}

/// The files of a store by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Path in the store -> content.
    pub(crate) files: BTreeMap<String, Content>,
}

const DIRECTORIES: [&str; 3] = ["checkpoint", "data", "log"];

impl Image {
    /// What is on a disk.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub(crate) fn of(disk: &Simulated) -> Self {
        let mut files = BTreeMap::new();
        for directory in DIRECTORIES.into_iter().chain([""]) {
            for name in disk.list(directory).expect("the directories of a store are there") {
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                let Ok(file) = disk.open(&path, Access::Read) else { continue };
                let len = file.len().expect("a memory file has a length");
                let mut bytes = vec![0; usize::try_from(len).expect("test files are short")];
                file.read_at(&mut bytes, 0).expect("a memory file is read");
                if path.starts_with("data/") {
                    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
                    bytes.truncate(end);
                }
                files.insert(path, Content { bytes, len });
            }
        }
        Self { files }
    }

    /// A disk with these files and nothing else.
    ///
    /// # Panics
    ///
    /// If there is no memory for it.
    #[must_use]
    pub(crate) fn disk(&self) -> Simulated {
        let disk = Simulated::new().expect("there is memory");
        for directory in DIRECTORIES {
            disk.create_dir(directory).expect("the disk is empty");
        }
        for (path, content) in &self.files {
            let file = disk.create(path).expect("paths differ");
            file.set_len(content.len).expect("a length that fits a file");
            file.write_at(&[&content.bytes], 0).expect("there is memory");
            file.sync_data().expect("a disk in memory is synced");
        }
        for directory in DIRECTORIES.into_iter().chain([""]) {
            disk.sync_dir(directory).expect("a disk in memory is synced");
        }
        disk
    }

    /// Puts all checksums right, and with `chain` what records and checkpoints say of the record
    /// before them.
    pub(crate) fn seal(&mut self, chain: bool) {
        let mut tails: Vec<ChainAt> = Vec::new();
        for (path, content) in &mut self.files {
            let bytes = &mut content.bytes;
            if let Some(number) = numbered(path, "log/", ".log") {
                let begins = bytes.get(32..36) == Some(&number.to_le_bytes());
                if let (Some(last), false, true) = (tails.last(), begins, bytes.len() > 48) {
                    bytes[44..48].copy_from_slice(&last.value.to_le_bytes());
                }
                tails.extend(door::seal_log(bytes, number, chain));
            }
        }
        for (path, content) in &mut self.files {
            if path.starts_with("checkpoint/") {
                door::seal_checkpoint(&mut content.bytes, &tails);
            }
            if path == "format.json" {
                door::seal_format(&mut content.bytes);
                content.len = content.bytes.len() as u64;
            }
        }
    }
}

fn numbered(path: &str, before: &str, after: &str) -> Option<u32> {
    path.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

/// The images, made once.
#[must_use]
pub(crate) fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let mut images: Vec<Image> = [0, 1, 2, 3].map(|kind| Image::of(&made(kind))).into();
        for image in &mut images {
            image.seal(true);
            let disk: Arc<dyn Backend> = Arc::new(image.disk());
            let store = Store::open_on(&disk, Mode::ReadWrite, &options());
            let store = store.expect("a store opens although it got another identity");
            let report = store.check(true, &mut |_, _| {}).expect("it can be checked");
            assert_eq!(report.damage, [], "it is whole");
        }
        images
    })
}

/// One image with everything that a store can have, and so small that each of its bits can be
/// tried: a packed log that begins with a whole state, was rolled, and has inline pages and extents
/// in its records; names, attributes, a tag, a checkpoint, and free pages.
///
/// # Panics
///
/// If something of this is missing.
#[must_use]
pub(crate) fn everything() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let options = LocalOptions { data_file_pages: 16, log_roll_bytes: 16 << 10, ..options() };
        let disk = Simulated::new().expect("there is memory");
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        LocalEngine::create(&backend, &options).expect("the disk is empty");
        let store = Store::open_on(&backend, Mode::ReadWrite, &options).expect("it was made");
        plain(&store).expect("a store is filled");
        more(&store, 1).expect("a store goes on");
        store.pack(Keep::From(Tid(4))).expect("a store is packed");
        more(&store, 2).expect("a store goes on");
        drop(store);
        let image = Image::of(&disk);
        let lens = image.files.iter().map(|(path, content)| (path, content.len));
        let count = |prefix| image.files.keys().filter(|path| path.starts_with(prefix)).count();
        let is_all = count("log/") > 1 && count("data/") > 0 && count("checkpoint/") == 1;
        assert!(is_all, "{:?}", lens.collect::<Vec<_>>());
        image
    })
}

/// Fills a disk with a store of this kind.
fn made(kind: usize) -> Simulated {
    let disk = Simulated::new().expect("there is memory");
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    LocalEngine::create(&backend, &options()).expect("the disk is empty");
    let store = Store::open_on(&backend, Mode::ReadWrite, &options()).expect("it was made");
    plain(&store).expect("a store is filled");
    match kind {
        0 => filled(&store).expect("a store goes on"),
        1 => {
            more(&store, 4).expect("a store goes on");
            store.checkpoint().expect("a checkpoint is written");
            more(&store, 2).expect("a store goes on");
        }
        2 => {
            more(&store, 2).expect("a store goes on");
            store.pack(Keep::From(Tid(3))).expect("a store is packed");
            more(&store, 2).expect("a store goes on");
        }
        _ => more(&store, 9).expect("a store goes on"),
    }
    disk
}

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Three commits: what is small lies in records, what is larger in a data file.
fn plain(store: &Store) -> Result {
    let transaction = store.begin()?;
    let mut small = transaction.create::<u8, Ix1>("small", &[5000])?;
    small.set("4000:", 7)?;
    small.dynamic_mut().set_attribute("unit", &serde_json::json!({"name": "mV", "n": [1, 2]}))?;
    drop(small);
    transaction.commit_with_note("first")?;

    let transaction = store.begin()?;
    let rows = Array2::from_shape_fn((60, 40), |(i, j)| i as f64 - j as f64 / 3.0);
    let mut grid = transaction.create::<f64, Ix2>("group/grid", &[0, 40])?;
    grid.append(&rows)?;
    // What is staged lies in a data file, however little it is.
    grid.dynamic_mut().stage()?;
    drop(grid);
    transaction.commit_with_note("rows")?;

    let transaction = store.begin()?;
    let mut grid = transaction.open::<f64, Ix2>("group/grid")?;
    grid.append(&rows)?;
    grid.dynamic_mut().stage()?;
    grid.set("7, 7", 1.0)?;
    drop(grid);
    transaction.change(CatalogChange::CreateGroup { name: "empty/group".into() })?;
    transaction.commit()?;
    store.tag("v1", Tid(2))?;
    Ok(())
}

/// An array with a fill value. Opening it makes the pattern anew, so only one image has it.
fn filled(store: &Store) -> Result {
    let transaction = store.begin()?;
    let options = ArrayOptions::new().order(Order::F).fill(&f64::NAN.to_le_bytes());
    let mut filled = transaction.create_with::<f64, Ix2>("group/filled", &[3, 400], &options)?;
    filled.set("1, 20:", 2.5)?;
    drop(filled);
    transaction.commit()?;
    Ok(())
}

/// `rounds` more commits of one or two pages.
fn more(store: &Store, rounds: u64) -> Result {
    for round in 0..rounds {
        let transaction = store.begin()?;
        let mut small = transaction.open::<u8, Ix1>("small")?;
        // A sector with one bit set.
        small.set(&[zbigarray::Index::from(round % 7 * 512)], 1)?;
        drop(small);
        let mut grid = transaction.open::<f64, Ix2>("group/grid")?;
        grid.set(&[zbigarray::Index::from(round * 7), 3.into()], -1.0)?;
        drop(grid);
        transaction.commit_with_note(&format!("round {round}"))?;
    }
    Ok(())
}
