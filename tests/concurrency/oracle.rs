//! What threads saw and did, and whether one order of commits explains it.
//!
//! ```text
//! commits by tid   1: create   2: pages 3, 5 <- values   3: undo 2   4: ...
//! fold             state 1     state 2                   state 3     each later read is one
//! ```
//!
//! # Invariants
//!
//! 1. Every value a thread writes is written once in a schedule, so a page tells who wrote it.

use std::collections::{BTreeMap, BTreeSet};

use zbigarray::Tid;

/// Pages of the array: more than travel inside a record, and more than one block.
pub(crate) const PAGES: usize = 20;

/// What every page holds; 0 if nobody wrote it.
pub(crate) type Content = [i64; PAGES];

/// What a commit did.
pub(crate) enum Effect {
    /// Gave pages new values.
    Pages(BTreeMap<usize, i64>),
    /// Gave the pages of that commit the values before it.
    Undo(Tid),
    /// Changed names only.
    Names,
}

struct Commit {
    base: Tid,
    effect: Effect,
}

/// All that was told.
#[derive(Default)]
pub(crate) struct History {
    commits: BTreeMap<Tid, Commit>,
    reads: Vec<(Tid, Content)>,
    refused: Vec<(Tid, BTreeSet<usize>)>,
    values: i64,
}

impl History {
    /// A value nobody has written (invariant 1).
    pub(crate) fn fresh(&mut self) -> i64 {
        self.values += 1;
        self.values
    }

    /// A snapshot of commit `at` showed `content`.
    pub(crate) fn saw(&mut self, at: Tid, content: Content) {
        self.reads.push((at, content));
    }

    /// `commit` returned `Ok(tid)`.
    pub(crate) fn committed(&mut self, tid: Tid, base: Tid, effect: Effect) {
        assert!(tid > base, "commit {tid} on {base}");
        let before = self.commits.insert(tid, Commit { base, effect });
        assert!(before.is_none(), "{tid} was given to two commits");
    }

    /// `commit` was a conflict on these pages.
    pub(crate) fn refused(&mut self, base: Tid, pages: BTreeSet<usize>) {
        self.refused.push((base, pages));
    }

    /// The newest commit that somebody knows to be durable.
    pub(crate) fn acknowledged(&self) -> Tid {
        self.commits.keys().next_back().copied().unwrap_or_default()
    }

    /// Compares everything with the one order, and returns the state after each commit from
    /// `first`, which is empty, to the head.
    pub(crate) fn explain(&self, first: Tid) -> BTreeMap<Tid, Content> {
        let mut states = BTreeMap::from([(first, [0; PAGES])]);
        let mut changed: BTreeMap<Tid, BTreeSet<usize>> = BTreeMap::new();
        for (&tid, commit) in &self.commits {
            let before = Tid(tid.0 - 1);
            let mut content = states[&before];
            let values = match &commit.effect {
                Effect::Pages(values) => values.clone(),
                Effect::Undo(undone) => {
                    let old = states[&Tid(undone.0 - 1)];
                    changed[undone].iter().map(|&page| (page, old[page])).collect()
                }
                Effect::Names => BTreeMap::new(),
            };
            let pages: BTreeSet<usize> = values.keys().copied().collect();
            for (later, others) in changed.range(commit.base.next()..) {
                let both: Vec<_> = pages.intersection(others).collect();
                assert!(both.is_empty(), "{tid} on {} and {later} changed {both:?}", commit.base);
            }
            values.iter().for_each(|(&page, &value)| content[page] = value);
            changed.insert(tid, pages);
            states.insert(tid, content);
        }
        for (at, content) in &self.reads {
            assert_eq!(states.get(at), Some(content), "a snapshot of commit {at}");
        }
        for (base, pages) in &self.refused {
            let mut newer = changed.range(base.next()..);
            let reason = newer.any(|(_, others)| !pages.is_disjoint(others));
            assert!(reason, "{pages:?} on {base} conflicted with nothing");
        }
        states
    }
}
