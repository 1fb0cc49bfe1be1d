//! Blocked arrays of a store: results do not depend on threads, blocks or the budget; results are
//! committed whole; damage and mistakes are errors that say where.

use ndarray::{ArrayD, CowArray, Ix2, IxDyn};
use std::fs::OpenOptions as FileOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use zbigarray::array::{ArrayOptions, Bool, DynArray, Order};
use zbigarray::compute::{
    Axes, Blocked, ComputeError, Number, Numeric, PadMode, RunError, RunOptions, Scalar,
};
use zbigarray::{CreateOptions, Dtype, OpenOptions, Store};

fn store(dir: &Path) -> Store {
    Store::create(dir.join("s"), CreateOptions::default()).unwrap()
}

fn threads(threads: usize) -> RunOptions {
    RunOptions { threads, ..RunOptions::default() }
}

/// Bytes that are not all alike, of any type: the same for the same seed.
fn noise(shape: &[u64], seed: u64) -> Blocked<'static> {
    Blocked::standard_normal(shape, seed, Number::F64).unwrap()
}

/// An array `name` of a store with these elements.
fn stored<'t>(
    transaction: &'t zbigarray::Transaction,
    name: &str,
    elements: &Blocked<'_>,
    order: Order,
) -> DynArray<'t> {
    let options = ArrayOptions::new().order(order);
    let dtype = elements.number().dtype();
    let shape = elements.shape();
    let mut array = DynArray::create(transaction, name, &dtype, shape, &options).unwrap();
    elements.store_into(&mut array, &RunOptions::default()).unwrap();
    array
}

/// Expressions of every kind over one array, each as `float64` along one axis.
fn expressions<'e>(x: &Blocked<'e>) -> Vec<(&'static str, Blocked<'e>)> {
    let made = |x: &Blocked<'e>| -> Result<Vec<(&'static str, Blocked<'e>)>, ComputeError> {
        let centred = x.subtract(x.mean(0)?)?;
        Ok(vec![
            ("elementwise", x.multiply(2.0)?.exp()?.subtract(x)?),
            ("slice of a sum", x.add(1.0)?.slice("::-3, 1::2")?),
            ("centred", centred.clone()),
            ("mean", x.mean(0)?),
            ("mean of all", x.mean(Axes::all())?),
            ("sum along rows", x.sum(1)?),
            ("variance", x.var(0, 1.0)?),
            ("variance of all", centred.std(Axes::all(), 0.0)?),
            ("argmax", x.argmax(Axes::all())?.astype(Number::F64)?),
            ("running sum", x.cumsum(0)?),
            ("greatest", x.topk(3, 1)?),
            ("median", x.percentile(50.0, 0)?),
            ("histogram", x.histogram(7, None)?.astype(Number::F64)?),
            ("reshaped", x.add(1.0)?.reshape(&[-1])?.slice("5:-5:7")?),
            ("transposed", x.transposed()?.add(x.transposed()?)?),
            ("padded", x.pad(&[(2, 3), (0, 4)], PadMode::Reflect)?.roll(5, 1)?),
            ("stacked", Blocked::stack(&[x.clone(), x.negative()?], 1)?),
        ])
    };
    made(x).unwrap()
}

fn computed(x: &Blocked<'_>, options: &RunOptions) -> ArrayD<f64> {
    x.compute::<f64>(options).unwrap()
}

/// The elements of a view in an array of their own.
fn owned(view: &CowArray<'_, f64, IxDyn>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(view.raw_dim(), view.iter().copied().collect()).unwrap()
}

