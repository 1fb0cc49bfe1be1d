//! The functions and methods of expressions, by NumPy's names.
//!
//! # Invariants
//!
//! 1. Every argument is used or refused: none is passed over in silence.
//!
//! # Failure
//!
//! A [`FormulaError`] with the place of the call or the argument.

use std::ops::Range;

use zbigarray::Dtype;
use zbigarray::compute::linalg::{self, Assume, Norm, Triangle};
use zbigarray::compute::{Axes, Blocked, ComputeError, Number, Operand, Scalar};

use super::evaluate::{Meaning, at};
use super::formula::FormulaError;

type Place = Range<usize>;
type Answer<'e> = Result<Meaning<'e>, FormulaError>;

/// Functions of one array, which take nothing else.
macro_rules! of_one {
    ($($name:ident),*) => {
        const OF_ONE: &[&str] = &[$(stringify!($name)),*];

        fn one<'e>(name: &str, array: &Blocked<'e>) -> Option<Result<Blocked<'e>, ComputeError>> {
            match name {
                $(stringify!($name) => Some(array.$name()),)*
                _ => None,
            }
        }
    };
}
of_one! {
    negative, positive, absolute, sign, conjugate, square, reciprocal, exp, exp2, expm1, log, log2,
    log10, log1p, sqrt, cbrt, sin, cos, tan, arcsin, arccos, arctan, sinh, cosh, tanh, arcsinh,
    arccosh, arctanh, degrees, radians, floor, ceil, trunc, rint, invert, logical_not, isnan, isinf,
    isfinite, signbit, real, imag, ravel
}

/// Functions of two.
macro_rules! of_two {
    ($($name:ident),*) => {
        const OF_TWO: &[&str] = &[$(stringify!($name)),*];

        fn two<'e>(
            name: &str,
            one: &Blocked<'e>,
            other: Operand<'e>,
        ) -> Option<Result<Blocked<'e>, ComputeError>> {
            match name {
                $(stringify!($name) => Some(one.$name(other)),)*
                _ => None,
            }
        }
    };
}
of_two! {
    add, subtract, multiply, divide, floor_divide, remainder, power, maximum, minimum, fmax, fmin,
    arctan2, hypot, copysign, logaddexp, bitwise_and, bitwise_or, bitwise_xor, left_shift,
    right_shift, logical_and, logical_or, logical_xor, equal, not_equal, less, less_equal, greater,
    greater_equal
}

/// Reductions, with `axis` and `keepdims`.
macro_rules! reductions {
    ($($name:ident),*) => {
        const REDUCTIONS: &[&str] = &[$(stringify!($name)),*];

        fn reduced<'e>(
            name: &str,
            array: &Blocked<'e>,
            axes: Axes,
        ) -> Option<Result<Blocked<'e>, ComputeError>> {
            match name {
                $(stringify!($name) => Some(array.$name(axes)),)*
                _ => None,
            }
        }
    };
}
reductions! {
    sum, nansum, prod, nanprod, mean, nanmean, min, max, nanmin, nanmax, any, all, argmin, argmax,
    nanargmin, nanargmax
}

/// Reductions that also have `ddof`.
const VARIANCES: &[&str] = &["var", "std", "nanvar", "nanstd"];

/// What has arguments of its own.
const OTHERS: &[&str] = &[
    "where",
    "clip",
    "transpose",
    "swapaxes",
    "expand_dims",
    "squeeze",
    "reshape",
    "flatten",
    "concatenate",
    "stack",
    "repeat",
    "roll",
    "flip",
    "broadcast_to",
    "astype",
    "take",
    "zeros",
    "ones",
    "full",
    "matmul",
    "dot",
    "tensordot",
    "outer",
    "norm",
    "qr",
    "svd",
    "svd_compressed",
    "solve",
    "cholesky",
    "solve_triangular",
];

