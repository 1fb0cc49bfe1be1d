//! Values as Python and JSON write them: the form in which data types travel as text.
//!
//! ```text
//! {'descr': [('x', '<i4'), ('y', '<f8', (2,))], 'shape': (3,), ...}     Python, in .npy headers
//! [["x", "<i4"], ["y", "<f8", [2]]]                                     JSON, in metadata
//! ```
//! Both become a [`Literal`]; `dtype` turns it into a data type and back.
//!
//! # Invariants
//!
//! 1. A literal that was read is nested at most [`DEPTH_MAX`] deep, so that walking it by
//!    recursion is safe.
//! 2. [`Literal::to_python`] writes what Python's `repr` writes for printable text.
//!
//! # Failure
//!
//! [`LiteralError`] with the position of the first character that does not fit. Reading takes time
//! and memory in proportion to the text, for any text.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;

/// How deep lists and dicts may be nested; a data type at its own limit needs two levels for each
/// of its own.
pub(super) const DEPTH_MAX: usize = 100;

/// A value without identity: what `ast.literal_eval` or a JSON parser would return.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Text(String),
    List(Vec<Literal>),
    Tuple(Vec<Literal>),
    Dict(Vec<(String, Literal)>),
}

/// Why text is not a Python literal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} at character {at}")]
pub struct LiteralError {
    /// Position in characters, from 0.
    pub at: usize,
    /// What is wrong there.
    pub why: &'static str,
}

impl Literal {
    /// Reads one Python literal: texts, integers (Python 2's `L` allowed), `True`, `False`,
    /// `None`, tuples, lists, and dicts with text keys.
    pub(super) fn from_python(text: &str) -> Result<Self, LiteralError> {
        let mut reader = Reader { text: text.chars().collect(), at: 0 };
        let value = reader.value(0)?;
        reader.skip_space();
        if reader.at < reader.text.len() {
            return Err(reader.wrong("unexpected text after the value"));
        }
        Ok(value)
    }

    /// The items of a list or tuple.
    pub(super) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The tuple of `numbers`.
    pub(super) fn shape(numbers: &[u64]) -> Self {
        Self::Tuple(numbers.iter().map(|&len| Self::Int(i128::from(len))).collect())
    }

    /// Python's `repr` of the value.
    pub(super) fn to_python(&self) -> String {
        let mut out = String::new();
        self.write_python(&mut out);
        out
    }

