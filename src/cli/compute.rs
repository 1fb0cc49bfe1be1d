//! `zba compute`: an expression in NumPy's syntax over the arrays of a store.
//!
//! ```text
//! text -> Formula -> Blocked, over one snapshot -> tasks -> an array of a new commit
//!                                                       or the terminal
//! ```
//!
//! # Invariants
//!
//! 1. All arrays are read as of one commit.
//! 2. The result is one commit, or nothing was changed.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use zbigarray::array::Bool;
use zbigarray::compute::{
    self, Block, Blocked, Cancel, ComputeError, Number, Picture, Progress as Counters, Report,
    RunOptions,
};
use zbigarray::{ArrayOptions, DynArray, Store, Transaction};

use super::error::Error;
use super::evaluate::{self, World};
use super::formula::{self, Formula, FormulaError};
use super::functions;
use super::interrupt::Interrupt;
use super::output::{self, Output};
use super::progress::Progress;
use super::values::Size;
use super::{At, Note, StorePath};

/// How often the bar moves and Ctrl-C is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Results with more elements than this are not shown.
const SHOWN_MAX: u64 = 10_000;

const EXAMPLES: &str = "\
Names are arrays, and `climate.t2m` is the array climate/t2m. An array with any other name is
a('2m temperature'). Functions and methods have NumPy's names and arguments, with or without
`np.`; types are written as text, 'float32', or np.float32.

  + - * / // % ** @ & | ^ ~ << >> == != < <= > >=      x[::4, -1, ..., None]   x[[0, 5]]   x[x > 0]
  sin, exp, log, sqrt, abs, where, clip, isnan, ...    x.T, x.reshape(-1, 3), x.astype('f4')
  sum, mean, std, var, min, max, any, all, argmax, nanmean, ...   (axis=, keepdims=)
  concatenate, stack, roll, flip, repeat, transpose    dot, matmul, tensordot, outer, norm
  qr, svd, svd_compressed, solve, cholesky             zeros, ones, full

Without --into the result is shown. With it, the result is a new array in one commit, however large.

Examples:
  zba compute climate.zba 'mean(t2m)'
  zba compute climate.zba 'mean(t2m[::4], 0) - mean(t2m[2::4], 0)' --into diff --memory 512MiB
  zba compute climate.zba '(t2m - t2m.mean(axis=0)) / t2m.std(axis=0)' --into anomaly --at v1.0
  zba compute signals.zba \"np.linalg.svd(a('ecg/leads'))[1]\"";

/// Compute an expression over arrays, with NumPy's syntax
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compute {
    #[command(flatten)]
    store: StorePath,
    /// Expression
    #[arg(allow_hyphen_values = true)]
    expression: String,
    /// Store the result as this array, which does not exist yet
    #[arg(long, value_name = "NAME")]
    into: Option<String>,
    #[command(flatten)]
    at: At,
    /// Only say what would be done: tasks, bytes, the most memory at one moment
    ///
    /// The elements that a mask as in `x[x > 0]` takes are counted all the same, as the shape of
    /// the result depends on them.
    #[arg(long)]
    explain: bool,
    /// Draw the tasks into this file, as SVG; nothing else is done
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Write what each thread did when, and the memory over time, into this file, as HTML
    #[arg(long, value_name = "FILE", conflicts_with_all = ["explain", "graph"])]
    trace: Option<PathBuf>,
    /// Memory for blocks on the way [default: half of what is available]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(flatten)]
    note: Note,
}

