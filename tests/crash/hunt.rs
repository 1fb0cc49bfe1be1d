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
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zbigarray::storage::backend::simulated::{CrashPoint, Simulated};
use zbigarray::storage::local::LocalOptions;

use crate::arrays;
use crate::company;
use crate::dice::Dice;
use crate::image::{exhausted_after, image, is_telling};
use crate::model::plain::Plain;
use crate::model::world;
use crate::program::{Events, Flavor, Program};
use crate::story::Phase;
use crate::verify::{Counts, DEPTH_MAX, Examiner};

/// So many programs for so many images; four times the images mean twice the programs.
const WORKLOADS_MIN: u64 = 28;
const IMAGES_MIN: u64 = 20_000;
/// Images of a crash that can leave hardly anything but what is there.
const DULL_IMAGES: u64 = 2;
/// Most programs whose disks are in memory at once.
const BATCH: u64 = 40;
const ENGINE_STEPS: usize = 36;
const ARRAY_STEPS: usize = 40;
const COMPANY_STEPS: usize = 60;
/// Of so many programs in a row two are those of several processes.
const TURN: u64 = 7;

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
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) workloads: usize,
    pub(crate) points: usize,
    /// Points of which every subset of changes was tried.
    pub(crate) exhausted: usize,
    pub(crate) by_depth: [u64; DEPTH_MAX],
    /// Images that were damaged to see whether it is noticed.
    pub(crate) damaged: u64,
    /// What the programs did before the first crash.
    pub(crate) events: Events,
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
    events: Events,
    changes: Vec<zbigarray::storage::backend::simulated::Change>,
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
    let company = number % TURN % 3 == 2;
    // Of the others.
    let others = number - number / TURN * 2 - number % TURN / 3;
    let (disk, story, options, plain, events) = if company {
        let left = company::run(&[seed, number], COMPANY_STEPS)?;
        (left.disk, left.story, left.options, None, left.events)
    } else if others % 5 == 4 {
        let run = arrays::run(&mut Dice::new(&[seed, others]), ARRAY_STEPS);
        (run.disk, run.story, world::limits(), Some(run.plain), Events::new())
    } else {
        let flavors = Flavor::ALL.len() as u64;
        let flavor = usize::try_from((others - others / 5) % flavors).unwrap();
        let dice = Dice::new(&[seed, others]);
        let mut program = Program::create(Simulated::new().unwrap(), dice)?;
        program.run(ENGINE_STEPS, Flavor::ALL[flavor])?;
        (program.disk, program.story, program.options, None, program.events)
    };
    let changes = disk.changes();
    let points = disk.crash_points().into_iter();
    let points = points.map(|point| {
        let phase = story.at(point.number()).clone();
        (point, phase)
    });
    Ok(Workload { options, points: points.collect(), plain, events, changes })
}

/// Examines images until there are enough or one is wrong.
pub(crate) fn hunt(options: &Options) -> Result<Summary, Failure> {
    let run = Run { options, counts: &Counts::default(), started: Instant::now() };
    let mut summary = Summary::default();
    if let Some([workload, ..]) = options.only {
        run.only(&prepared(options, workload)?)?;
        summary.workloads = 1;
    } else {
        // More images look at more programs, and closer at each of them.
        let times = (options.images as f64 / IMAGES_MIN as f64).sqrt().max(1.0);
        let count = (WORKLOADS_MIN as f64 * times) as u64;
        let mut next = 0;
        while next < count {
            let end = (next + BATCH).min(count);
            run.batch(next..end, options.images * end / count, &mut summary)?;
            next = end;
        }
    }
    summary.by_depth = run.counts.by_depth();
    summary.damaged = run.counts.damaged();
    summary.time = run.started.elapsed();
    Ok(summary)
}

/// A run in progress.
#[derive(Clone, Copy)]
struct Run<'a> {
    options: &'a Options,
    counts: &'a Counts,
    started: Instant,
}

