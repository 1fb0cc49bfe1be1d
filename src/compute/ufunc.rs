//! The elementwise functions: their names, and the types in which they are computed.
//!
//! ```text
//! int8 + float32   ->   both cast to float32 (the loop)   ->   float32 (the result)
//! int64 < uint64   ->   both cast to float64              ->   bool
//! sqrt(int32)      ->   cast to float64                   ->   float64
//! ```
//!
//! # Invariants
//!
//! 1. Loops and results are NumPy's, but that `float32` stands for `float16`: functions of `bool`,
//!    `int8` and `uint8` that NumPy computes in `float16` are computed in `float32`.

use super::number::Number;
use super::trouble::ComputeError;

/// The types of a function: operands are cast to the first, the result has the second.
pub(crate) type Types = (Number, Number);

macro_rules! functions {
    ($(#[$meta:meta])* $enum:ident { $($name:ident = $text:literal : $class:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $enum { $($name),* }

        impl $enum {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// NumPy's name.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            fn class(self) -> Class {
                match self { $(Self::$name => Class::$class),* }
            }
        }
    };
}

/// For which types a function is defined, and what it makes of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Numbers but truth values.
    Signed,
    /// Truth values, too, each in its own type.
    Any,
    /// As `Any`; of complex numbers the result is real.
    Size,
    /// Truth values are `int8`.
    Whole,
    /// As `Whole`, and no complex numbers.
    Divides,
    /// In the own type, no complex numbers.
    Real,
    /// In a float.
    Function,
    /// In a float, no complex numbers.
    RealFunction,
    /// In a float, no complex numbers; `int8` of integers stays.
    Ratio,
    /// Truth values and integers.
    Bits,
    /// Integers; truth values are `int8`.
    Shifts,
    /// Gives truth values.
    Tells,
    /// Gives truth values of truth values.
    Logic,
    /// Gives a real number of a complex one.
    Part,
}

functions! {
    /// A function of one operand.
    Unary {
        Negative = "negative": Signed, Positive = "positive": Signed,
        Absolute = "absolute": Size, Sign = "sign": Signed,
        Conjugate = "conjugate": Whole, Square = "square": Whole,
        Reciprocal = "reciprocal": Whole,
        Exp = "exp": Function, Exp2 = "exp2": RealFunction, Expm1 = "expm1": RealFunction,
        Log = "log": Function, Log2 = "log2": RealFunction, Log10 = "log10": RealFunction,
        Log1p = "log1p": RealFunction, Sqrt = "sqrt": Function, Cbrt = "cbrt": RealFunction,
        Sin = "sin": Function, Cos = "cos": Function, Tan = "tan": Function,
        Arcsin = "arcsin": Function, Arccos = "arccos": Function, Arctan = "arctan": Function,
        Sinh = "sinh": Function, Cosh = "cosh": Function, Tanh = "tanh": Function,
        Arcsinh = "arcsinh": Function, Arccosh = "arccosh": Function,
        Arctanh = "arctanh": Function,
        Degrees = "degrees": RealFunction, Radians = "radians": RealFunction,
        Floor = "floor": Real, Ceil = "ceil": Real, Trunc = "trunc": Real,
        Rint = "rint": Function,
        Invert = "invert": Bits, LogicalNot = "logical_not": Logic,
        IsNan = "isnan": Tells, IsInf = "isinf": Tells, IsFinite = "isfinite": Tells,
        SignBit = "signbit": Tells,
        RealPart = "real": Part, ImagPart = "imag": Part,
    }
}

functions! {
    /// A function of two operands.
    Binary {
        Add = "add": Any, Subtract = "subtract": Signed, Multiply = "multiply": Any,
        Divide = "divide": Ratio, FloorDivide = "floor_divide": Divides,
        Remainder = "remainder": Divides, Power = "power": Whole,
        Maximum = "maximum": Any, Minimum = "minimum": Any, Fmax = "fmax": Any, Fmin = "fmin": Any,
        Arctan2 = "arctan2": RealFunction, Hypot = "hypot": RealFunction,
        CopySign = "copysign": RealFunction, Logaddexp = "logaddexp": RealFunction,
        BitAnd = "bitwise_and": Bits, BitOr = "bitwise_or": Bits, BitXor = "bitwise_xor": Bits,
        LeftShift = "left_shift": Shifts, RightShift = "right_shift": Shifts,
        LogicalAnd = "logical_and": Logic, LogicalOr = "logical_or": Logic,
        LogicalXor = "logical_xor": Logic,
        Equal = "equal": Tells, NotEqual = "not_equal": Tells, Less = "less": Tells,
        LessEqual = "less_equal": Tells, Greater = "greater": Tells,
        GreaterEqual = "greater_equal": Tells,
    }
}

impl Unary {
    /// The types in which it is computed for operands of `number`.
    pub(crate) fn types(self, number: Number) -> Result<Types, ComputeError> {
        if self == Self::SignBit && number.is_complex() {
            return Err(ComputeError::Unsupported { operation: self.name(), number });
        }
        // NumPy asks integers whether they are finite without looking at them.
        let asks_floats = matches!(self, Self::IsNan | Self::IsInf | Self::IsFinite);
        if asks_floats && !number.is_float() && !number.is_complex() {
            return Ok((number, Number::Bool));
        }
        types(self.class(), self.name(), number)
    }
}

impl Binary {
    /// The type in which operands of these types meet, without a number between them.
    pub(crate) fn meeting(self, left: Number, right: Number) -> Number {
        match self.class() {
            Class::RealFunction => left.float().with(right.float()),
            _ => left.with(right),
        }
    }

    /// Whether it is computed in floats, whatever it is given.
    pub(crate) fn is_of_floats(self) -> bool {
        matches!(self.class(), Class::RealFunction | Class::Ratio)
    }

    /// The types in which it is computed for operands that meet in `number`.
    pub(crate) fn types(self, number: Number) -> Result<Types, ComputeError> {
        types(self.class(), self.name(), number)
    }

    /// Whether the result is a truth value of comparing.
    pub(crate) fn compares(self) -> bool {
        self.class() == Class::Tells
    }

    /// Whether operands are taken as truth values.
    pub(crate) fn is_logic(self) -> bool {
        self.class() == Class::Logic
    }
}

fn types(class: Class, operation: &'static str, number: Number) -> Result<Types, ComputeError> {
    let whole = if number.is_bool() { Number::I8 } else { number };
    let (kind_refused, types) = match class {
        Class::Signed => (number.is_bool(), (number, number)),
        Class::Any => (false, (number, number)),
        Class::Size => (false, (number, number.real())),
        Class::Whole => (false, (whole, whole)),
        Class::Divides => (number.is_complex(), (whole, whole)),
        Class::Real => (number.is_complex(), (number, number)),
        Class::Function => (false, (number.float(), number.float())),
        Class::RealFunction => (number.is_complex(), (number.float(), number.float())),
        Class::Ratio => {
            let exact = number.is_integer() || number.is_bool();
            let ratio = if exact { Number::F64 } else { number };
            (false, (ratio, ratio))
        }
        Class::Bits => (!(number.is_bool() || number.is_integer()), (number, number)),
        Class::Shifts => (!(number.is_bool() || number.is_integer()), (whole, whole)),
        Class::Tells => (false, (number, Number::Bool)),
        Class::Logic => (false, (Number::Bool, Number::Bool)),
        Class::Part => (false, (number, number.real())),
    };
    match kind_refused {
        true => Err(ComputeError::Unsupported { operation, number }),
        false => Ok(types),
    }
}
