//! Bugs that can be switched on to see whether the rigs find them. None of them is in a normal
//! build: without the feature `planted-bugs` the question is the constant `false`.
//!
//! ```text
//! if !planted(Bug::LogNotSynced) { file.sync()? }        one line where the protocol has its rule
//! cargo xtask crash --bugs                               each of them must be found
//! ```
//!
//! # Invariants
//!
//! 1. At most one bug is planted at a time, in the whole process.

/// A rule of the protocol that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Bug {
    /// Data files are not synced before the record.
    DataNotSynced,
    /// Data files are synced after the record.
    RecordBeforeData,
    /// The directory of a new data file is not synced.
    DataNameNotSynced,
    /// The name of a data file that was there is taken to be durable.
    DataNameTrusted,
    /// Committed pages are given out again at once.
    ReusedAtCommit,
    /// The log is not synced after a record.
    LogNotSynced,
    /// The directory of a new log file is not synced.
    LogNameNotSynced,
    /// A new log file has its name before its header is durable.
    LogNamedUnsynced,
    /// A record that did not fit on the disk is cut, and the cut is not synced.
    TakenBackUnsynced,
    /// After a failed write or sync the handle goes on.
    PoisonIgnored,
    /// A checkpoint has its name before it is durable.
    CheckpointNamedUnsynced,
    /// A checkpoint of a log that was packed away is used.
    StaleCheckpointUsed,
    /// A packed log has its name before it is durable.
    PackNamedUnsynced,
    /// The directory is not synced before the older log files are deleted.
    PackNameNotSynced,
    /// Pages that moved out of the older log files are not synced.
    PackDataNotSynced,
    /// The older log files are deleted before the new one has its name.
    PackRemovesFirst,
    /// Space is given to others before the new log is durable.
    PackFreesFirst,
    /// Space that only a kept commit names is given to others.
    PackFreesKept,
    /// Space that only a pinned state names is given to others.
    PackFreesPinned,
    /// A tag is not copied.
    PackForgetsTag,
    /// Opening trusts that the names it finds are durable.
    NamesTrusted,
    /// Opening does not make the last record durable.
    LastRecordNotSettled,
    /// Opening leaves a torn record where the next one goes.
    TailNotCut,
    /// The cut of a torn record is not synced.
    CutNotSynced,
    /// Opening trusts that the end of the log is durable.
    EndTrusted,
    /// Opening cuts the record before the torn one, too.
    CutTooMuch,
    /// A record of which sectors are missing is taken for whole.
    TornTailAccepted,
    /// The inline pages of the last record are not looked at.
    TornInlineAccepted,
    /// A record whose sectors are gone is torn, although later ones are there.
    HoleTakenForTorn,
    /// Checksums of sectors are not compared.
    SealNotChecked,
    /// Checksums of data are not compared by a check.
    DataSumNotChecked,
    /// Inline pages are looked for one page too far.
    InlinePageOff,
    /// A record that another process is still writing is taken in.
    HalfRecordTaken,
    /// The name that another process gave to a log file is taken to be durable.
    NewFileTrusted,
    /// A log that another process packed is appended to.
    NewChainMissed,
    /// Who commits leaves the torn record of a dead process.
    DeadTailNotCut,
    /// Space that records of other processes name is taken for free.
    OthersSpaceForgotten,
    /// Log files that another process may open are deleted.
    FormerLogRemoved,
    /// A sync of another process that began before the record counts.
    OthersSyncTrusted,
    /// A commit is told to others before it is durable.
    ToldBeforeSync,
    /// Who begins sees a commit that is not durable.
    NewestUnsettled,
    /// A checkpoint is written although another process packed.
    PackBeforeCheckpointMissed,
    /// Opening deletes what living processes are writing.
    LeftoversOfLiving,
    /// Space is given out in a file that another process has locked.
    OthersFileTaken,
    /// The log is not read on after a data file was locked.
    LockedWithoutLook,
    /// A pack does not look at the snapshots of other processes.
    OthersPinsIgnored,
    /// Sled engine: its file is not synced after its flush.
    SledFileNotSynced,
    /// Sled engine: a snapshot that was being written is left there.
    SledLeftoversTrusted,
    /// Sled engine: what was acknowledged is not compared with what sled has.
    SledAnchorNotCompared,
    /// Sled engine: a commit is acknowledged in the anchor before it is durable in sled.
    SledAnchorFirst,
    /// Sled engine: checksums of values are not compared.
    SledValueUnchecked,
    /// Sled engine: history goes before the state that it begins with is durable.
    SledPackUnsynced,
}

/// Whether `bug` is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(not(feature = "planted-bugs"))]
const _: () = assert!(!planted(Bug::DataNotSynced), "decided by the compiler");

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::planted;
#[cfg(feature = "planted-bugs")]
pub use switch::{ALL, SLED, plant};

