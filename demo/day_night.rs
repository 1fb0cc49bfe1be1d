//! By how much is a day warmer than its night, everywhere on earth, in the mean of a year?
//!
//! ```sh
//! cargo run --release --example day_night                              a small field, in seconds
//! cargo run --release --example day_night -- 1464 721 1440 --memory 384
//! ```
//!
//! Writes a field of steps, latitudes and longitudes into a store, four steps a day, then computes
//! `mean(t2m[::4], 0) - mean(t2m[2::4], 0)` within `--memory` MiB for blocks, commits the result
//! and draws it: `target/day_night/*.png`. `run.html` there shows what each thread did when.

mod picture;
mod weather;

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ndarray::{Array3, Ix2, Ix3, s};
use picture::{Map, Scale};
use weather::Weather;
use zbigarray::compute::{Blocked, RunOptions};
use zbigarray::{ArrayOptions, CreateOptions, DynArray, OpenOptions, Store};

const OUT: &str = "target/day_night";
/// Steps appended at once.
const STEPS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let (size, memory) = arguments()?;
    let [steps, latitudes, longitudes] = size;
    let out = Path::new(OUT);
    std::fs::create_dir_all(out)?;
    let path = out.join("weather.zba");
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    let weather = Weather::new(latitudes, longitudes);
    let started = Instant::now();
    written(&path, &weather, size)?;
    let gib = (steps * latitudes * longitudes * 4) as f64 / f64::from(1 << 30);
    println!("wrote {gib:.2} GiB in {:.1} s", started.elapsed().as_secs_f64());

    let store = Store::open(&path, OpenOptions::default())?;
    computed(&store, memory, gib / 2.0, out)?;
    compared(&store)?;
    pictures(&store, &weather, size, out)?;
    println!("peak resident memory {}", peak_resident()?);
    Ok(())
}

/// Computes and commits the difference, which reads so many GiB.
fn computed(store: &Store, memory: u64, gib: f64, out: &Path) -> Result<(), Box<dyn Error>> {
    let snapshot = store.begin_read()?;
    let array = DynArray::open(&snapshot, "t2m")?;
    let t2m = Blocked::stored(&array)?;
    let started = Instant::now();
    let midnight = t2m.slice("::4")?.mean(0)?;
    let noon = t2m.slice("2::4")?.mean(0)?;
    let result = midnight.subtract(&noon)?;
    let budget = Some(memory << 20);
    let options = RunOptions { memory_bytes: budget, trace: true, ..RunOptions::default() };
    let transaction = store.begin()?;
    let (dtype, plain) = (result.number().dtype(), ArrayOptions::new());
    let mut target = DynArray::create(&transaction, "diff", &dtype, result.shape(), &plain)?;
    let report = result.store_into(&mut target, &options)?;
    drop(target);
    transaction.commit_with_note("midnight less noon, UTC")?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "computed and committed the difference in {seconds:.2} s: {:.2} GiB/s of what it reads, \
         {} tasks, results of at most {:.0} MiB",
        gib / seconds,
        report.tasks,
        report.peak_bytes as f64 / f64::from(1 << 20),
    );
    let (graph, _) = result.graph()?;
    std::fs::write(out.join("run.html"), report.page(&graph, budget))?;
    Ok(())
}

fn arguments() -> Result<([usize; 3], u64), Box<dyn Error>> {
    let (mut numbers, mut memory) = (Vec::new(), 256);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--memory" => memory = words.next().ok_or("--memory needs a number of MiB")?.parse()?,
            number => numbers.push(number.parse()?),
        }
    }
    match numbers[..] {
        [] => Ok(([64, 181, 360], memory)),
        [steps, latitudes, longitudes] => Ok(([steps, latitudes, longitudes], memory)),
        _ => Err("usage: day_night [STEPS LATITUDES LONGITUDES] [--memory MIB]".into()),
    }
}

/// One transaction, whatever the size.
fn written(path: &Path, weather: &Weather, size: [usize; 3]) -> Result<(), Box<dyn Error>> {
    let [steps, latitudes, longitudes] = size;
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    let shape = [0, latitudes as u64, longitudes as u64];
    let mut t2m = transaction.create::<f32, Ix3>("t2m", &shape)?;
    for first in (0..steps).step_by(STEPS) {
        let count = STEPS.min(steps - first);
        let mut part = Array3::zeros((count, latitudes, longitudes));
        for (step, mut field) in part.outer_iter_mut().enumerate() {
            if let Some(values) = field.as_slice_mut() {
                weather.fill(first + step, values);
            }
        }
        t2m.append(&part)?;
    }
    drop(t2m);
    transaction.commit_with_note("a year of weather")?;
    Ok(())
}

/// Compares the difference with its definition at some places.
fn compared(store: &Store) -> Result<(), Box<dyn Error>> {
    let snapshot = store.begin_read()?;
    let (t2m, diff) = (snapshot.open::<f32, Ix3>("t2m")?, snapshot.open::<f32, Ix2>("diff")?);
    let (t2m, diff) = (t2m.view()?, diff.view()?);
    let [rows, columns] = [diff.nrows(), diff.ncols()];
    for place in [[0, 0], [rows / 3, columns / 2], [rows - 1, columns - 1]] {
        let mean = |first: usize| {
            let series = t2m.slice(s![first..; 4, place[0], place[1]]);
            series.iter().map(|&value| f64::from(value)).sum::<f64>() / series.len() as f64
        };
        let (found, wanted) = (f64::from(diff[place]), mean(0) - mean(2));
        if (found - wanted).abs() > 1e-4 {
            return Err(format!("{found} instead of {wanted} at {place:?}").into());
        }
    }
    Ok(())
}

fn pictures(
    store: &Store,
    weather: &Weather,
    [steps, latitudes, longitudes]: [usize; 3],
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let snapshot = store.begin_read()?;
    let diff = snapshot.open::<f32, Ix2>("diff")?;
    let diff: Vec<f32> = diff.view()?.iter().copied().collect();
    let most = diff.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let subtitle = format!("mean(t2m[::4], 0) - mean(t2m[2::4], 0) of {steps} made-up fields");
    let difference = Map {
        title: "Midnight less noon (UTC)",
        subtitle: &subtitle,
        unit: "kelvin",
        size: [latitudes, longitudes],
        values: &diff,
        land: &weather.land,
        range: [-most, most],
        scale: Scale::Diverging,
    };
    picture::write(&out.join("difference.png"), &difference)?;
    let t2m = snapshot.open::<f32, Ix3>("t2m")?;
    let first: Vec<f32> =
        t2m.view()?.index_axis(ndarray::Axis(0), steps / 2).iter().copied().collect();
    let ends = first
        .iter()
        .fold([f32::MAX, f32::MIN], |ends, &value| [ends[0].min(value), ends[1].max(value)]);
    let subtitle = format!("step {} of {steps}", steps / 2);
    let field = Map {
        title: "Temperature at two metres",
        subtitle: &subtitle,
        values: &first,
        range: ends,
        scale: Scale::Sequential,
        ..difference
    };
    picture::write(&out.join("field.png"), &field)?;
    println!("drew {}", out.display());
    Ok(())
}

/// As the kernel counts it for this process.
fn peak_resident() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("VmHWM: unknown");
    Ok(line.trim_start_matches("VmHWM:").trim().to_owned())
}
