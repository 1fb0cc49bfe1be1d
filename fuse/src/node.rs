//! What the files and directories of the filesystem are, and the numbers the kernel knows them by.
//!
//! ```text
//! path --lookup--> Node  <--Nodes--> inode number      kept while the kernel remembers the number
//! ```
//!
//! # Invariants
//!
//! 1. A node has one number at a time and a number one node; a number is never given out twice.
//! 2. A node is known as long as the kernel has looked it up more often than it forgot it.
//! 3. An array is known by its identity, not by its name, so open files survive a rename.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use zbigarray::Tid;
use zbigarray::units::ArrayId;

/// The number of the root directory, by the protocol.
pub(crate) const ROOT: u64 = 1;

/// The state of the store that a path shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum View {
    /// The newest commit.
    Head,
    /// That commit, for ever.
    At(Tid),
}

/// From where a directory of the Zarr view was reached: a directory has one place only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Via {
    /// `array.zarr`.
    Array,
    /// Below `group.zarr`.
    Group,
}

/// A file or directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Node {
    /// `/`.
    Root,
    /// `/at`.
    Commits,
    /// `/tags`, or a part of a tag with `/` in it.
    Tags(Arc<str>),
    /// `/tags/TAG`, a link into `/at`.
    Tag(Arc<str>),
    /// `/at/TIME`, a link to the commit that was the newest then.
    Time(Arc<str>),
    /// `/.zba`.
    About,
    /// `/.zba/commits`.
    CommitLog,
    /// `/.zba/stats`.
    Stats,
    /// `/.zba/log`.
    Messages,
    /// A group, by name; the root group is `""`.
    Group(View, Arc<str>),
    /// `array.npy`.
    Npy(View, ArrayId),
    /// `array.json`.
    Json(View, ArrayId),
    /// `group.zarr`.
    ZarrGroup(View, Arc<str>),
    /// `group.zarr/zarr.json`.
    ZarrGroupJson(View, Arc<str>),
    /// `array.zarr`.
    ZarrArray(View, ArrayId, Via),
    /// `array.zarr/zarr.json`.
    ZarrArrayJson(View, ArrayId),
    /// `array.zarr/c/...`: chunks whose index begins so.
    ZarrChunks(View, ArrayId, Via, Arc<[u64]>),
    /// A chunk.
    ZarrChunk(View, ArrayId, Arc<[u64]>),
    /// A file that is being created: its name, and which attempt.
    New(Arc<str>, u64),
}

impl Node {
    /// The state of the store that it shows.
    pub(crate) fn view(&self) -> Option<View> {
        match self {
            Self::Group(view, _)
            | Self::Npy(view, _)
            | Self::Json(view, _)
            | Self::ZarrGroup(view, _)
            | Self::ZarrGroupJson(view, _)
            | Self::ZarrArray(view, ..)
            | Self::ZarrArrayJson(view, _)
            | Self::ZarrChunks(view, ..)
            | Self::ZarrChunk(view, ..) => Some(*view),
            _ => None,
        }
    }

    /// The array whose content or metadata it shows.
    pub(crate) fn array(&self) -> Option<ArrayId> {
        match self {
            Self::Npy(_, id)
            | Self::Json(_, id)
            | Self::ZarrArray(_, id, _)
            | Self::ZarrArrayJson(_, id)
            | Self::ZarrChunks(_, id, ..)
            | Self::ZarrChunk(_, id, _) => Some(*id),
            _ => None,
        }
    }
}

/// The table of nodes.
pub(crate) struct Nodes(Mutex<Table>);

struct Table {
    by_number: HashMap<u64, Known>,
    by_node: HashMap<Node, u64>,
    next: u64,
}

