//! One target for each decoder.
//!
//! The first byte of targets for files of a store says how much of the checksums is put right.
//! What decodes is encoded again and must come out equal.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use zbigarray::Order;
use zbigarray::array::layout::{copies, is_contiguous, runs};
use zbigarray::array::{Descriptor, Dtype, Header, index, npy, shape as shapes};
use zbigarray::storage::encoding::decode;
use zbigarray::storage::local::door::{self, SegmentChange};

use super::cli::npz::Npz;
use super::cli::values::{Shape, Size};

/// The flags in the first byte, and the rest.
fn flagged(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(&flags, rest)| (flags, rest))
}

/// What the flags of a checkpoint can ask for.
pub(crate) const SEGMENT_CHANGES: [SegmentChange; 5] = [
    SegmentChange::Doubled,
    SegmentChange::Earlier,
    SegmentChange::Later,
    SegmentChange::Longer,
    SegmentChange::Swapped,
];

/// A log file.
pub(crate) fn log(bytes: &[u8]) {
    let (flags, bytes) = flagged(bytes);
    let mut bytes = bytes.to_vec();
    if flags & 1 == 0 {
        let number = door::log_number(&bytes);
        door::seal_log(&mut bytes, number, flags & 2 == 0);
    }
    if let Err(error) = door::log(&bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// The body of a commit record, with as many inline pages as the first byte says.
pub(crate) fn record(bytes: &[u8]) {
    let (pages, bytes) = flagged(bytes);
    let _ = door::record(bytes, pages % 32);
}

/// The body of a whole state.
pub(crate) fn state(bytes: &[u8]) {
    let _ = door::state(bytes);
}

/// All names of a store.
pub(crate) fn catalog(bytes: &[u8]) {
    let _ = door::catalog(bytes);
}

/// A checkpoint. Bits 1 to 3 of the flags say how a segment is changed, the rest which one.
pub(crate) fn checkpoint(bytes: &[u8]) {
    let (flags, bytes) = flagged(bytes);
    let mut bytes = bytes.to_vec();
    if let Some(&change) = SEGMENT_CHANGES.get(usize::from(flags >> 1 & 7)) {
        door::change_segment(&mut bytes, usize::from(flags >> 4), change);
    }
    if flags & 1 == 0 {
        door::seal_checkpoint(&mut bytes, &[]);
    }
    if let Err(error) = door::checkpoint(&bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// `format.json`.
pub(crate) fn format(bytes: &[u8]) {
    let (flags, bytes) = flagged(bytes);
    let mut bytes = bytes.to_vec();
    if flags & 1 == 0 {
        door::seal_format(&mut bytes);
    }
    if let Err(error) = door::format(&bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// Element type, order and fill value, as the catalog has them.
pub(crate) fn descriptor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(descriptor) = Descriptor::from_json(text) else { return };
    let json = descriptor.to_json().unwrap_or_else(|why| panic!("{text} is not encoded: {why}"));
    let again = Descriptor::from_json(&json);
    assert!(again.is_ok_and(|again| again == descriptor), "{text} became {json}");
}

/// A data type, as NumPy's text and as JSON.
pub(crate) fn dtype(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = [Dtype::parse(text).ok(), serde_json::from_str(text).ok()];
    for dtype in parsed.into_iter().flatten() {
        let json = serde_json::to_string(&dtype);
        let json = json.unwrap_or_else(|why| panic!("{text} is not encoded: {why}"));
        let again = serde_json::from_str::<Dtype>(&json);
        assert!(again.is_ok_and(|again| again == dtype), "{text} became {json}");
        let _ = (dtype.to_string(), dtype.itemsize(), dtype.absorb(&[3, 0]));
    }
}

/// The header of a `.npy` file; the dict in it, if the bytes do not begin as such a file does.
pub(crate) fn npy(bytes: &[u8]) {
    let mut file = bytes.to_vec();
    if !bytes.starts_with(b"\x93NUMPY") {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        file = [&b"\x93NUMPY\x03\0"[..], &len, bytes].concat();
    }
    let Ok((header, data_at)) = Header::read(&mut &file[..]) else { return };
    assert!(data_at <= file.len() as u64, "the data begin behind the end of the file");
    let strides = shapes::strides(header.shape(), header.dtype().itemsize(), header.order());
    assert_eq!(strides.len(), header.shape().len());
    // Overlapping fields can be read and have no description of NumPy's.
    let Ok(written) = header.encode(npy::ALIGNMENT) else { return };
    let again = Header::read(&mut &written[..]);
    assert!(again.is_ok_and(|(again, _)| again == header), "{header:?} was written and read");
}

/// An archive of `.npy` files.
pub(crate) fn npz(bytes: &[u8]) {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).and_then(|()| file.rewind()).is_err() {
        return;
    }
    read_npz(file);
}

fn read_npz(file: File) {
    let Ok(mut npz) = Npz::open(Path::new("some.npz"), file) else { return };
    for name in npz.members() {
        let Ok((reader, _)) = npz.member(&name) else { continue };
        // As the import does it: in pieces, and as far as the header says.
        let mut reader = reader.take(4 << 20);
        if Header::read(&mut reader).is_ok() {
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        }
    }
}

/// An index such as `1:10:3, ...` on an array whose shape comes before it: `3x4 8 F 1:, ::-2`.
pub(crate) fn index(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut words = text.splitn(4, ' ');
    let (Some(shape), Some(itemsize), Some(order), Some(text)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return;
    };
    let (Ok(Shape(shape)), Ok(itemsize)) = (shape.parse(), itemsize.parse::<u64>()) else { return };
    // No data type has elements without a byte.
    let itemsize = itemsize.max(1);
    let order = if order == "F" { Order::F } else { Order::C };
    let Ok(indices) = index::parse(text) else { return };
    let Ok(selection) = index::resolve(&indices, &shape, itemsize, order) else { return };
    let nbytes = shapes::nbytes(&shape, itemsize).unwrap_or(0);
    let (lo, hi) = selection.byte_range().unwrap_or((0, 0));
    assert!(lo <= hi && hi <= nbytes, "{text} leaves an array of {nbytes} bytes: {lo}..{hi}");
    for order in [Order::C, Order::F] {
        let _ = is_contiguous(&selection, order);
        for copy in copies(&selection, order).take(1000) {
            let end = copy.array_offset.checked_add(copy.len);
            assert!(lo <= copy.array_offset && end.is_some_and(|end| end <= hi), "{text}");
        }
    }
    assert!(runs(&selection).take(1000).all(|run| run.len > 0 || itemsize == 0), "{text}");
}

/// An encoded block, of as many pages of content as the first byte says.
pub(crate) fn encoded(bytes: &[u8]) {
    let (pages, stored) = flagged(bytes);
    let mut content = vec![0; (usize::from(pages) % 64 + 1) * 4096];
    let _ = decode(stored, &mut content);
}

/// A shape and a size, as the command line reads them.
pub(crate) fn shape(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = text.parse::<Size>();
    let Ok(Shape(shape)) = text.parse::<Shape>() else { return };
    for itemsize in [0, 1, 8, u64::MAX] {
        for order in [Order::C, Order::F] {
            let _ = shapes::strides(&shape, itemsize, order);
            let _ = shapes::len(&shape, order);
            let _ = shapes::appended(&shape, order, &shape);
        }
        let _ = shapes::nbytes(&shape, itemsize);
    }
    let _ = shapes::size(&shape);
}

/// The text of an attribute.
pub(crate) fn attributes(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let text = value.to_string();
    let again = serde_json::from_str::<serde_json::Value>(&text);
    assert!(again.is_ok(), "{text} was written and is not read");
}
