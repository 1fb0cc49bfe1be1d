//! Other libraries as baselines: a process of Python that does one turn whenever it is asked.
//!
//! ```text
//! bench target  -- line -->  benches/peers/peers.py CASE ARGUMENT...
//!               <- seconds -
//! ```
//!
//! # Failure
//!
//! Without `target/peers` there is no peer, and the reason says what makes it.

#![allow(dead_code, reason = "each bench target uses the part it needs")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::harness::{Question, compare, not_run};
use crate::plain::Outcome;

/// Why there is no peer.
pub(crate) const HOW_TO: &str = "needs `python3 benches/peers/peers.py prepare` first";

/// A process that waits for its turn.
pub(crate) struct Peer {
    child: Child,
    // Closed before the child is waited for.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a case with BLAS on so many threads and waits until its data is there; `None` without
    /// the packages it needs.
    pub(crate) fn start(case: &str, arguments: &[&str], threads: usize) -> Outcome<Option<Self>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/peers/bin/python");
        if !python.exists() {
            return Ok(None);
        }
        let threads = threads.to_string();
        let mut command = Command::new(python);
        command.arg(root.join("benches/peers/peers.py")).arg(case).args(arguments);
        command.envs([("OPENBLAS_NUM_THREADS", &threads), ("OMP_NUM_THREADS", &threads)]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = BufReader::new(output.ok_or("the peer has no output")?);
        let mut peer = Self { child, input, output };
        match peer.line()?.as_str() {
            "ready" => Ok(Some(peer)),
            other => Err(format!("the peer {case} says {other:?} instead of ready").into()),
        }
    }

    /// Seconds of one turn.
    pub(crate) fn turn(&mut self) -> Outcome<f64> {
        let input = self.input.as_mut().ok_or("the peer has no input")?;
        input.write_all(b"turn\n")?;
        input.flush()?;
        Ok(self.line()?.parse()?)
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// A row against a peer: its seconds become the unit of the row by `factor`.
pub(crate) fn against(
    question: Question<'_>,
    peer: Option<Peer>,
    factor: f64,
    subject: impl FnMut() -> Outcome<f64>,
) -> Outcome<()> {
    let answer = match peer {
        None => not_run(question.name, HOW_TO),
        Some(mut peer) => compare(question, || Ok(peer.turn()? * factor), subject)?,
    };
    answer.print();
    Ok(())
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends with its input.
        let _ = self.child.wait();
    }
}
