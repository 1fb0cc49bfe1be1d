//! Names and what they stand for: arrays, groups, attributes and tags, as an immutable value.
//!
//! ```text
//! ""                      the root group, always there
//! "climate"               group     attributes {"source": "..."}
//! "climate/t2m"           array #3  shape, block size, descriptor, attributes
//! tags: "v1" -> tid 17
//! ```
//!
//! The catalog holds an array's *descriptor* (element type, order, fill value) as text that only
//! the array layer understands.
//!
//! # Invariants
//!
//! 1. The parent of every name is a group.
//! 2. An array id stands for one array for ever: ids are given out once, in ascending order.
//! 3. A name has no empty, `.` or `..` part, no control character, at most [`NAME_BYTES_MAX`] bytes
//!    and at most [`PARTS_MAX`] parts.
//!
//! # Failure
//!
//! A change that does not fit the catalog is a [`CatalogError`]; the catalog stays as it was.

use std::sync::Arc;

use imbl::OrdMap;
use thiserror::Error;

use super::encoding::Codec;
use super::layered::Layered;
use crate::units::{ArrayId, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Tid};

/// Most bytes of a name.
pub const NAME_BYTES_MAX: usize = 4096;
/// Most bytes of one part of a name, as file systems have it.
pub const PART_BYTES_MAX: usize = 255;
/// Most parts of a name: every group above it is kept as a name of its own.
pub const PARTS_MAX: usize = 64;
/// Most dimensions of an array.
pub const DIMENSIONS_MAX: usize = 64;

/// JSON values by key. The text of each value is kept as it was given.
pub type Attributes = OrdMap<Arc<str>, Arc<str>>;

/// What the catalog knows of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArrayEntry {
    /// Identity, also under another name.
    pub id: ArrayId,
    /// Length along each axis.
    pub shape: Arc<[u64]>,
    /// Bytes of a block: a power of two.
    pub block_bytes: u64,
    /// How blocks are encoded that are written from now on.
    pub codec: Codec,
    /// Element type, order and fill value, in the array layer's own JSON.
    pub descriptor: Arc<str>,
    /// Attributes of the user.
    pub attributes: Attributes,
    /// Commit that created the array.
    pub created: Tid,
    /// Commit that last changed its data or metadata.
    pub changed: Tid,
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// An array.
    Array(ArrayId),
    /// A group, with its attributes.
    Group(Attributes),
}

/// Whose attributes are meant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// Those of an array.
    Array(ArrayId),
    /// Those of the group of this name; the root group is `""`.
    Group(Arc<str>),
}

/// One change of the catalog, as a commit record holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogChange {
    /// A new array under a name that was free; its parents that are missing become groups.
    CreateArray {
        /// Name.
        name: Arc<str>,
        /// Entry. `created` and `changed` become the tid of the record.
        entry: ArrayEntry,
    },
    /// A new group under a name that was free; its parents that are missing become groups.
    CreateGroup {
        /// Name.
        name: Arc<str>,
    },
    /// The array or the empty group of this name is gone.
    Remove {
        /// Name.
        name: Arc<str>,
    },
    /// An array or a group, with all below it, has another name.
    Move {
        /// Old name.
        from: Arc<str>,
        /// New name, which was free.
        to: Arc<str>,
    },
    /// The array has another shape.
    Shape {
        /// Array.
        array: ArrayId,
        /// New shape.
        shape: Arc<[u64]>,
        /// Whether elements changed their place in the linear bytes.
        layout: bool,
    },
    /// Blocks of the array are encoded so from now on.
    Codec {
        /// Array.
        array: ArrayId,
        /// New codec.
        codec: Codec,
    },
    /// An attribute was set or, without value, removed.
    Attribute {
        /// Whose.
        owner: Owner,
        /// Key.
        key: Arc<str>,
        /// JSON text.
        value: Option<Arc<str>>,
    },
    /// A tag was set or, without tid, removed.
    Tag {
        /// Tag.
        tag: Arc<str>,
        /// The commit it names.
        tid: Option<Tid>,
    },
}

