//! Sums, products, means, variances, extremes and truths, as NumPy has them.
//!
//! Floats are summed in `float64`, rows pairwise; variances are merged by Chan's formula from exact
//! second moments of rows, or by Welford's, so that neither large counts nor large means cost
//! digits.

use std::marker::PhantomData;

use num_complex::Complex;

use super::block::{Data, Numeric, with_number};
use super::convert::{Convert, cast};
use super::node::Blocked;
use super::number::Number;
use super::reduce::{Axes, Reducer};
use super::trouble::ComputeError;
use crate::array::Bool;

/// A number in which sums are made.
pub(crate) trait Total: Numeric {
    const ZERO: Self;
    const ONE: Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
}

/// A float in which means are made.
pub(crate) trait Mean: Total {
    fn minus(self, other: Self) -> Self;
    fn scaled(self, factor: f64) -> Self;
    /// The square of its length.
    fn norm(self) -> f64;
}

/// What a number is summed in.
pub(crate) trait Summed:
    Numeric + Convert<Self::Total> + Convert<Self::Mean> + Convert<Bool>
{
    /// For sums and products.
    type Total: Total;
    /// For means and variances.
    type Mean: Mean;
    /// More than every other value, and less.
    const MOST: Self;
    const LEAST: Self;
    /// NaN, if there is one, else least.
    const NONE_MOST: Self;
    const NONE_LEAST: Self;
    fn is_nan(self) -> bool;
    /// Whether it comes before; NaN before nothing.
    fn before(self, other: Self) -> bool;
}

macro_rules! totals {
    ($($total:ty: $zero:expr, $one:expr, $plus:expr, $times:expr;)*) => {$(
        impl Total for $total {
            const ZERO: Self = $zero;
            const ONE: Self = $one;
            #[inline]
            fn plus(self, other: Self) -> Self {
                $plus(self, other)
            }
            #[inline]
            fn times(self, other: Self) -> Self {
                $times(self, other)
            }
        }
    )*};
}
totals! {
    f32: 0.0, 1.0, |a: f32, b| a + b, |a: f32, b| a * b;
    Complex<f32>: Complex::new(0.0, 0.0), Complex::new(1.0, 0.0),
        |a: Self, b| a + b, |a: Self, b| a * b;
    i64: 0, 1, i64::wrapping_add, i64::wrapping_mul;
    u64: 0, 1, u64::wrapping_add, u64::wrapping_mul;
    f64: 0.0, 1.0, |a: f64, b| a + b, |a: f64, b| a * b;
    Complex<f64>: Complex::new(0.0, 0.0), Complex::new(1.0, 0.0),
        |a: Self, b| a + b, |a: Self, b| a * b;
}

impl Mean for f64 {
    #[inline]
    fn minus(self, other: Self) -> Self {
        self - other
    }
    #[inline]
    fn scaled(self, factor: f64) -> Self {
        self * factor
    }
    #[inline]
    fn norm(self) -> f64 {
        self * self
    }
}

impl Mean for Complex<f64> {
    #[inline]
    fn minus(self, other: Self) -> Self {
        self - other
    }
    #[inline]
    fn scaled(self, factor: f64) -> Self {
        self * factor
    }
    #[inline]
    fn norm(self) -> f64 {
        self.norm_sqr()
    }
}

macro_rules! summed_whole {
    ($($element:ty => $total:ty),*) => {$(
        impl Summed for $element {
            type Total = $total;
            type Mean = f64;
            const MOST: Self = <$element>::MAX;
            const LEAST: Self = <$element>::MIN;
            const NONE_MOST: Self = <$element>::MAX;
            const NONE_LEAST: Self = <$element>::MIN;
            #[inline]
            fn is_nan(self) -> bool {
                false
            }
            #[inline]
            fn before(self, other: Self) -> bool {
                self < other
            }
        }
    )*};
}
summed_whole!(i8 => i64, i16 => i64, i32 => i64, i64 => i64);
summed_whole!(u8 => u64, u16 => u64, u32 => u64, u64 => u64);

