//! Arguments that are more than text: sizes, shapes, element types, commits and times.
//!
//! ```text
//! 2MiB  64k  1.5GiB  4096         bytes
//! 10,20  (10, 20)  ()             shape
//! 17  v1.0  2026-01-31T12:00  7d  commit: its number, a tag, a time, or how long ago
//! ```
//!
//! # Invariants
//!
//! 1. What a tag may be called is no number and no time, so a text names one commit only.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use zbigarray::txn::StorageError;
use zbigarray::{Keep, Store, Tid};

use super::error::Error;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    /// Reads `2MiB`, `64k`, `1.5 GB`, `4096`: with `i` or a single letter powers of 1024, with `B`
    /// alone behind the letter powers of 1000.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no size; write 2MiB, 64KiB, 1.5GiB or plain bytes");
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit_bytes(unit.trim()).ok_or_else(refused)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u128 = whole.parse().map_err(|_| refused())?;
        if number.ends_with('.') || fraction.len() > 9 {
            return Err(refused());
        }
        let ten_to_the_digits = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| refused())?);
        let fraction: u128 = if fraction.is_empty() { 0 } else { parse(fraction, refused)? };
        let bytes = whole.checked_mul(unit).ok_or_else(refused)?;
        let bytes = bytes.saturating_add(fraction * unit / ten_to_the_digits);
        u64::try_from(bytes).map(Self).map_err(|_| refused())
    }
}

fn parse(digits: &str, refused: impl Fn() -> String) -> Result<u128, String> {
    digits.parse().map_err(|_| refused())
}

fn unit_bytes(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let Some(letter) = unit.chars().next().filter(|&letter| letter != 'b') else {
        return matches!(unit.as_str(), "" | "b").then_some(1);
    };
    let power = u32::try_from("kmgtp".find(letter)? + 1).ok()?;
    match &unit[1..] {
        "" | "i" | "ib" => Some(1024_u128.pow(power)),
        "b" => Some(1000_u128.pow(power)),
        _ => None,
    }
}

/// The length of each axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape(pub(crate) Vec<u64>);

impl FromStr for Shape {
    type Err = String;

    /// Reads `10,20`, `(10, 20)`, `10x20`, `(10,)`, and `()` for an array without axes.
    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner.strip_prefix('(').and_then(|t| t.strip_suffix(')')).unwrap_or(inner);
        if inner.trim().is_empty() && text.contains('(') {
            return Ok(Self(Vec::new()));
        }
        let refused =
            || format!("`{text}` is no shape; write lengths such as 10,20, or () for no axes");
        let axes = inner.trim().strip_suffix(',').unwrap_or(inner).split([',', 'x']);
        let lengths: Option<Vec<u64>> = axes.map(|axis| axis.trim().parse().ok()).collect();
        lengths.map(Self).ok_or_else(refused)
    }
}

/// The commit that `text` names: a tid, a tag, a time, or how long ago.
///
/// # Errors
///
/// [`Error::Refused`] if it names none; [`StorageError`] if that commit is not kept.
pub(crate) fn commit(store: &Store, text: &str) -> Result<Tid, Error> {
    let tid = match text.parse() {
        Ok(tid) => Tid(tid),
        Err(_) => match store.catalog().tag(text) {
            Some(tid) => tid,
            None => return Ok(store.newest_at(time_of(text)?)?),
        },
    };
    let (head, oldest) = (store.head(), store.oldest());
    if tid > head {
        return Err(StorageError::NoCommit { tid, head }.into());
    }
    if tid < oldest {
        return Err(StorageError::Forgotten { tid, oldest }.into());
    }
    Ok(tid)
}

/// The history that `text` says to keep.
///
/// # Errors
///
/// Those of [`commit`].
pub(crate) fn keep(store: &Store, text: &str) -> Result<Keep, Error> {
    match text {
        "all-tags" => Ok(Keep::AllTags),
        "head" => Ok(Keep::Head),
        text if text.parse::<u64>().is_ok() || store.catalog().tag(text).is_some() => {
            Ok(Keep::From(commit(store, text)?))
        }
        text => Ok(Keep::Since(time_of(text)?)),
    }
}

/// Whether `text` can be a tag (invariant 1).
pub(crate) fn require_tag(text: &str) -> Result<(), Error> {
    let reserved = ["head", "all-tags"].contains(&text);
    if reserved || text.parse::<u64>().is_ok() || time(text, &Zoned::now()).is_some() {
        let what = "would be taken for a commit number, a time or a word of `--keep`";
        return Err(Error::Usage(format!("a tag cannot be called `{text}`, which {what}")));
    }
    Ok(())
}

/// Nanoseconds since 1970; times that no commit can have become the first or the last one.
fn time_of(text: &str) -> Result<i64, Error> {
    let Some(time) = time(text, &Zoned::now()) else {
        let what = "no commit number, no tag, and no time such as 2026-01-31T12:00 or 7d";
        return Err(Error::Refused(format!("`{text}` is {what}")));
    };
    let limit = if time < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX };
    Ok(i64::try_from(time.as_nanosecond()).unwrap_or(limit))
}

/// A point in time: RFC 3339, a local date with or without time, or how long before `now`.
fn time(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return Some(local.to_zoned(TimeZone::system()).ok()?.timestamp());
    }
    // A duration begins with a digit; `P7D` would be a strange name for a tag, but could be one.
    let span: Span =
        text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok())??;
    Some(now.checked_sub(span).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        let read = |text: &str| text.parse::<Size>().map(|size| size.0);
        let cases = [
            ("4096", 4096),
            ("0", 0),
            ("7 B", 7),
            ("64KiB", 64 << 10),
            ("2M", 2 << 20),
            ("2mib", 2 << 20),
            ("1.5GiB", 3 << 29),
            ("1kB", 1000),
            ("3TB", 3_000_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        // With its fraction it is above 2^128.
        const MOST: &str = "340282366920938463463374607431768211.9kB";
        for text in ["", "x", "-1", "1XB", "1.", ".5", "1e6", "99999999999GiB", "1.2.3", MOST] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shapes_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Shape>().map(|shape| shape.0);
        for (text, shape) in [
            ("10,20", vec![10, 20]),
            ("(10, 20)", vec![10, 20]),
            ("10x20", vec![10, 20]),
            ("(5,)", vec![5]),
            ("0", vec![0]),
            ("()", vec![]),
        ] {
            assert_eq!(read(text), Ok(shape), "{text}");
        }
        for text in ["", "a", "1,,2", "-1", "(1", "1.5", ","] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_points_or_lie_before_now() {
        let now: Zoned = "2026-03-01T12:00:00[UTC]".parse().unwrap();
        let utc = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(time("2026-01-31T12:00:00Z", &now), Some(utc("2026-01-31T12:00:00Z")));
        assert_eq!(time("7d", &now), Some(utc("2026-02-22T12:00:00Z")));
        assert_eq!(time("12h", &now), Some(utc("2026-03-01T00:00:00Z")));
        assert_eq!(time("1mo", &now), Some(utc("2026-02-01T12:00:00Z")));
        assert!(time("2026-01-31", &now).is_some() && time("2026-01-31 12:00", &now).is_some());
        for text in ["", "v1", "P7D", "-7d", "yesterday", "7"] {
            assert_eq!(time(text, &now), None, "{text}");
        }
    }
}
