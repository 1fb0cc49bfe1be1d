//! A mounted store as it is written: what is committed, when, and what is not.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use zbigarray::{DynArray, Tid};

use crate::support::{Mounted, Scene, can_mount, elements, errno, eventually, noise, npy};

/// A store with a byte array `a` of 100 rows of 50, mounted to write.
fn scene() -> Option<(Scene, Mounted)> {
    if !can_mount() {
        return None;
    }
    let scene = Scene::new();
    scene.put(&scene.store(), "a", &[100, 50], &[1; 5000]);
    let mounted = scene.mount(&["--rw"]);
    Some((scene, mounted))
}

fn open(mounted: &Mounted, name: &str) -> File {
    File::options().read(true).write(true).open(mounted.head(name)).unwrap()
}

#[test]
fn a_copied_file_becomes_an_array_and_is_seen_whole_or_not_at_all() {
    let Some((scene, mounted)) = scene() else { return };
    let content = noise(5_000_000, 3);
    let bytes = npy("<f4", &[1250, 1000], &content);
    let (first, second) = bytes.split_at(2_000_000);
    let mut file = File::create(mounted.head("new.npy")).unwrap();
    file.write_all(first).unwrap();
    let listed = fs::read_dir(mounted.path.join("head")).unwrap();
    assert!(listed.flatten().all(|entry| entry.file_name() != "new.npy"));
    file.write_all(second).unwrap();
    drop(file);
    assert!(elements(&mounted.head("new.npy")) == content);
    let store = scene.store();
    let snapshot = store.begin_read().unwrap();
    let array = DynArray::open(&snapshot, "new").unwrap();
    assert_eq!((&*array.shape(), array.dtype().type_string()), (&[1250, 1000][..], "<f4".into()));
    assert!(array.linear_bytes(0..5_000_000).unwrap() == content);
    assert_eq!(snapshot.base(), Tid(2), "one file is one commit");
}

#[test]
fn a_file_that_is_written_anew_replaces_the_array_also_by_another_type() {
    let Some((_scene, mounted)) = scene() else { return };
    for (dtype, shape, len) in [("u1", &[30_u64, 50][..], 1500), ("<f8", &[7, 2, 3], 336)] {
        let content = noise(len, 9);
        fs::write(mounted.head("a.npy"), npy(dtype, shape, &content)).unwrap();
        assert!(elements(&mounted.head("a.npy")) == content, "{dtype}");
    }
}

#[test]
fn what_is_written_is_seen_by_the_writer_at_once_and_by_others_after_fsync() {
    let Some((_scene, mounted)) = scene() else { return };
    let (writer, reader) = (open(&mounted, "a.npy"), File::open(mounted.head("a.npy")).unwrap());
    let read = |file: &File| {
        let mut found = [0; 4];
        file.read_exact_at(&mut found, 4096 + 70).unwrap();
        found
    };
    assert_eq!(read(&reader), [1; 4]);
    writer.write_all_at(&[5; 4], 4096 + 70).unwrap();
    assert_eq!((read(&writer), read(&reader)), ([5; 4], [1; 4]));
    writer.sync_all().unwrap();
    assert_eq!((read(&writer), read(&reader)), ([5; 4], [5; 4]));
    writer.write_all_at(&[6; 4], 4096 + 70).unwrap();
    drop(writer);
    assert_eq!(read(&reader), [6; 4]);
}

#[test]
fn the_second_of_two_writers_of_a_page_gets_estale_and_the_log_says_why() {
    let Some((_scene, mounted)) = scene() else { return };
    let (first, second) = (open(&mounted, "a.npy"), open(&mounted, "a.npy"));
    first.write_all_at(&[5; 4], 4096).unwrap();
    second.write_all_at(&[6; 4], 4096).unwrap();
    first.sync_all().unwrap();
    assert_eq!(errno(second.sync_all()), libc::ESTALE);
    assert_eq!(errno(second.write_all_at(&[6; 4], 4096)), libc::ESTALE);
    assert!(mounted.log().contains("conflict: commit 2 changed pages 0..1 of array `a`"));
    drop(second);
    assert_eq!(elements(&mounted.head("a.npy"))[..5], [5, 5, 5, 5, 1]);
    let third = open(&mounted, "a.npy");
    third.write_all_at(&[7; 4], 4096).unwrap();
    third.sync_all().unwrap();
    assert_eq!(elements(&mounted.head("a.npy"))[..4], [7; 4]);
}

