//! The log: lines to standard error or a file, and the last of them in the filesystem itself.
//!
//! ```text
//! log::warn!(...) -> "2026-01-31T12:00:00Z WARN writing t2m.npy: ..." -> file | stderr
//!                                                                    \-> /.zba/log, newest 64 KiB
//! ```
//!
//! # Failure
//!
//! A log file that cannot be opened is an error of [`begin`], before anything is mounted. A line
//! that cannot be written is lost there, and still in `/.zba/log`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

/// Bytes of lines kept for `/.zba/log`.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Where lines go.
pub struct Messages {
    file: Option<Mutex<File>>,
    kept: Mutex<VecDeque<u8>>,
}

/// Begins to log lines of `level` and above, to `file` or standard error.
///
/// # Errors
///
/// If the file cannot be opened for appending, or this process logs already.
pub fn begin(level: LevelFilter, file: Option<&Path>) -> io::Result<&'static Messages> {
    let open = |path: &Path| File::options().create(true).append(true).open(path);
    let file = file.map(open).transpose()?.map(Mutex::new);
    let messages = Box::leak(Box::new(Messages { file, kept: Mutex::new(VecDeque::new()) }));
    log::set_logger(messages).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(messages)
}

impl Messages {
    /// The newest lines.
    pub(crate) fn text(&self) -> Vec<u8> {
        self.kept.lock().iter().copied().collect()
    }

    fn keep(&self, line: &str) {
        let mut kept = self.kept.lock();
        kept.extend(line.as_bytes());
        while kept.len() > KEPT_BYTES_MAX {
            let end = kept.iter().position(|&byte| byte == b'\n').unwrap_or(kept.len() - 1);
            kept.drain(..=end);
        }
    }
}

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Requests that we do not know: the kernel knows what to do then.
        let is_noise = record.target().starts_with("fuser")
            && record.level() > log::Level::Error
            && log::max_level() < LevelFilter::Debug;
        if !self.enabled(record.metadata()) || is_noise {
            return;
        }
        let time = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let text = record.args().to_string().replace(char::is_control, " ");
        let line = format!("{time} {:5} {text}\n", record.level());
        self.keep(&line);
        // Nobody can be told that the log itself fails.
        let _ = match &self.file {
            Some(file) => file.lock().write_all(line.as_bytes()),
            None => io::stderr().lock().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_whole_and_bounded() {
        let messages = Messages { file: None, kept: Mutex::new(VecDeque::new()) };
        for number in 0..20_000 {
            messages.keep(&format!("line {number}\n"));
        }
        let text = String::from_utf8(messages.text()).unwrap();
        assert!(text.len() <= KEPT_BYTES_MAX && text.starts_with("line "));
        assert!(text.ends_with("line 19999\n"));
    }
}
