//! Tells whether a packet continues its stream, or its sender has started anew (after RFC 3550, appendix A.1).

use crate::opus;
use crate::time::{Moment, Ticks, ms};

/// A sequence number further off than this is not of the same stream.
const SEQUENCE_JUMP: i64 = 3000;
/// A timestamp further from its arrival than this is not of the same stream…
const CLOCK_JUMP: Ticks = ms(5000);
/// …and one as near as this, with a consecutive number, is.
const CONTINUES: Ticks = ms(1000);
/// So many numbers further on, packets may have been lost at the beginning of an utterance.
const FOLLOWS: i64 = 5;
/// Who was silent for so long has paused, or the network has stalled.
const SILENCE: Ticks = ms(120);

/// A packet as it came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// When it came.
    pub at: Moment,
}

impl Arrival {
    /// How far this is from `earlier`: in packets, and in ticks that the clocks disagree.
    fn since(self, earlier: Self) -> (i64, Ticks) {
        let packets = i64::from(self.sequence.wrapping_sub(earlier.sequence) as i16);
        let ticks = Ticks::from(self.timestamp.wrapping_sub(earlier.timestamp) as i32);
        (packets, (ticks - (self.at - earlier.at)).abs())
    }
}

/// What a packet is to the stream before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is of the stream.
    Continues,
    /// It is, and goes on where the stream was, though nothing came for a while.
    GoesOn,
    /// It is not; if the next one continues it, the sender has started anew.
    Stranger,
    /// It continues a stranger: a new stream has begun.
    StartsAnew,
}

/// The newest packet of a stream, and a stranger that may be the first of the next.
#[derive(Debug, Default)]
pub struct Sender {
    newest: Option<Arrival>,
    stranger: Option<Arrival>,
}

impl Sender {
    /// Judges a packet; `rewind` is how far back a newer packet's timestamp may go.
    pub fn judge(&mut self, packet: Arrival, rewind: Ticks) -> Verdict {
        let Some(newest) = self.newest else {
            self.newest = Some(packet);
            return Verdict::Continues;
        };
        let (packets, ticks) = packet.since(newest);
        let back = Ticks::from(newest.timestamp.wrapping_sub(packet.timestamp) as i32);
        let rewound = packets > 0 && back > rewind;
        // Its clock may have stood still while it paused: then it disagrees by any length of time.
        let goes_on =
            (1..=FOLLOWS).contains(&packets) && (-packets * opus::LONGEST..0).contains(&back);
        if goes_on || packets.abs() <= SEQUENCE_JUMP && ticks <= CLOCK_JUMP && !rewound {
            let silent = packet.at - newest.at >= SILENCE;
            if packets > 0 {
                self.newest = Some(packet);
            }
            return if goes_on && silent { Verdict::GoesOn } else { Verdict::Continues };
        }
        let follows = self.stranger.is_some_and(|stranger| {
            let (packets, ticks) = packet.since(stranger);
            packets == 1 && ticks <= CONTINUES
        });
        if follows {
            *self = Self { newest: Some(packet), stranger: None };
            Verdict::StartsAnew
        } else {
            self.stranger = Some(packet);
            Verdict::Stranger
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(sequence: u16, timestamp: u32, milliseconds: i64) -> Arrival {
        Arrival { sequence, timestamp, at: Moment(ms(milliseconds)) }
    }

    #[test]
    fn a_single_stranger_is_only_that_and_two_in_a_row_are_a_new_stream() {
        let mut sender = Sender::default();
        assert_eq!(sender.judge(arrival(65_535, u32::MAX, 0), 0), Verdict::Continues);
        assert_eq!(sender.judge(arrival(0, 959, 20), 0), Verdict::Continues);
        assert_eq!(sender.judge(arrival(30_000, 7, 21), 0), Verdict::Stranger);
        assert_eq!(sender.judge(arrival(1, 1919, 40), 0), Verdict::Continues);
        assert_eq!(sender.judge(arrival(40_000, 1_000_000_000, 60), 0), Verdict::Stranger);
        assert_eq!(sender.judge(arrival(40_001, 1_000_000_960, 80), 0), Verdict::StartsAnew);
        assert_eq!(sender.judge(arrival(40_002, 1_000_001_920, 100), 0), Verdict::Continues);
    }

    #[test]
    fn a_clock_that_stood_still_is_no_other_stream_however_long() {
        let mut sender = Sender::default();
        assert_eq!(sender.judge(arrival(7, 0, 0), 0), Verdict::Continues);
        assert_eq!(sender.judge(arrival(8, 960, 100), 0), Verdict::Continues);
        assert_eq!(sender.judge(arrival(9, 1920, 3_600_000), 0), Verdict::GoesOn);
        assert_eq!(sender.judge(arrival(12, 4800, 7_200_000), 0), Verdict::GoesOn);
        assert_eq!(sender.judge(arrival(13, 4_000_000, 9_000_000), 0), Verdict::Stranger);
    }

    #[test]
    fn what_comes_late_is_not_the_newest() {
        let mut sender = Sender::default();
        assert_eq!(sender.judge(arrival(10, 9600, 200), 0), Verdict::Continues);
        assert_eq!(sender.judge(arrival(9, 8640, 201), 0), Verdict::Continues);
        // Further back than a newer packet may go, seen from the newest; not from the one that came last.
        assert_eq!(sender.judge(arrival(11, 9000, 202), 0), Verdict::Stranger);
    }
}
