//! Several engines on one disk, as several processes have them: each takes in what the others do.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::tests::{commit, draft_of_page, healthy, small, writers};
use super::*;
use crate::storage::backend::FileSystem;
use crate::storage::backend::simulated::{Fault, FaultKind, Simulated, Survival};
use crate::sync::thread;
use crate::units::PAGE_LEN;

const PAGES: u64 = 40;

fn backend(disk: &Simulated) -> Arc<dyn Backend> {
    Arc::new(disk.clone())
}

/// Words that all who map the same file share, in this process.
fn shared_words(
    file: Arc<OwnedFd>,
    count: usize,
    _: bool,
) -> std::io::Result<Arc<dyn SharedWords>> {
    type Known = HashMap<i32, (Arc<OwnedFd>, Arc<PrivateWords>)>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    let new = || (Arc::clone(&file), Arc::new(PrivateWords::new(count)));
    // The file stays open, so that its number stays its own.
    Ok(known.entry(file.as_raw_fd()).or_insert_with(new).1.clone())
}

fn options() -> LocalOptions {
    LocalOptions { map_words: shared_words, commit_wait: Duration::from_millis(50), ..small() }
}

fn new_store() -> Simulated {
    let disk = Simulated::new().unwrap();
    LocalEngine::create(&backend(&disk), &options()).unwrap();
    disk
}

fn open(disk: &Simulated, mode: Mode) -> (LocalEngine, State) {
    LocalEngine::open(&backend(disk), mode, &options()).unwrap()
}

/// Commits as a process does that takes in first what others committed.
fn commit_after_all(engine: &LocalEngine, first: u64, pages: u64, inline: bool) -> State {
    let _lock = engine.lock().unwrap();
    let head = engine.catch_up().unwrap();
    commit(engine, &engine.load(head).unwrap(), first, pages, inline).unwrap()
}

#[test]
fn two_writers_see_what_the_other_committed() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let mut last = None;
    for round in 0..30 {
        let engine = if round % 2 == 0 { &one } else { &other };
        let head = commit_after_all(engine, round % 7, 3, round % 3 == 0);
        assert_eq!(head.tid, Tid(round + 1));
        assert_eq!((one.newest().unwrap(), other.newest().unwrap()), (head.tid, head.tid));
        let expected = writers(engine, &head, PAGES);
        assert_eq!(writers(&one, &one.load(head.tid).unwrap(), PAGES), expected);
        assert_eq!(writers(&other, &other.load(head.tid).unwrap(), PAGES), expected);
        last = Some(expected);
    }
    healthy(&one);
    drop((one, other));
    let (engine, head) = open(&disk, Mode::ReadWrite);
    assert_eq!(Some(writers(&engine, &head, PAGES)), last);
}

#[test]
fn a_commit_that_one_process_shows_is_seen_by_all() {
    let disk = new_store();
    let ((one, head), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let bytes = vec![1; PAGE_LEN];
    one.append(&draft_of_page(&head, &bytes)).unwrap();
    // A thread has synced the log and is stopped, or killed, before it says so.
    one.log.sync().unwrap();
    assert_eq!(one.newest().unwrap(), Tid(1));
    assert_eq!(other.newest().unwrap(), Tid(1));
}

#[test]
fn processes_allocate_in_files_of_their_own_and_reuse_what_the_other_left() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let wish = Allocation { pages: 1, align_pages: 1, phase_pages: 0, near: None };
    let (first, second) = (one.allocate(&wish).unwrap(), other.allocate(&wish).unwrap());
    assert_ne!(first.file, second.file);
    one.free(first, 1);
    other.free(second, 1);
    assert_eq!(other.allocate(&wish).unwrap(), first, "nobody has it any more");
}

