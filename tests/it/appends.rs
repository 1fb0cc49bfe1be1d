//! Two transactions append to one array: both succeed, and each row is there once.

use ndarray::{Array1, Array2, Ix1, Ix2, arr1, s};
use zbigarray::{
    ArrayError, ArrayOptions, CommitError, Conflict, CreateOptions, Keep, Order, Store, Transaction,
};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(
        crate::engine::address(&directory.path().join("s")),
        CreateOptions::default(),
    )
    .unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u32, Ix1>("a", &[0]).unwrap();
    array.append(&arr1(&[1, 2, 3])).unwrap();
    drop(array);
    transaction.commit().unwrap();
    (directory, store)
}

fn append(transaction: &Transaction, rows: &[u32]) -> zbigarray::AppendedRows {
    transaction.open::<u32, Ix1>("a").unwrap().append(&Array1::from(rows.to_vec())).unwrap()
}

fn content(store: &Store) -> Vec<u32> {
    let reader = store.begin_read().unwrap();
    reader.open::<u32, Ix1>("a").unwrap().view().unwrap().to_vec()
}

#[test]
fn rows_of_the_second_to_commit_land_behind_those_of_the_first() {
    let (_directory, store) = store();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    let first = append(&one, &[10, 11]);
    let (second, third) = (append(&other, &[20]), append(&other, &[21, 22]));
    assert_eq!((second.range(), third.range()), (3..4, 4..6));
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(content(&store), [1, 2, 3, 10, 11, 20, 21, 22]);
    assert_eq!((first.range(), second.range(), third.range()), (3..5, 5..6, 6..8));
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn rows_are_moved_behind_rows_of_zeros_of_which_only_the_shape_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u32, Ix1>("a", &[0]).unwrap());
    transaction.commit().unwrap();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    append(&one, &[0; 2048]);
    let rows = append(&other, &[20]);
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(rows.range(), 2048..2049);
    assert_eq!(content(&store), [vec![0; 2048], vec![20]].concat());
}

#[test]
fn rows_stay_where_they_are_beside_a_row_that_another_wrote_on_their_page() {
    let (_directory, store) = store();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    one.open::<u32, Ix1>("a").unwrap().set("0", 7).unwrap();
    let rows = append(&other, &[20]);
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(rows.range(), 3..4);
    assert_eq!(content(&store), [7, 2, 3, 20]);
}

#[test]
fn rows_are_moved_between_processes_as_between_threads() {
    let (directory, store) = store();
    let again = crate::engine::again(&store, &directory.path().join("s"));
    for round in 0..20 {
        let (one, other) = (store.begin().unwrap(), again.begin().unwrap());
        append(&one, &[round]);
        let rows = append(&other, &[round + 100]);
        one.commit().unwrap();
        other.commit().unwrap();
        let at = 3 + 2 * u64::from(round);
        assert_eq!(rows.range(), at + 1..at + 2);
    }
    let expected: Vec<u32> =
        [1, 2, 3].into_iter().chain((0..20).flat_map(|n| [n, n + 100])).collect();
    assert_eq!(content(&store), expected);
    assert_eq!(content(&again), expected);
}

#[test]
fn rows_are_moved_although_another_process_packed_meanwhile() {
    let (directory, store) = store();
    let again = crate::engine::again(&store, &directory.path().join("s"));
    let (one, other) = (store.begin().unwrap(), again.begin().unwrap());
    append(&one, &[10]);
    let rows = append(&other, &[20]);
    one.commit().unwrap();
    store.pack(Keep::Head).unwrap();
    other.commit().unwrap();
    assert_eq!(rows.range(), 4..5);
    for store in [store, again] {
        assert_eq!(content(&store), [1, 2, 3, 10, 20]);
    }
}

#[test]
fn who_looked_where_the_array_ends_conflicts() {
    type Look = fn(&Transaction);
    let looks: [(&str, Look); 10] = [
        ("catalog", |t| assert!(t.catalog().array("a").is_some())),
        ("all but the last", |t| assert!(t.open::<u32, Ix1>("a").unwrap().get(":-1").is_ok())),
        ("every second", |t| assert!(t.open::<u32, Ix1>("a").unwrap().get("0:1000:2").is_ok())),
        ("nothing there", |t| {
            assert!(t.open::<u32, Ix1>("a").unwrap().get("7:9").unwrap().is_empty())
        }),
        ("out of range", |t| assert!(t.open::<u32, Ix1>("a").unwrap().get("7").is_err())),
        ("shape", |t| drop(t.open::<u32, Ix1>("a").unwrap().shape())),
        ("len", |t| drop(t.open::<u32, Ix1>("a").unwrap().len())),
        ("last row", |t| drop(t.open::<u32, Ix1>("a").unwrap().rows(2..3).unwrap().to_vec())),
        ("resize", |t| t.open::<u32, Ix1>("a").unwrap().resize(&[9]).unwrap()),
        ("write", |t| t.open::<u32, Ix1>("a").unwrap().set("0", 7).unwrap()),
    ];
    for (name, look) in looks {
        for before in [true, false] {
            let (_directory, store) = store();
            let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
            append(&one, &[10]);
            if before {
                look(&other);
            }
            append(&other, &[20]);
            if !before {
                look(&other);
            }
            one.commit().unwrap();
            let error = other.commit().unwrap_err();
            assert!(matches!(error, CommitError::Conflict(_)), "{name}: {error}");
            assert_eq!(content(&store), [1, 2, 3, 10], "{name}");
        }
    }
}

