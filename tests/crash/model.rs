//! The model of a store that the tests in `tests/it` use, for programs that go through arrays.

#[path = "../it/model/effects.rs"]
mod effects;
#[path = "../it/model/plain.rs"]
pub(crate) mod plain;
#[path = "../it/model/steps.rs"]
pub(crate) mod steps;
#[path = "../it/model/world.rs"]
#[allow(dead_code, reason = "each of the two programs uses the part it needs")]
pub(crate) mod world;
