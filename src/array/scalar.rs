//! Data types without parts: one kind, one size, one byte order, as a NumPy type string says them.
//!
//! ```text
//! <f8          order `<`, kind `f`, 8 bytes
//! >M8[25s]     order `>`, kind `M`, 8 bytes, counted in units of 25 seconds
//! |S10         no order,  kind `S`, 10 bytes           <U3   3 characters of 4 bytes
//! float64      a name; names mean native order
//! ```
//!
//! # Invariants
//!
//! 1. The size fits the kind (a float has 2, 4, 8 or 16 bytes ...), is not 0 and is at most
//!    [`ITEMSIZE_MAX`].
//! 2. A kind without byte order, or of one byte, has [`ByteOrder::None`]; so equal types are equal.
//! 3. Only dates and durations carry a unit.
//!
//! # Failure
//!
//! Text that is no type, the object type, and sizes of 0 are told apart ([`ScalarError`]); `dtype`
//! adds the field they stand in.
//!
//! Source: `numpy/_core/src/multiarray/descriptor.c` names the forms; `tests/oracle/indexing.py`
//! compares them with NumPy itself.

/// Largest size of one element in bytes; NumPy keeps it in a C `int`.
pub(super) const ITEMSIZE_MAX: u64 = (1 << 31) - 1;

/// What an element holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// One byte, 0 or 1.
    Bool,
    /// Signed integer of 1, 2, 4 or 8 bytes.
    Int,
    /// Unsigned integer of 1, 2, 4 or 8 bytes.
    Uint,
    /// IEEE float of 2, 4 or 8 bytes; 16 bytes are the platform's long double, kept as bytes.
    Float,
    /// Two floats: 8 or 16 bytes; 32 bytes are two long doubles, kept as bytes.
    Complex,
    /// Bytes padded with zeros (`S`).
    Bytes,
    /// Unicode text, 4 bytes per character (`U`).
    Text,
    /// Bytes without a meaning (`V`).
    Void,
    /// Date and time as a count of units since 1970 (`M8`).
    Datetime,
    /// Duration as a count of units (`m8`).
    Timedelta,
    /// Named fields.
    Struct,
    /// A fixed-shape array inside each element.
    Subarray,
}

/// Order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant first, `<`.
    Little,
    /// Most significant first, `>`.
    Big,
    /// Has no order, `|`.
    None,
}

impl ByteOrder {
    /// The order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "little") { Self::Little } else { Self::Big };
}

/// Unit of dates and durations: this many of that; `None` is NumPy's generic unit.
pub(super) type TimeUnit = Option<(u32, &'static str)>;

const TIME_UNITS: [&str; 13] =
    ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"];

/// A data type without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scalar {
    // Invariants 1 to 3.
    kind: Kind,
    itemsize: u32,
    order: ByteOrder,
    unit: TimeUnit,
}

/// Why a text is not a type that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarError {
    Unknown,
    Object,
    ZeroSize,
    TooLarge,
}

impl Scalar {
    /// The type of this kind and size in this order; the order is dropped where it says nothing.
    pub(super) fn new(kind: Kind, itemsize: u64, order: ByteOrder) -> Result<Self, ScalarError> {
        let fits = match kind {
            Kind::Bool => itemsize == 1,
            Kind::Int | Kind::Uint => matches!(itemsize, 1 | 2 | 4 | 8),
            Kind::Float => matches!(itemsize, 2 | 4 | 8 | 16),
            Kind::Complex => matches!(itemsize, 8 | 16 | 32),
            Kind::Datetime | Kind::Timedelta => itemsize == 8,
            Kind::Bytes | Kind::Void | Kind::Text if itemsize == 0 => {
                return Err(ScalarError::ZeroSize);
            }
            Kind::Bytes | Kind::Void | Kind::Text if itemsize > ITEMSIZE_MAX => {
                return Err(ScalarError::TooLarge);
            }
            Kind::Bytes | Kind::Void => true,
            Kind::Text => itemsize.is_multiple_of(4),
            Kind::Struct | Kind::Subarray => false,
        };
        let ordered = itemsize > 1 && !matches!(kind, Kind::Bytes | Kind::Void);
        let order = if ordered { order } else { ByteOrder::None };
        match u32::try_from(itemsize) {
            Ok(itemsize) if fits => Ok(Self { kind, itemsize, order, unit: None }),
            _ => Err(ScalarError::Unknown),
        }
    }

