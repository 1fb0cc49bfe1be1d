//! The two engines side by side: speed, bytes written, processes, and what damage does to them.
//!
//! ```text
//! cargo xtask engines [DIRECTORY]        tables on standard output, for docs/decisions/010
//! ```
//!
//! Both engines do the same through the same calls, turn by turn, in one run. Bytes written are
//! what was passed to writing system calls (`wchar` of `/proc/self/io`): what the kernel writes
//! beyond that depends on the file system.
//!
//! # Failure
//!
//! The first error of a store that nobody damaged ends it with status 1.

#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use ndarray::{Array1, Ix1};
use zbigarray::{CreateOptions, OpenOptions, Store, Tid};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BLOCK: u64 = (2 << 20) / 8;
const BLOCKS: u64 = 32;
const SMALL_COMMITS: usize = 200;
const BLOCK_COMMITS: usize = 24;
const DAMAGED_COMMITS: u64 = 40;
const COPIES: u64 = 120;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["probe", address] => {
            match Store::open(address, OpenOptions::default()) {
                Ok(store) => println!("opens it, at commit {}", store.head()),
                Err(error) => println!("refused: {error}"),
            }
            Ok(())
        }
        [] => all(Path::new(".")),
        [directory] => all(Path::new(directory)),
        _ => Err("at most one directory".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn all(directory: &Path) -> Outcome<()> {
    let id = std::process::id();
    let scratch = std::path::absolute(directory.join(format!("zba-engines-{id}")))?;
    fs::create_dir(&scratch)?;
    let result = speed(&scratch).and_then(|()| damage(&scratch));
    fs::remove_dir_all(&scratch)?;
    result
}

/// The addresses of a store of each engine.
fn addresses(scratch: &Path, name: &str) -> [PathBuf; 2] {
    let sled = format!("sled:{}", scratch.join(format!("{name}.sled")).display());
    [scratch.join(format!("{name}.zba")), PathBuf::from(sled)]
}

fn row(what: &str, unit: &str, numbers: [f64; 2]) {
    let [local, sled] = numbers;
    println!("| {what} | {unit} | {local:.1} | {sled:.1} | {:.1} |", sled / local);
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes passed to writing system calls so far.
fn written() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.ok_or("no wchar in /proc/self/io")?.parse()?)
}

/// Numbers without pattern.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below.max(1)
    }
}

fn fill(store: &Store) -> Outcome<()> {
    let transaction = store.begin()?;
    let mut array = transaction.create::<f64, Ix1>("a", &[BLOCKS * BLOCK])?;
    let mut dice = Dice(3);
    for block in 0..BLOCKS {
        let values: Array1<f64> = (0..BLOCK).map(|_| dice.roll(1 << 31) as f64).collect();
        let rows = format!("{}:{}", block * BLOCK, (block + 1) * BLOCK);
        array.assign(rows.as_str(), &values)?;
    }
    drop(array);
    transaction.commit()?;
    Ok(())
}

/// Milliseconds of a step.
fn timed<T>(step: impl FnOnce() -> Outcome<T>) -> Outcome<(f64, T)> {
    let started = Instant::now();
    let done = step()?;
    Ok((started.elapsed().as_secs_f64() * 1e3, done))
}

fn one_element(store: &Store, at: u64) -> Outcome<()> {
    let transaction = store.begin()?;
    let mut array = transaction.open::<f64, Ix1>("a")?;
    array.rows_mut(at..at + 1)?[0] += 1.0;
    drop(array);
    transaction.commit()?;
    Ok(())
}

fn one_block(store: &Store, block: u64) -> Outcome<()> {
    let transaction = store.begin()?;
    let mut array = transaction.open::<f64, Ix1>("a")?;
    array.rows_mut(block * BLOCK..(block + 1) * BLOCK)?.fill(block as f64);
    drop(array);
    transaction.commit()?;
    Ok(())
}

fn sum(store: &Store) -> Outcome<f64> {
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>("a")?;
    Ok(array.view()?.sum())
}

