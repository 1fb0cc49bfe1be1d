//! A mounted store for tests: goes away whatever happens, and never hangs.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbigarray::array::{Dtype, Order};
use zbigarray::{ArrayOptions, CreateOptions, DynArray, Store, Tid};

/// After so long the server is killed, so that who waits for it gets an error.
const TEST_MAX: Duration = Duration::from_secs(300);

/// Somebody who owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// A store, and the directory to mount it at.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
}

/// A mounted store.
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    server: Child,
    _done: Sender<()>,
}

/// Whether stores can be mounted here; says why not.
pub(crate) fn can_mount() -> bool {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let refused = REFUSED.get_or_init(refusal);
    if let Some(why) = refused {
        println!("not run: {why}");
    }
    refused.is_none()
}

/// Why this system lets nobody mount. Any other failure is one of the program that is tested.
fn refusal() -> Option<String> {
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        return Some(format!("/dev/fuse cannot be opened: {error}"));
    }
    let scene = Scene::new();
    let mut command = program();
    let output = command.arg(scene.store_path()).arg(scene.mount_path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let signs = ["not permitted", "ermission denied", "fusermount", "No such device"];
    let refused = !output.status.success() && signs.iter().any(|sign| said.contains(sign));
    refused.then_some(said)
}

/// The program that is tested.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_zba-mount"))
}

/// Lets nobody do something.
pub(crate) fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(Stdio::null());
    command
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        Store::create(dir.path().join("s.zba"), CreateOptions::default()).unwrap();
        Self { dir }
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.dir.path().join("s.zba")
    }

    pub(crate) fn mount_path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.store_path(), zbigarray::OpenOptions::default()).unwrap()
    }

    /// Commits an array of bytes.
    pub(crate) fn put(&self, store: &Store, name: &str, shape: &[u64], content: &[u8]) -> Tid {
        self.put_as(store, name, ("u1", Order::C), shape, content)
    }

    pub(crate) fn put_as(
        &self,
        store: &Store,
        name: &str,
        (dtype, order): (&str, Order),
        shape: &[u64],
        content: &[u8],
    ) -> Tid {
        let transaction = store.begin().unwrap();
        let dtype = Dtype::parse(dtype).unwrap();
        let options = ArrayOptions::new().order(order);
        let mut array = DynArray::create(&transaction, name, &dtype, shape, &options).unwrap();
        array.write_linear(0, content).unwrap();
        drop(array);
        transaction.commit().unwrap()
    }

    pub(crate) fn mount(&self, words: &[&str]) -> Mounted {
        self.try_mount(words).expect("the store is mounted")
    }

    /// Mounts; `None` if the server ended without being ready.
    pub(crate) fn try_mount(&self, words: &[&str]) -> Option<Mounted> {
        let mut command = program();
        command.args(["--foreground", "--ready-fd", "1"]).args(words);
        command.arg(self.store_path()).arg(self.mount_path());
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            server.wait().unwrap();
            return None;
        }
        let (done, ended) = channel();
        let id = Pid::from_raw(server.id().try_into().unwrap());
        std::thread::spawn(move || {
            if ended.recv_timeout(TEST_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(id, Signal::SIGKILL);
            }
        });
        Some(Mounted { path: self.mount_path(), server, _done: done })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whatever is left there; nothing if all went well.
        let path = self.mount_path();
        for _ in 0..3 {
            let mut command = program();
            command.args(["--unmount", "--lazy"]).arg(&path);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            if !command.status().is_ok_and(|status| status.success()) {
                break;
            }
        }
    }
}

impl Mounted {
    pub(crate) fn head(&self, name: &str) -> PathBuf {
        self.path.join("head").join(name)
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.server.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until the server has ended; whether it says that all was well.
    pub(crate) fn ended(&mut self) -> bool {
        self.server.wait().unwrap().success()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path.join(".zba/log")).unwrap()
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        let text = std::fs::read(self.path.join(".zba/stats")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()[name].as_u64().unwrap()
    }

    /// Waits until the kernel was told of commit `tid`.
    pub(crate) fn follows(&self, first: Tid, tid: Tid) {
        eventually("the mount follows", || self.stat("commits_followed") >= tid.0 - first.0);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Waits for something that happens by itself.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !happened() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The bytes of the elements of a `.npy` file.
pub(crate) fn elements(file: &Path) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let (_, data_at) = zbigarray::array::Header::read(&mut &bytes[..]).unwrap();
    bytes[usize::try_from(data_at).unwrap()..].to_vec()
}

/// A `.npy` file as NumPy writes it.
pub(crate) fn npy(dtype: &str, shape: &[u64], content: &[u8]) -> Vec<u8> {
    let dtype = Dtype::parse(dtype).unwrap();
    let header = zbigarray::array::Header::new(&dtype, Order::C, shape).unwrap();
    [header.encode(64).unwrap(), content.to_vec()].concat()
}

/// Bytes that are nowhere alike.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The number of the error that an operation ends with.
pub(crate) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}
