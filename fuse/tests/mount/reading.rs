//! A mounted store as it is read.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use zbigarray::array::{Header, Order};
use zbigarray::txn::CatalogChange;
use zbigarray::{DynArray, Tid};

use crate::support::{Scene, can_mount, elements, errno, eventually, noise, program};

#[test]
fn arrays_are_npy_files_whose_data_begin_at_a_page() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    let content = noise(3_000_000, 1);
    scene.put(&store, "g/a", &[3000, 1000], &content);
    scene.put_as(&store, "f", ("<f8", Order::F), &[10, 20], &content[..1600]);
    let mounted = scene.mount(&[]);
    let bytes = fs::read(mounted.head("g/a.npy")).unwrap();
    let (header, data_at) = Header::read(&mut &bytes[..]).unwrap();
    assert_eq!((header.shape(), data_at), (&[3000, 1000][..], 4096));
    assert!(bytes[4096..] == content);
    let file = File::open(mounted.head("g/a.npy")).unwrap();
    for (at, len) in [(0, 10), (4000, 200), (4096, 1), (2_000_000, 70_000), (3_004_090, 6)] {
        let mut found = vec![0; len];
        file.read_exact_at(&mut found, at as u64).unwrap();
        assert!(found == bytes[at..at + len], "{at} {len}");
    }
    assert_eq!(file.read_at(&mut [0; 8], 3_004_096).unwrap(), 0);
    assert!(elements(&mounted.head("f.npy")) == content[..1600]);
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(mounted.head("f.json")).unwrap()).unwrap();
    assert_eq!((&json["shape"], &json["order"]), (&serde_json::json!([10, 20]), &"F".into()));
}

