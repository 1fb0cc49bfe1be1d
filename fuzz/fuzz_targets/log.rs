//! libFuzzer on the target `log`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("log", bytes));