#[test]
fn who_looked_only_at_rows_that_are_there_is_moved() {
    let (_directory, store) = store();
    let transaction = store.begin().unwrap();
    let rows: Vec<u32> = (4..=5000).collect();
    append(&transaction, &rows);
    transaction.commit().unwrap();
    for look in ["0", "0:100", "100:0:-3", "5:5", "...", "2, ..."] {
        let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
        append(&one, &[10]);
        assert!(other.open::<u32, Ix1>("a").unwrap().get(look).is_ok());
        append(&other, &[20]);
        one.commit().unwrap();
        match (look, other.commit()) {
            ("...", Err(CommitError::Conflict(_))) => {}
            (_, ended) => assert!(ended.is_ok(), "{look}: {ended:?}"),
        }
    }
}

#[test]
fn an_append_and_a_shrink_conflict_whoever_is_first() {
    for append_first in [true, false] {
        let (_directory, store) = store();
        let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
        append(&one, &[10]);
        other.open::<u32, Ix1>("a").unwrap().resize(&[1]).unwrap();
        let (first, second) = if append_first { (one, other) } else { (other, one) };
        first.commit().unwrap();
        let error = second.commit().unwrap_err();
        assert!(matches!(error, CommitError::Conflict(_)), "{error}");
    }
}

#[test]
fn a_conflict_elsewhere_stands_although_rows_could_be_moved() {
    let (_directory, store) = store();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u32, Ix1>("b", &[4]).unwrap());
    transaction.commit().unwrap();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    for (transaction, n) in [(&one, 1), (&other, 2)] {
        append(transaction, &[n]);
        transaction.open::<u32, Ix1>("b").unwrap().set("0", n).unwrap();
    }
    one.commit().unwrap();
    assert!(matches!(other.commit().unwrap_err(), CommitError::Conflict(Conflict::Pages { .. })));
    assert_eq!(content(&store), [1, 2, 3, 1]);
}

#[test]
fn changes_of_other_arrays_are_committed_with_rows_that_were_moved() {
    let (_directory, store) = store();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u32, Ix1>("b", &[4000]).unwrap());
    transaction.commit().unwrap();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    append(&one, &[10]);
    one.open::<u32, Ix1>("b").unwrap().set("0", 1).unwrap();
    append(&other, &[20]);
    other.open::<u32, Ix1>("b").unwrap().set("3999", 2).unwrap();
    let created = other.create::<u32, Ix1>("c", &[2]).unwrap().set("1", 5);
    created.unwrap();
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(content(&store), [1, 2, 3, 10, 20]);
    let reader = store.begin_read().unwrap();
    let b = reader.open::<u32, Ix1>("b").unwrap();
    assert_eq!((b.view().unwrap()[0], b.view().unwrap()[3999]), (1, 2));
    assert_eq!(reader.open::<u32, Ix1>("c").unwrap().view().unwrap().to_vec(), [0, 5]);
}

#[test]
fn large_rows_in_either_order_are_moved_whole_and_the_rest_is_the_fill_value() {
    for order in [Order::C, Order::F] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(
            crate::engine::address(&directory.path().join("s")),
            CreateOptions::default(),
        )
        .unwrap();
        let transaction = store.begin().unwrap();
        let options = ArrayOptions::new().order(order).fill(&(-1.5f64).to_le_bytes());
        let shape: [u64; 2] = if order == Order::C { [0, 777] } else { [777, 0] };
        drop(transaction.create_with::<f64, Ix2>("m", &shape, &options).unwrap());
        transaction.commit().unwrap();
        let piece = |first: usize, rows: usize| {
            let all = Array2::from_shape_fn((rows, 777), |(i, j)| ((first + i) * 1000 + j) as f64);
            if order == Order::C { all } else { all.reversed_axes() }
        };
        let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
        one.open::<f64, Ix2>("m").unwrap().append(&piece(0, 500)).unwrap();
        let mut array = other.open::<f64, Ix2>("m").unwrap();
        array.append(&piece(500, 900)).unwrap();
        let rows = array.append(&piece(1400, 3)).unwrap();
        drop(array);
        one.commit().unwrap();
        other.commit().unwrap();
        assert_eq!(rows.range(), 1400..1403);
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<f64, Ix2>("m").unwrap();
        assert_eq!(array.view().unwrap(), piece(0, 1403));
        let grown: [u64; 2] = if order == Order::C { [1404, 777] } else { [777, 1404] };
        array.resize(&grown).unwrap();
        let view = array.view().unwrap();
        let last =
            if order == Order::C { view.slice(s![1403, ..]) } else { view.slice(s![.., 1403]) };
        assert!(last.iter().all(|&value| value == -1.5));
    }
}

