//! The loops that every sample goes through: of every participant, add to the bus and measure; of every mix, find true
//! peaks and turn down.
//!
//! [`scalar`] and [`true_peak::scalar`] are the specification. The fast versions are one body of plain Rust ([`lanes`]), written so that the
//! compiler turns it into the widest vectors it may use, and compiled once per instruction set: the baseline (SSE2 on
//! x86-64, NEON on AArch64), AVX2 and AVX-512. The best the processor has is chosen once, at run time.

pub(crate) mod lanes;
pub mod scalar;
pub mod true_peak;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::envelope::Envelope;

/// What the kernel finds out about the samples it adds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measure {
    /// Sum of the squares, before gain.
    pub sum_squares: f32,
    /// Largest magnitude, before gain.
    pub peak: f32,
}

/// Every AArch64 processor has a fused multiply-add; x86-64's baseline has none.
const FUSED: bool = cfg!(target_arch = "aarch64");

type Add = fn(&mut [f32], &[f32], f32) -> Measure;
type TruePeaks = fn(&[f32], usize, &mut [f32]);
type Advance = fn(&mut Envelope, &mut [f32]);
type Loudest = fn(&[f32]) -> f32;

/// The kernel's functions for one instruction set.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    add: Add,
    add_mono: Add,
    true_peaks: TruePeaks,
    advance: Advance,
    loudest: Loudest,
}

impl Kernel {
    /// The fastest this processor runs.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::SCALAR)
    }

    /// All that this processor runs, slowest first.
    pub fn available() -> Vec<Self> {
        let kernels = [
            Self::SCALAR,
            Self {
                name: "baseline",
                add: lanes::add::<FUSED>,
                add_mono: lanes::add_mono::<FUSED>,
                true_peaks: true_peak::lanes::<FUSED>,
                advance: Envelope::advance,
                loudest: lanes::loudest,
            },
        ];
        #[cfg(target_arch = "x86_64")]
        let kernels = kernels.into_iter().chain(x86::available());
        kernels.into_iter().collect()
    }

    const SCALAR: Self = Self {
        name: "scalar",
        add: scalar::add,
        add_mono: scalar::add_mono,
        true_peaks: true_peak::scalar,
        advance: Envelope::advance,
        loudest: scalar::loudest,
    };

    /// The instruction set's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds `gain` × `samples` to `bus`, which has as many, and measures `samples`. With a negative gain it takes
    /// away what it added with the positive one, but for rounding.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
        assert_eq!(bus.len(), samples.len(), "the bus has a place for every sample");
        (self.add)(bus, samples, gain)
    }

    /// The same for mono `samples` and an interleaved stereo `bus`: each sample goes to both sides.
    ///
    /// # Panics
    /// Unless `bus` is twice as long.
    pub fn add_mono(&self, bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
        assert_eq!(bus.len(), 2 * samples.len(), "the bus has two places for every sample");
        (self.add_mono)(bus, samples, gain)
    }

    /// The largest magnitude of `samples`.
    pub fn loudest(&self, samples: &[f32]) -> f32 {
        (self.loudest)(samples)
    }

    /// Puts into `peaks` the largest magnitude around each of as many `samples`, interleaved of `channels`, oversampled
    /// four times (ITU-R BS.1770-5, annex 2). Before these there have to be [`true_peak::PAST`] earlier ones of each
    /// channel; the sample that a peak is of is [`true_peak::LATENCY`] before the one in its place.
    ///
    /// # Panics
    /// Unless `samples` are as many as that.
    pub fn true_peaks(&self, samples: &[f32], channels: usize, peaks: &mut [f32]) {
        let expected = peaks.len() + true_peak::PAST * channels;
        assert_eq!(samples.len(), expected, "there is a place for every peak");
        (self.true_peaks)(samples, channels, peaks);
    }

    /// See [`Envelope::advance`].
    pub fn advance(&self, envelope: &mut Envelope, peaks: &mut [f32]) {
        (self.advance)(envelope, peaks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_of_this_processor_are_tested() {
        let names: Vec<_> = Kernel::available().iter().map(Kernel::name).collect();
        println!("kernels tested here: {names:?}");
        #[cfg(target_arch = "x86_64")]
        for missing in ["avx2", "avx512"].iter().filter(|name| !names.contains(name)) {
            println!("NOT tested, this processor lacks it: {missing}");
        }
        assert!(names.len() >= 2);
    }

    fn assert_close(a: &[f32], b: &[f32], tolerance: f32, kernel: &Kernel) {
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && off <= tolerance, "{}: off by {off}", kernel.name());
    }

    proptest! {
        #[test]
        fn every_kernel_does_what_the_scalar_one_does(
            samples in prop::collection::vec(-2.0f32..2.0, 0..500),
            gain in -2.0f32..2.0,
            level in -2.0f32..2.0,
        ) {
            for kernel in Kernel::available() {
                type Call<'a> = (&'a dyn Fn(&mut [f32]) -> Measure, Add, usize);
                let calls: [Call; 2] = [
                    (&|bus| kernel.add(bus, &samples, gain), scalar::add, 1),
                    (&|bus| kernel.add_mono(bus, &samples, gain), scalar::add_mono, 2),
                ];
                for (call, reference, width) in calls {
                    let mut expected = vec![level; width * samples.len()];
                    let mut bus = expected.clone();
                    let wanted = reference(&mut expected, &samples, gain);
                    let measure = call(&mut bus);
                    assert_close(&bus, &expected, 1e-6, &kernel);
                    assert_close(&[measure.peak], &[wanted.peak], 0.0, &kernel);
                    let tolerance = 1e-5 * wanted.sum_squares;
                    assert_close(&[measure.sum_squares], &[wanted.sum_squares], tolerance, &kernel);
                }
            }
        }

        #[test]
        fn every_kernel_finds_the_same_peaks(
            samples in prop::collection::vec(-2.0f32..2.0, 22..1000),
            channels in 1usize..3,
        ) {
            let length = samples.len() - true_peak::PAST * channels;
            let mut expected = vec![0.0; length];
            true_peak::scalar(&samples, channels, &mut expected);
            for kernel in Kernel::available() {
                let mut peaks = vec![0.0; length];
                kernel.true_peaks(&samples, channels, &mut peaks);
                assert_close(&peaks, &expected, 2e-6, &kernel);
                let loudest = samples.iter().map(|sample| sample.abs()).fold(0.0, f32::max);
                assert_close(&[kernel.loudest(&samples)], &[loudest], 0.0, &kernel);
            }
        }

        #[test]
        fn what_is_taken_away_leaves_what_was_there(
            samples in prop::collection::vec(-1.0f32..1.0, 1..500),
            gain in 0.0f32..2.0,
        ) {
            for kernel in Kernel::available() {
                let other: Vec<f32> = samples.iter().rev().map(|sample| sample * 0.5).collect();
                let mut bus = other.clone();
                kernel.add(&mut bus, &samples, gain);
                kernel.add(&mut bus, &samples, -gain);
                assert_close(&bus, &other, 3e-7, &kernel);
            }
        }
    }
}
