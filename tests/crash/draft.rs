//! One commit of a program: chosen by dice, written, and either appended or given back.
//!
//! ```text
//! Prepared  actions ----> draft for the log      the same actions, so both must agree
//!                   \---> next version
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zbigarray::storage::StorageError;
use zbigarray::storage::catalog::{ArrayEntry, Attributes, CatalogChange, Owner};
use zbigarray::storage::engine::{Allocation, BlobStore, CommitLog, Engine};
use zbigarray::storage::extent::{Extent, Place, Source, sums_of};
use zbigarray::storage::local::LocalEngine;
use zbigarray::storage::record::{Draft, DraftChange, DraftSource, Record};
use zbigarray::storage::state::State;
use zbigarray::units::{ArrayId, BLOCK_BYTES_MIN, PAGE_LEN, PageRange, PageSet, Tid};

use crate::dice::Dice;
use crate::program::{Events, Flavor};
use crate::version::{Held, Version};

const ARRAY_PAGES_MAX: u64 = 40;
const BLOCK_PAGES: u64 = 16;
const INLINE_PAGES_MAX: u64 = 12;
const NAMES: [&str; 7] = ["a", "b", "c", "g/a", "g/b", "h/i/a", "h"];
const TAGS: [&str; 3] = ["t", "u", "v"];

/// One thing that a commit does.
enum Action {
    Create { name: &'static str, pages: u64 },
    Remove { name: String },
    Move { from: String, to: &'static str },
    Attribute { name: String, key: &'static str, value: Option<String> },
    Tag { tag: &'static str, tid: Option<u64> },
    Resize { name: String, from: u64, to: u64 },
    Data { name: String, pages: PageRange, content: Content },
}

/// New content of pages.
enum Content {
    Inline(Vec<u8>),
    Stored(Source, Vec<u8>),
}

/// The old commits whose extents may be named once more.
#[derive(Clone, Copy)]
pub(crate) enum Old<'a> {
    /// Any: nobody packs before the record is there.
    Any,
    /// The snapshot that the process holds until the record is there, if it has one. Extents of
    /// others may be given away by the packs of other processes meanwhile.
    Held(Option<&'a State>),
}

/// Who prepares a commit, and what is known there of the store.
pub(crate) struct Site<'a> {
    pub(crate) engine: &'a LocalEngine,
    pub(crate) head: &'a State,
    /// By commit, up to the head.
    pub(crate) versions: &'a [Arc<Version>],
    /// The oldest commit that can be read.
    pub(crate) oldest: usize,
    pub(crate) old: Old<'a>,
    pub(crate) dice: &'a mut Dice,
    pub(crate) events: &'a mut Events,
    /// Where extents were written before.
    pub(crate) places: &'a mut BTreeSet<Place>,
}

impl Site<'_> {
    fn version(&self) -> &Version {
        self.versions.last().unwrap()
    }

    /// A commit that can be read.
    pub(crate) fn any_kept(&mut self) -> u64 {
        (self.oldest + self.dice.index(self.versions.len() - self.oldest)) as u64
    }

    fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }
}

/// A commit whose data is written.
pub(crate) struct Prepared {
    actions: Vec<Action>,
    allocated: Vec<(Place, u64)>,
    time_ns: i64,
}

/// How a commit ended.
pub(crate) enum Done {
    /// It stands; this is the state after it.
    Committed(Box<State>),
    /// It may stand or not.
    Unknown(StorageError),
    /// It did not happen.
    Failed(StorageError),
}

impl Prepared {
    /// Chooses what a commit shall do and writes its data.
    pub(crate) fn new(site: &mut Site<'_>, flavor: Flavor) -> Result<Self, StorageError> {
        let time_ns = i64::try_from(site.dice.below(1 << 40)).unwrap();
        let mut prepared = Self { actions: Vec::new(), allocated: Vec::new(), time_ns };
        let mut choice = Choice {
            next: site.version().clone(),
            touched: BTreeMap::new(),
            inline_left: INLINE_PAGES_MAX,
            named: BTreeSet::new(),
        };
        if flavor == Flavor::Long && prepared.add_long(site, &mut choice) {
            return Ok(prepared);
        }
        let names = if flavor == Flavor::Names { 2 } else { 5 };
        if choice.arrays().is_empty() || site.dice.once_in(names) {
            for _ in 0..=site.dice.below(2) {
                prepared.add_names(site, &mut choice);
            }
        }
        let most = if flavor == Flavor::Small { 1 } else { 3 };
        for _ in 0..=site.dice.below(most) {
            if let Err(error) = prepared.add_data(site, &mut choice, flavor) {
                prepared.abort(site.engine);
                return Err(error);
            }
        }
        Ok(prepared)
    }

