//! The `zba` command, run as people and scripts run it.
//!
//! Each test runs the real program in a directory of its own. `.npy` files are put together by hand
//! here, so that the program's own reader and writer do not judge themselves.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "helpers fail as their test does")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a store in it.
struct Shop {
    dir: TempDir,
}

/// What a run of the program gave.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// Failed with this code, and said so in one line that holds all of `words`.
    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.starts_with("error: ") && self.err.ends_with('\n'), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        words.iter().for_each(|word| assert!(self.err.contains(word), "{word}: {}", self.err));
        assert!(self.out.is_empty(), "data beside an error");
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.err, "", "messages beside JSON");
        let text = str::from_utf8(&self.out).unwrap();
        assert_eq!(text.lines().count(), 1, "one document on one line");
        serde_json::from_str(text).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }
}

impl Shop {
    /// With an empty store `s`.
    fn new() -> Self {
        let shop = Self { dir: TempDir::new().unwrap() };
        shop.zba(&["create", "s", "--block-size", "64KiB"]).ok();
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zba"));
        command.args(arguments).current_dir(self.dir.path()).env("TZ", "UTC");
        command
    }

    fn zba(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments).stdin(Stdio::null()))
    }

    fn zba_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        let mut child = spawn(command.stdin(Stdio::piped()));
        // The program may refuse before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        ran(child)
    }

    /// What the store looks like, to see that nothing changed.
    fn state(&self) -> (Value, Value) {
        let mut log = self.zba(&["log", "s", "--json"]).ok().json();
        (self.zba(&["ls", "s", "--json"]).ok().json(), log["commits"].take())
    }

    /// The exported file in its parts: descr, order and shape as text, and the elements.
    fn exported(&self, arguments: &[&str]) -> (String, Vec<u8>) {
        parts(&self.zba(&[&["export", "s"], arguments].concat()).ok().out)
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(command: &mut Command) -> Ran {
    ran(spawn(command))
}

fn ran(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap_or(-1);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { code, out: output.stdout, err }
}

/// A `.npy` file of version 1.0.
fn npy(descr: &str, fortran: bool, shape: &str, elements: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend(format!("{dict:<117}\n").bytes());
    file.extend(elements);
    file
}

/// The dict without padding, and the elements, of a `.npy` file of version 1.0.
fn parts(file: &[u8]) -> (String, Vec<u8>) {
    assert_eq!(file[..8], *b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    assert_eq!(end % 64, 0, "aligned as NumPy does");
    (String::from_utf8(file[10..end].trim_ascii_end().to_vec()).unwrap(), file[end..].to_vec())
}

fn dict(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
}

fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| f64::from(n).to_le_bytes()).collect()
}

fn only(value: &Value, key: &str) -> Vec<Value> {
    value.as_array().unwrap().iter().map(|item| item[key].clone()).collect()
}

#[test]
fn files_come_back_as_they_were_in_both_orders_and_foreign_byte_order() {
    let shop = Shop::new();
    let bytes: Vec<u8> = (0..96).collect();
    let cases = [
        ("<f8", false, "(3, 4)"),
        ("<f8", true, "(3, 4)"),
        (">i4", false, "(4, 6)"),
        (">u2", true, "(2, 3, 8)"),
        ("|b1", false, "(96,)"),
        ("<M8[25s]", false, "(2, 6)"),
        ("<c16", false, "(6,)"),
        ("|S96", false, "()"),
        ("<f4", false, "(0, 5)"),
    ];
    for (at, (descr, fortran, shape)) in cases.into_iter().enumerate() {
        let elements = if shape.contains("(0") { &[] } else { &bytes[..] };
        let (file, name) = (npy(descr, fortran, shape, elements), format!("case/{at}"));
        shop.file("in.npy", &file);
        shop.zba(&["import", "s", &name, "in.npy"]).ok();
        shop.zba(&["export", "s", &name, "out.npy"]).ok();
        let out = fs::read(shop.path("out.npy")).unwrap();
        let fortran = if fortran { "True" } else { "False" };
        assert_eq!(parts(&out), (dict(descr, fortran, shape), elements.to_vec()));
    }
    let left: Vec<_> =
        fs::read_dir(shop.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "in, out and the store: {left:?}");
}

