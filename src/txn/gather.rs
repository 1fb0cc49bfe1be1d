//! Pages that lie in too many pieces to be mapped, copied into one file that can be.
//!
//! ```text
//! extents      |a|   |b|  |c| ...      each a kernel mapping, of which a process has few
//! gathered     |a|b|c|...              one mapping of an unnamed file, gone with its last mapping
//! ```
//!
//! # Invariants
//!
//! 1. What is copied was compared with its checksums.
//! 2. Holes stay holes in the file, so that a sparse array takes no space.

use nix::sys::uio::pread;

use super::error::TransactionError;
use super::session::{Context, HoleContent};
use crate::storage::StorageError;
use crate::storage::engine::{ExtentFile, read_checked};
use crate::storage::extent::{Segment, Source};
use crate::units::{PAGE_BYTES, PAGE_LEN, PageRange};
use crate::vm::MapError;

/// Pages copied in one step: 2 MiB.
const STEP_PAGES: u64 = 512;

/// Copies the content of `segments`, which follow each other, into one unnamed file.
pub(super) fn gather(
    cx: &Context<'_>,
    hole: &HoleContent,
    segments: &[Segment],
) -> Result<ExtentFile, TransactionError> {
    let pages_count = segments.iter().map(|segment| segment.pages.count()).sum();
    let file = cx.engine.unnamed(pages_count)?;
    let mut bytes = Vec::new();
    let mut at_page = 0;
    for segment in segments {
        let mut start = segment.pages.start;
        while start < segment.pages.end {
            let step = PageRange::new(start, segment.pages.end.min(start + STEP_PAGES));
            let Some(part) = segment.clipped(step) else { break };
            bytes.clear();
            bytes.resize(PAGE_LEN * usize::try_from(step.count()).unwrap_or(0), 0);
            if fill(cx, hole, &part, &mut bytes)? {
                file.write(at_page * PAGE_BYTES, &bytes)?;
            }
            at_page += step.count();
            start = step.end;
        }
    }
    Ok(file.file())
}

/// Fills `bytes` with the content of `part`; whether it is anything but zeros of a hole.
fn fill(
    cx: &Context<'_>,
    hole: &HoleContent,
    part: &Segment,
    bytes: &mut [u8],
) -> Result<bool, TransactionError> {
    match (&part.source, hole) {
        (Source::Hole, HoleContent::Zero) => Ok(false),
        (Source::Hole, HoleContent::Pattern { file, pages }) => {
            for (page, bytes) in (part.pages.start..).zip(bytes.chunks_mut(PAGE_LEN)) {
                let offset = i64::try_from(page % pages * PAGE_BYTES).unwrap_or(i64::MAX);
                pread(file, bytes, offset).map_err(|errno| MapError::System {
                    call: "read of the fill pattern",
                    source: errno.into(),
                })?;
            }
            Ok(true)
        }
        (Source::Extent { extent, skip }, _) => {
            let count = u32::try_from(part.pages.count()).unwrap_or(u32::MAX);
            let read = read_checked(cx.engine, extent, *skip..skip.saturating_add(count), bytes);
            read.map_err(|error: StorageError| error.into()).map(|()| true)
        }
    }
}
