//! libFuzzer on the target `checkpoint`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("checkpoint", bytes));