/// Why a catalog change is impossible.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogError {
    /// The name is not one.
    #[error("`{name}` is no name: {why}")]
    BadName {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something has that name already.
    #[error("`{name}` exists already")]
    Exists {
        /// Name.
        name: String,
    },
    /// Nothing has that name.
    #[error("there is no array or group `{name}`")]
    NotFound {
        /// Name.
        name: String,
    },
    /// A part of the name above the last is an array.
    #[error("`{name}` would lie below `{array}`, which is an array and not a group")]
    ParentIsArray {
        /// Name.
        name: String,
        /// The array in the way.
        array: String,
    },
    /// A group still has members.
    #[error("group `{name}` is not empty; remove what is in it first, or remove it recursively")]
    NotEmpty {
        /// Name.
        name: String,
    },
    /// A group would move into itself.
    #[error("group `{from}` cannot move below itself, to `{to}`")]
    IntoItself {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// No array has that id.
    #[error("there is no array with id {array}; it was removed")]
    NoArray {
        /// Id.
        array: ArrayId,
    },
    /// The tag does not exist.
    #[error("there is no tag `{tag}`")]
    NoTag {
        /// Tag.
        tag: String,
    },
    /// An array entry that cannot be.
    #[error("array `{name}` cannot be: {why}")]
    BadEntry {
        /// Name.
        name: String,
        /// Reason.
        why: &'static str,
    },
}

/// All names of a store as of one commit. A clone costs O(1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    // Invariants 1 and 3. Does not hold the root group.
    names: Layered<Arc<str>, Node>,
    arrays: Layered<ArrayId, ArrayEntry>,
    root: Attributes,
    tags: OrdMap<Arc<str>, Tid>,
    // Invariant 2: above every id in use and every id that was ever in use.
    next_array: u64,
}

impl Default for Catalog {
    fn default() -> Self {
        let (names, arrays) = (Layered::default(), Layered::default());
        Self { names, arrays, root: Attributes::new(), tags: OrdMap::new(), next_array: 1 }
    }
}

