//! What do several processes on one store cost each other?
//!
//! Workloads: (1) 48 commits of one block of 2 MiB each, made by 1, 2 and 4 processes to blocks of
//! their own; baseline: by 1. (2) What (1) gains; baseline: what the same number of processes
//! gains that write as much to plain files: a block to a file of its own, 512 bytes to the end of a
//! common one, each with `fdatasync`. (3) `begin` and its end when nothing was committed, nothing
//! opened. (4) From a commit's return to that of `wait` in another process, 200 times; 0 if `wait`
//! was first. (5) Sums of 256 MiB through one view, a new transaction each, while another process
//! commits single elements without a pause; baseline: while it does nothing. (6) From the death of
//! such a writer, killed at some moment, to the end of a commit here. Warm. Seed: none. Limit: two
//! cores and one disk. Expected: (1) 1.5 times one process's speed, (2) as plain files, (3) 2 us,
//! (4) 200 us, (5) 0.9 times the speed, (6) 100 ms.

mod harness;
mod machine;
mod plain;
mod stores;

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{Bar, Question, Ratio, compare, limit, seconds, sized};
use ndarray::Ix1;
use plain::{BLOCK_BYTES, BLOCK_LEN, Outcome};
use zbigarray::array::cast::as_bytes;
use zbigarray::{OpenOptions, Store};

const PART: &str = "ZBA_BENCH_PART";
const STORE: &str = "ZBA_BENCH_STORE";
/// Blocks that a committing process has for itself.
const OWN_BLOCKS: usize = 4;

fn main() -> Outcome<()> {
    if let (Ok(part), Ok(path)) = (std::env::var(PART), std::env::var(STORE)) {
        return play(&part, Path::new(&path));
    }
    let directory = machine::data_dir()?;
    let path = directory.path().join("store");
    let store = stores::filled(&path, sized(128, 32), false)?;
    commits(&path)?;
    begins(&store)?;
    wakes(&store, &path)?;
    readers(&store, &path)?;
    deaths(&store, &path)
}

fn commits(path: &Path) -> Outcome<()> {
    let count = sized(48, 12);
    let turn = |part: &str, processes: usize| -> Outcome<f64> {
        let start = |number| Player::start(&format!("{part} {number}"), path);
        let mut players = (0..processes).map(start).collect::<Outcome<Vec<_>>>()?;
        machine::warm_memory()?;
        seconds(|| {
            let line = format!("{}", count / processes);
            players.iter_mut().try_for_each(|player| player.say(&line))?;
            players.iter_mut().try_for_each(|player| player.hear().map(drop))
        })
    };
    for processes in [2, 4] {
        let name = format!("commits by {processes} processes");
        let (ratio, rounds) = (Ratio::Speed, sized(9, 3));
        let question = Question { name: &name, unit: "s", ratio, bar: Bar::AtLeast(1.5), rounds };
        compare(question, || turn("commit", 1), || turn("commit", processes))?.print();
        let name = format!("commits by {processes} processes, to plain files");
        let question =
            Question { name: &name, unit: "of one", ratio, bar: Bar::AtLeast(0.95), rounds };
        let part =
            |part| Ok::<_, Box<dyn std::error::Error>>(turn(part, processes)? / turn(part, 1)?);
        compare(question, || part("plain"), || part("commit"))?.print();
    }
    Ok(())
}

fn begins(store: &Store) -> Outcome<()> {
    const TIMES: u32 = 10_000;
    let turn = || -> Outcome<f64> {
        let all = seconds(|| (0..TIMES).try_for_each(|_| store.begin_read().map(drop)))?;
        Ok(all * 1e6 / f64::from(TIMES))
    };
    turn()?;
    let times = (0..sized(21, 5)).map(|_| turn()).collect::<Outcome<Vec<_>>>()?;
    limit("begin, nothing changed", "us", Bar::AtMost(2.0), times).print();
    Ok(())
}

fn wakes(store: &Store, path: &Path) -> Outcome<()> {
    let mut player = Player::start("wait", path)?;
    let mut turn = || -> Outcome<f64> {
        player.say("")?;
        player.hear()?;
        // It waits for certain by now.
        std::thread::sleep(Duration::from_millis(3));
        set_one(store, 0)?;
        let committed = now_us()?;
        Ok((player.hear()?.parse::<f64>()? - committed).max(0.0))
    };
    let times = (0..sized(200, 20)).map(|_| turn()).collect::<Outcome<Vec<_>>>()?;
    limit("wake-up of a waiter", "us", Bar::AtMost(200.0), times).print();
    Ok(())
}

fn readers(store: &Store, path: &Path) -> Outcome<()> {
    let (ratio, bar, rounds) = (Ratio::Speed, Bar::AtLeast(0.9), sized(21, 5));
    let name = "reads beside a writer";
    let question = Question { name, unit: "s", ratio, bar, rounds };
    let sums = || {
        (0..4).try_for_each(|_| -> Outcome<()> {
            let transaction = store.begin_read()?;
            let array = transaction.open::<f64, Ix1>(stores::NAME)?;
            black_box(array.view()?.sum());
            Ok(())
        })
    };
    let mut writer = Player::start("write", path)?;
    let beside = || -> Outcome<f64> {
        writer.say("go")?;
        writer.hear()?;
        let time = seconds(sums);
        writer.say("stop")?;
        writer.hear()?;
        time
    };
    compare(question, || seconds(sums), beside)?.print();
    Ok(())
}

