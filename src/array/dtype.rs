//! Data types: how many bytes an element has and what they hold.
//!
//! Every NumPy data type of fixed size is one: scalars, named fields at chosen offsets, and
//! arrays of fixed shape inside the element.
//!
//! ```text
//! [("x", "<i4"), ("", "|V4"), ("y", "<f8", (2,))]
//!  offset 0      4            8           16         24
//!         | x    | gap        | y[0]      | y[1]     |     itemsize 24
//! ```
//!
//! # Invariants
//!
//! 1. No part of a type is an object, a reference or of variable size, so any bytes are a value
//!    that can be kept and given back.
//! 2. `1 <= itemsize < 2^31`; parts lie inside; names of fields differ and are not empty.
//! 3. At most [`DEPTH_MAX`] levels and [`FIELDS_MAX`] fields in total, so recursion over a type
//!    and copies of it are bounded whoever wrote it.
//! 4. A subarray has at least one axis and its element is not a subarray: nested ones are merged,
//!    which is the same layout.
//!
//! # Failure
//!
//! [`DtypeError`] names the field (`a.b`) that is to blame.

use super::scalar::{ITEMSIZE_MAX, Scalar, ScalarError};
use super::shape::{self, NDIM_MAX};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use super::scalar::{ByteOrder, Kind};

/// Deepest nesting of fields and subarrays.
pub const DEPTH_MAX: u32 = 32;
/// Largest number of fields, nested ones included.
pub const FIELDS_MAX: usize = 10_000;

/// A data type of fixed size. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Dtype(Layout);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Layout {
    Scalar(Scalar),
    Struct(Arc<Struct>),
    Subarray(Arc<Subarray>),
}

#[derive(PartialEq, Eq, Hash)]
struct Struct {
    fields: Vec<Field>,
    itemsize: u64,
    depth: u32,
    fields_total: usize,
}

#[derive(PartialEq, Eq, Hash)]
struct Subarray {
    base: Dtype,
    shape: Vec<u64>,
    itemsize: u64,
}

/// A named part of a structured type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Unique in its type, not empty.
    pub name: String,
    /// First byte, from the start of the element.
    pub offset: u64,
    /// What it holds.
    pub dtype: Dtype,
}

/// Where in a type something is: empty, or ` in field `a.b``.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// Names from the outermost field to the innermost, joined by `.`; empty for the whole type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a reader is in a type. Going into a field costs nothing however long the names are; the
/// path is put together only for an error.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'p> {
    outer: Option<&'p Place<'p>>,
    name: &'p str,
}

impl<'p> Place<'p> {
    /// The field `name` of the type at this place.
    pub(super) fn field(&'p self, name: &'p str) -> Self {
        Self { outer: Some(self), name }
    }

    /// The names on the way here.
    pub(super) fn path(&self) -> FieldPath {
        let inwards = std::iter::successors(Some(self), |place| place.outer);
        let mut names: Vec<&str> = inwards.map(|place| place.name).collect();
        names.pop();
        names.reverse();
        FieldPath(names.join("."))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " in field `{}`", self.0) }
    }
}

/// Why a data type cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DtypeError {
    /// References to Python objects.
    #[error("the object type{path} cannot be stored; use a type of fixed size")]
    Object {
        /// Where.
        path: FieldPath,
    },
    /// No bytes, as NumPy's `S` without a length.
    #[error("the type{path} has size 0; give it a length, such as S10")]
    ZeroSize {
        /// Where.
        path: FieldPath,
    },
    /// 2^31 bytes or more.
    #[error("the type{path} has more than {ITEMSIZE_MAX} bytes")]
    TooLarge {
        /// Where.
        path: FieldPath,
    },
    /// A name that is no type of fixed size.
    #[error("`{text}`{path} is not a data type of fixed size")]
    Unknown {
        /// The text.
        text: String,
        /// Where.
        path: FieldPath,
    },
    /// More than [`DEPTH_MAX`] levels.
    #[error("a data type is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// More than [`FIELDS_MAX`] fields.
    #[error("a data type has more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// A name twice, or none.
    #[error("the field name `{name}` is empty or occurs twice")]
    FieldName {
        /// The name.
        name: String,
    },
    /// A field that ends behind the end of its type.
    #[error("the field `{name}` ends at byte {end}, behind the type's end at byte {itemsize}")]
    FieldOutside {
        /// The name.
        name: String,
        /// One past its last byte.
        end: u64,
        /// Size of the type.
        itemsize: u64,
    },
    /// A description of another form than the known ones.
    #[error("{why}{path}")]
    Description {
        /// What is wrong.
        why: &'static str,
        /// Where.
        path: FieldPath,
    },
    /// Fields that overlap or are out of order have no `.npy` description.
    #[error("the type has fields that overlap or are out of order, which .npy cannot describe")]
    NoDescr,
}