/// Other names of the same.
fn canonical(name: &str) -> &str {
    match name {
        "abs" => "absolute",
        "conj" => "conjugate",
        "true_divide" => "divide",
        "mod" => "remainder",
        "pow" => "power",
        "asinh" => "arcsinh",
        "acosh" => "arccosh",
        "atanh" => "arctanh",
        "asin" => "arcsin",
        "acos" => "arccos",
        "atan" => "arctan",
        "atan2" => "arctan2",
        "deg2rad" => "radians",
        "rad2deg" => "degrees",
        "amin" => "min",
        "amax" => "max",
        "concat" => "concatenate",
        "permute_dims" => "transpose",
        "bitwise_not" | "bitwise_invert" => "invert",
        "fabs" => "absolute",
        other => other,
    }
}

/// ` - did you mean ...?` if one of `names` is near.
pub(crate) fn suggestion<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> String {
    let best =
        names.map(|name| (distance(word, name), name.len().abs_diff(word.len()), name)).min();
    match best {
        Some((far, _, name)) if far <= 2 || far * 3 <= word.chars().count() => {
            format!("; did you mean `{name}`?")
        }
        _ => String::new(),
    }
}

/// How many letters have to be changed, added or taken away.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(200).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().take(200).enumerate() {
        let mut before = row[0];
        row[0] = line + 1;
        for (at, known) in other.iter().enumerate() {
            let change = before + usize::from(letter != *known);
            before = row[at + 1];
            row[at + 1] = change.min(row[at] + 1).min(before + 1);
        }
    }
    row[other.len()]
}

/// The number type that NumPy calls so.
pub(crate) fn number_of(name: &str) -> Option<Number> {
    let name = match name {
        "float" | "double" => "f8",
        "int" => "i8",
        "bool" | "bool_" => "?",
        "complex" => "c16",
        "single" => "f4",
        other => other,
    };
    Dtype::parse(name).ok().and_then(|dtype| Number::of(&dtype))
}

/// An array without axes of a number, or the array.
pub(crate) fn as_array<'e>(
    meaning: Meaning<'e>,
    place: &Place,
) -> Result<Blocked<'e>, FormulaError> {
    match meaning {
        Meaning::Array(array) => Ok(array),
        Meaning::Scalar(scalar) => {
            Blocked::full(&[], scalar, scalar.number()).map_err(|error| at(error, place))
        }
        _ => Err(FormulaError::new("an array is needed", place.clone())),
    }
}

/// `array.name`.
pub(crate) fn attribute<'e>(array: &Blocked<'e>, name: &str, place: &Place) -> Answer<'e> {
    let whole = |value: u64| Meaning::Scalar(Scalar::Int(value.into()));
    let found = match name {
        "T" => array.transposed(),
        "real" => array.real(),
        "imag" => array.imag(),
        "shape" => {
            return Ok(Meaning::List(array.shape().iter().map(|&len| whole(len)).collect()));
        }
        "ndim" => return Ok(whole(array.ndim() as u64)),
        "size" => return Ok(whole(array.size())),
        "nbytes" => return Ok(whole(array.nbytes())),
        _ => {
            let all = ["T", "real", "imag", "shape", "ndim", "size", "nbytes"];
            let what = format!("an array has no `{name}`{}", suggestion(name, all.into_iter()));
            return Err(FormulaError::new(what, place.clone()));
        }
    };
    found.map(Meaning::Array).map_err(|error| at(error, place))
}

