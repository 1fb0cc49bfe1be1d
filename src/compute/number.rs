//! The thirteen types of numbers that expressions compute with, and which of them a result has.
//!
//! ```text
//! bool -> int8 -> int16 -> int32 -> int64 --.
//!     '-> uint8 -> uint16 -> uint32 -> uint64 -> float64 -> complex128
//!                 float32 -> float64, complex64 -> complex128
//! ```
//!
//! # Invariants
//!
//! 1. [`Number::with`] is NumPy's `result_type`, but for `float16`, for which `float32` stands.

use std::fmt;

use num_complex::Complex;

use crate::array::{Bool, Dtype, Element, Kind};

/// The type of the elements of an expression, in this machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Number {
    /// Truth value.
    Bool,
    /// `int8`.
    I8,
    /// `int16`.
    I16,
    /// `int32`.
    I32,
    /// `int64`.
    I64,
    /// `uint8`.
    U8,
    /// `uint16`.
    U16,
    /// `uint32`.
    U32,
    /// `uint64`.
    U64,
    /// `float32`.
    F32,
    /// `float64`.
    F64,
    /// `complex64`.
    C64,
    /// `complex128`.
    C128,
}

/// Calls a macro with every variant and its Rust type.
macro_rules! each_number {
    ($call:ident) => {
        $call! {
            Bool => $crate::array::Bool, I8 => i8, I16 => i16, I32 => i32, I64 => i64,
            U8 => u8, U16 => u16, U32 => u32, U64 => u64, F32 => f32, F64 => f64,
            C64 => num_complex::Complex<f32>, C128 => num_complex::Complex<f64>
        }
    };
}
pub(crate) use each_number;

impl Number {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Bool,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::F32,
        Self::F64,
        Self::C64,
        Self::C128,
    ];

    /// The number that elements of `dtype` are, in whichever byte order; `None` for texts, dates,
    /// records and floats that Rust has not.
    #[must_use]
    pub fn of(dtype: &Dtype) -> Option<Self> {
        let native = dtype.to_native_order();
        Self::ALL.into_iter().find(|number| number.dtype() == native)
    }

    /// The data type.
    #[must_use]
    pub fn dtype(self) -> Dtype {
        macro_rules! dtypes {
            ($($name:ident => $element:ty),*) => {
                match self { $(Self::$name => <$element>::dtype()),* }
            };
        }
        each_number!(dtypes)
    }

    /// Bytes of an element.
    #[must_use]
    pub fn itemsize(self) -> usize {
        macro_rules! sizes {
            ($($name:ident => $element:ty),*) => {
                match self { $(Self::$name => size_of::<$element>()),* }
            };
        }
        each_number!(sizes)
    }

    /// What it holds: truth values, integers, floats, complex numbers.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Bool => Kind::Bool,
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => Kind::Int,
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Kind::Uint,
            Self::F32 | Self::F64 => Kind::Float,
            Self::C64 | Self::C128 => Kind::Complex,
        }
    }

    pub(crate) fn is_bool(self) -> bool {
        self == Self::Bool
    }

    /// Signed or unsigned integer.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self.kind(), Kind::Int | Kind::Uint)
    }

    pub(crate) fn is_float(self) -> bool {
        self.kind() == Kind::Float
    }

    pub(crate) fn is_complex(self) -> bool {
        self.kind() == Kind::Complex
    }

    /// The type that holds both, as NumPy's `result_type` says.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let (low, high) = if self.rank() <= other.rank() { (self, other) } else { (other, self) };
        match (low.kind(), high.kind()) {
            (Kind::Bool, _) => high,
            (Kind::Int, Kind::Uint) => Self::signed_over(low, high),
            (Kind::Int | Kind::Uint, Kind::Float) => low.float().wider(high),
            (Kind::Int | Kind::Uint, _) if high.is_complex() => low.float().complex().wider(high),
            (Kind::Float, Kind::Complex) => low.complex().wider(high),
            _ => low.wider(high),
        }
    }

    fn rank(self) -> u8 {
        match self.kind() {
            Kind::Bool => 0,
            Kind::Int => 1,
            Kind::Uint => 2,
            Kind::Float => 3,
            _ => 4,
        }
    }

    fn wider(self, other: Self) -> Self {
        if self.itemsize() >= other.itemsize() { self } else { other }
    }

    fn signed_over(signed: Self, unsigned: Self) -> Self {
        match unsigned {
            _ if signed.itemsize() > unsigned.itemsize() => signed,
            Self::U8 => Self::I16,
            Self::U16 => Self::I32,
            Self::U32 => Self::I64,
            _ => Self::F64,
        }
    }

    /// The float in which functions of this number are computed: `float32` up to 16 bits.
    pub(crate) fn float(self) -> Self {
        match self {
            Self::Bool | Self::I8 | Self::U8 | Self::I16 | Self::U16 | Self::F32 => Self::F32,
            Self::C64 | Self::C128 => self,
            _ => Self::F64,
        }
    }

    /// The complex number whose parts are this float.
    pub(crate) fn complex(self) -> Self {
        match self {
            Self::F32 | Self::C64 => Self::C64,
            _ => Self::C128,
        }
    }

    /// The real number that the parts of a complex one are; others are themselves.
    pub(crate) fn real(self) -> Self {
        match self {
            Self::C64 => Self::F32,
            Self::C128 => Self::F64,
            other => other,
        }
    }

    /// Least and most value of an integer.
    pub(crate) fn limits(self) -> Option<(i128, i128)> {
        let bits = 8 * self.itemsize();
        match self.kind() {
            Kind::Int => Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
            Kind::Uint => Some((0, (1 << bits) - 1)),
            _ => None,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.dtype().to_string())
    }
}

