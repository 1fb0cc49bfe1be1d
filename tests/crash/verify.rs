//! Opens what a crash left, compares it with what may be there, works on and crashes again.

use std::sync::atomic::{AtomicU64, Ordering};

use zbigarray::storage::StorageError;
use zbigarray::storage::backend::simulated::{CrashPoint, Fault, FaultKind, Simulated, Survival};
use zbigarray::storage::backend::{Access, Backend};
use zbigarray::storage::engine::{CommitLog, Engine};
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::storage::state::State;
use zbigarray::units::Tid;

use crate::damage;
use crate::dice::Dice;
use crate::image::{image, is_telling};
use crate::program::{Flavor, Program, backend};
use crate::story::Phase;
use crate::version::compare;

/// Most crashes one after the other.
pub(crate) const DEPTH_MAX: usize = 8;

/// A record that few others are shorter than.
const SMALL_RECORD_BYTES: u64 = 2 * 4096;

/// Images so far, by the number of crashes that led to them, less one.
#[derive(Default)]
pub(crate) struct Counts {
    by_depth: [AtomicU64; DEPTH_MAX],
    // Images that were damaged to see whether it is noticed.
    damaged: AtomicU64,
}

impl Counts {
    pub(crate) fn total(&self) -> u64 {
        self.by_depth().iter().sum()
    }

    pub(crate) fn by_depth(&self) -> [u64; DEPTH_MAX] {
        std::array::from_fn(|depth| self.by_depth[depth].load(Ordering::Relaxed))
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// One more image after `depth` crashes and one.
    pub(crate) fn note(&self, depth: usize) {
        self.by_depth[depth].fetch_add(1, Ordering::Relaxed);
    }
}

/// Examines images.
pub(crate) struct Examiner<'a> {
    pub(crate) options: &'a LocalOptions,
    /// Most crashes one after the other.
    pub(crate) depth: usize,
    pub(crate) counts: &'a Counts,
}

