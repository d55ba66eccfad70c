//! A look-ahead true-peak limiter: loud passages are turned down before they come, nothing is ever cut off.
//!
//! For each sample the true peak is found on an oversampled signal ([`true_peak`]), and so the gain that keeps it at the
//! ceiling; the [`Envelope`] has it fall ahead of the peak and rise slowly. Channels share one gain, so the image does
//! not move. While nothing is above the ceiling, samples pass unchanged, 5 ms later.

use crate::envelope::Envelope;
use crate::kernel::{Kernel, true_peak};
use crate::time::FRAMES_PER_SECOND;

/// −1 dBTP, so that lossy encoders do not clip when they overshoot.
pub const CEILING: f32 = 0.891_250_9;
/// The look-ahead is 1/200 s.
const LOOK_AHEADS_PER_SECOND: usize = 200;
/// The release's time constant, 100 ms, as look-aheads.
const RELEASE: f32 = 20.0;

/// Limits one stream of frames of 20 ms.
pub struct Limiter {
    channels: usize,
    kernel: Kernel,
    /// Samples, per channel, that wait between two frames: for their gain, and for their true peak to be known.
    waiting: usize,
    /// Those that wait, the oldest first, and then the frame, interleaved.
    line: Vec<f32>,
    /// The loudest of the last samples that wait.
    loudest: f32,
    envelope: Envelope,
    /// Per sample of the frame.
    peaks: Vec<f32>,
    gains: Vec<f32>,
    /// The lowest gain since somebody asked.
    least: f32,
}

impl Limiter {
    /// A limiter for interleaved `channels` of `rate` samples a second.
    pub fn new(rate: u32, channels: usize) -> Self {
        Self::with(Kernel::detect(), rate, channels)
    }

    /// The same with a kernel of choice.
    pub fn with(kernel: Kernel, rate: u32, channels: usize) -> Self {
        let look_ahead = rate as usize / LOOK_AHEADS_PER_SECOND;
        let frame = (rate / FRAMES_PER_SECOND) as usize;
        let waiting = look_ahead + true_peak::LATENCY;
        Self {
            channels,
            kernel,
            waiting,
            line: vec![0.0; (waiting + frame) * channels],
            loudest: 0.0,
            envelope: Envelope::new(frame, look_ahead, RELEASE * look_ahead as f32),
            peaks: vec![0.0; frame * channels],
            gains: vec![0.0; frame],
            least: 1.0,
        }
    }

    /// How much later, in samples per channel, a sample comes out than it went in.
    pub fn latency(&self) -> usize {
        self.waiting
    }

    /// The lowest gain since this was asked last.
    pub fn take_least_gain(&mut self) -> f32 {
        std::mem::replace(&mut self.least, 1.0)
    }

    /// Becomes what `other`, of the same rate and channels, is.
    pub fn follow(&mut self, other: &Self) {
        self.line.clone_from(&other.line);
        self.loudest = other.loudest;
        self.envelope.follow(&other.envelope);
    }

    /// Limits one frame of interleaved samples from `bus` into `out`, both as long as a frame.
    pub fn process(&mut self, bus: &[f32], out: &mut [f32]) {
        let waiting = self.waiting * self.channels;
        self.line[waiting..].copy_from_slice(bus);
        // The filter reaches back into the frame before.
        let loudest = self.kernel.loudest(bus);
        let may_peak = loudest.max(self.loudest) * true_peak::OVERSHOOT > CEILING;
        self.loudest = loudest;
        if may_peak {
            self.find_peaks();
        } else {
            self.gains.fill(0.0);
        }
        if self.gains.iter().any(|&peak| peak > CEILING) || !self.envelope.is_idle() {
            self.kernel.advance(&mut self.envelope, &mut self.gains);
            self.least = self.gains.iter().fold(self.least, |least, &gain| least.min(gain));
            match self.channels {
                1 => turn_down::<1>(&self.line, &self.gains, out),
                _ => turn_down::<2>(&self.line, &self.gains, out),
            }
        } else {
            out.copy_from_slice(&self.line[..out.len()]);
        }
        self.line.copy_within(bus.len().., 0);
    }

    /// Puts into `gains`, for each sample of the frame, the largest true peak of any channel near the sample
    /// [`true_peak::LATENCY`] before.
    fn find_peaks(&mut self) {
        let from = (self.waiting - true_peak::PAST) * self.channels;
        self.kernel.true_peaks(&self.line[from..], self.channels, &mut self.peaks);
        if self.channels == 1 {
            self.gains.copy_from_slice(&self.peaks);
            return;
        }
        for (peak, [left, right]) in self.gains.iter_mut().zip(self.peaks.as_chunks().0) {
            *peak = if right > left { *right } else { *left };
        }
    }
}

