//! What a crash may leave of a history of changes.
//!
//! ```text
//! history   create a | write a | sync a | rename a b | write b | crash
//! base                 write a                                    decided, nothing before it open
//! open      create a            |         rename a b | write b    each survives or not
//! ```
//!
//! # Invariants
//!
//! 1. A change is decided when its file, or the directory of its name, was synced after it.
//! 2. What was written before a failed sync is not made durable by a later sync that succeeds; the
//!    length it gave the file is.
//! 3. Changes of one file, and of the names of one directory, are applied in their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::content::Content;
use super::{Change, SECTOR_BYTES, Survival, parent};

/// The files and names of a disk.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) names: OrdMap<Arc<str>, usize>,
    pub(super) directories: OrdSet<Arc<str>>,
    pub(super) content: Vec<Content>,
}

/// What happened to the bytes of a write whose sync failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// No sync failed.
    None,
    /// The disk may have them or not, whatever is synced later.
    Unknown,
    /// They are gone.
    Certain,
}

/// A change that is not yet part of the base.
#[derive(Clone)]
struct Open {
    number: usize,
    change: Arc<Change>,
    decided: bool,
    loss: Loss,
    // Of a write that was lost: whether the length it gave the file is durable.
    len_decided: bool,
}

/// A moment at which the power may fail.
#[derive(Clone)]
pub struct CrashPoint {
    base: Image,
    open: Vec<Open>,
    number: usize,
}

impl CrashPoint {
    pub(super) fn beginning(base: Image) -> Self {
        Self { base, open: Vec::new(), number: 0 }
    }

    /// Number of changes before the crash.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The changes that may survive or not, in order, with their numbers.
    pub fn undecided(&self) -> impl Iterator<Item = (usize, &Change)> {
        let open = self.open.iter().filter(|open| !open.decided);
        open.map(|open| (open.number, &*open.change))
    }

    /// The files and names as they may be after the crash; see
    /// [`Simulated::crash_image`](super::Simulated::crash_image).
    pub(super) fn image(&self, mut choose: impl FnMut(usize, &Change) -> Survival) -> Image {
        let mut image = self.base.clone();
        for open in &self.open {
            let survival = match open.decided {
                true => Survival::Kept,
                false => open.survival(choose(open.number, &open.change)),
            };
            if survival != Survival::Dropped {
                image.apply(&open.change, &survival);
            }
        }
        let orphan = |path: &str| {
            let parent = parent(path);
            !parent.is_empty() && !image.directories.contains(parent)
        };
        let orphans: Vec<_> = image.names.keys().filter(|path| orphan(path)).cloned().collect();
        for path in orphans {
            image.names.remove(&path);
        }
        image
    }

    /// Takes the next change of the history in.
    pub(super) fn advance(&mut self, change: &Arc<Change>) {
        let number = self.number;
        self.number += 1;
        match &**change {
            Change::Sync { file, failed: false, .. } => {
                let of_file = |open: &&mut Open| open.change.content_of() == Some(*file);
                for open in self.open.iter_mut().filter(of_file) {
                    open.decided |= open.loss == Loss::None;
                    open.len_decided = true;
                }
                self.settle();
            }
            Change::Sync { file, failed: true, lost } => {
                let loss = if *lost { Loss::Certain } else { Loss::Unknown };
                let is_written = |open: &&mut Open| {
                    !open.decided
                        && open.loss == Loss::None
                        && matches!(&*open.change, Change::Write { file: f, .. } if f == file)
                };
                self.open.iter_mut().filter(is_written).for_each(|open| open.loss = loss);
            }
            Change::SyncDir { path } => {
                let inside = |open: &&mut Open| open.change.names_of() == Some(path);
                self.open.iter_mut().filter(inside).for_each(|open| open.decided = true);
                self.settle();
            }
            _ => {
                let change = Arc::clone(change);
                let (decided, loss, len_decided) = (false, Loss::None, false);
                self.open.push(Open { number, change, decided, loss, len_decided });
            }
        }
    }

    /// Moves what is decided into the base, as far as invariant 3 lets it.
    fn settle(&mut self) {
        let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
        let base = &mut self.base;
        self.open.retain(|open| {
            let file = open.change.content_of();
            let directory = open.change.names_of().map(str::to_owned);
            let blocked = file.is_some_and(|file| files.contains(&file))
                || directory.as_ref().is_some_and(|name| directories.contains(name));
            if open.decided && !blocked {
                base.apply(&open.change, &Survival::Kept);
                return false;
            }
            files.extend(file);
            directories.extend(directory);
            true
        });
    }
}

impl Open {
    /// Keeps invariant 2.
    fn survival(&self, chosen: Survival) -> Survival {
        let nothing_but_len = Survival::Torn(Vec::new());
        match (self.loss, chosen) {
            (Loss::None, chosen) => chosen,
            (_, Survival::Dropped) if !self.len_decided => Survival::Dropped,
            (Loss::Certain, _) | (_, Survival::Dropped) => nothing_but_len,
            (Loss::Unknown, chosen) => chosen,
        }
    }
}

impl Image {
    pub(super) fn apply(&mut self, change: &Change, survival: &Survival) {
        match change {
            Change::CreateDir { path } => {
                self.directories.insert(Arc::from(path.as_str()));
            }
            Change::Create { path, file } => {
                self.content_mut(*file);
                self.names.insert(Arc::from(path.as_str()), *file);
            }
            Change::Rename { from, to, file } => {
                if self.names.get(from.as_str()) == Some(file) {
                    self.names.remove(from.as_str());
                }
                self.content_mut(*file);
                self.names.insert(Arc::from(to.as_str()), *file);
            }
            Change::Remove { path } => {
                self.names.remove(path.as_str());
            }
            Change::Write { file, offset, bytes } => {
                self.write(*file, *offset, bytes, survival);
            }
            Change::SetLen { file, len } => self.content_mut(*file).set_len(*len),
            Change::Punch { file, offset, len } => self.content_mut(*file).punch(*offset, *len),
            Change::Sync { .. } | Change::SyncDir { .. } => {}
        }
    }

    fn content_mut(&mut self, file: usize) -> &mut Content {
        if self.content.len() <= file {
            self.content.resize(file + 1, Content::default());
        }
        &mut self.content[file]
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8], survival: &Survival) {
        let content = self.content_mut(file);
        let Survival::Torn(kept) = survival else { return content.write(offset, bytes) };
        content.extend(offset + bytes.len() as u64);
        let sector_bytes = SECTOR_BYTES as u64;
        let first = offset / sector_bytes;
        for (sector, _) in (first..).zip(kept).filter(|(_, kept)| **kept) {
            let inside = |at: u64| {
                let at = at.saturating_sub(offset);
                usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len())
            };
            let (from, to) = (inside(sector * sector_bytes), inside((sector + 1) * sector_bytes));
            content.write(offset + from as u64, &bytes[from..to]);
        }
    }
}
