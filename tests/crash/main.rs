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
mod company;
mod damage;
mod dice;
mod draft;
mod hunt;
mod image;
mod model;
mod process;
mod program;
mod story;
mod told;
mod verify;
mod version;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use zbigarray::storage::backend::simulated::Change;

use hunt::{Failure, Options, Summary};
use program::WANTED;

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
    let (mut bug, mut rest) = (None, words[1..].to_vec());
    if let Some(at) = rest.iter().position(|word| *word == "--bugs") {
        rest.remove(at);
        bug = Some("");
    }
    if let Some(at) = rest.iter().position(|word| *word == "--bug") {
        bug = rest.drain(at..(at + 2).min(rest.len())).nth(1).or(Some(""));
    }
    let parsed = parse(&rest, &mut options);
    match parsed
        .and_then(|()| bug.map_or_else(|| Ok(run(&options)), |name| hunt_bugs(name, &options)))
    {
        Ok(status) => status,
        Err(why) => {
            eprintln!("crash: {why}");
            ExitCode::from(2)
        }
    }
}

/// Plants each bug whose name contains `name` and prints how many images it took to find it.
#[cfg(feature = "planted-bugs")]
fn hunt_bugs(name: &str, options: &Options) -> Result<ExitCode, String> {
    use zbigarray::storage::planted::{ALL, plant};
    const IMAGES_MAX: u64 = 10_000;
    hunt::silence_panics();
    let wanted: Vec<_> =
        ALL.iter().filter(|(bug, _)| name.is_empty() || format!("{bug:?}") == name).collect();
    if wanted.is_empty() {
        return Err(format!("there is no bug `{name}`"));
    }
    let started = Instant::now();
    let (mut survived, mut most) = (0, 0);
    println!("| planted bug | what it breaks | images until found | found as |");
    println!("|---|---|--:|---|");
    for &&(bug, breaks) in &wanted {
        plant(Some(bug));
        let result =
            hunt::hunt(&Options { images: options.images.min(IMAGES_MAX), ..options.clone() });
        plant(None);
        let (images, what) = match result {
            Ok(_) => {
                survived += 1;
                ("**survived**".to_owned(), String::new())
            }
            Err(Failure { images, what, arguments }) => {
                most = most.max(images);
                if !name.is_empty() {
                    println!("cargo xtask crash --bug {name} {arguments}");
                }
                (images.to_string(), what)
            }
        };
        let what: String = what.replace('|', "/").chars().take(110).collect();
        println!("| `{bug:?}` | {breaks} | {images} | {what} |");
    }
    let time = started.elapsed().as_secs_f64();
    let (count, found) = (wanted.len(), wanted.len() - survived);
    println!("crash: {found} of {count} planted bugs found, at most {most} images, {time:.1} s");
    Ok(if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(not(feature = "planted-bugs"))]
fn hunt_bugs(_name: &str, _options: &Options) -> Result<ExitCode, String> {
    Err("bugs are planted only in a build with the feature `planted-bugs`".to_owned())
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
            let missing: Vec<_> = WANTED
                .iter()
                .chain(&company::WANTED)
                .filter(|event| !summary.events.contains_key(*event))
                .collect();
            if options.only.is_some() || missing.is_empty() {
                return ExitCode::SUCCESS;
            }
            println!("crash: FAILED: no program did this: {missing:?}");
            ExitCode::FAILURE
        }
        Err(Failure { images, arguments, what }) => {
            println!("crash: FAILED after {images} images: {what}");
            println!("crash: to see it again: cargo xtask crash {arguments}");
            ExitCode::FAILURE
        }
    }
}

fn told(summary: &Summary) -> String {
    let Summary { workloads, points, exhausted, by_depth, damaged, events, time } = summary;
    let events: Vec<String> =
        events.iter().map(|(event, count)| format!("{event} {count}")).collect();
    let images: u64 = by_depth.iter().sum();
    let levels: Vec<String> =
        by_depth.iter().take_while(|count| **count > 0).map(ToString::to_string).collect();
    let rate = images as f64 / time.as_secs_f64();
    format!(
        "{workloads} workloads, {points} crash points, all subsets at {exhausted}; {images} images \
         in {:.1} s, {rate:.0}/s; by crashes in a row: {}; {damaged} damaged and noticed\n\
         crash: programs did: {}",
        time.as_secs_f64(),
        levels.join(", "),
        events.join(", ")
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
