//! Several processes, one store: what they see of each other, alive, stopped, killed and forked.
//!
//! ```text
//! test: starts children | talks to them by lines | stops, kills, looks at what is left
//! child: this program, told by the environment which part to play
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Ix1, arr1};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use zbigarray::storage::backend::{Backend, Directory};
use zbigarray::storage::engine::CommitLog;
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::txn::StorageError;
use zbigarray::{CommitError, CreateOptions, Keep, OpenOptions, Store, Tid, TransactionError};

const PART: &str = "ZBA_COMPANY_PART";
const STORE: &str = "ZBA_COMPANY_STORE";
/// Elements of a block of 64 KiB.
const BLOCK: u64 = 8192;

/// A child that plays a part.
pub(crate) struct Player {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    pub(crate) fn start(part: &str, store: &Path) -> Self {
        Self::of(Command::new(std::env::current_exe().unwrap()), part, store)
    }

    pub(crate) fn of(mut command: Command, part: &str, store: &Path) -> Self {
        command.args(["--exact", "scenes::a_player", "--nocapture", "--test-threads", "1"]);
        command.env(PART, part).env(STORE, store).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut player = Self { child, input, output: BufReader::new(output) };
        assert_eq!(player.hear(), "ready");
        player
    }

    /// The next line of the child's part; the test harness says other things.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the child ended");
            if let Some((_, said)) = line.split_once("> ") {
                return said.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        // The kernel stops a process before this returns, but its other threads a moment later.
        std::thread::sleep(Duration::from_millis(20));
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn reply(line: &str) {
    println!("> {line}");
    std::io::stdout().flush().unwrap();
}

/// The child: does nothing unless the environment says so.
#[test]
fn a_player() {
    let (Some(part), Some(store)) = (std::env::var_os(PART), std::env::var_os(STORE)) else {
        return;
    };
    match part.to_str().unwrap() {
        "writer" => writer(Path::new(&store), OpenOptions::default()),
        "reader" => reader(Path::new(&store)),
        "holder" => holder(Path::new(&store)),
        "committer" => committer(Path::new(&store)),
        "looker" => super::slots::looker(Path::new(&store), false),
        "reading looker" => super::slots::looker(Path::new(&store), true),
        "churner" => super::slots::churner(Path::new(&store)),
        "copier" => super::slots::copier(Path::new(&store)),
        other => panic!("no part {other}"),
    }
}

pub(crate) fn lines() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map_while(Result::ok)
}

/// Commits `set INDEX VALUE`, and says what it sees.
fn writer(path: &Path, options: OpenOptions) {
    let store = Store::open(path, options).unwrap();
    reply("ready");
    for line in lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["set", index, value] => {
                let transaction = store.begin().unwrap();
                let mut array = transaction.open::<u64, Ix1>("a").unwrap();
                array.set(index, value.parse().unwrap()).unwrap();
                drop(array);
                match transaction.commit() {
                    Ok(tid) => reply(&tid.to_string()),
                    Err(error) => reply(&format!("error: {error}")),
                }
            }
            ["pack"] => reply(&format!("{:?}", store.pack(Keep::Head).map(|done| done.oldest))),
            ["wait", after] => {
                let after = Tid(after.parse().unwrap());
                reply("waiting");
                let tid = store.wait(after, Duration::from_secs(20)).unwrap();
                reply(&tid.to_string());
            }
            _ => panic!("{line}"),
        }
    }
}

/// Holds a snapshot.
fn reader(path: &Path) {
    let store = Store::open(path, OpenOptions::read_only()).unwrap();
    let transaction = store.begin_read().unwrap();
    let array = transaction.open::<u64, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    reply("ready");
    for line in lines() {
        match line.as_str() {
            "sum" => reply(&view.iter().fold(0u64, |a, b| a.wrapping_add(*b)).to_string()),
            "read" => match array.rows(0..1) {
                Ok(row) => reply(&row[0].to_string()),
                Err(error) => reply(&format!("error: {error}")),
            },
            "again" => {
                let now = store.begin_read().unwrap();
                let row = now.open::<u64, Ix1>("a").unwrap().rows(0..1).unwrap()[0];
                reply(&row.to_string());
            }
            "memory" => {
                let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
                let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
                reply(pss.split_whitespace().next().unwrap());
            }
            _ => panic!("{line}"),
        }
    }
}

/// Takes the commit lock and keeps it.
fn holder(path: &Path) {
    let backend: Arc<dyn Backend> = Arc::new(Directory::new(path));
    let options = LocalOptions { map_words: zbigarray::txn::map_words, ..LocalOptions::default() };
    let (engine, _) = LocalEngine::open(&backend, Mode::ReadWrite, &options).unwrap();
    let _lock = engine.lock().unwrap();
    reply("ready");
    lines().for_each(drop);
}

