//! Data types as descriptions and back: NumPy's `descr`, our JSON, and comma lists.
//!
//! ```text
//! text      "<f8"   "float64"   "(2,3)f8"   "i4, 3f8"
//! fields    [["x", "<i4"], ["y", "<f8", [2]]]        "" of a void type is a gap
//! dict      {"names": ["x"], "formats": ["<i4"], "offsets": [4], "itemsize": 16}
//! subarray  ["<f8", [2, 3]]
//! ```
//! Lists and tuples mean the same when read. JSON is written in the first form that says
//! everything; the descr of a `.npy` file is written as `numpy.lib.format` does.
//!
//! # Rules where NumPy has several
//!
//! * A *title*, as in `(("title", "name"), "<f8")` or the dict's `titles`, is dropped: it is a
//!   second name and changes no byte.
//! * A field of a list without a name is called `f0`, `f1` ... by its place, except void ones,
//!   which are gaps as in `.npy` files.
//! * `aligned` is taken only as false: offsets are written down, not derived.
//!
//! # Invariants
//!
//! 1. What is written reads back as an equal type.
//! 2. Recursion ends at [`DEPTH_MAX`] levels whatever the description.
//!
//! # Failure
//!
//! [`DtypeError`] with the path of the field.

use super::dtype::{DEPTH_MAX, Dtype, DtypeError, FIELDS_MAX, Field, Kind, Place};
use super::literal::{Literal, LiteralSeed};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// Reads a text: a scalar type, one with a repeat count or shape, or a list of such.
pub(super) fn parse(text: &str, place: &Place<'_>) -> Result<Dtype, DtypeError> {
    let unknown = || DtypeError::Unknown { text: text.to_owned(), path: place.path() };
    let parts = split(text);
    if parts.len() == 1 {
        return repeated(text, place);
    }
    // `i4,` is a list of one; `i4,,f8` and `,` are nothing.
    let named = match parts.split_last() {
        Some((last, before)) if last.trim().is_empty() => before,
        _ => &parts[..],
    };
    if named.len() > FIELDS_MAX {
        return Err(DtypeError::TooManyFields);
    }
    let mut fields = Vec::with_capacity(named.len());
    for (at, part) in named.iter().enumerate() {
        if part.trim().is_empty() {
            return Err(unknown());
        }
        let name = format!("f{at}");
        let dtype = repeated(part.trim(), &place.field(&name))?;
        fields.push((name, dtype));
    }
    Dtype::packed(fields)
}

/// The parts of `text` between the commas that stand outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0i32;
    let outside = |char: char| {
        depth += match char {
            '(' | '[' => 1,
            ')' | ']' => -1,
            _ => 0,
        };
        char == ',' && depth <= 0
    };
    text.split(outside).collect()
}

/// `f8`, `3f8`, `(2, 3)f8`, `>2f8`: a scalar type, repeated or shaped.
fn repeated(text: &str, place: &Place<'_>) -> Result<Dtype, DtypeError> {
    let unknown = || DtypeError::Unknown { text: text.to_owned(), path: place.path() };
    let rest = text.strip_prefix(['<', '>', '=', '|']).unwrap_or(text);
    let order = &text[..text.len() - rest.len()];
    let (shape, scalar) = if let Some(inside) = rest.strip_prefix('(') {
        let (inside, scalar) = inside.split_once(')').ok_or_else(unknown)?;
        let python = Literal::from_python(&format!("({inside})")).map_err(|_| unknown())?;
        let Literal::Tuple(_) = python else { return Err(unknown()) };
        (read_shape(&python, place)?, scalar.trim_start())
    } else {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Dtype::parse_scalar(text, place);
        }
        (vec![rest[..digits].parse().map_err(|_| unknown())?], rest[digits..].trim_start())
    };
    if !order.is_empty() && scalar.starts_with(['<', '>', '=', '|']) {
        return Err(unknown());
    }
    let base = Dtype::parse_scalar(&format!("{order}{scalar}"), place)?;
    in_field(Dtype::subarray(&base, &shape), place)
}

/// Reads any description.
pub(super) fn from_literal(literal: &Literal) -> Result<Dtype, DtypeError> {
    read(literal, &Place::default(), 0)
}

