//! What does a store cost that is read as files?
//!
//! Workload: `f64` in blocks of 2 MiB, 1 GiB (quick: 64 MiB), as an array of a mounted store and as
//! a plain file on the same file system; both mapped and summed, and read by 1 MiB. Cold: nothing
//! in the page cache. Served: the store's data are in the page cache, those of the mounted file
//! are not, so every byte goes through the server. Then single pages in random order, opening an
//! array of 1 TiB, and the time until a commit of one block is seen. Seed 11. Limits: disk,
//! memory, and the kernel's way to the server and back.
//!
//! `cargo bench -p zbigarray-fuse --bench mount`; needs `/dev/fuse`.

#[path = "../../benches/harness.rs"]
mod harness;
#[path = "../../benches/machine.rs"]
mod machine;
#[path = "../../benches/plain.rs"]
mod plain;

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use harness::{Bar, Question, Ratio, compare, limit, not_run, seconds, sized};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use plain::{BLOCK_BYTES, BLOCK_LEN, Numbers, Outcome, PlainMap, fill_block};
use zbigarray::array::Dtype;
use zbigarray::array::cast::as_bytes;
use zbigarray::{ArrayOptions, CreateOptions, DynArray, Store};

const HEADER_BYTES: u64 = 4096;

/// The server, which unmounts when it is asked to end.
struct Mounted {
    path: PathBuf,
    server: Child,
}

impl Mounted {
    fn new(store: &Path, path: &Path) -> Outcome<Self> {
        std::fs::create_dir(path)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_zba-mount"));
        command.args(["--foreground", "--ready-fd", "1"]).arg(store).arg(path);
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut said)?;
        if said != "ready\n" {
            return Err(format!("the store was not mounted: {}", server.wait()?).into());
        }
        Ok(Self { path: path.to_path_buf(), server })
    }

    fn open(&self, name: &str) -> Outcome<File> {
        Ok(File::open(self.path.join("head").join(name))?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zba-mount"));
        let _ = command.args(["--unmount", "--lazy"]).arg(&self.path).status();
        let _ = self.server.wait();
    }
}

/// Takes the pages of a file out of the kernel's cache.
fn forget(file: &File) -> Outcome<()> {
    Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

fn sum(file: &File, bytes: u64) -> Outcome<PlainMap> {
    let map = PlainMap::of(file, bytes)?;
    black_box(map.values().iter().sum::<f64>());
    Ok(map)
}

/// Reads a file in order, 1 MiB at a time.
fn read(path: &Path) -> Outcome<()> {
    let mut file = File::open(path)?;
    let mut part = vec![0; 1 << 20];
    while file.read(&mut part)? > 0 {}
    black_box(part);
    Ok(())
}

fn main() -> Outcome<()> {
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        not_run("mount", "/dev/fuse cannot be opened").print();
        return Ok(());
    }
    let blocks: usize = sized(512, 32);
    let directory = machine::data_dir()?;
    let path = |name: &str| directory.path().join(name);
    let store = Store::create(path("s.zba"), CreateOptions::default())?;
    fill(&store, blocks)?;
    let plain = plain::write_file(&path("plain"), blocks)?;
    let mounted = Mounted::new(&path("s.zba"), &path("mnt"))?;
    mapped(&mounted, &plain, blocks)?;
    sequential(&mounted, &path("plain"))?;
    pages(&mounted, blocks)?;
    opening(&mounted)?;
    following(&mounted, &store)
}

fn fill(store: &Store, blocks: usize) -> Outcome<()> {
    let transaction = store.begin()?;
    let (dtype, options) = (Dtype::parse("<f8")?, ArrayOptions::new());
    let shape = [(blocks * BLOCK_LEN) as u64];
    let mut array = DynArray::create(&transaction, "a", &dtype, &shape, &options)?;
    let mut values = vec![0.0; BLOCK_LEN];
    for block in 0..blocks {
        fill_block(block, &mut values);
        array.write_linear(block as u64 * BLOCK_BYTES, as_bytes(&values))?;
    }
    drop(array);
    drop(DynArray::create(&transaction, "huge", &dtype, &[1 << 37], &options)?);
    transaction.commit()?;
    Ok(())
}

