//! Programs that go through transactions and arrays: the steps of the model, on a simulated disk.

use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use zbigarray::Tid;
use zbigarray::storage::backend::simulated::Simulated;

use crate::dice::Dice;
use crate::model::plain::Plain;
use crate::model::steps::{Step, steps};
use crate::model::world::{self, World};
use crate::program::backend;
use crate::story::{Phase, Story};
use crate::version::{Held, Version};

/// What a run of the model leaves.
pub(crate) struct Run {
    pub(crate) disk: Simulated,
    pub(crate) story: Story,
    pub(crate) plain: Vec<Plain>,
}

/// Runs `count` steps of the model.
pub(crate) fn run(dice: &mut Dice, count: usize) -> Run {
    let disk = Simulated::new().unwrap();
    let mut world = World::new(backend(&disk));
    let mut told = vec![(disk.changes_count(), world.head(), world.oldest())];
    for step in chosen(dice, count) {
        world.step(&step);
        told.push((disk.changes_count(), world.head(), world.oldest()));
    }
    let versions: Vec<Arc<Version>> = world.versions().iter().map(version).map(Arc::new).collect();
    let mut story = Story::default();
    let phase = |head: usize, acknowledged, from, to| Phase {
        exists: true,
        versions: versions[..=head].into(),
        acknowledged,
        oldest: from..=to,
        held: false,
        group: 1,
    };
    let (changes, head, oldest) = told[0];
    story.note(0, Phase { exists: false, ..phase(head, head, oldest, oldest) });
    story.note(changes, phase(head, head, oldest, oldest));
    for step in told.windows(2) {
        let [(before, old_head, old_oldest), (after, head, oldest)] = [step[0], step[1]];
        story.note(before + 1, phase(head, old_head, old_oldest, oldest));
        story.note(after, phase(head, head, oldest, oldest));
    }
    Run { disk, story, plain: world.versions().to_vec() }
}

fn chosen(dice: &mut Dice, count: usize) -> Vec<Step> {
    let seed: Vec<u8> = (0..4).flat_map(|_| dice.next().to_le_bytes()).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut all: Vec<Step> = [(0, 0), (1, 3)]
        .map(|(name, kind)| Step::Create { who: false, name, kind, shape: vec![150, 5] })
        .into();
    all.push(Step::Commit { who: false });
    let random = proptest::collection::vec(steps(), count);
    all.extend(random.new_tree(&mut runner).unwrap().current());
    all
}

fn version(plain: &Plain) -> Version {
    let arrays = plain.arrays.iter().map(|(name, named)| {
        let array = &named.array;
        let attributes = array.attributes.iter();
        let held = Held {
            shape: array.shape.clone(),
            attributes: attributes.map(|(key, value)| (key.clone(), value.to_string())).collect(),
            fill: array.fill.clone(),
            bytes: array.bytes.clone(),
        };
        (name.clone(), Arc::new(held))
    });
    Version { arrays: arrays.collect(), groups: None, tags: plain.tags.clone() }
}

/// Opens what a crash left as a store, looks at every kept commit through views, and commits.
pub(crate) fn examine(disk: &Simulated, plain: &[Plain]) {
    let store = world::open(&backend(disk));
    for at in store.oldest().0..=store.head().0 {
        let version = &plain[usize::try_from(at).unwrap()];
        world::compare(&store.at(Tid(at)).unwrap(), version);
    }
    let transaction = store.begin().unwrap();
    let new = transaction.create::<u8, ndarray::Ix1>("new", &[100_000]);
    new.unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
}