fn read(literal: &Literal, place: &Place<'_>, depth: u32) -> Result<Dtype, DtypeError> {
    // One more than a type may have, because a subarray inside of a subarray is merged.
    if depth > 2 * DEPTH_MAX {
        return Err(DtypeError::TooDeep);
    }
    match literal {
        Literal::Text(text) => parse(text, place),
        Literal::Dict(entries) => read_dict(entries, place, depth),
        Literal::List(items) | Literal::Tuple(items) => match &items[..] {
            [base, shape] if is_shape(shape) => {
                let base = read(base, place, depth + 1)?;
                in_field(Dtype::subarray(&base, &read_shape(shape, place)?), place)
            }
            _ => read_fields(items, place, depth),
        },
        _ => Err(wrong("a data type is a text, a list of fields or a dict", place)),
    }
}

fn wrong(why: &'static str, place: &Place<'_>) -> DtypeError {
    DtypeError::Description { why, path: place.path() }
}

/// Puts the path into an error of a constructor that does not know where it is used.
fn in_field(made: Result<Dtype, DtypeError>, place: &Place<'_>) -> Result<Dtype, DtypeError> {
    made.map_err(|why| match why {
        DtypeError::ZeroSize { .. } => DtypeError::ZeroSize { path: place.path() },
        DtypeError::TooLarge { .. } => DtypeError::TooLarge { path: place.path() },
        DtypeError::Description { why, .. } => wrong(why, place),
        other => other,
    })
}

/// Whether the literal can only be a shape: a field entry starts with a text.
fn is_shape(literal: &Literal) -> bool {
    let is_int = |item: &Literal| matches!(item, Literal::Int(_));
    is_int(literal) || literal.items().is_some_and(|items| items.iter().all(is_int))
}

fn read_shape(literal: &Literal, place: &Place<'_>) -> Result<Vec<u64>, DtypeError> {
    let len = |item: &Literal| match item {
        Literal::Int(len) => u64::try_from(*len).ok(),
        _ => None,
    };
    let lengths: Option<Vec<u64>> = match literal.items() {
        Some(items) => items.iter().map(len).collect(),
        None => len(literal).map(|len| vec![len]),
    };
    lengths.ok_or_else(|| wrong("the shape of a subarray is a list of lengths from 0", place))
}

/// `[(name, descr), (name, descr, shape), ("", "|V4"), ...]`: fields one after another.
fn read_fields(items: &[Literal], place: &Place<'_>, depth: u32) -> Result<Dtype, DtypeError> {
    if items.len() > 2 * FIELDS_MAX + 1 {
        return Err(DtypeError::TooManyFields);
    }
    let mut fields = Vec::new();
    let mut offset: u64 = 0;
    for (at, item) in items.iter().enumerate() {
        let (name, descr, shape) = match item.items() {
            Some([name, descr]) => (name, descr, None),
            Some([name, descr, shape]) => (name, descr, Some(shape)),
            _ => return Err(wrong("a field is a name, a type and at most a shape", place)),
        };
        let name = match read_name(name, place)? {
            "" => format!("f{at}"),
            name => name.to_owned(),
        };
        let within = place.field(&name);
        let mut dtype = read(descr, &within, depth + 1)?;
        if let Some(shape) = shape {
            dtype = in_field(Dtype::subarray(&dtype, &read_shape(shape, &within)?), &within)?;
        }
        let end = offset.saturating_add(dtype.itemsize());
        let is_gap = dtype.kind() == Kind::Void && item_is_unnamed(item);
        if !is_gap {
            fields.push(Field { name, offset, dtype });
        }
        offset = end;
    }
    in_field(Dtype::structured(fields, Some(offset)), place)
}

fn item_is_unnamed(item: &Literal) -> bool {
    item.items().and_then(|parts| parts.first()?.text()) == Some("")
}

/// The name of a field; of (title, name) the latter.
fn read_name<'l>(literal: &'l Literal, place: &Place<'_>) -> Result<&'l str, DtypeError> {
    let named = match literal.items() {
        Some([_, name]) => name,
        _ => literal,
    };
    named.text().ok_or_else(|| wrong("the name of a field is a text", place))
}

