//! Many processes at work for a long time: nothing they see is wrong, and nothing piles up.
//!
//! ```text
//! array "accounts"  a number on each of 64 pages; transactions move amounts: the sum stays
//! array "blocks"    8 blocks of 2 MiB; each holds one number, over and over
//! array "rows"      grows by appends until it is emptied
//! array "t/N"       made, filled and removed
//! children          do all that, are killed and stopped; writes of some fail; the store is packed
//! this process      reads, holds old snapshots, does it too, and measures itself every second
//! ```
//!
//! # Failure
//!
//! A wrong value fails at once. What grows is told at the end, as the least value early and late.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ndarray::{Array1, Ix1};
use zbigarray::txn::CatalogChange;
use zbigarray::txn::TransactionError;
use zbigarray::{ArrayError, CommitError, CreateOptions, Keep, OpenOptions, Store, Transaction};

use super::children::{Ends, Plan, be_a_child, files, give_up, live_and_die, number, store_in};
use super::dice::Dice;

const ACCOUNTS: u64 = 64;
/// Elements from one account to the next: a page.
const APART: u64 = 512;
const EACH: u64 = 1000;
const BLOCKS: u64 = 8;
const BLOCK_LEN: u64 = (2 << 20) / 8;
/// Rows that are too many.
const ROWS_MAX: u64 = 1 << 20;

/// What the arrays of the store need at most, with logs and what files set aside, in KiB.
const LEFT_KIB_MAX: u64 = 160 << 10;

/// Of fewer samples, one a second, nothing is said of what grows.
const SAMPLES_MIN: usize = 20;

/// Why a transaction ended otherwise.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn create(store: &Store) {
    let transaction = store.begin().unwrap();
    let mut accounts = transaction.create::<u64, Ix1>("accounts", &[ACCOUNTS * APART]).unwrap();
    let mut view = accounts.view_mut().unwrap();
    (0..ACCOUNTS).for_each(|at| view[index(at * APART)] = EACH);
    drop(accounts);
    drop(transaction.create::<u64, Ix1>("blocks", &[BLOCKS * BLOCK_LEN]).unwrap());
    drop(transaction.create::<u64, Ix1>("rows", &[0]).unwrap());
    transaction.commit().unwrap();
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

/// Does all that can be done.
struct Player {
    store: Store,
    dice: Dice,
}

