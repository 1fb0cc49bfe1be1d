//! Elements in memory: dense, in C order, of one type of number.
//!
//! ```text
//! Data    elements, owned or borrowed from mapped memory
//! Block   owned data and a shape: what a task of a blocked array returns
//! ```

use std::borrow::Cow;
use std::io::{self, Write};

use ndarray::{ArrayD, IxDyn};
use num_complex::Complex;

use super::number::{Number, each_number};
use super::trouble::ComputeError;
use super::value::{Spill, TaskError};
use crate::array::cast::{as_bytes, from_bytes};
use crate::array::{Bool, Element};
use crate::txn::MappedScratch;

/// A Rust type that is a [`Number`].
pub trait Numeric: Element + Default + PartialEq + std::fmt::Debug {
    /// Which.
    const NUMBER: Number;

    #[doc(hidden)]
    fn wrap(elements: Cow<'_, [Self]>) -> Data<'_>;

    #[doc(hidden)]
    fn unwrap<'d>(data: &'d Data<'_>) -> Option<&'d [Self]>;

    #[doc(hidden)]
    fn unwrap_mut<'d>(data: &'d mut Data<'static>) -> Option<&'d mut [Self]>;

    #[doc(hidden)]
    fn take(data: Data<'_>) -> Option<Cow<'_, [Self]>>;

    /// This element in the other byte order.
    #[doc(hidden)]
    #[must_use]
    fn swapped(self) -> Self;
}

macro_rules! define_data {
    ($($name:ident => $element:ty),*) => {
        /// Elements of one type.
        #[doc(hidden)]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Data<'a> {
            $(#[doc = "Elements."] $name(Cow<'a, [$element]>)),*
        }

        $(impl Numeric for $element {
            const NUMBER: Number = Number::$name;

            fn wrap(elements: Cow<'_, [Self]>) -> Data<'_> {
                Data::$name(elements)
            }

            fn unwrap<'d>(data: &'d Data<'_>) -> Option<&'d [Self]> {
                match data {
                    Data::$name(elements) => Some(elements),
                    _ => None,
                }
            }

            fn unwrap_mut<'d>(data: &'d mut Data<'static>) -> Option<&'d mut [Self]> {
                match data {
                    Data::$name(elements) => Some(elements.to_mut()),
                    _ => None,
                }
            }

            fn take(data: Data<'_>) -> Option<Cow<'_, [Self]>> {
                match data {
                    Data::$name(elements) => Some(elements),
                    _ => None,
                }
            }

            fn swapped(self) -> Self {
                Swap::swap(self)
            }
        })*
    };
}
each_number!(define_data);

/// Calls `$body` with the elements of `$data` as `$elements`, whichever type they have.
macro_rules! with_elements {
    ($data:expr, $elements:ident => $body:expr) => {{
        use $crate::compute::block::Data;
        match $data {
            Data::Bool($elements) => $body,
            Data::I8($elements) => $body,
            Data::I16($elements) => $body,
            Data::I32($elements) => $body,
            Data::I64($elements) => $body,
            Data::U8($elements) => $body,
            Data::U16($elements) => $body,
            Data::U32($elements) => $body,
            Data::U64($elements) => $body,
            Data::F32($elements) => $body,
            Data::F64($elements) => $body,
            Data::C64($elements) => $body,
            Data::C128($elements) => $body,
        }
    }};
}
pub(crate) use with_elements;

/// Calls `$body` with `$type` as the Rust type of `$number`.
macro_rules! with_number {
    ($number:expr, $type:ident => $body:expr) => {{
        use $crate::compute::number::Number;
        match $number {
            Number::Bool => {
                type $type = $crate::array::Bool;
                $body
            }
            Number::I8 => {
                type $type = i8;
                $body
            }
            Number::I16 => {
                type $type = i16;
                $body
            }
            Number::I32 => {
                type $type = i32;
                $body
            }
            Number::I64 => {
                type $type = i64;
                $body
            }
            Number::U8 => {
                type $type = u8;
                $body
            }
            Number::U16 => {
                type $type = u16;
                $body
            }
            Number::U32 => {
                type $type = u32;
                $body
            }
            Number::U64 => {
                type $type = u64;
                $body
            }
            Number::F32 => {
                type $type = f32;
                $body
            }
            Number::F64 => {
                type $type = f64;
                $body
            }
            Number::C64 => {
                type $type = num_complex::Complex<f32>;
                $body
            }
            Number::C128 => {
                type $type = num_complex::Complex<f64>;
                $body
            }
        }
    }};
}
pub(crate) use with_number;

/// Another byte order.
trait Swap {
    fn swap(self) -> Self;
}

macro_rules! swap_integers {
    ($($int:ty),*) => {$(
        impl Swap for $int {
            fn swap(self) -> Self {
                self.swap_bytes()
            }
        }
    )*};
}
swap_integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Swap for Bool {
    fn swap(self) -> Self {
        self
    }
}

impl Swap for f32 {
    fn swap(self) -> Self {
        Self::from_bits(self.to_bits().swap_bytes())
    }
}

impl Swap for f64 {
    fn swap(self) -> Self {
        Self::from_bits(self.to_bits().swap_bytes())
    }
}

impl<T: Swap> Swap for Complex<T> {
    fn swap(self) -> Self {
        Self::new(self.re.swap(), self.im.swap())
    }
}

impl<'a> Data<'a> {
    pub(crate) fn number(&self) -> Number {
        fn of<T: Numeric>(_: &[T]) -> Number {
            T::NUMBER
        }
        with_elements!(self, elements => of(elements))
    }

    pub(crate) fn len(&self) -> usize {
        with_elements!(self, elements => elements.len())
    }

    /// As many elements as `count`, all zero.
    pub(crate) fn zeros(number: Number, count: usize) -> Data<'static> {
        with_number!(number, T => Data::owned(vec![T::default(); count]))
    }

    pub(crate) fn owned<T: Numeric>(elements: Vec<T>) -> Data<'static> {
        T::wrap(Cow::Owned(elements))
    }

    pub(crate) fn into_owned(self) -> Data<'static> {
        with_elements!(self, elements => Data::owned(elements.into_owned()))
    }

    /// The same elements, borrowed.
    pub(crate) fn borrowed(&self) -> Data<'_> {
        with_elements!(self, elements => Numeric::wrap(Cow::Borrowed(&elements[..])))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        with_elements!(self, elements => as_bytes(&elements[..]))
    }

