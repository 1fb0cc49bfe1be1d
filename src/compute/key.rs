//! Names of tasks.
//!
//! ```text
//! Family "x - mean", grid [3, 4]   shared by twelve tasks
//! Key    family + 7                shown as x - mean[1, 3]
//! ```
//!
//! # Invariants
//!
//! 1. A key costs no allocation if its family exists already.

use std::fmt;
use std::sync::Arc;

/// The common name of the tasks that make the blocks of one array.
#[derive(PartialEq, Eq, Hash, Debug)]
pub struct Family {
    name: String,
    grid: Vec<u64>,
}

impl Family {
    /// The family `name` of a grid of blocks: one task for each, counted in C order.
    #[must_use]
    pub fn new(name: impl Into<String>, grid: &[u64]) -> Arc<Self> {
        Arc::new(Self { name: name.into(), grid: grid.to_vec() })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key of the block number `index`.
    #[must_use]
    pub fn key(self: &Arc<Self>, index: u64) -> Key {
        Key { family: Arc::clone(self), index }
    }
}

/// The name of a task, for people and for graphs that are built by name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    family: Arc<Family>,
    index: u64,
}

impl Key {
    /// What it shares with the tasks that make the other blocks.
    #[must_use]
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// The number of the block within its family.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Family::new(name, &[]).key(0)
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Family::new(name, &[]).key(0)
    }
}

impl From<(&Arc<Family>, u64)> for Key {
    fn from((family, index): (&Arc<Family>, u64)) -> Self {
        family.key(index)
    }
}

impl From<(&str, u64)> for Key {
    fn from((name, index): (&str, u64)) -> Self {
        // The first axis of a grid has no end, see `fmt`.
        Family::new(name, &[0]).key(index)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.family.name)?;
        let Some((_, inner)) = self.family.grid.split_first() else { return Ok(()) };
        let mut rest = self.index;
        let mut position: Vec<u64> = inner
            .iter()
            .rev()
            .map(|&count| {
                let (next, place) = (rest / count.max(1), rest % count.max(1));
                rest = next;
                place
            })
            .collect();
        position.push(rest);
        position.reverse();
        let shown: Vec<String> = position.iter().map(u64::to_string).collect();
        write!(formatter, "[{}]", shown.join(", "))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_with_the_position_of_their_block() {
        let family = Family::new("x", &[3, 4, 5]);
        let shown: Vec<String> = [0, 4, 5, 59].map(|at| family.key(at).to_string()).into();
        assert_eq!(shown, ["x[0, 0, 0]", "x[0, 0, 4]", "x[0, 1, 0]", "x[2, 3, 4]"]);
        assert_eq!(Key::from("total").to_string(), "total");
        assert_eq!(Key::from(("part", 70)).to_string(), "part[70]");
        assert_eq!(Family::new("empty", &[2, 0]).key(9).to_string(), "empty[9, 0]");
    }

    #[test]
    fn keys_are_equal_by_name_and_index() {
        assert_eq!(Key::from(("x", 1)), Key::from(("x", 1)));
        assert_ne!(Key::from(("x", 1)), Key::from(("x", 2)));
        assert_ne!(Key::from("x"), Key::from(("x", 0)));
    }
}