#[test]
fn an_array_of_many_blocks_streams_through_standard_input_and_output() {
    let shop = Shop::new();
    // 24 MB: three buffers, and rows that end at no block.
    let elements: Vec<u8> = (0..3_000_000_u64).flat_map(|n| (n * n).to_le_bytes()).collect();
    let file = npy("<u8", false, "(1000, 3000)", &elements);
    let done = shop.zba_with_input(&["import", "s", "a", "-", "--json"], &file).ok().json();
    assert_eq!((&done["commit"], &done["bytes"]), (&json!(1), &json!(24_000_000)));
    let (_, back) = shop.exported(&["a", "-", "-q"]);
    assert!(back == elements);
    let raw = shop.zba(&["export", "s", "a", "-", "--raw"]).ok().out;
    assert!(raw == elements);
    let info = shop.zba(&["info", "s", "a", "--json"]).ok().json();
    assert_eq!(info["blocks"], json!(367));
    assert_eq!(info["pieces"], json!(1), "an array written in order lies in one piece");
}

#[test]
fn a_closed_pipe_ends_an_export_quietly() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("<f8", false, "(500000,)", &numbers(500_000)));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    let mut child = spawn(&mut shop.command(&["export", "s", "a", "-"]));
    drop(child.stdout.take());
    let ran = ran(child);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn raw_bytes_are_imported_with_their_type_shape_and_order() {
    let shop = Shop::new();
    let bytes: Vec<u8> = (0..24).collect();
    shop.file("raw", &bytes);
    let raw = ["--raw", "--dtype", ">i2", "--shape", "3,4"];
    shop.zba(&[&["import", "s", "c", "raw"], &raw[..]].concat()).ok();
    shop.zba(&[&["import", "s", "f", "raw", "--order", "F"], &raw[..]].concat()).ok();
    shop.zba_with_input(&[&["import", "s", "i", "-"], &raw[..]].concat(), &bytes).ok();
    assert_eq!(shop.exported(&["c", "-"]), (dict(">i2", "False", "(3, 4)"), bytes.clone()));
    assert_eq!(shop.exported(&["f", "-"]), (dict(">i2", "True", "(3, 4)"), bytes.clone()));
    assert_eq!(shop.exported(&["i", "-"]).1, bytes);
    let wrong = ["import", "s", "x", "raw", "--raw", "--dtype", "f8", "--shape", "4"];
    shop.zba(&wrong).refused(1, &["raw is cut", "32 bytes", "24"]);
    let wrong = ["import", "s", "x", "raw", "--raw", "--dtype", "i1", "--shape", "4"];
    shop.zba(&wrong).refused(1, &["raw is too long", "4 bytes"]);
    assert_eq!(shop.zba(&["import", "s", "x", "raw", "--raw"]).code, 2);
    assert_eq!(shop.zba(&["import", "s", "x", "raw", "--dtype", "f8"]).code, 2);
}

