//! Sends packets that are encoded already, to one connection or to many.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use audiomixer_core::lock;

use crate::cipher::MasterKey;
use crate::port::Port;
use crate::srtp;

/// Timestamps of Opus count 48 kHz (RFC 7587).
const CLOCK_RATE: f64 = 48_000.0;
const LONGEST: usize = 1500;
const FIRST_OF_TALKSPURT: u8 = 0x80;

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Sent,
    /// It was dropped: nothing can be sent yet, or the port is full.
    Dropped,
    /// Encrypted, but there is no port to send it by: the caller has to.
    Unsent(Vec<u8>),
}

/// Sends one stream of packets to one connection. Usable from any thread.
#[derive(Default)]
pub struct Outlet(Mutex<State>);

#[derive(Default)]
struct State {
    open: Option<Open>,
    counts: Counts,
    /// When the last packet was sent.
    sent: Option<Instant>,
}

struct Open {
    sender: srtp::Sender,
    port: Option<Arc<Port>>,
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    /// Added to the timestamps: a stream begins anywhere (RFC 3550, section 5.1).
    offset: u32,
    packet: Vec<u8>,
}

/// What a sender report says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Packets sent.
    pub packets: u32,
    /// Bytes of payload in them.
    pub octets: u32,
    /// The timestamp as of now: that of the last one, and as much as has passed since.
    pub timestamp: u32,
    /// Packets that the port did not take, or that were dropped before.
    pub dropped: u64,
}

impl Outlet {
    /// Begins to send, through `port` if there is one. `start` is where sequence numbers and timestamps begin.
    pub fn open(
        &self,
        key: &MasterKey,
        ssrc: u32,
        payload_type: u8,
        start: (u16, u32),
        port: Option<Arc<Port>>,
    ) {
        self.state().open = Some(Open {
            sender: srtp::Sender::new(key),
            port,
            payload_type,
            ssrc,
            sequence: start.0,
            offset: start.1,
            packet: Vec::with_capacity(LONGEST),
        });
    }

    /// Sends through another port from now on, or through none.
    pub fn redirect(&self, port: Option<Arc<Port>>) {
        if let Some(open) = &mut self.state().open {
            open.port = port;
        }
    }

    /// Sends nothing any more.
    pub fn close(&self) {
        self.state().open = None;
    }

    /// Sends `payload`, whose `timestamp` counts from any beginning.
    pub fn send(&self, payload: &[u8], timestamp: u32) -> Sent {
        let State { open, counts, sent } = &mut *self.state();
        *sent = Some(Instant::now());
        open.as_mut().map_or(Sent::Dropped, |open| open.send(payload, timestamp, counts))
    }

    /// So many packets were dropped before they got here.
    pub fn miss(&self, packets: u64) {
        self.state().counts.dropped += packets;
    }

