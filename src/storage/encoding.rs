//! Encoded blocks: compression, and arranging numbers so that it finds something.
//!
//! ```text
//! content   | pages ......................... |   at most 2 MiB
//! filter    all first bytes of the elements, then all second ones ...; or differences before that
//! method    lz4 | zstd
//! stored    | header 32 bytes | encoded bytes | zeros |   whole pages, fewer than the content has
//! ```
//!
//! # Invariants
//!
//! 1. What is decoded has the length the reader asks for and the checksum of what was encoded.
//! 2. Decoding writes into the buffer it is given and allocates at most once as much again,
//!    whatever the stored bytes say.
//! 3. Content that would not become at least one page shorter is not encoded: it is stored as it is
//!    and can be mapped.
//!
//! # Failure
//!
//! Bytes that cannot be decoded are [`NotDecoded`]; the caller knows where they lie.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::filters::{delta, shuffle, undelta, unshuffle};
use super::scratch::Scratch;
use crate::units::PAGE_LEN;

const MAGIC: [u8; 4] = *b"zbe\x01";
const HEADER_LEN: usize = 32;
/// What zstd itself takes if nobody says.
const ZSTD_LEVEL_DEFAULT: i8 = 3;
const ZSTD_LEVEL_MAX: i8 = 22;

/// How bytes are made fewer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Method {
    /// Not at all.
    #[default]
    None,
    /// LZ4 blocks: very fast.
    Lz4,
    /// Zstandard at a level from 1 to 22: smaller.
    Zstd(i8),
}

/// What is done to elements before.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Filter {
    /// Nothing.
    #[default]
    None,
    /// Equal bytes of all elements lie together.
    Shuffle,
    /// The difference of each element, as an integer, to the one before; then shuffled.
    Delta,
}

/// How the blocks of an array are encoded from now on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Codec {
    /// How bytes are made fewer.
    pub method: Method,
    /// What is done to elements before.
    pub filter: Filter,
    /// Bytes of an element, for the filter; 0 and 1 leave it out.
    pub width: u8,
}

impl Codec {
    /// Whether blocks are stored as they are.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.method == Method::None
    }

    /// The same for elements of `bytes` bytes. No codec is the same for all: a record has one word
    /// for it, and what is committed must be equal to what is read of it later.
    #[must_use]
    pub fn for_elements_of(self, bytes: u64) -> Self {
        match self.method {
            Method::None => Self::default(),
            _ => Self { width: u8::try_from(bytes).unwrap_or(0), ..self },
        }
    }

    /// All of it in one number, 0 for no codec.
    #[must_use]
    pub fn word(self) -> u32 {
        let (method, level) = match self.method {
            Method::None => return 0,
            Method::Lz4 => (1, 0),
            Method::Zstd(level) => (2, level),
        };
        let filter = match self.filter {
            Filter::None => 0,
            Filter::Shuffle => 1,
            Filter::Delta => 2,
        };
        u32::from_le_bytes([method, level.to_le_bytes()[0], filter, self.width])
    }

    /// What [`word`](Self::word) said; `None` for a number that means nothing.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        let [method, level, filter, width] = word.to_le_bytes();
        let level = i8::from_le_bytes([level]);
        let method = match method {
            0 if word == 0 => Method::None,
            1 if level == 0 => Method::Lz4,
            2 if (1..=ZSTD_LEVEL_MAX).contains(&level) => Method::Zstd(level),
            _ => return None,
        };
        let filter = match filter {
            0 => Filter::None,
            1 => Filter::Shuffle,
            2 => Filter::Delta,
            _ => return None,
        };
        Some(Self { method, filter, width })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            Method::None => return f.write_str("none"),
            Method::Lz4 => f.write_str("lz4")?,
            Method::Zstd(level) => write!(f, "zstd:{level}")?,
        }
        f.write_str(match self.filter {
            Filter::None => "",
            Filter::Shuffle => "+shuffle",
            Filter::Delta => "+delta",
        })
    }
}

/// A text that names no codec.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "`{0}` is no codec; say none, lz4, zstd or zstd:LEVEL (1 to 22), each with +shuffle or +delta \
     for numbers"
)]
pub struct NoCodec(pub String);

impl FromStr for Codec {
    type Err = NoCodec;

    fn from_str(text: &str) -> Result<Self, NoCodec> {
        let no = || NoCodec(text.to_owned());
        let (method, filter) = match text.split_once('+') {
            None => (text, Filter::None),
            Some((method, "shuffle")) => (method, Filter::Shuffle),
            Some((method, "delta")) => (method, Filter::Delta),
            Some(_) => return Err(no()),
        };
        let method = match method.split_once(':') {
            None if method == "none" && filter == Filter::None => Method::None,
            None if method == "lz4" => Method::Lz4,
            None if method == "zstd" => Method::Zstd(ZSTD_LEVEL_DEFAULT),
            Some(("zstd", level)) => {
                let level = level.parse().map_err(|_| no())?;
                Some(Method::Zstd(level))
                    .filter(|_| (1..=ZSTD_LEVEL_MAX).contains(&level))
                    .ok_or_else(no)?
            }
            _ => return Err(no()),
        };
        Ok(Self { method, filter, width: 0 })
    }
}

