//! The inner loops of functions of two operands, and of `where`.
//!
//! An operand of one element meets every element of the other. Each loop is over one type, so that
//! the compiler makes vector code of it where there is.

use num_complex::Complex;

use super::block::{Data, Numeric, with_elements};
#[cfg(test)]
use super::number::Number;
use super::trouble::ComputeError;
use super::ufunc::Binary;
use crate::array::Bool;

/// `operation` of each pair of elements; both operands have the loop's type, and equal lengths
/// unless one has one element.
pub(crate) fn binary(
    operation: Binary,
    left: &Data<'_>,
    right: &Data<'_>,
) -> Result<Data<'static>, ComputeError> {
    let unsupported =
        || ComputeError::Unsupported { operation: operation.name(), number: left.number() };
    if let (Binary::Power, true) = (operation, left.number().is_integer()) {
        require_no_negative_power(right)?;
    }
    let found = match (left, right) {
        (Data::Bool(a), Data::Bool(b)) => all(operation, a, b),
        (Data::I8(a), Data::I8(b)) => integers(operation, a, b),
        (Data::I16(a), Data::I16(b)) => integers(operation, a, b),
        (Data::I32(a), Data::I32(b)) => integers(operation, a, b),
        (Data::I64(a), Data::I64(b)) => integers(operation, a, b),
        (Data::U8(a), Data::U8(b)) => integers(operation, a, b),
        (Data::U16(a), Data::U16(b)) => integers(operation, a, b),
        (Data::U32(a), Data::U32(b)) => integers(operation, a, b),
        (Data::U64(a), Data::U64(b)) => integers(operation, a, b),
        (Data::F32(a), Data::F32(b)) => floats(operation, a, b),
        (Data::F64(a), Data::F64(b)) => floats(operation, a, b),
        (Data::C64(a), Data::C64(b)) => complexes(operation, a, b),
        (Data::C128(a), Data::C128(b)) => complexes(operation, a, b),
        _ => return Err(ComputeError::Mistake("operands of two types")),
    };
    found.ok_or_else(unsupported)
}

fn require_no_negative_power(powers: &Data<'_>) -> Result<(), ComputeError> {
    let negative = match powers {
        Data::I8(powers) => powers.iter().any(|&power| power < 0),
        Data::I16(powers) => powers.iter().any(|&power| power < 0),
        Data::I32(powers) => powers.iter().any(|&power| power < 0),
        Data::I64(powers) => powers.iter().any(|&power| power < 0),
        _ => false,
    };
    let why = "an integer has no negative integer power; cast it to a float";
    if negative { Err(ComputeError::Value { operation: "power", why }) } else { Ok(()) }
}

/// The values of `yes` where `condition` is true, else those of `no`.
pub(crate) fn select(
    condition: &Data<'_>,
    yes: &Data<'_>,
    no: &Data<'_>,
) -> Result<Data<'static>, ComputeError> {
    let condition = condition.elements::<Bool>()?;
    with_elements!(yes, yes => Ok(Data::owned(chosen(condition, yes, no.elements()?))))
}

fn chosen<T: Numeric>(condition: &[Bool], yes: &[T], no: &[T]) -> Vec<T> {
    let count = [condition.len(), yes.len(), no.len()];
    let longest = if count.contains(&0) { 0 } else { count.into_iter().max().unwrap_or(0) };
    if count.iter().all(|&len| len == longest) {
        let pairs = yes.iter().zip(no);
        return condition
            .iter()
            .zip(pairs)
            .map(|(c, (&y, &n))| if c.get() { y } else { n })
            .collect();
    }
    fn at<T: Copy>(elements: &[T], index: usize) -> T {
        elements[if elements.len() == 1 { 0 } else { index }]
    }
    let choose = |index| if at(condition, index).get() { at(yes, index) } else { at(no, index) };
    (0..longest).map(choose).collect()
}

/// `function` of each pair.
#[inline]
fn pairs<T: Copy, U: Numeric>(
    a: &[T],
    b: &[T],
    function: impl Fn(T, T) -> U,
) -> Option<Data<'static>> {
    let found = match (a, b) {
        (_, &[b]) => a.iter().map(|&a| function(a, b)).collect(),
        (&[a], _) => b.iter().map(|&b| function(a, b)).collect(),
        _ => a.iter().zip(b).map(|(&a, &b)| function(a, b)).collect(),
    };
    Some(Data::owned(found))
}

/// What every number can do.
trait Common: Numeric {
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// NaN is more than everything else.
    fn most(self, other: Self) -> Self;
    fn least(self, other: Self) -> Self;
    /// NaN is less than nothing.
    fn fmost(self, other: Self) -> Self;
    fn fleast(self, other: Self) -> Self;
    fn before(self, other: Self) -> bool;
    fn before_or_equal(self, other: Self) -> bool;
}

