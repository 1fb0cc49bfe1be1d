//! Several processes that use one store at once, each with an engine of its own, on one thread.
//!
//! ```text
//! process 0   stage | append .......... settle |            | look | pack ...
//! process 1            \-> stage | append -/   | killed     |  \-> commits meanwhile
//! process 2                                    | cuts what it left | ...
//! ```
//!
//! A step of one process runs to its end, but at each call of the disk, and at each word that it
//! writes, the dice may let another process do a step in between, and so on.
//!
//! # Invariants
//!
//! 1. `told` is not borrowed while an engine is called.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use zbigarray::storage::StorageError;
use zbigarray::storage::backend::simulated::{FaultKind, Simulated, Survival};
use zbigarray::storage::engine::{CommitLog, Company as _, Engine};
use zbigarray::storage::extent::Place;
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::storage::state::State;
use zbigarray::storage::words::PrivateWords;
use zbigarray::units::Tid;

use crate::dice::Dice;
use crate::draft::{Old, Prepared, Site};
use crate::process::{Process, let_others};
use crate::program::{Events, Flavor, backend, limits};
use crate::story::{Phase, Story};
use crate::told::{Known, Told, index_of};
use crate::version::{Version, compare};

/// Runs before the one after which the power is cut.
const REHEARSALS: u64 = 8;
/// Log files of [`Kind::Unnamed`] are so small that each few commits need a new one.
const UNNAMED_ROLL_BYTES: u64 = 24 << 10;
/// Words of the file that processes share.
const WORDS: usize = 8 << 10;
/// Steps within steps.
const DEPTH_MAX: u32 = 3;
/// How often a look at the newest commit is repeated because a pack came in between.
const LOOKS_MAX: usize = 8;

/// What processes do, besides everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mixed,
    /// They die between naming a log file and making its name durable: a moment that dice alone hit
    /// in too few programs, and what is built upon such a name is gone with it.
    Unnamed,
    /// They hold snapshots while others commit, pack and write where space became free.
    Looking,
}

/// Runs of a kind after those of all sorts.
const SPECIAL: [Kind; 4] = [Kind::Unnamed, Kind::Unnamed, Kind::Looking, Kind::Looking];

/// What several processes must have done, or they show nothing.
pub(crate) const WANTED: [&str; 10] = [
    "step between",
    "killed between",
    "killed process",
    "settled by another",
    "half written",
    "lock taken",
    "snapshot",
    "old snapshot",
    "pack beside others",
    "process ended",
];

/// A process that has the store open.
struct Member {
    process: Process,
    engine: Rc<LocalEngine>,
    // The newest durable commit it knows, and the end of the log when it had the commit lock.
    head: Known,
    tip: Known,
    waiting: Option<Prepared>,
    // The snapshot of which it names extents once more.
    held: Option<Known>,
    unsettled: Option<Tid>,
    snapshots: Vec<Known>,
    places: BTreeSet<Place>,
}

impl Member {
    /// What others must leave as it is.
    fn looked_at(&self) -> impl Iterator<Item = &Known> + Clone {
        self.snapshots.iter().chain(&self.held)
    }
}

/// Where a process can be.
#[derive(Default)]
struct Seat {
    process: RefCell<Option<Process>>,
    member: RefCell<Option<Member>>,
}

/// The processes.
pub(crate) struct Company {
    disk: Simulated,
    options: LocalOptions,
    words: Arc<PrivateWords>,
    errors: Arc<AtomicU64>,
    seats: Vec<Seat>,
    told: RefCell<Told>,
    depth: Cell<u32>,
    // Whether nobody does anything in between.
    quiet: Cell<bool>,
    // Steps under way that hold the lock for checkpoints, and for syncs.
    checkpoints: Cell<u32>,
    syncs: Cell<u32>,
    rarity: u64,
    kind: Kind,
}

/// What the processes leave.
pub(crate) struct Left {
    pub(crate) disk: Simulated,
    pub(crate) options: LocalOptions,
    pub(crate) story: Story,
    pub(crate) events: Events,
}

