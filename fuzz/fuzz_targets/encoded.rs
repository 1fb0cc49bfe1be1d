//! libFuzzer on the target `encoded`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("encoded", bytes));
