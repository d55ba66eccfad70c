//! See [`audiomixer_fuzz::datagrams`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audiomixer_fuzz::datagrams::run(data));