fn deaths(store: &Store, path: &Path) -> Outcome<()> {
    let turn = |number: u64| -> Outcome<f64> {
        let mut writer = Player::start("write", path)?;
        writer.say("go")?;
        writer.hear()?;
        std::thread::sleep(Duration::from_micros(5_000 + number * 137));
        writer.child.kill()?;
        let time = seconds(|| match set_one(store, 5) {
            // It met a commit that the dead one was not told of.
            Err(_) => set_one(store, 5),
            done => done,
        });
        Ok(time? * 1e3)
    };
    let times = (0..sized(40_u64, 5)).map(turn).collect::<Outcome<Vec<_>>>()?;
    limit("commit after a kill", "ms", Bar::AtMost(100.0), times).print();
    Ok(())
}

fn set_one(store: &Store, at: u64) -> Outcome<()> {
    let transaction = store.begin()?;
    let mut array = transaction.open::<f64, Ix1>(stores::NAME)?;
    array.rows_mut(at..at + 1)?[0] += 1.0;
    drop(array);
    transaction.commit()?;
    Ok(())
}

/// Microseconds since 1970, by the clock that all processes have.
fn now_us() -> Outcome<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e6)
}

/// What a child does.
fn play(part: &str, path: &Path) -> Outcome<()> {
    let store = Store::open(path, OpenOptions::default())?;
    let mut lines = std::io::stdin().lines();
    let reply = |line: &str| -> Outcome<()> {
        println!("{line}");
        Ok(std::io::stdout().flush()?)
    };
    reply("ready")?;
    match part.split_once(' ') {
        Some((part, number)) => {
            let first = number.parse::<usize>()? * OWN_BLOCKS;
            let files = PlainFiles::open(path, number)?;
            while let Some(line) = lines.next().transpose()? {
                (0..line.parse::<usize>()?).try_for_each(|n| match part {
                    "plain" => files.write_block(n),
                    _ => commit_block(&store, first, n),
                })?;
                reply("done")?;
            }
        }
        None if part == "wait" => {
            while lines.next().transpose()?.is_some() {
                let head = store.head();
                reply("waiting")?;
                store.wait(head, Duration::from_secs(10))?;
                let woken = now_us()?;
                reply(&woken.to_string())?;
            }
        }
        None => {
            let (sender, wanted) = std::sync::mpsc::channel();
            drop(lines);
            std::thread::spawn(move || {
                let lines = std::io::stdin().lines().map_while(Result::ok);
                let mut lines = lines.map(|line| sender.send(line));
                lines.try_for_each(|sent| sent)
            });
            while wanted.recv().is_ok() {
                reply("going")?;
                let begin = Instant::now();
                while wanted.try_recv().is_err() && begin.elapsed() < Duration::from_secs(60) {
                    set_one(&store, 5)?;
                }
                reply("stopped")?;
            }
        }
    }
    Ok(())
}

fn commit_block(store: &Store, first: usize, number: usize) -> Outcome<()> {
    let block = (first + number % OWN_BLOCKS) * BLOCK_LEN;
    let transaction = store.begin()?;
    let mut array = transaction.open::<f64, Ix1>(stores::NAME)?;
    array.rows_mut(block as u64..(block + BLOCK_LEN) as u64)?.fill(number as f64);
    drop(array);
    transaction.commit()?;
    Ok(())
}

/// What a commit of one block writes, without a store.
struct PlainFiles {
    own: File,
    common: File,
}

impl PlainFiles {
    /// Opens the files of process `number` beside the store at `path`.
    fn open(path: &Path, number: &str) -> Outcome<Self> {
        let own = path.with_extension(format!("plain-{number}"));
        let common = path.with_extension("plain");
        Ok(Self {
            own: File::options().create(true).truncate(false).write(true).open(own)?,
            common: File::options().create(true).append(true).open(common)?,
        })
    }

    fn write_block(&self, number: usize) -> Outcome<()> {
        let values = vec![number as f64; BLOCK_LEN];
        self.own.write_all_at(as_bytes(&values), (number % OWN_BLOCKS) as u64 * BLOCK_BYTES)?;
        self.own.sync_data()?;
        (&self.common).write_all(&[1; 512])?;
        Ok(self.common.sync_data()?)
    }
}

/// A child and the way to talk to it.
struct Player {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    fn start(part: &str, path: &Path) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(PART, part).env(STORE, path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("the child has an input")?;
        let output = BufReader::new(child.stdout.take().ok_or("the child has an output")?);
        let mut player = Self { child, input, output };
        player.hear()?;
        Ok(player)
    }

    fn say(&mut self, line: &str) -> Outcome<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    fn hear(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the child ended".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