#[test]
fn a_process_goes_over_to_the_log_that_another_packed() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    for round in 0..12 {
        commit_after_all(&one, round % 5, 4, round % 2 == 0);
    }
    let generation = other.generation();
    {
        let _lock = one.lock().unwrap();
        one.catch_up().unwrap();
        let packed = one.pack(Tid(12), &[], u64::MAX).unwrap();
        assert_eq!((packed.forgotten, packed.oldest), (12, Tid(12)));
    }
    let head = commit_after_all(&other, 0, 4, true);
    assert!(other.generation() > generation);
    assert_eq!((head.tid, other.oldest()), (Tid(13), Tid(12)));
    let head = commit_after_all(&one, 1, 4, false);
    assert_eq!(other.newest().unwrap(), head.tid);
    assert_eq!(writers(&other, &other.load(head.tid).unwrap(), PAGES), writers(&one, &head, PAGES));
    healthy(&one);
    healthy(&other);
}

#[test]
fn a_pack_keeps_what_another_process_looks_at_until_it_is_too_much() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadOnly));
    for round in 0..10 {
        commit_after_all(&one, round % 5, 8, false);
    }
    assert_eq!(other.newest().unwrap(), Tid(10));
    let seen = other.load(Tid(4)).unwrap();
    other.pin(Some(Tid(4)..=Tid(4)), other.generation());
    let expected = writers(&other, &seen, PAGES);
    let pack = |held_bytes_max| {
        let _lock = one.lock().unwrap();
        one.catch_up().unwrap();
        one.pack(one.newest().unwrap(), &[], held_bytes_max).unwrap()
    };
    assert_eq!(pack(u64::MAX).oldest, Tid(4));
    assert_eq!(other.expired(), None);
    for round in 0..20 {
        commit_after_all(&one, round % 5, 8, round % 2 == 0);
    }
    assert_eq!(pack(u64::MAX).oldest, Tid(4));
    assert_eq!(writers(&other, &seen, PAGES), expected);
    let over = pack(0);
    assert_eq!((over.oldest, other.expired()), (Tid(30), Some(Tid(30))));
    let used = one.usage().unwrap().data_used_bytes;
    // Until it knows, nothing that it may look at is written over.
    for round in 0..40 {
        commit_after_all(&one, round % 5, 8, false);
        pack(0);
    }
    assert_eq!(writers(&other, &seen, PAGES), expected);
    let grown = one.usage().unwrap().data_used_bytes - used;
    assert!(grown <= 40 * PAGE_BYTES, "it does not grow: {grown}");
    other.pin(None, other.generation());
    commit_after_all(&one, 0, 8, false);
    pack(0);
    assert!(one.usage().unwrap().data_used_bytes < used);
    healthy(&one);
}

#[test]
fn log_files_stay_while_another_process_may_open_them() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadOnly));
    for round in 0..6 {
        commit_after_all(&one, round, 2, true);
    }
    other.newest().unwrap();
    let seen = other.load(Tid(6)).unwrap();
    other.pin(Some(Tid(6)..=Tid(6)), other.generation());
    {
        let _lock = one.lock().unwrap();
        one.catch_up().unwrap();
        one.pack(Tid(6), &[], u64::MAX).unwrap();
    }
    // It had not looked at the inline pages, which lie in log files.
    assert_eq!(writers(&other, &seen, PAGES).iter().filter(|&&n| n > 0).count(), 7);
    assert!(disk.list("log").unwrap().len() > 1);
    commit_after_all(&one, 0, 1, true);
    other.newest().unwrap();
    other.pin(None, other.generation());
    one.pin(None, one.generation());
    one.unpin(&[]).unwrap();
    assert_eq!(disk.list("log").unwrap().len(), 1);
    healthy(&one);
}

#[test]
fn log_files_that_were_left_for_a_process_go_with_its_last_look_at_them() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    commit_after_all(&one, 0, 2, true);
    other.newest().unwrap();
    let (seen, generation) = (Arc::new(other.load(Tid(1)).unwrap()), other.generation());
    other.pin(Some(Tid(1)..=Tid(1)), generation);
    {
        let _lock = one.lock().unwrap();
        one.catch_up().unwrap();
        one.pack(Tid(1), &[], u64::MAX).unwrap();
    }
    commit_after_all(&one, 0, 2, true);
    drop(one);
    assert_eq!(disk.list("log").unwrap().len(), 2);
    other.newest().unwrap();
    healthy(&other);
    other.pin(Some(Tid(1)..=Tid(1)), generation);
    other.unpin(&[Arc::clone(&seen)]).unwrap();
    assert_eq!(writers(&other, &seen, PAGES)[..3], [1, 1, 0]);
    other.pin(None, other.generation());
    other.unpin(&[]).unwrap();
    assert_eq!(disk.list("log").unwrap().len(), 1);
    healthy(&other);
}

