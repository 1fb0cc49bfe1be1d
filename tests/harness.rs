//! The benchmark harness tells the truth: its statistics, verdicts and result lines.
//!
//! The harness is shared by bench targets that have no test runner, so its tests are a target here.

#[path = "../benches/harness.rs"]
mod harness;
#[path = "../benches/machine.rs"]
mod machine;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::{fs, io};

use harness::{Bar, Question, Ratio, Summary};
use machine::Hierarchy;
use proptest::prelude::*;

const QUESTION: Question<'static> = Question {
    name: "warm sum",
    unit: "s",
    ratio: Ratio::Speed,
    bar: Bar::AtLeast(0.97),
    rounds: 3,
};

#[test]
fn quartiles_lie_where_linear_interpolation_puts_them() {
    // numpy.percentile(x, [25, 50, 75])
    let cases: [(&[f64], [f64; 3]); 4] = [
        (&[7.0], [7.0, 7.0, 7.0]),
        (&[1.0, 2.0], [1.25, 1.5, 1.75]),
        (&[4.0, 1.0, 3.0, 2.0], [1.75, 2.5, 3.25]),
        (&[5.0, 1.0, 9.0, 3.0, 7.0], [3.0, 5.0, 7.0]),
    ];
    for (numbers, [lower_quartile, median, upper_quartile]) in cases {
        let expected = Summary { lower_quartile, median, upper_quartile };
        assert_eq!(Summary::of(numbers.to_vec()), expected, "{numbers:?}");
    }
}

#[test]
fn turns_are_interleaved_and_the_first_pair_is_dropped() {
    let turns = std::cell::RefCell::new(Vec::new());
    let turn = |who: &'static str, number: f64| {
        turns.borrow_mut().push(who);
        // The first pair is a hundred times slower on the subject's side.
        let first = turns.borrow().len() <= 2;
        Ok::<_, Infallible>(if first && who == "subject" { 100.0 } else { number })
    };
    let Ok(answer) = harness::compare(QUESTION, || turn("baseline", 2.0), || turn("subject", 2.0));
    assert_eq!(*turns.borrow(), ["baseline", "subject"].repeat(4));
    assert_eq!(answer.line()["ratio"], 1.0);
    assert_eq!(answer.line()["rounds"], 3);
}

#[test]
fn ratio_is_taken_inside_a_pair_so_that_drift_cancels() {
    let pairs = [(1.0, 1.0), (4.0, 4.0), (9.0, 9.0)];
    let answer = harness::answer(QUESTION, &pairs);
    assert_eq!((&answer.line()["ratio"], &answer.line()["spread"]), (&1.0.into(), &0.0.into()));
}

#[test]
fn speed_and_cost_are_inverse_to_each_other() {
    let pairs = [(1.0, 2.0)];
    let cost = Question { ratio: Ratio::Cost, bar: Bar::AtMost(1.9), ..QUESTION };
    assert_eq!(harness::answer(QUESTION, &pairs).line()["ratio"], 0.5);
    assert_eq!(harness::answer(cost, &pairs).line()["ratio"], 2.0);
}

#[test]
fn result_line_has_every_key_and_is_one_line() {
    let line = harness::answer(QUESTION, &[(0.5, 1.0), (0.5, 1.0)]).line().to_string();
    assert!(!line.contains('\n'));
    let expected = r#"{"name":"warm sum","ratio":0.5,"spread":0.0,"bar":">= 0.97","ok":false,
        "subject":1.0,"baseline":0.5,"unit":"s","rounds":2}"#;
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parsed(&line), parsed(expected));
}

#[test]
fn limit_judges_the_value_itself() {
    let answer = harness::limit("dirty scan", "ms", Bar::AtMost(5.0), vec![4.0, 6.0, 5.0]);
    let line = answer.line();
    assert_eq!((&line["bar"], &line["ok"]), (&"<= 5 ms".into(), &true.into()));
    assert_eq!((&line["ratio"], &line["baseline"]), (&().into(), &().into()));
    assert_eq!(line["spread"], 0.2);
}

#[test]
fn question_that_was_not_asked_has_no_verdict() {
    let answer = harness::not_run("cold sum", "needs root");
    assert_eq!(answer.line()["not_run"], "needs root");
    assert!(answer.line().get("ok").is_none());
}

#[test]
fn no_bar_is_reached_by_what_is_no_number() {
    assert!(!Bar::AtLeast(0.0).is_reached_by(f64::NAN));
    assert!(!Bar::AtMost(1.0).is_reached_by(f64::NAN));
}

#[test]
fn error_of_a_turn_ends_the_question() {
    let failed = harness::compare(QUESTION, || Ok(1.0), || Err("planted"));
    assert_eq!(failed.err(), Some("planted"));
}

#[test]
fn data_lies_under_target_and_goes_away() {
    let directory = machine::data_dir().unwrap();
    let path = directory.path().to_path_buf();
    assert!(path.parent().unwrap().ends_with("target/bench-data"));
    drop(directory);
    assert!(!path.exists());
}

#[test]
fn written_bytes_grow_by_what_was_passed_to_write() {
    let directory = machine::data_dir().unwrap();
    let before = machine::written().unwrap();
    fs::write(directory.path().join("file"), vec![1; 300_000]).unwrap();
    let after = machine::written().unwrap();
    // Other tests of this process write at the same time, but little.
    assert!((300_000..400_000).contains(&(after.passed_bytes - before.passed_bytes)));
}

#[test]
fn peak_memory_sees_a_buffer_that_is_gone() {
    let buffer = vec![1_u8; 64 << 20];
    std::hint::black_box(&buffer);
    drop(buffer);
    assert!(machine::peak_resident_bytes().unwrap() >= 64 << 20);
}

#[test]
fn memory_controller_is_found_where_it_is() {
    let v1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
    let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
    let path = |text| PathBuf::from(text);
    let found = machine::memory_hierarchy(v1, |_| false);
    assert_eq!(found, Some(Hierarchy::V1(path("/sys/fs/cgroup/memory"))));
    let found = machine::memory_hierarchy(v2, |root: &Path| root.ends_with("cgroup"));
    assert_eq!(found, Some(Hierarchy::V2(path("/sys/fs/cgroup"))));
    assert_eq!(machine::memory_hierarchy(v2, |_| false), None);
}

#[test]
fn missing_counter_is_an_error_that_names_it() {
    let error: io::Error = machine::field("rchar: 1\n", "wchar:").unwrap_err();
    assert!(error.to_string().contains("wchar:"));
    assert_eq!(machine::field("wchar: 12\n", "wchar:").unwrap(), 12);
}

proptest! {
    #[test]
    fn quartiles_are_ordered_and_inside_the_numbers(
        numbers in prop::collection::vec(-1e9..1e9, 1..40),
    ) {
        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let summary = Summary::of(numbers);
        prop_assert!(low <= summary.lower_quartile);
        prop_assert!(summary.lower_quartile <= summary.median);
        prop_assert!(summary.median <= summary.upper_quartile);
        prop_assert!(summary.upper_quartile <= high);
    }
}
