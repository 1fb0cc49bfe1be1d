//! Functions of elements: arithmetic, comparison, choosing, casting, with NumPy's names.
//!
//! Each function checks types and shapes when it is called and computes nothing. Operands are
//! stretched to one shape as NumPy broadcasts them; a number that is written takes the type of the
//! array it meets.

use super::node::{Blocked, Kind, Operation};
use super::number::{Number, Scalar};
use super::trouble::ComputeError;
use super::ufunc::{Binary, Unary};

/// The other operand of a function: an expression, or a number that has no type of its own.
#[derive(Clone)]
pub enum Operand<'e> {
    /// An expression.
    Array(Blocked<'e>),
    /// A number.
    Scalar(Scalar),
}

impl<'e> From<&Blocked<'e>> for Operand<'e> {
    fn from(array: &Blocked<'e>) -> Self {
        Self::Array(array.clone())
    }
}

impl<'e> From<Blocked<'e>> for Operand<'e> {
    fn from(array: Blocked<'e>) -> Self {
        Self::Array(array)
    }
}

impl<T: Into<Scalar>> From<T> for Operand<'_> {
    fn from(scalar: T) -> Self {
        Self::Scalar(scalar.into())
    }
}

macro_rules! unary_functions {
    ($($name:ident $function:ident $text:literal),* $(,)?) => {
        impl<'e> Blocked<'e> {$(
            #[doc = $text]
            ///
            /// # Errors
            ///
            /// [`ComputeError::Unsupported`] for elements of a type for which it is not defined.
            pub fn $name(&self) -> Result<Self, ComputeError> {
                self.unary(Unary::$function)
            }
        )*}
    };
}
unary_functions! {
    negative Negative "`-x`; integers wrap around.",
    positive Positive "`+x`.",
    absolute Absolute "`abs(x)`; of a complex number its length.",
    sign Sign "-1, 0 or 1.",
    conjugate Conjugate "The complex conjugate.",
    square Square "`x * x`.",
    reciprocal Reciprocal "`1 / x`; of an integer its whole part, and 0 for 0.",
    exp Exp "e to the power of `x`.",
    exp2 Exp2 "2 to the power of `x`.",
    expm1 Expm1 "`exp(x) - 1`, exact near 0.",
    log Log "The natural logarithm.",
    log2 Log2 "The logarithm to base 2.",
    log10 Log10 "The logarithm to base 10.",
    log1p Log1p "`log(1 + x)`, exact near 0.",
    sqrt Sqrt "The square root.",
    cbrt Cbrt "The cube root.",
    sin Sin "The sine.",
    cos Cos "The cosine.",
    tan Tan "The tangent.",
    arcsin Arcsin "The inverse of the sine.",
    arccos Arccos "The inverse of the cosine.",
    arctan Arctan "The inverse of the tangent.",
    sinh Sinh "The hyperbolic sine.",
    cosh Cosh "The hyperbolic cosine.",
    tanh Tanh "The hyperbolic tangent.",
    arcsinh Arcsinh "The inverse of the hyperbolic sine.",
    arccosh Arccosh "The inverse of the hyperbolic cosine.",
    arctanh Arctanh "The inverse of the hyperbolic tangent.",
    degrees Degrees "Radians as degrees.",
    radians Radians "Degrees as radians.",
    floor Floor "The nearest whole number below.",
    ceil Ceil "The nearest whole number above.",
    trunc Trunc "Without its fraction.",
    rint Rint "The nearest whole number, halves to the even one.",
    invert Invert "`~x`: every bit, or the truth value, the other way.",
    logical_not LogicalNot "Whether it is not true.",
    isnan IsNan "Whether it is NaN.",
    isinf IsInf "Whether it is infinite.",
    isfinite IsFinite "Whether it is neither NaN nor infinite.",
    signbit SignBit "Whether it has a minus sign, also -0.",
    real RealPart "The real part.",
    imag ImagPart "The imaginary part.",
}

