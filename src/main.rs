//! The `zba` command.
fn main() {}
