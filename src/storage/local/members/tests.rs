//! What members tell each other, word by word and lock by lock.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::LazyLock;

use super::*;
use crate::storage::backend::simulated::Simulated;
use crate::storage::backend::{Backend, BackendFile};
use crate::sync::Mutex;

const KEY: StoreId = [7; 16];
const LONG: Duration = Duration::from_secs(20);

/// Words that all who map the same file share, in this process.
fn mapped(file: Arc<OwnedFd>, count: usize, _: bool) -> std::io::Result<Arc<dyn SharedWords>> {
    type Known = HashMap<i32, (Arc<OwnedFd>, Arc<PrivateWords>)>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    let new = || (Arc::clone(&file), Arc::new(PrivateWords::new(count)));
    Ok(known.entry(file.as_raw_fd()).or_insert_with(new).1.clone())
}

fn files(disk: &Simulated, writable: bool) -> Files {
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    Files::new(backend, writable)
}

fn joined(disk: &Simulated) -> Members {
    Members::join(&files(disk, true), &KEY, mapped, Duration::ZERO).unwrap()
}

fn readers(disk: &Simulated) -> Result<Members, StorageError> {
    Members::apart(&files(disk, false), &KEY, Duration::ZERO)
        .joined_to_read(&files(disk, false), mapped)
}

fn two() -> (Simulated, Members, Members) {
    let disk = Simulated::new().unwrap();
    let (one, other) = (joined(&disk), joined(&disk));
    (disk, one, other)
}

#[test]
fn the_file_has_the_size_and_the_places_that_its_format_says() {
    let (disk, one, _other) = two();
    let file = disk.open(SHARED_PATH, Access::Read).unwrap();
    assert_eq!((file.len().unwrap(), PLACES, one.words.count()), (65_536, 1_016, 8_192));
    assert_eq!((word_of(0, 0), word_of(1, 2), word_of(PLACES, 0)), (64, 74, 8_192));
    assert_eq!(DATA_BYTE, 4_294_967_296);
}

#[test]
fn a_file_that_is_too_short_grows_and_a_longer_one_stays() {
    for len in [0, 100, SHARED_BYTES, SHARED_BYTES + 1] {
        let disk = Simulated::new().unwrap();
        let file = disk.create(SHARED_PATH).unwrap();
        file.set_len(len).unwrap();
        let _one = joined(&disk);
        assert_eq!(file.len().unwrap(), len.max(SHARED_BYTES));
    }
}

#[test]
fn each_has_a_place_of_its_own_and_gives_it_back() {
    let (disk, one, other) = two();
    let third = joined(&disk);
    assert_eq!([&one, &other, &third].map(|member| member.place), [Some(0), Some(1), Some(2)]);
    assert_eq!(one.others().unwrap(), [1, 2]);
    assert_eq!(other.others().unwrap(), [0, 2]);
    assert!(!one.is_alone().unwrap());
    other.pin(Some(Tid(3)..=Tid(4)), 1);
    let words = Arc::clone(&other.words);
    drop(other);
    let says = |place: usize| (0..PLACE_WORDS).any(|word| words.load(word_of(place, word)) != 0);
    assert!(!says(1), "what it said is over");
    assert!(says(2), "others are still there");
    assert_eq!(one.others().unwrap(), [2]);
    words.store(word_of(1, EXPIRED), 5);
    assert_eq!(joined(&disk).place, Some(1), "the first that is free");
    drop(third);
    assert!(one.is_alone().unwrap());
}

#[test]
fn a_place_says_nothing_of_who_had_it_before() {
    let (disk, one, other) = two();
    let words = Arc::clone(&one.words);
    drop(other);
    (0..PLACE_WORDS).for_each(|word| words.store(word_of(1, word), 99));
    let other = joined(&disk);
    assert_eq!(other.expired(), None);
    assert_eq!(one.others_pins().unwrap(), [(1, Told::Nothing, Told::Nothing)]);
    assert_eq!(words.load(word_of(1, NEWEST_SNAPSHOT)), 0);
}