/// Nobody does anything in between any more when this is gone.
struct Together;

impl Drop for Together {
    fn drop(&mut self) {
        let_others(None);
    }
}

/// Creates a store and lets processes do `steps` steps, not counting those in between. The power
/// is cut only after the last of several such runs: most bugs show while processes are at work.
pub(crate) fn run(seeds: &[u64; 2], steps: usize) -> Result<Left, String> {
    let dice = |run: u64| Dice::new(&[seeds[0], seeds[1], run]);
    (0..REHEARSALS).try_for_each(|run| performed(dice(run), steps, Kind::Mixed).map(drop))?;
    let mut special = (REHEARSALS + 1..).zip(SPECIAL);
    special.try_for_each(|(run, kind)| performed(dice(run), steps, kind).map(drop))?;
    performed(dice(REHEARSALS), steps, Kind::Mixed)
}

fn performed(mut dice: Dice, steps: usize, kind: Kind) -> Result<Left, String> {
    let (disk, mut options) = (Simulated::new().unwrap(), limits(&mut dice));
    if kind == Kind::Unnamed {
        options.log_roll_bytes = UNNAMED_ROLL_BYTES;
    }
    let empty = Version { groups: Some([].into()), ..Version::default() };
    let mut told = Told {
        dice,
        story: Story::default(),
        events: Events::new(),
        versions: vec![Arc::new(empty)],
        candidate: None,
        acknowledged: 0,
        oldest: 0..=0,
        held: false,
        failure: None,
    };
    told.story.note(0, Phase { exists: false, ..told.phase() });
    let created = LocalEngine::create(&backend(&disk), &options);
    created.map_err(|error| format!("creation: {error}"))?;
    let phase = told.phase();
    told.story.note(disk.changes_count(), phase);
    let (seats, rarity) = (2 + told.dice.index(2), [12, 24, 60][told.dice.index(3)]);
    let company = Rc::new(Company {
        disk,
        options,
        words: Arc::new(PrivateWords::new(WORDS)),
        errors: Arc::default(),
        seats: (0..seats).map(|_| Seat::default()).collect(),
        told: RefCell::new(told),
        depth: Cell::new(0),
        quiet: Cell::new(false),
        checkpoints: Cell::new(0),
        syncs: Cell::new(0),
        rarity,
        kind,
    });
    let together = Together;
    let meanwhile = Rc::clone(&company);
    let_others(Some(Rc::new(move || meanwhile.between())));
    for _ in 0..steps {
        let seat = company.index(company.seats.len());
        company.step(seat)?;
        if let Some(failure) = company.told.borrow_mut().failure.take() {
            return Err(failure);
        }
    }
    drop(together);
    company.seats.iter().for_each(|seat| drop(seat.member.take()));
    let (disk, options) = (company.disk.clone(), company.options.clone());
    let mut told = company.told.borrow_mut();
    Ok(Left {
        disk,
        options,
        story: std::mem::take(&mut told.story),
        events: std::mem::take(&mut told.events),
    })
}

/// Whether somebody else is in the way, which is no failure.
fn is_in_the_way(error: &StorageError) -> bool {
    matches!(error, StorageError::Busy { .. } | StorageError::Locked { .. })
}

/// Sets a flag for a while.
fn with<T: Copy, R>(cell: &Cell<T>, value: T, call: impl FnOnce() -> R) -> R {
    let before = cell.replace(value);
    let result = call();
    cell.set(before);
    result
}

impl Company {
    fn index(&self, len: usize) -> usize {
        self.told.borrow_mut().dice.index(len)
    }

    fn once_in(&self, times: u64) -> bool {
        self.told.borrow_mut().dice.once_in(times)
    }

    fn count(&self, event: &'static str) {
        self.told.borrow_mut().count(event);
    }

