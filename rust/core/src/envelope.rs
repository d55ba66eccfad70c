//! By how much a limiter turns down, sample by sample: ahead of each peak, smoothly, and only slowly less.
//!
//! It counts in *reductions*, one less the gain: of nothing to do they are exactly zero, whatever is added up. The
//! largest of the look-ahead is held; it decays at the release's pace; two box filters that together are as long as the
//! look-ahead smooth it, so that it has come all the way when the peak arrives (two boxes make a triangle, whose slopes
//! have no corners to hear).
//!
//! Each of these steps is a loop over a whole frame, or blocks of it, that the compiler can make vectors of.

use crate::kernel::lanes::larger;
use crate::limiter::CEILING;

/// A reduction that has decayed to this is none any more.
const RELEASED: f32 = 0.001;
/// The decay is computed for so many samples at a time.
const BLOCK: usize = 16;
/// And sums.
const SUMS: usize = 8;

/// Reductions of one stream, a frame at a time.
pub struct Envelope {
    /// How many samples a reduction is held for.
    window: usize,
    /// For the samples of the window before this frame, then for the frame.
    wanted: Vec<f32>,
    /// Room for what becomes of them.
    held: [Vec<f32>; 2],
    /// What is left of a reduction after 1, 2, … samples.
    decay: [f32; BLOCK],
    last: f32,
    boxes: [BoxFilter; 2],
    /// Samples since the boxes were given any reduction.
    idle: usize,
}

/// The mean of the last values. Sums are `f64`, so that what goes in comes out again without a trace.
struct BoxFilter {
    length: usize,
    /// Those that are in the sum, then this frame's.
    values: Vec<f32>,
    sum: f64,
}

impl Envelope {
    /// For frames of `frame` samples, `look_ahead` samples ahead; what is held decays to 1/e within `release` samples.
    pub fn new(frame: usize, look_ahead: usize, release: f32) -> Self {
        let window = look_ahead + 1;
        let half = look_ahead / 2 + 1;
        Self {
            window,
            wanted: vec![0.0; window - 1 + frame],
            held: [(); 2].map(|()| vec![0.0; window - 1 + frame]),
            decay: std::array::from_fn(|n| (-(n as f32 + 1.0) / release).exp()),
            last: 0.0,
            boxes: [half, window + 1 - half].map(|length| BoxFilter {
                length,
                values: vec![0.0; length + frame],
                sum: 0.0,
            }),
            idle: usize::MAX,
        }
    }

    /// Whether nothing is turned down, as long as no peak comes.
    pub fn is_idle(&self) -> bool {
        self.idle > self.boxes[0].length + self.boxes[1].length + self.window
    }

    /// Nothing is turned down any more.
    pub fn reset(&mut self) {
        self.wanted.fill(0.0);
        self.last = 0.0;
        for filter in &mut self.boxes {
            filter.values.fill(0.0);
            filter.sum = 0.0;
        }
        self.idle = usize::MAX;
    }

    /// Becomes what `other`, of the same sizes, is.
    pub fn follow(&mut self, other: &Self) {
        self.wanted.clone_from(&other.wanted);
        self.last = other.last;
        for (filter, other) in self.boxes.iter_mut().zip(&other.boxes) {
            filter.values.clone_from(&other.values);
            filter.sum = other.sum;
        }
        self.idle = other.idle;
    }

    /// Replaces the `peaks` of a frame by its gains.
    #[inline(always)]
    pub fn advance(&mut self, peaks: &mut [f32]) {
        let past = self.window - 1;
        for (wanted, &peak) in self.wanted[past..].iter_mut().zip(&*peaks) {
            *wanted = if peak > CEILING { 1.0 - CEILING / peak } else { 0.0 };
        }
        let [one, other] = &mut self.held;
        let released = &mut hold(&self.wanted, self.window, one, other)[..peaks.len()];
        release(released, &self.decay, &mut self.last);
        self.idle = match released.iter().rposition(|&reduction| reduction > 0.0) {
            Some(last) => released.len() - 1 - last,
            None => self.idle.saturating_add(released.len()),
        };
        let [first, second] = &mut self.boxes;
        first.smooth(released, peaks);
        second.smooth(peaks, released);
        for (gain, reduction) in peaks.iter_mut().zip(released) {
            *gain = 1.0 - *reduction;
        }
        self.wanted.copy_within(peaks.len().., 0);
        if self.is_idle() {
            self.reset();
        }
    }
}

/// Each is at least what the one before it, of this block or the `last` one, has decayed to.
#[inline(always)]
fn release(reductions: &mut [f32], decay: &[f32; BLOCK], last: &mut f32) {
    let (blocks, rest) = reductions.as_chunks_mut();
    for block in blocks {
        // A scan in steps that double: what decays by `n` samples at once has the decay of `n`.
        let scan = decayed::<1>(*block, decay);
        let scan = decayed::<2>(scan, decay);
        let scan = decayed::<4>(scan, decay);
        let scan = decayed::<8>(scan, decay);
        for n in 0..BLOCK {
            block[n] = larger(scan[n], decay[n] * *last);
        }
        *last = if block[BLOCK - 1] >= RELEASED { block[BLOCK - 1] } else { 0.0 };
    }
    debug_assert!(rest.is_empty(), "20 ms of every rate are whole blocks");
}

