//! An array as a Zarr v3 array: its metadata, and which of its bytes each chunk is. Pure.
//!
//! ```text
//! shape (24, 721, 1440) f4, blocks of 2 MiB: one block holds half a row of the first axis
//! chunk shape           (1, 364, 1440): whole trailing axes, part of one, 1 before it
//! chunk (3, 1, 0)   ->  bytes 3 * row + 364 * 1440 * 4 .. 4 * row, then fill
//! ```
//!
//! # Invariants
//!
//! 1. The elements of a chunk that exist are one run of the array's bytes, so a chunk is served
//!    without being put together.
//! 2. A chunk has the size of every other: at the edge what does not exist has the fill value.
//!
//! Source: the Zarr core specification, version 3.1. Checked by `fuse/tests/mount.rs` with
//! zarr-python, xarray, dask and tensorstore.

use std::ops::Range;

use serde_json::{Map, Value, json};
use zbigarray::Order;
use zbigarray::array::{ByteOrder, Descriptor, Dtype, Kind, shape};
use zbigarray::txn::Attributes;

/// The attribute that names the axes, as xarray's older convention has it.
const DIMENSIONS: &str = "_ARRAY_DIMENSIONS";

/// How an array is cut into chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Grid {
    shape: Vec<u64>,
    chunk: Vec<u64>,
    strides: Vec<u64>,
    itemsize: u64,
}

/// The bytes of a chunk: a run of the array's, then so many bytes of fill.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// Bytes of the array.
    pub(crate) bytes: Range<u64>,
    /// Bytes of fill behind them.
    pub(crate) fill: u64,
}

impl Grid {
    /// Chunks of at most `block_bytes` bytes, or of one element.
    pub(crate) fn new(shape: &[u64], itemsize: u64, order: Order, block_bytes: u64) -> Self {
        let strides = shape::strides(shape, itemsize, order);
        let mut chunk = vec![1; shape.len()];
        let mut bytes = itemsize;
        for axis in minor_first(shape.len(), order) {
            let fitting = (block_bytes / bytes.max(1)).max(1);
            chunk[axis] = shape[axis].clamp(1, fitting);
            if chunk[axis] < shape[axis] {
                break;
            }
            bytes = bytes.saturating_mul(chunk[axis]);
        }
        Self { shape: shape.to_vec(), chunk, strides, itemsize }
    }

    /// Number of chunks along an axis.
    pub(crate) fn count(&self, axis: usize) -> u64 {
        self.shape[axis].div_ceil(self.chunk[axis])
    }

    /// Number of axes.
    pub(crate) fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Bytes of each chunk.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk.iter().fold(self.itemsize, |bytes, &len| bytes.saturating_mul(len))
    }

    /// The bytes of the chunk with that index, if there is one.
    pub(crate) fn chunk(&self, index: &[u64]) -> Option<Chunk> {
        if index.len() != self.ndim() || self.shape.contains(&0) {
            return None;
        }
        let (mut start, mut nbytes) = (0, self.itemsize);
        for (axis, &at) in index.iter().enumerate() {
            if at >= self.count(axis) {
                return None;
            }
            let first = at * self.chunk[axis];
            start += first * self.strides[axis];
            nbytes *= self.chunk[axis].min(self.shape[axis] - first);
        }
        Some(Chunk { bytes: start..start + nbytes, fill: self.chunk_bytes() - nbytes })
    }
}

/// The axes, the one that varies fastest first.
fn minor_first(ndim: usize, order: Order) -> Vec<usize> {
    match order {
        Order::C => (0..ndim).rev().collect(),
        Order::F => (0..ndim).collect(),
    }
}

/// `zarr.json` of an array; `None` if Zarr has no name for its elements.
pub(crate) fn array_metadata(
    descriptor: &Descriptor,
    grid: &Grid,
    name: &str,
    attributes: &Attributes,
) -> Option<Value> {
    let dtype = &descriptor.dtype;
    let ndim = grid.ndim();
    let mut codecs = Vec::new();
    if descriptor.order == Order::F && ndim > 1 {
        let order: Vec<usize> = (0..ndim).rev().collect();
        codecs.push(json!({"name": "transpose", "configuration": {"order": order}}));
    }
    codecs.push(match dtype.byte_order() {
        ByteOrder::Little => json!({"name": "bytes", "configuration": {"endian": "little"}}),
        ByteOrder::Big => json!({"name": "bytes", "configuration": {"endian": "big"}}),
        ByteOrder::None => json!({"name": "bytes"}),
    });
    let attributes = values(attributes);
    Some(json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": grid.shape,
        "data_type": data_type(dtype)?,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": grid.chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": codecs,
        "fill_value": fill_value(dtype, descriptor.fill.as_deref())?,
        "dimension_names": dimension_names(name, ndim, &attributes),
        "attributes": attributes,
        "storage_transformers": [],
    }))
}

