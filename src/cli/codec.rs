//! `zba codec`: how the blocks of an array are encoded.

use clap::Args;
use serde_json::json;
use zbigarray::DynArray;

use super::error::Error;
use super::interrupt::Interrupt;
use super::output::Output;
use super::progress::Progress;
use super::{Note, StorePath};

/// Show or change how the blocks of an array are encoded
///
/// Blocks that are written from now on are encoded so; those that are there stay as they are until
/// they are written again, and all can be read. A block that would not become shorter is stored as
/// it is. Blocks that are not encoded are mapped as they lie; encoded ones are decoded when they
/// are first touched.
#[derive(Args)]
#[command(after_help = "\
Codecs: none, lz4 (very fast), zstd or zstd:LEVEL (smaller; 1 to 22). Each with +shuffle, for
numbers that have bytes in common, or +delta, for numbers that grow steadily.

Examples:
  zba codec signals.zba ecg                          show it
  zba codec signals.zba ecg zstd+shuffle             for blocks written from now on
  zba codec signals.zba ecg zstd:9+delta --rewrite   for all, now
  zba codec signals.zba ecg none --rewrite           back")]
pub(crate) struct Codec {
    #[command(flatten)]
    store: StorePath,
    /// Name of the array
    name: String,
    /// New codec
    codec: Option<zbigarray::Codec>,
    /// Also write again what is stored already
    #[arg(long, requires = "codec")]
    rewrite: bool,
    #[command(flatten)]
    note: Note,
}

impl Codec {
    /// Runs the command.
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let Some(codec) = self.codec else { return self.show(output) };
        let store = self.store.open_to_write()?;
        let transaction = store.begin()?;
        let interrupt = Interrupt::install();
        let mut array = DynArray::open(&transaction, &self.name)?;
        array.set_codec(codec)?;
        let mut rewritten = 0;
        if self.rewrite {
            let progress = Progress::new(output, &self.name, array.nbytes());
            let mut interrupted = Ok(());
            array.encode_stored(&mut |done, total| {
                progress.set(done, total);
                rewritten = done;
                interrupted = interrupt.check();
                interrupted.is_ok()
            })?;
            interrupted?;
        }
        drop(array);
        let name = &self.name;
        let tid =
            transaction.commit_with_note(&self.note.or(|| format!("codec {name} {codec}")))?;
        let json = json!({
            "name": name, "codec": codec.to_string(), "rewritten_bytes": rewritten,
            "commit": tid.0,
        });
        let what = if self.rewrite { "is encoded" } else { "will be encoded" };
        output.done(&json, format!("`{name}` {what} as {codec}, commit {tid}"))
    }

    fn show(&self, output: Output) -> Result<(), Error> {
        let store = self.store.open_to_read()?;
        let transaction = store.begin_read()?;
        let array = DynArray::open(&transaction, &self.name)?;
        let codec = array.codec().to_string();
        output.show(&json!({"name": self.name, "codec": codec}), format!("{codec}\n"))
    }
}
