//! What people and programs read: tables and sizes, or one JSON document.
//!
//! ```text
//! standard output   data: a table, or with --json one JSON document on one line
//! standard error    messages about what was done; none with --json or --quiet
//! ```
//!
//! # Invariants
//!
//! 1. Text that others wrote (names, notes, attributes) reaches a terminal without control
//!    characters.
//! 2. With `--json`, standard output holds exactly one document, also when there is nothing to say.
//!    A command whose result has no end writes one document for each line of it.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use zbigarray::Order;

use super::error::Error;

/// Where results and messages go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// One JSON document instead of text.
    pub(crate) json: bool,
    /// No progress and no messages.
    pub(crate) quiet: bool,
}

impl Output {
    /// The result of a command that shows something.
    pub(crate) fn show(self, json: &Value, text: impl fmt::Display) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        let written = if self.json { writeln!(stdout, "{json}") } else { write!(stdout, "{text}") };
        written.and_then(|()| stdout.flush()).map_err(Error::output)
    }

    /// The result of a command that changed something.
    pub(crate) fn done(self, json: &Value, message: impl fmt::Display) -> Result<(), Error> {
        if self.json {
            return self.show(json, "");
        }
        self.say(message);
        Ok(())
    }

    /// A message.
    pub(crate) fn say(self, message: impl fmt::Display) {
        if !self.json && !self.quiet {
            // Nobody is told if even this fails.
            let _ = writeln!(io::stderr().lock(), "{message}");
        }
    }
}

/// An error if nobody reads standard output any more: who has nothing to write does not find out.
pub(crate) fn require_reader() -> Result<(), Error> {
    let stdout = io::stdout();
    let mut found = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    // What cannot be asked is found out by the next write.
    let _ = poll(&mut found, PollTimeout::ZERO);
    let gone = found[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
    if gone { Err(Error::OutputClosed) } else { Ok(()) }
}

/// On which side of its column a text stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under a heading.
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
    widths_min: Vec<usize>,
    bold: bool,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Self {
        let (columns, rows, widths_min) = (columns.to_vec(), Vec::new(), Vec::new());
        Self { columns, rows, widths_min, bold: has_style() }
    }

    /// The same with columns that are at least so wide: for rows shown one after the other.
    pub(crate) fn at_least(mut self, widths_min: &[usize]) -> Self {
        self.widths_min = widths_min.to_vec();
        self
    }

    /// Adds a row; a text without a column is not shown.
    pub(crate) fn row(&mut self, texts: impl IntoIterator<Item = String>) {
        self.rows.push(texts.into_iter().map(|text| printable(&text)).collect());
    }

    fn width(&self, column: usize) -> usize {
        let texts = self.rows.iter().filter_map(|row| row.get(column));
        let longest = texts.map(|text| text.chars().count()).max().unwrap_or(0);
        let least = self.widths_min.get(column).copied().unwrap_or(0);
        longest.max(self.columns[column].0.chars().count()).max(least)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let line = |texts: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((text, width), (_, side)) in texts.zip(&widths).zip(&self.columns) {
                let _ = match side {
                    Side::Left => write!(line, "{text:<width$}  "),
                    Side::Right => write!(line, "{text:>width$}  "),
                };
            }
            line.trim_end().to_owned()
        };
        if self.columns.iter().any(|(name, _)| !name.is_empty()) {
            let head = line(&mut self.columns.iter().map(|(name, _)| *name));
            writeln!(f, "{}", if self.bold { format!("\x1b[1m{head}\x1b[0m") } else { head })?;
        }
        for row in &self.rows {
            writeln!(f, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// Facts as `name  value` lines.
pub(crate) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    /// No facts yet.
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub(crate) fn add(&mut self, name: &'static str, value: impl fmt::Display) {
        self.0.push((name, printable(&value.to_string())));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let (bold, plain) = if has_style() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        for (name, value) in &self.0 {
            writeln!(f, "{bold}{name:<width$}{plain}  {value}")?;
        }
        Ok(())
    }
}

/// Whether standard output is a terminal that may be given styles.
pub(crate) fn has_style() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The text without control characters (invariant 1).
pub(crate) fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escaped).collect()
}