/// Equal to the bit, NaN included.
fn same_bits(a: &ArrayD<f64>, b: &ArrayD<f64>) -> bool {
    a.shape() == b.shape() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn results_are_the_same_to_the_bit_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    let array = stored(&transaction, "x", &noise(&[67, 45], 1), Order::C);
    let x = Blocked::stored(&array).unwrap().rechunk(&[7, 20]).unwrap();
    let expressions = expressions(&x);
    let single: Vec<ArrayD<f64>> =
        expressions.iter().map(|(_, x)| computed(x, &threads(1))).collect();
    for count in 2..=4 {
        for ((name, expression), wanted) in expressions.iter().zip(&single) {
            let found = computed(expression, &threads(count));
            assert!(same_bits(&found, wanted), "{name} with {count} threads");
        }
    }
}

#[test]
fn results_are_the_same_within_the_least_budget_that_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    let array = stored(&transaction, "x", &noise(&[67, 45], 11), Order::C);
    let x = Blocked::stored(&array).unwrap().rechunk(&[7, 20]).unwrap();
    for (name, expression) in expressions(&x) {
        let wanted = computed(&expression, &threads(1));
        let mut budget = 1;
        let found = loop {
            let options = RunOptions { memory_bytes: Some(budget), ..threads(2) };
            match expression.compute::<f64>(&options) {
                Ok(found) => break found,
                Err(ComputeError::Run(RunError::OverBudget { needed, .. })) => {
                    assert!(needed > budget, "{name}: {needed} bytes are more than {budget}");
                    budget = needed;
                }
                Err(why) => panic!("{name}: {why}"),
            }
        };
        assert!(same_bits(&found, &wanted), "{name} in {budget} bytes");
    }
}

/// The first block of the result needs the last running sum, and the last block the first.
#[test]
fn results_that_wait_on_the_disk_for_memory_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let x = noise(&[400, 300], 13).rechunk(&[20, 300]).unwrap();
    let sums = x.cumsum(0).unwrap();
    let expression = sums.add(sums.slice("::-1").unwrap()).unwrap();
    let budget = RunOptions { memory_bytes: Some(400 << 10), ..threads(2) };
    let refused = expression.compute::<f64>(&budget);
    assert!(matches!(refused, Err(ComputeError::Run(RunError::OverBudget { .. }))));
    let spilling = RunOptions { spill: Some(dir.path().to_owned()), ..budget };
    let found = expression.compute::<f64>(&spilling).unwrap();
    assert!(same_bits(&found, &computed(&expression, &threads(1))));
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is left on the disk");
}

#[test]
fn results_do_not_depend_on_blocks_but_for_the_last_digits_of_sums() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    let values = noise(&[67, 45], 2);
    let rows = stored(&transaction, "rows", &values, Order::C);
    let columns = stored(&transaction, "columns", &values, Order::F);
    let whole = Blocked::stored(&rows).unwrap().rechunk(&[67, 45]).unwrap();
    let options = threads(2);
    let wanted: Vec<ArrayD<f64>> =
        expressions(&whole).iter().map(|(_, x)| computed(x, &options)).collect();
    for array in [&rows, &columns] {
        for block in [[1, 45], [67, 1], [10, 10], [3, 44]] {
            let x = Blocked::stored(array).unwrap().rechunk(&block).unwrap();
            for ((name, expression), wanted) in expressions(&x).iter().zip(&wanted) {
                let found = computed(expression, &options);
                let rounded = [
                    "centred",
                    "mean",
                    "mean of all",
                    "sum along rows",
                    "variance",
                    "variance of all",
                ];
                let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-13 * (1.0 + b.abs());
                let is_equal = match rounded.contains(name) {
                    true => found.shape() == wanted.shape() && found.iter().zip(wanted).all(near),
                    false => same_bits(&found, wanted),
                };
                assert!(is_equal, "{name} in blocks of {block:?}");
            }
        }
    }
}