impl Run<'_> {
    /// Examines images of the workloads `numbers` until there are `images` in all.
    fn batch(self, numbers: Range<u64>, images: u64, summary: &mut Summary) -> Result<(), Failure> {
        let first = numbers.start;
        let mut workloads = Vec::new();
        for number in numbers {
            let workload = prepared(self.options, number)?;
            for (event, count) in &workload.events {
                *summary.events.entry(event).or_default() += count;
            }
            workloads.push(workload);
        }
        let points = shuffled(self.options.seed, &workloads);
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let stop = AtomicBool::new(false);
        let work = || {
            while !stop.load(Ordering::Relaxed) && self.counts.total() < images {
                let job = next.fetch_add(1, Ordering::Relaxed);
                let (number, point) = points[job % points.len()];
                let round = (job / points.len()) as u64;
                let is_telling = is_telling(&workloads[number].points[point].0);
                if round >= DULL_IMAGES && !is_telling {
                    continue;
                }
                // A torn image tells more than one in which nothing survived.
                let image = if is_telling { round ^ 1 } else { round };
                let id = [first + number as u64, point as u64, image];
                if let Err(failed) = self.examine(&workloads[number], id) {
                    stop.store(true, Ordering::Relaxed);
                    failure.lock().unwrap().get_or_insert(failed);
                }
            }
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (0..self.options.threads).map(|_| scope.spawn(work)).collect();
            while helpers.iter().any(|helper| !helper.is_finished()) {
                std::thread::sleep(Duration::from_millis(5));
                crate::progress(self.counts.total(), self.options.images, self.started);
            }
        });
        if let Some(failure) = failure.into_inner().unwrap() {
            return Err(failure);
        }
        let jobs = next.load(Ordering::Relaxed);
        let is_exhausted = |(at, &(number, point)): (usize, &(usize, usize))| {
            let images = jobs.saturating_sub(at).div_ceil(points.len()) as u64;
            let (point, _) = &workloads[number].points[point];
            exhausted_after(point).is_some_and(|end| images + 1 >= end)
        };
        summary.workloads += workloads.len();
        summary.points += points.len();
        summary.exhausted += points.iter().enumerate().filter(|p| is_exhausted(*p)).count();
        Ok(())
    }

    /// The image with this id, and what comes of it (invariant 1).
    fn examine(self, workload: &Workload, id: [u64; 3]) -> Result<(), Failure> {
        let (point, phase) = &workload.points[usize::try_from(id[1]).unwrap()];
        let mut dice = Dice::new(&[self.options.seed, id[0], id[1], id[2]]);
        let (disk, is_torn) = image(point, id[2], &mut dice);
        let (options, depth, counts) = (&workload.options, self.options.depth, self.counts);
        let examiner = Examiner { options, depth, counts };
        let result = caught(|| match &workload.plain {
            Some(plain) if phase.exists && dice.once_in(32) => {
                counts.note(0);
                arrays::examine(&disk, plain);
                Ok(())
            }
            _ => examiner.examine((&disk, is_torn), phase, 0, &mut dice),
        });
        result.map_err(|what| {
            let (images, arguments) = (counts.total(), arguments(self.options, id));
            Failure { images, arguments, what }
        })
    }

    /// One image again, with what is known of it.
    fn only(self, workload: &Workload) -> Result<(), Failure> {
        let id = self.options.only.unwrap_or_default();
        let at = usize::try_from(id[1]).unwrap();
        let Some((point, phase)) = workload.points.get(at) else { return Ok(()) };
        let newest = phase.versions.len() - 1;
        println!("crash before change {at}: commit {} to {newest}", phase.acknowledged);
        for (number, change) in workload.changes.iter().enumerate().take(at) {
            println!("  {number} {}", crate::shown(change));
        }
        for (number, change) in point.undecided() {
            println!("  may survive: {number} {}", crate::shown(change));
        }
        self.examine(workload, id)
    }
}

/// All points of all workloads, by number, in an order given by dice.
fn shuffled(seed: u64, workloads: &[Workload]) -> Vec<(usize, usize)> {
    let mut points: Vec<(usize, usize)> = Vec::new();
    for (number, workload) in workloads.iter().enumerate() {
        points.extend((0..workload.points.len()).map(|point| (number, point)));
    }
    let mut dice = Dice::new(&[seed]);
    for end in (1..points.len()).rev() {
        points.swap(end, dice.index(end + 1));
    }
    points
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
