//! Makes programs, lists their crash points, and examines images on all processors until enough.
//!
//! ```text
//! image 0 of every point, image 1 of every point, ...      points in an order given by dice
//! ```
//!
//! # Invariants
//!
//! 1. Image `j` of point `p` of workload `w` is the same for a seed in every run.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zbigarray::storage::backend::simulated::{CrashPoint, Simulated};
use zbigarray::storage::local::LocalOptions;

use crate::arrays;
use crate::dice::Dice;
use crate::image::{exhausted_after, image};
use crate::model::plain::Plain;
use crate::model::world;
use crate::program::{Flavor, Program, limits};
use crate::story::Phase;
use crate::verify::{Counts, DEPTH_MAX, Examiner};

const WORKLOADS_MIN: u64 = 10;
/// Every so many images there is one more workload.
const IMAGES_OF_A_WORKLOAD: u64 = 2_000;
const ENGINE_STEPS: usize = 24;
const ARRAY_STEPS: usize = 40;

/// What to do.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) images: u64,
    pub(crate) seed: u64,
    pub(crate) depth: usize,
    pub(crate) threads: usize,
    /// One image only: workload, point, image.
    pub(crate) only: Option<[u64; 3]>,
}

/// What was done.
pub(crate) struct Summary {
    pub(crate) workloads: usize,
    pub(crate) points: usize,
    /// Points of which every subset of changes was tried.
    pub(crate) exhausted: usize,
    pub(crate) by_depth: [u64; DEPTH_MAX],
    pub(crate) time: Duration,
}

/// What went wrong, and how to see it again.
pub(crate) struct Failure {
    /// Images until then.
    pub(crate) images: u64,
    /// Arguments that lead to it.
    pub(crate) arguments: String,
    pub(crate) what: String,
}

/// A program that ran, and what a crash at each of its points may leave.
struct Workload {
    options: LocalOptions,
    points: Vec<(CrashPoint, Phase)>,
    plain: Option<Vec<Plain>>,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the text of panics instead of printing it.
pub(crate) fn silence_panics() {
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string().replace('\n', " "))));
}

/// Runs `examination`; a panic is a failure.
fn caught<T>(examination: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let result = panic::catch_unwind(AssertUnwindSafe(examination));
    result.unwrap_or_else(|_| Err(PANIC.with_borrow(Clone::clone)))
}

/// Runs workload `number` of `seed`.
fn workload(seed: u64, number: u64) -> Result<Workload, String> {
    let mut dice = Dice::new(&[seed, number]);
    let (disk, story, options, plain) = if number % 5 == 4 {
        let run = arrays::run(&mut dice, ARRAY_STEPS);
        (run.disk, run.story, world::limits(), Some(run.plain))
    } else {
        let flavors = Flavor::ALL.len() as u64;
        let flavor = usize::try_from((number - number / 5) % flavors).unwrap();
        let mut program = Program::create(Simulated::new().unwrap(), dice)?;
        program.run(ENGINE_STEPS, Flavor::ALL[flavor])?;
        (program.disk, program.story, limits(), None)
    };
    let points = disk.crash_points().into_iter();
    let points = points.map(|point| {
        let phase = story.at(point.number()).clone();
        (point, phase)
    });
    Ok(Workload { options, points: points.collect(), plain })
}

