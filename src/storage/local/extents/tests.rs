//! Which pages are given out, taken, locked, made ready, synced and punched.

use super::*;
use crate::storage::backend::simulated::{Simulated, Survival};
use crate::storage::backend::{Access, Backend};
use crate::storage::extent::Extent;
use crate::storage::local::private_words;
use std::time::Duration;

const WISH: Allocation = Allocation { pages: 1, align_pages: 1, phase_pages: 0, near: None };

/// The data files, of which `used` is in use.
fn opened(disk: &Simulated, used: Space) -> Extents {
    with_cap(disk, used, 64)
}

fn with_cap(disk: &Simulated, used: Space, cap_pages: u64) -> Extents {
    let files = Files::new(Arc::new(disk.clone()), true);
    let members = Members::join(&files, &[0; 16], private_words, Duration::ZERO).unwrap();
    Extents::new(files, Arc::new(members), cap_pages, used)
}

fn on_disk() -> (Simulated, Extents) {
    let disk = Simulated::new().unwrap();
    disk.create_dir("data").unwrap();
    let extents = opened(&disk, Space::default());
    (disk, extents)
}

fn extents() -> Extents {
    on_disk().1
}

fn try_allocate(extents: &Extents, pages: u32) -> Result<Place, StorageError> {
    extents.allocate(&Allocation { pages, ..WISH }, &|| Ok(()))
}

fn allocate(extents: &Extents) -> Place {
    try_allocate(extents, 1).unwrap()
}

/// What a transaction may do while another thread packs.
#[test]
fn space_given_back_right_after_a_pack_is_given_out_once() {
    let extents = extents();
    let kept = allocate(&extents);
    let given_back = allocate(&extents);
    extents.repack(Space::default(), Ranges::default());
    extents.free(given_back, 1);
    let (one, other) = (allocate(&extents), allocate(&extents));
    assert_eq!(BTreeSet::from([kept, one, other]).len(), 3);
}

#[test]
fn space_of_a_snapshot_that_is_gone_is_given_out_once() {
    let extents = extents();
    let place = allocate(&extents);
    let limbo = [(place, 1)].into_iter().collect();
    extents.free(place, 1);
    extents.repack(Space::default(), limbo);
    extents.unpin(&Ranges::default());
    let (one, other) = (allocate(&extents), allocate(&extents));
    assert_ne!(one, other);
}

fn at(page: u64) -> Place {
    Place { file: 0, page }
}

/// Pages 0 to 9 are in use, 10 to 14 in limbo, 15 to 17 not committed yet.
fn in_three_states() -> Extents {
    let extents = extents();
    try_allocate(&extents, 15).unwrap();
    let used = [(at(0), 10)].into_iter().fold(Space::default(), |mut space, (place, pages)| {
        space.insert(place, pages);
        space
    });
    extents.repack(used, [(at(10), 5)].into_iter().collect());
    extents.free(at(10), 5);
    assert_eq!(try_allocate(&extents, 3).unwrap(), at(15));
    extents
}

#[test]
fn pages_are_taken_while_they_are_used_in_limbo_or_not_committed() {
    let extents = in_three_states();
    assert_eq!(extents.taken_pages(), (18, 10));
    assert!(extents.are_taken(at(0), 18));
    assert!(!extents.are_taken(at(0), 19));
    assert!(extents.has_limbo());
    extents.unpin(&[(at(12), 3)].into_iter().collect());
    assert!(extents.has_limbo() && extents.are_taken(at(12), 6));
    assert!(!extents.are_taken(at(11), 1));
    extents.unpin(&Ranges::default());
    assert!(!extents.has_limbo());
    assert_eq!(extents.taken_pages(), (13, 10));
}

#[test]
fn a_record_may_name_what_is_taken_and_what_lies_in_the_log() {
    let extents = in_three_states();
    let admitted = |place, pages: u32| {
        let sums = vec![0; pages as usize].into_boxed_slice();
        let source = Source::whole(Extent::new(place, pages, 1, sums).unwrap());
        extents.admit([&source].into_iter())
    };
    admitted(at(0), 18).unwrap();
    admitted(Place { file: IN_LOG, page: 100 }, 4).unwrap();
    let refused = admitted(at(0), 19);
    assert!(matches!(refused, Err(StorageError::Packed { place }) if place == at(0)));
}

#[test]
fn what_fits_into_no_file_is_refused_with_its_length() {
    let refused = try_allocate(&extents(), 65);
    assert!(matches!(refused, Err(StorageError::NoSpace { bytes: 266_240, .. })));
}