impl Dtype {
    /// Reads a NumPy type string, name or character, or a list of them: `<f8`, `float64`,
    /// `M8[25s]`, `(2, 3)f8`, `i4, 3f8` (fields `f0`, `f1`).
    ///
    /// Names mean what they mean on 64-bit Linux, in native byte order.
    ///
    /// # Errors
    ///
    /// [`DtypeError::Object`], [`DtypeError::ZeroSize`], [`DtypeError::TooLarge`], and
    /// [`DtypeError::Unknown`] with the part that is no type.
    pub fn parse(text: &str) -> Result<Self, DtypeError> {
        super::descr::parse(text, &Place::default())
    }

    /// The scalar type named `text`.
    pub(super) fn parse_scalar(text: &str, place: &Place<'_>) -> Result<Self, DtypeError> {
        Scalar::parse(text).map(|scalar| Self(Layout::Scalar(scalar))).map_err(|why| {
            let path = place.path();
            match why {
                ScalarError::Unknown => DtypeError::Unknown { text: text.to_owned(), path },
                ScalarError::Object => DtypeError::Object { path },
                ScalarError::ZeroSize => DtypeError::ZeroSize { path },
                ScalarError::TooLarge => DtypeError::TooLarge { path },
            }
        })
    }

    /// A scalar of `kind` and `itemsize` bytes in native order.
    ///
    /// # Errors
    ///
    /// [`DtypeError::ZeroSize`], [`DtypeError::TooLarge`], and [`DtypeError::Unknown`] if the kind
    /// does not come in this size or is not scalar.
    pub fn scalar(kind: Kind, itemsize: u64) -> Result<Self, DtypeError> {
        let path = FieldPath::default();
        let scalar = Scalar::new(kind, itemsize, ByteOrder::NATIVE);
        scalar.map(|scalar| Self(Layout::Scalar(scalar))).map_err(|why| match why {
            ScalarError::ZeroSize => DtypeError::ZeroSize { path },
            ScalarError::TooLarge => DtypeError::TooLarge { path },
            _ => DtypeError::Unknown { text: format!("{kind:?} of {itemsize} bytes"), path },
        })
    }

    /// Named fields at their offsets. `itemsize` is the end of the last field if absent. Fields
    /// may overlap and leave gaps, as in NumPy.
    ///
    /// # Errors
    ///
    /// [`DtypeError::FieldName`], [`DtypeError::FieldOutside`], [`DtypeError::TooDeep`],
    /// [`DtypeError::TooManyFields`], [`DtypeError::TooLarge`], [`DtypeError::ZeroSize`].
    pub fn structured(fields: Vec<Field>, itemsize: Option<u64>) -> Result<Self, DtypeError> {
        let path = FieldPath::default();
        let totals = fields.iter().map(|field| field.dtype.fields_total() + 1);
        let fields_total = totals.fold(0, usize::saturating_add);
        if fields_total > FIELDS_MAX {
            return Err(DtypeError::TooManyFields);
        }
        let depth = fields.iter().map(|field| field.dtype.depth()).max().unwrap_or(0) + 1;
        if depth > DEPTH_MAX {
            return Err(DtypeError::TooDeep);
        }
        let end = |field: &Field| field.offset.saturating_add(field.dtype.itemsize());
        let itemsize = itemsize.unwrap_or_else(|| fields.iter().map(end).max().unwrap_or(0));
        let mut names = HashSet::new();
        for field in &fields {
            let name = &field.name;
            if name.is_empty() || !names.insert(name) {
                return Err(DtypeError::FieldName { name: name.clone() });
            }
            if end(field) > itemsize {
                let (name, end) = (name.clone(), end(field));
                return Err(DtypeError::FieldOutside { name, end, itemsize });
            }
        }
        match itemsize {
            0 => Err(DtypeError::ZeroSize { path }),
            1..=ITEMSIZE_MAX => {
                let layout = Struct { fields, itemsize, depth, fields_total };
                Ok(Self(Layout::Struct(Arc::new(layout))))
            }
            _ => Err(DtypeError::TooLarge { path }),
        }
    }

