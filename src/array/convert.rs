//! Numbers of one type as numbers of another, as an assignment in NumPy casts them.
//!
//! | from            | to      | gives                                                            |
//! |-----------------|---------|------------------------------------------------------------------|
//! | integer         | integer | the lowest bits: 300 as `uint8` is 44, -1 is 255                 |
//! | any             | float   | the nearest, ties to even; infinity where it is too large        |
//! | float           | integer | without its fraction: 1.7 is 1, -1.7 is -1                       |
//! | complex         | real    | its real part, as above                                          |
//! | any             | bool    | whether it is not zero; NaN is not zero                          |
//! | bool            | any     | 0 or 1                                                           |
//!
//! NumPy leaves a float that an integer cannot hold to the processor. Here it is the nearest
//! integer of the type, and NaN is 0, on every machine.
//!
//! # Invariants
//!
//! 1. Where NumPy's result is the same on all machines, it is ours: `tests/it/numpy_casting.rs`
//!    asks it.
//!
//! # Failure
//!
//! Types that are no numbers of Rust, such as texts, dates, records, `float16` and long doubles,
//! are [`CastError::NotNumbers`].

use super::cast::CastError;
use super::dtype::{ByteOrder, Dtype, Kind};

/// How elements of one type become elements of another.
#[derive(Clone, Copy)]
pub(super) struct Conversion {
    from: Form,
    to: Form,
}

/// A number in bytes.
#[derive(Clone, Copy)]
struct Form {
    kind: Kind,
    size: usize,
    is_big: bool,
}

/// A value that any number fits in without loss.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Complex(f64, f64),
}

impl Conversion {
    /// The conversion of elements of `from` to elements of `to`.
    ///
    /// # Errors
    ///
    /// [`CastError::NotNumbers`].
    pub(super) fn new(from: &Dtype, to: &Dtype) -> Result<Self, CastError> {
        match (Form::of(from), Form::of(to)) {
            (Some(from), Some(to)) => Ok(Self { from, to }),
            _ => Err(CastError::NotNumbers { given: from.clone(), stored: to.clone() }),
        }
    }

    /// Appends the elements in `bytes` to `converted`.
    pub(super) fn run(self, bytes: &[u8], converted: &mut Vec<u8>) {
        for element in bytes.chunks_exact(self.from.size) {
            self.to.write(self.from.read(element), converted);
        }
    }
}

impl Form {
    fn of(dtype: &Dtype) -> Option<Self> {
        let kind = dtype.kind();
        let fits = match (kind, dtype.itemsize()) {
            (Kind::Bool | Kind::Int | Kind::Uint, _) => true,
            (Kind::Float, size) => matches!(size, 4 | 8),
            (Kind::Complex, size) => matches!(size, 8 | 16),
            _ => false,
        };
        let size = usize::try_from(dtype.itemsize()).ok()?;
        let is_big = match dtype.byte_order() {
            ByteOrder::Little => false,
            ByteOrder::Big => true,
            // One byte.
            ByteOrder::None => false,
        };
        fits.then_some(Self { kind, size, is_big })
    }

    fn read(self, element: &[u8]) -> Number {
        match self.kind {
            Kind::Bool => Number::Whole(i128::from(element[0] != 0)),
            Kind::Int => {
                let unused = 128 - 8 * self.size;
                Number::Whole((self.bits(element) << unused).cast_signed() >> unused)
            }
            Kind::Complex => {
                let (re, im) = element.split_at(self.size / 2);
                Number::Complex(self.float(re), self.float(im))
            }
            Kind::Float => Number::Complex(self.float(element), 0.0),
            // Unsigned; other kinds have no form.
            _ => Number::Whole(self.bits(element).cast_signed()),
        }
    }

    fn bits(self, bytes: &[u8]) -> u128 {
        let add = |bits, byte: &u8| bits << 8 | u128::from(*byte);
        match self.is_big {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "four bytes make 32 bits, eight 64")]
    fn float(self, bytes: &[u8]) -> f64 {
        match bytes.len() {
            4 => f64::from(f32::from_bits(self.bits(bytes) as u32)),
            _ => f64::from_bits(self.bits(bytes) as u64),
        }
    }

