//! Threads and programs that end while pages are loaded: nobody waits for ever, nobody sees zeros.
//!
//! ```text
//! child of fork: opens the store -> a lazy view -> threads of it are killed one by one
//!                                              -> or it becomes another program
//! ```
//!
//! The child has no threads but its own, so they are found by their names. A thread is killed by a
//! signal whose handler ends nothing but the thread it interrupts, at whatever it is doing.

#![expect(unsafe_code, reason = "killing threads, fork and exec have no safe form")]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use ndarray::Ix1;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use tempfile::TempDir;
use zbigarray::{ArrayOptions, CreateOptions, OpenOptions, Store};

const BLOCKS: usize = 24;
const BLOCK_LEN: usize = (2 << 20) / 8;
const PATIENCE: Duration = Duration::from_secs(60);

fn number(at: usize) -> u64 {
    7_000_000 + at as u64 * 3
}

/// A store with an array of encoded blocks.
fn fresh() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().codec("lz4+shuffle".parse().unwrap());
    let len = (BLOCKS * BLOCK_LEN) as u64;
    let mut array = transaction.create_with::<u64, Ix1>("e", &[len], &options).unwrap();
    let values = ndarray::Array1::from_shape_fn(BLOCKS * BLOCK_LEN, number);
    array.assign("...", &values).unwrap();
    drop(array);
    transaction.commit().unwrap();
    dir
}

/// Runs `work` in a child of fork, and says how that ended.
fn in_child(work: impl FnOnce()) -> WaitStatus {
    // SAFETY: the C library makes its allocator usable in the child, which leaves by `_exit` and
    // uses no lock that another thread of this program may have held.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            work();
            // SAFETY: `_exit` runs nothing of the parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

extern "C" fn end_this_thread(_: libc::c_int) {
    // SAFETY: the call ends the thread and touches no memory.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// From now on the signal ends the thread that gets it, and no other.
fn let_threads_be_killed() {
    let handler = SigHandler::Handler(end_this_thread);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one system call.
    unsafe { sigaction(Signal::SIGUSR2, &action) }.unwrap();
}

/// The threads of this process with that name, the oldest first.
fn threads(name: &str) -> Vec<i64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let mut found: Vec<i64> = tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .filter(|task| {
            let comm = fs::read_to_string(format!("/proc/self/task/{task}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        })
        .collect();
    found.sort_unstable();
    found
}

fn kill_thread(thread: i64) {
    let process = i64::from(std::process::id());
    let signal = i64::from(libc::SIGUSR2);
    // SAFETY: the call sends a signal for which there is a handler.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    assert_eq!(answer, 0);
    wait_until(|| !Path::new(&format!("/proc/self/task/{thread}")).exists());
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > PATIENCE {
            std::process::abort();
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Opens the store and gives `work` a view of its array; a hang ends the process.
fn with_view(store: &Path, work: impl FnOnce(&[u64]) + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let path = store.to_owned();
    thread::spawn(move || {
        let store = Store::open(path, OpenOptions::read_only()).unwrap();
        let reader = store.begin_read().unwrap();
        let array = reader.open::<u64, Ix1>("e").unwrap();
        let view = array.view().unwrap();
        work(view.as_slice().unwrap());
        tell.send(()).unwrap();
    });
    if told.recv_timeout(PATIENCE).is_err() {
        std::process::abort();
    }
}

#[test]
fn who_reads_faults_is_replaced_whenever_he_is_killed() {
    let dir = fresh();
    let ended = in_child(|| {
        let_threads_be_killed();
        with_view(&dir.path().join("s"), |view| {
            for block in 0..BLOCKS / 2 {
                wait_until(|| threads("zba-faults").len() == 2);
                // The younger one stands by.
                kill_thread(threads("zba-faults")[0]);
                let at = block * 2 * BLOCK_LEN + block;
                assert_eq!(view[at], number(at));
            }
        });
    });
    assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
}

#[test]
fn a_thread_that_is_killed_while_it_waits_for_a_page_keeps_it_from_nobody() {
    let dir = fresh();
    let ended = in_child(|| {
        let_threads_be_killed();
        with_view(&dir.path().join("s"), |view| {
            for block in 0..BLOCKS {
                let at = block * BLOCK_LEN + 5;
                let address = std::ptr::from_ref(&view[at]) as usize;
                let (tell, told) = mpsc::channel();
                let victim = thread::Builder::new().name("victim".into()).spawn(move || {
                    tell.send(()).unwrap();
                    // SAFETY: the view is alive until this thread is gone.
                    let seen = unsafe { std::ptr::read_volatile(address as *const u64) };
                    assert_eq!(seen, number(at));
                    thread::park();
                });
                drop(victim);
                told.recv().unwrap();
                thread::sleep(Duration::from_micros(150 * (block as u64 % 8)));
                threads("victim").into_iter().for_each(kill_thread);
                assert_eq!(view[at + 1], number(at + 1));
            }
        });
    });
    assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
}

/// By exec(2), with everything open.
#[test]
fn a_program_that_a_process_becomes_has_none_of_its_files_and_locks() {
    let dir = fresh();
    let path = dir.path().join("s");
    let store = Store::open(&path, OpenOptions::default()).unwrap();
    let (mut is_there, there) = std::io::pipe().unwrap();
    // SAFETY: as in `in_child`; the child becomes another program.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let other = Store::open(&path, OpenOptions::default()).unwrap();
            let reader = other.begin_read().unwrap();
            let array = reader.open::<u64, Ix1>("e").unwrap();
            let seen = array.view().unwrap()[BLOCK_LEN];
            if seen == number(BLOCK_LEN) && other.members().is_ok_and(|all| all.len() == 2) {
                // Closed by exec, so that the parent knows.
                let _there = there;
                let words = [c"sleep", c"100"];
                let _ = nix::unistd::execvp(words[0], &words);
            }
            // SAFETY: as in `in_child`.
            unsafe { libc::_exit(1) }
        }
    };
    drop(there);
    assert_eq!(std::io::Read::read(&mut is_there, &mut [0]).unwrap(), 0);
    let files = fs::read_dir(format!("/proc/{child}/fd")).unwrap();
    let files: Vec<_> = files.map(|file| fs::read_link(file.unwrap().path()).unwrap()).collect();
    let members = store.members().unwrap().len();
    kill(child, Signal::SIGKILL).unwrap();
    let ended = waitpid(child, None).unwrap();
    assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{ended:?}");
    let is_ours = |file: &&std::path::PathBuf| {
        file.starts_with(&path) || file.to_string_lossy().contains("userfaultfd")
    };
    assert_eq!(files.iter().find(is_ours), None);
    assert_eq!(members, 1);
}
