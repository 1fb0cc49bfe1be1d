//! Changes of the code that no test notices: cargo-mutants over commit, conflict, recovery and
//! reclaim.
//!
//! ```text
//! file -> every small change of it -> build -> stage 1 -> stage 2 ...   the first failure ends it
//!                                     3 s      1 s: most are noticed here
//! ```
//!
//! Cargo asks us to run each test program, so that we can run it in stages: the short ones first,
//! each with a limit in time, because a changed loop may never end.
//!
//! # Invariants
//!
//! 1. The unchanged code passes all stages before anything is changed (the baseline).
//! 2. Only the programs that a stage runs are built.
//! 3. One run at a time has the build directory: of two, each would test what the other changed.
//!
//! # Failure
//!
//! A change that no stage noticed. Without cargo-mutants the step is not run. What is excluded, and
//! why, is in `.cargo/mutants.toml`.

use std::fs::File;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;

/// A part of a test program.
struct Stage {
    // `zbigarray` is the library's own tests, any other one is in `tests`.
    program: &'static str,
    arguments: &'static [&'static str],
    seconds_max: u64,
}

const fn stage(
    program: &'static str,
    seconds_max: u64,
    arguments: &'static [&'static str],
) -> Stage {
    Stage { program, arguments, seconds_max }
}

/// Tests of the engine without those that take a second or more.
const QUICK: &[&str] = &[
    "storage::local",
    "--skip=crash_tests::whichever_call",
    "--skip=crash_tests::what_the_successor",
    "--skip=crash_tests::a_flipped_bit",
    "--skip=crash_tests::any_damage",
    "--skip=crash_tests::a_full_disk_is",
    "--skip=crash_tests::a_store_of_which",
];
/// The others, but for the slowest.
const SLOW: &[&str] = &["what_the_successor", "a_flipped_bit", "any_damage", "a_full_disk_is"];

/// Rounds by name: what a round does not notice is left to the next, which takes longer. Within a
/// round cargo runs the library's tests first, then the other programs by name.
const ROUNDS: &[(&str, &[&[Stage]])] = &[
    ("decision", &[&[stage("zbigarray", 30, &["txn::conflict"])]]),
    (
        "engine",
        &[
            &[
                stage("zbigarray", 20, &["free_space", "extents", "recovery::", "local::pack"]),
                stage("zbigarray", 60, QUICK),
            ],
            &[
                stage("zbigarray", 120, SLOW),
                stage("crash", 90, &["enumerate", "--images", "500", "--seed", "9"]),
            ],
            &[
                stage("zbigarray", 180, &["crash_tests::whichever_call"]),
                stage("it", 180, &["model", "golden", "persistence", "packing"]),
            ],
        ],
    ),
    (
        "company",
        &[
            &[stage("zbigarray", 60, &["members::", "company_tests", "local::tests"])],
            &[
                stage("zbigarray", 60, QUICK),
                stage("company", 120, &[]),
                stage("it", 90, &["concurrent", "appends"]),
            ],
            &[stage("crash", 90, &["enumerate", "--images", "500", "--seed", "9"])],
        ],
    ),
    (
        "bytes",
        &[&[stage(
            "zbigarray",
            30,
            &["storage::encoding", "storage::filters", "storage::extent::"],
        )]],
    ),
    (
        "undo",
        &[
            &[stage("zbigarray", 60, &["undo", "txn::"])],
            &[stage("it", 180, &["model::", "conformance"])],
        ],
    ),
    (
        "rows",
        &[
            &[stage("it", 60, &["appends"])],
            &[stage("zbigarray", 60, &["txn::", "array::"]), stage("it", 90, &["model::"])],
        ],
    ),
    (
        "store",
        &[
            &[stage("zbigarray", 30, &["txn::"])],
            &[
                stage("it", 60, &["append", "connections", "persistence", "whole"]),
                stage("it", 90, &["model::"]),
                stage("it", 90, &["conformance", "--skip", "indexing"]),
                stage("it", 180, &["crash_smoke", "concurrent"]),
            ],
        ],
    ),
];

/// The files that decide what is durable, visible and free, and the rounds asked about each.
const FILES: &[(&str, &str)] = &[
    ("src/txn/conflict.rs", "decision"),
    ("src/txn/commit.rs", "store"),
    ("src/txn/pack.rs", "store"),
    ("src/storage/local/recovery.rs", "engine"),
    ("src/storage/local/pack.rs", "engine"),
    ("src/storage/local/extents.rs", "engine"),
    ("src/storage/local/free_space.rs", "engine"),
    ("src/storage/local/members.rs", "company"),
    ("src/storage/encoding.rs", "bytes"),
    ("src/storage/filters.rs", "bytes"),
    ("src/storage/extent.rs", "bytes"),
    ("src/txn/write_out.rs", "store"),
    ("src/txn/undo.rs", "undo"),
    ("src/txn/append.rs", "rows"),
];

