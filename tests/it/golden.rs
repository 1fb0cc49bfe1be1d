//! Stores that were written once open for ever: `tests/data/v1.zba` is one of format version 1.
//!
//! Write a new one, for a new version of the format, with
//! `ZBA_GOLDEN=tests/data/vN.zba cargo test --test it golden`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, Axis, Ix1, Ix2, concatenate};
use serde_json::json;
use zbigarray::txn::CatalogChange;
use zbigarray::{ArrayOptions, CreateOptions, Keep, OpenOptions, Order, Store, Tid};

fn grid(rows: usize) -> Array2<f64> {
    Array2::from_shape_fn((rows, 40), |(i, j)| i as f64 * 1.5 - j as f64)
}

fn write(path: &Path) {
    let mut options = CreateOptions::default();
    options.block_bytes = 64 << 10;
    let store = Store::create(path, options).unwrap();
    for round in 0..3 {
        let transaction = store.begin().unwrap();
        let mut grid_array = match round {
            0 => transaction.create::<f64, Ix2>("group/grid", &[0, 40]).unwrap(),
            _ => transaction.open::<f64, Ix2>("group/grid").unwrap(),
        };
        grid_array.append(&grid(500)).unwrap();
        grid_array.dynamic_mut().set_attribute("round", &json!(round)).unwrap();
        drop(grid_array);
        transaction.commit_with_note(&format!("round {round}")).unwrap();
    }
    store.pack(Keep::From(Tid(2))).unwrap();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().order(Order::F).fill(&7i16.to_le_bytes());
    let mut filled = transaction.create_with::<i16, Ix1>("filled", &[100_000], &options).unwrap();
    filled.set("50000", -1).unwrap();
    drop(filled);
    let (tag, tid) = (Arc::from("two rounds"), Some(Tid(2)));
    transaction.change(CatalogChange::Tag { tag, tid }).unwrap();
    transaction.commit().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_store_of_format_version_1_opens_whole() {
    if let Some(path) = std::env::var_os("ZBA_GOLDEN") {
        write(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1.zba"), &path);
    // Version control keeps no empty directories.
    for name in ["data", "log", "checkpoint"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    let store = Store::open(&path, OpenOptions::default()).unwrap();
    assert_eq!((store.oldest(), store.head()), (Tid(2), Tid(4)));
    assert_eq!(store.catalog().tag("two rounds"), Some(Tid(2)));
    let now = store.begin_read().unwrap();
    let grid_array = now.open::<f64, Ix2>("group/grid").unwrap();
    let block = grid(500);
    let all = concatenate(Axis(0), &[block.view(), block.view(), block.view()]).unwrap();
    assert_eq!(grid_array.view().unwrap(), all);
    assert_eq!(&*grid_array.dynamic().attributes()["round"], "2");
    let filled = now.open::<i16, Ix1>("filled").unwrap();
    let view = filled.view().unwrap();
    assert_eq!((view[49_999], view[50_000], view[99_999]), (7, -1, 7));
    let then = store.at(Tid(2)).unwrap();
    assert_eq!(then.open::<f64, Ix2>("group/grid").unwrap().shape(), [1000, 40]);
    assert_eq!(&*store.records(Tid(2), Tid(3)).unwrap()[0].note, "round 2");
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
}
