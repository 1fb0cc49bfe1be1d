//! How it is served: by whom, to whom, by which calls.

use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::sendfile::sendfile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbigarray::DynArray;

use crate::support::{NOBODY, Scene, as_nobody, can_mount, elements, errno, noise, program};

#[test]
fn sendfile_and_splice_move_what_read_reads() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let content = noise(3_000_001, 8);
    scene.put(&scene.store(), "a", &[3_000_001], &content);
    let mounted = scene.mount(&["--rw"]);
    let from = File::open(mounted.head("a.npy")).unwrap();
    let to = File::create(scene.path("sent")).unwrap();
    let mut at = 4096;
    while sendfile(&to, &from, Some(&mut at), 1 << 20).unwrap() > 0 {}
    assert!(fs::read(scene.path("sent")).unwrap() == content);
    let (mut reader, mut writer) = pipe().unwrap();
    let mut found = Vec::new();
    at = 4096;
    loop {
        let moved = splice(&from, Some(&mut at), &writer, None, 1 << 16, SpliceFFlags::empty());
        let mut part = vec![0; moved.unwrap()];
        if part.is_empty() {
            break;
        }
        reader.read_exact(&mut part).unwrap();
        found.extend(part);
    }
    assert!(found == content);
    // And into a file of the mount.
    let written = File::options().write(true).open(mounted.head("a.npy")).unwrap();
    writer.write_all(&[7; 5000]).unwrap();
    at = 4096 + 100;
    let mut left = 5000;
    while left > 0 {
        let to = Some(&mut at);
        left -= splice(&reader, None, &written, to, left, SpliceFFlags::empty()).unwrap();
    }
    written.sync_all().unwrap();
    let now = elements(&mounted.head("a.npy"));
    assert!(now[..100] == content[..100] && now[100..5100] == [7; 5000]);
    assert!(now[5100..] == content[5100..]);
}

#[test]
fn the_service_manager_is_told_when_the_files_can_be_used() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    scene.put(&scene.store(), "a", &[3], b"abc");
    let path = scene.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut command = program();
    command.arg("--foreground").arg(scene.store_path()).arg(scene.mount_path());
    let mut server = command.env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let mut said = [0; 64];
    let len = socket.recv(&mut said).unwrap();
    assert_eq!(&said[..len], b"READY=1");
    assert!(elements(&scene.mount_path().join("head/a.npy")) == b"abc");
    kill(Pid::from_raw(server.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
}

/// Gives a directory and everything in it to nobody.
fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

#[test]
fn who_is_not_root_mounts_and_unmounts_and_root_stays_outside() {
    if !can_mount() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("not run: only root can act as another user");
        return;
    }
    let scene = Scene::new();
    scene.put(&scene.store(), "a", &[3], b"abc");
    fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    // The program itself may lie where nobody else comes.
    let own = scene.path("zba-mount");
    fs::copy(program().get_program(), &own).unwrap();
    fs::set_permissions(&own, PermissionsExt::from_mode(0o755)).unwrap();
    let tries = "exec 3<>/dev/fuse && command -v fusermount3 && \"$1\" --version";
    let mut can = as_nobody(Path::new("sh"));
    can.args(["-c", tries, "sh"]).arg(&own).stdout(Stdio::null());
    if !can.status().is_ok_and(|status| status.success()) {
        println!("not run: another user has no /dev/fuse, no fusermount3 or no way there");
        return;
    }
    give(&scene.store_path());
    give(&scene.mount_path());
    let mut mount = as_nobody(&own);
    mount.arg("--rw").arg(scene.store_path()).arg(scene.mount_path()).stdout(Stdio::null());
    let output = mount.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("not permitted") {
        println!("not run: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let path = scene.mount_path().join("head/a.npy");
    let read = as_nobody(Path::new("tail")).args(["-c", "3"]).arg(&path).output().unwrap();
    assert_eq!(read.stdout, b"abc", "{}", String::from_utf8_lossy(&read.stderr));
    let write = "printf xyz | dd of=\"$1\" bs=1 seek=4096 conv=notrunc,fsync status=none";
    let mut written = as_nobody(Path::new("sh"));
    assert!(written.args(["-c", write, "sh"]).arg(&path).status().unwrap().success());
    let store = scene.store();
    let snapshot = store.begin_read().unwrap();
    let array = DynArray::open(&snapshot, "a").unwrap();
    assert!(array.linear_bytes(0..3).unwrap() == b"xyz");
    assert_eq!(errno(fs::metadata(&path)), libc::EACCES, "root is another user");
    let unmounted = as_nobody(&own).args(["--unmount", "--lazy"]).arg(scene.mount_path()).output();
    let unmounted = unmounted.unwrap();
    assert!(unmounted.status.success(), "{}", String::from_utf8_lossy(&unmounted.stderr));
    assert_eq!(fs::read_dir(scene.mount_path()).unwrap().count(), 0);
}