/// The arguments of one call, taken one by one.
struct Given<'e> {
    name: String,
    place: Place,
    plain: std::vec::IntoIter<(Meaning<'e>, Place)>,
    named: Vec<(String, Meaning<'e>, Place)>,
}

impl<'e> Given<'e> {
    /// The next argument without a name, or the one of this name.
    fn maybe(&mut self, name: &str) -> Option<(Meaning<'e>, Place)> {
        if let Some(given) = self.plain.next() {
            return Some(given);
        }
        self.only_named(name)
    }

    /// The argument of this name, which has to be written.
    fn only_named(&mut self, name: &str) -> Option<(Meaning<'e>, Place)> {
        let found = self.named.iter().position(|(own, ..)| own == name)?;
        let (_, meaning, place) = self.named.remove(found);
        Some((meaning, place))
    }

    fn needed(&mut self, name: &str) -> Result<(Meaning<'e>, Place), FormulaError> {
        let missing = format!("{} needs the argument `{name}`", self.name);
        self.maybe(name).ok_or_else(|| FormulaError::new(missing, self.place.clone()))
    }

    fn array(&mut self, name: &str) -> Result<Blocked<'e>, FormulaError> {
        let (meaning, place) = self.needed(name)?;
        as_array(meaning, &place)
    }

    fn operand(&mut self, name: &str) -> Result<Operand<'e>, FormulaError> {
        let (meaning, place) = self.needed(name)?;
        meaning.operand(&place)
    }

    fn whole(&mut self, name: &str) -> Result<i64, FormulaError> {
        let (meaning, place) = self.needed(name)?;
        whole(&meaning, &place)
    }

    fn whole_or(&mut self, name: &str, default: i64) -> Result<i64, FormulaError> {
        match self.maybe(name) {
            None => Ok(default),
            Some((meaning, place)) => whole(&meaning, &place),
        }
    }

    fn count_or(&mut self, name: &str, default: u64) -> Result<u64, FormulaError> {
        match self.maybe(name) {
            None => Ok(default),
            Some((meaning, place)) => u64::try_from(whole(&meaning, &place)?)
                .map_err(|_| FormulaError::new(format!("`{name}` is not negative"), place)),
        }
    }

    /// A whole number or several.
    fn wholes(&mut self, name: &str) -> Result<Vec<i64>, FormulaError> {
        let (meaning, place) = self.needed(name)?;
        wholes(&meaning, &place)
    }

    fn lengths(&mut self, name: &str) -> Result<Vec<u64>, FormulaError> {
        let negative = FormulaError::new("a length is not negative", self.place.clone());
        let all = self.wholes(name)?;
        all.iter().map(|&len| u64::try_from(len).map_err(|_| negative.clone())).collect()
    }

    fn truth(&mut self, name: &str) -> Result<bool, FormulaError> {
        match self.only_named(name) {
            None => Ok(false),
            Some((Meaning::Scalar(Scalar::Bool(value)), _)) => Ok(value),
            Some((_, place)) => Err(FormulaError::new(format!("`{name}` is True or False"), place)),
        }
    }

    fn axes(&mut self) -> Result<Axes, FormulaError> {
        let axes = match self.maybe("axis") {
            None | Some((Meaning::Nothing, _)) => Axes::all(),
            Some((meaning @ Meaning::Scalar(_), place)) => Axes::from(whole(&meaning, &place)?),
            Some((meaning, place)) => Axes::from(&wholes(&meaning, &place)?[..]),
        };
        Ok(if self.truth("keepdims")? { axes.keep_dims() } else { axes })
    }

    fn dtype(&mut self, default: Option<Number>) -> Result<Number, FormulaError> {
        match (self.maybe("dtype"), default) {
            (None, Some(default)) => Ok(default),
            (Some((Meaning::Text(name), place)), _) => number_of(&name)
                .ok_or_else(|| FormulaError::new(format!("`{name}` is no type of numbers"), place)),
            (Some((_, place)), _) => {
                let what = "a type is written as text, such as 'float32', or as np.float32";
                Err(FormulaError::new(what, place))
            }
            (None, None) => {
                let what = format!("{} needs the argument `dtype`", self.name);
                Err(FormulaError::new(what, self.place.clone()))
            }
        }
    }

    fn text_or(&mut self, name: &str, default: &str) -> Result<String, FormulaError> {
        match self.maybe(name) {
            None | Some((Meaning::Nothing, _)) => Ok(default.to_owned()),
            Some((Meaning::Text(text), _)) => Ok(text),
            Some((_, place)) => Err(FormulaError::new(format!("`{name}` is a text"), place)),
        }
    }

    /// Keeps invariant 1.
    fn nothing_left(&mut self) -> Result<(), FormulaError> {
        if let Some((_, place)) = self.plain.next() {
            return Err(FormulaError::new(format!("{} has too many arguments", self.name), place));
        }
        match self.named.pop() {
            None => Ok(()),
            Some((name, _, place)) => {
                let what = format!("{} has no argument `{name}`", self.name);
                Err(FormulaError::new(what, place))
            }
        }
    }
}

