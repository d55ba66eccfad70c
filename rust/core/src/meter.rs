//! What is told of a recording as a whole: how loud it is, its true peak, and its outline, to be drawn.

use ebur128::{Channel, EbuR128, Mode};

use crate::{Error, Result};

/// An outline has so many points at most, and no less than half as many once it is as long.
pub const POINTS: usize = 1000;

/// Takes audio bit by bit, of whatever length.
pub struct Meter {
    meter: EbuR128,
    channels: usize,
    /// Samples that a point is of, in each channel…
    width: usize,
    /// …and how many are in the one that is not complete.
    filled: usize,
    peak: f32,
    points: Vec<f32>,
}

impl Meter {
    /// For `channels` at `rate`.
    pub fn new(rate: u32, channels: usize) -> Result<Self> {
        let failed = |error| Error::new("meter", format!("expected 1 or 2 channels, {error}"));
        let mode = Mode::I | Mode::TRUE_PEAK | Mode::HISTOGRAM;
        let mut meter = EbuR128::new(channels as u32, rate, mode).map_err(failed)?;
        if channels == 1 {
            meter.set_channel(0, Channel::DualMono).map_err(failed)?;
        }
        Ok(Self {
            meter,
            channels,
            width: rate as usize / 100,
            filled: 0,
            peak: 0.0,
            points: Vec::with_capacity(POINTS),
        })
    }

    /// Takes samples, interleaved.
    pub fn add(&mut self, mut samples: &[f32]) {
        // It refuses nothing that has the right number of channels.
        let _ = self.meter.add_frames_f32(samples);
        while !samples.is_empty() {
            let most = (self.width - self.filled) * self.channels;
            let (now, later) = samples.split_at(samples.len().min(most));
            self.peak = now.iter().fold(self.peak, |peak, sample| peak.max(sample.abs()));
            self.filled += now.len() / self.channels;
            samples = later;
            if self.filled >= self.width {
                self.points.push(self.peak);
                self.filled = 0;
                self.peak = 0.0;
                self.thin_out();
            }
        }
    }

    /// Makes place, by making one point of two.
    fn thin_out(&mut self) {
        if self.points.len() < POINTS {
            return;
        }
        for point in 0..POINTS / 2 {
            self.points[point] = self.points[2 * point].max(self.points[2 * point + 1]);
        }
        self.points.truncate(POINTS / 2);
        self.width *= 2;
    }

    /// The integrated loudness, gated (EBU R 128), in LUFS; minus infinity is silence.
    pub fn loudness(&self) -> f64 {
        self.meter.loudness_global().unwrap_or(f64::NEG_INFINITY)
    }

    /// The highest true peak of all channels, in dBTP.
    pub fn true_peak(&self) -> f64 {
        let peaks =
            (0..self.channels as u32).filter_map(|channel| self.meter.true_peak(channel).ok());
        20.0 * peaks.fold(0.0, f64::max).log10()
    }

    /// The outline: peaks of stretches that are all as long, from the beginning, at most [`POINTS`].
    pub fn outline(&self) -> Vec<f32> {
        let rest = (self.filled > 0).then_some(self.peak);
        self.points.iter().copied().chain(rest).collect()
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(seconds: usize, level: f32) -> Vec<f32> {
        let at = |n: usize| level * (n as f32 * 997.0 * std::f32::consts::TAU / 48_000.0).sin();
        (0..seconds * 48_000).flat_map(|n| [at(n), at(n)]).collect()
    }

    #[test]
    fn a_full_scale_sine_in_both_channels_is_at_0_lufs() {
        let mut meter = Meter::new(48_000, 2).unwrap();
        meter.add(&sine(3, 1.0));
        assert!(meter.loudness().abs() < 0.1, "{}", meter.loudness());
        assert!(meter.true_peak().abs() < 0.1, "{}", meter.true_peak());
    }

    #[test]
    fn silence_has_no_loudness_and_no_peak() {
        let mut meter = Meter::new(48_000, 1).unwrap();
        meter.add(&[0.0; 48_000]);
        assert_eq!(meter.loudness(), f64::NEG_INFINITY);
        assert_eq!(meter.true_peak(), f64::NEG_INFINITY);
    }

    #[test]
    fn the_outline_tells_loud_from_quiet_however_long_it_is_and_in_whatever_bits_it_comes() {
        for (seconds, bit) in [(4, 960), (40, 96_001 * 2), (160, 7 * 2)] {
            let mut meter = Meter::new(48_000, 2).unwrap();
            let samples = [sine(seconds / 2, 0.1), sine(seconds / 2, 0.8)].concat();
            for samples in samples.chunks(bit) {
                meter.add(samples);
            }
            let outline = meter.outline();
            assert!((POINTS / 3..=POINTS).contains(&outline.len()), "{}", outline.len());
            let (quiet, loud) = outline.split_at(outline.len() / 2 - 1);
            assert!(quiet.iter().all(|peak| (peak - 0.1).abs() < 0.01));
            assert!(loud[2..].iter().all(|peak| (peak - 0.8).abs() < 0.01));
        }
    }
}
