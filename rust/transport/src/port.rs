//! The socket of one connection.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Bytes asked for: a second of two hundred streams.
#[cfg(target_os = "linux")]
const RECEIVE_BUFFER: usize = 8 << 20;

/// A UDP socket between two addresses, which never blocks and tells when datagrams came.
pub struct Port(pub(crate) UdpSocket);

impl Port {
    /// A socket beside another one that is bound to `local` already, which has to allow it (`SO_REUSEADDR`) for the
    /// moment: from now on the kernel gives this one what comes from `remote`, and the other one all else.
    #[cfg(target_os = "linux")]
    pub fn beside(local: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
        };

        let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, None)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
        setsockopt(&fd, sockopt::ReuseAddr, &false)?;
        // The first needs a privilege, and is not bounded by `net.core.rmem_max`.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER));
        let socket = UdpSocket::from(fd);
        socket.connect(remote)?;
        let port = Self(socket);
        port.forget_what_came();
        Ok(port)
    }

    /// What came from anybody between `bind` and `connect`, a few packets at the most, is nobody's.
    #[cfg(target_os = "linux")]
    fn forget_what_came(&self) {
        let mut nothing = [0; 1];
        while self.0.recv(&mut nothing).is_ok() {}
    }

    /// The bytes that the kernel keeps for it at most, of its own bookkeeping as well: some 800 for a packet of audio.
    #[cfg(target_os = "linux")]
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(nix::sys::socket::getsockopt(&self.0, nix::sys::socket::sockopt::RcvBuf)?)
    }

    /// The same, where there are no ports.
    #[cfg(not(target_os = "linux"))]
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends a datagram. An error that an earlier one is told by (an ICMP message) is not this one's: it is tried again.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.0.send(datagram).or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Err(error),
            _ => self.0.send(datagram),
        })
    }

    /// Elsewhere no two sockets can share a port like that.
    #[cfg(not(target_os = "linux"))]
    pub fn beside(_: SocketAddr, _: SocketAddr) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nix::sys::socket::{setsockopt, sockopt};

    use audiomixer_core::Mixer;

    use super::*;
    use crate::cipher::MasterKey;
    use crate::srtp::Sender;
    use crate::{Inlet, Intake, Settings};

    /// A port on loopback, and the socket of its other side.
    fn connected() -> (Port, UdpSocket) {
        let [shared, peer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        setsockopt(&shared, sockopt::ReuseAddr, &true).unwrap();
        let local = shared.local_addr().unwrap();
        let port = Port::beside(local, peer.local_addr().unwrap()).unwrap();
        peer.connect(local).unwrap();
        (port, peer)
    }

    #[test]
    fn every_packet_of_two_hundred_streams_on_one_port_is_taken_in() {
        const STREAMS: u32 = 200;
        const TICKS: u32 = 150;
        let (port, peer) = connected();
        println!("receive buffer: {} bytes", port.receive_buffer().unwrap());
        let mixer = Mixer::new(48_000, 2, 0.04, 0.4).unwrap();
        let (intake, inlet) = (Intake::default(), Arc::new(Inlet::default()));
        let key = MasterKey::Counter([7; 30]);
        inlet.agree(Settings { key, payload_types: vec![111], level_extension: None });
        for ssrc in 0..STREAMS {
            let participant = mixer.add_participant(&ssrc.to_string()).unwrap();
            inlet.route(Some(ssrc), Some(participant));
        }
        intake.add(Arc::new(port), Arc::clone(&inlet), ()).unwrap();
        let mut senders: Vec<_> = (0..STREAMS).map(|_| Sender::new(&key)).collect();
        let send = |senders: &mut Vec<Sender>, tick: u32| {
            for (ssrc, sender) in (0..STREAMS).zip(senders) {
                let mut packet = vec![0x80, 111];
                packet.extend((tick as u16).to_be_bytes());
                packet.extend((960 * tick).to_be_bytes());
                packet.extend(ssrc.to_be_bytes());
                packet.extend([0xF8, 0xFF, 0xFE]);
                sender.protect(&mut packet);
                peer.send(&packet).unwrap();
            }
        };
        for tick in 0..TICKS {
            send(&mut senders, tick);
            intake.poll(0.02 * f64::from(tick), |(), _| panic!("it is all RTP"));
            assert_eq!(inlet.authentic(), u64::from(STREAMS * (tick + 1)));
        }
        // Nobody reads for 40 ms.
        send(&mut senders, TICKS);
        send(&mut senders, TICKS + 1);
        intake.poll(0.02 * f64::from(TICKS + 1), |(), _| panic!("it is all RTP"));
        assert_eq!(inlet.authentic(), u64::from(STREAMS * (TICKS + 2)));
    }

    #[test]
    fn of_what_is_no_rtp_a_few_datagrams_are_handed_on_at_a_time() {
        let (port, peer) = connected();
        let (intake, inlet) = (Intake::default(), Arc::new(Inlet::default()));
        intake.add(Arc::new(port), Arc::clone(&inlet), ()).unwrap();
        for _ in 0..50 {
            peer.send(b"\x16no RTP").unwrap();
        }
        let mut handed = 0;
        intake.poll(0.0, |(), _| handed += 1);
        assert_eq!((handed, inlet.noticed(), inlet.flooded()), (8, 8, 42));
        peer.send(b"\x16no RTP").unwrap();
        intake.poll(0.02, |(), _| handed += 1);
        assert_eq!(handed, 9);
    }

    #[test]
    fn what_an_earlier_packet_met_loses_no_later_one() {
        let (port, peer) = connected();
        let remote = peer.local_addr().unwrap();
        drop(peer);
        port.send(b"to a closed port").unwrap();
        let peer = UdpSocket::bind(remote).unwrap();
        port.send(b"again").unwrap();
        let mut buffer = [0; 100];
        peer.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(peer.recv(&mut buffer).unwrap(), b"again".len());
    }

    #[test]
    fn a_port_takes_what_comes_from_its_other_side_and_leaves_the_rest() {
        let shared = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = shared.local_addr().unwrap();
        let [peer, stranger] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let remote = peer.local_addr().unwrap();
        assert!(Port::beside(local, remote).is_err());
        setsockopt(&shared, sockopt::ReuseAddr, &true).unwrap();
        let port = Arc::new(Port::beside(local, remote).unwrap());
        setsockopt(&shared, sockopt::ReuseAddr, &false).unwrap();
        assert!(UdpSocket::bind(local).is_err());

        let (intake, inlet) = (Intake::default(), Arc::new(Inlet::default()));
        intake.add(port, Arc::clone(&inlet), "tag").unwrap();
        peer.send_to(b"from the peer", local).unwrap();
        stranger.send_to(b"from a stranger", local).unwrap();
        let mut seen = Vec::new();
        intake.poll(1.0, |tag, datagram| seen.push((*tag, datagram.to_vec())));
        assert_eq!(seen, [("tag", b"from the peer".to_vec())]);
        let mut buffer = [0; 100];
        shared.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(shared.recv(&mut buffer).unwrap(), b"from a stranger".len());
        assert_eq!(intake.remove(&inlet), Some("tag"));
        peer.send_to(b"for nobody", local).unwrap();
        intake.poll(2.0, |_, _| panic!("nothing is read any more"));
    }
}