impl Catalog {
    /// What `name` stands for; the root group is `""`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Node> {
        if name.is_empty() {
            return Some(Node::Group(self.root.clone()));
        }
        self.names.get(name).cloned()
    }

    /// The array called `name`.
    #[must_use]
    pub fn array(&self, name: &str) -> Option<&ArrayEntry> {
        match self.names.get(name) {
            Some(Node::Array(id)) => self.arrays.get(id),
            _ => None,
        }
    }

    /// The array with this id.
    #[must_use]
    pub fn array_by_id(&self, id: ArrayId) -> Option<&ArrayEntry> {
        self.arrays.get(&id)
    }

    /// The name of an array. Cost O(names).
    #[must_use]
    pub fn name_of(&self, id: ArrayId) -> Option<Arc<str>> {
        self.names.iter().find(|(_, node)| **node == Node::Array(id)).map(|(n, _)| Arc::clone(n))
    }

    /// All names but the root's, ascending, with what they stand for.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, &Node)> + '_ {
        self.names.iter()
    }

    /// All names strictly below group `group`, ascending.
    pub fn below<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Node)> {
        let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
        let from: Arc<str> = Arc::from(prefix.as_str());
        self.names.starting_at(from).take_while(move |(name, _)| name.starts_with(&*prefix))
    }

    /// All arrays by id.
    pub fn arrays(&self) -> impl Iterator<Item = &ArrayEntry> + '_ {
        self.arrays.iter().map(|(_, entry)| entry)
    }

    /// Number of arrays.
    #[must_use]
    pub fn arrays_count(&self) -> usize {
        self.arrays.len()
    }

    /// The attributes of the root group.
    #[must_use]
    pub fn root(&self) -> &Attributes {
        &self.root
    }

    /// All tags, ascending by name.
    pub fn tags(&self) -> impl Iterator<Item = (&Arc<str>, Tid)> + '_ {
        self.tags.iter().map(|(tag, tid)| (tag, *tid))
    }

    /// The commit a tag names.
    #[must_use]
    pub fn tag(&self, tag: &str) -> Option<Tid> {
        self.tags.get(tag).copied()
    }

    /// The id the next array gets.
    #[must_use]
    pub fn next_array(&self) -> ArrayId {
        ArrayId(self.next_array)
    }

    /// Makes sure that ids below `next` are not given out again. For decoders.
    pub fn raise_next_array(&mut self, next: ArrayId) {
        self.next_array = self.next_array.max(next.0);
    }

    /// Notes that commit `tid` changed data of `array`.
    pub fn touch(&mut self, array: ArrayId, tid: Tid) {
        if let Some(entry) = self.arrays.get_mut(&array) {
            entry.changed = tid;
        }
    }

    /// Makes one change, as part of commit `tid`.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] if the change does not fit; the catalog is then unchanged.
    pub fn apply(&mut self, change: &CatalogChange, tid: Tid) -> Result<(), CatalogError> {
        match change {
            CatalogChange::CreateArray { name, entry } => self.create_array(name, entry, tid),
            CatalogChange::CreateGroup { name } => {
                self.require_free(name)?;
                self.create_parents(name);
                self.names.insert(Arc::clone(name), Node::Group(Attributes::new()));
                Ok(())
            }
            CatalogChange::Remove { name } => self.remove(name),
            CatalogChange::Move { from, to } => self.move_node(from, to),
            CatalogChange::Shape { array, shape, .. } => {
                let entry = self.entry_mut(*array)?;
                if shape.len() > DIMENSIONS_MAX {
                    let name = array.to_string();
                    return Err(CatalogError::BadEntry { name, why: "it has too many axes" });
                }
                entry.shape = Arc::clone(shape);
                entry.changed = tid;
                Ok(())
            }
            CatalogChange::Attribute { owner, key, value } => {
                let attributes = self.attributes_mut(owner, tid)?;
                match value {
                    Some(value) => attributes.insert(Arc::clone(key), Arc::clone(value)),
                    None => attributes.remove(key),
                };
                Ok(())
            }
            CatalogChange::Codec { array, codec } => {
                let entry = self.entry_mut(*array)?;
                entry.codec = *codec;
                entry.changed = tid;
                Ok(())
            }
            CatalogChange::Tag { tag, tid: Some(tid) } => {
                check_name(tag)?;
                self.tags.insert(Arc::clone(tag), *tid);
                Ok(())
            }
            CatalogChange::Tag { tag, tid: None } => match self.tags.remove(tag) {
                Some(_) => Ok(()),
                None => Err(CatalogError::NoTag { tag: tag.to_string() }),
            },
        }
    }

    fn create_array(
        &mut self,
        name: &Arc<str>,
        entry: &ArrayEntry,
        tid: Tid,
    ) -> Result<(), CatalogError> {
        self.require_free(name)?;
        check_entry(name, entry)?;
        if entry.id.0 < self.next_array || entry.id.0 == u64::MAX {
            let name = name.to_string();
            return Err(CatalogError::BadEntry { name, why: "its id was used before" });
        }
        self.create_parents(name);
        self.next_array = entry.id.0 + 1;
        self.names.insert(Arc::clone(name), Node::Array(entry.id));
        let entry = ArrayEntry { created: tid, changed: tid, ..entry.clone() };
        self.arrays.insert(entry.id, entry);
        Ok(())
    }

    fn remove(&mut self, name: &Arc<str>) -> Result<(), CatalogError> {
        let not_found = || CatalogError::NotFound { name: name.to_string() };
        let node = self.names.get(name).cloned().ok_or_else(not_found)?;
        match node {
            Node::Array(id) => {
                self.arrays.remove(&id);
            }
            Node::Group(_) if self.below(name).next().is_some() => {
                return Err(CatalogError::NotEmpty { name: name.to_string() });
            }
            Node::Group(_) => {}
        }
        self.names.remove(name);
        Ok(())
    }

    fn move_node(&mut self, from: &Arc<str>, to: &Arc<str>) -> Result<(), CatalogError> {
        let not_found = || CatalogError::NotFound { name: from.to_string() };
        let node = self.names.get(from).cloned().ok_or_else(not_found)?;
        if to.strip_prefix(&**from).is_some_and(|rest| rest.starts_with('/')) {
            return Err(CatalogError::IntoItself { from: from.to_string(), to: to.to_string() });
        }
        self.require_free(to)?;
        let below: Vec<(Arc<str>, Node)> =
            self.below(from).map(|(name, node)| (Arc::clone(name), node.clone())).collect();
        for (name, _) in &below {
            check_name(&format!("{to}{}", &name[from.len()..]))?;
        }
        self.create_parents(to);
        self.names.remove(from);
        self.names.insert(Arc::clone(to), node);
        for (name, node) in below {
            self.names.remove(&name);
            self.names.insert(Arc::from(format!("{to}{}", &name[from.len()..])), node);
        }
        Ok(())
    }

    fn entry_mut(&mut self, array: ArrayId) -> Result<&mut ArrayEntry, CatalogError> {
        self.arrays.get_mut(&array).ok_or(CatalogError::NoArray { array })
    }

    fn attributes_mut(&mut self, owner: &Owner, tid: Tid) -> Result<&mut Attributes, CatalogError> {
        match owner {
            Owner::Array(id) => {
                let entry = self.entry_mut(*id)?;
                entry.changed = tid;
                Ok(&mut entry.attributes)
            }
            Owner::Group(name) if name.is_empty() => Ok(&mut self.root),
            Owner::Group(name) => match self.names.get_mut(name) {
                Some(Node::Group(attributes)) => Ok(attributes),
                _ => Err(CatalogError::NotFound { name: name.to_string() }),
            },
        }
    }

    fn require_free(&self, name: &str) -> Result<(), CatalogError> {
        check_name(name)?;
        if self.names.contains_key(name) {
            return Err(CatalogError::Exists { name: name.to_owned() });
        }
        for parent in parents(name) {
            if let Some(Node::Array(_)) = self.names.get(parent) {
                let (name, array) = (name.to_owned(), parent.to_owned());
                return Err(CatalogError::ParentIsArray { name, array });
            }
        }
        Ok(())
    }

    fn create_parents(&mut self, name: &str) {
        for parent in parents(name) {
            if !self.names.contains_key(parent) {
                self.names.insert(Arc::from(parent), Node::Group(Attributes::new()));
            }
        }
    }
}