    /// `bytes` as elements of `number`; `None` if they are not aligned.
    pub(crate) fn of_bytes(number: Number, bytes: &'a [u8]) -> Option<Self> {
        with_number!(number, T => from_bytes::<T>(bytes).map(|at| T::wrap(Cow::Borrowed(at))))
    }

    pub(crate) fn elements<T: Numeric>(&self) -> Result<&[T], ComputeError> {
        T::unwrap(self).ok_or(ComputeError::Type { given: self.number(), wanted: T::NUMBER })
    }

    pub(crate) fn into_elements<T: Numeric>(self) -> Result<Cow<'a, [T]>, ComputeError> {
        let given = self.number();
        T::take(self).ok_or(ComputeError::Type { given, wanted: T::NUMBER })
    }
}

/// A dense array of numbers in C order, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    shape: Vec<usize>,
    // Invariant: as many elements as the shape says.
    data: Data<'static>,
}

/// In 8 bytes each: which number, how many axes, the shape; then the elements.
impl Spill for Block {
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        let number = Number::ALL.iter().position(|&number| number == self.number());
        let words = number.into_iter().chain([self.shape.len()]).chain(self.shape.iter().copied());
        for word in words {
            to.write_all(&(word as u64).to_le_bytes())?;
        }
        to.write_all(self.data.bytes())
    }

    fn restore(bytes: MappedScratch) -> Result<Self, TaskError> {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |at: usize| {
            let word = words.get(at).map(|word| u64::from_le_bytes(*word));
            word.and_then(|word| usize::try_from(word).ok()).ok_or("a spilled block is cut")
        };
        let (number, axes) = (word(0)?, word(1)?);
        let number = *Number::ALL.get(number).ok_or("a spilled block is of no type")?;
        let shape = (0..axes).map(|axis| word(2 + axis)).collect::<Result<Vec<_>, _>>()?;
        let elements = bytes.get(8 * (2 + axes)..).ok_or("a spilled block is cut")?;
        let data = Data::of_bytes(number, elements).ok_or("a spilled block is cut")?;
        Ok(Self::new(&shape, data.into_owned())?)
    }
}

impl Block {
    /// A block of `shape`.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Elements`] if there are not as many elements as the shape says.
    pub(crate) fn new(shape: &[usize], data: Data<'static>) -> Result<Self, ComputeError> {
        let wanted = count(shape);
        if wanted != data.len() {
            let shape = shape.iter().map(|&len| len as u64).collect();
            return Err(ComputeError::Elements { shape, given: data.len() as u64 });
        }
        Ok(Self { shape: shape.to_vec(), data })
    }

    /// The elements of an array.
    ///
    /// # Errors
    ///
    /// None for arrays that `ndarray` makes; see [`Block::elements`] for others.
    pub fn from_array<T: Numeric>(array: ArrayD<T>) -> Result<Self, ComputeError> {
        let shape = array.shape().to_vec();
        let elements = match array.is_standard_layout() {
            true => array.into_raw_vec_and_offset(),
            false => (array.iter().copied().collect(), None),
        };
        let (mut elements, offset) = elements;
        let skipped = offset.unwrap_or(0);
        if skipped > 0 || elements.len() != count(&shape) {
            elements = elements[skipped..skipped + count(&shape)].to_vec();
        }
        Self::new(&shape, Data::owned(elements))
    }

    /// Length along each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the elements.
    #[must_use]
    pub fn number(&self) -> Number {
        self.data.number()
    }

    /// Bytes of all elements.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.data.bytes().len() as u64
    }

    /// The elements in C order.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Type`] if they are of another type.
    pub fn elements<T: Numeric>(&self) -> Result<&[T], ComputeError> {
        self.data.elements()
    }

    pub(crate) fn data(&self) -> &Data<'static> {
        &self.data
    }

    pub(crate) fn into_data(self) -> Data<'static> {
        self.data
    }

    /// The block as an array.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Type`] if the elements are of another type.
    pub fn into_array<T: Numeric>(self) -> Result<ArrayD<T>, ComputeError> {
        let elements = self.data.into_elements::<T>()?.into_owned();
        let given = elements.len() as u64;
        let shape = self.shape.iter().map(|&len| len as u64).collect();
        ArrayD::from_shape_vec(IxDyn(&self.shape), elements)
            .map_err(|_| ComputeError::Elements { shape, given })
    }
}

/// Elements of a shape, which fit memory.
pub(crate) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Zeros of shape `lens`, if memory has so many.
pub(crate) fn try_zeros(number: Number, lens: &[usize]) -> Option<Data<'static>> {
    let count = lens.iter().try_fold(1_usize, |count, &len| count.checked_mul(len))?;
    with_number!(number, T => {
        let mut elements = Vec::<T>::new();
        elements.try_reserve_exact(count).ok()?;
        elements.resize(count, T::default());
        Some(Data::owned(elements))
    })
}