fn question(name: &str, bar: f64) -> Question<'_> {
    let rounds = sized(7, 3);
    Question { name, unit: "s", ratio: Ratio::Speed, bar: Bar::AtLeast(bar), rounds }
}

/// Sums over mappings of both files.
fn mapped(mounted: &Mounted, plain: &File, blocks: usize) -> Outcome<()> {
    let bytes = blocks as u64 * BLOCK_BYTES;
    let file = mounted.open("a.npy")?;
    let of_file = HEADER_BYTES + bytes;
    sum(plain, bytes)?;
    let served = || {
        forget(&file)?;
        seconds(|| sum(&file, of_file))
    };
    let plainly = || seconds(|| sum(plain, bytes));
    compare(question("mount: mapped, first touch served", 0.25), plainly, served)?.print();
    let (raw, again) = (sum(plain, bytes)?, sum(&file, of_file)?);
    let over =
        |map: &PlainMap| seconds(|| Outcome::Ok(black_box(map.values().iter().sum::<f64>())));
    let touched = question("mount: mapped, touched again", 0.97);
    compare(touched, || over(&raw), || over(&again))?.print();
    drop((raw, again));
    let name = "mount: mapped, cold";
    if machine::drop_caches().is_err() {
        not_run(name, "the page cache cannot be emptied").print();
        return Ok(());
    }
    let cold = |file: &File, bytes: u64| {
        machine::drop_caches()?;
        seconds(|| sum(file, bytes))
    };
    compare(question(name, 0.7), || cold(plain, bytes), || cold(&file, of_file))?.print();
    Ok(())
}

/// Reads of 1 MiB in order, as `dd bs=1M`.
fn sequential(mounted: &Mounted, plain: &Path) -> Outcome<()> {
    let file = mounted.path.join("head/a.npy");
    let warm = |path: &Path| seconds(|| read(path));
    let name = "mount: read by 1 MiB, cached";
    compare(question(name, 0.8), || warm(plain), || warm(&file))?.print();
    let name = "mount: read by 1 MiB, cold";
    if machine::drop_caches().is_err() {
        not_run(name, "the page cache cannot be emptied").print();
        return Ok(());
    }
    let cold = |path: &Path| {
        machine::drop_caches()?;
        seconds(|| read(path))
    };
    compare(question(name, 0.8), || cold(plain), || cold(&file))?.print();
    Ok(())
}

/// Single pages that the server has and the kernel has not.
fn pages(mounted: &Mounted, blocks: usize) -> Outcome<()> {
    let file = mounted.open("a.npy")?;
    read(&mounted.path.join("head/a.npy"))?;
    forget(&file)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    let mut numbers = Numbers(11);
    let places = numbers.permutation(blocks * 512);
    let mut page = vec![0; 4096];
    let mut times = Vec::new();
    for place in places.into_iter().take(sized(4000, 400)) {
        let begun = Instant::now();
        file.read_exact_at(&mut page, HEADER_BYTES + 4096 * place as u64)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    limit("mount: random page, served", "us", Bar::AtMost(80.0), times).print();
    Ok(())
}

/// Opening an array of 1 TiB and reading its header.
fn opening(mounted: &Mounted) -> Outcome<()> {
    let mut times = Vec::new();
    for _ in 0..sized(101, 21) {
        let begun = Instant::now();
        mounted.open("huge.npy")?.read_exact_at(&mut [0; 128], 0)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    limit("mount: open an array of 1 TiB", "ms", Bar::AtMost(5.0), times).print();
    Ok(())
}

/// From the end of a commit of one block until a reader whose pages were cached sees it.
fn following(mounted: &Mounted, store: &Store) -> Outcome<()> {
    let file = mounted.open("a.npy")?;
    let mut times = Vec::new();
    for number in 0..sized(101_u8, 21) {
        let mut found = [number.wrapping_add(1)];
        file.read_exact_at(&mut found, HEADER_BYTES)?;
        let transaction = store.begin()?;
        DynArray::open(&transaction, "a")?.write_linear(0, &[number])?;
        transaction.commit()?;
        let begun = Instant::now();
        loop {
            file.read_exact_at(&mut found, HEADER_BYTES)?;
            if found == [number] {
                break;
            }
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    limit("mount: a commit of one block is seen", "ms", Bar::AtMost(2.0), times).print();
    Ok(())
}
