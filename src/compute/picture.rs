//! A graph as a picture: SVG of a simple layout of our own, and DOT for other programs.
//!
//! ```text
//! layer 0   o  o  o  o      tasks without inputs
//! layer 1    o    o         one below the lowest of its inputs,
//! layer 2      o            as near below the middle of them as there is room
//! ```
//!
//! # Invariants
//!
//! 1. A picture has at most [`NODES_MAX`] nodes and [`EDGES_MAX`] edges. Of a larger graph it shows
//!    families instead of tasks, with their numbers, and of those the first.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::explain::Bytes;
use super::graph::{Graph, TaskId, Work};

/// Most nodes of a picture.
const NODES_MAX: usize = 400;
/// Most edges of a picture.
const EDGES_MAX: usize = 4000;
/// Most characters of a name.
const NAME_MAX: usize = 24;

const COLUMN: f64 = 150.0;
const ROW: f64 = 70.0;
const WIDTH: f64 = 132.0;
const HEIGHT: f64 = 38.0;

/// A graph, or its families, ready to be drawn.
#[derive(Clone, Debug)]
pub struct Picture {
    nodes: Vec<Node>,
    /// From whom to whom.
    edges: Vec<(usize, usize)>,
    note: String,
}

#[derive(Clone, Debug)]
struct Node {
    name: String,
    detail: String,
    family: usize,
    look: Look,
    layer: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Task,
    Literal,
    Output,
}

impl Picture {
    /// What `outputs` need.
    #[must_use]
    pub fn of(graph: &Graph<'_>, outputs: &[TaskId]) -> Self {
        let needed = needed(graph, outputs);
        let count = needed.iter().filter(|&&is_needed| is_needed).count();
        let mut picture = match count <= NODES_MAX {
            true => Self::of_tasks(graph, outputs, &needed),
            false => Self::of_families(graph, outputs, &needed),
        };
        if count > NODES_MAX {
            picture.note = format!("{count} tasks in {} families", picture.nodes.len());
        }
        let shown = picture.nodes.len().min(NODES_MAX);
        if shown < picture.nodes.len() {
            let _ = write!(picture.note, ", of which the first {shown} are shown");
            picture.nodes.truncate(shown);
            picture.edges.retain(|&(from, to)| from < shown && to < shown);
        }
        if picture.edges.len() > EDGES_MAX {
            let _ = write!(picture.note, ", {EDGES_MAX} of {} edges", picture.edges.len());
            picture.edges.truncate(EDGES_MAX);
        }
        picture.find_layers();
        picture
    }

    fn of_tasks(graph: &Graph<'_>, outputs: &[TaskId], needed: &[bool]) -> Self {
        let mut places = vec![usize::MAX; graph.len()];
        let mut families: HashMap<&str, usize> = HashMap::new();
        let mut picture = Self { nodes: Vec::new(), edges: Vec::new(), note: String::new() };
        for (at, key) in graph.keys().iter().enumerate().filter(|(at, _)| needed[*at]) {
            places[at] = picture.nodes.len();
            let next = families.len();
            let family = *families.entry(key.family().name()).or_insert(next);
            let detail = Bytes(graph.needs()[at].bytes).to_string();
            let look = look(graph, outputs, at);
            picture.nodes.push(Node { name: key.to_string(), detail, family, look, layer: 0 });
            for input in graph.inputs(graph.id(at)) {
                let edge = (places[input.index()], places[at]);
                if picture.edges.last() != Some(&edge) {
                    picture.edges.push(edge);
                }
            }
        }
        picture
    }

    fn of_families(graph: &Graph<'_>, outputs: &[TaskId], needed: &[bool]) -> Self {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut counts: Vec<(u64, u64)> = Vec::new();
        let mut edges: BTreeMap<(usize, usize), ()> = BTreeMap::new();
        let mut nodes: Vec<Node> = Vec::new();
        for (at, key) in graph.keys().iter().enumerate().filter(|(at, _)| needed[*at]) {
            let name = key.family().name();
            let place = *places.entry(name).or_insert(nodes.len());
            if place == nodes.len() {
                let (name, detail) = (name.to_owned(), String::new());
                nodes.push(Node { name, detail, family: place, look: Look::Task, layer: 0 });
                counts.push((0, 0));
            }
            counts[place].0 += 1;
            counts[place].1 += graph.needs()[at].bytes;
            if look(graph, outputs, at) != Look::Task {
                nodes[place].look = look(graph, outputs, at);
            }
            for input in graph.inputs(graph.id(at)) {
                let family = graph.keys()[input.index()].family().name();
                let from = places[family];
                // A family that stands on both sides of another would be a circle.
                if from < place {
                    edges.insert((from, place), ());
                }
            }
        }
        for (node, (count, bytes)) in nodes.iter_mut().zip(counts) {
            node.detail = format!("{count} x, {}", Bytes(bytes));
        }
        Self { nodes, edges: edges.into_keys().collect(), note: String::new() }
    }

