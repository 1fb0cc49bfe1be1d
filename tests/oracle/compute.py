"""NumPy's answers for blocked arrays, one JSON object per line.

    python compute.py [SEED] [CASES]

A case is a little program: "leaves" are arrays (dtype, shape, order, where they lie, blocks, the
elements in C order as hexadecimal), "steps" are functions of values before them ("of" counts
leaves first, then steps), "result" is what the last step gives: dtype, shape, elements, and how far
off ours may be - or "error", if NumPy refuses.

Values that were rounded somewhere are not asked anything that a last bit decides.
`tests/it/numpy_compute.rs` runs this file and compares. Nothing here is random but by SEED.
"""

import json
import random
import sys
import warnings

import numpy as np

REAL = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
REAL += ["float32", "float64"]
DTYPES = REAL + ["complex64", "complex128"]

UNARY = """negative positive absolute sign conjugate square reciprocal exp exp2 expm1 log log2 log10
log1p sqrt cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh degrees
radians floor ceil trunc rint invert logical_not isnan isinf isfinite signbit real imag""".split()
# Computed with the last bit as the standard says.
EXACT_UNARY = """negative positive absolute sign conjugate square reciprocal sqrt floor ceil trunc
rint invert logical_not isnan isinf isfinite signbit real imag""".split()
STEEP_UNARY = "sign floor ceil trunc rint signbit isinf isfinite logical_not reciprocal tan".split()

BINARY = """add subtract multiply divide floor_divide remainder power maximum minimum fmax fmin
arctan2 hypot copysign logaddexp bitwise_and bitwise_or bitwise_xor left_shift right_shift
logical_and logical_or logical_xor equal not_equal less less_equal greater greater_equal""".split()
ROUNDED_BINARY = "power arctan2 hypot logaddexp".split()
STEEP_BINARY = """floor_divide remainder power divide arctan2 copysign logical_and logical_or
logical_xor equal not_equal less less_equal greater greater_equal""".split()

REDUCE = "sum prod min max mean any all".split()
NAN_REDUCE = "nansum nanprod nanmin nanmax nanmean".split()
SPREAD = "var std nanvar nanstd".split()
WHERE = "argmin argmax nanargmin nanargmax".split()


class Value:
    """An array, and whether every element is what any correct program computes, to the bit."""

    def __init__(self, array, exact=True):
        self.array, self.exact = np.asarray(array), exact


def elements(rng, dtype, shape):
    """Random elements of a type: small numbers mostly, extremes now and then."""
    count = int(np.prod(shape))
    kind = np.dtype(dtype).kind
    if kind == "b":
        values = [rng.random() < 0.5 for _ in range(count)]
    elif kind in "iu":
        info = np.iinfo(dtype)
        low = max(info.min, -9)
        pick = lambda: rng.choice([info.min, info.max]) if rng.random() < 0.03 else rng.randint(low, 20)
        values = [pick() for _ in range(count)]
    else:
        special = rng.random() < 0.3
        odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, 1e-30]
        real = lambda: rng.choice(odd) if special and rng.random() < 0.15 else rng.choice(
            [rng.uniform(-4, 4), float(rng.randint(-5, 9))])
        values = [complex(rng.uniform(-4, 4), rng.randint(-3, 3)) if kind == "c" else real()
                  for _ in range(count)]
    return np.array(values, dtype=dtype).reshape(shape)


def shape_of(rng):
    ndim = rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4])
    return [rng.choice([0, 1, 1, 2, 3, 4, 5, 7, 9]) if rng.random() < 0.4 else rng.randint(1, 7)
            for _ in range(ndim)]


def like(rng, shape):
    """A shape that broadcasts with this one, mostly."""
    if rng.random() < 0.04:
        return shape_of(rng)
    cut = shape[rng.randint(0, len(shape)):] if rng.random() < 0.3 else list(shape)
    return [1 if rng.random() < 0.2 else length for length in cut]


def leaf(rng, shape, dtype=None):
    dtype = dtype or rng.choice(DTYPES)
    array = elements(rng, dtype, shape)
    return laid(rng, array), Value(array)


def laid(rng, array):
    """An array somewhere, in some order and blocks."""
    return {
        "dtype": rng.choice("<>") + array.dtype.str[1:] if array.dtype != "bool" else "|b1",
        "shape": list(array.shape),
        "order": rng.choice("CF"),
        "lies": rng.choice(["store", "store", "memory", "function"]),
        "block": [rng.randint(1, max(1, length)) for length in array.shape],
        "hex": array.astype(array.dtype.newbyteorder("<")).tobytes().hex(),
    }


