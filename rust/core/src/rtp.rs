//! Reads RTP packets (RFC 3550, section 5.1) and the audio level in their header extension (RFC 6464, RFC 8285).

/// A packet, its payload borrowed from the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Audio level in −dBov, 127 being silence, where the sender gave one.
    pub audio_level: Option<u8>,
    /// What is carried, without padding.
    pub payload: &'a [u8],
}

const VERSION: u8 = 2;
const ONE_BYTE_HEADERS: u16 = 0xBEDE;
const RESERVED: u8 = 15;
const TWO_BYTE_HEADERS: u16 = 0x1000;

impl<'a> Packet<'a> {
    /// Reads `data`, which is not encrypted; `None` if it is no RTP. `level_extension` is the id that the session has
    /// given the audio level.
    pub fn parse(data: &'a [u8], level_extension: Option<u8>) -> Option<Self> {
        let (header, rest) = data.split_first_chunk::<12>()?;
        if header[0] >> 6 != VERSION {
            return None;
        }
        let mut rest = rest.get(4 * usize::from(header[0] & 0x0F)..)?;
        let mut audio_level = None;
        if header[0] & 0x10 != 0 {
            let (extension, after) = rest.split_first_chunk::<4>()?;
            let length = 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
            let (elements, after) = after.split_at_checked(length)?;
            let profile = u16::from_be_bytes([extension[0], extension[1]]);
            audio_level = level_extension
                .and_then(|id| element(elements, profile, id))
                .and_then(|element| element.first())
                .map(|level| level & 0x7F);
            rest = after;
        }
        if header[0] & 0x20 != 0 {
            let padding = usize::from(*rest.last()?);
            rest = rest.get(..rest.len().checked_sub(padding.max(1))?)?;
        }
        Some(Self {
            payload_type: header[1] & 0x7F,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            audio_level,
            payload: rest,
        })
    }
}

/// The element called `wanted` of a header extension.
fn element(mut elements: &[u8], profile: u16, wanted: u8) -> Option<&[u8]> {
    let two_bytes = profile & 0xFFF0 == TWO_BYTE_HEADERS;
    if profile != ONE_BYTE_HEADERS && !two_bytes {
        return None;
    }
    while let Some((&first, after)) = elements.split_first() {
        if first == 0 {
            elements = after;
            continue;
        }
        let (id, length, after) = if two_bytes {
            let (&length, after) = after.split_first()?;
            (first, usize::from(length), after)
        } else {
            if first >> 4 == RESERVED {
                // Whatever follows is not to be read (RFC 8285, section 4.2).
                return None;
            }
            (first >> 4, usize::from(first & 0x0F) + 1, after)
        };
        let (value, after) = after.split_at_checked(length)?;
        if id == wanted {
            return Some(value);
        }
        elements = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: [u8; 12] = [0x80, 0x80 | 111, 0x12, 0x34, 0, 0, 3, 192, 0, 0, 0, 7];

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut data = HEADER.to_vec();
        data[0] |= first;
        data.extend_from_slice(rest);
        data
    }

    #[test]
    fn a_plain_packet() {
        let data = packet(0, b"opus");
        let expected = Packet {
            payload_type: 111,
            sequence: 0x1234,
            timestamp: 960,
            ssrc: 7,
            audio_level: None,
            payload: b"opus",
        };
        assert_eq!(Packet::parse(&data, Some(1)), Some(expected));
    }

    #[test]
    fn sources_padding_and_extensions_are_skipped_and_the_level_is_found() {
        let level = |rest: &[u8], id| {
            let data = packet(0x10 | 0x20 | 1, &[&[9, 9, 9, 9], rest, b"opus\0\0\x03"].concat());
            let packet = Packet::parse(&data, Some(id)).unwrap();
            assert_eq!(packet.payload, b"opus");
            packet.audio_level
        };
        let one_byte = [0xBE, 0xDE, 0, 2, 0x31, b'a', b'b', 0, 0x10, 0x80 | 42, 0, 0];
        assert_eq!(level(&one_byte, 1), Some(42));
        assert_eq!(level(&one_byte, 2), None);
        let two_bytes = [0x10, 0, 0, 2, 3, 2, b'a', b'b', 1, 1, 127, 0];
        assert_eq!(level(&two_bytes, 1), Some(127));
        assert_eq!(level(&[0xAB, 0xCD, 0, 1, 0x10, 42, 0, 0], 1), None);
        assert_eq!(level(&[0xBE, 0xDE, 0, 1, 0xF0, 0, 0x10, 42], 1), None, "15 ends them");
    }

    #[test]
    fn what_is_no_rtp_is_none() {
        for data in [&HEADER[..11], &packet(1, b"abc"), &packet(0x20, b"\xff"), &[0; 12]] {
            assert_eq!(Packet::parse(data, None), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_their_bounds(
            first in 0x80u8..0xC0,
            data in prop::collection::vec(any::<u8>(), 11..80),
            extension in prop::option::of(any::<u8>()),
        ) {
            let data = [&[first], &data[..]].concat();
            if let Some(packet) = Packet::parse(&data, extension) {
                prop_assert!(packet.payload.len() <= data.len() - 12);
                prop_assert!(packet.audio_level.is_none_or(|level| level <= 127));
            }
        }
    }
}