/// Why stored bytes could not be decoded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("an encoded block cannot be decoded: {0}")]
pub struct NotDecoded(pub String);

/// `content`, whole pages, as `codec` has it: whole pages, at least one fewer. `None` if it is
/// better stored as it is.
#[must_use]
pub fn encode(codec: Codec, content: &[u8]) -> Option<Vec<u8>> {
    let filtered = filter(codec, content);
    let bytes = filtered.as_deref().unwrap_or(content);
    let encoded = match codec.method {
        Method::None => return None,
        Method::Lz4 => lz4_flex::block::compress(bytes),
        Method::Zstd(level) => zstd::bulk::compress(bytes, i32::from(level)).ok()?,
    };
    let len = (HEADER_LEN + encoded.len()).next_multiple_of(PAGE_LEN);
    if len + PAGE_LEN > content.len() {
        return None;
    }
    let mut stored = Vec::with_capacity(len);
    stored.extend_from_slice(&MAGIC);
    stored.extend_from_slice(&codec.word().to_le_bytes());
    stored.extend_from_slice(&u64::try_from(content.len()).ok()?.to_le_bytes());
    stored.extend_from_slice(&u64::try_from(encoded.len()).ok()?.to_le_bytes());
    stored.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
    stored.extend_from_slice(&[0; 4]);
    stored.extend_from_slice(&encoded);
    stored.resize(len, 0);
    Some(stored)
}