def scalar(rng):
    return rng.choice([True, 2, 3, -1, 0, 7, 300, -200, 0.5, -1.5, 2.0, 1j])


def float16_free(function, *arrays):
    """As NumPy, but computed in float32 where NumPy takes float16."""
    found = function(*arrays)
    if np.asarray(found).dtype == np.float16:
        arrays = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in arrays]
        found = function(*arrays)
    return found


def number(value):
    """A Python number in JSON."""
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": value}
    if isinstance(value, float):
        return {"float": value}
    return {"complex": [value.real, value.imag]}


def pick(rng, values):
    return rng.randint(max(0, len(values) - 3), len(values) - 1)


def unary(rng, values):
    of = pick(rng, values)
    a, name = values[of], rng.choice(UNARY)
    if not a.exact and name in STEEP_UNARY:
        return None
    if a.array.dtype.kind == "c" and name not in EXACT_UNARY + "exp log sqrt sin cos".split():
        return None
    if a.array.dtype.kind == "c" and name == "sign":
        return None
    # Of complex numbers NumPy computes some only roughly at the edges.
    if name == "reciprocal" and a.array.dtype.kind in "iu":
        return None if (a.array == 0).any() else ({"do": name, "of": [of]}, Value(np.reciprocal(a.array), a.exact))
    if a.array.dtype.kind == "c" and name in ["exp", "sqrt", "log", "sin", "cos", "reciprocal"]:
        if not np.isfinite(a.array).all() or (np.abs(a.array) > 20).any() or (a.array == 0).any():
            return None
    function = getattr(np, name)
    if name in ("sin", "cos", "tan") and a.array.dtype.kind in "iufc":
        if (np.abs(a.array[np.isfinite(a.array)].astype(complex)) > 1e6).any():
            return None
    result = float16_free(function, a.array)
    exact = a.exact and (name in EXACT_UNARY) and a.array.dtype.kind != "c"
    exact = exact or (a.exact and name in ["isnan", "isinf", "isfinite", "real", "imag", "negative", "conjugate"])
    return {"do": name, "of": [of]}, Value(result, exact)


def binary(rng, values):
    left, name = pick(rng, values), rng.choice(BINARY)
    a = values[left]
    weak = rng.random() < 0.3
    step = {"do": name}
    if weak:
        b, exact = scalar(rng), a.exact
        step.update({"of": [left], "scalar": number(b)})
    else:
        right = rng.randint(0, len(values) - 1)
        b, exact = values[right].array, a.exact and values[right].exact
        step["of"] = [left, right]
    if not exact and name in STEEP_BINARY:
        return None
    either = np.result_type(a.array, b)
    if either.kind == "c" and name in ["power", "divide", "maximum", "minimum", "fmax", "fmin",
                                       "less", "less_equal", "greater", "greater_equal", "multiply"]:
        if not (np.isfinite(a.array).all() and np.isfinite(b).all()):
            return None
        if name in ["divide", "power"] and ((np.abs(a.array) == 0).any() or (np.abs(b) == 0).any()):
            return None
    if name == "power" and either.kind in "fc" and (np.abs(a.array[np.isfinite(a.array)]) > 50).any():
        return None
    if name == "power" and either.kind == "c" and (np.abs(b) > 5).any():
        return None
    # NumPy takes the square root then, of which -inf has none; C has its power.
    if name == "power" and weak and b == 0.5 and either.kind == "f" and np.isneginf(a.array).any():
        return None
    if name in ["left_shift", "right_shift"]:
        # What C leaves open.
        bits = np.result_type(a.array, b).itemsize * 8
        if ((np.asarray(b) < 0).any() or (np.asarray(b).astype(float) >= bits).any()):
            return None
    if name in ["floor_divide", "remainder"] and either.kind == "f":
        if not (np.isfinite(a.array).all() and np.isfinite(b).all()):
            return None
    result = float16_free(getattr(np, name), a.array, b)
    result = np.asarray(result)
    exact = exact and name not in ROUNDED_BINARY and either.kind != "c"
    return step, Value(result, exact)


def axes_of(rng, ndim):
    kind = rng.random()
    if kind < 0.3 or ndim == 0:
        return None
    if kind < 0.7:
        return [rng.randint(-ndim, ndim - 1)]
    return rng.sample(range(ndim), rng.randint(0, ndim))