impl Compute {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let formula = formula::parse(&self.expression)
            .map_err(|error| Error::Usage(error.shown(&self.expression)))?;
        let store = match &self.into {
            Some(_) if !self.only_tells() => self.store.open_to_write()?,
            _ => self.store.open_to_read()?,
        };
        let transaction = self.at.begin(&store)?;
        let catalog = transaction.catalog();
        let refused = |error: FormulaError| Error::Refused(error.shown(&self.expression));
        let names = evaluate::names(&formula, &catalog).map_err(refused)?;
        let arrays = names.iter().map(|name| DynArray::open(&transaction, name));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let interrupt = Interrupt::install();
        let options = self.options();
        let what = self.into.as_deref().unwrap_or("compute");
        let progress = Progress::of_tasks(output, what);
        watched(&interrupt, &progress, &options, || {
            let result = self.meaning(&formula, &arrays, &transaction, &options)?;
            if self.only_tells() {
                return self.told(&result, &arrays, &options, output);
            }
            match &self.into {
                Some(name) => {
                    let message = self.stored(&store, name, &result, &options, &progress)?;
                    output.done(&message.0, message.1)
                }
                None => self.shown(&result, &options, output),
            }
        })
    }

    fn only_tells(&self) -> bool {
        self.explain || self.graph.is_some()
    }

    /// What would be done, as text, as a picture or both.
    fn told(
        &self,
        result: &Blocked<'_>,
        arrays: &[DynArray<'_>],
        options: &RunOptions,
        output: Output,
    ) -> Result<(), Error> {
        if let Some(file) = &self.graph {
            let (graph, outputs) = result.graph()?;
            write_file(file, &Picture::of(&graph, &outputs).svg())?;
        }
        match self.explain {
            true => explained(result, arrays, self.into.is_some(), options, output),
            false => Ok(()),
        }
    }

    fn options(&self) -> RunOptions {
        let memory = self.memory.map_or_else(memory_available, |Size(bytes)| Some(bytes));
        RunOptions {
            threads: self.threads.map_or(0, usize::from),
            memory_bytes: memory,
            cancel: Some(Cancel::default()),
            progress: Some(Counters::default()),
            trace: self.trace.is_some(),
            ..RunOptions::default()
        }
    }

    fn meaning<'e>(
        &self,
        formula: &Formula,
        arrays: &'e [DynArray<'e>],
        transaction: &Transaction,
        options: &RunOptions,
    ) -> Result<Blocked<'e>, Error> {
        let world = World { arrays, options: options.clone(), failure: RefCell::default() };
        let meaning = world.meaning(formula, &transaction.catalog());
        if let Some(failure) = world.failure.take() {
            return Err(failure.into());
        }
        let array = meaning.and_then(|meaning| functions::as_array(meaning, &formula.at));
        array.map_err(|error| Error::Refused(error.shown(&self.expression)))
    }

    fn write_trace(
        &self,
        result: &Blocked<'_>,
        report: &Report,
        options: &RunOptions,
    ) -> Result<(), Error> {
        let Some(file) = &self.trace else { return Ok(()) };
        let (graph, _) = result.graph()?;
        write_file(file, &report.page(&graph, options.memory_bytes))
    }

    /// The elements, on standard output.
    fn shown(
        &self,
        result: &Blocked<'_>,
        options: &RunOptions,
        output: Output,
    ) -> Result<(), Error> {
        if result.size() > SHOWN_MAX {
            let shape = output::shape(result.shape());
            let what = format!("the result has shape {shape}; name an array for it with --into");
            return Err(Error::Refused(what));
        }
        let (block, report) = result.compute_reported(options)?;
        self.write_trace(result, &report, options)?;
        let json = json!({
            "dtype": result.number().dtype(), "shape": result.shape(),
            "values": nested(&mut json_elements(&block)?.into_iter(), block.shape()),
        });
        let mut text = String::new();
        write_nested(&mut text, &mut texts(&block)?.into_iter(), block.shape(), 0);
        output.show(&json, text + "\n")
    }

    /// Keeps invariant 2.
    fn stored(
        &self,
        store: &Store,
        name: &str,
        result: &Blocked<'_>,
        options: &RunOptions,
        progress: &Progress,
    ) -> Result<(Value, String), Error> {
        let transaction = store.begin()?;
        let dtype = result.number().dtype();
        let array_options = ArrayOptions::new();
        let mut target =
            DynArray::create(&transaction, name, &dtype, result.shape(), &array_options)?;
        let report = result.store_into(&mut target, options)?;
        drop(target);
        self.write_trace(result, &report, options)?;
        let note = self.note.or(|| format!("compute {}", self.expression));
        let tid = transaction.commit_with_note(&note)?;
        let seconds = progress.seconds();
        let json = json!({
            "name": name, "dtype": dtype, "shape": result.shape(), "bytes": result.nbytes(),
            "commit": tid.0, "tasks": report.tasks, "peak_bytes": report.peak_bytes,
            "seconds": seconds,
        });
        let message = format!(
            "computed `{}` {dtype} {}, {}, in {} by {}, at most {} on the way, commit {tid}",
            output::printable(name),
            output::shape(result.shape()),
            output::size(result.nbytes()),
            output::time(seconds),
            output::plural(report.tasks, "task"),
            output::size(report.peak_bytes),
        );
        Ok((json, message))
    }
}

fn write_file(file: &Path, content: &str) -> Result<(), Error> {
    fs::write(file, content)
        .map_err(|error| Error::Refused(format!("{} cannot be written: {error}", file.display())))
}

/// Runs `work`, and shows meanwhile how far it is; Ctrl-C ends it.
fn watched(
    interrupt: &Interrupt,
    progress: &Progress,
    options: &RunOptions,
    work: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let (true, Some(cancel)) = (interrupt.is_asked(), &options.cancel) {
                    cancel.cancel();
                }
                if let Some(counters) = &options.progress {
                    let now = counters.now();
                    progress.set(now.tasks_done, now.tasks);
                    progress.message(format!("{} in memory", output::size(now.live_bytes)));
                }
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Half of the memory that is available.
fn memory_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 512)
}

