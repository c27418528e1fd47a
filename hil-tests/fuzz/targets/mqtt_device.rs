//! The fuzzer of `hil_tests::fuzz::mqtt_device`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hil_tests::fuzz::mqtt_device(bytes));
