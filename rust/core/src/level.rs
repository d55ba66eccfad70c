//! Volume: the RMS of a participant's audio over an interval, on the 16-bit scale of the metadata.

use crate::kernel::Measure;

/// What the metadata calls full scale.
const FULL_SCALE: f64 = 32_767.0;

/// Sums up samples between two readings.
#[derive(Debug, Default)]
pub struct Meter {
    sum_squares: f64,
    samples: usize,
}

impl Meter {
    /// Adds `samples` values, of which `measure` was taken before this `gain`.
    pub fn add(&mut self, measure: Measure, gain: f32, samples: usize) {
        self.sum_squares += f64::from(gain * gain * measure.sum_squares);
        self.samples += samples;
    }

    /// The RMS of what was added since the last reading, 0 … 32767; a full-scale sine is 23170.
    pub fn take(&mut self) -> i32 {
        let Self { sum_squares, samples } = std::mem::take(self);
        if samples == 0 {
            return 0;
        }
        let rms = (sum_squares / samples as f64).sqrt();
        (rms * FULL_SCALE).round().min(FULL_SCALE) as i32
    }
}
