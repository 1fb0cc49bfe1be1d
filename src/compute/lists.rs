//! Many short lists of numbers, flat in memory.
//!
//! ```text
//! items   3 1 | 2 | | 0 4 5
//! ends        2   3 3       6
//! ```

/// Lists, counted from 0.
#[derive(Clone, Default, Debug)]
pub(super) struct Lists {
    // Ascending; list i is `items[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    /// No lists, with room for some.
    pub(super) fn with_room(lists: usize, items: usize) -> Self {
        Self { ends: Vec::with_capacity(lists), items: Vec::with_capacity(items) }
    }

    /// Adds to the list that [`close`](Self::close) will end.
    pub(super) fn push(&mut self, item: u32) {
        self.items.push(item);
    }

    /// Ends a list; the next one begins.
    pub(super) fn close(&mut self) {
        // Items are edges of a graph, which are counted in u32.
        self.ends.push(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
    }

    /// List number `at`; empty if there is none.
    pub(super) fn of(&self, at: u32) -> &[u32] {
        &self.items[self.range(at)]
    }

    /// Where list number `at` lies among all items.
    pub(super) fn range(&self, at: u32) -> std::ops::Range<usize> {
        let end = |at: usize| self.ends.get(at).map_or(self.items.len(), |&end| end as usize);
        let start = if at == 0 { 0 } else { end(at as usize - 1) };
        start..end(at as usize)
    }

    /// An item, counted over all lists.
    pub(super) fn at(&self, item: usize) -> u32 {
        self.items[item]
    }

    /// Lists that were closed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Items of all lists.
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    /// For each of `count` numbers the lists that hold it, in the order of `lists`.
    pub(super) fn inverse(&self, count: usize, lists: impl Iterator<Item = u32> + Clone) -> Self {
        let mut ends = vec![0_u32; count];
        for list in lists.clone() {
            self.of(list).iter().for_each(|&item| ends[item as usize] += 1);
        }
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        // Each end is now the start; filling moves it to the end.
        let mut items = vec![0; total as usize];
        for list in lists {
            for &item in self.of(list) {
                let end = &mut ends[item as usize];
                items[*end as usize] = list;
                *end += 1;
            }
        }
        Self { ends, items }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_what_was_pushed_and_the_inverse_says_who_holds_whom() {
        let mut lists = Lists::default();
        for list in [&[3, 1][..], &[2], &[], &[0, 1]] {
            list.iter().for_each(|&item| lists.push(item));
            lists.close();
        }
        assert_eq!((lists.len(), lists.items()), (4, 5));
        assert_eq!([lists.of(0), lists.of(2), lists.of(3)], [&[3, 1][..], &[], &[0, 1]]);
        let holders = lists.inverse(4, [3, 2, 1, 0].into_iter());
        assert_eq!([holders.of(0), holders.of(1), holders.of(3)], [&[3][..], &[3, 0], &[0]]);
    }
}
