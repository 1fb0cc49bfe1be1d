//! Products and factors of blocked arrays against their definitions.

use ndarray::{Array, Array2, ArrayD, Dimension, IxDyn};

use super::*;
use crate::compute::run::RunOptions;

/// Numbers that follow from their position, between -1 and 1.
fn numbers(shape: &[usize]) -> ArrayD<f64> {
    let mut at = 0_usize;
    Array::from_shape_fn(IxDyn(shape), |_| {
        at += 1;
        ((at * 7919 + 13) % 1009) as f64 / 500.0 - 1.0
    })
}

fn matrix(rows: usize, columns: usize) -> Array2<f64> {
    numbers(&[rows, columns]).into_dimensionality().unwrap()
}

fn computed(a: &Blocked<'_>) -> ArrayD<f64> {
    let options = |threads| RunOptions { threads, ..RunOptions::default() };
    let one = a.compute::<f64>(&options(1)).unwrap();
    assert_eq!(one, a.compute::<f64>(&options(3)).unwrap(), "depends on threads");
    one
}

fn computed_matrix(a: &Blocked<'_>) -> Array2<f64> {
    computed(a).into_dimensionality().unwrap()
}

#[track_caller]
fn near<D: Dimension>(found: &Array<f64, D>, wanted: &Array<f64, D>) {
    assert_eq!(found.shape(), wanted.shape());
    let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(far < 1e-9, "{far}");
}

/// The same array with blocks small enough that there are several.
fn in_blocks<'e>(a: &'e ArrayD<f64>, block: &[u64]) -> Blocked<'e> {
    Blocked::from_memory(a).unwrap().rechunk(block).unwrap()
}

#[test]
fn tensordot_sums_over_any_axes_in_any_order() {
    let (a, b) = (numbers(&[3, 4, 5]), numbers(&[4, 3, 2]));
    let (x, y) = (in_blocks(&a, &[2, 2, 2]), in_blocks(&b, &[4, 1, 2]));
    let found = computed(&tensordot(&x, &y, (&[0, 1], &[1, -3])).unwrap());
    let wanted = Array::from_shape_fn(IxDyn(&[5, 2]), |at| {
        let pairs = (0..3).flat_map(|i| (0..4).map(move |j| (i, j)));
        pairs.map(|(i, j)| a[[i, j, at[0]]] * b[[j, i, at[1]]]).sum()
    });
    near(&found, &wanted);
    let none = computed(&tensordot(&x, &y, (&[], &[])).unwrap());
    assert_eq!(none.shape(), [3, 4, 5, 4, 3, 2]);
    assert!(tensordot(&x, &y, (&[0], &[0])).is_err());
    assert!(tensordot(&x, &y, (&[0, 0], &[1, 1])).is_err());
    assert!(tensordot(&x, &y, (&[3], &[0])).is_err());
}

#[test]
fn matmul_broadcasts_batches_and_leaves_out_the_axes_of_vectors() {
    let (a, b, vector) = (numbers(&[2, 1, 3, 4]), numbers(&[5, 4, 2]), numbers(&[4]));
    let (x, y) = (in_blocks(&a, &[1, 1, 3, 2]), in_blocks(&b, &[2, 4, 2]));
    let found = computed(&matmul(&x, &y).unwrap());
    let wanted = Array::from_shape_fn(IxDyn(&[2, 5, 3, 2]), |at| {
        (0..4).map(|k| a[[at[0], 0, at[2], k]] * b[[at[1], k, at[3]]]).sum()
    });
    near(&found, &wanted);
    let v = Blocked::from_memory(&vector).unwrap();
    assert_eq!(matmul(&x, &v).unwrap().shape(), [2, 1, 3]);
    assert_eq!(matmul(&v, &y).unwrap().shape(), [5, 2]);
    let inner = computed(&matmul(&v, &v).unwrap());
    near(&inner, &ndarray::arr0(vector.iter().map(|value| value * value).sum()).into_dyn());
    let scalar = Blocked::full(&[], 2.0, Number::F64).unwrap();
    assert!(matmul(&x, &scalar).is_err() && matmul(&scalar, &x).is_err());
    assert!(matmul(&y, &y).is_err());
    assert_eq!(dot(&x, &y).unwrap().shape(), [2, 1, 3, 5, 2]);
    assert_eq!(outer(&v, &v).unwrap().shape(), [4, 4]);
}