#[test]
fn a_result_is_stored_in_any_order_and_type_and_is_there_after_the_commit_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let values = noise(&[300, 500], 3);
    let wanted = computed(&values, &threads(1));
    for (number, (dtype, order)) in
        [("<f8", Order::C), (">f8", Order::F), ("<f8", Order::F), (">f8", Order::C)]
            .into_iter()
            .enumerate()
    {
        let name = format!("to{number}");
        let transaction = store.begin().unwrap();
        let dtype = Dtype::parse(dtype).unwrap();
        let options = ArrayOptions::new().order(order).block_bytes(1 << 16);
        let mut array =
            DynArray::create(&transaction, &name, &dtype, &[300, 500], &options).unwrap();
        values.rechunk(&[64, 100]).unwrap().store_into(&mut array, &threads(2)).unwrap();
        drop(array);
        assert!(DynArray::open(&store.begin_read().unwrap(), &name).is_err());
        transaction.commit().unwrap();
        let transaction = store.begin_read().unwrap();
        let array = DynArray::open(&transaction, &name).unwrap();
        let found = computed(&Blocked::stored(&array).unwrap(), &threads(1));
        assert!(same_bits(&found, &wanted), "{dtype:?} {order}");
    }
}

#[test]
fn an_aborted_result_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    transaction.create::<f64, Ix2>("x", &[300, 500]).unwrap();
    transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = DynArray::open(&transaction, "x").unwrap();
    noise(&[300, 500], 4).store_into(&mut array, &threads(2)).unwrap();
    drop(array);
    transaction.abort();
    let transaction = store.begin_read().unwrap();
    let array = DynArray::open(&transaction, "x").unwrap();
    let any = Blocked::stored(&array).unwrap().any(Axes::all()).unwrap();
    assert!(!any.compute::<Bool>(&threads(1)).unwrap()[IxDyn(&[])].get());
}

#[test]
fn a_view_of_stored_elements_is_mapped_and_other_results_are_computed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    let array = stored(&transaction, "x", &noise(&[20, 30], 5), Order::C);
    let x = Blocked::stored(&array).unwrap();
    let options = threads(1);
    for text in ["...", "3", "::-2, 4:9", "2:2", "-1, ::3", "::-1, ::-1"] {
        let slice = x.slice(text).unwrap();
        let view = slice.to_view::<f64>(&options).unwrap();
        assert!(view.is_view(), "{text}");
        assert!(same_bits(&owned(&view), &computed(&slice, &options)), "{text}");
    }
    let sum = x.add(1.0).unwrap();
    let view = sum.to_view::<f64>(&options).unwrap();
    assert!(!view.is_view() && same_bits(&owned(&view), &computed(&sum, &options)));
}

#[test]
fn damage_is_an_error_that_names_array_block_and_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().block_bytes(1 << 16).codec(zbigarray::Codec::default());
    let dtype = Dtype::parse("f8").unwrap();
    let mut array =
        DynArray::create(&transaction, "field/x", &dtype, &[192, 4096], &options).unwrap();
    noise(&[192, 4096], 6).store_into(&mut array, &threads(1)).unwrap();
    drop(array);
    transaction.commit().unwrap();
    drop(store);
    // One byte of row 33, wherever it lies in the data files.
    let row: Vec<u8> = {
        let row = noise(&[192, 4096], 6).slice("33").unwrap();
        computed(&row, &threads(1)).iter().flat_map(|element| element.to_ne_bytes()).collect()
    };
    assert_eq!(damage(&dir.path().join("s"), &row), 1);
    let store = Store::open(dir.path().join("s"), OpenOptions::default()).unwrap();
    let transaction = store.begin_read().unwrap();
    let array = DynArray::open(&transaction, "field/x").unwrap();
    let x = Blocked::stored(&array).unwrap();
    // Rows are half a block long. What is loaded when it is touched is loaded by 2 MiB.
    let whole = x.slice("130:").unwrap().sum(Axes::all()).unwrap();
    whole.compute::<f64>(&threads(2)).unwrap();
    let why = x.sum(0).unwrap().compute::<f64>(&threads(2)).unwrap_err().to_string();
    let block = if cfg!(feature = "load-all") { "block " } else { "block 16" };
    for part in ["field/x", block, "byte"] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

