//! Bytes as elements: the only unsafe code of the array layer.
//!
//! ```text
//! memory  base            lo                                hi
//!         |...............|e2 e1 e0 <- offset, stride < 0   |....
//!                          ^ ndarray gets this address and positive strides, then the axes
//!                            that walk backwards are inverted
//! ```
//!
//! # Invariants
//!
//! 1. An [`Element`] is valid for every bit pattern, has no padding and no interior mutability;
//!    its size is that of its [`Dtype`] and not 0.
//! 2. A view is made only of aligned memory and of strides that are whole elements.
//! 3. The elements of a [`Selection`] lie in its `byte_range` and do not overlap (its own
//!    invariant 1), so a mutable view never holds one element twice.
//!
//! # Failure
//!
//! [`CastError`] before any pointer is made. What memory a view may be made of is the caller's
//! promise, written at each function.

use super::dtype::{Dtype, Kind};
use super::element::{Bool, Bytes};
use super::index::Selection;
use ndarray::{
    ArrayD, ArrayView, ArrayViewMut, Axis, Dimension, IxDyn, MathCell, RawArrayView,
    RawArrayViewMut, RemoveAxis, ShapeBuilder, StrideShape,
};
use num_complex::Complex;
use std::ptr::NonNull;
use std::slice;

/// A Rust type that arrays can be opened as.
///
/// # Safety
///
/// Invariant 1 must hold: every initialised sequence of `size_of::<Self>()` bytes is a valid value
/// (so no `bool`, `char`, reference, or enum), no byte of a value is padding, nothing inside can
/// change through a shared reference, and `size_of::<Self>()` equals `dtype().itemsize()`, as well
/// as the itemsize of every type that `matches` accepts.
pub unsafe trait Element: Copy + Send + Sync + 'static {
    /// The data type of new arrays of this element.
    fn dtype() -> Dtype;

    /// Whether an array of `dtype` can be opened as this element.
    #[must_use]
    fn matches(dtype: &Dtype) -> bool {
        *dtype == Self::dtype()
    }
}

/// Why memory cannot be seen as elements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// Another type.
    #[error("an array of {stored} cannot be opened as {wanted}")]
    Type {
        /// Type of the array.
        stored: Dtype,
        /// Type asked for.
        wanted: Dtype,
    },
    /// The right type in the other byte order.
    #[error(
        "an array of {stored} is not in this machine's byte order and cannot be opened as \
         {wanted}; convert it first"
    )]
    ByteOrder {
        /// Type of the array.
        stored: Dtype,
        /// Type asked for.
        wanted: Dtype,
    },
    /// A type of which no numbers can be made, or into which none go.
    #[error(
        "{given} cannot be cast to {stored}: only truth values, integers, floats and complex \
             numbers that Rust has can"
    )]
    NotNumbers {
        /// Type of what is given.
        given: Dtype,
        /// Type of the array.
        stored: Dtype,
    },
    /// Elements of another size.
    #[error("elements of {stored} bytes cannot be seen as elements of {wanted} bytes")]
    Size {
        /// Bytes per element selected.
        stored: u64,
        /// Bytes per element asked for.
        wanted: usize,
    },
    /// Elements that do not start where the processor wants them.
    #[error("the elements do not lie at multiples of {alignment} bytes; copy them first")]
    Misaligned {
        /// The alignment of the type asked for.
        alignment: usize,
    },
    /// Elements whose distance is not a number of elements, as a field of a structured type.
    #[error("the stride of {stride} bytes is not a multiple of the {itemsize} bytes of an element")]
    Stride {
        /// The distance.
        stride: i128,
        /// Bytes per element.
        itemsize: usize,
    },
    /// More than the address space.
    #[error("a view of shape {shape:?} exceeds the address space; take a slice")]
    TooLarge {
        /// Shape of the view.
        shape: Vec<u64>,
    },
}