    /// What was sent so far.
    pub fn counts(&self) -> Counts {
        let State { counts, sent, .. } = &*self.state();
        let passed = sent.map_or(0.0, |sent| sent.elapsed().as_secs_f64() * CLOCK_RATE);
        Counts { timestamp: counts.timestamp.wrapping_add(passed as u32), ..*counts }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Open {
    fn send(&mut self, payload: &[u8], timestamp: u32, counts: &mut Counts) -> Sent {
        let timestamp = timestamp.wrapping_add(self.offset);
        let marker = if counts.packets == 0 { FIRST_OF_TALKSPURT } else { 0 };
        self.packet.clear();
        self.packet.extend([0x80, self.payload_type | marker]);
        self.packet.extend(self.sequence.to_be_bytes());
        self.packet.extend(timestamp.to_be_bytes());
        self.packet.extend(self.ssrc.to_be_bytes());
        self.packet.extend(payload);
        self.sender.protect(&mut self.packet);
        self.sequence = self.sequence.wrapping_add(1);
        let sent = match &self.port {
            None => Sent::Unsent(self.packet.clone()),
            Some(port) => match port.send(&self.packet) {
                Ok(_) => Sent::Sent,
                Err(_) => Sent::Dropped,
            },
        };
        if sent == Sent::Dropped {
            counts.dropped += 1;
        } else {
            counts.packets = counts.packets.wrapping_add(1);
            counts.octets = counts.octets.wrapping_add(payload.len() as u32);
            counts.timestamp = timestamp;
        }
        sent
    }
}

/// Sends the same packets to many outlets, each with something, `T`, by which the caller knows it.
pub struct Fanout<T>(Mutex<Vec<(Arc<Outlet>, T)>>);

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Fanout<T> {
    /// Begins to send to an outlet.
    pub fn add(&self, outlet: Arc<Outlet>, tag: T) {
        self.outlets().push((outlet, tag));
    }

    /// Ceases to; what it had.
    pub fn remove(&self, outlet: &Arc<Outlet>) -> Option<T> {
        let mut outlets = self.outlets();
        let place = outlets.iter().position(|(other, _)| Arc::ptr_eq(other, outlet))?;
        Some(outlets.swap_remove(place).1)
    }

    /// So many packets could not even be tried: they are counted for all.
    pub fn miss(&self, packets: u64) {
        self.outlets().iter().for_each(|(outlet, _)| outlet.miss(packets));
    }

    /// Sends `payload` to all; calls `unsent` with what has no port to be sent by.
    pub fn send(&self, payload: &[u8], timestamp: u32, mut unsent: impl FnMut(&T, Vec<u8>)) {
        for (outlet, tag) in self.outlets().iter() {
            if let Sent::Unsent(packet) = outlet.send(payload, timestamp) {
                unsent(tag, packet);
            }
        }
    }

    fn outlets(&self) -> MutexGuard<'_, Vec<(Arc<Outlet>, T)>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_packet_goes_to_all_who_listen_and_reads_as_it_was_sent() {
        let receivers: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let fanout = Fanout::default();
        let mut outlets = Vec::new();
        for (n, receiver) in receivers.iter().enumerate() {
            let outlet = Arc::new(Outlet::default());
            assert_eq!(outlet.send(b"early", 0), Sent::Dropped);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(receiver.local_addr().unwrap()).unwrap();
            let key = MasterKey::Counter([n as u8; 30]);
            outlet.open(&key, 7, 111, (u16::MAX, u32::MAX), Some(Arc::new(Port(socket))));
            fanout.add(Arc::clone(&outlet), n);
            outlets.push(outlet);
        }
        assert_eq!(fanout.remove(&outlets[1]), Some(1));
        for n in 0..2 {
            fanout.send(b"opus", 960 * n, |_, _| panic!("all have a port"));
        }
        let mut buffer = [0; LONGEST];
        for n in [0, 2] {
            let mut srtp = srtp::Receiver::<()>::new(&MasterKey::Counter([n as u8; 30]));
            for expected in [(0xFFFF, u32::MAX, 0x80), (0, 959, 0)] {
                let length = receivers[n].recv(&mut buffer).unwrap();
                let (plain, ()) = srtp.unprotect(&mut buffer[..length]).unwrap();
                let packet = audiomixer_core::rtp::Packet::parse(plain, None).unwrap();
                assert_eq!((packet.sequence, packet.timestamp, plain[1] & 0x80), expected);
                assert_eq!(packet.payload, b"opus");
            }
            outlets[n].close();
            let counts = outlets[n].counts();
            assert_eq!((counts.packets, counts.octets, counts.dropped), (2, 8, 0));
            assert_eq!(outlets[n].send(b"opus", 0), Sent::Dropped);
        }
        receivers[1].set_nonblocking(true).unwrap();
        assert!(receivers[1].recv(&mut buffer).is_err());
    }

    #[test]
    fn a_report_is_of_the_moment_at_which_it_is_made() {
        let outlet = Outlet::default();
        outlet.open(&MasterKey::Counter([1; 30]), 7, 111, (0, 1000), None);
        outlet.send(b"opus", 5);
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!((1005 + 1440..1005 + 9600).contains(&outlet.counts().timestamp));
    }

    #[test]
    fn without_a_port_the_packet_is_handed_back() {
        let outlet = Outlet::default();
        outlet.open(&MasterKey::Counter([1; 30]), 7, 111, (0, 0), None);
        let Sent::Unsent(mut packet) = outlet.send(b"opus", 5) else { panic!("there is no port") };
        assert!(
            srtp::Receiver::<()>::new(&MasterKey::Counter([1; 30]))
                .unprotect(&mut packet)
                .is_some()
        );
        let (receiver, socket) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.connect(receiver.local_addr().unwrap()).unwrap();
        outlet.redirect(Some(Arc::new(Port(socket))));
        assert_eq!(outlet.send(b"opus", 6), Sent::Sent);
    }
}
