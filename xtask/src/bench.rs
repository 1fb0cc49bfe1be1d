//! Runs the benchmarks of all members and judges their result lines.
//!
//! ```text
//! cargo bench --bench NAME   stdout  {"name":"first touch","ratio":1.02,"spread":0.03,...}
//!                                     |                    one JSON object per question
//!        table on the terminal  <-----+----->  docs/benchmarks.md (--write)
//! ```
//!
//! # Invariants
//!
//! 1. A result line with `"ok": false`, a bench target that fails, and one that prints no result
//!    line each fail the command.
//! 2. A question that cannot be asked on this machine (`"not_run": reason`) is shown, not dropped.
//!
//! # Failure
//!
//! A line that starts like JSON and cannot be read is reported with the target that printed it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ExitCode, Stdio};

use serde_json::Value;

use crate::steps::{self, Outcome};
use crate::workspace::Workspace;

const PAGE: &str = "docs/benchmarks.md";
const PAGE_HEAD: &str = "\
# Benchmarks

Each row is one question, asked of zbigarray and of its baseline in the same run, turn by turn.
`ratio` is the median over those pairs and `spread` the distance between its quartiles; a row
without a baseline has no ratio, and its bar is on the value itself. Values are medians.
";

/// What the command line asked for.
pub(crate) struct Options {
    quick: bool,
    write: bool,
    names: Vec<String>,
}

impl Options {
    /// Reads the words after `bench`; the error says which of them cannot be.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { quick: false, write: false, names: Vec::new() };
        for &word in words {
            match word {
                "--quick" => options.quick = true,
                "--write" => options.write = true,
                _ if word.starts_with('-') => {
                    return Err(format!("unknown option {word}"));
                }
                _ => options.names.push(word.to_owned()),
            }
        }
        if options.write && !options.names.is_empty() {
            return Err("--write replaces the whole page, so it takes no names".to_owned());
        }
        Ok(options)
    }

    /// The options as one would type them.
    fn shown(&self) -> String {
        let mut text = "cargo xtask bench".to_owned();
        for (chosen, word) in [(self.quick, " --quick"), (self.write, " --write")] {
            text.push_str(if chosen { word } else { "" });
        }
        self.names.iter().for_each(|name| text.extend([" ", name]));
        text
    }
}

/// `cargo xtask bench`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    let targets = match chosen_targets(workspace, &options.names) {
        Ok(targets) => targets,
        Err(why) => {
            eprintln!("xtask: bench: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut build = workspace.cargo();
    build.args(["bench", "--workspace", "--no-run"]);
    build.args(targets.iter().flat_map(|target| ["--bench", target]));
    if let Outcome::Failed(why) | Outcome::NotRun(why) = steps::run_command(build) {
        eprintln!("xtask: bench: the benchmarks do not build: {why}");
        return ExitCode::FAILURE;
    }
    let (mut results, mut problems) = (Vec::new(), Vec::new());
    for target in &targets {
        match run_target(workspace, target, options.quick) {
            Ok(lines) => results.extend(lines),
            Err(why) => problems.push(format!("{target}: {why}")),
        }
    }
    let missed = results.iter().filter(|result| result.verdict == Verdict::Missed);
    problems.extend(missed.map(|result| format!("{}: bar missed", result.name)));
    print!("\n{}", table(&results));
    if options.write
        && let Err(error) = write_page(workspace, options, &results)
    {
        problems.push(format!("{PAGE}: {error}"));
    }
    problems.iter().for_each(|problem| eprintln!("FAILED {problem}"));
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All bench targets, or those of them that were named.
fn chosen_targets(workspace: &Workspace, names: &[String]) -> Result<Vec<String>, String> {
    let mut command = workspace.cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cargo metadata: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata is not JSON: {error}"))?;
    let all = bench_targets(&metadata);
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        return Err(format!("no bench target {unknown}; there are: {}", all.join(", ")));
    }
    match (names, all.is_empty()) {
        ([], true) => Err("there is no bench target".to_owned()),
        ([], false) => Ok(all),
        (names, _) => Ok(names.to_vec()),
    }
}

/// Names of the bench targets of all members in the output of `cargo metadata`.
fn bench_targets(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let targets = packages.iter().flat_map(|package| list(&package["targets"]));
    targets
        .filter(|target| list(&target["kind"]).contains(&Value::from("bench")))
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect()
}

/// Runs one bench target and reads its result lines; other lines are passed on.
fn run_target(workspace: &Workspace, name: &str, quick: bool) -> Result<Vec<Answer>, String> {
    let mut command = workspace.cargo();
    command.args(["bench", "--quiet", "--workspace", "--bench", name]);
    command.stdout(Stdio::piped());
    if quick {
        command.env("ZBA_BENCH_QUICK", "1");
    }
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    let answers = read_answers(&mut child);
    let status = child.wait().map_err(|error| format!("cannot wait: {error}"))?;
    let answers = answers?;
    match (status.success(), answers.is_empty()) {
        (false, _) => Err(format!("{status}, after {} result lines", answers.len())),
        (true, true) => Err("printed no result line".to_owned()),
        (true, false) => Ok(answers),
    }
}

/// Echoes the output of `child` up to its end and collects the result lines.
fn read_answers(child: &mut Child) -> Result<Vec<Answer>, String> {
    let mut answers = Ok(Vec::new());
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|error| format!("its output: {error}"))?;
        println!("{line}");
        if line.starts_with('{') {
            match (Answer::decode(&line), &mut answers) {
                (Ok(answer), Ok(known)) => known.push(answer),
                (Err(why), Ok(_)) => answers = Err(why),
                (_, Err(_)) => {}
            }
        }
    }
    answers
}

