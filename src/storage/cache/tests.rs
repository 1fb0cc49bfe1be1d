//! Caches in one directory, each with an open file of its own: to each other they are as other
//! processes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;
use crate::storage::backend::{Directory, Files};
use crate::sync::process::AtomicU64 as Count;
use crate::sync::thread;

const STORE: [u8; 16] = [3; 16];
const SLOT_PAGES: u64 = 4;
const SLOT: usize = 4 * 4096;
const SLOTS: u64 = 6;

fn files(dir: &TempDir) -> Files {
    Files::new(Arc::new(Directory::new(dir.path())), true)
}

fn no_forks() -> u64 {
    0
}

fn cache_with(dir: &TempDir, slots: u64, forks: fn() -> u64) -> Arc<BlockCache> {
    let layout = Layout::new(slots * SLOT as u64, SLOT_PAGES);
    let file = CacheFile::shared(&files(dir), &STORE, layout).unwrap();
    let process = Process { forks, keep_from_children: |_| Box::new(()) };
    BlockCache::over(file, process, forks())
}

fn cache(dir: &TempDir) -> Arc<BlockCache> {
    cache_with(dir, SLOTS, no_forks)
}

fn name(of: u64) -> Name {
    Name::of(&[of])
}

fn content(of: u64) -> Vec<u8> {
    (0..SLOT as u64).map(|at| (at.wrapping_mul(of * 2 + 1) >> 3).to_le_bytes()[0]).collect()
}

fn small(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn parts() -> Vec<Range<u64>> {
    std::iter::once(0..SLOT as u64).collect()
}

fn fill(cache: &Arc<BlockCache>, of: u64) -> Option<SlotInUse> {
    let mut slot = cache.take(false)?;
    slot.write(0, &content(of)).unwrap();
    Some(slot.filled(Some(name(of))).unwrap())
}

fn get(cache: &Arc<BlockCache>, of: u64) -> Option<SlotInUse> {
    cache.get(name(of), &parts())
}

/// What is mapped of it.
fn shown(slot: &SlotInUse) -> Vec<u8> {
    let mut bytes = vec![0; SLOT];
    let ExtentFile { file, offset_bytes } = slot.file();
    File::from(file.try_clone().unwrap()).read_exact_at(&mut bytes, offset_bytes).unwrap();
    bytes
}

fn path(dir: &TempDir) -> std::path::PathBuf {
    dir.path().join("cache")
}

fn raw(dir: &TempDir) -> File {
    File::options().read(true).write(true).open(path(dir)).unwrap()
}

#[test]
fn what_one_process_filled_another_finds_and_shows_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    assert!(one.is_shared() && other.is_shared());
    let filled = fill(&one, 1).unwrap();
    let found = get(&other, 1).unwrap();
    assert_eq!(found.file().offset_bytes, filled.file().offset_bytes);
    assert_eq!(shown(&found), content(1));
    assert!(get(&other, 2).is_none());
    drop((filled, found));
    // Idle, it is still there for both.
    assert!(get(&one, 1).is_some() && get(&other, 1).is_some());
}

#[test]
fn a_slot_that_any_process_shows_is_never_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    let shown_by_one: Vec<SlotInUse> = (0..3).map(|of| fill(&one, of).unwrap()).collect();
    let shown_by_other: Vec<SlotInUse> = (3..SLOTS).map(|of| fill(&other, of).unwrap()).collect();
    assert!(fill(&one, 100).is_none() && fill(&other, 100).is_none());
    let both = get(&other, 1).unwrap();
    drop(shown_by_one);
    // Two are free, and the third is shown by the other process.
    let more = [fill(&other, 101).unwrap(), fill(&one, 102).unwrap()];
    assert!(fill(&one, 103).is_none());
    assert_eq!(shown(&both), content(1));
    shown_by_other.iter().zip(3..).for_each(|(slot, of)| assert_eq!(shown(slot), content(of)));
    drop(more);
}

