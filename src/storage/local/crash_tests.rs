//! Power cuts, failing calls and damage, each at every place where they can happen.

use super::tests::{commit, draft_of_page, healthy, small, writers};
use super::*;
use crate::storage::backend::simulated::{Change, Fault, FaultKind, Simulated, Survival};
use crate::units::PAGE_LEN;

const PAGES: u64 = 40;

fn backend(disk: &Simulated) -> Arc<dyn Backend> {
    Arc::new(disk.clone())
}

fn open(disk: &Simulated) -> Result<(LocalEngine, State), StorageError> {
    LocalEngine::open(&backend(disk), Mode::ReadWrite, &small())
}

/// What a run of commits was told, and what the store must contain after each commit.
#[derive(Default)]
struct Run {
    // The content after commit 0, 1, 2 ...
    contents: Vec<Vec<u64>>,
    // Number of changes of the disk when the store existed, and when each commit was acknowledged.
    created: usize,
    acknowledged: Vec<usize>,
    // Number of changes when each commit was begun.
    issued: Vec<usize>,
}

impl Run {
    /// The commits that may be the newest after a crash before change `at`.
    fn possible(&self, at: usize) -> RangeInclusive<usize> {
        let acknowledged = self.acknowledged.iter().filter(|&&when| when <= at).count();
        let issued = self.issued.iter().filter(|&&when| when < at).count();
        acknowledged..=issued.max(acknowledged)
    }
}

/// Commits, checkpoints and packs, as far as the disk lets it.
fn run(disk: &Simulated, run: &mut Run) -> Result<(), StorageError> {
    run.contents = vec![vec![0; to_usize(PAGES)]];
    LocalEngine::create(&backend(disk), &small())?;
    run.created = disk.changes_count();
    let (engine, mut head) = open(disk)?;
    for step in 1..=24u64 {
        let (first, pages) = (step * 7 % 30, 1 + step % 6);
        let mut content = run.contents[to_usize(head.tid.0)].clone();
        content[to_usize(first)..to_usize(first + pages)].fill(head.tid.0 + 1);
        run.contents.truncate(to_usize(head.tid.0) + 1);
        run.contents.push(content);
        run.issued.truncate(to_usize(head.tid.0));
        run.issued.push(disk.changes_count());
        match commit(&engine, &head, first, pages, step % 3 != 0) {
            Err(StorageError::NoSpace { .. }) => continue,
            other => head = other?,
        }
        run.acknowledged.push(disk.changes_count());
        let kept = match step {
            9 => engine.pack(Tid(head.tid.0 - 3), &[], u64::MAX),
            17 => engine.pack(head.tid, &[], u64::MAX),
            _ if engine.wants_checkpoint() => {
                // A checkpoint that fails is none, and the store goes on.
                head = engine.checkpoint(&head).unwrap_or(head);
                continue;
            }
            _ => continue,
        };
        match kept {
            Err(StorageError::NoSpace { .. }) => {}
            other => head = other?.head,
        }
    }
    Ok(())
}