/// Puts a catalog back as it was, name by name in ascending order. For decoders.
#[derive(Default)]
pub struct Restoration {
    // Ascending; the parent of every name is a group before it.
    names: Vec<(Arc<str>, Node)>,
    arrays: Vec<(ArrayId, ArrayEntry)>,
    // The group above the last name, by number: neighbours mostly share it.
    above: usize,
}

impl Restoration {
    /// Puts an array back, with its tids.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] if the entry does not fit what is there already.
    pub fn array(&mut self, name: Arc<str>, entry: ArrayEntry) -> Result<(), CatalogError> {
        check_entry(&name, &entry)?;
        let id = entry.id;
        self.arrays.push((id, entry));
        self.place(name, Node::Array(id))
    }

    /// Puts a group back.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] if it does not fit what is there already.
    pub fn group(&mut self, name: Arc<str>, attributes: Attributes) -> Result<(), CatalogError> {
        self.place(name, Node::Group(attributes))
    }

    /// The catalog, with these attributes of the root group, which gives out no id below `next`.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] if two arrays have one id.
    pub fn finish(mut self, root: Attributes, next: ArrayId) -> Result<Catalog, CatalogError> {
        self.arrays.sort_unstable_by_key(|(id, _)| *id);
        let last = self.arrays.last().map_or(ArrayId(0), |(id, _)| *id);
        let bad = |why| CatalogError::BadEntry { name: last.to_string(), why };
        let Some(end) = last.0.checked_add(1) else { return Err(bad("its id has none after it")) };
        let not_sorted = || bad("it or one before it has the id of another");
        Ok(Catalog {
            names: Layered::of_sorted(self.names).ok_or_else(not_sorted)?,
            arrays: Layered::of_sorted(self.arrays).ok_or_else(not_sorted)?,
            root,
            tags: OrdMap::new(),
            next_array: next.0.max(end),
        })
    }