#[test]
fn whole_rows_are_appended_also_by_several_at_once() {
    let Some((_scene, mounted)) = scene() else { return };
    let append = || File::options().append(true).open(mounted.head("a.npy")).unwrap();
    let (mut first, mut second) = (append(), append());
    first.write_all(&[2; 75]).unwrap();
    second.write_all(&[3; 100]).unwrap();
    first.write_all(&[2; 25]).unwrap();
    first.sync_all().unwrap();
    second.sync_all().unwrap();
    let now = elements(&mounted.head("a.npy"));
    assert!(now[..5000] == [1; 5000] && now[5000..5100] == [2; 100] && now[5100..] == [3; 100]);
    drop((first, second));
    let mut third = append();
    third.write_all(&[4; 60]).unwrap();
    assert_eq!(errno(third.sync_all()), libc::EINVAL);
    assert!(mounted.log().contains("10 bytes are left over: rows of `a` have 50 bytes"));
    drop(third);
    assert!(elements(&mounted.head("a.npy")).len() == 5200);
}

#[test]
fn files_are_resized_by_whole_rows() {
    let Some((_scene, mounted)) = scene() else { return };
    let file = open(&mounted, "a.npy");
    for (rows, bytes) in [(120, 6000), (3, 150), (4, 200)] {
        file.set_len(4096 + bytes).unwrap();
        file.sync_all().unwrap();
        let now = elements(&mounted.head("a.npy"));
        assert_eq!(now.len() as u64, rows * 50);
        assert_eq!(file.metadata().unwrap().size(), 4096 + bytes);
    }
    assert!(elements(&mounted.head("a.npy"))[150..] == [0; 50]);
    for size in [4096 + 51, 4095, 1] {
        let file = open(&mounted, "a.npy");
        assert_eq!(errno(file.set_len(size)), libc::EINVAL, "{size}");
    }
    assert!(mounted.log().contains("1 rows of 50 bytes and a part of one"), "{}", mounted.log());
    nix::unistd::truncate(&mounted.head("a.npy"), 4096 + 100).unwrap();
    assert_eq!(elements(&mounted.head("a.npy")).len(), 100);
}

#[test]
fn half_a_file_and_bytes_that_are_no_npy_file_make_no_array() {
    let Some((_scene, mounted)) = scene() else { return };
    let bytes = npy("u1", &[1000], &[7; 1000]);
    let long = [&bytes[..], b"x"].concat();
    let cases: [(&str, &[u8]); 4] =
        [("half", &bytes[..900]), ("header", &bytes[..20]), ("text", b"hello"), ("long", &long)];
    for (name, bytes) in cases {
        let path = mounted.head(&format!("{name}.npy"));
        let mut file = File::create(&path).unwrap();
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        assert_eq!(errno(written), libc::EINVAL, "{name}");
        drop(file);
        eventually("the name goes", || fs::metadata(&path).is_err());
    }
    let header = &bytes[..128];
    fs::write(mounted.head("zeros.npy"), header).unwrap();
    assert!(elements(&mounted.head("zeros.npy")) == [0; 1000], "a header alone is zeros");
    for name in ["x.txt", "x", ".npy"] {
        assert_eq!(errno(File::create(mounted.head(name))), libc::EINVAL, "{name}");
    }
}

const WRITES: &str = "ZBA_TEST_WRITES";

/// Not a test by itself: the program that others start, which appends to a file and never closes
/// it.
#[test]
fn a_program_that_ends_with_a_file_open() {
    let Ok(path) = std::env::var(WRITES) else { return };
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(&[8; 100]).unwrap();
    std::mem::forget(file);
    println!("written");
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

/// That program, when it has written.
fn writing_program(mounted: &Mounted) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writing::a_program_that_ends_with_a_file_open", "--nocapture"]);
    command.env(WRITES, mounted.head("a.npy")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("written")));
    child
}