#[test]
fn nobody_finds_a_slot_before_it_is_filled_or_after_it_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    drop(fill(&one, 1).unwrap());
    // All slots are taken, that of 1 too.
    let mut taken: Vec<Filling> = (0..SLOTS).map(|_| one.take(false).unwrap()).collect();
    taken.iter_mut().for_each(|slot| slot.write(0, &content(2)).unwrap());
    assert!(get(&other, 1).is_none() && get(&one, 1).is_none() && get(&other, 2).is_none());
    assert!(other.take(false).is_none());
    drop(taken);
    assert!(get(&other, 1).is_none() && get(&one, 1).is_none() && get(&other, 2).is_none());
    assert!(fill(&other, 3).is_some());
}

#[test]
fn two_that_fill_for_the_same_name_both_have_it_and_others_find_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    let mut fillings = [one.take(false).unwrap(), other.take(false).unwrap()];
    fillings.iter_mut().for_each(|slot| slot.write(0, &content(5)).unwrap());
    let filled = fillings.map(|slot| slot.filled(Some(name(5))).unwrap());
    assert_ne!(filled[0].file().offset_bytes, filled[1].file().offset_bytes);
    filled.iter().for_each(|slot| assert_eq!(shown(slot), content(5)));
    assert_eq!(shown(&get(&one, 5).unwrap()), content(5));
}

#[test]
fn bytes_that_somebody_else_wrote_into_a_slot_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    let at = fill(&one, 1).unwrap().file().offset_bytes;
    for byte in [0, 77, SLOT as u64 - 1] {
        raw(&dir).write_all_at(&[content(1)[small(byte)] ^ 4], at + byte).unwrap();
        assert!(get(&other, 1).is_none(), "byte {byte}");
        // It was said to hold nothing then.
        assert!(get(&one, 1).is_none(), "byte {byte}");
        assert_eq!(fill(&one, 1).unwrap().file().offset_bytes, at);
        assert_eq!(shown(&get(&other, 1).unwrap()), content(1));
        // Other bytes than those that were compared are compared again.
        drop(fill(&one, 2));
        raw(&dir).write_all_at(&[0; 32], one.layout.entry_at(0)).unwrap();
        drop(fill(&one, 1).unwrap());
    }
}

#[test]
fn any_bytes_in_the_table_lead_to_what_is_right_or_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    (0..SLOTS).for_each(|of| drop(fill(&one, of).unwrap()));
    let end = one.layout.slot_at(0);
    let mut front = vec![0; usize::try_from(one.layout.entry_at(SLOTS)).unwrap()];
    raw(&dir).read_exact_at(&mut front, 0).unwrap();
    let mut state = 9u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    for round in 0..150 {
        let mut bytes = front.clone();
        for _ in 0..1 + round % 9 {
            let (from, to) = (small(random()) % bytes.len(), small(random()) % bytes.len());
            let len = (small(random()) % 80).min(bytes.len() - from.max(to));
            match round % 3 {
                0 => bytes[from] = random().to_le_bytes()[0],
                1 => bytes.copy_within(from..from + len, to),
                _ => bytes[from..from + len].fill(random().to_le_bytes()[0]),
            }
        }
        raw(&dir).write_all_at(&bytes, 0).unwrap();
        for of in 0..SLOTS {
            for cache in [&one, &other] {
                if let Some(slot) = get(cache, of) {
                    assert_eq!(shown(&slot), content(of), "round {round}");
                    assert!(slot.file().offset_bytes >= end);
                }
            }
        }
        if let Some(slot) = fill(&other, 100 + round) {
            assert_eq!(shown(&slot), content(100 + round));
        }
        raw(&dir).write_all_at(&front, 0).unwrap();
        (0..SLOTS).for_each(|of| drop(fill(&one, of).unwrap()));
    }
}

#[test]
fn a_file_that_is_cut_is_used_no_more_and_never_looks_whole_again() {
    for len in [0, 100, 4096, 1 << 20, (2 << 20) + SLOT as u64] {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (cache(&dir), cache(&dir));
        (0..SLOTS).for_each(|of| drop(fill(&one, of).unwrap()));
        let mut filling = other.take(false).unwrap();
        raw(&dir).set_len(len).unwrap();
        assert!(filling.write(0, &content(9)).is_err());
        assert!(other.is_broken());
        drop(filling);
        assert!((0..SLOTS).all(|of| get(&one, of).is_none() && get(&other, of).is_none()));
        assert!(one.take(false).is_none_or(|mut slot| slot.write(0, &content(9)).is_err()));
        assert!(one.is_broken());
        assert!(raw(&dir).metadata().unwrap().len() <= len.max(1));
        // Who comes now cannot share it and works alone; who comes later begins anew.
        let third = cache(&dir);
        assert!(!third.is_shared() && fill(&third, 1).is_some());
        drop((one, other, third));
        let next = cache(&dir);
        assert!(next.is_shared() && get(&next, 1).is_none() && fill(&next, 1).is_some());
    }
}