#[test]
fn a_commit_makes_the_name_of_a_data_file_durable_that_another_process_created() {
    let disk = new_store();
    let open = || open(&disk, Mode::ReadWrite).0;
    let (one, other, third) = (open(), open(), open());
    commit_after_all(&one, 0, 1, false);
    let wish = Allocation { pages: 1, align_pages: 1, phase_pages: 0, near: None };
    assert_eq!(other.allocate(&wish).unwrap().file, 0);
    let created = third.allocate(&wish).unwrap();
    third.free(created, 1);
    let head = commit_after_all(&one, 1, 1, false);
    assert_eq!(created.file, 1);
    let left = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
    let (engine, found) = self::open(&left, Mode::ReadWrite);
    assert_eq!(writers(&engine, &found, PAGES), writers(&one, &head, PAGES));
    healthy(&engine);
}

#[test]
fn who_waits_for_the_commit_lock_is_told_who_has_it() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let lock = one.lock().unwrap();
    let error = other.lock().err().unwrap();
    assert!(matches!(error, StorageError::Busy { pid, .. } if pid == std::process::id()));
    drop(lock);
    assert!(other.lock().is_ok());
}

#[test]
fn a_torn_record_of_a_dead_process_is_cut_by_the_next_who_commits() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let head = commit_after_all(&one, 0, 4, true);
    let tail = one.log.tail().position;
    // It dies in the middle of writing.
    one.append(&draft_of_page(&head, &[7; PAGE_LEN])).unwrap();
    let file = disk.open(&log_path(tail.file), Access::Write).unwrap();
    file.set_len(tail.page * PAGE_BYTES + 700).unwrap();
    drop(one);
    assert_eq!(other.newest().unwrap(), head.tid, "what is torn is not read");
    let head = commit_after_all(&other, 1, 4, true);
    assert_eq!(head.tid, Tid(2));
    healthy(&other);
}

/// Found by the crash enumerator: the next commit began a log file, and what was cut was back in
/// front of it after a power cut.
#[test]
fn a_cut_whose_process_died_before_the_sync_is_made_durable_by_the_next_who_commits() {
    for opens in [false, true] {
        let disk = new_store();
        let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
        let (third, _) = open(&disk, Mode::ReadWrite);
        let head = commit_after_all(&one, 0, 4, true);
        let tail = one.log.tail().position;
        // It dies in the middle of writing, the next between the cut and the sync.
        one.append(&draft_of_page(&head, &[7; PAGE_LEN])).unwrap();
        let file = disk.open(&log_path(tail.file), Access::Write).unwrap();
        file.set_len(tail.page * PAGE_BYTES + 700).unwrap();
        drop(one);
        disk.set_fault(Some(Fault { call: 0, kind: FaultKind::KilledAtSync, lasting: true }));
        if opens {
            assert!(LocalEngine::open(&backend(&disk), Mode::ReadWrite, &options()).is_err());
        } else {
            assert!(other.lock().and_then(|_lock| other.catch_up()).is_err());
        }
        disk.set_fault(None);
        assert_eq!(file.len().unwrap(), tail.page * PAGE_BYTES);
        let cut = disk.changes_count();
        assert_eq!(third.lock().and_then(|_lock| third.catch_up()).unwrap(), head.tid);
        let image = disk.crash_image(disk.changes_count(), |number, _| match number + 1 == cut {
            true => Survival::Dropped,
            false => Survival::Kept,
        });
        let log = image.unwrap().open(&log_path(tail.file), Access::Read).unwrap();
        assert_eq!(log.len().unwrap(), tail.page * PAGE_BYTES, "what was cut is not back");
    }
}