    fn place(&mut self, name: Arc<str>, node: Node) -> Result<(), CatalogError> {
        check_name(&name)?;
        if self.names.last().is_some_and(|(last, _)| *last >= name) {
            return Err(CatalogError::Exists { name: name.to_string() });
        }
        if let Some(at) = name.rfind('/') {
            self.find_group(&name[..at])?;
        }
        self.names.push((name, node));
        Ok(())
    }

    /// Makes `above` the group called `group`.
    fn find_group(&mut self, group: &str) -> Result<(), CatalogError> {
        if let Some((name, Node::Group(_))) = self.names.get(self.above)
            && **name == *group
        {
            return Ok(());
        }
        let found = self.names.binary_search_by(|(name, _)| (**name).cmp(group));
        match found.map(|at| (at, &self.names[at].1)) {
            Ok((at, Node::Group(_))) => {
                self.above = at;
                Ok(())
            }
            _ => Err(CatalogError::NotFound { name: group.to_owned() }),
        }
    }
}

/// The names of the groups above `name`, outermost first, without the root.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// Whether `name` may name an array, a group or a tag (invariant 3).
///
/// # Errors
///
/// [`CatalogError::BadName`] with the reason.
pub fn check_name(name: &str) -> Result<(), CatalogError> {
    let bad = |why| Err(CatalogError::BadName { name: name.to_owned(), why });
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return bad("it has more than 4096 bytes");
    }
    for (at, part) in name.split('/').enumerate() {
        match part {
            _ if at == PARTS_MAX => return bad("it has more than 64 parts"),
            "" => return bad("it starts or ends with `/` or has two in a row"),
            "." | ".." => return bad("`.` and `..` are not allowed as parts of a name"),
            _ if part.len() > PART_BYTES_MAX => return bad("a part has more than 255 bytes"),
            _ if has_control_character(part) => return bad("it contains a control character"),
            _ => {}
        }
    }
    Ok(())
}

fn has_control_character(part: &str) -> bool {
    // A loop without a way out is one the compiler does 16 bytes at a time.
    let plain = part.bytes().fold(true, |plain, byte| plain & (0x20..0x7F).contains(&byte));
    !plain && part.chars().any(char::is_control)
}

