//! Takes in what one connection receives.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use audiomixer_core::rtp::Packet;
use audiomixer_core::{Participant, lock};

use crate::cipher::{Cipher, MasterKey};
use crate::reception::{Reception, Report};
use crate::{rtcp, srtp};

/// Of streams that no route tells apart one is heard at a time: another not before it has been silent for so many seconds.
const SILENT: f64 = 0.2;

/// What has been agreed on for a connection.
pub struct Settings {
    /// The other side's SRTP master key and salt.
    pub key: MasterKey,
    /// The payload types that are Opus.
    pub payload_types: Vec<u8>,
    /// The id of the audio level's header extension.
    pub level_extension: Option<u8>,
}

/// Decrypts a connection's RTP, and hands it to participants by SSRC. Usable from any thread.
#[derive(Default)]
pub struct Inlet(Mutex<State>);

#[derive(Default)]
struct State {
    agreed: Option<Agreed>,
    /// Whose streams are known by their SSRC.
    routes: HashMap<u32, Participant>,
    /// Who has all others.
    rest: Option<Participant>,
    latch: Latch,
    refused: u64,
    authentic: u64,
    flooded: u64,
}

struct Agreed {
    receiver: srtp::Receiver<Stream>,
    control: Cipher,
    /// Index of the last compound of RTCP.
    last_control: Option<u32>,
    settings: Settings,
}

/// What is known of a stream beside its keys.
#[derive(Default)]
struct Stream {
    /// Whether its route has been looked up.
    routed: bool,
    participant: Option<Participant>,
    /// Of its Opus, if there was any.
    reception: Option<Reception>,
    /// The middle of the time of its sender's last report, and when that came.
    report: Option<(u32, f64)>,
}

/// Which of the streams without a route is heard.
#[derive(Default)]
struct Latch {
    ssrc: Option<u32>,
    heard: f64,
}

impl Latch {
    /// Whether `ssrc` is the one, or becomes it.
    fn holds(&mut self, ssrc: u32, arrival: f64) -> bool {
        let is_it = self.ssrc.is_none_or(|one| one == ssrc) || arrival - self.heard > SILENT;
        if is_it {
            *self = Self { ssrc: Some(ssrc), heard: arrival };
        }
        is_it
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing: it is neither RTP nor RTCP, or comes before keys are agreed on. Somebody else has to look at it.
    Not,
    /// It was no packet of the other side's, or has come before.
    Refused,
    /// It was the other side's.
    Authentic {
        /// Its stream.
        ssrc: u32,
    },
}

/// Whether a datagram is RTP or SRTP, and no RTCP (RFC 7983, RFC 5761).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..96).contains(&(second & 0x7F)))
}

/// Whether it is RTCP or SRTCP.
pub(crate) fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if (64..96).contains(&(second & 0x7F)))
}

impl Inlet {
    /// Media can be decrypted from now on.
    pub fn agree(&self, settings: Settings) {
        let receiver = srtp::Receiver::new(&settings.key);
        let control = Cipher::derive_for_control(&settings.key);
        self.state().agreed = Some(Agreed { receiver, control, last_control: None, settings });
    }

    /// Hands the packets of `ssrc`, or of all that have no route of their own, to `participant`, or to nobody, and then
    /// there is no report on them any more.
    pub fn route(&self, ssrc: Option<u32>, participant: Option<Participant>) {
        let state = &mut *self.state();
        let Some(ssrc) = ssrc else {
            state.rest = participant;
            return;
        };
        match participant {
            Some(participant) => state.routes.insert(ssrc, participant),
            None => state.routes.remove(&ssrc),
        };
        // It is looked up anew, and reported on from now on.
        if let Some(stream) = state.agreed.as_mut().and_then(|agreed| agreed.receiver.get_mut(ssrc))
        {
            *stream = Stream::default();
        }
    }

