//! An expression in NumPy's syntax, as text and as a tree.
//!
//! ```text
//! "mean(t2m[::4], 0) + 1" -> parser of Python -> their tree -> Formula, with places in the text
//! ```
//!
//! # Invariants
//!
//! 1. A [`Formula`] is at most [`DEPTH_MAX`] deep, so whoever walks it may recurse.
//! 2. Every node says which bytes of the text it came from.
//!
//! # Failure
//!
//! What is no expression of Python, and what is one that means nothing for arrays, is a
//! [`FormulaError`] with its place. The parser and the trees it makes recurse as deep as the text
//! nests: so a text has at most [`BYTES_MAX`] bytes and is read on a thread with stack enough for
//! that.

use std::fmt;
use std::ops::Range;
use std::thread;

use ruff_python_ast::{Arguments, CmpOp, Expr, ExprCompare, Number, Operator, UnaryOp};
use ruff_text_size::{Ranged, TextRange};

/// How long an expression may be.
pub(crate) const BYTES_MAX: usize = 16 << 10;

/// How deep an expression may nest; `a + b + c` nests twice.
pub(crate) const DEPTH_MAX: usize = 400;

/// Where the parser runs. The deepest text takes under 10 KiB a byte in a build for debugging, and
/// what is not used of it costs nothing.
const STACK_BYTES: usize = 256 << 20;

/// One node of an expression.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Formula {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its bytes in the text.
    pub(crate) at: Range<usize>,
}

/// What a node is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    /// `None`
    None,
    /// `...`
    Ellipsis,
    /// `True`
    Bool(bool),
    /// `17`
    Integer(i64),
    /// `1.5`
    Float(f64),
    /// `2j`, by its imaginary part
    Imaginary(f64),
    /// `'float32'`
    Text(String),
    /// `t2m`
    Name(String),
    /// `t2m.T`
    Attribute(Box<Formula>, String),
    /// `t2m[1, ::2]`, the indices one by one
    Index(Box<Formula>, Vec<Formula>),
    /// `1:10:2`
    Slice([Option<Box<Formula>>; 3]),
    /// `mean(t2m, axis=0)`
    Call(Box<Formula>, Vec<Formula>, Vec<(String, Formula)>),
    /// The name of NumPy's function for the operator, and its operand.
    Unary(&'static str, Box<Formula>),
    /// The name of NumPy's function for the operator, and its operands.
    Binary(&'static str, Box<Formula>, Box<Formula>),
    /// `(0, 1)` or `[0, 1]`
    Sequence(Vec<Formula>),
}

/// Why a text is no formula.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FormulaError {
    /// What is wrong.
    pub(crate) what: String,
    /// Where, in bytes.
    pub(crate) at: Range<usize>,
}

impl FormulaError {
    /// An error at some place.
    pub(crate) fn new(what: impl Into<String>, at: Range<usize>) -> Self {
        Self { what: what.into(), at }
    }

    /// One sentence that shows the place in `text`.
    pub(crate) fn shown(&self, text: &str) -> String {
        let mut excerpt: String =
            text.get(self.at.clone()).unwrap_or("").chars().take(40).collect();
        let column = text.get(..self.at.start).unwrap_or(text).chars().count() + 1;
        if excerpt.is_empty() {
            excerpt = text.get(self.at.start..).unwrap_or("").chars().take(10).collect();
        }
        match excerpt.trim() {
            "" => format!("{}, at the end of the expression", self.what),
            shown => format!("{}, at character {column}: `{shown}`", self.what),
        }
    }
}