    /// Adds many pages inside the record, if there is an array that has as many.
    fn add_long(&mut self, site: &mut Site<'_>, choice: &mut Choice) -> bool {
        let long = choice.arrays().into_iter().find(|name| choice.pages(name) >= 6).cloned();
        let Some(name) = long else { return false };
        let pages = PageRange::new(0, choice.pages(&name).min(INLINE_PAGES_MAX));
        let bytes = site.dice.bytes(usize::try_from(pages.len_bytes()).unwrap());
        self.data(name, pages, Content::Inline(bytes));
        true
    }

    /// Adds a change of names, attributes, tags or shapes, if what the dice say is possible.
    fn add_names(&mut self, site: &mut Site<'_>, choice: &mut Choice) {
        let kept = site.any_kept();
        let dice = &mut *site.dice;
        let free = NAMES[dice.index(NAMES.len())];
        let has_arrays = !choice.arrays().is_empty();
        let action = match if has_arrays { dice.below(10) } else { 0 } {
            0..=2 => Action::Create { name: free, pages: 1 + dice.below(24) },
            3 => Action::Remove { name: choice.array(dice) },
            4 => Action::Move { from: choice.array(dice), to: free },
            5 => {
                let value = (!dice.once_in(3)).then(|| format!("\"{}\"", dice.next()));
                let key = ["k", "l"][dice.index(2)];
                Action::Attribute { name: choice.array(dice), key, value }
            }
            6 | 7 => {
                let tag = TAGS[dice.index(TAGS.len())];
                let tid = (!dice.once_in(4)).then_some(kept);
                Action::Tag { tag, tid }
            }
            _ => {
                let name = choice.array(dice);
                let from = choice.pages(&name);
                let to = if dice.once_in(3) { from + dice.below(8) } else { dice.below(from + 1) };
                Action::Resize { name, from, to: to.clamp(1, ARRAY_PAGES_MAX) }
            }
        };
        let name = action.name().map(str::to_owned);
        if name.as_ref().is_some_and(|name| choice.named.contains(name)) {
            return;
        }
        if let Some(next) = action.apply(&choice.next) {
            choice.next = next;
            choice.named.extend(name);
            site.count(action.event());
            if let Action::Move { to, .. } = action {
                choice.named.insert(to.to_owned());
            }
            self.actions.push(action);
        }
    }

    /// Adds new content of a run of pages.
    fn add_data(
        &mut self,
        site: &mut Site<'_>,
        choice: &mut Choice,
        flavor: Flavor,
    ) -> Result<(), StorageError> {
        if choice.arrays().is_empty() {
            return Ok(());
        }
        let name = choice.array(site.dice);
        let held = choice.pages(&name);
        if site.dice.once_in(4) && held < ARRAY_PAGES_MAX && !choice.named.contains(&name) {
            return self.append(site, choice, &name);
        }
        let dice = &mut *site.dice;
        let most = if flavor == Flavor::Small { 3 } else { 1 + dice.below(12) };
        let mut start = dice.below(held);
        let mut count = (1 + dice.below(most)).min(held - start);
        if dice.once_in(5) {
            start -= start % BLOCK_PAGES;
            count = BLOCK_PAGES.min(held - start);
        }
        let pages = PageRange::at(start, count);
        if !choice.take(&name, pages) {
            return Ok(());
        }
        match dice.below(12) {
            0 => {
                site.count("hole");
                self.data(name, pages, Content::hole(pages));
            }
            1 if flavor != Flavor::Small => self.copy_old(site, &name, pages)?,
            _ => self.write(site, choice, name, pages)?,
        }
        Ok(())
    }

    fn append(
        &mut self,
        site: &mut Site<'_>,
        choice: &mut Choice,
        name: &str,
    ) -> Result<(), StorageError> {
        let from = choice.pages(name);
        let to = (from + 1 + site.dice.below(8)).min(ARRAY_PAGES_MAX);
        let resize = Action::Resize { name: name.to_owned(), from, to };
        let Some(next) = resize.apply(&choice.next) else { return Ok(()) };
        choice.next = next;
        choice.named.insert(name.to_owned());
        self.actions.push(resize);
        site.count("append");
        let pages = PageRange::new(from, to);
        if choice.take(name, pages) {
            self.write(site, choice, name.to_owned(), pages)?;
        }
        Ok(())
    }