/// A cheap sequence of numbers without pattern.
fn scrambled(n: usize) -> usize {
    let n = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    to_usize((n ^ (n >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32)
}

fn survival(seed: usize, number: usize, change: &Change) -> Survival {
    let dice = scrambled(seed * 1000 + number);
    match (seed, dice % 4) {
        (0, _) | (2.., 0) => Survival::Dropped,
        (1, _) | (2.., 1) => Survival::Kept,
        _ => {
            let sector = |i| scrambled(dice + i).is_multiple_of(2);
            Survival::Torn((0..change.sectors()).map(sector).collect())
        }
    }
}

#[test]
fn every_subset_of_the_sectors_of_the_last_record_is_a_torn_tail_or_the_whole_record() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, head) = open(&disk).unwrap();
    let head = commit(&engine, &head, 0, 2, true).unwrap();
    let start = disk.changes_count();
    let mut bytes = vec![7u8; PAGE_LEN];
    bytes.chunks_mut(512).zip(1..).for_each(|(sector, n)| sector[0] = n);
    let record = engine.append(&draft_of_page(&head, &bytes)).unwrap();
    engine.settle(record.tid).unwrap();
    assert_eq!(record.tid, Tid(2));
    drop(engine);
    let changes = disk.changes();
    let (number, write) = (start..changes.len())
        .map(|number| (number, &changes[number]))
        .find(|(_, change)| matches!(change, Change::Write { .. }))
        .unwrap();
    let Change::Write { bytes, .. } = write else { unreachable!() };
    assert_eq!(bytes.len(), 2 * PAGE_LEN, "a commit of one element writes two pages");
    let sectors: Vec<usize> = bytes
        .chunks(512)
        .enumerate()
        .filter(|(_, sector)| sector.iter().any(|&byte| byte != 0))
        .map(|(i, _)| i)
        .collect();
    assert!((9..=11).contains(&sectors.len()), "{sectors:?}");
    for subset in 0..1u32 << sectors.len() {
        let mut kept = vec![false; 16];
        let chosen = sectors.iter().enumerate().filter(|(i, _)| subset & (1 << i) != 0);
        chosen.for_each(|(_, &sector)| kept[sector] = true);
        let image = disk
            .crash_image(number + 1, |undecided, _| {
                assert_eq!(undecided, number);
                Survival::Torn(kept.clone())
            })
            .unwrap();
        let (_, head) = open(&image).unwrap();
        let whole = subset == (1 << sectors.len()) - 1;
        assert_eq!(head.tid, Tid(if whole { 2 } else { 1 }), "{kept:?}");
    }
}

#[test]
fn whichever_call_fails_no_acknowledged_commit_is_lost_and_a_full_disk_stops_nothing() {
    let calls = {
        let disk = Simulated::new().unwrap();
        run(&disk, &mut Run::default()).unwrap();
        disk.calls_count()
    };
    for call in 0..calls {
        for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::Short] {
            let disk = Simulated::new().unwrap();
            disk.set_fault(Some(Fault { call, kind, lasting: false }));
            let mut told = Run::default();
            let result = run(&disk, &mut told);
            disk.set_fault(None);
            let end = disk.changes_count();
            if told.created == 0 {
                told.created = usize::MAX;
            }
            let at = format!("call {call} fails with {kind:?}: {result:?}");
            let image = disk.crash_image(end, |_, _| Survival::Dropped).unwrap();
            for disk in [&image, &disk] {
                let (engine, head) = match open(disk) {
                    Ok(opened) => opened,
                    Err(StorageError::NotAStore { .. }) if told.created == usize::MAX => continue,
                    Err(error) => panic!("{at}: {error}"),
                };
                let tid = to_usize(head.tid.0);
                assert!(told.acknowledged.len() <= tid && tid <= told.issued.len(), "{at}");
                assert_eq!(writers(&engine, &head, PAGES), told.contents[tid], "{at}");
                healthy(&engine);
            }
        }
    }
}

/// Found by the crash enumerator: a name that another process had not made durable when it was
/// killed was built upon, and the older log files were deleted because of it.
#[test]
fn what_the_successor_of_a_killed_process_builds_on_survives_a_power_cut() {
    let run = |disk: &Simulated, told: &mut Run| {
        run(disk, told)?;
        // A checkpoint at the very end of the last log file, and one record more.
        let (engine, mut head) = open(disk)?;
        let files = disk.list("log").unwrap();
        while disk.list("log").unwrap() == files {
            engine.checkpoint(&head)?;
            head = commit(&engine, &head, 0, 2, true)?;
        }
        Ok::<_, StorageError>(())
    };
    let calls = {
        let disk = Simulated::new().unwrap();
        run(&disk, &mut Run::default()).unwrap();
        disk.calls_count()
    };
    for call in 0..calls {
        let disk = Simulated::new().unwrap();
        disk.set_fault(Some(Fault { call, kind: FaultKind::Killed, lasting: true }));
        run(&disk, &mut Run::default()).unwrap_err();
        disk.set_fault(None);
        let Ok((engine, head)) = open(&disk) else { continue };
        let head = commit(&engine, &head, 2, 2, call % 2 == 0).unwrap();
        let expected = writers(&engine, &head, PAGES);
        for removed in [Survival::Dropped, Survival::Kept] {
            let choose = |_, change: &Change| match change {
                Change::Remove { .. } => removed.clone(),
                _ => Survival::Dropped,
            };
            let image = disk.crash_image(disk.changes_count(), choose).unwrap();
            let (engine, found) = open(&image).unwrap_or_else(|error| {
                panic!("killed at call {call}, removals {removed:?}: {error}");
            });
            assert_eq!(found.tid, head.tid, "killed at call {call}");
            assert_eq!(writers(&engine, &found, PAGES), expected, "killed at call {call}");
        }
    }
}