/// What all but truth values can do.
trait Minus: Common {
    fn minus(self, other: Self) -> Self;
}

/// What integers can do.
trait Integer: Minus + std::ops::BitAnd<Output = Self> + std::ops::BitOr<Output = Self> {
    fn xor(self, other: Self) -> Self;
    fn floor_divided(self, other: Self) -> Self;
    fn remainder(self, other: Self) -> Self;
    fn power(self, other: Self) -> Self;
    fn shifted_left(self, other: Self) -> Self;
    fn shifted_right(self, other: Self) -> Self;
}

/// What floats can do.
trait Real: Minus + num_traits::Float {
    fn floor_divided(self, other: Self) -> Self;
    fn python_remainder(self, other: Self) -> Self;
    fn logaddexp(self, other: Self) -> Self;
}

fn all<T: Common>(operation: Binary, a: &[T], b: &[T]) -> Option<Data<'static>> {
    let truth = T::default();
    match operation {
        Binary::Add => pairs(a, b, T::plus),
        Binary::Multiply => pairs(a, b, T::times),
        Binary::Maximum => pairs(a, b, T::most),
        Binary::Minimum => pairs(a, b, T::least),
        Binary::Fmax => pairs(a, b, T::fmost),
        Binary::Fmin => pairs(a, b, T::fleast),
        Binary::Equal => pairs(a, b, |x, y| Bool::from(x == y)),
        Binary::NotEqual | Binary::LogicalXor if T::NUMBER.is_bool() => {
            pairs(a, b, |x, y| Bool::from(x != y))
        }
        Binary::NotEqual => pairs(a, b, |x, y| Bool::from(x != y)),
        Binary::Less => pairs(a, b, |x, y| Bool::from(x.before(y))),
        Binary::LessEqual => pairs(a, b, |x, y| Bool::from(x.before_or_equal(y))),
        Binary::Greater => pairs(a, b, |x, y| Bool::from(y.before(x))),
        Binary::GreaterEqual => pairs(a, b, |x, y| Bool::from(y.before_or_equal(x))),
        Binary::LogicalAnd => pairs(a, b, |x, y| Bool::from(x != truth && y != truth)),
        Binary::LogicalOr => pairs(a, b, |x, y| Bool::from(x != truth || y != truth)),
        Binary::BitAnd if T::NUMBER.is_bool() => pairs(a, b, T::times),
        Binary::BitOr if T::NUMBER.is_bool() => pairs(a, b, T::plus),
        Binary::BitXor if T::NUMBER.is_bool() => pairs(a, b, |x, y| Bool::from(x != y)),
        _ => None,
    }
}

fn integers<T: Integer>(operation: Binary, a: &[T], b: &[T]) -> Option<Data<'static>> {
    match operation {
        Binary::Subtract => pairs(a, b, T::minus),
        Binary::FloorDivide => pairs(a, b, T::floor_divided),
        Binary::Remainder => pairs(a, b, T::remainder),
        Binary::Power => pairs(a, b, T::power),
        Binary::BitAnd => pairs(a, b, |x, y| x & y),
        Binary::BitOr => pairs(a, b, |x, y| x | y),
        Binary::BitXor => pairs(a, b, T::xor),
        Binary::LeftShift => pairs(a, b, T::shifted_left),
        Binary::RightShift => pairs(a, b, T::shifted_right),
        other => all(other, a, b),
    }
}

fn floats<T: Real>(operation: Binary, a: &[T], b: &[T]) -> Option<Data<'static>> {
    match operation {
        Binary::Subtract => pairs(a, b, T::minus),
        Binary::Divide => pairs(a, b, |x, y| x / y),
        Binary::FloorDivide => pairs(a, b, Real::floor_divided),
        Binary::Remainder => pairs(a, b, T::python_remainder),
        // Squares are what powers mostly are.
        Binary::Power if matches!(b, &[two] if two == T::one() + T::one()) => {
            pairs(a, b, |x, _| x * x)
        }
        Binary::Power => pairs(a, b, T::powf),
        Binary::Arctan2 => pairs(a, b, T::atan2),
        Binary::Hypot => pairs(a, b, T::hypot),
        Binary::CopySign => pairs(a, b, T::copysign),
        Binary::Logaddexp => pairs(a, b, T::logaddexp),
        other => all(other, a, b),
    }
}

fn complexes<F>(operation: Binary, a: &[Complex<F>], b: &[Complex<F>]) -> Option<Data<'static>>
where
    F: num_traits::Float + Numeric,
    Complex<F>: Minus,
{
    match operation {
        Binary::Subtract => pairs(a, b, Minus::minus),
        Binary::Divide => pairs(a, b, complex_ratio),
        Binary::Power => pairs(a, b, complex_power),
        other => all(other, a, b),
    }
}