/// The data type of a scalar element of a size that exists.
macro_rules! scalar_elements {
    ($($element:ty => $kind:ident),* $(,)?) => {$(
        // SAFETY: plain numbers (or, for complex, two of them in C layout; for `Bool`, one byte):
        // every bit pattern is valid, nothing is padded, and the size is the one given below.
        unsafe impl Element for $element {
            fn dtype() -> Dtype {
                scalar(Kind::$kind, size_of::<$element>())
            }
        }
    )*};
}
scalar_elements! {
    i8 => Int, i16 => Int, i32 => Int,
    u8 => Uint, u16 => Uint, u32 => Uint, u64 => Uint,
    f32 => Float, f64 => Float,
    Complex<f32> => Complex, Complex<f64> => Complex,
    Bool => Bool,
}

// SAFETY: a plain number of 8 bytes; dates and durations have 8 bytes too.
unsafe impl Element for i64 {
    fn dtype() -> Dtype {
        scalar(Kind::Int, size_of::<Self>())
    }

    /// Counts of a time unit are numbers too.
    fn matches(dtype: &Dtype) -> bool {
        matches!(dtype.kind(), Kind::Int | Kind::Datetime | Kind::Timedelta)
            && dtype.itemsize() == 8
            && dtype.is_native_order()
    }
}

// SAFETY: bytes; `matches` compares the size.
unsafe impl<const N: usize> Element for Bytes<N> {
    fn dtype() -> Dtype {
        const { assert!(0 < N && N < 1 << 31, "an element has 1 to 2^31 - 1 bytes") };
        scalar(Kind::Void, N)
    }

    /// `S`, `V` and structured types of this size, whatever is inside.
    fn matches(dtype: &Dtype) -> bool {
        matches!(dtype.kind(), Kind::Bytes | Kind::Void | Kind::Struct)
            && dtype.itemsize() == N as u64
    }
}

/// # Panics
///
/// If the kind does not come in this size, which the implementations above exclude.
fn scalar(kind: Kind, itemsize: usize) -> Dtype {
    match Dtype::scalar(kind, itemsize as u64) {
        Ok(dtype) => dtype,
        Err(why) => panic!("{why}"),
    }
}

/// The bytes of `elements`; nothing is copied.
#[must_use]
pub fn as_bytes<T: Element>(elements: &[T]) -> &[u8] {
    let len = size_of_val(elements);
    // SAFETY: the slice has `len` bytes, all initialised because an element has no padding
    // (invariant 1); bytes need no alignment, and the result borrows from `elements`.
    unsafe { slice::from_raw_parts(elements.as_ptr().cast(), len) }
}

/// The bytes of `elements`, to fill them; nothing is copied.
#[must_use]
pub fn as_bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    let len = size_of_val(elements);
    // SAFETY: as in `as_bytes`; and whatever is written is a valid element (invariant 1).
    unsafe { slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), len) }
}

/// `bytes` as elements, without copying; `None` if they are not aligned or not whole elements.
#[must_use]
pub fn from_bytes<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    let (at, count) = (bytes.as_ptr().cast::<T>(), count_of::<T>(bytes)?);
    // SAFETY: `count_of` checked alignment and size, every bit pattern is a `T` (invariant 1), and
    // the result borrows from `bytes`.
    Some(unsafe { slice::from_raw_parts(at, count) })
}

/// `bytes` as elements to change, without copying; `None` if they are not aligned or not whole
/// elements.
#[must_use]
pub fn from_bytes_mut<T: Element>(bytes: &mut [u8]) -> Option<&mut [T]> {
    let (at, count) = (bytes.as_mut_ptr().cast::<T>(), count_of::<T>(bytes)?);
    // SAFETY: as in `from_bytes`; an element has no padding, so what is written through the result
    // leaves every byte initialised.
    Some(unsafe { slice::from_raw_parts_mut(at, count) })
}

