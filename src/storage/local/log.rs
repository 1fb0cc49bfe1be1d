//! The commit log in its files: append, read again, roll, replay.
//!
//! ```text
//! 0000000000.log  | header | record 1 | record 2 |
//! 0000000001.log  | header | record 3 | record 4 |<- tail: the next record goes here
//!                                                 |.... space that lies ready ....|
//! ```
//!
//! # Invariants
//!
//! 1. Disk space is set aside before a record is written, so a full disk is noticed while nothing
//!    has changed.
//! 2. A record is written by one call while its writer holds the commit lock and has read all that
//!    lies before it. It counts when a sync that began later has ended well.
//! 3. After a failed attempt the file is cut to what it was and the cut is synced before anything
//!    else is written there: old and new sectors never lie side by side.
//! 4. A log file is durable up to its last record before the next file exists.
//! 5. At most `UNSETTLED_MAX` records lie after the newest one that is known to be durable.
//!
//! # Failure
//!
//! If the disk is full: [`StorageError::NoSpace`], nothing changed. If a write, a sync or the cut
//! fails: [`StorageError::Unknown`], and the latch is shut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::StoreId;
use super::codec::{self, Malformed, RecordHead};
use super::frame::{self, Found, Frame, FrameContent, FrameKind, NewFrame, Seal};
use super::log_header::{LOG_FILE, LogHeader, log_path};
use super::members::Members;
use crate::storage::StorageError;
use crate::storage::backend::{Access, Files, Growth, StoreFile};
use crate::storage::extent::{Extent, Place, Segment, Source};
use crate::storage::planted::{Bug, planted};
use crate::storage::record::{DataChange, Draft, DraftSource, Record};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::units::{PAGE_BYTES, PAGE_LEN, Tid};

/// Records kept in memory: what a commit is checked against is nearly always among them.
const RECENT_MAX: usize = 256;
/// Space set aside in one step.
const ALLOCATE_STEP_BYTES: u64 = 1 << 20;

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub(super) file: u32,
    pub(super) page: u64,
}

/// The place in the log after some commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tail {
    /// The commit.
    pub(super) tid: Tid,
    /// Where the next record goes.
    pub(super) position: Position,
    /// The chain value of the frame before it.
    pub(super) chain: u32,
}

/// The chain of files that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chain {
    /// Number of its first file.
    pub(super) first: u32,
    /// Number of its last file.
    pub(super) last: u32,
    /// The oldest state that can be loaded.
    pub(super) oldest: Tid,
}

/// Most records that wait for a sync.
pub(super) const UNSETTLED_MAX: u64 = 1024;

struct Inner {
    chain: Chain,
    tail: Tail,
    // The record with tid `known.0 + 1 + i` lies at `positions[i]`; the tail ends the list.
    known: Tid,
    positions: Vec<Tail>,
    recent: VecDeque<Arc<Record>>,
    // End of the space that lies ready in the last file.
    allocated_end_bytes: u64,
    // Where the newest checkpoint stands.
    checkpointed: Tail,
}

/// The commit log of a store.
pub(super) struct Log {
    files: Files,
    store: StoreId,
    roll_bytes: u64,
    inner: Mutex<Inner>,
    // The newest commit that is known to be durable.
    durable: AtomicU64,
    // Number of the first file of the chain, for who must not wait.
    generation: AtomicU64,
    // Open files of the chain, and of former chains while pinned states map them.
    open: RwLock<BTreeMap<u32, StoreFile>>,
}

/// What reading on came to.
pub(super) enum ReadOn {
    /// The end, or the commit asked for, after these records.
    Here(Vec<Arc<Record>>),
    /// Another process packed the log: it goes on in a chain of its own.
    NewChain,
}

/// What walking over the log came to.
pub(super) enum Step {
    /// A record, where the next one is, and the newest commit its writer knew to be durable.
    Record(Arc<Record>, Tail, Tid),
    /// The end of the log: where the next record goes.
    End(Tail),
    /// A frame that is not whole.
    Broken {
        /// Where.
        at: Position,
        /// `None` if it is torn, else what is wrong with it.
        damage: Option<StorageError>,
        /// Pages of the frame, if it says so.
        pages: Option<u64>,
    },
}

