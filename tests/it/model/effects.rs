//! What a transaction did, as far as others are concerned, and whether two of them conflict.
//!
//! # Invariants
//!
//! 1. `changed` is part of `touched`.

use std::collections::{BTreeMap, BTreeSet};

use super::plain::{PAGE, Plain, PlainArray};

/// A change of names, with the identity that the name had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NameChange {
    /// A new array.
    Create { name: String, identity: u64 },
    /// Gone.
    Remove { name: String, identity: u64 },
    /// Under another name.
    Rename { from: String, to: String, identity: u64 },
}

/// What one transaction did.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Effects {
    /// Pages written to, with whatever bytes.
    pub(crate) touched: BTreeMap<u64, BTreeSet<usize>>,
    /// Pages whose bytes differ from the base's. Known at commit.
    pub(crate) changed: BTreeMap<u64, BTreeSet<usize>>,
    /// Arrays that were given a shape.
    pub(crate) shapes: BTreeSet<u64>,
    /// Of them, those whose elements moved.
    pub(crate) moved: BTreeSet<u64>,
    /// Attributes set or removed.
    pub(crate) attributes: BTreeMap<(u64, String), Option<i64>>,
    /// Changes of names in order.
    pub(crate) names: Vec<NameChange>,
    /// Tags that were set, also to what they were.
    pub(crate) tags: BTreeSet<String>,
}

impl Effects {
    /// Notes that `pages` of an array were written to.
    pub(crate) fn touch(&mut self, identity: u64, pages: impl IntoIterator<Item = usize>) {
        self.touched.entry(identity).or_default().extend(pages);
    }

    /// Finds out what changed from `base` to `now`.
    pub(crate) fn compare(&mut self, base: &Plain, now: &Plain) {
        for named in now.arrays.values() {
            let Some(before) = base.by_identity(named.identity) else { continue };
            let pages = named.array.pages_unlike(before);
            self.changed.insert(named.identity, pages);
        }
    }

    /// What undoes this, which led from `old` to `new`; `None` if arrays were removed.
    pub(crate) fn inverse(&self, old: &Plain, new: &Plain) -> Option<Self> {
        let inverse = |change: &NameChange| match change.clone() {
            NameChange::Create { name, identity } => Some(NameChange::Remove { name, identity }),
            NameChange::Remove { .. } => None,
            NameChange::Rename { from, to, identity } => {
                Some(NameChange::Rename { from: to, to: from, identity })
            }
        };
        let names = self.names.iter().rev().map(inverse).collect::<Option<_>>()?;
        let kept = |identity: &u64| old.by_identity(*identity).is_some();
        let was = |(identity, key): &(u64, String)| {
            old.by_identity(*identity).and_then(|array| array.attributes.get(key).copied())
        };
        let attributes = self.attributes.keys().filter(|(identity, _)| kept(identity));
        let mut inverse = Self {
            tags: self.tags.clone(),
            touched: self.touched.clone(),
            changed: BTreeMap::new(),
            shapes: self.shapes.iter().copied().filter(kept).collect(),
            moved: self.moved.iter().copied().filter(kept).collect(),
            attributes: attributes.map(|key| (key.clone(), was(key))).collect(),
            names,
        };
        for identity in inverse.shapes.clone() {
            let (Some(from), Some(to)) = (new.by_identity(identity), old.by_identity(identity))
            else {
                continue;
            };
            inverse.reshape(identity, from, &to.shape);
        }
        inverse.compare(new, old);
        Some(inverse)
    }

    /// Notes what it touches to give `array` another shape.
    pub(crate) fn reshape(&mut self, identity: u64, array: &PlainArray, shape: &[u64]) {
        if array.shape == shape {
            return;
        }
        let major = array.major();
        let grows = |(axis, (old, new)): (usize, (&u64, &u64))| Some(axis) == major || old == new;
        let mut pairs = array.shape.iter().zip(shape).enumerate();
        let stays = array.shape.len() == shape.len() && pairs.all(grows);
        let mut after = array.clone();
        after.resize(shape);
        let (old, new) = (array.bytes.len(), after.bytes.len());
        if old > 0 && !stays {
            self.moved.insert(identity);
        }
        self.shapes.insert(identity);
        self.touch(identity, new.min(old) / PAGE..old.div_ceil(PAGE));
    }

    /// Whether `later` wrote to rows that undoing takes away: those of `new` that `old` has not.
    pub(crate) fn takes_rows_of(&self, later: &Self, old: &Plain, new: &Plain) -> bool {
        self.shapes.iter().any(|&identity| {
            let len = |plain: &Plain| plain.by_identity(identity).map_or(0, |it| it.bytes.len());
            let cut = len(old).div_ceil(PAGE)..len(new).div_ceil(PAGE);
            let changed = later.changed.get(&identity);
            changed.is_some_and(|pages| pages.iter().any(|page| cut.contains(page)))
        })
    }

