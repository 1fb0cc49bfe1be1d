"""What a task that does nothing costs in dask, as `cargo bench --bench tasks` asks it of us.

    python3 benches/peers/tasks_dask.py [TASKS] [THREADS]

Makes a venv with dask in target/peers/dask when it first runs. Prints one JSON line per graph:
microseconds for each task, graph and order included, by the threaded scheduler.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / "target" / "peers" / "dask"
DASK = "dask==2026.8.*"


def in_venv():
    """Runs this file again with the Python of the venv."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(VENV)])
    if subprocess.call([str(python), "-c", "import dask"], stderr=subprocess.DEVNULL) != 0:
        subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", DASK])
    os.execv(python, [str(python), __file__, *sys.argv[1:], "--inside"])


def add(*values):
    return 1 + sum(values)


def embarrassing(count):
    return {("task", i): (add, i) for i in range(count)}, [("task", i) for i in range(count)]


def chain(count):
    graph = {("link", 0): (add,)}
    for i in range(1, count):
        graph["link", i] = (add, ("link", i - 1))
    return graph, [("link", count - 1)]


def tree(count):
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


def main():
    import dask
    from dask.threaded import get

    numbers = [int(argument) for argument in sys.argv[1:] if argument != "--inside"]
    count = numbers[0] if numbers else 100_000
    threads = numbers[1] if len(numbers) > 1 else os.cpu_count()
    for build in (embarrassing, chain, tree):
        begin = time.perf_counter()
        graph, outputs = build(count)
        get(graph, outputs, num_workers=threads)
        micros = (time.perf_counter() - begin) * 1e6 / len(graph)
        line = {"name": f"dask {dask.__version__} task, {build.__name__}", "us": round(micros, 2)}
        print(json.dumps({**line, "tasks": len(graph), "threads": threads}), flush=True)


if "--inside" in sys.argv:
    main()
else:
    in_venv()