/// A zip archive of members, compressed if `deflate`.
fn zip_of(members: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    use zip::CompressionMethod::{Deflated, Stored};
    let method = if deflate { Deflated } else { Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn members_of_npz_files_are_imported_one_or_all_in_one_commit() {
    let shop = Shop::new();
    let (x, y) = (numbers(6), numbers(100_000));
    let members = [
        ("x.npy", npy("<f8", true, "(2, 3)", &x)),
        ("readme.txt", b"not an array".to_vec()),
        ("g/y.npy", npy("<f8", false, "(100000,)", &y)),
    ];
    for deflate in [false, true] {
        let group = format!("all{deflate}");
        shop.file("m.npz", &zip_of(&members, deflate));
        let done = shop.zba(&["import", "s", &group, "m.npz", "--json"]).ok().json();
        let names = [format!("{group}/x"), format!("{group}/g/y")];
        assert_eq!(only(&done["arrays"], "name"), names.clone().map(Value::from));
        assert_eq!(shop.exported(&[&names[0], "-"]).1, x);
        assert!(shop.exported(&[&names[1], "-"]).1 == y);
    }
    let commits = shop.zba(&["log", "s", "--json"]).ok().json();
    assert_eq!(commits["commits"].as_array().unwrap().len(), 2);
    shop.zba(&["import", "s", "one", "m.npz:x"]).ok();
    assert_eq!(shop.exported(&["one", "-"]), (dict("<f8", "True", "(2, 3)"), x));
    shop.zba(&["import", "s", "no", "m.npz:z"]).refused(1, &["no member `z`", "x, g/y"]);
    let mut damaged = zip_of(&members, false);
    let at = damaged.windows(8).position(|w| w == 5_f64.to_le_bytes()).unwrap();
    damaged[at] ^= 1;
    shop.file("m.npz", &damaged);
    let before = shop.state();
    shop.zba(&["import", "s", "no", "m.npz:x"]).refused(1, &["m.npz:x", "checksum"]);
    shop.zba(&["import", "s", "no", "m.npz"]).refused(1, &["m.npz:x", "checksum"]);
    assert_eq!(shop.state(), before);
}

#[test]
fn files_that_cannot_be_imported_are_refused_in_one_sentence_and_change_nothing() {
    let shop = Shop::new();
    let file = npy("<f8", false, "(10, 5)", &numbers(50));
    shop.file("a.npy", &file);
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    let before = shop.state();
    shop.zba(&["import", "s", "a", "a.npy"]).refused(1, &["`a` exists already"]);
    shop.zba(&["import", "s", "a/b", "a.npy"]).refused(1, &["`a`", "is an array"]);
    shop.zba(&["import", "s", "b", "none.npy"]).refused(1, &["none.npy", "no such file"]);
    for cut in [4, 9, 100, 128, 300, file.len() - 1] {
        shop.file("cut.npy", &file[..cut]);
        shop.zba(&["import", "s", "b", "cut.npy"]).refused(1, &["cut.npy is cut"]);
        let piped = shop.zba_with_input(&["import", "s", "b", "-"], &file[..cut]);
        piped.refused(1, &["standard input is cut"]);
    }
    let long = [&file[..], b"x"].concat();
    shop.file("long.npy", &long);
    shop.zba(&["import", "s", "b", "long.npy"]).refused(1, &["long.npy is too long"]);
    let piped = shop.zba_with_input(&["import", "s", "b", "-"], &long);
    piped.refused(1, &["standard input is too long"]);
    shop.file("text.npy", b"hello, this is no array at all");
    shop.zba(&["import", "s", "b", "text.npy"]).refused(1, &["text.npy is no .npy file"]);
    shop.file("object.npy", &npy("|O", false, "(1,)", &[0; 8]));
    shop.zba(&["import", "s", "b", "object.npy"]).refused(1, &["object.npy", "object type"]);
    assert_eq!(shop.state(), before);
}

#[test]
fn append_grows_the_major_axis_whatever_order_the_rows_come_in() {
    let shop = Shop::new();
    let numbers = |range: std::ops::Range<u8>| range.collect::<Vec<u8>>();
    shop.file("c.npy", &npy("|u1", false, "(2, 3)", &numbers(0..6)));
    shop.file("f.npy", &npy("|u1", true, "(2, 3)", &[6, 9, 7, 10, 8, 11]));
    shop.zba(&["import", "s", "c", "c.npy"]).ok();
    shop.zba(&["import", "s", "c", "f.npy", "--append"]).ok();
    assert_eq!(shop.exported(&["c", "-"]), (dict("|u1", "False", "(4, 3)"), numbers(0..12)));
    shop.zba(&["import", "s", "f", "f.npy"]).ok();
    shop.zba(&["import", "s", "f", "f.npy", "--append"]).ok();
    shop.zba(&["import", "s", "f", "c.npy", "--append"]).ok();
    let want = [6, 9, 7, 10, 8, 11, 6, 9, 7, 10, 8, 11, 0, 3, 1, 4, 2, 5];
    assert_eq!(shop.exported(&["f", "-"]), (dict("|u1", "True", "(2, 9)"), want.to_vec()));
    let before = shop.state();
    shop.file("i.npy", &npy("|i1", false, "(2, 3)", &[0; 6]));
    let wrong = shop.zba(&["import", "s", "c", "i.npy", "--append"]);
    wrong.refused(1, &["`c` holds uint8", "i.npy holds int8"]);
    shop.file("w.npy", &npy("|u1", false, "(3, 2)", &[0; 6]));
    shop.zba(&["import", "s", "c", "w.npy", "--append"]).refused(1, &["w.npy", "axis 1"]);
    shop.file("cut.npy", &npy("|u1", false, "(2, 3)", &[0; 5]));
    shop.zba(&["import", "s", "c", "cut.npy", "--append"]).refused(1, &["is cut"]);
    shop.zba(&["import", "s", "new", "c.npy", "--append"]).refused(1, &["no array `new`"]);
    assert_eq!(shop.state(), before);
}

#[test]
fn parts_and_old_versions_are_exported() {
    let shop = Shop::new();
    let bytes: Vec<u8> = (0..24).collect();
    shop.file("a.npy", &npy("|u1", false, "(4, 6)", &bytes));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    shop.zba(&["tag", "s", "first"]).ok();
    shop.zba(&["resize", "s", "a", "2,6"]).ok();
    let slices: [(&str, &str, &[u8]); 5] = [
        ("1", "(6,)", &[6, 7, 8, 9, 10, 11]),
        ("::-1, 2", "(2,)", &[8, 2]),
        ("..., ::5", "(2, 2)", &[0, 5, 6, 11]),
        ("0:0", "(0, 6)", &[]),
        ("-1, None, 1:3", "(1, 2)", &[7, 8]),
    ];
    for (slice, shape, want) in slices {
        let got = shop.exported(&["a", "-", "--slice", slice]);
        assert_eq!(got, (dict("|u1", "False", shape), want.to_vec()), "{slice}");
    }
    let old = (dict("|u1", "False", "(4, 6)"), bytes);
    let year = "2020-01-01T00:00Z";
    for at in ["1", "first", "2", "2999-01-01"] {
        let want = if at == "2999-01-01" { "(2, 6)" } else { "(4, 6)" };
        assert!(shop.exported(&["a", "-", "--at", at]).0.contains(want), "{at}");
    }
    assert_eq!(shop.exported(&["a", "-", "--at", "first"]), old);
    shop.zba(&["export", "s", "a", "o", "--at", "9"]).refused(1, &["no commit 9"]);
    shop.zba(&["export", "s", "a", "o", "--at", "0"]).refused(1, &["no array `a`"]);
    shop.zba(&["export", "s", "a", "o", "--at", year]).refused(1, &["no array `a`"]);
    shop.zba(&["export", "s", "a", "o", "--at", "what"]).refused(1, &["`what`", "no tag"]);
    shop.zba(&["export", "s", "b", "o"]).refused(1, &["no array `b`"]);
    shop.zba(&["export", "s", "a", "o", "--slice", "5"]).refused(1, &["index 5", "out of range"]);
    shop.zba(&["export", "s", "a", "o", "--slice", "x"]).refused(1, &["`x` is not an index"]);
    shop.zba(&["export", "s", "a", "none/o"]).refused(1, &["none/o", "no such file"]);
    assert_eq!(shop.zba(&["export", "s", "a", "-", "--json"]).code, 2);
    assert!(!shop.path("o").exists());
}

#[test]
fn an_export_replaces_a_file_whole_and_follows_devices() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("|u1", false, "(3,)", &[1, 2, 3]));
    shop.file("out.npy", &[9; 10_000]);
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    let done = shop.zba(&["export", "s", "a", "out.npy", "--json"]).ok().json();
    assert_eq!(
        (&done["shape"], &done["dtype"], &done["bytes"]),
        (&json!([3]), &json!("|u1"), &json!(3))
    );
    assert_eq!(parts(&fs::read(shop.path("out.npy")).unwrap()).1, [1, 2, 3]);
    shop.zba(&["export", "s", "a", "/dev/null"]).ok();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    shop.zba(&["export", "s", "a", "s"]).refused(1, &["s is a directory"]);
}