/// Names of files are as much a part of a commit as their content: a call that failed before may
/// have left names that only the memory of the machine knows.
#[test]
fn whichever_call_fails_the_first_commit_after_it_survives_a_power_cut() {
    let calls = {
        let disk = Simulated::new().unwrap();
        run(&disk, &mut Run::default()).unwrap();
        disk.calls_count()
    };
    for call in 0..calls {
        let disk = Simulated::new().unwrap();
        disk.set_fault(Some(Fault { call, kind: FaultKind::Eio, lasting: false }));
        let _ = run(&disk, &mut Run::default());
        disk.set_fault(None);
        let (engine, head) = open(&disk).unwrap_or_else(|_| {
            LocalEngine::create(&backend(&disk), &small()).unwrap();
            open(&disk).unwrap()
        });
        let head = commit(&engine, &head, 0, 20, true).unwrap();
        let end = disk.changes_count();
        let image = disk.crash_image(end, |_, _| Survival::Dropped).unwrap();
        let (engine, found) = open(&image).unwrap_or_else(|error| panic!("call {call}: {error}"));
        assert_eq!(found.tid, head.tid, "call {call}");
        healthy(&engine);
    }
}

#[test]
fn a_pack_that_succeeded_leaves_a_handle_that_writes_whatever_failed_on_the_way() {
    let mut failed_on_the_way = 0;
    for call in 0..40 {
        let disk = Simulated::new().unwrap();
        LocalEngine::create(&backend(&disk), &small()).unwrap();
        let (engine, mut head) = open(&disk).unwrap();
        for first in 0..6 {
            head = commit(&engine, &head, first, 20, false).unwrap();
        }
        disk.set_fault(Some(Fault { call, kind: FaultKind::Eio, lasting: false }));
        let Ok(packed) = engine.pack(head.tid, &[], u64::MAX) else { continue };
        disk.set_fault(None);
        assert!(!engine.is_poisoned(), "call {call}");
        commit(&engine, &packed.head, 3, 2, false).unwrap();
        failed_on_the_way += 1;
    }
    assert!(failed_on_the_way > 10, "{failed_on_the_way}");
}

#[test]
fn a_full_disk_is_not_filled_with_unfinished_files() {
    let calls = {
        let disk = Simulated::new().unwrap();
        run(&disk, &mut Run::default()).unwrap();
        disk.calls_count()
    };
    for call in 0..calls {
        let disk = Simulated::new().unwrap();
        LocalEngine::create(&backend(&disk), &small()).unwrap();
        let (engine, mut head) = open(&disk).unwrap();
        for first in 0..6 {
            head = commit(&engine, &head, first * 3, 5, first % 2 == 0).unwrap();
        }
        disk.set_fault(Some(Fault { call, kind: FaultKind::Enospc, lasting: false }));
        let checkpointed = engine.checkpoint(&head).map(|_| ());
        let packed = engine.pack(head.tid, &[], u64::MAX).map(|_| ());
        let left = ["log", "checkpoint"].map(|directory| disk.list(directory).unwrap()).concat();
        let left = left.iter().find(|name| name.starts_with(".tmp"));
        assert_eq!(left, None, "call {call}: {checkpointed:?}, {packed:?}");
    }
}

