//! A program that uses the engine as the layers above do: it commits, packs, dies, and remembers.
//!
//! ```text
//! steps  commit | pack | checkpoint | pin | kill -> open again | failing call -> open again
//!          \-> versions: what each commit must hold      \-> story: what a crash may leave
//! ```
//!
//! # Invariants
//!
//! 1. `versions[tid]` is what commit `tid` of this run must hold; the last one is the head.
//! 2. After a call failed so that the engine refuses to write, or after the process died, the
//!    store is opened again, and what is found then counts as acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zbigarray::storage::StorageError;
use zbigarray::storage::backend::Backend;
use zbigarray::storage::backend::simulated::{Fault, FaultKind, Simulated};
use zbigarray::storage::engine::{CommitLog, Engine};
use zbigarray::storage::extent::Place;
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::storage::state::State;
use zbigarray::units::{BLOCK_BYTES_MIN, Tid};

use crate::dice::Dice;
use crate::draft::{Done, Old, Prepared, Site};
use crate::story::{Phase, Story};
use crate::version::{Version, compare};

/// What a program does more often than others do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavor {
    /// A bit of everything, on a disk that works.
    Mixed,
    /// History is forgotten and its space used again.
    Packing,
    /// Small commits, one after the other.
    Small,
    /// Names, attributes and tags.
    Names,
    /// The process is killed and started again.
    Killed,
    /// Calls fail.
    Failing,
    /// Records that are long; for single commits.
    Long,
}

impl Flavor {
    pub(crate) const ALL: [Self; 6] =
        [Self::Mixed, Self::Killed, Self::Packing, Self::Failing, Self::Small, Self::Names];
}

/// Limits so small that few commits reach every edge.
pub(crate) fn limits(dice: &mut Dice) -> LocalOptions {
    LocalOptions {
        block_bytes: BLOCK_BYTES_MIN,
        log_roll_bytes: [48 << 10, 96 << 10][dice.index(2)],
        data_file_pages: [48, 80][dice.index(2)],
        checkpoint_bytes_min: [24 << 10, 1 << 20][dice.index(2)],
        ..LocalOptions::default()
    }
}

/// The same disk as the engine wants it.
pub(crate) fn backend(disk: &Simulated) -> Arc<dyn Backend> {
    Arc::new(disk.clone())
}

/// How a process dies.
const KILLS: [FaultKind; 3] =
    [FaultKind::Killed, FaultKind::KilledAtSync, FaultKind::KilledAtSyncDir];

/// How often something happened, by name.
pub(crate) type Events = BTreeMap<&'static str, u64>;

/// What the programs of a run must have done, or they show nothing.
pub(crate) const WANTED: [&str; 27] = [
    "commit",
    "inline",
    "run",
    "block",
    "reused space",
    "append",
    "shrink",
    "grow",
    "hole",
    "old extent",
    "overtaken",
    "late commit",
    "create",
    "remove",
    "move",
    "attribute",
    "tag",
    "checkpoint",
    "log roll",
    "pack",
    "pinned pack",
    "restart",
    "kill",
    "killed recovery",
    "failed call",
    "full disk",
    "unknown",
];

/// A snapshot that somebody looks at.
type Pin = (Arc<State>, Arc<Version>);

/// A running program.
pub(crate) struct Program {
    pub(crate) disk: Simulated,
    pub(crate) dice: Dice,
    head: State,
    pub(crate) story: Story,
    pub(crate) events: Events,
    places: BTreeSet<Place>,
    pub(crate) options: LocalOptions,
    engine: Option<LocalEngine>,
    versions: Vec<Arc<Version>>,
    oldest: usize,
    pins: Vec<Pin>,
    waiting: Option<Prepared>,
    // Whether the process will die.
    dies: bool,
    // Whether calls will fail.
    fails: bool,
    // Whether a commit was neither done nor refused.
    unknown: bool,
    // Whether a record was left half written.
    is_torn: bool,
    /// Whether space may be held that no commit names.
    pub(crate) held: bool,
    /// Most records that may have waited for one sync.
    pub(crate) group: u64,
}