#[test]
fn what_a_pack_forgot_is_counted() {
    let extents = in_three_states();
    let mut used = Space::default();
    used.insert(at(0), 4);
    assert_eq!(extents.repack(used, [(at(10), 2)].into_iter().collect()), 15 - 6);
}

#[test]
fn long_free_ranges_and_what_lies_behind_all_of_them_are_punched() {
    let (disk, extents) = on_disk();
    let all = try_allocate(&extents, 50).unwrap();
    extents.write(all, &[7; 50 * 4096]).unwrap();
    let mut used = Space::default();
    // Free are 1 to 16, 20 to 34 and 36 on.
    [(0, 1), (17, 3), (35, 1)].into_iter().for_each(|(page, n)| used.insert(at(page), n));
    extents.free(all, 50);
    extents.repack(used, Ranges::default());
    extents.punch().unwrap();
    let file = disk.open(&data_path(0), Access::Read).unwrap();
    let mut bytes = [0; 4096];
    for page in 0..50 {
        file.read_at(&mut bytes, page * PAGE_BYTES).unwrap();
        let punched = (1..17).contains(&page) || page >= 36;
        assert_eq!(bytes == [0; 4096], punched, "page {page}");
    }
}

#[test]
fn the_write_back_of_a_long_run_is_begun_once() {
    let (mut dirty, half) = (Dirty::default(), WRITEBACK_BYTES / 2);
    assert_eq!(dirty.note(0, 4096, half), None);
    assert_eq!(dirty.note(1, 4096 + half, half), None, "of another file");
    assert_eq!(dirty.note(0, 4096 + half, half), Some((4096, 2 * half)));
    assert_eq!(dirty.note(0, 4096 + 2 * half, half), None);
    assert_eq!(dirty.note(0, 0, half), None, "not in one piece with it");
    assert_eq!(dirty.note(0, half, half + 5), Some((0, 2 * half + 5)));
    assert_eq!(dirty.files, BTreeSet::from([0, 1]));
}

#[test]
fn only_the_exact_name_of_a_data_file_is_one() {
    assert_eq!(data_number(&data_path(12)["data/".len()..]), Some(12));
    assert_eq!(data_number("2147483647.dat"), Some(IN_LOG - 1));
    for name in ["12.dat", "+000000012.dat", "0000000012.dat.bak", "2147483648.dat"] {
        assert_eq!(data_number(name), None, "{name}");
    }
}

#[test]
fn a_file_that_is_as_long_as_commits_say_is_written_to() {
    let (disk, extents) = on_disk();
    try_allocate(&extents, 6).unwrap();
    disk.open(&data_path(0), Access::Write).unwrap().set_len(6 * PAGE_BYTES).unwrap();
    let mut used = Space::default();
    used.insert(at(0), 6);
    drop(extents);
    assert_eq!(allocate(&opened(&disk, used.clone())), at(6));
    disk.open(&data_path(0), Access::Write).unwrap().set_len(6 * PAGE_BYTES - 1).unwrap();
    let refused = try_allocate(&opened(&disk, used), 1);
    assert!(matches!(refused, Err(StorageError::Corrupted { .. })));
}

/// Whether another process could lock a file of `extents` now.
fn is_free(disk: &Simulated, file: u32) -> bool {
    opened(disk, Space::default()).members.try_lock_data(file).unwrap()
}

#[test]
fn a_file_is_locked_while_pages_of_it_are_not_committed_or_in_limbo() {
    let (disk, extents) = on_disk();
    let (kept, given_back) = (allocate(&extents), allocate(&extents));
    assert!(!is_free(&disk, 0));
    extents.free(given_back, 1);
    assert!(!is_free(&disk, 0), "a page is not committed");
    let limbo: Ranges = [(given_back, 1)].into_iter().collect();
    assert_eq!(extents.lock_for_limbo(&limbo).unwrap(), Ranges::default());
    extents.repack(Space::default(), limbo);
    extents.free(kept, 1);
    assert!(!is_free(&disk, 0), "a page is in limbo");
    extents.unpin(&Ranges::default());
    assert!(is_free(&disk, 0));
}