macro_rules! binary_functions {
    ($($name:ident $function:ident $text:literal),* $(,)?) => {
        impl<'e> Blocked<'e> {$(
            #[doc = $text]
            ///
            /// # Errors
            ///
            /// [`ComputeError::Broadcast`] if the shapes do not fit,
            /// [`ComputeError::Unsupported`] for types for which it is not defined,
            /// [`ComputeError::OutOfBounds`] for a number that the other type cannot have.
            pub fn $name(&self, other: impl Into<Operand<'e>>) -> Result<Self, ComputeError> {
                self.binary(Binary::$function, &other.into())
            }
        )*}
    };
}
binary_functions! {
    add Add "`x + y`.",
    subtract Subtract "`x - y`.",
    multiply Multiply "`x * y`.",
    divide Divide "`x / y`, a float.",
    floor_divide FloorDivide "`x // y`: rounded towards minus infinity; 0 for integers by 0.",
    remainder Remainder "`x % y` with the sign of `y`; 0 for integers by 0.",
    power Power "`x ** y`. A negative power of an integer fails when it is computed.",
    maximum Maximum "The greater one; NaN if one is NaN.",
    minimum Minimum "The lesser one; NaN if one is NaN.",
    fmax Fmax "The greater one; NaN only if both are.",
    fmin Fmin "The lesser one; NaN only if both are.",
    arctan2 Arctan2 "The angle of the point `(y, x)`, `x` being the argument.",
    hypot Hypot "The length of the hypotenuse.",
    copysign CopySign "`x` with the sign of `y`.",
    logaddexp Logaddexp "`log(exp(x) + exp(y))` without overflow.",
    bitwise_and BitAnd "`x & y`.",
    bitwise_or BitOr "`x | y`.",
    bitwise_xor BitXor "`x ^ y`.",
    left_shift LeftShift "`x << y`.",
    right_shift RightShift "`x >> y`.",
    logical_and LogicalAnd "Whether both are true.",
    logical_or LogicalOr "Whether one is true.",
    logical_xor LogicalXor "Whether exactly one is true.",
    equal Equal "`x == y`.",
    not_equal NotEqual "`x != y`.",
    less Less "`x < y`.",
    less_equal LessEqual "`x <= y`.",
    greater Greater "`x > y`.",
    greater_equal GreaterEqual "`x >= y`.",
}

impl<'e> Blocked<'e> {
    /// The same elements as another type, as an assignment in NumPy casts them; floats that an
    /// integer cannot hold become the nearest that it can, and NaN 0.
    ///
    /// # Errors
    ///
    /// None but [`ComputeError::TooDeep`].
    pub fn astype(&self, number: Number) -> Result<Self, ComputeError> {
        if self.number() == number {
            return Ok(self.clone());
        }
        let kind = Kind::Map { operation: Operation::Cast, operands: vec![self.clone()] };
        Self::of_kind(kind, self.shape(), number)
    }

    /// The elements of `yes` where this is true, else those of `no`.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Broadcast`], [`ComputeError::OutOfBounds`].
    pub fn choose(
        &self,
        yes: impl Into<Operand<'e>>,
        no: impl Into<Operand<'e>>,
    ) -> Result<Self, ComputeError> {
        let (yes, no) = meet(&yes.into(), &no.into())?;
        let shape = broadcast("where", self.shape(), yes.shape())?;
        let shape = broadcast("where", &shape, no.shape())?;
        let number = yes.number();
        let operands = vec![self.astype(Number::Bool)?, yes, no];
        let kind = Kind::Map { operation: Operation::Select, operands };
        Self::of_kind(kind, &shape, number)
    }

    /// Each element, or the nearest bound: `minimum(maximum(x, low), high)`.
    ///
    /// # Errors
    ///
    /// Those of [`maximum`](Self::maximum).
    pub fn clip(
        &self,
        low: Option<Operand<'e>>,
        high: Option<Operand<'e>>,
    ) -> Result<Self, ComputeError> {
        let mut clipped = self.clone();
        if let Some(low) = low {
            clipped = clipped.maximum(low)?;
        }
        if let Some(high) = high {
            clipped = clipped.minimum(high)?;
        }
        Ok(clipped)
    }

    pub(crate) fn unary(&self, operation: Unary) -> Result<Self, ComputeError> {
        let (by, result) = operation.types(self.number())?;
        let operands = vec![self.astype(by)?];
        let kind = Kind::Map { operation: Operation::Unary(operation), operands };
        Self::of_kind(kind, self.shape(), result)
    }

    pub(crate) fn binary(
        &self,
        operation: Binary,
        other: &Operand<'e>,
    ) -> Result<Self, ComputeError> {
        if let (Operand::Scalar(scalar), true) = (other, operation.compares())
            && let Some(always) = beyond(*scalar, self.number(), operation)
        {
            return Self::full(self.shape(), always, Number::Bool);
        }
        if let (Operand::Array(other), true) = (other, operation.compares())
            && let Some(compared) = self.compared_with_uint64(operation, other)?
        {
            return Ok(compared);
        }
        let (left, right) = match other {
            // Each is true or not in its own type.
            _ if operation.is_logic() => (self.astype(Number::Bool)?, truth(other)?),
            Operand::Array(other) => {
                let number = operation.meeting(self.number(), other.number());
                (self.astype(number)?, other.astype(number)?)
            }
            // Floats hold a number that an integer type cannot have.
            Operand::Scalar(scalar) if operation.is_of_floats() => {
                let (by, _) = operation.types(scalar.meets(self.number()))?;
                (self.astype(by)?, Self::full(&[], *scalar, by)?)
            }
            Operand::Scalar(_) => meet(&Operand::Array(self.clone()), other)?,
        };
        Self::pair(operation, &left, &right)
    }