#[test]
fn lists_and_facts_are_for_people_and_for_programs() {
    let shop = Shop::new();
    assert_eq!(shop.zba(&["ls", "s"]).ok().text(), "");
    shop.file("a.npy", &npy("<f8", false, "(50000,)", &numbers(50_000)));
    shop.zba(&["import", "s", "g/a", "a.npy", "--note", "the first"]).ok();
    shop.zba(&["import", "s", "b", "a.npy", "--block-size", "1MiB"]).ok();
    shop.zba(&["resize", "s", "b", "1000,1000"]).ok();
    let ls = shop.zba(&["ls", "s", "--json"]).ok().json();
    assert_eq!(only(&ls["arrays"], "name"), ["b", "g/a"]);
    assert_eq!(only(&ls["groups"], "name"), ["g"]);
    assert_eq!(ls["arrays"][0]["block_bytes"], json!(1 << 20));
    assert_eq!(ls["arrays"][1]["dtype"], json!("<f8"));
    let text = shop.zba(&["ls", "s", "g"]).ok().text();
    let want = "NAME  TYPE     SHAPE     ORDER       SIZE  CHANGED\n\
                g/    group\n\
                g/a   float64  (50000,)  C      390.6 KiB        1\n";
    assert_eq!(text, want);
    assert_eq!(
        only(&shop.zba(&["ls", "s", "--at", "1", "--json"]).ok().json()["arrays"], "name"),
        ["g/a"]
    );
    shop.zba(&["ls", "s", "x"]).refused(1, &["no name begins with `x`"]);
    let info = shop.zba(&["info", "s", "b", "--json"]).ok().json();
    let facts = ["shape", "bytes", "disk_bytes", "blocks", "blocks_stored", "commits", "created"];
    let want = [
        json!([1000, 1000]),
        json!(8_000_000),
        json!(401_408),
        json!(8),
        json!(1),
        json!(2),
        json!(2),
    ];
    assert_eq!(facts.map(|key| info[key].clone()), want);
    let text = shop.zba(&["info", "s", "b"]).ok().text();
    assert!(text.contains("8 blocks of 1.0 MiB, 1 stored"), "{text}");
    let info = shop.zba(&["info", "s", "--json"]).ok().json();
    assert_eq!(
        (&info["commit"], &info["arrays"], &info["groups"]),
        (&json!(3), &json!(2), &json!(1))
    );
    let format = fs::read_to_string(shop.path("s/format.json")).unwrap();
    assert!(format.contains(info["uuid"].as_str().unwrap()), "{info}");
    shop.zba(&["info", "s", "nope"]).refused(1, &["`nope`"]);
    let group = shop.zba(&["info", "s", "g", "--json"]).ok().json();
    assert_eq!(group["members"], json!(["g/a"]));
    let du = shop.zba(&["du", "s", "--json"]).ok().json();
    assert_eq!((&du["bytes"], &du["disk_bytes"]), (&json!(8_400_000), &json!(802_816)));
    assert!(shop.zba(&["du", "s"]).ok().text().contains("the store"));
    let log = shop.zba(&["log", "s", "--json"]).ok().json();
    assert_eq!(only(&log["commits"], "commit"), [3, 2, 1]);
    assert_eq!(log["commits"][2]["note"], json!("the first"));
    assert_eq!(only(&log["commits"][0]["changed"], "what"), ["resized"]);
    let log = shop.zba(&["log", "s", "b", "-n", "1", "--json"]).ok().json();
    assert_eq!(only(&log["commits"], "commit"), [3]);
    shop.zba(&["log", "s", "nope"]).refused(1, &["`nope`"]);
}