    /// Named fields one after another without gaps.
    ///
    /// # Errors
    ///
    /// Those of [`Dtype::structured`].
    pub fn packed<N: Into<String>>(
        fields: impl IntoIterator<Item = (N, Self)>,
    ) -> Result<Self, DtypeError> {
        let mut offset: u64 = 0;
        let placed = fields.into_iter().map(|(name, dtype)| {
            let field = Field { name: name.into(), offset, dtype };
            offset = offset.saturating_add(field.dtype.itemsize());
            field
        });
        let fields = placed.collect();
        Self::structured(fields, None)
    }

    /// An array of fixed `shape` (C order) of `base` in each element; no axes give `base` itself.
    ///
    /// # Errors
    ///
    /// [`DtypeError::ZeroSize`] if an axis has length 0, [`DtypeError::TooLarge`],
    /// [`DtypeError::TooDeep`], and [`DtypeError::Description`] above 32 axes.
    pub fn subarray(base: &Self, shape: &[u64]) -> Result<Self, DtypeError> {
        let path = FieldPath::default();
        let (base, shape) = base.absorb(shape);
        if shape.is_empty() {
            return Ok(base);
        }
        if shape.len() > NDIM_MAX {
            return Err(DtypeError::Description { why: "a subarray has more than 32 axes", path });
        }
        if base.depth() >= DEPTH_MAX {
            return Err(DtypeError::TooDeep);
        }
        match shape::nbytes(&shape, base.itemsize()) {
            Ok(0) => Err(DtypeError::ZeroSize { path }),
            Ok(itemsize @ 1..=ITEMSIZE_MAX) => {
                Ok(Self(Layout::Subarray(Arc::new(Subarray { base, shape, itemsize }))))
            }
            _ => Err(DtypeError::TooLarge { path }),
        }
    }

    /// The element type and shape of an array of `shape` of this type: NumPy turns the axes of a
    /// subarray type into the last axes of the array.
    #[must_use]
    pub fn absorb(&self, shape: &[u64]) -> (Self, Vec<u64>) {
        match &self.0 {
            Layout::Subarray(inner) => (inner.base.clone(), [shape, &inner.shape].concat()),
            _ => (self.clone(), shape.to_vec()),
        }
    }

    /// Bytes per element.
    #[must_use]
    pub fn itemsize(&self) -> u64 {
        match &self.0 {
            Layout::Scalar(scalar) => scalar.itemsize(),
            Layout::Struct(layout) => layout.itemsize,
            Layout::Subarray(layout) => layout.itemsize,
        }
    }

