//! Crashes at every change of the disk: what is left must be a commit that was made.
//!
//! ```text
//! program --> simulated disk, which remembers every change
//!               \-> crash point --> image --> open, compare, check --> work on --> crash again ...
//! ```
//!
//! Under `cargo test` a short run; `cargo xtask crash` runs it in release mode with arguments of
//! its own, see `xtask/src/crash.rs`.
//!
//! # Failure
//!
//! The first wrong image ends the run; the arguments that lead to it again are printed.

#![allow(clippy::unwrap_used, reason = "this is a test without the harness of the compiler")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests count in u64 what memory counts in usize, which is the same on 64-bit machines"
)]

mod arrays;
mod dice;
mod draft;
mod hunt;
mod image;
mod model;
mod program;
mod story;
mod verify;
mod version;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use zbigarray::storage::backend::simulated::Change;

use hunt::{Failure, Options, Summary};

/// Images of the short run.
const SHORT: u64 = 1_500;
const NAME: &str = "a_crash_leaves_a_commit_that_was_made";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let threads = available_parallelism().map_or(1, std::num::NonZero::get);
    let mut options = Options { images: SHORT, seed: 1, depth: 4, threads, only: None };
    if words.first() != Some(&"enumerate") {
        return as_test(&words, &options);
    }
    match parse(&words[1..], &mut options) {
        Ok(()) => run(&options),
        Err(why) => {
            eprintln!("crash: {why}");
            ExitCode::from(2)
        }
    }
}

/// Behaves as a test program with one test does.
fn as_test(words: &[&str], options: &Options) -> ExitCode {
    if words.contains(&"--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
    if words.contains(&"--ignored")
        || (filters.peek().is_some() && !filters.any(|filter| NAME.contains(filter)))
    {
        return ExitCode::SUCCESS;
    }
    run(options)
}

fn parse(words: &[&str], options: &mut Options) -> Result<(), String> {
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let number = value.replace('_', "").parse::<u64>();
        let number = number.map_err(|_| format!("{name} {value}: not a number"))?;
        match *name {
            "--images" => options.images = number,
            "--seed" => options.seed = number,
            "--threads" => options.threads = number.max(1) as usize,
            "--depth" => options.depth = (number.max(1) as usize).min(verify::DEPTH_MAX),
            "--workload" => options.only.get_or_insert_default()[0] = number,
            "--point" => options.only.get_or_insert_default()[1] = number,
            "--image" => options.only.get_or_insert_default()[2] = number,
            _ => return Err(format!("{name} is not understood")),
        }
    }
    Ok(())
}

fn run(options: &Options) -> ExitCode {
    hunt::silence_panics();
    if let Err(why) = image::every_subset_is_visited_once() {
        println!("crash: {why}");
        return ExitCode::FAILURE;
    }
    match hunt::hunt(options) {
        Ok(summary) => {
            println!("crash: {}", told(&summary));
            ExitCode::SUCCESS
        }
        Err(Failure { images, arguments, what }) => {
            println!("crash: FAILED after {images} images: {what}");
            println!("crash: to see it again: cargo xtask crash {arguments}");
            ExitCode::FAILURE
        }
    }
}

fn told(summary: &Summary) -> String {
    let Summary { workloads, points, exhausted, by_depth, time } = summary;
    let images: u64 = by_depth.iter().sum();
    let levels: Vec<String> =
        by_depth.iter().take_while(|count| **count > 0).map(ToString::to_string).collect();
    let rate = images as f64 / time.as_secs_f64();
    format!(
        "{workloads} workloads, {points} crash points, all subsets at {exhausted}; {images} images \
         in {:.1} s, {rate:.0}/s; by crashes in a row: {}",
        time.as_secs_f64(),
        levels.join(", ")
    )
}

/// A line that tells how far the run is, on a terminal.
pub(crate) fn progress(images: u64, wanted: u64, started: Instant) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let rate = images as f64 / started.elapsed().as_secs_f64();
        let end = if images >= wanted { "\r\x1b[K" } else { "" };
        let _ = write!(terminal, "\r{images} of {wanted} images, {rate:.0}/s {end}");
    }
}

/// A change without its bytes.
pub(crate) fn shown(change: &Change) -> String {
    match change {
        Change::Write { file, offset, bytes } => {
            format!("write {} bytes at {offset} of file {file}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}
