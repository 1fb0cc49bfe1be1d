//! Several processes and the block cache they share: an array of encoded blocks, four times as
//! large as the cache.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::{Array1, Ix1};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use zbigarray::txn::Source;
use zbigarray::{ArrayOptions, CreateOptions, DynArray, OpenOptions, Store};

use super::scenes::{Player, lines, reply};

/// Elements of a chunk, which is a block here and a slot of the cache.
const CHUNK: u64 = 256 << 10;
const CHUNKS: u64 = 8;
const CACHE_BYTES: u64 = 4 << 20;

/// What lies at element `at`; any codec makes it shorter.
fn number(at: u64) -> u64 {
    7_000_000 + at * 5 + at % 11
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.cache_bytes_max = CACHE_BYTES;
    options
}

fn fill(store: &Store) {
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().codec("lz4+shuffle".parse().unwrap());
    let shape = [CHUNKS * CHUNK];
    let mut array = transaction.create_with::<u64, Ix1>("e", &shape, &options).unwrap();
    for chunk in 0..CHUNKS {
        let rows = chunk * CHUNK..(chunk + 1) * CHUNK;
        let index = format!("{}:{}", rows.start, rows.end);
        array.assign(index.as_str(), &Array1::from_iter(rows.map(number))).unwrap();
    }
    drop(array);
    transaction.commit().unwrap();
}

fn new_store() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    fill(&Store::create(&path, CreateOptions::default()).unwrap());
    (dir, path)
}

/// Part: says what it sees, through one view of all of it (`look`) or by calls (`read`).
pub(crate) fn looker(path: &Path, read_only: bool) {
    let mut options = options();
    options.read_only = read_only;
    let store = Store::open(path, options).unwrap();
    let transaction = store.begin_read().unwrap();
    let array = transaction.open::<u64, Ix1>("e").unwrap();
    let view = array.view().unwrap();
    reply("ready");
    for line in lines() {
        let (what, at) = line.split_once(' ').unwrap();
        let at: u64 = at.parse().unwrap();
        match what {
            "look" => reply(&view[usize::try_from(at).unwrap()].to_string()),
            "read" => {
                let whole = array.dynamic().select(&[zbigarray::Index::from(at)]).unwrap();
                match array.dynamic().ensure(&whole) {
                    Ok(()) => {
                        reply(&array.rows(at..at + 1).map_or_else(
                            |error| format!("error: {error}"),
                            |row| row[0].to_string(),
                        ))
                    }
                    Err(error) => reply(&format!("error: {error}")),
                }
            }
            _ => panic!("{line}"),
        }
    }
}

/// Part: looks at random elements for ever, at the next ones, and at all of it now and then; ends
/// at once if one is wrong. Says how many it looked at when asked.
pub(crate) fn churner(path: &Path) {
    let store = Store::open(path, options()).unwrap();
    reply("ready");
    let (asked, asks) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines() {
            drop(asked.send(line));
        }
    });
    let mut state = u64::from(std::process::id());
    let mut looked_at = 0u64;
    loop {
        let transaction = store.begin_read().unwrap();
        let array = transaction.open::<u64, Ix1>("e").unwrap();
        let view = array.view().unwrap();
        for _ in 0..20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 20) % (CHUNKS * CHUNK);
            for at in (at..at + 2 * CHUNK).step_by(1 << 17).take_while(|&at| at < CHUNKS * CHUNK) {
                let seen = view[usize::try_from(at).unwrap()];
                if seen != number(at) {
                    reply(&format!("wrong: {seen} at {at}"));
                    std::process::exit(1);
                }
                looked_at += 1;
            }
            while asks.try_recv().is_ok() {
                reply(&looked_at.to_string());
            }
        }
    }
}

/// Part: copies an array that is larger than the cache to another one by one call.
pub(crate) fn copier(path: &Path) {
    fill(&Store::create(path, CreateOptions::default()).unwrap());
    let store = Store::open(path, options()).unwrap();
    reply("ready");
    for _ in lines() {
        let transaction = store.begin().unwrap();
        let array = transaction.open::<u64, Ix1>("e").unwrap();
        let mut copy = transaction.create::<u64, Ix1>("copy", &[CHUNKS * CHUNK]).unwrap();
        let view = array.view().unwrap();
        copy.assign("...", &view).unwrap();
        drop((array, copy));
        transaction.commit().unwrap();
        let reader = store.begin_read().unwrap();
        let copy = reader.open::<u64, Ix1>("copy").unwrap();
        let is_right = copy.view().unwrap().iter().zip(0..).all(|(&it, at)| it == number(at));
        reply(if is_right { "right" } else { "wrong" });
    }
}

