//! The fuzzer of `hil_tests::fuzz::profile`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hil_tests::fuzz::profile(bytes));