/// `cargo xtask mutants [FILE...] [-- WORDS FOR CARGO-MUTANTS]`; without a file all of the table,
/// for hours.
pub(crate) fn run(workspace: &Workspace, words: &[&str]) -> Result<ExitCode, String> {
    let end = words.iter().position(|&word| word == "--").unwrap_or(words.len());
    let (wanted, more) = (&words[..end], words.get(end + 1..).unwrap_or(&[]));
    if let Some(unknown) = wanted.iter().find(|file| !FILES.iter().any(|(f, _)| f == *file)) {
        return Err(format!("{unknown} is not in the table of xtask/src/mutants.rs"));
    }
    let chosen = FILES.iter().filter(|(file, _)| wanted.is_empty() || wanted.contains(file));
    let build = workspace.path("target/mutants/build");
    let lock = std::fs::create_dir_all(&build).and_then(|()| File::create(build.join("lock")));
    let lock = lock.map_err(|error| error.to_string())?;
    lock.try_lock().map_err(|error| format!("another run is under way: {error}"))?;
    let step = |&(file, rounds): &(&'static str, &'static str)| {
        Step::new(file, move || mutated(workspace, file, rounds, more))
    };
    Ok(steps::run_all(chosen.map(step).collect()))
}

fn mutated(workspace: &Workspace, file: &str, rounds: &str, more: &[&str]) -> Outcome {
    let mut probe: Command = workspace.cargo();
    let installed = probe.args(["mutants", "--version"]).output().is_ok_and(|o| o.status.success());
    if !installed {
        let how = "cargo-mutants is not installed: cargo install --locked cargo-mutants";
        return Outcome::NotRun(how.to_owned());
    }
    let output = workspace.path("target/mutants").join(file.replace('/', "-"));
    let made = std::fs::create_dir_all(&output).and_then(|()| std::env::current_exe());
    let ourselves = match made {
        Ok(ourselves) => ourselves.display().to_string(),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let mut outcome = Outcome::NotRun("there is nothing to run".to_owned());
    for round in 0..rounds_of(rounds).len() {
        let name = format!("{rounds}-{round}");
        let mut command = workspace.cargo();
        command.args(["mutants", "--file", file, "--test-tool", "cargo", "--no-times"]);
        command.args(["--timeout", "900", "--output"]).arg(&output).args(more);
        if round > 0 {
            command.arg("--iterate");
        }
        let arguments = cargo_arguments(&ourselves, &name);
        command.args(arguments.iter().map(|argument| format!("--cargo-arg={argument}")));
        // Dependencies are built once for all files, and a changed file is built in seconds.
        command.env("CARGO_TARGET_DIR", workspace.path("target/mutants/build"));
        command.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
        // Few random cases: what a test proves by luck it does not prove.
        command.env("PROPTEST_CASES", "32").env("ZBA_CASES", "32");
        outcome = steps::run_command(command);
        // Only changes that nobody noticed are left to the next round.
        if !matches!(&outcome, Outcome::Failed(why) if why == "exit status: 2") {
            break;
        }
    }
    outcome
}

/// How cargo builds the programs of a round, and that it runs them through us.
fn cargo_arguments(ourselves: &str, round: &str) -> Vec<String> {
    let runner = [ourselves, "mutants-stages", round].map(|word| format!("{word:?}")).join(", ");
    let runner = format!("target.'cfg(all())'.runner = [{runner}]");
    let mut arguments = vec!["--no-default-features".to_owned(), "--config".to_owned(), runner];
    arguments.extend(programs(stages_of(round)).into_iter().map(|program| match program {
        "zbigarray" => "--lib".to_owned(),
        other => format!("--test={other}"),
    }));
    arguments
}

fn rounds_of(name: &str) -> &'static [&'static [Stage]] {
    ROUNDS.iter().find(|(known, _)| *known == name).map_or(&[], |(_, rounds)| rounds)
}

/// The stages of a round called `name-number`.
fn stages_of(name: &str) -> &'static [Stage] {
    let Some((name, round)) = name.rsplit_once('-') else { return &[] };
    round.parse().ok().and_then(|round: usize| rounds_of(name).get(round)).map_or(&[], |all| all)
}

fn programs(stages: &[Stage]) -> Vec<&'static str> {
    let mut programs: Vec<_> = stages.iter().map(|stage| stage.program).collect();
    programs.sort_unstable();
    programs.dedup();
    programs
}

/// `mutants-stages STAGES PROGRAM ...`: how cargo runs a test program for us.
pub(crate) fn run_stages(words: &[&str]) -> Result<ExitCode, String> {
    let [stages, program, ..] = words else { return Err("too few words".to_owned()) };
    let name = program.rsplit('/').next().and_then(|name| name.rsplit_once('-'));
    let name = name.map_or("", |(name, _)| name);
    for stage in stages_of(stages).iter().filter(|stage| stage.program == name) {
        let mut command = Command::new(program);
        let status = limited(command.args(stage.arguments), stage.seconds_max);
        match status.map_err(|error| error.to_string())? {
            Some(status) if status.success() => {}
            Some(_) => return Ok(ExitCode::FAILURE),
            None => {
                println!("mutants: {:?} took more than {} s", stage.arguments, stage.seconds_max);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a program ended; `None` if it did not within the time.
fn limited(command: &mut Command, seconds_max: u64) -> std::io::Result<Option<ExitStatus>> {
    let (mut child, started) = (command.spawn()?, Instant::now());
    while started.elapsed() < Duration::from_secs(seconds_max) {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
