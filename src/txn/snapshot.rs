//! Which states of the store somebody still looks at.
//!
//! A pinned state keeps its extents: `pack` gives no space back that it names.
//!
//! # Invariants
//!
//! 1. While a [`Pin`] lives, its state is in the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::storage::state::State;
use crate::sync::Mutex;
use crate::units::Tid;

#[derive(Default)]
struct Table {
    next: u64,
    pinned: BTreeMap<u64, (Arc<State>, bool)>,
}

/// All pinned states of one open store.
#[derive(Clone, Default)]
pub(super) struct Pins {
    table: Arc<Mutex<Table>>,
}

impl Pins {
    /// Pins `state`; `writes` says whether a transaction on it may commit.
    pub(super) fn pin(&self, state: Arc<State>, writes: bool) -> Pin {
        let mut table = self.table.lock();
        let key = table.next;
        table.next += 1;
        table.pinned.insert(key, (Arc::clone(&state), writes));
        Pin { table: Arc::clone(&self.table), key, state }
    }

    /// The pinned states.
    pub(super) fn states(&self) -> Vec<Arc<State>> {
        self.table.lock().pinned.values().map(|(state, _)| Arc::clone(state)).collect()
    }

    /// The oldest commit that a transaction which may commit is based on.
    pub(super) fn oldest_writer(&self) -> Option<Tid> {
        let table = self.table.lock();
        table.pinned.values().filter(|(_, writes)| *writes).map(|(state, _)| state.tid).min()
    }
}

/// Keeps one state.
pub(super) struct Pin {
    table: Arc<Mutex<Table>>,
    key: u64,
    state: Arc<State>,
}

impl Pin {
    /// The state.
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.table.lock().pinned.remove(&self.key);
    }
}
