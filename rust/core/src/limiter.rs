//! A look-ahead true-peak limiter: loud passages are turned down before they come, nothing is ever cut off.
//!
//! For each sample the detector finds the true peak, on a signal oversampled four times (ITU-R BS.1770-5, annex 2),
//! and so the gain that keeps it at the ceiling. The least such gain of the next 5 ms rises again only slowly, and is
//! smoothed by two box filters that together are as long as the look-ahead: the smoothed gain has come all the way
//! down when the peak arrives (two boxes make a triangle, whose slopes have no corners to hear). Channels share one
//! gain, so the image does not move. While nothing is above the ceiling, samples pass unchanged, 5 ms later.

use std::collections::VecDeque;

use crate::time::FRAMES_PER_SECOND;

/// −1 dBTP, so that lossy encoders do not clip when they overshoot.
pub const CEILING: f32 = 0.891_250_9;
/// The look-ahead is 1/200 s.
const LOOK_AHEADS_PER_SECOND: usize = 200;
/// The release's time constant, 100 ms, as look-aheads.
const RELEASE: f32 = 20.0;
/// A gain this close to one is one.
const RELEASED: f32 = 0.999;

/// Limits one stream of frames of 20 ms.
pub struct Limiter {
    channels: usize,
    detector: Detector,
    /// Samples waiting for their gain, the oldest first; then room for one frame.
    line: Vec<f32>,
    /// Samples, per channel, that wait between two frames.
    waiting: usize,
    minimum: SlidingMinimum,
    release: f32,
    released: f32,
    boxes: [BoxFilter; 2],
    /// Samples since a gain below one went into the boxes.
    idle: usize,
    peaks: Vec<f32>,
}

impl Limiter {
    /// A limiter for interleaved `channels` of `rate` samples a second.
    pub fn new(rate: u32, channels: usize) -> Self {
        let look_ahead = rate as usize / LOOK_AHEADS_PER_SECOND;
        let frames = (rate / FRAMES_PER_SECOND) as usize;
        let waiting = look_ahead + Detector::LATENCY;
        let half = look_ahead / 2 + 1;
        Self {
            channels,
            detector: Detector::new(frames, channels),
            line: vec![0.0; (waiting + frames) * channels],
            waiting,
            minimum: SlidingMinimum::new(look_ahead + 1),
            release: 1.0 - (-1.0 / (RELEASE * look_ahead as f32)).exp(),
            released: 1.0,
            boxes: [BoxFilter::new(half), BoxFilter::new(look_ahead + 2 - half)],
            idle: usize::MAX,
            peaks: vec![0.0; frames],
        }
    }

    /// How much later, in samples per channel, a sample comes out than it went in.
    pub fn latency(&self) -> usize {
        self.waiting
    }

    /// Forgets everything it has seen.
    pub fn reset(&mut self) {
        self.line.fill(0.0);
        self.detector.reset();
        self.minimum.reset();
        self.settle();
    }

    /// Limits one frame of interleaved samples from `bus` into `out`, both as long as a frame.
    pub fn process(&mut self, bus: &[f32], out: &mut [f32]) {
        let waiting = self.waiting * self.channels;
        self.line[waiting..].copy_from_slice(bus);
        let loud = self.detector.peaks(bus, &mut self.peaks);
        let memory = self.boxes[0].length() + self.boxes[1].length() + self.minimum.window;
        if loud || self.idle <= memory {
            if !loud {
                self.peaks.fill(0.0);
            }
            self.turn_down(out);
        } else {
            out.copy_from_slice(&self.line[..out.len()]);
            if self.idle < usize::MAX {
                self.settle();
            }
        }
        let end = self.line.len();
        self.line.copy_within(end - waiting.., 0);
    }

    fn turn_down(&mut self, out: &mut [f32]) {
        let channels = self.channels;
        let frames = out.chunks_exact_mut(channels).zip(self.line.chunks_exact(channels));
        for ((out, samples), &peak) in frames.zip(&self.peaks) {
            let gain = if peak > CEILING { CEILING / peak } else { 1.0 };
            let least = self.minimum.next(gain);
            let rising = self.released + (1.0 - self.released) * self.release;
            self.released = least.min(if rising > RELEASED { 1.0 } else { rising });
            self.idle = if self.released < 1.0 { 0 } else { self.idle.saturating_add(1) };
            let gain = self.released;
            let gain = self.boxes.iter_mut().fold(gain, |gain, filter| filter.next(gain));
            for (out, sample) in out.iter_mut().zip(samples) {
                *out = (sample * gain).clamp(-CEILING, CEILING);
            }
        }
    }

    /// Back to a gain of exactly one; the sliding minimum has seen nothing else for its whole length.
    fn settle(&mut self) {
        self.idle = usize::MAX;
        self.released = 1.0;
        self.minimum.reset();
        for filter in &mut self.boxes {
            filter.reset();
        }
    }
}

/// Finds true peaks.
struct Detector {
    channels: usize,
    /// The samples before this frame that the filter still needs, then the frame, interleaved.
    recent: Vec<f32>,
    /// The same of one channel.
    samples: Vec<f32>,
    interpolated: Vec<f32>,
}

