//! Failing calls, full disks and lying ones: what the store says and what is left of it.
//!
//! ```text
//! simulated   each call of the back end fails, in this process             simulated.rs
//! strace      each system call of a child fails                            strace.rs
//! fuse        a file system of ours loses, refuses and runs full           fuse.rs
//! images      small ext4, xfs and btrfs file systems really run full       images.rs
//! ```
//!
//! `cargo xtask faults` runs all of it. Without arguments, as under `cargo test`, only a sample of
//! the first runs, which needs nothing but this process.
//!
//! # Failure
//!
//! Status 1 if a promise was broken. What cannot run here is named in the table, with the reason.

mod child;
mod fuse;
mod images;
mod judge;
mod lossy;
mod program;
mod served;
mod simulated;
mod strace;
mod table;
mod workload;

use std::process::ExitCode;

use table::{Sample, Table};

/// What `cargo test` runs of the simulated faults.
const SAMPLE: Sample = Sample { every: 97, seed: 7 };

type Rig = fn(Sample, &mut Table);

const RIGS: [(&str, Rig); 4] = [
    ("simulated", simulated::run),
    ("strace", strace::run),
    ("fuse", fuse::run),
    ("images", images::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [child::WORD, rest @ ..] if child::main(rest) => ExitCode::SUCCESS,
        [served::WORD, rest @ ..] if served::main(rest) => ExitCode::SUCCESS,
        [served::WORD, ..] => ExitCode::FAILURE,
        [images::WORD, rest @ ..] if images::main(rest) => ExitCode::SUCCESS,
        [images::WORD, ..] => ExitCode::FAILURE,
        ["run", rest @ ..] => match options(rest) {
            Some((sample, only)) => rigs(sample, only.as_deref()),
            None => {
                eprintln!("run [--every K] [--seed S] [--only simulated|strace|fuse|images]");
                ExitCode::from(2)
            }
        },
        // What a test harness is asked for when somebody lists tests.
        words if words.contains(&"--list") => ExitCode::SUCCESS,
        _ => rigs(SAMPLE, Some("simulated")),
    }
}

fn options(mut words: &[&str]) -> Option<(Sample, Option<String>)> {
    let (mut sample, mut only) = (Sample { every: 1, seed: 7 }, None);
    while let [name, value, rest @ ..] = words {
        match *name {
            "--every" => sample.every = value.parse().ok().filter(|&every| every > 0)?,
            "--seed" => sample.seed = value.parse().ok()?,
            "--only" => only = Some((*value).to_owned()),
            _ => return None,
        }
        words = rest;
    }
    words.is_empty().then_some((sample, only))
}

fn rigs(sample: Sample, only: Option<&str>) -> ExitCode {
    let mut table = Table::new();
    for (name, run) in RIGS {
        if only.is_none_or(|only| only == name) {
            run(sample, &mut table);
            table.finished(name);
        }
    }
    if table.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
