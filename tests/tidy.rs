//! The rules of the house, as data, checked over every file of the repository.
//!
//! ```text
//! git ls-files --> File { path, text } --> rules --> path:line: what     all of them at once
//!                                            \- `code`: the text without comments and strings
//! ```
//!
//! # Invariants
//!
//! 1. Changing a rule means changing a table at the top of this file.
//! 2. Every rule has a planted violation in `every_rule_reports_what_was_planted`.
//! 3. Comments and strings are no code: they may speak of any layer and of unsafe code.
//!
//! # Failure
//!
//! A file that is not UTF-8 is data and is not read. The length of functions is clippy's job.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Each layer of `src/` and the layers it may name besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("sync", &[]),
    ("storage", &["units", "sync"]),
    ("vm", &["units", "sync"]),
    ("txn", &["units", "sync", "storage", "vm"]),
    ("array", &["units", "vm", "txn"]),
    ("compute", &["units", "sync", "txn", "array"]),
    ("error", &["units", "storage", "vm", "txn", "array", "compute"]),
    ("cli", &[]),
];

/// The layers that take locks, atomics and threads from `sync` only, so that a scheduler can choose
/// the order of what they do.
const SCHEDULED_LAYERS: &[&str] = &["storage", "vm", "txn", "array", "compute"];

/// What they may take from `std::sync`: it has no order to choose.
const UNSCHEDULED: &[&str] = &["Arc", "Weak", "OnceLock", "LazyLock"];

/// What a signal handler may use: the scheduler cannot interrupt it.
const UNSCHEDULED_HOMES: &[&str] = &["src/vm/sys/"];

/// Files of `src/` that join all layers and hold no logic.
const GLUE: &[&str] = &["src/lib.rs", "src/main.rs"];

/// Where unsafe code may stand: a directory, or a file.
const UNSAFE_HOMES: &[&str] = &[
    "src/vm/sys/",
    "src/vm/reservation.rs",
    "src/vm/shared.rs",
    "src/vm/lazy.rs",
    "src/vm/pager.rs",
    "src/array/cast.rs",
    "src/array/view.rs",
    // What the kernel does can only be tried with its own calls.
    "tests/it/kernel.rs",
    "tests/it/conformance/fork.rs",
    "tests/it/fault_threads.rs",
    // A baseline that is not our own way of mapping files.
    "benches/plain.rs",
    "python/src/buffer.rs",
    // How another process ended only a call of the kernel tells.
    "fuse/src/process.rs",
    // An allocator that counts.
    "fuzz/src/meter.rs",
];

/// Words that no file of ours holds, because what they mark belongs into the issue tracker.
const MARKERS: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("dbg", "!")];

/// Directories that exist only on somebody's machine.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/")];

const LINES_MAX: usize = 800;
const COLUMNS_MAX: usize = 100;
const DEPENDENCIES_PAGE: &str = "docs/dependencies.md";

/// A file of the repository.
struct File {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

/// What is wrong, and where.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Problem {
    path: String,
    line: usize,
    what: String,
}

/// Collects the problems of one file.
struct Problems<'a> {
    path: &'a str,
    found: &'a mut Vec<Problem>,
}

impl Problems<'_> {
    fn add(&mut self, line: usize, what: impl Into<String>) {
        self.found.push(Problem { path: self.path.to_owned(), line, what: what.into() });
    }
}

#[test]
fn repository_keeps_the_rules_of_the_house() {
    let problems = problems_of(&repository());
    let report: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}:{}: {}", problem.path, problem.line, problem.what))
        .collect();
    assert!(report.is_empty(), "{} problems\n{}\n", report.len(), report.join("\n"));
}

