//! Products and linear algebra against NumPy itself, as `numpy_compute.rs` does it for the rest.
//!
//! `tests/oracle/linalg.py` prints the cases: one step each, over leaves of any type, layout and
//! blocks. Of factors that are unique only up to signs it asks what is unique.

use serde_json::Value;
use zbigarray::compute::linalg::{
    Assume, Norm, Triangle, cholesky, dot, matmul, norm, outer, qr, solve, solve_triangular, svd,
    svd_compressed, tensordot,
};
use zbigarray::compute::{Blocked, ComputeError};

use crate::numpy_compute::{numbers, require_what_numpy_says, text};

/// The steps that [`step`] knows.
pub(crate) const NAMES: [&str; 13] = [
    "matmul",
    "dot",
    "outer",
    "tensordot",
    "qr_r",
    "qr_product",
    "qr_gram",
    "svd_values",
    "svd_product",
    "svd_compressed",
    "norm",
    "cholesky",
    "solve",
];

/// What a step gives of its operands.
pub(crate) fn step<'e>(
    name: &str,
    step: &Value,
    of: &[Blocked<'e>],
) -> Result<Blocked<'e>, ComputeError> {
    let (a, b) = (&of[0], of.last().unwrap());
    let count = |key: &str| step[key].as_u64().expect("a count");
    match name {
        "matmul" => matmul(a, b),
        "dot" => dot(a, b),
        "outer" => outer(a, b),
        "tensordot" => {
            tensordot(a, b, (&numbers::<i64>(&step["left"]), &numbers::<i64>(&step["right"])))
        }
        "qr_r" => qr(a)?.1.absolute(),
        "qr_product" => {
            let (q, r) = qr(a)?;
            matmul(&q, &r)
        }
        "qr_gram" => {
            let q = qr(a)?.0;
            matmul(&q.transposed()?.conjugate()?, &q)
        }
        "svd_values" => Ok(svd(a)?.1),
        "svd_product" => multiplied(svd(a)?),
        "svd_compressed" => {
            let power = u32::try_from(count("power")).expect("a small number");
            multiplied(svd_compressed(a, count("k"), power, count("seed"))?)
        }
        "norm" => norm(
            a,
            match text(step, "order") {
                "fro" => Norm::Frobenius,
                "inf" => Norm::Infinity,
                "one" => Norm::One,
                _ => Norm::Two,
            },
        ),
        "cholesky" => cholesky(a),
        _ => match text(step, "kind") {
            "general" => solve(a, b, Assume::General),
            "positive" => solve(a, b, Assume::Positive),
            "lower" => solve_triangular(a, b, Triangle::Lower),
            _ => solve_triangular(a, b, Triangle::Upper),
        },
    }
}

/// `u`, the singular values and `vt` as one matrix again.
fn multiplied<'e>(
    (u, s, vt): (Blocked<'e>, Blocked<'e>, Blocked<'e>),
) -> Result<Blocked<'e>, ComputeError> {
    matmul(&u.multiply(&s)?, &vt)
}

#[test]
fn products_and_factors_equal_those_of_numpy() {
    require_what_numpy_says("linalg.py", 1500);
}