    /// Signed integers and `uint64`, compared without a float between them.
    fn compared_with_uint64(
        &self,
        operation: Binary,
        other: &Self,
    ) -> Result<Option<Self>, ComputeError> {
        let is_signed = |array: &Self| array.number().kind() == crate::array::Kind::Int;
        let is_long = |array: &Self| array.number() == Number::U64;
        let signed = match (self, other) {
            (signed, long) | (long, signed) if is_signed(signed) && is_long(long) => signed,
            _ => return Ok(None),
        };
        let as_long = |array: &Self| array.astype(Number::U64);
        let compared = Self::pair(operation, &as_long(self)?, &as_long(other)?)?;
        // Less than every number without a sign, on whichever side.
        let is_left = std::ptr::eq(signed, self);
        let below_all = match operation {
            Binary::NotEqual => true,
            Binary::Less | Binary::LessEqual => is_left,
            Binary::Greater | Binary::GreaterEqual => !is_left,
            _ => false,
        };
        signed.less(0)?.choose(below_all, compared).map(Some)
    }

    /// A function of two arrays that have met in one type.
    fn pair(operation: Binary, left: &Self, right: &Self) -> Result<Self, ComputeError> {
        let shape = broadcast(operation.name(), left.shape(), right.shape())?;
        let (by, result) = operation.types(left.number())?;
        let operands = vec![left.astype(by)?, right.astype(by)?];
        let kind = Kind::Map { operation: Operation::Binary(operation), operands };
        Self::of_kind(kind, &shape, result)
    }
}

fn truth<'e>(operand: &Operand<'e>) -> Result<Blocked<'e>, ComputeError> {
    match operand {
        Operand::Array(array) => array.astype(Number::Bool),
        Operand::Scalar(scalar) => {
            Blocked::full(&[], *scalar, scalar.number())?.astype(Number::Bool)
        }
    }
}

/// What comparing gives for an integer that the type of the array cannot have.
fn beyond(scalar: Scalar, number: Number, operation: Binary) -> Option<bool> {
    let Scalar::Int(value) = scalar else { return None };
    if scalar.fits(number) {
        return None;
    }
    let is_above = value > 0;
    Some(match operation {
        Binary::NotEqual => true,
        Binary::Less | Binary::LessEqual => is_above,
        Binary::Greater | Binary::GreaterEqual => !is_above,
        _ => false,
    })
}

/// Both as arrays of the type in which they meet.
fn meet<'e>(
    left: &Operand<'e>,
    right: &Operand<'e>,
) -> Result<(Blocked<'e>, Blocked<'e>), ComputeError> {
    let with_scalar = |array: &Blocked<'e>, scalar: Scalar| {
        let number = scalar.meets(array.number());
        if let (Scalar::Int(value), false) = (scalar, scalar.fits(number)) {
            return Err(ComputeError::OutOfBounds { value, number });
        }
        Ok((array.astype(number)?, Blocked::full(&[], scalar, number)?))
    };
    match (left, right) {
        (Operand::Array(left), Operand::Array(right)) => {
            let number = left.number().with(right.number());
            Ok((left.astype(number)?, right.astype(number)?))
        }
        (Operand::Array(array), Operand::Scalar(scalar)) => with_scalar(array, *scalar),
        (Operand::Scalar(scalar), Operand::Array(array)) => {
            with_scalar(array, *scalar).map(|(array, scalar)| (scalar, array))
        }
        (Operand::Scalar(left), Operand::Scalar(right)) => {
            let number = left.number().with(right.number());
            Ok((Blocked::full(&[], *left, number)?, Blocked::full(&[], *right, number)?))
        }
    }
}

/// The shape to which both are stretched.
pub(crate) fn broadcast(
    operation: &'static str,
    left: &[u64],
    right: &[u64],
) -> Result<Vec<u64>, ComputeError> {
    let ndim = left.len().max(right.len());
    let len = |shape: &[u64], axis: usize| {
        (axis + shape.len()).checked_sub(ndim).map_or(1, |axis| shape[axis])
    };
    let both = (0..ndim).map(|axis| match (len(left, axis), len(right, axis)) {
        (left, right) if left == right => Some(left),
        (1, other) | (other, 1) => Some(other),
        _ => None,
    });
    both.collect::<Option<_>>().ok_or_else(|| {
        let (left, right) = (left.to_vec(), right.to_vec());
        ComputeError::Broadcast { operation, left, right }
    })
}