#[test]
fn a_transposed_operand_is_multiplied_as_it_lies() {
    let (a, b) = (numbers(&[7, 5]), numbers(&[7, 3]));
    let (x, y) = (in_blocks(&a, &[3, 5]), in_blocks(&b, &[7, 2]));
    let found = computed_matrix(&matmul(&x.transposed().unwrap(), &y).unwrap());
    let (a, b) = (matrix_of(&a), matrix_of(&b));
    near(&found, &a.t().dot(&b));
    let found = computed_matrix(&matmul(&y.transposed().unwrap(), &x).unwrap());
    near(&found, &b.t().dot(&a));
}

fn matrix_of(a: &ArrayD<f64>) -> Array2<f64> {
    a.clone().into_dimensionality().unwrap()
}

#[test]
fn products_of_integers_wrap_and_those_of_truth_values_are_or_of_and() {
    let a = ndarray::arr2(&[[100_u8, 200], [3, 4]]);
    let x = Blocked::from_memory(&a).unwrap();
    let found = matmul(&x, &x).unwrap().compute::<u8>(&RunOptions::default()).unwrap();
    assert_eq!(found, ndarray::arr2(&[[104_u8, 64], [56, 104]]).into_dyn());
    let found = matmul(&x, &x.greater(99).unwrap().astype(Number::Bool).unwrap()).unwrap();
    assert_eq!(found.number(), Number::U8);
    let truth = x.greater(99).unwrap();
    let found = matmul(&truth, &truth).unwrap();
    let found = found.compute::<crate::array::Bool>(&RunOptions::default()).unwrap();
    let found: Vec<bool> = found.iter().map(|value| value.get()).collect();
    assert_eq!(found, [true, true, false, false]);
}

#[test]
fn a_product_of_no_terms_is_zero() {
    let (a, b) = (numbers(&[3, 0]), numbers(&[0, 2]));
    let found = matmul(&Blocked::from_memory(&a).unwrap(), &Blocked::from_memory(&b).unwrap());
    assert_eq!(computed(&found.unwrap()), ArrayD::<f64>::zeros(IxDyn(&[3, 2])));
}

#[test]
fn long_sums_are_shared_out_and_stay_exact() {
    // More than two tiles of 32 MiB along the summed axis.
    let len = 5 << 20;
    let ones = Blocked::ones(&[2, len], Number::F64).unwrap();
    let found = computed(&matmul(&ones, &ones.transposed().unwrap()).unwrap());
    assert!(found.iter().all(|&value| value == len as f64));
}

#[test]
fn q_is_orthonormal_and_times_r_is_the_matrix() {
    for (rows, columns) in [(40, 6), (6, 6), (5, 9), (1, 1), (7, 1)] {
        let a = numbers(&[rows, columns]);
        let (q, r) = qr(&Blocked::from_memory(&a).unwrap()).unwrap();
        let (q, r) = (computed_matrix(&q), computed_matrix(&r));
        near(&q.dot(&r), &matrix_of(&a));
        near(&q.t().dot(&q), &Array2::eye(rows.min(columns)));
    }
}

#[test]
fn singular_values_descend_and_the_factors_give_the_matrix() {
    for (rows, columns) in [(50, 7), (7, 50), (4, 4)] {
        let a = numbers(&[rows, columns]);
        let (u, s, vt) = svd(&Blocked::from_memory(&a).unwrap()).unwrap();
        let (u, s, vt) = (computed_matrix(&u), computed(&s), computed_matrix(&vt));
        assert!(s.as_slice().unwrap().is_sorted_by(|a, b| a >= b));
        let scaled = Array2::from_shape_fn(u.raw_dim(), |(i, j)| u[[i, j]] * s[[j]]);
        near(&scaled.dot(&vt), &matrix_of(&a));
    }
}

