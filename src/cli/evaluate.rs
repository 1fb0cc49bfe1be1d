//! What an expression over a store is: from its tree to a blocked array.
//!
//! ```text
//! Formula -> arrays it names, opened -> Meaning: an array, a number, a text, a list
//! ```
//!
//! Nothing is computed here but numbers that stand alone and masks, whose size has to be known.
//!
//! # Invariants
//!
//! 1. A name in the place of a function is a function, anywhere else an array: so an array may have
//!    any name.
//! 2. `np.` and `numpy.` before a name are NumPy's, unless the store has a group of that name.
//!
//! # Failure
//!
//! A [`FormulaError`] with the place of what cannot be.

use std::cell::RefCell;
use std::ops::Range;

use num_complex::Complex;
use zbigarray::compute::{Blocked, ComputeError, Number, Operand, RunOptions, Scalar};
use zbigarray::txn::{Catalog, Node};
use zbigarray::{DynArray, Index};

use super::formula::{Formula, FormulaError, Kind};
use super::functions;

/// What a part of an expression stands for.
#[derive(Clone)]
pub(crate) enum Meaning<'e> {
    /// An array.
    Array(Blocked<'e>),
    /// A number that takes the type of the array it meets.
    Scalar(Scalar),
    /// A text, such as the name of a type.
    Text(String),
    /// `None`.
    Nothing,
    /// A tuple or a list.
    List(Vec<Meaning<'e>>),
}

/// Arrays and what is needed to read masks.
pub(crate) struct World<'e> {
    /// The arrays that the expression names.
    pub(crate) arrays: &'e [DynArray<'e>],
    /// What can be chosen for runs.
    pub(crate) options: RunOptions,
    /// Why a mask could not be computed: no fault of the expression.
    pub(crate) failure: RefCell<Option<ComputeError>>,
}

/// The names of all arrays in an expression, each once.
///
/// # Errors
///
/// A name that the store has not, with the one that is nearest.
pub(crate) fn names(formula: &Formula, catalog: &Catalog) -> Result<Vec<String>, FormulaError> {
    let mut found = Vec::new();
    collect(formula, catalog, &mut found)?;
    Ok(found)
}

fn collect(
    formula: &Formula,
    catalog: &Catalog,
    found: &mut Vec<String>,
) -> Result<(), FormulaError> {
    if let Some(path) = path_of(formula)
        && is_array(catalog, &path)
    {
        if !found.contains(&path) {
            found.push(path);
        }
        return Ok(());
    }
    if let Kind::Call(function, plain, _) = &formula.kind
        && let Some(path) = named_array(function, plain)
    {
        if !is_array(catalog, path) {
            return Err(FormulaError::new(nearest(path, catalog), plain[0].at.clone()));
        }
        if !found.iter().any(|name| name == path) {
            found.push(path.to_owned());
        }
        return Ok(());
    }
    let mut below = |part: &Formula| collect(part, catalog, found);
    match &formula.kind {
        Kind::Name(_) => Err(unknown(formula, catalog)),
        Kind::Attribute(of, _) if is_numpy(of, catalog) => Ok(()),
        Kind::Attribute(of, _) => match path_of(of) {
            Some(path) if !has_array(&path, catalog) => Err(unknown(formula, catalog)),
            _ => below(of),
        },
        Kind::Index(of, indices) => {
            below(of)?;
            indices.iter().try_for_each(below)
        }
        Kind::Slice(parts) => parts.iter().flatten().try_for_each(|part| below(part)),
        Kind::Call(function, plain, named) => {
            if let (Kind::Attribute(of, _), false) =
                (&function.kind, is_function(function, catalog))
            {
                below(of)?;
            }
            plain.iter().try_for_each(&mut below)?;
            named.iter().try_for_each(|(_, value)| below(value))
        }
        Kind::Unary(_, of) => below(of),
        Kind::Binary(_, one, other) => {
            below(one)?;
            below(other)
        }
        Kind::Sequence(all) => all.iter().try_for_each(below),
        _ => Ok(()),
    }
}