    fn write_python(&self, out: &mut String) {
        match self {
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(number) => out.push_str(&number.to_string()),
            Self::Text(text) => write_text(text, out),
            Self::List(items) => write_items("[", items, "]", out),
            Self::Tuple(items) if items.len() == 1 => write_items("(", items, ",)", out),
            Self::Tuple(items) => write_items("(", items, ")", out),
            Self::Dict(entries) => {
                out.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    write_text(key, out);
                    out.push_str(": ");
                    value.write_python(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_items(open: &str, items: &[Literal], close: &str, out: &mut String) {
    out.push_str(open);
    for (at, item) in items.iter().enumerate() {
        out.push_str(if at > 0 { ", " } else { "" });
        item.write_python(out);
    }
    out.push_str(close);
}

/// Python prefers single quotes unless only they occur in the text.
fn write_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if char == quote => out.extend(['\\', quote]),
            _ if is_printable(char) => out.push(char),
            _ => {
                let code = u32::from(char);
                out.push_str(&match code {
                    0..=0xFF => format!("\\x{code:02x}"),
                    0x100..=0xFFFF => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    out.push(quote);
}

/// Whether Python prints `char` as it is. Combining marks are escaped here and not in Python: the
/// text read back is the same.
fn is_printable(char: char) -> bool {
    matches!(char, '\'' | '"') || char.escape_debug().len() == 1
}

/// A position in a text that is being read.
struct Reader {
    text: Vec<char>,
    at: usize,
}

impl Reader {
    fn wrong(&self, why: &'static str) -> LiteralError {
        LiteralError { at: self.at, why }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r' | '\x0C')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        self.skip_space();
        match self.peek() {
            Some('\'' | '"') => self.quoted().map(Literal::Text),
            Some('u') if matches!(self.text.get(self.at + 1), Some('\'' | '"')) => {
                self.at += 1;
                self.quoted().map(Literal::Text)
            }
            Some('0'..='9' | '-' | '+') => self.integer(),
            Some('A'..='Z' | 'a'..='z') => self.word(),
            Some('[') => Ok(Literal::List(self.items(']', depth)?.0)),
            Some('(') => {
                let (mut items, comma) = self.items(')', depth)?;
                match items.pop() {
                    Some(only) if items.is_empty() && !comma => Ok(only),
                    last => {
                        items.extend(last);
                        Ok(Literal::Tuple(items))
                    }
                }
            }
            Some('{') => self.dict(depth),
            Some(_) => Err(self.wrong("unexpected character")),
            None => Err(self.wrong("the text ends where a value should be")),
        }
    }

    fn word(&mut self) -> Result<Literal, LiteralError> {
        let start = self.at;
        while self.peek().is_some_and(|char| char.is_ascii_alphanumeric() || char == '_') {
            self.at += 1;
        }
        match self.text[start..self.at].iter().collect::<String>().as_str() {
            "True" => Ok(Literal::Bool(true)),
            "False" => Ok(Literal::Bool(false)),
            "None" => Ok(Literal::None),
            _ => Err(LiteralError { at: start, why: "unknown word" }),
        }
    }

    fn integer(&mut self) -> Result<Literal, LiteralError> {
        let start = self.at;
        self.at += 1;
        while self.peek().is_some_and(|char| char.is_ascii_digit()) {
            self.at += 1;
        }
        let text: String = self.text[start..self.at].iter().collect();
        self.take('L');
        match text.parse() {
            Ok(number) => Ok(Literal::Int(number)),
            Err(_) => Err(LiteralError { at: start, why: "not an integer of at most 127 bits" }),
        }
    }

    fn quoted(&mut self) -> Result<String, LiteralError> {
        let quote = self.peek();
        self.at += 1;
        let mut text = String::new();
        loop {
            let char = self.peek().ok_or_else(|| self.wrong("text without an end"))?;
            self.at += 1;
            match char {
                _ if Some(char) == quote => return Ok(text),
                '\n' => return Err(self.wrong("line break inside a text")),
                '\\' => text.push(self.escaped()?),
                _ => text.push(char),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, LiteralError> {
        let char = self.peek().ok_or_else(|| self.wrong("text without an end"))?;
        self.at += 1;
        let digits = match char {
            '\\' | '\'' | '"' => return Ok(char),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.wrong("unknown escape")),
        };
        let end = (self.at + digits).min(self.text.len());
        let hex: String = self.text[self.at..end].iter().collect();
        let is_hex = hex.len() == digits && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(&hex, 16).ok().filter(|_| is_hex);
        let char = code.and_then(char::from_u32).ok_or_else(|| self.wrong("bad escape"))?;
        self.at = end;
        Ok(char)
    }

    /// Items up to `close`, and whether a comma followed the last of them.
    fn items(&mut self, close: char, depth: usize) -> Result<(Vec<Literal>, bool), LiteralError> {
        self.at += 1;
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.skip_space();
            if self.take(close) {
                return Ok((items, comma));
            }
            if !items.is_empty() && !comma {
                return Err(self.wrong("a comma or the closing bracket is missing"));
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
            comma = self.take(',');
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        self.at += 1;
        let mut entries = Vec::new();
        let mut comma = true;
        loop {
            self.skip_space();
            if self.take('}') {
                return Ok(Literal::Dict(entries));
            }
            if !comma {
                return Err(self.wrong("a comma or `}` is missing"));
            }
            let Literal::Text(key) = self.value(depth + 1)? else {
                return Err(self.wrong("a key must be a text"));
            };
            self.skip_space();
            if !self.take(':') {
                return Err(self.wrong("`:` is missing"));
            }
            entries.push((key, self.value(depth + 1)?));
            self.skip_space();
            comma = self.take(',');
        }
    }
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => to.serialize_unit(),
            Self::Bool(value) => to.serialize_bool(*value),
            Self::Int(number) => match u64::try_from(*number) {
                Ok(number) => to.serialize_u64(number),
                Err(_) => to.serialize_i128(*number),
            },
            Self::Text(text) => to.serialize_str(text),
            Self::List(items) | Self::Tuple(items) => to.collect_seq(items),
            Self::Dict(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// Reads a literal from any self-describing format, nested at most [`DEPTH_MAX`] deep.
#[derive(Clone, Copy)]
pub(super) struct LiteralSeed {
    depth: usize,
}

impl LiteralSeed {
    pub(super) const ROOT: Self = Self { depth: 0 };

    fn inner<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom("nested too deep"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for LiteralSeed {
    type Value = Literal;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Literal, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for LiteralSeed {
    type Value = Literal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a data type: a text, a list of fields or a dict of names and formats")
    }

    fn visit_unit<E>(self) -> Result<Literal, E> {
        Ok(Literal::None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Literal, E> {
        Ok(Literal::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Literal, E> {
        Ok(Literal::Int(i128::from(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Literal, E> {
        Ok(Literal::Int(i128::from(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Literal, E> {
        Ok(Literal::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Literal, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Literal::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Literal, A::Error> {
        let inner = self.inner()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            entries.push((key, map.next_value_seed(inner)?));
        }
        Ok(Literal::Dict(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn python_literals_are_read() {
        let text = |text: &str| Literal::Text(text.to_owned());
        let read = |text| Literal::from_python(text).unwrap();
        assert_eq!(read(" (1, ) "), Literal::Tuple(vec![Literal::Int(1)]));
        assert_eq!(read("(1)"), Literal::Int(1));
        assert_eq!(read("()"), Literal::Tuple(vec![]));
        assert_eq!(read("[True,None,-3L]").items().unwrap().len(), 3);
        assert_eq!(read(r#"'a\'\x41\u00e9' "#), text("a'A\u{e9}"));
        assert_eq!(read(r#"u"it's""#), text("it's"));
        assert_eq!(read("{'a': 1,}"), Literal::Dict(vec![("a".to_owned(), Literal::Int(1))]));
    }

    #[test]
    fn what_is_not_a_literal_is_refused_with_its_position() {
        for wrong in ["", "(", "[1 2]", "{1: 2}", "{'a' 1}", "'a", "'\\x4'", "a", "1,", "f()", "-"]
        {
            let _ = Literal::from_python(wrong).unwrap_err();
        }
        let deep = "(".repeat(1 << 20);
        let refused = Literal::from_python(&deep).unwrap_err();
        assert_eq!(refused.to_string(), "nested too deep at character 101");
    }

    fn literal() -> impl Strategy<Value = Literal> {
        let leaf = prop_oneof![
            Just(Literal::None),
            any::<bool>().prop_map(Literal::Bool),
            any::<i64>().prop_map(|number| Literal::Int(i128::from(number))),
            any::<String>().prop_map(Literal::Text),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..5);
            let entries = prop::collection::vec((any::<String>(), inner), 0..5);
            prop_oneof![
                items.clone().prop_map(Literal::List),
                items.prop_map(Literal::Tuple),
                entries.prop_map(Literal::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(literal in literal()) {
            prop_assert_eq!(Literal::from_python(&literal.to_python()), Ok(literal));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in any::<String>()) {
            let _ = Literal::from_python(&text);
        }

        #[test]
        fn any_brackets_are_read_or_refused_without_panic(
            text in r#"[\[\](){},:'\\ux0-9TL-]{0,60}"#,
        ) {
            let _ = Literal::from_python(&text);
        }
    }
}