#[test]
fn names_move_copy_and_go() {
    let shop = Shop::new();
    let bytes = numbers(20_000);
    shop.file("a.npy", &npy("<f8", true, "(100, 200)", &bytes));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    shop.zba(&["attrs", "s", "a", "unit=\"mV\"", "gain=[1, 2]"]).ok();
    shop.zba(&["cp", "s", "a", "g/copy"]).ok();
    assert!(shop.exported(&["g/copy", "-"]) == (dict("<f8", "True", "(100, 200)"), bytes.clone()));
    let attrs = shop.zba(&["attrs", "s", "g/copy", "--json"]).ok().json();
    assert_eq!(attrs["attributes"], json!({"unit": "mV", "gain": [1, 2]}));
    shop.zba(&["mv", "s", "g", "h/deep"]).ok();
    shop.zba(&["cp", "s", "h", "i", "-r"]).ok();
    let names = only(&shop.zba(&["ls", "s", "--json"]).ok().json()["arrays"], "name");
    assert_eq!(names, ["a", "h/deep/copy", "i/deep/copy"]);
    assert!(shop.exported(&["i/deep/copy", "-"]).1 == bytes);
    let before = shop.state();
    shop.zba(&["cp", "s", "h", "j"]).refused(1, &["`h` is a group", "-r"]);
    shop.zba(&["cp", "s", "h", "h/k", "-r"]).refused(1, &["cannot move below itself"]);
    shop.zba(&["cp", "s", "a", "h"]).refused(1, &["`h` exists already"]);
    shop.zba(&["mv", "s", "a", "h"]).refused(1, &["`h` exists already"]);
    shop.zba(&["mv", "s", "x", "y"]).refused(1, &["no array or group `x`"]);
    shop.zba(&["rm", "s", "h"]).refused(1, &["not empty"]);
    shop.zba(&["rm", "s", "a", "x"]).refused(1, &["no array or group `x`"]);
    assert_eq!(shop.state(), before);
    shop.zba(&["rm", "s", "a", "h", "-r"]).ok();
    let names = only(&shop.zba(&["ls", "s", "--json"]).ok().json()["arrays"], "name");
    assert_eq!(names, ["i/deep/copy"]);
    let log = shop.zba(&["log", "s", "a", "--json"]).ok().json();
    assert_eq!(only(&log["commits"], "commit"), [6, 2, 1], "what is gone has a history");
}

