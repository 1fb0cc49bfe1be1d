//! Pages that are loaded when they are touched, while they are put aside, placed anew and closed.
//!
//! ```text
//! touchers   read a word of a chunk     of the version placed last, or one that came meanwhile
//! placer     next version, placed       loads of the one before are under way
//! aside      puts chunks aside          touchers find the same again
//! ```
//!
//! A slot whose pin is dropped is overwritten at once, as the next content would: who still sees it
//! sees that.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::sync::{Mutex, RwLock};
use shuttle::thread;
use zbigarray::units::PageRange;
use zbigarray::vm::mapping::{Advice, Content};
use zbigarray::vm::{
    Access, CHUNK_PAGES, LoadError, Loaded, MapError, Mapping, PageSource, Pager, Run, VmaBudget,
};

const CHUNKS: u64 = 3;
const STEPS: usize = 3;
const SLOT_BYTES: u64 = 2 << 20;
/// More than any schedule uses.
const SLOTS_MAX: u64 = 100;
/// What a slot says that nobody uses.
const GIVEN_BACK: u64 = 1;

/// Content that begins with its version and its chunk, in slots of one file.
struct Versions {
    file: Arc<OwnedFd>,
    slots: Mutex<Vec<bool>>,
    // The newest version, and the newest that is placed for certain.
    now: AtomicU64,
    placed: AtomicU64,
    may_fail: AtomicBool,
}

struct Slot(Arc<Versions>, usize);

impl Versions {
    fn new() -> Arc<Self> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SLOTS_MAX * SLOT_BYTES).unwrap();
        let file = Arc::new(file.into());
        let (slots, may_fail) = (Mutex::default(), AtomicBool::new(false));
        let (now, placed) = (AtomicU64::new(1), AtomicU64::new(1));
        Arc::new(Self { file, slots, now, placed, may_fail })
    }

    fn write(&self, slot: usize, word: u64) {
        let file = File::from(self.file.try_clone().unwrap());
        file.write_all_at(&word.to_le_bytes(), slot as u64 * SLOT_BYTES).unwrap();
    }

    fn used_count(&self) -> usize {
        self.slots.lock().unwrap().iter().filter(|is_used| **is_used).count()
    }
}

impl Slot {
    fn with(versions: &Arc<Versions>, word: u64) -> Self {
        let mut slots = versions.slots.lock().unwrap();
        let free = slots.iter().position(|is_used| !is_used);
        let slot = free.unwrap_or_else(|| {
            slots.push(false);
            slots.len() - 1
        });
        slots[slot] = true;
        drop(slots);
        versions.write(slot, word);
        Self(Arc::clone(versions), slot)
    }

    fn offset_bytes(&self) -> u64 {
        self.1 as u64 * SLOT_BYTES
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.write(self.1, GIVEN_BACK);
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)[self.1] = false;
    }
}

struct Source(Arc<Versions>);

impl PageSource for Source {
    fn load(&self, pages: PageRange) -> Result<Loaded, LoadError> {
        let versions = &self.0;
        let word = versions.now.load(Ordering::SeqCst) * 16 + pages.start / CHUNK_PAGES;
        if versions.may_fail.load(Ordering::SeqCst) && thread_rng().gen_ratio(1, 3) {
            return Err(Arc::new(std::fmt::Error));
        }
        let slot = Slot::with(versions, word);
        let (file, offset_bytes) = (Arc::clone(&versions.file), slot.offset_bytes());
        Ok(Loaded { file, offset_bytes, pin: Box::new(slot) })
    }
}

#[derive(Clone)]
struct World {
    versions: Arc<Versions>,
    pager: Arc<Pager>,
    mapping: Arc<RwLock<Mapping>>,
    base: usize,
    // What is mapped at once.
    eager: Arc<Mutex<Vec<Slot>>>,
}

fn all() -> PageRange {
    PageRange::new(0, CHUNKS * CHUNK_PAGES)
}

fn any_chunk() -> u64 {
    thread_rng().gen_range(0..CHUNKS)
}

impl World {
    fn new(budget: u64) -> Self {
        let (versions, pager) = (Versions::new(), Pager::new().unwrap());
        let budget = Arc::new(VmaBudget::with_max(budget));
        let new = Mapping::new(all().end, Access::ReadOnly, Advice::Blocks, &budget);
        let mut mapping = new.unwrap();
        mapping.set_source(Arc::new(Source(Arc::clone(&versions))), &pager);
        mapping.place(&[Run { at: all(), content: Content::Lazy }]).unwrap();
        let base = mapping.bytes(all()).as_ptr().addr();
        let mapping = Arc::new(RwLock::new(mapping));
        Self { versions, pager, mapping, base, eager: Arc::default() }
    }