#[cfg(feature = "planted-bugs")]
mod switch {
    use crate::sync::process::{AtomicU8, Ordering};

    use super::Bug;

    static PLANTED: AtomicU8 = AtomicU8::new(u8::MAX);

    /// Whether `bug` is planted.
    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// Plants one bug and takes out the one before it.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(u8::MAX, |bug| bug as u8), Ordering::Relaxed);
    }

    /// Every bug of the sled engine, with what it breaks.
    pub const SLED: &[(Bug, &str)] = &[
        (Bug::SledFileNotSynced, "sled's file is not synced after its flush"),
        (Bug::SledLeftoversTrusted, "a snapshot that was being written is left there"),
        (Bug::SledAnchorNotCompared, "what was acknowledged is not compared"),
        (Bug::SledAnchorFirst, "the anchor is written before sled is durable"),
        (Bug::SledValueUnchecked, "checksums of values are not compared"),
        (Bug::SledPackUnsynced, "a pack forgets before its state is durable"),
    ];

    /// Every bug of the local engine, with what it breaks.
    pub const ALL: &[(Bug, &str)] = &[
        (Bug::DataNotSynced, "data is not synced before the record"),
        (Bug::RecordBeforeData, "data is synced after the record"),
        (Bug::DataNameNotSynced, "the name of a new data file is not synced"),
        (Bug::DataNameTrusted, "the name of a data file that was there is trusted"),
        (Bug::ReusedAtCommit, "committed pages are given out again"),
        (Bug::LogNotSynced, "the log is not synced"),
        (Bug::LogNameNotSynced, "the name of a new log file is not synced"),
        (Bug::LogNamedUnsynced, "a log file is named before its header is durable"),
        (Bug::TakenBackUnsynced, "the cut after a full disk is not synced"),
        (Bug::PoisonIgnored, "the handle goes on after a failed sync"),
        (Bug::CheckpointNamedUnsynced, "a checkpoint is named before it is durable"),
        (Bug::StaleCheckpointUsed, "a checkpoint of a packed log is used"),
        (Bug::PackNamedUnsynced, "a packed log is named before it is durable"),
        (Bug::PackNameNotSynced, "old logs are deleted before the new name is durable"),
        (Bug::PackDataNotSynced, "pages moved by a pack are not synced"),
        (Bug::PackRemovesFirst, "old logs are deleted before the new one is named"),
        (Bug::PackFreesFirst, "space is free before the packed log is durable"),
        (Bug::PackFreesKept, "space of kept history is free after a pack"),
        (Bug::PackFreesPinned, "space of a pinned snapshot is free after a pack"),
        (Bug::PackForgetsTag, "a pack forgets a tag"),
        (Bug::NamesTrusted, "opening trusts that names are durable"),
        (Bug::LastRecordNotSettled, "opening does not sync the last record"),
        (Bug::TailNotCut, "a torn tail is not cut"),
        (Bug::CutNotSynced, "the cut of a torn tail is not synced"),
        (Bug::EndTrusted, "opening trusts that an earlier cut is durable"),
        (Bug::CutTooMuch, "the record before a torn tail is cut, too"),
        (Bug::TornTailAccepted, "a torn record is taken for whole"),
        (Bug::TornInlineAccepted, "torn inline pages are taken for whole"),
        (Bug::HoleTakenForTorn, "a hole in the log is taken for its end"),
        (Bug::SealNotChecked, "checksums of sectors are not compared"),
        (Bug::DataSumNotChecked, "a check does not compare checksums of data"),
        (Bug::InlinePageOff, "inline pages are off by one page"),
        (Bug::HalfRecordTaken, "a record that another is still writing is taken in"),
        (Bug::NewFileTrusted, "the name that another gave to a log file is trusted"),
        (Bug::NewChainMissed, "a log that another packed is appended to"),
        (Bug::DeadTailNotCut, "the torn record of a dead process is not cut"),
        (Bug::OthersSpaceForgotten, "space that records of others name is free"),
        (Bug::FormerLogRemoved, "log files that another may open are deleted"),
        (Bug::OthersSyncTrusted, "another's sync that began before the record counts"),
        (Bug::ToldBeforeSync, "a commit is told to others before it is durable"),
        (Bug::NewestUnsettled, "who begins sees a commit that is not durable"),
        (Bug::PackBeforeCheckpointMissed, "a checkpoint is written after a pack of another"),
        (Bug::LeftoversOfLiving, "opening deletes what the living are writing"),
        (Bug::OthersFileTaken, "space is given out in a file of another"),
        (Bug::LockedWithoutLook, "the log is not read on after a file was locked"),
        (Bug::OthersPinsIgnored, "a pack does not look at others' snapshots"),
    ];
}
