//! Orders against a simulator and against the numbers of dask.

use proptest::prelude::*;

use super::*;
use crate::compute::scheduler::tests::{any_steps, steps_of};

fn peak_of(steps: &Steps, order: &[u32]) -> u64 {
    profile(steps, order).into_iter().max().unwrap_or(0)
}

/// Steps of one byte each.
fn plain(inputs: &[Vec<u32>]) -> Steps {
    let count = inputs.len();
    steps_of(inputs, &vec![1; count], &vec![0; count], &vec![false; count])
}

fn chosen(steps: &Steps) -> Vec<u32> {
    best(steps, depth_first(steps, &roots(steps)))
}

#[derive(serde::Deserialize)]
struct Published {
    name: String,
    inputs: Vec<Vec<u32>>,
    dask: u64,
}

/// Of graphs as people make them none has more, of random ones some may have one more, and all
/// together have fewer.
#[test]
fn no_more_results_are_alive_than_in_the_order_of_dask() {
    let text = include_str!("../../../tests/data/dask_order.json");
    let published: Vec<Published> = serde_json::from_str(text).unwrap();
    assert!(published.len() > 20);
    let (mut all_ours, mut all_dask) = (0, 0);
    for Published { name, inputs, dask } in published {
        let steps = plain(&inputs);
        let ours = peak_of(&steps, &chosen(&steps));
        println!("{name}: {ours}, dask {dask}");
        let allowed = dask + u64::from(name.starts_with("random"));
        assert!(ours <= allowed, "{name}: {ours} instead of {dask}");
        all_ours += ours;
        all_dask += dask;
    }
    assert!(all_ours * 10 < all_dask * 9, "{all_ours} to {all_dask}");
}

#[test]
fn profile_counts_what_is_alive_while_each_step_runs() {
    let inputs = [vec![], vec![], vec![0, 1], vec![0], vec![2, 3]];
    let steps = steps_of(&inputs, &[10, 20, 5, 7, 1], &[0, 0, 100, 0, 0], &[false; 5]);
    assert_eq!(profile(&steps, &[0, 1, 2, 3, 4]), [10, 30, 135, 22, 13]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_order_holds_every_step_once_after_its_inputs(steps in any_steps(60)) {
        let together = together(&steps, &roots(&steps));
        let nearest = Manner::ALL.map(|manner| nearest_first(&steps, &together, manner));
        let others = [depth_first(&steps, &together), order(&steps), chosen(&steps)];
        for order in nearest.into_iter().chain(others) {
            let mut done = vec![false; steps.len()];
            for &step in &order {
                prop_assert!(steps.inputs.of(step).iter().all(|&input| done[input as usize]));
                prop_assert!(!std::mem::replace(&mut done[step as usize], true));
            }
            prop_assert_eq!(order.len(), steps.len());
        }
    }

    #[test]
    fn the_chosen_order_is_the_best_of_those_that_are_made(steps in any_steps(60)) {
        let ours = peak_of(&steps, &chosen(&steps));
        let roots = roots(&steps);
        prop_assert!(ours <= peak_of(&steps, &depth_first(&steps, &roots)));
        for manner in Manner::ALL {
            prop_assert!(ours <= peak_of(&steps, &nearest_first(&steps, &roots, manner)));
        }
        prop_assert!(ours <= peak_of(&steps, &steps.all().collect::<Vec<_>>()));
    }
}