/// Multiplies interleaved `samples` by their gains; what rounding may leave above the ceiling is cut off.
fn turn_down<const CHANNELS: usize>(samples: &[f32], gains: &[f32], out: &mut [f32]) {
    let frames = out.as_chunks_mut::<CHANNELS>().0.iter_mut();
    for ((out, samples), gain) in frames.zip(samples.as_chunks::<CHANNELS>().0).zip(gains) {
        for (out, sample) in out.iter_mut().zip(samples) {
            *out = (sample * gain).clamp(-CEILING, CEILING);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f32::consts::TAU;

    const FRAME: usize = 960;

    fn limit(limiter: &mut Limiter, samples: &[f32]) -> Vec<f32> {
        let mut limited = vec![0.0; samples.len()];
        let size = FRAME * limiter.channels;
        for (input, out) in samples.chunks_exact(size).zip(limited.chunks_exact_mut(size)) {
            limiter.process(input, out);
        }
        limited
    }

    fn sine(frequency: f32, amplitude: f32, samples: usize) -> Vec<f32> {
        (0..samples).map(|n| amplitude * (TAU * frequency * n as f32 / 48_000.0).sin()).collect()
    }

    #[test]
    fn below_the_ceiling_samples_pass_unchanged_and_late() {
        let mut limiter = Limiter::new(48_000, 1);
        let input = sine(997.0, 0.85, 10 * FRAME);
        let output = limit(&mut limiter, &input);
        assert_eq!(limiter.latency(), 246);
        assert!(output[246..] == input[..input.len() - 246]);
    }

    #[test]
    fn it_comes_back_to_unity_after_a_loud_passage() {
        let mut limiter = Limiter::new(48_000, 1);
        limit(&mut limiter, &sine(440.0, 3.0, 10 * FRAME));
        let quiet = sine(440.0, 0.5, 100 * FRAME);
        let output = limit(&mut limiter, &quiet);
        let end = quiet.len() - FRAME;
        assert!(output[end..] == quiet[end - 246..quiet.len() - 246]);
    }

    #[test]
    fn the_gain_is_down_when_the_peak_comes_so_the_final_clamp_has_nothing_to_do() {
        let mut limiter = Limiter::new(48_000, 1);
        let mut input = vec![0.0; 10 * FRAME];
        input[5 * FRAME..].copy_from_slice(&sine(200.0, 2.0, 5 * FRAME));
        let output = limit(&mut limiter, &input);
        let flat = output.windows(2).filter(|pair| pair[0].abs() == CEILING && pair[0] == pair[1]);
        assert_eq!(flat.count(), 0);
    }

    #[test]
    fn a_peak_between_samples_counts() {
        // A quarter of the sampling rate, 45° off: samples at 0.707 of the true amplitude.
        let tone: Vec<f32> =
            (0..20 * FRAME).map(|n| 1.2 * (TAU * (0.25 * n as f32 + 0.125)).sin()).collect();
        let output = limit(&mut Limiter::new(48_000, 1), &tone);
        let loudest = output[10 * FRAME..].iter().fold(0.0f32, |a, &b| a.max(b.abs()));
        assert!(loudest < 0.71 * CEILING, "{loudest}");
    }

    #[test]
    fn it_tells_by_how_much_it_turned_down_since_it_was_asked() {
        let mut limiter = Limiter::new(48_000, 1);
        limit(&mut limiter, &sine(997.0, 0.5, 10 * FRAME));
        assert_eq!(limiter.take_least_gain(), 1.0);
        limit(&mut limiter, &sine(997.0, 2.0 * CEILING, 10 * FRAME));
        assert!((limiter.take_least_gain() - 0.5).abs() < 0.01);
        limit(&mut limiter, &sine(997.0, 0.5, 100 * FRAME));
        limiter.take_least_gain();
        limit(&mut limiter, &sine(997.0, 0.5, 10 * FRAME));
        assert_eq!(limiter.take_least_gain(), 1.0);
    }

    #[test]
    fn channels_share_one_gain() {
        let mut limiter = Limiter::new(48_000, 2);
        let left = sine(300.0, 2.0, 20 * FRAME);
        let stereo: Vec<f32> = left.iter().flat_map(|&sample| [sample, 0.1 * sample]).collect();
        for pair in limit(&mut limiter, &stereo).chunks(2) {
            assert!((0.1 * pair[0] - pair[1]).abs() < 1e-6);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_ever_above_the_ceiling(
            samples in prop::collection::vec(-8.0f32..8.0, 8 * 160),
            quiet_from in 0usize..1280,
        ) {
            let mut limiter = Limiter::new(8000, 1);
            let mut samples = samples;
            samples[quiet_from..].iter_mut().for_each(|sample| *sample *= 0.01);
            let mut out = vec![0.0; 160];
            for frame in samples.chunks(160) {
                limiter.process(frame, &mut out);
                prop_assert!(out.iter().all(|sample| sample.abs() <= CEILING));
            }
        }
    }
}
