//! See [`audiomixer_fuzz::payloads`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audiomixer_fuzz::payloads::run(data));
