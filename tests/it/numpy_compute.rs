//! Blocked arrays against NumPy itself.
//!
//! `tests/oracle/compute.py` prints little programs and what NumPy makes of them; each is computed
//! here too, with leaves in a store, in memory and made by functions, cut into random blocks. The
//! tests run when the environment variable `ZBA_PYTHON` names a Python that has NumPy;
//! `ZBA_COMPUTE_CASES` asks for more cases than the usual ones.

use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use num_complex::Complex;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use zbigarray::array::cast::{as_bytes, from_bytes};
use zbigarray::array::{ArrayOptions, Bool, DynArray, Order};
use zbigarray::compute::{
    Axes, Block, Blocked, ComputeError, Number, Numeric, Operand, PadMode, RunOptions, Scalar,
};
use zbigarray::{CreateOptions, Dtype, Store};

use crate::numpy_linalg;

/// A leaf of a program, as it lies in memory.
struct Leaf {
    dtype: Dtype,
    number: Number,
    shape: Vec<u64>,
    order: Order,
    lies: String,
    block: Vec<u64>,
    /// In C order and this machine's byte order.
    bytes: Vec<u8>,
}

pub(crate) fn numbers<T: TryFrom<i64>>(value: &Value) -> Vec<T> {
    let items = value.as_array().expect("a list").iter();
    let number = |item: &Value| item.as_i64().and_then(|number| T::try_from(number).ok());
    items.map(|item| number(item).expect("a whole number")).collect()
}

pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().expect("a text")
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = text(value, "hex");
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn scalar(value: &Value) -> Scalar {
    let (kind, value) = value.as_object().and_then(|map| map.iter().next()).expect("a scalar");
    let float = |value: &Value| value.as_f64().expect("a float");
    match kind.as_str() {
        "bool" => Scalar::Bool(value.as_bool().expect("a truth value")),
        "int" => Scalar::Int(value.as_i64().expect("a whole number").into()),
        "float" => Scalar::Float(float(value)),
        _ => Scalar::Complex(Complex::new(float(&value[0]), float(&value[1]))),
    }
}

impl Leaf {
    fn new(value: &Value) -> Self {
        let dtype = Dtype::parse(text(value, "dtype")).expect("a type");
        Self {
            number: Number::of(&dtype).expect("a number"),
            dtype,
            shape: numbers(&value["shape"]),
            order: if value["order"] == "F" { Order::F } else { Order::C },
            lies: text(value, "lies").to_owned(),
            block: numbers(&value["block"]),
            bytes: bytes(value),
        }
    }
}

/// Calls `$body` with `$type` as the Rust type of a number.
macro_rules! typed {
    ($number:expr, $type:ident => $body:expr) => {
        typed!(@ $number, $type, $body,
            Bool Bool, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64,
            F32 f32, F64 f64, C64 Complex<f32>, C128 Complex<f64>)
    };
    (@ $number:expr, $type:ident, $body:expr, $($name:ident $element:ty),*) => {
        match $number {
            $(Number::$name => {
                type $type = $element;
                $body
            })*
        }
    };
}

/// The elements in `bytes`, wherever those lie.
fn elements<T: Numeric>(bytes: &[u8]) -> Vec<T> {
    let count = bytes.len() / size_of::<T>();
    let mut elements = vec![T::default(); count];
    zbigarray::array::cast::as_bytes_mut(&mut elements).copy_from_slice(bytes);
    elements
}

fn lens(shape: &[u64]) -> Vec<usize> {
    shape.iter().map(|&len| len as usize).collect()
}

/// The leaf's elements in memory, in the leaf's order.
fn memory<T: Numeric>(leaf: &Leaf) -> ArrayD<T> {
    let dense = ArrayD::from_shape_vec(IxDyn(&lens(&leaf.shape)), elements::<T>(&leaf.bytes));
    let dense = dense.expect("as many elements as the shape says");
    match leaf.order {
        Order::C => dense,
        Order::F => {
            let mut array = ArrayD::from_elem(IxDyn(&lens(&leaf.shape)).f(), T::default());
            array.assign(&dense);
            array
        }
    }
}