impl fmt::Display for FormulaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Reads an expression.
///
/// # Errors
///
/// What is wrong with it, and where.
pub(crate) fn parse(text: &str) -> Result<Formula, FormulaError> {
    if text.len() > BYTES_MAX {
        let what = format!("an expression has at most {BYTES_MAX} bytes, not {}", text.len());
        return Err(FormulaError::new(what, 0..0));
    }
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK_BYTES);
        let reader = reader.spawn_scoped(scope, || read(text));
        let reader = reader.map_err(|error| {
            FormulaError::new(format!("no thread to read the expression with: {error}"), 0..0)
        })?;
        let broken = || FormulaError::new("the parser broke on this expression", 0..text.len());
        reader.join().map_err(|_| broken())?
    })
}

fn read(text: &str) -> Result<Formula, FormulaError> {
    let parsed = ruff_python_parser::parse_expression(text).map_err(|error| {
        FormulaError::new(lower_first(&error.error.to_string()), range(error.location))
    })?;
    formula(&parsed.syntax().body, DEPTH_MAX)
}

/// Their messages begin with a capital letter, which ours do not.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn range(range: TextRange) -> Range<usize> {
    range.start().to_usize()..range.end().to_usize()
}

/// Their tree as ours, `depth` levels at most.
fn formula(tree: &Expr, depth: usize) -> Result<Formula, FormulaError> {
    let at = range(tree.range());
    let Some(depth) = depth.checked_sub(1) else {
        let what = format!("an expression nests at most {DEPTH_MAX} deep");
        return Err(FormulaError::new(what, at));
    };
    let below = |tree: &Expr| formula(tree, depth).map(Box::new);
    let all = |trees: &[Expr]| {
        trees.iter().map(|tree| formula(tree, depth)).collect::<Result<Vec<_>, FormulaError>>()
    };
    let kind = match tree {
        Expr::NoneLiteral(_) => Kind::None,
        Expr::EllipsisLiteral(_) => Kind::Ellipsis,
        Expr::BooleanLiteral(literal) => Kind::Bool(literal.value),
        Expr::NumberLiteral(literal) => number(&literal.value, &at)?,
        Expr::StringLiteral(literal) => Kind::Text(literal.value.to_str().to_owned()),
        Expr::Name(name) => Kind::Name(name.id.to_string()),
        Expr::Attribute(tree) => Kind::Attribute(below(&tree.value)?, tree.attr.id.to_string()),
        Expr::Subscript(tree) => Kind::Index(below(&tree.value)?, indices(&tree.slice, depth)?),
        Expr::Slice(tree) => {
            let part = |part: &Option<Box<Expr>>| part.as_deref().map(below).transpose();
            Kind::Slice([part(&tree.lower)?, part(&tree.upper)?, part(&tree.step)?])
        }
        Expr::Call(tree) => {
            let (plain, named) = arguments(&tree.arguments, depth)?;
            Kind::Call(below(&tree.func)?, plain, named)
        }
        Expr::UnaryOp(tree) => match tree.op {
            UnaryOp::Not => return Err(FormulaError::new("write ~ for `not` of an array", at)),
            UnaryOp::UAdd => Kind::Unary("positive", below(&tree.operand)?),
            UnaryOp::USub => Kind::Unary("negative", below(&tree.operand)?),
            UnaryOp::Invert => Kind::Unary("invert", below(&tree.operand)?),
        },
        Expr::BinOp(tree) => {
            Kind::Binary(function_of(tree.op), below(&tree.left)?, below(&tree.right)?)
        }
        Expr::Compare(tree) => comparison(tree, depth, &at)?,
        Expr::Tuple(tree) => Kind::Sequence(all(&tree.elts)?),
        Expr::List(tree) => Kind::Sequence(all(&tree.elts)?),
        Expr::BoolOp(_) => {
            let what = "write & and | with parentheses for `and` and `or` of arrays";
            return Err(FormulaError::new(what, at));
        }
        Expr::If(_) => {
            let what = "write where(condition, a, b) for `a if condition else b`";
            return Err(FormulaError::new(what, at));
        }
        _ => return Err(FormulaError::new("this part of Python means nothing for arrays", at)),
    };
    Ok(Formula { kind, at })
}