impl Examiner<'_> {
    /// Examines what crash number `depth`, counted from 0, left.
    pub(crate) fn examine(
        &self,
        (disk, is_torn): (&Simulated, bool),
        phase: &Phase,
        depth: usize,
        dice: &mut Dice,
    ) -> Result<(), String> {
        self.counts.note(depth);
        if dice.once_in(16) {
            self.read_only(disk, phase)?;
        }
        if is_torn && depth + 1 < self.depth {
            // By dice of its own, on a copy: what else is made of this image stays what it is.
            self.cut_short(disk, phase, depth, &mut Dice::new(&[dice.clone().next()]))?;
        }
        let opened = LocalEngine::open(&backend(disk), Mode::ReadWrite, self.options);
        let (engine, head) = match opened {
            Ok(opened) => opened,
            Err(StorageError::NotAStore { .. }) if !phase.exists => return self.create(disk),
            Err(error) => return Err(format!("opening: {error}")),
        };
        let recovered = disk.changes_count();
        compare_kept(&engine, &head, phase, dice)?;
        let report =
            engine.check(true, &mut |_, _| {}).map_err(|error| format!("check: {error}"))?;
        if let Some(damage) = report.damage.first() {
            return Err(format!("check: {damage}"));
        }
        if report.held_bytes > 0 && !phase.held {
            return Err(format!("{} bytes are held for nobody", report.held_bytes));
        }
        if report.held_bytes == 0 && dice.once_in(if is_torn { 12 } else { 5 }) {
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
            return damage::is_noticed(disk, (&engine, &head), phase, self.options, dice);
        }
        // What a torn write leaves shows when the next one meets it.
        if depth + 1 < self.depth && (is_torn || dice.once_in(3)) {
            return self.go_on(disk, (engine, head), (phase, recovered), depth, dice);
        }
        Ok(())
    }

    fn create(&self, disk: &Simulated) -> Result<(), String> {
        LocalEngine::create(&backend(disk), self.options)
            .map_err(|error| format!("creation where another one was not finished: {error}"))
    }

    /// Opening for reading finds the same and changes nothing.
    fn read_only(&self, disk: &Simulated, phase: &Phase) -> Result<(), String> {
        match LocalEngine::open(&backend(disk), Mode::ReadOnly, self.options) {
            Ok((_, head)) => {
                allowed(&head, phase).map_err(|why| format!("for reading: {why}"))?;
            }
            Err(StorageError::NotAStore { .. }) if !phase.exists => {}
            Err(error) => return Err(format!("opening for reading: {error}")),
        }
        match disk.calls_count() {
            0 => Ok(()),
            _ => Err("opening for reading changed something".to_owned()),
        }
    }

    /// Lets a program work on the store and crashes again, in its recovery or in its work.
    fn go_on(
        &self,
        disk: &Simulated,
        opened: (LocalEngine, State),
        (phase, recovered): (&Phase, usize),
        depth: usize,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let flavor = Flavor::ALL[dice.index(Flavor::ALL.len())];
        let steps = dice.index(4);
        let program = self.program(disk, opened, phase, (steps, flavor), depth, dice)?;
        let points = disk.crash_points();
        let of_recovery = &points[..=recovered];
        let telling: Vec<_> = points.iter().filter(|point| is_telling(point)).collect();
        for _ in 0..2 {
            let point = match dice.below(4) {
                0 => &of_recovery[dice.index(of_recovery.len())],
                1 => &points[dice.index(points.len())],
                _ if telling.is_empty() => &points[dice.index(points.len())],
                _ => telling[dice.index(telling.len())],
            };
            let number = dice.below(1 << 40);
            self.crash_again(&program, (point, number), depth, dice)?;
        }
        Ok(())
    }

    /// A process opens the store, cuts what is torn, and dies before its sync; another one opens
    /// it, writes there, and crashes before the write is durable. If the cut is not durable
    /// either, what was cut off is back behind a shorter record.
    fn cut_short(
        &self,
        disk: &Simulated,
        phase: &Phase,
        depth: usize,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let disk = disk.crash_image(disk.changes_count(), |_, _| Survival::Kept).unwrap();
        let open = || LocalEngine::open(&backend(&disk), Mode::ReadWrite, self.options);
        let (before, kind) = (log_bytes(&disk), FaultKind::KilledAtSync);
        disk.set_fault(Some(Fault { call: 0, kind, lasting: true }));
        drop(open());
        disk.set_fault(None);
        if log_bytes(&disk) + SMALL_RECORD_BYTES >= before {
            // Nothing would stand behind the next record.
            return Ok(());
        }
        let opened = open().map_err(|error| format!("opening after a death: {error}"))?;
        let recovered = disk.changes_count();
        let program = self.program(&disk, opened, phase, (0, Flavor::Small), depth, dice)?;
        let points = disk.crash_points();
        let mut writes = points[recovered..].iter().filter(|point| is_telling(point));
        let Some(point) = writes.next_back() else { return Ok(()) };
        // Image 1 of such a point: the data reached the disk, the length did not.
        self.crash_again(&program, (point, 1), depth, dice)
    }

    /// A program that has opened the store and worked on it.
    fn program(
        &self,
        disk: &Simulated,
        opened: (LocalEngine, State),
        phase: &Phase,
        (steps, flavor): (usize, Flavor),
        depth: usize,
        dice: &mut Dice,
    ) -> Result<Program, String> {
        let found = usize::try_from(opened.1.tid.0).unwrap();
        let versions = phase.versions[..=found].to_vec();
        let oldest = usize::try_from(opened.0.oldest().0).unwrap();
        let (options, dice_of_program) = (self.options.clone(), Dice::new(&[dice.next()]));
        let mut program =
            Program::on(disk.clone(), options, opened, versions, oldest, dice_of_program);
        (program.held, program.group) = (phase.held, phase.group);
        program.story.note(0, phase.clone());
        program.settle();
        let worked = program.go_on(steps, flavor);
        worked.map_err(|why| format!("after crash {}: {why}", depth + 1))?;
        Ok(program)
    }

    fn crash_again(
        &self,
        program: &Program,
        (point, number): (&CrashPoint, u64),
        depth: usize,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let (again, is_torn) = image(point, number, dice);
        let phase = program.story.at(point.number());
        self.examine((&again, is_torn), phase, depth + 1, dice)
            .map_err(|why| format!("crash {} before change {}: {why}", depth + 2, point.number()))
    }
}

/// Length of all log files; 0 where a creation was not finished.
fn log_bytes(disk: &Simulated) -> u64 {
    let names = disk.list("log").unwrap_or_default().into_iter();
    let files = names.filter_map(|name| disk.open(&format!("log/{name}"), Access::Read).ok());
    files.map(|file| file.len().unwrap()).sum()
}

fn allowed(head: &State, phase: &Phase) -> Result<usize, String> {
    let found = usize::try_from(head.tid.0).unwrap();
    let (from, to) = (phase.acknowledged, phase.versions.len() - 1);
    if (from..=to).contains(&found) {
        return Ok(found);
    }
    Err(format!("commit {found} is the newest, not one of {from} to {to}"))
}

/// Compares the head, the oldest commit, and one between them.
fn compare_kept(
    engine: &LocalEngine,
    head: &State,
    phase: &Phase,
    dice: &mut Dice,
) -> Result<(), String> {
    let found = allowed(head, phase)?;
    compare(engine, head, &phase.versions[found])?;
    let oldest = usize::try_from(engine.oldest().0).unwrap();
    if !phase.oldest.contains(&oldest) {
        return Err(format!("commit {oldest} is the oldest, not one of {:?}", phase.oldest));
    }
    for at in [oldest, oldest + dice.index(found - oldest + 1)] {
        let state = engine.load(Tid(at as u64));
        let state = state.map_err(|error| format!("commit {at}: {error}"))?;
        compare(engine, &state, &phase.versions[at])?;
    }
    Ok(())
}
