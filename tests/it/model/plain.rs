//! Arrays as plain bytes: what the store is compared with.
//!
//! ```text
//! Plain: name -> Named { identity, PlainArray { shape, order, itemsize, fill, bytes, ... } }
//! Region: (start, count, step) per axis -> the byte offset of each element, one by one
//! ```
//!
//! # Invariants
//!
//! 1. Nothing here uses the crate's own arithmetic: every element's offset is counted out.
//! 2. `bytes.len()` is the product of the shape times the itemsize.

use std::collections::{BTreeMap, BTreeSet};

use zbigarray::Order;

/// Bytes of a page, the unit of conflicts.
pub(crate) const PAGE: usize = 4096;

/// One array as plain bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlainArray {
    pub(crate) shape: Vec<u64>,
    pub(crate) order: Order,
    pub(crate) itemsize: usize,
    pub(crate) fill: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) attributes: BTreeMap<String, i64>,
}

/// Positions along one axis: first, how many, how far apart.
pub(crate) type Axis = (u64, u64, i64);

impl PlainArray {
    /// An array nobody wrote to.
    pub(crate) fn new(shape: &[u64], order: Order, fill: &[u8]) -> Self {
        let (shape, fill) = (shape.to_vec(), fill.to_vec());
        let itemsize = fill.len();
        let attributes = BTreeMap::new();
        let mut array = Self { shape, order, itemsize, fill, bytes: Vec::new(), attributes };
        array.bytes = array.padded(&[], array.len_bytes());
        array
    }

    fn len_bytes(&self) -> usize {
        self.shape.iter().map(|&len| usize::try_from(len).unwrap()).product::<usize>()
            * self.itemsize
    }

    /// `bytes` cut or lengthened by the fill value to `len` bytes.
    fn padded(&self, bytes: &[u8], len: usize) -> Vec<u8> {
        let mut all: Vec<u8> = bytes[..bytes.len().min(len)].to_vec();
        while all.len() < len {
            let phase = all.len() % self.itemsize;
            let count = (self.itemsize - phase).min(len - all.len());
            all.extend_from_slice(&self.fill[phase..phase + count]);
        }
        all
    }

    /// Gives the array another shape: the linear bytes stay.
    pub(crate) fn resize(&mut self, shape: &[u64]) {
        self.shape = shape.to_vec();
        self.bytes = self.padded(&self.bytes, self.len_bytes());
    }

    /// The axis that can grow.
    pub(crate) fn major(&self) -> Option<usize> {
        match self.order {
            Order::C => (!self.shape.is_empty()).then_some(0),
            Order::F => self.shape.len().checked_sub(1),
        }
    }

    /// Byte offset of each element of `region`; in order C the last axis is the fastest.
    pub(crate) fn offsets(&self, region: &[Axis], order: Order) -> Vec<usize> {
        let mut strides = vec![0; self.shape.len()];
        let mut stride = self.itemsize as i64;
        for axis in fastest_first(self.shape.len(), self.order) {
            strides[axis] = stride;
            stride *= i64::try_from(self.shape[axis]).unwrap();
        }
        let mut offsets = vec![0i64];
        for axis in fastest_first(region.len(), order).into_iter().rev() {
            let (start, count, step) = region[axis];
            let at = |at: u64| (start as i64 + at as i64 * step) * strides[axis];
            let positions: Vec<i64> = (0..count).map(at).collect();
            let all = |base: &i64| positions.iter().map(|at| base + at).collect::<Vec<_>>();
            offsets = offsets.iter().flat_map(all).collect();
        }
        offsets.into_iter().map(|offset| usize::try_from(offset).unwrap()).collect()
    }

    /// Stores `values` at `offsets`, one element each.
    pub(crate) fn store(&mut self, offsets: &[usize], values: &[u8]) {
        for (&offset, value) in offsets.iter().zip(values.chunks(self.itemsize)) {
            self.bytes[offset..offset + self.itemsize].copy_from_slice(value);
        }
    }

    /// The pages in which elements at `offsets` lie.
    pub(crate) fn pages(&self, offsets: &[usize]) -> BTreeSet<usize> {
        let ends = |&at: &usize| [at / PAGE, (at + self.itemsize - 1) / PAGE];
        offsets.iter().flat_map(ends).collect()
    }

    /// The pages whose bytes differ from those of `base`, were it as long as this array.
    pub(crate) fn pages_unlike(&self, base: &Self) -> BTreeSet<usize> {
        let base = base.padded(&base.bytes, self.bytes.len());
        let pages = self.bytes.chunks(PAGE).zip(base.chunks(PAGE)).enumerate();
        pages.filter(|(_, (ours, theirs))| ours != theirs).map(|(page, _)| page).collect()
    }

    /// Takes over `pages` from `other`, as far as this array has them.
    pub(crate) fn take_pages(&mut self, other: &Self, pages: &BTreeSet<usize>) {
        let len = self.bytes.len().min(other.bytes.len());
        for &page in pages {
            let (from, to) = ((page * PAGE).min(len), ((page + 1) * PAGE).min(len));
            self.bytes[from..to].copy_from_slice(&other.bytes[from..to]);
        }
    }
}

fn fastest_first(axes: usize, order: Order) -> Vec<usize> {
    match order {
        Order::C => (0..axes).rev().collect(),
        Order::F => (0..axes).collect(),
    }
}

/// An array with its identity, which a new name does not change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    pub(crate) identity: u64,
    pub(crate) array: PlainArray,
}

/// A whole store as of one commit.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Plain {
    pub(crate) arrays: BTreeMap<String, Named>,
    pub(crate) tags: BTreeMap<String, u64>,
}

impl Plain {
    /// The array of this identity.
    pub(crate) fn by_identity(&self, identity: u64) -> Option<&PlainArray> {
        let found = self.arrays.values().find(|named| named.identity == identity);
        found.map(|named| &named.array)
    }

    /// The array of this identity, to change.
    pub(crate) fn by_identity_mut(&mut self, identity: u64) -> Option<&mut PlainArray> {
        let found = self.arrays.values_mut().find(|named| named.identity == identity);
        found.map(|named| &mut named.array)
    }
}

/// `len` bytes that depend on `seed` only; all zeros for seed 0.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..len).map(|_| next().to_le_bytes()[0]).collect()
}

/// Indices of one axis as NumPy's slice, written out.
pub(crate) fn slice_of((start, count, step): Axis) -> zbigarray::Index {
    let first = i128::from(start);
    let last = first + i128::from(count) * i128::from(step);
    // Going down past the first element has no number in Python's notation.
    let stop = (last >= 0).then_some(last);
    zbigarray::Index::Slice { start: Some(first), stop, step: Some(step.into()) }
}
