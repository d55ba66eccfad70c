//! How late packets come, and how long to hold them so that few come too late.
//!
//! A packet's *transit* is its arrival minus its timestamp: the network's delay plus a constant that nobody knows.
//! The smallest transit of the last two seconds stands for the undelayed network (so clock drift is followed); a
//! packet's *relative delay* is its transit above that. Two histograms that forget tell the delay to play out at, the
//! larger of
//! * a high quantile of the largest delay of each half second, of packets that came in order: stalls and congestion,
//!   which delay many packets at once (NetEq's underrun optimizer, with finer bins and without its rounding up). One
//!   frame less of it is enough: at the end of a stall that is what the delay has become, and winning another frame by
//!   an edit is heard more than having to make one up in the next;
//! * the same quantile of all delays: jitter, which delays one packet here and there. Of few packets it is not known
//!   well, and each later correction is an edit of the audio: so it is taken to be larger, the fewer they are.

use crate::time::{FRAME, Moment, Stamp, Ticks, ms};

/// Bins of 5 ms; NetEq's are 20 ms wide.
const BIN: Ticks = ms(5);
/// The histograms end at two seconds, the longest delay there may be; longer ones count in their last bin.
const BINS: usize = 400;
/// A bin's weight after half a second with packets, NetEq's forgetting: half of it is gone after 20 s.
const FORGET: f32 = 0.983;
/// Of peaks, a single one above this quantile counts as long as there are no 33 others.
const QUANTILE: f32 = 0.97;
/// The quantile of all packets is taken to be so many standard errors above what it seems to be.
const MARGIN: f32 = 3.0;
/// It is never known worse than with so many packets beyond it: of the first, nothing else is known.
const FEWEST_BEYOND: f32 = 0.1;
/// The target rises when it is too low by this, and by a fifth…
const RISE: Ticks = ms(10);
/// …and falls when it is too high by this: each change of the delay is an edit of the audio.
const FALL: Ticks = ms(30);
/// A stall is forgotten by so much in half a second: slowly enough for each cut to find its pause.
const SINK: Ticks = ms(5);
/// Peaks are taken, and minima kept, by slices of this length.
const SLICE: Ticks = ms(500);
/// The undelayed network is the minimum over this many slices.
const SLICES: usize = 4;

/// The playout delay's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Never less: two packets, so that the packet after a lost one is usually there to repair it.
    pub floor: Ticks,
    /// Never more: what is later is skipped.
    pub ceiling: Ticks,
}

impl Default for Range {
    fn default() -> Self {
        Self { floor: ms(40), ceiling: ms(400) }
    }
}

/// Estimates the network's undelayed transit and the playout delay it calls for.
#[derive(Debug)]
pub struct Estimator {
    range: Range,
    slice_start: Option<Moment>,
    /// Smallest transit per slice, the current one first.
    minima: [Ticks; SLICES],
    /// Largest relative delay per slice, likewise.
    maxima: [Ticks; SLICES],
    /// Largest relative delay of the slice, of packets in order.
    peak: Ticks,
    peaks: Histogram,
    packets: Histogram,
    /// The delay that stalls call for.
    stall: Ticks,
    newest: Stamp,
    target: Ticks,
    jitter: f64,
    last_transit: Option<Ticks>,
}

impl Estimator {
    /// An estimator that has seen no packet.
    pub fn new(range: Range) -> Self {
        Self {
            range,
            slice_start: None,
            minima: [Ticks::MAX; SLICES],
            maxima: [0; SLICES],
            peak: 0,
            peaks: Histogram::default(),
            packets: Histogram::default(),
            stall: 0,
            newest: Stamp(Ticks::MIN),
            target: range.floor,
            jitter: 0.0,
            last_transit: None,
        }
    }

    /// Takes note of a packet that was stamped `timestamp` and arrived at `arrival`.
    pub fn observe(&mut self, arrival: Moment, timestamp: Stamp) {
        let transit = arrival.transit(timestamp);
        if let Some(last) = self.last_transit.replace(transit) {
            // RFC 3550, section 6.4.1.
            self.jitter += ((transit - last).abs() as f64 - self.jitter) / 16.0;
        }
        let slice_start = *self.slice_start.get_or_insert(arrival);
        let passed = (arrival - slice_start) / SLICE;
        if passed > 0 {
            self.end_slices(passed);
            self.slice_start = Some(slice_start + passed * SLICE);
        }
        self.minima[0] = self.minima[0].min(transit);
        let delay = transit - self.undelayed();
        self.maxima[0] = self.maxima[0].max(delay);
        self.packets.add(delay);
        if timestamp > self.newest {
            self.newest = timestamp;
            self.peak = self.peak.max(delay);
        }
    }

    fn end_slices(&mut self, passed: Ticks) {
        self.peaks.add(self.peak);
        self.peak = 0;
        let peaks = self.peaks.quantile(QUANTILE) - FRAME;
        self.stall = peaks.max(self.stall - SINK * passed);
        let packets = self.packets.upper_quantile(QUANTILE);
        let target = self.stall.max(packets).clamp(self.range.floor, self.range.ceiling);
        let rises =
            target >= self.target + RISE.max(self.target / 5) || target == self.range.ceiling;
        let falls = target <= self.target - FALL || target == self.range.floor;
        if rises || falls {
            self.target = target;
        }
        self.peaks.forget();
        self.packets.forget();
        let shift = (passed as usize).min(SLICES);
        self.minima.rotate_right(shift);
        self.minima[..shift].fill(Ticks::MAX);
        self.maxima.rotate_right(shift);
        self.maxima[..shift].fill(0);
    }

    /// The transit of an undelayed packet; of the newest packet while nothing else is known.
    pub fn undelayed(&self) -> Ticks {
        let minimum = *self.minima.iter().min().unwrap_or(&Ticks::MAX);
        if minimum == Ticks::MAX { self.last_transit.unwrap_or(0) } else { minimum }
    }

