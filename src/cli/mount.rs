//! `zba mount` and `zba umount`: run the program that serves a store as files.
//!
//! That program is `zba-mount`, of the crate `zbigarray-fuse`: it uses this library, so it cannot
//! be a part of it. It is looked for beside `zba` itself, then in PATH.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::error::Error;
use super::mount_options::{MountOptions, UmountOptions};

const PROGRAM: &str = "zba-mount";

/// Becomes the program that serves.
pub(crate) fn mount(options: &MountOptions) -> Result<(), Error> {
    become_program(options.to_arguments())
}

/// Becomes the program that unmounts.
pub(crate) fn unmount(options: &UmountOptions) -> Result<(), Error> {
    let mut words: Vec<OsString> = vec!["--unmount".into()];
    words.extend(options.lazy.then(|| "--lazy".into()));
    words.extend(["--".into(), (&options.dir).into()]);
    become_program(words)
}

fn become_program(words: Vec<OsString>) -> Result<(), Error> {
    // Comes back only with an error.
    let error = Command::new(program()).args(words).exec();
    if error.kind() == ErrorKind::NotFound {
        return Err(Error::Refused(format!(
            "the program {PROGRAM} is neither beside zba nor in PATH; \
             `cargo build --release -p zbigarray -p zbigarray-fuse` builds both"
        )));
    }
    Err(Error::io("run", &program(), error))
}

/// The program beside this one, else the one in PATH.
fn program() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}
