//! The files of the command line that read what others wrote.

#[path = "../../src/cli/error.rs"]
pub(crate) mod error;
#[path = "../../src/cli/npz.rs"]
pub(crate) mod npz;
#[path = "../../src/cli/values.rs"]
pub(crate) mod values;