impl Detector {
    /// The interpolation filter's phases 1 and 2 of BS.1770-5, annex 2; phases 4 and 3 are these, reversed.
    #[rustfmt::skip]
    const PHASES: [[f32; Self::TAPS]; 2] = [
        [
            0.001_708_984_4,
            0.010_986_328,
            -0.019_653_32,
            0.033_203_125,
            -0.059_448_242,
            0.137_329_1,
            0.972_167_97,
            -0.102_294_92,
            0.047_607_422,
            -0.026_611_328,
            0.014_892_578,
            -0.008_300_781,
        ],
        [
            -0.029_174_805,
            0.029_296_875,
            -0.051_757_813,
            0.089_111_33,
            -0.166_503_9,
            0.465_087_9,
            0.779_785_16,
            -0.200_317_38,
            0.101_562_5,
            -0.058_227_54,
            0.033_081_055,
            -0.018_920_898,
        ],
    ];
    const TAPS: usize = 12;
    /// The samples before the newest that the filter needs.
    const PAST: usize = Self::TAPS - 1;
    /// The filter's middle: peaks are known this many samples late.
    const LATENCY: usize = Self::TAPS / 2;
    /// The most the filter makes of samples up to 1, the largest sum of a phase's magnitudes.
    const OVERSHOOT: f32 = 2.03;

    fn new(frames: usize, channels: usize) -> Self {
        let samples = vec![0.0; Self::PAST + frames];
        let recent = vec![0.0; samples.len() * channels];
        Self { channels, recent, samples, interpolated: vec![0.0; frames] }
    }

    fn reset(&mut self) {
        self.recent.fill(0.0);
    }

    /// Puts into `peaks`, for each sample of `bus`, the largest true peak of any channel near the sample
    /// [`Self::LATENCY`] before. `false`, and nothing done, if none can be above the ceiling.
    fn peaks(&mut self, bus: &[f32], peaks: &mut [f32]) -> bool {
        let past = Self::PAST * self.channels;
        let end = self.recent.len();
        self.recent.copy_within(end - past.., 0);
        self.recent[past..].copy_from_slice(bus);
        if loudest(&self.recent) * Self::OVERSHOOT <= CEILING {
            return false;
        }
        peaks.fill(0.0);
        for channel in 0..self.channels {
            let samples = self.recent.iter().skip(channel).step_by(self.channels);
            self.samples.iter_mut().zip(samples).for_each(|(place, &sample)| *place = sample);
            raise(peaks, &self.samples[Self::PAST - Self::LATENCY..]);
            for phase in &Self::PHASES {
                let mut reversed = *phase;
                reversed.reverse();
                for filter in [phase, &reversed] {
                    interpolate(&self.samples, filter, &mut self.interpolated);
                    raise(peaks, &self.interpolated);
                }
            }
        }
        loudest(peaks) > CEILING
    }
}

/// The largest magnitude; in lanes, so that the compiler may use vectors.
fn loudest(samples: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for chunk in samples.chunks(lanes.len()) {
        for (lane, sample) in lanes.iter_mut().zip(chunk) {
            *lane = if sample.abs() > *lane { sample.abs() } else { *lane };
        }
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// Raises `peaks` to the magnitudes of `samples`.
fn raise(peaks: &mut [f32], samples: &[f32]) {
    for (peak, sample) in peaks.iter_mut().zip(samples) {
        *peak = if sample.abs() > *peak { sample.abs() } else { *peak };
    }
}

/// Convolves `samples` with `filter`, tap by tap so that the inner loop is one of vectors.
fn interpolate(samples: &[f32], filter: &[f32; Detector::TAPS], out: &mut [f32]) {
    out.fill(0.0);
    for (tap, weight) in filter.iter().enumerate() {
        for (sum, sample) in out.iter_mut().zip(&samples[tap..]) {
            *sum += weight * sample;
        }
    }
}

/// The least of the last `window` values, in constant time: a queue of those that may yet be the least.
struct SlidingMinimum {
    window: usize,
    now: usize,
    candidates: VecDeque<(usize, f32)>,
}

impl SlidingMinimum {
    fn new(window: usize) -> Self {
        Self { window, now: 0, candidates: VecDeque::with_capacity(window + 1) }
    }

    fn reset(&mut self) {
        self.candidates.clear();
    }

    fn next(&mut self, value: f32) -> f32 {
        self.now += 1;
        while self.candidates.back().is_some_and(|&(_, last)| last >= value) {
            self.candidates.pop_back();
        }
        self.candidates.push_back((self.now, value));
        if self.candidates.front().is_some_and(|&(at, _)| at + self.window <= self.now) {
            self.candidates.pop_front();
        }
        self.candidates.front().map_or(value, |&(_, least)| least)
    }
}

/// The mean of the last values. Sums are `f64`, so that what goes in comes out again without a trace.
struct BoxFilter {
    values: Vec<f32>,
    place: usize,
    sum: f64,
}

impl BoxFilter {
    fn new(length: usize) -> Self {
        Self { values: vec![1.0; length], place: 0, sum: length as f64 }
    }

    fn length(&self) -> usize {
        self.values.len()
    }

    fn reset(&mut self) {
        self.values.fill(1.0);
        self.sum = self.values.len() as f64;
    }

    fn next(&mut self, value: f32) -> f32 {
        let oldest = std::mem::replace(&mut self.values[self.place], value);
        self.place = (self.place + 1) % self.values.len();
        self.sum += f64::from(value) - f64::from(oldest);
        (self.sum / self.values.len() as f64) as f32
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
