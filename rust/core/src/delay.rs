//! How late packets come, and how long to hold them so that few come too late.
//!
//! A packet's *transit* is its arrival minus its timestamp: the network's delay plus a constant that nobody knows.
//! The smallest transit of the last two seconds stands for the undelayed network (so clock drift is followed); a
//! packet's *relative delay* is its transit above that. The largest relative delay of each half second goes into a
//! histogram that forgets, and a high quantile of it is the delay to play out at, as NetEq does it but with finer
//! bins and without rounding up to whole packets.

use crate::time::{Ticks, ms};

/// Bins of 5 ms; NetEq's are 20 ms wide.
const BIN: Ticks = ms(5);
/// The histogram ends at half a second; longer delays count in its last bin.
const BINS: usize = 100;
/// A bin's weight after half a second, NetEq's forgetting: half of it is gone after 20 s.
const FORGET: f32 = 0.983;
/// One half second in 33 may hold a packet later than the target.
const QUANTILE: f32 = 0.97;
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
    slice_start: Option<Ticks>,
    /// Smallest transit per slice, the current one first.
    minima: [Ticks; SLICES],
    peak: Ticks,
    weights: [f32; BINS],
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
            peak: 0,
            weights: [0.0; BINS],
            target: range.floor,
            jitter: 0.0,
            last_transit: None,
        }
    }

    /// Takes note of a packet that was stamped `timestamp` and arrived at `arrival`.
    pub fn observe(&mut self, arrival: Ticks, timestamp: Ticks) {
        let transit = arrival - timestamp;
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
        self.peak = self.peak.max(transit - self.undelayed());
    }

    fn end_slices(&mut self, passed: Ticks) {
        let bin = ((self.peak / BIN) as usize).min(BINS - 1);
        for weight in &mut self.weights {
            *weight *= FORGET;
        }
        self.weights[bin] += 1.0 - FORGET;
        self.peak = 0;
        self.target = self.quantile().clamp(self.range.floor, self.range.ceiling);
        let shift = (passed as usize).min(SLICES);
        self.minima.rotate_right(shift);
        self.minima[..shift].fill(Ticks::MAX);
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

    /// The relative delay that few slices exceed.
    fn quantile(&self) -> Ticks {
        let total: f32 = self.weights.iter().sum();
        let mut sum = 0.0;
        let bin = self.weights.iter().position(|weight| {
            sum += weight;
            sum >= QUANTILE * total
        });
        (bin.unwrap_or(BINS - 1) as Ticks + 1) * BIN
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::FRAME;

    fn steady(estimator: &mut Estimator, from: i64, packets: i64, delay: impl Fn(i64) -> Ticks) {
        for n in from..from + packets {
            estimator.observe(7_777 + n * FRAME + delay(n), n * FRAME);
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
    fn jitter_raises_the_target_to_its_peaks_and_not_beyond_the_ceiling() {
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 500, |n| ms(n * 37 % 90));
        assert!((ms(85)..=ms(100)).contains(&estimator.target()), "{}", estimator.target());
        steady(&mut estimator, 500, 2500, |n| ms(n * 37 % 900));
        assert_eq!(estimator.target(), ms(400));
    }

    #[test]
    fn a_lasting_rise_of_the_networks_delay_becomes_the_new_undelayed_after_two_seconds() {
        let mut estimator = Estimator::new(Range::default());
        steady(&mut estimator, 0, 200, |_| 0);
        steady(&mut estimator, 200, 126, |_| ms(100));
        assert_eq!(estimator.undelayed(), 7_777 + ms(100));
    }
}
