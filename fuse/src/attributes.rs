//! Extended attributes: `user.KEY` is attribute KEY of an array or a group.
//!
//! ```text
//! attribute (JSON)     "K"    [1, 2]    3
//! user.KEY             K      [1, 2]    3         text without its quotes, the rest as it is
//! ```
//! What is set is JSON if it can be read as such, and text otherwise.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::Errno;
use serde_json::Value;
use zbigarray::txn::{Attributes, Node as Entry, Owner};

use crate::node::Node;
use crate::refusal::Refusal;
use crate::tree::Tree;

const PREFIX: &str = "user.";

/// The bytes of one.
pub(crate) fn get(tree: &Tree, node: &Node, name: &OsStr) -> Result<Vec<u8>, Refusal> {
    let key = key(name)?;
    let all = of(tree, node)?;
    let text = all.get(&*key).ok_or(Errno::ENODATA)?;
    Ok(match serde_json::from_str(text) {
        Ok(Value::String(text)) => text.into_bytes(),
        _ => text.as_bytes().to_vec(),
    })
}

/// All names, each with a zero byte behind it.
pub(crate) fn list(tree: &Tree, node: &Node) -> Result<Vec<u8>, Refusal> {
    let names = of(tree, node)?;
    Ok(names.keys().flat_map(|key| format!("{PREFIX}{key}\0").into_bytes()).collect())
}

/// The key of an attribute's name.
pub(crate) fn key(name: &OsStr) -> Result<Arc<str>, Refusal> {
    let key = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    Ok(key.filter(|key| !key.is_empty()).map(Arc::from).ok_or(Errno::EOPNOTSUPP)?)
}

/// Bytes that were set, as the JSON text that is kept.
pub(crate) fn value(bytes: &[u8]) -> Result<Arc<str>, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::new(Errno::EINVAL, "attributes are text, and this is not UTF-8"))?;
    let is_json = serde_json::from_str::<Value>(text).is_ok();
    Ok(Arc::from(if is_json { text.to_owned() } else { Value::from(text).to_string() }))
}

/// Whose attributes those of a node are.
pub(crate) fn owner(node: &Node) -> Option<Owner> {
    match node {
        Node::Npy(_, id) => Some(Owner::Array(*id)),
        Node::Group(_, name) => Some(Owner::Group(Arc::clone(name))),
        _ => None,
    }
}

fn of(tree: &Tree, node: &Node) -> Result<Attributes, Refusal> {
    let Some((view, owner)) = node.view().zip(owner(node)) else { return Ok(Attributes::new()) };
    Ok(match owner {
        Owner::Array(id) => {
            let snapshot = tree.snapshot_of(view, id)?;
            let entry = snapshot.catalog().array_by_id(id).ok_or(Errno::ESTALE)?;
            entry.attributes.clone()
        }
        Owner::Group(name) => match tree.snapshots.of(view)?.catalog().node(&name) {
            Some(Entry::Group(attributes)) => attributes,
            _ => return Err(Errno::ENOENT.into()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_json_or_text() {
        for (given, kept) in
            [("K", "\"K\""), ("[1, 2]", "[1, 2]"), ("3", "3"), ("\"3\"", "\"3\""), ("", "\"\"")]
        {
            assert_eq!(&*value(given.as_bytes()).unwrap(), kept);
        }
        assert!(value(&[0xFF]).is_err());
        assert!(key(OsStr::new("security.selinux")).is_err());
        assert_eq!(&*key(OsStr::new("user.units")).unwrap(), "units");
    }
}