#[test]
fn members_say_who_they_are_and_what_they_look_at() {
    let before = i64::try_from(now_ns()).unwrap();
    assert!(before > 1_600_000_000_000_000_000);
    let (_disk, one, other) = two();
    other.pin(Some(Tid(5)..=Tid(8)), 2);
    let after = i64::try_from(now_ns()).unwrap();
    let found = other.members().unwrap();
    let told = |member: &Member| (member.pid, member.is_same_process, member.snapshot);
    let pid = std::process::id();
    assert_eq!(
        found.iter().map(told).collect::<Vec<_>>(),
        [(pid, true, None), (pid, true, Some(Tid(5)))]
    );
    assert_eq!(found.iter().map(|member| member.is_self).collect::<Vec<_>>(), [false, true]);
    assert!(found.iter().all(|member| (before..=after).contains(&member.opened_ns)));
    assert_eq!(found[0].snapshot_since_ns, None);
    assert!(found[1].snapshot_since_ns.is_some_and(|since| (before..=after).contains(&since)));
    assert!(found.iter().all(|member| !member.is_expired));
    one.expire(1, Tid(5));
    assert!(!one.members().unwrap()[1].is_expired, "only those before it are over");
    one.expire(1, Tid(6));
    assert!(one.members().unwrap()[1].is_expired);
    other.pin(None, 2);
    let found = one.members().unwrap();
    assert_eq!((found[1].snapshot, found[1].snapshot_since_ns), (None, None));
    assert!(!found[1].is_expired);
    one.words.store(word_of(1, STARTED), 1);
    assert!(!one.members().unwrap()[1].is_same_process);
}

#[test]
fn a_word_with_a_number_is_not_taken_for_another_and_no_flipped_bit_for_one() {
    let (disk, one, _other) = two();
    for number in [0, 1, 2, 1_000, NUMBER_MASK - 2, NO_SNAPSHOT] {
        let stamp = one.stamp(number);
        assert_ne!(stamp, 0);
        one.words.store(NEWEST_WORD, stamp);
        assert_eq!(one.told(NEWEST_WORD), Told::Number(number));
        for bit in 0..64 {
            one.words.store(NEWEST_WORD, stamp ^ (1 << bit));
            assert_eq!(one.told(NEWEST_WORD), Told::Nonsense, "{number}, bit {bit}");
        }
    }
    one.words.store(NEWEST_WORD, 0);
    assert_eq!(one.told(NEWEST_WORD), Told::Nothing);
    let stamp = one.stamp(4);
    let stranger = Members::apart(&files(&disk, true), &[8; 16], LONG);
    assert_ne!(stranger.stamp(4), stamp, "another store's");
    assert_ne!(stranger.identity(), one.identity());
}

#[test]
fn the_newest_commit_is_raised_by_who_tells_and_set_back_by_who_knows() {
    let (_disk, one, other) = two();
    assert_eq!(one.newest(), None);
    one.publish(Tid(0));
    assert_eq!(other.newest(), Some(Tid(0)));
    for (told, newest) in [(4, 4), (3, 4), (4, 4), (5, 5)] {
        other.publish(Tid(told));
        assert_eq!(one.newest(), Some(Tid(newest)));
    }
    assert!(!one.raise(NEWEST_WORD, 5), "it is there already");
    assert!(one.raise(NEWEST_WORD, 6));
    one.correct(Tid(2));
    assert_eq!(other.newest(), Some(Tid(2)));
    one.words.store(NEWEST_WORD, 12_345);
    assert_eq!(other.newest(), None, "nonsense");
    other.publish(Tid(1));
    assert_eq!(one.newest(), Some(Tid(1)));
}

/// Words that nobody can write and nobody has woken, but for a count of who was to be woken.
#[derive(Debug)]
struct Watched {
    words: PrivateWords,
    is_writable: bool,
    woken: Mutex<Vec<usize>>,
    waited: Mutex<Vec<usize>>,
}

impl SharedWords for Watched {
    fn count(&self) -> usize {
        self.words.count()
    }
    fn load(&self, index: usize) -> u64 {
        self.words.load(index)
    }
    fn store(&self, index: usize, value: u64) {
        if self.is_writable {
            self.words.store(index, value);
        }
    }
    fn exchange(&self, index: usize, current: u64, new: u64) -> bool {
        self.is_writable && self.words.exchange(index, current, new)
    }
    fn wait(&self, index: usize, _: u64, _: Duration) {
        self.waited.lock().push(index);
    }
    fn wake(&self, index: usize) {
        self.woken.lock().push(index);
    }
}

