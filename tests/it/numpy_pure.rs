//! The pure part of the array layer against NumPy itself.
//!
//! `tests/oracle/indexing.py` prints what NumPy answers; each line is asked of this crate too. The
//! tests run when the environment variable `ZBA_PYTHON` names a Python that has NumPy.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use zbigarray::array::index::{parse, resolve};
use zbigarray::array::{Dtype, DtypeError, Header, Kind, Order, npy};

/// NumPy's answers of one kind; `None`, said on the way, if there is no Python to ask.
fn answers(what: &str, seed: u32, cases: u32) -> Option<Vec<Value>> {
    let Ok(python) = std::env::var("ZBA_PYTHON") else {
        println!("not run: ZBA_PYTHON is not set");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/indexing.py");
    let output = Command::new(python)
        .arg(script)
        .args([seed.to_string(), cases.to_string()])
        .output()
        .expect("ZBA_PYTHON names a program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle failed: {errors}");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let wanted: Vec<Value> = lines.filter(|line| line["what"] == what).collect();
    assert!(!wanted.is_empty(), "the oracle has no cases of {what}");
    Some(wanted)
}

fn numbers(value: &Value) -> Vec<i128> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| i128::from(item.as_i64().expect("a number"))).collect()
}

fn lengths(value: &Value) -> Vec<u64> {
    numbers(value).into_iter().map(|len| u64::try_from(len).expect("a length")).collect()
}

fn order(value: &Value) -> Order {
    if value == "F" { Order::F } else { Order::C }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value[key].as_str()
}

#[test]
fn indexing_equals_numpy_in_shape_strides_offset_and_refusals() {
    let Some(cases) = answers("index", 1, 20_000) else { return };
    for case in cases {
        let shape = lengths(&case["of"]);
        let itemsize = case["itemsize"].as_u64().expect("a size");
        let indices = parse(text(&case, "text").expect("a text"));
        let got =
            indices.and_then(|indices| resolve(&indices, &shape, itemsize, order(&case["order"])));
        match got {
            Err(why) => assert!(case["error"].is_string(), "{why}: {case}"),
            Ok(got) => {
                assert!(case["error"].is_null(), "{case}");
                assert_eq!(got.shape(), lengths(&case["shape"]), "{case}");
                assert_eq!(Some(got.offset()), case["offset"].as_u64(), "{case}");
                assert_eq!(got.strides(), numbers(&case["strides"]), "{case}");
            }
        }
    }
}

#[test]
fn types_equal_numpy_in_size_alignment_description_and_refusals() {
    let Some(cases) = answers("dtype", 1, 1) else { return };
    for case in cases {
        let got = match (text(&case, "text"), text(&case, "python")) {
            (Some(name), _) => Dtype::parse(name).map_err(|why| (why.to_string(), Some(why))),
            (_, Some(form)) => Dtype::from_descr(form).map_err(|why| (why.to_string(), Some(why))),
            _ => serde_json::from_value::<Dtype>(case["json"].clone())
                .map_err(|why| (why.to_string(), None)),
        };
        match got {
            Err((shown, why)) => {
                assert!(case["error"].is_string(), "{shown}: {case}");
                match text(&case, "error") {
                    Some("object") => {
                        assert!(matches!(why, None | Some(DtypeError::Object { .. })), "{case}");
                        assert!(shown.contains("object"), "{shown}: {case}");
                    }
                    Some("size 0") => {
                        assert!(matches!(why, None | Some(DtypeError::ZeroSize { .. })), "{case}");
                        assert!(shown.contains("size 0"), "{shown}: {case}");
                    }
                    _ => {}
                }
            }
            Ok(got) => {
                assert!(case["error"].is_null(), "{got:?}: {case}");
                assert_eq!(Some(got.type_string().as_str()), text(&case, "str"), "{case}");
                assert_eq!(Some(got.itemsize()), case["itemsize"].as_u64(), "{case}");
                assert_eq!(Some(got.alignment()), case["alignment"].as_u64(), "{case}");
                assert_eq!(Some(got.is_native_order()), case["native"].as_bool(), "{case}");
                if got.kind() != Kind::Subarray {
                    assert_eq!(got.descr().ok().as_deref(), text(&case, "descr"), "{case}");
                }
            }
        }
    }
}

#[test]
fn npy_headers_equal_numpy_byte_for_byte_and_read_back() {
    let Some(cases) = answers("npy", 1, 1) else { return };
    for case in cases {
        let hex = text(&case, "hex").expect("a text");
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        let theirs: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
        let dtype = Dtype::from_descr(text(&case, "descr").expect("a text")).expect("a type");
        let shape = lengths(&case["shape"]);
        let header = Header::new(&dtype, order(&case["order"]), &shape).expect("a header");
        let ours = header.encode(npy::ALIGNMENT).expect("it can be written");
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{case}");
        assert_eq!(ours, theirs);
        let (back, data_at) = Header::read(&mut &theirs[..]).expect("it can be read");
        assert_eq!((back, data_at), (header, theirs.len() as u64), "{case}");
    }
}
