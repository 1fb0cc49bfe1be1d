//! Boxes of positions, and the grid of blocks that an array is computed in.
//!
//! ```text
//! shape [5, 7], blocks of [2, 4]      grid [3, 2], block number 3 = (1, 1)
//!   0 0 0 0 1 1 1                       region start [2, 4], len [2, 3]
//!   0 0 0 0 1 1 1
//!   2 2 2 2 3 3 3
//!   2 2 2 2 3 3 3
//!   4 4 4 4 5 5 5
//! ```
//!
//! # Invariants
//!
//! 1. Blocks have at least one position along each axis; those at the end may be shorter.

/// Positions `start .. start + len` along each axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Region {
    pub(crate) start: Vec<u64>,
    pub(crate) len: Vec<u64>,
}

impl Region {
    /// Number of positions; regions that are computed fit memory.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.len.iter().product::<u64>()).unwrap_or(usize::MAX)
    }

    /// The lengths, which fit memory.
    pub(crate) fn lens(&self) -> Vec<usize> {
        self.len.iter().map(|&len| to_usize(len)).collect()
    }

    /// Cut into boxes of at most `tile` positions along each axis, in C order.
    pub(crate) fn tiles(&self, tile: &[u64]) -> impl Iterator<Item = Self> + use<'_> {
        let tile = tile.to_vec();
        let counts: Vec<u64> =
            self.len.iter().zip(&tile).map(|(&len, &tile)| len.div_ceil(tile)).collect();
        let total = counts.iter().product();
        (0..total).map(move |number| {
            let at = position(number, &counts);
            let offset = at.iter().zip(&tile).map(|(&at, &tile)| at * tile);
            let (start, len) = offset
                .enumerate()
                .map(|(axis, offset)| {
                    let rest = self.len[axis] - offset;
                    (self.start[axis] + offset, rest.min(tile[axis]))
                })
                .unzip();
            Self { start, len }
        })
    }
}

/// The blocks of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) shape: Vec<u64>,
    pub(crate) block: Vec<u64>,
}

impl Grid {
    pub(crate) fn new(shape: &[u64], block: &[u64]) -> Self {
        let fit = |(&len, &block): (&u64, &u64)| block.clamp(1, len.max(1));
        Self { shape: shape.to_vec(), block: shape.iter().zip(block).map(fit).collect() }
    }

    /// Blocks along each axis.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.shape.iter().zip(&self.block).map(|(&len, &block)| len.div_ceil(block)).collect()
    }

    /// Blocks in total; more than a graph can have saturate.
    pub(crate) fn total(&self) -> u64 {
        self.counts().into_iter().fold(1, u64::saturating_mul)
    }

    /// Where block number `number` is.
    pub(crate) fn position(&self, number: u64) -> Vec<u64> {
        position(number, &self.counts())
    }

    /// The number of the block at `position`, in C order.
    pub(crate) fn number(&self, position: &[u64]) -> u64 {
        let counts = self.counts();
        position.iter().zip(counts).fold(0, |number, (&at, count)| number * count + at)
    }

    /// What the block at `position` covers.
    pub(crate) fn region(&self, position: &[u64]) -> Region {
        let start: Vec<u64> =
            position.iter().zip(&self.block).map(|(&at, &len)| at * len).collect();
        let rest = start.iter().zip(&self.shape).map(|(&start, &len)| len - start);
        let len = rest.zip(&self.block).map(|(rest, &block)| rest.min(block)).collect();
        Region { start, len }
    }
}

/// The position of item `number` of a grid in C order.
pub(crate) fn position(number: u64, counts: &[u64]) -> Vec<u64> {
    let mut rest = number;
    let mut at = vec![0; counts.len()];
    for axis in (0..counts.len()).rev() {
        at[axis] = rest % counts[axis].max(1);
        rest /= counts[axis].max(1);
    }
    at
}

/// A block shape of about `elements` positions: whole axes in the order of `axes`, the fastest
/// first, then a part of one, then single positions.
pub(crate) fn block_of(
    shape: &[u64],
    axes: impl IntoIterator<Item = usize>,
    elements: u64,
) -> Vec<u64> {
    let mut block = vec![1; shape.len()];
    let mut room = elements.max(1);
    for axis in axes {
        block[axis] = shape[axis].clamp(1, room);
        room /= block[axis];
        if block[axis] < shape[axis] {
            break;
        }
        room = room.max(1);
    }
    block
}

/// Elements from one position to the next along each axis, of a dense array in C order.
pub(crate) fn dense_strides(shape: &[u64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    let mut stride: i64 = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = stride;
        stride = stride.saturating_mul(i64::try_from(shape[axis].max(1)).unwrap_or(i64::MAX));
    }
    strides
}

/// A length or position within memory.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length or position as one that may be added to negative steps.
pub(crate) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_position_once() {
        let grid = Grid::new(&[5, 7, 2], &[2, 4, 9]);
        let mut seen = vec![0; 70];
        for number in 0..grid.total() {
            let at = grid.position(number);
            assert_eq!(grid.number(&at), number);
            let region = grid.region(&at);
            for part in region.tiles(&[1, 1, 1]) {
                seen[to_usize(part.start[0] * 14 + part.start[1] * 2 + part.start[2])] += 1;
            }
        }
        assert_eq!(seen, vec![1; 70]);
    }

    #[test]
    fn blocks_fill_whole_fast_axes_first() {
        assert_eq!(block_of(&[100, 6, 7], [2, 1, 0], 90), [2, 6, 7]);
        assert_eq!(block_of(&[100, 6, 7], [2, 1, 0], 20), [1, 2, 7]);
        assert_eq!(block_of(&[100, 6, 7], [0, 1, 2], 250), [100, 2, 1]);
        assert_eq!(block_of(&[0, 6], [1, 0], 250), [1, 6]);
    }
}
