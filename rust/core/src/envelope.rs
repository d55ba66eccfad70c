//! By how much a limiter turns down, sample by sample: ahead of each peak, smoothly, and only slowly less.
//!
//! It counts in *reductions*, one less the gain: of nothing to do they are exactly zero, whatever is added up. The
//! largest of the look-ahead is held; it decays at the release's pace; two box filters that together are as long as the
//! look-ahead smooth it, so that it has come all the way when the peak arrives (two boxes make a triangle, whose slopes
//! have no corners to hear).
//!
//! Each of these steps is a loop over a whole frame that the compiler can make vectors of, but for the box filters'
//! running sums.

use crate::limiter::CEILING;

/// A reduction that has decayed to this is none any more.
const RELEASED: f32 = 0.001;
/// The decay is computed for so many samples at a time.
const BLOCK: usize = 16;

/// Reductions of one stream, a frame at a time.
pub struct Envelope {
    /// How many samples a reduction is held for.
    window: usize,
    /// For the samples of the window before this frame, then for the frame.
    wanted: Vec<f32>,
    held: Vec<f32>,
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
            held: vec![0.0; window - 1 + frame],
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

    /// Replaces the `peaks` of a frame by its gains.
    #[inline(always)]
    pub fn advance(&mut self, peaks: &mut [f32]) {
        let past = self.window - 1;
        for (wanted, &peak) in self.wanted[past..].iter_mut().zip(&*peaks) {
            *wanted = if peak > CEILING { 1.0 - CEILING / peak } else { 0.0 };
        }
        self.held.copy_from_slice(&self.wanted);
        hold(&mut self.held, self.window);
        let released = &mut self.held[..peaks.len()];
        release(released, &self.decay, &mut self.last);
        self.idle = match released.iter().rposition(|&reduction| reduction > 0.0) {
            Some(last) => released.len() - 1 - last,
            None => self.idle.saturating_add(released.len()),
        };
        let [first, second] = &mut self.boxes;
        first.smooth(released);
        second.smooth(released);
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
    for block in reductions.chunks_mut(BLOCK) {
        // A scan in steps that double: what decays by `n` samples at once has the decay of `n`.
        let mut scan = [0.0; BLOCK];
        scan[..block.len()].copy_from_slice(block);
        for step in [1, 2, 4, 8] {
            let before = scan;
            for n in step..BLOCK {
                scan[n] = larger(before[n], decay[step - 1] * before[n - step]);
            }
        }
        for (n, reduction) in block.iter_mut().enumerate() {
            *reduction = larger(scan[n], decay[n] * *last);
        }
        *last = block.last().copied().filter(|&last| last >= RELEASED).unwrap_or(0.0);
    }
}

impl BoxFilter {
    #[inline(always)]
    fn smooth(&mut self, values: &mut [f32]) {
        let Self { length, values: line, sum } = self;
        line[*length..].copy_from_slice(values);
        let scale = 1.0 / *length as f64;
        for ((out, &new), &old) in values.iter_mut().zip(&line[*length..]).zip(&*line) {
            *sum += f64::from(new) - f64::from(old);
            *out = (*sum * scale) as f32;
        }
        line.copy_within(values.len().., 0);
    }
}

/// Replaces each value by the largest of the `window` values that begin with it.
#[inline(always)]
fn hold(values: &mut [f32], window: usize) {
    let mut width = 1;
    while 2 * width <= window {
        raise(values, width);
        width *= 2;
    }
    raise(values, window - width);
}

/// Raises each value to the one that is `distance` later.
#[inline(always)]
fn raise(values: &mut [f32], distance: usize) {
    for n in 0..values.len().saturating_sub(distance) {
        values[n] = larger(values[n], values[n + distance]);
    }
}

/// Not `f32::max`, whose care for NaN costs instructions.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
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
