//! The jitter buffer: puts packets back into order and keeps them until they are due.
//!
//! It holds packets, not time: when to take one out is the [`receiver`](crate::receiver)'s decision. Buffers of
//! played packets are used again, so a steady stream allocates nothing.

use std::collections::VecDeque;

use crate::opus::{self, Header};
use crate::time::{Sequence, Stamp, Ticks};

/// So many packets are kept at least: a burst of those that came while nobody mixed.
const FEWEST: usize = 160;

/// A packet in order: counters extended so that they never wrap.
#[derive(Debug)]
pub struct Packet {
    /// RTP sequence number, extended.
    pub sequence: Sequence,
    /// RTP timestamp, extended.
    pub timestamp: Stamp,
    /// What the Opus header says.
    pub header: Header,
    /// RFC 6464 audio level in −dBov, 127 being silence, where the sender gave one.
    pub audio_level: Option<u8>,
    /// The Opus payload.
    pub payload: Vec<u8>,
}

/// What became of a packet that was offered to the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It was kept.
    Kept,
    /// It was kept, and the oldest was dropped to make room.
    Overflow,
    /// One of the same sequence number is here already.
    Duplicate,
}

/// Packets by sequence number, oldest first. A full buffer drops its oldest.
#[derive(Debug)]
pub struct JitterBuffer {
    capacity: usize,
    packets: VecDeque<Packet>,
    spare: Vec<Vec<u8>>,
}

impl JitterBuffer {
    /// A buffer with room for `longest` of the shortest packets there are.
    pub fn new(longest: Ticks) -> Self {
        let capacity = ((longest / opus::STEP) as usize).max(FEWEST);
        Self { capacity, packets: VecDeque::new(), spare: Vec::new() }
    }

    /// Copies a packet into its place.
    pub fn insert(
        &mut self,
        sequence: Sequence,
        timestamp: Stamp,
        header: Header,
        audio_level: Option<u8>,
        payload: &[u8],
    ) -> Inserted {
        let place = self.packets.partition_point(|packet| packet.sequence < sequence);
        if self.packets.get(place).is_some_and(|packet| packet.sequence == sequence) {
            return Inserted::Duplicate;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        let packet = Packet { sequence, timestamp, header, audio_level, payload: buffer };
        self.packets.insert(place, packet);
        if self.packets.len() <= self.capacity {
            return Inserted::Kept;
        }
        self.discard();
        Inserted::Overflow
    }

    /// The oldest packet.
    pub fn head(&self) -> Option<&Packet> {
        self.packets.front()
    }

    /// The one after the oldest.
    pub fn second(&self) -> Option<&Packet> {
        self.packets.get(1)
    }

    /// The newest packet.
    pub fn newest(&self) -> Option<&Packet> {
        self.packets.back()
    }

    /// Takes the oldest packet out; give its memory back with [`JitterBuffer::recycle`].
    pub fn pop(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// Drops the oldest packet.
    pub fn discard(&mut self) {
        if let Some(oldest) = self.pop() {
            self.recycle(oldest);
        }
    }

    /// Sets all timestamps back.
    pub fn set_back(&mut self, by: Ticks) {
        self.packets.iter_mut().for_each(|packet| packet.timestamp = packet.timestamp - by);
    }

    /// Keeps a packet's memory for a later one.
    pub fn recycle(&mut self, packet: Packet) {
        self.spare.push(packet.payload);
    }

    /// Drops every packet.
    pub fn clear(&mut self) {
        while let Some(packet) = self.pop() {
            self.recycle(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ms;
    use proptest::prelude::*;

    const HEADER: Header = Header { duration: 960, stereo: false, dtx: false };

    fn insert(buffer: &mut JitterBuffer, sequence: i64) -> Inserted {
        buffer.insert(
            Sequence(sequence),
            Stamp(sequence * 960),
            HEADER,
            None,
            &sequence.to_be_bytes(),
        )
    }

    #[test]
    fn a_full_buffer_drops_its_oldest() {
        let mut buffer = JitterBuffer::new(ms(400));
        for sequence in 0..160 {
            assert_eq!(insert(&mut buffer, sequence), Inserted::Kept);
        }
        assert_eq!(insert(&mut buffer, 160), Inserted::Overflow);
        assert_eq!(buffer.head().unwrap().sequence, Sequence(1));
    }

    #[test]
    fn there_is_room_for_as_long_as_the_delay_may_be_of_the_shortest_packets() {
        let mut buffer = JitterBuffer::new(ms(2000));
        assert!((0..800).all(|sequence| insert(&mut buffer, sequence) == Inserted::Kept));
    }

    proptest! {
        #[test]
        fn packets_come_out_in_order_and_once_whatever_order_they_came_in(
            sequences in prop::collection::vec(0i64..100, 0..300)
        ) {
            let mut buffer = JitterBuffer::new(ms(400));
            let mut expected = std::collections::BTreeSet::new();
            for &sequence in &sequences {
                let new = expected.insert(sequence);
                let inserted = insert(&mut buffer, sequence);
                prop_assert_eq!(inserted, if new { Inserted::Kept } else { Inserted::Duplicate });
            }
            for sequence in expected {
                let packet = buffer.pop().unwrap();
                prop_assert_eq!(packet.sequence, Sequence(sequence));
                prop_assert_eq!(&packet.payload[..], &sequence.to_be_bytes()[..]);
                buffer.recycle(packet);
            }
            prop_assert!(buffer.head().is_none());
        }
    }
}
