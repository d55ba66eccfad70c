//! The sample formats that callers use.

/// A PCM sample, full scale being ±1 in `f32`.
pub trait Sample: Copy {
    /// As the core computes with it.
    fn to_f32(self) -> f32;
    /// The nearest of this format; what is out of range is clipped.
    fn from_f32(sample: f32) -> Self;

    /// Appends `samples` to `pcm`.
    fn append(samples: &[Self], pcm: &mut Vec<f32>) {
        pcm.extend(samples.iter().map(|sample| sample.to_f32()));
    }
}

impl Sample for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    fn from_f32(sample: f32) -> Self {
        sample
    }

    fn append(samples: &[Self], pcm: &mut Vec<f32>) {
        pcm.extend_from_slice(samples);
    }
}

impl Sample for i16 {
    fn to_f32(self) -> f32 {
        f32::from(self) / 32_768.0
    }

    fn from_f32(sample: f32) -> Self {
        // `as` saturates.
        (sample * 32_768.0).round_ties_even() as Self
    }
}
