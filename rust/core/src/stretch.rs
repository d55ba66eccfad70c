//! Shortens audio without changing its pitch: one period of a periodic signal is taken out, and its neighbours
//! cross-faded into each other (pitch-synchronous overlap-add, as NetEq's *accelerate* does it).

use crate::time::TICKS_PER_SECOND;

/// Periods looked for: 2.5 ms (400 Hz) to 15 ms (67 Hz).
const SHORTEST: i64 = 120;
const LONGEST: i64 = 720;
/// A cut is made only where a period and the next are as alike as this (normalised correlation).
const ALIKE: f32 = 0.9;
/// Below this mean square (−60 dBFS) no cut is heard.
const SILENT: f32 = 1e-6;
/// The search compares every fourth sample, at every fourth lag.
const COARSE: usize = 4;

/// So many samples per channel must be there for [`accelerate`]: two of the longest periods.
pub fn window(rate: u32) -> usize {
    (2 * LONGEST * i64::from(rate) / TICKS_PER_SECOND) as usize
}

/// Takes one period out of the beginning of interleaved `pcm`. Returns how many samples per channel it is shorter:
/// none if there are fewer than [`window`], or nothing periodic to cut.
pub fn accelerate(pcm: &mut Vec<f32>, rate: u32, channels: usize) -> usize {
    if pcm.len() < window(rate) * channels {
        return 0;
    }
    let scale = |ticks: i64| (ticks * i64::from(rate) / TICKS_PER_SECOND) as usize;
    let (shortest, longest) = (scale(SHORTEST), scale(LONGEST));
    let power = power(&pcm[..longest * channels]);
    let lag = if power < SILENT {
        longest
    } else {
        let (lag, correlation) = period(pcm, channels, shortest, longest);
        if correlation < ALIKE {
            return 0;
        }
        lag
    };
    for frame in 0..lag {
        let weight = (frame as f32 + 0.5) / lag as f32;
        for place in frame * channels..(frame + 1) * channels {
            pcm[place] += (pcm[place + lag * channels] - pcm[place]) * weight;
        }
    }
    pcm.drain(lag * channels..2 * lag * channels);
    lag
}

fn power(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32
}

/// The lag at which the beginning of `pcm` is most like what follows, and how alike they are.
fn period(pcm: &[f32], channels: usize, shortest: usize, longest: usize) -> (usize, f32) {
    let best = |lags: &mut dyn Iterator<Item = usize>, step| {
        lags.map(|lag| (lag, alike(pcm, channels, lag, step)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((shortest, 0.0))
    };
    let (coarse, _) = best(&mut (shortest..=longest).step_by(COARSE), COARSE);
    let near = coarse.saturating_sub(COARSE).max(shortest)..=(coarse + COARSE).min(longest);
    best(&mut { near }, 1)
}

/// Normalised correlation of the first channel's first `lag` samples with the `lag` that follow.
fn alike(pcm: &[f32], channels: usize, lag: usize, step: usize) -> f32 {
    let (mut product, mut first, mut second) = (0.0f32, 1e-9f32, 1e-9f32);
    for frame in (0..lag).step_by(step) {
        let (a, b) = (pcm[frame * channels], pcm[(frame + lag) * channels]);
        product += a * b;
        first += a * a;
        second += b * b;
    }
    product / (first * second).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::TAU;

    fn largest_step(samples: &[f32]) -> f32 {
        samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_is_shortened_by_whole_periods_without_a_step() {
        let tone: Vec<f32> = (0..1920).map(|n| (TAU * 200.0 * n as f32 / 48_000.0).sin()).collect();
        let mut pcm = tone.clone();
        let removed = accelerate(&mut pcm, 48_000, 1);
        assert!(removed > 0 && removed.is_multiple_of(240), "{removed}");
        assert_eq!(pcm.len(), tone.len() - removed);
        assert!(largest_step(&pcm) < 1.05 * largest_step(&tone));
    }

    #[test]
    fn silence_is_shortened_and_noise_is_left_alone() {
        let mut silence = vec![0.0; 2 * 1440];
        assert_eq!(accelerate(&mut silence, 48_000, 2), 720);
        let mut state = 1u32;
        let mut noise: Vec<f32> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 - 0.5
        })
        .take(1440)
        .collect();
        assert_eq!(accelerate(&mut noise, 48_000, 1), 0);
    }
}
