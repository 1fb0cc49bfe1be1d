"""How many results are alive at most when dask's order runs some graphs on one thread.

    python order_dask.py > ../data/dask_order.json

Needs dask. Each graph is a list of inputs by number; results that nobody needs are outputs and are
gone once made. `src/compute/order.rs` reads the file and compares its own order with these numbers.
"""

import json
import random

from dask._task_spec import Task, TaskRef
from dask.order import order


class Graph:
    def __init__(self, name):
        self.name, self.inputs = name, []

    def add(self, *inputs):
        self.inputs.append(sorted(set(inputs)))
        return len(self.inputs) - 1


def tree(graph, leaves, width=2):
    while len(leaves) > 1:
        leaves = [graph.add(*leaves[i : i + width]) for i in range(0, len(leaves), width)]
    return leaves[0]


def embarrassing():
    graph = Graph("embarrassing")
    for _ in range(40):
        graph.add(graph.add(graph.add()))
    return graph


def binary_tree():
    graph = Graph("tree")
    tree(graph, [graph.add() for _ in range(64)])
    return graph


def wide_tree():
    graph = Graph("tree of 8")
    tree(graph, [graph.add(graph.add()) for _ in range(128)], 8)
    return graph


def dot_minus_mean(rows, columns, inner, name):
    """A.T.dot(B) - B.mean(axis=0), products added up in a chain."""
    graph = Graph(name)
    a = [[graph.add() for _ in range(rows)] for _ in range(inner)]
    b = [[graph.add() for _ in range(columns)] for _ in range(inner)]
    means = [tree(graph, [graph.add(b[k][j]) for k in range(inner)]) for j in range(columns)]
    for i in range(rows):
        for j in range(columns):
            total = None
            for k in range(inner):
                product = graph.add(a[k][i], b[k][j])
                total = product if total is None else graph.add(total, product)
            graph.add(total, means[j])
    return graph


def minus_mean():
    """x - x.mean() with blocks that are not read again."""
    graph = Graph("x - x.mean()")
    x = [graph.add() for _ in range(40)]
    mean = tree(graph, [graph.add(block) for block in x], 4)
    for block in x:
        graph.add(block, mean)
    return graph


def normalised():
    """(B - B.mean(axis=0)) + (B.T / B.std())."""
    graph = Graph("(B - B.mean(0)) + (B.T / B.std())")
    count = 6
    b = [[graph.add() for _ in range(count)] for _ in range(count)]
    means = [tree(graph, [graph.add(b[i][j]) for i in range(count)]) for j in range(count)]
    deviation = tree(graph, [graph.add(block) for row in b for block in row], 6)
    for i in range(count):
        for j in range(count):
            graph.add(graph.add(b[i][j], means[j]), graph.add(graph.add(b[j][i]), deviation))
    return graph


def rechunk():
    graph = Graph("rechunk")
    rows = [graph.add() for _ in range(8)]
    pieces = [[graph.add(row) for _ in range(8)] for row in rows]
    for column in range(8):
        graph.add(*[pieces[row][column] for row in range(8)])
    return graph


def svd():
    """Tall and skinny: QR of each block, of the stacked R, and back."""
    graph = Graph("tsqr")
    factors = [graph.add(graph.add()) for _ in range(20)]
    qs, rs = [graph.add(f) for f in factors], [graph.add(f) for f in factors]
    small = graph.add(*rs)
    for q in qs:
        graph.add(q, graph.add(small))
    return graph


def stencil():
    graph = Graph("stencil")
    row = [graph.add() for _ in range(30)]
    for _ in range(4):
        row = [graph.add(*row[max(0, i - 1) : i + 2]) for i in range(len(row))]
    return graph


def any_graph(seed):
    random.seed(seed)
    graph = Graph(f"random {seed}")
    for number in range(60):
        near = range(max(0, number - 12), number)
        graph.add(*random.sample(near, min(len(near), random.choice([0, 1, 1, 2, 3]))))
    return graph


def peak(graph, places):
    """Most results alive while a step runs, its own included."""
    uses = [0] * len(graph.inputs)
    for inputs in graph.inputs:
        for i in inputs:
            uses[i] += 1
    live = most = 0
    for step in places:
        live += 1
        most = max(most, live)
        for i in graph.inputs[step]:
            uses[i] -= 1
            live -= uses[i] == 0
        live -= uses[step] == 0
    return most


def main():
    graphs = [
        embarrassing(),
        binary_tree(),
        wide_tree(),
        dot_minus_mean(4, 4, 4, "A.T.dot(B) - B.mean(0), 4 4 4"),
        dot_minus_mean(2, 2, 16, "A.T.dot(B) - B.mean(0), 2 2 16"),
        dot_minus_mean(6, 6, 2, "A.T.dot(B) - B.mean(0), 6 6 2"),
        minus_mean(),
        normalised(),
        rechunk(),
        svd(),
        stencil(),
        *[any_graph(seed) for seed in range(12)],
    ]
    lines = []
    for graph in graphs:
        keys = [f"t{number:04}" for number in range(len(graph.inputs))]
        tasks = {
            key: Task(key, max, *[TaskRef(keys[i]) for i in inputs])
            for key, inputs in zip(keys, graph.inputs)
        }
        priority = order(tasks)
        places = sorted(range(len(keys)), key=lambda number: priority[keys[number]])
        line = {"name": graph.name, "inputs": graph.inputs, "dask": peak(graph, places)}
        lines.append(json.dumps(line, separators=(",", ":")))
    print("[\n" + ",\n".join(lines) + "\n]")


main()