macro_rules! summed_float {
    ($($element:ty),*) => {$(
        impl Summed for $element {
            type Total = f64;
            type Mean = f64;
            const MOST: Self = <$element>::INFINITY;
            const LEAST: Self = <$element>::NEG_INFINITY;
            const NONE_MOST: Self = <$element>::NAN;
            const NONE_LEAST: Self = <$element>::NAN;
            #[inline]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[inline]
            fn before(self, other: Self) -> bool {
                self < other
            }
        }
        impl Summed for Complex<$element> {
            type Total = Complex<f64>;
            type Mean = Complex<f64>;
            const MOST: Self = Complex::new(<$element>::INFINITY, <$element>::INFINITY);
            const LEAST: Self = Complex::new(<$element>::NEG_INFINITY, <$element>::NEG_INFINITY);
            const NONE_MOST: Self = Complex::new(<$element>::NAN, <$element>::NAN);
            const NONE_LEAST: Self = Complex::new(<$element>::NAN, <$element>::NAN);
            #[inline]
            fn is_nan(self) -> bool {
                self.re.is_nan() || self.im.is_nan()
            }
            #[inline]
            fn before(self, other: Self) -> bool {
                self.re < other.re || self.re == other.re && self.im < other.im
            }
        }
    )*};
}
summed_float!(f32, f64);

impl Summed for Bool {
    type Total = i64;
    type Mean = f64;
    const MOST: Self = Self::TRUE;
    const LEAST: Self = Self::FALSE;
    const NONE_MOST: Self = Self::TRUE;
    const NONE_LEAST: Self = Self::FALSE;
    fn is_nan(self) -> bool {
        false
    }
    fn before(self, other: Self) -> bool {
        !self.get() & other.get()
    }
}

/// Elements as totals, summed pairwise: the error grows with the logarithm of their number.
fn pairwise<T: Copy, A: Total>(elements: &[T], value: impl Fn(T) -> A + Copy) -> A {
    const LANES: usize = 8;
    const RUN: usize = 256;
    if elements.len() > RUN {
        // A multiple of the run, so that all but the last are full.
        let half = (elements.len() / 2).next_multiple_of(RUN);
        let (left, right) = elements.split_at(half);
        return pairwise(left, value).plus(pairwise(right, value));
    }
    let mut lanes = [A::ZERO; LANES];
    let mut whole = elements.chunks_exact(LANES);
    for chunk in whole.by_ref() {
        for (lane, &element) in lanes.iter_mut().zip(chunk) {
            *lane = lane.plus(value(element));
        }
    }
    let rest = whole.remainder().iter().fold(A::ZERO, |sum, &element| sum.plus(value(element)));
    let [a, b, c, d, e, f, g, h] = lanes;
    let sum = a.plus(b).plus(c.plus(d)).plus(e.plus(f).plus(g.plus(h)));
    sum.plus(rest)
}

/// The sum, divided if it is a mean.
struct Sum<T, A> {
    count: Option<f64>,
    result: Number,
    types: PhantomData<fn(T) -> A>,
}

impl<T: Numeric + Convert<A>, A: Total> Reducer for Sum<T, A> {
    type Element = T;
    type State = A;

    fn start(&self) -> A {
        A::ZERO
    }

    #[inline]
    fn step(&self, state: &mut A, element: T, _at: u64) {
        *state = state.plus(element.convert());
    }

    fn run(&self, state: &mut A, elements: &[T], _at: u64) {
        *state = state.plus(pairwise(elements, |element: T| element.convert()));
    }

    fn merge(&self, state: &mut A, other: &A) {
        *state = state.plus(*other);
    }

    fn finish(&self, states: Vec<A>) -> Result<Data<'static>, ComputeError> {
        divided(states, self.count, self.result)
    }
}

/// Sums as results, divided by `count` if there is one.
fn divided<A: Total>(
    states: Vec<A>,
    count: Option<f64>,
    result: Number,
) -> Result<Data<'static>, ComputeError> {
    let mut data = Data::owned(states);
    if let Some(count) = count {
        data = match data {
            Data::F64(sums) => Data::owned(sums.iter().map(|sum| sum / count).collect()),
            Data::C128(sums) => Data::owned(sums.iter().map(|sum| sum / count).collect()),
            _ => return Err(ComputeError::Mistake("a mean of something else than floats")),
        };
    }
    Ok(cast(data, result))
}

/// Sum, count and product of the elements that are not NaN.
struct Product<T> {
    skips_nan: bool,
    result: Number,
    types: PhantomData<fn(T)>,
}

impl<T: Summed> Reducer for Product<T> {
    type Element = T;
    type State = T::Total;

