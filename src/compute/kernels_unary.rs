//! The inner loops of functions of one operand.
//!
//! Each is one loop over one type, so that the compiler makes vector code of it where there is.

use num_complex::{Complex, ComplexFloat};

use super::block::{Data, Numeric};
#[cfg(test)]
use super::number::Number;
use super::trouble::ComputeError;
use super::ufunc::Unary;
use crate::array::Bool;

macro_rules! whole {
    ($operation:expr, $a:expr, $int:ty) => {
        match $operation {
            Unary::Negative => each($a, <$int>::wrapping_neg),
            Unary::Square => each($a, |x| x.wrapping_mul(x)),
            Unary::Reciprocal => each($a, |x| (1 as $int).checked_div(x).unwrap_or(0)),
            Unary::Invert => each($a, |x| !x),
            Unary::IsNan | Unary::IsInf => constant(false, $a.len()),
            Unary::IsFinite => constant(true, $a.len()),
            Unary::ImagPart => each($a, |_| 0 as $int),
            Unary::Positive
            | Unary::Conjugate
            | Unary::Floor
            | Unary::Ceil
            | Unary::Trunc
            | Unary::RealPart => each($a, |x| x),
            _ => None,
        }
    };
}
macro_rules! signed {
    ($operation:expr, $a:expr, $int:ty) => {
        match $operation {
            Unary::Absolute => each($a, <$int>::wrapping_abs),
            Unary::Sign => each($a, <$int>::signum),
            Unary::SignBit => each($a, |x| Bool::from(x < 0)),
            _ => whole!($operation, $a, $int),
        }
    };
}
macro_rules! unsigned {
    ($operation:expr, $a:expr, $int:ty) => {
        match $operation {
            Unary::Absolute => each($a, |x| x),
            Unary::Sign => each($a, |x| <$int>::from(x != 0)),
            Unary::SignBit => constant(false, $a.len()),
            _ => whole!($operation, $a, $int),
        }
    };
}
macro_rules! float {
    ($operation:expr, $a:expr, $float:ty) => {
        match $operation {
            Unary::Negative => each($a, |x| -x),
            Unary::Positive | Unary::Conjugate | Unary::RealPart => each($a, |x| x),
            Unary::ImagPart => each($a, |_| <$float>::default()),
            Unary::Absolute => each($a, <$float>::abs),
            Unary::Sign => each($a, |x| if x == 0.0 || x.is_nan() { x.abs() } else { x.signum() }),
            Unary::Square => each($a, |x| x * x),
            Unary::Reciprocal => each($a, |x| 1.0 / x),
            Unary::Floor => each($a, <$float>::floor),
            Unary::Ceil => each($a, <$float>::ceil),
            Unary::Trunc => each($a, <$float>::trunc),
            Unary::Rint => each($a, <$float>::round_ties_even),
            Unary::IsNan => each($a, |x| Bool::from(x.is_nan())),
            Unary::IsInf => each($a, |x| Bool::from(x.is_infinite())),
            Unary::IsFinite => each($a, |x| Bool::from(x.is_finite())),
            Unary::SignBit => each($a, |x| Bool::from(x.is_sign_negative())),
            other => transcendental!(other, $a, $float),
        }
    };
}
macro_rules! transcendental {
    ($operation:expr, $a:expr, $float:ty) => {
        match $operation {
            Unary::Exp => each($a, <$float>::exp),
            Unary::Exp2 => each($a, <$float>::exp2),
            Unary::Expm1 => each($a, <$float>::exp_m1),
            Unary::Log => each($a, <$float>::ln),
            Unary::Log2 => each($a, <$float>::log2),
            Unary::Log10 => each($a, <$float>::log10),
            Unary::Log1p => each($a, <$float>::ln_1p),
            Unary::Sqrt => each($a, <$float>::sqrt),
            Unary::Cbrt => each($a, <$float>::cbrt),
            Unary::Sin => each($a, <$float>::sin),
            Unary::Cos => each($a, <$float>::cos),
            Unary::Tan => each($a, <$float>::tan),
            Unary::Arcsin => each($a, <$float>::asin),
            Unary::Arccos => each($a, <$float>::acos),
            Unary::Arctan => each($a, <$float>::atan),
            Unary::Sinh => each($a, <$float>::sinh),
            Unary::Cosh => each($a, <$float>::cosh),
            Unary::Tanh => each($a, <$float>::tanh),
            Unary::Arcsinh => each($a, <$float>::asinh),
            Unary::Arccosh => each($a, <$float>::acosh),
            Unary::Arctanh => each($a, <$float>::atanh),
            Unary::Degrees => each($a, <$float>::to_degrees),
            Unary::Radians => each($a, <$float>::to_radians),
            _ => None,
        }
    };
}
/// `operation` of each element; they have the loop's type.
pub(crate) fn unary(operation: Unary, data: &Data<'_>) -> Result<Data<'static>, ComputeError> {
    let unsupported =
        || ComputeError::Unsupported { operation: operation.name(), number: data.number() };
    let found = match data {
        Data::Bool(a) => truths(operation, a),
        Data::I8(a) => signed!(operation, a, i8),
        Data::I16(a) => signed!(operation, a, i16),
        Data::I32(a) => signed!(operation, a, i32),
        Data::I64(a) => signed!(operation, a, i64),
        Data::U8(a) => unsigned!(operation, a, u8),
        Data::U16(a) => unsigned!(operation, a, u16),
        Data::U32(a) => unsigned!(operation, a, u32),
        Data::U64(a) => unsigned!(operation, a, u64),
        Data::F32(a) => float!(operation, a, f32),
        Data::F64(a) => float!(operation, a, f64),
        Data::C64(a) => complex(operation, a),
        Data::C128(a) => complex(operation, a),
    };
    found.ok_or_else(unsupported)
}

/// `function` of each element.
#[inline]
fn each<T: Copy, U: Numeric>(elements: &[T], function: impl Fn(T) -> U) -> Option<Data<'static>> {
    Some(Data::owned(elements.iter().map(|&element| function(element)).collect()))
}