impl Log {
    /// The log of chain `chain`, known up to `tail` and not before it.
    pub(super) fn new(
        files: Files,
        store: StoreId,
        roll_bytes: u64,
        chain: Chain,
        tail: Tail,
    ) -> Self {
        let inner = Inner {
            chain,
            tail,
            known: tail.tid,
            positions: Vec::new(),
            recent: VecDeque::new(),
            allocated_end_bytes: 0,
            checkpointed: tail,
        };
        let open = RwLock::new(BTreeMap::new());
        let (inner, durable) = (Mutex::new(inner), AtomicU64::new(tail.tid.0));
        let generation = AtomicU64::new(u64::from(chain.first));
        Self { files, store, roll_bytes, inner, durable, generation, open }
    }

    pub(super) fn seal(&self, file: u32) -> Seal {
        Seal::new(&self.store, file)
    }

    /// Makes the names of the log files durable.
    pub(super) fn sync_names(&self) -> Result<(), StorageError> {
        self.files.sync_dir("log")
    }

    /// Makes durable what another process gave names to, which may have died before it did so.
    fn require_named(&self) -> Result<(), StorageError> {
        let writes = self.files.is_writable() && !self.files.latch().is_shut();
        if writes && !planted(Bug::NewFileTrusted) { self.sync_names() } else { Ok(()) }
    }

    pub(super) fn chain(&self) -> Chain {
        self.inner.lock().chain
    }

    pub(super) fn tail(&self) -> Tail {
        self.inner.lock().tail
    }

    /// The number of the first file of the chain. Never waits.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest commit that is known to be durable.
    pub(super) fn durable(&self) -> Tid {
        Tid(self.durable.load(Ordering::Acquire))
    }

    /// Notes that commit `tid` is durable.
    pub(super) fn set_durable(&self, tid: Tid) {
        self.durable.fetch_max(tid.0, Ordering::AcqRel);
    }

    /// Log file `number`, of this chain or of a former one that is still open.
    pub(super) fn file(&self, number: u32) -> Result<StoreFile, StorageError> {
        if let Some(file) = self.open.read().get(&number) {
            return Ok(file.clone());
        }
        let file = self.files.open(&log_path(number), self.files.access())?;
        Ok(self.open.write().entry(number).or_insert(file).clone())
    }