/// Smith's method, which NumPy uses too: no part overflows on the way.
fn complex_ratio<F: num_traits::Float>(a: Complex<F>, b: Complex<F>) -> Complex<F> {
    if b.re.abs() >= b.im.abs() {
        if b.re.is_zero() && b.im.is_zero() {
            return Complex::new(a.re / b.re.abs(), a.im / b.re.abs());
        }
        let ratio = b.im / b.re;
        let scale = F::one() / (b.re + b.im * ratio);
        return Complex::new((a.re + a.im * ratio) * scale, (a.im - a.re * ratio) * scale);
    }
    let ratio = b.re / b.im;
    let scale = F::one() / (b.im + b.re * ratio);
    Complex::new((a.re * ratio + a.im) * scale, (a.im * ratio - a.re) * scale)
}

fn complex_power<F: num_traits::Float>(a: Complex<F>, b: Complex<F>) -> Complex<F> {
    let (zero, one) = (F::zero(), F::one());
    if b.re == zero && b.im == zero {
        return Complex::new(one, zero);
    }
    if a.re == zero && a.im == zero {
        let nan = Complex::new(F::nan(), F::nan());
        return if b.re > zero && b.im == zero { Complex::new(zero, zero) } else { nan };
    }
    match b.re.to_i32() {
        Some(n @ -100..=100) if b.im == zero && F::from(n) == Some(b.re) => a.powi(n),
        _ => a.powc(b),
    }
}

impl Common for Bool {
    fn plus(self, other: Self) -> Self {
        Self::from(self.get() | other.get())
    }
    fn times(self, other: Self) -> Self {
        Self::from(self.get() & other.get())
    }
    fn most(self, other: Self) -> Self {
        self.plus(other)
    }
    fn least(self, other: Self) -> Self {
        self.times(other)
    }
    fn fmost(self, other: Self) -> Self {
        self.plus(other)
    }
    fn fleast(self, other: Self) -> Self {
        self.times(other)
    }
    fn before(self, other: Self) -> bool {
        !self.get() & other.get()
    }
    fn before_or_equal(self, other: Self) -> bool {
        !self.get() | other.get()
    }
}

macro_rules! integer {
    ($($int:ty: $floor_divided:expr, $remainder:expr;)*) => {$(
        impl Common for $int {
            #[inline]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline]
            fn most(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline]
            fn least(self, other: Self) -> Self {
                self.min(other)
            }
            #[inline]
            fn fmost(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline]
            fn fleast(self, other: Self) -> Self {
                self.min(other)
            }
            #[inline]
            fn before(self, other: Self) -> bool {
                self < other
            }
            #[inline]
            fn before_or_equal(self, other: Self) -> bool {
                self <= other
            }
        }
        impl Minus for $int {
            #[inline]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
        impl Integer for $int {
            #[inline]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            /// 0 for a divisor of 0, as in NumPy.
            #[inline]
            fn floor_divided(self, other: Self) -> Self {
                if other == 0 { 0 } else { $floor_divided(self, other) }
            }
            #[inline]
            fn remainder(self, other: Self) -> Self {
                if other == 0 { 0 } else { $remainder(self, other) }
            }
            fn power(self, other: Self) -> Self {
                let (mut base, mut power, mut result) = (self, other, 1 as $int);
                while power > 0 {
                    if power & 1 == 1 {
                        result = result.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    power >>= 1;
                }
                result
            }
            #[inline]
            fn shifted_left(self, other: Self) -> Self {
                u32::try_from(other).ok().and_then(|bits| self.checked_shl(bits)).unwrap_or(0)
            }
            /// Shifted by all bits, the sign is left.
            #[inline]
            fn shifted_right(self, other: Self) -> Self {
                let shifted = u32::try_from(other).ok().and_then(|bits| self.checked_shr(bits));
                shifted.unwrap_or_else(|| self.checked_shr(<$int>::BITS - 1).unwrap_or(0) >> 1)
            }
        }
    )*};
}
macro_rules! signed {
    ($($int:ty),*) => {
        integer! {$(
            $int:
                |a: $int, b: $int| {
                    let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b));
                    quotient - <$int>::from(rest != 0 && (rest < 0) != (b < 0))
                },
                |a: $int, b: $int| {
                    let rest = a.wrapping_rem(b);
                    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
                };
        )*}
    };
}
macro_rules! unsigned {
    ($($int:ty),*) => {
        integer! {$($int: |a: $int, b: $int| a / b, |a: $int, b: $int| a % b;)*}
    };
}
signed!(i8, i16, i32, i64);
unsigned!(u8, u16, u32, u64);