fn whole(meaning: &Meaning<'_>, place: &Place) -> Result<i64, FormulaError> {
    match meaning {
        Meaning::Scalar(Scalar::Int(value)) => i64::try_from(*value)
            .map_err(|_| FormulaError::new("the number is too large", place.clone())),
        _ => Err(FormulaError::new("a whole number is needed", place.clone())),
    }
}

fn wholes(meaning: &Meaning<'_>, place: &Place) -> Result<Vec<i64>, FormulaError> {
    match meaning {
        Meaning::List(all) => all.iter().map(|one| whole(one, place)).collect(),
        one => Ok(vec![whole(one, place)?]),
    }
}

/// What a call gives.
pub(crate) fn call<'e>(
    name: &str,
    plain: Vec<(Meaning<'e>, Place)>,
    named: Vec<(String, Meaning<'e>, Place)>,
    place: &Place,
) -> Answer<'e> {
    let name = canonical(name);
    let mut given =
        Given { name: name.to_owned(), place: place.clone(), plain: plain.into_iter(), named };
    let refused = |error: ComputeError| at(error, place);
    let answer = if OF_ONE.contains(&name) {
        of_one(name, &mut given)?
    } else if OF_TWO.contains(&name) {
        of_two(name, &mut given)?
    } else if REDUCTIONS.contains(&name) {
        let array = given.array("a")?;
        let axes = given.axes()?;
        reduced(name, &array, axes).transpose().map_err(refused)?.map(Meaning::Array)
    } else if VARIANCES.contains(&name) {
        Some(Meaning::Array(variance(name, &mut given)?))
    } else if OTHERS.contains(&name) {
        Some(other(name, &mut given)?)
    } else {
        let all = [OF_ONE, OF_TWO, REDUCTIONS, VARIANCES, OTHERS].concat();
        let what = format!("no function `{name}`{}", suggestion(name, all.into_iter()));
        return Err(FormulaError::new(what, place.clone()));
    };
    given.nothing_left()?;
    let missing = || FormulaError::new(format!("no function `{name}`"), place.clone());
    answer.ok_or_else(missing)
}

fn of_one<'e>(name: &str, given: &mut Given<'e>) -> Result<Option<Meaning<'e>>, FormulaError> {
    let (meaning, place) = given.needed("x")?;
    if let Meaning::Scalar(scalar) = &meaning {
        match (name, scalar) {
            ("positive", _) => return Ok(Some(meaning)),
            ("negative", Scalar::Int(value)) if *value > i128::MIN => {
                return Ok(Some(Meaning::Scalar(Scalar::Int(-value))));
            }
            ("negative", Scalar::Float(value)) => {
                return Ok(Some(Meaning::Scalar(Scalar::Float(-value))));
            }
            ("negative", Scalar::Complex(value)) => {
                return Ok(Some(Meaning::Scalar(Scalar::Complex(-value))));
            }
            _ => {}
        }
    }
    let array = as_array(meaning, &place)?;
    let found = one(name, &array).transpose().map_err(|error| at(error, &given.place))?;
    Ok(found.map(Meaning::Array))
}