    fn start(&self) -> T::Total {
        T::Total::ONE
    }

    #[inline]
    fn step(&self, state: &mut T::Total, element: T, _at: u64) {
        if !(self.skips_nan && element.is_nan()) {
            *state = state.times(element.convert());
        }
    }

    fn merge(&self, state: &mut T::Total, other: &T::Total) {
        *state = state.times(*other);
    }

    fn finish(&self, states: Vec<T::Total>) -> Result<Data<'static>, ComputeError> {
        Ok(cast(Data::owned(states), self.result))
    }
}

/// The sum of the elements that are not NaN, divided by their number if it is a mean.
struct NanSum<T, A> {
    is_mean: bool,
    result: Number,
    types: PhantomData<fn(T) -> A>,
}

impl<T: Summed + Convert<A>, A: Total> Reducer for NanSum<T, A> {
    type Element = T;
    type State = (A, u64);

    fn start(&self) -> (A, u64) {
        (A::ZERO, 0)
    }

    #[inline]
    fn step(&self, state: &mut (A, u64), element: T, _at: u64) {
        if !element.is_nan() {
            *state = (state.0.plus(element.convert()), state.1 + 1);
        }
    }

    fn run(&self, state: &mut (A, u64), elements: &[T], _at: u64) {
        let value = |element: T| if element.is_nan() { A::ZERO } else { element.convert() };
        let count = elements.iter().filter(|element| !element.is_nan()).count();
        *state = (state.0.plus(pairwise(elements, value)), state.1 + count as u64);
    }

    fn merge(&self, state: &mut (A, u64), other: &(A, u64)) {
        *state = (state.0.plus(other.0), state.1 + other.1);
    }

    fn finish(&self, states: Vec<(A, u64)>) -> Result<Data<'static>, ComputeError> {
        if !self.is_mean {
            return divided(states.into_iter().map(|(sum, _)| sum).collect(), None, self.result);
        }
        let counts: Vec<f64> = states.iter().map(|&(_, count)| as_float(count)).collect();
        let sums = Data::owned(states.into_iter().map(|(sum, _)| sum).collect::<Vec<_>>());
        let means = match sums {
            Data::F64(sums) => {
                Data::owned(sums.iter().zip(counts).map(|(sum, count)| sum / count).collect())
            }
            Data::C128(sums) => {
                Data::owned(sums.iter().zip(counts).map(|(sum, count)| sum / count).collect())
            }
            _ => return Err(ComputeError::Mistake("a mean of something else than floats")),
        };
        Ok(cast(means, self.result))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 are no elements of memory")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// Count, mean and sum of squared distances from it.
#[derive(Clone, Copy)]
struct Moments<M> {
    count: f64,
    mean: M,
    squares: f64,
}

/// The variance, or its square root.
struct Variance<T> {
    skips_nan: bool,
    is_root: bool,
    ddof: f64,
    result: Number,
    types: PhantomData<fn(T)>,
}

impl<T: Summed> Reducer for Variance<T> {
    type Element = T;
    type State = Moments<T::Mean>;

    fn start(&self) -> Moments<T::Mean> {
        Moments { count: 0.0, mean: T::Mean::ZERO, squares: 0.0 }
    }

    #[inline]
    fn step(&self, state: &mut Moments<T::Mean>, element: T, _at: u64) {
        if self.skips_nan && element.is_nan() {
            return;
        }
        let value: T::Mean = element.convert();
        state.count += 1.0;
        let before = value.minus(state.mean);
        state.mean = state.mean.plus(before.scaled(1.0 / state.count));
        // The product of the distances before and after, of complex numbers its real part.
        let factor = (state.count - 1.0) / state.count;
        state.squares += before.norm() * factor;
    }

    fn run(&self, state: &mut Moments<T::Mean>, elements: &[T], at: u64) {
        if self.skips_nan {
            return (at..).zip(elements).for_each(|(at, &element)| self.step(state, element, at));
        }
        let count = as_float(elements.len() as u64);
        let sum: T::Mean = pairwise(elements, |element: T| element.convert());
        let mean = sum.scaled(1.0 / count);
        let squares = pairwise(elements, |element: T| {
            let value: T::Mean = element.convert();
            value.minus(mean).norm()
        });
        self.merge(state, &Moments { count, mean, squares });
    }