/// Every problem of these files, in order of path and line.
fn problems_of(files: &[File]) -> Vec<Problem> {
    let mut found = Vec::new();
    for file in files {
        let mut problems = Problems { path: &file.path, found: &mut found };
        machine_paths(file, &mut problems);
        if file.path.ends_with(".rs") {
            let code = code_of(&file.text);
            shape(file, &mut problems);
            markers(file, &mut problems);
            unsafe_code(file, &code, &mut problems);
            super_paths(&code, &mut problems);
            layers(file, &code, &mut problems);
            scheduled(file, &code, &mut problems);
        }
    }
    dependencies(files, &mut found);
    found.sort();
    found
}

/// Header, length of the file, length of its lines, characters.
fn shape(file: &File, problems: &mut Problems<'_>) {
    if !file.text.starts_with("//! ") {
        problems.add(1, "file starts without a //! header");
    }
    let count = file.text.lines().count();
    if count > LINES_MAX {
        problems.add(count, format!("file has {count} lines, more than {LINES_MAX}"));
    }
    for (number, line) in numbered(&file.text) {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            problems.add(number, format!("line has {columns} columns, more than {COLUMNS_MAX}"));
        }
        if let Some(strange) = line.chars().find(|c| !c.is_ascii()) {
            problems.add(number, format!("{} is not ASCII", strange.escape_unicode()));
        }
    }
}

fn markers(file: &File, problems: &mut Problems<'_>) {
    for (number, line) in numbered(&file.text) {
        for marker in MARKERS.iter().filter(|marker| !words(line, marker).is_empty()) {
            problems.add(number, format!("{marker} does not belong into committed code"));
        }
    }
}

fn machine_paths(file: &File, problems: &mut Problems<'_>) {
    let inside_a_path = |c: char| c.is_alphanumeric() || "._-}".contains(c);
    for (number, line) in numbered(&file.text) {
        for path in MACHINE_PATHS {
            let absolute = |(at, _): (usize, &str)| !line[..at].ends_with(inside_a_path);
            if line.match_indices(path).any(absolute) {
                problems.add(number, format!("{path} is a path of one machine"));
            }
        }
    }
}

fn unsafe_code(file: &File, code: &str, problems: &mut Problems<'_>) {
    let home = |home: &&str| match home.ends_with('/') {
        true => file.path.starts_with(*home),
        false => file.path == **home,
    };
    if UNSAFE_HOMES.iter().any(home) {
        return;
    }
    for (number, line) in numbered(code) {
        if !words(line, "unsafe").is_empty() {
            problems.add(number, "unsafe code outside its homes");
        }
    }
}

fn super_paths(code: &str, problems: &mut Problems<'_>) {
    for (number, line) in numbered(code) {
        if line.contains("super::super") {
            problems.add(number, "super::super:: hides the layer; start at crate::");
        }
    }
}

/// Every path into the crate leads to the own layer or to one the table allows.
fn layers(file: &File, code: &str, problems: &mut Problems<'_>) {
    let Some(inside) = file.path.strip_prefix("src/") else { return };
    if GLUE.contains(&file.path.as_str()) {
        return;
    }
    let own = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == own) else {
        return problems.add(1, format!("{own} is no layer: give it a row in tests/tidy.rs"));
    };
    let mut report = |number: usize, named: String, known: bool| {
        if named != own && !below.contains(&named.as_str()) {
            let what = match known {
                true => format!("{own} must not name {named}"),
                false => format!("crate::{named} does not say its layer"),
            };
            problems.add(number, what);
        }
    };
    let is_layer = |named: &str| LAYERS.iter().any(|(name, _)| *name == named);
    for (number, named) in paths_after(code, "crate::") {
        let known = is_layer(&named);
        report(number, named, known);
    }
    // In the root file of a layer `super` is the crate, and in its inner modules the layer.
    if inside == format!("{own}.rs") || inside == format!("{own}/mod.rs") {
        let named = paths_after(code, "super::").into_iter().filter(|(_, named)| is_layer(named));
        named.for_each(|(number, named)| report(number, named, true));
    }
}