/// `zarr.json` of a group with all metadata below it.
pub(crate) fn group_metadata(attributes: &Attributes, below: Map<String, Value>) -> Value {
    json!({
        "zarr_format": 3,
        "node_type": "group",
        "attributes": values(attributes),
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": false,
            "metadata": below,
        },
    })
}

/// Attributes as JSON values; text that is none stays text.
pub(crate) fn values(attributes: &Attributes) -> Map<String, Value> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    attributes.iter().map(|(key, text)| (key.to_string(), value(text))).collect()
}

/// The names of the axes: what an attribute says, else names no other array has, so that all
/// arrays of a group can be one xarray dataset.
fn dimension_names(name: &str, ndim: usize, attributes: &Map<String, Value>) -> Vec<String> {
    let given = attributes.get(DIMENSIONS).and_then(Value::as_array);
    let given = given.map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned));
    match given.map(Iterator::collect::<Vec<String>>) {
        Some(names) if names.len() == ndim => names,
        _ => (0..ndim).map(|axis| format!("{name}_{axis}")).collect(),
    }
}

/// Zarr's name for a type of elements.
fn data_type(dtype: &Dtype) -> Option<Value> {
    let bits = dtype.itemsize() * 8;
    Some(match (dtype.kind(), bits) {
        (Kind::Bool, _) => json!("bool"),
        (Kind::Int, _) => json!(format!("int{bits}")),
        (Kind::Uint, _) => json!(format!("uint{bits}")),
        (Kind::Float, ..=64) => json!(format!("float{bits}")),
        (Kind::Complex, ..=128) => json!(format!("complex{bits}")),
        (Kind::Datetime | Kind::Timedelta, _) => {
            let name = if dtype.kind() == Kind::Datetime { "datetime64" } else { "timedelta64" };
            let (factor, unit) = dtype.time_unit().unwrap_or((1, "generic"));
            let configuration = json!({"unit": unit, "scale_factor": factor});
            json!({"name": format!("numpy.{name}"), "configuration": configuration})
        }
        (Kind::Void, _) => json!(format!("r{bits}")),
        _ => return None,
    })
}

/// The element that nobody wrote, in the form its type has in JSON.
fn fill_value(dtype: &Dtype, fill: Option<&[u8]>) -> Option<Value> {
    let itemsize = usize::try_from(dtype.itemsize()).ok()?;
    let mut bytes = fill.map_or_else(|| vec![0; itemsize], <[u8]>::to_vec);
    if dtype.byte_order() == ByteOrder::Big {
        let part = if dtype.kind() == Kind::Complex { itemsize / 2 } else { itemsize };
        bytes.chunks_mut(part.max(1)).for_each(<[u8]>::reverse);
    }
    Some(match dtype.kind() {
        Kind::Bool => json!(bytes != [0]),
        Kind::Int | Kind::Datetime | Kind::Timedelta => json!(signed(&bytes)),
        Kind::Uint => json!(unsigned(&bytes)),
        Kind::Float => float(&bytes),
        Kind::Complex => {
            let (real, imaginary) = bytes.split_at(itemsize / 2);
            json!([float(real), float(imaginary)])
        }
        _ => json!(bytes),
    })
}

fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len().min(8);
    (unsigned(bytes) << unused).cast_signed() >> unused
}

