//! Copying elements that lie apart into dense order, and back.
//!
//! ```text
//! base + for each axis of the result: a stride, or a list of offsets, in elements of the source
//! ```
//!
//! # Invariants
//!
//! 1. Every element named lies in the source: what a [`Walk`] is made of was clipped to it.

use super::block::Numeric;

/// Where the elements along one axis of the result lie.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// So many elements apart; 0 repeats one.
    Stride(i64),
    /// At these offsets.
    Offsets(Vec<i64>),
}

/// One axis of the result.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) len: usize,
    pub(crate) step: Step,
}

/// The elements of a source that make a dense result in C order.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) base: i64,
    pub(crate) axes: Vec<Axis>,
}

impl Walk {
    /// The range of the source that is the result as it lies there, if it is one.
    pub(crate) fn as_run(&self) -> Option<std::ops::Range<usize>> {
        if self.count() == 0 {
            return Some(0..0);
        }
        let mut expected = 1;
        for axis in self.axes.iter().rev().filter(|axis| axis.len != 1) {
            match axis.step {
                Step::Stride(stride) if stride == expected => {
                    expected *= i64::try_from(axis.len).ok()?;
                }
                _ => return None,
            }
        }
        let start = usize::try_from(self.base).ok()?;
        Some(start..start + self.count())
    }

    pub(crate) fn count(&self) -> usize {
        self.axes.iter().map(|axis| axis.len).product()
    }

    /// Calls `run` with each row of the result: where it begins, and the source's first element,
    /// step and count; rows with a list of offsets come one element at a time.
    pub(crate) fn rows(&self, place: &Place, run: &mut impl FnMut(usize, usize, i64, i64, usize)) {
        if self.count() > 0 {
            walk(&self.axes, &place.strides, self.base, place.start, run);
        }
    }
}

/// Where the result lies in its memory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) strides: Vec<usize>,
}

impl Place {
    /// Dense, from the beginning of its memory.
    pub(crate) fn dense(lens: &[usize]) -> Self {
        Self::inside(lens, &vec![0; lens.len()])
    }

    /// At position `at` of dense memory of shape `lens`.
    pub(crate) fn inside(lens: &[usize], at: &[usize]) -> Self {
        let mut strides = vec![1; lens.len()];
        for axis in (1..lens.len()).rev() {
            strides[axis - 1] = strides[axis] * lens[axis].max(1);
        }
        let start = at.iter().zip(&strides).map(|(&at, &stride)| at * stride).sum();
        Self { start, strides }
    }
}

/// `run` gets: start and stride in the result, start and step in the source, count.
fn walk(
    axes: &[Axis],
    strides: &[usize],
    base: i64,
    at: usize,
    run: &mut impl FnMut(usize, usize, i64, i64, usize),
) {
    let (Some((axis, inner)), Some((&stride, inner_strides))) =
        (axes.split_first(), strides.split_first())
    else {
        return run(at, 1, base, 1, 1);
    };
    match &axis.step {
        Step::Stride(step) if inner.is_empty() => run(at, stride, base, *step, axis.len),
        Step::Stride(step) => {
            // An axis whose rows continue each other is one long row.
            if let [only] = inner
                && let Step::Stride(inner_step) = only.step
                && i64::try_from(only.len).is_ok_and(|len| len * inner_step == *step)
                && inner_strides[0] * only.len == stride
            {
                return run(at, inner_strides[0], base, inner_step, axis.len * only.len);
            }
            let (mut base, mut at) = (base, at);
            for _ in 0..axis.len {
                walk(inner, inner_strides, base, at, run);
                base += step;
                at += stride;
            }
        }
        Step::Offsets(offsets) => {
            for (index, offset) in offsets.iter().enumerate() {
                walk(inner, inner_strides, base + offset, at + index * stride, run);
            }
        }
    }
}

/// Copies what `walk` names of `source` to `place` in `result`.
pub(crate) fn gather<T: Numeric>(source: &[T], walk: &Walk, result: &mut [T], place: &Place) {
    walk.rows(place, &mut |at, stride, from, step, count| {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        if stride == 1 && step == 1 {
            result[at..at + count].copy_from_slice(&source[from..from + count]);
            return;
        }
        if stride == 1 && step == 0 {
            result[at..at + count].fill(source[from]);
            return;
        }
        copy_apart(source, from, step, &mut result[at..], stride, count);
    });
}

fn copy_apart<T: Numeric>(
    source: &[T],
    from: usize,
    step: i64,
    result: &mut [T],
    stride: usize,
    count: usize,
) {
    let targets = result.iter_mut().step_by(stride).take(count);
    match usize::try_from(step) {
        Ok(0) => targets.for_each(|target| *target = source[from]),
        Ok(step) => {
            let values = source[from..].iter().step_by(step);
            targets.zip(values).for_each(|(target, value)| *target = *value);
        }
        Err(_) => {
            let back = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
            let values = source[..=from].iter().rev().step_by(back);
            targets.zip(values).for_each(|(target, value)| *target = *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(len: usize, stride: i64) -> Axis {
        Axis { len, step: Step::Stride(stride) }
    }

    #[test]
    fn elements_come_in_the_order_of_the_result() {
        let source: Vec<i32> = (0..24).collect();
        let mut result = vec![-1; 6];
        let offsets = Step::Offsets(vec![4, 0]);
        let walk = Walk { base: 3, axes: vec![Axis { len: 2, step: offsets }, strided(3, -1)] };
        gather(&source, &walk, &mut result, &Place::dense(&[2, 3]));
        assert_eq!(result, [7, 6, 5, 3, 2, 1]);
        let transposed = Walk { base: 0, axes: vec![strided(2, 1), strided(3, 2)] };
        gather(&source, &transposed, &mut result, &Place::dense(&[2, 3]));
        assert_eq!(result, [0, 2, 4, 1, 3, 5]);
        let mut wide = vec![-1; 12];
        let walk = Walk { base: 5, axes: vec![strided(2, 0), strided(2, 1)] };
        gather(&source, &walk, &mut wide, &Place::inside(&[3, 4], &[1, 2]));
        assert_eq!(wide, [-1, -1, -1, -1, -1, -1, 5, 6, -1, -1, 5, 6]);
    }

    #[test]
    fn what_lies_dense_already_is_a_run() {
        let run = |axes: Vec<Axis>| Walk { base: 6, axes }.as_run();
        assert_eq!(run(vec![strided(2, 3), strided(3, 1)]), Some(6..12));
        assert_eq!(run(vec![strided(1, 99), strided(3, 1)]), Some(6..9));
        assert_eq!(run(vec![strided(2, 4), strided(3, 1)]), None);
        assert_eq!(run(vec![strided(3, 1), strided(2, 3)]), None);
        assert_eq!(run(vec![]), Some(6..7));
    }
}
