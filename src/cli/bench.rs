//! `zba bench`: quick rates of a store on this disk, beside those of a plain file.
//!
//! # Invariants
//!
//! 1. Nothing is written to the store that is named, only to a scratch directory beside it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use ndarray::Ix1;
use serde_json::json;
use zbigarray::units::PAGE_LEN;
use zbigarray::{CreateOptions, Store};

use super::StorePath;
use super::error::Error;
use super::interrupt::Interrupt;
use super::measure::{self, PlainFile, Scratch};
use super::output::{self, Output, Side, Table};
use super::progress::Progress;
use super::stream::to_len;
use super::values::Size;

const NAME: &str = "bench";
const ITEM_BYTES: u64 = 8;
/// Elements of one bulk write: 8 MiB.
const PIECE: usize = 1 << 20;
/// Single elements that are read.
const RANDOM_READS: usize = 1_000_000;
/// Commits of one element.
const COMMITS: usize = 50;

/// Measure the speed of a store on this disk, beside a plain file
///
/// Rates of bulk writing, of reading through a view, and of small commits, each beside what a plain
/// file gives. Takes seconds. The store itself is not touched: everything happens in a scratch
/// directory beside it, which is removed.
#[derive(Args)]
#[command(after_help = "\
Example:
  zba bench signals.zba --size 1GiB")]
pub(crate) struct Bench {
    #[command(flatten)]
    store: StorePath,
    /// Bytes to write and read
    #[arg(long, default_value = "256MiB")]
    size: Size,
}

/// One question, answered for both.
struct Answer {
    name: &'static str,
    unit: &'static str,
    plain: f64,
    store: f64,
}

impl Answer {
    /// How many times as fast as the plain file the store is.
    fn speed(&self) -> f64 {
        if self.unit == "B/s" { self.store / self.plain } else { self.plain / self.store }
    }

    fn text(&self, value: f64) -> String {
        match self.unit {
            "B/s" => output::per_second(value),
            _ if value < 1e-6 => format!("{:.0} ns", value * 1e9),
            _ => output::time(value),
        }
    }
}

impl Bench {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let interrupt = Interrupt::install();
        let scratch = Scratch::create(&self.directory()?, ".zba-bench-")?;
        let elements = to_len((self.size.0 / ITEM_BYTES).max(1));
        let answers = measure_all(scratch.path(), elements, output, &interrupt)?;
        let mut table = Table::new(&[
            ("", Side::Left),
            ("PLAIN FILE", Side::Right),
            ("STORE", Side::Right),
            ("SPEED", Side::Right),
        ]);
        for answer in &answers {
            table.row([
                answer.name.to_owned(),
                answer.text(answer.plain),
                answer.text(answer.store),
                format!("{:.2}x", answer.speed()),
            ]);
        }
        let one = |answer: &Answer| {
            json!({
                "name": answer.name, "unit": answer.unit, "plain": answer.plain,
                "store": answer.store, "speed": answer.speed(),
            })
        };
        let answers: Vec<_> = answers.iter().map(one).collect();
        output.show(&json!({"bytes": elements as u64 * ITEM_BYTES, "answers": answers}), table)
    }

    /// A directory on the store's disk: the one the store is in.
    fn directory(&self) -> Result<PathBuf, Error> {
        let path = self.store.path();
        let real = path.canonicalize().map_err(|error| Error::io("find", path, error))?;
        Ok(real.parent().unwrap_or(&real).to_owned())
    }
}

