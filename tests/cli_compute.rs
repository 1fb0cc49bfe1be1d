//! `zba compute`, run as people and scripts run it.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "helpers fail as their test does")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use ndarray::{Array2, Array3, Ix2, Ix3};
use serde_json::{Value, json};
use tempfile::TempDir;
use zbigarray::{CreateOptions, OpenOptions, Store};

/// A directory with a store `s`: `x` and `group/y` of `f64`, and `count` of `i32`.
struct Shop {
    dir: TempDir,
}

fn x() -> Array2<f64> {
    Array2::from_shape_fn((6, 4), |(row, column)| (row * 4 + column) as f64)
}

impl Shop {
    fn new() -> Self {
        let shop = Self { dir: TempDir::new().unwrap() };
        let store = Store::create(shop.path("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        let mut array = transaction.create::<f64, Ix2>("x", &[6, 4]).unwrap();
        array.assign("...", &x()).unwrap();
        drop(array);
        let mut array = transaction.create::<f64, Ix3>("group/y", &[2, 3, 4]).unwrap();
        array.assign("...", &Array3::from_elem((2, 3, 4), 2.0)).unwrap();
        drop(array);
        let mut array = transaction.create::<i32, Ix2>("count", &[2, 2]).unwrap();
        array.assign("...", &ndarray::arr2(&[[1, 2], [3, 4]])).unwrap();
        drop(array);
        transaction.commit().unwrap();
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn zba(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zba"));
        command.args(arguments).current_dir(self.dir.path()).output().unwrap()
    }

    /// The value of an expression, as JSON.
    #[track_caller]
    fn value(&self, expression: &str) -> Value {
        let output = self.zba(&["compute", "s", expression, "--json"]);
        assert!(output.status.success(), "{expression}: {}", text(&output.stderr));
        let mut document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["values"].take()
    }

    /// Refused with this code, in one line that holds all of `words`, and nothing was changed.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let before = self.head();
        let output = self.zba(&[&["compute", "s"], arguments].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
        words.iter().for_each(|word| assert!(error.contains(word), "{word}: {error}"));
        assert!(output.stdout.is_empty());
        assert_eq!(self.head(), before);
    }

    fn head(&self) -> u64 {
        Store::open(self.path("s"), OpenOptions::read_only()).unwrap().head().0
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn expressions_give_what_numpy_gives() {
    let shop = Shop::new();
    for (expression, value) in [
        ("mean(x)", json!(11.5)),
        ("np.mean(x[::2], axis=0)", json!([8.0, 9.0, 10.0, 11.0])),
        ("x.sum(axis=1)[:2]", json!([6.0, 22.0])),
        ("mean(x[::4],0) - mean(x[2::4],0)", json!([0.0, 0.0, 0.0, 0.0])),
        ("x[-1, ::-2]", json!([23.0, 21.0])),
        ("x[[0, 5], 1]", json!([1.0, 21.0])),
        ("x[x > 20]", json!([21.0, 22.0, 23.0])),
        ("(count @ count).T", json!([[7, 15], [10, 22]])),
        ("2 * 3 + count", json!([[7, 8], [9, 10]])),
        ("2 ** -count[0, 0:1].astype('float64')", json!([0.5])),
        ("7 - count", json!([[6, 5], [4, 3]])),
        ("where(count > 2, count, -1)", json!([[-1, -1], [3, 4]])),
        ("~(count == 1)", json!([[false, true], [true, true]])),
        ("group.y.sum()", json!(48.0)),
        ("a('group/y').mean(axis=(0, 1), keepdims=True)", json!([[[2.0, 2.0, 2.0, 2.0]]])),
        ("count.shape[0] * np.pi", json!(std::f64::consts::TAU)),
        ("np.linalg.norm(count, ord=1)", json!(6.0)),
        ("linalg.solve(count, count)", json!([[1.0, 0.0], [0.0, 1.0]])),
        ("std(x, ddof=1) ** 2", json!(50.0)),
        ("stack([count, count], axis=0).max(axis=(1, 2))", json!([4, 4])),
        ("tensordot(count, count, axes=([0], [0]))", json!([[10, 14], [14, 20]])),
        ("np.nan", json!("NaN")),
    ] {
        let found = shop.value(expression);
        assert!(is_near(&found, &value), "{expression}: {found} instead of {value}");
    }
}

/// Equal, but for the last digits of floats.
fn is_near(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_near(a, b))
        }
        (Value::Number(one), Value::Number(other)) => {
            let far = one.as_f64().unwrap() - other.as_f64().unwrap();
            one.is_f64() == other.is_f64() && far.abs() < 1e-12
        }
        _ => one == other,
    }
}

#[test]
fn a_result_is_shown_as_numpy_shows_it() {
    let shop = Shop::new();
    let shown = |expression| text(&shop.zba(&["compute", "s", expression]).stdout);
    assert_eq!(shown("mean(x)"), "11.5\n");
    assert_eq!(shown("count"), "[[1 2]\n [3 4]]\n");
    assert_eq!(shown("count > 1"), "[[False True]\n [True True]]\n");
}

#[test]
fn a_stored_result_is_one_commit_with_the_expression_as_its_note() {
    let shop = Shop::new();
    let expression = "x[::2] - x[1::2].mean(axis=0)";
    let output = shop.zba(&[
        "compute",
        "s",
        expression,
        "--into",
        "out/diff",
        "--memory",
        "64MiB",
        "--threads",
        "2",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("computed `out/diff` float64 (3, 4)"));
    let store = Store::open(shop.path("s"), OpenOptions::read_only()).unwrap();
    let snapshot = store.begin_read().unwrap();
    let diff = snapshot.open::<f64, Ix2>("out/diff").unwrap();
    let x = x();
    let mean: Vec<f64> = (0..4).map(|at| (x[[1, at]] + x[[3, at]] + x[[5, at]]) / 3.0).collect();
    let wanted = Array2::from_shape_fn((3, 4), |(row, column)| x[[2 * row, column]] - mean[column]);
    assert_eq!(diff.view().unwrap(), wanted);
    let log = shop.zba(&["log", "s", "--json"]);
    assert!(text(&log.stdout).contains(&format!("compute {expression}")));
    // The name is taken now.
    shop.refused(&["x", "--into", "out/diff"], 1, &["out/diff"]);
}

#[test]
fn older_commits_can_be_computed_with() {
    let shop = Shop::new();
    let store = Store::open(shop.path("s"), OpenOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    transaction.open::<f64, Ix2>("x").unwrap().set("...", 0.0).unwrap();
    transaction.commit().unwrap();
    assert_eq!(shop.value("sum(x)"), json!(0.0));
    let output = shop.zba(&["compute", "s", "sum(x)", "--at", "1"]);
    assert_eq!(text(&output.stdout), "276.0\n", "{}", text(&output.stderr));
}

#[test]
fn explain_says_what_is_read_and_written_and_changes_nothing() {
    let shop = Shop::new();
    let output = shop.zba(&["compute", "s", "x + 1", "--explain", "--into", "y"]);
    let shown = text(&output.stdout);
    for line in
        ["result     float64 (6, 4)", "array      `x`", "to read    192 B", "to write   192 B"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let arguments = ["compute", "s", "sum(x)", "--explain", "--memory", "64", "--json"];
    let plan: Value = serde_json::from_slice(&shop.zba(&arguments).stdout).unwrap();
    assert_eq!((&plan["bytes_to_read"], &plan["bytes_to_write"]), (&json!(192), &json!(0)));
    assert_eq!(plan["fits"], json!(false), "{plan}");
    assert_eq!(shop.head(), 1);
    // What does not fit is refused before anything is read.
    shop.refused(&["sum(x)", "--memory", "64"], 1, &["the budget of 64"]);
}

#[test]
fn tasks_are_drawn_and_traced_into_files() {
    let shop = Shop::new();
    assert!(
        shop.zba(&["compute", "s", "x + 1", "--graph", "g.svg", "--into", "y"]).status.success()
    );
    assert_eq!(shop.head(), 1);
    assert!(fs::read_to_string(shop.path("g.svg")).unwrap().starts_with("<svg"));
    assert!(
        shop.zba(&["compute", "s", "x + 1", "--trace", "t.html", "--into", "y"]).status.success()
    );
    assert!(fs::read_to_string(shop.path("t.html")).unwrap().contains("<h2>Threads</h2>"));
    shop.refused(&["x + 1", "--graph", "missing/g.svg"], 1, &["missing/g.svg"]);
    shop.refused(&["x", "--trace", "missing/t.html", "--into", "z"], 1, &["missing/t.html"]);
    assert!(shop.zba(&["compute", "s", "x", "--trace", "shown.html"]).status.success());
    assert!(fs::read_to_string(shop.path("shown.html")).unwrap().contains("<h2>Threads</h2>"));
}

#[test]
fn brackets_in_and_after_brackets_take_no_longer_the_deeper_they_are() {
    let shop = Shop::new();
    let behind = "x".to_owned() + &"[...]".repeat(90) + "[0, 0:2]";
    assert_eq!(shop.value(&behind), json!([0.0, 1.0]));
    shop.refused(&[&("x[".repeat(90) + "0" + &"]".repeat(90))], 1, &["an index is"]);
}

#[test]
fn what_is_no_expression_is_wrong_usage_and_says_where() {
    let shop = Shop::new();
    shop.refused(&["mean(x"], 2, &["at the end"]);
    shop.refused(&["x + 'a' for"], 2, &["at character"]);
    shop.refused(&["x and x"], 2, &["write & and |"]);
    shop.refused(&[&("(".repeat(50_000) + "1" + &")".repeat(50_000))], 2, &["at most"]);
    for part in ["(", "-", "1+", "f(", "x[", "["] {
        shop.refused(&[&(part.repeat(100_000 / part.len()) + "1")], 2, &["at most"]);
        shop.refused(&[&(part.repeat(5_000) + "1")], 2, &["at "]);
    }
    shop.refused(&[&("-".repeat(5_000) + "1")], 2, &["deep"]);
}

#[test]
fn unknown_names_are_told_with_their_nearest() {
    let shop = Shop::new();
    shop.refused(&["mean(cuont)"], 1, &["`cuont`", "did you mean `count`"]);
    shop.refused(&["group.z + 1"], 1, &["`group/z`", "did you mean `group/y`"]);
    shop.refused(&["a('gruop/y')"], 1, &["did you mean `group/y`"]);
    shop.refused(&["maen(x)"], 1, &["`maen`", "did you mean `mean`"]);
    shop.refused(&["x.mena()"], 1, &["`mena`", "did you mean `mean`"]);
    shop.refused(&["x.Tt"], 1, &["`Tt`", "did you mean `T`"]);
    shop.refused(&["mean(x, axes=0)"], 1, &["no argument `axes`"]);
    shop.refused(&["where(x)"], 1, &["needs the argument `x`"]);
}

#[test]
fn shapes_and_types_that_do_not_fit_are_told() {
    let shop = Shop::new();
    shop.refused(&["x + count", "--into", "y"], 1, &["[6, 4]", "[2, 2]"]);
    shop.refused(&["x @ x"], 1, &["matmul", "[6, 4]"]);
    shop.refused(&["x[7]"], 1, &["index 7", "length 6"]);
    shop.refused(&["mean(x, 2)"], 1, &["axis 2"]);
    shop.refused(&["x.astype('nothing')"], 1, &["`nothing`"]);
    shop.refused(&["x & x"], 1, &["bitwise_and", "float64"]);
    shop.refused(&["ones((200, 100))"], 1, &["--into"]);
}

#[test]
fn an_expression_as_deep_as_allowed_is_computed() {
    let shop = Shop::new();
    let expression = "count+".repeat(90) + "count";
    assert_eq!(shop.value(&expression), json!([[91, 182], [273, 364]]));
    shop.refused(&[&("count+".repeat(300) + "count")], 1, &["steps deep"]);
}

#[test]
fn a_damaged_block_is_told_with_array_block_and_byte_and_nothing_is_committed() {
    let shop = Shop::new();
    let store = Store::open(shop.path("s"), OpenOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<f64, Ix2>("big", &[1024, 512]).unwrap();
    array.assign("...", &Array2::from_elem((1024, 512), 1.25)).unwrap();
    drop(array);
    transaction.commit().unwrap();
    drop(store);
    damage(&shop.path("s"));
    shop.refused(&["big * 2", "--into", "twice"], 4, &["`big`", "block", "byte"]);
    shop.refused(&["sum(big)"], 4, &["`big`", "block", "byte"]);
    shop.refused(&["big[big > 2]", "--into", "some"], 4, &["`big`", "block", "byte"]);
}

/// Flips a bit in a page of data that is all 1.25.
fn damage(store: &std::path::Path) {
    let page: Vec<u8> = 1.25_f64.to_le_bytes().iter().copied().cycle().take(4096).collect();
    let mut pending = vec![store.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let content = fs::read(&path).unwrap();
        let found = content.chunks(4096).position(|chunk| chunk == page);
        if let Some(at) = found {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[page[0] ^ 1], at as u64 * 4096).unwrap();
            return;
        }
    }
    panic!("no page of the array was found");
}