    /// NumPy's `dtype.alignment`: a power of two; 1 for named fields, which may lie anywhere.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        match &self.0 {
            Layout::Scalar(scalar) => scalar.alignment(),
            Layout::Struct(_) => 1,
            Layout::Subarray(layout) => layout.base.alignment(),
        }
    }

    /// What an element holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Layout::Scalar(scalar) => scalar.kind(),
            Layout::Struct(_) => Kind::Struct,
            Layout::Subarray(_) => Kind::Subarray,
        }
    }

    /// Byte order of a scalar; [`ByteOrder::None`] for types with parts, which may mix them.
    #[must_use]
    pub fn byte_order(&self) -> ByteOrder {
        match &self.0 {
            Layout::Scalar(scalar) => scalar.order(),
            _ => ByteOrder::None,
        }
    }

    /// Unit of a date or duration: this many of that (`(25, "s")`); `None` for the generic unit
    /// and for all other kinds.
    #[must_use]
    pub fn time_unit(&self) -> Option<(u32, &'static str)> {
        match &self.0 {
            Layout::Scalar(scalar) => scalar.unit(),
            _ => None,
        }
    }

    /// Whether every number in an element is in this machine's byte order.
    #[must_use]
    pub fn is_native_order(&self) -> bool {
        match &self.0 {
            Layout::Scalar(scalar) => *scalar == scalar.native(),
            Layout::Struct(layout) => {
                layout.fields.iter().all(|field| field.dtype.is_native_order())
            }
            Layout::Subarray(layout) => layout.base.is_native_order(),
        }
    }

    /// The same type with every number in this machine's byte order.
    #[must_use]
    pub fn to_native_order(&self) -> Self {
        Self(match &self.0 {
            Layout::Scalar(scalar) => Layout::Scalar(scalar.native()),
            Layout::Struct(layout) => {
                let native = |field: &Field| Field {
                    dtype: field.dtype.to_native_order(),
                    name: field.name.clone(),
                    offset: field.offset,
                };
                let fields = layout.fields.iter().map(native).collect();
                Layout::Struct(Arc::new(Struct { fields, ..**layout }))
            }
            Layout::Subarray(layout) => {
                let base = layout.base.to_native_order();
                let (shape, itemsize) = (layout.shape.clone(), layout.itemsize);
                Layout::Subarray(Arc::new(Subarray { base, shape, itemsize }))
            }
        })
    }

    /// The fields in their order of definition; none if the type is not structured.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match &self.0 {
            Layout::Struct(layout) => &layout.fields,
            _ => &[],
        }
    }

    /// The element and the shape of a subarray type.
    #[must_use]
    pub fn subarray_parts(&self) -> Option<(&Self, &[u64])> {
        match &self.0 {
            Layout::Subarray(layout) => Some((&layout.base, &layout.shape)),
            _ => None,
        }
    }

    /// NumPy's `dtype.str`: `<f8`, and `|V24` for types with parts.
    #[must_use]
    pub fn type_string(&self) -> String {
        match &self.0 {
            Layout::Scalar(scalar) => scalar.type_string(),
            _ => format!("|V{}", self.itemsize()),
        }
    }

    /// Levels of parts: 0 for a scalar.
    fn depth(&self) -> u32 {
        match &self.0 {
            Layout::Scalar(_) => 0,
            Layout::Struct(layout) => layout.depth,
            Layout::Subarray(layout) => layout.base.depth() + 1,
        }
    }

    /// Fields of this type and of its parts.
    fn fields_total(&self) -> usize {
        match &self.0 {
            Layout::Scalar(_) => 0,
            Layout::Struct(layout) => layout.fields_total,
            Layout::Subarray(layout) => layout.base.fields_total(),
        }
    }
}

impl FromStr for Dtype {
    type Err = DtypeError;

    fn from_str(text: &str) -> Result<Self, DtypeError> {
        Self::parse(text)
    }
}

/// Short, for people: `float64`, `>f8`, `(2, 3) int32`, `{x: int32, y: float64}`; at most eight
/// fields are named.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FIELDS_SHOWN: usize = 8;
        match &self.0 {
            Layout::Scalar(scalar) => f.write_str(&scalar.name()),
            Layout::Subarray(layout) => {
                let shape = super::literal::Literal::shape(&layout.shape).to_python();
                write!(f, "{shape} {}", layout.base)
            }
            Layout::Struct(layout) => {
                f.write_str("{")?;
                for (at, field) in layout.fields.iter().take(FIELDS_SHOWN).enumerate() {
                    f.write_str(if at > 0 { ", " } else { "" })?;
                    write!(f, "{}: {}", field.name, field.dtype)?;
                }
                match layout.fields.len().saturating_sub(FIELDS_SHOWN) {
                    0 => f.write_str("}"),
                    more => write!(f, ", and {more} more}}"),
                }
            }
        }
    }
}