def as_axis(axes):
    return None if axes is None else tuple(axes)


def reduce(rng, values):
    of = pick(rng, values)
    a, kind = values[of], rng.random()
    axes, keep = axes_of(rng, a.array.ndim), rng.random() < 0.3
    step = {"of": [of], "axes": axes, "keep": keep}
    is_float = a.array.dtype.kind in "fc"
    if kind < 0.15:
        name = rng.choice(WHERE)
        if not a.exact or (axes is not None and len(axes) != 1) or a.array.dtype.kind == "c":
            return None
        result = getattr(np, name)(a.array, axis=None if axes is None else axes[0], keepdims=keep)
        return {"do": name, **step}, Value(result)
    if kind < 0.35:
        name, ddof = rng.choice(SPREAD), rng.choice([0, 0, 1])
        if not np.isfinite(a.array).all() and not name.startswith("nan"):
            return None
        if np.isinf(a.array).any() or (np.abs(a.array.astype(complex)) > 1e15).any():
            return None
        result = getattr(np, name)(a.array, axis=as_axis(axes), ddof=ddof, keepdims=keep)
        return {"do": name, "ddof": ddof, **step}, Value(result, False)
    name = rng.choice(REDUCE + NAN_REDUCE)
    if name in ("any", "all") and not a.exact:
        return None
    if a.array.dtype.kind == "c":
        if name in ("min", "max", "nanmin", "nanmax") or not np.isfinite(a.array).all():
            return None
    # Sums that overflow on their way depend on the way.
    big = np.abs(a.array[np.isfinite(a.array)].astype(complex))
    if is_float and name in ("sum", "mean", "nansum", "nanmean", "prod", "nanprod") and (big > 1e12).any():
        return None
    if name in ("mean", "nanmean") and (big > 1e15).any():
        return None
    if is_float and "prod" in name and a.array.size > 60:
        return None
    function = getattr(np, name)
    result = function(a.array, axis=as_axis(axes), keepdims=keep)
    result = np.asarray(result)
    exact = a.exact and not (is_float and name in ("sum", "prod", "nansum", "nanprod"))
    exact = exact and name not in ("mean", "nanmean")
    return {"do": name, **step}, Value(result, exact)


def slices(rng, shape):
    parts = []
    for length in shape[: rng.randint(0, len(shape))]:
        end = lambda: rng.choice(["", "", str(rng.randint(-length - 1, length + 1))])
        kind = rng.random()
        if kind < 0.15:
            parts.append(str(rng.randint(-length - (rng.random() < 0.05), max(0, length - 1))))
        elif kind < 0.8:
            parts.append(f"{end()}:{end()}:{rng.choice(['', 1, 2, 3, -1, -2])}")
        else:
            parts.append(":")
    for word in ["None", "..."]:
        if rng.random() < 0.2:
            parts.insert(rng.randint(0, len(parts)), word)
    return ", ".join(parts) if parts else "()"