    fn merge(&self, state: &mut Moments<T::Mean>, other: &Moments<T::Mean>) {
        if other.count == 0.0 {
            return;
        }
        if state.count == 0.0 {
            *state = *other;
            return;
        }
        let count = state.count + other.count;
        let apart = other.mean.minus(state.mean);
        state.mean = state.mean.plus(apart.scaled(other.count / count));
        state.squares += other.squares + apart.norm() * (state.count * other.count / count);
        state.count = count;
    }

    fn finish(&self, states: Vec<Moments<T::Mean>>) -> Result<Data<'static>, ComputeError> {
        let value = |state: Moments<T::Mean>| {
            // Of nothing, or of NaN only, there is none.
            if state.count == 0.0 || self.skips_nan && state.count <= self.ddof {
                return f64::NAN;
            }
            let variance = state.squares / (state.count - self.ddof).max(0.0);
            if self.is_root { variance.sqrt() } else { variance }
        };
        Ok(cast(Data::owned(states.into_iter().map(value).collect()), self.result))
    }
}

/// The least or the most.
struct Extreme<T> {
    is_most: bool,
    skips_nan: bool,
    types: PhantomData<fn(T)>,
}

impl<T: Summed> Reducer for Extreme<T> {
    type Element = T;
    type State = T;

    fn start(&self) -> T {
        match (self.is_most, self.skips_nan) {
            (true, false) => T::LEAST,
            (true, true) => T::NONE_LEAST,
            (false, false) => T::MOST,
            (false, true) => T::NONE_MOST,
        }
    }

    #[inline]
    fn step(&self, state: &mut T, element: T, _at: u64) {
        let is_better = if self.is_most { state.before(element) } else { element.before(*state) };
        let takes = match self.skips_nan {
            true => state.is_nan() || is_better && !element.is_nan(),
            false => !state.is_nan() && (is_better || element.is_nan()),
        };
        *state = if takes { element } else { *state };
    }

    fn merge(&self, state: &mut T, other: &T) {
        self.step(state, *other, 0);
    }

    fn finish(&self, states: Vec<T>) -> Result<Data<'static>, ComputeError> {
        Ok(Data::owned(states))
    }
}

/// Where the least or the most is, the first of several.
struct Position<T> {
    name: &'static str,
    is_most: bool,
    skips_nan: bool,
    types: PhantomData<fn(T)>,
}

impl<T: Summed> Reducer for Position<T> {
    type Element = T;
    type State = Option<(T, u64)>;

    fn start(&self) -> Option<(T, u64)> {
        None
    }

    #[inline]
    fn step(&self, state: &mut Option<(T, u64)>, element: T, at: u64) {
        if self.skips_nan && element.is_nan() {
            return;
        }
        let Some((best, best_at)) = *state else {
            *state = Some((element, at));
            return;
        };
        let is_better = if self.is_most { best.before(element) } else { element.before(best) };
        let takes = match (element.is_nan(), best.is_nan()) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => at < best_at,
            (false, false) => {
                let is_worse =
                    if self.is_most { element.before(best) } else { best.before(element) };
                is_better || !is_worse && at < best_at
            }
        };
        if takes {
            *state = Some((element, at));
        }
    }

    fn merge(&self, state: &mut Option<(T, u64)>, other: &Option<(T, u64)>) {
        if let Some((element, at)) = *other {
            self.step(state, element, at);
        }
    }

    fn finish(&self, states: Vec<Option<(T, u64)>>) -> Result<Data<'static>, ComputeError> {
        let at = |state: Option<(T, u64)>| state.and_then(|(_, at)| i64::try_from(at).ok());
        let found: Option<Vec<i64>> = states.into_iter().map(at).collect();
        let why = "all elements are NaN";
        found.map(Data::owned).ok_or(ComputeError::Value { operation: self.name, why })
    }
}

/// Whether any, or all, are true.
struct Truth<T> {
    of_all: bool,
    types: PhantomData<fn(T)>,
}

impl<T: Summed> Reducer for Truth<T> {
    type Element = T;
    type State = bool;

    fn start(&self) -> bool {
        self.of_all
    }

    #[inline]
    fn step(&self, state: &mut bool, element: T, _at: u64) {
        let truth: Bool = element.convert();
        *state = if self.of_all { *state & truth.get() } else { *state | truth.get() };
    }