/// Locks, atomics and threads come from `crate::sync`.
fn scheduled(file: &File, code: &str, problems: &mut Problems<'_>) {
    let own = file.path.strip_prefix("src/").and_then(|inside| inside.split(['/', '.']).next());
    let is_home = UNSCHEDULED_HOMES.iter().any(|home| file.path.starts_with(home));
    if is_home || !own.is_some_and(|own| SCHEDULED_LAYERS.contains(&own)) {
        return;
    }
    let named = |root: &str| paths_after(code, root).into_iter();
    let locks = named("std::sync::").filter(|(_, name)| !UNSCHEDULED.contains(&name.as_str()));
    let threads = named("std::").filter(|(_, name)| name == "thread");
    for (number, name) in locks.chain(threads).chain(named("parking_lot::")) {
        problems.add(number, format!("{name} comes from crate::sync"));
    }
}

/// The names that directly follow `root` in paths and in `use` groups, with their lines.
///
/// Macros are left out: an exported macro has no other path than `crate::name!`.
fn paths_after(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for at in words(code, root) {
        let rest = &code[at + root.len()..];
        let line = |offset: usize| 1 + code[..at + root.len() + offset].matches('\n').count();
        if rest.trim_start().starts_with('{') {
            names.extend(group(rest).into_iter().map(|(offset, name)| (line(offset), name)));
        } else {
            let name = identifier(rest);
            if !name.is_empty() && !rest[name.len()..].starts_with('!') {
                names.push((line(0), name.to_owned()));
            }
        }
    }
    names
}

/// The first name of each path in a `{a::b, c::{d, e}}` group, with its offset.
fn group(text: &str) -> Vec<(usize, String)> {
    let (mut depth, mut expects_name) = (0_usize, false);
    let mut names = Vec::new();
    for (offset, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => break,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && expects_name && !c.is_whitespace() {
            let name = identifier(&text[offset..]);
            if !name.is_empty() && name != "self" {
                names.push((offset, name.to_owned()));
            }
            expects_name = false;
        }
        if depth == 1 && (c == ',' || c == '{') {
            expects_name = true;
        }
    }
    names
}

/// Every dependency is explained, and every explanation has its dependency.
fn dependencies(files: &[File], found: &mut Vec<Problem>) {
    let page = files.iter().find(|file| file.path == DEPENDENCIES_PAGE);
    let explained = explained_dependencies(page.map_or("", |file| &file.text));
    let mut used = BTreeSet::new();
    for file in files.iter().filter(|file| is_manifest(&file.path)) {
        for (line, name) in declared_dependencies(&file.text) {
            if !explained.iter().any(|(_, known)| *known == name) {
                let what = format!("{name} has no row in {DEPENDENCIES_PAGE}");
                found.push(Problem { path: file.path.clone(), line, what });
            }
            used.insert(name);
        }
    }
    for (line, name) in explained.into_iter().filter(|(_, name)| !used.contains(name)) {
        let what = format!("{name} is no dependency any more");
        found.push(Problem { path: DEPENDENCIES_PAGE.to_owned(), line, what });
    }
}

fn is_manifest(path: &str) -> bool {
    path == "Cargo.toml" || path.ends_with("/Cargo.toml")
}

/// The names in the first column of the page's table: "| `name` | ...".
fn explained_dependencies(page: &str) -> Vec<(usize, String)> {
    let name = |line: &str| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.into());
    numbered(page).filter_map(|(number, line)| Some((number, name(line)?))).collect()
}

/// The dependencies a manifest takes from outside the workspace.
fn declared_dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut names = Vec::new();
    for (number, line) in numbered(manifest) {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            if let Some((kind, name)) = section.rsplit_once('.')
                && kind.ends_with("dependencies")
            {
                names.push((number, name.to_owned()));
            }
        } else if inside && !line.starts_with('#') && !line.contains("path = ") {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                names.push((number, name.to_owned()));
            }
        }
    }
    names
}

