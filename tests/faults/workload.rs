//! What a program does to a store in these rigs, as a function of a seed, and what the store must
//! hold after each commit.
//!
//! ```text
//! (seed, n) --> commit n --> applied to arrays in memory: the model
//!                       \--> applied to a store through transactions
//! ```
//!
//! # Invariants
//!
//! 1. What commit `n` does depends on the workload, the seed, `n` and the state before it, and on
//!    nothing else: whoever opens the store can go on, and whoever judges it can compute its bytes.
//! 2. Every commit changes three pages of `numbers` and at least one page of another array, so
//!    that half of a commit is seen wherever it is cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array2, Ix2};
use zbigarray::storage::local::LocalOptions;
use zbigarray::txn::{CatalogChange, Transaction};
use zbigarray::units::BLOCK_BYTES_MIN;
use zbigarray::{Error, Keep, Store, Tid};

/// Elements of a row: eight rows are a page.
const COLUMNS: usize = 64;
const NUMBERS_ROWS: usize = 24;
const SMALL_ROWS: usize = 48;
const BULK_ROWS: usize = 640;
const GROWN_ROWS_MAX: usize = 900;

/// What kind of commits there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Workload {
    /// A few elements in a few pages, which travel inside the record, and tags.
    Small,
    /// Much at once: bulk assignment, appending, resizing, arrays that come and go.
    Bulk,
    /// Both, with checkpoints and packs between; the log rolls.
    Upkeep,
}

/// All of them, by name.
pub(crate) const WORKLOADS: [(&str, Workload); 3] =
    [("small", Workload::Small), ("bulk", Workload::Bulk), ("upkeep", Workload::Upkeep)];

impl Workload {
    pub(crate) fn named(name: &str) -> Option<Self> {
        WORKLOADS.iter().find(|(known, _)| *known == name).map(|&(_, workload)| workload)
    }

    pub(crate) fn name(self) -> &'static str {
        WORKLOADS.iter().find(|(_, workload)| *workload == self).map_or("?", |(name, _)| name)
    }
}

/// Limits so small that each of them is met by a few commits.
pub(crate) fn limits() -> LocalOptions {
    LocalOptions {
        block_bytes: BLOCK_BYTES_MIN,
        log_roll_bytes: 96 << 10,
        data_file_pages: 1024,
        checkpoint_bytes_min: 64 << 10,
        ..LocalOptions::default()
    }
}

/// Numbers without pattern, always the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, n: u64) -> Self {
        Self(mixed(seed ^ mixed(n)))
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = mixed(self.0);
        usize::try_from(self.0 % end as u64).unwrap_or(0)
    }
}

fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// One change of one array.
#[derive(Clone, Debug)]
enum Op {
    Create {
        name: &'static str,
        rows: usize,
    },
    Remove {
        name: &'static str,
    },
    /// One element, stored through a view.
    Store {
        name: &'static str,
        row: usize,
        value: u64,
    },
    /// Rows with values of their own, assigned in bulk.
    Assign {
        name: &'static str,
        row: usize,
        rows: usize,
        value: u64,
    },
    Append {
        name: &'static str,
        rows: usize,
        value: u64,
    },
    Resize {
        name: &'static str,
        rows: usize,
    },
    /// A savepoint, these changes, and back to the savepoint.
    Undone(Vec<Op>),
}

/// One commit.
#[derive(Clone, Debug)]
enum Commit {
    Changes(Vec<Op>),
    /// A tag for the commit before this one.
    Tag(String),
}

/// What is done to the store after a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Upkeep {
    None,
    Checkpoint,
    /// Forget all but so many commits.
    Pack(u64),
}

/// What a store holds: by name of the array its rows, and its tags.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Model {
    arrays: BTreeMap<&'static str, Arc<Vec<u64>>>,
    tags: BTreeMap<String, u64>,
}

/// The states of a store by the number of their commit, made as they are asked for.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) workload: Workload,
    pub(crate) seed: u64,
    states: Vec<Model>,
}

impl History {
    pub(crate) fn new(workload: Workload, seed: u64) -> Self {
        Self { workload, seed, states: vec![Model::default()] }
    }

    /// The state after commit `n`.
    pub(crate) fn state(&mut self, n: u64) -> &Model {
        while self.states.len() as u64 <= n {
            let next = self.states.len() as u64;
            let mut state = self.states[self.states.len() - 1].clone();
            state.apply(&commit_of(self.workload, self.seed, next, &state), next);
            self.states.push(state);
        }
        &self.states[usize::try_from(n).unwrap_or(0)]
    }