struct Known {
    node: Node,
    lookups: u64,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let root = Known { node: Node::Root, lookups: 1 };
        let by_number = HashMap::from([(ROOT, root)]);
        let by_node = HashMap::from([(Node::Root, ROOT)]);
        Self(Mutex::new(Table { by_number, by_node, next: ROOT + 1 }))
    }

    /// The node with a number.
    pub(crate) fn get(&self, number: u64) -> Option<Node> {
        self.0.lock().by_number.get(&number).map(|known| known.node.clone())
    }

    /// The number of a node that the kernel knows.
    pub(crate) fn number(&self, node: &Node) -> Option<u64> {
        self.0.lock().by_node.get(node).copied()
    }

    /// The number of a node that the kernel looks up now.
    pub(crate) fn look_up(&self, node: &Node) -> u64 {
        let mut table = self.0.lock();
        let number = match table.by_node.get(node) {
            Some(&number) => number,
            None => {
                let number = table.next;
                table.next += 1;
                table.by_node.insert(node.clone(), number);
                table.by_number.insert(number, Known { node: node.clone(), lookups: 0 });
                number
            }
        };
        if let Some(known) = table.by_number.get_mut(&number) {
            known.lookups += 1;
        }
        number
    }

    /// The kernel forgot `count` lookups of a number.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        let mut table = self.0.lock();
        let Some(known) = table.by_number.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 && number != ROOT {
            let node = known.node.clone();
            table.by_number.remove(&number);
            if table.by_node.get(&node) == Some(&number) {
                table.by_node.remove(&node);
            }
        }
    }

    /// A number stands for another node from now on: a file that was created became an array.
    pub(crate) fn become_node(&self, number: u64, node: Node) {
        let mut table = self.0.lock();
        let Some(known) = table.by_number.get_mut(&number) else { return };
        let before = std::mem::replace(&mut known.node, node.clone());
        table.by_node.remove(&before);
        table.by_node.insert(node, number);
    }

    /// A group, with all below it, has another name in the newest commit.
    pub(crate) fn move_group(&self, from: &str, to: &str) {
        let moved = |name: &str| {
            let rest = name.strip_prefix(from)?;
            let is_below = rest.is_empty() || rest.starts_with('/');
            is_below.then(|| Arc::from(format!("{to}{rest}")))
        };
        for (number, node) in self.matching(|node| node.view() == Some(View::Head)) {
            let node = match &node {
                Node::Group(view, name) => moved(name).map(|name| Node::Group(*view, name)),
                Node::ZarrGroup(view, name) => moved(name).map(|name| Node::ZarrGroup(*view, name)),
                Node::ZarrGroupJson(view, name) => {
                    moved(name).map(|name| Node::ZarrGroupJson(*view, name))
                }
                _ => None,
            };
            if let Some(node) = node {
                self.become_node(number, node);
            }
        }
    }

    /// All known nodes of the newest commit that show something of `array`, and their numbers.
    pub(crate) fn of_array(&self, array: ArrayId) -> Vec<(u64, Node)> {
        self.matching(|node| node.view() == Some(View::Head) && node.array() == Some(array))
    }

    /// All known nodes that fit.
    pub(crate) fn matching(&self, fits: impl Fn(&Node) -> bool) -> Vec<(u64, Node)> {
        let table = self.0.lock();
        let fitting = table.by_number.iter().filter(|(_, known)| fits(&known.node));
        fitting.map(|(&number, known)| (number, known.node.clone())).collect()
    }

    /// How many are known.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().by_number.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_number_until_all_its_lookups_are_forgotten() {
        let nodes = Nodes::new();
        let node = Node::Npy(View::Head, ArrayId(3));
        let number = nodes.look_up(&node);
        assert_eq!(nodes.look_up(&node), number);
        nodes.forget(number, 1);
        assert_eq!(nodes.get(number), Some(node.clone()));
        nodes.forget(number, 1);
        assert_eq!(nodes.get(number), None);
        assert_ne!(nodes.look_up(&node), number, "numbers are not used again");
        nodes.forget(ROOT, 99);
        assert_eq!(nodes.get(ROOT), Some(Node::Root));
    }

    #[test]
    fn a_group_that_is_moved_keeps_its_number_and_so_do_those_below() {
        let nodes = Nodes::new();
        let group = |name: &str| Node::Group(View::Head, Arc::from(name));
        let numbers = ["g", "g/h", "gh"].map(|name| nodes.look_up(&group(name)));
        nodes.move_group("g", "k/l");
        let now = ["k/l", "k/l/h", "gh"].map(|name| nodes.look_up(&group(name)));
        assert_eq!(numbers, now);
        assert_eq!(nodes.number(&group("g")), None);
    }

    #[test]
    fn a_created_file_becomes_an_array_under_the_same_number() {
        let nodes = Nodes::new();
        let number = nodes.look_up(&Node::New(Arc::from("a"), 0));
        let array = Node::Npy(View::Head, ArrayId(1));
        nodes.become_node(number, array.clone());
        assert_eq!(nodes.look_up(&array), number);
        assert_eq!(nodes.of_array(ArrayId(1)), [(number, array)]);
    }
}
