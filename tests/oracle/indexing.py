"""NumPy's answers for the pure part of the array layer, one JSON object per line.

    python indexing.py [SEED] [CASES]

Each line has a "what":
  index   of (a shape), order, itemsize, text -> shape, strides, offset (bytes), or "error"
  dtype   text, literal or JSON of a type -> str, itemsize, alignment, descr, or "error"
  npy     dtype (descr), order, shape -> the header NumPy writes, in hexadecimal
`tests/it/numpy_pure.rs` runs this file and compares. Nothing here is random but by SEED.
"""

import io
import json
import math
import random
import sys
import warnings

import numpy as np

try:  # NumPy 2.3 and later
    from numpy.lib import _format_impl as npy_format
except ImportError:
    from numpy.lib import format as npy_format

ITEMSIZES = [1, 2, 3, 4, 5, 8, 16, 24]

TEXTS = """
bool ? b1 |b1 <? b i1 int8 byte h i2 int16 short i i4 int32 intc l q p n i8 int64 int intp int_
long longlong B u1 uint8 ubyte H u2 uint16 ushort I u4 uint32 uintc L Q P N u8 uint64 uint uintp
ulong ulonglong e f2 float16 half f f4 float32 single d f8 float64 float double g f16 float128
longdouble F c8 complex64 csingle D c16 complex128 complex cdouble G c32 complex256 clongdouble
<i2 >i2 =i2 |i2 <f8 >f8 =f8 >c16 >f16 >u8 c S1 S10 |S3 <S3 >S3 U1 U9 <U9 >U9 V1 V7 |V7 >V7 f08
M8 M8[Y] M8[M] M8[W] M8[D] M8[h] M8[m] M8[s] M8[ms] M8[us] M8[ns] M8[ps] M8[fs] M8[as] M8[25s]
M8[1s] M8[generic] >M8[7D] m8 m8[ns] >m8[25ps] M m datetime64 datetime64[ns] timedelta64[7D]
datetime64[25s] M8[2147483647s] 3i4 1i4 (2,3)f8 (1,)f8 (2,)>i2 2>f8 >2f8 2S3 i4, i4,f8 ?,? >f8,<i4
(2,)i4,(3,)f4 3f8,M8[s],S5 S2147483647 U536870911
x T i3 i16 int128 f1 f3 c4 <float64 f-8 M4 m4 M8[] M8[s M8s M8[s]x M8[xx] M8[2147483648s] < <<f8 S-1
S99999999999 S2147483648 U536870912 Float64 void5 str5 string float_ object_x (2)f8 (2,f8 (2,-1)f8
5 i4,,f8 , i4;f8 bool8 character cfloat longfloat uint0
O |O O8 object object_ i4,O (2,)O S S0 U U0 <U0 V V0 str bytes void str_ bytes_ unicode (0,)f8 0f8
""".split() + ["i4, f8", "i4, (2, 3)f8", "", " f8", "f8 ", "i4 f8", "(2,3) f8"]

FORMS = [
    [("x", "<i4")],
    [("x", "<i4"), ("y", ">f8", (2,))],
    [("x", "<i4"), ("y", "<f8", (2, 3)), ("z", [("a", "|S3"), ("b", "<U2", (1,))], (3, 1))],
    [("a b", "|b1"), ("it's", "|i1"), ('say "x"', "<M8[ns]"), ("both '\"", "<m8[25s]")],
    [("back\\slash", "<c8"), ("tab\t", ">c32"), ("\xe9", "<f2")],
    [(("title", "x"), "<i4"), ("y", "<f8")],
    [("", "<i4"), ("y", "<f8")],
    ("<f8", (2, 3)),
    ("<f8", ()),
    {"names": ["a"], "formats": ["<f8"], "offsets": [4], "itemsize": 20},
    {"names": ["a", "b"], "formats": ["<f8", "<i4"]},
    {"names": ["a", "b"], "formats": ["<f8", "<i4"], "offsets": [4, 2]},
    {"names": ["a", "b"], "formats": ["<f8", "<i4"], "offsets": [8, 0]},
    {"names": ["a", "b"], "formats": [[("x", "<i2"), ("y", "|V5")], "|S4"], "offsets": [1, 16]},
    {"names": ["a"], "formats": ["<f8"], "itemsize": 4},
    {"names": ["a"], "formats": ["<f8"], "offsets": [-4]},
    {"names": ["a", "a"], "formats": ["<f8", "<i4"]},
    [("a", "<f8"), ("a", "<i4")],
    [("a", "|O")],
    [("a", "<i4"), ("b", [("c", "|O")], (2,))],
    [("a", "|S0")],
    [("a", "<f8", (0,))],
    [],
]


def part(rng, length):
    """One part of an indexing expression for an axis of this length."""
    kind = rng.random()
    if kind < 0.2:
        return str(rng.randint(-length - 1, length))
    end = lambda: rng.choice(["", "", str(rng.randint(-2 * length - 2, 2 * length + 2))])
    if kind < 0.5:
        return f"{end()}:{end()}"
    if kind < 0.9:
        return f"{end()}:{end()}:{rng.choice([-7, -3, -2, -1, 1, 1, 2, 3, 5, 0, ''])}"
    if kind < 0.95:
        return f"{-10**30}:{10**30}:{rng.choice([1, -1])}"
    return ":"