fn speed(scratch: &Path) -> Outcome<()> {
    println!("| what | unit | local | sled | sled / local |\n|---|---|---|---|---|");
    let addresses = addresses(scratch, "speed");
    let mut stores = Vec::new();
    let (mut bulk, mut bulk_bytes) = ([0.0; 2], [0.0; 2]);
    for (at, address) in addresses.iter().enumerate() {
        let store = Store::create(address, CreateOptions::default())?;
        let before = written()?;
        bulk[at] = timed(|| fill(&store))?.0;
        bulk_bytes[at] = (written()? - before) / (1024.0 * 1024.0);
        stores.push(store);
    }
    row("one commit of 64 MiB", "ms", bulk);
    row("bytes written for it", "MiB", bulk_bytes);
    let (mut times, mut bytes) = ([Vec::new(), Vec::new()], [0.0; 2]);
    let mut dice = Dice(13);
    for _ in 0..SMALL_COMMITS {
        let place = dice.roll(BLOCKS * BLOCK);
        for (at, store) in stores.iter().enumerate() {
            let before = written()?;
            times[at].push(timed(|| one_element(store, place))?.0 * 1e3);
            bytes[at] += (written()? - before) / 1024.0 / SMALL_COMMITS as f64;
        }
    }
    row("commit of one element, median", "us", times.map(median));
    row("bytes written for it, mean", "KiB", bytes);
    let (mut times, mut bytes) = ([Vec::new(), Vec::new()], [0.0; 2]);
    for round in 0..BLOCK_COMMITS {
        for (at, store) in stores.iter().enumerate() {
            let before = written()?;
            times[at].push(timed(|| one_block(store, round as u64 % BLOCKS))?.0);
            bytes[at] += (written()? - before) / (1024.0 * 1024.0) / BLOCK_COMMITS as f64;
        }
    }
    row("commit of one block of 2 MiB, median", "ms", times.map(median));
    row("bytes written for it, mean", "MiB", bytes);
    processes(&addresses)?;
    drop(stores);
    reads(&addresses)
}

/// What a second process is told while this one has the stores open.
fn processes(addresses: &[PathBuf; 2]) -> Outcome<()> {
    for (name, address) in ["local", "sled"].iter().zip(addresses) {
        let output = Command::new(std::env::current_exe()?).arg("probe").arg(address).output()?;
        eprintln!("a second process, {name}: {}", String::from_utf8_lossy(&output.stdout).trim());
    }
    Ok(())
}

fn reads(addresses: &[PathBuf; 2]) -> Outcome<()> {
    let (mut opens, mut firsts, mut seconds) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    let mut singles = [0.0; 2];
    let mut sizes = [0.0; 2];
    for (at, address) in addresses.iter().enumerate() {
        let (time, store) = timed(|| Ok(Store::open(address, OpenOptions::read_only())?))?;
        opens[at] = time;
        let mut dice = Dice(5);
        let transaction = store.begin_read()?;
        let array = transaction.open::<f64, Ix1>("a")?;
        let mut times = Vec::new();
        let view = array.view()?;
        for _ in 0..BLOCKS {
            let index = usize::try_from(dice.roll(BLOCKS * BLOCK))?;
            times.push(timed(|| Ok(std::hint::black_box(view[index])))?.0 * 1e3);
        }
        singles[at] = median(times);
        drop(array);
        drop(transaction);
        drop(store);
        let store = Store::open(address, OpenOptions::read_only())?;
        firsts[at] = timed(|| sum(&store))?.0;
        seconds[at] = timed(|| sum(&store))?.0;
        sizes[at] = store.usage()?.data_bytes as f64 / (1024.0 * 1024.0);
    }
    row("open after these commits", "ms", opens);
    row("first touch of a random block, median", "us", singles);
    row("sum of 64 MiB, first pass", "ms", firsts);
    row("sum of 64 MiB, second pass", "ms", seconds);
    row("size of the data files", "MiB", sizes);
    Ok(())
}

/// What damage in one place comes to.
#[derive(Default)]
struct Sums {
    whole: u64,
    error: u64,
    by_anchor: u64,
    cut_off: u64,
    wrong: u64,
}