    /// The delay, relative to an undelayed packet, at which to play.
    pub fn target(&self) -> Ticks {
        self.target
    }

    /// The largest relative delay of the last two seconds.
    pub fn spread(&self) -> Ticks {
        self.maxima.into_iter().fold(0, Ticks::max)
    }

    /// The bounds of the playout delay.
    pub fn range(&self) -> Range {
        self.range
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Ticks {
        self.jitter as Ticks
    }
}

/// How often which delays were seen.
#[derive(Debug)]
struct Histogram {
    weights: [f32; BINS],
    /// Sum of the squared weights of everything seen.
    squares: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { weights: [0.0; BINS], squares: 0.0 }
    }
}

impl Histogram {
    fn add(&mut self, delay: Ticks) {
        self.weights[((delay / BIN) as usize).min(BINS - 1)] += 1.0;
        self.squares += 1.0;
    }

    /// Half a second more has been seen.
    fn forget(&mut self) {
        for weight in &mut self.weights {
            *weight *= FORGET;
        }
        self.squares *= FORGET * FORGET;
    }

    /// The delay that a `share` of what was seen does not exceed.
    fn quantile(&self, share: f32) -> Ticks {
        let wanted = share * self.weights.iter().sum::<f32>();
        let mut sum = 0.0;
        let bin = self.weights.iter().position(|weight| {
            sum += weight;
            sum >= wanted
        });
        (bin.unwrap_or(BINS - 1) as Ticks + 1) * BIN
    }

    /// The same and [`MARGIN`] standard errors more, were it of exponentially distributed delays: with `m` of them beyond
    /// a quantile, its standard error is `1 / √m` of their mean. Weighted ones are worth `(Σw)² / Σw²` (Kish's effective
    /// sample size).
    fn upper_quantile(&self, share: f32) -> Ticks {
        let sum = self.weights.iter().sum::<f32>();
        let beyond = (1.0 - share) * sum * sum / self.squares.max(1.0);
        let quantile = self.quantile(share) as f32;
        let mean = quantile / -(1.0 - share).ln();
        (quantile + MARGIN * mean / beyond.max(FEWEST_BEYOND).sqrt()) as Ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(estimator: &mut Estimator, from: i64, packets: i64, delay: impl Fn(i64) -> Ticks) {
        for n in from..from + packets {
            estimator.observe(Moment(7_777 + n * FRAME + delay(n)), Stamp(n * FRAME));
        }
    }

    #[test]
    fn a_punctual_stream_plays_at_the_floor() {
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 500, |_| 0);
        assert_eq!(estimator.target(), ms(40));
        assert_eq!(estimator.undelayed(), 7_777);
        assert_eq!(estimator.jitter(), 0);
    }

    #[test]
    fn jitter_raises_the_target_a_little_above_its_peaks_and_not_beyond_the_ceiling() {
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 500, |n| ms(n * 37 % 90));
        assert!((ms(90)..=ms(135)).contains(&estimator.target()), "{}", estimator.target());
        steady(&mut estimator, 500, 1000, |n| ms(n * 37 % 350));
        assert!((ms(340)..ms(400)).contains(&estimator.target()), "{}", estimator.target());
        steady(&mut estimator, 1500, 1500, |n| ms(n * 37 % 900));
        assert_eq!(estimator.target(), ms(400));
    }

    #[test]
    fn of_few_packets_less_is_known() {
        let margin = |packets| {
            let mut histogram = Histogram::default();
            (1..=packets).for_each(|n| histogram.add(ms(n * 37 % 90)));
            histogram.upper_quantile(QUANTILE) - histogram.quantile(QUANTILE)
        };
        assert!((ms(6)..ms(14)).contains(&margin(1500)), "{}", margin(1500));
        assert!((ms(54)..ms(72)).contains(&margin(50)), "{}", margin(50));
        assert!((ms(96)..ms(120)).contains(&margin(1)), "{}", margin(1));
    }

    #[test]
    fn an_early_stall_raises_the_target_at_once_to_a_frame_less_and_is_forgotten_slowly() {
        let mut estimator = Estimator::new(Range::default());
        let stalled = |n| if (600..610).contains(&n) { (610 - n) * FRAME } else { 0 };
        steady(&mut estimator, 0, 650, stalled);
        assert_eq!(estimator.target(), ms(200) + BIN - FRAME);
        let mut last = estimator.target();
        for second in 13..100 {
            steady(&mut estimator, second * 50, 50, |_| 0);
            let fallen = last - estimator.target();
            assert!((0..=FALL + 2 * SINK).contains(&fallen), "{fallen} in second {second}");
            last = estimator.target();
        }
        assert_eq!(last, ms(40));
    }

    #[test]
    fn a_single_stall_in_half_a_minute_is_let_be() {
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 1500, |_| 0);
        steady(&mut estimator, 1500, 60, |n| ms(0.max(200 - 20 * (n - 1500))));
        assert_eq!(estimator.target(), ms(40));
    }

    #[test]
    fn nothing_is_forgotten_while_nobody_sends() {
        let jitter = |n| ms(n * 37 % 90);
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 1500, jitter);
        let before = estimator.target();
        steady(&mut estimator, 31_500, 50, jitter);
        assert!((estimator.target() - before).abs() <= 2 * BIN, "{before} {}", estimator.target());
    }

    #[test]
    fn a_lasting_rise_of_the_networks_delay_becomes_the_new_undelayed_after_two_seconds() {
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 200, |_| 0);
        steady(&mut estimator, 200, 126, |_| ms(100));
        assert_eq!(estimator.undelayed(), 7_777 + ms(100));
    }
}
