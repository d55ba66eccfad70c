//! Brings speakers to one loudness, slowly: who is far from the microphone is turned up, who shouts is turned down.
//!
//! Loudness is that of ITU-R BS.1770-5 (K-weighting; a mono speaker counts on both sides of the mix), averaged over the
//! last seconds of speech. What is far below it is a pause: there nothing is measured and no gain changes, so that the
//! noise of a silent room does not come up.

use std::f64::consts::PI;

use crate::time::FRAMES_PER_SECOND;

/// Speakers are brought to this loudness, in LUFS…
const TARGET: f32 = -20.0;
/// …by at most so many decibels up or down.
const RANGE: f32 = 12.0;
/// Decibels per second at most.
const RISE: f32 = 3.0;
const FALL: f32 = 6.0;
/// Frames below this are no speech…
const SILENCE: f32 = -55.0;
/// …nor those so far below the average.
const PAUSE: f32 = 14.0;
/// Frames of speech over which loudness is averaged: 3 s.
const AVERAGED: f32 = 150.0;

/// One speaker's gain.
#[derive(Debug)]
pub struct Leveler {
    weighting: [Biquad; 2],
    /// K-weighted mean square of speech; nothing is known before any.
    power: Option<f32>,
    frames: f32,
    /// In decibels, before the current frame and after it.
    from: f32,
    to: f32,
    /// It is to become a gain of one.
    retiring: bool,
}

impl Leveler {
    /// For audio of `rate` samples a second.
    pub fn new(rate: u32) -> Self {
        let weighting = weighting(f64::from(rate));
        Self { weighting, power: None, frames: 0.0, from: 0.0, to: 0.0, retiring: false }
    }

    /// Begins to return to a gain of one, or ceases to.
    pub fn retire(&mut self, retiring: bool) {
        self.retiring = retiring;
    }

    /// Whether it has returned to a gain of one, and is not needed any more.
    pub fn retired(&self) -> bool {
        self.retiring && self.from == 0.0 && self.to == 0.0
    }

    /// Listens to a frame of interleaved `channels`, empty if nothing was received, and decides on the gain at its
    /// end.
    pub fn listen(&mut self, frame: &[f32], channels: usize) {
        self.from = self.to;
        if self.retiring {
            self.approach(0.0);
        } else if let Some(loudness) = self.measure(frame, channels) {
            self.approach((TARGET - loudness).clamp(-RANGE, RANGE));
        }
    }

    fn approach(&mut self, wanted: f32) {
        let per_frame = FRAMES_PER_SECOND as f32;
        self.to += (wanted - self.from).clamp(-FALL / per_frame, RISE / per_frame);
    }

    /// The speaker's loudness so far, if `frame` is speech.
    fn measure(&mut self, frame: &[f32], channels: usize) -> Option<f32> {
        // In silence the filters would go on for ever with numbers too small to be quick.
        if frame.iter().all(|sample| *sample == 0.0) {
            self.weighting.iter_mut().for_each(|filter| filter.state = [0.0; 2]);
            return None;
        }
        let mut sum = 0.0;
        for samples in frame.chunks_exact(channels) {
            // Both sides together, as the mean of what is nearly the same.
            let sample = samples.iter().sum::<f32>() / channels as f32;
            let weighted = self.weighting.iter_mut().fold(sample, |x, filter| filter.next(x));
            sum += weighted * weighted;
        }
        let power = 2.0 * sum / (frame.len() / channels).max(1) as f32;
        let average = self.power.unwrap_or(power);
        if loudness(power) < SILENCE.max(loudness(average) - PAUSE) {
            return None;
        }
        self.frames = (self.frames + 1.0).min(AVERAGED);
        let average = average + (power - average) / self.frames;
        self.power = Some(average);
        Some(loudness(average))
    }

    /// The gain, unless it changes during this frame.
    pub fn steady(&self) -> Option<f32> {
        (self.from == self.to).then(|| linear(self.to))
    }

    /// Multiplies a frame of interleaved `channels` by the gain as it changes.
    pub fn apply(&self, frame: &mut [f32], channels: usize) {
        let (from, to) = (linear(self.from), linear(self.to));
        let step = (to - from) / (frame.len() / channels) as f32;
        for (n, samples) in frame.chunks_exact_mut(channels).enumerate() {
            let gain = from + step * (n + 1) as f32;
            samples.iter_mut().for_each(|sample| *sample *= gain);
        }
    }
}

/// BS.1770-5, equation 2, of a mean square.
fn loudness(power: f32) -> f32 {
    -0.691 + 10.0 * power.max(1e-12).log10()
}

fn linear(decibels: f32) -> f32 {
    10.0f32.powf(decibels / 20.0)
}

