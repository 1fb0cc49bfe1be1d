//! Every call that the store makes of its back end fails, one by one, in this process.
//!
//! ```text
//! program -> store -> Faulty: counts the calls, and the n-th fails -> simulated disk
//!                                                                     |-> as it is
//!                                                                     '-> after a power cut
//! ```
//!
//! A call is known by its *site*: what is done to which kind of file. The table at the end has a
//! row for each site and each way to fail.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zbigarray::storage::backend::simulated::{Fault, FaultKind, Simulated, Survival};
use zbigarray::storage::backend::{Access, Backend, BackendFile, ByteLock, Growth};

use crate::judge::{Told, goes_on, judge};
use crate::program;
use crate::table::{Sample, Table};
use crate::workload::{History, WORKLOADS};

/// Commits of each workload.
const COMMITS: u64 = 14;

/// A way to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Eio,
    Enospc,
    Eintr,
    /// Half of a write is done before the disk is full.
    ShortEnospc,
    /// Half of a write is done before it fails.
    ShortEio,
    /// This and all later calls that change something find the disk full.
    EnospcFromNow,
    /// This and all later calls of any kind fail.
    EioFromNow,
}

const WAYS: [(&str, How); 7] = [
    ("EIO", How::Eio),
    ("ENOSPC", How::Enospc),
    ("EINTR", How::Eintr),
    ("short, then ENOSPC", How::ShortEnospc),
    ("short, then EIO", How::ShortEio),
    ("ENOSPC from then on", How::EnospcFromNow),
    ("EIO from then on", How::EioFromNow),
];

impl How {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Eio | Self::ShortEio | Self::EioFromNow => libc::EIO,
            Self::Enospc | Self::ShortEnospc | Self::EnospcFromNow => libc::ENOSPC,
            Self::Eintr => libc::EINTR,
        })
    }

    fn suits(self, site: &str) -> bool {
        let reads = ["open", "list", "read", "len", "blocks", "lock"];
        let reads = reads.iter().any(|word| site.starts_with(word));
        match self {
            Self::Eio | Self::Eintr | Self::EioFromNow => true,
            Self::Enospc | Self::EnospcFromNow => !reads,
            Self::ShortEnospc | Self::ShortEio => site.starts_with("write"),
        }
    }
}

#[derive(Default)]
struct Calls {
    sites: Vec<String>,
    fault: Option<(usize, How)>,
}

/// A simulated disk whose n-th call fails.
#[derive(Clone)]
struct Faulty {
    disk: Simulated,
    calls: Arc<Mutex<Calls>>,
}

/// What becomes of a call.
enum Fate {
    Done,
    Half(io::Error),
    Fails(io::Error),
}

/// The kind of a file or directory.
fn kind_of(path: &str) -> &str {
    match path.split_once('/') {
        Some((directory, name)) if name.starts_with(".tmp") => match directory {
            "log" => "new log",
            _ => "new checkpoint",
        },
        Some((directory, _)) => directory,
        None if path.is_empty() => "the root",
        None => path,
    }
}

impl Faulty {
    fn new(disk: &Simulated, fault: Option<(usize, How)>) -> Self {
        let calls = Calls { sites: Vec::new(), fault };
        Self { disk: disk.clone(), calls: Arc::new(Mutex::new(calls)) }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, action: &str, path: &str) -> Fate {
        let mut calls = self.calls();
        let number = calls.sites.len();
        let site = format!("{action} {}", kind_of(path));
        calls.sites.push(site);
        let site = &calls.sites[number];
        match calls.fault {
            Some((at, how @ (How::EnospcFromNow | How::EioFromNow))) if number >= at => {
                if how.suits(site) { Fate::Fails(how.error()) } else { Fate::Done }
            }
            Some((at, how @ (How::ShortEnospc | How::ShortEio))) if number == at => {
                Fate::Half(how.error())
            }
            Some((at, how)) if number == at => Fate::Fails(how.error()),
            _ => Fate::Done,
        }
    }

    fn call<T>(
        &self,
        action: &str,
        path: &str,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.fate(action, path) {
            Fate::Done => call(),
            Fate::Half(error) | Fate::Fails(error) => Err(error),
        }
    }

    fn opened(&self, path: &str, file: Arc<dyn BackendFile>) -> Arc<dyn BackendFile> {
        Arc::new(FaultyFile { disk: self.clone(), path: path.to_owned(), file })
    }
}

impl Backend for Faulty {
    fn location(&self) -> String {
        self.disk.location()
    }

