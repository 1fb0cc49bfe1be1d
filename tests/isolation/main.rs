//! Snapshot isolation of what transactions told: recorders, a checker of histories, and its proof.
//!
//! ```text
//! workers (threads, processes) -> a file of events each -> load -> settle by the log -> check
//! a model database, right or with a planted fault ------------------------------------> check
//! ```
//!
//! The checker (`checker.rs`, `graph.rs`, `circles.rs`) is pure and does not know where histories
//! come from.

#![deny(unsafe_code)]

// `cfg(test)` tells clippy that helpers of tests may unwrap, too.
#[cfg(test)]
mod checker;
#[cfg(test)]
mod children;
#[cfg(test)]
mod circles;
#[cfg(test)]
#[path = "../crash/dice.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod dice;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod history;
#[cfg(test)]
mod model;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod worker;