def expression(rng, shape):
    parts = [part(rng, length) for length in shape[: rng.randint(0, len(shape))]]
    if rng.random() < 0.05:
        parts.append("0")
    for word in ["None", "None", "..."]:
        if rng.random() < 0.25:
            parts.insert(rng.randint(0, len(parts)), word)
    if rng.random() < 0.01:
        parts.append("...")
    return ", ".join(parts) if parts else "()"


def select(shape, order, itemsize, text):
    """Shape, strides and offset of what an expression selects."""
    # Over a buffer: a fresh array without elements would have strides of 0.
    buffer = bytearray(max(1, math.prod(shape) * itemsize))
    array = np.ndarray(shape, dtype=f"V{itemsize}", buffer=buffer, order=order)
    view = eval(f"array[{text},]" if text != "()" else "array[()]", {"array": array})
    if not isinstance(view, np.ndarray):
        raise AssertionError("a scalar")
    offset = view.__array_interface__["data"][0] - array.__array_interface__["data"][0]
    return {"shape": view.shape, "strides": view.strides, "offset": offset}


def index_case(rng):
    shape = [rng.choice([0, 1, 1, 2, 3, 5, 7, 10]) for _ in range(rng.randint(0, 5))]
    order, itemsize = rng.choice("CF"), rng.choice(ITEMSIZES)
    text = expression(rng, shape)
    case = {"what": "index", "of": shape, "order": order, "itemsize": itemsize, "text": text}
    # An ellipsis makes NumPy return an array where all axes have positions; the answer is the
    # same in shape, strides and offset.
    asked = text if "..." in text else (text + ", ..." if text != "()" else "...")
    try:
        case.update(select(shape, order, itemsize, asked))
    except (IndexError, ValueError) as error:
        case["error"] = type(error).__name__
    return case


def describe(case, form):
    """Adds what NumPy makes of a type, or why it makes nothing that can be stored."""
    try:
        dtype = np.dtype(form)
    except (TypeError, ValueError, SyntaxError) as error:
        case["error"] = type(error).__name__
        return case
    if dtype.char == "T":
        case["error"] = "not of fixed size"
    elif dtype.hasobject:
        case["error"] = "object"
    elif dtype.itemsize == 0 or any(part.itemsize == 0 for part in parts(dtype)):
        case["error"] = "size 0"
    else:
        case.update(str=dtype.str, itemsize=dtype.itemsize, alignment=dtype.alignment)
        # Not `isnative`, which is true for a subarray of any order.
        case["native"] = dtype == dtype.newbyteorder("=")
        if dtype.subdtype is not None:
            return case  # NumPy describes these as bytes, which loses their parts.
        try:
            case["descr"] = repr(npy_format.dtype_to_descr(without_titles(dtype)))
        except ValueError:
            case["descr"] = None
    return case


def parts(dtype):
    return [dtype.fields[name][0] for name in dtype.names or ()]


def without_titles(dtype):
    if dtype.names is None:
        return dtype
    fields = [dtype.fields[name] for name in dtype.names]
    formats, offsets = [field[0] for field in fields], [field[1] for field in fields]
    return np.dtype(
        {"names": dtype.names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
    )


def npy_case(dtype, order, shape):
    dtype = np.dtype(dtype)
    header = {
        "descr": npy_format.dtype_to_descr(dtype),
        "fortran_order": order == "F",
        "shape": tuple(shape),
    }
    stream = io.BytesIO()
    # No version: NumPy chooses the lowest that fits, as it does when it saves an array.
    npy_format._write_array_header(stream, header)
    return {
        "what": "npy",
        "descr": repr(header["descr"]),
        "order": order,
        "shape": shape,
        "hex": stream.getvalue().hex(),
    }


def npy_cases(rng):
    long = [(f"long_field_name_{at}", "<f8") for at in range(3000)]
    types = ["<f8", "|b1", ">i4", "|S5", "<U3", "<M8[25s]", "|V7", "<f16"]
    types += [[("x", "<i4"), ("y", ">f8", (2,))], long]
    types += [[("\u4e16\u754c", "<f8")], [("\xe9", "<f8")]]
    types += [{"names": ["a"], "formats": ["<f8"], "offsets": [4], "itemsize": 20}]
    for dtype in types:
        for order in "CF":
            for ndim in range(4):
                shape = [rng.choice([0, 1, 3, 99, 10**4]) for _ in range(ndim)]
                yield npy_case(dtype, order, shape)


def main():
    arguments = [int(argument) for argument in sys.argv[1:]]
    seed, cases = arguments + [1, 4000][len(arguments) :]
    rng = random.Random(seed)
    warnings.simplefilter("ignore")
    out = [index_case(rng) for _ in range(cases)]
    out += [describe({"what": "dtype", "text": text}, text) for text in TEXTS]
    out += [describe({"what": "dtype", "python": repr(form)}, form) for form in FORMS]
    for form in FORMS:
        out.append(describe({"what": "dtype", "json": json.loads(json.dumps(form))}, form))
    out += npy_cases(rng)
    for line in out:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