/// A second-order section, in transposed direct form II.
#[derive(Debug)]
struct Biquad {
    b: [f32; 3],
    a: [f32; 2],
    state: [f32; 2],
}

impl Biquad {
    fn next(&mut self, x: f32) -> f32 {
        let y = self.b[0] * x + self.state[0];
        self.state[0] = self.b[1] * x - self.a[0] * y + self.state[1];
        self.state[1] = self.b[2] * x - self.a[1] * y;
        y
    }
}

/// The two filters of BS.1770-5, annex 1, for any rate: the analogue prototypes behind its tables for 48 kHz, a high
/// shelf of 4 dB at 1682 Hz and a high pass at 38 Hz.
fn weighting(rate: f64) -> [Biquad; 2] {
    let section = |frequency: f64, q: f64, b: &dyn Fn(f64) -> [f64; 3]| {
        let k = (PI * frequency / rate).tan();
        let a0 = 1.0 + k / q + k * k;
        let a = [2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0];
        Biquad { b: b(k).map(|b| (b / a0) as f32), a: a.map(|a| a as f32), state: [0.0; 2] }
    };
    let (high, q) = (10f64.powf(3.999_843_853_973_347 / 20.0), 0.707_175_236_955_419_6);
    let middle = high.powf(0.499_666_774_154_541_6);
    let shelf = section(1_681.974_450_955_533, q, &|k| {
        let (outer, bend) = (high + k * k, middle * k / q);
        [outer + bend, 2.0 * (k * k - high), outer - bend]
    });
    let (frequency, q) = (38.135_470_876_024_44, 0.500_327_037_323_877_3);
    // The table's numerator is 1, −2, 1 without the division.
    let a0 = |k: f64| 1.0 + k / q + k * k;
    let high_pass = section(frequency, q, &|k| [a0(k), -2.0 * a0(k), a0(k)]);
    [shelf, high_pass]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::TAU;

    const RATE: usize = 48_000;

    fn tone(amplitude: f32, seconds: usize) -> Vec<f32> {
        (0..seconds * RATE)
            .map(|n| amplitude * (TAU * 1000.0 * (n % RATE) as f32 / RATE as f32).sin())
            .collect()
    }

    fn level(leveler: &mut Leveler, samples: &[f32]) -> Vec<f32> {
        let mut out = samples.to_vec();
        for frame in out.chunks_exact_mut(960) {
            leveler.listen(frame, 1);
            leveler.apply(frame, 1);
        }
        out
    }

    fn decibels(samples: &[f32]) -> f32 {
        let power = samples.iter().map(|x| x * x).sum::<f32>() / samples.len() as f32;
        10.0 * power.log10()
    }

    #[test]
    fn the_reference_tone_has_its_loudness() {
        // BS.1770-5: a full-scale sine of 997 Hz in one channel is −3.01 LUFS; in both, 0.
        let mut leveler = Leveler::new(48_000);
        level(&mut leveler, &tone(1.0, 2));
        assert!(loudness(leveler.power.unwrap()).abs() < 0.1, "{:?}", leveler.power);
    }

    #[test]
    fn a_quiet_speaker_comes_up_slowly_and_a_loud_one_goes_down() {
        for (amplitude, seconds, slope) in [(0.05f32, 8, 3.0), (0.35, 6, -6.0)] {
            let out = level(&mut Leveler::new(48_000), &tone(amplitude, seconds));
            let end = decibels(&out[(seconds - 1) * RATE..]);
            // −20 LUFS is −23 dB on each side: at 1 kHz the weighting makes up for the formula's −0.691.
            assert!((end + 23.0).abs() < 0.6, "{amplitude}: {end}");
            let second = |n: usize| decibels(&out[n * RATE..(n + 1) * RATE]);
            let change = second(1) - second(0);
            assert!((change - slope).abs() < 0.5, "{amplitude}: {change}");
        }
    }

    #[test]
    fn the_gain_has_its_range_and_does_not_move_in_pauses() {
        let mut leveler = Leveler::new(48_000);
        level(&mut leveler, &tone(0.004, 10));
        assert!((leveler.to - RANGE).abs() < 0.01, "{}", leveler.to);
        level(&mut leveler, &tone(0.0003, 10));
        assert!((leveler.to - RANGE).abs() < 0.01, "{}", leveler.to);
        assert_eq!(leveler.steady(), Some(linear(RANGE)));
    }

    #[test]
    fn no_step_is_heard() {
        let samples = [tone(0.05, 1), tone(0.5, 1)].concat();
        let out = level(&mut Leveler::new(48_000), &vec![0.5; samples.len()]);
        let step = out.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(step < 1e-4, "{step}");
    }
}
