//! See [`audiomixer_fuzz::hub`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audiomixer_fuzz::hub::run(data));