/// The path in `a('climate/t2m')`.
fn named_array<'f>(function: &Formula, plain: &'f [Formula]) -> Option<&'f str> {
    match (&function.kind, plain) {
        (Kind::Name(name), [Formula { kind: Kind::Text(path), .. }]) if name == "a" => Some(path),
        _ => None,
    }
}

/// `climate/t2m` of `climate.t2m`.
fn path_of(formula: &Formula) -> Option<String> {
    match &formula.kind {
        Kind::Name(name) => Some(name.clone()),
        Kind::Attribute(of, name) => Some(format!("{}/{name}", path_of(of)?)),
        _ => None,
    }
}

fn is_array(catalog: &Catalog, path: &str) -> bool {
    matches!(catalog.node(path), Some(Node::Array(_)))
}

/// Whether the path, or one above it, is an array: then what follows are its attributes.
fn has_array(path: &str, catalog: &Catalog) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.into_iter().any(|end| is_array(catalog, &path[..end]))
}

/// Whether it is `np`, or a module of it.
fn is_numpy(formula: &Formula, catalog: &Catalog) -> bool {
    match &formula.kind {
        Kind::Name(name) => (name == "np" || name == "numpy") && catalog.node(name).is_none(),
        Kind::Attribute(of, name) => name == "linalg" && is_numpy(of, catalog),
        _ => false,
    }
}

/// Whether what is called is a function and no method.
fn is_function(function: &Formula, catalog: &Catalog) -> bool {
    match &function.kind {
        Kind::Name(_) => true,
        Kind::Attribute(of, _) => {
            is_numpy(of, catalog) || matches!(&of.kind, Kind::Name(name) if name == "linalg")
        }
        _ => false,
    }
}

fn unknown(formula: &Formula, catalog: &Catalog) -> FormulaError {
    let path = path_of(formula).unwrap_or_default();
    FormulaError::new(nearest(&path, catalog), formula.at.clone())
}

fn nearest(path: &str, catalog: &Catalog) -> String {
    let arrays = catalog.below("").filter(|(_, node)| matches!(node, Node::Array(_)));
    let names: Vec<String> = arrays.map(|(name, _)| name.to_string()).collect();
    let all = names.iter().map(String::as_str);
    format!("no array `{path}`{}", functions::suggestion(path, all))
}

