//! Ctrl-C ends a long command tidily: temporary files go away, and the transaction aborts.
//!
//! # Invariants
//!
//! 1. The second Ctrl-C ends the program at once, whatever the command is doing.
//! 2. Commands that never ask [`check`](Interrupt::check) or [`is_asked`](Interrupt::is_asked)
//!    install nothing and just end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use super::error::Error;

/// Whether somebody asked the command to end.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches Ctrl-C from now on.
    pub(crate) fn install() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Invariant 1: the first handler looks at the flag before the second one sets it. Where
            // handlers cannot be installed, the signal ends the program as usual.
            let _ = flag::register_conditional_default(signal, Arc::clone(&asked));
            let _ = flag::register(signal, Arc::clone(&asked));
        }
        Self(asked)
    }

    /// Whether it happened.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if it happened.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_asked() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Makes writing past a file size limit an error instead of the end of the program.
pub(crate) fn file_size_limit_is_an_error() {
    let _ = flag::register(SIGXFSZ, Arc::default());
}
