//! Sends packets that are encoded already, to one connection or to many.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use audiomixer_core::lock;

use crate::cipher::MasterKey;
use crate::now::now;
use crate::path::Path;
use crate::socket::Socket;
use crate::srtp;

/// Timestamps of Opus count 48 kHz (RFC 7587).
const CLOCK_RATE: f64 = 48_000.0;
/// In seconds.
const FORGOTTEN: f64 = 0.0001;
const LONGEST: usize = 1500;
const FIRST_OF_TALKSPURT: u8 = 0x80;
/// Packets that are sent in one system call.
const BATCH: usize = 32;

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Sent,
    /// It was dropped: nothing can be sent yet, or the kernel does not take it.
    Dropped,
    /// Encrypted, but there is no path to send it by: the caller has to.
    Unsent(Vec<u8>),
}

/// Sends one stream of packets to one connection. Usable from any thread.
#[derive(Default)]
pub struct Outlet(Mutex<State>);

#[derive(Default)]
struct State {
    open: Option<Open>,
    path: Option<Path>,
    counts: Counts,
    clock: Clock,
}

/// How the stream's time goes by the clock.
#[derive(Default)]
struct Clock {
    /// The stream's time at the last packet, in its units, wherever it began.
    time: i64,
    /// When the stream's time was zero, by those packets that were sent soonest; a timer is late now and then, never early.
    zero: Option<f64>,
}

impl Clock {
    /// A packet of `timestamp` is sent at `now`, so many seconds.
    fn tick(&mut self, timestamp: u32, now: f64) {
        self.time += i64::from(timestamp.wrapping_sub(self.time as u32) as i32);
        let zero = now - self.time as f64 / CLOCK_RATE;
        // Two clocks drift apart: what was soonest long ago is forgotten, by 0.1 ms with each packet.
        self.zero = Some(self.zero.map_or(zero, |soonest| zero.min(soonest + FORGOTTEN)));
    }

    /// The timestamp of `now`.
    fn at(&self, now: f64) -> Option<u32> {
        self.zero.map(|zero| ((now - zero) * CLOCK_RATE) as i64 as u32)
    }
}

struct Open {
    sender: srtp::Sender,
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    /// Added to the timestamps: a stream begins anywhere (RFC 3550, section 5.1).
    offset: u32,
}

/// What a sender report says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Packets sent.
    pub packets: u32,
    /// Bytes of payload in them.
    pub octets: u32,
    /// The timestamp as of now.
    pub timestamp: u32,
    /// Packets that the kernel did not take, or that were dropped before.
    pub dropped: u64,
}

impl Outlet {
    /// Begins to send, by `path` if there is one. `start` is where sequence numbers and timestamps begin.
    pub fn open(
        &self,
        key: &MasterKey,
        ssrc: u32,
        payload_type: u8,
        start: (u16, u32),
        path: Option<Path>,
    ) {
        let mut state = self.state();
        if path.is_some() {
            state.path = path;
        }
        state.open = Some(Open {
            sender: srtp::Sender::new(key),
            payload_type,
            ssrc,
            sequence: start.0,
            offset: start.1,
        });
    }

    /// Sends by another path from now on, or by none.
    pub fn redirect(&self, path: Option<Path>) {
        self.state().path = path;
    }

    /// That by which it sends.
    pub(crate) fn path(&self) -> Option<Path> {
        self.state().path.clone()
    }

    /// Sends nothing any more.
    pub fn close(&self) {
        let mut state = self.state();
        (state.open, state.path) = (None, None);
    }

    /// Sends `payload`, whose `timestamp` counts from any beginning.
    pub fn send(&self, payload: &[u8], timestamp: u32) -> Sent {
        thread_local! {
            static PACKET: RefCell<Vec<u8>> = Vec::with_capacity(LONGEST).into();
        }
        PACKET.with_borrow_mut(|packet| match self.seal(payload, timestamp, packet) {
            None => Sent::Dropped,
            Some(None) => Sent::Unsent(packet.clone()),
            Some(Some(path)) => match path.send(packet) {
                Ok(()) => Sent::Sent,
                Err(_) => {
                    self.lose(payload.len());
                    Sent::Dropped
                }
            },
        })
    }

