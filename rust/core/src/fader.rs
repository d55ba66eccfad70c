//! What a host has decided about an identity, whoever bears it, now or later, in however many tracks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::{Error, Result};

/// Four times as loud: 12 dB.
const MAX_GAIN: f32 = 4.0;
/// So many identities are known at once, of those that are not in the mix.
const MOST: usize = 4096;

/// The settings of one identity. What is set takes effect in the next mix, within 20 ms, without a click.
#[derive(Debug)]
pub struct Fader {
    /// The bits of a float.
    gain: AtomicU32,
    muted: AtomicBool,
    in_mix: AtomicBool,
    denoise: AtomicBool,
}

impl Default for Fader {
    fn default() -> Self {
        Self {
            gain: AtomicU32::new(1f32.to_bits()),
            muted: AtomicBool::new(false),
            in_mix: AtomicBool::new(true),
            denoise: AtomicBool::new(false),
        }
    }
}

impl Fader {
    /// The gain, in the mix and in the volumes.
    pub fn gain(&self) -> f32 {
        f32::from_bits(self.gain.load(Ordering::Relaxed))
    }

    /// Sets the gain, 0 to 4.
    pub fn set_gain(&self, gain: f32) -> Result<()> {
        self.gain.store(checked(gain)?.to_bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether nobody is to hear it.
    pub fn muted(&self) -> bool {
        self.muted.load(Ordering::Relaxed)
    }

    /// Mutes it, or does no more.
    pub fn set_muted(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    /// Whether it is in the mix; if not, the room hears it all the same.
    pub fn in_mix(&self) -> bool {
        self.in_mix.load(Ordering::Relaxed)
    }

    /// Takes it into the mix, or out.
    pub fn set_in_mix(&self, in_mix: bool) {
        self.in_mix.store(in_mix, Ordering::Relaxed);
    }

    /// Whether noise is taken off it, where the mixer's rate is 48 kHz.
    pub fn denoise(&self) -> bool {
        self.denoise.load(Ordering::Relaxed)
    }

    /// Begins to take noise off it, or leaves off.
    pub fn set_denoise(&self, denoise: bool) {
        self.denoise.store(denoise, Ordering::Relaxed);
    }

    /// Whether it is as if there were none.
    fn is_neutral(&self) -> bool {
        self.gain() == 1.0 && !self.muted() && self.in_mix() && !self.denoise()
    }
}

/// `gain`, if it is one.
pub fn checked(gain: f32) -> Result<f32> {
    if (0.0..=MAX_GAIN).contains(&gain) {
        return Ok(gain);
    }
    Err(Error::new("gain", format!("expected 0 to {MAX_GAIN}, got {gain}")))
}

/// The faders of a mixer, by identity.
#[derive(Debug, Default)]
pub struct Faders(HashMap<Arc<str>, Arc<Fader>>);

impl Faders {
    /// The fader of `identity`.
    pub fn of(&mut self, identity: &str) -> Arc<Fader> {
        if let Some(known) = self.0.get(identity) {
            return known.clone();
        }
        if self.0.len() >= MOST {
            // Nobody would notice that these are gone.
            self.0.retain(|_, fader| Arc::strong_count(fader) > 1 || !fader.is_neutral());
        }
        self.0.entry(identity.into()).or_default().clone()
    }

    /// Whether nobody is out of the mix.
    pub fn all_in_mix(&self) -> bool {
        self.0.values().all(|fader| fader.in_mix())
    }

    /// Whether there is a place for another identity that is not there.
    pub fn has_room_for(&self, identity: &str) -> bool {
        self.0.len() < MOST
            || self.0.contains_key(identity)
            || self.0.values().any(|fader| Arc::strong_count(fader) == 1 && fader.is_neutral())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stay_and_identities_without_any_make_room() {
        let mut faders = Faders::default();
        faders.of("bob").set_muted(true);
        for n in 0..2 * MOST {
            assert!(faders.has_room_for("anybody"));
            faders.of(&n.to_string());
        }
        assert!(faders.of("bob").muted());
        for n in 0..2 * MOST {
            if faders.has_room_for(&n.to_string()) {
                faders.of(&n.to_string()).set_in_mix(false);
            }
        }
        assert!(!faders.has_room_for("anybody"));
        assert_eq!(faders.0.len(), MOST);
    }
}