#[test]
fn a_compressed_decomposition_finds_a_matrix_of_low_rank() {
    let low = matrix(60, 4).dot(&matrix(4, 30)).into_dyn();
    let x = Blocked::from_memory(&low).unwrap();
    let (u, s, vt) = svd_compressed(&x, 4, 1, 7).unwrap();
    let again = svd_compressed(&x, 4, 1, 7).unwrap().1;
    let (u, s, vt) = (computed_matrix(&u), computed(&s), computed_matrix(&vt));
    assert_eq!(s, computed(&again), "the same seed");
    let scaled = Array2::from_shape_fn(u.raw_dim(), |(i, j)| u[[i, j]] * s[[j]]);
    near(&scaled.dot(&vt), &matrix_of(&low));
    assert!(svd_compressed(&x, 31, 0, 7).is_err() && svd_compressed(&x, 0, 0, 7).is_err());
}

/// A positive definite matrix.
fn positive(side: usize) -> Array2<f64> {
    let a = matrix(side, side);
    a.dot(&a.t()) + Array2::<f64>::eye(side) * side as f64
}

#[test]
fn a_positive_matrix_is_factored_and_solved_by_blocks() {
    for side in [1, 10, 1500] {
        let (a, solution) = (positive(side).into_dyn(), matrix(side, 2));
        let b = matrix_of(&a).dot(&solution).into_dyn();
        let x = Blocked::from_memory(&a).unwrap();
        let lower = cholesky(&x).unwrap();
        if side <= 10 {
            let lower = computed_matrix(&lower);
            near(&lower.dot(&lower.t()), &matrix_of(&a));
        }
        let y = Blocked::from_memory(&b).unwrap();
        near(&computed_matrix(&solve(&x, &y, Assume::Positive).unwrap()), &solution);
    }
}

#[test]
fn a_general_system_is_solved_for_vectors_and_matrices() {
    let a = (matrix(30, 30) + Array2::<f64>::eye(30) * 3.0).into_dyn();
    let solution = numbers(&[30]);
    let vector = solution.clone().into_dimensionality::<ndarray::Ix1>().unwrap();
    let b = matrix_of(&a).dot(&vector).into_dyn();
    let x = Blocked::from_memory(&a).unwrap();
    let y = Blocked::from_memory(&b).unwrap();
    near(&computed(&solve(&x, &y, Assume::General).unwrap()), &solution);
    // In panels of 1, 7 and 20 columns.
    for block in [[1, 1], [7, 30], [30, 20]] {
        let x = x.rechunk(&block).unwrap();
        near(&computed(&solve(&x, &y, Assume::General).unwrap()), &solution);
    }
    assert!(solve(&x, &x.slice("0:3").unwrap(), Assume::General).is_err());
}

#[test]
fn what_has_no_factor_is_an_error_when_it_is_computed() {
    let a = ndarray::arr2(&[[1.0, 2.0], [2.0, 1.0]]);
    let zero = ndarray::arr2(&[[0.0, 0.0], [0.0, 0.0]]);
    let (x, z) = (Blocked::from_memory(&a).unwrap(), Blocked::from_memory(&zero).unwrap());
    let options = RunOptions::default();
    let message = |a: Blocked<'_>| a.compute::<f64>(&options).unwrap_err().to_string();
    assert!(message(cholesky(&x).unwrap()).contains("positive definite"));
    assert!(message(solve(&z, &x, Assume::General).unwrap()).contains("singular"));
    assert!(message(solve_triangular(&z, &x, Triangle::Upper).unwrap()).contains("singular"));
}

#[test]
fn norms_are_those_of_the_definition() {
    let a = numbers(&[6, 4]);
    let x = Blocked::from_memory(&a).unwrap();
    let value = |order| computed(&norm(&x, order).unwrap())[[]];
    let squares: f64 = a.iter().map(|value| value * value).sum();
    assert!((value(Norm::Frobenius) - squares.sqrt()).abs() < 1e-12);
    let columns = (0..4).map(|j| (0..6).map(|i| a[[i, j]].abs()).sum::<f64>());
    assert!((value(Norm::One) - columns.fold(0.0, f64::max)).abs() < 1e-12);
    let rows = (0..6).map(|i| (0..4).map(|j| a[[i, j]].abs()).sum::<f64>());
    assert!((value(Norm::Infinity) - rows.fold(0.0, f64::max)).abs() < 1e-12);
    let largest = computed(&svd(&x).unwrap().1)[[0]];
    assert!((value(Norm::Two) - largest).abs() < 1e-12);
}
