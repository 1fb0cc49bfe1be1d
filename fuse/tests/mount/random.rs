//! Random operations on one file against a model of plain memory, as fsx does it, by rows.
//!
//! ```text
//! pread, pwrite, append, ftruncate, fsync, close and open again, a reader beside
//!       writer's view == model.now       reader's view == model.committed        after every step
//! ```

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use zbigarray::array::{Header, Order};

use crate::support::{Scene, can_mount, elements, noise};

const ROW: u64 = 24;
const HEADER: u64 = 4096;
const ROWS_MAX: u64 = 20_000;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

fn open(path: &Path, append: bool) -> File {
    let mut options = File::options();
    options.read(true).write(!append).append(append);
    options.open(path).unwrap()
}

/// One run of a seed.
fn run(path: &Path, seed: u64, steps: u64, now: &mut Vec<u8>) {
    let mut dice = Dice(seed);
    let mut committed = now.clone();
    let mut file = open(path, false);
    let reader = File::open(path).unwrap();
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        let len = now.len() as u64;
        let at = dice.below(len);
        let most = 1 << dice.below(17);
        let part = dice.below(most).min(len - at);
        match dice.below(9) {
            0..=2 => {
                let bytes = noise(size(part), seed ^ step);
                file.write_all_at(&bytes, HEADER + at).unwrap();
                now[size(at)..size(at + part)].copy_from_slice(&bytes);
            }
            3 => {
                let rows = dice.below(ROWS_MAX);
                file.set_len(HEADER + rows * ROW).unwrap();
                now.resize(size(rows * ROW), 0);
            }
            4 => {
                // Behind the end: the rows between are zeros.
                let rows = dice.below(40);
                let begin = len / ROW + dice.below(10);
                let bytes = noise(size(rows * ROW), seed ^ step);
                if begin + rows < ROWS_MAX && rows > 0 {
                    file.write_all_at(&bytes, HEADER + begin * ROW).unwrap();
                    now.resize(size(begin * ROW), 0);
                    now.extend(bytes);
                }
            }
            5 => {
                file.sync_all().unwrap();
                committed.clone_from(now);
            }
            6 => {
                drop(file);
                committed.clone_from(now);
                let mut append = open(path, true);
                let bytes = noise(size(ROW * (1 + dice.below(30))), seed ^ step);
                bytes.chunks(17).for_each(|bytes| append.write_all(bytes).unwrap());
                drop(append);
                now.extend(bytes);
                committed.clone_from(now);
                file = open(path, false);
            }
            _ => {
                let mut found = vec![0; size(part)];
                file.read_exact_at(&mut found, HEADER + at).unwrap();
                assert!(found == now[size(at)..size(at + part)], "{place}: read {at} {part}");
            }
        }
        let at = dice.below(committed.len() as u64);
        let part = dice.below(9000).min(committed.len() as u64 - at);
        let mut found = vec![0; size(part)];
        reader.read_exact_at(&mut found, HEADER + at).unwrap();
        let wanted = &committed[size(at)..size(at + part)];
        assert!(found == wanted, "{place}: another program at {at} {part}");
    }
    drop(file);
    assert!(elements(path) == *now, "seed {seed} at the end");
    assert_eq!(reader.metadata().unwrap().size(), HEADER + now.len() as u64);
}

#[test]
fn random_operations_on_a_file_do_what_they_do_to_plain_memory() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new();
    let store = scene.store();
    let mut now = noise(size(ROW * 4000), 1);
    scene.put_as(&store, "a", ("<f8", Order::C), &[4000, 3], &now);
    let mounted = scene.mount(&["--rw"]);
    let path = mounted.head("a.npy");
    let seeds: u64 = std::env::var("ZBA_FSX_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 1..=seeds {
        run(&path, seed, 250, &mut now);
    }
    let bytes = std::fs::read(&path).unwrap();
    let (header, _) = Header::read(&mut &bytes[..]).unwrap();
    assert_eq!(header.shape(), [now.len() as u64 / ROW, 3]);
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}
