//! The fuzzer of `hil_tests::fuzz::camera_worker`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hil_tests::fuzz::camera_worker(bytes));
