#!/usr/bin/env python3
"""What other libraries need for the same work: NumPy with OpenBLAS, dask, dask over zarr.

    python3 benches/peers/peers.py prepare           makes target/peers, a venv with the packages
    python3 benches/peers/peers.py CASE ARGUMENT...  one peer, driven by a bench target

A peer prepares its data, prints "ready", and then answers each line of its input with the seconds
that one turn took. Bench targets ask it turn by turn beside the subject (benches/peer.rs), so that
both see the same machine. Data that a peer reads from a file it writes itself, below the directory
that is its first argument.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "target" / "peers"
PYTHON = VENV / "bin" / "python"
PACKAGES = ["numpy>=2,<3", "dask[array]>=2025", "zarr>=3,<4"]


def prepare():
    """Makes the venv, or finds it made."""
    probe = [PYTHON, "-c", "import numpy, dask.array, zarr"]
    if PYTHON.exists() and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(pip + PACKAGES, check=True)


def gemm(dtype, n):
    """One product of n x n matrices in memory, by as many threads as OpenBLAS was told."""
    import numpy as np

    n = int(n)
    a, b = (np.random.default_rng(seed).random((n, n)).astype(dtype) for seed in (1, 2))
    out = np.empty((n, n), dtype)
    return lambda: np.matmul(a, b, out=out)


def qr(rows, columns):
    """Q and R of a matrix in memory."""
    import numpy as np

    a = np.random.default_rng(1).random((int(rows), int(columns)))
    return lambda: np.linalg.qr(a)


def svd(rows, columns):
    """The thin singular value decomposition of a matrix in memory."""
    import numpy as np

    a = np.random.default_rng(1).random((int(rows), int(columns)))
    return lambda: np.linalg.svd(a, full_matrices=False)


def tasks(shape, count):
    """So many tasks that add small numbers, by dask's threaded scheduler, the graph included."""
    import dask.threaded

    count = int(count)

    def add(*values):
        return 1 + sum(values)

    def embarrassing():
        return {("task", i): (add, i) for i in range(count)}, [("task", i) for i in range(count)]

    def chain():
        graph = {("link", 0): (add,)}
        for i in range(1, count):
            graph["link", i] = (add, ("link", i - 1))
        return graph, [("link", count - 1)]

    def tree():
        graph = {("leaf", i): (add, i) for i in range(count // 2)}
        level, sums = list(graph), 0
        while len(level) > 1:
            above = []
            for at in range(0, len(level), 2):
                graph["sum", sums] = (add, *level[at : at + 2])
                above.append(("sum", sums))
                sums += 1
            level = above
        return graph, level

    build = {"embarrassing": embarrassing, "chain": chain, "tree": tree}[shape]

    def turn():
        graph, outputs = build()
        dask.threaded.get(graph, outputs)

    return turn


def dask_matmul(directory, n):
    """The product of two matrices in files, into a file, by dask in threads over NumPy."""
    import dask.array as da
    import numpy as np

    n = int(n)
    paths = [Path(directory) / f"dask-{name}" for name in "abc"]
    matrices = [np.memmap(path, "f8", "w+", shape=(n, n)) for path in paths]
    for seed, matrix in enumerate(matrices[:2], 1):
        matrix[:] = np.random.default_rng(seed).random((n, n)) - 0.5
        matrix.flush()
    chunks = (min(n, 2000), min(n, 2000))
    a, b = (da.from_array(matrix, chunks=chunks) for matrix in matrices[:2])
    return lambda: da.store(a @ b, matrices[2], lock=False, scheduler="threads")


def dask_differences(directory, steps):
    """The mean of every fourth field less that of every fourth other, by dask over zarr."""
    import dask.array as da
    import numpy as np
    import zarr

    steps, shape = int(steps), (721, 1440)
    path = str(Path(directory) / "dask-fields.zarr")
    array = zarr.create_array(
        path, shape=(steps, *shape), chunks=(1, *shape), dtype="f4", compressors=None
    )
    for step in range(steps):
        array[step] = np.random.default_rng(step).random(shape, dtype="f4")
    t2m = da.from_zarr(path)
    return lambda: (t2m[::4].mean(axis=0) - t2m[2::4].mean(axis=0)).compute(scheduler="threads")


def dask_svd(directory, rows, columns):
    """The thin singular value decomposition of a tall matrix in a file, by dask in threads."""
    import dask
    import dask.array as da
    import numpy as np

    rows, columns = int(rows), int(columns)
    path = Path(directory) / "dask-tall"
    matrix = np.memmap(path, "f8", "w+", shape=(rows, columns))
    matrix[:] = np.random.default_rng(1).random((rows, columns)) - 0.5
    matrix.flush()
    a = da.from_array(matrix, chunks=(max(rows // 4, columns), columns))
    return lambda: dask.compute(*da.linalg.svd(a), scheduler="threads")


CASES = {
    case.__name__: case
    for case in (gemm, qr, svd, tasks, dask_matmul, dask_differences, dask_svd)
}


def serve(turn):
    """Answers each line with the seconds of one turn."""
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        turn()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare"]:
            prepare()
        case [name, *arguments] if name in CASES:
            serve(CASES[name](*arguments))
        case _:
            sys.exit(__doc__)