/// What would be done.
fn explained(
    result: &Blocked<'_>,
    arrays: &[DynArray<'_>],
    is_stored: bool,
    options: &RunOptions,
    output: Output,
) -> Result<(), Error> {
    let (graph, outputs) = result.graph()?;
    let mut plan = compute::explain(&graph, &outputs, options).map_err(ComputeError::from)?;
    // No task writes: what they give is written as it comes.
    plan.bytes_to_write = if is_stored { result.nbytes() } else { 0 };
    let (dtype, shape) = (result.number().dtype(), result.shape());
    let read = |array: &DynArray<'_>| {
        json!({"name": array.name(), "dtype": array.dtype(), "shape": &*array.shape(),
            "bytes": array.nbytes()})
    };
    let json = json!({
        "dtype": dtype, "shape": shape, "bytes": result.nbytes(),
        "blocks": plan.outputs, "block_shape": result.block_shape(),
        "arrays": arrays.iter().map(read).collect::<Vec<_>>(),
        "tasks": plan.tasks, "steps": plan.steps, "bytes_to_read": plan.bytes_to_read,
        "bytes_to_write": plan.bytes_to_write, "peak_bytes": plan.peak_bytes,
        "peak_at": plan.peak_at, "budget_bytes": plan.budget_bytes, "fits": plan.fits(),
    });
    let mut text = format!(
        "result     {dtype} {} in blocks of {}\n",
        output::shape(shape),
        output::shape(result.block_shape()),
    );
    for array in arrays {
        text += &format!(
            "array      `{}` {} {}, {}\n",
            output::printable(array.name()),
            array.dtype(),
            output::shape(&array.shape()),
            output::size(array.nbytes()),
        );
    }
    output.show(&json, format!("{text}{plan}\n"))
}

/// Calls `$each` with the elements of a block, of whichever type.
macro_rules! each_element {
    ($block:expr, $each:expr) => {{
        let block: &Block = $block;
        macro_rules! of {
            ($element:ty) => {
                block.elements::<$element>()?.iter().map($each).collect()
            };
        }
        match block.number() {
            Number::Bool => of!(Bool),
            Number::I8 => of!(i8),
            Number::I16 => of!(i16),
            Number::I32 => of!(i32),
            Number::I64 => of!(i64),
            Number::U8 => of!(u8),
            Number::U16 => of!(u16),
            Number::U32 => of!(u32),
            Number::U64 => of!(u64),
            Number::F32 => of!(f32),
            Number::F64 => of!(f64),
            Number::C64 => of!(num_complex::Complex<f32>),
            Number::C128 => of!(num_complex::Complex<f64>),
        }
    }};
}

/// An element as people and programs read it.
trait Shown {
    fn text(&self) -> String;
    fn json(&self) -> Value;
}

macro_rules! shown_numbers {
    ($($number:ty),*) => {$(
        impl Shown for $number {
            fn text(&self) -> String {
                format!("{self:?}")
            }

            fn json(&self) -> Value {
                // What JSON has no number for becomes a text.
                let value = json!(self);
                if value.is_null() { json!(self.text()) } else { value }
            }
        }
    )*};
}
shown_numbers!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

impl Shown for Bool {
    fn text(&self) -> String {
        (if self.get() { "True" } else { "False" }).to_owned()
    }

    fn json(&self) -> Value {
        json!(self.get())
    }
}

impl<T: Display> Shown for num_complex::Complex<T> {
    fn text(&self) -> String {
        format!(
            "({}{}{}j)",
            self.re,
            if self.im.to_string().starts_with('-') { "" } else { "+" },
            self.im
        )
    }

    fn json(&self) -> Value {
        json!(self.text())
    }
}

fn texts(block: &Block) -> Result<Vec<String>, ComputeError> {
    Ok(each_element!(block, Shown::text))
}

fn json_elements(block: &Block) -> Result<Vec<Value>, ComputeError> {
    Ok(each_element!(block, Shown::json))
}

/// The elements as lists in lists.
fn nested(elements: &mut impl Iterator<Item = Value>, shape: &[usize]) -> Value {
    match shape.split_first() {
        None => elements.next().unwrap_or(Value::Null),
        Some((&len, rest)) => (0..len).map(|_| nested(elements, rest)).collect(),
    }
}

fn write_nested(
    text: &mut String,
    elements: &mut impl Iterator<Item = String>,
    shape: &[usize],
    depth: usize,
) {
    let Some((&len, rest)) = shape.split_first() else {
        text.push_str(&elements.next().unwrap_or_default());
        return;
    };
    text.push('[');
    for at in 0..len {
        if at > 0 && rest.is_empty() {
            text.push(' ');
        } else if at > 0 {
            text.push('\n');
            text.push_str(&" ".repeat(depth + 1));
        }
        write_nested(text, elements, rest, depth + 1);
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_shown_as_lists_in_lists() {
        let mut text = String::new();
        let all = ["1", "2", "3", "4"].map(str::to_owned);
        write_nested(&mut text, &mut all.into_iter(), &[2, 2], 0);
        assert_eq!(text, "[[1 2]\n [3 4]]");
        let all = [1, 2, 3, 4].map(Value::from);
        assert_eq!(nested(&mut all.into_iter(), &[2, 2]).to_string(), "[[1,2],[3,4]]");
    }

    #[test]
    fn numbers_without_json_are_texts() {
        assert_eq!(f64::NAN.json(), json!("NaN"));
        assert_eq!(num_complex::Complex::new(1.5, -2.0).text(), "(1.5-2j)");
    }
}