/// As many elements as `shape` says, in C order, all of whose bytes are 0.
///
/// # Errors
///
/// [`CastError::TooLarge`] if there is not so much memory.
pub fn zeroed<T: Element>(shape: &[u64]) -> Result<ArrayD<T>, CastError> {
    let too_large = || CastError::TooLarge { shape: shape.to_vec() };
    let lens = shape.iter().map(|&len| usize::try_from(len).ok());
    let lens: Vec<usize> = lens.collect::<Option<_>>().ok_or_else(too_large)?;
    let count = lens.iter().try_fold(1usize, |count, &len| count.checked_mul(len));
    let count = count.ok_or_else(too_large)?;
    let mut elements = Vec::new();
    elements.try_reserve_exact(count).map_err(|_| too_large())?;
    // SAFETY: every bit pattern is a value (invariant 1), so all zeros is one.
    elements.resize(count, unsafe { std::mem::zeroed::<T>() });
    ArrayD::from_shape_vec(lens, elements).map_err(|_| too_large())
}

/// How many elements `bytes` are, if aligned and whole.
fn count_of<T: Element>(bytes: &[u8]) -> Option<usize> {
    let whole = bytes.len().is_multiple_of(size_of::<T>());
    (whole && bytes.as_ptr().cast::<T>().is_aligned()).then(|| bytes.len() / size_of::<T>())
}

/// The selected elements of the array that starts at `base`, to read. `owner` only lends its
/// lifetime. Cost O(axes); nothing is read.
///
/// # Errors
///
/// [`CastError::Size`], [`CastError::Misaligned`], [`CastError::Stride`], [`CastError::TooLarge`].
///
/// # Safety
///
/// As long as `owner` is borrowed, the bytes `base + lo .. base + hi` of the selection's
/// `byte_range` (none if it is empty) must be readable, initialised memory of one allocation or
/// mapping that `base` may point into, and nobody may change them.
pub unsafe fn view_from_raw<'a, T: Element, O: ?Sized>(
    owner: &'a O,
    base: NonNull<u8>,
    selection: &Selection,
) -> Result<ArrayView<'a, T, IxDyn>, CastError> {
    let _ = owner;
    let parts = parts::<T>(base, selection)?;
    // SAFETY: `parts` checked what ndarray asks of shape, strides and alignment; every address it
    // can reach lies in the selection's byte range, valid by this function's contract.
    let mut view = unsafe { RawArrayView::from_shape_ptr(parts.shape, parts.lowest.cast_const()) };
    parts.backwards.into_iter().for_each(|axis| view.invert_axis(axis));
    // SAFETY: aligned and valid as above, and unchanged while `owner`, hence `'a`, lasts.
    Ok(unsafe { view.deref_into_view() })
}

/// The selected elements of the array that starts at `base`, to read and write. `owner` only lends
/// its lifetime. Cost O(axes); nothing is read.
///
/// # Errors
///
/// Those of [`view_from_raw`].
///
/// # Safety
///
/// As long as `owner` is borrowed, the bytes `base + lo .. base + hi` of the selection's
/// `byte_range` (none if it is empty) must be readable, writable, initialised memory of one
/// allocation or mapping that `base` may point into, and nobody may read or change the selected
/// elements other than through the result.
pub unsafe fn view_mut_from_raw<'a, T: Element, O: ?Sized>(
    owner: &'a mut O,
    base: NonNull<u8>,
    selection: &Selection,
) -> Result<ArrayViewMut<'a, T, IxDyn>, CastError> {
    let _ = owner;
    let parts = parts::<T>(base, selection)?;
    // SAFETY: as in `view_from_raw`.
    let mut view = unsafe { RawArrayViewMut::from_shape_ptr(parts.shape, parts.lowest) };
    parts.backwards.into_iter().for_each(|axis| view.invert_axis(axis));
    // SAFETY: aligned and valid as above, no element occurs twice (invariant 3), and nobody else
    // uses them while `owner`, hence `'a`, is borrowed, by this function's contract.
    Ok(unsafe { view.deref_into_view_mut() })
}