    fn find_layers(&mut self) {
        // Edges lead from smaller to larger numbers.
        self.edges.sort_unstable_by_key(|&(from, to)| (to, from));
        for &(from, to) in &self.edges {
            self.nodes[to].layer = self.nodes[to].layer.max(self.nodes[from].layer + 1);
        }
    }

    /// The middle of each node.
    fn places(&self) -> Vec<(f64, f64)> {
        let layers = self.nodes.iter().map(|node| node.layer + 1).max().unwrap_or(0);
        let mut x = vec![0.0; self.nodes.len()];
        let mut by_layer = vec![Vec::new(); layers];
        for (at, node) in self.nodes.iter().enumerate() {
            by_layer[node.layer].push(at);
        }
        let widest = by_layer.iter().map(Vec::len).max().unwrap_or(0);
        let mut inputs = vec![Vec::new(); self.nodes.len()];
        self.edges.iter().for_each(|&(from, to)| inputs[to].push(from));
        for layer in &mut by_layer {
            let middle = |at: &usize| -> f64 {
                let sum: f64 = inputs[*at].iter().map(|&from: &usize| x[from]).sum();
                sum / inputs[*at].len().max(1) as f64
            };
            let mut wishes: Vec<(f64, usize)> = layer.iter().map(|at| (middle(at), *at)).collect();
            wishes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let free = (widest - wishes.len()) as f64 / 2.0;
            for (number, (_, at)) in wishes.into_iter().enumerate() {
                x[at] = (free + number as f64) * COLUMN + COLUMN / 2.0;
            }
        }
        let y = |node: &Node| node.layer as f64 * ROW + ROW / 2.0;
        self.nodes.iter().zip(x).map(|(node, x)| (x, y(node))).collect()
    }

    /// The picture as SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let places = self.places();
        let right = places.iter().map(|place| place.0).fold(COLUMN, f64::max) + COLUMN / 2.0;
        let bottom = places.iter().map(|place| place.1).fold(ROW, f64::max) + ROW / 2.0;
        let top = if self.note.is_empty() { 0.0 } else { 24.0 };
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 -{top} {right} {}\" \
             font-family=\"sans-serif\" font-size=\"11\" text-anchor=\"middle\">\n\
             <rect y=\"-{top}\" width=\"{right}\" height=\"{}\" fill=\"#fff\"/>\n",
            bottom + top,
            bottom + top,
        );
        if !self.note.is_empty() {
            let note = escaped(&self.note);
            let _ = writeln!(text, "<text x=\"8\" y=\"-8\" text-anchor=\"start\">{note}</text>");
        }
        for &(from, to) in &self.edges {
            let ((x0, y0), (x1, y1)) = (places[from], places[to]);
            let (y0, y1) = (y0 + HEIGHT / 2.0, y1 - HEIGHT / 2.0);
            let middle = f64::midpoint(y0, y1);
            let _ = writeln!(
                text,
                "<path d=\"M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1}\" fill=\"none\" \
                 stroke=\"#99a\" stroke-opacity=\"0.7\"/>"
            );
        }
        for (node, (x, y)) in self.nodes.iter().zip(&places) {
            node.draw(&mut text, *x, *y);
        }
        text.push_str("</svg>\n");
        text
    }

    /// The picture as a graph in the language of Graphviz.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph {\n  node [shape=box];\n");
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        if !self.note.is_empty() {
            let _ = writeln!(text, "  label=\"{}\";", quoted(&self.note));
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let (name, detail) = (quoted(&node.name), quoted(&node.detail));
            let style = match node.look {
                Look::Task => "",
                Look::Literal => ", style=dashed",
                Look::Output => ", style=bold",
            };
            let _ = writeln!(text, "  t{number} [label=\"{name}\\n{detail}\"{style}];");
        }
        for (from, to) in &self.edges {
            let _ = writeln!(text, "  t{from} -> t{to};");
        }
        text.push_str("}\n");
        text
    }
}