/// Examines images until there are enough or one is wrong.
pub(crate) fn hunt(options: &Options) -> Result<Summary, Failure> {
    let started = Instant::now();
    let counts = Counts::default();
    if let Some([workload, ..]) = options.only {
        let workloads = vec![(workload, prepared(options, workload)?)];
        return only(options, &workloads[0].1, &counts, started);
    }
    let count = WORKLOADS_MIN.max(options.images / IMAGES_OF_A_WORKLOAD);
    let workloads: Vec<Workload> =
        (0..count).map(|number| prepared(options, number)).collect::<Result<_, _>>()?;
    let mut points: Vec<(usize, usize)> = Vec::new();
    for (number, workload) in workloads.iter().enumerate() {
        points.extend((0..workload.points.len()).map(|point| (number, point)));
    }
    let mut dice = Dice::new(&[options.seed]);
    for end in (1..points.len()).rev() {
        points.swap(end, dice.index(end + 1));
    }
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) && counts.total() < options.images {
            let job = next.fetch_add(1, Ordering::Relaxed);
            let (number, point) = points[job % points.len()];
            let image = (job / points.len()) as u64;
            let id = [number as u64, point as u64, image];
            if let Err(what) = examine(options, &workloads[number], id, &counts) {
                stop.store(true, Ordering::Relaxed);
                let arguments = arguments(options, id);
                let failed = Failure { images: counts.total(), arguments, what };
                failure.lock().unwrap().get_or_insert(failed);
            }
        }
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..options.threads).map(|_| scope.spawn(work)).collect();
        while helpers.iter().any(|helper| !helper.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            crate::progress(counts.total(), options.images, started);
        }
    });
    if let Some(failure) = failure.into_inner().unwrap() {
        return Err(failure);
    }
    let images_each = |at: usize| (next.load(Ordering::Relaxed) - at).div_ceil(points.len()) as u64;
    let is_exhausted = |(at, &(number, point)): (usize, &(usize, usize))| {
        let (point, _) = &workloads[number].points[point];
        exhausted_after(point).is_some_and(|end| images_each(at) + 1 >= end)
    };
    Ok(Summary {
        workloads: workloads.len(),
        points: points.len(),
        exhausted: points.iter().enumerate().filter(|point| is_exhausted(*point)).count(),
        by_depth: counts.by_depth(),
        time: started.elapsed(),
    })
}

fn prepared(options: &Options, number: u64) -> Result<Workload, Failure> {
    caught(|| workload(options.seed, number)).map_err(|what| {
        let arguments = arguments(options, [number, 0, 0]);
        Failure { images: 0, arguments, what: format!("the program itself: {what}") }
    })
}

fn arguments(options: &Options, [workload, point, image]: [u64; 3]) -> String {
    let Options { seed, depth, .. } = options;
    format!("--seed {seed} --depth {depth} --workload {workload} --point {point} --image {image}")
}

/// The image with this id, and what comes of it (invariant 1).
fn examine(
    options: &Options,
    workload: &Workload,
    id: [u64; 3],
    counts: &Counts,
) -> Result<(), String> {
    let (point, phase) = &workload.points[usize::try_from(id[1]).unwrap()];
    let mut dice = Dice::new(&[options.seed, id[0], id[1], id[2]]);
    let disk = image(point, id[2], &mut dice);
    let examiner = Examiner { options: &workload.options, depth: options.depth, counts };
    caught(|| match &workload.plain {
        Some(plain) if phase.exists && dice.once_in(32) => {
            arrays::examine(&disk, plain);
            Ok(())
        }
        _ => examiner.examine(&disk, phase, 0, &mut dice),
    })
}

fn only(
    options: &Options,
    workload: &Workload,
    counts: &Counts,
    started: Instant,
) -> Result<Summary, Failure> {
    let id = options.only.unwrap_or_default();
    let at = usize::try_from(id[1]).unwrap();
    if let Some((point, phase)) = workload.points.get(at) {
        println!(
            "crash before change {}, commit {} to {}",
            at,
            phase.acknowledged,
            phase.versions.len() - 1
        );
        for (number, change) in point.undecided() {
            println!("  may survive: {number} {}", crate::shown(change));
        }
    }
    let result = examine(options, workload, id, counts);
    result.map_err(|what| Failure { images: 1, arguments: arguments(options, id), what })?;
    let (by_depth, time) = (counts.by_depth(), started.elapsed());
    Ok(Summary { workloads: 1, points: 1, exhausted: 0, by_depth, time })
}
