//! The files that are text: descriptions of arrays, the log of commits, the counters.
//!
//! ```text
//! /.zba/commits    a line of LINE_BYTES bytes for each commit: tid t at byte (t - 1) * LINE_BYTES
//! ```
//! Lines of one length need no memory however long the log is, and can be read from anywhere.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};
use zbigarray::array::Descriptor;
use zbigarray::txn::{ArrayEntry, Record};
use zbigarray::{ArrayError, Tid};

use crate::snapshot::Snapshot;
use crate::zarr;

/// Bytes of a line of `/.zba/commits`, with its end.
pub(crate) const LINE_BYTES: u64 = LINE as u64;
const LINE: usize = 256;

/// What `array.json` says.
pub(crate) fn array_json(snapshot: &Snapshot, entry: &ArrayEntry) -> Result<Vec<u8>, ArrayError> {
    let descriptor = Descriptor::from_json(&entry.descriptor)?;
    let dtype = descriptor.dtype.descr().ok();
    let dtype = dtype.unwrap_or_else(|| format!("'{}'", descriptor.dtype.type_string()));
    let name = snapshot.catalog().name_of(entry.id).unwrap_or_default();
    let value = json!({
        "name": &*name,
        "shape": &*entry.shape,
        "dtype": dtype.trim_matches('\''),
        "order": if descriptor.order == zbigarray::Order::F { "F" } else { "C" },
        "block_bytes": entry.block_bytes,
        "created": entry.created.0,
        "changed": entry.changed.0,
        "attributes": zarr::values(&entry.attributes),
    });
    Ok(pretty(&value))
}

/// JSON as people read it.
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// A time in nanoseconds since 1970, as ISO 8601 has it.
pub(crate) fn time(time_ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(time_ns)).map_or_else(|_| "?".into(), |t| t.to_string())
}

/// A point in time, to nanoseconds since 1970; without a zone it is UTC.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let civil = || text.parse::<jiff::civil::DateTime>().ok();
    let zoned = |civil: jiff::civil::DateTime| {
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| zoned(civil()?))?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// The line of a commit; `None` for one that was packed away.
pub(crate) fn commit_line(tid: Tid, record: Option<(&Record, &[String])>) -> Vec<u8> {
    let mut value = match record {
        Some((record, arrays)) => json!({
            "tid": tid.0, "time": time(record.time_ns), "note": &*record.note, "arrays": arrays,
        }),
        None => json!({"tid": tid.0, "packed": true}),
    };
    // What does not fit is left out, the names first.
    let fits = |value: &Value| value.to_string().len() < LINE;
    while !fits(&value) {
        let Some(names) = value.get_mut("arrays").and_then(Value::as_array_mut) else { break };
        if names.pop().is_none() {
            break;
        }
        value["more"] = json!(true);
    }
    if !fits(&value) {
        let note = value["note"].as_str().unwrap_or_default();
        value["note"] = json!(note.chars().filter(char::is_ascii).take(64).collect::<String>());
    }
    let mut line = value.to_string().into_bytes();
    line.truncate(LINE - 1);
    line.resize(LINE - 1, b' ');
    line.push(b'\n');
    line
}

/// What happened since the store was mounted.
#[derive(Default)]
pub(crate) struct Counters {
    /// Reads answered.
    pub(crate) reads: AtomicU64,
    /// Bytes of them.
    pub(crate) read_bytes: AtomicU64,
    /// Writes taken.
    pub(crate) writes: AtomicU64,
    /// Bytes of them.
    pub(crate) written_bytes: AtomicU64,
    /// Commits made through the mount.
    pub(crate) commits: AtomicU64,
    /// Commits refused, because others came first.
    pub(crate) conflicts: AtomicU64,
    /// Transactions given up.
    pub(crate) aborts: AtomicU64,
    /// Commits followed, of whatever process.
    pub(crate) followed: AtomicU64,
    /// Ranges of the kernel's cache that were made invalid.
    pub(crate) invalidations: AtomicU64,
    /// Requests that failed with an error of the disk.
    pub(crate) errors: AtomicU64,
}

impl Counters {
    /// Counts one more.
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// All of them.
    pub(crate) fn json(&self) -> Value {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "reads": of(&self.reads),
            "read_bytes": of(&self.read_bytes),
            "writes": of(&self.writes),
            "written_bytes": of(&self.written_bytes),
            "commits": of(&self.commits),
            "conflicts": of(&self.conflicts),
            "aborts": of(&self.aborts),
            "commits_followed": of(&self.followed),
            "invalidations": of(&self.invalidations),
            "errors": of(&self.errors),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_line_of_the_commit_log_has_the_same_length_and_is_json() {
        let many: Vec<String> = (0..100).map(|number| format!("group/array{number}")).collect();
        for note in ["", "short", &"long ".repeat(100), &"\u{e9}".repeat(200), &"\"".repeat(300)] {
            let record = Record {
                tid: Tid(7),
                base: Tid(6),
                time_ns: 1_700_000_000_123_456_789,
                note: Arc::from(note),
                catalog: Vec::new(),
                data: Vec::new(),
            };
            for arrays in [&many[..0], &many[..2], &many] {
                let line = commit_line(Tid(7), Some((&record, arrays)));
                assert_eq!(line.len() as u64, LINE_BYTES);
                assert_eq!(line.last(), Some(&b'\n'));
                let value: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!(value["tid"], 7, "{value}");
            }
        }
        assert_eq!(commit_line(Tid(1), None).len() as u64, LINE_BYTES);
    }

    #[test]
    fn times_are_iso_and_utc_unless_they_say_otherwise() {
        let time_ns = 1_700_000_000_123_456_789;
        assert_eq!(parse_time(&time(time_ns)), Some(time_ns));
        assert_eq!(parse_time("2023-11-14T22:13:20"), Some(1_700_000_000_000_000_000));
        assert_eq!(parse_time("2023-11-14T23:13:20+01:00"), Some(1_700_000_000_000_000_000));
        assert_eq!(parse_time("2023-11-14"), Some(1_699_920_000_000_000_000));
        assert_eq!(parse_time("12"), None);
    }
}