/// How an answer compares with its bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Reached,
    Missed,
    NotRun,
}

/// One result line.
#[derive(PartialEq, Debug)]
struct Answer {
    name: String,
    ratio: Option<f64>,
    spread: Option<f64>,
    bar: String,
    subject: Option<f64>,
    baseline: Option<f64>,
    unit: String,
    verdict: Verdict,
    not_run: Option<String>,
}

impl Answer {
    /// Reads a line that `benches/harness.rs` printed.
    fn decode(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line)
            .map_err(|error| format!("result line cannot be read: {error}: {line}"))?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let number = |key: &str| value[key].as_f64();
        let not_run = text("not_run");
        let verdict = match (&not_run, value["ok"].as_bool()) {
            (Some(_), _) => Verdict::NotRun,
            (None, Some(true)) => Verdict::Reached,
            (None, Some(false)) => Verdict::Missed,
            (None, None) => return Err(format!("result line without \"ok\": {line}")),
        };
        Ok(Self {
            name: text("name").ok_or_else(|| format!("result line without a name: {line}"))?,
            ratio: number("ratio"),
            spread: number("spread"),
            bar: text("bar").unwrap_or_default(),
            subject: number("subject"),
            baseline: number("baseline"),
            unit: text("unit").unwrap_or_default(),
            verdict,
            not_run,
        })
    }

    /// The cells of a table row.
    fn cells(&self) -> [String; 7] {
        let ratio = |value: Option<f64>| value.map_or("-".to_owned(), |x| format!("{x:.3}"));
        let measured = |value: Option<f64>| {
            value.map_or("-".to_owned(), |x| format!("{} {}", four_digits(x), self.unit))
        };
        let result = match (self.verdict, &self.not_run) {
            (Verdict::Reached, _) => "ok".to_owned(),
            (Verdict::Missed, _) => "MISSED".to_owned(),
            (Verdict::NotRun, why) => format!("not run: {}", why.as_deref().unwrap_or_default()),
        };
        [
            self.name.clone(),
            measured(self.subject),
            measured(self.baseline),
            ratio(self.ratio),
            ratio(self.spread),
            self.bar.clone(),
            result,
        ]
    }
}

/// A number with four significant digits where it has that many, without an exponent.
fn four_digits(value: f64) -> String {
    let limits = [1000.0, 100.0, 10.0, 1.0, 0.1, 0.01, 0.001];
    let decimals = limits.iter().take_while(|&&limit| value.abs() < limit).count();
    format!("{value:.decimals$}")
}

const COLUMNS: [&str; 7] =
    ["question", "zbigarray", "baseline", "ratio", "spread", "bar", "result"];

