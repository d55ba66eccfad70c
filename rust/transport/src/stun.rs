//! As much of STUN (RFC 8489) as tells whose a connectivity check is, and as asks and answers whether somebody is there
//! (RFC 8445, RFC 7675).

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802A;
/// What a fingerprint is made different by.
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// Of a peer-reflexive candidate (RFC 8445, section 7.1.1), which is none here any more.
const REFLEXIVE: u32 = 110 << 24 | 0xFFFF << 8 | 255;
const MAC: usize = 20;

/// Names a request, and the response to it.
pub type Transaction = [u8; 12];

/// What a binding message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody is asked for an answer.
    Request,
    /// Nothing is asked for.
    Indication,
    /// The response of somebody who has been reached.
    Success,
    /// The response of somebody who does not want to be.
    Error,
}

/// Who decides which way is taken, and by which number a conflict over that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// It is us.
    pub controlling: bool,
    /// Ours.
    pub tie_breaker: u64,
}

/// A check of one that has a way already.
pub fn request(transaction: Transaction, username: &str, role: Role, password: &[u8]) -> Vec<u8> {
    let mut message = Writer::new(0x0001, transaction);
    message.add(USERNAME, username.as_bytes());
    message.add(PRIORITY, &REFLEXIVE.to_be_bytes());
    let kind = if role.controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
    message.add(kind, &role.tie_breaker.to_be_bytes());
    message.finish(password)
}

/// The answer to a check that came from `remote`.
pub fn response(transaction: Transaction, remote: SocketAddr, password: &[u8]) -> Vec<u8> {
    let mut message = Writer::new(0x0101, transaction);
    let port = remote.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let [high, low] = port.to_be_bytes();
    let mut address = vec![0, if remote.is_ipv4() { 1 } else { 2 }, high, low];
    let mask = COOKIE.iter().chain(&transaction);
    match remote.ip() {
        IpAddr::V4(ip) => address.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
        IpAddr::V6(ip) => address.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
    }
    message.add(XOR_MAPPED_ADDRESS, &address);
    message.finish(password)
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u16, transaction: Transaction) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(transaction);
        Self(bytes)
    }

    fn add(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.set_length(0);
    }

    /// With so many bytes to come.
    fn set_length(&mut self, more: usize) {
        let length = (self.0.len() + more - HEADER) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }

    fn finish(mut self, password: &[u8]) -> Vec<u8> {
        self.set_length(4 + MAC);
        let mut hmac = Hmac::<Sha1>::new_from_slice(password).expect("any length will do");
        hmac.update(&self.0);
        self.add(MESSAGE_INTEGRITY, &hmac.finalize().into_bytes());
        self.set_length(8);
        let fingerprint = crc32fast::hash(&self.0) ^ FINGERPRINT_XOR;
        self.add(FINGERPRINT, &fingerprint.to_be_bytes());
        self.0
    }
}

/// A binding message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// `None` if it is none.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let is_one = datagram.len() >= HEADER
            && u16_at(datagram, 0) & 0xFEEF == 0x0001
            && HEADER + usize::from(u16_at(datagram, 2)) == datagram.len()
            && datagram[4..8] == COOKIE;
        is_one.then_some(Self(datagram))
    }

    /// Which kind it is.
    pub fn class(self) -> Class {
        match u16_at(self.0, 0) & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// Of which exchange it is.
    pub fn transaction(self) -> Transaction {
        self.0[8..HEADER].try_into().expect("it has a header")
    }

    /// The username fragment of whom a check is for: what comes before the colon.
    pub fn ufrag(self) -> Option<&'a [u8]> {
        let (_, username) = self.attributes().find(|(at, _)| u16_at(self.0, *at) == USERNAME)?;
        username.split(|byte| *byte == b':').next()
    }

    /// Whether who knows `password` has made it.
    pub fn is_authentic(self, password: &[u8]) -> bool {
        let found = self.attributes().find(|(at, _)| u16_at(self.0, *at) == MESSAGE_INTEGRITY);
        let Some((at, mac)) = found.filter(|(_, mac)| mac.len() == MAC) else { return false };
        // It is made as though nothing came after it.
        let length = (at + 4 + MAC - HEADER) as u16;
        let mut hmac = Hmac::<Sha1>::new_from_slice(password).expect("any length will do");
        hmac.update(&self.0[..2]);
        hmac.update(&length.to_be_bytes());
        hmac.update(&self.0[4..at]);
        hmac.verify_slice(mac).is_ok()
    }

    /// Where each attribute begins, and its value.
    fn attributes(self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut next = HEADER;
        std::iter::from_fn(move || {
            let at = next;
            let value = self.0.get(at + 4..)?;
            let length = usize::from(u16_at(self.0, at + 2));
            next = at + 4 + length.next_multiple_of(4);
            Some((at, value.get(..length)?))
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769, section 2.1: a request of `evtj:h6vY`, with the password `VOkJxbRl1RmTxUk/WvJxBt`.
    pub const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020\
        000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    pub const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

    pub fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    #[test]
    fn the_request_of_the_rfc_is_authentic() {
        let mut request = bytes(REQUEST);
        let message = Message::parse(&request).unwrap();
        assert_eq!((message.class(), message.ufrag()), (Class::Request, Some(&b"evtj"[..])));
        assert!(message.is_authentic(PASSWORD));
        assert!(!message.is_authentic(b"another"));
        request[30] ^= 1;
        assert!(!Message::parse(&request).unwrap().is_authentic(PASSWORD));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let role = Role { controlling: true, tie_breaker: 7 };
        let asked = request([9; 12], "evtj:h6vY", role, PASSWORD);
        let message = Message::parse(&asked).unwrap();
        assert_eq!((message.class(), message.transaction()), (Class::Request, [9; 12]));
        assert_eq!(message.ufrag(), Some(&b"evtj"[..]));
        assert!(message.is_authentic(PASSWORD));
        let fingerprint = u32::from_be_bytes(asked[asked.len() - 4..].try_into().unwrap());
        assert_eq!(fingerprint ^ FINGERPRINT_XOR, crc32fast::hash(&asked[..asked.len() - 8]));
    }

    #[test]
    fn the_responses_of_the_rfc_have_the_same_addresses() {
        // RFC 5769, sections 2.2 and 2.3, but for the attribute SOFTWARE.
        let transaction = bytes("b7e7a701bc34d686fa87dfae").try_into().unwrap();
        for (remote, mapped) in [
            ("192.0.2.1:32853", "002000080001a147e112a643"),
            (
                "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
                "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
            ),
        ] {
            let answer = response(transaction, remote.parse().unwrap(), PASSWORD);
            assert_eq!(answer[HEADER..HEADER + mapped.len() / 2], bytes(mapped));
            assert!(Message::parse(&answer).unwrap().is_authentic(PASSWORD));
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_asked(mut data in prop::collection::vec(any::<u8>(), 0..200), whole: bool) {
            if whole && data.len() >= HEADER {
                let length = (data.len() - HEADER) as u16;
                data[..2].copy_from_slice(&[0, 1]);
                data[2..4].copy_from_slice(&length.to_be_bytes());
                data[4..8].copy_from_slice(&COOKIE);
            }
            if let Some(message) = Message::parse(&data) {
                message.ufrag();
                prop_assert!(!message.is_authentic(b"password"));
            }
        }
    }
}
