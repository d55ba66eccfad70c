//! What the fuzz targets do, as ordinary code: `make fuzz` feeds it with what libFuzzer makes up, `cargo test` with the
//! corpora that this has left behind. Each module states its invariant.
#![forbid(unsafe_code)]

pub mod datagrams;
pub mod hub;
pub mod operations;
pub mod packets;
pub mod payloads;

use audiomixer_core::limiter::CEILING;

/// # Panics
/// If a sample is no number, or above the limiter's ceiling.
fn check_frame(frame: &[f32]) {
    assert!(frame.iter().all(|sample| sample.abs() <= CEILING), "a sample above the ceiling");
}