/// The selected elements of the array that starts at `base` as cells: several such views of one
/// array may live at once in one thread, and a write through one is seen through all. `owner` only
/// lends its lifetime. Cost O(axes); nothing is read.
///
/// # Errors
///
/// Those of [`view_from_raw`].
///
/// # Safety
///
/// As long as `owner` is borrowed, the bytes `base + lo .. base + hi` of the selection's
/// `byte_range` (none if it is empty) must be readable, writable, initialised memory of one
/// allocation or mapping that `base` may point into; no other thread may use the selected elements
/// and no reference to them other than to cells may live.
pub unsafe fn cells_from_raw<'a, T: Element, O: ?Sized>(
    owner: &'a O,
    base: NonNull<u8>,
    selection: &Selection,
) -> Result<ArrayView<'a, MathCell<T>, IxDyn>, CastError> {
    let _ = owner;
    let parts = parts::<T>(base, selection)?;
    let lowest = parts.lowest.cast::<MathCell<T>>();
    // SAFETY: as in `view_from_raw`; a `MathCell<T>` has the layout of a `T`, and the memory may be
    // written, which a cell needs.
    let mut view = unsafe { RawArrayView::from_shape_ptr(parts.shape, lowest.cast_const()) };
    parts.backwards.into_iter().for_each(|axis| view.invert_axis(axis));
    // SAFETY: aligned and valid as above; shared use from one thread is what cells are for.
    Ok(unsafe { view.deref_into_view() })
}

/// The elements along the minor axis of `view` as one element of `S` each: a view with one axis
/// less onto the same memory. The minor axis is the one whose neighbours lie nearest to each other,
/// the last of several. An array of shape `[n, 3]` and type `f32` becomes `n` elements of 12 bytes.
/// Cost O(axes); nothing is read or copied.
///
/// # Errors
///
/// [`CastError::Size`] if the elements along the minor axis are not as long as one `S`;
/// [`CastError::Stride`] if they run backwards or are not neighbours, or if those of another axis
/// are not whole elements of `S` apart; [`CastError::Misaligned`].
pub fn structured<'a, T: Element, S: Element, D: RemoveAxis>(
    view: &ArrayView<'a, T, D>,
) -> Result<ArrayView<'a, S, D::Smaller>, CastError> {
    let minor = minor_axis::<T, S>(view.shape(), view.strides())?;
    let first = view.clone().index_axis_move(minor, 0);
    let parts = wider::<T, S, _>(first.as_ptr().cast_mut(), first.raw_dim(), first.strides())?;
    // SAFETY: `wider` checked strides and alignment; each `S` is made of the neighbours along the
    // minor axis of one element of `first`, all of them elements of `view`.
    let mut view = unsafe { RawArrayView::from_shape_ptr(parts.shape, parts.lowest.cast_const()) };
    parts.backwards.into_iter().for_each(|axis| view.invert_axis(axis));
    // SAFETY: as above; `view` lends its elements, unchanged, for `'a`.
    Ok(unsafe { view.deref_into_view() })
}

/// [`structured`] to write: what is written into the result is written into `view`.
///
/// # Errors
///
/// Those of [`structured`].
pub fn structured_mut<'a, T: Element, S: Element, D: RemoveAxis>(
    mut view: ArrayViewMut<'a, T, D>,
) -> Result<ArrayViewMut<'a, S, D::Smaller>, CastError> {
    let minor = minor_axis::<T, S>(view.shape(), view.strides())?;
    let mut first = view.raw_view_mut().index_axis_move(minor, 0);
    let (dim, strides) = (first.raw_dim(), first.strides().to_vec());
    let parts = wider::<T, S, _>(first.as_mut_ptr(), dim, &strides)?;
    // SAFETY: as in `structured`.
    let mut view = unsafe { RawArrayViewMut::from_shape_ptr(parts.shape, parts.lowest) };
    parts.backwards.into_iter().for_each(|axis| view.invert_axis(axis));
    // SAFETY: the view that was given up lent its elements exclusively for `'a`; no two of them
    // are the same, so no two of the results overlap.
    Ok(unsafe { view.deref_into_view_mut() })
}