    /// Reads the word of a chunk, which must be of a version that it may be of.
    fn touch(&self, chunk: u64) {
        let least = self.versions.placed.load(Ordering::SeqCst);
        let word = self.pager.touch(self.base + (chunk * SLOT_BYTES) as usize);
        let most = self.versions.now.load(Ordering::SeqCst);
        let (version, of) = (word / 16, word % 16);
        assert!(word != GIVEN_BACK, "chunk {chunk} shows a slot that was given back");
        assert_eq!(of, chunk, "another chunk is shown");
        assert!((least..=most).contains(&version), "{least} <= {version} <= {most}");
    }

    /// Shows the next version, and sometimes one chunk of it at once.
    fn place_next(&self) {
        let mut mapping = self.mapping.write().unwrap();
        let next = self.versions.now.fetch_add(1, Ordering::SeqCst) + 1;
        let mut runs: Vec<Run<'_>> = (0..CHUNKS)
            .map(|chunk| PageRange::at(chunk * CHUNK_PAGES, CHUNK_PAGES))
            .map(|at| Run { at, content: Content::Lazy })
            .collect();
        let mut eager = self.eager.lock().unwrap();
        if thread_rng().gen_bool(0.5) {
            let chunk = any_chunk();
            let slot = Slot::with(&self.versions, next * 16 + chunk);
            let (file, offset_bytes) = (self.versions.file.as_fd(), slot.offset_bytes());
            runs[chunk as usize].content = Content::File { file, offset_bytes };
            eager.push(slot);
        }
        mapping.place(&runs).unwrap();
        self.versions.placed.store(next, Ordering::SeqCst);
    }

    fn run(&self, roles: &[fn(&Self)]) {
        let threads: Vec<_> = roles
            .iter()
            .map(|&role| {
                let world = self.clone();
                thread::spawn(move || (0..STEPS).for_each(|_| role(&world)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    /// All is given back, also what is being loaded at this moment.
    fn close(self) {
        let Self { versions, pager, mapping, eager, .. } = self;
        drop((mapping, pager));
        eager.lock().unwrap().clear();
        while versions.used_count() > 0 {
            thread::yield_now();
        }
    }
}

fn toucher(world: &World) {
    world.touch(any_chunk());
}

fn aside(world: &World) {
    world.pager.put_one_aside();
}

fn placer(world: &World) {
    world.place_next();
}

fn ensurer(world: &World) {
    let chunk = any_chunk();
    let ensured = world.mapping.read().unwrap().ensure(PageRange::at(chunk * CHUNK_PAGES, 1));
    let may_fail = world.versions.may_fail.load(Ordering::SeqCst);
    assert!(matches!(ensured, Ok(()) | Err(MapError::NotLoaded { .. })), "{ensured:?}");
    assert!(may_fail || ensured.is_ok(), "{ensured:?}");
}

fn ahead(world: &World) {
    world.mapping.read().unwrap().will_need(PageRange::at(any_chunk() * CHUNK_PAGES, 1));
}

/// Faults and evictions, and a close while some are loaded ahead.
pub(crate) fn touched_and_put_aside() {
    let world = World::new(100);
    world.run(&[toucher, toucher, aside, ahead]);
    world.close();
}

/// With kernel mappings for one chunk only.
pub(crate) fn touched_where_one_has_room() {
    let world = World::new(3);
    world.run(&[toucher, toucher, ensurer]);
    world.close();
}

/// Commits, which place another content.
pub(crate) fn touched_while_placed_anew() {
    let world = World::new(100);
    world.run(&[toucher, toucher, placer, ahead]);
    world.run(&[toucher, aside, placer]);
    world.close();
}

/// Loads that fail now and then.
pub(crate) fn waited_for_and_failing() {
    let world = World::new(100);
    world.versions.may_fail.store(true, Ordering::SeqCst);
    world.run(&[ensurer, ensurer, ahead, aside]);
    world.versions.may_fail.store(false, Ordering::SeqCst);
    world.run(&[toucher, ensurer, ensurer]);
    world.close();
}