fn watched(is_writable: bool) -> (Members, Arc<Watched>) {
    let (woken, waited) = (Mutex::default(), Mutex::default());
    let words = Arc::new(Watched { words: PrivateWords::new(WORDS), is_writable, woken, waited });
    let mut one = joined(&Simulated::new().unwrap());
    one.words = Arc::<Watched>::clone(&words);
    (one, words)
}

#[test]
fn who_waits_is_woken_by_each_newer_commit_and_by_the_lock_given_back() {
    let (one, words) = watched(true);
    let woken = || std::mem::take(&mut *words.woken.lock());
    one.publish(Tid(4));
    assert_eq!(woken(), [NEWEST_WORD]);
    one.publish(Tid(4));
    one.publish(Tid(3));
    one.correct(Tid(4));
    assert_eq!(woken(), [0; 0], "nothing is new");
    one.correct(Tid(2));
    assert_eq!(woken(), [NEWEST_WORD]);
    let released = words.load(RELEASED_WORD);
    one.lock_commits().unwrap();
    one.unlock_commits();
    assert_eq!(woken(), [RELEASED_WORD]);
    assert_eq!(words.load(RELEASED_WORD), released + 1);
}

#[test]
fn only_who_has_seen_the_newest_commit_waits() {
    let (one, words) = watched(true);
    let waits = |seen: u64| {
        one.wait(Tid(seen), LONG);
        !std::mem::take(&mut *words.waited.lock()).is_empty()
    };
    assert!(waits(0), "the newest is not known");
    one.publish(Tid(4));
    assert_eq!([3, 4, 5].map(waits), [false, true, true]);
}

#[test]
fn words_that_cannot_be_written_hold_nobody_up() {
    let (one, words) = watched(false);
    one.publish(Tid(4));
    assert_eq!(one.newest(), None);
    assert!(words.woken.lock().is_empty());
}

#[test]
fn the_floor_is_what_was_set_and_nothing_else_is_one() {
    let (_disk, one, other) = two();
    assert_eq!(one.floor(), Tid(0));
    one.set_floor(Tid(9));
    assert_eq!(other.floor(), Tid(9));
    one.words.store(FLOOR_WORD, 9);
    assert_eq!(other.floor(), Tid(0));
}

#[test]
fn a_place_says_the_oldest_and_the_newest_snapshot_and_the_chain() {
    let (_disk, one, other) = two();
    let number = |number: u64| Told::Number(number);
    assert_eq!(one.own_chain(), Told::Nothing);
    one.pin(Some(Tid(3)..=Tid(5)), 2);
    assert_eq!(other.others_pins().unwrap(), [(0, number(3), number(2))]);
    assert_eq!(one.own_chain(), number(2));
    let (newest, since) = (word_of(0, NEWEST_SNAPSHOT), word_of(0, PINNED_NS));
    assert_eq!(one.told(newest), number(5));
    assert_ne!(one.words.load(since), 0);
    one.words.store(since, 17);
    one.pin(Some(Tid(3)..=Tid(6)), 3);
    assert_eq!(one.words.load(since), 17, "it still looks at the same");
    assert_eq!((one.told(newest), one.own_chain()), (number(6), number(3)));
    one.pin(None, 3);
    assert_eq!(other.others_pins().unwrap(), [(0, number(NO_SNAPSHOT), number(3))]);
    assert_ne!(one.words.load(since), 17);
}

#[test]
fn a_snapshot_is_over_only_for_who_was_told_and_newer_ones_are_not() {
    let (_disk, one, other) = two();
    other.pin(Some(Tid(3)..=Tid(5)), 0);
    assert_eq!((other.expired(), one.is_expired(1, Tid(0))), (None, false));
    assert_eq!(one.not_expired(1), Some(Tid(0)));
    one.expire(1, Tid(4));
    assert_eq!(other.expired(), Some(Tid(4)));
    assert_eq!([3, 4, 5].map(|tid| one.is_expired(1, Tid(tid))), [true, false, false]);
    assert_eq!(one.expired(), None, "nobody told us");
    assert_eq!(one.not_expired(1), Some(Tid(4)));
    one.expire(1, Tid(5));
    assert_eq!(one.not_expired(1), Some(Tid(5)), "its newest is not over");
    one.expire(1, Tid(6));
    assert_eq!(one.not_expired(1), None);
    one.words.store(word_of(1, NEWEST_SNAPSHOT), 1);
    assert_eq!(one.not_expired(1), Some(Tid(6)), "nonsense: there may be one");
}