fn measure_all(
    directory: &Path,
    elements: usize,
    output: Output,
    interrupt: &Interrupt,
) -> Result<[Answer; 4], Error> {
    let bytes = elements as u64 * ITEM_BYTES;
    let mut piece = vec![0.0; PIECE.min(elements)];
    measure::fill(&mut piece, 0, |t| output::as_f64(t).sqrt());
    let plain_write = measure_plain_write(directory, &piece, elements, output, interrupt)?;
    let (file, plain_write) = plain_write;
    let store = Store::create(directory.join("store"), CreateOptions::default())?;
    let store_write = measure_store_write(&store, &piece, elements, output, interrupt)?;
    let map = file.map()?;
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>(NAME)?;
    let view = array.view()?;
    let (ours, theirs) = (view.to_slice().unwrap_or_default(), map.elements());
    let progress = Progress::new(output, "read", bytes * 4);
    let (mut plain_sum, mut store_sum) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..2 {
        plain_sum = plain_sum.min(sum_seconds(theirs, &progress, interrupt)?);
        store_sum = store_sum.min(sum_seconds(ours, &progress, interrupt)?);
    }
    drop(progress);
    let random = Answer {
        name: "read one element, random, in memory",
        unit: "s",
        plain: random_seconds(theirs),
        store: random_seconds(ours),
    };
    drop(map);
    drop(array);
    drop(transaction);
    let commits = measure_commits(&store, &file, output, interrupt)?;
    let rate = |seconds: f64| output::as_f64(bytes) / seconds.max(1e-9);
    Ok([
        Answer {
            name: "write in bulk, durable",
            unit: "B/s",
            plain: rate(plain_write),
            store: rate(store_write),
        },
        Answer {
            name: "sum through a view, in memory",
            unit: "B/s",
            plain: rate(plain_sum),
            store: rate(store_sum),
        },
        random,
        commits,
    ])
}

fn measure_plain_write(
    directory: &Path,
    piece: &[f64],
    elements: usize,
    output: Output,
    interrupt: &Interrupt,
) -> Result<(PlainFile, f64), Error> {
    let progress = Progress::new(output, "write plain file", elements as u64 * ITEM_BYTES);
    let mut file = PlainFile::create(directory.join("plain.f8"))?;
    let start = Instant::now();
    let mut left = elements;
    while left > 0 {
        interrupt.check()?;
        let part = &piece[..piece.len().min(left)];
        file.write(part)?;
        progress.add(size_of_val(part) as u64);
        left -= part.len();
    }
    file.sync()?;
    Ok((file, start.elapsed().as_secs_f64()))
}

fn measure_store_write(
    store: &Store,
    piece: &[f64],
    elements: usize,
    output: Output,
    interrupt: &Interrupt,
) -> Result<f64, Error> {
    let progress = Progress::new(output, "write store", elements as u64 * ITEM_BYTES);
    let start = Instant::now();
    let transaction = store.begin()?;
    let mut array = transaction.create::<f64, Ix1>(NAME, &[0])?;
    let mut left = elements;
    while left > 0 {
        interrupt.check()?;
        let part = &piece[..piece.len().min(left)];
        array.append(&ndarray::ArrayView1::from(part))?;
        progress.add(size_of_val(part) as u64);
        left -= part.len();
    }
    drop(array);
    transaction.commit_with_note("bulk write")?;
    Ok(start.elapsed().as_secs_f64())
}

fn sum_seconds(elements: &[f64], progress: &Progress, interrupt: &Interrupt) -> Result<f64, Error> {
    let (seconds, sum) = measure::timed(|| measure::sum(elements, progress, interrupt));
    // The sum is used, so that it is computed.
    if sum?.is_nan() {
        return Err(Error::Refused("the elements that were read are no numbers".to_owned()));
    }
    Ok(seconds)
}

/// Seconds of reading one element, the position of which depends on the one before.
fn random_seconds(elements: &[f64]) -> f64 {
    let mut at = 1;
    let (seconds, ()) = measure::timed(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..RANDOM_READS {
            let bits = elements[at].to_bits() & 1;
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            at = to_len((state ^ bits) % elements.len() as u64);
        }
    });
    std::hint::black_box(at);
    seconds / output::as_f64(RANDOM_READS as u64)
}

fn measure_commits(
    store: &Store,
    file: &PlainFile,
    output: Output,
    interrupt: &Interrupt,
) -> Result<Answer, Error> {
    let progress = Progress::new(output, "commit", 0);
    let page = vec![7; PAGE_LEN];
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for turn in 0..COMMITS {
        interrupt.check()?;
        let (seconds, written) = measure::timed(|| file.overwrite(0, &page));
        written?;
        plain.push(seconds);
        let (seconds, committed) = measure::timed(|| -> Result<(), Error> {
            let transaction = store.begin()?;
            transaction.open::<f64, Ix1>(NAME)?.view_mut()?[0] = output::as_f64(turn as u64);
            transaction.commit()?;
            Ok(())
        });
        committed?;
        ours.push(seconds);
    }
    drop(progress);
    let name = "commit one element, durable";
    Ok(Answer { name, unit: "s", plain: median(plain), store: median(ours) })
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}