impl<'e> World<'e> {
    /// What `formula` stands for.
    ///
    /// # Errors
    ///
    /// What cannot be, and where.
    pub(crate) fn meaning(
        &self,
        formula: &Formula,
        catalog: &Catalog,
    ) -> Result<Meaning<'e>, FormulaError> {
        let below = |part: &Formula| self.meaning(part, catalog);
        if let Some(path) = path_of(formula)
            && is_array(catalog, &path)
        {
            return self.array(&path, &formula.at);
        }
        let refused = |error: ComputeError| at(error, &formula.at);
        match &formula.kind {
            Kind::None => Ok(Meaning::Nothing),
            Kind::Bool(value) => Ok(Meaning::Scalar(Scalar::Bool(*value))),
            Kind::Integer(value) => Ok(Meaning::Scalar(Scalar::Int((*value).into()))),
            Kind::Float(value) => Ok(Meaning::Scalar(Scalar::Float(*value))),
            Kind::Imaginary(value) => {
                Ok(Meaning::Scalar(Scalar::Complex(Complex::new(0.0, *value))))
            }
            Kind::Text(text) => Ok(Meaning::Text(text.clone())),
            Kind::Sequence(all) => {
                all.iter().map(below).collect::<Result<_, _>>().map(Meaning::List)
            }
            Kind::Name(_) => Err(unknown(formula, catalog)),
            Kind::Attribute(of, name) if is_numpy(of, catalog) => constant(name).ok_or_else(|| {
                FormulaError::new(format!("np.{name} is no constant here"), formula.at.clone())
            }),
            Kind::Attribute(of, name) => {
                let array = self.expected_array(of, catalog)?;
                functions::attribute(&array, name, &formula.at)
            }
            Kind::Index(of, indices) => self.indexed(formula, of, indices, catalog),
            Kind::Unary(name, of) => {
                functions::call(name, vec![(below(of)?, of.at.clone())], Vec::new(), &formula.at)
            }
            Kind::Binary(name, one, other) => {
                let plain = vec![(below(one)?, one.at.clone()), (below(other)?, other.at.clone())];
                functions::call(name, plain, Vec::new(), &formula.at)
            }
            Kind::Call(function, plain, named) => {
                if let Some(path) = named_array(function, plain) {
                    return self.array(path, &formula.at);
                }
                self.called(formula, function, (plain, named), catalog)
            }
            Kind::Ellipsis | Kind::Slice(_) => Err(refused(ComputeError::Value {
                operation: "expression",
                why: "a slice stands between brackets",
            })),
        }
    }

    fn called(
        &self,
        formula: &Formula,
        function: &Formula,
        (plain, named): (&[Formula], &[(String, Formula)]),
        catalog: &Catalog,
    ) -> Result<Meaning<'e>, FormulaError> {
        let below = |part: &Formula| self.meaning(part, catalog);
        let mut given = Vec::new();
        let name = match &function.kind {
            Kind::Name(name) => name,
            Kind::Attribute(of, name) => {
                if !is_function(function, catalog) {
                    given.push((below(of)?, of.at.clone()));
                }
                name
            }
            _ => {
                let what = "only functions and methods can be called";
                return Err(FormulaError::new(what, function.at.clone()));
            }
        };
        for argument in plain {
            given.push((below(argument)?, argument.at.clone()));
        }
        let named = named
            .iter()
            .map(|(name, value)| Ok((name.clone(), below(value)?, value.at.clone())))
            .collect::<Result<_, FormulaError>>()?;
        functions::call(name, given, named, &formula.at)
    }

    fn array(&self, path: &str, place: &Range<usize>) -> Result<Meaning<'e>, FormulaError> {
        let array = self.arrays.iter().find(|array| array.name() == path);
        let missing = || FormulaError::new(format!("array `{path}` was not opened"), place.clone());
        let array = Blocked::stored(array.ok_or_else(missing)?);
        array.map(Meaning::Array).map_err(|error| at(error, place))
    }

    fn expected_array(
        &self,
        formula: &Formula,
        catalog: &Catalog,
    ) -> Result<Blocked<'e>, FormulaError> {
        functions::as_array(self.meaning(formula, catalog)?, &formula.at)
    }

    fn indexed(
        &self,
        formula: &Formula,
        of: &Formula,
        indices: &[Formula],
        catalog: &Catalog,
    ) -> Result<Meaning<'e>, FormulaError> {
        let refused = |error: ComputeError| at(error, &formula.at);
        let whole = self.meaning(of, catalog)?;
        if let (Meaning::List(all), [index]) = (&whole, indices) {
            let number = self.whole_number(index, catalog)?;
            let from_end = i128::try_from(all.len()).unwrap_or(i128::MAX).saturating_add(number);
            let place = usize::try_from(if number < 0 { from_end } else { number });
            let part = place.ok().and_then(|place| all.get(place).cloned());
            let what = || format!("there are {} results", all.len());
            return part.ok_or_else(|| FormulaError::new(what(), index.at.clone()));
        }
        let array = functions::as_array(whole, &of.at)?;
        if let [index] = indices
            && !is_basic(index, catalog)
        {
            let part = match self.meaning(index, catalog)? {
                Meaning::Array(mask) if mask.number() == Number::Bool => {
                    let part = array.extract(&mask, &self.options);
                    return part
                        .map(Meaning::Array)
                        .map_err(|error| self.failed(error, &formula.at));
                }
                meaning => array.slice(&[Index::At(position(&meaning, &index.at)?)][..]),
            };
            return part.map(Meaning::Array).map_err(refused);
        }
        let (mut basic, mut list) = (Vec::new(), None);
        for index in indices {
            match &index.kind {
                Kind::Sequence(all) => {
                    if list.is_some() || basic.contains(&Index::Ellipsis) {
                        let what = "one list of positions, not behind `...`, is all there can be";
                        return Err(FormulaError::new(what, index.at.clone()));
                    }
                    let numbers = all.iter().map(|one| self.whole_number(one, catalog));
                    let kept = basic.iter().filter(|index| !matches!(index, Index::At(_))).count();
                    list = Some((kept, numbers.collect::<Result<Vec<_>, _>>()?));
                    basic.push(Index::ALL);
                }
                _ => basic.push(self.index(index, catalog)?),
            }
        }
        let sliced = array.slice(&basic[..]).map_err(refused)?;
        let Some((axis, positions)) = list else { return Ok(Meaning::Array(sliced)) };
        let positions = positions.iter().map(|&at| i64::try_from(at).unwrap_or(i64::MAX));
        let positions: Vec<i64> = positions.collect();
        let axis = i64::try_from(axis).unwrap_or(i64::MAX);
        sliced.take(&positions, axis).map(Meaning::Array).map_err(refused)
    }

    /// Keeps what a run met: it is told with its own exit code.
    fn failed(&self, error: ComputeError, place: &Range<usize>) -> FormulaError {
        let refused = FormulaError::new(error.to_string(), place.clone());
        if matches!(error, ComputeError::Run(_)) {
            *self.failure.borrow_mut() = Some(error);
        }
        refused
    }

    fn index(&self, index: &Formula, catalog: &Catalog) -> Result<Index, FormulaError> {
        let part = |part: &Option<Box<Formula>>| match part {
            None => Ok(None),
            Some(part) if part.kind == Kind::None => Ok(None),
            Some(part) => self.whole_number(part, catalog).map(Some),
        };
        match &index.kind {
            Kind::None => Ok(Index::NewAxis),
            Kind::Ellipsis => Ok(Index::Ellipsis),
            Kind::Attribute(of, name) if name == "newaxis" && is_numpy(of, catalog) => {
                Ok(Index::NewAxis)
            }
            Kind::Slice([start, stop, step]) => {
                Ok(Index::Slice { start: part(start)?, stop: part(stop)?, step: part(step)? })
            }
            _ => self.whole_number(index, catalog).map(Index::At),
        }
    }

    fn whole_number(&self, formula: &Formula, catalog: &Catalog) -> Result<i128, FormulaError> {
        position(&self.meaning(formula, catalog)?, &formula.at)
    }
}