/// Decodes `stored`, what [`encode`] made of as many bytes as `content` has.
///
/// # Errors
///
/// [`NotDecoded`] if it is anything else; `content` is then undefined.
pub fn decode(stored: &[u8], content: &mut [u8]) -> Result<(), NotDecoded> {
    let not = |why: &str| Err(NotDecoded(why.to_owned()));
    let Some((header, rest)) = stored.split_first_chunk::<HEADER_LEN>() else {
        return not("it is shorter than a header");
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if header[..4] != MAGIC {
        return not("it does not begin as one");
    }
    let Some(codec) = Codec::from_word(word(4)) else { return not("its codec is not known") };
    if long(8) != content.len() as u64 {
        return not("it says that its content has another length");
    }
    let Some(encoded) = usize::try_from(long(16)).ok().and_then(|len| rest.get(..len)) else {
        return not("it says that it is longer than it is");
    };
    let filtered = codec.filter != Filter::None && codec.width > 1;
    let mut apart = Scratch::of(if filtered { content.len() } else { 0 });
    let into: &mut [u8] = if filtered { &mut apart } else { &mut *content };
    let len = match codec.method {
        Method::None => return not("it is not encoded at all"),
        Method::Lz4 => lz4_flex::block::decompress_into(encoded, into)
            .map_err(|why| NotDecoded(why.to_string()))?,
        Method::Zstd(_) => zstd::bulk::decompress_to_buffer(encoded, into)
            .map_err(|why| NotDecoded(why.to_string()))?,
    };
    if len != into.len() {
        return not("its content is shorter than it says");
    }
    if filtered {
        unfilter(codec, &apart, content);
    }
    match crc32fast::hash(content) == word(24) {
        true => Ok(()),
        false => not("the checksum of its content is wrong"),
    }
}

/// `content` with the filter of `codec`; `None` if there is none.
fn filter(codec: Codec, content: &[u8]) -> Option<Vec<u8>> {
    let width = usize::from(codec.width);
    if codec.filter == Filter::None || width < 2 {
        return None;
    }
    let mut filtered = vec![0; content.len()];
    match codec.filter {
        Filter::Delta => {
            let mut differences = content.to_vec();
            delta(&mut differences, width);
            shuffle(&differences, &mut filtered, width);
        }
        _ => shuffle(content, &mut filtered, width),
    }
    Some(filtered)
}

fn unfilter(codec: Codec, filtered: &[u8], content: &mut [u8]) {
    let width = usize::from(codec.width);
    unshuffle(filtered, content, width);
    if codec.filter == Filter::Delta {
        undelta(content, width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codecs() -> Vec<Codec> {
        let mut all = Vec::new();
        for method in [Method::Lz4, Method::Zstd(1), Method::Zstd(9)] {
            for filter in [Filter::None, Filter::Shuffle, Filter::Delta] {
                for width in [0, 1, 2, 3, 4, 8, 16, 24, 255] {
                    all.push(Codec { method, filter, width });
                }
            }
        }
        all
    }

    fn numbers(pages: usize) -> Vec<u8> {
        let count = u64::try_from(pages * PAGE_LEN / 8).unwrap();
        (0..count).flat_map(|n| (1_000_000 + n * 17 + n % 5).to_le_bytes()).collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let content = numbers(9);
        for codec in codecs() {
            let stored = encode(codec, &content).unwrap_or_else(|| panic!("{codec}"));
            assert!(stored.len().is_multiple_of(PAGE_LEN) && stored.len() < content.len());
            let mut back = vec![9; content.len()];
            decode(&stored, &mut back).unwrap();
            assert!(back == content, "{codec} of width {}", codec.width);
        }
    }

    #[test]
    fn a_codec_equals_what_is_read_of_its_word() {
        for text in ["none", "lz4", "zstd", "zstd:7+shuffle", "lz4+delta"] {
            let codec = text.parse::<Codec>().unwrap().for_elements_of(8);
            assert_eq!(Codec::from_word(codec.word()), Some(codec), "{text}");
        }
    }

    #[test]
    fn numbers_become_smaller_by_their_filter() {
        let content = numbers(64);
        let len = |text: &str| {
            let codec = text.parse::<Codec>().unwrap().for_elements_of(8);
            encode(codec, &content).unwrap().len()
        };
        assert!(len("lz4+shuffle") < len("lz4") && len("lz4+delta") < len("lz4+shuffle"));
        assert!(len("zstd+delta") < len("zstd"));
    }

    #[test]
    fn content_that_does_not_become_a_page_shorter_is_not_encoded() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        };
        let content: Vec<u8> = (0..16 * PAGE_LEN).map(|_| random()).collect();
        for codec in codecs() {
            assert!(encode(codec, &content).is_none(), "{codec}");
            assert!(encode(codec, &[0; PAGE_LEN]).is_none(), "{codec}");
            let shorter = encode(codec, &[0; 2 * PAGE_LEN]).map(|stored| stored.len());
            assert_eq!(shorter, Some(PAGE_LEN), "{codec}");
        }
    }

    #[test]
    fn only_one_codec_is_none() {
        assert!(Codec::default().is_none());
        assert!(codecs().iter().all(|codec| !codec.is_none()));
    }

    #[test]
    fn the_text_of_a_codec_says_all_of_it() {
        for text in ["none", "lz4", "zstd:3", "lz4+shuffle", "zstd:19+delta"] {
            assert_eq!(text.parse::<Codec>().unwrap().to_string(), text);
        }
        assert_eq!("zstd".parse::<Codec>().unwrap().method, Method::Zstd(3));
        for bad in ["", "gzip", "zstd:0", "zstd:23", "zstd:x", "lz4:3", "lz4+", "none+shuffle"] {
            let refused = bad.parse::<Codec>().unwrap_err().to_string();
            assert!(refused.contains("is no codec"), "{refused}");
        }
    }

    #[test]
    fn the_number_of_a_codec_says_all_of_it() {
        for codec in codecs() {
            assert_eq!(Codec::from_word(codec.word()), Some(codec));
        }
        assert_eq!(Codec::from_word(0), Some(Codec::default()));
        for word in [3, 0x100, 1 | 3 << 16, 2, 2 | 23 << 8, 1 | 1 << 8] {
            assert_eq!(Codec::from_word(word), None, "{word:#x}");
        }
    }

    #[test]
    fn a_size_that_lies_is_an_error() {
        let content = numbers(8);
        for codec in ["lz4", "zstd+shuffle"] {
            let codec = codec.parse::<Codec>().unwrap().for_elements_of(8);
            let stored = encode(codec, &content).unwrap();
            let decoded = |stored: &[u8], len: usize| decode(stored, &mut vec![0; len]);
            assert!(decoded(&stored, content.len() - PAGE_LEN).is_err());
            assert!(decoded(&stored, content.len() + PAGE_LEN).is_err());
            let mut bomb = stored.clone();
            bomb[8..16].copy_from_slice(&(1u64 << 40).to_le_bytes());
            assert!(decoded(&bomb, content.len()).is_err());
            // More content than there is room for, and less.
            for pages in [7usize, 9] {
                let other = encode(codec, &numbers(pages)).unwrap();
                let mut lies = other.clone();
                lies[8..16].copy_from_slice(&(content.len() as u64).to_le_bytes());
                assert!(decoded(&lies, content.len()).is_err(), "{codec} {pages}");
            }
            let mut longer = stored.clone();
            longer[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(decoded(&longer, content.len()).is_err());
            // Lengths have 64 bits, and all of them count.
            for byte in 8..24 {
                let mut changed = stored.clone();
                changed[byte] ^= 1;
                assert!(decoded(&changed, content.len()).is_err(), "byte {byte}");
            }
            assert!(decoded(&stored[..20], content.len()).is_err());
            assert!(decoded(&[], content.len()).is_err());
        }
    }

    proptest! {
        #[test]
        fn stored_bytes_that_were_changed_are_an_error_or_the_same_content(
            at in 0usize..PAGE_LEN, flip in 1u8.., cut in 0usize..3, which in 0usize..4,
        ) {
            let codec = ["lz4", "zstd", "lz4+delta", "zstd:7+shuffle"][which];
            let codec = codec.parse::<Codec>().unwrap().for_elements_of(8);
            let content = numbers(8);
            let mut stored = encode(codec, &content).unwrap();
            let at = at % stored.len();
            stored[at] ^= flip;
            stored.truncate(stored.len() - cut * 500);
            let mut back = vec![0; content.len()];
            if decode(&stored, &mut back).is_ok() {
                prop_assert!(back == content);
            }
        }
    }
}
