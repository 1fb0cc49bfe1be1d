"""What NumPy makes of numbers that are assigned to an array of another type.

    python casting.py [SEED] [CASES]

One JSON object per line: from and to (type strings), given and cast (bytes in hexadecimal). Values
whose cast C leaves to the processor, floats that the integer cannot hold, are not among them.
`tests/it/numpy_casting.rs` runs this file and compares. Nothing here is random but by SEED.
"""

import json
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
TYPES = "|b1 |i1 <i2 >i2 <i4 >i4 <i8 >i8 |u1 <u2 <u4 >u4 <u8 <f4 >f4 <f8 >f8 <c8 <c16 >c16".split()


def values(rng, dtype, count):
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        wide = rng.integers(info.min, info.max, count, dtype=dtype.newbyteorder("="), endpoint=True)
        # Of every magnitude, and the ends.
        wide >>= rng.integers(0, info.bits, count).astype(wide.dtype)
        wide[:3] = [info.min, info.max, 0]
        return wide.astype(dtype)
    if dtype.kind == "f":
        exponents = rng.uniform(-30, 30, count)
        floats = rng.choice([-1.0, 1.0], count) * 2.0**exponents
        floats[:8] = [0.0, -0.0, 1.7, -1.7, 0.5, -0.5, 1e-300, 2.5]
        return floats.astype(dtype)
    half = np.dtype(f"f{dtype.itemsize // 2}")
    return (values(rng, half, count) + 1j * values(rng, half, count)).astype(dtype)


def special(dtype):
    """Values that are cast to any float, and to a truth value."""
    if dtype.kind not in "fc":
        return np.zeros(0, dtype)
    return np.array([np.nan, np.inf, -np.inf, np.finfo(dtype).max, -np.finfo(dtype).tiny], dtype)


def defined(given, to):
    """Those of the values whose cast C defines."""
    if given.dtype.kind not in "fc" or to.kind not in "iu":
        return given
    info = np.iinfo(to)
    real = given.real.astype("f8")
    # The ends are rounded to a float outside; one step inside is safe.
    low, high = np.nextafter(float(info.min), np.inf), np.nextafter(float(info.max), -np.inf)
    return given[(real > max(low, -(2.0**62))) & (real < min(high, 2.0**62))]


def main():
    seed, cases = (int(word) for word in (sys.argv[1:] + ["1", "200"][len(sys.argv) - 1:])[:2])
    rng = np.random.default_rng(seed)
    for source in map(np.dtype, TYPES):
        for to in map(np.dtype, TYPES):
            given = values(rng, source, cases)
            if to.kind in "fcb":
                given = np.concatenate([given, special(source)]).astype(source)
            given = defined(given, to)
            cast = np.empty(given.shape, to)
            cast[...] = given
            line = {"from": source.str, "to": to.str, "given": given.tobytes().hex()}
            print(json.dumps({**line, "cast": cast.tobytes().hex()}))


main()