#[test]
fn names_are_listed_as_they_are_found_and_others_do_not_exist() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    scene.put(&store, "g/h/a", &[3], b"abc");
    store.tag("v1", Tid(1)).unwrap();
    store.tag("year/v2", Tid(1)).unwrap();
    let mounted = scene.mount(&[]);
    let mut names: Vec<String> = Vec::new();
    let mut waiting = vec![mounted.path.clone()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            names.push(entry.path().strip_prefix(&mounted.path).unwrap().display().to_string());
            assert_eq!(entry.file_type().unwrap(), entry.metadata().unwrap().file_type());
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    for name in ["head/g/h/a.npy", "head/g.zarr/h/a/c/0", "at/1/g/h/a.json", ".zba/commits"] {
        assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
    }
    assert!(elements(&mounted.path.join("tags/v1/g/h/a.npy")) == b"abc");
    assert!(elements(&mounted.path.join("tags/year/v2/g/h/a.npy")) == b"abc");
    assert!(elements(&mounted.path.join("at/2100-01-01T00:00:00Z/g/h/a.npy")) == b"abc");
    for name in
        ["head/g/h/a", "head/x.npy", "at/99", "at/01", "at/x", "tags/v", "head/g/h/a.zarr/c/1"]
    {
        assert_eq!(errno(fs::metadata(mounted.path.join(name))), libc::ENOENT, "{name}");
    }
    assert_eq!(errno(fs::metadata(mounted.path.join("at/1969-01-01"))), libc::ENOENT);
    assert_eq!(errno(File::create(mounted.head("new.npy"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(mounted.head("g/h/a.npy"))), libc::EROFS);
}

#[test]
fn head_follows_commits_of_other_processes_and_at_never_changes() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    let first = scene.put(&store, "a", &[100, 100], &[1; 10_000]);
    let mounted = scene.mount(&[]);
    let (head, then) = (mounted.head("a.npy"), mounted.path.join("at/1/a.npy"));
    let open = File::open(&head).unwrap();
    assert!(elements(&head) == [1; 10_000] && elements(&then) == [1; 10_000]);
    let change = |step: &dyn Fn(&mut DynArray<'_>)| {
        let transaction = store.begin().unwrap();
        step(&mut DynArray::open(&transaction, "a").unwrap());
        let tid = transaction.commit().unwrap();
        mounted.follows(first, tid);
    };
    change(&|array| array.write_linear(5000, &[7; 10]).unwrap());
    let mut found = [0; 12];
    open.read_exact_at(&mut found, 4096 + 4999).unwrap();
    assert_eq!(found, [1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 1]);
    change(&|array| drop(array.append(&[50, 100], Order::C, &[9; 5000]).unwrap()));
    assert_eq!(open.metadata().unwrap().size(), 4096 + 15_000);
    assert!(elements(&head)[10_000..] == [9; 5000]);
    change(&|array| array.resize(&[20, 100]).unwrap());
    assert!(elements(&head).len() == 2000);
    change(&|array| array.resize(&[100, 100]).unwrap());
    let now = elements(&head);
    assert!(now[..2000] == [1; 2000] && now[2000..] == [0; 8000]);
    assert!(elements(&then) == [1; 10_000]);
}

#[test]
fn a_thousand_commits_are_seen_in_order_page_by_page_and_the_last_by_all() {
    if !can_mount() {
        return;
    }
    const PAGES: u64 = 600;
    let scene = Scene::new();
    let store = scene.store();
    let first = scene.put_as(&store, "a", ("<u8", Order::C), &[PAGES * 512], &vec![0; 4096 * 600]);
    let mounted = scene.mount(&[]);
    let (newest, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..3_u64 {
            let (newest, over, path) = (&newest, &over, mounted.head("a.npy"));
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut seen = vec![0_u64; usize::try_from(PAGES).unwrap()];
                let mut page = vec![0; 4096];
                let mut dice = reader + 1;
                while !over.load(Ordering::Acquire) {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = (dice >> 33) % PAGES;
                    file.read_exact_at(&mut page, 4096 * (at + 1)).unwrap();
                    let value = u64::from_le_bytes(page[..8].try_into().unwrap());
                    assert!(page.chunks(8).all(|word| word == &page[..8]), "page {at} is torn");
                    let last = &mut seen[usize::try_from(at).unwrap()];
                    assert!(value >= *last, "page {at} went back from {last} to {value}");
                    assert!(value <= newest.load(Ordering::Acquire), "page {at} is ahead");
                    *last = value;
                }
            });
        }
        for number in 1..=1000_u64 {
            newest.store(number, Ordering::Release);
            let transaction = store.begin().unwrap();
            let mut array = DynArray::open(&transaction, "a").unwrap();
            let page: Vec<u8> = std::iter::repeat_n(number.to_le_bytes(), 512).flatten().collect();
            for at in [number % PAGES, (number * 7) % PAGES] {
                array.write_linear(4096 * at, &page).unwrap();
            }
            drop(array);
            transaction.commit().unwrap();
        }
        over.store(true, Ordering::Release);
    });
    mounted.follows(first, store.head());
    let now = elements(&mounted.head("a.npy"));
    let snapshot = store.begin_read().unwrap();
    let array = DynArray::open(&snapshot, "a").unwrap();
    assert!(now == array.linear_bytes(0..array.nbytes()).unwrap());
    for tid in [2, 500, 1001] {
        let then = store.at(Tid(tid)).unwrap();
        let array = DynArray::open(&then, "a").unwrap();
        let path = mounted.path.join(format!("at/{tid}/a.npy"));
        assert!(elements(&path) == array.linear_bytes(0..array.nbytes()).unwrap(), "commit {tid}");
    }
}

#[test]
fn the_log_of_commits_grows_line_by_line() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    scene.put(&store, "a", &[3], b"abc");
    let mounted = scene.mount(&[]);
    let log = mounted.path.join(".zba/commits");
    let read = |count: usize| {
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), fs::metadata(&log).unwrap().len()), (count, text.len() as u64));
        lines
    };
    assert_eq!(read(1)[0]["arrays"], serde_json::json!(["a"]));
    store.tag("v1", Tid(1)).unwrap();
    assert_eq!(read(2)[1]["note"], "tag v1");
}

