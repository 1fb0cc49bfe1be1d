//! Histories in files: one line for each event, written as it happens, so that a process that is
//! killed leaves what it did.
//!
//! ```text
//! begin 100          about to call begin, at this time
//! begun 103 7        it returned a snapshot of commit 7
//! read 5 1099511627777
//! write 5 1099511627778
//! commit 120         about to call commit; `abort 120` if it was given up instead
//! committed 131 8    acknowledged; or `refused 131`, `nothing 131` if nothing was written
//! ```
//!
//! # Invariants
//!
//! 1. A line counts once its end is there: a write that a kill cut short is as if it had not been.
//! 2. A transaction without `commit` cannot be there: it was aborted. One with it and without an
//!    answer is unknown. One without `begun` did nothing.
//! 3. Times are the kernel's `CLOCK_MONOTONIC`, the same in all processes.
//!
//! # Failure
//!
//! A file that is no history is an error with its line.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};

use super::history::{Call, History, Key, Op, Outcome, Transaction, Value, value_of};

/// Now, in nanoseconds, for all processes of the machine.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    let (seconds, nanoseconds) = (time.tv_sec(), time.tv_nsec());
    u64::try_from(seconds).unwrap() * 1_000_000_000 + u64::try_from(nanoseconds).unwrap()
}

/// Writes down what one worker does: one transaction after the other.
pub(crate) struct Recorder {
    file: File,
    process: u32,
    sequence: u64,
    number: u64,
}

impl Recorder {
    /// A recorder for worker `process`, a number above 0 that nobody else in the history has.
    pub(crate) fn new(directory: &Path, process: u32) -> io::Result<Self> {
        let file = File::create_new(path(directory, process))?;
        Ok(Self { file, process, sequence: 0, number: 0 })
    }

    /// A value that nobody has written.
    pub(crate) fn fresh(&mut self) -> Value {
        self.sequence += 1;
        value_of(self.process, self.sequence)
    }

    /// What the note of the running transaction's commit should say, so that the log names it.
    pub(crate) fn note(&self) -> String {
        format!("{} {}", self.process, self.number)
    }

    /// Before `begin` is called.
    pub(crate) fn begin(&mut self) {
        self.number += 1;
        self.line(format_args!("begin {}", now()));
    }

    /// After it returned.
    pub(crate) fn begun(&mut self, base: u64) {
        self.line(format_args!("begun {} {base}", now()));
    }

    pub(crate) fn read(&mut self, key: Key, value: Value) {
        self.line(format_args!("read {key} {value}"));
    }

    /// Before the value can be seen by anybody.
    pub(crate) fn write(&mut self, key: Key, value: Value) {
        self.line(format_args!("write {key} {value}"));
    }

    /// Before `commit` is called.
    pub(crate) fn commit(&mut self) {
        self.line(format_args!("commit {}", now()));
    }

    /// Instead of a commit.
    pub(crate) fn abort(&mut self) {
        self.line(format_args!("abort {}", now()));
    }

    /// After it returned a tid.
    pub(crate) fn committed(&mut self, tid: u64) {
        self.line(format_args!("committed {} {tid}", now()));
    }

    /// After it returned that it did not happen.
    pub(crate) fn refused(&mut self) {
        self.line(format_args!("refused {}", now()));
    }

    /// After a transaction that wrote nothing.
    pub(crate) fn nothing(&mut self) {
        self.line(format_args!("nothing {}", now()));
    }

    fn line(&mut self, what: std::fmt::Arguments<'_>) {
        // One call, so that a kill cuts at most this line.
        self.file.write_all(format!("{what}\n").as_bytes()).unwrap();
    }
}

fn path(directory: &Path, process: u32) -> PathBuf {
    directory.join(format!("{process}.history"))
}

/// All transactions that were recorded in a directory.
pub(crate) fn load(directory: &Path) -> Result<History, String> {
    let mut history = History::new();
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let Some(process) = stem.filter(|_| path.extension().is_some_and(|e| e == "history"))
        else {
            continue;
        };
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        parse(process, &text, &mut history)
            .map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))?;
    }
    history.sort_by_key(|transaction| transaction.began.from);
    Ok(history)
}

