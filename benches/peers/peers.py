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


CASES = {case.__name__: case for case in (gemm, qr, svd)}


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
