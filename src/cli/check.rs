//! `zba check` looks for damage, `zba pack` gives the space of history back.

use clap::Args;
use serde_json::json;
use zbigarray::txn::{Damage, Report};

use super::StorePath;
use super::error::Error;
use super::output::{self, Output, plural, size};
use super::progress::Progress;
use super::values;

/// Read and verify the store; damage gives exit code 4
#[derive(Args)]
#[command(after_help = "\
Without --data all metadata is checked, which takes moments. Nothing is changed or repaired.

Examples:
  zba check signals.zba
  zba check signals.zba --data || echo damaged or unreadable")]
pub(crate) struct Check {
    #[command(flatten)]
    store: StorePath,
    /// Also read all data, of the whole kept history, and compare it with its checksums
    #[arg(long)]
    data: bool,
}

impl Check {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let progress = Progress::new(output, "checking", 0);
        let report = store.check(self.data, &mut |done, total| progress.set(done, total))?;
        let seconds = progress.seconds();
        drop(progress);
        let damage = &report.damage;
        let one = |damage: &Damage| json!({"place": damage.place, "what": damage.what});
        let json = json!({
            "ok": damage.is_empty(), "records": report.records, "arrays": report.arrays,
            "extents": report.extents, "data_bytes": report.data_bytes, "seconds": seconds,
            "held_bytes": report.held_bytes,
            "damage": damage.iter().map(one).collect::<Vec<_>>(),
        });
        let lines: String = damage.iter().map(|damage| format!("{damage}\n")).collect();
        let text = lines.lines().map(|line| output::printable(line) + "\n").collect::<String>();
        output.show(&json, text)?;
        let examined = examined(&report, self.data, seconds);
        if damage.is_empty() {
            output.say(format!("no damage found in {examined}"));
            if report.held_bytes > 0 {
                let held = size(report.held_bytes);
                output.say(format!("{held} are held for snapshots; the next pack frees them"));
            }
            return Ok(());
        }
        let count = u64::try_from(damage.len()).unwrap_or(u64::MAX);
        let places = plural(count, "damaged place");
        Err(Error::Damage(format!("{} has {places}", store.path().display())))
    }
}

fn examined(report: &Report, data: bool, seconds: f64) -> String {
    let metadata = format!(
        "{}, {} and {}",
        plural(report.records, "commit record"),
        plural(report.arrays, "array"),
        plural(report.extents, "extent"),
    );
    if !data {
        return format!("{metadata}; data was not read, --data does that");
    }
    let (bytes, rate) = (size(report.data_bytes), output::rate(report.data_bytes, seconds));
    format!("{metadata}, {bytes} of data ({rate})")
}

/// Forget history and give its space back for new data
#[derive(Args)]
#[command(after_help = "\
Space that becomes free is used by later commits. Without --keep the oldest tagged commit and all
later ones stay; if none is tagged, only the newest commit does.

Examples:
  zba pack signals.zba                  forget what is older than the oldest tag
  zba pack signals.zba --keep 7d        keep what could be seen in the last seven days
  zba pack signals.zba --keep head      keep only the newest commit, whatever is tagged")]
pub(crate) struct Pack {
    #[command(flatten)]
    store: StorePath,
    /// Keep this commit and all later ones: TID, tag, time, age such as 7d or 12h, all-tags, head
    #[arg(long, value_name = "COMMIT", default_value = "all-tags")]
    keep: String,
}

impl Pack {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_write()?;
        let keep = values::keep(&store, &self.keep)?;
        let summary = store.pack(keep)?;
        let json = json!({
            "oldest": summary.oldest.0, "forgotten": summary.forgotten,
            "freed_bytes": summary.freed_bytes,
        });
        let (forgotten, freed) = (plural(summary.forgotten, "commit"), size(summary.freed_bytes));
        let oldest = summary.oldest;
        let message = match summary.forgotten {
            0 => format!("nothing to forget; commit {oldest} is the oldest that can be read"),
            _ => format!("forgot {forgotten}, {freed} are free; commit {oldest} is the oldest now"),
        };
        output.done(&json, message)
    }
}