fn check_entry(name: &str, entry: &ArrayEntry) -> Result<(), CatalogError> {
    let bad = |why| Err(CatalogError::BadEntry { name: name.to_owned(), why });
    if !entry.block_bytes.is_power_of_two()
        || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&entry.block_bytes)
    {
        return bad("its block size is not a power of two from 64 KiB to 1 GiB");
    }
    if entry.shape.len() > DIMENSIONS_MAX {
        return bad("it has too many axes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BLOCK_BYTES_DEFAULT;

    fn create(catalog: &mut Catalog, name: &str) -> Result<(), CatalogError> {
        let entry = ArrayEntry {
            id: catalog.next_array(),
            shape: Arc::from([3, 4]),
            block_bytes: BLOCK_BYTES_DEFAULT,
            codec: Codec::default(),
            descriptor: Arc::from("{}"),
            attributes: Attributes::new(),
            created: Tid::ZERO,
            changed: Tid::ZERO,
        };
        catalog.apply(&CatalogChange::CreateArray { name: Arc::from(name), entry }, Tid(1))
    }

    fn names(catalog: &Catalog) -> Vec<String> {
        catalog.names().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn creating_an_array_creates_the_groups_above_it() {
        let mut catalog = Catalog::default();
        create(&mut catalog, "a/b/c").unwrap();
        assert_eq!(names(&catalog), ["a", "a/b", "a/b/c"]);
        assert!(matches!(catalog.node("a/b"), Some(Node::Group(_))));
        let below = create(&mut catalog, "a/b/c/d");
        assert!(matches!(below, Err(CatalogError::ParentIsArray { .. })));
        assert!(matches!(create(&mut catalog, "a/b"), Err(CatalogError::Exists { .. })));
    }

    #[test]
    fn a_catalog_is_put_back_from_names_that_ascend_below_groups_that_are_there() {
        let restored = |names: &[(&str, u64)]| {
            let mut restoration = Restoration::default();
            for &(name, id) in names {
                let name: Arc<str> = Arc::from(name);
                let mut catalog = Catalog::default();
                create(&mut catalog, "x").unwrap();
                let entry = ArrayEntry { id: ArrayId(id), ..catalog.array("x").unwrap().clone() };
                match id {
                    0 => restoration.group(name, Attributes::new())?,
                    _ => restoration.array(name, entry)?,
                }
            }
            restoration.finish(Attributes::new(), ArrayId(3))
        };
        let catalog = restored(&[("a", 0), ("a-b", 9), ("a/b", 0), ("a/b/c", 5), ("a/d", 7)]);
        let catalog = catalog.unwrap();
        assert_eq!(names(&catalog), ["a", "a-b", "a/b", "a/b/c", "a/d"]);
        assert_eq!(catalog.array("a/d").unwrap().id, ArrayId(7));
        assert_eq!(catalog.next_array(), ArrayId(10));
        for (what, hostile) in [
            ("a group that is missing", &[("a/b", 1)][..]),
            ("a name below an array", &[("a", 1), ("a/b", 2)]),
            ("names that descend", &[("b", 1), ("a", 2)]),
            ("a name twice", &[("a", 1), ("a", 2)]),
            ("an id twice", &[("a", 2), ("b", 2)]),
            ("an id without one after it", &[("a", u64::MAX)]),
            ("no name", &[("a", 0), ("a/../b", 1)]),
        ] {
            assert!(restored(hostile).is_err(), "{what}");
        }
    }

    #[test]
    fn names_that_would_confuse_a_file_system_are_refused() {
        let long = "x".repeat(256);
        for name in ["", "/a", "a/", "a//b", ".", "a/..", "a\0", "a\nb", long.as_str()] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("a b/c.d/\u{e4}").unwrap();
        let deep = "a/".repeat(PARTS_MAX - 1) + "a";
        check_name(&deep).unwrap();
        assert!(check_name(&format!("{deep}/a")).is_err(), "each part is a group of its own");
    }

    #[test]
    fn moving_a_group_moves_everything_below_it_and_nothing_beside_it() {
        let mut catalog = Catalog::default();
        for name in ["a/x", "a/y/z", "ab", "a-b"] {
            create(&mut catalog, name).unwrap();
        }
        let id = catalog.array("a/y/z").unwrap().id;
        let (from, to) = (Arc::from("a"), Arc::from("q/r"));
        catalog.apply(&CatalogChange::Move { from, to }, Tid(2)).unwrap();
        assert_eq!(names(&catalog), ["a-b", "ab", "q", "q/r", "q/r/x", "q/r/y", "q/r/y/z"]);
        assert_eq!(catalog.array("q/r/y/z").unwrap().id, id);
        let into_itself = CatalogChange::Move { from: Arc::from("q"), to: Arc::from("q/s/t") };
        let error = catalog.apply(&into_itself, Tid(3)).unwrap_err();
        assert!(matches!(error, CatalogError::IntoItself { .. }));
    }

    #[test]
    fn a_group_with_members_cannot_be_removed_and_ids_are_not_used_again() {
        let mut catalog = Catalog::default();
        create(&mut catalog, "g/a").unwrap();
        let remove = |name: &str| CatalogChange::Remove { name: Arc::from(name) };
        let error = catalog.apply(&remove("g"), Tid(2)).unwrap_err();
        assert!(matches!(error, CatalogError::NotEmpty { .. }));
        catalog.apply(&remove("g/a"), Tid(2)).unwrap();
        catalog.apply(&remove("g"), Tid(2)).unwrap();
        create(&mut catalog, "g/a").unwrap();
        assert_eq!(catalog.array("g/a").unwrap().id, ArrayId(2));
    }
}