    /// Reads a type string (`<f8`), a type name (`float64`) or a type character (`d`).
    pub(super) fn parse(text: &str) -> Result<Self, ScalarError> {
        let native = ByteOrder::NATIVE;
        let (order, rest) = match text.as_bytes().first() {
            Some(b'<') => (ByteOrder::Little, &text[1..]),
            Some(b'>') => (ByteOrder::Big, &text[1..]),
            Some(b'=' | b'|') => (native, &text[1..]),
            _ => match named(text) {
                Some((kind, itemsize)) => return Self::new(kind, itemsize, native),
                None => (native, text),
            },
        };
        if matches!(rest, "O" | "O4" | "O8" | "object" | "object_") {
            return Err(ScalarError::Object);
        }
        if let Some((kind, unit)) = time(rest) {
            let unit = time_unit(unit).ok_or(ScalarError::Unknown)?;
            return Ok(Self { unit, ..Self::new(kind, 8, order)? });
        }
        let mut chars = rest.chars();
        let letter = chars.next().ok_or(ScalarError::Unknown)?;
        let size = chars.as_str();
        if size.is_empty() {
            let (kind, itemsize) = character(letter).ok_or(ScalarError::Unknown)?;
            return Self::new(kind, itemsize, order);
        }
        Self::sized(letter, size, order)
    }

    /// A kind letter and a size in bytes (in characters for `U`).
    fn sized(letter: char, size: &str, order: ByteOrder) -> Result<Self, ScalarError> {
        if !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ScalarError::Unknown);
        }
        let kind = match letter {
            'b' => Kind::Bool,
            'i' => Kind::Int,
            'u' => Kind::Uint,
            'f' => Kind::Float,
            'c' => Kind::Complex,
            'S' | 'a' => Kind::Bytes,
            'U' => Kind::Text,
            'V' => Kind::Void,
            _ => return Err(ScalarError::Unknown),
        };
        let unit_bytes = if kind == Kind::Text { 4 } else { 1 };
        let size: u64 = size.parse().map_err(|_| ScalarError::TooLarge)?;
        Self::new(kind, size.saturating_mul(unit_bytes), order)
    }

    pub(super) fn kind(self) -> Kind {
        self.kind
    }

    pub(super) fn itemsize(self) -> u64 {
        u64::from(self.itemsize)
    }

    pub(super) fn order(self) -> ByteOrder {
        self.order
    }

    pub(super) fn unit(self) -> TimeUnit {
        self.unit
    }

    /// NumPy's alignment: that of the C type on the usual 64-bit machines.
    pub(super) fn alignment(self) -> u64 {
        match self.kind {
            Kind::Bytes | Kind::Void => 1,
            Kind::Text => 4,
            Kind::Complex => self.itemsize() / 2,
            _ => self.itemsize(),
        }
    }

    /// The same type in this machine's byte order.
    pub(super) fn native(self) -> Self {
        match self.order {
            ByteOrder::None => self,
            _ => Self { order: ByteOrder::NATIVE, ..self },
        }
    }

    /// NumPy's type string, `dtype.str`.
    pub(super) fn type_string(self) -> String {
        let order = match self.order {
            ByteOrder::Little => '<',
            ByteOrder::Big => '>',
            ByteOrder::None => '|',
        };
        let (letter, size) = match self.kind {
            Kind::Bool => ('b', self.itemsize),
            Kind::Int => ('i', self.itemsize),
            Kind::Uint => ('u', self.itemsize),
            Kind::Float => ('f', self.itemsize),
            Kind::Complex => ('c', self.itemsize),
            Kind::Bytes => ('S', self.itemsize),
            Kind::Text => ('U', self.itemsize / 4),
            Kind::Datetime => ('M', self.itemsize),
            Kind::Timedelta => ('m', self.itemsize),
            Kind::Void | Kind::Struct | Kind::Subarray => ('V', self.itemsize),
        };
        format!("{order}{letter}{size}{}", self.unit_text())
    }

    /// `[25s]`, or nothing.
    fn unit_text(self) -> String {
        match self.unit {
            None => String::new(),
            Some((1, unit)) => format!("[{unit}]"),
            Some((count, unit)) => format!("[{count}{unit}]"),
        }
    }

    /// `float64`, `datetime64[ns]`; the type string where the order is not native or the name
    /// would count bits (`S`, `U`, `V`).
    pub(super) fn name(self) -> String {
        let name = match self.kind {
            _ if self != self.native() => return self.type_string(),
            Kind::Bool => return "bool".to_owned(),
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Float => "float",
            Kind::Complex => "complex",
            Kind::Datetime => "datetime",
            Kind::Timedelta => "timedelta",
            _ => return self.type_string(),
        };
        format!("{name}{}{}", self.itemsize * 8, self.unit_text())
    }
}