    fn write(self, number: Number, into: &mut Vec<u8>) {
        match self.kind {
            Kind::Bool => into.push(u8::from(match number {
                Number::Whole(n) => n != 0,
                Number::Complex(re, im) => re != 0.0 || im != 0.0,
            })),
            Kind::Complex => {
                self.write_float(number, self.size / 2, into);
                let im = if let Number::Complex(_, im) = number { im } else { 0.0 };
                self.write_float(Number::Complex(im, 0.0), self.size / 2, into);
            }
            Kind::Float => self.write_float(number, self.size, into),
            _ => {
                let whole = match number {
                    Number::Whole(n) => n,
                    Number::Complex(re, _) => self.nearest(re),
                };
                self.push(whole.cast_unsigned(), self.size, into);
            }
        }
    }

    /// The integer of this form that is nearest to `value` without its fraction.
    fn nearest(self, value: f64) -> i128 {
        let bits = 8 * self.size;
        let (least, most) = match self.kind {
            Kind::Int => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            _ => (0, (1 << bits) - 1),
        };
        #[expect(clippy::cast_possible_truncation, reason = "`as` goes to the nearest; NaN to 0")]
        let whole = value as i128;
        whole.clamp(least, most)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "`as` rounds to the nearest float, which is what is wanted"
    )]
    fn write_float(self, number: Number, size: usize, into: &mut Vec<u8>) {
        // Each in one step: rounded twice, the result may be another.
        let bits = match (number, size) {
            (Number::Whole(n), 4) => u128::from((n as f32).to_bits()),
            (Number::Whole(n), _) => u128::from((n as f64).to_bits()),
            (Number::Complex(re, _), 4) => u128::from((re as f32).to_bits()),
            (Number::Complex(re, _), _) => u128::from(re.to_bits()),
        };
        self.push(bits, size, into);
    }

    /// Appends the lowest `size` bytes.
    fn push(self, bits: u128, size: usize, into: &mut Vec<u8>) {
        let mut bytes = bits.to_le_bytes();
        if self.is_big {
            bytes[..size].reverse();
        }
        into.extend_from_slice(&bytes[..size]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Element;
    use crate::array::cast::{as_bytes, from_bytes};

    fn converted<T: Element, U: Element + Copy>(values: &[T]) -> Vec<U> {
        let mut bytes = Vec::new();
        Conversion::new(&T::dtype(), &U::dtype()).unwrap().run(as_bytes(values), &mut bytes);
        // The bytes lie where they please.
        let size = size_of::<U>();
        bytes.chunks(size).map(|element| aligned(element)).collect()
    }

    fn aligned<U: Element + Copy>(element: &[u8]) -> U {
        let mut room = [0; 32];
        let skip = room.as_ptr().align_offset(align_of::<U>());
        let room = &mut room[skip..skip + element.len()];
        room.copy_from_slice(element);
        from_bytes::<U>(room).unwrap()[0]
    }

    #[test]
    fn a_float_that_an_integer_cannot_hold_is_the_nearest_one_and_nan_is_zero() {
        let values = [1.7, -1.7, 1e300, -1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.9];
        let (least, most) = (i64::MIN, i64::MAX);
        assert_eq!(converted::<f64, i64>(&values), [1, -1, most, least, most, least, 0, 0]);
        assert_eq!(converted::<f64, i8>(&values), [1, -1, 127, -128, 127, -128, 0, 0]);
        let most = u64::MAX;
        assert_eq!(converted::<f64, u64>(&values), [1, 0, most, 0, most, 0, 0, 0]);
        assert_eq!(converted::<f64, u16>(&[65_535.9, 65_536.0, -1.0]), [65_535, 65_535, 0]);
    }

    #[test]
    fn integers_are_rounded_once_on_their_way_to_a_float() {
        // By way of f64 this would be rounded down to 2^60.
        let between = (1_i64 << 60) + (1 << 36) + 1;
        let above = ((1_i64 << 60) + (1 << 37)) as f32;
        assert_eq!(converted::<i64, f32>(&[between]), [above]);
        assert_eq!(converted::<u64, f32>(&[u64::MAX]), [18_446_744_073_709_551_616.0]);
        assert_eq!(converted::<f64, f32>(&[1e300]), [f32::INFINITY]);
    }

    #[test]
    fn types_that_are_no_numbers_are_refused() {
        let float = Dtype::parse("f8").unwrap();
        for text in ["S3", "U2", "V4", "M8[s]", "m8", "f2", "f16", "c32", "i4, i4", "3i4"] {
            let other = Dtype::parse(text).unwrap();
            assert!(Conversion::new(&float, &other).is_err(), "{text}");
            assert!(Conversion::new(&other, &float).is_err(), "{text}");
        }
    }
}