/// `512 B`, `1.5 KiB`, `2.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = as_f64(bytes) / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would be shown as 1024.0 is 1.0 of the next unit.
        if amount < 1023.95 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    format!("{amount:.1} {unit}")
}

/// Bytes in a time, as `850.0 MiB/s`.
pub(crate) fn rate(bytes: u64, seconds: f64) -> String {
    per_second(as_f64(bytes) / seconds.max(1e-9))
}

/// Bytes per second, as `850.0 MiB/s`.
#[expect(clippy::cast_possible_truncation, reason = "a rate above 2^64 is shown as 2^64")]
#[expect(clippy::cast_sign_loss, reason = "neither bytes nor seconds are negative")]
pub(crate) fn per_second(bytes: f64) -> String {
    format!("{}/s", size(bytes as u64))
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits only")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// `35 us`, `4.2 ms`, `1.23 s`, `2 min 05 s`.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        ..1e-3 => format!("{:.0} us", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        ..99.5 => format!("{seconds:.2} s"),
        _ => format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0),
    }
}

/// `134,217,728`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 commit`, `2 commits`.
pub(crate) fn plural(count: u64, one: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {one}{ending}", grouped(count))
}

/// `(1000, 3)`, as NumPy shows it.
pub(crate) fn shape(shape: &[u64]) -> String {
    match shape {
        [one] => format!("({one},)"),
        axes => format!("({})", axes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// `2026-01-31 12:00:00`, in the local time zone.
pub(crate) fn moment(time_ns: i64) -> String {
    let zoned = Timestamp::from_nanosecond(time_ns.into()).map(|t| t.to_zoned(TimeZone::system()));
    zoned.map_or_else(|_| "?".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// The same for programs: RFC 3339 in UTC.
pub(crate) fn moment_json(time_ns: i64) -> Value {
    Timestamp::from_nanosecond(time_ns.into()).map_or(Value::Null, |t| json!(t.to_string()))
}

/// `C` or `F`.
pub(crate) fn order_text(order: Order) -> &'static str {
    if order == Order::F { "F" } else { "C" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_never_four_digits_before_it() {
        let shown = [0, 1023, 1024, 1536, 1_048_575, 1 << 21, 5 << 30, u64::MAX].map(size);
        let want =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "2.0 MiB", "5.0 GiB", "16.0 EiB"];
        assert_eq!(shown, want);
    }

    #[test]
    fn counts_are_grouped_by_three_digits() {
        assert_eq!([1, 999, 1000, 134_217_728].map(grouped), ["1", "999", "1,000", "134,217,728"]);
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_control_characters() {
        let mut table = Table::new(&[("NAME", Side::Left), ("SIZE", Side::Right)]);
        table.bold = false;
        table.row(["a".to_owned(), "10 B".to_owned()]);
        table.row(["long\x1b[2J".to_owned(), "1 B".to_owned()]);
        assert_eq!(
            table.to_string(),
            "NAME           SIZE\na              10 B\nlong\\u{1b}[2J   1 B\n"
        );
    }

    #[test]
    fn a_row_alone_stands_where_its_heading_does() {
        let mut heading = Table::new(&[("TID", Side::Right), ("NOTE", Side::Left)]).at_least(&[5]);
        heading.bold = false;
        let mut row = Table::new(&[("", Side::Right), ("", Side::Left)]).at_least(&[5]);
        row.row(["7".to_owned(), "seven".to_owned()]);
        assert_eq!(format!("{heading}{row}"), "  TID  NOTE\n    7  seven\n");
    }

    #[test]
    fn shapes_are_shown_as_tuples() {
        assert_eq!([shape(&[]), shape(&[3]), shape(&[3, 4])], ["()", "(3,)", "(3, 4)"]);
    }
}
