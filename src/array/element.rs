//! Rust types that stand for NumPy's where Rust has none, and which type opens which array.
//!
//! ```text
//! dtype           opened as
//! |b1             Bool              <f8        f64          in this machine's byte order
//! <M8[ns], <m8    i64               <c16       Complex<f64>
//! |S5, |V5        Bytes<5>          {x, y}     Bytes<itemsize>, or a type of the caller's own
//! ```
//!
//! # Invariants
//!
//! 1. Every bit pattern is a value of these types: an array may hold any bytes. So a [`Bool`] is a
//!    byte, and not `bool`, for which 2 is undefined behaviour.
//!
//! # Failure
//!
//! Opening an array as a type it does not hold is a [`CastError`] that names both.

use super::cast::CastError;
use super::dtype::Dtype;
use std::fmt;
use std::hash::{Hash, Hasher};

pub use super::cast::Element;

/// A truth value as NumPy stores it: one byte, of which any but 0 is true.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bool(u8);

impl Bool {
    /// True.
    pub const TRUE: Self = Self(1);
    /// False.
    pub const FALSE: Self = Self(0);

    /// The truth value.
    #[must_use]
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Self(u8::from(value))
    }
}

impl From<Bool> for bool {
    fn from(value: Bool) -> Self {
        value.get()
    }
}

/// By truth value: a byte of 2 equals a byte of 1.
impl PartialEq for Bool {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Bool {}

impl Hash for Bool {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.get().hash(state);
    }
}

impl fmt::Debug for Bool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// `N` bytes without interpretation: elements of `S<N>`, `V<N>` and of structured types of `N`
/// bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> Bytes<N> {
    /// The bytes without the zeros at the end, as NumPy shows an `S<N>`.
    #[must_use]
    pub fn trimmed(&self) -> &[u8] {
        let len = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        &self.0[..len]
    }
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

/// Shown as text in quotes, other bytes escaped.
impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.trimmed().escape_ascii())
    }
}

/// Checks that an array of `dtype` can be opened as elements of type `T`.
///
/// # Errors
///
/// [`CastError::ByteOrder`] if only the byte order differs, otherwise [`CastError::Type`]; both
/// name the array's type and the wanted one.
pub fn check<T: Element>(dtype: &Dtype) -> Result<(), CastError> {
    if T::matches(dtype) {
        return Ok(());
    }
    let (stored, wanted) = (dtype.clone(), T::dtype());
    if T::matches(&dtype.to_native_order()) {
        return Err(CastError::ByteOrder { stored, wanted });
    }
    Err(CastError::Type { stored, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_complex::Complex;

    fn opens<T: Element>(text: &str) -> bool {
        check::<T>(&Dtype::parse(text).unwrap()).is_ok()
    }

    #[test]
    fn each_type_opens_its_own_arrays_and_no_others() {
        let opened = |text: &str| {
            let all = [
                ("i1", opens::<i8>(text)),
                ("i2", opens::<i16>(text)),
                ("i4", opens::<i32>(text)),
                ("i8", opens::<i64>(text)),
                ("u1", opens::<u8>(text)),
                ("u2", opens::<u16>(text)),
                ("u4", opens::<u32>(text)),
                ("u8", opens::<u64>(text)),
                ("f4", opens::<f32>(text)),
                ("f8", opens::<f64>(text)),
                ("c8", opens::<Complex<f32>>(text)),
                ("c16", opens::<Complex<f64>>(text)),
                ("b1", opens::<Bool>(text)),
                ("S5", opens::<Bytes<5>>(text)),
            ];
            all.into_iter().filter(|(_, opens)| *opens).map(|(name, _)| name).collect::<Vec<_>>()
        };
        let same = "i1 i2 i4 i8 u1 u2 u4 u8 f4 f8 c8 c16 b1 S5";
        same.split(' ').for_each(|text| assert_eq!(opened(text), [text]));
        for (text, by) in [("M8[ns]", "i8"), ("m8", "i8"), ("V5", "S5"), ("i4, i1", "S5")] {
            assert_eq!(opened(text), [by], "{text}");
        }
        for text in ["f2", "f16", "c32", "U1", "S4", "5i1"] {
            assert!(opened(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_foreign_byte_order_is_refused_with_both_names() {
        let foreign = if cfg!(target_endian = "little") { ">f8" } else { "<f8" };
        let refused = check::<f64>(&Dtype::parse(foreign).unwrap()).unwrap_err();
        assert!(matches!(refused, CastError::ByteOrder { .. }));
        let shown = refused.to_string();
        assert!(shown.contains(foreign) && shown.contains("float64"), "{shown}");
        let refused = check::<f64>(&Dtype::parse("i8").unwrap()).unwrap_err();
        assert!(matches!(refused, CastError::Type { .. }));
    }

    #[test]
    fn any_byte_but_zero_is_true() {
        let stored: &[Bool] = crate::array::cast::from_bytes(&[0, 1, 2, 255]).unwrap();
        assert_eq!(stored, [false, true, true, true].map(Bool::from));
    }

    #[test]
    fn text_bytes_are_shown_without_their_padding() {
        assert_eq!(format!("{:?}", Bytes(*b"a\0b\0\0")), "b\"a\\x00b\"");
        assert_eq!(Bytes([0; 3]).trimmed(), b"");
    }
}