/// `{names, formats, offsets, itemsize}`, the last two optional.
fn read_dict(
    entries: &[(String, Literal)],
    place: &Place<'_>,
    depth: u32,
) -> Result<Dtype, DtypeError> {
    let (mut names, mut formats, mut offsets, mut itemsize) = (None, None, None, None);
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("names", value) => names = value.items(),
            ("formats", value) => formats = value.items(),
            ("offsets", value) => offsets = Some(read_shape(value, place)?),
            ("itemsize", Literal::Int(bytes)) => itemsize = Some(*bytes),
            ("titles", _) | ("aligned", Literal::Bool(false)) => {}
            _ => {
                return Err(wrong("the dict has an unknown key or a value that is not its", place));
            }
        }
    }
    let (Some(names), Some(formats)) = (names, formats) else {
        return Err(wrong("the dict of a type needs lists of `names` and `formats`", place));
    };
    let offsets_fit = offsets.as_ref().is_none_or(|offsets| offsets.len() == names.len());
    if names.len() != formats.len() || !offsets_fit {
        return Err(wrong("`names`, `formats` and `offsets` must have one length", place));
    }
    if names.len() > FIELDS_MAX {
        return Err(DtypeError::TooManyFields);
    }
    let mut fields = Vec::with_capacity(names.len());
    let mut next: u64 = 0;
    for (at, (name, format)) in names.iter().zip(formats).enumerate() {
        let name = read_name(name, place)?;
        let dtype = read(format, &place.field(name), depth + 1)?;
        let offset = offsets.as_ref().map_or(next, |offsets| offsets[at]);
        next = offset.saturating_add(dtype.itemsize());
        fields.push(Field { name: name.to_owned(), offset, dtype });
    }
    let itemsize = itemsize.map(u64::try_from).transpose();
    let itemsize = itemsize.map_err(|_| wrong("`itemsize` must not be negative", place))?;
    in_field(Dtype::structured(fields, itemsize), place)
}

impl Dtype {
    /// The description that `numpy.lib.format.dtype_to_descr` gives, as Python writes it: what a
    /// `.npy` header holds under `descr`. Gaps become unnamed void fields. A subarray is a pair of
    /// type and shape, which NumPy reads but does not write.
    ///
    /// # Errors
    ///
    /// [`DtypeError::NoDescr`] if fields overlap or are out of order.
    pub fn descr(&self) -> Result<String, DtypeError> {
        self.to_descr_literal().map(|literal| literal.to_python())
    }

    /// Reads a description as Python writes it, the reverse of [`Dtype::descr`].
    ///
    /// # Errors
    ///
    /// [`DtypeError::Description`] if it is no Python literal of a known form; see [`DtypeError`].
    pub fn from_descr(text: &str) -> Result<Self, DtypeError> {
        let place = Place::default();
        let literal = Literal::from_python(text)
            .map_err(|_| wrong("the description is not a Python literal", &place))?;
        from_literal(&literal)
    }

    pub(super) fn to_descr_literal(&self) -> Result<Literal, DtypeError> {
        if let Some((base, shape)) = self.subarray_parts() {
            let base = base.to_descr_literal()?;
            return Ok(Literal::Tuple(vec![base, Literal::shape(shape)]));
        }
        if self.kind() != Kind::Struct {
            return Ok(Literal::Text(self.type_string()));
        }
        let mut items = Vec::new();
        let mut end = 0;
        for field in self.fields() {
            let gap = field.offset.checked_sub(end).ok_or(DtypeError::NoDescr)?;
            items.extend(gap_literal(gap));
            let (base, shape) = field_parts(&field.dtype);
            let mut item = vec![Literal::Text(field.name.clone()), base.to_descr_literal()?];
            item.extend(shape.map(Literal::shape));
            items.push(Literal::Tuple(item));
            end = field.offset + field.dtype.itemsize();
        }
        items.extend(gap_literal(self.itemsize() - end));
        Ok(Literal::List(items))
    }