#[test]
fn the_commit_lock_is_for_one_and_who_waits_too_long_is_told_for_whom() {
    let (_disk, one, other) = two();
    one.lock_commits().unwrap();
    let since = now_ns() - 5_500_000_000;
    one.words.store(SINCE_WORD, since);
    let pid = std::process::id();
    match other.lock_commits().unwrap_err() {
        StorageError::Busy { pid: holder, seconds, .. } => {
            let most = (now_ns() - since) / 1_000_000_000;
            assert_eq!(holder, pid);
            assert!((5..=most).contains(&seconds), "{seconds} of {most}");
        }
        error => panic!("{error}"),
    }
    one.unlock_commits();
    assert_eq!(one.words.load(HOLDER_WORD), 0);
    let released = now_ns();
    other.lock_commits().unwrap();
    assert_eq!(one.words.load(HOLDER_WORD), u64::from(pid));
    assert!((released..=now_ns()).contains(&one.words.load(SINCE_WORD)));
    assert!(one.lock_commits().is_err());
}

#[test]
fn who_waits_for_the_commit_lock_gets_it_as_soon_as_it_is_given_back() {
    let (_disk, one, mut other) = two();
    other.wait = LONG;
    one.lock_commits().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| other.lock_commits().is_ok());
        thread::sleep(5 * NAP);
        one.unlock_commits();
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn each_lock_is_for_one_and_no_lock_is_another() {
    type Take = fn(&Members) -> Result<bool, StorageError>;
    type Give = fn(&Members);
    let locks: [(Take, Give); 5] = [
        (Members::try_lock_sync, Members::unlock_sync),
        (Members::try_lock_checkpoint, Members::unlock_checkpoint),
        (Members::try_lock_readers_out, Members::unlock_readers),
        (|of| of.try_lock_data(0), |of| of.unlock_data(0)),
        (|of| of.try_lock_data(1), |of| of.unlock_data(1)),
    ];
    let (_disk, one, other) = two();
    one.lock_commits().unwrap();
    for (take, _) in locks {
        assert!(take(&one).unwrap(), "nobody has it");
        assert!(!take(&other).unwrap(), "one has it");
    }
    for (take, give) in locks {
        give(&one);
        assert!(take(&other).unwrap());
        assert!(!take(&one).unwrap());
    }
}

#[test]
fn who_only_reads_and_has_no_place_keeps_packs_out_and_is_kept_out_by_them() {
    let (disk, one, _other) = two();
    let reader = readers(&disk).unwrap();
    assert_eq!((reader.place, reader.expired()), (None, None));
    let again = readers(&disk).unwrap();
    assert!(!one.try_lock_readers_out().unwrap());
    drop(reader);
    assert!(!one.try_lock_readers_out().unwrap(), "another is left");
    drop(again);
    assert!(one.try_lock_readers_out().unwrap());
    let why = readers(&disk).err().unwrap();
    assert!(why.to_string().contains("another process packs it"), "{why}");
    one.unlock_readers();
    assert_eq!(readers(&disk).unwrap().words.count(), WORDS);
}

#[test]
fn who_only_reads_maps_no_more_than_there_is() {
    let disk = Simulated::new().unwrap();
    assert!(readers(&disk).unwrap().shared.is_none(), "there is no such file");
    let file = disk.create(SHARED_PATH).unwrap();
    file.set_len(SHARED_BYTES - 1).unwrap();
    let reader = readers(&disk).unwrap();
    assert_eq!((reader.words.count(), reader.shared.is_some()), (0, true));
}

/// A disk on which nothing can be opened for writing.
struct ReadOnly(Simulated);

impl Backend for ReadOnly {
    fn location(&self) -> String {
        self.0.location()
    }
    fn create_root(&self) -> std::io::Result<()> {
        self.0.create_root()
    }
    fn create_dir(&self, path: &str) -> std::io::Result<()> {
        self.0.create_dir(path)
    }
    fn create(&self, path: &str) -> std::io::Result<Arc<dyn BackendFile>> {
        self.0.create(path)
    }
    fn create_unnamed(&self) -> std::io::Result<Arc<dyn BackendFile>> {
        self.0.create_unnamed()
    }
    fn open(&self, path: &str, access: Access) -> std::io::Result<Arc<dyn BackendFile>> {
        match access {
            Access::Read => self.0.open(path, access),
            Access::Write => Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }
    fn list(&self, path: &str) -> std::io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, path: &str) -> std::io::Result<()> {
        self.0.sync_dir(path)
    }
}

