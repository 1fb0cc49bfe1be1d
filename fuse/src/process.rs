//! How a program that wrote ended: by itself, or killed.
//!
//! The kernel closes the files of a program that ends, and says nothing of how it ended. Whether
//! what it wrote is meant to be committed only its exit status tells, which is asked for here.
//!
//! ```text
//! alive or not yet waited for     /proc/PID/stat, field `exit_code`
//! gone already                    PIDFD_GET_INFO of a descriptor made before (Linux 6.15)
//! ```
//!
//! # Failure
//!
//! On older kernels a program that is gone already ended in an unknown way.
//!
//! Source: proc_pid_stat(5); `include/uapi/linux/pidfd.h` of Linux 6.15. Checked by
//! `fuse/tests/writing.rs::a_killed_writer_leaves_nothing`.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// It has not.
    Running,
    /// It returned or called exit.
    Exited,
    /// A signal ended it.
    Killed,
    /// It is gone and nothing tells.
    Unknown,
}

/// A process that is or was alive.
pub(crate) struct Process {
    id: u32,
    descriptor: Option<OwnedFd>,
}

const PF_EXITING: u64 = 0x4;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info`, as its first version has it.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);

impl Process {
    /// The process that a thread is of, while it is alive.
    pub(crate) fn of_thread(thread: u32) -> Option<Self> {
        if thread == 0 {
            return None;
        }
        let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        let id: u32 = group.trim().parse().ok()?;
        Some(Self { id, descriptor: open(id) })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// How it ended.
    pub(crate) fn ending(&self) -> Ending {
        if let Some(ending) = self.ending_after_all() {
            return ending;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id));
        match stat.ok().as_deref().and_then(ending_in) {
            Some(ending) => ending,
            // It went between the two questions.
            None => self.ending_after_all().unwrap_or(Ending::Unknown),
        }
    }

    /// How it ended, if it is gone and its descriptor tells.
    fn ending_after_all(&self) -> Option<Ending> {
        let descriptor = self.descriptor.as_ref()?;
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the descriptor is open while `self` owns it, and `info` is the structure of 64
        // bytes that the request of this number writes, by the assertion above.
        let asked = unsafe { pidfd_get_info(descriptor.as_raw_fd(), &raw mut info) };
        let tells = asked.is_ok() && info.mask & PIDFD_INFO_EXIT != 0;
        tells.then(|| ending_of(i64::from(info.exit_code)))
    }
}

fn open(id: u32) -> Option<OwnedFd> {
    let id = libc::pid_t::try_from(id).ok()?;
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|&descriptor| descriptor >= 0)?;
    // SAFETY: the kernel gave us this descriptor just now, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What `/proc/PID/stat` says; `None` if it is none.
fn ending_in(stat: &str) -> Option<Ending> {
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let flags: u64 = fields.get(6)?.parse().ok()?;
    let exit_code: i64 = fields.get(49)?.parse().ok()?;
    let is_over = matches!(*fields.first()?, "Z" | "X") || flags & PF_EXITING != 0;
    Some(if is_over { ending_of(exit_code) } else { Ending::Running })
}

/// A status as wait(2) has it: the signal in its lowest bits.
fn ending_of(status: i64) -> Ending {
    if status & 0x7F == 0 { Ending::Exited } else { Ending::Killed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_end_of_a_process_is_known_while_it_waits_and_after_it_is_gone() {
        let run = |script: &str, kill: bool| {
            let mut command = Command::new("sh");
            let mut child = command.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
            let process = Process::of_thread(child.id()).unwrap();
            assert_eq!((process.id(), process.ending()), (child.id(), Ending::Running));
            if kill {
                child.kill().unwrap();
            }
            drop(child.stdin.take());
            while process.ending() == Ending::Running {
                std::thread::yield_now();
            }
            let waiting = process.ending();
            child.wait().unwrap();
            (waiting, process.ending())
        };
        let (waiting, gone) = run("read x; exit 3", false);
        assert_eq!(waiting, Ending::Exited);
        assert!(matches!(gone, Ending::Exited | Ending::Unknown));
        let (waiting, gone) = run("read x", true);
        assert_eq!(waiting, Ending::Killed);
        assert!(matches!(gone, Ending::Killed | Ending::Unknown));
    }

    #[test]
    fn a_thread_is_of_its_process_and_number_zero_of_none() {
        assert!(Process::of_thread(0).is_none());
        let own = Process::of_thread(std::process::id()).unwrap();
        assert_eq!(own.ending(), Ending::Running);
    }
}