impl fmt::Debug for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dtype({})", self.to_json_literal().to_python())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dtype(text: &str) -> Dtype {
        Dtype::parse(text).unwrap()
    }

    #[test]
    fn a_packed_type_places_its_fields_one_after_another() {
        let packed = Dtype::packed([("x", dtype("i4")), ("y", dtype("f8"))]).unwrap();
        let offsets: Vec<u64> = packed.fields().iter().map(|field| field.offset).collect();
        assert_eq!((offsets, packed.itemsize(), packed.alignment()), (vec![0, 4], 12, 1));
    }

    #[test]
    fn fields_outside_of_their_type_and_equal_names_are_refused() {
        let field = |name: &str, offset| Field { name: name.into(), offset, dtype: dtype("f8") };
        let outside = Dtype::structured(vec![field("a", 4)], Some(8)).unwrap_err();
        assert!(matches!(outside, DtypeError::FieldOutside { end: 12, itemsize: 8, .. }));
        let far = Dtype::structured(vec![field("a", u64::MAX)], None).unwrap_err();
        assert!(matches!(far, DtypeError::TooLarge { .. }));
        let twice = Dtype::structured(vec![field("a", 0), field("a", 8)], None).unwrap_err();
        assert_eq!(twice, DtypeError::FieldName { name: "a".into() });
        assert!(matches!(Dtype::structured(vec![], None), Err(DtypeError::ZeroSize { .. })));
    }

    #[test]
    fn nesting_is_bounded_in_depth_and_in_fields() {
        let mut deep = dtype("i1");
        for level in 0..DEPTH_MAX {
            deep = Dtype::packed([("a", deep)]).unwrap_or_else(|why| panic!("{level}: {why}"));
        }
        assert_eq!(Dtype::packed([("a", deep.clone())]), Err(DtypeError::TooDeep));
        assert_eq!(Dtype::subarray(&deep, &[2]), Err(DtypeError::TooDeep));
        let mut wide = dtype("i1");
        let refused = loop {
            match Dtype::packed([("a", wide.clone()), ("b", wide.clone())]) {
                Ok(wider) => wide = wider,
                Err(why) => break why,
            }
        };
        assert_eq!(refused, DtypeError::TooManyFields);
    }

    #[test]
    fn nested_subarrays_merge_and_an_array_absorbs_them() {
        let inner = Dtype::subarray(&dtype("f8"), &[2]).unwrap();
        let outer = Dtype::subarray(&inner, &[3]).unwrap();
        assert_eq!(outer.subarray_parts(), Some((&dtype("f8"), &[3, 2][..])));
        assert_eq!(outer.absorb(&[5]), (dtype("f8"), vec![5, 3, 2]));
        assert_eq!(Dtype::subarray(&dtype("f8"), &[]), Ok(dtype("f8")));
        assert!(matches!(Dtype::subarray(&inner, &[0]), Err(DtypeError::ZeroSize { .. })));
        let huge = Dtype::subarray(&inner, &[1 << 40, 1 << 40]);
        assert!(matches!(huge, Err(DtypeError::TooLarge { .. })));
    }

    #[test]
    fn byte_order_is_found_in_every_part() {
        let foreign = if ByteOrder::NATIVE == ByteOrder::Little { ">f8" } else { "<f8" };
        let mixed = Dtype::packed([("a", dtype("i4")), ("b", dtype(foreign))]).unwrap();
        assert!(!mixed.is_native_order() && mixed.to_native_order().is_native_order());
        assert_eq!(mixed.to_native_order().fields()[1].dtype, dtype("f8"));
        assert!(dtype("S3").is_native_order());
    }

    #[test]
    fn types_are_shown_short() {
        let point = Dtype::packed([("x", dtype("i4")), ("y", dtype("(2,3)f8"))]).unwrap();
        assert_eq!(point.to_string(), "{x: int32, y: (2, 3) float64}");
        let many = (0..12).map(|at| (format!("f{at}"), dtype("u1")));
        let shown = Dtype::packed(many).unwrap().to_string();
        assert!(shown.ends_with("f7: uint8, and 4 more}"), "{shown}");
        assert_eq!(dtype("M8[25s]").to_string(), "datetime64[25s]");
    }
}