fn is_right(player: &mut Player, what: &str, at: u64) {
    assert_eq!(player.ask(&format!("{what} {at}")), number(at).to_string());
}

/// Makes all of block `block` unreadable where it is stored.
fn damage(path: &Path, block: usize) {
    let store = Store::open(path, OpenOptions::read_only()).unwrap();
    let reader = store.begin_read().unwrap();
    let segments = DynArray::open(&reader, "e").unwrap().segments().unwrap();
    let Source::Extent { extent, .. } = &segments[block].source else { panic!("it is stored") };
    assert!(extent.is_encoded());
    let place = extent.place();
    let file = path.join(format!("data/{:010}.dat", place.file));
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(
        &vec![0; usize::try_from(extent.stored_pages()).unwrap() * 4096],
        place.page * 4096,
    )
    .unwrap();
}

#[test]
fn what_one_process_decoded_others_need_not_read() {
    let (_dir, path) = new_store();
    let mut one = Player::start("looker", &path);
    is_right(&mut one, "look", 5 * CHUNK + 9);
    damage(&path, 5);
    let mut other = Player::start("looker", &path);
    is_right(&mut other, "look", 5 * CHUNK + 10);
    // With the last of them the copy is gone, and the file takes no room.
    drop((one, other));
    let mut third = Player::start("looker", &path);
    let refused = third.ask(&format!("read {}", 5 * CHUNK));
    assert!(refused.contains("array `e` is damaged"), "{refused}");
    is_right(&mut third, "read", 4 * CHUNK);
}

#[test]
fn processes_that_are_killed_or_stopped_at_any_moment_harm_no_other() {
    let (_dir, path) = new_store();
    let start = || Player::start("churner", &path);
    let mut steady = [start(), start()];
    let mut state = 3u64;
    for round in 0..6 {
        let mut victim = start();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_millis(5 + (state >> 58)));
        if round % 3 == 0 {
            victim.signal(Signal::SIGSTOP);
            let before: u64 = steady[0].ask("").parse().unwrap();
            let begin = Instant::now();
            while steady[0].ask("").parse::<u64>().unwrap() < before + 30 {
                assert!(begin.elapsed() < Duration::from_secs(120), "somebody is held up");
            }
            victim.signal(Signal::SIGCONT);
            assert!(victim.ask("").parse::<u64>().is_ok());
        }
        victim.kill();
    }
    for player in &mut steady {
        let said = player.ask("");
        assert!(said.parse::<u64>().unwrap() > 0, "{said}");
    }
}

#[test]
fn a_cache_file_that_is_cut_or_overwritten_shows_nobody_a_wrong_byte() {
    let (_dir, path) = new_store();
    let mut player = Player::start("looker", &path);
    let mut other = Player::start("looker", &path);
    is_right(&mut player, "look", 2 * CHUNK);
    let cache = File::options().write(true).open(path.join("cache")).unwrap();
    // What it says of its slots.
    cache.write_all_at(&vec![0xa5; (2 << 20) - 64], 64).unwrap();
    for at in [2 * CHUNK + 1, 7 * CHUNK, 2 * CHUNK + 2, 5 * CHUNK] {
        is_right(&mut other, "look", at);
    }
    cache.set_len(0).unwrap();
    let said = player.ask(&format!("read {}", 2 * CHUNK));
    let whole = number(2 * CHUNK).to_string();
    assert!(said == whole || said.starts_with("error: "), "{said}");
    for at in [3 * CHUNK, 4 * CHUNK, 5 * CHUNK, 6 * CHUNK, 7 * CHUNK] {
        is_right(&mut player, "look", at);
    }
    assert_eq!(cache.metadata().unwrap().len(), 0, "nobody makes it longer again");
}

fn is_root() -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        eprintln!("not run: this needs root");
    }
    is_root
}