/// Reads the events of one worker.
fn parse(process: u32, text: &str, into: &mut History) -> Result<(), (usize, String)> {
    let mut number = 0;
    let mut began = None;
    let mut running: Option<Transaction> = None;
    // Invariant 1: what follows the last line end is no line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (at, line) in whole.lines().enumerate() {
        let wrong = || (at + 1, format!("`{line}` has no place here"));
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        let numbers: Result<Vec<u64>, _> = words.map(str::parse).collect();
        let numbers = numbers.map_err(|_| wrong())?;
        match (word, numbers.as_slice(), &mut running) {
            ("begin", &[time], _) => {
                number += 1;
                into.extend(running.take());
                began = Some(time);
            }
            ("begun", &[time, base], None) => {
                let from = began.take().ok_or_else(wrong)?;
                let (began, ended) =
                    (Call { from, to: time }, Call { from: u64::MAX, to: u64::MAX });
                let (outcome, ops) = (Outcome::Aborted, Vec::new());
                running = Some(Transaction { process, number, base, began, ended, outcome, ops });
            }
            ("read", &[key, value], Some(it)) => it.ops.push(Op::Read(key, value)),
            ("write", &[key, value], Some(it)) => it.ops.push(Op::Write(key, value)),
            ("commit", &[time], Some(it)) => {
                (it.ended.from, it.outcome) = (time, Outcome::Unknown);
            }
            ("abort", &[time], Some(it)) => it.ended = Call { from: time, to: time },
            (end, &[time, ref tid @ ..], Some(it)) => {
                it.outcome = match (end, tid) {
                    ("committed", &[tid]) => Outcome::Committed(Some(tid)),
                    ("nothing", []) => Outcome::Committed(None),
                    ("refused", []) => Outcome::Aborted,
                    _ => return Err(wrong()),
                };
                it.ended = Call { from: it.ended.from.min(time), to: time };
            }
            _ => return Err(wrong()),
        }
    }
    into.extend(running);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<History, (usize, String)> {
        let mut history = History::new();
        parse(4, text, &mut history).map(|()| history)
    }

    const WHOLE: &str = "begin 1\nbegun 2 0\nread 5 0\nwrite 5 77\ncommit 3\ncommitted 4 1\n\
                         begin 5\nbegun 6 1\nread 5 77\nnothing 7\nbegin 8\nbegun 9 1\nabort 10\n";

    #[test]
    fn what_is_recorded_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(directory.path(), 3).unwrap();
        recorder.begin();
        recorder.begun(6);
        recorder.read(9, 0);
        let value = recorder.fresh();
        recorder.write(9, value);
        assert_eq!(recorder.note(), "3 1");
        recorder.commit();
        recorder.committed(7);
        recorder.begin();
        recorder.begun(7);
        recorder.commit();
        drop(recorder);
        let [first, second] = load(directory.path()).unwrap().try_into().unwrap();
        assert_eq!(first.ops, [Op::Read(9, 0), Op::Write(9, value)]);
        assert_eq!((first.process, first.number, first.base), (3, 1, 6));
        assert_eq!(first.outcome, Outcome::Committed(Some(7)));
        assert!(first.began.from <= first.began.to && first.began.to <= first.ended.from);
        assert_eq!((second.number, second.outcome), (2, Outcome::Unknown));
        assert_eq!(second.ended.to, u64::MAX);
    }

    #[test]
    fn a_history_that_was_cut_anywhere_loads_as_what_it_can_have_been() {
        let whole = parsed(WHOLE).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[1].outcome, Outcome::Committed(None));
        assert_eq!(whole[2].outcome, Outcome::Aborted);
        for len in 0..WHOLE.len() {
            let cut = parsed(&WHOLE[..len]).unwrap();
            for (transaction, whole) in cut.iter().zip(&whole) {
                assert!(whole.ops.starts_with(&transaction.ops), "cut at {len}");
                let asked = WHOLE[..len].contains("commit 3\n");
                let answered = WHOLE[..len].contains("committed 4 1\n");
                if transaction.number == 1 {
                    let expected = match (asked, answered) {
                        (false, _) => Outcome::Aborted,
                        (true, false) => Outcome::Unknown,
                        (true, true) => Outcome::Committed(Some(1)),
                    };
                    assert_eq!(transaction.outcome, expected, "cut at {len}");
                }
            }
        }
    }

    #[test]
    fn lines_that_are_no_history_are_refused_with_their_place() {
        for (text, line) in
            [("read 1 2\n", 1), ("begin 1\nbegun x\n", 2), ("begin 1\nbegun 2 0\nhello 3\n", 3)]
        {
            assert_eq!(parsed(text).unwrap_err().0, line, "{text}");
        }
    }
}