/// The offsets where `word` stands alone: no letter, digit or `_` touches its outer ends.
fn words(text: &str, word: &str) -> Vec<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let open_ended = !word.ends_with(in_word);
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !text[..at].ends_with(in_word))
        .filter(|&at| open_ended || !text[at + word.len()..].starts_with(in_word))
        .collect()
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The text with comments, strings and character literals blanked out, line for line.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match blank_len(rest, code.chars().next_back()) {
            Some(len) => {
                code.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                rest = &rest[len..];
            }
            None => {
                code.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    code
}

/// Length of the comment or literal that starts here, if one does.
fn blank_len(text: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_len(text));
    }
    if text.starts_with('"') {
        return Some(quoted_len(text, '"'));
    }
    if let Some(after) = text.strip_prefix('\'') {
        // A lifetime has no closing quote after one character.
        let mut inner = after.chars();
        let literal = match inner.next()? {
            '\\' => true,
            _ => inner.next() == Some('\''),
        };
        return literal.then(|| quoted_len(text, '\''));
    }
    if !in_word {
        return raw_string_len(text);
    }
    None
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length up to and with the closing `quote`, which is not the first character.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"..."`, `r#"..."#`, `br"..."` and so on.
fn raw_string_len(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix("cr"));
    let after = after.or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    let prefix_len = text.len() - body.len();
    Some(body.find(&closing).map_or(text.len(), |at| prefix_len + at + closing.len()))
}

