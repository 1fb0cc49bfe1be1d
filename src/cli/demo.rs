//! `zba demo`: a signal larger than memory if asked for, written in transactions, read as one view.
//!
//! ```text
//! plain file   generate 32 MiB, write, fdatasync ...   mmap, sum   the same again   removed
//! store        generate 32 MiB in a view, commit ...   reopen, view, sum   again    removed
//! ```
//!
//! # Invariants
//!
//! 1. Both hold the same bytes, are read right after they were written, and are never on the disk
//!    at the same time.
//! 2. Private memory is one piece of 32 MiB, however large the signal is. What else counts as
//!    resident is the page cache, which the kernel takes back when it needs it.
//! 3. Nothing is left behind unless `--keep` is given.
//!
//! # Failure
//!
//! Exit code 1 if the store's sum differs from the plain file's, or at 1 GiB from NumPy's.

use std::path::{Path, PathBuf};

use clap::Args;
use ndarray::Ix1;
use serde_json::{Value, json};
use zbigarray::{CreateOptions, OpenOptions, Store};

use super::error::Error;
use super::interrupt::Interrupt;
use super::measure::{self, PlainFile, Scratch};
use super::output::{self, Facts, Output, Side, Table, grouped, size};
use super::progress::Progress;
use super::stream::to_len;
use super::values::Size;

const NAME: &str = "signalv";
const ITEM_BYTES: u64 = 8;
/// Elements of one transaction: 32 MiB.
const PIECE: u64 = (32 << 20) / ITEM_BYTES;
/// What NumPy's pairwise sum gives for 1 GiB of the signal.
const NUMPY_BYTES: u64 = 1 << 30;
const NUMPY_MEAN: f64 = 1.804_014_477_118_772_6e-8;
const NUMPY_SUM: f64 = 2.421_307_243_979_896_4;
const TOLERANCE: f64 = 1e-6;

/// Write and read a signal of any size, and compare with a plain file
///
/// Generates the float64 signal 15*sin(0.2*t) into a store, 32 MiB to a transaction, reopens it,
/// and computes mean and sum through one view of the whole array. The same is done with a plain
/// file and mmap, to compare. The array may be larger than memory.
#[derive(Args)]
#[command(after_help = "\
Examples:
  zba demo
  zba demo --size 64GiB --store /big/disk/demo.zba --keep")]
pub(crate) struct Demo {
    /// Bytes of the signal; as much must be free on the disk
    #[arg(long, default_value = "1GiB")]
    size: Size,
    /// Where to make the store [default: a new directory ./zba-demo-XXXXXX]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Leave the store behind
    #[arg(long)]
    keep: bool,
}

/// Seconds and results of one way to do it.
#[derive(Default)]
struct Run {
    generate: f64,
    durable: f64,
    // Seconds of the first and of the second sum.
    sums: [f64; 2],
    sum: f64,
    written: Option<u64>,
}

/// What both ways are given.
struct Work {
    elements: u64,
    output: Output,
    interrupt: Interrupt,
}

impl Demo {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let elements = self.size.0 / ITEM_BYTES;
        if elements == 0 {
            return Err(Error::Usage("--size is at least 8 bytes, one element".to_owned()));
        }
        let interrupt = Interrupt::install();
        let mut scratch = match &self.store {
            Some(path) => Scratch::at(path.clone())?,
            None => Scratch::create(Path::new("."), "zba-demo-")?,
        };
        let work = Work { elements, output, interrupt };
        let bytes = elements * ITEM_BYTES;
        let pieces = output::plural(elements.div_ceil(PIECE), "transaction");
        let count = grouped(elements);
        output.say(format!(
            "15*sin(0.2*t), {count} float64, {} in {pieces} of 32 MiB, in {}",
            size(bytes),
            scratch.path().display(),
        ));
        let plain = work.plain_file(scratch.path())?;
        measure::reset_peak_memory();
        let (store, private) = work.store(scratch.path())?;
        if self.keep {
            scratch.keep();
        }
        let peak = measure::memory_bytes("VmHWM");
        let wrong = work.verdict(&plain, &store);
        let json = work.json(&plain, &store, peak, private, scratch.path(), self.keep);
        let (table, facts) = (work.table(&plain, &store), work.facts(&store, peak, private));
        output.show(&json, format!("\n{table}\n{facts}"))?;
        if self.keep {
            let path = scratch.path().display();
            output.say(format!("\nthe store is {path}, the array {NAME}: zba info {path} {NAME}"));
        }
        wrong.map_or(Ok(()), |wrong| Err(Error::Refused(wrong)))
    }
}

