"""NumPy's answers for products and linear algebra of blocked arrays, one JSON object per line.

    python linalg.py [SEED] [CASES]

Cases are as those of compute.py, with one step each. Of factors that are not unique up to the last
bit, what is: their product, the sizes of R, that Q is orthonormal. Matrices of systems are far from
singular. `tests/it/numpy_linalg.rs` runs this file and compares.
"""

import json
import random
import sys

import numpy as np

from compute import DTYPES, Value, elements, laid, packed, single

FIELDS = ["float32", "float64", "complex64", "complex128"]


def length(rng):
    return rng.choice([1, 1, 2, 3, 4, 5, 7, 9, 12])


def product_length(rng):
    return 0 if rng.random() < 0.05 else length(rng)


def any_array(rng, dtype, shape):
    """Small numbers; of whole numbers extremes, too, so that products wrap."""
    if np.dtype(dtype).kind in "biu":
        return elements(rng, dtype, shape)
    return field(rng, dtype, shape)


def field(rng, dtype, shape):
    count = int(np.prod(shape))
    real = [rng.uniform(-2, 2) for _ in range(count)]
    if np.dtype(dtype).kind == "c":
        real = [complex(x, rng.uniform(-2, 2)) for x in real]
    return np.array(real, dtype=dtype).reshape(shape)


