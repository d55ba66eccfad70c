//! SRTP (RFC 3711) with the one profile that every WebRTC peer has, `SRTP_AES128_CM_SHA1_80` (RFC 8827, section 6.5).
//!
//! Only RTP: what little RTCP there is stays in Python. The libraries there are would bring a TLS or URL stack along,
//! and allocate for each packet; the ciphers are libraries.

use std::collections::HashMap;

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;

/// Bytes of a master key with its salt.
pub const KEY: usize = 30;
/// Bytes that protection adds to a packet.
pub const TAG: usize = 10;

const FIXED_HEADER: usize = 12;
/// Packets that come so much later than the newest are not told from replays.
const WINDOW: u64 = 128;
/// So many streams of one sender are kept apart: a large room's. Then the one that was silent longest is forgotten.
const STREAMS: usize = 1024;

type Counter = ctr::CtrCore<Aes128, ctr::flavors::Ctr128BE>;

/// AES in counter mode.
fn apply_keystream(cipher: &Aes128, iv: [u8; 16], data: &mut [u8]) {
    let counter = Counter::inner_iv_init(cipher.clone(), &iv.into());
    StreamCipherCoreWrapper::from_core(counter).apply_keystream(data);
}

/// What is derived from a master key (section 4.3).
struct Keys {
    cipher: Aes128,
    salt: [u8; 14],
    mac: Hmac<Sha1>,
}

impl Keys {
    fn derive(master: &[u8; KEY]) -> Self {
        let (key, salt) = master.split_first_chunk::<16>().expect("a master key has 30 bytes");
        let prf = Aes128::new(key.into());
        let generate = |label: u8, out: &mut [u8]| {
            let mut iv = [0; 16];
            iv[..14].copy_from_slice(salt);
            iv[7] ^= label;
            apply_keystream(&prf, iv, out);
        };
        let (mut cipher, mut mac, mut salt) = ([0; 16], [0; 20], [0; 14]);
        generate(0, &mut cipher);
        generate(1, &mut mac);
        generate(2, &mut salt);
        let mac = Hmac::new_from_slice(&mac).expect("any length will do for HMAC");
        Self { cipher: Aes128::new(&cipher.into()), salt, mac }
    }

    /// Encrypts or decrypts a payload (section 4.1.1).
    fn crypt(&self, ssrc: u32, index: u64, payload: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        xor(&mut iv[4..8], &ssrc.to_be_bytes());
        xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
        apply_keystream(&self.cipher, iv, payload);
    }

    /// The authentication tag (section 4.2).
    fn tag(&self, packet: &[u8], index: u64) -> [u8; TAG] {
        let rollover = (index >> 16) as u32;
        let mac = self.mac.clone().chain_update(packet).chain_update(rollover.to_be_bytes());
        let mac = mac.finalize().into_bytes();
        *mac.first_chunk().expect("SHA-1 gives 20 bytes")
    }
}

fn xor(place: &mut [u8], with: &[u8]) {
    place.iter_mut().zip(with).for_each(|(place, with)| *place ^= with);
}

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
    keys: Keys,
    streams: HashMap<u32, Stream<T>>,
    packets: u64,
}

impl<T: Default> Receiver<T> {
    /// For packets protected with this master key and salt.
    pub fn new(master: &[u8; KEY]) -> Self {
        Self { keys: Keys::derive(master), streams: HashMap::new(), packets: 0 }
    }

    /// Decrypts `packet` in place and gives it without its tag, with what is known of its stream; `None` if it is not
    /// authentic, no RTP, or a replay.
    pub fn unprotect<'a>(&mut self, packet: &'a mut [u8]) -> Option<(&'a [u8], &mut T)> {
        let length = packet.len().checked_sub(TAG)?;
        let (plain, tag) = packet.split_at_mut(length);
        let begin = payload_begin(plain)?;
        let (sequence, ssrc) = (sequence_of(plain), ssrc_of(plain));
        let is_authentic = |index: &u64| bool::from(self.keys.tag(plain, *index)[..].ct_eq(tag));
        let index = match self.streams.get(&ssrc) {
            Some(stream) => stream
                .index_of(sequence)
                .filter(|index| !stream.is_replay(*index) && is_authentic(index))?,
            // Its first packets may have been lost, and the sequence number have wrapped since.
            None => [0, 1]
                .map(|rollover| rollover << 16 | u64::from(sequence))
                .into_iter()
                .find(is_authentic)?,
        };
        self.keys.crypt(ssrc, index, &mut plain[begin..]);
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
        Some((plain, &mut stream.known))
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
    keys: Keys,
    /// Of the packet sent last.
    index: Option<u64>,
}

impl Sender {
    /// Protects with this master key and salt.
    pub fn new(master: &[u8; KEY]) -> Self {
        Self { keys: Keys::derive(master), index: None }
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
        self.keys.crypt(ssrc_of(packet), index, &mut packet[begin..]);
        let tag = self.keys.tag(packet, index);
        packet.extend_from_slice(&tag);
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

fn ssrc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Receiver = super::Receiver<()>;

    const MASTER: [u8; KEY] = [7; KEY];

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

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|n| u8::from_str_radix(&text[2 * n..][..2], 16).unwrap())
    }

    #[test]
    fn keys_are_derived_as_in_the_rfc() {
        // RFC 3711, appendix B.3.
        let keys =
            Keys::derive(&hex("E1F97A0D3E018BE0D64FA32C06DE41390EC675AD498AFEEBB6960B3AABE6"));
        assert_eq!(keys.salt, hex("30CBBC08863D8C85D49DB34A9AE1"));
        let mac: [u8; 20] = hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
        let expected = Hmac::<Sha1>::new_from_slice(&mac).unwrap().chain_update(b"x").finalize();
        assert_eq!(keys.mac.clone().chain_update(b"x").finalize(), expected);
        let mut block = [0; 16];
        apply_keystream(&keys.cipher, [0; 16], &mut block);
        let mut same = [0; 16];
        let cipher = Aes128::new(&hex::<16>("C61E7A93744F39EE10734AFE3FF7A087").into());
        apply_keystream(&cipher, [0; 16], &mut same);
        assert_eq!(block, same);
    }

    #[test]
    fn what_was_changed_or_comes_twice_is_refused() {
        let (mut sender, mut receiver) = (Sender::new(&MASTER), Receiver::new(&MASTER));
        let sent = protected(&mut sender, 1, b"payload");
        for place in 0..sent.len() {
            let mut changed = sent.clone();
            changed[place] ^= 1;
            assert!(receiver.unprotect(&mut changed).is_none());
        }
        assert_eq!(receiver.unprotect(&mut sent.clone()).unwrap().0, packet(1, 1, b"payload"));
        assert!(receiver.unprotect(&mut sent.clone()).is_none());
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
            let mut receiver = Receiver::new(&MASTER);
            prop_assert!(receiver.unprotect(&mut data).is_none());
        }

        #[test]
        fn what_is_protected_comes_back(payload in prop::collection::vec(any::<u8>(), 0..1300), sequence: u16) {
            let (mut sender, mut receiver) = (Sender::new(&MASTER), Receiver::new(&MASTER));
            let mut sent = protected(&mut sender, sequence, &payload);
            let expected = packet(sequence, 1, &payload);
            prop_assert_eq!(receiver.unprotect(&mut sent).unwrap().0, &expected[..]);
        }
    }
}
