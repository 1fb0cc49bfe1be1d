//! The header of a `.npy` file: the data type, order and shape of the bytes that follow.
//!
//! ```text
//! 0        6   8              10 (12 from version 2.0 on)            data, at a multiple of 64
//! | magic | v | header length | {'descr': '<f8', 'fortran_order': ... }   \n | ...
//! ```
//! Version 1.0 has a 2-byte length and Latin-1 text, 2.0 a 4-byte length, 3.0 UTF-8 text. The
//! lowest that fits is written; all are read.
//!
//! # Invariants
//!
//! 1. A [`Header`] describes an array that can exist: the bytes fit `u64`, the data type is not a
//!    subarray (NumPy turns those into axes).
//! 2. What is written is byte for byte what NumPy writes, when aligned to 64 bytes.
//! 3. Reading takes at most [`HEADER_BYTES_MAX`] bytes, whatever the file says.
//!
//! # Failure
//!
//! [`NpyError`] says what does not fit; after it the position of the reader is undefined.
//!
//! Source: `numpy/lib/_format_impl.py`; `tests/it/numpy_pure.rs` compares with NumPy itself.

use super::descr;
use super::dtype::{Dtype, DtypeError, Kind};
use super::literal::{Literal, LiteralError};
use super::shape::{self, Order, ShapeError};
use std::io::{self, Read, Write};

/// Longest header that is read or written.
pub const HEADER_BYTES_MAX: u32 = 1 << 20;
/// NumPy's own alignment of the data.
pub const ALIGNMENT: u64 = 64;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Digits of the growing axis for which NumPy leaves room.
const GROWTH_AXIS_DIGITS: usize = 21;

/// What a `.npy` file says about its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    // Invariant 1.
    dtype: Dtype,
    order: Order,
    shape: Vec<u64>,
}

