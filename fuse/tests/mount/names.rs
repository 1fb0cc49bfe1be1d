//! Names: what of POSIX holds for them, as a list of facts.
//!
//! The assertions are those of pjdfstest that apply to files and directories which have neither
//! links nor owners of their own; that suite itself cannot run here, since its files are not
//! arrays. Different from POSIX, on purpose: modes and owners cannot be set (EPERM), there are no
//! links, pipes or sockets (EPERM), and only `*.npy` can be created (EINVAL).

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Output;

use crate::support::{Mounted, Scene, as_nobody, can_mount, elements, errno, eventually, npy};

fn scene() -> Option<(Scene, Mounted)> {
    if !can_mount() {
        return None;
    }
    let scene = Scene::new();
    let store = scene.store();
    scene.put(&store, "a", &[3], b"abc");
    scene.put(&store, "g/b", &[3], b"def");
    let mounted = scene.mount(&["--rw"]);
    Some((scene, mounted))
}

#[test]
fn directories_are_made_and_removed() {
    let Some((_scene, mounted)) = scene() else { return };
    let at = |name: &str| mounted.head(name);
    fs::create_dir(at("new")).unwrap();
    assert!(fs::metadata(at("new")).unwrap().is_dir());
    assert_eq!(errno(fs::create_dir(at("new"))), libc::EEXIST);
    assert_eq!(errno(fs::create_dir(at("x/y"))), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(at("a.npy/y"))), libc::ENOTDIR);
    assert_eq!(errno(fs::create_dir(at("x.npy"))), libc::EINVAL);
    assert_eq!(errno(fs::create_dir(at(&"n".repeat(256)))), libc::ENAMETOOLONG);
    fs::create_dir(at("new/inner")).unwrap();
    assert_eq!(errno(fs::remove_dir(at("new"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::remove_dir(at("a.npy"))), libc::ENOTDIR);
    assert_eq!(errno(fs::remove_dir(at("missing"))), libc::ENOENT);
    assert_eq!(errno(fs::remove_dir(at("new/inner/."))), libc::EINVAL);
    fs::remove_dir(at("new/inner")).unwrap();
    fs::remove_dir(at("new")).unwrap();
    assert_eq!(errno(fs::metadata(at("new"))), libc::ENOENT);
}

#[test]
fn files_are_removed() {
    let Some((_scene, mounted)) = scene() else { return };
    assert_eq!(errno(fs::remove_file(mounted.head("missing.npy"))), libc::ENOENT);
    assert_eq!(errno(fs::remove_file(mounted.head("g"))), libc::EISDIR);
    assert_eq!(errno(fs::remove_file(mounted.head("a.json"))), libc::EACCES);
    fs::remove_file(mounted.head("a.npy")).unwrap();
    assert_eq!(errno(fs::metadata(mounted.head("a.npy"))), libc::ENOENT);
    for name in ["a.json", "a.zarr"] {
        eventually("what else it was called goes", || fs::metadata(mounted.head(name)).is_err());
    }
    let listed = fs::read_dir(mounted.path.join("head")).unwrap().count();
    assert_eq!(listed, 2, "g and g.zarr");
}

#[test]
fn files_and_directories_are_renamed() {
    let Some((_scene, mounted)) = scene() else { return };
    let at = |name: &str| mounted.head(name);
    let file = File::open(at("a.npy")).unwrap();
    fs::rename(at("a.npy"), at("g/c.npy")).unwrap();
    assert!(elements(&at("g/c.npy")) == b"abc");
    assert_eq!(errno(fs::metadata(at("a.npy"))), libc::ENOENT);
    assert_eq!(file.metadata().unwrap().ino(), fs::metadata(at("g/c.npy")).unwrap().ino());
    fs::rename(at("g/c.npy"), at("g/b.npy")).unwrap();
    assert!(elements(&at("g/b.npy")) == b"abc", "what was there is replaced");
    fs::rename(at("g"), at("h")).unwrap();
    assert!(elements(&at("h/b.npy")) == b"abc");
    fs::create_dir(at("empty")).unwrap();
    fs::rename(at("h"), at("empty")).unwrap();
    assert!(elements(&at("empty/b.npy")) == b"abc");
    fs::create_dir(at("k")).unwrap();
    assert_eq!(errno(fs::rename(at("k"), at("empty"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(at("empty"), at("empty/x"))), libc::EINVAL);
    assert_eq!(errno(fs::rename(at("empty/b.npy"), at("b.txt"))), libc::EINVAL);
    assert_eq!(errno(fs::rename(at("empty/b.npy"), at("k"))), libc::EISDIR);
    assert_eq!(errno(fs::rename(at("k"), at("empty/b.npy"))), libc::ENOTDIR);
    assert_eq!(errno(fs::rename(at("missing.npy"), at("x.npy"))), libc::ENOENT);
}

#[test]
fn open_says_what_cannot_be_opened() {
    let Some((_scene, mounted)) = scene() else { return };
    let at = |name: &str| mounted.head(name);
    let write = |name: &str| File::options().write(true).open(at(name));
    let create = |name: &str| File::options().write(true).create_new(true).open(at(name));
    assert_eq!(errno(create("a.npy")), libc::EEXIST);
    assert_eq!(errno(write("missing.npy")), libc::ENOENT);
    assert_eq!(errno(write("g")), libc::EISDIR);
    assert_eq!(errno(write("a.npy/x")), libc::ENOTDIR);
    assert_eq!(errno(create("missing/x.npy")), libc::ENOENT);
    let frozen = mounted.path.join("at/1/a.npy");
    let refused = errno(File::options().write(true).open(frozen));
    assert!([libc::EACCES, libc::EROFS].contains(&refused), "{refused}");
}

#[test]
fn modes_owners_and_links_are_refused_and_times_are_those_of_commits() {
    let Some((_scene, mounted)) = scene() else { return };
    let path = mounted.head("a.npy");
    assert_eq!(errno(fs::set_permissions(&path, PermissionsExt::from_mode(0o777))), libc::EPERM);
    assert_eq!(errno(chown(&path, Some(77), None)), libc::EPERM);
    assert_eq!(errno(symlink("a.npy", mounted.head("l.npy"))), libc::EPERM);
    assert_eq!(errno(fs::hard_link(&path, mounted.head("l.npy"))), libc::EPERM);
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, npy("u1", &[3], b"xyz")).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!(after.modified().unwrap() > before.modified().unwrap());
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
}

/// Runs a command on a path as nobody.
fn tried_by_nobody(words: &[&str], path: &Path) -> Output {
    as_nobody(Path::new(words[0])).args(&words[1..]).arg(path).output().unwrap()
}

#[test]
fn other_users_come_in_only_if_they_are_let_in_and_then_only_read() {
    if !can_mount() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("not run: only root can act as another user");
        return;
    }
    let scene = Scene::new();
    // The way there has to be open, or nothing is tried.
    fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(scene.path("plain"), b"abc").unwrap();
    if !tried_by_nobody(&["cat"], &scene.path("plain")).status.success() {
        println!("not run: another user cannot reach the directory of temporary files");
        return;
    }
    scene.put(&scene.store(), "a", &[3], b"abc");
    for (words, lets_in) in [(&["--rw"][..], false), (&["--rw", "--allow-other"], true)] {
        let mounted = scene.mount(words);
        let path = mounted.head("a.npy");
        assert_eq!(tried_by_nobody(&["cat"], &path).status.success(), lets_in, "{words:?}");
        assert!(!tried_by_nobody(&["truncate", "-s", "4096"], &path).status.success());
        assert!(!tried_by_nobody(&["rm"], &path).status.success());
        assert!(!tried_by_nobody(&["mkdir"], &mounted.head("d")).status.success());
        assert!(elements(&path) == b"abc");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(&*mounted.path.to_string_lossy()));
        let line = line.unwrap();
        assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
        assert!(line.contains("default_permissions"), "{line}");
        assert_eq!(line.contains("allow_other"), lets_in, "{line}");
        drop(mounted);
        drop(program_unmounts(&scene));
    }
}

fn program_unmounts(scene: &Scene) -> Output {
    let mut command = crate::support::program();
    command.args(["--unmount", "--lazy"]).arg(scene.mount_path()).output().unwrap()
}