fn number(value: &Number, at: &Range<usize>) -> Result<Kind, FormulaError> {
    match value {
        Number::Int(value) => match value.as_i64() {
            Some(value) => Ok(Kind::Integer(value)),
            None => Err(FormulaError::new("an integer is below 2**63; write a float", at.clone())),
        },
        Number::Float(value) => Ok(Kind::Float(*value)),
        Number::Complex { imag, .. } => Ok(Kind::Imaginary(*imag)),
    }
}

/// What stands between brackets, as single indices.
fn indices(tree: &Expr, depth: usize) -> Result<Vec<Formula>, FormulaError> {
    match tree {
        Expr::Tuple(tuple) => tuple.elts.iter().map(|tree| formula(tree, depth)).collect(),
        one => Ok(vec![formula(one, depth)?]),
    }
}

type Given = (Vec<Formula>, Vec<(String, Formula)>);

fn arguments(tree: &Arguments, depth: usize) -> Result<Given, FormulaError> {
    let plain =
        tree.args.iter().map(|argument| formula(argument, depth)).collect::<Result<_, _>>()?;
    let mut named: Vec<(String, Formula)> = Vec::new();
    for keyword in &tree.keywords {
        let Some(name) = &keyword.arg else {
            let what = "`**` of arguments means nothing here";
            return Err(FormulaError::new(what, range(keyword.range)));
        };
        named.push((name.id.to_string(), formula(&keyword.value, depth)?));
    }
    Ok((plain, named))
}

fn comparison(tree: &ExprCompare, depth: usize, at: &Range<usize>) -> Result<Kind, FormulaError> {
    let ([operator], [right]) = (&*tree.ops, &*tree.comparators) else {
        let what = "write (a < b) & (b < c) for `a < b < c` of arrays";
        return Err(FormulaError::new(what, at.clone()));
    };
    let function = match operator {
        CmpOp::Eq => "equal",
        CmpOp::NotEq => "not_equal",
        CmpOp::Lt => "less",
        CmpOp::LtE => "less_equal",
        CmpOp::Gt => "greater",
        CmpOp::GtE => "greater_equal",
        CmpOp::Is | CmpOp::IsNot | CmpOp::In | CmpOp::NotIn => {
            let what = format!("`{}` means nothing for arrays", operator.as_str());
            return Err(FormulaError::new(what, at.clone()));
        }
    };
    let (left, right) = (formula(&tree.left, depth)?, formula(right, depth)?);
    Ok(Kind::Binary(function, Box::new(left), Box::new(right)))
}

