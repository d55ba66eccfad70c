//! As much of STUN (RFC 8489) as tells whose a connectivity check is, and whether it is (RFC 8445).

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MAC: usize = 20;

/// Names a request, and the response to it.
pub type Transaction = [u8; 12];

/// What a binding message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    /// The response of somebody who has been reached.
    Success,
    Error,
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

    pub fn class(self) -> Class {
        match u16_at(self.0, 0) & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

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
