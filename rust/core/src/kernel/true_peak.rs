//! True peaks: the largest magnitudes of a signal oversampled four times (ITU-R BS.1770-5, annex 2).

use super::lanes::{larger, multiply_add};

/// The interpolation filter's phases 1 and 2; phases 4 and 3 are these, reversed.
#[rustfmt::skip]
const PHASES: [[f32; TAPS]; 2] = [
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
const HALF: usize = TAPS / 2;
/// The samples before the newest that the filter needs.
pub const PAST: usize = TAPS - 1;
/// The filter's middle: peaks are known this many samples late.
pub const LATENCY: usize = TAPS / 2;
/// The most the filter makes of samples up to 1, the largest sum of a phase's magnitudes.
pub const OVERSHOOT: f32 = 2.03;

/// The even and the odd part of each phase: of these, the phase is the sum and the reversed one the difference, with
/// half the multiplications.
const PARTS: [[[f32; HALF]; 2]; 2] = {
    let mut parts = [[[0.0; HALF]; 2]; 2];
    let mut phase = 0;
    while phase < 2 {
        let mut tap = 0;
        while tap < HALF {
            let (one, other) = (PHASES[phase][tap], PHASES[phase][TAPS - 1 - tap]);
            parts[phase][0][tap] = (one + other) / 2.0;
            parts[phase][1][tap] = (one - other) / 2.0;
            tap += 1;
        }
        phase += 1;
    }
    parts
};

/// As one would write it down: see [`Kernel::true_peaks`](super::Kernel::true_peaks).
pub fn scalar(samples: &[f32], channels: usize, peaks: &mut [f32]) {
    for (n, peak) in peaks.iter_mut().enumerate() {
        let tap = |tap: usize| samples[n + tap * channels];
        *peak = tap(PAST - LATENCY).abs();
        for phase in &PHASES {
            let forth: f32 = (0..TAPS).map(|t| phase[t] * tap(t)).sum();
            let back: f32 = (0..TAPS).map(|t| phase[TAPS - 1 - t] * tap(t)).sum();
            *peak = peak.max(forth.abs()).max(back.abs());
        }
    }
}

/// The same for many samples at a time.
#[inline(always)]
pub fn lanes<const FUSED: bool>(samples: &[f32], channels: usize, peaks: &mut [f32]) {
    const LANES: usize = 16;
    let mut chunks = peaks.chunks_exact_mut(LANES);
    let mut at = 0;
    for peaks in chunks.by_ref() {
        let taps = |tap: usize| -> &[f32; LANES] {
            let from = at + tap * channels;
            samples[from..from + LANES].try_into().expect("it is as long as that")
        };
        let mut parts = [[[0.0f32; LANES]; 2]; 2];
        for tap in 0..HALF {
            let (one, other) = (taps(tap), taps(TAPS - 1 - tap));
            for lane in 0..LANES {
                let (even, odd) = (one[lane] + other[lane], one[lane] - other[lane]);
                for phase in 0..2 {
                    let [evens, odds] = &mut parts[phase];
                    let weights = &PARTS[phase];
                    evens[lane] = multiply_add::<FUSED>(weights[0][tap], even, evens[lane]);
                    odds[lane] = multiply_add::<FUSED>(weights[1][tap], odd, odds[lane]);
                }
            }
        }
        let middle = taps(PAST - LATENCY);
        for lane in 0..LANES {
            // The larger of |e + o| and |e − o|.
            let of = |[evens, odds]: &[[f32; LANES]; 2]| evens[lane].abs() + odds[lane].abs();
            peaks[lane] = larger(middle[lane].abs(), larger(of(&parts[0]), of(&parts[1])));
        }
        at += LANES;
    }
    scalar(&samples[at..], channels, chunks.into_remainder());
}