    fn merge(&self, state: &mut bool, other: &bool) {
        *state = if self.of_all { *state & *other } else { *state | *other };
    }

    fn finish(&self, states: Vec<bool>) -> Result<Data<'static>, ComputeError> {
        Ok(Data::owned(states.into_iter().map(Bool::from).collect()))
    }
}

macro_rules! reductions {
    ($($name:ident $text:literal $call:expr;)*) => {
        impl<'e> Blocked<'e> {$(
            #[doc = $text]
            ///
            /// # Errors
            ///
            /// [`ComputeError::Axis`], [`ComputeError::AxisTwice`]; [`ComputeError::NoElements`]
            /// if there is no result for none.
            pub fn $name(&self, axes: impl Into<Axes>) -> Result<Self, ComputeError> {
                let call: fn(&Self, &'static str, &Axes) -> Result<Self, ComputeError> = $call;
                call(self, stringify!($name), &axes.into())
            }
        )*}
    };
}
reductions! {
    sum "The sum; that of truth values and integers in 64 bits." Blocked::sum_of;
    nansum "The sum without NaN." Blocked::nansum_of;
    prod "The product; that of truth values and integers in 64 bits."
        |array, name, axes| array.product_of(name, axes, false);
    nanprod "The product without NaN." |array, name, axes| array.product_of(name, axes, true);
    mean "The mean." Blocked::mean_of;
    nanmean "The mean without NaN." Blocked::nanmean_of;
    min "The least; NaN if there is one."
        |array, name, axes| array.extreme_of(name, axes, false, false);
    max "The most; NaN if there is one."
        |array, name, axes| array.extreme_of(name, axes, true, false);
    nanmin "The least without NaN."
        |array, name, axes| array.extreme_of(name, axes, false, true);
    nanmax "The most without NaN."
        |array, name, axes| array.extreme_of(name, axes, true, true);
    any "Whether any is true." |array, name, axes| array.truth_of(name, axes, false);
    all "Whether all are true." |array, name, axes| array.truth_of(name, axes, true);
}

macro_rules! positions {
    ($($name:ident $text:literal $is_most:literal $skips_nan:literal;)*) => {
        impl<'e> Blocked<'e> {$(
            #[doc = $text]
            /// The first of several; along all axes, its position in C order.
            ///
            /// # Errors
            ///
            /// [`ComputeError::Axis`]; [`ComputeError::NoElements`]; [`ComputeError::Argument`] for
            /// several axes; where all are NaN, variants without NaN fail when they are computed.
            pub fn $name(&self, axes: impl Into<Axes>) -> Result<Self, ComputeError> {
                self.position_of(stringify!($name), &axes.into(), $is_most, $skips_nan)
            }
        )*}
    };
}
positions! {
    argmin "Where the least is, or the first NaN." false false;
    argmax "Where the most is, or the first NaN." true false;
    nanargmin "Where the least is that is not NaN." false true;
    nanargmax "Where the most is that is not NaN." true true;
}

macro_rules! variances {
    ($($name:ident $text:literal $is_root:literal $skips_nan:literal;)*) => {
        impl<'e> Blocked<'e> {$(
            #[doc = $text]
            /// The squares are divided by their number less `ddof`.
            ///
            /// # Errors
            ///
            /// [`ComputeError::Axis`], [`ComputeError::AxisTwice`].
            pub fn $name(&self, axes: impl Into<Axes>, ddof: f64) -> Result<Self, ComputeError> {
                self.variance_of(stringify!($name), &axes.into(), ddof, ($is_root, $skips_nan))
            }
        )*}
    };
}
variances! {
    var "The variance." false false;
    std "The standard deviation." true false;
    nanvar "The variance without NaN." false true;
    nanstd "The standard deviation without NaN." true true;
}

impl Blocked<'_> {
    fn sum_of(&self, name: &'static str, axes: &Axes) -> Result<Self, ComputeError> {
        let result = total_of(self.number());
        with_number!(self.number(), T => {
            let sum = Sum::<T, <T as Summed>::Total> { count: None, result, types: PhantomData };
            self.reduce_by(name, axes, sum, result)
        })
    }

    fn nansum_of(&self, name: &'static str, axes: &Axes) -> Result<Self, ComputeError> {
        let result = total_of(self.number());
        with_number!(self.number(), T => {
            let types = PhantomData;
            let sum = NanSum::<T, <T as Summed>::Total> { is_mean: false, result, types };
            self.reduce_by(name, axes, sum, result)
        })
    }

    fn mean_of(&self, name: &'static str, axes: &Axes) -> Result<Self, ComputeError> {
        let result = mean_of(self.number());
        let count = Some(as_float(self.reduced_count(name, axes)?));
        with_number!(self.number(), T => {
            let sum = Sum::<T, <T as Summed>::Mean> { count, result, types: PhantomData };
            self.reduce_by(name, axes, sum, result)
        })
    }

    fn nanmean_of(&self, name: &'static str, axes: &Axes) -> Result<Self, ComputeError> {
        let result = mean_of(self.number());
        with_number!(self.number(), T => {
            let types = PhantomData;
            let sum = NanSum::<T, <T as Summed>::Mean> { is_mean: true, result, types };
            self.reduce_by(name, axes, sum, result)
        })
    }

    fn product_of(
        &self,
        name: &'static str,
        axes: &Axes,
        skips_nan: bool,
    ) -> Result<Self, ComputeError> {
        let result = total_of(self.number());
        with_number!(self.number(), T => {
            let product = Product::<T> { skips_nan, result, types: PhantomData };
            self.reduce_by(name, axes, product, result)
        })
    }

    fn variance_of(
        &self,
        name: &'static str,
        axes: &Axes,
        ddof: f64,
        (is_root, skips_nan): (bool, bool),
    ) -> Result<Self, ComputeError> {
        let result = mean_of(self.number()).real();
        with_number!(self.number(), T => {
            let types = PhantomData;
            let variance = Variance::<T> { skips_nan, is_root, ddof, result, types };
            self.reduce_by(name, axes, variance, result)
        })
    }

    fn extreme_of(
        &self,
        name: &'static str,
        axes: &Axes,
        is_most: bool,
        skips_nan: bool,
    ) -> Result<Self, ComputeError> {
        self.require_elements(name, axes)?;
        with_number!(self.number(), T => {
            let extreme = Extreme::<T> { is_most, skips_nan, types: PhantomData };
            self.reduce_by(name, axes, extreme, self.number())
        })
    }

    fn position_of(
        &self,
        name: &'static str,
        axes: &Axes,
        is_most: bool,
        skips_nan: bool,
    ) -> Result<Self, ComputeError> {
        self.require_elements(name, axes)?;
        if axes.list().is_some_and(|axes| axes.len() != 1) {
            return Err(self.argument(name, "it takes one axis, or all".to_owned()));
        }
        with_number!(self.number(), T => {
            let position = Position::<T> { name, is_most, skips_nan, types: PhantomData };
            self.reduce_by(name, axes, position, Number::I64)
        })
    }

    fn truth_of(
        &self,
        name: &'static str,
        axes: &Axes,
        of_all: bool,
    ) -> Result<Self, ComputeError> {
        with_number!(self.number(), T => {
            let truth = Truth::<T> { of_all, types: PhantomData };
            self.reduce_by(name, axes, truth, Number::Bool)
        })
    }

    /// Elements of which one result is made.
    fn reduced_count(&self, name: &'static str, axes: &Axes) -> Result<u64, ComputeError> {
        let reduced = self.reduced_axes(name, axes)?;
        let lens = self.shape().iter().zip(&reduced).filter(|(_, is_reduced)| **is_reduced);
        Ok(lens.map(|(len, _)| len).product())
    }

    fn require_elements(&self, name: &'static str, axes: &Axes) -> Result<(), ComputeError> {
        let reduced = self.reduced_axes(name, axes)?;
        let is_empty = |(len, is_reduced): (&u64, &bool)| *is_reduced && *len == 0;
        match self.shape().iter().zip(&reduced).any(is_empty) {
            true => {
                let shape = self.shape().to_vec();
                Err(ComputeError::NoElements { operation: name, shape })
            }
            false => Ok(()),
        }
    }
}

/// The type of sums and products.
pub(crate) fn total_of(number: Number) -> Number {
    match number.kind() {
        crate::array::Kind::Bool | crate::array::Kind::Int => Number::I64,
        crate::array::Kind::Uint => Number::U64,
        _ => number,
    }
}

/// The type of means.
fn mean_of(number: Number) -> Number {
    if number.is_float() || number.is_complex() { number } else { Number::F64 }
}