def move(rng, values):
    of = pick(rng, values)
    a = values[of]
    array, ndim = a.array, a.array.ndim
    axis = rng.randint(-ndim, ndim - 1) if ndim else 0
    name = rng.choice("""slice slice slice take compress transpose flip expand_dims squeeze reshape
        ravel concatenate stack repeat roll pad rechunk broadcast_to astype swapaxes""".split())
    step = {"do": name, "of": [of], "axis": axis}
    if name == "slice":
        step["text"] = slices(rng, array.shape)
        text = step["text"]
        result = array[()] if text == "()" else eval(f"array[{text},]", {"array": array})
    elif name in ("expand_dims",):
        step["axis"] = axis = rng.randint(-ndim - 1, ndim)
        result = np.expand_dims(array, axis)
    elif name == "broadcast_to":
        step["shape"] = [rng.randint(0, 3)] + [n if n != 1 else rng.randint(1, 4) for n in array.shape]
        result = np.broadcast_to(array, step["shape"])
    elif name == "astype":
        dtype = rng.choice(DTYPES)
        if array.dtype.kind in "fc" and np.dtype(dtype).kind in "iu":
            # What C leaves open.
            if not a.exact or not np.isfinite(array).all() or (np.abs(array) > 100).any():
                return None
            if np.dtype(dtype).kind == "u" and (array.real < 0).any():
                return None
        if not a.exact and dtype == "bool":
            return None
        step["dtype"] = np.dtype(dtype).str
        result = array.astype(dtype)
    elif name == "reshape":
        shape = [array.size] if array.size else [0]
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(len(shape))
            divisors = [d for d in range(1, shape[at] + 1) if shape[at] % d == 0] or [1]
            d = rng.choice(divisors)
            shape[at:at + 1] = [d, shape[at] // d]
        if rng.random() < 0.2 and shape:
            shape[rng.randrange(len(shape))] = -1
        if rng.random() < 0.03:
            shape.append(2)
        step["shape"] = shape
        result = array.reshape(shape)
    elif name == "ravel":
        result = array.ravel()
    elif name == "rechunk":
        step["block"] = [rng.randint(1, max(1, n)) for n in array.shape]
        result = array
    elif name == "transpose":
        step["axes"] = rng.sample(range(ndim), ndim)
        result = array.transpose(step["axes"])
    elif name == "pad":
        step["mode"] = rng.choice("constant edge reflect symmetric wrap".split())
        step["widths"] = [[rng.randint(0, 4), rng.randint(0, 4)] for _ in range(ndim)]
        if array.size == 0 or not ndim:
            return None
        result = np.pad(array, step["widths"], mode=step["mode"])
    elif ndim == 0:
        return None
    elif name == "take":
        length = array.shape[axis]
        if not length:
            return None
        step["at"] = [rng.randint(-length, length - 1) for _ in range(rng.randint(0, 6))]
        result = np.take(array, np.array(step["at"], dtype=int), axis=axis)
    elif name == "compress":
        step["mask"] = [rng.random() < 0.5 for _ in range(array.shape[axis])]
        result = np.compress(step["mask"], array, axis=axis)
    elif name == "flip":
        result = np.flip(array, axis)
    elif name == "squeeze":
        result = np.squeeze(array, axis)
    elif name == "swapaxes":
        step["other"] = rng.randint(-ndim, ndim - 1)
        result = np.swapaxes(array, axis, step["other"])
    elif name == "repeat":
        step["times"] = rng.randint(0, 3)
        result = np.repeat(array, step["times"], axis=axis)
    elif name == "roll":
        step["shift"] = rng.randint(-20, 20)
        result = np.roll(array, step["shift"], axis=axis)
    else:
        others = [at for at, v in enumerate(values) if v.array.shape == array.shape]
        step["of"] = [of] + [rng.choice(others) for _ in range(rng.randint(0, 2))]
        parts = [values[at].array for at in step["of"]]
        a = Value(array, all(values[at].exact for at in step["of"]))
        result = getattr(np, name)(parts, axis=axis)
    return step, Value(result, a.exact)


def choose(rng, values):
    of = [rng.randint(0, len(values) - 1) for _ in range(3)]
    a, b, c = [values[at] for at in of]
    if not a.exact:
        return None
    if rng.random() < 0.5:
        result = np.where(a.array, b.array, c.array)
        return {"do": "where", "of": of}, Value(result, b.exact and c.exact)
    low, high = rng.choice([(-1, 3), (0, 2), (-2, None), (None, 1)])
    if a.array.dtype.kind in "bcu":
        return None
    result = np.clip(a.array, low, high)
    step = {"do": "clip", "of": of[:1]}
    step["low"], step["high"] = [None if b is None else number(b) for b in (low, high)]
    return step, Value(result, a.exact)


def scan(rng, values):
    """Functions along an axis that are no reductions."""
    of = pick(rng, values)
    a = values[of]
    array, ndim = a.array, a.array.ndim
    if ndim == 0 or not a.exact:
        return None
    axis = rng.randint(-ndim, ndim - 1)
    name = rng.choice("cumsum cumprod topk percentile histogram bincount diff".split())
    step = {"do": name, "of": [of], "axis": axis}
    finite = np.isfinite(array).all()
    if name in ("cumsum", "cumprod"):
        if array.dtype.kind in "fc" and (not finite or (np.abs(array) > 1e6).any()):
            return None
        result = getattr(np, name)(array, axis=axis)
        return step, Value(result, array.dtype.kind in "biu")
    if name == "diff":
        step["n"] = rng.randint(0, 2)
        return step, Value(np.diff(array, n=step["n"], axis=axis))
    if array.dtype.kind == "c" or not finite:
        return None
    if name == "topk":
        step["k"] = k = rng.choice([1, 2, 3, -1, -2])
        if array.shape[axis] < abs(k):
            return None
        ordered = np.sort(array, axis=axis)
        if k > 0:
            result = np.flip(np.take(ordered, range(array.shape[axis] - k, array.shape[axis]), axis), axis)
        else:
            result = np.take(ordered, range(-k), axis)
        return step, Value(result)
    if name == "percentile":
        if array.dtype.kind == "b" or (np.abs(array.astype(float)) > 1e9).any() or array.shape[axis] == 0:
            return None
        step["q"] = rng.choice([0, 10, 25, 50, 77.5, 100])
        step["axes"] = rng.choice([None, [axis]])
        if array.size == 0:
            return None
        result = np.percentile(array, step["q"], axis=as_axis(step["axes"]))
        return step, Value(result, False)
    if name == "histogram":
        if array.dtype.kind == "b" or (np.abs(array.astype(float)) > 1e9).any():
            return None
        step["bins"], step["range"] = rng.randint(1, 6), rng.choice([None, [-3.0, 4.0]])
        if array.dtype.kind == "u" and array.dtype.itemsize == 8:
            return None
        result, _ = np.histogram(array, bins=step["bins"], range=step["range"])
        return step, Value(result)
    if array.dtype.kind not in "iu" or array.dtype == np.uint64 or ndim != 1 or (array < 0).any() or (array > 50).any():
        return None
    step["minlength"] = rng.choice([0, 5, 40])
    return step, Value(np.bincount(array, minlength=step["minlength"]))


KINDS = [unary, binary, binary, reduce, reduce, move, move, move, choose, scan]


def tolerance(values):
    """How far off an element may be, from the sizes of what it was computed from."""
    scale = 1.0
    for value in values:
        a = value.array
        if a.size and a.dtype.kind in "fciu":
            finite = np.abs(a[np.isfinite(a)].astype(np.complex128))
            if finite.size:
                scale = max(scale, float(finite.max()))
    return scale


def packed(value):
    array = value.array
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "hex": array.astype(array.dtype.newbyteorder("<")).tobytes().hex(),
        "exact": bool(value.exact),
    }