/// Found by the crash enumerator: who begins a log file makes the commits before it durable, and
/// saw them then, but did not tell the others.
#[test]
fn a_commit_that_one_process_sees_the_others_see() {
    let disk = new_store();
    let ((one, head), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let mut head = head;
    while one.log.tail().position.file == 0 {
        let page = [7; PAGE_LEN];
        let record = one.append(&draft_of_page(&head, &page)).unwrap();
        head = head.apply(&record).unwrap();
    }
    let newest = one.newest().unwrap();
    assert_eq!(newest.next(), head.tid);
    assert_eq!(other.newest().unwrap(), newest);
}

/// Found by the crash enumerator: a process died between giving a name to a log file and the sync
/// of the directory, and one that was open already committed there.
#[test]
fn what_a_dead_process_named_is_durable_before_another_commits_there() {
    let rolls = |one: &LocalEngine| {
        while one.log.tail().position.file == 0 {
            let _lock = one.lock().unwrap();
            let newest = one.catch_up().unwrap();
            if commit(one, &one.load(newest).unwrap(), 0, 1, true).is_err() {
                return;
            }
        }
        panic!("it does not die");
    };
    let packs = |one: &LocalEngine| {
        let _lock = one.lock().unwrap();
        assert!(one.pack(Tid(2), &[], u64::MAX).is_err());
    };
    for (dies, commits) in [(&rolls as &dyn Fn(&LocalEngine), 1), (&packs, 3)] {
        let disk = new_store();
        let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
        (0..commits).for_each(|round| drop(commit_after_all(&one, round, 1, true)));
        disk.set_fault(Some(Fault { call: 0, kind: FaultKind::KilledAtSyncDir, lasting: true }));
        dies(&one);
        drop(one);
        disk.set_fault(None);
        let head = commit_after_all(&other, 1, 4, true);
        assert!(disk.list("log").unwrap().len() > 1, "there is a new file");
        let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
        let (engine, found) = open(&image, Mode::ReadWrite);
        assert_eq!(found.tid, head.tid);
        healthy(&engine);
    }
}

/// A pack opens all data files to punch them: what is open need not have a durable name.
#[test]
fn a_data_file_that_another_process_created_gets_a_durable_name_also_after_a_pack() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    commit_after_all(&other, 0, 40, false);
    let wish = Allocation { pages: 40, align_pages: 1, phase_pages: 0, near: None };
    assert_eq!(one.allocate(&wish).unwrap().file, 1);
    drop(one);
    pack_after_all(&other, Tid(1), u64::MAX);
    let head = commit_after_all(&other, 0, 40, false);
    let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
    let (engine, found) = open(&image, Mode::ReadWrite);
    assert_eq!(found.tid, head.tid);
    healthy(&engine);
}