fn position(meaning: &Meaning<'_>, place: &Range<usize>) -> Result<i128, FormulaError> {
    match meaning {
        Meaning::Scalar(Scalar::Int(value)) => Ok(*value),
        _ => {
            let what = "an index is a whole number, a slice, a list of whole numbers, or a mask \
                 of the array's shape alone";
            Err(FormulaError::new(what, place.clone()))
        }
    }
}

/// Whether it means something between brackets only.
fn is_basic(index: &Formula, catalog: &Catalog) -> bool {
    match &index.kind {
        Kind::None | Kind::Ellipsis | Kind::Slice(_) | Kind::Sequence(_) => true,
        Kind::Attribute(of, name) => name == "newaxis" && is_numpy(of, catalog),
        _ => false,
    }
}

/// NumPy's constants and types.
fn constant<'e>(name: &str) -> Option<Meaning<'e>> {
    let float = |value| Some(Meaning::Scalar(Scalar::Float(value)));
    match name {
        "pi" => float(std::f64::consts::PI),
        "e" => float(std::f64::consts::E),
        "inf" => float(f64::INFINITY),
        "nan" => float(f64::NAN),
        _ => functions::number_of(name).map(|_| Meaning::Text(name.to_owned())),
    }
}

/// An error of the library, at a place of the text.
pub(crate) fn at(error: ComputeError, place: &Range<usize>) -> FormulaError {
    FormulaError::new(error.to_string(), place.clone())
}

impl<'e> Meaning<'e> {
    /// As the operand of a function of two.
    pub(crate) fn operand(self, place: &Range<usize>) -> Result<Operand<'e>, FormulaError> {
        match self {
            Self::Array(array) => Ok(Operand::Array(array)),
            Self::Scalar(scalar) => Ok(Operand::Scalar(scalar)),
            _ => Err(FormulaError::new("an array or a number is needed", place.clone())),
        }
    }
}
