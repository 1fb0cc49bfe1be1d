//! A store and its model, side by side, moved by the same steps.

use std::collections::BTreeSet;
use std::sync::Arc;

use zbigarray::array::cast::as_bytes_mut;
use zbigarray::array::{Bytes, Element};
use zbigarray::storage::backend::Backend;
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::txn::{CatalogChange, CommitError, Keep, StorageError, TransactionError};
use zbigarray::units::{BLOCK_BYTES_MIN, Tid};
use zbigarray::{
    ArrayOptions, Dtype, DynArray, Index, Order, Savepoint, Store, Transaction, ZBigArray,
};

use super::effects::{Effects, NameChange};
use super::plain::{Axis, Named, Plain, PlainArray, noise, slice_of};
use super::steps::Step;

const NAMES: [&str; 4] = ["a", "b", "g/c", "g/h/d"];
/// Bytes along the major axis are this times a byte, or fewer.
const SCALE: u64 = 800;

/// An open transaction and what it should see.
struct Open {
    transaction: Transaction,
    base: usize,
    view: Plain,
    effects: Effects,
    saves: Vec<(Savepoint, Plain, Effects)>,
}

/// Makes and opens the one store of a world.
pub(crate) trait Maker {
    fn create(&self);
    fn open(&self) -> Store;
}

impl Maker for Arc<dyn Backend> {
    fn create(&self) {
        LocalEngine::create(self, &limits()).unwrap();
    }

    fn open(&self) -> Store {
        open(self)
    }
}

/// The store and the model.
pub(crate) struct World {
    maker: Box<dyn Maker>,
    store: Option<Store>,
    /// By tid.
    versions: Vec<Plain>,
    /// What each commit did, by tid.
    commits: Vec<Effects>,
    oldest: usize,
    open: [Option<Open>; 2],
    held: Option<(Transaction, usize)>,
    next_identity: u64,
}