/// Changes a byte of `content` in the files of a store; how often it was found.
fn damage(store: &Path, content: &[u8]) -> usize {
    let mut found = 0;
    let mut left = vec![store.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let starts = memchr(&bytes, content);
        for at in starts {
            let file = FileOptions::new().write(true).open(&path).unwrap();
            let middle = at + content.len() / 2;
            file.write_all_at(&[bytes[middle] ^ 0x10], middle as u64).unwrap();
            found += 1;
        }
    }
    found
}

/// Where `content` begins, at multiples of a page.
fn memchr(bytes: &[u8], content: &[u8]) -> Vec<usize> {
    let pages = (0..bytes.len()).step_by(4096);
    pages.filter(|&at| bytes[at..].starts_with(content)).collect()
}

#[test]
fn what_cannot_be_is_refused_with_shapes_and_types_and_never_panics() {
    let x = noise(&[3, 4], 7);
    let shown = |result: Result<Blocked<'_>, ComputeError>| match result {
        Ok(_) => panic!("it was not refused"),
        Err(why) => why.to_string(),
    };
    let other = noise(&[5], 8);
    let why = shown(x.add(&other));
    assert!(why.contains("add") && why.contains("[3, 4]") && why.contains("[5]"), "{why}");
    let why = shown(x.sum(2));
    assert!(why.contains("sum") && why.contains('2') && why.contains("[3, 4]"), "{why}");
    let why = shown(x.left_shift(1));
    assert!(why.contains("left_shift") && why.contains("float64"), "{why}");
    let bytes = Blocked::zeros(&[3], Number::U8).unwrap();
    let why = shown(bytes.add(300));
    assert!(why.contains("300") && why.contains("uint8"), "{why}");
    shown(Blocked::zeros(&[u64::MAX, u64::MAX], Number::F64));
    shown(Blocked::zeros(&[1; 40], Number::F64));
    shown(x.broadcast_to(&[u64::MAX / 8, 3, 4]));
    shown(x.reshape(&[-1, -1]));
    shown(x.reshape(&[i64::MIN, 2]));
    shown(x.slice("5"));
    shown(x.slice("..., ..."));
    shown(x.slice("1, 2, 3"));
    shown(x.transpose(&[0, 0]));
    shown(x.transpose(&[0]));
    shown(x.take(&[4], 1));
    shown(x.compress(&[true], 1));
    shown(x.repeat(u64::MAX, 0));
    shown(x.pad(&[(0, 0)], PadMode::Edge));
    shown(x.squeeze(0));
    shown(x.sum([0, 0]));
    shown(x.rechunk(&[1]));
    shown(x.histogram(0, None));
    shown(x.percentile(101.0, 0));
    shown(Blocked::concatenate(&[], 0));
    shown(Blocked::concatenate(&[x.clone(), other.clone()], 0));
    shown(Blocked::zeros(&[0, 3], Number::F64).unwrap().max(0));
    let huge = Blocked::zeros(&[1 << 50], Number::F64).unwrap();
    assert!(huge.compute_block(&threads(1)).is_err());
    assert!(x.compute::<f32>(&threads(1)).is_err());
    let negative = bytes
        .astype(Number::I8)
        .unwrap()
        .power(bytes.astype(Number::I8).unwrap().subtract(1).unwrap());
    assert!(negative.unwrap().compute_block(&threads(1)).is_err());
    let mut deep = x.clone();
    let why = loop {
        match deep.add(1.0) {
            Ok(deeper) => deep = deeper,
            Err(why) => break why.to_string(),
        }
    };
    assert!(why.contains("deep"), "{why}");
    deep.compute::<f64>(&threads(1)).unwrap();
    let mut deep = x.clone();
    let next = |x: &Blocked<'static>| x.subtract(x.mean(Axes::all())?)?.cumsum(0);
    while let Ok(deeper) = next(&deep) {
        deep = deeper;
    }
    deep.compute::<f64>(&threads(1)).unwrap();
}