impl Program {
    /// A program that creates its store.
    pub(crate) fn create(disk: Simulated, mut dice: Dice) -> Result<Self, String> {
        let options = limits(&mut dice);
        let empty = Version { groups: Some([].into()), ..Version::default() };
        let versions: Vec<Arc<Version>> = vec![Arc::new(empty)];
        let mut story = Story::default();
        let nothing = Phase {
            exists: false,
            versions: versions.clone().into(),
            acknowledged: 0,
            oldest: 0..=0,
            held: false,
            group: 1,
        };
        story.note(0, nothing.clone());
        let mut created = false;
        if dice.once_in(3) {
            let (call, kind) = (dice.index(20), KILLS[dice.index(KILLS.len())]);
            disk.set_fault(Some(Fault { call, kind, lasting: true }));
            created = LocalEngine::create(&backend(&disk), &options).is_ok();
            disk.set_fault(None);
        }
        // Whoever finds a finished store opens it, and knows nothing of how it was made.
        let named = disk.list("").unwrap().contains(&"format.json".to_owned());
        if !created && !named {
            let done = LocalEngine::create(&backend(&disk), &options);
            done.map_err(|error| format!("creation: {error}"))?;
        }
        if created || !named {
            story.note(disk.changes_count(), Phase { exists: true, ..nothing });
        }
        let (engine, head) = open(&disk, &options)?;
        let mut program = Self::on(disk, options, (engine, head), versions, 0, dice);
        program.story = story;
        program.settle();
        Ok(program)
    }

    /// A program that goes on with a store that it has just opened and that holds the newest of
    /// `versions`.
    pub(crate) fn on(
        disk: Simulated,
        options: LocalOptions,
        (engine, head): (LocalEngine, State),
        versions: Vec<Arc<Version>>,
        oldest: usize,
        dice: Dice,
    ) -> Self {
        Self {
            disk,
            dice,
            head,
            story: Story::default(),
            events: Events::new(),
            places: BTreeSet::new(),
            options,
            engine: Some(engine),
            versions,
            oldest,
            pins: Vec::new(),
            waiting: None,
            dies: false,
            fails: false,
            unknown: false,
            is_torn: false,
            held: false,
            group: 1,
        }
    }

    pub(crate) fn engine(&self) -> &LocalEngine {
        self.engine.as_ref().unwrap()
    }

    fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    /// What the head holds.
    fn version(&self) -> &Arc<Version> {
        self.versions.last().unwrap()
    }