#[test]
fn a_killed_writer_leaves_nothing_and_one_that_ends_commits() {
    let Some((_scene, mounted)) = scene() else { return };
    let aborts = mounted.stat("aborts");
    let mut killed = writing_program(&mounted);
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually("it is given up", || mounted.stat("aborts") > aborts);
    assert_eq!(elements(&mounted.head("a.npy")).len(), 5000);
    let mut ended = writing_program(&mounted);
    drop(ended.stdin.take());
    ended.wait().unwrap();
    eventually("it is committed", || elements(&mounted.head("a.npy")).len() == 5100);
    assert!(elements(&mounted.head("a.npy"))[5000..] == [8; 100]);
}

#[test]
fn a_killed_server_keeps_what_was_committed_and_nothing_else() {
    let Some((scene, mut mounted)) = scene() else { return };
    let file = open(&mounted, "a.npy");
    file.write_all_at(&[5; 4], 4096).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&[6; 4], 4096).unwrap();
    mounted.signal(Signal::SIGKILL);
    mounted.ended();
    assert_eq!(errno(file.sync_all()), libc::ENOTCONN);
    drop(file);
    let again = scene.mount(&["--rw"]);
    assert_eq!(elements(&again.head("a.npy"))[..5], [5, 5, 5, 5, 1]);
}

#[test]
fn a_writer_of_much_uses_little_memory() {
    let Some((_scene, mounted)) = scene() else { return };
    let content = noise(1 << 20, 4);
    let mut file = File::create(mounted.head("much.npy")).unwrap();
    file.write_all(&npy("u1", &[256 << 20], &[])).unwrap();
    for _ in 0..256 {
        file.write_all(&content).unwrap();
    }
    file.sync_all().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", mounted.stat("pid"))).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // What is private to it: pages of mapped files belong to the kernel's cache.
    assert!(field("RssAnon:") < 128 << 10, "{} kB", field("RssAnon:"));
    let mut last = vec![0; 1 << 20];
    let reader = File::open(mounted.head("much.npy")).unwrap();
    reader.read_exact_at(&mut last, 4096 + (255 << 20)).unwrap();
    assert!(last == content);
}

#[test]
fn direct_reads_and_writes_are_like_others() {
    let Some((_scene, mounted)) = scene() else { return };
    let mut options = File::options();
    let direct = options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let file = direct.open(mounted.head("a.npy")).unwrap();
    file.write_all_at(&[9; 4096], 4096).unwrap();
    file.sync_all().unwrap();
    let reader =
        File::options().read(true).custom_flags(libc::O_DIRECT).open(mounted.head("a.npy"));
    let mut found = vec![0; 4096];
    reader.unwrap().read_exact_at(&mut found, 4096).unwrap();
    assert!(found == [9; 4096]);
}

#[test]
fn the_zarr_view_is_for_reading_and_the_log_says_what_to_write() {
    let Some((_scene, mounted)) = scene() else { return };
    // As Zarr libraries replace a chunk: a file beside it, or in its place.
    for name in ["a.zarr/c/0/0.partial", "a.zarr/c/0/0", "a.zarr/zarr.json"] {
        assert_eq!(errno(File::create(mounted.head(name))), libc::EACCES, "{name}");
    }
    assert_eq!(errno(fs::remove_file(mounted.head("a.zarr/c/0/0"))), libc::EACCES);
    assert_eq!(errno(fs::create_dir(mounted.head("a.zarr/c/9"))), libc::EACCES);
    if nix::unistd::geteuid().is_root() {
        // Who is not root is refused by the kernel, which asks nobody.
        let why = "the Zarr view is for reading: write the .npy file of the array";
        assert!(mounted.log().contains(why), "{}", mounted.log());
    }
    assert!(elements(&mounted.head("a.npy")) == [1; 5000]);
}