fn signal(t: u64) -> f64 {
    15.0 * (0.2 * output::as_f64(t)).sin()
}

impl Work {
    fn bytes(&self) -> u64 {
        self.elements * ITEM_BYTES
    }

    /// The pieces: first element and one past the last.
    fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let elements = self.elements;
        let starts = (0..elements).step_by(to_len(PIECE));
        starts.map(move |start| (start, (start + PIECE).min(elements)))
    }

    fn plain_file(&self, directory: &Path) -> Result<Run, Error> {
        let mut run = Run::default();
        let scratch = Scratch::at(directory.join("plain"))?;
        let mut file = PlainFile::create(scratch.path().join("signal.f8"))?;
        let mut buffer = vec![0.0; to_len(PIECE.min(self.elements))];
        let before = measure::written_bytes();
        let progress = Progress::new(self.output, "plain file: generate", self.bytes());
        for (start, end) in self.pieces() {
            self.interrupt.check()?;
            let part = &mut buffer[..to_len(end - start)];
            run.generate += measure::timed(|| measure::fill(part, start, signal)).0;
            let (seconds, written) = measure::timed(|| file.write(part).and_then(|()| file.sync()));
            written?;
            run.durable += seconds;
            progress.add((end - start) * ITEM_BYTES);
        }
        drop((progress, buffer));
        run.written = since(before);
        let map = file.map()?;
        self.sum_twice(map.elements(), "plain file: sum", &mut run)?;
        Ok(run)
    }

    /// Returns the peak of private memory too.
    fn store(&self, directory: &Path) -> Result<(Run, u64), Error> {
        let mut run = Run::default();
        let before = measure::written_bytes();
        let store = Store::create(directory, CreateOptions::default())?;
        let transaction = store.begin()?;
        transaction.create::<f64, Ix1>(NAME, &[self.elements])?;
        transaction.commit_with_note(&format!("create {NAME}"))?;
        let progress = Progress::new(self.output, "store: generate", self.bytes());
        let mut private = 0;
        for (start, end) in self.pieces() {
            self.interrupt.check()?;
            let percent = output::as_f64(end) * 100.0 / output::as_f64(self.elements);
            let note = format!("{NAME}[{start}:{end}], {percent:.1}%");
            let transaction = store.begin()?;
            let mut array = transaction.open::<f64, Ix1>(NAME)?;
            let (seconds, filled) = measure::timed(|| -> Result<(), Error> {
                let view = array.rows_mut(start..end)?;
                measure::fill(view.into_slice().unwrap_or_default(), start, signal);
                Ok(())
            });
            filled?;
            run.generate += seconds;
            private = private.max(measure::memory_bytes("RssAnon").unwrap_or(0));
            drop(array);
            let (seconds, committed) = measure::timed(|| transaction.commit_with_note(&note));
            committed?;
            run.durable += seconds;
            progress.message(note);
            progress.add((end - start) * ITEM_BYTES);
        }
        drop((progress, store));
        run.written = since(before);
        let store = Store::open(directory, OpenOptions::read_only())?;
        let transaction = store.begin_read()?;
        let array = transaction.open::<f64, Ix1>(NAME)?;
        let view = array.view()?;
        self.sum_twice(view.to_slice().unwrap_or_default(), "store: sum", &mut run)?;
        Ok((run, private))
    }

    fn sum_twice(&self, elements: &[f64], what: &str, run: &mut Run) -> Result<(), Error> {
        for seconds in &mut run.sums {
            let progress = Progress::new(self.output, what, self.bytes());
            let (took, sum) = measure::timed(|| measure::sum(elements, &progress, &self.interrupt));
            (*seconds, run.sum) = (took, sum?);
        }
        Ok(())
    }

    fn mean(&self, run: &Run) -> f64 {
        run.sum / output::as_f64(self.elements)
    }

    /// What is wrong with the results.
    fn verdict(&self, plain: &Run, store: &Run) -> Option<String> {
        if plain.sum.to_bits() != store.sum.to_bits() {
            let (a, b) = (store.sum, plain.sum);
            return Some(format!("the store's sum {a} differs from the plain file's {b}"));
        }
        if self.bytes() == NUMPY_BYTES && (store.sum - NUMPY_SUM).abs() > TOLERANCE {
            let sum = store.sum;
            return Some(format!(
                "the sum {sum} is more than {TOLERANCE} from NumPy's {NUMPY_SUM}"
            ));
        }
        None
    }

    /// The steps, with the seconds of each.
    fn steps(plain: &Run, store: &Run) -> [(&'static str, f64, f64); 5] {
        let both = |run: &Run| run.generate + run.durable;
        [
            ("generate into memory", plain.generate, store.generate),
            ("make durable", plain.durable, store.durable),
            ("both", both(plain), both(store)),
            ("sum, first pass", plain.sums[0], store.sums[0]),
            ("sum, second pass", plain.sums[1], store.sums[1]),
        ]
    }

    fn table(&self, plain: &Run, store: &Run) -> String {
        let mut table = Table::new(&[
            ("", Side::Left),
            ("PLAIN FILE", Side::Right),
            ("", Side::Right),
            ("STORE", Side::Right),
            ("", Side::Right),
            ("SPEED", Side::Right),
        ]);
        for (name, plain, store) in Self::steps(plain, store) {
            let rate = |seconds| output::rate(self.bytes(), seconds);
            table.row([
                name.to_owned(),
                output::time(plain),
                rate(plain),
                output::time(store),
                rate(store),
                format!("{:.2}x", plain / store.max(1e-9)),
            ]);
        }
        let written = |run: &Run| run.written.map_or_else(|| "?".to_owned(), size);
        let more = (store.written.zip(plain.written)).map_or_else(String::new, |(a, b)| {
            format!("{:+.1}%", (output::as_f64(a) / output::as_f64(b.max(1)) - 1.0) * 100.0)
        });
        let empty = String::new;
        let (plain, store) = (written(plain), written(store));
        table.row(["bytes written".to_owned(), empty(), plain, empty(), store, more]);
        table.to_string()
    }

    fn facts(&self, store: &Run, peak: Option<u64>, private: u64) -> Facts {
        let mut facts = Facts::new();
        let numpy = |value: f64| match self.bytes() {
            NUMPY_BYTES => format!("    NumPy: {value:?}"),
            _ => String::new(),
        };
        facts.add("<sig>", format!("{:?}{}", self.mean(store), numpy(NUMPY_MEAN)));
        facts.add("S(sig)", format!("{:?}{}", store.sum, numpy(NUMPY_SUM)));
        let peak = peak.map_or_else(|| "?".to_owned(), size);
        let of_that = format!("{} private, the rest page cache", size(private));
        facts.add("peak memory", format!("{peak}: at most {of_that}"));
        facts
    }

    fn json(
        &self,
        plain: &Run,
        store: &Run,
        peak: Option<u64>,
        private: u64,
        path: &Path,
        kept: bool,
    ) -> Value {
        let run = |run: &Run| {
            json!({
                "generate_seconds": run.generate, "durable_seconds": run.durable,
                "sum_seconds": run.sums, "sum": run.sum, "mean": self.mean(run),
                "written_bytes": run.written,
            })
        };
        let numpy = (self.bytes() == NUMPY_BYTES)
            .then(|| json!({"mean": NUMPY_MEAN, "sum": NUMPY_SUM, "tolerance": TOLERANCE}));
        json!({
            "elements": self.elements, "bytes": self.bytes(), "plain": run(plain),
            "store": run(store), "numpy": numpy, "peak_rss_bytes": peak,
            "peak_private_bytes": private, "path": kept.then(|| path.to_string_lossy()),
        })
    }
}

/// Bytes written since there were `before`.
fn since(before: Option<u64>) -> Option<u64> {
    Some(measure::written_bytes()?.saturating_sub(before?))
}
