//! What can happen to a store of the sled engine: damage, killed processes, power cuts.
//!
//! ```text
//! cargo xtask sled [--damages N] [--kills N] [--every K] [--seed S]
//! ```
//!
//! The rigs are those of the local engine, told by `ZBA_ENGINE`, and `tests/sled/damage.rs`.

use std::process::{Command, ExitCode};

use crate::faults::run_rig;
use crate::numbers;
use crate::steps::{self, Step};
use crate::workspace::Workspace;

/// How much of each.
pub(crate) struct Options {
    damages: u32,
    kills: u32,
    every: u32,
    seed: u32,
}

impl Options {
    /// A minute in all.
    pub(crate) fn short() -> Self {
        Self { damages: 60, kills: 24, every: 200, seed: 1 }
    }

    /// Reads the words after `sled`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (mut damages, mut kills, mut every, mut seed) = (1000, 300, 10, 1);
        numbers::read(
            words,
            &mut [
                ("--damages", &mut damages),
                ("--kills", &mut kills),
                ("--every", &mut every),
                ("--seed", &mut seed),
            ],
        )?;
        Ok(Self { damages, kills, every, seed })
    }
}

/// `cargo xtask sled`.
pub(crate) fn run(workspace: &Workspace, options: Options) -> ExitCode {
    steps::run_all(rows(workspace, &options))
}

/// The steps of the table of all tests.
pub(crate) fn rows<'a>(workspace: &'a Workspace, options: &Options) -> Vec<Step<'a>> {
    let Options { damages, kills, every, seed } = *options;
    let rig = |target: &str| {
        let mut command: Command = workspace.cargo();
        command.args(["test", "--package", "zbigarray", "--test", target, "--"]);
        command.env("ZBA_ENGINE", "sled");
        command
    };
    let mut damage = rig("sled");
    damage.args(["damage::", "--nocapture"]);
    damage.env("ZBA_DAMAGES", damages.to_string()).env("ZBA_SEED", seed.to_string());
    let mut kill = rig("kill");
    kill.args(["run", "--runs", &kills.to_string(), "--seed", &seed.to_string()]);
    let mut cuts = rig("faults");
    cuts.args(["run", "--only", "fuse", "--every", &every.to_string()]);
    cuts.args(["--seed", &seed.to_string()]);
    vec![
        Step::command("damaged sled files", damage),
        Step::new("killed processes over sled", move || run_rig(kill)),
        Step::new("power cuts over sled", move || run_rig(cuts)),
    ]
}
