//! The kernels as one would write them down: what the fast ones are tested against.

use super::Measure;

/// See [`Kernel::add`](super::Kernel::add).
pub fn add(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    let mut measure = Measure::default();
    for (sum, &sample) in bus.iter_mut().zip(samples) {
        *sum += gain * sample;
        measure.sum_squares += sample * sample;
        measure.peak = measure.peak.max(sample.abs());
    }
    measure
}

/// See [`Kernel::loudest`](super::Kernel::loudest).
pub fn loudest(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak, sample| peak.max(sample.abs()))
}

/// See [`Kernel::add_mono`](super::Kernel::add_mono).
pub fn add_mono(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    let mut measure = Measure::default();
    for (sums, &sample) in bus.chunks_exact_mut(2).zip(samples) {
        for sum in sums {
            *sum += gain * sample;
        }
        measure.sum_squares += sample * sample;
        measure.peak = measure.peak.max(sample.abs());
    }
    measure
}
