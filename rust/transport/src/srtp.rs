//! SRTP (RFC 3711): which packets are authentic, and no replays.

use std::collections::HashMap;

use crate::cipher::{Cipher, MasterKey};

const FIXED_HEADER: usize = 12;
/// Packets that come so much later than the newest are not told from replays.
const WINDOW: u64 = 128;
/// So many streams of one sender are kept apart: a large room's. Then the one that was silent longest is forgotten.
const STREAMS: usize = 1024;

/// One direction's state for one SSRC, and what the caller knows of it.
struct Stream<T> {
    known: T,
    /// The highest index so far.
    index: u64,
    /// Which of the indexes up to it have been seen, it being the lowest bit.
    seen: u128,
    /// How many packets of the sender's had come when its last one did.
    heard: u64,
}

impl<T> Stream<T> {
    /// The index of a packet (section 3.3.1), if it can have one.
    fn index_of(&self, sequence: u16) -> Option<u64> {
        let forward = sequence.wrapping_sub(self.index as u16) as i16;
        self.index.checked_add_signed(i64::from(forward))
    }

    fn is_replay(&self, index: u64) -> bool {
        let age = self.index.saturating_sub(index);
        index <= self.index && (age >= WINDOW || self.seen >> age & 1 == 1)
    }

    fn accept(&mut self, index: u64) {
        if index > self.index {
            let shift = index - self.index;
            self.seen = if shift < WINDOW { self.seen << shift } else { 0 } | 1;
            self.index = index;
        } else {
            self.seen |= 1 << (self.index - index);
        }
    }
}

/// Removes protection. For each stream, `T` is what the caller knows of it: all is found by one look for its SSRC.
pub struct Receiver<T = ()> {
    cipher: Cipher,
    streams: HashMap<u32, Stream<T>>,
    packets: u64,
}

impl<T: Default> Receiver<T> {
    /// For packets protected with this master key and salt.
    pub fn new(master: &MasterKey) -> Self {
        Self { cipher: Cipher::derive(master), streams: HashMap::new(), packets: 0 }
    }

    /// Decrypts `packet` in place and gives it without its tag, with what is known of its stream; `None` if it is not
    /// authentic, no RTP, or a replay.
    pub fn unprotect<'a>(&mut self, packet: &'a mut [u8]) -> Option<(&'a [u8], &mut T)> {
        let length = packet.len().checked_sub(self.cipher.tag_length())?;
        let begin = payload_begin(&packet[..length])?;
        let (sequence, ssrc) = (sequence_of(packet), ssrc_of(packet));
        let mut open = |index: &u64| self.cipher.open(packet, begin, *index);
        let index = match self.streams.get(&ssrc) {
            Some(stream) => stream
                .index_of(sequence)
                .filter(|index| !stream.is_replay(*index) && open(index))?,
            // Its first packets may have been lost, and the sequence number have wrapped since.
            None => [0, 1]
                .map(|rollover| rollover << 16 | u64::from(sequence))
                .into_iter()
                .find(|index| open(index))?,
        };
        self.packets += 1;
        if self.streams.len() == STREAMS && !self.streams.contains_key(&ssrc) {
            self.forget_the_most_silent();
        }
        let stream = self.streams.entry(ssrc).or_insert_with(|| Stream {
            known: T::default(),
            index,
            seen: 0,
            heard: 0,
        });
        stream.accept(index);
        stream.heard = self.packets;
        Some((&packet[..length], &mut stream.known))
    }

    /// What is known of the stream `ssrc`, if it has been heard.
    pub fn get_mut(&mut self, ssrc: u32) -> Option<&mut T> {
        self.streams.get_mut(&ssrc).map(|stream| &mut stream.known)
    }

    /// What is known of each stream, by SSRC.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.streams.iter_mut().map(|(&ssrc, stream)| (ssrc, &mut stream.known))
    }

    fn forget_the_most_silent(&mut self) {
        let silent = self.streams.iter().min_by_key(|(_, stream)| stream.heard);
        if let Some(ssrc) = silent.map(|(&ssrc, _)| ssrc) {
            self.streams.remove(&ssrc);
        }
    }
}

/// Adds protection, to the packets of one stream in order.
pub struct Sender {
    cipher: Cipher,
    /// Of the packet sent last.
    index: Option<u64>,
}

impl Sender {
    /// Protects with this master key and salt.
    pub fn new(master: &MasterKey) -> Self {
        Self { cipher: Cipher::derive(master), index: None }
    }

    /// Encrypts the RTP `packet` in place, and appends its tag.
    pub fn protect(&mut self, packet: &mut Vec<u8>) {
        let begin = payload_begin(packet).expect("an RTP packet of ours has a header");
        let sequence = sequence_of(packet);
        let index = match self.index {
            Some(last) => last + u64::from(sequence.wrapping_sub(last as u16)),
            None => u64::from(sequence),
        };
        self.index = Some(index);
        self.cipher.seal(packet, begin, index);
    }
}