#[test]
fn limbo_is_kept_in_files_that_nobody_else_has() {
    let (disk, extents) = on_disk();
    let other = opened(&disk, Space::default());
    let (ours, theirs) = (allocate(&extents), allocate(&other));
    assert_eq!((ours.file, theirs.file), (0, 1));
    let third = Place { file: 2, page: 7 };
    let in_log = Place { file: IN_LOG, page: 1 };
    let limbo = [(ours, 1), (theirs, 1), (third, 1), (in_log, 1)].into_iter().collect();
    assert_eq!(
        extents.lock_for_limbo(&limbo).unwrap(),
        [(theirs, 1)].into_iter().collect::<Ranges>()
    );
    assert!(!is_free(&disk, 2));
}

#[test]
fn files_grow_by_512_pages_at_once_and_what_was_used_before_is_made_ready_again() {
    let disk = Simulated::new().unwrap();
    disk.create_dir("data").unwrap();
    let extents = with_cap(&disk, Space::default(), 2000);
    let after = |pages: u32| {
        let before = disk.calls_count();
        let place = try_allocate(&extents, pages).unwrap();
        let len = disk.open(&data_path(0), Access::Read).unwrap().len().unwrap();
        (place.page, len / PAGE_BYTES, disk.calls_count() > before)
    };
    assert_eq!(after(3), (0, 512, true));
    assert_eq!(after(3), (3, 512, false));
    assert_eq!(after(600), (6, 1024, true));
    assert_eq!(after(418), (606, 1024, false));
    assert_eq!(after(900), (1024, 2000, true), "up to the cap");
    extents.free(at(3), 3);
    assert_eq!(after(3), (3, 2000, true), "it may have been given back to the file system");
}

#[test]
fn a_file_grows_only_where_its_end_is_given_out() {
    let len = |disk: &Simulated| {
        disk.open(&data_path(0), Access::Read).unwrap().len().unwrap() / PAGE_BYTES
    };
    let (disk, extents) = on_disk();
    assert_eq!(try_allocate(&extents, 64).unwrap(), at(0));
    assert_eq!(len(&disk), 64, "all that fits");
    drop(extents);
    disk.open(&data_path(0), Access::Write).unwrap().set_len(40 * PAGE_BYTES).unwrap();
    let mut used = Space::default();
    used.insert(at(0), 30);
    used.insert(at(33), 7);
    let extents = opened(&disk, used);
    assert_eq!(try_allocate(&extents, 3).unwrap(), at(30));
    assert_eq!(len(&disk), 40);
}

#[test]
#[should_panic(expected = "not allocated")]
fn nothing_is_written_beyond_what_was_allocated() {
    let extents = extents();
    let place = try_allocate(&extents, 2).unwrap();
    let _ = extents.write(place, &[7; 3 * 4096]);
}

#[test]
fn after_a_sync_what_was_written_survives_under_its_name_and_nothing_is_left_to_do() {
    let (disk, extents) = on_disk();
    disk.sync_dir("").unwrap();
    let places = [try_allocate(&extents, 60).unwrap(), try_allocate(&extents, 9).unwrap()];
    assert_eq!(places.map(|place| place.file), [0, 1]);
    places.iter().for_each(|&place| extents.write(place, &[7; 9 * 4096]).unwrap());
    extents.sync().unwrap();
    let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped).unwrap();
    for place in places {
        let mut bytes = [0; 9 * 4096];
        let file = image.open(&data_path(place.file), Access::Read).unwrap();
        file.read_at(&mut bytes, place.page * PAGE_BYTES).unwrap();
        assert_eq!(bytes, [7; 9 * 4096]);
    }
    let before = disk.calls_count();
    extents.sync().unwrap();
    assert_eq!(disk.calls_count(), before);
}

#[test]
fn a_pack_of_another_process_says_what_is_used_and_limbo_stays() {
    let extents = in_three_states();
    let mut used = Space::default();
    used.insert(at(0), 4);
    extents.go_over(used);
    assert_eq!(extents.taken_pages(), (4 + 5 + 3, 4));
    assert!(extents.are_taken(at(10), 8));
}

#[test]
fn nothing_is_punched_in_files_where_others_allocate() {
    let (disk, extents) = on_disk();
    let other = opened(&disk, Space::default());
    allocate(&extents);
    let theirs = allocate(&other);
    other.write(theirs, &[7; 4096]).unwrap();
    extents.punch().unwrap();
    let mut bytes = [0; 4096];
    let file = disk.open(&data_path(theirs.file), Access::Read).unwrap();
    file.read_at(&mut bytes, theirs.page * PAGE_BYTES).unwrap();
    assert_eq!(bytes, [7; 4096]);
}