/// The kind and size of a type name, as on 64-bit Linux. Names of the variable-size types mean
/// size 0, which is refused as such.
fn named(name: &str) -> Option<(Kind, u64)> {
    Some(match name {
        "bool" | "bool_" => (Kind::Bool, 1),
        "int8" | "byte" => (Kind::Int, 1),
        "int16" | "short" => (Kind::Int, 2),
        "int32" | "intc" => (Kind::Int, 4),
        "int64" | "int" | "int_" | "long" | "longlong" | "intp" => (Kind::Int, 8),
        "uint8" | "ubyte" => (Kind::Uint, 1),
        "uint16" | "ushort" => (Kind::Uint, 2),
        "uint32" | "uintc" => (Kind::Uint, 4),
        "uint64" | "uint" | "ulong" | "ulonglong" | "uintp" => (Kind::Uint, 8),
        "float16" | "half" => (Kind::Float, 2),
        "float32" | "single" => (Kind::Float, 4),
        "float64" | "float" | "double" => (Kind::Float, 8),
        "float128" | "longdouble" => (Kind::Float, 16),
        "complex64" | "csingle" => (Kind::Complex, 8),
        "complex128" | "complex" | "cdouble" => (Kind::Complex, 16),
        "complex256" | "clongdouble" => (Kind::Complex, 32),
        "bytes" | "bytes_" => (Kind::Bytes, 0),
        "str" | "str_" | "unicode" => (Kind::Text, 0),
        "void" => (Kind::Void, 0),
        _ => return None,
    })
}

/// The kind and size of a type character.
fn character(letter: char) -> Option<(Kind, u64)> {
    Some(match letter {
        '?' => (Kind::Bool, 1),
        'b' => (Kind::Int, 1),
        'h' => (Kind::Int, 2),
        'i' => (Kind::Int, 4),
        'l' | 'q' | 'p' | 'n' => (Kind::Int, 8),
        'B' => (Kind::Uint, 1),
        'H' => (Kind::Uint, 2),
        'I' => (Kind::Uint, 4),
        'L' | 'Q' | 'P' | 'N' => (Kind::Uint, 8),
        'e' => (Kind::Float, 2),
        'f' => (Kind::Float, 4),
        'd' => (Kind::Float, 8),
        'g' => (Kind::Float, 16),
        'F' => (Kind::Complex, 8),
        'D' => (Kind::Complex, 16),
        'G' => (Kind::Complex, 32),
        'c' => (Kind::Bytes, 1),
        'S' => (Kind::Bytes, 0),
        'U' => (Kind::Text, 0),
        'V' => (Kind::Void, 0),
        _ => return None,
    })
}

/// The kind of a date or duration, and the text of its unit.
fn time(text: &str) -> Option<(Kind, &str)> {
    let forms = [
        ("datetime64", Kind::Datetime),
        ("timedelta64", Kind::Timedelta),
        ("M8", Kind::Datetime),
        ("m8", Kind::Timedelta),
    ];
    if matches!(text, "M" | "m") {
        return Some((if text == "M" { Kind::Datetime } else { Kind::Timedelta }, ""));
    }
    let stripped = |(name, kind)| text.strip_prefix(name).map(|unit| (kind, unit));
    forms.into_iter().find_map(stripped)
}