/// The axis along which elements of `T` are to make up one `S`.
fn minor_axis<T: Element, S: Element>(
    lens: &[usize],
    strides: &[isize],
) -> Result<Axis, CastError> {
    let (itemsize, wanted) = (size_of::<T>(), size_of::<S>());
    // The stride of an axis without elements means nothing.
    let axes = (0..lens.len()).rev().filter(|&axis| lens[axis] > 0);
    let nearest = axes.min_by_key(|&axis| strides[axis].unsigned_abs());
    let stored = nearest.map_or(0, |axis| lens[axis] * itemsize);
    match nearest {
        Some(axis) if lens[axis] > 1 && strides[axis] != 1 => {
            let stride = strides[axis] as i128 * itemsize as i128;
            Err(CastError::Stride { stride, itemsize })
        }
        Some(axis) if stored == wanted => Ok(Axis(axis)),
        _ => Err(CastError::Size { stored: stored as u64, wanted }),
    }
}

/// Elements of `S` where those of `T` are, of which each is the first part.
fn wider<T: Element, S: Element, D: Dimension>(
    first: *mut T,
    lens: D,
    strides: &[isize],
) -> Result<Parts<S, D>, CastError> {
    let itemsize = size_of::<S>();
    let ratio = itemsize.cast_signed() / size_of::<T>().cast_signed();
    let (mut lowest, mut backwards) = (first.cast::<S>(), Vec::new());
    let mut wide = D::zeros(lens.ndim());
    if lens.size() == 0 {
        let lowest = NonNull::dangling().as_ptr();
        return Ok(Parts { lowest, shape: lens.strides(wide), backwards });
    }
    for (axis, &stride) in strides.iter().enumerate().filter(|&(axis, _)| lens[axis] > 1) {
        if stride % ratio != 0 {
            let stride = stride as i128 * size_of::<T>() as i128;
            return Err(CastError::Stride { stride, itemsize });
        }
        wide[axis] = (stride / ratio).unsigned_abs();
        if stride < 0 {
            lowest = lowest.wrapping_sub(wide[axis] * (lens[axis] - 1));
            backwards.push(Axis(axis));
        }
    }
    if !lowest.is_aligned() {
        return Err(CastError::Misaligned { alignment: align_of::<S>() });
    }
    Ok(Parts { lowest, shape: lens.strides(wide), backwards })
}

/// What ndarray needs to know of a view.
struct Parts<T, D = IxDyn> {
    /// Address of the lowest element, aligned; dangling if there is none.
    lowest: *mut T,
    /// Lengths and absolute strides in elements, which fit the address space.
    shape: StrideShape<D>,
    /// Axes to invert.
    backwards: Vec<Axis>,
}

