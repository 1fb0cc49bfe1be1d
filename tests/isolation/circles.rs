//! Circles in a graph of two floors, in time and memory that grow with its edges.
//!
//! ```text
//! edges -> sorted by where they begin -> strongly connected parts (Tarjan) -> a short circle each
//! ```
//!
//! # Invariants
//!
//! 1. No recursion: a history may have a million nodes in a row.

use std::collections::{HashMap, VecDeque};

use super::graph::Edge;

/// Circles tried in one part before the shortest is taken.
const TRIES: usize = 16;

/// Nodes, each of which leads to the next by the edge of the same number, the last to the first.
pub(crate) struct Circle {
    pub(crate) nodes: Vec<usize>,
    pub(crate) edges: Vec<Edge>,
}

/// A graph of which the nodes stand twice: `2 n` is the lower `n`, `2 n + 1` the upper.
pub(crate) struct Graph {
    // Edges of node `n` are `to[start[n]..start[n + 1]]`.
    start: Vec<usize>,
    to: Vec<(u32, Edge)>,
}

impl Graph {
    pub(crate) fn new(
        nodes: usize,
        edges: impl Iterator<Item = (usize, usize, Edge)> + Clone,
    ) -> Self {
        let mut start = vec![0; 2 * nodes + 2];
        let doubled = || edges.clone().filter(|(from, to, _)| from != to).flat_map(both_floors);
        doubled().for_each(|(from, ..)| start[from + 2] += 1);
        for at in 1..start.len() {
            start[at] += start[at - 1];
        }
        let mut list = vec![(0, Edge::Ww); start[2 * nodes + 1]];
        for (from, to, edge) in doubled() {
            list[start[from + 1]] = (u32::try_from(to).unwrap(), edge);
            start[from + 1] += 1;
        }
        start.pop();
        Self { start, to: list }
    }

    fn edges(&self, node: usize) -> &[(u32, Edge)] {
        &self.to[self.start[node]..self.start[node + 1]]
    }

    /// One circle of each part in which every node leads to every other.
    pub(crate) fn circles(&self) -> Vec<Circle> {
        let parts = self.parts();
        let mut members: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut sizes = vec![0_u32; self.start.len()];
        parts.iter().for_each(|&part| sizes[part as usize] += 1);
        for (node, part) in parts.iter().enumerate() {
            if sizes[*part as usize] > 1 {
                members.entry(*part).or_default().push(node);
            }
        }
        let mut circles: Vec<Circle> = members
            .values()
            .filter_map(|nodes| {
                let tried = nodes.iter().take(TRIES);
                tried.filter_map(|&node| self.circle(node, &parts)).min_by_key(|c| c.nodes.len())
            })
            .collect();
        circles.sort_by_key(|circle| circle.nodes.iter().min().copied());
        circles
    }

    /// The shortest way from `first` back to itself, within its part.
    fn circle(&self, first: usize, parts: &[u32]) -> Option<Circle> {
        let mut came: HashMap<usize, (usize, Edge)> = HashMap::new();
        let mut waiting = VecDeque::from([first]);
        while let Some(node) = waiting.pop_front() {
            for &(to, edge) in self.edges(node) {
                let to = to as usize;
                if parts[to] != parts[first] || came.contains_key(&to) {
                    continue;
                }
                came.insert(to, (node, edge));
                if to == first {
                    return Some(way_back(first, &came));
                }
                waiting.push_back(to);
            }
        }
        None
    }

    /// The number of the strongly connected part of each node: Tarjan's algorithm.
    fn parts(&self) -> Vec<u32> {
        const NEW: u32 = u32::MAX;
        let count = self.start.len() - 1;
        let (mut order, mut low, mut part) = (vec![NEW; count], vec![0; count], vec![NEW; count]);
        let (mut stack, mut path) = (Vec::new(), Vec::new());
        let (mut next_order, mut next_part) = (0, 0);
        for root in 0..count {
            if order[root] == NEW {
                path.push((root, 0));
            }
            while let Some((node, at)) = path.pop() {
                if at == 0 {
                    (order[node], low[node]) = (next_order, next_order);
                    next_order += 1;
                    stack.push(node);
                }
                if let Some(&(to, _)) = self.edges(node).get(at) {
                    let to = to as usize;
                    path.push((node, at + 1));
                    if order[to] == NEW {
                        path.push((to, 0));
                    } else if part[to] == NEW {
                        low[node] = low[node].min(order[to]);
                    }
                    continue;
                }
                if low[node] == order[node] {
                    while let Some(top) = stack.pop() {
                        part[top] = next_part;
                        if top == node {
                            break;
                        }
                    }
                    next_part += 1;
                }
                if let Some(&(parent, _)) = path.last() {
                    low[parent] = low[parent].min(low[node]);
                }
            }
        }
        part
    }
}

fn both_floors(
    (from, to, edge): (usize, usize, Edge),
) -> impl Iterator<Item = (usize, usize, Edge)> {
    let lower = match edge {
        Edge::Rw => (2 * from, 2 * to + 1, edge),
        _ => (2 * from, 2 * to, edge),
    };
    let upper = (edge != Edge::Rw).then_some((2 * from + 1, 2 * to, edge));
    std::iter::once(lower).chain(upper)
}

fn way_back(first: usize, came: &HashMap<usize, (usize, Edge)>) -> Circle {
    let (mut nodes, mut edges, mut at) = (Vec::new(), Vec::new(), first);
    loop {
        let (before, edge) = came[&at];
        nodes.push(before / 2);
        edges.push(edge);
        at = before;
        if at == first {
            nodes.reverse();
            edges.reverse();
            return Circle { nodes, edges };
        }
    }
}
