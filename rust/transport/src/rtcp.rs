//! RTCP (RFC 3550, section 6.4): what one side tells the other of what it has sent, and of what has come.

use crate::reception::Report;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const CNAME: u8 = 1;
/// Blocks of one packet.
const BLOCKS: usize = 31;

/// What a sender report says of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// The time of day, in 1/2³² s since 1900.
    pub ntp: u64,
    /// The same moment, by the stream's clock.
    pub timestamp: u32,
    /// Sent so far.
    pub packets: u32,
    /// Of payload.
    pub octets: u32,
}

/// Packets that tell everything; those of a sender begin with what it has sent. Each is a compound by itself.
pub fn reports(
    ssrc: u32,
    cname: &str,
    info: Option<SenderInfo>,
    received: &[Report],
) -> Vec<Vec<u8>> {
    let mut chunks = received.chunks(BLOCKS);
    let first = chunks.next().unwrap_or_default();
    let mut packets = vec![report(ssrc, cname, info, first)];
    packets.extend(chunks.map(|blocks| report(ssrc, cname, None, blocks)));
    packets
}

fn report(ssrc: u32, cname: &str, info: Option<SenderInfo>, blocks: &[Report]) -> Vec<u8> {
    let kind = if info.is_some() { SENDER_REPORT } else { RECEIVER_REPORT };
    let mut body = ssrc.to_be_bytes().to_vec();
    if let Some(info) = info {
        body.extend(info.ntp.to_be_bytes());
        for word in [info.timestamp, info.packets, info.octets] {
            body.extend(word.to_be_bytes());
        }
    }
    for block in blocks {
        body.extend(block.ssrc.to_be_bytes());
        let lost = block.lost as u32 & 0xFF_FFFF;
        body.extend((u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
        for word in [block.highest, block.jitter, block.last_report, block.delay] {
            body.extend(word.to_be_bytes());
        }
    }
    let mut packet = Vec::new();
    add(&mut packet, kind, blocks.len(), &body);
    // An item is its kind, its length and itself; a zero ends the list.
    let name = &cname.as_bytes()[..cname.len().min(255)];
    let mut chunk = ssrc.to_be_bytes().to_vec();
    chunk.extend([CNAME, name.len() as u8]);
    chunk.extend(name);
    chunk.push(0);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    add(&mut packet, SOURCE_DESCRIPTION, 1, &chunk);
    packet
}

/// The last packet of a sender: no more will come.
pub fn bye(ssrc: u32, cname: &str) -> Vec<u8> {
    let mut packet = report(ssrc, cname, None, &[]);
    add(&mut packet, BYE, 1, &ssrc.to_be_bytes());
    packet
}

fn add(packet: &mut Vec<u8>, kind: u8, count: usize, body: &[u8]) {
    packet.extend([0x80 | count as u8, kind]);
    packet.extend(((body.len() / 4) as u16).to_be_bytes());
    packet.extend(body);
}

/// Of each sender report of a compound: whose it is, and the middle of its time, by which it is referred to.
pub fn sender_reports(mut compound: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    std::iter::from_fn(move || {
        loop {
            let [first, kind, high, low, rest @ ..] = compound else { return None };
            let length = 4 * usize::from(u16::from_be_bytes([*high, *low]));
            let (is_one, kind) = (first >> 6 == 2, *kind);
            let body = rest.get(..length).filter(|_| is_one)?;
            compound = &rest[length..];
            if let (SENDER_REPORT, [a, b, c, d, _, _, e, f, g, h, ..]) = (kind, body) {
                let word = |bytes: [&u8; 4]| u32::from_be_bytes(bytes.map(|byte| *byte));
                return Some((word([a, b, c, d]), word([e, f, g, h])));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPORT: Report = Report {
        ssrc: 9,
        fraction_lost: 63,
        lost: -2,
        highest: 0x1_0007,
        jitter: 5,
        last_report: 0x1234_5678,
        delay: 65_536,
    };

    #[test]
    fn a_compound_reads_as_the_rfc_has_it() {
        let info = SenderInfo { ntp: 0x0102_0304_0506_0708, timestamp: 960, packets: 3, octets: 9 };
        let packets = reports(7, "name", Some(info), &[REPORT]);
        let expected = [
            &[0x81, 200, 0, 12, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8][..],
            &[0, 0, 3, 0xC0, 0, 0, 0, 3, 0, 0, 0, 9],
            &[0, 0, 0, 9, 63, 0xFF, 0xFF, 0xFE, 0, 1, 0, 7, 0, 0, 0, 5],
            &[0x12, 0x34, 0x56, 0x78, 0, 1, 0, 0],
            &[0x81, 202, 0, 3, 0, 0, 0, 7, 1, 4, b'n', b'a', b'm', b'e', 0, 0],
        ];
        // The name ends where a word does: another one of zeros follows the item.
        assert_eq!(packets, [expected.concat()]);
        assert_eq!(sender_reports(&packets[0]).collect::<Vec<_>>(), [(7, 0x0304_0506)]);
    }

    #[test]
    fn two_hundred_streams_take_several_packets() {
        let packets = reports(7, "name", None, &[REPORT; 200]);
        assert_eq!(packets.len(), 7);
        assert!(packets.iter().all(|packet| packet.len() < 1200 && packet[1] == 201));
        assert_eq!(bye(7, "name")[24..], [0x81, 203, 0, 1, 0, 0, 0, 7]);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = sender_reports(&data).count();
        }
    }
}