/// Why a `.npy` header cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The stream failed or ended inside the header.
    #[error("the .npy header cannot be transferred")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("the file does not start as a .npy file does")]
    Magic,
    /// A version that does not exist yet.
    #[error(".npy version {major}.{minor} is not known; 1.0, 2.0 and 3.0 are")]
    Version {
        /// Before the dot.
        major: u8,
        /// After the dot.
        minor: u8,
    },
    /// A header above [`HEADER_BYTES_MAX`].
    #[error("the .npy header of {len} bytes is longer than {HEADER_BYTES_MAX}")]
    TooLong {
        /// Its length.
        len: u64,
    },
    /// Text that is not a Python literal.
    #[error("the .npy header is damaged: {0}")]
    Literal(#[from] LiteralError),
    /// A literal that is not a header.
    #[error("the .npy header is damaged: {0}")]
    Form(&'static str),
    /// A data type that cannot be stored or described.
    #[error(transparent)]
    Dtype(#[from] DtypeError),
    /// A shape that cannot exist.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl Header {
    /// The header of an array of `shape`. A subarray type becomes axes of the array, as in NumPy.
    ///
    /// # Errors
    ///
    /// [`NpyError::Shape`] if the bytes do not fit `u64`.
    pub fn new(dtype: &Dtype, order: Order, shape: &[u64]) -> Result<Self, NpyError> {
        let (dtype, shape) = dtype.absorb(shape);
        shape::nbytes(&shape, dtype.itemsize())?;
        Ok(Self { dtype, order, shape })
    }

    /// Type of the elements.
    #[must_use]
    pub fn dtype(&self) -> &Dtype {
        &self.dtype
    }

    /// Order of the elements. NumPy writes C for arrays that are contiguous in both.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// Length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Number of bytes that follow the header.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        // Invariant 1 makes this a success.
        shape::nbytes(&self.shape, self.dtype.itemsize()).unwrap_or(u64::MAX)
    }

    /// Reads the header at the start of a `.npy` file; returns it with the offset of the data.
    /// The reader is left at the data.
    ///
    /// # Errors
    ///
    /// [`NpyError`]; also for a file that ends inside the header.
    pub fn read(from: &mut impl Read) -> Result<(Self, u64), NpyError> {
        let mut start = [0; 8];
        from.read_exact(&mut start)?;
        let [magic @ .., major, minor] = start;
        if magic != *MAGIC {
            return Err(NpyError::Magic);
        }
        let (text_len, text_at) = match (major, minor) {
            (1, 0) => {
                let mut len = [0; 2];
                from.read_exact(&mut len)?;
                (u32::from(u16::from_le_bytes(len)), 10)
            }
            (2 | 3, 0) => {
                let mut len = [0; 4];
                from.read_exact(&mut len)?;
                (u32::from_le_bytes(len), 12)
            }
            _ => return Err(NpyError::Version { major, minor }),
        };
        if text_len > HEADER_BYTES_MAX {
            return Err(NpyError::TooLong { len: u64::from(text_len) });
        }
        let mut text = Vec::new();
        from.take(u64::from(text_len)).read_to_end(&mut text)?;
        if text.len() as u64 != u64::from(text_len) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let text = if major == 3 {
            String::from_utf8(text).map_err(|_| NpyError::Form("its text is not UTF-8"))?
        } else {
            text.into_iter().map(char::from).collect()
        };
        Ok((Self::from_text(&text)?, text_at + u64::from(text_len)))
    }

    /// Reads the dict.
    fn from_text(text: &str) -> Result<Self, NpyError> {
        let Literal::Dict(entries) = Literal::from_python(text)? else {
            return Err(NpyError::Form("it is not a dict"));
        };
        let (mut descr, mut order, mut shape) = (None, None, None);
        for (key, value) in &entries {
            match (key.as_str(), value) {
                ("descr", value) => descr = Some(descr::from_literal(value)?),
                ("fortran_order", Literal::Bool(true)) => order = Some(Order::F),
                ("fortran_order", Literal::Bool(false)) => order = Some(Order::C),
                ("shape", Literal::Tuple(lengths)) => shape = Some(read_shape(lengths)?),
                _ => return Err(NpyError::Form("it has an unknown key or a wrong value")),
            }
        }
        let (Some(dtype), Some(order), Some(shape)) = (descr, order, shape) else {
            return Err(NpyError::Form("`descr`, `fortran_order` or `shape` is missing"));
        };
        if dtype.kind() == Kind::Subarray {
            return Err(NpyError::Form("its data type is a subarray"));
        }
        Self::new(&dtype, order, &shape)
    }

    /// The header as bytes, so long that the data start at a multiple of `pad_to` bytes. With
    /// [`ALIGNMENT`] the bytes are NumPy's; with 4096 the data can be mapped.
    ///
    /// # Errors
    ///
    /// [`NpyError::Dtype`] if the fields overlap or are out of order, [`NpyError::TooLong`].
    ///
    /// # Panics
    ///
    /// If `pad_to` is not a multiple of 64.
    pub fn encode(&self, pad_to: u64) -> Result<Vec<u8>, NpyError> {
        assert!(pad_to > 0 && pad_to.is_multiple_of(ALIGNMENT), "padding is a multiple of 64");
        let text = self.text()?;
        let is_latin = text.chars().all(|char| u32::from(char) < 0x100);
        let encoded: Vec<u8> = if is_latin {
            text.chars().filter_map(|char| u8::try_from(u32::from(char)).ok()).collect()
        } else {
            text.into_bytes()
        };
        let padded = |text_at: u64| {
            let len = text_at + encoded.len() as u64 + 1;
            // As NumPy does: never without a space, up to a whole unit of them.
            len + (pad_to - len % pad_to) - text_at
        };
        let mut bytes = MAGIC.to_vec();
        let short = u16::try_from(padded(10)).ok().filter(|_| is_latin);
        let text_at = if let Some(len) = short {
            bytes.extend([1, 0]);
            bytes.extend(len.to_le_bytes());
            10
        } else {
            let len = u32::try_from(padded(12)).ok().filter(|&len| len <= HEADER_BYTES_MAX);
            let len = len.ok_or(NpyError::TooLong { len: padded(12) })?;
            bytes.extend([if is_latin { 2 } else { 3 }, 0]);
            bytes.extend(len.to_le_bytes());
            12
        };
        let spaces = padded(text_at) - encoded.len() as u64 - 1;
        bytes.extend(encoded);
        bytes.extend((0..spaces).map(|_| b' '));
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes the header of [`Header::encode`]; returns the offset of the data.
    ///
    /// # Errors
    ///
    /// Those of [`Header::encode`], and [`NpyError::Io`].
    ///
    /// # Panics
    ///
    /// If `pad_to` is not a multiple of 64.
    pub fn write(&self, to: &mut impl Write, pad_to: u64) -> Result<u64, NpyError> {
        let bytes = self.encode(pad_to)?;
        to.write_all(&bytes)?;
        Ok(bytes.len() as u64)
    }

    /// The dict as NumPy writes it, with room for the growing axis to get longer in place.
    fn text(&self) -> Result<String, NpyError> {
        let descr = self.dtype.to_descr_literal()?.to_python();
        let fortran_order = Literal::Bool(self.order == Order::F).to_python();
        let shape = Literal::shape(&self.shape).to_python();
        let mut text =
            format!("{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}");
        if let Some(axis) = shape::major_axis(self.shape.len(), self.order) {
            let digits = self.shape[axis].to_string().len();
            text.extend((digits..GROWTH_AXIS_DIGITS).map(|_| ' '));
        }
        Ok(text)
    }
}

fn read_shape(lengths: &[Literal]) -> Result<Vec<u64>, NpyError> {
    if lengths.len() > shape::NDIM_MAX {
        return Err(ShapeError::TooManyAxes { ndim: lengths.len() }.into());
    }
    let read = |(axis, len): (usize, &Literal)| match *len {
        Literal::Int(len) if len < 0 => Err(ShapeError::Negative { axis, len }.into()),
        Literal::Int(len) => {
            u64::try_from(len).map_err(|_| NpyError::Form("an axis is longer than 2^64 - 1"))
        }
        _ => Err(NpyError::Form("its shape holds more than numbers")),
    };
    lengths.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(dtype: &str, order: Order, shape: &[u64]) -> Header {
        Header::new(&Dtype::parse(dtype).unwrap(), order, shape).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Header, u64), NpyError> {
        Header::read(&mut &bytes[..])
    }

    /// A file of version 1.0 whose dict is `text`.
    fn file(text: &str) -> Vec<u8> {
        let len = u16::try_from(text.len()).unwrap().to_le_bytes();
        [&MAGIC[..], &[1, 0], &len, text.as_bytes()].concat()
    }

    #[test]
    fn an_ordinary_header_is_the_documented_128_bytes() {
        let bytes = header("<f8", Order::C, &[3, 4]).encode(ALIGNMENT).unwrap();
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }";
        assert_eq!(bytes[..10], *b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(bytes[10..], *format!("{text:<117}\n").as_bytes());
    }

    #[test]
    fn the_data_start_where_the_padding_says_and_the_header_reads_back() {
        for (pad_to, order) in [(64, Order::C), (4096, Order::F), (1 << 16, Order::C)] {
            let header = header("i4, 3f8", order, &[5, 0, 7]);
            let bytes = header.encode(pad_to).unwrap();
            assert_eq!(bytes.len() as u64, pad_to.max(128));
            let (back, data_at) = read(&bytes).unwrap();
            assert_eq!((back, data_at), (header, bytes.len() as u64));
        }
    }

    #[test]
    fn long_headers_are_version_2_and_foreign_letters_version_3() {
        let many =
            (0..3000).map(|at| (format!("long_field_name_{at}"), Dtype::parse("f8").unwrap()));
        let long = Header::new(&Dtype::packed(many).unwrap(), Order::C, &[1]).unwrap();
        let wide = Dtype::packed([("\u{4e16}", Dtype::parse("f8").unwrap())]).unwrap();
        let wide = Header::new(&wide, Order::C, &[1]).unwrap();
        let latin = Dtype::packed([("\u{e9}", Dtype::parse("f8").unwrap())]).unwrap();
        let latin = Header::new(&latin, Order::C, &[1]).unwrap();
        for (header, version) in [(long, 2), (wide, 3), (latin, 1)] {
            let bytes = header.encode(ALIGNMENT).unwrap();
            assert_eq!((bytes[6], bytes.len() % 64), (version, 0));
            assert_eq!(read(&bytes).unwrap().0, header);
        }
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        let bytes = header("<f8", Order::C, &[3]).encode(ALIGNMENT).unwrap();
        for len in 0..bytes.len() {
            assert!(matches!(read(&bytes[..len]), Err(NpyError::Io(_))), "cut at {len}");
        }
    }

    #[test]
    fn files_of_another_kind_version_or_length_are_refused() {
        assert!(matches!(read(b"PK\x03\x04 zip archive"), Err(NpyError::Magic)));
        let version = read(b"\x93NUMPY\x04\x00\x00\x00");
        assert!(matches!(version, Err(NpyError::Version { major: 4, minor: 0 })));
        let long = read(b"\x93NUMPY\x02\x00\xff\xff\xff\xff");
        assert!(matches!(long, Err(NpyError::TooLong { .. })));
        assert!(matches!(read(b"\x93NUMPY\x03\x00\x01\0\0\0\xff"), Err(NpyError::Form(_))));
    }

    #[test]
    fn dicts_of_another_form_are_refused() {
        let form = |dict: &str| match read(&file(dict)) {
            Err(NpyError::Form(why)) => why,
            other => panic!("{dict}: {other:?}"),
        };
        form("[]");
        form("{}");
        form("{'descr': '<f8', 'fortran_order': False}");
        form("{'descr': '<f8', 'fortran_order': 0, 'shape': ()}");
        form("{'descr': '<f8', 'fortran_order': False, 'shape': [1]}");
        form("{'descr': '<f8', 'fortran_order': False, 'shape': ('a',)}");
        form("{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551616,)}");
        form("{'descr': ('<f8', (2,)), 'fortran_order': False, 'shape': ()}");
        form("{'descr': '<f8', 'fortran_order': False, 'shape': (), 'more': 1}");
        let shape = read(&file("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"));
        assert!(matches!(shape, Err(NpyError::Shape(ShapeError::Negative { axis: 0, len: -1 }))));
        let large = "{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 9)}";
        assert!(matches!(read(&file(large)), Err(NpyError::Shape(ShapeError::TooLarge { .. }))));
        let object = "{'descr': '|O', 'fortran_order': False, 'shape': ()}";
        let object = read(&file(object));
        assert!(matches!(object, Err(NpyError::Dtype(DtypeError::Object { .. }))));
        assert!(matches!(read(&file("{'descr'")), Err(NpyError::Literal(_))));
    }

    #[test]
    fn headers_of_python_2_are_read() {
        let text = "{'descr': '<f8', 'fortran_order': True, 'shape': (3L, 4L), }  \n";
        assert_eq!(read(&file(text)).unwrap().0, header("<f8", Order::F, &[3, 4]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            version in 1u8..4, text in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let len = u32::try_from(text.len()).unwrap().to_le_bytes();
            let len = if version == 1 { &len[..2] } else { &len[..] };
            let bytes = [&MAGIC[..], &[version, 0], len, &text].concat();
            let _ = (read(&bytes), read(&text));
        }

        #[test]
        fn a_header_with_any_byte_changed_is_read_or_refused_without_panic(
            at in 0usize..128, byte in any::<u8>(),
        ) {
            let mut bytes = header("i4, 3f8", Order::C, &[3, 4]).encode(ALIGNMENT).unwrap();
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
}
