//! What `zba demo` and `zba bench` measure with: scratch directories, a plain file to compare with,
//! sums that are worth comparing, and the process's own memory.
//!
//! # Invariants
//!
//! 1. A scratch directory goes away with its value, also after an error or Ctrl-C.
//! 2. [`sum`] adds in the order of `numpy.sum`, so that equal elements give equal sums.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use zbigarray::array::cast;
use zbigarray::units::{PAGE_BYTES, PageRange};
use zbigarray::vm::mapping::{Advice, Content, Mapping, Run};
use zbigarray::vm::{Access, VmaBudget};

use super::error::Error;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::stream::to_len;

/// Elements that are summed between two looks at the clock: 8 MiB.
const STRETCH: usize = 1 << 20;

/// A directory that goes away.
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes a directory with a name of its own in `parent`.
    pub(crate) fn create(parent: &Path, prefix: &str) -> Result<Self, Error> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self::at(parent.join(format!("{prefix}{}", &id[..6])))
    }

    /// Makes the directory `path`, which does not exist.
    pub(crate) fn at(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { path, keep: false })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it behind.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // Best effort: there is nobody to tell.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A plain file of `f64`, written piece by piece, then mapped.
pub(crate) struct PlainFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl PlainFile {
    /// Makes an empty one.
    pub(crate) fn create(path: PathBuf) -> Result<Self, Error> {
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { path, file, bytes: 0 })
    }

    /// Appends elements.
    pub(crate) fn write(&mut self, elements: &[f64]) -> Result<(), Error> {
        let bytes = cast::as_bytes(elements);
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::io("write", &self.path, error))
    }

    /// Writes 4 KiB over what is at `page` and makes them durable.
    pub(crate) fn overwrite(&self, page: u64, bytes: &[u8]) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        let written = self.file.write_all_at(bytes, page * PAGE_BYTES);
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::io("write", &self.path, error))
    }

    /// Maps all of it, privately and read-only, with the kernel's own read-ahead.
    pub(crate) fn map(&self) -> Result<PlainMap, Error> {
        let pages = PageRange::covering(0, self.bytes);
        let budget = VmaBudget::process();
        let mut mapping = Mapping::new(pages.count(), Access::ReadOnly, Advice::Normal, budget)?;
        let content = Content::File { file: self.file.as_fd(), offset_bytes: 0 };
        mapping.place(&[Run { at: pages, content }])?;
        Ok(PlainMap { mapping, pages, bytes: self.bytes })
    }
}

/// A plain file as memory.
pub(crate) struct PlainMap {
    mapping: Mapping,
    pages: PageRange,
    bytes: u64,
}

impl PlainMap {
    /// Its elements.
    pub(crate) fn elements(&self) -> &[f64] {
        let bytes = &self.mapping.bytes(self.pages)[..to_len(self.bytes)];
        // A mapping is aligned to pages, and the file holds whole elements.
        cast::from_bytes(bytes).unwrap_or_default()
    }
}

/// How many threads are worth starting.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

/// Gives the elements of `part`, the first of which is element `start`, their values.
pub(crate) fn fill(part: &mut [f64], start: u64, value: impl Fn(u64) -> f64 + Copy + Send) {
    let each = part.len().div_ceil(threads()).max(1);
    thread::scope(|scope| {
        for (at, part) in (0..).zip(part.chunks_mut(each)) {
            let start = start + at * each as u64;
            scope.spawn(move || {
                part.iter_mut().zip(start..).for_each(|(element, t)| *element = value(t));
            });
        }
    });
}

/// The sum of all elements, pairwise as `numpy.sum` has it (invariant 2).
///
/// The rounding error grows with the logarithm of the number of elements.
pub(crate) fn sum(
    elements: &[f64],
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<f64, Error> {
    let sum = sum_by(elements, threads(), progress, interrupt);
    interrupt.check().map(|()| sum)
}

fn sum_by(elements: &[f64], threads: usize, progress: &Progress, interrupt: &Interrupt) -> f64 {
    if elements.len() <= STRETCH {
        let sum = pairwise(elements);
        progress.add(size_of_val(elements) as u64);
        return sum;
    }
    if interrupt.is_asked() {
        return 0.0;
    }
    let (low, high) = halves(elements);
    if threads < 2 {
        return sum_by(low, 1, progress, interrupt) + sum_by(high, 1, progress, interrupt);
    }
    thread::scope(|scope| {
        let high = scope.spawn(|| sum_by(high, threads / 2, progress, interrupt));
        let low = sum_by(low, threads.div_ceil(2), progress, interrupt);
        // A panic of the other thread is a bug, and this thread's panic too.
        low + high.join().unwrap_or(f64::NAN)
    })
}

fn halves(elements: &[f64]) -> (&[f64], &[f64]) {
    let half = elements.len() / 2;
    elements.split_at(half - half % 8)
}

/// Source: `pairwise_sum` of NumPy. Checked by `the_sum_is_numpy_s`.
fn pairwise(elements: &[f64]) -> f64 {
    if elements.len() > 128 {
        let (low, high) = halves(elements);
        return pairwise(low) + pairwise(high);
    }
    let mut eights = elements.chunks_exact(8);
    let Some(first) = eights.next() else { return elements.iter().sum() };
    let mut r = [0.0; 8];
    r.copy_from_slice(first);
    for eight in &mut eights {
        r.iter_mut().zip(eight).for_each(|(sum, element)| *sum += element);
    }
    let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    eights.remainder().iter().fold(sum, |sum, element| sum + element)
}

/// Seconds that `step` takes, and its result.
pub(crate) fn timed<T>(step: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = step();
    (start.elapsed().as_secs_f64(), result)
}

/// The process's memory in bytes: the field `name` of `/proc/self/status`.
pub(crate) fn memory_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Starts the peak of the process's memory anew. Best effort.
pub(crate) fn reset_peak_memory() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Bytes that this process had the kernel write to disks so far.
pub(crate) fn written_bytes() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_numpy_s() {
        // numpy.sum(1 / (1 + numpy.arange(n, dtype='f8')))
        let elements: Vec<f64> = (0..99_999).map(|t| 1.0 / f64::from(1 + t)).collect();
        let sums = [
            (0, 0.0),
            (7, 2.592_857_142_857_142_5),
            (9, 2.828_968_253_968_253_7),
            (129, 5.440_899_030_573_669),
            (1000, 7.485_470_860_550_345),
            (99_999, 12.090_136_129_863_43),
        ];
        for (n, want) in sums {
            assert_eq!(pairwise(&elements[..n]), want, "{n} elements");
        }
    }
}