    /// Notes what a crash may leave from now on.
    fn tell(&self, change: impl FnOnce(&mut Told) -> Result<(), String>) -> Result<(), String> {
        let mut told = self.told.borrow_mut();
        change(&mut told)?;
        let phase = told.phase();
        told.story.note(self.disk.changes_count(), phase);
        Ok(())
    }

    fn version(&self, tid: Tid) -> Arc<Version> {
        Arc::clone(&self.told.borrow().versions[index_of(tid)])
    }

    /// Commit `tid` is durable: somebody was told so.
    fn acknowledge(&self, tid: Tid) -> Result<(), String> {
        self.tell(|told| {
            told.appended(index_of(tid))?;
            told.acknowledged = told.acknowledged.max(index_of(tid));
            Ok(())
        })?;
        if self.once_in(3) { self.require_durable() } else { Ok(()) }
    }

    /// If the power fails now and nothing survives that need not, what was acknowledged is there.
    fn require_durable(&self) -> Result<(), String> {
        let image = self.disk.crash_image(self.disk.changes_count(), |_, _| Survival::Dropped);
        let opened = LocalEngine::open(&backend(&image.unwrap()), Mode::ReadWrite, &self.options);
        let (engine, head) = opened.map_err(|error| format!("after a power cut: {error}"))?;
        let (found, acknowledged) = (index_of(head.tid), self.told.borrow().acknowledged);
        if found < acknowledged {
            return Err(format!("after a power cut: commit {found}, not {acknowledged}"));
        }
        let versions = self.told.borrow().phase().versions;
        let version = versions.get(found).ok_or("after a power cut: a commit nobody made")?;
        compare(&engine, &head, version).map_err(|why| format!("after a power cut: {why}"))
    }

    /// What others do in between two calls of a process.
    fn between(&self) {
        let depth = self.depth.get();
        if self.quiet.get() || depth >= DEPTH_MAX || self.told.borrow().failure.is_some() {
            return;
        }
        if !self.once_in(self.rarity << (2 * depth)) {
            return;
        }
        if self.once_in(12) {
            let seat = self.index(self.seats.len());
            if let Some(process) = &*self.seats[seat].process.borrow() {
                process.kill();
                self.count("killed between");
            }
        }
        let (seat, steps) = (self.index(self.seats.len()), 1 + self.index(3));
        self.count("step between");
        let done = with(&self.depth, depth + 1, || (0..steps).try_for_each(|_| self.step(seat)));
        if let Err(why) = done {
            self.told.borrow_mut().failure.get_or_insert(why);
        }
    }

    /// One step of the process at `seat`, unless it is in the middle of one.
    fn step(&self, seat: usize) -> Result<(), String> {
        let Ok(mut slot) = self.seats[seat].member.try_borrow_mut() else { return Ok(()) };
        self.bury(&mut slot);
        match &mut *slot {
            None => *slot = self.open(seat)?,
            Some(member) => {
                if self.act(member)? || member.process.has_failed() {
                    self.count("process ended");
                    *slot = None;
                }
            }
        }
        self.bury(&mut slot);
        Ok(())
    }

    fn bury(&self, slot: &mut Option<Member>) {
        if slot.as_ref().is_some_and(|member| member.process.is_dead()) {
            self.count("killed process");
            *slot = None;
        }
    }

    /// What went wrong must have a cause.
    fn excused(&self, process: &Process, what: &str, error: &StorageError) -> Result<(), String> {
        if process.is_dead() {
            return Ok(());
        }
        if process.has_failed() {
            self.count("failed sync");
            return Ok(());
        }
        if is_in_the_way(error) {
            self.count("lock taken");
            return Ok(());
        }
        Err(format!("{what}: {error}"))
    }

