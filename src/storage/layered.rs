//! A persistent map over a sorted list: what was loaded at once, and what changed since.
//!
//! ```text
//! base      a b c d e        one allocation, made in order, shared by all clones
//! changes     -   D   f      a persistent map: removed, replaced, new
//! reads as  a   c D e f
//! ```
//!
//! Building a persistent map of 10,000 names costs more than reading them from the disk; a list
//! that is sorted already costs nothing to search.
//!
//! # Invariants
//!
//! 1. The keys of the base ascend strictly.
//! 2. Only a key of the base is marked as removed.

use std::borrow::Borrow;
use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;

use imbl::OrdMap;

/// A map whose clone costs O(1).
#[derive(Clone)]
pub(super) struct Layered<K, V> {
    // Invariant 1.
    base: Arc<Vec<(K, V)>>,
    // Invariant 2: nothing stands for a removed key.
    changes: OrdMap<K, Option<V>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> Default for Layered<K, V> {
    fn default() -> Self {
        Self { base: Arc::new(Vec::new()), changes: OrdMap::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> Layered<K, V> {
    /// The map of these entries, or nothing if their keys do not ascend strictly. Cost O(n).
    #[must_use]
    pub(super) fn of_sorted(base: Vec<(K, V)>) -> Option<Self> {
        let len = base.len();
        let ascends = base.is_sorted_by(|(one, _), (next, _)| one < next);
        ascends.then(|| Self { base: Arc::new(base), changes: OrdMap::new(), len })
    }

    /// Number of entries.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`. Cost O(log n).
    #[must_use]
    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        match self.changes.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.in_base(key),
        }
    }

    /// Whether `key` has a value.
    #[must_use]
    pub(super) fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.get(key).is_some()
    }

    /// The value of `key`, to be changed. One of the base is copied first.
    #[must_use]
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.changes.contains_key(key) {
            let value = self.in_base(key)?.clone();
            self.changes.insert(key.clone(), Some(value));
        }
        self.changes.get_mut(key)?.as_mut()
    }

    /// Gives `key` this value.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.len += usize::from(!self.contains_key(&key));
        self.changes.insert(key, Some(value));
    }

    /// Takes `key` out.
    pub(super) fn remove(&mut self, key: &K) {
        self.len -= usize::from(self.contains_key(key));
        if self.in_base(key).is_some() {
            self.changes.insert(key.clone(), None);
        } else {
            self.changes.remove(key);
        }
    }

    /// All entries, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> + '_ {
        Merged { base: self.base.iter().peekable(), changes: self.changes.iter().peekable() }
    }

    /// The entries from `key` on, ascending. Cost O(log n) and what is taken.
    pub(super) fn starting_at(&self, key: K) -> impl Iterator<Item = (&K, &V)> + '_ {
        let start = self.base.partition_point(|(of, _)| *of < key);
        let changes = self.changes.range(key..).peekable();
        Merged { base: self.base[start..].iter().peekable(), changes }
    }

    fn in_base<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let at = self.base.binary_search_by(|(of, _)| of.borrow().cmp(key)).ok()?;
        Some(&self.base[at].1)
    }
}

impl<K: Ord + Clone + PartialEq, V: Clone + PartialEq> PartialEq for Layered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for Layered<K, V> {}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Layered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Two ascending sequences as one, in which a change hides what the base has under its key.
struct Merged<B: Iterator, C: Iterator> {
    base: Peekable<B>,
    changes: Peekable<C>,
}

impl<'a, K, V, B, C> Iterator for Merged<B, C>
where
    K: Ord + 'a,
    V: 'a,
    B: Iterator<Item = &'a (K, V)>,
    C: Iterator<Item = (&'a K, &'a Option<V>)>,
{
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let changed = self.changes.peek().map(|(key, _)| *key);
            let Some(before) = self.base.next_if(|(key, _)| changed.is_none_or(|c| key <= c))
            else {
                match self.changes.next()? {
                    (key, Some(value)) => return Some((key, value)),
                    (_, None) => continue,
                }
            };
            if changed != Some(&before.0) {
                return Some((&before.0, &before.1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_layered_map_equals_a_plain_one_and_its_clones_stay_as_they_were(
            base in prop::collection::btree_map(0u8..40, any::<u8>(), 0..30),
            changes in prop::collection::vec((0u8..40, prop::option::of(any::<u8>())), 0..60),
            cloned_at in 0usize..60,
            probe in 0u8..44,
        ) {
            let mut map = Layered::of_sorted(base.clone().into_iter().collect()).unwrap();
            let mut model: BTreeMap<u8, u8> = base;
            let (mut old, mut old_model) = (map.clone(), model.clone());
            for (at, (key, value)) in changes.into_iter().enumerate() {
                if at == cloned_at {
                    (old, old_model) = (map.clone(), model.clone());
                }
                match (value, map.get_mut(&key)) {
                    (Some(value), Some(there)) if value % 2 == 0 => {
                        *there = value;
                        model.insert(key, value);
                    }
                    (Some(value), _) => {
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    (None, _) => {
                        map.remove(&key);
                        model.remove(&key);
                    }
                }
            }
            for (map, model) in [(&map, &model), (&old, &old_model)] {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert!(map.starting_at(probe).eq(model.range(probe..)));
                prop_assert_eq!(map.get(&probe), model.get(&probe));
                prop_assert_eq!(map.len(), model.len());
                let again = Layered::of_sorted(model.clone().into_iter().collect());
                prop_assert_eq!(Some(map), again.as_ref());
            }
        }
    }

    #[test]
    fn entries_out_of_order_are_no_map() {
        assert!(Layered::of_sorted(vec![(1, 'a'), (1, 'b')]).is_none());
        assert!(Layered::of_sorted(vec![(2, 'a'), (1, 'b')]).is_none());
    }
}