    /// The description in our JSON form.
    pub(super) fn to_json_literal(&self) -> Literal {
        if let Some((base, shape)) = self.subarray_parts() {
            return Literal::List(vec![base.to_json_literal(), Literal::shape(shape)]);
        }
        if self.kind() != Kind::Struct {
            return Literal::Text(self.type_string());
        }
        let fields = self.fields();
        let mut end = 0;
        let is_packed = fields.iter().all(|field| {
            let follows = field.offset == end;
            end = field.offset + field.dtype.itemsize();
            follows
        });
        if is_packed && end == self.itemsize() {
            let item = |field: &Field| {
                let (base, shape) = field_parts(&field.dtype);
                let mut item = vec![Literal::Text(field.name.clone()), base.to_json_literal()];
                item.extend(shape.map(Literal::shape));
                Literal::List(item)
            };
            return Literal::List(fields.iter().map(item).collect());
        }
        let names = fields.iter().map(|field| Literal::Text(field.name.clone())).collect();
        let formats = fields.iter().map(|field| field.dtype.to_json_literal()).collect();
        let offsets: Vec<u64> = fields.iter().map(|field| field.offset).collect();
        let entries = [
            ("names", Literal::List(names)),
            ("formats", Literal::List(formats)),
            ("offsets", Literal::shape(&offsets)),
            ("itemsize", Literal::Int(i128::from(self.itemsize()))),
        ];
        Literal::Dict(entries.map(|(key, value)| (key.to_owned(), value)).into())
    }
}

/// The type of a field and its own shape, if it is a subarray.
fn field_parts(dtype: &Dtype) -> (&Dtype, Option<&[u64]>) {
    match dtype.subarray_parts() {
        Some((base, shape)) => (base, Some(shape)),
        None => (dtype, None),
    }
}

/// The unnamed field that stands for `bytes` without a meaning.
fn gap_literal(bytes: u64) -> Option<Literal> {
    let text = |text: String| Literal::Text(text);
    (bytes > 0).then(|| Literal::Tuple(vec![text(String::new()), text(format!("|V{bytes}"))]))
}

/// Writes the JSON form: a text, a list of fields, or a dict of names, formats and offsets.
impl Serialize for Dtype {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.to_json_literal().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let literal = LiteralSeed::ROOT.deserialize(from)?;
        from_literal(&literal).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dtype(text: &str) -> Dtype {
        Dtype::parse(text).unwrap()
    }

    fn json(text: &str) -> Result<Dtype, String> {
        serde_json::from_str(text).map_err(|why| why.to_string())
    }