#[test]
fn extremes_of_reading_by_slice_equal_what_a_view_shows() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let transaction = store.begin().unwrap();
    // Rows of 128 KiB: each is ensured for itself where a slice leaves others out.
    let array = stored(&transaction, "x", &noise(&[12, 4, 4096], 9), Order::C);
    let swept = stored(&transaction, "y", &noise(&[4096, 4, 12], 9), Order::F);
    for array in [&array, &swept] {
        let x = Blocked::stored(array).unwrap();
        for text in
            ["::4", "2::4, 1", "::-5, :, ::7", "..., ::5", "..., -1", "3:3", "::3, ::3, ::3"]
        {
            let slice = x.slice(text).unwrap();
            let view = owned(&slice.to_view::<f64>(&threads(1)).unwrap());
            let sum = computed(&slice.add(0.0).unwrap(), &threads(2));
            assert!(same_bits(&sum, &(view + 0.0)), "{text}");
        }
        let listed = x.take(&[7, -1, 0, 7], if array.order() == Order::C { 0 } else { 2 });
        let text = if array.order() == Order::C { "7" } else { "..., 7" };
        let first = computed(&x.slice(text).unwrap(), &threads(1));
        let axis = if array.order() == Order::C { 0 } else { 2 };
        let listed = computed(&listed.unwrap(), &threads(2));
        assert!(same_bits(
            &listed.index_axis(ndarray::Axis(axis), 3).to_owned().into_dyn(),
            &first
        ));
    }
}

#[test]
fn elements_where_a_mask_is_true_come_in_order() {
    let x = noise(&[9, 11], 10).rechunk(&[2, 5]).unwrap();
    let options = threads(3);
    let found = x.extract(&x.greater(0.5).unwrap(), &options).unwrap();
    let wanted: Vec<f64> =
        computed(&x, &options).into_iter().filter(|&element| element > 0.5).collect();
    assert!(!wanted.is_empty());
    assert_eq!(computed(&found, &options).into_raw_vec_and_offset().0, wanted);
}

#[test]
fn sums_and_variances_of_large_offsets_keep_their_digits() {
    let options = threads(2);
    let exact = |len: u64, value: f64| (len, value);
    // 1e8 + {0, 1, 2, 3}: the variance is 1.25 whatever the offset.
    let (len, variance) = exact(400_000, 1.25);
    let ramp = Blocked::arange(0, len.cast_signed(), 1).unwrap().remainder(4).unwrap();
    let shifted = ramp.astype(Number::F64).unwrap().add(1e8).unwrap().rechunk(&[10_007]).unwrap();
    let found = computed(&shifted.var(0, 0.0).unwrap(), &options)[IxDyn(&[])];
    assert!((found - variance).abs() < 1e-9, "{found}");
    let columns = shifted.reshape(&[-1, 2]).unwrap();
    let found = computed(&columns.var(0, 0.0).unwrap(), &options);
    assert!(found.iter().all(|found| (found - 1.0).abs() < 1e-9), "{found}");
    // Added one by one in float32 this would stop at 2^24.
    let ones = Blocked::ones(&[(1 << 24) + 1000], Number::F32).unwrap();
    let sum = ones.sum(0).unwrap().compute::<f32>(&options).unwrap();
    assert_eq!(sum[IxDyn(&[])], ((1 << 24) + 1000) as f32);
    fn of<T: Numeric>(x: &Blocked<'_>) -> T {
        x.compute::<T>(&threads(1)).unwrap()[IxDyn(&[])]
    }
    let full = Blocked::full(&[3, 5], Scalar::Int(i128::from(i64::MAX)), Number::I64).unwrap();
    assert_eq!(of::<i64>(&full.max(Axes::all()).unwrap()), i64::MAX);
}
