//! See [`audiomixer_fuzz::packets`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audiomixer_fuzz::packets::run(data));