    /// What a commit is prepared from.
    fn site(&mut self) -> Site<'_> {
        Site {
            engine: self.engine.as_ref().unwrap(),
            head: &self.head,
            versions: &self.versions,
            oldest: self.oldest,
            old: Old::Any,
            dice: &mut self.dice,
            events: &mut self.events,
            places: &mut self.places,
        }
    }

    /// What commit `tid` holds.
    fn version_of(&self, tid: u64) -> &Arc<Version> {
        &self.versions[usize::try_from(tid).unwrap()]
    }

    /// A commit that can be read.
    fn any_kept(&mut self) -> u64 {
        self.site().any_kept()
    }

    /// The phase between two steps.
    pub(crate) fn settle(&mut self) {
        let acknowledged = self.versions.len() - 1;
        let (versions, oldest) = (self.versions.clone().into(), self.oldest..=self.oldest);
        let (held, group) = (self.held, self.group);
        let phase = Phase { exists: true, versions, acknowledged, oldest, held, group };
        self.story.note(self.disk.changes_count(), phase);
    }

    /// The phase of a step that may add a version or raise the oldest commit.
    fn risk(&mut self, issued: Option<Arc<Version>>, oldest: usize) {
        let acknowledged = self.versions.len() - 1;
        let versions = self.versions.iter().cloned().chain(issued).collect();
        let oldest = self.oldest..=oldest.max(self.oldest);
        let (held, group) = (self.held, self.group);
        let phase = Phase { exists: true, versions, acknowledged, oldest, held, group };
        self.story.note(self.disk.changes_count() + 1, phase);
    }

    /// Does `count` steps.
    pub(crate) fn run(&mut self, count: usize, flavor: Flavor) -> Result<(), String> {
        for _ in 0..count {
            self.step(flavor)?;
            self.restart_if_dead()?;
        }
        self.fails = false;
        self.disk.set_fault(None);
        if std::mem::take(&mut self.dies) || self.unknown || self.engine().is_poisoned() {
            self.restart()?;
        }
        Ok(())
    }

    /// One commit, then what `run` does, and everything is read once more by another process.
    pub(crate) fn go_on(&mut self, count: usize, flavor: Flavor) -> Result<(), String> {
        self.commit(flavor)?;
        self.run(count, flavor)?;
        if self.dice.once_in(2) {
            self.restart()?;
            let report = self.engine().check(true, &mut |_, _| {});
            let report = report.map_err(|error| format!("check: {error}"))?;
            if let Some(damage) = report.damage.first() {
                return Err(format!("check: {damage}"));
            }
            if report.held_bytes > 0 && !self.held {
                return Err(format!("{} bytes are held for nobody", report.held_bytes));
            }
        }
        Ok(())
    }

    fn step(&mut self, flavor: Flavor) -> Result<(), String> {
        let often = |this: Flavor, many: u64, few: u64| if this == flavor { few } else { many };
        let dice = self.dice.below(1 << 32);
        let turn = |n: u64, times: u64| (dice >> (2 * n)).is_multiple_of(times);
        if turn(0, often(Flavor::Killed, 40, 3)) && !self.dies && !self.fails {
            self.arm_kill();
        } else if turn(1, often(Flavor::Failing, 30, 3)) && !self.dies {
            self.arm_fault();
        }
        let breaks = matches!(flavor, Flavor::Killed | Flavor::Failing);
        match () {
            () if turn(9, if breaks { 4 } else { 16 }) && !self.dies && !self.fails => {
                self.long_record()
            }
            () if turn(2, often(Flavor::Packing, 12, 4)) => self.pack(),
            () if turn(3, 9) => self.checkpoint(),
            () if turn(4, often(Flavor::Packing, 9, 5)) => {
                self.pins.push((Arc::new(self.head.clone()), Arc::clone(self.version())));
                Ok(())
            }
            () if turn(5, 9) => self.unpin(),
            () if turn(6, 12) => self.look_back(),
            () if turn(7, 20) => self.restart(),
            () if turn(8, 8) => self.prepare(flavor),
            () => self.commit(flavor),
        }
    }

    /// A long record that does not get to the disk whole; shorter ones will follow.
    fn long_record(&mut self) -> Result<(), String> {
        if self.dice.once_in(2) {
            self.checkpoint()?;
        }
        let (call, kind) = match self.dice.below(4) {
            0 | 1 => (0, FaultKind::ShortWrite),
            _ => (self.dice.index(2), FaultKind::Killed),
        };
        (self.dies, self.fails) = (kind == FaultKind::Killed, kind != FaultKind::Killed);
        self.disk.set_fault(Some(Fault { call, kind, lasting: self.dies }));
        self.is_torn = self.dies;
        self.commit(Flavor::Long)
    }

    fn arm_kill(&mut self) {
        let (call, kind) = (self.dice.index(16), KILLS[self.dice.index(KILLS.len())]);
        self.dies = true;
        self.disk.set_fault(Some(Fault { call, kind, lasting: true }));
    }

    fn arm_fault(&mut self) {
        const KINDS: [FaultKind; 7] = [
            FaultKind::Eio,
            FaultKind::Lost,
            FaultKind::Lost,
            FaultKind::Enospc,
            FaultKind::Short,
            FaultKind::ShortWrite,
            FaultKind::ShortWrite,
        ];
        let (call, kind) = (self.dice.index(10), KINDS[self.dice.index(KINDS.len())]);
        self.fails = true;
        self.disk.set_fault(Some(Fault { call, kind, lasting: self.dice.once_in(8) }));
    }

    /// Keeps invariant 2.
    fn restart_if_dead(&mut self) -> Result<(), String> {
        if self.is_dead() {
            self.count("kill");
            self.restart()?;
            // What the dead process left beyond the end is longer than a small record.
            return self.commit(Flavor::Small);
        }
        if self.has_failed() && (self.unknown || self.engine().is_poisoned()) {
            self.unknown = true;
            self.disk.set_fault(None);
            self.count("failed call");
            // A program that does not look goes on: whatever it is told must be true.
            for _ in 0..2 {
                self.commit(Flavor::Mixed)?;
            }
            return self.restart();
        }
        if self.has_failed() {
            // The disk works again, and so must the store.
            self.count("full disk");
            self.disk.set_fault(None);
            self.fails = false;
            return self.commit(Flavor::Small);
        }
        Ok(())
    }

    /// The process ends, in whatever way, and another one opens the store.
    fn restart(&mut self) -> Result<(), String> {
        (self.engine, self.waiting, self.dies, self.fails) = (None, None, false, false);
        self.unknown = false;
        self.pins.clear();
        let phase = self.story.at(self.disk.changes_count() + 1).clone();
        self.story.note(self.disk.changes_count() + 1, phase.clone());
        self.count("restart");
        if std::mem::take(&mut self.is_torn) && self.dice.once_in(2) {
            // Who cuts the torn record dies before the cut is durable.
            let kind = FaultKind::KilledAtSync;
            self.disk.set_fault(Some(Fault { call: 0, kind, lasting: true }));
            drop(open(&self.disk, &self.options));
        } else if self.dice.once_in(2) {
            // Opening dies or fails too.
            const KINDS: [FaultKind; 6] =
                [KILLS[0], KILLS[1], KILLS[1], KILLS[2], FaultKind::Lost, FaultKind::Eio];
            let (call, kind) = (self.dice.index(4), KINDS[self.dice.index(KINDS.len())]);
            let lasting = KILLS.contains(&kind);
            self.disk.set_fault(Some(Fault { call, kind, lasting }));
            if open(&self.disk, &self.options).is_err() {
                self.count("killed recovery");
            }
        }
        self.disk.set_fault(None);
        let (engine, head) = open(&self.disk, &self.options)?;
        let found = usize::try_from(head.tid.0).unwrap();
        if !(phase.acknowledged..phase.versions.len()).contains(&found) {
            let (from, to) = (phase.acknowledged, phase.versions.len() - 1);
            return Err(format!("opened again: commit {found}, not {from} to {to}"));
        }
        self.oldest = usize::try_from(engine.oldest().0).unwrap();
        if !phase.oldest.contains(&self.oldest) {
            return Err(format!("oldest commit {}, not {:?}", self.oldest, phase.oldest));
        }
        self.versions = phase.versions[..=found].to_vec();
        (self.engine, self.head) = (Some(engine), head);
        self.settle();
        self.compare_head()
    }

    fn compare_head(&self) -> Result<(), String> {
        compare(self.engine(), &self.head, self.version())
    }

    /// An old commit, and every pinned one, is what it was.
    fn look_back(&mut self) -> Result<(), String> {
        let tid = self.any_kept();
        let state = self.engine().load(Tid(tid));
        let state = state.map_err(|error| format!("commit {tid}: {error}"))?;
        compare(self.engine(), &state, self.version_of(tid))?;
        self.compare_pins()
    }

    fn compare_pins(&self) -> Result<(), String> {
        let pinned = |(state, version): &Pin| {
            compare(self.engine(), state, version).map_err(|why| format!("pinned {why}"))
        };
        self.pins.iter().try_for_each(pinned)
    }

    fn unpin(&mut self) -> Result<(), String> {
        if !self.pins.is_empty() {
            let gone = self.dice.index(self.pins.len());
            self.pins.swap_remove(gone);
        }
        let pinned: Vec<_> = self.pins.iter().map(|(state, _)| Arc::clone(state)).collect();
        self.engine().unpin(&pinned).map_err(|error| format!("unpin: {error}"))?;
        self.compare_pins()
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        // A checkpoint that fails is none, and the store goes on.
        if let Ok(based) = self.engine().checkpoint(&self.head) {
            self.head = based;
            self.count("checkpoint");
            self.compare_head()?;
        }
        Ok(())
    }

    fn pack(&mut self) -> Result<(), String> {
        let head = self.versions.len() as u64 - 1;
        let keep = if self.dice.once_in(3) { head } else { self.any_kept() };
        let pinned: Vec<_> = self.pins.iter().map(|(state, _)| Arc::clone(state)).collect();
        if self.engine().is_poisoned() {
            return Ok(());
        }
        self.risk(None, usize::try_from(keep).unwrap());
        match self.engine().pack(Tid(keep), &pinned, u64::MAX) {
            Ok(packed) => {
                self.head = packed.head;
                self.count(if pinned.is_empty() { "pack" } else { "pinned pack" });
                self.oldest = usize::try_from(keep).unwrap();
                self.settle();
                self.compare_pins()?;
                self.compare_head()
            }
            Err(error) => {
                self.expect_fault("pack", &error)?;
                if !self.is_dead() && !self.engine().is_poisoned() {
                    self.settle();
                }
                Ok(())
            }
        }
    }

    fn is_dead(&self) -> bool {
        self.dies && self.disk.fault_hit()
    }

    /// Whether a call was made to fail: errors since then have a cause.
    fn has_failed(&self) -> bool {
        self.fails && self.disk.fault_hit()
    }

    /// An error without a cause is a failure of the store.
    fn expect_fault(&self, what: &str, error: &StorageError) -> Result<(), String> {
        let has_cause = self.is_dead() || self.has_failed() || self.unknown;
        if has_cause { Ok(()) } else { Err(format!("{what}: {error}")) }
    }

    /// Writes the data of a transaction that will commit later, or never.
    fn prepare(&mut self, flavor: Flavor) -> Result<(), String> {
        if let Some(old) = self.waiting.take() {
            old.abort(self.engine());
            return Ok(());
        }
        match Prepared::new(&mut self.site(), flavor) {
            Ok(prepared) => self.waiting = Some(prepared),
            Err(error) => self.expect_fault("prepare", &error)?,
        }
        Ok(())
    }

    fn commit(&mut self, flavor: Flavor) -> Result<(), String> {
        let waited = if self.dice.once_in(2) { self.waiting.take() } else { None };
        let is_late = waited.is_some();
        let prepared = match waited {
            Some(waited) => Ok(waited),
            None => Prepared::new(&mut self.site(), flavor),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.expect_fault("writing data", &error),
        };
        let Some((draft, version)) = prepared.draft(&self.head, self.version()) else {
            prepared.abort(self.engine());
            return Ok(());
        };
        let version = Arc::new(version);
        // A handle that refuses to write adds nothing to what an earlier call may have done.
        let is_poisoned = self.engine().is_poisoned();
        if !is_poisoned {
            self.risk(Some(Arc::clone(&version)), self.oldest);
        }
        let files = self.disk.list("log").unwrap();
        match prepared.commit(self.engine(), &draft, &self.head) {
            Done::Committed(state) => {
                self.head = *state;
                self.count(if is_late { "late commit" } else { "commit" });
                if files != self.disk.list("log").unwrap() {
                    self.count("log roll");
                }
                self.versions.push(version);
                self.settle();
                if self.dice.once_in(2) {
                    self.compare_head()?;
                    self.compare_pins()?;
                }
                if self.engine().wants_checkpoint() { self.checkpoint() } else { Ok(()) }
            }
            Done::Unknown(error) => {
                self.unknown = true;
                self.count("unknown");
                self.expect_fault("commit", &error)
            }
            Done::Failed(error) => {
                let was_packed = is_late && matches!(error, StorageError::Packed { .. });
                if !was_packed {
                    self.expect_fault("commit", &error)?;
                }
                if !self.is_dead() && !is_poisoned {
                    // It did not happen, for certain.
                    self.settle();
                }
                Ok(())
            }
        }
    }
}

/// Opens the store on `disk` for writing.
pub(crate) fn open(
    disk: &Simulated,
    options: &LocalOptions,
) -> Result<(LocalEngine, State), String> {
    let opened = LocalEngine::open(&backend(disk), Mode::ReadWrite, options);
    opened.map_err(|error| format!("opening: {error}"))
}