/// The files git knows or would add; without git, every file outside build directories.
fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let mut paths = match listed {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => {
            let mut paths = Vec::new();
            walk(root, "", &mut paths);
            paths
        }
    };
    paths.sort();
    paths.dedup();
    assert!(paths.iter().any(|path| path == "tests/tidy.rs"), "the list of files is incomplete");
    let read = |path: String| {
        let text = fs::read_to_string(root.join(&path)).ok()?;
        Some(File { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

fn walk(root: &Path, directory: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(directory)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match (is_directory, name.as_str()) {
            (_, ".git") | (true, "target" | "__pycache__") => {}
            (true, _) => walk(root, &path, paths),
            (false, _) => paths.push(path),
        }
    }
}

/// The problems of one planted file, as `line: what`.
fn planted(path: &str, text: &str) -> Vec<String> {
    let files = [File { path: path.to_owned(), text: text.to_owned() }];
    problems_of(&files).iter().map(|found| format!("{}: {}", found.line, found.what)).collect()
}

#[test]
fn every_rule_reports_what_was_planted() {
    let header = "//! Header.\n";
    let cases = [
        ("src/vm/a.rs", "use crate::storage::Log;", "2: vm must not name storage"),
        ("src/storage/a.rs", "use crate::{units::Tid, vm};", "2: storage must not name vm"),
        ("src/array/a.rs", "fn f(x: crate::storage::X) {}", "2: array must not name storage"),
        ("src/units.rs", "use super::sync;", "2: units must not name sync"),
        ("src/storage/mod.rs", "use super::{units, txn::T};", "2: storage must not name txn"),
        ("src/cli/a.rs", "use crate::storage::X;", "2: cli must not name storage"),
        ("src/vm/a.rs", "use crate::Store;", "2: crate::Store does not say its layer"),
        ("src/other.rs", "", "1: other is no layer: give it a row in tests/tidy.rs"),
        ("src/txn/a.rs", "unsafe fn f() {}", "2: unsafe code outside its homes"),
        ("src/array/cast_more.rs", "unsafe {}", "2: unsafe code outside its homes"),
        ("xtask/src/a.rs", "unsafe {}", "2: unsafe code outside its homes"),
        ("src/txn/a.rs", "use parking_lot::Mutex;", "2: Mutex comes from crate::sync"),
        ("src/storage/a.rs", "use std::sync::{Arc, RwLock};", "2: RwLock comes from crate::sync"),
        ("src/vm/a.rs", "use std::{fs, thread};", "2: thread comes from crate::sync"),
        ("src/vm/a.rs", "use super::super::units;", "2: super::super:: hides the layer"),
        ("benches/a.rs", "// \u{b5}s", "2: \\u{b5} is not ASCII"),
    ];
    for (path, line, expected) in cases {
        let found = planted(path, &format!("{header}{line}\n"));
        assert_eq!(found.len(), 1, "{path}: {line}: {found:?}");
        assert!(found[0].starts_with(expected), "{path}: {line}: {found:?}");
    }
    for marker in MARKERS {
        let found = planted("fuse/src/a.rs", &format!("{header}// {marker} later\n"));
        assert_eq!(found, [format!("2: {marker} does not belong into committed code")]);
    }
    for path in MACHINE_PATHS {
        let found = planted("docs/a.md", &format!("See `{path}store`.\n"));
        assert_eq!(found, [format!("1: {path} is a path of one machine")]);
    }
}

#[test]
fn header_length_and_width_are_reported() {
    assert_eq!(planted("demo/a.rs", "fn main() {}\n"), ["1: file starts without a //! header"]);
    let wide = format!("//! {}\n", "x".repeat(COLUMNS_MAX - 3));
    assert_eq!(planted("tests/a.rs", &wide), ["1: line has 101 columns, more than 100"]);
    let long = format!("//! Header.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(planted("src/vm/a.rs", &long), ["801: file has 801 lines, more than 800"]);
}

#[test]
fn dependencies_and_their_page_must_agree() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nknown = \"1\"\nnews = \"1\"\n\
        mine = { path = \"../mine\" }\n[target.'cfg(unix)'.dev-dependencies.table]\n\
        version = \"1\"\n";
    let page = "| crate | why |\n|---|---|\n| `known` | why |\n| `gone` | why |\n";
    let problems = problems_of(&[file("fuse/Cargo.toml", manifest), file(DEPENDENCIES_PAGE, page)]);
    let found: Vec<_> = problems.iter().map(|p| (p.path.as_str(), p.line, &*p.what)).collect();
    assert_eq!(
        found,
        [
            (DEPENDENCIES_PAGE, 4, "gone is no dependency any more"),
            ("fuse/Cargo.toml", 5, "news has no row in docs/dependencies.md"),
            ("fuse/Cargo.toml", 7, "table has no row in docs/dependencies.md"),
        ]
    );
}

#[test]
fn what_the_rules_allow_is_not_reported() {
    let header = "//! Speaks of crate::txn and unsafe code.\n";
    let cases = [
        ("src/txn/a.rs", "use crate::{storage::{self, Log}, units, vm::Mapping, txn::X};"),
        ("src/array/a.rs", "/* crate::storage /* unsafe */ */ use crate::txn::Extent;"),
        ("src/vm/a.rs", "const A: &str = \"crate::txn unsafe \\\" unsafe\";"),
        ("src/vm/a.rs", "const A: &str = r#\"crate::txn \" unsafe\"#;"),
        ("src/vm/a.rs", "fn f<'a>(c: char) -> &'a str { if c == '\"' || c == '\\'' { X } }"),
        ("src/vm/a.rs", "crate::check!(x);"),
        ("src/vm/sys/mmap.rs", "unsafe {}"),
        ("src/vm/reservation.rs", "unsafe {}"),
        ("src/vm/mod.rs", "#[expect(unsafe_code, reason = \"home\")] mod sys;"),
        ("src/txn/a.rs", "use std::sync::{Arc, OnceLock};"),
        ("src/vm/sys/bus.rs", "use std::sync::atomic::AtomicUsize;"),
        ("src/cli/a.rs", "use std::thread;"),
        ("src/lib.rs", "pub use crate::txn::Store;"),
        ("src/error.rs", "use crate::storage::StorageError;"),
        ("src/vm/a.rs", "mod tests { use super::*; }"),
        ("docs/a.rs", "// target/tmp/store, https://example.org/work/, {root}/tmp/x"),
    ];
    for (path, line) in cases {
        assert_eq!(planted(path, &format!("{header}{line}\n")), [""; 0], "{path}: {line}");
    }
}