    /// Says whether a record may name extents inside the log.
    ///
    /// # Errors
    ///
    /// [`StorageError::Packed`] if they lie in a file that was packed away.
    pub(super) fn admit<'a>(
        &self,
        sources: impl Iterator<Item = &'a Source>,
    ) -> Result<(), StorageError> {
        let Chain { first, last, .. } = self.chain();
        let mut places = sources.filter_map(Source::extent).map(|extent| extent.place());
        let gone = |place: &Place| !(first..=last).contains(&(place.file & !LOG_FILE));
        match places.find(|place| place.in_log() && gone(place)) {
            Some(place) => Err(StorageError::Packed { place }),
            None => Ok(()),
        }
    }

    /// Appends a record, which is not durable yet; see
    /// [`CommitLog::append`](crate::storage::engine::CommitLog::append).
    pub(super) fn append(&self, draft: &Draft<'_>) -> Result<Record, StorageError> {
        let mut inner = self.inner.lock();
        assert!(draft.tid == inner.tail.tid.next(), "a record follows the head of the log");
        if self.files.latch().is_shut() {
            return Err(StorageError::Poisoned);
        }
        let encoded = codec::encode_draft(draft);
        let seal = self.seal(inner.tail.position.file);
        let mut frame = framed(&seal, &inner.tail, self.durable(), draft, &encoded);
        let end = inner.tail.position.page.saturating_add(frame.pages());
        if end * PAGE_BYTES > self.roll_bytes && inner.tail.position.page > 1 {
            self.roll(&mut inner)?;
            let seal = self.seal(inner.tail.position.file);
            frame = framed(&seal, &inner.tail, self.durable(), draft, &encoded);
        }
        let tail = inner.tail;
        let file = self.file(tail.position.file)?;
        self.set_aside(&mut inner, &file, frame.pages() * PAGE_BYTES)?;
        self.write(&mut inner, &file, draft.tid, &frame, &encoded.inline)?;
        let position = Position { page: tail.position.page + frame.pages(), ..tail.position };
        let record = recorded(draft, &frame, tail.position);
        let after = Tail { tid: draft.tid, position, chain: frame.chain };
        inner.advance(Arc::new(record.clone()), after);
        Ok(record)
    }

    /// Keeps invariant 1.
    fn set_aside(&self, inner: &mut Inner, file: &StoreFile, len: u64) -> Result<(), StorageError> {
        let start = inner.tail.position.page * PAGE_BYTES;
        if start + len <= inner.allocated_end_bytes {
            return Ok(());
        }
        let step = len.next_multiple_of(ALLOCATE_STEP_BYTES).min(self.roll_bytes.max(len));
        let got = match file.allocate(start, step, Growth::KeepLen) {
            Err(StorageError::NoSpace { .. }) => {
                file.allocate(start, len, Growth::KeepLen)?;
                len
            }
            other => other.map(|()| step)?,
        };
        inner.allocated_end_bytes = start + got;
        Ok(())
    }

    fn write(
        &self,
        inner: &mut Inner,
        file: &StoreFile,
        tid: Tid,
        frame: &NewFrame,
        inline: &[&[u8]],
    ) -> Result<(), StorageError> {
        let start = inner.tail.position.page * PAGE_BYTES;
        let unknown = |source| StorageError::Unknown { tid, source: Box::new(source) };
        let mut parts = Vec::with_capacity(1 + inline.len());
        parts.push(frame.metadata.as_slice());
        parts.extend_from_slice(inline);
        match file.write_at(&parts, start) {
            Err(full @ StorageError::NoSpace { .. }) => {
                // Invariant 3. The cut gives the space behind the end back as well.
                inner.allocated_end_bytes = 0;
                let cut = file.set_len(start);
                let synced = match planted(Bug::TakenBackUnsynced) {
                    true => cut,
                    false => cut.and_then(|()| file.sync()),
                };
                synced.map_err(|error| {
                    self.files.latch().shut();
                    unknown(error)
                })?;
                Err(full)
            }
            other => other.map_err(unknown),
        }
    }

    /// Makes every record up to the tail durable and returns the newest of them.
    pub(super) fn sync(&self) -> Result<Tid, StorageError> {
        // What lies in files before this one is durable (invariant 4).
        let tail = self.tail();
        if !planted(Bug::LogNotSynced) {
            self.file(tail.position.file)?.sync()?;
        }
        self.set_durable(tail.tid);
        Ok(tail.tid)
    }

    /// Writes the records after the newest durable one again, the same bytes: a sync of them has
    /// failed, and only what is written anew goes to the disk with the next.
    pub(super) fn write_again(&self) -> Result<(), StorageError> {
        let (durable, tail) = (self.durable(), self.tail());
        if durable >= tail.tid {
            return Ok(());
        }
        let before = self.tail_after(durable)?.position;
        let start = if before.file == tail.position.file { before.page } else { 1 };
        let file = self.file(tail.position.file)?;
        write_again(&file, start, tail.position.page)
    }

    /// Begins the next file, which is complete before it has its name (invariant 4).
    fn roll(&self, inner: &mut Inner) -> Result<(), StorageError> {
        let number = next_number(inner.tail.position.file)?;
        let header = LogHeader {
            file: number,
            chain_base: inner.chain.first,
            base: inner.tail.tid,
            previous: inner.tail.chain,
            has_state: false,
        };
        // Invariant 4.
        if self.durable() < inner.tail.tid {
            self.file(inner.tail.position.file)?.sync()?;
            self.set_durable(inner.tail.tid);
        }
        create_log_file(&self.files, &header.encode(&self.store), number)?;
        inner.chain.last = number;
        inner.tail.position = Position { file: number, page: 1 };
        inner.allocated_end_bytes = 0;
        Ok(())
    }

    /// The records after `after` up to `until`.
    pub(super) fn records(&self, after: Tid, until: Tid) -> Result<Vec<Arc<Record>>, StorageError> {
        let mut inner = self.inner.lock();
        let (oldest, head) = (inner.chain.oldest, inner.tail.tid);
        if after < oldest {
            return Err(StorageError::Forgotten { tid: after, oldest });
        }
        if until > head {
            return Err(StorageError::NoCommit { tid: until, head });
        }
        if after < inner.known && after < until {
            self.locate(&mut inner)?;
        }
        let mut records = Vec::new();
        let mut tid = after;
        while tid < until {
            tid = tid.next();
            records.push(match inner.recent(tid) {
                Some(record) => record,
                None => self.read(&inner, tid)?,
            });
        }
        Ok(records)
    }

    /// The place in the log after commit `tid`, which is not above the head.
    pub(super) fn tail_after(&self, tid: Tid) -> Result<Tail, StorageError> {
        let mut inner = self.inner.lock();
        if tid < inner.known {
            self.locate(&mut inner)?;
        }
        match inner.after(tid) {
            Some(tail) => Ok(tail),
            None => Err(StorageError::NoCommit { tid, head: inner.tail.tid }),
        }
    }

    fn read(&self, inner: &Inner, tid: Tid) -> Result<Arc<Record>, StorageError> {
        let before = inner.after(Tid(tid.0 - 1));
        let Some(before) = before else {
            return Err(StorageError::NoCommit { tid, head: inner.tail.tid });
        };
        match self.step(&before, inner.chain.last, false)? {
            Step::Record(record, ..) => Ok(record),
            Step::End(_) | Step::Broken { damage: None, .. } => {
                let file = self.file(before.position.file)?;
                let offset = before.position.page.saturating_mul(PAGE_BYTES);
                Err(file.damaged(offset, format!("commit record {tid} is missing")))
            }
            Step::Broken { damage: Some(damage), .. } => Err(damage),
        }
    }

    /// Finds the records that were made before this log was opened.
    fn locate(&self, inner: &mut Inner) -> Result<(), StorageError> {
        let (mut at, _) = self.beginning(inner.chain.first, inner.chain.oldest)?;
        let mut positions = Vec::new();
        while at.tid < inner.known {
            positions.push(at);
            let before = at;
            at = match self.step(&before, inner.chain.last, false)? {
                Step::Record(_, next, _) => next,
                Step::Broken { damage: Some(damage), .. } => return Err(damage),
                Step::End(_) | Step::Broken { damage: None, .. } => {
                    let file = self.file(before.position.file)?;
                    let offset = before.position.page.saturating_mul(PAGE_BYTES);
                    let what = format!("commit record {} is missing", before.tid.next());
                    return Err(file.damaged(offset, what));
                }
            };
        }
        positions.append(&mut inner.positions);
        inner.positions = positions;
        inner.known = inner.chain.oldest;
        Ok(())
    }

    /// The place of the first record of the chain that begins with file `first`, and the frame of
    /// the whole state before it, if there is one.
    pub(super) fn beginning(
        &self,
        first: u32,
        oldest: Tid,
    ) -> Result<(Tail, Option<Frame>), StorageError> {
        let file = self.file(first)?;
        let header = LogHeader::read(&file, &self.store, first)?;
        let start = Tail { tid: oldest, position: Position { file: first, page: 1 }, chain: 0 };
        if !header.has_state {
            return Ok((start, None));
        }
        match frame::read_frame(&file, &self.seal(first), 1, file.len()?, false)? {
            Found::Whole(frame) if frame.head.kind == FrameKind::Base => {
                let page = 1 + frame.head.pages();
                let position = Position { file: first, page };
                Ok((Tail { position, chain: frame.chain, ..start }, Some(frame)))
            }
            Found::Damaged { offset_bytes, what } => Err(file.damaged(offset_bytes, what)),
            _ => Err(file.damaged(PAGE_BYTES, "the state at the beginning of the log is damaged")),
        }
    }

    /// Reads the record at `at`, in this file or the next one up to file `last`.
    pub(super) fn step(
        &self,
        at: &Tail,
        last: u32,
        check_inline: bool,
    ) -> Result<Step, StorageError> {
        let mut at = *at;
        loop {
            let Position { file: number, page } = at.position;
            let file = self.file(number)?;
            let found =
                frame::read_frame(&file, &self.seal(number), page, file.len()?, check_inline)?;
            match found {
                Found::End if number < last => at = self.next_file(&at)?,
                Found::End => return Ok(Step::End(at)),
                Found::Whole(frame) => return Ok(self.decoded(&file, &at, &frame)),
                Found::Torn(head) => {
                    let pages = head.as_ref().map(frame::FrameHead::pages);
                    // Invariant 4: only the last file can end in an unfinished record.
                    let damage = (number < last).then(|| {
                        file.damaged(page.saturating_mul(PAGE_BYTES), "a commit record is torn")
                    });
                    return Ok(Step::Broken { at: at.position, damage, pages });
                }
                Found::Damaged { offset_bytes, what } => {
                    let damage = Some(file.damaged(offset_bytes, what));
                    return Ok(Step::Broken { at: at.position, damage, pages: None });
                }
            }
        }
    }

    fn next_file(&self, at: &Tail) -> Result<Tail, StorageError> {
        let number = next_number(at.position.file)?;
        let file = self.file(number)?;
        let header = LogHeader::read(&file, &self.store, number)?;
        if header.has_state || header.base != at.tid || header.previous != at.chain {
            return Err(file.damaged(0, format!("the file does not follow commit {}", at.tid)));
        }
        Ok(Tail { position: Position { file: number, page: 1 }, ..*at })
    }

    fn decoded(&self, file: &StoreFile, at: &Tail, frame: &Frame) -> Step {
        let Position { file: number, page } = at.position;
        let broken = |what: String| Step::Broken {
            at: at.position,
            damage: Some(file.damaged(page.saturating_mul(PAGE_BYTES), what)),
            pages: Some(frame.head.pages()),
        };
        let head = &frame.head;
        if head.kind != FrameKind::Commit || head.tid.0 != at.tid.0.wrapping_add(1) {
            return broken(format!("commit record {} does not follow commit {}", head.tid, at.tid));
        }
        if head.previous != at.chain {
            return broken(format!("commit record {} follows another record", head.tid));
        }
        let inline_at =
            Place { file: LOG_FILE | number, page: page.saturating_add(head.metadata_pages()) };
        let about = RecordHead {
            tid: head.tid,
            base: head.base,
            time_ns: head.time_ns,
            inline_at,
            inline_sums: &frame.inline_sums,
        };
        match codec::decode_record(&about, &frame.body) {
            Err(Malformed(what)) => broken(format!("commit record {}: {what}", head.tid)),
            Ok(record) => {
                let position = Position { file: number, page: page + head.pages() };
                let tail = Tail { tid: head.tid, position, chain: frame.chain };
                Step::Record(Arc::new(record), tail, head.durable)
            }
        }
    }

    /// Takes a record in that was found after the tail.
    pub(super) fn take_in(&self, record: &Arc<Record>, tail: Tail) {
        let mut inner = self.inner.lock();
        inner.chain.last = tail.position.file;
        inner.advance(Arc::clone(record), tail);
    }

    /// Goes on to where the next record goes, which may be the beginning of a file.
    pub(super) fn take_in_end(&self, tail: Tail) {
        let mut inner = self.inner.lock();
        inner.chain.last = tail.position.file;
        inner.tail = tail;
    }

    /// Notes that a checkpoint as of `tail` exists.
    pub(super) fn set_checkpointed(&self, tail: Tail) {
        self.inner.lock().checkpointed = tail;
    }

    /// Bytes of log after the newest checkpoint; of files in between the full length is assumed.
    pub(super) fn bytes_since_checkpoint(&self) -> u64 {
        let inner = self.inner.lock();
        let (from, to) = (inner.checkpointed.position, inner.tail.position);
        let files = u64::from(to.file.saturating_sub(from.file));
        (files * self.roll_bytes + to.page * PAGE_BYTES).saturating_sub(from.page * PAGE_BYTES)
    }

    /// Whether a record that knew commit `tid` to be durable lies in file `number` after page
    /// `after`: then what is broken before it was durable once and is damaged.
    pub(super) fn has_successor(
        &self,
        tid: Tid,
        number: u32,
        after: u64,
    ) -> Result<bool, StorageError> {
        let (file, seal) = (self.file(number)?, self.seal(number));
        let len = file.len()?;
        let mut sector = [0; frame::SECTOR_BYTES];
        for page in after..len.div_ceil(PAGE_BYTES) {
            let read = file.read_at(&mut sector, page * PAGE_BYTES)?;
            if let Ok(Some(head)) = frame::frame_head(&seal, page, &sector[..read])
                && head.durable >= tid
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes over to another chain, which holds `records` after the places `tails`, and keeps of
    /// the former files only those in `pinned` open.
    pub(super) fn switch(
        &self,
        chain: Chain,
        tails: &[Tail],
        records: &[Arc<Record>],
        pinned: &BTreeSet<u32>,
    ) {
        // What is mapped or may be mapped must be open before its name goes.
        for &number in pinned {
            let _ = self.file(number);
        }
        let Some((&tail, before)) = tails.split_last() else { panic!("a log has an end") };
        let mut inner = self.inner.lock();
        let first_recent = records.len().saturating_sub(RECENT_MAX);
        *inner = Inner {
            chain,
            tail,
            known: chain.oldest,
            positions: before.to_vec(),
            recent: records[first_recent..].iter().cloned().collect(),
            allocated_end_bytes: 0,
            checkpointed: tails[0],
        };
        self.generation.store(u64::from(chain.first), Ordering::Release);
        drop(inner);
        self.keep_open(pinned);
    }

    /// Closes files of former chains but those in `pinned`.
    pub(super) fn keep_open(&self, pinned: &BTreeSet<u32>) {
        let first = self.chain().first;
        self.open.write().retain(|&number, _| number >= first || pinned.contains(&number));
    }

    /// Whether files of former chains are open.
    pub(super) fn has_former_files(&self) -> bool {
        let first = self.chain().first;
        self.open.read().keys().next().is_some_and(|&number| number < first)
    }

    /// Takes in what other processes appended, up to commit `last`.
    ///
    /// Who holds the commit lock may `cut`: then what is not whole is what a dead process left.
    /// Otherwise somebody may be writing it just now, and it is left for later.
    /// Inline pages are looked at unless all up to `last` is durable: a record without them would
    /// be gone on behind when its writer is dead and another has cut it.
    pub(super) fn read_on(&self, last: Tid, cut: Option<&Members>) -> Result<ReadOn, StorageError> {
        let mut inner = self.inner.lock();
        let mut records = Vec::new();
        let check_inline = last == Tid(u64::MAX) && !planted(Bug::HalfRecordTaken);
        while inner.tail.tid < last {
            match self.step(&inner.tail, inner.chain.last, cut.is_some() || check_inline)? {
                Step::Record(record, tail, _) => {
                    inner.chain.last = tail.position.file;
                    inner.allocated_end_bytes = 0;
                    inner.advance(Arc::clone(&record), tail);
                    records.push(record);
                }
                Step::End(tail) => {
                    inner.tail = tail;
                    let next = next_number(inner.chain.last)?;
                    let Some(file) = self.files.try_open(&log_path(next), Access::Read)? else {
                        break;
                    };
                    let header = LogHeader::read(&file, &self.store, next)?;
                    self.require_named()?;
                    if header.chain_base != inner.chain.first {
                        return Ok(ReadOn::NewChain);
                    }
                    inner.chain.last = next;
                }
                Step::Broken { at, damage: None, .. } if cut.is_some() => {
                    if let Some(members) = cut.filter(|_| !planted(Bug::DeadTailNotCut)) {
                        members.unsettled_while(|| self.cut(at))?;
                    }
                    inner.tail.position = at;
                    inner.chain.last = at.file;
                    inner.allocated_end_bytes = 0;
                    break;
                }
                Step::Broken { damage: Some(damage), .. } if cut.is_some() => return Err(damage),
                Step::Broken { .. } => break,
            }
        }
        Ok(ReadOn::Here(records))
    }

    /// Takes away what follows a place, durably: new sectors must not meet old ones.
    pub(super) fn cut(&self, at: Position) -> Result<(), StorageError> {
        let file = self.file(at.file)?;
        file.set_len(at.page * PAGE_BYTES)?;
        if planted(Bug::CutNotSynced) { Ok(()) } else { file.sync() }
    }

    /// Goes on as `other`, which was opened anew on the same store. Files stay open.
    pub(super) fn become_other(&self, other: &Self) {
        let (mut inner, mut others) = (self.inner.lock(), other.inner.lock());
        std::mem::swap(&mut *inner, &mut *others);
        self.generation.store(u64::from(inner.chain.first), Ordering::Release);
        self.set_durable(other.durable());
    }
}

/// Writes pages of a log file again, as they are.
pub(super) fn write_again(file: &StoreFile, start: u64, end: u64) -> Result<(), StorageError> {
    let mut bytes = vec![0; super::to_usize((end - start) * PAGE_BYTES)];
    file.read_exact_at(&mut bytes, start * PAGE_BYTES)?;
    file.write_at(&[&bytes], start * PAGE_BYTES)
}

impl Inner {
    fn advance(&mut self, record: Arc<Record>, tail: Tail) {
        self.positions.push(self.tail);
        self.recent.push_back(record);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        self.tail = tail;
    }

    /// The place after commit `tid`; `None` if it is not known.
    fn after(&self, tid: Tid) -> Option<Tail> {
        if tid == self.tail.tid {
            return Some(self.tail);
        }
        let index = usize::try_from(tid.0.checked_sub(self.known.0)?).ok()?;
        self.positions.get(index).copied()
    }

    fn recent(&self, tid: Tid) -> Option<Arc<Record>> {
        let first = self.recent.front()?.tid;
        let index = usize::try_from(tid.0.checked_sub(first.0)?).ok()?;
        self.recent.get(index).cloned()
    }
}

/// The frame of a draft that goes to `tail`, when commit `durable` is known to be so.
pub(super) fn framed(
    seal: &Seal,
    tail: &Tail,
    durable: Tid,
    draft: &Draft<'_>,
    encoded: &codec::EncodedDraft<'_>,
) -> NewFrame {
    let content = FrameContent {
        kind: FrameKind::Commit,
        tid: draft.tid,
        base: draft.base,
        time_ns: draft.time_ns,
        durable,
        previous: tail.chain,
        body: &encoded.body,
        inline: &encoded.inline,
    };
    NewFrame::new(seal, tail.position.page, &content)
}

/// The number of the file after file `number`.
pub(super) fn next_number(number: u32) -> Result<u32, StorageError> {
    match number.checked_add(1) {
        Some(next) if next < LOG_FILE => Ok(next),
        _ => Err(StorageError::Corrupted {
            place: log_path(number),
            what: "no number is left for the next log file".to_owned(),
        }),
    }
}

/// Creates a log file with this content under its name, durably. Until then nothing has changed.
pub(super) fn create_log_file(
    files: &Files,
    content: &[u8],
    number: u32,
) -> Result<(), StorageError> {
    let temporary = format!("log/.tmp-{number:010}");
    let aside = files.aside();
    aside.remove(&temporary)?;
    let written = aside.create(&temporary).and_then(|file| {
        file.write_at(&[content], 0)?;
        if !planted(Bug::LogNamedUnsynced) {
            file.sync()?;
        }
        files.rename(&temporary, &log_path(number))
    });
    if written.is_err() {
        // The disk may be full: what is left of the attempt must not fill it.
        let _ = files.aside().remove(&temporary);
    }
    written?;
    if planted(Bug::LogNameNotSynced) { Ok(()) } else { files.sync_dir("log") }
}

/// The record that a draft became.
pub(super) fn recorded(draft: &Draft<'_>, frame: &NewFrame, at: Position) -> Record {
    let metadata_pages = frame.pages() - frame.inline_pages;
    let mut inline_at = Place { file: LOG_FILE | at.file, page: at.page + metadata_pages };
    if planted(Bug::InlinePageOff) {
        inline_at = inline_at.after(1);
    }
    let mut sums = frame.inline_sums.as_slice();
    let data = draft.data.iter().map(|change| {
        let source = match &change.source {
            DraftSource::Stored(source) => source.clone(),
            DraftSource::Inline(bytes) => {
                let pages = bytes.len() / PAGE_LEN;
                let (taken, rest) = sums.split_at(pages);
                sums = rest;
                let place = inline_at;
                inline_at = inline_at.after(pages as u64);
                let count = u32::try_from(pages).unwrap_or(u32::MAX);
                match Extent::new(place, count, 1, Box::from(taken)) {
                    Some(extent) => Source::whole(extent),
                    None => panic!("inline data is not empty"),
                }
            }
        };
        let (array, carried) = (change.array, change.carried);
        DataChange { array, segment: Segment { pages: change.pages, source }, carried }
    });
    Record {
        tid: draft.tid,
        base: draft.base,
        time_ns: draft.time_ns,
        note: Arc::clone(&draft.note),
        data: data.collect(),
        catalog: draft.catalog.clone(),
    }
}
