//! `zba who`: the processes that have a store open, and what their snapshots keep.
//!
//! ```text
//! places of the file `shared` -> pid, snapshot, since when      the store says
//! /proc/PID/comm, /proc/PID/stat -> command, alive or stopped    the kernel says
//! ```
//!
//! # Invariants
//!
//! 1. What is told of a process number is about the process that opened the store, or nothing is.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};
use zbigarray::txn::{Member, StorageError};
use zbigarray::{Store, Tid, TransactionError};

use super::StorePath;
use super::error::Error;
use super::output::{self, Output, Side, Table};

/// Show the processes that have the store open, and the space that their snapshots hold
#[derive(Args)]
#[command(after_help = "\
SNAPSHOT is the oldest commit that the process looks at, AGE for how long, BEHIND how many commits
are newer. HOLDS is what a pack could free in data files without that snapshot. STATE is alive,
stopped, or unknown: it has the store open, but its number says nothing here, as that of a process
in another container. `expired` means that a pack gave the snapshot up. A process that may not write
to the store shows up nowhere.

Examples:
  zba who signals.zba
  zba who signals.zba --json | jq '.processes[] | select(.state == \"stopped\").pid'")]
pub(crate) struct Who {
    #[command(flatten)]
    store: StorePath,
}

impl Who {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let head = store.head();
        let others = store.members()?.into_iter().filter(|member| !member.is_self);
        let shown = others.map(|member| Shown::new(&store, head, member));
        let shown = shown.collect::<Result<Vec<_>, Error>>()?;
        let mut table = Table::new(&[
            ("PID", Side::Right),
            ("COMMAND", Side::Left),
            ("OPEN SINCE", Side::Left),
            ("SNAPSHOT", Side::Right),
            ("AGE", Side::Right),
            ("BEHIND", Side::Right),
            ("HOLDS", Side::Right),
            ("STATE", Side::Left),
        ]);
        shown.iter().for_each(|one| table.row(one.row()));
        let processes: Vec<Value> = shown.iter().map(Shown::json).collect();
        let text = if shown.is_empty() { String::new() } else { table.to_string() };
        if shown.is_empty() {
            output.say("no other process has the store open");
        }
        output.show(&json!({"head": head.0, "processes": processes}), text)
    }
}

/// How a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Alive,
    Stopped,
    /// Its lock says that it lives; its number says nothing here.
    Unknown,
}

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }

    /// What the text of `/proc/PID/stat` says.
    fn of(stat: &str) -> Self {
        // The name before the last parenthesis may hold anything.
        let letter = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        match letter {
            Some('T' | 't') => Self::Stopped,
            Some('Z' | 'X') | None => Self::Unknown,
            Some(_) => Self::Alive,
        }
    }
}

/// What is shown of a process.
struct Shown {
    member: Member,
    command: Option<String>,
    condition: Condition,
    age_seconds: Option<f64>,
    behind: Option<u64>,
    held_bytes: Option<u64>,
}

impl Shown {
    fn new(store: &Store, head: Tid, member: Member) -> Result<Self, Error> {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", member.pid)).ok();
        // Invariant 1.
        let (command, stat) = match member.is_same_process {
            true => (of("comm"), of("stat")),
            false => (None, None),
        };
        let held_bytes = match member.snapshot.map(|tid| store.held_by(tid)) {
            // Given up, by a pack just now or before.
            Some(Err(TransactionError::Storage(StorageError::Forgotten { .. }))) | None => None,
            Some(held) => Some(held?),
        };
        Ok(Self {
            command: command.map(|name| name.trim_end().to_owned()),
            condition: Condition::of(&stat.unwrap_or_default()),
            age_seconds: member.snapshot_since_ns.map(seconds_since),
            behind: member.snapshot.map(|tid| head.0.saturating_sub(tid.0)),
            held_bytes,
            member,
        })
    }

    fn row(&self) -> [String; 8] {
        fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
            value.map_or_else(|| "-".to_owned(), text)
        }
        let expired = if self.member.is_expired { ", expired" } else { "" };
        [
            self.member.pid.to_string(),
            or_dash(self.command.clone(), |name| name),
            output::moment(self.member.opened_ns),
            or_dash(self.member.snapshot, |tid| tid.to_string()),
            or_dash(self.age_seconds, output::time),
            or_dash(self.behind, output::grouped),
            or_dash(self.held_bytes, output::size),
            format!("{}{expired}", self.condition.name()),
        ]
    }

    fn json(&self) -> Value {
        let Member { pid, opened_ns, snapshot, snapshot_since_ns, is_expired, .. } = self.member;
        json!({
            "pid": pid,
            "command": self.command,
            "open_since": output::moment_json(opened_ns),
            "snapshot": snapshot.map(|tid| tid.0),
            "snapshot_since": snapshot_since_ns.map(output::moment_json),
            "snapshot_age_seconds": self.age_seconds,
            "behind": self.behind,
            "held_bytes": self.held_bytes,
            "state": self.condition.name(),
            "expired": is_expired,
        })
    }
}

/// Seconds since a time in nanoseconds since 1970; 0 if it has not come yet.
fn seconds_since(time_ns: i64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = std::time::Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0));
    now.saturating_sub(then).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letter_after_the_name_says_how_a_process_is() {
        let of = |text| Condition::of(text);
        assert_eq!(of("12 (zba) S 1 12 12 0"), Condition::Alive);
        assert_eq!(of("12 (a) T (b) R 1 12"), Condition::Alive);
        assert_eq!(of("12 (zba) T 1 12"), Condition::Stopped);
        assert_eq!(of("12 (zba) t 1 12"), Condition::Stopped);
        assert_eq!(of("12 (zba) Z 1 12"), Condition::Unknown);
        assert_eq!(of(""), Condition::Unknown);
    }
}
