//! What may happen to a store, as data, so that a failing case can be written down as a test.

use proptest::prelude::*;

/// One step. Numbers are reduced to what is there when the step is made, so that every step means
/// something in every state.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Array `name` of `kind` (element, order, fill) and `shape`.
    Create { who: bool, name: u8, kind: u8, shape: Vec<u8> },
    /// Values from `seed` into a region, by a bulk call.
    Assign { who: bool, name: u8, region: [u16; 3], seed: u32 },
    /// Values from `seed` into a region, through a view.
    Store { who: bool, name: u8, region: [u16; 3], seed: u32 },
    /// Values from `seed` into a region through one of two aliasing views.
    Share { who: bool, name: u8, region: [u16; 3], seed: u32 },
    /// `rows` more rows.
    Append { who: bool, name: u8, rows: u8, seed: u32 },
    /// Another shape.
    Resize { who: bool, name: u8, shape: Vec<u8> },
    /// Another length of the major axis only.
    Cut { who: bool, name: u8, len: u16 },
    /// An attribute; `None` removes it.
    Attribute { who: bool, name: u8, key: u8, value: Option<i64> },
    /// The array is gone.
    Remove { who: bool, name: u8 },
    /// The array has another name.
    Rename { who: bool, name: u8, to: u8 },
    /// A savepoint.
    Save { who: bool },
    /// Back to one of the savepoints.
    Rollback { who: bool, to: u8 },
    /// The end of a transaction, without effect.
    Abort { who: bool },
    /// The end of a transaction.
    Commit { who: bool },
    /// A tag for a commit.
    Tag { tag: u8, tid: u8 },
    /// A commit is undone by a new one.
    Undo { tid: u8 },
    /// An old commit is looked at.
    At { tid: u8 },
    /// An old commit is looked at for long.
    Hold { tid: u8 },
    /// Checkpoint.
    Checkpoint,
    /// History before a commit is forgotten.
    Pack { keep: u8 },
    /// The store is closed and opened.
    Reopen,
    /// Everything on the disk is checked.
    Check,
}

/// One step.
pub(crate) fn steps() -> impl Strategy<Value = Step> {
    let who = any::<bool>;
    let name = || 0u8..4;
    let region = any::<[u16; 3]>;
    let seed = || prop_oneof![1 => Just(0u32), 6 => any::<u32>()];
    let shape = || prop::collection::vec(any::<u8>(), 0..=3);
    prop_oneof![
        5 => (who(), name(), any::<u8>(), shape())
            .prop_map(|(who, name, kind, shape)| Step::Create { who, name, kind, shape }),
        8 => (who(), name(), region(), seed())
            .prop_map(|(who, name, region, seed)| Step::Assign { who, name, region, seed }),
        8 => (who(), name(), region(), seed())
            .prop_map(|(who, name, region, seed)| Step::Store { who, name, region, seed }),
        3 => (who(), name(), region(), seed())
            .prop_map(|(who, name, region, seed)| Step::Share { who, name, region, seed }),
        6 => (who(), name(), any::<u8>(), seed())
            .prop_map(|(who, name, rows, seed)| Step::Append { who, name, rows, seed }),
        3 => (who(), name(), shape())
            .prop_map(|(who, name, shape)| Step::Resize { who, name, shape }),
        5 => (who(), name(), any::<u16>())
            .prop_map(|(who, name, len)| Step::Cut { who, name, len }),
        2 => (who(), name(), 0u8..3, any::<Option<i64>>())
            .prop_map(|(who, name, key, value)| Step::Attribute { who, name, key, value }),
        1 => (who(), name()).prop_map(|(who, name)| Step::Remove { who, name }),
        1 => (who(), name(), name()).prop_map(|(who, name, to)| Step::Rename { who, name, to }),
        3 => who().prop_map(|who| Step::Save { who }),
        3 => (who(), any::<u8>()).prop_map(|(who, to)| Step::Rollback { who, to }),
        2 => who().prop_map(|who| Step::Abort { who }),
        10 => who().prop_map(|who| Step::Commit { who }),
        1 => (0u8..3, any::<u8>()).prop_map(|(tag, tid)| Step::Tag { tag, tid }),
        2 => any::<u8>().prop_map(|tid| Step::Undo { tid }),
        2 => any::<u8>().prop_map(|tid| Step::At { tid }),
        1 => any::<u8>().prop_map(|tid| Step::Hold { tid }),
        1 => Just(Step::Checkpoint),
        2 => any::<u8>().prop_map(|keep| Step::Pack { keep }),
        2 => Just(Step::Reopen),
        1 => Just(Step::Check),
    ]
}