    /// Makes commit `n` of a store that is at commit `n - 1`.
    pub(crate) fn commit(&mut self, store: &Store, n: u64) -> Result<Tid, Error> {
        let (workload, seed) = (self.workload, self.seed);
        match commit_of(workload, seed, n, self.state(n - 1)) {
            Commit::Tag(tag) => Ok(store.tag(&tag, Tid(n - 1))?),
            Commit::Changes(ops) => {
                let mut transaction = store.begin()?;
                for op in &ops {
                    op.perform(&mut transaction)?;
                }
                Ok(transaction.commit_with_note(&format!("commit {n}"))?)
            }
        }
    }

    /// What is to be done after commit `n`.
    pub(crate) fn upkeep(&self, n: u64) -> Upkeep {
        let mut dice = Dice::new(self.seed ^ 0x55, n);
        match (self.workload, dice.below(9)) {
            (Workload::Upkeep, 0 | 1) => Upkeep::Checkpoint,
            (Workload::Upkeep, 2) => Upkeep::Pack(dice.below(4) as u64),
            _ => Upkeep::None,
        }
    }
}

impl Upkeep {
    /// Does it. Returns what is wrong with a snapshot that was held meanwhile, if anything.
    pub(crate) fn perform(
        self,
        store: &Store,
        history: &mut History,
    ) -> Result<Option<String>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Checkpoint => Ok(store.checkpoint().map(|()| None)?),
            Self::Pack(back) => {
                // The oldest commit, which the pack forgets.
                let held = store.at(store.oldest())?;
                let keep = store.head().0.saturating_sub(back).max(store.oldest().0);
                store.pack(Keep::From(Tid(keep)))?;
                history.state(held.base().0).difference(&held)
            }
        }
    }
}

/// Invariant 1.
fn commit_of(workload: Workload, seed: u64, n: u64, before: &Model) -> Commit {
    let mut dice = Dice::new(seed, n);
    let rows_of = |name: &str| before.arrays.get(name).map(|array| array.len() / COLUMNS);
    if n == 1 {
        let arrays = [("numbers", NUMBERS_ROWS), ("small", SMALL_ROWS), ("bulk", BULK_ROWS)];
        let mut ops: Vec<Op> =
            arrays.into_iter().map(|(name, rows)| Op::Create { name, rows }).collect();
        ops.push(Op::Create { name: "deep/grown", rows: 0 });
        ops.extend(numbered(1));
        return Commit::Changes(ops);
    }
    let mut ops = numbered(n);
    let bulk = match workload {
        Workload::Small => false,
        Workload::Bulk => true,
        Workload::Upkeep => dice.below(2) == 0,
    };
    if !bulk {
        if dice.below(5) == 0 {
            return Commit::Tag(format!("t{}", dice.below(6)));
        }
        for _ in 0..=dice.below(3) {
            let row = dice.below(SMALL_ROWS);
            ops.push(Op::Store { name: "small", row, value: mixed(n) });
        }
        return Commit::Changes(ops);
    }
    for _ in 0..=dice.below(2) {
        let value = mixed(n ^ ops.len() as u64);
        let grown = rows_of("deep/grown").unwrap_or(0);
        ops.push(match dice.below(8) {
            0 if grown > GROWN_ROWS_MAX / 3 => {
                Op::Resize { name: "deep/grown", rows: dice.below(grown) }
            }
            0 => Op::Resize { name: "deep/grown", rows: grown + dice.below(100) },
            1 if rows_of("extra").is_some() => Op::Remove { name: "extra" },
            1 => Op::Create { name: "extra", rows: 200 },
            2 if rows_of("extra").is_some() => {
                Op::Assign { name: "extra", row: 3, rows: 180, value }
            }
            3 => {
                let row = dice.below(BULK_ROWS - 200);
                Op::Undone(vec![Op::Assign { name: "bulk", row, rows: 150, value }])
            }
            4 => Op::Store { name: "bulk", row: dice.below(BULK_ROWS), value },
            2 | 5 => {
                let row = dice.below(BULK_ROWS / 2);
                let rows = 1 + dice.below(BULK_ROWS - row);
                Op::Assign { name: "bulk", row, rows, value }
            }
            _ if grown < GROWN_ROWS_MAX => {
                Op::Append { name: "deep/grown", rows: 1 + dice.below(150), value }
            }
            _ => Op::Resize { name: "deep/grown", rows: 10 },
        });
        // Later ones are chosen by the state before the commit.
        if matches!(ops[ops.len() - 1], Op::Resize { .. } | Op::Remove { .. } | Op::Create { .. }) {
            break;
        }
    }
    Commit::Changes(ops)
}