#[test]
fn who_reads_creates_nothing_and_who_writes_must_be_able_to() {
    let disk = Simulated::new().unwrap();
    let join = |files: Files| Members::join(&files, &KEY, mapped, Duration::ZERO);
    let reader = join(files(&disk, false)).unwrap();
    assert_eq!((reader.place, reader.shared.is_some()), (None, false));
    assert!(disk.open(SHARED_PATH, Access::Read).is_err(), "it made no file");
    let file = disk.create(SHARED_PATH).unwrap();
    assert_eq!(join(files(&disk, false)).unwrap().place, None);
    assert_eq!(file.len().unwrap(), 0, "it made no file longer");
    let writer = joined(&disk);
    assert_eq!(join(files(&disk, false)).unwrap().place, Some(1), "it may, so it has a place");
    let backend: Arc<dyn Backend> = Arc::new(ReadOnly(disk.clone()));
    let on_it = |writable: bool| Files::new(Arc::clone(&backend), writable);
    let reader = join(on_it(false)).unwrap();
    assert_eq!((reader.place, reader.shared.is_some()), (None, true));
    assert!(!writer.try_lock_readers_out().unwrap());
    assert!(join(on_it(true)).is_err());
}

#[test]
fn words_of_another_store_are_forgotten_and_ours_are_kept() {
    let (_disk, one, _other) = two();
    let all = [NEWEST_WORD, FLOOR_WORD, RELEASED_WORD, UNSETTLED_WORD];
    let set = || all.into_iter().for_each(|word| one.words.store(word, 3));
    let left = || all.map(|word| one.words.load(word));
    set();
    one.prepare();
    assert_eq!(left(), [0; 4], "nobody had prepared them");
    set();
    one.prepare();
    assert_eq!(left(), [3; 4]);
    one.words.store(IDENTITY_WORD, one.identity() ^ 1);
    one.prepare();
    assert_eq!(left(), [0; 4], "another store's");
    set();
    one.forget();
    one.prepare();
    assert_eq!(left(), [0; 4], "forgotten");
    one.words.store(IDENTITY_WORD, 0);
    one.prepare();
    assert_eq!(one.words.load(IDENTITY_WORD) >> 32, 1, "never 0, whatever the key");
}

#[test]
fn what_is_unsettled_stays_so_until_it_is_settled() {
    let (_disk, one, other) = two();
    assert!(!one.is_unsettled());
    one.set_unsettled();
    assert!(other.is_unsettled());
    other.set_settled();
    assert!(!one.is_unsettled());
}

#[test]
fn a_child_of_fork_says_nothing_and_gives_nothing_back() {
    let (_disk, mut one, other) = two();
    one.pin(Some(Tid(3)..=Tid(3)), 1);
    one.lock_commits().unwrap();
    // What a child has: all of its parent's memory and files, and another number.
    let _parents = one.shared.clone();
    one.process += 1;
    one.pin(None, 7);
    one.unlock_commits();
    assert!(other.lock_commits().is_err());
    drop(one);
    assert_eq!(other.others_pins().unwrap(), [(0, Told::Number(3), Told::Number(1))]);
    assert!(!other.is_alone().unwrap());
}

#[test]
fn who_ends_gives_back_also_what_a_child_of_fork_still_has_open() {
    let (disk, one, other) = two();
    let childs = [other.shared.clone(), one.shared.clone()];
    drop(other);
    assert!(one.is_alone().unwrap());
    drop(one);
    assert_eq!(joined(&disk).place, Some(0));
    drop(childs);
    let reader = readers(&disk).unwrap();
    let _childs = reader.shared.clone();
    drop(reader);
    assert!(joined(&disk).try_lock_readers_out().unwrap());
}

#[test]
fn without_a_file_there_is_nobody_else() {
    let disk = Simulated::new().unwrap();
    let one = Members::apart(&files(&disk, true), &KEY, Duration::ZERO);
    one.pin(Some(Tid(1)..=Tid(1)), 1);
    assert!(one.is_alone().unwrap() && one.file().is_none());
    assert!(one.members().unwrap().is_empty() && one.others_pins().unwrap().is_empty());
    assert!(one.try_lock_data(3).unwrap() && one.try_lock_sync().unwrap());
    assert_eq!(one.own_chain(), Told::Nothing);
    assert!(joined(&disk).file().is_some());
}