fn of_two<'e>(name: &str, given: &mut Given<'e>) -> Result<Option<Meaning<'e>>, FormulaError> {
    let (left, right) = (given.operand("x1")?, given.operand("x2")?);
    let left = match (left, &right) {
        (Operand::Array(array), _) => array,
        (Operand::Scalar(one), Operand::Scalar(other)) => {
            if let Some(folded) = folded(name, one, *other) {
                return Ok(Some(Meaning::Scalar(folded)));
            }
            as_array(Meaning::Scalar(one), &given.place)?
        }
        (Operand::Scalar(one), Operand::Array(other)) => {
            let number = one.meets(other.number());
            Blocked::full(&[], one, number).map_err(|error| at(error, &given.place))?
        }
    };
    let found = two(name, &left, right).transpose().map_err(|error| at(error, &given.place))?;
    Ok(found.map(Meaning::Array))
}

/// Arithmetic of numbers that are written, as Python does it.
fn folded(name: &str, one: Scalar, other: Scalar) -> Option<Scalar> {
    if let (Scalar::Int(a), Scalar::Int(b)) = (one, other) {
        let whole = match name {
            "add" => a.checked_add(b),
            "subtract" => a.checked_sub(b),
            "multiply" => a.checked_mul(b),
            "power" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            "floor_divide" if b > 0 => Some(a.div_euclid(b)),
            "remainder" if b > 0 => Some(a.rem_euclid(b)),
            _ => None,
        };
        if let Some(whole) = whole {
            return Some(Scalar::Int(whole));
        }
    }
    let float = |scalar| match scalar {
        Scalar::Int(value) => Some(value as f64),
        Scalar::Float(value) => Some(value),
        _ => None,
    };
    if let (Scalar::Complex(_), _) | (_, Scalar::Complex(_)) = (one, other) {
        let complex = |scalar| match scalar {
            Scalar::Complex(value) => Some(value),
            other => float(other).map(|re| num_complex::Complex::new(re, 0.0)),
        };
        let (a, b) = (complex(one)?, complex(other)?);
        return match name {
            "add" => Some(Scalar::Complex(a + b)),
            "subtract" => Some(Scalar::Complex(a - b)),
            "multiply" => Some(Scalar::Complex(a * b)),
            _ => None,
        };
    }
    let (a, b) = (float(one)?, float(other)?);
    let value = match name {
        "add" => a + b,
        "subtract" => a - b,
        "multiply" => a * b,
        "divide" if b != 0.0 => a / b,
        "power" if a >= 0.0 || b.fract() == 0.0 => a.powf(b),
        _ => return None,
    };
    Some(Scalar::Float(value))
}

fn variance<'e>(name: &str, given: &mut Given<'e>) -> Result<Blocked<'e>, FormulaError> {
    let array = given.array("a")?;
    let axes = given.axes()?;
    let ddof = match given.only_named("ddof") {
        None => 0.0,
        Some((Meaning::Scalar(Scalar::Float(value)), _)) => value,
        Some((meaning, place)) => whole(&meaning, &place)? as f64,
    };
    let found = match name {
        "var" => array.var(axes, ddof),
        "std" => array.std(axes, ddof),
        "nanvar" => array.nanvar(axes, ddof),
        _ => array.nanstd(axes, ddof),
    };
    found.map_err(|error| at(error, &given.place))
}