macro_rules! float {
    ($($float:ty),*) => {$(
        impl Common for $float {
            #[inline]
            fn plus(self, other: Self) -> Self {
                self + other
            }
            #[inline]
            fn times(self, other: Self) -> Self {
                self * other
            }
            #[inline]
            fn most(self, other: Self) -> Self {
                if self >= other || self.is_nan() { self } else { other }
            }
            #[inline]
            fn least(self, other: Self) -> Self {
                if self <= other || self.is_nan() { self } else { other }
            }
            #[inline]
            fn fmost(self, other: Self) -> Self {
                if self >= other || other.is_nan() { self } else { other }
            }
            #[inline]
            fn fleast(self, other: Self) -> Self {
                if self <= other || other.is_nan() { self } else { other }
            }
            #[inline]
            fn before(self, other: Self) -> bool {
                self < other
            }
            #[inline]
            fn before_or_equal(self, other: Self) -> bool {
                self <= other
            }
        }
        impl Minus for $float {
            #[inline]
            fn minus(self, other: Self) -> Self {
                self - other
            }
        }
        impl Real for $float {
            /// Python's: towards minus infinity, and the remainder has the sign of the divisor.
            fn floor_divided(self, other: Self) -> Self {
                if other == 0.0 {
                    return self / other;
                }
                let rest = self % other;
                let mut quotient = (self - rest) / other;
                if rest != 0.0 && (other < 0.0) != (rest < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return (0.0 as $float).copysign(self / other);
                }
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
            fn python_remainder(self, other: Self) -> Self {
                let rest = self % other;
                if rest == 0.0 {
                    return (0.0 as $float).copysign(other);
                }
                if (other < 0.0) != (rest < 0.0) && !rest.is_nan() { rest + other } else { rest }
            }
            fn logaddexp(self, other: Self) -> Self {
                if self == other {
                    return self + (2.0 as $float).ln();
                }
                let distance = self - other;
                if distance > 0.0 {
                    self + (-distance).exp().ln_1p()
                } else if distance <= 0.0 {
                    other + distance.exp().ln_1p()
                } else {
                    distance
                }
            }
        }
    )*};
}
float!(f32, f64);

impl<F> Common for Complex<F>
where
    F: num_traits::Float,
    Self: Numeric,
{
    #[inline]
    fn plus(self, other: Self) -> Self {
        self + other
    }
    #[inline]
    fn times(self, other: Self) -> Self {
        self * other
    }
    fn most(self, other: Self) -> Self {
        if self.has_nan() || (!other.has_nan() && other.before_or_equal(self)) {
            self
        } else {
            other
        }
    }
    fn least(self, other: Self) -> Self {
        if self.has_nan() || (!other.has_nan() && self.before_or_equal(other)) {
            self
        } else {
            other
        }
    }
    fn fmost(self, other: Self) -> Self {
        if other.has_nan() || (!self.has_nan() && other.before_or_equal(self)) {
            self
        } else {
            other
        }
    }
    fn fleast(self, other: Self) -> Self {
        if other.has_nan() || (!self.has_nan() && self.before_or_equal(other)) {
            self
        } else {
            other
        }
    }
    /// By the real part, then by the imaginary.
    fn before(self, other: Self) -> bool {
        self.re < other.re && !self.im.is_nan() && !other.im.is_nan()
            || self.re == other.re && self.im < other.im
    }
    fn before_or_equal(self, other: Self) -> bool {
        self.re < other.re && !self.im.is_nan() && !other.im.is_nan()
            || self.re == other.re && self.im <= other.im
    }
}

/// Whether a part is NaN.
trait HasNan {
    fn has_nan(self) -> bool;
}

impl<F: num_traits::Float> HasNan for Complex<F> {
    fn has_nan(self) -> bool {
        self.re.is_nan() || self.im.is_nan()
    }
}

impl<F> Minus for Complex<F>
where
    F: num_traits::Float,
    Self: Numeric,
{
    #[inline]
    fn minus(self, other: Self) -> Self {
        self - other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_loop_for_every_type_that_it_says_it_has() {
        for &operation in Binary::ALL {
            for number in Number::ALL {
                let Ok((by, result)) = operation.types(number) else { continue };
                let found = binary(operation, &Data::zeros(by, 3), &Data::zeros(by, 1));
                let found = found.unwrap_or_else(|why| panic!("{operation:?} {number}: {why}"));
                assert_eq!((found.number(), found.len()), (result, 3), "{operation:?} {number}");
            }
        }
    }

    #[test]
    fn shifts_by_all_bits_and_more_leave_zeros_or_the_sign() {
        assert_eq!([(-3_i8).shifted_right(8), 3_i8.shifted_right(100)], [-1, 0]);
        assert_eq!([(-3_i8).shifted_left(8), 1_i8.shifted_left(-1)], [0, 0]);
        assert_eq!([200_u8.shifted_right(8), 200_u8.shifted_right(7)], [0, 1]);
    }
}