/// Commits for ever.
fn committer(path: &Path) {
    let store = Store::open(path, OpenOptions::default()).unwrap();
    reply("ready");
    for n in 0.. {
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u64, Ix1>("a").unwrap();
        // Blocks, so that extents are written, too.
        let first = n % 8 * BLOCK;
        array.rows_mut(first..first + BLOCK).unwrap().fill(n);
        drop(array);
        match transaction.commit() {
            Ok(_) | Err(CommitError::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A store with an array `a` of `len` elements.
fn new_store(len: u64) -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = CreateOptions::default();
    options.block_bytes = 64 << 10;
    let store = Store::create(directory.path().join("s"), options).unwrap();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u64, Ix1>("a", &[len]).unwrap());
    transaction.commit().unwrap();
    (directory, store)
}

fn set(store: &Store, index: u64, value: u64) -> Result<Tid, CommitError> {
    let transaction = store.begin().unwrap();
    transaction.open::<u64, Ix1>("a").unwrap().set(index.to_string().as_str(), value).unwrap();
    transaction.commit()
}

fn get(store: &Store, index: u64) -> u64 {
    let transaction = store.begin_read().unwrap();
    transaction.open::<u64, Ix1>("a").unwrap().rows(index..index + 1).unwrap()[0]
}

#[test]
fn what_was_acknowledged_is_visible_at_once_and_nothing_else() {
    let (_directory, store) = new_store(1000);
    let mut other = Player::start("writer", store.path());
    let old = store.begin_read().unwrap();
    for n in 1..100 {
        let tid = other.ask(&format!("set 7 {n}"));
        assert_eq!((get(&store, 7), store.head().to_string()), (n, tid));
        set(&store, 8, n).unwrap();
        assert!(!other.ask(&format!("set 8 {}", n + 1000)).starts_with("error"));
        assert_eq!(get(&store, 8), n + 1000, "it began on ours, so there is no conflict");
    }
    assert_eq!(old.open::<u64, Ix1>("a").unwrap().rows(7..9).unwrap(), arr1(&[0, 0]));
}

#[test]
fn pages_conflict_between_processes_as_within_one() {
    let (_directory, store) = new_store(10_000);
    let mut other = Player::start("writer", store.path());
    let transaction = store.begin().unwrap();
    transaction.open::<u64, Ix1>("a").unwrap().set("0", 1).unwrap();
    other.ask("set 9000 5");
    transaction.commit().expect("other pages");
    let transaction = store.begin().unwrap();
    transaction.open::<u64, Ix1>("a").unwrap().set("0", 2).unwrap();
    other.ask("set 3 5");
    assert!(matches!(transaction.commit(), Err(CommitError::Conflict(_))));
    assert_eq!((get(&store, 0), get(&store, 3)), (1, 5));
}

#[test]
fn a_waiter_wakes_when_another_process_commits() {
    let (_directory, store) = new_store(1000);
    let mut other = Player::start("writer", store.path());
    let mut times = Vec::new();
    for n in 0..30 {
        let head = store.head();
        assert_eq!(other.ask(&format!("wait {}", head.0)), "waiting");
        std::thread::sleep(Duration::from_millis(5));
        let tid = set(&store, 0, n).unwrap();
        let begin = Instant::now();
        assert_eq!(other.hear(), tid.to_string());
        times.push(begin.elapsed());
    }
    // Who is not woken looks again after a tenth of a second. A busy machine holds up some of
    // thirty wake-ups so long, and not all.
    assert!(times.iter().any(|time| *time < Duration::from_millis(50)), "{times:?}");
    let newest = store.wait(store.head(), Duration::from_millis(20)).unwrap();
    assert_eq!(newest, store.head());
}

#[test]
fn commits_of_others_are_followed_one_by_one() {
    let (_directory, store) = new_store(1000);
    let mut other = Player::start("writer", store.path());
    let mut follow = store.follow(Tid(1));
    for n in 2..40 {
        other.ask(&format!("set {n} {n}"));
        let record = follow.next().unwrap().unwrap();
        assert_eq!((record.tid, record.data.len()), (Tid(n), 1));
    }
    assert!(follow.next_within(Duration::from_millis(10)).unwrap().is_none());
}

#[test]
fn who_holds_the_commit_lock_is_named_and_its_death_sets_it_free() {
    let (_directory, store) = new_store(1000);
    let mut other = Player::start("holder", store.path());
    other.signal(Signal::SIGSTOP);
    let error = set(&store, 0, 1).unwrap_err();
    let CommitError::NotCommitted(TransactionError::Storage(StorageError::Busy { pid, .. })) =
        &error
    else {
        panic!("{error}")
    };
    assert_eq!(*pid, other.child.id());
    let waiting = std::thread::spawn({
        let store = store.clone();
        move || set(&store, 0, 2)
    });
    std::thread::sleep(Duration::from_millis(50));
    other.kill();
    waiting.join().unwrap().expect("it would have given up after ten seconds");
    assert_eq!(get(&store, 0), 2);
}

#[test]
fn a_killed_process_leaves_no_place_no_lock_and_no_space_behind() {
    let (_directory, store) = new_store(8 * BLOCK);
    let mut used = Vec::new();
    for round in 0..12 {
        let mut others: Vec<_> = (0..2).map(|_| Player::start("committer", store.path())).collect();
        std::thread::sleep(Duration::from_millis(10 + 7 * round));
        assert_eq!(store.members().unwrap().len(), 3);
        others.iter_mut().for_each(Player::kill);
        // Were a lock left, they would give up after ten seconds.
        if let Err(error) = set(&store, round, round) {
            // A commit that its dead writer was not told of came first: once.
            assert!(matches!(error, CommitError::Conflict(_)), "{error}");
            set(&store, round, round).unwrap();
        }
        assert_eq!(store.members().unwrap().len(), 1);
        store.pack(Keep::Head).unwrap();
        let report = store.check(true, &mut |_, _| {}).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        used.push(store.usage().unwrap().data_bytes);
    }
    // What a dead process had set aside is given out again: the array has half a MiB.
    assert!(used.iter().all(|&bytes| bytes <= 12 << 20), "{used:?}");
}

#[test]
fn a_stopped_reader_keeps_its_snapshot_until_it_holds_too_much_and_then_is_told() {
    let (directory, store) = new_store(8 * BLOCK);
    drop(store);
    let mut options = OpenOptions::default();
    options.held_bytes_max = 2 << 20;
    let store = Store::open(directory.path().join("s"), options).unwrap();
    let fill = |value: u64| {
        let transaction = store.begin().unwrap();
        transaction.open::<u64, Ix1>("a").unwrap().set("...", value).unwrap();
        transaction.commit().unwrap()
    };
    let seen = fill(3);
    let mut reader = Player::start("reader", store.path());
    let sum = (3 * 8 * BLOCK).to_string();
    assert_eq!(reader.ask("sum"), sum);
    reader.signal(Signal::SIGSTOP);
    fill(4);
    assert_eq!(store.pack(Keep::Head).unwrap().oldest, seen, "it is kept");
    for value in 5..30 {
        fill(value);
    }
    assert!(store.pack(Keep::Head).unwrap().oldest > seen, "it held too much");
    let members = store.members().unwrap();
    assert!(members.iter().any(|member| member.is_expired && !member.is_self));
    for value in 30..60 {
        fill(value);
        store.pack(Keep::Head).unwrap();
    }
    reader.signal(Signal::SIGCONT);
    assert_eq!(reader.ask("sum"), sum, "what it has mapped is what it was");
    assert!(reader.ask("read").contains("expired"));
    assert_eq!(reader.ask("again"), "59");
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
    assert!(report.held_bytes > 0);
    reader.kill();
    store.pack(Keep::Head).unwrap();
    fill(60);
    store.pack(Keep::Head).unwrap();
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!((report.damage, report.held_bytes), (Vec::new(), 0));
}

#[test]
fn who_may_not_write_reads_what_others_commit() {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: becoming another user needs root");
        return;
    }
    let (directory, store) = new_store(1000);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    // The program itself must be where everybody may start it.
    let program = directory.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(program);
    command.uid(65534).gid(65534).current_dir("/");
    let mut reader = Player::of(command, "reader", store.path());
    for n in 1..5 {
        set(&store, 0, n).unwrap();
        assert_eq!(reader.ask("again"), n.to_string());
    }
    assert_eq!(reader.ask("read"), "0", "its own snapshot does not change");
    let error = store.pack(Keep::Head).unwrap_err();
    assert!(error.to_string().contains("may not write"), "{error}");
    reader.kill();
    store.pack(Keep::Head).unwrap();
}

#[test]
fn readers_share_their_memory() {
    const LEN: u64 = 16 << 20;
    let (_directory, store) = new_store(LEN);
    let transaction = store.begin().unwrap();
    transaction.open::<u64, Ix1>("a").unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    let mut readers: Vec<_> = (0..4).map(|_| Player::start("reader", store.path())).collect();
    let before: u64 = readers.iter_mut().map(|it| it.ask("memory").parse::<u64>().unwrap()).sum();
    readers.iter_mut().for_each(|reader| assert_eq!(reader.ask("sum"), LEN.to_string()));
    let after: u64 = readers.iter_mut().map(|it| it.ask("memory").parse::<u64>().unwrap()).sum();
    let shared = LEN * 8 / 1024;
    let growth = after - before;
    assert!(growth <= shared + shared / 10, "{growth} KiB of {shared}");
    assert!(growth >= shared / 2, "they have looked at it: {growth} KiB");
}
