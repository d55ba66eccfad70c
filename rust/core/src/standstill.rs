//! Senders whose clock stands still while they pause: bots that stamp only what they say.
//!
//! When such a sender goes on, its packets are as late as its pause was long, and *stay* so. After a stall of the
//! network they are late as well, but come in a burst until they are punctual again. At the first packet nobody knows
//! which it is: so it is taken to be punctual on a clock that was set back ([`Standstill::suspect`]), and waits for the
//! playout delay like the first packet of any stream. A network has stalled if what follows makes up for half of the
//! lateness, which jitter does not.

use crate::time::{Moment, Stamp, Ticks, ms};

/// Packets that are less late need no explanation.
pub const LATE: Ticks = ms(80);
/// Nothing is known before so much has been sent since.
const DECIDES: Ticks = ms(60);
/// So many packets are held back at most until it is.
const HELD: usize = 32;

/// When a packet came, and its timestamp.
pub type Observation = (Moment, Stamp);

const NOTHING: Observation = (Moment(0), Stamp(0));

/// What the packets after a silence say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Open,
    /// The sender's clock stood still.
    ClockStood,
    /// The network held them up.
    NetworkStalled,
}

/// How far a sender's clock has been set forward for its standstills, and whether the last one was one.
#[derive(Debug, Default)]
pub struct Standstill {
    offset: Ticks,
    suspicion: Option<Suspicion>,
}

#[derive(Debug)]
struct Suspicion {
    jump: Ticks,
    held: [Observation; HELD],
    count: usize,
}

impl Standstill {
    /// What is to be added to timestamps.
    pub fn offset(&self) -> Ticks {
        self.offset
    }

    /// Whether it is not known yet what the last silence was.
    pub fn suspects(&self) -> bool {
        self.suspicion.is_some()
    }

    /// The next packet is `late` after a silence: its clock may have stood still.
    pub fn suspect(&mut self, late: Ticks) {
        self.offset += late;
        self.suspicion = Some(Suspicion { jump: late, held: [NOTHING; HELD], count: 0 });
    }

    /// Takes note of a packet while it suspects.
    pub fn hold(&mut self, packet: Observation) -> Verdict {
        let Some(Suspicion { jump, held, count }) = &mut self.suspicion else {
            return Verdict::Open;
        };
        held[*count] = packet;
        *count += 1;
        let (came, sent) = (packet.0 - held[0].0, packet.1 - held[0].1);
        let made_up_for = sent - came;
        if made_up_for >= *jump / 2 || *count == HELD && made_up_for > sent / 2 {
            Verdict::NetworkStalled
        } else if sent >= DECIDES.max(*jump) || *count == HELD {
            Verdict::ClockStood
        } else {
            Verdict::Open
        }
    }

    /// Ends the suspicion: by how much the packets' timestamps are set back, which is nothing if the clock stood
    /// still, and the packets, with the timestamps that they have then.
    pub fn settle(
        &mut self,
        verdict: Verdict,
    ) -> (Ticks, impl Iterator<Item = Observation> + use<>) {
        let Suspicion { jump, held, count } =
            self.suspicion.take().unwrap_or(Suspicion { jump: 0, held: [NOTHING; HELD], count: 0 });
        let back = if verdict == Verdict::NetworkStalled { jump } else { 0 };
        self.offset -= back;
        (back, held.into_iter().take(count).map(move |(at, timestamp)| (at, timestamp - back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(packets: impl IntoIterator<Item = (Ticks, Ticks)>) -> Verdict {
        let mut standstill = Standstill::default();
        standstill.suspect(ms(500));
        let verdicts =
            packets.into_iter().map(|(came, sent)| standstill.hold((Moment(came), Stamp(sent))));
        verdicts.into_iter().find(|verdict| *verdict != Verdict::Open).unwrap_or(Verdict::Open)
    }

    #[test]
    fn what_goes_on_at_its_pace_stood_still_and_what_comes_at_once_was_held_up() {
        let sent = |n: i64| ms(20 * n);
        assert_eq!(verdict((0..9).map(|n| (sent(n), sent(n)))), Verdict::Open);
        assert_eq!(verdict((0..99).map(|n| (sent(n), sent(n)))), Verdict::ClockStood);
        let jitter = |n: i64| ms((n + 1) * 37 % 80);
        assert_eq!(verdict((0..99).map(|n| (sent(n) + jitter(n), sent(n)))), Verdict::ClockStood);
        assert_eq!(verdict((0..13).map(|_| 0).zip((0..).map(sent))), Verdict::Open);
        assert_eq!(verdict((0..14).map(|_| 0).zip((0..).map(sent))), Verdict::NetworkStalled);
        assert_eq!(verdict((0..99).map(|n| (sent(n) / 3, sent(n)))), Verdict::NetworkStalled);
    }

    #[test]
    fn a_network_that_stalled_leaves_the_clock_as_it_was() {
        let mut standstill = Standstill::default();
        standstill.suspect(ms(500));
        standstill.hold((Moment(7), Stamp(ms(500))));
        let (back, held) = standstill.settle(Verdict::NetworkStalled);
        assert_eq!((back, held.collect::<Vec<_>>()), (ms(500), vec![(Moment(7), Stamp(0))]));
        assert_eq!(standstill.offset(), 0);
        standstill.suspect(ms(300));
        assert_eq!(standstill.settle(Verdict::ClockStood).0, 0);
        assert_eq!(standstill.offset(), ms(300));
    }
}
