//! The kernels with one accumulator per vector lane, so that no sample waits for the one before it.
//!
//! `FUSED` is for instruction sets with a fused multiply-add (elsewhere it would be a slow function call).

use super::{Measure, scalar};

/// Four vectors of AVX-512, eight of AVX2: enough to hide the latency of an addition.
const LANES: usize = 64;

/// See [`Kernel::add`](super::Kernel::add).
#[inline(always)]
pub fn add<const FUSED: bool>(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    let mut lanes = Lanes::new();
    let mut sums = bus.chunks_exact_mut(LANES);
    let mut chunks = samples.chunks_exact(LANES);
    for (sums, chunk) in sums.by_ref().zip(chunks.by_ref()) {
        lanes.measure::<FUSED>(chunk);
        for (sum, sample) in sums.iter_mut().zip(chunk) {
            *sum = multiply_add::<FUSED>(gain, *sample, *sum);
        }
    }
    lanes.finish(scalar::add(sums.into_remainder(), chunks.remainder(), gain))
}

/// See [`Kernel::add_mono`](super::Kernel::add_mono).
#[inline(always)]
pub fn add_mono<const FUSED: bool>(bus: &mut [f32], samples: &[f32], gain: f32) -> Measure {
    let mut lanes = Lanes::new();
    let mut sums = bus.chunks_exact_mut(2 * LANES);
    let mut chunks = samples.chunks_exact(LANES);
    for (sums, chunk) in sums.by_ref().zip(chunks.by_ref()) {
        lanes.measure::<FUSED>(chunk);
        for (pair, sample) in sums.chunks_exact_mut(2).zip(chunk) {
            pair[0] = multiply_add::<FUSED>(gain, *sample, pair[0]);
            pair[1] = multiply_add::<FUSED>(gain, *sample, pair[1]);
        }
    }
    lanes.finish(scalar::add_mono(sums.into_remainder(), chunks.remainder(), gain))
}

/// See [`Kernel::loudest`](super::Kernel::loudest).
#[inline(always)]
pub fn loudest(samples: &[f32]) -> f32 {
    let mut peaks = [0.0f32; LANES];
    let mut chunks = samples.chunks_exact(LANES);
    for chunk in chunks.by_ref() {
        for (peak, sample) in peaks.iter_mut().zip(chunk) {
            *peak = larger(*peak, sample.abs());
        }
    }
    larger(fold(peaks, larger), scalar::loudest(chunks.remainder()))
}

/// `a` × `b` + `c`.
#[inline(always)]
pub fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

struct Lanes {
    sum_squares: [f32; LANES],
    peak: [f32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn new() -> Self {
        Self { sum_squares: [0.0; LANES], peak: [0.0; LANES] }
    }

    #[inline(always)]
    fn measure<const FUSED: bool>(&mut self, chunk: &[f32]) {
        for ((sum, peak), sample) in self.sum_squares.iter_mut().zip(&mut self.peak).zip(chunk) {
            *sum = multiply_add::<FUSED>(*sample, *sample, *sum);
            *peak = larger(*peak, sample.abs());
        }
    }

    #[inline(always)]
    fn finish(self, rest: Measure) -> Measure {
        Measure {
            sum_squares: fold(self.sum_squares, |a, b| a + b) + rest.sum_squares,
            peak: larger(fold(self.peak, larger), rest.peak),
        }
    }
}

/// Not `f32::max`, whose care for NaN costs instructions.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Folds the lanes by halves, which takes six steps where one by one would take 63.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}
