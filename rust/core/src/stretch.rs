//! Shortens and lengthens audio without changing its pitch: one period of a periodic signal is taken out, or repeated,
//! and its neighbours cross-faded into each other (pitch-synchronous overlap-add, as NetEq's *accelerate* and
//! *preemptive expand* do it).

use crate::time::TICKS_PER_SECOND;

/// Periods looked for: 2.5 ms (400 Hz) to 15 ms (67 Hz).
const SHORTEST: i64 = 120;
const LONGEST: i64 = 720;
/// Below this mean square (−60 dBFS) no edit is heard.
const SILENT: f32 = 1e-6;
/// The search compares every fourth sample, at every fourth lag.
const COARSE: usize = 4;

/// Where an edit may be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria {
    /// In speech, only where a period and the next are at least as alike as this (normalised correlation)…
    pub alike: f32,
    /// …and anywhere in what has at most this mean square: there, exactly `length` samples per channel are cut or
    /// repeated, if that is less than the longest period.
    pub quiet: f32,
    /// See `quiet`.
    pub length: usize,
}

/// Takes one period out of the beginning of interleaved `pcm`. Returns how many samples per channel it is shorter:
/// none if there is nothing to cut.
pub fn accelerate(pcm: &mut Vec<f32>, rate: u32, channels: usize, criteria: Criteria) -> usize {
    let Some(lag) = period(pcm, rate, channels, criteria) else { return 0 };
    cross_fade(pcm, lag * channels, channels);
    pcm.drain(lag * channels..2 * lag * channels);
    lag
}

/// Repeats the first period of interleaved `pcm`. Returns how many samples per channel it is longer: none if there is
/// nothing to repeat.
pub fn expand(pcm: &mut Vec<f32>, rate: u32, channels: usize, criteria: Criteria) -> usize {
    let Some(lag) = period(pcm, rate, channels, criteria) else { return 0 };
    let inserted = lag * channels;
    let end = pcm.len();
    pcm.resize(end + inserted, 0.0);
    pcm.copy_within(..end, inserted);
    // Now what was the first period stands twice; the second time, it begins as what followed it.
    let (first, rest) = pcm.split_at_mut(inserted);
    let (repeated, following) = rest.split_at_mut(inserted);
    for (n, place) in repeated.iter_mut().enumerate() {
        let weight = ((n / channels) as f32 + 0.5) / lag as f32;
        *place = following[n] + (first[n] - following[n]) * weight;
    }
    lag
}

/// Fades the first `length` values into the `length` that follow them.
fn cross_fade(pcm: &mut [f32], length: usize, channels: usize) {
    let (first, second) = pcm.split_at_mut(length);
    for (n, place) in first.iter_mut().enumerate() {
        let weight = ((n / channels) as f32 + 0.5) / (length / channels) as f32;
        *place += (second[n] - *place) * weight;
    }
}

/// Samples per channel in `ticks`.
fn samples(ticks: i64, rate: u32) -> usize {
    (ticks * i64::from(rate) / TICKS_PER_SECOND) as usize
}

/// The period at the beginning of `pcm`, if an edit may be made there.
fn period(pcm: &[f32], rate: u32, channels: usize, criteria: Criteria) -> Option<usize> {
    let shortest = samples(SHORTEST, rate);
    let longest = samples(LONGEST, rate).min(pcm.len() / channels / 2);
    if longest < shortest {
        return None;
    }
    if power(&pcm[..longest * channels]) <= criteria.quiet.max(SILENT) {
        return Some(criteria.length.min(longest));
    }
    if criteria.alike > 1.0 {
        return None;
    }
    let (lag, correlation) = most_alike(pcm, channels, shortest, longest);
    (correlation >= criteria.alike).then_some(lag)
}

/// The mean square of `samples`.
pub fn power(samples: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for chunk in samples.chunks(lanes.len()) {
        for (lane, sample) in lanes.iter_mut().zip(chunk) {
            *lane += sample * sample;
        }
    }
    lanes.iter().sum::<f32>() / samples.len().max(1) as f32
}

/// The lag at which the beginning of `pcm` is most like what follows, and how alike they are.
fn most_alike(pcm: &[f32], channels: usize, shortest: usize, longest: usize) -> (usize, f32) {
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
    use proptest::prelude::*;
    use std::f32::consts::TAU;

    const SPEECH: Criteria = Criteria { alike: 0.9, quiet: 0.0, length: 9999 };

    fn largest_step(samples: &[f32]) -> f32 {
        samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    fn noise(length: usize) -> Vec<f32> {
        let mut state = 1u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 - 0.5
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn a_tone_is_edited_by_whole_periods_without_a_step() {
        let tone: Vec<f32> = (0..1920).map(|n| (TAU * 200.0 * n as f32 / 48_000.0).sin()).collect();
        let mut shorter = tone.clone();
        let removed = accelerate(&mut shorter, 48_000, 1, SPEECH);
        assert_eq!(shorter.len(), tone.len() - removed);
        let mut longer = tone.clone();
        let added = expand(&mut longer, 48_000, 1, SPEECH);
        assert_eq!(longer.len(), tone.len() + added);
        for (edited, by) in [(shorter, removed), (longer, added)] {
            assert!(by > 0 && by.is_multiple_of(240), "{by}");
            assert!(largest_step(&edited) < 1.05 * largest_step(&tone));
        }
    }

    #[test]
    fn silence_is_edited_anywhere_and_noise_only_where_it_is_called_quiet() {
        let mut silence = vec![0.0; 2 * 1440];
        assert_eq!(accelerate(&mut silence, 48_000, 2, SPEECH), 720);
        assert_eq!(expand(&mut silence, 48_000, 2, SPEECH), 360);
        let mut noise = noise(1440);
        assert_eq!(accelerate(&mut noise, 48_000, 1, SPEECH), 0);
        assert_eq!(expand(&mut noise, 48_000, 1, SPEECH), 0);
        assert_eq!(
            expand(&mut noise, 48_000, 1, Criteria { alike: 0.9, quiet: 1.0, length: 9999 }),
            720
        );
    }

    proptest! {
        #[test]
        fn whatever_is_edited_stays_within_its_range_and_keeps_its_end(
            samples in prop::collection::vec(-1.0f32..1.0, 0..2000),
            alike in 0.0f32..1.0,
            quiet in 0.0f32..0.5,
        ) {
            let pcm = samples[..samples.len() / 2 * 2].to_vec();
            let criteria = Criteria { alike, quiet, length: 9999 };
            let (mut shorter, mut longer) = (pcm.clone(), pcm.clone());
            let removed = 2 * accelerate(&mut shorter, 48_000, 2, criteria);
            let added = 2 * expand(&mut longer, 48_000, 2, criteria);
            prop_assert_eq!(removed, added);
            prop_assert_eq!(shorter.len(), pcm.len() - removed);
            prop_assert_eq!(longer.len(), pcm.len() + added);
            prop_assert_eq!(&shorter[removed..], &pcm[2 * removed..]);
            prop_assert_eq!(&longer[2 * added..], &pcm[added..]);
            prop_assert!(shorter.iter().chain(&longer).all(|sample| sample.abs() <= 1.0));
        }
    }
}
