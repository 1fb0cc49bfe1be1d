#!/usr/bin/env python3
"""Random single-element reads of a compressed array: zbigarray beside zarr-python, icechunk and
tensorstore.

    python3 benches/peers/random_elements.py [--mib 256] [--again 2000] [--directory DIR]

The same numbers, chunks of 2 MiB and codec everywhere: zstd level 3, and LZ4 over shuffled bytes
(inside Blosc for the others, which have no other way to it). Each reader is a process of its own.
Cold: the first read of each chunk, in random order, with the page cache emptied before (needs root;
else the table says that it was not). Again: random elements once every chunk was touched. The
others are called from Python, one element at a time, as their users do it; ours is the example
`random_elements` in a release build. tensorstore may keep as many decoded bytes as we may; the
other two have no such cache. Installs the peers into `target/peers`, nowhere else.

Numbers are f64 of a slow random walk with few digits, so that they compress about threefold.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / "target" / "peers"
PACKAGES = ["numpy", "zarr>=3", "icechunk", "tensorstore"]
CHUNK = (2 << 20) // 8
CODECS = {"zstd": "zstd:3", "lz4": "lz4+shuffle"}
PEERS = ["zarr-python", "icechunk", "tensorstore"]


def in_venv():
    python = VENV / "bin" / "python"
    if pathlib.Path(sys.prefix) == VENV:
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    probe = "import numpy, zarr, icechunk, tensorstore"
    if subprocess.run([python, "-c", probe], stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    os.execv(python, [python, *sys.argv])


def numbers(count):
    import numpy

    steps = numpy.random.default_rng(5).integers(-3, 4, count)
    return numpy.cumsum(steps).astype("f8") / 8


def zarr_codecs(codec):
    import zarr

    if codec == "zstd":
        return zarr.codecs.ZstdCodec(level=3)
    return zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=8)


def zarr_array(store, values, codec):
    import zarr

    array = zarr.create_array(
        store, name="a", shape=values.shape, chunks=(CHUNK,), dtype="f8",
        compressors=zarr_codecs(codec), zarr_format=3,
    )
    array[:] = values


def icechunk_repository(path, create):
    import icechunk

    storage = icechunk.local_filesystem_storage(str(path))
    kind = icechunk.Repository
    return kind.create(storage) if create else kind.open(storage)


def write(where, values, codec, zba):
    zarr_array(str(where / "zarr"), values, codec)
    session = icechunk_repository(where / "icechunk", True).writable_session("main")
    zarr_array(session.store, values, codec)
    session.commit("numbers")
    import numpy

    numpy.save(where / "a.npy", values)

    def run(*words):
        subprocess.run([zba, *map(str, words)], check=True, stdout=subprocess.DEVNULL)

    run("create", where / "zba")
    run("import", where / "zba", "a", where / "a.npy", "--codec", CODECS[codec])
    (where / "a.npy").unlink()


def opened(peer, where, cache_bytes):
    if peer == "tensorstore":
        import tensorstore

        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(where / "zarr" / "a")},
            "context": {"cache_pool": {"total_bytes_limit": cache_bytes}},
            "recheck_cached_data": "open",
        }
        array = tensorstore.open(spec).result()
        return array.shape[0], lambda at: array[at].read().result()
    import zarr

    store = str(where / "zarr")
    if peer == "icechunk":
        store = icechunk_repository(where / "icechunk", False).readonly_session("main").store
    array = zarr.open_array(store, path="a", mode="r")
    return array.shape[0], lambda at: array[at]


def measure(peer, where, again, seed, cache_bytes):
    """In a process of its own: one line of JSON."""
    import numpy

    count, read = opened(peer, where, cache_bytes)
    random = numpy.random.default_rng(seed)
    cold, total = [], 0.0
    for chunk in random.permutation(count // CHUNK):
        at = int(chunk) * CHUNK + int(random.integers(CHUNK))
        begin = time.perf_counter()
        total += float(read(at))
        cold.append((time.perf_counter() - begin) * 1e6)
    places = [int(at) for at in random.integers(count, size=again)]
    begin = time.perf_counter()
    for at in places:
        total += float(read(at))
    again_us = (time.perf_counter() - begin) * 1e6 / max(again, 1)
    print(json.dumps({"cold_us": cold, "again_us": again_us, "sum": total}))


def drop_caches():
    try:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError:
        return False


def check_equal(where, values):
    """Every reader shows the numbers that were written."""
    import numpy

    places = [int(at) for at in numpy.random.default_rng(1).integers(len(values), size=20)]
    for peer in PEERS:
        _, read = opened(peer, where, 64 << 20)
        for at in places:
            assert float(read(at)) == values[at], (peer, at)


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--mib", type=int, default=256, help="size of the array")
    words.add_argument("--again", type=int, default=2000, help="reads once all was touched")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--directory", help="where to write; a new one by default")
    words.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = words.parse_args()
    in_venv()
    # Its warnings go to the standard output.
    os.environ["ICECHUNK_LOG"] = "error"
    cache_bytes = 2 * options.mib << 20
    if options.measure:
        peer, where = options.measure
        return measure(peer, pathlib.Path(where), options.again, 3, cache_bytes)
    cargo = ["cargo", "build", "--quiet", "--release", "--bin", "zba"]
    cargo += ["--example", "random_elements"]
    subprocess.run(cargo, check=True, cwd=ROOT)
    release = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    values = numbers(options.mib << 17)
    print("| codec | reader | cold, us | x ours | again, us | x ours |")
    print("|---|---|---|---|---|---|")
    is_cold = True
    for codec in CODECS:
        where = pathlib.Path(tempfile.mkdtemp(dir=options.directory))
        write(where, values, codec, release / "zba")
        check_equal(where, values)
        ours = [release / "examples" / "random_elements", where / "zba", "a", CHUNK]
        ours += [options.again * 1000, 3]
        readers = {"zbigarray": ours}
        for peer in PEERS:
            sizes = ["--mib", options.mib, "--again", options.again]
            readers[peer] = [sys.executable, __file__, *sizes, "--measure", peer, where]
        found = {reader: ([], []) for reader in readers}
        for _ in range(options.rounds):
            for reader, command in readers.items():
                is_cold &= drop_caches()
                output = subprocess.run(
                    list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True
                )
                result = json.loads(output.stdout)
                found[reader][0].append(statistics.median(result["cold_us"]))
                found[reader][1].append(result["again_us"])
        cold, again = (statistics.median(part) for part in found["zbigarray"])
        for reader, (colds, agains) in found.items():
            a, b = statistics.median(colds), statistics.median(agains)
            print(f"| {codec} | {reader} | {a:.0f} | {a / cold:.1f} | {b:.3f} | {b / again:.0f} |")
        shutil.rmtree(where)
    emptied = "emptied" if is_cold else "NOT emptied"
    print(f"\n{options.mib} MiB in chunks of 2 MiB, medians of {options.rounds} rounds.")
    print(f"The page cache was {emptied} before each reader.")


if __name__ == "__main__":
    main()