#[test]
fn the_last_user_empties_the_file_and_what_an_earlier_one_left_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (cache(&dir), cache(&dir));
    drop(fill(&one, 1).unwrap());
    drop(one);
    assert!(get(&other, 1).is_some());
    let len = other.layout.len_bytes();
    let mut left = vec![0; usize::try_from(len).unwrap()];
    raw(&dir).read_exact_at(&mut left, 0).unwrap();
    drop(other);
    assert_eq!(std::fs::metadata(path(&dir)).unwrap().len(), 0);
    // As it lies there after a power cut, or after everybody was killed.
    std::fs::write(path(&dir), &left).unwrap();
    assert!(get(&cache(&dir), 1).is_none());
}

#[test]
fn a_file_of_another_store_or_of_other_slots_or_behind_a_shut_gate_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(&dir);
    let other_layout = Layout::new(1 << 20, 2 * SLOT_PAGES);
    assert!(!CacheFile::shared(&files(&dir), &STORE, other_layout).unwrap().is_shared());
    assert!(!CacheFile::shared(&files(&dir), &[4; 16], one.layout).unwrap().is_shared());
    let other = cache_with(&dir, 100, no_forks);
    assert_eq!(other.layout.count(), SLOTS, "it is as large as the first of them said");
    let gate = files(&dir).open("cache", crate::storage::backend::Access::Write).unwrap();
    assert!(gate.try_lock(1 << 40, ByteLock::Exclusive).unwrap());
    let third = cache(&dir);
    assert!(!third.is_shared() && fill(&third, 1).is_some());
    // Nor does anybody wait for it to give something back.
    drop((one, other, third));
    assert!(gate.len().unwrap() > 0);
}

#[test]
fn a_link_or_a_directory_in_place_of_the_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    std::fs::write(&target, b"somebody's").unwrap();
    std::os::unix::fs::symlink(&target, path(&dir)).unwrap();
    let linked = cache(&dir);
    assert!(!linked.is_shared() && fill(&linked, 1).is_some());
    assert_eq!(std::fs::read(&target).unwrap(), b"somebody's");
    std::fs::remove_file(path(&dir)).unwrap();
    std::fs::create_dir(path(&dir)).unwrap();
    assert!(fill(&cache(&dir), 1).is_some());
}

#[test]
fn what_a_child_of_fork_may_show_is_never_filled_again() {
    static FORKS: Count = Count::new(0);
    let dir = tempfile::tempdir().unwrap();
    let forks = || FORKS.load(Ordering::SeqCst);
    let (one, other) = (cache_with(&dir, SLOTS, forks), cache(&dir));
    let (before, idle) = (fill(&one, 1).unwrap(), fill(&one, 2).unwrap());
    let at = before.file().offset_bytes;
    drop(idle);
    FORKS.fetch_add(1, Ordering::SeqCst);
    assert!(one.is_forked());
    // The child shows it still.
    let held_by_child = before.file().file;
    drop(before);
    drop(one);
    let mut held = Vec::new();
    while let Some(slot) = fill(&other, 50 + held.len() as u64) {
        assert_ne!(slot.file().offset_bytes, at);
        held.push(slot);
    }
    assert_eq!(held.len() as u64, SLOTS - 1);
    // The child is gone.
    drop(held_by_child);
    assert_eq!(fill(&other, 7).unwrap().file().offset_bytes, at);
}

#[test]
fn the_slot_that_was_not_used_for_longest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(&dir);
    for of in 0..SLOTS {
        drop(fill(&one, of).unwrap());
        thread::sleep(std::time::Duration::from_millis(3));
    }
    drop(get(&one, 0).unwrap());
    thread::sleep(std::time::Duration::from_millis(3));
    drop(fill(&one, 100).unwrap());
    assert!(get(&one, 1).is_none(), "it was the oldest");
    assert!([0, 2, 3, 4, 5, 100].iter().all(|&of| get(&one, of).is_some()));
}