    #[test]
    fn w003_w004_an_object_field_is_refused_wherever_it_is_nested() {
        let path = |refused| match refused {
            Err(DtypeError::Object { path }) => path.as_str().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(path(Dtype::parse("i4, O")), "f1");
        assert_eq!(path(Dtype::from_descr("[('a', '<i4'), ('b', [('c', '|O')], (2,))]")), "b.c");
        assert_eq!(path(Dtype::from_descr("{'names': ['a'], 'formats': ['O']}")), "a");
        let shown = Dtype::parse("i4, O").unwrap_err().to_string();
        assert_eq!(
            shown,
            "the object type in field `f1` cannot be stored; use a type of fixed size"
        );
    }

    #[test]
    fn x23_a_field_of_size_zero_is_refused() {
        for text in ["[('a', 'S')]", "[('a', 'f8', (0,))]", "[('', '|V0')]", "[]", "('f8', (0, 2))"]
        {
            let refused = Dtype::from_descr(text).unwrap_err();
            assert!(matches!(refused, DtypeError::ZeroSize { .. }), "{text}: {refused}");
        }
    }

    #[test]
    fn comma_lists_name_their_fields_by_place() {
        let list = dtype("i4, (2,3)f8,3>i2, M8[s]");
        let descr = "[('f0', '<i4'), ('f1', '<f8', (2, 3)), ('f2', '>i2', (3,)), ('f3', '<M8[s]')]";
        if cfg!(target_endian = "little") {
            assert_eq!(list.descr().unwrap(), descr);
        }
        assert_eq!(dtype("i4,").fields().len(), 1);
        assert_eq!(dtype(">2f8"), dtype("2>f8"));
        for wrong in [",", "i4,,f8", "(2)f8", "(2,f8", ">2>f8", "(2,-1)f8", "5", "i4 f8"] {
            let _ = Dtype::parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn gaps_are_written_as_void_fields_and_read_back() {
        let text = "[('', '|V4'), ('a', '<f8'), ('', '|V8')]";
        let gapped = Dtype::from_descr(text).unwrap();
        assert_eq!((gapped.fields()[0].offset, gapped.itemsize()), (4, 20));
        assert_eq!(gapped.descr().unwrap(), text);
        let dict = r#"{"names":["a"],"formats":["<f8"],"offsets":[4],"itemsize":20}"#;
        assert_eq!(serde_json::to_string(&gapped).unwrap(), dict);
        assert_eq!(json(dict), Ok(gapped));
    }

    #[test]
    fn overlapping_fields_have_json_but_no_descr() {
        let text = r#"{"names":["a","b"],"formats":["<f8","<i4"],"offsets":[4,2],"itemsize":12}"#;
        let overlapping = json(text).unwrap();
        assert_eq!(overlapping.descr(), Err(DtypeError::NoDescr));
        assert_eq!(serde_json::to_string(&overlapping).unwrap(), text);
    }

    #[test]
    fn titles_are_dropped_and_unnamed_fields_are_named_by_place() {
        let titled = Dtype::from_descr("[(('long', 'x'), '<i4'), ('', '<f8')]").unwrap();
        assert_eq!(titled.descr().unwrap(), "[('x', '<i4'), ('f1', '<f8')]");
    }

    #[test]
    fn descriptions_of_other_forms_are_refused() {
        let refused = [
            "1",
            "null",
            "[1]",
            r#"[["a"]]"#,
            r#"[["a", "<f8", "x"]]"#,
            r#"[[1, "<f8"]]"#,
            "{}",
            r#"{"names": ["a"], "formats": []}"#,
            r#"{"names": "a", "formats": "b"}"#,
            r#"{"names": ["a"], "formats": ["f8"], "offsets": [-4]}"#,
            r#"{"names": ["a"], "formats": ["f8"], "itemsize": 4}"#,
            r#"{"names": ["a"], "formats": ["f8"], "aligned": true}"#,
            r#"[["a", "f8"], ["a", "f8"]]"#,
            r#"["f8", [-1]]"#,
            r#"["f8", [1.5]]"#,
        ];
        for text in refused {
            let _ = json(text).unwrap_err();
        }
        let deep = format!("{}\"f8\"{}", "[[\"a\",".repeat(40), "]]".repeat(40));
        assert!(json(&deep).unwrap_err().contains("levels deep"));
    }

    fn types() -> impl Strategy<Value = Dtype> {
        let scalars = "|b1 |i1 >i2 <i4 <i8 >u8 <f2 >f4 <f8 <f16 >c8 <c32 |S3 >U2 |V5 <M8[25s] <m8";
        let scalars: Vec<&str> = scalars.split(' ').collect();
        let leaf = prop::sample::select(scalars).prop_map(dtype);
        leaf.prop_recursive(4, 24, 4, |inner| {
            let fields = prop::collection::vec(
                ("[a-z'\"\\\\ \u{e9}\u{4e16}]{1,3}", 0u64..9, inner.clone()),
                1..4,
            );
            let structured = fields.prop_map(|fields| {
                let mut end = 0;
                let place = |(at, (name, gap, dtype)): (usize, (String, u64, Dtype))| {
                    let offset = end + gap / 3;
                    end = offset + dtype.itemsize();
                    Field { name: format!("{name}{at}"), offset, dtype }
                };
                let fields: Vec<Field> = fields.into_iter().enumerate().map(place).collect();
                Dtype::structured(fields, Some(end + end % 3)).unwrap()
            });
            let subarray = (inner, prop::collection::vec(1u64..4, 0..3))
                .prop_map(|(base, shape)| Dtype::subarray(&base, &shape).unwrap());
            prop_oneof![structured, subarray]
        })
    }

    proptest! {
        #[test]
        fn every_type_reads_back_from_json_and_from_its_descr(dtype in types()) {
            let text = serde_json::to_string(&dtype).unwrap();
            prop_assert_eq!(json(&text), Ok(dtype.clone()));
            prop_assert_eq!(Dtype::from_descr(&dtype.descr().unwrap()), Ok(dtype));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in any::<String>()) {
            let _ = (Dtype::parse(&text), Dtype::from_descr(&text), json(&text));
        }

        #[test]
        fn any_type_like_text_is_read_or_refused_without_panic(
            text in "[<>|=(),0-9biufcSUVMm8\\[\\]s ]{0,20}",
        ) {
            let _ = Dtype::parse(&text);
        }
    }
}