fn parts<T: Element>(base: NonNull<u8>, selection: &Selection) -> Result<Parts<T>, CastError> {
    let (itemsize, alignment) = (size_of::<T>(), align_of::<T>());
    let too_large = || CastError::TooLarge { shape: selection.shape().to_vec() };
    if selection.itemsize() != itemsize as u64 {
        return Err(CastError::Size { stored: selection.itemsize(), wanted: itemsize });
    }
    // ndarray's own limits: the product of the lengths that are not 0, and the span in bytes.
    let lens = selection.shape().iter().map(|&len| usize::try_from(len).ok());
    let lens: Vec<usize> = lens.collect::<Option<_>>().ok_or_else(too_large)?;
    let limit = isize::MAX.unsigned_abs();
    let full = lens.iter().try_fold(1usize, |size, &len| size.checked_mul(len.max(1)));
    full.filter(|&size| size <= limit / itemsize).ok_or_else(too_large)?;
    // Those of a dense array, for a view without elements: ndarray wants strides that do not
    // overlap even there.
    let mut strides = vec![1; lens.len()];
    for axis in (1..lens.len()).rev() {
        strides[axis - 1] = strides[axis] * lens[axis].max(1);
    }
    let mut backwards = Vec::new();
    let mut lowest = NonNull::<T>::dangling().as_ptr();
    if let Some((lo, hi)) = selection.byte_range() {
        let (lo, hi) =
            usize::try_from(lo).ok().zip(usize::try_from(hi).ok()).ok_or_else(too_large)?;
        if hi > limit {
            return Err(too_large());
        }
        lowest = base.as_ptr().wrapping_add(lo).cast();
        if !lowest.is_aligned() {
            return Err(CastError::Misaligned { alignment });
        }
        for (axis, &stride) in selection.strides().iter().enumerate() {
            // The stride of an axis of length 1 is never used.
            strides[axis] = 0;
            if lens[axis] > 1 {
                let elements = stride.unsigned_abs() / itemsize as u128;
                if elements * itemsize as u128 != stride.unsigned_abs() {
                    return Err(CastError::Stride { stride, itemsize });
                }
                strides[axis] = usize::try_from(elements).map_err(|_| too_large())?;
                backwards.extend((stride < 0).then_some(Axis(axis)));
            }
        }
    }
    Ok(Parts { lowest, shape: IxDyn(&lens).strides(IxDyn(&strides)), backwards })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::index::{Index, parse, resolve};
    use crate::array::layout::runs;
    use crate::array::shape::Order;
    use proptest::prelude::*;

    fn select(text: &str, shape: &[u64], itemsize: u64, order: Order) -> Selection {
        resolve(&parse(text).unwrap(), shape, itemsize, order).unwrap()
    }

    fn base(memory: &mut [u8]) -> NonNull<u8> {
        NonNull::from(memory).cast()
    }

    /// A view of owned memory: what `view_from_raw` asks for, proven by the borrow.
    fn view<'a, T: Element>(
        memory: &'a mut [u32],
        selection: &Selection,
    ) -> Result<ArrayView<'a, T, IxDyn>, CastError> {
        let bytes = as_bytes_mut(memory);
        assert!(selection.byte_range().is_none_or(|(_, hi)| hi <= bytes.len() as u64));
        let base = base(bytes);
        // SAFETY: the range lies in `bytes` by the assertion above, which the result borrows.
        unsafe { view_from_raw(&(), base, selection) }
    }

    #[test]
    fn elements_and_their_bytes_are_the_same_memory() {
        let mut numbers = [1.0f64, 2.0, 3.0];
        as_bytes_mut(&mut numbers)[8..16].fill(0);
        assert_eq!(numbers, [1.0, 0.0, 3.0]);
        let bytes = as_bytes(&numbers);
        assert_eq!(from_bytes::<f64>(bytes), Some(&numbers[..]));
        assert_eq!(from_bytes::<f64>(&bytes[1..9]), None, "not aligned");
        assert_eq!(from_bytes::<f64>(&bytes[..9]), None, "not whole");
        let mut bytes = [0u8; 4];
        from_bytes_mut::<Bytes<2>>(&mut bytes).unwrap()[1] = Bytes(*b"xy");
        assert_eq!(&bytes, b"\0\0xy");
    }

    #[test]
    fn a_view_without_elements_needs_no_memory() {
        let empty = select("5:5, ::-1", &[9, 1 << 40], 4, Order::C);
        // SAFETY: an empty selection has no bytes.
        let view = unsafe { view_from_raw::<u32, _>(&(), NonNull::dangling(), &empty) }.unwrap();
        assert_eq!(view.shape(), [0, 1 << 40]);
        assert_eq!(view.iter().count(), 0);
        let (empty, mut owner) = (select("1, :0", &[3, 3, 3], 4, Order::C), ());
        // SAFETY: as above.
        let view = unsafe { view_mut_from_raw::<u32, _>(&mut owner, NonNull::dangling(), &empty) };
        assert_eq!(view.unwrap().shape(), [0, 3]);
    }

    #[test]
    fn an_array_without_axes_is_a_view_of_one_element() {
        let mut memory = [7u32];
        let got = view::<u32>(&mut memory, &select("()", &[], 4, Order::C)).unwrap();
        assert_eq!((got.ndim(), got.iter().copied().collect::<Vec<_>>()), (0, vec![7]));
    }

    #[test]
    fn wrong_sizes_misaligned_and_too_large_views_are_refused() {
        let mut memory = [0u32; 4];
        let whole = select("...", &[2], 4, Order::C);
        let refused = view::<u64>(&mut memory, &whole).unwrap_err();
        assert_eq!(refused, CastError::Size { stored: 4, wanted: 8 });
        let base = base(as_bytes_mut(&mut memory));
        let odd = base.map_addr(|at| at.saturating_add(1));
        // SAFETY: bytes 1 to 9 of the 16 of `memory`, which is borrowed.
        let refused = unsafe { view_from_raw::<u32, _>(&(), odd, &whole) }.unwrap_err();
        assert_eq!(refused, CastError::Misaligned { alignment: 4 });
        let huge = select("...", &[1 << 61], 4, Order::C);
        // SAFETY: refused before anything is read, which this test is about.
        let refused = unsafe { view_from_raw::<u32, _>(&(), base, &huge) }.unwrap_err();
        assert!(matches!(refused, CastError::TooLarge { .. }));
    }

    #[test]
    fn cells_of_one_array_see_each_other_s_writes() {
        let mut memory = [0u32; 6];
        let owner = ();
        let base = base(as_bytes_mut(&mut memory));
        let whole = select("...", &[6], 4, Order::C);
        let reversed = select("::-1", &[6], 4, Order::C);
        // SAFETY: 24 bytes of `memory`, used by this thread through cells only until the end.
        let whole = unsafe { cells_from_raw::<u32, _>(&owner, base, &whole) }.unwrap();
        // SAFETY: as above.
        let reversed = unsafe { cells_from_raw::<u32, _>(&owner, base, &reversed) }.unwrap();
        reversed[[0]].set(5);
        whole[[0]].set(6);
        assert_eq!((whole[[5]].get(), reversed[[5]].get()), (5, 6));
    }

    fn part() -> impl Strategy<Value = Index> {
        let end = || prop::option::of(-7i128..7);
        prop_oneof![
            4 => (end(), end(), prop::option::of(prop_oneof![-3i128..0, 1i128..4]))
                .prop_map(|(start, stop, step)| Index::Slice { start, stop, step }),
            1 => Just(Index::At(-1)),
            1 => Just(Index::NewAxis),
            1 => Just(Index::Ellipsis),
        ]
    }

    proptest! {
        #[test]
        fn views_hold_the_elements_of_their_runs(
            shape in prop::collection::vec(1u64..6, 3),
            parts in prop::collection::vec(part(), 0..4), fortran in any::<bool>(),
        ) {
            let order = if fortran { Order::F } else { Order::C };
            let Ok(selection) = resolve(&parts, &shape, 4, order) else { return Ok(()) };
            let elements: u64 = shape.iter().product();
            let mut memory: Vec<u32> = (0..u32::try_from(elements).unwrap()).collect();
            let starts = runs(&selection).flat_map(|run| run.offset..run.offset + run.len);
            let want: Vec<u32> =
                starts.step_by(4).map(|at| u32::try_from(at / 4).unwrap()).collect();
            let got = view::<u32>(&mut memory, &selection).unwrap();
            prop_assert_eq!(got.iter().copied().collect::<Vec<_>>(), want.clone());
            let lens: Vec<u64> = got.shape().iter().map(|&len| len as u64).collect();
            prop_assert_eq!(lens, selection.shape());

            let (base, mut owner) = (base(as_bytes_mut(&mut memory)), ());
            // SAFETY: the selection was made from the shape of `memory`, which is borrowed here
            // and used through nothing else as long as the view lives.
            let written = unsafe { view_mut_from_raw::<u32, _>(&mut owner, base, &selection) };
            written.unwrap().fill(u32::MAX);
            for (at, value) in memory.iter().enumerate() {
                let selected = want.contains(&u32::try_from(at).unwrap());
                prop_assert_eq!(*value == u32::MAX, selected);
            }
        }
    }
}