    /// New bytes, inside the record or in an extent.
    fn write(
        &mut self,
        site: &mut Site<'_>,
        choice: &mut Choice,
        name: String,
        pages: PageRange,
    ) -> Result<(), StorageError> {
        let count = pages.count();
        let bytes = site.dice.bytes(usize::try_from(pages.len_bytes()).unwrap());
        if count <= choice.inline_left && site.dice.once_in(2) {
            choice.inline_left -= count;
            site.count("inline");
            self.data(name, pages, Content::Inline(bytes));
            return Ok(());
        }
        let near = site.head.catalog.array(&name).filter(|_| pages.start > 0);
        let near = near.and_then(|entry| {
            let before = PageRange::at(pages.start - 1, 1);
            let segments = site.head.page_map(entry.id).lookup(before).ok()?;
            segments.last()?.source.place().filter(|place| !place.in_log()).map(|p| p.after(1))
        });
        let is_block = count == BLOCK_PAGES && pages.start.is_multiple_of(BLOCK_PAGES);
        let (align_pages, unit_pages) = if is_block { (16, 16) } else { (1, 4) };
        let pages_count = u32::try_from(count).unwrap();
        let wish = Allocation { pages: pages_count, align_pages, phase_pages: 0, near };
        let place = site.engine.allocate(&wish)?;
        self.allocated.push((place, count));
        site.count(if is_block { "block" } else { "run" });
        if !site.places.insert(place) {
            site.count("reused space");
        }
        site.engine.write(place, &bytes)?;
        if site.dice.once_in(8) {
            // Overtaken by a later change of the same transaction.
            site.count("overtaken");
            return Ok(());
        }
        let extent = Extent::new(place, pages_count, unit_pages, sums_of(&bytes, unit_pages));
        let source = Source::whole(extent.unwrap());
        self.data(name, pages, Content::Stored(source, bytes));
        Ok(())
    }

    /// The pages as they were in an old commit, whose extents are named once more.
    fn copy_old(
        &mut self,
        site: &mut Site<'_>,
        name: &str,
        pages: PageRange,
    ) -> Result<(), StorageError> {
        let (tid, held) = match site.old {
            Old::Any => (site.any_kept(), None),
            Old::Held(None) => return Ok(()),
            Old::Held(Some(state)) => (state.tid.0, Some(state)),
        };
        let version = site.versions.get(usize::try_from(tid).unwrap());
        let Some(there) = version.and_then(|version| version.arrays.get(name)).cloned() else {
            return Ok(());
        };
        if there.bytes.len() as u64 / PAGE_LEN as u64 <= pages.end {
            return Ok(());
        }
        let state = held.cloned().map_or_else(|| site.engine.load(Tid(tid)), Ok)?;
        let Some(entry) = state.catalog.array(name) else { return Ok(()) };
        site.count("old extent");
        for segment in state.page_map(entry.id).lookup(pages)? {
            // The rest of the extent is not kept for it.
            let segment = segment.trimmed();
            let bytes = there.bytes[bytes_of(segment.pages)].to_vec();
            self.data(name.to_owned(), segment.pages, Content::Stored(segment.source, bytes));
        }
        Ok(())
    }

    fn data(&mut self, name: String, pages: PageRange, content: Content) {
        self.actions.push(Action::Data { name, pages, content });
    }

    /// The draft of this commit after `head`, and what it makes of `version`; `None` if it does
    /// not fit or does nothing.
    pub(crate) fn draft(&self, head: &State, version: &Version) -> Option<(Draft<'_>, Version)> {
        let mut next = version.clone();
        let mut ids: BTreeMap<String, ArrayId> = BTreeMap::new();
        for name in version.arrays.keys() {
            ids.insert(name.clone(), head.catalog.array(name)?.id);
        }
        let mut next_id = head.catalog.next_array();
        let (mut catalog, mut data) = (Vec::new(), Vec::new());
        for action in &self.actions {
            next = action.apply(&next)?;
            if let Action::Create { name, .. } = action {
                ids.insert((*name).to_owned(), next_id);
                next_id = ArrayId(next_id.0 + 1);
            }
            catalog.extend(action.catalog_change(&ids));
            data.extend(action.data_change(&ids));
            match action {
                Action::Remove { name } => drop(ids.remove(name)),
                Action::Move { from, to } => {
                    let id = ids.remove(from)?;
                    ids.insert((*to).to_owned(), id);
                }
                _ => {}
            }
        }
        data.sort_by_key(|change| (change.array, change.pages.start));
        let tid = head.tid.next();
        let note = Arc::from(format!("commit {tid}"));
        let draft = Draft { tid, base: head.tid, time_ns: self.time_ns, note, catalog, data };
        (!self.actions.is_empty()).then_some((draft, next))
    }