    fn open(&self, seat: usize) -> Result<Option<Member>, String> {
        let process = Process::new(&self.disk, &self.words, &self.errors);
        *self.seats[seat].process.borrow_mut() = Some(process.clone());
        if self.once_in(5) {
            self.doom(&process, 12);
        }
        if self.kind == Kind::Unnamed && self.once_in(2) {
            process.doom_naming();
        }
        let options = LocalOptions {
            map_words: Process::map_words,
            commit_wait: Duration::ZERO,
            ..self.options.clone()
        };
        let acknowledged = self.told.borrow().acknowledged;
        let mode = if self.once_in(6) { Mode::ReadOnly } else { Mode::ReadWrite };
        let (engine, head) = match LocalEngine::open(&process.backend(), mode, &options) {
            Ok(opened) if !process.is_dead() => opened,
            Ok(_) => return Ok(None),
            Err(error) => return self.excused(&process, "opening", &error).map(|()| None),
        };
        if index_of(head.tid) < acknowledged {
            return Err(format!("opened at commit {}, not {acknowledged}", head.tid));
        }
        match mode {
            Mode::ReadWrite => self.acknowledge(head.tid)?,
            Mode::ReadOnly => self.tell(|told| told.appended(index_of(head.tid)))?,
        }
        let head = Known { state: head, generation: engine.generation() };
        let (snapshots, places) = (Vec::new(), BTreeSet::new());
        let (waiting, unsettled) = (None, None);
        Ok(Some(Member {
            process,
            engine: Rc::new(engine),
            tip: head.clone(),
            head,
            waiting,
            held: None,
            unsettled,
            snapshots,
            places,
        }))
    }

    fn doom(&self, process: &Process, calls: usize) {
        const KINDS: [FaultKind; 5] = [
            FaultKind::Eio,
            FaultKind::Killed,
            FaultKind::Killed,
            FaultKind::KilledAtSync,
            FaultKind::KilledAtSyncDir,
        ];
        process.doom(self.index(calls), KINDS[self.index(KINDS.len())]);
    }

    /// A step of a process; says whether it ends.
    fn act(&self, member: &mut Member) -> Result<bool, String> {
        if !member.engine.is_writable() {
            match self.index(4) {
                0 => return Ok(true),
                1 | 2 => self.look(member)?,
                _ => self.look_again(member)?,
            }
            return Ok(false);
        }
        if self.once_in(16) {
            self.doom(&member.process, 24);
        }
        if self.kind == Kind::Looking && self.once_in(2) {
            match self.index(4) {
                0 | 1 => self.look(member)?,
                2 => self.look_again(member)?,
                _ => self.pack(member)?,
            }
            return Ok(false);
        }
        match self.index(24) {
            0 => return Ok(true),
            1 | 2 => self.look(member)?,
            3 | 4 => self.look_again(member)?,
            5 => self.look_away(member)?,
            6 | 7 => self.pack(member)?,
            8 | 9 => self.checkpoint(member)?,
            10..=12 => self.settle(member)?,
            13..=15 => self.stage(member)?,
            16 | 17 => self.append(member)?,
            _ => {
                self.append(member)?;
                self.settle(member)?;
            }
        }
        Ok(false)
    }