    /// Takes in a datagram that came at `arrival` seconds, which is decrypted in place.
    pub fn take(&self, datagram: &mut [u8], arrival: f64) -> Taken {
        self.state().take(datagram, arrival)
    }

    /// A block for each stream that is heard, for a receiver report that is made at `now` seconds.
    pub fn reports(&self, now: f64) -> Vec<Report> {
        let State { agreed, latch, .. } = &mut *self.state();
        let streams = agreed.iter_mut().flat_map(|agreed| agreed.receiver.iter_mut());
        streams
            .filter(|(ssrc, stream)| stream.participant.is_some() || latch.ssrc == Some(*ssrc))
            .filter_map(|(_, stream)| {
                let report = stream.reception.as_mut()?.report();
                let (last_report, came) = stream.report.unwrap_or((0, now));
                let delay = ((now - came) * 65_536.0) as u32;
                Some(Report { last_report, delay, ..report })
            })
            .collect()
    }

    /// Packets that were not authentic, or replays.
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// Packets and checks that were authentic: whether there are more proves that the other side is there.
    pub fn authentic(&self) -> u64 {
        self.state().authentic
    }

    /// What came and was left out, as there was too much of it.
    pub fn flooded(&self) -> u64 {
        self.state().flooded
    }

    /// Something else has come that only the other side can have made.
    pub(crate) fn prove(&self) {
        self.state().authentic += 1;
    }

    pub(crate) fn leave_out(&self) {
        self.state().flooded += 1;
    }

    /// How many streams are expected.
    pub(crate) fn streams(&self) -> usize {
        self.state().routes.len() + 1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    fn take(&mut self, datagram: &mut [u8], arrival: f64) -> Taken {
        if is_rtcp(datagram) {
            return self.take_control(datagram, arrival);
        }
        let Self { agreed, routes, rest, latch, .. } = self;
        let Some(Agreed { receiver, settings, .. }) = agreed.as_mut().filter(|_| is_rtp(datagram))
        else {
            return Taken::Not;
        };
        let Some((plain, stream)) = receiver.unprotect(datagram) else {
            self.refused += 1;
            return Taken::Refused;
        };
        self.authentic += 1;
        let ssrc = srtp::ssrc_of(plain);
        let taken = Taken::Authentic { ssrc };
        let Some(packet) = Packet::parse(plain, settings.level_extension) else { return taken };
        if !stream.routed {
            stream.routed = true;
            stream.participant = routes.get(&packet.ssrc).cloned();
        }
        let is_opus = settings.payload_types.contains(&packet.payload_type);
        // What else is sent under the same SSRC (padding to probe the network, tones) is counted in the same sequence.
        if !is_opus && stream.reception.is_none() {
            return taken;
        }
        let before = latch.ssrc;
        if stream.participant.is_none() && !latch.holds(packet.ssrc, arrival) {
            return taken;
        }
        if stream.participant.is_none() && before != latch.ssrc {
            stream.reception = None;
        }
        let (sequence, timestamp) = (packet.sequence, packet.timestamp);
        stream
            .reception
            .get_or_insert_with(|| Reception::new(packet.ssrc, sequence))
            .add(sequence, timestamp, arrival);
        if let Some(participant) = stream.participant.as_ref().or(rest.as_ref()) {
            let payload = if is_opus { packet.payload } else { &[] };
            // Who has left hears of it from elsewhere.
            let _ = participant.push_rtp(sequence, timestamp, payload, arrival, packet.audio_level);
        }
        taken
    }
}

impl State {
    /// Takes in a compound of RTCP: when senders reported is told in reports on them.
    fn take_control(&mut self, datagram: &mut [u8], arrival: f64) -> Taken {
        let Some(agreed) = &mut self.agreed else { return Taken::Not };
        let Some((compound, index)) = agreed.control.open_control(datagram) else {
            self.refused += 1;
            return Taken::Refused;
        };
        // What is overtaken is out of date.
        if agreed.last_control.is_some_and(|last| index <= last) {
            self.refused += 1;
            return Taken::Refused;
        }
        agreed.last_control = Some(index);
        self.authentic += 1;
        for (ssrc, time) in rtcp::sender_reports(compound) {
            if let Some(stream) = agreed.receiver.get_mut(ssrc) {
                stream.report = Some((time, arrival));
            }
        }
        let [_, _, _, _, a, b, c, d, ..] = *compound else { return Taken::Refused };
        Taken::Authentic { ssrc: u32::from_be_bytes([a, b, c, d]) }
    }
}

#[cfg(test)]
mod tests {
    use audiomixer_core::Mixer;