    fn create_root(&self) -> io::Result<()> {
        self.call("create", "", || self.disk.create_root())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.call("create", path, || self.disk.create_dir(path))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn BackendFile>> {
        let file = self.call("create", path, || self.disk.create(path))?;
        Ok(self.opened(path, file))
    }

    fn create_unnamed(&self) -> io::Result<Arc<dyn BackendFile>> {
        let file = self.call("create", "unnamed", || self.disk.create_unnamed())?;
        Ok(self.opened("unnamed", file))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn BackendFile>> {
        let file = self.call("open", path, || self.disk.open(path, access))?;
        Ok(self.opened(path, file))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.call("list", path, || self.disk.list(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call("rename", from, || self.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call("remove", path, || self.disk.remove(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.call("sync names of", path, || self.disk.sync_dir(path))
    }
}

struct FaultyFile {
    disk: Faulty,
    path: String,
    file: Arc<dyn BackendFile>,
}

impl BackendFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.disk.call("read", &self.path, || self.file.read_at(bytes, offset_bytes))
    }

    fn write_at(&self, parts: &[&[u8]], offset_bytes: u64) -> io::Result<()> {
        match self.disk.fate("write", &self.path) {
            Fate::Done => self.file.write_at(parts, offset_bytes),
            Fate::Fails(error) => Err(error),
            Fate::Half(error) => {
                let bytes = parts.concat();
                self.file.write_at(&[&bytes[..bytes.len() / 2]], offset_bytes)?;
                Err(error)
            }
        }
    }

    fn allocate(&self, offset_bytes: u64, len_bytes: u64, growth: Growth) -> io::Result<()> {
        let allocate = || self.file.allocate(offset_bytes, len_bytes, growth);
        self.disk.call("allocate in", &self.path, allocate)
    }

    fn punch(&self, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
        self.disk.call("punch", &self.path, || self.file.punch(offset_bytes, len_bytes))
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.disk.call("cut", &self.path, || self.file.set_len(len_bytes))
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.call("len of", &self.path, || self.file.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.disk.call("blocks of", &self.path, || self.file.allocated_bytes())
    }

    fn start_writeback(&self, offset_bytes: u64, len_bytes: u64) {
        self.file.start_writeback(offset_bytes, len_bytes);
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.disk.fate("sync", &self.path) {
            Fate::Done => self.file.sync_data(),
            Fate::Half(error) | Fate::Fails(error) => {
                // The disk must know: what was not durable is lost for later syncs as well.
                let (call, kind, lasting) = (0, FaultKind::Eio, false);
                self.disk.disk.set_fault(Some(Fault { call, kind, lasting }));
                let failed = self.file.sync_data();
                self.disk.disk.set_fault(None);
                Err(failed.err().map_or(error.kind().into(), |_| error))
            }
        }
    }

    fn try_lock(&self, byte: u64, lock: ByteLock) -> io::Result<bool> {
        self.disk.call("lock", &self.path, || self.file.try_lock(byte, lock))
    }

    fn locked_by_others(&self, bytes: &Range<u64>) -> io::Result<Option<u64>> {
        self.disk.call("lock", &self.path, || self.file.locked_by_others(bytes))
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.file.fd()
    }
}

/// Runs the table, or a sample of it.
pub(crate) fn run(sample: Sample, table: &mut Table) {
    let mut number = 0;
    for (name, workload) in WORKLOADS {
        let mut history = History::new(workload, sample.seed);
        let sites = match one(&mut history, None) {
            Ok(sites) => sites,
            Err(why) => {
                table.row("simulated", &format!("{name} without faults"), "-", Err(why));
                continue;
            }
        };
        for (call, site) in sites.iter().enumerate() {
            for (way, how) in WAYS.iter().filter(|(_, how)| how.suits(site)) {
                number += 1;
                if !sample.has(number) {
                    continue;
                }
                let result =
                    catch_unwind(AssertUnwindSafe(|| one(&mut history, Some((call, *how)))));
                let result = result.unwrap_or_else(|_| Err("panic".to_owned()));
                let result = result.map(|_| ());
                let place = |why| format!("{name}, call {call}: {why}");
                table.row("simulated", site, way, result.map_err(place));
            }
        }
    }
}

/// One program on one disk. Returns the sites of all its calls.
fn one(history: &mut History, fault: Option<(usize, How)>) -> Result<Vec<String>, String> {
    let disk = Simulated::new().map_err(|error| error.to_string())?;
    let faulty = Faulty::new(&disk, fault);
    let mut told = Told::default();
    let backend: Arc<dyn Backend> = Arc::new(faulty.clone());
    program::run(&backend, history, COMMITS, &mut |event| told.hear(&event));
    drop(backend);
    let lasting = matches!(fault, Some((_, How::EnospcFromNow | How::EioFromNow)));
    if !lasting && !told.done {
        told.bad.push("one failing call stopped the program for good".to_owned());
    }
    let image = disk.crash_image(disk.changes_count(), |_, _| Survival::Dropped);
    let image = image.map_err(|error| error.to_string())?;
    for (power, disk) in [("the power is cut", image), ("the machine stays up", disk)] {
        let backend: Arc<dyn Backend> = Arc::new(disk);
        let judged = judge(&backend, history, &told);
        let judged = judged.and_then(|_| goes_on(&backend, history));
        judged.map_err(|why| format!("{power}: {why}"))?;
    }
    let calls = faulty.calls();
    Ok(calls.sites.clone())
}
