//! A progress bar with bytes, rate and time left, on a terminal only.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

const TEMPLATE: &str = "{prefix} [{bar:24}] {percent:>3}%  {bytes} of {total_bytes}  \
     {binary_bytes_per_sec}  {eta} left  {wide_msg}";

const TASKS_TEMPLATE: &str = "{prefix} [{bar:24}] {percent:>3}%  {pos} of {len} tasks  \
     {eta} left  {wide_msg}";

/// Shows how far a command is; goes away when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// A bar for `total` bytes. Shown if standard error is a terminal and messages are wanted.
    pub(crate) fn new(output: Output, what: &str, total: u64) -> Self {
        let visible = !output.quiet && !output.json;
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(super::output::printable(what));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, started: Instant::now() }
    }

    /// A bar for tasks, whose number is not known yet.
    pub(crate) fn of_tasks(output: Output, what: &str) -> Self {
        let progress = Self::new(output, what, 0);
        if let Ok(style) = ProgressStyle::with_template(TASKS_TEMPLATE) {
            progress.bar.set_style(style.progress_chars("=> "));
        }
        progress
    }

    /// More is done.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So much is done, of so much.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// What was done last.
    pub(crate) fn message(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Time since it was made, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
