//! What a receiver report says of a stream (RFC 3550, section 6.4.1 and appendices A.1, A.3 and A.8).

/// Timestamps of Opus count 48 kHz (RFC 7587).
const CLOCK_RATE: f64 = 48_000.0;
/// A sequence number so much further on, or so much further back, is of a sender that has started anew, if the next one
/// follows it (appendix A.1).
const DROPOUT: i64 = 3000;
const MISORDER: i64 = 100;
const MOST_LOST: i64 = 0x7F_FFFF;
const LEAST_LOST: i64 = -0x80_0000;

/// One stream's block of a receiver report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whose packets.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost in all; below zero where packets were doubled.
    pub lost: i32,
    /// The highest sequence number, with its cycles.
    pub highest: u32,
    /// Interarrival jitter, in units of the timestamp.
    pub jitter: u32,
    /// The middle of the time of the sender's last report; 0 if there was none.
    pub last_report: u32,
    /// How long ago it came, in 1/65536 s.
    pub delay: u32,
}

/// Counts the packets of one stream.
#[derive(Debug)]
pub struct Reception {
    ssrc: u32,
    first: i64,
    highest: i64,
    received: i64,
    reported: (i64, i64),
    transit: Option<u32>,
    jitter: f64,
    /// The number that would follow one which did not belong.
    next: Option<u16>,
}

impl Reception {
    pub fn new(ssrc: u32, sequence: u16) -> Self {
        let first = i64::from(sequence);
        Self {
            ssrc,
            first,
            highest: first,
            received: 0,
            reported: (0, 0),
            transit: None,
            jitter: 0.0,
            next: None,
        }
    }

    /// A packet has come, at `arrival` seconds.
    pub fn add(&mut self, sequence: u16, timestamp: u32, arrival: f64) {
        let mut forward = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if !(-MISORDER..DROPOUT).contains(&forward) {
            if self.next.replace(sequence.wrapping_add(1)) != Some(sequence) {
                return;
            }
            *self = Self::new(self.ssrc, sequence);
            forward = 0;
        }
        self.received += 1;
        if forward < 0 {
            return;
        }
        self.highest += forward;
        // Differences are of 32 bits, like timestamps: only they count.
        let transit = ((arrival * CLOCK_RATE) as i64 as u32).wrapping_sub(timestamp);
        if let Some(last) = self.transit.replace(transit) {
            let difference = f64::from((transit.wrapping_sub(last) as i32).unsigned_abs());
            self.jitter += (difference - self.jitter) / 16.0;
        }
    }

    /// The block of a report that is made now.
    pub fn report(&mut self) -> Report {
        let expected = self.highest - self.first + 1;
        let (expected_since, received_since) =
            (expected - self.reported.0, self.received - self.reported.1);
        self.reported = (expected, self.received);
        let lost_since = (expected_since - received_since).max(0);
        Report {
            ssrc: self.ssrc,
            fraction_lost: (256 * lost_since / expected_since.max(1)).min(255) as u8,
            lost: (expected - self.received).clamp(LEAST_LOST, MOST_LOST) as i32,
            highest: self.highest as u32,
            jitter: self.jitter as u32,
            last_report: 0,
            delay: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_packet_is_lost_across_a_wrap() {
        let mut reception = Reception::new(7, 65_500);
        for n in (0u32..400).filter(|n| n % 4 != 3) {
            reception.add((65_500 + n) as u16, 960 * n, 0.02 * f64::from(n));
        }
        let report = reception.report();
        assert_eq!((report.ssrc, report.lost, report.fraction_lost), (7, 99, 63));
        assert_eq!(report.highest, 65_500 + 398);
        assert!(report.jitter <= 1);
        assert_eq!(reception.report().fraction_lost, 0);
    }

    #[test]
    fn jitter_is_the_mean_deviation_and_duplicates_are_negative_loss() {
        let mut reception = Reception::new(7, 0);
        for n in 0u32..400 {
            let late = if n % 2 == 0 { 0.0 } else { 0.01 };
            for _ in 0..2 {
                reception.add(n as u16, 960 * n, 0.02 * f64::from(n) + late);
            }
        }
        let report = reception.report();
        assert_eq!(report.lost, -400);
        assert!((200..=480).contains(&report.jitter), "{report:?}");
    }

    #[test]
    fn a_sender_that_starts_anew_has_lost_nothing_by_that() {
        let mut reception = Reception::new(7, 100);
        for n in 0u32..100 {
            reception.add((100 + n) as u16, 960 * n, 0.02 * f64::from(n));
        }
        reception.add(50_000, 0, 2.0);
        for n in 0u32..100 {
            reception.add((20_000 + n) as u16, 960 * n, 2.0 + 0.02 * f64::from(n));
        }
        let report = reception.report();
        // As in the RFC, the first of the new ones only raises the suspicion.
        assert_eq!((report.lost, report.fraction_lost, report.highest), (0, 0, 20_099));
    }

    #[test]
    fn timestamps_that_are_made_up_overflow_nothing() {
        let mut reception = Reception::new(7, 0);
        for n in 0u32..400 {
            reception.add(n as u16, n.wrapping_mul(0x7FFF_FFFF), f64::from(n));
        }
        assert!(reception.report().jitter <= 1 << 31);
    }
}
