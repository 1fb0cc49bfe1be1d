//! Programs that know nothing of a store, through `programs.py`: NumPy, Zarr, xarray, dask.
//!
//! They run where `ZBA_PYTHON` names a Python that has NumPy, as in `cargo xtask test`; what other
//! packages it has not, the script says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zbigarray::DynArray;
use zbigarray::array::Order;

use crate::support::{Mounted, Scene, can_mount, npy};

/// The Python to ask and the script.
fn script() -> Option<(String, PathBuf)> {
    if !can_mount() {
        return None;
    }
    let Ok(python) = std::env::var("ZBA_PYTHON") else {
        println!("not run: ZBA_PYTHON is not set");
        return None;
    };
    Some((python, Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount/programs.py")))
}

fn passes(what: &str, mounted: &Mounted) {
    let Some((python, script)) = script() else { return };
    let output = Command::new(python).arg(script).arg(what).arg(&mounted.path).output().unwrap();
    let (said, failed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{said}");
    assert!(output.status.success() && said.ends_with("passed\n"), "{failed}\n{}", mounted.log());
}

/// 0, 1, 2, ... as elements of a type.
fn counting<const N: usize>(count: u32, bytes: impl Fn(u32) -> [u8; N]) -> Vec<u8> {
    (0..count).flat_map(bytes).collect()
}

/// A number that a float of 4 bytes can hold.
fn single(at: u32) -> f32 {
    let [low, high] = [at % (1 << 16), at >> 16].map(|part| u16::try_from(part).unwrap());
    f32::from(high) * 65_536.0 + f32::from(low)
}

#[test]
fn numpy_zarr_xarray_dask_and_tensorstore_read() {
    if script().is_none() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    let floats = counting(30 * 200 * 300, |at| single(at).to_bits().to_le_bytes());
    scene.put_as(&store, "climate/t2m", ("<f4", Order::C), &[30, 200, 300], &floats);
    let doubles = counting(2000, |at| f64::from(at).to_bits().to_le_bytes());
    scene.put_as(&store, "columns", ("<f8", Order::F), &[40, 50], &doubles);
    let mut big = counting(100, u32::to_le_bytes);
    big.chunks_mut(4).for_each(<[u8]>::reverse);
    scene.put_as(&store, "big", (">i4", Order::C), &[100], &big);
    passes("read", &scene.mount(&[]));
}

#[test]
fn numpy_xarray_and_dask_write() {
    if script().is_none() {
        return;
    }
    let scene = Scene::new();
    passes("write", &scene.mount(&["--rw"]));
    let report = scene.store().check(true, &mut |_, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn mappings_of_numpy_follow_a_thousand_commits() {
    const PAGES: u64 = 600;
    let Some((python, script)) = script() else { return };
    let scene = Scene::new();
    let store = scene.store();
    let zeros = vec![0; 4096 * 600];
    let first = scene.put_as(&store, "a", ("<u8", Order::C), &[PAGES * 512], &zeros);
    let mounted = scene.mount(&[]);
    let stop = scene.path("stop.npy");
    let mut command = Command::new(python);
    command.arg(script).arg("follow").arg(mounted.head("a.npy")).arg(&stop);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "mapped");
    for number in 1..=1000_u64 {
        let transaction = store.begin().unwrap();
        let mut array = DynArray::open(&transaction, "a").unwrap();
        let page: Vec<u8> = std::iter::repeat_n(number.to_le_bytes(), 512).flatten().collect();
        for at in [number % PAGES, (number * 7) % PAGES] {
            array.write_linear(4096 * at, &page).unwrap();
        }
        drop(array);
        transaction.commit().unwrap();
    }
    mounted.follows(first, store.head());
    let snapshot = store.begin_read().unwrap();
    let array = DynArray::open(&snapshot, "a").unwrap();
    let now = array.linear_bytes(0..array.nbytes()).unwrap();
    fs::write(scene.path("part"), npy("<u8", &[PAGES * 512], now)).unwrap();
    fs::rename(scene.path("part"), &stop).unwrap();
    assert!(lines.map_while(Result::ok).any(|line| line == "passed"));
    assert!(child.wait().unwrap().success());
}