    /// Makes the data durable.
    pub(crate) fn sync(&self, engine: &LocalEngine) -> Result<(), StorageError> {
        if self.allocated.is_empty() { Ok(()) } else { engine.sync() }
    }

    /// Gives back what `record`, which it became, does not name.
    pub(crate) fn give_rest_back(&self, engine: &LocalEngine, record: &Record) {
        self.give_back(engine, &record.data.iter().map(|d| &d.segment.source).collect());
    }

    /// Makes the data durable and appends the record.
    pub(crate) fn commit(&self, engine: &LocalEngine, draft: &Draft<'_>, head: &State) -> Done {
        let appended = self.sync(engine).and_then(|()| engine.append(draft));
        let settled = |record: Record| engine.settle(record.tid).map(|()| record);
        match appended.and_then(settled) {
            Ok(record) => {
                self.give_rest_back(engine, &record);
                match head.apply(&record) {
                    Ok(state) => Done::Committed(Box::new(state)),
                    Err(error) => Done::Unknown(error),
                }
            }
            Err(error @ StorageError::Unknown { .. }) => Done::Unknown(error),
            Err(error) => {
                self.abort(engine);
                Done::Failed(error)
            }
        }
    }

    /// Gives everything back.
    pub(crate) fn abort(&self, engine: &LocalEngine) {
        self.give_back(engine, &Vec::new());
    }

    fn give_back(&self, engine: &LocalEngine, named: &Vec<&Source>) {
        let named: BTreeSet<Place> =
            named.iter().filter_map(|source| Some(source.extent()?.place())).collect();
        let unnamed = self.allocated.iter().filter(|(place, _)| !named.contains(place));
        unnamed.for_each(|&(place, pages)| engine.free(place, pages));
    }
}

/// What was chosen so far.
struct Choice {
    next: Version,
    touched: BTreeMap<String, PageSet>,
    inline_left: u64,
    // Names that this commit changed: one change for each.
    named: BTreeSet<String>,
}

impl Choice {
    /// The arrays of whole pages along one axis; a program of another kind may have made others.
    fn arrays(&self) -> Vec<&String> {
        let whole = |held: &Held| {
            let len = held.bytes.len();
            len > 0
                && len.is_multiple_of(PAGE_LEN)
                && held.fill == [0]
                && *held.shape == [len as u64]
        };
        self.next.arrays.iter().filter(|(_, held)| whole(held)).map(|(name, _)| name).collect()
    }

    fn array(&self, dice: &mut Dice) -> String {
        let arrays = self.arrays();
        arrays[dice.index(arrays.len())].clone()
    }

    fn pages(&self, name: &str) -> u64 {
        (self.next.arrays[name].bytes.len() / PAGE_LEN) as u64
    }

    /// Whether no page of these was taken before; takes them.
    fn take(&mut self, name: &str, pages: PageRange) -> bool {
        let taken = self.touched.entry(name.to_owned()).or_default();
        let free = !taken.intersects(pages);
        taken.insert(pages);
        free
    }
}

fn bytes_of(pages: PageRange) -> std::ops::Range<usize> {
    usize::try_from(pages.start).unwrap() * PAGE_LEN..usize::try_from(pages.end).unwrap() * PAGE_LEN
}

impl Content {
    fn hole(pages: PageRange) -> Self {
        Self::Stored(Source::Hole, vec![0; usize::try_from(pages.len_bytes()).unwrap()])
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) | Self::Stored(_, bytes) => bytes,
        }
    }
}