impl Player {
    /// One transaction, which may be refused.
    fn turn(&mut self) -> Result<(), Failure> {
        let transaction = self.store.begin()?;
        match self.dice.below(8) {
            0..4 => self.transfer(&transaction)?,
            4 => self.fill(&transaction)?,
            5..7 => self.append(&transaction)?,
            _ => self.come_and_go(&transaction)?,
        }
        if self.dice.once_in(10) {
            transaction.abort();
            return Ok(());
        }
        match transaction.commit() {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn transfer(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let mut accounts = transaction.open::<u64, Ix1>("accounts")?;
        let (from, to) = (self.dice.below(ACCOUNTS) * APART, self.dice.below(ACCOUNTS) * APART);
        let there = accounts.rows(from..from + 1)?[0];
        let amount = self.dice.below(there + 1);
        accounts.rows_mut(from..from + 1)?[0] -= amount;
        accounts.rows_mut(to..to + 1)?[0] += amount;
        Ok(())
    }

    fn fill(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let mut blocks = transaction.open::<u64, Ix1>("blocks")?;
        let block = self.dice.below(BLOCKS) * BLOCK_LEN;
        blocks.rows_mut(block..block + BLOCK_LEN)?.fill(self.dice.next());
        Ok(())
    }

    fn append(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let mut rows = transaction.open::<u64, Ix1>("rows")?;
        if self.dice.once_in(4) && rows.len()? > ROWS_MAX {
            rows.resize(&[0])?;
        }
        rows.append(&Array1::from_elem(index(1 + self.dice.below(1 << 14)), 7))?;
        Ok(())
    }

    fn come_and_go(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let name = format!("t/{}", self.dice.below(8));
        match transaction.open::<u64, Ix1>(&name).map(drop) {
            Ok(()) => transaction.change(CatalogChange::Remove { name: Arc::from(name) })?,
            Err(ArrayError::NotFound { .. }) => {
                let len = 1 + self.dice.below(1 << 18);
                let mut array = transaction.create::<u64, Ix1>(&name, &[len])?;
                array.view_mut()?.fill(9);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Looks at a snapshot, all of which must fit together, and keeps it for `time`.
fn look(store: &Store, time: Duration) -> Result<(), TransactionError> {
    let reader = store.begin_read()?;
    let accounts = reader.open::<u64, Ix1>("accounts").unwrap();
    let blocks = reader.open::<u64, Ix1>("blocks").unwrap();
    let (accounts, blocks) = (accounts.view().unwrap(), blocks.view().unwrap());
    let before = blocks.to_owned();
    for turn in 0..2 {
        assert_eq!(accounts.sum(), ACCOUNTS * EACH, "at {}", reader.base());
        for block in blocks.exact_chunks(index(BLOCK_LEN)) {
            assert!(block.iter().all(|value| value == &block[0]), "at {}", reader.base());
        }
        assert!(blocks == before, "the snapshot of {} changed", reader.base());
        if turn == 0 {
            thread::sleep(time);
        }
    }
    let rows = reader.open::<u64, Ix1>("rows").unwrap();
    assert!(rows.view().unwrap().iter().all(|&row| row == 7), "at {}", reader.base());
    Ok(())
}

/// The child: does nothing unless the environment says so.
#[test]
fn a_worker_process() {
    be_a_child(|store, _, worker| {
        let mut player = Player { store, dice: Dice::new(&[u64::from(worker)]) };
        move || {
            if let Err(error) = player.turn() {
                eprintln!("child of {worker}: {error}");
                give_up();
            }
        }
    });
}

/// What must not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sample {
    /// Private memory, in KiB.
    memory: u64,
    descriptors: u64,
    mappings: u64,
    /// The store's files as they take space, in KiB.
    disk: u64,
}

impl Sample {
    fn take(store: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let disk = files(store).iter().map(|file| file.blocks()).sum::<u64>() / 2;
        Self { memory, descriptors, mappings: maps.lines().count() as u64, disk }
    }

    fn values(&self) -> [(&'static str, u64, u64); 4] {
        [
            ("private memory, KiB", self.memory, 64 << 10),
            ("open descriptors", self.descriptors, 16),
            ("mappings", self.mappings, 200),
            ("disk, KiB", self.disk, 512 << 10),
        ]
    }
}

/// What grew: the smallest value of the last third is above that of the second of five fifths by
/// more than a fifth and what counts as nothing. Peaks come and go with packs and with snapshots
/// that are looked at; what piles up raises what it is at least.
fn grown(samples: &[Sample]) -> Vec<String> {
    let smallest = |part: &[Sample], at: usize| part.iter().map(|it| it.values()[at].1).min();
    let count = samples.len();
    let early = &samples[count / 5..(count * 2 / 5).max(count / 5 + 1)];
    let late = &samples[count * 2 / 3..];
    let grown = (0..4).filter_map(|at| {
        let (name, _, slack) = early[0].values()[at];
        let (early, late) = (smallest(early, at)?, smallest(late, at)?);
        let most = samples.iter().map(|it| it.values()[at].1).max()?;
        println!("{name}: at least {early} early, {late} late; at most {most}");
        (late > early + early / 5 + slack).then(|| format!("{name}: {early}, later {late}"))
    });
    grown.collect()
}

#[test]
fn what_grows_is_noticed() {
    let level = Sample { memory: 300_000, descriptors: 40, mappings: 900, disk: 800_000 };
    assert_eq!(grown(&[level; 30]), [""; 0]);
    let leaks: [fn(&mut Sample, u64); 4] = [
        |sample, at| sample.memory += at * 12_000,
        |sample, at| sample.descriptors += at * 2,
        |sample, at| sample.mappings += at * 30,
        |sample, at| sample.disk += at * 80_000,
    ];
    for leak in leaks {
        let samples = (0..30).map(|at| {
            let mut sample = level;
            leak(&mut sample, at);
            sample
        });
        assert_eq!(grown(&samples.collect::<Vec<_>>()).len(), 1);
    }
}

#[test]
fn processes_at_work_for_long_see_nothing_wrong_and_pile_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = Store::create(store_in(directory), CreateOptions::default()).unwrap();
    create(&store);
    let plan = Plan { seed: 10, at_once: 3, deaths: 8, failing_writes: true, ..Plan::default() };
    let plan = plan.or_as_told();
    let leaks = number("ZBA_SOAK_LEAK", 0) > 0;
    let done = AtomicBool::new(false);
    let goes_on = || !done.load(Ordering::Relaxed);
    let samples = thread::scope(|scope| {
        scope.spawn(|| {
            let _end = Ends(&done);
            let test = "soak::a_worker_process";
            live_and_die(directory, &store, Keep::Head, test, plan);
        });
        scope.spawn(|| {
            let _end = Ends(&done);
            let mut player = Player { store: store.clone(), dice: Dice::new(&[1 << 40]) };
            while goes_on() {
                player.turn().unwrap();
            }
        });
        for milliseconds in [0, 50, 2000] {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let _end = Ends(done);
                while goes_on() {
                    look(store, Duration::from_millis(milliseconds)).unwrap();
                }
            });
        }
        let (mut samples, mut kept, begun) = (Vec::new(), Vec::new(), Instant::now());
        while goes_on() {
            let next = Duration::from_secs(samples.len() as u64 + 1);
            while goes_on() && begun.elapsed() < next {
                thread::sleep(Duration::from_millis(20));
            }
            samples.push(Sample::take(store.path()));
            if leaks {
                kept.push(store.begin_read().unwrap());
            }
        }
        samples
    });
    // Of a few seconds the first ones are those in which everything begins.
    if samples.len() >= SAMPLES_MIN {
        assert_eq!(grown(&samples), [""; 0]);
    }
    // When nobody looks at old commits any more, a pack leaves what the arrays need.
    store.pack(Keep::Head).unwrap();
    store.pack(Keep::Head).unwrap();
    let left = Sample::take(store.path()).disk;
    println!("disk, KiB: {left} in the end");
    assert!(left <= LEFT_KIB_MAX, "{left} KiB are left");
    drop(store);
    let store = Store::open(store_in(directory), OpenOptions::default()).unwrap();
    look(&store, Duration::ZERO).unwrap();
    assert_eq!(store.check(true, &mut |_, _| {}).unwrap().damage, []);
}