#[test]
fn rows_of_several_steps_are_moved_each_to_its_place() {
    let (_directory, store) = store();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    append(&one, &[10]);
    let rows: Vec<u32> = (0..5 << 20).collect();
    let moved = append(&other, &rows);
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(moved.range(), 4..4 + (5 << 20));
    let found = content(&store);
    assert_eq!(found[..4], [1, 2, 3, 10]);
    assert!(found[4..] == rows, "three steps of 8 MiB");
}

#[test]
fn threads_that_append_lose_and_repeat_nothing() {
    const THREADS: u32 = 4;
    const APPENDS: u32 = 40;
    let (directory, store) = store();
    let again = crate::engine::again(&store, &directory.path().join("s"));
    let ranges: Vec<_> = std::thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            let store = if thread % 2 == 0 { &store } else { &again };
            scope.spawn(move || {
                let one = |n: u32| {
                    let rows: Vec<u32> = (0..=n % 3).map(|i| thread << 16 | n << 4 | i).collect();
                    let transaction = store.begin().unwrap();
                    let told = append(&transaction, &rows);
                    transaction.commit().unwrap();
                    (told, rows)
                };
                (0..APPENDS).map(one).collect::<Vec<_>>()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let content = content(&store);
    let mut covered = 3;
    let mut ranges: Vec<_> = ranges.into_iter().map(|(told, rows)| (told.range(), rows)).collect();
    ranges.sort_by_key(|(range, _)| range.start);
    for (range, rows) in ranges {
        assert_eq!(range.start, covered, "no gap and nothing twice");
        covered = range.end;
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert_eq!(content[range], rows);
    }
    assert_eq!(covered, content.len() as u64);
}

#[test]
fn rows_that_are_written_as_they_come_are_moved_too_and_a_failure_leaves_none() {
    let (_directory, store) = store();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    append(&one, &[10]);
    let mut array = other.open::<u32, Ix1>("a").unwrap();
    let failed = array.dynamic_mut().append_with(&[2], |rows| {
        rows.write(&[], Order::C, &[1; 8])?;
        Err::<(), ArrayError>(ArrayError::NotFound { name: "no more rows".into() })
    });
    assert!(matches!(failed, Err(ArrayError::NotFound { .. })));
    assert_eq!(array.view().unwrap().to_vec(), [1, 2, 3]);
    drop(array);
    other.abort();
    let other = store.begin().unwrap();
    let mut array = other.open::<u32, Ix1>("a").unwrap();
    let rows = array.dynamic_mut().append_with(&[2], |rows| {
        let values: Vec<u8> = [20_u32, 21].iter().flat_map(|value| value.to_le_bytes()).collect();
        rows.write_linear(0, &values)
    });
    let refused = array.dynamic_mut().append_with(&[1, 1], |_| Ok::<(), ArrayError>(()));
    assert!(matches!(refused, Err(ArrayError::Shape(_))));
    drop(array);
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(rows.unwrap().range(), 4..6);
    assert_eq!(content(&store), [1, 2, 3, 10, 20, 21]);
}

#[test]
fn who_went_back_to_a_savepoint_conflicts() {
    let (_directory, store) = store();
    let (one, mut other) = (store.begin().unwrap(), store.begin().unwrap());
    append(&one, &[10]);
    append(&other, &[20]);
    let savepoint = other.savepoint().unwrap();
    append(&other, &[21]);
    other.rollback(savepoint).unwrap();
    one.commit().unwrap();
    assert!(matches!(other.commit(), Err(CommitError::Conflict(_))));
    assert_eq!(content(&store), [1, 2, 3, 10]);
}

#[test]
fn another_array_that_was_laid_out_anew_is_in_no_ones_way() {
    let (_directory, store) = store();
    let transaction = store.begin().unwrap();
    let mut wide = transaction.create::<u32, Ix2>("wide", &[0, 2]).unwrap();
    wide.append(&Array2::from_elem((3, 2), 7)).unwrap();
    drop(wide);
    transaction.commit().unwrap();
    let (one, other) = (store.begin().unwrap(), store.begin().unwrap());
    append(&one, &[10]);
    one.open::<u32, Ix2>("wide").unwrap().resize(&[3, 5]).unwrap();
    let rows = append(&other, &[20]);
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(rows.range(), 4..5);
    assert_eq!(content(&store), [1, 2, 3, 10, 20]);
}