/// What NumPy calls the operator.
fn function_of(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "add",
        Operator::Sub => "subtract",
        Operator::Mult => "multiply",
        Operator::MatMult => "matmul",
        Operator::Div => "divide",
        Operator::Mod => "remainder",
        Operator::Pow => "power",
        Operator::LShift => "left_shift",
        Operator::RShift => "right_shift",
        Operator::BitOr => "bitwise_or",
        Operator::BitXor => "bitwise_xor",
        Operator::BitAnd => "bitwise_and",
        Operator::FloorDiv => "floor_divide",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as nested calls of NumPy's functions.
    fn shown(formula: &Formula) -> String {
        let list = |all: &[Formula]| all.iter().map(shown).collect::<Vec<_>>().join(", ");
        match &formula.kind {
            Kind::None => "None".to_owned(),
            Kind::Ellipsis => "...".to_owned(),
            Kind::Bool(value) => value.to_string(),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => format!("{value:?}"),
            Kind::Imaginary(value) => format!("{value}j"),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Name(name) => name.clone(),
            Kind::Attribute(of, name) => format!("{}.{name}", shown(of)),
            Kind::Index(of, indices) => format!("{}[{}]", shown(of), list(indices)),
            Kind::Slice(parts) => {
                let part = |at: &Option<Box<Formula>>| at.as_deref().map_or(String::new(), shown);
                parts.iter().map(part).collect::<Vec<_>>().join(":")
            }
            Kind::Call(of, plain, named) => {
                let named = named.iter().map(|(name, value)| format!("; {name}={}", shown(value)));
                format!("{}({}{})", shown(of), list(plain), named.collect::<String>())
            }
            Kind::Unary(function, of) => format!("{function}({})", shown(of)),
            Kind::Binary(function, a, b) => format!("{function}({}, {})", shown(a), shown(b)),
            Kind::Sequence(all) => format!("<{}>", list(all)),
        }
    }

    #[test]
    fn operators_bind_as_in_python() {
        for (text, tree) in [
            ("a - b - c", "subtract(subtract(a, b), c)"),
            ("-a ** 2 ** n", "negative(power(a, power(2, n)))"),
            ("a + b @ c.T", "add(a, matmul(b, c.T))"),
            ("a < 1 | b", "less(a, bitwise_or(1, b))"),
            ("(a >= 1) & ~b", "bitwise_and(greater_equal(a, 1), invert(b))"),
            ("a // 2 % 3.5e1", "remainder(floor_divide(a, 2), 35.0)"),
        ] {
            assert_eq!(shown(&parse(text).unwrap()), tree, "{text}");
        }
    }

    #[test]
    fn slices_calls_and_literals_are_read_as_in_python() {
        for (text, tree) in [
            ("t[::4, -1, ..., None, 2:]", "t[::4, negative(1), ..., None, 2::]"),
            ("t[[0, 2]]", "t[<0, 2>]"),
            ("np.mean(t, axis=(0, 1), keepdims=True)", "np.mean(t; axis=<0, 1>; keepdims=true)"),
            ("a('climate/t2m').T", "a(\"climate/t2m\").T"),
            ("2j + +x", "add(2j, positive(x))"),
        ] {
            assert_eq!(shown(&parse(text).unwrap()), tree, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_for_arrays_is_refused_with_its_place() {
        for (text, word, at) in [
            ("mean(t", "expect", 6),
            ("", "expect", 0),
            ("a b", "unexpected", 2),
            ("1 + [x for x in t]", "means nothing", 4),
            ("a and b", "write &", 0),
            ("2 + (a < b < c)", "(a < b) &", 5),
            ("9999999999999999999", "2**63", 0),
            ("f(**a)", "`**`", 2),
            ("x = 3", "", 2),
            ("a if b else c", "where", 0),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.what.contains(word), "{text}: {error:?}");
            assert_eq!(error.at.start, at, "{text}: {error:?}");
            assert!(!error.shown(text).contains('\n'), "{text}");
        }
    }

    #[test]
    fn what_nests_too_deep_or_is_too_long_is_an_error_and_no_overflow() {
        let many = |text: &str, count: usize| text.repeat(count);
        for count in [DEPTH_MAX + 1, 1_000, 3_000, 100_000] {
            for text in [
                many("1+", count) + "1",
                many("(", count) + "1" + &many(")", count),
                many("-", count) + "1",
                many("~(", count) + "1" + &many(")", count),
                many("1**", count) + "1",
                many("f(", count) + "1" + &many(")", count),
                "t".to_owned() + &many("[0]", count),
                "t".to_owned() + &many(".T", count),
                many("(", count),
                many("[", count),
                many("1 if 1 else ", count) + "1",
                many("lambda: ", count) + "1",
                many("not ", count) + "1",
            ] {
                // Parentheses alone do not nest.
                let plain = text.starts_with("((") && text.ends_with(")");
                let fits = plain && text.len() <= BYTES_MAX;
                assert_eq!(parse(&text).is_ok(), fits, "{count} times {}", &text[..8]);
            }
        }
    }

    #[test]
    fn an_expression_as_deep_as_allowed_is_read() {
        let text = "1+".repeat(DEPTH_MAX - 1) + "1";
        assert!(parse(&text).is_ok());
    }
}