/// Functions with arguments of their own that give one array.
fn other<'e>(name: &str, given: &mut Given<'e>) -> Answer<'e> {
    let place = given.place.clone();
    let refused = |error: ComputeError| at(error, &place);
    let found = match name {
        "where" => {
            let condition = given.array("condition")?;
            let (yes, no) = (given.operand("x")?, given.operand("y")?);
            condition.choose(yes, no)
        }
        "clip" => {
            let array = given.array("a")?;
            let mut bound = |name: &str| match given.maybe(name) {
                None | Some((Meaning::Nothing, _)) => Ok(None),
                Some((meaning, place)) => meaning.operand(&place).map(Some),
            };
            let (low, high) = (bound("min")?, bound("max")?);
            array.clip(low, high)
        }
        "concatenate" | "stack" => {
            let (meaning, parts_at) = given.needed("arrays")?;
            let Meaning::List(parts) = meaning else {
                return Err(FormulaError::new("a list of arrays is needed", parts_at));
            };
            let parts = parts.into_iter().map(|part| as_array(part, &parts_at));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let axis = given.whole_or("axis", 0)?;
            if name == "stack" {
                Blocked::stack(&parts, axis)
            } else {
                Blocked::concatenate(&parts, axis)
            }
        }
        "zeros" | "ones" => {
            let shape = given.lengths("shape")?;
            let number = given.dtype(Some(Number::F64))?;
            if name == "zeros" {
                Blocked::zeros(&shape, number)
            } else {
                Blocked::ones(&shape, number)
            }
        }
        "full" => {
            let shape = given.lengths("shape")?;
            let (meaning, value_at) = given.needed("fill_value")?;
            let Meaning::Scalar(value) = meaning else {
                return Err(FormulaError::new("a number is needed", value_at));
            };
            let number = given.dtype(Some(value.number()))?;
            Blocked::full(&shape, value, number)
        }
        "matmul" | "dot" | "outer" | "tensordot" => product(name, given)?,
        "norm" | "qr" | "svd" | "svd_compressed" | "solve" | "cholesky" | "solve_triangular" => {
            return algebra(name, given);
        }
        _ => moved(name, given)?,
    };
    found.map(Meaning::Array).map_err(refused)
}

type Found<'e> = Result<Result<Blocked<'e>, ComputeError>, FormulaError>;

/// Functions that put elements elsewhere.
fn moved<'e>(name: &str, given: &mut Given<'e>) -> Found<'e> {
    let array = given.array("a")?;
    Ok(match name {
        "transpose" => match given.maybe("axes") {
            None | Some((Meaning::Nothing, _)) => array.transposed(),
            Some((first @ Meaning::Scalar(_), place)) => {
                // `x.transpose(1, 0)`
                let mut axes = vec![whole(&first, &place)?];
                for (axis, place) in given.plain.by_ref() {
                    axes.push(whole(&axis, &place)?);
                }
                array.transpose(&axes)
            }
            Some((meaning, place)) => array.transpose(&wholes(&meaning, &place)?),
        },
        "reshape" => {
            let mut shape = given.wholes("shape")?;
            for (len, place) in given.plain.by_ref() {
                shape.push(whole(&len, &place)?);
            }
            array.reshape(&shape)
        }
        "flatten" => array.ravel(),
        "swapaxes" => array.swapaxes(given.whole("axis1")?, given.whole("axis2")?),
        "expand_dims" => array.expand_dims(given.whole("axis")?),
        "squeeze" => match given.maybe("axis") {
            Some((axis, place)) => array.squeeze(whole(&axis, &place)?),
            None => {
                let ones: Vec<usize> =
                    (0..array.ndim()).filter(|&axis| array.shape()[axis] == 1).collect();
                ones.iter().rev().try_fold(array, |array, &axis| {
                    array.squeeze(i64::try_from(axis).unwrap_or(i64::MAX))
                })
            }
        },
        "flip" => array.flip(given.whole("axis")?),
        "roll" => array.roll(given.whole("shift")?, given.whole("axis")?),
        "repeat" => {
            let times = given.count_or("repeats", 1)?;
            array.repeat(times, given.whole("axis")?)
        }
        "take" => {
            let positions = given.wholes("indices")?;
            array.take(&positions, given.whole("axis")?)
        }
        "broadcast_to" => array.broadcast_to(&given.lengths("shape")?),
        _ => array.astype(given.dtype(None)?),
    })
}