#[test]
fn a_damaged_block_is_an_error_with_a_reason_and_the_others_are_served() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let content = noise(6 << 20, 5);
    scene.put(&scene.store(), "a", &[6 << 20], &content);
    let data = scene.store_path().join("data");
    for file in fs::read_dir(data).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let needle = &content[(3 << 20)..(3 << 20) + 64];
        if let Some(at) = bytes.windows(64).position(|window| window == needle) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let mounted = scene.mount(&[]);
    let file = File::open(mounted.head("a.npy")).unwrap();
    let mut found = vec![0; 4096];
    file.read_exact_at(&mut found, 4096).unwrap();
    assert!(found == content[..4096]);
    assert_eq!(errno(file.read_exact_at(&mut found, 4096 + (3 << 20))), libc::EIO);
    assert!(mounted.log().contains("array `a` is damaged in block 1"), "{}", mounted.log());
    file.read_exact_at(&mut found, 4096 + (5 << 20)).unwrap();
    assert!(found == content[(5 << 20)..(5 << 20) + 4096]);
}

#[test]
fn removed_arrays_stay_readable_while_they_are_open() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    let first = scene.put(&store, "a", &[9000], &[4; 9000]);
    let mounted = scene.mount(&[]);
    let file = File::open(mounted.head("a.npy")).unwrap();
    file.read_exact_at(&mut [0; 8], 4096).unwrap();
    let transaction = store.begin().unwrap();
    transaction.change(CatalogChange::Remove { name: "a".into() }).unwrap();
    mounted.follows(first, transaction.commit().unwrap());
    let mut found = [0; 100];
    file.read_exact_at(&mut found, 4096 + 8000).unwrap();
    assert_eq!(found, [4; 100]);
    eventually("the name goes", || fs::metadata(mounted.head("a.npy")).is_err());
}

#[test]
fn a_dead_mount_says_so_and_is_healed_by_mounting_again() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    scene.put(&scene.store(), "a", &[3], b"abc");
    let mut mounted = scene.mount(&[]);
    mounted.signal(Signal::SIGKILL);
    assert!(!mounted.ended());
    assert_eq!(errno(fs::metadata(mounted.head("a.npy"))), libc::ENOTCONN);
    let again = scene.mount(&[]);
    assert!(elements(&again.head("a.npy")) == b"abc");
    assert!(scene.try_mount(&[]).is_none(), "mounted twice");
}

#[test]
fn a_signal_unmounts_and_ends_well_and_so_does_unmounting() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    scene.put(&scene.store(), "a", &[3], b"abc");
    for by_signal in [true, false] {
        let mut mounted = scene.mount(&[]);
        assert!(elements(&mounted.head("a.npy")) == b"abc");
        match by_signal {
            true => mounted.signal(Signal::SIGTERM),
            false => {
                // A process that another test is about to start may hold the file for a moment.
                let unmounted = || program().arg("--unmount").arg(&mounted.path).status().unwrap();
                let succeeds = |_| {
                    std::thread::sleep(Duration::from_millis(20));
                    unmounted().success()
                };
                assert!((0..500).any(succeeds));
            }
        }
        assert!(mounted.ended());
        assert_eq!(fs::read_dir(&mounted.path).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_work_is_said_before_anything_is_mounted() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let nowhere = scene.path("missing/log");
    assert!(scene.try_mount(&["--log-file", nowhere.to_str().unwrap()]).is_none());
    let mut command = program();
    command.args(["-f", "--ready-fd", "77"]).arg(scene.store_path()).arg(scene.mount_path());
    assert!(String::from_utf8_lossy(&command.output().unwrap().stderr).contains("descriptor 77"));
    let inside = scene.store_path().join("mnt");
    fs::create_dir(&inside).unwrap();
    let mut command = program();
    let output = command.arg("-f").arg(scene.store_path()).arg(&inside).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("lie in each other"));
    assert_eq!(fs::read_dir(scene.mount_path()).unwrap().count(), 0);
}
