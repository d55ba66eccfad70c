//! The plain Rust of [`lanes`], [`true_peak`] and [`Envelope`], compiled for AVX2 and AVX-512.
#![allow(unsafe_code)]

use super::{Kernel, Measure, lanes, true_peak};
use crate::envelope::Envelope;

/// The functions of one instruction set, and the [`Kernel`] of them.
macro_rules! kernel {
    ($name:ident, $features:literal) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            fn add(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
                lanes::add::<true>(bus, samples, gain)
            }

            #[target_feature(enable = $features)]
            fn add_mono(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
                lanes::add_mono::<true>(bus, samples, gain)
            }

            #[target_feature(enable = $features)]
            fn true_peaks(samples: &[f32], channels: usize, peaks: &mut [f32]) {
                true_peak::lanes::<true>(samples, channels, peaks);
            }

            #[target_feature(enable = $features)]
            fn advance(envelope: &mut Envelope, peaks: &mut [f32]) {
                envelope.advance(peaks);
            }

            #[target_feature(enable = $features)]
            fn loudest(samples: &[f32]) -> f32 {
                lanes::loudest(samples)
            }

            pub const KERNEL: Kernel = Kernel {
                name: stringify!($name),
                // SAFETY: `available` gives this kernel only where these features were detected; likewise below.
                add: |bus, samples, gain| unsafe { add(bus, samples, gain) },
                // SAFETY: as above.
                add_mono: |bus, samples, gain| unsafe { add_mono(bus, samples, gain) },
                // SAFETY: as above.
                true_peaks: |samples, channels, peaks| unsafe {
                    true_peaks(samples, channels, peaks)
                },
                // SAFETY: as above.
                advance: |envelope, peaks| unsafe { advance(envelope, peaks) },
                // SAFETY: as above.
                loudest: |samples| unsafe { loudest(samples) },
            };
        }
    };
}

kernel!(avx2, "avx2,fma");
kernel!(avx512, "avx512f");

/// Those of them that this processor runs.
pub fn available() -> impl Iterator<Item = Kernel> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f");
    [(avx2, avx2::KERNEL), (avx512, avx512::KERNEL)]
        .into_iter()
        .filter_map(|(there, kernel)| there.then_some(kernel))
}