/// A player that is nobody.
fn nobody(dir: &Path, part: &str, store: &Path) -> Player {
    let program = dir.join("program");
    if !program.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.uid(65534).gid(65534).current_dir("/");
    Player::of(command, part, store)
}

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn who_has_no_privilege_and_may_not_write_reads_beside_others() {
    if !is_root() {
        return;
    }
    let (dir, path) = new_store();
    open_to_all(dir.path(), 0o755);
    let mut one = Player::start("churner", &path);
    let mut other = nobody(dir.path(), "reading looker", &path);
    for at in (0..CHUNKS).chain((0..CHUNKS).rev()) {
        is_right(&mut other, "look", at * CHUNK + 3);
        is_right(&mut other, "read", at * CHUNK + 4);
    }
    assert!(one.ask("").parse::<u64>().is_ok());
}

#[test]
fn a_call_copies_more_lazy_memory_than_the_cache_holds_without_privilege() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path(), 0o777);
    let mut copier = nobody(dir.path(), "copier", &dir.path().join("s"));
    assert_eq!(copier.ask("copy"), "right");
}

/// A file system in memory with room for `mib` MiB; gone with this.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("not run: no file system can be mounted");
        }
        mounted.then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn an_array_is_read_whole_where_the_disk_has_room_for_a_few_of_its_blocks_only() {
    if !is_root() {
        return;
    }
    // Encoded the array takes 4 MiB, decoded 16.
    let Some(disk) = SmallDisk::new(12) else { return };
    let path = disk.0.path().join("s");
    fill(&Store::create(&path, CreateOptions::default()).unwrap());
    let mut options = OpenOptions::default();
    options.cache_bytes_max = 1 << 30;
    let store = Store::open(&path, options).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("e").unwrap();
    let view = array.view().unwrap();
    for round in 0..2 {
        for at in (0..CHUNKS * CHUNK).step_by(100_003) {
            assert_eq!(view[usize::try_from(at).unwrap()], number(at), "round {round}");
        }
    }
    let chunk = format!("{}:{}", 3 * CHUNK, 4 * CHUNK);
    let read = array.read(chunk.as_str()).unwrap();
    assert!(read.iter().zip(3 * CHUNK..).all(|(&it, at)| it == number(at)));
    // Not one byte is left: what was written before is used again.
    let filler = File::create(disk.0.path().join("filler")).unwrap();
    let mut end = 0;
    while filler.write_at(&[1; 4096], end).is_ok() {
        end += 4096;
    }
    for at in (0..CHUNKS * CHUNK).step_by(200_003) {
        assert_eq!(view[usize::try_from(at).unwrap()], number(at));
    }
}

/// Two and a half times what may be in memory instead.
#[test]
fn an_array_is_read_whole_where_the_disk_has_no_room_for_one_of_its_blocks() {
    const BLOCKS: u64 = 20;
    if !is_root() {
        return;
    }
    let Some(disk) = SmallDisk::new(12) else { return };
    let path = disk.0.path().join("s");
    let store = Store::create(&path, CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().codec("zstd+delta".parse().unwrap());
    let shape = [BLOCKS * CHUNK];
    let mut array = transaction.create_with::<u64, Ix1>("e", &shape, &options).unwrap();
    array.assign("...", &Array1::from_iter((0..BLOCKS * CHUNK).map(|at| at / 1000))).unwrap();
    drop(array);
    transaction.commit().unwrap();
    drop(store);
    let filler = File::create(disk.0.path().join("filler")).unwrap();
    let mut end = 0;
    while filler.write_at(&[1; 4096], end).is_ok() {
        end += 4096;
    }
    let store = Store::open(&path, OpenOptions::read_only()).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix1>("e").unwrap();
    let view = array.view().unwrap();
    for round in 0..2 {
        for at in (0..BLOCKS * CHUNK).step_by(70_001) {
            assert_eq!(view[usize::try_from(at).unwrap()], at / 1000, "round {round}");
        }
    }
    let read = array.read("...").unwrap();
    assert!(read.iter().zip(0..).all(|(&it, at)| it == at / 1000));
    let in_memory = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(in_memory.lines().filter(|line| line.contains("memfd:block")).count() <= 8);
}