impl World {
    /// A new store of the local engine on `backend`.
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self::of(Box::new(backend))
    }

    /// A new store of any engine.
    pub(crate) fn of(maker: Box<dyn Maker>) -> Self {
        maker.create();
        let store = Some(maker.open());
        let (versions, commits) = (vec![Plain::default()], vec![Effects::default()]);
        let (open, held) = ([None, None], None);
        Self { maker, store, versions, commits, oldest: 0, open, held, next_identity: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// The newest commit.
    pub(crate) fn head(&self) -> usize {
        self.versions.len() - 1
    }

    /// The oldest commit that can be read.
    pub(crate) fn oldest(&self) -> usize {
        self.oldest
    }

    /// What the store holds after each commit.
    pub(crate) fn versions(&self) -> &[Plain] {
        &self.versions
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { who } => self.commit(usize::from(*who)),
            Step::Abort { who } => {
                if let Some(open) = self.open[usize::from(*who)].take() {
                    open.transaction.abort();
                }
            }
            Step::Tag { tag, tid } => self.tag(&format!("t{tag}"), *tid),
            Step::Undo { tid } => self.undo(*tid),
            Step::At { tid } => drop(self.at(*tid)),
            Step::Hold { tid } => self.held = self.at(*tid),
            Step::Checkpoint => self.store().checkpoint().unwrap(),
            Step::Pack { keep } => self.pack(*keep),
            Step::Reopen => self.reopen(),
            Step::Check => self.check(),
            Step::Save { who } => {
                let open = self.begun(*who);
                let savepoint = open.transaction.savepoint().unwrap();
                open.saves.push((savepoint, open.view.clone(), open.effects.clone()));
                compare(&open.transaction, &open.view);
            }
            Step::Rollback { who, to } => {
                let open = self.begun(*who);
                if open.saves.is_empty() {
                    return;
                }
                let at = usize::from(*to) % open.saves.len();
                open.saves.truncate(at + 1);
                let (savepoint, view, effects) = open.saves[at].clone();
                open.transaction.rollback(savepoint).unwrap();
                (open.view, open.effects) = (view, effects);
                compare(&open.transaction, &open.view);
            }
            Step::Create { who, name, .. } => {
                self.next_identity += 1;
                let identity = self.next_identity;
                self.begun(*who).create(NAMES[usize::from(*name)], identity, step);
            }
            Step::Remove { who, name } => {
                let open = self.begun(*who);
                open.remove(&open.name(*name));
            }
            Step::Rename { who, name, to } => {
                let open = self.begun(*who);
                open.rename(&open.name(*name), NAMES[usize::from(*to)]);
            }
            Step::Assign { who, name, .. }
            | Step::Store { who, name, .. }
            | Step::Share { who, name, .. }
            | Step::Append { who, name, .. }
            | Step::Resize { who, name, .. }
            | Step::Cut { who, name, .. }
            | Step::Attribute { who, name, .. } => {
                let open = self.begun(*who);
                open.change(&open.name(*name), step);
            }
        }
    }

    /// The transaction of that number, begun if it is not.
    fn begun(&mut self, who: bool) -> &mut Open {
        let (at, base) = (usize::from(who), self.head());
        if self.open[at].is_none() {
            let transaction = self.store().begin().unwrap();
            assert_eq!(transaction.base(), tid(base));
            let view = self.versions[base].clone();
            let (effects, saves) = (Effects::default(), Vec::new());
            self.open[at] = Some(Open { transaction, base, view, effects, saves });
        }
        self.open[at].as_mut().unwrap()
    }

    fn commit(&mut self, who: usize) {
        let Some(open) = self.open[who].take() else { return };
        let Open { transaction, base, view, mut effects, .. } = open;
        compare(&transaction, &view);
        effects.compare(&self.versions[base], &view);
        let newer = &self.commits[base + 1..];
        let next = effects.applied_to(&self.versions[self.head()], &view);
        let must = next.is_none() || newer.iter().any(|other| effects.must_conflict(other));
        let may = must || newer.iter().any(|other| effects.may_conflict(other));
        match transaction.commit_with_note("model") {
            Ok(done) if done == tid(base) && !effects.is_surely_something() => {}
            Ok(done) => {
                assert!(!must, "a conflict was missed: {effects:?} after {newer:?}");
                assert!(!effects.is_nothing(), "a commit of nothing made a record");
                assert_eq!(done, tid(self.head() + 1));
                self.versions.push(next.unwrap());
                self.commits.push(effects);
                self.compare_head();
            }
            Err(CommitError::Conflict(conflict)) => {
                assert!(may, "no conflict, but: {conflict}; {effects:?} after {newer:?}");
                self.compare_head();
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn compare_head(&self) {
        assert_eq!(self.store().head(), tid(self.head()));
        compare(&self.store().begin_read().unwrap(), &self.versions[self.head()]);
    }

    fn tag(&mut self, tag: &str, at: u8) {
        let at = usize::from(at) % (self.head() + 1);
        let done = self.store().tag(tag, tid(at));
        if at < self.oldest {
            assert!(done.is_err());
            return;
        }
        assert_eq!(done.unwrap(), tid(self.head() + 1));
        let mut next = self.versions[self.head()].clone();
        next.tags.insert(tag.to_owned(), at as u64);
        self.versions.push(next);
        let tags = [tag.to_owned()].into();
        self.commits.push(Effects { tags, ..Effects::default() });
    }

    fn undo(&mut self, at: u8) {
        let at = usize::from(at) % (self.head() + 1);
        let done = self.store().undo(tid(at));
        if at == 0 || at <= self.oldest {
            assert!(done.is_err());
            return;
        }
        let (old, new, head) = (&self.versions[at - 1], &self.versions[at], self.head());
        let Some(effects) = self.commits[at].inverse(old, new) else {
            assert!(done.is_err(), "what was removed is gone");
            return;
        };
        let newer = &self.commits[at + 1..];
        let next = effects.applied_to(&self.versions[head], old);
        let must = next.is_none()
            || newer.iter().any(|other| effects.must_conflict(other))
            || newer.iter().any(|other| effects.takes_rows_of(other, old, new));
        // Groups that came with an array go with it, if they are empty.
        let may = must
            || newer.iter().any(|other| effects.may_conflict(other))
            || !(newer.is_empty() || effects.names.is_empty());
        match done {
            Ok(done) if done == tid(head) => assert!(!effects.is_surely_something()),
            Ok(done) => {
                assert!(!must, "a conflict of an undo was missed: {effects:?} after {newer:?}");
                assert_eq!(done, tid(head + 1));
                let mut next = next.unwrap();
                for tag in tags_unlike(old, new) {
                    match old.tags.get(&tag) {
                        Some(tid) => next.tags.insert(tag, *tid),
                        None => next.tags.remove(&tag),
                    };
                }
                self.versions.push(next);
                self.commits.push(effects);
                self.compare_head();
            }
            Err(error) => assert!(may, "undo of {at}: {error}; {effects:?} after {newer:?}"),
        }
    }

    fn at(&self, at: u8) -> Option<(Transaction, usize)> {
        let at = usize::from(at) % (self.head() + 1);
        match self.store().at(tid(at)) {
            Ok(transaction) => {
                assert!(at >= self.oldest);
                compare(&transaction, &self.versions[at]);
                Some((transaction, at))
            }
            Err(TransactionError::Storage(StorageError::Forgotten { .. })) => {
                assert!(at < self.oldest, "commit {at} was not packed away");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn pack(&mut self, keep: u8) {
        let wanted = usize::from(keep) % (self.head() + 1);
        let tagged = self.versions[self.head()].tags.values().map(|&at| at as usize);
        let tagged = tagged.filter(|at| *at >= self.oldest).min();
        let (wanted, keep) = match keep {
            220.. => (tagged.unwrap_or(self.head()), Keep::AllTags),
            190..220 => (self.head(), Keep::Head),
            _ => (wanted, Keep::From(tid(wanted))),
        };
        let bases = self.open.iter().flatten().map(|open| open.base);
        let expected = bases.chain([wanted]).min().unwrap().max(self.oldest);
        let summary = self.store().pack(keep).unwrap();
        assert_eq!(summary.oldest, tid(expected));
        assert_eq!(summary.forgotten, (expected - self.oldest) as u64);
        self.oldest = expected;
        if let Some((transaction, at)) = &self.held {
            compare(transaction, &self.versions[*at]);
        }
        self.open.iter().flatten().for_each(|open| compare(&open.transaction, &open.view));
        self.compare_head();
    }

    fn reopen(&mut self) {
        self.open = [None, None];
        self.held = None;
        self.store = None;
        self.store = Some(self.maker.open());
        assert_eq!(self.store().oldest(), tid(self.oldest));
        self.compare_head();
    }

    fn check(&self) {
        let report = self.store().check(true, &mut |_, _| {}).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }

    /// Looks at every kept version, before and after opening again.
    pub(crate) fn finish(mut self) {
        if let Some((transaction, at)) = &self.held {
            compare(transaction, &self.versions[*at]);
        }
        self.check();
        self.reopen();
        for at in self.oldest..=self.head() {
            compare(&self.store().at(tid(at)).unwrap(), &self.versions[at]);
        }
        self.check();
    }
}

impl Open {
    /// One of the names in use; a free one only if there is none.
    fn name(&self, number: u8) -> String {
        let count = self.view.arrays.len().max(1);
        let name = self.view.arrays.keys().nth(usize::from(number) % count);
        name.map_or_else(|| NAMES[usize::from(number)].to_owned(), String::clone)
    }

    fn create(&mut self, name: &str, identity: u64, step: &Step) {
        let Step::Create { kind, shape, .. } = step else { return };
        let (dtype, order, fill) = kind_of(*kind);
        let shape = shape_of(shape, order, fill.len());
        let options = ArrayOptions::new().order(order).fill(fill).block_bytes(64 << 10);
        let dtype = Dtype::parse(dtype).unwrap();
        let created = DynArray::create(&self.transaction, name, &dtype, &shape, &options);
        if self.view.arrays.contains_key(name) {
            assert!(created.is_err());
            return;
        }
        drop(created.unwrap());
        let array = PlainArray::new(&shape, order, fill);
        self.view.arrays.insert(name.to_owned(), Named { identity, array });
        self.effects.names.push(NameChange::Create { name: name.to_owned(), identity });
        self.compare_one(name);
    }

    fn remove(&mut self, name: &str) {
        let done = self.transaction.change(CatalogChange::Remove { name: name.into() });
        let Some(Named { identity, .. }) = self.view.arrays.remove(name) else {
            assert!(done.is_err());
            return;
        };
        done.unwrap();
        self.effects.names.push(NameChange::Remove { name: name.to_owned(), identity });
    }

    fn rename(&mut self, from: &str, to: &str) {
        let change = CatalogChange::Move { from: from.into(), to: to.into() };
        let done = self.transaction.change(change);
        let exists = self.view.arrays.contains_key(from);
        if !exists || from == to || self.view.arrays.contains_key(to) {
            assert!(done.is_err() || from == to);
            return;
        }
        done.unwrap();
        let named = self.view.arrays.remove(from).unwrap();
        let identity = named.identity;
        self.view.arrays.insert(to.to_owned(), named);
        let (from, to) = (from.to_owned(), to.to_owned());
        self.effects.names.push(NameChange::Rename { from, to, identity });
    }

    fn change(&mut self, name: &str, step: &Step) {
        let Some(named) = self.view.arrays.get_mut(name) else {
            assert!(DynArray::open(&self.transaction, name).is_err());
            return;
        };
        let array = DynArray::open(&self.transaction, name).unwrap();
        let (identity, plain) = (named.identity, &mut named.array);
        match step {
            Step::Assign { region, seed, .. } => {
                let order = if seed.is_multiple_of(3) { Order::F } else { Order::C };
                let region = region_of(plain, region);
                let touched = assign(array, plain, &region, order, *seed);
                self.effects.touch(identity, touched);
            }
            Step::Store { region, seed, .. } | Step::Share { region, seed, .. } => {
                let region = region_of(plain, region);
                let shared = matches!(step, Step::Share { .. });
                let touched = store(array, plain, &region, shared, *seed);
                self.effects.touch(identity, touched);
            }
            Step::Append { rows, seed, .. } => {
                append(array, plain, identity, u64::from(*rows) % 40, *seed, &mut self.effects);
            }
            Step::Resize { shape, .. } => {
                let shape = shape_of(shape, plain.order, plain.itemsize);
                resize(array, plain, identity, &shape, &mut self.effects);
            }
            Step::Cut { len, .. } => {
                let Some(major) = plain.major() else { return };
                let mut shape = plain.shape.clone();
                shape[major] = 1;
                let row = shape.iter().product::<u64>().max(1) * plain.itemsize as u64;
                shape[major] = u64::from(*len) * 3 / row;
                resize(array, plain, identity, &shape, &mut self.effects);
            }
            Step::Attribute { key, value, .. } => {
                let key = format!("k{key}");
                change_attribute(array, plain, &key, *value);
                self.effects.attributes.insert((identity, key), *value);
            }
            _ => {}
        }
        self.compare_one(name);
    }

    fn compare_one(&self, name: &str) {
        compare_array(&self.transaction, name, &self.view.arrays[name].array);
    }
}

/// Limits so small that each of them is met.
pub(crate) fn limits() -> LocalOptions {
    LocalOptions {
        block_bytes: BLOCK_BYTES_MIN,
        log_roll_bytes: 96 << 10,
        data_file_pages: 512,
        checkpoint_bytes_min: 64 << 10,
        ..LocalOptions::default()
    }
}

/// Opens a store with limits so small that each of them is met.
pub(crate) fn open(backend: &Arc<dyn Backend>) -> Store {
    Store::open_on(backend, Mode::ReadWrite, &limits()).unwrap()
}

fn tid(at: usize) -> Tid {
    Tid(at as u64)
}

/// The tags that one has and the other has not, or has for another commit.
fn tags_unlike(one: &Plain, other: &Plain) -> Vec<String> {
    let all = one.tags.keys().chain(other.tags.keys());
    all.filter(|tag| one.tags.get(*tag) != other.tags.get(*tag)).cloned().collect()
}

/// Element type, order and fill value.
fn kind_of(kind: u8) -> (&'static str, Order, &'static [u8]) {
    match kind % 8 {
        0 | 1 => ("|u1", Order::C, &[0]),
        2 => ("<u8", Order::C, &[0; 8]),
        3 => ("<u8", Order::F, &[0; 8]),
        4 => ("|V3", Order::C, &[0; 3]),
        5 => ("|u1", Order::F, &[7]),
        6 => ("<u8", Order::C, &[1, 2, 3, 4, 5, 6, 7, 8]),
        _ => ("|V3", Order::F, &[1, 2, 3]),
    }
}

/// A shape of up to about 200 KB, the major axis the longest.
fn shape_of(numbers: &[u8], order: Order, itemsize: usize) -> Vec<u64> {
    let Some((&major, minor)) = numbers.split_first() else { return Vec::new() };
    let mut shape: Vec<u64> = minor.iter().map(|&len| u64::from(len % 24)).collect();
    let row = shape.iter().product::<u64>().max(1) * itemsize as u64;
    let major = u64::from(major) * SCALE / row;
    match order {
        Order::C => shape.insert(0, major),
        Order::F => shape.push(major),
    }
    shape
}

/// Something on each axis, chosen by a number.
fn region_of(plain: &PlainArray, numbers: &[u16; 3]) -> Vec<Axis> {
    let axis = |(&len, &number): (&u64, &u16)| {
        let number = u64::from(number);
        if len == 0 || number.is_multiple_of(8) {
            return (0, len, 1);
        }
        let step: i64 = [1, 1, 1, 2, -1, 3, -5][usize::try_from(number % 7).unwrap()];
        let start = number % len;
        let room = if step > 0 { len - 1 - start } else { start };
        (start, 1 + (number >> 3) % (room / step.unsigned_abs() + 1), step)
    };
    plain.shape.iter().zip(numbers).map(axis).collect()
}

fn indices(region: &[Axis]) -> Vec<Index> {
    region.iter().copied().map(slice_of).collect()
}

/// Noise into a region by a bulk call; returns the pages it lies in.
fn assign(
    mut array: DynArray<'_>,
    plain: &mut PlainArray,
    region: &[Axis],
    order: Order,
    seed: u32,
) -> BTreeSet<usize> {
    let offsets = plain.offsets(region, order);
    let values = noise(seed, offsets.len() * plain.itemsize);
    array.write(&array.select(&indices(region)).unwrap(), order, &values).unwrap();
    plain.store(&offsets, &values);
    plain.pages(&offsets)
}

/// Noise into a region through a view; returns the pages it lies in.
fn store(
    array: DynArray<'_>,
    plain: &mut PlainArray,
    region: &[Axis],
    shared: bool,
    seed: u32,
) -> BTreeSet<usize> {
    let offsets = plain.offsets(region, Order::C);
    let values = noise(seed, offsets.len() * plain.itemsize);
    match plain.itemsize {
        1 => through_view::<u8>(array, region, &values, shared),
        3 => through_view::<Bytes<3>>(array, region, &values, shared),
        _ => through_view::<u64>(array, region, &values, shared),
    }
    plain.store(&offsets, &values);
    plain.pages(&offsets)
}

/// Stores `values` through a view of `region`, or through one of two aliasing views.
fn through_view<T: Element + PartialEq>(
    array: DynArray<'_>,
    region: &[Axis],
    values: &[u8],
    shared: bool,
) {
    let mut array = ZBigArray::<T, ndarray::IxDyn>::of(array).unwrap();
    let indices = indices(region);
    let values = values.chunks(size_of::<T>());
    if !shared {
        let mut view = array.get_mut(&indices[..]).unwrap();
        for (element, value) in view.iter_mut().zip(values) {
            as_bytes_mut(std::slice::from_mut(element)).copy_from_slice(value);
        }
        return;
    }
    let shared = array.share();
    let (part, again) = (shared.get(&indices[..]).unwrap(), shared.get(&indices[..]).unwrap());
    for ((element, same), value) in part.iter().zip(&again).zip(values) {
        let mut new = element.get();
        as_bytes_mut(std::slice::from_mut(&mut new)).copy_from_slice(value);
        element.set(new);
        assert!(same.get() == new);
    }
}

fn append(
    mut array: DynArray<'_>,
    plain: &mut PlainArray,
    identity: u64,
    rows: u64,
    seed: u32,
    effects: &mut Effects,
) {
    let Some(major) = plain.major() else {
        assert!(array.append(&[], Order::C, &[0; 8][..plain.itemsize]).is_err());
        return;
    };
    let (before, mut shape) = (plain.shape[major], plain.shape.clone());
    shape[major] = rows;
    let len: u64 = shape.iter().product();
    let values = noise(seed, usize::try_from(len).unwrap() * plain.itemsize);
    array.append(&shape, Order::C, &values).unwrap();
    shape[major] += before;
    resize_plain(plain, identity, &shape, effects);
    let mut region: Vec<Axis> = plain.shape.iter().map(|&len| (0, len, 1)).collect();
    region[major] = (before, rows, 1);
    let offsets = plain.offsets(&region, Order::C);
    plain.store(&offsets, &values);
    effects.touch(identity, plain.pages(&offsets));
}

fn resize(
    mut array: DynArray<'_>,
    plain: &mut PlainArray,
    identity: u64,
    shape: &[u64],
    effects: &mut Effects,
) {
    array.resize(shape).unwrap();
    resize_plain(plain, identity, shape, effects);
}

/// Resizes the model's array and notes what that touches.
fn resize_plain(plain: &mut PlainArray, identity: u64, shape: &[u64], effects: &mut Effects) {
    effects.reshape(identity, plain, shape);
    plain.resize(shape);
}

fn change_attribute(
    mut array: DynArray<'_>,
    plain: &mut PlainArray,
    key: &str,
    value: Option<i64>,
) {
    match value {
        Some(value) => {
            array.set_attribute(key, &value.into()).unwrap();
            plain.attributes.insert(key.to_owned(), value);
        }
        None => {
            array.remove_attribute(key).unwrap();
            plain.attributes.remove(key);
        }
    }
}

/// Compares everything that a transaction sees with `plain`.
pub(crate) fn compare(transaction: &Transaction, plain: &Plain) {
    let catalog = transaction.catalog();
    let names = catalog.names().filter(|(name, _)| catalog.array(name).is_some());
    let names: Vec<&str> = names.map(|(name, _)| &**name).collect();
    assert_eq!(names, plain.arrays.keys().collect::<Vec<_>>());
    let tags: Vec<(&str, u64)> = catalog.tags().map(|(tag, tid)| (&**tag, tid.0)).collect();
    let expected: Vec<(&str, u64)> = plain.tags.iter().map(|(t, tid)| (&**t, *tid)).collect();
    assert_eq!(tags, expected);
    for (name, named) in &plain.arrays {
        compare_array(transaction, name, &named.array);
    }
}

fn compare_array(transaction: &Transaction, name: &str, plain: &PlainArray) {
    let array = DynArray::open(transaction, name).unwrap();
    assert_eq!(*array.shape(), *plain.shape, "shape of {name}");
    let attributes = array.attributes();
    let attributes: Vec<(&str, String)> =
        attributes.iter().map(|(key, value)| (&**key, value.to_string())).collect();
    let expected: Vec<(&str, String)> =
        plain.attributes.iter().map(|(key, value)| (&**key, value.to_string())).collect();
    assert_eq!(attributes, expected, "attributes of {name}");
    let mut bytes = vec![0xCC; plain.bytes.len()];
    let whole = array.select(&[]).unwrap();
    array.read(&whole, plain.order, &mut bytes).unwrap();
    if bytes != plain.bytes {
        let at = bytes.iter().zip(&plain.bytes).position(|(a, b)| a != b).unwrap();
        let (found, expected) = (bytes[at], plain.bytes[at]);
        panic!("{name} {:?} byte {at}: {found} instead of {expected}", plain.shape);
    }
}