/// A float as Zarr writes it: a number, a name, or its bits where neither says which.
fn float(bytes: &[u8]) -> Value {
    let bits = unsigned(bytes);
    let (value, is_plain_nan) = match bytes.len() {
        4 => {
            let bits = u32::try_from(bits).unwrap_or(0);
            (Some(f64::from(f32::from_bits(bits))), bits == f32::NAN.to_bits())
        }
        8 => (Some(f64::from_bits(bits)), bits == f64::NAN.to_bits()),
        _ => ((bits == 0).then_some(0.0), false),
    };
    match value {
        Some(value) if value.is_finite() => json!(value),
        Some(f64::INFINITY) => json!("Infinity"),
        Some(f64::NEG_INFINITY) => json!("-Infinity"),
        _ if is_plain_nan => json!("NaN"),
        _ => json!(format!("0x{bits:0width$x}", width = 2 * bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn all_chunks(grid: &Grid) -> Vec<(Vec<u64>, Chunk)> {
        let counts: Vec<u64> = (0..grid.ndim()).map(|axis| grid.count(axis)).collect();
        let total: u64 = counts.iter().product();
        let indices = (0..total).map(|mut at| {
            let mut index = vec![0; counts.len()];
            for axis in (0..counts.len()).rev() {
                index[axis] = at % counts[axis];
                at /= counts[axis];
            }
            index
        });
        indices.filter_map(|index| grid.chunk(&index).map(|chunk| (index, chunk))).collect()
    }

    #[test]
    fn chunks_cover_every_byte_once_and_none_is_larger_than_a_block() {
        for order in [Order::C, Order::F] {
            for shape in [
                &[][..],
                &[1],
                &[1000],
                &[10, 10],
                &[7, 300, 3],
                &[3, 1, 1, 500],
                &[2, 5000],
                &[5000, 2],
            ] {
                for block_bytes in [64, 512, 4096, 1 << 20] {
                    let grid = Grid::new(shape, 8, order, block_bytes);
                    let mut seen =
                        vec![0_u8; usize::try_from(8 * shape.iter().product::<u64>()).unwrap()];
                    for (index, chunk) in all_chunks(&grid) {
                        let len = chunk.bytes.end - chunk.bytes.start;
                        assert_eq!(len + chunk.fill, grid.chunk_bytes(), "{shape:?} {index:?}");
                        assert!(grid.chunk_bytes() <= block_bytes.max(8));
                        for at in chunk.bytes {
                            seen[usize::try_from(at).unwrap()] += 1;
                        }
                    }
                    assert!(seen.iter().all(|&times| times == 1), "{shape:?} {order:?}");
                }
            }
        }
    }

    #[test]
    fn arrays_without_elements_have_no_chunks() {
        let grid = Grid::new(&[3, 0], 8, Order::C, 4096);
        assert_eq!((grid.chunk.clone(), grid.chunk(&[0, 0])), (vec![3, 1], None));
        assert_eq!(Grid::new(&[3], 8, Order::C, 4096).chunk(&[1]), None);
        assert_eq!(Grid::new(&[3], 8, Order::C, 4096).chunk(&[0, 0]), None);
    }

    fn fill_of(dtype: &str, fill: &[u8]) -> Value {
        fill_value(&Dtype::parse(dtype).unwrap(), Some(fill)).unwrap()
    }

    #[test]
    fn fill_values_are_what_the_bytes_mean_in_their_order() {
        assert_eq!(fill_of("<i2", &[0xFE, 0xFF]), json!(-2));
        assert_eq!(fill_of(">i2", &[0xFF, 0xFE]), json!(-2));
        assert_eq!(fill_of("<u8", &[0xFF; 8]), json!(u64::MAX));
        assert_eq!(fill_of("<f4", &1.5_f32.to_bits().to_le_bytes()), json!(1.5));
        let mut big = 2.5_f64.to_bits().to_le_bytes();
        big.reverse();
        assert_eq!(fill_of(">f8", &big), json!(2.5));
        assert_eq!(fill_of("<f4", &f32::NAN.to_bits().to_le_bytes()), json!("NaN"));
        assert_eq!(fill_of("<f4", &0x7fc0_0001_u32.to_le_bytes()), json!("0x7fc00001"));
        assert_eq!(fill_of("<f8", &f64::INFINITY.to_bits().to_le_bytes()), json!("Infinity"));
        assert_eq!(fill_of("?", &[1]), json!(true));
        let complex = [1.0_f32.to_bits().to_le_bytes(), 2.0_f32.to_bits().to_le_bytes()].concat();
        assert_eq!(fill_of("<c8", &complex), json!([1.0, 2.0]));
    }

    #[test]
    fn metadata_name_the_order_the_type_and_the_axes() {
        let descriptor = Descriptor::new(Dtype::parse(">f4").unwrap(), Order::F, None).unwrap();
        let grid = Grid::new(&[4, 6], 4, Order::F, 1 << 21);
        let none = Attributes::new();
        let found = array_metadata(&descriptor, &grid, "t", &none).unwrap();
        assert_eq!(found["data_type"], "float32");
        assert_eq!(found["codecs"][0]["configuration"]["order"], json!([1, 0]));
        assert_eq!(found["codecs"][1]["configuration"]["endian"], "big");
        assert_eq!(found["dimension_names"], json!(["t_0", "t_1"]));
        let named = none.update(Arc::from(DIMENSIONS), Arc::from(r#"["y", "x"]"#));
        let found = array_metadata(&descriptor, &grid, "t", &named).unwrap();
        assert_eq!(found["dimension_names"], json!(["y", "x"]));
        let text = Descriptor::new(Dtype::parse("<U4").unwrap(), Order::C, None).unwrap();
        assert_eq!(array_metadata(&text, &grid, "t", &none), None);
    }
}