/// Found by the crash enumerator: a pack told a process that its snapshot was over and died; the
/// next pack took that for done and gave the pages to others.
#[test]
fn a_snapshot_that_a_pack_ended_which_then_died_keeps_its_pages() {
    let disk = new_store();
    let ((one, _), (two, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let (other, _) = open(&disk, Mode::ReadOnly);
    (0..10).for_each(|round| drop(commit_after_all(&one, round % 5, 8, false)));
    other.newest().unwrap();
    let seen = other.load(Tid(4)).unwrap();
    other.pin(Some(Tid(4)..=Tid(4)), other.generation());
    let expected = writers(&other, &seen, PAGES);
    disk.set_fault(Some(Fault { call: 0, kind: FaultKind::Killed, lasting: true }));
    {
        let _lock = one.lock().unwrap();
        assert!(one.pack(Tid(10), &[], 0).is_err());
    }
    drop(one);
    disk.set_fault(None);
    assert_eq!(other.expired(), Some(Tid(10)));
    pack_after_all(&two, Tid(10), u64::MAX);
    (0..5).for_each(|round| drop(commit_after_all(&two, round * 8, 8, false)));
    assert_eq!(writers(&other, &seen, PAGES), expected);
    healthy(&two);
}

/// Found by the crash enumerator: who looked for space took in a record of which the pages were
/// not there yet, and went on behind it when it had been cut.
#[test]
fn a_record_of_which_pages_are_missing_is_not_taken_in_by_who_looks_for_space() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let head = commit_after_all(&one, 0, 4, true);
    assert_eq!(other.newest().unwrap(), head.tid);
    let tail = one.log.tail().position;
    // It dies when the metadata of its record is there, and its page is not.
    one.append(&draft_of_page(&head, &[7; PAGE_LEN])).unwrap();
    let file = disk.open(&log_path(tail.file), Access::Write).unwrap();
    file.set_len((tail.page + 1) * PAGE_BYTES).unwrap();
    let wish = Allocation { pages: 1, align_pages: 1, phase_pages: 0, near: None };
    other.allocate(&wish).unwrap();
    drop(one);
    let (third, found) = open(&disk, Mode::ReadWrite);
    assert_eq!(found.tid, head.tid);
    let next = commit_after_all(&other, 1, 4, true);
    assert_eq!(next.tid, Tid(2));
    assert_eq!(third.newest().unwrap(), next.tid);
    drop((other, third));
    healthy(&open(&disk, Mode::ReadWrite).0);
}

#[test]
fn whatever_the_words_say_commits_are_found_and_none_is_lost() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let mut number = 0x1234_5678_9abc_def1_u64;
    for round in 0..200 {
        for word in 0..one.members.words().count() {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            if word < 128 && number.is_multiple_of(3) {
                let value = [0, u64::MAX, number, 1 << 44, number >> 20][(round % 5) as usize];
                one.members.words().store(word, value);
            }
        }
        let engine = if round % 2 == 0 { &one } else { &other };
        let head = commit_after_all(engine, round % 7, 2, true);
        assert_eq!(head.tid, Tid(round + 1));
        assert_eq!((one.newest().unwrap(), other.newest().unwrap()), (head.tid, head.tid));
        let _ = one.members().unwrap();
    }
    healthy(&one);
}

#[test]
fn a_network_file_system_is_refused_but_for_reading_by_who_says_so() {
    let refused = |result: Result<(), StorageError>| match result {
        Err(error @ StorageError::NetworkFileSystem { kind: "NFS", .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let disk = Simulated::new().unwrap();
    disk.set_file_system(FileSystem::Network("NFS"));
    let text = refused(LocalEngine::create(&backend(&disk), &options()));
    assert!(text.contains("lies on NFS, a network file system"), "{text}");
    assert_eq!(disk.changes_count(), 0, "nothing was made there");
    let disk = new_store();
    let (engine, head) = open(&disk, Mode::ReadWrite);
    let head = commit(&engine, &head, 0, 1, true).unwrap();
    disk.set_file_system(FileSystem::Network("NFS"));
    let opened = |mode, network| {
        let options = LocalOptions { network, ..options() };
        LocalEngine::open(&backend(&disk), mode, &options)
    };
    refused(opened(Mode::ReadWrite, false).map(drop));
    refused(opened(Mode::ReadWrite, true).map(drop));
    refused(opened(Mode::ReadOnly, false).map(drop));
    let changes = disk.changes_count();
    let (reader, state) = opened(Mode::ReadOnly, true).unwrap();
    assert_eq!(writers(&reader, &state, PAGES), writers(&engine, &head, PAGES));
    assert_eq!(engine.members().unwrap().len(), 1, "it takes no place");
    let head = commit(&engine, &head, 1, 1, true).unwrap();
    assert_eq!(reader.newest().unwrap(), head.tid);
    assert_eq!(
        disk.changes_count(),
        changes + 2,
        "a record and its sync: the reader wrote nothing"
    );
}

#[test]
fn a_snapshot_holds_the_pages_that_later_commits_replaced() {
    let disk = new_store();
    let (engine, head) = open(&disk, Mode::ReadWrite);
    let first = commit(&engine, &head, 0, 8, false).unwrap();
    assert_eq!(engine.held_bytes(&first, &first).unwrap(), 0);
    let second = commit(&engine, &first, 0, 4, false).unwrap();
    let third = commit(&engine, &second, 0, 4, false).unwrap();
    let held = |since: &State| engine.held_bytes(since, &third).unwrap() / PAGE_BYTES;
    assert_eq!((held(&first), held(&second), held(&third)), (8, 4, 0));
    engine.pin(Some(first.tid..=first.tid), engine.generation());
    let told = &engine.members().unwrap()[0];
    assert_eq!((told.snapshot, told.is_expired, told.is_self), (Some(first.tid), false, true));
}

#[test]
fn a_process_of_which_the_words_were_cleared_keeps_what_it_may_look_at() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadOnly));
    for round in 0..10 {
        commit_after_all(&one, round % 5, 8, false);
    }
    other.newest().unwrap();
    let seen = other.load(Tid(4)).unwrap();
    let expected = writers(&other, &seen, PAGES);
    for nonsense in [0, u64::MAX, 77] {
        other.pin(Some(Tid(4)..=Tid(4)), other.generation());
        (64..1024).for_each(|word| one.members.words().store(word, nonsense));
        let _lock = one.lock().unwrap();
        one.catch_up().unwrap();
        one.pack(one.newest().unwrap(), &[], u64::MAX).unwrap();
        drop(_lock);
        for round in 0..5 {
            commit_after_all(&one, round, 8, false);
        }
        assert_eq!(writers(&other, &seen, PAGES), expected);
    }
}

