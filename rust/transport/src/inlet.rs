//! Takes in what one connection receives.

use std::sync::{Mutex, MutexGuard};

use audiomixer_core::Participant;
use audiomixer_core::rtp::Packet;

use crate::reception::{Reception, Report};
use crate::srtp;

/// Streams that are reported on; a sender that makes up more gets no reports of the first ones.
const REPORTED: usize = 256;

/// What has been agreed on for a connection.
pub struct Settings {
    /// The other side's SRTP master key and salt.
    pub key: [u8; srtp::KEY],
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
    agreed: Option<(srtp::Receiver, Settings)>,
    /// By SSRC; `None` is for all others.
    routes: Vec<(Option<u32>, Participant)>,
    /// The newest last.
    receptions: Vec<Reception>,
    refused: u64,
    authentic: u64,
    noticed: u64,
}

/// Whether a datagram is RTP or SRTP, and no RTCP (RFC 7983, RFC 5761).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..96).contains(&(second & 0x7F)))
}

impl Inlet {
    /// Media can be decrypted from now on.
    pub fn agree(&self, settings: Settings) {
        self.state().agreed = Some((srtp::Receiver::new(&settings.key), settings));
    }

    /// Hands the packets of `ssrc`, or of all that have no route of their own, to `participant`, or to nobody, and then
    /// there is no report on them any more.
    pub fn route(&self, ssrc: Option<u32>, participant: Option<Participant>) {
        let mut state = self.state();
        state.routes.retain(|(other, _)| *other != ssrc);
        match participant {
            Some(participant) => state.routes.push((ssrc, participant)),
            None => state.receptions.retain(|reception| Some(reception.ssrc()) != ssrc),
        }
    }

    /// Takes in a datagram that came at `arrival` seconds, which is decrypted in place. False if it is no RTP, or comes
    /// before keys are agreed on: somebody else has to look at it.
    pub fn take(&self, datagram: &mut [u8], arrival: f64) -> bool {
        self.state().take(datagram, arrival)
    }

    /// A block for each stream there is, for a receiver report that is made now.
    pub fn reports(&self) -> Vec<Report> {
        self.state().receptions.iter_mut().map(Reception::report).collect()
    }

    /// Packets that were not authentic, or replays.
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// RTP packets that were authentic: whether there are more proves that the other side is there.
    pub fn authentic(&self) -> u64 {
        self.state().authentic
    }

    /// What else came from the other side's address: whether there is more suggests so.
    pub fn noticed(&self) -> u64 {
        self.state().noticed
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn notice(&self) {
        self.state().noticed += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds an inlet")
    }
}

impl State {
    fn take(&mut self, datagram: &mut [u8], arrival: f64) -> bool {
        let Some((receiver, settings)) = self.agreed.as_mut().filter(|_| is_rtp(datagram)) else {
            return false;
        };
        let Some(plain) = receiver.unprotect(datagram) else {
            self.refused += 1;
            return true;
        };
        self.authentic += 1;
        let packet = Packet::parse(plain, settings.level_extension)
            .filter(|packet| settings.payload_types.contains(&packet.payload_type));
        let Some(packet) = packet else {
            return true;
        };
        let ssrc = Some(packet.ssrc);
        let route = |wanted| self.routes.iter().find(|(ssrc, _)| *ssrc == wanted);
        let route = route(ssrc).or_else(|| route(None));
        let reception = match self.receptions.iter().position(|r| r.ssrc() == packet.ssrc) {
            Some(place) => &mut self.receptions[place],
            None => {
                // One stream follows another, where they are not told apart by their route.
                if route.is_none_or(|(ssrc, _)| ssrc.is_none()) {
                    let routes = &self.routes;
                    self.receptions
                        .retain(|r| routes.iter().any(|(ssrc, _)| *ssrc == Some(r.ssrc())));
                }
                if self.receptions.len() == REPORTED {
                    self.receptions.remove(0);
                }
                self.receptions.push(Reception::new(packet.ssrc, packet.sequence));
                self.receptions.last_mut().expect("one was pushed just now")
            }
        };
        reception.add(packet.sequence, packet.timestamp, arrival);
        if let Some((_, participant)) = route {
            let (sequence, timestamp) = (packet.sequence, packet.timestamp);
            // Who has left hears of it from elsewhere.
            let _ = participant.push_rtp(
                sequence,
                timestamp,
                packet.payload,
                arrival,
                packet.audio_level,
            );
        }
        true
    }
}