impl Action {
    /// Its name among the events.
    fn event(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Remove { .. } => "remove",
            Self::Move { .. } => "move",
            Self::Attribute { .. } => "attribute",
            Self::Tag { .. } => "tag",
            Self::Resize { from, to, .. } if to < from => "shrink",
            Self::Resize { .. } => "grow",
            Self::Data { .. } => "run",
        }
    }

    /// The name it is about.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Create { name, .. } => Some(name),
            Self::Remove { name } | Self::Move { from: name, .. } => Some(name),
            Self::Attribute { name, .. } | Self::Resize { name, .. } => Some(name),
            Self::Tag { .. } | Self::Data { .. } => None,
        }
    }

    /// What it makes of `version`; `None` if it does not fit.
    fn apply(&self, version: &Version) -> Option<Version> {
        let mut next = version.clone();
        match self {
            Self::Create { name, pages } => {
                make_room(&mut next, name)?;
                let len = pages * PAGE_LEN as u64;
                let bytes = vec![0; usize::try_from(len).unwrap()];
                let (shape, attributes, fill) = (vec![len], BTreeMap::new(), vec![0]);
                let held = Held { shape, attributes, fill, bytes };
                next.arrays.insert((*name).to_owned(), Arc::new(held));
            }
            Self::Remove { name } => {
                next.arrays.remove(name)?;
            }
            Self::Move { from, to } => {
                // The old name is taken while the new one is made.
                next.arrays.contains_key(from).then_some(())?;
                make_room(&mut next, to)?;
                let held = next.arrays.remove(from)?;
                next.arrays.insert((*to).to_owned(), held);
            }
            Self::Attribute { name, key, value } => {
                let attributes = &mut Arc::make_mut(next.arrays.get_mut(name)?).attributes;
                match value {
                    Some(value) => attributes.insert((*key).to_owned(), value.clone()),
                    None => attributes.remove(*key),
                };
            }
            Self::Tag { tag, tid: Some(tid) } => {
                next.tags.insert((*tag).to_owned(), *tid);
            }
            Self::Tag { tag, tid: None } => {
                next.tags.remove(*tag)?;
            }
            Self::Resize { name, from, to } => {
                let held = Arc::make_mut(next.arrays.get_mut(name)?);
                (held.bytes.len() as u64 == from * PAGE_LEN as u64).then_some(())?;
                held.bytes.resize(usize::try_from(*to).unwrap() * PAGE_LEN, 0);
                held.shape = vec![held.bytes.len() as u64];
            }
            Self::Data { name, pages, content } => {
                let held = Arc::make_mut(next.arrays.get_mut(name)?);
                held.bytes.get_mut(bytes_of(*pages))?.copy_from_slice(content.bytes());
            }
        }
        Some(next)
    }

    fn catalog_change(&self, ids: &BTreeMap<String, ArrayId>) -> Option<CatalogChange> {
        Some(match self {
            Self::Create { name, pages } => {
                let entry = ArrayEntry {
                    id: ids[*name],
                    shape: Arc::from([pages * PAGE_LEN as u64]),
                    block_bytes: BLOCK_BYTES_MIN,
                    codec: zbigarray::Codec::default(),
                    descriptor: Arc::from("{\"dtype\":\"|u1\"}"),
                    attributes: Attributes::new(),
                    created: Tid::ZERO,
                    changed: Tid::ZERO,
                };
                CatalogChange::CreateArray { name: Arc::from(*name), entry }
            }
            Self::Remove { name } => CatalogChange::Remove { name: Arc::from(name.as_str()) },
            Self::Move { from, to } => {
                CatalogChange::Move { from: Arc::from(from.as_str()), to: Arc::from(*to) }
            }
            Self::Attribute { name, key, value } => {
                let owner = Owner::Array(ids[name]);
                let value = value.as_deref().map(Arc::from);
                CatalogChange::Attribute { owner, key: Arc::from(*key), value }
            }
            Self::Tag { tag, tid } => {
                CatalogChange::Tag { tag: Arc::from(*tag), tid: tid.map(Tid) }
            }
            Self::Resize { name, to, .. } => {
                let shape = Arc::from([to * PAGE_LEN as u64]);
                CatalogChange::Shape { array: ids[name], shape, layout: false }
            }
            Self::Data { .. } => return None,
        })
    }

    fn data_change<'a>(&'a self, ids: &BTreeMap<String, ArrayId>) -> Option<DraftChange<'a>> {
        let (name, pages, source) = match self {
            Self::Data { name, pages, content: Content::Inline(bytes) } => {
                (name, *pages, DraftSource::Inline(bytes))
            }
            Self::Data { name, pages, content: Content::Stored(source, _) } => {
                (name, *pages, DraftSource::Stored(source.clone()))
            }
            // What is cut off must not come back when the array grows again.
            Self::Resize { name, from, to } if to < from => {
                (name, PageRange::new(*to, *from), DraftSource::Stored(Source::Hole))
            }
            _ => return None,
        };
        Some(DraftChange { array: ids[name], pages, source, carried: false })
    }
}

/// Makes the groups above `name`; `None` if it is taken or lies below an array.
fn make_room(version: &mut Version, name: &str) -> Option<()> {
    let Version { arrays, groups, .. } = version;
    // A program that keeps no account of groups may have made the one that one name is.
    let is_group = groups.as_ref().map_or(name == "h", |groups| groups.contains(name));
    let parents: Vec<&str> = name.match_indices('/').map(|(at, _)| &name[..at]).collect();
    let below_an_array = parents.iter().any(|parent| arrays.contains_key(*parent));
    if arrays.contains_key(name) || is_group || below_an_array {
        return None;
    }
    let made = parents.into_iter().map(str::to_owned);
    groups.as_mut().into_iter().for_each(|groups| groups.extend(made.clone()));
    Some(())
}
