//! How much room the rest of a plan leaves. Pure.
//!
//! For each place of the order this holds the bytes that would be alive there if the rest ran in
//! order: those of the plan, and results of later steps that ran early. A step may run early only
//! if its result fits beside the largest of those before it.
//!
//! ```text
//! place       0    1    2    3          a tree of maxima; a range is added to in O(log n)
//! bytes      10   30   20    5
//! step 3 runs early, 8 bytes: 18 38 28   5
//! ```

use std::ops::Range;

/// Bytes by place: add to a range, ask for the maximum of a range.
#[derive(Debug)]
pub(super) struct Room {
    // Node 1 is the root, node i has the children 2i and 2i + 1; the leaves come last.
    most: Vec<i64>,
    added: Vec<i64>,
    leaves: usize,
}

impl Room {
    pub(super) fn new(bytes: &[u64]) -> Self {
        let leaves = bytes.len().next_power_of_two();
        let mut most = vec![0; 2 * leaves];
        for (leaf, &bytes) in most[leaves..].iter_mut().zip(bytes) {
            *leaf = signed(bytes);
        }
        for node in (1..leaves).rev() {
            most[node] = most[2 * node].max(most[2 * node + 1]);
        }
        Self { most, added: vec![0; 2 * leaves], leaves }
    }

    /// Adds `bytes` to all places before `end`.
    pub(super) fn add(&mut self, end: usize, bytes: u64) {
        self.change(1, 0..self.leaves, end, signed(bytes));
    }

    /// Takes away what was added.
    pub(super) fn subtract(&mut self, end: usize, bytes: u64) {
        self.change(1, 0..self.leaves, end, -signed(bytes));
    }

    /// The most bytes at one of `places`; 0 if there are none.
    pub(super) fn most(&self, places: Range<usize>) -> u64 {
        u64::try_from(self.maximum(1, 0..self.leaves, &places).unwrap_or(0)).unwrap_or(0)
    }

    fn change(&mut self, node: usize, span: Range<usize>, end: usize, bytes: i64) {
        if span.start >= end {
            return;
        }
        if span.end <= end {
            self.most[node] += bytes;
            self.added[node] += bytes;
            return;
        }
        let middle = usize::midpoint(span.start, span.end);
        self.change(2 * node, span.start..middle, end, bytes);
        self.change(2 * node + 1, middle..span.end, end, bytes);
        self.most[node] = self.added[node] + self.most[2 * node].max(self.most[2 * node + 1]);
    }

    fn maximum(&self, node: usize, span: Range<usize>, places: &Range<usize>) -> Option<i64> {
        if span.end <= places.start || places.end <= span.start {
            return None;
        }
        if places.start <= span.start && span.end <= places.end {
            return Some(self.most[node]);
        }
        let middle = usize::midpoint(span.start, span.end);
        let left = self.maximum(2 * node, span.start..middle, places);
        let right = self.maximum(2 * node + 1, middle..span.end, places);
        left.max(right).map(|most| most + self.added[node])
    }
}

/// Sums of two such numbers, or many small ones, do not overflow.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn room_answers_as_a_plain_list_does(
            bytes in prop::collection::vec(0_u64..100, 1..40),
            changes in prop::collection::vec((0_usize..40, 0_u64..50), 0..30),
            from in 0_usize..40,
            len in 0_usize..40,
        ) {
            let mut room = Room::new(&bytes);
            let mut plain = bytes.clone();
            for (number, &(end, more)) in changes.iter().enumerate() {
                let end = end.min(plain.len());
                room.add(end, more);
                plain[..end].iter_mut().for_each(|bytes| *bytes += more);
                if number % 3 == 2 {
                    room.subtract(end, more);
                    plain[..end].iter_mut().for_each(|bytes| *bytes -= more);
                }
            }
            let places = from.min(plain.len())..(from + len).min(plain.len());
            let most = plain[places.clone()].iter().copied().max().unwrap_or(0);
            prop_assert_eq!(room.most(places), most);
        }
    }
}