/// Elements that follow from their position.
fn made<'e, T: Numeric>(leaf: &Leaf) -> Blocked<'e> {
    let all = memory::<T>(leaf);
    Blocked::from_function(&leaf.shape, move |start, len| {
        ArrayD::from_shape_fn(IxDyn(&lens(len)), |at| {
            let at: Vec<usize> =
                (0..start.len()).map(|axis| start[axis] as usize + at[axis]).collect();
            all[IxDyn(&at)]
        })
    })
    .expect("a shape")
}

fn axes(step: &Value) -> Axes {
    let axes = match &step["axes"] {
        Value::Null => Axes::all(),
        list => Axes::from(&numbers::<i64>(list)[..]),
    };
    if step["keep"] == true { axes.keep_dims() } else { axes }
}

/// What a step gives, of the values before it.
fn step<'e>(
    step: &Value,
    values: &[Blocked<'e>],
    options: &RunOptions,
) -> Result<Blocked<'e>, ComputeError> {
    let of: Vec<usize> = numbers(&step["of"]);
    let (a, name) = (&values[of[0]], text(step, "do"));
    let other = || match &step["scalar"] {
        Value::Null => Operand::from(&values[of[1]]),
        value => Operand::Scalar(scalar(value)),
    };
    let axis = || step["axis"].as_i64().expect("an axis");
    let ddof = || step["ddof"].as_f64().expect("a number");
    macro_rules! call {
        (unary: $($unary:ident)*; binary: $($binary:ident)*; reduce: $($reduce:ident)*;
         spread: $($spread:ident)*; other: $($pattern:pat => $other:expr,)*) => {
            match name {
                $(stringify!($unary) => a.$unary(),)*
                $(stringify!($binary) => a.$binary(other()),)*
                $(stringify!($reduce) => a.$reduce(axes(step)),)*
                $(stringify!($spread) => a.$spread(axes(step), ddof()),)*
                $($pattern => $other,)*
                _ => panic!("the oracle asks for {name}"),
            }
        };
    }
    call! {
        unary: negative positive absolute sign conjugate square reciprocal exp exp2 expm1 log log2
            log10 log1p sqrt cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh
            arctanh degrees radians floor ceil trunc rint invert logical_not isnan isinf isfinite
            signbit real imag ravel;
        binary: add subtract multiply divide floor_divide remainder power maximum minimum fmax fmin
            arctan2 hypot copysign logaddexp bitwise_and bitwise_or bitwise_xor left_shift
            right_shift logical_and logical_or logical_xor equal not_equal less less_equal greater
            greater_equal;
        reduce: sum prod min max mean any all nansum nanprod nanmin nanmax nanmean argmin argmax
            nanargmin nanargmax;
        spread: var std nanvar nanstd;
        other:
            "slice" => a.slice(text(step, "text")),
            "take" => a.take(&numbers::<i64>(&step["at"]), axis()),
            "compress" => {
                let mask = step["mask"].as_array().expect("a list").iter();
                let mask: Vec<bool> = mask.map(|truth| truth == true).collect();
                a.compress(&mask, axis())
            },
            "transpose" => a.transpose(&numbers::<i64>(&step["axes"])),
            "swapaxes" => a.swapaxes(axis(), step["other"].as_i64().expect("an axis")),
            "flip" => a.flip(axis()),
            "expand_dims" => a.expand_dims(axis()),
            "squeeze" => a.squeeze(axis()),
            "broadcast_to" => a.broadcast_to(&numbers::<u64>(&step["shape"])),
            "reshape" => a.reshape(&numbers::<i64>(&step["shape"])),
            "rechunk" => a.rechunk(&numbers::<u64>(&step["block"])),
            "repeat" => a.repeat(step["times"].as_u64().expect("a count"), axis()),
            "roll" => a.roll(step["shift"].as_i64().expect("a number"), axis()),
            "astype" => {
                let dtype = Dtype::parse(text(step, "dtype")).expect("a type");
                a.astype(Number::of(&dtype).expect("a number"))
            },
            "concatenate" => Blocked::concatenate(&all(&of, values), axis()),
            "stack" => Blocked::stack(&all(&of, values), axis()),
            "pad" => pad(a, step),
            "where" => a.choose(&values[of[1]], &values[of[2]]),
            "clip" => {
                let bound = |key: &str| match &step[key] {
                    Value::Null => None,
                    value => Some(Operand::Scalar(scalar(value))),
                };
                a.clip(bound("low"), bound("high"))
            },
            "cumsum" | "cumprod" | "topk" | "percentile" | "histogram" | "bincount" | "diff" => {
                scan(a, step, options)
            },
    }
}