/// Each value, or what the one that is `DISTANCE` earlier has decayed to if that is larger.
#[inline(always)]
fn decayed<const DISTANCE: usize>(scan: [f32; BLOCK], decay: &[f32; BLOCK]) -> [f32; BLOCK] {
    let mut wide = [0.0; 2 * BLOCK];
    wide[BLOCK..].copy_from_slice(&scan);
    std::array::from_fn(|n| larger(scan[n], decay[DISTANCE - 1] * wide[BLOCK + n - DISTANCE]))
}

impl BoxFilter {
    /// Puts the means that end with each of `values` into `means`.
    #[inline(always)]
    fn smooth(&mut self, values: &[f32], means: &mut [f32]) {
        let Self { length, values: line, sum } = self;
        line[*length..].copy_from_slice(values);
        let scale = 1.0 / *length as f64;
        let (blocks, _) = means.as_chunks_mut::<SUMS>();
        let (new, _) = values.as_chunks::<SUMS>();
        let (old, _) = line.as_chunks::<SUMS>();
        for ((means, new), old) in blocks.iter_mut().zip(new).zip(old) {
            let changes = std::array::from_fn(|n| f64::from(new[n]) - f64::from(old[n]));
            let sums = summed::<4>(summed::<2>(summed::<1>(changes)));
            *means = std::array::from_fn(|n| ((*sum + sums[n]) * scale) as f32);
            *sum += sums[SUMS - 1];
        }
        line.copy_within(values.len().., 0);
    }
}

/// Each value and the one that is `DISTANCE` earlier, added: with 1, 2 and 4, all before it.
#[inline(always)]
fn summed<const DISTANCE: usize>(values: [f64; SUMS]) -> [f64; SUMS] {
    let mut wide = [0.0; 2 * SUMS];
    wide[SUMS..].copy_from_slice(&values);
    std::array::from_fn(|n| values[n] + wide[SUMS + n - DISTANCE])
}

/// The largest of the `window` values that begin with each, in one of two buffers.
#[inline(always)]
fn hold<'a>(
    values: &[f32],
    window: usize,
    one: &'a mut Vec<f32>,
    other: &'a mut Vec<f32>,
) -> &'a mut Vec<f32> {
    raise(values, 1, one);
    let (mut from, mut to) = (one, other);
    let mut width = 2;
    while 2 * width <= window {
        raise(from, width, to);
        std::mem::swap(&mut from, &mut to);
        width *= 2;
    }
    raise(from, window - width, to);
    to
}

/// Each value, or the one that is `distance` later if that is larger.
#[inline(always)]
fn raise(values: &[f32], distance: usize, out: &mut [f32]) {
    for ((out, &value), &later) in out.iter_mut().zip(values).zip(&values[distance..]) {
        *out = larger(value, later);
    }
    let end = values.len() - distance;
    out[end..].copy_from_slice(&values[end..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: usize = 160;
    const LOOK_AHEAD: usize = 40;
    const RELEASE: f32 = 800.0;

    /// As one would write it down.
    fn gains(peaks: &[f32]) -> Vec<f32> {
        let wanted = |n: isize| match usize::try_from(n).map(|n| peaks[n]) {
            Ok(peak) if peak > CEILING => f64::from(1.0 - CEILING / peak),
            _ => 0.0,
        };
        let decay = (-1.0 / f64::from(RELEASE)).exp();
        let mut last = 0.0f64;
        let mut series: Vec<f64> = (0..peaks.len() as isize)
            .map(|n| {
                let held = (n - LOOK_AHEAD as isize..=n).map(wanted).fold(0.0, f64::max);
                last = held.max(last * decay);
                last
            })
            .collect();
        for length in [LOOK_AHEAD / 2 + 1, LOOK_AHEAD + 2 - (LOOK_AHEAD / 2 + 1)] {
            let mean = |n: usize| series[(n + 1).saturating_sub(length)..=n].iter().sum::<f64>();
            series = (0..series.len()).map(|n| mean(n) / length as f64).collect();
        }
        series.into_iter().map(|reduction| 1.0 - reduction as f32).collect()
    }

    proptest! {
        #[test]
        fn a_frame_at_a_time_is_what_it_is_sample_by_sample(
            peaks in prop::collection::vec(prop_oneof![9 => 0.0f32..0.9, 1 => 0.9f32..20.0], 8 * FRAME)
        ) {
            let mut envelope = Envelope::new(FRAME, LOOK_AHEAD, RELEASE);
            let mut found = peaks.clone();
            found.chunks_mut(FRAME).for_each(|frame| envelope.advance(frame));
            for (n, (found, wanted)) in found.iter().zip(gains(&peaks)).enumerate() {
                // What has decayed to less than a thousandth is let go.
                prop_assert!((found - wanted).abs() < 1.1 * RELEASED, "{n}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn without_peaks_gains_are_exactly_one_and_after_one_they_are_again() {
        let mut envelope = Envelope::new(FRAME, LOOK_AHEAD, RELEASE);
        let mut frame = vec![CEILING; FRAME];
        envelope.advance(&mut frame);
        assert!(envelope.is_idle() && frame.iter().all(|&gain| gain == 1.0));
        frame.fill(5.0);
        envelope.advance(&mut frame);
        let frames = (0..100).take_while(|_| {
            frame.fill(0.0);
            envelope.advance(&mut frame);
            !envelope.is_idle()
        });
        assert!((20..60).contains(&frames.count()));
        frame.fill(0.0);
        envelope.advance(&mut frame);
        assert!(frame.iter().all(|&gain| gain == 1.0));
    }
}
