//! What the catalog keeps of an array beside its shape: element type, order and fill value.
//!
//! ```json
//! {"dtype": "<f8", "order": "C", "fill": "000000000000f87f"}
//! ```
//!
//! `fill` is one element as hexadecimal bytes and is left out when it is all zeros.
//!
//! # Failure
//!
//! A descriptor comes from a disk: anything that is not one is [`ArrayError::Descriptor`].

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dtype::Dtype;
use super::error::ArrayError;
use super::shape::Order;
use crate::txn::HoleContent;
use crate::units::PAGE_BYTES;
use crate::vm::{MapError, memory_file};

/// Least bytes of a pattern file: fewer, longer mappings for large holes.
const PATTERN_BYTES_MIN: u64 = 16 << 20;
/// Most bytes of one period of a pattern: elements that are no divisor of a page need several
/// pages until the pattern repeats.
const PERIOD_BYTES_MAX: u64 = 64 << 20;

/// Element type, order and fill value of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Element type.
    pub dtype: Dtype,
    /// Which axis varies fastest.
    pub order: Order,
    /// One element; `None` for zeros.
    pub fill: Option<Arc<[u8]>>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    dtype: Dtype,
    #[serde(default)]
    order: Order,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fill: Option<String>,
}

impl Descriptor {
    /// A descriptor; a `fill` of all zeros is the same as none.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Fill`] if `fill` is not one element of `dtype`, or if elements of that size
    /// cannot be repeated over pages.
    pub fn new(dtype: Dtype, order: Order, fill: Option<&[u8]>) -> Result<Self, ArrayError> {
        let itemsize = dtype.itemsize();
        let fill = fill.filter(|fill| fill.iter().any(|&byte| byte != 0));
        if let Some(fill) = fill {
            if fill.len() as u64 != itemsize {
                let why = format!("it has {} bytes, an element has {itemsize}", fill.len());
                return Err(ArrayError::Fill { why });
            }
            if period_bytes(itemsize).is_none() {
                let why = format!("elements of {itemsize} bytes can only be filled with zeros");
                return Err(ArrayError::Fill { why });
            }
        }
        Ok(Self { dtype, order, fill: fill.map(Arc::from) })
    }

    /// As the catalog keeps it.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Descriptor`] if the data type has no JSON form.
    pub fn to_json(&self) -> Result<String, ArrayError> {
        let fill = self.fill.as_ref().map(|fill| hex(fill));
        let json = Json { dtype: self.dtype.clone(), order: self.order, fill };
        serde_json::to_string(&json).map_err(|why| ArrayError::Descriptor { why: why.to_string() })
    }

    /// From what the catalog has. A missing order is C.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Descriptor`] if the text is not a descriptor.
    pub fn from_json(text: &str) -> Result<Self, ArrayError> {
        let bad = |why: String| ArrayError::Descriptor { why };
        let json: Json = serde_json::from_str(text).map_err(|why| bad(why.to_string()))?;
        let fill =
            json.fill.as_deref().map(unhex).map(|fill| {
                fill.ok_or_else(|| bad("the fill value is not hexadecimal".to_owned()))
            });
        Self::new(json.dtype, json.order, fill.transpose()?.as_deref())
    }

    /// What pages that nobody wrote contain. Builds the pattern in memory if there is a fill.
    ///
    /// # Errors
    ///
    /// [`MapError`] if there is no memory for it.
    pub(super) fn hole_content(&self) -> Result<HoleContent, ArrayError> {
        let Some(fill) = &self.fill else { return Ok(HoleContent::Zero) };
        let period = period_bytes(fill.len() as u64).unwrap_or(PAGE_BYTES);
        let len_bytes = period * PATTERN_BYTES_MIN.div_ceil(period);
        let file = pattern_file(fill, len_bytes).map_err(crate::txn::TransactionError::from)?;
        Ok(HoleContent::Pattern { file: Arc::new(file), pages: len_bytes / PAGE_BYTES })
    }
}

fn pattern_file(fill: &[u8], len_bytes: u64) -> Result<OwnedFd, MapError> {
    let file = memory_file::create("zbigarray-fill", len_bytes)?;
    let mut writer = File::from(file);
    let chunk: Vec<u8> = fill.iter().copied().cycle().take(fill.len() * 4096).collect();
    let mut left = usize::try_from(len_bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let part = left.min(chunk.len());
        writer
            .write_all(&chunk[..part])
            .map_err(|source| MapError::System { call: "write to a memory file", source })?;
        left -= part;
    }
    memory_file::freeze(writer.as_fd())?;
    Ok(writer.into())
}

/// The least number of whole pages, in bytes, that whole elements fill.
fn period_bytes(itemsize: u64) -> Option<u64> {
    let shared = 1 << itemsize.trailing_zeros().min(PAGE_BYTES.trailing_zeros());
    itemsize.checked_mul(PAGE_BYTES / shared).filter(|&bytes| bytes <= PERIOD_BYTES_MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_survives_its_json_and_a_missing_order_is_c() {
        let dtype = Dtype::parse("<f8").unwrap();
        let fill = f64::NAN.to_le_bytes();
        let descriptor = Descriptor::new(dtype.clone(), Order::F, Some(&fill)).unwrap();
        let json = descriptor.to_json().unwrap();
        assert_eq!(Descriptor::from_json(&json).unwrap(), descriptor);
        let old = Descriptor::from_json(r#"{"dtype": "<f8"}"#).unwrap();
        assert_eq!(old, Descriptor::new(dtype, Order::C, None).unwrap());
        for bad in ["", "{}", r#"{"dtype":"O"}"#, r#"{"dtype":"<f8","fill":"0g"}"#] {
            assert!(Descriptor::from_json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_repeats_after_whole_pages_and_whole_elements() {
        for (itemsize, pages) in [(1, 1), (8, 1), (4096, 1), (3, 3), (12, 3), (52, 13)] {
            assert_eq!(period_bytes(itemsize), Some(pages * PAGE_BYTES), "{itemsize}");
        }
        assert_eq!(period_bytes(1_000_003), None);
    }
}
