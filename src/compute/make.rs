//! Arrays that follow from numbers: ranges, and random numbers that are the same in any blocks.
//!
//! ```text
//! element number i  ->  words 4i .. 4i + 4 of the ChaCha8 stream of the seed  ->  the element
//! ```
//!
//! # Invariants
//!
//! 1. An element depends on its position and the arguments only, so that blocks, threads and slices
//!    do not change it.

use std::f64::consts::TAU;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::block::{Data, Numeric};
use super::node::{Blocked, Indexed, Kind, Run};
use super::number::Number;
use super::region::to_i64;
use super::trouble::ComputeError;

/// Words of the stream for each element.
const WORDS: u128 = 4;

impl<'e> Blocked<'e> {
    /// The whole numbers `start`, `start + step`, ... before `stop`.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Value`] if `step` is 0; [`ComputeError::Shape`] if there are too many.
    pub fn arange(start: i64, stop: i64, step: i64) -> Result<Self, ComputeError> {
        if step == 0 {
            let why = "the step must not be 0";
            return Err(ComputeError::Value { operation: "arange", why });
        }
        let distance = (i128::from(stop) - i128::from(start)) * i128::from(step.signum());
        let step_len = i128::from(step).abs();
        let len = if distance > 0 { (distance + step_len - 1) / step_len } else { 0 };
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let at = move |at: i64| start.wrapping_add(at.wrapping_mul(step));
        Self::of_kind(Kind::Indexed(Arc::new(Each(at))), &[len], Number::I64)
    }

    /// `count` floats from `start` to `stop`, evenly apart, both ends included.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`] if there are too many.
    pub fn linspace(start: f64, stop: f64, count: u64) -> Result<Self, ComputeError> {
        #[expect(clippy::cast_precision_loss, reason = "more elements than 2^53 are none")]
        let step = (stop - start) / (count.max(2) - 1) as f64;
        let last = to_i64(count.saturating_sub(1));
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let value = move |at: i64| match at == last && count > 1 {
            true => stop,
            false => at as f64 * step + start,
        };
        Self::of_kind(Kind::Indexed(Arc::new(Each(value))), &[count], Number::F64)
    }

    /// Random floats of type `number` from 0 to 1, 1 excluded, each as likely.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`]; [`ComputeError::Unsupported`] if `number` is no float.
    pub fn random(shape: &[u64], seed: u64, number: Number) -> Result<Self, ComputeError> {
        Self::drawn("random", shape, seed, number, |a, _| unit(a))
    }

    /// Random floats of the standard normal distribution.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`]; [`ComputeError::Unsupported`] if `number` is no float.
    pub fn standard_normal(shape: &[u64], seed: u64, number: Number) -> Result<Self, ComputeError> {
        Self::drawn("standard_normal", shape, seed, number, |a, b| {
            // Box and Muller; 1 - u is never 0.
            (-2.0 * (1.0 - unit(a)).ln()).sqrt() * (TAU * unit(b)).cos()
        })
    }

    /// Random whole numbers from `low` to `high`, `high` excluded, each as likely up to 2^-64 times
    /// their count.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Shape`]; [`ComputeError::Value`] if there is no number between.
    pub fn random_integers(
        shape: &[u64],
        seed: u64,
        (low, high): (i64, i64),
    ) -> Result<Self, ComputeError> {
        if low >= high {
            let why = "the low end is not below the high end";
            return Err(ComputeError::Value { operation: "random_integers", why });
        }
        let count = u128::from(high.wrapping_sub(low).cast_unsigned());
        let value = move |a: u64, _: u64| {
            let above = u64::try_from((u128::from(a) * count) >> 64).unwrap_or(0);
            low.wrapping_add_unsigned(above)
        };
        let stream = Stream { words: ChaCha8Rng::seed_from_u64(seed), value };
        Self::of_kind(Kind::Indexed(Arc::new(stream)), shape, Number::I64)
    }

    fn drawn(
        operation: &'static str,
        shape: &[u64],
        seed: u64,
        number: Number,
        value: fn(u64, u64) -> f64,
    ) -> Result<Self, ComputeError> {
        if !number.is_float() {
            return Err(ComputeError::Unsupported { operation, number });
        }
        let words = ChaCha8Rng::seed_from_u64(seed);
        match number {
            Number::F32 => {
                // Rounded down, so that 1 stays excluded.
                let value = move |a, b| narrow(value(a, b));
                let stream = Stream { words, value };
                Self::of_kind(Kind::Indexed(Arc::new(stream)), shape, number)
            }
            _ => Self::of_kind(Kind::Indexed(Arc::new(Stream { words, value })), shape, number),
        }
    }
}

/// The highest 53 bits as a float from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are a float")]
fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// The float with the fewest digits more that is not further from 0.
#[expect(clippy::cast_possible_truncation, reason = "the nearest, made smaller below")]
fn narrow(value: f64) -> f32 {
    let nearest = value as f32;
    let is_beyond = f64::from(nearest).abs() > value.abs();
    if is_beyond { f32::from_bits(nearest.to_bits() - 1) } else { nearest }
}