/// A value without a type of its own, as a number written in Python is: it takes the type of the
/// array it meets, if that can hold its kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A float.
    Float(f64),
    /// A complex number.
    Complex(Complex<f64>),
}

impl Scalar {
    /// The type that a result has of an array of `number` and this scalar.
    #[must_use]
    pub fn meets(self, number: Number) -> Number {
        match self {
            Self::Bool(_) => number,
            Self::Int(_) if number.is_bool() => Number::I64,
            Self::Float(_) if !number.is_float() && !number.is_complex() => Number::F64,
            Self::Complex(_) if number.is_float() => number.complex(),
            Self::Complex(_) if !number.is_complex() => Number::C128,
            _ => number,
        }
    }

    /// The type it has where there is no array.
    #[must_use]
    pub fn number(self) -> Number {
        match self {
            Self::Bool(_) => Number::Bool,
            Self::Int(value) if i64::try_from(value).is_ok() => Number::I64,
            Self::Int(_) => Number::U64,
            Self::Float(_) => Number::F64,
            Self::Complex(_) => Number::C128,
        }
    }

    /// Whether an integer of type `number` can have this value.
    pub(crate) fn fits(self, number: Number) -> bool {
        match (self, number.limits()) {
            (Self::Int(value), Some((least, most))) => (least..=most).contains(&value),
            _ => true,
        }
    }
}

macro_rules! scalars {
    ($($from:ty => |$value:ident| $scalar:expr),* $(,)?) => {$(
        impl From<$from> for Scalar {
            fn from($value: $from) -> Self {
                $scalar
            }
        }
    )*};
}
scalars! {
    bool => |value| Self::Bool(value),
    Bool => |value| Self::Bool(value.get()),
    i32 => |value| Self::Int(value.into()),
    i64 => |value| Self::Int(value.into()),
    u64 => |value| Self::Int(value.into()),
    f32 => |value| Self::Float(value.into()),
    f64 => |value| Self::Float(value),
    Complex<f64> => |value| Self::Complex(value),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_both_orders_are_numbers_and_others_are_none() {
        for (text, number) in [("<f8", Number::F64), (">f8", Number::F64), ("?", Number::Bool)] {
            assert_eq!(Number::of(&Dtype::parse(text).unwrap()), Some(number));
        }
        for text in ["S3", "M8[s]", "f2", "f16", "i4, i4"] {
            assert_eq!(Number::of(&Dtype::parse(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn mixed_signs_get_the_integer_that_holds_both() {
        use Number::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        for (a, b, both) in [
            (I8, U8, I16),
            (U16, I8, I32),
            (U32, I32, I64),
            (U64, I8, F64),
            (I64, U32, I64),
            (I16, F32, F32),
            (I32, F32, F64),
        ] {
            assert_eq!((a.with(b), b.with(a)), (both, both), "{a} {b}");
        }
    }
}