#[test]
fn slots_that_were_written_before_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(&dir);
    assert!(one.take(true).is_none());
    let at = fill(&one, 1).unwrap().file().offset_bytes;
    let again = one.take(true).unwrap();
    assert_eq!(again.slot.file().offset_bytes, at);
    assert!(one.take(true).is_none());
}

#[test]
fn whatever_several_processes_and_threads_do_everybody_sees_what_he_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [cache(&dir), cache(&dir), cache(&dir)];
    thread::scope(|scope| {
        for seed in 0..6u64 {
            let cache = &caches[small(seed) % 3];
            scope.spawn(move || {
                let mut state = seed;
                let mut random = |below: u64| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                    (state >> 33) % below
                };
                let mut held: Vec<(u64, SlotInUse)> = Vec::new();
                for _ in 0..1500 {
                    let of = random(10);
                    match get(cache, of).or_else(|| fill(cache, of)) {
                        Some(slot) => held.push((of, slot)),
                        None => held.clear(),
                    }
                    held.iter().for_each(|(of, slot)| assert_eq!(shown(slot), content(*of)));
                    while held.len() > 1 || (held.len() == 1 && random(3) == 0) {
                        held.swap_remove(small(random(held.len() as u64)));
                    }
                }
            });
        }
    });
    assert!(caches.iter().all(|cache| !cache.is_broken()));
}

/// What a process can do in one step. Filling takes three, between which it may be killed.
const MOVES: [&str; 6] = ["take", "write", "filled", "get", "let go", "die"];

/// A process: what it fills, and what it shows of which name.
struct Player {
    cache: Arc<BlockCache>,
    name: u64,
    filling: Option<Filling>,
    held: Vec<(u64, SlotInUse)>,
}

impl Player {
    fn new(dir: &TempDir, name: u64) -> Self {
        Self { cache: cache_with(dir, 2, no_forks), name, filling: None, held: Vec::new() }
    }

    fn step(&mut self, dir: &TempDir, step: &str) {
        match step {
            "take" if self.filling.is_none() => self.filling = self.cache.take(false),
            "write" => {
                let content = content(self.name);
                self.filling.iter_mut().for_each(|slot| slot.write(0, &content).unwrap());
            }
            // Only what was written is said to be there.
            "filled" => {
                if let Some(mut slot) = self.filling.take() {
                    slot.sum = crc32fast::Hasher::new();
                    slot.write(0, &content(self.name)).unwrap();
                    self.held.push((self.name, slot.filled(Some(name(self.name))).unwrap()));
                }
            }
            "get" => {
                let found = (0..2).filter_map(|of| Some((of, get(&self.cache, of)?)));
                self.held.extend(found.collect::<Vec<_>>());
            }
            "let go" => drop(self.held.pop()),
            "die" => *self = Self::new(dir, self.name),
            _ => {}
        }
    }
}

#[test]
fn whatever_order_the_steps_of_two_processes_come_in_nobody_sees_what_is_not_his() {
    let dir = tempfile::tempdir().unwrap();
    let depth = 3;
    let choices = 2 * MOVES.len();
    for number in 0..choices.pow(depth) {
        // The first has filled and shows one slot; the second is about to look.
        let mut players = [Player::new(&dir, 0), Player::new(&dir, 1)];
        ["take", "filled"].iter().for_each(|step| players[0].step(&dir, step));
        let mut rest = number;
        for _ in 0..depth {
            let (who, what) = (rest % 2, rest / 2 % MOVES.len());
            rest /= choices;
            players[who].step(&dir, MOVES[what]);
            for (of, slot) in players.iter().flat_map(|player| &player.held) {
                assert_eq!(shown(slot), content(*of), "order {number}");
            }
            let places = players.iter().flat_map(|player| {
                player.filling.iter().map(|filling| filling.slot.file().offset_bytes)
            });
            for place in places {
                let shown = players.iter().flat_map(|player| &player.held);
                assert!(shown.into_iter().all(|(_, slot)| slot.file().offset_bytes != place));
            }
        }
    }
}