/// A function of the position.
struct Each<F>(F);

impl<T: Numeric, F: Fn(i64) -> T + Send + Sync> Indexed for Each<F> {
    fn fill(&self, data: &mut Data<'static>, run: Run) -> Result<(), ComputeError> {
        let mut at = run.first;
        set(data, run, || {
            let value = (self.0)(at);
            at = at.wrapping_add(run.step);
            value
        })
    }
}

/// Elements drawn from a stream of random words.
struct Stream<F> {
    words: ChaCha8Rng,
    value: F,
}

impl<T: Numeric, F: Fn(u64, u64) -> T + Send + Sync> Indexed for Stream<F> {
    fn fill(&self, data: &mut Data<'static>, run: Run) -> Result<(), ComputeError> {
        let mut words = self.words.clone();
        let mut at = run.first;
        let seek = |words: &mut ChaCha8Rng, at: i64| {
            words.set_word_pos(u128::from(at.unsigned_abs()) * WORDS);
        };
        seek(&mut words, at);
        set(data, run, || {
            let value = (self.value)(words.next_u64(), words.next_u64());
            at = at.wrapping_add(run.step);
            if run.step != 1 {
                seek(&mut words, at);
            }
            value
        })
    }
}

/// Sets the elements of a run, one after another.
fn set<T: Numeric>(
    data: &mut Data<'static>,
    run: Run,
    mut next: impl FnMut() -> T,
) -> Result<(), ComputeError> {
    let (given, wanted) = (data.number(), T::NUMBER);
    let elements = T::unwrap_mut(data).ok_or(ComputeError::Type { given, wanted })?;
    let targets = elements[run.at..].iter_mut().step_by(run.stride.max(1)).take(run.count);
    targets.for_each(|target| *target = next());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::RunOptions;

    fn floats(array: &Blocked<'_>) -> Vec<f64> {
        array.compute::<f64>(&RunOptions::default()).unwrap().into_iter().collect()
    }

    #[test]
    fn random_numbers_are_the_same_in_any_blocks_and_slices() {
        let array = Blocked::standard_normal(&[7, 11], 3, Number::F64).unwrap();
        let all = floats(&array);
        for block in [[1, 1], [2, 3], [7, 4], [3, 11]] {
            assert_eq!(floats(&array.rechunk(&block).unwrap()), all, "{block:?}");
        }
        let part = floats(&array.slice("::-2, 3").unwrap());
        let wanted: Vec<f64> = [6, 4, 2, 0].iter().map(|row| all[row * 11 + 3]).collect();
        assert_eq!(part, wanted);
        let other = Blocked::standard_normal(&[7, 11], 4, Number::F64).unwrap();
        assert_ne!(floats(&other), all);
    }

    #[test]
    fn random_numbers_are_spread_as_they_should() {
        let options = RunOptions::default();
        let uniform = Blocked::random(&[200_000], 1, Number::F64).unwrap();
        let counts = uniform.histogram(10, Some((0.0, 1.0))).unwrap();
        let counts = counts.compute::<i64>(&options).unwrap();
        // Five standard deviations of a count of 20000 expected.
        assert!(counts.iter().all(|count| (count - 20_000).abs() < 700), "{counts}");
        let normal = Blocked::standard_normal(&[200_000], 1, Number::F64).unwrap();
        let mean = floats(&normal.mean(0).unwrap())[0];
        let spread = floats(&normal.std(0, 0.0).unwrap())[0];
        assert!(mean.abs() < 0.012 && (spread - 1.0).abs() < 0.01, "{mean} {spread}");
        let dice = Blocked::random_integers(&[60_000], 9, (1, 7)).unwrap();
        let counts = dice.bincount(0, &options).unwrap().compute::<i64>(&options).unwrap();
        assert_eq!((counts.len(), counts[0]), (7, 0));
        assert!(counts.iter().skip(1).all(|count| (count - 10_000).abs() < 500), "{counts}");
        let single = Blocked::random(&[100_000], 5, Number::F32).unwrap();
        assert!(
            single
                .less(1.0)
                .unwrap()
                .all(0)
                .unwrap()
                .compute::<crate::array::Bool>(&options)
                .unwrap()
                .first()
                .unwrap()
                .get()
        );
    }

    #[test]
    fn ranges_have_the_ends_of_numpy() {
        let whole = |start, stop, step| {
            let range = Blocked::arange(start, stop, step).unwrap();
            range.compute::<i64>(&RunOptions::default()).unwrap().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(whole(0, 7, 3), [0, 3, 6]);
        assert_eq!(whole(5, -2, -3), [5, 2, -1]);
        assert_eq!(whole(5, 6, -3), [0_i64; 0]);
        assert!(Blocked::arange(0, 1, 0).is_err());
        assert_eq!(floats(&Blocked::linspace(0.0, 1.0, 3).unwrap()), [0.0, 0.5, 1.0]);
        assert_eq!(floats(&Blocked::linspace(2.0, 9.0, 1).unwrap()), [2.0]);
    }
}
