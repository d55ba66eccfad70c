//! The audio core of audiomixer: RTP packets and PCM go in, a mixed frame comes out every 20 ms.
//!
//! It is sans-IO: no clock, no threads, no sockets. Time is an argument, in seconds on any monotonic scale that
//! packet arrivals and mixes share, so the same calls always give the same samples and an hour of bad network is
//! replayed in a second.
//!
//! The path of one packet: [`Participant::push_rtp`] puts it into the [`jitter`] buffer; at the next [`Mixer::mix`] the
//! [`receiver`] takes it out when it is due ([`delay`], [`adjust`]), and has the [`playout`] decode it ([`opus`]) or
//! make up what is missing ([`comfort`], [`stretch`]); [`level`] and [`mute`] look at the samples while a [`kernel`] adds
//! them to the bus, at a gain that [`fade`], [`leveler`] and [`floor`] decide on; the [`limiter`] finishes it.
#![deny(unsafe_code)]

pub mod adjust;
pub mod comfort;
pub mod delay;
mod denoise;
pub mod duck;
mod effort;
pub mod envelope;
mod error;
pub mod fade;
mod fader;
pub mod floor;
pub mod hearing;
mod history;
pub mod jitter;
pub mod kernel;
pub mod level;
pub mod leveler;
pub mod limiter;
pub mod made_up;
pub mod meter;
mod minus;
mod mixer;
pub mod mute;
pub mod opus;
mod participant;
mod pcm;
pub mod playhead;
pub mod playout;
mod programme;
pub mod receiver;
mod resample;
pub mod rtp;
mod sample;
pub mod sender;
pub mod standstill;
mod stats;
pub mod stretch;
pub mod time;
pub mod trust;

pub use effort::Effort;
pub use error::{Error, Result};
pub use fader::Fader;
pub use meter::Meter;
pub use mixer::{Mixer, Volume};
pub use participant::Participant;
pub use programme::Loudness;
pub use sample::Sample;
pub use stats::Stats;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also what a panic has left behind: its room is not mixed any more, but everybody can still leave it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