#[test]
fn a_copy_of_an_array_nobody_wrote_takes_no_space() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("|u1", false, "(1,)", &[1]));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    shop.zba(&["resize", "s", "a", "1000000000000"]).ok();
    shop.zba(&["resize", "s", "a", "100000000"]).ok();
    shop.zba(&["cp", "s", "a", "b"]).ok();
    let info = shop.zba(&["info", "s", "b", "--json"]).ok().json();
    assert!(info["disk_bytes"].as_u64().unwrap() <= 8 << 20, "{info}");
    assert_eq!(shop.exported(&["b", "-", "--slice", ":3"]).1, [1, 0, 0]);
}

#[test]
fn attributes_are_json_of_arrays_groups_and_the_store() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("|u1", false, "(1,)", &[1]));
    shop.zba(&["import", "s", "g/a", "a.npy"]).ok();
    for name in ["g/a", "g", "/"] {
        shop.zba(&["attrs", "s", name, "n=1", "t=\"x\""]).ok();
        shop.zba(&["attrs", "s", name, "--unset", "n", "o={\"k\": null}"]).ok();
        let attrs = shop.zba(&["attrs", "s", name, "--json"]).ok().json();
        assert_eq!(attrs["attributes"], json!({"t": "x", "o": {"k": null}}), "{name}");
        assert_eq!(shop.zba(&["attrs", "s", name]).ok().text(), "o  {\"k\":null}\nt  \"x\"\n");
        shop.zba(&["attrs", "s", name, "--unset", "n"]).refused(1, &["no attribute `n`"]);
    }
    let bare = shop.zba(&["attrs", "s", "g", "unit=kelvin"]);
    assert_eq!(bare.code, 2);
    assert!(bare.err.contains("unit='\"kelvin\"'"), "{}", bare.err);
    shop.zba(&["attrs", "s", "none"]).refused(1, &["`none`"]);
}

#[test]
fn tags_name_commits_until_they_are_deleted() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("|u1", false, "(1,)", &[1]));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    shop.zba(&["tag", "s", "v1"]).ok();
    shop.zba(&["tag", "s", "same", "v1"]).ok();
    let tags = shop.zba(&["tag", "s", "--json"]).ok().json();
    assert_eq!(only(&tags["tags"], "tag"), ["same", "v1"]);
    assert_eq!(only(&tags["tags"], "tid"), [1, 1]);
    shop.zba(&["tag", "s", "v1", "--delete"]).ok();
    shop.zba(&["tag", "s", "v1", "--delete"]).refused(1, &["no tag `v1`"]);
    shop.zba(&["tag", "s", "late", "99"]).refused(1, &["no commit 99"]);
    for name in ["17", "7d", "2026-01-31", "head", "all-tags"] {
        shop.zba(&["tag", "s", name]).refused(2, &["cannot be called"]);
    }
}

#[test]
fn pack_forgets_what_no_tag_and_no_option_keeps() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("<f8", false, "(50000,)", &numbers(50_000)));
    for name in ["a", "b", "c"] {
        shop.zba(&["import", "s", name, "a.npy"]).ok();
    }
    shop.zba(&["rm", "s", "a", "b"]).ok();
    shop.zba(&["tag", "s", "two", "2"]).ok();
    let packed = shop.zba(&["pack", "s", "--json"]).ok().json();
    assert_eq!(packed["oldest"], json!(2));
    assert!(packed["freed_bytes"].as_u64().unwrap() < 400_000, "{packed}");
    assert!(shop.exported(&["b", "-", "--at", "two"]).1 == numbers(50_000));
    shop.zba(&["export", "s", "a", "o", "--at", "1"]).refused(1, &["commit 1 was packed away"]);
    assert_eq!(shop.zba(&["pack", "s", "--keep", "1h", "--json"]).ok().json()["oldest"], json!(2));
    let packed = shop.zba(&["pack", "s", "--keep", "head", "--json"]).ok().json();
    assert_eq!(packed["oldest"], json!(5));
    assert!(packed["freed_bytes"].as_u64().unwrap() >= 800_000, "{packed}");
    shop.zba(&["pack", "s", "--keep", "99"]).refused(1, &["no commit 99"]);
    shop.zba(&["pack", "s", "--keep", "what"]).refused(1, &["`what`"]);
    shop.zba(&["ls", "s", "--at", "two"]).refused(1, &["commit 2 was packed away"]);
    assert!(shop.exported(&["c", "-"]).1 == numbers(50_000));
}