fn constant(value: bool, count: usize) -> Option<Data<'static>> {
    Some(Data::owned(vec![Bool::from(value); count]))
}

fn truths(operation: Unary, a: &[Bool]) -> Option<Data<'static>> {
    match operation {
        Unary::LogicalNot | Unary::Invert => each(a, |x| Bool::from(!x.get())),
        Unary::Absolute | Unary::Floor | Unary::Ceil | Unary::Trunc | Unary::RealPart => {
            each(a, |x| x)
        }
        Unary::ImagPart | Unary::IsNan | Unary::IsInf | Unary::SignBit => constant(false, a.len()),
        Unary::IsFinite => constant(true, a.len()),
        _ => None,
    }
}

fn complex<F>(operation: Unary, a: &[Complex<F>]) -> Option<Data<'static>>
where
    F: num_traits::Float + Numeric,
    Complex<F>: Numeric + ComplexFloat<Real = F>,
{
    match operation {
        Unary::Negative => each(a, |x| -x),
        Unary::Positive => each(a, |x| x),
        Unary::Conjugate => each(a, |x| x.conj()),
        Unary::RealPart => each(a, |x| x.re),
        Unary::ImagPart => each(a, |x| x.im),
        Unary::Absolute => each(a, |x| x.re.hypot(x.im)),
        Unary::Square => each(a, |x| x * x),
        Unary::Reciprocal => each(a, |x| x.finv()),
        Unary::IsNan => each(a, |x| Bool::from(x.re.is_nan() || x.im.is_nan())),
        Unary::IsInf => each(a, |x| Bool::from(x.re.is_infinite() || x.im.is_infinite())),
        Unary::IsFinite => each(a, |x| Bool::from(x.re.is_finite() && x.im.is_finite())),
        Unary::Sign => each(a, |x| {
            let length = x.re.hypot(x.im);
            if length == F::zero() { Complex::new(F::zero(), F::zero()) } else { x.unscale(length) }
        }),
        Unary::Rint => each(a, |x| Complex::new(even(x.re), even(x.im))),
        Unary::Exp => each(a, |x| x.exp()),
        Unary::Log => each(a, |x| x.ln()),
        Unary::Sqrt => each(a, |x| x.sqrt()),
        Unary::Sin => each(a, |x| x.sin()),
        Unary::Cos => each(a, |x| x.cos()),
        Unary::Tan => each(a, |x| x.tan()),
        Unary::Arcsin => each(a, |x| x.asin()),
        Unary::Arccos => each(a, |x| x.acos()),
        Unary::Arctan => each(a, |x| x.atan()),
        Unary::Sinh => each(a, |x| x.sinh()),
        Unary::Cosh => each(a, |x| x.cosh()),
        Unary::Tanh => each(a, |x| x.tanh()),
        Unary::Arcsinh => each(a, |x| x.asinh()),
        Unary::Arccosh => each(a, |x| x.acosh()),
        Unary::Arctanh => each(a, |x| x.atanh()),
        _ => None,
    }
}

/// The nearest whole number, halves to the even one.
fn even<F: num_traits::Float>(value: F) -> F {
    let (nearest, two) = (value.round(), F::one() + F::one());
    let is_half = (value - value.trunc()).abs() == F::one() / two;
    if is_half { (value / two).round() * two } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_loop_for_every_type_that_it_says_it_has() {
        for &operation in Unary::ALL {
            for number in Number::ALL {
                let Ok((by, result)) = operation.types(number) else { continue };
                let found = unary(operation, &Data::zeros(by, 3));
                let found = found.unwrap_or_else(|why| panic!("{operation:?} {number}: {why}"));
                assert_eq!((found.number(), found.len()), (result, 3), "{operation:?} {number}");
            }
        }
    }
}