/// "No space" says that the handle goes on, which is not true of a sync.
#[test]
fn a_sync_that_finds_the_disk_full_is_a_failed_sync() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    for call in 0..9 {
        let (engine, head) = open(&disk).unwrap();
        disk.set_fault(Some(Fault { call, kind: FaultKind::Enospc, lasting: false }));
        let made = commit(&engine, &head, 0, 20, false);
        disk.set_fault(None);
        match made {
            Ok(_) => {}
            Err(StorageError::NoSpace { .. }) => assert!(!engine.is_poisoned(), "call {call}"),
            Err(_) => assert!(engine.is_poisoned(), "call {call}"),
        }
    }
}

/// Found by the crash enumerator: recovery died between cutting a torn record and making the cut
/// durable, the next recovery found nothing to cut, and its first record met the old sectors.
#[test]
fn a_cut_that_was_not_durable_when_recovery_was_killed_is_made_durable_by_the_next() {
    let killed_at = |call| Some(Fault { call, kind: FaultKind::Killed, lasting: true });
    let filled = || {
        let disk = Simulated::new().unwrap();
        LocalEngine::create(&backend(&disk), &small()).unwrap();
        let (engine, mut head) = open(&disk).unwrap();
        // The next record is the first of another file.
        for _ in 0..3 {
            head = commit(&engine, &head, 0, 2, true).unwrap();
        }
        (disk, engine, head)
    };
    for (call, again) in (0..10).flat_map(|call| (0..5).map(move |again| (call, again))) {
        let (disk, engine, head) = filled();
        disk.set_fault(killed_at(call));
        let _ = commit(&engine, &head, 0, 7, true);
        drop(engine);
        disk.set_fault(killed_at(again));
        drop(open(&disk));
        disk.set_fault(None);
        let (engine, head) = open(&disk).unwrap();
        let before = disk.changes_count();
        commit(&engine, &head, 0, 1, true).unwrap();
        for at in before..disk.changes_count() {
            let choose = |_, change: &Change| match change {
                Change::SetLen { .. } => Survival::Dropped,
                _ => Survival::Kept,
            };
            let image = disk.crash_image(at, choose).unwrap();
            let opened = open(&image);
            assert!(opened.is_ok(), "killed at call {call}, then {again}: {:?}", opened.err());
        }
    }
}

/// Found by the crash enumerator: a pack opens all data files to punch them, and what was open was
/// taken to have a durable name.
#[test]
fn a_data_file_that_a_killed_process_created_gets_a_durable_name_also_after_a_pack() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, head) = open(&disk).unwrap();
    commit(&engine, &head, 0, 40, false).unwrap();
    let wish = Allocation { pages: 40, align_pages: 1, phase_pages: 0, near: None };
    assert_eq!(engine.allocate(&wish).unwrap().file, 1);
    drop(engine);
    let (engine, head) = open(&disk).unwrap();
    let head = engine.pack(head.tid, &[], u64::MAX).unwrap().head;
    let head = commit(&engine, &head, 0, 40, false).unwrap();
    let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
    let (engine, found) = open(&image).unwrap();
    assert_eq!(found.tid, head.tid);
    healthy(&engine);
}

#[test]
fn a_full_disk_changes_nothing_and_the_store_goes_on_when_there_is_space() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, mut head) = open(&disk).unwrap();
    head = commit(&engine, &head, 0, 4, true).unwrap();
    for (call, inline) in [(0, true), (1, true), (0, false), (1, false), (2, false)] {
        for kind in [FaultKind::Enospc, FaultKind::Short] {
            disk.set_fault(Some(Fault { call, kind, lasting: false }));
            match commit(&engine, &head, 4, 4, inline) {
                Err(StorageError::NoSpace { .. }) => {}
                Ok(next) => head = next,
                // Not a full disk but a failing one.
                Err(_) if kind == FaultKind::Short => return,
                Err(error) => assert!(!engine.is_poisoned(), "{error}"),
            }
            disk.set_fault(None);
            if engine.is_poisoned() {
                return;
            }
            head = commit(&engine, &head, 8, 2, inline).unwrap();
        }
    }
}

