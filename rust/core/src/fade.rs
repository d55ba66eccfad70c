//! Gain changes without clicks: raised-cosine fades.

use std::f32::consts::PI;

use crate::time::{TICKS_PER_SECOND, ms};

/// The gain of a participant: steady, or on its way to a new value.
#[derive(Debug)]
pub struct Fade {
    rate: u32,
    from: f32,
    to: f32,
    passed: usize,
    length: usize,
}

impl Fade {
    /// Steady at `gain`, for audio of `rate` samples a second.
    pub fn new(rate: u32, gain: f32) -> Self {
        Self { rate, from: gain, to: gain, passed: 0, length: 0 }
    }

    /// Begins to move to `gain`: within 10 ms when it rises, 20 ms when it falls. Nothing happens if it is on its
    /// way there already.
    pub fn set(&mut self, gain: f32) {
        if gain == self.to {
            return;
        }
        self.from = self.at(self.passed);
        self.to = gain;
        self.passed = 0;
        let milliseconds = if gain > self.from { 10 } else { 20 };
        self.length = (ms(milliseconds) * i64::from(self.rate) / TICKS_PER_SECOND) as usize;
    }

    /// The gain, unless it is changing.
    pub fn steady(&self) -> Option<f32> {
        (self.passed == self.length).then_some(self.to)
    }

    /// Multiplies interleaved `samples` of `channels` by the gain as it moves.
    pub fn apply(&mut self, samples: &mut [f32], channels: usize) {
        for frame in samples.chunks_exact_mut(channels) {
            let gain = self.at(self.passed);
            self.passed = (self.passed + 1).min(self.length);
            for sample in frame {
                *sample *= gain;
            }
        }
    }

    /// Adds interleaved `samples` of `channels` to `here`, of `channels_here`, as far as the gain goes, and what is left
    /// of them to `there`; gives the gain before and after.
    pub fn share(
        &mut self,
        samples: &[f32],
        channels: usize,
        channels_here: usize,
        here: &mut [f32],
        there: &mut [f32],
    ) -> (f32, f32) {
        let before = self.at(self.passed);
        let places =
            here.chunks_exact_mut(channels_here).zip(there.chunks_exact_mut(channels_here));
        for (frame, (here, there)) in samples.chunks_exact(channels).zip(places) {
            let gain = self.at(self.passed);
            self.passed = (self.passed + 1).min(self.length);
            for (side, (here, there)) in here.iter_mut().zip(there).enumerate() {
                let sample = frame[side % channels];
                *here += gain * sample;
                *there += (1.0 - gain) * sample;
            }
        }
        (before, self.at(self.passed))
    }

    fn at(&self, passed: usize) -> f32 {
        if passed >= self.length {
            return self.to;
        }
        let weight = 0.5 - 0.5 * (PI * passed as f32 / self.length as f32).cos();
        self.from + (self.to - self.from) * weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_within_10_ms_and_falls_within_20_without_a_step() {
        let mut fade = Fade::new(48_000, 0.0);
        for (gain, length) in [(1.0, 480), (0.25, 960)] {
            fade.set(gain);
            assert_eq!(fade.steady(), None);
            let mut samples = vec![1.0; 2 * length];
            fade.apply(&mut samples, 2);
            assert_eq!(fade.steady(), Some(gain));
            let steps = samples.chunks(2).zip(samples[2..].chunks(2));
            assert!(steps.map(|(a, b)| (a[0] - b[0]).abs()).fold(0.0, f32::max) < 0.004);
        }
    }

    #[test]
    fn turning_back_half_way_begins_where_it_was() {
        let mut fade = Fade::new(48_000, 0.0);
        fade.set(1.0);
        let mut samples = vec![1.0; 240];
        fade.apply(&mut samples, 1);
        fade.set(0.0);
        let mut next = vec![1.0; 1];
        fade.apply(&mut next, 1);
        assert!((next[0] - samples[239]).abs() < 0.01);
    }
}