/// Where the payload begins, after sources and header extension.
fn payload_begin(packet: &[u8]) -> Option<usize> {
    let first = *packet.get(..FIXED_HEADER)?.first()?;
    let mut begin = FIXED_HEADER + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        let extension = packet.get(begin..begin + 4)?;
        begin += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
    }
    (begin <= packet.len()).then_some(begin)
}

fn sequence_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

pub(crate) fn ssrc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Receiver = super::Receiver<()>;

    const MASTER: MasterKey = MasterKey::Counter([7; 30]);
    const MASTERS: [MasterKey; 3] =
        [MASTER, MasterKey::Gcm128([7; 28]), MasterKey::Gcm256([7; 44])];

    fn packet(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 111];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn protected(sender: &mut Sender, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = packet(sequence, 1, payload);
        sender.protect(&mut packet);
        packet
    }

    #[test]
    fn what_was_changed_or_comes_twice_is_refused() {
        for master in MASTERS {
            let (mut sender, mut receiver) = (Sender::new(&master), Receiver::new(&master));
            let sent = protected(&mut sender, 1, b"payload");
            for place in 0..sent.len() {
                let mut changed = sent.clone();
                changed[place] ^= 1;
                assert!(receiver.unprotect(&mut changed).is_none());
            }
            assert_eq!(receiver.unprotect(&mut sent.clone()).unwrap().0, packet(1, 1, b"payload"));
            assert!(receiver.unprotect(&mut sent.clone()).is_none());
        }
    }

    #[test]
    fn sequence_numbers_wrap_with_loss_and_reordering() {
        let (mut sender, mut receiver) = (Sender::new(&MASTER), Receiver::new(&MASTER));
        let sent: Vec<_> =
            (0u32..200_000).map(|n| protected(&mut sender, (n + 65_000) as u16, b"x")).collect();
        for pair in sent.chunks(3) {
            assert!(receiver.unprotect(&mut pair[pair.len() - 1].clone()).is_some());
            assert!(pair.len() < 2 || receiver.unprotect(&mut pair[0].clone()).is_some());
        }
    }

    #[test]
    fn a_stream_whose_beginning_was_lost_is_heard_though_it_has_wrapped() {
        let (mut sender, mut receiver) = (Sender::new(&MASTER), Receiver::new(&MASTER));
        let sent = [0xFFFF, 0, 1].map(|sequence| protected(&mut sender, sequence, b"x"));
        assert!(receiver.unprotect(&mut sent[1].clone()).is_some());
        assert!(receiver.unprotect(&mut sent[2].clone()).is_some());
        assert!(receiver.unprotect(&mut sent[0].clone()).is_some(), "late, but not a replay");
        assert!(receiver.unprotect(&mut sent[0].clone()).is_none());
    }

    #[test]
    fn streams_are_kept_apart_up_to_a_bound() {
        let mut receiver = Receiver::new(&MASTER);
        for ssrc in 0..2000 {
            let mut packet = packet(ssrc as u16, ssrc, b"x");
            Sender::new(&MASTER).protect(&mut packet);
            assert!(receiver.unprotect(&mut packet).is_some());
        }
        assert_eq!(receiver.streams.len(), STREAMS);
    }

    #[test]
    fn who_still_sends_is_not_forgotten() {
        let (mut sender, mut receiver) = (Sender::new(&MASTER), Receiver::new(&MASTER));
        let mut first = protected(&mut sender, 0, b"x");
        assert!(receiver.unprotect(&mut first.clone()).is_some());
        for other in 2..2000 {
            let mut packet = packet(0, other, b"x");
            Sender::new(&MASTER).protect(&mut packet);
            assert!(receiver.unprotect(&mut packet).is_some());
            let mut next = protected(&mut sender, other as u16, b"x");
            assert!(receiver.unprotect(&mut next).is_some());
        }
        assert!(receiver.unprotect(&mut first).is_none(), "it is still known as a replay");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(mut data in prop::collection::vec(any::<u8>(), 0..100)) {
            for master in MASTERS {
                prop_assert!(Receiver::new(&master).unprotect(&mut data).is_none());
            }
        }

        #[test]
        fn what_is_protected_comes_back(payload in prop::collection::vec(any::<u8>(), 0..1300), sequence: u16) {
            for master in MASTERS {
                let (mut sender, mut receiver) = (Sender::new(&master), Receiver::new(&master));
                let mut sent = protected(&mut sender, sequence, &payload);
                let expected = packet(sequence, 1, &payload);
                prop_assert_eq!(receiver.unprotect(&mut sent).unwrap().0, &expected[..]);
            }
        }
    }
}