fn damage(scratch: &Path) -> Outcome<()> {
    println!("\n| damage in one place, {COPIES} copies | local | sled |\n|---|---|---|");
    let mut columns = Vec::new();
    for (address, extension) in addresses(scratch, "damage").iter().zip(["zba", "sled"]) {
        let store = Store::create(address, CreateOptions::default())?;
        for tid in 1..=DAMAGED_COMMITS {
            numbered(&store, tid)?;
        }
        drop(store);
        let original = scratch.join(format!("damage.{extension}"));
        let mut sums = Sums::default();
        for seed in 0..COPIES {
            let copied = scratch.join(format!("copy.{extension}"));
            copy(&original, &copied)?;
            spoil(&copied, &mut Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))?;
            let address = match extension {
                "sled" => PathBuf::from(format!("sled:{}", copied.display())),
                _ => copied.clone(),
            };
            judge(&address, &mut sums);
            fs::remove_dir_all(&copied)?;
        }
        columns.push(sums);
    }
    let line = |what: &str, number: fn(&Sums) -> u64| {
        let numbers: Vec<String> = columns.iter().map(|sums| number(sums).to_string()).collect();
        println!("| {what} | {} |", numbers.join(" | "));
    };
    line("harmless: all commits are there and right", |sums| sums.whole);
    line("an error, at open or by a check", |sums| sums.error);
    line("... of them noticed by the anchor alone: sled opened with fewer commits", |s| {
        s.by_anchor
    });
    line("the newest commits cut off without an error", |sums| sums.cut_off);
    line("wrong data without an error", |sums| sums.wrong);
    Ok(())
}

fn numbered(store: &Store, tid: u64) -> Outcome<()> {
    let transaction = store.begin()?;
    let mut array = match tid {
        1 => transaction.create::<u64, Ix1>("a", &[40_000])?,
        _ => transaction.open::<u64, Ix1>("a")?,
    };
    array.rows_mut(tid * 800..(tid + 1) * 800)?.fill(tid);
    drop(array);
    transaction.commit()?;
    Ok(())
}

fn judge(address: &Path, sums: &mut Sums) {
    let store = match Store::open(address, OpenOptions::default()) {
        Ok(store) => store,
        Err(error) => {
            sums.error += 1;
            sums.by_anchor += u64::from(error.to_string().contains("were acknowledged"));
            return;
        }
    };
    let checked = store.check(true, &mut |_, _| {});
    if !checked.is_ok_and(|report| report.damage.is_empty()) {
        sums.error += 1;
        return;
    }
    let head = store.head();
    let right = || -> Outcome<bool> {
        let transaction = store.begin_read()?;
        let array = transaction.open::<u64, Ix1>("a")?;
        let values = array.read("...")?;
        let expected = |at: usize| {
            let writer = at as u64 / 800;
            if writer <= head.0 && writer > 0 { writer } else { 0 }
        };
        Ok(values.iter().enumerate().all(|(at, &value)| value == expected(at)))
    };
    match right() {
        Err(_) => sums.error += 1,
        Ok(false) => sums.wrong += 1,
        Ok(true) if head < Tid(DAMAGED_COMMITS) => sums.cut_off += 1,
        Ok(true) => sums.whole += 1,
    }
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.metadata()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) -> Outcome<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}

/// Changes something where something is: a bit, a sector or page of zeros, a page of noise, the
/// end.
fn spoil(directory: &Path, dice: &mut Dice) -> Outcome<()> {
    let mut all = Vec::new();
    files(directory, &mut all)?;
    let mut sized = Vec::new();
    for path in all {
        let bytes = fs::read(&path)?;
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + 1);
        sized.push((path, bytes, used));
    }
    sized.sort_by(|a, b| a.0.cmp(&b.0));
    // Each byte that is in use is as likely as any other.
    let mut at = dice.roll(sized.iter().map(|(_, _, used)| used).sum());
    let Some((path, bytes, _)) = sized.iter().find(|(_, _, used)| {
        let here = at < *used;
        at = if here { at } else { at - used };
        here
    }) else {
        return Err("nothing to damage".into());
    };
    let (file, len) = (fs::File::options().write(true).open(path)?, bytes.len() as u64);
    match dice.roll(6) {
        0 | 1 => {
            let byte = bytes.get(usize::try_from(at)?).copied().unwrap_or(0);
            file.write_all_at(&[byte ^ (1 << dice.roll(8))], at)?;
        }
        2 | 3 => {
            let size = if dice.roll(2) == 0 { 512 } else { 4096 };
            let start = at / size * size;
            file.write_all_at(&vec![0; usize::try_from(size.min(len - start))?], start)?;
        }
        4 => {
            let start = at / 4096 * 4096;
            let noise: Vec<u8> =
                (0..4096.min(len - start)).map(|_| dice.roll(256).to_le_bytes()[0]).collect();
            file.write_all_at(&noise, start)?;
        }
        _ => file.set_len(at)?,
    }
    Ok(())
}
