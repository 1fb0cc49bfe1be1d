//! The commands of `zba` that measure, complete and explain; what NumPy says of its files; Ctrl-C.

#![cfg(feature = "cli")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers fail as their test does")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const COMMANDS: [&str; 24] = [
    "create",
    "import",
    "export",
    "ls",
    "info",
    "log",
    "watch",
    "who",
    "du",
    "rm",
    "mv",
    "cp",
    "copy",
    "attrs",
    "codec",
    "resize",
    "tag",
    "undo",
    "check",
    "pack",
    "bench",
    "demo",
    "completions",
    "man",
];

fn zba(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zba"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}

#[track_caller]
fn ok(directory: &Path, arguments: &[&str]) -> Output {
    let output = zba(directory, arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    output
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn arrays_are_encoded_on_request_and_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let numbers: Vec<u8> = (0..400_000u32).flat_map(|n| (n * 3).to_le_bytes()).collect();
    fs::write(at.join("raw"), &numbers).unwrap();
    ok(at, &["create", "s"]);
    let raw = ["--raw", "--dtype", "<u4", "--shape", "400000"];
    for (name, codec) in [("plain", "none"), ("small", "zstd:9+delta")] {
        let import = ["import", "s", name, "raw", "--codec", codec, "--block-size", "64KiB"];
        ok(at, &[&import[..], &raw[..]].concat());
    }
    let info = |name: &str| -> Value {
        serde_json::from_slice(&ok(at, &["info", "s", name, "--json"]).stdout).unwrap()
    };
    assert_eq!(info("small")["codec"], "zstd:9+delta");
    assert!(info("small")["ratio"].as_f64().unwrap() > 5.0, "{}", info("small"));
    assert_eq!(info("plain")["encoded_bytes"], 0);
    ok(at, &["codec", "s", "plain", "lz4+shuffle", "--rewrite"]);
    assert_eq!(ok(at, &["codec", "s", "plain"]).stdout, b"lz4+shuffle\n");
    assert!(info("plain")["ratio"].as_f64().unwrap() > 1.5, "{}", info("plain"));
    ok(at, &["cp", "s", "small", "copy"]);
    assert_eq!(info("copy")["codec"], "zstd:9+delta");
    for name in ["plain", "small", "copy"] {
        ok(at, &["export", "s", name, "back", "--raw"]);
        assert!(fs::read(at.join("back")).unwrap() == numbers, "{name}");
    }
    ok(at, &["check", "s", "--data"]);
    let refused = zba(at, &["codec", "s", "plain", "gzip"]).output().unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && errors.contains("is no codec; say none, lz4"), "{errors}");
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let dir = TempDir::new().unwrap();
    let help = String::from_utf8(ok(dir.path(), &["--help"]).stdout).unwrap();
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "--help lists {command}");
        let text = String::from_utf8(ok(dir.path(), &[command, "--help"]).stdout).unwrap();
        assert!(text.contains("Example") && text.contains(&format!("  zba {command} ")), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
    let bare = zba(dir.path(), &[]).output().unwrap();
    assert_eq!(bare.status.code(), Some(2));
    for wrong in [&["what"][..], &["ls"], &["ls", "s", "--what"], &["import", "s", "a"]] {
        assert_eq!(zba(dir.path(), wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(ok(dir.path(), &["completions", shell]).stdout).unwrap();
        COMMANDS.iter().for_each(|command| assert!(script.contains(command), "{shell} {command}"));
    }
    let json: Value =
        serde_json::from_slice(&ok(dir.path(), &["completions", "bash", "--json"]).stdout).unwrap();
    assert_eq!(json["shell"], "bash");
    let page = String::from_utf8(ok(dir.path(), &["man"]).stdout).unwrap();
    assert!(page.contains(".TH zba 1"), "{page}");
    ok(dir.path(), &["man", "--dir", "deep/man1"]);
    let pages = names(&dir.path().join("deep/man1"));
    assert!(pages.contains(&"zba.1".to_owned()));
    for command in COMMANDS {
        assert!(pages.contains(&format!("zba-{command}.1")), "{pages:?}");
    }
}

#[test]
fn the_demo_gets_the_same_sum_as_a_plain_file_and_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    // Two transactions and a part.
    let output = ok(dir.path(), &["demo", "--size", "70000008", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["elements"], 8_750_001);
    assert_eq!(json["store"]["sum"], json["plain"]["sum"]);
    // math.fsum of the same elements.
    let sum: f64 = (0..8_750_001_u32).map(|t| 15.0 * (0.2 * f64::from(t)).sin()).sum();
    assert!((json["store"]["sum"].as_f64().unwrap() - sum).abs() < 1e-4, "{json} {sum}");
    assert!(json["peak_private_bytes"].as_u64().unwrap() < 128 << 20, "{json}");
    assert_eq!(names(dir.path()), Vec::<String>::new());
    let text = String::from_utf8(ok(dir.path(), &["demo", "--size", "1MiB"]).stdout).unwrap();
    ["PLAIN FILE", "make durable", "S(sig)", "peak memory"]
        .iter()
        .for_each(|word| assert!(text.contains(word), "{text}"));
    assert_eq!(names(dir.path()), Vec::<String>::new());
    ok(dir.path(), &["demo", "--size", "40MiB", "--store", "kept", "--keep"]);
    assert_eq!(names(dir.path()), ["kept"]);
    let info: Value =
        serde_json::from_slice(&ok(dir.path(), &["info", "kept", "signalv", "--json"]).stdout)
            .unwrap();
    assert_eq!((&info["shape"][0], &info["commits"]), (&5_242_880.into(), &3.into()));
    let again = zba(dir.path(), &["demo", "--store", "kept"]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(names(dir.path()), ["kept"]);
}

#[test]
fn bench_compares_with_a_plain_file_and_touches_nothing() {
    let dir = TempDir::new().unwrap();
    ok(dir.path(), &["create", "s"]);
    let output = ok(dir.path(), &["bench", "s", "--size", "16MiB", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answers = json["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 4);
    assert!(answers.iter().all(|answer| answer["speed"].as_f64().unwrap() > 0.0), "{json}");
    assert_eq!(names(dir.path()), ["s"]);
    let log: Value =
        serde_json::from_slice(&ok(dir.path(), &["log", "s", "--json"]).stdout).unwrap();
    assert_eq!(log["head"], 0);
    let text = String::from_utf8(ok(dir.path(), &["bench", "s", "--size", "1MiB"]).stdout).unwrap();
    assert!(text.contains("commit one element"), "{text}");
}

#[test]
fn ctrl_c_ends_an_import_and_a_demo_without_a_trace() {
    let dir = TempDir::new().unwrap();
    ok(dir.path(), &["create", "s"]);
    let raw = ["import", "s", "a", "-", "--raw", "--dtype", "u1", "--shape", "100000000000"];
    let mut child = zba(dir.path(), &raw)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().unwrap();
    let zeros = vec![0; 1 << 20];
    (0..20).for_each(|_| input.write_all(&zeros).unwrap());
    interrupt(child.id());
    // The rest of a buffer wakes the program up, unless it has ended already.
    let _ = (0..20).try_for_each(|_| input.write_all(&zeros));
    drop(input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), &*errors),
        (Some(130), "error: interrupted; nothing was changed\n")
    );
    assert!(ok(dir.path(), &["ls", "s"]).stdout.is_empty());
    let mut demo = zba(dir.path(), &["demo", "--size", "100GiB", "-q"]);
    let mut demo = demo.stderr(Stdio::null()).spawn().unwrap();
    while names(dir.path()).len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    interrupt(demo.id());
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(names(dir.path()), ["s"]);
}

fn interrupt(process: u32) {
    let status = Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Runs Python with NumPy in `directory`; what it printed.
fn numpy(python: &str, directory: &Path, script: &str) -> String {
    let script = format!("import numpy as np\n{script}");
    let output = Command::new(python).args(["-c", &script]).current_dir(directory).output();
    let output = output.expect("ZBA_PYTHON names a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn numpy_files_come_back_byte_for_byte_and_slices_are_numpy_s() {
    let Ok(python) = std::env::var("ZBA_PYTHON") else {
        println!("not run: ZBA_PYTHON is not set");
        return;
    };
    let dir = TempDir::new().unwrap();
    numpy(
        &python,
        dir.path(),
        "r = np.random.default_rng(7)
a = r.standard_normal((60, 40, 50))
np.save('0.npy', a); np.save('1.npy', np.asfortranarray(a)); np.save('2.npy', a.astype('>f4'))
np.save('3.npy', np.zeros(5, dtype=[('x', '<i4'), ('y', '>f8', (2, 3)), ('s', 'S7')]))
np.save('4.npy', np.datetime64('2026-01-31T12:00', 's')); np.save('5.npy', a > 0)
np.save('6.npy', np.zeros((3, 0, 2), 'c16')); np.save('7.npy', np.array(['a', 'bcd']))
np.savez_compressed('all.npz', a=a, b=np.asfortranarray(a[0])); np.savez('plain.npz', a=a)",
    );
    ok(dir.path(), &["create", "s"]);
    for at in 0..8 {
        let file = format!("{at}.npy");
        ok(dir.path(), &["import", "s", &file, &file]);
        ok(dir.path(), &["export", "s", &file, "out.npy"]);
        let (old, new) = (fs::read(dir.path().join(file)), fs::read(dir.path().join("out.npy")));
        assert!(old.unwrap() == new.unwrap(), "{at}");
    }
    ok(dir.path(), &["import", "s", "z", "all.npz"]);
    ok(dir.path(), &["import", "s", "p", "plain.npz:a"]);
    for (name, order) in [("0.npy", 0), ("1.npy", 1), ("z/a", 2), ("p", 3)] {
        for (at, slice) in ["::7", "..., 3", ":, 5:2:-1, ::10", "-1, None, ::-1"].iter().enumerate()
        {
            let file = format!("slice{order}{at}.npy");
            ok(dir.path(), &["export", "s", name, &file, "--slice", slice]);
            let script = format!(
                "a = np.load('0.npy')[{slice}]; b = np.load('{file}')
assert a.shape == b.shape and a.dtype == b.dtype and (a == b).all()"
            );
            numpy(&python, dir.path(), &script);
        }
    }
}

/// What the log of a store says, without the sizes, which differ between engines.
fn history(directory: &Path, store: &str) -> Vec<[String; 3]> {
    let printed = ok(directory, &["log", store, "--json"]).stdout;
    let log: Value = serde_json::from_slice(&printed).unwrap();
    let commits = log["commits"].as_array().unwrap().clone();
    let fact = |commit: &Value, key: &str| commit[key].to_string();
    commits.iter().map(|it| ["commit", "time", "note"].map(|key| fact(it, key))).collect()
}

#[test]
fn a_store_is_copied_between_engines_and_back_with_its_history() {
    let dir = TempDir::new().unwrap();
    let at = dir.path();
    let values: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(at.join("raw"), &values).unwrap();
    let raw = ["--raw", "--dtype", "<u4", "--shape", "300000"];
    ok(at, &["create", "one", "--block-size", "64KiB"]);
    ok(at, &[&["import", "one", "g/a", "raw"][..], &raw].concat());
    ok(at, &["attrs", "one", "g/a", "k=1"]);
    ok(at, &["tag", "one", "first"]);
    ok(at, &["resize", "one", "g/a", "200000"]);
    ok(at, &["cp", "one", "g/a", "b"]);
    ok(at, &["mv", "one", "b", "h/c"]);
    ok(at, &["rm", "one", "g/a"]);
    ok(at, &["copy", "one", "sled:two", "--history"]);
    ok(at, &["copy", "sled:two", "three", "--history"]);
    assert_eq!(history(at, "one"), history(at, "sled:two"));
    assert_eq!(history(at, "one"), history(at, "three"));
    for store in ["sled:two", "three"] {
        ok(at, &["check", store, "--data"]);
        ok(at, &["export", store, "g/a", "then", "--at", "first", "--raw"]);
        assert!(fs::read(at.join("then")).unwrap() == values, "{store}");
        ok(at, &["export", store, "h/c", "now", "--raw"]);
        assert!(fs::read(at.join("now")).unwrap() == values[..800_000], "{store}");
        fs::remove_file(at.join("then")).unwrap();
        fs::remove_file(at.join("now")).unwrap();
    }
    ok(at, &["copy", "sled:two", "four"]);
    assert_eq!(history(at, "four").len(), 1);
    assert!(names(at).iter().all(|name| !name.ends_with(".copying")));
}

#[test]
fn a_copy_refuses_what_is_there_and_names_what_is_left_of_another() {
    let dir = TempDir::new().unwrap();
    ok(dir.path(), &["create", "one"]);
    fs::create_dir(dir.path().join("two")).unwrap();
    fs::create_dir(dir.path().join("three.copying")).unwrap();
    for (to, why) in [("two", "is there already"), ("sled:three", "was interrupted")] {
        let output = zba(dir.path(), &["copy", "one", to]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
    }
    assert!(!dir.path().join("three").exists());
}