#[test]
fn a_failed_sync_of_the_log_is_unknown_and_poisons() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, head) = open(&disk).unwrap();
    let head = commit(&engine, &head, 0, 1, true).unwrap();
    // Space lies ready: the calls are the write and the sync.
    disk.set_fault(Some(Fault { call: 1, kind: FaultKind::Eio, lasting: false }));
    let error = commit(&engine, &head, 0, 1, true).err().unwrap();
    assert!(matches!(error, StorageError::Unknown { tid: Tid(2), .. }), "{error}");
    assert!(engine.is_poisoned());
    let error = commit(&engine, &head, 0, 1, true).err().unwrap();
    assert!(matches!(error, StorageError::Poisoned), "{error}");
    drop(engine);
    let (_, settled) = open(&disk).unwrap();
    assert_eq!(settled.tid, Tid(2), "the bytes are in the file");
    let end = disk.changes_count();
    let image = disk.crash_image(end, |_, _| Survival::Dropped).unwrap();
    assert_eq!(open(&image).unwrap().1.tid, Tid(2), "opening made them durable");
}

/// Found by the crash enumerator: another process had died half way through the record behind one
/// of which the sync failed, and recovery cut the one off and left the other to the kernel.
#[test]
fn a_record_before_a_torn_one_is_durable_after_opening_also_if_its_sync_failed() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, head) = open(&disk).unwrap();
    let head = commit(&engine, &head, 0, 1, true).unwrap();
    let bytes = vec![1; PAGE_LEN];
    let record = engine.append(&draft_of_page(&head, &bytes)).unwrap();
    let head = head.apply(&record).unwrap();
    let record = engine.append(&draft_of_page(&head, &bytes)).unwrap();
    // Of the last one the page is missing.
    let page = record.data[0].segment.source.place().unwrap().page;
    let log = disk.open(&log_path(0), Access::Write).unwrap();
    log.write_at(&[&[0; PAGE_LEN]], page * PAGE_BYTES).unwrap();
    disk.set_fault(Some(Fault { call: 0, kind: FaultKind::Eio, lasting: false }));
    assert!(engine.settle(record.tid).is_err());
    disk.set_fault(None);
    drop(engine);
    assert_eq!(open(&disk).unwrap().1.tid, Tid(2), "the torn one was cut");
    let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
    assert_eq!(open(&image).unwrap().1.tid, Tid(2), "opening made the other one durable");
}

/// Flips one bit of a file.
fn flip(disk: &Simulated, path: &str, at: u64, bit: u8) {
    let file = disk.open(path, Access::Write).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[&[byte[0] ^ (1 << bit)]], at).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_is_found() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, mut head) = open(&disk).unwrap();
    for first in 0..3 {
        head = commit(&engine, &head, first, 2, true).unwrap();
    }
    drop(engine);
    let path = "log/0000000000.log";
    let len = disk.open(path, Access::Read).unwrap().len().unwrap();
    assert_eq!(len, 10 * PAGE_BYTES, "a header and three records of three pages");
    for at in (0..len).step_by(5) {
        let bit = u8::try_from(scrambled(usize::try_from(at).unwrap()) % 8).unwrap();
        flip(&disk, path, at, bit);
        let found = match open(&disk) {
            Err(StorageError::Corrupted { .. }) => true,
            Err(error) => panic!("byte {at} bit {bit}: {error}"),
            Ok((engine, head)) => {
                assert_eq!(head.tid, Tid(3), "byte {at} bit {bit}: rolled back");
                !engine.check(true, &mut |_, _| {}).unwrap().damage.is_empty()
            }
        };
        assert!(found, "byte {at} bit {bit}");
        flip(&disk, path, at, bit);
    }
}