impl Node {
    fn draw(&self, text: &mut String, x: f64, y: f64) {
        let (left, upper) = (x - WIDTH / 2.0, y - HEIGHT / 2.0);
        let colour = colour(self.family);
        let (stroke, radius) = match self.look {
            Look::Task => (format!("stroke=\"{colour}\""), 4),
            Look::Literal => (format!("stroke=\"{colour}\" stroke-dasharray=\"4 3\""), 18),
            Look::Output => ("stroke=\"#222\" stroke-width=\"2\"".to_owned(), 4),
        };
        let full = escaped(&self.name);
        let mut name: String = self.name.chars().take(NAME_MAX).collect();
        if name.len() < self.name.len() {
            name.push_str("...");
        }
        let (name, detail) = (escaped(&name), escaped(&self.detail));
        let _ = writeln!(
            text,
            "<g><title>{full}, {detail}</title><rect x=\"{left}\" y=\"{upper}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" rx=\"{radius}\" fill=\"{colour}\" fill-opacity=\"0.18\" {stroke}/>\
             <text x=\"{x}\" y=\"{}\">{name}</text>\
             <text x=\"{x}\" y=\"{}\" fill=\"#667\">{detail}</text></g>",
            y - 3.0,
            y + 12.0,
        );
    }
}

/// A colour for each number, neighbours far apart.
pub(super) fn colour(number: usize) -> String {
    // Steps of the golden angle meet no hue twice.
    let hue = (number as f64 * 137.508 + 210.0) % 360.0;
    format!("hsl({hue:.0},60%,45%)")
}

/// Text for HTML and SVG.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // What no document may hold.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn look(graph: &Graph<'_>, outputs: &[TaskId], at: usize) -> Look {
    match graph.work()[at] {
        _ if outputs.contains(&graph.id(at)) => Look::Output,
        Work::Literal(_) => Look::Literal,
        Work::Call(_) => Look::Task,
    }
}

/// Which tasks `outputs` need.
fn needed(graph: &Graph<'_>, outputs: &[TaskId]) -> Vec<bool> {
    let mut needed = vec![false; graph.len()];
    for output in outputs {
        if let Some(needed) = needed.get_mut(output.index()) {
            *needed = true;
        }
    }
    for at in (0..graph.len()).rev() {
        if needed[at] {
            graph.inputs(graph.id(at)).iter().for_each(|input| needed[input.index()] = true);
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Family, Value};

    fn tree(leaves: u64) -> (Graph<'static>, TaskId) {
        let mut graph = Graph::new();
        let read = Family::new("read <x>", &[leaves]);
        let value = |_: &[Value]| Ok(Value::new((), 0));
        let zero = graph.literal("\"zero\"", Value::new((), 0));
        let parts: Vec<TaskId> =
            (0..leaves).map(|at| graph.task((&read, at), &[zero], 1 << 20, value)).collect();
        graph.task("unused", &parts, 8, value);
        let total = graph.task("total", &parts, 8, value);
        (graph, total)
    }

    #[test]
    fn a_small_graph_is_drawn_task_by_task() {
        let (graph, total) = tree(3);
        let picture = Picture::of(&graph, &[total]);
        let svg = picture.svg();
        assert_eq!(svg.matches("<g>").count(), 5);
        assert_eq!(svg.matches("<path").count(), 6);
        assert!(svg.contains("read &lt;x&gt;[2]") && !svg.contains("unused"));
        let dot = picture.dot();
        assert!(dot.contains("t0 [label=\"\\\"zero\\\"\\n0 B\", style=dashed];"), "{dot}");
        assert_eq!(dot.matches(" -> ").count(), 6);
    }

    #[test]
    fn a_large_graph_is_drawn_family_by_family() {
        let (graph, total) = tree(5000);
        let picture = Picture::of(&graph, &[total]);
        let svg = picture.svg();
        assert_eq!(svg.matches("<g>").count(), 3);
        assert!(svg.contains("5002 tasks in 3 families"));
        assert!(svg.contains("5000 x, 4.9 GiB"), "{svg}");
        assert!(svg.len() < 10_000);
    }

    #[test]
    fn no_two_nodes_of_a_layer_meet_and_edges_go_down() {
        let (graph, total) = tree(7);
        let picture = Picture::of(&graph, &[total]);
        let places = picture.places();
        for (a, first) in places.iter().enumerate() {
            for second in &places[..a] {
                assert!((first.0 - second.0).abs() > WIDTH || (first.1 - second.1).abs() > HEIGHT);
            }
        }
        assert!(picture.edges.iter().all(|&(from, to)| places[from].1 < places[to].1));
    }
}