/// Packs as a process does that takes in first what others committed.
fn pack_after_all(engine: &LocalEngine, keep: Tid, held_bytes_max: u64) -> Packed {
    let _lock = engine.lock().unwrap();
    engine.catch_up().unwrap();
    engine.pack(keep, &[], held_bytes_max).unwrap()
}

/// A store with 10 commits, its writer, and somebody who looks at commit `seen`.
fn looked_at(seen: u64) -> (LocalEngine, LocalEngine) {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadOnly));
    for round in 0..10 {
        commit_after_all(&one, round % 5, 8, false);
    }
    other.newest().unwrap();
    other.pin(Some(Tid(seen)..=Tid(seen)), other.generation());
    (one, other)
}

#[test]
fn a_pack_shuts_nobody_out_after_it() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let head = commit_after_all(&one, 0, 8, false);
    assert_eq!(pack_after_all(&one, head.tid, 0).oldest, head.tid);
    assert!(other.members.try_lock_checkpoint().unwrap());
    assert!(other.members.try_lock_readers_out().unwrap());
}

#[test]
fn what_others_look_at_later_does_not_shorten_the_history() {
    let (one, other) = looked_at(8);
    assert_eq!(pack_after_all(&one, Tid(5), 0).oldest, Tid(5));
    assert_eq!(other.expired(), None);
}

#[test]
fn a_snapshot_is_over_when_it_holds_one_byte_too_many() {
    let (one, other) = looked_at(6);
    other.pin(None, other.generation());
    let packed = pack_after_all(&one, Tid(6), 0);
    assert_eq!(packed.oldest, Tid(6));
    let bytes = packed.freed_pages * PAGE_BYTES;
    for (held_bytes_max, oldest) in [(bytes, 4), (bytes - 1, 6)] {
        let (one, other) = looked_at(4);
        let packed = pack_after_all(&one, Tid(6), held_bytes_max);
        assert_eq!(packed.oldest, Tid(oldest));
        assert_eq!(other.expired(), (oldest == 6).then_some(Tid(6)));
    }
}

#[test]
fn a_snapshot_is_kept_beside_an_older_one_that_is_over() {
    for looked_before in [true, false] {
        let (one, other) = looked_at(4);
        if looked_before {
            other.pin(Some(Tid(4)..=Tid(10)), other.generation());
        }
        assert_eq!(pack_after_all(&one, Tid(10), 0).oldest, Tid(10));
        assert_eq!((other.newest().unwrap(), other.expired()), (Tid(10), Some(Tid(10))));
        other.pin(Some(Tid(4)..=Tid(10)), other.generation());
        let seen = other.load(Tid(10)).unwrap();
        let expected = writers(&other, &seen, PAGES);
        let commits = || (0..10).for_each(|at| drop(commit_after_all(&one, at % 5, 8, false)));
        commits();
        assert_eq!(pack_after_all(&one, Tid(20), u64::MAX).oldest, Tid(10));
        commits();
        assert_eq!(writers(&other, &seen, PAGES), expected);
        // When it is over, too, its pages stay until it is told.
        assert_eq!(pack_after_all(&one, Tid(30), 0).oldest, Tid(30));
        assert_eq!(other.expired(), Some(Tid(30)));
        for _ in 0..3 {
            commits();
            pack_after_all(&one, one.newest().unwrap(), 0);
        }
        assert_eq!(writers(&other, &seen, PAGES), expected);
    }
}

