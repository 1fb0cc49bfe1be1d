//! What a store must hold after a commit, as plain bytes, and the comparison with what it holds.
//!
//! # Invariants
//!
//! 1. Nothing here was computed by the store: names, shapes and bytes are kept by the programs
//!    that wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zbigarray::storage::catalog::Node;
use zbigarray::storage::engine::read_checked;
use zbigarray::storage::extent::Source;
use zbigarray::storage::local::LocalEngine;
use zbigarray::storage::state::State;
use zbigarray::units::{PAGE_LEN, PageRange};

/// One array.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) shape: Vec<u64>,
    pub(crate) attributes: BTreeMap<String, String>,
    /// What elements have that nobody wrote.
    pub(crate) fill: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
}

/// Everything in a store as of one commit.
#[derive(Clone, Default, Debug)]
pub(crate) struct Version {
    pub(crate) arrays: BTreeMap<String, Arc<Held>>,
    /// `None` if the program does not keep account of them.
    pub(crate) groups: Option<BTreeSet<String>>,
    pub(crate) tags: BTreeMap<String, u64>,
}

/// Says in what `state` differs from `version`.
pub(crate) fn compare(
    engine: &LocalEngine,
    state: &State,
    version: &Version,
) -> Result<(), String> {
    let at = format!("commit {}", state.tid);
    let nodes = || state.catalog.names();
    let arrays: Vec<&str> = nodes()
        .filter(|(_, node)| matches!(node, Node::Array(_)))
        .map(|(name, _)| &**name)
        .collect();
    let expected: Vec<&str> = version.arrays.keys().map(String::as_str).collect();
    equal(&at, "arrays", &arrays, &expected)?;
    if let Some(expected) = &version.groups {
        let groups = nodes().filter(|(_, node)| matches!(node, Node::Group(_)));
        let groups: Vec<&str> = groups.map(|(name, _)| &**name).collect();
        equal(&at, "groups", &groups, &expected.iter().map(String::as_str).collect())?;
    }
    let tags: Vec<(&str, u64)> = state.catalog.tags().map(|(tag, tid)| (&**tag, tid.0)).collect();
    let expected = version.tags.iter().map(|(tag, tid)| (tag.as_str(), *tid)).collect();
    equal(&at, "tags", &tags, &expected)?;
    version.arrays.iter().try_for_each(|(name, held)| compare_array(engine, state, name, held))
}

fn equal<T: PartialEq + std::fmt::Debug>(
    at: &str,
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{at}: {what} are {found:?} instead of {expected:?}")),
    }
}

fn compare_array(
    engine: &LocalEngine,
    state: &State,
    name: &str,
    held: &Held,
) -> Result<(), String> {
    let at = format!("commit {}, array {name}", state.tid);
    let entry = state.catalog.array(name).ok_or_else(|| format!("{at} is missing"))?;
    equal(&at, "the axes", &&*entry.shape, &held.shape.as_slice())?;
    let attributes: BTreeMap<String, String> =
        entry.attributes.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    equal(&at, "the attributes", &attributes, &held.attributes)?;
    let pages = PageRange::new(0, held.bytes.len().div_ceil(PAGE_LEN) as u64);
    let segments = state.page_map(entry.id).lookup(pages);
    let mut bytes = Vec::new();
    for segment in segments.map_err(|error| format!("{at}: {error}"))? {
        let start = usize::try_from(segment.pages.start_byte()).unwrap();
        let count = u32::try_from(segment.pages.count()).unwrap();
        bytes.resize(count as usize * PAGE_LEN, 0);
        match &segment.source {
            Source::Hole => {
                let phase = start % held.fill.len();
                let pattern = held.fill.iter().cycle().skip(phase);
                bytes.iter_mut().zip(pattern).for_each(|(byte, &fill)| *byte = fill);
            }
            Source::Extent { extent, skip } => {
                let wanted = *skip..*skip + count;
                let read = read_checked(engine, extent, wanted, &mut bytes);
                read.map_err(|error| format!("{at}, page {}: {error}", segment.pages.start))?;
            }
        }
        let end = held.bytes.len().min(start + bytes.len());
        let expected = &held.bytes[start.min(end)..end];
        let found = &bytes[..expected.len()];
        if found != expected {
            let byte = found.iter().zip(expected).position(|(a, b)| a != b).unwrap();
            let page = (start + byte) / PAGE_LEN;
            return Err(format!("{at}: wrong bytes from page {page} byte {}", byte % PAGE_LEN));
        }
    }
    Ok(())
}