def matmul(rng, a_type, b_type):
    m, k, n = product_length(rng), product_length(rng), product_length(rng)
    batch = [length(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    part = lambda: [1 if rng.random() < 0.3 else l for l in batch[rng.randint(0, len(batch)):]]
    other = k + 1 if rng.random() < 0.05 else k
    a = [k] if rng.random() < 0.15 else part() + [m, k]
    b = [other] if rng.random() < 0.15 else part() + [other, n]
    return {"do": "matmul"}, np.matmul, any_array(rng, a_type, a), any_array(rng, b_type, b)


def dot(rng, a_type, b_type):
    k = product_length(rng)
    other = k + 1 if rng.random() < 0.05 else k
    shape = lambda: [length(rng) for _ in range(rng.randint(0, 2))]
    a = shape() + [k]
    b = [other] if rng.random() < 0.3 else shape() + [other, length(rng)]
    return {"do": "dot"}, np.dot, any_array(rng, a_type, a), any_array(rng, b_type, b)


def outer(rng, a_type, b_type):
    shape = lambda: [length(rng) for _ in range(rng.randint(1, 2))]
    return {"do": "outer"}, np.outer, any_array(rng, a_type, shape()), any_array(rng, b_type, shape())


def tensordot(rng, a_type, b_type):
    shared = [length(rng) for _ in range(rng.randint(0, 2))]
    def placed(own):
        shape = list(own)
        at = []
        for one in shared:
            where = rng.randint(0, len(shape))
            shape.insert(where, one)
            at = [place + (place >= where) for place in at] + [where]
        return shape, [place - len(shape) if rng.random() < 0.3 else place for place in at]
    a, left = placed([length(rng) for _ in range(rng.randint(0, 2))])
    b, right = placed([length(rng) for _ in range(rng.randint(0, 2))])
    if shared and rng.random() < 0.05:
        b[right[0]] += 1
    step = {"do": "tensordot", "left": left, "right": right}
    return step, lambda x, y: np.tensordot(x, y, (left, right)), any_array(rng, a_type, a), any_array(rng, b_type, b)


PRODUCTS = [matmul, matmul, dot, outer, tensordot]


def product(rng):
    a_type = rng.choice(DTYPES)
    b_type = a_type if rng.random() < 0.4 else rng.choice(DTYPES)
    step, function, a, b = rng.choice(PRODUCTS)(rng, a_type, b_type)
    try:
        result = np.asarray(function(a, b))
    except ValueError as error:
        return step, [a, b], type(error).__name__, 1.0
    exact = result.dtype.kind in "biu"
    sizes = lambda x: np.abs(x.astype(complex))
    scale = 1.0 if exact or result.size == 0 else float(np.max(function(sizes(a), sizes(b))))
    return step, [a, b], Value(result, exact), 1.0 + scale


def matrix(rng, dtype, rows=None, columns=None):
    return any_array(rng, dtype, [rows or length(rng), columns or length(rng)])


def operand(rng):
    """A matrix for a factorization: floats mostly."""
    dtype = rng.choice(FIELDS * 3 + ["int32", "uint8"])
    a = matrix(rng, dtype)
    return np.clip(a, 0, 20).astype(dtype) if dtype in ("int32", "uint8") else a


def factored(rng):
    a = operand(rng)
    wide = a.astype(np.result_type(a, np.float32) if a.dtype.kind in "fc" else np.float64)
    least, name = min(a.shape), rng.choice(["qr_r", "qr_product", "qr_gram", "svd_values",
                                            "svd_product", "svd_compressed"])
    step, real = {"do": name}, np.abs(wide).dtype
    scale = float(np.linalg.norm(wide)) + 1.0
    if name == "qr_r":
        if np.linalg.cond(wide) > 1e3:
            return None
        result = np.abs(np.linalg.qr(wide)[1])
    elif name == "qr_gram":
        result = np.eye(least, dtype=wide.dtype)
    elif name == "svd_values":
        result = np.linalg.svd(wide, compute_uv=False)
    else:
        step.update({"k": least, "power": rng.randint(0, 2), "seed": rng.randint(0, 99)})
        result = wide
    return step, [a], Value(result, False), 20 * scale


def norm(rng):
    dtype = rng.choice(DTYPES)
    shape = [length(rng)] if rng.random() < 0.4 else [length(rng), length(rng)]
    a = any_array(rng, dtype, shape)
    if a.dtype.kind in "iu":
        a = np.clip(a, -9 if a.dtype.kind == "i" else 0, 20).astype(dtype)
    order = rng.choice(["fro", "inf", "one", "two"])
    asked = {"fro": None, "inf": np.inf, "one": 1, "two": 2}[order]
    result = np.asarray(np.linalg.norm(a, asked))
    return {"do": "norm", "order": order}, [a], Value(result, False), 20.0 * float(result) + 1.0


def cholesky(rng):
    a = positive(rng, rng.choice(FIELDS), length(rng))
    result = np.linalg.cholesky(a)
    return {"do": "cholesky"}, [a], Value(result, False), 20.0 * len(a)


def positive(rng, dtype, side):
    a = field(rng, dtype, [side, side])
    return (a @ a.conj().T + side * np.eye(side)).astype(dtype)


def solve(rng):
    dtype, side = rng.choice(FIELDS), rng.choice([1, 2, 3, 5, 8, 13, 21])
    kind = rng.choice(["general", "general", "positive", "lower", "upper"])
    a = field(rng, dtype, [side, side])
    if kind == "positive":
        a = positive(rng, dtype, side)
    elif kind in ("lower", "upper"):
        a = ((np.tril if kind == "lower" else np.triu)(a, 0) + 4 * side * np.eye(side)).astype(dtype)
    elif np.linalg.cond(a) > 300:
        return None
    b_shape = [side] if rng.random() < 0.4 else [side, length(rng)]
    b = field(rng, rng.choice(FIELDS), b_shape)
    result = np.linalg.solve(a, b)
    scale = 20.0 * (float(np.linalg.cond(a)) + side) * (float(np.abs(result).max()) + 1.0)
    if kind in ("lower", "upper"):
        # The other triangle is not looked at.
        a = a + (np.triu if kind == "lower" else np.tril)(field(rng, dtype, [side, side]), 1 if kind == "lower" else -1)
    return {"do": "solve", "kind": kind}, [a, b], Value(result, False), scale


KINDS = [product, product, product, factored, factored, norm, cholesky, solve, solve]


def case(rng):
    found = rng.choice(KINDS)(rng)
    if found is None:
        return None
    step, arrays, value, scale = found
    step["of"] = list(range(len(arrays)))
    described = {"leaves": [laid(rng, array) for array in arrays], "steps": [step]}
    if isinstance(value, str):
        described["error"] = value
        return described
    described["result"] = packed(value)
    described["result"]["scale"] = scale
    described["result"]["single"] = single([Value(array) for array in arrays] + [value])
    return described


def main():
    arguments = [int(argument) for argument in sys.argv[1:]]
    seed, cases = arguments + [1, 1000][len(arguments):]
    rng = random.Random(seed)
    np.seterr(all="ignore")
    for _ in range(cases):
        found = case(rng)
        if found is not None:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