#[test]
fn undo_takes_one_commit_back_and_a_later_change_of_the_same_is_a_conflict() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("|u1", false, "(3,)", &[1, 2, 3]));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    shop.zba(&["import", "s", "a", "a.npy", "--append"]).ok();
    shop.zba(&["attrs", "s", "a", "n=1"]).ok();
    shop.zba(&["attrs", "s", "a", "n=2"]).ok();
    let before = shop.state();
    shop.zba(&["undo", "s", "3"]).refused(3, &["conflict"]);
    shop.zba(&["undo", "s", "9"]).refused(1, &["no commit 9"]);
    assert_eq!(shop.state(), before);
    let done = shop.zba(&["undo", "s", "--json"]).ok().json();
    assert_eq!((&done["undone"], &done["commit"]), (&json!(4), &json!(5)));
    let attrs = shop.zba(&["attrs", "s", "a", "--json"]).ok().json();
    assert_eq!(attrs["attributes"], json!({"n": 1}));
    shop.zba(&["undo", "s", "2"]).ok();
    assert_eq!(shop.exported(&["a", "-"]).1, [1, 2, 3]);
}

/// Flips one bit where the bytes of `needle` lie in the store's data files.
fn damage(store: &Path, needle: &[u8]) {
    for entry in fs::read_dir(store.join("data")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            return fs::write(&path, bytes).unwrap();
        }
    }
    panic!("the data files do not hold those bytes");
}

#[test]
fn damaged_data_gives_exit_code_4_and_is_never_exported() {
    let shop = Shop::new();
    shop.file("a.npy", &npy("<f8", false, "(50000,)", &numbers(50_000)));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    let checked = shop.zba(&["check", "s", "--data", "--json"]).ok().json();
    assert_eq!(checked["ok"], json!(true));
    assert!(checked["data_bytes"].as_u64().unwrap() >= 400_000, "{checked}");
    damage(&shop.path("s"), &25_000_f64.to_le_bytes());
    shop.zba(&["check", "s"]).ok();
    let checked = shop.zba(&["check", "s", "--data"]);
    assert_eq!(checked.code, 4);
    assert_eq!(checked.text().lines().count(), 1, "one damaged place: {}", checked.text());
    assert!(checked.err.contains("1 damaged place"), "{}", checked.err);
    let json: Value =
        serde_json::from_slice(&shop.zba(&["check", "s", "--data", "--json"]).out).unwrap();
    assert_eq!(json["ok"], json!(false));
    assert_eq!(json["damage"].as_array().unwrap().len(), 1);
    shop.zba(&["export", "s", "a", "o.npy"]).refused(4, &["array `a` is damaged"]);
    assert!(!shop.path("o.npy").exists());
    let half = shop.exported(&["a", "-", "--slice", ":5000"]);
    assert!(half.1 == numbers(5000), "what is not damaged can be exported");
    shop.zba(&["cp", "s", "a", "b"]).refused(4, &["damaged"]);
}

#[test]
fn stores_that_are_none_or_damaged_are_said_to_be() {
    let shop = Shop::new();
    shop.zba(&["ls", "nowhere"]).refused(1, &["nowhere", "zba create nowhere"]);
    shop.zba(&["create", "s"]).refused(1, &["exists already"]);
    shop.zba(&["create", "t", "--block-size", "100"]).refused(2, &["100 bytes"]);
    assert!(!shop.path("t").exists());
    shop.file("file", b"");
    shop.zba(&["ls", "file"]).refused(1, &["file is a file"]);
    shop.zba(&["create", "file"]).refused(1, &["file is a file"]);
    let format = shop.path("s/format.json");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, &text[..text.len() / 2]).unwrap();
    shop.zba(&["ls", "s"]).refused(4, &["format.json"]);
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    let shop = Shop::new();
    let elements = numbers(4_000_000);
    shop.file("small.npy", &npy("<f8", false, "(10,)", &elements[..80]));
    shop.file("big.npy", &npy("<f8", false, "(4000000,)", &elements));
    shop.zba(&["import", "s", "small", "small.npy"]).ok();
    let before = shop.state();
    let zba = env!("CARGO_BIN_EXE_zba");
    let script = format!("ulimit -f 4096; exec '{zba}' import s big big.npy");
    let full = run(Command::new("sh").args(["-c", &script]).current_dir(shop.dir.path()));
    full.refused(1, &["s"]);
    assert_eq!(shop.state(), before);
    shop.zba(&["check", "s", "--data"]).ok();
    shop.zba(&["import", "s", "big", "big.npy"]).ok();
    assert!(shop.exported(&["big", "-"]).1 == elements);
    let script = format!("ulimit -f 4096; exec '{zba}' export s big out.npy");
    let full = run(Command::new("sh").args(["-c", &script]).current_dir(shop.dir.path()));
    full.refused(1, &["out.npy"]);
    assert!(!shop.path("out.npy").exists());
}