#[test]
fn what_another_process_held_for_a_snapshot_that_is_over_stays_held() {
    let disk = new_store();
    let ((one, _), (two, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let ((old, _), (young, _)) = (open(&disk, Mode::ReadOnly), open(&disk, Mode::ReadOnly));
    let pinned = |engine: &LocalEngine| {
        let newest = engine.newest().unwrap();
        let seen = engine.load(newest).unwrap();
        engine.pin(Some(newest..=newest), engine.generation());
        (writers(engine, &seen, PAGES), seen)
    };
    let commits = |engine: &LocalEngine, count: u64| {
        (0..count).for_each(|round| drop(commit_after_all(engine, round % 5, 8, false)));
        engine.newest().unwrap()
    };
    commits(&one, 4);
    let of_old = pinned(&old);
    let head = commits(&one, 4);
    assert_eq!(pack_after_all(&one, head, 0).oldest, Tid(8));
    commits(&one, 4);
    let of_young = pinned(&young);
    let head = commits(&two, 4);
    assert_eq!(pack_after_all(&two, head, 0).oldest, Tid(16));
    assert_eq!((old.expired(), young.expired()), (Some(Tid(8)), Some(Tid(16))));
    // They do not know it yet, and the first packs again.
    for _ in 0..4 {
        let head = commits(&one, 4);
        pack_after_all(&one, head, 0);
        commits(&two, 4);
    }
    for (engine, (expected, seen)) in [(&old, of_old), (&young, of_young)] {
        assert_eq!(writers(engine, &seen, PAGES), expected);
    }
}

#[test]
fn what_a_pack_did_not_forget_can_be_looked_at_also_when_it_failed_or_died() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    let mut failures = 0;
    for call in 0..12 {
        let head = (0..4).map(|n| commit_after_all(&one, n, 4, n % 2 == 0).tid).last().unwrap();
        let _lock = one.lock().unwrap();
        one.catch_up().unwrap();
        disk.set_fault(Some(Fault { call, kind: FaultKind::Enospc, lasting: false }));
        let packed = one.pack(Tid(head.0 - 1), &[], u64::MAX);
        disk.set_fault(None);
        assert_eq!(other.floor(), one.oldest());
        failures += u32::from(packed.is_err());
        if one.is_poisoned() {
            break;
        }
    }
    assert!(failures > 0, "{failures}");
    other.members.set_floor(other.newest().unwrap());
    commit_after_all(&other, 0, 1, true);
    assert_eq!(other.floor(), other.oldest());
}

#[test]
fn what_another_thread_is_taking_in_is_waited_for_and_not_called_damage() {
    let disk = new_store();
    let ((one, _), (other, _)) = (open(&disk, Mode::ReadWrite), open(&disk, Mode::ReadWrite));
    commit_after_all(&one, 0, 4, false);
    // A thread that has read the record and not yet noted the extents it names.
    let following = other.following.lock();
    let ReadOn::Here(records) = other.log.read_on(Tid(u64::MAX), None).unwrap() else {
        panic!("nobody packed")
    };
    let named = records[0].data.iter().find_map(|change| change.segment.source.extent());
    let (place, pages) = named.map(|extent| (extent.place(), u64::from(extent.pages()))).unwrap();
    thread::scope(|scope| {
        let file = scope.spawn(|| other.file_of(place, pages).map(|file| file.is_some()));
        thread::sleep(Duration::from_millis(20));
        records.iter().for_each(|record| other.extents.commit(record));
        drop(following);
        assert!(file.join().unwrap().unwrap());
    });
}
