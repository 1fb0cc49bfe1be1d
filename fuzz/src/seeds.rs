//! Bytes that the targets take without an error, for fuzzers to begin with.

use std::io::{Cursor, Write};

use zbigarray::Codec;
use zbigarray::array::{Dtype, Header, npy};
use zbigarray::storage::encoding::encode;
use zbigarray::storage::local::door;

use super::image::images;
use super::mutate::{Dice, EXTREMES};
use super::targets::SEGMENT_CHANGES;

/// The files of all images whose path begins so, each behind `flags`.
fn files(prefix: &str, flags: u8) -> Vec<Vec<u8>> {
    let files = images().iter().flat_map(|image| &image.files);
    let files = files.filter(|(path, _)| path.starts_with(prefix));
    files.map(|(_, content)| [&[flags], content.bytes.as_slice()].concat()).collect()
}

/// Log files.
#[must_use]
pub(crate) fn log() -> Vec<Vec<u8>> {
    files("log/", 0)
}

/// Checkpoints, as they are and with each of the first segments changed in every way.
#[must_use]
pub(crate) fn checkpoint() -> Vec<Vec<u8>> {
    let whole = files("checkpoint/", NO_CHANGE);
    let changes = (0..SEGMENTS).flat_map(|n| (0..KINDS).map(move |kind| n << 4 | kind << 1));
    let changed = changes.flat_map(|flags| files("checkpoint/", flags));
    whole.iter().cloned().chain(changed).collect()
}

/// Flags that change no segment.
const NO_CHANGE: u8 = 7 << 1;
/// Ways to change a segment: see `targets::SEGMENT_CHANGES`.
const KINDS: u8 = 5;
/// Segments that are changed.
const SEGMENTS: u8 = 6;
const _: () = assert!(KINDS as usize == SEGMENT_CHANGES.len());

/// Format files.
#[must_use]
pub(crate) fn format() -> Vec<Vec<u8>> {
    files("format.json", 0).into_iter().take(1).collect()
}

/// Bodies of the frames of all log files whose kind is this.
fn bodies(kind: u32) -> Vec<(u8, Vec<u8>)> {
    let logs = log();
    logs.iter().flat_map(|log| door::bodies(&log[1..], kind)).collect()
}

/// Bodies of commit records, each behind the number of its inline pages.
#[must_use]
pub(crate) fn record() -> Vec<Vec<u8>> {
    let bodies = bodies(0).into_iter();
    bodies.map(|(inline, body)| [&[inline], body.as_slice()].concat()).collect()
}

/// Bodies of whole states.
#[must_use]
pub(crate) fn state() -> Vec<Vec<u8>> {
    bodies(1).into_iter().map(|(_, body)| body).collect()
}

/// The catalogs that whole states begin with.
#[must_use]
pub(crate) fn catalog() -> Vec<Vec<u8>> {
    state()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Descriptors of arrays.
#[must_use]
pub(crate) fn descriptor() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"dtype": "<f8", "order": "C", "fill": "000000000000f87f"}"#,
        r#"{"dtype": [["x", "<i4"], ["y", "<f8", [2]]], "order": "F"}"#,
        r#"{"dtype": {"names": ["x"], "formats": ["<i4"], "offsets": [4], "itemsize": 16}}"#,
        r#"{"dtype": ["|u1", [2, 3]], "fill": "010203040506"}"#,
    ])
}

/// Data types as text and as JSON.
#[must_use]
pub(crate) fn dtype() -> Vec<Vec<u8>> {
    texts(&[
        "float64",
        ">i4",
        "(2,3)f8",
        "i4, 3f8, (2,)S5",
        "<M8[25us]",
        "|V16",
        r#""<U7""#,
        r#"[["x", "<i4"], ["y", [["z", "<f8", [2]], ["", "|V4"]]]]"#,
        r#"{"names": ["a", "b"], "formats": ["<i4", "<c16"], "offsets": [0, 8], "itemsize": 24}"#,
        r#"["<f8", [2, 3]]"#,
    ])
}

