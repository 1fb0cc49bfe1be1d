//! Names, entries of arrays and whole catalogs as bytes.
//!
//! ```text
//! catalog   next id | attributes of the root | names, ascending | tags, ascending
//! name      text | 0, attributes of a group  or  1, entry of an array
//! entry     id | shape | block bytes, codec | descriptor | attributes | created | changed
//! ```
//!
//! Opening a store decodes all of its names, so this is made for many: neighbours share what they
//! have in common, and nothing is searched that the order of the names tells.
//!
//! # Failure
//!
//! As in [`codec`](super::codec).

use std::sync::Arc;

use super::codec::{Decoder, Encoder, Malformed, decode_flag, malformed};
use crate::storage::catalog::{ArrayEntry, Attributes, Catalog, CatalogChange, CatalogError};
use crate::storage::catalog::{Node, Restoration};
use crate::storage::encoding::Codec;
use crate::units::{ArrayId, Tid};

pub(super) fn encode_shape(out: &mut Encoder, shape: &[u64]) {
    out.count(shape.len());
    shape.iter().for_each(|&len| out.u64(len));
}

pub(super) fn decode_shape(from: &mut Decoder<'_>) -> Result<Arc<[u64]>, Malformed> {
    Ok(decode_lens(from)?.collect())
}

fn decode_lens<'a>(
    from: &mut Decoder<'a>,
) -> Result<impl Iterator<Item = u64> + Clone + use<'a>, Malformed> {
    let axes = from.count(8)?;
    let lens = from.bytes(axes * 8)?.as_chunks::<8>().0;
    Ok(lens.iter().map(|len| u64::from_le_bytes(*len)))
}

fn encode_attributes(out: &mut Encoder, attributes: &Attributes) {
    out.count(attributes.len());
    for (key, value) in attributes {
        out.text(key);
        out.text(value);
    }
}

fn decode_attributes(from: &mut Decoder<'_>) -> Result<Attributes, Malformed> {
    let count = from.count(8)?;
    (0..count).map(|_| Ok((from.text()?, from.text()?))).collect()
}

pub(super) fn encode_entry(out: &mut Encoder, entry: &ArrayEntry) {
    out.u64(entry.id.0);
    encode_shape(out, &entry.shape);
    // Fewer than 2^32: the upper half says the codec.
    out.u64(entry.block_bytes | u64::from(entry.codec.word()) << 32);
    out.text(&entry.descriptor);
    encode_attributes(out, &entry.attributes);
    out.u64(entry.created.0);
    out.u64(entry.changed.0);
}

pub(super) fn decode_codec(word: u32) -> Result<Codec, Malformed> {
    Codec::from_word(word).ok_or_else(|| Malformed("a codec is not known".to_owned()))
}

/// The id of an array, which leaves room for those that a transaction gives provisionally.
fn decode_id(from: &mut Decoder<'_>) -> Result<ArrayId, Malformed> {
    match from.u64()? {
        id if id < ArrayId::BELIEVED_MAX.0 => Ok(ArrayId(id)),
        _ => malformed("an array has an impossible id"),
    }
}

/// Shape and descriptor of the entry before: most arrays of a store have them from few, and equal
/// neighbours share them.
#[derive(Default)]
struct Alike {
    shape: Arc<[u64]>,
    descriptor: Arc<str>,
}

/// Decodes an entry that has no neighbours.
pub(super) fn decode_entry_alone(from: &mut Decoder<'_>) -> Result<ArrayEntry, Malformed> {
    decode_entry(from, &mut Alike::default())
}

fn decode_entry(from: &mut Decoder<'_>, last: &mut Alike) -> Result<ArrayEntry, Malformed> {
    let id = decode_id(from)?;
    let lens = decode_lens(from)?;
    if !lens.clone().eq(last.shape.iter().copied()) {
        last.shape = lens.collect();
    }
    let (block_bytes, codec) = (u64::from(from.u32()?), decode_codec(from.u32()?)?);
    let descriptor = from.str()?;
    if *descriptor != *last.descriptor {
        last.descriptor = Arc::from(descriptor);
    }
    Ok(ArrayEntry {
        id,
        shape: Arc::clone(&last.shape),
        block_bytes,
        codec,
        descriptor: Arc::clone(&last.descriptor),
        attributes: decode_attributes(from)?,
        created: Tid(from.u64()?),
        changed: Tid(from.u64()?),
    })
}

/// Encodes all names and tags.
pub(super) fn encode_catalog(out: &mut Encoder, catalog: &Catalog) {
    out.u64(catalog.next_array().0);
    encode_attributes(out, catalog.root());
    out.count(catalog.names().count());
    for (name, node) in catalog.names() {
        out.text(name);
        match node {
            Node::Group(attributes) => {
                out.u8(0);
                encode_attributes(out, attributes);
            }
            Node::Array(id) => {
                out.u8(1);
                let Some(entry) = catalog.array_by_id(*id) else {
                    panic!("the catalog names array {id} and does not have it")
                };
                encode_entry(out, entry);
            }
        }
    }
    out.count(catalog.tags().count());
    for (tag, tid) in catalog.tags() {
        out.text(tag);
        out.u64(tid.0);
    }
}

/// Decodes what [`encode_catalog`] encoded, in which names ascend.
pub(super) fn decode_catalog(from: &mut Decoder<'_>) -> Result<Catalog, Malformed> {
    let fits = |why: CatalogError| Malformed(why.to_string());
    let next = decode_id(from)?;
    let root = decode_attributes(from)?;
    let mut restored = Restoration::default();
    let mut last = Alike::default();
    for _ in 0..from.count(5)? {
        let name = from.text()?;
        if decode_flag(from)? {
            restored.array(name, decode_entry(from, &mut last)?).map_err(fits)?;
        } else {
            restored.group(name, decode_attributes(from)?).map_err(fits)?;
        }
    }
    let mut catalog = restored.finish(root, next).map_err(fits)?;
    for _ in 0..from.count(12)? {
        let change = CatalogChange::Tag { tag: from.text()?, tid: Some(Tid(from.u64()?)) };
        catalog.apply(&change, Tid::ZERO).map_err(fits)?;
    }
    Ok(catalog)
}