fn product<'e>(name: &str, given: &mut Given<'e>) -> Found<'e> {
    let (a, b) = (given.array("a")?, given.array("b")?);
    if name != "tensordot" {
        return Ok(match name {
            "matmul" => linalg::matmul(&a, &b),
            "dot" => linalg::dot(&a, &b),
            _ => linalg::outer(&a, &b),
        });
    }
    let (left, right) = match given.maybe("axes") {
        None => (vec![-2, -1], vec![0, 1]),
        Some((Meaning::List(pair), place)) if pair.len() == 2 => {
            (wholes(&pair[0], &place)?, wholes(&pair[1], &place)?)
        }
        Some((meaning, place)) => {
            let count = whole(&meaning, &place)?;
            if !(0..=a.ndim() as i64).contains(&count) {
                let what = format!("{count} axes of an array with {} axes", a.ndim());
                return Err(FormulaError::new(what, place));
            }
            ((-count..0).collect(), (0..count).collect())
        }
    };
    Ok(linalg::tensordot(&a, &b, (&left, &right)))
}

fn algebra<'e>(name: &str, given: &mut Given<'e>) -> Answer<'e> {
    let place = given.place.clone();
    let refused = |error: ComputeError| at(error, &place);
    let a = given.array("a")?;
    let found = match name {
        "qr" => {
            let (q, r) = linalg::qr(&a).map_err(refused)?;
            return Ok(Meaning::List([q, r].map(Meaning::Array).to_vec()));
        }
        "svd" => {
            let (u, s, vt) = linalg::svd(&a).map_err(refused)?;
            return Ok(Meaning::List([u, s, vt].map(Meaning::Array).to_vec()));
        }
        "svd_compressed" => {
            let k = given.count_or("k", 1)?;
            let iterations = given.count_or("n_power_iter", 0)?;
            let seed = given.count_or("seed", 0)?;
            let iterations = u32::try_from(iterations).unwrap_or(u32::MAX);
            let found = linalg::svd_compressed(&a, k, iterations, seed).map_err(refused)?;
            let (u, s, vt) = found;
            return Ok(Meaning::List([u, s, vt].map(Meaning::Array).to_vec()));
        }
        "norm" => linalg::norm(&a, norm_order(given)?),
        "cholesky" => linalg::cholesky(&a),
        "solve" => {
            let b = given.array("b")?;
            let assume = match given.text_or("assume_a", "gen")?.as_str() {
                "gen" => Assume::General,
                "pos" => Assume::Positive,
                _ => return Err(FormulaError::new("assume_a is 'gen' or 'pos'", place)),
            };
            linalg::solve(&a, &b, assume)
        }
        _ => {
            let b = given.array("b")?;
            let triangle = if given.truth("lower")? { Triangle::Lower } else { Triangle::Upper };
            linalg::solve_triangular(&a, &b, triangle)
        }
    };
    found.map(Meaning::Array).map_err(refused)
}

fn norm_order(given: &mut Given<'_>) -> Result<Norm, FormulaError> {
    match given.maybe("ord") {
        None | Some((Meaning::Nothing, _)) => Ok(Norm::Frobenius),
        Some((Meaning::Text(name), _)) if name == "fro" => Ok(Norm::Frobenius),
        Some((Meaning::Scalar(Scalar::Int(1)), _)) => Ok(Norm::One),
        Some((Meaning::Scalar(Scalar::Int(2)), _)) => Ok(Norm::Two),
        Some((Meaning::Scalar(Scalar::Float(value)), _)) if value == f64::INFINITY => {
            Ok(Norm::Infinity)
        }
        Some((_, place)) => Err(FormulaError::new("ord is 'fro', 1, 2 or np.inf", place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        assert_eq!(
            suggestion("maen", ["max", "mean", "min"].into_iter()),
            "; did you mean `mean`?"
        );
        assert_eq!(suggestion("xylophone", ["mean", "min"].into_iter()), "");
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn numbers_that_are_written_are_computed_as_in_python() {
        let int = |value| Scalar::Int(value);
        assert_eq!(folded("multiply", int(2), int(3)), Some(int(6)));
        assert_eq!(folded("floor_divide", int(-7), int(2)), Some(int(-4)));
        assert_eq!(folded("power", int(2), int(-1)), Some(Scalar::Float(0.5)));
        assert_eq!(folded("divide", int(1), int(4)), Some(Scalar::Float(0.25)));
        assert_eq!(folded("divide", int(1), int(0)), None);
    }
}
