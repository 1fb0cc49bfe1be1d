//! Developer commands: what people and continuous integration run, and nothing else.
//!
//! ```text
//! cargo xtask test    check + tests + Python oracle + demo      table in test.rs
//! cargo xtask check   formatting, lints, documentation, deny    table in check.rs
//! cargo xtask bench   every bench target, table, docs           bench.rs
//! cargo xtask faults  failing calls, full and lying disks       faults.rs
//! cargo xtask kill    processes killed while they commit        kill.rs
//!                          \ steps.rs runs tables of steps /
//! ```
//!
//! # Invariants
//!
//! 1. A command ends with status 0 only if every step of it passed.
//! 2. A step that did not run is named in the summary with the reason.
//!
//! # Failure
//!
//! 0 passed, 1 a step failed, 2 the command line was not understood.

mod bench;
mod check;
mod crash;
mod engines;
mod faults;
mod fuzz;
mod isolation;
mod kill;
mod miri;
mod mutants;
mod numbers;
mod packages;
mod python;
mod sanitize;
mod shuttle;
mod sled;
mod soak;
mod steps;
mod test;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const HELP: &str = "\
cargo xtask COMMAND

  test [--quick]    everything that can be tested, with what it needs installed:
                    formatting, lints, all tests, documentation, NumPy as oracle, demo
                    --quick: no Python, no documentation, no demo
  check             formatting, lints, layers and house rules, documentation, licences
  bench [--quick] [--write | NAME...]
                    every benchmark, or those named; fails if a bar is missed
                    --quick: smaller sizes and fewer rounds, for a look
                    --write: results go to docs/benchmarks.md
  fuzz [TARGET...] [--seconds N]
                    libFuzzer on decoders and whole stores, 60 s each unless said otherwise
  fuzz flips        every bit of a small store flipped; each must be found
  shuttle [--iterations N]
                    threads on one store in chosen orders
  miri [--all]      unsafe code under Miri: a quarter of an hour, or hours
  sanitize [thread|address]
                    the tests under ThreadSanitizer and AddressSanitizer
  mutants [FILE...] [-- WORDS FOR CARGO-MUTANTS]
                    changes of the code that no test notices; hours
  crash [--images N] [--seed S] [--depth D] [--bugs | --bug NAME]
                    power cuts at every change of the disk, in release mode
                    --bugs: every planted bug must be found; --bug: this one
  engines [DIRECTORY]
                    both engines in one run: speed, bytes written, processes, damage
  faults [--every K] [--seed S] [--only simulated|strace|fuse|images]
                    every call that can fail fails: in the process, below it, on full disks
                    --every K: one run in K
  kill [--runs N] [--seed S]
                    processes killed while they commit, again and again on the same stores
  isolation [--deaths N] [--transactions N] [--processes N] [--seed S]
                    processes that write one store at once, killed and stopped; what they saw
                    must be snapshots, and rows they appended be there once
  sled [--damages N] [--kills N] [--every K] [--seed S]
                    the sled engine: its files damaged, processes killed, power cut
  soak [--minutes N] [--processes N] [--seed S]
                    the same for long, also with writes that fail: nothing may pile up
  help              this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = Workspace::here();
    match words.as_slice() {
        ["test"] => test::run(&workspace, false),
        ["test", "--quick"] => test::run(&workspace, true),
        ["check"] => check::run(&workspace),
        ["bench", rest @ ..] => match bench::Options::parse(rest) {
            Ok(options) => bench::run(&workspace, &options),
            Err(why) => usage(&format!("bench: {why}")),
        },
        ["fuzz", rest @ ..] => match fuzz::Options::parse(rest) {
            Ok(options) => fuzz::run(&workspace, &options),
            Err(why) => usage(&format!("fuzz: {why}")),
        },
        ["shuttle", rest @ ..] => or_usage("shuttle", shuttle::run(&workspace, rest)),
        ["miri", rest @ ..] => or_usage("miri", miri::run(&workspace, rest)),
        ["sanitize", rest @ ..] => or_usage("sanitize", sanitize::run(&workspace, rest)),
        ["mutants", rest @ ..] => or_usage("mutants", mutants::run(&workspace, rest)),
        ["mutants-stages", rest @ ..] => or_usage("mutants-stages", mutants::run_stages(rest)),
        ["crash", rest @ ..] => crash::run(&workspace, rest),
        ["engines", rest @ ..] => engines::run(&workspace, rest),
        ["faults", rest @ ..] => match faults::Options::parse(rest) {
            Ok(options) => faults::run(&workspace, &options),
            Err(why) => usage(&format!("faults: {why}")),
        },
        ["kill", rest @ ..] => match kill::Options::parse(rest) {
            Ok(options) => kill::run(&workspace, options),
            Err(why) => usage(&format!("kill: {why}")),
        },
        ["sled", rest @ ..] => match sled::Options::parse(rest) {
            Ok(options) => sled::run(&workspace, options),
            Err(why) => usage(&format!("sled: {why}")),
        },
        ["soak", rest @ ..] => match soak::Options::parse(rest) {
            Ok(options) => soak::run(&workspace, &options),
            Err(why) => usage(&format!("soak: {why}")),
        },
        ["isolation", rest @ ..] => match isolation::Options::parse(rest) {
            Ok(options) => isolation::run(&workspace, &options),
            Err(why) => usage(&format!("isolation: {why}")),
        },
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [] => usage("which command?"),
        _ => usage(&format!("not understood: {}", words.join(" "))),
    }
}

fn or_usage(command: &str, result: Result<ExitCode, String>) -> ExitCode {
    result.unwrap_or_else(|why| usage(&format!("{command}: {why}")))
}

/// Says what was wrong and what would be right.
fn usage(problem: &str) -> ExitCode {
    eprint!("xtask: {problem}\n\n{HELP}");
    ExitCode::from(2)
}