#[test]
fn a_small_file_system_that_is_full_leaves_the_store_as_it_was() {
    let shop = Shop { dir: TempDir::new().unwrap() };
    let disk = shop.path("disk");
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(&disk).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("not run: mounting a file system needs root");
        return;
    }
    let unmount = || Command::new("umount").arg("-l").arg(&disk).status();
    let elements = numbers(4_000_000);
    shop.file("big.npy", &npy("<f8", false, "(4000000,)", &elements));
    shop.file("small.npy", &npy("<f8", false, "(1000,)", &elements[..8000]));
    let created = shop.zba(&["create", "disk/s", "--block-size", "64KiB"]);
    let first = shop.zba(&["import", "disk/s", "small", "small.npy"]);
    let full = shop.zba(&["import", "disk/s", "big", "big.npy"]);
    let ls = shop.zba(&["ls", "disk/s", "--json"]);
    let again = shop.zba(&["import", "disk/s", "again", "small.npy"]);
    let checked = shop.zba(&["check", "disk/s", "--data"]);
    unmount().unwrap();
    created.ok();
    first.ok();
    full.refused(1, &["no space left"]);
    assert_eq!(only(&ls.ok().json()["arrays"], "name"), ["small"]);
    again.ok();
    checked.ok();
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let shop = Shop::new();
    shop.file("a.npy", &npy("|u1", false, "(3,)", &[1, 2, 3]));
    shop.zba(&["import", "s", "a", "a.npy"]).ok();
    let directories = ["s", "s/data", "s/log", "s/checkpoint"].map(|name| shop.path(name));
    let set = |mode: u32| {
        for path in directories.iter().filter(|path| path.exists()) {
            for entry in fs::read_dir(path).unwrap().filter_map(Result::ok) {
                if entry.path().is_file() {
                    let mode = fs::Permissions::from_mode(mode & 0o666);
                    fs::set_permissions(entry.path(), mode).unwrap();
                }
            }
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    let (ls, exported) = (shop.zba(&["ls", "s"]), shop.zba(&["export", "s", "a", "-"]));
    let checked = shop.zba(&["check", "s", "--data"]);
    let is_root = fs::write(shop.path("s/probe"), "").is_ok();
    let written = shop.zba(&["import", "s", "b", "a.npy"]);
    set(0o755);
    ls.ok();
    checked.ok();
    assert_eq!(parts(&exported.ok().out).1, [1, 2, 3]);
    if is_root {
        println!("not run: root may write everywhere");
    } else {
        written.refused(1, &["denied"]);
    }
}

#[test]
fn while_one_program_writes_others_read_and_write() {
    let shop = Shop::new();
    let file = npy("<f8", false, "(100000,)", &numbers(100_000));
    let mut writer = spawn(shop.command(&["import", "s", "a", "-"]).stdin(Stdio::piped()));
    let mut input = writer.stdin.take().unwrap();
    input.write_all(&file[..400_000]).unwrap();
    // The pipe holds 64 KiB, so the writer has read more than that: it has the store open.
    assert_eq!(shop.zba(&["ls", "s", "--json"]).ok().json()["arrays"], json!([]));
    shop.zba_with_input(&["import", "s", "b", "-"], &file).ok();
    assert_eq!(only(&shop.zba(&["ls", "s", "--json"]).ok().json()["arrays"], "name"), ["b"]);
    input.write_all(&file[400_000..]).unwrap();
    drop(input);
    ran(writer).ok();
    assert_eq!(only(&shop.zba(&["ls", "s", "--json"]).ok().json()["arrays"], "name"), ["a", "b"]);
}
