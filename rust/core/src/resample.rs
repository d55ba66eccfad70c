//! PCM at other rates than the mixer's, brought to it as it comes, by rubato.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use crate::{Error, Result};

/// Rates that audio may have that comes as samples.
pub const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Others have too little in common with ours: they could be resampled in pieces of a second only.
const STEP: u32 = 25;
/// Of a second: what is resampled at a time.
const PIECES: u32 = 100;

/// Brings a stream of samples from one rate to another, 10 ms at a time: what is left over waits for more.
pub struct Resampler {
    rate: u32,
    channels: usize,
    inner: Fft<f32>,
    waiting: Vec<f32>,
    made: Vec<f32>,
}

impl Resampler {
    /// From `rate` to `target`, both in Hz, for interleaved `channels`.
    pub fn new(rate: u32, target: u32, channels: usize) -> Result<Self> {
        if !RATES.contains(&rate) || !rate.is_multiple_of(STEP) {
            let problem = format!(
                "expected {} to {} Hz, in steps of {STEP}, got {rate}",
                RATES.start(),
                RATES.end()
            );
            return Err(Error::new("sample_rate", problem));
        }
        let piece = rate.div_ceil(PIECES) as usize;
        let inner = Fft::new(rate as usize, target as usize, piece, channels, FixedSync::Input)
            .map_err(|error| Error::new("sample_rate", error.to_string()))?;
        let made = vec![0.0; inner.output_frames_max() * channels];
        Ok(Self { rate, channels, inner, waiting: Vec::new(), made })
    }

    /// Whether it is from `rate`, for `channels`.
    pub fn fits(&self, rate: u32, channels: usize) -> bool {
        (self.rate, self.channels) == (rate, channels)
    }

    /// Takes what waits for more samples of each channel, and those that `append` adds; gives what comes out to `sink`.
    pub fn push(&mut self, append: impl FnOnce(&mut Vec<f32>), mut sink: impl FnMut(&[f32])) {
        append(&mut self.waiting);
        let piece = self.inner.input_frames_next();
        let mut taken = 0;
        while self.waiting.len() - taken >= piece * self.channels {
            let input = &self.waiting[taken..taken + piece * self.channels];
            let frames = self.made.len() / self.channels;
            let made = {
                let input = InterleavedSlice::new(input, self.channels, piece);
                let output = InterleavedSlice::new_mut(&mut self.made, self.channels, frames);
                let (Ok(input), Ok(mut output)) = (input, output) else { break };
                let Ok((_, made)) = self.inner.process_into_buffer(&input, &mut output, None)
                else {
                    break;
                };
                made
            };
            sink(&self.made[..made * self.channels]);
            taken += piece * self.channels;
        }
        self.waiting.drain(..taken);
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn resampled(rate: u32, frequency: f32, seconds: usize, at_a_time: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate, 48_000, 1).unwrap();
        let tone = |n: usize| 0.5 * (TAU * frequency * n as f32 / rate as f32).sin();
        let samples: Vec<f32> = (0..seconds * rate as usize).map(tone).collect();
        let mut out = Vec::new();
        for piece in samples.chunks(at_a_time) {
            resampler.push(
                |waiting| waiting.extend_from_slice(piece),
                |made| out.extend_from_slice(made),
            );
        }
        out
    }

    #[test]
    fn a_tone_stays_one_whatever_the_rate_and_the_pieces() {
        for (rate, at_a_time) in
            [(8_000, 160), (16_000, 7), (24_000, 480), (44_100, 882), (96_000, 1000)]
        {
            let out = resampled(rate, 1_000.0, 2, at_a_time);
            assert!((out.len() as i64 - 96_000).abs() <= 960, "{rate}: {}", out.len());
            let steady = &out[9_600..57_600];
            // Whole periods: what is not the tone is what is left of the energy.
            let (mut sine, mut cosine, mut energy) = (0f64, 0f64, 0f64);
            for (n, &sample) in steady.iter().enumerate() {
                let (s, c) = (std::f64::consts::TAU * n as f64 / 48.0).sin_cos();
                sine += f64::from(sample) * s;
                cosine += f64::from(sample) * c;
                energy += f64::from(sample) * f64::from(sample);
            }
            let tone = 2.0 * (sine * sine + cosine * cosine) / steady.len() as f64;
            assert!(
                (tone / steady.len() as f64 - 0.125).abs() < 0.002,
                "{rate}: as loud as it was"
            );
            let rest = (energy - tone).max(0.0) / energy;
            assert!(10.0 * rest.log10() < -70.0, "{rate}: {} dB", 10.0 * rest.log10());
        }
    }

    #[test]
    fn rates_that_are_none() {
        for rate in [0, 7_999, 192_001, 44_101] {
            assert!(Resampler::new(rate, 48_000, 1).is_err());
        }
    }
}