    /// Writes the data of the next commit.
    fn stage(&self, member: &mut Member) -> Result<(), String> {
        if member.waiting.is_some() || member.process.is_dead() {
            return Ok(());
        }
        let versions = self.told.borrow().versions[..=index_of(member.head.state.tid)].to_vec();
        let flavors = [Flavor::Mixed, Flavor::Mixed, Flavor::Small, Flavor::Names, Flavor::Long];
        let flavor = flavors[self.index(flavors.len())];
        let (mut dice, mut events) = (Dice::new(&[self.next()]), Events::new());
        let held = member.snapshots.first().cloned();
        let prepared = Prepared::new(
            &mut Site {
                engine: &member.engine,
                head: &member.head.state,
                versions: &versions,
                oldest: index_of(member.engine.oldest()).min(versions.len() - 1),
                old: Old::Held(held.as_ref().map(|held| &held.state)),
                dice: &mut dice,
                events: &mut events,
                places: &mut member.places,
            },
            flavor,
        );
        for (event, count) in events {
            *self.told.borrow_mut().events.entry(event).or_default() += count;
        }
        match prepared {
            Ok(prepared) => (member.waiting, member.held) = (Some(prepared), held),
            // An old commit was to be looked at, and another process packed it away.
            Err(StorageError::Forgotten { .. } | StorageError::NoCommit { .. }) => {}
            Err(error) => self.excused(&member.process, "staging", &error)?,
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        self.told.borrow_mut().dice.next()
    }

    /// Appends a record, which is not durable yet.
    fn append(&self, member: &mut Member) -> Result<(), String> {
        self.stage(member)?;
        let Some(prepared) = member.waiting.take() else { return Ok(()) };
        let held = member.held.take();
        if let Err(error) = prepared.sync(&member.engine) {
            return self.excused(&member.process, "syncing data", &error);
        }
        let (process, engine) = (member.process.clone(), Rc::clone(&member.engine));
        let lock = match engine.lock() {
            Ok(lock) => lock,
            Err(error) => {
                self.excused(&process, "locking", &error)?;
                (member.waiting, member.held) = (Some(prepared), held);
                return Ok(());
            }
        };
        let Some(tid) = self.catch_up(&process, &engine)? else { return Ok(()) };
        if !member.tip.move_on(tid, &process, &engine)? {
            return Ok(());
        }
        let head = member.tip.state.clone();
        let version = self.version(tid);
        if self.once_in(4) {
            let compared = compare(&member.engine, &head, &version);
            if process.is_dead() {
                return Ok(());
            }
            compared?;
        }
        let Some((draft, next)) = prepared.draft(&head, &version) else {
            prepared.abort(&member.engine);
            return Ok(());
        };
        if self.once_in(6) {
            // It dies while it writes the record.
            process.doom(0, FaultKind::ShortWrite);
            self.count("half written");
        }
        self.tell(|told| {
            told.candidate = Some(Arc::new(next));
            Ok(())
        })?;
        let appended = member.engine.append(&draft);
        match appended {
            _ if process.is_dead() => {}
            Ok(record) => {
                self.tell(|told| told.appended(index_of(record.tid)))?;
                let next = head.apply(&record).map_err(|error| format!("applying: {error}"))?;
                member.tip.state = next;
                prepared.give_rest_back(&member.engine, &record);
                member.unsettled = Some(record.tid);
                self.count("commit");
            }
            Err(StorageError::Packed { .. }) => {
                self.tell(|told| {
                    told.candidate = None;
                    Ok(())
                })?;
                prepared.abort(&member.engine);
            }
            Err(error) => self.excused(&process, "appending", &error)?,
        }
        drop(lock);
        Ok(())
    }

    /// Takes in what others appended; the caller has the commit lock. `None` if it is dead.
    fn catch_up(&self, process: &Process, engine: &LocalEngine) -> Result<Option<Tid>, String> {
        let caught = engine.catch_up();
        if process.is_dead() {
            return Ok(None);
        }
        let tid = match caught {
            Ok(tid) => tid,
            Err(error) => return self.excused(process, "catching up", &error).map(|()| None),
        };
        self.tell(|told| {
            told.appended(index_of(tid))?;
            let newest = told.versions.len() - 1;
            if index_of(tid) < newest {
                return Err(format!("caught up to commit {tid}, but {newest} was appended"));
            }
            // It was not whole and is cut.
            told.candidate = None;
            Ok(())
        })?;
        Ok(Some(tid))
    }

    /// Waits until what it appended is durable.
    fn settle(&self, member: &mut Member) -> Result<(), String> {
        let Some(tid) = member.unsettled.take().filter(|_| !member.process.is_dead()) else {
            return Ok(());
        };
        let before = self.disk.changes_count();
        let syncs = self.syncs.get();
        // Beside a sync under way it waits, by the clock: then nothing may depend on how often.
        let quiet = self.quiet.get() || syncs > 0;
        let settled =
            with(&self.quiet, quiet, || with(&self.syncs, syncs + 1, || member.engine.settle(tid)));
        match settled {
            _ if member.process.is_dead() => Ok(()),
            Ok(()) => {
                if self.disk.changes_count() == before {
                    self.count("settled by another");
                }
                self.acknowledge(tid)?;
                let (head, tip) = (&mut member.head, &member.tip);
                if head.generation == tip.generation && tip.state.tid == tid {
                    *head = tip.clone();
                }
                Ok(())
            }
            Err(error) => self.excused(&member.process, "settling", &error),
        }
    }

    /// Says which snapshots it has.
    fn pin(&self, member: &Member) {
        let tids = member.looked_at().map(|snapshot| snapshot.state.tid);
        let looked_at = tids.clone().min().zip(tids.max()).map(|(oldest, newest)| oldest..=newest);
        let generations = member.looked_at().map(|snapshot| snapshot.generation);
        let generation = generations.chain([member.engine.generation()]).min();
        member.engine.pin(looked_at, generation.unwrap_or(0));
    }

    /// Takes a snapshot of the newest commit, as a transaction does.
    fn look(&self, member: &mut Member) -> Result<(), String> {
        for _ in 0..LOOKS_MAX {
            let acknowledged = self.told.borrow().acknowledged;
            let newest = member.engine.newest();
            if member.process.is_dead() {
                return Ok(());
            }
            let newest = match newest {
                Ok(newest) => newest,
                Err(error) => return self.excused(&member.process, "looking", &error),
            };
            if index_of(newest) < acknowledged {
                return Err(format!("commit {newest} is the newest, not {acknowledged}"));
            }
            match member.engine.is_writable() {
                true => self.acknowledge(newest)?,
                false => self.tell(|told| told.appended(index_of(newest)))?,
            }
            if !member.head.move_on(newest, &member.process, &member.engine)? {
                return Ok(());
            }
            if self.once_in(3) {
                return self.look_back(member);
            }
            member.snapshots.push(member.head.clone());
            self.pin(member);
            if member.engine.floor() <= member.head.state.tid {
                self.count("snapshot");
                return self.compare_snapshot(member, member.snapshots.len() - 1);
            }
            member.snapshots.pop();
            self.pin(member);
        }
        Ok(())
    }

    /// Takes a snapshot of an old commit.
    fn look_back(&self, member: &mut Member) -> Result<(), String> {
        let (oldest, newest) = (member.engine.oldest().0, member.head.state.tid.0);
        if oldest > newest {
            return Ok(());
        }
        let tid = Tid(oldest + self.index((newest - oldest) as usize + 1) as u64);
        member.snapshots.push(member.head.clone());
        let tids = || member.looked_at().map(|snapshot| snapshot.state.tid).chain([tid]);
        let looked_at = tids().min().zip(tids().max()).map(|(oldest, newest)| oldest..=newest);
        let generation = member.looked_at().map(|snapshot| snapshot.generation).min();
        member.engine.pin(looked_at, generation.unwrap_or(0));
        let loaded = match tid >= member.engine.floor() {
            true => member.engine.load(tid).ok(),
            false => None,
        };
        let number = member.snapshots.len() - 1;
        match loaded {
            Some(state) if !member.process.is_dead() => {
                member.snapshots[number].state = state;
                self.count("old snapshot");
                self.compare_snapshot(member, number)
            }
            // Another process packed it away, or is about to.
            _ => {
                member.snapshots.pop();
                self.pin(member);
                Ok(())
            }
        }
    }

    fn compare_snapshot(&self, member: &Member, number: usize) -> Result<(), String> {
        let state = &member.snapshots[number].state;
        if member.process.is_dead() {
            return Ok(());
        }
        let compared = compare(&member.engine, state, &self.version(state.tid));
        if member.process.is_dead() {
            return Ok(());
        }
        compared.map_err(|why| format!("a snapshot: {why}"))
    }

    /// Its snapshots are what they were.
    fn look_again(&self, member: &Member) -> Result<(), String> {
        (0..member.snapshots.len()).try_for_each(|number| self.compare_snapshot(member, number))
    }

    fn look_away(&self, member: &mut Member) -> Result<(), String> {
        self.look_again(member)?;
        if !member.snapshots.is_empty() {
            let gone = self.index(member.snapshots.len());
            member.snapshots.swap_remove(gone);
        }
        self.pin(member);
        let done = member.engine.unpin(&pinned(member));
        done.or_else(|error| self.excused(&member.process, "unpinning", &error))
    }

    fn checkpoint(&self, member: &mut Member) -> Result<(), String> {
        let newest = match member.engine.newest() {
            Ok(newest) => newest,
            Err(error) => return self.excused(&member.process, "looking", &error),
        };
        if !member.head.move_on(newest, &member.process, &member.engine)? {
            return Ok(());
        }
        let state = member.head.state.clone();
        let checkpoints = self.checkpoints.get() + 1;
        let written = with(&self.checkpoints, checkpoints, || member.engine.checkpoint(&state));
        if member.process.is_dead() {
            return Ok(());
        }
        let based = match written {
            Ok(based) => based,
            Err(error) => return self.excused(&member.process, "checkpoint", &error),
        };
        self.count("checkpoint");
        if member.head.generation == member.engine.generation() {
            member.head.state = based;
        }
        Ok(())
    }

    fn pack(&self, member: &mut Member) -> Result<(), String> {
        if self.checkpoints.get() > 0 {
            // It would wait, by the clock.
            return Ok(());
        }
        let (process, engine) = (member.process.clone(), Rc::clone(&member.engine));
        let syncs = self.syncs.get();
        let quiet = self.quiet.get() || syncs > 0;
        let lock = match engine.lock() {
            Ok(lock) => lock,
            Err(error) => return self.excused(&process, "locking", &error),
        };
        let Some(tid) = self.catch_up(&process, &engine)? else { return Ok(()) };
        let settled =
            with(&self.quiet, quiet, || with(&self.syncs, syncs + 1, || member.engine.settle(tid)));
        if process.is_dead() {
            return Ok(());
        }
        if let Err(error) = settled {
            return self.excused(&process, "settling", &error);
        }
        self.acknowledge(tid)?;
        if !member.tip.move_on(tid, &process, &engine)? {
            return Ok(());
        }
        let oldest = index_of(member.engine.oldest());
        let keep = match self.once_in(2) {
            true => index_of(tid),
            false => oldest + self.index(index_of(tid) - oldest + 1),
        };
        let held_bytes_max = if self.once_in(4) { 0 } else { u64::MAX };
        self.tell(|told| {
            told.oldest = *told.oldest.start()..=keep.max(*told.oldest.end());
            told.held = true;
            Ok(())
        })?;
        let pinned = pinned(member);
        let checkpoints = self.checkpoints.get() + 1;
        let packed = with(&self.checkpoints, checkpoints, || {
            member.engine.pack(Tid(keep as u64), &pinned, held_bytes_max)
        });
        if process.is_dead() {
            return Ok(());
        }
        let packed = match packed {
            Ok(packed) => packed,
            Err(error) => return self.excused(&process, "pack", &error),
        };
        self.count("pack beside others");
        let oldest = index_of(packed.oldest);
        self.tell(|told| {
            told.oldest = oldest..=oldest;
            Ok(())
        })?;
        member.head = Known { state: packed.head, generation: engine.generation() };
        member.tip = member.head.clone();
        let compared = compare(&engine, &member.head.state, &self.version(tid));
        drop(lock);
        if process.is_dead() {
            return Ok(());
        }
        compared.map_err(|why| format!("packed: {why}"))?;
        self.look_again(member)
    }
}

fn pinned(member: &Member) -> Vec<Arc<State>> {
    member.looked_at().map(|snapshot| Arc::new(snapshot.state.clone())).collect()
}
