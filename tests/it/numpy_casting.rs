//! What an append of numbers of another type stores, against NumPy's assignment.
//!
//! `tests/oracle/casting.py` prints numbers of every type and what NumPy makes of them in an array
//! of every other. The test runs when the environment variable `ZBA_PYTHON` names a Python that
//! has NumPy.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use zbigarray::array::{DynArray, Kind};
use zbigarray::{ArrayOptions, CreateOptions, Dtype, Order, Store};

/// W-049.
#[test]
fn appended_numbers_are_cast_as_numpy_casts_them() {
    let Ok(python) = std::env::var("ZBA_PYTHON") else {
        println!("not run: ZBA_PYTHON is not set");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/casting.py");
    let output = Command::new(python).arg(script).args(["1", "300"]).output();
    let output = output.expect("ZBA_PYTHON names a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let dtype = |key: &str| Dtype::parse(case[key].as_str().unwrap()).unwrap();
        let bytes = |key: &str| unhexed(case[key].as_str().unwrap());
        let (from, to) = (dtype("from"), dtype("to"));
        let (given, wanted) = (bytes("given"), bytes("cast"));
        let len = given.len() as u64 / from.itemsize();
        let options = ArrayOptions::new();
        let name = number.to_string();
        let mut array = DynArray::create(&transaction, &name, &to, &[0], &options).unwrap();
        array.append_cast(&[len], Order::C, &from, &given).unwrap();
        let mut found = vec![0; wanted.len()];
        array.read(&array.select(&[]).unwrap(), Order::C, &mut found).unwrap();
        let size = usize::try_from(to.itemsize()).unwrap();
        for (at, (found, wanted)) in found.chunks(size).zip(wanted.chunks(size)).enumerate() {
            let same = found == wanted || are_no_numbers(&to, found, wanted);
            assert!(same, "element {at} of {from} as {to}: {found:x?}, and NumPy's {wanted:x?}");
            count += 1;
        }
    }
    assert!(count > 100_000, "{count}");
}

/// Whether both are the same but for the bits of a NaN, which nothing defines.
fn are_no_numbers(dtype: &Dtype, found: &[u8], wanted: &[u8]) -> bool {
    let part = match dtype.kind() {
        Kind::Float => found.len(),
        Kind::Complex => found.len() / 2,
        _ => return false,
    };
    let is_nan = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if dtype.type_string().starts_with('>') {
            bytes.reverse();
        }
        match bytes.as_slice().try_into() {
            Ok(bytes) => f64::from_le_bytes(bytes).is_nan(),
            Err(_) => f32::from_le_bytes(bytes.try_into().unwrap()).is_nan(),
        }
    };
    let mut parts = found.chunks(part).zip(wanted.chunks(part));
    parts.all(|(found, wanted)| found == wanted || is_nan(found) && is_nan(wanted))
}

fn unhexed(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
