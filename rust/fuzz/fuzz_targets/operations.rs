//! See [`audiomixer_fuzz::operations`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audiomixer_fuzz::operations::run(data));