#[test]
fn any_damage_of_a_checkpoint_is_found_and_costs_nothing() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, mut head) = open(&disk).unwrap();
    for step in 0..6 {
        head = commit(&engine, &head, step * 5, 4, step % 2 == 0).unwrap();
    }
    engine.checkpoint(&head).unwrap();
    let expected = writers(&engine, &head, PAGES);
    drop(engine);
    let path = checkpoint::checkpoint_path(head.tid);
    let len = disk.open(&path, Access::Read).unwrap().len().unwrap();
    for at in (0..len).step_by(97).chain(len - 600..len) {
        flip(&disk, &path, at, 3);
        let (engine, head) = open(&disk).unwrap();
        assert_eq!(writers(&engine, &head, PAGES), expected, "byte {at}");
        let report = engine.check(false, &mut |_, _| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "byte {at}: {:?}", report.damage);
        flip(&disk, &path, at, 3);
    }
    let (engine, _) = open(&disk).unwrap();
    healthy(&engine);
}

#[test]
fn a_log_that_lost_acknowledged_commits_does_not_open() {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &small()).unwrap();
    let (engine, mut head) = open(&disk).unwrap();
    for first in 0..12 {
        head = commit(&engine, &head, first, 2, true).unwrap();
    }
    drop(engine);
    let zeroed = disk.open("log/0000000000.log", Access::Write).unwrap();
    zeroed.write_at(&[&[0; 512]], 4 * PAGE_BYTES).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, StorageError::Corrupted { .. }), "{error}");
    disk.remove("log/0000000000.log").unwrap();
    let error = open(&disk).err().unwrap();
    assert!(error.to_string().contains("log/0000000000.log"), "{error}");
}

#[test]
fn opening_for_reading_changes_nothing_and_leaves_a_torn_tail_alone() {
    let disk = Simulated::new().unwrap();
    let mut told = Run::default();
    run(&disk, &mut told).unwrap();
    for at in told.created..=disk.changes_count() {
        let choose = |number, change: &Change| survival(2, number, change);
        let image = disk.crash_image(at, choose).unwrap();
        let read = LocalEngine::open(&backend(&image), Mode::ReadOnly, &small());
        let (engine, head) = read.unwrap_or_else(|error| panic!("change {at}: {error}"));
        let tid = to_usize(head.tid.0);
        assert!(told.possible(at).contains(&tid), "change {at}");
        assert_eq!(writers(&engine, &head, PAGES), told.contents[tid]);
        assert_eq!(image.calls_count(), 0, "change {at}");
    }
}

#[test]
fn a_store_of_which_any_bytes_were_changed_opens_or_says_what_is_damaged() {
    let disk = Simulated::new().unwrap();
    let mut told = Run::default();
    run(&disk, &mut told).unwrap();
    let end = disk.changes_count();
    let mut files = Vec::new();
    for directory in ["log/", "checkpoint/", "data/", ""] {
        let names = disk.list(directory.trim_end_matches('/')).unwrap();
        let paths = names.iter().map(|name| format!("{directory}{name}"));
        files.extend(paths.filter(|path| disk.open(path, Access::Read).is_ok()));
    }
    for seed in 0..300 {
        let image = disk.crash_image(end, |_, _| Survival::Kept).unwrap();
        let path = &files[scrambled(seed) % files.len()];
        let file = image.open(path, Access::Write).unwrap();
        let len = to_usize(file.len().unwrap()).max(1);
        let at = (scrambled(seed + 1000) % len) as u64;
        match seed % 3 {
            0 => file.write_at(&[&vec![0xA5; 1 + seed * 20]], at).unwrap(),
            1 => file.write_at(&[&vec![0; 1 + seed * 20]], at).unwrap(),
            _ => file.set_len(at).unwrap(),
        }
        let Ok((engine, head)) = open(&image) else { continue };
        let _ = head.extents();
        let report = engine.check(true, &mut |_, _| {}).unwrap();
        if report.damage.is_empty() {
            let tid = to_usize(head.tid.0);
            assert_eq!(writers(&engine, &head, PAGES), told.contents[tid], "{path} byte {at}");
        }
    }
}
