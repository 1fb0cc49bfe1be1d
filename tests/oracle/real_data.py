"""Real arrays through the command line and a program, compared with NumPy.

Usage: real_data.py ZBA RELIEF SAMPLE_DATA OUT

ZBA is the command, RELIEF the program demo/relief.rs, SAMPLE_DATA the sample data inside
matplotlib (an elevation model and a slice of an MRI scan), OUT a directory for the store and
pictures. Ends with "N passed, 0 failed", or with the first difference.
"""

import gzip
import io
import json
import pathlib
import subprocess
import sys

import numpy as np

zba, relief, sample_data, out = sys.argv[1:]
sample_data, out = pathlib.Path(sample_data), pathlib.Path(out)
store = str(out / "real.zba")
passed = 0


def run(*command, data=None, status=0):
    """Standard output of a command that must end with `status`."""
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == status, (command, done.returncode, done.stderr.decode())
    return done.stdout


def export(name, *options):
    return np.load(io.BytesIO(run(zba, "export", store, name, "-", *options)))


def same(what, found, expected):
    global passed
    assert found.dtype == expected.dtype, (what, found.dtype, expected.dtype)
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    assert np.array_equal(found, expected), what
    print("same:", what)
    passed += 1


model = np.load(sample_data / "jacksboro_fault_dem.npz")
with gzip.open(sample_data / "s1045.ima.gz") as file:
    scan_bytes = file.read()
scan = np.frombuffer(scan_bytes, dtype=">u2").reshape(256, 256)

run(zba, "create", store)
run(zba, "import", store, "dem", str(sample_data / "jacksboro_fault_dem.npz"))
run(zba, "import", store, "scan", "-", "--raw", "--dtype", ">u2", "--shape", "256,256",
    data=scan_bytes)

elevation = model["elevation"]
for member in model.files:
    same(f"dem/{member}", export(f"dem/{member}"), model[member])
same("scan in its own byte order", export("scan"), scan)
same("a slice", export("dem/elevation", "--slice", "10:200:7, ::-3"), elevation[10:200:7, ::-3])

# Modify and abort, then modify and commit, in a program of its own.
tid = json.loads(run(zba, "info", store, "--json"))["commit"]
raised = np.array(elevation, dtype="i2")
buffer = io.BytesIO()
np.save(buffer, raised)
run(zba, "import", store, "relief", "-", data=buffer.getvalue())
run(relief, store, "relief", "500")
rows, columns = raised.shape
expected = raised.copy()
expected[rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3] += 500
same("the raised relief", export("relief"), expected)
same("the relief before", export("relief", "--at", str(tid + 1)), raised)

# Append the scan to itself, in Fortran order too.
fortran = np.asfortranarray(scan.astype("<u2"))
buffer = io.BytesIO()
np.save(buffer, fortran)
run(zba, "import", store, "stack", "-", data=buffer.getvalue())
run(zba, "import", store, "stack", "-", "--append", data=buffer.getvalue())
same("appended along the last axis", export("stack"), np.concatenate([fortran, fortran], axis=1))

# A wrong append and a cut file change nothing.
run(zba, "import", store, "stack", "-", "--append", data=buffer.getvalue()[:-10], status=1)
wrong = io.BytesIO()
np.save(wrong, fortran.astype("f8"))
run(zba, "import", store, "stack", "-", "--append", data=wrong.getvalue(), status=1)
same("after refused imports", export("stack"), np.concatenate([fortran, fortran], axis=1))
run(zba, "check", store, "--data")
passed += 1

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LightSource
except ImportError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    light = LightSource(azdeg=315, altdeg=45)
    for axis, array, title in [
        (axes[0], export("relief", "--at", str(tid + 1)), "relief at the import"),
        (axes[1], export("relief"), "relief after the commit"),
    ]:
        axis.imshow(light.shade(array.astype("f4"), plt.cm.gist_earth, vert_exag=0.05))
        axis.set_title(title)
    axes[2].imshow(export("stack"), cmap="gray")
    axes[2].set_title("scan, appended to itself")
    figure.savefig(out / "real_data.png", dpi=80)
    print("picture:", out / "real_data.png")

print(f"{passed} passed, 0 failed")
