//! The program `zba-mount`, which `zba mount` and `zba umount` run.
//!
//! ```text
//! zba mount -> zba-mount STORE DIR -> (in the background) itself once more, --detached
//!                   waits for "ready" on its output, or for the sentence that says why not
//! ```

#![deny(unsafe_code)]

#[path = "../../src/cli/mount_options.rs"]
mod mount_options;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use log::LevelFilter;
use zbigarray_fuse::messages;
use zbigarray_fuse::mounting::{self, MountError, Options};

use mount_options::{LogLevel, MountOptions, UmountOptions};

/// Serve a store as files; `zba mount --help` explains
#[derive(Parser)]
#[command(name = "zba-mount", version)]
struct Serve {
    #[command(flatten)]
    options: MountOptions,
    /// Runs in the background already
    #[arg(long, hide = true)]
    detached: bool,
}

/// Take a mounted store away again
#[derive(Parser)]
#[command(name = "zba-mount --unmount", version)]
struct Unmount {
    #[command(flatten)]
    options: UmountOptions,
}

/// Said on standard output by the background process to the one that waits for it.
const READY: &str = "ready";

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args_os().collect();
    let done = match words.get(1).is_some_and(|word| word == "--unmount") {
        true => {
            words.remove(1);
            let options = Unmount::parse_from(words).options;
            mounting::unmount(&options.dir, options.lazy)
        }
        false => mount(&Serve::parse_from(words)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mount(serve: &Serve) -> Result<(), MountError> {
    let options = &serve.options;
    if !options.foreground && !serve.detached {
        return in_background(options);
    }
    if serve.detached {
        // A terminal that goes away takes nothing with it.
        let _ = nix::unistd::setsid();
    }
    let level = match options.log {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    };
    let log_file = options.log_file.as_deref();
    let messages = messages::begin(level, log_file).map_err(|source| {
        let path = log_file.unwrap_or(Path::new("standard error"));
        failed(format!("open the log {}", path.display()), source)
    })?;
    let told = options.ready_fd.map(ready_file).transpose()?;
    let defaults = Options::default();
    let how = Options {
        writable: options.rw,
        allow_other: options.allow_other,
        network: options.network,
        threads: options.threads.unwrap_or(defaults.threads),
    };
    let detached = serve.detached;
    mounting::serve(&options.store, &options.dir, &how, Some(messages), || tell(told, detached))
}

fn failed(action: String, source: io::Error) -> MountError {
    MountError::Io { action, source }
}

/// The file behind a descriptor that the caller gave us.
fn ready_file(descriptor: u32) -> Result<File, MountError> {
    let path = format!("/proc/self/fd/{descriptor}");
    let opened = File::options().write(true).open(path);
    opened.map_err(|source| failed(format!("write to descriptor {descriptor}"), source))
}

/// Tells everybody who waits that the files can be used.
fn tell(told: Option<File>, detached: bool) -> Result<(), MountError> {
    if let Some(mut file) = told {
        let said = writeln!(file, "{READY}");
        said.map_err(|source| failed("say that it is ready".into(), source))?;
    }
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        notify(Path::new(&socket)).map_err(|source| failed("tell systemd".into(), source))?;
    }
    if detached {
        println!("{READY}");
        let nowhere = File::options().read(true).write(true).open("/dev/null");
        let nowhere = nowhere.map_err(|source| failed("open /dev/null".into(), source))?;
        let _ = nix::unistd::dup2_stdout(&nowhere);
        let _ = nix::unistd::dup2_stderr(&nowhere);
    }
    Ok(())
}

/// The protocol of sd_notify(3).
fn notify(socket: &Path) -> io::Result<()> {
    let name = socket.as_os_str().as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

/// Runs this program once more, in the background, and waits until it is ready.
fn in_background(options: &MountOptions) -> Result<(), MountError> {
    let mut options = options.clone();
    options.store = absolute(&options.store);
    options.dir = absolute(&options.dir);
    options.log_file = options.log_file.as_deref().map(absolute);
    let own = std::env::current_exe().map_err(|source| failed("find itself".into(), source))?;
    let mut command = Command::new(own);
    command.arg("--detached").args(options.to_arguments());
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn();
    let mut child = child.map_err(|source| failed("start in the background".into(), source))?;
    let mut said = String::new();
    if let Some(output) = &mut child.stdout {
        // Ends with the first line, or when the process ends without one.
        let mut byte = [0];
        while matches!(output.read(&mut byte), Ok(1)) && byte != *b"\n" {
            said.push(char::from(byte[0]));
        }
    }
    if said == READY {
        return Ok(());
    }
    // It has said why.
    let _ = child.wait();
    std::process::exit(1);
}

/// The same path for a process elsewhere; `sled:` stays before it.
fn absolute(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    if let Some(rest) = text.strip_prefix("sled:") {
        return PathBuf::from(format!("sled:{}", absolute(Path::new(rest)).display()));
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
