//! Processes that append to one array at once and are killed and stopped meanwhile: each row that
//! was told is there once, where it was told, and each append lies in one piece.
//!
//! ```text
//! array "rows"   | 7 1 0 3 | 7 1 1 3 | 7 1 2 3 | 4 1 0 1 | 7 2 0 2 | 7 2 1 2 | ...
//!                  worker, its append, row of it, rows of it
//! ```
//!
//! A worker writes down where its rows are once a commit has said so: `append first rows tid`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis, Ix2};
use zbigarray::{CommitError, CreateOptions, Keep, OpenOptions, Store};

use super::children::{Plan, be_a_child, live_and_die, store_in};
use super::dice::Dice;

const NAME: &str = "rows";

/// Appends, and writes down what it was told.
struct Appender {
    store: Store,
    told: File,
    dice: Dice,
    worker: u64,
    append: u64,
}

fn told_by(directory: &Path, worker: u64) -> PathBuf {
    directory.join(format!("{worker}.rows"))
}

impl Appender {
    fn new(store: Store, directory: &Path, worker: u32) -> Self {
        let worker = u64::from(worker);
        let told = File::create_new(told_by(directory, worker)).unwrap();
        Self { store, told, dice: Dice::new(&[worker]), worker, append: 0 }
    }

    /// One transaction of one or two appends, few rows or so many that they go to a data file.
    fn turn(&mut self) {
        let transaction = self.store.begin().unwrap();
        let mut array = transaction.open::<u64, Ix2>(NAME).unwrap();
        let mut appended = Vec::new();
        for _ in 0..1 + u64::from(self.dice.once_in(8)) {
            let rows = if self.dice.once_in(8) { 4000 } else { 20 };
            let rows = 1 + self.dice.below(rows);
            self.append += 1;
            let all = (0..rows).flat_map(|row| [self.worker, self.append, row, rows]).collect();
            let all = Array2::from_shape_vec((usize::try_from(rows).unwrap(), 4), all).unwrap();
            appended.push((self.append, rows, array.append(&all).unwrap()));
        }
        drop(array);
        if self.dice.once_in(10) {
            transaction.abort();
            return;
        }
        let tid = match transaction.commit() {
            Ok(tid) => tid,
            // Without an answer: there or not.
            Err(CommitError::Unknown { .. }) => return,
            Err(error) => panic!("an append does not conflict with another: {error}"),
        };
        for (append, rows, range) in appended {
            let range = range.range();
            assert_eq!(range.end - range.start, rows);
            let line = format!("{append} {} {rows} {tid}\n", range.start);
            self.told.write_all(line.as_bytes()).unwrap();
        }
    }
}

/// The child: does nothing unless the environment says so.
#[test]
fn a_worker_process() {
    be_a_child(|store, directory, worker| {
        let mut appender = Appender::new(store, directory, worker);
        move || appender.turn()
    });
}

/// Where each append lies: (worker, append) to its first row and its number of rows.
type Places = BTreeMap<(u64, u64), (u64, u64)>;

/// The appends that an array consists of, from the first row to the last, or what is wrong.
fn places<'r>(rows: impl Iterator<Item = [u64; 4]> + 'r) -> Result<Places, String> {
    let mut found = Places::new();
    let mut open: Option<[u64; 4]> = None;
    for (at, row @ [worker, append, number, rows]) in (0..).zip(rows) {
        let expected = match open {
            Some([worker, append, number, rows]) => [worker, append, number + 1, rows],
            None => [worker, append, 0, rows],
        };
        if row != expected || worker == 0 || rows == 0 {
            return Err(format!("row {at} is {row:?}, not {expected:?}"));
        }
        if number == 0 && found.insert((worker, append), (at, rows)).is_some() {
            return Err(format!("append {append} of {worker} is there again at row {at}"));
        }
        open = (number + 1 < rows).then_some(row);
    }
    match open {
        Some(row) => Err(format!("the array ends within an append, with {row:?}")),
        None => Ok(found),
    }
}

