//! The [`lanes`] kernels compiled for AVX2 and AVX-512.
#![allow(unsafe_code)]

use super::{Kernel, Measure, lanes};

/// Those of them that this processor runs.
pub fn available() -> impl Iterator<Item = Kernel> {
    let avx2 =
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Kernel {
            name: "avx2",
            // SAFETY: this entry exists only where AVX2 and FMA were detected; likewise below.
            add: |bus, samples, gain| unsafe { add_avx2(bus, samples, gain) },
            // SAFETY: as above.
            add_mono: |bus, samples, gain| unsafe { add_mono_avx2(bus, samples, gain) },
        });
    let avx512 = is_x86_feature_detected!("avx512f").then_some(Kernel {
        name: "avx512",
        // SAFETY: this entry exists only where AVX-512F was detected; likewise below.
        add: |bus, samples, gain| unsafe { add_avx512(bus, samples, gain) },
        // SAFETY: as above.
        add_mono: |bus, samples, gain| unsafe { add_mono_avx512(bus, samples, gain) },
    });
    avx2.into_iter().chain(avx512)
}

#[target_feature(enable = "avx2,fma")]
fn add_avx2(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    lanes::add::<true>(bus, samples, gain)
}

#[target_feature(enable = "avx2,fma")]
fn add_mono_avx2(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    lanes::add_mono::<true>(bus, samples, gain)
}

#[target_feature(enable = "avx512f")]
fn add_avx512(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    lanes::add::<true>(bus, samples, gain)
}

#[target_feature(enable = "avx512f")]
fn add_mono_avx512(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    lanes::add_mono::<true>(bus, samples, gain)
}