fn scan<'e>(
    a: &Blocked<'e>,
    step: &Value,
    options: &RunOptions,
) -> Result<Blocked<'e>, ComputeError> {
    let axis = step["axis"].as_i64().expect("an axis");
    let count = |key: &str| step[key].as_u64().expect("a count");
    match text(step, "do") {
        "cumsum" => a.cumsum(axis),
        "cumprod" => a.cumprod(axis),
        "topk" => a.topk(step["k"].as_i64().expect("a number"), axis),
        "diff" => a.diff(count("n"), axis),
        "percentile" => a.percentile(step["q"].as_f64().expect("a number"), axes(step)),
        "histogram" => {
            let range = match &step["range"] {
                Value::Null => None,
                range => Some((range[0].as_f64().expect("low"), range[1].as_f64().expect("high"))),
            };
            a.histogram(count("bins"), range)
        }
        _ => a.bincount(count("minlength"), options),
    }
}

fn all<'e>(of: &[usize], values: &[Blocked<'e>]) -> Vec<Blocked<'e>> {
    of.iter().map(|&at| values[at].clone()).collect()
}

fn pad<'e>(a: &Blocked<'e>, step: &Value) -> Result<Blocked<'e>, ComputeError> {
    let pairs = step["widths"].as_array().expect("a list").iter();
    let widths: Vec<(u64, u64)> = pairs.map(|pair| (numbers(pair)[0], numbers(pair)[1])).collect();
    a.pad(
        &widths,
        match text(step, "mode") {
            "constant" => PadMode::Constant(Scalar::Int(0)),
            "edge" => PadMode::Edge,
            "reflect" => PadMode::Reflect,
            "symmetric" => PadMode::Symmetric,
            _ => PadMode::Wrap,
        },
    )
}

/// Whether `found` is `wanted`, or near enough.
fn require_equal(case: &Value, found: &Block) {
    let wanted = &case["result"];
    let shape: Vec<usize> = numbers(&wanted["shape"]);
    assert_eq!(found.shape(), shape, "shape of {case}");
    let dtype = Dtype::parse(text(wanted, "dtype")).expect("a type");
    assert_eq!(found.number().dtype(), dtype.to_native_order(), "type of {case}");
    let (scale, is_exact) = (wanted["scale"].as_f64().unwrap_or(1.0), wanted["exact"] == true);
    let epsilon = if wanted["single"] == true { 2e-5 } else { 1e-11 };
    let allowed = if is_exact { 0.0 } else { epsilon };
    let theirs = bytes(wanted);
    typed!(found.number(), T => {
        let (ours, theirs) = (found.elements::<T>().expect("its type"), elements::<T>(&theirs));
        for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let near = Parts::parts(*ours).into_iter().zip(Parts::parts(*theirs)).all(|(a, b)| {
                a == b || a.is_nan() && b.is_nan()
                    || (a - b).abs() <= allowed * (scale + b.abs())
            });
            assert!(near, "element {at} is {ours:?}, not {theirs:?}: {case}");
        }
    });
}

/// The real numbers of an element.
trait Parts {
    fn parts(self) -> Vec<f64>;
}

macro_rules! parts {
    ($($element:ty),*) => {$(
        impl Parts for $element {
            fn parts(self) -> Vec<f64> {
                vec![self as f64]
            }
        }
    )*};
}
parts!(i8, i16, i32, u8, u16, u32, f32, f64);

/// Both halves, so that every bit counts.
impl Parts for i64 {
    fn parts(self) -> Vec<f64> {
        vec![(self >> 32) as f64, (self & 0xFFFF_FFFF) as f64]
    }
}

impl Parts for u64 {
    fn parts(self) -> Vec<f64> {
        vec![(self >> 32) as f64, (self & 0xFFFF_FFFF) as f64]
    }
}

impl Parts for Bool {
    fn parts(self) -> Vec<f64> {
        vec![f64::from(u8::from(self.get()))]
    }
}

impl Parts for Complex<f32> {
    fn parts(self) -> Vec<f64> {
        vec![self.re.into(), self.im.into()]
    }
}

impl Parts for Complex<f64> {
    fn parts(self) -> Vec<f64> {
        vec![self.re, self.im]
    }
}