/// What is wrong with `found`, given what a worker was told: (append, first row, rows).
fn misplaced(found: &Places, worker: u64, told: &[(u64, u64, u64)]) -> Vec<String> {
    let known = told.iter().filter_map(|&(append, first, rows)| {
        let there = found.get(&(worker, append));
        (there != Some(&(first, rows))).then(|| {
            format!("append {append} of {worker}: told {first} with {rows} rows, found {there:?}")
        })
    });
    // Only its last transaction, of at most two appends, can have got no answer.
    let last = told.last().map_or(0, |it| it.0);
    let told: std::collections::BTreeSet<u64> = told.iter().map(|it| it.0).collect();
    let all = found.range((worker, 0)..=(worker, u64::MAX));
    let untold = all.filter(|((_, append), _)| !told.contains(append) && *append < last);
    let untold = untold.map(|((_, append), _)| format!("append {append} of {worker} was not told"));
    known.chain(untold).collect()
}

fn told(directory: &Path, worker: u64) -> Vec<(u64, u64, u64)> {
    let text = std::fs::read_to_string(told_by(directory, worker)).unwrap_or_default();
    // What follows the last line end is no line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        (numbers[0], numbers[1], numbers[2])
    };
    whole.lines().map(line).collect()
}

fn judge(directory: &Path) {
    let store = Store::open(store_in(directory), OpenOptions::default()).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u64, Ix2>(NAME).unwrap();
    let view = array.view().unwrap();
    let rows = view.axis_iter(Axis(0)).map(|row| [row[0], row[1], row[2], row[3]]);
    let found = places(rows).unwrap();
    let workers = 1 + found.keys().map(|it| it.0).max().unwrap();
    let told: Vec<_> = (0..workers).map(|worker| told(directory, worker)).collect();
    let wrong: Vec<String> =
        (0..).zip(&told).flat_map(|(worker, told)| misplaced(&found, worker, told)).collect();
    let known: usize = told.iter().map(Vec::len).sum();
    println!("{} rows, {} appends, {known} of them told", view.nrows(), found.len());
    assert!(wrong.is_empty(), "{} wrong, as {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(known > 0);
    assert_eq!(store.check(true, &mut |_, _| {}).unwrap().damage, []);
}

#[test]
fn rows_that_processes_append_at_once_are_there_once_and_in_one_piece_whoever_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = Store::create(store_in(directory), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u64, Ix2>(NAME, &[0, 4]).unwrap());
    transaction.commit().unwrap();
    let plan = Plan { seed: 9, at_once: 8, deaths: 8, ..Plan::default() }.or_as_told();
    live_and_die(directory, &store, Keep::Head, "rows::a_worker_process", plan);
    drop(store);
    judge(directory);
}

#[test]
fn rows_that_are_torn_apart_repeated_or_elsewhere_are_noticed() {
    let good = [[1, 1, 0, 2], [1, 1, 1, 2], [2, 1, 0, 1], [1, 3, 0, 1]];
    let found = places(good.into_iter()).unwrap();
    assert_eq!(misplaced(&found, 1, &[(1, 0, 2), (3, 3, 1)]), [""; 0]);
    // The last transaction got no answer.
    assert_eq!(misplaced(&found, 2, &[]), [""; 0]);
    for (told, wrong) in [
        (&[(1, 0, 2), (2, 9, 1), (3, 3, 1)][..], "append 2 of 1: told 9 with 1 rows, found None"),
        (&[(1, 1, 2), (3, 3, 1)], "append 1 of 1: told 1 with 2 rows, found Some((0, 2))"),
        (&[(3, 3, 1)], "append 1 of 1 was not told"),
    ] {
        assert_eq!(misplaced(&found, 1, told), [wrong]);
    }
    let torn = [[1, 1, 0, 2], [2, 1, 0, 1], [1, 1, 1, 2]];
    let zeros = [[0, 0, 0, 0]];
    let again = [[1, 1, 0, 1], [1, 1, 0, 1]];
    let cut = [[1, 1, 0, 2]];
    for wrong in [&torn[..], &zeros, &again, &cut] {
        assert!(places(wrong.iter().copied()).is_err(), "{wrong:?}");
    }
}