/// Invariant 2.
fn numbered(n: u64) -> Vec<Op> {
    let rows = [0, NUMBERS_ROWS / 2, NUMBERS_ROWS - 1];
    rows.into_iter().map(|row| Op::Store { name: "numbers", row, value: n }).collect()
}

fn values(rows: usize, value: u64) -> Vec<u64> {
    (0..rows * COLUMNS).map(|at| value.wrapping_add(at as u64)).collect()
}

impl Model {
    fn apply(&mut self, commit: &Commit, n: u64) {
        match commit {
            Commit::Tag(tag) => {
                self.tags.insert(tag.clone(), n - 1);
            }
            Commit::Changes(ops) => ops.iter().for_each(|op| self.change(op)),
        }
    }

    fn change(&mut self, op: &Op) {
        match op {
            Op::Create { name, rows } => self.array(name).resize(rows * COLUMNS, 0),
            Op::Remove { name } => {
                self.arrays.remove(name);
            }
            Op::Store { name, row, value } => self.array(name)[row * COLUMNS + 5] = *value,
            Op::Assign { name, row, rows, value } => {
                self.array(name)[row * COLUMNS..(row + rows) * COLUMNS]
                    .copy_from_slice(&values(*rows, *value));
            }
            Op::Append { name, rows, value } => self.array(name).extend(values(*rows, *value)),
            Op::Resize { name, rows } => self.array(name).resize(rows * COLUMNS, 0),
            Op::Undone(_) => {}
        }
    }

    fn array(&mut self, name: &'static str) -> &mut Vec<u64> {
        Arc::make_mut(self.arrays.entry(name).or_default())
    }

    /// The first thing in which a transaction sees something else, if any.
    pub(crate) fn difference(&self, transaction: &Transaction) -> Result<Option<String>, Error> {
        let catalog = transaction.catalog();
        let found = catalog.arrays_count();
        if found != self.arrays.len() {
            return Ok(Some(format!("{found} arrays, not {}", self.arrays.len())));
        }
        let tags: BTreeMap<String, u64> =
            catalog.tags().map(|(tag, tid)| (tag.to_string(), tid.0)).collect();
        if tags != self.tags {
            return Ok(Some(format!("tags {tags:?}, not {:?}", self.tags)));
        }
        for (name, expected) in &self.arrays {
            let array = match transaction.open::<u64, Ix2>(name) {
                Err(zbigarray::ArrayError::NotFound { name }) => {
                    return Ok(Some(format!("there is no array {name}")));
                }
                other => other?,
            };
            let view = array.view()?;
            let found = view.as_slice().unwrap_or(&[]);
            if found.len() != expected.len() {
                return Ok(Some(format!("{name}: {} not {}", found.len(), expected.len())));
            }
            if found != expected.as_slice() {
                let at = found.iter().zip(expected.iter()).position(|(a, b)| a != b).unwrap_or(0);
                let (found, expected) = (found[at], expected[at]);
                return Ok(Some(format!("{name}: element {at} is {found}, not {expected}")));
            }
        }
        Ok(None)
    }
}

impl Op {
    fn perform(&self, transaction: &mut Transaction) -> Result<(), Error> {
        let shape = |rows: usize| [rows as u64, COLUMNS as u64];
        match self {
            Self::Create { name, rows } => {
                transaction.create::<u64, Ix2>(name, &shape(*rows))?;
            }
            Self::Remove { name } => {
                transaction.change(CatalogChange::Remove { name: Arc::from(*name) })?;
            }
            Self::Store { name, row, value } => {
                let mut array = transaction.open::<u64, Ix2>(name)?;
                array.view_mut()?[[*row, 5]] = *value;
            }
            Self::Assign { name, row, rows, value } => {
                let mut array = transaction.open::<u64, Ix2>(name)?;
                let values = block(*rows, *value);
                array.assign(format!("{row}:{}", row + rows).as_str(), &values)?;
            }
            Self::Append { name, rows, value } => {
                transaction.open::<u64, Ix2>(name)?.append(&block(*rows, *value))?;
            }
            Self::Resize { name, rows } => {
                transaction.open::<u64, Ix2>(name)?.resize(&shape(*rows))?;
            }
            Self::Undone(ops) => {
                let savepoint = transaction.savepoint()?;
                for op in ops {
                    op.perform(transaction)?;
                }
                transaction.rollback(savepoint)?;
            }
        }
        Ok(())
    }
}

fn block(rows: usize, value: u64) -> Array2<u64> {
    Array2::from_shape_fn((rows, COLUMNS), |(row, column)| {
        value.wrapping_add((row * COLUMNS + column) as u64)
    })
}