def single(values):
    """Whether anything was computed in float32, which has few digits."""
    return any(v.array.dtype in (np.float32, np.complex64) for v in values)


def case(rng):
    shape = shape_of(rng)
    leaves, values = [], []
    for _ in range(rng.randint(1, 3)):
        described, value = leaf(rng, like(rng, shape))
        leaves.append(described)
        values.append(value)
    steps, wanted = [], rng.randint(1, 4)
    for _ in range(40):
        if len(steps) == wanted:
            break
        try:
            found = rng.choice(KINDS)(rng, values)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            continue
        if found is None:
            continue
        step, value = found
        if value.array.size > 4000 or value.array.dtype.kind not in "biufc" or value.array.dtype == np.float16:
            continue
        steps.append(step)
        values.append(value)
    if not steps:
        return None
    result = packed(values[-1])
    result["scale"], result["single"] = tolerance(values), single(values)
    return {"leaves": leaves, "steps": steps, "result": result}


def refusal(rng):
    """One step that NumPy refuses."""
    shape = shape_of(rng)
    for _ in range(100):
        leaves = [leaf(rng, like(rng, shape)), leaf(rng, shape_of(rng))]
        values = [value for _, value in leaves]
        kind = rng.choice([unary, binary, reduce, move])
        state = rng.getstate()
        try:
            kind(rng, values)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            rng.setstate(state)
            step = recorded(kind, rng, values)
            if step is not None:
                described = [leaf for leaf, _ in leaves]
                return {"leaves": described, "steps": [step], "error": type(error).__name__}
    return None


def recorded(kind, rng, values):
    """The step that `kind` was about to take: NumPy's functions are stubbed to let it pass."""
    if kind is unary:
        of, name = pick(rng, values), rng.choice(UNARY)
        return {"do": name, "of": [of]}
    if kind is binary:
        left, name = pick(rng, values), rng.choice(BINARY)
        if rng.random() < 0.3:
            return {"do": name, "of": [left], "scalar": number(scalar(rng))}
        return {"do": name, "of": [left, rng.randint(0, len(values) - 1)]}
    return None


def main():
    arguments = [int(argument) for argument in sys.argv[1:]]
    seed, cases = arguments + [1, 2000][len(arguments):]
    rng = random.Random(seed)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    for number in range(cases):
        found = refusal(rng) if number % 20 == 19 else case(rng)
        if found is not None:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
