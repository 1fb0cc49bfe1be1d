//! The words that processes share: any bytes are written into them while two handles of one store
//! are at work, each with its own locks and mapping, as two processes have them.
//!
//! ```text
//! 10 bytes for each step:   what | where, a word | a value, 8 bytes
//! ```
//!
//! # Invariants
//!
//! 1. Whatever the words say, commits succeed, and the last one is what is read next, through
//!    either handle and after opening again: bytes that nobody of us wrote there are not believed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ndarray::Ix1;
use zbigarray::{CreateOptions, Error, Keep, OpenOptions, Store, Tid};

use super::mutate::EXTREMES;

/// Steps of a script that count.
const STEPS_MAX: usize = 48;
/// Words of the file.
const WORDS: u64 = 8 << 10;

/// A script with every step, on words in use, and one that only writes.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let step = |what: u8, word: u16, value: u64| {
        let mut step = vec![what];
        step.extend(word.to_le_bytes());
        step.extend(&value.to_le_bytes()[..7]);
        step
    };
    // Somebody commits, the word changes, both look: by turns.
    let all = (0..72_u8).flat_map(|n| {
        let (word, who) = (u16::from(n / 3) * 2, n % 2 * 12);
        let value = [1, 2, u64::MAX][usize::from(n % 3)];
        [step(5 + who, 0, 0), step(0, word, value), step(n % 12, word, value), step(8, 0, 0)]
            .concat()
    });
    let all: Vec<u8> = all.collect();
    all.chunks(STEPS_MAX * 10).map(<[u8]>::to_vec).chain([step(0, 9, u64::MAX)]).collect()
}

/// Two handles of a store, and what must be in it.
struct Company {
    handles: [Store; 2],
    words: File,
    acknowledged: u64,
}

/// Runs a script.
///
/// # Panics
///
/// If a value is lost, or the library panics.
pub(crate) fn run(script: &[u8]) {
    let memory = Path::new("/dev/shm");
    let directory = tempfile::Builder::new().tempdir_in(memory).expect("memory");
    let path = directory.path().join("s");
    let first = Store::create(&path, CreateOptions::default()).expect("a new store");
    let transaction = first.begin().expect("a transaction");
    drop(transaction.create::<u64, Ix1>("a", &[1]).expect("an array"));
    transaction.commit().expect("a commit");
    let words = File::options().write(true).open(path.join("shared")).expect("the words");
    let open = || Store::open(&path, OpenOptions::default());
    let second = open().expect("the store opens again");
    let mut company = Company { handles: [first, second], words, acknowledged: 0 };
    for step in script.chunks_exact(10).take(STEPS_MAX) {
        let &[what, low, high, ref value @ ..] = step else { break };
        let value = value.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        if what % 12 == 11 {
            company.handles[usize::from(what / 12 % 2)] = open().expect("the store opens");
            continue;
        }
        company.step(what, u64::from(low) | u64::from(high) << 8, value);
    }
    let acknowledged = company.acknowledged;
    drop(company);
    let store = open().expect("the store opens when nobody has it open");
    assert_eq!(read(&store), Some(acknowledged));
    let report = store.check(true, &mut |_, _| {}).expect("the store can be checked");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

impl Company {
    fn step(&mut self, what: u8, place: u64, value: u64) {
        let store = self.handles[usize::from(what / 12 % 2)].clone();
        // The first words say most, so half of the writes go there.
        let word = if place.is_multiple_of(2) { place / 2 % 48 } else { place % WORDS };
        match what % 12 {
            0..=2 => self.write(word, value),
            3 => self.write(word, EXTREMES[usize::from(value.to_le_bytes()[0]) % EXTREMES.len()]),
            4 => (word..word + 8).for_each(|word| self.write(word, value)),
            5 | 6 => {
                self.acknowledged += 1;
                commit(&store, self.acknowledged).expect("a commit");
            }
            7 => drop(store.pack(Keep::Head)),
            8 => {
                for store in &self.handles {
                    assert_eq!(read(store), Some(self.acknowledged));
                }
            }
            9 => drop(store.checkpoint()),
            _ => drop(store.members()),
        }
    }

    fn write(&self, word: u64, value: u64) {
        let at = word % WORDS * 8;
        self.words.write_all_at(&value.to_le_bytes(), at).expect("the words can be written");
    }
}

fn commit(store: &Store, value: u64) -> Result<Tid, Error> {
    let transaction = store.begin()?;
    transaction.open::<u64, Ix1>("a")?.rows_mut(0..1)?[0] = value;
    Ok(transaction.commit()?)
}

fn read(store: &Store) -> Option<u64> {
    let transaction = store.begin_read().ok()?;
    let array = transaction.open::<u64, Ix1>("a").expect("the array is there");
    Some(array.rows(0..1).expect("it has a row")[0])
}