    use super::*;
    use crate::cipher::MasterKey;
    use crate::srtp::Sender;

    const KEYS: MasterKey = MasterKey::Counter([7; 30]);
    const OPUS: u8 = 111;

    /// An inlet for one participant, and what its other side sends.
    struct Talk {
        inlet: Inlet,
        participant: Participant,
    }

    impl Talk {
        fn new() -> Self {
            let mixer = Mixer::new(48_000, 2, 0.04, 0.4).unwrap();
            let (inlet, participant) = (Inlet::default(), mixer.add_participant("alice").unwrap());
            inlet.agree(Settings { key: KEYS, payload_types: vec![OPUS], level_extension: None });
            inlet.route(None, Some(participant.clone()));
            Self { inlet, participant }
        }

        fn send(&self, sender: &mut Sender, ssrc: u32, kind: u8, sequence: u16, payload: &[u8]) {
            let mut packet = vec![0x80, kind];
            packet.extend(sequence.to_be_bytes());
            packet.extend((960 * u32::from(sequence)).to_be_bytes());
            packet.extend(ssrc.to_be_bytes());
            packet.extend(payload);
            sender.protect(&mut packet);
            let taken = self.inlet.take(&mut packet, 0.02 * f64::from(sequence));
            assert!(matches!(taken, Taken::Authentic { ssrc: s } if s == ssrc));
        }
    }

    #[test]
    fn of_two_streams_without_a_route_one_is_heard_until_it_is_silent() {
        let talk = Talk::new();
        let mut senders = [Sender::new(&KEYS), Sender::new(&KEYS)];
        for sequence in 0..50 {
            for (ssrc, sender) in (1..).zip(&mut senders) {
                talk.send(sender, ssrc, OPUS, sequence, &[0xF8, 0xFF, 0xFE]);
            }
        }
        assert_eq!(
            (talk.participant.stats().received, talk.participant.stats().discarded),
            (50, 0)
        );
        assert_eq!(
            talk.inlet.reports(0.0).iter().map(|report| report.ssrc).collect::<Vec<_>>(),
            [1]
        );
        for sequence in 50..100 {
            talk.send(&mut senders[1], 2, OPUS, sequence, &[0xF8, 0xFF, 0xFE]);
        }
        assert_eq!(talk.participant.stats().received, 90);
        let reports = talk.inlet.reports(0.0);
        assert_eq!((reports.len(), reports[0].ssrc, reports[0].lost), (1, 2, 0));
    }

    #[test]
    fn what_is_no_opus_has_a_place_in_the_sequence_of_a_stream_that_is() {
        let talk = Talk::new();
        let mut sender = Sender::new(&KEYS);
        talk.send(&mut sender, 1, 8, 0, b"PCMA");
        assert!(talk.inlet.reports(0.0).is_empty());
        for sequence in 1..101 {
            let kind = if sequence % 2 == 0 { 126 } else { OPUS };
            talk.send(&mut sender, 1, kind, sequence, &[0xF8, 0xFF, 0xFE]);
        }
        let stats = talk.participant.stats();
        assert_eq!((stats.received, stats.lost, stats.discarded), (100, 0, 0));
        assert_eq!((talk.inlet.reports(0.0)[0].lost, talk.inlet.reports(0.0)[0].highest), (0, 100));
    }
}
