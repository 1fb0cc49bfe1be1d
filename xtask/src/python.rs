//! A Python of our own in `target/venv`, with the packages that serve as oracle and sample data.
//!
//! ```text
//! python3 with venv? -- no --> apt-get install python3-venv (as root, or by sudo -n)
//!        |
//! target/venv/bin/python imports the packages? -- no --> pip install
//!        |
//! site-packages/matplotlib/mpl-data/sample_data      the files that the demo imports
//! ```
//!
//! # Invariants
//!
//! 1. Nothing outside `target/venv` changes, except by `apt-get` where Python has no `venv`.
//! 2. A finished environment is used as it is: no network is needed the second time.
//!
//! # Failure
//!
//! Every error says which program failed and what a person can do about it.

use std::path::{Path, PathBuf};

use crate::packages;
use crate::steps;
use crate::workspace::Workspace;

const PACKAGES: [&str; 2] = ["numpy>=2,<3", "matplotlib>=3.9,<4"];
/// What reads and writes through the filesystem; nothing else needs it.
const FILE_PACKAGES: [&str; 4] =
    ["zarr>=3.1,<4", "xarray>=2025.1", "dask[array]>=2025.1", "tensorstore>=0.1.70"];
const FILE_PROBE: &str = "import zarr, xarray, dask.array, tensorstore";
const SAMPLES: [&str; 2] = ["jacksboro_fault_dem.npz", "s1045.ima.gz"];
const PROBE: &str = "import numpy, matplotlib";
const SAMPLE_DATA: &str = "import matplotlib; print(matplotlib.get_data_path() + '/sample_data')";

/// A Python that imports NumPy, and the directory of the sample files.
pub(crate) struct Python {
    /// Absolute path of the interpreter.
    pub(crate) executable: PathBuf,
    /// Directory that holds every file of `SAMPLES`.
    pub(crate) sample_data: PathBuf,
}

/// Makes the environment, or finds it made.
pub(crate) fn prepare(workspace: &Workspace) -> Result<Python, String> {
    let directory = workspace.path("target/venv");
    let executable = directory.join("bin/python");
    if !runs(workspace, &executable, PROBE) {
        create(workspace, &directory)?;
        install(workspace, &executable, &PACKAGES)?;
    }
    if !runs(workspace, &executable, FILE_PROBE) {
        // One by one: the tests of the filesystem say which are missing.
        for package in FILE_PACKAGES {
            if let Err(why) = install(workspace, &executable, &[package]) {
                println!("not run: {package}: {why}");
            }
        }
    }
    let shown = workspace.first_line(&executable.to_string_lossy(), &["-c", SAMPLE_DATA]);
    let sample_data = PathBuf::from(shown.ok_or("matplotlib does not tell its data path")?);
    for sample in SAMPLES {
        if !sample_data.join(sample).is_file() {
            return Err(format!("matplotlib has no {sample}: delete target/venv and try again"));
        }
    }
    Ok(Python { executable, sample_data })
}

/// Whether `python` exists and runs `program` without an error.
fn runs(workspace: &Workspace, python: &Path, program: &str) -> bool {
    workspace.command(python).args(["-c", program]).output().is_ok_and(|o| o.status.success())
}

/// `python3 -m venv`, with Debian's package for it where it is missing.
fn create(workspace: &Workspace, directory: &Path) -> Result<(), String> {
    let system = Path::new("python3");
    if !runs(workspace, system, "import venv, ensurepip") {
        packages::apt_install(workspace, &["python3-venv"])?;
    }
    let mut command = workspace.command(system);
    command.args(["-m", "venv", "--clear"]).arg(directory);
    steps::must(command, "remove target/venv and look at the message above")
}

/// Packages by pip, into the environment only.
fn install(workspace: &Workspace, python: &Path, packages: &[&str]) -> Result<(), String> {
    let mut command = workspace.command(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    steps::must(command, "pip needs the network, or a wheel directory named by PIP_FIND_LINKS")
}