/// `.npy` headers, whole and as dicts.
///
/// # Panics
///
/// If a header of ours cannot be written.
#[must_use]
pub(crate) fn npy() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }",
        "{'descr': [('x', '<i4'), (('title', 'y'), '<f8', (2,))], 'fortran_order': True, \
         'shape': (3L,)}",
        "{'descr': {'names': ['a'], 'formats': ['<U3'], 'offsets': [8], 'itemsize': 24}, \
         'fortran_order': False, 'shape': ()}",
    ]);
    for dtype in ["<f8", "i4, 3f8"] {
        let dtype = Dtype::parse(dtype).expect("a data type");
        let header = Header::new(&dtype, zbigarray::Order::C, &[3, 0, 9]).expect("a shape");
        seeds.push(header.encode(npy::ALIGNMENT).expect("a header"));
    }
    seeds
}

/// Archives of `.npy` files, stored and deflated.
///
/// # Panics
///
/// If an archive cannot be written to memory.
#[must_use]
pub(crate) fn npz() -> Vec<Vec<u8>> {
    let dtype = Dtype::parse("<f8").expect("a data type");
    let header = Header::new(&dtype, zbigarray::Order::C, &[40]).expect("a shape");
    let member = [header.encode(npy::ALIGNMENT).expect("a header"), vec![1; 320]].concat();
    let archive = |method| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for name in ["a.npy", "group/b.npy", "notes.txt"] {
            zip.start_file(name, options).expect("memory takes it");
            zip.write_all(&member).expect("memory takes it");
        }
        zip.finish().expect("memory takes it").into_inner()
    };
    vec![archive(zip::CompressionMethod::Stored), archive(zip::CompressionMethod::Deflated)]
}

/// Shapes, element sizes, orders and indexes.
#[must_use]
pub(crate) fn index() -> Vec<Vec<u8>> {
    texts(&[
        "3x4 8 C 1:, ::-2",
        "10,20,30 1 F ..., 5, None",
        "() 8 C ()",
        "18446744073709551615 1 C ::4611686018427387904",
        "0,5 2 F -1, np.newaxis, 2:-3:3",
    ])
}

/// Encoded blocks of three pages.
#[must_use]
pub(crate) fn encoded() -> Vec<Vec<u8>> {
    let content: Vec<u8> = (0..1536u64).flat_map(|n| (n * 5).to_le_bytes()).collect();
    let codecs = ["lz4", "lz4+delta", "zstd:1", "zstd:19+shuffle"];
    let codecs = codecs.iter().filter_map(|text| text.parse::<Codec>().ok());
    let stored = codecs.filter_map(|codec| encode(codec.for_elements_of(8), &content));
    stored.map(|stored| [&[2], &stored[..]].concat()).collect()
}

/// Shapes and sizes.
#[must_use]
pub(crate) fn shape() -> Vec<Vec<u8>> {
    texts(&["10,20", "(10, 20)", "10x20", "()", "(5,)", "2MiB", "1.5GiB", "4096", "3TB"])
}

/// Attributes.
#[must_use]
pub(crate) fn attributes() -> Vec<Vec<u8>> {
    texts(&[r#"{"a": [1, -2.5e300, null, true, "x\u00e9\ud83d\ude00"]}"#, "[[[[[[]]]]]]", "0.1"])
}

/// Scripts that change single numbers of each image.
#[must_use]
pub(crate) fn store() -> Vec<Vec<u8>> {
    let mut dice = Dice::new(7);
    let mut seeds = Vec::new();
    for flags in 0..4 {
        seeds.push(vec![flags | 16]);
        for _ in 0..16 {
            let mut script = vec![flags | if dice.below(3) == 0 { 16 } else { 0 }];
            for _ in 0..1 + dice.below(3) {
                script.extend(&dice.roll().to_le_bytes()[..2]);
                script.extend([dice.roll().to_le_bytes()[0], dice.roll().to_le_bytes()[0], 4]);
                script.extend([u8::try_from(dice.below(EXTREMES.len())).unwrap_or(0), 0, 0]);
            }
            seeds.push(script);
        }
    }
    seeds
}
