//! Elements of one type as elements of another, as NumPy's `astype` makes them.
//!
//! The rules are those of `array::convert`: integers keep their lowest bits, floats lose their
//! fraction and become the nearest integer that exists, NaN becomes 0, a complex number loses its
//! imaginary part, anything but 0 is true.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "casting is what this file is for"
)]

use std::borrow::Cow;

use num_complex::Complex;

use super::block::{Data, Numeric, with_elements, with_number};
use super::number::{Number, Scalar};
use crate::array::Bool;

/// A number that becomes any other.
pub(crate) trait Convert<T> {
    /// The value as a `T`.
    fn convert(self) -> T;
}

macro_rules! from_real {
    ($from:ty => $($to:ty),*) => {
        $(impl Convert<$to> for $from {
            #[inline]
            fn convert(self) -> $to {
                self as $to
            }
        })*
        from_any!($from, value => value as f64, value as f32, value != (0 as $from));
    };
}
macro_rules! from_any {
    ($from:ty, $value:ident => $wide:expr, $narrow:expr, $truth:expr) => {
        impl Convert<Complex<f64>> for $from {
            #[inline]
            fn convert(self) -> Complex<f64> {
                let $value = self;
                Complex::new($wide, 0.0)
            }
        }
        impl Convert<Complex<f32>> for $from {
            #[inline]
            fn convert(self) -> Complex<f32> {
                let $value = self;
                Complex::new($narrow, 0.0)
            }
        }
        impl Convert<Bool> for $from {
            #[inline]
            fn convert(self) -> Bool {
                let $value = self;
                Bool::from($truth)
            }
        }
    };
}
macro_rules! all_real {
    ($($from:ty),*) => {
        $(from_real!($from => i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);)*
    };
}
all_real!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

macro_rules! from_bool {
    ($($to:ty),*) => {$(
        impl Convert<$to> for Bool {
            #[inline]
            fn convert(self) -> $to {
                u8::from(self.get()) as $to
            }
        }
    )*};
}
from_bool!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
from_any!(Bool, value => u8::from(value.get()).into(), u8::from(value.get()).into(), value.get());

macro_rules! from_complex {
    ($part:ty => $($to:ty),*) => {
        $(impl Convert<$to> for Complex<$part> {
            #[inline]
            fn convert(self) -> $to {
                self.re as $to
            }
        })*
        impl Convert<Complex<f64>> for Complex<$part> {
            #[inline]
            fn convert(self) -> Complex<f64> {
                Complex::new(self.re as f64, self.im as f64)
            }
        }
        impl Convert<Complex<f32>> for Complex<$part> {
            #[inline]
            fn convert(self) -> Complex<f32> {
                Complex::new(self.re as f32, self.im as f32)
            }
        }
        impl Convert<Bool> for Complex<$part> {
            #[inline]
            fn convert(self) -> Bool {
                Bool::from(self.re != 0.0 || self.im != 0.0)
            }
        }
    };
}
from_complex!(f32 => i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
from_complex!(f64 => i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

/// `data` as elements of `number`; nothing is copied if they are.
pub(crate) fn cast(data: Data<'_>, number: Number) -> Data<'_> {
    if data.number() == number {
        return data;
    }
    with_elements!(&data, elements => with_number!(number, T => {
        Data::owned(converted::<_, T>(elements))
    }))
}

fn converted<S: Copy + Convert<T>, T: Numeric>(elements: &[S]) -> Vec<T> {
    elements.iter().map(|&element| element.convert()).collect()
}

/// `scalar` as one element of `number`. Integers keep their lowest bits.
pub(crate) fn element(scalar: Scalar, number: Number) -> Data<'static> {
    fn one<S: Copy + Convert<T>, T: Numeric>(value: S) -> Data<'static> {
        T::wrap(Cow::Owned(vec![value.convert()]))
    }
    with_number!(number, T => match scalar {
        Scalar::Bool(value) => one::<_, T>(Bool::from(value)),
        Scalar::Int(value) if i64::try_from(value).is_ok() => one::<_, T>(value as i64),
        Scalar::Int(value) => one::<_, T>(value as u64),
        Scalar::Float(value) => one::<_, T>(value),
        Scalar::Complex(value) => one::<_, T>(value),
    })
}