/// `[25s]` -> 25 seconds; nothing or `[generic]` -> the generic unit. Divisors (`[D/2]`) and the
/// multiple 0 are not taken. `None` if the text is no unit.
fn time_unit(text: &str) -> Option<TimeUnit> {
    if text.is_empty() || text == "[generic]" {
        return Some(None);
    }
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
    let count = match &inside[..digits] {
        "" => 1,
        count => count.parse::<i32>().ok().filter(|&count| count > 0)?.unsigned_abs(),
    };
    let name = if &inside[digits..] == "\u{3bc}s" { "us" } else { &inside[digits..] };
    let unit = TIME_UNITS.iter().find(|unit| **unit == name)?;
    Some(Some((count, unit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_type_string_reads_back_as_itself() {
        let texts = "|b1 |i1 |u1 <i2 >i2 <i4 >u4 <i8 >u8 <f2 <f4 >f8 <f16 <c8 >c16 <c32 |S1 |S77 \
                     <U1 >U9 |V3 <M8 >M8[25s] <m8[ns] <M8[Y] <m8[as] <M8[2147483647M]";
        for text in texts.split_whitespace() {
            assert_eq!(Scalar::parse(text).map(Scalar::type_string), Ok(text.to_owned()));
        }
    }

    #[test]
    fn names_characters_and_order_marks_mean_what_numpy_says() {
        let native = |size: &str| {
            if cfg!(target_endian = "little") { format!("<{size}") } else { format!(">{size}") }
        };
        for (text, want) in [("float64", "f8"), ("=i4", "i4"), ("|i4", "i4"), ("l", "i8")] {
            assert_eq!(Scalar::parse(text).unwrap().type_string(), native(want), "{text}");
        }
        for (text, want) in [("?", "|b1"), ("<?", "|b1"), ("c", "|S1"), (">S3", "|S3")] {
            assert_eq!(Scalar::parse(text).unwrap().type_string(), want, "{text}");
        }
    }

    #[test]
    fn w001_w002_the_object_type_is_refused_as_such() {
        for text in ["O", "|O", "O8", "object", "object_"] {
            assert_eq!(Scalar::parse(text), Err(ScalarError::Object), "{text}");
        }
    }

    #[test]
    fn x23_types_of_size_zero_are_refused_as_such() {
        for text in ["S", "S0", "U", "<U0", "V", "str", "bytes", "void"] {
            assert_eq!(Scalar::parse(text), Err(ScalarError::ZeroSize), "{text}");
        }
    }

    #[test]
    fn the_largest_element_is_one_byte_less_than_2_gib() {
        assert_eq!(Scalar::parse("S2147483647").unwrap().itemsize(), ITEMSIZE_MAX);
        for text in ["S2147483648", "U536870912", "V99999999999999999999999999"] {
            assert_eq!(Scalar::parse(text), Err(ScalarError::TooLarge), "{text}");
        }
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for text in ["", "<", "<<f8", "<float64", "i3", "f-8", "M8[", "M8[0s]", "M8[D/2]", "T", "x"]
        {
            assert_eq!(Scalar::parse(text), Err(ScalarError::Unknown), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in any::<String>()) {
            let _ = Scalar::parse(&text);
        }

        #[test]
        fn what_is_read_is_written_as_text_that_reads_the_same(
            text in r"[<>|=]?([?a-zA-Z]|[biufcSUV][0-9]{0,3}|[Mm]8(\[[0-9]{0,3}[a-zA-Z]{1,2}\])?)",
        ) {
            if let Ok(scalar) = Scalar::parse(&text) {
                prop_assert_eq!(Scalar::parse(&scalar.type_string()), Ok(scalar));
                prop_assert_eq!(Scalar::parse(&scalar.name()), Ok(scalar));
            }
        }
    }
}