    /// Whether nothing at all was done.
    pub(crate) fn is_nothing(&self) -> bool {
        self.touched.values().all(BTreeSet::is_empty) && !self.is_surely_something()
    }

    /// Whether a record must be written.
    pub(crate) fn is_surely_something(&self) -> bool {
        self.changed.values().any(|pages| !pages.is_empty())
            || !(self.shapes.is_empty() && self.attributes.is_empty() && self.names.is_empty())
    }

    fn removes(&self, identity: u64) -> bool {
        self.names.iter().any(
            |change| matches!(change, NameChange::Remove { identity: of, .. } if *of == identity),
        )
    }

    fn uses(&self, identity: u64) -> bool {
        self.shapes.contains(&identity)
            || self.attributes.keys().any(|(of, _)| *of == identity)
            || self.changed.get(&identity).is_some_and(|pages| !pages.is_empty())
    }

    /// Whether this transaction must not commit after `other`, which committed since its base.
    pub(crate) fn must_conflict(&self, other: &Self) -> bool {
        let moved = |a: &Self, b: &Self| {
            a.moved.iter().any(|id| b.changed.get(id).is_some_and(|pages| !pages.is_empty()))
        };
        meet(&self.changed, &other.changed)
            || !self.shapes.is_disjoint(&other.shapes)
            || moved(self, other)
            || moved(other, self)
            || self.attributes.keys().any(|key| other.attributes.contains_key(key))
            || !self.tags.is_disjoint(&other.tags)
            || self.names.iter().any(|change| match change {
                NameChange::Remove { identity, .. } => other.uses(*identity),
                _ => false,
            })
            || self.identities().iter().any(|&id| self.uses(id) && other.removes(id))
    }

    /// Whether this transaction may be refused after `other`.
    pub(crate) fn may_conflict(&self, other: &Self) -> bool {
        let moved = |a: &Self, b: &Self| a.moved.iter().any(|id| b.touched.contains_key(id));
        let identities = self.identities();
        self.must_conflict(other)
            || meet(&self.touched, &other.touched)
            || moved(self, other)
            || moved(other, self)
            || identities.iter().any(|&id| other.removes(id))
            || other.identities().iter().any(|&id| self.removes(id))
    }

    fn identities(&self) -> BTreeSet<u64> {
        let attributes = self.attributes.keys().map(|(id, _)| *id);
        let all = self.touched.keys().chain(self.changed.keys()).chain(&self.shapes).copied();
        all.chain(attributes).collect()
    }

    /// `head` after this transaction, which began at another state and now sees `view`; `None` if
    /// its changes of names are impossible there.
    pub(crate) fn applied_to(&self, head: &Plain, view: &Plain) -> Option<Plain> {
        let mut next = head.clone();
        for change in &self.names {
            match change {
                NameChange::Create { name, identity } => {
                    let array = PlainArray::new(&[0], zbigarray::Order::C, &[0]);
                    let named = super::plain::Named { identity: *identity, array };
                    if next.arrays.insert(name.clone(), named).is_some() {
                        return None;
                    }
                }
                NameChange::Remove { name, identity } => {
                    next.arrays.remove(name).filter(|named| named.identity == *identity)?;
                }
                NameChange::Rename { from, to, identity } => {
                    let named = next.arrays.remove(from)?;
                    if named.identity != *identity || next.arrays.contains_key(to) {
                        return None;
                    }
                    next.arrays.insert(to.clone(), named);
                }
            }
        }
        for named in view.arrays.values() {
            self.apply_array(named.identity, &named.array, head, &mut next)?;
        }
        Some(next)
    }

    fn apply_array(
        &self,
        identity: u64,
        ours: &PlainArray,
        head: &Plain,
        next: &mut Plain,
    ) -> Option<()> {
        let is_new = head.by_identity(identity).is_none();
        let Some(array) = next.by_identity_mut(identity) else {
            // Removed by another one: fine if nothing was done to it here.
            return (!self.uses(identity)).then_some(());
        };
        if is_new {
            *array = ours.clone();
            return Some(());
        }
        if self.shapes.contains(&identity) {
            array.resize(&ours.shape);
        }
        if let Some(pages) = self.changed.get(&identity) {
            array.take_pages(ours, pages);
        }
        for ((of, key), value) in &self.attributes {
            match value {
                Some(value) if *of == identity => {
                    array.attributes.insert(key.clone(), *value);
                }
                None if *of == identity => {
                    array.attributes.remove(key);
                }
                _ => {}
            }
        }
        Some(())
    }
}

fn meet(a: &BTreeMap<u64, BTreeSet<usize>>, b: &BTreeMap<u64, BTreeSet<usize>>) -> bool {
    a.iter().any(|(id, pages)| b.get(id).is_some_and(|other| !pages.is_disjoint(other)))
}