/// Runs one program: its leaves are made, its steps taken, and its result compared.
fn check(store: &Store, number: usize, case: &Value) {
    let leaves: Vec<Leaf> =
        case["leaves"].as_array().expect("leaves").iter().map(Leaf::new).collect();
    let transaction = store.begin().expect("a transaction");
    let mut arrays = Vec::new();
    let mut memories: Vec<Block> = Vec::new();
    for (at, leaf) in leaves.iter().enumerate() {
        let options = ArrayOptions::new().order(leaf.order);
        let name = format!("leaf{at}");
        let array = DynArray::create(&transaction, &name, &leaf.dtype, &leaf.shape, &options);
        let mut array = array.expect("an array");
        if leaf.lies == "store" {
            fill(&mut array, leaf);
        }
        arrays.push(array);
        memories.push(typed!(leaf.number, T => {
            Block::from_array(memory::<T>(leaf)).expect("a block")
        }));
    }
    let threads = 1 + number % 3;
    let options = RunOptions { threads, ..RunOptions::default() };
    let mut values: Vec<Blocked<'_>> = Vec::new();
    for ((leaf, array), block) in leaves.iter().zip(&arrays).zip(memories) {
        let value = match leaf.lies.as_str() {
            "store" => Blocked::stored(array).expect("numbers"),
            "memory" => Blocked::from_block(block).expect("a block"),
            _ => typed!(leaf.number, T => made::<T>(leaf)),
        };
        values.push(value.rechunk(&leaf.block).expect("as many axes"));
    }
    let mut result = Ok(values[0].clone());
    for described in case["steps"].as_array().expect("steps") {
        let name = text(described, "do");
        let found = match numpy_linalg::NAMES.contains(&name) {
            true => numpy_linalg::step(name, described, &all(&numbers(&described["of"]), &values)),
            false => step(described, &values, &options),
        };
        match found {
            Ok(value) => values.push(value),
            Err(why) => {
                result = Err(why);
                break;
            }
        }
    }
    let last = values.last().expect("a value");
    let found = result.and_then(|_| last.compute_block(&options));
    match (found, case["error"].is_string()) {
        (Ok(block), false) => require_equal(case, &block),
        (Err(_), true) => {}
        (Ok(block), true) => panic!("NumPy refuses what gives {block:?}: {case}"),
        (Err(why), false) => panic!("{why}: {case}"),
    }
}

/// Writes the leaf's elements into its array, in the array's byte order.
fn fill(array: &mut DynArray<'_>, leaf: &Leaf) {
    let all = array.select(&[]).expect("everything");
    let bytes = typed!(leaf.number, T => {
        let mut elements = elements::<T>(&leaf.bytes);
        if !leaf.dtype.is_native_order() {
            elements.iter_mut().for_each(|element| *element = element.swapped());
        }
        as_bytes(&elements).to_vec()
    });
    array.write(&all, Order::C, &bytes).expect("written");
}

#[test]
fn blocked_arrays_equal_numpy_in_values_shapes_types_and_refusals() {
    require_what_numpy_says("compute.py", 3000);
}

/// Runs the programs that `script` prints, `count` unless the environment asks for others.
pub(crate) fn require_what_numpy_says(script: &str, count: u32) {
    let Ok(python) = std::env::var("ZBA_PYTHON") else {
        println!("not run: ZBA_PYTHON is not set");
        return;
    };
    let cases = std::env::var("ZBA_COMPUTE_CASES").unwrap_or_else(|_| count.to_string());
    let seed = std::env::var("ZBA_COMPUTE_SEED").unwrap_or_else(|_| "1".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(script);
    let output =
        Command::new(python).arg(script).args([seed, cases]).output().expect("ZBA_PYTHON runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle failed: {errors}");
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).expect("a store");
    let mut wrong = Vec::new();
    for (number, line) in lines.lines().enumerate() {
        let case = serde_json::from_str(line).expect("JSON");
        let checked = catch_unwind(AssertUnwindSafe(|| check(&store, number, &case)));
        if let Err(panic) = checked {
            wrong.push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    assert!(lines.lines().count() > 0, "the oracle has no cases");
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn elements_of_bytes_are_read_wherever_they_lie() {
    let bytes: Vec<u8> = (0..17).collect();
    assert_eq!(elements::<u16>(&bytes[1..5]), [0x0201, 0x0403]);
    assert!(from_bytes::<u8>(&bytes).is_some());
}