/// The answers as a Markdown table that reads well on a terminal too.
fn table(answers: &[Answer]) -> String {
    let rows: Vec<[String; 7]> = answers.iter().map(Answer::cells).collect();
    let mut widths = COLUMNS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    let mut push_row = |cells: &[String; 7], fill: char| {
        for (cell, width) in cells.iter().zip(widths) {
            let padding = fill.to_string().repeat(width - cell.len());
            // Writing to a String cannot fail.
            let _ = write!(text, "|{}{cell}{padding}{}", edge(fill), edge(fill));
        }
        text.push_str("|\n");
    };
    push_row(&COLUMNS.map(str::to_owned), ' ');
    push_row(&[const { String::new() }; 7], '-');
    rows.iter().for_each(|row| push_row(row, ' '));
    text
}

/// What stands between a cell and its border.
fn edge(fill: char) -> char {
    if fill == '-' { '-' } else { ' ' }
}

/// Replaces `docs/benchmarks.md` by this run.
fn write_page(workspace: &Workspace, options: &Options, answers: &[Answer]) -> std::io::Result<()> {
    let mut page = PAGE_HEAD.to_owned();
    page.push('\n');
    let mut facts = workspace.machine();
    facts.push(("commit", workspace.commit()));
    facts.push(("command", format!("`{}`", options.shown())));
    for (fact, value) in facts {
        let _ = writeln!(page, "- {fact}: {value}");
    }
    page.push('\n');
    page.push_str(&table(answers));
    fs::create_dir_all(workspace.path("docs"))?;
    fs::write(workspace.path(PAGE), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"name":"first touch","ratio":1.02,"spread":0.03,"bar":"<= 1.1",
        "ok":true,"subject":2.5,"baseline":2.451,"unit":"us","rounds":9}"#;

    #[test]
    fn answers_keep_what_the_line_says() {
        let answer = Answer::decode(LINE).unwrap();
        assert_eq!(answer.verdict, Verdict::Reached);
        assert_eq!(
            answer.cells(),
            ["first touch", "2.500 us", "2.451 us", "1.020", "0.030", "<= 1.1", "ok"]
        );
    }

    #[test]
    fn a_missed_bar_and_a_question_not_asked_are_told_apart() {
        let missed = Answer::decode(r#"{"name":"open","ok":false}"#).unwrap();
        assert_eq!(missed.verdict, Verdict::Missed);
        let not_run = Answer::decode(r#"{"name":"open","not_run":"needs root"}"#).unwrap();
        assert_eq!(not_run.cells()[6], "not run: needs root");
    }

    #[test]
    fn lines_without_name_or_verdict_are_refused() {
        for line in [r#"{"ok":true}"#, r#"{"name":"open"}"#, "{broken"] {
            assert!(Answer::decode(line).is_err(), "{line}");
        }
    }

    #[test]
    fn only_bench_targets_are_run_and_those_of_all_members() {
        let metadata: Value = serde_json::from_str(
            r#"{"packages":[
                {"name":"xtask","targets":[{"name":"mount","kind":["bench"]}]},
                {"name":"zbigarray","targets":[
                    {"name":"zbigarray","kind":["lib"]},{"name":"reads","kind":["bench"]}]}]}"#,
        )
        .unwrap();
        assert_eq!(bench_targets(&metadata), ["mount", "reads"]);
    }

    #[test]
    fn options_are_read_and_shown_as_they_were_typed() {
        for words in [&["--quick", "--write"][..], &["--quick", "reads", "commits"]] {
            let options = Options::parse(words).unwrap();
            assert_eq!(options.shown(), format!("cargo xtask bench {}", words.join(" ")));
        }
        assert!(Options::parse(&["--fast"]).is_err());
    }

    #[test]
    fn a_page_of_some_benchmarks_never_replaces_the_page_of_all() {
        assert!(Options::parse(&["--write", "reads"]).is_err());
    }

    #[test]
    fn numbers_have_four_significant_digits() {
        let cases = [(0.0, "0.0000000"), (0.01234, "0.01234"), (2.5, "2.500"), (12345.6, "12346")];
        for (value, text) in cases {
            assert_eq!(four_digits(value), text);
        }
    }

    #[test]
    fn table_rows_have_equal_width() {
        let answers = [Answer::decode(LINE).unwrap()];
        let text = table(&answers);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(widths.len(), 3);
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");
    }
}
