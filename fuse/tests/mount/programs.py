"""What programs do with a mounted store that know nothing of it: NumPy, Zarr, xarray, dask.

    python programs.py read MOUNT      the arrays that python.rs made, by each of them
    python programs.py write MOUNT     new and changed arrays
    python programs.py follow FILE STOP   a mapping under commits until the file STOP is there

Prints a line "not run: ..." for each package that is missing.
"""

import importlib
import os
import random
import subprocess
import sys

import numpy as np


def package(name):
    """The package, or None, which is said."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"not run: {error}")
        return None


def content(shape, dtype):
    """The values that python.rs gave an array: 0, 1, 2, ..."""
    return np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)


def read(mount):
    head = os.path.join(mount, "head")
    field = content((30, 200, 300), "<f4")
    mapped = np.load(f"{head}/climate/t2m.npy", mmap_mode="r")
    assert mapped.dtype == "<f4" and (mapped == field).all()
    assert (np.load(f"{head}/climate/t2m.npy") == field).all()
    assert (np.load(f"{mount}/at/1/climate/t2m.npy") == field).all()
    columns = np.load(f"{head}/columns.npy", mmap_mode="r")
    assert columns.flags.f_contiguous and columns.shape == (40, 50)
    assert (columns.T.ravel() == np.arange(2000)).all()
    if zarr := package("zarr"):
        array = zarr.open_array(f"{head}/climate/t2m.zarr", mode="r")
        assert (array[:] == field).all() and (array[7, 3:90, ::2] == field[7, 3:90, ::2]).all()
        assert (zarr.open_array(f"{head}/columns.zarr", mode="r")[:] == columns).all()
        assert (zarr.open_array(f"{head}/big.zarr", mode="r")[:] == np.arange(100)).all()
        group = zarr.open_group(f"{mount}/head.zarr", mode="r")
        assert (group["climate/t2m"][:] == field).all()
    if xarray := package("xarray"):
        if package("zarr") and package("dask"):
            dataset = xarray.open_zarr(f"{head}/climate.zarr")
            assert (dataset.t2m.values == field).all()
            assert float(dataset.t2m.isel(t2m_0=3).max()) == field[3].max()
    if dask := package("dask.array"):
        if package("zarr"):
            lazy = dask.from_zarr(f"{head}/climate/t2m.zarr")
            assert (lazy[::3].compute() == field[::3]).all()
        lazy = dask.from_array(mapped, chunks=(7, 200, 300))
        assert int(lazy.astype("i8").sum().compute()) == int(field.astype("i8").sum())
    if tensorstore := package("tensorstore"):
        store = {"driver": "file", "path": f"{head}/climate/t2m.zarr/"}
        opened = tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result()
        assert (opened.read().result() == field).all()


def write(mount):
    head = os.path.join(mount, "head")
    values = np.random.default_rng(1).normal(size=(300, 1000)).astype("f4")
    path = f"{head}/new.npy"
    np.save(path, values)
    assert (np.load(path, mmap_mode="r") == values).all()
    # Through a mapping, seen by another mapping after the flush.
    reader, writer = np.load(path, mmap_mode="r"), np.load(path, mmap_mode="r+")
    writer[5] = 7
    writer.flush()
    assert (reader[5] == 7).all()
    writer[6] = 8
    del writer
    assert (np.load(path)[6] == 8).all()
    with open(path, "ab") as file:
        file.write(values.tobytes())
    longer = np.load(path)
    assert longer.shape == (600, 1000) and (longer[300:] == values).all()
    # A header alone is an array of zeros, to be mapped and filled, here by dask.
    header = {"descr": "<f4", "fortran_order": False, "shape": (300, 1000)}
    with open(f"{head}/filled.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    filled = np.load(f"{head}/filled.npy", mmap_mode="r+")
    if dask := package("dask.array"):
        dask.store(dask.from_array(values, chunks=(100, 1000)), filled)
    else:
        filled[:] = values
    filled.flush()
    assert (np.load(f"{head}/filled.npy") == values).all()
    if xarray := package("xarray"):
        np.save(f"{head}/mean.npy", xarray.DataArray(values).mean("dim_1").values)
        assert np.allclose(np.load(f"{head}/mean.npy"), values.mean(axis=1))
    subprocess.run(["cp", path, f"{head}/copy.npy"], check=True)
    assert (np.load(f"{head}/copy.npy", mmap_mode="r") == longer).all()
    os.setxattr(path, "user.units", b"K")
    os.setxattr(path, "user.range", b"[0, 1]")
    assert os.getxattr(path, "user.units") == b"K"
    assert sorted(os.listxattr(path)) == ["user.range", "user.units"]
    os.removexattr(path, "user.range")
    assert os.listxattr(path) == ["user.units"]


def follow(path, stop):
    """Pages of a mapping hold one number each, which never gets less."""
    pages = np.load(path, mmap_mode="r").reshape(-1, 512)
    seen = np.zeros(len(pages), dtype="<u8")
    print("mapped", flush=True)
    dice = random.Random(1)
    while not os.path.exists(stop):
        for _ in range(1000):
            at = dice.randrange(len(pages))
            page = pages[at]
            low, high = int(page.min()), int(page.max())
            assert low >= seen[at], f"page {at} went back from {seen[at]} to {low}"
            seen[at] = low
            # A page that is replaced between the two looks has a later number.
            assert high >= low
    wanted = np.load(stop).reshape(-1, 512)
    assert (pages == wanted).all(), "the mapping is not what was committed last"


if __name__ == "__main__":
    {"read": read, "write": write, "follow": follow}[sys.argv[1]](*sys.argv[2:])
    print("passed")