    /// Makes `packet` the one to be sent, and counts it as sent; gives the path for it, if there is one. `None` if nothing can
    /// be sent yet.
    fn seal(&self, payload: &[u8], timestamp: u32, packet: &mut Vec<u8>) -> Option<Option<Path>> {
        let State { open, path, counts, clock } = &mut *self.state();
        let open = open.as_mut()?;
        open.seal(payload, timestamp, counts, packet);
        clock.tick(counts.timestamp, now());
        Some(path.clone())
    }

    /// What counts as sent has not been.
    fn lose(&self, octets: usize) {
        let counts = &mut self.state().counts;
        counts.packets = counts.packets.wrapping_sub(1);
        counts.octets = counts.octets.wrapping_sub(octets as u32);
        counts.dropped += 1;
    }

    /// So many packets were dropped before they got here.
    pub fn miss(&self, packets: u64) {
        self.state().counts.dropped += packets;
    }

    /// What was sent so far.
    pub fn counts(&self) -> Counts {
        let State { counts, clock, .. } = &*self.state();
        Counts { timestamp: clock.at(now()).unwrap_or_default(), ..*counts }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Open {
    fn seal(&mut self, payload: &[u8], timestamp: u32, counts: &mut Counts, packet: &mut Vec<u8>) {
        let timestamp = timestamp.wrapping_add(self.offset);
        let marker = if counts.packets == 0 { FIRST_OF_TALKSPURT } else { 0 };
        packet.clear();
        packet.extend([0x80, self.payload_type | marker]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        self.sender.protect(packet);
        self.sequence = self.sequence.wrapping_add(1);
        counts.packets = counts.packets.wrapping_add(1);
        counts.octets = counts.octets.wrapping_add(payload.len() as u32);
        counts.timestamp = timestamp;
    }
}

/// Sends the same packets to many outlets, each with something, `T`, by which the caller knows it.
pub struct Fanout<T>(Mutex<Vec<Option<Member<T>>>>);

type Member<T> = (Arc<Outlet>, T);

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Fanout<T> {
    /// Begins to send to an outlet.
    pub fn add(&self, outlet: Arc<Outlet>, tag: T) {
        let members = &mut *self.members();
        match members.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some((outlet, tag)),
            None => members.push(Some((outlet, tag))),
        }
    }

    /// Ceases to; what it had.
    pub fn remove(&self, outlet: &Arc<Outlet>) -> Option<T> {
        // The others keep their places: they may be in the middle of being sent to.
        let is_it = |member: &Member<T>| Arc::ptr_eq(&member.0, outlet);
        let mut members = self.members();
        let place = members.iter_mut().find(|place| place.as_ref().is_some_and(is_it))?;
        place.take().map(|(_, tag)| tag)
    }

    /// So many packets could not even be tried: they are counted for all.
    pub fn miss(&self, packets: u64) {
        self.members().iter().flatten().for_each(|(outlet, _)| outlet.miss(packets));
    }

    /// Sends `payload` to all; calls `unsent` with what has no path to be sent by.
    pub fn send(&self, payload: &[u8], timestamp: u32, mut unsent: impl FnMut(&T, Vec<u8>)) {
        thread_local! {
            static ROOM: RefCell<Batch> = Batch::default().into();
        }
        ROOM.with_borrow_mut(|batch| {
            for first in (0..).step_by(BATCH) {
                // Who comes or goes has to wait for a batch, not for all.
                let members = self.members();
                let Some(members) = members.get(first..).filter(|rest| !rest.is_empty()) else {
                    return;
                };
                let members = &members[..members.len().min(BATCH)];
                for (place, member) in members.iter().enumerate() {
                    let Some((outlet, tag)) = member else { continue };
                    let packet = &mut batch.packets[place];
                    match outlet.seal(payload, timestamp, packet) {
                        Some(None) => unsent(tag, packet.clone()),
                        Some(Some(Path::Udp { socket, source, remote })) => {
                            batch.waiting.push(Waiting { place, socket, source, remote });
                        }
                        Some(Some(path)) if path.send(packet).is_err() => {
                            outlet.lose(payload.len());
                        }
                        Some(Some(_)) | None => {}
                    }
                }
                batch.send(|place| {
                    let (outlet, _) = members[place].as_ref().expect("it was sealed by it");
                    outlet.lose(payload.len());
                });
            }
        });
    }

    fn members(&self) -> MutexGuard<'_, Vec<Option<Member<T>>>> {
        lock(&self.0)
    }
}

/// Packets that are sent together.
struct Batch {
    packets: Vec<Vec<u8>>,
    waiting: Vec<Waiting>,
}

/// A packet that waits to be sent by UDP.
struct Waiting {
    /// Which packet it is.
    place: usize,
    socket: Arc<Socket>,
    source: Option<IpAddr>,
    remote: SocketAddr,
}

impl Default for Batch {
    fn default() -> Self {
        let packets = (0..BATCH).map(|_| Vec::with_capacity(LONGEST)).collect();
        Self { packets, waiting: Vec::with_capacity(BATCH) }
    }
}

impl Batch {
    /// Sends what waits: all that goes by one socket and from one address at once. Calls `lost` with the places of packets
    /// that the kernel does not take.
    fn send(&mut self, mut lost: impl FnMut(usize)) {
        let Self { packets, waiting } = self;
        let by_one_way =
            |a: &Waiting, b: &Waiting| Arc::ptr_eq(&a.socket, &b.socket) && a.source == b.source;
        for group in waiting.chunk_by(by_one_way) {
            let mut datagrams: [(&[u8], SocketAddr); BATCH] = [(&[], group[0].remote); BATCH];
            for (datagram, one) in datagrams.iter_mut().zip(group) {
                *datagram = (&packets[one.place], one.remote);
            }
            let datagrams = &datagrams[..group.len()];
            group[0].socket.send(group[0].source, datagrams, |n| lost(group[n].place));
        }
        waiting.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// From any address of this machine, which is said.
    pub(crate) fn path_to(receiver: &UdpSocket) -> Path {
        let socket = Arc::new(Socket::bind("0.0.0.0:0".parse().unwrap()).unwrap());
        let remote = receiver.local_addr().unwrap();
        Path::Udp { source: Some(remote.ip()), socket, remote }
    }

    #[test]
    fn a_packet_goes_to_all_who_listen_and_reads_as_it_was_sent() {
        let receivers: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let fanout = Fanout::default();
        let mut outlets = Vec::new();
        for (n, receiver) in receivers.iter().enumerate() {
            let outlet = Arc::new(Outlet::default());
            assert_eq!(outlet.send(b"early", 0), Sent::Dropped);
            let key = MasterKey::Counter([n as u8; 30]);
            outlet.open(&key, 7, 111, (u16::MAX, u32::MAX), Some(path_to(receiver)));
            fanout.add(Arc::clone(&outlet), n);
            outlets.push(outlet);
        }
        assert_eq!(fanout.remove(&outlets[1]), Some(1));
        for n in 0..2 {
            fanout.send(b"opus", 960 * n, |_, _| panic!("all have a path"));
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
    fn without_a_path_the_packet_is_handed_back() {
        let outlet = Outlet::default();
        outlet.open(&MasterKey::Counter([1; 30]), 7, 111, (0, 0), None);
        let Sent::Unsent(mut packet) = outlet.send(b"opus", 5) else { panic!("there is no path") };
        assert!(
            srtp::Receiver::<()>::new(&MasterKey::Counter([1; 30]))
                .unprotect(&mut packet)
                .is_some()
        );
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        outlet.redirect(Some(path_to(&receiver)));
        assert_eq!(outlet.send(b"opus", 6), Sent::Sent);
    }
}
